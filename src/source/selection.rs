//! Which part of a source a backup takes: patterns over paths as they appear in a snapshot.
//!
//! A pattern begins at the snapshot's root: `Users/*/Outlook/Junk Email`. `*`, `?` and `[ab]` stay within a name, `**`
//! stands for any number of names, and `\` takes the next letter as it is, as in .gitignore (gitignore(5), "Pattern
//! format"). Unlike there, a pattern without a slash begins at the root too, and capital and small letters are the
//! same: addresses are so, and nobody should miss a mailbox over an `A`.
//!
//! What is included or excluded is so with everything below it, and what is excluded stays so whatever else includes
//! it.
//!
//! The patterns of a list share one tree of names (`patterns`), so that thousands of them cost little to read and to
//! ask.

mod name;
mod patterns;

use patterns::Patterns;

/// Patterns that a list may have.
pub const PATTERNS_MAX: usize = 10_000;
/// Bytes that a pattern may have, and names. No path that a service gives is longer.
const PATTERN_BYTES_MAX: usize = 1000;
const PATTERN_NAMES_MAX: usize = 64;
/// Letters of a pattern that an error repeats.
const SHOWN_LETTERS_MAX: usize = 80;

/// The path patterns of a backup set.
///
/// Paths are names joined by `/`, without one at either end; the root is empty. All is compared in small letters.
#[derive(Debug, Clone)]
pub struct Selection {
    /// `None` includes everything.
    include: Option<Patterns>,
    exclude: Patterns,
}

/// A pattern that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern `{pattern}` {problem}")]
pub struct PatternError {
    /// The pattern as it was written; the beginning of a long one.
    pub pattern: String,
    /// What is wrong with it, to follow its name.
    pub problem: String,
}

impl Selection {
    /// Creates the selection of everything that a pattern of `include` stands for, or of simply everything where there
    /// is none, without what a pattern of `exclude` stands for.
    ///
    /// # Errors
    /// [`PatternError`] for the first pattern that is none, or that is one too many.
    pub fn new<S: AsRef<str>>(include: &[S], exclude: &[S]) -> Result<Selection, PatternError> {
        let include = if include.is_empty() { None } else { Some(read(include)?) };
        Ok(Selection { include, exclude: read(exclude)? })
    }

    /// Returns whether the item or folder at `path` is part of the backup.
    pub fn selects(&self, path: &str) -> bool {
        let path = &path.to_lowercase();
        let included = self.include.as_ref().is_none_or(|include| include.at(path).matches);
        included && !self.exclude.at(path).matches
    }

    /// Returns whether what has two paths is part of the backup: a folder called in its owner's language, and as
    /// everybody else calls it. One of them is enough to include it, and one to exclude it.
    pub fn selects_either(&self, path: &str, other: &str) -> bool {
        let paths = [path.to_lowercase(), other.to_lowercase()];
        let included = |path: &String| self.include.as_ref().is_none_or(|include| include.at(path).matches);
        paths.iter().any(included) && !paths.iter().any(|path| self.exclude.at(path).matches)
    }

    /// Returns whether the folder at `path` is selected or something below it could be: whether to look inside.
    pub fn may_contain(&self, path: &str) -> bool {
        let path = &path.to_lowercase();
        let excluded = self.exclude.at(path);
        if excluded.matches || excluded.matches_all_below {
            return false;
        }
        let Some(include) = &self.include else { return true };
        let included = include.at(path);
        path.is_empty() || included.matches || included.may_match_below
    }
}

fn read<S: AsRef<str>>(list: &[S]) -> Result<Patterns, PatternError> {
    let mut patterns = Patterns::default();
    for (number, written) in list.iter().enumerate() {
        let written = written.as_ref();
        let wrong = |problem: String| {
            let mut letters = written.chars();
            let mut pattern: String = letters.by_ref().take(SHOWN_LETTERS_MAX).collect();
            pattern.push_str(if letters.next().is_some() { "..." } else { "" });
            PatternError { pattern, problem }
        };
        if number == PATTERNS_MAX {
            return Err(wrong(format!("is one too many: there may be {PATTERNS_MAX}")));
        }
        patterns.add(&names(written).map_err(wrong)?).map_err(|problem| wrong(format!("cannot be read: {problem}")))?;
    }
    Ok(patterns)
}

/// Returns the names that a pattern consists of, `**` among them, in small letters.
fn names(written: &str) -> Result<Vec<String>, String> {
    let wrong = |problem: &str| Err(problem.to_owned());
    if written.len() > PATTERN_BYTES_MAX {
        return Err(format!("has {} bytes, and may have {PATTERN_BYTES_MAX}", written.len()));
    }
    let path = written.strip_prefix('/').unwrap_or(written);
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return wrong("is empty");
    }
    if written.starts_with('!') {
        return wrong("begins with `!`, which is not supported: name what to include, and what of that to exclude");
    }
    let mut names: Vec<_> = path.split('/').map(str::to_lowercase).collect();
    if names.iter().any(|name| ["", ".", ".."].contains(&&**name)) {
        return wrong("holds an empty name, `.` or `..`");
    }
    if names.iter().any(|name| *name != "**" && name.contains("**")) {
        return wrong("has `**` beside other letters; between two slashes it stands alone");
    }
    if names.len() > PATTERN_NAMES_MAX {
        return Err(format!("has {} names, and may have {PATTERN_NAMES_MAX}", names.len()));
    }
    // Any number of names, twice, is any number of names.
    names.dedup_by(|name, before| *name == "**" && before == "**");
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [&str; 0] = [];

    fn selection(include: &[&str], exclude: &[&str]) -> Selection {
        Selection::new(include, exclude).unwrap()
    }

    #[test]
    fn without_patterns_everything_is_selected() {
        let all = Selection::new(&NONE, &NONE).unwrap();
        for path in ["", "Users", "Users/alice@contoso.com/Outlook/Inbox"] {
            assert!(all.selects(path) && all.may_contain(path), "{path:?}");
        }
    }

    #[test]
    fn a_pattern_matches_from_the_root_and_by_whole_names() {
        let cases = [
            ("Users/*", "Users/alice@contoso.com", true),
            ("Users/*", "Users", false),
            ("Users/*", "Teams/alice@contoso.com", false),
            ("/Users/*/", "Users/alice@contoso.com", true),
            ("Users/*/Outlook", "Users/alice@contoso.com/Outlook", true),
            ("Users/*/Outlook", "Users/alice@contoso.com/OneDrive/Outlook", false),
            ("Users/*/Outlook", "Users/alice@contoso.com/Outlook2", false),
            ("Outlook", "Users/alice@contoso.com/Outlook", false),
            ("**/Outlook", "Users/alice@contoso.com/Outlook", true),
            ("**/Outlook", "Outlook", true),
            ("Users/**/Invoices", "Users/Invoices", true),
            ("Users/**/Invoices", "Users/a/b/c/Invoices", true),
            ("Users/**/Invoices", "Teams/a/Invoices", false),
            ("Users/**", "Users/a/b", true),
            ("Users/**", "Users", false),
            ("**", "Users", true),
            ("Users/*@contoso.com", "Users/alice@contoso.com", true),
            ("Users/*@contoso.com", "Users/alice@fabrikam.com", false),
            ("Users/alic?", "Users/alice", true),
            ("Users/alic?", "Users/alic", false),
            ("Users/[ab]lice", "Users/alice", true),
            ("Users/[!ab]lice", "Users/alice", false),
            ("users/Alice@Contoso.com", "Users/alice@contoso.com", true),
            ("USERS/MÜLLER", "Users/müller", true),
            (r"a/what\?", "a/what?", true),
            (r"a/what\?", "a/whats", false),
            (r"a/\*", "a/*", true),
            (r"a/\*", "a/b", false),
            ("a/{b,c}", "a/{b,c}", true),
            ("a/{b,c}", "a/b", false),
            (r"a/\{b}", "a/{b}", true),
            ("a/[{]b}", "a/{b}", true),
            ("a/[]{]b", "a/{b", true),
            ("a/[!]]{", "a/x{", true),
            ("a/.*", "a/.hidden", true),
            ("a/*", "a/.hidden", true),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(selection(&[pattern], &[]).selects(path), expected, "{pattern} includes {path}");
            assert_eq!(!selection(&[], &[pattern]).selects(path), expected, "{pattern} excludes {path}");
        }
    }

    #[test]
    fn what_is_selected_is_so_with_all_below_it() {
        let some = selection(&["Users/*/Outlook", "Teams"], &["Users/*/Outlook/Junk Email", "**/Drafts"]);
        for path in ["Users/a/Outlook", "Users/a/Outlook/Inbox/2026/x.eml", "Teams", "Teams/b/General"] {
            assert!(some.selects(path) && some.may_contain(path), "{path}");
        }
        let excluded =
            ["Users/a/Outlook/Junk Email", "Users/a/Outlook/Junk Email/sub/x.eml", "Teams/Drafts", "Teams/x/Drafts/y"];
        for path in excluded {
            assert!(!some.selects(path) && !some.may_contain(path), "{path}");
        }
        for path in ["", "Users", "Users/a"] {
            assert!(!some.selects(path) && some.may_contain(path), "on the way: {path}");
        }
        for path in ["Users/a/OneDrive", "Users/a/OneDrive/x", "Site Collections", "Team"] {
            assert!(!some.selects(path) && !some.may_contain(path), "elsewhere: {path}");
        }
        assert!(some.selects("Users/a/Outlook/Junk Email 2"), "a name that only begins like an excluded one");
    }

    #[test]
    fn exclusion_wins_over_what_is_included_below_it() {
        let some = selection(&["Users/*", "Users/*/Outlook/Junk Email/keep"], &["Users/*/Outlook/Junk Email"]);
        assert!(!some.selects("Users/a/Outlook/Junk Email/keep"));
        assert!(!some.may_contain("Users/a/Outlook/Junk Email"));
    }

    #[test]
    fn double_stars_lead_anywhere_below_what_stands_before_them() {
        let some = selection(&["Users/*/Outlook/**/Invoices/2026"], &[]);
        for path in ["Users", "Users/a", "Users/a/Outlook", "Users/a/Outlook/x", "Users/a/Outlook/x/y/Invoices"] {
            assert!(some.may_contain(path) && !some.selects(path), "{path}");
        }
        assert!(!some.may_contain("Users/a/OneDrive"));
        assert!(selection(&["**/x"], &[]).may_contain("any/where"));
    }

    #[test]
    fn a_folder_whose_content_is_excluded_is_kept_and_not_looked_into() {
        let some = selection(&[], &["Users/*/Outlook/Junk Email/**"]);
        assert!(some.selects("Users/a/Outlook/Junk Email"));
        assert!(!some.may_contain("Users/a/Outlook/Junk Email"));
        assert!(!some.selects("Users/a/Outlook/Junk Email/x.eml"));
        assert!(some.may_contain("Users/a/Outlook"));
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_its_text() {
        for pattern in ["", "/", "a//b", "./a", "a/../b", "a/b**", "a/**b/c", "!a", "a/[b", "a/[]", "a/[b-a]", "a\\"] {
            let error = Selection::new(&[pattern], &[]).expect_err(pattern);
            assert!(error.pattern == pattern && !error.problem.is_empty(), "{error}");
            assert!(Selection::new(&[], &["fine", pattern]).is_err());
        }
    }

    #[test]
    fn thousands_of_patterns_cost_little_and_more_are_refused() {
        let numbered =
            |count: usize| (0..count).map(|n| format!("Users/*{n}@contoso.com/**/[ab]{n}?")).collect::<Vec<_>>();
        let started = std::time::Instant::now();
        let some = Selection::new(&numbered(PATTERNS_MAX), &numbered(PATTERNS_MAX - 1)).unwrap();
        for n in 0..100 {
            assert!(!some.selects(&format!("Users/u{n}@contoso.com/x/a{n}b/below")));
        }
        assert!(some.selects(&format!("Users/u{0}@contoso.com/x/y/a{0}b", PATTERNS_MAX - 1)));
        // A debug build on a busy machine; it takes a tenth of that.
        assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
        let error = Selection::new(&NONE.map(str::to_owned), &numbered(200_000)).unwrap_err();
        assert!(error.pattern.contains("*10000@") && error.problem.contains("10000"), "{error}");
        for (long, why) in [("a".repeat(1001), "1001 bytes"), ("ä/".repeat(65), "65 names")] {
            let error = Selection::new(&[&long], &[]).unwrap_err();
            assert!(error.problem.contains(why) && error.pattern.len() < 200, "{error}");
        }
        assert!(Selection::new(&["a".repeat(1000), "a/".repeat(64)], &[]).is_ok());
    }

    proptest::proptest! {
        /// `globset` reads patterns as .gitignore does, and is what read them before.
        #[test]
        fn patterns_mean_what_they_mean_elsewhere(
            pattern in "([ab?*]{1,4}|\\*\\*|[ab]?\\[[!]?[a-c][b-d]?\\][*]?|a\\\\[*?]b)(/([ab?*]{1,4}|\\*\\*|a\\*b)){0,3}",
            path in "[abc*]{1,5}(/[abc]{1,5}){0,4}",
        ) {
            let Ok(some) = Selection::new(&[&pattern], &[]) else { return Ok(()) };
            let glob = globset::GlobBuilder::new(&pattern).literal_separator(true).backslash_escape(true).build().unwrap();
            let glob = glob.compile_matcher();
            let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
            let expected = ends.into_iter().any(|end| glob.is_match(&path[..end]));
            proptest::prop_assert_eq!(some.selects(&path), expected, "{} {}", pattern, path);
        }

        /// What is selected can be reached: every folder that it lies in may contain it.
        #[test]
        fn whatever_is_selected_can_be_reached(
            include in proptest::collection::vec("([ab*]|\\*\\*)(/([ab?]|\\*\\*|\\*b)){0,3}", 0..3),
            exclude in proptest::collection::vec("([ab*]|\\*\\*)(/([ab?]|\\*\\*|\\*b)){0,3}", 0..3),
            path in "[ab]{1,2}(/[ab]{1,2}){0,4}",
        ) {
            let some = Selection::new(&include, &exclude).unwrap();
            if some.selects(&path) {
                for (at, _) in path.match_indices('/') {
                    proptest::prop_assert!(some.may_contain(&path[..at]), "{}", &path[..at]);
                }
            }
            if !some.may_contain(&path) {
                let below = format!("{path}/below");
                proptest::prop_assert!(!some.selects(&below), "{}", below);
            }
        }
    }
}

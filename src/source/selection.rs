//! Selects the part of a source that a backup takes, by patterns of paths as they appear in a snapshot.
//!
//! A pattern begins at the root of the snapshot: `Users/*/Outlook/Junk Email`. As in .gitignore (gitignore(5), "Pattern
//! format"), `*`, `?` and `[ab]` match within a name, `**` matches any number of names, and `\` takes the next letter
//! literally. Two things differ from .gitignore: a pattern without a slash also begins at the root, and upper and lower
//! case are the same. Mail addresses ignore case, and a wrong `A` must not leave a mailbox out of the backup.
//!
//! A pattern applies to what it matches and to everything below. What is excluded stays excluded, even if another
//! pattern includes it.
//!
//! The patterns of a list share one tree of names (see `patterns`), so thousands of them are quick to read and to
//! match.

mod name;
mod patterns;

use patterns::Patterns;

/// Maximum number of patterns in a list.
pub const PATTERNS_MAX: usize = 10_000;
/// Maximum length of a pattern, in bytes and in names. No path from a service is longer.
const PATTERN_BYTES_MAX: usize = 1000;
const PATTERN_NAMES_MAX: usize = 64;
/// Maximum number of letters of a pattern that an error message quotes.
const SHOWN_LETTERS_MAX: usize = 80;

/// The path patterns of a backup set.
///
/// A path is a list of names joined by `/`, with no `/` at either end. The path of the root is empty. All comparisons
/// are in lower case.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The patterns to include; `None` includes everything.
    include: Option<Patterns>,
    exclude: Patterns,
}

/// A pattern that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern `{pattern}` {problem}")]
pub struct PatternError {
    /// The pattern as it was written; only the beginning of a long one.
    pub pattern: String,
    /// What is wrong, as the end of a sentence that begins with the pattern.
    pub problem: String,
}

impl Selection {
    /// Creates a selection of everything that a pattern in `include` matches, minus everything that a pattern in
    /// `exclude` matches. If `include` is empty, everything is included.
    ///
    /// # Errors
    /// [`PatternError`] for the first pattern that is not valid, or for the first one beyond [`PATTERNS_MAX`].
    pub fn new<S: AsRef<str>>(include: &[S], exclude: &[S]) -> Result<Selection, PatternError> {
        let include = if include.is_empty() { None } else { Some(read(include)?) };
        Ok(Selection { include, exclude: read(exclude)? })
    }

    /// Returns true if the item or folder at `path` is part of the backup.
    pub fn selects(&self, path: &str) -> bool {
        let path = &path.to_lowercase();
        let included = self.include.as_ref().is_none_or(|include| include.at(path).matches);
        included && !self.exclude.at(path).matches
    }

    /// Returns true if an item or folder with two paths is part of the backup. A folder has two if its name in the
    /// owner's language differs from its usual name. A pattern that matches either path counts, both for including and
    /// for excluding.
    pub fn selects_either(&self, path: &str, other: &str) -> bool {
        let paths = [path.to_lowercase(), other.to_lowercase()];
        let included = |path: &String| self.include.as_ref().is_none_or(|include| include.at(path).matches);
        paths.iter().any(included) && !paths.iter().any(|path| self.exclude.at(path).matches)
    }

    /// Returns true if the folder at `path` is selected, or if something below it may be. Then the backup looks inside.
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
            return Err(wrong(format!("is one too many; the maximum is {PATTERNS_MAX}")));
        }
        patterns.add(&names(written).map_err(wrong)?).map_err(|problem| wrong(format!("cannot be read: {problem}")))?;
    }
    Ok(patterns)
}

/// Returns the names that a pattern consists of, including `**`, in lower case.
fn names(written: &str) -> Result<Vec<String>, String> {
    let wrong = |problem: &str| Err(problem.to_owned());
    if written.len() > PATTERN_BYTES_MAX {
        return Err(format!("has {} bytes; the maximum is {PATTERN_BYTES_MAX}", written.len()));
    }
    let path = written.strip_prefix('/').unwrap_or(written);
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return wrong("is empty");
    }
    if written.starts_with('!') {
        return wrong("begins with `!`, which is not supported; write what to leave out into the exclude list");
    }
    let mut names: Vec<_> = path.split('/').map(str::to_lowercase).collect();
    if names.iter().any(|name| ["", ".", ".."].contains(&&**name)) {
        return wrong("holds an empty name, `.` or `..`");
    }
    if names.iter().any(|name| *name != "**" && name.contains("**")) {
        return wrong("has `**` beside other letters; `**` must stand alone between slashes");
    }
    if names.len() > PATTERN_NAMES_MAX {
        return Err(format!("has {} names; the maximum is {PATTERN_NAMES_MAX}", names.len()));
    }
    // `**/**` matches the same as `**`.
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
            ("b[!a]*", "b/a", false),
            ("b[!a]*", "bc/a", true),
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
    fn a_pattern_selects_everything_below_its_match() {
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
    fn an_invalid_pattern_is_refused_and_quoted() {
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
        // This limit is for a debug build on a busy machine; usually a tenth is enough.
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
        /// The crate `globset` reads patterns as .gitignore does, but for `[!a]`, which matches a slash there. So the
        /// slash is added to what `[!a]` excludes. Earlier versions used the crate for these patterns.
        #[test]
        fn patterns_match_as_globset_matches_them(
            pattern in "([ab?*]{1,4}|\\*\\*|[ab]?\\[[!]?[a-c][b-d]?\\][*]?|a\\\\[*?]b)(/([ab?*]{1,4}|\\*\\*|a\\*b)){0,3}",
            path in "[abc*]{1,5}(/[abc]{1,5}){0,4}",
        ) {
            let Ok(some) = Selection::new(&[&pattern], &[]) else { return Ok(()) };
            let without_slash = pattern.replace("[!", "[!/");
            let mut glob = globset::GlobBuilder::new(&without_slash);
            let glob = glob.literal_separator(true).backslash_escape(true).build().unwrap().compile_matcher();
            let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
            let expected = ends.into_iter().any(|end| glob.is_match(&path[..end]));
            proptest::prop_assert_eq!(some.selects(&path), expected, "{} {}", pattern, path);
        }

        /// If an item is selected, `may_contain` is true for every folder that the item lies in.
        #[test]
        fn every_selected_path_can_be_reached(
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

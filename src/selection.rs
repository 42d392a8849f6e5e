//! Which part of a source a backup takes: patterns over paths as they appear in a snapshot.
//!
//! A pattern begins at the snapshot's root: `Users/*/Outlook/Junk Email`. `*`, `?` and `[ab]` stay within a name, `**`
//! stands for any number of names, and `\` takes the next letter as it is, as in .gitignore (gitignore(5), "Pattern
//! format"). Unlike there, a pattern without a slash begins at the root too, and capital and small letters are the same:
//! addresses are so, and nobody should miss a mailbox over an `A`.
//!
//! What is included or excluded is so with everything below it, and what is excluded stays so whatever else includes it.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// The path patterns of a backup set.
///
/// Paths are names joined by `/`, without one at either end; the root is empty. All is compared in small letters.
#[derive(Debug, Clone)]
pub struct Selection {
    /// `None` includes everything.
    include: Option<GlobSet>,
    exclude: GlobSet,
    /// Folders that an included path may lie below.
    towards: GlobSet,
    /// Folders that are excluded with all their content, but not themselves: `a` of the pattern `a/**`.
    emptied: GlobSet,
}

/// A pattern that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern `{pattern}` {problem}")]
pub struct PatternError {
    /// The pattern as it was written.
    pub pattern: String,
    /// What is wrong with it, to follow its name.
    pub problem: String,
}

impl Selection {
    /// Creates the selection of everything that a pattern of `include` stands for, or of simply everything where there is
    /// none, without what a pattern of `exclude` stands for.
    ///
    /// # Errors
    /// [`PatternError`] for the first pattern that is none.
    pub fn new<S: AsRef<str>>(include: &[S], exclude: &[S]) -> Result<Selection, PatternError> {
        let include = include.iter().map(|pattern| Pattern::parse(pattern.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let exclude = exclude.iter().map(|pattern| Pattern::parse(pattern.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let emptied = exclude.iter().filter_map(Pattern::emptied);
        Ok(Selection {
            include: if include.is_empty() { None } else { Some(set(include.iter().map(Pattern::whole))?) },
            exclude: set(exclude.iter().map(Pattern::whole))?,
            towards: set(include.iter().flat_map(Pattern::towards))?,
            emptied: set(emptied)?,
        })
    }

    /// Returns whether the item or folder at `path` is part of the backup.
    pub fn selects(&self, path: &str) -> bool {
        let path = &path.to_lowercase();
        let included = self.include.as_ref().is_none_or(|include| matches_any_level(include, path));
        included && !matches_any_level(&self.exclude, path)
    }

    /// Returns whether what has two paths is part of the backup: a folder called in its owner's language, and as everybody
    /// else calls it. One of them is enough to include it, and one to exclude it.
    pub fn selects_either(&self, path: &str, other: &str) -> bool {
        let paths = [path.to_lowercase(), other.to_lowercase()];
        let included = |path: &String| self.include.as_ref().is_none_or(|include| matches_any_level(include, path));
        paths.iter().any(included) && !paths.iter().any(|path| matches_any_level(&self.exclude, path))
    }

    /// Returns whether the folder at `path` is selected or something below it could be: whether to look inside.
    pub fn may_contain(&self, path: &str) -> bool {
        let path = &path.to_lowercase();
        if matches_any_level(&self.exclude, path) || matches_any_level(&self.emptied, path) {
            return false;
        }
        let Some(include) = &self.include else { return true };
        path.is_empty() || matches_any_level(include, path) || self.towards.is_match(path)
    }
}

/// Whether `set` matches `path` or a folder that it lies in.
fn matches_any_level(set: &GlobSet, path: &str) -> bool {
    let slashes = path.bytes().enumerate().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at);
    slashes.chain([path.len()]).any(|end| set.is_match(&path[..end]))
}

/// The names that a pattern consists of, `**` among them.
struct Pattern<'a> {
    written: &'a str,
    names: Vec<&'a str>,
}

impl<'a> Pattern<'a> {
    fn parse(written: &'a str) -> Result<Pattern<'a>, PatternError> {
        let wrong = |problem: &str| PatternError { pattern: written.to_owned(), problem: problem.to_owned() };
        let path = written.strip_prefix('/').unwrap_or(written);
        let path = path.strip_suffix('/').unwrap_or(path);
        if path.is_empty() {
            return Err(wrong("is empty"));
        }
        if written.starts_with('!') {
            return Err(wrong(
                "begins with `!`, which is not supported: name what to include, and what of that to exclude",
            ));
        }
        let names: Vec<_> = path.split('/').collect();
        if names.iter().any(|name| ["", ".", ".."].contains(name)) {
            return Err(wrong("holds an empty name, `.` or `..`"));
        }
        if names.iter().any(|name| *name != "**" && name.contains("**")) {
            return Err(wrong("has `**` beside other letters; between two slashes it stands alone"));
        }
        Ok(Pattern { written, names })
    }

    /// The whole pattern. With the name it was written as, for errors; so do the others.
    fn whole(&self) -> (&'a str, String) {
        (self.written, self.names.join("/"))
    }

    /// Patterns of all folders below which a match may lie.
    fn towards(&self) -> Vec<(&'a str, String)> {
        let fixed = self.names.iter().position(|name| *name == "**").unwrap_or(self.names.len());
        let mut patterns: Vec<_> = (1..self.names.len()).take(fixed).map(|len| self.names[..len].join("/")).collect();
        if fixed < self.names.len() {
            // Any folder below what stands before `**`.
            patterns.push(self.names[..=fixed].join("/"));
        }
        patterns.into_iter().map(|pattern| (self.written, pattern)).collect()
    }

    fn emptied(&self) -> Option<(&'a str, String)> {
        match self.names.split_last() {
            Some((&"**", before)) if !before.is_empty() => Some((self.written, before.join("/"))),
            _ => None,
        }
    }
}

fn set<'a>(patterns: impl IntoIterator<Item = (&'a str, String)>) -> Result<GlobSet, PatternError> {
    let mut builder = GlobSetBuilder::new();
    let mut last = "";
    for (written, pattern) in patterns {
        last = written;
        let glob = GlobBuilder::new(&with_plain_braces(&pattern.to_lowercase()))
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|error| wrong(written, &error))?;
        builder.add(glob);
    }
    // Only sets too large for the matcher fail here, so the last pattern is as good as any.
    builder.build().map_err(|error| wrong(last, &error))
}

fn wrong(pattern: &str, error: &globset::Error) -> PatternError {
    PatternError { pattern: pattern.to_owned(), problem: format!("cannot be read: {}", error.kind()) }
}

/// Escapes braces, which are letters like others in .gitignore and alternatives in `globset`.
fn with_plain_braces(pattern: &str) -> String {
    let mut plain = String::with_capacity(pattern.len());
    let mut escaped = false;
    // Within `[...]` nothing is escaped; `]` as its first letter does not end it.
    let mut class_letters = None::<usize>;
    for letter in pattern.chars() {
        match class_letters {
            Some(letters) if letter == ']' && letters > 0 => class_letters = None,
            Some(letters) if letters > 0 || !['!', '^'].contains(&letter) => class_letters = Some(letters + 1),
            Some(_) => {}
            None if !escaped && letter == '[' => class_letters = Some(0),
            None if !escaped && ['{', '}'].contains(&letter) => plain.push('\\'),
            None => {}
        }
        escaped = class_letters.is_none() && !escaped && letter == '\\';
        plain.push(letter);
    }
    plain
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
        for pattern in ["", "/", "a//b", "./a", "a/../b", "a/b**", "a/**b/c", "!a", "a/[b", "a\\"] {
            let error = Selection::new(&[pattern], &[]).expect_err(pattern);
            assert!(error.pattern == pattern && !error.problem.is_empty(), "{error}");
            assert!(Selection::new(&[], &["fine", pattern]).is_err());
        }
    }

    proptest::proptest! {
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

//! Patterns of paths that a backup of folders leaves out. They are written as in .gitignore (gitignore(5), "Pattern
//! format").
//!
//! - A pattern without a slash, or with one only at its end, matches a name at any depth. Any other pattern begins at
//!   the source.
//! - `*`, `?` and `[ab]` match within a name. `**` matches any number of names. `\` takes the next letter literally.
//! - A slash at the end limits the pattern to folders.
//! - `!` in front includes again what an earlier pattern excludes. The last pattern that matches decides.
//! - Nothing in an excluded folder is looked at.
//!
//! Names are bytes. A letter is a character where the bytes are UTF-8, and one byte elsewhere.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Maximum number of patterns, because every pattern is compared with every name.
pub const PATTERNS_MAX: usize = 10_000;
/// Maximum length of a pattern, in bytes.
const PATTERN_LEN_MAX: usize = 4096;

/// A pattern that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern `{pattern}` {problem}")]
pub struct PatternError {
    /// The pattern as it was written.
    pub pattern: String,
    /// What is wrong, as the end of a sentence that begins with the pattern.
    pub problem: String,
}

/// The patterns of what is left out.
#[derive(Debug, Clone, Default)]
pub struct Exclusions {
    /// Patterns that match one exact name at any depth, each with the number of the last such pattern.
    plain: HashMap<Box<[u8]>, usize>,
    /// All other patterns, with their numbers.
    others: Vec<(usize, Pattern)>,
    /// For each pattern, by its number: whether it includes again what others exclude.
    negated: Vec<bool>,
}

#[derive(Debug, Clone)]
struct Pattern {
    names: Vec<Name>,
    folders_only: bool,
    /// The number of the source that the pattern applies to; `None` for all sources.
    source: Option<usize>,
}

#[derive(Debug, Clone)]
enum Name {
    /// `**`
    AnyNumber,
    Letters(Vec<Letter>),
}

#[derive(Debug, Clone)]
enum Letter {
    Byte(u8),
    /// `?`
    One,
    /// `*`
    Any,
    /// `[a-z]`
    Class {
        ranges: Vec<(char, char)>,
        negated: bool,
    },
}

impl Exclusions {
    /// Creates exclusions from `patterns`; the last one that matches decides. `sources` are the absolute paths of the
    /// folders that are backed up. A pattern that begins with one of these paths applies to that source only.
    ///
    /// # Errors
    /// [`PatternError`] for the first pattern that is not valid.
    pub fn new(patterns: &[Vec<u8>], sources: &[PathBuf]) -> Result<Self, PatternError> {
        let mut exclusions = Self::default();
        if let Some(pattern) = patterns.get(PATTERNS_MAX) {
            return Err(error(pattern, &format!("is one too many; the maximum is {PATTERNS_MAX}")));
        }
        for (number, written) in patterns.iter().enumerate() {
            let (negated, pattern) = Pattern::parse(written, sources)?;
            exclusions.negated.push(negated);
            match pattern.plain_name() {
                Some(name) => drop(exclusions.plain.insert(name, number)),
                None => exclusions.others.push((number, pattern)),
            }
        }
        Ok(exclusions)
    }

    /// Returns true if there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.negated.is_empty()
    }

    /// Returns true if the item at `path`, below the source with the number `source`, is left out.
    pub fn excludes(&self, source: usize, path: &[u8], is_folder: bool) -> bool {
        if self.is_empty() {
            return false;
        }
        let names: Vec<_> = path.split(|byte| *byte == b'/').collect();
        let plain = names.last().and_then(|name| self.plain.get(*name)).copied();
        let first = plain.map_or(0, |number| self.others.partition_point(|(other, _)| *other < number));
        // Search from the end, because the last pattern that matches decides.
        let mut behind = self.others[first..].iter().rev();
        let other = behind.find(|(_, pattern)| pattern.matches(source, &names, is_folder)).map(|(number, _)| *number);
        other.max(plain).is_some_and(|number| !self.negated[number])
    }
}

fn error(pattern: &[u8], problem: &str) -> PatternError {
    PatternError { pattern: String::from_utf8_lossy(pattern).into_owned(), problem: problem.to_owned() }
}

impl Pattern {
    fn parse(written: &[u8], sources: &[PathBuf]) -> Result<(bool, Self), PatternError> {
        let wrong = |problem: &str| error(written, problem);
        if written.len() > PATTERN_LEN_MAX {
            return Err(wrong("is longer than 4096 bytes"));
        }
        if written.contains(&0) {
            return Err(wrong("contains a zero byte, which no name can"));
        }
        let (negated, pattern) = match written.strip_prefix(b"!") {
            Some(pattern) => (true, pattern),
            None => (false, written),
        };
        let (source, below) = match sources.iter().enumerate().find_map(|(at, path)| Some((at, below(path, pattern)?)))
        {
            Some((source, below)) => (Some(source), below),
            None => (None, pattern),
        };
        let (folders_only, path) = match below.strip_suffix(b"/") {
            Some(path) => (true, path),
            None => (false, below),
        };
        let is_anchored = source.is_some() || path.contains(&b'/');
        let path = path.strip_prefix(b"/").unwrap_or(path);
        if path.is_empty() {
            return Err(wrong(if source.is_some() { "would leave out all of a source" } else { "is empty" }));
        }
        let mut names = if is_anchored { Vec::new() } else { vec![Name::AnyNumber] };
        for name in path.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." | b".." => return Err(wrong("holds an empty name, `.` or `..`")),
                b"**" => names.push(Name::AnyNumber),
                name if name.windows(2).any(|pair| pair == b"**") && !has_escaped_star(name) => {
                    return Err(wrong("has `**` beside other letters; `**` must stand alone between slashes"));
                }
                name => names.push(Name::Letters(letters(name).map_err(wrong)?)),
            }
        }
        Ok((negated, Self { names, folders_only, source }))
    }

    /// Returns the name if the pattern matches exactly that name at any depth, and nothing else.
    fn plain_name(&self) -> Option<Box<[u8]>> {
        match (&self.names[..], self.folders_only, self.source) {
            ([Name::AnyNumber, Name::Letters(letters)], false, None) => letters
                .iter()
                .map(|letter| if let Letter::Byte(byte) = letter { Some(*byte) } else { None })
                .collect::<Option<Vec<_>>>()
                .map(Into::into),
            _ => None,
        }
    }

    fn matches(&self, source: usize, path: &[&[u8]], is_folder: bool) -> bool {
        if self.folders_only && !is_folder || self.source.is_some_and(|of| of != source) {
            return false;
        }
        // Compare the last name first: most paths fail there.
        if let (Some(Name::Letters(letters)), Some(last)) = (self.names.last(), path.last()) {
            if !matches_name(letters, last) {
                return false;
            }
            if let [Name::AnyNumber, _] = &self.names[..] {
                return true;
            }
        }
        // `reached[n]`: the first n parts of the pattern match the names so far.
        let mut reached = vec![false; self.names.len() + 1];
        reached[0] = true;
        for name in path {
            let mut next = vec![false; reached.len()];
            for at in 0..self.names.len() {
                // `**` may match no name at all, except at the end: `a/**` matches what is in `a`, but not `a`.
                let is_skipped = reached[at] && at + 1 < self.names.len();
                match &self.names[at] {
                    Name::AnyNumber => {
                        reached[at + 1] |= is_skipped;
                        next[at] |= reached[at];
                        next[at + 1] |= reached[at];
                    }
                    Name::Letters(letters) => next[at + 1] |= reached[at] && matches_name(letters, name),
                }
            }
            reached = next;
        }
        reached[self.names.len()]
    }
}

/// Returns the rest of `pattern` after the path of `source`, if the pattern begins with that path.
fn below<'a>(source: &Path, pattern: &'a [u8]) -> Option<&'a [u8]> {
    let source = source.as_os_str().as_bytes();
    let below = pattern.strip_prefix(source.strip_suffix(b"/").unwrap_or(source))?;
    // Every anchored pattern begins with `/`, so that says nothing about a source `/`.
    (source != b"/" && (below.is_empty() || below.starts_with(b"/"))).then_some(below)
}

fn has_escaped_star(name: &[u8]) -> bool {
    let mut at = 0;
    while at < name.len() {
        match name[at] {
            b'\\' => at += 2,
            b'*' if name.get(at + 1) == Some(&b'*') => return false,
            _ => at += 1,
        }
    }
    true
}

fn letters(name: &[u8]) -> Result<Vec<Letter>, &'static str> {
    let mut letters = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        letters.push(match byte {
            b'\\' => {
                let (&escaped, behind) = rest.split_first().ok_or("ends in `\\`, but no letter follows")?;
                rest = behind;
                Letter::Byte(escaped)
            }
            b'?' => Letter::One,
            b'*' => Letter::Any,
            b'[' => {
                let (class, behind) = class(rest)?;
                rest = behind;
                class
            }
            byte => Letter::Byte(byte),
        });
    }
    Ok(letters)
}

/// Reads a class such as `[a-z]`, from after its `[`.
fn class(mut rest: &[u8]) -> Result<(Letter, &[u8]), &'static str> {
    const OPEN: &str = "has a `[` without a `]`; write `\\[` for the letter";
    let negated = rest.first().is_some_and(|byte| matches!(byte, b'!' | b'^'));
    rest = &rest[usize::from(negated)..];
    let mut ranges = Vec::new();
    let letter = |rest: &mut &[u8]| -> Result<char, &'static str> {
        if rest.first() == Some(&b'\\') {
            *rest = &rest[1..];
        }
        let (letter, len) = first_letter(rest).ok_or(OPEN)?;
        *rest = &rest[len..];
        letter.ok_or("has bytes between `[` and `]` that are not UTF-8")
    };
    loop {
        match rest.first() {
            // A `]` right after the `[` is an ordinary letter.
            Some(b']') if !ranges.is_empty() => return Ok((Letter::Class { ranges, negated }, &rest[1..])),
            None => return Err(OPEN),
            _ => {}
        }
        let first = letter(&mut rest)?;
        let last = match rest {
            [b'-', next, ..] if *next != b']' => {
                rest = &rest[1..];
                letter(&mut rest)?
            }
            _ => first,
        };
        if last < first {
            return Err("has a range between `[` and `]` that ends before it begins");
        }
        ranges.push((first, last));
    }
}

/// Returns the first letter and its length in bytes. The letter is `None` for a byte that is not UTF-8.
fn first_letter(bytes: &[u8]) -> Option<(Option<char>, usize)> {
    let len = match bytes.first()? {
        0..=0x7f => 1,
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Some((None, 1)),
    };
    let text = bytes.get(..len).and_then(|bytes| std::str::from_utf8(bytes).ok());
    Some(text.and_then(|text| text.chars().next()).map_or((None, 1), |letter| (Some(letter), len)))
}

/// Returns true if `letters` match the whole of `name`. Only the last `*` is ever tried again, so the number of steps
/// is at most the product of the two lengths.
fn matches_name(letters: &[Letter], name: &[u8]) -> bool {
    let (mut letter, mut at) = (0, 0);
    // For the last `*`: the letter after it, and the position in the name where that letter is tried next.
    let mut again = None::<(usize, usize)>;
    loop {
        let step = match letters.get(letter) {
            Some(Letter::Any) => {
                again = Some((letter + 1, at));
                letter += 1;
                continue;
            }
            Some(Letter::Byte(byte)) => (name.get(at) == Some(byte)).then_some(1),
            Some(Letter::One) => first_letter(&name[at..]).map(|(_, len)| len),
            Some(Letter::Class { ranges, negated }) => first_letter(&name[at..]).and_then(|(found, len)| {
                let is_in = found.is_some_and(|found| ranges.iter().any(|(a, b)| (*a..=*b).contains(&found)));
                (is_in != *negated).then_some(len)
            }),
            None if at == name.len() => return true,
            None => None,
        };
        match (step, again) {
            (Some(len), _) => (letter, at) = (letter + 1, at + len),
            (None, Some((behind, tried))) if tried < name.len() => {
                again = Some((behind, tried + 1));
                (letter, at) = (behind, tried + 1);
            }
            _ => return false,
        }
    }
}

/// Returns the patterns in a file, one per line. Empty lines and lines that begin with `#` are skipped. Blanks at the
/// end of a line are removed, unless a `\` stands before them.
pub fn patterns_of_file(text: &[u8]) -> Vec<Vec<u8>> {
    let line = |line: &[u8]| {
        let mut line = line.strip_suffix(b"\r").unwrap_or(line);
        while let [before @ .., b' ' | b'\t'] = line {
            // An odd number of backslashes escapes the blank.
            if before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1 {
                break;
            }
            line = before;
        }
        line.to_vec()
    };
    let lines = text.split(|byte| *byte == b'\n').map(line);
    lines.filter(|line| !line.is_empty() && !line.starts_with(b"#")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exclusions(patterns: &[&str]) -> Exclusions {
        let patterns: Vec<_> = patterns.iter().map(|pattern| pattern.as_bytes().to_vec()).collect();
        Exclusions::new(&patterns, &["/home/alice".into(), "/srv".into()]).unwrap()
    }

    #[test]
    fn a_pattern_matches_as_in_gitignore() {
        // Pattern; path; whether a folder at this path is left out; whether a file at this path is left out.
        let cases = [
            ("*.tmp", "a.tmp", true, true),
            ("*.tmp", "deep/er/a.tmp", true, true),
            ("*.tmp", "a.tmpl", false, false),
            ("*.tmp", ".tmp", true, true),
            ("cache", "a/cache", true, true),
            ("cache", "a/Cache", false, false),
            ("cache/", "a/cache", true, false),
            ("/cache", "cache", true, true),
            ("/cache", "a/cache", false, false),
            ("a/cache", "a/cache", true, true),
            ("a/cache", "b/a/cache", false, false),
            ("a/*", "a/b", true, true),
            ("a/*", "a/b/c", false, false),
            ("**/a/b", "x/y/a/b", true, true),
            ("**/a/b", "a/b", true, true),
            ("a/**/b", "a/b", true, true),
            ("a/**/b", "a/x/y/b", true, true),
            ("a/**/b", "a/x/y/bb", false, false),
            ("a/**", "a/b", true, true),
            ("a/**", "a/b/c", true, true),
            ("a/**", "a", false, false),
            ("**", "a", true, true),
            ("?.txt", "ü.txt", true, true),
            ("?.txt", "ab.txt", false, false),
            ("[äö].txt", "ö.txt", true, true),
            ("[!a-c]x", "bx", false, false),
            ("[!a-c]x", "dx", true, true),
            ("[^a-c]x", "dx", true, true),
            ("[]a]x", "]x", true, true),
            ("[a-]x", "-x", true, true),
            (r"\*", "*", true, true),
            (r"\*", "a", false, false),
            (r"\!x", "!x", true, true),
            (r"a\*\*", "a**", true, true),
            ("{a,b}", "{a,b}", true, true),
            ("*a*b*c*", "xaybzc", true, true),
            ("*a*b*c*", "xaybz", false, false),
            ("/home/alice/x", "x", true, true),
            ("/home/alice/x", "a/x", false, false),
            ("/home/alic/x", "x", false, false),
        ];
        for (pattern, path, folder, file) in cases {
            let one = exclusions(&[pattern]);
            let found = (one.excludes(0, path.as_bytes(), true), one.excludes(0, path.as_bytes(), false));
            assert_eq!(found, (folder, file), "{pattern} and {path}");
        }
        // A pattern with the path of a source applies to that source only.
        assert!(!exclusions(&["/home/alice/x"]).excludes(1, b"x", false));
        assert!(exclusions(&["/srv/x/"]).excludes(1, b"x", true));
    }

    #[test]
    fn the_last_pattern_that_matches_decides() {
        let some = exclusions(&["*.log", "!keep.log", "sub/keep.log", "plain", "!sub/plain"]);
        for (path, left_out) in [
            ("a.log", true),
            ("keep.log", false),
            ("deep/keep.log", false),
            ("sub/keep.log", true),
            ("plain", true),
            ("sub/plain", false),
            ("other", false),
        ] {
            assert_eq!(some.excludes(0, path.as_bytes(), false), left_out, "{path}");
        }
        assert!(exclusions(&["!plain", "plain"]).excludes(0, b"plain", false));
        assert!(!exclusions(&["plain", "!plain"]).excludes(0, b"plain", false));
    }

    #[test]
    fn names_that_are_not_utf8_are_matched_by_byte() {
        assert!(exclusions(&["a?b"]).excludes(0, b"a\xffb", false));
        assert!(exclusions(&["a[!x]b"]).excludes(0, b"a\xffb", false));
        assert!(!exclusions(&["a?b"]).excludes(0, b"a\xff\xfeb", false));
    }

    #[test]
    fn an_invalid_pattern_is_refused_and_quoted() {
        for pattern in ["", "/", "!", "a//b", "./a", "a/../b", "b**", "a[b", r"a\", "[b-a]", "/srv", "/srv/"] {
            let wrong = Exclusions::new(&[pattern.as_bytes().to_vec()], &["/srv".into()]).expect_err(pattern);
            assert!(wrong.pattern == pattern && !wrong.problem.is_empty(), "{wrong}");
        }
        assert!(Exclusions::new(&vec![b"a".to_vec(); PATTERNS_MAX + 1], &[]).is_err());
        assert!(Exclusions::new(&[vec![b'a'; PATTERN_LEN_MAX + 1]], &[]).is_err());
    }

    #[test]
    fn files_of_patterns_have_comments_and_blanks() {
        let text = b"# a comment\r\n*.tmp  \r\n\n  two\n\\#no comment\nkept\\ \n\\\\  \n";
        let expected = [&b"*.tmp"[..], b"  two", b"\\#no comment", b"kept\\ ", b"\\\\"];
        assert_eq!(patterns_of_file(text), expected);
    }

    #[test]
    fn patterns_that_backtrack_end_quickly() {
        let pattern = "*a".repeat(1000) + "b";
        assert!(!exclusions(&[&pattern]).excludes(0, &[b'a'; 255], false));
        let path = "a/".repeat(2000) + "c";
        assert!(!exclusions(&[&("**/a/".repeat(500) + "b")]).excludes(0, path.as_bytes(), false));
        assert!(!exclusions(&[&("**/a/".repeat(500) + "?")]).excludes(0, b"x", false));
    }
}

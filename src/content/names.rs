//! File names for items: legible, and legal on Linux, macOS and Windows.
//!
//! An item gets its name once, when it is first seen, and keeps it for its life. Names are made of text from mails,
//! which may be hostile. So nothing here may panic, grow without limit, or hide the kind of a file.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use jiff::{SignedDuration, civil};

/// Maximum length of a name before its suffix, in bytes. File systems take 255 bytes (ext4) or 255 UTF-16 units (NTFS,
/// APFS). The rest is for a suffix, for a number that makes the name unique, and for what programs append while they
/// save.
pub const STEM_BYTES_MAX: usize = 200;

/// Maximum length of a whole name, in bytes, that every file system takes.
const NAME_BYTES_MAX: usize = 255;

/// Maximum length of a file extension, in bytes. Longer endings are text behind a full stop.
const EXTENSION_BYTES_MAX: usize = 16;

/// Returns the file name of a mail, such as `2026-11-01 09.30 Alice Smith - Budget 2027.eml`.
///
/// `date` is in Unix seconds and is shown in UTC. `from` is `Alice Smith <alice@contoso.com>` or a bare address; the
/// display name is used if there is one.
pub fn mail_name(date: Option<i64>, from: Option<&str>, subject: Option<&str>) -> String {
    let date = date.and_then(show_date).unwrap_or_else(|| "undated".to_string());
    let sender = non_empty(clean(display_name(from.unwrap_or_default())), "unknown sender");
    let subject = non_empty(clean(subject.unwrap_or_default()), "no subject");
    // A long sender must not push the subject out of the file name.
    let sender = truncate(&sender, STEM_BYTES_MAX / 3).trim_end();
    safe_name(&format!("{date} {sender} - {subject}"), ".eml")
}

/// Returns `stem` with `suffix`, changed as little as needed to be a legal and sane file name everywhere.
///
/// `suffix` is appended as it is. The caller chooses it; it must not come from outside.
pub fn safe_name(stem: &str, suffix: &str) -> String {
    let stem = clean(stem);
    let stem = trim_end(truncate(trim_start(&stem), STEM_BYTES_MAX));
    let stem = if stem.is_empty() { "unnamed" } else { stem };
    match device_len(stem) {
        Some(len) => format!("{}_{}{suffix}", &stem[..len], &stem[len..]),
        None => format!("{stem}{suffix}"),
    }
}

/// Returns the name for a mail folder that people see as `display`. It never looks like the name of a message, because
/// messages lie in the same folder.
pub fn mail_folder_name(display: &str) -> String {
    folder_name(display, ".eml")
}

/// Returns the name of a contact folder that people see as `display`; never as a contact could be called, which lies in
/// the same folder.
pub fn contact_folder_name(display: &str) -> String {
    folder_name(display, ".vcf")
}

/// Returns the name of a calendar that people see as `display`; never as an event could be called, which lies in the
/// same folder.
pub fn calendar_folder_name(display: &str) -> String {
    folder_name(display, ".ics")
}

/// Returns the name of a list of tasks that people see as `display`; never as a task could be called.
pub fn task_list_name(display: &str) -> String {
    folder_name(display, ".ics")
}

fn folder_name(display: &str, suffix_of_items: &str) -> String {
    let name = safe_name(display, "");
    if name.to_lowercase().ends_with(suffix_of_items) { safe_name(&format!("{name} (folder)"), "") } else { name }
}

/// Makes names unique within one folder, also where case does not count.
///
/// Two names are the same if they are equal after each character is mapped to upper and then to lower case. All names
/// that Windows or macOS take for the same are the same here.
///
/// Only a hash of each name is kept, so a folder of a million names takes 16 MB. If two hashes happen to be equal, the
/// second name gets a number without need.
#[derive(Clone, Debug, Default)]
pub struct UniqueNames {
    hasher: RandomState,
    taken: HashSet<u64>,
    /// For each name that was taken, the number to try next.
    next: HashMap<u64, u64>,
}

impl UniqueNames {
    /// Starts with an empty folder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns whether the folder has this name.
    pub fn contains(&self, name: &str) -> bool {
        self.taken.contains(&self.key(name))
    }

    /// Takes `name` as it is, for an item that has this name already. Returns false if the name was taken.
    pub fn reserve(&mut self, name: &str) -> bool {
        self.taken.insert(self.key(name))
    }

    fn key(&self, name: &str) -> u64 {
        self.hasher.hash_one(fold(name))
    }

    /// Takes and returns `name`, or if it is taken, the first free one of `name (2)`, `name (3)` and so on.
    ///
    /// The number stands before the extension. Takes constant time on average, however many names are equal.
    pub fn claim(&mut self, name: &str) -> String {
        if self.taken.insert(self.key(name)) {
            return name.to_string();
        }
        let (stem, extension) = split_extension(name);
        // Cut long stems before they are counted, so that stems with the same start share their numbers.
        let room = NAME_BYTES_MAX.saturating_sub(extension.len() + " (18446744073709551615)".len());
        let stem = trim_end(truncate(stem, room));
        let counted = self.key(&format!("{stem}{extension}"));
        let mut next = self.next.get(&counted).copied().unwrap_or(2);
        loop {
            let candidate = format!("{stem} ({next}){extension}");
            next += 1;
            if self.taken.insert(self.key(&candidate)) {
                self.next.insert(counted, next);
                return candidate;
            }
        }
    }
}

/// Returns a time as `2026-11-01 09.30`. None if its year does not have four digits.
fn show_date(seconds: i64) -> Option<String> {
    // The range of a time stamp ends some hours before the year 9999 does.
    let time = civil::date(1970, 1, 1).at(0, 0, 0, 0).checked_add(SignedDuration::from_secs(seconds)).ok()?;
    (0..=9999).contains(&time.year()).then(|| time.strftime("%Y-%m-%d %H.%M").to_string())
}

/// Returns the name in `Name <address>`, or the address if there is no name.
fn display_name(from: &str) -> &str {
    let from = from.trim();
    let Some((name, address)) = from.rsplit_once('<') else { return from };
    let name = name.trim().trim_matches('"').trim();
    if name.is_empty() { address.trim_end_matches('>') } else { name }
}

fn non_empty(text: String, otherwise: &str) -> String {
    if text.is_empty() { otherwise.to_string() } else { text }
}

/// Replaces characters that are illegal on one of the systems, removes invisible ones, and joins white space to single
/// spaces.
fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            // "RE: x" becomes "RE x", but "12:30" becomes "12-30".
            ':' if chars.peek().is_none_or(|next| next.is_whitespace()) => {}
            // "http://x" becomes "http-x".
            '/' | '\\' | ':' | '*' | '|' if clean.ends_with('-') => {}
            '/' | '\\' | ':' | '*' | '|' => clean.push('-'),
            '"' => clean.push('\''),
            '?' | '<' | '>' => {}
            _ if is_invisible(char) => {}
            _ if char.is_whitespace() || char.is_control() => clean.push(' '),
            _ => clean.push(char),
        }
    }
    clean.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Returns whether a character is invisible but can make a name look like another ("gnp.exe" as "exe.png").
///
/// Joiners (U+200C, U+200D) are kept, because scripts and emoji need them.
fn is_invisible(char: char) -> bool {
    matches!(
        char,
        '\u{ad}' | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0001}'
    )
}

/// Removes full stops at the start, which hide a file on Unix. A "~" or "-" at the start may stay.
fn trim_start(stem: &str) -> &str {
    stem.trim_start_matches(['.', ' '])
}

/// Removes full stops and spaces at the end, which Windows drops.
fn trim_end(stem: &str) -> &str {
    stem.trim_end_matches(['.', ' '])
}

/// Returns the longest start of `text` that has at most `max` bytes and ends between two characters.
fn truncate(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// Returns the length of the device name that Windows sees in this stem, with any extension ("con.x").
fn device_len(stem: &str) -> Option<usize> {
    let base = stem.split('.').next().unwrap_or_default().trim_end();
    let upper = base.to_ascii_uppercase();
    let is_port = ["COM", "LPT"].iter().any(|port| {
        let number = upper.strip_prefix(port);
        number.is_some_and(|number| number.chars().count() == 1 && number.contains(|c| "0123456789¹²³".contains(c)))
    });
    let is_device = is_port || matches!(upper.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$");
    is_device.then_some(base.len())
}

/// Splits `name.ext` before the full stop. The extension is empty if there is none.
fn split_extension(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= EXTENSION_BYTES_MAX && !name[dot..].contains(' ') => {
            name.split_at(dot)
        }
        _ => (name, ""),
    }
}

fn fold(name: &str) -> String {
    name.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-01 09:30:00 UTC.
    const DATE: i64 = 1_793_525_400;

    #[test]
    fn mail_is_named_by_date_sender_and_subject() {
        let name = mail_name(Some(DATE), Some("Alice Smith <alice@contoso.com>"), Some("Budget 2027"));
        assert_eq!(name, "2026-11-01 09.30 Alice Smith - Budget 2027.eml");
        let name = mail_name(Some(DATE), Some("alice@contoso.com"), Some("RE: 12:30 http://x/?"));
        assert_eq!(name, "2026-11-01 09.30 alice@contoso.com - RE 12-30 http-x-.eml");
        let name = mail_name(Some(DATE), Some("\"Smith, Alice\" <a@b.c>"), Some("  a\r\n\tb\u{202e}  "));
        assert_eq!(name, "2026-11-01 09.30 Smith, Alice - a b.eml");
        assert_eq!(mail_name(Some(DATE), Some("<a@b.c>"), Some("?")), "2026-11-01 09.30 a@b.c - no subject.eml");
        assert_eq!(mail_name(None, None, None), "undated unknown sender - no subject.eml");
    }

    #[test]
    fn dates_outside_the_calendar_are_left_out() {
        assert!(mail_name(Some(0), None, None).starts_with("1970-01-01 00.00 "));
        assert!(mail_name(Some(-1), None, None).starts_with("1969-12-31 23.59 "));
        for date in [i64::MIN, i64::MAX, -70_000_000_000] {
            assert!(mail_name(Some(date), None, None).starts_with("undated "), "{date}");
        }
    }

    #[test]
    fn long_subject_is_cut_between_characters() {
        let name = mail_name(Some(DATE), Some(&"Ä".repeat(500)), Some(&"ü".repeat(500)));
        assert!(name.ends_with("ü.eml") && name.contains("Ä - ü"));
        assert!((STEM_BYTES_MAX - 1..=STEM_BYTES_MAX).contains(&(name.len() - 4)));
    }

    #[test]
    fn names_of_devices_are_changed() {
        for (stem, name) in [
            ("CON", "CON_.x"),
            ("nul", "nul_.x"),
            ("com1.tar", "com1_.tar.x"),
            ("LPT²", "LPT²_.x"),
            ("aux .b", "aux_ .b.x"),
            ("COM", "COM.x"),
            ("COM10", "COM10.x"),
            ("console", "console.x"),
            ("", "unnamed.x"),
            ("..", "unnamed.x"),
            (" .a. ", "a.x"),
            ("a: ", "a.x"),
            ("a\0b", "a b.x"),
        ] {
            assert_eq!(safe_name(stem, ".x"), name, "{stem:?}");
        }
    }

    #[test]
    fn equal_names_are_numbered() {
        let mut names = UniqueNames::new();
        assert!(names.reserve("a (3).eml"));
        assert!(!names.reserve("A (3).EML"));
        assert_eq!(names.claim("a.eml"), "a.eml");
        assert_eq!(names.claim("A.eml"), "A (2).eml");
        assert_eq!(names.claim("a.eml"), "a (4).eml");
        assert_eq!(names.claim("a (2).eml"), "a (2) (2).eml");
        assert_eq!(names.claim("STRASSE"), "STRASSE");
        assert_eq!(names.claim("straße"), "straße (2)");
        assert_eq!(names.claim(".hidden"), ".hidden");
        assert_eq!(names.claim(".hidden"), ".hidden (2)");
        assert_eq!(names.claim("v1. final draft"), "v1. final draft");
        assert_eq!(names.claim("v1. final draft"), "v1. final draft (2)");
        assert!(names.contains("V1. FINAL DRAFT") && !names.contains("b"));
    }

    #[test]
    fn many_equal_names_are_numbered_quickly() {
        let mut names = UniqueNames::new();
        let long = "x".repeat(250);
        for i in 0..10_000 {
            names.claim("a.eml");
            // Names that differ only behind the place where they are cut.
            names.reserve(&format!("{long}{i}.eml"));
            assert!(names.claim(&format!("{long}{i}.eml")).len() <= NAME_BYTES_MAX);
        }
        assert_eq!(names.claim("a.eml"), "a (10001).eml");
    }

    fn is_sane(name: &str) -> bool {
        let stem = name.strip_suffix(".eml").unwrap_or_default();
        !stem.is_empty()
            && stem.len() <= STEM_BYTES_MAX + 1
            && !stem.starts_with(['.', ' '])
            && !stem.ends_with(['.', ' '])
            && !stem.contains(|c: char| c.is_control() || is_invisible(c) || "/\\:*?\"<>|".contains(c))
            && device_len(name).is_none()
    }

    /// Text with many characters that names must not have.
    fn texts() -> impl Strategy<Value = String> {
        prop_oneof!["\\PC*", "[./ :?\\\\\"<>|*CONULPT1a\u{202e}\u{0}\n-]{0,30}", any::<String>(), "ü{0,300}"]
    }

    proptest! {
        #[test]
        fn any_text_makes_a_sane_name(date: Option<i64>, from in texts(), subject in texts()) {
            let name = mail_name(date, Some(&from), Some(&subject));
            prop_assert!(is_sane(&name), "{name:?}");
            let name = safe_name(&subject, ".eml");
            prop_assert!(is_sane(&name), "{name:?}");
            // A name that is safe already does not change.
            prop_assert_eq!(safe_name(name.strip_suffix(".eml").unwrap(), ".eml").len(), name.len());
        }

        #[test]
        fn claimed_names_differ(wanted in vec("[aA]{0,2}( \\([23]\\))?(\\.[xX])?", 0..60)) {
            let mut names = UniqueNames::new();
            let given: Vec<_> = wanted.iter().map(|name| names.claim(name)).collect();
            let different: HashSet<_> = given.iter().map(|name| fold(name)).collect();
            prop_assert_eq!(different.len(), given.len());
        }
    }
}

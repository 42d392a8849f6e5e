//! Which folders of a mailbox correspond to the folders of a Maildir, which a backup of files may contain.
//!
//! The messages of the Maildir itself lie in `cur` and `new`. In Maildir++ (Courier, Dovecot), a folder such as
//! `.Archive.2019` beside them is the folder `2019` in the folder `Archive`. Its name is in modified UTF-7 (RFC 3501,
//! 5.1.3). Evolution spreads the messages of `cur` over folders whose names have two hexadecimal digits.

use crate::format::entry::{Directory, Entry};
use crate::repository::reader::Reader;
use crate::repository::tree;
use base64::Engine;
use base64::alphabet::IMAP_MUTF7;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const MODIFIED_UTF7: GeneralPurpose = GeneralPurpose::new(
    &IMAP_MUTF7,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The kind of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Plain,
    Maildir,
    /// `cur` or `new` of a Maildir, or a folder over which their messages are spread.
    Shelf,
}

/// Where the messages of a folder go.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Folder {
    /// To a folder of the same name.
    Own,
    /// To the same folder as those of the folder around it.
    Around,
    /// To the last of these folders, each of which lies in the one before.
    Named(Vec<String>),
}

/// The folders that a walk is in.
#[derive(Debug, Default)]
pub(super) struct Maildirs {
    levels: Vec<Level>,
}

impl Maildirs {
    /// Enters a folder. Returns where its messages go.
    pub fn enter(&mut self, reader: &Reader, folder: &Entry) -> Folder {
        let has_maildir = folder.directory().is_some_and(|dir| is_maildir(reader, dir));
        let is_empty = folder.directory().is_none_or(|dir| dir.sums.entries == 0);
        self.enter_named(&folder.name, has_maildir, is_empty)
    }

    fn enter_named(&mut self, name: &[u8], is_maildir: bool, is_empty: bool) -> Folder {
        let around = self.levels.last().copied().unwrap_or(Level::Plain);
        let own = if is_maildir { Level::Maildir } else { Level::Plain };
        let is_spread = name.len() == 2 && name.iter().all(u8::is_ascii_hexdigit);
        let (level, folder) = match (around, name) {
            (Level::Maildir, b"cur" | b"new") => (Level::Shelf, Folder::Around),
            // `tmp` holds messages that were being delivered. If there are any, they go to a folder of their own.
            (Level::Maildir, b"tmp") if is_empty => (Level::Shelf, Folder::Around),
            (Level::Shelf, _) if is_spread => (Level::Shelf, Folder::Around),
            (Level::Maildir, [b'.', path @ ..]) => {
                let names = path.split(|byte| *byte == b'.').filter(|name| !name.is_empty()).map(decoded);
                let names: Vec<String> = names.collect();
                (own, if names.is_empty() { Folder::Own } else { Folder::Named(names) })
            }
            _ => (own, Folder::Own),
        };
        self.levels.push(level);
        folder
    }

    /// Leaves the folder that was entered last.
    pub fn leave(&mut self) {
        self.levels.pop();
    }
}

/// Returns true if a folder is a Maildir. Copies of a Maildir often lack the folders that are empty.
fn is_maildir(reader: &Reader, dir: &Directory) -> bool {
    // The walk reports what cannot be read.
    let has = |name: &[u8]| {
        let found = tree::find(reader, dir, name).ok().flatten();
        found.is_some_and(|found| found.entry().directory().is_some())
    };
    dir.sums.dirs >= 2 && has(b"cur") && (has(b"new") || has(b"tmp"))
}

/// Decodes modified UTF-7, such as `Entw&APw-rfe`. Anything else stays as it is.
fn decoded(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let mut out = String::with_capacity(name.len());
    let mut rest = &*name;
    while let Some((before, behind)) = rest.split_once('&') {
        out.push_str(before);
        let (code, after) = behind.split_once('-').unwrap_or((behind, ""));
        let bytes = MODIFIED_UTF7.decode(code).unwrap_or_default();
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        match String::from_utf16(&units) {
            Ok(text) if !text.is_empty() => {
                out.push_str(&text);
                rest = after;
            }
            _ => {
                out.push('&');
                // `&-` stands for `&`.
                rest = behind.strip_prefix('-').unwrap_or(behind);
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_a_maildir_are_those_that_they_stand_for() {
        let named = |names: &[&str]| Folder::Named(names.iter().map(|name| (*name).to_owned()).collect());
        let mut way = Maildirs::default();
        assert_eq!(way.enter_named(b"Mail", true, false), Folder::Own);
        for (name, is_empty, folder) in [
            (&b"cur"[..], false, Folder::Around),
            (b"new", true, Folder::Around),
            (b"tmp", true, Folder::Around),
            (b"tmp", false, Folder::Own),
            (b".Archive.2019", false, named(&["Archive", "2019"])),
            (b".Entw&APw-rfe", false, named(&["Entwürfe"])),
            (b"..", false, Folder::Own),
            (b"Work", false, Folder::Own),
        ] {
            assert_eq!(way.enter_named(name, false, is_empty), folder, "{name:?}");
            way.leave();
        }
        way.enter_named(b"cur", false, false);
        assert_eq!(way.enter_named(b"3f", false, false), Folder::Around);
        way.leave();
        assert_eq!(way.enter_named(b"cur", false, false), Folder::Own);
        way.leave();
        way.leave();
        way.leave();
        way.enter_named(b"source", false, false);
        assert_eq!(way.enter_named(b"cur", false, false), Folder::Own);
        assert_eq!(way.enter_named(b".git", false, false), Folder::Own);
    }

    #[test]
    fn names_in_modified_utf7_are_read() {
        for (name, text) in [
            ("Entw&APw-rfe", "Entwürfe"),
            ("R&-D", "R&D"),
            ("&ZeVnLIqe-", "日本語"),
            ("a & b", "a & b"),
            ("A&B", "A&B"),
            ("&", "&"),
            ("plain", "plain"),
        ] {
            assert_eq!(decoded(name.as_bytes()), text, "{name}");
        }
    }
}

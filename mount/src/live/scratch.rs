//! Recognises temporary names: those of files that programs write beside a file or before it gets its name, and those
//! that desktops leave behind.
//!
//! The list is that of docs/semantics.md, "Restoring". In doubt a name counts as temporary and the file is not
//! restored: a real mail with such a name can be renamed, but a lock file that was restored into an inbox cannot be
//! taken back.

/// Endings, in lower case.
const ENDINGS: [&[u8]; 13] = [
    b"~",           // editors' copies, Thunar's `.partial~`
    b".part",       // Dolphin, Firefox
    b".partial",    // GVfs, old Internet Explorer
    b".crdownload", // Chromium
    b".download",   // Safari
    b".filepart",   // WinSCP
    b".tmp",
    b".temp",
    b".swp",
    b".swx",
    b".swo",
    b".bak",
    b".lock",
];

/// Whole names, in lower case. vim creates `4913` to test whether it can write.
const NAMES: [&[u8]; 4] = [b"desktop.ini", b"thumbs.db", b"ehthumbs.db", b"4913"];

/// Endings to which `QSaveFile` appends a dot and six characters.
const SAVED: [&[u8]; 4] = [b".eml", b".ics", b".vcf", b".msg"];

/// Returns whether a file of this name stays in the mount and never reaches the outbox.
pub(super) fn is_scratch(name: &[u8]) -> bool {
    let lower = name.to_ascii_lowercase();
    name.starts_with(b".")
        || lower.starts_with(b"~$")
        || (name.len() > 1 && name.starts_with(b"#") && name.ends_with(b"#"))
        || NAMES.contains(&lower.as_slice())
        || ENDINGS.iter().any(|ending| lower.ends_with(ending))
        || is_unique_name(name)
}

/// Returns whether a program made up the name: `tmp` and eight characters (Python's `tempfile`), `sed` and six (`sed
/// -i`), or an ending of [`SAVED`], a dot and six (`QSaveFile`).
fn is_unique_name(name: &[u8]) -> bool {
    let alphanumeric =
        |rest: &[u8], len| rest.len() == len && rest.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'_');
    if let Some(rest) = name.strip_prefix(b"tmp")
        && alphanumeric(rest, 8)
    {
        return true;
    }
    if let Some(rest) = name.strip_prefix(b"sed")
        && alphanumeric(rest, 6)
    {
        return true;
    }
    let Some((stem, [b'.', rest @ ..])) = name.len().checked_sub(7).map(|at| name.split_at(at)) else { return false };
    alphanumeric(rest, 6) && SAVED.iter().any(|ending| stem.to_ascii_lowercase().ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::is_scratch;

    #[test]
    fn temporary_names() {
        for name in [
            ".goutputstream-AB12CD",
            ".mail.eml.a1B2c3",
            ".~lock.mail.eml#",
            "._mail.eml",
            ".DS_Store",
            ".nfs000000000000",
            ".mail.eml.swp",
            "mail.eml~",
            "mail.eml.partial~",
            "mail.eml.part",
            "MAIL.EML.PART",
            "mail.crdownload",
            "mail.partial",
            "mail.download",
            "mail.filepart",
            "mail.temp",
            "mail.swp",
            "mail.swx",
            "mail.swo",
            "mail.eml.bak",
            "mail.lock",
            "ehthumbs.db",
            "lu1234.tmp",
            "~$mail.eml",
            "#mail.eml#",
            "Desktop.ini",
            "THUMBS.DB",
            "4913",
            "tmpk3_x9a0b",
            "sedQx81Za",
            "mail.eml.aBcDeF",
        ] {
            assert!(is_scratch(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn ordinary_names() {
        for name in [
            "mail.eml",
            "2026-11-01 09.30 Alice - Budget.eml",
            "tmp.eml",
            "tmpk3_x9a0b.eml",
            "sediment.eml",
            "sedimental",
            "template",
            "#1 priority.eml",
            "#",
            "part",
            "a.part.eml",
            "49131",
            "mail.eml.backups",
            "\u{feff}.eml",
            "~approx.eml",
        ] {
            assert!(!is_scratch(name.as_bytes()), "{name}");
        }
    }
}

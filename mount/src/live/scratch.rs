//! Which names are temporary: what programs write beside a file or before it has its name, and what desktops leave lying about.
//!
//! The list is that of docs/semantics.md, "Restoring". It errs on the side of what is not restored: a mail that is really called so
//! can be given another name, while a lock file in somebody's inbox cannot be taken back.

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

/// Whole names, in lower case. `4913` is how vim tries whether it may write.
const NAMES: [&[u8]; 4] = [b"desktop.ini", b"thumbs.db", b"ehthumbs.db", b"4913"];

/// What may stand before the six characters that `QSaveFile` appends.
const SAVED: [&[u8]; 4] = [b".eml", b".ics", b".vcf", b".msg"];

/// Returns whether files of this name live in the mount only.
pub(super) fn is_scratch(name: &[u8]) -> bool {
    let lower = name.to_ascii_lowercase();
    name.starts_with(b".")
        || lower.starts_with(b"~$")
        || (name.len() > 1 && name.starts_with(b"#") && name.ends_with(b"#"))
        || NAMES.contains(&lower.as_slice())
        || ENDINGS.iter().any(|ending| lower.ends_with(ending))
        || is_unique_name(name)
}

/// `tmp` and eight characters is Python's `tempfile`, `sed` and six is `sed -i`; neither has an ending.
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

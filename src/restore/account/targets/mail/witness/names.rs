//! What the fields of a piece say: its type, its boundary, and what it is called. Read by other code than
//! [`crate::content::mail::params`], and more simply: where a name is read as one of several spellings, each counts.

use encoding_rs::{Encoding, WINDOWS_1252};

/// Maximum length of a value that is looked at, in bytes.
const VALUE_BYTES_MAX: usize = 1 << 20;
/// Maximum number of parameters of one value that are looked at.
const PARAMS_MAX: usize = 1000;

/// A text that may be the name of a file.
#[derive(Debug, Clone)]
pub(super) struct Spelling {
    text: String,
    /// True if it has bytes whose charset is not known.
    is_unclear: bool,
}

/// Returns a value on one line.
pub(super) fn unfolded(raw: &[u8]) -> Vec<u8> {
    let raw = &raw[..raw.len().min(VALUE_BYTES_MAX)];
    let mut line = Vec::with_capacity(raw.len());
    for part in raw.split(|byte| matches!(byte, b'\r' | b'\n')) {
        let part = if line.is_empty() { part } else { part.trim_ascii_start() };
        if !part.is_empty() {
            if !line.is_empty() {
                line.push(b' ');
            }
            line.extend_from_slice(part);
        }
    }
    line.trim_ascii().to_vec()
}

/// Returns the type that a value begins with, in lower case.
pub(super) fn kind(value: &[u8]) -> String {
    let decoded = words(value);
    let text = if value.starts_with(b"=?") { decoded.text } else { String::from_utf8_lossy(value).into_owned() };
    let text = text.trim().trim_start_matches('"');
    let mut kind = String::new();
    for char in text.chars() {
        match char {
            ';' | '(' | ',' => break,
            // A blank before a parameter whose semicolon is missing.
            ' ' | '\t' if kind.contains('/') && !kind.ends_with('/') => break,
            ' ' | '\t' | '"' => {}
            _ => kind.extend(char.to_lowercase()),
        }
    }
    kind
}

/// A parameter as it is in the value.
struct Param<'a> {
    /// The text between its name and the equals sign: `*0*`.
    section: &'a [u8],
    value: Vec<u8>,
}

/// Finds all parameters with a name, anywhere in the value.
fn params<'a>(value: &'a [u8], name: &str) -> Vec<Param<'a>> {
    let lower = value.to_ascii_lowercase();
    let mut found = Vec::new();
    let mut done = 0;
    for at in memchr::memmem::find_iter(&lower, name.as_bytes()) {
        let is_inside = at < done || at.checked_sub(1).is_some_and(|before| is_name_byte(lower[before]));
        let behind = at + name.len();
        let section_len = lower[behind..].iter().take_while(|byte| **byte == b'*' || byte.is_ascii_digit()).count();
        let section = &value[behind..behind + section_len];
        let rest = value[behind + section_len..].trim_ascii_start();
        let Some(rest) = rest.strip_prefix(b"=").filter(|_| !is_inside && found.len() < PARAMS_MAX) else { continue };
        let rest = rest.trim_ascii_start();
        let start = value.len() - rest.len();
        let (bytes, len) = match quoted(rest) {
            Some(quoted) => quoted,
            None => {
                let rest = rest.strip_prefix(b"\"").unwrap_or(rest);
                let len = unquoted_len(rest);
                (rest[..len].trim_ascii().to_vec(), len)
            }
        };
        done = start + len;
        if !bytes.is_empty() {
            found.push(Param { section, value: bytes });
        }
    }
    found
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/')
}

/// Reads a quoted value. Returns it and its length with the quotes.
fn quoted(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut value = Vec::new();
    let mut at = usize::from(text.first() == Some(&b'"'));
    if at == 0 {
        return None;
    }
    loop {
        match (text.get(at)?, text.get(at + 1)) {
            (b'"', _) => return Some((value, at + 1)),
            (b'\\', Some(next @ (b'"' | b'\\'))) => {
                value.push(*next);
                at += 2;
            }
            (byte, _) => {
                value.push(*byte);
                at += 1;
            }
        }
    }
}

/// Returns the length of a value without quotes: up to a semicolon, or up to the next parameter if the semicolon is
/// missing.
fn unquoted_len(text: &[u8]) -> usize {
    let end = memchr::memchr(b';', text).unwrap_or(text.len());
    let blanks = (0..end).filter(|at| text[*at].is_ascii_whitespace());
    let next = blanks.into_iter().find(|at| {
        let behind = text[at + 1..end].trim_ascii_start();
        let name = behind.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'*' | b'_'));
        let len = name.count();
        len > 1 && behind.get(len) == Some(&b'=') && behind.get(len + 1) != Some(&b'=')
    });
    next.unwrap_or(end)
}

/// Returns the boundary that a type names.
pub(super) fn boundary(value: &[u8]) -> Option<Vec<u8>> {
    let spelling = joined(params(value, "boundary")).into_iter().next()?;
    Some(spelling.trim_ascii_end().to_vec()).filter(|boundary| !boundary.is_empty())
}

/// Returns the charset that a type names.
pub(super) fn charset(value: &[u8]) -> Option<String> {
    let bytes = joined(params(value, "charset")).into_iter().next()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Some(text.trim_matches(['"', '\'', ' ']).to_owned()).filter(|text| !text.is_empty())
}

/// Returns the values of parameters without what RFC 2231 puts in front of them: that of a whole one that is escaped,
/// then the sections joined, then the plain ones.
fn joined(params: Vec<Param<'_>>) -> Vec<Vec<u8>> {
    split(params).into_iter().map(|(bytes, _)| bytes).collect()
}

/// The same, with the charset that is said.
fn split(params: Vec<Param<'_>>) -> Vec<(Vec<u8>, Option<String>)> {
    let mut values = Vec::new();
    let number = |param: &Param<'_>| {
        let digits = param.section.iter().filter(|byte| byte.is_ascii_digit()).copied().collect::<Vec<u8>>();
        String::from_utf8_lossy(&digits).parse::<u32>().ok()
    };
    let is_escaped = |param: &Param<'_>| param.section.ends_with(b"*");
    for whole in params.iter().filter(|param| number(param).is_none() && is_escaped(param)) {
        values.push(unescaped(&[(true, &whole.value)]));
    }
    let mut sections: Vec<_> = params.iter().filter_map(|param| Some((number(param)?, param))).collect();
    sections.sort_by_key(|(number, _)| *number);
    sections.dedup_by_key(|(number, _)| *number);
    if !sections.is_empty() {
        let pieces: Vec<_> = sections.iter().map(|(_, param)| (is_escaped(param), &param.value)).collect();
        values.push(unescaped(&pieces));
    }
    let plain = params.iter().filter(|param| param.section.is_empty());
    values.extend(plain.map(|param| (param.value.clone(), None)));
    values
}

/// Joins sections, of which some are escaped; the first says the charset: `utf-8'de'...`.
fn unescaped(sections: &[(bool, &Vec<u8>)]) -> (Vec<u8>, Option<String>) {
    let (mut bytes, mut label) = (Vec::new(), None);
    for (nth, (is_escaped, value)) in sections.iter().enumerate() {
        if !is_escaped {
            bytes.extend_from_slice(value);
            continue;
        }
        let mut rest = value.as_slice();
        let parts: Vec<&[u8]> = value.splitn(3, |byte| *byte == b'\'').collect();
        if let (0, [charset, _, text]) = (nth, parts.as_slice()) {
            label = Some(String::from_utf8_lossy(charset).into_owned());
            rest = text;
        }
        bytes.extend(percent_encoding::percent_decode(rest));
    }
    (bytes, label)
}

/// Returns the names that a piece may have, by its `Content-Disposition` and its `Content-Type`.
pub(super) fn spellings(disposition: &[u8], content: &[u8]) -> Vec<Spelling> {
    for (value, name) in [(disposition, "filename"), (content, "name"), (disposition, "name"), (content, "filename")] {
        let mut found = Vec::new();
        for (bytes, label) in split(params(value, name)) {
            found.extend(label.map(|label| text(&bytes, &label)));
            found.push(words(&bytes));
        }
        found.retain(|spelling| !spelling.text.trim().is_empty());
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

/// Returns the most likely of the names.
pub(super) fn said(spellings: &[Spelling]) -> Option<&str> {
    spellings.first().map(|spelling| spelling.text.as_str())
}

/// Returns true if `name` is one of the names. If there are none, every name is right.
pub(super) fn are_same(name: &str, spellings: &[Spelling]) -> bool {
    spellings.is_empty() || spellings.iter().any(|spelling| is_same(name, spelling))
}

fn is_same(name: &str, said: &Spelling) -> bool {
    let is_kept = |char: &char| !char.is_whitespace() && !char.is_control() && !"\"'\\".contains(*char);
    let kept = |text: &str| text.chars().filter(is_kept).collect::<String>();
    let (ours, theirs) = (kept(name), kept(&said.text));
    let is_end = |whole: &str| whole.strip_suffix(&*ours).is_some_and(|path| path.ends_with('/'));
    let is_start = theirs.strip_prefix(&*ours).is_some_and(|rest| rest.starts_with(['(', ';']));
    if ours.is_empty() {
        return false;
    }
    if ours == theirs || is_end(&theirs) || is_end(&kept(&said.text.replace('\\', "/"))) || is_start {
        return true;
    }
    // Only the ASCII letters are known. They must be in the same order.
    let ascii = |text: &str| text.bytes().filter(u8::is_ascii_alphanumeric).collect::<Vec<u8>>();
    let mut theirs = ascii(&theirs).into_iter();
    said.is_unclear && !name.contains('\u{fffd}') && ascii(&ours).iter().all(|byte| theirs.any(|other| other == *byte))
}

fn text(bytes: &[u8], label: &str) -> Spelling {
    let label = label.split('*').next().unwrap_or_default();
    match Encoding::for_label(label.trim().as_bytes()) {
        Some(encoding) => {
            let (text, is_unclear) = encoding.decode_without_bom_handling(bytes);
            Spelling { text: text.into_owned(), is_unclear }
        }
        None => Spelling { is_unclear: !bytes.is_ascii() || !label.is_empty(), ..plain(bytes) },
    }
}

fn plain(bytes: &[u8]) -> Spelling {
    match std::str::from_utf8(bytes) {
        // Charsets that shift are ASCII, too.
        Ok(text) => Spelling { text: text.to_owned(), is_unclear: bytes.contains(&0x1b) },
        Err(_) => Spelling { text: WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned(), is_unclear: true },
    }
}

/// Decodes the encoded words of a value (RFC 2047).
fn words(value: &[u8]) -> Spelling {
    let mut out = Spelling { text: String::new(), is_unclear: false };
    let add = |out: &mut Spelling, spelling: Spelling| {
        out.text.push_str(&spelling.text);
        out.is_unclear |= spelling.is_unclear;
    };
    let mut rest = value;
    // The bytes of words that follow each other, in one charset.
    let mut open: Option<(String, Vec<u8>)> = None;
    while let Some(start) = memchr::memmem::find(rest, b"=?") {
        let Some((label, bytes, len)) = word(&rest[start..]) else {
            // What looks like the begin of a word and is none: nothing here can tell what it means.
            out.is_unclear = true;
            let (before, behind) = rest.split_at(start + 2);
            if let Some((label, bytes)) = open.take() {
                add(&mut out, text(&bytes, &label));
            }
            add(&mut out, plain(before));
            rest = behind;
            continue;
        };
        let before = &rest[..start];
        let is_same = open.as_ref().is_some_and(|(open, _)| open.eq_ignore_ascii_case(&label));
        if !(is_same && before.trim_ascii().is_empty()) {
            let is_behind_word = open.is_some() && before.trim_ascii().is_empty();
            if let Some((label, bytes)) = open.take() {
                add(&mut out, text(&bytes, &label));
            }
            if !is_behind_word {
                add(&mut out, plain(before));
            }
        }
        open.get_or_insert_with(|| (label, Vec::new())).1.extend_from_slice(&bytes);
        rest = &rest[start + len..];
    }
    if let Some((label, bytes)) = open {
        add(&mut out, text(&bytes, &label));
    }
    add(&mut out, plain(rest));
    out
}

/// Reads one encoded word: its charset, its bytes, and its length.
fn word(value: &[u8]) -> Option<(String, Vec<u8>, usize)> {
    let mut parts = value.get(2..)?.splitn(3, |byte| *byte == b'?');
    let (label, encoding, behind) = (parts.next()?, parts.next()?, parts.next()?);
    let end = memchr::memmem::find(behind, b"?=")?;
    let (text, mut bytes) = (&behind[..end], Vec::new());
    match encoding.to_ascii_lowercase().as_slice() {
        b"b" => super::encodings::base64(text, &mut |piece| bytes.extend_from_slice(piece)),
        b"q" => {
            let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'_' { b' ' } else { *byte }).collect();
            // An underscore that is meant is escaped, so that no other blank is lost by this order.
            let mut at = 0;
            while at < spaced.len() {
                let digit = |at: usize| spaced.get(at).and_then(|byte| char::from(*byte).to_digit(16));
                match (spaced[at], digit(at + 1), digit(at + 2)) {
                    (b'=', Some(high), Some(low)) => {
                        bytes.push((high * 16 + low) as u8);
                        at += 3;
                    }
                    (byte, ..) => {
                        bytes.push(byte);
                        at += 1;
                    }
                }
            }
        }
        _ => return None,
    }
    let label = String::from_utf8_lossy(label).into_owned();
    let is_label = label.len() < 80 && !label.contains(char::is_whitespace);
    is_label.then(|| (label, bytes, value.len() - behind.len() + end + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_ones_that_are_said() {
        for (value, name) in [
            ("attachment; filename=\"a.pdf\"", "a.pdf"),
            ("attachment; filename=a b (1).pdf", "a b (1).pdf"),
            ("attachment; filename=\"C:\\temp\\a.pdf\"", "a.pdf"),
            ("attachment; filename=\"../../etc/passwd\"", "passwd"),
            ("attachment; filename=\"=?UTF-8?B?w5xiZXJzaWNodC54bHN4?=\"", "Übersicht.xlsx"),
            ("attachment; filename==?UTF-8?Q?=C3=9C_ber?= =?UTF-8?Q?sicht?=; size=1", "Ü bersicht"),
            ("attachment; filename=plain.pdf; filename*=utf-8''%C3%BC.pdf", "ü.pdf"),
            ("attachment; filename*0*=UTF-8''Rechnung%20f%C3; filename*1*=%BCr.pdf", "Rechnung für.pdf"),
            ("attachment; filename*1*=%BCr.pdf; filename*0*=UTF-8''f%C3", "für.pdf"),
            ("attachment; filename*0=\"part one \"; filename*1=\"two.pdf\"", "part one two.pdf"),
            ("attachment; filename*0*=shift_jis''%90%BF%8B; filename*1*=%81%8F%91.pdf", "請求書.pdf"),
            ("attachment size=1 filename=a.txt", "a.txt"),
        ] {
            let spellings = spellings(value.as_bytes(), b"");
            assert!(are_same(name, &spellings), "{name:?} is not in {spellings:?}");
            for other in ["b.pdf", "ATT00000", "Übersichten", ""] {
                assert!(!are_same(other, &spellings), "{other:?} is in {spellings:?}");
            }
        }
        let raw = spellings(b"attachment; filename=\"Gr\xfc\xdfe.txt\"", b"");
        assert!(are_same("Grüße.txt", &raw) && are_same("GrЇЯe.txt", &raw) && !are_same("Gruesse.doc", &raw));
        assert!(are_same("ATT00001", &spellings(b"attachment", b"text/plain")));
    }

    #[test]
    fn types_and_boundaries_are_read() {
        assert_eq!(kind(b"Text/HTML ; charset=x"), "text/html");
        assert_eq!(kind(b"text/plain charset=x"), "text/plain");
        assert_eq!(kind(b"=?utf-8?Q?text/html=3B_charset=3Dutf-8?="), "text/html");
        assert_eq!(boundary(b"multipart/mixed; boundary=\"a b\" ").as_deref(), Some(&b"a b"[..]));
        assert_eq!(boundary(b"multipart/mixed boundary=abc; x=y").as_deref(), Some(&b"abc"[..]));
        assert_eq!(boundary(b"multipart/mixed; boundary*=us-ascii''abc%2Bdef").as_deref(), Some(&b"abc+def"[..]));
        assert_eq!(charset(b"text/plain; Charset=\"utf-8\"").as_deref(), Some("utf-8"));
    }
}

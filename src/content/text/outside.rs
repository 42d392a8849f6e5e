//! The text in a multipart before its first boundary and behind its last one.
//!
//! Mail programs do not show it, but mailing lists, virus scanners and old gateways write text there that people search
//! for. So the text is shown, without the sentences that tell users of old programs that the message is in MIME.

/// A sentence about MIME has one of these words.
const MIME: [&str; 4] = ["mime", "multi-part", "multipart", "multi part"];
/// A sentence about MIME begins like this, or has one word before it.
const STARTS: [&str; 15] = [
    "this is a",
    "this message",
    "this mail",
    "this e-mail",
    "if you are reading this",
    "if you see this",
    "you are reading",
    "c'est un",
    "ceci est",
    "dies ist",
    "diese nachricht",
    "este es un",
    "esta es un",
    "questo è un",
    "dit is een",
];
/// The beginnings of sentences that follow a sentence about MIME.
const FOLLOWERS: [&str; 13] = [
    "since your mail",
    "some or all",
    "it has been signed",
    "you'll need",
    "you will need",
    "if you",
    "your mail",
    "your client",
    "your e-mail",
    "you might want",
    "you should still",
    "you should upgrade",
    "please upgrade",
];
/// Maximum length of a sentence about MIME, in bytes.
const NOTE_BYTES_MAX: usize = 1000;
/// Number of bytes at the start of a sentence that are compared.
const SENTENCE_BYTES_MAX: usize = 300;
/// Maximum length of a line, in bytes, that counts as a sentence without a full stop.
const LINE_BYTES_MAX: usize = 80;

/// Returns the text before the first boundary without sentences about MIME. Lines end with LF.
pub(super) fn without_notes(text: &str) -> String {
    let mut shown = String::new();
    for paragraph in text.split("\n\n") {
        let rest = behind_notes(paragraph).trim();
        if rest.contains(char::is_alphanumeric) {
            if !shown.is_empty() {
                shown.push_str("\n\n");
            }
            shown.push_str(rest);
        }
    }
    shown
}

fn behind_notes(paragraph: &str) -> &str {
    let mut rest = paragraph;
    let mut is_behind = false;
    loop {
        let note = first_sentence(rest);
        if note.is_empty() || !(is_note(note) || is_behind && begins_with(note, &FOLLOWERS)) {
            return rest;
        }
        rest = &rest.trim_start()[note.len()..];
        is_behind = true;
    }
}

/// Returns the first sentence with its full stop. Empty if the sentence is longer than [`NOTE_BYTES_MAX`]. A line about
/// MIME without a full stop is a sentence, too, if the next line begins with a capital letter.
fn first_sentence(text: &str) -> &str {
    let text = text.trim_start();
    let start = &text[..text.floor_char_boundary(NOTE_BYTES_MAX)];
    let mut stops = start.match_indices(['.', '!']).map(|(at, _)| at + 1);
    let end = stops.find(|&end| text[end..].chars().next().is_none_or(char::is_whitespace));
    let sentence = end.map_or(start, |end| &start[..end]);
    let line = sentence.split_inclusive('\n').next().unwrap_or_default();
    let goes_on = sentence[line.len()..].chars().next().is_none_or(|next| !next.is_uppercase());
    if !goes_on && line.len() <= LINE_BYTES_MAX && is_note(line) {
        return line;
    }
    if end.is_some() || start.len() == text.len() { sentence } else { "" }
}

fn is_note(sentence: &str) -> bool {
    let start = &sentence[..sentence.floor_char_boundary(SENTENCE_BYTES_MAX)];
    let start = start.to_lowercase();
    let says_so = MIME.iter().any(|word| start.contains(word)) || start.contains("html email message");
    // One word may stand before it, such as a number.
    let behind_word = start.split_once(' ').map_or("", |(_, rest)| rest);
    says_so && (begins_with(&start, &STARTS) || begins_with(behind_word, &STARTS))
}

fn begins_with(sentence: &str, starts: &[&str]) -> bool {
    let start = &sentence[..sentence.floor_char_boundary(SENTENCE_BYTES_MAX)];
    let start = start.trim_start_matches(|char: char| !char.is_alphanumeric()).to_lowercase();
    starts.iter().any(|known| start.starts_with(known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::testing::processor_time;

    #[test]
    fn notes_on_mime_are_not_shown() {
        for note in [
            "This is a multi-part message in MIME format.",
            "This is a multi-part message in MIME format",
            "This is a multi-part message in MIME format...",
            "--This is a multi part message in MIME format.--",
            "This message is in MIME format. Since your mail reader does not understand\nthis format, some or all of this message may not be legible.",
            "This is a multi-part message in MIME format. It has been signed conforming to RFC3156.\nYou'll need GPG or PGP to check the signature.",
            "This is an OpenPGP/MIME signed message (RFC 4880 and 3156)",
            "This is a cryptographically signed message in MIME format.",
            "******\nIF YOU ARE READING THIS, YOU MAY NOT HAVE A MIME VERSION 1.0 COMPATIBLE MAIL READER.\n******",
            "C'est un message de format MIME en plusieurs parties.",
            "76AD This is a MIME Message",
            "\n\n \n",
        ] {
            assert_eq!(without_notes(note), "", "{note:?}");
        }
    }

    #[test]
    fn other_words_are_shown() {
        for (text, shown) in [
            ("This is a multi-part message in MIME format.\nVirus found: needle", "Virus found: needle"),
            ("This is a multi-part message in MIME format\nVirus found: needle", "Virus found: needle"),
            ("This is a MIME message. The needle was removed.", "The needle was removed."),
            (
                "Gateway: the needle was removed.\n\nThis is a multi-part message in MIME format.\n\nmore",
                "Gateway: the needle was removed.\n\nmore",
            ),
            ("The MIME part needle.exe was removed.", "The MIME part needle.exe was removed."),
            ("Please forward this message", "Please forward this message"),
        ] {
            assert_eq!(without_notes(text), shown, "{text:?}");
        }
        let long = "MIME ".repeat(100_000);
        assert_eq!(without_notes(&long), long.trim());
        let time = processor_time(|| assert_eq!(without_notes(&"This is a MIME message\n".repeat(20_000)), ""));
        assert!(time.as_secs() < 20, "took {time:?}");
    }
}

//! How text that others wrote (names, subjects, messages of a service) is shown to people.
//!
//! A terminal obeys control characters, and some letters that nobody sees change how the others are read: U+202E shows
//! `gnp.exe` as `exe.png`, U+2028 begins a line, U+200B makes two names look alike. Such letters are shown as `\u{202e}`. All
//! that this program writes for people goes through here; JSON, and a file that `cat` writes into a file or a pipe, do not.

use std::borrow::Cow;

/// Returns a name or a path for people, on one line. Bytes that are no UTF-8 become `\xff`.
pub fn name(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        escape(chunk.valid(), |_| false, &mut text);
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// Returns text of several lines for people: line feeds and tabs stay.
pub fn lines(text: &str) -> Cow<'_, str> {
    let stays = |letter| matches!(letter, '\n' | '\t');
    if !text.chars().any(|letter| is_harmful(letter, None) && !stays(letter)) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    escape(text, stays, &mut shown);
    Cow::Owned(shown)
}

fn escape(text: &str, stays: impl Fn(char) -> bool, shown: &mut String) {
    let mut before = None;
    for letter in text.chars() {
        match is_harmful(letter, before) && !stays(letter) {
            // Not `escape_default`, which has escapes for letters of all languages.
            true if matches!(letter, '\n' | '\r' | '\t') => shown.extend(letter.escape_default()),
            true => shown.extend(letter.escape_unicode()),
            false => shown.push(letter),
        }
        before = Some(letter);
    }
}

/// Returns whether a letter, behind the letter `before`, commands a terminal or misleads its reader.
fn is_harmful(letter: char, before: Option<char>) -> bool {
    match letter {
        // C0, DEL and C1.
        _ if letter.is_control() => true,
        // Joiners belong to Persian, to scripts of India, and to emoji. Between ASCII letters they only hide.
        '\u{200c}' | '\u{200d}' => before.is_none_or(|before| before.is_ascii()),
        // Directions of text (Unicode Standard Annex 9), and ends of lines and paragraphs.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        // Nothing, in many ways: hyphens, joiners, spaces and letters of no width, marks for programs.
        '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}' | '\u{200b}' => true,
        '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' => true,
        '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' => true,
        '\u{e0000}'..='\u{e007f}' => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_commands_or_misleads_is_escaped_and_every_language_stays() {
        for harmful in "\0\u{7}\u{1b}\u{7f}\u{80}\u{9b}\u{9f}\u{ad}\u{61c}\u{180e}\u{200b}\u{200e}\u{200f}\u{2028}\u{2029}\
            \u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2060}\u{2064}\u{2066}\u{2067}\u{2068}\u{2069}\u{206f}\u{3164}\u{feff}\u{fff9}\u{e0041}"
            .chars()
        {
            let expected = format!("a\\u{{{:x}}}b", u32::from(harmful));
            assert_eq!(name(format!("a{harmful}b").as_bytes()), expected);
            assert_eq!(lines(&format!("a{harmful}b")), expected);
        }
        assert_eq!(name(b"a\nb\tc\rd\xff\\"), "a\\nb\\tc\\rd\\xff\\");
        assert_eq!(lines("a\nb\tc\rd"), "a\nb\tc\\rd");
        assert_eq!(name("pay\u{200d}load\u{200c}".as_bytes()), "pay\\u{200d}load\\u{200c}");
        for fine in ["Grüße", "می‌خواهم", "👩‍👩‍👧", "क्‍ष", "שלום", "日本語", "naïve", "☺\u{fe0f}", "a \u{a0}b"]
        {
            assert_eq!(name(fine.as_bytes()), fine);
            assert_eq!(lines(fine), fine);
        }
    }
}

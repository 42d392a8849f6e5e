//! Makes text from others (names, subjects, messages of a service) safe to show on a terminal.
//!
//! A terminal obeys control characters, and some invisible characters change how others are read: U+202E shows
//! `gnp.exe` as `exe.png`, U+2028 begins a line, U+200B makes two names look alike. Such characters are shown as
//! `\u{202e}`. Everything that this program prints for people passes through here. JSON output does not. The file of a
//! snapshot that `cat` prints does so only if it goes to a terminal.

use std::borrow::Cow;
use std::io::{self, Write};

/// Returns a name or a path for display, on one line. Bytes that are not UTF-8 become `\xff`.
pub fn name(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        escape(chunk.valid(), |_| false, &mut text);
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// Returns text of several lines for display. Keeps line feeds and tabs.
pub fn lines(text: &str) -> Cow<'_, str> {
    let stays = |letter| matches!(letter, '\n' | '\t');
    if !text.chars().any(|letter| is_harmful(letter, None) && !stays(letter)) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    escape(text, stays, &mut shown);
    Cow::Owned(shown)
}

/// Writes a file to a terminal as text of several lines, made safe to show.
pub struct Terminal<W: Write> {
    out: W,
    /// The start of a character or of a line end, whose remaining bytes have not arrived yet.
    begun: Vec<u8>,
}

impl<W: Write> Terminal<W> {
    /// Creates a writer to a terminal.
    pub fn new(out: W) -> Self {
        Self { out, begun: Vec::new() }
    }

    fn show(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut shown = String::with_capacity(bytes.len());
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (line, end) = match line.strip_suffix(b"\n") {
                Some(line) => (line.strip_suffix(b"\r").unwrap_or(line), "\n"),
                None => (line, ""),
            };
            for (number, part) in line.split(|byte| *byte == b'\t').enumerate() {
                shown.push_str(if number > 0 { "\t" } else { "" });
                shown.push_str(&name(part));
            }
            shown.push_str(end);
        }
        self.out.write_all(shown.as_bytes())
    }
}

impl<W: Write> Write for Terminal<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut text = std::mem::take(&mut self.begun);
        text.extend_from_slice(bytes);
        self.begun = text.split_off(text.len() - begun_len(&text));
        self.show(&text)?;
        Ok(bytes.len())
    }

    /// Shows an incomplete character as well: after a flush no more bytes are expected.
    fn flush(&mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.begun);
        self.show(&rest)?;
        self.out.flush()
    }
}

/// Returns the length of the incomplete character or line end at the end of `text`, in bytes.
fn begun_len(text: &[u8]) -> usize {
    if text.ends_with(b"\r") {
        return 1;
    }
    let tails = (1..=text.len().min(3)).map(|len| &text[text.len() - len..]);
    let is_begun = |tail: &&[u8]| {
        std::str::from_utf8(tail).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    tails.filter(is_begun).map(<[u8]>::len).max().unwrap_or(0)
}

fn escape(text: &str, stays: impl Fn(char) -> bool, shown: &mut String) {
    let mut before = None;
    for letter in text.chars() {
        match is_harmful(letter, before) && !stays(letter) {
            // `escape_default` is only for these three: it would also escape the letters of many languages.
            true if matches!(letter, '\n' | '\r' | '\t') => shown.extend(letter.escape_default()),
            true => shown.extend(letter.escape_unicode()),
            false => shown.push(letter),
        }
        before = Some(letter);
    }
}

/// Returns whether `letter` controls a terminal or misleads the reader. `before` is the character before it.
fn is_harmful(letter: char, before: Option<char>) -> bool {
    match letter {
        // The control characters C0, DEL and C1.
        _ if letter.is_control() => true,
        // Persian, Indic scripts and emoji need joiners. Between ASCII letters they are only invisible.
        '\u{200c}' | '\u{200d}' => before.is_none_or(|before| before.is_ascii()),
        // Text directions (Unicode Standard Annex 9), and line and paragraph separators.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        // Invisible characters: soft hyphens, joiners, spaces and letters without width, marks for programs.
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
    fn a_file_is_shown_the_same_however_it_is_cut() {
        let file = "a\r\nGrüße\tde l\u{2019}\u{1f600}\n\u{1b}[2J\rb\u{202e}\n".as_bytes();
        let file = &[file, b"\xff\xe2\x80\n\xf0\x9f"].concat();
        let expected = "a\nGrüße\tde l’😀\n\\u{1b}[2J\\rb\\u{202e}\n\\xff\\xe2\\x80\n\\xf0\\x9f";
        for len in 1..=file.len() {
            let mut terminal = Terminal::new(Vec::new());
            file.chunks(len).for_each(|piece| terminal.write_all(piece).unwrap());
            terminal.flush().unwrap();
            assert_eq!(String::from_utf8(terminal.out).unwrap(), expected, "in pieces of {len}");
        }
    }

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

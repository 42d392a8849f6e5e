//! Addresses in header fields (RFC 5322, 3.4), as programs write them.

use super::charset::Charset;
use super::header::unfolded;
use super::words;
use std::borrow::Cow;

/// Maximum number of addresses that are read from all fields of one name, because a hostile mail may name any number.
/// The rest is ignored.
pub const ADDRESSES_MAX: usize = 10_000;

/// A person or mailbox that a mail comes from or goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// The name, decoded; empty if there is none.
    pub name: String,
    /// The address; empty if there is only a name.
    pub address: String,
}

impl Address {
    /// Returns `Alice Smith <alice@contoso.com>`, or only the name or only the address if the other is empty.
    pub fn shown(&self) -> Cow<'_, str> {
        match (self.name.is_empty(), self.address.is_empty()) {
            (false, false) => format!("{} <{}>", self.name, self.address).into(),
            (false, true) => self.name.as_str().into(),
            _ => self.address.as_str().into(),
        }
    }
}

/// Reads the addresses in the value of a field. The names of groups are ignored.
///
/// `charset` is the charset of the message; it is used for bytes that are not encoded words. Takes linear time.
pub fn parse(value: &[u8], charset: Option<Charset>) -> impl Iterator<Item = Address> {
    let line = unfolded(value);
    // In unencoded text in ISO-2022 or Shift_JIS, a quote, comma or backslash may be one half of a letter.
    let line = match line.is_ascii() && !line.contains(&0x1b) {
        true => line.into_owned(),
        false => words::raw(&line, charset).into_owned().into_bytes(),
    };
    let mut rest = Rest { line, at: 0, unclosed: false };
    let mut next = move || {
        while let Some(byte) = rest.line.get(rest.at) {
            if matches!(byte, b',' | b';' | b' ') {
                rest.at += 1;
                continue;
            }
            let (address, is_in_brackets) = rest.one(charset);
            if address != Address::default() {
                return Some((address, is_in_brackets));
            }
        }
        None
    };
    // An address that was read ahead, to see whether it continues the name before it.
    let mut seen = None;
    std::iter::from_fn(move || {
        let (first, _) = seen.take().or_else(&mut next)?;
        if !first.address.is_empty() {
            return Some(first);
        }
        // `Doe, John <john@contoso.com>` without quotes is one name with a comma in it.
        match next() {
            Some((Address { name, address }, true)) if !name.is_empty() => {
                Some(Address { name: format!("{}, {name}", first.name), address })
            }
            other => {
                seen = other;
                Some(first)
            }
        }
    })
    .take(ADDRESSES_MAX)
}

struct Rest {
    line: Vec<u8>,
    at: usize,
    /// True after a quote or bracket without an end. From then on, quotes and brackets are ordinary letters.
    unclosed: bool,
}

/// The pieces of one address.
#[derive(Default)]
struct Pieces {
    /// The words outside of `<>` and comments, quoted words included.
    phrase: Vec<u8>,
    /// The text between `<` and `>`.
    angle: Option<Vec<u8>>,
    comment: Vec<u8>,
    quoted: bool,
    /// How much of the phrase was searched for `@`, and whether there is one in it.
    searched_len: usize,
    has_at: bool,
}

impl Pieces {
    /// Returns whether the phrase has an `@`. Each byte is looked at once, however often this is asked.
    fn has_at(&mut self) -> bool {
        self.has_at |= self.phrase[self.searched_len..].contains(&b'@');
        self.searched_len = self.phrase.len();
        self.has_at
    }
}

impl Rest {
    /// Reads one address, up to the next comma. Also returns whether the address stands in `<>`.
    fn one(&mut self, charset: Option<Charset>) -> (Address, bool) {
        let mut pieces = Pieces::default();
        while let Some(&byte) = self.line.get(self.at) {
            self.at += 1;
            match byte {
                b',' | b';' => break,
                b'"' if !self.unclosed => match self.quoted() {
                    Some(text) => {
                        pieces.quoted = true;
                        pieces.phrase.extend_from_slice(&text);
                    }
                    None => {
                        self.unclosed = true;
                        pieces.phrase.push(byte);
                    }
                },
                b'(' if !self.unclosed => match self.comment() {
                    Some(text) => pieces.comment = text,
                    None => {
                        self.unclosed = true;
                        pieces.phrase.push(byte);
                    }
                },
                b'<' => {
                    let behind = &self.line[self.at..];
                    match memchr::memchr2(b'>', b'<', behind) {
                        // Another `<` comes before the `>`: the text between them belongs to the name.
                        Some(end) if behind[end] == b'<' => pieces.phrase.extend_from_slice(&behind[..end]),
                        end => {
                            let end = end.unwrap_or(behind.len());
                            pieces.angle = Some(behind[..end].to_vec());
                            self.at += 1;
                            self.at += end;
                            continue;
                        }
                    }
                    let skipped = memchr::memchr(b'<', &self.line[self.at..]).unwrap_or(0);
                    self.at += skipped;
                }
                // The text before the colon is the name of a group, or `mailto:`.
                b':' if pieces.angle.is_none() && !pieces.has_at() => pieces = Pieces::default(),
                b'=' if self.line[self.at..].starts_with(b"?") => {
                    let word = self.word_len();
                    pieces.phrase.extend_from_slice(&self.line[self.at - 1..self.at + word]);
                    self.at += word;
                }
                _ => pieces.phrase.push(byte),
            }
        }
        let is_in_brackets = pieces.angle.is_some();
        (pieces.address(charset), is_in_brackets)
    }

    /// Returns the length of the encoded word at the current position, counted from its second byte. Commas and
    /// brackets inside the word separate nothing.
    fn word_len(&self) -> usize {
        /// Maximum length of an encoded word, so that the search for its end stays short. Longer words are ordinary
        /// text.
        const WORD_BYTES_MAX: usize = 1000;
        let behind = &self.line[self.at..self.line.len().min(self.at + WORD_BYTES_MAX)];
        let mut marks = memchr::memchr_iter(b'?', behind).skip(2);
        let text = marks.next();
        let end = text.and_then(|text| memchr::memmem::find(&behind[text + 1..], b"?=").map(|end| text + 1 + end + 2));
        end.filter(|end| !behind[..*end].contains(&b' ') || *end < 80).unwrap_or(1)
    }

    /// Reads a quoted text whose first quote was read already. If the text does not end, reads nothing and returns
    /// none.
    fn quoted(&mut self) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        let mut at = self.at;
        loop {
            match (self.line.get(at)?, self.line.get(at + 1)) {
                (b'"', _) => break,
                (b'\\', Some(quoted)) => {
                    text.push(*quoted);
                    at += 2;
                }
                (byte, _) => {
                    text.push(*byte);
                    at += 1;
                }
            }
        }
        self.at = at + 1;
        Some(text)
    }

    /// Reads a comment whose first bracket was read already. If the comment does not end, reads nothing and returns
    /// none.
    fn comment(&mut self) -> Option<Vec<u8>> {
        let mut depth = 1_usize;
        let len = self.line[self.at..].iter().position(|byte| {
            match byte {
                b'(' => depth += 1,
                b')' => depth -= 1,
                _ => {}
            }
            depth == 0
        })?;
        let text = self.line[self.at..self.at + len].to_vec();
        self.at += len + 1;
        Some(text)
    }
}

impl Pieces {
    fn address(self, charset: Option<Charset>) -> Address {
        let phrase = one_line(&words::decode(&self.phrase, charset));
        if let Some(angle) = self.angle {
            let address = one_line(&words::raw(&angle, charset)).replace(' ', "");
            let address = address.strip_prefix("mailto:").unwrap_or(&address).to_owned();
            let name = if phrase.is_empty() { one_line(&words::decode(&self.comment, charset)) } else { phrase };
            return Address { name, address };
        }
        let comment = one_line(&words::decode(&self.comment, charset));
        // `alice@contoso.com (Alice)`: the comment is the name. Words without an address are a name, except for a UUCP
        // path such as `host!user`, which is an address from the time before domains.
        let is_path =
            phrase.contains('!') && !phrase.contains(' ') && !phrase.starts_with('!') && !phrase.ends_with('!');
        if phrase.contains('@') && !phrase.contains(' ') || self.quoted && phrase.contains('@') || is_path {
            Address { name: comment, address: phrase }
        } else if let Some(address) = phrase.split(' ').find(|word| word.contains('@')) {
            let name = phrase.replace(address, "");
            Address { name: one_line(&name), address: address.to_owned() }
        } else if phrase.is_empty() {
            Address { name: comment, address: String::new() }
        } else {
            Address { name: phrase, address: String::new() }
        }
    }
}

/// Returns a text as one line: single spaces between words, no control characters.
pub(crate) fn one_line(text: &str) -> String {
    let words = text.split(|char: char| char.is_whitespace() || char.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::testing::processor_time;
    use proptest::prelude::*;

    fn all(value: &str) -> String {
        parse(value.as_bytes(), None).map(|address| address.shown().into_owned()).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn addresses_are_read() {
        for (value, expected) in [
            ("alice@contoso.com", "alice@contoso.com"),
            ("Alice Smith <alice@contoso.com>", "Alice Smith <alice@contoso.com>"),
            (
                "\"Smith, Alice\" <alice@contoso.com>,\r\n bob@contoso.com",
                "Smith, Alice <alice@contoso.com> | bob@contoso.com",
            ),
            ("\"=?UTF-8?B?SsO8cmdlbiwgQ2hlZg==?=\" <j@example.org>", "Jürgen, Chef <j@example.org>"),
            ("=?UTF-8?Q?M=C3=BCller,_J?= <j@example.org>, b@c", "Müller, J <j@example.org> | b@c"),
            ("=?UTF-8?Q?J=C3?=\r\n =?UTF-8?Q?=BCrgen?= <j@example.org>", "Jürgen <j@example.org>"),
            ("alice@contoso.com (Alice)", "Alice <alice@contoso.com>"),
            ("friends: a@b.c, D <d@e.f>; , g@h.i", "a@b.c | D <d@e.f> | g@h.i"),
            ("undisclosed-recipients:;", ""),
            ("Alice <alice@contoso.com", "Alice <alice@contoso.com>"),
            ("Alice", "Alice"),
            ("<>", ""),
            ("\"A \\\"B\\\"\" <a@b>", "A \"B\" <a@b>"),
            ("\"unclosed <a@b>", "\"unclosed <a@b>"),
            ("O'Neil (x <a@b>", "O'Neil (x <a@b>"),
            ("Bob <mailto:b@c>", "Bob <b@c>"),
            ("a <b <c@d>", "a b <c@d>"),
            ("Alice alice@contoso.com", "Alice <alice@contoso.com>"),
            ("Doe, John <j@d.e>", "Doe, John <j@d.e>"),
            ("Doe, John <j@d.e>, Smith, Ann <a@b.c>, Bob", "Doe, John <j@d.e> | Smith, Ann <a@b.c> | Bob"),
            ("=?iso-8859-1?Q?M=FCller?=, =?iso-8859-1?Q?J=F6rg?= <j@d.e>", "Müller, Jörg <j@d.e>"),
            ("Bob, a@b.c", "Bob | a@b.c"),
            ("Bob, <a@b.c>", "Bob | a@b.c"),
            ("Bob, Ann, Eve <a@b.c>", "Bob | Ann, Eve <a@b.c>"),
            ("decvax!ucbvax!ann (Ann Other)", "Ann Other <decvax!ucbvax!ann>"),
            ("Yahoo!", "Yahoo!"),
        ] {
            assert_eq!(all(value), expected, "{value:?}");
        }
        let latin = parse(b"J\xfcrgen <j@example.org>", None).next().unwrap();
        assert_eq!(latin.name, "Jürgen");
    }

    /// Quotes, commas, semicolons and backslashes are halves of letters between `ESC $ B` and `ESC ( B`, and behind the
    /// first byte of a two-byte letter.
    #[test]
    fn halves_of_letters_that_nobody_encoded_are_no_marks() {
        for (value, charset, expected) in [
            (&b"\x1b$B;3ED\x1b(B <yamada@example.jp>, b@c.d"[..], None, "山田 <yamada@example.jp>|b@c.d"),
            (b"\x1b$BF|K\\8l!\"\x1b(B <a@b.c>", None, "日本語、 <a@b.c>"),
            (b"\"\x97\x5c\x92\xe8\" <a@b.c>, b@c.d", Charset::named("shift_jis"), "予定 <a@b.c>|b@c.d"),
            (b"\"\x91\xe3\x95\x5c\" <a@b.c>", Charset::named("shift_jis"), "代表 <a@b.c>"),
            (b"\"\xb3\x5c\xa5\\\" <a@b.c>", Charset::named("big5"), "許功 <a@b.c>"),
            (b"\"M\xfcller\\\"s\" <a@b.c>", Charset::named("iso-8859-1"), "Müller\"s <a@b.c>"),
        ] {
            let shown: Vec<_> = parse(value, charset).map(|one| one.shown().into_owned()).collect();
            assert_eq!(shown.join("|"), expected, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn hostile_values_take_linear_time() {
        let units = ["(", "<", "\"", ",", "a:", "=?utf-8?Q?", "=?", "\\", "a@b ", "<>", "()"];
        for (head, unit) in ["", "<a>"].iter().flat_map(|head| units.map(|unit| (head, unit))) {
            let value = format!("{head}{}", unit.repeat((1 << 20) / unit.len()));
            let time = processor_time(|| {
                parse(value.as_bytes(), None).count();
            });
            assert!(time.as_secs() < 5, "{head:?} {unit:?} took {time:?}");
        }
    }

    proptest! {
        #[test]
        fn any_value_is_read(value in "([a-z@<>,;:()\"=?\\\\ ]|=\\?utf-8\\?Q\\?){0,60}") {
            for address in parse(value.as_bytes(), None) {
                prop_assert!(!address.shown().is_empty());
            }
        }
    }
}

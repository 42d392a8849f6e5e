//! Base64 text (RFC 4648): decoded leniently, decoded strictly, and written.

/// The characters of base64 (RFC 4648, 4), and what groups of four of them decode to.
struct Alphabet {
    /// For each position in a group, what a character there adds to the group's 24 bits; [`NO_VALUE`] for other bytes.
    parts: [[u32; 256]; 4],
    /// The two characters that are neither letter nor digit.
    marks: [u8; 2],
}

/// A bit that no valid group sets.
const NO_VALUE: u32 = 1 << 31;

const CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static STANDARD: Alphabet = Alphabet::of(CHARS);
/// The alphabet for URLs (RFC 4648, 5).
static URL: Alphabet = Alphabet::of(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");

impl Alphabet {
    const fn of(chars: &[u8; 64]) -> Self {
        let mut parts = [[NO_VALUE; 256]; 4];
        let mut place = 0;
        while place < 4 {
            let mut value = 0;
            while value < 64 {
                parts[place][chars[value] as usize] = (value as u32) << (18 - 6 * place);
                value += 1;
            }
            place += 1;
        }
        Self { parts, marks: [chars[62], chars[63]] }
    }

    /// Returns the alphabet of a text: the one for URLs only if no character of the standard one alone occurs.
    fn of_text(text: &[u8]) -> &'static Self {
        let is_url = memchr::memchr2(b'-', b'_', text).is_some() && memchr::memchr2(b'+', b'/', text).is_none();
        if is_url { &URL } else { &STANDARD }
    }

    /// Returns the value of a character.
    fn value(&self, char: u8) -> Option<u8> {
        let value = self.parts[3][usize::from(char)];
        (value != NO_VALUE).then_some(value as u8)
    }

    /// Returns how many characters of the alphabet stand in a text.
    fn count(&self, text: &[u8]) -> usize {
        let [plus, slash] = self.marks;
        // Comparisons and small sums, without a table: the compiler makes vector instructions of them.
        let is_char = |byte: &u8| u8::from(byte.is_ascii_alphanumeric() | (*byte == plus) | (*byte == slash));
        text.chunks(usize::from(u8::MAX)).map(|piece| usize::from(piece.iter().map(is_char).sum::<u8>())).sum()
    }

    /// Returns the three bytes of four characters, with [`NO_VALUE`] set if one character is not in the alphabet.
    fn group(&self, chars: &[u8]) -> u32 {
        let part = |place: usize| self.parts[place][usize::from(chars[place])];
        part(0) | part(1) | part(2) | part(3)
    }

    /// Appends the decoded bytes of whole groups. If they hold any other byte, appends nothing and returns false.
    fn decode_groups(&self, groups: &[u8], decoded: &mut Vec<u8>) -> bool {
        let start = decoded.len();
        decoded.resize(start + groups.len() / 4 * 3, 0);
        // Faults are collected and checked once at the end, so the loop has no branches.
        let mut seen = 0;
        let mut pairs = groups.chunks_exact(8);
        let mut bytes = decoded[start..].chunks_exact_mut(6);
        for (pair, bytes) in pairs.by_ref().zip(bytes.by_ref()) {
            let (first, second) = (self.group(&pair[..4]), self.group(&pair[4..]));
            seen |= first | second;
            let both = u64::from(first) << 40 | u64::from(second) << 16;
            bytes.copy_from_slice(&both.to_be_bytes()[..6]);
        }
        for (group, bytes) in pairs.remainder().chunks_exact(4).zip(bytes.into_remainder().chunks_exact_mut(3)) {
            let group = self.group(group);
            seen |= group;
            bytes.copy_from_slice(&group.to_be_bytes()[1..]);
        }
        let is_good = seen & NO_VALUE == 0;
        if !is_good {
            decoded.truncate(start);
        }
        is_good
    }
}

/// The two characters for each value of 12 bits.
static PAIRS: [[u8; 2]; 4096] = {
    let mut pairs = [[0; 2]; 4096];
    let mut bits = 0;
    while bits < 4096 {
        pairs[bits] = [CHARS[bits >> 6], CHARS[bits & 0x3f]];
        bits += 1;
    }
    pairs
};

/// Appends bytes as base64 text without line endings, padded (RFC 4648, 4).
pub fn append(bytes: &[u8], text: &mut Vec<u8>) {
    let start = text.len();
    text.resize(start + bytes.len().div_ceil(3) * 4, b'=');
    write(bytes, &mut text[start..]);
}

/// Writes bytes as base64 text without padding to the start of `text`, which has room for it.
pub fn write(bytes: &[u8], text: &mut [u8]) {
    let pairs = |bits: u64, shifts: [u32; 2]| {
        let pair = |shift: u32| u32::from(u16::from_le_bytes(PAIRS[(bits >> shift & 0xfff) as usize]));
        pair(shifts[0]) | pair(shifts[1]) << 16
    };
    let mut sixes = bytes.chunks_exact(6);
    for (six, chars) in sixes.by_ref().zip(text.chunks_exact_mut(8)) {
        let bits = u64::from_be_bytes([0, 0, six[0], six[1], six[2], six[3], six[4], six[5]]);
        let chars_of_both = u64::from(pairs(bits, [36, 24])) | u64::from(pairs(bits, [12, 0])) << 32;
        chars.copy_from_slice(&chars_of_both.to_le_bytes());
    }
    // Less than six bytes are left.
    let text = &mut text[bytes.len() / 6 * 8..];
    for (group, chars) in sixes.remainder().chunks(3).zip(text.chunks_mut(4)) {
        let byte = |at: usize| u64::from(group.get(at).copied().unwrap_or(0));
        let all = pairs(byte(0) << 16 | byte(1) << 8 | byte(2), [12, 0]).to_le_bytes();
        chars[..=group.len()].copy_from_slice(&all[..=group.len()]);
    }
}

/// Returns the value of a base64 character (RFC 4648, 4).
pub fn value_of(char: u8) -> Option<u8> {
    STANDARD.value(char)
}

/// Appends the decoded bytes of whole groups of four base64 characters. If they hold any other byte, padding and line
/// endings included, appends nothing and returns false.
pub fn decode_groups(groups: &[u8], decoded: &mut Vec<u8>) -> bool {
    STANDARD.decode_groups(groups, decoded)
}

/// Returns whether a byte is in one of the two alphabets.
pub fn is_char(byte: u8) -> bool {
    STANDARD.value(byte).is_some() || matches!(byte, b'-' | b'_')
}

/// Decodes base64. Other bytes are skipped. Padding ends a group, and another text may follow it.
pub fn decode(encoded: &[u8]) -> Vec<u8> {
    let alphabet = Alphabet::of_text(encoded);
    let mut decoded = Vec::with_capacity(encoded.len() / 4 * 3 + 3);
    let (mut group, mut count) = (0, 0);
    let mut rest = encoded;
    while !rest.is_empty() {
        let len = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        let (line, behind) = rest.split_at(rest.len().min(len + 1));
        rest = behind;
        // Decode the whole groups of a line at once, if they hold no other bytes.
        let whole = len / 4 * 4;
        let is_good = count == 0 && alphabet.decode_groups(&line[..whole], &mut decoded);
        for &byte in &line[if is_good { whole } else { 0 }..] {
            if let Some(value) = alphabet.value(byte) {
                group = group << 6 | u32::from(value);
                count += 1;
            }
            // Padding where none can be is skipped, too.
            if count == 4 || (byte == b'=' && count >= 2) {
                push_group(group, count, &mut decoded);
                (group, count) = (0, 0);
            }
        }
    }
    push_group(group, count, &mut decoded);
    decoded
}

/// Appends the bytes of a group. 2 characters hold one byte, 3 hold two, 4 hold three.
fn push_group(group: u32, count: usize, decoded: &mut Vec<u8>) {
    let bytes = (group << (6 * (4 - count))).to_be_bytes();
    decoded.extend_from_slice(&bytes[1..count.max(1)]);
}

/// Returns the number of bytes that [`decode`] returns.
pub fn decoded_len(encoded: &[u8]) -> usize {
    let alphabet = Alphabet::of_text(encoded);
    let (mut len, mut count) = (0, 0);
    let mut rest = encoded;
    while !rest.is_empty() {
        let padding = memchr::memchr(b'=', rest);
        let (piece, behind) = rest.split_at(padding.map_or(rest.len(), |at| at + 1));
        rest = behind;
        count += alphabet.count(piece);
        len += count / 4 * 3;
        count %= 4;
        if padding.is_some() && count >= 2 {
            len += count - 1;
            count = 0;
        }
    }
    len + count.saturating_sub(1)
}

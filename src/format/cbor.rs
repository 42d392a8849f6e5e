//! The small part of CBOR (RFC 8949) that the repository's formats use, in its deterministic form (section 4.2.1).
//!
//! It has integers, byte strings, text strings, arrays, maps with integer keys, booleans and null; heads are as short
//! as possible, and lengths are definite. Tree nodes hold millions of entries, so reading borrows from the input and
//! allocates nothing. Data from a repository may be hostile: every length is checked against the rest of the input
//! before it is used.

/// Encoded fields of a map, with their keys.
pub type Fields = Vec<(u64, Box<[u8]>)>;

/// Why bytes are not the expected CBOR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CborError {
    /// The input ends inside an item.
    #[error("the data ends too early")]
    Truncated,
    /// An item is of another type than `expected`.
    #[error("expected {expected}")]
    Unexpected {
        /// The expected type.
        expected: &'static str,
    },
    /// A form that the format does not use (floats, indefinite lengths), or nesting that is too deep.
    #[error("unsupported encoding")]
    Unsupported,
    /// A value outside the range of its field.
    #[error("value out of range")]
    Range,
}

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const SIMPLE: u8 = 7;

/// Maximum nesting depth of items. Deeper items are refused, so that hostile input cannot exhaust the stack.
const DEPTH_MAX: usize = 16;

/// Appends items to a buffer.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Creates an empty writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the bytes written so far.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn head(&mut self, major: u8, value: u64) {
        let major = major << 5;
        match value {
            0..=23 => self.bytes.push(major | value as u8),
            24..=0xff => self.bytes.extend([major | 24, value as u8]),
            0x100..=0xffff => {
                self.bytes.push(major | 25);
                self.bytes.extend((value as u16).to_be_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.bytes.push(major | 26);
                self.bytes.extend((value as u32).to_be_bytes());
            }
            _ => {
                self.bytes.push(major | 27);
                self.bytes.extend(value.to_be_bytes());
            }
        }
    }

    /// Writes an unsigned integer.
    pub fn uint(&mut self, value: u64) -> &mut Self {
        self.head(UNSIGNED, value);
        self
    }

    /// Writes a signed integer.
    pub fn int(&mut self, value: i64) -> &mut Self {
        match u64::try_from(value) {
            Ok(value) => self.head(UNSIGNED, value),
            Err(_) => self.head(NEGATIVE, !value as u64),
        }
        self
    }

    /// Writes a byte string.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.head(BYTES, value.len() as u64);
        self.bytes.extend_from_slice(value);
        self
    }

    /// Writes a text string.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.head(TEXT, value.len() as u64);
        self.bytes.extend_from_slice(value.as_bytes());
        self
    }

    /// Begins an array of `len` items, which the caller writes next.
    pub fn array(&mut self, len: usize) -> &mut Self {
        self.head(ARRAY, len as u64);
        self
    }

    /// Begins a map of `len` pairs, whose keys the caller writes in ascending order.
    pub fn map(&mut self, len: usize) -> &mut Self {
        self.head(MAP, len as u64);
        self
    }

    /// Writes `true` or `false`.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.head(SIMPLE, 20 + u64::from(value));
        self
    }

    /// Appends the bytes of an item that is already encoded.
    pub fn raw(&mut self, item: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(item);
        self
    }
}

/// Writes a map whose number of pairs is not known in advance: collects the pairs and writes the head last.
#[derive(Debug, Default)]
pub struct MapWriter {
    pairs: Writer,
    len: usize,
}

impl MapWriter {
    /// Begins the field `key`; keys must ascend.
    pub fn field(&mut self, key: u64) -> &mut Writer {
        self.len += 1;
        self.pairs.uint(key)
    }

    /// Writes the map into `out`.
    pub fn finish(self, out: &mut Writer) {
        out.map(self.len).raw(&self.pairs.into_bytes());
    }
}

/// Reads items from the front of a slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Creates a reader of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Returns whether all input was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], CborError> {
        let len = usize::try_from(len).map_err(|_| CborError::Truncated)?;
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(CborError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn head(&mut self) -> Result<(u8, u64), CborError> {
        let first = self.take(1)?[0];
        let (value, least) = match first & 0x1f {
            small @ 0..=23 => (u64::from(small), 0),
            24 => (u64::from(self.take(1)?[0]), 24),
            wide @ 25..=27 => {
                let bytes = self.take(1 << (wide - 24))?;
                let value = bytes.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte));
                (value, 1 << (4 << (wide - 24)))
            }
            _ => return Err(CborError::Unsupported),
        };
        // Each value has only one valid encoding. The simple values that the format uses fit into the first byte.
        let simple = first >> 5 == SIMPLE;
        if value < least || (simple && !(20..=22).contains(&first.wrapping_sub(SIMPLE << 5))) {
            return Err(CborError::Unsupported);
        }
        Ok((first >> 5, value))
    }

    fn expect(&mut self, major: u8, expected: &'static str) -> Result<u64, CborError> {
        match self.head()? {
            (found, value) if found == major => Ok(value),
            _ => Err(CborError::Unexpected { expected }),
        }
    }

    /// Reads an unsigned integer.
    pub fn uint(&mut self) -> Result<u64, CborError> {
        self.expect(UNSIGNED, "an unsigned integer")
    }

    /// Reads an unsigned integer that fits `T`.
    pub fn uint_as<T: TryFrom<u64>>(&mut self) -> Result<T, CborError> {
        T::try_from(self.uint()?).map_err(|_| CborError::Range)
    }

    /// Reads a signed integer.
    pub fn int(&mut self) -> Result<i64, CborError> {
        match self.head()? {
            (UNSIGNED, value) => i64::try_from(value).map_err(|_| CborError::Range),
            (NEGATIVE, value) => i64::try_from(value).map(|value| !value).map_err(|_| CborError::Range),
            _ => Err(CborError::Unexpected { expected: "an integer" }),
        }
    }

    /// Reads a byte string.
    pub fn bytes(&mut self) -> Result<&'a [u8], CborError> {
        let len = self.expect(BYTES, "a byte string")?;
        self.take(len)
    }

    /// Reads a byte string of exactly `N` bytes.
    pub fn array_of<const N: usize>(&mut self) -> Result<[u8; N], CborError> {
        self.bytes()?.try_into().map_err(|_| CborError::Range)
    }

    /// Reads a text string.
    pub fn text(&mut self) -> Result<&'a str, CborError> {
        let len = self.expect(TEXT, "a text string")?;
        std::str::from_utf8(self.take(len)?).map_err(|_| CborError::Unexpected { expected: "UTF-8" })
    }

    /// Reads the head of an array and returns its length, which is at most the number of bytes left.
    pub fn array(&mut self) -> Result<usize, CborError> {
        let len = self.expect(ARRAY, "an array")?;
        self.count(len)
    }

    /// Reads the head of a map and returns its number of pairs.
    pub fn map(&mut self) -> Result<usize, CborError> {
        let len = self.expect(MAP, "a map")?;
        self.count(len)
    }

    /// Reads `true` or `false`.
    pub fn bool(&mut self) -> Result<bool, CborError> {
        match self.expect(SIMPLE, "a boolean")? {
            20 => Ok(false),
            21 => Ok(true),
            _ => Err(CborError::Unexpected { expected: "a boolean" }),
        }
    }

    /// Converts `len` to a count of items. Refuses a count that the rest of the input cannot hold, as an item takes at
    /// least one byte.
    fn count(&self, len: u64) -> Result<usize, CborError> {
        usize::try_from(len).ok().filter(|len| *len <= self.rest.len()).ok_or(CborError::Truncated)
    }

    /// Skips one item of any supported type and returns its bytes.
    pub fn skip(&mut self) -> Result<&'a [u8], CborError> {
        let start = self.rest;
        self.skip_nested(0)?;
        Ok(&start[..start.len() - self.rest.len()])
    }

    fn skip_nested(&mut self, depth: usize) -> Result<(), CborError> {
        if depth > DEPTH_MAX {
            return Err(CborError::Unsupported);
        }
        let (major, value) = self.head()?;
        let nested = match major {
            UNSIGNED | NEGATIVE | SIMPLE => 0,
            BYTES | TEXT => {
                self.take(value)?;
                0
            }
            ARRAY => self.count(value)?,
            MAP => self.count(value)?.checked_mul(2).ok_or(CborError::Truncated)?,
            _ => return Err(CborError::Unsupported),
        };
        (0..nested).try_for_each(|_| self.skip_nested(depth + 1))
    }

    /// Reads a map with unsigned keys. Calls `field` with each key and a reader of its value; `field` returns whether
    /// it read the value. Returns the encoded pairs that it did not read, so that they can be written again.
    ///
    /// # Errors
    /// Refuses keys that do not ascend, because they would allow two encodings of the same map.
    pub fn fields<E: From<CborError>>(
        &mut self,
        mut field: impl FnMut(u64, &mut Self) -> Result<bool, E>,
    ) -> Result<Fields, E> {
        let mut unknown = Vec::new();
        let mut last = None;
        for _ in 0..self.map()? {
            let key = self.uint()?;
            if last.is_some_and(|last| key <= last) {
                return Err(CborError::Unexpected { expected: "ascending keys" }.into());
            }
            last = Some(key);
            if !field(key, self)? {
                unknown.push((key, self.skip()?.into()));
            }
        }
        Ok(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Examples from RFC 8949, appendix A.
    #[test]
    fn integers_are_encoded_as_the_rfc_shows() {
        let cases: [(i64, &[u8]); 8] = [
            (0, &[0x00]),
            (23, &[0x17]),
            (24, &[0x18, 0x18]),
            (1000, &[0x19, 0x03, 0xe8]),
            (1_000_000, &[0x1a, 0x00, 0x0f, 0x42, 0x40]),
            (1_000_000_000_000, &[0x1b, 0, 0, 0, 0xe8, 0xd4, 0xa5, 0x10, 0]),
            (-1, &[0x20]),
            (-1000, &[0x39, 0x03, 0xe7]),
        ];
        for (value, encoded) in cases {
            let mut writer = Writer::new();
            writer.int(value);
            assert_eq!(writer.into_bytes(), encoded);
            assert_eq!(Reader::new(encoded).int(), Ok(value));
        }
    }

    #[test]
    fn hostile_lengths_and_depths_are_refused() {
        assert_eq!(
            Reader::new(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).array(),
            Err(CborError::Truncated)
        );
        assert_eq!(Reader::new(&[0x5a, 0xff, 0xff, 0xff, 0xff, 1]).bytes(), Err(CborError::Truncated));
        assert_eq!(Reader::new(&[0x81; 1000]).skip(), Err(CborError::Unsupported));
        assert_eq!(Reader::new(&[0x5f]).skip(), Err(CborError::Unsupported));
        assert_eq!(
            Reader::new(&[0xa2, 2, 0, 1, 0]).fields(|_, _| Ok::<_, CborError>(false)),
            Err(CborError::Unexpected { expected: "ascending keys" })
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = Reader::new(&bytes).skip();
            let _ = Reader::new(&bytes).fields(|key, value| match key {
                ..5 => value.text().map(|_| true),
                _ => Ok(false),
            });
        }

        #[test]
        fn what_is_written_is_read_again(number: u64, signed: i64, bytes: Vec<u8>, text: String, flag: bool) {
            let mut writer = Writer::new();
            writer.array(5).uint(number).int(signed).bytes(&bytes).text(&text).bool(flag);
            let encoded = writer.into_bytes();
            let mut reader = Reader::new(&encoded);
            prop_assert_eq!(reader.array(), Ok(5));
            prop_assert_eq!(reader.uint(), Ok(number));
            prop_assert_eq!(reader.int(), Ok(signed));
            prop_assert_eq!(reader.bytes(), Ok(bytes.as_slice()));
            prop_assert_eq!(reader.text(), Ok(text.as_str()));
            prop_assert_eq!(reader.bool(), Ok(flag));
            prop_assert!(reader.is_empty());
        }
    }
}

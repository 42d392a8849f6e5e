//! Numbers of variable length: seven bits a byte, the lowest first, and the eighth bit says that more follow.

use super::RecreateError;

/// Appends `number`.
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads numbers and bytes from the front of a slice.
#[derive(Clone)]
pub(super) struct ByteReader<'a> {
    rest: &'a [u8],
}

const SHORT: RecreateError = RecreateError::Corrections("they end too early");

impl<'a> ByteReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn byte(&mut self) -> Result<u8, RecreateError> {
        let (&first, rest) = self.rest.split_first().ok_or(SHORT)?;
        self.rest = rest;
        Ok(first)
    }

    /// Reads a number below 2^35.
    pub(super) fn number(&mut self) -> Result<usize, RecreateError> {
        let mut number = 0;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return usize::try_from(number).map_err(|_| TOO_LARGE);
            }
        }
        Err(TOO_LARGE)
    }

    pub(super) fn number_in(&mut self, least: usize, most: usize) -> Result<usize, RecreateError> {
        let number = self.number()?;
        if (least..=most).contains(&number) { Ok(number) } else { Err(TOO_LARGE) }
    }

    pub(super) fn bytes(&mut self, length: usize) -> Result<&'a [u8], RecreateError> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(SHORT)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Reads a length and a part that long.
    pub(super) fn part(&mut self) -> Result<ByteReader<'a>, RecreateError> {
        let length = self.number()?;
        Ok(Self::new(self.bytes(length)?))
    }
}

const TOO_LARGE: RecreateError = RecreateError::Corrections("a number is out of its range");

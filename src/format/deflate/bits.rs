//! Bits of a deflate stream: the first bit of a byte is its lowest one (RFC 1951, 3.1.1).

/// Reads bits from the beginning of a slice. Bits behind its end read as zero until [`BitReader::overrun`] is asked.
pub(super) struct BitReader<'a> {
    data: &'a [u8],
    /// Bytes that were moved into `buffer`, including imagined ones behind the end.
    next: usize,
    buffer: u64,
    available: u32,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, next: 0, buffer: 0, available: 0 }
    }

    /// Makes at least 56 bits available. Behind the end of the data they are zero.
    #[inline]
    pub(super) fn refill(&mut self) {
        if let Some(eight) = self.data.get(self.next..self.next + 8) {
            let eight = u64::from_le_bytes(eight.try_into().expect("the slice has 8 bytes"));
            self.buffer |= eight << self.available;
            let taken = (63 - self.available) >> 3;
            self.next += taken as usize;
            self.available += taken * 8;
        } else {
            while self.available <= 56 {
                let byte = self.data.get(self.next).copied().unwrap_or(0);
                self.buffer |= u64::from(byte) << self.available;
                self.next += 1;
                self.available += 8;
            }
        }
    }

    /// Returns the next bits without taking them. Valid for as many bits as the last refill left.
    #[inline]
    pub(super) fn peek(&self) -> u64 {
        self.buffer
    }

    /// Takes `count` bits that are available.
    #[inline]
    pub(super) fn drop_bits(&mut self, count: u32) {
        self.buffer >>= count;
        self.available -= count;
    }

    /// Takes `count` (at most 32) bits, refilling first.
    pub(super) fn take(&mut self, count: u32) -> u32 {
        self.refill();
        let value = (self.buffer & ((1 << count) - 1)) as u32;
        self.drop_bits(count);
        value
    }

    /// Returns the number of bits that were taken.
    pub(super) fn position(&self) -> u64 {
        self.next as u64 * 8 - u64::from(self.available)
    }

    /// Tells whether more bits were taken than the data has.
    pub(super) fn overrun(&self) -> bool {
        self.position() > self.data.len() as u64 * 8
    }

    /// Takes the bits up to the next byte boundary.
    pub(super) fn align(&mut self) -> u8 {
        let count = (8 - (self.position() % 8) as u32) % 8;
        self.take(count) as u8
    }

    /// Takes `length` whole bytes. The position must be at a byte boundary.
    pub(super) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let start = usize::try_from(self.position() / 8).ok()?;
        let bytes = self.data.get(start..start.checked_add(length)?)?;
        self.next = start + length;
        self.buffer = 0;
        self.available = 0;
        Some(bytes)
    }
}

/// Collects bits into bytes.
#[derive(Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    buffer: u64,
    filled: u32,
}

impl BitWriter {
    /// Appends the lowest `count` (at most 48) bits of `value`; the bits above them must be zero.
    #[inline]
    pub(super) fn put(&mut self, value: u64, count: u32) {
        self.buffer |= value << self.filled;
        self.filled += count;
        if self.filled >= 16 {
            let whole = self.filled / 8;
            self.bytes.extend_from_slice(&self.buffer.to_le_bytes()[..whole as usize]);
            self.buffer = self.buffer.checked_shr(whole * 8).unwrap_or(0);
            self.filled -= whole * 8;
        }
    }

    /// Returns the number of bits that the last byte still has room for.
    pub(super) fn room(&self) -> u32 {
        (8 - self.filled % 8) % 8
    }

    /// Appends whole bytes. The position must be at a byte boundary.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let whole = self.filled / 8;
        self.bytes.extend_from_slice(&self.buffer.to_le_bytes()[..whole as usize]);
        self.buffer = 0;
        self.filled = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Hands the whole bytes to `sink` and keeps the rest.
    pub(super) fn drain<E>(&mut self, sink: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if self.filled.is_multiple_of(8) {
            self.bytes(&[]);
        }
        sink(&self.bytes)?;
        self.bytes.clear();
        Ok(())
    }

    /// Returns the bytes. The last one is filled with zeros.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let whole = self.filled.div_ceil(8);
        self.bytes.extend_from_slice(&self.buffer.to_le_bytes()[..whole as usize]);
        self.bytes
    }
}

//! A window of bytes that moves over a file.

use std::io;

/// Number of bytes that stay in memory before the current position.
pub(super) const LOOK_BACK: usize = 4 << 10;
/// Number of bytes that are read at a time.
const READ_LEN: usize = 1 << 20;

/// Bytes that can be read at any offset.
pub trait ReadAt {
    /// Reads into `buffer` from `offset`. Returns the number of bytes read; 0 only at the end.
    ///
    /// # Errors
    /// If reading fails.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for [u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        let len = buffer.len().min(self.len() - from);
        buffer[..len].copy_from_slice(&self[from..from + len]);
        Ok(len)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(buffer, offset)
    }
}

/// Reads until `buffer` is full or the input ends. Returns the number of bytes read.
pub(super) fn fill_at(input: &impl ReadAt, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A piece of the input that moves forward.
#[derive(Debug)]
pub(super) struct Window<R> {
    input: R,
    bytes: Vec<u8>,
    /// The offset of `bytes` in the input.
    start: u64,
    /// True if `bytes` ends where the input ends.
    at_end: bool,
}

impl<R: ReadAt> Window<R> {
    pub(super) fn new(input: R) -> Self {
        Window { input, bytes: Vec::new(), start: 0, at_end: false }
    }

    /// Moves the window so that it holds `len` bytes from `at` on, or all up to the end. Returns the index of `at` in
    /// [`Window::bytes`].
    pub(super) fn show(&mut self, at: u64, len: usize) -> io::Result<usize> {
        if at < self.start || at > self.end() {
            self.start = at.saturating_sub(LOOK_BACK as u64);
            self.bytes.clear();
            self.at_end = false;
        }
        let wanted = (at - self.start) as usize + len;
        if self.bytes.len() < wanted && !self.at_end {
            let drop = (at - self.start) as usize;
            let drop = drop.saturating_sub(LOOK_BACK).min(self.bytes.len());
            self.bytes.drain(..drop);
            self.start += drop as u64;
            let filled = self.bytes.len();
            self.bytes.resize(filled + (wanted - drop - filled).max(READ_LEN), 0);
            let from = self.start + filled as u64;
            let read = fill_at(&self.input, &mut self.bytes[filled..], from);
            self.bytes.truncate(filled + *read.as_ref().unwrap_or(&0));
            self.at_end = self.bytes.len() < filled + (wanted - drop - filled).max(READ_LEN);
            read?;
        }
        Ok((at - self.start) as usize)
    }

    /// Returns the bytes in the window.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the offset in the input where [`Window::bytes`] starts.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Returns the offset in the input where [`Window::bytes`] ends.
    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Returns whether the window reaches the end of the input.
    pub(super) fn at_end(&self) -> bool {
        self.at_end
    }

    /// Returns `len` bytes from `at` on, fewer only at the end. Does not move the window.
    pub(super) fn peek(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        if at >= self.start && (at + len as u64 <= self.end() || (self.at_end && at <= self.end())) {
            let from = (at - self.start) as usize;
            return Ok(self.bytes[from..self.bytes.len().min(from + len)].to_vec());
        }
        let mut bytes = vec![0; len];
        let read = fill_at(&self.input, &mut bytes, at)?;
        bytes.truncate(read);
        Ok(bytes)
    }
}

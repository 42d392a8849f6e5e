//! A file seen through a buffer that moves over it.

use std::io;

/// How much stays in memory before the place that is looked at.
pub(super) const LOOK_BACK: usize = 4 << 10;
/// How much is read at a time.
const READ_LEN: usize = 1 << 20;

/// Bytes that can be read anywhere.
pub trait ReadAt {
    /// Reads into `buffer` from `offset`; returns how much, 0 only at the end.
    ///
    /// # Errors
    /// When reading fails.
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

/// Reads until `buffer` is full or the input ends; returns how much was read.
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
    /// Where `bytes` starts in the input.
    start: u64,
    /// Whether `bytes` ends where the input does.
    at_end: bool,
}

impl<R: ReadAt> Window<R> {
    pub(super) fn new(input: R) -> Self {
        Window { input, bytes: Vec::new(), start: 0, at_end: false }
    }

    /// Moves so that `len` bytes from `at` are in the window, or all up to the end; returns the index of `at` in
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

    /// Returns what the window shows.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns where [`Window::bytes`] starts in the input.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Returns where [`Window::bytes`] ends in the input.
    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Returns whether the window reaches the end of the input.
    pub(super) fn at_end(&self) -> bool {
        self.at_end
    }

    /// Returns up to `len` bytes from `at`, wherever the window is, and leaves it there; fewer only at the end.
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

//! Reads a log from its beginning, and skips damaged records.
//!
//! A record is bound to its number, but the numbers are not in the file. So after a damaged record, the search tries
//! each offset whose four bytes can be a length, with each number that is possible there, until a record is authentic.

use super::{RECORD_BYTES_MAX, RecordLogError, bound};
use crate::format::crypto::{Keys, Purpose, TAG_LEN};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Number of bytes of a log that are in memory at the same time.
const WINDOW_BYTES: usize = 1 << 20;
/// Maximum number of bytes that the search after damaged records decrypts, plus [`TRIAL_BYTES`] for each trial. That
/// takes seconds at most, even in a file forged so that every offset looks like a record.
const SEARCH_BYTES_MAX: u64 = if cfg!(test) { 4 << 20 } else { 256 << 20 };
const TRIAL_BYTES: u64 = 512;
/// Maximum number of record numbers tried at an offset that is unlikely to be a record, because no record or end
/// follows it.
const UNLIKELY_NUMBERS_MAX: u64 = 16;
/// Length in bytes of the shortest record: a length and a tag.
const FRAME_BYTES_MIN: u64 = (4 + TAG_LEN) as u64;

/// What replaying a log found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Replayed {
    /// The number of the next record.
    pub records: u64,
    /// Offset of the next record. The bytes of the file after this offset are not a record.
    pub len: u64,
    /// Number of damaged records. Records cut off at the end leave no trace, so more may be lost.
    pub lost: u64,
    /// True if anything but an incomplete last record is not as it was written.
    pub is_damaged: bool,
    /// True if the file has bytes after the last record.
    pub is_cut: bool,
}

/// Passes the undamaged records of a log to `each`, in order.
///
/// # Errors
/// [`RecordLogError::Newer`] if `each` does not understand a record, [`RecordLogError::Io`].
pub(super) fn replay(
    file: &File,
    name: &[u8],
    keys: &Keys,
    each: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<Replayed, RecordLogError> {
    let end = file.metadata()?.len();
    let mut scan = Scan { file, name, keys, end, start: 0, window: Vec::new(), left: SEARCH_BYTES_MAX };
    let mut each = |text: &[u8]| if each(text) { Ok(()) } else { Err(RecordLogError::Newer) };
    let mut found = Replayed::default();
    while found.len < end {
        let (at, number) = (found.len, found.records);
        if let Some(text) = scan.record(at, number)? {
            // Stop with an error: the record and those after it are valid, and must not be cut off like the rest of a
            // crash.
            each(&text)?;
            found.len = at + FRAME_BYTES_MIN + text.len() as u64;
            found.records += 1;
            continue;
        }
        let next = scan.next_authentic(at, number)?;
        let (next_at, next_number) = next.unwrap_or((end, number + 1));
        // If only the length field was damaged, the record itself is still undamaged.
        let text = scan.sealed(at + 4, next_at, number)?;
        if let Some(text) = &text {
            each(text)?;
        }
        if next.is_none() && text.is_none() {
            let is_torn = scan.frame(at)?.is_none() && scan.left > 0;
            found.is_damaged |= !is_torn;
            found.lost += u64::from(!is_torn);
            found.is_cut = true;
            break;
        }
        found.is_damaged = true;
        found.lost += next_number - number - u64::from(text.is_some());
        (found.len, found.records) = (next_at, next_number);
    }
    Ok(found)
}

/// Searches a log for records.
struct Scan<'a> {
    file: &'a File,
    name: &'a [u8],
    keys: &'a Keys,
    /// Length of the file in bytes.
    end: u64,
    /// Offset of the window in the file.
    start: u64,
    window: Vec<u8>,
    /// How many more bytes the search may decrypt.
    left: u64,
}

impl Scan<'_> {
    /// Returns `len` bytes at offset `at`, or `None` if the file ends before.
    fn bytes(&mut self, at: u64, len: usize) -> io::Result<Option<&[u8]>> {
        if at.saturating_add(len as u64) > self.end {
            return Ok(None);
        }
        if at < self.start || at + len as u64 > self.start + self.window.len() as u64 {
            self.start = at;
            self.window.resize((self.end - at).min(WINDOW_BYTES as u64) as usize, 0);
            self.file.read_exact_at(&mut self.window, at)?;
        }
        let from = (at - self.start) as usize;
        Ok(Some(&self.window[from..from + len]))
    }

    /// Returns the length of the sealed record at `at`; `None` if the bytes there cannot be the length of a record that
    /// fits into the file.
    fn frame(&mut self, at: u64) -> io::Result<Option<usize>> {
        let Some(len) = self.bytes(at, 4)?.and_then(|bytes| bytes.first_chunk()) else { return Ok(None) };
        let len = u32::from_le_bytes(*len) as usize;
        let is_whole = at + 4 + len as u64 <= self.end;
        Ok((is_whole && (TAG_LEN..=RECORD_BYTES_MAX).contains(&len)).then_some(len))
    }

    /// Returns the text of the record at `at`, if it is authentic and has this number.
    fn record(&mut self, at: u64, number: u64) -> io::Result<Option<Vec<u8>>> {
        match self.frame(at)? {
            Some(len) => self.sealed(at + 4, at + 4 + len as u64, number),
            None => Ok(None),
        }
    }

    /// Returns the text of the sealed record in `from..to`, if it is authentic and has this number.
    fn sealed(&mut self, from: u64, to: u64, number: u64) -> io::Result<Option<Vec<u8>>> {
        let len = to.saturating_sub(from) as usize;
        if !(TAG_LEN..=RECORD_BYTES_MAX).contains(&len) {
            return Ok(None);
        }
        let bound = bound(self.name, number);
        let Some(mut record) = self.bytes(from, len)?.map(<[u8]>::to_vec) else { return Ok(None) };
        let text = self.keys.decrypt(Purpose::LocalState, &bound, &mut record);
        Ok(text.ok().map(|text| text.to_vec()))
    }

    /// Returns the offset and the number of the first authentic record after `at` whose number is greater than
    /// `number`.
    fn next_authentic(&mut self, at: u64, number: u64) -> io::Result<Option<(u64, u64)>> {
        for next in at + 1..self.end.saturating_sub(FRAME_BYTES_MIN - 1) {
            let Some(len) = self.frame(next)? else { continue };
            let behind = next + 4 + len as u64;
            let is_likely = behind == self.end || self.frame(behind)?.is_some();
            let numbers_max = (next - at).div_ceil(FRAME_BYTES_MIN);
            for other in
                number + 1..=number + if is_likely { numbers_max } else { numbers_max.min(UNLIKELY_NUMBERS_MAX) }
            {
                self.left = self.left.saturating_sub(len as u64 + TRIAL_BYTES);
                if self.left == 0 {
                    return Ok(None);
                }
                if self.record(next, other)?.is_some() {
                    return Ok(Some((next, other)));
                }
            }
        }
        Ok(None)
    }
}

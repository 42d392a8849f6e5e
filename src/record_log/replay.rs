//! Reads a log from its beginning, past records that are damaged.
//!
//! A record is bound to its number, and the numbers do not stand in the file. So behind a damaged record each offset
//! whose four bytes can be a length is tried with each number that can stand there, until a record is authentic.

use super::{RECORD_BYTES_MAX, RecordLogError, bound};
use crate::format::crypto::{Keys, Purpose, TAG_LEN};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes of a log that are in memory at a time.
const WINDOW_BYTES: usize = 1 << 20;
/// Maximum number of bytes that the search behind damaged records decrypts, with [`TRIAL_BYTES`] for each trial:
/// seconds at most, also in a file that somebody has made so that each offset looks like a record.
const SEARCH_BYTES_MAX: u64 = if cfg!(test) { 4 << 20 } else { 256 << 20 };
const TRIAL_BYTES: u64 = 512;
/// Numbers that are tried where what follows cannot be a record.
const UNLIKELY_NUMBERS_MAX: u64 = 16;
/// The shortest record: a length and a tag.
const FRAME_BYTES_MIN: u64 = (4 + TAG_LEN) as u64;

/// What a log holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Replayed {
    /// The number of the next record.
    pub records: u64,
    /// Where the next record goes. What the file has behind that is no record.
    pub len: u64,
    /// Number of records that were damaged. More may have been lost at the end, which leaves no trace.
    pub lost: u64,
    /// Whether anything is not as it was written, other than a record at the end that was never written whole.
    pub is_damaged: bool,
    /// Whether the file has bytes behind the last record.
    pub is_cut: bool,
}

/// Hands the records of a log to `each`, in order, without those that are damaged.
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
            // What stands behind it counts as well, so it is not cut off like what a crash has left.
            each(&text)?;
            found.len = at + FRAME_BYTES_MIN + text.len() as u64;
            found.records += 1;
            continue;
        }
        let next = scan.next_authentic(at, number)?;
        let (next_at, next_number) = next.unwrap_or((end, number + 1));
        // Where only the length was damaged, the record is still whole.
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

/// A log that is searched for records.
struct Scan<'a> {
    file: &'a File,
    name: &'a [u8],
    keys: &'a Keys,
    /// Where the file ends.
    end: u64,
    /// Where the window begins.
    start: u64,
    window: Vec<u8>,
    /// How much more may be decrypted in search of records.
    left: u64,
}

impl Scan<'_> {
    /// Returns `len` bytes at `at`; `None` if the file has fewer.
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

    /// Returns how long the sealed record at `at` is, if what stands there can be the length of one that the file holds
    /// whole.
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

    /// Returns the text of the sealed record from `from` to `to`, likewise.
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

    /// Returns where the first authentic record behind `at` stands, and its number, which is greater than `number`.
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

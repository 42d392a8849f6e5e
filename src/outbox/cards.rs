//! Dropped files with contacts: one, or several in a row.
//!
//! Every contact of a file is restored by itself, and is recognised by its own bytes. So several files of a snapshot in
//! one file are still the contacts of that snapshot.

use super::staging::StagedFile;
use crate::content::contact::{Card, cards, looks_like_vcard};
use crate::format::entry::Content;
use std::io;
use std::ops::Range;
use strongroom_mount::OutboxError;

/// Maximum length of a file with contacts, in bytes. It is read as a whole. A thousand contacts with photos have less.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Maximum number of contacts in a file. People have a few thousand.
const CARDS_MAX: usize = 10_000;
/// The first bytes of a file, by which it is recognised.
const START_BYTES: usize = 512;

/// A contact in a dropped file.
pub struct PlacedCard {
    /// Where it stands in the file.
    pub range: Range<usize>,
    /// Its content, as a backup would store it.
    pub content: Content,
}

/// Returns true if a file called `name` holds contacts.
///
/// # Errors
/// When the disk fails.
pub fn holds_contacts(file: &StagedFile, name: &[u8]) -> io::Result<bool> {
    let is_named_so = name.to_ascii_lowercase().ends_with(b".vcf");
    Ok(is_named_so && looks_like_vcard(&file.read(0, START_BYTES)?))
}

/// Checks that a file holds contacts and nothing else.
///
/// # Errors
/// [`OutboxError::WrongKind`], [`OutboxError::TooLarge`].
pub fn check(file: &StagedFile) -> Result<(), OutboxError> {
    let bytes = read(file)?;
    let ranges = cards(&bytes).ok_or(OutboxError::WrongKind)?;
    if ranges.len() > CARDS_MAX {
        return Err(OutboxError::TooLarge);
    }
    match ranges.into_iter().all(|range| Card::read(&bytes[range]).is_ok()) {
        true => Ok(()),
        false => Err(OutboxError::WrongKind),
    }
}

/// Returns the contacts of a file that passed [`check`]. `split` makes the content of each.
///
/// # Errors
/// When the disk fails, or has damaged the file.
pub fn placed(file: &StagedFile, split: impl Fn(&[u8]) -> io::Result<Content>) -> io::Result<Vec<PlacedCard>> {
    let bytes = read(file).map_err(|error| io::Error::other(error.to_string()))?;
    let mut ranges =
        cards(&bytes).ok_or_else(|| io::Error::other("the dropped file is damaged on this machine's disk"))?;
    if let [only] = ranges.as_mut_slice() {
        // What stands around the only contact belongs to it: that is how a backup stored it.
        *only = 0..bytes.len();
    }
    let place = |range: Range<usize>| {
        let content = split(&bytes[range.clone()])?;
        Ok(PlacedCard { range, content })
    };
    ranges.into_iter().map(place).collect()
}

fn read(file: &StagedFile) -> Result<Vec<u8>, OutboxError> {
    if file.len() > FILE_BYTES_MAX {
        return Err(OutboxError::TooLarge);
    }
    Ok(file.read(0, file.len() as usize)?)
}

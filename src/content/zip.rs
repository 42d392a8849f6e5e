//! Finds the members of zip archives: Office documents, OpenDocument files, Java archives and many more.
//!
//! Only the central directory at the end of an archive says what is in it (APPNOTE.TXT, 4.3.12). [`members`] believes
//! it only as far as it agrees with the rest: every member has its local header where the directory says, and no two of
//! them overlap. Whatever does not look like that is no archive to us, and is kept as it is. So nothing here can go
//! wrong with a backup; the worst that a strange archive can do is to take its full size.
//!
//! A member may itself be an archive. [`members`] looks into those that are stored without compression, one level deep:
//! their streams lie in the outer archive as they are.

use std::ops::Range;

/// Maximum number of members of an archive, those of archives in it included. With more, it is kept as it is.
pub const MEMBERS_MAX: usize = 8192;

const LOCAL: [u8; 4] = *b"PK\x03\x04";
const DIRECTORY: [u8; 4] = *b"PK\x01\x02";
const END: [u8; 4] = *b"PK\x05\x06";
const END_64: [u8; 4] = *b"PK\x06\x06";
const END_64_LOCATOR: [u8; 4] = *b"PK\x06\x07";
const LOCAL_LEN: usize = 30;
const DIRECTORY_LEN: usize = 46;
const END_LEN: usize = 22;
const END_64_LEN: usize = 56;
const END_64_LOCATOR_LEN: usize = 20;
/// Maximum length in bytes of the comment behind the end record.
const COMMENT_LEN_MAX: usize = 0xffff;
/// Flags of members whose data or sizes are hidden: encrypted, and masked by an encrypted directory.
const HIDDEN: u16 = 1 | 1 << 13;
/// A field with this value means that the extra field holds the real one.
const IN_EXTRA: u32 = 0xffff_ffff;
const ZIP_64_EXTRA: u16 = 1;

/// How the data of a member is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// As it is.
    Stored,
    /// As a deflate stream.
    Deflated,
    /// Otherwise, or encrypted.
    Other,
}

/// A member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Where its data is in the archive.
    pub data: Range<usize>,
    /// Its length in bytes without compression, as the directory says. Nothing proves it.
    pub plain_len: u64,
    /// How it is stored.
    pub method: Method,
}

/// Returns whether `start` may be the start of an archive.
pub fn looks_like_zip(start: &[u8]) -> bool {
    start.starts_with(&LOCAL)
}

/// Returns the members of the archive in the order of their data, or `None` if `bytes` are no archive, or a strange
/// one. A stored member that is itself an archive is replaced by its members.
pub fn members(bytes: &[u8]) -> Option<Vec<Member>> {
    let mut all = Vec::new();
    for member in directory(bytes)? {
        let inner = match member.method {
            Method::Stored => directory(&bytes[member.data.clone()]),
            _ => None,
        };
        match inner {
            None => all.push(member),
            Some(inner) => all.extend(inner.into_iter().map(|one| {
                let data = one.data.start + member.data.start..one.data.end + member.data.start;
                Member { data, ..one }
            })),
        }
        if all.len() > MEMBERS_MAX {
            return None;
        }
    }
    Some(all)
}

/// What the end of an archive says of its directory.
struct End {
    count: u64,
    start: usize,
    end: usize,
}

/// Returns the members of one archive, without those of archives in it.
fn directory(bytes: &[u8]) -> Option<Vec<Member>> {
    if !looks_like_zip(bytes) {
        return None;
    }
    let end = end_of(bytes)?;
    let count = usize::try_from(end.count).ok().filter(|count| *count <= MEMBERS_MAX)?;
    let mut headers = bytes.get(end.start..end.end)?;
    let mut members = Vec::with_capacity(count);
    for _ in 0..count {
        let (member, local) = read_header(bytes, &mut headers, end.start)?;
        members.push((local, member));
    }
    if !headers.is_empty() {
        return None;
    }
    members.sort_unstable_by_key(|(local, member)| (*local, member.data.end));
    let overlap = members.windows(2).any(|pair| pair[1].0 < pair[0].1.data.end);
    (!overlap).then(|| members.into_iter().map(|(_, member)| member).collect())
}

/// Finds the end record: the last one whose comment ends with the archive.
fn end_of(bytes: &[u8]) -> Option<End> {
    let last = bytes.len().checked_sub(END_LEN)?;
    let is_end = |at: &usize| {
        bytes[*at..].starts_with(&END)
            && u16_at(bytes, at + 20).is_some_and(|len| at + END_LEN + usize::from(len) == bytes.len())
    };
    let at = (last.saturating_sub(COMMENT_LEN_MAX)..=last).rev().find(is_end)?;
    // Archives in several files have other numbers here.
    if u16_at(bytes, at + 4)? != u16_at(bytes, at + 6)? {
        return None;
    }
    let (count, len, start) = (u16_at(bytes, at + 10)?, u32_at(bytes, at + 12)?, u32_at(bytes, at + 16)?);
    let (end, count, len, start) = match end_64_of(bytes, at) {
        Some(found) => found,
        None => (at, count.into(), len.into(), start.into()),
    };
    let start = usize::try_from(start).ok()?;
    // The directory must end where the end record begins: otherwise the offsets mean something else.
    let fits = start.checked_add(usize::try_from(len).ok()?) == Some(end);
    fits.then_some(End { count, start, end })
}

/// Returns where the end record of a zip64 archive begins, and count, length and start of the directory.
fn end_64_of(bytes: &[u8], end: usize) -> Option<(usize, u64, u64, u64)> {
    let locator = end.checked_sub(END_64_LOCATOR_LEN)?;
    if !bytes[locator..].starts_with(&END_64_LOCATOR) {
        return None;
    }
    let at = usize::try_from(u64_at(bytes, locator + 8)?).ok()?;
    let fits = at.checked_add(END_64_LEN)? <= locator && bytes[at..].starts_with(&END_64);
    if !fits {
        return None;
    }
    Some((at, u64_at(bytes, at + 32)?, u64_at(bytes, at + 40)?, u64_at(bytes, at + 48)?))
}

/// Reads the next header of the directory, and the local header that it points to. Returns the member and the start of
/// its local header.
fn read_header(bytes: &[u8], headers: &mut &[u8], directory: usize) -> Option<(Member, usize)> {
    let header = *headers;
    if !header.starts_with(&DIRECTORY) {
        return None;
    }
    let [name_len, extra_len, comment_len] = [28, 30, 32].map(|at| u16_at(header, at).map(usize::from));
    let extra_at = DIRECTORY_LEN + name_len?;
    let extra = header.get(extra_at..extra_at + extra_len?)?;
    *headers = header.get(extra_at + extra_len? + comment_len?..)?;
    let (flags, method) = (u16_at(header, 8)?, u16_at(header, 10)?);
    // In the order in which the extra field holds them.
    let mut extra = zip_64(extra);
    let mut wide = |narrow: u32| if narrow == IN_EXTRA { take_u64(&mut extra) } else { Some(narrow.into()) };
    let plain_len = wide(u32_at(header, 24)?)?;
    let len = usize::try_from(wide(u32_at(header, 20)?)?).ok()?;
    let local = usize::try_from(wide(u32_at(header, 42)?)?).ok()?;
    let head = bytes.get(local..local.checked_add(LOCAL_LEN)?)?;
    if !head.starts_with(&LOCAL) || u16_at(head, 8)? != method {
        return None;
    }
    let start = local + LOCAL_LEN + usize::from(u16_at(head, 26)?) + usize::from(u16_at(head, 28)?);
    let end = start.checked_add(len).filter(|end| *end <= directory)?;
    let method = match method {
        _ if flags & HIDDEN != 0 => Method::Other,
        0 => Method::Stored,
        8 => Method::Deflated,
        _ => Method::Other,
    };
    Some((Member { data: start..end, plain_len, method }, local))
}

/// Returns the zip64 part of an extra field, or nothing.
fn zip_64(mut extra: &[u8]) -> &[u8] {
    while let (Some(id), Some(len)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let Some((part, rest)) = extra[4..].split_at_checked(len.into()) else { break };
        if id == ZIP_64_EXTRA {
            return part;
        }
        extra = rest;
    }
    &[]
}

fn take_u64(from: &mut &[u8]) -> Option<u64> {
    let (bytes, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(u64::from_le_bytes(*bytes))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests;

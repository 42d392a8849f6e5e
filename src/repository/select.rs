//! Finds the snapshot and path that a user asked for. A snapshot is named by its id or the beginning of it, by
//! `latest`, `latest:SET`, `latest~N` or `latest:SET~N`, or by a time.

use crate::format::id::SnapshotId;
use crate::format::snapshot::Snapshot;
use crate::repository::{Repository, RepositoryError, latest_first};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// A snapshot and a path in it, as a user asked for them.
#[derive(Debug, Clone, PartialEq)]
pub struct Selected {
    /// The snapshot's id.
    pub id: SnapshotId,
    /// The snapshot.
    pub snapshot: Snapshot,
    /// The path from the root of the snapshot, without a slash at the beginning or end. Empty for the whole snapshot.
    pub path: Vec<u8>,
}

/// Resolves `SNAPSHOT[:PATH]`.
///
/// # Errors
/// [`RepositoryError::NoSnapshot`], [`RepositoryError::Ambiguous`], or an error of reading snapshots.
pub fn select(repository: &Repository, asked: &[u8]) -> Result<Selected, RepositoryError> {
    let found = repository.snapshots()?;
    found.remarks().for_each(|remark| tracing::warn!("{remark}"));
    let snapshots = found.readable;
    let now = jiff::Timestamp::now().as_second();
    let (number, path) = resolve(&snapshots, asked, now)?;
    if snapshots[number].1.is_ahead(now) && asked.starts_with(b"latest") {
        tracing::warn!("all of these snapshots are later than this machine's clock, which may be wrong");
    }
    let (id, snapshot) = snapshots.into_iter().nth(number).expect("a position in the list");
    Ok(Selected { id, snapshot, path: path.to_vec() })
}

type Listed = (SnapshotId, Snapshot);

fn resolve<'a>(snapshots: &[Listed], asked: &'a [u8], now: i64) -> Result<(usize, &'a [u8]), RepositoryError> {
    let none = || RepositoryError::NoSnapshot { asked: String::from_utf8_lossy(asked).into_owned() };
    let (name, path) = split_name(snapshots, asked);
    let name = std::str::from_utf8(name).map_err(|_| none())?;
    let mut matches = matching(snapshots, name, now).ok_or_else(none)?;
    match (matches.pop(), matches.len()) {
        (None, _) => Err(none()),
        (Some(only), 0) => Ok((only, trim_slashes(path))),
        (Some(_), more) => Err(RepositoryError::Ambiguous { asked: name.to_owned(), matches: more + 1 }),
    }
}

/// Returns the positions of the snapshots that `name` matches, or `None` if `name` is not the name of a snapshot.
fn matching(snapshots: &[Listed], name: &str, now: i64) -> Option<Vec<usize>> {
    let newest_of = |set: Option<&str>, back: usize| {
        let of_set = |snapshot: &Snapshot| set.is_none_or(|set| snapshot.set == set);
        latest_first(snapshots, now, of_set).get(back).copied().into_iter().collect()
    };
    if let Some(rest) = name.strip_prefix("latest") {
        return match rest.as_bytes().first() {
            None => Some(newest_of(None, 0)),
            Some(b'~') => Some(newest_of(None, rest[1..].parse().ok()?)),
            Some(b':') => {
                let (set, back) = set_and_back(snapshots, &rest[1..]);
                Some(newest_of(Some(set), back))
            }
            Some(_) => None,
        };
    }
    if let Some(time) = parse_time(name) {
        let at_or_before = snapshots.iter().rposition(|(_, snapshot)| snapshot.started.secs <= time);
        return Some(at_or_before.into_iter().collect());
    }
    if name.is_empty() {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let matches = |(number, (id, _)): (usize, &Listed)| id.to_string().starts_with(&name).then_some(number);
    Some(snapshots.iter().enumerate().filter_map(matches).collect())
}

/// Reads `SET` or `SET~N`. If a set is itself called `SET~N`, that set is meant.
fn set_and_back<'a>(snapshots: &[Listed], text: &'a str) -> (&'a str, usize) {
    match text.rsplit_once('~').and_then(|(set, back)| Some((set, back.parse().ok()?))) {
        Some((set, back)) if !is_set(snapshots, text) && is_set(snapshots, set) => (set, back),
        _ => (text, 0),
    }
}

fn is_set(snapshots: &[Listed], name: &str) -> bool {
    snapshots.iter().any(|(_, snapshot)| snapshot.set == name)
}

/// Reads a time in this machine's time zone (`2026-11-21T22:00`, `2026-11-21 22.00.00`, `2026-11-21`) or with an
/// offset. Returns the last second that the text covers.
fn parse_time(text: &str) -> Option<i64> {
    if let Ok(exact) = text.parse::<jiff::Timestamp>() {
        return Some(exact.as_second());
    }
    let text = text.replace('.', ":");
    let (time, precision) = match text.len() {
        10 => (format!("{text}T00:00:00"), 24 * 60 * 60),
        16 => (format!("{text}:00"), 60),
        19 => (text, 1),
        _ => return None,
    };
    let zoned = time.parse::<DateTime>().ok()?.to_zoned(TimeZone::system()).ok()?;
    Some(zoned.timestamp().as_second() + precision - 1)
}

/// Splits `SNAPSHOT:PATH`. Colons inside a time, and the colon before the name of a set, belong to the snapshot.
fn split_name<'a>(snapshots: &[Listed], asked: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    let colons = asked.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
    let ends: Vec<_> = colons.chain([asked.len()]).collect();
    let is_whole_name = |end: &&usize| {
        let Ok(name) = std::str::from_utf8(&asked[..**end]) else { return false };
        match name.strip_prefix("latest:") {
            Some(set) => is_set(snapshots, set_and_back(snapshots, set).0),
            None => parse_time(name).is_some(),
        }
    };
    // The longest beginning that is a time or names a set, else everything before the first colon.
    let end = *ends.iter().rev().find(is_whole_name).unwrap_or(&ends[0]);
    (&asked[..end], asked.get(end + 1..).unwrap_or_default())
}

fn trim_slashes(path: &[u8]) -> &[u8] {
    let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(start, |last| last + 1);
    &path[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::snapshot::testing::snapshot_of;

    fn snapshot(id: u8, set: &str, secs: i64) -> Listed {
        (SnapshotId([id; 32]), snapshot_of(set, secs))
    }

    fn at(text: &str) -> i64 {
        text.parse::<DateTime>().unwrap().to_zoned(TimeZone::system()).unwrap().timestamp().as_second()
    }

    #[test]
    fn snapshots_are_found_by_every_name_that_the_manual_promises() {
        let list = [
            snapshot(0x11, "mail", at("2026-11-20T22:00:00")),
            snapshot(0x12, "docs", at("2026-11-21T22:00:30")),
            snapshot(0xab, "mail", at("2026-11-22T22:00:00")),
        ];
        let cases: [(&str, Option<(usize, &str)>); 26] = [
            ("latest", Some((2, ""))),
            ("latest:docs", Some((1, ""))),
            ("latest:docs:a/b", Some((1, "a/b"))),
            ("latest:a/b", Some((2, "a/b"))),
            ("latest:/a/b/", Some((2, "a/b"))),
            ("latest:mail~0", Some((2, ""))),
            ("latest:mail~1", Some((0, ""))),
            ("latest:mail~1:a/~1:b", Some((0, "a/~1:b"))),
            ("latest:mail~2", None),
            ("latest:mail~x", Some((2, "mail~x"))),
            ("latest:nothing~1", Some((2, "nothing~1"))),
            ("latest~1", Some((1, ""))),
            ("latest~2:x", Some((0, "x"))),
            ("latest~3", None),
            ("ab", Some((2, ""))),
            ("AB", Some((2, ""))),
            ("11:a:b", Some((0, "a:b"))),
            ("1", None),
            ("cd", None),
            ("", None),
            ("2026-11-21T22:00", Some((1, ""))),
            ("2026-11-21T22:00:29", Some((0, ""))),
            ("2026-11-21T22:00:a: b", Some((1, "a: b"))),
            ("2026-11-22 22.00.00", Some((2, ""))),
            ("2026-11-21", Some((1, ""))),
            ("2026-11-01", None),
        ];
        for (asked, expected) in cases {
            let found = resolve(&list, asked.as_bytes(), at("2026-11-23T00:00:00")).ok();
            assert_eq!(found, expected.map(|(number, path)| (number, path.as_bytes())), "{asked}");
        }
        let named = [snapshot(1, "a", 1), snapshot(2, "a", 2), snapshot(3, "a~1", 3)];
        let number = |asked: &str| matching(&named, asked, 10).unwrap();
        assert_eq!((number("latest:a~1"), number("latest:a"), number("latest:a~1~0")), (vec![2], vec![1], vec![2]));
        assert!(matches!(resolve(&list, b"1", 0), Err(RepositoryError::Ambiguous { matches: 2, .. })));
    }

    #[test]
    fn the_latest_is_not_one_that_a_wrong_clock_made() {
        let (now, year) = (at("2026-11-22T12:00:00"), 365 * 24 * 60 * 60);
        let list = [snapshot(1, "mail", now - 900), snapshot(2, "mail", now + 300), snapshot(3, "docs", now + year)];
        let number = |asked: &str, now| resolve(&list, asked.as_bytes(), now).ok().map(|(number, _)| number);
        assert_eq!(number("latest", now), Some(1), "some minutes are how clocks differ");
        assert_eq!(number("latest~1", now), Some(0));
        assert_eq!(number("latest~2", now), None);
        assert_eq!(number("latest:docs", now), Some(2), "there is no other of this set");
        assert_eq!(number("latest", now + year), Some(2), "its time has come");
        assert_eq!(number("latest", 0), Some(2), "a machine that thinks it is 1970");
        assert_eq!(number("03", now), Some(2), "it can be asked for by its id");
    }
}

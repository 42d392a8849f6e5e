//! The last step of every backup: makes the summary and writes the snapshot, which commits.

use super::before::Before;
use super::{BackupError, BackupOptions};
use crate::format::entry::{Directory, Entry, EntryKind, Segment, Timestamp};
use crate::format::id::SnapshotId;
use crate::format::node::NodeKind;
use crate::format::snapshot::{FAILURES_KEPT_MAX, Failure, Snapshot, Summary};
use crate::repository::Repository;
use crate::repository::compare::{Difference, compare};
use crate::repository::local_state::LocalState;
use crate::repository::read_error::ReadError;
use crate::repository::reader::Reader;
use crate::repository::store::{Store, StoredBytes};
use crate::repository::tree::{self, NodeSource};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// What a run has stored durably, and what a snapshot of it needs.
pub(super) struct Made<'a> {
    pub started: Timestamp,
    pub before: Before,
    pub previous: Option<Snapshot>,
    pub root: Entry,
    pub failed: u64,
    pub failures: &'a [Failure],
    pub source_state: BTreeMap<String, Vec<u8>>,
    pub source_parts: Option<Directory>,
    pub stored: StoredBytes,
    /// True if everything that the root refers to is stored, carried-over items included.
    pub whole: bool,
}

/// Commits a snapshot, and returns once it is durable.
pub(super) fn commit(
    repository: &Arc<Repository>,
    local: &LocalState,
    reader: &Reader,
    options: &BackupOptions,
    made: Made<'_>,
) -> Result<(SnapshotId, Snapshot), BackupError> {
    let Made { started, before, previous, mut root, failed, failures, source_state, mut source_parts, stored, whole } =
        made;
    let EntryKind::Directory(dir) = &mut root.kind else { unreachable!("made of a directory") };
    dir.root.hint = Some(Store::location(local, dir.root.id.into())?);
    if let Some(parts) = &mut source_parts {
        parts.root.hint = Some(Store::location(local, parts.root.id.into())?);
    }
    let mut gone = Vec::new();
    let mut note = |path: &[u8]| gone.push(repository.keys().local_path(&options.set, path));
    let mut summary = match summarise(reader, previous.as_ref().map(Snapshot::directory), dir, &mut note) {
        // The previous snapshot is damaged. The new one is complete all the same, and counts everything as new.
        Err(error) if error.is_damage() && reader.node(&dir.root).is_ok() => {
            tracing::warn!(%error, "the snapshot before cannot be compared with");
            summarise(reader, None, dir, &mut note)?
        }
        summary => summary?,
    };
    summary.failed = failed;
    summary.added_bytes = stored.added_bytes;
    summary.stored_bytes = stored.stored_bytes;

    let named: HashSet<_> = before.snapshots.iter().flat_map(|(_, snapshot)| &snapshot.parents).collect();
    let parents = before.ids().filter(|id| !named.contains(id)).collect();
    let keys = repository.key_ids()?;
    let snapshot = Snapshot {
        started,
        finished: now(),
        set: options.set.clone(),
        host: options.host.clone(),
        root,
        parents,
        keys,
        summary,
        failures: failures.iter().take(FAILURES_KEPT_MAX).cloned().collect(),
        source_state,
        source_parts,
        program: format!("strongroom {}", env!("CARGO_PKG_VERSION")),
    };
    let id = repository.save_snapshot(&snapshot)?;
    let seen = before.ids().chain([id]);
    // The snapshot is durable, even if the local state cannot be written.
    let remembered = local.remember(seen, snapshot.keys.iter().copied());
    let remembered = remembered.and_then(|()| local.drop_facts(gone.into_iter()));
    let remembered = remembered.and_then(|()| if whole { local.mark_whole(id) } else { Ok(()) });
    if let Err(error) = remembered.and_then(|()| local.flush()) {
        tracing::warn!(%error, "the local state could not be written");
    }
    Ok((id, snapshot))
}

/// Returns whether everything under `entry` is stored.
pub(super) fn is_whole(entry: &Entry, store: &Store, reader: &Reader) -> bool {
    if !entry.all_contents().all(|content| are_stored(&content.segments, store, reader)) {
        return false;
    }
    let Some(dir) = entry.directory() else { return true };
    store.has_node(dir.root.id).unwrap_or(false)
        && tree::Entries::new(reader, dir).is_ok_and(|mut entries| {
            entries.all(|found| found.is_ok_and(|found| is_whole(found.entry(), store, reader)))
        })
}

/// Returns whether everything that `segments` refer to is stored. Looks into lists, because the pack of a chunk may be
/// gone or damaged although the pack of the list is whole.
fn are_stored(segments: &[Segment], store: &Store, reader: &Reader) -> bool {
    segments.iter().all(|segment| {
        let stored = store.has_segment(segment).unwrap_or(false);
        let node = match segment {
            Segment::Raw(_) | Segment::Base64 { .. } => return stored,
            Segment::Base64Of { segments, .. } | Segment::Deflated { material: segments, .. } => {
                return stored && are_stored(segments, store, reader);
            }
            Segment::List { node, .. } => node,
        };
        let listed = stored.then(|| reader.node(node).ok()).flatten();
        listed.is_some_and(|node| match &node.kind {
            NodeKind::List(segments) => are_stored(segments, store, reader),
            _ => false,
        })
    })
}

/// Counts the differences to the previous snapshot. Reads only the parts of the trees that differ.
fn summarise(
    reader: &Reader,
    previous: Option<&Directory>,
    now: &Directory,
    gone: &mut dyn FnMut(&[u8]),
) -> Result<Summary, ReadError> {
    let mut summary = Summary { source_bytes: now.sums.bytes, ..Summary::default() };
    let Some(previous) = previous else {
        return Ok(Summary { new: now.sums.files, ..summary });
    };
    compare(reader, previous, now, &mut |difference| match difference {
        Difference::Added(_) => summary.new += 1,
        Difference::Removed(path) => {
            gone(&path);
            summary.deleted += 1;
        }
        Difference::Changed(_) | Difference::Touched(_) => summary.changed += 1,
        Difference::Moved(from, _) => {
            gone(&from);
            summary.moved += 1;
        }
    })?;
    summary.unchanged = now.sums.files.saturating_sub(summary.new + summary.changed + summary.moved);
    Ok(summary)
}

/// Returns the current time.
pub(super) fn now() -> Timestamp {
    let now = jiff::Timestamp::now();
    Timestamp { secs: now.as_second(), nanos: now.subsec_nanosecond().max(0) as u32 }
}

//! Makes of a snapshot one that an earlier version would have made: with other bytes for some messages, and without the
//! word that they were compared with what the service says of them.

use crate::laboratory::Laboratory;
use serde_json::Value;
use std::sync::Arc;
use strongroom::backup::splitter::{Rules, Splitter};
use strongroom::backup::tenant::TenantReport;
use strongroom::format::entry::{Directory, EntryKind};
use strongroom::format::snapshot::Snapshot;
use strongroom::repository::local_state::LocalState;
use strongroom::repository::reader::Reader;
use strongroom::repository::store::Store;
use strongroom::repository::tree::build::Cutter;
use strongroom::repository::tree::{Entries, TreeBuilder};

/// Returns other bytes for a path and its bytes, or none.
type Change<'a> = &'a dyn Fn(&str, &[u8]) -> Option<Vec<u8>>;

/// Stores a snapshot in which the messages have the bytes that `change` returns for their paths and bytes, if it
/// returns any.
pub fn store_as_earlier(lab: &Laboratory, report: &TenantReport, change: Change) {
    let repository = &lab.repository;
    let mut local = LocalState::open(&lab.folder.path().join("state"), repository).expect("local state");
    let adopted = local.sync(repository).expect("the index").adopted;
    let store = Arc::new(Store::new(repository.clone(), local, adopted));
    let splitter = Splitter::new(store.clone(), Rules::of(repository));
    let mut writer = Writer { lab, reader: lab.reader(), store, splitter };
    let root = writer.rebuild(report.snapshot.directory(), "", change);
    let forget = |_: &str, json: &[u8]| {
        let mut state: Value = serde_json::from_slice(json).expect("a state is JSON");
        for folder in state["folders"].as_array_mut().expect("folders") {
            let folder = folder.as_object_mut().expect("a folder");
            assert!(folder.remove("compared").is_some() || folder["selected"] == false, "{folder:?}");
        }
        Some(state.to_string().into_bytes())
    };
    let parts = report.snapshot.source_parts.as_ref().expect("states of mailboxes");
    let parts = writer.rebuild(parts, "", &forget);
    let Writer { store, mut splitter, .. } = writer;
    splitter.flush().expect("the last chunks");
    drop(splitter);
    Arc::into_inner(store).expect("nobody else has it").finish().expect("all is stored");
    let mut earlier = report.snapshot.clone();
    earlier.root.kind = EntryKind::Directory(root);
    // The newest until the next run begins.
    let earlier = Snapshot { source_parts: Some(parts), started: report.snapshot.finished, ..earlier };
    repository.save_snapshot(&earlier).expect("a snapshot");
}

struct Writer<'a> {
    lab: &'a Laboratory,
    reader: Reader,
    store: Arc<Store>,
    splitter: Splitter,
}

impl Writer<'_> {
    fn rebuild(&mut self, dir: &Directory, path: &str, change: Change) -> Directory {
        let repository = &self.lab.repository;
        let mut builder = TreeBuilder::new(Cutter::new(repository.keys(), repository.config().node_size));
        let entries: Vec<_> = Entries::new(&self.reader, dir)
            .expect("a directory")
            .map(|found| found.expect("an entry").entry().clone())
            .collect();
        for mut entry in entries {
            let path = format!("{path}/{}", String::from_utf8_lossy(&entry.name));
            if let Some(below) = entry.directory().copied() {
                entry.kind = EntryKind::Directory(self.rebuild(&below, &path, change));
            } else {
                let mut bytes = Vec::new();
                self.reader.read(entry.content().expect("a file"), 0, usize::MAX, &mut bytes).expect("its bytes");
                if let Some(bytes) = change(&path, &bytes) {
                    entry.kind = EntryKind::File(self.splitter.split_payload(&bytes).expect("it is stored"));
                }
            }
            self.splitter.flush().expect("its chunks");
            builder.push(entry, &mut &*self.store).expect("a node");
        }
        builder.finish(&mut &*self.store).expect("the last nodes")
    }
}

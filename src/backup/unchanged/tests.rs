//! Compares runs that recognise what did not change with runs that look at everything, on a source in memory.

use super::super::{BackupError, BackupOptions, Progress, Report, backup};
use super::{Step, Unchanged};
use crate::format::entry::{Facts, Timestamp};
use crate::format::id::NodeId;
use crate::repository::local_state::LocalState;
use crate::repository::testing::Scratch;
use crate::source::{Content, Event, Item, ItemKind, Meta, Sink, Source};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[derive(Debug, Clone)]
enum Node {
    File { version: u32, is_racy: bool, fails: bool },
    Folder { version: u32, below: Tree },
}

use Node::{File, Folder};

/// What is in a folder, by the names.
type Tree = BTreeMap<Box<[u8]>, Node>;
type Change<'a> = &'a dyn Fn(&mut Tree);

const NEW: Node = File { version: 0, is_racy: false, fails: false };

/// A source in memory that counts how often a file is read.
struct Model {
    root: Tree,
    reads: Arc<AtomicUsize>,
    /// The walk fails after this many events.
    events_max: usize,
}

struct Bytes {
    bytes: Vec<u8>,
    reads: Arc<AtomicUsize>,
}

impl Content for Bytes {
    fn len_hint(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(self.bytes.as_slice()))
    }

    fn stamps(&self) -> (Vec<u8>, Vec<u8>) {
        (self.bytes.clone(), self.bytes.clone())
    }
}

impl Model {
    fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        let mut stack: Vec<_> = self.root.iter().rev().map(|(name, node)| (name.to_vec(), Some(node))).collect();
        while let Some((path, node)) = stack.pop() {
            let name: Box<[u8]> = path.rsplit(|byte| *byte == b'/').next().unwrap().into();
            let meta = |version: u32| Meta {
                name: name.clone(),
                mtime: Timestamp { secs: version.into(), nanos: 0 },
                mode: Some(0o644),
                ..Meta::default()
            };
            match node {
                None => events.push(Event::Leave),
                Some(File { fails: true, .. }) => {
                    events.push(Event::Failed { name, path, error: "as the test wants it".to_owned() });
                }
                Some(File { version, is_racy, .. }) => {
                    let bytes = [&path, &version.to_le_bytes()[..]].concat();
                    let fingerprint = if *is_racy { Vec::new() } else { bytes.clone() };
                    let content = Box::new(Bytes { bytes, reads: self.reads.clone() });
                    let kind = ItemKind::File { content, fingerprint };
                    let item = Item { meta: meta(*version), path, kind, facts: Facts::default() };
                    events.push(Event::Item(Box::new(item)));
                }
                Some(Folder { version, below }) => {
                    events.push(Event::Enter { meta: meta(*version), path: path.clone() });
                    stack.push((path.clone(), None));
                    let below = below.iter().rev();
                    stack.extend(below.map(|(name, node)| ([&path, &b"/"[..], name].concat(), Some(node))));
                }
            }
        }
        events
    }
}

impl Source for Model {
    fn root(&self) -> io::Result<Meta> {
        Ok(Meta { name: b"root".as_slice().into(), ..Meta::default() })
    }

    fn walk(&mut self, sink: &mut Sink<'_>) -> io::Result<ControlFlow<()>> {
        for (number, event) in self.events().into_iter().enumerate() {
            if number == self.events_max {
                return Err(io::Error::other("as the test wants it"));
            }
            if sink(event).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

struct Laboratory {
    state: tempfile::TempDir,
    scratch: Scratch,
}

impl Laboratory {
    fn new() -> Self {
        Self { state: tempfile::tempdir().expect("a folder"), scratch: Scratch::new() }
    }

    /// Backs the model up as the set `set`. Returns the report, and how many files were read.
    fn backup(&self, model: &Tree, set: &str) -> (Report, usize) {
        let (report, reads) = self.try_backup(model, set, usize::MAX);
        (report.expect("a snapshot"), reads)
    }

    fn try_backup(&self, model: &Tree, set: &str, events_max: usize) -> (Result<Report, BackupError>, usize) {
        let local = LocalState::open(self.state.path(), &self.scratch.repository).expect("local state");
        let reads = Arc::new(AtomicUsize::new(0));
        let mut source = Model { root: model.clone(), reads: reads.clone(), events_max };
        let options = BackupOptions { set: set.to_owned(), host: "host".to_owned() };
        let never = AtomicBool::new(false);
        let report = backup(&self.scratch.repository, local, &mut source, &options, &Progress::default(), &never);
        (report, reads.load(Ordering::Relaxed))
    }

    /// Returns what a backup after `report` would have to do: the steps by their kinds.
    fn steps(&self, model: &Tree, report: &Report) -> BTreeMap<&'static str, usize> {
        let local = LocalState::open(self.state.path(), &self.scratch.repository).expect("local state");
        let (keys, progress) = (self.scratch.repository.keys(), Progress::default());
        let mut unchanged = Unchanged::new(keys, &local, "set", &progress, Some(Self::root_of(report)));
        let mut steps = BTreeMap::new();
        let mut count = |step| {
            let kind = match step {
                Step::Enter { .. } => "enter",
                Step::Leave => "leave",
                Step::Item { .. } => "item",
                Step::Failed { .. } => "failed",
                Step::Skipped { .. } => "skipped",
                Step::Folder { .. } => "folder",
                Step::Leaf(_) => "leaf",
                Step::Nothing(_) => "nothing",
            };
            *steps.entry(kind).or_default() += 1;
            ControlFlow::Continue(())
        };
        let mut source = Model { root: model.clone(), reads: Arc::default(), events_max: usize::MAX };
        assert!(source.walk(&mut |event| unchanged.take(event, &mut count)).expect("walked").is_continue());
        assert!(unchanged.finish(&mut count).is_continue());
        steps
    }

    fn root_of(report: &Report) -> NodeId {
        report.snapshot.directory().root.id
    }
}

fn file_name(number: usize) -> Box<[u8]> {
    // Long names, so that few entries fill a leaf.
    format!("{number:04} {}", "long ".repeat(45)).into_bytes().into()
}

fn folder(files: usize, folders: &[(&str, Node)]) -> Node {
    let files = (0..files).map(|number| (file_name(number), NEW));
    let folders = folders.iter().map(|(name, node)| (name.as_bytes().into(), node.clone()));
    Folder { version: 1, below: files.chain(folders).collect() }
}

/// A tree with a folder of several leaves that has some folders among its files, and with small folders.
fn tree(files: usize) -> Tree {
    let mut large = folder(files, &[]);
    let Folder { below, .. } = &mut large else { unreachable!() };
    for number in (0..files).step_by(50) {
        let name = [&file_name(number), &b" folder"[..]].concat();
        below.insert(name.into(), folder(2, &[("below", folder(1, &[]))]));
    }
    let small = folder(3, &[("a", folder(2, &[])), ("b", folder(0, &[])), ("c", folder(1, &[("d", folder(2, &[]))]))]);
    [("large", large), ("small", small), ("top", NEW), ("z", folder(1, &[]))]
        .map(|(name, node)| (name.as_bytes().into(), node))
        .into()
}

#[derive(Debug, Clone)]
enum Edit {
    Change,
    Racy,
    Fail,
    Heal,
    Remove,
    Rename,
    AddFile,
    AddFolder,
    Replace,
    /// A run that ends after some events, without a snapshot.
    Interrupt(usize),
}

fn edits() -> impl Strategy<Value = Vec<(Edit, Vec<prop::sample::Index>)>> {
    let edit = prop_oneof![
        4 => Just(Edit::Change),
        1 => Just(Edit::Racy),
        1 => Just(Edit::Fail),
        1 => Just(Edit::Heal),
        2 => Just(Edit::Remove),
        2 => Just(Edit::Rename),
        2 => Just(Edit::AddFile),
        1 => Just(Edit::AddFolder),
        1 => Just(Edit::Replace),
        1 => (0usize..200).prop_map(Edit::Interrupt),
    ];
    prop::collection::vec((edit, prop::collection::vec(any::<prop::sample::Index>(), 5)), 1..5)
}

/// Finds the folder to which `picks` lead, and a name in it.
fn find<'a>(mut below: &'a mut Tree, picks: &[prop::sample::Index]) -> Option<(&'a mut Tree, Box<[u8]>)> {
    for pick in picks {
        if below.is_empty() {
            return None;
        }
        let name = below.keys().nth(pick.index(below.len()))?.clone();
        if !matches!(below[&name], Folder { .. }) {
            return Some((below, name));
        }
        // Half of the time the folder itself is meant.
        if pick.index(2) == 0 {
            return Some((below, name));
        }
        let Some(Folder { below: next, .. }) = below.get_mut(&name) else { unreachable!() };
        below = next;
    }
    None
}

fn apply(model: &mut Tree, edit: &Edit, picks: &[prop::sample::Index]) {
    let Some((below, name)) = find(model, picks) else { return };
    match edit {
        Edit::Change => match below.get_mut(&name) {
            Some(File { version, .. } | Folder { version, .. }) => *version += 1,
            None => {}
        },
        Edit::Racy | Edit::Fail | Edit::Heal => {
            if let Some(File { version, is_racy, fails }) = below.get_mut(&name) {
                *version += u32::from(matches!(edit, Edit::Racy));
                (*is_racy, *fails) = (matches!(edit, Edit::Racy), matches!(edit, Edit::Fail));
            }
        }
        Edit::Remove => drop(below.remove(&name)),
        Edit::Rename => {
            let node = below.remove(&name).expect("it is there");
            below.insert([&name[..name.len().min(240)], b" renamed"].concat().into(), node);
        }
        Edit::AddFile => drop(below.insert([&name[..name.len().min(240)], b" new"].concat().into(), NEW)),
        Edit::AddFolder => drop(below.insert([&name[..name.len().min(240)], b" more"].concat().into(), folder(2, &[]))),
        Edit::Replace => {
            let node = match &below[&name] {
                File { .. } => folder(1, &[]),
                Folder { .. } => NEW,
            };
            below.insert(name, node);
        }
        Edit::Interrupt(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_run_that_recognises_what_did_not_change_makes_the_tree_of_one_that_looks_at_everything(
        rounds in prop::collection::vec(edits(), 1..5)
    ) {
        let lab = Laboratory::new();
        let mut model = tree(150);
        lab.backup(&model, "set");
        for (number, round) in rounds.iter().enumerate() {
            for (edit, picks) in round {
                if let Edit::Interrupt(events) = edit {
                    let (interrupted, _) = lab.try_backup(&model, "set", *events);
                    let whole = Model { root: model.clone(), reads: Arc::default(), events_max: usize::MAX };
                    prop_assert_eq!(interrupted.is_err(), *events < whole.events().len());
                }
                apply(&mut model, edit, picks);
            }
            let (report, _) = lab.backup(&model, "set");
            // An item that fails is carried over from the set's previous snapshot, which the other set does not have.
            if report.failures.is_empty() {
                let (expected, _) = lab.backup(&model, &format!("fresh {number}"));
                prop_assert_eq!(Laboratory::root_of(&report), Laboratory::root_of(&expected));
                prop_assert_eq!(report.snapshot.summary.source_bytes, expected.snapshot.summary.source_bytes);
            }
            // Once more, with nothing changed.
            let (again, _) = lab.backup(&model, "set");
            prop_assert_eq!(Laboratory::root_of(&again), Laboratory::root_of(&report));
            prop_assert_eq!(again.snapshot.summary.stored_bytes, 0);
        }
    }
}

/// Returns the file at this path.
fn file<'a>(model: &'a mut Tree, path: &[&[u8]]) -> &'a mut Node {
    let (name, above) = path.split_last().expect("a path");
    let mut below = model;
    for folder in above {
        match below.get_mut(*folder) {
            Some(Folder { below: next, .. }) => below = next,
            _ => panic!("no folder"),
        }
    }
    below.get_mut(*name).expect("a file")
}

#[test]
fn only_the_leaf_of_a_changed_file_is_looked_at() {
    let lab = Laboratory::new();
    let mut model = tree(1000);
    let (first, reads) = lab.backup(&model, "set");
    let files = first.snapshot.directory().sums.files as usize;
    assert_eq!(reads, files);
    // Files are recognised by their facts, too. Without these, a file is read if its leaf is not recognised.
    let forget = || {
        let local = LocalState::open(lab.state.path(), &lab.scratch.repository).expect("local state");
        local.forget_facts().expect("room");
    };
    forget();
    let (again, reads) = lab.backup(&model, "set");
    assert_eq!((reads, again.snapshot.summary.stored_bytes), (0, 0));
    assert_eq!(Laboratory::root_of(&again), Laboratory::root_of(&first));
    *file(&mut model, &[b"large", &file_name(120)]) = File { version: 1, is_racy: false, fails: false };
    let (changed, reads) = lab.backup(&model, "set");
    assert!((1..files / 2).contains(&reads), "{reads} of {files} files were read");
    assert_ne!(Laboratory::root_of(&changed), Laboratory::root_of(&first));
    forget();
    assert_eq!(lab.backup(&model, "set").1, 0, "the leaf of the changed file is recognised, too");
    // Another machine's set of the same name, and another set.
    assert_eq!(lab.backup(&model, "other").1, files);
}

#[test]
fn a_change_costs_its_leaf_and_the_leaves_above_it() {
    let lab = Laboratory::new();
    let model = tree(1000);
    let (first, _) = lab.backup(&model, "set");
    let files = first.snapshot.directory().sums.files as usize;
    // Nothing is looked at or encoded when nothing changed.
    assert_eq!(lab.steps(&model, &first), BTreeMap::from([("nothing", 1)]));

    let large = |change: Change<'_>| {
        let mut model = model.clone();
        let Some(Folder { below, .. }) = model.get_mut(&b"large"[..]) else { panic!("a folder") };
        change(below);
        lab.steps(&model, &first)
    };
    // Behind the last leaf nothing but the new entry and the last leaf is looked at.
    let steps = large(&|below| _ = below.insert(file_name(9999), NEW));
    assert!((1..=2).contains(&steps["item"]), "with the file beside the folder: {steps:?}");
    // The renamed folder comes last: its record is forgotten.
    let changes: [Change<'_>; 4] = [
        &|below| _ = below.insert(file_name(120), File { version: 1, is_racy: false, fails: false }),
        &|below| _ = below.remove(&file_name(120)),
        &|below| _ = below.insert([&file_name(120), &b" new"[..]].concat().into(), NEW),
        &|below| {
            let name: Box<[u8]> = [&file_name(100), &b" folder"[..]].concat().into();
            let renamed = below.remove(&name).expect("a folder");
            below.insert([&name, &b" renamed"[..]].concat().into(), renamed);
        },
    ];
    for change in changes {
        let steps = large(change);
        let count = |kind| steps.get(kind).copied().unwrap_or_default();
        assert!(count("item") < files / 2 && count("item") > 1, "{steps:?}");
        assert!(count("leaf") >= 2 && count("enter") <= 4, "{steps:?}");
        assert_eq!((count("nothing"), count("enter")), (0, count("leave")), "{steps:?}");
    }
}

/// The records are believed only beside the snapshot that they are of.
#[test]
fn without_the_whole_previous_snapshot_everything_is_looked_at() {
    let lab = Laboratory::new();
    let model = tree(1000);
    let (first, files) = lab.backup(&model, "set");
    let mut other = model.clone();
    *file(&mut other, &[b"top"]) = File { version: 9, is_racy: false, fails: false };
    let (second, reads) = lab.backup(&other, "set");
    assert_eq!(reads, 1);
    // The latest snapshot is gone, so the one before counts, whose root is another.
    lab.scratch.remove_snapshot(second.id);
    let (third, _) = lab.backup(&other, "set");
    assert_eq!(Laboratory::root_of(&third), Laboratory::root_of(&second));
    assert_ne!(Laboratory::root_of(&third), Laboratory::root_of(&first));
    // A pack is gone: nothing of the previous snapshot is taken over without a look.
    lab.scratch.remove_packs();
    let (fourth, reads) = lab.backup(&other, "set");
    assert_eq!((reads, Laboratory::root_of(&fourth)), (files, Laboratory::root_of(&second)));
    assert!(fourth.snapshot.summary.stored_bytes > 0);
}

/// A new entry behind the last leaf of a folder needs the entries of that leaf. If they cannot be read, everything is
/// looked at.
#[test]
fn a_leaf_that_cannot_be_read_is_made_again() {
    // One leaf in twenty ends with its last entry, and then nothing needs it.
    let needed_the_leaf = (0..4).filter(|_| {
        let lab = Laboratory::new();
        let mut model = tree(150);
        let (_, files) = lab.backup(&model, "set");
        lab.scratch.damage_packs();
        let Some(Folder { below, .. }) = model.get_mut(&b"large"[..]) else { panic!("a folder") };
        below.insert(file_name(9999), NEW);
        LocalState::open(lab.state.path(), &lab.scratch.repository).expect("open").forget_facts().expect("room");
        let (report, reads) = lab.backup(&model, "set");
        assert!(report.failures.is_empty());
        assert_eq!(report.snapshot.directory().sums.files as usize, files + 1);
        let (expected, _) = lab.backup(&model, "fresh");
        assert_eq!(Laboratory::root_of(&report), Laboratory::root_of(&expected));
        reads > files
    });
    assert!(needed_the_leaf.count() > 0);
}

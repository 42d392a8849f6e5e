//! Compares the tree with a `BTreeMap`.

use super::*;
use crate::format::crypto::{Cipher, Keys, MasterKey};
use crate::format::entry::{EntryKind, Timestamp};
use crate::format::id::NodeId;
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};

type Model = BTreeMap<Box<[u8]>, Entry>;
/// An edit: an index that picks an existing name, or a new name, and the version of its entry afterwards.
type Edit = (prop::sample::Index, Box<[u8]>, Option<u16>);
type Sides = (Option<Entry>, Option<Entry>);

/// Stores nodes in memory and counts how many are read and written.
#[derive(Default)]
struct Nodes {
    nodes: HashMap<NodeId, Arc<Node>>,
    reads: Cell<usize>,
    writes: usize,
}

impl NodeSource for Nodes {
    fn node(&self, node: &NodeRef) -> Result<Arc<Node>, ReadError> {
        self.reads.set(self.reads.get() + 1);
        Ok(self.nodes[&node.id].clone())
    }
}

impl NodeSink for Nodes {
    type Error = ReadError;

    fn put(&mut self, node: NewNode) -> Result<(), ReadError> {
        let decoded = Node::decode(&node.canonical).expect("what is written can be read");
        self.writes += usize::from(self.nodes.insert(node.id, Arc::new(decoded)).is_none());
        Ok(())
    }
}

fn keys() -> Keys {
    Keys::derive(&MasterKey::from_bytes([5; 32]), Cipher::Aes256Siv)
}

fn entry(name: &[u8], version: u16, below: u64) -> Entry {
    let kind = match below {
        0 => EntryKind::Symlink(vec![b'x'; usize::from(version % 50)].into()),
        _ => EntryKind::Directory(Directory {
            root: NodeRef { id: NodeId([version as u8; 32]), hint: None },
            sums: Sums { entries: below, dirs: 0, items: below, files: below, bytes: below * 10 },
        }),
    };
    let mut entry = Entry::new(name, kind, Timestamp { secs: i64::from(version), nanos: 0 });
    entry.mode = Some(version & 0o777);
    entry
}

fn names() -> impl Strategy<Value = Box<[u8]>> {
    // Few letters, so that names collide and lie close together.
    "[ab]{1,6}|[a-z]{1,3}[0-9]{0,3}".prop_map(|name| name.into_bytes().into())
}

fn entries() -> impl Strategy<Value = Model> {
    let one = (names(), any::<u16>(), 0u64..4)
        .prop_map(|(name, version, below)| (name.clone(), entry(&name, version, below)));
    proptest::collection::vec(one, 0..200).prop_map(|entries| entries.into_iter().collect())
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    proptest::collection::vec((any::<prop::sample::Index>(), names(), any::<Option<u16>>()), 0..20)
}

fn build(model: &Model, cutter: build::Cutter<'_>, nodes: &mut Nodes) -> Directory {
    let mut builder = TreeBuilder::new(cutter);
    for entry in model.values() {
        builder.push(entry.clone(), nodes).unwrap();
    }
    builder.finish(nodes).unwrap()
}

/// Half of the edits change or remove an existing name.
fn changes_of(model: &Model, edits: &[Edit]) -> BTreeMap<Box<[u8]>, Option<Entry>> {
    let change = |(number, (pick, name, version)): (usize, &Edit)| {
        let name = match model.is_empty() || number % 2 == 0 {
            true => name.clone(),
            false => model.keys().nth(pick.index(model.len())).expect("within the model").clone(),
        };
        let entry = version.map(|version| entry(&name, version, u64::from(version % 3)));
        (name, entry)
    };
    edits.iter().enumerate().map(change).collect()
}

fn apply(model: &Model, changes: &BTreeMap<Box<[u8]>, Option<Entry>>) -> Model {
    let mut after = model.clone();
    for (name, entry) in changes {
        match entry {
            Some(entry) => after.insert(name.clone(), entry.clone()),
            None => after.remove(name),
        };
    }
    after
}

proptest! {
    #[test]
    fn a_tree_reads_as_its_entries(model in entries(), probe in names(), node_size in 60u32..2000) {
        let (keys, mut nodes) = (keys(), Nodes::default());
        let dir = build(&model, build::Cutter::new(&keys, node_size), &mut nodes);
        let read: Vec<_> = Entries::new(&nodes, &dir).unwrap().map(|found| found.unwrap().entry().clone()).collect();
        prop_assert_eq!(&read, &model.values().cloned().collect::<Vec<_>>());
        let sums = model.values().fold(Sums::default(), |sum, entry| sum.checked_add(entry.sums()).unwrap());
        prop_assert_eq!(dir.sums, sums);

        let mut before = Sums::default();
        for (number, entry) in model.values().enumerate() {
            let found = find(&nodes, &dir, &entry.name).unwrap().expect("it is there");
            prop_assert_eq!(found.entry(), entry);
            prop_assert_eq!(found.before, before);
            let found = nth(&nodes, &dir, number as u64).unwrap().expect("it is there");
            prop_assert_eq!(found.entry(), entry);
            for rank in before.items..before.items + entry.sums().items {
                let found = at_rank(&nodes, &dir, rank).unwrap().expect("it is there");
                prop_assert_eq!(found.entry(), entry);
            }
            before = before.checked_add(entry.sums()).unwrap();
        }
        prop_assert!(nth(&nodes, &dir, model.len() as u64).unwrap().is_none());
        prop_assert!(at_rank(&nodes, &dir, before.items).unwrap().is_none());
        let found = find(&nodes, &dir, &probe).unwrap().map(|found| found.entry().clone());
        prop_assert_eq!(found, model.get(&probe).cloned());

        let from = Entries::from_name(&nodes, &dir, &probe).unwrap();
        let from: Vec<_> = from.map(|found| found.unwrap().entry().clone()).collect();
        prop_assert_eq!(from, model.range(probe..).map(|(_, entry)| entry.clone()).collect::<Vec<_>>());
        let middle = model.len() / 2;
        let from = Entries::from_number(&nodes, &dir, middle as u64).unwrap();
        let from: Vec<_> = from.map(|found| found.unwrap().entry().clone()).collect();
        prop_assert_eq!(from, model.values().skip(middle).cloned().collect::<Vec<_>>());
    }

    #[test]
    fn a_tree_of_stored_leaves_is_the_tree_of_their_entries(
        model in entries(), stored in proptest::collection::vec(any::<bool>(), 200), node_size in 60u32..2000
    ) {
        let (keys, mut nodes) = (keys(), Nodes::default());
        let cutter = build::Cutter::new(&keys, node_size);
        let expected = build(&model, cutter, &mut nodes);
        // The leaves of the tree, with their entries.
        let (mut builder, mut leaves, mut open) = (TreeBuilder::new(cutter), Vec::new(), Vec::new());
        for entry in model.values() {
            builder.push(entry.clone(), &mut nodes).unwrap();
            open.push(entry.clone());
            leaves.extend(builder.take_closed_leaf().map(|leaf| (leaf, std::mem::take(&mut open))));
        }
        builder.close_leaf(&mut nodes).unwrap();
        leaves.extend(builder.take_closed_leaf().map(|leaf| (leaf, std::mem::take(&mut open))));
        prop_assert_eq!(builder.finish(&mut nodes).unwrap(), expected);

        let mut builder = TreeBuilder::new(cutter);
        for ((leaf, entries), is_stored) in leaves.into_iter().zip(stored) {
            prop_assert!(builder.is_between_leaves());
            match is_stored {
                true => builder.push_leaf(&leaf, &mut nodes).unwrap(),
                false => entries.into_iter().for_each(|entry| builder.push(entry, &mut nodes).unwrap()),
            }
        }
        prop_assert_eq!(builder.finish(&mut nodes).unwrap(), expected);
    }

    #[test]
    fn an_edited_tree_is_the_tree_built_from_scratch(model in entries(), edits in edits(), node_size in 60u32..2000) {
        let (keys, mut nodes) = (keys(), Nodes::default());
        let cutter = build::Cutter::new(&keys, node_size);
        let dir = build(&model, cutter, &mut nodes);
        let changes = changes_of(&model, &edits);
        let after = apply(&model, &changes);
        let expected = build(&after, cutter, &mut Nodes::default());
        let source = Nodes { nodes: nodes.nodes.clone(), ..Nodes::default() };
        prop_assert_eq!(edit(&source, &dir, changes, cutter, &mut nodes).unwrap(), expected);
    }

    #[test]
    fn a_diff_lists_exactly_what_differs(model in entries(), edits in edits(), node_size in 60u32..2000) {
        let (keys, mut nodes) = (keys(), Nodes::default());
        let cutter = build::Cutter::new(&keys, node_size);
        let old = build(&model, cutter, &mut nodes);
        let after = apply(&model, &changes_of(&model, &edits));
        let new = build(&after, cutter, &mut nodes);
        let mut told: BTreeMap<Box<[u8]>, Sides> = BTreeMap::new();
        diff::<ReadError>(&nodes, &old, &new, |change| {
            let (before, after) = match change {
                Change::Added(entry) => (None, Some(entry)),
                Change::Removed(entry) => (Some(entry), None),
                Change::Changed(before, after) => (Some(before), Some(after)),
            };
            let name = before.or(after).expect("a change has a side").name.clone();
            assert!(told.insert(name, (before.cloned(), after.cloned())).is_none());
            Ok(())
        }).unwrap();
        let names: std::collections::BTreeSet<_> = model.keys().chain(after.keys()).cloned().collect();
        let expected: BTreeMap<_, _> = names.into_iter()
            .map(|name| { let sides = (model.get(&name).cloned(), after.get(&name).cloned()); (name, sides) })
            .filter(|(_, (before, after))| before != after)
            .collect();
        prop_assert_eq!(told, expected);
    }
}

/// One change in a hundred thousand entries reads and writes only the nodes on one path.
#[test]
fn a_small_change_costs_a_path_of_nodes() {
    let (keys, mut nodes) = (keys(), Nodes::default());
    let cutter = build::Cutter::new(&keys, 2000);
    let model: Model = (0..100_000)
        .map(|number| {
            let name: Box<[u8]> = format!("mail {number:06}.eml").into_bytes().into();
            (name.clone(), entry(&name, 7, 0))
        })
        .collect();
    let dir = build(&model, cutter, &mut nodes);
    assert!(nodes.writes > 1000, "{} nodes", nodes.writes);

    let mut after = Nodes { nodes: nodes.nodes.clone(), ..Nodes::default() };
    let name: Box<[u8]> = b"mail 050000.eml".as_slice().into();
    nodes.reads.set(0);
    let changes = BTreeMap::from([(name.clone(), Some(entry(&name, 8, 0)))]);
    let changed = edit(&nodes, &dir, changes, cutter, &mut after).unwrap();
    assert!(nodes.reads.get() <= 20, "{} nodes read", nodes.reads.get());
    assert!(after.writes <= 5, "{} nodes written", after.writes);

    after.reads.set(0);
    let mut changes = 0;
    diff::<ReadError>(&after, &dir, &changed, |_| {
        changes += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(changes, 1);
    assert!(after.reads.get() <= 16, "{} nodes read", after.reads.get());
}

//! What this machine remembers of each folder of local files, so that the next backup recognises what did not change
//! without reading the previous snapshot.
//!
//! The record of a folder names the tree that the folder got, and the leaves of that tree. Of each leaf it has a digest
//! of what the walk knows of the entries in it: names, kinds, times, owners, permissions, attributes, and the
//! fingerprints of files. As long as the walk finds the same again, it would make the same leaf again.
//!
//! A record is believed only if it names the tree that the previous snapshot has in its place. The snapshot itself says
//! that of its root, and each record says it of the folders below (`FolderRecord::folders`). So the records of an
//! interrupted run, or of another snapshot, are never used.

use crate::format::cbor::{CborError, Reader, Writer};
use crate::format::entry::system::write_attributes;
use crate::format::entry::{Directory, NodeRef, Sums};
use crate::format::id::NodeId;
use crate::format::node::Child;
use crate::source::{Item, ItemKind, Meta};

/// The version of the records. Records of another version are ignored.
const VERSION: u64 = 1;

/// A hash of everything that the walk knows of one entry, or of all entries in a leaf.
pub(super) type Digest = [u8; 32];

/// A leaf of a folder's tree.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LeafRecord {
    /// The leaf.
    pub child: Child,
    /// The digest of the digests of all its entries; `None` if one of them must be looked at again.
    pub digest: Option<Digest>,
    /// True if the leaf ends because of its last entry, false if it only ends because the folder does.
    pub is_cut: bool,
}

/// The name of a folder, and the root of its tree.
pub(super) type FolderRoot = (Box<[u8]>, NodeId);

/// What is remembered of a folder.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FolderRecord {
    /// The folder's tree.
    pub dir: Directory,
    /// The leaves of the tree, in order. An empty folder has none here.
    pub leaves: Vec<LeafRecord>,
    /// The folders in this folder, in order of their names.
    pub folders: Vec<FolderRoot>,
}

impl FolderRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.array(5).uint(VERSION).bytes(self.dir.root.id.as_bytes());
        self.dir.sums.write(&mut out);
        out.array(self.leaves.len());
        for LeafRecord { child, digest, is_cut } in &self.leaves {
            child.write(out.array(3));
            out.bytes(digest.as_ref().map_or(&[][..], |digest| digest)).bool(*is_cut);
        }
        out.array(self.folders.len());
        for (name, root) in &self.folders {
            out.array(2).bytes(name).bytes(root.as_bytes());
        }
        out.into_bytes()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut reader = Reader::new(bytes);
        if (reader.array()?, reader.uint()?) != (5, VERSION) {
            return Err(CborError::Unexpected { expected: "a folder of this version" });
        }
        let root = NodeRef { id: NodeId(reader.array_of()?), hint: None };
        let dir = Directory { root, sums: Sums::read(&mut reader)? };
        let leaf = |reader: &mut Reader<'_>| {
            reader.array()?;
            let child = Child::read(reader)?;
            let digest = Some(reader.bytes()?).filter(|digest| !digest.is_empty());
            let digest = digest.map(|digest| digest.try_into().map_err(|_| CborError::Range)).transpose()?;
            Ok(LeafRecord { child, digest, is_cut: reader.bool()? })
        };
        let leaves = (0..reader.array()?).map(|_| leaf(&mut reader)).collect::<Result<_, CborError>>()?;
        let folder = |reader: &mut Reader<'_>| {
            reader.array()?;
            Ok((reader.bytes()?.into(), NodeId(reader.array_of()?)))
        };
        let folders = (0..reader.array()?).map(|_| folder(&mut reader)).collect::<Result<_, CborError>>()?;
        Ok(Self { dir, leaves, folders })
    }

    /// Returns the folders whose names lie in the leaf at this position.
    pub fn folders_in(&self, leaf: usize) -> &[FolderRoot] {
        let end_of = |leaf: &LeafRecord| self.folders.partition_point(|(name, _)| **name <= *leaf.child.last);
        let start = leaf.checked_sub(1).and_then(|before| self.leaves.get(before)).map_or(0, end_of);
        &self.folders[start..self.leaves.get(leaf).map_or(start, end_of)]
    }
}

/// Returns the digest of an item, or `None` if an item that looks the same may be another.
pub(super) fn digest_of_item(item: &Item) -> Option<Digest> {
    let mut out = facts_of(&item.meta)?;
    match &item.kind {
        ItemKind::File { fingerprint, .. } if fingerprint.is_empty() => return None,
        ItemKind::File { fingerprint, .. } => out.uint(0).bytes(fingerprint),
        ItemKind::Symlink(target) => out.uint(1).bytes(target),
        ItemKind::Special(special) => {
            special.write(out.uint(2));
            &mut out
        }
    };
    Some(*blake3::hash(&out.into_bytes()).as_bytes())
}

/// Returns the digest of a folder itself, without what is in it.
pub(super) fn digest_of_folder(meta: &Meta) -> Option<Digest> {
    let mut out = facts_of(meta)?;
    out.uint(3);
    Some(*blake3::hash(&out.into_bytes()).as_bytes())
}

fn facts_of(Meta { name, mtime, mode, owner, attributes, attributes_lost, link }: &Meta) -> Option<Writer> {
    if attributes_lost.is_some() {
        return None;
    }
    let mut out = Writer::new();
    out.bytes(name).int(mtime.secs).uint(mtime.nanos.into());
    out.array(usize::from(mode.is_some()));
    mode.iter().for_each(|mode| _ = out.uint((*mode).into()));
    out.array(usize::from(owner.is_some()));
    owner.iter().for_each(|(user, group)| _ = out.uint((*user).into()).uint((*group).into()));
    out.array(usize::from(link.is_some()));
    link.iter().for_each(|link| link.write(&mut out));
    write_attributes(attributes, &mut out);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::Timestamp;
    use crate::format::entry::system::{Attribute, Link, Special};
    use crate::source::Content;

    fn record() -> FolderRecord {
        let leaf = |last: &str, digest, is_cut| LeafRecord {
            child: Child {
                last: last.as_bytes().into(),
                node: NodeRef { id: NodeId([7; 32]), hint: None },
                sums: Sums { entries: 3, dirs: 1, items: 9, files: 8, bytes: 1 << 40 },
            },
            digest,
            is_cut,
        };
        let folder = |name: &str| (name.as_bytes().into(), NodeId([name.as_bytes()[0]; 32]));
        FolderRecord {
            dir: Directory { root: NodeRef { id: NodeId([9; 32]), hint: None }, sums: Sums::default() },
            leaves: vec![leaf("c", Some([1; 32]), true), leaf("f", None, true), leaf("i", Some([2; 32]), false)],
            folders: ["a", "c", "d", "i"].map(folder).to_vec(),
        }
    }

    #[test]
    fn a_record_comes_back_and_damaged_ones_are_refused() {
        let record = record();
        let bytes = record.encode();
        assert_eq!(FolderRecord::decode(&bytes), Ok(record));
        for len in 0..bytes.len() {
            assert!(FolderRecord::decode(&bytes[..len]).is_err(), "{len}");
        }
        let mut other = bytes;
        other[1] = 2;
        assert!(FolderRecord::decode(&other).is_err(), "another version");
    }

    #[test]
    fn folders_are_found_by_the_leaf_that_holds_them() {
        let record = record();
        let names = |leaf| -> Vec<_> { record.folders_in(leaf).iter().map(|(name, _)| name[0] as char).collect() };
        assert_eq!([names(0), names(1), names(2), names(3)], [vec!['a', 'c'], vec!['d'], vec!['i'], vec![]]);
    }

    struct Nothing;

    impl Content for Nothing {
        fn len_hint(&self) -> u64 {
            0
        }
        fn open(&self) -> std::io::Result<Box<dyn std::io::Read + '_>> {
            Ok(Box::new(std::io::empty()))
        }
    }

    /// Whatever an entry is made of changes its digest.
    #[test]
    fn every_fact_of_an_entry_changes_its_digest() {
        let meta = Meta {
            name: b"name".as_slice().into(),
            mtime: Timestamp { secs: 5, nanos: 7 },
            mode: Some(0o644),
            owner: Some((1, 2)),
            ..Meta::default()
        };
        let attribute = Attribute { name: b"user.a".as_slice().into(), value: b"b".as_slice().into() };
        let metas = [
            meta.clone(),
            Meta { name: b"names".as_slice().into(), ..meta.clone() },
            Meta { mtime: Timestamp { secs: 5, nanos: 8 }, ..meta.clone() },
            Meta { mtime: Timestamp { secs: 6, nanos: 7 }, ..meta.clone() },
            Meta { mode: Some(0o640), ..meta.clone() },
            Meta { mode: None, ..meta.clone() },
            Meta { owner: Some((1, 3)), ..meta.clone() },
            Meta { owner: None, ..meta.clone() },
            Meta { link: Some(Link { file_system: 0, inode: 3 }), ..meta.clone() },
            Meta { link: Some(Link { file_system: 1, inode: 3 }), ..meta.clone() },
            Meta { attributes: vec![attribute], ..meta.clone() },
        ];
        let file = |fingerprint: &[u8]| ItemKind::File { content: Box::new(Nothing), fingerprint: fingerprint.into() };
        let item = |meta: &Meta, kind| {
            digest_of_item(&Item { meta: meta.clone(), path: Vec::new(), kind, facts: Default::default() })
        };
        let mut digests: Vec<_> = metas.iter().map(|meta| item(meta, file(b"print"))).collect();
        digests.extend(metas.iter().map(digest_of_folder));
        digests.push(item(&meta, file(b"other print")));
        digests.extend(["a", "b"].map(|target| item(&meta, ItemKind::Symlink(target.as_bytes().into()))));
        let devices =
            [Special::Fifo, Special::CharDevice { major: 1, minor: 2 }, Special::BlockDevice { major: 1, minor: 2 }];
        digests.extend(devices.map(|special| item(&meta, ItemKind::Special(special))));
        let distinct: std::collections::HashSet<_> = digests.iter().collect();
        assert_eq!(distinct.len(), digests.len());
        assert!(!digests.contains(&None));
        // A file that may change again unnoticed, and attributes that are not known.
        assert_eq!(item(&meta, file(b"")), None);
        assert_eq!(digest_of_folder(&Meta { attributes_lost: Some("no".to_owned()), ..meta }), None);
    }
}

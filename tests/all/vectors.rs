//! Golden bytes of format version 1: fixed keys and inputs give these bytes, today and in every later version.
//!
//! The vectors are in `tests/vectors/v1`. They change only with a new format version and a decision record. A failing
//! test says which vector differs and from which byte on. `STRONGROOM_BLESS=1` writes them anew. Vectors with random or
//! compressed bytes are only read, and are written if the file is missing. docs/repository-format.md describes the
//! format.

mod archives;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use strongroom::backend::local::Local;
use strongroom::backup::{BackupOptions, Progress, backup};
use strongroom::content::mime::Base64Form;
use strongroom::format::chunker::{ChunkSizes, Chunker, ChunkerParams};
use strongroom::format::compress::Compressor;
use strongroom::format::config::Config;
use strongroom::format::crypto::{Cipher, Keys, MasterKey, Purpose, TAG_LEN};
use strongroom::format::entry::system::{Attribute, Link, Special, SystemFacts};
use strongroom::format::entry::{
    ChunkRef, Content, Directory, Entry, EntryKind, Facts, NodeRef, Segment, Sums, Timestamp,
};
use strongroom::format::id::{BlobId, ChunkId, KeyId, NodeId, PackId, RepositoryId, SnapshotId};
use strongroom::format::index::{self, Index};
use strongroom::format::keyslot::{OpenOutcome, PasswordCost, RecoveryKey, Slot, SlotInfo};
use strongroom::format::node::{self, BlobLocation, BlobRef, NewNode, Node, NodeKind};
use strongroom::format::pack::{self, BlobRecord, BlockLocation, Footer, Location, PackBuilder, PackKind, TRAILER_LEN};
use strongroom::format::sealed;
use strongroom::format::snapshot::{Failure, ROOT_NAME, Snapshot, Summary};
use strongroom::repository::local_state::LocalState;
use strongroom::repository::reader::CacheSizes;
use strongroom::repository::tree::build::Cutter;
use strongroom::repository::tree::{NodeSink, TreeBuilder, find_path};
use strongroom::repository::{CreateOptions, IndexSearch, Repository};
use strongroom::source::files::Files;

const CHUNKER: ChunkerParams = ChunkerParams {
    small: ChunkSizes { min: 16 << 10, avg: 64 << 10, max: 256 << 10 },
    large: ChunkSizes { min: 256 << 10, avg: 1 << 20, max: 4 << 20 },
    large_from: 32 << 20,
};
const CHEAP: PasswordCost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };

fn path_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/v1").join(name)
}

fn blessing() -> bool {
    std::env::var_os("STRONGROOM_BLESS").is_some_and(|value| value == "1")
}

/// Formats bytes as lines of 32 bytes in hexadecimal, which `diff` can show.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        line.iter().for_each(|byte| write!(text, "{byte:02x}").expect("a string takes everything"));
        text.push('\n');
    }
    text
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex")).collect()
}

fn stored(name: &str) -> String {
    let path = path_of(name);
    std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; STRONGROOM_BLESS=1 writes it", path.display()))
}

/// Compares `made` with the vector called `name`.
fn pin(name: &str, made: &[u8]) {
    let name = format!("{name}.hex");
    if blessing() {
        std::fs::write(path_of(&name), hex(made)).expect("the vectors can be written");
    }
    let golden = unhex(&stored(&name));
    if golden != made {
        let at = golden.iter().zip(made).take_while(|(golden, made)| golden == made).count();
        panic!("vector {name} differs from byte {at} on (it has {} bytes, {} were made)", golden.len(), made.len());
    }
}

/// Compares a text with the vector called `name`.
fn pin_text(name: &str, made: &str) {
    if blessing() {
        std::fs::write(path_of(name), made).expect("the vectors can be written");
    }
    let golden = stored(name);
    if golden != made {
        let line = golden.lines().zip(made.lines()).take_while(|(golden, made)| golden == made).count() + 1;
        panic!("vector {name} differs from line {line} on");
    }
}

/// Returns the vector called `name`. Its bytes differ each time they are made, so `make` is only called if the file is
/// missing.
fn keep(name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let name = format!("{name}.hex");
    if blessing() && !path_of(&name).exists() {
        std::fs::write(path_of(&name), hex(&make())).expect("the vectors can be written");
    }
    unhex(&stored(&name))
}

fn master() -> MasterKey {
    MasterKey::from_bytes(std::array::from_fn(|at| at as u8))
}

fn keys(cipher: Cipher) -> Keys {
    Keys::derive(&master(), cipher)
}

/// Returns bytes that do not compress, always the same for a label.
fn noise(label: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(label.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Seals without zstd, because every version of zstd gives other bytes.
fn seal_stored(purpose: Purpose, plaintext: &[u8]) -> Vec<u8> {
    let mut sealed = vec![0; TAG_LEN + 1];
    sealed.extend((plaintext.len() as u32).to_le_bytes());
    sealed.extend(plaintext);
    keys(Cipher::Aes256Siv).encrypt(purpose, &[], &mut sealed);
    sealed
}

#[test]
fn keyed_hashes() {
    let keys = keys(Cipher::Aes256Siv);
    pin("id-chunk", keys.chunk_id(b"strongroom").as_bytes());
    pin("id-node", keys.node_id(b"strongroom").as_bytes());
    pin("node-cut", &keys.node_cut(b"\0strongroom").to_le_bytes());
    pin("gear-table", &keys.gear_table().map(u64::to_le_bytes).concat());
}

#[test]
fn blocks() {
    let plaintext = noise("block", 100);
    for (cipher, name) in [(Cipher::Aes256Siv, "block-aes-256-siv"), (Cipher::Aes256PmacSiv, "block-aes-256-pmac-siv")]
    {
        let keys = keys(cipher);
        let block = sealed::seal(&keys, Purpose::DataBlock, &plaintext, &mut Compressor::new(3));
        pin(name, &block);
        assert_eq!(sealed::open(&keys, Purpose::DataBlock, block).expect("it opens"), plaintext);
    }
    assert_eq!(seal_stored(Purpose::DataBlock, &plaintext), unhex(&stored("block-aes-256-siv.hex")));

    let text = "Strongroom keeps what is entrusted to it. ".repeat(50).into_bytes();
    let seal = || sealed::seal(&keys(Cipher::Aes256Siv), Purpose::MetaBlock, &text, &mut Compressor::new(6));
    let block = keep("block-compressed", seal);
    assert!(block.len() < text.len() / 4);
    assert_eq!(sealed::open(&keys(Cipher::Aes256Siv), Purpose::MetaBlock, block).expect("it opens"), text);
}

fn small_pack() -> pack::Pack {
    let keys = keys(Cipher::Aes256Siv);
    let mut compressor = Compressor::new(6);
    let mut builder = PackBuilder::new(PackKind::Data, 1 << 20);
    for (label, lens) in [("one", &[40, 60][..]), ("two", &[50][..])] {
        let plaintext = noise(label, lens.iter().sum());
        let mut rest = plaintext.as_slice();
        let blobs = lens.iter().map(|len| {
            let (blob, after) = rest.split_at(*len);
            rest = after;
            BlobRecord { id: BlobId::from(keys.chunk_id(blob)), len: *len as u32 }
        });
        let blobs = blobs.collect();
        builder.push(&sealed::seal(&keys, Purpose::DataBlock, &plaintext, &mut compressor), blobs);
    }
    builder.finish(&keys, &mut compressor)
}

#[test]
fn packs() {
    let keys = keys(Cipher::Aes256Siv);
    let pack = small_pack();
    let len = pack.bytes.len();
    let footer_len = pack::footer_len(&pack.bytes[len - TRAILER_LEN..], len as u64).expect("a trailer") as usize;
    let blocks_len = len - TRAILER_LEN - footer_len;
    let sealed_footer = &pack.bytes[blocks_len..][..footer_len];
    let footer = sealed::open(&keys, Purpose::PackFooter, sealed_footer.to_vec()).expect("it opens");
    pin("pack-footer", &footer);
    // The same pack with an uncompressed footer, so that it does not depend on zstd.
    let sealed_footer = seal_stored(Purpose::PackFooter, &footer);
    let mut bytes = pack.bytes[..blocks_len].to_vec();
    bytes.extend(&sealed_footer);
    bytes.extend((sealed_footer.len() as u32).to_le_bytes());
    bytes.extend(b"SRP1");
    pin("pack", &bytes);
    assert_eq!(pack::open_footer(&keys, sealed_footer, bytes.len() as u64).expect("it opens"), pack.footer);
    assert_eq!(pack.id.as_bytes(), blake3::hash(&pack.bytes).as_bytes());
}

#[test]
fn indexes() {
    let meta = Footer { kind: PackKind::Meta, ..small_pack().footer };
    let packs = [(PackId([1; 32]), small_pack().footer), (PackId([2; 32]), meta)];
    let encoded = index::encode(&packs);
    pin("index", &encoded);
    let object = seal_stored(Purpose::Index, &encoded);
    pin("index-object", &object);
    let opened = sealed::open(&keys(Cipher::Aes256Siv), Purpose::Index, object).expect("it opens");
    assert_eq!(Index::decode(opened).expect("an index").locations().len(), 6);
}

fn chunk(number: u8, len: u32) -> ChunkRef {
    ChunkRef { id: ChunkId([number; 32]), len, hint: None }
}

fn file(name: &str, content: Content) -> Entry {
    let mut entry = Entry::new(name.as_bytes(), EntryKind::File(content), Timestamp { secs: 1_700_000_000, nanos: 0 });
    entry.mode = Some(0o640);
    entry.owner = Some((1000, 100));
    entry
}

fn segments() -> Vec<Segment> {
    let form = Base64Form { line_len: 76, crlf: true, final_eol: true };
    let list = Segment::List { len: 1 << 40, node: NodeRef { id: NodeId([4; 32]), hint: None } };
    vec![
        Segment::Raw(vec![chunk(1, 1000), chunk(2, 70_000)]),
        Segment::Base64 { form, decoded_len: 3000, chunks: vec![chunk(3, 3000)] },
        list,
    ]
}

fn directory(name: &str) -> Entry {
    let sums = Sums { entries: 3, dirs: 1, items: 300, files: 290, bytes: 5_000_000_000 };
    let root = NodeRef { id: NodeId([5; 32]), hint: None };
    let mtime = Timestamp { secs: -1, nanos: 999_999_999 };
    Entry::new(name.as_bytes(), EntryKind::Directory(Directory { root, sums }), mtime)
}

fn mail() -> Entry {
    let mut entry = file("mail.eml", Content { segments: segments() });
    entry.facts = Facts {
        subject: Some("Grüße".to_owned()),
        from: Some("alice@example.com".to_owned()),
        to: Some("bob@example.com, carol@example.com".to_owned()),
        message_id: Some("<1@example.com>".to_owned()),
        date: Some(-5),
        source_id: None,
        change_key: None,
        reconstructed: false,
        marks: None,
        mbox_before: None,
        mbox_after: None,
        unknown: vec![(90, [0xf5].into())],
    };
    entry.payload = Some(Content { segments: vec![Segment::Raw(vec![chunk(6, 9)])] });
    entry.unknown = vec![(1000, [0x82, 0x01, 0x61, b'x'].into())];
    entry
}

/// The mail with its text, and with another content that a later version wrote.
fn mail_with_text() -> Entry {
    let content = |number, len| Content { segments: vec![Segment::Raw(vec![chunk(number, len)])] };
    let mut entry = mail();
    entry.contents = vec![(17, content(8, 50))];
    entry.set_text(Some(content(7, 400)));
    entry.facts.marks = Some(3);
    entry
}

fn attribute(name: &str, value: &[u8]) -> Attribute {
    Attribute { name: name.as_bytes().into(), value: value.into() }
}

/// Returns entries with the facts of a file system, in every form.
fn entries_of_a_file_system() -> Vec<(&'static str, Entry)> {
    let with = |mut entry: Entry, system| {
        entry.set_system(system);
        entry
    };
    let attributes = vec![attribute("security.capability", &[1, 0, 0, 2]), attribute("user.empty", b"")];
    let tagged = with(directory("tagged"), SystemFacts { attributes, ..SystemFacts::default() });
    let mut long = file("long", Content { segments: segments() });
    long.set_attributes_content(Some(Content { segments: vec![Segment::Raw(vec![chunk(9, 3000)])] }));
    let special = |name, special| {
        with(file(name, Content::default()), SystemFacts { special: Some(special), ..SystemFacts::default() })
    };
    let link = Some(Link { file_system: 1, inode: 1 << 40 });
    let mut linked = file("linked", Content { segments: segments() });
    linked.unknown = vec![(1000, [0x82, 0x01, 0x61, b'x'].into())];
    vec![
        ("entry-attributes", tagged),
        ("entry-attributes-long", long),
        ("entry-fifo", special("fifo", Special::Fifo)),
        ("entry-socket", special("socket", Special::Socket)),
        ("entry-character-device", special("null", Special::CharDevice { major: 1, minor: 3 })),
        ("entry-block-device", special("disk", Special::BlockDevice { major: 259, minor: 65536 })),
        ("entry-hard-link", with(linked, SystemFacts { link, ..SystemFacts::default() })),
    ]
}

#[test]
fn entries_with_what_a_file_system_knows() {
    for (name, entry) in entries_of_a_file_system() {
        let encoded = entry.encode();
        pin(name, &encoded);
        assert_eq!(Entry::read(&mut strongroom::format::cbor::Reader::new(&encoded)), Ok(entry), "{name}");
    }
    // Impossible facts are refused.
    let refused = |change: &dyn Fn(&mut SystemFacts), mut entry: Entry| {
        let mut system = SystemFacts::default();
        change(&mut system);
        entry.system = Some(Box::new(system));
        let encoded = entry.encode();
        assert!(Entry::read(&mut strongroom::format::cbor::Reader::new(&encoded)).is_err(), "{entry:?}");
    };
    let empty = || file("x", Content::default());
    refused(&|system| system.special = Some(Special::Fifo), file("x", Content { segments: segments() }));
    refused(&|system| system.special = Some(Special::Fifo), directory("x"));
    for attributes in [
        vec![attribute("user.b", b""), attribute("user.a", b"")],
        vec![attribute("user.a", b""), attribute("user.a", b"")],
        vec![attribute("", b"")],
        vec![attribute("user.\0", b"")],
        vec![attribute(&"a".repeat(256), b"")],
        vec![attribute("user.long", &[0; 2048])],
    ] {
        refused(&|system| system.attributes = attributes.clone(), empty());
    }
}

#[test]
fn entries() {
    let symlink = EntryKind::Symlink(b"../elsewhere\xff".as_slice().into());
    let symlink = Entry::new(b"link", symlink, Timestamp { secs: 0, nanos: 1 });
    let empty = file("empty", Content::default());
    for (name, entry) in [
        ("entry-empty-file", empty),
        ("entry-mail", mail()),
        ("entry-mail-text", mail_with_text()),
        ("entry-directory", directory("Inbox")),
        ("entry-symlink", symlink),
    ] {
        let encoded = entry.encode();
        pin(name, &encoded);
        assert_eq!(Entry::read(&mut strongroom::format::cbor::Reader::new(&encoded)), Ok(entry));
    }
}

/// Collects the nodes of a tree.
#[derive(Default)]
struct Nodes(Vec<NewNode>);

impl NodeSink for Nodes {
    type Error = Infallible;

    fn put(&mut self, node: NewNode) -> Result<(), Infallible> {
        self.0.push(node);
        Ok(())
    }
}

fn level_of(node: &Node) -> u8 {
    match node.kind {
        NodeKind::Inner { level, .. } => level,
        _ => 0,
    }
}

#[test]
fn trees() {
    let keys = keys(Cipher::Aes256Siv);
    let mut nodes = Nodes::default();
    let Ok(empty) = TreeBuilder::new(Cutter::new(&keys, 512)).finish(&mut nodes);
    pin("node-empty", &nodes.0[0].canonical);
    assert_eq!(empty.root.id, nodes.0[0].id);

    let mut nodes = Nodes::default();
    let mut builder = TreeBuilder::new(Cutter::new(&keys, 512));
    for number in 0..200u32 {
        let content = Content { segments: vec![Segment::Raw(vec![chunk(number as u8, number)])] };
        let Ok(()) = builder.push(file(&format!("file {number:03}"), content), &mut nodes);
    }
    let Ok(dir) = builder.finish(&mut nodes);
    // A line for each node: where it ends, and its id.
    let mut table = String::new();
    for node in &nodes.0 {
        let decoded = Node::decode(&node.canonical).expect("a node");
        writeln!(table, "{} {:3} {}", level_of(&decoded), node.refs.len(), node.id).expect("a string takes everything");
    }
    pin_text("tree.txt", &table);
    pin("node-leaf", &nodes.0[0].canonical);
    let root = nodes.0.iter().find(|node| node.id == dir.root.id).expect("the root is a node");
    pin("node-inner", &root.canonical);
    assert_eq!(Node::decode(&root.canonical).expect("a node").sums(), dir.sums);
    assert_eq!(dir.sums, Sums { entries: 200, dirs: 0, items: 200, files: 200, bytes: 19_900 });
    pin("node-list", &node::list(&segments()));
}

#[test]
fn stored_nodes() {
    let canonical = node::list(&segments_of_nine());
    let refs = (0..8).map(|number| BlobRef::Chunk(BlobId([number; 32]))).chain([BlobRef::Node(BlobId([9; 32]))]);
    let node = NewNode { id: keys(Cipher::Aes256Siv).node_id(&canonical), canonical, refs: refs.collect() };
    let at = |pack: u8, block, offset, len| {
        let block = BlockLocation { pack: PackId([pack; 32]), offset: block, len: 70_000 };
        BlobLocation::Stored(Location { block, offset, len })
    };
    // Every tag, the table of packs used twice, and the length that only a node has.
    let places = [
        at(0xaa, 0, 0, 100),
        at(0xaa, 0, 100, 100),
        at(0xaa, 0, 5000, 100),
        BlobLocation::Unknown,
        at(0xbb, 300_000, 0, 100),
        at(0xaa, 70_000, 128, 100),
        BlobLocation::OwnBlock { offset: 16_384, len: 100 },
        BlobLocation::OwnPack { block_offset: 400, block_len: 5000, offset: 7, len: 100 },
        BlobLocation::OwnPack { block_offset: 400, block_len: 5000, offset: 107, len: 1234 },
    ];
    let stored = node::encode_stored(&node, &places);
    pin("node-stored", &stored);

    let own = BlockLocation { pack: PackId([0xcc; 32]), offset: 9000, len: 4000 };
    let decoded = Node::decode_stored(&stored, own).expect("a node");
    let NodeKind::List(segments) = decoded.kind else { panic!("a list") };
    let hints = segments.iter().flat_map(|segment| match segment {
        Segment::Raw(chunks) | Segment::Base64 { chunks, .. } => chunks.iter().map(|chunk| chunk.hint).collect(),
        Segment::List { node, .. } => vec![node.hint],
        other => other.chunks().map(|chunk| chunk.hint).collect(),
    });
    let expected = places.map(|place| match place {
        BlobLocation::Unknown => None,
        BlobLocation::Stored(location) => Some(location),
        BlobLocation::OwnBlock { offset, len } => Some(Location { block: own, offset, len }),
        BlobLocation::OwnPack { block_offset, block_len, offset, len } => Some(Location {
            block: BlockLocation { pack: own.pack, offset: block_offset, len: block_len },
            offset,
            len,
        }),
    });
    assert_eq!(hints.collect::<Vec<_>>(), expected);
}

fn segments_of_nine() -> Vec<Segment> {
    let chunks = (0..8).map(|number| chunk(number, 100)).collect();
    vec![Segment::Raw(chunks), Segment::List { len: 5, node: NodeRef { id: NodeId([9; 32]), hint: None } }]
}

#[test]
fn snapshots() {
    let mut root = directory("root");
    root.name = ROOT_NAME.into();
    let EntryKind::Directory(dir) = &mut root.kind else { panic!("a directory") };
    let block = BlockLocation { pack: PackId([7; 32]), offset: 300, len: 70_000 };
    dir.root.hint = Some(Location { block, offset: 65_536, len: 900 });
    let snapshot = Snapshot {
        started: Timestamp { secs: 1_795_300_000, nanos: 5 },
        finished: Timestamp { secs: 1_795_300_009, nanos: 0 },
        set: "everyone".to_owned(),
        host: "backup-1".to_owned(),
        root,
        parents: vec![SnapshotId([3; 32])],
        keys: vec![KeyId([4; 16]), KeyId([5; 16])],
        summary: Summary {
            new: 1,
            changed: 2,
            moved: 3,
            deleted: 4,
            unchanged: 5,
            failed: 6,
            source_bytes: 7,
            added_bytes: 8,
            stored_bytes: 9,
        },
        failures: vec![Failure { path: b"Users/\xff".to_vec(), error: "permission denied".to_owned() }],
        source_state: BTreeMap::from([("delta".to_owned(), vec![1, 2, 3])]),
        source_parts: None,
        program: "strongroom 0.1.0".to_owned(),
    };
    let encoded = snapshot.encode();
    pin("snapshot", &encoded);
    let object = seal_stored(Purpose::Snapshot, &encoded);
    pin("snapshot-object", &object);
    let opened = sealed::open(&keys(Cipher::Aes256Siv), Purpose::Snapshot, object).expect("it opens");
    assert_eq!(Snapshot::decode(&opened), Ok(snapshot));
}

#[test]
fn configs() {
    let sizes = ChunkSizes { min: 4 << 10, avg: 16 << 10, max: 64 << 10 };
    for (cipher, archives, name) in [
        (Cipher::Aes256Siv, None, "config-aes-256-siv"),
        (Cipher::Aes256PmacSiv, None, "config-aes-256-pmac-siv"),
        (Cipher::Aes256Siv, Some(sizes), "config-archives"),
    ] {
        // Written out, because the defaults for new repositories may change without a change of the format.
        let id = RepositoryId([8; 16]);
        let config = Config {
            id,
            cipher,
            chunker: CHUNKER,
            block_size: 1 << 20,
            pack_size: 32 << 20,
            node_size: 32 << 10,
            archives,
        };
        let bytes = config.encode(&keys(cipher));
        pin(name, &bytes);
        assert_eq!(Config::decode(&bytes), Ok(config));
        assert_eq!(Config::verify(&bytes, &keys(cipher)), Ok(()));
    }
}

#[test]
fn key_slots() {
    let (master, keys) = (master(), keys(Cipher::Aes256Siv));
    let place = (RepositoryId([8; 16]), KeyId([4; 16]));
    let info = SlotInfo { created: 1_700_000_000, label: "golden".to_owned() };
    let recovery_text = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let recovery = RecoveryKey::parse(recovery_text.as_bytes()).expect("a recovery key");
    let recovered = Slot::for_recovery(place, (&master, &keys), &recovery, &info);
    pin("key-slot-recovery", &recovered);
    // The salt is random.
    let password = keep("key-slot-password", || {
        Slot::for_password(place, (&master, &keys), b"correct horse", CHEAP, &info).expect("a sane cost")
    });
    for (object, secret) in [(recovered, recovery_text), (password, "correct horse")] {
        let slot = Slot::decode(&object).expect("a slot");
        let opened = slot.open(place, secret.as_bytes());
        assert!(matches!(opened, OpenOutcome::Fits(found) if found.expose() == master.expose()), "it opens");
        assert_eq!(Slot::prove(&object, place, &keys), Ok((slot.kind, info.clone())));
    }
}

#[test]
fn chunk_boundaries() {
    let chunker = Chunker::new(CHUNKER, &keys(Cipher::Aes256Siv));
    let mut table = String::new();
    for (label, len) in [("small", 2 << 20), ("odd", (1 << 20) + 1), ("large", 40 << 20)] {
        let data = noise(label, len);
        let lens: Vec<_> = chunker.chunks(&data).map(|chunk| chunk.len().to_string()).collect();
        writeln!(table, "{label} {len}: {}", lens.join(" ")).expect("a string takes everything");
    }
    let zeros = vec![0; 1 << 20];
    let lens: Vec<_> = chunker.chunks(&zeros).map(|chunk| chunk.len().to_string()).collect();
    writeln!(table, "zeros {}: {}", zeros.len(), lens.join(" ")).expect("a string takes everything");
    pin_text("chunk-boundaries.txt", &table);
}

/// The files in the golden repository.
fn golden_files() -> [(&'static str, Vec<u8>); 3] {
    let attachment = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, noise("attachment", 2000));
    let lines: Vec<_> = attachment.as_bytes().chunks(76).map(|line| String::from_utf8_lossy(line)).collect();
    let mail = format!(
        "From: alice@example.com\r\nSubject: golden\r\nMIME-Version: 1.0\r\n\
         Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n",
        lines.join("\r\n")
    );
    [("empty", Vec::new()), ("mail.eml", mail.into_bytes()), ("folder/text", b"some text\n".repeat(20))]
}

/// Makes a whole repository in the form of version 1, with a snapshot and a removed key slot.
fn make_golden_repository(place: &Path) {
    let work = tempfile::tempdir().expect("a temporary folder");
    let source = work.path().join("source");
    for (name, bytes) in golden_files() {
        let path = source.join(name);
        std::fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("a folder");
        std::fs::write(path, bytes).expect("a file");
    }
    let options = CreateOptions { cost: CHEAP, ..CreateOptions::default() };
    let backend = Arc::new(Local::create(place).expect("a folder"));
    let (repository, _) = Repository::create(backend, b"golden", &options).expect("a repository");
    let repository = Arc::new(repository);
    let removed = repository.add_password(b"removed", CHEAP, "removed").expect("a slot");
    repository.remove_slot(&removed.to_string()).expect("it can be removed");
    let local = LocalState::open(work.path(), &repository).expect("local state");
    let options = BackupOptions { set: "golden".to_owned(), host: "host".to_owned() };
    let mut files = Files::new(&source, &[]);
    backup(&repository, local, &mut files, &options, &Progress::default(), &AtomicBool::new(false)).expect("a backup");
}

#[test]
fn golden_repository() {
    let place = path_of("repository");
    if blessing() && !place.exists() {
        make_golden_repository(&place);
    }
    let backend = Arc::new(Local::open(&place).expect("the golden repository"));
    let repository = Arc::new(Repository::open(backend, b"golden").expect("it opens"));
    let removed = repository.removed().expect("a gc record");
    assert_eq!((removed.keys.len(), removed.snapshots.len(), removed.unread), (1, 0, 0));
    let snapshots = repository.snapshots().expect("snapshots").readable;
    let [(_, snapshot)] = snapshots.as_slice() else { panic!("one snapshot") };
    let reader = repository.reader(Box::new(IndexSearch::new(repository.clone())), CacheSizes::default());
    for (name, bytes) in golden_files() {
        let found = find_path(&reader, snapshot.directory(), name.as_bytes()).expect("readable").expect(name);
        let content = found.entry().content().expect("a file");
        let mut read = Vec::new();
        reader.read(content, 0, bytes.len() + 1, &mut read).expect("readable");
        assert!(read == bytes, "{name}");
        let is_decoded = content.segments.iter().any(|segment| matches!(segment, Segment::Base64 { .. }));
        assert_eq!(is_decoded, name == "mail.eml");
    }
}

//! Archives by what is in them: Office documents and other zip files come back byte for byte whoever wrote them, a
//! changed document stores little, and no archive can do harm.

use crate::common;

use common::{Lab, fails, no_fuse, noise, run, text, tool, write};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use strongroom::format::entry::{Content, Segment};
use strongroom::repository::reader::CacheSizes;
use strongroom::repository::tree::{NodeSource, find_path};
use strongroom::repository::{IndexSearch, Repository};

/// Writes archives with Python's zlib, which is what most programs use: documents of parts that look like those of
/// Word, Excel and PowerPoint.
const MAKER: &str = r#"
import random, sys, zipfile
kind, level, seed, edits, out = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]
rng = random.Random(seed)
words = ["".join(rng.choices("abcdefghiklmnoprstuvwz", k=rng.randint(2, 11))) for _ in range(3000)]
HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\r\n<w:document xmlns:w="http://schemas.example/2006/main">'
def paragraph(i):
    text = " ".join(rng.choices(words, k=rng.randint(20, 90)))
    return f'<w:p w:rsidR="00{i:06X}"><w:pPr><w:spacing w:after="120"/></w:pPr><w:r><w:t xml:space="preserve">{text}</w:t></w:r></w:p>'
count = 300 if kind == "small" else 900
paragraphs = [paragraph(i) for i in range(count)]
styles = HEAD + "".join(f'<w:style w:styleId="S{i}"><w:name w:val="{rng.choice(words)}"/><w:sz w:val="{rng.randint(8, 40)}"/></w:style>' for i in range(min(count, 400)))
picture = b"\xff\xd8\xff\xe0" + rng.randbytes(30_000)
for edit in range(edits):
    at = (300 + edit) % count
    paragraphs[at] = paragraphs[at].replace("<w:t ", "<w:t  ", 1)
parts = [
    ("[Content_Types].xml", HEAD + "".join(f'<Override PartName="/word/{w}.xml"/>' for w in words[:30])),
    ("word/document.xml", HEAD + "".join(paragraphs)),
    ("word/styles.xml", styles),
    ("word/media/image1.jpeg", picture),
    ("docProps/core.xml", HEAD + f"<modified>{edits}</modified>" * 5),
]
class Pipe:
    "A file that cannot seek: sizes stand behind the data."
    def __init__(self, file): self.file = file
    def write(self, data): return self.file.write(data)
    def flush(self): self.file.flush()
with open(out, "wb") as file:
    target = Pipe(file) if kind == "stream" else file
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        for name, data in parts:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_STORED if name.endswith("jpeg") else zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=kind == "zip64") as member:
                member.write(data if isinstance(data, bytes) else data.encode())
"#;

/// Returns whether archives can be made here. If not, prints the reason.
pub fn can_make() -> bool {
    let runs = Command::new("python3").args(["-c", "import zlib, zipfile"]).output().is_ok_and(|o| o.status.success());
    if !runs {
        eprintln!("SKIPPED: needs python3 with zlib, which makes the archives");
    }
    runs
}

/// Writes a document that was edited `edits` times.
pub fn document(kind: &str, level: u32, seed: &str, edits: u32, out: &Path) {
    fs::create_dir_all(out.parent().unwrap()).unwrap();
    let (level, edits) = (level.to_string(), edits.to_string());
    let mut python = Command::new("python3");
    python.args(["-c", MAKER, kind, &level, seed, &edits]).arg(out);
    run(&mut python, 0);
}

fn mail_with(attachment: &[u8]) -> Vec<u8> {
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, attachment);
    let lines: Vec<_> = encoded.as_bytes().chunks(76).map(String::from_utf8_lossy).collect();
    let head = "From: alice@example.com\r\nSubject: a document\r\nMIME-Version: 1.0\r\nContent-Type: \
                application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n";
    format!("{head}{}\r\n", lines.join("\r\n")).into_bytes()
}

/// Returns a laboratory whose repository stores archives by their content.
pub fn lab_by_content() -> Lab {
    let lab = Lab::empty();
    lab.run(["init", "--password-memory", "1", "--archives", "by-content"], 0);
    lab
}

/// A repository that is read through the library.
struct Opened {
    repository: Arc<Repository>,
}

impl Opened {
    fn of(lab: &Lab) -> Self {
        Self { repository: Arc::new(lab.open()) }
    }

    /// Returns the content of a file of the newest snapshot.
    fn content(&self, path: &str) -> Content {
        let reader = self.reader();
        let snapshots = self.repository.snapshots().unwrap().readable;
        let (_, newest) = snapshots.iter().max_by_key(|(_, snapshot)| snapshot.started).unwrap();
        let found = find_path(&reader, newest.directory(), path.as_bytes()).unwrap().expect(path);
        found.entry().content().expect("a file").clone()
    }

    fn reader(&self) -> strongroom::repository::reader::Reader {
        self.repository.reader(Box::new(IndexSearch::new(self.repository.clone())), CacheSizes::default())
    }

    /// Returns whether a file of the newest snapshot, or an attachment in it, was taken apart.
    fn is_apart(&self, path: &str) -> bool {
        self.content(path).segments.iter().any(|segment| match segment {
            Segment::Deflated { .. } => true,
            Segment::Base64Of { segments, .. } => matches!(segments[..], [Segment::Deflated { .. }]),
            _ => false,
        })
    }
}

/// Returns the files below a folder.
fn files_of(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names.iter().map(|name| (name.to_str().unwrap().to_owned(), fs::read(root.join(name)).unwrap())).collect()
}

/// Asserts that a restore gives back every file of `source` byte for byte.
#[track_caller]
fn assert_restores(lab: &Lab, source: &Path) {
    let out = lab.path(format!("out {}", lab.objects().len()));
    lab.run(args!["restore", "latest", "--to", format!("local:{}", out.display())], 0);
    let (expected, found) = (files_of(source), files_of(&out));
    assert_eq!(expected.len(), found.len());
    for ((name, bytes), (other, restored)) in expected.iter().zip(&found) {
        assert_eq!(name, other);
        assert!(bytes == restored, "{name} came back changed");
    }
    lab.run(["check", "--read-data"], 0);
}

#[test]
fn archives_of_several_programs_come_back_byte_for_byte() {
    if !can_make() {
        return;
    }
    let lab = lab_by_content();
    let source = lab.dir("source");
    for (kind, level) in [("plain", 6), ("plain", 1), ("plain", 9), ("stream", 6), ("zip64", 6)] {
        document(kind, level, "a", 0, &source.join(format!("{kind}-{level}.docx")));
    }
    let apart: Vec<_> = files_of(&source).into_iter().map(|(name, _)| name).collect();
    // Other programs, where they are installed. They have compressors of their own, so their streams may stay.
    let parts = lab.dir("parts");
    write(&parts.join("one.xml"), format!("<a>{}</a>", "some words that repeat and vary ".repeat(3000)));
    write(&parts.join("two.bin"), noise(7, 50_000));
    for (program, words) in [("zip", &["-q"][..]), ("7z", &["a", "-tzip", "-bso0"]), ("jar", &["cf"])] {
        let out = source.join(format!("{program}.zip"));
        let made =
            Command::new(program).args(words).arg(&out).args(["one.xml", "two.bin"]).current_dir(&parts).output();
        if made.is_err() {
            eprintln!("without {program}, which is not installed");
        }
    }
    let document = fs::read(source.join("plain-6.docx")).unwrap();
    write(&source.join("mail.eml"), mail_with(&document));
    write(&source.join("empty.zip"), b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    lab.backup(&source, "home");

    let opened = Opened::of(&lab);
    for name in apart.iter().map(String::as_str).chain(["mail.eml"]) {
        assert!(opened.is_apart(name), "{name} was not taken apart");
    }
    assert_restores(&lab, &source);
    assert_eq!(lab.run(["cat", "latest:plain-6.docx"], 0).stdout, document);

    // Any range, in any order.
    let reader = opened.reader();
    for (name, bytes) in files_of(&source) {
        let content = opened.content(&name);
        for number in 0..60 {
            let start = (number * 7919 * 31) % bytes.len();
            let len = [1, 17, 4096, 70_000][number % 4];
            let mut read = Vec::new();
            reader.read(&content, start as u64, len, &mut read).unwrap();
            assert!(read == bytes[start..bytes.len().min(start + len)], "{name} from {start}");
        }
    }
}

#[test]
fn the_mount_gives_any_range_of_an_archive() {
    if no_fuse() || !can_make() {
        return;
    }
    let lab = lab_by_content();
    let source = lab.dir("source");
    document("plain", 6, "a", 0, &source.join("a.docx"));
    let bytes = fs::read(source.join("a.docx")).unwrap();
    write(&source.join("mail.eml"), mail_with(&bytes));
    lab.backup(&source, "home");
    assert!(Opened::of(&lab).is_apart("a.docx"));
    let mount = lab.mount(&["--snapshot", "latest"]);
    let file = fs::File::open(mount.path("a.docx")).unwrap();
    for start in (0..bytes.len()).step_by(bytes.len() / 40).rev() {
        let mut read = vec![0; 900.min(bytes.len() - start)];
        file.read_exact_at(&mut read, start as u64).unwrap();
        assert!(read == bytes[start..start + read.len()], "from {start}");
    }
    assert_eq!(fs::read(mount.path("mail.eml")).unwrap(), fs::read(source.join("mail.eml")).unwrap());
    // As other programs read it.
    tool("python3", args!["-m", "zipfile", "-t", mount.path("a.docx")]);
    drop(file);
    mount.unmount();
}

/// Returns how many bytes a repository stores for a second version of a document, as a file and in a mail.
fn second_version(archives: &str) -> (u64, u64) {
    let lab = Lab::empty();
    lab.run(["init", "--password-memory", "1", "--archives", archives], 0);
    let source = lab.dir("source");
    let mut stored = Vec::new();
    for edits in [0, 1] {
        let path = source.join("a.docx");
        document("plain", 6, "a", edits, &path);
        write(&source.join("mail.eml"), mail_with(&fs::read(&path).unwrap()));
        let report = lab.backup(&source, "home");
        stored.push(report["bytes"]["stored"].as_u64().unwrap());
        assert_eq!(Opened::of(&lab).is_apart("a.docx"), archives == "by-content");
        assert_restores(&lab, &source);
    }
    (stored[0], stored[1])
}

#[test]
fn a_changed_document_stores_little_more_than_the_change() {
    if !can_make() {
        return;
    }
    let ((first, second), (first_whole, second_whole)) = (second_version("by-content"), second_version("whole"));
    assert!(first < first_whole, "the first version takes {first} bytes, as it is {first_whole}");
    assert!(second * 5 < second_whole, "the second version takes {second} bytes, as it is {second_whole}");
}

#[test]
fn a_repository_without_the_feature_stays_as_it_is() {
    if !can_make() {
        return;
    }
    let lab = Lab::new();
    let source = lab.dir("source");
    document("plain", 6, "a", 0, &source.join("a.docx"));
    lab.backup(&source, "home");
    let opened = Opened::of(&lab);
    assert!(opened.repository.config().archives.is_none() && !opened.is_apart("a.docx"));
    assert_restores(&lab, &source);
}

#[test]
fn the_configuration_says_how_a_new_repository_stores_archives() {
    let lab = Lab::empty();
    let config = lab.path("strongroom.toml");
    let written = |archives: &str| format!("[repositories.main]\nurl = \"repository\"\narchives = \"{archives}\"\n");
    write(&config, written("inside out"));
    let init = || {
        let mut init = lab.command(["init", "--password-memory", "1", "--repo", "main", "--config"]);
        init.arg(&config);
        init
    };
    let said = fails(&mut init(), 2);
    assert!(said.contains("by-content"), "{said}");
    write(&config, written("by-content"));
    run(&mut init(), 0);
    assert!(lab.open().config().archives.is_some());
    let help = run(lab.command(["init"]).args(["--archives", "inside-out"]), 2);
    assert!(text(&help.stderr).contains("[possible values: by-content, whole]"), "{}", text(&help.stderr));
}

/// Writes archives that want too much, or lie.
const HOSTILE: &str = r#"
import struct, sys, zipfile, zlib
from pathlib import Path
out = Path(sys.argv[1])
def archive(name, parts):
    with zipfile.ZipFile(out / name, "w", zipfile.ZIP_DEFLATED) as file:
        for part, data in parts:
            file.writestr(part, data)
text = ("<a>some words that repeat, and numbers such as %d</a>" * 900 % tuple(range(900))).encode()
archive("bomb.zip", [("zeros", bytes(200 << 20))])
archive("many bombs.zip", [(f"zeros {i}", bytes(4 << 20)) for i in range(40)])
archive("thousands.zip", [(f"{i}.txt", text[: 300 + i % 200]) for i in range(12_000)])
archive("good.zip", [("a.xml", text), ("b.xml", text[::-1])])
good = (out / "good.zip").read_bytes()
(out / "truncated.zip").write_bytes(good[:-30])
(out / "half.zip").write_bytes(good[: len(good) // 2])
(out / "in front.zip").write_bytes(b"in front" + good)
at = good.index(b"PK\x01\x02")
def lie(name, offset, value):
    lied = bytearray(good)
    struct.pack_into("<I", lied, at + offset, value)
    (out / name).write_bytes(lied)
lie("too short.zip", 24, 1000)
lie("too long.zip", 24, 3 << 20)
lie("far too long.zip", 24, 0xFFFFFFF0)
lie("overlapping.zip", 20, struct.unpack_from("<I", good, at + 20)[0] + 40)
lie("outside.zip", 42, len(good) + 5)
flipped = bytearray(good)
flipped[200] ^= 0x10
(out / "flipped.zip").write_bytes(flipped)
# A stream of empty stored blocks, which holds nothing.
empty = b"\x00\x00\x00\xff\xff" * 4000 + b"\x01\x00\x00\xff\xff"
local = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 8, 0, 0, 0, len(empty), 50_000, 1, 0) + b"e"
central = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 8, 0, 0, 0, len(empty), 50_000, 1, 0, 0, 0, 0, 0, 0) + b"e"
end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(central), len(local) + len(empty), 0)
(out / "empty blocks.zip").write_bytes(local + empty + central + end)
# A document in a document, stored and deflated.
with zipfile.ZipFile(out / "nested.zip", "w") as file:
    file.writestr("stored.docx", good)
    file.writestr("deflated.docx", good, zipfile.ZIP_DEFLATED)
"#;

#[test]
fn hostile_archives_do_no_harm() {
    if !can_make() {
        return;
    }
    let lab = lab_by_content();
    let source = lab.dir("source");
    run(Command::new("python3").args(["-c", HOSTILE]).arg(&source), 0);
    for (name, bytes) in files_of(&source) {
        if bytes.len() < 1 << 20 {
            write(&source.join(format!("{name}.eml")), mail_with(&bytes));
        }
    }
    lab.backup(&source, "home");
    let opened = Opened::of(&lab);
    for name in ["good.zip", "good.zip.eml", "nested.zip"] {
        assert!(opened.is_apart(name), "{name}");
    }
    for name in ["bomb.zip", "thousands.zip", "truncated.zip", "in front.zip", "overlapping.zip", "outside.zip"] {
        assert!(!opened.is_apart(name), "{name}");
    }
    assert_restores(&lab, &source);
}

#[test]
fn a_damaged_chunk_of_a_member_costs_the_files_that_hold_it() {
    if !can_make() {
        return;
    }
    let lab = lab_by_content();
    let source = lab.dir("source");
    for seed in ["a", "b"] {
        document("plain", 6, seed, 0, &source.join(format!("{seed}.docx")));
        // Each document gets packs of its own.
        lab.backup(&source, "home");
    }
    let opened = Opened::of(&lab);
    let content = opened.content("a.docx");
    let Some(Segment::Deflated { material, .. }) = content.segments.first() else { panic!("{content:?}") };
    let [Segment::List { node, .. }] = &material[..] else { panic!("{material:?}") };
    let listed = opened.reader().node(node).unwrap();
    let strongroom::format::node::NodeKind::List(segments) = &listed.kind else { panic!("no list") };
    let last = segments.iter().flat_map(Segment::chunks).last().unwrap().hint.unwrap().block;
    let name = last.pack.to_string();
    let pack = lab.repository().join("packs").join(&name[..2]).join(&name);
    let mut bytes = fs::read(&pack).unwrap();
    bytes[(last.offset + last.len / 2) as usize] ^= 1;
    fs::write(&pack, bytes).unwrap();

    let report = lab.json_with_exit(["check", "--read-data"], 13);
    assert!(report.to_string().contains("a.docx") && !report.to_string().contains("b.docx"), "{report}");
    let said = text(&lab.run(["cat", "latest:a.docx"], 13).stderr);
    assert!(said.contains("failed authentication"), "{said}");
    let whole = fs::read(source.join("b.docx")).unwrap();
    assert_eq!(lab.run(["cat", "latest:b.docx"], 0).stdout, whole);
}

/// The text of a mail, its restore and its place in the repository do not depend on how attachments are stored.
#[test]
fn the_same_attachment_in_two_mails_and_a_folder_is_stored_once() {
    if !can_make() {
        return;
    }
    let lab = lab_by_content();
    let source = lab.dir("source");
    let path: PathBuf = source.join("a.docx");
    document("plain", 6, "a", 0, &path);
    lab.backup(&source, "home");
    let document = fs::read(&path).unwrap();
    for number in 0..20 {
        let mail = [format!("X-Number: {number}\r\n").as_bytes(), &mail_with(&document)].concat();
        write(&source.join(format!("{number}.eml")), mail);
    }
    let report = lab.backup(&source, "home");
    let stored = report["bytes"]["stored"].as_u64().unwrap();
    assert!(stored < document.len() as u64 / 4, "{stored} bytes for 20 mails with a document of {}", document.len());
    assert_restores(&lab, &source);
}

//! The format page is enough to read a repository. `tools/reader` was written from docs/repository-format.md in another
//! language. It extracts what the library stored: by hints alone, by index objects alone and by pack footers alone.

use crate::archives;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, UNIX_EPOCH};
use strongroom::backend::local::Local;
use strongroom::backup::{BackupOptions, Progress, Report, backup};
use strongroom::format::config::Archives;
use strongroom::format::deflate::{Limits, take_apart};
use strongroom::format::entry::Segment;
use strongroom::format::keyslot::PasswordCost;
use strongroom::repository::local_state::LocalState;
use strongroom::repository::reader::CacheSizes;
use strongroom::repository::tree::find_path;
use strongroom::repository::{CreateOptions, IndexSearch, Repository};
use strongroom::source::files::Files;

const PASSWORD: &str = "pässword";
const PACKAGES: &str = "import blake3, cbor2, zstandard, cryptography.hazmat.primitives.kdf.argon2";

/// Returns whether the reader can run here. If not, prints the reason.
fn can_run() -> bool {
    let runs = Command::new("python3").args(["-c", PACKAGES]).output().is_ok_and(|output| output.status.success());
    if !runs {
        eprintln!("skipped: needs python3 (3.11) with the packages blake3, cbor2, cryptography and zstandard");
    }
    runs
}

fn reader(command: &str, repository: &Path, password: &str) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/reader/strongroom_reader.py");
    let mut python = Command::new("python3");
    python.env("STRONGROOM_PASSWORD", password).arg("-B").arg(script).arg(command).arg(repository);
    python
}

fn run(command: &mut Command) -> Output {
    let output = command.output().expect("python3 runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn noise(label: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(label.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn mail(subject: &str, attachment: &[u8], line_len: usize, eol: &str) -> Vec<u8> {
    let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, attachment);
    let lines: Vec<_> = text.as_bytes().chunks(line_len).map(String::from_utf8_lossy).collect();
    let head = ["From: alice@example.com", &format!("Subject: {subject}"), "MIME-Version: 1.0"].join(eol);
    let part = ["Content-Type: application/pdf", "Content-Transfer-Encoding: base64"].join(eol);
    format!("{head}{eol}{part}{eol}{eol}{}", lines.join(eol)).into_bytes()
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("a folder");
    fs::write(path, bytes).expect("a file");
}

/// Makes a folder with everything that the format treats differently. The second version differs a little from the
/// first.
fn make_source(root: &Path, version: u32) {
    let document = noise("document", 100_000);
    write(&root.join("document.pdf"), &document);
    write(&root.join("mail/crlf.eml"), &[mail("crlf", &document, 76, "\r\n"), b"\r\n".to_vec()].concat());
    write(&root.join("mail/bare lf.eml"), &mail("lf", &document[..50_001], 60, "\n"));
    write(&root.join("mail/one line.eml"), &mail("one", &document[..49_999], usize::MAX, "\n"));
    write(&root.join("mail/broken.eml"), &[mail("broken", &document, 76, "\r\n"), b"=!\r\n\r\n".to_vec()].concat());
    write(&root.join("mail/giant.eml"), &mail("giant", &noise("giant", 14 << 20), 76, "\r\n"));
    let mut big = noise("big", 14 << 20);
    big[5 << 20] ^= version as u8;
    write(&root.join("big"), &big);
    if archives::can_make() {
        archives::document("small", 6, "a", version, &root.join("a.docx"));
        let document = fs::read(root.join("a.docx")).expect("it was made");
        write(&root.join("mail/document.eml"), &mail("document", &document, 76, "\r\n"));
    }
    write(&root.join("empty"), b"");
    write(&root.join(format!("only in {version}")), b"text\n");
    for number in 0..3000 {
        let text = format!("{number} {}\n", if number == 1500 { version } else { 0 });
        write(&root.join(format!("many/{number}")), text.as_bytes());
    }
    write(&root.join("deep/".repeat(30)).join("bottom"), b"reached");
    fs::create_dir(root.join("no files")).expect("a folder");
    let odd =
        [b"new\nline".as_slice(), b"\xff\xfe\x01", "é".as_bytes(), "e\u{301}".as_bytes(), b"dot. ", b"...", b"-rf"];
    for name in odd.into_iter().chain([&[b'n'; 255][..]]) {
        write(&root.join("odd").join(OsStr::from_bytes(name)), name);
    }
    symlink("document.pdf", root.join("link")).expect("a link");
    fs::hard_link(root.join("document.pdf"), root.join("deep/linked.pdf")).expect("a link");
    fs::hard_link(root.join("document.pdf"), root.join("linked.pdf")).expect("a link");
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), fifo, 0o600.into(), 0).expect("a pipe");
    drop(std::os::unix::net::UnixListener::bind(root.join("odd/socket")).expect("a socket"));
    for (path, value) in [("empty", &b"short"[..]), ("many", &[7; 3000])] {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(root.join(path), "user.note", value, flags).expect("an attribute");
    }
    symlink(OsStr::from_bytes(b"/nowhere/\xff"), root.join("odd/dangling")).expect("a link");
    symlink("../many", root.join("odd/to a folder")).expect("a link");

    fs::set_permissions(root.join("empty"), Permissions::from_mode(0o400)).expect("it is ours");
    fs::set_permissions(root.join("many"), Permissions::from_mode(0o2750)).expect("it is ours");
    let times = [("document.pdf", 1_000_000_000), ("big", 0), ("many", 1)];
    for (name, seconds) in times {
        let moment = UNIX_EPOCH + Duration::new(seconds, 123_456_789);
        File::open(root.join(name)).expect("it is there").set_modified(moment).expect("it is ours");
    }
    let before_the_epoch = UNIX_EPOCH - Duration::new(86_400, 1);
    File::open(root.join("odd")).expect("it is there").set_modified(before_the_epoch).expect("it is ours");
}

/// The facts of a file that an extraction must give back.
#[derive(Debug, PartialEq)]
struct Facts {
    mode: u32,
    mtime: (i64, i64),
    link: Option<PathBuf>,
    links: u64,
    attribute: Option<Vec<u8>>,
    /// Hash of the bytes.
    content: Option<blake3::Hash>,
}

fn attribute_of(path: &Path) -> Option<Vec<u8>> {
    let mut value = vec![0; 4096];
    let len = rustix::fs::lgetxattr(path, "user.note", value.as_mut_slice()).ok()?;
    value.truncate(len);
    Some(value)
}

fn facts_of(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let stat = fs::symlink_metadata(&path).expect("it is there");
        if stat.is_dir() {
            waiting.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        }
        let facts = Facts {
            mode: stat.mode(),
            mtime: (stat.mtime(), stat.mtime_nsec()),
            link: fs::read_link(&path).ok(),
            links: if stat.is_file() { stat.nlink() } else { 0 },
            attribute: attribute_of(&path),
            content: stat.is_file().then(|| blake3::hash(&fs::read(&path).expect("readable"))),
        };
        all.insert(path.strip_prefix(root).expect("under the root").to_owned(), facts);
    }
    all
}

fn back_up(repository: &Arc<Repository>, state: &Path, source: &Path) -> Report {
    let local = LocalState::open(state, repository).expect("local state");
    let options = BackupOptions { set: "everyone".to_owned(), host: "host".to_owned() };
    let mut files = Files::new(source, &[]);
    backup(repository, local, &mut files, &options, &Progress::default(), &AtomicBool::new(false)).expect("a backup")
}

/// Asserts that the files are stored in the intended ways. Otherwise the test proves little.
fn assert_variety(repository: &Arc<Repository>, report: &Report) {
    let reader = repository.reader(Box::new(IndexSearch::new(repository.clone())), CacheSizes::default());
    let segments = |path: &str| {
        let found = find_path(&reader, report.snapshot.directory(), path.as_bytes()).expect("readable").expect(path);
        found.entry().content().expect("a file").segments.clone()
    };
    for path in ["big", "mail/giant.eml"] {
        assert!(segments(path).iter().all(|segment| matches!(segment, Segment::List { .. })), "{path}");
    }
    for path in ["mail/crlf.eml", "mail/bare lf.eml", "mail/one line.eml", "mail/broken.eml"] {
        assert!(segments(path).iter().any(|segment| matches!(segment, Segment::Base64 { .. })), "{path}");
    }
    if archives::can_make() {
        assert!(matches!(segments("a.docx")[..], [Segment::Deflated { .. }]));
        assert!(segments("mail/document.eml").iter().any(|segment| matches!(segment, Segment::Base64Of { .. })));
    }
}

#[test]
fn the_independent_reader_gives_back_what_was_stored() {
    if !can_run() {
        return;
    }
    let work = tempfile::tempdir().expect("a temporary folder");
    let place = work.path().join("repository");
    let backend = Arc::new(Local::create(&place).expect("a folder"));
    let cost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };
    let options = CreateOptions { cost, archives: Archives::ByContent, ..CreateOptions::default() };
    let (repository, recovery) = Repository::create(backend, PASSWORD.as_bytes(), &options).expect("a repository");
    let repository = Arc::new(repository);
    let mut snapshots = Vec::new();
    for version in [1, 2] {
        let source = work.path().join(format!("source {version}"));
        make_source(&source, version);
        let report = back_up(&repository, work.path(), &source);
        assert!(report.failures.is_empty() && report.skipped.is_empty());
        snapshots.push((report, facts_of(&source)));
    }
    assert_variety(&repository, &snapshots[1].0);

    let listed = run(&mut reader("list", &place, &recovery.reveal()));
    let listed: Vec<_> = listed.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    assert_eq!(listed.len(), 2);
    for (line, (report, _)) in listed.iter().zip(&snapshots) {
        assert!(line.starts_with(report.id.to_string().as_bytes()));
    }
    let shown = run(reader("ls", &place, PASSWORD).arg("latest")).stdout;
    assert!(shown.windows(9).any(|window| window == b"only in 2"));
    assert!(!shown.windows(9).any(|window| window == b"only in 1"));

    for how in ["--index", "--footers", "--hints"] {
        for (number, (report, expected)) in snapshots.iter().enumerate() {
            let out = work.path().join(format!("out {how} {number}"));
            let mut command = reader("extract", &place, PASSWORD);
            command.arg(report.id.short()).arg(&out);
            // The reader uses hints by default.
            run(if how == "--hints" { &mut command } else { command.arg(how) });
            let found = facts_of(&out);
            for (path, facts) in expected {
                assert_eq!(found.get(path), Some(facts), "{how} {}", path.display());
            }
            assert_eq!(found.len(), expected.len());
        }
        // From here on the reader must do without the index objects.
        let index = place.join("index");
        if index.exists() {
            fs::remove_dir_all(index).expect("it is ours");
        }
    }
}

#[test]
fn the_independent_reader_refuses_what_is_not_authentic() {
    if !can_run() {
        return;
    }
    let work = tempfile::tempdir().expect("a temporary folder");
    let place = work.path().join("repository");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/v1/repository");
    run(Command::new("cp").arg("-r").arg(&golden).arg(&place));
    run(reader("extract", &place, "golden").arg("latest").arg(work.path().join("whole")));
    assert!(!reader("list", &place, "another").output().expect("python3 runs").status.success());

    let objects: Vec<_> = facts_of(&place).into_iter().filter(|(_, facts)| facts.content.is_some()).collect();
    for (number, (path, _)) in objects.iter().enumerate() {
        let folder = path.components().next().expect("a name").as_os_str().to_owned();
        if !["config", "packs", "snapshots"].iter().any(|kind| folder == *kind) {
            continue;
        }
        let path = place.join(path);
        let whole = fs::read(&path).expect("readable");
        let mut damaged = whole.clone();
        *damaged.last_mut().expect("no object is empty") ^= 1;
        fs::write(&path, damaged).expect("it is ours");
        let out = work.path().join(number.to_string());
        let output = reader("extract", &place, "golden").arg("latest").arg(out).output().expect("python3 runs");
        assert_eq!(output.status.code(), Some(1), "{}", path.display());
        fs::write(&path, whole).expect("it is ours");
    }
}

/// The re-creator of deflate streams, written from "Deflated streams" of the page alone, makes all golden streams.
#[test]
fn deflated_streams_are_made_again_by_the_page_alone() {
    if !can_run() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let vectors = |name: &str| -> Vec<(String, Vec<u8>)> {
        let text = std::fs::read_to_string(root.join("tests/vectors/v1").join(name)).unwrap();
        let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let parts = text.lines().map(|line| line.split_once(' ').expect("a name and bytes"));
        parts.map(|(name, hex)| (name.to_owned(), hex.as_bytes().chunks(2).map(digits).collect())).collect()
    };
    let folder = tempfile::tempdir().unwrap();
    let (plain, corrections) = (folder.path().join("plain"), folder.path().join("corrections"));
    let streams = [vectors("deflate-streams.txt"), vectors("deflate-others.txt")].concat();
    for ((name, stream), (_, bytes)) in streams.iter().zip(vectors("deflate-corrections.txt")) {
        let limits = Limits { plain_max: 1 << 20, ratio_max: 1000 };
        std::fs::write(&plain, take_apart(stream, &limits).expect("a stream").plain).unwrap();
        std::fs::write(&corrections, bytes).unwrap();
        let mut python = Command::new("python3");
        python.arg("-B").arg(root.join("tools/reader/deflated_stream.py")).arg(&plain).arg(&corrections);
        assert!(run(&mut python).stdout == *stream, "{name}");
    }
}

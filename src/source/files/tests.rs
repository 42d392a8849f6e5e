//! Walks through real folders, also through folders that change at the worst moment.

use super::*;
use crate::source::Content;
use rustix::fs::CWD;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;

fn write(path: impl AsRef<Path>, content: &str) {
    fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn read(content: &dyn Content) -> io::Result<String> {
    let mut text = String::new();
    content.open()?.read_to_string(&mut text)?;
    Ok(text)
}

/// What a walk reported, by path. The contents are read after the walk.
#[derive(Default)]
struct Told {
    files: BTreeMap<String, Box<dyn Content>>,
    folders: Vec<String>,
    failed: BTreeMap<String, String>,
    skipped: BTreeMap<String, &'static str>,
    depth: usize,
}

impl Told {
    fn take(&mut self, event: Event) {
        let text = |path: Vec<u8>| String::from_utf8(path).unwrap();
        match event {
            Event::Enter { path, .. } => {
                self.folders.push(text(path));
                self.depth += 1;
            }
            Event::Leave => self.depth -= 1,
            Event::Item(item) => {
                if let ItemKind::File { content, .. } = item.kind {
                    self.files.insert(text(item.path), content);
                }
            }
            Event::Failed { path, error, .. } => drop(self.failed.insert(text(path), error)),
            Event::Skipped { path, reason } => drop(self.skipped.insert(text(path), reason)),
        }
    }

    fn read_all(&self) -> BTreeMap<String, Result<String, String>> {
        let read = |content: &dyn Content| read(content).map_err(|error| error.to_string());
        self.files.iter().map(|(path, content)| (path.clone(), read(&**content))).collect()
    }
}

/// Walks, and calls `change` before each event is taken.
fn walk(files: &mut Files, mut change: impl FnMut(&Event)) -> Told {
    let mut told = Told::default();
    let walked = files.walk(&mut |event| {
        change(&event);
        told.take(event);
        ControlFlow::Continue(())
    });
    assert_eq!(walked.unwrap(), ControlFlow::Continue(()));
    assert_eq!(told.depth, 0);
    told
}

fn entered(event: &Event, wanted: &str) -> bool {
    matches!(event, Event::Enter { path, .. } if path == wanted.as_bytes())
}

fn met(event: &Event, wanted: &str) -> bool {
    matches!(event, Event::Item(item) if item.path == wanted.as_bytes())
}

#[test]
fn a_folder_that_becomes_a_link_does_not_lead_out_of_the_source() {
    let lab = TempDir::new().unwrap();
    let (source, elsewhere) = (lab.path().join("source"), lab.path().join("elsewhere"));
    write(source.join("a/deep/file"), "inside");
    write(source.join("z"), "inside");
    write(elsewhere.join("deep/file"), "secret");
    write(elsewhere.join("z"), "secret");
    // The folder is replaced during the walk.
    let told = walk(&mut Files::new(&source, &[]), |event| {
        if entered(event, "a") {
            fs::rename(source.join("a"), lab.path().join("moved")).unwrap();
            symlink(&elsewhere, source.join("a")).unwrap();
        }
    });
    let inside = Ok("inside".to_owned());
    assert_eq!(told.read_all(), [("a/deep/file".to_owned(), inside.clone()), ("z".to_owned(), inside)].into());
    // The folder is replaced before its content is read, after its descriptor was closed.
    fs::remove_file(source.join("a")).unwrap();
    fs::rename(lab.path().join("moved"), source.join("a")).unwrap();
    for number in 0..300 {
        write(source.join(format!("b/{number}/file")), "inside");
    }
    let told = walk(&mut Files::new(&source, &[]), |_| {});
    fs::rename(source.join("a"), lab.path().join("moved")).unwrap();
    symlink(&elsewhere, source.join("a")).unwrap();
    fs::rename(source.join("b/0"), lab.path().join("moved too")).unwrap();
    write(source.join("b/0/file"), "another folder");
    let read = told.read_all();
    assert!(read["a/deep/file"].is_err(), "{read:?}");
    assert!(read["b/0/file"].as_ref().is_err_and(|error| error.contains("another folder")), "{read:?}");
    assert_eq!(read.values().filter(|read| read.is_ok()).count(), 300);
}

#[test]
fn a_pipe_that_replaces_a_file_is_not_waited_for() {
    let lab = TempDir::new().unwrap();
    let source = lab.path().join("source");
    write(source.join("pipe"), "file");
    write(source.join("link"), "file");
    write(source.join("folder"), "file");
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let told = walk(&mut Files::new(&source, &[]), |event| {
            let replaced = ["pipe", "link", "folder"].into_iter().find(|name| met(event, name));
            let Some(name) = replaced else { return };
            let path = source.join(name);
            fs::remove_file(&path).unwrap();
            match name {
                "pipe" => rustix::fs::mknodat(CWD, &path, FileType::Fifo, 0o600.into(), 0).unwrap(),
                "link" => symlink("/etc/passwd", &path).unwrap(),
                _ => fs::create_dir(&path).unwrap(),
            }
        });
        done.send(told.read_all()).unwrap();
    });
    let read = ended.recv_timeout(Duration::from_secs(60)).expect("nothing waits for a writer of the pipe");
    assert!(read.len() == 3 && read.values().all(Result::is_err), "{read:?}");
}

#[test]
fn a_file_is_described_as_it_was_opened() {
    use std::os::unix::fs::PermissionsExt;
    let lab = TempDir::new().unwrap();
    write(lab.path().join("file"), "open to all");
    let told = walk(&mut Files::new(lab.path(), &[]), |event| {
        if met(event, "file") {
            fs::remove_file(lab.path().join("file")).unwrap();
            write(lab.path().join("file"), "for the owner");
            fs::set_permissions(lab.path().join("file"), fs::Permissions::from_mode(0o600)).unwrap();
        }
    });
    let content = &told.files["file"];
    assert_eq!(read(&**content).unwrap(), "for the owner");
    assert_eq!(content.meta().unwrap().mode, Some(0o600));
    let (before, after) = content.stamps();
    assert!(!before.is_empty() && before == after);
    fs::write(lab.path().join("file"), "changed").unwrap();
    let (before, after) = content.stamps();
    assert_ne!(before, after);
}

#[test]
fn deep_trees_need_few_descriptors_and_no_short_paths() {
    const DEPTH: usize = DEPTH_MAX + 10;
    let lab = TempDir::new().unwrap();
    // The whole path is longer than the system takes in one call.
    let name = "a".repeat(5);
    let mut folder = rustix::fs::open(lab.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..DEPTH {
        let flags = OFlags::WRONLY | OFlags::CREATE;
        rustix::fs::openat(&folder, "z", flags, Mode::RWXU).unwrap();
        rustix::fs::mkdirat(&folder, &name, Mode::RWXU).unwrap();
        folder = rustix::fs::openat(&folder, &name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    let small_stack = std::thread::Builder::new().stack_size(256 << 10);
    let (told, most) = std::thread::scope(|scope| {
        let run = || {
            let mut most = 0;
            let told = walk(&mut Files::new(lab.path(), &[]), |event| {
                if matches!(event, Event::Enter { path, .. } if path.len() % 600 < 6) {
                    most = most.max(descriptors());
                }
            });
            let read = told.read_all();
            assert!(read.values().all(|read| *read == Ok(String::new())));
            (told, most)
        };
        small_stack.spawn_scoped(scope, run).unwrap().join().unwrap()
    });
    // Other tests in this process open files at the same time.
    assert!(most > before && most < before + 800, "{before} descriptors, then {most}");
    assert_eq!((told.folders.len(), told.files.len()), (DEPTH_MAX - 1, DEPTH_MAX));
    assert_eq!(told.failed.values().collect::<Vec<_>>(), ["it lies deeper than 2048 folders"]);
    // The whole path is too long for `remove_dir_all`.
    drop(told);
    let mut at = lab.path().to_owned();
    for step in 0..DEPTH {
        let _ = fs::remove_file(at.join("z"));
        let next = lab.path().join(format!("up {step}"));
        fs::rename(at.join(&name), &next).unwrap();
        if at != lab.path() {
            fs::remove_dir(&at).unwrap();
        }
        at = next;
    }
}

fn options(change: impl FnOnce(&mut Options)) -> Options {
    let mut options = Options::default();
    change(&mut options);
    options
}

fn exclude(patterns: &[&str]) -> Options {
    let patterns: Vec<_> = patterns.iter().map(|pattern| pattern.as_bytes().to_vec()).collect();
    options(|options| options.exclude = Exclusions::new(&patterns, &[]).unwrap())
}

#[test]
fn excluded_entries_are_not_even_looked_at() {
    let lab = TempDir::new().unwrap();
    for path in ["a.tmp", "keep", "cache/x", "sub/cache/y", "sub/keep.tmp", "sub/deep/z"] {
        write(lab.path().join(path), path);
    }
    let mut files =
        Files::of_all(&[lab.path().to_owned()], &[], exclude(&["*.tmp", "!keep.tmp", "/cache", "sub/deep/"]));
    let told = walk(&mut files, |_| {});
    assert_eq!(told.files.keys().collect::<Vec<_>>(), ["keep", "sub/cache/y", "sub/keep.tmp"]);
    assert_eq!(told.folders, ["sub", "sub/cache"]);
    assert!(told.failed.is_empty() && told.skipped.is_empty());
}

#[test]
fn caches_and_marked_folders_keep_their_mark_alone() {
    let lab = TempDir::new().unwrap();
    let signature = std::str::from_utf8(CACHE_SIGNATURE).unwrap();
    write(lab.path().join("cache/CACHEDIR.TAG"), &format!("{signature}\n# This is a cache.\n"));
    write(lab.path().join("cache/content/x"), "x");
    write(lab.path().join("no cache/CACHEDIR.TAG"), "something else");
    write(lab.path().join("no cache/x"), "x");
    fs::create_dir(lab.path().join("pipe")).unwrap();
    rustix::fs::mknodat(CWD, lab.path().join("pipe/CACHEDIR.TAG"), FileType::Fifo, 0o600.into(), 0).unwrap();
    write(lab.path().join("marked/.nobackup"), "");
    write(lab.path().join("marked/x"), "x");
    // The root of a source is walked even if it is marked.
    write(lab.path().join(".nobackup"), "");
    let both = options(|options| {
        (options.exclude_caches, options.exclude_if_present) = (true, vec![b".nobackup".to_vec(), b"other".to_vec()]);
    });
    let told = walk(&mut Files::of_all(&[lab.path().to_owned()], &[], both), |_| {});
    let expected = [".nobackup", "cache/CACHEDIR.TAG", "marked/.nobackup", "no cache/CACHEDIR.TAG", "no cache/x"];
    assert_eq!(told.files.keys().collect::<Vec<_>>(), expected);
    assert_eq!(told.folders, ["cache", "marked", "no cache", "pipe"]);
    assert_eq!(told.skipped.keys().collect::<Vec<_>>(), ["cache", "marked"]);
}

#[test]
fn several_sources_have_folders_of_their_names() {
    let lab = TempDir::new().unwrap();
    let roots = ["one/data", "two/data", "notes", "gone"].map(|path| lab.path().join(path));
    for root in &roots[..3] {
        write(root.join("file"), &root.to_string_lossy());
    }
    let mut files = Files::of_all(&roots, &[], exclude(&["nothing"]));
    assert_eq!(files.names().collect::<Vec<_>>(), [&b"data"[..], b"data (2)", b"notes", b"gone"]);
    assert_eq!(files.root().unwrap().mode, None);
    let told = walk(&mut files, |_| {});
    let content = |root: &Path| Ok(root.to_string_lossy().into_owned());
    let expected = [("data", 0), ("data (2)", 1), ("notes", 2)];
    let expected = expected.map(|(name, root)| (format!("{name}/file"), content(&roots[root])));
    assert_eq!(told.read_all(), expected.into());
    assert_eq!(told.folders, ["data", "data (2)", "notes"]);
    // If one source of several is missing, only that one fails.
    assert_eq!(told.failed.keys().collect::<Vec<_>>(), ["gone"]);
    files.finish().unwrap();
    fs::rename(&roots[2], lab.path().join("other")).unwrap();
    assert!(files.finish().is_err());
    assert!(Files::of_all(&roots[3..], &[], Options::default()).root().is_err());
}

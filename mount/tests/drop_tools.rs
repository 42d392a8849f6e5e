//! Drops files with the programs that people use. Each program's files must be restored exactly once, and nothing else.

mod common;

use common::model::{Model, Shelf, Tree};
use common::outbox::INBOX;
use common::{Dropping, Fixture, PATIENCE, eventually, no_fuse};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use strongroom_mount::{Options, State, Target};

macro_rules! skip_without {
    ($($program:expr),*) => {
        if no_fuse() {
            return;
        }
        $(if Command::new($program).arg("--version").output().is_err() {
            eprintln!("SKIPPED: {} is not installed", $program);
            return;
        })*
    };
}

fn mail(number: usize) -> Vec<u8> {
    format!("Subject: mail {number}\r\n\r\n{}", "Hello. ".repeat(number % 50)).into_bytes()
}

/// Creates three folders of mails, with files between them that desktops leave behind. Returns the folder and what must
/// be restored.
fn tree(drop: &Dropping) -> (String, BTreeMap<String, Vec<u8>>) {
    let mut expected = BTreeMap::new();
    for number in 0..30 {
        let name = format!("tree/folder {}/mail {number}.eml", number % 3);
        drop.outside(&name, &mail(number));
        expected.insert(format!("{INBOX}/{name}"), mail(number));
    }
    for junk in ["tree/.DS_Store", "tree/folder 1/desktop.ini", "tree/folder 2/._mail 2.eml", "tree/folder 2/Thumbs.db"]
    {
        drop.outside(junk, b"junk");
    }
    let root = drop.outside("tree/folder 0/mail 0.eml", &mail(0));
    (Path::new(&root).ancestors().nth(2).unwrap().to_str().unwrap().to_owned(), expected)
}

/// Waits until all of `expected` were restored once, and checks that nothing else was.
#[track_caller]
fn once(drop: &Dropping, expected: &BTreeMap<String, Vec<u8>>) {
    let what = || format!("{} files restored once, not {:?}", expected.len(), drop.basket.restored_paths());
    eventually(PATIENCE, &what(), || drop.basket.restored().len() >= expected.len());
    let mut restored = drop.basket.restored();
    restored.sort();
    let expected: Vec<_> = expected.iter().map(|(path, bytes)| (path.clone(), bytes.clone())).collect();
    assert_eq!(restored, expected);
    assert_eq!(drop.basket.sealed().len(), expected.len(), "and nothing waits to be");
}

/// Drops the tree with a program, twice.
fn twice(program: &str, arguments: &[&str]) {
    let drop = Dropping::new();
    let (tree, expected) = tree(&drop);
    for round in ["first", "again"] {
        let arguments: Vec<_> = arguments.iter().map(|argument| argument.replace("TREE", &tree)).collect();
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let outcome = drop.tool(program, &arguments);
        assert!(outcome.is_ok(), "{program} {round}: {outcome:?}");
        once(&drop, &expected);
    }
    let shown = fs::read(drop.inbox("tree/folder 1/mail 1.eml")).unwrap();
    assert_eq!(shown, mail(1));
}

#[test]
fn cp_recursively() {
    skip_without!();
    twice("cp", &["-r", "TREE", "."]);
}

#[test]
fn cp_with_everything_kept() {
    skip_without!();
    twice("cp", &["-a", "TREE", "."]);
}

#[test]
fn cp_by_force() {
    skip_without!();
    // With `-f`, `cp` removes a file that it cannot open and creates it again. Here it can open the file.
    twice("cp", &["-rf", "--no-preserve=all", "TREE", "."]);
}

#[test]
fn rsync() {
    skip_without!("rsync");
    twice("rsync", &["-a", "TREE", "."]);
    twice("rsync", &["-r", "--checksum", "--whole-file", "TREE", "."]);
    twice("rsync", &["-a", "--ignore-times", "TREE", "."]);
}

#[test]
fn tar() {
    skip_without!("tar");
    twice("bash", &["-c", "tar cC 'TREE/..' tree | tar x --overwrite"]);
    let drop = Dropping::new();
    let (tree, expected) = tree(&drop);
    drop.sh(&format!("tar cC '{tree}/..' tree | tar xp"));
    once(&drop, &expected);
}

#[test]
fn python_shutil() {
    skip_without!("python3");
    let program = "import shutil; shutil.copytree('TREE', 'tree', dirs_exist_ok=True)";
    twice("python3", &["-c", program]);
}

#[test]
fn mv_from_another_file_system() {
    skip_without!();
    let drop = Dropping::new();
    let (tree, expected) = tree(&drop);
    drop.tool("mv", &[&tree, "."]).unwrap();
    once(&drop, &expected);
    assert!(!Path::new(&tree).exists(), "it was moved");
}

#[test]
fn gio_copy() {
    skip_without!("gio");
    let drop = Dropping::new();
    let source = drop.outside("one.eml", &mail(7));
    let expected = BTreeMap::from([(format!("{INBOX}/one.eml"), mail(7))]);
    let touched = Command::new("touch").args(["-d", "2001-01-01 00:00:00.000007 UTC", &source]).status();
    assert!(touched.unwrap().success());
    // The second time, `gio` writes to a temporary file and renames it.
    for _ in 0..2 {
        drop.tool("gio", &["copy", "--preserve", &source, "one.eml"]).unwrap();
        once(&drop, &expected);
        // `gio` sets the time after it closed the file.
        let given = drop.basket.mtime(&format!("{INBOX}/one.eml")).unwrap();
        assert_eq!((given.secs, given.nanos), (978_307_200, 7_000));
        eventually(PATIENCE, "no draft is left", || drop.basket.drafts() == 0);
        let shown = fs::metadata(drop.inbox("one.eml")).unwrap();
        assert_eq!((shown.mtime(), shown.mtime_nsec()), (978_307_200, 7_000));
    }
    drop.tool("gio", &["trash", "one.eml"]).unwrap_err();
    once(&drop, &expected);
    drop.tool("gio", &["move", &source, "two.eml"]).unwrap();
    let expected = expected.into_iter().chain([(format!("{INBOX}/two.eml"), mail(7))]).collect();
    once(&drop, &expected);
}

#[test]
fn thunar() {
    skip_without!("Thunar", "xvfb-run", "dbus-run-session", "gdbus");
    let drop = Dropping::new();
    let (tree, expected) = tree(&drop);
    // Calls Thunar as a drag with the mouse would. The script ends when its input ends.
    let script = format!(
        "Thunar --daemon & gdbus wait --session --timeout 20 org.xfce.FileManager
         gdbus call --session --dest org.xfce.FileManager --object-path /org/xfce/FileManager \\
             --method org.xfce.FileManager.CopyInto '' \"['{tree}']\" '{}' '' ''
         read; Thunar -q; wait",
        drop.inbox("").display()
    );
    let home = tempfile::TempDir::new().unwrap();
    let mut desktop = Command::new("xvfb-run")
        .args(["-a", "dbus-run-session", "bash", "-c", &script])
        .envs([("HOME", home.path()), ("XDG_RUNTIME_DIR", home.path())])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    once(&drop, &expected);
    std::mem::drop(desktop.stdin.take());
    desktop.wait().unwrap();
    once(&drop, &expected);
}

#[test]
fn from_a_snapshot_of_the_same_mount() {
    skip_without!("rsync");
    let folder = (0..200).map(|number| (format!("mail {number:03}.eml").into_bytes(), Tree::File(mail(number))));
    let model = Model::new(Tree::empty().with(&[b"Inbox"], Tree::Directory(folder.collect())));
    let drop = Dropping::over(&Shelf::new(&[(1, "one", &model)]));
    let source = drop.mount.path("snapshots/one/Inbox").into_os_string().into_string().unwrap();
    let expected: BTreeMap<_, _> =
        (0..200).map(|number| (format!("{INBOX}/Inbox/mail {number:03}.eml"), mail(number))).collect();
    drop.tool("cp", &["-r", &source, "."]).unwrap();
    once(&drop, &expected);
    drop.tool("rsync", &["-a", &source, "."]).unwrap();
    once(&drop, &expected);
}

#[test]
fn editors_that_save_by_rename() {
    skip_without!("python3", "vim");
    let drop = Dropping::new();
    let save = "import os,sys,tempfile\n\
        fd,name=tempfile.mkstemp(dir='.')\nos.write(fd,b'Subject: saved')\nos.fsync(fd)\nos.close(fd)\n\
        os.replace(name,'saved.eml')";
    drop.tool("python3", &["-c", save]).unwrap();
    drop.restored_last("saved.eml", b"Subject: saved");
    let vim = ["-es", "-u", "NONE", "-c", "set backup swapfile", "-c", "normal iSubject: vim", "-c", "wq!", "vim.eml"];
    drop.tool("vim", &vim).unwrap();
    drop.restored_last("vim.eml", b"Subject: vim\n");
    // Changing a dropped file is refused, and the file stays as it is.
    let vim = ["-es", "-u", "NONE", "-c", "normal ASubject: more", "-c", "wq!", "-c", "cq", "vim.eml"];
    drop.tool("vim", &vim).unwrap_err();
    drop.tool("sed", &["-i", "s/vim/sed/", "vim.eml"]).unwrap_err();
    assert_eq!(fs::read(drop.inbox("vim.eml")).unwrap(), b"Subject: vim\n");
    assert_eq!(drop.basket.restored().len(), 2);
}

#[test]
fn many_at_once() {
    skip_without!();
    let drop = Dropping::new();
    // Six programs copy the same folder to the same place at once, over each other's files.
    for number in 0..200 {
        drop.outside(&format!("many/{number}.eml"), &mail(number));
    }
    let source = drop.outside("many/0.eml", &mail(0));
    let source = Path::new(&source).parent().unwrap().display().to_string();
    let expected = (0..200).map(|number| (format!("{INBOX}/many/{number}.eml"), mail(number))).collect();
    std::thread::scope(|scope| {
        for number in 0..6 {
            let (drop, source) = (&drop, &source);
            let (program, arguments): (_, &[&str]) = if number % 2 == 0 {
                ("cp", &["-r", source, "."])
            } else {
                ("rsync", &["-r", "--ignore-times", source, "."])
            };
            let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
            scope.spawn(move || {
                let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
                // Programs that write to the same file at once may fail, as on any file system. Only the final state
                // counts.
                if let Err(said) = drop.tool(program, &arguments) {
                    eprintln!("{program}: {}", said.lines().next().unwrap_or_default());
                }
            });
        }
    });
    // A last copy finds all files there, or adds those that are missing.
    drop.tool("cp", &["-r", &source, "."]).unwrap();
    once(&drop, &expected);
    eventually(PATIENCE, "no draft is left", || drop.basket.drafts() == 0);
}

#[test]
fn what_ls_and_rm_do() {
    skip_without!();
    let drop = Dropping::new();
    drop.basket.wait_for_commit();
    drop.sh("for n in 1 2 3; do printf 'Subject: %s' $n > $n.eml; done; chmod 644 *.eml; ls -laZ . .. > /dev/null");
    eventually(PATIENCE, "no draft is left", || drop.basket.drafts() == 0);
    drop.tool("rm", &["1.eml", "2.eml"]).unwrap();
    drop.tool("rm", &["-r", "../Inbox"]).unwrap_err();
    assert!(drop.basket.is_folder(INBOX));
    drop.tool("ln", &["3.eml", "4.eml"]).unwrap_err();
    drop.tool("ln", &["-s", "3.eml", "4.eml"]).unwrap_err();
    assert_eq!(drop.basket.withdrawn().len(), 3, "rm -r withdrew what waited, and the folder stays");
    let said = drop.tool("df", &["--output=avail", "-BG", "."]).unwrap();
    assert!(said.contains("1024G"), "{said}");
}

#[test]
fn a_large_file() {
    skip_without!();
    let drop = Dropping::new();
    let mut bytes = b"Subject: large\r\n\r\n".to_vec();
    bytes.extend((0..8_000_000_u64).flat_map(u64::to_le_bytes));
    let source = drop.outside("large.eml", &bytes);
    let begin = Instant::now();
    drop.tool("cp", &[&source, "large.eml"]).unwrap();
    eprintln!("64 MB took {:?}", begin.elapsed());
    eventually(PATIENCE, "it is restored", || drop.basket.restored().len() == 1);
    assert!(drop.basket.restored()[0].1 == bytes);
    assert!(fs::read(drop.inbox("large.eml")).unwrap() == bytes);
}

#[test]
fn twenty_thousand_small_files() {
    skip_without!();
    let drop = Dropping::new();
    for number in 0..20_000 {
        drop.outside(&format!("many/{number:05}.eml"), &mail(number));
    }
    let source = drop.outside("many/00000.eml", &mail(0));
    let begin = Instant::now();
    drop.tool("cp", &["-r", Path::new(&source).parent().unwrap().to_str().unwrap(), "."]).unwrap();
    eprintln!("20,000 files took {:?}; {}", begin.elapsed(), drop.mount.mounted.requests());
    eventually(PATIENCE, "all are restored", || drop.basket.restored().len() == 20_000);
    let listed = fs::read_dir(drop.inbox("many")).unwrap().map(Result::unwrap).count();
    assert_eq!(listed, 20_000);
    assert!(drop.basket.lists() < 10, "a listing is asked for once");
    drop.basket.set_state(&format!("{INBOX}/many/00007.eml"), State::Done);
    let probes = drop.mount.mounted.requests().of(strongroom_mount::Operation::Xattr);
    drop.tool("ls", &["-l", "many"]).unwrap();
    let probes = drop.mount.mounted.requests().of(strongroom_mount::Operation::Xattr) - probes;
    eprintln!("ls -l of them asked for {probes} attributes");
}

/// Measures the table in docs/performance.md, "A mount that restores": `cargo test --release -p strongroom-mount --test
/// drop_tools -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn what_a_mount_that_restores_costs() {
    skip_without!("rg");
    let model = Model::new(common::model::office(20, 1000));
    let shelf = Shelf::new(&[(1, "one", &model)]);
    let plain = Fixture::new(Target::Catalog(shelf.clone()), &Options::default());
    let drop = Dropping::over(&shelf);
    let copies = tempfile::TempDir::new().unwrap();
    let commands = [
        ("find", "find . > /dev/null"),
        ("ls -lR", "ls -lR > /dev/null"),
        ("rg", "rg -c NEEDLEWORD . > /dev/null"),
        ("cp -r", "rm -rf $COPY && cp -r . $COPY"),
    ];
    for (name, command) in commands {
        for (kind, mount) in [("plain", &plain), ("with restore/", &drop.mount)] {
            let run = || {
                let begin = Instant::now();
                let status = Command::new("bash")
                    .args(["-c", command])
                    .current_dir(mount.path("snapshots/one"))
                    .env("COPY", copies.path().join("copy"))
                    .status();
                assert!(status.unwrap().success());
                begin.elapsed()
            };
            run();
            let before = mount.mounted.requests().total();
            let mut times: Vec<_> = (0..5).map(|_| run()).collect();
            times.sort();
            let requests = (mount.mounted.requests().total() - before) / 5;
            eprintln!("{name}, warm, {kind}: {:?}, {requests} requests", times[2]);
        }
    }
}

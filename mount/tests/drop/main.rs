//! Drops files into `restore/` of real mounts, and tests docs/semantics.md, "Restoring", sentence by sentence.

#[path = "../common/mod.rs"]
mod common;

use common::model::{Model, Shelf, Tree};
use common::outbox::INBOX;
use common::{Dropping, Fixture, PATIENCE, code, eventually, no_fuse};
use rustix::fs::{Access, AtFlags, Mode, RenameFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use std::fs::{self, File, FileTimes};
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};
use strongroom_mount::{Operation, Options, OutboxError, State, Target, Unmounted};

macro_rules! skip_without_fuse {
    () => {
        if no_fuse() {
            return;
        }
    };
}

mod outside;
mod trouble;

const MAIL: &[u8] = b"Subject: one\r\n\r\nHello.\r\n";
const OTHER: &[u8] = b"Subject: other\r\n\r\nBye.\r\n";

fn at(name: &str) -> String {
    format!("{INBOX}/{name}")
}

fn state(path: &Path) -> Result<String, Errno> {
    let mut value = [0; 100];
    let len = rustix::fs::getxattr(path, "user.strongroom.state", &mut value[..])?;
    Ok(String::from_utf8(value[..len].to_vec()).unwrap())
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn the_tree_of_the_outbox_is_shown() {
    skip_without_fuse!();
    let drop = Dropping::new();
    assert_eq!(names(&drop.mount.path("")), ["README.txt", "latest", "snapshots", "restore"]);
    assert_eq!(fs::metadata(drop.mount.path("")).unwrap().nlink(), 4);
    assert_eq!(names(&drop.path("")), ["contoso", "jobs", "original", "read only"]);
    assert_eq!(names(&drop.path("contoso/Users")), ["bob@contoso.com"]);
    assert_eq!(names(&drop.inbox("")), Vec::<String>::new());
    assert_eq!(fs::metadata(drop.inbox("")).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(drop.path("read only")).unwrap().mode() & 0o7777, 0o500);
    assert_eq!(code(fs::metadata(drop.inbox("nobody"))), Errno::NOENT);
    let text = drop.path("jobs/first.txt");
    assert_eq!((fs::read(&text).unwrap(), fs::metadata(&text).unwrap().len()), (b"nothing yet\n".to_vec(), 12));
    assert_eq!(code(fs::write(&text, "x")), Errno::PERM);
    assert_eq!(code(fs::read(drop.path(""))), Errno::ISDIR);
    // A growing report is always read in its current state, even through an open file.
    let mut open = File::open(&text).unwrap();
    drop.basket.set_text("jobs/first.txt", "nothing yet\nand now something\n");
    let mut read = String::new();
    open.read_to_string(&mut read).unwrap();
    assert_eq!(read, "nothing yet\nand now something\n");
    eventually(PATIENCE, "the kernel is told", || fs::metadata(&text).unwrap().len() == 30);
    // An open listing continues as it began, even if entries are added; a new listing shows them.
    for number in 0..300 {
        drop.basket.add_folder(at(&format!("folder {number:03} {}", "x".repeat(100))).as_bytes());
    }
    let mut listing = fs::read_dir(drop.inbox("")).unwrap();
    listing.next().unwrap().unwrap();
    drop.basket.add_folder(at("a folder").as_bytes());
    assert_eq!(listing.map(Result::unwrap).count(), 299);
    assert_eq!(names(&drop.inbox("")).len(), 301);
}

#[test]
fn a_file_is_complete_when_it_is_closed() {
    skip_without_fuse!();
    let drop = Dropping::new();
    let path = drop.inbox("one.eml");
    let mut file = File::create(&path).unwrap();
    file.write_all(&MAIL[..5]).unwrap();
    assert_eq!(state(&path).unwrap(), "draft");
    assert_eq!((fs::read(&path).unwrap(), fs::metadata(&path).unwrap().len()), (MAIL[..5].to_vec(), 5));
    assert_eq!(names(&drop.inbox("")), ["one.eml"], "it is listed while it is written");
    file.write_all(&MAIL[5..]).unwrap();
    assert!(drop.basket.sealed().is_empty(), "not before it is closed");
    std::mem::drop(file);
    assert_eq!(drop.basket.sealed(), [at("one.eml")], "durable when close returned");
    drop.restored(&[&at("one.eml")]);
    assert_eq!(drop.basket.restored(), [(at("one.eml"), MAIL.to_vec())]);
    assert_eq!(fs::read(&path).unwrap(), MAIL, "as long as the outbox keeps it");
    for now in [State::Uploading, State::Failed { reason: "it rains".to_owned() }, State::Done] {
        let expected = now.to_string();
        drop.basket.set_state(&at("one.eml"), now);
        assert_eq!(state(&path).unwrap(), expected);
    }
    assert_eq!((names(&drop.inbox("")), drop.basket.drafts()), (vec!["one.eml".to_owned()], 0));
}

#[test]
fn a_file_is_released_when_its_last_writer_closes_it() {
    skip_without_fuse!();
    let drop = Dropping::new();
    let path = drop.inbox("one.eml");
    let (mut file, also) = (File::create(&path).unwrap(), File::options().append(true).open(&path).unwrap());
    file.write_all(MAIL).unwrap();
    // A reader, such as a preview, delays nothing and can continue to read.
    let mut reader = File::open(&path).unwrap();
    std::mem::drop(file);
    assert_eq!(drop.basket.sealed(), [at("one.eml")]);
    assert_eq!(state(&path).unwrap(), "queued");
    fs::metadata(drop.inbox("")).unwrap();
    drop.nothing_restored();
    std::mem::drop(also);
    drop.restored(&[&at("one.eml")]);
    eventually(PATIENCE, "no draft is left", || drop.basket.drafts() == 0);
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    assert_eq!(read, MAIL);
    // Opening the file for writing, to check whether that is allowed, delays nothing either.
    let asked = File::options().write(true).open(&path).unwrap();
    std::mem::drop((reader, asked));
    assert_eq!(drop.basket.restored(), [(at("one.eml"), MAIL.to_vec())]);
}

#[test]
fn close_says_what_is_wrong() {
    skip_without_fuse!();
    let drop = Dropping::new();
    let close = |name: &str, bytes: &[u8]| {
        let mut file = File::create(drop.inbox(name)).unwrap();
        file.write_all(bytes).unwrap();
        close(file)
    };
    assert_eq!(close("holiday.jpg", b"JFIF"), Err(Errno::INVAL));
    let reasons: [(fn() -> OutboxError, Errno); 4] = [
        (|| OutboxError::Denied { reason: "policy".to_owned() }, Errno::ACCESS),
        (|| OutboxError::Unknown { reason: "never seen".to_owned() }, Errno::NXIO),
        (|| OutboxError::Full, Errno::NOSPC),
        (|| OutboxError::Storage(std::io::Error::other("disk on fire")), Errno::IO),
    ];
    for (reason, errno) in reasons {
        let mut file = File::create(drop.inbox("one.eml")).unwrap();
        file.write_all(MAIL).unwrap();
        drop.basket.fail(Some(reason));
        assert_eq!(self::close(file), Err(errno));
        drop.basket.fail(None);
        drop.gone("one.eml");
    }
    let file = File::create(drop.inbox("large.eml")).unwrap();
    assert_eq!(code(file.write_all_at(b"x", common::outbox::LEN_MAX)), Errno::FBIG);
    std::mem::drop(file);
    drop.gone("holiday.jpg");
    drop.gone("large.eml");
    assert_eq!(code(File::create(drop.path("read only/one.eml"))), Errno::PERM);
    assert_eq!(code(File::create(drop.path("one.eml"))), Errno::PERM);
    drop.nothing_restored();
    // After all these failures, a good file still works.
    assert_eq!(close("one.eml", MAIL), Ok(()));
    drop.restored(&[&at("one.eml")]);
}

/// Closes the file and returns the error of `close`, which `File` hides.
fn close(file: File) -> Result<(), Errno> {
    let other = rustix::io::dup(&file).unwrap();
    std::mem::drop(file);
    // Closing a duplicate returns the same error. rustix hides that error too, so a process closes the duplicate.
    let status = Command::new("python3")
        .args(["-c", "import os,sys\ntry: os.close(1)\nexcept OSError as e: sys.exit(e.errno)"])
        .stdout(Stdio::from(other))
        .status()
        .unwrap();
    exit_errno(status)
}

/// `truncate(2)`, by path, which neither the standard library nor rustix has.
fn truncate(path: &Path, len: u64) -> Result<(), Errno> {
    let program =
        "import os,sys\ntry: os.truncate(sys.argv[1],int(sys.argv[2]))\nexcept OSError as e: sys.exit(e.errno)";
    exit_errno(Command::new("python3").args(["-c", program]).arg(path).arg(len.to_string()).status().unwrap())
}

fn exit_errno(status: ExitStatus) -> Result<(), Errno> {
    match status.code().unwrap() {
        0 => Ok(()),
        errno => Err(Errno::from_raw_os_error(errno)),
    }
}

#[test]
fn a_shell_redirection_is_complete_at_its_end() {
    skip_without_fuse!();
    let drop = Dropping::new();
    drop.sh("printf 'Subject: one\\r\\n\\r\\n' > one.eml");
    drop.sh("{ printf 'Subject: two\\r\\n'; cat /dev/null; printf '\\r\\nrest'; } > two.eml");
    drop.sh("{ printf 'Subject: three\\r\\n' | cat; printf '\\r\\nrest' | cat; } > three.eml");
    drop.restored(&[&at("one.eml"), &at("three.eml"), &at("two.eml")]);
    let restored = drop.basket.restored();
    assert_eq!(restored[1], (at("two.eml"), b"Subject: two\r\n\r\nrest".to_vec()));
    assert_eq!(restored[2], (at("three.eml"), b"Subject: three\r\n\r\nrest".to_vec()));
    // The first part alone is not a mail, but the whole is. The last close decides.
    drop.sh("{ printf 'Sub' | cat || true; printf 'ject: four\\r\\n' | cat; } > four.eml");
    drop.restored_last("four.eml", b"Subject: four\r\n");
}

/// Starts a process that writes the first half of `half.eml` and then waits.
fn half_written(drop: &Dropping) -> Child {
    let program = "import signal,time\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\nf=open('half.eml','wb',0)\n\
                   f.write(b'Subject: half')\nprint('written',flush=True)\ntime.sleep(100)";
    let mut python = Command::new("python3");
    let mut child = python.args(["-c", program]).current_dir(drop.inbox("")).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 7]).unwrap();
    child
}

#[test]
fn a_file_of_a_killed_process_is_not_restored() {
    skip_without_fuse!();
    let drop = Dropping::new();
    for signal in ["KILL", "TERM", "INT"] {
        let mut child = half_written(&drop);
        assert_eq!(state(&drop.inbox("half.eml")).unwrap(), "draft");
        assert!(Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success());
        assert!(!child.wait().unwrap().success());
        drop.gone("half.eml");
        assert!(drop.basket.sealed().is_empty(), "{signal}");
    }
    // A process that exits without closing its file closes it by exiting.
    let program =
        "import os\nfd=os.open('whole.eml',os.O_CREAT|os.O_WRONLY)\nos.write(fd,b'Subject: whole')\nos._exit(3)";
    Command::new("python3").args(["-c", program]).current_dir(drop.inbox("")).status().unwrap();
    drop.restored(&[&at("whole.eml")]);
    // A file that a process closed before it was killed is restored.
    let program =
        "import os,signal\nopen('closed.eml','wb').write(b'Subject: closed')\nos.kill(os.getpid(),signal.SIGKILL)";
    Command::new("python3").args(["-c", program]).current_dir(drop.inbox("")).status().unwrap();
    drop.restored(&[&at("closed.eml"), &at("whole.eml")]);
}

#[test]
fn empty_files_are_not_restored() {
    skip_without_fuse!();
    let drop = Dropping::new();
    drop.tool("touch", &["empty.eml"]).unwrap();
    drop.tool("cp", &["/dev/null", "also empty.eml"]).unwrap();
    drop.gone("empty.eml");
    drop.gone("also empty.eml");
    drop.nothing_restored();
}

#[test]
fn fsync_makes_durable() {
    skip_without_fuse!();
    let drop = Dropping::new();
    let mut file = File::create(drop.inbox("one.eml")).unwrap();
    file.write_all(b"no mail").unwrap();
    assert_eq!(code(file.sync_all()), Errno::INVAL);
    file.set_len(0).unwrap();
    file.rewind().unwrap();
    file.write_all(MAIL).unwrap();
    file.sync_all().unwrap();
    assert_eq!(drop.basket.sealed(), [at("one.eml")]);
    drop.nothing_restored();
    // A write after the sync makes the file a draft again.
    file.write_all(b"More.\r\n").unwrap();
    assert!(drop.basket.sealed().is_empty());
    std::mem::drop(file);
    drop.restored_last("one.eml", b"Subject: one\r\n\r\nHello.\r\nMore.\r\n");
    drop.tool("dd", &["if=/proc/self/environ", "of=not.eml", "conv=fsync", "status=none"]).unwrap_err();
    let mail = drop.outside("mail", MAIL);
    drop.tool("dd", &[&format!("if={mail}"), "of=dd.eml", "conv=fsync", "bs=7", "status=none"]).unwrap();
    drop.restored_last("dd.eml", MAIL);
}

#[test]
fn dropping_the_same_again_restores_nothing_twice() {
    skip_without_fuse!();
    let drop = Dropping::new();
    fs::write(drop.inbox("one.eml"), MAIL).unwrap();
    // At once, because the first file may not have been handed over yet.
    fs::write(drop.inbox("one.eml"), MAIL).unwrap();
    drop.restored(&[&at("one.eml")]);
    fs::write(drop.inbox("one.eml"), MAIL).unwrap();
    eventually(PATIENCE, "no draft is left", || drop.basket.drafts() == 0);
    for _ in 0..2 {
        let mut file = File::create(drop.inbox("one.eml")).unwrap();
        file.write_all(OTHER).unwrap();
        assert_eq!(close(file), Err(Errno::PERM), "other content");
        eventually(PATIENCE, "no draft is left", || drop.basket.drafts() == 0);
        assert_eq!(fs::read(drop.inbox("one.eml")).unwrap(), MAIL);
    }
    assert_eq!(drop.basket.restored(), [(at("one.eml"), MAIL.to_vec())]);
}

#[test]
fn a_dropped_file_cannot_be_changed() {
    skip_without_fuse!();
    let drop = Dropping::new();
    let (one, new) = (&drop.inbox("one.eml"), &drop.inbox("new"));
    fs::write(one, MAIL).unwrap();
    fs::create_dir(drop.inbox("folder")).unwrap();
    let check = || {
        let folder = &drop.inbox("folder");
        let mode = Mode::from_raw_mode(0o600);
        let here = rustix::fs::CWD;
        let fifo = rustix::fs::FileType::Fifo;
        let write = |options: &mut fs::OpenOptions| code(options.open(one).unwrap().write_all(b"x"));
        let refused = [
            ("append", write(File::options().append(true))),
            ("write", write(File::options().write(true))),
            ("ftruncate", code(File::options().write(true).open(one).unwrap().set_len(3))),
            ("truncate", truncate(one, 3).unwrap_err()),
            ("fallocate", {
                let file = File::options().write(true).open(one).unwrap();
                rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 1000).unwrap_err()
            }),
            ("rename", rustix::fs::rename(one, new).unwrap_err()),
            ("rename a folder", rustix::fs::rename(folder, new).unwrap_err()),
            ("rmdir", rustix::fs::rmdir(folder).unwrap_err()),
            ("link", rustix::fs::link(one, new).unwrap_err()),
            ("symlink", rustix::fs::symlink("x", new).unwrap_err()),
            ("mknod", rustix::fs::mknodat(here, new, fifo, mode, 0).unwrap_err()),
            ("mkdir .Trash-1000", rustix::fs::mkdir(drop.inbox(".Trash-1000"), mode).unwrap_err()),
            ("mkdir where nothing can be made", rustix::fs::mkdir(drop.path("read only/x"), mode).unwrap_err()),
            ("unlink of a report", rustix::fs::unlink(drop.path("jobs/first.txt")).unwrap_err()),
        ];
        for (operation, errno) in refused {
            assert_eq!(errno, Errno::PERM, "{operation}");
        }
        assert_eq!(truncate(one, MAIL.len() as u64), Ok(()), "as long as it is");
    };
    check();
    drop.restored(&[&at("one.eml")]);
    check();
    assert_eq!(rustix::fs::unlink(one), Err(Errno::PERM), "on its way");
    assert_eq!(fs::read(one).unwrap(), MAIL);
}

#[test]
fn waiting_files_can_be_withdrawn_and_committed() {
    skip_without_fuse!();
    let drop = Dropping::new();
    drop.basket.wait_for_commit();
    for name in ["one.eml", "two.eml", "three.eml"] {
        fs::write(drop.inbox(name), MAIL).unwrap();
    }
    fs::remove_file(drop.inbox("three.eml")).unwrap();
    assert_eq!(drop.basket.withdrawn(), [at("three.eml")]);
    eventually(PATIENCE, "they wait", || state(&drop.inbox("two.eml")).as_deref() == Ok("waiting for commit"));
    eventually(PATIENCE, "they wait", || state(&drop.inbox("one.eml")).as_deref() == Ok("waiting for commit"));
    fs::remove_file(drop.inbox("two.eml")).unwrap();
    assert_eq!(names(&drop.inbox("")), ["one.eml"]);
    eventually(PATIENCE, "no draft is left", || drop.basket.drafts() == 0);
    drop.nothing_restored();
    let commit = drop.path("COMMIT").into_os_string().into_string().unwrap();
    drop.tool("touch", &[&commit]).unwrap();
    assert_eq!((drop.basket.commits(), drop.basket.restored_paths()), (1, vec![at("one.eml")]));
    drop.sh("echo now > ../../../../../COMMIT");
    assert_eq!(drop.basket.commits(), 2);
    assert!(!names(&drop.path("")).contains(&"COMMIT".to_owned()));
    assert!(!drop.path("COMMIT").exists());
}

#[test]
fn temporary_names_stay_in_the_mount() {
    skip_without_fuse!();
    let drop = Dropping::new();
    for name in
        [".goutputstream-X", ".one.eml.a1b2c3", ".~lock.one.eml#", "._one.eml", ".DS_Store", "one.eml~", "one.eml.part"]
    {
        fs::write(drop.inbox(name), OTHER).unwrap();
        assert_eq!(fs::read(drop.inbox(name)).unwrap(), OTHER, "{name}");
        assert_eq!(state(&drop.inbox(name)).unwrap(), "draft");
    }
    let mut file = File::options().append(true).open(drop.inbox("one.eml.part")).unwrap();
    file.write_all(b"More.").unwrap();
    std::mem::drop(file);
    assert_eq!(fs::read(drop.inbox("one.eml.part")).unwrap().len(), OTHER.len() + 5);
    assert_eq!(names(&drop.inbox("")).len(), 7);
    fs::rename(drop.inbox(".DS_Store"), drop.inbox("._one.eml")).unwrap();
    fs::rename(drop.inbox("one.eml~"), drop.inbox("two.eml~")).unwrap();
    for name in names(&drop.inbox("")) {
        fs::remove_file(drop.inbox(&name)).unwrap();
    }
    assert_eq!(names(&drop.inbox("")), Vec::<String>::new());
    eventually(PATIENCE, "no draft is left", || drop.basket.drafts() == 0);
    assert!(drop.basket.sealed().is_empty());
}

#[test]
fn a_rename_to_an_ordinary_name_completes() {
    skip_without_fuse!();
    let drop = Dropping::new();
    let (part, one) = (&drop.inbox("one.eml.part"), &drop.inbox("one.eml"));
    fs::write(part, "no mail").unwrap();
    assert_eq!(code(fs::rename(part, one)), Errno::INVAL, "as close would say");
    assert_eq!(names(&drop.inbox("")), ["one.eml.part"], "it stays where it was");
    fs::write(part, MAIL).unwrap();
    fs::rename(part, one).unwrap();
    assert_eq!(drop.basket.sealed(), [at("one.eml")]);
    drop.restored(&[&at("one.eml")]);
    assert_eq!(names(&drop.inbox("")), ["one.eml"]);
    assert_eq!(fs::read(one).unwrap(), MAIL);
    // The same content again succeeds; other content is refused.
    fs::write(part, MAIL).unwrap();
    fs::rename(part, one).unwrap();
    fs::write(part, OTHER).unwrap();
    assert_eq!(code(fs::rename(part, one)), Errno::PERM);
    assert_eq!(fs::read(one).unwrap(), MAIL);
    fs::remove_file(part).unwrap();
    // A file that is renamed while it is written is complete when it is closed, and only under its last name.
    let mut file = File::create(drop.inbox("a.eml")).unwrap();
    file.write_all(&MAIL[..9]).unwrap();
    fs::rename(drop.inbox("a.eml"), drop.inbox("b.eml")).unwrap();
    file.write_all(&MAIL[9..]).unwrap();
    fs::create_dir(drop.inbox("folder")).unwrap();
    fs::rename(drop.inbox("b.eml"), drop.inbox("folder/c.eml")).unwrap();
    std::mem::drop(file);
    drop.restored(&[&at("folder/c.eml"), &at("one.eml")]);
    // A file that is renamed after all bytes were written is complete at the close that follows.
    let mut file = File::create(drop.inbox(".new")).unwrap();
    file.write_all(OTHER).unwrap();
    fs::rename(drop.inbox(".new"), drop.inbox("new.eml")).unwrap();
    std::mem::drop(file);
    drop.restored_last("new.eml", OTHER);
    // A file that gets a temporary name before it is closed stays a draft.
    let mut file = File::create(drop.inbox("d.eml")).unwrap();
    file.write_all(MAIL).unwrap();
    fs::rename(drop.inbox("d.eml"), drop.inbox("d.eml~")).unwrap();
    std::mem::drop(file);
    assert_eq!(state(&drop.inbox("d.eml~")).unwrap(), "draft");
    let exchange =
        rustix::fs::renameat_with(rustix::fs::CWD, drop.inbox("d.eml~"), rustix::fs::CWD, one, RenameFlags::EXCHANGE);
    assert_eq!(exchange, Err(Errno::INVAL));
    assert_eq!(drop.basket.restored().len(), 3);
}

#[test]
fn a_file_can_be_removed_while_it_is_written() {
    skip_without_fuse!();
    let drop = Dropping::new();
    let mut file = File::options().read(true).write(true).create_new(true).open(drop.inbox("one.eml")).unwrap();
    file.write_all(MAIL).unwrap();
    fs::remove_file(drop.inbox("one.eml")).unwrap();
    assert!(!drop.inbox("one.eml").exists());
    file.rewind().unwrap();
    let mut read = Vec::new();
    file.read_to_end(&mut read).unwrap();
    assert_eq!(read, MAIL);
    assert_eq!(close(file), Ok(()));
    eventually(PATIENCE, "no draft is left", || drop.basket.drafts() == 0);
    assert!(drop.basket.sealed().is_empty());
}

#[test]
fn folders_are_made_and_merged_with() {
    skip_without_fuse!();
    let drop = Dropping::new();
    drop.tool("mkdir", &["-p", "a/b/c"]).unwrap();
    drop.tool("mkdir", &["-p", "a/b/d"]).unwrap();
    assert!(drop.basket.is_folder(&at("a/b/c")) && drop.basket.is_folder(&at("a/b/d")));
    assert_eq!(code(fs::create_dir(drop.inbox("a"))), Errno::EXIST);
    fs::write(drop.inbox("a/b/c/one.eml"), MAIL).unwrap();
    drop.restored(&[&at("a/b/c/one.eml")]);
    // A new folder appears even if the kernel is not notified: the kernel keeps its answers for only a second.
    assert!(!drop.inbox("late").exists());
    drop.basket.add_folder(at("late").as_bytes());
    eventually(PATIENCE, "it is seen", || drop.inbox("late").exists());
    // A folder of the account whose name looks temporary works like any other.
    drop.basket.add_folder(at("old.tmp").as_bytes());
    fs::write(drop.inbox("old.tmp/two.eml"), MAIL).unwrap();
    drop.restored_last("old.tmp/two.eml", MAIL);
}

#[test]
fn times_and_permissions() {
    skip_without_fuse!();
    let drop = Dropping::new();
    let (one, time) = (&drop.inbox("one.eml"), UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789));
    let mut file = File::create(one).unwrap();
    file.write_all(MAIL).unwrap();
    file.set_times(FileTimes::new().set_modified(time)).unwrap();
    assert_eq!(fs::metadata(one).unwrap().modified().unwrap(), time);
    std::mem::drop(file);
    let given = drop.basket.mtime(&at("one.eml")).unwrap();
    assert_eq!((given.secs, given.nanos), (1_234_567_890, 123_456_789), "the outbox gets it");
    drop.restored(&[&at("one.eml")]);
    assert_eq!(fs::metadata(one).unwrap().modified().unwrap(), time);
    // Times can also be set after the files were handed over.
    let old = Timespec { tv_sec: -5, tv_nsec: 7 };
    let times = Timestamps { last_access: old, last_modification: old };
    fs::write(drop.inbox("two.eml"), MAIL).unwrap();
    for name in ["one.eml", "two.eml"] {
        rustix::fs::utimensat(rustix::fs::CWD, drop.inbox(name), &times, AtFlags::empty()).unwrap();
        let shown = || fs::metadata(drop.inbox(name)).map(|shown| (shown.mtime(), shown.mtime_nsec())).unwrap();
        assert_eq!(shown(), (-5, 7), "{name}");
        let given = drop.basket.mtime(&at(name)).unwrap();
        assert_eq!((given.secs, given.nanos), (-5, 7), "{name}");
        drop.basket.set_state(&at(name), State::Done);
        eventually(PATIENCE, "the kernel has asked again", || state(&drop.inbox(name)).as_deref() == Ok("done"));
        assert_eq!(shown(), (-5, 7), "{name}");
    }
    rustix::fs::chmod(one, Mode::from_raw_mode(0o640)).unwrap();
    rustix::fs::chown(one, None, Some(rustix::fs::Gid::from_raw(7))).unwrap();
    rustix::fs::chmod(drop.inbox(""), Mode::from_raw_mode(0o755)).unwrap();
    drop.tool("touch", &["-d", "2001-01-01", &drop.path("").to_string_lossy()]).unwrap();
    for other in ["contoso", "jobs/first.txt"] {
        drop.tool("touch", &["-d", "2001-01-01 00:00 UTC", &drop.path(other).to_string_lossy()]).unwrap();
        assert_eq!(fs::metadata(drop.path(other)).unwrap().mtime(), 978_307_200, "{other}");
    }
    drop.tool("touch", &["one.eml"]).unwrap();
    let stat = fs::metadata(one).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.gid()), (0o600, rustix::process::getegid().as_raw()));
}

#[test]
fn lengths_of_drafts() {
    skip_without_fuse!();
    let drop = Dropping::new();
    let one = &drop.inbox("one.eml");
    let file = File::create(one).unwrap();
    file.write_all_at(b"end", 20).unwrap();
    assert_eq!(fs::metadata(one).unwrap().len(), 23);
    file.write_all_at(b"Subject:", 0).unwrap();
    file.set_len(22).unwrap();
    File::options().write(true).open(one).unwrap().set_len(25).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 20, 8).unwrap();
    let punch = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    assert_eq!(rustix::fs::fallocate(&file, punch, 0, 8), Err(Errno::OPNOTSUPP));
    let expected = b"Subject:\0\0\0\0\0\0\0\0\0\0\0\0en\0\0\0\0\0\0";
    assert_eq!(fs::read(one).unwrap(), expected);
    std::mem::drop(file);
    drop.restored_last("one.eml", expected);
}

#[test]
fn written_through_a_mapping() {
    skip_without_fuse!();
    let drop = Dropping::new();
    let program = "import mmap,os\nfd=os.open('one.eml',os.O_CREAT|os.O_RDWR)\nos.write(fd,b'Subject: written')\n\
                   m=mmap.mmap(fd,16)\nos.close(fd)\nm[:]=b'Subject: mapped!'\nm.close()";
    drop.tool("python3", &["-c", program]).unwrap();
    drop.restored_last("one.eml", b"Subject: mapped!");
}

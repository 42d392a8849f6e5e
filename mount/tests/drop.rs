//! Drops files into `restore/` of real mounts, and tests docs/semantics.md, "Restoring", sentence by sentence.

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
fn its_turn_comes_once_nobody_has_it_open_for_writing() {
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
    let program = "import signal,time\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\nf=open('half.eml','wb',0)\nf.write(b'Subject: half')\nprint('written',flush=True)\ntime.sleep(100)";
    let mut python = Command::new("python3");
    let mut child = python.args(["-c", program]).current_dir(drop.inbox("")).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 7]).unwrap();
    child
}

#[test]
fn what_a_killed_process_wrote_is_not_restored() {
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
fn what_was_dropped_is_not_changed() {
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
fn what_waits_can_be_withdrawn_and_is_committed() {
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
fn removed_while_it_is_written() {
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
    let program = "import mmap,os\nfd=os.open('one.eml',os.O_CREAT|os.O_RDWR)\nos.write(fd,b'Subject: written')\nm=mmap.mmap(fd,16)\n\
                   os.close(fd)\nm[:]=b'Subject: mapped!'\nm.close()";
    drop.tool("python3", &["-c", program]).unwrap();
    drop.restored_last("one.eml", b"Subject: mapped!");
}

#[test]
fn other_attributes_are_not_supported() {
    skip_without_fuse!();
    let drop = Dropping::new();
    let one = &drop.inbox("one.eml");
    fs::write(one, MAIL).unwrap();
    drop.restored(&[&at("one.eml")]);
    assert_eq!(rustix::fs::setxattr(one, "user.x", b"x", XattrFlags::empty()), Err(Errno::OPNOTSUPP));
    assert_eq!(rustix::fs::removexattr(one, "user.strongroom.state"), Err(Errno::OPNOTSUPP));
    assert_eq!(rustix::fs::getxattr(one, "user.x", &mut [0; 9][..]), Err(Errno::OPNOTSUPP));
    assert_eq!(rustix::fs::getxattr(one, "security.selinux", &mut [0; 9][..]), Err(Errno::OPNOTSUPP));
    let mut list = [0; 100];
    let len = rustix::fs::listxattr(one, &mut list[..]).unwrap();
    assert_eq!(&list[..len], b"user.strongroom.state\0");
    assert_eq!(state(&drop.inbox("")), Err(Errno::NODATA));
    assert_eq!(rustix::fs::getxattr(drop.mount.path("README.txt"), "user.x", &mut [0; 9][..]), Err(Errno::OPNOTSUPP));
    assert_eq!(state(one).unwrap(), "queued", "asking elsewhere has not ended the questions");
    assert_eq!(shown_with_xattr(&drop), "queued");
    let free = rustix::fs::statvfs(drop.inbox("")).unwrap();
    assert_eq!(free.f_bavail * free.f_frsize, 1 << 40);
    assert_eq!(rustix::fs::statvfs(drop.mount.path("")).unwrap().f_bavail, 0);
}

/// Returns the state of `one.eml`, as shown by a mount with extended attributes.
fn shown_with_xattr(drop: &Dropping) -> String {
    let shelf = Shelf::new(&[(1, "one", &Model::new(Tree::empty()))]);
    let target = Target::Restoring(shelf, Arc::new(common::outbox::Handle(drop.basket.clone())));
    let mount = Fixture::new(target, &Options { xattr: true, ..Options::default() });
    state(&mount.path("restore").join(at("one.eml"))).unwrap()
}

#[test]
fn outside_nothing_can_be_written() {
    skip_without_fuse!();
    let model = Model::new(Tree::empty().with(&[b"folder", b"file"], Tree::File(MAIL.to_vec())));
    let drop = Dropping::over(&Shelf::new(&[(1, "one", &model)]));
    let (file, new) = (&drop.mount.path("snapshots/one/folder/file"), &drop.mount.path("snapshots/one/folder/new"));
    let mode = Mode::from_raw_mode(0o600);
    let inside = &drop.inbox("moved.eml");
    fs::write(drop.inbox("x~"), MAIL).unwrap();
    let refused = [
        ("create", code(File::create(new))),
        ("open for writing", code(File::options().write(true).open(file))),
        ("truncate at open", rustix::fs::open(file, rustix::fs::OFlags::TRUNC, mode).unwrap_err()),
        ("truncate", truncate(file, 0).unwrap_err()),
        ("mkdir", rustix::fs::mkdir(new, mode).unwrap_err()),
        ("mkdir beside restore", rustix::fs::mkdir(drop.mount.path("new"), mode).unwrap_err()),
        ("rmdir of restore", rustix::fs::rmdir(drop.path("")).unwrap_err()),
        ("unlink", rustix::fs::unlink(file).unwrap_err()),
        ("chmod", rustix::fs::chmod(file, mode).unwrap_err()),
        ("setxattr", rustix::fs::setxattr(file, "user.x", b"x", XattrFlags::empty()).unwrap_err()),
        ("rename", rustix::fs::rename(file, new).unwrap_err()),
        ("rename of restore", rustix::fs::rename(drop.path(""), drop.mount.path("new")).unwrap_err()),
        ("rename out", rustix::fs::rename(drop.inbox("x~"), new).unwrap_err()),
        ("link", rustix::fs::link(file, new).unwrap_err()),
    ];
    for (operation, errno) in refused {
        assert_eq!(errno, Errno::ROFS, "{operation}");
    }
    assert_eq!(rustix::fs::rename(file, inside), Err(Errno::XDEV));
    assert_eq!(rustix::fs::access(file, Access::READ_OK), Ok(()));
    let may_write = rustix::process::geteuid().is_root() || fs::metadata(file).unwrap().mode() & 0o200 != 0;
    let expected = if may_write { Ok(()) } else { Err(Errno::ACCESS) };
    assert_eq!(rustix::fs::access(file, Access::WRITE_OK), expected, "by the permission bits alone");
    let opens = || drop.mount.mounted.requests().of(Operation::Open);
    let before = opens();
    File::open(file).unwrap().sync_all().unwrap();
    File::open(file).unwrap();
    assert_eq!(opens() - before, 2, "the kernel asks each time");
    // `mv` then copies the file, and reports that it could not remove the original.
    drop.tool("mv", &[&file.to_string_lossy(), "moved.eml"]).unwrap_err();
    drop.restored(&[&at("moved.eml")]);
    drop.tool("cp", &[&file.to_string_lossy(), "copied.eml"]).unwrap();
    drop.restored_last("copied.eml", MAIL);
    assert_eq!(fs::read(file).unwrap(), MAIL);
}

#[test]
fn outside_others_than_root_are_refused_by_the_permission_bits_first() {
    skip_without_fuse!();
    // The modes of the files in the model differ: the owner may write the first, nobody may write the last.
    let files = ["a", "b", "c", "d"];
    let tree = files.iter().fold(Tree::empty(), |tree, name| tree.with(&[name.as_bytes()], Tree::File(MAIL.to_vec())));
    let model = Model::new(tree);
    let owner = model.entries[1].attr.uid;
    let basket = Arc::new(common::outbox::Handle(common::outbox::Basket::new()));
    // Users other than root see all files as their own.
    let is_root = rustix::process::geteuid().is_root();
    let options = Options { allow_other: is_root, ..Options::default() };
    let mount = Fixture::new(Target::Restoring(Shelf::new(&[(1, "one", &model)]), basket), &options);
    let folder = mount.path("snapshots/one");
    let said = |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).current_dir(&folder).env("LC_ALL", "C");
        if is_root {
            shell.uid(owner).gid(owner);
        }
        let output = shell.output().unwrap();
        assert!(!output.status.success(), "{script}");
        String::from_utf8(output.stderr).unwrap()
    };
    let (forbidden, read_only) = ("Permission denied", "Read-only file system");
    let of_folder = if is_root { forbidden } else { read_only };
    for (script, expected) in [(": >> a", read_only), (": >> d", forbidden), ("mkdir new", of_folder)] {
        let said = said(script);
        assert!(said.contains(expected), "{script}: {said}");
    }
}

#[test]
fn hostile_names() {
    skip_without_fuse!();
    let drop = Dropping::new();
    let names: [&[u8]; 8] = [
        b"\xff\xfe.eml",
        b"new\nline.eml",
        b" leading.eml",
        b"-rf.eml",
        b"$(touch x).eml",
        b"\x01\x7f.eml",
        &[b'x'; 255],
        "\u{202e}lme.eml".as_bytes(),
    ];
    for name in names {
        let path = drop.inbox("").join(std::ffi::OsStr::from_bytes(name));
        fs::write(&path, MAIL).unwrap();
        eventually(PATIENCE, "it is dropped", || state(&path).as_deref() == Ok("queued"));
        assert_eq!(fs::read(&path).unwrap(), MAIL);
    }
    let listed: Vec<_> = fs::read_dir(drop.inbox("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(listed.len(), names.len());
    let long = drop.inbox(&"x".repeat(256));
    assert_eq!(code(File::create(&long)), Errno::NAMETOOLONG);
    assert_eq!(code(fs::create_dir(&long)), Errno::NAMETOOLONG);
    // Names from the outbox that are not legal file names are left out; the rest of the folder is listed.
    drop.basket.add_folder(&[at("").as_bytes(), &[b'y'; 300]].concat());
    drop.basket.add_folder(at("nul\0nul").as_bytes());
    drop.basket.add_folder(at("ordinary").as_bytes());
    assert_eq!(fs::read_dir(drop.inbox("")).unwrap().map(Result::unwrap).count(), names.len() + 1);
}

#[test]
fn an_outbox_that_waits_does_not_hold_up_the_snapshots() {
    skip_without_fuse!();
    let model = Model::new(common::model::office(4, 200));
    let drop = Dropping::over(&Shelf::new(&[(1, "one", &model)]));
    fs::metadata(drop.inbox("")).unwrap();
    drop.basket.go_away(true);
    // More waiting requests than the mount has threads of any kind.
    let waiting: Vec<_> = (0..20)
        .map(|number| {
            let path = drop.inbox(&format!("nobody {number}"));
            std::thread::spawn(move || fs::metadata(path).is_err())
        })
        .collect();
    eventually(PATIENCE, "they wait", || drop.basket.asked_while_away() >= 8);
    let begin = Instant::now();
    let mut bytes = 0;
    for folder in fs::read_dir(drop.mount.path("snapshots/one")).unwrap().map(|entry| entry.unwrap().path()) {
        if folder.is_dir() {
            bytes +=
                fs::read_dir(folder).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap().len()).sum::<usize>();
        }
    }
    assert!(bytes > 800 * 4000 && begin.elapsed() < PATIENCE, "{bytes} bytes took {:?}", begin.elapsed());
    assert!(waiting.iter().all(|thread| !thread.is_finished()));
    drop.basket.go_away(false);
    assert!(waiting.into_iter().all(|thread| thread.join().unwrap()));
}

#[test]
fn too_many_that_wait_are_sent_away() {
    skip_without_fuse!();
    let drop = Dropping::new();
    let mut writer = half_written(&drop);
    drop.basket.go_away(true);
    let ask = |number| {
        let path = drop.inbox(&format!("nobody {number}"));
        std::thread::spawn(move || code(fs::metadata(path)))
    };
    let mut asking: Vec<_> = (0..128).map(ask).collect();
    // Requests that a thread already works on no longer wait, so a few more than 128 fit.
    eventually(PATIENCE, "one is sent away", || {
        asking.push(ask(asking.len()));
        asking.iter().any(std::thread::JoinHandle::is_finished)
    });
    // The kernel does not send the closing of a file twice. So it is queued like the earlier requests, and the killed
    // process is recognised.
    writer.kill().unwrap();
    eventually(PATIENCE, "its file is closed", || drop.mount.mounted.requests().of(Operation::Close) > 0);
    drop.basket.go_away(false);
    writer.wait().unwrap();
    let said: Vec<_> = asking.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(said.contains(&Errno::AGAIN) && said.iter().filter(|errno| **errno == Errno::NOENT).count() >= 128);
    assert!(said.iter().all(|errno| matches!(*errno, Errno::AGAIN | Errno::NOENT)));
    drop.gone("half.eml");
    fs::write(drop.inbox("one.eml"), MAIL).unwrap();
    drop.restored(&[&at("one.eml")]);
}

#[test]
fn who_commits_is_told_when_that_fails() {
    skip_without_fuse!();
    let drop = Dropping::new();
    drop.basket.wait_for_commit();
    fs::write(drop.inbox("one.eml"), MAIL).unwrap();
    drop.basket.fail(Some(|| OutboxError::Storage(std::io::Error::other("the disk failed"))));
    assert_eq!(code(File::create(drop.path("COMMIT"))), Errno::IO);
    drop.basket.fail(None);
    File::create(drop.path("COMMIT")).unwrap();
    drop.restored(&[&at("one.eml")]);
}

#[test]
fn whoever_is_put_aside_while_writing_is_told_by_close() {
    skip_without_fuse!();
    let drop = Dropping::new();
    let path = drop.inbox("one.eml");
    let mut first = File::create(&path).unwrap();
    first.write_all(MAIL).unwrap();
    first.sync_all().unwrap();
    // Another program truncates the file and writes it, while the first keeps writing.
    let mut second = File::create(&path).unwrap();
    first.write_all(MAIL).unwrap();
    second.write_all(OTHER).unwrap();
    assert_eq!(close(first), Err(Errno::PERM), "what it wrote is not kept");
    assert_eq!(close(second), Ok(()));
    drop.restored_last("one.eml", OTHER);
}

#[test]
fn an_outbox_that_fails_does_not_end_the_mount() {
    skip_without_fuse!();
    let drop = Dropping::new();
    drop.basket.fail(Some(|| OutboxError::Unreachable { reason: "no route".to_owned() }));
    assert_eq!(code(fs::metadata(drop.path("contoso"))), Errno::HOSTUNREACH);
    assert_eq!(code(fs::read_dir(drop.path("")).unwrap().collect::<Result<Vec<_>, _>>()), Errno::HOSTUNREACH);
    drop.basket.fail(Some(|| panic!("a bug in the outbox")));
    for _ in 0..20 {
        assert_eq!(code(fs::metadata(drop.path("contoso"))), Errno::IO);
    }
    drop.basket.fail(None);
    assert!(fs::metadata(drop.path("contoso")).unwrap().is_dir());
}

#[test]
fn unmounting_while_files_are_open() {
    skip_without_fuse!();
    let drop = Dropping::new();
    let mut draft = File::create(drop.inbox("draft.eml")).unwrap();
    draft.write_all(&MAIL[..5]).unwrap();
    let mut sealed = File::create(drop.inbox("sealed.eml")).unwrap();
    sealed.write_all(MAIL).unwrap();
    sealed.sync_all().unwrap();
    let Dropping { mount, basket, .. } = drop;
    assert_eq!(mount.mounted.unmount().unwrap(), Unmounted::Detached);
    // Programs that have a file open can still write to it.
    draft.write_all(&MAIL[5..]).unwrap();
    std::mem::drop(draft);
    std::mem::drop(sealed);
    eventually(PATIENCE, "both are restored", || basket.restored_paths() == [at("draft.eml"), at("sealed.eml")]);
    eventually(PATIENCE, "no draft is left", || basket.drafts() == 0);
}

#[test]
fn what_was_closed_before_unmounting_is_handed_over() {
    skip_without_fuse!();
    for _ in 0..10 {
        let drop = Dropping::new();
        fs::write(drop.inbox("one.eml"), MAIL).unwrap();
        fs::write(drop.inbox("rest.part"), MAIL).unwrap();
        let Dropping { mount, basket, .. } = drop;
        assert_eq!(mount.mounted.unmount().unwrap(), Unmounted::Clean);
        eventually(PATIENCE, "it is handed over", || basket.restored_paths() == [at("one.eml")]);
        eventually(PATIENCE, "temporary names go with the mount", || basket.drafts() == 0);
    }
}

#[test]
fn a_limit_to_what_is_open_or_temporary() {
    skip_without_fuse!();
    let drop = Dropping::new();
    for number in 0..4096 {
        fs::write(drop.inbox(&format!("{number}.part")), "x").unwrap();
    }
    assert_eq!(code(File::create(drop.inbox("one.eml"))), Errno::NOSPC);
    fs::remove_file(drop.inbox("0.part")).unwrap();
    fs::write(drop.inbox("one.eml"), MAIL).unwrap();
    drop.restored(&[&at("one.eml")]);
}

#[test]
fn requests_are_counted() {
    skip_without_fuse!();
    let drop = Dropping::new();
    fs::write(drop.inbox("warm.eml"), MAIL).unwrap();
    let requests = drop.mount.mounted.requests();
    let count = || {
        [Operation::Lookup, Operation::Change, Operation::Write, Operation::Close, Operation::Xattr, Operation::Getattr]
            .map(|operation| requests.of(operation))
    };
    let before = count();
    for number in 0..100 {
        fs::write(drop.inbox(&format!("{number}.eml")), MAIL).unwrap();
    }
    let took: Vec<u64> = count().iter().zip(before).map(|(after, before)| after - before).collect();
    eprintln!("lookup, change, write, close, xattr, getattr for 100 files: {took:?}");
    assert!(took[0] <= 160 && took[1..4] == [100, 100, 100] && took[4] <= 100 && took[5] <= 210, "{took:?}");
}

//! The command `mount` as users see it: what it shows, how it begins and ends, and what it refuses. The tests of the
//! file system itself are in mount/tests.

use crate::common;

use common::{
    Lab, Mount, PASSWORD, PATIENCE, assert_same_tree, eventually, is_mounted, names, no_fuse, noise, read_tree, run,
    text, tool, write,
};
use rustix::fs::{CWD, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

const MAIL: &str = "From: Alice <alice@contoso.com>\r\nTo: bob@contoso.com\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\
                    Date: Thu, 1 Jan 2026 09:30:00 +0100\r\nMessage-ID: <1@contoso.com>\r\n\r\nGood morning.\r\n";

/// A laboratory with a small snapshot.
fn lab_with_snapshot() -> (Lab, PathBuf) {
    let lab = Lab::new();
    let source = lab.dir("source");
    write(&source.join("folder/mail.eml"), MAIL);
    write(&source.join("file"), "content");
    std::os::unix::fs::symlink("file", source.join("link")).unwrap();
    lab.backup(&source, "files");
    (lab, source)
}

#[test]
fn layout() {
    if no_fuse() {
        return;
    }
    let lab = Lab::new();
    let mount = lab.mount(&[]);
    assert_eq!(names(mount.path("")), ["README.txt", "snapshots", "text"], "an empty repository");
    assert_eq!(names(mount.path("snapshots")), [""; 0]);

    let source = lab.dir("source");
    write(&source.join("file"), "of Alice");
    lab.backup(&source, "alice");
    write(&source.join("file"), "of Bob");
    lab.backup(&source, "set of bob");
    eventually("both are shown", Duration::from_secs(5), || names(mount.path("snapshots")).len() == 2);
    assert_eq!(names(mount.path("")), ["README.txt", "latest", "snapshots", "text"]);
    assert!(fs::read_to_string(mount.path("README.txt")).unwrap().contains("read-only"));
    let snapshots = names(mount.path("snapshots"));
    // For example `2026-11-01 09.30.00 alice`.
    let set = |name: &str| name.splitn(3, ' ').last().unwrap().to_owned();
    let shape =
        |name: &str| name[..19].chars().map(|char| if char.is_ascii_digit() { '0' } else { char }).collect::<String>();
    assert!(snapshots.iter().all(|name| shape(name) == "0000-00-00 00.00.00"), "{snapshots:?}");
    let mut sets: Vec<_> = snapshots.iter().map(|name| set(name)).collect();
    sets.sort_unstable();
    assert_eq!(sets, ["alice", "set of bob"]);
    let latest = fs::read_link(mount.path("latest")).unwrap();
    assert_eq!(set(latest.file_name().unwrap().to_str().unwrap()), "set of bob");
    assert_eq!(latest.parent(), Some(Path::new("snapshots")));
    assert_eq!(fs::read_to_string(mount.path("latest/file")).unwrap(), "of Bob");
    let alice = snapshots.iter().find(|name| set(name) == "alice").unwrap();
    assert_eq!(fs::read_to_string(mount.path("snapshots").join(alice).join("file")).unwrap(), "of Alice");

    let one = lab.mount(&["--snapshot", "latest:alice"]);
    assert_eq!(names(one.path("")), ["file"]);
    assert_eq!(fs::read_to_string(one.path("file")).unwrap(), "of Alice");
    let (expected, found) = (source.metadata().unwrap(), one.path("").metadata().unwrap());
    assert_eq!(expected.modified().unwrap(), found.modified().unwrap());
    assert_eq!(expected.permissions(), found.permissions());
}

#[test]
fn foreground_ends_by_signals_and_fusermount() {
    if no_fuse() {
        return;
    }
    let (lab, _) = lab_with_snapshot();
    for signal in [Some(Signal::TERM), Some(Signal::INT), Some(Signal::HUP), None] {
        let mut mount = lab.mount_foreground(&[]);
        assert_eq!(fs::read_to_string(mount.path("latest/file")).unwrap(), "content");
        match signal {
            Some(signal) => mount.signal(signal),
            None => _ = tool("fusermount3", args!["-u", mount.path("")]),
        }
        let (code, said) = mount.wait();
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("Mounted at"), "{said}");
        assert!(!is_mounted(&mount.path("")));
        assert_eq!(names(mount.path("")), [""; 0]);
    }
}

#[test]
fn a_mount_in_use_goes_when_asked() {
    if no_fuse() {
        return;
    }
    let (lab, _) = lab_with_snapshot();
    let mut mount = lab.mount_foreground(&[]);
    let open = File::open(mount.path("latest/file")).unwrap();
    mount.signal(Signal::TERM);
    eventually("it is out of the tree", PATIENCE, || !is_mounted(&mount.path("")));
    drop(open);
    assert_eq!(mount.wait().0, Some(0));
}

#[test]
fn background_returns_when_ready_and_logs() {
    if no_fuse() {
        return;
    }
    let (lab, source) = lab_with_snapshot();
    let started = Instant::now();
    // The helper asserts that the folder is mounted when the command returns.
    let mount = lab.mount(&[]);
    assert_eq!(names(mount.path("latest")), ["file", "folder", "link"]);
    assert!(started.elapsed() < Duration::from_secs(10), "mount to first ls took {:?}", started.elapsed());
    assert_same_tree(&read_tree(&source), &read_tree(&mount.path("latest")));
    let logs: Vec<_> = names(lab.state()).iter().map(|id| lab.state().join(id).join("mount.log")).collect();
    assert!(logs.len() == 1 && logs[0].is_file(), "{logs:?}");
    // The process shows the password nowhere.
    let pid = mount.pid().as_raw_pid();
    for file in ["cmdline", "environ"] {
        let seen = fs::read(format!("/proc/{pid}/{file}")).unwrap();
        assert!(!text(&seen).contains(PASSWORD), "{file}");
    }
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    mount.unmount();

    let mount = lab.mount(&["--snapshot", "latest"]);
    mount.signal(Signal::TERM);
    eventually("SIGTERM ends it", PATIENCE, || !is_mounted(&mount.path("")));
    drop(mount);

    // The command says where it has mounted and how to unmount, except with `--quiet`.
    let at = lab.new_mount_point();
    let output = lab.run(args!["mount", &at], 0);
    let said = text(&output.stderr);
    assert!(output.stdout.is_empty() && said.contains(&format!("fusermount3 -u {}", at.display())), "{said}");
    tool("fusermount3", args!["-u", &at]);
    let output = lab.run(args!["mount", &at, "--quiet"], 0);
    assert_eq!((text(&output.stdout), text(&output.stderr)), Default::default());
    tool("fusermount3", args!["-u", &at]);
}

#[test]
fn background_from_a_relative_path() {
    if no_fuse() {
        return;
    }
    let (lab, _) = lab_with_snapshot();
    // Every path is relative to the working folder: the repository, the state, the password file and the mount point.
    write(&lab.path("password"), format!("{PASSWORD}\n"));
    let at = lab.new_mount_point();
    let at_relative = at.strip_prefix(lab.path("")).unwrap();
    let mut command = lab.command(args!["mount", at_relative, "--repo", "repository", "--state-dir", "state"]);
    command.args(["--password-file", "password"]);
    for name in ["STRONGROOM_REPO", "STRONGROOM_PASSWORD", "STRONGROOM_STATE_DIR"] {
        command.env_remove(name);
    }
    run(&mut command, 0);
    assert_eq!(fs::read_to_string(at.join("latest/file")).unwrap(), "content");
    tool("fusermount3", args!["-u", &at]);
}

#[test]
fn kill_9_leaves_no_mount() {
    if no_fuse() {
        return;
    }
    let (lab, _) = lab_with_snapshot();
    let starts: [fn(&Lab) -> Mount; 2] = [|lab| lab.mount(&[]), |lab| lab.mount_foreground(&["--snapshot", "latest"])];
    for start in starts {
        let mount = start(&lab);
        tool("ls", args!["-lR", mount.path("")]);
        mount.signal(Signal::KILL);
        eventually("the mount is gone", Duration::from_secs(10), || !is_mounted(&mount.path("")));
        assert_eq!(names(mount.path("")), [""; 0], "an ordinary empty folder again");
    }
}

#[test]
fn wrong_places_and_wrong_questions() {
    if no_fuse() {
        return;
    }
    let (lab, _) = lab_with_snapshot();
    let busy = lab.mount(&[]);
    let at = lab.new_mount_point();
    let missing = lab.path("missing");
    let file = lab.path("source/file");
    let cases = [
        (args![&missing], 1, "does not exist"),
        (args![&file], 1, "is not a folder"),
        (args![busy.path("")], 1, "already mounted"),
        (args![&at, "--snapshot", "0000"], 2, "strongroom snapshots"),
        (args![&at, "--snapshot", "latest:nobody"], 2, "no set called \"nobody\""),
        (args![&at, "--snapshot", "latest:files:folder"], 2, "without a path"),
        (args![&at, "--repo", lab.path("source")], 10, "strongroom init"),
        (args![&at, "--repo", lab.path("nowhere")], 10, "strongroom init"),
    ];
    for (arguments, exit, expected) in cases {
        for mode in [None, Some("--foreground")] {
            let all = args!["mount"].into_iter().chain(arguments.clone()).chain(mode.map(Into::into));
            let said = text(&lab.run(all, exit).stderr);
            assert!(said.contains(expected), "{arguments:?} {mode:?}: {said}");
            assert!(said.starts_with("Error: ") && said.contains("\nHint: ") || exit == 2, "{arguments:?}: {said}");
            assert_eq!(said.matches("Error: ").count(), 1, "told once: {said}");
        }
    }
    for mode in [None, Some("--foreground")] {
        let mut command = lab.command(args!["mount", &at]);
        run(command.args(mode).env("STRONGROOM_PASSWORD", "wrong"), 12);
    }
    assert!(!is_mounted(&at), "nothing is left behind");
    assert_eq!(fs::read_to_string(busy.path("latest/file")).unwrap(), "content", "the other mount is as it was");
}

#[test]
fn nothing_can_be_written() {
    if no_fuse() {
        return;
    }
    let (lab, source) = lab_with_snapshot();
    let mount = lab.mount(&["--xattr"]);
    let before = read_tree(&mount.path("latest"));
    for dir in [mount.path(""), mount.path("snapshots"), mount.path("latest"), mount.path("latest/folder")] {
        let mode = Mode::from_raw_mode(0o644);
        assert_eq!(rustix::fs::open(dir.join("new"), OFlags::CREATE | OFlags::WRONLY, mode).unwrap_err(), Errno::ROFS);
        assert_eq!(rustix::fs::mkdir(dir.join("new"), mode), Err(Errno::ROFS));
        assert_eq!(rustix::fs::symlink("target", dir.join("new")), Err(Errno::ROFS));
        assert_eq!(rustix::fs::mknodat(CWD, dir.join("new"), FileType::Fifo, mode, 0), Err(Errno::ROFS));
    }
    let (file, folder, other) = (mount.path("latest/file"), mount.path("latest/folder"), mount.path("latest/other"));
    for flags in [OFlags::WRONLY, OFlags::RDWR, OFlags::WRONLY | OFlags::TRUNC, OFlags::WRONLY | OFlags::APPEND] {
        assert_eq!(rustix::fs::open(&file, flags, Mode::empty()).unwrap_err(), Errno::ROFS);
    }
    assert_eq!(rustix::fs::unlink(&file), Err(Errno::ROFS));
    assert_eq!(rustix::fs::rmdir(&folder), Err(Errno::ROFS));
    assert_eq!(rustix::fs::rename(&file, &other), Err(Errno::ROFS));
    assert_eq!(rustix::fs::link(&file, &other), Err(Errno::ROFS));
    assert_eq!(rustix::fs::chmod(&file, Mode::RWXU), Err(Errno::ROFS));
    assert_eq!(rustix::fs::setxattr(&file, "user.strongroom.subject", b"x", XattrFlags::empty()), Err(Errno::ROFS));
    assert_eq!(rustix::fs::removexattr(&file, "user.strongroom.snapshot"), Err(Errno::ROFS));
    let touched = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    let error = File::open(&file).unwrap().set_times(touched).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_same_tree(&before, &read_tree(&mount.path("latest")));
    assert_same_tree(&before, &read_tree(&source));
}

fn xattr(path: &Path, name: &str) -> Result<String, Errno> {
    let mut value = [0; 256];
    rustix::fs::lgetxattr(path, name, &mut value[..]).map(|len| text(&value[..len]))
}

#[test]
fn facts_as_extended_attributes() {
    if no_fuse() {
        return;
    }
    let (lab, _) = lab_with_snapshot();
    let mount = lab.mount(&["--xattr"]);
    let mail = mount.path("latest/folder/mail.eml");
    let get = |name: &str| xattr(&mail, &format!("user.strongroom.{name}"));
    assert_eq!(get("subject").as_deref(), Ok("Grüße"));
    assert_eq!(get("from").as_deref(), Ok("Alice <alice@contoso.com>"));
    assert_eq!(get("to").as_deref(), Ok("bob@contoso.com"));
    assert_eq!(get("message_id").as_deref(), Ok("1@contoso.com"));
    assert_eq!(get("date").as_deref(), Ok("2026-01-01T08:30:00Z"));
    assert_eq!(get("snapshot").as_deref(), Ok(lab.json(["snapshots"])[0]["id"].as_str().unwrap()));
    assert_eq!(get("nonsense"), Err(Errno::NODATA));
    assert_eq!(xattr(&mount.path("latest/file"), "user.strongroom.subject"), Err(Errno::NODATA));
    // Without `--xattr` there are no attributes.
    let plain = lab.mount(&[]);
    assert_eq!(xattr(&plain.path("latest/folder/mail.eml"), "user.strongroom.subject"), Err(Errno::NOTSUP));
}

#[test]
fn mounts_while_a_backup_runs() {
    if no_fuse() {
        return;
    }
    let (lab, source) = lab_with_snapshot();
    let expected = read_tree(&source);
    let large = lab.dir("large");
    for number in 0..30 {
        write(&large.join(number.to_string()), noise(number, 4 << 20));
    }
    let mut child = lab.command(args!["backup", "--files", &large]).stdout(Stdio::null()).spawn().unwrap();
    let pid = Pid::from_child(&child);
    let packs = lab.objects().len();
    eventually("the backup has stored something", PATIENCE, || lab.objects().len() > packs);
    kill_process(pid, Signal::STOP).unwrap();
    let checked = std::panic::catch_unwind(|| {
        let mount = lab.mount(&[]);
        assert_same_tree(&expected, &read_tree(&mount.path("latest")));
        kill_process(pid, Signal::CONT).unwrap();
        eventually("its snapshot is shown", PATIENCE, || mount.path("latest/29").exists());
        assert_same_tree(&read_tree(&large), &read_tree(&mount.path("latest")));
    });
    if checked.is_err() {
        let _ = child.kill();
    }
    assert!(child.wait().unwrap().success() && checked.is_ok());
}

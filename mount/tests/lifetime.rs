//! Changes while mounted: snapshots come and go, and the mount itself ends.

mod common;

use common::model::{Model, Shelf, Tree, office};
use common::walk::{hostile, walk};
use common::{Fixture, PATIENCE, eventually, is_mounted, no_fuse};
use rustix::fs::Mode;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strongroom_mount::{MountError, Options, Target, Unmounted, mount};

/// Maximum time until a change of the catalog must be visible.
const SOON: Duration = Duration::from_secs(3);

macro_rules! skip_without_fuse {
    () => {
        if no_fuse() {
            return;
        }
    };
}

fn view(model: &Arc<Model>) -> Target {
    Target::View(model.clone())
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_new_snapshot_appears() {
    skip_without_fuse!();
    let model = Model::new(Tree::empty().with(&[b"file"], Tree::File(b"1".to_vec())));
    let other = Model::new(Tree::empty().with(&[b"file"], Tree::File(b"2".to_vec())));
    let shelf = Shelf::new(&[]);
    let mount = Fixture::new(Target::Catalog(shelf.clone()), &Options::default());
    let snapshots = &mount.path("snapshots");
    assert_eq!(names(&mount.path("")), set(&["README.txt", "snapshots"]));
    assert_eq!(names(snapshots), set(&[]));
    for round in 1..=3_u8 {
        let name = format!("snapshot {round}");
        // Ask for everything that the kernel could cache: the listing, a name that does not exist, and `latest`.
        let before = names(snapshots);
        assert!(!snapshots.join(&name).exists());
        let _ = fs::read_link(mount.path("latest"));
        shelf.add(round, &name, if round % 2 == 0 { &other } else { &model });
        eventually(SOON, "it is listed", || names(snapshots).len() == before.len() + 1);
        eventually(SOON, "it is found", || snapshots.join(&name).join("file").exists());
        eventually(SOON, "latest leads to it", || {
            fs::read_link(mount.path("latest")).is_ok_and(|target| target == Path::new("snapshots").join(&name))
        });
        eventually(SOON, "latest is listed", || names(&mount.path("")).contains("latest"));
        let expected: &[u8] = if round % 2 == 0 { b"2" } else { b"1" };
        assert_eq!(fs::read(mount.path("latest/file")).unwrap(), expected);
        assert_eq!(fs::metadata(snapshots).unwrap().nlink(), 2 + u64::from(round));
    }
}

#[test]
fn a_forgotten_snapshot_vanishes_and_open_files_stay() {
    skip_without_fuse!();
    let content = vec![7; 3 << 20];
    let model = Model::new(
        Tree::empty()
            .with(&[b"dir", b"file"], Tree::File(content.clone()))
            .with(&[b"dir", b"next"], Tree::File(vec![8])),
    );
    let kept = Model::new(Tree::empty());
    let shelf = Shelf::new(&[(1, "kept", &kept), (2, "goes", &model)]);
    let mount = Fixture::new(Target::Catalog(shelf.clone()), &Options::default());
    let snapshots = &mount.path("snapshots");
    assert_eq!(names(snapshots), set(&["kept", "goes"]));
    let mut file = File::open(snapshots.join("goes/dir/file")).unwrap();
    let folder = File::open(snapshots.join("goes/dir")).unwrap();
    let mut first = [0; 10];
    file.read_exact(&mut first).unwrap();

    shelf.remove(2);
    eventually(SOON, "it is not listed", || names(snapshots) == set(&["kept"]));
    eventually(SOON, "it is not found", || !snapshots.join("goes").exists());
    eventually(SOON, "latest leads elsewhere", || {
        fs::read_link(mount.path("latest")).is_ok_and(|target| target == Path::new("snapshots/kept"))
    });
    assert!(!snapshots.join("goes/dir/file").exists());

    let mut rest = Vec::new();
    file.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, content[10..]);
    let next = rustix::fs::openat(&folder, "next", rustix::fs::OFlags::RDONLY, Mode::empty()).unwrap();
    assert_eq!(File::from(next).metadata().unwrap().len(), 1, "an open folder can be used on");
    assert_eq!(Arc::strong_count(&model), 2, "this test, and the mount");
}

#[test]
fn a_forgotten_snapshot_that_nobody_uses_is_let_go_of() {
    skip_without_fuse!();
    let model = Model::new(hostile());
    let shelf = Shelf::new(&[(1, "goes", &model)]);
    let mount = Fixture::new(Target::Catalog(shelf.clone()), &Options::default());
    walk(&mount, "snapshots/goes", &model);
    walk(&mount, "latest/", &model);
    assert_eq!(Arc::strong_count(&model), 3, "this test, the catalog and the mount");
    shelf.remove(1);
    eventually(PATIENCE, "the kernel has dropped all of it, so the mount does", || Arc::strong_count(&model) == 1);
}

#[test]
fn walking_while_snapshots_come_and_go() {
    skip_without_fuse!();
    let model = Model::new(office(3, 20));
    let stays = Model::new(hostile());
    let shelf = Shelf::new(&[(1, "stays", &stays)]);
    // Constant changes while all threads are busy: the kernel and the mount must never wait for each other.
    let options = Options { poll_interval: Duration::from_millis(5), ..Options::default() };
    let mount = Fixture::new(Target::Catalog(shelf.clone()), &options);
    let end = Instant::now() + Duration::from_secs(3);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in (2..7).cycle().take_while(|_| Instant::now() < end) {
                shelf.remove(number);
                shelf.add(number, &format!("snapshot {number}"), &model);
                shelf.remove(if number < 5 { number + 2 } else { number - 3 });
                std::thread::sleep(Duration::from_millis(7));
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while Instant::now() < end {
                    walk(&mount, "snapshots/stays", &stays);
                    let find = Command::new("find").arg(mount.path("")).args(["-type", "f"]).output().unwrap();
                    // Snapshots may disappear while `find` reads them. Only these two errors may occur.
                    for complaint in String::from_utf8_lossy(&find.stderr).lines() {
                        let expected = complaint.ends_with("No such file or directory")
                            || complaint.ends_with("Stale file handle");
                        assert!(expected, "{complaint}");
                    }
                }
            });
        }
    });
    for number in 2..7 {
        shelf.remove(number);
    }
    eventually(SOON, "calm again", || names(&mount.path("snapshots")) == set(&["stays"]));
}

#[test]
fn unmounting() {
    skip_without_fuse!();
    let model = Model::new(Tree::empty().with(&[b"file"], Tree::Zeros(8 << 20)));
    let Fixture { mounted, folder } = Fixture::new(view(&model), &Options::default());
    assert!(is_mounted(folder.path()));
    let unmounter = mounted.unmounter();
    assert_eq!(unmounter.unmount().unwrap(), Unmounted::Clean);
    assert!(!is_mounted(folder.path()));
    assert_eq!(unmounter.clone().unmount().unwrap(), Unmounted::Clean, "again");
    mounted.wait();
    drop(mounted);
    eventually(PATIENCE, "the view is let go of", || Arc::strong_count(&model) == 1);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn unmounting_while_a_file_is_open() {
    skip_without_fuse!();
    let model = Model::new(Tree::empty().with(&[b"file"], Tree::Zeros(8 << 20)));
    let Fixture { mounted, folder } = Fixture::new(view(&model), &Options::default());
    let mut file = File::open(folder.path().join("file")).unwrap();
    assert_eq!(mounted.unmounter().unmount().unwrap(), Unmounted::Detached);
    assert!(!is_mounted(folder.path()));
    mounted.wait();
    drop(mounted);
    let mut bytes = Vec::new();
    assert_eq!(file.read_to_end(&mut bytes).unwrap(), 8 << 20, "served for as long as this process lives");
    drop(file);
    eventually(PATIENCE, "the view is let go of", || Arc::strong_count(&model) == 1);
}

#[test]
fn unmounted_from_outside() {
    skip_without_fuse!();
    let model = Model::new(Tree::empty());
    let shelf = Shelf::new(&[(1, "one", &model)]);
    for command in [["fusermount3", "-u"], ["umount", "-l"]] {
        let Fixture { mounted, folder } = Fixture::new(Target::Catalog(shelf.clone()), &Options::default());
        names(&folder.path().join("snapshots/one"));
        assert!(Command::new(command[0]).arg(command[1]).arg(folder.path()).status().unwrap().success());
        mounted.wait();
        assert!(!is_mounted(folder.path()));
    }
}

#[test]
fn an_aborted_connection_leaves_no_dead_mount() {
    skip_without_fuse!();
    let model = Model::new(Tree::empty());
    let Fixture { mounted, folder } = Fixture::new(view(&model), &Options::default());
    let device = fs::metadata(folder.path()).unwrap().dev();
    let abort = format!("/sys/fs/fuse/connections/{}/abort", rustix::fs::minor(device));
    if fs::write(&abort, "1").is_err() {
        eprintln!("SKIPPED: {abort} cannot be written here");
        return;
    }
    mounted.wait();
    assert!(!is_mounted(folder.path()));
}

#[test]
fn places_that_cannot_be_mounted_on() {
    skip_without_fuse!();
    let model = Model::new(Tree::empty());
    let fixture = Fixture::new(view(&model), &Options::default());
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    let link = scratch.path().join("link");
    std::os::unix::fs::symlink(fixture.path(""), &link).unwrap();
    let refused = |at: &Path| mount(view(&model), at, &Options::default()).map(drop).unwrap_err();
    assert!(matches!(refused(&scratch.path().join("none")), MountError::NotFound { .. }));
    assert!(matches!(refused(&file), MountError::NotADirectory { .. }));
    assert!(matches!(refused(&fixture.path("")), MountError::AlreadyMounted { .. }));
    let error = refused(&link);
    assert!(error.hint().unwrap().contains(fixture.folder.path().to_str().unwrap()), "names the real place: {error}");
    // A folder with an unusual name works as well.
    let strange = scratch.path().join(std::ffi::OsString::from_vec(b"a b\\\n\xff,o=x".to_vec()));
    fs::create_dir(&strange).unwrap();
    let mounted = mount(view(&model), &strange, &Options::default()).unwrap();
    assert_eq!(fs::metadata(&strange).unwrap().ino(), 1);
    assert_eq!(mounted.unmount().unwrap(), Unmounted::Clean);
    assert_ne!(fs::metadata(&strange).unwrap().ino(), 1);
}

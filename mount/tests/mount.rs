//! Real mounts: compares what programs see through the kernel with the model.

mod common;

use common::model::{Model, Shelf, Tree, office};
use common::walk::{hostile, walk};
use common::{Fixture, no_fuse};
use rustix::fs::{Access, AtFlags, Mode, RawDir, SeekFrom, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use strongroom_mount::{Kind, Operation, Options, Owner, Target, Unmounted, View};

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

fn code<T: std::fmt::Debug>(result: std::io::Result<T>) -> Errno {
    Errno::from_raw_os_error(result.unwrap_err().raw_os_error().expect("from the system"))
}

#[test]
fn walk_is_the_same_as_the_model() {
    skip_without_fuse!();
    let model = Model::new(hostile());
    let mount = Fixture::new(view(&model), &Options::default());
    let cold = walk(&mount, "", &model);
    assert_eq!(cold.len(), model.entries.len());
    assert_eq!(cold.values().collect::<BTreeSet<_>>().len(), cold.len(), "no number twice");
    assert_eq!(walk(&mount, "", &model), cold, "warm");
    assert_eq!(fs::metadata(mount.path("")).unwrap().ino(), 1);
    assert_eq!(fs::read(mount.path("link").join(OsStr::from_bytes(b"\xff\xfe\x80"))).unwrap(), b"\xff\xfe\x80");

    // `find` in another process uses other requests.
    let output = Command::new("find").arg(".").arg("-print0").current_dir(mount.path("")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout.iter().filter(|byte| **byte == 0).count(), model.entries.len());
}

#[test]
fn inode_numbers_survive_a_remount() {
    skip_without_fuse!();
    let model = Model::new(hostile());
    let shelf = Shelf::new(&[(1, "one", &model), (2, "two", &model)]);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mount = Fixture::new(Target::Catalog(shelf.clone()), &Options::default());
        let (one, two) = (walk(&mount, "snapshots/one", &model), walk(&mount, "snapshots/two", &model));
        assert!(one.values().collect::<HashSet<_>>().is_disjoint(&two.values().collect()));
        assert_eq!(walk(&mount, "latest/", &model), two);
        seen.push((one, two));
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn twenty_thousand_files_in_one_folder() {
    skip_without_fuse!();
    let files: BTreeMap<_, _> = (0..20_000).map(|n| (format!("{n:06}").into_bytes(), Tree::File(vec![]))).collect();
    let model = Model::new(Tree::Directory(files));
    let mount = Fixture::new(view(&model), &Options::default());
    for _ in 0..2 {
        let folder = File::open(mount.path("")).unwrap();
        let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
        let mut entries = Vec::new();
        let mut raw = RawDir::new(&folder, &mut buffer);
        while let Some(entry) = raw.next() {
            let entry = entry.unwrap();
            entries.push((entry.file_name().to_owned(), entry.ino(), entry.next_entry_cookie()));
        }
        assert_eq!(entries.len(), 20_002);
        // Seeking to the position after an entry returns the next entry.
        for index in [20_000, 19_999, 1, 2, 3, 777, 10_000, 12_345, 0] {
            rustix::fs::seek(&folder, SeekFrom::Start(entries[index].2)).unwrap();
            let mut raw = RawDir::new(&folder, &mut buffer);
            let entry = raw.next().unwrap().unwrap();
            assert_eq!((entry.file_name(), entry.ino()), (entries[index + 1].0.as_c_str(), entries[index + 1].1));
        }
        rustix::fs::seek(&folder, SeekFrom::Start(entries[20_001].2)).unwrap();
        assert!(RawDir::new(&folder, &mut buffer).next().is_none(), "at the end is the end");
    }
}

#[test]
fn sixty_levels_deep() {
    skip_without_fuse!();
    let names: Vec<String> = (0..60).map(|level| format!("level {level} {}", "x".repeat(20))).collect();
    let mut path: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    path.push(b"bottom");
    let model = Model::new(Tree::empty().with(&path, Tree::File(b"here".to_vec())));
    let mount = Fixture::new(view(&model), &Options::default());
    walk(&mount, "", &model);
    let mut deepest = mount.path("");
    deepest.extend(names.iter().map(Path::new));
    assert_eq!(fs::read(deepest.join("bottom")).unwrap(), b"here");
    // All the way up again, by "..".
    let up = deepest.join(["..", "/"].concat().repeat(60));
    assert_eq!(fs::metadata(up).unwrap().ino(), 1);
}

#[test]
fn large_files() {
    skip_without_fuse!();
    let pattern: Vec<u8> = (0..3_333_333_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let model = Model::new(
        Tree::empty().with(&[b"pattern"], Tree::File(pattern.clone())).with(&[b"sparse"], Tree::Zeros(3 << 30)),
    );
    let mount = Fixture::new(view(&model), &Options::default());
    assert_eq!(fs::read(mount.path("pattern")).unwrap(), pattern);
    let reads = mount.mounted.requests().of(Operation::Read);
    assert!(reads <= 40, "13 MB take {reads} requests");
    let file = File::open(mount.path("pattern")).unwrap();
    let mut bytes = [0; 5000];
    for offset in [0, 1, 4095, 4096, 1 << 20, (1 << 20) - 1, 7_654_321] {
        file.read_exact_at(&mut bytes, offset as u64).unwrap();
        assert_eq!(bytes, pattern[offset..offset + 5000]);
    }
    let sparse = File::open(mount.path("sparse")).unwrap();
    assert_eq!(sparse.read_at(&mut bytes, (3 << 30) - 100).unwrap(), 100);
    assert_eq!(sparse.read_at(&mut bytes, 3 << 30).unwrap(), 0);
    assert_eq!(rustix::fs::seek(&sparse, SeekFrom::Hole(0)).unwrap(), 3 << 30, "one piece of data");
}

#[test]
fn everything_that_writes_gets_erofs() {
    skip_without_fuse!();
    let model = Model::new(Tree::empty().with(&[b"file"], Tree::File(b"x".to_vec())).with(&[b"dir"], Tree::empty()));
    for xattr in [false, true] {
        let mount = Fixture::new(view(&model), &Options { xattr, ..Options::default() });
        let (file, dir, new) = (&mount.path("file"), &mount.path("dir"), &mount.path("new"));
        let handle = File::open(file).unwrap();
        let now = Timespec { tv_sec: 1, tv_nsec: 0 };
        let times = Timestamps { last_access: now, last_modification: now };
        let mode = Mode::from_raw_mode(0o600);
        let at = rustix::fs::CWD;
        let fifo = rustix::fs::FileType::Fifo;
        let outcomes: Vec<(&str, Result<(), Errno>)> = vec![
            ("create", File::create(new).map(drop).map_err(|e| code::<()>(Err(e)))),
            ("open for writing", File::options().write(true).open(file).map(drop).map_err(|e| code::<()>(Err(e)))),
            ("open for appending", File::options().append(true).open(file).map(drop).map_err(|e| code::<()>(Err(e)))),
            ("truncate", rustix::fs::open(file, rustix::fs::OFlags::TRUNC, mode).map(drop)),
            ("mkdir", rustix::fs::mkdir(new, mode)),
            ("mknod", rustix::fs::mknodat(at, new, fifo, mode, 0)),
            ("symlink", rustix::fs::symlink("x", new)),
            ("link", rustix::fs::link(file, new)),
            ("rename", rustix::fs::rename(file, new)),
            ("unlink", rustix::fs::unlink(file)),
            ("rmdir", rustix::fs::rmdir(dir)),
            ("chmod", rustix::fs::chmod(file, mode)),
            ("fchmod", rustix::fs::fchmod(&handle, mode)),
            ("chown", rustix::fs::chown(file, None, Some(rustix::fs::Gid::from_raw(1)))),
            ("utimens", rustix::fs::utimensat(at, file, &times, AtFlags::empty())),
            ("setxattr", rustix::fs::setxattr(file, "user.x", b"x", XattrFlags::empty())),
            ("removexattr", rustix::fs::removexattr(file, "user.strongroom.rank")),
            ("access", rustix::fs::access(file, Access::WRITE_OK)),
            ("access of a folder", rustix::fs::access(dir, Access::WRITE_OK)),
        ];
        for (operation, outcome) in outcomes {
            assert_eq!(outcome, Err(Errno::ROFS), "{operation}");
        }
        // The handle is open for reading only, so the kernel refuses the write before the file system could.
        assert_eq!(rustix::io::write(&handle, b"x"), Err(Errno::BADF));
        assert_eq!(fs::read(file).unwrap(), b"x");
    }
}

#[test]
fn permission_bits_are_checked() {
    skip_without_fuse!();
    let files = (0..6).map(|n| (vec![b'a' + n], Tree::File(vec![n]))).collect();
    let model = Model::new(Tree::Directory(files));
    let mount = Fixture::new(view(&model), &Options::default());
    for entry in &model.entries[1..] {
        let executable = rustix::fs::access(mount.path(OsStr::from_bytes(&entry.name)), Access::EXEC_OK).is_ok();
        assert_eq!(executable, entry.attr.mode & 0o111 != 0, "{:o}", entry.attr.mode);
    }
}

#[test]
fn the_mounting_user_can_be_shown_as_owner() {
    skip_without_fuse!();
    let model = Model::new(Tree::empty().with(&[b"dir", b"file"], Tree::File(vec![])));
    let mount = Fixture::new(view(&model), &Options { owner: Owner::MountingUser, ..Options::default() });
    let stat = fs::metadata(mount.path("dir/file")).unwrap();
    assert_eq!((stat.uid(), stat.gid()), (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()));
    assert_eq!(stat.mode() & 0o400, 0o400);
}

#[test]
fn a_warm_mount_is_asked_nothing() {
    skip_without_fuse!();
    let model = Model::new(office(10, 100));
    let mount = Fixture::new(view(&model), &Options::default());
    let requests = mount.mounted.requests();
    let walk = |what: &str| {
        // Do what ls -lR, find and rg do: read attributes, list folders, look up names that do not exist, read content.
        let before = requests.total();
        let mut folders = vec![mount.path("")];
        while let Some(folder) = folders.pop() {
            assert!(!folder.join(".gitignore").exists());
            for entry in fs::read_dir(&folder).unwrap() {
                let entry = entry.unwrap();
                let metadata = entry.metadata().unwrap();
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else if metadata.len() < 1 << 20 {
                    assert_eq!(fs::read(entry.path()).unwrap().len() as u64, metadata.len());
                }
                assert!(rustix::fs::access(entry.path(), Access::READ_OK).is_ok());
                assert!(rustix::fs::getxattr(entry.path(), "security.selinux", &mut [0; 8][..]).is_err());
            }
        }
        eprintln!("{what}: {} requests; so far {requests}", requests.total() - before);
        requests.total() - before
    };
    let cold = walk("cold");
    assert!(cold < 1200, "a file of 4 KiB costs one request, a folder a few: {cold}");
    assert_eq!(walk("warm"), 0);
}

#[test]
fn size_of_the_file_system() {
    skip_without_fuse!();
    let small = Model::new(Tree::empty());
    let model = Model::new(office(2, 30));
    let shelf = Shelf::new(&[(2, "newest", &model), (1, "oldest", &small)]);
    for target in [view(&model), Target::Catalog(shelf)] {
        let mount = Fixture::new(target, &Options::default());
        let shown = rustix::fs::statvfs(mount.path("")).unwrap();
        let totals = model.totals();
        assert_eq!((shown.f_bsize, shown.f_frsize, shown.f_namemax), (4096, 4096, 255));
        assert_eq!(shown.f_blocks, totals.bytes.div_ceil(4096));
        assert_eq!(shown.f_files, totals.entries);
        assert_eq!((shown.f_bfree, shown.f_bavail, shown.f_ffree), (0, 0, 0));
        assert!(shown.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    }
}

#[test]
fn du_adds_up() {
    skip_without_fuse!();
    let model = Model::new(hostile());
    let mount = Fixture::new(view(&model), &Options::default());
    let du = |options: &[&str]| -> u64 {
        let output = Command::new("du").args(options).arg(mount.path("")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).split('\t').next().unwrap().parse().unwrap()
    };
    assert_eq!(du(&["-s", "--block-size=512"]), model.entries.iter().map(|entry| entry.attr.size.div_ceil(512)).sum());
    let bytes: u64 = model.entries.iter().filter(|e| e.attr.kind != Kind::Directory).map(|e| e.attr.size).sum();
    assert_eq!(du(&["-sb"]), bytes);
}

#[test]
fn extended_attributes_are_opt_in() {
    skip_without_fuse!();
    let model = Model::new(Tree::empty().with(&[b"file"], Tree::File(vec![])));
    let get = |path: &Path, name: &str, size: usize| {
        let mut value = vec![0; size];
        rustix::fs::getxattr(path, name, &mut value[..]).map(|length| value[..length].to_vec())
    };
    {
        let mount = Fixture::new(view(&model), &Options::default());
        let file = &mount.path("file");
        assert_eq!(get(file, "user.strongroom.rank", 10), Err(Errno::OPNOTSUPP));
        assert_eq!(rustix::fs::listxattr(file, &mut [0; 100][..]), Err(Errno::OPNOTSUPP));
        get(file, "user.strongroom.rank", 10).unwrap_err();
        assert!(mount.mounted.requests().of(Operation::Xattr) <= 2, "the kernel has stopped asking");
    }
    let mount = Fixture::new(view(&model), &Options { xattr: true, ..Options::default() });
    let file = &mount.path("file");
    assert_eq!(get(file, "user.strongroom.rank", 10).unwrap(), b"1");
    assert_eq!(get(file, "user.strongroom.subject", 7).unwrap(), b"caf\xc3\xa9 \xff");
    assert_eq!(get(file, "user.strongroom.subject", 6), Err(Errno::RANGE));
    assert_eq!(rustix::fs::getxattr_query(file, "user.strongroom.subject"), Ok(7));
    assert_eq!(get(file, "user.none", 10), Err(Errno::NODATA));
    assert_eq!(get(file, "security.capability", 10), Err(Errno::NODATA));
    let expected = b"user.strongroom.rank\0user.strongroom.subject\0";
    let mut list = [0; 100];
    assert_eq!(rustix::fs::listxattr_query(file), Ok(expected.len()));
    assert_eq!(rustix::fs::listxattr(file, &mut list[..]), Ok(expected.len()));
    assert_eq!(list[..expected.len()], expected[..]);
    assert_eq!(rustix::fs::listxattr(file, &mut [0; 9][..]), Err(Errno::RANGE));
}

#[test]
fn damage_and_panics_do_not_end_the_mount() {
    skip_without_fuse!();
    let model = Model::new(
        Tree::empty()
            .with(&[b"damaged"], Tree::Damaged(Kind::File))
            .with(&[b"buggy"], Tree::Panics(Kind::File))
            .with(&[b"damaged dir"], Tree::Damaged(Kind::Directory))
            .with(&[b"buggy dir"], Tree::Panics(Kind::Directory))
            .with(&[b"good"], Tree::File(b"good".to_vec())),
    );
    let mount = Fixture::new(view(&model), &Options::default());
    for _ in 0..3 {
        for name in ["damaged", "buggy"] {
            assert_eq!(code(fs::read(mount.path(name))), Errno::IO, "{name}");
            let folder = mount.path(format!("{name} dir"));
            assert_eq!(code(fs::read_dir(&folder).unwrap().collect::<Result<Vec<_>, _>>()), Errno::IO, "{folder:?}");
            assert_eq!(code(fs::metadata(folder.join("below"))), Errno::IO);
        }
        assert_eq!(fs::read(mount.path("good")).unwrap(), b"good");
    }
    assert_eq!(mount.mounted.unmount().unwrap(), Unmounted::Clean);
}

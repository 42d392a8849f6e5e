//! Restores that are interrupted, of damaged snapshots, deep trees and sparse files.

use super::*;

#[test]
fn an_interrupted_restore_is_completed_by_the_next() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for number in 0..1500 {
        write(from.path().join(format!("{}/{}/{number}", number / 100, number / 20)), number.to_string());
    }
    for path in scan(from.path()).keys() {
        set_mtime(&from.path().join(OsStr::from_bytes(path)), 1_600_000_000, path.len() as i64);
    }
    let fixture = Fixture::new();
    let root = fixture.back_up(from.path()).root;
    let (reader, cancel, progress) = (fixture.reader(), AtomicBool::new(false), Progress::default());
    let plan = RestorePlan::to_folder(&reader, &root, &[], to.path(), WhenExists::Skip, &cancel).unwrap();
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            while progress.items.load(Ordering::Relaxed) < 100 {
                std::hint::spin_loop();
            }
            cancel.store(true, Ordering::Relaxed);
        });
        plan.execute(&progress, &cancel).unwrap()
    });
    assert!(matches!(report.stopped, Some(RestoreError::Interrupted)));
    assert!(report.restored >= 100 && report.restored < 1500, "{}", report.restored);
    let (expected, half) = (scan(from.path()), scan(to.path()));
    assert!(half.iter().all(|(path, seen)| expected[path] == *seen));
    let rest = fixture.restore(&root, to.path(), WhenExists::Skip);
    assert_eq!((rest.restored + report.restored, rest.already_there), (1500, report.restored));
    assert_eq!(scan(to.path()), expected);
}

#[test]
fn holes_stay_holes() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let path = from.path().join("sparse");
    let file = fs::File::create(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 100 << 20).unwrap();
    file.set_len((192 << 20) + 5).unwrap();
    write(from.path().join("zeros"), vec![0; 70_000]);
    let fixture = Fixture::new();
    let root = fixture.back_up(from.path()).root;
    assert_eq!(fixture.restore(&root, to.path(), WhenExists::Skip).failures, []);
    let stat = fs::metadata(to.path().join("sparse")).unwrap();
    assert_eq!(stat.len(), (192 << 20) + 5);
    assert!(stat.blocks() * 512 < 1 << 20, "{} blocks", stat.blocks());
    assert!(fs::read(to.path().join("sparse")).unwrap() == fs::read(path).unwrap());
    assert_eq!(fs::read(to.path().join("zeros")).unwrap(), vec![0; 70_000]);
}

#[test]
fn deep_trees_need_few_descriptors_and_no_stack() {
    let to = TempDir::new().unwrap();
    let fixture = Fixture::new();
    const DEPTH: usize = 2000;
    let root = fixture.build(|builder| {
        // Two files: one comes before the folder below, one behind it.
        let (before, after) = (builder.file(b"a", b"before"), builder.file(b"z", b"after"));
        let mut dir = builder.tree(vec![before.clone(), after.clone()]);
        for _ in 0..DEPTH {
            let mut below = Entry::new(b"d", EntryKind::Directory(dir), Timestamp { secs: 4000, nanos: 4 });
            below.mode = Some(0o755);
            dir = builder.tree(vec![before.clone(), below, after.clone()]);
        }
        dir
    });
    let small_stack = std::thread::Builder::new().stack_size(256 << 10);
    let report = std::thread::scope(|scope| {
        let run = || {
            let (reader, cancel) = (fixture.reader(), AtomicBool::new(false));
            let plan = RestorePlan::to_folder(&reader, &root, &[], to.path(), WhenExists::Skip, &cancel).unwrap();
            plan.execute(&Progress::default(), &cancel).unwrap()
        };
        small_stack.spawn_scoped(scope, run).unwrap().join().unwrap()
    });
    assert_eq!(report.failures, []);
    assert_eq!((report.folders, report.restored), (DEPTH as u64, 2 * (DEPTH as u64 + 1)));
    // Removed from the top, because no path is long enough.
    for depth in 0..=DEPTH {
        assert_eq!(fs::read(to.path().join("a")).unwrap(), b"before", "{depth}");
        assert_eq!(fs::read(to.path().join("z")).unwrap(), b"after", "{depth}");
        fs::remove_file(to.path().join("a")).unwrap();
        fs::remove_file(to.path().join("z")).unwrap();
        if depth < DEPTH {
            let stat = fs::metadata(to.path().join("d")).unwrap();
            assert_eq!((stat.mtime(), stat.mtime_nsec(), stat.mode() & 0o7777), (4000, 4, 0o755), "{depth}");
            fs::rename(to.path().join("d"), to.path().join("e")).unwrap();
            for name in ["a", "d", "z"] {
                let inner = to.path().join("e").join(name);
                if inner.exists() {
                    fs::rename(inner, to.path().join(name)).unwrap();
                }
            }
            fs::remove_dir(to.path().join("e")).unwrap();
        }
    }
}

#[test]
fn a_damaged_item_fails_alone() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for number in 0..6 {
        write(from.path().join(format!("{number}")), noise(3 << 20, number));
    }
    let fixture = Fixture::new();
    let root = fixture.back_up(from.path()).root;
    let packs = fixture.repository.packs().unwrap();
    let (pack, len) = packs.into_iter().max_by_key(|(_, len)| *len).unwrap();
    assert!(fixture.mem.damage(ObjectName::pack(pack.0), |bytes| bytes[len as usize / 2] ^= 1));
    let report = fixture.restore(&root, to.path(), WhenExists::Skip);
    assert!(report.failed >= 1 && report.restored >= 4, "{report:?}");
    assert!(report.failures[0].error.contains(&pack.to_string()[..8]), "{}", report.failures[0].error);
    let (expected, found) = (scan(from.path()), scan(to.path()));
    assert_eq!(found.len() as u64, report.restored);
    assert!(found.iter().all(|(path, seen)| expected[path] == *seen));
}

#[test]
fn a_lost_node_takes_only_its_own_entries_along() {
    let to = TempDir::new().unwrap();
    let fixture = Fixture::new();
    let mut lost = 0;
    let root = fixture.build(|builder| {
        let mut children = Vec::new();
        for leaf in 0..20 {
            let names: Vec<_> = (0..30).map(|number| format!("{leaf:02}-{number:02}")).collect();
            let mut entries: Vec<_> = names.iter().map(|name| builder.file(name.as_bytes(), name.as_bytes())).collect();
            // Damage three leaves, two of them neighbours.
            if [3, 4, 11].contains(&leaf) {
                entries.iter_mut().for_each(|entry| entry.name = b"..".as_slice().into());
                lost += 30;
            }
            children.push(builder.leaf(&entries, names.last().unwrap().as_bytes()));
        }
        let dir = builder.inner(&children);
        let folder = Entry::new(b"folder", EntryKind::Directory(dir), Timestamp::default());
        let after = builder.file(b"later", b"later");
        builder.tree(vec![folder, after])
    });
    let (reader, cancel) = (fixture.reader(), AtomicBool::new(false));
    let plan = RestorePlan::to_folder(&reader, &root, &[], to.path(), WhenExists::Skip, &cancel).unwrap();
    assert_eq!((plan.survey().impossible, plan.survey().problems.len()), (lost, 2));
    let report = plan.execute(&Progress::default(), &cancel).unwrap();
    assert_eq!((report.restored, report.failed), (20 * 30 + 1 - lost, lost));
    assert!(report.failures.iter().all(|failure| failure.path == b"folder"), "{:?}", report.failures);
}

#[test]
fn a_full_disk_stops_the_run_and_keeps_what_is_done() {
    struct Small(TempDir);
    impl Drop for Small {
        fn drop(&mut self) {
            let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
        }
    }
    let to = TempDir::new().unwrap();
    let flags = rustix::mount::MountFlags::empty();
    if let Err(error) = rustix::mount::mount("none", to.path(), "tmpfs", flags, Some(c"size=2m")) {
        eprintln!("skipped: no file system can be mounted here ({error})");
        return;
    }
    let to = Small(to);
    let from = TempDir::new().unwrap();
    for number in 0..16 {
        write(from.path().join(format!("{number:02}")), noise(300_000, number));
    }
    let fixture = Fixture::new();
    let root = fixture.back_up(from.path()).root;
    let dir = to.0.path().join("dir");
    let (reader, cancel) = (fixture.reader(), AtomicBool::new(false));
    let plan = RestorePlan::to_folder(&reader, &root, &[], &dir, WhenExists::Skip, &cancel).unwrap();
    assert_eq!(plan.survey().bytes_free, Some(2 << 20));
    assert!(plan.to_string().contains("room for 2097152 bytes only"), "{plan}");
    let report = fixture.restore(&root, &dir, WhenExists::Skip);
    let Some(RestoreError::TargetFull { path, source }) = &report.stopped else { panic!("{report:?}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert_eq!(path.len(), 2);
    let (expected, found) = (scan(from.path()), scan(&dir));
    assert!(report.restored >= 3 && found.len() as u64 == report.restored, "{report:?}");
    assert!(found.iter().all(|(path, seen)| expected[path] == *seen));
}

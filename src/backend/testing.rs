use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// Runs all tests of the contract. `make` returns a new, empty backend for each test.
pub fn suite(make: impl Fn() -> Box<dyn Backend>) {
    for test in [
        saves_and_loads_every_kind,
        loads_ranges_exactly,
        loads_what_there_is_of_a_range,
        replaces_damaged_objects,
        replaces_objects_of_another_length,
        never_overwrites_the_others,
        saves_again_after_removal,
        names_what_is_missing,
        lists_by_kind,
        lets_a_listing_call_the_backend,
        lets_one_of_many_threads_win,
        saves_the_same_pack_from_many_threads,
        lists_while_saving,
        reads_while_others_save_and_remove,
    ] {
        test(&*make());
    }
    agrees_with_model(&make);
}

/// Returns a name of `kind` that depends on `seed` alone.
pub fn name(kind: ObjectKind, seed: u64) -> ObjectName {
    let id = blake3::hash(&seed.to_le_bytes());
    ObjectName::new(kind, &id.as_bytes()[..kind.id_bytes_len()]).expect("the length is that of the kind")
}

/// Returns all objects of `kind`, sorted. Panics if one is listed twice.
pub fn listing(backend: &dyn Backend, kind: ObjectKind) -> BTreeMap<ObjectName, u64> {
    let mut found = BTreeMap::new();
    backend
        .list(kind, &mut |name, bytes| {
            assert_eq!(name.kind(), kind);
            assert_eq!(found.insert(name, bytes), None, "{name} is listed twice");
        })
        .expect("the listing works");
    found
}

fn saves_and_loads_every_kind(backend: &dyn Backend) {
    for kind in ObjectKind::ALL {
        for (seed, bytes) in [0, 1, 1000, 3 << 20].into_iter().enumerate() {
            if kind == ObjectKind::Config && seed > 0 {
                continue;
            }
            let name = name(kind, seed as u64);
            let data = vec![seed as u8; bytes];
            backend.save(name, &data).unwrap();
            assert_eq!(backend.load(name).unwrap(), data);
            assert_eq!(backend.load_range(name, 0..bytes as u64).unwrap(), data);
            assert_eq!(backend.size(name).unwrap(), bytes as u64);
        }
    }
    assert!(!backend.describe().is_empty());
}

fn loads_ranges_exactly(backend: &dyn Backend) {
    for kind in [ObjectKind::Pack, ObjectKind::Key] {
        let name = name(kind, 1);
        let data: Vec<u8> = (0..=255).collect();
        backend.save(name, &data).unwrap();
        for (start, end) in [(0, 256), (0, 0), (256, 256), (255, 256), (0, 1), (17, 99), (99, 17)] {
            let part = data.get(start..end).unwrap_or_default();
            assert_eq!(backend.load_range(name, start as u64..end as u64).unwrap(), part, "{start}..{end}");
        }
        for (start, end) in [(0, 257), (256, 257), (300, 301), (257, 257), (300, 0), (0, u64::MAX), (u64::MAX, 0)] {
            let error = backend.load_range(name, start..end).unwrap_err();
            let expected = start.max(end);
            assert!(
                matches!(error, BackendError::Short { name: n, wanted, got: 256 } if n == name && wanted == expected),
                "{start}..{end}: {error:?}"
            );
            assert!(!error.is_transient());
        }
    }
}

fn loads_what_there_is_of_a_range(backend: &dyn Backend) {
    let data: Vec<u8> = (0..=255).collect();
    for kind in [ObjectKind::Pack, ObjectKind::Snapshot, ObjectKind::Key] {
        let name = name(kind, 1);
        assert!(matches!(backend.load_up_to(name, 0..9), Err(BackendError::NotFound { name: n }) if n == name));
        backend.save(name, &data).unwrap();
        // The same range twice, because a wrapper may have kept a copy of the first answer.
        for (start, end) in [(0, 256), (0, 1 << 40), (0, 1 << 40), (0, 5), (17, 99), (17, 300), (256, 300), (9, 3)] {
            let expected = data.get(start..end.min(256)).unwrap_or_default();
            let loaded = backend.load_up_to(name, start as u64..end as u64).unwrap();
            assert_eq!(loaded, expected, "{start}..{end}");
        }
        let error = backend.load_up_to(name, 257..300).unwrap_err();
        assert!(matches!(error, BackendError::Short { got: 256, .. }), "{error:?}");
        // The stored bytes are correct, so this may only drop copies.
        backend.drop_local_copy(name, 0..256);
        assert_eq!(backend.load_range(name, 0..256).unwrap(), data);
    }
}

/// After a system crash a file may have the right length but the wrong bytes. Saving it again repairs it.
fn replaces_damaged_objects(backend: &dyn Backend) {
    for kind in ObjectKind::ALL.into_iter().filter(|kind| kind.is_content_addressed()) {
        for data in [b"\0\0\0\0\0", b"whole", b"whole"] {
            backend.save(name(kind, 1), data).unwrap();
            assert_eq!(backend.load(name(kind, 1)).unwrap(), data);
            assert_eq!(listing(backend, kind).len(), 1);
        }
    }
}

fn replaces_objects_of_another_length(backend: &dyn Backend) {
    for kind in ObjectKind::ALL.into_iter().filter(|kind| kind.is_content_addressed()) {
        let name = name(kind, 1);
        for data in [&b"torn"[..], b"", b"the whole of it", b"too short?"] {
            backend.save(name, data).unwrap();
            // Check both methods: one may use a copy that the other does not.
            assert_eq!(backend.load(name).unwrap(), data);
            assert_eq!(backend.load_range(name, 0..data.len() as u64).unwrap(), data);
            assert_eq!(listing(backend, kind), BTreeMap::from([(name, data.len() as u64)]));
        }
    }
}

fn never_overwrites_the_others(backend: &dyn Backend) {
    for kind in ObjectKind::ALL.into_iter().filter(|kind| !kind.is_content_addressed()) {
        let name = name(kind, 1);
        backend.save(name, b"first").unwrap();
        for data in [&b"first"[..], b"other", b"longer than first", b""] {
            let error = backend.save(name, data).unwrap_err();
            assert!(matches!(error, BackendError::Exists { name: n } if n == name), "{error:?}");
            assert!(!error.is_transient());
            assert_eq!(backend.load(name).unwrap(), b"first");
        }
        assert_eq!(listing(backend, kind), BTreeMap::from([(name, 5)]));
    }
}

fn saves_again_after_removal(backend: &dyn Backend) {
    for kind in ObjectKind::ALL {
        let name = name(kind, 1);
        for data in [b"first", b"other"] {
            backend.save(name, data).unwrap();
            assert_eq!(backend.load_range(name, 0..5).unwrap(), data);
            backend.remove(name).unwrap();
            backend.remove(name).unwrap();
            assert!(matches!(backend.load_range(name, 0..5), Err(BackendError::NotFound { .. })));
            assert!(listing(backend, kind).is_empty());
        }
    }
}

fn names_what_is_missing(backend: &dyn Backend) {
    // First while the folder does not exist, then while it does.
    for seed in [1, 2] {
        for kind in ObjectKind::ALL {
            let missing = name(kind, 0);
            for error in [
                backend.load(missing).unwrap_err(),
                backend.load_range(missing, 0..1).unwrap_err(),
                backend.load_range(missing, 0..0).unwrap_err(),
                backend.size(missing).unwrap_err(),
            ] {
                assert!(matches!(error, BackendError::NotFound { name } if name == missing), "{error:?}");
                assert!(!error.is_transient());
            }
            backend.remove(missing).unwrap();
            if kind != ObjectKind::Config {
                assert_eq!(listing(backend, kind).len() as u64, seed - 1);
                backend.save(name(kind, seed), b"x").unwrap();
            }
        }
    }
}

fn lists_by_kind(backend: &dyn Backend) {
    for kind in ObjectKind::ALL {
        assert!(listing(backend, kind).is_empty());
    }
    let mut expected = BTreeMap::new();
    for kind in ObjectKind::ALL {
        let objects = if kind == ObjectKind::Config { 1 } else { 20 };
        let names: BTreeMap<_, _> = (0..objects).map(|seed| (name(kind, seed), seed * 10)).collect();
        for (&name, &bytes) in &names {
            backend.save(name, &vec![7; bytes as usize]).unwrap();
        }
        expected.insert(kind, names);
    }
    for (kind, names) in expected {
        assert_eq!(listing(backend, kind), names);
    }
}

fn lets_a_listing_call_the_backend(backend: &dyn Backend) {
    for seed in 0..10 {
        backend.save(name(ObjectKind::Gc, seed), &seed.to_le_bytes()).unwrap();
    }
    let mut seen = 0;
    backend
        .list(ObjectKind::Gc, &mut |name, bytes| {
            assert_eq!(backend.load(name).unwrap().len() as u64, bytes);
            backend.remove(name).unwrap();
            seen += 1;
        })
        .unwrap();
    assert_eq!(seen, 10);
    assert!(listing(backend, ObjectKind::Gc).is_empty());
}

fn lets_one_of_many_threads_win(backend: &dyn Backend) {
    for kind in ObjectKind::ALL.into_iter().filter(|kind| !kind.is_content_addressed()) {
        let (name, barrier) = (name(kind, 1), Barrier::new(8));
        let winners: Vec<u8> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|thread: u8| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        barrier.wait();
                        match backend.save(name, &[thread; 1000]) {
                            Ok(()) => Some(thread),
                            Err(BackendError::Exists { .. }) => None,
                            Err(error) => panic!("{error:?}"),
                        }
                    })
                })
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(backend.load(name).unwrap(), [winners[0]; 1000]);
        assert_eq!(listing(backend, kind).len(), 1);
    }
}

fn saves_the_same_pack_from_many_threads(backend: &dyn Backend) {
    for seed in 0..5 {
        let (name, data, barrier) = (name(ObjectKind::Pack, seed), vec![seed as u8; 100_000], Barrier::new(8));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    backend.save(name, &data).unwrap();
                    assert_eq!(backend.load_range(name, 0..100_000).unwrap(), data);
                });
            }
        });
        assert_eq!(listing(backend, ObjectKind::Pack).len() as u64, seed + 1);
    }
}

fn lists_while_saving(backend: &dyn Backend) {
    for seed in 0..20 {
        backend.save(name(ObjectKind::Index, seed), &[1; 100]).unwrap();
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for seed in 20..100 {
                backend.save(name(ObjectKind::Index, seed), &[1; 100]).unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            let found = listing(backend, ObjectKind::Index);
            assert!((0..20).all(|seed| found.contains_key(&name(ObjectKind::Index, seed))));
            // A listed object is always complete.
            assert!(found.values().all(|&bytes| bytes == 100));
        }
    });
    assert_eq!(listing(backend, ObjectKind::Index).len(), 100);
}

fn reads_while_others_save_and_remove(backend: &dyn Backend) {
    const PACKS: u64 = 100;
    let name = |seed| name(ObjectKind::Pack, seed);
    for seed in 0..PACKS {
        backend.save(name(seed), &vec![seed as u8; 5000]).unwrap();
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    for seed in 0..PACKS {
                        match backend.load_range(name(seed), 100..4100) {
                            Ok(data) => assert_eq!(data, vec![seed as u8; 4000]),
                            Err(BackendError::NotFound { .. }) => assert_eq!(seed % 2, 1, "an even one is missing"),
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                }
            });
        }
        for seed in (1..PACKS).step_by(2) {
            backend.remove(name(seed)).unwrap();
            backend.save(name(seed), &vec![seed as u8; 5000]).unwrap();
            backend.remove(name(seed)).unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
    for seed in 0..PACKS {
        assert_eq!(backend.load_range(name(seed), 0..1).is_ok(), seed % 2 == 0);
    }
}

#[derive(Clone, Debug)]
enum Op {
    Save { kind: usize, pick: u64, data: Vec<u8> },
    Remove { kind: usize, pick: u64 },
}

/// Applies the same operations to `make()` and to a map, and compares everything after each operation.
fn agrees_with_model(make: &dyn Fn() -> Box<dyn Backend>) {
    let op = prop_oneof![
        3 => (any::<usize>(), 0_u64..4, vec(any::<u8>(), 0..4))
            .prop_map(|(kind, pick, data)| Op::Save { kind, pick, data }),
        1 => (any::<usize>(), 0_u64..4).prop_map(|(kind, pick)| Op::Remove { kind, pick }),
    ];
    let pick_name = |kind: usize, pick| name(ObjectKind::ALL[kind % ObjectKind::ALL.len()], pick);
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    let run = TestRunner::new(config).run(&vec(op, 1..30), |ops| {
        let backend = make();
        let mut model: BTreeMap<ObjectName, Vec<u8>> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Save { kind, pick, data } => {
                    let name = pick_name(kind, pick);
                    let saved = backend.save(name, &data);
                    if model.contains_key(&name) && !name.kind().is_content_addressed() {
                        prop_assert!(matches!(saved, Err(BackendError::Exists { .. })), "{saved:?}");
                    } else {
                        prop_assert!(saved.is_ok(), "{saved:?}");
                        model.insert(name, data);
                    }
                }
                Op::Remove { kind, pick } => {
                    let name = pick_name(kind, pick);
                    prop_assert!(backend.remove(name).is_ok());
                    model.remove(&name);
                }
            }
            let mut stored = BTreeMap::new();
            for kind in ObjectKind::ALL {
                for (name, bytes) in listing(&*backend, kind) {
                    let data = backend.load(name).unwrap();
                    prop_assert_eq!(data.len() as u64, bytes);
                    prop_assert_eq!(&backend.load_range(name, 0..bytes).unwrap(), &data);
                    stored.insert(name, data);
                }
            }
            prop_assert_eq!(&stored, &model);
        }
        Ok(())
    });
    run.unwrap_or_else(|error| panic!("{error}"));
}

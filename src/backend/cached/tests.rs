use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::time::{Duration, Instant, SystemTime};

use super::*;
use crate::backend::Operation;
use crate::backend::delayed::Delayed;
use crate::backend::faulty::{Fault, Faulty};
use crate::backend::mem::Mem;
use crate::backend::testing::{self, name};

const PACK: ObjectKind = ObjectKind::Pack;
const KIB: u64 = 1 << 10;
const ROOM: u64 = 1 << 30;

/// Maximum time that a test waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

fn noise(seed: u64, len: usize) -> Vec<u8> {
    noise_of(seed, &(0..len as u64))
}

/// Returns a part of the bytes of [`noise`].
fn noise_of(seed: u64, range: &Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    let mut noise = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    noise.set_position(range.start);
    noise.fill(&mut bytes);
    bytes
}

/// A backend with the packs 0 to `packs` (exclusive) of `len` bytes each. It counts the calls.
fn stored(packs: u64, len: usize) -> Arc<Faulty<Mem>> {
    let mem = Mem::new();
    for seed in 0..packs {
        mem.save(name(PACK, seed), &noise(seed, len)).unwrap();
    }
    Arc::new(Faulty::new(mem))
}

fn cached(inner: &Arc<Faulty<Mem>>, folder: &Path, bytes_max: u64) -> Cached {
    Cached::new(inner.clone(), &CacheOptions { folder: folder.to_owned(), bytes_max })
}

/// Reads `range` of a pack that [`stored`] made, and compares the bytes.
#[track_caller]
fn assert_reads(backend: &dyn Backend, seed: u64, range: Range<u64>) {
    let read = backend.load_range(name(PACK, seed), range.clone()).unwrap();
    assert!(read == noise_of(seed, &range), "pack {seed}, {range:?}");
}

impl Cached {
    /// Waits until all pieces that were read are written.
    fn settle(&self) {
        self.shared.keeper.settle(PATIENCE);
    }

    fn has(&self, seed: u64, number: u32) -> bool {
        self.shared.keeper.disk().load(&PieceId { name: name(PACK, seed), number }).is_some()
    }
}

/// Returns all files in the subfolders of the cache.
fn pieces(folder: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let subfolders = entries(folder).filter(|path| path.is_dir());
    let mut pieces: Vec<_> = subfolders.flat_map(|folder| entries(&folder).collect::<Vec<_>>()).collect();
    pieces.sort_unstable();
    pieces
}

fn bytes_in(folder: &Path) -> u64 {
    pieces(folder).iter().map(|path| std::fs::metadata(path).unwrap().len()).sum()
}

#[test]
fn keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    // Each backend needs its own folder, because all use the same names.
    let number = std::sync::atomic::AtomicU64::new(0);
    let make = |bytes_max| {
        let folder = folder.path().join(number.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string());
        Box::new(Cached::new(Arc::new(Mem::new()), &CacheOptions { folder, bytes_max })) as Box<dyn Backend>
    };
    testing::suite(|| make(ROOM));
    testing::suite(|| make(0));
    testing::suite(|| make(40 * PIECE_LEN as u64));
}

#[test]
fn a_second_run_reads_nothing_again_and_finds_nothing_in_clear() {
    const LEN: usize = 5 * PIECE_LEN + 1000;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("below/cache");
    let inner = stored(3, LEN);
    for number in 0..3 {
        inner.inner().save(name(ObjectKind::Snapshot, number), &noise(number, number as usize * PIECE_LEN)).unwrap();
    }
    let read_all = |cached: &Cached| {
        for seed in 0..3 {
            for range in [0..LEN as u64, 100 * KIB..300 * KIB, LEN as u64 - 1..LEN as u64] {
                assert_reads(cached, seed, range);
            }
            let snapshot = cached.load_up_to(name(ObjectKind::Snapshot, seed), 0..1 << 40).unwrap();
            assert!(snapshot == noise(seed, seed as usize * PIECE_LEN));
        }
    };
    read_all(&cached(&inner, &folder, ROOM));
    assert!(inner.calls(Operation::LoadRange) > 0);
    let before = inner.calls(Operation::LoadRange);
    read_all(&cached(&inner, &folder, ROOM));
    assert_eq!(inner.calls(Operation::LoadRange), before, "the folder has it");
    assert_eq!(inner.calls(Operation::Size) + inner.calls(Operation::Load), 0);

    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert!(folder.join("CACHEDIR.TAG").exists());
    assert!(!pieces(&folder).is_empty());
    for piece in pieces(&folder) {
        assert_eq!((mode(&piece), mode(piece.parent().unwrap())), (0o600, 0o700));
    }
    // Deleting the folder only costs new requests.
    std::fs::remove_dir_all(&folder).unwrap();
    read_all(&cached(&inner, &folder, ROOM));
    assert!(inner.calls(Operation::LoadRange) > before);
}

/// A name for the damage, and a function that does it to a piece. The second path is another piece.
type Damage<'a> = (&'a str, &'a dyn Fn(&Path, &Path));

#[test]
fn damaged_pieces_are_fetched_anew() {
    const LEN: usize = 4 * PIECE_LEN + 5000;
    let folder = tempfile::tempdir().unwrap();
    let inner = stored(2, LEN);
    let read_all = || {
        let cached = cached(&inner, folder.path(), ROOM);
        for seed in 0..2 {
            assert_reads(&cached, seed, 0..LEN as u64);
        }
    };
    read_all();
    let good = pieces(folder.path());
    assert_eq!(good.len(), 10);
    let damage: [Damage<'_>; 8] = [
        ("a bit", &|path, _| {
            let mut bytes = std::fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
            std::fs::write(path, bytes).unwrap();
        }),
        ("cut", &|path, _| File::options().write(true).open(path).unwrap().set_len(1000).unwrap()),
        ("empty", &|path, _| File::create(path).map(drop).unwrap()),
        ("longer", &|path, _| std::fs::write(path, [std::fs::read(path).unwrap(), vec![0; 9]].concat()).unwrap()),
        ("huge", &|path, _| File::options().write(true).open(path).unwrap().set_len(1 << 40).unwrap()),
        ("another's", &|path, other| _ = std::fs::copy(other, path).unwrap()),
        ("a link", &|path, other| {
            std::fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink(other, path).unwrap();
        }),
        ("a pipe", &|path, _| {
            std::fs::remove_file(path).unwrap();
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        }),
    ];
    for (what, damage) in damage {
        for (number, path) in good.iter().enumerate().step_by(3) {
            damage(path, &good[(number + 1) % good.len()]);
        }
        let before = inner.calls(Operation::LoadRange);
        read_all();
        assert!(inner.calls(Operation::LoadRange) > before, "{what}: noticed");
        let before = inner.calls(Operation::LoadRange);
        read_all();
        assert_eq!(inner.calls(Operation::LoadRange), before, "{what}: mended");
    }
}

/// A piece may have the right checksum and still be wrong: it was wrong when it arrived, or somebody forged it.
#[test]
fn what_its_reader_doubts_is_fetched_anew() {
    const LEN: usize = 3 * PIECE_LEN;
    const PACKS: u64 = 40;
    let folder = tempfile::tempdir().unwrap();
    let inner = stored(PACKS, LEN);
    let cached = cached(&inner, folder.path(), ROOM);
    for seed in 0..PACKS {
        inner.plan(0..1, Fault::FlipBit, |call| call.operation == Operation::LoadRange);
        let pack = name(PACK, seed);
        let wrong = cached.load_range(pack, 0..LEN as u64).unwrap();
        assert!(wrong != noise(seed, LEN) && wrong == cached.load_range(pack, 0..LEN as u64).unwrap());
        // Half of the pieces are already on the disk, the others are not yet.
        if seed % 2 == 0 {
            cached.settle();
        }
        assert!(cached.drop_local_copy(pack, 0..LEN as u64));
        assert_reads(&cached, seed, 0..LEN as u64);
        inner.heal();
    }
    cached.settle();
    for seed in 0..PACKS {
        for range in [0..LEN as u64, 7..8] {
            assert_reads(&self::cached(&inner, folder.path(), ROOM), seed, range);
        }
    }
}

#[test]
fn nothing_is_kept_that_was_fetched_before_something_was_removed() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disk::Disk::new(folder.path().to_owned());
    let id = PieceId { name: name(PACK, 0), number: 3 };
    let before = disk.removals();
    disk.remove(id.name, 3..4);
    disk.store(&id, b"piece", before, 1).unwrap();
    assert!(disk.load(&id).is_none());
    disk.store(&id, b"piece", disk.removals(), 1).unwrap();
    assert_eq!(disk.load(&id).unwrap(), "piece");
    disk.remove_object(id.name);
    assert!(disk.load(&id).is_none() && pieces(folder.path()).is_empty());
}

/// Another user who can write to the folder could make this user read, write and remove files elsewhere.
#[test]
fn a_folder_that_is_not_this_users_alone_is_left_alone() {
    const LEN: usize = 2 * PIECE_LEN;
    let folder = tempfile::tempdir().unwrap();
    let [open, link, victim, own] = ["open", "link", "victim", "own"].map(|path| folder.path().join(path));
    let inner = stored(1, LEN);
    let read_with = |at: &Path| {
        // The small cache would remove the surplus.
        for bytes_max in [ROOM, PIECE_LEN as u64] {
            assert_reads(&cached(&inner, at, bytes_max), 0, 0..LEN as u64);
        }
        inner.calls(Operation::LoadRange)
    };
    for at in [&victim, &own] {
        assert_reads(&cached(&inner, at, ROOM), 0, 0..LEN as u64);
    }
    let there = pieces(&victim);
    assert_eq!(there.len(), 2);
    std::os::unix::fs::symlink(&victim, &link).unwrap();
    for mode in [0o777, 0o770] {
        let _ = std::fs::remove_dir_all(&open);
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, PermissionsExt::from_mode(mode)).unwrap();
        let before = inner.calls(Operation::LoadRange);
        assert!(read_with(&open) > before && pieces(&open).is_empty() && !open.join("CACHEDIR.TAG").exists());
    }
    // Files behind a link are not even read.
    let subfolder = there.first().and_then(|path| path.parent()).unwrap();
    for at in [&link, &own] {
        if at == &own {
            let linked = own.join(subfolder.file_name().unwrap());
            std::fs::remove_dir_all(&linked).unwrap();
            std::os::unix::fs::symlink(subfolder, linked).unwrap();
        }
        let before = inner.calls(Operation::LoadRange);
        assert!(read_with(at) >= before + 2, "{at:?}");
        assert_eq!(pieces(&victim), there, "{at:?}");
    }
}

#[test]
fn what_is_under_way_is_not_begun_again_and_keeps_others_from_being_fetched_ahead() {
    let folder = tempfile::tempdir().unwrap();
    let cached = cached(&stored(1, PIECE_LEN), folder.path(), ROOM);
    let many = 0..4 * RECENT_MAX.get() as u32;
    let (wanted, claims) = cached.shared.claim(name(PACK, 7), many.clone());
    assert_eq!((wanted.len(), claims.len()), (many.len(), many.len()));
    let (again, none) = cached.shared.claim(name(PACK, 7), many);
    assert!(none.is_empty());
    (0..100).for_each(|_| cached.shared.pace.lock().record(PIECE_LEN, Duration::from_millis(20)));
    let read_on = || (0..9).for_each(|at| cached.fetch_ahead(name(PACK, 8), &(at * 99 * KIB..(at + 1) * 99 * KIB)));
    read_on();
    assert!(cached.ahead.get().is_none());
    drop(claims);
    assert!(again.iter().all(|piece| piece.wait().is_none()));
    assert!(cached.shared.pieces.lock().under_way.is_empty());
    read_on();
    assert!(cached.ahead.get().is_some());
}

#[test]
fn nothing_is_fetched_ahead_any_more_when_the_cache_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let inner = stored(1, 20 * PIECE_LEN);
    inner.plan(0..u64::MAX, Fault::Delay(Duration::from_millis(200)), |_| true);
    let cached = cached(&inner, folder.path(), ROOM);
    let (wanted, claims) = cached.shared.claim(name(PACK, 0), 0..16);
    let jobs = cached.ahead.get_or_init(|| start_fetching(&cached.shared)).as_ref().unwrap();
    claims.into_iter().for_each(|claim| jobs.try_send(vec![claim]).unwrap());
    eventually("all threads are busy", || inner.calls(Operation::LoadRange) == REQUESTS_MAX as u64);
    drop(cached);
    let fetched = wanted.iter().filter(|piece| piece.wait().is_some()).count();
    assert_eq!((fetched, inner.calls(Operation::LoadRange)), (REQUESTS_MAX, REQUESTS_MAX as u64));
    drop(wanted);
    eventually("the threads have ended", || Arc::strong_count(&inner) == 1);
}

#[track_caller]
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not yet");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_piece_that_could_not_be_had_says_nothing_against_those_beside_it() {
    const LEN: usize = 3 * PIECE_LEN;
    let folder = tempfile::tempdir().unwrap();
    let inner = stored(1, LEN);
    let cached = cached(&inner, folder.path(), ROOM);
    assert_reads(&cached, 0, 0..10);
    cached.settle();
    inner.plan(0..1, Fault::Fail(ErrorKind::TimedOut), |call| call.operation == Operation::LoadRange);
    assert_reads(&cached, 0, 0..LEN as u64);
    assert_eq!(inner.faults(), 1);
    assert!(cached.has(0, 0));
}

/// An answer that was cut short looks like the end of the pack.
#[test]
fn a_pack_that_seemed_to_end_is_read_to_its_end() {
    const LEN: usize = 3 * PIECE_LEN;
    let folder = tempfile::tempdir().unwrap();
    let inner = stored(1, LEN);
    inner.plan(0..1, Fault::Truncate, |call| call.operation == Operation::LoadRange);
    let cached = cached(&inner, folder.path(), ROOM);
    assert_reads(&cached, 0, 0..LEN as u64);
    let before = inner.calls(Operation::LoadRange);
    assert_reads(&cached, 0, 0..LEN as u64);
    assert_reads(&cached, 0, 0..LEN as u64);
    assert!(inner.calls(Operation::LoadRange) <= before + 1, "the piece that was too short is gone");
}

#[test]
fn errors_are_the_backends_and_do_not_last() {
    const LEN: usize = 2 * PIECE_LEN;
    let folder = tempfile::tempdir().unwrap();
    let inner = stored(1, LEN);
    let cached = cached(&inner, folder.path(), ROOM);
    inner.plan(0..u64::MAX, Fault::Fail(ErrorKind::TimedOut), |call| call.operation == Operation::LoadRange);
    let error = cached.load_range(name(PACK, 0), 5..90).unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    inner.heal();
    assert_reads(&cached, 0, 5..90);
    let past = LEN as u64 + 1;
    let error = cached.load_range(name(PACK, 0), 5..past).unwrap_err();
    assert!(matches!(error, BackendError::Short { wanted, got, .. } if (wanted, got) == (past, LEN as u64)));
}

#[test]
fn several_readers_of_a_piece_wait_for_one_fetch() {
    const LEN: usize = 3 * PIECE_LEN;
    let folder = tempfile::tempdir().unwrap();
    let inner = stored(1, LEN);
    inner.plan(0..u64::MAX, Fault::Delay(Duration::from_millis(50)), |_| true);
    let (cached, all) = (cached(&inner, folder.path(), ROOM), Barrier::new(8));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                all.wait();
                assert_reads(&cached, 0, 10..LEN as u64 - 10);
            });
        }
    });
    assert_eq!(inner.calls(Operation::LoadRange), 1);
}

/// Reads a pack of 24 MiB in blocks of 100 KiB, with 20 ms a request. Without fetching ahead, each piece would cost one
/// round trip.
#[test]
fn reading_in_order_waits_for_few_requests_and_leaping_fetches_no_more_than_it_needs() {
    const LEN: usize = 24 << 20;
    let folder = tempfile::tempdir().unwrap();
    let delayed = Arc::new(Delayed::new(stored(2, LEN), Duration::from_millis(20)));
    let options = CacheOptions { folder: folder.path().to_owned(), bytes_max: ROOM };
    let cached = Cached::new(delayed.clone(), &options);
    for start in (0..LEN as u64).step_by(100 << 10) {
        assert_reads(&cached, 0, start..(start + (100 << 10)).min(LEN as u64));
        // Wait, because the test expects all pieces on the disk afterwards.
        cached.settle();
    }
    let (rounds, requests) = (delayed.rounds(), delayed.requests());
    assert!(rounds <= 30 && requests <= 60, "{rounds} rounds, {requests} requests for {} pieces", LEN / PIECE_LEN);

    let before = bytes_in(folder.path());
    drop(cached);
    eventually("nothing is fetched ahead any more", || Arc::strong_count(&delayed) == 1);
    delayed.reset();
    let cached = Cached::new(delayed.clone(), &options);
    for step in 0..20 {
        let start = (step * 7 % 20) * (LEN as u64 / 20) + 1000;
        assert_reads(&cached, 1, start..start + 50_000);
    }
    assert!(delayed.requests() <= 20, "{}", delayed.requests());
    cached.settle();
    let fetched = bytes_in(folder.path()) - before;
    assert!(fetched <= 41 * PIECE_LEN as u64, "{fetched}");
}

/// Sets the last use of all pieces of a pack to `minutes` ago.
fn age(folder: &Path, seed: u64, minutes: u64) {
    let time = SystemTime::now() - Duration::from_secs(minutes * 60);
    let path = name(PACK, seed).path();
    let id = path.rsplit('/').next().unwrap();
    for path in pieces(folder).iter().filter(|path| path.to_str().unwrap().contains(id)) {
        File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }
}

#[test]
fn two_users_of_a_folder_keep_to_its_size_and_what_was_used_last_stays() {
    const LEN: usize = 4 * PIECE_LEN;
    const SIZE: u64 = 64 * PIECE_LEN as u64;
    const PACKS: u64 = 60;
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("ab")).unwrap();
    let foreign =
        ["letter.txt", "ab/letter.txt", "ab/.piece-of-cake", "ab/packs-0.1"].map(|path| folder.path().join(path));
    for path in &foreign {
        std::fs::write(path, "not ours").unwrap();
        File::options().write(true).open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    let inner = stored(PACKS, LEN);
    let users = [cached(&inner, folder.path(), SIZE), cached(&inner, folder.path(), SIZE)];
    for seed in 0..PACKS {
        let user = &users[seed as usize % 2];
        assert_reads(user, seed, 0..LEN as u64);
        user.settle();
        assert!(bytes_in(folder.path()) <= SIZE, "{} of {SIZE}", bytes_in(folder.path()));
        age(folder.path(), seed, 100 - seed);
        if seed == 5 {
            // A new cache has nothing in memory, so this reads from the folder.
            let before = inner.calls(Operation::LoadRange);
            assert_reads(&cached(&inner, folder.path(), SIZE), 1, 0..LEN as u64);
            assert_eq!(inner.calls(Operation::LoadRange), before);
        }
    }
    assert!(bytes_in(folder.path()) >= SIZE / 2, "it is used");
    let there: Vec<_> = (0..PACKS).filter(|seed| users[0].has(*seed, 0)).collect();
    assert!(there.contains(&1) && there.contains(&(PACKS - 1)) && !there.contains(&0), "{there:?}");
    assert!(there[1..].is_sorted_by(|one, next| one + 1 == *next), "what was used before is gone: {there:?}");
    assert!(foreign.iter().all(|path| path.exists()));
}

#[test]
fn a_folder_that_cannot_be_used_changes_nothing_that_is_read() {
    const LEN: usize = 2 * PIECE_LEN;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "no folder").unwrap();
    let inner = stored(20, LEN);
    for unusable in [file.join("below"), file.clone(), PathBuf::from("/proc/nowhere")] {
        let cached = cached(&inner, &unusable, ROOM);
        for seed in 0..20 {
            assert_reads(&cached, seed, 0..LEN as u64);
            assert_reads(&cached, seed, 7..999);
        }
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"no folder");
}

#[test]
fn a_folder_that_vanishes_is_made_again() {
    const LEN: usize = 2 * PIECE_LEN;
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("cache");
    let inner = stored(20, LEN);
    let cached = cached(&inner, &at, ROOM);
    let mut kept = 0;
    for seed in 0..20 {
        if seed % 4 == 3 {
            std::fs::remove_dir_all(&at).unwrap();
            kept = 0;
        }
        assert_reads(&cached, seed, 0..LEN as u64);
        cached.settle();
        kept += 2;
        assert_eq!(pieces(&at).len(), kept);
    }
}

/// A mounted file system of limited size. Only root can mount it; without root the test prints that it is skipped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(options: &str) -> Option<Self> {
        let at = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(at)),
            _ => {
                eprintln!("SKIPPED: a tmpfs cannot be mounted here");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_and_one_that_is_read_only_change_nothing_that_is_read() {
    const LEN: usize = 2 * PIECE_LEN;
    let inner = stored(30, LEN);
    let Some(disk) = SmallDisk::mount("size=3m,mode=700") else { return };
    let room = |pause| Cached::with_keeper(inner.clone(), Keeper::new(disk.0.path().to_owned(), ROOM, pause));
    let paused = room(Duration::from_secs(3600));
    for seed in 0..30 {
        assert_reads(&paused, seed, 0..LEN as u64);
        paused.settle();
    }
    let kept = pieces(disk.0.path()).len();
    assert!((4..=12).contains(&kept), "{kept}");
    // A new cache uses the pieces on the disk, and removes some of them to make room.
    let trying = room(Duration::ZERO);
    for seed in 0..30 {
        assert_reads(&trying, seed, 0..LEN as u64);
        trying.settle();
    }
    assert!(trying.has(29, 0));

    let options = ["-o", "remount,ro"];
    assert!(Command::new("mount").args(options).arg(disk.0.path()).status().unwrap().success());
    let before = pieces(disk.0.path());
    for cached in [&trying, &room(Duration::ZERO)] {
        for seed in 0..30 {
            assert_reads(cached, seed, 0..LEN as u64);
        }
        cached.settle();
    }
    assert_eq!(pieces(disk.0.path()), before);
}

#[test]
fn what_is_removed_or_replaced_is_gone_from_the_folder_too() {
    const LEN: usize = PIECE_LEN + 10;
    let folder = tempfile::tempdir().unwrap();
    let inner = stored(3, LEN);
    let cached = cached(&inner, folder.path(), ROOM);
    (0..3).for_each(|seed| assert_reads(&cached, seed, 0..LEN as u64));
    cached.settle();
    assert_eq!(pieces(folder.path()).len(), 6);
    cached.remove(name(PACK, 0)).unwrap();
    let other = noise(9, LEN);
    cached.save(name(PACK, 1), &other).unwrap();
    assert_eq!(pieces(folder.path()).len(), 2);
    assert!(cached.load_range(name(PACK, 1), 0..LEN as u64).unwrap() == other);
    assert_reads(&cached, 2, 0..LEN as u64);
}

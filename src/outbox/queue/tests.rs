use super::*;
use crate::format::crypto::{Cipher, MasterKey};

fn open(path: &Path) -> Queue {
    let keys = Arc::new(Keys::derive(&MasterKey::from_bytes([7; 32]), Cipher::ALL[0]));
    Queue::open(path, keys, Duration::ZERO).unwrap()
}

fn dropped(n: u8, path: &str, fate: Fate) -> Dropped {
    let mtime = Time { secs: 0, nanos: 0 };
    Dropped { id: StagedId([n; 16]), path: path.into(), mtime, len: 1, content: [n; 32], job: 0, fate }
}

#[test]
fn a_file_is_tried_once_it_is_released_and_again_after_a_crash_until_it_is_settled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut queue = open(&path);
    assert_eq!(queue.seal(dropped(1, "a/x.eml", Fate::Queued), 100).unwrap(), Sealed::New(None));
    assert!(queue.take().is_none(), "somebody has it open");
    assert!(queue.release(StagedId([1; 16])));
    assert_eq!(queue.take().unwrap().dropped.id, StagedId([1; 16]));
    assert_eq!(queue.at(b"a/x.eml").unwrap().state(), State::Uploading);
    assert!(matches!(queue.withdraw(StagedId([1; 16])), Err(OutboxError::NotPermitted)));
    // The process was killed during the restore. A file that was never released is restored too.
    assert_eq!(queue.seal(dropped(2, "a/y.eml", Fate::Queued), 100).unwrap(), Sealed::New(None));
    drop(queue);
    let mut queue = open(&path);
    let next: Vec<_> = std::iter::from_fn(|| queue.take()).map(|item| item.dropped.id.0[0]).collect();
    assert_eq!(next, [1, 2]);
    queue.settle(StagedId([1; 16]), Fate::Done(String::new())).unwrap();
    queue.settle(StagedId([2; 16]), Fate::Failed("why".to_owned())).unwrap();
    assert_eq!(queue.at(b"a/y.eml").unwrap().state().to_string(), "failed: why");
    drop(queue);
    let mut queue = open(&path);
    assert!(queue.take().is_none());
    let shown: Vec<_> = queue.in_folder(b"a").map(|(name, _)| name.to_vec()).collect();
    assert_eq!(shown, [b"y.eml"], "what was done in another life is in the reports alone");
    let jobs: Vec<_> = queue.jobs().collect();
    assert_eq!(jobs, [100]);
    assert_eq!(queue.job(100).map(|(files, more)| (files.len(), more)), Some((2, 0)));
    assert_eq!(queue.staged(), HashSet::from([StagedId([2; 16])]));
}

#[test]
fn regression_a_journal_that_cannot_be_written_anew_opens_and_takes_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut queue = open(&path);
    queue.seal(dropped(1, "a/x.eml", Fate::Waiting), 100).unwrap();
    for n in 0..STALE_MAX + 2 {
        let time = Time { secs: n as i64, nanos: 0 };
        queue.journal.note_lazily(&Record::Timed(StagedId([1; 16]), time)).unwrap();
    }
    drop(queue);
    // What is in the way is no file, and cannot be removed as one.
    std::fs::create_dir(path.with_extension("new")).unwrap();
    let mut queue = open(&path);
    assert!(queue.journal.records() > STALE_MAX, "it goes on as it was");
    queue.seal(dropped(2, "a/y.eml", Fate::Waiting), 100).unwrap();
    queue.set_mtime(b"a/y.eml", Time { secs: 7, nanos: 0 }).unwrap();
    drop(queue);
    std::fs::remove_dir(path.with_extension("new")).unwrap();
    let queue = open(&path);
    assert_eq!((queue.counts().waiting, queue.journal.records()), (2, 2), "now it was written anew");
}

#[test]
fn after_records_were_lost_what_is_staged_is_shown_and_what_is_gone_is_not_restored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut queue = open(&path);
    for (n, fate) in [(1, Fate::Queued), (2, Fate::Waiting), (3, Fate::Queued)] {
        queue.seal(dropped(n, &format!("a/{n}"), fate), 100).unwrap();
    }
    queue.settle(StagedId([3; 16]), Fate::Done(String::new())).unwrap();
    let stray = |n: u8| Stray { id: StagedId([n; 16]), len: 5, mtime: Time { secs: 9, nanos: 0 } };
    let unneeded = queue.reconcile(vec![stray(2), stray(3), stray(4)], 100).unwrap();
    assert_eq!(unneeded, [StagedId([3; 16])], "it was restored");
    let fate = |queue: &Queue, n: u8| queue.item(StagedId([n; 16])).unwrap().dropped.fate.clone();
    drop(queue);
    let mut queue = open(&path);
    assert!(queue.take().is_none());
    assert_eq!((fate(&queue, 1), fate(&queue, 2)), (Fate::Failed(BYTES_LOST.to_owned()), Fate::Waiting));
    assert_eq!(fate(&queue, 4), Fate::Failed(RECORD_LOST.to_owned()));
    let shown: Vec<_> = queue.in_folder(b"original").map(|(name, item)| (name.to_vec(), item.dropped.len)).collect();
    assert_eq!(shown, [(format!("damaged-{}.eml", StagedId([4; 16])).into_bytes(), 5)]);
    assert_eq!(queue.job(101).map(|(files, _)| files.len()), Some(1), "it has a report of its own");
}

#[test]
fn one_path_is_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut queue = open(&folder.path().join("journal"));
    let with = |n: u8, content: u8| Dropped { content: [content; 32], ..dropped(n, "a/x.eml", Fate::Queued) };
    assert_eq!(queue.seal(with(1, 7), 100).unwrap(), Sealed::New(None));
    assert_eq!(queue.seal(with(2, 7), 100).unwrap(), Sealed::Same);
    assert!(matches!(queue.seal(with(3, 8), 100), Err(OutboxError::NotPermitted)));
    // A failed file may be dropped again.
    queue.settle(StagedId([1; 16]), Fate::Failed("why".to_owned())).unwrap();
    assert_eq!(queue.seal(with(4, 7), 100).unwrap(), Sealed::New(Some(StagedId([1; 16]))));
    assert!(queue.item(StagedId([1; 16])).is_none());
    // A file that was restored in an earlier job is restored again.
    queue.settle(StagedId([4; 16]), Fate::Done(String::new())).unwrap();
    assert_eq!(queue.seal(with(5, 7), 100).unwrap(), Sealed::Same);
    queue.open_job = None;
    assert!(matches!(queue.seal(with(5, 8), 100), Err(OutboxError::NotPermitted)));
    assert_eq!(queue.seal(with(6, 7), 100).unwrap(), Sealed::New(Some(StagedId([4; 16]))));
    queue.withdraw(StagedId([6; 16])).unwrap();
    assert!(queue.at(b"a/x.eml").is_none() && !queue.release(StagedId([4; 16])) && queue.take().is_none());
}

#[test]
fn of_many_files_the_newest_are_remembered_and_the_others_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut queue = open(&folder.path().join("journal"));
    let id = |n: usize| StagedId(*(n as u128).to_le_bytes().first_chunk().unwrap());
    for n in 0..3 * SETTLED_MAX {
        let file = Dropped { id: id(n), ..dropped(1, &format!("a/{n}"), Fate::Queued) };
        // Durability does not matter here, and takes time.
        queue.items.insert(file.id, Item::new(file.clone()));
        queue.jobs.entry(0).or_default().files.push(file.id);
        queue.place(&file.path, file.id);
        queue.open += 1;
        queue.settle(file.id, Fate::Done(String::new())).unwrap();
        assert!(queue.items.len() <= 2 * SETTLED_MAX);
    }
    let (files, more) = queue.job(0).unwrap();
    assert_eq!(files.len() as u64 + more, 3 * SETTLED_MAX as u64);
    assert!(queue.at(b"a/0").is_none() && queue.at(format!("a/{}", 3 * SETTLED_MAX - 1).as_bytes()).is_some());
}

#[test]
fn what_waits_goes_when_it_is_committed_also_by_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut queue = open(&path);
    for n in 1..=3 {
        queue.seal(dropped(n, &format!("a/{n}"), Fate::Waiting), 100).unwrap();
        queue.release(StagedId([n; 16]));
    }
    assert!(queue.take().is_none());
    assert_eq!(queue.counts(), Counts { waiting: 3, ..Counts::default() });
    drop(queue);
    let mut queue = open(&path);
    queue.commit().unwrap();
    drop(queue);
    let mut queue = open(&path);
    assert_eq!(std::iter::from_fn(|| queue.take()).count(), 3);
}

#[test]
fn a_file_rests_before_its_turn_unless_it_is_committed() {
    let folder = tempfile::tempdir().unwrap();
    let mut queue = open(&folder.path().join("journal"));
    queue.rest = Duration::from_secs(3600);
    for n in 1..=3 {
        queue.seal(dropped(n, &format!("a/{n}"), Fate::Queued), 100).unwrap();
        queue.release(StagedId([n; 16]));
    }
    assert!(queue.take().is_none());
    queue.withdraw(StagedId([2; 16])).unwrap();
    queue.resting[0].0 = Instant::now();
    assert_eq!(queue.take().map(|item| item.dropped.id), Some(StagedId([1; 16])));
    assert!(queue.take().is_none());
    queue.commit().unwrap();
    assert_eq!(queue.take().map(|item| item.dropped.id), Some(StagedId([3; 16])));
    assert!(queue.take().is_none() && queue.resting.is_empty());
    // A commit need not wait until the last descriptor is closed.
    for n in 4..=5 {
        queue.seal(dropped(n, &format!("a/{n}"), if n == 4 { Fate::Queued } else { Fate::Waiting }), 100).unwrap();
    }
    queue.commit().unwrap();
    assert!(queue.take().is_none(), "somebody has them open");
    for n in 4..=5 {
        queue.release(StagedId([n; 16]));
        assert_eq!(queue.take().map(|item| item.dropped.id), Some(StagedId([n; 16])));
    }
}

#[test]
fn what_is_sealed_again_after_it_was_committed_waits_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut queue = open(&folder.path().join("journal"));
    let id = StagedId([1; 16]);
    queue.seal(dropped(1, "a/1", Fate::Waiting), 100).unwrap();
    queue.release(id);
    queue.commit().unwrap();
    // The writer changes the file before its turn, and closes it.
    queue.withdraw(id).unwrap();
    queue.seal(dropped(1, "a/1", Fate::Waiting), 100).unwrap();
    queue.release(id);
    assert!(queue.take().is_none());
    assert_eq!(queue.counts(), Counts { waiting: 1, ..Counts::default() });
}

#[test]
fn files_that_fail_are_kept_and_cost_no_more_than_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut queue = open(&folder.path().join("journal"));
    let id = |n: usize| StagedId(*(n as u128).to_le_bytes().first_chunk().unwrap());
    let many = 3 * SETTLED_MAX;
    for n in 0..many {
        let file = Dropped { id: id(n), ..dropped(1, &format!("a/{n}"), Fate::Queued) };
        queue.jobs.entry(0).or_default().files.push(file.id);
        queue.place(&file.path, file.id);
        queue.open += 1;
        queue.items.insert(file.id, Item::new(file));
    }
    // If the time grew with the square of the number of files, this would take minutes.
    (0..many).for_each(|n| queue.settle(id(n), Fate::Failed("why".to_owned())).unwrap());
    assert_eq!(queue.counts(), Counts { failed: many as u64, ..Counts::default() });
}

#[test]
fn what_comes_together_is_a_job() {
    let folder = tempfile::tempdir().unwrap();
    let mut queue = open(&folder.path().join("journal"));
    let seal = |queue: &mut Queue, n: u8, now| {
        queue.seal(dropped(n, &format!("a/{n}"), Fate::Queued), now).unwrap();
        queue.items[&StagedId([n; 16])].dropped.job
    };
    let quiet = |queue: &mut Queue| {
        let (job, since) = queue.open_job.unwrap();
        queue.open_job = Some((job, since.checked_sub(JOB_END_WAIT).unwrap()));
    };
    assert_eq!((seal(&mut queue, 1, 100), seal(&mut queue, 2, 103)), (100, 100));
    queue.settle(StagedId([1; 16]), Fate::Done(String::new())).unwrap();
    quiet(&mut queue);
    assert!(!queue.end_job().unwrap(), "one is on its way");
    assert_eq!(seal(&mut queue, 3, 200), 100);
    for n in 2..=3 {
        queue.settle(StagedId([n; 16]), Fate::Done(String::new())).unwrap();
    }
    assert!(!queue.end_job().unwrap(), "more may come");
    quiet(&mut queue);
    assert!(queue.end_job().unwrap());
    assert_eq!(seal(&mut queue, 4, 100), 101, "no two have one name");
}

#[test]
fn only_so_many_wait() {
    let folder = tempfile::tempdir().unwrap();
    let mut queue = open(&folder.path().join("journal"));
    let id = |n: usize| StagedId(*(n as u128).to_le_bytes().first_chunk().unwrap());
    for n in 0..KEPT_MAX {
        let fate = if n % 2 == 0 { Fate::Queued } else { Fate::Failed("why".to_owned()) };
        queue.items.insert(id(n), Item::new(Dropped { id: id(n), ..dropped(1, &format!("b/{n}"), fate) }));
    }
    queue.open = KEPT_MAX / 2;
    let next = |n: u8| Dropped { id: StagedId([n; 16]), ..dropped(n, &format!("a/{n}"), Fate::Queued) };
    assert!(matches!(queue.seal(next(1), 100), Err(OutboxError::Full)));
    queue.settle(id(0), Fate::Done(String::new())).unwrap();
    queue.seal(next(1), 100).unwrap();
    assert!(matches!(queue.seal(next(2), 100), Err(OutboxError::Full)));
}

//! Loads objects: with as few requests as possible, several at a time, and never more bytes than an honest object has.

use super::{RepositoryError, Result};
use crate::backend::{Backend, ObjectKind, ObjectName};
use parking_lot::{Mutex, MutexGuard};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Length of the first request, in bytes. Nearly every object that is loaded whole is shorter, so one request is
/// enough.
const FIRST_LEN: u64 = 4 << 20;
/// Maximum number of requests at a time. On far storage, a thousand snapshots then load in a sixteenth of the time.
const CONCURRENT_REQUESTS_MAX: usize = 16;

/// The right to load a long object, which only one thread has at a time. The thread keeps it until the object is
/// verified. Otherwise several forged long objects could be in memory at once, and the storage would decide how much
/// memory is taken.
pub(super) type Turn<'a> = MutexGuard<'a, ()>;

/// Loads a short object. Refuses one that is longer than `len_max` bytes.
pub(super) fn load_short(backend: &dyn Backend, name: ObjectName, len_max: u64) -> Result<Vec<u8>> {
    let object = backend.load_up_to(name, 0..len_max + 1)?;
    if object.len() as u64 > len_max {
        return Err(RepositoryError::TooLong { name, len: backend.size(name)? });
    }
    Ok(object)
}

/// Loads an object. Refuses one that is longer than `len_max` bytes. A long object waits for its [`Turn`].
pub(super) fn load_limited<'a>(
    backend: &dyn Backend,
    name: ObjectName,
    len_max: u64,
    turns: &'a Mutex<()>,
) -> Result<(Vec<u8>, Option<Turn<'a>>)> {
    let mut object = backend.load_up_to(name, 0..FIRST_LEN)?;
    if (object.len() as u64) < FIRST_LEN {
        return Ok((object, None));
    }
    let turn = turns.lock();
    let len = backend.size(name)?;
    if len > len_max {
        return Err(RepositoryError::TooLong { name, len });
    }
    object.extend(backend.load_range(name, FIRST_LEN..len)?);
    Ok((object, Some(turn)))
}

/// Loads an object that is usually long. Refuses one that is longer than `len_max` bytes.
pub(super) fn load_long(backend: &dyn Backend, name: ObjectName, len_max: u64) -> Result<Vec<u8>> {
    let len = backend.size(name)?;
    if len > len_max {
        return Err(RepositoryError::TooLong { name, len });
    }
    Ok(backend.load(name)?)
}

/// Returns the names of all objects of `kind`.
pub(super) fn names(backend: &dyn Backend, kind: ObjectKind) -> Result<Vec<ObjectName>> {
    let mut names = Vec::new();
    backend.list(kind, &mut |name, _| names.push(name))?;
    Ok(names)
}

/// Calls `each` for all `items`, several at a time, until one call fails.
pub(super) fn each_concurrently<T: Sync>(items: &[T], each: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let (next, failed) = (AtomicUsize::new(0), OnceLock::new());
    let work = || {
        while failed.get().is_none()
            && let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed))
        {
            if let Err(error) = each(item) {
                let _ = failed.set(error);
            }
        }
    };
    thread::scope(|scope| {
        // This thread works too, so a single item needs no other thread.
        for _ in 1..items.len().min(CONCURRENT_REQUESTS_MAX) {
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    failed.into_inner().map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::BackendError;
    use crate::backend::delayed::Delayed;
    use crate::backend::mem::Mem;
    use std::time::Duration;

    fn limited(len: usize, load: impl Fn(&dyn Backend, ObjectName) -> Result<Vec<u8>>) -> (Result<Vec<u8>>, u64) {
        let (backend, name) = (Delayed::new(Mem::new(), Duration::ZERO), ObjectName::snapshot([7; 32]));
        backend.save(name, &vec![1; len]).expect("room");
        backend.reset();
        (load(&backend, name), backend.requests())
    }

    #[test]
    fn what_is_short_takes_one_request_and_what_is_too_long_is_refused() {
        const FIRST: usize = FIRST_LEN as usize;
        let turns = Mutex::default();
        let long = |backend: &dyn Backend, name| Ok(load_limited(backend, name, 2 * FIRST_LEN, &turns)?.0);
        let short = |backend: &dyn Backend, name| load_short(backend, name, 1000);
        for (len, requests) in [(0, 1), (1000, 1), (FIRST - 1, 1), (FIRST, 3), (FIRST + 5, 3), (2 * FIRST, 3)] {
            let (loaded, needed) = limited(len, long);
            assert_eq!((loaded.expect("it is there").len(), needed), (len, requests));
        }
        let (loaded, needed) = limited(1000, short);
        assert_eq!((loaded.expect("not too long").len(), needed), (1000, 1));
        for (len, refused) in [(1001, limited(1001, short).0), (2 * FIRST + 1, limited(2 * FIRST + 1, long).0)] {
            assert!(matches!(refused, Err(RepositoryError::TooLong { len: found, .. }) if found == len as u64));
        }
    }

    #[test]
    fn long_objects_are_loaded_one_after_the_other() {
        let names: Vec<_> = (0..6).map(|number| ObjectName::snapshot([number; 32])).collect();
        let delayed = Delayed::new(Mem::new(), Duration::from_millis(10));
        for name in &names {
            delayed.save(*name, &vec![1; FIRST_LEN as usize + 1]).expect("room");
        }
        delayed.reset();
        let turns = Mutex::default();
        each_concurrently(&names, |name| load_limited(&delayed, *name, u64::MAX, &turns).map(drop))
            .expect("all are there");
        // The first requests run at the same time. The length and the rest of each object are asked for in turn.
        assert!(delayed.rounds() > 2 * names.len() as u64, "{} rounds", delayed.rounds());
    }

    #[test]
    fn all_are_loaded_beside_each_other_and_none_after_an_error() {
        let delayed = Delayed::new(Mem::new(), Duration::from_millis(10));
        let (items, loaded) = ((0..100).collect::<Vec<u64>>(), Mutex::new(Vec::new()));
        let load = |item: &u64| {
            let error = delayed.load(ObjectName::config()).expect_err("there is none");
            loaded.lock().push(*item);
            error
        };
        each_concurrently(&items, |item| {
            load(item);
            Ok(())
        })
        .expect("none failed");
        loaded.lock().sort_unstable();
        assert_eq!(std::mem::take(&mut *loaded.lock()), items);
        assert!(delayed.rounds() <= 20, "{} rounds for 100 requests", delayed.rounds());
        each_concurrently(&[] as &[u64], |_| unreachable!("there is none")).expect("nothing failed");

        let failed = each_concurrently(&items, |item| Err(load(item).into()));
        assert!(matches!(failed, Err(RepositoryError::Backend(BackendError::NotFound { .. }))));
        assert!(loaded.lock().len() <= CONCURRENT_REQUESTS_MAX, "{:?}", loaded.lock());
    }
}

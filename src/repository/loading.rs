//! Loading objects: with as few requests as can be, one beside the other, and never more of them than an honest one has.

use super::{RepositoryError, Result};
use crate::backend::{Backend, ObjectKind, ObjectName};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Nearly everything that is loaded whole fits into this, and so takes one request.
const FIRST_LEN: u64 = 4 << 20;
/// Requests at a time. Far away, loading a thousand snapshots takes as long as a sixteenth of them would, one after the other.
const BESIDE_MAX: usize = 16;

/// Loads an object, unless it is longer than any honest one: what lies in storage must not decide how much memory is taken.
pub(super) fn load_limited(backend: &dyn Backend, name: ObjectName, len_max: u64) -> Result<Vec<u8>> {
    let first_len = FIRST_LEN.min(len_max + 1);
    let mut object = backend.load_up_to(name, 0..first_len)?;
    if (object.len() as u64) < first_len {
        return Ok(object);
    }
    let len = backend.size(name)?;
    if len > len_max {
        return Err(RepositoryError::TooLong { name, len });
    }
    object.extend(backend.load_range(name, first_len..len)?);
    Ok(object)
}

/// Loads an object that is known to be long, with the same limit.
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

/// Calls `load` for all of `items`, several at a time, and returns what it gave, in their order.
pub(super) fn each_beside<T: Sync, R: Send>(items: &[T], load: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut loaded = Vec::new();
        while let number = next.fetch_add(1, Ordering::Relaxed)
            && let Some(item) = items.get(number)
        {
            loaded.push((number, load(item)));
        }
        loaded
    };
    let mut loaded = thread::scope(|scope| {
        // This thread is one of them: a single item needs no other.
        let others: Vec<_> = (1..items.len().min(BESIDE_MAX))
            .map_while(|_| thread::Builder::new().spawn_scoped(scope, work).ok())
            .collect();
        let mut loaded = work();
        for other in others {
            loaded.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        loaded
    });
    loaded.sort_unstable_by_key(|(number, _)| *number);
    loaded.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::delayed::Delayed;
    use crate::backend::mem::Mem;
    use std::time::Duration;

    fn limited(len: usize, len_max: u64) -> (Result<Vec<u8>>, u64) {
        let (backend, name) = (Delayed::new(Mem::new(), Duration::ZERO), ObjectName::snapshot([7; 32]));
        backend.save(name, &vec![1; len]).expect("room");
        backend.reset();
        (load_limited(&backend, name, len_max), backend.requests())
    }

    #[test]
    fn what_is_short_takes_one_request_and_what_is_too_long_is_refused() {
        const FIRST: usize = FIRST_LEN as usize;
        for (len, requests) in [(0, 1), (1000, 1), (FIRST - 1, 1), (FIRST, 3), (FIRST + 5, 3)] {
            let (loaded, needed) = limited(len, 2 * FIRST_LEN);
            assert_eq!((loaded.expect("it is there").len(), needed), (len, requests));
        }
        assert_eq!(limited(1000, 1000).0.expect("not too long").len(), 1000);
        for (len, len_max) in [(1001, 1000), (2 * FIRST + 1, 2 * FIRST_LEN)] {
            let refused = limited(len, len_max).0;
            assert!(matches!(refused, Err(RepositoryError::TooLong { len: found, .. }) if found == len as u64));
        }
    }

    #[test]
    fn all_are_loaded_in_order_beside_each_other() {
        let delayed = Delayed::new(Mem::new(), Duration::from_millis(10));
        let items: Vec<u64> = (0..100).collect();
        let loaded = each_beside(&items, |item| {
            delayed.load(ObjectName::config()).expect_err("there is none");
            item * 2
        });
        assert_eq!(loaded, items.iter().map(|item| item * 2).collect::<Vec<_>>());
        assert!(delayed.rounds() <= 20, "{} rounds for 100 requests", delayed.rounds());
        assert_eq!(each_beside(&[] as &[u64], |item| *item), [] as [u64; 0]);
    }
}

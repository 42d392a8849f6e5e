//! A backend that breaks its contract on demand, for tests.
//!
//! A rule says which calls fail (by a condition and by their number) and how. [`Faulty::at_random`] adds faults from a
//! seed, so that a failing test can print the seed and be repeated. Nothing else here is random: the same calls in the
//! same order meet the same faults, at the same bits.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Backend, BackendError, ObjectKind, ObjectName, Operation};

/// What goes wrong with a call. A fault does nothing to calls that it does not apply to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Any call fails with this error, and nothing happens. `StorageFull` makes it [`BackendError::NoSpace`], and
    /// `TimedOut` is transient.
    Fail(ErrorKind),
    /// `save` and `remove` do what they should, but report this error.
    Unconfirmed(ErrorKind),
    /// `save` fails after a part was written; nothing appears under the name, as the contract demands.
    ShortWrite,
    /// `save` writes half of the bytes under the name and fails. This breaks the contract, like a file system that
    /// reorders writes before a crash.
    Torn,
    /// `save` and `remove` report success but do nothing.
    Lose,
    /// `load` and `load_range` flip one bit of what they return.
    FlipBit,
    /// `load` and `load_range` return only the first half.
    Truncate,
    /// `load` and `load_range` return the bytes of another object of the same kind. If there is no other, they return
    /// their own bytes with the halves exchanged.
    Swap,
    /// Any call takes this much longer.
    Delay(Duration),
}

/// A call, as the condition of a rule sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The operation that was called.
    pub operation: Operation,
    /// The kind of the objects concerned.
    pub kind: ObjectKind,
    /// The object concerned; `None` for a listing.
    pub name: Option<ObjectName>,
}

/// Wraps a backend and makes it fail as planned. Without rules it only counts calls.
pub struct Faulty<B> {
    inner: B,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    random: Option<AtRandom>,
    /// State of the random generator in [`State::draw`].
    seed: u64,
    calls: BTreeMap<(Operation, ObjectKind), u64>,
    faults: u64,
}

struct Rule {
    matches: Box<dyn Fn(&Call) -> bool + Send>,
    at: Range<u64>,
    seen: u64,
    fault: Fault,
}

struct AtRandom {
    one_in: u64,
    faults: Vec<Fault>,
}

impl Fault {
    fn can_befall(self, operation: Operation) -> bool {
        match self {
            Self::Fail(_) | Self::Delay(_) => true,
            Self::Unconfirmed(_) | Self::Lose => operation.is_write(),
            Self::ShortWrite | Self::Torn => operation == Operation::Save,
            Self::FlipBit | Self::Truncate | Self::Swap => {
                matches!(operation, Operation::Load | Operation::LoadRange)
            }
        }
    }
}

impl State {
    /// Returns the next number of the SplitMix64 generator.
    fn draw(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Counts `call` and returns what goes wrong with it.
    fn fault(&mut self, call: &Call) -> Option<Fault> {
        *self.calls.entry((call.operation, call.kind)).or_default() += 1;
        let mut planned = None;
        for rule in self.rules.iter_mut().filter(|rule| (rule.matches)(call)) {
            let is_due = rule.at.contains(&rule.seen) && rule.fault.can_befall(call.operation);
            planned = planned.or(is_due.then_some(rule.fault));
            rule.seen += 1;
        }
        let fault = planned.or_else(|| self.random_fault(call.operation));
        self.faults += u64::from(fault.is_some());
        fault
    }

    fn random_fault(&mut self, operation: Operation) -> Option<Fault> {
        let (when, which) = (self.draw(), self.draw());
        let random = self.random.as_ref()?;
        let faults: Vec<_> = random.faults.iter().filter(|fault| fault.can_befall(operation)).collect();
        (when.is_multiple_of(random.one_in) && !faults.is_empty())
            .then(|| *faults[(which % faults.len() as u64) as usize])
    }
}

impl<B: Backend> Faulty<B> {
    /// Wraps `inner`, without any faults.
    pub fn new(inner: B) -> Self {
        Self { inner, state: Mutex::default() }
    }

    /// Returns the wrapped backend, which has no faults.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    /// Adds a rule. It counts the calls that `matches` accepts, from 0; those whose number is in `at` meet `fault`. Use
    /// `n..n + 1` for call `n` alone, and `n..u64::MAX` for call `n` and all later ones. If several rules apply, the
    /// oldest one wins.
    pub fn plan(&self, at: Range<u64>, fault: Fault, matches: impl Fn(&Call) -> bool + Send + 'static) {
        self.state.lock().rules.push(Rule { matches: Box::new(matches), at, seen: 0, fault });
    }

    /// Makes about one call in `one_in` meet one of `faults`, chosen by `seed`. The seed also decides which bits are
    /// flipped.
    pub fn at_random(&self, seed: u64, one_in: u64, faults: &[Fault]) {
        let mut state = self.state.lock();
        state.seed = seed;
        state.random = Some(AtRandom { one_in: one_in.max(1), faults: faults.to_vec() });
    }

    /// Removes all rules and random faults; the counts stay.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.rules.clear();
        state.random = None;
    }

    /// Returns how often `operation` was called, with or without success.
    pub fn calls(&self, operation: Operation) -> u64 {
        ObjectKind::ALL.into_iter().map(|kind| self.calls_of(operation, kind)).sum()
    }

    /// Returns how often `operation` was called for objects of `kind`, with or without success.
    pub fn calls_of(&self, operation: Operation, kind: ObjectKind) -> u64 {
        self.state.lock().calls.get(&(operation, kind)).copied().unwrap_or_default()
    }

    /// Returns how many calls met a fault, so that a test can check that faults happened at all.
    pub fn faults(&self) -> u64 {
        self.state.lock().faults
    }

    /// Counts the call, and handles faults that apply to any operation. Returns the fault that the operation must
    /// handle itself.
    fn enter(&self, operation: Operation, name: ObjectName) -> Result<Option<Fault>, BackendError> {
        let fault = self.state.lock().fault(&Call { operation, kind: name.kind(), name: Some(name) });
        match fault {
            Some(Fault::Fail(kind)) => Err(BackendError::from_io(operation, name, kind.into())),
            Some(Fault::Delay(time)) => {
                thread::sleep(time);
                Ok(None)
            }
            fault => Ok(fault),
        }
    }

    /// Returns `data` as `fault` changes it. `read` reads the same range of another object.
    fn spoil(
        &self,
        name: ObjectName,
        fault: Option<Fault>,
        mut data: Vec<u8>,
        read: impl Fn(ObjectName) -> Result<Vec<u8>, BackendError>,
    ) -> Result<Vec<u8>, BackendError> {
        match fault {
            Some(Fault::FlipBit) if !data.is_empty() => {
                let bit = self.state.lock().draw() % (data.len() as u64 * 8);
                data[(bit / 8) as usize] ^= 1 << (bit % 8);
            }
            Some(Fault::Truncate) => data.truncate(data.len() / 2),
            Some(Fault::Swap) => {
                let mut others = Vec::new();
                self.inner.list(name.kind(), &mut |other, _| others.push(other))?;
                others.retain(|&other| other != name);
                others.sort_unstable();
                let pick = self.state.lock().draw();
                let other = (!others.is_empty()).then(|| others[(pick % others.len() as u64) as usize]);
                match other.map(read) {
                    Some(Ok(swapped)) => data = swapped,
                    _ => {
                        let half = data.len() / 2;
                        data.rotate_left(half);
                    }
                }
            }
            _ => {}
        }
        Ok(data)
    }
}

impl<B: Backend> Backend for Faulty<B> {
    fn save(&self, name: ObjectName, data: &[u8]) -> Result<(), BackendError> {
        let failed = |kind: ErrorKind| BackendError::from_io(Operation::Save, name, kind.into());
        match self.enter(Operation::Save, name)? {
            Some(Fault::Unconfirmed(kind)) => self.inner.save(name, data).and(Err(failed(kind))),
            Some(Fault::ShortWrite) => Err(failed(ErrorKind::WriteZero)),
            Some(Fault::Torn) => self.inner.save(name, &data[..data.len() / 2]).and(Err(failed(ErrorKind::WriteZero))),
            Some(Fault::Lose) => Ok(()),
            _ => self.inner.save(name, data),
        }
    }

    fn load(&self, name: ObjectName) -> Result<Vec<u8>, BackendError> {
        let fault = self.enter(Operation::Load, name)?;
        self.spoil(name, fault, self.inner.load(name)?, |name| self.inner.load(name))
    }

    fn load_range(&self, name: ObjectName, range: Range<u64>) -> Result<Vec<u8>, BackendError> {
        let fault = self.enter(Operation::LoadRange, name)?;
        let read = |name| self.inner.load_range(name, range.clone());
        self.spoil(name, fault, read(name)?, read)
    }

    fn load_up_to(&self, name: ObjectName, range: Range<u64>) -> Result<Vec<u8>, BackendError> {
        let fault = self.enter(Operation::LoadRange, name)?;
        let read = |name| self.inner.load_up_to(name, range.clone());
        self.spoil(name, fault, read(name)?, read)
    }

    fn drop_local_copy(&self, name: ObjectName, range: Range<u64>) -> bool {
        self.inner.drop_local_copy(name, range)
    }

    fn list(&self, kind: ObjectKind, each: &mut dyn FnMut(ObjectName, u64)) -> Result<(), BackendError> {
        let fault = self.state.lock().fault(&Call { operation: Operation::List, kind, name: None });
        match fault {
            Some(Fault::Fail(error)) => Err(BackendError::List { kind, source: io::Error::from(error) }),
            Some(Fault::Delay(time)) => {
                thread::sleep(time);
                self.inner.list(kind, each)
            }
            _ => self.inner.list(kind, each),
        }
    }

    fn size(&self, name: ObjectName) -> Result<u64, BackendError> {
        self.enter(Operation::Size, name)?;
        self.inner.size(name)
    }

    fn remove(&self, name: ObjectName) -> Result<(), BackendError> {
        match self.enter(Operation::Remove, name)? {
            Some(Fault::Unconfirmed(kind)) => {
                let failed = BackendError::from_io(Operation::Remove, name, kind.into());
                self.inner.remove(name).and(Err(failed))
            }
            Some(Fault::Lose) => Ok(()),
            _ => self.inner.remove(name),
        }
    }

    fn describe(&self) -> String {
        format!("faulty {}", self.inner.describe())
    }
}

impl<B: Backend> fmt::Debug for Faulty<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({}, {} faults so far)", self.inner.describe(), self.faults())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::mem::Mem;
    use super::super::testing::{self, listing, name};
    use super::*;

    const PACK: ObjectKind = ObjectKind::Pack;

    /// Returns a backend with the packs 0 to 4 of 64 bytes each, and plans `fault` for every call.
    fn faulty(fault: Fault) -> Faulty<Mem> {
        let mem = Mem::new();
        for seed in 0..5 {
            mem.save(name(PACK, seed), &data(seed)).unwrap();
        }
        let faulty = Faulty::new(mem);
        faulty.plan(0..u64::MAX, fault, |_| true);
        faulty
    }

    fn data(seed: u64) -> Vec<u8> {
        (0..64).map(|i| (seed * 64 + i) as u8).collect()
    }

    #[test]
    fn keeps_the_contract_without_faults() {
        testing::suite(|| Box::new(Faulty::new(Mem::new())));
        testing::suite(|| Box::new(Faulty::new(Box::new(Mem::new()) as Box<dyn Backend>)));
        // A delay is not an error.
        let faulty = faulty(Fault::Delay(Duration::from_millis(2)));
        let start = Instant::now();
        assert_eq!(listing(&faulty, PACK).len(), 5);
        assert_eq!(faulty.load(name(PACK, 1)).unwrap(), data(1));
        assert!(start.elapsed() >= Duration::from_millis(4));
    }

    #[test]
    fn fails_the_nth_call_of_a_kind() {
        let faulty = Faulty::new(Mem::new());
        faulty.plan(2..3, Fault::Fail(ErrorKind::TimedOut), |call| {
            call.operation == Operation::Save && call.kind == PACK
        });
        let mut failed = Vec::new();
        for seed in 0..5 {
            faulty.save(name(ObjectKind::Index, seed), b"x").unwrap();
            if let Err(error) = faulty.save(name(PACK, seed), b"x") {
                assert!(error.is_transient());
                failed.push(seed);
            }
        }
        assert_eq!(failed, [2]);
        assert_eq!(listing(faulty.inner(), PACK).len(), 4);
        assert_eq!((faulty.calls(Operation::Save), faulty.calls_of(Operation::Save, PACK)), (10, 5));
        assert_eq!((faulty.calls(Operation::Load), faulty.faults()), (0, 1));
    }

    #[test]
    fn stops_at_the_nth_write() {
        let faulty = Faulty::new(Mem::new());
        faulty.plan(2..u64::MAX, Fault::Fail(ErrorKind::StorageFull), |call| call.operation.is_write());
        faulty.save(name(PACK, 0), b"x").unwrap();
        faulty.remove(name(PACK, 0)).unwrap();
        assert!(matches!(faulty.save(name(PACK, 1), b"x"), Err(BackendError::NoSpace { .. })));
        assert!(faulty.remove(name(PACK, 1)).is_err());
        assert!(listing(&faulty, PACK).is_empty());
        faulty.heal();
        faulty.save(name(PACK, 1), b"x").unwrap();
    }

    #[test]
    fn fails_every_operation() {
        let faulty = faulty(Fault::Fail(ErrorKind::ConnectionReset));
        let name = name(PACK, 1);
        for error in [
            faulty.save(name, b"x").unwrap_err(),
            faulty.load(name).unwrap_err(),
            faulty.load_range(name, 0..1).unwrap_err(),
            faulty.list(PACK, &mut |_, _| panic!("must not list")).unwrap_err(),
            faulty.size(name).unwrap_err(),
            faulty.remove(name).unwrap_err(),
        ] {
            assert!(error.is_transient(), "{error:?}");
        }
        assert_eq!(faulty.faults(), 6);
        assert_eq!(faulty.inner().load(name).unwrap(), data(1));
    }

    #[test]
    fn reports_failure_although_it_happened() {
        let faulty = faulty(Fault::Unconfirmed(ErrorKind::TimedOut));
        assert!(faulty.save(name(PACK, 9), b"data").unwrap_err().is_transient());
        assert_eq!(faulty.inner().load(name(PACK, 9)).unwrap(), b"data");
        assert!(faulty.remove(name(PACK, 9)).is_err());
        assert!(faulty.inner().load(name(PACK, 9)).is_err());
    }

    #[test]
    fn loses_in_silence() {
        let faulty = faulty(Fault::Lose);
        faulty.save(name(PACK, 9), b"data").unwrap();
        assert!(matches!(faulty.load(name(PACK, 9)), Err(BackendError::NotFound { .. })));
        faulty.remove(name(PACK, 1)).unwrap();
        assert_eq!(faulty.load(name(PACK, 1)).unwrap(), data(1));
    }

    #[test]
    fn a_short_write_shows_nothing_and_a_torn_one_half() {
        let short = faulty(Fault::ShortWrite);
        assert!(short.save(name(PACK, 9), b"data").is_err());
        assert!(matches!(short.load(name(PACK, 9)), Err(BackendError::NotFound { .. })));

        let torn = faulty(Fault::Torn);
        assert!(torn.save(name(PACK, 9), b"data").is_err());
        assert_eq!(torn.load(name(PACK, 9)).unwrap(), b"da");
        torn.heal();
        torn.save(name(PACK, 9), b"data").unwrap();
        assert_eq!(torn.load(name(PACK, 9)).unwrap(), b"data");
    }

    #[test]
    fn spoils_what_is_read() {
        let read = |fault, seed| {
            let faulty = faulty(fault);
            faulty.at_random(seed, u64::MAX, &[]);
            let (whole, part) = (faulty.load(name(PACK, 1)).unwrap(), faulty.load_range(name(PACK, 1), 8..40).unwrap());
            assert_eq!(faulty.inner().load(name(PACK, 1)).unwrap(), data(1));
            (whole, part)
        };
        for seed in 0..50 {
            let bits = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
            let (whole, part) = read(Fault::FlipBit, seed);
            assert_eq!((whole.len(), bits(&whole, &data(1))), (64, 1));
            assert_eq!((part.len(), bits(&part, &data(1)[8..40])), (32, 1));
            assert_eq!(read(Fault::FlipBit, seed), (whole, part), "the same seed, the same bits");

            let (whole, part) = read(Fault::Swap, seed);
            assert!((0..5).any(|seed| seed != 1 && data(seed) == whole));
            assert!((0..5).any(|seed| seed != 1 && data(seed)[8..40] == part));
        }
        let (whole, part) = read(Fault::Truncate, 0);
        assert_eq!((&whole[..], &part[..]), (&data(1)[..32], &data(1)[8..24]));

        let alone = Faulty::new(Mem::new());
        alone.save(ObjectName::config(), b"abcd").unwrap();
        alone.plan(0..1, Fault::Swap, |_| true);
        assert_eq!(alone.load(ObjectName::config()).unwrap(), b"cdab");
    }

    #[test]
    fn random_faults_repeat_by_seed() {
        let run = |seed| {
            let faulty = Faulty::new(Mem::new());
            faulty.at_random(seed, 4, &[Fault::Fail(ErrorKind::TimedOut), Fault::ShortWrite, Fault::Truncate]);
            (0..200).map(|seed| faulty.save(name(PACK, seed), b"x").is_ok()).collect::<Vec<_>>()
        };
        let first = run(1);
        let failed = first.iter().filter(|&&ok| !ok).count();
        assert!((25..75).contains(&failed), "{failed} of 200");
        assert_eq!(first, run(1));
        assert_ne!(first, run(2));
    }
}

//! A process that tries inputs until it is told to stop, or until one of them ends it.

use crate::growth::{Growing, process_time, timed};
use crate::inputs::{Inputs, Kind, corpus};
use crate::{checks, growth};
use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use strongroom_corpora::rng::Rng;

/// More memory than this ends the process.
const MEMORY_BYTES_MAX: u64 = 3 << 30;
/// The threads of the program have 2 MiB.
const STACK_BYTES: usize = 1 << 20;
/// One input that takes longer than this on the processor never ends.
const INPUT_TIME_MAX: Duration = Duration::from_secs(60);
/// One in this many inputs is also tried at several lengths.
const GROWN_EVERY: u64 = 60;
/// The exit code of a process that found something that does not hold.
pub const FOUND: i32 = 3;
/// The file in the folder of a worker that holds the input at hand, without its ending.
pub const CURRENT: &str = "current";

/// Runs something with the stack and the memory that each input has to get along with.
pub fn bounded<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let limit = Rlimit { current: Some(MEMORY_BYTES_MAX), maximum: Some(MEMORY_BYTES_MAX) };
    setrlimit(Resource::As, limit).context("could not bound the memory")?;
    let number = Arc::new(AtomicU64::new(0));
    watch(Arc::clone(&number));
    let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        NUMBER.with(|own| *own.borrow_mut() = Some(number));
        run()
    })?;
    // A panic is reported by its thread; the exit code says it to the process that started this one.
    thread.join().map_err(|_| std::process::exit(101))
}

thread_local! {
    static NUMBER: std::cell::RefCell<Option<Arc<AtomicU64>>> = const { std::cell::RefCell::new(None) };
}

/// Says that the next input begins, for the watch on inputs that never end.
pub fn begin_input() {
    NUMBER.with(|number| {
        if let Some(number) = &*number.borrow() {
            number.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// Ends the process when one input takes too long.
fn watch(number: Arc<AtomicU64>) {
    thread::spawn(move || {
        let (mut last, mut since) = (0, process_time());
        loop {
            thread::sleep(Duration::from_secs(1));
            let now = number.load(Ordering::Relaxed);
            if now != last {
                (last, since) = (now, process_time());
            } else if process_time().saturating_sub(since) > INPUT_TIME_MAX {
                eprintln!("input never ends: it took more than {INPUT_TIME_MAX:?}");
                std::process::exit(FOUND);
            }
        }
    });
}

/// Checks one input, also at several lengths. Returns what does not hold.
pub fn check_one(kind: Kind, input: &[u8], grown: u64) -> Result<()> {
    begin_input();
    checks::check(kind, input)?;
    let mut rng = Rng::for_purpose(grown, "lengths of one");
    for _ in 0..grown {
        begin_input();
        if let Some(growing) = Growing::of(input, &mut rng) {
            growing.check(kind)?;
        }
    }
    Ok(())
}

/// Tries inputs for a time. Writes to `folder` the input at hand, and says every second or so what it has done.
///
/// # Errors
/// What does not hold for the input at hand.
pub fn work(seed: u64, seconds: u64, mails: Option<&Path>, folder: &Path) -> Result<()> {
    let mut inputs = Inputs::new(seed, corpus(mails)?);
    let mut rng = Rng::for_purpose(seed, "lengths");
    let mut seen = HashSet::new();
    let mut done = Done::default();
    let start = Instant::now();
    let mut said = start;
    while start.elapsed().as_secs() < seconds {
        let (kind, input) = inputs.next_input();
        let current = folder.join(CURRENT).with_extension(kind.ending());
        fs::write(&current, &input).with_context(|| format!("could not write {}", current.display()))?;
        fs::write(folder.join("kind"), kind.ending())?;
        begin_input();
        let (time, signature) = timed(|| checks::check(kind, &input));
        if seen.insert((kind as u8, signature?)) {
            inputs.keep(kind, &input);
        }
        done.add(&input, time, folder, kind)?;
        if rng.below(GROWN_EVERY) == 0
            && let Some(growing) = Growing::of(&input, &mut rng)
        {
            begin_input();
            // Where it fails, the input at hand is the grown one.
            if let Err(fault) = growing.check(kind) {
                fs::write(&current, growing.input(256 << 10))?;
                return Err(fault);
            }
            done.grown += 1;
        }
        if said.elapsed() > Duration::from_secs(1) {
            said = Instant::now();
            done.say(seen.len());
        }
    }
    done.say(seen.len());
    Ok(())
}

#[derive(Default)]
struct Done {
    inputs: u64,
    bytes: u64,
    grown: u64,
    /// The most nanoseconds for a byte of an input that is long enough to tell.
    worst: f64,
}

impl Done {
    fn add(&mut self, input: &[u8], time: Duration, folder: &Path, kind: Kind) -> Result<()> {
        const TELLING_BYTES_MIN: usize = 4096;
        self.inputs += 1;
        self.bytes += input.len() as u64;
        if input.len() < TELLING_BYTES_MIN {
            return Ok(());
        }
        let per_byte = time.as_nanos() as f64 / input.len() as f64;
        if per_byte > self.worst {
            // Something else may have been on the processor.
            let (again, _) = growth::timed(|| checks::check(kind, input));
            let per_byte = per_byte.min(again.as_nanos() as f64 / input.len() as f64);
            if per_byte > self.worst {
                self.worst = per_byte;
                let path: PathBuf = folder.join("slowest").with_extension(kind.ending());
                fs::write(path, input)?;
            }
        }
        Ok(())
    }

    fn say(&self, ways: usize) {
        println!("{} {} {} {:.0} {ways}", self.inputs, self.bytes, self.grown, self.worst);
    }
}

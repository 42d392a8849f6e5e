//! Runs workers, keeps the inputs that ended them, and makes these small.
//!
//! An input may end its process: a panic, an abort, a stack overflow, memory beyond its bound. So each worker is a
//! process of its own that writes each input to a file before it reads it.

use crate::inputs::Kind;
use crate::worker::CURRENT;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Faults of different kinds after which there is enough to mend.
const FAULTS_MAX: usize = 30;
/// A worker that ends at once, this often in a row, will go on doing so.
const RESTARTS_MAX: u32 = 1000;
const MINIMISING_TIME_MAX: Duration = Duration::from_secs(60);

/// What to do.
pub struct Hunt {
    pub seed: u64,
    pub seconds: u64,
    pub threads: u64,
    pub mails: Option<PathBuf>,
    /// Where inputs that failed are kept.
    pub out: PathBuf,
}

/// What all workers have done.
#[derive(Default)]
struct Score {
    faults: BTreeMap<String, PathBuf>,
    done: BTreeMap<(u64, u32), [f64; 5]>,
}

impl Score {
    fn sum(&self, column: usize) -> f64 {
        self.done.values().map(|row| row[column]).sum()
    }

    fn most(&self, column: usize) -> f64 {
        self.done.values().map(|row| row[column]).fold(0.0, f64::max)
    }

    fn line(&self, elapsed: Duration) -> String {
        format!(
            "{:>6.0} s  {} inputs  {:.1} MB  {} grown  worst {:.0} ns/byte  {} ways of reading  {} faults",
            elapsed.as_secs_f64(),
            self.sum(0),
            self.sum(1) / 1e6,
            self.sum(2),
            self.most(3),
            self.most(4),
            self.faults.len()
        )
    }
}

impl Hunt {
    /// Hunts for the time given. Returns how many kinds of faults were found.
    pub fn run(self) -> Result<usize> {
        fs::create_dir_all(&self.out).with_context(|| format!("could not make {}", self.out.display()))?;
        println!(
            "seed {}, {} s on {} threads; faults go to {}",
            self.seed,
            self.seconds,
            self.threads,
            self.out.display()
        );
        let (hunt, score, start) = (Arc::new(self), Arc::new(Mutex::new(Score::default())), Instant::now());
        let workers: Vec<_> = (0..hunt.threads)
            .map(|number| {
                let (hunt, score) = (Arc::clone(&hunt), Arc::clone(&score));
                thread::spawn(move || hunt.workers(number, start, &score))
            })
            .collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            for _ in 0..60 {
                thread::sleep(Duration::from_secs(1));
                if workers.iter().all(thread::JoinHandle::is_finished) {
                    break;
                }
            }
            println!("{}", lock(&score).line(start.elapsed()));
        }
        for worker in workers {
            worker.join().expect("a thread of the hunt does not panic")?;
        }
        let score = lock(&score);
        for (fault, path) in &score.faults {
            println!("FAULT {fault}\n      {}", path.display());
        }
        Ok(score.faults.len())
    }

    /// Runs one worker after the other, as each is ended by an input.
    fn workers(&self, number: u64, start: Instant, score: &Mutex<Score>) -> Result<()> {
        let folder = self.out.join(format!("worker-{number}"));
        fs::create_dir_all(&folder)?;
        for restart in 0..RESTARTS_MAX {
            let left = self.seconds.saturating_sub(start.elapsed().as_secs());
            if left == 0 || lock(score).faults.len() >= FAULTS_MAX {
                return Ok(());
            }
            // Each has a seed of its own; the first of all that of the command line.
            let seed = self.seed.wrapping_add(number << 32).wrapping_add(u64::from(restart) << 16);
            let status = self.worker(seed, left, (number, restart), &folder, score)?;
            if status.success() {
                continue;
            }
            let said = fs::read(folder.join("said"))?;
            let fault = fault(&String::from_utf8_lossy(&said), status);
            let ending = fs::read_to_string(folder.join("kind")).unwrap_or_default();
            let input = folder.join(CURRENT).with_extension(&ending);
            if !input.exists() {
                bail!("a worker ended before its first input: {}", String::from_utf8_lossy(&said));
            }
            self.keep(&fault, &input, seed, score)?;
        }
        Ok(())
    }

    fn worker(
        &self,
        seed: u64,
        seconds: u64,
        key: (u64, u32),
        folder: &Path,
        score: &Mutex<Score>,
    ) -> Result<ExitStatus> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["worker", "--seed", &seed.to_string(), "--seconds", &seconds.to_string(), "--folder"])
            .arg(folder);
        if let Some(mails) = &self.mails {
            command.arg("--mails").arg(mails);
        }
        command.stdout(Stdio::piped()).stderr(File::create(folder.join("said"))?);
        let mut child = command.spawn().context("could not start a worker")?;
        let lines = child.stdout.take().context("a worker without output")?;
        for line in BufReader::new(lines).lines() {
            let numbers: Vec<f64> = line?.split(' ').filter_map(|word| word.parse().ok()).collect();
            if let Ok(row) = <[f64; 5]>::try_from(numbers) {
                lock(score).done.insert(key, row);
            }
        }
        Ok(child.wait()?)
    }

    /// Keeps an input if its fault is a new one, and makes it small.
    fn keep(&self, fault: &str, input: &Path, seed: u64, score: &Mutex<Score>) -> Result<()> {
        let number = {
            let mut score = lock(score);
            if score.faults.contains_key(fault) {
                return Ok(());
            }
            score.faults.insert(fault.to_owned(), input.to_owned());
            score.faults.len()
        };
        let ending = input.extension().unwrap_or_default();
        let path = self.out.join(format!("fault-{seed}-{number}")).with_extension(ending);
        fs::copy(input, &path)?;
        println!("FAULT {fault}\n      {}", path.display());
        lock(score).faults.insert(fault.to_owned(), path.clone());
        let small = minimised(&path, fault)?;
        let small_path = self.out.join(format!("fault-{seed}-{number}-small")).with_extension(ending);
        fs::write(&small_path, small)?;
        lock(score).faults.insert(fault.to_owned(), small_path);
        Ok(())
    }
}

fn lock(score: &Mutex<Score>) -> std::sync::MutexGuard<'_, Score> {
    score.lock().expect("no thread panics with the score")
}

/// Returns the kind of a fault: what the process said, without numbers and contents.
fn fault(said: &str, status: ExitStatus) -> String {
    let panic = said.lines().find(|line| line.contains("panicked at"));
    let line = panic.or_else(|| said.lines().find(|line| !line.trim().is_empty())).unwrap_or_default();
    let line = match panic {
        // `thread '<unnamed>' (12) panicked at src/mail.rs:1:2:`: the place tells.
        Some(line) => line.split_once("panicked at").map_or(line, |(_, place)| place).to_owned(),
        None => line.split(':').next().unwrap_or_default().replace(|char: char| char.is_ascii_digit(), ""),
    };
    let how = if status.code().is_some() { String::new() } else { format!(" ({status})") };
    format!("{}{how}", line.trim().trim_start_matches("Error: "))
}

/// Runs the checks of an input in a process of its own. Returns the kind of its fault; none if all holds.
pub fn fault_of(path: &Path) -> Result<Option<String>> {
    let output = Command::new(std::env::current_exe()?).arg("check").arg(path).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    Ok((!output.status.success()).then(|| fault(&said, output.status)))
}

/// Leaves out of an input what its fault does not need.
pub fn minimised(path: &Path, fault: &str) -> Result<Vec<u8>> {
    let mut input = fs::read(path)?;
    let trial = path.with_extension(format!("trial.{}", Kind::of(path).ending()));
    let start = Instant::now();
    let mut piece = input.len().div_ceil(2);
    while piece > 0 && start.elapsed() < MINIMISING_TIME_MAX {
        let mut at = 0;
        let mut smaller = false;
        while at < input.len() && start.elapsed() < MINIMISING_TIME_MAX {
            let mut without = input.clone();
            without.drain(at..input.len().min(at + piece));
            fs::write(&trial, &without)?;
            if fault_of(&trial)?.as_deref() == Some(fault) {
                (input, smaller) = (without, true);
            } else {
                at += piece;
            }
        }
        if !smaller || piece > 1 {
            piece /= 2;
        }
    }
    fs::remove_file(&trial).ok();
    Ok(input)
}

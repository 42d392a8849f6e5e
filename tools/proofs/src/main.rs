//! Proofs of the reader of mail that take longer than a test may.
//!
//! - `fuzz` tries it with inputs that nobody wrote, for as long as it is told: nothing may panic, abort, take more than
//!   linear time or too much memory, lose a byte or read the same input in two ways. Inputs that do are kept, made
//!   small, and can be tried again with `check`.
//! - `archives` tries damaged documents on what takes them apart.
//! - `show` prints what it reads in the mails of a folder, for comparison with another reader.

mod archives;
mod checks;
mod growth;
mod hunt;
mod inputs;
mod pieces;
mod show;
mod worker;

use crate::hunt::Hunt;
use crate::inputs::Kind;
use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

/// Long proofs of the reader of mail.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Tries inputs made from a seed, for a time.
    Fuzz {
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        #[arg(long, default_value_t = 1)]
        threads: u64,
        /// A folder of real mails to start from.
        #[arg(long)]
        mails: Option<PathBuf>,
        /// Where inputs that failed are kept.
        #[arg(long)]
        out: PathBuf,
    },
    /// Tries damaged documents on what takes archives apart, for a time.
    Archives {
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Where the archive at hand is kept.
        #[arg(long)]
        out: PathBuf,
    },
    /// Tries saved inputs again. Their ending says what they are: .eml, .mbox or .value.
    Check {
        files: Vec<PathBuf>,
        /// Tries each at several lengths, too, this often.
        #[arg(long, default_value_t = 0)]
        grown: u64,
    },
    /// Makes a saved input that fails as small as it can be, and writes it to `<file>-small`.
    Minimise { file: PathBuf },
    /// Prints what is read in each mail of a folder, as a JSON object a line.
    Show { folder: PathBuf },
    #[command(hide = true)]
    Worker {
        #[arg(long)]
        seed: u64,
        #[arg(long)]
        seconds: u64,
        #[arg(long)]
        mails: Option<PathBuf>,
        #[arg(long)]
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Fuzz { seed, seconds, threads, mails, out } => {
            let faults = Hunt { seed, seconds, threads: threads.max(1), mails, out }.run()?;
            return Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Archives { seed, seconds, out } => {
            return found(worker::bounded(move || archives::work(seed, seconds, &out))?);
        }
        Command::Check { files, grown } => {
            let inputs = files.into_iter().map(|path| {
                let input = fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
                Ok((Kind::of(&path), input))
            });
            let inputs = inputs.collect::<Result<Vec<_>>>()?;
            return found(worker::bounded(move || {
                inputs.iter().try_for_each(|(kind, input)| worker::check_one(*kind, input, grown))
            })?);
        }
        Command::Minimise { file } => match hunt::fault_of(&file)? {
            None => println!("nothing is wrong with it"),
            Some(fault) => {
                println!("{fault}");
                let mut name = file.clone().into_os_string();
                name.push("-small");
                fs::write(&name, hunt::minimised(&file, &fault)?)?;
            }
        },
        Command::Show { folder } => show::folder(&folder)?,
        Command::Worker { seed, seconds, mails, folder } => {
            return found(worker::bounded(move || worker::work(seed, seconds, mails.as_deref(), &folder))?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what does not hold, in a way that the process that started this one understands.
fn found(result: Result<()>) -> Result<ExitCode> {
    let Err(fault) = result else { return Ok(ExitCode::SUCCESS) };
    eprintln!("{fault:#}");
    std::process::exit(worker::FOUND);
}

//! The command line: `strongroom-corpora office DIR` and the other commands.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use strongroom_corpora::edit::Change;
use strongroom_corpora::mailbox::{LineEnds, Quoting};
use strongroom_corpora::{edit, hostile, mailbox, office};

/// Generates mailboxes and drives for tests and measurements, the same for the same seed.
#[derive(Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "Example: strongroom-corpora office --seed 7 --users 5 /tmp/tenant"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes an office tenant: mailboxes, drives and team sites (by default 15,000 files, 285 MB).
    Office {
        /// Seed; the same seed and sizes give the same tenant.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Number of mailboxes, each with a drive.
        #[arg(long, default_value_t = 24)]
        users: usize,
        /// Number of messages in each mailbox, on average.
        #[arg(long, default_value_t = 500)]
        mails_per_user: usize,
        /// Number of files in each OneDrive.
        #[arg(long, default_value_t = 120)]
        files_per_user: usize,
        /// Folder to write into; must be empty or missing.
        dir: PathBuf,
    },
    /// Changes an office tenant as a working day would, and prints the changes.
    Edit {
        /// Seed of the changes.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Number of new messages.
        #[arg(long, default_value_t = 5)]
        new: usize,
        /// Number of messages that move to another folder.
        #[arg(long, default_value_t = 2)]
        moved: usize,
        /// Number of messages that are deleted.
        #[arg(long, default_value_t = 2)]
        deleted: usize,
        /// Number of documents that are edited.
        #[arg(long, default_value_t = 2)]
        edited: usize,
        /// Folder of the tenant.
        dir: PathBuf,
    },
    /// Writes names, files and messages that break careless programs.
    Hostile {
        /// Number of files in one folder.
        #[arg(long, default_value_t = 20_000)]
        many: usize,
        /// Size of the sparse file in GiB; 0 omits it.
        #[arg(long, default_value_t = 3)]
        sparse_gib: u64,
        /// Number of nested folders.
        #[arg(long, default_value_t = 60)]
        depth: usize,
        /// Folder to write into; must be empty or missing.
        dir: PathBuf,
    },
    /// Writes all .eml files of a folder into one mbox file.
    Mbox {
        /// The folder with the .eml files.
        #[arg(long)]
        from: PathBuf,
        /// How lines that look like a separator are escaped.
        #[arg(long, value_enum, default_value_t = Format::Mboxrd)]
        format: Format,
        /// Keeps CRLF instead of writing LF.
        #[arg(long)]
        keep_crlf: bool,
        /// The mbox file to write.
        out: PathBuf,
    },
    /// Writes all .eml files of a folder into a Maildir.
    Maildir {
        /// The folder with the .eml files.
        #[arg(long)]
        from: PathBuf,
        /// Folder to write into; must be empty or missing.
        out: PathBuf,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Mboxo,
    Mboxrd,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("Caused by: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Office { seed, users, mails_per_user, files_per_user, dir } => {
            let options = office::Options { seed, users, mails_per_user, files_per_user };
            let office::Summary { mails, files, bytes } = office::generate(&options, &dir)?;
            println!("{mails} messages and {files} other files, {} MB", bytes / 1_000_000);
        }
        Command::Edit { seed, new, moved, deleted, edited, dir } => {
            for change in edit::edit(&edit::Options { seed, new, moved, deleted, edited }, &dir)? {
                match change {
                    Change::New(path) => println!("new      {}", path.display()),
                    Change::Moved(from, to) => println!("moved    {} -> {}", from.display(), to.display()),
                    Change::Deleted(path) => println!("deleted  {}", path.display()),
                    Change::Edited(path) => println!("edited   {}", path.display()),
                }
            }
        }
        Command::Hostile { many, sparse_gib, depth, dir } => {
            hostile::generate(&hostile::Options { many, sparse_gib, depth }, &dir)?;
        }
        Command::Mbox { from, format, keep_crlf, out } => {
            let quoting = match format {
                Format::Mboxo => Quoting::Mboxo,
                Format::Mboxrd => Quoting::Mboxrd,
            };
            let line_ends = if keep_crlf { LineEnds::Keep } else { LineEnds::Lf };
            println!("{} messages", mailbox::write_mbox(&from, &out, quoting, line_ends)?);
        }
        Command::Maildir { from, out } => println!("{} messages", mailbox::write_maildir(&from, &out)?),
    }
    Ok(())
}

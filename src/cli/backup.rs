//! `strongroom backup`

mod folders;
mod sets;
mod shown;

pub use self::shown::rfc3339;

use super::error::{Exit, UsageError};
use super::progress;
use super::{Session, allocator};
use crate::backend::local::Local;
use crate::backup::{self, BackupOptions};
use crate::settings::refuse_set_name;
use crate::source::Source;
use crate::source::files::Files;
use crate::source::mbox::Mboxes;
use anyhow::{Context, Result};
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Age at which a temporary file is removed. No running process still writes to a file of this age.
const TEMPORARY_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Backs up mailboxes, folders or mbox files: makes a snapshot of them
#[derive(Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(false))]
#[command(
    after_help = "Examples:\n  strongroom backup --set everyone\n  strongroom backup --files /home/alice --as alice\n  \
    strongroom backup --files /home --files /etc --as machine --exclude '*.tmp' --exclude-caches\n  \
    strongroom backup --mbox ~/mail/archive.mbox --as archive\n\n\
    Exit code 3 means that some items could not be read. They are listed, and the next run tries \
    them again. Everything else is stored."
)]
pub struct Backup {
    /// Backs up this set of the configuration, one snapshot for each set; may be given several times
    #[arg(long, value_name = "NAME", group = "what")]
    set: Vec<String>,
    /// Backs up every set of the configuration
    #[arg(long, group = "what")]
    all: bool,
    /// Backs up everything in this folder: Maildir, .eml files, and all other files. May be given several times; then
    /// each DIR becomes a folder in the snapshot, named after the last part of its path
    #[arg(long, value_name = "DIR", group = "what")]
    files: Vec<PathBuf>,
    /// Backs up the messages in this mbox file; may be given several times
    #[arg(long, value_name = "FILE", group = "what")]
    mbox: Vec<PathBuf>,
    /// Names the set of this backup of files or mbox files [default: the last part of the path]
    #[arg(long = "as", value_name = "NAME", conflicts_with_all = ["set", "all"])]
    named: Option<String>,
    #[command(flatten)]
    excluded: folders::Excluded,
}

impl Backup {
    pub fn run(self, session: &Session) -> Result<Exit> {
        allocator::bound();
        if self.all || !self.set.is_empty() {
            return sets::run(session, &self.set, self.all);
        }
        let source_paths = if self.files.is_empty() { &self.mbox } else { &self.files };
        let set = match self.named {
            Some(set) => set,
            None if self.files.len() > 1 => {
                let text = "several folders have no common name; name the set with `--as NAME`";
                return Err(UsageError::Other(text.to_owned()).into());
            }
            None => default_set(&folders::named(&source_paths[0])?)?,
        };
        if let Some(problem) = refuse_set_name(&set) {
            return Err(UsageError::Other(problem.to_owned()).into());
        }
        // Mistakes on the command line are reported before the password is asked for.
        let folders = if self.files.is_empty() { None } else { Some(folders::options(&self.files, &self.excluded)?) };
        let repository = session.open()?;
        let local = session.local_state(&repository)?;
        // Killed runs may have left temporary files.
        let cleared =
            Local::open(session.repository_path()?).and_then(|folder| folder.remove_stale_temporaries(TEMPORARY_AGE));
        if let Err(error) = cleared {
            tracing::warn!(error = &error as &dyn std::error::Error, "old temporary files stay");
        }
        let cancel = progress::cancel_on_signals()?;
        let mut source: Box<dyn Source> = match folders {
            Some((dirs, options)) => {
                Box::new(Files::of_all(&dirs, &[session.repository_path()?, session.state_dir()?], options))
            }
            None => Box::new(Mboxes::new(&self.mbox, cancel.clone())),
        };
        let options = BackupOptions { set, host: host_name() };
        let shown = progress::Shown::start(session.output(), "Backing up");
        let report = backup::backup(&repository, local, &mut *source, &options, &shown.progress, &cancel);
        shown.finish();
        let report =
            shown::Shown::from(report.with_context(|| format!("could not back up {}", source_paths[0].display()))?);
        let said = report.show(session.output());
        // The exit code reports failures even if nobody reads the output any more.
        if report.is_whole() { said.map(|()| Exit::Done) } else { Ok(Exit::Partial) }
    }
}

fn default_set(path: &Path) -> Result<String> {
    let name = path.file_name().map(|name| name.to_string_lossy().replace(':', "-"));
    name.ok_or_else(|| UsageError::Other("the folder has no name; name the set with `--as NAME`".to_owned()).into())
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

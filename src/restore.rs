//! Restores a snapshot, or parts of it: first makes a plan, then executes it.
//!
//! ```text
//! snapshot ─► selection ─► walk ─┬─► survey     what to do, what exists already, what cannot be done
//!                                └─► executor   does it
//! ```
//!
//! `plan` knows snapshots and no target: it selects and walks, with memory for one path of folders, whatever the size
//! of the snapshot. An executor knows one kind of target and takes the steps of the walk twice: once to survey and once
//! to act. `local` is the executor for folders of this machine, `account` the one for mailboxes of an organisation.
//! What all executors share is in this file: the choice of [`WhenExists`], counts, reports.
//!
//! - Nothing is deleted, and only what the user asked for is changed. Restoring twice does not duplicate anything.
//! - A name shows a whole item or nothing, also if the run is killed. Only temporary names may be left behind.
//! - One bad item does not end a run: it becomes a failure in the [`Report`].
//! - Names in a repository are input from outside. Whatever they say, nothing outside the target is written.

mod account;
mod local;
mod plan;

use crate::CONTENT_LOG;
use crate::format::entry::Entry;
use crate::format::snapshot::Failure;
use crate::repository::read_error::ReadError;
use crate::repository::reader::Reader;
use crate::source::graph::GraphError;
use plan::{Selection, Walk};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

pub use crate::backup::Progress;
pub use crate::shown::name as printable;
pub use account::{
    AccountOptions, AccountPlan, AccountSurvey, AccountTarget, ItemOutcome, ItemRestorer, Kind, Load, LoadPart, Origin,
    ReadRange, Refused, SingleItem, attached_files,
};

/// Maximum number of conflicts, and of problems, that a [`Survey`] lists. All are counted.
pub const SHOWN_MAX: usize = 100;
/// Maximum number of failures that a [`Report`] lists. All are counted.
pub const FAILURES_KEPT_MAX: usize = 10_000;

/// What to do with an item when its name is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenExists {
    /// Leave the existing item as it is.
    #[default]
    Skip,
    /// Replace the existing item. A folder is never replaced by an item, nor an item by a folder.
    Overwrite,
    /// Give the item another name: `Budget (restored 2026-11-22 10.30).xlsx`.
    KeepBoth,
}

impl WhenExists {
    /// Returns the name that the command line uses.
    pub fn name(self) -> &'static str {
        match self {
            WhenExists::Skip => "skip",
            WhenExists::Overwrite => "overwrite",
            WhenExists::KeepBoth => "keep-both",
        }
    }

    /// Returns the choice with this name on the command line.
    pub fn from_name(name: &str) -> Option<Self> {
        [WhenExists::Skip, WhenExists::Overwrite, WhenExists::KeepBoth].into_iter().find(|when| when.name() == name)
    }
}

/// Why a restore could not begin, or ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The snapshot does not have a requested path.
    #[error("the snapshot has no {path:?}")]
    NotInSnapshot {
        /// The requested path.
        path: String,
    },
    /// Two of the requested paths would get the same name.
    #[error("{first:?} and {second:?} would both become {name:?} in the target; restore them one after the other")]
    SameName {
        /// One of the paths.
        first: String,
        /// The other path.
        second: String,
        /// The name that both would get.
        name: String,
    },
    /// A requested path could not be looked up.
    #[error("could not read the snapshot")]
    Read(#[from] ReadError),
    /// A requested path is no mail, or no mailbox is known that it came from.
    #[error("{path:?} holds no mail of a mailbox")]
    NoMailbox {
        /// The requested path.
        path: String,
    },
    /// The target account cannot be used.
    #[error("could not restore to {account}")]
    Account {
        /// The account, as the user named it.
        account: String,
        /// Why.
        #[source]
        source: GraphError,
    },
    /// The organisation has no such account.
    #[error("the organisation has no user {account}")]
    NoAccount {
        /// The account, as the user named it.
        account: String,
    },
    /// The async runtime for the network could not be started.
    #[error("could not start the runtime for the network")]
    Runtime(#[source] io::Error),
    /// The target folder cannot be used.
    #[error("could not use the folder {}", dir.display())]
    Target {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The target is full, or became read-only.
    #[error("the target takes nothing more; {path:?} could not be written")]
    TargetFull {
        /// The item that was being written, by its path in the snapshot.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// What was written may not be durable.
    #[error("could not make durable what was written to {}", dir.display())]
    Sync {
        /// The target folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl RestoreError {
    /// Returns whether the error means that the repository is damaged.
    pub fn is_damage(&self) -> bool {
        matches!(self, RestoreError::Read(error) if error.is_damage())
    }
}

/// What a restore has to do.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// Number of folders.
    pub folders: u64,
    /// Number of folders that must be made.
    pub new_folders: u64,
    /// Number of items: files and symbolic links.
    pub items: u64,
    /// Number of bytes of the files.
    pub bytes: u64,
    /// Number of items whose name is free.
    pub new: u64,
    /// Number of bytes of the items whose name is free.
    pub new_bytes: u64,
    /// Number of items whose name is taken.
    pub existing: u64,
    /// Number of bytes of the items whose name is taken.
    pub existing_bytes: u64,
    /// Number of items whose name is taken by an item of the same kind, size and time.
    pub alike: u64,
    /// Number of bytes of those.
    pub alike_bytes: u64,
    /// The first items whose name is taken by a different one, as paths in the snapshot.
    pub conflicts: Vec<Vec<u8>>,
    /// Number of items and folders that cannot be restored.
    pub impossible: u64,
    /// The first items and folders that cannot be restored, with the reason. A folder stands for everything in it.
    pub problems: Vec<Failure>,
    /// Number of free bytes in the target, if it tells.
    pub bytes_free: Option<u64>,
}

impl Survey {
    fn problem(&mut self, path: &[u8], items: u64, error: String) {
        self.impossible = self.impossible.saturating_add(items);
        if self.problems.len() < SHOWN_MAX {
            self.problems.push(Failure { path: path.to_vec(), error });
        }
    }
}

/// The result of a restore.
#[derive(Debug, Default)]
#[must_use = "it says what could not be restored"]
pub struct Report {
    /// Number of items (files and symbolic links) that were written.
    pub restored: u64,
    /// Number of bytes of the files that were written.
    pub bytes: u64,
    /// Number of folders that were made.
    pub folders: u64,
    /// Number of items that existed already with the same content.
    pub already_there: u64,
    /// Number of items that were not restored because another item has their name.
    pub skipped: u64,
    /// Number of items and folders that could not be restored.
    pub failed: u64,
    /// The first failures, by path. A folder stands for everything in it.
    pub failures: Vec<Failure>,
    /// Notes for the user about things that are no failures.
    pub remarks: Vec<String>,
    /// Why the run ended early, if it did. What it had done by then is kept and durable.
    pub stopped: Option<RestoreError>,
}

impl Report {
    /// Adds the results of another run.
    pub fn add(&mut self, more: Report) {
        self.restored += more.restored;
        self.bytes = self.bytes.saturating_add(more.bytes);
        self.folders += more.folders;
        self.already_there += more.already_there;
        self.skipped += more.skipped;
        self.failed = self.failed.saturating_add(more.failed);
        self.failures.extend(more.failures);
        self.failures.truncate(FAILURES_KEPT_MAX);
        self.remarks.extend(more.remarks);
        self.stopped = self.stopped.take().or(more.stopped);
    }

    fn fail(&mut self, path: &[u8], items: u64, error: String) {
        // The caller prints the failures.
        tracing::debug!(target: CONTENT_LOG, path = printable(path), error, "could not be restored");
        self.failed = self.failed.saturating_add(items);
        if self.failures.len() < FAILURES_KEPT_MAX {
            self.failures.push(Failure { path: path.to_vec(), error });
        }
    }
}

/// A plan of a restore, ready to be executed.
pub struct RestorePlan<'a> {
    reader: &'a Reader,
    selection: Selection,
    target: local::Target,
    when_exists: WhenExists,
    survey: Survey,
}

impl<'a> RestorePlan<'a> {
    /// Plans to restore `paths` of the snapshot whose root entry is `root` to the folder `dir` of this machine.
    ///
    /// Each path gets its last name in `dir`: `Users/alice/Inbox` becomes `dir/Inbox`. No path, or an empty one, means
    /// everything: the contents of the root go directly into `dir`. Nothing is written; `dir` need not exist.
    ///
    /// # Errors
    /// [`RestoreError::NotInSnapshot`] and [`RestoreError::SameName`] for wrong paths, [`RestoreError::Read`] if the
    /// folders above a path or the root cannot be read, [`RestoreError::Target`] if `dir` is not a folder,
    /// [`RestoreError::Interrupted`]. Items below that cannot be restored are no error; the [`Survey`] lists them.
    pub fn to_folder(
        reader: &'a Reader,
        root: &Entry,
        paths: &[Vec<u8>],
        dir: &Path,
        when_exists: WhenExists,
        cancel: &AtomicBool,
    ) -> Result<Self, RestoreError> {
        let selection = Selection::new(reader, root, paths)?;
        let target = local::Target::new(dir)?;
        let survey = target.survey(Walk::new(reader, &selection), cancel)?;
        Ok(Self { reader, selection, target, when_exists, survey })
    }

    /// Returns the survey: what there is to do.
    pub fn survey(&self) -> &Survey {
        &self.survey
    }

    /// Returns the report that executing the plan should give. It is judged by names, sizes and times: contents of the
    /// same size and time are not compared.
    pub fn expected(&self) -> Report {
        let survey = &self.survey;
        let differing = survey.existing - survey.alike;
        let (restored, bytes, already_there, skipped) = match self.when_exists {
            WhenExists::Skip => (0, 0, survey.alike, differing),
            WhenExists::Overwrite => (survey.existing, survey.existing_bytes, 0, 0),
            WhenExists::KeepBoth => (differing, survey.existing_bytes - survey.alike_bytes, survey.alike, 0),
        };
        Report {
            restored: survey.new + restored,
            bytes: survey.new_bytes.saturating_add(bytes),
            folders: survey.new_folders,
            already_there,
            skipped,
            failed: survey.impossible,
            failures: survey.problems.clone(),
            remarks: Vec::new(),
            stopped: None,
        }
    }

    /// Returns what happens to items whose name is taken.
    pub fn when_exists(&self) -> WhenExists {
        self.when_exists
    }

    /// Executes the plan, and returns once what was written is durable.
    ///
    /// `progress` ends at the numbers of the survey if everything was tried. Once `cancel` is set, the run stops at the
    /// next item, or within a large one. Running the plan again continues.
    ///
    /// # Errors
    /// [`RestoreError::Target`] if the run could not begin. Later errors are in the [`Report`].
    pub fn execute(&self, progress: &Progress, cancel: &AtomicBool) -> Result<Report, RestoreError> {
        self.target.execute(self.reader, &self.selection, self.when_exists, progress, cancel)
    }
}

impl fmt::Display for RestorePlan<'_> {
    /// Shows the plan in lines, for `--dry-run`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Survey { folders, items, bytes, existing, alike, impossible, .. } = self.survey;
        writeln!(f, "{items} items ({bytes} bytes) and {folders} folders to {}", self.target.dir().display())?;
        if existing > 0 {
            let fate = match self.when_exists {
                WhenExists::Skip => "stay as they are",
                WhenExists::Overwrite => "are replaced",
                WhenExists::KeepBoth => "stay, and what differs from them gets another name",
            };
            writeln!(f, "{existing} names are taken and {fate}; {alike} of them have the same size and time")?;
            show_some(f, self.survey.conflicts.iter().map(|path| printable(path)), existing - alike)?;
        }
        if impossible > 0 {
            writeln!(f, "{impossible} cannot be restored:")?;
            let problems = &self.survey.problems;
            let lines = problems
                .iter()
                .map(|Failure { path, error }| format!("{}: {}", printable(path), printable(error.as_bytes())));
            show_some(f, lines, problems.len() as u64)?;
        }
        match self.survey.bytes_free {
            Some(free) if free < self.expected().bytes => writeln!(f, "the target has room for {free} bytes only"),
            _ => Ok(()),
        }
    }
}

fn show_some(f: &mut fmt::Formatter<'_>, lines: impl ExactSizeIterator<Item = String>, total: u64) -> fmt::Result {
    let shown = lines.len() as u64;
    for line in lines {
        writeln!(f, "  {line}")?;
    }
    if shown < total { writeln!(f, "  and {} more", total - shown) } else { Ok(()) }
}

/// Returns the texts of `error` and of its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some errors repeat the text of their cause.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;

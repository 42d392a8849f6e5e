//! `strongroom backup`

use super::error::{Exit, UsageError};
use super::output::{self, Output};
use super::progress;
use super::{Session, absolute};
use crate::backend::local::Local;
use crate::backup::{self, BackupOptions, Report};
use crate::settings::refuse_set_name;
use crate::source::Source;
use crate::source::files::Files;
use crate::source::mbox::Mboxes;
use crate::view::local_time;
use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Failures and remarks beyond this many are counted, not listed.
const LISTED_MAX: usize = 20;

/// Temporary files of this age belong to nobody who still writes.
const TEMPORARY_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Backs up a folder, or mbox files, into one snapshot
#[derive(Args)]
#[command(after_help = "Examples:\n  strongroom backup --files /home/alice --as alice\n  \
    strongroom backup --mbox ~/mail/archive.mbox --as archive\n\nExit code 3 means that some items could not be read: \
    they are listed, and everything else is stored.")]
pub struct Backup {
    /// Backs up everything in this folder: Maildir, .eml trees, and all other files
    #[arg(long, value_name = "DIR", conflicts_with = "mbox", required_unless_present = "mbox")]
    files: Option<PathBuf>,
    /// Backs up the messages in this mbox file; may be given several times
    #[arg(long, value_name = "FILE")]
    mbox: Vec<PathBuf>,
    /// Names the set that the snapshot belongs to [default: the last part of the folder's or file's path]
    #[arg(long = "as", value_name = "NAME")]
    set: Option<String>,
}

impl Backup {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let named = match &self.files {
            Some(dir) => std::fs::canonicalize(dir).with_context(|| format!("could not read {}", dir.display()))?,
            None => absolute(&self.mbox[0])?,
        };
        let set = match self.set {
            Some(set) => set,
            None => default_set(&named)?,
        };
        if let Some(problem) = refuse_set_name(&set) {
            return Err(UsageError::Other(problem.to_owned()).into());
        }
        let repository = session.open()?;
        let local = session.local_state(&repository)?;
        // What killed runs left behind.
        let cleared =
            Local::open(session.repository_path()?).and_then(|folder| folder.remove_stale_temporaries(TEMPORARY_AGE));
        if let Err(error) = cleared {
            tracing::warn!(error = &error as &dyn std::error::Error, "old temporary files stay");
        }
        let mut source: Box<dyn Source> = match &self.files {
            Some(_) => Box::new(Files::new(&named, &[session.repository_path()?, session.state_dir()?])),
            None => Box::new(Mboxes::new(&self.mbox)),
        };
        let options = BackupOptions { set, host: host_name() };
        let shown = progress::Shown::start(session.output(), "Backing up");
        let cancel = progress::cancel_on_signals()?;
        let report = backup::backup(&repository, local, &mut *source, &options, &shown.progress, &cancel);
        shown.finish();
        let report = report.with_context(|| format!("could not back up {}", named.display()))?;
        let shown = show(session.output(), &report);
        // Failures are told by the exit code even to somebody who has stopped reading.
        if report.failures.is_empty() { shown.map(|()| Exit::Done) } else { Ok(Exit::Partial) }
    }
}

fn default_set(path: &Path) -> Result<String> {
    let name = path.file_name().map(|name| name.to_string_lossy().replace(':', "-"));
    name.ok_or_else(|| UsageError::Other("name the set with `--as NAME`".to_owned()).into())
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn show(output: Output, report: &Report) -> Result<()> {
    for failure in report.failures.iter().take(LISTED_MAX) {
        output::message(format_args!("failed: {}: {}", output::path(&failure.path), failure.error));
    }
    let failed = report.snapshot.summary.failed;
    if failed > LISTED_MAX as u64 {
        output::message(format_args!("failed: {} more", failed - LISTED_MAX as u64));
    }
    for (path, reason) in report.skipped.iter().take(LISTED_MAX) {
        output.remark(format_args!("skipped: {}: {reason}", output::path(path)));
    }
    if report.skipped.len() > LISTED_MAX {
        output.remark(format_args!("skipped: {} more", report.skipped.len() - LISTED_MAX));
    }
    for path in report.changing.iter().take(LISTED_MAX) {
        output.remark(format_args!("changed while it was read, three times: {}", output::path(path)));
    }
    if output.json { output.json(&json_of(report)) } else { show_text(report) }
}

fn show_text(report: &Report) -> Result<()> {
    let summary = &report.snapshot.summary;
    let seconds = report.snapshot.finished.secs - report.snapshot.started.secs;
    let set = output::path(report.snapshot.set.as_bytes());
    output::line(format_args!("Snapshot {} of {set} in {seconds} s", report.id.short()))?;
    output::line(format_args!(
        "  items: {} new, {} changed, {} moved, {} deleted, {} unchanged, {} failed",
        summary.new, summary.changed, summary.moved, summary.deleted, summary.unchanged, summary.failed
    ))?;
    output::line(format_args!(
        "  bytes: {} in the snapshot, {} new, {} stored",
        output::bytes(summary.source_bytes),
        output::bytes(summary.added_bytes),
        output::bytes(summary.stored_bytes)
    ))
}

fn json_of(report: &Report) -> Value {
    let snapshot = &report.snapshot;
    let summary = &snapshot.summary;
    let failure = |failure: &crate::snapshot::Failure| json!({ "path": String::from_utf8_lossy(&failure.path), "error": failure.error });
    json!({
        "snapshot": report.id.to_string(),
        "set": snapshot.set,
        "status": if report.failures.is_empty() { "ok" } else { "partial" },
        "started": rfc3339(snapshot.started.secs),
        "finished": rfc3339(snapshot.finished.secs),
        "items": {
            "new": summary.new, "changed": summary.changed, "moved": summary.moved, "deleted": summary.deleted,
            "unchanged": summary.unchanged, "failed": summary.failed,
        },
        "bytes": { "source": summary.source_bytes, "added": summary.added_bytes, "stored": summary.stored_bytes },
        "requests": 0,
        "throttled": 0,
        "failures": report.failures.iter().map(failure).collect::<Vec<_>>(),
    })
}

/// Writes a moment as JSON consumers expect it.
pub fn rfc3339(secs: i64) -> String {
    local_time(secs, "%Y-%m-%dT%H:%M:%S%:z")
}

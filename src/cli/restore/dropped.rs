//! `strongroom restore commit` and `restore jobs`: files that were dropped into a mount.

use crate::cli::error::Exit;
use crate::cli::{Session, outbox, output, progress, reader};
use crate::outbox::jobs;
use crate::outbox::jobs::Counts;
use crate::outbox::journal::{Dropped, Fate};
use crate::outbox::{self as dropped, OpenError};
use crate::restore::printable;
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

/// Maximum number of jobs that are shown without `--all`.
const JOBS_SHOWN_MAX: usize = 20;
/// Maximum number of failures that are shown for a job.
const FAILURES_SHOWN_MAX: usize = 20;

/// Restores files that were dropped into a mount and wait, or that are not restored yet
///
/// If a mount with `--restore` is running, the command tells that mount to restore them. Otherwise it restores them
/// itself.
#[derive(Args)]
#[command(after_help = "Example:\n  strongroom restore commit")]
pub struct Commit {}

impl Commit {
    pub fn run(&self, session: &Session) -> Result<Exit> {
        let repository = session.open()?;
        let folder = outbox::folder(session, &repository)?;
        let cancel = progress::cancel_on_signals()?;
        let running = match outbox::start(session, &repository, &reader(&repository), false) {
            Ok(running) => running,
            Err(error) => match error.downcast_ref::<OpenError>() {
                Some(OpenError::Busy) => return tell_the_mount(session, &folder),
                _ => return Err(error),
            },
        };
        let before = running.counts();
        running.finish(&cancel).context("could not commit the waiting files")?;
        let signed_out = running.signed_out();
        let after = running.stop();
        let now = Counts {
            done: after.done.saturating_sub(before.done),
            failed: after.failed.saturating_sub(before.failed),
            ..after
        };
        match session.output().json {
            true => session.output().json(&json!({
                "restored": now.done, "failed": now.failed, "left": now.queued, "told_mount": false,
                "signed_out": signed_out,
            }))?,
            false => {
                output::line(format_args!("{}", summary(&now)))?;
                if let Some(reason) = &signed_out {
                    output::line(format_args!("{}", jobs::waits_for_sign_in(reason)))?;
                }
            }
        }
        if cancel.load(Ordering::Relaxed) {
            return Ok(Exit::Interrupted);
        }
        Ok(if now.failed == 0 && signed_out.is_none() { Exit::Done } else { Exit::Partial })
    }
}

fn summary(counts: &Counts) -> String {
    match *counts == Counts::default() {
        true => "There is nothing to restore".to_owned(),
        false => jobs::summary(counts),
    }
}

fn tell_the_mount(session: &Session, folder: &std::path::Path) -> Result<Exit> {
    if !dropped::ask_to_commit(folder).context("could not tell the mount")? {
        bail!("the mount that uses the outbox does not answer");
    }
    match session.output().json {
        true => session.output().json(&json!({ "told_mount": true }))?,
        false => output::line(format_args!("The mount restores the dropped files; `restore/jobs` shows the result"))?,
    }
    Ok(Exit::Done)
}

/// Shows the files that were dropped into mounts, and what became of them
#[derive(Args)]
#[command(after_help = "Examples:\n  strongroom restore jobs\n  strongroom restore jobs --json")]
pub struct Jobs {
    /// Shows all remembered jobs, not only the last twenty
    #[arg(long)]
    all: bool,
}

impl Jobs {
    pub fn run(&self, session: &Session) -> Result<Exit> {
        let repository = session.open()?;
        let folder = outbox::folder(session, &repository)?;
        let jobs = dropped::history(&folder, &repository).context("could not read the list of dropped files")?;
        let signed_out = dropped::signed_out(&folder, repository.keys());
        if let Some(reason) = &signed_out {
            session.output().remark(jobs::waits_for_sign_in(reason));
        }
        let skipped = if self.all { 0 } else { jobs.len().saturating_sub(JOBS_SHOWN_MAX) };
        let shown = jobs.iter().skip(skipped);
        if session.output().json {
            let jobs: Vec<_> = shown.map(|(job, files)| json_of(*job, files)).collect();
            session.output().json(&json!(jobs))?;
            return Ok(Exit::Done);
        }
        if jobs.is_empty() {
            session.output().remark("no files were dropped into a mount of this repository");
        }
        for (job, files) in shown {
            show(*job, files)?;
        }
        Ok(Exit::Done)
    }
}

fn json_of(job: i64, files: &[Dropped]) -> Value {
    let file = |file: &Dropped| {
        let (state, detail) = jobs::fate(&file.fate, false);
        json!({ "path": String::from_utf8_lossy(&file.path), "bytes": file.len, "state": state, "detail": detail })
    };
    let started = jobs::shown(job, "%Y-%m-%dT%H:%M:%SZ");
    json!({ "started": started, "files": files.iter().map(file).collect::<Vec<_>>() })
}

fn show(job: i64, files: &[Dropped]) -> Result<()> {
    let mut counts = Counts::default();
    files.iter().for_each(|file| counts.add(&file.fate));
    output::line(format_args!("{} UTC  {}", jobs::shown(job, "%Y-%m-%d %H:%M:%S"), jobs::summary(&counts)))?;
    let failed = files.iter().filter_map(|file| match &file.fate {
        Fate::Failed(reason) => Some((file, reason)),
        _ => None,
    });
    for (file, reason) in failed.take(FAILURES_SHOWN_MAX) {
        output::line(format_args!("  {}: {}", printable(&file.path), printable(reason.as_bytes())))?;
    }
    Ok(())
}

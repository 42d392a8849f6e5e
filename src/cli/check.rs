//! `strongroom check`

use super::error::{Exit, UsageError};
use super::output::{self, Output, bytes, line};
use super::progress;
use super::{Session, allocator};
use crate::repository::check::{self, CheckOptions, CheckReport, LostPart};
use crate::repository::{Repository, RepositoryError};
use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;
use std::path::Path;

/// Maximum number of problems that are listed. The others are counted; `--json` lists them all.
const SHOWN_MAX: usize = 100;

/// Checks the repository, and lists what is damaged and which items that affects
#[derive(Args)]
#[command(
    after_help = "Examples:\n  strongroom check\n  strongroom check --read-data\n  strongroom check --read-data=10%\n\n\
    Exit code 13 means damage."
)]
pub struct Check {
    /// Also reads and verifies every byte, or only this percentage of the packs
    #[arg(long, value_name = "N%", num_args = 0..=1, require_equals = true, default_missing_value = "100%")]
    read_data: Option<String>,
}

impl Check {
    pub fn run(self, session: &Session) -> Result<Exit> {
        allocator::bound();
        let read_data = self.read_data.as_deref().map(parse_percent).transpose()?;
        let repository = session.open_stored()?;
        session.repository_state(&repository)?;
        let state_dir = session.state_dir()?;
        // The local state is only asked which snapshots and key slots it has seen. If another run uses it, the check
        // works without.
        let remembered = match session.local_state(&repository) {
            Ok(local) => local.remembered().map_err(RepositoryError::from)?,
            Err(error) => {
                session.output().remark(format_args!("the check does not use this machine's local state: {error}"));
                Default::default()
            }
        };
        remove_leftovers(&state_dir);
        let scratch = state_dir.join(format!("check-{}", std::process::id()));
        let cancel = progress::cancel_on_signals()?;
        let checked = check::check(&repository, CheckOptions { read_data }, &scratch, remembered, &cancel);
        std::fs::remove_dir_all(&scratch)
            .with_context(|| format!("could not remove the folder {}", scratch.display()))
            .or_else(|error| if scratch.exists() { Err(error) } else { Ok(()) })?;
        let report = checked.context("could not finish the check")?;
        remember_damage(session, &repository, &report);
        let shown = show(session.output(), &report, read_data);
        // The exit code reports damage even if nobody reads the output any more.
        match (report.is_sound(), report.later.is_empty()) {
            (false, _) => Ok(Exit::Damaged),
            (true, false) => Ok(Exit::Partial),
            (true, true) => shown.map(|()| Exit::Done),
        }
    }
}

/// Notes the damaged packs, so that the next backup of this machine stores their contents again.
fn remember_damage(session: &Session, repository: &Repository, report: &CheckReport) {
    let noted = session.local_state(repository).and_then(|mut local| {
        local.note_damage(&report.damaged, &report.proven).map_err(RepositoryError::from)?;
        Ok(())
    });
    let count = report.damaged.len();
    match noted {
        Ok(()) if count > 0 => session.output().remark(format_args!(
            "{count} packs are damaged; the next backup on this machine reads everything again, and stores again what \
             it finds of their contents"
        )),
        Ok(()) => {}
        Err(error) if count > 0 => output::message(format_args!(
            "warning: {count} packs are damaged, and this machine could not note it ({error:#}); check again before \
             the next backup, which otherwise trusts them"
        )),
        Err(_) => {}
    }
}

/// Removes the scratch folders of checks that were killed.
fn remove_leftovers(state_dir: &Path) {
    for entry in std::fs::read_dir(state_dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix("check-")?.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            // A folder that cannot be removed does no harm.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn parse_percent(text: &str) -> Result<u8> {
    let number = text.strip_suffix('%').unwrap_or(text).parse().ok().filter(|percent| (1..=100).contains(percent));
    number.ok_or_else(|| UsageError::Other("--read-data takes a share from 1% to 100%".to_owned()).into())
}

fn show(output: Output, report: &CheckReport, read_data: Option<u8>) -> Result<()> {
    if output.json {
        return output.json(&as_json(report));
    }
    for warning in &report.warnings {
        output::message(format_args!("warning: {}", output::path(warning.as_bytes())));
    }
    for object in report.later.iter().take(SHOWN_MAX) {
        line(format_args!("not checked: {}: {}", object.object, object.error))?;
    }
    for problem in report.problems.iter().take(SHOWN_MAX) {
        line(format_args!("damaged: {}: {}", problem.object, output::path(problem.error.as_bytes())))?;
    }
    for item in report.lost.iter().take(SHOWN_MAX) {
        let path = if item.path.is_empty() { "(everything)".to_owned() } else { output::path(&item.path) };
        let part = match item.part {
            LostPart::Item => "",
            LostPart::Payload => " (only the service's description of it)",
            LostPart::Text => " (only its text; the mail itself can be read)",
            LostPart::Stream => " (only its exported stream; the mail itself can be read)",
            LostPart::Attributes => " (only its extended attributes)",
            LostPart::Other => " (only data that a later version stored with it)",
        };
        let error = output::path(item.error.as_bytes());
        line(format_args!("lost: {} {path}{part}: {error}", item.snapshot.short()))?;
    }
    let lengths = [report.later.len(), report.problems.len(), report.lost.len()];
    let more = lengths.iter().map(|len| len.saturating_sub(SHOWN_MAX)).sum::<usize>();
    if more > 0 {
        line(format_args!("and {more} more; `--json` lists them all"))?;
    }
    let read = match read_data {
        Some(_) => format!("{} read", bytes(report.bytes_read)),
        None => "content not read".to_owned(),
    };
    let verdict = match (report.is_sound(), report.later.is_empty()) {
        (false, _) => "DAMAGED",
        (true, false) => "sound as far as this version can tell",
        (true, true) => "sound",
    };
    line(format_args!("{verdict}: {} snapshots, {} packs, {read}", report.snapshots, report.packs))?;
    if report.packs_without_index > 0 {
        line(format_args!("{} packs have no index yet; the next backup indexes them", report.packs_without_index))?;
    }
    Ok(())
}

fn as_json(report: &CheckReport) -> serde_json::Value {
    json!({
        "sound": report.is_sound(),
        "snapshots": report.snapshots,
        "packs": report.packs,
        "packs_without_index": report.packs_without_index,
        "bytes_read": report.bytes_read,
        "problems": report.problems.iter()
            .map(|problem| json!({ "object": problem.object, "error": problem.error })).collect::<Vec<_>>(),
        "later": report.later.iter()
            .map(|object| json!({ "object": object.object, "error": object.error })).collect::<Vec<_>>(),
        "warnings": report.warnings,
        "lost": report.lost.iter().map(|item| json!({
            "snapshot": item.snapshot.to_string(), "path": String::from_utf8_lossy(&item.path),
            "part": item.part.name(), "error": item.error,
        })).collect::<Vec<_>>(),
    })
}

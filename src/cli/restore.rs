//! `strongroom restore`
//!
//! All paths of one snapshot become one plan. All plans are made before the first one is carried out, so that a mistake
//! in any argument is reported before anything is written.

pub mod account;
mod dropped;

use super::error::{Exit, UsageError};
use super::output;
use super::{Session, absolute, allocator, progress, reader};
use crate::format::id::SnapshotId;
use crate::format::snapshot::{Failure, Snapshot};
use crate::repository::Repository;
use crate::repository::reader::Reader;
use crate::repository::select;
use crate::restore::{Report, RestorePlan, WhenExists};
use anyhow::{Context, Result};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Maximum number of failures that are listed. The others are counted.
const FAILURES_SHOWN_MAX: usize = 20;

/// Brings mails, files or whole folders back: to this machine, or to mailboxes
///
/// Into a folder: each path is restored under its last name, so `latest:Users/alice/Inbox` becomes DIR/Inbox. Without a
/// path, the whole content of the snapshot goes into DIR. DIR is made if it does not exist.
///
/// Into a mailbox: messages go to the folders they came from, or to the same folders in the language of the mailbox.
/// With `--into`, they go below that folder. No mail is sent.
///
/// Existing items stay, except for those that `--when-exists overwrite` replaces.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:\n  strongroom restore latest --to local:/tmp/back\n  \
    strongroom restore latest:Mail/Inbox latest:Mail/Sent --to local:/tmp/mail --dry-run\n  \
    strongroom restore latest~1:report.odt --to local:. --when-exists keep-both\n  \
    strongroom restore latest:Users/alice@contoso.com --to original --dry-run\n  \
    strongroom restore latest:Users/alice@contoso.com/Outlook/Inbox --to contoso:Users/bob@contoso.com \
    --into Alice\n\nTo continue an interrupted restore, give the same command again.\n\n\
    Exit code 3 means that some items could not be restored (with --dry-run: cannot be). They \
    are listed, and everything else is restored.")]
pub struct Restore {
    /// The snapshot, and a folder or file in it; may be given several times
    #[arg(value_name = "SNAPSHOT[:PATH]", required = true)]
    what: Vec<OsString>,
    /// The target: `local:DIR` is a folder on this machine; `original` is the mailboxes the mail came from;
    /// `TENANT:Users/NAME` is a mailbox in an organisation of the configuration
    #[arg(long, value_name = "TARGET", required = true)]
    to: Option<OsString>,
    /// Restores everything below this folder of the mailbox; the folder is made if it does not exist
    #[arg(long, value_name = "FOLDER")]
    into: Option<String>,
    /// What to do if there is already another item with the same name
    #[arg(long, value_name = "WHAT", default_value = WhenExists::default().name(), value_parser = when_exists_parser())]
    when_exists: WhenExists,
    /// Shows what would be restored, and writes nothing
    #[arg(long)]
    dry_run: bool,
    #[command(subcommand)]
    dropped: Option<Dropped>,
}

/// Commands for files that were dropped into a mount.
#[derive(Subcommand)]
enum Dropped {
    Commit(dropped::Commit),
    Jobs(dropped::Jobs),
}

fn when_exists_parser() -> impl TypedValueParser<Value = WhenExists> {
    let value = |when: WhenExists, help: &'static str| PossibleValue::new(when.name()).help(help);
    PossibleValuesParser::new([
        value(WhenExists::Skip, "leave the existing item"),
        value(WhenExists::Overwrite, "replace the existing item; a folder and a file never replace each other"),
        value(WhenExists::KeepBoth, "restore it under a name like `Budget (restored 2026-11-22 10.30).xlsx`"),
    ])
    .map(|name| WhenExists::from_name(&name).expect("one of the names above"))
}

impl Restore {
    pub fn run(self, session: &Session) -> Result<Exit> {
        allocator::bound();
        match &self.dropped {
            Some(Dropped::Commit(command)) => return command.run(session),
            Some(Dropped::Jobs(command)) => return command.run(session),
            None => {}
        }
        let to = self.to.as_deref().expect("clap asks for it where there is no subcommand");
        let dir = match target(to, self.into.as_deref())? {
            Target::Folder(dir) => dir,
            Target::Account(account) => return account::run(session, &self, account),
        };
        session.refuse_own_folders(&dir)?;
        let repository = session.open()?;
        let wanted = group(&repository, &self.what)?;
        let reader = reader(&repository);
        let cancel = progress::cancel_on_signals()?;
        let plan = |wanted: &Wanted| plan(&reader, wanted, &dir, self.when_exists, &cancel);
        let plans = wanted.iter().map(plan).collect::<Result<Vec<_>>>()?;
        let output = session.output();
        let outcome = match self.dry_run {
            true => Outcome::expected(&plans),
            false => {
                let shown = progress::Shown::start(output, "Restoring");
                Outcome::of(&plans, &shown.progress, &cancel)
            }
        };
        let shown = match (output.json, self.dry_run) {
            (true, _) => {
                let conflicts = plans.iter().flat_map(|plan| &plan.survey().conflicts);
                output.json(&json_of(&outcome.report, self.dry_run.then(|| conflicts.collect())))
            }
            (false, true) => show_plans(&wanted, &plans),
            (false, false) => show(&outcome.report, &shown_dir(&dir)),
        };
        if !self.dry_run {
            list_failures(&outcome.report);
            if outcome.report.skipped > 0 {
                output.remark(
                    "existing items were left as they are; `--when-exists overwrite` or `keep-both` restores more",
                );
            }
        }
        if let Some(stopped) = outcome.stopped {
            return Err(stopped).with_context(|| format!("could not restore everything to {}", shown_dir(&dir)));
        }
        // The exit code reports failures even if nobody reads the output any more.
        if outcome.report.failed == 0 { shown.map(|()| Exit::Done) } else { Ok(Exit::Partial) }
    }
}

/// The target of a restore.
enum Target {
    Folder(PathBuf),
    Account(account::Account),
}

/// Returns the target that `--to` and `--into` name.
fn target(to: &OsStr, into: Option<&str>) -> Result<Target> {
    let usage = |text: String| Err(UsageError::Other(text).into());
    let shown = output::path(to.as_bytes());
    let Some(dir) = to.as_bytes().strip_prefix(b"local:") else {
        if let Some(account) = to.to_str().and_then(|to| account::Account::named(to, into)) {
            return Ok(Target::Account(account));
        }
        let is_folder = to.as_bytes().starts_with(b"/") || to.as_bytes().starts_with(b".");
        let example = if is_folder { &shown } else { "DIR" };
        return usage(format!(
            "cannot restore to {shown}: a target is `local:{example}`, `original`, or `TENANT:Users/NAME`"
        ));
    };
    if into.is_some() {
        return usage(
            "`--into` names a folder of a mailbox; a folder of this machine is named by `--to local:DIR`".to_owned(),
        );
    }
    if dir.is_empty() {
        return usage("`--to local:` lacks the folder: `--to local:DIR`".to_owned());
    }
    if dir == b"~" || dir.starts_with(b"~/") {
        // A shell replaces `~` only at the beginning of a word.
        let rest = output::path(&dir[1..]);
        return usage(format!("`~` is not expanded here: write `--to \"local:$HOME{rest}\"`, or `local:./~{rest}`"));
    }
    absolute(Path::new(OsStr::from_bytes(dir))).map(Target::Folder)
}

impl Session {
    /// Refuses a target inside the repository or the local state, where restored files would mix with internal ones.
    fn refuse_own_folders(&self, dir: &Path) -> Result<()> {
        let resolve = |path: &Path| {
            let (above, existing) = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)))?;
            Some(existing.join(path.strip_prefix(above).ok()?))
        };
        let target = resolve(dir);
        let own = [(self.repository_path().ok(), "repository"), (self.state_dir().ok(), "local state")];
        for (own, what) in own {
            let own = own.and_then(|own| resolve(&absolute(&own).ok()?));
            if target.as_ref().zip(own).is_some_and(|(target, own)| target.starts_with(own)) {
                let text = format!("{} lies in the {what}, where no other files may be", shown_dir(dir));
                return Err(UsageError::Other(text).into());
            }
        }
        Ok(())
    }
}

fn shown_dir(dir: &Path) -> String {
    output::path(dir.as_os_str().as_bytes())
}

/// A snapshot and the paths to restore from it.
struct Wanted {
    id: SnapshotId,
    name: String,
    snapshot: Snapshot,
    paths: Vec<Vec<u8>>,
}

/// Groups the arguments by snapshot, in the order in which the snapshots are first named.
fn group(repository: &Repository, what: &[OsString]) -> Result<Vec<Wanted>> {
    let mut ids = Vec::new();
    let mut wanted = Vec::<Wanted>::new();
    for asked in what {
        let selected = select::select(repository, asked.as_bytes())?;
        match ids.iter().position(|id| *id == selected.id) {
            Some(number) => wanted[number].paths.push(selected.path),
            None => {
                ids.push(selected.id);
                let (snapshot, paths) = (selected.snapshot, vec![selected.path]);
                wanted.push(Wanted { id: selected.id, name: selected.id.short().to_string(), snapshot, paths });
            }
        }
    }
    Ok(wanted)
}

fn plan<'a>(
    reader: &'a Reader,
    wanted: &Wanted,
    dir: &Path,
    when_exists: WhenExists,
    cancel: &AtomicBool,
) -> Result<RestorePlan<'a>> {
    RestorePlan::to_folder(reader, &wanted.snapshot.root, &wanted.paths, dir, when_exists, cancel)
        .with_context(|| format!("could not restore from snapshot {}", wanted.name))
}

/// The result of all plans together.
#[derive(Default)]
struct Outcome {
    report: Report,
    /// Why the restore stopped early, if it did.
    stopped: Option<crate::restore::RestoreError>,
}

impl Outcome {
    fn of(plans: &[RestorePlan<'_>], progress: &crate::restore::Progress, cancel: &AtomicBool) -> Self {
        let mut all = Self::default();
        for plan in plans {
            match plan.execute(progress, cancel) {
                Ok(report) => all.add(report),
                Err(error) => all.stopped = Some(error),
            }
            if all.stopped.is_some() {
                break;
            }
        }
        all
    }

    fn expected(plans: &[RestorePlan<'_>]) -> Self {
        let mut all = Self::default();
        plans.iter().for_each(|plan| all.add(plan.expected()));
        all
    }

    fn add(&mut self, mut more: Report) {
        self.stopped = self.stopped.take().or(more.stopped.take());
        self.report.add(more);
    }
}

fn show_plans(wanted: &[Wanted], plans: &[RestorePlan<'_>]) -> Result<()> {
    for (wanted, plan) in wanted.iter().zip(plans) {
        let text = plan.to_string();
        output::line(format_args!("From snapshot {}: {}", wanted.name, text.trim_end()))?;
    }
    output::line("Nothing was written.")
}

fn show(report: &Report, to: &str) -> Result<()> {
    let Report { restored, folders, already_there, skipped, failed, .. } = report;
    output::line(format_args!("Restored {restored} items ({}) to {to}", output::bytes(report.bytes)))?;
    output::line(format_args!(
        "  {folders} folders made, {already_there} items already there, {skipped} skipped, {failed} failed"
    ))
}

fn list_failures(report: &Report) {
    let shown = report.failures.len().min(FAILURES_SHOWN_MAX);
    for failure in &report.failures[..shown] {
        let path =
            if failure.path.is_empty() { "(the whole snapshot)".to_owned() } else { output::path(&failure.path) };
        output::message(format_args!("failed: {path}: {}", output::path(failure.error.as_bytes())));
    }
    report
        .remarks
        .iter()
        .for_each(|remark| output::message(format_args!("warning: {}", output::path(remark.as_bytes()))));
    // One failure may stand for many items, so failures are counted here, not items.
    if report.failures.len() > shown {
        output::message(format_args!("failed: {} more", report.failures.len() - shown));
    }
}

/// Only a dry run gives `conflicts`.
fn json_of(report: &Report, conflicts: Option<Vec<&Vec<u8>>>) -> Value {
    let failure = |failure: &Failure| json!({ "path": String::from_utf8_lossy(&failure.path), "error": failure.error });
    let mut value = json!({
        "restored": report.restored,
        "already_there": report.already_there,
        "skipped": report.skipped,
        "failed": report.failed,
        "folders": report.folders,
        "bytes": report.bytes,
        "dry_run": conflicts.is_some(),
        "warnings": report.remarks,
        "failures": report.failures.iter().map(failure).collect::<Vec<_>>(),
    });
    if let Some(conflicts) = conflicts {
        value["conflicts"] = conflicts.into_iter().map(|path| String::from_utf8_lossy(path)).collect();
    }
    value
}

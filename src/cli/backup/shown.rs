//! Prints the result of a backup.

use crate::backup::tenant::TenantReport;
use crate::backup::tenant::state::Ledger;
use crate::backup::{self};
use crate::cli::output::{self, Output};
use crate::format::id::SnapshotId;
use crate::format::snapshot::{Failure, Snapshot};
use crate::source::graph::Counters;
use crate::view::local_time;
use anyhow::Result;
use serde_json::{Value, json};

/// Maximum number of failures and of remarks that are listed. The others are counted.
const LISTED_MAX: usize = 20;

/// The result of a backup of any kind.
pub struct Shown {
    id: SnapshotId,
    snapshot: Snapshot,
    failures: Vec<Failure>,
    /// Remarks that are always printed.
    warnings: Vec<String>,
    /// Remarks that `--quiet` leaves out.
    remarks: Vec<String>,
    /// Items that were not backed up on purpose, with the reason.
    skipped: Vec<Value>,
    /// Files that changed each time they were read.
    changed: Vec<Vec<u8>>,
    ledger: Option<Ledger>,
    counters: Counters,
}

impl From<backup::Report> for Shown {
    fn from(report: backup::Report) -> Self {
        let remarks = report.skipped.iter().map(|(path, reason)| format!("skipped: {}: {reason}", output::path(path)));
        let remarks = shortened(remarks.collect(), "skipped");
        let changing = report.changing.iter();
        let changing = changing.map(|path| format!("changed while it was read, three times: {}", output::path(path)));
        let changing = shortened(changing.collect(), "changed while it was read, three times");
        let skipped = report.skipped.iter();
        let skipped =
            skipped.map(|(path, reason)| json!({ "path": String::from_utf8_lossy(path), "reason": reason })).collect();
        Self {
            id: report.id,
            snapshot: report.snapshot,
            failures: report.failures,
            warnings: report.warnings,
            remarks: remarks.into_iter().chain(changing).collect(),
            skipped,
            changed: report.changing,
            ledger: None,
            counters: Counters::default(),
        }
    }
}

impl From<TenantReport> for Shown {
    fn from(report: TenantReport) -> Self {
        let skipped = report.skipped.iter().map(|(name, reason)| format!("skipped: {name} {reason}"));
        Self {
            id: report.id,
            snapshot: report.snapshot,
            failures: report.failures,
            warnings: report.warnings,
            remarks: shortened(skipped.collect(), "skipped"),
            skipped: report.skipped.iter().map(|(name, reason)| json!({ "name": name, "reason": reason })).collect(),
            changed: Vec::new(),
            ledger: Some(report.ledger),
            counters: report.counters,
        }
    }
}

fn shortened(mut lines: Vec<String>, what: &str) -> Vec<String> {
    if lines.len() > LISTED_MAX {
        let more = lines.len() - LISTED_MAX;
        lines.truncate(LISTED_MAX);
        lines.push(format!("{what}: {more} more"));
    }
    lines
}

impl Shown {
    /// Returns whether everything could be read.
    pub fn is_whole(&self) -> bool {
        self.failures.is_empty()
    }

    /// Prints the result.
    pub fn show(&self, output: Output) -> Result<()> {
        for failure in self.failures.iter().take(LISTED_MAX) {
            let (path, error) = (output::path(&failure.path), output::path(failure.error.as_bytes()));
            output::message(format_args!("failed: {path}: {error}"));
        }
        let failed = self.snapshot.summary.failed;
        if failed > LISTED_MAX as u64 {
            output::message(format_args!("failed: {} more", failed - LISTED_MAX as u64));
        }
        self.warnings
            .iter()
            .for_each(|warning| output::message(format_args!("warning: {}", output::path(warning.as_bytes()))));
        self.remarks.iter().for_each(|remark| output.remark(remark));
        if output.json { output.json(&self.json()) } else { self.text() }
    }

    fn text(&self) -> Result<()> {
        let summary = &self.snapshot.summary;
        let seconds = self.snapshot.finished.secs - self.snapshot.started.secs;
        let set = output::path(self.snapshot.set.as_bytes());
        output::line(format_args!("Snapshot {} of {set} in {seconds} s", self.id.short()))?;
        output::line(format_args!(
            "  items: {} new, {} changed, {} moved, {} deleted, {} unchanged, {} failed",
            summary.new, summary.changed, summary.moved, summary.deleted, summary.unchanged, summary.failed
        ))?;
        if let Some(ledger) = &self.ledger {
            let Ledger { counted, enumerated, stored, carried, failed, .. } = ledger;
            output::line(format_args!(
                "  ledger: {enumerated} enumerated = {stored} stored + {carried} carried over + {failed} failed \
                 ({counted} counted by the service)"
            ))?;
        }
        output::line(format_args!(
            "  bytes: {} in the snapshot, {} new, {} stored",
            output::bytes(summary.source_bytes),
            output::bytes(summary.added_bytes),
            output::bytes(summary.stored_bytes)
        ))?;
        match self.counters.requests {
            0 => Ok(()),
            requests => {
                output::line(format_args!("  requests: {requests}, {} of them throttled", self.counters.throttled))
            }
        }
    }

    fn json(&self) -> Value {
        let snapshot = &self.snapshot;
        let summary = &snapshot.summary;
        let failure =
            |failure: &Failure| json!({ "path": String::from_utf8_lossy(&failure.path), "error": failure.error });
        let mut object = json!({
            "snapshot": self.id.to_string(),
            "set": snapshot.set,
            "status": if self.is_whole() { "ok" } else { "partial" },
            "started": rfc3339(snapshot.started.secs),
            "finished": rfc3339(snapshot.finished.secs),
            "items": {
                "new": summary.new, "changed": summary.changed, "moved": summary.moved, "deleted": summary.deleted,
                "unchanged": summary.unchanged, "failed": summary.failed,
            },
            "bytes": { "source": summary.source_bytes, "added": summary.added_bytes, "stored": summary.stored_bytes },
            "requests": self.counters.requests,
            "throttled": self.counters.throttled,
            "failures": self.failures.iter().map(failure).collect::<Vec<_>>(),
            "skipped": self.skipped,
            "warnings": self.warnings,
        });
        match &self.ledger {
            Some(ledger) => object["ledger"] = json!(ledger),
            None => {
                let changed = self.changed.iter().map(|path| String::from_utf8_lossy(path));
                object["changed_while_read"] = changed.collect();
            }
        }
        object
    }
}

/// Formats a time for JSON, as RFC 3339.
pub fn rfc3339(secs: i64) -> String {
    local_time(secs, "%Y-%m-%dT%H:%M:%S%:z")
}

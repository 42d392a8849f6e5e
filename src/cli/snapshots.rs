//! `strongroom snapshots`

use super::Session;
use super::backup::rfc3339;
use super::error::Exit;
use super::output::{bytes, message, path, table};
use crate::backup::tenant::state::{Ledger, TenantState};
use crate::view::local_time;
use anyhow::Result;
use clap::Args;
use serde_json::json;

/// Lists the snapshots, oldest first
#[derive(Args)]
#[command(after_help = "Example:\n  strongroom snapshots --json | jq -r '.[-1].id'")]
pub struct Snapshots {}

impl Snapshots {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let repository = session.open()?;
        let found = repository.snapshots()?;
        let now = jiff::Timestamp::now().as_second();
        let missing = session.warning_of_missing(&repository)?;
        let warnings = found.remarks().chain(found.warn_of_the_future(now)).chain(missing);
        warnings.for_each(|warning| message(format_args!("warning: {}", path(warning.as_bytes()))));
        let snapshots = &found.readable;
        if session.output().json {
            // The unreadable ones come first, so that the last element is the newest snapshot.
            let left_out = found.left_out.iter().map(|left_out| {
                json!({ "id": left_out.id.to_string(), "error": left_out.error, "later": left_out.is_of_later_version })
            });
            let list: Vec<_> = left_out
                .chain(snapshots.iter().map(|(id, snapshot)| {
                    let mut row = json!({
                        "id": id.to_string(),
                        "time": rfc3339(snapshot.started.secs),
                        "set": snapshot.set,
                        "items": snapshot.directory().sums.files,
                        "bytes": snapshot.directory().sums.bytes,
                        "added": snapshot.summary.stored_bytes,
                        "failed": snapshot.summary.failed,
                        "ahead": snapshot.is_ahead(now),
                    });
                    if let Some(state) = TenantState::of(snapshot) {
                        row["ledger"] = json!(state.ledger);
                    }
                    row
                }))
                .collect();
            session.output().json(&list)?;
            return Ok(Exit::Done);
        }
        let head = ["id", "time", "set", "items", "size", "added", "enumerated", "carried", "failed"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(snapshots.iter().map(|(id, snapshot)| {
            // Only a backup of a service lists the items before it reads them.
            let ledger = TenantState::of(snapshot).map(|state| state.ledger);
            let counted = |count: fn(&Ledger) -> u64| ledger.as_ref().map_or("-".to_owned(), |l| count(l).to_string());
            vec![
                id.short(),
                local_time(snapshot.started.secs, "%Y-%m-%d %H:%M:%S"),
                path(snapshot.set.as_bytes()),
                snapshot.directory().sums.files.to_string(),
                bytes(snapshot.directory().sums.bytes),
                bytes(snapshot.summary.stored_bytes),
                counted(|ledger| ledger.enumerated),
                counted(|ledger| ledger.carried),
                snapshot.summary.failed.to_string(),
            ]
        }));
        table(&rows, &[3, 4, 5, 6, 7, 8])?;
        Ok(Exit::Done)
    }
}

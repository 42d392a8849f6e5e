//! `strongroom snapshots`

use super::Session;
use super::backup::rfc3339;
use super::error::Exit;
use super::output::{bytes, path, table};
use crate::backup::tenant::state::{Ledger, TenantState};
use crate::view::local_time;
use anyhow::Result;
use clap::Args;
use serde_json::json;

/// Lists the snapshots, the oldest first
#[derive(Args)]
#[command(after_help = "Example:\n  strongroom snapshots --json | jq -r '.[-1].id'")]
pub struct Snapshots {}

impl Snapshots {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let snapshots = session.open()?.snapshots()?;
        if session.output().json {
            let list: Vec<_> = snapshots
                .iter()
                .map(|(id, snapshot)| {
                    let mut row = json!({
                        "id": id.to_string(),
                        "time": rfc3339(snapshot.started.secs),
                        "set": snapshot.set,
                        "items": snapshot.directory().sums.files,
                        "bytes": snapshot.directory().sums.bytes,
                        "added": snapshot.summary.stored_bytes,
                        "failed": snapshot.summary.failed,
                    });
                    if let Some(state) = TenantState::of(snapshot) {
                        row["ledger"] = json!(state.ledger);
                    }
                    row
                })
                .collect();
            session.output().json(&list)?;
            return Ok(Exit::Done);
        }
        let head = ["id", "time", "set", "items", "size", "added", "enumerated", "carried", "failed"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(snapshots.iter().map(|(id, snapshot)| {
            // Only a service is asked what there is before it is read.
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

//! `strongroom stats`

use super::Session;
use super::error::Exit;
use super::output::{bytes, line, message};
use crate::backend::ObjectKind;
use anyhow::Result;
use clap::Args;
use serde_json::json;

/// Shows how much is backed up, and how much space that takes
#[derive(Args)]
#[command(after_help = "Example:\n  strongroom stats --json")]
pub struct Stats {}

impl Stats {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let repository = session.open()?;
        let mut stored = 0;
        let mut packs = 0u64;
        for kind in ObjectKind::ALL {
            repository.backend().list(kind, &mut |_, len| {
                stored += len;
                packs += u64::from(kind == ObjectKind::Pack);
            })?;
        }
        let (mut chunks, mut later) = (0, 0);
        for id in repository.index_ids()? {
            match repository.load_index(id) {
                Ok(index) => chunks += index.locations().len() as u64,
                Err(error) if error.is_of_later_version() => later += 1,
                Err(error) => return Err(error.into()),
            }
        }
        let snapshots = repository.snapshots()?;
        snapshots.remarks().for_each(message);
        if later > 0 {
            message(format_args!("{later} index objects are of a later version of this program and are not counted"));
        }
        let snapshots = snapshots.readable;
        let source: u64 = snapshots.iter().map(|(_, snapshot)| snapshot.directory().sums.bytes).sum();
        if session.output().json {
            let object = json!({
                "bytes_stored": stored, "bytes_source": source, "snapshots": snapshots.len(), "chunks": chunks,
                "packs": packs,
            });
            session.output().json(&object)?;
        } else {
            line(format_args!("snapshots      {}", snapshots.len()))?;
            line(format_args!("bytes in them  {}", bytes(source)))?;
            line(format_args!("bytes stored   {}", bytes(stored)))?;
            line(format_args!("packs          {packs}"))?;
            line(format_args!("chunks         {chunks}"))?;
        }
        Ok(Exit::Done)
    }
}

//! `strongroom diff`

use super::error::{Exit, UsageError};
use super::{Session, ls, output, reader};
use crate::repository::compare::{self, Difference};
use crate::repository::select;
use anyhow::Result;
use clap::Args;
use serde_json::json;
use std::ffi::OsString;
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;

/// Shows what changed between two snapshots
#[derive(Args)]
#[command(after_help = "Examples:\n  strongroom diff latest~1 latest\n  \
    strongroom diff 2026-11-01 latest Users/alice@contoso.com\n\n\
    + added; - removed; R moved; M changed; T touched (only its time, permissions or owner changed)")]
pub struct Diff {
    /// The older snapshot
    #[arg(value_name = "A")]
    old: OsString,
    /// The newer snapshot
    #[arg(value_name = "B")]
    new: OsString,
    /// Compares only this folder
    #[arg(value_name = "PATH")]
    path: Option<OsString>,
}

impl Diff {
    pub fn run(self, session: &Session) -> Result<Exit> {
        let repository = session.open()?;
        let reader = reader(&repository);
        let path = self.path.unwrap_or_default();
        let mut sides = Vec::new();
        for asked in [&self.old, &self.new] {
            let selected = select::select(&repository, asked.as_bytes())?;
            if !selected.path.is_empty() {
                return Err(UsageError::Other("give the path as a third argument".to_owned()).into());
            }
            let entry = ls::find(&reader, &selected.snapshot.root, path.as_bytes())?;
            let not_a_folder = || UsageError::Other(format!("{} is not a folder", output::path(path.as_bytes())));
            sides.push(*entry.directory().ok_or_else(not_a_folder)?);
        }
        let mut out = BufWriter::new(std::io::stdout().lock());
        let mut written = Ok(());
        let json = session.output().json;
        compare::compare(&*reader, &sides[0], &sides[1], &mut |difference| {
            if written.is_ok() {
                written = write(&mut out, &difference, json);
            }
        })?;
        written?;
        out.flush()?;
        Ok(Exit::Done)
    }
}

fn write(out: &mut impl Write, difference: &Difference, as_json: bool) -> std::io::Result<()> {
    let (letter, change, path, from) = match difference {
        Difference::Added(path) => ('+', "added", path, None),
        Difference::Removed(path) => ('-', "removed", path, None),
        Difference::Changed(path) => ('M', "changed", path, None),
        Difference::Touched(path) => ('T', "touched", path, None),
        Difference::Moved(from, to) => ('R', "moved", to, Some(from)),
    };
    if as_json {
        let path = String::from_utf8_lossy(path);
        let from = from.map(|from| String::from_utf8_lossy(from));
        serde_json::to_writer(&mut *out, &json!({ "change": change, "path": path, "from": from }))?;
        return out.write_all(b"\n");
    }
    match from {
        Some(from) => writeln!(out, "{letter} {} -> {}", output::path(from), output::path(path)),
        None => writeln!(out, "{letter} {}", output::path(path)),
    }
}

//! Results go to standard output, everything else to standard error.
//!
//! Nothing for people is written but through here: names, and the words of services and of errors, must not command a
//! terminal or mislead its reader (`shown`). [`path`] is for a name within a line; all lines are looked at once more as
//! they go out.

use super::error::UsageError;
use crate::shown;
use anyhow::Result;
use rustix::fs::OFlags;
use serde::Serialize;
use std::io::Write;

pub use crate::shown::name as path;

/// How results are shown.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    pub json: bool,
    pub quiet: bool,
}

impl Output {
    /// Writes one JSON document or one object of a stream.
    pub fn json(self, value: &impl Serialize) -> Result<()> {
        write_json(&mut std::io::stdout().lock(), value)
    }

    /// Writes a remark for people, unless they want none.
    pub fn remark(self, text: impl std::fmt::Display) {
        if !self.quiet {
            message(text);
        }
    }
}

/// Writes a line for people to standard error; that nobody reads it is no reason to stop.
pub fn message(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{}", shown::lines(&text.to_string()));
}

/// Writes a line of a result to standard output.
pub fn line(text: impl std::fmt::Display) -> Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{}", shown::lines(&text.to_string()))?)
}

/// Makes sure that what was written so far has left this process.
pub fn flush() -> Result<()> {
    Ok(std::io::stdout().flush()?)
}

/// Refuses to go on if standard output is closed, so that nobody would see `what`.
///
/// The runtime opens `/dev/null` for it, for reading and writing. A shell that is told to throw output away opens it
/// for writing alone.
pub fn refuse_no_reader(what: &str) -> Result<()> {
    let stdout = std::io::stdout();
    let is_null = rustix::fs::fstat(&stdout)
        .ok()
        .zip(rustix::fs::stat("/dev/null").ok())
        .is_some_and(|(out, null)| (out.st_mode & !0o7777) == (null.st_mode & !0o7777) && out.st_rdev == null.st_rdev);
    let is_both = rustix::fs::fcntl_getfl(&stdout).is_ok_and(|flags| flags & OFlags::ACCMODE == OFlags::RDWR);
    if is_null && is_both {
        let text = format!("standard output is closed, so nobody would see {what}");
        return Err(UsageError::Other(text).into());
    }
    Ok(())
}

/// Writes one JSON document or one object of a stream to `out`.
pub fn write_json(out: &mut impl Write, value: &impl Serialize) -> Result<()> {
    // As an I/O error, a closed pipe is recognised for what it is.
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    Ok(out.write_all(b"\n")?)
}

/// Writes a number of bytes for people: `3.2 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ if value < 10.0 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// Prints rows with their columns in line; the columns named in `right` are set flush right.
pub fn table(rows: &[Vec<String>], right: &[usize]) -> Result<()> {
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| path(cell.as_bytes())).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = std::io::stdout().lock();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[column] - cell.chars().count());
            let (before, after) = if right.contains(&column) { (&*padding, "") } else { ("", &*padding) };
            line.push_str(&format!("{before}{cell}{after}  "));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

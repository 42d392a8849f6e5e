//! Writes results to standard output and everything else to standard error.
//!
//! All text for people goes through this module: names, and the words of services and of errors, must not control the
//! terminal or mislead the reader (`shown`). [`path`] escapes a name inside a line. Every line is escaped once more
//! before it is written.

use crate::shown;
use anyhow::Result;
use serde::Serialize;
use std::io::Write;

pub use crate::shown::name as path;

/// How results are printed.
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

    /// Prints a remark, unless `--quiet` is given.
    pub fn remark(self, text: impl std::fmt::Display) {
        if !self.quiet {
            message(text);
        }
    }
}

/// Prints a line to standard error. Errors are ignored: it does not matter if nobody reads it.
pub fn message(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{}", shown::lines(&text.to_string()));
}

/// Prints a line of a result to standard output.
pub fn line(text: impl std::fmt::Display) -> Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{}", shown::lines(&text.to_string()))?)
}

/// Flushes standard output.
pub fn flush() -> Result<()> {
    Ok(std::io::stdout().flush()?)
}

/// Writes one JSON document or one object of a stream to `out`.
pub fn write_json(out: &mut impl Write, value: &impl Serialize) -> Result<()> {
    // Kept as an I/O error, so that a closed pipe is recognised.
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    Ok(out.write_all(b"\n")?)
}

/// Formats a number of bytes for people: `3.2 GiB`.
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

/// Prints rows in aligned columns. The columns in `right` are aligned to the right.
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

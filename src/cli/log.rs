//! Logs events to standard error.
//!
//! Only the events of this program's own modules are logged. Its libraries log names at `debug` and `trace` (fuser logs
//! each request with its file name, dav-server logs paths, hyper logs addresses), and we cannot keep them from it. So
//! no option and no variable turns them on.

use super::Global;
use crate::{CONTENT_LOG, local_files, shown};
use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

/// The crates whose events are logged.
const OWN: [&str; 2] = ["strongroom", "strongroom_mount"];
/// Overrides `-q` and `-v`.
const VARIABLE: &str = "STRONGROOM_LOG";

/// Length in bytes at which a log file is renamed and a new one begun. The log that was renamed before is replaced.
/// Several mounts of a repository share one file.
const FILE_LEN_MAX: u64 = 8 << 20;

/// The file that standard error is redirected to, if any.
#[derive(Clone, Default)]
pub struct LogFile(Arc<Mutex<Option<PathBuf>>>);

impl LogFile {
    /// Redirects standard error to the file at `path`, which must be in a private folder.
    ///
    /// # Errors
    /// The error of the system.
    pub fn lead_to(&self, path: PathBuf) -> io::Result<()> {
        rustix::stdio::dup2_stderr(local_files::append(&path)?)?;
        *self.0.lock() = Some(path);
        Ok(())
    }

    /// Begins a new file if the current one is too long.
    fn keep_short(&self) -> io::Result<()> {
        let path = self.0.lock();
        let (Some(path), stderr) = (&*path, io::stderr()) else { return Ok(()) };
        if u64::try_from(rustix::fs::fstat(&stderr)?.st_size).is_ok_and(|len| len < FILE_LEN_MAX) {
            return Ok(());
        }
        // Several mounts may find the file too long. The first one renames it. The others then find another file at the
        // path, and change over to it.
        rustix::fs::flock(&stderr, FlockOperation::LockExclusive)?;
        let (own, there) = (rustix::fs::fstat(&stderr)?, rustix::fs::lstat(path));
        if there.is_ok_and(|there| (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)) {
            fs::rename(path, path.with_extension("log.1"))?;
        }
        // Replacing standard error closes the old file and so releases the lock.
        Ok(rustix::stdio::dup2_stderr(local_files::append(path)?)?)
    }
}

/// Starts logging with the given options.
pub fn start(global: &Global) -> LogFile {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, 2) => "debug",
        (false, _) => "trace",
    };
    let (content, content_filter) = match global.log_content {
        true => ("debug", LevelFilter::DEBUG),
        false => ("off", LevelFilter::OFF),
    };
    let asked = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new(level));
    let asked = asked.add_directive(format!("{CONTENT_LOG}={content}").parse().expect("a directive"));
    let own = Targets::new().with_targets(OWN.map(|target| (target, LevelFilter::TRACE)));
    let own = own.with_target(CONTENT_LOG, content_filter);
    let terminal = io::stderr().is_terminal();
    let file = LogFile::default();
    let written_to = file.clone();
    let lines = fmt::layer().with_writer(move || Lines(written_to.clone())).with_ansi(terminal);
    tracing_subscriber::registry().with(asked).with(own).with(lines).init();
    file
}

/// Prints an error of the command line to standard error.
pub fn usage(error: &clap::Error) {
    let text = error.render();
    let is_coloured = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let text = if is_coloured { text.ansi().to_string() } else { text.to_string() };
    let _ = io::stderr().write_all(harmless(&text).as_bytes());
}

/// Writes each event to standard error, and escapes characters that could control a terminal.
struct Lines(LogFile);

impl Write for Lines {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        // If a new file cannot be begun, the old one is used further.
        let _ = self.0.keep_short();
        io::stderr().write_all(harmless(&String::from_utf8_lossy(event)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Returns `event` without control sequences, except for those that set colours: the formatter writes these itself.
fn harmless(event: &str) -> String {
    let mut pieces = event.split("\u{1b}[");
    let mut text = shown::lines(pieces.next().unwrap_or_default()).into_owned();
    for piece in pieces {
        let end = piece.find(|letter: char| !letter.is_ascii_digit() && letter != ';');
        let is_colour = end.is_some_and(|end| piece[end..].starts_with('m'));
        text += if is_colour { "\u{1b}[" } else { "\\u{1b}[" };
        text += &shown::lines(piece);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_stay_and_commands_do_not() {
        let event =
            "\u{1b}[2m2026\u{1b}[0m \u{1b}[1;33mWARN\u{1b}[0m path=a\u{1b}[2Jb\u{1b}]0;title\u{7}\u{202e}c\u{1b}[31\n";
        let expected = "\u{1b}[2m2026\u{1b}[0m \u{1b}[1;33mWARN\u{1b}[0m \
            path=a\\u{1b}[2Jb\\u{1b}]0;title\\u{7}\\u{202e}c\\u{1b}[31\n";
        assert_eq!(harmless(event), expected);
    }
}

//! What the program logs, to standard error.
//!
//! Only this program's own modules are heard: what its libraries say at `debug` and `trace` (fuser each request with
//! its file name, dav-server paths, hyper addresses) is not ours to keep free of names. So no option and no variable
//! lets them in.

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

/// A log file that is this long is put aside for a new one; that of before goes. Several mounts of a repository share
/// one.
const FILE_LEN_MAX: u64 = 8 << 20;

/// The file that standard error leads to, if it does.
#[derive(Clone, Default)]
pub struct LogFile(Arc<Mutex<Option<PathBuf>>>);

impl LogFile {
    /// Has standard error lead to the file at `path` from now on, which must lie in a private folder.
    ///
    /// # Errors
    /// What the system says.
    pub fn lead_to(&self, path: PathBuf) -> io::Result<()> {
        rustix::stdio::dup2_stderr(local_files::append(&path)?)?;
        *self.0.lock() = Some(path);
        Ok(())
    }

    /// Begins a new file if this one has become too long.
    fn keep_short(&self) -> io::Result<()> {
        let path = self.0.lock();
        let (Some(path), stderr) = (&*path, io::stderr()) else { return Ok(()) };
        if u64::try_from(rustix::fs::fstat(&stderr)?.st_size).is_ok_and(|len| len < FILE_LEN_MAX) {
            return Ok(());
        }
        // Of several mounts that find it too long, the first puts it aside; the others find another one at the path,
        // and go over to that.
        rustix::fs::flock(&stderr, FlockOperation::LockExclusive)?;
        let (own, there) = (rustix::fs::fstat(&stderr)?, rustix::fs::lstat(path));
        if there.is_ok_and(|there| (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)) {
            fs::rename(path, path.with_extension("log.1"))?;
        }
        // The lock goes with the file that it was taken on.
        Ok(rustix::stdio::dup2_stderr(local_files::append(path)?)?)
    }
}

/// Starts logging, as the options say.
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

/// Writes what is wrong with the command line to standard error.
pub fn usage(error: &clap::Error) {
    let text = error.render();
    let is_coloured = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let text = if is_coloured { text.ansi().to_string() } else { text.to_string() };
    let _ = io::stderr().write_all(harmless(&text).as_bytes());
}

/// Writes each event to standard error, without what could command a terminal.
struct Lines(LogFile);

impl Write for Lines {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        // A file that cannot be put aside is written on.
        let _ = self.0.keep_short();
        io::stderr().write_all(harmless(&String::from_utf8_lossy(event)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Returns `event` with only those control sequences that set colours: the formatter's own.
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

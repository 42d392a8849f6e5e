//! Turns errors into messages for people and exit codes for scripts: `Error:`, the chain of causes, a hint, and the
//! exit code.

use super::output;
use crate::backend::BackendError;
use crate::backup::BackupError;
use crate::format::config::ConfigError;
use crate::outbox::OpenError;
use crate::repository::RepositoryError;
use crate::repository::local_state::LocalError;
use crate::repository::read_error::ReadError;
use crate::repository::store::StoreError;
use crate::restore::RestoreError;
use crate::serve::webdav::WebdavError;
use crate::settings::SettingsError;
use crate::source::graph::{ErrorKind, GraphError};
use std::path::PathBuf;
use std::process::ExitCode;

/// The exit codes of docs/cli.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Partial = 3,
    NoRepository = 10,
    Locked = 11,
    NoKeyFits = 12,
    Damaged = 13,
    Interrupted = 130,
}

/// A mistake in the arguments, the environment or the configuration.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    #[error("no repository is named")]
    NoRepository,
    #[error("no repository is named, and the configuration has several: {}", .0.join(", "))]
    WhichRepository(Vec<String>),
    #[error("repositories at {0}:// are not supported yet")]
    Scheme(String),
    #[error("there is no place for the local state: HOME is not set")]
    NoStateDir,
    #[error("there is no place for the cache: HOME is not set")]
    NoCacheDir,
    #[error("a cache of {0} bytes is too small")]
    CacheSize(u64),
    #[error("the cache at {} would lie in the repository", .0.display())]
    CacheInRepository(PathBuf),
    #[error("no password is given, and there is no terminal to ask on")]
    NoPassword,
    #[error("the password is empty")]
    EmptyPassword,
    #[error("the passwords differ")]
    PasswordsDiffer,
    #[error("{0}")]
    Other(String),
}

/// The mount would hide the repository or the cache that it reads.
#[derive(Debug, thiserror::Error)]
#[error("{} holds the {what}, or is a part of it", at.display())]
pub struct Unsuitable {
    pub at: PathBuf,
    pub what: &'static str,
}

/// Prints `error` and returns its exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        // The reader of our output has seen enough and closed the pipe.
        return ExitCode::SUCCESS;
    }
    let exit = exit_of(error);
    output::message(format_args!("Error: {error}"));
    let mut last = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if cause != last {
            output::message(format_args!("Caused by: {cause}"));
        }
        last = cause;
    }
    if let Some(hint) = hint_of(error, exit) {
        output::message(format_args!("Hint: {hint}"));
    }
    ExitCode::from(exit as u8)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    // Only the outermost error counts. A broken pipe to another process, or a broken connection, comes with a context
    // of its own and is a real failure.
    let Some(outermost) = error.chain().next() else { return false };
    let io = outermost.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    let json = outermost.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
    io.or(json) == Some(std::io::ErrorKind::BrokenPipe)
}

fn exit_of(error: &anyhow::Error) -> Exit {
    error.chain().find_map(exit_of_cause).unwrap_or(Exit::Failed)
}

fn exit_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if cause.is::<UsageError>() || cause.is::<SettingsError>() {
        return Some(Exit::Usage);
    }
    if matches!(cause.downcast_ref(), Some(OpenError::Busy)) {
        return Some(Exit::Locked);
    }
    match cause.downcast_ref::<BackupError>() {
        Some(BackupError::Interrupted) => return Some(Exit::Interrupted),
        Some(BackupError::Repository(error) | BackupError::Store(StoreError::Repository(error))) => {
            return exit_of_repository(error);
        }
        _ => {}
    }
    match cause.downcast_ref::<RestoreError>() {
        Some(
            RestoreError::NotInSnapshot { .. }
            | RestoreError::SameName { .. }
            | RestoreError::NoMailbox { .. }
            | RestoreError::NoAccount { .. },
        ) => return Some(Exit::Usage),
        Some(RestoreError::Interrupted) => return Some(Exit::Interrupted),
        _ => {}
    }
    if cause.downcast_ref::<GraphError>().is_some_and(|error| error.kind() == ErrorKind::Cancelled) {
        return Some(Exit::Interrupted);
    }
    if cause.downcast_ref::<ReadError>().is_some_and(ReadError::is_damage) {
        return Some(Exit::Damaged);
    }
    cause.downcast_ref::<RepositoryError>().and_then(exit_of_repository)
}

fn exit_of_repository(error: &RepositoryError) -> Option<Exit> {
    match error {
        RepositoryError::NoRepository { .. } => Some(Exit::NoRepository),
        RepositoryError::NoKeyFits { .. } => Some(Exit::NoKeyFits),
        RepositoryError::Local(LocalError::Locked { .. }) => Some(Exit::Locked),
        RepositoryError::Interrupted => Some(Exit::Interrupted),
        RepositoryError::NoSnapshot { .. } | RepositoryError::Ambiguous { .. } | RepositoryError::NoSlot { .. } => {
            Some(Exit::Usage)
        }
        error if error.is_damage() => Some(Exit::Damaged),
        _ => None,
    }
}

fn hint_of(error: &anyhow::Error, exit: Exit) -> Option<String> {
    if let Some(settings) = cause::<SettingsError>(error) {
        return settings.hint();
    }
    if let Some(graph) = cause::<GraphError>(error) {
        return words_of_service(graph).map(|words| format!("the service says: {words}"));
    }
    let known = cause::<RepositoryError>(error)
        .and_then(hint_of_repository)
        .or_else(|| cause::<UsageError>(error).and_then(hint_of_usage));
    let hint = match known {
        Some(hint) => hint,
        None if matches!(cause(error), Some(BackendError::NoSpace { .. })) => {
            "free some space and try again; what was stored so far is kept"
        }
        None if matches!(cause(error), Some(WebdavError::Listen { .. })) => {
            "name another address of this machine with `--listen`; port 0 takes any that is free"
        }
        None if matches!(cause(error), Some(OpenError::Busy)) => {
            "one at a time: unmount the other, or mount without `--restore`"
        }
        None if error.is::<Unsuitable>() => "name an empty folder elsewhere",
        None if exit == Exit::Damaged => {
            "`strongroom check --read-data` says what is damaged and which items that affects"
        }
        None => match cause::<RestoreError>(error) {
            Some(error) => hint_of_restore(error)?,
            None => return cause(error).and_then(strongroom_mount::MountError::hint),
        },
    };
    Some(hint.to_owned())
}

/// Returns the service's own words about `error`: only the first line, because ids for its support follow. Control
/// characters are escaped.
pub fn words_of_service(error: &GraphError) -> Option<String> {
    let words = error.detail()?.lines().next()?.trim();
    (!words.is_empty()).then(|| output::path(words.as_bytes()))
}

/// Returns the first error of a type that `error` was caused by.
fn cause<E: std::error::Error + 'static>(error: &anyhow::Error) -> Option<&E> {
    error.chain().find_map(|cause| cause.downcast_ref())
}

fn hint_of_usage(error: &UsageError) -> Option<&'static str> {
    match error {
        UsageError::NoRepository => Some("name it with `--repo FOLDER` or STRONGROOM_REPO, or in the configuration"),
        UsageError::WhichRepository(_) => Some("choose one with `--repo NAME` or STRONGROOM_REPO"),
        UsageError::NoPassword => {
            Some("give `--password-file FILE`, or set STRONGROOM_PASSWORD_FILE or STRONGROOM_PASSWORD")
        }
        UsageError::NoCacheDir => Some("name a folder with `--cache-dir` or STRONGROOM_CACHE_DIR"),
        UsageError::CacheSize(_) => Some("write 500M or 20G, with the letter; 64M is the least, and 0 for no cache"),
        UsageError::CacheInRepository(_) => Some("name a folder elsewhere with `--cache-dir`"),
        _ => None,
    }
}

fn hint_of_repository(error: &RepositoryError) -> Option<&'static str> {
    match error {
        RepositoryError::NoRepository { .. } => {
            Some("`strongroom init` creates one; `--repo` or STRONGROOM_REPO says where")
        }
        RepositoryError::Exists { .. } => Some("choose another folder, or use the repository that is there"),
        RepositoryError::NoKeyFits { .. } => {
            Some("check the password; the recovery key that `init` printed is accepted in its place")
        }
        RepositoryError::NoSnapshot { .. } | RepositoryError::Ambiguous { .. } => {
            Some("`strongroom snapshots` lists them; an id may be shortened as long as it stays unambiguous")
        }
        RepositoryError::ForeignConfig { .. } => {
            Some("put the `config` of this repository back from a copy of it; nothing else needs a change")
        }
        RepositoryError::NoConfig { .. }
        | RepositoryError::Config(ConfigError::Malformed | ConfigError::NotAuthentic) => {
            Some("put `config` back from a copy of the repository; everything else may be undamaged")
        }
        RepositoryError::Config(ConfigError::Version(_) | ConfigError::Features) => {
            Some("use the version of this program that writes to the repository")
        }
        RepositoryError::SlotsContested => Some("look at `strongroom key list`, and try again"),
        RepositoryError::TooManySlots { .. } => Some("`strongroom key remove` those that nobody uses"),
        RepositoryError::UnreadRecords { .. } => {
            Some("use the version of this program that wrote them (`strongroom check` names them)")
        }
        RepositoryError::NoSlot { .. } => Some("`strongroom key list` shows the key slots"),
        RepositoryError::LastSlot { .. } => Some("add another first: `strongroom key add`"),
        RepositoryError::Local(LocalError::Locked { .. }) => {
            Some("wait until the other run has ended, or give this one its own `--state-dir`")
        }
        _ => None,
    }
}

fn hint_of_restore(error: &RestoreError) -> Option<&'static str> {
    match error {
        RestoreError::NotInSnapshot { .. } => Some("`strongroom ls -R SNAPSHOT` shows every path of a snapshot"),
        RestoreError::NoMailbox { .. } => {
            Some("in a snapshot a mailbox is at `Users/NAME/Outlook`; mail from files needs `--to TENANT:Users/NAME`")
        }
        RestoreError::NoAccount { .. } => Some("`strongroom tenant users TENANT` lists the users"),
        RestoreError::SameName { .. } => Some("give each its own `--to local:DIR`"),
        RestoreError::Target { .. } => Some("name a folder that you may write to, or one that can be made"),
        RestoreError::TargetFull { .. } => Some(
            "what was restored stays; make room, or make it writable, and give the same command again for the rest",
        ),
        RestoreError::Interrupted => Some("what was restored stays; give the same command again for the rest"),
        _ => None,
    }
}

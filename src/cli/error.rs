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
    if let Some(settings) = error.chain().find_map(|cause| cause.downcast_ref::<SettingsError>()) {
        return settings.hint();
    }
    if let Some(graph) = error.chain().find_map(|cause| cause.downcast_ref::<GraphError>()) {
        return words_of_service(graph).map(|words| format!("the service says: {words}"));
    }
    let repository = error.chain().find_map(|cause| cause.downcast_ref::<RepositoryError>());
    let usage = error.chain().find_map(|cause| cause.downcast_ref::<UsageError>());
    let backend = error.chain().find_map(|cause| cause.downcast_ref::<BackendError>());
    let mount = error.chain().find_map(|cause| cause.downcast_ref::<strongroom_mount::MountError>());
    let hint = match (repository, usage, backend) {
        (_, Some(UsageError::NoRepository), _) => {
            "name it with `--repo FOLDER` or STRONGROOM_REPO, or in the configuration"
        }
        (_, Some(UsageError::WhichRepository(_)), _) => "choose one with `--repo NAME` or STRONGROOM_REPO",
        (_, Some(UsageError::NoPassword), _) => {
            "give `--password-file FILE`, or set STRONGROOM_PASSWORD_FILE or STRONGROOM_PASSWORD"
        }
        (Some(RepositoryError::NoRepository { .. }), ..) => {
            "`strongroom init` creates one; `--repo` or STRONGROOM_REPO says where"
        }
        (Some(RepositoryError::Exists { .. }), ..) => "choose another folder, or use the repository that is there",
        (Some(RepositoryError::NoKeyFits { .. }), ..) => {
            "check the password; the recovery key that `init` printed is accepted in its place"
        }
        (Some(RepositoryError::NoSnapshot { .. } | RepositoryError::Ambiguous { .. }), ..) => {
            "`strongroom snapshots` lists them; an id may be shortened as long as it stays unambiguous"
        }
        (Some(RepositoryError::ForeignConfig { .. }), ..) => {
            "put the `config` of this repository back from a copy of it; nothing else needs a change"
        }
        (
            Some(
                RepositoryError::NoConfig { .. }
                | RepositoryError::Config(ConfigError::Malformed | ConfigError::NotAuthentic),
            ),
            ..,
        ) => "put `config` back from a copy of the repository; everything else may be undamaged",
        (Some(RepositoryError::Config(ConfigError::Version(_) | ConfigError::Features)), ..) => {
            "use the version of this program that writes to the repository"
        }
        (Some(RepositoryError::SlotsContested), ..) => "look at `strongroom key list`, and try again",
        (Some(RepositoryError::TooManySlots { .. }), ..) => "`strongroom key remove` those that nobody uses",
        (Some(RepositoryError::UnreadRecords { .. }), ..) => {
            "use the version of this program that wrote them (`strongroom check` names them)"
        }
        (Some(RepositoryError::NoSlot { .. }), ..) => "`strongroom key list` shows the key slots",
        (Some(RepositoryError::LastSlot { .. }), ..) => "add another first: `strongroom key add`",
        (Some(RepositoryError::Local(LocalError::Locked { .. })), ..) => {
            "wait until the other run has ended, or give this one its own `--state-dir`"
        }
        (_, Some(UsageError::NoCacheDir), _) => "name a folder with `--cache-dir` or STRONGROOM_CACHE_DIR",
        (_, Some(UsageError::CacheSize(_)), _) => {
            "write 500M or 20G, with the letter; 64M is the least, and 0 for no cache"
        }
        (_, Some(UsageError::CacheInRepository(_)), _) => "name a folder elsewhere with `--cache-dir`",
        (.., Some(BackendError::NoSpace { .. })) => "free some space and try again; what was stored so far is kept",
        _ if error.chain().any(|cause| matches!(cause.downcast_ref(), Some(WebdavError::Listen { .. }))) => {
            "name another address of this machine with `--listen`; port 0 takes any that is free"
        }
        _ if error.chain().any(|cause| matches!(cause.downcast_ref(), Some(OpenError::Busy))) => {
            "one at a time: unmount the other, or mount without `--restore`"
        }
        _ if error.is::<Unsuitable>() => "name an empty folder elsewhere",
        _ if exit == Exit::Damaged => {
            "`strongroom check --read-data` says what is damaged and which items that affects"
        }
        _ => match error.chain().find_map(|cause| cause.downcast_ref::<RestoreError>()) {
            Some(error) => hint_of_restore(error)?,
            None => return mount.and_then(strongroom_mount::MountError::hint),
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

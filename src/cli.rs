//! The command line: one file for each command. docs/cli.md says what users can rely on.

mod allocator;
mod backup;
mod cat;
mod check;
mod connect;
mod diff;
mod error;
mod generate;
mod init;
mod key;
mod log;
mod ls;
mod mount;
mod outbox;
mod output;
mod progress;
mod remembered;
mod restore;
mod secret;
mod snapshots;
mod stats;
mod tenant;
mod version;
mod webdav;

use crate::backend::cached::{CacheOptions, Cached};
use crate::backend::local::Local;
use crate::backend::{Backend, BackendError};
use crate::local_files;
use crate::repository::local_state::LocalState;
use crate::repository::reader::{CacheSizes, Reader};
use crate::repository::{IndexSearch, Repository, RepositoryError};
use crate::settings::{ByteSize, Period, RepositorySettings, SecretSource, Settings};
use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use error::{Exit, UsageError};
use output::Output;
use remembered::RememberedKey;
use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Size of a cache whose size is not given.
const CACHE_SIZE_DEFAULT: ByteSize = ByteSize(4 << 30);
/// Smallest useful size of a cache. Somebody who writes `20` means something else, such as 20G.
const CACHE_SIZE_MIN: ByteSize = ByteSize(64 << 20);

const AFTER_HELP: &str = "\
First steps:
  export STRONGROOM_REPO=/srv/strongroom     where the backups go
  strongroom init                            asks for a password, prints a recovery key
  strongroom backup --files ~/Documents      makes a backup (a snapshot) of a folder
  strongroom backup --set everyone           backs up mailboxes, as the configuration says
  strongroom mount /mnt/backup               shows all backups as folders
  strongroom restore latest:report.odt --to local:/tmp/back

`strongroom COMMAND --help` explains a command and its options.

Exit codes: 0 success; 1 failure; 2 wrong usage or configuration; 3 finished, but some items failed (they are listed); \
10 no repository there; 11 locked by another run; 12 the password does not fit; 13 the repository is damaged; \
130 interrupted (what was done so far is kept).";

/// Backs up Microsoft 365 mailboxes, local mail and files. Every backup is encrypted, and opens as ordinary folders.
#[derive(Parser)]
#[command(name = "strongroom", version = version::SHORT, long_version = version::LONG)]
#[command(after_help = AFTER_HELP, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Args, Clone)]
#[command(next_help_heading = "Options of every command")]
struct Global {
    /// The repository, where backups are kept: a folder (write it with a `/`), or a name from the configuration
    /// [default: the only one in the configuration]
    #[arg(short, long, global = true, env = "STRONGROOM_REPO", value_name = "REPO")]
    repo: Option<String>,
    /// Reads the password, or the recovery key, from the first line of FILE
    #[arg(long, global = true, env = "STRONGROOM_PASSWORD_FILE", value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Lets the kernel keep the key of the opened repository for TIME, such as 15m (at most 24h). Until then your
    /// commands with this option need no password and start faster; `strongroom key forget` ends it
    #[arg(long, global = true, env = "STRONGROOM_REMEMBER_KEY", value_name = "TIME")]
    remember_key: Option<Period>,
    /// Reads the configuration from FILE [default: ~/.config/strongroom/strongroom.toml]
    #[arg(long, global = true, env = "STRONGROOM_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Keeps this machine's local state in DIR; deleting it costs time, never data
    /// [default: ~/.local/state/strongroom]
    #[arg(long, global = true, env = "STRONGROOM_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// For a repository on a slow network share: keeps an encrypted copy of what was read in DIR; may be deleted
    /// at any time [default: ~/.cache/strongroom, if --cache-size is given]
    #[arg(long, global = true, env = "STRONGROOM_CACHE_DIR", value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Maximum size of that copy, such as 500M or 20G; 0 for none [default: 4G, if --cache-dir is given]
    #[arg(long, global = true, env = "STRONGROOM_CACHE_SIZE", value_name = "SIZE")]
    cache_size: Option<ByteSize>,
    /// Prints results as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Prints results and errors only: no progress, no remarks
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Prints more: -v what the run does, -vv every item
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// With -vv: messages may name people, folders and subjects; without it they never do
    #[arg(long, global = true)]
    log_content: bool,
}

#[derive(Subcommand)]
enum Command {
    Init(init::Init),
    Backup(backup::Backup),
    Snapshots(snapshots::Snapshots),
    Ls(ls::Ls),
    Cat(cat::Cat),
    Diff(diff::Diff),
    Mount(mount::Mount),
    Webdav(webdav::Webdav),
    Restore(restore::Restore),
    Check(check::Check),
    Stats(stats::Stats),
    Key(key::Key),
    Tenant(tenant::Tenant),
    Completions(generate::Completions),
    Man(generate::Man),
}

/// Stack size of the thread that runs the program. Comparing and checking go down a tree of folders by recursion. The
/// deepest tree that a backup takes needs about 8 MiB in an unoptimised build. Unused memory is only reserved.
const STACK_BYTES: usize = 64 << 20;

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    // The thread has the name of the main thread, whose work it does.
    let large = std::thread::Builder::new().name("main".to_owned()).stack_size(STACK_BYTES).spawn(run_program);
    match large.map(std::thread::JoinHandle::join) {
        Ok(Ok(exit)) => exit,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(_) => run_program(),
    }
}

fn run_program() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            if error.use_stderr() {
                // The error repeats arguments. A shell may have put file names there, which may hold control
                // characters.
                log::usage(&error);
                return ExitCode::from(Exit::Usage as u8);
            }
            let _ = error.print();
            return ExitCode::from(Exit::Done as u8);
        }
    };
    no_core_dumps();
    let log = log::start(&cli.global);
    let session = Session { global: cli.global, settings: OnceCell::new(), log };
    match run(&session, cli.command) {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) => error::report(&error),
    }
}

fn run(session: &Session, command: Command) -> Result<Exit> {
    match command {
        Command::Init(command) => command.run(session),
        Command::Backup(command) => command.run(session),
        Command::Snapshots(command) => command.run(session),
        Command::Ls(command) => command.run(session),
        Command::Cat(command) => command.run(session),
        Command::Diff(command) => command.run(session),
        Command::Mount(command) => command.run(session),
        Command::Webdav(command) => command.run(session),
        Command::Restore(command) => command.run(session),
        Command::Check(command) => command.run(session),
        Command::Stats(command) => command.run(session),
        Command::Key(command) => command.run(session),
        Command::Tenant(command) => command.run(session),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
    }
}

/// Turns core dumps off: a core dump would hold the master key.
fn no_core_dumps() {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
}

/// The options and settings that every command uses.
struct Session {
    global: Global,
    /// Read on the first use: most commands need no configuration.
    settings: OnceCell<Settings>,
    /// The log file that a mount in the background writes to.
    log: log::LogFile,
}

/// Where a repository is, and its settings in the configuration.
struct RepositoryPlace<'a> {
    url: &'a str,
    settings: Option<&'a RepositorySettings>,
}

impl<'a> RepositoryPlace<'a> {
    fn password(&self) -> Option<&'a SecretSource> {
        self.settings?.password.as_ref()
    }
}

impl Session {
    /// Returns whether the command line or the environment names a repository.
    fn asks_for_a_repository(&self) -> bool {
        self.global.repo.is_some()
    }

    /// Returns the same session with the repository of this name in the configuration.
    fn with_repository(&self, name: &str) -> Session {
        Session {
            global: Global { repo: Some(name.to_owned()), ..self.global.clone() },
            settings: OnceCell::new(),
            log: self.log.clone(),
        }
    }

    fn output(&self) -> Output {
        Output { json: self.global.json, quiet: self.global.quiet }
    }

    /// Returns the configuration. It is empty if no file is named and the default file does not exist.
    fn settings(&self) -> Result<&Settings> {
        if let Some(settings) = self.settings.get() {
            return Ok(settings);
        }
        let settings = match &self.global.config {
            Some(file) => Settings::read(&absolute(file)?)?,
            None => Settings::read_default()?,
        };
        Ok(self.settings.get_or_init(|| settings))
    }

    fn place(&self) -> Result<RepositoryPlace<'_>> {
        let asked = self.global.repo.as_deref();
        if let Some(path) = asked.filter(|asked| asked.contains('/')) {
            return Ok(RepositoryPlace { url: path, settings: None });
        }
        let known = &self.settings()?.repositories;
        let named = match asked {
            Some(name) => known.get(name),
            None => match known.len() {
                0 => return Err(UsageError::NoRepository.into()),
                1 => known.values().next(),
                _ => return Err(UsageError::WhichRepository(known.keys().cloned().collect()).into()),
            },
        };
        let url = named.map_or(asked.unwrap_or_default(), |settings| &settings.url);
        Ok(RepositoryPlace { url, settings: named })
    }

    /// Returns the folder of the repository.
    fn repository_path(&self) -> Result<PathBuf> {
        let url = self.place()?.url;
        match url.split_once("://") {
            None => Ok(PathBuf::from(url)),
            Some(("file", path)) => Ok(PathBuf::from(path)),
            Some((scheme, _)) => Err(UsageError::Scheme(scheme.to_owned()).into()),
        }
    }

    /// Returns the password of an existing repository.
    fn password(&self) -> Result<secret::Secret> {
        secret::password(&self.global, self.place()?.password(), "Password of the repository")
    }

    /// Returns the options of the cache, if one is wanted. By default there is none, because a repository is usually as
    /// near as its cache would be.
    fn cache(&self) -> Result<Option<CacheOptions>> {
        let settings = self.place()?.settings;
        let folder = self.global.cache_dir.clone().or_else(|| settings?.cache_dir.clone());
        let size = self.global.cache_size.or_else(|| settings?.cache_size);
        if (folder.is_none() && size.is_none()) || size == Some(ByteSize(0)) {
            return Ok(None);
        }
        let folder = match folder {
            Some(folder) => absolute(&folder)?,
            None => home_folder("XDG_CACHE_HOME", ".cache").ok_or(UsageError::NoCacheDir)?,
        };
        let bytes_max = size.unwrap_or(CACHE_SIZE_DEFAULT).0;
        if bytes_max < CACHE_SIZE_MIN.0 {
            return Err(UsageError::CacheSize(bytes_max).into());
        }
        if canonical(&folder).starts_with(canonical(&self.repository_path()?)) {
            return Err(UsageError::CacheInRepository(folder).into());
        }
        Ok(Some(CacheOptions { folder, bytes_max }))
    }

    /// Returns the storage of the repository, with its cache if one is wanted.
    fn backend(&self) -> Result<Arc<dyn Backend>> {
        let stored = self.stored()?;
        Ok(match self.cache()? {
            Some(options) => Arc::new(Cached::new(stored, &options)),
            None => stored,
        })
    }

    /// Returns the storage of the repository, without a cache.
    fn stored(&self) -> Result<Arc<dyn Backend>> {
        let path = self.repository_path()?;
        match Local::open(&path) {
            Ok(local) => Ok(Arc::new(local)),
            Err(BackendError::NoFolder { path }) => {
                Err(RepositoryError::NoRepository { place: path.display().to_string() }.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn open(&self) -> Result<Arc<Repository>> {
        self.open_at(self.backend()?)
    }

    /// Opens the repository without a cache, for commands that must see what is really stored.
    fn open_stored(&self) -> Result<Arc<Repository>> {
        self.open_at(self.stored()?)
    }

    fn open_at(&self, backend: Arc<dyn Backend>) -> Result<Arc<Repository>> {
        let place = backend.describe();
        let opening = || format!("could not open the repository at {place}");
        // Finds out first whether there is a repository, before anybody is asked for a password.
        let found = match Repository::find(backend) {
            Err(error @ RepositoryError::NoRepository { .. }) => return Err(error.into()),
            found => found.with_context(opening)?,
        };
        let period = self.global.remember_key.or(self.place()?.settings.and_then(|settings| settings.remember_key));
        let remembered = period.map(|period| (RememberedKey::of(found.id()), period));
        if let Some((remembered, _)) = &remembered
            && let Some(key) = remembered.get()
            && let Some(repository) = found.open_again(&key).with_context(opening)?
        {
            return Ok(Arc::new(repository));
        }
        let secret = self.password()?;
        let repository = found.open(&secret).with_context(opening)?;
        if let Some((remembered, period)) = remembered
            && let Err(error) = remembered.keep(&repository.handover(), period.0)
        {
            tracing::warn!("the key is not remembered: {error:#}");
        }
        Ok(Arc::new(repository))
    }

    /// Returns the place where the kernel keeps this repository's key.
    fn remembered(&self) -> Result<RememberedKey> {
        let found = Repository::find(self.stored()?)?;
        Ok(RememberedKey::of(found.id()))
    }

    fn state_dir(&self) -> Result<PathBuf> {
        if let Some(dir) = &self.global.state_dir {
            return Ok(dir.clone());
        }
        home_folder("XDG_STATE_HOME", ".local/state").ok_or_else(|| UsageError::NoStateDir.into())
    }

    /// Returns the folder of the local state, and makes it if it does not exist. It belongs to this user, and
    /// everything in it is private to this user. For all commands that write there.
    fn own_state_dir(&self) -> Result<PathBuf> {
        let dir = absolute(&self.state_dir()?)?;
        // A folder that the user has named may have other uses too, so it keeps its permissions.
        let made = match &self.global.state_dir {
            Some(_) => local_files::own_folder(&dir),
            None => local_files::private_folder(&dir),
        };
        made.with_context(|| format!("could not use the folder {} for the local state", dir.display()))?;
        Ok(dir)
    }

    /// Returns the folder of this machine's state of `repository`, and makes it if it does not exist.
    fn repository_state(&self, repository: &Repository) -> Result<PathBuf> {
        let dir = self.own_state_dir()?.join(repository.id().to_string());
        local_files::private_folder(&dir)
            .with_context(|| format!("could not use the folder {} for the local state", dir.display()))?;
        Ok(dir)
    }

    /// Returns a warning if something that this machine has seen is gone from the repository. Says nothing if the local
    /// state cannot be read.
    fn warning_of_missing(&self, repository: &Repository) -> Result<Option<String>> {
        let remembered = LocalState::peek(&self.state_dir()?, repository.id());
        Ok(repository.missing(&remembered)?.warning())
    }

    fn local_state(&self, repository: &Repository) -> Result<LocalState> {
        Ok(LocalState::open(&self.own_state_dir()?, repository).map_err(RepositoryError::from)?)
    }
}

/// Resolves the links in `path`. The end of the path need not exist.
fn canonical(path: &Path) -> PathBuf {
    let there =
        path.ancestors().find_map(|there| Some(there.canonicalize().ok()?.join(path.strip_prefix(there).ok()?)));
    there.unwrap_or_else(|| path.to_owned())
}

/// Returns our folder in the folder that the environment variable names, or else in `below` of the home folder.
fn home_folder(variable: &str, below: &str) -> Option<PathBuf> {
    let from_env = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = from_env(variable).or_else(|| from_env("HOME").map(|home| home.join(below)));
    base.map(|base| base.join("strongroom"))
}

/// Creates a reader that needs no local state.
fn reader(repository: &Arc<Repository>) -> Arc<Reader> {
    repository.reader(Box::new(IndexSearch::new(repository.clone())), CacheSizes::default()).reading_ahead()
}

/// Returns the absolute path. The path need not exist.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("could not find the folder {}", path.display()))
}

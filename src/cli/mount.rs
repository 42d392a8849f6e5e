//! `strongroom mount`
//!
//! Without `--foreground` the command starts a second process of itself in a new session. It hands the key to that
//! process through a pipe, because trying the password again would take most of the time of mounting. It returns when
//! the second process says that the folder is ready. So an error of mounting is an error of the command.

use super::error::{Exit, Unsuitable, UsageError};
use super::{Session, absolute, allocator, canonical, outbox, output, reader};
use crate::outbox::jobs::Counts;
use crate::outbox::{RunningOutbox, history};
use crate::repository::Repository;
use crate::repository::reader::{Reader, Traffic};
use crate::repository::select::{self, Selected};
use crate::view::{self, RepositoryCatalog, SnapshotView};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use strongroom_mount::{Mounted, Options, Side, Target, Unmounted};
use zeroize::Zeroizing;

/// The line that the process in the background prints when the folder is ready.
const READY: &str = "ready";
/// Capacity of the buffer for the handed-over key. The buffer never grows, because growing would leave a copy of the
/// key in freed memory.
const HANDOVER_LEN_MAX: usize = 4096;

/// Shows all snapshots, or one, as ordinary folders
#[derive(Args)]
#[command(
    after_help = "Examples:\n  strongroom mount /mnt/backup\n  ls /mnt/backup/latest\n  rg Invoice /mnt/backup/text\n  \
    strongroom mount /mnt/backup --snapshot latest:mail --foreground\n  strongroom mount /mnt/backup --restore\n  \
    cp '/mnt/backup/latest/Users/alice@contoso.com/Outlook/Inbox/'*Budget*.eml /mnt/backup/restore/original/\n\n\
    To unmount: `fusermount3 -u /mnt/backup`, or Ctrl-C with --foreground."
)]
pub struct Mount {
    /// The folder to mount on; it must exist and be empty
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Mounts only this snapshot, with its root at DIR
    #[arg(long, value_name = "SNAPSHOT")]
    snapshot: Option<OsString>,
    /// How to show the items: as they are (eml), as the text of the mails for `grep` (text), in both ways
    /// (both), by year and month (by-month), or as Maildir for mail programs (maildir) [default: both; with
    /// --snapshot eml]
    #[arg(long, value_enum, value_name = "LAYOUT")]
    layout: Option<Layout>,
    /// Adds the folder `restore`. Mails that you copy there are restored: to a mailbox of an organisation in
    /// the configuration, or to where they came from
    #[arg(long, conflicts_with = "snapshot")]
    restore: bool,
    /// In `restore`, `close` and `fsync` return only when the file is restored
    #[arg(long, requires = "restore")]
    restore_sync: bool,
    /// Lets other users read the mount
    #[arg(long)]
    allow_other: bool,
    /// Shows subject, sender and more as extended attributes; `ls -l` then takes two more requests for each file
    #[arg(long)]
    xattr: bool,
    /// Runs in the foreground until the folder is unmounted
    #[arg(long)]
    foreground: bool,
    /// Runs as the process in the background; the key comes through standard input
    #[arg(long, hide = true)]
    background: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Layout {
    Eml,
    Text,
    Both,
    ByMonth,
    Maildir,
}

impl From<Layout> for view::Layout {
    fn from(layout: Layout) -> Self {
        match layout {
            Layout::Eml => view::Layout::Items,
            Layout::Text => view::Layout::Text,
            Layout::Both => view::Layout::Both,
            Layout::ByMonth => view::Layout::ByMonth,
            Layout::Maildir => view::Layout::Maildir,
        }
    }
}

impl Mount {
    pub fn run(self, session: &Session) -> Result<Exit> {
        allocator::bound();
        if !self.foreground && !self.background {
            return self.start_background(session);
        }
        let repository = match self.background {
            true => {
                rustix::process::setsid().context("could not leave the terminal's session")?;
                let mut handover = Zeroizing::new(Vec::with_capacity(HANDOVER_LEN_MAX));
                std::io::stdin().read_to_end(&mut handover).context("could not read the key")?;
                Arc::new(Repository::open_handed_over(session.backend()?, &handover)?)
            }
            false => {
                let repository = session.open()?;
                warn_of_missing(session, &repository)?;
                repository
            }
        };
        self.keep_off_repository(session)?;
        let reader = reader(&repository);
        let outbox = match self.restore {
            true => Some(outbox::start(session, &repository, &reader, self.restore_sync)?),
            false => None,
        };
        let target = self.target(&repository, reader.clone(), outbox.as_ref())?;
        let options = Options { allow_other: self.allow_other, xattr: self.xattr, ..Options::default() };
        // Before mounting, because a signal in between would end the process and leave the mount.
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let mounted = strongroom_mount::mount(target, &absolute(&self.dir)?, &options)
            .with_context(|| format!("could not mount at {}", self.dir.display()))?;
        let unmounter = mounted.unmounter();
        std::thread::spawn(move || {
            for _ in signals.forever() {
                match unmounter.unmount() {
                    Ok(Unmounted::Detached) => {
                        tracing::warn!("files are still open; the mount goes when they are closed")
                    }
                    Ok(_) => {}
                    Err(error) => tracing::error!(%error, "could not unmount"),
                }
            }
        });
        self.announce(session, &repository, &mounted)?;
        mounted.wait();
        if let Some(outbox) = outbox {
            tell_what_is_left(session, &outbox.stop());
        }
        let Traffic { decoded, delivered } = reader.traffic();
        tracing::info!(requests = %mounted.requests(), decoded, delivered, "the mount has ended");
        Ok(Exit::Done)
    }

    /// Refuses a mount point that would hide the repository or the cache: the mount would then read from itself.
    fn keep_off_repository(&self, session: &Session) -> Result<()> {
        // If the folder does not exist, mounting it gives the error.
        let Ok(at) = self.dir.canonicalize() else { return Ok(()) };
        let cache = session.cache()?.map(|cache| cache.folder);
        let places = [(Some(session.repository_path()?), "repository"), (cache, "cache")];
        for (path, what) in places {
            let Some(path) = path.as_deref().map(canonical) else { continue };
            if path.starts_with(&at) || at.starts_with(&path) {
                return Err(Unsuitable { at, what }.into());
            }
        }
        Ok(())
    }

    fn target(
        &self,
        repository: &Arc<Repository>,
        reader: Arc<Reader>,
        outbox: Option<&RunningOutbox>,
    ) -> Result<Target> {
        let Some(asked) = &self.snapshot else {
            let layout = self.layout.unwrap_or(Layout::Both).into();
            let at = Some(absolute(&self.dir)?);
            let catalog = Arc::new(RepositoryCatalog::new(repository.clone(), reader, layout, at));
            return Ok(match outbox {
                Some(outbox) => Target::Restoring(catalog, outbox.outbox()),
                None => Target::Catalog(catalog),
            });
        };
        let (layout, side) = match self.layout.unwrap_or(Layout::Eml) {
            Layout::Both => {
                let text = "`--layout both` shows all snapshots; choose another layout with `--snapshot`";
                return Err(UsageError::Other(text.to_owned()).into());
            }
            Layout::Text => (Layout::Text, Side::Text),
            layout => (layout, Side::Items),
        };
        let selected = one_snapshot(repository, asked)?;
        let items = SnapshotView::new(reader, selected.id, selected.snapshot);
        Ok(Target::View(view::Layout::from(layout).view(items, side)))
    }

    fn announce(&self, session: &Session, repository: &Repository, mounted: &Mounted) -> Result<()> {
        if !self.background {
            if self.restore {
                tell_what_goes_on(session, repository)?;
            }
            let dir = mounted.path().display();
            session.output().remark(format_args!("Mounted at {dir}; Ctrl-C or `fusermount3 -u {dir}` unmounts"));
            return Ok(());
        }
        // From here on nobody reads our output, so errors go to a log.
        let log = log_path(session, repository)?;
        let writing = || format!("could not write the log {}", log.display());
        session.log.lead_to(log.clone()).with_context(writing)?;
        println!("{READY}");
        std::io::stdout().flush()?;
        let nothing = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(&nothing)?;
        Ok(rustix::stdio::dup2_stdin(&nothing)?)
    }

    fn start_background(&self, session: &Session) -> Result<Exit> {
        let repository = session.open()?;
        warn_of_missing(session, &repository)?;
        if self.restore {
            // Errors in the configuration are reported before the second process starts.
            outbox::organisations(session)?;
        }
        let mut child = self
            .background_command(session)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("could not start the process in the background")?;
        // The key goes only through the pipe.
        let handover = repository.handover();
        child.stdin.take().expect("piped above").write_all(&handover).context("could not hand over the key")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped above")).read_line(&mut line)?;
        if line.trim_end() != READY {
            let status = child.wait()?;
            // The second process has printed the reason.
            return match status.code() {
                Some(2) => Ok(Exit::Usage),
                Some(11) => Ok(Exit::Locked),
                Some(13) => Ok(Exit::Damaged),
                Some(_) => Ok(Exit::Failed),
                None => bail!("the process in the background was killed"),
            };
        }
        let dir = absolute(&self.dir)?;
        let log = log_path(session, &repository)?;
        if self.restore {
            tell_what_goes_on(session, &repository)?;
        }
        session.output().remark(format_args!(
            "Mounted at {dir}; `fusermount3 -u {dir}` unmounts; messages go to {log}",
            dir = output::path(dir.as_os_str().as_bytes()),
            log = log.display()
        ));
        Ok(Exit::Done)
    }

    /// Returns the command of the process that serves the mount in the background, with all options of this one.
    fn background_command(&self, session: &Session) -> Result<Command> {
        let program = std::env::current_exe().context("could not find the program itself")?;
        let mut command = Command::new(program);
        command.arg("mount").arg(absolute(&self.dir)?).arg("--background");
        command.arg("--repo").arg(absolute(&session.repository_path()?)?);
        command.arg("--state-dir").arg(session.own_state_dir()?);
        // The second process gets the repository as a path, so it does not find the cache settings in the
        // configuration.
        match session.cache()? {
            Some(cache) => {
                command.arg("--cache-dir").arg(cache.folder).arg("--cache-size").arg(cache.bytes_max.to_string());
            }
            None => _ = command.args(["--cache-size", "0"]),
        }
        command.args(self.snapshot.iter().flat_map(|snapshot| [OsString::from("--snapshot"), snapshot.clone()]));
        let layout = self.layout.as_ref().and_then(Layout::to_possible_value);
        command.args(layout.iter().flat_map(|layout| ["--layout", layout.get_name()]));
        if let Some(file) = &session.global.config {
            command.arg("--config").arg(absolute(file)?);
        }
        let flags = [
            (self.restore, "--restore"),
            (self.restore_sync, "--restore-sync"),
            (self.allow_other, "--allow-other"),
            (self.xattr, "--xattr"),
            (session.global.quiet, "--quiet"),
            (session.global.log_content, "--log-content"),
        ];
        command.args(flags.iter().filter(|(given, _)| *given).map(|(_, flag)| *flag));
        command.args((0..session.global.verbose).map(|_| "-v"));
        // The second process gets no password. The working folder changes, so that it does not keep the caller's
        // folder busy.
        command.env_remove("STRONGROOM_PASSWORD").env_remove("STRONGROOM_PASSWORD_FILE").current_dir("/");
        Ok(command)
    }
}

/// Warns if the repository was put back to an earlier state, as far as this machine can tell.
pub fn warn_of_missing(session: &Session, repository: &Repository) -> Result<()> {
    if let Some(warning) = session.warning_of_missing(repository)? {
        output::message(format_args!("warning: {warning}"));
    }
    Ok(())
}

/// Says how many files an earlier mount left; they go on now.
fn tell_what_goes_on(session: &Session, repository: &Repository) -> Result<()> {
    let jobs = history(&outbox::folder(session, repository)?, repository)
        .context("could not read the list of dropped files")?;
    let mut counts = Counts::default();
    jobs.values().flatten().for_each(|file| counts.add(&file.fate));
    if counts.queued > 0 {
        session.output().remark(format_args!("restoring {} files that were dropped before", counts.queued));
    }
    if counts.waiting > 0 {
        session.output().remark(format_args!("{} files wait for `strongroom restore commit`", counts.waiting));
    }
    Ok(())
}

/// Says how many dropped files are not restored yet.
fn tell_what_is_left(session: &Session, counts: &Counts) {
    if counts.queued > 0 {
        let text = "files are not restored yet; the next `mount --restore`, or `strongroom restore commit`, goes on";
        session.output().remark(format_args!("{} {text}", counts.queued));
    }
    if counts.waiting > 0 {
        let text = "files wait for `strongroom restore commit`";
        session.output().remark(format_args!("{} {text}", counts.waiting));
    }
}

/// Returns the snapshot that `--snapshot` names.
pub fn one_snapshot(repository: &Repository, asked: &OsStr) -> Result<Selected> {
    let selected = select::select(repository, asked.as_bytes())?;
    if !selected.path.is_empty() {
        // If there is no set NAME, `latest:NAME` is the snapshot `latest` with the path NAME.
        let path = output::path(&selected.path);
        let text = format!("--snapshot takes a snapshot without a path, and there is no set called {path:?}");
        return Err(UsageError::Other(text).into());
    }
    Ok(selected)
}

fn log_path(session: &Session, repository: &Repository) -> Result<PathBuf> {
    Ok(session.repository_state(repository)?.join("mount.log"))
}

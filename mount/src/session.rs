//! From mounting to unmounting: prepares the mount point, starts the threads, watches the catalog, and unmounts.
//!
//! The threads of a mount are: [`Options::threads`] threads that serve requests; one that waits for their end; with a
//! catalog, one that asks it for changes and tells the kernel; with an outbox, one that does the same for it, and the
//! threads of `workers`. A thread that notifies the kernel must hold no lock: the kernel may have to wait for a request
//! that another thread is serving.

use crate::catalog::Changes;
use crate::fs::{Fs, Presentation, Target};
use crate::fuse::Adapter;
use crate::guard::Guard;
use crate::inode::fixed;
use crate::live::{Changed, Live};
use crate::mount_error::MountError;
use crate::mountpoint::{self, Device, FS_NAME};
use crate::requests::Requests;
use crate::view::Side;
use fuser::{Config, INodeNo, MountOption, Notifier, Session, SessionACL};
use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long unmounting waits for a busy mount before it detaches the mount.
const BUSY_RETRY_MS: u64 = 1000;
const BUSY_RETRY_DELAY_MS: u64 = 50;
/// How long unmounting waits for the serving threads to end.
const SESSION_END_MS_MAX: u64 = 2000;
/// The pause after listing the snapshots is this many times as long as the listing took, up to [`PAUSE_MAX`]. So a
/// listing with a million junk objects does not keep a processor busy.
const PAUSE_PER_LISTING: u32 = 4;
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Read-ahead in KiB: the size of the largest request. More gains nothing; the default of 128 halves the speed of large
/// files.
const READ_AHEAD_KIB: u32 = 1024;

/// Which owner the files show.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Owner {
    /// The stored owner if root mounts, otherwise the mounting user.
    #[default]
    Automatic,
    /// The owner and group stored in the snapshot.
    Stored,
    /// The mounting user. Adds the owner's permission to read to the stored permissions.
    MountingUser,
}

/// Options of a mount.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether other users may access the mount, as far as the permissions allow. Otherwise only the mounting user may.
    pub allow_other: bool,
    /// Whether extended attributes are shown. They cost `ls -l` two more requests per file.
    pub xattr: bool,
    /// Which owner the files show.
    pub owner: Owner,
    /// Number of threads that serve requests.
    pub threads: usize,
    /// How often the catalog and the outbox are asked for changes.
    pub poll_interval: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            allow_other: false,
            xattr: false,
            owner: Owner::Automatic,
            threads: 2,
            poll_interval: Duration::from_secs(1),
        }
    }
}

/// Result of unmounting.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unmounted {
    /// The mount was not in use, or was already gone.
    Clean,
    /// The mount was in use, so it was only detached from the tree. Files that are open in it can be read while this
    /// process lives.
    Detached,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Serving,
    Detached,
    Ended,
}

struct Shared {
    path: PathBuf,
    /// Distinguishes this mount from another mount at the same path.
    device: Option<Device>,
    state: Mutex<State>,
    changed: Condvar,
    /// Held while unmounting, so that only one thread unmounts at a time.
    unmounting: Mutex<Option<Guard>>,
}

/// A mount. Dropping it unmounts it.
pub struct Mounted {
    shared: Arc<Shared>,
    session: Option<JoinHandle<()>>,
    watcher: Option<JoinHandle<()>>,
    requests: Arc<Requests>,
}

/// Unmounts from any thread, such as one that waits for signals.
#[derive(Clone)]
pub struct Unmounter(Arc<Shared>);

/// Mounts `target` at the existing folder `at`, and returns when the mount is usable.
///
/// The mount ends when [`Mounted`] is dropped, when somebody unmounts it from outside, and when the process dies in any
/// way. It does not survive a `fork` after which the parent exits: fork first, then mount.
///
/// # Errors
/// A [`MountError`], whose [`hint`](MountError::hint) tells the user what to do.
pub fn mount(target: Target, at: &Path, options: &Options) -> Result<Mounted, MountError> {
    let path = mountpoint::prepare(at)?;
    if !Path::new("/dev/fuse").exists() {
        return Err(MountError::NoFuse);
    }
    let has_catalog = matches!(target, Target::Catalog(_) | Target::Restoring(..));
    let outbox = if let Target::Restoring(_, outbox) = &target { Some(outbox.clone()) } else { None };
    let live = outbox.map(|outbox| Arc::new(Live::new(outbox, mounting_user())));
    let fs = Fs::new(target, presentation(options)).map_err(|source| MountError::Catalog { source })?;
    let fs = Arc::new(fs);
    let requests = Arc::new(Requests::default());
    let adapter = Adapter::new(fs.clone(), live.clone(), requests.clone())
        .map_err(|source| MountError::Failed { path: path.clone(), source })?;

    // Start the guard before mounting, so that the mount is never without one.
    let guard = Guard::start(&path)
        .inspect_err(
            |error| tracing::warn!(%error, "no mount guard: if this process is killed, the mount stays behind"),
        )
        .ok();
    let session = match Session::new(adapter, &path, &config(options, live.is_none())) {
        Ok(session) => session,
        Err(source) => {
            if let Some(guard) = guard {
                guard.release();
            }
            return Err(not_mounted(path, source));
        }
    };

    let device = mountpoint::device_at(&path);
    raise_read_ahead(device.as_ref());
    let notifier = session.notifier();
    let shared = Arc::new(Shared {
        path,
        device,
        state: Mutex::new(State::Serving),
        changed: Condvar::new(),
        unmounting: Mutex::new(guard),
    });
    let mut mounted = Mounted { shared: shared.clone(), session: None, watcher: None, requests };
    let serve = {
        let shared = shared.clone();
        move || shared.serve(session)
    };
    mounted.session = Some(spawn("mount", &shared, serve)?);
    if has_catalog {
        let interval = options.poll_interval;
        if let Some(live) = live {
            let (watching, notifier) = (shared.clone(), notifier.clone());
            // No thread waits for its end, because it may be waiting for the network.
            spawn("mount-news", &shared, move || watching.watch_outbox(&live, &notifier, interval))?;
        }
        let watching = shared.clone();
        mounted.watcher = Some(spawn("mount-watch", &shared, move || watching.watch(&fs, &notifier, interval))?);
    }
    Ok(mounted)
}

/// Starts a thread of a mount.
fn spawn<T: Send + 'static>(
    name: &str,
    shared: &Shared,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<thread::JoinHandle<T>, MountError> {
    let failed = |source| MountError::Failed { path: shared.path.clone(), source };
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(failed)
}

fn mounting_user() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

fn shows_stored_owner(options: &Options) -> bool {
    match options.owner {
        Owner::Stored => true,
        Owner::MountingUser => false,
        Owner::Automatic => rustix::process::geteuid().is_root(),
    }
}

fn presentation(options: &Options) -> Presentation {
    let user = mounting_user();
    Presentation { owner: (!shows_stored_owner(options)).then_some(user), mounted_by: user, xattr: options.xattr }
}

fn config(options: &Options, read_only: bool) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(FS_NAME.to_owned()),
        // Not MountOption::Subtype, because fuser drops that if it mounts without fusermount3.
        MountOption::CUSTOM(format!("subtype={FS_NAME}")),
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
    ];
    // A mount with `restore/` must be writable. It refuses writes elsewhere by itself.
    config.mount_options.push(if read_only { MountOption::RO } else { MountOption::RW });
    // The kernel's own permission check costs no request and answers `test -x` correctly. Without it, everybody who can
    // access the mount can read everything. It is off only if a user other than root asked for the stored owners on a
    // private mount.
    let own_check = options.allow_other || !shows_stored_owner(options) || rustix::process::geteuid().is_root();
    if own_check {
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(options.threads.max(1));
    config.clone_fd = options.threads > 1;
    config
}

fn not_mounted(path: PathBuf, source: io::Error) -> MountError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => MountError::NotPermitted { path, source },
        _ => MountError::Failed { path, source },
    }
}

/// Sets the kernel's read-ahead to the size of the largest request. Only root may do that; without it, large files are
/// read at half the speed.
fn raise_read_ahead(device: Option<&Device>) {
    let Some(device) = device else { return };
    let file = format!("/sys/class/bdi/{}/read_ahead_kb", device.0);
    if let Err(error) = std::fs::write(&file, READ_AHEAD_KIB.to_string()) {
        tracing::debug!(%error, file, "read-ahead stays as it is");
    }
}

impl Shared {
    /// Serves requests until the mount is gone.
    fn serve(&self, session: Session<Adapter>) {
        if let Err(error) = session.run() {
            tracing::error!(%error, "serving the mount ended");
        }
        // If serving ended while still mounted (somebody aborted the connection), detach, or a dead mount would stay
        // behind.
        if self.is_mounted()
            && let Err(error) = mountpoint::detach(&self.path)
        {
            tracing::error!(%error, path = %self.path.display(), "could not detach the dead mount");
        }
        self.become_state(State::Ended);
    }

    fn is_mounted(&self) -> bool {
        self.device.is_some() && mountpoint::device_at(&self.path) == self.device
    }

    fn become_state(&self, state: State) {
        let mut current = self.state.lock();
        // `Ended` is final.
        if *current != State::Ended {
            *current = state;
        }
        self.changed.notify_all();
    }

    /// Waits until the mount is no longer in the tree, or until `deadline`. Returns the state at that time.
    fn wait(&self, deadline: Option<Instant>) -> State {
        let mut state = self.state.lock();
        while *state == State::Serving {
            match deadline {
                Some(deadline) if self.changed.wait_until(&mut state, deadline).timed_out() => break,
                Some(_) => {}
                None => self.changed.wait(&mut state),
            }
        }
        *state
    }

    fn unmount(&self) -> Result<Unmounted, MountError> {
        let mut guard = self.unmounting.lock();
        let result = self.unmount_once();
        if result.is_ok()
            && let Some(guard) = guard.take()
        {
            guard.release();
        }
        result
    }

    fn unmount_once(&self) -> Result<Unmounted, MountError> {
        let deadline = Instant::now() + Duration::from_millis(BUSY_RETRY_MS);
        while self.is_mounted() {
            match mountpoint::unmount(&self.path) {
                Ok(()) => break,
                Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(BUSY_RETRY_DELAY_MS));
                }
                Err(error) => {
                    tracing::warn!(%error, path = %self.path.display(), "the mount is in use, detaching it");
                    mountpoint::detach(&self.path)
                        .map_err(|source| MountError::Unmount { path: self.path.clone(), source })?;
                    self.become_state(State::Detached);
                    return Ok(Unmounted::Detached);
                }
            }
        }
        // The mount is no longer in the tree. If somebody else detached it while files are open, the session continues.
        let deadline = Instant::now() + Duration::from_millis(SESSION_END_MS_MAX);
        if self.wait(Some(deadline)) == State::Ended {
            return Ok(Unmounted::Clean);
        }
        self.become_state(State::Detached);
        Ok(Unmounted::Detached)
    }

    /// Asks the outbox for changes until the mount ends, and tells the kernel about them.
    fn watch_outbox(&self, live: &Live, notifier: &Notifier, interval: Duration) {
        while self.wait(Some(Instant::now() + interval)) == State::Serving {
            let changes = catch_unwind(AssertUnwindSafe(|| live.take_changes())).unwrap_or_else(|_| {
                tracing::error!(call = "take_changes", "the outbox panicked");
                Vec::new()
            });
            for changed in changes {
                if let Err(error) = invalidate_live(notifier, &changed) {
                    tracing::debug!(%error, "the kernel was not told of a change");
                }
            }
        }
    }

    /// Asks the catalog for changes until the mount ends, and tells the kernel about them.
    fn watch(&self, fs: &Fs, notifier: &Notifier, interval: Duration) {
        let mut told = Changes::default();
        let mut pause = interval;
        while self.wait(Some(Instant::now() + pause)) == State::Serving {
            let begun = Instant::now();
            // A failure was already logged by the listing.
            let changes = fs.refresh().unwrap_or_default();
            pause = interval.max(PAUSE_MAX.min(begun.elapsed() * PAUSE_PER_LISTING));
            // Tell the kernel each change a second time, one interval later: an answer from before the change may have
            // reached the kernel's cache only after the first notification.
            let again = std::mem::replace(&mut told, changes.clone());
            for changes in [again, changes].iter().filter(|changes| !changes.is_empty()) {
                if let Err(error) = invalidate(notifier, changes) {
                    tracing::debug!(%error, "the kernel was not told of a change");
                }
            }
        }
    }
}

/// Makes the kernel drop its cached data about a file or folder below `restore/`.
fn invalidate_live(notifier: &Notifier, changed: &Changed) -> io::Result<()> {
    notifier.inval_inode(INodeNo(changed.ino.0), 0, 0)?;
    match &changed.name {
        Some((folder, name)) => notifier.inval_entry(INodeNo(folder.0), OsStr::from_bytes(name)),
        None => Ok(()),
    }
}

/// Makes the kernel drop its cached data about the changed names and about the folders that contain them.
fn invalidate(notifier: &Notifier, changes: &Changes) -> io::Result<()> {
    let [root, latest, readme] = [fixed::ROOT, fixed::LATEST, fixed::README].map(|ino| INodeNo(ino.0));
    let side_folders = Side::ALL.map(|side| INodeNo(fixed::side_folder(side).0));
    // First the listings and attributes of the folders, so that no new lookup relies on them.
    for folder in side_folders.into_iter().chain([root, readme]) {
        notifier.inval_inode(folder, 0, 0)?;
    }
    for folder in side_folders {
        for name in &changes.names {
            notifier.inval_entry(folder, OsStr::new(name))?;
        }
    }
    if changes.latest {
        notifier.inval_inode(latest, 0, 0)?;
        notifier.inval_entry(root, OsStr::new("latest"))?;
    }
    Ok(())
}

impl Mounted {
    /// Waits until the mount is gone: unmounted from outside, or by an [`Unmounter`].
    pub fn wait(&self) {
        self.shared.wait(None);
    }

    /// Unmounts. If the mount is in use, waits up to a second for it to become free, and then detaches it.
    ///
    /// # Errors
    /// [`MountError::Unmount`] if the system refuses both.
    pub fn unmount(self) -> Result<Unmounted, MountError> {
        self.shared.unmount()
    }

    /// Returns a handle with which another thread can unmount.
    pub fn unmounter(&self) -> Unmounter {
        Unmounter(self.shared.clone())
    }

    /// Returns the mount point, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Returns the counts of requests that the kernel has sent so far.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }
}

impl Unmounter {
    /// The same as [`Mounted::unmount`]. Calling it again has no effect.
    ///
    /// # Errors
    /// [`MountError::Unmount`] if the system refuses.
    pub fn unmount(&self) -> Result<Unmounted, MountError> {
        self.0.unmount()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.shared.unmount() {
            tracing::error!(error = &error as &dyn std::error::Error, "unmounting failed");
            return;
        }
        let detached = *self.shared.state.lock() == State::Detached;
        for thread in [self.watcher.take(), self.session.take()].into_iter().flatten() {
            // A detached mount is served until the last open file is closed. This thread does not wait for that.
            if !detached {
                // Ignore errors: the threads do not panic, and if one did, nothing is left to do.
                let _ = thread.join();
            }
        }
    }
}

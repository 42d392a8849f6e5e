//! Serves immutable trees as a FUSE file system. Knows nothing of repositories.
//!
//! The modules, in the order in which a request passes them:
//!
//! - `session` mounts, watches the catalog and unmounts; `mountpoint` finds out what is mounted where; `guard` removes
//!   the mount if the process dies.
//! - `fuse` decodes the kernel's requests and replies; `requests` counts them.
//! - [`fs`] is the file system itself, as functions that need no mount; `catalog` manages the folder `snapshots`.
//! - `live` is the tree below `restore/`; `workers` are the threads that serve it, because it may wait for a network.
//! - [`inode`] computes inode numbers; [`error`] holds the only mapping to errno.
//! - `view` has the traits [`View`] and [`Catalog`], which provide the snapshots; `outbox` has the trait [`Outbox`],
//!   which takes dropped files.
//!
//! docs/semantics.md says what each file operation promises.
//!
//! ```no_run
//! # fn example(catalog: std::sync::Arc<dyn strongroom_mount::Catalog>) -> Result<(), strongroom_mount::MountError> {
//! use strongroom_mount::{Options, Target, mount};
//!
//! let mounted = mount(Target::Catalog(catalog), "/mnt/backup".as_ref(), &Options::default())?;
//! let unmounter = mounted.unmounter(); // for the thread that waits for signals
//! mounted.wait();
//! # drop(unmounter);
//! # Ok(())
//! # }
//! ```

mod catalog;
pub mod error;
pub mod fs;
mod fuse;
mod guard;
pub mod inode;
mod live;
mod mount_error;
mod mountpoint;
mod outbox;
mod requests;
mod session;
mod view;
mod workers;

pub use catalog::Changes;
pub use fs::Target;
pub use mount_error::MountError;
pub use mountpoint::{is_own_device, is_own_mount};
pub use outbox::{Draft, Item, ItemKind, Outbox, OutboxError, State};
pub use requests::{Operation, Requests};
pub use session::{Mounted, Options, Owner, Unmounted, Unmounter, mount};
pub use view::{Attr, Catalog, Kind, READ_SIZE_BYTES_MAX, Rank, Side, SnapshotInfo, Time, Totals, View, ViewError};

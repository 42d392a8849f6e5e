//! What `-V` and `--version` say. The build script finds out the commit and the target.

/// What this build can do, in words that a script may look for.
macro_rules! features {
    () => {
        "microsoft365-mail, files, maildir, mbox, mount, restore, webdav"
    };
}

/// The version alone: `-V`.
pub const SHORT: &str = env!("CARGO_PKG_VERSION");

/// Everything a bug report needs: `--version`.
pub const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("STRONGROOM_BUILT_FROM"),
    "\ntarget: ",
    env!("STRONGROOM_BUILT_FOR"),
    "\nfeatures: ",
    features!(),
);

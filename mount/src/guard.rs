//! Takes the mount away when the process that serves it dies without having done so (kill -9, out of memory).
//!
//! A small shell waits for the end of a pipe whose other end only the serving process holds. A word on the pipe says that the
//! mount was undone in good order; an end without a word means death, and the shell detaches the mount once it is dead.
//!
//! Why not `fusermount3 -o auto_unmount`, which does the same: it mounts with `allow_other`, which an ordinary user may not
//! without a setting of root's, and which would open the backup to other users but for a check in this process; and it needs
//! fusermount3 where root does not. A shell and `umount` are everywhere, and starting one needs no unsafe fork.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// `$1` is the mount point. `df` fails on a dead mount, and only there; `[ -d ]` would be answered from the kernel's cache. While the
/// process is still dying, its mount is alive. Signals are for the process: whatever else gets them, this shell outlives it.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
read -r word && exit 0
tries=0
while [ "$tries" -lt 200 ]; do
    if ! df -P -- "$1"; then
        umount -l -- "$1" || fusermount3 -uz -- "$1"
        exit
    fi
    sleep 0.05
    tries=$((tries + 1))
done
"#;

pub(crate) struct Guard {
    shell: Child,
}

impl Guard {
    /// Starts watching over the mount that is going to be at `path`.
    pub(crate) fn start(path: &Path) -> io::Result<Guard> {
        let search = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "strongroom-mount-guard"]).arg(path);
        command.env("PATH", format!("{search}:/usr/sbin:/usr/bin:/sbin:/bin"));
        // It must hold neither the terminal's Ctrl-C, nor a folder, nor a pipe that somebody reads to its end.
        command.process_group(0).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Guard { shell: command.spawn()? })
    }

    /// Sends the shell home: there is nothing left to take away.
    pub(crate) fn release(mut self) {
        if let Some(mut pipe) = self.shell.stdin.take() {
            // If it is gone already, so much the better.
            let _ = pipe.write_all(b"unmounted\n");
        }
        if let Err(error) = self.shell.wait() {
            tracing::debug!(%error, "could not wait for the mount guard");
        }
    }
}

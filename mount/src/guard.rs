//! Removes the mount if the process that serves it dies without unmounting (kill -9, out of memory).
//!
//! A small shell waits for the end of a pipe. Only the serving process holds the other end. If the process unmounts
//! properly, it writes a word into the pipe. If the pipe ends without a word, the process died, and the shell detaches
//! the mount as soon as it is dead.
//!
//! `fusermount3 -o auto_unmount` does the same, but is not used for two reasons. It mounts with `allow_other`: ordinary
//! users may do that only if root configured it, and then only a check in this process would keep other users out of
//! the backup. It also needs fusermount3 where root does not. A shell and `umount` are available everywhere, and
//! starting a shell needs no unsafe fork.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// `$1` is the mount point. `df` fails on a dead mount and only there; `[ -d ]` would be answered from the kernel's
/// cache. The mount is alive while the process is still dying, so the script tries again. The script ignores signals:
/// it must outlive the process.
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
    /// Starts the guard for the mount that will be at `path`.
    pub(crate) fn start(path: &Path) -> io::Result<Guard> {
        let search = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "strongroom-mount-guard"]).arg(path);
        command.env("PATH", format!("{search}:/usr/sbin:/usr/bin:/sbin:/bin"));
        // The shell must not receive the terminal's Ctrl-C, keep a folder busy, or hold open a pipe that somebody reads
        // to its end.
        command.process_group(0).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Guard { shell: command.spawn()? })
    }

    /// Ends the shell, because the mount is gone.
    pub(crate) fn release(mut self) {
        if let Some(mut pipe) = self.shell.stdin.take() {
            // Ignore errors: the shell may already be gone.
            let _ = pipe.write_all(b"unmounted\n");
        }
        if let Err(error) = self.shell.wait() {
            tracing::debug!(%error, "could not wait for the mount guard");
        }
    }
}

//! The end of a serving process: signals, kill -9, and what stays behind. The process is examples/model.rs.

mod common;

use common::{PATIENCE, eventually, is_mounted, no_fuse};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Returns the path of the example, in `examples/` beside this test program. Builds it if it is missing: `cargo test`
/// builds it, but not if it was told to build only one test.
fn example() -> PathBuf {
    static BUILD: Once = Once::new();
    let directory = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
    let path = directory.join("examples/model");
    BUILD.call_once(|| {
        if !path.exists() {
            let arguments = ["build", "--quiet", "-p", "strongroom-mount", "--example", "model"];
            assert!(Command::new(env!("CARGO")).args(arguments).status().unwrap().success());
        }
    });
    path
}

struct Server {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Server {
    fn start(folder: &Path, arguments: &[&str]) -> Server {
        let mut command = Command::new(example());
        let mut child = command.arg(folder).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut server = Server { child, output };
        assert_eq!(server.line(), "ready");
        server
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Returns the process id of the shell that guards the mount.
    fn guard(&self) -> Pid {
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        Pid::from_raw(children.trim().parse().unwrap()).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ignore errors: the process has ended, unless a test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns whether a process is running. A zombie is not.
fn is_running(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

#[test]
fn signals_unmount() {
    if no_fuse() {
        return;
    }
    for (signal, layout) in [(Signal::TERM, ["--catalog"].as_slice()), (Signal::INT, &[])] {
        let folder = TempDir::new().unwrap();
        let mut server = Server::start(folder.path(), layout);
        let guard = server.guard();
        assert!(is_mounted(folder.path()) && is_running(guard));
        server.signal(signal);
        assert_eq!(server.line(), "unmounted: Clean");
        assert!(server.child.wait().unwrap().success());
        assert!(!is_mounted(folder.path()));
        assert!(!is_running(guard), "nothing is left running");
    }
}

#[test]
fn kill_9_leaves_no_mount() {
    if no_fuse() {
        return;
    }
    for layout in [["--catalog"].as_slice(), &[]] {
        let folder = TempDir::new().unwrap();
        let server = Server::start(folder.path(), layout);
        let guard = server.guard();
        // The guard must notice the death despite attributes in the kernel's cache, a listing and an open file.
        let listed = Command::new("ls").arg("-lR").arg(folder.path()).output().unwrap();
        assert!(listed.status.success());
        let open = std::fs::File::open(folder.path()).unwrap();
        server.signal(Signal::KILL);
        let killed = Instant::now();
        eventually(Duration::from_secs(2), "the mount is gone", || !is_mounted(folder.path()));
        eprintln!("gone after {:?}", killed.elapsed());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "an ordinary empty folder again");
        drop(open);
        eventually(PATIENCE, "the guard has gone", || !is_running(guard));
    }
}

#[test]
fn a_dead_mount_is_cleared_away() {
    if no_fuse() {
        return;
    }
    for layout in [["--catalog"].as_slice(), &[]] {
        let folder = TempDir::new().unwrap();
        let mut server = Server::start(folder.path(), layout);
        assert!(Command::new("ls").arg("-lR").arg(folder.path()).output().unwrap().status.success());
        // Kill the guard too, as when a whole container is killed.
        kill_process(server.guard(), Signal::KILL).unwrap();
        server.signal(Signal::KILL);
        server.child.wait().unwrap();
        assert!(is_mounted(folder.path()), "a dead mount");

        let mut server = Server::start(folder.path(), layout);
        assert!(std::fs::read_dir(folder.path()).unwrap().count() > 0);
        server.signal(Signal::TERM);
        assert_eq!(server.line(), "unmounted: Clean");
        assert!(!is_mounted(folder.path()), "neither the new mount nor the dead one");
    }
}

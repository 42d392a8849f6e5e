//! Files on this machine. The program's state belongs to its user only, and the program never waits for a pipe or
//! another file that is not a regular one.

use crate::common;

use common::{Lab, PATIENCE, eventually, no_fuse, run, text, walk, write};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A laboratory with a snapshot, in a process whose umask allows everything.
fn lab() -> Lab {
    rustix::process::umask(Mode::empty());
    let lab = Lab::new();
    write(&lab.path("home/file"), "content");
    lab
}

/// Runs a command that must end by itself, and returns its exit code and its messages.
#[track_caller]
fn ends(command: &mut Command) -> (Option<i32>, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let waits = format!("{command:?} ends");
    let mut ended = None;
    let gone = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually(&waits, PATIENCE, || {
            ended = child.try_wait().unwrap();
            ended.is_some()
        });
    }));
    if gone.is_err() {
        child.kill().unwrap();
        panic!("it hangs: {command:?}");
    }
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (ended.unwrap().code(), said)
}

fn pipe(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

#[track_caller]
fn assert_private(state: &Path) {
    let mut folders = vec![state.to_owned()];
    walk(state, &mut |path, stat| folders.extend(stat.is_dir().then(|| path.to_owned())));
    for folder in folders {
        let mode = fs::metadata(&folder).unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o700, "{}: {mode:o}", folder.display());
    }
}

#[test]
fn every_command_makes_a_private_state_folder() {
    let lab = lab();
    if !no_fuse() {
        lab.mount(&[]).unmount();
        assert_private(&lab.state());
        let mut logs = Vec::new();
        walk(&lab.state(), &mut |path, stat| logs.extend(path.ends_with("mount.log").then_some(stat.mode() & 0o7777)));
        assert_eq!(logs, [0o600]);
        fs::remove_dir_all(lab.state()).unwrap();
    }
    for arguments in [args!["backup", "--files", "home"], args!["check"], args!["restore", "jobs"]] {
        lab.run(&arguments, 0);
        assert_private(&lab.state());
        lab.run(&arguments, 0);
        assert_private(&lab.state());
        fs::remove_dir_all(lab.state()).unwrap();
    }
    // The database of another version: RocksDB begins anew.
    lab.run(["backup", "--files", "home"], 0);
    walk(&lab.state(), &mut |path, _| {
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("MANIFEST")) {
            fs::write(path, "damaged").unwrap();
        }
    });
    lab.run(["backup", "--files", "home"], 0);
    assert_private(&lab.state());
    // Folders that an older version left open to others are closed. A folder that the user has named keeps its
    // permissions.
    let of_repository = fs::read_dir(lab.state()).unwrap().next().unwrap().unwrap().path();
    for folder in [&lab.state(), &of_repository] {
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    }
    lab.run(["backup", "--files", "home"], 0);
    assert_eq!(fs::metadata(lab.state()).unwrap().mode() & 0o777, 0o755);
    assert_private(&of_repository);
    let mut command = lab.command(["backup", "--files", "home"]);
    run(command.env_remove("STRONGROOM_STATE_DIR").env("XDG_STATE_HOME", lab.path("xdg")), 0);
    assert_private(&lab.path("xdg/strongroom"));
}

#[test]
fn a_state_folder_that_others_may_change_is_refused() {
    let lab = lab();
    lab.run(["backup", "--files", "home"], 0);
    let elsewhere = lab.dir("elsewhere");
    let mut commands = vec![args!["backup", "--files", "home"], args!["check"], args!["restore", "jobs"]];
    if !no_fuse() {
        commands.push(args!["mount", lab.new_mount_point()]);
    }
    let refused = |reason: &str| {
        for arguments in &commands {
            let said = common::fails(&mut lab.command(arguments), 1);
            assert!(said.contains("for the local state") && said.contains(reason), "{arguments:?}: {said}");
        }
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "{reason}: nothing is made there");
    };
    let state = lab.state();
    let away = lab.path("away");
    fs::rename(&state, &away).unwrap();
    symlink(&elsewhere, &state).unwrap();
    refused("a link");
    fs::remove_file(&state).unwrap();
    fs::rename(&away, &state).unwrap();
    fs::set_permissions(&state, Permissions::from_mode(0o777)).unwrap();
    refused("mode 0777");
    fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
    // One level below, where everybody knows the name of the folder.
    let of_repository = fs::read_dir(&state).unwrap().next().unwrap().unwrap().path();
    fs::rename(&of_repository, &away).unwrap();
    symlink(&elsewhere, &of_repository).unwrap();
    refused("a link");
    fs::remove_file(&of_repository).unwrap();
    fs::rename(&away, &of_repository).unwrap();
    // Only root can give a folder away.
    if rustix::process::geteuid().is_root() {
        chown(&state, Some(12345), None).unwrap();
        refused("belongs to the user 12345");
        chown(&state, Some(0), None).unwrap();
    }
    lab.run(["backup", "--files", "home"], 0);
}

#[test]
fn the_log_of_a_mount_does_not_follow_a_link() {
    if no_fuse() {
        return;
    }
    let lab = lab();
    lab.run(["restore", "jobs"], 0);
    let of_repository = fs::read_dir(lab.state()).unwrap().next().unwrap().unwrap().path();
    write(&lab.path("victim"), "untouched");
    let log = of_repository.join("mount.log");
    symlink(lab.path("victim"), &log).unwrap();
    let at = lab.new_mount_point();
    let (code, said) = ends(&mut lab.command(args!["mount", &at]));
    assert!(code == Some(1) && said.contains("could not write the log") && said.contains("a link"), "{said}");
    assert!(!common::is_mounted(&at));
    fs::remove_file(&log).unwrap();
    pipe(&log);
    let (code, said) = ends(&mut lab.command(args!["mount", &at]));
    assert!(code == Some(1) && said.contains("a named pipe"), "{said}");
    assert_eq!(fs::read_to_string(lab.path("victim")).unwrap(), "untouched");
    fs::remove_file(&log).unwrap();
    lab.mount(&[]).unmount();
}

#[test]
fn a_named_pipe_in_place_of_a_file_is_refused_without_waiting() {
    let lab = lab();
    lab.run(["backup", "--files", "home"], 0);
    let fifo = lab.path("pipe");
    pipe(&fifo);
    let refused = |command: &mut Command, exit: i32| {
        let (code, said) = ends(command);
        assert!(code == Some(exit) && said.contains("named pipe"), "{command:?}: {code:?}, {said}");
    };
    refused(lab.command(["snapshots"]).env("STRONGROOM_PASSWORD_FILE", &fifo), 1);
    refused(lab.command(["init", "--repo", "./new"]).env("STRONGROOM_PASSWORD_FILE", &fifo), 1);
    refused(lab.command(args!["key", "add"]).arg("--new-password-file").arg(&fifo), 1);
    refused(&mut lab.command(args!["tenant", "users", "a", "--config", &fifo]), 2);
    refused(&mut lab.command(args!["backup", "--mbox", &fifo]), 3);
    let tenant = |secret: &str| {
        let ids = "tenant_id = \"contoso.com\"\nclient_id = \"a\"";
        write(&lab.path("config/strongroom/strongroom.toml"), format!("[tenants.a]\n{ids}\n{secret}\n"));
        lab.command(["tenant", "users", "a"])
    };
    refused(&mut tenant(&format!("client_secret = {{ file = {fifo:?} }}")), 2);
    refused(&mut tenant(&format!("certificate = {fifo:?}")), 2);
    let said = common::fails(&mut lab.command(args!["snapshots", "--password-file", "/dev/zero"]), 1);
    assert!(said.contains("it is a device"), "{said}");

    // Links to files are allowed, and so is a pipe that the shell has opened.
    write(&lab.path("password"), common::PASSWORD);
    fs::set_permissions(lab.path("password"), Permissions::from_mode(0o600)).unwrap();
    symlink("password", lab.path("link")).unwrap();
    lab.run(["snapshots", "--password-file", "link"], 0);
    let mut shell = lab.command(["snapshots"]);
    let program = shell.get_program().to_owned();
    shell = {
        let mut bash = Command::new("bash");
        bash.args(["-c", "\"$0\" snapshots --password-file <(cat password)"]).arg(program);
        bash.envs(shell.get_envs().filter_map(|(name, value)| Some((name, value?)))).env_remove("STRONGROOM_PASSWORD");
        bash.current_dir(lab.path(""));
        bash
    };
    run(&mut shell, 0);
}

#[test]
fn special_files_are_no_objects_of_a_repository() {
    let lab = lab();
    lab.run(["backup", "--files", "home"], 0);
    let find = |prefix: &str| {
        let names = lab.objects().into_keys().filter(|name| name.starts_with(prefix));
        names.map(|name| lab.repository().join(name)).collect::<Vec<PathBuf>>()
    };
    let commands =
        [args!["snapshots"], args!["ls", "latest"], args!["cat", "latest:file"], args!["check", "--read-data"]];
    for (prefix, exits) in [
        ("config", [13, 13, 13, 13]),
        ("keys/", [12, 12, 12, 12]),
        ("snapshots/", [0, 2, 2, 13]),
        ("index/", [0, 0, 0, 13]),
        ("packs/", [0, 13, 13, 13]),
    ] {
        let objects = find(prefix);
        assert!(!objects.is_empty(), "{prefix}");
        let aside = |object: &Path| object.with_extension("aside");
        for object in &objects {
            fs::rename(object, aside(object)).unwrap();
            pipe(object);
        }
        for (arguments, exit) in commands.iter().zip(exits) {
            let (code, said) = ends(&mut lab.command(arguments));
            assert_eq!(code, Some(exit), "{prefix}: {arguments:?}: {said}");
        }
        // A link in place of an object is followed.
        for object in &objects {
            fs::remove_file(object).unwrap();
            symlink(aside(object), object).unwrap();
        }
        assert_eq!(text(&lab.run(["cat", "latest:file"], 0).stdout), "content", "{prefix}");
        for object in &objects {
            fs::rename(aside(object), object).unwrap();
        }
    }
    let (code, said) = ends(lab.command(["snapshots"]).env("STRONGROOM_REPO", {
        pipe(&lab.path("no folder"));
        lab.path("no folder")
    }));
    assert!(code == Some(10), "{code:?} {said}");
}

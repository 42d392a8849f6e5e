//! What is installed: the layout of `make install`, the systemd unit, and what `--version` says of the build.

#[path = "../../build.rs"]
#[allow(dead_code, reason = "only the words about the commit are tested here")]
mod build_script;
use crate::common;

use common::{Lab, run, text};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns `make` in the project, free of what a `make` around the tests hands down.
fn make(arguments: impl IntoIterator<Item = OsString>) -> Command {
    let mut make = Command::new("make");
    make.arg("--silent").args(arguments).current_dir(root());
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "DESTDIR", "PREFIX", "BINARY"] {
        make.env_remove(name);
    }
    make
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut git = Command::new("git");
    git.arg("-C").arg(folder).args(["-c", "user.name=Bob", "-c", "user.email=bob@example.com"]).args(arguments);
    text(&run(&mut git, 0).stdout).trim().to_owned()
}

/// Returns every file below `folder`, by its path there, with its mode.
fn files(folder: &Path) -> BTreeSet<(String, u32)> {
    let mut found = BTreeSet::new();
    common::walk(folder, &mut |path, stat| {
        if stat.is_file() {
            let below = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            found.insert((below, stat.mode() & 0o7777));
        }
    });
    found
}

/// Returns the full name of every command: `backup`, `key`, `key add`, ...
fn commands(lab: &Lab) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut open = vec![Vec::new()];
    while let Some(command) = open.pop() {
        for below in common::commands_of(lab, &command.iter().map(String::as_str).collect::<Vec<_>>()) {
            open.push([&command[..], &[below]].concat());
        }
        found.push(command);
    }
    found.retain(|command| !command.is_empty());
    found
}

#[test]
fn make_install_lays_out_all_that_belongs_to_the_program_and_uninstall_removes_it() {
    let lab = Lab::empty();
    let staged = lab.path("staged");
    let settings = || {
        let binary = format!("BINARY={}", env!("CARGO_BIN_EXE_strongroom"));
        args![binary, "PREFIX=/opt/strongroom", format!("DESTDIR={}", staged.display())]
    };
    run(&mut make(args!["install"].into_iter().chain(settings())), 0);

    let prefix = staged.join("opt/strongroom");
    let installed = files(&staged);
    let read = |below: &str| fs::read_to_string(prefix.join(below)).unwrap_or_else(|error| panic!("{below}: {error}"));
    let expected = [
        ("bin/strongroom", 0o755),
        ("lib/systemd/system/strongroom-mount@.service", 0o644),
        ("share/bash-completion/completions/strongroom", 0o644),
        ("share/doc/strongroom/CHANGELOG.md", 0o644),
        ("share/doc/strongroom/LICENSE", 0o644),
        ("share/doc/strongroom/README.md", 0o644),
        ("share/fish/vendor_completions.d/strongroom.fish", 0o644),
        ("share/man/man1/strongroom.1", 0o644),
        ("share/zsh/site-functions/_strongroom", 0o644),
    ];
    for (below, mode) in expected {
        assert!(installed.contains(&(format!("opt/strongroom/{below}"), mode)), "{below}: {installed:#?}");
    }
    for (path, mode) in &installed {
        let below = path.strip_prefix("opt/strongroom/").unwrap_or_else(|| panic!("{path} is outside of PREFIX"));
        let page = below.starts_with("share/man/man1/strongroom-") && below.ends_with(".1") && *mode == 0o644;
        assert!(page || expected.contains(&(below, *mode)), "nobody asked for {path} with mode {mode:o}");
    }
    run(Command::new(prefix.join("bin/strongroom")).arg("--version"), 0);

    // Each command has a page and stands in each script of completions, with its last word at least.
    let scripts = [
        "bash-completion/completions/strongroom",
        "zsh/site-functions/_strongroom",
        "fish/vendor_completions.d/strongroom.fish",
    ]
    .map(|script| read(&format!("share/{script}")));
    let commands = commands(&lab);
    assert!(commands.len() > 15, "{commands:?}");
    for command in commands {
        let page = read(&format!("share/man/man1/strongroom-{}.1", command.join("-")));
        assert!(page.contains(".SH SYNOPSIS") && page.contains("\\-\\-repo"), "{command:?}: {page}");
        for script in &scripts {
            assert!(script.contains(command.last().unwrap()), "{command:?} is missing in a script of completions");
        }
    }

    let unit = read("lib/systemd/system/strongroom-mount@.service");
    assert!(unit.contains("\nExecStart=/opt/strongroom/bin/strongroom mount /mnt/strongroom/%i "), "{unit}");
    run(&mut make(args!["uninstall"].into_iter().chain(settings())), 0);
    assert_eq!(files(&staged), BTreeSet::new());
}

#[test]
fn make_install_without_a_build_says_how_to_build() {
    let lab = Lab::empty();
    let staged = lab.path("staged");
    let settings = args!["install", "BINARY=nothing/strongroom", format!("DESTDIR={}", staged.display())];
    let output = make(settings).output().unwrap();
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("make build"), "{said}");
    assert!(!staged.exists());
}

/// systemd reads the unit, finds the program, and knows every setting; the command line in it is one of the program's.
#[test]
fn the_unit_of_a_mount_is_one_that_systemd_and_the_program_understand() {
    let lab = Lab::empty();
    let folder = lab.dir("bin");
    let unit = fs::read_to_string(root().join("tools/package/strongroom-mount@.service")).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_strongroom"), folder.join("strongroom")).unwrap();
    let unit = unit.replace("@BINDIR@", folder.to_str().unwrap());
    let file = lab.path("strongroom-mount@.service");
    fs::write(&file, &unit).unwrap();

    let start = unit.split("\nExecStart=").nth(1).and_then(|rest| rest.split("\nExec").next()).expect("a start");
    let words = start.replace("\\\n", " ").replace("/mnt/strongroom/%i", lab.dir("mount").to_str().unwrap());
    let words = words.replace("/etc/strongroom", lab.path("etc").to_str().unwrap()).replace("%i", "main");
    let mut words = words.split_whitespace();
    let program = words.next().unwrap();
    // Without a configuration: a mistake of usage would be told as such, and the configuration is what is missed.
    let output = Command::new(program).args(words).env_clear().output().unwrap();
    let said = text(&output.stderr);
    assert!(said.contains("strongroom.toml") && !said.contains("Usage:"), "{said}");

    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).arg(&file);
    let Ok(output) = verify.output() else {
        eprintln!("systemd-analyze is not there: what it thinks of the unit is not tested");
        return;
    };
    let said = text(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn version_says_what_a_bug_report_needs() {
    let lab = Lab::empty();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(text(&lab.run(["-V"], 0).stdout), format!("strongroom {version}\n"));
    let said = text(&lab.run(["--version"], 0).stdout);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], format!("strongroom {version}"));
    assert_eq!(lines[1], "commit: not recorded in a debug build");
    let target = lines[2].strip_prefix("target: ").unwrap();
    assert!(target.starts_with(std::env::consts::ARCH) && target.contains("linux"), "{said}");
    assert!(lines[3].starts_with("features: ") && lines[3].contains("mount"), "{said}");
    assert_eq!(lines.len(), 4, "{said}");
}

/// The build script is asked as for a release build, in folders of its own.
#[test]
fn the_commit_is_that_of_the_checkout_or_said_to_be_unknown() {
    let lab = Lab::empty();
    let checkout = lab.dir("checkout");
    let ask = |folder: &Path| build_script::commit(folder, "release", None);
    let archive = |folder: PathBuf| {
        fs::write(folder.join("Cargo.toml"), "[package]\n").unwrap();
        folder
    };
    git(&checkout, &["init", "--quiet"]);
    archive(checkout.clone());
    git(&checkout, &["add", "Cargo.toml"]);
    git(&checkout, &["commit", "--quiet", "-m", "first"]);
    let hash = git(&checkout, &["rev-parse", "--short=12", "HEAD"]);
    assert_eq!(ask(&checkout), hash);
    fs::write(checkout.join("untracked"), "").unwrap();
    assert_eq!(ask(&checkout), hash);
    fs::write(checkout.join("Cargo.toml"), "[package] # other\n").unwrap();
    assert_eq!(ask(&checkout), format!("{hash} with local changes"));

    // An archive, on its own and unpacked in a checkout of something else.
    for folder in [archive(lab.dir("archive")), archive(lab.dir("checkout/archive"))] {
        assert_eq!(ask(&folder), "unknown, built without Git (from a source archive)");
        assert_eq!(build_script::commit(&folder, "release", Some(" abc123\n")), "abc123");
    }
    assert_eq!(build_script::commit(&checkout, "debug", None), "not recorded in a debug build");
}

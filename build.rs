//! Tells the program which commit and target it is built from; `strongroom --version` shows both.
//!
//! `STRONGROOM_COMMIT` names the commit for builds without Git, such as those of a distribution. Debug builds name
//! none: every commit would compile the library and all tests once more.

use std::path::Path;
use std::process::Command;

/// Digits of a commit's hash that are shown: enough for a repository of any size.
const HASH_DIGITS: &str = "12";

fn main() {
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("Cargo sets it");
    let profile = std::env::var("PROFILE").expect("Cargo sets it");
    let target = std::env::var("TARGET").expect("Cargo sets it");
    let given = std::env::var("STRONGROOM_COMMIT").ok();

    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=STRONGROOM_COMMIT");
    if profile != "debug" {
        for path in watched(Path::new(&root)) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    println!("cargo::rustc-env=STRONGROOM_BUILT_FROM={}", commit(Path::new(&root), &profile, given.as_deref()));
    println!("cargo::rustc-env=STRONGROOM_BUILT_FOR={target}");
}

/// Returns the words that follow `commit:` in `--version`.
pub fn commit(root: &Path, profile: &str, given: Option<&str>) -> String {
    if let Some(given) = given.and_then(|given| given.lines().next()).map(str::trim).filter(|given| !given.is_empty()) {
        return given.to_owned();
    }
    if profile == "debug" {
        return "not recorded in a debug build".to_owned();
    }
    let Some(hash) = git(root, &["rev-parse", &format!("--short={HASH_DIGITS}"), "HEAD"]) else {
        return "unknown, built without Git (from a source archive)".to_owned();
    };
    match git(root, &["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => hash,
        _ => format!("{hash} with local changes"),
    }
}

/// Returns what decides over the commit and its local changes, as far as it exists: Cargo runs this script again on
/// each build while one of the files it watches is missing.
fn watched(root: &Path) -> Vec<String> {
    let mut paths = vec!["src".to_owned(), "mount".to_owned(), "Cargo.toml".to_owned(), "Cargo.lock".to_owned()];
    let branch = git(root, &["rev-parse", "--symbolic-full-name", "HEAD"]);
    for name in ["HEAD", "logs/HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        paths.extend(git(root, &["rev-parse", "--git-path", name]));
    }
    paths.retain(|path| root.join(path).exists());
    paths
}

/// Returns what Git answers; none if it cannot be asked, or if `root` is not the top of its work tree: a source archive
/// may have been unpacked inside the work tree of another project.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let ask = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let top = Path::new(&ask(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
    (top == root.canonicalize().ok()?).then(|| ask(arguments))?
}

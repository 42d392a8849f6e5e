//! Holds the arrows of docs/architecture.md: who may use whom, by the `use` lines and paths in the sources.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

/// Each room under src/, and the rooms that it may use. Whatever is not listed here is an arrow that somebody must
/// decide.
const ROOMS: [(&str, &[&str]); 16] = [
    ("runtime", &[]),
    ("shown", &[]),
    ("local_files", &[]),
    ("content", &[]),
    // `content::mime` says how the base64 text of an attachment is laid out, which an entry keeps.
    ("format", &["content"]),
    ("record_log", &["format", "local_files"]),
    ("backend", &["local_files"]),
    ("repository", &["format", "backend", "local_files"]),
    ("source", &["format", "content", "local_files", "runtime"]),
    ("backup", &["format", "content", "repository", "source", "runtime", "shown"]),
    (
        "restore",
        &[
            "format",
            "content",
            "backend",
            "repository",
            "source",
            "backup",
            "record_log",
            "local_files",
            "runtime",
            "shown",
        ],
    ),
    (
        "outbox",
        &["format", "content", "repository", "source", "backup", "restore", "record_log", "local_files", "runtime"],
    ),
    ("view", &["format", "content", "backend", "repository", "shown"]),
    ("serve", &["format"]),
    // Who runs a backup reads the configuration; who makes one is told.
    ("settings", &["source", "local_files"]),
    (
        "cli",
        &[
            "format",
            "backend",
            "repository",
            "source",
            "backup",
            "restore",
            "outbox",
            "view",
            "serve",
            "settings",
            "local_files",
            "shown",
        ],
    ),
];

/// Returns the path below `src/` of each file of the program, and its text.
fn program() -> impl Iterator<Item = (String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    sources("src")
        .into_iter()
        .map(move |(path, text)| (path.strip_prefix(&root).expect("under src").to_string_lossy().into_owned(), text))
}

/// Returns the first words behind `crate::` in `text`: the rooms that it names.
fn rooms_named(text: &str) -> impl Iterator<Item = &str> {
    text.split("crate::").skip(1).flat_map(|rest| match rest.strip_prefix('{') {
        Some(list) => list.split('}').next().unwrap_or_default().split(',').map(first_word).collect(),
        None => vec![first_word(rest)],
    })
}

fn first_word(text: &str) -> &str {
    let text = text.trim_start();
    &text[..text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())]
}

#[test]
fn dependencies_point_one_way() {
    for (file, text) in program().filter(|(file, _)| !["lib.rs", "main.rs"].contains(&file.as_str())) {
        let room = file.split(['/', '.']).next().unwrap_or_default();
        let (_, allowed) = ROOMS.iter().find(|(name, _)| *name == room).unwrap_or_else(|| panic!("what is {room}?"));
        for named in rooms_named(&text).filter(|named| ROOMS.iter().any(|(name, _)| name == named)) {
            assert!(named == room || allowed.contains(&named), "src/{file} must not know {named}");
        }
    }
}

/// The rooms stand in an order in which each uses only those before it, so there is no circle.
#[test]
fn rooms_make_no_circle() {
    for (number, (room, uses)) in ROOMS.iter().enumerate() {
        for used in *uses {
            let at = ROOMS.iter().position(|(name, _)| name == used);
            assert!(at.is_some_and(|at| at < number), "{room} uses {used}, which stands behind it");
        }
    }
}

/// What opens a repository and reads it knows nothing of those who write, prove or compare one.
#[test]
fn the_repository_does_not_know_who_works_on_it() {
    let workers = ["check", "compare", "select", "store"];
    for (file, text) in program().filter(|(file, _)| file.starts_with("repository/")) {
        let module = file["repository/".len()..].split(['/', '.']).next().unwrap_or_default();
        for worker in workers.iter().filter(|worker| !workers.contains(&module) && **worker != module) {
            assert!(!text.contains(&format!("repository::{worker}::")), "src/{file} must not know {worker}");
        }
    }
}

#[test]
fn the_mount_knows_no_other_crate_of_ours() {
    for (path, text) in sources("mount/src") {
        assert!(!text.contains("strongroom::"), "{} names the engine", path.display());
    }
}

/// At about 600 lines a file hides a second idea. The code of a file and the tests at its end are measured apart.
#[test]
fn files_are_short() {
    for (path, text) in ["src", "mount", "tests", "tools"].into_iter().flat_map(sources) {
        let (code, tests) = text.split_once("\n#[cfg(test)]\n").unwrap_or((&text, ""));
        let lines = code.lines().count().max(tests.lines().count());
        assert!(lines <= 650, "{} has {lines} lines; the limit is 650", path.display());
    }
}

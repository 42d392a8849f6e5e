//! Holds the arrows of docs/architecture.md: who may use whom, by the `use` lines and paths in the sources.

use std::collections::{BTreeMap, BTreeSet};
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
    ("settings", &["format", "source", "local_files"]),
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

/// Circles between files of one folder that may stay, and why.
const CIRCLES: [(&str, &[&str]); 1] = [
    // The router of the server knows all who answer, and they know its calls.
    (
        "tools/simulator/src",
        &[
            "auth",
            "calendar",
            "contacts",
            "control",
            "delta",
            "directory",
            "exchange",
            "extended",
            "faults",
            "mail",
            "odata",
            "permissions",
            "server",
            "todo",
            "uploads",
        ],
    ),
];

/// Files of one folder use each other in one direction. A file counts together with the folder of its name.
#[test]
fn files_of_a_folder_make_no_circle() {
    for root in ["src", "mount/src", "tools/corpora/src", "tools/simulator/src"] {
        for (folder, files) in circles(root) {
            let is_allowed = |(allowed, known): &(&str, &[&str])| {
                *allowed == folder && files.iter().all(|file| known.contains(&file.as_str()))
            };
            assert!(CIRCLES.iter().any(is_allowed), "{folder}: {files:?} use each other in a circle");
        }
    }
}

/// Returns the circles below `root`: a folder, and the names of the files in it that use each other.
fn circles(root: &str) -> Vec<(String, Vec<String>)> {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join(root);
    let modules: BTreeMap<Vec<String>, String> = sources(root)
        .into_iter()
        .filter(|(path, _)| !path.ends_with("tests.rs") && !path.iter().any(|name| name == "tests"))
        .map(|(path, text)| {
            let path = path.strip_prefix(&base).expect("below the root").with_extension("");
            let names = path.iter().map(|name| name.to_string_lossy().into_owned());
            (names.filter(|name| !["lib", "main"].contains(&name.as_str())).collect(), without_tests(&text))
        })
        .collect();
    // For each folder: each file in it, and the files beside it that it uses.
    let mut uses: BTreeMap<&[String], BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for (module, text) in &modules {
        for path in paths_in(text, module) {
            let used = (0..=path.len()).rev().find_map(|len| modules.get_key_value(&path[..len]));
            let (used, _) = used.expect("the root is a module");
            let depth = module.iter().zip(used).take_while(|(a, b)| a == b).count();
            // The root's files are rooms, of which `ROOMS` decides; a module and those in it are one.
            if depth < module.len().min(used.len()) && (depth > 0 || root != "src") {
                uses.entry(&module[..depth]).or_default().entry(&module[depth]).or_default().insert(&used[depth]);
            }
        }
    }
    let mut circles = Vec::new();
    for (folder, uses) in uses {
        let reached: BTreeMap<&str, BTreeSet<&str>> =
            uses.keys().map(|file| (*file, reached_from(file, &uses))).collect();
        let mut known = BTreeSet::new();
        for (file, beyond) in &reached {
            let circle: Vec<String> = beyond
                .iter()
                .filter(|other| reached.get(*other).is_some_and(|beyond| beyond.contains(file)))
                .map(|&other| other.to_owned())
                .collect();
            if beyond.contains(file) && known.insert(circle.clone()) {
                circles.push(([&[root.to_owned()], folder].concat().join("/"), circle));
            }
        }
    }
    circles
}

/// Returns the files that `file` uses, and those that they use, and so on.
fn reached_from<'a>(file: &str, uses: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&str> = uses[file].iter().copied().collect();
    while let Some(file) = next.pop() {
        if reached.insert(file) {
            next.extend(uses.get(file).into_iter().flatten());
        }
    }
    reached
}

/// Returns `text` without comments and without what is compiled for tests alone.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" {
            lines.by_ref().find(|line| line.ends_with(';') || *line == "}");
        } else if !line.trim_start().starts_with("//") {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// Returns the paths in `text` that begin with `crate`, `super` or `self`, as seen from the root. `module` is where
/// the text stands.
fn paths_in(text: &str, module: &[String]) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in text.match_indices(start) {
            let before = text[..at].chars().next_back();
            if before.is_none_or(|char| !char.is_alphanumeric() && char != '_' && char != ':') {
                branches(&text[at..], &mut Vec::new(), &mut paths);
            }
        }
    }
    let from_the_root = |path: Vec<String>| {
        let ups = path.iter().take_while(|name| *name == "super").count();
        let base = if path[0] == "crate" { &[] } else { &module[..module.len().saturating_sub(ups)] };
        let names = path.iter().filter(|name| !["crate", "super", "self"].contains(&name.as_str()));
        base.iter().chain(names).cloned().collect()
    };
    paths.into_iter().map(from_the_root).collect()
}

/// Reads the path at the start of `text`, and each path in its braces. Returns what follows.
fn branches<'a>(text: &'a str, path: &mut Vec<String>, paths: &mut Vec<Vec<String>>) -> &'a str {
    let len = path.len();
    let mut rest = text.trim_start();
    loop {
        let name = first_word(rest);
        if !name.is_empty() {
            path.push(name.to_owned());
            rest = &rest[name.len()..];
        } else if let Some(list) = rest.strip_prefix('{') {
            rest = list.trim_start();
            while !rest.is_empty() && !rest.starts_with('}') {
                rest = branches(rest, path, paths);
                rest = rest[rest.find([',', '}']).unwrap_or(rest.len())..].trim_start_matches(',').trim_start();
            }
            path.truncate(len);
            return rest.strip_prefix('}').unwrap_or(rest);
        }
        match rest.strip_prefix("::") {
            Some(next) if !name.is_empty() => rest = next,
            _ => break,
        }
    }
    paths.push(path.clone());
    path.truncate(len);
    rest
}

#[test]
fn a_circle_is_found_in_the_ways_of_writing_a_path() {
    let module = ["a".to_owned(), "b".to_owned()];
    let found = |text: &str| -> Vec<String> { paths_in(text, &module).iter().map(|path| path.join("::")).collect() };
    assert_eq!(found("use crate::c::{D, e::{self, F}, g::*};"), ["c::D", "c::e", "c::e::F", "c::g"]);
    assert_eq!(found("use super::c::D as E;\nlet x = super::super::f(self::g::H);"), ["a::c::D", "f", "a::b::g::H"]);
    assert_eq!(found("let a = mycrate::x(); std::super::y();"), [""; 0]);
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

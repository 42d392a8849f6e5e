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

/// Files of `of` (a module or folder under src/) must not name any of `forbidden`.
fn assert_free_of(of: &str, forbidden: &[&str]) {
    for (path, text) in sources("src") {
        let relative = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("under src");
        let relative = relative.to_string_lossy().into_owned();
        if relative != format!("{of}.rs") && !relative.starts_with(&format!("{of}/")) {
            continue;
        }
        for module in forbidden {
            for pattern in [format!("crate::{module}::"), format!("crate::{module};"), format!("crate::{{{module}")] {
                assert!(!text.contains(&pattern), "{relative} must not know {module}");
            }
        }
    }
}

#[test]
fn dependencies_point_one_way() {
    let above_engine =
        ["backup", "check", "cli", "compare", "outbox", "restore", "source", "splitter", "store", "view"];
    for module in ["repository", "reader", "tree", "node", "pack", "index", "sealed", "crypto", "snapshot", "backend"] {
        assert_free_of(module, &above_engine);
    }
    assert_free_of("backend", &["repository", "reader", "crypto", "pack", "tree"]);
    assert_free_of("source", &["repository", "reader", "store", "backup", "pack", "tree", "backend", "local"]);
    assert_free_of("pack", &["reader", "repository", "tree"]);
    for module in ["backup", "check", "compare", "restore", "settings", "view", "store", "splitter"] {
        assert_free_of(module, &["cli", "outbox"]);
    }
    assert_free_of("outbox", &["cli", "settings", "view", "store"]);
    assert_free_of("record_log", &["cli", "outbox", "restore", "repository"]);
    assert_free_of("webdav", &["cli", "repository", "reader", "backend", "tree", "view", "settings"]);
    // Who runs a backup reads the configuration; who makes one is told.
    for module in ["backup", "source", "repository", "selection"] {
        assert_free_of(module, &["settings"]);
    }
}

#[test]
fn the_mount_knows_no_other_crate_of_ours() {
    for (path, text) in sources("mount/src") {
        assert!(!text.contains("strongroom::"), "{} names the engine", path.display());
    }
}

/// At about 600 lines without tests a file hides a second idea.
#[test]
fn files_are_short() {
    for (path, text) in sources("src").into_iter().chain(sources("mount/src")) {
        if path.ends_with("tests.rs") {
            continue;
        }
        let code = text.split("\n#[cfg(test)]\n").next().unwrap_or_default();
        let lines = code.lines().count();
        assert!(lines <= 650, "{} has {lines} lines without its tests", path.display());
    }
}

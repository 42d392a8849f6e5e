use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::super::testing::{self, listing, name};
use super::*;

/// A backend in a temporary folder, which is removed when this is dropped.
struct Scratch {
    local: Local,
    folder: TempDir,
}

impl std::ops::Deref for Scratch {
    type Target = Local;

    fn deref(&self) -> &Local {
        &self.local
    }
}

fn scratch() -> Scratch {
    let folder = TempDir::new().unwrap();
    Scratch { local: Local::create(folder.path()).unwrap(), folder }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

#[test]
fn keeps_the_contract() {
    testing::suite(|| Box::new(scratch()));
}

#[test]
fn create_makes_the_folder_and_its_parents() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a/b");
    Local::create(&path).unwrap().save(ObjectName::config(), b"x").unwrap();
    for made in [path.clone(), folder.path().join("a")] {
        assert_eq!(fs::metadata(made).unwrap().mode() & 0o777, 0o700);
    }
    // Creating the folder again succeeds: only a config makes it a repository.
    let again = Local::create(&path).unwrap();
    assert!(matches!(again.save(ObjectName::config(), b"y"), Err(BackendError::Exists { .. })));
    assert_eq!(Local::open(&path).unwrap().load(ObjectName::config()).unwrap(), b"x");
}

#[test]
fn create_refuses_what_is_not_ours() {
    for (foreign, is_folder) in [("letter.txt", false), ("packs", false), ("config", true), ("photos", true)] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(foreign);
        if is_folder {
            fs::create_dir(path).unwrap()
        } else {
            fs::write(path, b"").unwrap()
        }
        let error = Local::create(folder.path()).unwrap_err();
        assert!(matches!(&error, BackendError::ForeignFolder { found, .. } if found == foreign), "{error:?}");
        assert!(error.to_string().contains(foreign));
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(matches!(Local::create(file.path()), Err(BackendError::Folder { .. })));
}

#[test]
fn create_takes_an_unfinished_repository() {
    let folder = TempDir::new().unwrap();
    for known in ["keys", "packs", "lost+found"] {
        fs::create_dir(folder.path().join(known)).unwrap();
    }
    fs::write(folder.path().join(".tmp-1-2"), b"con").unwrap();
    Local::create(folder.path()).unwrap().save(ObjectName::config(), b"config").unwrap();
}

#[test]
fn open_needs_a_folder() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    for path in [folder.path().join("missing"), file.join("below"), file] {
        let error = Local::open(&path).unwrap_err();
        assert!(matches!(error, BackendError::NoFolder { .. }), "{error:?}");
    }
    assert!(!folder.path().join("missing").exists());
}

#[test]
fn files_and_folders_are_private() {
    let local = scratch();
    for kind in ObjectKind::ALL {
        local.save(name(kind, 1), b"x").unwrap();
        let path = local.path(name(kind, 1));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600, "{kind}");
        for folder in path.ancestors().skip(1).take_while(|&folder| folder != local.root) {
            assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o7777, 0o700, "{kind}");
        }
    }
}

#[test]
fn only_objects_remain_after_saves() {
    let local = scratch();
    for kind in ObjectKind::ALL {
        local.save(name(kind, 1), b"x").unwrap();
        let _ = local.save(name(kind, 1), b"yy");
        let _ = local.save(name(kind, 1), b"zz");
    }
    let mut expected = ObjectKind::ALL.map(|kind| local.path(name(kind, 1))).to_vec();
    let mut found = files_below(&local.root);
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_crash_while_saving_leaves_nothing_to_see() {
    let local = scratch();
    for kind in ObjectKind::ALL {
        // The state that a killed process leaves: the folder exists, and part of the temporary file is written.
        let path = local.path(name(kind, 1));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path.with_file_name(".tmp-1-2"), b"who").unwrap();
        assert!(listing(&*local, kind).is_empty());
        assert!(matches!(local.load(name(kind, 1)), Err(BackendError::NotFound { .. })));
    }
    let local = Local::open(local.folder.path()).unwrap();
    for kind in ObjectKind::ALL {
        local.save(name(kind, 1), b"whole").unwrap();
        assert_eq!(listing(&local, kind).into_values().collect::<Vec<_>>(), [5]);
        assert_eq!(local.load(name(kind, 1)).unwrap(), b"whole");
    }
}

#[test]
fn a_torn_pack_is_replaced_and_then_read() {
    let local = scratch();
    let name = name(ObjectKind::Pack, 1);
    local.save(name, b"").unwrap();
    fs::write(local.path(name), b"torn").unwrap();
    assert_eq!(local.load_range(name, 0..4).unwrap(), b"torn");
    local.save(name, b"whole").unwrap();
    assert_eq!(local.load_range(name, 0..4).unwrap(), b"whol");
}

#[test]
fn a_pack_repaired_by_another_process_is_read() {
    let local = scratch();
    let name = name(ObjectKind::Pack, 1);
    local.save(name, b"torn").unwrap();
    assert!(local.load_range(name, 0..4).is_ok());
    Local::open(local.folder.path()).unwrap().save(name, b"whole").unwrap();
    assert_eq!(local.load_range(name, 0..5).unwrap(), b"whole");
}

#[test]
fn open_files_are_few() {
    let local = scratch();
    for seed in 0..100 {
        local.save(name(ObjectKind::Pack, seed), b"data").unwrap();
        local.save(name(ObjectKind::Key, seed), b"data").unwrap();
    }
    for seed in 0..100 {
        local.load_range(name(ObjectKind::Pack, seed), 0..4).unwrap();
        local.load_range(name(ObjectKind::Key, seed), 0..4).unwrap();
    }
    let open_files = local.open_files.lock();
    assert_eq!(open_files.files.len(), OPEN_FILES_MAX.get());
    assert!(open_files.files.iter().all(|(name, _)| name.kind() == ObjectKind::Pack));
}

#[test]
fn a_file_opened_before_its_removal_is_not_kept_open() {
    let local = scratch();
    let (torn, gone) = (name(ObjectKind::Pack, 1), name(ObjectKind::Pack, 2));
    for name in [torn, gone] {
        local.save(name, b"torn").unwrap();
        // One thread has opened the file but not yet put it into the cache when another thread replaces or removes
        // it.
        let epoch = local.open_files.lock().epoch;
        let open = local.open_file(name, 0).unwrap();
        if name == torn {
            local.save(name, b"whole").unwrap()
        } else {
            local.remove(name).unwrap()
        }
        local.keep_open(name, epoch, &open);
    }
    assert_eq!(local.load_range(torn, 0..4).unwrap(), b"whol");
    assert!(matches!(local.load_range(gone, 0..4), Err(BackendError::NotFound { .. })));
}

#[test]
fn foreign_files_are_passed_over() {
    let local = scratch();
    let pack = name(ObjectKind::Pack, 1);
    local.save(pack, b"pack").unwrap();
    let packs = local.root.join("packs");
    let file = local.path(pack).file_name().unwrap().to_owned();
    let other_folder = if local.path(pack).starts_with(packs.join("00")) { "01" } else { "00" };
    fs::create_dir(packs.join(other_folder)).unwrap();
    fs::create_dir(packs.join("zz")).unwrap();
    fs::create_dir(packs.join("backup of packs")).unwrap();
    fs::write(packs.join("ff"), b"a file where a folder should be").unwrap();
    fs::write(packs.join(other_folder).join(&file), b"in the wrong folder").unwrap();
    fs::write(packs.join(&file), b"in no folder").unwrap();
    fs::write(local.path(pack).with_extension("bak"), b"foreign").unwrap();
    fs::create_dir(local.root.join("index")).unwrap();
    fs::create_dir(local.path(name(ObjectKind::Index, 1))).unwrap();
    std::os::unix::fs::symlink("nowhere", local.path(name(ObjectKind::Index, 2))).unwrap();
    assert_eq!(listing(&*local, ObjectKind::Pack), [(pack, 4)].into());
    assert!(listing(&*local, ObjectKind::Index).is_empty());
    assert!(listing(&*local, ObjectKind::Config).is_empty());
}

#[test]
fn a_folder_that_somebody_removed_is_made_again() {
    let local = scratch();
    let name = name(ObjectKind::Pack, 1);
    local.save(name, b"data").unwrap();
    fs::remove_dir_all(local.root.join("packs")).unwrap();
    local.save(name, b"data").unwrap();
    assert_eq!(local.load(name).unwrap(), b"data");
}

#[test]
fn a_root_that_went_away_is_an_error_and_not_empty() {
    let local = scratch();
    local.save(name(ObjectKind::Index, 1), b"data").unwrap();
    fs::remove_dir_all(&local.root).unwrap();
    for kind in ObjectKind::ALL {
        assert!(matches!(local.list(kind, &mut |_, _| {}), Err(BackendError::List { .. })));
        let saved = local.save(name(kind, 2), b"data");
        assert!(matches!(saved, Err(BackendError::Io { .. })), "{saved:?}");
        let removed = local.remove(name(kind, 1));
        assert!(matches!(removed, Err(BackendError::Io { .. })), "{removed:?}");
    }
    assert!(!local.root.exists());
}

#[test]
fn stale_temporaries_are_removed() {
    let local = scratch();
    for kind in ObjectKind::ALL {
        local.save(name(kind, 1), b"whole").unwrap();
        let temporary = local.path(name(kind, 1)).with_file_name(".tmp-1-2");
        fs::write(&temporary, b"who").unwrap();
    }
    let objects = ObjectKind::ALL.len();
    assert_eq!(local.remove_stale_temporaries(Duration::from_secs(3600)).unwrap(), 0);
    assert_eq!(files_below(&local.root).len(), 2 * objects);
    assert_eq!(local.remove_stale_temporaries(Duration::ZERO).unwrap(), objects as u64);
    assert_eq!(files_below(&local.root).len(), objects);
}

#[test]
fn without_the_rename_a_link_takes_the_name() {
    let folder = TempDir::new().unwrap();
    let (from, to) = (folder.path().join(".tmp-1-2"), folder.path().join("config"));
    for place in [link_new, rename_new] {
        fs::write(&from, b"new").unwrap();
        place(&from, &to).unwrap();
        assert!(!from.exists());
        fs::write(&from, b"newer").unwrap();
        assert_eq!(place(&from, &to).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&to).unwrap(), b"new");
        fs::remove_file(&to).unwrap();
    }
}

#[test]
fn regression_link_whose_answer_was_lost() {
    let folder = TempDir::new().unwrap();
    let (from, to) = (folder.path().join(".tmp-1-2"), folder.path().join("config"));
    fs::write(&from, b"new").unwrap();
    fs::hard_link(&from, &to).unwrap();
    link_new(&from, &to).unwrap();
    assert_eq!((fs::read(&to).unwrap(), from.exists()), (b"new".to_vec(), false));
}

#[test]
fn two_processes_do_not_share_temporary_files() {
    let local = scratch();
    let other = Local::open(local.folder.path()).unwrap();
    other.temporary_next.store(local.temporary_next.load(Ordering::Relaxed), Ordering::Relaxed);
    let (mine, _) = local.create_temporary(&local.root).unwrap();
    let (theirs, _) = other.create_temporary(&local.root).unwrap();
    assert_ne!(mine, theirs);
}

//! Writes and walks folders in a fixed order, with fixed times.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

/// Creates `dir`. Refuses a folder that is not empty, so that a corpus never mixes with other data.
///
/// # Errors
/// Fails if `dir` is not empty or cannot be created.
pub fn create_empty(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("could not create the folder {}", dir.display()))?;
    let mut entries = fs::read_dir(dir).with_context(|| format!("could not read the folder {}", dir.display()))?;
    if entries.next().is_some() {
        bail!("the folder {} is not empty; name a new one", dir.display());
    }
    Ok(())
}

/// Returns the time `seconds` after 1970 (before it, if negative) plus `nanoseconds`.
pub fn time(seconds: i64, nanoseconds: u32) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
    base + Duration::from_nanos(u64::from(nanoseconds))
}

/// Writes a file and its folders. Sets its time to `unix` seconds after 1970.
///
/// # Errors
/// Fails if the file exists or cannot be written.
pub fn write(path: &Path, content: &[u8], unix: i64) -> Result<()> {
    let context = || format!("could not write {}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(context)?;
    }
    let mut file = File::create_new(path).with_context(context)?;
    file.write_all(content).with_context(context)?;
    file.set_modified(time(unix, 0)).with_context(context)
}

/// Replaces the content and the time of a file.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn replace(path: &Path, content: &[u8], unix: i64) -> Result<()> {
    let context = || format!("could not replace {}", path.display());
    fs::write(path, content).with_context(context)?;
    File::options().write(true).open(path).and_then(|file| file.set_modified(time(unix, 0))).with_context(context)
}

/// Returns `folder/stem.extension`, or `folder/stem (2).extension` and so on while that name is taken.
pub fn free_name(folder: &Path, stem: &str, extension: &str) -> PathBuf {
    let mut path = folder.join(format!("{stem}.{extension}"));
    let mut number = 2;
    while path.symlink_metadata().is_ok() {
        path = folder.join(format!("{stem} ({number}).{extension}"));
        number += 1;
    }
    path
}

/// Returns every file under `dir` whose name ends in `suffix`, sorted by path. Symbolic links are not followed.
///
/// # Errors
/// Fails if a folder cannot be read.
pub fn list(dir: &Path, suffix: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    walk(dir, &mut |path, is_dir| {
        if !is_dir && path.as_os_str().as_encoded_bytes().ends_with(suffix.as_bytes()) {
            found.push(path.to_owned());
        }
        Ok(())
    })?;
    Ok(found)
}

/// Sets the time of `dir` and of every folder below it, because writing into a folder changed its time to now.
///
/// # Errors
/// Fails if a folder cannot be read or its time cannot be set.
pub fn date_folders(dir: &Path, unix: i64) -> Result<()> {
    walk(dir, &mut |path, is_dir| {
        if is_dir {
            let dated = File::open(path).and_then(|folder| folder.set_modified(time(unix, 0)));
            dated.with_context(|| format!("could not date the folder {}", path.display()))?;
        }
        Ok(())
    })
}

/// Calls `visit` with each entry below `dir` in name order, and with each folder after its entries.
///
/// # Errors
/// Fails if a folder cannot be read or `visit` fails.
pub fn walk(dir: &Path, visit: &mut dyn FnMut(&Path, bool) -> Result<()>) -> Result<()> {
    let context = || format!("could not read the folder {}", dir.display());
    let mut entries = fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>).with_context(context)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_type().with_context(context)?.is_dir() {
            walk(&entry.path(), visit)?;
        } else {
            visit(&entry.path(), false)?;
        }
    }
    visit(dir, true)
}

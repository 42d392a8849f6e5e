//! Finds out which parts of folders to back up.

use crate::cli::error::UsageError;
use crate::local_files;
use crate::source::files::Options;
use crate::source::files::exclude::{Exclusions, patterns_of_file};
use anyhow::{Context, Result};
use clap::Args;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Maximum length of a file of patterns, in bytes.
const EXCLUDE_FILE_BYTES_MAX: u64 = 4 << 20;

/// What is left out of folders
#[derive(Args)]
pub struct Excluded {
    /// With --files: leaves out files and folders that match PATTERN, as in .gitignore; may be given several times
    #[arg(long, value_name = "PATTERN", requires = "files")]
    exclude: Vec<OsString>,
    /// With --files: reads such patterns from FILE, one on each line; may be given several times
    #[arg(long, value_name = "FILE", requires = "files")]
    exclude_file: Vec<PathBuf>,
    /// With --files: leaves out the contents of folders that a file CACHEDIR.TAG marks as caches
    #[arg(long, requires = "files")]
    exclude_caches: bool,
    /// With --files: leaves out the contents of folders that hold a file or folder NAME, such as .nobackup; may be
    /// given several times
    #[arg(long, value_name = "NAME", requires = "files")]
    exclude_if_present: Vec<OsString>,
    /// With --files: leaves out other file systems that are mounted in the folder
    #[arg(long, requires = "files")]
    one_file_system: bool,
}

/// Returns the absolute path of `path`. If `path` is a link, returns the path of the link itself.
pub fn named(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).with_context(|| format!("could not read {}", path.display()))?;
    match absolute.file_name() {
        Some(_) => Ok(absolute),
        // Only the system knows the name that `..` stands for.
        None => std::fs::canonicalize(path).with_context(|| format!("could not read {}", path.display())),
    }
}

/// Returns the absolute paths of the folders, and what to leave out of them.
pub fn options(dirs: &[PathBuf], excluded: &Excluded) -> Result<(Vec<PathBuf>, Options)> {
    let mut named_dirs = Vec::new();
    let mut found = Vec::new();
    for dir in dirs {
        let path = named(dir)?;
        match std::fs::canonicalize(&path) {
            Ok(resolved) if found.contains(&resolved) => {
                let text = format!("{} is given twice", dir.display());
                return Err(UsageError::Other(text).into());
            }
            Ok(resolved) => found.push(resolved),
            // If several folders are given, a missing one is a failure in the report.
            Err(_) if dirs.len() > 1 => {}
            Err(error) => return Err(error).with_context(|| format!("could not read {}", dir.display())),
        }
        named_dirs.push(path);
    }
    let mut patterns = Vec::new();
    for file in &excluded.exclude_file {
        patterns.extend(read_patterns(file)?);
    }
    patterns.extend(excluded.exclude.iter().map(|pattern| pattern.as_bytes().to_vec()));
    let exclude = Exclusions::new(&patterns, &named_dirs).map_err(|error| UsageError::Other(error.to_string()))?;
    let names = excluded.exclude_if_present.iter().map(|name| name.clone().into_vec());
    let exclude_if_present: Vec<_> = names.collect();
    if let Some(name) = exclude_if_present.iter().find(|name| !crate::format::entry::is_legal_name(name)) {
        let shown = crate::cli::output::path(name);
        return Err(UsageError::Other(format!("--exclude-if-present takes a file name, and {shown} is not one")).into());
    }
    let Excluded { exclude_caches, one_file_system, .. } = *excluded;
    Ok((named_dirs, Options { exclude, one_file_system, exclude_caches, exclude_if_present }))
}

fn read_patterns(file: &Path) -> Result<Vec<Vec<u8>>> {
    let text = local_files::read(file, EXCLUDE_FILE_BYTES_MAX);
    text.map(|text| patterns_of_file(&text))
        .with_context(|| format!("could not read the patterns in {}", file.display()))
}

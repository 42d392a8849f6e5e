//! `README.txt` at the root of a mount. It says what the mount is, how to unmount it, and what is missing in the
//! backups.

use super::{Layout, folder_name};
use crate::format::snapshot::Snapshot;
use crate::shown;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use strongroom_mount::Side;

/// Maximum number of failures that are listed for a snapshot.
pub(super) const FAILURES_NAMED_MAX: usize = 20;

/// Returns the text of the file. `at` is the mount point, if there is one; `snapshots` are the snapshots shown, the
/// newest first.
pub(super) fn readme<'a>(at: Option<&Path>, layout: Layout, snapshots: impl Iterator<Item = &'a Snapshot>) -> String {
    let mut text = String::from(
        "This folder shows a Strongroom backup. Everything in it is read-only: to get something back, copy it out.\n\n\
         latest       leads to the newest snapshot\n",
    );
    if layout.shows(Side::Items) {
        text += "snapshots    has a folder for each snapshot, named by its time and what was backed up\n";
    }
    if layout.shows(Side::Text) {
        text += "text         has the same folders with the text of each mail as UTF-8, for grep. Mails in\n             \
                 backups by early versions of Strongroom have no text.\n";
    }
    text += "\nNew snapshots appear here by themselves.";
    text += &match at.map(|at| shown::name(at.as_os_str().as_bytes())) {
        Some(at) => format!(" To leave, close what is open in here and run\n\n    fusermount3 -u '{at}'\n"),
        None => "\n".to_owned(),
    };
    text + &failures(snapshots)
}

/// Lists the failures in the newest snapshot of each set.
fn failures<'a>(snapshots: impl Iterator<Item = &'a Snapshot>) -> String {
    let mut text = String::new();
    let mut sets = HashSet::new();
    for snapshot in snapshots.filter(|snapshot| sets.insert(snapshot.set.as_str())) {
        let failed = snapshot.summary.failed;
        if failed == 0 {
            continue;
        }
        let folder = folder_name(snapshot);
        write!(text, "\n{folder}: {failed} of its items could not be read\n").expect("a string takes everything");
        for failure in snapshot.failures.iter().take(FAILURES_NAMED_MAX) {
            let (path, error) = (shown::name(&failure.path), shown::name(failure.error.as_bytes()));
            writeln!(text, "    {path}: {error}").expect("a string takes everything");
        }
        if failed > FAILURES_NAMED_MAX as u64 {
            text += "    and more\n";
        }
    }
    if text.is_empty() {
        return text;
    }
    format!(
        "\nThe newest snapshots are incomplete: these items are missing, or are shown as an earlier backup read them. \
         The next backup tries again.\n{text}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::snapshot::testing::snapshot_of;
    use crate::format::snapshot::{Failure, Summary};

    fn snapshot(set: &str, secs: i64, failed: u64) -> Snapshot {
        let failure = Failure { path: b"Inbox/\x1b[31m.eml".to_vec(), error: "permission denied".to_owned() };
        let failures = vec![failure; failed.min(1000) as usize];
        Snapshot { summary: Summary { failed, ..Summary::default() }, failures, ..snapshot_of(set, secs) }
    }

    #[test]
    fn it_says_how_to_leave_and_what_is_shown() {
        let text = readme(Some(Path::new("/mnt/back up")), Layout::Both, [snapshot("a", 5, 0)].iter());
        assert!(text.contains("fusermount3 -u '/mnt/back up'") && text.contains("read-only"));
        assert!(text.contains("\nsnapshots ") && text.contains("\ntext ") && !text.contains("missing"));
        let text = readme(Some(Path::new("/mnt")), Layout::Items, [].iter());
        assert!(text.contains("\nsnapshots ") && !text.contains("\ntext "));
    }

    #[test]
    fn it_names_what_failed_in_the_newest_snapshot_of_each_set() {
        let snapshots = [snapshot("a", 9, 1), snapshot("b", 8, 0), snapshot("a", 7, 3), snapshot("c", 6, 2000)];
        let text = readme(Some(Path::new("/mnt")), Layout::Both, snapshots.iter());
        assert!(text.contains(" a: 1 of its items") && !text.contains(" a: 3 of"));
        assert!(text.contains("Inbox/\\u{1b}[31m.eml: permission denied"));
        assert!(text.contains(" c: 2000 of its items") && text.ends_with("    and more\n"));
        assert_eq!(text.matches("permission denied").count(), 1 + FAILURES_NAMED_MAX);
    }
}

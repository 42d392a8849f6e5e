//! The state of a collection: its folders, the links that tell changes, and the ledger.
//!
//! A snapshot holds the state as JSON, beside the tree that it describes. So any machine can continue from the snapshot
//! (docs/repository-format.md, "Source state").

use serde::{Deserialize, Serialize};
use std::ops::AddAssign;

/// What the next run needs to know of a collection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionState {
    /// True if the folders include those that Outlook does not show.
    #[serde(default)]
    pub hidden: bool,
    /// The link that tells changes of folders. `None` if the service cannot be relied on for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder_link: Option<String>,
    /// The folders, parents before their children.
    pub folders: Vec<FolderState>,
}

/// What the next run needs to know of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderState {
    /// The id of the folder.
    pub id: String,
    /// The id of the folder that it lies in. For a top folder, `None` or an id that is not in the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The name that people see.
    pub display: String,
    /// The name in the snapshot.
    pub name: String,
    /// The well-known name, which is the same in every mailbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub well_known: Option<String>,
    /// The number of folders directly in it.
    #[serde(default)]
    pub children: u64,
    /// True if its items belong to the snapshot.
    #[serde(default)]
    pub selected: bool,
    /// The link that tells changes of its items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// When all of its items were last listed in full, in seconds since 1970 (UTC).
    #[serde(default)]
    pub listed: i64,
    /// True if export streams belong to the snapshot, and the messages without one were counted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub streams: bool,
    /// The number of the comparison that everything in it has passed (`collections::mail::audit`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub compared: u32,
    /// The name of the last item that the next comparison has reached. `None` if it has not begun or is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared_to: Option<String>,
    /// The counts.
    #[serde(default)]
    pub ledger: Ledger,
    /// The items that could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<FailedItem>,
    /// Why the folder as a whole could not be read. The snapshot then has it as it was before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// An item that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedItem {
    /// Its id.
    pub id: String,
    /// Its name in the snapshot, or the name it would get.
    pub name: String,
    /// Why it could not be read.
    pub reason: String,
}

/// What became of every item of a folder: `enumerated = stored + carried + failed`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The number of items of any kind that the service counts. It may change at any time.
    pub counted: u64,
    /// The number of items that the service listed.
    pub enumerated: u64,
    /// The number of items that this run wrote.
    pub stored: u64,
    /// The number of items that are as an earlier run wrote them.
    pub carried: u64,
    /// The number of items that could not be read. The snapshot may have an older version of them.
    pub failed: u64,
    /// The number of items in the snapshot without an export stream although the set asks for streams.
    #[serde(default)]
    pub streamless: u64,
}

impl Ledger {
    /// Returns true if no item is missing.
    pub fn adds_up(&self) -> bool {
        self.enumerated == self.stored + self.carried + self.failed
    }
}

impl AddAssign for Ledger {
    fn add_assign(&mut self, other: Self) {
        self.counted += other.counted;
        self.enumerated += other.enumerated;
        self.stored += other.stored;
        self.carried += other.carried;
        self.failed += other.failed;
        self.streamless += other.streamless;
    }
}

impl CollectionState {
    /// Returns the path of the folder at `index`, from the directory that holds the top folders.
    pub fn path(&self, index: usize) -> String {
        path_of(&self.folders, index)
    }

    /// Returns the sum of the counts of all folders.
    pub fn ledger(&self) -> Ledger {
        sum_of(&self.folders)
    }

    /// Counts everything as carried over from an earlier run, except what failed.
    pub fn carry(&mut self) {
        self.folders.iter_mut().for_each(FolderState::carry);
    }
}

impl FolderState {
    /// Counts everything of the folder as carried over from an earlier run, except what failed.
    pub fn carry(&mut self) {
        self.ledger.carried += std::mem::take(&mut self.ledger.stored);
    }
}

/// Returns the path of the folder at `index`, from the directory that holds the top folders. Parents stand before their
/// children.
pub fn path_of(folders: &[FolderState], index: usize) -> String {
    let folder = &folders[index];
    match parent_of(folders, index) {
        Some(parent) => format!("{}/{}", path_of(folders, parent), folder.name),
        None => folder.name.clone(),
    }
}

/// Returns the number of the folder that the one at `index` lies in, or `None` for a top folder.
pub fn parent_of(folders: &[FolderState], index: usize) -> Option<usize> {
    let parent = folders[index].parent.as_deref()?;
    folders[..index].iter().position(|folder| folder.id == parent)
}

/// Returns the names of the top folders.
pub fn tops_of(folders: &[FolderState]) -> impl Iterator<Item = &str> {
    let is_top = |index: &usize| parent_of(folders, *index).is_none();
    (0..folders.len()).filter(is_top).map(|index| folders[index].name.as_str())
}

/// Returns the sum of the counts of all folders that belong to the snapshot.
pub fn sum_of(folders: &[FolderState]) -> Ledger {
    let mut sum = Ledger::default();
    folders.iter().filter(|folder| folder.selected).for_each(|folder| sum += folder.ledger);
    sum
}

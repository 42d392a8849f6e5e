//! What a snapshot says of a collection beside its tree: its folders, where to ask for changes, and the ledger.
//!
//! It is JSON and stands in the snapshot that holds the tree it describes, so that any machine can continue from there
//! (docs/repository-format.md, "Source state").

use serde::{Deserialize, Serialize};
use std::ops::AddAssign;

/// What the next run needs to know of a collection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionState {
    /// Whether folders that Outlook does not show are among them.
    #[serde(default)]
    pub hidden: bool,
    /// Where to ask what became of its folders; none if that is not to be relied on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder_link: Option<String>,
    /// Its folders, parents before their children.
    pub folders: Vec<FolderState>,
}

/// What the next run needs to know of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderState {
    /// Its id.
    pub id: String,
    /// The folder it lies in; none, or one that is not listed, at the top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The name that people see.
    pub display: String,
    /// Its name in the snapshot.
    pub name: String,
    /// The name that it has in every mailbox, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub well_known: Option<String>,
    /// How many folders lay in it.
    #[serde(default)]
    pub children: u64,
    /// Whether its items belong to the snapshot.
    #[serde(default)]
    pub selected: bool,
    /// Where to ask for changes of its items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// When all of its items were listed last, in seconds since 1970.
    #[serde(default)]
    pub listed: i64,
    /// Whether export streams belong to the snapshot, and what lacks one was counted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub streams: bool,
    /// Which comparison everything in it has passed (`collections::mail::audit`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub compared: u32,
    /// The name up to which that has been looked at, where there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared_to: Option<String>,
    /// The counts.
    #[serde(default)]
    pub ledger: Ledger,
    /// The items that could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<FailedItem>,
    /// Why the folder as a whole could not be read; what stands in the snapshot is as it was before.
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
    /// What it is or would be called.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Where every item of a folder went: `enumerated = stored + carried + failed`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// What the service counted, of any kind; changes while one looks.
    pub counted: u64,
    /// What it listed.
    pub enumerated: u64,
    /// What this run wrote.
    pub stored: u64,
    /// What stands as an earlier run wrote it.
    pub carried: u64,
    /// What could not be read as it is now; an older version may stand in its place.
    pub failed: u64,
    /// Of all that stands there, what has no export stream although the set asks for them.
    #[serde(default)]
    pub streamless: u64,
}

impl Ledger {
    /// Returns whether nothing is missing.
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
    /// Returns the path of the folder at `index` below the collection.
    pub fn path(&self, index: usize) -> String {
        path_of(&self.folders, index)
    }

    /// Returns the counts of all folders together.
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

/// Returns the path of the folder at `index` below the collection. Parents stand before their children.
pub fn path_of(folders: &[FolderState], index: usize) -> String {
    let folder = &folders[index];
    match parent_of(folders, index) {
        Some(parent) => format!("{}/{}", path_of(folders, parent), folder.name),
        None => folder.name.clone(),
    }
}

/// Returns the number of the folder that the one at `index` lies in; none for one at the top.
pub fn parent_of(folders: &[FolderState], index: usize) -> Option<usize> {
    let parent = folders[index].parent.as_deref()?;
    folders[..index].iter().position(|folder| folder.id == parent)
}

/// Returns the counts of all folders together that belong to the snapshot.
pub fn sum_of(folders: &[FolderState]) -> Ledger {
    let mut sum = Ledger::default();
    folders.iter().filter(|folder| folder.selected).for_each(|folder| sum += folder.ledger);
    sum
}

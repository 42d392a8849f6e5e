//! An item as a listing of the service tells of it.

use crate::format::entry::Entry;
use serde::de::DeserializeOwned;

/// An item as a listing of the service tells of it.
pub trait Item: DeserializeOwned + Send + Sync + 'static {
    /// Returns its id, which stays the same when it moves.
    fn id(&self) -> &str;

    /// Returns its version, which differs after every change. Only a partial row has none.
    fn version(&self) -> Option<&str>;

    /// Returns the id of the folder it lies in. Only a partial row has none.
    fn folder(&self) -> Option<&str>;

    /// Returns the date by which items are put in order, in seconds since 1970.
    fn date(&self) -> Option<i64>;

    /// Returns whether the row says that it left the folder.
    fn is_removed(&self) -> bool;

    /// Returns the JSON text as it came, unknown properties included. Reading it gives the same item.
    fn json(&self) -> &str;
}

/// Stands for an item's id, which is long; two ids never meet in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemKey(pub [u8; 16]);

impl ItemKey {
    /// Returns the key of the item with this id.
    pub fn of(id: &str) -> Self {
        let hash = blake3::hash(id.as_bytes());
        Self(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
    }
}

/// Returns the id of an item in a snapshot; folders, and what this program adds, have none here.
pub fn item_id(entry: &Entry) -> Option<&str> {
    entry.content().and(entry.facts.source_id.as_deref())
}

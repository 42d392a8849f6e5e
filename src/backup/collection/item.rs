//! An item, as a row of the service's listings describes it.

use crate::format::entry::Entry;
use serde::de::DeserializeOwned;

/// An item, as a row of the service's listings describes it.
pub trait Item: DeserializeOwned + Send + Sync + 'static {
    /// Returns the id of the item. It stays the same when the item moves.
    fn id(&self) -> &str;

    /// Returns the version of the item. It differs after every change. Only a partial row has none.
    fn version(&self) -> Option<&str>;

    /// Returns the id of the folder that the item lies in. Only a partial row has none.
    fn folder(&self) -> Option<&str>;

    /// Returns the date by which the items of a folder are sorted, in seconds since 1970 (UTC).
    fn date(&self) -> Option<i64>;

    /// Returns true if the row says that the item left the folder.
    fn is_removed(&self) -> bool;

    /// Returns true if the row has everything that a backup needs. A partial row tells only what changed, and the item
    /// has to be requested by its id.
    fn is_whole(&self) -> bool {
        self.version().is_some() && self.folder().is_some()
    }

    /// Returns the JSON text as it came, unknown properties included. Parsing it gives the same item.
    fn json(&self) -> &str;
}

/// A hash of an item's id, which is long. Two different ids do not have the same hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemKey(pub [u8; 16]);

impl ItemKey {
    /// Returns the key of the item with the id `id`.
    pub fn of(id: &str) -> Self {
        let hash = blake3::hash(id.as_bytes());
        Self(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
    }
}

/// Returns the id of the item behind an entry of a snapshot. Folders, and files that this program adds, have none.
pub fn item_id(entry: &Entry) -> Option<&str> {
    entry.content().and(entry.facts.source_id.as_deref())
}

//! What the service said of a message when it was backed up. A message that was imported from an export stream is
//! compared with it, because its MIME form is not what was sent.

use super::compare::comparable;
use crate::source::graph::model::{MessageRow, parse_date};
use crate::source::graph::write::Standing;
use serde_json::Value;

/// Properties that nobody changes after a message has arrived.
const FIXED_PROPERTIES: [&str; 7] =
    ["subject", "internetMessageId", "sentDateTime", "receivedDateTime", "isDraft", "hasAttachments", "bodyPreview"];
/// Properties that people change. They are compared only right after the import.
const CHANGING_PROPERTIES: [&str; 4] = ["isRead", "flag", "categories", "importance"];

/// What the service said of a message when it was backed up.
pub(super) struct BackedUpProperties {
    value: Value,
    /// The `Message-ID`.
    pub message_id: Option<String>,
    /// When the message arrived, in seconds since 1970.
    pub received: Option<i64>,
    subject: Option<String>,
    /// The mark that the message had from an earlier restore. An import brings this mark back.
    mark: Option<String>,
}

impl BackedUpProperties {
    /// Reads the JSON that is stored beside a message.
    pub fn read(json: &[u8]) -> Option<Self> {
        let row: MessageRow = serde_json::from_slice(json).ok()?;
        let value: Value = serde_json::from_slice(json).ok()?;
        Some(Self {
            message_id: value["internetMessageId"].as_str().filter(|id| !id.is_empty()).map(str::to_owned),
            received: row.received_date_time.as_deref().and_then(parse_date),
            mark: row.mark().map(str::to_owned),
            subject: row.subject,
            value,
        })
    }

    /// Returns true if an existing message can be the one that an import of this message has made.
    pub fn may_be(&self, existing: &Standing) -> bool {
        existing.mark == self.mark
            && existing.received == self.received
            && existing.subject.as_deref().unwrap_or_default() == self.subject.as_deref().unwrap_or_default()
            && (self.message_id.is_none() || existing.internet_message_id == self.message_id)
    }

    /// Returns how the message `found` in `folder` differs from this one, or `None` if it does not. `is_new` says that
    /// it was just imported.
    pub fn difference(&self, found: &Value, folder: &str, is_new: bool) -> Option<String> {
        let is_known = |name: &&&str| self.value.get(**name).is_some_and(|known| !known.is_null());
        let differs = |name: &&&str| comparable(name, &found[**name]) != comparable(name, &self.value[**name]);
        let changing = if is_new { &CHANGING_PROPERTIES[..] } else { &[] };
        let compared = FIXED_PROPERTIES.iter().chain(changing);
        let mut different: Vec<_> = compared.filter(is_known).filter(differs).copied().collect();
        if found["parentFolderId"] != folder {
            different.push("parentFolderId");
        }
        (!different.is_empty()).then(|| format!("what was read back differs: {}", different.join(", ")))
    }
}

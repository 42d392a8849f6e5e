//! The JSON of folders and messages in Graph, as far as it is used. The raw text keeps everything else.

use serde::Deserialize;
use serde_json::value::RawValue;

/// The property that holds the mark (Graph: "Outlook extended properties overview"). The GUID is Strongroom's own.
pub(super) const MARK: &str = "String {6f0c1d5b-3a52-4b7e-9d0e-2b7c8a41e6f3} Name StrongroomItem";

/// A mail folder (Graph: mailFolder).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MailFolder {
    /// The id, which stays the same when the folder is renamed or moved.
    pub id: String,
    /// The display name, in the language of the mailbox.
    pub display_name: Option<String>,
    /// The id of the folder that this one lies in.
    pub parent_folder_id: Option<String>,
    /// The number of folders directly in it.
    #[serde(default)]
    pub child_folder_count: u64,
    /// The number of items of any kind in it. It may change at any time.
    pub total_item_count: Option<u64>,
    /// True if Outlook does not show the folder.
    #[serde(default)]
    pub is_hidden: bool,
    /// `#microsoft.graph.mailSearchFolder` for a search folder, whose messages lie elsewhere.
    #[serde(rename = "@odata.type")]
    pub odata_type: Option<String>,
    /// Present in a row of a delta if the folder was removed.
    #[serde(rename = "@removed")]
    pub removed: Option<serde::de::IgnoredAny>,
}

impl MailFolder {
    /// Returns true for a search folder, whose messages lie in other folders.
    pub fn is_search(&self) -> bool {
        self.odata_type.as_deref().is_some_and(|kind| kind.ends_with("mailSearchFolder"))
    }
}

/// A recipient (Graph: recipient).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recipient {
    /// The address; for some recipients an X.500 name.
    pub email_address: Option<EmailAddress>,
}

/// An address with a name (Graph: emailAddress).
#[derive(Debug, Clone, Deserialize)]
pub struct EmailAddress {
    /// The display name.
    pub name: Option<String>,
    /// The address.
    pub address: Option<String>,
}

/// A property of the mailbox store (Graph: singleValueLegacyExtendedProperty).
#[derive(Debug, Clone, Deserialize)]
pub struct ExtendedProperty {
    /// Type and tag, such as `Integer 0xe08`.
    pub id: String,
    /// The value as text.
    pub value: Option<String>,
}

/// A row of a listing: the properties that this program uses, and the whole text.
#[derive(Debug, Clone)]
pub struct Message {
    /// The properties that this program uses.
    pub row: MessageRow,
    /// The JSON text as it came, including unknown properties.
    pub raw: Box<RawValue>,
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let row = serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)?;
        Ok(Self { row, raw })
    }
}

/// The properties of a message that this program uses (Graph: message).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageRow {
    /// The immutable id.
    pub id: String,
    /// The version of the message. It differs after every change, even of the read flag.
    pub change_key: Option<String>,
    /// The id of the folder that the message lies in.
    pub parent_folder_id: Option<String>,
    /// When the message arrived.
    pub received_date_time: Option<String>,
    /// When the message was sent.
    pub sent_date_time: Option<String>,
    /// When the message was created.
    pub created_date_time: Option<String>,
    /// The `Message-ID`. Copies of a message share it, and drafts may lack it.
    pub internet_message_id: Option<String>,
    /// The subject.
    pub subject: Option<String>,
    /// The author.
    pub from: Option<Recipient>,
    /// The person who sent it on behalf of the author.
    pub sender: Option<Recipient>,
    /// True if the message is marked as read.
    pub is_read: Option<bool>,
    /// True if the message was not sent yet.
    pub is_draft: Option<bool>,
    /// The flag for follow-up.
    pub flag: Option<FollowupFlag>,
    /// Properties of the mailbox store.
    #[serde(default)]
    pub single_value_extended_properties: Vec<ExtendedProperty>,
    /// Present in a row of a delta if the message left the folder.
    #[serde(rename = "@removed")]
    pub removed: Option<serde::de::IgnoredAny>,
}

/// A flag for follow-up (Graph: followupFlag).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FollowupFlag {
    /// `notFlagged`, `complete` or `flagged`.
    pub flag_status: Option<String>,
}

impl MessageRow {
    /// Returns when the message arrived, in seconds since 1970 (UTC). If that is unknown, returns when it was sent or
    /// created.
    pub fn date(&self) -> Option<i64> {
        [&self.received_date_time, &self.sent_date_time, &self.created_date_time]
            .into_iter()
            .flatten()
            .find_map(|text| parse_date(text))
    }

    /// Returns the size in bytes in the mailbox store (PidTagMessageSize).
    pub fn size(&self) -> Option<u64> {
        self.property(0x0e08)?.parse().ok()
    }

    /// Returns the value of the property with this tag. The service writes tags in upper or lower case, with or without
    /// leading zeros.
    pub fn property(&self, tag: u32) -> Option<&str> {
        let of_tag = |property: &&ExtendedProperty| {
            let hex = property.id.split(' ').nth(1).and_then(|tag| tag.get(2..));
            hex.is_some_and(|hex| u32::from_str_radix(hex, 16) == Ok(tag))
        };
        self.single_value_extended_properties.iter().find(of_tag)?.value.as_deref()
    }

    /// Returns the mark that a restore gave the message, if there is one.
    pub fn mark(&self) -> Option<&str> {
        let is_mark = |property: &&ExtendedProperty| property.id.eq_ignore_ascii_case(MARK);
        self.single_value_extended_properties.iter().find(is_mark)?.value.as_deref()
    }

    /// Returns the author as `Name <address>`.
    pub fn author(&self) -> Option<String> {
        let address = self.from.as_ref().or(self.sender.as_ref())?.email_address.as_ref()?;
        match (address.name.as_deref().filter(|name| !name.is_empty()), address.address.as_deref()) {
            (Some(name), Some(address)) => Some(format!("{name} <{address}>")),
            (Some(name), None) => Some(name.to_owned()),
            (None, address) => address.map(str::to_owned),
        }
    }
}

/// Parses a date, in seconds since 1970. Returns `None` for the value of an unset date, `0001-01-01T00:00:00Z`.
pub fn parse_date(text: &str) -> Option<i64> {
    if text.starts_with("0001-") {
        return None;
    }
    text.parse::<jiff::Timestamp>().ok().map(|time| time.as_second())
}

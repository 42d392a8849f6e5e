//! What Graph says of folders and messages, as far as it is used. What else it says stays in the raw text.

use serde::Deserialize;
use serde_json::value::RawValue;

/// A mail folder (Graph: mailFolder).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MailFolder {
    /// Stays the same when the folder is renamed or moved.
    pub id: String,
    /// The name people see, in the mailbox's language.
    pub display_name: Option<String>,
    /// The folder it lies in.
    pub parent_folder_id: Option<String>,
    /// How many folders lie in it.
    #[serde(default)]
    pub child_folder_count: u64,
    /// How many items of any kind lie in it; changes while one looks.
    pub total_item_count: Option<u64>,
    /// Whether Outlook does not show it.
    #[serde(default)]
    pub is_hidden: bool,
    /// `#microsoft.graph.mailSearchFolder` for one whose messages lie elsewhere.
    #[serde(rename = "@odata.type")]
    pub odata_type: Option<String>,
    /// Present when it was removed; a row of a delta then.
    #[serde(rename = "@removed")]
    pub removed: Option<serde::de::IgnoredAny>,
}

impl MailFolder {
    /// Returns whether its messages lie in other folders.
    pub fn is_search(&self) -> bool {
        self.odata_type.as_deref().is_some_and(|kind| kind.ends_with("mailSearchFolder"))
    }
}

/// A recipient (Graph: recipient).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recipient {
    /// The address; an X.500 name for some.
    pub email_address: Option<EmailAddress>,
}

/// An address with a name (Graph: emailAddress).
#[derive(Debug, Clone, Deserialize)]
pub struct EmailAddress {
    /// The name people see.
    pub name: Option<String>,
    /// The address.
    pub address: Option<String>,
}

/// A property of the store beneath (Graph: singleValueLegacyExtendedProperty).
#[derive(Debug, Clone, Deserialize)]
pub struct ExtendedProperty {
    /// Type and tag, such as `Integer 0xe08`.
    pub id: String,
    /// The value as text.
    pub value: Option<String>,
}

/// A message as a listing tells it: what decides what to do with it, and everything that was said of it.
#[derive(Debug, Clone)]
pub struct Message {
    /// What is looked at.
    pub row: MessageRow,
    /// The JSON text as it came, unknown properties included.
    pub raw: Box<RawValue>,
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let row = serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)?;
        Ok(Self { row, raw })
    }
}

/// The properties of a message that are looked at (Graph: message).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageRow {
    /// The immutable id.
    pub id: String,
    /// Differs after every change, the read flag included.
    pub change_key: Option<String>,
    /// The folder it lies in.
    pub parent_folder_id: Option<String>,
    /// When it arrived.
    pub received_date_time: Option<String>,
    /// When it was sent.
    pub sent_date_time: Option<String>,
    /// When it was made.
    pub created_date_time: Option<String>,
    /// Its `Message-ID`, which copies of it share and drafts may lack.
    pub internet_message_id: Option<String>,
    /// The subject.
    pub subject: Option<String>,
    /// Who it is from.
    pub from: Option<Recipient>,
    /// Who sent it, on behalf of whom it is from.
    pub sender: Option<Recipient>,
    /// Whether it was read.
    pub is_read: Option<bool>,
    /// Whether it was not sent yet.
    pub is_draft: Option<bool>,
    /// Whether it asks to be followed up.
    pub flag: Option<FollowupFlag>,
    /// Properties of the store beneath.
    #[serde(default)]
    pub single_value_extended_properties: Vec<ExtendedProperty>,
    /// Present when it left the folder.
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
    /// Returns when the message arrived or, failing that, was sent or made, in seconds since 1970 (UTC).
    pub fn date(&self) -> Option<i64> {
        [&self.received_date_time, &self.sent_date_time, &self.created_date_time]
            .into_iter()
            .flatten()
            .find_map(|text| parse_date(text))
    }

    /// Returns the size in bytes that the store beneath gives (PidTagMessageSize).
    pub fn size(&self) -> Option<u64> {
        self.property(0x0e08)?.parse().ok()
    }

    /// Returns the value of the property with this tag. The service writes tags in either case, with or without zeros.
    pub fn property(&self, tag: u32) -> Option<&str> {
        let of_tag = |property: &&ExtendedProperty| {
            let hex = property.id.split(' ').nth(1).and_then(|tag| tag.get(2..));
            hex.is_some_and(|hex| u32::from_str_radix(hex, 16) == Ok(tag))
        };
        self.single_value_extended_properties.iter().find(of_tag)?.value.as_deref()
    }

    /// Returns the mark that a restore gave it, if one did.
    pub fn mark(&self) -> Option<&str> {
        let is_mark = |property: &&ExtendedProperty| property.id.eq_ignore_ascii_case(super::write::MARK);
        self.single_value_extended_properties.iter().find(is_mark)?.value.as_deref()
    }

    /// Returns `Name <address>` of whom it is from.
    pub fn author(&self) -> Option<String> {
        let address = self.from.as_ref().or(self.sender.as_ref())?.email_address.as_ref()?;
        match (address.name.as_deref().filter(|name| !name.is_empty()), address.address.as_deref()) {
            (Some(name), Some(address)) => Some(format!("{name} <{address}>")),
            (Some(name), None) => Some(name.to_owned()),
            (None, address) => address.map(str::to_owned),
        }
    }
}

/// Reads a moment; none for the sentinel of an unset one (`0001-01-01T00:00:00Z`).
pub fn parse_date(text: &str) -> Option<i64> {
    if text.starts_with("0001-") {
        return None;
    }
    text.parse::<jiff::Timestamp>().ok().map(|time| time.as_second())
}

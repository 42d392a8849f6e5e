//! Ids like those of Exchange: opaque to clients. Here they are decoded instead of looked up.
//!
//! An id contains what it identifies (mailbox, kind, key), so a million messages need no table of ids. An item has two
//! ids: the immutable one, and the default one, which contains the number of moves and becomes invalid
//! with the next move. An id is accepted only if encoding its meaning again gives exactly the same characters, because
//! ids are case-sensitive, and some differ only in case.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use strongroom_corpora::rng::Rng;

/// Identifies a mailbox inside ids.
pub type MailboxGuid = [u8; 16];

/// Identifies a folder of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FolderKey(pub u32);

/// Identifies an item of a mailbox, which is a message, a contact, an event or a task, even after moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageKey(pub u32);

/// Format in which the id of a message is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IdFormat {
    /// Changes when the message moves.
    #[default]
    Default,
    /// Stays the same while the message is in its mailbox (`Prefer: IdType="ImmutableId"`).
    Immutable,
}

/// What an id identifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A folder. Its id is the same in both formats.
    Folder(FolderKey),
    /// An item by its immutable id.
    Message(MessageKey),
    /// An item by its default id, which is valid while the item has made this many moves.
    MessageInPlace(MessageKey, u32),
    /// An attachment: its message, the edition of the message's content, and its number. A default id also contains the
    /// moves.
    Attachment {
        /// The message that has the attachment.
        message: MessageKey,
        /// Number of moves of the message, in a default id.
        moves: Option<u32>,
        /// Edition of the message's content.
        edition: u32,
        /// Number of the attachment in the message.
        number: u32,
    },
    /// An occurrence of a series, or the exception in its place.
    Occurrence {
        /// The series.
        event: MessageKey,
        /// Number of moves of the series, in a default id.
        moves: Option<u32>,
        /// Edition of the series. The ids of all occurrences change when its pattern changes.
        edition: u32,
        /// The day of the occurrence by the pattern, in days since 1970.
        day: i32,
    },
}

const FOLDER: u8 = 1;
const MESSAGE: u8 = 2;
const MESSAGE_IN_PLACE: u8 = 3;
const ATTACHMENT: u8 = 4;
const ATTACHMENT_IN_PLACE: u8 = 5;
const OCCURRENCE: u8 = 6;
const OCCURRENCE_IN_PLACE: u8 = 7;

impl Named {
    /// Returns the characters of the id: 120 for folders, 72 or 152 for items, 108 or 196 for attachments, 144 or 228
    /// for occurrences.
    pub fn encode(self, mailbox: &MailboxGuid) -> String {
        // Ids of Exchange begin with `AQMk`, `AAMk` or `AAkA`. A length of 3n + 2 bytes makes them end with one `=`.
        let (kind, prefix, len, numbers): (u8, [u8; 3], usize, [u32; 4]) = match self {
            Self::Folder(key) => (FOLDER, [0x01, 0x03, 0x24], 89, [0, 0, 0, key.0]),
            Self::Message(key) => (MESSAGE, [0x00, 0x09, 0x00], 53, [0, 0, 0, key.0]),
            Self::MessageInPlace(key, moves) => (MESSAGE_IN_PLACE, [0x00, 0x03, 0x24], 113, [0, 0, moves, key.0]),
            Self::Attachment { message, moves: None, edition, number } => {
                (ATTACHMENT, [0x00, 0x09, 0x00], 80, [0, message.0, edition, number])
            }
            Self::Attachment { message, moves: Some(moves), edition, number } => {
                (ATTACHMENT_IN_PLACE, [0x00, 0x03, 0x24], 146, [moves, message.0, edition, number])
            }
            Self::Occurrence { event, moves: None, edition, day } => {
                (OCCURRENCE, [0x00, 0x09, 0x00], 107, [0, event.0, edition, day.cast_unsigned()])
            }
            Self::Occurrence { event, moves: Some(moves), edition, day } => {
                (OCCURRENCE_IN_PLACE, [0x00, 0x03, 0x24], 170, [moves, event.0, edition, day.cast_unsigned()])
            }
        };
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(&prefix);
        // Every id contains `-` and `_`, so that a client that does not encode them correctly in a path fails at once.
        bytes.extend_from_slice(&[0x03, 0xef, 0xc0]);
        bytes.extend_from_slice(mailbox);
        bytes.push(kind);
        let mut filler = Rng::new(u64::from_le_bytes(mailbox[..8].try_into().expect("eight bytes")) ^ u64::from(kind));
        bytes.extend_from_slice(&filler.bytes(len - bytes.len() - 16));
        for number in numbers {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        URL_SAFE.encode(bytes)
    }

    /// Returns what `id` identifies in `mailbox`, or `None` for anything that this mailbox never issued.
    pub fn decode(id: &str, mailbox: &MailboxGuid) -> Option<Self> {
        let bytes = URL_SAFE.decode(id).ok()?;
        let kind = *bytes.get(22)?;
        let number = |from_end: usize| {
            let end = bytes.len().checked_sub(4 * from_end)?;
            Some(u32::from_be_bytes(bytes.get(end..end + 4)?.try_into().expect("four bytes")))
        };
        let named = match kind {
            FOLDER => Self::Folder(FolderKey(number(1)?)),
            MESSAGE => Self::Message(MessageKey(number(1)?)),
            MESSAGE_IN_PLACE => Self::MessageInPlace(MessageKey(number(1)?), number(2)?),
            ATTACHMENT | ATTACHMENT_IN_PLACE => Self::Attachment {
                message: MessageKey(number(3)?),
                moves: if kind == ATTACHMENT { None } else { Some(number(4)?) },
                edition: number(2)?,
                number: number(1)?,
            },
            OCCURRENCE | OCCURRENCE_IN_PLACE => Self::Occurrence {
                event: MessageKey(number(3)?),
                moves: if kind == OCCURRENCE { None } else { Some(number(4)?) },
                edition: number(2)?,
                day: number(1)?.cast_signed(),
            },
            _ => return None,
        };
        (named.encode(mailbox) == id).then_some(named)
    }
}

/// Returns the change key for change number `change` of a mailbox.
pub fn change_key(mailbox: &MailboxGuid, change: u64) -> String {
    let mut bytes = vec![0x09, 0, 0, 0, 0x16, 0];
    bytes.extend_from_slice(mailbox);
    bytes.extend_from_slice(&change.to_be_bytes());
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_are_those_of_exchange() {
        let id = |named: Named| named.encode(&[7; 16]);
        assert_eq!(id(Named::Message(MessageKey(1))).len(), 72);
        assert_eq!(id(Named::MessageInPlace(MessageKey(1), 0)).len(), 152);
        assert_eq!(id(Named::Folder(FolderKey(1))).len(), 120);
        for text in [id(Named::Message(MessageKey(1))), id(Named::Folder(FolderKey(1)))] {
            assert!(text.contains('-') && text.contains('_') && text.ends_with('='), "{text}");
        }
    }

    #[test]
    fn some_ids_differ_in_case_only() {
        let ids: Vec<String> = (0..2_000).map(|key| Named::Message(MessageKey(key)).encode(&[7; 16])).collect();
        let lower: std::collections::BTreeSet<String> = ids.iter().map(|id| id.to_ascii_lowercase()).collect();
        assert!(lower.len() < ids.len());
    }

    proptest! {
        #[test]
        fn ids_are_reversible_and_belong_to_one_mailbox(
            key: u32, moves: u32, edition: u32, number: u32, mailbox: [u8; 16], other: [u8; 16],
        ) {
            prop_assume!(mailbox != other);
            let message = MessageKey(key);
            for named in [
                Named::Folder(FolderKey(key)),
                Named::Message(message),
                Named::MessageInPlace(message, moves),
                Named::Attachment { message, moves: None, edition, number },
                Named::Attachment { message, moves: Some(moves), edition, number },
                Named::Occurrence { event: message, moves: None, edition, day: number.cast_signed() },
                Named::Occurrence { event: message, moves: Some(moves), edition, day: number.cast_signed() },
            ] {
                let id = named.encode(&mailbox);
                prop_assert_eq!(Named::decode(&id, &mailbox), Some(named));
                prop_assert_eq!(Named::decode(&id, &other), None);
                prop_assert_eq!(Named::decode(&id[1..], &mailbox), None);
            }
        }

        #[test]
        fn nothing_else_is_an_id(text in ".{0,200}") {
            prop_assert_eq!(Named::decode(&text, &[7; 16]), None);
        }
    }
}

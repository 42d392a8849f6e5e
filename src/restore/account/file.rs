//! Something that is attached to a mail, on its way to the service.
//!
//! Of a mail with many large files one file at a time is in memory: while the mail is taken apart each is decoded once,
//! to know its length and hash, and let go. Only what fits into the request that makes the message stays
//! ([`KEPT_BYTES_MAX`]). The others are read again from the stored mail when their turn comes.

use super::verify::Print;
use crate::content::mail::transfer::Encoding;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use std::ops::Range;

/// Maximum number of bytes that stay in memory of all that is attached to one mail. No less than what one request may
/// carry.
pub(super) const KEPT_BYTES_MAX: u64 = 4 << 20;

/// Something that is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub name: String,
    pub content_type: String,
    pub inline: bool,
    pub content_id: Option<String>,
    pub content_location: Option<String>,
    /// Length and hash of its bytes.
    pub print: Print,
    pub bytes: FileBytes,
}

/// Where the bytes of a file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FileBytes {
    /// In memory.
    Kept(Bytes),
    /// In the mail, as it is stored.
    InMail {
        /// What stands before them.
        prefix: Bytes,
        /// Where they are, in bytes of the mail.
        range: Range<usize>,
        /// How they are encoded there.
        encoding: Encoding,
    },
}

impl FileBytes {
    /// Decodes what a stored mail holds at the range of a file.
    pub fn decode(prefix: &[u8], encoding: Encoding, stored: &[u8]) -> Bytes {
        let decoded = encoding.of(stored).decoded(usize::MAX);
        match (prefix.is_empty(), decoded) {
            (true, decoded) => decoded.into_owned().into(),
            (false, decoded) => [prefix, &decoded].concat().into(),
        }
    }
}

impl File {
    /// Returns the length in bytes.
    pub fn len(&self) -> u64 {
        self.print.0
    }

    /// Returns it as it is attached in one request (Graph: fileAttachment).
    pub fn json(&self, bytes: &[u8]) -> Value {
        let mut file = json!({
            "@odata.type": "#microsoft.graph.fileAttachment",
            "name": self.name,
            "contentType": self.content_type,
            "isInline": self.inline,
            "contentBytes": STANDARD.encode(bytes),
        });
        for (name, value) in [("contentId", &self.content_id), ("contentLocation", &self.content_location)] {
            if let Some(value) = value {
                file[name] = json!(value);
            }
        }
        file
    }

    /// Returns how it is announced when it comes in ranges (Graph: attachmentItem).
    pub fn announcement(&self) -> Value {
        let mut item = json!({
            "attachmentType": "file",
            "name": self.name,
            "size": self.len(),
            "contentType": self.content_type,
            "isInline": self.inline,
        });
        if let Some(id) = &self.content_id {
            item["contentId"] = json!(id);
        }
        item
    }

    /// Returns how long it is as part of a request.
    pub fn request_len(&self) -> usize {
        (self.len().div_ceil(3) * 4) as usize + self.name.len() + 512
    }
}

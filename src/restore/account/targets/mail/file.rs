//! A file that is attached to a message.
//!
//! Only one of many large files is in memory at a time. When a message is taken apart, each file is decoded once, to
//! compute its length and hash, and released. Only files that fit into the request that creates the message stay in
//! memory ([`KEPT_BYTES_MAX`]). The others are read again from the stored message when they are attached.

use super::fingerprint::Fingerprint;
use crate::content::mail::transfer::Encoding;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use std::ops::Range;

/// Maximum size of the files of one message that stay in memory, in bytes. At least what one request may hold.
pub(super) const KEPT_BYTES_MAX: u64 = 4 << 20;

/// A file that is attached to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub name: String,
    pub content_type: String,
    pub inline: bool,
    pub content_id: Option<String>,
    pub content_location: Option<String>,
    /// The length and the hash of its bytes.
    pub fingerprint: Fingerprint,
    pub bytes: FileBytes,
}

/// Where the bytes of a file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FileBytes {
    /// In memory.
    Kept(Bytes),
    /// In the stored message.
    InMail {
        /// Bytes that come before them.
        prefix: Bytes,
        /// Where they are, in bytes of the stored message.
        range: Range<usize>,
        /// How they are encoded there.
        encoding: Encoding,
    },
}

impl FileBytes {
    /// Decodes the bytes that the stored message has at the range of a file.
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
        self.fingerprint.len
    }

    /// Returns the request that attaches it as a whole (Graph: fileAttachment).
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

    /// Returns the request that begins to upload it in ranges (Graph: attachmentItem).
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

    /// Returns how many bytes it takes in a request, at most.
    pub fn request_len(&self) -> usize {
        (self.len().div_ceil(3) * 4) as usize + self.name.len() + 512
    }
}

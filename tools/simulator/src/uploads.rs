//! Upload sessions: a client uploads a large attachment in ranges, to a URL that contains the permission.
//!
//! This module keeps the state of sessions, without HTTP. Ranges must come in order and without gaps, the total size is
//! given at the beginning, and the last range creates the attachment. The URL has a path of its own, as if it were on
//! another host, and needs no token ("Attach large files to Outlook messages or events").

mod http;

use std::collections::HashMap;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde::Deserialize;
use strongroom_corpora::rng::Rng;

use crate::tenant::id::MessageKey;

pub use http::{create_session, open, router};

/// Minimum size of an attachment in bytes. Smaller ones are refused, because they fit into one request.
pub const SIZE_BYTES_MIN: u64 = 3_000_000;
/// Maximum size of an attachment in bytes.
pub const SIZE_BYTES_MAX: u64 = 150 * 1024 * 1024;
/// Lifetime of a session. Uploading a range does not extend it.
const LIFETIME: SignedDuration = SignedDuration::from_hours(2);

/// The description of the attachment in `createUploadSession`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentItem {
    /// Only `file` is allowed for messages.
    pub attachment_type: String,
    /// File name.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// Media type.
    #[serde(default)]
    pub content_type: Option<String>,
    /// True if it is shown inside the body.
    #[serde(default)]
    pub is_inline: bool,
    /// The id by which the body refers to it.
    #[serde(default)]
    pub content_id: Option<String>,
}

/// A session, as the client that created it sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Identifies the session in its URL.
    pub token: String,
    /// When it ends.
    pub expires: Timestamp,
}

/// The message or event that will get an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Id of the user.
    pub user: String,
    /// The message or event.
    pub message: MessageKey,
    /// The day of an occurrence of a series, by the pattern.
    pub day: Option<Date>,
}

/// Result of uploading a range.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// The next range is expected.
    Next {
        /// Offset at which it must begin.
        from: u64,
        /// When the session ends.
        expires: Timestamp,
    },
    /// The upload is complete, and the attachment must be created.
    Complete {
        /// The message to attach it to.
        target: Target,
        /// Its description from the beginning of the session.
        item: AttachmentItem,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

/// Why a session or a range was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// The attachment is too small for a session; 400.
    #[error("The size of the attachment should not be less than the minimum size of {SIZE_BYTES_MIN} bytes.")]
    TooSmall,
    /// The attachment is too large for a message; 400.
    #[error("The message exceeds the maximum supported size.")]
    TooLarge,
    /// The attachment is not a file; 400.
    #[error("The attachment type '{0}' is not supported.")]
    Type(String),
    /// The session does not exist, or no longer; 404.
    #[error("The upload session was not found.")]
    Unknown,
    /// The header is not a range, or its length differs from the body's; 400.
    #[error("The Content-Range header is invalid.")]
    BadRange,
    /// The range is not the expected next one; 416.
    #[error("The range is not the expected one: {expected} comes next.")]
    OutOfOrder {
        /// Offset at which the next range must begin.
        expected: u64,
    },
}

impl UploadError {
    /// Returns the status and the code of the error.
    pub fn status_and_code(&self) -> (u16, &'static str) {
        match self {
            Self::TooSmall => (400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize"),
            Self::TooLarge => (400, "ErrorMessageSizeExceeded"),
            Self::Type(_) => (400, "ErrorInvalidRequest"),
            Self::Unknown => (404, "ErrorItemNotFound"),
            Self::BadRange => (400, "ErrorInvalidRequest"),
            Self::OutOfOrder { .. } => (416, "ErrorInvalidRange"),
        }
    }
}

/// The open sessions.
#[derive(Debug)]
pub struct Uploads(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    rng: Rng,
    open: HashMap<String, Open>,
}

#[derive(Debug)]
struct Open {
    target: Target,
    item: AttachmentItem,
    bytes: Vec<u8>,
    expires: Timestamp,
}

impl Uploads {
    /// Returns no sessions. The names of new ones are derived from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(Inner { rng: Rng::for_purpose(seed, "uploads"), open: HashMap::new() }))
    }

    /// Opens a session.
    ///
    /// # Errors
    /// [`UploadError`] if the attachment is too small, too large or not a file.
    pub fn create(&self, target: Target, item: AttachmentItem, now: Timestamp) -> Result<Session, UploadError> {
        if !item.attachment_type.eq_ignore_ascii_case("file") {
            return Err(UploadError::Type(item.attachment_type));
        }
        if item.size < SIZE_BYTES_MIN {
            return Err(UploadError::TooSmall);
        }
        if item.size > SIZE_BYTES_MAX {
            return Err(UploadError::TooLarge);
        }
        let mut inner = self.0.lock();
        inner.open.retain(|_, open| open.expires > now);
        let token = inner.rng.token(120);
        let expires = now + LIFETIME;
        inner.open.insert(token.clone(), Open { target, item, bytes: Vec::new(), expires });
        Ok(Session { token, expires })
    }

    /// Returns the message to which the attachment of a session belongs.
    ///
    /// # Errors
    /// [`UploadError::Unknown`].
    pub fn target(&self, token: &str, now: Timestamp) -> Result<Target, UploadError> {
        let inner = self.0.lock();
        let open = inner.open.get(token).filter(|open| open.expires > now).ok_or(UploadError::Unknown)?;
        Ok(open.target.clone())
    }

    /// Returns the offset of the next range, and when the session ends.
    ///
    /// # Errors
    /// [`UploadError::Unknown`].
    pub fn status(&self, token: &str, now: Timestamp) -> Result<(u64, Timestamp), UploadError> {
        let inner = self.0.lock();
        let open = inner.open.get(token).filter(|open| open.expires > now).ok_or(UploadError::Unknown)?;
        Ok((open.bytes.len() as u64, open.expires))
    }

    /// Stores a range. The range that completes the attachment closes the session.
    ///
    /// # Errors
    /// [`UploadError`] if the range is not the next one; the session stays open.
    pub fn put(&self, token: &str, range: &str, body: &[u8], now: Timestamp) -> Result<Progress, UploadError> {
        let mut inner = self.0.lock();
        let open = inner.open.get_mut(token).filter(|open| open.expires > now).ok_or(UploadError::Unknown)?;
        let (first, last, size) = parse_range(range).ok_or(UploadError::BadRange)?;
        if last < first || last - first + 1 != body.len() as u64 || size != open.item.size || last >= size {
            return Err(UploadError::BadRange);
        }
        let expected = open.bytes.len() as u64;
        if first != expected {
            return Err(UploadError::OutOfOrder { expected });
        }
        open.bytes.extend_from_slice(body);
        if last + 1 < size {
            return Ok(Progress::Next { from: last + 1, expires: open.expires });
        }
        let open = inner.open.remove(token).ok_or(UploadError::Unknown)?;
        Ok(Progress::Complete { target: open.target, item: open.item, bytes: open.bytes })
    }

    /// Closes a session without creating the attachment.
    ///
    /// # Errors
    /// [`UploadError::Unknown`].
    pub fn cancel(&self, token: &str) -> Result<(), UploadError> {
        self.0.lock().open.remove(token).map(drop).ok_or(UploadError::Unknown)
    }
}

/// Parses a range such as `bytes 0-2097151/3483322`.
fn parse_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?, size.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 3_483_322;

    fn now() -> Timestamp {
        "2026-11-21T10:00:00Z".parse().unwrap()
    }

    fn item(size: u64) -> AttachmentItem {
        let text = format!(r#"{{"attachmentType": "file", "name": "a.pdf", "size": {size}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    fn target() -> Target {
        Target { user: "u".into(), message: MessageKey(1), day: None }
    }

    fn open() -> (Uploads, String) {
        let uploads = Uploads::new(1);
        let session = uploads.create(target(), item(SIZE), now()).unwrap();
        (uploads, session.token)
    }

    #[test]
    fn ranges_in_order_make_an_attachment() {
        let (uploads, token) = open();
        let first = vec![1; 2_097_152];
        let progress = uploads.put(&token, "bytes 0-2097151/3483322", &first, now()).unwrap();
        assert_eq!(progress, Progress::Next { from: 2_097_152, expires: now() + LIFETIME });
        let rest = vec![2; (SIZE - 2_097_152) as usize];
        let progress = uploads.put(&token, "bytes 2097152-3483321/3483322", &rest, now()).unwrap();
        let Progress::Complete { bytes, .. } = progress else { panic!("all ranges came") };
        assert_eq!(bytes, [first, rest].concat());
        assert_eq!(uploads.status(&token, now()), Err(UploadError::Unknown));
    }

    #[test]
    fn gaps_repeats_and_lies_are_refused_and_the_session_goes_on() {
        let (uploads, token) = open();
        let put = |range: &str, len: usize| uploads.put(&token, range, &vec![0; len], now());
        assert_eq!(put("bytes 10-19/3483322", 10), Err(UploadError::OutOfOrder { expected: 0 }));
        put("bytes 0-9/3483322", 10).unwrap();
        assert_eq!(put("bytes 0-9/3483322", 10), Err(UploadError::OutOfOrder { expected: 10 }));
        for (range, len) in [
            ("bytes 10-19/3483322", 9),
            ("bytes 10-19/3483323", 10),
            ("bytes 10-9/3483322", 0),
            ("bytes 10-3483322/3483322", 3_483_313),
            ("bytes 10-19", 10),
            ("10-19/3483322", 10),
        ] {
            assert_eq!(put(range, len), Err(UploadError::BadRange), "{range}");
        }
        assert_eq!(uploads.status(&token, now()).unwrap().0, 10);
    }

    #[test]
    fn sizes_have_bounds_and_sessions_an_end() {
        let uploads = Uploads::new(1);
        assert_eq!(uploads.create(target(), item(SIZE_BYTES_MIN - 1), now()), Err(UploadError::TooSmall));
        assert_eq!(uploads.create(target(), item(SIZE_BYTES_MAX + 1), now()), Err(UploadError::TooLarge));
        let session = uploads.create(target(), item(SIZE_BYTES_MIN), now()).unwrap();
        assert_eq!(uploads.status(&session.token, session.expires), Err(UploadError::Unknown));
        uploads.cancel(&session.token).unwrap();
        assert_eq!(uploads.cancel(&session.token), Err(UploadError::Unknown));
    }
}

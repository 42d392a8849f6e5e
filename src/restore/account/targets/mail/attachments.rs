//! Attaches the files of a message that did not fit into the request that created it.

use super::compare::{ExistingAttachment, attached};
use super::file::{File, FileBytes};
use super::fingerprint::Fingerprint;
use crate::format::entry::Content;
use crate::restore::account::context::Context;
use crate::restore::account::outcome::ItemError;
use crate::restore::account::patience::Patience;
use crate::restore::account::retry::{ATTEMPTS_MAX, wait};
use crate::runtime::{blocking, guarded};
use crate::source::graph::mail::Mailbox;
use crate::source::graph::write::{ATTACHMENT_WHOLE_BYTES_MAX, RANGE_BYTES_MAX};
use crate::source::graph::{ErrorKind, GraphError};
use bytes::Bytes;
use std::sync::Arc;
use tokio::time::Instant;

/// The attachments of a message.
pub(super) struct Attachments<'a> {
    pub mailbox: &'a Mailbox,
    pub run: &'a Arc<Context>,
    /// The stored MIME form of the message.
    pub content: &'a Content,
    /// The files that the message should have.
    pub files: &'a [File],
    /// The id of the message.
    pub id: &'a str,
}

/// A file that could not be attached.
struct Failed {
    error: GraphError,
    /// The number of files that are not attached, this one included.
    left: usize,
}

impl Attachments<'_> {
    /// Attaches the missing files: the last `left` ones if the message was just created. Returns true if a file may be
    /// attached twice, because the answer to a request was lost.
    pub async fn complete(&self, left: Option<usize>) -> Result<bool, ItemError> {
        let mut missing: Vec<&File> = match left {
            Some(left) => self.files[self.files.len() - left..].iter().collect(),
            None => self.missing().await?,
        };
        let mut attempt = 1;
        let mut is_unclear = false;
        while let Some(Failed { error, left }) = self.attach_all(&missing).await? {
            // A message that was just created is not known to every server at once.
            let may_pass = error.is_ambiguous() || error.is_transient() || error.kind() == ErrorKind::NotFound;
            if !may_pass || attempt == ATTEMPTS_MAX {
                return Err(error.into());
            }
            match error.is_ambiguous() {
                true => {
                    is_unclear = true;
                    self.wait_for_more_than(self.files.len() - left).await?;
                }
                false => wait(attempt).await,
            }
            attempt += 1;
            missing = self.missing().await?;
        }
        Ok(is_unclear)
    }

    /// Attaches the missing files, and removes those that are attached twice.
    pub async fn repair(&self) -> Result<(), ItemError> {
        for file in self.missing().await? {
            self.attach(file, &self.bytes_of(file).await?).await?;
        }
        Ok(())
    }

    /// Attaches files until one fails.
    async fn attach_all(&self, files: &[&File]) -> Result<Option<Failed>, ItemError> {
        for (number, file) in files.iter().enumerate() {
            let bytes = self.bytes_of(file).await?;
            if let Err(error) = self.attach(file, &bytes).await {
                return Ok(Some(Failed { error, left: files.len() - number }));
            }
        }
        Ok(None)
    }

    /// Waits until the message has more than `known` attachments: a request whose answer was lost may still attach a
    /// file. Gives up after a while.
    async fn wait_for_more_than(&self, known: usize) -> Result<(), ItemError> {
        let mut patience = Patience::since(Instant::now());
        while patience.has_another_look().await {
            if self.mailbox.attachments(self.id).await?.len() > known {
                break;
            }
        }
        Ok(())
    }

    /// Returns the files that are not attached yet, and removes those that are attached twice.
    async fn missing(&self) -> Result<Vec<&File>, ItemError> {
        let mut existing: Vec<ExistingAttachment> = attached(self.mailbox, self.id).await?;
        let mut missing = Vec::new();
        for file in self.files {
            match existing.iter().position(|existing| existing.attached.fingerprint == file.fingerprint) {
                Some(at) => drop(existing.swap_remove(at)),
                None => missing.push(file),
            }
        }
        for extra in existing {
            self.mailbox.detach(self.id, &extra.id).await?;
        }
        Ok(missing)
    }

    /// Returns the bytes of a file. Reads them again if they are not in memory.
    async fn bytes_of(&self, file: &File) -> Result<Bytes, ItemError> {
        let (prefix, range, encoding) = match &file.bytes {
            FileBytes::Kept(bytes) => return Ok(bytes.clone()),
            FileBytes::InMail { prefix, range, encoding } => (prefix.clone(), range.clone(), *encoding),
        };
        let (run, content, wanted) = (self.run.clone(), self.content.clone(), file.fingerprint);
        blocking(move || {
            let stored = run.contents.read_range(&content, range)?;
            let bytes = guarded(|| FileBytes::decode(&prefix, encoding, &stored))?;
            match Fingerprint::of(&bytes) == wanted {
                true => Ok(bytes),
                false => Err(ItemError::Item("what is attached to it changed while it was restored".to_owned())),
            }
        })
        .await
    }

    async fn attach(&self, file: &File, bytes: &Bytes) -> Result<(), GraphError> {
        if bytes.len() <= ATTACHMENT_WHOLE_BYTES_MAX {
            return self.mailbox.attach(self.id, &file.json(bytes)).await;
        }
        let url = self.mailbox.begin_upload(self.id, &file.announcement()).await?;
        let len = bytes.len();
        for offset in (0..len).step_by(RANGE_BYTES_MAX) {
            let range = bytes.slice(offset..len.min(offset + RANGE_BYTES_MAX));
            self.mailbox.upload(&url, range, offset as u64, len as u64).await?;
        }
        Ok(())
    }
}

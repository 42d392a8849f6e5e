//! Creates folders, and renames and removes files.

use super::scratch::is_scratch;
use super::table::Content;
use super::writing::Writing;
use super::{Live, failed, now};
use crate::catalog::NAME_LENGTH_BYTES_MAX;
use crate::error::FsError;
use crate::fs::Stat;
use crate::inode::Ino;
use crate::outbox::OutboxError;
use std::sync::Arc;
use std::time::Instant;

impl Live {
    /// Creates a folder. The entry counts as one reference.
    pub(crate) fn make_folder(&self, folder: Ino, name: &[u8]) -> Result<Stat, FsError> {
        if name.len() > NAME_LENGTH_BYTES_MAX {
            return Err(FsError::NameTooLong);
        }
        if is_scratch(name) {
            return Err(OutboxError::NotPermitted.into());
        }
        let path = self.path_in(&self.table.lock(), folder, name)?;
        self.outbox.make_folder(&path).map_err(|error| failed("make_folder", error))?;
        let mut table = self.table.lock();
        let (ino, node) = table.refer(folder, name);
        let stat = self.folder_stat(ino, true, now());
        (node.text, node.file, node.folder) = (false, false, Some((Instant::now(), stat)));
        Ok(stat)
    }

    /// Removes a file: a draft, or a dropped file that still waits.
    pub(crate) fn remove(&self, folder: Ino, name: &[u8]) -> Result<(), FsError> {
        let (path, written) = {
            let table = self.table.lock();
            let ino = table.child(folder, name);
            let written = ino.and_then(|ino| Some((ino, table.writing(ino)?.clone())));
            (self.path_in(&table, folder, name)?, written)
        };
        let Some((ino, writing)) = written else {
            self.outbox.withdraw(&path).map_err(|error| failed("withdraw", error))?;
            return self.forget_name(folder, name);
        };
        let mut locked = writing.lock();
        if writing.is_sealed() {
            self.outbox.withdraw(&path).map_err(|error| failed("withdraw", error))?;
            locked.discard();
        }
        self.table.lock().take_name(ino);
        drop(locked);
        self.finish_unless_held(ino, &writing);
        Ok(())
    }

    /// Renames a file that is being written or has a temporary name. If the file is closed and the new name is an
    /// ordinary one, this completes the file.
    pub(crate) fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8])) -> Result<(), FsError> {
        if to.1.len() > NAME_LENGTH_BYTES_MAX {
            return Err(FsError::NameTooLong);
        }
        if from == to {
            return Ok(());
        }
        let (ino, writing) = self.renamable(from)?;
        let mut locked = writing.lock();
        if writing.is_sealed() {
            return Err(OutboxError::NotPermitted.into());
        }
        let path = self.path_in(&self.table.lock(), to.0, to.1)?;
        if is_scratch(to.1) {
            self.expect_no_item(to)?;
        } else if !locked.unflushed {
            locked.seal(&path)?;
        }
        let replaced = {
            let mut table = self.table.lock();
            let replaced = table.child(to.0, to.1).and_then(|ino| Some((ino, table.writing(ino)?.clone())));
            table.rename(ino, to.0, to.1);
            replaced
        };
        drop(locked);
        self.finish_unless_held(ino, &writing);
        if let Some((ino, writing)) = replaced {
            self.finish_unless_held(ino, &writing);
        }
        Ok(())
    }

    fn renamable(&self, (folder, name): (Ino, &[u8])) -> Result<(Ino, Arc<Writing>), FsError> {
        let table = self.table.lock();
        let ino = table.child(folder, name).ok_or(OutboxError::NotFound)?;
        // Folders of the target and dropped files cannot be renamed.
        let writing = table.writing(ino).ok_or(OutboxError::NotPermitted)?;
        Ok((ino, writing.clone()))
    }

    /// Checks that no item of the target is at this path, because a temporary file would hide it. The kernel has looked
    /// the name up before, so the table knows the item.
    fn expect_no_item(&self, (folder, name): (Ino, &[u8])) -> Result<(), FsError> {
        let table = self.table.lock();
        match table.child(folder, name).and_then(|ino| table.node(ino)) {
            Some(node) if matches!(node.content, Content::Outbox) => Err(OutboxError::NotPermitted.into()),
            _ => Ok(()),
        }
    }

    fn forget_name(&self, folder: Ino, name: &[u8]) -> Result<(), FsError> {
        let mut table = self.table.lock();
        if let Some(ino) = table.child(folder, name) {
            table.take_name(ino);
            table.settle(ino);
        }
        Ok(())
    }
}

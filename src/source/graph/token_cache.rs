//! Stores refresh tokens in encrypted files, in a folder of the local state.
//!
//! A person who has a refresh token can act for the person who signed in, for months. Each token is in its own file,
//! sealed with AES-256-SIV. The key is random and lies in a file beside the tokens. All files are readable by their
//! owner only. So neither a copy of one file nor a backup without the key reveals a token. But a user who can read the
//! whole folder, such as `root` on this machine, has the tokens.
//!
//! Files are replaced in one step: after a crash, either the old or the new token is there.

use crate::format::crypto::{Cipher, SivKey, TAG_LEN, random};
use crate::local_files;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// The name of the file with the key.
const KEY_FILE: &str = "tokens.key";
const KEY_LEN: usize = 32;
/// Maximum size of a file, in bytes. A refresh token has about 1.5 KB.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The context of the key derivation: it names the purpose of the key and the version of the format.
const CONTEXT: &str = "strongroom: refresh tokens 1";

/// A folder of encrypted refresh tokens. Clones and other processes may use the same folder.
#[derive(Clone)]
pub struct TokenCache {
    folder: PathBuf,
    key: Arc<SivKey>,
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Identifies a token. Each holder has one file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holder<'a> {
    /// The URL of the token endpoint.
    pub(super) authority: &'a str,
    /// The id of the application.
    pub(super) client_id: &'a str,
}

impl TokenCache {
    /// Opens the cache in `folder`. Creates the folder and the key if they do not exist.
    ///
    /// # Errors
    /// If the folder cannot be used.
    pub fn open(folder: &Path) -> io::Result<Self> {
        local_files::private_folder(folder)?;
        let key_file = folder.join(KEY_FILE);
        let material = match local_files::read(&key_file, FILE_BYTES_MAX) {
            Ok(material) => Zeroizing::new(material),
            Err(error) if error.kind() == ErrorKind::NotFound => Self::make_key(folder, &key_file)?,
            Err(error) => return Err(error),
        };
        if material.len() != KEY_LEN {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                "the key of the token cache is damaged: delete it and sign in again",
            ));
        }
        let key = Arc::new(SivKey::derive(Cipher::Aes256Siv, CONTEXT, &material));
        Ok(Self { folder: folder.to_owned(), key })
    }

    /// Creates the key. If two processes do so at the same time, the first one wins.
    fn make_key(folder: &Path, key_file: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
        let material = Zeroizing::new(random::<KEY_LEN>());
        let temporary = Temporary::write(folder, &*material)?;
        match fs::hard_link(&temporary.path, key_file) {
            Ok(()) => File::open(folder)?.sync_all()?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        Ok(Zeroizing::new(local_files::read(key_file, FILE_BYTES_MAX)?))
    }

    /// Returns the refresh token of `holder`, if there is one.
    pub(super) fn load(&self, holder: Holder<'_>) -> io::Result<Option<Zeroizing<String>>> {
        let mut sealed = Zeroizing::new(Vec::new());
        match local_files::open(&self.file(holder)) {
            Ok(file) => file.take(FILE_BYTES_MAX).read_to_end(&mut sealed)?,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let damaged = || io::Error::new(ErrorKind::InvalidData, "the cached sign-in is damaged: sign in again");
        let bound = [holder.authority.as_bytes(), holder.client_id.as_bytes()];
        let text = self.key.decrypt(&bound, &mut sealed).map_err(|_| damaged())?;
        let text = std::str::from_utf8(text).map_err(|_| damaged())?;
        Ok(Some(Zeroizing::new(text.to_owned())))
    }

    /// Stores the refresh token of `holder`. Returns once it is durable.
    pub(super) fn store(&self, holder: Holder<'_>, token: &str) -> io::Result<()> {
        let bound = [holder.authority.as_bytes(), holder.client_id.as_bytes()];
        let mut sealed = Zeroizing::new(vec![0; TAG_LEN + token.len()]);
        sealed[TAG_LEN..].copy_from_slice(token.as_bytes());
        self.key.encrypt(&bound, &mut sealed);
        let temporary = Temporary::write(&self.folder, &sealed)?;
        fs::rename(&temporary.path, self.file(holder))?;
        File::open(&self.folder)?.sync_all()
    }

    fn file(&self, holder: Holder<'_>) -> PathBuf {
        let mut hasher = blake3::Hasher::new();
        for part in [holder.authority, holder.client_id] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        self.folder.join(format!("{}.token", &hasher.finalize().to_hex()[..32]))
    }
}

/// A temporary file. Dropping it deletes the file, unless it was renamed.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn write(folder: &Path, bytes: &[u8]) -> io::Result<Self> {
        let name = format!(".tmp-{:032x}", u128::from_le_bytes(random()));
        let temporary = Self { path: folder.join(name) };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary.path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename, the file no longer has this name. Otherwise it is useless.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const ALICE: Holder<'_> = Holder { authority: "https://login/a/oauth2/v2.0/token", client_id: "app" };
    const BOB: Holder<'_> = Holder { authority: "https://login/b/oauth2/v2.0/token", client_id: "app" };

    fn files(folder: &Path) -> Vec<PathBuf> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn the_newest_token_is_kept_for_each_holder() {
        let folder = tempfile::tempdir().unwrap();
        let cache = TokenCache::open(&folder.path().join("tokens")).unwrap();
        assert!(cache.load(ALICE).unwrap().is_none());
        cache.store(ALICE, "first").unwrap();
        cache.store(BOB, "bob's").unwrap();
        cache.store(ALICE, "second").unwrap();
        let again = TokenCache::open(&folder.path().join("tokens")).unwrap();
        assert_eq!(*again.load(ALICE).unwrap().unwrap(), "second");
        assert_eq!(*again.load(BOB).unwrap().unwrap(), "bob's");
    }

    #[test]
    fn nobody_else_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let cache = TokenCache::open(&path).unwrap();
        cache.store(ALICE, "a very long and very secret token").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let files = files(&path);
        assert_eq!(files.len(), 2, "{files:?}");
        for file in files {
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            let bytes = fs::read(file).unwrap();
            assert!(!bytes.windows(6).any(|window| window == b"secret"));
        }
        assert!(!format!("{cache:?}").contains("key"));
    }

    #[test]
    fn a_file_in_anothers_place_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let cache = TokenCache::open(folder.path()).unwrap();
        cache.store(ALICE, "hers").unwrap();
        fs::copy(cache.file(ALICE), cache.file(BOB)).unwrap();
        assert_eq!(cache.load(BOB).unwrap_err().kind(), ErrorKind::InvalidData);
        fs::write(cache.file(ALICE), b"short").unwrap();
        assert_eq!(cache.load(ALICE).unwrap_err().kind(), ErrorKind::InvalidData);
        fs::write(folder.path().join(KEY_FILE), b"short").unwrap();
        assert_eq!(TokenCache::open(folder.path()).unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn two_processes_that_create_the_key_agree() {
        let folder = tempfile::tempdir().unwrap();
        let barrier = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            let open = || {
                barrier.wait();
                TokenCache::open(folder.path()).unwrap()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            let caches: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            caches[0].store(ALICE, "one key for all").unwrap();
            for cache in &caches {
                assert_eq!(*cache.load(ALICE).unwrap().unwrap(), "one key for all");
            }
        });
        assert_eq!(files(folder.path()).len(), 2);
    }
}

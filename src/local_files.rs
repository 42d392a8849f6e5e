//! Files and folders of this machine: opens files safely, and creates folders that only this user can use.
//!
//! [`open`] is for every file that somebody else may have put there: an object of a repository in a folder, a password
//! file, the configuration. Opening a named pipe would block forever, and opening a device could do worse; both are
//! refused.
//!
//! [`private_folder`] is for what this program stores for itself: sign-ins, journals, dropped files, indexes. A user
//! who can write to such a folder could use links to make this program create, read and remove files elsewhere.
//!
//! Reasons: docs/decisions/0012-what-lies-on-the-machine.md.

use rustix::fs::OFlags;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Mode of a private folder: other users have no access.
const PRIVATE_MODE: u32 = 0o700;

/// Opens a file for reading, without blocking. Follows links. Refuses anything but a regular file.
///
/// # Errors
/// Errors of the operating system, and [`ErrorKind::InvalidInput`] for anything but a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let open = |flags: OFlags| OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = match open(OFlags::NONBLOCK | OFlags::NOCTTY) {
        // Another program (a file server) holds a lease on the file. It gives the lease up only to a blocking open.
        Err(error) if error.kind() == ErrorKind::WouldBlock && fs::metadata(path)?.is_file() => open(OFlags::NOCTTY)?,
        // Opening a socket always fails; report that it is not a regular file.
        Err(error) => return Err(fs::metadata(path).and_then(|stat| require_file(&stat)).err().unwrap_or(error)),
        Ok(file) => file,
    };
    require_file(&file.metadata()?)?;
    Ok(file)
}

/// Reads a whole file of at most `bytes_max` bytes. Opens it like [`open`].
///
/// # Errors
/// Those of [`open`], and [`ErrorKind::FileTooLarge`].
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > bytes_max {
        true => Err(io::Error::new(ErrorKind::FileTooLarge, format!("it is longer than {bytes_max} bytes"))),
        false => Ok(bytes),
    }
}

/// Opens a file in a [private folder](private_folder) for appending, or creates it with mode 0600. Does not follow
/// links.
///
/// # Errors
/// Errors of the operating system, and [`ErrorKind::InvalidInput`] for anything but a regular file.
pub fn append(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(|error| fs::symlink_metadata(path).and_then(|stat| require_file(&stat)).err().unwrap_or(error))?;
    let stat = file.metadata()?;
    require_file(&stat)?;
    if stat.mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Creates a folder, with its parents, that only this user can access. If the folder exists, takes away the permissions
/// of others, but refuses a folder that belongs to another user or that others can write to.
///
/// # Errors
/// Errors of the operating system, and those of [`require_own`].
pub fn private_folder(path: &Path) -> io::Result<()> {
    own_folder(path)?;
    // Change the mode through the open folder, so that nobody can replace it after the check.
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let folder = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let stat = folder.metadata()?;
    require_own_stat(&stat)?;
    match stat.mode() & 0o777 {
        PRIVATE_MODE => Ok(()),
        _ => folder.set_permissions(Permissions::from_mode(PRIVATE_MODE)),
    }
}

/// Creates a folder with mode 0700, with its parents, and returns once their names are durable. An existing folder
/// keeps its mode, but is refused if others can write to it.
///
/// # Errors
/// Errors of the operating system, and those of [`require_own`].
pub fn own_folder(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
    DirBuilder::new().recursive(true).mode(PRIVATE_MODE).create(path)?;
    require_own(path)?;
    // Sync the outermost folder first: an inner folder is lost if the folder that holds it is not durable.
    missing.into_iter().rev().try_for_each(sync_folder_of)
}

/// Syncs the folder that holds `path`, so that the names in it are durable.
///
/// # Errors
/// Errors of the operating system.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Checks that `path` is a folder, not a link, that it belongs to this user, and that nobody else can write to it.
///
/// # Errors
/// [`ErrorKind::PermissionDenied`] with the reason, [`ErrorKind::NotFound`].
pub fn require_own(path: &Path) -> io::Result<()> {
    require_own_stat(&fs::symlink_metadata(path)?)
}

fn require_own_stat(stat: &Metadata) -> io::Result<()> {
    let refused = |reason: String| Err(io::Error::new(ErrorKind::PermissionDenied, reason));
    let user = rustix::process::geteuid().as_raw();
    match stat {
        _ if !stat.is_dir() => refused(format!("it is {}, and must be a folder", kind_of(stat))),
        _ if stat.uid() != user => {
            refused(format!("it belongs to the user {}, and must belong to the user {user} who runs this", stat.uid()))
        }
        _ if stat.mode() & 0o022 != 0 => {
            let mode = stat.mode() & 0o7777;
            refused(format!("others may write to it (mode {mode:04o}): `chmod go-w` it, or name another folder"))
        }
        _ => Ok(()),
    }
}

fn require_file(stat: &Metadata) -> io::Result<()> {
    let kind = match stat.is_file() {
        true => return Ok(()),
        false if stat.is_dir() => ErrorKind::IsADirectory,
        false => ErrorKind::InvalidInput,
    };
    Err(io::Error::new(kind, format!("it is {}, and must be a file", kind_of(stat))))
}

fn kind_of(stat: &Metadata) -> &'static str {
    let kind = stat.file_type();
    match () {
        () if kind.is_symlink() => "a link",
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () => "a file",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn only_regular_files_are_opened_and_nothing_waits() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "0123456789").unwrap();
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        symlink("file", at("link")).unwrap();
        symlink("pipe", at("link to pipe")).unwrap();
        symlink("/dev/zero", at("link to device")).unwrap();
        assert_eq!(read(&at("file"), 10).unwrap(), b"0123456789");
        assert_eq!(read(&at("link"), 10).unwrap(), b"0123456789");
        assert_eq!(read(&at("file"), 9).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(open(&at("nothing")).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(open(folder.path()).unwrap_err().kind(), ErrorKind::IsADirectory);
        let kinds = [("pipe", "a named pipe"), ("link to pipe", "a named pipe"), ("socket", "a socket")];
        for (name, kind) in kinds.into_iter().chain([("link to device", "a device")]) {
            let error = open(&at(name)).unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains(kind), "{name}: {error}");
        }
        for name in ["link", "pipe", "socket", "link to device"] {
            append(&at(name)).expect_err(name);
        }
        assert_eq!(fs::read(at("file")).unwrap(), b"0123456789");
        fs::set_permissions(at("file"), Permissions::from_mode(0o644)).unwrap();
        append(&at("file")).unwrap();
        append(&at("new")).unwrap();
        assert_eq!((mode(&at("file")), mode(&at("new"))), (0o600, 0o600));
    }

    #[test]
    fn a_private_folder_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        private_folder(&at("a/b")).unwrap();
        assert_eq!((mode(&at("a")), mode(&at("a/b"))), (0o700, 0o700));
        fs::set_permissions(at("a"), Permissions::from_mode(0o755)).unwrap();
        own_folder(&at("a")).unwrap();
        assert_eq!(mode(&at("a")), 0o755, "one that was named keeps its mode");
        private_folder(&at("a")).unwrap();
        assert_eq!(mode(&at("a")), 0o700);

        symlink("a", at("link")).unwrap();
        fs::write(at("file"), "").unwrap();
        fs::create_dir(at("open")).unwrap();
        fs::create_dir(at("foreign")).unwrap();
        fs::set_permissions(at("open"), Permissions::from_mode(0o777)).unwrap();
        let refused = [("link", "a link"), ("open", "mode 0777")];
        for (name, reason) in refused {
            let error = private_folder(&at(name)).unwrap_err();
            assert!(error.kind() == ErrorKind::PermissionDenied && error.to_string().contains(reason), "{error}");
        }
        assert_eq!(mode(&at("open")), 0o777, "what was refused is left as it is");
        private_folder(&at("file")).unwrap_err();
        // Only root can change the owner of a folder.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(at("foreign"), Some(12345), None).unwrap();
            let error = private_folder(&at("foreign")).unwrap_err();
            assert!(error.to_string().contains("belongs to the user 12345"), "{error}");
        }
    }
}

//! What is refused: writing outside of `restore/`, others than the user, hostile names, other attributes.

use super::*;

#[test]
fn other_attributes_are_not_supported() {
    skip_without_fuse!();
    let drop = Dropping::new();
    let one = &drop.inbox("one.eml");
    fs::write(one, MAIL).unwrap();
    drop.restored(&[&at("one.eml")]);
    assert_eq!(rustix::fs::setxattr(one, "user.x", b"x", XattrFlags::empty()), Err(Errno::OPNOTSUPP));
    assert_eq!(rustix::fs::removexattr(one, "user.strongroom.state"), Err(Errno::OPNOTSUPP));
    assert_eq!(rustix::fs::getxattr(one, "user.x", &mut [0; 9][..]), Err(Errno::OPNOTSUPP));
    assert_eq!(rustix::fs::getxattr(one, "security.selinux", &mut [0; 9][..]), Err(Errno::OPNOTSUPP));
    let mut list = [0; 100];
    let len = rustix::fs::listxattr(one, &mut list[..]).unwrap();
    assert_eq!(&list[..len], b"user.strongroom.state\0");
    assert_eq!(state(&drop.inbox("")), Err(Errno::NODATA));
    assert_eq!(rustix::fs::getxattr(drop.mount.path("README.txt"), "user.x", &mut [0; 9][..]), Err(Errno::OPNOTSUPP));
    assert_eq!(state(one).unwrap(), "queued", "asking elsewhere has not ended the questions");
    assert_eq!(shown_with_xattr(&drop), "queued");
    let free = rustix::fs::statvfs(drop.inbox("")).unwrap();
    assert_eq!(free.f_bavail * free.f_frsize, 1 << 40);
    assert_eq!(rustix::fs::statvfs(drop.mount.path("")).unwrap().f_bavail, 0);
}

/// Returns the state of `one.eml`, as shown by a mount with extended attributes.
fn shown_with_xattr(drop: &Dropping) -> String {
    let shelf = Shelf::new(&[(1, "one", &Model::new(Tree::empty()))]);
    let target = Target::Restoring(shelf, Arc::new(common::outbox::Handle(drop.basket.clone())));
    let mount = Fixture::new(target, &Options { xattr: true, ..Options::default() });
    state(&mount.path("restore").join(at("one.eml"))).unwrap()
}

#[test]
fn outside_nothing_can_be_written() {
    skip_without_fuse!();
    let model = Model::new(Tree::empty().with(&[b"folder", b"file"], Tree::File(MAIL.to_vec())));
    let drop = Dropping::over(&Shelf::new(&[(1, "one", &model)]));
    let (file, new) = (&drop.mount.path("snapshots/one/folder/file"), &drop.mount.path("snapshots/one/folder/new"));
    let mode = Mode::from_raw_mode(0o600);
    let inside = &drop.inbox("moved.eml");
    fs::write(drop.inbox("x~"), MAIL).unwrap();
    let refused = [
        ("create", code(File::create(new))),
        ("open for writing", code(File::options().write(true).open(file))),
        ("truncate at open", rustix::fs::open(file, rustix::fs::OFlags::TRUNC, mode).unwrap_err()),
        ("truncate", truncate(file, 0).unwrap_err()),
        ("mkdir", rustix::fs::mkdir(new, mode).unwrap_err()),
        ("mkdir beside restore", rustix::fs::mkdir(drop.mount.path("new"), mode).unwrap_err()),
        ("rmdir of restore", rustix::fs::rmdir(drop.path("")).unwrap_err()),
        ("unlink", rustix::fs::unlink(file).unwrap_err()),
        ("chmod", rustix::fs::chmod(file, mode).unwrap_err()),
        ("setxattr", rustix::fs::setxattr(file, "user.x", b"x", XattrFlags::empty()).unwrap_err()),
        ("rename", rustix::fs::rename(file, new).unwrap_err()),
        ("rename of restore", rustix::fs::rename(drop.path(""), drop.mount.path("new")).unwrap_err()),
        ("rename out", rustix::fs::rename(drop.inbox("x~"), new).unwrap_err()),
        ("link", rustix::fs::link(file, new).unwrap_err()),
    ];
    for (operation, errno) in refused {
        assert_eq!(errno, Errno::ROFS, "{operation}");
    }
    assert_eq!(rustix::fs::rename(file, inside), Err(Errno::XDEV));
    assert_eq!(rustix::fs::access(file, Access::READ_OK), Ok(()));
    let may_write = rustix::process::geteuid().is_root() || fs::metadata(file).unwrap().mode() & 0o200 != 0;
    let expected = if may_write { Ok(()) } else { Err(Errno::ACCESS) };
    assert_eq!(rustix::fs::access(file, Access::WRITE_OK), expected, "by the permission bits alone");
    let opens = || drop.mount.mounted.requests().of(Operation::Open);
    let before = opens();
    File::open(file).unwrap().sync_all().unwrap();
    File::open(file).unwrap();
    assert_eq!(opens() - before, 2, "the kernel asks each time");
    // `mv` then copies the file, and reports that it could not remove the original.
    drop.tool("mv", &[&file.to_string_lossy(), "moved.eml"]).unwrap_err();
    drop.restored(&[&at("moved.eml")]);
    drop.tool("cp", &[&file.to_string_lossy(), "copied.eml"]).unwrap();
    drop.restored_last("copied.eml", MAIL);
    assert_eq!(fs::read(file).unwrap(), MAIL);
}

#[test]
fn outside_others_than_root_are_refused_by_the_permission_bits_first() {
    skip_without_fuse!();
    // The modes of the files in the model differ: the owner may write the first, nobody may write the last.
    let files = ["a", "b", "c", "d"];
    let tree = files.iter().fold(Tree::empty(), |tree, name| tree.with(&[name.as_bytes()], Tree::File(MAIL.to_vec())));
    let model = Model::new(tree);
    let owner = model.entries[1].attr.uid;
    let basket = Arc::new(common::outbox::Handle(common::outbox::Basket::new()));
    // Users other than root see all files as their own.
    let is_root = rustix::process::geteuid().is_root();
    let options = Options { allow_other: is_root, ..Options::default() };
    let mount = Fixture::new(Target::Restoring(Shelf::new(&[(1, "one", &model)]), basket), &options);
    let folder = mount.path("snapshots/one");
    let said = |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).current_dir(&folder).env("LC_ALL", "C");
        if is_root {
            shell.uid(owner).gid(owner);
        }
        let output = shell.output().unwrap();
        assert!(!output.status.success(), "{script}");
        String::from_utf8(output.stderr).unwrap()
    };
    let (forbidden, read_only) = ("Permission denied", "Read-only file system");
    let of_folder = if is_root { forbidden } else { read_only };
    for (script, expected) in [(": >> a", read_only), (": >> d", forbidden), ("mkdir new", of_folder)] {
        let said = said(script);
        assert!(said.contains(expected), "{script}: {said}");
    }
}

#[test]
fn hostile_names() {
    skip_without_fuse!();
    let drop = Dropping::new();
    let names: [&[u8]; 8] = [
        b"\xff\xfe.eml",
        b"new\nline.eml",
        b" leading.eml",
        b"-rf.eml",
        b"$(touch x).eml",
        b"\x01\x7f.eml",
        &[b'x'; 255],
        "\u{202e}lme.eml".as_bytes(),
    ];
    for name in names {
        let path = drop.inbox("").join(std::ffi::OsStr::from_bytes(name));
        fs::write(&path, MAIL).unwrap();
        eventually(PATIENCE, "it is dropped", || state(&path).as_deref() == Ok("queued"));
        assert_eq!(fs::read(&path).unwrap(), MAIL);
    }
    let listed: Vec<_> = fs::read_dir(drop.inbox("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(listed.len(), names.len());
    let long = drop.inbox(&"x".repeat(256));
    assert_eq!(code(File::create(&long)), Errno::NAMETOOLONG);
    assert_eq!(code(fs::create_dir(&long)), Errno::NAMETOOLONG);
    // Names from the outbox that are not legal file names are left out; the rest of the folder is listed.
    drop.basket.add_folder(&[at("").as_bytes(), &[b'y'; 300]].concat());
    drop.basket.add_folder(at("nul\0nul").as_bytes());
    drop.basket.add_folder(at("ordinary").as_bytes());
    assert_eq!(fs::read_dir(drop.inbox("")).unwrap().map(Result::unwrap).count(), names.len() + 1);
}

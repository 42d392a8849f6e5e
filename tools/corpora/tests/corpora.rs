//! Tests that the corpora are the same for the same seed, about as large as requested, and made of real mail.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mail_parser::{MessageParser, MimeHeaders};
use strongroom_corpora::edit::{self, Change};
use strongroom_corpora::mailbox::{LineEnds, Quoting};
use strongroom_corpora::{files, hostile, mailbox, office, words};

/// Returns a hash over every name, kind, mode, time and byte below `dir`.
fn fingerprint(dir: &Path) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    files::walk(dir, &mut |path, _| {
        let metadata = path.symlink_metadata()?;
        let name = path.strip_prefix(dir)?.as_os_str().as_bytes();
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name);
        hasher.update(&metadata.permissions().mode().to_le_bytes());
        if metadata.is_symlink() {
            hasher.update(fs::read_link(path)?.as_os_str().as_bytes());
        } else {
            hasher.update(&metadata.mtime().to_le_bytes()).update(&metadata.mtime_nsec().to_le_bytes());
        }
        if metadata.is_file() {
            hasher.update(&metadata.len().to_le_bytes());
            // Only root can read files of mode 0000.
            if let Ok(content) = fs::read(path) {
                hasher.update(&content);
            }
        }
        Ok(())
    })
    .expect("the tree can be walked");
    hasher.finalize()
}

fn small(seed: u64) -> office::Options {
    office::Options { seed, users: 4, mails_per_user: 60, files_per_user: 30 }
}

fn tenant(options: &office::Options) -> (tempfile::TempDir, PathBuf, office::Summary) {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let dir = temp.path().join("tenant");
    let summary = office::generate(options, &dir).expect("a tenant");
    (temp, dir, summary)
}

#[test]
fn the_seed_decides_everything() {
    let [(_a, first, _), (_b, again, _), (_c, other, _)] = [small(1), small(1), small(2)].map(|seed| tenant(&seed));
    assert_eq!(fingerprint(&first), fingerprint(&again));
    assert_ne!(fingerprint(&first), fingerprint(&other));
}

#[test]
fn counts_and_sizes_are_near_what_was_asked() {
    let (_temp, dir, summary) = tenant(&small(1));
    let all = files::list(&dir, "").expect("files");
    let mails = files::list(&dir, ".eml").expect("messages");
    assert_eq!(mails.len(), 4 * 60);
    assert_eq!((summary.mails, summary.files), (mails.len() as u64, (all.len() - mails.len()) as u64));
    assert!((120..=128).contains(&summary.files), "{} files besides the mail", summary.files);
    let bytes: u64 = all.iter().map(|path| path.metadata().expect("metadata").len()).sum();
    assert_eq!(summary.bytes, bytes);
    // The default tenant has 19 KB per file. In small tenants the mean varies, because a few large attachments decide
    // it.
    let mean = bytes / all.len() as u64;
    assert!((8_000..=60_000).contains(&mean), "{mean} bytes a file");
}

#[test]
fn every_message_parses_and_attachments_are_shared() {
    let (_temp, dir, _) = tenant(&small(1));
    let mut copies: BTreeMap<String, u64> = BTreeMap::new();
    let (mut attachments, mut shared) = (BTreeMap::<Vec<u8>, u64>::new(), 0);
    for path in files::list(&dir, ".eml").expect("messages") {
        let raw = fs::read(&path).expect("a message");
        assert!(raw.is_ascii() && raw.ends_with(b"--\r\n"), "{} is not as Exchange writes it", path.display());
        let newlines = raw.iter().filter(|&&byte| byte == b'\n').count();
        assert_eq!(newlines, raw.windows(2).filter(|pair| pair == b"\r\n").count(), "a bare LF in {}", path.display());
        assert!(raw.split(|&byte| byte == b'\n').all(|line| line.len() < 999), "a long line in {}", path.display());
        let message = MessageParser::new().parse(&raw).expect("a message that parses");
        let sent = message.date().expect("a date").to_timestamp();
        assert_eq!(path.metadata().expect("metadata").mtime(), sent);
        assert!(message.subject().is_some() && message.from().is_some() && message.to().is_some());
        let (text, html) = (message.body_text(0).expect("text"), message.body_html(0).expect("HTML"));
        assert!(text.contains("Contoso Ltd") && html.contains("MsoNormal") && !text.contains('\u{fffd}'));
        *copies.entry(message.message_id().expect("an id").to_owned()).or_default() += 1;
        for part in message.attachments().filter(|part| part.content_id().is_none()) {
            assert!(part.attachment_name().is_some());
            *attachments.entry(part.contents().to_vec()).or_default() += 1;
        }
    }
    assert!(copies.values().any(|&count| count > 2), "no message went to several people");
    for path in files::list(&dir, "").expect("files") {
        shared += u64::from(attachments.contains_key(&fs::read(path).expect("a file")));
    }
    assert!(attachments.values().any(|&count| count > 1), "no attachment lies in several mailboxes");
    assert!(shared > 0, "no attachment lies in a OneDrive too");
}

#[test]
fn few_messages_hold_the_needle() {
    let (_temp, dir, summary) =
        tenant(&office::Options { users: 2, mails_per_user: 2_000, files_per_user: 1, ..small(1) });
    let parser = MessageParser::new();
    let mails = files::list(&dir, ".eml").expect("messages");
    let found = mails.iter().filter(|path| {
        let raw = fs::read(path).expect("a message");
        parser.parse(&raw).expect("a message").body_text(0).is_some_and(|text| text.contains(words::NEEDLE))
    });
    let found = found.count() as u64;
    assert!((1..summary.mails / 20).contains(&found), "{found} of {} messages hold the needle", summary.mails);
}

#[test]
fn a_folder_in_use_is_refused() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    fs::write(temp.path().join("precious"), "data").expect("a file");
    let error = office::generate(&small(1), temp.path()).expect_err("the folder is not empty");
    assert!(error.to_string().contains("not empty"), "{error}");
}

#[test]
fn an_edited_tenant_differs_by_exactly_the_changes() {
    let contents = |dir: &Path| -> BTreeMap<PathBuf, Vec<u8>> {
        let all = files::list(dir, "").expect("files");
        let relative = |path: &PathBuf| path.strip_prefix(dir).expect("a path under dir").to_owned();
        all.iter().map(|path| (relative(path), fs::read(path).expect("a file"))).collect()
    };
    let (_a, first, _) = tenant(&small(1));
    let (_b, again, _) = tenant(&small(1));
    let mut model = contents(&first);
    let options = edit::Options::default();
    let changes = edit::edit(&options, &first).expect("an edited tenant");
    assert_eq!(changes, edit::edit(&options, &again).expect("an edited tenant"));
    assert_eq!(fingerprint(&first), fingerprint(&again));

    let after = contents(&first);
    for change in &changes {
        match change {
            Change::New(path) => assert_eq!(model.insert(path.clone(), after[path].clone()), None),
            Change::Moved(from, to) => {
                let content = model.remove(from).expect("the message was there");
                assert_eq!(model.insert(to.clone(), content), None);
            }
            Change::Deleted(path) => assert!(model.remove(path).is_some()),
            Change::Edited(path) => {
                let old = model.insert(path.clone(), after[path].clone()).expect("the document was there");
                assert_ne!(old, after[path]);
            }
        }
    }
    assert!(model == after, "something else has changed too");
    assert_eq!(changes.len(), options.new + options.moved + options.deleted + options.edited);
    edit::edit(&edit::Options { seed: 2, ..options }, &first).expect("a second day");
}

#[test]
fn hostile_trees_are_the_same_each_time_and_hold_what_they_promise() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let options = hostile::Options { many: 50, sparse_gib: 1, depth: 60 };
    let trees = ["a", "b"].map(|name| temp.path().join(name));
    for tree in &trees {
        hostile::generate(&options, tree).expect("a hostile tree");
    }
    let [tree, again] = &trees;
    let sparse = tree.join("sparse.img").metadata().expect("the sparse file");
    assert!(sparse.len() == 1 << 30 && sparse.blocks() * 512 < 1 << 20, "{} blocks", sparse.blocks());
    for tree in &trees {
        fs::remove_file(tree.join("sparse.img")).expect("the sparse file goes");
        files::date_folders(&tree.join("names"), 0).expect("dates");
        fs::File::open(tree).and_then(|dir| dir.set_modified(files::time(0, 0))).expect("a date");
    }
    assert_eq!(fingerprint(tree), fingerprint(again));
    assert_eq!(fs::read_dir(tree.join("names/one byte")).expect("names").count(), 253);
    assert_eq!(fs::read_dir(tree.join("many")).expect("files").count(), 50);
    let before_1970 = tree.join("times/before 1970, half a second").metadata().expect("a file");
    assert_eq!((before_1970.mtime(), before_1970.mtime_nsec()), (-1, 500_000_000));
    assert_eq!(tree.join("modes/mode 4755").metadata().expect("a file").permissions().mode() & 0o7777, 0o4755);
    let mut deepest = 0;
    files::walk(tree, &mut |path, _| {
        deepest = deepest.max(path.components().count() - tree.components().count());
        Ok(())
    })
    .expect("the tree can be walked");
    assert_eq!(deepest, 62);
}

#[test]
fn mailboxes_hold_every_message() {
    let (temp, dir, summary) = tenant(&small(1));
    let mbox = temp.path().join("all.mbox");
    let count = mailbox::write_mbox(&dir, &mbox, Quoting::Mboxrd, LineEnds::Lf).expect("an mbox");
    assert_eq!(count, summary.mails);
    let text = fs::read(&mbox).expect("the mbox");
    let separators = text.split(|&byte| byte == b'\n').filter(|line| line.starts_with(b"From ")).count() as u64;
    assert_eq!(separators, summary.mails);
    let maildir = temp.path().join("maildir");
    assert_eq!(mailbox::write_maildir(&dir, &maildir).expect("a Maildir"), summary.mails);
    assert_eq!(files::list(&maildir, "").expect("messages").len() as u64, summary.mails);
}

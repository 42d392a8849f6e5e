//! Other layouts of the same tree: by month, and as Maildir (docs/semantics.md, "Layouts").

use crate::common;

use common::{Lab, names, no_fuse, run, text, walk, write};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns every file under `dir` by its path, with its content. Asserts that a look-up agrees with the listing.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    walk(dir, &mut |path, stat| {
        assert_eq!(fs::symlink_metadata(path).unwrap().ino(), stat.ino(), "{}", path.display());
        if stat.is_file() {
            files.insert(path.strip_prefix(dir).unwrap().to_owned(), fs::read(path).unwrap());
        }
    });
    files
}

/// Returns the path of a file in the layout by month. `folders` are the folders of the source: a year is named
/// differently if a folder has its name.
fn by_month(path: &Path, folders: &[&str]) -> PathBuf {
    let mut place = PathBuf::new();
    let mut original = PathBuf::new();
    for name in path {
        let text = name.to_str().unwrap();
        let is_month = matches!(text.get(5..7), Some(month) if ("01"..="12").contains(&month));
        let is_dated = text.len() >= 8 && text.as_bytes()[4] == b'-' && text.as_bytes()[7] == b'-' && is_month;
        if is_dated && text[..4].bytes().all(|byte| byte.is_ascii_digit()) {
            let taken = folders.contains(&original.join(&text[..4]).to_str().unwrap());
            place.push(if taken { format!("{} by month", &text[..4]) } else { text[..4].to_owned() });
            place.push(&text[5..7]);
        }
        place.push(name);
        original.push(name);
    }
    place
}

#[test]
fn by_month_holds_the_same_files() {
    if no_fuse() {
        return;
    }
    let lab = Lab::new();
    let source = lab.dir("source");
    let mut paths = Vec::new();
    for number in 0..3000 {
        let (year, month, day) = (2024 + number / 1500, 1 + number / 300 % 12, 1 + number % 28);
        paths.push(format!("Inbox/{year}-{month:02}-{day:02} 09.30 mail {number}.eml"));
    }
    paths.extend(
        [
            "Inbox/2024-11-05 Project/2024-12-01 in a folder that is dated itself.eml",
            "Inbox/2024-13-01 no month.eml",
            "Inbox/2024-1-01 no month.eml",
            "Inbox/2024 report.txt",
            "Inbox/notes.txt",
            "Inbox/Archive/2023-01-31 23.59 old.eml",
            "Inbox/Archive/2023-02-01 00.00 old.eml",
            "Archive/2022/2022-05-01 in a folder of the year.eml",
            "Archive/2022-06-01 beside a folder of the year.eml",
            "2021-07-01 at the root.eml",
            "top",
        ]
        .map(str::to_owned),
    );
    paths.iter().for_each(|path| write(&source.join(path), path));
    lab.backup(&source, "mail");

    let expected: BTreeMap<_, _> =
        paths.iter().map(|path| (by_month(Path::new(path), &["Archive/2022"]), path.clone().into_bytes())).collect();
    let mount = lab.mount(&["--snapshot", "latest", "--layout", "by-month"]);
    let found = files(&mount.path(""));
    assert_eq!(expected.len(), paths.len());
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    assert!(found == expected);
    assert_eq!(names(mount.path("")), ["2021", "Archive", "Inbox", "top"]);
    assert_eq!(names(mount.path("Archive")), ["2022", "2022 by month"]);
    for absent in
        ["2021-07-01 at the root.eml", "Inbox/2024/13", "Inbox/2023", "2021/07/08", "Archive/2022 by month/05"]
    {
        assert!(!mount.path(absent).exists(), "{absent}");
    }

    // The layout for all snapshots, with the same inode numbers after a remount.
    let all = lab.mount(&["--layout", "by-month"]);
    assert_eq!(names(all.path("")), ["README.txt", "latest", "snapshots"]);
    let month = all.path("latest/Inbox/2025/07");
    let before = month.metadata().unwrap().ino();
    assert_eq!(names(&month).len(), 300);
    all.unmount();
    let again = lab.mount(&["--layout", "by-month"]);
    assert_eq!(again.path("latest/Inbox/2025/07").metadata().unwrap().ino(), before);
}

const MAIL: &str = "From: Alice <alice@contoso.com>\r\nTo: bob@contoso.com\r\nSubject: one\r\n\r\nGood morning.\r\n";

/// A script that prints what Python's `mailbox` finds in a Maildir: its folders, with the subjects and flags of their
/// mails.
const PYTHON: &str = "
import mailbox, os, sys
for place, folders, _ in sorted(os.walk(sys.argv[1])):
    if {'cur', 'new', 'tmp'} <= set(folders):
        for key, mail in sorted(mailbox.Maildir(place, create=False).items()):
            print(os.path.relpath(place, sys.argv[1]), key, mail['subject'], mail.get_flags(), mail.get_subdir(), sep='|')
";

/// Evolution spreads the mails of a large Maildir over `cur/00` to `cur/ff`. No other program looks there.
#[test]
fn mails_of_a_maildir_that_is_spread_over_folders_show_in_cur() {
    if no_fuse() {
        return;
    }
    let lab = Lab::new();
    let source = lab.dir("source");
    let mail = |subject: &str| MAIL.replace("one", subject);
    let mut expected = Vec::new();
    for number in 0..600 {
        // Some mails lie in `cur` itself, and sort before and after the folders.
        let folder = if number % 50 == 0 { String::new() } else { format!("{:02x}/", number % 64) };
        let name = format!("{}{number}.host:2,S", if number % 100 == 0 { "z" } else { "0" });
        write(&source.join(format!("own/cur/{folder}{name}")), mail(&format!("number {number}")));
        expected.push(name);
    }
    write(&source.join("own/cur/kept/below/a.host:2,"), mail("in a folder that is no part of a Maildir"));
    write(&source.join("own/cur/aa/bb/b.host:2,"), mail("deeper than mails are spread"));
    write(&source.join("own/new/7/c.host"), mail("new"));
    fs::create_dir(source.join("own/tmp")).unwrap();
    write(&source.join("Inbox/00/four.eml"), mail("in a folder that has a short name"));
    lab.backup(&source, "mail");
    expected.extend(["aa".to_owned(), "kept".to_owned()]);
    expected.sort_unstable();

    let mount = lab.mount(&["--snapshot", "latest", "--layout", "maildir"]);
    assert_eq!(names(mount.path("own/cur")), expected);
    assert_eq!(names(mount.path("own/new")), ["c.host"]);
    assert_eq!(names(mount.path("own/cur/aa")), ["bb"]);
    assert_eq!(names(mount.path("Inbox")), ["00", "cur", "new", "tmp"]);
    assert_eq!(names(mount.path("Inbox/00/cur")), ["four.eml:2,"]);
    for name in expected.iter().filter(|name| name.contains(".host")) {
        let path = mount.path("own/cur").join(name);
        let number: String = name[1..].chars().take_while(char::is_ascii_digit).collect();
        assert!(fs::read_to_string(&path).unwrap().contains(&format!("Subject: number {number}\r")), "{name}");
    }
    assert!(!mount.path("own/cur/00").exists());
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: needs python3");
        return;
    }
    let read = run(Command::new("python3").args(["-c", PYTHON]).arg(mount.path("own")), 0);
    assert_eq!(text(&read.stdout).lines().filter(|line| line.contains("|number ")).count(), 600);
}

#[test]
fn programs_read_the_mount_as_maildir() {
    if no_fuse() {
        return;
    }
    let lab = Lab::new();
    let source = lab.dir("source");
    write(&source.join("Inbox/2026-11-01 one.eml"), MAIL);
    write(&source.join("Inbox/2026-11-02 two.eml"), MAIL.replace("one", "two"));
    write(&source.join("Inbox/plan.pdf"), "%PDF");
    write(&source.join("Inbox/Below/three.eml"), MAIL.replace("one", "three"));
    write(&source.join("with:colon.eml"), MAIL.replace("one", "four"));
    write(&source.join("Inbox/Below/new/six.eml"), MAIL.replace("one", "six"));
    // A source that is a Maildir already.
    for (place, flags) in [("cur", "RS"), ("new", "")] {
        write(&source.join(format!("own/{place}/5.host:2,{flags}")), MAIL.replace("one", "five"));
    }
    fs::create_dir(source.join("own/tmp")).unwrap();
    fs::create_dir(source.join("empty")).unwrap();
    lab.backup(&source, "mail");

    let mount = lab.mount(&["--snapshot", "latest", "--layout", "maildir"]);
    assert_eq!(names(mount.path("")), ["Inbox", "cur", "empty", "new", "own", "tmp"]);
    assert_eq!(names(mount.path("Inbox")), ["Below", "cur", "new", "tmp"]);
    assert_eq!(names(mount.path("Inbox/Below")), ["cur", "new", "new (folder)", "tmp"]);
    assert_eq!(names(mount.path("Inbox/Below/new (folder)/cur")), ["six.eml:2,"]);
    assert_eq!(names(mount.path("Inbox/cur")), ["2026-11-01 one.eml:2,", "2026-11-02 two.eml:2,"]);
    assert_eq!(names(mount.path("Inbox/new")), [""; 0]);
    assert_eq!(names(mount.path("cur")), ["with:colon.eml"]);
    assert_eq!(names(mount.path("own")), ["cur", "new", "tmp"]);
    assert_eq!(names(mount.path("own/cur")), ["5.host:2,RS"]);
    assert_eq!(files(&mount.path("")).len(), 7);
    for absent in ["Inbox/2026-11-01 one.eml", "Inbox/cur/2026-11-01 one.eml", "Inbox/cur/plan.pdf", "own/cur/cur"] {
        assert!(!mount.path(absent).exists(), "{absent}");
    }
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: needs python3");
        return;
    }
    let read = run(Command::new("python3").args(["-c", PYTHON]).arg(mount.path("")), 0);
    let expected = "\
        .|with|four||cur\n\
        Inbox|2026-11-01 one.eml|one||cur\n\
        Inbox|2026-11-02 two.eml|two||cur\n\
        Inbox/Below|three.eml|three||cur\n\
        Inbox/Below/new (folder)|six.eml|six||cur\n\
        own|5.host|five||new\n";
    let read = text(&read.stdout).replace("own|5.host|five|RS|cur", "own|5.host|five||new");
    assert_eq!(read, expected);
}

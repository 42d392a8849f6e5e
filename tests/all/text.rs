//! The text view holds what people read: what Python's `email` decodes in a mail is found in its text by `rg -F`,
//! whatever the mail's charset and encoding.

use crate::common;

use common::{Lab, Mount, names, no_fuse, run, spam_assassin, text, tool, walk, write};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What must be found in the text of a mail.
struct Expected {
    path: String,
    phrases: Vec<String>,
}

/// Asks Python; none where it is missing, as on a machine without the development tools.
fn python(command: &str, folder: &Path) -> Option<Vec<Expected>> {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: needs python3");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/text/mails.py");
    let output = run(Command::new("python3").arg("-B").arg(script).arg(command).arg(folder), 0);
    let said = text(&output.stdout);
    let expected = said.lines().map(|line| {
        let value: Value = serde_json::from_str(line).unwrap();
        let phrases = value["phrases"].as_array().unwrap().iter().map(|phrase| phrase.as_str().unwrap().to_owned());
        Expected { path: value["path"].as_str().unwrap().to_owned(), phrases: phrases.collect() }
    });
    Some(expected.collect())
}

fn text_of(mount: &Mount, path: &str) -> PathBuf {
    mount.path(format!("{path}.txt"))
}

/// Returns the files under the mount in which `rg -F` finds one of `phrases`.
fn search(lab: &Lab, mount: &Mount, phrases: &[&str]) -> BTreeSet<PathBuf> {
    let file = lab.path("phrases");
    write(&file, phrases.join("\n"));
    let mut command = Command::new("rg");
    command.args(["--fixed-strings", "--files-with-matches", "--no-ignore", "--hidden", "--no-config"]);
    let output = run(command.arg("--file").arg(&file).arg(mount.path("")), 0);
    text(&output.stdout).lines().map(PathBuf::from).collect()
}

#[test]
fn every_charset_and_encoding_is_found() {
    if no_fuse() {
        return;
    }
    let lab = Lab::new();
    let source = lab.dir("source");
    let Some(expected) = python("generate", &source) else { return };
    assert!(expected.len() > 90);
    lab.backup(&source, "mail");
    let mount = lab.mount(&["--snapshot", "latest", "--layout", "text"]);
    let mut missing = Vec::new();
    for Expected { path, phrases } in &expected {
        for phrase in phrases {
            let found = search(&lab, &mount, &[phrase]);
            if found != BTreeSet::from([text_of(&mount, path)]) {
                missing.push(format!("{phrase:?} of {path} is in {found:?}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    // In the raw files hardly any of it is.
    let mails = lab.mount(&["--snapshot", "latest"]);
    let phrases: Vec<_> = expected.iter().map(|mail| mail.phrases[0].as_str()).collect();
    assert!(search(&lab, &mails, &phrases).len() < expected.len() / 20);
}

#[test]
fn what_python_reads_in_real_mails_is_found() {
    if no_fuse() {
        return;
    }
    let corpus = spam_assassin();
    let Some(expected) = python("expect", &corpus) else { return };
    let lab = Lab::new();
    lab.backup(&corpus, "mail");
    let mount = lab.mount(&["--snapshot", "latest", "--layout", "text"]);
    let (mut missing, mut looked_for) = (Vec::new(), 0);
    for Expected { path, phrases } in &expected {
        let text = fs::read_to_string(text_of(&mount, path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        for phrase in phrases {
            looked_for += 1;
            if !text.contains(phrase) {
                missing.push(format!("{path}: {phrase:?}"));
            }
        }
    }
    println!("{looked_for} phrases in {} mails", expected.len());
    assert!(looked_for > 100_000);
    assert!(missing.is_empty(), "{} phrases are missing:\n{}", missing.len(), missing.join("\n"));
    // And by the program that it is for: the longest phrase of each mail.
    let longest = expected.iter().filter_map(|mail| mail.phrases.iter().max_by_key(|phrase| phrase.len()));
    let found = search(&lab, &mount, &longest.map(String::as_str).collect::<Vec<_>>());
    let unfound =
        expected.iter().filter(|mail| !mail.phrases.is_empty() && !found.contains(&text_of(&mount, &mail.path)));
    assert_eq!(unfound.map(|mail| &mail.path).collect::<Vec<_>>(), [""; 0]);
}

const MAIL: &str = "From: Alice <alice@contoso.com>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMIME-Version: 1.0\r\n\
                    Content-Transfer-Encoding: base64\r\n\r\nR3V0ZW4gTW9yZ2Vu\r\n";
const TEXT: &str = "From: Alice <alice@contoso.com>\nSubject: Grüße\n\nGuten Morgen\n";

#[test]
fn the_text_view_has_the_folders_and_the_texts_of_mails() {
    if no_fuse() {
        return;
    }
    let lab = Lab::new();
    let source = lab.dir("source");
    write(&source.join("Inbox/1.eml"), MAIL);
    write(&source.join("Inbox/plan.pdf"), "%PDF");
    write(&source.join("maildir/cur/without an ending"), MAIL);
    write(&source.join("folder.txt/1.eml"), MAIL);
    fs::create_dir(source.join("empty")).unwrap();
    std::os::unix::fs::symlink("1.eml", source.join("Inbox/link.eml")).unwrap();
    // A folder called as a mail's text would be is shown, and the text is not.
    write(&source.join("clash/a"), MAIL);
    fs::create_dir(source.join("clash/a.txt")).unwrap();
    let long = [format!("{}.eml", "n".repeat(248)), format!("ü{}.eml", "n".repeat(247)), "n".repeat(251)];
    long.iter().for_each(|name| write(&source.join("long").join(name), MAIL));
    lab.backup(&source, "mail");

    let mount = lab.mount(&[]);
    assert_eq!(names(mount.path("")), ["README.txt", "latest", "snapshots", "text"]);
    assert_eq!(names(mount.path("text")), names(mount.path("snapshots")));
    let snapshot = names(mount.path("text")).remove(0);
    assert!(fs::read_link(mount.path("latest")).unwrap().starts_with("snapshots"));
    let (items, texts) = (mount.path("snapshots").join(&snapshot), mount.path("text").join(&snapshot));
    assert_eq!(names(&texts), ["Inbox", "clash", "empty", "folder.txt", "long", "maildir"]);
    assert_eq!(names(texts.join("Inbox")), ["1.eml.txt"]);
    assert_eq!(names(texts.join("maildir/cur")), ["without an ending.txt"]);
    assert_eq!(names(texts.join("empty")), [""; 0]);
    assert_eq!(names(texts.join("clash")), ["a.txt"]);
    assert!(texts.join("clash/a.txt").is_dir());
    for path in ["Inbox/1.eml.txt", "maildir/cur/without an ending.txt", "folder.txt/1.eml.txt"] {
        assert_eq!(fs::read_to_string(texts.join(path)).unwrap(), TEXT, "{path}");
        assert_eq!(texts.join(path).metadata().unwrap().len(), TEXT.len() as u64);
    }
    for path in ["Inbox/1.eml", "Inbox/plan.pdf.txt", "Inbox/link.eml.txt", "folder", "Inbox.txt"] {
        assert!(!texts.join(path).exists(), "{path}");
    }
    let (item, its_text) =
        (items.join("Inbox/1.eml").metadata().unwrap(), texts.join("Inbox/1.eml.txt").metadata().unwrap());
    assert_ne!(item.ino(), its_text.ino());
    assert_eq!((item.mtime(), item.mode()), (its_text.mtime(), its_text.mode()));
    let cut = names(texts.join("long"));
    assert_eq!(cut.len(), 3);
    assert!(cut.iter().all(|name| name.len() <= 255 && name.ends_with(".txt")));
    cut.iter().for_each(|name| assert_eq!(fs::read_to_string(texts.join("long").join(name)).unwrap(), TEXT));
    // Every name that a listing gives leads to the same file as the listing said.
    walk(&mount.path("text"), &mut |path, stat| {
        assert_eq!(fs::symlink_metadata(path).unwrap().ino(), stat.ino(), "{}", path.display());
    });
    tool("find", args![mount.path("text"), "-type", "f", "-size", "-1"]);

    let mails = lab.mount(&["--layout", "eml"]);
    assert_eq!(names(mails.path("")), ["README.txt", "latest", "snapshots"]);
    let texts = lab.mount(&["--layout", "text"]);
    assert_eq!(names(texts.path("")), ["README.txt", "latest", "text"]);
    assert_eq!(fs::read_to_string(texts.path("latest/Inbox/1.eml.txt")).unwrap(), TEXT);
    let one = lab.mount(&["--snapshot", "latest", "--layout", "text"]);
    assert_eq!(fs::read_to_string(one.path("Inbox/1.eml.txt")).unwrap(), TEXT);
    lab.run(args!["mount", lab.new_mount_point(), "--snapshot", "latest", "--layout", "both"], 2);
}

#[test]
fn unchanged_mails_keep_their_texts() {
    if no_fuse() {
        return;
    }
    let lab = Lab::new();
    let source = lab.dir("source");
    write(&source.join("1.eml"), MAIL);
    lab.backup(&source, "mail");
    write(&source.join("2.eml"), MAIL.replace("Alice", "Bob"));
    let report = lab.backup(&source, "mail");
    assert_eq!((&report["items"]["new"], &report["items"]["unchanged"]), (&Value::from(1), &Value::from(1)));
    let mount = lab.mount(&["--snapshot", "latest", "--layout", "text"]);
    assert_eq!(fs::read_to_string(mount.path("1.eml.txt")).unwrap(), TEXT);
    assert_eq!(fs::read_to_string(mount.path("2.eml.txt")).unwrap(), TEXT.replace("Alice", "Bob"));
    lab.run(["check", "--read-data"], 0);
}

//! Backups of mbox files: every message is there, and other files are refused.

use super::*;

#[test]
fn messages_of_an_mbox_come_back() {
    let lab = Lab::new();
    let path = lab.path("archive.mbox");
    let (mut mbox, mut expected) = (Vec::new(), BTreeMap::<Vec<u8>, usize>::new());
    let mut add = |from_line: &[u8], message: &[u8]| {
        mbox.extend([from_line, b"\n", message, b"\n"].concat());
        *expected.entry(message.to_vec()).or_default() += 1;
    };
    // Each of these mails begins with its own From_ line. Mails with another line that looks like one are left out.
    for entry in fs::read_dir(spam_assassin().join("easy-ham-2")).unwrap() {
        let mail = fs::read(entry.unwrap().path()).unwrap();
        let first_len = mail.iter().position(|byte| *byte == b'\n').unwrap();
        let (from_line, message) = (&mail[..first_len], &mail[first_len + 1..]);
        let another = message.windows(6).any(|window| window == b"\nFrom ");
        if from_line.starts_with(b"From ") && !another && message.ends_with(b"\n") {
            add(from_line, message);
        }
    }
    let from_line = b"From alice@contoso.com Thu Jan  1 00:00:00 2026";
    let same = b"From: Alice <alice@contoso.com>\r\nSubject: a/b: \"same\"?\r\n\r\nTwice the same.\r\n";
    add(from_line, same);
    add(from_line, same);
    add(from_line, b"Subject: quoted\n\n>From here on\n\n>>From there\n");
    add(from_line, b"From: bob@contoso.com\nSubject: \xff\xfe\n\n\xe4\0\n");
    let messages: usize = expected.values().sum();
    assert!(messages > 1000, "{messages} messages");
    write(&path, mbox);

    let backup = || lab.json(args!["backup", "--mbox", &path, "--as", "archive"]);
    assert_eq!(counts(&backup()), json!({ "new": messages }));
    assert_eq!(counts(&adds_only_its_snapshot(&lab, backup)), json!({ "unchanged": messages }));
    if no_fuse() {
        return;
    }
    let mount = lab.mount(&["--snapshot", "latest"]);
    let folder = mount.path("archive.mbox");
    let mut found = BTreeMap::<Vec<u8>, usize>::new();
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        *found.entry(fs::read(&path).unwrap()).or_default() += 1;
        let name = path.file_name().unwrap().to_str().expect("names are UTF-8").to_owned();
        assert!(
            name.ends_with(".eml") && name.len() <= 255 && !name.contains(|char: char| char.is_control()),
            "{name:?}"
        );
        assert!(!name.contains(['/', '\\', ':', '*', '?', '"', '<', '>', '|']), "{name:?}");
        assert!(names.insert(name.to_lowercase()), "{name:?} differs from another only in case");
    }
    assert!(found == expected, "every message comes back byte for byte");
    for name in ["2026-01-01 00.00 alice - a-b 'same'.eml", "2026-01-01 00.00 alice - a-b 'same' (2).eml"] {
        assert!(names.contains(name), "{name}: {names:?}");
    }
}

/// Returns the mails of one mailbox in the forms of several programs, as (name, file, number of mails).
fn mailboxes() -> Vec<(&'static str, String, usize)> {
    let letter = |number: usize| {
        format!(
            "From: Ann Other <ann{number}@example.org>\nTo: bo@example.org\nSubject: Letter {number}\n\
            Message-ID: <m{number}@example.org>\n\nBody of letter {number}.\nSecond line.\n"
        )
    };
    let join = |separator: &str, behind: &str| -> String {
        (1..4).map(|number| format!("{separator}\n{}{behind}", letter(number))).collect()
    };
    let dated = "From ann@example.org Mon Mar  2 10:00:00 2026";
    let prose = "\nFrom memory it was in May 2019 at 10:30 or so.\n\n";
    let line = "\u{1}\u{1}\u{1}\u{1}\n";
    vec![
        ("dated", join(dated, "\n"), 3),
        ("without blank lines", join(dated, ""), 3),
        ("thunderbird", join("From ", "\n"), 3),
        ("dash", join("From -", "\n"), 3),
        ("other date", join("From ann@example.org 3/2/2026 10:00:00 AM", "\n"), 3),
        ("classic mac", join(dated, "\n").replace('\n', "\r"), 3),
        ("windows", join(dated, "\n").replace('\n', "\r\n"), 3),
        ("prose", join(dated, prose), 3),
        ("marked", format!("\u{feff}{}", join(dated, "\n")), 3),
        ("hole", format!("{}{}", "\0".repeat(4096), join(dated, "\n")), 3),
        ("mmdf", (1..4).map(|number| format!("{line}{}{line}", letter(number))).collect(), 3),
        ("begins with a mail", letter(1) + "\n" + &join(dated, "\n"), 4),
        ("empty", String::new(), 0),
    ]
}

#[test]
fn no_message_of_an_mbox_is_lost_or_joined_to_another() {
    let lab = Lab::new();
    let boxes = mailboxes();
    let mut arguments = vec!["backup".to_owned(), "--as".to_owned(), "mail".to_owned()];
    for (name, file, _) in &boxes {
        write(&lab.path(name), file);
        arguments.extend(["--mbox".to_owned(), (*name).to_owned()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    assert_eq!(counts(&lab.json(&arguments)), json!({ "new": boxes.iter().map(|(.., mails)| mails).sum::<usize>() }));
    for (name, file, mails) in boxes {
        let listed =
            String::from_utf8(lab.run(args!["ls", "--json", format!("latest:mail:{name}")], 0).stdout).unwrap();
        let listed: Vec<serde_json::Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(listed.len(), mails, "{name}");
        // The mails and the separators together are exactly the bytes of the file.
        let mut left = file.clone();
        for mail in &listed {
            let path = format!("latest:mail:{}", mail["path"].as_str().unwrap());
            let bytes = String::from_utf8(lab.run(["cat", &path], 0).stdout).unwrap();
            let text = bytes.replace("\r\n", "\n").replace('\r', "\n");
            let number = (1..4).find(|number| text.contains(&format!("Subject: Letter {number}\n"))).unwrap();
            assert!(text.contains(&format!("Body of letter {number}.\nSecond line.\n")), "{name}: {text}");
            assert!(left.contains(&bytes), "{name}: {bytes}");
            left = left.replacen(&bytes, "", 1);
            // A mail without a date gets the date of its separator.
            let separator = mail["separator"].as_str().unwrap_or_default().to_owned();
            assert!(
                mail["separator"].is_null() || file.contains(separator.trim_start_matches(['\0', '\u{feff}'])),
                "{name}"
            );
            if separator.ends_with("10:00:00 2026") {
                let time: jiff::Timestamp = mail["mtime"].as_str().unwrap().parse().unwrap();
                assert_eq!(time.to_string(), "2026-03-02T10:00:00Z", "{name}");
                assert!(mail["path"].as_str().unwrap().contains("/2026-03-02 10.00 "), "{mail}");
            }
        }
        let rest: String = left.split(['\n', '\r']).filter(|line| !line.is_empty()).collect();
        assert!(rest.split("From").all(|line| !line.contains("Body") && !line.contains("memory")), "{name}: {rest:?}");
    }

    // New mail changes nothing of the earlier mail.
    let (name, mut file, _) = mailboxes().swap_remove(0);
    let before = String::from_utf8(lab.run(["ls", "--json", "latest:mail:dated"], 0).stdout).unwrap();
    file += "From ann@example.org Tue Mar  3 10:00:00 2026\nFrom: ann4@example.org\nSubject: Letter 4\n\nNew.\n\n";
    write(&lab.path(name), file);
    let report = lab.json(&arguments);
    let all = mailboxes().iter().map(|(.., mails)| mails).sum::<usize>();
    assert_eq!(counts(&report), json!({ "new": 1, "unchanged": all }));
    let after = String::from_utf8(lab.run(["ls", "--json", "latest:mail:dated"], 0).stdout).unwrap();
    assert!(after.starts_with(&before), "{before}\n{after}");
}

#[test]
fn files_that_are_no_mbox_are_refused_with_the_reason() {
    let lab = Lab::new();
    let files: [(&str, &[u8], &str); 6] = [
        ("packed.mbox", b"\x1f\x8b\x08\0\0", "compressed with gzip"),
        ("archive.zip", b"PK\x03\x04", "ZIP archive"),
        ("zeros", &[0; 5000], "zero bytes"),
        ("notes.txt", b"From here on all is prose.\n\nFrom now on, too.\n", "no line `From <sender> <date>`"),
        ("utf16", b"\xff\xfeF\0r\0o\0m\0 \0", "UTF-16"),
        ("good.mbox", b"From a@b Mon Nov  2 09:30:00 2026\nSubject: one\n\nHello\n", ""),
    ];
    let mut arguments = vec!["backup", "--as", "mail", "--mbox", "folder", "--mbox", "missing"];
    for (name, bytes, _) in files {
        write(&lab.path(name), bytes);
        arguments.extend(["--mbox", name]);
    }
    fs::create_dir(lab.path("folder")).unwrap();
    let report = lab.json_with_exit(&arguments, 3);
    assert_eq!(counts(&report), json!({ "new": 1, "failed": 7 }));
    let said: BTreeMap<&str, &str> = report["failures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|failure| (failure["path"].as_str().unwrap(), failure["error"].as_str().unwrap()))
        .collect();
    for (name, _, reason) in files.iter().filter(|(.., reason)| !reason.is_empty()) {
        assert!(said[name].contains(reason), "{name}: {}", said[name]);
    }
    assert!(said["folder"].contains("the folder has no file `mbox` in it") && said["missing"].contains("No such file"));
    // Apple Mail exports a folder with a file `mbox`.
    write(&lab.path("folder/mbox"), files[5].1);
    assert_eq!(counts(&lab.json(["backup", "--as", "apple", "--mbox", "folder"])), json!({ "new": 1 }));
}

//! What commands print: JSON, logs, and nothing that commands a terminal.

use super::*;

#[track_caller]
fn assert_time(value: &Value) {
    let text = value.as_str().expect("a time");
    text.parse::<jiff::Timestamp>().unwrap_or_else(|error| panic!("{text}: {error}"));
}

fn lines_of_json(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn json_of_backup_has_the_documented_keys() {
    let lab = Lab::new();
    write(&lab.path("home/a"), "a\n");
    write(&lab.path("home/b"), "b\n");
    let report = lab.backup(&lab.path("home"), "home");
    let keys = [
        "snapshot",
        "set",
        "status",
        "started",
        "finished",
        "items",
        "bytes",
        "requests",
        "throttled",
        "failures",
        "skipped",
        "warnings",
        "changed_while_read",
    ];
    assert_keys(&report, keys);
    assert_hex(&report["snapshot"], 64);
    assert_eq!((&report["set"], &report["status"]), (&json!("home"), &json!("ok")));
    assert_time(&report["started"]);
    assert_time(&report["finished"]);
    let items = |new: u64, changed: u64, moved: u64, deleted: u64, unchanged: u64| {
        let counts = [("new", new), ("changed", changed), ("moved", moved), ("deleted", deleted)];
        Value::from_iter(counts.into_iter().chain([("unchanged", unchanged), ("failed", 0)]))
    };
    assert_eq!(report["items"], items(2, 0, 0, 0, 0));
    assert_keys(&report["bytes"], ["source", "added", "stored"]);
    assert_eq!(report["bytes"]["source"], 4);
    assert!(report["bytes"]["added"].as_u64() > Some(4) && report["bytes"]["stored"].as_u64() > Some(0));
    assert_eq!((&report["requests"], &report["throttled"]), (&json!(0), &json!(0)));
    assert_eq!((&report["failures"], &report["warnings"]), (&json!([]), &json!([])));

    write(&lab.path("home/a"), "changed\n");
    write(&lab.path("home/d"), "new\n");
    fs::rename(lab.path("home/b"), lab.path("home/c")).unwrap();
    assert_eq!(lab.backup(&lab.path("home"), "home")["items"], items(1, 1, 1, 0, 0));
    fs::remove_file(lab.path("home/d")).unwrap();
    let report = lab.backup(&lab.path("home"), "home");
    assert_eq!(report["items"], items(0, 0, 0, 1, 2));
    let report = lab.backup(&lab.path("home"), "home");
    assert_eq!(report["items"], items(0, 0, 0, 0, 2));
    assert_eq!(report["bytes"]["added"], 0);
}

#[test]
fn json_of_listings_has_the_documented_keys() {
    let lab = changed_lab();
    let snapshots = lab.json(["snapshots"]);
    let snapshots = snapshots.as_array().unwrap();
    assert_eq!(snapshots.len(), 3);
    for snapshot in snapshots {
        assert_keys(snapshot, ["id", "time", "set", "items", "bytes", "added", "failed", "ahead"]);
        assert_hex(&snapshot["id"], 64);
        assert_time(&snapshot["time"]);
        assert_eq!((&snapshot["failed"], &snapshot["ahead"]), (&json!(0), &json!(false)));
    }
    let column = |name: &str| snapshots.iter().map(|snapshot| snapshot[name].clone()).collect::<Vec<_>>();
    assert_eq!(column("set"), [json!("home"), json!("mail"), json!("home")]);
    assert_eq!(column("items"), [json!(5), json!(1), json!(5)]);

    let stats = lab.json(["stats"]);
    assert_keys(&stats, ["bytes_stored", "bytes_source", "snapshots", "chunks", "packs"]);
    assert_eq!(stats["bytes_stored"], lab.objects().values().sum::<u64>());
    assert_eq!(stats["bytes_source"], column("bytes").iter().map(|bytes| bytes.as_u64().unwrap()).sum::<u64>());
    let packs = lab.objects().into_keys().filter(|name| name.starts_with("packs/")).count();
    assert_eq!((&stats["snapshots"], &stats["packs"]), (&json!(3), &json!(packs)));

    let listed = lines_of_json(&lab.run(["ls", "-R", "--json", "latest~2"], 0));
    for entry in &listed {
        assert_keys(entry, ["path", "type", "size", "mtime", "subject", "from"]);
        assert_time(&entry["mtime"]);
    }
    let kinds: BTreeMap<_, _> =
        listed.iter().map(|entry| (entry["path"].as_str().unwrap(), entry["type"].as_str().unwrap())).collect();
    assert_eq!((kinds["folder"], kinds["folder/moved"], kinds.len()), ("directory", "file", 6));
    let mails = lines_of_json(&lab.run(["ls", "--json", "latest:mail"], 0));
    let mail = mails.iter().find(|entry| entry["type"] == "file").unwrap();
    assert_eq!(
        (&mail["subject"], mail["from"].as_str().unwrap().contains("bob@example.com")),
        (&json!("Budget"), true)
    );

    let differences = lines_of_json(&lab.run(["diff", "--json", "latest~2", "latest"], 0));
    differences.iter().for_each(|difference| assert_keys(difference, ["change", "path", "from"]));
    let moved = differences.iter().find(|difference| difference["change"] == "moved").unwrap();
    assert_eq!((&moved["path"], &moved["from"]), (&json!("moved here"), &json!("folder/moved")));

    let report = lab.json(["check", "--read-data"]);
    let counts = ["snapshots", "packs", "packs_without_index", "bytes_read"];
    let keys = ["sound", "problems", "lost", "later", "warnings"];
    assert_eq!(keys_of(&report), keys.into_iter().chain(counts).collect());
    assert_eq!((&report["later"], &report["warnings"]), (&json!([]), &json!([])));
    assert_eq!((&report["sound"], &report["snapshots"], &report["packs"]), (&json!(true), &json!(3), &json!(packs)));
    assert_eq!(
        (&report["problems"], &report["lost"], &report["packs_without_index"]),
        (&json!([]), &json!([]), &json!(0))
    );
    assert!(report["bytes_read"].as_u64() > Some(0));
    assert_eq!(lab.json(["check"])["bytes_read"], 0);

    for pack in lab.objects().into_keys().filter(|name| name.starts_with("packs/")) {
        fs::remove_file(lab.repository().join(pack)).unwrap();
    }
    let report = lab.json_with_exit(["check"], 13);
    assert_keys(&report["problems"][0], ["object", "error"]);
    assert_keys(&report["lost"][0], ["snapshot", "path", "part", "error"]);
    assert!(text(&lab.run(["check"], 13).stdout).contains("(everything)"));

    for slot in lab.json(["key", "list"]).as_array().unwrap() {
        assert_keys(slot, ["id", "kind", "label", "created", "in_use"]);
        assert_hex(&slot["id"], 32);
        assert_time(&slot["created"]);
    }
}

#[test]
fn quiet_commands_say_nothing_on_standard_error() {
    let lab = Lab::new();
    write(&lab.path("home/file"), "content\n");
    write(&lab.path("home/cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n");
    let backup = ["backup", "--files", "home", "--exclude-caches"];
    let said = text(&lab.run(backup, 0).stderr);
    assert!(said.contains("skipped: cache: "), "{said}");
    let commands: [&[&str]; 7] = [
        &backup,
        &["snapshots"],
        &["ls", "-R", "latest"],
        &["cat", "latest:file"],
        &["diff", "latest", "latest"],
        &["check", "--read-data"],
        &["key", "list"],
    ];
    for arguments in commands {
        let output = run(lab.command(arguments).arg("--quiet"), 0);
        assert!(output.stderr.is_empty(), "{arguments:?}: {}", text(&output.stderr));
    }
    // Errors are printed even with `--quiet`.
    fails(&mut lab.command(["ls", "latest:nothing", "--quiet"]), 2);
    if common::no_fuse() {
        return;
    }
    let at = lab.new_mount_point();
    let output = run(&mut lab.command(args!["mount", &at, "--quiet"]), 0);
    common::tool("fusermount3", args!["-u", &at]);
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[test]
fn a_closed_pipe_ends_commands_quietly() {
    let lab = Lab::new();
    for number in 0..20_000 {
        write(&lab.path(format!("home/a rather long name of a small file {number}")), "");
    }
    write(&lab.path("home/large"), noise(1, 5_000_000));
    lab.backup(&lab.path("home"), "home");
    write(&lab.path("empty/file"), "");
    lab.backup(&lab.path("empty"), "empty");
    let commands: [&[&str]; 6] = [
        &["ls", "-R", "latest:home"],
        &["ls", "-R", "--json", "latest:home"],
        &["diff", "latest:empty", "latest:home"],
        &["diff", "--json", "latest:empty", "latest:home"],
        &["cat", "latest:home:large"],
        &["completions", "zsh"],
    ];
    for arguments in commands {
        let mut child = lab.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::with_capacity(16, child.stdout.take().unwrap());
        let mut line = Vec::new();
        out.read_until(b'\n', &mut line).unwrap();
        assert!(!line.is_empty());
        drop(out);
        assert_is_quiet(child, arguments);
    }
    // The reader closes the pipe before it reads anything.
    let commands: [&[&str]; 7] = [
        &["snapshots"],
        &["stats"],
        &["stats", "--json"],
        &["check"],
        &["check", "--json"],
        &["key", "list"],
        &["man"],
    ];
    for arguments in commands {
        let mut child = lab.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        assert_is_quiet(child, arguments);
    }
    // A closed standard error does not stop the work either.
    let mut child = lab.command(["backup", "--files", "home", "-v"]).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert!(child.wait().unwrap().success());
}

#[track_caller]
fn assert_is_quiet(mut child: std::process::Child, arguments: &[&str]) {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert!(said.is_empty() && status.success(), "{arguments:?}: {status}: {said}");
}

#[test]
fn control_characters_in_names_are_escaped() {
    let lab = Lab::new();
    // Control characters, and invisible characters that change how the others are shown.
    let hidden = "gnp\u{202e}exe \u{2066}b\u{2028}c\u{2029}d\u{200b}e\u{feff}f\u{9b}g\u{e0041}h";
    let names: [&[u8]; 5] =
        [b"clear\x1b[2Jscreen", b"bell\x07", b"two\nlines", b"bad \xff\xc2\x9b utf", hidden.as_bytes()];
    for name in names {
        write(&lab.path("home").join(OsStr::from_bytes(name)), "content\n");
    }
    let home = lab.path("home");
    let report = lab.run(args!["backup", "--files", &home, "--as", "set\x1b[31m"], 0);
    fs::rename(home.join(OsStr::from_bytes(names[0])), home.join("moved\x1b[2J")).unwrap();
    fs::remove_file(home.join(OsStr::from_bytes(names[1]))).unwrap();
    lab.run(args!["backup", "--files", &home, "--as", "set\x1b[31m"], 0);
    let listed = lab.run(["ls", "-R", "latest~1"], 0);
    let shown = text(&listed.stdout);
    assert_eq!(shown.lines().count(), names.len(), "{shown}");
    assert!(
        shown.contains(r"gnp\u{202e}exe \u{2066}b\u{2028}c\u{2029}d\u{200b}e\u{feff}f\u{9b}g\u{e0041}h"),
        "{shown}"
    );
    let label = ["key", "add", "--password-memory", "1", "--label", "la\u{202e}bel"];
    run(lab.command(label).env("STRONGROOM_NEW_PASSWORD", "other"), 0);
    let packs = lab.objects().into_keys().filter(|name| name.starts_with("packs/"));
    let smallest = packs.min_by_key(|name| lab.objects()[name]).unwrap();
    let restored = lab.run(args!["restore", "latest", "--to", "local:back", "--dry-run"], 0);
    lab.run(args!["restore", "latest", "--to", "local:back"], 0);
    fs::write(lab.path("back").join(hidden), "changed\n").unwrap();
    let conflicts = lab.run(args!["restore", "latest", "--to", "local:back", "--dry-run"], 0);
    assert!(text(&conflicts.stdout).contains("gnp"), "{}", text(&conflicts.stdout));
    assert!(shown.contains(r"clear\u{1b}[2Jscreen") && shown.contains(r"two\nlines"), "{shown}");
    let outputs = [
        listed,
        report,
        lab.run(["snapshots"], 0),
        lab.run(["diff", "latest~1", "latest"], 0),
        lab.command(["cat", "latest:no\x1b[2Jthing"]).output().unwrap(),
        lab.command(["ls", "no\x1b[2Jthing"]).output().unwrap(),
        lab.run(["key", "list"], 0),
        lab.run(["snapshots", "no\x1b[2Jthing", hidden], 2),
        lab.run(["init", "--cipher", "no\x1b[2Jthing"], 2),
        restored,
        conflicts,
        {
            fs::write(lab.repository().join(smallest), "damaged").unwrap();
            lab.command(["check", "--read-data"]).output().unwrap()
        },
        lab.command(args!["restore", "latest", "--to", "local:again", "-vv", "--log-content"]).output().unwrap(),
    ];
    for output in outputs {
        let control = |byte: &u8| *byte != b'\n' && (*byte < 32 || *byte == 127);
        let shown = [output.stdout, output.stderr].concat();
        assert!(!shown.iter().any(control) && std::str::from_utf8(&shown).is_ok(), "{}", shown.escape_ascii());
        let is_hidden = |letter: char| {
            letter != '\n'
                && (letter.is_control() || hidden.contains(letter))
                && !letter.is_ascii_graphic()
                && letter != ' '
        };
        assert!(!text(&shown).chars().any(is_hidden), "{}", shown.escape_ascii());
    }
    // JSON holds the names unchanged, as far as JSON can.
    let listed = lines_of_json(&lab.run(["ls", "--json", "latest~1"], 0));
    assert!(listed.iter().any(|entry| entry["path"] == "clear\x1b[2Jscreen"));
}

/// docs/cli.md: without `--log-content` no log names backed up or restored items, at any level.
#[test]
fn no_command_logs_the_names_of_what_it_reads() {
    let lab = Lab::new();
    let mail = "From: Canary <canary@aviary.example>\r\nSubject: Canarysubject\r\n\r\nCanarybody\r\n";
    write(&lab.path("home/Canaryfolder/canary.eml"), mail);
    write(&lab.path("home/canary.txt"), "canary");
    std::os::unix::fs::symlink("canary nowhere", lab.path("home/canarylink")).unwrap();
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, lab.path("home/canarypipe"), kind, rustix::fs::Mode::RUSR, 0).unwrap();
    write(&lab.path("archive.mbox"), format!("From canary Mon Nov  2 09:30:00 2026\n{mail}\n"));
    let commands: [&[&str]; 9] = [
        &["backup", "--mbox", "archive.mbox", "--as", "mail"],
        &["backup", "--files", "home", "--as", "set"],
        &["ls", "-R", "latest"],
        &["cat", "latest:Canaryfolder/canary.eml"],
        &["diff", "latest~1", "latest"],
        &["restore", "latest:Canaryfolder", "--to", "local:back"],
        &["restore", "latest:Canaryfolder", "--to", "local:back", "--when-exists", "overwrite"],
        &["check", "--read-data"],
        &["backup", "--files", "home", "--as", "set"],
    ];
    for arguments in commands {
        let output = run(lab.command(arguments).arg("-vvv").env("STRONGROOM_LOG", "trace"), 0);
        let said = text(&output.stderr);
        // Messages for people may name items that were skipped or failed. Log lines may not.
        let is_log = |line: &&str| [" TRACE ", " DEBUG ", " INFO ", " WARN "].iter().any(|level| line.contains(level));
        for line in said.lines().filter(is_log) {
            assert!(!line.to_lowercase().contains("canary"), "{arguments:?}: {line}");
        }
    }
}

/// A pipe gets the file byte for byte. On a terminal, here that of `script`, control characters are escaped.
#[test]
fn cat_escapes_control_characters_on_a_terminal() {
    let lab = Lab::new();
    let mail = "Subject: \u{1b}]0;title\u{7} gnp\u{202e}exe\r\n\r\nGr\u{fc}\u{df}e\tx\r\n";
    write(&lab.path("home/mail.eml"), mail);
    lab.run(args!["backup", "--files", lab.path("home")], 0);
    assert_eq!(lab.run(["cat", "latest:mail.eml"], 0).stdout, mail.as_bytes());
    let direct = lab.command(["cat", "latest:mail.eml"]);
    let line = format!("'{}' cat latest:mail.eml", direct.get_program().display());
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).current_dir(lab.path(""));
    command.envs(direct.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let shown = text(&run(&mut command, 0).stdout).replace("\r\n", "\n");
    assert_eq!(shown, "Subject: \\u{1b}]0;title\\u{7} gnp\\u{202e}exe\n\nGr\u{fc}\u{df}e\tx\n");
}

/// Of the file systems of a machine, the one in memory can store any time.
#[test]
fn years_beyond_9999_and_before_0_are_shown() {
    let lab = Lab::new();
    let source = tempfile::tempdir_in("/dev/shm").unwrap();
    let times = [
        ("far", 999_999_999_999, "+033658-09-27"),
        ("old", -99_999_999_999, "-001199-02-15"),
        ("new", 1, "1970-01-01"),
    ];
    for (name, secs, _) in times {
        let path = source.path().join(name);
        write(&path, name);
        let time = rustix::fs::Timespec { tv_sec: secs, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
        assert_eq!(path.metadata().unwrap().mtime(), secs, "/dev/shm keeps it");
    }
    lab.run(args!["backup", "--files", source.path()], 0);
    let utc = |arguments: &[&str]| run(lab.command(arguments).env("TZ", "UTC"), 0);
    let listed = text(&utc(&["ls", "latest"]).stdout);
    let json = lines_of_json(&utc(&["ls", "--json", "latest"]));
    for (name, _, date) in times {
        assert!(listed.lines().any(|line| line.contains(&format!(" {date} ")) && line.ends_with(name)), "{listed}");
        let entry = json.iter().find(|entry| entry["path"] == name).unwrap();
        assert!(entry["mtime"].as_str().unwrap().starts_with(&format!("{date}T")), "{entry}");
    }
    let back = tempfile::tempdir_in("/dev/shm").unwrap();
    lab.run(args!["restore", "latest", "--to", format!("local:{}", back.path().display())], 0);
    let mount = (!common::no_fuse()).then(|| lab.mount(&["--snapshot", "latest"]));
    for (name, secs, _) in times {
        assert_eq!(back.path().join(name).metadata().unwrap().mtime(), secs, "{name} as it is restored");
        if let Some(mount) = &mount {
            assert_eq!(mount.path(name).metadata().unwrap().mtime(), secs, "{name} in the mount");
        }
    }
}

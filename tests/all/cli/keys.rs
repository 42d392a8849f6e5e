//! Passwords, keys and recovery keys on the command line.

use super::*;

#[test]
fn init_makes_one_repository_and_tells_its_recovery_key_once() {
    let lab = Lab::empty();
    let made = lab.json(["init", "--password-memory", "1"]);
    assert_keys(&made, ["id", "recovery_key"]);
    let id = assert_hex(&made["id"], 32);
    let recovery = made["recovery_key"].as_str().unwrap();
    assert_eq!(recovery.len(), 44);
    let before = lab.objects();

    // A second `init` changes nothing.
    let said = fails(&mut lab.command(["init", "--password-memory", "1"]), 1);
    assert!(said.contains("there is a repository at") && said.contains("Hint: choose another folder"), "{said}");
    assert_eq!(lab.objects(), before);
    lab.run(["snapshots"], 0);

    // The recovery key is accepted wherever a password is, and is stored nowhere.
    run(lab.command(["snapshots"]).env("STRONGROOM_PASSWORD", recovery), 0);
    for (name, _) in before {
        let bytes = fs::read(lab.repository().join(name)).unwrap();
        assert!(!bytes.windows(8).any(|window| window == &recovery.as_bytes()[..8]));
    }

    let other = lab.path("other");
    let output = run(lab.command(["init", "--password-memory", "1", "--repo"]).arg(&other), 0);
    let shown = text(&output.stdout);
    assert!(shown.starts_with("Created repository ") && shown.contains("\nRecovery key: "), "{shown}");
    assert!(!shown.contains(&id), "every repository has its own id");

    write(&lab.path("foreign/file"), "not ours");
    let said = fails(lab.command(["init", "--repo"]).arg(lab.path("foreign")), 1);
    assert!(said.contains("which is not part of a repository"), "{said}");
    assert_eq!(fs::read_dir(lab.path("foreign")).unwrap().count(), 1);
    lab.run(["init", "--cipher", "rot13"], 2);
    lab.run(["init", "--password-memory", "0"], 2);
}

/// A full disk, a closed pipe, and no standard output at all.
#[test]
fn a_recovery_key_that_could_not_be_shown_is_not_kept() {
    let lab = Lab::new();
    let deaf = |arguments: &[&str], repository: &Path| {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        for (what, stdout) in [("full", Stdio::from(full)), ("nobody reads", Stdio::from(writer))] {
            let mut command = lab.command(arguments);
            let output = command.env("STRONGROOM_REPO", repository).stdout(stdout).output().unwrap();
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{what}: {said}");
            assert!(said.contains("recovery key") && said.contains("could not be shown"), "{what}: {said}");
        }
        let mut closed = Command::new("sh");
        closed.args(["-c", "exec >&-; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_strongroom")]).args(arguments);
        closed.env("STRONGROOM_REPO", repository).env("STRONGROOM_PASSWORD", PASSWORD);
        closed.env("STRONGROOM_STATE_DIR", lab.state()).env("XDG_CONFIG_HOME", lab.path("config"));
        let output = closed.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("standard output is closed, so nobody would see the recovery key"));
    };
    for json in [&[][..], &["--json"]] {
        let other = lab.path("other");
        deaf(&[&["init", "--password-memory", "1"], json].concat(), &other);
        assert!(!other.join("config").exists());
        assert!(fs::read_dir(other.join("keys")).map_or(0, Iterator::count) == 0, "no key slot stays");
        let slots = lab.json(["key", "list"]);
        deaf(&[&["key", "add", "--recovery"], json].concat(), &lab.repository());
        assert_eq!(lab.json(["key", "list"]), slots);
    }
    // Throwing the output away on purpose is allowed.
    let mut command = lab.command(["init", "--password-memory", "1"]);
    command.env("STRONGROOM_REPO", lab.path("other")).stdout(Stdio::null());
    assert!(command.status().unwrap().success());
}

#[test]
fn both_ciphers_serve_every_command() {
    for cipher in ["aes-256-siv", "aes-256-pmac-siv"] {
        let lab = Lab::empty();
        lab.run(["init", "--password-memory", "1", "--cipher", cipher], 0);
        write(&lab.path("home/file"), "content\n");
        lab.backup(&lab.path("home"), "home");
        assert_eq!(lab.run(["cat", "latest:file"], 0).stdout, b"content\n");
        assert_eq!(lab.json(["check", "--read-data"])["sound"], true);
    }
}

#[test]
fn keys_are_added_listed_and_removed() {
    let lab = Lab::empty();
    let first_recovery = lab.json(["init", "--password-memory", "1"])["recovery_key"].as_str().unwrap().to_owned();
    let list = || lab.json(["key", "list"]).as_array().unwrap().clone();
    let opens = |secret: &str| {
        let output = lab.command(["snapshots"]).env("STRONGROOM_PASSWORD", secret).output().unwrap();
        assert!([Some(0), Some(12)].contains(&output.status.code()));
        output.status.success()
    };
    assert!(opens(PASSWORD) && opens(&first_recovery) && !opens("second password"));
    let slots = list();
    let used: Vec<_> = slots.iter().filter(|slot| slot["in_use"] == true).collect();
    assert_eq!((slots.len(), used.len(), &used[0]["kind"]), (2, 1, &json!("password")));

    write(&lab.path("new password"), "second password\nsecond line\n");
    let added = lab.json(args![
        "key",
        "add",
        "--label",
        "ops",
        "--password-memory",
        "1",
        "--new-password-file",
        lab.path("new password")
    ]);
    assert_keys(&added, ["id", "recovery_key"]);
    assert_eq!(added["recovery_key"], Value::Null);
    let second = assert_hex(&added["id"], 32);
    let recovery = lab.json(["key", "add", "--recovery", "--label", "safe"]);
    let second_recovery = recovery["recovery_key"].as_str().unwrap().to_owned();
    assert!(opens("second password") && opens(&second_recovery) && opens(&first_recovery));
    let added =
        run(lab.command(["key", "add", "--password-memory", "1"]).env("STRONGROOM_NEW_PASSWORD", "third password"), 0);
    assert!(text(&added.stdout).starts_with("Added key slot "));
    assert!(opens("third password") && !opens("second line"));
    let labels: Vec<_> = list().iter().map(|slot| slot["label"].as_str().unwrap().to_owned()).collect();
    assert!(labels.contains(&"ops".to_owned()) && labels.contains(&"safe".to_owned()), "{labels:?}");
    let shown = text(&lab.run(["key", "list"], 0).stdout);
    assert!(shown.lines().count() == 6 && shown.contains("ops") && shown.contains(&second), "{shown}");
    fails(&mut lab.command(["key", "add", "--label", "a\x1b[2J", "--recovery"]), 2);

    assert_keys(&lab.json(["key", "remove", &second[..12]]), ["removed"]);
    assert!(!opens("second password") && opens(PASSWORD));
    let said = fails(&mut lab.command(["key", "remove", &second]), 2);
    assert!(said.contains("there is no key slot") && said.contains("Hint: `strongroom key list`"), "{said}");
    // More than one id begins with the empty string.
    fails(&mut lab.command(["key", "remove", ""]), 2);

    // The slots are removed one after the other, until one is left. The one in use may be removed too.
    let ids: Vec<_> = list().iter().map(|slot| slot["id"].as_str().unwrap().to_owned()).collect();
    let kept = ids.last().unwrap();
    let secrets = [PASSWORD, &first_recovery, &second_recovery, "third password"];
    for id in &ids[..ids.len() - 1] {
        let secret = secrets.iter().find(|secret| opens(secret)).unwrap();
        run(lab.command(["key", "remove", id]).env("STRONGROOM_PASSWORD", secret), 0);
    }
    let secret = secrets.iter().find(|secret| opens(secret)).unwrap();
    assert_eq!(secrets.iter().filter(|secret| opens(secret)).count(), 1);
    let said = fails(lab.command(["key", "remove", kept]).env("STRONGROOM_PASSWORD", secret), 1);
    assert!(said.contains("is the last one") && said.contains("Hint: add another first"), "{said}");
    assert!(opens(secret));
    let report = run(lab.command(["check", "--json"]).env("STRONGROOM_PASSWORD", secret), 0);
    assert!(text(&report.stdout).contains("\"sound\":true"), "removals on purpose are no damage");
}

#[test]
fn passwords_come_from_files_and_the_environment() {
    let lab = Lab::new();
    let snapshots = || {
        let mut command = lab.command(["snapshots"]);
        command.env_remove("STRONGROOM_PASSWORD");
        command
    };
    for (name, content, exit) in [
        ("plain", PASSWORD.to_owned(), 0),
        ("line", format!("{PASSWORD}\n"), 0),
        ("windows", format!("{PASSWORD}\r\nmore\r\n"), 0),
        ("wrong", "wrong\n".to_owned(), 12),
        ("space", format!(" {PASSWORD}\n"), 12),
        ("empty", String::new(), 2),
        ("empty line", format!("\n{PASSWORD}\n"), 2),
    ] {
        let file = lab.path(name);
        write(&file, content);
        run(snapshots().arg("--password-file").arg(&file), exit);
        run(snapshots().env("STRONGROOM_PASSWORD_FILE", &file), exit);
    }
    run(snapshots().env("STRONGROOM_PASSWORD", PASSWORD), 0);
    // The option overrides the environment.
    run(snapshots().env("STRONGROOM_PASSWORD", "wrong").arg("--password-file").arg(lab.path("plain")), 0);
    run(
        snapshots().env("STRONGROOM_PASSWORD_FILE", lab.path("wrong")).arg("--password-file").arg(lab.path("plain")),
        0,
    );
    // No option takes the password itself.
    run(snapshots().args(["--password", PASSWORD]), 2);
}

#[test]
fn no_command_shows_a_password() {
    let lab = Lab::new();
    write(&lab.path("home/file"), "content\n");
    let secrets = [PASSWORD, "wrong password", "brand-new password"];
    let check = |output: &Output, what: &str| {
        for secret in secrets {
            let shown = text(&output.stdout) + &text(&output.stderr);
            assert!(!shown.contains(secret), "{what}: {shown}");
        }
    };
    let commands: [&[&str]; 6] = [
        &["backup", "--files", "home", "-vvv"],
        &["snapshots", "-vvv"],
        &["ls", "latest", "-vvv"],
        &["key", "add", "--label", "new", "--password-memory", "1", "-vvv"],
        &["check", "--read-data", "-vvv"],
        &["--help"],
    ];
    for arguments in commands {
        let mut command = lab.command(arguments);
        command.env("STRONGROOM_NEW_PASSWORD", secrets[2]).env("STRONGROOM_LOG", "trace").env("RUST_BACKTRACE", "1");
        check(&run(&mut command, 0), &format!("{arguments:?}"));
    }
    let output = lab.command(["snapshots", "-vvv"]).env("STRONGROOM_PASSWORD", secrets[1]).output().unwrap();
    check(&output, "wrong password");
    let mut stored = lab.objects().into_keys().map(|name| lab.repository().join(name)).collect::<Vec<_>>();
    common::walk(&lab.state(), &mut |path, stat| stored.extend(stat.is_file().then(|| path.to_owned())));
    for path in stored {
        let bytes = fs::read(&path).unwrap();
        for secret in secrets.iter().map(|secret| secret.as_bytes()).chain([b"content\n".as_slice()]) {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{}", path.display());
        }
    }
    if common::no_fuse() {
        return;
    }
    // The mount starts a second process and hands the key to it.
    let mount = lab.mount(&["-vvv"]);
    let pid = mount.pid().as_raw_nonzero();
    for file in ["cmdline", "environ"] {
        let shown = text(&fs::read(format!("/proc/{pid}/{file}")).unwrap());
        assert!(!shown.contains(PASSWORD), "{file}: {shown}");
    }
    mount.unmount();
    common::walk(&lab.state(), &mut |path, stat| {
        if stat.is_file() && path.ends_with("mount.log") {
            assert!(!text(&fs::read(path).unwrap()).contains(PASSWORD));
        }
    });
}

#[test]
fn a_repository_shows_no_names_without_a_key() {
    let lab = Lab::new();
    write(&lab.path("home/a name nobody may see.txt"), "and text that nobody may read\n");
    lab.backup(&lab.path("home"), "a set nobody may know");
    for name in lab.objects().into_keys() {
        let bytes = fs::read(lab.repository().join(&name)).unwrap();
        for secret in [&b"nobody may"[..], b"first password"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{name}");
        }
    }
}

/// A program that may not use keyrings (in some containers) says so, and asks for the password as before.
#[test]
fn a_remembered_key_opens_the_repository_without_a_password_until_it_ends() {
    let lab = Lab::new();
    let command = |arguments: &[&str], password: Option<&str>| {
        let mut command = lab.command(arguments);
        match password {
            Some(password) => command.env("STRONGROOM_PASSWORD", password),
            None => command.env_remove("STRONGROOM_PASSWORD"),
        };
        command
    };
    let remembering = ["snapshots", "--remember-key", "10m"];
    let said = text(&run(&mut command(&remembering, Some(PASSWORD)), 0).stderr);
    if said.contains("the kernel does not keep the key") {
        fails(&mut command(&remembering, None), 2);
        return;
    }
    assert_eq!(said, "");
    run(&mut command(&remembering, None), 0);
    run(&mut command(&["key", "list", "--remember-key", "1s"], None), 0);
    let said = fails(&mut command(&["snapshots"], None), 2);
    assert!(said.contains("password"), "only who asks for it gets it: {said}");

    // Forgotten when somebody says so, and only once.
    assert_eq!(text(&run(&mut command(&["key", "forget"], None), 0).stdout), "The key is forgotten\n");
    fails(&mut command(&remembering, None), 2);
    assert_eq!(lab.json(["key", "forget"]), json!({ "forgotten": false }));

    // Forgotten when the time is over.
    run(&mut command(&["snapshots", "--remember-key", "1s"], Some(PASSWORD)), 0);
    let mut again = command(&["snapshots", "--remember-key", "1s"], None);
    eventually("the kernel forgets the key", common::PATIENCE, || again.output().unwrap().status.code() == Some(2));

    // Forgotten when the password is not one of the repository any more.
    let added = run(
        command(&["key", "add", "--password-memory", "1", "--json"], Some(PASSWORD))
            .env("STRONGROOM_NEW_PASSWORD", "second"),
        0,
    );
    let added: Value = serde_json::from_slice(&added.stdout).unwrap();
    run(&mut command(&remembering, Some("second")), 0);
    run(&mut command(&remembering, None), 0);
    run(&mut command(&["key", "remove", added["id"].as_str().unwrap()], Some(PASSWORD)), 0);
    fails(&mut command(&remembering, None), 2);
    run(&mut command(&["key", "forget"], None), 0);

    for wrong in ["0s", "25h", "15", "soon"] {
        run(&mut command(&["snapshots", "--remember-key", wrong], Some(PASSWORD)), 2);
    }
}

/// The key of one repository does not open another, even if somebody puts it there.
#[test]
fn a_remembered_key_is_looked_at_before_it_counts() {
    let lab = Lab::new();
    let repository = lab.open();
    let other = Lab::new();
    let found = || Repository::find(Arc::new(Local::open(other.repository()).unwrap())).unwrap();
    assert!(found().open_again(&repository.handover()).unwrap().is_none());
    assert!(found().open_again(b"too short").unwrap().is_none());
    assert_eq!(found().open_again(&other.open().handover()).unwrap().unwrap().id(), found().id());
}

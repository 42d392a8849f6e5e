//! The contract of docs/cli.md: exit codes, messages, JSON, names of snapshots, keys.

use crate::common;

use common::{Lab, PASSWORD, commands_of, fails, noise, run, text, write};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

#[track_caller]
fn keys_of(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap_or_else(|| panic!("an object: {value}")).keys().map(String::as_str).collect()
}

#[track_caller]
fn assert_keys<const N: usize>(value: &Value, keys: [&str; N]) {
    assert_eq!(keys_of(value), BTreeSet::from(keys), "{value}");
}

#[track_caller]
fn assert_time(value: &Value) {
    let text = value.as_str().expect("a time");
    text.parse::<jiff::Timestamp>().unwrap_or_else(|error| panic!("{text}: {error}"));
}

#[track_caller]
fn assert_hex(value: &Value, len: usize) -> String {
    let text = value.as_str().expect("an id");
    assert!(text.len() == len && text.bytes().all(|byte| b"0123456789abcdef".contains(&byte)), "{text}");
    text.to_owned()
}

fn lines_of_json(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const MAIL: &str = "From: Bob <bob@example.com>\r\nTo: alice@example.com\r\nSubject: Budget\r\n\
    Date: Mon, 2 Nov 2026 09:30:00 +0000\r\nMessage-ID: <1@example.com>\r\n\r\nHello\r\n";

/// A repository with two sets. The second snapshot of `home` differs from the first in every way that `diff` knows.
fn changed_lab() -> Lab {
    let lab = Lab::new();
    let home = lab.dir("home");
    for name in ["same", "changed", "touched", "gone", "folder/moved"] {
        write(&home.join(name), format!("content of {name}\n"));
    }
    lab.backup(&home, "home");
    write(&lab.path("mail/inbox.eml"), MAIL);
    lab.backup(&lab.path("mail"), "mail");
    write(&home.join("changed"), "other content, other length\n");
    fs::File::options().write(true).open(home.join("touched")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    fs::remove_file(home.join("gone")).unwrap();
    fs::rename(home.join("folder/moved"), home.join("moved here")).unwrap();
    write(&home.join("came"), "new\n");
    lab.backup(&home, "home");
    lab
}

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
fn no_recovery_key_is_left_that_nobody_saw() {
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
fn exit_codes_say_what_went_wrong() {
    let lab = Lab::new();
    write(&lab.path("home/file"), "content\n");
    // Exit code 0
    for arguments in [&["--help"][..], &["--version"], &["help", "backup"], &["snapshots"], &["check"], &["stats"]] {
        lab.run(arguments, 0);
    }
    assert!(text(&lab.run(["--version"], 0).stdout).starts_with("strongroom "));
    // Exit code 1
    let said = fails(&mut lab.command(["backup", "--files", "/no such folder", "--as", "x"]), 1);
    assert!(said.contains("/no such folder") && said.contains("Caused by: No such file"), "{said}");
    fails(lab.command(["snapshots", "--password-file", "/no such file"]).env_remove("STRONGROOM_PASSWORD"), 1);
    // Exit code 2, from the parser and from our own checks
    for arguments in [&[][..], &["frobnicate"], &["backup"], &["ls"], &["check", "--read-data=200%"], &["diff", "a"]] {
        let output = run(&mut lab.command(arguments), 2);
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    fails(lab.command(["snapshots"]).env_remove("STRONGROOM_REPO"), 2);
    fails(&mut lab.command(["snapshots", "--repo", "gopher://example.com/x"]), 2);
    fails(lab.command(["snapshots"]).env("STRONGROOM_PASSWORD", ""), 2);
    let said = fails(lab.command(["snapshots"]).env_remove("STRONGROOM_PASSWORD"), 2);
    assert!(said.contains("no terminal to ask on") && said.contains("--password-file"), "{said}");
    let said = fails(&mut lab.command(["ls", "latest"]), 2);
    assert!(said.contains("no snapshot matches \"latest\"") && said.contains("Hint: `strongroom snapshots`"), "{said}");
    fails(&mut lab.command(["key", "remove", "zz"]), 2);
    for set in ["", "a/b", "a:b"] {
        fails(&mut lab.command(["backup", "--files", "home", "--as", set]), 2);
    }
    lab.backup(&lab.path("home"), "home");
    fails(&mut lab.command(["cat", "latest"]), 2);
    fails(&mut lab.command(["cat", "latest:nothing"]), 2);
    fails(&mut lab.command(["ls", "latest:nothing"]), 2);
    fails(&mut lab.command(["diff", "latest", "latest", "file"]), 2);
    // Exit code 3
    write(&lab.path("one.mbox"), "From a@b Mon Nov  2 09:30:00 2026\nSubject: one\n\nHello\n");
    write(&lab.path("two.mbox"), "this is no mbox\n");
    let arguments = ["backup", "--mbox", "one.mbox", "--mbox", "two.mbox", "--as", "mail"];
    let report = lab.json_with_exit(arguments, 3);
    assert_eq!((&report["status"], &report["items"]["failed"]), (&json!("partial"), &json!(1)));
    assert_eq!(report["failures"][0]["path"], "two.mbox");
    assert!(text(&lab.run(arguments, 3).stderr).contains("failed: two.mbox: "));
    // Exit code 10
    for place in ["/no such folder", lab.path("home").to_str().unwrap(), "home/file", ""] {
        let said = fails(&mut lab.command(["snapshots", "--repo", place]), 10);
        assert!(said.contains("there is no repository at") && said.contains("Hint: `strongroom init`"), "{said}");
    }
    // Exit code 12
    let said = fails(lab.command(["snapshots"]).env("STRONGROOM_PASSWORD", "wrong"), 12);
    assert!(said.contains("no key slot opens") && said.contains("recovery key"), "{said}");
    // Exit code 13
    let pack = lab.objects().into_keys().find(|name| name.starts_with("packs/")).unwrap();
    fs::remove_file(lab.repository().join(pack)).unwrap();
    assert_eq!(lab.json_with_exit(["check"], 13)["sound"], false);
    assert!(text(&lab.run(["check"], 13).stdout).contains("DAMAGED: "));
    fs::write(lab.repository().join("config"), "x").unwrap();
    let said = fails(&mut lab.command(["snapshots"]), 13);
    assert!(said.contains("Hint: put `config` back from a copy"), "{said}");
}

#[test]
fn a_second_run_with_the_same_state_is_locked_out() {
    use strongroom::backend::local::Local;
    use strongroom::repository::{Repository, local_state::LocalState};
    let lab = Lab::new();
    write(&lab.path("home/file"), "content\n");
    lab.backup(&lab.path("home"), "home");
    let backend = std::sync::Arc::new(Local::open(lab.repository()).unwrap());
    let repository = Repository::open(backend, PASSWORD.as_bytes()).unwrap();
    let held = LocalState::open(&lab.state(), &repository).unwrap();
    let said = fails(&mut lab.command(["backup", "--files", "home"]), 11);
    assert!(said.contains("another strongroom is using") && said.contains("Hint: wait"), "{said}");
    // Commands that only read work at the same time.
    for arguments in [&["snapshots"][..], &["ls", "latest"], &["cat", "latest:file"], &["check"], &["stats"]] {
        lab.run(arguments, 0);
    }
    run(lab.command(["backup", "--files", "home"]).env("STRONGROOM_STATE_DIR", lab.path("other state")), 0);
    drop(held);
    lab.backup(&lab.path("home"), "home");
}

#[test]
fn json_of_backup_has_the_keys_of_the_contract() {
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
    let items = |new: u64, changed: u64, moved: u64, deleted: u64, unchanged: u64| json!({ "new": new, "changed": changed, "moved": moved, "deleted": deleted, "unchanged": unchanged, "failed": 0 });
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
fn the_set_is_named_by_the_folder_unless_told_otherwise() {
    let lab = Lab::new();
    write(&lab.path("some: folder/file"), "content\n");
    write(&lab.path("archive.mbox"), "From a@b Mon Nov  2 09:30:00 2026\nSubject: one\n\nHello\n");
    let set = |arguments: &[&str]| lab.json(["backup"].iter().chain(arguments))["set"].as_str().unwrap().to_owned();
    assert_eq!(set(&["--files", "some: folder/"]), "some- folder");
    assert_eq!(set(&["--files", "some: folder", "--as", "named"]), "named");
    assert_eq!(set(&["--mbox", "archive.mbox"]), "archive.mbox");
    let output = run(lab.command(["backup", "--files", "."]).current_dir(lab.path("some: folder")), 0);
    assert!(text(&output.stdout).contains(" of some- folder in "));
    fails(&mut lab.command(["backup", "--files", "/", "--repo", "repository"]), 2);
}

#[test]
fn json_of_what_is_listed_has_the_keys_of_the_contract() {
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
fn a_snapshot_is_found_by_every_form_of_its_name() {
    let lab = changed_lab();
    let snapshots = lab.json(["snapshots"]);
    let field = |number: usize, name: &str| snapshots[number][name].as_str().unwrap().to_owned();
    let id = field(0, "id");
    let local = |number: usize| {
        let time: jiff::Timestamp = field(number, "time").parse().unwrap();
        time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S").to_string()
    };
    let marker = |asked: &str| text(&lab.run(["ls", asked], 0).stdout);
    let is_first = |asked: &str| marker(asked).contains(" gone\n");
    let is_last = |asked: &str| marker(asked).contains(" came\n");
    let is_mail = |asked: &str| marker(asked).contains(" inbox.eml\n");
    assert!(is_first(&id) && is_first(&id[..12]) && is_first(&id.to_uppercase()) && is_first("latest~2"));
    assert!(is_last("latest") && is_last("latest~0") && is_last("latest:home") && is_mail("latest:mail"));
    assert!(is_mail("latest~1"));
    // A time means the newest snapshot at or before it.
    assert!(is_last(&local(2)) && is_last(&field(2, "time")) && is_last("2999-01-01") && is_last("2999-01-01T00:00"));
    assert!(is_last(&local(2).replace('T', " ").replace(':', ".")), "as the folders of a mount are called");
    for asked in ["latest~3", "1970-01-01", "0123456789abcdef", "", "latest~x", "~1"] {
        let said = fails(&mut lab.command(["ls", asked]), 2);
        assert!(said.contains("no snapshot matches"), "{asked}: {said}");
    }
    // A name after the colon that is no set is a path.
    fails(&mut lab.command(["ls", "latest:nobody"]), 2);
    // Paths with and without slashes, and with and without the set.
    for asked in ["latest~2:folder", "latest~2:/folder/", &format!("{id}:folder"), &format!("{}:folder", &id[..8])] {
        assert!(marker(asked).contains("folder/moved"), "{asked}");
    }
    assert_eq!(lab.run(["cat", "latest:home:came"], 0).stdout, b"new\n");
    assert_eq!(lab.run(["cat", &format!("{}:came", local(2))], 0).stdout, b"new\n");
}

#[test]
fn an_ambiguous_prefix_is_refused() {
    let lab = Lab::new();
    write(&lab.path("home/file"), "content\n");
    // At least two of seventeen ids begin with the same digit.
    for _ in 0..17 {
        lab.backup(&lab.path("home"), "home");
    }
    let snapshots = lab.json(["snapshots"]);
    let ids: Vec<_> = snapshots.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    let shared = ids.iter().map(|id| &id[..1]).find(|first| ids.iter().filter(|id| id.starts_with(first)).count() > 1);
    let said = fails(&mut lab.command(["ls", shared.unwrap()]), 2);
    assert!(said.contains("matches") && said.contains("Hint: "), "{said}");
}

#[test]
fn cat_gives_back_every_byte() {
    let lab = Lab::new();
    let all_bytes: Vec<u8> = (0..=255).collect();
    let files: [(&[u8], Vec<u8>); 6] = [
        (b"empty", Vec::new()),
        (b"bytes", all_bytes),
        (b"large", noise(1, 5_000_000)),
        (b"no newline", b"text".to_vec()),
        (b"new\nline \xff", b"odd name\n".to_vec()),
        (b"a:b/c:d", b"colons\n".to_vec()),
    ];
    for (name, content) in &files {
        write(&lab.path("home").join(OsStr::from_bytes(name)), content);
    }
    lab.backup(&lab.path("home"), "home");
    for (name, content) in &files {
        let what = [b"latest:", *name].concat();
        let output = lab.run([OsStr::new("cat"), OsStr::from_bytes(&what)], 0);
        assert!(output.stdout == *content, "{}", name.escape_ascii());
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn diff_shows_a_letter_for_each_change() {
    let lab = changed_lab();
    let output = lab.run(["diff", "latest~2", "latest"], 0);
    let shown = text(&output.stdout);
    let mut lines: Vec<_> = shown.lines().collect();
    lines.sort_unstable();
    let mut expected = ["+ came", "- gone", "M changed", "R folder/moved -> moved here", "T touched"];
    expected.sort_unstable();
    assert_eq!(lines, expected);
    assert!(lab.run(["diff", "latest", "latest"], 0).stdout.is_empty());
    let back = text(&lab.run(["diff", "latest", "latest~2"], 0).stdout);
    assert!(back.contains("- came\n") && back.contains("+ gone\n"), "{back}");
}

#[test]
fn diff_of_a_folder_shows_that_folder_alone() {
    let lab = Lab::new();
    for version in ["1", "2"] {
        write(&lab.path("home/a/b/inside"), version);
        write(&lab.path("home/outside"), version);
        lab.backup(&lab.path("home"), "home");
        write(&lab.path("home/a/b").join(version), version);
    }
    let shown = text(&lab.run(["diff", "latest~1", "latest", "a/b"], 0).stdout);
    assert_eq!(shown.lines().collect::<BTreeSet<_>>(), BTreeSet::from(["+ 1", "M inside"]));
}

#[test]
fn keys_come_and_go() {
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
fn passwords_show_nowhere() {
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
fn what_a_repository_shows_without_a_key_are_no_names() {
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
fn nobody_minds_a_reader_who_has_seen_enough() {
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
fn names_do_not_talk_to_the_terminal() {
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
fn a_file_that_is_written_to_a_terminal_does_not_command_it() {
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

#[test]
fn the_newest_but_some_of_a_set_can_be_named() {
    let lab = Lab::new();
    for (set, content) in [("a", "first"), ("b", "other"), ("a", "second")] {
        write(&lab.path("home/file"), content);
        lab.run(args!["backup", "--files", lab.path("home"), "--as", set], 0);
    }
    for (asked, content) in [("latest:a~1:file", "first"), ("latest:a~0:file", "second"), ("latest:b~0:file", "other")]
    {
        assert_eq!(text(&lab.run(["cat", asked], 0).stdout), content, "{asked}");
    }
    fails(&mut lab.command(["ls", "latest:a~2"]), 2);
}

#[test]
fn completions_and_manual_pages_are_written() {
    let lab = Lab::empty();
    for (shell, sign) in [("bash", "complete -F"), ("zsh", "#compdef strongroom"), ("fish", "complete -c strongroom")] {
        let script = text(&lab.run(["completions", shell], 0).stdout);
        assert!(script.contains(sign) && script.contains("backup"), "{shell}");
        let here = Command::new(shell).arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        if let Ok(mut here) = here {
            std::io::Write::write_all(&mut here.stdin.take().unwrap(), script.as_bytes()).unwrap();
            let output = here.wait_with_output().unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{shell}: {}", text(&output.stderr));
        }
    }
    lab.run(["completions", "cobol"], 2);
    let page = text(&lab.run(["man"], 0).stdout);
    assert!(page.contains(".TH strongroom 1") && page.contains("backup"), "{page}");
    lab.run(["man", "--dir", "pages"], 0);
    let pages: BTreeSet<_> =
        fs::read_dir(lab.path("pages")).unwrap().map(|page| page.unwrap().file_name().into_string().unwrap()).collect();
    for command in commands_of(&lab, &[]) {
        assert!(pages.contains(&format!("strongroom-{command}.1")), "{command}: {pages:?}");
    }
}

/// tests/help holds the text of every `--help`. `STRONGROOM_BLESS=1` writes these files anew.
#[test]
fn the_help_of_every_command_is_as_pinned() {
    let lab = Lab::empty();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    let bless = std::env::var_os("STRONGROOM_BLESS").is_some();
    let mut commands: Vec<Vec<String>> = vec![Vec::new()];
    let mut names = BTreeSet::new();
    while let Some(command) = commands.pop() {
        let words: Vec<_> = command.iter().map(String::as_str).collect();
        for below in commands_of(&lab, &words) {
            commands.push([&command[..], &[below]].concat());
        }
        // Without the settings of the laboratory, because help shows them.
        let mut help = lab.command(words.iter().chain(&["--help"]));
        for name in ["STRONGROOM_REPO", "STRONGROOM_STATE_DIR", "STRONGROOM_PASSWORD"] {
            help.env_remove(name);
        }
        let shown = text(&run(help.env("COLUMNS", "100"), 0).stdout);
        assert!(command.is_empty() || shown.contains("\nExample"), "{command:?} shows an example:\n{shown}");
        let name = format!("{}.txt", ["strongroom"].into_iter().chain(words).collect::<Vec<_>>().join("-"));
        let file = folder.join(&name);
        if bless {
            write(&file, &shown);
        }
        let pinned = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(shown, pinned, "tests/help/{name}; if this is meant, run with STRONGROOM_BLESS=1");
        names.insert(name);
    }
    assert!(names.len() >= 17, "{names:?}");
    let pinned = fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(pinned.collect::<BTreeSet<_>>(), names, "no page of a command that is no more");
}

/// docs/cli.md describes every command and every option.
#[test]
fn the_reference_names_every_command_and_option() {
    let reference = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md")).unwrap();
    let lab = Lab::empty();
    let mut commands: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(command) = commands.pop() {
        let words: Vec<_> = command.iter().map(String::as_str).collect();
        for below in commands_of(&lab, &words) {
            commands.push([&command[..], &[below]].concat());
        }
        assert!(reference.contains(&words.join(" ")), "{words:?} is missing in docs/cli.md");
        let help = text(&lab.run(words.iter().chain(&["--help"]), 0).stdout);
        let options = help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2);
        for option in options.map(|word| word.trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric())) {
            let name = option.split(['=', '[', '`', '/']).next().unwrap();
            assert!(reference.contains(name), "{name} of {words:?} is missing in docs/cli.md");
        }
    }
}

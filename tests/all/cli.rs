//! The contract of docs/cli.md: exit codes, messages, JSON, names of snapshots, keys.

mod keys;
mod output;

use crate::common;

use common::{Lab, PASSWORD, commands_of, eventually, fails, noise, run, text, write};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use strongroom::backend::local::Local;
use strongroom::repository::Repository;

#[track_caller]
fn keys_of(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap_or_else(|| panic!("an object: {value}")).keys().map(String::as_str).collect()
}

#[track_caller]
fn assert_keys<const N: usize>(value: &Value, keys: [&str; N]) {
    assert_eq!(keys_of(value), BTreeSet::from(keys), "{value}");
}

#[track_caller]
fn assert_hex(value: &Value, len: usize) -> String {
    let text = value.as_str().expect("an id");
    assert!(text.len() == len && text.bytes().all(|byte| b"0123456789abcdef".contains(&byte)), "{text}");
    text.to_owned()
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
    use strongroom::repository::local_state::LocalState;
    let (lab, _) = Lab::with_file("content\n");
    let held = LocalState::open(&lab.state(), &lab.open()).unwrap();
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
fn the_folder_names_the_set_by_default() {
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
fn latest_with_a_tilde_names_an_older_snapshot() {
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
fn every_help_text_equals_its_snapshot() {
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

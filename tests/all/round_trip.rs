//! What goes in comes out. Real mail and a tree of difficult files go through backup, mount and restore, and are
//! compared byte for byte. Ordinary tools read the mount in the same way as the source.

use crate::common;

use common::{Lab, NodeContent, Tree, assert_same_tree, no_fuse, quiet, read_tree, spam_assassin, text, tool};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use strongroom_corpora::{hostile, mailbox};

const MESSAGES: usize = 6046;

/// Writes the tree of difficult files. With `sparse_gib` 0 it has no sparse file.
fn hostile_tree(lab: &Lab, sparse_gib: u64) -> PathBuf {
    let source = lab.path("hostile");
    hostile::generate(&hostile::Options { sparse_gib, ..hostile::Options::default() }, &source).unwrap();
    source
}

/// Returns true if this is not root. Some files of the difficult tree are readable for nobody but root.
fn not_root() -> bool {
    let missing = !rustix::process::geteuid().is_root();
    if missing {
        eprintln!("SKIPPED: this test reads files without permission to, as root may");
    }
    missing
}

#[test]
fn spam_assassin_in_the_mount() {
    if no_fuse() {
        return;
    }
    let (lab, source) = (Lab::new(), spam_assassin());
    let report = lab.backup(&source, "mail");
    assert_eq!((&report["status"], &report["items"]["new"]), (&"ok".into(), &MESSAGES.into()));
    let expected = read_tree(&source);
    assert_eq!(report["bytes"]["source"], sum_of_files(&expected));
    same_in_mount(&source, &expected, &lab.mount(&[]).path("latest"));
    same_in_mount(&source, &expected, &lab.mount(&["--snapshot", "latest"]).path(""));
}

#[test]
fn hostile_tree_in_the_mount() {
    if no_fuse() || not_root() {
        return;
    }
    let lab = Lab::new();
    let source = hostile_tree(&lab, 3);
    let report = lab.backup(&source, "hostile");
    assert_eq!((&report["status"], &report["items"]["failed"]), (&"ok".into(), &0.into()));
    let expected = read_tree(&source);
    let mount = lab.mount(&[]);
    same_in_mount(&source, &expected, &mount.path("latest"));
    // Reading the sparse file once is enough.
    let whole = lab.mount(&["--snapshot", "latest"]);
    let exclude = ["--exclude", "sparse.img"];
    tool("diff", args!["-r", "--no-dereference", exclude[0], exclude[1], &source, whole.path("")]);
    assert_eq!(size(&whole.path("sparse.img")), 3 << 30);
}

fn size(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}

fn same_in_mount(source: &Path, expected: &Tree, mounted: &Path) {
    // With a slash at the end, because `latest` is a link and diff would compare the link.
    assert_eq!(tool("diff", args!["-r", "--no-dereference", source, mounted.join("")]), "");
    assert_same_tree(expected, &read_tree(mounted));
}

#[test]
fn spam_assassin_read_by_tools() {
    if no_fuse() {
        return;
    }
    let (lab, source) = (Lab::new(), spam_assassin());
    lab.backup(&source, "mail");
    let mount = lab.mount(&[]);
    let mounted = mount.path("latest").canonicalize().unwrap();
    let newer = source.join("easy-ham-1").read_dir().unwrap().next().unwrap().unwrap().file_name();
    let newer = Path::new("easy-ham-1").join(newer);
    ripgrep_agrees(&source, &mounted, &["viagra", "^Received:", r"\bHTML\b", "."]);
    find_agrees(&source, &mounted, &newer);
    rsync_sees_no_difference(&source, &mounted, &["--checksum"]);
    let expected = read_tree(&source);
    copies_equal(&lab, &expected, &mounted);
    du_is_sane(&expected, &mounted);
    python_parses_every_message(&mounted);
}

#[test]
fn hostile_tree_read_by_tools() {
    if no_fuse() || not_root() {
        return;
    }
    let lab = Lab::new();
    let source = hostile_tree(&lab, 0);
    lab.backup(&source, "hostile");
    let mount = lab.mount(&["--snapshot", "latest"]);
    let mounted = mount.path("");
    ripgrep_agrees(&source, &mounted, &["^Message 1[0-9]* of", "QUJD"]);
    find_agrees(&source, &mounted, Path::new("many/10000.eml"));
    rsync_sees_no_difference(&source, &mounted, &[]);
    let expected = read_tree(&source);
    copies_equal(&lab, &expected, &mounted);
    du_is_sane(&expected, &mounted);
}

/// Runs a tool in both folders. It must print the same lines, in any order.
#[track_caller]
fn same_output(source: &Path, mounted: &Path, program: &str, args: &[&str]) {
    let lines = |dir: &Path| {
        let mut lines: Vec<_> =
            quiet(Command::new(program).args(args).current_dir(dir)).lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let (expected, found) = (lines(source), lines(mounted));
    assert!(!expected.is_empty(), "{program} {args:?} finds something in the source");
    let different = expected.iter().zip(&found).find(|(expected, found)| expected != found);
    assert_eq!(different, None, "{program} {args:?}");
    assert_eq!(expected.len(), found.len(), "{program} {args:?}");
}

fn ripgrep_agrees(source: &Path, mounted: &Path, patterns: &[&str]) {
    for pattern in patterns {
        // -uu: also hidden and ignored files.
        same_output(source, mounted, "rg", &["-uu", "--count-matches", pattern, "."]);
    }
}

fn find_agrees(source: &Path, mounted: &Path, newer: &Path) {
    let newer = newer.to_str().unwrap();
    same_output(source, mounted, "find", &[".", "-printf", "%P|%y|%m|%T@|%l|%u|%g\\n"]);
    same_output(source, mounted, "find", &[".", "-type", "f", "-printf", "%P|%s\\n"]);
    same_output(source, mounted, "find", &[".", "-type", "f", "-size", "+4k"]);
    same_output(source, mounted, "find", &[".", "-type", "f", "-size", "-2"]);
    same_output(source, mounted, "find", &[".", "-type", "f", "-newer", newer]);
    same_output(source, mounted, "find", &[".", "-not", "-newer", newer]);
    same_output(source, mounted, "find", &[".", "-type", "d"]);
}

fn rsync_sees_no_difference(source: &Path, mounted: &Path, more: &[&str]) {
    for (from, to) in [(source, mounted), (mounted, source)] {
        let args = args!["--archive", "--dry-run", "--itemize-changes", "--delete", from.join(""), to.join("")];
        let changes = quiet(Command::new("rsync").args(more).args(args));
        assert_eq!(changes, "", "from {} to {}", from.display(), to.display());
    }
}

/// Copies the mount with `cp -a` and through a pipe with tar.
fn copies_equal(lab: &Lab, expected: &Tree, mounted: &Path) {
    let copied = lab.path("copied");
    tool("cp", args!["-a", mounted.join("."), &copied]);
    assert_same_tree(expected, &read_tree(&copied));

    let unpacked = lab.dir("unpacked");
    // posix: the default format has only whole seconds. Unpacking warns of times before 1970, which the tree has on
    // purpose.
    let mut packing = Command::new("tar");
    packing.args(["--create", "--format=posix", "--file=-", "-C"]).arg(mounted).arg(".");
    let mut packing = packing.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut unpacking = Command::new("tar");
    unpacking.args(["--extract", "--preserve-permissions", "--warning=no-timestamp", "--file=-", "-C"]).arg(&unpacked);
    quiet(unpacking.stdin(packing.stdout.take().unwrap()));
    let packed = packing.wait_with_output().unwrap();
    assert!(packed.status.success() && packed.stderr.is_empty(), "tar complained: {}", text(&packed.stderr));
    assert_same_tree(expected, &read_tree(&unpacked));
}

fn sum_of_files(tree: &Tree) -> u64 {
    let size = |content: &NodeContent| if let NodeContent::File(size, _) = content { *size } else { 0 };
    tree.values().map(|node| size(&node.content)).sum()
}

fn du_is_sane(expected: &Tree, mounted: &Path) {
    let du = |options: &[&str]| -> u64 {
        let args = options.iter().map(Into::into).chain(args![mounted.join("")]);
        tool("du", args).split_whitespace().next().unwrap().parse().unwrap()
    };
    let files = sum_of_files(expected);
    // Folders and links have their own sizes, and every file takes whole blocks of 512 bytes.
    let entries = expected.len() as u64;
    let apparent = du(&["-s", "--apparent-size", "--block-size=1"]);
    assert!((files..=files + entries * 4096).contains(&apparent), "{files} bytes of files, {apparent} says du");
    let blocks = du(&["-s", "--block-size=1"]);
    assert!((files..=files + entries * 4096).contains(&blocks), "{files} bytes of files, {blocks} in blocks says du");
}

/// Runs a Python script that prints one line.
fn python(script: &str, args: &[&Path]) -> String {
    let program = std::env::var("STRONGROOM_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    quiet(Command::new(program).args(["-B", "-c", script]).args(args)).trim_end().to_owned()
}

fn python_parses_every_message(mounted: &Path) {
    let script = r#"
import email.parser, email.policy, pathlib, sys
messages = parts = 0
for path in sorted(pathlib.Path(sys.argv[1]).rglob("*.eml")):
    content = path.read_bytes()
    assert len(content) == path.stat().st_size
    for policy in email.policy.compat32, email.policy.default:
        message = email.parser.BytesParser(policy=policy).parsebytes(content)
        parts += sum(1 for _ in message.walk())
    messages += 1
assert parts >= 2 * messages
print(messages)
"#;
    assert_eq!(python(script, &[mounted]), MESSAGES.to_string());
}

#[test]
fn mailboxes_read_by_python() {
    if no_fuse() {
        return;
    }
    let (lab, corpus) = (Lab::new(), spam_assassin().join("hard-ham-1"));
    let source = lab.dir("boxes");
    mailbox::write_maildir(&corpus, &source.join("maildir")).unwrap();
    mailbox::write_mbox(&corpus, &source.join("box.mbox"), mailbox::Quoting::Mboxrd, mailbox::LineEnds::Keep).unwrap();
    lab.backup(&source, "boxes");
    let mount = lab.mount(&[]);
    let script = r#"
import hashlib, mailbox, pathlib, sys
root = pathlib.Path(sys.argv[1])
digest = hashlib.sha256()
counts = []
for box in mailbox.Maildir(root / "maildir", create=False), mailbox.mbox(root / "box.mbox", create=False):
    keys = sorted(box.keys())
    for key in keys:
        digest.update(box.get_bytes(key))
        box[key].as_string  # parsed
    counts.append(len(keys))
print(*counts, digest.hexdigest())
"#;
    let expected = python(script, &[&source]);
    let messages = corpus.read_dir().unwrap().count().to_string();
    assert!(expected.starts_with(&format!("{messages} {messages} ")), "{expected}");
    assert_eq!(python(script, &[&mount.path("latest")]), expected);
}

#[test]
fn spam_assassin_restored() {
    let (lab, source) = (Lab::new(), spam_assassin());
    lab.backup(&source, "mail");
    same_when_restored(&lab, &source);
}

#[test]
fn hostile_tree_restored() {
    if not_root() {
        return;
    }
    let lab = Lab::new();
    let source = hostile_tree(&lab, 3);
    lab.backup(&source, "hostile");
    same_when_restored(&lab, &source);
}

fn same_when_restored(lab: &Lab, source: &Path) {
    let restored = lab.path("restored");
    lab.run(["restore", "latest", "--to", &format!("local:{}", restored.display())], 0);
    // The comparison of trees reads everything, so diff need not read it again here.
    assert_same_tree(&read_tree(source), &read_tree(&restored));
}

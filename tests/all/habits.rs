//! File managers, shells and indexers have habits that must cost next to nothing. A name that does not exist is asked
//! for once, and no more is decoded than a read needs. Counted on real mounts.

use crate::common;

use common::{Lab, Mount, no_fuse, noise, tool, write};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

/// Names that programs look for in every folder that somebody opens.
const HABITS: [&str; 18] = [
    ".Trash",
    ".Trash-0",
    ".Trash-1000",
    ".hidden",
    ".directory",
    "autorun.inf",
    "AutoRun.inf",
    "desktop.ini",
    "Desktop.ini",
    ".DS_Store",
    "._.DS_Store",
    ".git",
    ".svn",
    ".hg",
    "Thumbs.db",
    ".xdg-volume-info",
    ".nomedia",
    ".envrc",
];

/// Length of the largest block of content: the most that a read can cost for each of its ends.
const BLOCK_BYTES_MAX: u64 = 2 << 20;

/// Ends a mount in the foreground. Returns the number of requests by kind, and the `decoded` and `delivered` bytes.
#[track_caller]
fn counts(mut mount: Mount) -> BTreeMap<String, u64> {
    mount.signal(Signal::TERM);
    let (code, said) = mount.wait();
    assert_eq!(code, Some(0), "{said}");
    let line = said.lines().find(|line| line.contains("the mount has ended")).expect("counts in the log");
    let (_, counts) = line.split_once("requests=").expect("a field of requests");
    let words: Vec<_> = counts.split([' ', ',', '=']).filter(|word| !word.is_empty()).collect();
    words.chunks(2).map(|pair| (pair[0].to_owned(), pair[1].parse().unwrap())).collect()
}

#[test]
fn missing_names_are_looked_up_once() {
    if no_fuse() {
        return;
    }
    let lab = Lab::new();
    let source = lab.dir("source");
    for number in 0..2000 {
        write(&source.join(format!("Inbox/{number:04}.eml")), format!("Subject: {number}\r\n\r\nHello.\r\n"));
    }
    lab.backup(&source, "files");
    let mount = lab.mount_foreground(&["-v"]);
    // Without `canonicalize`, everything behind the link would be asked for again each second.
    let latest = mount.path("latest").canonicalize().unwrap();
    for _ in 0..50 {
        for folder in [mount.path(""), latest.clone(), latest.join("Inbox")] {
            for name in HABITS {
                assert_eq!(fs::symlink_metadata(folder.join(name)).unwrap_err().kind(), ErrorKind::NotFound);
            }
        }
    }
    let counts = counts(mount);
    // Each name is asked for once in each folder. The folders themselves change, so they are asked for at most once a
    // second.
    let lookups = counts["lookup"];
    assert!((54..120).contains(&lookups), "{lookups} lookups for 2,700 questions");
    assert_eq!((counts.get("read"), counts["decoded"]), (None, 0));
}

#[test]
fn sniffing_decodes_each_block_once_at_most() {
    if no_fuse() {
        return;
    }
    const FILES: u64 = 400;
    const LEN: usize = 60_000;
    let lab = Lab::new();
    let source = lab.dir("source");
    for number in 0..FILES {
        write(&source.join(format!("Inbox/{number:04}.png")), noise(number, LEN));
    }
    lab.backup(&source, "files");
    let mount = lab.mount_foreground(&["-v", "--snapshot", "latest"]);
    for number in 0..FILES {
        // A thumbnailer reads the beginning of a file to find out its kind.
        let file = File::open(mount.path(format!("Inbox/{number:04}.png"))).unwrap();
        file.read_exact_at(&mut [0; 4096], 0).unwrap();
    }
    let counts = counts(mount);
    let all = FILES * LEN as u64;
    assert!(counts["delivered"] >= FILES * 4096, "{counts:?}");
    assert!(counts["decoded"] <= all + BLOCK_BYTES_MAX, "neighbours share a block: {counts:?}, of {all}");
}

#[test]
fn small_reads_decode_a_block_and_large_ones_what_they_deliver() {
    if no_fuse() {
        return;
    }
    const LEN: u64 = 96 << 20;
    const READS: u64 = 20;
    let lab = Lab::new();
    let source = lab.dir("source");
    write(&source.join("large"), noise(1, LEN as usize));
    for number in 0..500 {
        write(&source.join(format!("Inbox/{number}.eml")), noise(number + 2, 20_000));
    }
    lab.backup(&source, "files");

    let mount = lab.mount_foreground(&["-v", "--snapshot", "latest"]);
    let file = File::open(mount.path("large")).unwrap();
    for number in 0..READS {
        // Far from each other, and backwards, so that it does not look like sequential reading.
        file.read_exact_at(&mut [0; 4096], (READS - number) * (LEN / (READS + 1))).unwrap();
    }
    drop(file);
    let small = counts(mount);
    // A piece can lie across the border of two blocks.
    assert!(small["decoded"] <= READS * 2 * BLOCK_BYTES_MAX, "{small:?}");

    let mount = lab.mount_foreground(&["-v", "--snapshot", "latest"]);
    tool("cp", args!["-r", mount.path(""), lab.path("copy")]);
    let whole = counts(mount);
    assert_eq!(whole["delivered"], LEN + 500 * 20_000);
    assert!(whole["decoded"] as f64 <= whole["delivered"] as f64 * 1.05, "each block once: {whole:?}");
}

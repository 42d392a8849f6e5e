//! Measures how fast mails are taken apart: the modules of two versions in one program, in turns, over the same mails.
//!
//! `mail.py` builds and runs it, with the older version as the crate `before` and the present one as `after`.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The mails of one row of the table.
struct Set {
    name: String,
    mails: Vec<Vec<u8>>,
}

/// What is measured, in both versions.
struct Job {
    name: &'static str,
    before: fn(&[u8]),
    after: fn(&[u8]),
}

const JOBS: [Job; 3] = [
    Job {
        name: "split",
        before: |mail| drop(black_box(before::mime::split(mail))),
        after: |mail| drop(black_box(after::mime::split(mail))),
    },
    Job {
        name: "text",
        before: |mail| drop(black_box(before::text::of_mail(mail, true))),
        after: |mail| drop(black_box(after::text::of_mail(mail, true))),
    },
    Job {
        name: "facts",
        before: |mail| drop(black_box(before::mail::facts(mail))),
        after: |mail| drop(black_box(after::mail::facts(mail))),
    },
];

fn main() {
    let mut args = std::env::args().skip(1);
    let rounds: usize = args.next().and_then(|arg| arg.parse().ok()).expect("the number of rounds");
    let only = args.next().expect("which job, or all");
    let mut sets: Vec<Set> = args.map(|dir| read(Path::new(&dir))).collect();
    sets.push(Set { name: "one attachment of 16 MiB".into(), mails: vec![large_mail(16 << 20)] });
    println!("| mails | what | before (ms) | after (ms) | after (MB/s) | after / before |\n| --- | --- | --: | --: | --: | --: |");
    for set in &sets {
        for job in JOBS.iter().filter(|job| only == job.name || only == "all") {
            row(set, job, rounds);
        }
    }
    println!();
    println!("| mails | bytes | decoded before | decoded after | segments before | after |\n| --- | --: | --: | --: | --: | --: |");
    for set in &sets {
        decoded(set);
    }
}

/// Reads all mails in a folder and its folders.
fn read(dir: &Path) -> Set {
    let mut mails = Vec::new();
    let mut waiting: Vec<PathBuf> = vec![dir.into()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).expect("a folder can be listed");
            waiting.extend(entries.map(|entry| entry.expect("an entry can be read").path()));
        } else if let Ok(bytes) = std::fs::read(&path) {
            let is_mail = path.extension().is_some_and(|end| end == "eml") || after::mail::looks_like_mail(&bytes);
            mails.extend(is_mail.then_some(bytes));
        }
    }
    Set { name: dir.file_name().unwrap_or_default().to_string_lossy().into_owned(), mails }
}

fn large_mail(len: usize) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut mail = b"From: a@b.c\r\nSubject: x\r\nContent-Type: application/pdf\r\n\
        Content-Transfer-Encoding: base64\r\n\r\n"
        .to_vec();
    let mut state = 1_u64;
    while mail.len() < len {
        for _ in 0..76 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            mail.push(ALPHABET[(state >> 58) as usize]);
        }
        mail.extend_from_slice(b"\r\n");
    }
    mail
}

fn row(set: &Set, job: &Job, rounds: usize) {
    let time = |run: fn(&[u8])| {
        let start = Instant::now();
        set.mails.iter().for_each(|mail| run(mail));
        start.elapsed()
    };
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // The version that runs second finds the mails in the processor's cache, so they take turns.
        if round % 2 == 0 {
            before.push(time(job.before));
            after.push(time(job.after));
        } else {
            after.push(time(job.after));
            before.push(time(job.before));
        }
    }
    let bytes: usize = set.mails.iter().map(Vec::len).sum();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    // Whatever else the machine does only adds to the time.
    let fastest = |times: Vec<Duration>| times.into_iter().min().expect("there is a round");
    let (before, after) = (fastest(before), fastest(after));
    println!(
        "| {} ({}) | {} | {:.2} | {:.2} | {:.0} | {:.2} |",
        set.name,
        set.mails.len(),
        job.name,
        ms(before),
        ms(after),
        bytes as f64 / after.as_secs_f64() / 1e6,
        after.div_duration_f64(before)
    );
}

/// Says how many bytes both versions decode, and in how many segments.
fn decoded(set: &Set) {
    let (mut old, mut new) = ((0, 0), (0, 0));
    for mail in &set.mails {
        for segment in before::mime::split(mail) {
            old.1 += 1;
            if let before::mime::Segment::Base64 { decoded, .. } = segment {
                old.0 += decoded.len();
            }
        }
        for segment in after::mime::split(mail) {
            new.1 += 1;
            if let after::mime::Segment::Base64 { decoded, .. } = segment {
                new.0 += decoded.len();
            }
        }
    }
    let bytes: usize = set.mails.iter().map(Vec::len).sum();
    println!("| {} | {bytes} | {} | {} | {} | {} |", set.name, old.0, new.0, old.1, new.1);
}

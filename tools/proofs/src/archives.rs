//! Tries what takes archives apart: documents are damaged at random, and corrections of their streams too.

use crate::worker::begin_input;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use strongroom::content::zip::{self, Method};
use strongroom::format::deflate::{Limits, recreate, take_apart};
use strongroom_corpora::documents::Kind;
use strongroom_corpora::rng::Rng;
use strongroom_corpora::words::{Language, Vocabulary};

/// Most documents are short: they are tried more often.
const DOCUMENT_BYTES_MAX: u64 = 60_000;
const LIMITS: Limits = Limits { plain_max: 16 << 20, ratio_max: 256 };
/// Number of documents from which the next one is made.
const DOCUMENTS: usize = 40;

/// Tries damaged archives for a time. The one at hand is in `folder`, so that it is there after a panic.
///
/// # Errors
/// What does not hold for the archive at hand.
pub fn work(seed: u64, seconds: u64, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
    let mut rng = Rng::for_purpose(seed, "archives");
    let vocabulary = Vocabulary::new(seed);
    let kinds = [Kind::Docx, Kind::Xlsx, Kind::Pptx];
    let languages = [Language::English, Language::German, Language::Chinese];
    let documents: Vec<_> = (0..DOCUMENTS)
        .map(|number| {
            let len = rng.between(3000, DOCUMENT_BYTES_MAX) as usize;
            kinds[number % kinds.len()].generate(&vocabulary, &mut rng, languages[number % 3], len)
        })
        .collect();
    let (start, mut said, mut done) = (Instant::now(), Instant::now(), Done::default());
    while start.elapsed().as_secs() < seconds {
        let mut archive = rng.pick(&documents).clone();
        for _ in 0..rng.geometric(8) {
            damage(&mut archive, &mut rng);
        }
        fs::write(folder.join("current.zip"), &archive).context("could not write the archive at hand")?;
        begin_input();
        done.add(&archive, &mut rng)?;
        if said.elapsed() > Duration::from_secs(60) {
            said = Instant::now();
            println!("{:>6.0} s  {done:?}", start.elapsed().as_secs_f64());
        }
    }
    println!("{done:?}");
    Ok(())
}

fn damage(bytes: &mut Vec<u8>, rng: &mut Rng) {
    if bytes.is_empty() {
        return;
    }
    // Headers and the directory are short, and most of what can go wrong is in them.
    let end = bytes.len();
    let at = match rng.below(4) {
        0 => rng.index(end.min(200)),
        1 => end - 1 - rng.index(end.min(400)),
        _ => rng.index(end),
    };
    match rng.below(6) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes[at] = *rng.pick(&[0, 1, 0x7f, 0x80, 0xff]),
        2 => drop(bytes.drain(at..end.min(at + 1 + rng.index(40)))),
        3 => {
            let len = 1 + rng.index(300);
            let noise = rng.bytes(len);
            drop(bytes.splice(at..at, noise));
        }
        4 => {
            let piece = bytes[at..end.min(at + 1 + rng.index(4000))].to_vec();
            let to = rng.index(end);
            drop(bytes.splice(to..to, piece));
        }
        _ if rng.chance(20) => bytes.truncate(at),
        _ => {}
    }
}

/// What was tried.
#[derive(Debug, Default)]
struct Done {
    archives: u64,
    /// Those whose directory holds together.
    read: u64,
    streams: u64,
    taken_apart: u64,
    /// Corrections that were damaged, and still made a stream.
    made_otherwise: u64,
}

impl Done {
    fn add(&mut self, archive: &[u8], rng: &mut Rng) -> Result<()> {
        self.archives += 1;
        let Some(members) = zip::members(archive) else { return self.stream(archive, rng) };
        self.read += 1;
        let mut end = 0;
        for member in members {
            ensure!(member.data.start <= member.data.end, "member is reversed: {:?}", member.data);
            ensure!(member.data.start >= end, "members overlap: {:?} begins before {end}", member.data);
            end = member.data.end;
            let data = archive.get(member.data).context("member is out of bounds")?;
            if member.method == Method::Deflated {
                self.stream(data, rng)?;
            }
        }
        Ok(())
    }

    /// Tries a stream, whatever it is, and its corrections after a change.
    fn stream(&mut self, stream: &[u8], rng: &mut Rng) -> Result<()> {
        self.streams += 1;
        let Some(taken) = take_apart(stream, &LIMITS) else { return Ok(()) };
        self.taken_apart += 1;
        let original = stream.get(..taken.stream_len).context("stream is longer than its bytes")?;
        ensure!(recreate(&taken.plain, &taken.corrections).ok().as_deref() == Some(original), "stream made otherwise");
        let (mut plain, mut corrections) = (taken.plain, taken.corrections);
        damage(if rng.chance(80) { &mut corrections } else { &mut plain }, rng);
        self.made_otherwise += u64::from(recreate(&plain, &corrections).is_ok());
        Ok(())
    }
}

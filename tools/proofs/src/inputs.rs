//! Makes inputs: mails and mbox files that nobody wrote, the same for the same seed.
//!
//! An input is a real mail, a hostile one, one put together from pieces, or an earlier input that was read in a new
//! way ([`Inputs::keep`]), and then changed in up to eight places. The changes know mail: they tear lines, double
//! headers and boundaries, put mails into mails, change charsets, encodings and line endings.

use crate::pieces;
use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fs;
use std::path::{Path, PathBuf};
use strongroom_corpora::rng::Rng;

/// Of a folder of mails this many are taken, evenly spread.
const CORPUS_FILES_MAX: usize = 1500;
/// Longer mails of a folder are left out: short ones are tried more often.
const CORPUS_FILE_BYTES_MAX: usize = 64 << 10;
/// Earlier inputs that are kept. A new one takes the place of a random one.
const KEPT_MAX: usize = 2000;
const KEPT_BYTES_MAX: usize = 16 << 10;
/// Most inputs are cut to the first length, and all to the second.
const USUAL_BYTES_MAX: usize = 24 << 10;
const BYTES_MAX: usize = 512 << 10;

/// What an input is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A message.
    Mail,
    /// An mbox file.
    Mbox,
    /// The value of a header field, or a body without its header.
    Value,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Mail, Kind::Mbox, Kind::Value];

    /// Returns the ending of a file that holds such an input.
    pub fn ending(self) -> &'static str {
        match self {
            Kind::Mail => "eml",
            Kind::Mbox => "mbox",
            Kind::Value => "value",
        }
    }

    /// Returns the kind of input that a file holds, by its ending.
    pub fn of(path: &Path) -> Kind {
        let ending = path.extension().and_then(|ending| ending.to_str());
        Kind::ALL.into_iter().find(|kind| Some(kind.ending()) == ending).unwrap_or(Kind::Mail)
    }
}

/// Returns real and hostile mails to start from.
pub fn corpus(folder: Option<&Path>) -> Result<Vec<Vec<u8>>> {
    let mut mails: Vec<Vec<u8>> = strongroom_corpora::hostile::mails().into_iter().map(|(_, mail)| mail).collect();
    let Some(folder) = folder else { return Ok(mails) };
    let mut files = Vec::new();
    list(folder, &mut files)?;
    ensure!(!files.is_empty(), "there are no files in {}", folder.display());
    files.sort();
    for path in files.iter().step_by(files.len().div_ceil(CORPUS_FILES_MAX)) {
        let mail = fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
        if mail.len() <= CORPUS_FILE_BYTES_MAX {
            mails.push(mail);
        }
    }
    Ok(mails)
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("could not read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() { list(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

/// An endless row of inputs.
pub struct Inputs {
    rng: Rng,
    corpus: Vec<Vec<u8>>,
    kept: Vec<(Kind, Vec<u8>)>,
}

impl Inputs {
    pub fn new(seed: u64, corpus: Vec<Vec<u8>>) -> Self {
        Self { rng: Rng::for_purpose(seed, "inputs"), corpus, kept: Vec::new() }
    }

    /// Takes an input that was read in a way in which none was before: others are made from it.
    pub fn keep(&mut self, kind: Kind, input: &[u8]) {
        if input.len() > KEPT_BYTES_MAX {
            return;
        }
        if self.kept.len() < KEPT_MAX {
            self.kept.push((kind, input.to_vec()));
        } else {
            let at = self.rng.index(KEPT_MAX);
            self.kept[at] = (kind, input.to_vec());
        }
    }

    pub fn next_input(&mut self) -> (Kind, Vec<u8>) {
        let (kind, mut input) = self.start();
        let changes = self.rng.geometric(8);
        for _ in 0..changes {
            self.change(&mut input);
            input.truncate(BYTES_MAX);
        }
        if !self.rng.chance(3) {
            input.truncate(USUAL_BYTES_MAX);
        }
        (kind, input)
    }

    fn start(&mut self) -> (Kind, Vec<u8>) {
        match self.rng.below(10) {
            0 | 1 => (Kind::Mail, self.real()),
            2 => {
                let mut file = Vec::new();
                for _ in 0..self.rng.between(1, 4) {
                    file.extend_from_slice(pieces::separator(&mut self.rng).as_bytes());
                    let mail = if self.rng.chance(30) { self.real() } else { pieces::mail(&mut self.rng) };
                    file.extend_from_slice(&mail[..mail.len().min(8 << 10)]);
                    file.extend_from_slice(self.rng.pick(&["\n", "\n\n", "", "\r\n\r\n", "\r"]).as_bytes());
                }
                (Kind::Mbox, file)
            }
            3 => (Kind::Value, pieces::value(&mut self.rng)),
            4..=6 => (Kind::Mail, pieces::mail(&mut self.rng)),
            _ if self.kept.is_empty() => (Kind::Mail, pieces::mail(&mut self.rng)),
            _ => {
                let at = self.rng.index(self.kept.len());
                self.kept[at].clone()
            }
        }
    }

    fn real(&mut self) -> Vec<u8> {
        let at = self.rng.index(self.corpus.len());
        self.corpus[at].clone()
    }

    /// Returns a short range of `bytes`, from line to line more often than not.
    fn range(&mut self, bytes: &[u8]) -> (usize, usize) {
        if bytes.is_empty() {
            return (0, 0);
        }
        let from = self.rng.index(bytes.len());
        if self.rng.chance(60) {
            let start = bytes[..from].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            let lines = self.rng.between(1, 6) as usize;
            let mut ends = memchr_lines(&bytes[from..]).skip(lines - 1);
            return (start, ends.next().map_or(bytes.len(), |end| from + end));
        }
        let most = *self.rng.pick(&[1, 4, 40, 1000]);
        (from, bytes.len().min(from + self.rng.between(1, most) as usize))
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = if input.is_empty() { 0 } else { self.rng.index(input.len()) };
        match self.rng.below(18) {
            0 if !input.is_empty() => input[at] = self.rng.next_u64() as u8,
            1 if !input.is_empty() => input[at] = *self.rng.pick(b"\n\r\t =?<>()\"';:,-_*%&\x1b\0~{}\x0e\x0f"),
            2 if !input.is_empty() => {
                let (from, to) = self.range(input);
                input.drain(from..to);
            }
            3 => {
                let (from, to) = self.range(input);
                let copy = input[from..to].to_vec();
                insert(input, at, &copy);
            }
            4 => {
                let (from, to) = self.range(input);
                let unit = input[from..to].to_vec();
                let most = *self.rng.pick(&[3, 10, 100, 4000]);
                let copies = self.rng.between(2, most) as usize;
                let copies = copies.min((BYTES_MAX / 2) / unit.len().max(1));
                insert(input, at, &unit.repeat(copies));
            }
            5 => {
                let other = self.real();
                let (from, to) = self.range(&other);
                insert(input, at, &other[from..to]);
            }
            6 => input.truncate(at),
            7 => {
                input.drain(..at);
            }
            8 => {
                let ending = *self.rng.pick(&["\n", "\r\n", "\r", "\r\r\n", "\n\n", "\n\r"]);
                *input = replaced(input, b"\n", ending.as_bytes());
            }
            9 => wrap(&mut self.rng, input),
            10 => {
                let label = *self.rng.pick(&pieces::CHARSETS);
                insert(input, at, label.as_bytes());
            }
            11 => {
                // The lines in another order.
                let mut lines: Vec<&[u8]> = input.split_inclusive(|&byte| byte == b'\n').collect();
                if lines.len() > 1 {
                    let (one, two) = (self.rng.index(lines.len()), self.rng.index(lines.len()));
                    lines.swap(one, two);
                    *input = lines.concat();
                }
            }
            12 => {
                let len = self.rng.between(1, 200) as usize;
                let noise = self.rng.bytes(len);
                insert(input, at, &noise);
            }
            13 => {
                let (from, to) = self.range(input);
                let text = STANDARD.encode(&input[from..to]);
                input.splice(from..to, text.into_bytes());
            }
            14 if self.rng.chance(10) => *input = input.iter().flat_map(|&byte| [byte, 0]).collect(),
            _ => {
                let token = pieces::token(&mut self.rng);
                insert(input, at, &token);
            }
        }
    }
}

/// Gives out where the lines end.
fn memchr_lines(bytes: &[u8]) -> impl Iterator<Item = usize> {
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1)
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    bytes.splice(at..at, piece.iter().copied());
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(from) {
            out.extend_from_slice(to);
            at += from.len();
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}

/// Puts a mail into another one, or into many.
fn wrap(rng: &mut Rng, input: &mut Vec<u8>) {
    for _ in 0..*rng.pick(&[1, 1, 1, 2, 5, 30, 120]) {
        if input.len() > BYTES_MAX / 2 {
            return;
        }
        let boundary = rng.token(3);
        let head = match rng.below(4) {
            0 => "Content-Type: message/rfc822\n\n".to_owned(),
            1 => {
                let encoded = STANDARD.encode(&*input);
                *input = encoded.into_bytes();
                "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n".to_owned()
            }
            2 => format!("Content-Type: multipart/digest; boundary={boundary}\n\n--{boundary}\n\n"),
            _ => format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"\n\n--{boundary}\n"),
        };
        insert(input, 0, head.as_bytes());
        if rng.chance(60) {
            input.extend_from_slice(format!("\n--{boundary}--\n").as_bytes());
        }
    }
}

//! What must hold for every input, whatever it is.

use crate::inputs::Kind;
use anyhow::{Result, ensure};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use strongroom::content::mail::charset::{self, Charset};
use strongroom::content::mail::params::Params;
use strongroom::content::mail::structure::{PARTS_MAX, Structure};
use strongroom::content::mail::transfer::{Encoded, Encoding};
use strongroom::content::mail::{self, FACT_BYTES_MAX, address, date, header, words};
use strongroom::content::mbox::{Mails, MboxError, ReadAt};
use strongroom::content::mime::{self, Segment};
use strongroom::content::text;
use strongroom::restore;

/// How much a text may be longer than its bound: a note, a rule and one line.
const TEXT_SLACK_BYTES: usize = 64 << 10;

/// Reads an input in every way. Returns a number that is the same for inputs that are read alike.
///
/// # Errors
/// What does not hold. The text up to the first colon names the kind of fault.
pub fn check(kind: Kind, input: &[u8]) -> Result<u64> {
    match kind {
        Kind::Mail => check_mail(input),
        Kind::Mbox => check_mbox(input),
        Kind::Value => check_value(input),
    }
}

fn check_mail(message: &[u8]) -> Result<u64> {
    let mut signature = DefaultHasher::new();
    check_structure(message, &mut signature)?;
    check_text(message, &mut signature)?;
    check_facts(message, &mut signature)?;
    check_split(message, &mut signature)?;
    let attached = restore::attached_files(message);
    ensure!(attached == restore::attached_files(message), "restore twice differs");
    attached.map_or(usize::MAX, |files| files.len()).min(8).hash(&mut signature);
    mail::looks_like_mail(message).hash(&mut signature);
    mail::is_named_as_mail(message);
    Ok(signature.finish())
}

fn check_structure(message: &[u8], signature: &mut DefaultHasher) -> Result<()> {
    let message = mail::readable(message);
    let structure = Structure::of(&message, PARTS_MAX);
    let again = Structure::of(&message, PARTS_MAX);
    ensure!(!structure.parts.is_empty() && structure.parts.len() <= PARTS_MAX, "number of parts is out of bounds");
    ensure!(
        structure.parts.len() == again.parts.len() && structure.incomplete == again.incomplete,
        "structure twice differs"
    );
    structure.incomplete.hash(signature);
    for (number, (part, other)) in structure.parts.iter().zip(&again.parts).enumerate() {
        ensure!(
            part.body == other.body && part.kind == other.kind && part.body_start == other.body_start,
            "structure twice differs"
        );
        ensure!(part.end > number && part.end <= structure.parts.len(), "part ends out of bounds");
        let rest = message.get(part.body_start..);
        ensure!(rest.is_some_and(|rest| rest.starts_with(part.body)), "body is not where it says: part {number}");
        if let Some(parent) = part.parent {
            ensure!(parent < number && structure.parts[parent].end >= part.end, "part reaches out of its parent");
        }
        // A part that holds others is as long as all of them, so decoding it takes time for each level. Levels are
        // bounded, and readers decode only the innermost.
        let decoded_len = if part.end == number + 1 { check_decoded(&part.encoded())? } else { 0 };
        if let Some(name) = part.file_name(None) {
            ensure!(!name.contains(char::is_control), "control character in a file name: {name:?}");
        }
        if number < 24 {
            (part.kind as u8, part.encoding as u8, part.alternative.is_some(), part.is_html()).hash(signature);
            (part.charset().is_some(), part.is_attachment(), decoded_len.min(3)).hash(signature);
        }
    }
    let leaves = structure.leaves(0).count();
    ensure!(leaves <= structure.parts.len(), "too many leaves");
    Ok(())
}

/// Returns the length of a decoded part.
fn check_decoded(encoded: &Encoded<'_>) -> Result<usize> {
    let decoded = encoded.decoded(usize::MAX);
    ensure!(decoded.len() == encoded.decoded_len(), "decoded length: {} and {}", decoded.len(), encoded.decoded_len());
    let start = encoded.decoded(50);
    ensure!(start.len() >= decoded.len().min(50), "start of a decoded part is short");
    Ok(decoded.len())
}

fn check_text(message: &[u8], signature: &mut DefaultHasher) -> Result<()> {
    let shown = text::of_mail(message, true);
    ensure!(shown == text::of_mail(message, true), "text twice differs");
    let control = shown.chars().find(|letter| letter.is_control() && !matches!(letter, '\n' | '\t'));
    ensure!(control.is_none(), "control character in a text: {control:?}");
    ensure!(shown.ends_with('\n'), "text without a line end");
    ensure!(shown.len() <= text::TEXT_BYTES_MAX + TEXT_SLACK_BYTES, "text out of bounds: {} bytes", shown.len());
    (shown.contains('\u{fffd}'), shown.lines().count().min(6), shown.contains("Attachments:")).hash(signature);
    Ok(())
}

fn check_facts(message: &[u8], signature: &mut DefaultHasher) -> Result<()> {
    let facts = mail::facts(message);
    for text in [&facts.subject, &facts.from, &facts.to, &facts.message_id] {
        text.is_some().hash(signature);
        let Some(text) = text else { continue };
        ensure!(!text.is_empty() && text.len() <= FACT_BYTES_MAX, "fact out of bounds: {} bytes", text.len());
        ensure!(!text.contains(char::is_control), "control character in a fact: {text:?}");
    }
    (facts.date.is_some(), mail::arrival(message).is_some()).hash(signature);
    Ok(())
}

fn check_split(message: &[u8], signature: &mut DefaultHasher) -> Result<()> {
    let segments = mime::split(message);
    segments.len().min(5).hash(signature);
    let mut joined = Vec::with_capacity(message.len());
    for segment in &segments {
        match segment {
            Segment::Raw(bytes) => {
                ensure!(!bytes.is_empty(), "empty segment");
                joined.extend_from_slice(bytes);
            }
            Segment::Base64 { decoded, form } => {
                let len = decoded.len() as u64;
                form.render(0..form.encoded_len(len), len, decoded, &mut joined);
            }
        }
    }
    ensure!(joined == message, "segments joined are another message");
    Ok(())
}

/// Gives out as few bytes at a time as a slow disk may.
struct Slowly<'a>(&'a [u8]);

impl ReadAt for Slowly<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let most = buffer.len().min(4096 + offset as usize % 997);
        self.0.read_at(&mut buffer[..most], offset)
    }
}

fn check_mbox(file: &[u8]) -> Result<u64> {
    let mut signature = DefaultHasher::new();
    let (mut end, mut count) = (0, 0_usize);
    let mut slowly = Mails::new(Slowly(file));
    for mail in Mails::new(file) {
        let other = slowly.next();
        let mail = match (mail, other) {
            (Ok(mail), Some(Ok(other))) => {
                ensure!(mail == other, "mbox read in small pieces is cut elsewhere");
                mail
            }
            (Err(error), Some(Err(_))) => {
                ensure!(!matches!(error, MboxError::Read { .. }), "mbox in memory cannot be read");
                error.to_string().hash(&mut signature);
                return Ok(signature.finish());
            }
            _ => anyhow::bail!("mbox read in small pieces is cut elsewhere"),
        };
        ensure!(mail.before.start == end, "mbox loses bytes: from {end} to {}", mail.before.start);
        ensure!(
            mail.before.end == mail.range.start && mail.range.end == mail.behind.start,
            "mbox loses bytes within a mail"
        );
        ensure!(mail.before.start <= mail.before.end && mail.range.start <= mail.range.end, "mbox range is reversed");
        ensure!(
            mail.behind.start <= mail.behind.end && mail.behind.end <= file.len() as u64,
            "mbox range is out of bounds"
        );
        ensure!(mail.header_len <= mail.range.end - mail.range.start, "header is longer than its mail");
        end = mail.behind.end;
        count += 1;
        let range = mail.range.start as usize..mail.range.end as usize;
        date::parse(&mail.date).is_some().hash(&mut signature);
        if count < 50 {
            mail::facts(&file[range]).date.is_some().hash(&mut signature);
        }
    }
    ensure!(slowly.next().is_none(), "mbox read in small pieces is cut elsewhere");
    // A file of nothing but blank lines has no mail.
    let is_blank = file.iter().all(|byte| byte.is_ascii_whitespace() || *byte == 0 || b"\xef\xbb\xbf".contains(byte));
    ensure!(
        end == file.len() as u64 || (count == 0 && is_blank),
        "mbox loses bytes: {} at the end",
        file.len() as u64 - end
    );
    count.min(6).hash(&mut signature);
    Ok(signature.finish())
}

fn check_value(value: &[u8]) -> Result<u64> {
    let mut signature = DefaultHasher::new();
    let label = value.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let charset = Charset::named(&String::from_utf8_lossy(label));
    charset.is_some().hash(&mut signature);
    let words = words::decode(value, charset);
    ensure!(!words.contains(['\r', '\n']) || charset.is_some() || value.contains(&b'='), "line end in a decoded value");
    words.contains('\u{fffd}').hash(&mut signature);
    let params = Params::parse(value);
    for name in ["charset", "boundary", "name", "filename", "x"] {
        params.text(name, charset).is_some().hash(&mut signature);
    }
    let shown: usize = address::parse(value, charset).map(|one| one.shown().len()).sum();
    shown.min(5).hash(&mut signature);
    date::parse(value).is_some().hash(&mut signature);
    header::Header::of(value).fields().count().min(5).hash(&mut signature);
    let encodings =
        [Encoding::Base64, Encoding::QuotedPrintable, Encoding::Uuencode, Encoding::Identity, Encoding::named(value)];
    for encoding in encodings {
        let encoded = encoding.of(value);
        let all = encoded.decoded(usize::MAX);
        ensure!(all.len() == encoded.decoded_len(), "decoded length: {} and {}", all.len(), encoded.decoded_len());
        all.len().min(3).hash(&mut signature);
    }
    // A label in front, and the rest in it.
    let rest = &value[label.len()..];
    charset::decode_as(rest, charset).contains('\u{fffd}').hash(&mut signature);
    charset::detect(rest).is_some().hash(&mut signature);
    Ok(signature.finish())
}

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::content::testing::processor_time;

/// Joins the segments to the message, as a restore does.
fn join_segments(segments: &[Segment<'_>]) -> Vec<u8> {
    let mut message = Vec::new();
    for segment in segments {
        match segment {
            Segment::Raw(bytes) => message.extend_from_slice(bytes),
            Segment::Base64 { decoded, form } => {
                let len = form.encoded_len(decoded.len() as u64);
                form.render(0..len, decoded.len() as u64, decoded, &mut message);
            }
        }
    }
    message
}

fn bodies<'a>(segments: &'a [Segment<'_>]) -> Vec<(&'a [u8], Base64Form)> {
    let body = |segment: &'a Segment<'_>| match segment {
        Segment::Raw(_) => None,
        Segment::Base64 { decoded, form } => Some((decoded.as_slice(), *form)),
    };
    segments.iter().filter_map(body).collect()
}

/// Splits a message, proves that no byte is lost, and returns the decoded bodies.
fn split_bodies(message: &[u8]) -> Vec<(Vec<u8>, Base64Form)> {
    let segments = split(message);
    assert!(join_segments(&segments) == message, "the segments are not the message");
    bodies(&segments).into_iter().map(|(bytes, form)| (bytes.to_vec(), form)).collect()
}

/// Returns bytes without a pattern, so that a mistake in order or offset shows.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Lays out base64 text, with other code than that under test. The last line has its line ending.
fn lay_out(bytes: &[u8], line_len: usize, eol: &str) -> String {
    let text = STANDARD.encode(bytes);
    let lines = text.as_bytes().chunks(line_len).map(|line| std::str::from_utf8(line).unwrap());
    lines.flat_map(|line| [line, eol]).collect()
}

fn part(header: &str, body: &str) -> Vec<u8> {
    format!("MIME-Version: 1.0\n{header}\n\n{body}").into_bytes()
}

const HEADER: &str = "Content-Transfer-Encoding: base64";

#[test]
fn mail_without_base64_is_one_raw_segment() {
    let message = b"Subject: hi\nContent-Transfer-Encoding: 7bit\n\nbase64\n";
    assert_eq!(split(message), [Segment::Raw(message)]);
    assert_eq!(split(b""), []);
}

#[test]
fn attachment_of_a_multipart_mail_is_decoded() {
    let file = noise(10_000, 1);
    let text = lay_out(&file, 76, "\r\n");
    let message = format!(
        "From: a@b.c\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nhello\r\n--x\r\n\
         Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment\r\n\r\n\
         {text}\r\n--x--\r\n"
    );
    let segments = split(message.as_bytes());
    assert_eq!(join_segments(&segments), message.as_bytes());
    assert!(matches!(segments[..], [Segment::Raw(_), Segment::Base64 { .. }, Segment::Raw(b"\r\n--x--\r\n")]));
    let form = Base64Form { line_len: 76, crlf: true, final_eol: true };
    assert_eq!(bodies(&segments), [(&file[..], form)]);
}

#[test]
fn field_is_found_however_it_is_written() {
    let text = lay_out(&noise(600, 2), 76, "\n");
    for header in [
        "content-transfer-encoding:base64",
        "CONTENT-TRANSFER-ENCODING : BASE64   ",
        "Content-Transfer-Encoding:\n\tbase64",
        "Content-Transfer-Encoding: (a (nested) comment) \"Base64\"",
        "Content-Transfer-Encoding: base64 (as it should be)\nX-Long: a\n b\n c",
        "Content-Transfer-Encoding: base64; x=y",
        "Content-Transfer-Encoding: base64url",
        "Content-Transfer-Encoding: x-base64",
        "Content-Transfer-Encoding: Base-64",
        "Content-Transfer-Encoding: b64",
        "Content-Transfer-Encoding: =?utf-8?Q?base64?=",
    ] {
        assert_eq!(split_bodies(&part(header, &text)).len(), 1, "{header:?}");
    }
    for header in [
        "Content-Transfer-Encoding base64",
        "X-Content-Transfer-Encoding: base64",
        "Content-Transfer-Encoding: (never closed base64",
        "Content-Transfer-Encoding:",
    ] {
        assert_eq!(split_bodies(&part(header, &text)).len(), 0, "{header:?}");
    }
}

#[test]
fn every_layout_of_lines_is_kept() {
    for line_len in [4_usize, 5, 60, 73, 76, 998] {
        for (eol, crlf) in [("\n", false), ("\r\n", true)] {
            for len in 600..606 {
                if !line_len.is_multiple_of(4) && len % 3 != 0 {
                    continue;
                }
                let file = noise(len, len as u64);
                let text = lay_out(&file, line_len, eol);
                let unbroken = text.trim_end().len() == line_len || !text.trim_end().contains('\n');
                let form = |final_eol| Base64Form {
                    line_len: if unbroken { 0 } else { line_len as u32 },
                    // A text without line endings does not show their kind.
                    crlf: crlf && (final_eol || !unbroken),
                    final_eol,
                };
                assert_eq!(split_bodies(&part(HEADER, &text)), [(file.clone(), form(true))]);
                assert_eq!(split_bodies(&part(HEADER, text.trim_end())), [(file, form(false))]);
            }
        }
    }
}

#[test]
fn small_bodies_stay_raw() {
    let small = lay_out(&noise(DECODED_BYTES_MIN - 1, 3), 76, "\n");
    assert_eq!(split_bodies(&part(HEADER, &small)), []);
    let enough = lay_out(&noise(DECODED_BYTES_MIN, 3), 76, "\n");
    assert_eq!(split_bodies(&part(HEADER, &enough)).len(), 1);
}

#[test]
fn text_after_the_body_stays_raw() {
    let file = noise(1000, 4);
    let text = lay_out(&file, 76, "\n");
    for tail in ["\n\n\n", "-- \nlist footer\n", "\n--x--", "Thanks\n", "   \n", "=\n", "\r\n"] {
        let found = split_bodies(&part(HEADER, &format!("{text}{tail}")));
        assert_eq!(found, [(file.clone(), Base64Form { line_len: 76, crlf: false, final_eol: true })], "{tail:?}");
    }
}

#[test]
fn body_may_follow_several_blank_lines() {
    let text = lay_out(&noise(1000, 5), 60, "\n");
    assert_eq!(split_bodies(&part(HEADER, &format!("\n\r\n\n{text}"))).len(), 1);
}

#[test]
fn unfinished_group_stays_raw() {
    let file = noise(1000, 6);
    let text = lay_out(&file, 76, "\n");
    // Padding is missing, padding is short, and bits that padding leaves unused are not zero.
    for end in ["", "=", "x=="] {
        let text = text.trim_end().trim_end_matches('=').to_string();
        let damaged = format!("{}{end}\n", if end == "x==" { &text[..text.len() - 1] } else { &text });
        let found = split_bodies(&part(HEADER, &damaged));
        assert_eq!(found, [(file[..999].to_vec(), Base64Form { line_len: 76, crlf: false, final_eol: false })]);
    }
}

#[test]
fn damaged_line_splits_the_body_in_two() {
    let file = noise(57 * 100, 7);
    let text = lay_out(&file, 76, "\r\n");
    for damage in ["zzzz", "!", " ", "\n", "\r\n", "="] {
        let mut damaged = text.clone();
        damaged.insert_str(78 * 50 + 10, damage);
        let found = split_bodies(&part(HEADER, &damaged));
        // Of the damaged line, the whole groups before the damage may be kept.
        assert!(found[0].0[..57 * 50] == file[..57 * 50] && found[0].0.len() < 57 * 51, "{damage:?}");
        let kept: usize = found.iter().map(|(bytes, _)| bytes.len()).sum();
        // A line that does not look like base64 ends the body, because anything may follow.
        let lost = if matches!(damage, "!" | "=") { file.len() / 2 } else { 57 * 4 };
        assert!(kept + lost >= file.len(), "{damage:?} kept {kept}");
    }
}

/// A damaged line in a well-formed part does not hide the rest of the part.
#[test]
fn a_body_goes_on_behind_what_is_no_base64() {
    let file = noise(57 * 100, 13);
    let text = lay_out(&file, 76, "\r\n");
    for damage in ["!", "=", "=\r\n", "two words and more\r\n", "--no boundary\r\n", "Subject: x\r\n"] {
        let mut damaged = text.clone();
        damaged.insert_str(78 * 50, damage);
        let message =
            format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n{HEADER}\r\n\r\n{damaged}\r\n--b--\r\n");
        let kept: usize = split_bodies(message.as_bytes()).iter().map(|(bytes, _)| bytes.len()).sum();
        assert!(kept + 57 >= file.len(), "{damage:?} kept {kept}");
    }
}

/// If line endings change within a body, one run ends and the next one begins.
#[test]
fn runs_of_other_line_endings_follow_each_other() {
    let file = noise(57 * 90, 14);
    let lines = |range: Range<usize>, eol: &str| lay_out(&file[57 * range.start..57 * range.end], 76, eol);
    let text = [lines(0..30, "\n"), lines(30..60, "\r\n"), lines(60..90, "\n")].concat();
    let found: Vec<u8> = split_bodies(&part(HEADER, &text)).into_iter().flat_map(|(bytes, _)| bytes).collect();
    assert!(found == file);
}

/// Bodies that the structure does not reach are found by their fields: in reports that quote a mail in clear, behind
/// undeclared boundaries, without an empty line before the body, and beyond the maximum number of parts.
#[test]
fn bodies_are_found_outside_of_the_structure() {
    let file = noise(2000, 15);
    let text = lay_out(&file, 76, "\n");
    for message in [
        format!("Content-Type: text/plain\n\nYour mail was not delivered:\n\nSubject: x\n{HEADER}\n\n{text}\nbye\n"),
        format!("Content-Type: multipart/mixed; boundary=a\n\n--other\n{HEADER}\n\n{text}\n--other--\n"),
        format!("Content-Type: multipart/mixed\n\n--x\n{HEADER}\n\n{text}\n--x--\n"),
        format!("Content-Type: multipart/mixed; boundary=b\n\n{HEADER}\n\n{text}\n--b\n\ntext\n--b--\n"),
        format!("Content-Type: multipart/mixed; boundary=b\n\n--b\n\ntext\n--b--\n{HEADER}\n\n{text}\n"),
        format!(
            "Content-Type: multipart/mixed; boundary=b\n\n{}--b\n{HEADER}\n\n{text}--b--\n",
            "--b\n\nx\n".repeat(PARTS_MAX)
        ),
        format!("{HEADER}\n\nThis is in clear.\n\n{HEADER}\n\n{text}\n"),
    ] {
        let found: Vec<_> = split_bodies(message.as_bytes()).into_iter().map(|(bytes, _)| bytes).collect();
        assert!(found == [file.clone()], "{} in {:?}", found.len(), &message[..100]);
    }
    let no_blank_line = format!("Subject: x\n{HEADER}\n{text}");
    let found: usize = split_bodies(no_blank_line.as_bytes()).iter().map(|(bytes, _)| bytes.len()).sum();
    assert!(found + 57 >= file.len());
}

/// These bodies have no layout that the repository can describe, so they stay raw.
#[test]
fn blanks_at_line_ends_and_cr_alone_stay_raw() {
    let text = lay_out(&noise(2000, 16), 76, "\n");
    assert_eq!(split_bodies(&part(HEADER, &text.replace('\n', " \n"))), []);
    assert_eq!(
        split_bodies(
            &[part(HEADER, ""), text.into_bytes()]
                .concat()
                .iter()
                .map(|&byte| if byte == b'\n' { b'\r' } else { byte })
                .collect::<Vec<_>>()
        ),
        []
    );
    let unbroken = format!("Subject: x\r{HEADER}\r\r{}", lay_out(&noise(2000, 16), 4000, ""));
    assert_eq!(split_bodies(unbroken.as_bytes()).len(), 1);
}

#[test]
fn attachments_of_nested_messages_are_decoded() {
    let files = [noise(2000, 8), noise(3000, 9), noise(4000, 10)];
    let mut message = Vec::new();
    for (depth, file) in files.iter().enumerate().rev() {
        let text = lay_out(file, 76, "\n");
        let inner = std::mem::take(&mut message);
        message = format!(
            "Subject: {depth}\nContent-Type: multipart/mixed; boundary=b{depth}\n\n--b{depth}\n{HEADER}\n\n{text}\n\
             --b{depth}\nContent-Type: message/rfc822\n\n"
        )
        .into_bytes();
        message.extend_from_slice(&inner);
        message.extend_from_slice(format!("\n--b{depth}--\n").as_bytes());
    }
    let found: Vec<_> = split_bodies(&message).into_iter().map(|(bytes, _)| bytes).collect();
    assert_eq!(found, files);
}

#[test]
fn encoded_message_is_a_blob() {
    let inner = part(HEADER, &lay_out(&noise(2000, 11), 76, "\n"));
    let message = part(&format!("Content-Type: message/rfc822\n{HEADER}"), &lay_out(&inner, 76, "\n"));
    assert_eq!(split_bodies(&message).into_iter().map(|(bytes, _)| bytes).collect::<Vec<_>>(), [inner]);
}

#[test]
fn forms_from_elsewhere_do_no_harm() {
    for line_len in [0, 1, u32::MAX] {
        for decoded_len in [0, 1, u64::MAX / 2, u64::MAX] {
            for (crlf, final_eol) in [(false, false), (false, true), (true, false), (true, true)] {
                let form = Base64Form { line_len, crlf, final_eol };
                assert!(form.encoded_len(decoded_len) >= decoded_len);
                for range in [0..0, 0..1, 5..9, u64::MAX - 1..u64::MAX, 0..u64::MAX, Range { start: 9, end: 5 }] {
                    let span = form.decoded_span(range.clone(), decoded_len);
                    assert!(span.start <= span.end && span.end <= decoded_len);
                    if span.end - span.start < 100 {
                        let bytes = vec![0; (span.end - span.start) as usize];
                        form.render(range, decoded_len, &bytes, &mut Vec::new());
                    }
                }
            }
        }
    }
    assert_eq!(Base64Form { line_len: 76, crlf: true, final_eol: true }.encoded_len(0), 0);
}

#[test]
fn hostile_mail_takes_linear_time() {
    let (size, size_with_cr) = (4 << 20, 8 << 20);
    let field = "Content-Transfer-Encoding: base64\n";
    for unit in [
        field.to_string(),
        format!("{field}\n"),
        format!("{field}\nAAAA\n"),
        "Content-Transfer-Encoding: (((".to_string(),
        "\nContent-Transfer-Encoding: ((((((".to_string(),
        "\nContent-Transfer-Encoding:".to_string(),
        "encoding".to_string(),
        "g".to_string(),
        "AAAA\nAA\n".to_string(),
        "AAAA\nAAAAA\n".to_string(),
        "AAA=\n".to_string(),
        "A\n".to_string(),
        "A".to_string(),
        "=".to_string(),
        "\n".to_string(),
        "\r".to_string(),
    ] {
        let message = format!("{field}\n{}", unit.repeat(size / unit.len())).into_bytes();
        let time = processor_time(|| assert_eq!(join_segments(&split(&message)).len(), message.len()));
        // A quadratic search would take minutes. The limit leaves room for slow machines and builds.
        assert!(time.as_secs() < 20, "{unit:?} took {time:?}");
    }
    // In a mail whose lines end with CR, no line has another end.
    for unit in ["Content-Transfer-Encoding: base64\r\r/v", "Content-Transfer-Encoding: base64\r\rAAAAAAAA="] {
        let message = unit.repeat(size_with_cr / unit.len()).into_bytes();
        let time = processor_time(|| assert_eq!(join_segments(&split(&message)).len(), message.len()));
        assert!(time.as_secs() < 20, "{unit:?} took {time:?}");
    }
}

/// Chooses a line length; the lengths that mailers use are likely.
fn line_lens() -> impl Strategy<Value = usize> {
    prop_oneof![Just(76), Just(72), Just(60), Just(64), 1..20_usize, 4..1000_usize]
}

/// Pieces of mails, and pieces that only look like them.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let eol = || prop_oneof![Just("\n"), Just("\r\n")];
    let body = (0..4000_usize, any::<u64>(), line_lens(), eol(), eol(), 0..4_usize, any::<bool>()).prop_map(
        |(len, seed, line_len, eol, header_eol, cut, field)| {
            let mut text = lay_out(&noise(len, seed), line_len, eol);
            text.truncate(text.len().saturating_sub(cut));
            let header = if field { HEADER } else { "Content-Type: message/rfc822" };
            format!("--b{header_eol}{header}{header_eol}{header_eol}{text}").into_bytes()
        },
    );
    let fixed = prop_oneof![
        Just("\n"),
        Just("\r\n"),
        Just("\r"),
        Just("="),
        Just("=="),
        Just("--b\n"),
        Just("QQ==\n"),
        Just("QR==\n"),
        Just("Content-Transfer-Encoding: base64\n\n"),
        Just("Content-Transfer-Encoding: base64"),
        Just("\n\n"),
        Just("Subject: x\n"),
        Just("-- \nfooter text\n"),
        Just("AAAA"),
        Just("Thanks\n"),
    ];
    prop_oneof![
        4 => body,
        4 => fixed.prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..100),
    ]
}

#[derive(Clone, Debug)]
enum Edit {
    Insert(u8),
    Remove,
    Replace(u8),
    Truncate,
}

fn edits() -> impl Strategy<Value = Vec<(usize, Edit)>> {
    let byte = || prop_oneof![any::<u8>(), Just(b'\n'), Just(b'\r'), Just(b'='), Just(b'A'), Just(b' ')];
    let edit = prop_oneof![
        8 => byte().prop_map(Edit::Insert),
        8 => Just(Edit::Remove),
        8 => byte().prop_map(Edit::Replace),
        1 => Just(Edit::Truncate),
    ];
    vec((any::<usize>(), edit), 0..6)
}

fn mails() -> impl Strategy<Value = Vec<u8>> {
    (vec(pieces(), 0..8), edits()).prop_map(|(pieces, edits)| {
        let mut message = pieces.concat();
        for (pick, edit) in edits {
            if message.is_empty() {
                break;
            }
            let at = pick % message.len();
            match edit {
                Edit::Insert(byte) => message.insert(at, byte),
                Edit::Remove => drop(message.remove(at)),
                Edit::Replace(byte) => message[at] = byte,
                Edit::Truncate => message.truncate(at),
            }
        }
        message
    })
}

proptest! {
    #[test]
    fn any_bytes_come_back(message in vec(any::<u8>(), 0..2000), body in vec(any::<u8>(), 0..2000)) {
        prop_assert!(join_segments(&split(&message)) == message);
        let text = STANDARD.encode(body);
        let message = [b"Content-Transfer-Encoding: base64\n\n", &message[..], text.as_bytes()].concat();
        prop_assert!(join_segments(&split(&message)) == message);
    }

    #[test]
    fn any_mail_comes_back(message in mails(), picks in vec((any::<u64>(), any::<u64>()), 20)) {
        let segments = split(&message);
        prop_assert!(join_segments(&segments) == message);
        let mut at = 0;
        for segment in &segments {
            let (decoded, form) = match segment {
                Segment::Raw(bytes) => {
                    prop_assert!(!bytes.is_empty());
                    at += bytes.len();
                    continue;
                }
                Segment::Base64 { decoded, form } => (decoded, form),
            };
            let decoded_len = decoded.len() as u64;
            let len = form.encoded_len(decoded_len);
            for &(a, b) in &picks {
                let (a, b) = (a % (len + 1), b % (len + 1));
                let range = a.min(b)..a.max(b);
                let span = form.decoded_span(range.clone(), decoded_len);
                let mut out = Vec::new();
                form.render(range.clone(), decoded_len, &decoded[span.start as usize..span.end as usize], &mut out);
                prop_assert!(out == message[at + range.start as usize..at + range.end as usize]);
            }
            at += len as usize;
        }
        prop_assert_eq!(at, message.len());
    }

    /// A regular body is found whole, whatever its layout.
    #[test]
    fn regular_bodies_are_decoded(
        len in DECODED_BYTES_MIN..5000,
        seed: u64,
        line_len in line_lens(),
        crlf: bool,
        tail in "(\n--b.*)?",
    ) {
        // If lines end inside a group, the padding may be split over two lines. That group stays raw.
        let len = if line_len.is_multiple_of(4) { len } else { len.next_multiple_of(3) };
        let file = noise(len, seed);
        let text = lay_out(&file, line_len, if crlf { "\r\n" } else { "\n" });
        let message = part(HEADER, &format!("{text}{tail}"));
        let found = split_bodies(&message);
        prop_assert_eq!(found.len(), 1);
        prop_assert!(found[0].0 == file);
    }
}

#[test]
fn every_range_of_a_small_body_is_rendered() {
    for line_len in [0, 1, 3, 4, 7, 76] {
        for (crlf, final_eol) in [(false, false), (false, true), (true, false), (true, true)] {
            for decoded_len in [1, 2, 3, 38, 57] {
                let file = noise(decoded_len, 12);
                let form = Base64Form { line_len, crlf, final_eol };
                let eol = if crlf { "\r\n" } else { "\n" };
                let mut text = lay_out(&file, if line_len == 0 { 1000 } else { line_len as usize }, eol);
                if !final_eol {
                    text.truncate(text.len() - eol.len());
                }
                assert_eq!(form.encoded_len(decoded_len as u64), text.len() as u64);
                for start in 0..=text.len() {
                    for end in start..=text.len() {
                        let range = start as u64..end as u64;
                        let span = form.decoded_span(range.clone(), decoded_len as u64);
                        let mut out = Vec::new();
                        let bytes = &file[span.start as usize..span.end as usize];
                        form.render(range, decoded_len as u64, bytes, &mut out);
                        assert_eq!(out, text.as_bytes()[start..end], "{form:?} {start}..{end}");
                    }
                }
            }
        }
    }
}

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use std::time::{Duration, Instant};

const FROM: &str = "From alice@example.org Tue Oct  1 09:30:00 2024";

/// Cuts `file`, and proves that the pieces are all of it.
fn cut(file: &[u8]) -> Vec<Mail> {
    let mails: Vec<Mail> = Mails::new(file).map(Result::unwrap).collect();
    proves_whole(file.len() as u64, &mails);
    mails
}

fn proves_whole(len: u64, mails: &[Mail]) {
    let mut at = 0;
    for Mail { before, range, behind, .. } in mails {
        assert_eq!((before.start, before.end, range.end, behind.start), (at, range.start, behind.start, range.end));
        assert!(before.end >= before.start && range.end >= range.start && behind.end >= behind.start);
        assert!(before.end - before.start <= 64 << 10 && behind.end - behind.start <= 64 << 10);
        at = behind.end;
    }
    assert!(mails.is_empty() || at == len, "{at} of {len} bytes");
}

fn contents(file: &[u8]) -> Vec<String> {
    let content = |mail: Mail| &file[mail.range.start as usize..mail.range.end as usize];
    cut(file).into_iter().map(|mail| String::from_utf8_lossy(content(mail)).into_owned()).collect()
}

fn letter(number: usize) -> String {
    format!(
        "From: Ann Other <ann{number}@example.org>\nTo: bo@example.org\nSubject: Letter {number}\n\
        Date: Mon, 2 Mar 2026 10:0{number}:00 +0000\nMessage-ID: <m{number}@example.org>\n\nBody of letter {number}.\nSecond line.\n"
    )
}

/// Returns a file of three letters, each behind its separator and before `behind`.
fn joined(separators: [&str; 3], behind: &str) -> String {
    separators.iter().zip(1..).map(|(separator, number)| format!("{separator}\n{}{behind}", letter(number))).collect()
}

#[track_caller]
fn has_the_letters(file: &[u8]) {
    let text = String::from_utf8_lossy(file).replace("\r\n", "\n").replace('\r', "\n");
    let found: Vec<String> = contents(file).iter().map(|mail| mail.replace("\r\n", "\n").replace('\r', "\n")).collect();
    assert_eq!(found.len(), 3, "{text}");
    for (mail, number) in found.iter().zip(1..) {
        let header_len = letter(number).find("\n\n").unwrap();
        assert!(mail.contains(&letter(number)[..header_len]), "{mail}");
        assert!(mail.contains(&format!("Body of letter {number}.\nSecond line.")), "{mail}");
    }
}

#[test]
fn messages_are_kept_as_they_stand() {
    let file =
        format!("{FROM}\r\nSubject: a\r\n\r\n>From here\r\n>>From there\r\n\r\n{FROM} +0100\nSubject: b\n\nno end");
    let mails = cut(file.as_bytes());
    assert_eq!(contents(file.as_bytes()), ["Subject: a\r\n\r\n>From here\r\n>>From there\r\n", "Subject: b\n\nno end"]);
    assert_eq!(mails[1].before.start, file.rfind("From a").unwrap() as u64);
    assert_eq!((mails[0].header_len, mails[1].header_len), (14, 12));
    assert_eq!(
        (&*mails[0].date, &*mails[1].date),
        (&b"Tue Oct  1 09:30:00 2024"[..], &b"Tue Oct  1 09:30:00 2024 +0100"[..])
    );
}

#[test]
fn only_the_last_of_several_blank_lines_is_the_separator() {
    let file = format!("{FROM}\nTo: a\n\n\n\n{FROM}\nTo: b\n\n");
    assert_eq!(contents(file.as_bytes()), ["To: a\n\n\n", "To: b\n"]);
}

#[test]
fn empty_files_and_messages_are_fine() {
    for blank in ["", "\n\r\n", " \n\t"] {
        assert_eq!(contents(blank.as_bytes()), [""; 0]);
    }
    assert_eq!(contents(FROM.as_bytes()), [""]);
    assert_eq!(contents(format!("\n{FROM}\n\n{FROM}\nTo: a\n\n").as_bytes()), ["", "To: a\n"]);
}

#[test]
fn every_form_of_separator_is_known_first_and_later() {
    for separator in [
        "From ",
        "From",
        "From -",
        "From ann@example.org",
        "From MAILER-DAEMON",
        "From Ann Other Mon Mar  2 10:00:00 2026",
        "From ann@example.org on a day of spring",
        "From ann@example.org 3/2/2026 10:00:00 AM",
        "From ann@example.org Mon Mar  2 10.00.00 2026",
        "From ann@example.org Mo Mär  2 10:00:00 2026",
        "From ann@example.org Mon Mar  2 10:00:00.123 2026",
        "From ann@example.org 2026-03-02T10:00:00Z",
        "From ann@example.org 2026-03-02 10:00:00",
        "From ann@example.org Mon, 2 Mar 2026 10:00:00 +0000",
        "From\tann@example.org\tMon Mar  2 10:00:00 2026",
        "From 1234@xxx Mon Mar 02 10:00:00 +0000 2026",
        "From ann@example.org  Mon Mar  2 10: 00:00 2026",
        "From ann@example.org Mon Mar  2 10:00:00 26",
        "From ???@??? Mon Mar 02 10:00:00 2026",
        "From ann at example.org  Mon Mar  2 10:00:00 2026",
    ] {
        for separators in [[separator; 3], [FROM, separator, separator], [FROM, separator, FROM]] {
            for file in [joined(separators, "\n"), joined(separators, "\n").trim_end().to_owned()] {
                has_the_letters(file.as_bytes());
                has_the_letters(file.replace('\n', "\r\n").as_bytes());
                has_the_letters(file.replace('\n', "\r").as_bytes());
            }
        }
    }
}

#[test]
fn separators_need_no_blank_line_before_them() {
    for separator in [FROM, "From ", "From -", "From ann@example.org", "From ann@example.org 3/2/2026 10:00:00 AM"] {
        has_the_letters(joined([separator; 3], "").as_bytes());
        has_the_letters(joined([separator; 3], "").replace('\n', "\r").as_bytes());
    }
    // Mails with a header and no body.
    let heads: String =
        (1..4).map(|number| format!("{FROM}\n{}\n", letter(number).split("\n\n").next().unwrap())).collect();
    assert_eq!(contents(heads.as_bytes()).len(), 3);
}

#[test]
fn prose_does_not_separate() {
    for prose in [
        "From memory it was in May 2019 at 10:30\nNote: this is\nSubject: no header\nTo: nobody\n",
        "From memory it was in May 2019 at 10:30 or so.\n\nFrom Mon 10:30 on, 2026 will be better.\n",
        "From now on\n\nFrom here\nSubject: there\n",
        "From our meeting on Mon Mar  2 10:00:00 2026\nSubject: the plan\n",
        "From \n\nFrom -\nand so on\n",
        "From ann@example.org\nthat: is her address\n",
        "A separator is this:\n\nFrom ann@example.org Mon Mar  2 10:00:00 2026\n\nand a header: behind it\n",
        "From: Bo <bo@example.org>\nTo: x\nSubject: quoted\n\nfrom bo@example.org Mon Mar  2 10:00:00 2026\nTo: x\n",
        "> From ann@example.org Mon Mar  2 10:00:00 2026\n> Subject: quoted\n",
        ">From ann@example.org Mon Mar  2 10:00:00 2026\nSubject: quoted\n",
    ] {
        for between in [format!("\n{prose}\n"), format!("{prose}\n")] {
            let file = format!("{FROM}\n{}{between}{FROM}\n{}\n", letter(1), letter(2));
            assert_eq!(
                contents(file.as_bytes()),
                [letter(1) + between.strip_suffix('\n').unwrap(), letter(2)],
                "{prose}"
            );
        }
    }
}

#[test]
fn quoted_separators_stand_in_headers() {
    for quoted in [
        ">From - Mon Mar 02 10:00:00 2026\nX-Mozilla-Status: 0001\nX-Mozilla-Status2: 00000000",
        ">From ",
        "X-Mozilla-Status: 0001\nX-Mozilla-Keys: \n>From - Mon Mar 02 10:00:00 2026\nX-Mozilla-Status: 0001",
        "From - Mon Mar 02 10:00:00 2026\nX-Mozilla-Status: 0001",
        "X-Mozilla-Status: 0001\nFrom - Mon Mar 02 10:00:00 2026\nX-Mozilla-Status: 0001",
        "Return-Path:\n <ann@example.org>",
    ] {
        let separator = format!("{FROM}\n{quoted}");
        has_the_letters(joined([&separator; 3], "\n").as_bytes());
        has_the_letters(joined([&separator; 3], "").as_bytes());
    }
}

#[test]
fn the_blank_line_may_stand_behind_the_separator() {
    has_the_letters(joined([&format!("{FROM}\n"); 3], "").as_bytes());
}

#[test]
fn marks_and_holes_are_kept() {
    let file = joined([FROM; 3], "\n");
    for lead in [&b"\xef\xbb\xbf"[..], b"\n\n", &[0; 4096], b"\xef\xbb\xbf\r\n\0\0\n"] {
        has_the_letters(&[lead, file.as_bytes()].concat());
    }
    // Files that were appended to each other, each with its byte order mark.
    has_the_letters(joined([FROM, &format!("\u{feff}{FROM}"), &format!("\u{feff}{FROM}")], "\n").as_bytes());
    // A hole that begins in the middle of a line, and one in place of a blank line.
    for hole in [format!("Second li{}", "\0".repeat(1000)), format!("Second line.\n{}", "\0".repeat(8192))] {
        let file = file.replacen("Second line.\n\n", &hole, 1);
        assert_eq!(contents(file.as_bytes()).len(), 3);
        assert!(contents(file.as_bytes())[0].ends_with('\0'));
    }
    let hole = [vec![0; 100_000], file.into_bytes()].concat();
    assert_eq!(cut(&hole).len(), 4, "a large hole is kept by itself");
}

#[test]
fn a_file_without_a_last_line_end_may_have_been_appended_to() {
    let file = joined([FROM; 3], "\n").replace("Second line.\n\n", "Second line.");
    has_the_letters(file.as_bytes());
    let html = joined([FROM; 3], "\n").replace("Second line.\n\n", "Second line.\n</html>");
    assert_eq!(cut(html.as_bytes()).len(), 3);
    for quote in [">", "> ", "  ", "he wrote: ", ">>"] {
        let file = format!("{FROM}\n{}\n{quote}{FROM}\n{}", letter(1), letter(2));
        assert_eq!(cut(file.as_bytes()).len(), 1, "{quote}");
    }
}

#[test]
fn a_file_may_begin_with_a_mail_or_its_rest() {
    let file = joined([FROM; 3], "\n");
    has_the_letters(file.strip_prefix(&format!("{FROM}\n")).unwrap().as_bytes());
    assert_eq!(contents(letter(1).as_bytes()), [letter(1)]);
    assert_eq!(
        contents(format!("the rest of a mail\n\n{file}").as_bytes())[..2],
        ["the rest of a mail\n".to_owned(), letter(1)]
    );
}

#[test]
fn content_length_is_believed_where_a_separator_follows() {
    let inner = joined([FROM; 3], "\n");
    let mail = |len: usize, body: &str| format!("{FROM}\nSubject: x\nContent-Length: {len}\n\n{body}");
    for (len, bodies) in [
        (inner.len(), 1),
        (inner.len() - 1, 1),
        (inner.len() + 1, 1),
        (0, 4),
        (inner.len() - 3, 4),
        (inner.len() + 300, 4),
        (inner.len() * 1000, 4),
        (usize::MAX, 4),
    ] {
        let file = format!("{}\n{FROM}\n{}", mail(len, &inner), letter(9));
        let found = contents(file.as_bytes());
        assert_eq!(found.len(), bodies + 1, "{len} for {}", inner.len());
        assert_eq!(found.last().unwrap(), &letter(9));
    }
    // To the end of the file.
    assert_eq!(contents(mail(inner.len(), &inner).as_bytes()).len(), 1);
    assert_eq!(contents(mail(inner.len() + 2, &inner).as_bytes()).len(), 4);
}

#[test]
fn a_mailbox_in_a_part_does_not_separate_there() {
    let part = format!("--b\nContent-Type: message/rfc822\n\n{FROM}\n{}\n--b--\n", letter(2));
    let file =
        format!("{FROM}\nSubject: x\nContent-Type: multipart/mixed; boundary=b\n\n{part}\n{FROM}\n{}", letter(3));
    assert_eq!(cut(file.as_bytes()).len(), 2);
}

#[test]
fn mmdf_is_cut_at_its_lines() {
    let line = "\u{1}\u{1}\u{1}\u{1}\n";
    for separator in ["", "From \n", "From ann@example.org Mon Mar  2 10:00:00 2026\n"] {
        let mails: Vec<String> = (1..4).map(|number| format!("{line}{separator}{}{line}", letter(number))).collect();
        let file = mails.concat();
        assert_eq!(contents(file.as_bytes()), [letter(1), letter(2), letter(3)]);
        has_the_letters(file.replace('\n', "\r\n").as_bytes());
        has_the_letters(format!("\n{file}\n\n").as_bytes());
        has_the_letters(mails.join("\n").as_bytes());
        // If a line is missing somewhere, no two mails are joined.
        for lost in 1..6 {
            let mut at = file.match_indices(line).map(|(at, _)| at);
            let at = at.nth(lost).unwrap();
            has_the_letters([&file[..at], &file[at + line.len()..]].concat().as_bytes());
        }
    }
    let text = format!("{line}{}\n{FROM}\n{}{line}", letter(1), letter(2));
    assert_eq!(contents(text.as_bytes()).len(), 1, "other separators are text there");
}

#[test]
fn other_files_are_refused() {
    for file in ["Subject: a\n\nb\n", "From here on\n", "\n x", "a\n\nFrom now\n", "{}"] {
        let mut mails = Mails::new(file.as_bytes());
        assert!(matches!(mails.next(), Some(Err(MboxError::NotMbox))), "{file:?}");
        assert!(mails.next().is_none());
    }
    let utf16: Vec<u8> = FROM.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (file, said) in [
        (&b"\x1f\x8b\x08\0"[..], "gzip"),
        (b"PK\x03\x04", "ZIP"),
        (b"BZh91AY", "bzip2"),
        (b"BABYL OPTIONS: -*- rmail -*-\n", "Babyl"),
        (b"!BDN", "Outlook"),
        (b"\0\0\0\0", "zero bytes"),
        (b"// <!-- <mdb:mork:z v=\"1.4\"/> -->", "Thunderbird"),
        (&utf16, "UTF-16"),
    ] {
        let error = Mails::new(file).next().unwrap().unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn failed_read_is_reported_once() {
    struct Broken;
    impl ReadAt for Broken {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            if offset > 3 << 20 { Err(io::ErrorKind::TimedOut.into()) } else { repeat(buffer, offset) }
        }
    }
    let mails: Vec<_> = Mails::new(Broken).collect();
    assert!(matches!(mails[..], [Err(MboxError::Read { offset, .. })] if offset > 2 << 20));
}

/// A letter, and then lines of text without end.
fn repeat(buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let letter = format!("{FROM}\n{}", letter(1)).into_bytes();
    let line = b"From time to time 0123456789 abc\n";
    // A read returns less than it is asked for.
    let len = buffer.len().min(300_000);
    for (byte, at) in buffer[..len].iter_mut().zip(offset as usize..) {
        *byte = letter.get(at).copied().unwrap_or_else(|| line[(at - letter.len()) % line.len()]);
    }
    Ok(len)
}

#[test]
fn memory_is_flat_whatever_a_mail_is_long() {
    struct Large(u64);
    impl ReadAt for Large {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            let second = format!("\n\n{FROM}\n{}", letter(2)).into_bytes();
            if offset >= self.0 {
                return second.as_slice().read_at(buffer, offset - self.0);
            }
            // To be quick, only the first piece is written byte by byte.
            let len = (buffer.len() as u64).min(self.0 - offset) as usize;
            if offset == 0 {
                return repeat(&mut buffer[..len], 0);
            }
            buffer[..len].fill(b'x');
            Ok(len)
        }
    }
    let large = 600 << 20;
    let mut mails = Mails::new(Large(large));
    let first = mails.next().unwrap().unwrap();
    assert_eq!((first.range.end, first.behind.end), (large + 1, large + 2));
    assert!(mails.window.bytes().len() < 3 << 20, "{}", mails.window.bytes().len());
    let second = mails.next().unwrap().unwrap();
    assert_eq!(second.range.end - second.range.start, letter(2).len() as u64);
    assert!(mails.next().is_none());
}

/// With quadratic time, these files would take hours.
#[test]
fn hostile_files_take_linear_time() {
    let size = 3 << 20;
    let fill = |pattern: &str| pattern.repeat(size / pattern.len());
    let open = format!("{FROM}\nTo: a\n\n");
    for file in [
        fill("From "),
        fill("From \n"),
        open.clone() + &fill("From \n"),
        open.clone() + &fill(&format!("{FROM}\n")),
        open.clone() + &fill(&format!("\n{FROM}\n\n")),
        open.clone() + &fill("From a@b\nX: y\n"),
        open.clone() + &fill(&format!("{FROM}\n{}", " folded\n".repeat(500))),
        open.clone() + &fill(&format!("{FROM}\n{}", ">From\n".repeat(500))),
        open.clone() + &fill(&format!("{}\n", format!("\0{FROM}").repeat(30))),
        open.clone() + &fill("\0From a@b Mon Mar  2 10:00:00 2026"),
        open.clone() + &fill("\r"),
        open.clone() + &fill("\n"),
        open.clone() + &fill(&format!("{FROM}\nTo: a\nContent-Length: 999\n\n")),
        fill("\u{1}\u{1}\u{1}\u{1}\n"),
        "\u{1}\u{1}\u{1}\u{1}\n".to_owned() + &fill("\u{1}"),
        fill("\0"),
    ] {
        let begun = Instant::now();
        let mails: Vec<Mail> = Mails::new(file.as_bytes()).map_while(Result::ok).collect();
        proves_whole(file.len() as u64, &mails);
        let start = file.chars().take(60).collect::<String>();
        assert!(begun.elapsed() < Duration::from_secs(60), "{start:?} took {:?}", begun.elapsed());
    }
}

/// How a program writes mails into an mbox file.
#[derive(Clone, Copy, Debug)]
struct Dialect {
    separator: &'static str,
    blank: bool,
    eol: &'static str,
    quotes: Quotes,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Quotes {
    /// mboxo: quotes lines that begin with `From `.
    Plain,
    /// mboxrd: also quotes lines that are quoted already.
    Again,
    /// mboxcl2: quotes nothing; `Content-Length` gives the length of the mail.
    Length,
}

impl Dialect {
    /// Returns the mail as it stands in the file: quoted, with the line ends of the file.
    fn write(self, mail: &str) -> String {
        let (header, body) = mail.split_once("\n\n").unwrap();
        let body = body.split_inclusive('\n').map(|line| match self.quotes {
            Quotes::Plain if line.starts_with("From ") => format!(">{line}"),
            Quotes::Again if line.trim_start_matches('>').starts_with("From ") => format!(">{line}"),
            _ => line.to_owned(),
        });
        let body = body.collect::<String>().replace('\n', self.eol);
        let length =
            if self.quotes == Quotes::Length { format!("\nContent-Length: {}", body.len()) } else { String::new() };
        format!("{}{}", format!("{header}{length}\n\n").replace('\n', self.eol), body)
    }

    fn join(self, mails: &[String]) -> String {
        let blank = if self.blank { self.eol } else { "" };
        mails.iter().map(|mail| format!("{}{}{}{blank}", self.separator, self.eol, mail)).collect()
    }
}

fn dialects() -> impl Strategy<Value = Dialect> {
    let separators = vec![
        FROM,
        "From ",
        "From -",
        "From - Tue Oct 01 09:30:00 2024",
        "From alice@example.org",
        "From 1806429@xxx Mon Jan 01 00:00:00 +0000 2024",
        "From alice at example.org  Tue Oct  1 09:30:00 2024",
        "From alice@example.org 2024-10-01T09:30:00Z",
    ];
    let quotes = vec![Quotes::Plain, Quotes::Again, Quotes::Length];
    (select(separators), any::<bool>(), select(vec!["\n", "\r\n", "\r"]), select(quotes)).prop_map(
        |(separator, blank, eol, quotes)| {
            // Without quotes and blank lines, only a length tells where a mail ends.
            Dialect { separator, blank: blank || quotes == Quotes::Length, eol, quotes }
        },
    )
}

/// Mails whose bodies end with a line of text: a blank line at the end looks like one that separates.
fn mails() -> impl Strategy<Value = Vec<String>> {
    let line = select(vec![
        "",
        "text",
        "From here on",
        "From memory it was in May 2019 at 10:30",
        "From ",
        FROM,
        ">From there",
        "Subject: no header",
        "To: nobody",
        "Date: none",
        "\u{feff}",
        "\u{1}\u{1}\u{1}\u{1}",
        "-- ",
        "--b",
    ]);
    vec(("[a-z]{0,5}", vec(line, 0..12)), 1..8).prop_map(|mails| {
        let mail = |(subject, lines): (String, Vec<&str>)| {
            format!("From: {subject}@example.org\nSubject: {subject}\nDate: today\n\n{}\nend\n", lines.join("\n"))
        };
        mails.into_iter().map(mail).collect()
    })
}

/// Pieces that make files which nobody thought of.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => select(vec![
            "\n", "\r\n", "\r", "\0", "\u{feff}", "From ", "From -", FROM, ">From ", "From: a\n", "To: b\n", "Subject: c\r\n",
            "Content-Length: 30\n", " folded\n", "\n\n", "text", "\u{1}\u{1}\u{1}\u{1}", "\u{1}\u{1}\u{1}\u{1}\n",
            "--b\nContent-Type: text/plain\n\n",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..8),
    ];
    vec(piece, 0..80).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn mails_come_apart_as_they_were_joined(dialect in dialects(), mails in mails()) {
        let written: Vec<String> = mails.iter().map(|mail| dialect.write(mail)).collect();
        let file = dialect.join(&written);
        prop_assert_eq!(contents(file.as_bytes()), written);
    }

    #[test]
    fn an_appended_mail_changes_none_before(dialect in dialects(), mails in mails()) {
        let written: Vec<String> = mails.iter().map(|mail| dialect.write(mail)).collect();
        let (whole, part) = (dialect.join(&written), dialect.join(&written[..written.len() - 1]));
        prop_assert_eq!(&cut(whole.as_bytes())[..written.len() - 1], cut(part.as_bytes()));
    }

    #[test]
    fn no_byte_of_any_file_is_lost(file in pieces(), opened: bool) {
        let file = if opened { [FROM.as_bytes(), b"\n", &file].concat() } else { file };
        let mails: Result<Vec<Mail>, MboxError> = Mails::new(&file[..]).collect();
        match mails {
            Ok(mails) if mails.is_empty() => prop_assert!(file.trim_ascii().is_empty() || file == BOM),
            Ok(mails) => proves_whole(file.len() as u64, &mails),
            Err(error) => prop_assert!(matches!(error, MboxError::NotMbox | MboxError::Other(_)) && !opened),
        }
    }

    /// Separators, headers and line ends may lie across the ends of the window.
    #[test]
    fn long_files_are_cut_like_short_ones(
        mails in vec((1..40_usize, 0..200_usize), 40..80),
        eol in select(vec!["\n", "\r\n", "\r"]),
    ) {
        let mail = |(lines, len): &(usize, usize)| {
            let text = format!("{}\n", "x".repeat(len * 10)).repeat(lines * 2);
            format!("From: a\nSubject: b\n\n{text}\nend\n").replace('\n', eol)
        };
        let written: Vec<String> = mails.iter().map(mail).collect();
        let file: String = written.iter().map(|mail| format!("{FROM}{eol}{mail}{eol}")).collect();
        let found = contents(file.as_bytes());
        prop_assert!(found == written, "{} mails of {}", found.len(), written.len());
    }
}

//! Mail as it really is: what people see of old and broken mails. Each case is of a kind that other programs were
//! reported to lose.

use strongroom::content::mail::{facts, is_named_as_mail};
use strongroom::content::text::of_mail;

const HEAD: &str = "From: Ann <ann@example.org>\nTo: bo@example.org\nSubject: S\nDate: Mon, 2 Mar 2026 10:00:00 +0000\n\
    Message-ID: <x@example.org>\nMIME-Version: 1.0\n";

/// Asserts that the text of a mail holds `has` and nothing of `lacks`, and that its facts could be read.
#[track_caller]
fn assert_read(message: impl AsRef<[u8]>, has: &[&str], lacks: &[&str]) {
    let message = message.as_ref();
    let (text, facts) = (of_mail(message, true), facts(message));
    let shown = String::from_utf8_lossy(message).into_owned();
    for has in has {
        assert!(text.contains(has), "{has:?} is not in {text:?} of {shown:?}");
    }
    for lacks in lacks.iter().chain(&["\u{fffd}"]) {
        assert!(!text.contains(lacks), "{lacks:?} is in {text:?} of {shown:?}");
    }
    assert_eq!(facts.subject.as_deref(), Some("S"), "{shown:?}");
    assert_eq!(facts.date, Some(1_772_445_600), "{shown:?}");
}

/// A mail with this behind its header.
fn mail(rest: &str) -> String {
    format!("{HEAD}{rest}")
}

/// A mail with a text and an attachment of these fields.
fn attached(fields: &str) -> String {
    mail(&format!(
        "Content-Type: multipart/mixed; boundary=B\n\n--B\nContent-Type: text/plain\n\nhello\n--B\n\
        Content-Transfer-Encoding: base64\n{fields}\n\nQUJDREVGRw==\n--B--\n"
    ))
}

#[test]
fn lines_end_as_they_like() {
    let message = mail(
        "Content-Type: multipart/mixed; boundary=B\n\n--B\n\nneedle\n--B\nContent-Type: text/html\n\n<p>two</p>\n--B--\n",
    );
    for eol in ["\n", "\r\n", "\r", "\r\r\n"] {
        assert_read(message.replace('\n', eol), &["needle\ntwo\n"], &["--B"]);
    }
    assert_read(
        mail("\nneedle\n").replace("\n\n", "\r\r\n").replace("org>\n", "org>\r").replace("0\n", "0\r"),
        &["needle"],
        &[],
    );
}

#[test]
fn headers_begin_and_end_as_they_like() {
    for before in [
        "",
        "\n\n",
        " \n",
        "From -\n",
        ">From - Mon Mar 02 10:00:00 2026\n",
        " <cut@off>\n",
        "Internet Headers 2.0\n",
        "\u{feff}",
    ] {
        assert_read(format!("{before}{HEAD}\nneedle"), &["Subject: S", "needle"], &["Internet"]);
    }
    for between in ["X-Junk without colon\n", "\u{1}\u{2}junk\n", "X-\u{e9}: a\n", "X-A: a\0b\n", "X-\0B: c\n"] {
        let (first, rest) = HEAD.split_at(HEAD.find("Subject").expect("a subject"));
        assert_read(format!("{first}{between}{rest}\nneedle"), &["Subject: S", "\nneedle"], &["junk", "Junk"]);
    }
    assert_read(mail("Dear all, this is it needle\nmore"), &["\nDear all, this is it needle\nmore"], &[]);
    assert_read(
        mail("Content-Type: multipart/mixed; boundary=B\n--B\nContent-Type: text/html\n\n<p>needle</p>\n--B--"),
        &["\nneedle\n"],
        &["--B", "<p>"],
    );
    let long = format!("X-Long: {}\n", "x".repeat(1 << 20));
    assert_read(format!("{long}{HEAD}Content-Type: text/html\n\n<p>needle"), &["Subject: S", "\nneedle\n"], &[]);
}

#[test]
fn a_mail_in_utf16_is_a_mail() {
    for mark in ["\u{feff}", ""] {
        let message: Vec<u16> = format!("{mark}{HEAD}\nneedle ü").encode_utf16().collect();
        assert_read(message.iter().flat_map(|unit| unit.to_le_bytes()).collect::<Vec<u8>>(), &["needle ü"], &[]);
        assert_read(message.iter().flat_map(|unit| unit.to_be_bytes()).collect::<Vec<u8>>(), &["needle ü"], &[]);
    }
}

#[test]
fn attachments_have_their_names() {
    for (fields, name) in [
        ("Content-Type: a/b; name=\"back.bin\"\nContent-Disposition: attachment; filename=\"\"", "back.bin"),
        ("Content-Disposition: attachment; filename*0*=UTF-8''%E2%98; filename*1*=%83.txt", "☃.txt"),
        ("Content-Disposition: attachment; filename=\"=?UTF-8?Q?=C3?= =?UTF-8?Q?=BC.pdf?=\"", "ü.pdf"),
        ("Content-Type: a/b; name=Ü b.pdf", "Ü b.pdf"),
        ("Content-Disposition: attachment; filename=\"../../etc/passwd\"", "passwd"),
    ] {
        assert_read(attached(fields), &["hello", name, ", 7 bytes"], &[]);
    }
    let raw: Vec<u8> = attached("Content-Type: a/b; name=Gr##e.pdf")
        .bytes()
        .map(|byte| if byte == b'#' { 0xfc } else { byte })
        .collect();
    assert_read(raw, &["Grüüe.pdf"], &[]);
}

#[test]
fn encodings_are_lenient() {
    let text = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: ";
    for (rest, needle) in [
        ("base64;\n\nbmVlZGxlIHfDtnJ0ZXI=", "needle wörter"),
        ("base64 (really)\n\nbmVlZGxlIHfDtnJ0ZXI=", "needle wörter"),
        ("\"quoted-printable\"\n\nneedle w=C3=B6rter ?a=b", "needle wörter ?a=b"),
        ("base64\n\n\n\nbmVl ZGxl\tIHfDtnJ0ZXI", "needle wörter"),
        ("base64\n\nbmVlZGxlIHc=\nw7ZydGVy\n", "needle wörter"),
        ("base64\n\nbmVlZGxl\n______\nThe list\n", "needle\n______\nThe list"),
        ("base64\n\nThis is not encoded at all, needle", "This is not encoded at all, needle"),
        ("base64\n\nbmVlZGxlIMO_w7_Dvz4-Pj8_Pw", "needle ÿÿÿ>>>???"),
    ] {
        assert_read(mail(&format!("{text}{rest}")), &[needle], &[]);
    }
}

#[test]
fn raw_headers_are_in_the_charset_of_the_text() {
    let subject = |bytes: &[u8], rest: &[u8]| facts(&[b"From: a@b.c\nSubject: ", bytes, b"\n", rest].concat()).subject;
    let sjis = b"\x89\xef\x8bc\x82\xcc\x97\\\x92\xe8";
    assert_eq!(subject(sjis, b"Content-Type: text/plain; charset=cp932\n\nx").as_deref(), Some("会議の予定"));
    let text = b"\n\x89\xef\x8bc\x82\xcc\x97\\\x92\xe8\x82\xc9\x82\xc2\x82\xa2\x82\xc4\x8am\x94F\n";
    assert_eq!(subject(sjis, text).as_deref(), Some("会議の予定"));
    assert_eq!(subject(b"Gr\xfc\xdfe", b"\nx").as_deref(), Some("Grüße"));
    assert_eq!(subject("Grüße".as_bytes(), b"Content-Type: text/plain; charset=koi8-r\n\nx").as_deref(), Some("Grüße"));
}

#[test]
fn the_innermost_text_is_found() {
    let mut deep = String::new();
    (0..50).for_each(|at| deep += &format!("Content-Type: multipart/mixed; boundary=b{at}_\n\n--b{at}_\n"));
    assert_read(mail(&format!("{deep}\nneedle")), &["\nneedle\n"], &["--b"]);
    let nested = "Content-Type: message/rfc822\n\nSubject: in\n".repeat(20);
    assert_read(mail(&format!("{nested}\nneedle")), &["\nneedle\n"], &["longer than"]);
    let qp = "Content-Type: message/rfc822\nContent-Transfer-Encoding: quoted-printable\n\n\nSubject: in\n\nneedle";
    assert_read(mail(qp), &["Subject: in", "\nneedle\n"], &[]);
}

#[test]
fn alternatives_and_unended_elements_hide_nothing() {
    let alternative = |plain: &str, html: &str| {
        mail(&format!(
            "Content-Type: multipart/alternative; boundary=a\n\n--a\n\n{plain}\n--a\nContent-Type: text/html\n\n{html}\n--a--\n"
        ))
    };
    let long = "This message needs a reader for web pages. Please use one, or look at our site.";
    assert_read(alternative(long, "<p>Contract number n23 is due.</p>"), &[long, "Contract number n23 is due."], &[]);
    let both = alternative("The same words.", "<p>The <b>same</b> words.</p><p>And one more.</p>");
    assert_read(&both, &["And one more."], &["words.\n\nThe same"]);
    assert_eq!(of_mail(both.as_bytes(), true).matches("same words").count(), 1);
    for html in
        ["<title>T<body><p>needle", "<p>a<iframe src=x><p>needle", "<!-- x --!><p>needle", "<style>p {}<p>needle"]
    {
        assert_read(mail(&format!("Content-Type: text/html\n\n{html}")), &["needle"], &[]);
    }
}

#[test]
fn what_is_named_as_a_mail_is_one() {
    for path in
        ["a.eml", "a/b.EML", "Mail/cur/1700000000.M1P2.host:2,S", "new/1700000000.1.host", "cur/3f/1700000000.1.host"]
    {
        assert!(is_named_as_mail(path.as_bytes()), "{path}");
    }
    for path in ["", ".eml", "eml", "a.txt", "cur/dovecot.index", "Mail/tmp/1700000000.1.host", "a.eml/b"] {
        assert!(!is_named_as_mail(path.as_bytes()), "{path}");
    }
}

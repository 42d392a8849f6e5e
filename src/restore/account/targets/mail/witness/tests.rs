use super::*;
use crate::restore::account::targets::mail::file::FileBytes;
use crate::restore::account::targets::mail::fingerprint::Fingerprint;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

const HEAD: &str = "From: Ann <ann@example.org>\nSubject: S\nMIME-Version: 1.0\n";

fn read(mime: &[u8]) -> Mail {
    Mail::read(mime, None)
}

/// A mail with the text `see` and this part.
fn with_part(part: &str) -> String {
    format!(
        "{HEAD}Content-Type: multipart/mixed; boundary=BB\n\n--BB\nContent-Type: text/plain\n\nsee\n--BB\n{part}\n--BB--\n"
    )
}

fn bytes() -> Vec<u8> {
    (0..=255_u8).cycle().take(2048).chain(*b"END!").collect()
}

fn attachment(content: &str) -> String {
    with_part(&format!(
        "Content-Type: application/octet-stream; name=a.bin\nContent-Disposition: attachment; filename=a.bin\n\
        Content-Transfer-Encoding: base64\n\n{content}"
    ))
}

fn set_bytes(file: &mut File, bytes: &[u8]) {
    file.fingerprint = Fingerprint::of(bytes);
    file.bytes = FileBytes::Kept(bytes.to_vec().into());
}

#[track_caller]
fn assert_right(mime: impl AsRef<[u8]>) {
    let mime = mime.as_ref();
    assert_eq!(objection(mime, &read(mime)), None, "{}", String::from_utf8_lossy(mime));
}

/// Asserts that an attachment with these bytes is not taken for the one of `mime`.
#[track_caller]
fn assert_wrong_file(mime: &str, wrong: &[u8]) {
    let mut mail = read(mime.as_bytes());
    assert_eq!(objection(mime.as_bytes(), &mail), None, "{mime}");
    set_bytes(&mut mail.files[0], wrong);
    assert!(objection(mime.as_bytes(), &mail).is_some(), "{mime}");
}

#[track_caller]
fn assert_wrong_text(mime: &str, wrong: &str) {
    let mut mail = read(mime.as_bytes());
    assert_eq!(objection(mime.as_bytes(), &mail), None, "{mime}");
    let kind = if mail.html { "html" } else { "text" };
    mail.properties.insert("body".to_owned(), json!({ "contentType": kind, "content": wrong }));
    assert!(objection(mime.as_bytes(), &mail).is_some(), "{mime}");
}

#[test]
fn an_attachment_is_not_its_own_base64_text() {
    let text = STANDARD.encode(bytes());
    let lines: Vec<_> = text.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let lines = lines.join("\n");
    for content in [
        lines.clone(),
        format!("{lines}\n\n_____\nlist footer"),
        lines.replacen("MTIz", "MT\0Iz", 1),
        lines.replacen("MTIz", "MT!Iz", 1),
        lines.replace('\n', " \n"),
        format!("{lines}===="),
        lines.trim_end_matches('=').to_owned(),
    ] {
        assert_wrong_file(&attachment(&content), content.as_bytes());
    }
}

#[test]
fn an_attachment_is_whole() {
    for len in [1, 2, 3, 100, 1000, 2051] {
        let whole = bytes();
        for content in [STANDARD.encode(&whole[..len]), STANDARD.encode(&whole[..len]).replace('=', "")] {
            assert_wrong_file(&attachment(&content), &whole[..len - 1]);
            assert_wrong_file(&attachment(&content), &whole[..len / 3 * 2]);
        }
    }
    let joined = format!("{}\n{}", STANDARD.encode(&bytes()[..1000]), STANDARD.encode(&bytes()[1000..]));
    assert_wrong_file(&attachment(&joined), &bytes()[..1000]);
    let csv = "id,opt\n1,use --BB to build\n--BBB\n2,last row";
    let mime = with_part(&format!("Content-Type: text/csv; name=a.csv\nContent-Disposition: attachment\n\n{csv}"));
    for cut in ["id,opt\n1,use ", "id,opt\n1,use --BB to build"] {
        assert_wrong_file(&mime, cut.as_bytes());
    }
}

#[test]
fn a_text_is_whole() {
    let inside = format!(
        "{HEAD}Content-Type: multipart/mixed; boundary=BB\n\n--BB\n\nrun make --BB first\nand pay LASTLINE\n--BB--\n"
    );
    assert_wrong_text(&inside, "run make ");
    assert_wrong_text(&inside, "and pay LASTLINE");
    assert_wrong_text(&inside, "");
    let quoted = format!("{HEAD}Content-Transfer-Encoding: quoted-printable\n\nK=C3=B6ln a=b LASTLINE\n");
    for wrong in ["Köln a", "K=C3=B6ln a=b LASTLINE", "K\u{fffd}ln a=b LASTLINE", "Kln a=b LASTLINE"] {
        assert_wrong_text(&quoted, wrong);
    }
    let footer = format!(
        "{HEAD}Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\nR3LDvMOfZQ==\n\n__\nThe list\n"
    );
    assert_wrong_text(&footer, "R3LDvMOfZQ==\n\n__\nThe list\n");
    assert_wrong_text(&footer, "Grüße");
}

#[test]
fn nothing_is_missing_added_or_called_otherwise() {
    let two = with_part(
        "Content-Type: a/b; name=\"=?utf-8?Q?=C3=BC?=.pdf\"\n\nx\n--BB\nContent-Disposition: attachment;\n filename*=utf-8''b%20c\n\ny",
    );
    let right = || read(two.as_bytes());
    assert_eq!(objection(two.as_bytes(), &right()), None);
    let mut mail = right();
    mail.files[0].name = "u.pdf".to_owned();
    assert_eq!(
        objection(two.as_bytes(), &mail).as_deref(),
        Some(
            "two ways of reading it differ, so nothing was made of it: \"ü.pdf\" of 1 bytes would be attached as \"u.pdf\""
        )
    );
    let mut mail = right();
    let (a, b) = mail.files.split_at_mut(1);
    std::mem::swap(&mut a[0].name, &mut b[0].name);
    assert!(objection(two.as_bytes(), &mail).is_some());
    let mut mail = right();
    mail.files.pop();
    assert_eq!(
        objection(two.as_bytes(), &mail).as_deref(),
        Some(
            "two ways of reading it differ, so nothing was made of it: its part 4 (text/plain, \"b c\", 1 bytes) is neither in the text nor attached"
        )
    );
    let mut mail = right();
    let more = mail.files[0].clone();
    mail.files.push(more);
    assert!(objection(two.as_bytes(), &mail).is_some());
}

#[test]
fn odd_mail_that_is_read_right_is_right() {
    let mixed = "Content-Type: multipart/mixed; boundary=";
    for rest in [
        "\ntext".to_owned(),
        String::new(),
        "text without an empty line\nmore".to_owned(),
        format!("{mixed}BB\n\n--BB--\n\n--BB\n\nb\n--BB--\n"),
        format!("{mixed}BB\n\n--BB--\nrest\n"),
        format!("{mixed}BB\n\nnothing\n"),
        format!("{mixed}BB\n\n--BB\n\na\n--BB\n--BB\n\nb"),
        format!("{mixed}foo\n\n--foo\n{mixed}foo_bar\n\n--foo_bar\n\na\n--foo_bar--\n--foo\n\nb\n--foo--\n"),
        format!("{mixed}foo\n\n--foo\n{mixed}foo--\n\n--foo--\n\na\n--foo----\n--foo\n\nb\n--foo--\n"),
        format!("{mixed}foo\n\n--foo\n{mixed}foo\n\n--foo\n\na\n--foo--\n--foo\n\nb\n--foo--\n"),
        format!("{mixed}out\n\n--out\n{mixed}in\n\n--in\n\na\n--out\n\nb"),
        format!("{mixed}abc\n\n--xyz\nContent-Type: text/plain\n\na\n--xyz--\n"),
        "Content-Type: multipart/mixed\n\n--xyz\nContent-Type: text/plain\n\na\n--xyz\n\nb\n--xyz--\n".to_owned(),
        "\nThis is MIME\n--xyz\nContent-Type: text/plain\n\na\n--xyz--\n".to_owned(),
        format!("{mixed}B\n--B\nContent-Type: text/plain\n\na\n--B--"),
        format!("{mixed}BB\nContent-Type: text/plain\n\n--BB\n\na\n--BB--\n"),
        format!("{mixed}b\n\n--b\nContent-Type: message/rfc822\n\nSubject: in\n{mixed}b\n\n--b\n\nx\n--b\n\ny\n--b--\n\n--b\n\nlast\n--b--\n"),
        "Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: a\n\nx\n--b\n\nSubject: c\n\ny\n--b--\n".to_owned(),
        "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogYQoKYg==\n".to_owned(),
        "Content-Type: multipart/alternative; boundary=b\n\n--b\n\nplain\n--b\nContent-Type: text/html\n\n<p>other</p>\n--b--\n".to_owned(),
        "Content-Type: multipart/signed; boundary=b;\n protocol=\"application/pkcs7-signature\"\n\n--b\n\nSigned\n--b\n\
            Content-Type: application/pkcs7-signature\n\nx\n--b--\n".to_owned(),
        "Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: base64\n\nLS1iCgpvbmUKLS1iCkNvbnRlbnQtVHlwZTogYS9iCgp0d28KLS1iLS0K\n".to_owned(),
        "Content-Type: multipart/mixed; boundary=\"=b\"\nContent-Transfer-Encoding: quoted-printable\n\n\
            --=3Db\n\none=\n two\n--=3Db--\n".to_owned(),
        "Content-Type: application/pkcs7-mime; name=smime.p7m\nContent-Transfer-Encoding: base64\n\nAAEC\n".to_owned(),
    ] {
        for eol in ["\n", "\r\n", "\r", "\r\r\n"] {
            assert_right(format!("{HEAD}{rest}").replace('\n', eol));
        }
    }
}

use super::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

/// Returns the bytes of a small file.
fn kept(file: &File) -> &[u8] {
    match &file.bytes {
        FileBytes::Kept(bytes) => bytes,
        elsewhere => panic!("{elsewhere:?}"),
    }
}

#[test]
fn a_multipart_that_is_encoded_as_a_whole_has_its_parts() {
    let inner = "--b\r\nContent-Type: text/plain\r\n\r\nneedle\r\n--b\r\nContent-Type: a/b; name=plan.pdf\r\n\
        Content-Transfer-Encoding: base64\r\n\r\nQUJDREVGRw==\r\n--b--\r\n";
    let mime = format!(
        "Subject: S\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n",
        STANDARD.encode(inner)
    );
    let mail = Mail::read(mime.as_bytes(), None);
    assert_eq!(mail.properties["body"]["content"], "needle");
    let files: Vec<_> = mail.files.iter().map(|file| (&*file.name, kept(file))).collect();
    assert_eq!(files, [("plan.pdf", &b"ABCDEFG"[..])]);
}

#[test]
fn of_many_large_files_few_bytes_stay_and_the_others_are_read_again() {
    let contents: Vec<Vec<u8>> = (0..6u8).map(|n| vec![n; (1 << 20) + usize::from(n)]).collect();
    let mut mime = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n".to_owned();
    for (n, content) in contents.iter().enumerate() {
        let text = STANDARD.encode(content);
        let lines: String =
            text.as_bytes().chunks(76).map(|line| format!("{}\r\n", str::from_utf8(line).unwrap())).collect();
        mime += &format!(
            "--b\r\nContent-Type: application/x; name=f{n}\r\nContent-Transfer-Encoding: base64\r\n\r\n{lines}"
        );
    }
    mime += "--b--\r\n";
    let mail = Mail::read(mime.as_bytes(), None);
    assert_eq!(mail.files.len(), contents.len());
    let mut kept_bytes = 0;
    for (file, content) in mail.files.iter().zip(&contents) {
        assert_eq!(file.fingerprint, Fingerprint::of(content));
        let bytes = match &file.bytes {
            FileBytes::Kept(bytes) => {
                kept_bytes += file.len();
                bytes.clone()
            }
            FileBytes::InMail { prefix, range, encoding } => {
                FileBytes::decode(prefix, *encoding, &mime.as_bytes()[range.clone()])
            }
        };
        assert!(bytes == content, "{}", file.name);
    }
    assert!((1..=KEPT_BYTES_MAX).contains(&kept_bytes), "{kept_bytes}");
    assert_eq!(mail.request().unwrap().files_left, 4, "two of a megabyte fit into a request");
}

fn stored(properties: &Value) -> Stored {
    serde_json::from_str(&properties.to_string()).expect("a message")
}

fn extended<'a>(mail: &'a Mail, id: &str) -> Option<&'a str> {
    let all = mail.properties["singleValueExtendedProperties"].as_array()?;
    all.iter().find(|property| property["id"] == id)?["value"].as_str()
}

#[test]
fn what_the_service_said_is_told_again_and_nothing_that_it_decides() {
    let said = json!({
        "id": "AAMk", "changeKey": "x", "subject": "Budget", "isRead": false, "isDraft": false,
        "receivedDateTime": "2026-11-01T09:30:07Z", "sentDateTime": "2026-11-01T09:30:00Z", "webLink": "https://x",
        "createdDateTime": "2026-11-01T09:30:08Z", "importance": "high", "categories": ["Red"],
        "flag": {"flagStatus": "flagged", "dueDateTime": null}, "isReadReceiptRequested": true,
        "replyTo": [{"emailAddress": {"name": "x", "address": "nobody"}}, {"emailAddress": {"address": "a@b.c"}}],
        "singleValueExtendedProperties": [{"id": "Integer 0x1081", "value": "102"}],
    });
    let mail = Mail::read(b"Subject: Old\r\nReceived: from a\r\n\r\nText\r\n", Some(&stored(&said)));
    for gone in ["id", "changeKey", "webLink", "createdDateTime", "receivedDateTime", "sentDateTime", "isDraft"] {
        assert!(!mail.properties.contains_key(gone), "{gone}");
    }
    assert_eq!(mail.properties["subject"], "Budget");
    assert_eq!(mail.properties["flag"], json!({"flagStatus": "flagged"}));
    assert_eq!(mail.properties["replyTo"].as_array().map(Vec::len), Some(1));
    assert_eq!(mail.properties["isReadReceiptRequested"], true);
    assert_eq!(extended(&mail, "Integer 0x0E07"), Some("0"));
    assert_eq!(extended(&mail, "SystemTime 0x0E06"), Some("2026-11-01T09:30:07Z"));
    assert_eq!(extended(&mail, "SystemTime 0x0039"), Some("2026-11-01T09:30:00Z"));
    assert_eq!(extended(&mail, "Integer 0x1081"), Some("102"));
    assert_eq!(extended(&mail, "String 0x007D").map(str::trim), Some("Subject: Old\r\nReceived: from a"));
    assert_eq!(mail.properties["body"]["content"], "Text\r\n");
}

#[test]
fn drafts_stay_drafts_and_receipts_are_not_asked_for_again() {
    let draft = stored(&json!({"id": "a", "isDraft": true, "isRead": true, "isReadReceiptRequested": true}));
    let mail = Mail::read(b"Subject: a\r\n\r\nb", Some(&draft));
    assert!(mail.is_draft());
    assert_eq!((extended(&mail, "Integer 0x0E07"), extended(&mail, "String 0x007D")), (Some("9"), None));
    let read = stored(&json!({"id": "a", "isDraft": false, "isRead": true, "isReadReceiptRequested": true}));
    assert!(!Mail::read(b"", Some(&read)).properties.contains_key("isReadReceiptRequested"));
}

#[test]
fn everything_that_is_attached_comes_along() {
    let mime = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>Hi</p>\r\n--b\r\n\
        Content-Type: image/png\r\nContent-ID: <logo>\r\nContent-Disposition: inline\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC\r\n--b\r\n\
        Content-Type: text/plain; charset=iso-8859-1; name=a.txt\r\nContent-Disposition: attachment\r\n\
        Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=FC=DFe\r\n--b\r\n\
        Content-Type: message/rfc822\r\n\r\nSubject: Inner\r\n\r\nDeep\r\n--b\r\nContent-Type: text/plain\r\n\r\nTail\r\n--b--\r\n";
    let mail = Mail::read(mime, None);
    assert_eq!(mail.properties["body"]["content"], "<p>Hi</p>");
    let files: Vec<_> = mail.files.iter().map(|file| (file.name.as_str(), &*file.content_type, kept(file))).collect();
    assert_eq!(
        files,
        [
            ("ATT00000", "image/png", &b"\0\x01\x02"[..]),
            ("a.txt", "text/plain; charset=iso-8859-1", b"Gr\xfc\xdfe"),
            ("Inner.eml", "message/rfc822", b"Subject: Inner\r\n\r\nDeep"),
            ("ATT00003.txt", "text/plain", b"Tail"),
        ]
    );
    assert_eq!((mail.files[0].inline, mail.files[0].content_id.as_deref()), (true, Some("logo")));
}

#[test]
fn the_plain_form_of_a_text_is_no_attachment() {
    let mime =
        b"Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nHi\r\n--b\r\n\
        Content-Type: text/html\r\n\r\n<p>Hi</p>\r\n--b--\r\n";
    let mail = Mail::read(mime, None);
    assert!(mail.html && mail.files.is_empty());
}

#[test]
fn what_is_signed_is_one_entity_byte_for_byte() {
    let body = "--b\r\nContent-Type: text/plain\r\n\r\nSigned  \r\n--b\r\nContent-Type: application/pkcs7-signature\r\n\r\nx\r\n--b--\r\n";
    let mime = format!(
        "Subject: s\r\nContent-Type: multipart/signed;\r\n\tprotocol=\"application/pkcs7-signature\"; boundary=b\r\n\r\n{body}"
    );
    let mail = Mail::read(mime.as_bytes(), None);
    let entity = format!(
        "Content-Type: multipart/signed;\r\n\tprotocol=\"application/pkcs7-signature\"; boundary=b\r\n\r\n{body}"
    );
    assert_eq!(mail.files.len(), 1);
    assert_eq!(String::from_utf8_lossy(kept(&mail.files[0])), entity);
    assert_eq!(extended(&mail, "String 0x001A"), Some("IPM.Note.SMIME.MultipartSigned"));
    assert_eq!(mail.properties["body"]["content"], "Signed  ");
    let sealed = b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m\r\n\
        Content-Transfer-Encoding: base64\r\n\r\nAAEC\r\n";
    let mail = Mail::read(sealed, None);
    assert_eq!(extended(&mail, "String 0x001A"), Some("IPM.Note.SMIME"));
    assert_eq!(kept(&mail.files[0]), b"\0\x01\x02");
    assert_eq!(mail.files[0].content_type, "application/pkcs7-mime; smime-type=enveloped-data");
}

#[test]
fn a_request_is_never_too_long() {
    let part = |name: &str, len: usize| {
        let bytes = STANDARD.encode(vec![7; len]);
        format!(
            "--b\r\nContent-Type: application/pdf; name={name}\r\nContent-Disposition: attachment\r\n\
            Content-Transfer-Encoding: base64\r\n\r\n{bytes}\r\n"
        )
    };
    let parts = [part("a", 1_000_000), part("b", 5_000_000), part("c", 10)].concat();
    let mail =
        Mail::read(format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{parts}--b--\r\n").as_bytes(), None);
    let request = mail.request().expect("a request");
    assert!(serde_json::to_vec(&request.properties).unwrap().len() <= REQUEST_BYTES_MAX);
    assert_eq!(request.properties["attachments"].as_array().map(Vec::len), Some(1));
    let left: Vec<_> = mail.files[mail.files.len() - request.files_left..].iter().map(|file| &*file.name).collect();
    assert_eq!(left, ["b", "c"]);
    let long = format!("Subject: a\r\n\r\n{}", "x".repeat(REQUEST_BYTES_MAX));
    assert!(Mail::read(long.as_bytes(), None).request().is_err());
}

/// Returns the name and the bytes of the attachment of a mail whose part is `part`.
fn only_file(part: &str) -> (String, Vec<u8>) {
    let mime = format!(
        "Subject: s\r\nContent-Type: multipart/mixed; boundary=BB\r\n\r\n--BB\r\nContent-Type: text/plain\r\n\r\nsee\r\n--BB\r\n{part}"
    );
    let mail = Mail::read(mime.as_bytes(), None);
    assert_eq!(mail.properties["body"]["content"], "see", "{mime:?}");
    let [file] = &mail.files[..] else { panic!("{} files of {mime:?}", mail.files.len()) };
    (file.name.clone(), kept(file).to_vec())
}

#[test]
fn broken_attachments_come_back_whole() {
    let bytes: Vec<u8> = (0..=255_u8).cycle().take(2048).chain(*b"END!").collect();
    let lines = |width: usize, eol: &str| {
        let text = STANDARD.encode(&bytes);
        text.as_bytes()
            .chunks(width)
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect::<Vec<_>>()
            .join(eol)
    };
    let head = "Content-Type: application/octet-stream; name=a.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n";
    let end = "\r\n--BB--\r\n";
    for encoded in [
        lines(76, "\r\n") + end,
        lines(76, " \r\n") + end,
        lines(76, "\r\n") + "====" + end,
        lines(76, "\r\n").trim_end_matches('=').to_owned() + end,
        lines(76, "\r\n").replacen("MTIz", "MT\0Iz", 1) + end,
        lines(76, "\r\n").replacen("MTIz", "MT!Iz", 1) + end,
        lines(76, "\r\n") + "\r\n\r\n_____\r\nlist footer" + end,
        lines(76, "\r\n"),
        STANDARD.encode(&bytes[..1000]) + "\r\n" + &STANDARD.encode(&bytes[1000..]) + end,
    ] {
        let (name, found) = only_file(&format!("{head}{encoded}"));
        assert!(name == "a.bin" && found == bytes, "{} bytes of {encoded:?}", found.len());
    }
    let csv = "id,opt\r\n1,use --BB to build\r\n--BBB\r\n2,last row";
    let part = format!("Content-Type: text/csv; name=a.bin\r\nContent-Disposition: attachment\r\n\r\n{csv}{end}");
    assert_eq!(only_file(&part), ("a.bin".to_owned(), csv.as_bytes().to_vec()));
    let torn = "Content-Disposition: attachment; filename*0*=UTF-8''Rechnung%20f%C3;\r\n filename*1*=%BCr.pdf\r\n\r\nx\r\n--BB--";
    assert_eq!(only_file(torn), ("Rechnung für.pdf".to_owned(), b"x".to_vec()));
}

#[test]
fn texts_come_back_to_their_last_letter() {
    let body = |head: &str, body: &[u8]| {
        let mime = [format!("Subject: s\r\n{head}\r\n\r\n").as_bytes(), body].concat();
        Mail::read(&mime, None).properties["body"]["content"].as_str().unwrap_or_default().to_owned()
    };
    let base64 = "Content-Type: text/plain; charset=cp932\r\nContent-Transfer-Encoding: base64";
    assert_eq!(body(base64, b"k/qWe4zq\r\n"), "日本語");
    assert_eq!(body("Content-Type: text/plain", b"Gr\xfc\xdfe aus K\xf6ln"), "Grüße aus Köln");
    let footer = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64";
    assert_eq!(body(footer, b"R3LDvMOfZQ==\r\n____\r\nlist\r\n"), "Grüße\r\n____\r\nlist\r\n");
    let quoted = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable";
    assert_eq!(body(quoted, b"K=C3=B6ln a=b LASTLINE"), "Köln a=b LASTLINE");
    let inside = "Content-Type: multipart/mixed; boundary=BB";
    assert_eq!(body(inside, b"--BB\r\n\r\nmake --BB first\r\nLASTLINE\r\n--BB--"), "make --BB first\r\nLASTLINE");
}

#[test]
fn what_cannot_be_told_apart_is_not_made() {
    let many = format!("Content-Type: multipart/mixed; boundary=b\n\n{}", "--b\n\nx\n".repeat(2 * PARTS_MAX));
    assert!(Mail::read(many.as_bytes(), None).request().is_err());
}

proptest! {
    #[test]
    fn anything_becomes_a_mail(bytes: Vec<u8>, text in "(Content-Type: (multipart/(mixed|signed); boundary=b|text/html|message/rfc822)|From: .{0,20})\r\n\r\n(--b\r\n.{0,40}){0,4}") {
        for mime in [bytes, text.into_bytes()] {
            prop_assert!(Mail::read(&mime, None).request().is_ok());
        }
    }
}

use super::*;
use proptest::prelude::*;
use serde_json::json;

const ID: &str = "<a.1@example.com>";
const MAIL: &str = "Received: from a by b; Mon, 2 Nov 2026 09:30:07 +0000\r\nFrom: Alice Smith <alice@contoso.com>\r\n\
    To: bob@contoso.com\r\nSubject: Minutes of Monday\r\nDate: Mon, 2 Nov 2026 10:30:00 +0100\r\nMessage-ID: <a.1@example.com>\r\n\r\nHello\r\n";
const OTHER: &str = "From: Carol <carol@contoso.com>\r\nSubject: Lunch\r\nDate: Tue, 3 Nov 2026 12:00:00 +0000\r\n\
    Message-ID: <b.2@example.com>\r\n\r\nYes\r\n";

fn told(change: impl FnOnce(&mut Value)) -> Expected {
    let mut row = json!({
        "id": "AAMk", "subject": "Minutes of Monday", "internetMessageId": ID, "isDraft": false,
        "from": {"emailAddress": {"name": "Alice Smith", "address": "alice@contoso.com"}},
        "sentDateTime": "2026-11-02T09:30:00Z", "receivedDateTime": "2026-11-02T09:30:07Z",
        "createdDateTime": "2026-11-02T09:30:08Z",
    });
    change(&mut row);
    Expected::message(&serde_json::from_value(row).unwrap())
}

fn judged(expected: &Expected, bytes: impl AsRef<[u8]>) -> Verdict {
    expected.judge(&Seen::of(bytes.as_ref()))
}

fn size(bytes: u64) -> Value {
    json!([{"id": "Integer 0xe08", "value": bytes.to_string()}])
}

#[test]
fn an_answer_that_is_something_else_is_wrong() {
    for answer in [
        "",
        "{}",
        r#"{"error":{"code":"UnknownError","message":""}}"#,
        "<!DOCTYPE html>\r\n<html><body>Sign in</body></html>",
        "\r\n  <html>\n\n</html>",
        "Service unavailable",
        "Error: backend is down\n",
        OTHER,
    ] {
        // These bytes are wrong for any row, also for that of a draft or of a message without a Message-ID.
        let drafts = |row: &mut Value| (row["isDraft"], row["internetMessageId"]) = (true.into(), Value::Null);
        for expected in [told(|_| {}), told(|row| row["internetMessageId"] = Value::Null), told(drafts)] {
            assert!(
                matches!(judged(&expected, answer), Verdict::Wrong(_)),
                "{answer}: {:?}",
                judged(&expected, answer)
            );
        }
    }
}

#[test]
fn the_message_is_right_however_it_is_written() {
    let right = |expected: &Expected, mail: &str| assert_eq!(judged(expected, mail), Verdict::Right, "{mail}");
    let plain = told(|_| {});
    right(&plain, MAIL);
    right(&plain, &MAIL.replace('\r', ""));
    // Ids with blanks, with other brackets, folded, in another case, twice, and none.
    for id in ["<a.1@example.com >", "a.1@example.com", "\r\n <a.1@\r\n\texample.com>", "<A.1@Example.COM>"] {
        right(&plain, &MAIL.replace(ID, id));
    }
    right(&plain, &MAIL.replace("Subject:", "Message-ID: <made.by@relay>\r\nSubject:"));
    right(&plain, &MAIL.replace("Message-ID: <a.1@example.com>\r\n", ""));
    right(&told(|row| row["internetMessageId"] = json!(" a.1@example.com ")), MAIL);
    let long = format!("<{}@example.com>", "x".repeat(300));
    right(&told(|row| row["internetMessageId"] = json!(&long[..255])), &MAIL.replace(ID, &long));
    // Without any id: subjects encoded, folded, in another charset, with a prefix, cut and damaged; addresses inside
    // the organisation.
    let drop_id = |row: &mut Value| row["internetMessageId"] = Value::Null;
    let nameless = told(drop_id);
    for subject in
        ["=?utf-8?Q?Minutes?=\r\n =?utf-8?Q?_of_Monday?=", "Minutes\r\n\tof  Monday", "AW: Minutes of Monday"]
    {
        right(&nameless, &MAIL.replace("Minutes of Monday", subject));
    }
    let umlaut = told(|row| (row["internetMessageId"], row["subject"]) = (Value::Null, json!("Gr\u{fffd}\u{fffd}e")));
    right(&umlaut, &MAIL.replace("Minutes of Monday", "=?iso-8859-1?Q?Gr=FC=DFe?="));
    let organisation = told(|row| {
        drop_id(row);
        row["from"]["emailAddress"] =
            json!({"name": "Smith, A.", "address": "/o=ExchangeLabs/ou=x/cn=Recipients/cn=1-alice"});
    });
    right(&organisation, MAIL);
    // A subject that the list lacks, dates that only the receiver knows, a sender on behalf of another.
    right(&told(|row| (row["internetMessageId"], row["subject"]) = (Value::Null, json!(""))), MAIL);
    right(&nameless, &MAIL.replace("Date: Mon, 2 Nov 2026 10:30:00 +0100\r\n", "Date: soon\r\n"));
    right(&nameless, &MAIL.replace("From: Alice", "Sender: <desk@contoso.com>\r\nFrom: Alice"));
    right(&told(|row| (row["isDraft"], row["sentDateTime"]) = (true.into(), json!("2026-11-09T00:00:00Z"))), MAIL);
    // A row that says nothing, and bytes that say nothing.
    let bare = |row: &mut Value| {
        *row = json!({"id": "x", "subject": "", "createdDateTime": "2026-11-02T09:30:08Z", "receivedDateTime": "2026-11-02T09:30:08Z"});
    };
    right(&told(bare), "X-Odd: yes\r\n\r\n<html>");
}

#[test]
fn an_odd_answer_is_accepted_when_it_comes_again() {
    let odd: Vec<(Expected, String)> = vec![
        // Another id, although everything else agrees.
        (told(|_| {}), MAIL.replace(ID, "<c.3@example.com>")),
        (told(|row| (row["internetMessageId"], row["subject"]) = (Value::Null, json!("Rewritten"))), MAIL.to_owned()),
        // No bytes, for a row that says nothing.
        (
            told(|row| *row = json!({"id": "x", "subject": "", "createdDateTime": "2026-11-02T09:30:08Z"})),
            String::new(),
        ),
        // Multiparts that are not closed, and a header without a body.
        (told(|_| {}), MAIL.replace("\r\n\r\n", "\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\n")),
        (told(|_| {}), MAIL.replace("\r\n\r\nHello\r\n", "\r\n")),
    ];
    for (mut expected, mail) in odd {
        let seen = Seen::of(mail.as_bytes());
        assert!(matches!(expected.judge(&seen), Verdict::Doubtful(_)), "{:?} {mail}", expected.judge(&seen));
        assert!(expected.accept(&seen).is_err());
        // A wrong answer between two doubtful ones makes them no more certain.
        assert!(expected.accept(&Seen::of(b"{}")).is_err());
        assert!(expected.accept(&seen).is_err());
        assert_eq!(expected.accept(&seen), Ok(()));
    }
}

#[test]
fn neighbours_of_a_thread_are_told_apart() {
    // The same subject and another sender; the same sender and another subject; both the same and another id.
    let nameless = told(|row| row["internetMessageId"] = Value::Null);
    let answer = "From: Bob <bob@contoso.com>\r\nSubject: AW: Minutes of Monday\r\nDate: Mon, 2 Nov 2026 11:41:00 +0000\r\n\r\nx";
    let next =
        "From: alice@contoso.com\r\nSubject: Minutes of Tuesday\r\nDate: Tue, 3 Nov 2026 09:30:00 +0000\r\n\r\nx";
    for mail in [answer, next] {
        assert!(matches!(judged(&nameless, mail), Verdict::Wrong(_)), "{mail}");
    }
    let burst = MAIL
        .replace(ID, "<a.2@example.com>")
        .replace("10:30:00 +0100", "10:35:00 +0100")
        .replace("09:30:07", "09:35:07");
    assert!(matches!(judged(&told(|_| {}), burst), Verdict::Wrong(_)));
    // Two ids with the same beginning are not one id that was cut.
    let similar = told(|row| row["internetMessageId"] = json!("<a.11@example.com>"));
    assert_ne!(judged(&similar, MAIL), Verdict::Right);
}

#[test]
fn a_message_that_was_cut_off_is_noticed() {
    let part = "A line of a part.\r\n".repeat(10_000);
    let mail = MAIL.replace(
        "\r\n\r\nHello\r\n",
        &format!(
            "\r\nContent-Type: multipart/mixed;\r\n\tboundary=\"=_x y\"\r\n\r\n--=_x y\r\n\r\n{part}\r\n--=_x y--\r\n"
        ),
    );
    let expected = told(|row| row["singleValueExtendedProperties"] = size(mail.len() as u64));
    assert_eq!(judged(&expected, &mail), Verdict::Right);
    assert_eq!(judged(&expected, format!("{mail}what a list adds\r\n")), Verdict::Right);
    assert_eq!(judged(&expected, &mail[..mail.len() / 3]), Verdict::Wrong("it was cut off"));
    assert!(matches!(judged(&expected, &mail[..mail.len() - 9]), Verdict::Doubtful(_)));
}

#[test]
fn attachments_are_compared_by_what_is_known_of_them() {
    let pdf = json!({"name": "a.pdf", "contentType": "application/pdf", "size": 300_000});
    let html = json!({"name": "a.html", "contentType": "text/html", "size": 900});
    let nested = json!({"@odata.type": "#microsoft.graph.itemAttachment", "name": "Lunch", "size": 900});
    let judge = |properties: &Value, bytes: &[u8]| judged(&Expected::attachment(properties), bytes);
    let error = br#"{"error":{"code":"UnknownError"}}"#;
    assert_eq!(judge(&pdf, &vec![b'x'; 299_000]), Verdict::Right);
    for answer in [&b""[..], error, b"<html></html>"] {
        assert!(matches!(judge(&pdf, answer), Verdict::Wrong(_)));
        assert!(matches!(judge(&nested, answer), Verdict::Wrong(_) | Verdict::Doubtful(_)));
    }
    assert!(matches!(judge(&pdf, &vec![b'x'; 100_000]), Verdict::Doubtful(_)));
    assert!(matches!(judge(&nested, error), Verdict::Wrong(_)));
    assert_eq!(judge(&html, b"<html></html>"), Verdict::Right);
    assert_eq!(judge(&nested, OTHER.as_bytes()), Verdict::Right);
    assert_eq!(judge(&json!({}), b""), Verdict::Right);
}

#[test]
fn streams_and_ids_are_compared() {
    assert_eq!(judged(&Expected::stream(), b"\x01\x02"), Verdict::Right);
    assert!(matches!(judged(&Expected::stream(), b""), Verdict::Wrong(_)));
    assert!(matches!(judged(&Expected::stream(), b"<html>"), Verdict::Wrong(_)));
    assert_eq!(Expected::id("AAMk/+a==", "AAMk-_a"), Ok(()));
    assert!(Expected::id("AAMka", "AAMkA").is_err(), "ids have cases");
    assert!(Expected::id("AAMka", "").is_err());
}

#[test]
fn a_photo_is_a_picture_with_an_end() {
    let photos: [&[u8]; 3] = [b"\xff\xd8\xff\xe0 \r\n\r\n \xff\xd9", b"\x89PNG..IEND\xae\x42\x60\x82", b"GIF89a;"];
    for photo in photos {
        assert_eq!(judged(&Expected::photo(), photo), Verdict::Right);
        assert!(matches!(judged(&Expected::photo(), &photo[..photo.len() - 1]), Verdict::Doubtful(_)), "it is cut off");
    }
    assert!(matches!(judged(&Expected::photo(), b""), Verdict::Doubtful(_)));
    assert!(matches!(judged(&Expected::photo(), b"something"), Verdict::Doubtful(_)));
    for answer in ["{}", "{\"error\":{}}", "<!DOCTYPE html>"] {
        assert!(matches!(judged(&Expected::photo(), answer), Verdict::Wrong(_)), "{answer}");
    }
    let mut expected = Expected::photo();
    assert!(expected.accept(&Seen::of(b"odd")).is_err());
    assert_eq!(expected.accept(&Seen::of(b"odd")), Ok(()), "the service means it");
}

proptest! {
    /// The verdict is the same for a message in pieces and as a whole.
    #[test]
    fn the_verdict_does_not_depend_on_the_pieces(cuts in prop::collection::vec(1usize..90, 1..30), which in 0usize..4) {
        let open = MAIL.replace("\r\n\r\n", "\r\nContent-Type: multipart/mixed; boundary=\"--a\"\r\n\r\n----a\r\n\r\n");
        let closed = format!("{open}----a--\r\n");
        let mail = [MAIL, OTHER, &open, &closed][which];
        let mut seen = Seen::default();
        let (mut rest, mut cuts) = (mail.as_bytes(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*cuts.next().expect("endless")));
            seen.push(piece);
            rest = after;
        }
        let expected = told(|_| {});
        prop_assert_eq!(expected.judge(&seen), judged(&expected, mail));
        prop_assert_eq!(seen.len(), mail.len() as u64);
    }

    #[test]
    fn any_bytes_are_judged_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        at: prop::sample::Index,
    ) {
        let expected = told(|_| {});
        let _ = judged(&expected, &bytes);
        let mut mail = MAIL.as_bytes().to_vec();
        let at = at.index(mail.len());
        mail.splice(at..at, bytes);
        let _ = judged(&expected, &mail);
    }
}

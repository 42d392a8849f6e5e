use super::*;
use crate::content::testing::processor_time;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::collection::vec;
use proptest::prelude::*;
use std::time::Duration;

fn text(message: &str) -> String {
    of_mail(message.as_bytes(), true)
}

#[test]
fn headers_are_decoded() {
    let message = "From - Tue Oct 01 12:00:00 2024\r\nReceived: from a by b\r\n\
        From: =?utf-8?Q?J=C3=B6rg_M=C3=BCller?= <joerg@example.org>\r\nTo: \"Smith, Alice\" <alice@contoso.com>,\r\n \
        bob@contoso.com\r\nSubject: =?iso-8859-1?B?R3L832U=?=\r\n =?utf-8?Q?_=07_x?=\r\n\
        Date: Tue, 1 Oct 2024 13:30:00 +0200\r\nBcc:\r\n\r\nHello.\r\n";
    let expected = "From: Jörg Müller <joerg@example.org>\nTo: \"Smith, Alice\" <alice@contoso.com>, bob@contoso.com\n\
        Date: Tue, 1 Oct 2024 13:30:00 +0200\nSubject: Grüße x\n\nHello.\n";
    assert_eq!(text(message), expected);
    assert_eq!(text(&message.replace('\r', "")), expected);
}

#[test]
fn headers_that_nobody_encoded_are_in_the_charset_of_the_body() {
    let message = b"From: a@b.c\nSubject: \xcf\xf0\xe8\xe2\xe5\xf2\nContent-Type: text/plain; charset=windows-1251\n\n\xec\xe8\xf0\n";
    assert_eq!(of_mail(message, true), "From: a@b.c\nSubject: Привет\n\nмир\n");
    assert_eq!(of_mail(b"Subject: Gr\xfc\xdfe\n\nsch\xf6n", true), "Subject: Grüße\n\nschön\n");
}

#[test]
fn bodies_are_decoded() {
    for (head, body) in [
        (
            "Content-Type: text/plain; charset=iso-8859-15\nContent-Transfer-Encoding: quoted-printable",
            "=A4 5, =DCber=\nweisung",
        ),
        (
            "Content-Type: text/plain; charset=\"UTF-8\"\nContent-Transfer-Encoding: BASE64",
            "4oKsIDUsIMOcYmVyd2Vp\nc3Vu\nZw==",
        ),
        ("Content-Transfer-Encoding: quoted-printable", "=E2=82=AC 5, =C3=9Cberweisung"),
        ("Content-Type: text/plain; charset=nobody-knows", "€ 5, Überweisung"),
        ("Content-Type: text/plain; charset=us-ascii", "€ 5, Überweisung"),
        ("Content-Type: text/html; charset=utf-8", "<p>&euro;&nbsp;5, &Uuml;ber&shy;weisung"),
        ("Content-Type: text/html", "<meta charset='utf-8'><title>x</title><div>&#8364; 5,\n<b>Über</b>weisung</div>"),
    ] {
        assert_eq!(text(&format!("Subject: x\n{head}\n\n{body}")), "Subject: x\n\n€ 5, Überweisung\n", "{head}");
    }
}

#[test]
fn broken_encodings_are_read_as_far_as_they_go() {
    let body = "Content-Transfer-Encoding: quoted-printable\n\n5 = 5 =zz=\n=4";
    assert_eq!(text(&format!("Subject: x\n{body}")), "Subject: x\n\n5 = 5 =zz=4\n");
    let body = "Content-Transfer-Encoding: base64\n\nSGVsb!G8=\nIHdvcmxk\nZ";
    assert_eq!(text(&format!("Subject: x\n{body}")), "Subject: x\n\nHello world\n");
    let body = "Content-Transfer-Encoding: base64\n\n\nSGVsbG8gd29ybGQK\n\n\n-- \nThe list\n";
    assert_eq!(text(&format!("Subject: x\n{body}")), "Subject: x\n\nHello world\n\n-- \nThe list\n");
}

#[test]
fn html_keeps_its_lines_together() {
    let html = "<html><head><style>p { color: red }</style><title>no</title></head><body><p>One\n  long\r\nline \
        <b>of</b> <i>words</i>.<p>Next<br>and<br/>then<table><tr><td>1</td><td>2</td></tr><tr><td>3</td></tr></table>\
        <!-- hidden --><script>if (a < b) {}</script><pre>a\nb</pre>1 < 2 &amp; 3</body></html>";
    assert_eq!(html::to_text(html), "One long line of words.\n\nNext\nand\nthen\n\n1 2\n3\n\na\nb\n\n1 < 2 & 3");
}

#[test]
fn a_comment_that_never_ends_ends_with_its_tag() {
    assert_eq!(html::to_text("a<!-- b > c --> d<!--x>e<b>f</b><!--y>g<!--"), "a defg");
    assert_eq!(html::to_text("<p>a<script><!-- no"), "a");
    assert_eq!(html::to_text("a<!-->b<!--->c"), "abc");
}

#[test]
fn an_element_that_never_ends_ends_with_its_tag() {
    for (page, text) in [
        ("a<title>b", "ab"),
        ("a<TITLE>no</Title>b<title>c", "abc"),
        ("a<style>no</style><textarea>b", "ab"),
        ("a<titles>b<xmp >c<xm>d", "abcd"),
        ("a<title>no<style>no</title>b", "ab"),
        ("a<style>no<!--no</style>b<!-- c>d", "abd"),
        ("a<style><!-- p {} </style><p>b", "ab"),
        ("a<script>if (a<!--b) x = '<title>' </script>b", "ab"),
        ("a<!-- <title> no -->b<!-- <style> --> c", "ab c"),
        ("a<title><!-- no</title>b<!-- --> c", "ab c"),
        ("a<xmp><title></xmp>b", "a<title>b"),
        ("a<!--->b<!-->c", "abc"),
        ("a<script>no<title>no", "a"),
        ("a<iframe", "a"),
        ("a</style>b<noframes>\u{df}", "ab\u{df}"),
    ] {
        assert_eq!(html::to_text(page).replace(['\n', ' '], ""), text.replace(' ', ""), "{page:?}");
    }
}

#[test]
fn elements_that_never_end_take_linear_time() {
    const LEN: usize = 64 << 10;
    for unit in
        ["<", "</", "<!--", "<!-->", "<title", "</title", "<title>", "<style></title>", "<textarea <xmp ", "-->"]
    {
        let time = |len: usize| {
            let page = unit.repeat(len / unit.len());
            (0..3).map(|_| processor_time(|| drop(html::to_text(&page)))).min().unwrap()
        };
        let (short, long) = (time(LEN), time(16 * LEN));
        // With quadratic time, this would take 256 times as long.
        assert!(long < short * 48, "{unit:?}: {short:?}, and 16 times as much {long:?}");
    }
}

/// Returns a multipart with these parts.
fn multipart(kind: &str, parts: &[&str]) -> String {
    let mut message = format!(
        "Content-Type: multipart/{kind}; boundary=\"{kind}\"\n\nThis is a multi-part message in MIME format.\n"
    );
    parts.iter().for_each(|part| message += &format!("--{kind}\n{part}\n"));
    message + &format!("--{kind}--\n\n")
}

#[test]
fn of_alternatives_the_plain_one_is_shown_if_it_says_as_much() {
    let html = "Content-Type: text/html\n\n<p>The whole message, word for word.";
    let plain = "Content-Type: text/plain\n\nThe whole message, word for word, in plain.";
    assert_eq!(text(&multipart("alternative", &[plain, html])), "\nThe whole message, word for word, in plain.\n");
    let poor = "Content-Type: text/plain\n\nUse HTML!";
    let related =
        multipart("related", &[html, "Content-Type: image/png; name=a.png\nContent-Transfer-Encoding: base64\n\nAAAA"]);
    assert_eq!(
        text(&multipart("alternative", &[poor, &related])),
        "\nUse HTML!\nThe whole message, word for word.\n\nAttachments:\n- a.png, 3 bytes\n"
    );
    assert_eq!(text(&multipart("alternative", &[html])), "\nThe whole message, word for word.\n");
}

#[test]
fn attachments_are_named_and_nested_messages_shown() {
    let nested = "Content-Type: message/rfc822\n\nSubject: inner\n\ninner body";
    let encoded = "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogYQoKYg==";
    let file =
        "Content-Type: text/csv; charset=utf-8\nContent-Disposition: attachment;\n filename*=utf-8''%C3%BC.csv\n\na,b";
    let named = "Content-Type: text/plain; name=\"=?utf-8?q?=C3=BC=2Etxt?=\"\n\nshown and named";
    let message = multipart("mixed", &["\nbody", file, named, nested, encoded, "Content-Type: image/gif\n\nGIF"]);
    let rule = "======== Attached message ========";
    let expected = format!(
        "\nbody\nshown and named\n\nAttachments:\n- ü.csv, 3 bytes\n- ü.txt, 15 bytes\n- message/rfc822, 26 bytes\n\
         - message/rfc822, 13 bytes\n- image/gif, 3 bytes\n\n{rule}\nSubject: inner\n\ninner body\n\n{rule}\nSubject: a\n\nb\n"
    );
    assert_eq!(text(&message), expected);
    assert_eq!(text(&multipart("digest", &["\nSubject: inner\n\ninner body"])).matches("Subject: inner").count(), 1);
}

#[test]
fn a_piece_of_a_message_is_text() {
    let piece = "Content-Type: message/partial; id=x; number=2; total=2\n\nthe second half\n";
    assert_eq!(text(piece), "\nthe second half\n");
}

#[test]
fn broken_structure_is_read_as_far_as_it_goes() {
    let inner = "Content-Type: multipart/mixed; boundary=inner\n\n--inner\n\ninner\n";
    let outer = format!("Content-Type: multipart/mixed; boundary=outer\n\n--outer\n{inner}\n--outer\n\nouter");
    assert_eq!(text(&outer), "\ninner\nouter\n");
    assert_eq!(text("Content-Type: multipart/mixed; boundary=x\n\nno parts"), "\nno parts\n");
    assert_eq!(text("Content-Type: multipart/mixed\n\nno boundary"), "\nno boundary\n");
    assert_eq!(text("Subject: x\nno field\nbody"), "Subject: x\n\nno field\nbody\n");
    assert_eq!(text(""), "\n");
}

#[test]
fn what_is_left_out_is_said() {
    const NOTE: &str = "longer than what is shown here";
    let long = format!("Subject: x\n\n{}", "0123456789abcde\n".repeat(TEXT_BYTES_MAX / 16 + 1));
    let shown = text(&long);
    assert!(shown.len() < TEXT_BYTES_MAX + 1000 && shown.contains(NOTE));
    assert!(of_mail(b"Subject: x\n\nbegin", false).contains(NOTE));
    let deep = "Content-Type: message/rfc822\n\n".repeat(100_000);
    assert!(text(&deep).contains(NOTE));
    let mut deep = String::new();
    (0..1000).for_each(|at| deep += &format!("Content-Type: multipart/mixed; boundary=b{at}\n\n--b{at}\n"));
    assert!(text(&deep).contains(NOTE));
    let many = format!("Content-Type: multipart/mixed; boundary=b\n\n{}", "--b\n\nx\n".repeat(2 * PARTS_MAX));
    assert!(text(&many).contains(NOTE));
    assert!(!text("Subject: x\n\nshort").contains(NOTE));
}

#[test]
fn hostile_mails_take_linear_time() {
    const LEN: usize = 4 << 20;
    let html = "Content-Type: text/html\n\n";
    let heads = [
        "Subject: x\n\n",
        html,
        "Content-Type: multipart/alternative; boundary=b\n\n",
        "Content-Transfer-Encoding: quoted-printable\n\n",
    ];
    let units = [
        "<",
        "<div>",
        "<p",
        "<!--",
        "&",
        "&#x",
        "</",
        "<a b=",
        "<table><td>",
        "<pre>\n",
        "<script>",
        "<![CDATA[",
        "=",
        "=\n",
        "--b\n",
        "--b\n\n",
        "--b\nContent-Type: text/html\n\n<p>x\n",
        "--b\nContent-Type: multipart/alternative; boundary=b\n\n",
        "--",
        "--b\nContent-Type: message/rfc822\n\nSubject: x\n\n",
        "Content-Type: message/rfc822\n\n",
        "\r",
        "a:\n",
    ];
    for (head, unit) in heads.iter().flat_map(|head| units.iter().map(move |unit| (head, unit))) {
        let message = format!("{head}{}", unit.repeat(LEN / unit.len()));
        let time = processor_time(|| drop(text(&message)));
        assert!(time < Duration::from_secs(5), "{head:?} {unit:?} took {time:?}");
    }
}

/// Messages made of pieces that a reader of mails reacts to.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        "[\\r\\n\\t a-z<>@,;:()\"=?&#/!\\\\.-]{0,6}".prop_map(String::into_bytes),
        vec(any::<u8>(), 0..4),
        prop_oneof![
            Just("\nContent-Type: multipart/mixed; boundary=b\n\n"),
            Just("\nContent-Type: multipart/alternative; boundary=\"c d\"\n\n"),
            Just("\nContent-Type: text/html; charset=koi8-r\n\n"),
            Just("\nContent-Type: text/plain; charset=iso-2022-jp\n\n"),
            Just("\nContent-Type: text/plain; charset=utf-16\n\n"),
            Just("\nContent-Type: text/plain; charset=utf-7\n\n"),
            Just("\nContent-Type: message/rfc822\n\n"),
            Just("\nContent-Transfer-Encoding: base64\n"),
            Just("\nContent-Transfer-Encoding: quoted-printable\n"),
            Just("\nContent-Disposition: attachment; filename*0*=utf-8''%C3; filename*1*=%BC\n"),
            Just("\n--b\n"),
            Just("\n--b--\n"),
            Just("\n--c d\n"),
            Just("Subject: =?utf-8?q?=C3=BC?="),
            Just("<p>&uuml;<script>"),
            Just("=C3=BC=\n"),
            Just("w7w="),
        ]
        .prop_map(|word| word.as_bytes().to_vec()),
    ];
    vec(word, 0..60).prop_map(|words| words.concat())
}

fn assert_sound(message: &[u8]) -> Result<(), TestCaseError> {
    let text = of_mail(message, true);
    prop_assert!(!text.contains(|char: char| char.is_control() && !matches!(char, '\n' | '\t')));
    prop_assert!(text.ends_with('\n'));
    prop_assert_eq!(&text, &of_mail(message, true));
    Ok(())
}

proptest! {
    #[test]
    fn any_message_becomes_text(message in messages()) {
        assert_sound(&message)?;
    }

    #[test]
    fn a_hostile_mail_becomes_text_however_it_is_changed(
        pick: prop::sample::Index,
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        end: prop::sample::Index,
    ) {
        let mails = strongroom_corpora::hostile::mails();
        let mut message = mails[pick.index(mails.len())].1.clone();
        if message.is_empty() {
            return Ok(());
        }
        for (at, byte) in changes {
            let at = at.index(message.len());
            message[at] = byte;
        }
        message.truncate(end.index(message.len()) + 1);
        assert_sound(&message)?;
    }
}

#[test]
fn a_tag_with_many_attributes_needs_little_stack() {
    for attribute in [
        " a=\"\"",
        " a=\"b>\"",
        "/a=\"\"",
        " a=''",
        " a",
        "\ta = \"\"\n",
        " a=\"&amp;\"",
        " a\"=\"\"",
        " a=b\"",
        " =\"\"",
    ] {
        let attributes = attribute.repeat(50_000);
        for page in
            [format!("one<p{attributes}>two</p{attributes}>three"), format!("one<p{attributes}>two<b{attributes}")]
        {
            let read = std::thread::Builder::new().stack_size(256 << 10).spawn(move || html::to_text(&page)).unwrap();
            let text = read.join().unwrap().replace("\n\n", " ");
            assert!(["one two three", "one two"].contains(&&*text), "{attribute:?}: {text:?}");
        }
    }
}

#[test]
fn quotes_behind_quotes_stay_text() {
    let quotes = "\"".repeat(100);
    assert_eq!(html::to_text(&format!("<p a=\"b\">{quotes}<b>{quotes}c</b>")), format!("{quotes}{quotes}c"));
    assert_eq!(html::to_text(&format!("<a {}>x", "b=\"c\"d".repeat(100))), "x");
}

#[test]
fn noscript_is_read_as_html() {
    let text = of_mail(
        b"Content-Type: text/html\n\n<p>one<noscript><style>p {}</style><p>two &amp; <b>three</b></p></noscript>four\
        <pre><noscript>a<pre>b</noscript>c</pre>d\ne<noscript><noscript><noscript><noscript><noscript><i>deep</i>",
        true,
    );
    for words in ["one\n\ntwo & three\n\nfour", "c\n\nd e", "deep"] {
        assert!(text.contains(words), "{words:?} is not in {text:?}");
    }
    assert!(!text.contains('<') && !text.contains("p {}"), "{text:?}");
    let many = format!("Content-Type: text/html\n\n{}", "<noscript>".repeat(400_000));
    let time = processor_time(|| drop(of_mail(many.as_bytes(), true)));
    assert!(time.as_secs() < 20, "took {time:?}");
}

#[test]
fn encoded_multiparts_are_told_apart() {
    let inner = "--b\nContent-Type: text/html\n\n<p>needle</p>\n--b\nContent-Type: a/b; name=plan.pdf\n\
        Content-Transfer-Encoding: base64\n\nQUJDREVGRw==\n--b--\n";
    let message = format!(
        "Subject: S\nContent-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: base64\n\n{}\n-- \nlist footer\n",
        STANDARD.encode(inner)
    );
    let text = of_mail(message.as_bytes(), true);
    for words in ["\nneedle\n", "- plan.pdf, 7 bytes", "list footer"] {
        assert!(text.contains(words), "{words:?} is not in {text:?}");
    }
    assert!(!text.contains("--b") && !text.contains("<p>"), "{text:?}");
}

#[test]
fn words_outside_of_all_parts_are_shown_in_their_places() {
    let message = b"Subject: S\nContent-Type: multipart/mixed; boundary=out\n\n\
        This is a multi-part message in MIME format.\n\nGateway: one attachment was removed.\n--out\n\
        Content-Type: multipart/alternative; boundary=in\n\nThis is a multi-part message in MIME format.\n\
        --in\n\nbody\n--in\nContent-Type: text/html\n\n<p>body</p>\n--in--\n\n--out\n\nsecond\n--out--\n\
        _____\nThe list\nhttp://list.example\n";
    let text = of_mail(message, true);
    let shown =
        "Subject: S\n\nGateway: one attachment was removed.\nbody\nsecond\n_____\nThe list\nhttp://list.example\n";
    assert_eq!(text, shown);
}

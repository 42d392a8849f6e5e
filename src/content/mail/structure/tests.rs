use super::*;
use proptest::prelude::*;

/// Shows the tree of parts: the type of each, and the content of leaves.
fn shape(message: &str) -> String {
    let structure = Structure::of(message.as_bytes(), PARTS_MAX);
    let part = |part: &Part<'_>| match part.kind {
        Kind::Leaf => String::from_utf8_lossy(&part.encoded().decoded(usize::MAX)).replace('\r', "").replace('\n', "/"),
        Kind::Multipart => "[".to_owned(),
        Kind::Message => "{".to_owned(),
    };
    structure.parts.iter().map(part).collect::<Vec<_>>().join(" ")
}

#[test]
fn boundaries_are_whole_lines() {
    let mixed = "Content-Type: multipart/mixed; boundary=";
    for (message, expected) in [
        (format!("{mixed}BB\n\n--BB\n\nmake --BB first\n--BBB\n--B\nend\n--BB--\n"), "[ make --BB first/--BBB/--B/end"),
        (format!("{mixed}BB\r\n\r\npreamble\r\n--BB \t\r\n\r\na\r\n--BB-- \r\nepilogue"), "[ a"),
        (format!("{mixed}BB\r\r--BB\r\ra\r--BB--\r"), "[ a"),
        (format!("{mixed}BB\n\n--BB\n\na\n--BB\n\nb"), "[ a b"),
        (format!("{mixed}BB\n\n--BB--\n\n--BB\n\nb\n--BB--\n"), "[ b"),
        (format!("{mixed}BB\n\n--BB--\nrest\n"), "--BB--/rest/"),
        (format!("{mixed}BB\n\nnothing\n"), "nothing/"),
        (
            format!("{mixed}foo\n\n--foo\n{mixed}foo_bar\n\n--foo_bar\n\na\n--foo_bar--\n--foo\n\nb\n--foo--\n"),
            "[ [ a b",
        ),
        (format!("{mixed}foo\n\n--foo\n{mixed}foo--\n\n--foo--\n\na\n--foo----\n--foo\n\nb\n--foo--\n"), "[ [ a b"),
        (format!("{mixed}foo\n\n--foo\n{mixed}foo\n\n--foo\n\na\n--foo--\n--foo\n\nb\n--foo--\n"), "[ [ a b"),
        (format!("{mixed}out\n\n--out\n{mixed}in\n\n--in\n\na\n--out\n\nb"), "[ [ a b"),
        (format!("{mixed}abc\n\n--xyz\nContent-Type: text/plain\n\na\n--xyz--\n"), "[ a"),
        (
            "Content-Type: multipart/mixed\n\n--xyz\nContent-Type: text/plain\n\na\n--xyz\n\nb\n--xyz--\n".to_owned(),
            "[ a b",
        ),
        ("Subject: a\n\nThis is MIME\n--xyz\nContent-Type: text/plain\n\na\n--xyz--\n".to_owned(), "[ a"),
        (
            "Subject: a\nContent-Type: multipart/mixed; boundary=B\n--B\nContent-Type: text/plain\n\na\n--B--"
                .to_owned(),
            "[ a",
        ),
        (format!("{mixed}BB\nContent-Type: text/plain\n\n--BB\n\na\n--BB--\n"), "[ a"),
        (
            "Content-Type: text/plain\n\n--BB\nContent-Type: text/plain\n\na".to_owned(),
            "--BB/Content-Type: text/plain//a",
        ),
    ] {
        assert_eq!(shape(&message), expected, "{message:?}");
    }
}

#[test]
fn messages_lie_in_messages() {
    let inner = "Content-Type: message/rfc822\n\nSubject: inner\n\nbody";
    assert_eq!(shape(inner), "{ body");
    assert_eq!(
        shape(&format!("Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: a\n\nx\n--b\n{inner}\n--b--")),
        "[ { x { body"
    );
    assert_eq!(
        shape("Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogYQoKYg=="),
        "Subject: a//b"
    );
    assert_eq!(shape("Content-Type: message/rfc822\n\n\nSubject: inner\n\nbody"), "{ body");
}

#[test]
fn leaves_are_those_of_one_message() {
    let message = "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/alternative; boundary=c\n\n--c\n\na\n\
        --c--\n--b\nContent-Type: message/rfc822\n\nSubject: x\n\ninner\n--b\n\nc\n--b--\n";
    let structure = Structure::of(message.as_bytes(), PARTS_MAX);
    let leaves: Vec<_> = structure.leaves(0).map(|(number, part)| (number, part.kind, part.alternative)).collect();
    assert_eq!(leaves, [(2, Kind::Leaf, Some(1)), (3, Kind::Message, None), (5, Kind::Leaf, None)]);
    assert_eq!(structure.leaves(4).map(|(_, part)| part.body).collect::<Vec<_>>(), [b"inner"]);
}

#[test]
fn what_is_in_no_part_is_known() {
    let mixed = "Content-Type: multipart/mixed; boundary=";
    let inner = format!("{mixed}in\n\nbefore in\n--in\n\na\n--in--\nbehind in\n");
    let outside = |message: &str, root: usize| {
        let structure = Structure::of(message.as_bytes(), PARTS_MAX);
        let shown =
            |outside: &Outside<'_>| (outside.parent, outside.next, String::from_utf8_lossy(outside.text).into_owned());
        structure.outside(root).map(shown).collect::<Vec<_>>()
    };
    let owned = |parent, next, text: &str| (parent, next, text.to_owned());
    assert_eq!(
        outside(&format!("{mixed}out\n\nbefore out\n--out\n{inner}\n--out--\n\nbehind out\n"), 0),
        [owned(0, 1, "before out"), owned(1, 2, "before in"), owned(1, 3, "behind in\n"), owned(0, 3, "\nbehind out")]
    );
    let nested = format!("{mixed}out\n\n--out\nContent-Type: message/rfc822\n\n{inner}\n--out--\nbehind out\n");
    assert_eq!(outside(&nested, 0), [owned(0, 4, "behind out")]);
    assert_eq!(outside(&nested, 2), [owned(2, 3, "before in"), owned(2, 4, "behind in\n")]);
    assert_eq!(outside(&format!("{mixed}out\n\nno parts\n"), 0), []);
    assert_eq!(outside(&format!("{mixed}out\n\n--out--\nno parts\n"), 0), []);
    assert_eq!(outside(&format!("{mixed}out\n\n--out\n\na\n--out--\nback\n--out\n\nb\n"), 0), [owned(0, 2, "back")]);
}

#[test]
fn depth_and_number_are_bounded_and_said() {
    let nested = |depth: usize| {
        let open: String =
            (0..depth).map(|at| format!("Content-Type: multipart/mixed; boundary=b{at}_\n\n--b{at}_\n")).collect();
        format!("{open}\ninnermost")
    };
    let structure = |message: &str| {
        let structure = Structure::of(message.as_bytes(), PARTS_MAX);
        (structure.parts.len(), structure.incomplete)
    };
    assert!(shape(&nested(50)).ends_with(" innermost"));
    assert_eq!(structure(&nested(50)), (51, false));
    assert_eq!(structure(&nested(1000)), (DEPTH_MAX + 1, true));
    let many = format!("Content-Type: multipart/mixed; boundary=b\n\n{}", "--b\n\nx\n".repeat(2 * PARTS_MAX));
    assert_eq!(structure(&many), (PARTS_MAX, true));
    assert_eq!(structure(&"Content-Type: message/rfc822\n\n".repeat(100_000)), (DEPTH_MAX + 1, true));
}

proptest! {
    #[test]
    fn any_message_is_taken_apart(
        words in prop::collection::vec(
            prop_oneof![
                "[a-z \r\n-]{0,6}",
                Just("\n--b\n".to_owned()),
                Just("\n--b--\n".to_owned()),
                Just("\r\n--c d\r\n".to_owned()),
                Just("\nContent-Type: multipart/mixed; boundary=b\n\n".to_owned()),
                Just("Content-Type: multipart/alternative; boundary=\"c d\"\r\n\r\n".to_owned()),
                Just("\nContent-Type: message/rfc822\n\n".to_owned()),
                Just("\nContent-Transfer-Encoding: base64\n".to_owned()),
            ],
            0..40,
        ),
        parts_max in 1..20_usize,
    ) {
        let message = words.concat();
        let structure = Structure::of(message.as_bytes(), parts_max);
        prop_assert!(!structure.parts.is_empty() && structure.parts.len() <= parts_max);
        for (number, part) in structure.parts.iter().enumerate() {
            prop_assert!(part.end > number && part.end <= structure.parts.len());
            prop_assert!(part.body.is_empty() || message.as_bytes()[part.body_start..].starts_with(part.body));
            if let Some(parent) = part.parent {
                prop_assert!(parent < number && structure.parts[parent].end >= part.end);
            }
        }
    }
}

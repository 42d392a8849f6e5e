//! Attachments come back with their bytes and their names.

use super::*;

#[test]
fn attachments_in_base64_come_back_whatever_happened_to_them() {
    let mut cases = Vec::new();
    for eol in ["\n", "\r\n", "\r"] {
        for len in [2050, 2051, 2052] {
            in_base64(eol, len, &mut cases);
        }
    }
    for label in ["base64;", "BASE64", "base64 (x)", "\"base64\"", "  Base64  ", "base-64", "=?us-ascii?Q?base64?="] {
        let fields = format!("{FILE}\nContent-Transfer-Encoding: {label}");
        let content = lines(&STANDARD.encode(bytes(2052)), 76, "\n");
        let subject = format!("label {}", label.trim().replace(['"', '='], "'"));
        cases.push(with_parts(subject, "\n", &[(&fields, content.as_bytes())], true, &[("a.bin", &bytes(2052))]));
    }
    assert_restored(&cases);
}

#[test]
fn attachments_that_are_not_encoded_come_back_to_the_last_byte() {
    let mut cases = Vec::new();
    for eol in ["\n", "\r\n", "\r"] {
        let shown = format!("{eol:?}").replace('"', "'");
        for (name, content) in [
            ("boundary in a line", "id,opt\n1,use --BB to build\n2,last row"),
            ("lines that begin like it", "a\n--BBB\n--B\n --BB\n--BB x\n--BB---\n--bb\nlast row"),
            ("empty lines at the end", "a\n\n\n"),
            ("empty", ""),
            ("a line end alone", "\n"),
            ("blanks alone", "  "),
            ("no line end", "last row"),
            ("a NUL", "a\0b"),
            ("looks like fields", "Subject: x\n\nTo: y\n"),
            ("other boundaries", "--CC\nContent-Type: text/plain\n\nx\n--CC--\n"),
        ] {
            let content = content.replace('\n', eol);
            let fields = FILE.replace("application/octet-stream", "text/csv");
            let content = content.as_bytes();
            let subject = format!("plain: {name}, {shown}");
            cases.push(with_parts(subject, eol, &[(&fields, content)], true, &[("a.bin", content)]));
        }
        let encoded = format!("{FILE}\nContent-Transfer-Encoding: \"quoted-printable\"");
        let content = "K=C3=B6ln=\n a=3Db c=zz=20\nLASTLINE".replace('\n', eol);
        let right = format!("Köln a=b c=zz {eol}LASTLINE");
        let subject = format!("quoted-printable, {shown}");
        cases.push(with_parts(subject, eol, &[(&encoded, content.as_bytes())], true, &[("a.bin", right.as_bytes())]));
    }
    let encoded = format!("{FILE}\nContent-Transfer-Encoding: x-uuencode");
    let content = b"begin 644 a.bin\n+2&5L;&\\@=V]R;&0\n`\nend";
    cases.push(with_parts("uuencode".to_owned(), "\n", &[(&encoded, content)], true, &[("a.bin", b"Hello world")]));
    // Line ends that are other ones than those of the mail are the file's own.
    for (name, content) in [("LF in CRLF", "a\nb\nc"), ("CR in CRLF", "a\rb\rc"), ("mixed", "a\r\nb\nc\rd")] {
        let subject = format!("ends: {name}");
        cases.push(with_parts(subject, "\r\n", &[(FILE, content.as_bytes())], true, &[("a.bin", content.as_bytes())]));
    }
    let binary: Vec<u8> = (0..=255).filter(|byte| !b"\r\n".contains(byte)).collect();
    let fields = format!("{FILE}\nContent-Transfer-Encoding: binary");
    cases.push(with_parts("8 bit".to_owned(), "\r\n", &[(&fields, &binary)], true, &[("a.bin", &binary)]));
    assert_restored(&cases);
}

#[test]
fn attachments_keep_their_names() {
    let mut cases = Vec::new();
    let mut named = |fields: &[u8], name: &str| {
        let mark = b"Content-Transfer-Encoding: 7bit";
        let case = with_parts(
            format!("name {}", cases.len()),
            "\n",
            &[("Content-Transfer-Encoding: 7bit", b"content")],
            true,
            &[(name, b"content")],
        );
        let at = case.mime.windows(mark.len()).position(|window| window == mark).unwrap();
        let mime = [&case.mime[..at], fields, &case.mime[at + mark.len()..]].concat();
        cases.push(Case { mime, ..case });
    };
    for (fields, name) in [
        (
            "Content-Disposition: attachment; filename*0*=UTF-8''Rechnung%20f%C3;\n filename*1*=%BCr.pdf",
            "Rechnung für.pdf",
        ),
        ("Content-Disposition: attachment; filename*1*=%BCr.pdf; filename*0*=UTF-8''f%C3", "für.pdf"),
        (
            "Content-Disposition: attachment; filename*0*=ISO-8859-1''caf%E9;\n filename*1*=%20cr%E8me.pdf",
            "café crème.pdf",
        ),
        ("Content-Disposition: attachment; filename*0*=shift_jis''%90%BF%8B; filename*1*=%81%8F%91.pdf", "請求書.pdf"),
        (
            "Content-Disposition: attachment; filename*0*=iso-2022-jp''%1B$B@A5a;\n filename*1*=%3Dq%1B(B.pdf",
            "請求書.pdf",
        ),
        ("Content-Disposition: attachment; filename*0=\"long part \"; filename*1=\"two.pdf\"", "long part two.pdf"),
        ("Content-Disposition: attachment; filename=plain.pdf; filename*=utf-8''%C3%BC.pdf", "ü.pdf"),
        ("Content-Disposition: attachment; filename*0*=UTF-8''a%20b; filename*1=100%25.pdf", "a b100%25.pdf"),
        ("Content-Disposition: attachment; filename=\"=?UTF-8?B?w5xiZXJzaWNodC54bHN4?=\"", "Übersicht.xlsx"),
        ("Content-Disposition: attachment; filename==?UTF-8?Q?=C3=9Cber?= =?UTF-8?Q?sicht?=; size=1", "Übersicht"),
        ("Content-Disposition: attachment; filename=\"=?UTF-8?Q?=C3?= =?UTF-8?Q?=BC.pdf?=\"", "ü.pdf"),
        ("Content-Disposition: attachment; filename=\"=?gb2312?B?u+E=?= =?gb2312?B?0uk=?=.doc\"", "会议.doc"),
        ("Content-Disposition: attachment; filename=\"Übersicht März.xlsx\"", "Übersicht März.xlsx"),
        ("Content-Disposition: attachment; filename=a b (1).pdf", "a b (1).pdf"),
        ("Content-Disposition: attachment; filename=\"../../etc/passwd\"", "../../etc/passwd"),
        ("Content-Disposition: attachment; filename=\"C:\\temp\\a.pdf\"", "C:\\temp\\a.pdf"),
        ("Content-Disposition: attachment; filename=\"a \\\"quoted\\\" name.pdf\"", "a \"quoted\" name.pdf"),
        ("Content-Type: a/b; name=\"back.bin\"\nContent-Disposition: attachment; filename=\"\"", "back.bin"),
        ("Content-Type: a/b; name=Ü b.pdf", "Ü b.pdf"),
        ("Content-Type: a/b;\n\tname=\"folded\n name.pdf\"", "folded name.pdf"),
        ("Content-Type: a/b\nContent-Disposition: attachment", ""),
        ("Content-Type: image/png\nContent-ID: <x@y>", ""),
    ] {
        named(fields.as_bytes(), name);
    }
    named(b"Content-Disposition: attachment; filename=\"Gr\xfc\xdfe.txt\"", "Grüße.txt");
    named(
        b"Content-Disposition: attachment; filename=\"\xcf\xf0\xe8\xe2\xe5\xf2 \xe2\xf1\xe5\xec.doc\"",
        "Привет всем.doc",
    );
    assert_restored(&cases);
}

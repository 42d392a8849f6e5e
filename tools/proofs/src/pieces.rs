//! The pieces that mails are made of, right and wrong.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use strongroom_corpora::rng::Rng;

/// Names of charsets: known ones, misspelt ones and none.
pub const CHARSETS: [&str; 48] = [
    "utf-8",
    "UTF8",
    "us-ascii",
    "iso-8859-1",
    "iso-8859-2",
    "iso-8859-8-i",
    "iso-8859-15",
    "iso-8859-16",
    "windows-1250",
    "windows-1251",
    "windows-1252",
    "windows-1255",
    "windows-1256",
    "windows-1258",
    "cp437",
    "cp850",
    "cp852",
    "cp866",
    "koi8-r",
    "koi8-u",
    "macintosh",
    "x-mac-cyrillic",
    "tis-620",
    "gb2312",
    "gbk",
    "gb18030",
    "hz-gb-2312",
    "big5",
    "big5-hkscs",
    "euc-kr",
    "ks_c_5601-1987",
    "iso-2022-kr",
    "iso-2022-jp",
    "iso-2022-jp-2",
    "iso-2022-cn",
    "shift_jis",
    "euc-jp",
    "cp932",
    "utf-7",
    "utf-16",
    "utf-16le",
    "utf-16be",
    "utf-32",
    "viscii",
    "tcvn",
    "x-unknown",
    "",
    "=?utf-8?Q?utf-8?=",
];

/// Text in some of them.
const TEXTS: [&[u8]; 16] = [
    b"Hello world, this is a line.\n",
    "Gr\u{fc}\u{df}e aus K\u{f6}ln, \u{201e}\u{fc}ber\u{201c} \u{65e5}\u{672c}\u{8a9e} \u{1f600}\n".as_bytes(),
    b"Gr\xfc\xdfe aus K\xf6ln\n",
    b"\xcf\xf0\xe8\xe2\xe5\xf2 \xe2\xf1\xe5\xec\n",
    b"\x1b$BF|K\\8l\x1b(B \x1b$@F|K\\\x1b(J\n",
    b"\x1b$)C\x0eH8@G\x0f\n",
    b"\x1b$)A\x0e=;;;\x0f\x1b$*H\x1bNGG\n",
    b"\x93\xfa\x96{\x8c\xea \xb6\xc5\n",
    b"\xbb\xe1\xd2\xe9 \x81\x30\x81\x30 \xff\n",
    b"~{;aRi~} ~~ ~\n~{;a\n",
    b"Gr+APwA3w-e +2D3eAA- +AGE +-\n",
    b"\xff\xfeG\0r\0\xfc\0\n\0=\xd8\0\xde",
    b"\xfe\xff\0G\0r\0\xfc\xd8\x3d",
    b"\0\0\xfe\xff\0\0\0G\0\x11\0\0",
    b"<p>&uuml;ber <b>&#8364; &nbsp;</b><br>x<style>p{}</style><!-- c --><script>if (a<b)</script><pre>a\n b</pre>",
    b"a=b\nb= c\n",
];

const HTML: [&str; 24] = [
    "<html>",
    "<body>",
    "<p>",
    "</p>",
    "<div>",
    "<table><tr><td>",
    "<br>",
    "<pre>",
    "</pre>",
    "<!--",
    "-->",
    "<!-->",
    "<script>",
    "</script>",
    "<style",
    "<title>",
    "<textarea>",
    "</textarea>",
    "<xmp>",
    "<iframe",
    "<plaintext>",
    "<![CDATA[",
    "<a href='",
    "&#x1f600;&amp&lt;&notit;&#xffffffff;",
];

const FIELDS: [&str; 30] = [
    "From",
    "To",
    "Cc",
    "Bcc",
    "Subject",
    "Date",
    "Sender",
    "Reply-To",
    "Message-ID",
    "References",
    "Received",
    "Return-Path",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-Disposition",
    "Content-ID",
    "Content-Length",
    "Content-Location",
    "Delivery-Date",
    "X-Mozilla-Status",
    "Status",
    "Importance",
    "X-Long",
    "subject",
    "CONTENT-TYPE",
    "Content-transfer-encoding ",
    "X",
    ">From ann",
    "Resent-From",
];

const TOKENS: [&str; 92] = [
    "\n",
    "\r\n",
    "\r",
    "\n\n",
    "\r\n\r\n",
    "\r\r",
    "\n \n",
    "\n\t",
    " ",
    "\0",
    "=",
    "==",
    "=\n",
    "=3D",
    "=C3=BC",
    "=?",
    "?=",
    "=?utf-8?Q?",
    "=?utf-8?B?",
    "=?iso-2022-jp?B?GyRC?=",
    "=?UTF-8?Q?=F0=9F?= =?UTF-8?Q?=98=80?=",
    "=?x?y?z?=",
    "?",
    "*",
    "\"",
    "\\",
    "\\\"",
    "(",
    ")",
    "((((((((",
    "<",
    ">",
    "<<",
    "@",
    ",",
    ";",
    ":",
    "a:b@c",
    "<a@b.c>",
    "\"a, b\" <a@b.c>",
    "friends: a@b.c;",
    "\n--",
    "\n--b\n",
    "\n--b--\n",
    "\n--b \t\r\n",
    "\n--bb\n",
    "--",
    "; boundary=b",
    "; boundary=\"b\"",
    "; boundary=\"",
    "; charset=",
    "; charset=\"utf-8\"",
    "; name=a.txt",
    "; name*0*=utf-8''%C3; name*1*=%BC; name*3=x",
    "; filename=\"=?utf-8?Q?=C3=BC?=\"",
    "; filename*=iso-8859-1'de'%FC.txt",
    "\nSubject: x\n",
    "\nFrom: a@b.c\n",
    "\nContent-Type: text/html\n",
    "\nContent-Type: text/plain\n",
    "\nContent-Type: multipart/mixed; boundary=b\n\n--b\n",
    "\nContent-Type: multipart/alternative; boundary=b\n\n--b\n",
    "\nContent-Type: multipart/digest; boundary=b\n\n--b\n\n",
    "\nContent-Type: message/rfc822\n\n",
    "\nContent-Type: message/delivery-status\n\n",
    "\nContent-Type: text/enriched\n\n<<a<b>",
    "\nContent-Transfer-Encoding: base64\n\n",
    "\nContent-Transfer-Encoding: quoted-printable\n\n",
    "\nContent-Transfer-Encoding: x-uuencode\n\n",
    "\nContent-Disposition: attachment; filename=a.bin\n",
    "\nbegin 644 a.txt\n+2&5L;&\\@=V]R;&0\n`\nend\n",
    "\nFrom ann@example.org Mon Mar  2 10:00:00 2026\n",
    "\n>From ann@example.org Mon Mar  2 10:00:00 2026\n",
    "\nFrom \n",
    "\nFrom - Mon Mar 02 10:00:00 2026\n",
    "\nContent-Length: 10\n",
    "\nContent-Length: 18446744073709551615\n",
    "\n\x01\x01\x01\x01\n",
    "\u{feff}",
    "\u{202e}",
    "\u{85}",
    "\u{2028}",
    "SGVsbG8gd29ybGQ=\n",
    "-_-_",
    "Mon, 2 Mar 2026 10:00:00 +0100",
    "99999999999999999999",
    "-9223372036854775808",
    "&#x",
    "<!--",
    "\x1b$B",
    "\x1b(B",
    "\x0e\x0f",
];

/// Returns something that means something to a reader of mail.
pub fn token(rng: &mut Rng) -> Vec<u8> {
    match rng.below(8) {
        0 => rng.pick(&TEXTS).to_vec(),
        1 => rng.pick(&HTML).as_bytes().to_vec(),
        2 => word(rng).into_bytes(),
        3 => field(rng).into_bytes(),
        _ => rng.pick(&TOKENS).as_bytes().to_vec(),
    }
}

/// Returns an encoded word.
fn word(rng: &mut Rng) -> String {
    let text = *rng.pick(&TEXTS);
    let cut = rng.index(text.len() + 1);
    let text = &text[..cut];
    let charset = *rng.pick(&CHARSETS);
    if rng.chance(50) {
        format!("=?{charset}?B?{}?=", STANDARD.encode(text))
    } else {
        format!("=?{charset}?Q?{}?=", quoted(text, true))
    }
}

fn quoted(bytes: &[u8], words: bool) -> String {
    let mut text = String::new();
    for &byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => text.push(char::from(byte)),
            b' ' if words => text.push('_'),
            b'\n' if !words => text.push('\n'),
            _ => text.push_str(&format!("={byte:02X}")),
        }
    }
    text
}

fn field(rng: &mut Rng) -> String {
    let name = *rng.pick(&FIELDS);
    let mut value = String::new();
    for _ in 0..rng.between(0, 4) {
        match rng.below(6) {
            0 => value += &word(rng),
            1 => value += "ann@example.org",
            2 => value += &format!("\"{}\" <{}@b.c>,", rng.token(5), rng.token(3)),
            3 => value += &String::from_utf8_lossy(rng.pick::<&[u8]>(&TEXTS)).replace('\n', "\n "),
            4 => value += *rng.pick(&TOKENS),
            _ => value += &params(rng),
        }
        value += *rng.pick(&["", " ", "\n ", "\r\n\t", ", "]);
    }
    format!("{name}: {value}\n")
}

fn params(rng: &mut Rng) -> String {
    let kind = *rng.pick(&[
        "text/plain",
        "text/html",
        "multipart/mixed",
        "multipart/alternative",
        "multipart/related",
        "message/rfc822",
        "attachment",
        "inline",
        "application/octet-stream",
        "image/png",
        "text",
        "",
        "application/pkcs7-mime",
        "multipart/signed",
    ]);
    let mut text = kind.to_owned();
    for _ in 0..rng.between(0, 4) {
        let name = *rng.pick(&[
            "charset",
            "boundary",
            "name",
            "filename",
            "name*",
            "filename*0*",
            "filename*1*",
            "filename*1",
            "type",
            "x",
        ]);
        let value = match rng.below(5) {
            0 => (*rng.pick(&CHARSETS)).to_owned(),
            1 => "b".to_owned(),
            2 => word(rng),
            3 => format!("utf-8''{}", quoted(rng.pick::<&[u8]>(&TEXTS), false).replace('=', "%").replace('\n', "")),
            _ => (*rng.pick(&TOKENS)).to_owned(),
        };
        let quote = *rng.pick(&["", "\"", "\"", "'"]);
        text += &format!(";{}{name}={quote}{value}{quote}", rng.pick(&["", " ", "\n "]));
    }
    text
}

/// Returns a value of a field, or a body.
pub fn value(rng: &mut Rng) -> Vec<u8> {
    let mut value = Vec::new();
    for _ in 0..rng.between(1, 12) {
        match rng.below(4) {
            0 => value.extend_from_slice(params(rng).as_bytes()),
            1 => value.extend_from_slice(word(rng).as_bytes()),
            _ => value.extend_from_slice(&token(rng)),
        }
    }
    value
}

/// Returns the line before a mail in an mbox file.
pub fn separator(rng: &mut Rng) -> String {
    let sender = *rng.pick(&[
        "ann@example.org",
        "-",
        "MAILER-DAEMON",
        "",
        "ann at example.org",
        "???@???",
        "\"a b\"@c",
        "Ann Other <a@b.c>",
    ]);
    let date = *rng.pick(&[
        "Mon Mar  2 10:00:00 2026",
        "Mon Mar 02 10:00:00 2026 +0100",
        "2026-03-02T10:00:00Z",
        "",
        "1772445600",
        "Mo M\u{e4}r 2 10:00 2026",
        "Thu Nov 24 18:22:48 1986 remote from b",
        "tomorrow",
    ]);
    let eol = *rng.pick(&["\n", "\n", "\n", "\r\n", "\r", "\n\n"]);
    let quote = *rng.pick(&["", "", "", "", ">", "\u{feff}", "\0", "\x01\x01\x01\x01\n"]);
    format!("{quote}From {sender} {date}{eol}")
}

/// Returns a mail of parts in parts.
pub fn mail(rng: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    if rng.chance(80) {
        out.extend_from_slice(b"From: Ann <ann@example.org>\nSubject: ");
        out.extend_from_slice(word(rng).as_bytes());
        out.push(b'\n');
    }
    for _ in 0..rng.between(0, 5) {
        out.extend_from_slice(field(rng).as_bytes());
    }
    part(rng, 0, &mut out);
    out
}

fn part(rng: &mut Rng, depth: usize, out: &mut Vec<u8>) {
    if rng.chance(10) {
        out.extend_from_slice(field(rng).as_bytes());
    }
    if depth < 6 && rng.chance(45) {
        return multipart(rng, depth, out);
    }
    if depth < 6 && rng.chance(12) {
        out.extend_from_slice(b"Content-Type: message/rfc822\n\n");
        let inner = mail(rng);
        out.extend_from_slice(&inner);
        return;
    }
    let charset = *rng.pick(&CHARSETS);
    let kind = *rng.pick(&[
        "text/plain",
        "text/html",
        "text/html",
        "text/csv",
        "application/pdf",
        "message/delivery-status",
        "image/gif",
        "",
        "html",
    ]);
    let mut body = Vec::new();
    for _ in 0..rng.between(0, 8) {
        let text = if kind.contains("html") && rng.chance(60) { rng.pick(&HTML).as_bytes() } else { *rng.pick(&TEXTS) };
        body.extend_from_slice(text);
    }
    if rng.chance(5) {
        let len = rng.between(500, 4000) as usize;
        body = rng.bytes(len);
    }
    let encoding = *rng.pick(&[
        "",
        "7bit",
        "8bit",
        "base64",
        "base64",
        "quoted-printable",
        "quoted-printable",
        "x-uuencode",
        "base64 (x)",
        "binary",
    ]);
    let disposition = *rng.pick(&[
        "",
        "",
        "inline",
        "attachment; filename=a.bin",
        "attachment; filename*=utf-8''%C3%BC.txt",
        "attachment",
    ]);
    out.extend_from_slice(format!("Content-Type: {kind}; charset=\"{charset}\"\n").as_bytes());
    for (name, value) in [("Content-Transfer-Encoding", encoding), ("Content-Disposition", disposition)] {
        if !value.is_empty() {
            out.extend_from_slice(format!("{name}: {value}\n").as_bytes());
        }
    }
    out.extend_from_slice(if rng.chance(95) { b"\n" } else { b"" });
    match encoding {
        "base64" | "base64 (x)" => {
            let width = *rng.pick(&[76, 76, 60, 72, 75, 4, 1000]);
            for line in STANDARD.encode(&body).as_bytes().chunks(width) {
                out.extend_from_slice(line);
                out.extend_from_slice(if rng.chance(98) { b"\n" } else { b" \r\n" });
            }
        }
        "quoted-printable" => out.extend_from_slice(quoted(&body, false).as_bytes()),
        _ => out.extend_from_slice(&body),
    }
}

fn multipart(rng: &mut Rng, depth: usize, out: &mut Vec<u8>) {
    let boundary = match rng.below(5) {
        0 => "b".to_owned(),
        1 => "=_b b".to_owned(),
        _ => rng.token(6),
    };
    let declared = match rng.below(10) {
        0 => String::new(),
        1 => "other".to_owned(),
        _ => boundary.clone(),
    };
    let kind = *rng.pick(&["mixed", "alternative", "related", "signed", "digest", "report", "mixed"]);
    let quote = if rng.chance(80) { "\"" } else { "" };
    out.extend_from_slice(format!("Content-Type: multipart/{kind}; boundary={quote}{declared}{quote}\n\n").as_bytes());
    if rng.chance(30) {
        out.extend_from_slice(b"This is a message of several parts.\n");
    }
    for _ in 0..rng.between(1, 4) {
        out.extend_from_slice(format!("\n--{boundary}\n").as_bytes());
        part(rng, depth + 1, out);
    }
    if rng.chance(80) {
        out.extend_from_slice(format!("\n--{boundary}--\n").as_bytes());
    }
}

//! Mail as it really is, restored into a mailbox by the real program: what the mailbox holds afterwards is held against
//! what each mail holds, text and files, byte for byte. Each case is of a kind that was restored wrongly somewhere.

mod attachments;

use crate::common;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use common::{Lab, write};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use strongroom_simulator::faults::Rule;
use strongroom_simulator::mime::{Payload, Properties};
use strongroom_simulator::tenant::Content;
use strongroom_simulator::{Fault, Faults, Options, Organisation, Simulator, Tenant};

/// An organisation with one empty mailbox, and the program with a configuration for it.
struct Office {
    simulator: Simulator,
    tenant: Arc<Tenant>,
    user: String,
    lab: Lab,
}

impl Office {
    fn new() -> Self {
        let organisation = Organisation { users: 1, messages: 0, ..Organisation::default() };
        let simulator = Simulator::start(Options { organisation, ..Options::default() }).unwrap();
        let tenant = simulator.tenant();
        let user = tenant.users()[0].principal_name();
        let lab = Lab::new();
        write(&lab.path("secret"), simulator.client_secret());
        fs::set_permissions(lab.path("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let configuration = format!(
            "[tenants.contoso]\ntenant_id = \"{}\"\nclient_id = \"{}\"\nclient_secret = {{ file = \"{}\" }}\n\
             endpoints = {{ login = \"{url}\", graph = \"{url}\" }}\n",
            simulator.tenant_id(),
            simulator.client_id(),
            lab.path("secret").display(),
            url = simulator.url(),
        );
        write(&lab.path("config/strongroom/strongroom.toml"), configuration);
        Self { simulator, tenant, user, lab }
    }

    /// Restores the newest snapshot of `set` below the folder `into`, and returns the report.
    #[track_caller]
    fn restore(&self, set: &str, into: &str, exit: i32) -> Value {
        let to = format!("contoso:Users/{}/Outlook/{into}", self.user);
        self.lab.json_with_exit(args!["restore", format!("latest:{set}"), "--to", to], exit)
    }

    /// Backs these mails up as files of a folder and restores them.
    #[track_caller]
    fn bring(&self, mails: &[Case], exit: i32) -> Value {
        let folder = self.lab.dir("mails");
        for (number, case) in mails.iter().enumerate() {
            write(&folder.join(format!("{number}.eml")), &case.mime);
        }
        self.lab.backup(&folder, "mails");
        self.restore("mails", "Back", exit)
    }

    /// Returns what was made in the mailbox, by subject.
    fn made(&self) -> BTreeMap<String, Arc<Properties>> {
        let made = |content: &Content| match content {
            Content::Properties(properties) => (properties.subject.clone(), properties.clone()),
            other => panic!("{other:?} was not made as JSON"),
        };
        self.tenant
            .with_mailbox(&self.user, |mailbox| mailbox.messages().map(|(_, record)| made(&record.content)).collect())
            .unwrap()
    }

    /// Returns the names of the folders below `into`, joined by slashes, with the subjects in each.
    fn folders(&self, into: &str) -> BTreeMap<String, Vec<String>> {
        let folders = self.tenant.true_folders(&self.user).unwrap();
        let below = folders
            .iter()
            .filter_map(|folder| Some((folder.id.clone(), folder.path.strip_prefix(&[into.to_owned()])?)));
        let paths: BTreeMap<String, String> = below.map(|(id, path)| (id, path.join("/"))).collect();
        let mut found: BTreeMap<String, Vec<String>> = paths.values().map(|path| (path.clone(), Vec::new())).collect();
        for message in self.tenant.true_messages(&self.user).unwrap() {
            if let Some(path) = paths.get(&message.folder) {
                found.get_mut(path).unwrap().push(message.properties["subject"].as_str().unwrap().to_owned());
            }
        }
        found.values_mut().for_each(|subjects| subjects.sort());
        found
    }
}

/// A mail and what must be in the mailbox afterwards.
struct Case {
    subject: String,
    mime: Vec<u8>,
    /// The text, blanks and line ends aside.
    text: String,
    /// Name and bytes; a file without a name may be called anything.
    files: Vec<(String, Vec<u8>)>,
}

fn head(subject: &str) -> String {
    format!(
        "From: Ann <ann@example.org>\nTo: bo@example.org\nSubject: {subject}\nDate: Mon, 2 Mar 2026 10:00:00 +0000\n\
        Message-ID: <{}@example.org>\nMIME-Version: 1.0\n",
        blake3::hash(subject.as_bytes()).to_hex()
    )
}

/// A mail that ends its lines with `eol`; what it holds ends them as it is.
fn case(subject: String, eol: &str, rest: &[u8], text: &str, files: &[(&str, &[u8])]) -> Case {
    let mime = [head(&subject).replace('\n', eol).as_bytes(), rest].concat();
    let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
    Case { subject, mime, text: text.to_owned(), files }
}

/// A multipart with the text `see` and these parts: their fields, and what they hold.
fn with_parts(subject: String, eol: &str, parts: &[(&str, &[u8])], ends: bool, files: &[(&str, &[u8])]) -> Case {
    let mut rest = b"Content-Type: multipart/mixed; boundary=BB\n\n--BB\nContent-Type: text/plain\n\nsee\n".to_vec();
    let lines = |text: &str, rest: &mut Vec<u8>| rest.extend_from_slice(text.replace('\n', eol).as_bytes());
    rest = String::from_utf8(rest).unwrap().replace('\n', eol).into_bytes();
    for (number, (fields, content)) in parts.iter().enumerate() {
        lines(&format!("--BB\n{fields}\n\n"), &mut rest);
        rest.extend_from_slice(content);
        if ends || number + 1 < parts.len() {
            lines("\n", &mut rest);
        }
    }
    if ends {
        lines("--BB--\n", &mut rest);
    }
    case(subject, eol, &rest, "see", files)
}

const FILE: &str =
    "Content-Type: application/octet-stream; name=\"a.bin\"\nContent-Disposition: attachment; filename=\"a.bin\"";

fn bytes(len: usize) -> Vec<u8> {
    (0..=255_u8).cycle().take(2048).chain(*b"END!").take(len).collect()
}

fn lines(text: &str, width: usize, eol: &str) -> String {
    text.as_bytes().chunks(width).map(|line| str::from_utf8(line).unwrap()).collect::<Vec<_>>().join(eol)
}

/// What programs, servers and lists make of a file in base64.
fn in_base64(eol: &str, len: usize, cases: &mut Vec<Case>) {
    let bytes = bytes(len);
    let text = STANDARD.encode(&bytes);
    let usual = lines(&text, 76, eol);
    let torn = |at: usize, junk: &str| format!("{}{junk}{}", &usual[..at], &usual[at..]);
    let forms = [
        ("whole", usual.clone()),
        ("no padding", usual.trim_end_matches('=').to_owned()),
        ("more padding", format!("{usual}===")),
        ("padding on its own line", format!("{}{eol}==", usual.trim_end_matches('='))),
        ("blanks at the ends", lines(&text, 76, &format!(" {eol}"))),
        ("tabs at the begin", lines(&text, 76, &format!("{eol}\t"))),
        ("empty lines before", format!("{eol}{eol}{usual}")),
        ("empty lines between", lines(&text, 76, &format!("{eol}{eol}"))),
        ("empty lines behind", format!("{usual}{eol}{eol}{eol}")),
        ("a NUL", torn(100, "\0")),
        ("a stray letter", torn(200, "!")),
        ("a stray letter of two bytes", torn(40, "\u{fc}")),
        ("NULs behind", format!("{usual}\0\0")),
        ("one line", text.clone()),
        ("lines of 60", lines(&text, 60, eol)),
        ("lines of 77", lines(&text, 77, eol)),
        ("for URLs", lines(&URL_SAFE.encode(&bytes), 76, eol)),
        ("for URLs without padding", lines(&URL_SAFE_NO_PAD.encode(&bytes), 76, eol)),
        (
            "two texts",
            format!(
                "{}{eol}{}",
                lines(&STANDARD.encode(&bytes[..1000]), 76, eol),
                lines(&STANDARD.encode(&bytes[1000..]), 76, eol)
            ),
        ),
        (
            "a footer",
            format!(
                "{usual}{eol}{eol}_______________________________________________{eol}List mailing list{eol}http://example.org/list{eol}"
            ),
        ),
        ("a footer at once", format!("{usual}{eol}-- {eol}The list: all of it{eol}")),
        ("a footer of words", format!("{usual}{eol}{eol}Sent by the list of all lists{eol}Regards{eol}")),
    ];
    let bytes = bytes.as_slice();
    for (name, text) in &forms {
        let fields = format!("{FILE}\nContent-Transfer-Encoding: base64");
        let subject = format!("base64: {name}, {len} bytes, {eol:?}").replace('"', "'");
        cases.push(with_parts(subject, eol, &[(&fields, text.as_bytes())], true, &[("a.bin", bytes)]));
    }
    let unended = format!("base64: no last boundary, {len} bytes, {eol:?}").replace('"', "'");
    let fields = format!("{FILE}\nContent-Transfer-Encoding: base64");
    cases.push(with_parts(unended, eol, &[(&fields, usual.as_bytes())], false, &[("a.bin", bytes)]));
}

/// Restores all and compares all.
#[track_caller]
fn assert_restored(cases: &[Case]) {
    let office = Office::new();
    let report = office.bring(cases, 0);
    assert_eq!(report["restored"], cases.len(), "{report}");
    let made = office.made();
    let mut wrong = Vec::new();
    for case in cases {
        match made.get(&case.subject) {
            Some(made) => wrong.extend(differences(case, made)),
            None => wrong.push(format!("{}: is not there", case.subject)),
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn differences(case: &Case, made: &Properties) -> Vec<String> {
    let mut wrong = Vec::new();
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    if words(&made.body.content) != words(&case.text) {
        wrong.push(format!("{}: the text is {:?}", case.subject, made.body.content));
    }
    let found: Vec<(&str, &[u8])> = made
        .attachments
        .iter()
        .map(|file| match &file.payload {
            Payload::File(bytes) => (file.name.as_str(), bytes.as_slice()),
            other => panic!("{other:?} is no file"),
        })
        .collect();
    let is_same = |wanted: &(String, Vec<u8>), (found, there): &(&str, &[u8])| {
        wanted.1 == *there && (wanted.0.is_empty() || wanted.0 == *found)
    };
    if found.len() != case.files.len() || !case.files.iter().zip(&found).all(|(wanted, found)| is_same(wanted, found)) {
        let shown = |name: &str, bytes: &[u8]| {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
            format!("{name:?} of {} bytes {text:?}", bytes.len())
        };
        let found: Vec<_> = found.iter().map(|(name, bytes)| shown(name, bytes)).collect();
        let wanted: Vec<_> = case.files.iter().map(|(name, bytes)| shown(name, bytes)).collect();
        wrong.push(format!("{}: {} instead of {}", case.subject, found.join(", "), wanted.join(", ")));
    }
    wrong
}

#[test]
fn parts_in_parts_come_back() {
    let mut cases = Vec::new();
    let mixed = "Content-Type: multipart/mixed; boundary=";
    let inner = "Subject: inner\nContent-Type: multipart/mixed; boundary=II\n\n--II\n\nx\n--II\nContent-Type: a/b; name=y\n\ny\n--II--\n";
    let same = inner.replace("II", "BB");
    let signed =
        "--S\nContent-Type: text/plain\n\nSigned  \n--S\nContent-Type: application/pkcs7-signature\n\nMIIB\n--S--\n";
    let sealed = "Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\"; boundary=S";
    let entity = format!("{sealed}\r\n\r\n{signed}");
    for (name, rest, text, files) in [
        (
            "mixed in mixed",
            format!("{mixed}AA\n\n--AA\n{mixed}AAA\n\n--AAA\n\nsee\n--AAA\nContent-Type: a/b; name=x\n\n1\n--AAA--\n--AA\nContent-Type: a/b; name=y\n\n2\n--AA--\n"),
            "see",
            vec![("x", "1"), ("y", "2")],
        ),
        (
            "inner boundary is missing",
            format!("{mixed}AA\n\n--AA\n{mixed}CC\n\n--CC\n\nsee\n--AA\nContent-Type: a/b; name=y\n\n2\n--AA--\n"),
            "see",
            vec![("y", "2")],
        ),
        (
            "another boundary than the declared one",
            format!("{mixed}AA\n\n--XX\nContent-Type: text/plain\n\nsee\n--XX\nContent-Type: a/b; name=y\n\n2\n--XX--\n"),
            "see",
            vec![("y", "2")],
        ),
        (
            "no boundary is declared",
            "\n--XX\nContent-Type: text/plain\n\nsee\n--XX\nContent-Type: a/b; name=y\n\n2\n--XX--\n".to_owned(),
            "see",
            vec![("y", "2")],
        ),
        (
            "what follows the last boundary",
            format!("{mixed}AA\n\n--AA\n\nsee\n--AA--\n\n--AA\nContent-Type: a/b; name=y\n\n2\n--AA--\nepilogue\n"),
            "see",
            vec![("y", "2")],
        ),
        (
            "related in alternative",
            "Content-Type: multipart/alternative; boundary=AA\n\n--AA\n\nplain\n--AA\nContent-Type: multipart/related; boundary=RR\n\n\
            --RR\nContent-Type: text/html\n\n<img src=\"cid:x\">\n--RR\nContent-Type: image/png; name=x.png\nContent-ID: <x>\n\
            Content-Transfer-Encoding: base64\n\nAAEC\n--RR--\n--AA--\n".to_owned(),
            "<img src=\"cid:x\">",
            vec![("x.png", "\0\x01\x02")],
        ),
        ("a message", format!("{mixed}BB\n\n--BB\n\nsee\n--BB\nContent-Type: message/rfc822\n\n{inner}\n--BB--\n"), "see", vec![("inner.eml", inner)]),
        (
            "a message with the same boundary",
            format!("{mixed}BB\n\n--BB\n\nsee\n--BB\nContent-Type: message/rfc822; name=m.eml\n\n{same}\n--BB\nContent-Type: a/b; name=z\n\n3\n--BB--\n"),
            "see",
            vec![("m.eml", &*same), ("z", "3")],
        ),
        (
            "a message in base64",
            format!("{mixed}BB\n\n--BB\n\nsee\n--BB\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n{}\n--BB--\n", lines(&STANDARD.encode(inner), 76, "\n")),
            "see",
            vec![("inner.eml", inner)],
        ),
        (
            "a digest",
            "Content-Type: multipart/digest; boundary=D\n\n--D\n\nSubject: one\n\n1\n--D\n\nSubject: two\n\n2\n--D--\n".to_owned(),
            "",
            vec![("one.eml", "Subject: one\n\n1"), ("two.eml", "Subject: two\n\n2")],
        ),
        ("signed", format!("{sealed}\n\n{signed}"), "Signed", vec![("smime.p7m", &*entity)]),
        (
            "encrypted",
            "Content-Type: application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m\nContent-Transfer-Encoding: base64\n\nAAEC\n".to_owned(),
            "",
            vec![("smime.p7m", "\0\x01\x02")],
        ),
        (
            "nothing but a file",
            "Content-Type: application/pdf; name=a.pdf\nContent-Transfer-Encoding: base64\n\nAAEC\n".to_owned(),
            "",
            vec![("a.pdf", "\0\x01\x02")],
        ),
        (
            "nothing but a text that is attached",
            "Content-Type: text/plain; charset=utf-8\nContent-Disposition: attachment; filename=a.txt\n\nHi\n".to_owned(),
            "",
            vec![("a.txt", "Hi\n")],
        ),
        (
            "a table that is said to be base64",
            format!("{mixed}BB\n\n--BB\n\nsee\n--BB\nContent-Type: text/csv; name=a.csv\nContent-Transfer-Encoding: base64\n\nfirstname,lastname\nAnn,Lee\n--BB--\n"),
            "see",
            vec![("a.csv", "firstname,lastname\nAnn,Lee")],
        ),
        (
            "a last boundary without its line end",
            format!("{mixed}BB\n\n--BB\n\nsee\n--BB\nContent-Type: a/b; name=x\nContent-Transfer-Encoding: base64\n\nSGVsbG8gd29ybGQ=--BB--\n"),
            "see",
            vec![("x", "Hello world")],
        ),
        (
            "a footer of one word in each line",
            format!("{mixed}BB\n\n--BB\n\nsee\n--BB\nContent-Type: a/b; name=x\nContent-Transfer-Encoding: base64\n\nSGVsbG8gd29ybGQ=\n\nRegards\nAnn\n--BB--\n"),
            "see",
            vec![("x", "Hello world")],
        ),
        (
            "two texts",
            format!("{mixed}BB\n\n--BB\n\nsee\n--BB\n\nand more\n--BB--\n"),
            "see",
            vec![("", "and more")],
        ),
        (
            "empty parts",
            format!("{mixed}BB\n\n--BB\n\nsee\n--BB\n--BB\n\n--BB--\n"),
            "see",
            vec![("", ""), ("", "")],
        ),
        (
            "an invitation",
            "Content-Type: multipart/alternative; boundary=AA\n\n--AA\n\nplain\n--AA\nContent-Type: text/html\n\n<p>html\n--AA\n\
            Content-Type: text/calendar; method=REQUEST\n\nBEGIN:VCALENDAR\nEND:VCALENDAR\n--AA--\n".to_owned(),
            "<p>html",
            vec![("", "BEGIN:VCALENDAR\nEND:VCALENDAR")],
        ),
        (
            "a report",
            "Content-Type: multipart/report; boundary=RR; report-type=delivery-status\n\n--RR\n\nFailed\n--RR\nContent-Type: message/delivery-status\n\n\
            Reporting-MTA: dns; x\n--RR\nContent-Type: text/rfc822-headers\n\nSubject: gone\n--RR--\n".to_owned(),
            "Failed",
            vec![("", "Reporting-MTA: dns; x"), ("", "Subject: gone")],
        ),
    ] {
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (*name, content.as_bytes())).collect();
        cases.push(case(name.to_owned(), "\n", rest.as_bytes(), text, &files));
    }
    let mut deep = String::new();
    (0..30).for_each(|at| deep += &format!("{mixed}b{at}_\n\n--b{at}_\n"));
    deep += "\nsee\n--b29_\nContent-Type: a/b; name=deep\n\n1";
    cases.push(case("thirty in each other".to_owned(), "\n", deep.as_bytes(), "see", &[("deep", b"1")]));
    assert_restored(&cases);
}

#[test]
fn texts_come_back_in_every_charset() {
    let mut cases = Vec::new();
    let mut add = |label: &str, encoding: &str, body: &[u8], text: &str| {
        let subject = format!("text {}", cases.len());
        let kind = if label.is_empty() { String::new() } else { format!("; charset={label}") };
        let fields = format!("Content-Type: text/plain{kind}\nContent-Transfer-Encoding: {encoding}\n\n");
        cases.push(case(subject, "\n", &[fields.as_bytes(), body].concat(), text, &[]));
    };
    for (label, bytes, text) in [
        ("utf-8", "Grüße aus Köln".as_bytes(), "Grüße aus Köln"),
        ("iso-8859-1", b"Gr\xfc\xdfe aus K\xf6ln", "Grüße aus Köln"),
        ("windows-1252", b"\x84Gr\xfc\xdfe\x93 aus K\xf6ln", "„Grüße“ aus Köln"),
        ("cp850", b"Gr\x81\xe1e aus K\x94ln", "Grüße aus Köln"),
        ("iso-8859-2", b"Dvo\xf8\xe1k", "Dvořák"),
        ("koi8-r", b"\xf0\xd2\xc9\xd7\xc5\xd4", "Привет"),
        ("windows1251", b"\xcf\xf0\xe8\xe2\xe5\xf2", "Привет"),
        ("gb2312", b"\xbb\xe1\xd2\xe9", "会议"),
        ("big5", b"\xb7|\xc4\xb3", "會議"),
        ("euc-kr", b"\xc8\xb8\xc0\xc7", "회의"),
        ("ks_c_5601-1987", b"\xc8\xb8\xc0\xc7", "회의"),
        ("iso-2022-kr", b"\x1b$)C\x0eH8@G\x0f", "회의"),
        ("iso-2022-jp", b"\x1b$BF|K\\8l\x1b(B", "日本語"),
        ("cp932", b"\x93\xfa\x96{\x8c\xea", "日本語"),
        ("euc-jp", b"\xc6\xfc\xcb\xdc\xb8\xec", "日本語"),
        ("utf-7", b"Gr+APwA3w-e", "Grüße"),
        ("hz-gb-2312", b"~{;aRi~}", "会议"),
        ("tis-620", b"\xca\xc7\xd1\xca\xb4\xd5", "สวัสดี"),
        ("x-unknown", "Grüße".as_bytes(), "Grüße"),
        ("us-ascii", b"Gr\xfc\xdfe aus K\xf6ln", "Grüße aus Köln"),
        ("", b"Gr\xfc\xdfe aus K\xf6ln", "Grüße aus Köln"),
        ("", "Grüße aus Köln".as_bytes(), "Grüße aus Köln"),
        ("utf-8", b"Gr\xfc\xdfe aus K\xf6ln", "Grüße aus Köln"),
        ("iso-8859-1", "Grüße aus Köln".as_bytes(), "Grüße aus Köln"),
        ("utf-16le", b"G\0r\0\xfc\0\xdf\0e\0", "Grüße"),
    ] {
        if !label.starts_with("utf-16") {
            add(label, "8bit", bytes, text);
        }
        add(label, "base64", STANDARD.encode(bytes).as_bytes(), text);
        add(label, "base64", STANDARD.encode(bytes).trim_end_matches('=').as_bytes(), text);
        let quoted: String = bytes.iter().map(|byte| format!("={byte:02X}")).collect();
        add(label, "quoted-printable", quoted.as_bytes(), text);
    }
    let footer = "R3LDvMOfZSwgZGVyIFRleHQgZGVyIE1haWw=\n\n____\nList mailing list\n";
    add("utf-8", "base64", footer.as_bytes(), "Grüße, der Text der Mail ____ List mailing list");
    add("utf-8", "quoted-printable", b"K=C3=B6ln a=b LASTLINE", "Köln a=b LASTLINE");
    add("utf-8", "base64", b"Dear all, this is not encoded", "Dear all, this is not encoded");
    add("utf-8", "7bit", b"", "");
    assert_restored(&cases);
}

#[test]
fn mails_of_an_mbox_file_come_back() {
    let office = Office::new();
    let mut cases = Vec::new();
    in_base64("\n", 2051, &mut cases);
    let mut mbox = Vec::new();
    for case in &cases {
        mbox.extend_from_slice(b"From ann@example.org Mon Mar  2 10:00:00 2026\n");
        mbox.extend_from_slice(&case.mime);
        mbox.push(b'\n');
    }
    write(&office.lab.path("old.mbox"), mbox);
    office.lab.json(args!["backup", "--mbox", office.lab.path("old.mbox"), "--as", "old"]);
    let report = office.restore("old", "Back", 0);
    assert_eq!(report["restored"], cases.len(), "{report}");
    let made = office.made();
    let wrong: Vec<_> = cases.iter().flat_map(|case| differences(case, &made[&case.subject])).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Two files and a text.
fn two_files() -> Case {
    let parts: [(&str, &[u8]); 2] = [(FILE, b"first"), ("Content-Type: a/b; name=\"b.bin\"", b"second")];
    with_parts("Two files".to_owned(), "\n", &parts, true, &[("a.bin", b"first"), ("b.bin", b"second")])
}

#[test]
fn what_the_service_writes_otherwise_is_a_failure_that_says_what() {
    for (fault, what) in [
        (Fault::ChangesBytes, "attachment \"a.bin\" has other bytes: 5 of them instead of 5"),
        (Fault::CutsText, "body"),
        (Fault::RenamesFile, "attachment \"a.bin\" is called \"renamed.bin\""),
        (Fault::DropsFile, "attachment \"a.bin\" of 5 bytes is missing"),
        (Fault::SwapsFiles, "attachment \"a.bin\" has other bytes: 6 of them instead of 5 (and 1 more)"),
    ] {
        let office = Office::new();
        let rule =
            Rule { method: Some("POST".to_owned()), contains: "/messages".to_owned(), skip: 0, times: None, fault };
        office.simulator.set_faults(Faults { rules: vec![rule], ..Faults::default() });
        let report = office.bring(&[two_files()], 3);
        assert_eq!((&report["restored"], &report["failed"]), (&0.into(), &1.into()), "{report}");
        let said = report.to_string().replace("\\\"", "\"");
        assert!(said.contains(&format!("what was read back differs: {what}")), "{fault:?}: {report}");
    }
}

#[test]
fn a_wrong_answer_when_it_is_read_back_is_no_difference() {
    for seed in 0..8 {
        let office = Office::new();
        let rule = Rule {
            method: Some("GET".to_owned()),
            contains: "parentFolderId,hasAttachments".to_owned(),
            skip: 0,
            times: Some(2),
            fault: Fault::OtherBody,
        };
        office.simulator.set_faults(Faults { seed, rules: vec![rule], ..Faults::default() });
        let other = case("Other".to_owned(), "\n", b"\nanother text\n", "another text", &[]);
        let report = office.bring(&[two_files(), other], 0);
        assert_eq!(report["restored"], 2, "{report}");
        assert!(office.simulator.state().faults.injected().contains_key(&Fault::OtherBody));
    }
}

#[test]
fn the_folders_of_a_maildir_are_those_that_it_stands_for() {
    let office = Office::new();
    let maildir = office.lab.dir("Mail");
    let mail = |subject: &str| format!("{}\nThe text of {subject}\n", head(subject));
    for (path, subject) in [
        ("cur/1.1.host:2,S", "read"),
        ("new/3.1.host", "new"),
        (".Sent/cur/5.1.host:2,S", "sent"),
        (".Archive.2019/cur/6.1.host:2,S", "old"),
        (".Archive.2019/new/7.1.host", "old and new"),
        (".Entw&APw-rfe/cur/8.1.host:2,D", "draft"),
        ("Work/cur/3f/9.1.host:2,S", "spread"),
    ] {
        write(&maildir.join(path), mail(subject));
    }
    for folder in ["", ".Sent", ".Archive.2019", ".Entw&APw-rfe", "Work"] {
        for shelf in ["cur", "new", "tmp"] {
            fs::create_dir_all(maildir.join(folder).join(shelf)).unwrap();
        }
    }
    office.lab.backup(&maildir, "maildir");
    let report = office.restore("maildir", "Back", 0);
    let expected = |folders: &[(&str, &[&str])]| {
        let owned = |subjects: &[&str]| subjects.iter().map(|subject| (*subject).to_owned()).collect::<Vec<_>>();
        folders.iter().map(|(path, subjects)| ((*path).to_owned(), owned(subjects))).collect::<BTreeMap<_, _>>()
    };
    let folders: [(&str, &[&str]); 6] = [
        ("", &["new", "read"]),
        ("Archive", &[]),
        ("Archive/2019", &["old", "old and new"]),
        ("Entwürfe", &["draft"]),
        ("Sent", &["sent"]),
        ("Work", &["spread"]),
    ];
    assert_eq!(office.folders("Back"), expected(&folders), "{report}");
    // Again, nothing is made.
    let report = office.restore("maildir", "Back", 0);
    assert_eq!((&report["restored"], &report["already_there"]), (&0.into(), &7.into()), "{report}");
    assert_eq!(office.folders("Back"), expected(&folders));
}

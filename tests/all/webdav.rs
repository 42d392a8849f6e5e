//! `strongroom webdav` as clients see it: by raw HTTP after RFC 4918 and RFC 9110, and by a real client.

use crate::common;

use common::{Lab, PATIENCE, eventually, noise, run, text, tool, walk, write};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use strongroom_corpora::hostile;

/// A running server. Dropping it ends the server.
struct Dav {
    child: Child,
    url: String,
}

impl Dav {
    #[track_caller]
    fn start(lab: &Lab, args: &[&str]) -> Dav {
        Dav::listen(lab, "127.0.0.1:0", args)
    }

    #[track_caller]
    fn listen(lab: &Lab, address: &str, args: &[&str]) -> Dav {
        let mut command = lab.command(args!["webdav", "--listen", address]);
        let mut child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Dav { child, url: url.trim_end().to_owned() }
    }

    fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap().trim_end_matches('/')
    }

    /// Sends one request with `path` and headers unchanged, and reads the whole answer.
    #[track_caller]
    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        let host = [("Host", self.address())];
        let host = host.iter().filter(|_| !headers.iter().any(|(name, _)| *name == "Host"));
        for (name, value) in host.chain(headers) {
            request += &format!("{name}: {value}\r\n");
        }
        stream.write_all((request + "\r\n").as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        Answer::parse(&answer, method == "HEAD")
    }

    #[track_caller]
    fn get(&self, path: &str) -> Vec<u8> {
        let answer = self.ask("GET", path, &[]);
        assert_eq!((answer.status, answer.whole), (200, true), "{path}");
        answer.body
    }

    /// Lists a folder: the folder itself first, then its contents, each with the path in the answer.
    #[track_caller]
    fn list(&self, path: &str) -> Vec<Resource> {
        let answer = self.ask("PROPFIND", path, &[("Depth", "1")]);
        assert_eq!((answer.status, answer.whole), (207, true), "{path}");
        answer.resources()
    }

    fn names(&self, path: &str) -> Vec<String> {
        self.list(path).into_iter().skip(1).map(|found| found.name()).collect()
    }

    /// Ends the server by a signal. Returns its exit code and its messages.
    #[track_caller]
    fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        eventually("the server has ended", PATIENCE, || self.child.try_wait().unwrap().is_some());
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for Dav {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    /// True if the body is complete.
    whole: bool,
}

impl Answer {
    #[track_caller]
    fn parse(bytes: &[u8], head: bool) -> Answer {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            // The connection ended before an answer.
            return Answer { status: 0, headers: BTreeMap::new(), body: Vec::new(), whole: false };
        };
        let head_text = text(&bytes[..end]);
        let mut lines = head_text.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: BTreeMap<_, _> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let rest = &bytes[end + 4..];
        let (body, whole) = match headers.get("content-length") {
            _ if head => (rest.to_vec(), rest.is_empty()),
            Some(_) if status == 304 => (rest.to_vec(), rest.is_empty()),
            Some(len) => (rest.to_vec(), len.parse() == Ok(rest.len())),
            None if headers.contains_key("transfer-encoding") => unchunk(rest),
            None => (rest.to_vec(), true),
        };
        Answer { status, headers, body, whole }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn resources(&self) -> Vec<Resource> {
        let xml = std::str::from_utf8(&self.body).expect("XML in UTF-8");
        xml.split("<D:response>").skip(1).map(Resource::parse).collect()
    }
}

fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|window| window == b"\r\n") {
        let len = usize::from_str_radix(&text(&rest[..line]), 16).unwrap();
        let start = line + 2;
        if len == 0 {
            return (body, true);
        }
        let Some(chunk) = rest.get(start..start + len) else { break };
        body.extend_from_slice(chunk);
        rest = rest.get(start + len + 2..).unwrap_or_default();
    }
    (body, false)
}

#[derive(Debug)]
struct Resource {
    href: String,
    folder: bool,
    len: Option<u64>,
    modified: String,
    tag: Option<String>,
}

impl Resource {
    fn parse(xml: &str) -> Resource {
        let property = |name: &str| {
            let (_, rest) = xml.split_once(&format!("<D:{name}>"))?;
            Some(rest.split_once("</D:").unwrap().0.replace("&quot;", "\""))
        };
        Resource {
            href: property("href").expect("an href"),
            folder: xml.contains("<D:collection"),
            len: property("getcontentlength").map(|len| len.parse().unwrap()),
            modified: property("getlastmodified").unwrap_or_default(),
            tag: property("getetag"),
        }
    }

    /// Returns the bytes of the path.
    fn path(&self) -> Vec<u8> {
        let printable = self.href.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~/%".contains(&byte));
        assert!(printable, "encoded so that no client can misread it: {}", self.href);
        percent_encoding::percent_decode_str(&self.href).collect()
    }

    fn name(&self) -> String {
        text(&self.path()).trim_end_matches('/').rsplit('/').next().unwrap().to_owned()
    }
}

/// The contents of a folder, by their paths, without symbolic links: size, hash (of files) and time.
type Tree = BTreeMap<Vec<u8>, (Option<(u64, blake3::Hash)>, String)>;

fn tree_on_disk(dir: &Path) -> Tree {
    let mut tree = Tree::new();
    walk(dir, &mut |path, stat| {
        let name = path.strip_prefix(dir).unwrap().as_os_str().as_bytes().to_vec();
        let file = || fs::read(path).map(|bytes| (stat.len(), blake3::hash(&bytes))).unwrap();
        if !stat.is_symlink() {
            tree.insert(name, (stat.is_file().then(file), http_date(stat.mtime())));
        }
    });
    tree
}

/// A time before 1970 is shown as the beginning of 1970.
fn http_date(secs: i64) -> String {
    jiff::Timestamp::from_second(secs.max(0)).unwrap().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn tree_over_http(dav: &Dav) -> Tree {
    let mut tree = Tree::new();
    let mut folders = vec!["/".to_owned()];
    while let Some(folder) = folders.pop() {
        let listed = dav.list(&folder);
        assert_eq!(listed[0].href, folder, "the folder itself comes first");
        for found in &listed[1..] {
            let file = (!found.folder).then(|| {
                let body = dav.get(&found.href);
                assert_eq!(found.len, Some(body.len() as u64), "{}", found.href);
                (body.len() as u64, blake3::hash(&body))
            });
            if found.folder {
                folders.push(found.href.clone());
            }
            let path = found.path();
            let path = path[1..].strip_suffix(b"/").unwrap_or(&path[1..]).to_vec();
            assert!(tree.insert(path, (file, found.modified.clone())).is_none(), "twice: {}", found.href);
        }
    }
    tree
}

#[test]
fn everything_that_hurts_arrives_byte_for_byte() {
    let lab = Lab::new();
    let source = lab.path("hostile");
    let options = hostile::Options { sparse_gib: 0, many: 3000, ..hostile::Options::default() };
    hostile::generate(&options, &source).unwrap();
    lab.backup(&source, "hostile");
    let dav = Dav::start(&lab, &["--snapshot", "latest"]);
    let (expected, found) = (tree_on_disk(&source), tree_over_http(&dav));
    assert!(expected.len() > 3000);
    for name in expected.keys().chain(found.keys()) {
        assert_eq!(expected.get(name), found.get(name), "{}", name.escape_ascii());
    }
}

/// A laboratory with a snapshot of a folder, a short file, a long one, and a link.
fn lab_with_snapshot() -> (Lab, PathBuf) {
    let lab = Lab::new();
    let source = lab.dir("source");
    write(&source.join("folder/mail.eml"), "Subject: hello\r\n\r\nGood morning.\r\n");
    write(&source.join("file"), "0123456789");
    write(&source.join("empty"), "");
    write(&source.join("long"), noise(1, 3 << 20));
    std::os::unix::fs::symlink("file", source.join("link")).unwrap();
    lab.backup(&source, "files");
    (lab, source)
}

#[test]
fn the_root_shows_what_a_mount_shows() {
    let (lab, source) = lab_with_snapshot();
    let dav = Dav::start(&lab, &[]);
    assert_eq!(dav.names("/"), ["README.txt", "latest", "snapshots", "text"]);
    assert!(text(&dav.get("/README.txt")).contains("read-only"));
    let snapshots = dav.names("/snapshots/");
    assert_eq!(snapshots.len(), 1);
    assert_eq!(dav.names("/latest/"), ["empty", "file", "folder", "long"], "links are not shown");
    assert_eq!(dav.ask("GET", "/latest/link", &[]).status, 404);
    assert_eq!(dav.get("/latest/file"), b"0123456789");
    assert_eq!(dav.get(&format!("/snapshots/{}/file", snapshots[0].replace(' ', "%20"))), b"0123456789");
    let first = dav.list("/latest/");

    write(&source.join("file"), "changed since");
    lab.backup(&source, "files");
    eventually("the new snapshot is shown", PATIENCE, || dav.names("/snapshots/").len() == 2);
    assert_eq!(dav.get("/latest/file"), b"changed since");
    let tags = |list: &[Resource]| list.iter().map(|found| found.tag.clone().unwrap()).collect::<Vec<_>>();
    let (before, after) = (tags(&first), tags(&dav.list("/latest/")));
    assert!(before.iter().all(|tag| !after.contains(tag)), "another snapshot, other tags");
    assert_eq!(dav.list("/")[0].tag, None, "a folder that changes has none");
}

#[test]
fn files_are_read_whole_in_part_and_not_at_all() {
    let (lab, source) = lab_with_snapshot();
    let dav = Dav::start(&lab, &["--snapshot", "latest"]);
    let long = fs::read(source.join("long")).unwrap();

    let head = dav.ask("HEAD", "/long", &[]);
    assert_eq!((head.status, head.header("content-length"), head.whole), (200, "3145728", true));
    assert_eq!(head.header("accept-ranges"), "bytes");
    let tag = head.header("etag");
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 20, "a strong tag: {tag}");
    assert_eq!(head.header("last-modified"), http_date(source.join("long").metadata().unwrap().mtime()));
    let listed = dav.list("/");
    assert_eq!(listed.iter().find(|found| found.href == "/long").unwrap().tag.as_deref(), Some(tag));
    assert_eq!(dav.get("/long"), long);
    assert_eq!(dav.get("/empty"), b"");

    let range = |range: &str| dav.ask("GET", "/long", &[("Range", range)]);
    for (asked, expected) in [
        ("bytes=0-0", 0..1),
        ("bytes=5-9", 5..10),
        ("bytes=1000000-2000000", 1_000_000..2_000_001),
        ("bytes=3145700-", 3_145_700..long.len()),
        ("bytes=-7", long.len() - 7..long.len()),
        ("bytes=3145000-99999999", 3_145_000..long.len()),
    ] {
        let answer = range(asked);
        assert_eq!((answer.status, answer.whole), (206, true), "{asked}");
        assert_eq!(answer.body, &long[expected.clone()], "{asked}");
        let content_range = format!("bytes {}-{}/{}", expected.start, expected.end - 1, long.len());
        assert_eq!(answer.header("content-range"), content_range);
    }
    let beyond = range("bytes=3145728-");
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */3145728"));
    let several = range("bytes=0-1,5-6");
    assert_eq!((several.status, several.body == long), (200, true), "several parts: the whole");

    let with = |name, value: &str| dav.ask("GET", "/file", &[(name, value)]);
    let tag = dav.ask("HEAD", "/file", &[]).header("etag").to_owned();
    let modified = dav.ask("HEAD", "/file", &[]).header("last-modified").to_owned();
    assert_eq!((with("If-None-Match", &tag).status, with("If-None-Match", &tag).body.len()), (304, 0));
    assert_eq!(with("If-Modified-Since", &modified).status, 304);
    assert_eq!(with("If-None-Match", "\"other\"").body, b"0123456789");
    assert_eq!(with("If-Match", "\"other\"").status, 412);
    let if_range = |tag: &str| dav.ask("GET", "/file", &[("Range", "bytes=2-3"), ("If-Range", tag)]);
    assert_eq!((if_range(&tag).status, if_range(&tag).body), (206, b"23".to_vec()));
    assert_eq!(if_range("\"other\"").status, 200);

    // The same file has the same tag in another process.
    let again = Dav::start(&lab, &["--snapshot", "latest"]);
    assert_eq!(again.ask("HEAD", "/file", &[]).header("etag"), tag);
    assert_eq!(dav.ask("GET", "/nothing", &[]).status, 404);
    assert_eq!(dav.ask("GET", "/file/below", &[]).status, 404);
    assert_eq!(dav.ask("GET", &format!("/{}", "x".repeat(300)), &[]).status, 404);
    assert_eq!(dav.ask("GET", "/folder/", &[]).status, 405);
    assert_eq!(dav.ask("GET", "/%2e%2e/%2e%2e/etc/passwd", &[]).status, 403);
}

#[test]
fn folders_are_listed_to_a_finite_depth() {
    let (lab, _) = lab_with_snapshot();
    let dav = Dav::start(&lab, &["--snapshot", "latest"]);
    let depth = |path: &str, depth: &str| dav.ask("PROPFIND", path, &[("Depth", depth)]);
    let hrefs = |answer: &Answer| answer.resources().into_iter().map(|found| found.href).collect::<Vec<_>>();
    assert_eq!(hrefs(&depth("/", "0")), ["/"]);
    assert_eq!(hrefs(&depth("/", "1")), ["/", "/empty", "/file", "/folder/", "/long"]);
    assert_eq!(hrefs(&depth("/folder", "1")), ["/folder/", "/folder/mail.eml"]);
    assert_eq!(hrefs(&depth("/file", "1")), ["/file"]);
    for endless in [depth("/", "infinity"), depth("/", "2"), dav.ask("PROPFIND", "/", &[])] {
        assert_eq!(endless.status, 403);
        assert!(text(&endless.body).contains("<D:propfind-finite-depth/>"));
    }
    assert_eq!(depth("/nothing", "1").status, 404);
}

#[test]
fn nothing_can_be_changed() {
    let (lab, _) = lab_with_snapshot();
    let dav = Dav::start(&lab, &[]);
    // A snapshot is listed with the time of its backup until somebody opens it, and then with the time of its root.
    tree_over_http(&dav);
    let before = (lab.objects(), tree_over_http(&dav));
    let target = format!("{}latest/other", dav.url);
    let destination = [("Destination", target.as_str()), ("Content-Length", "0")];
    for method in [
        "PUT",
        "POST",
        "PATCH",
        "DELETE",
        "MKCOL",
        "MOVE",
        "COPY",
        "LOCK",
        "UNLOCK",
        "PROPPATCH",
        "MKCALENDAR",
        "REPORT",
        "ACL",
        "CONNECT",
        "TRACE",
        "NONSENSE",
    ] {
        for path in ["/latest/file", "/latest/new", "/latest/folder", "/README.txt", "/"] {
            let answer = dav.ask(method, path, &destination);
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.header("allow"), "OPTIONS, GET, HEAD, PROPFIND");
        }
    }
    assert_eq!(before, (lab.objects(), tree_over_http(&dav)));
    let options = dav.ask("OPTIONS", "/latest/", &[]);
    assert_eq!((options.status, options.header("dav")), (200, "1"), "no locks are offered");
    assert!(!options.header("allow").contains("PUT"), "{}", options.header("allow"));
}

#[test]
fn requests_of_web_pages_are_refused() {
    let (lab, _) = lab_with_snapshot();
    let dav = Dav::start(&lab, &[]);
    let port = dav.address().rsplit(':').next().unwrap();
    for host in ["127.0.0.1", "localhost", "LocalHost", "[::1]"] {
        assert_eq!(dav.ask("GET", "/latest/file", &[("Host", &format!("{host}:{port}"))]).status, 200, "{host}");
    }
    // An attacker can let a name of his own point to this machine.
    for host in ["attacker.example", "127.0.0.1.attacker.example", "localhost.attacker.example", ""] {
        let answer = dav.ask("GET", "/latest/file", &[("Host", host)]);
        assert_eq!((answer.status, answer.body.len()), (421, 0), "{host}");
    }
    // A mailed page that somebody opens by its link.
    let answer = dav.ask("GET", "/latest/file", &[]);
    assert!(answer.header("content-security-policy").contains("sandbox"));
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

#[test]
fn unreadable_content_is_an_error_and_never_a_short_answer() {
    let (lab, _) = lab_with_snapshot();
    let dav = Dav::start(&lab, &["--snapshot", "latest"]);
    // The root is in the snapshot; its contents are in the packs.
    let packs: Vec<_> = lab.objects().into_keys().filter(|name| name.starts_with("packs/")).collect();
    assert!(!packs.is_empty());
    let gone = |pack: &String| (lab.repository().join(pack), lab.path("gone").join(pack.replace('/', "-")));
    lab.dir("gone");
    packs.iter().map(gone).for_each(|(from, to)| fs::rename(from, to).unwrap());
    let listing = dav.ask("PROPFIND", "/", &[("Depth", "1")]);
    assert!(!listing.whole, "broken off, not short: {}", text(&listing.body));
    assert_eq!(dav.ask("GET", "/file", &[]).status, 500);
    packs.iter().map(gone).for_each(|(from, to)| fs::rename(to, from).unwrap());
    assert_eq!(dav.names("/"), ["empty", "file", "folder", "long"], "as soon as it is back");

    // The beginning of the file can be read, but not its end.
    let largest = packs.iter().max_by_key(|name| lab.objects()[*name]).unwrap();
    let path = lab.repository().join(largest);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, [&bytes[..bytes.len() / 2], &vec![0; bytes.len() - bytes.len() / 2]].concat()).unwrap();
    let read = dav.ask("GET", "/long", &[]);
    assert!(!read.whole || read.status == 500, "{} bytes", read.body.len());
    assert!(noise(1, 3 << 20).starts_with(&read.body), "what came is right");
}

#[test]
fn the_log_holds_no_names_of_files() {
    let (lab, _) = lab_with_snapshot();
    let dav = Dav::start(&lab, &["-vvv"]);
    assert_eq!(dav.ask("GET", "/latest/nothing", &[]).status, 404);
    dav.names("/latest/folder/");
    dav.get("/latest/folder/mail.eml");
    drop(TcpStream::connect(dav.address()).unwrap());
    let (_, said) = dav.end(Signal::TERM);
    for name in ["folder", "mail", "nothing", "hello"] {
        assert!(!said.contains(name), "{said}");
    }
}

#[test]
fn unfinished_requests_do_not_block_others() {
    let (lab, _) = lab_with_snapshot();
    let dav = Dav::start(&lab, &["--snapshot", "latest"]);
    let begin = |head: &str| {
        let mut stream = TcpStream::connect(dav.address()).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let unfinished = "PROPFIND / HTTP/1.1\r\nHost: localhost\r\nDepth: 1\r\nContent-Length: 100\r\n\r\n<?xml";
    let bodies: Vec<_> = (0..100).map(|_| begin(unfinished)).collect();
    let started = Instant::now();
    assert_eq!(dav.get("/file"), b"0123456789");
    let heads: Vec<_> = (0..100).map(|_| begin("GET /file HTTP/1.1\r\nHost: loc")).collect();
    assert_eq!(dav.get("/file"), b"0123456789");
    // Idle connections after an answer do not block the others either.
    let idle: Vec<_> = (0..100).map(|_| begin("OPTIONS / HTTP/1.1\r\nHost: localhost\r\n\r\n")).collect();
    assert_eq!(dav.get("/file"), b"0123456789");
    assert!(started.elapsed() < Duration::from_secs(8), "nobody waited for a deadline: {:?}", started.elapsed());
    drop((bodies, heads, idle));

    let status_of = |mut stream: TcpStream| {
        let mut answer = Vec::new();
        // The stream may be cut off after the answer, because the server does not read the rest of the request.
        let _ = stream.read_to_end(&mut answer);
        Answer::parse(&answer, false).status
    };
    let long = unfinished.replace("100", "99999") + &" ".repeat(70_000);
    assert_eq!(status_of(begin(&long)), 413);
    assert_eq!(status_of(begin(unfinished)), 408, "a body has a deadline");
    let body = "<?xml version=\"1.0\"?><propfind xmlns=\"DAV:\"><prop><getcontentlength/></prop></propfind>";
    let whole = unfinished.replace("100", &body.len().to_string()).replace("<?xml", body);
    let mut answered = begin(&whole.replace("Depth", "Connection: close\r\nDepth"));
    let mut answer = Vec::new();
    answered.read_to_end(&mut answer).unwrap();
    let answer = Answer::parse(&answer, false);
    assert!(answer.status == 207 && text(&answer.body).contains("<D:getcontentlength>10<"), "{}", text(&answer.body));
}

#[test]
fn the_server_prints_its_address_and_ends_on_a_signal() {
    let (lab, _) = lab_with_snapshot();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let dav = Dav::start(&lab, &[]);
        // An idle connection does not keep the server from ending.
        let mut idle = TcpStream::connect(dav.address()).unwrap();
        write!(idle, "OPTIONS / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert!(idle.read(&mut [0; 64]).unwrap() > 0);
        let (code, said) = dav.end(signal);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("Ctrl-C") && !said.contains("Warning"), "{said}");
    }
    let quiet = Dav::start(&lab, &["--json", "--quiet"]);
    let json: serde_json::Value = serde_json::from_str(&quiet.url).unwrap();
    let url = json["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    let busy = lab.run(args!["webdav", "--listen", url[7..].trim_end_matches('/')], 1);
    assert!(text(&busy.stderr).contains("could not listen") && text(&busy.stderr).contains("Hint: "));
    assert_eq!(quiet.end(Signal::TERM), (Some(0), String::new()));

    let open = Dav::listen(&lab, "0.0.0.0:0", &[]);
    assert!(open.end(Signal::TERM).1.contains("warning: everybody who can reach"));
    lab.run(args!["webdav", "--snapshot", "latest:nobody"], 2);
    lab.run(args!["webdav", "--listen", "nonsense"], 2);
    run(lab.command(args!["webdav"]).env("STRONGROOM_PASSWORD", "wrong"), 12);
}

#[test]
fn rclone_lists_copies_and_checks() {
    let (lab, source) = lab_with_snapshot();
    fs::remove_file(source.join("link")).unwrap();
    for number in 0..500 {
        write(&source.join(format!("many mails/Grüße & 100% #{number}?.eml")), format!("mail {number}"));
    }
    lab.backup(&source, "files");
    let dav = Dav::start(&lab, &[]);
    let rclone = |args: &[&str]| {
        let config = lab.path("rclone.conf");
        let fixed = ["--config", config.to_str().unwrap(), "--webdav-url", &dav.url, "--retries", "1"];
        tool("rclone", fixed.iter().chain(args))
    };
    write(&lab.path("rclone.conf"), "");
    let listed = rclone(&["lsf", "-R", "--files-only", ":webdav:latest"]);
    assert_eq!(listed.lines().count(), 504, "{listed}");
    let copy = lab.path("copy");
    rclone(&["copy", ":webdav:latest", copy.to_str().unwrap()]);
    let files = |dir: &Path| tree_on_disk(dir).into_iter().filter(|(_, (file, _))| file.is_some()).collect::<Tree>();
    let contents = |tree: Tree| tree.into_iter().map(|(path, (file, _))| (path, file)).collect::<Vec<_>>();
    assert_eq!(contents(files(&source)), contents(files(&copy)));
}

#[test]
fn cadaver_walks_about_reads_and_changes_nothing() {
    let (lab, source) = lab_with_snapshot();
    let mail = "Subject: with spaces\r\n\r\nGood morning.\r\n";
    write(&source.join("folder with spaces/Grüße.eml"), mail);
    lab.backup(&source, "files");
    let dav = Dav::start(&lab, &[]);
    let said = |commands: &str| {
        let mut cadaver = Command::new("cadaver");
        // cadaver keeps a history and reads a configuration in the home folder.
        cadaver.arg(&dav.url).env("HOME", lab.dir("home")).env("LC_ALL", "C.UTF-8").current_dir(lab.dir("out"));
        let mut child = cadaver.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
        text(&child.wait_with_output().unwrap().stdout)
    };
    let listed = said("cd latest\nls\ncd \"folder with spaces\"\nls\nget Grüße.eml copy.eml\nquit\n");
    assert!(listed.contains("folder with spaces") && listed.contains("Grüße.eml"), "{listed}");
    assert_eq!(fs::read_to_string(lab.path("out/copy.eml")).unwrap(), mail);
    let refused = said("cd latest\ndelete file\nmkcol new\nmove file other\nquit\n");
    assert_eq!(refused.matches("failed").count(), 3, "{refused}");
    assert!(source.join("file").exists());
}

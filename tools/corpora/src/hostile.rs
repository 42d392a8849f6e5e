//! A tree of names, files and messages that a Linux folder may hold but that break careless programs.
//!
//! A backup must give it back byte for byte. It holds no devices, sockets or pipes, and no path is longer than
//! `PATH_MAX`, so that ordinary tools can compare the result. Symbolic links have the time of their creation.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};

use crate::files;
use crate::rng::Rng;

/// Sizes of the tree.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of files in one folder.
    pub many: usize,
    /// Size of the sparse file in GiB; 0 omits it.
    pub sparse_gib: u64,
    /// Number of nested folders.
    pub depth: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { many: 20_000, sparse_gib: 3, depth: 60 }
    }
}

const UNIX: i64 = 1_767_225_600; // 2026-01-01 00:00
const YEAR_2100: i64 = 4_102_444_800;

/// Writes the tree into `dir`, which must be empty or missing.
///
/// # Errors
/// Fails if `dir` holds something already or cannot be written to.
pub fn generate(options: &Options, dir: &Path) -> Result<()> {
    files::create_empty(dir)?;
    write_names(&dir.join("names"))?;
    write_many(&dir.join("many"), options.many)?;
    write_deep(&dir.join("deep"), options.depth)?;
    write_sizes(&dir.join("sizes"))?;
    write_mails(&dir.join("mails"))?;
    write_links(&dir.join("links"))?;
    if options.sparse_gib > 0 {
        write_sparse(&dir.join("sparse.img"), options.sparse_gib << 30)?;
    }
    files::date_folders(dir, UNIX)?;
    write_times(&dir.join("times"))?;
    write_modes(&dir.join("modes"))
}

fn write_names(dir: &Path) -> Result<()> {
    for byte in 1..=255_u8 {
        let allowed = byte != b'/';
        if allowed && byte != b'.' {
            write_named(&dir.join("one byte"), &[byte], byte)?;
        }
        if allowed {
            write_named(&dir.join("byte inside"), &[b'a', byte, b'z'], byte)?;
            write_named(&dir.join("byte at the end"), &[b'a', byte], byte)?;
        }
    }
    for (number, name) in names().iter().enumerate() {
        write_named(&dir.join("odd"), name.as_bytes(), number as u8)?;
        let folder = dir.join("odd folders").join(name);
        fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
        write_named(&folder, b"inside", number as u8)?;
    }
    write_named(&dir.join("odd"), &[0xff; 255], 255)?;
    write_named(&dir.join("odd"), b"half a character \xc3", 0xc3)?;
    write_named(&dir.join("odd"), b"overlong \xc0\xaf slash", 0xc0)?;
    write_named(&dir.join("odd"), b"surrogate \xed\xa0\x80", 0xed)
}

/// Returns names of files and folders that break careless programs. Linux allows each of them, and each is UTF-8.
pub fn names() -> Vec<String> {
    let long_ascii = "l".repeat(255);
    let long_emoji = format!("{}end", "🦀".repeat(63));
    let names = [
        long_ascii.as_str(),
        &long_emoji,
        "🗄️ Strongroom 👩🏽‍🚀",
        "\u{202e}gpj.exe",
        "zero\u{200b}width",
        "\u{feff}byte order mark",
        "Café", // é as one character (NFC)
        "Cafe\u{301}",
        "한글",
        "\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}",
        "ﬁ",
        "README",
        "readme",
        "ReadMe",
        "straße",
        "STRASSE",
        "trailing dot.",
        "trailing dots...",
        "trailing space ",
        " leading space",
        " ",
        "...",
        ".. ",
        "-rf",
        "--help",
        "~",
        "$HOME",
        "`id`",
        "*",
        "?",
        "[a-z]",
        "a\\b",
        "\\",
        "'single'",
        "\"double\"",
        "line\nbreak",
        "return\rhere",
        "tab\there",
        "bell\u{7}",
        "\u{1b}[31mred\u{1b}[0m",
        "CON",
        "nul.txt",
        "a:b",
        "a<b>c|d",
        "latest",
        "snapshots",
        "%2e%2e%2f",
        "=?utf-8?B?xIE=?=",
        ".nomedia",
        ".git",
    ];
    names.map(str::to_owned).to_vec()
}

fn write_named(dir: &Path, name: &[u8], content: u8) -> Result<()> {
    files::write(&dir.join(OsStr::from_bytes(name)), &[content; 3], UNIX)
}

fn write_many(dir: &Path, many: usize) -> Result<()> {
    for number in 0..many {
        let content = format!("From: {number}@contoso.com\r\nSubject: {number}\r\n\r\nMessage {number} of {many}.\r\n");
        files::write(&dir.join(format!("{number:05}.eml")), content.as_bytes(), UNIX + number as i64)?;
    }
    Ok(())
}

fn write_deep(dir: &Path, depth: usize) -> Result<()> {
    let mut folder = dir.to_owned();
    for level in 0..depth {
        folder.push(format!("level {level}"));
        files::write(&folder.join("here.txt"), format!("level {level}\n").as_bytes(), UNIX)?;
    }
    Ok(())
}

fn write_sizes(dir: &Path) -> Result<()> {
    let mut rng = Rng::for_purpose(1, "hostile sizes");
    let noise = rng.bytes(8 << 20);
    for (name, size) in
        [("4 KiB", 4 << 10), ("16 KiB", 16 << 10), ("64 KiB", 64 << 10), ("512 KiB", 512 << 10), ("1 MiB", 1 << 20)]
    {
        for (which, size) in [("less one", size - 1), ("exactly", size), ("and one", size + 1)] {
            files::write(&dir.join(format!("{name} {which}")), &noise[..size], UNIX)?;
        }
    }
    let shifted = [b"one more byte in front".as_slice(), &noise].concat();
    files::write(&dir.join("8 MiB of noise"), &noise, UNIX)?;
    files::write(&dir.join("8 MiB of noise, shifted"), &shifted, UNIX)?;
    files::write(&dir.join("5 MiB of zeros"), &vec![0; 5 << 20], UNIX)?;
    files::write(&dir.join("5 MiB of one line"), &b"all work and no play\n".repeat((5 << 20) / 21), UNIX)?;
    files::write(&dir.join("one byte"), b"x", UNIX)?;
    files::write(&dir.join("empty"), b"", UNIX)?;
    for folder in ["empty folder", "folder of empty folders/a", "folder of empty folders/b"] {
        let folder = dir.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
    }
    Ok(())
}

/// Writes a sparse file with a few pieces of data: at its start, across a boundary of 1 MiB, far inside, and at its
/// end.
fn write_sparse(path: &Path, size: u64) -> Result<()> {
    let context = || format!("could not write {}", path.display());
    let mut rng = Rng::for_purpose(1, "hostile sparse");
    let file = File::create_new(path).with_context(context)?;
    file.set_len(size).with_context(context)?;
    for offset in [0, (1 << 20) - 100, size / 2 + 12_345, size - 5_000] {
        file.write_all_at(&rng.bytes(5_000), offset).with_context(context)?;
    }
    file.set_modified(files::time(UNIX, 0)).with_context(context)
}

fn write_links(dir: &Path) -> Result<()> {
    files::write(&dir.join("target.txt"), b"the target\n", UNIX)?;
    files::write(&dir.join("folder/inside.txt"), b"inside\n", UNIX)?;
    let long = "../".repeat(1_300) + "etc";
    let links: [(&str, &[u8]); 12] = [
        ("to a file", b"target.txt"),
        ("to a folder", b"folder"),
        ("to its own folder", b"."),
        ("upwards", b".."),
        ("absolute", b"/etc/hostname"),
        ("out of the tree", b"../../../../../../etc/passwd"),
        ("dangling", b"there is no such file"),
        ("to itself", b"to itself"),
        ("loop a", b"loop b"),
        ("loop b", b"loop a"),
        ("not UTF-8", b"\xff\xfe\n\x01"),
        ("very long", long.as_bytes()),
    ];
    for (name, target) in links {
        symlink(OsStr::from_bytes(target), dir.join(name)).with_context(|| format!("could not link {name:?}"))?;
    }
    for name in ["hard link", "folder/hard link"] {
        fs::hard_link(dir.join("target.txt"), dir.join(name)).with_context(|| format!("could not link {name:?}"))?;
    }
    Ok(())
}

fn write_times(dir: &Path) -> Result<()> {
    let times = [
        ("1970", 0, 0),
        ("1970 and a nanosecond", 0, 1),
        ("before 1970", -1, 0),
        ("before 1970, half a second", -1, 500_000_000),
        ("1904", -2_082_844_800, 0),
        ("2038", i64::from(i32::MAX) + 1, 0),
        ("2100", YEAR_2100, 0),
        ("2100 and a nanosecond less", YEAR_2100 - 1, 999_999_999),
        ("nanoseconds", UNIX, 123_456_789),
    ];
    for (name, seconds, nanoseconds) in times {
        let path = dir.join(name);
        files::write(&path, name.as_bytes(), UNIX)?;
        date(&path, seconds, nanoseconds)?;
        let folder = dir.join(format!("folder {name}"));
        fs::create_dir(&folder).with_context(|| format!("could not create {}", folder.display()))?;
        date(&folder, seconds, nanoseconds)?;
    }
    date(dir, UNIX, 987_654_321)
}

fn date(path: &Path, seconds: i64, nanoseconds: u32) -> Result<()> {
    let dated = File::open(path).and_then(|file| file.set_modified(files::time(seconds, nanoseconds)));
    dated.with_context(|| format!("could not date {}", path.display()))
}

fn write_modes(dir: &Path) -> Result<()> {
    for mode in [0o000, 0o200, 0o400, 0o444, 0o600, 0o644, 0o755, 0o777, 0o1644, 0o2755, 0o4755, 0o7777] {
        let path = dir.join(format!("mode {mode:04o}"));
        files::write(&path, format!("{mode:o}\n").as_bytes(), UNIX)?;
        set_mode(&path, mode)?;
    }
    for mode in [0o500, 0o555, 0o700, 0o1777, 0o2775] {
        let folder = dir.join(format!("folder {mode:04o}"));
        files::write(&folder.join("inside"), b"inside\n", UNIX)?;
        date(&folder, UNIX, 0)?;
        set_mode(&folder, mode)?;
    }
    date(dir, UNIX, 0)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    let set = fs::set_permissions(path, Permissions::from_mode(mode));
    set.with_context(|| format!("could not set the mode of {}", path.display()))
}

fn write_mails(dir: &Path) -> Result<()> {
    for (name, mail) in mails() {
        files::write(&dir.join(format!("{name}.eml")), &mail, UNIX)?;
    }
    Ok(())
}

/// Returns messages with their names. They break parsers, or cannot be put together again by a splitter that relies on
/// their structure.
pub fn mails() -> Vec<(&'static str, Vec<u8>)> {
    let head = "From: Alice <alice@contoso.com>\r\nTo: bob@contoso.com\r\nSubject: Test\r\nMIME-Version: 1.0\r\n";
    let multipart = format!("{head}Content-Type: multipart/mixed; boundary=\"b\"\r\n\r\n");
    let attachment =
        "Content-Type: application/octet-stream; name=\"a.bin\"\r\nContent-Transfer-Encoding: base64\r\n\r\n";
    let data = Rng::for_purpose(1, "hostile mails").bytes(40_000);
    let base64 = |width: usize, ending: &str| {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let text = STANDARD.encode(&data);
        let lines: Vec<&str> = (0..text.len()).step_by(width).map(|at| &text[at..text.len().min(at + width)]).collect();
        lines.join(ending)
    };
    let one = |part: &str| format!("{multipart}--b\r\n{attachment}{part}\r\n--b--\r\n");
    let regular = base64(76, "\r\n");
    let nested = format!("{multipart}--b\r\nContent-Type: message/rfc822\r\n\r\n{}--b--\r\n", one(&regular));
    let deeply_nested = (0..40).fold(one(&regular), |inner, _| {
        format!("{multipart}--b\r\nContent-Type: message/rfc822\r\n\r\n{inner}\r\n--b--\r\n")
    });
    vec![
        ("regular", one(&regular).into()),
        ("bare LF", one(&regular).replace("\r\n", "\n").into()),
        ("bare CR", one(&regular).replace("\r\n", "\r").into()),
        ("mixed line ends", format!("{}\n{}", one(&regular), one(&base64(76, "\n"))).into()),
        ("LF in base64 only", one(&base64(76, "\n")).into()),
        ("base64 lines of 60", one(&base64(60, "\r\n")).into()),
        ("base64 lines of 75", one(&base64(75, "\r\n")).into()),
        ("base64 lines of 4", one(&base64(4, "\r\n")).into()),
        ("base64 in one line", one(&base64(100_000, "\r\n")).into()),
        ("base64 lines of changing length", one(&regular.replacen("\r\n", "", 3)).into()),
        ("base64 with spaces at line ends", one(&base64(76, " \r\n")).into()),
        ("base64 with empty lines", one(&base64(76, "\r\n\r\n")).into()),
        ("base64 with a stray character", one(&regular.replacen('A', "!", 1)).into()),
        ("base64 cut within a group", one(&regular[..regular.len() - 3]).into()),
        ("base64 without padding", one(regular.trim_end_matches('=')).into()),
        ("base64 with text behind the padding", one(&format!("{}=\r\nand more", &regular[..80])).into()),
        // The unused bits of the last group are not zero, so decoding and encoding again gives other bytes.
        ("base64 with odd unused bits", one("QUJDRB==").into()),
        ("base64 with a trailer", one(&format!("{regular}\r\n\r\n-- \r\nmailing list footer\r\n")).into()),
        ("base64 attachment that is empty", one("").into()),
        ("no final newline", one(&regular).trim_end().into()),
        ("cut in the middle", one(&regular)[..20_000].into()),
        ("no closing boundary", one(&regular).replace("--b--", "").into()),
        ("boundary never comes", format!("{multipart}no part at all\r\n").into()),
        ("boundary inside base64", one(&regular.replacen("\r\n", "\r\n--b\r\n", 2)).into()),
        ("boundary with spaces behind it", one(&regular).replace("--b\r\n", "--b  \t\r\n").into()),
        ("boundary that is empty", one(&regular).replace("boundary=\"b\"", "boundary=\"\"").into()),
        ("preamble and epilogue", one(&regular).replacen("--b\r\n", "preamble\r\n--b\r\n", 1).into()),
        ("nested", nested.into()),
        ("nested 40 deep", deeply_nested.into()),
        ("headers only", head.into()),
        ("header without colon", format!("{head}nonsense\r\n\r\nbody\r\n").into()),
        ("header of 200 KB", format!("{head}X-Long: {}\r\n\r\nbody\r\n", "x".repeat(200_000)).into()),
        ("20,000 headers", format!("{}\r\nbody\r\n", "X-Many: 1\r\n".repeat(20_000)).into()),
        ("body without headers", b"\r\nonly a body\r\n".to_vec()),
        ("only newlines", b"\r\n\r\n\n\r\r\n".to_vec()),
        ("empty", Vec::new()),
        ("NUL bytes", b"Subject: \0\r\n\r\n\0\0\0\r\n".to_vec()),
        ("raw 8-bit headers", b"Subject: Gr\xfc\xdfe\r\nFrom: \xff\xfe\r\n\r\n\xe4\xf6\xfc\r\n".to_vec()),
        ("mbox line in front", format!("From bob Thu Jan  1 00:00:00 1970\r\n{}", one(&regular)).into()),
        ("not mail but noise", data.clone()),
        ("uuencode", format!("{head}\r\nbegin 644 a.txt\r\n%:&5L;&\\*\r\n`\r\nend\r\n").into()),
        (
            "broken quoted-printable",
            format!("{head}Content-Transfer-Encoding: quoted-printable\r\n\r\n=ZZ=\r\n=4=\r\n=").into(),
        ),
        (
            "wrong transfer encoding",
            format!("{head}Content-Transfer-Encoding: base65\r\n\r\n{}\r\n", &regular[..760]).into(),
        ),
        (
            "two transfer encodings",
            format!("{head}Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64\r\n\r\n{regular}\r\n")
                .into(),
        ),
        ("base64 as the whole body", format!("{head}Content-Transfer-Encoding: BASE64\r\n\r\n{regular}\r\n").into()),
    ]
}

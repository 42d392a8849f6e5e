//! The names of charsets: as standards, systems, and mistaken programs write them.

use super::{Charset, tables};
use encoding_rs::{self as rs, Encoding};

/// Maximum length of a label in bytes. Only the start of a longer one is read.
const LABEL_BYTES_MAX: usize = 80;

/// Names that browsers do not know or take for another charset, reduced to letters and digits.
const NAMES: &[(&str, &str)] = &[
    ("utf8mb4", "utf-8"),
    ("utf8n", "utf-8"),
    ("utf8bom", "utf-8"),
    ("uft8", "utf-8"),
    ("utf", "utf-8"),
    ("utf8", "utf-8"),
    ("unicode20utf8", "utf-8"),
    ("xunicode20utf8", "utf-8"),
    ("sjiswin", "shift_jis"),
    ("shiftjiswin", "shift_jis"),
    ("mskanji", "shift_jis"),
    ("windows31j", "shift_jis"),
    ("sjis", "shift_jis"),
    ("shiftjis", "shift_jis"),
    ("xmacjapanese", "shift_jis"),
    ("eucjp", "euc-jp"),
    ("eucjpms", "euc-jp"),
    ("eucjpwin", "euc-jp"),
    ("ujis", "euc-jp"),
    ("euc", "euc-jp"),
    ("gb", "gbk"),
    ("gb2312", "gbk"),
    ("gb231280", "gbk"),
    ("euccn", "gbk"),
    ("cngb", "gbk"),
    ("hp15cn", "gbk"),
    ("xmacchinesesimp", "gbk"),
    ("big5", "big5"),
    ("bigfive", "big5"),
    ("big5eten", "big5"),
    ("eten", "big5"),
    ("xmacchinesetrad", "big5"),
    ("euckr", "euc-kr"),
    ("uhc", "euc-kr"),
    ("ksc5601", "euc-kr"),
    ("ksc56011992", "euc-kr"),
    ("ksx1001", "euc-kr"),
    ("xmackorean", "euc-kr"),
    ("koi8", "koi8-r"),
    ("koi8r", "koi8-r"),
    ("koi8u", "koi8-u"),
    ("koi8ru", "koi8-u"),
    ("tis620", "windows-874"),
    ("tis6200", "windows-874"),
    ("tis62025291", "windows-874"),
    ("tis62025330", "windows-874"),
    ("iso885911", "windows-874"),
    ("thai", "windows-874"),
    ("latin0", "iso-8859-15"),
    ("latin7", "iso-8859-13"),
    ("latin8", "iso-8859-14"),
    ("latin9", "iso-8859-15"),
    ("latin10", "iso-8859-16"),
    ("latin", "windows-1252"),
    ("isolatin1", "windows-1252"),
    ("windowslatin1", "windows-1252"),
    ("western", "windows-1252"),
    ("cyrillic", "iso-8859-5"),
    ("mac", "macintosh"),
    ("macroman", "macintosh"),
    ("xmacroman", "macintosh"),
    ("maccyrillic", "x-mac-cyrillic"),
    ("xmaccyrillic", "x-mac-cyrillic"),
    ("macukraine", "x-mac-cyrillic"),
    ("ecma114", "iso-8859-6"),
    ("ecma118", "iso-8859-7"),
    ("elot928", "iso-8859-7"),
    ("visual", "iso-8859-8"),
    ("ecma121", "iso-8859-8"),
];

/// Names of charsets that browsers do not have.
const OTHERS: &[(&str, Charset)] = &[
    ("utf7", Charset::Utf7),
    ("u7", Charset::Utf7),
    ("unicode11utf7", Charset::Utf7),
    ("unicode20utf7", Charset::Utf7),
    ("xunicode20utf7", Charset::Utf7),
    ("csunicode11utf7", Charset::Utf7),
    ("utf16", Charset::Utf16 { big: false }),
    ("unicode", Charset::Utf16 { big: false }),
    ("utf16le", Charset::Utf16 { big: false }),
    ("utf16be", Charset::Utf16 { big: true }),
    ("unicodefffe", Charset::Utf16 { big: true }),
    ("ucs2", Charset::Utf16 { big: false }),
    ("iso10646ucs2", Charset::Utf16 { big: true }),
    ("csunicode", Charset::Utf16 { big: true }),
    ("utf32", Charset::Utf32 { big: false }),
    ("utf32le", Charset::Utf32 { big: false }),
    ("utf32be", Charset::Utf32 { big: true }),
    ("ucs4", Charset::Utf32 { big: true }),
    ("iso10646ucs4", Charset::Utf32 { big: true }),
    ("hz", Charset::Hz),
    ("hzgb", Charset::Hz),
    ("hzgb2312", Charset::Hz),
    ("jis", Charset::Iso2022 { korean: false }),
    ("jis7", Charset::Iso2022 { korean: false }),
    ("jis8", Charset::Iso2022 { korean: false }),
    ("iso2022", Charset::Iso2022 { korean: false }),
    ("macce", Charset::Table(tables::MAC_CENTRAL_EUROPE)),
    ("xmacce", Charset::Table(tables::MAC_CENTRAL_EUROPE)),
    ("maclatin2", Charset::Table(tables::MAC_CENTRAL_EUROPE)),
    ("maccentraleurope", Charset::Table(tables::MAC_CENTRAL_EUROPE)),
    ("xmaccentraleurope", Charset::Table(tables::MAC_CENTRAL_EUROPE)),
    ("xmaccentraleurroman", Charset::Table(tables::MAC_CENTRAL_EUROPE)),
    ("macgreek", Charset::Table(tables::MAC_GREEK)),
    ("xmacgreek", Charset::Table(tables::MAC_GREEK)),
    ("macturkish", Charset::Table(tables::MAC_TURKISH)),
    ("xmacturkish", Charset::Table(tables::MAC_TURKISH)),
    ("maciceland", Charset::Table(tables::MAC_ICELAND)),
    ("macicelandic", Charset::Table(tables::MAC_ICELAND)),
    ("xmacicelandic", Charset::Table(tables::MAC_ICELAND)),
    ("maccroatian", Charset::Table(tables::MAC_CROATIAN)),
    ("xmaccroatian", Charset::Table(tables::MAC_CROATIAN)),
    ("macromanian", Charset::Table(tables::MAC_ROMANIAN)),
    ("macromania", Charset::Table(tables::MAC_ROMANIAN)),
    ("xmacromanian", Charset::Table(tables::MAC_ROMANIAN)),
    ("kz1048", Charset::Table(tables::KZ1048)),
    ("rk1048", Charset::Table(tables::KZ1048)),
    ("strk10482002", Charset::Table(tables::KZ1048)),
    ("pt154", Charset::Table(tables::PT154)),
    ("ptcp154", Charset::Table(tables::PT154)),
    ("cyrillicasian", Charset::Table(tables::PT154)),
    ("koi8t", Charset::Table(tables::KOI8_T)),
    ("hproman8", Charset::Table(tables::HP_ROMAN8)),
    ("roman8", Charset::Table(tables::HP_ROMAN8)),
    ("r8", Charset::Table(tables::HP_ROMAN8)),
    ("viscii", Charset::Table(tables::VISCII)),
    ("viscii111", Charset::Table(tables::VISCII)),
    ("csviscii", Charset::Table(tables::VISCII)),
    ("tcvn", Charset::Table(tables::TCVN)),
    ("tcvn5712", Charset::Table(tables::TCVN)),
    ("tcvn57121", Charset::Table(tables::TCVN)),
    ("tcvn571211993", Charset::Table(tables::TCVN)),
];

/// Names that say nothing of the bytes.
const MEANINGLESS: &[&str] = &[
    "",
    "ascii",
    "usascii",
    "us",
    "ansi",
    "ansix341968",
    "ansix341986",
    "iso646us",
    "iso646irv1991",
    "cp367",
    "ibm367",
    "8bit",
    "7bit",
    "binary",
    "default",
    "none",
    "null",
    "unknown",
    "unknown8bit",
    "xunknown",
    "xuserdefined",
    "userdefined",
    "multi",
    "iso",
    "native",
    "notspecified",
    "auto",
    "charset",
];

pub(super) fn find(label: &str) -> Option<Charset> {
    let label = &label[..label.floor_char_boundary(LABEL_BYTES_MAX)];
    let lower = label.to_ascii_lowercase();
    let lower = bare(&lower);
    let squeezed: String = lower.chars().filter(char::is_ascii_alphanumeric).collect();
    if MEANINGLESS.contains(&&*squeezed) {
        return None;
    }
    if let Some((_, charset)) = OTHERS.iter().find(|(name, _)| *name == squeezed) {
        return Some(*charset);
    }
    // All variants count: -jp-2, -jp-ms, -cn-ext.
    if ["iso2022", "csiso2022", "cp5022"].iter().any(|start| squeezed.starts_with(start)) {
        return Some(Charset::Iso2022 { korean: squeezed.contains("kr") || squeezed == "cp50225" });
    }
    if let Some((_, known)) = NAMES.iter().find(|(name, _)| *name == squeezed) {
        return web(known);
    }
    iso_8859(lower).or_else(|| web(lower)).or_else(|| web(&squeezed)).or_else(|| numbered(&squeezed)).or_else(|| {
        // `utf-8-strict`, `gb2312_charset`, `koi8-r-extended`.
        ["utf8", "koi8r", "koi8u", "gb18030", "gb2312", "gbk", "big5", "shiftjis", "eucjp", "euckr"]
            .iter()
            .find(|start| squeezed.starts_with(**start))
            .and_then(|known| {
                NAMES.iter().find(|(name, _)| name == known).map_or(Some(*known), |(_, known)| Some(*known))
            })
            .and_then(web)
    })
}

/// Removes what programs put around a label: quotes, `charset=`, an encoded word, other parameters.
fn bare(label: &str) -> &str {
    let mut label = label.trim();
    if let Some(word) = label.strip_prefix("=?") {
        label = word.splitn(3, '?').nth(2).unwrap_or(word).trim_end_matches("?=");
    }
    label = label.rsplit_once("charset=").map_or(label, |(_, behind)| behind);
    label = label.trim_start_matches(|char: char| !char.is_ascii_alphanumeric());
    let end =
        label.find(['$', ';', ',', '?', '"', '\'', ' ', '\t', '<', '>', '&', '*', '(', '/']).unwrap_or(label.len());
    label[..end].trim_end_matches(|char: char| !char.is_ascii_alphanumeric())
}

fn web(label: &str) -> Option<Charset> {
    let encoding = Encoding::for_label(label.as_bytes())?;
    match encoding {
        encoding if encoding == rs::REPLACEMENT || encoding == rs::X_USER_DEFINED => None,
        encoding if encoding == rs::UTF_16LE => Some(Charset::Utf16 { big: false }),
        encoding if encoding == rs::UTF_16BE => Some(Charset::Utf16 { big: true }),
        encoding if encoding == rs::ISO_2022_JP => Some(Charset::Iso2022 { korean: false }),
        encoding => Some(Charset::Web(encoding)),
    }
}

/// Reads `iso-8859-15`, `iso8859_1:1987`, `8859-2`, `iso-8859-15-euro`.
fn iso_8859(label: &str) -> Option<Charset> {
    let (before, behind) = label.split_once("8859")?;
    if !["", "iso", "iso-", "iso_", "x-iso-", "csiso", "iso "].contains(&before) {
        return None;
    }
    let behind = behind.trim_start_matches(|char: char| !char.is_ascii_digit());
    let digits: String = behind.chars().take_while(char::is_ascii_digit).take(2).collect();
    match digits.as_str() {
        "11" => web("windows-874"),
        // ISO-8859-12 does not exist.
        "12" => None,
        digits => web(&format!("iso-8859-{digits}")),
    }
}

/// Returns the charset of a code page's number.
fn numbered(squeezed: &str) -> Option<Charset> {
    const BEFORE: [&str; 19] = [
        "xwindows",
        "xcp",
        "windows",
        "window",
        "win",
        "microsoftcp",
        "microsoft",
        "mscp",
        "ms",
        "csibm",
        "ibm",
        "cspc",
        "pc",
        "oem",
        "dos",
        "codepage",
        "ansi",
        "ccsid",
        "cp",
    ];
    let behind = BEFORE.iter().find_map(|before| squeezed.strip_prefix(before)).unwrap_or(squeezed);
    let end = behind.find(|char: char| !char.is_ascii_digit()).unwrap_or(behind.len());
    // Other text may follow the number (`850multilingual`), but no further digits.
    let number: u32 = behind[..end].parse().ok()?;
    let table = match number {
        437 => tables::CP437,
        720 => tables::CP720,
        737 => tables::CP737,
        775 => tables::CP775,
        850 => tables::CP850,
        852 => tables::CP852,
        855 => tables::CP855,
        857 => tables::CP857,
        858 => tables::CP858,
        860 => tables::CP860,
        861 => tables::CP861,
        862 => tables::CP862,
        863 => tables::CP863,
        864 => tables::CP864,
        865 => tables::CP865,
        869 => tables::CP869,
        1125 => tables::CP1125,
        154 => tables::PT154,
        10_006 => tables::MAC_GREEK,
        10_010 => tables::MAC_ROMANIAN,
        10_029 => tables::MAC_CENTRAL_EUROPE,
        10_079 => tables::MAC_ICELAND,
        10_081 => tables::MAC_TURKISH,
        10_082 => tables::MAC_CROATIAN,
        _ => return by_number(number),
    };
    Some(Charset::Table(table))
}

fn by_number(number: u32) -> Option<Charset> {
    let known = match number {
        65_001 | 1208 => "utf-8",
        65_000 => return Some(Charset::Utf7),
        1200 => return Some(Charset::Utf16 { big: false }),
        1201 => return Some(Charset::Utf16 { big: true }),
        12_000 => return Some(Charset::Utf32 { big: false }),
        12_001 => return Some(Charset::Utf32 { big: true }),
        52_936 => return Some(Charset::Hz),
        50_220..=50_229 => return Some(Charset::Iso2022 { korean: false }),
        1250..=1258 | 874 | 866 => return web(&format!("windows-{number}")).or_else(|| web(&format!("ibm{number}"))),
        28_591..=28_606 => return iso_8859(&format!("iso-8859-{}", number - 28_590)),
        819 => "windows-1252",
        912 => "iso-8859-2",
        915 => "iso-8859-5",
        1089 => "iso-8859-6",
        813 => "iso-8859-7",
        916 | 38_598 => "iso-8859-8",
        920 => "windows-1254",
        923 => "iso-8859-15",
        878 | 20_866 => "koi8-r",
        1168 | 21_866 => "koi8-u",
        932 | 942 | 943 | 10_001 => "shift_jis",
        51_932 | 20_932 | 954 => "euc-jp",
        936 | 1386 | 1383 | 20_936 | 51_936 | 10_008 => "gbk",
        54_936 | 1392 => "gb18030",
        950 | 951 | 1370 | 10_002 => "big5",
        949 | 970 | 1363 | 51_949 | 10_003 => "euc-kr",
        10_000 => "macintosh",
        10_007 | 10_017 => "x-mac-cyrillic",
        _ => return None,
    };
    web(known)
}

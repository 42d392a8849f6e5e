//! Archives as programs write them, and as attackers do.

use super::*;

/// A member that [`archive`] writes.
#[derive(Clone)]
struct Made<'a> {
    name: &'a str,
    method: u16,
    flags: u16,
    data: &'a [u8],
    plain_len: u32,
    /// Writes sizes and offset of 64 bits into the extra field.
    wide: bool,
    /// Writes the sizes behind the data and not before it.
    descriptor: bool,
}

const DEFLATED: Made<'static> = Made {
    name: "word/document.xml",
    method: 8,
    flags: 0,
    data: b"stream",
    plain_len: 9000,
    wide: false,
    descriptor: false,
};

fn put(out: &mut Vec<u8>, numbers: &[u32]) {
    numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
}

fn put16(out: &mut Vec<u8>, numbers: &[u16]) {
    numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
}

/// Returns an archive with these members, and what `spoil` makes of its directory.
fn archive_with(made: &[Made<'_>], zip_64: bool, spoil: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for one in made {
        let (len, local) = (one.data.len() as u32, out.len() as u32);
        let flags = one.flags | u16::from(one.descriptor) << 3;
        let name_len = one.name.len() as u16;
        out.extend(LOCAL);
        put16(&mut out, &[20, flags, one.method, 0, 0]);
        put(&mut out, &if one.descriptor { [0; 3] } else { [1, len, one.plain_len] });
        put16(&mut out, &[name_len, 3]);
        out.extend(one.name.as_bytes());
        out.extend(b"ext");
        out.extend(one.data);
        if one.descriptor {
            out.extend(b"PK\x07\x08");
            put(&mut out, &[1, len, one.plain_len]);
        }
        let mut extra = Vec::new();
        if one.wide {
            put16(&mut extra, &[0x5455, 2, 7, ZIP_64_EXTRA, 24]);
            put(&mut extra, &[one.plain_len, 0, len, 0, local, 0]);
        }
        directory.extend(DIRECTORY);
        put16(&mut directory, &[20, 20, flags, one.method, 0, 0]);
        put(&mut directory, &if one.wide { [1, IN_EXTRA, IN_EXTRA] } else { [1, len, one.plain_len] });
        put16(&mut directory, &[name_len, extra.len() as u16, 4, 0, 0]);
        put(&mut directory, &[0, if one.wide { IN_EXTRA } else { local }]);
        directory.extend(one.name.as_bytes());
        directory.extend(extra);
        directory.extend(b"note");
    }
    spoil(&mut directory);
    let start = out.len() as u32;
    out.extend(&directory);
    let count = made.len() as u16;
    if zip_64 {
        let at = out.len() as u32;
        out.extend(END_64);
        put(&mut out, &[44, 0]);
        put16(&mut out, &[45, 45]);
        put(&mut out, &[0, 0, count.into(), 0, count.into(), 0, directory.len() as u32, 0, start, 0]);
        out.extend(END_64_LOCATOR);
        put(&mut out, &[0, at, 0, 1]);
    }
    out.extend(END);
    let (count, len, start) =
        if zip_64 { (0xffff, IN_EXTRA, IN_EXTRA) } else { (count, directory.len() as u32, start) };
    put16(&mut out, &[0, 0, count, count]);
    put(&mut out, &[len, start]);
    put16(&mut out, &[7]);
    out.extend(b"PK\x05\x06 is");
    out
}

fn archive(made: &[Made<'_>]) -> Vec<u8> {
    archive_with(made, false, |_| {})
}

/// Returns what stands where the members are said to be, with their lengths and methods.
fn found(bytes: &[u8]) -> Option<Vec<(&[u8], u64, Method)>> {
    Some(members(bytes)?.into_iter().map(|one| (&bytes[one.data], one.plain_len, one.method)).collect())
}

#[test]
fn members_are_found_in_every_form_that_programs_write() {
    let picture = Made { name: "media/image1.jpeg", method: 0, data: b"picture", plain_len: 7, ..DEFLATED };
    let secret = Made { flags: 1, data: b"secret", ..DEFLATED };
    let other = Made { method: 14, data: b"lzma", ..DEFLATED };
    let empty = Made { name: "word/", method: 0, data: b"", plain_len: 0, ..DEFLATED };
    for zip_64 in [false, true] {
        for wide in [false, true] {
            for descriptor in [false, true] {
                let form = |one: &Made<'static>| Made { wide, descriptor, ..one.clone() };
                let made = [&empty, &DEFLATED, &picture, &secret, &other].map(form);
                let expected: [(&[u8], u64, Method); 5] = [
                    (b"", 0, Method::Stored),
                    (b"stream", 9000, Method::Deflated),
                    (b"picture", 7, Method::Stored),
                    (b"secret", 9000, Method::Other),
                    (b"lzma", 9000, Method::Other),
                ];
                let bytes = archive_with(&made, zip_64, |_| {});
                assert_eq!(found(&bytes).expect("an archive"), expected, "{zip_64} {wide} {descriptor}");
            }
        }
    }
}

#[test]
fn an_archive_that_is_stored_in_another_is_looked_into_once() {
    let inner = archive(&[DEFLATED]);
    let stored = |data| Made { name: "inner.xlsx", method: 0, data, plain_len: 0, ..DEFLATED };
    let outer = archive(&[DEFLATED, stored(&inner), DEFLATED]);
    let stream: (&[u8], u64, Method) = (b"stream", 9000, Method::Deflated);
    assert_eq!(found(&outer).expect("an archive"), [stream; 3]);
    // One level further in, the archive is a member like any other.
    assert_eq!(found(&archive(&[stored(&outer)])).expect("an archive")[1].0, inner);
}

#[test]
fn an_archive_that_contradicts_itself_is_none() {
    let two = [DEFLATED, DEFLATED];
    assert_eq!(members(&archive(&two)).map(|found| found.len()), Some(2));
    let header = DIRECTORY_LEN + DEFLATED.name.len() + 4;
    type Spoil<'a> = &'a dyn Fn(&mut Vec<u8>);
    let spoils: [(&str, Spoil<'_>); 7] = [
        ("both members at the same place", &|directory| directory[header + 42..header + 46].fill(0)),
        ("the first member reaches into the second", &|directory| directory[20] += 30),
        ("a member reaches into the directory", &|directory| directory[header + 20] += 30),
        ("a member begins behind the end", &|directory| directory[42..46].fill(0xf0)),
        ("a member begins where no header is", &|directory| directory[42] = 1),
        ("another method than its header says", &|directory| directory[10] = 0),
        ("a longer name than there is", &|directory| directory[header + 29] = 0xff),
    ];
    for (what, spoil) in spoils {
        assert_eq!(members(&archive_with(&two, false, spoil)), None, "{what}");
    }
    assert_eq!(members(&archive_with(&two, false, |directory| directory.extend(b"more"))), None);
    assert_eq!(members(&[b"before".to_vec(), archive(&two)].concat()), None);
    assert_eq!(members(&[archive(&two), b"behind".to_vec()].concat()), None);
    let many = vec![DEFLATED; MEMBERS_MAX + 1];
    assert_eq!(members(&archive(&many)), None);
    assert_eq!(members(&archive(&many[1..])).map(|found| found.len()), Some(MEMBERS_MAX));
    let inner = archive(&many[1..]);
    let nested = Made { method: 0, data: &inner, ..DEFLATED };
    assert_eq!(members(&archive(&[nested, DEFLATED])), None);
}

#[test]
fn whatever_is_cut_off_or_flipped_members_stay_inside_and_apart() {
    let inner = archive(&[DEFLATED]);
    let nested = Made { method: 0, data: &inner, ..DEFLATED };
    let whole = archive_with(&[DEFLATED, Made { wide: true, ..DEFLATED }, nested], true, |_| {});
    for end in 0..whole.len() {
        assert_eq!(members(&whole[..end]), None, "{end}");
    }
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut at = 0;
        for member in members(&flipped).unwrap_or_default() {
            assert!(at <= member.data.start && member.data.start <= member.data.end, "bit {bit}");
            at = member.data.end;
        }
        assert!(at <= flipped.len());
    }
}

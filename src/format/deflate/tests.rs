//! Every stream comes back byte for byte, whoever made it, and hostile ones do no harm.

use std::io::Write;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use proptest::collection::vec;
use proptest::prelude::*;

use super::bits::BitWriter;
use super::codes::{Frequencies, Token};
use super::encode::{self, Collected};
use super::parse::parse;
use super::trees::Trees;
use super::{Limits, RecreateError, Taken, recreate, recreate_into, take_apart};

const LIMITS: Limits = Limits { plain_max: 64 << 20, ratio_max: 2000 };

/// Takes `stream` apart, makes it again and compares.
fn round_trip(stream: &[u8]) -> Taken {
    let taken = take_apart(stream, &LIMITS).expect("a deflate stream");
    assert!(recreate(&taken.plain, &taken.corrections).unwrap() == stream[..taken.stream_len]);
    taken
}

/// Text like that of a sheet: repetitive, with numbers.
fn sheet(rows: usize) -> Vec<u8> {
    let mut state = 12345u32;
    let mut text = String::from("<?xml version=\"1.0\"?>\n<sheetData>");
    for row in 0..rows {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12345);
        let (a, b) = (state >> 16 & 0xff, state >> 8 & 0xffff);
        text +=
            &format!("<row r=\"{row}\"><c r=\"A{row}\" t=\"s\"><v>{a}</v></c><c r=\"B{row}\"><v>{b}.5</v></c></row>");
    }
    text.into_bytes()
}

/// Bytes that nothing can compress.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn miniz(plain: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// Reads lines of a name and bytes in hexadecimal.
fn named(lines: &'static str) -> Vec<(&'static str, Vec<u8>)> {
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let parts = lines.lines().map(|line| line.split_once(' ').expect("a name and bytes"));
    parts.map(|(name, hex)| (name, hex.as_bytes().chunks(2).map(digits).collect())).collect()
}

/// Streams that zlib 1.2.13 made of `sheet(120)`: its level or strategy, and the stream.
fn zlib_streams() -> Vec<(&'static str, Vec<u8>)> {
    named(include_str!("../../../tests/vectors/v1/deflate-streams.txt"))
}

/// Streams that other programs made of the same plain bytes.
fn other_streams() -> Vec<(&'static str, Vec<u8>)> {
    named(include_str!("../../../tests/vectors/v1/deflate-others.txt"))
}

#[test]
fn streams_of_zlib_need_no_corrections() {
    let plain = sheet(120);
    let streams = zlib_streams();
    assert_eq!(streams.len(), 19);
    for (name, stream) in streams {
        let taken = round_trip(&stream);
        assert!(taken.plain == plain, "{name}");
        assert_eq!(taken.stream_len, stream.len(), "{name}");
        assert!(taken.corrections.len() <= 30, "{name}: {} bytes", taken.corrections.len());
    }
}

/// Golden bytes of version 1: a later version of the program must make the same streams of them.
#[test]
fn corrections_of_version_1_make_their_streams() {
    let (plain, corrections) = (sheet(120), named(include_str!("../../../tests/vectors/v1/deflate-corrections.txt")));
    let streams = [zlib_streams(), other_streams()].concat();
    assert_eq!((streams.len(), corrections.len()), (28, 28));
    for ((name, stream), (of, corrections)) in streams.iter().zip(&corrections) {
        assert_eq!(name, of);
        assert!(recreate(&plain, corrections).as_ref() == Ok(stream), "{name}");
    }
}

#[test]
fn streams_of_other_makers_come_back() {
    for (name, stream) in other_streams() {
        assert!(round_trip(&stream).plain == sheet(120), "{name}");
    }
}

#[test]
fn streams_of_another_maker_need_few_corrections() {
    let plain = sheet(2000);
    // miniz's level 1 searches in a way of its own.
    for (level, share_max) in [(0, 0.01), (1, 1.2), (4, 0.5), (6, 0.5), (9, 0.5)] {
        let stream = miniz(&plain, level);
        let taken = round_trip(&stream);
        assert!(taken.plain == plain);
        let share = taken.corrections.len() as f64 / stream.len() as f64;
        assert!(share < share_max, "level {level}: {} of {} bytes", taken.corrections.len(), stream.len());
    }
}

#[test]
fn empty_and_short_plain_bytes_come_back() {
    for plain in [&b""[..], b"a", b"ab", b"aaa", b"aaaaaaaaaaaaaaaa", b"abcabcabcabc"] {
        for level in [0, 1, 6, 9] {
            assert_eq!(round_trip(&miniz(plain, level)).plain, plain);
        }
    }
}

#[test]
fn what_follows_a_stream_is_left_alone() {
    let mut stream = miniz(&sheet(20), 6);
    let len = stream.len();
    stream.extend_from_slice(b"PK\x01\x02 and more");
    assert_eq!(round_trip(&stream).stream_len, len);
}

#[test]
fn a_truncated_stream_is_none() {
    let stream = miniz(&sheet(50), 6);
    for len in 0..stream.len() {
        assert_eq!(take_apart(&stream[..len], &LIMITS), None, "{len} bytes");
    }
}

#[test]
fn noise_is_stored_and_comes_back() {
    let plain = noise(200_000);
    let taken = round_trip(&miniz(&plain, 6));
    assert!(taken.plain == plain);
    assert!(taken.corrections.len() < 100);
}

#[test]
fn padding_is_kept() {
    // A stored block's padding (RFC 1951, 3.2.4) and the bits behind the last block may be anything.
    let stored = [0b1010_1000, 1, 0, 0xfe, 0xff, b'x', 0b0000_0011, 0b1111_1100];
    assert_eq!(round_trip(&stored).plain, b"x");
    let last = [0b0000_0011, 0b1111_1100];
    assert_eq!(round_trip(&last).stream_len, 2);
}

/// Excel 2007 on some machines: an empty fixed block, then the empty stored one of a flush at the same place.
#[test]
fn regression_an_empty_block_before_a_flush() {
    let (plain, mut writer, mut block) = (b"abc", BitWriter::default(), Collected::new());
    block.begin(0);
    for &byte in plain {
        block.frequencies.count(Token::LITERAL, byte);
        block.tokens.push(Token::LITERAL);
    }
    encode::fixed(&mut writer, false, &block, plain);
    for last in [false, true] {
        encode::fixed(&mut writer, last, &Collected::new(), plain);
        if !last {
            encode::stored(&mut writer, false, 0, &[]).expect("short enough");
        }
    }
    let stream = writer.finish();
    assert_eq!(round_trip(&stream).plain, plain);
}

#[test]
fn an_incomplete_code_is_kept() {
    // One distance code of one bit, as RFC 1951, 3.2.7 allows; the other bit is no code.
    let (plain, mut block) = (b"abcabc", Collected::new());
    block.begin(0);
    for token in [Token::LITERAL, Token::LITERAL, Token::LITERAL, Token::copy(3, 3)] {
        block.frequencies.count(token, plain[block.tokens.len()]);
        block.tokens.push(token);
    }
    let stream = with_lengths(&[(b'a', 2), (b'b', 2), (b'c', 3)], 3, 2, 1, &block, plain);
    let taken = round_trip(&stream);
    assert_eq!(taken.plain, b"abcabc");
}

/// A stream of one dynamic block whose code lengths are given: of literals, of the end, of length 3 and of distance 3.
fn with_lengths(literals: &[(u8, u8)], end: u8, length: u8, distance: u8, block: &Collected, plain: &[u8]) -> Vec<u8> {
    let mut lengths = [0; 258];
    literals.iter().for_each(|&(byte, length)| lengths[usize::from(byte)] = length);
    (lengths[256], lengths[257]) = (end, length);
    let mut header = BitWriter::default();
    header.put(1, 5);
    header.put(2, 5);
    header.put(15, 4);
    // Each code length symbol from 0 to 15 has a code of 4 bits, and none is repeated.
    for symbol in super::codes::LENGTH_CODE_ORDER {
        header.put(if symbol < 16 { 4 } else { 0 }, 3);
    }
    let distances = [0, 0, distance];
    for &length in lengths.iter().chain(&distances) {
        header.put(u64::from(length.reverse_bits() >> 4), 4);
    }
    let (bits, count) = (header.finish(), 14 + 19 * 3 + 4 * (258 + 3));
    let mut writer = BitWriter::default();
    encode::kept(&mut writer, true, (&bits, count), block, plain).expect("lengths that fit");
    writer.finish()
}

#[test]
fn limits_end_a_bomb_early() {
    let bomb = miniz(&vec![0; 10 << 20], 9);
    assert_eq!(take_apart(&bomb, &Limits { plain_max: 1 << 20, ratio_max: 2000 }), None);
    assert_eq!(take_apart(&bomb, &Limits { plain_max: 64 << 20, ratio_max: 500 }), None);
    assert!(take_apart(&bomb, &LIMITS).is_some());
}

#[test]
fn plain_bytes_and_corrections_of_two_streams_are_an_error() {
    let one = round_trip(&miniz(&sheet(100), 6));
    let other = round_trip(&miniz(&noise(3000), 1));
    assert!(recreate(&one.plain, &other.corrections).is_err());
    assert!(recreate(&other.plain[..100], &other.corrections).is_err());
    assert!(recreate(&[], &one.corrections).is_err());
}

#[test]
fn a_later_version_is_refused() {
    let mut taken = round_trip(&miniz(b"abc", 6));
    taken.corrections[0] = 2;
    assert_eq!(recreate(&taken.plain, &taken.corrections), Err(RecreateError::Version(2)));
}

#[test]
fn a_sink_can_stop_the_work() {
    let taken = round_trip(&miniz(&sheet(3000), 6));
    let mut parts = 0;
    let result = recreate_into(&taken.plain, &taken.corrections, &mut |_| {
        parts += 1;
        Err(RecreateError::Sink)
    });
    assert_eq!((result, parts), (Err(RecreateError::Sink), 1));
}

/// A stream as no compressor makes it: tokens by chance, in blocks of all kinds.
fn odd_stream(plain: &[u8], choices: &[(u8, u16, u16)]) -> Vec<u8> {
    let mut writer = BitWriter::default();
    let mut at = 0;
    let mut choices = choices.iter().cycle();
    loop {
        let &(kind, count, pick) = choices.next().expect("they cycle");
        let rest = plain.len() - at;
        let last = rest <= usize::from(count);
        if kind % 4 == 0 {
            let len = rest.min(usize::from(count));
            encode::stored(&mut writer, last, 0, &plain[at..at + len]).expect("short enough");
            at += len;
        } else {
            let mut block = Collected::new();
            block.begin(at);
            let end = at + rest.min(usize::from(count));
            while at < end {
                let distance = usize::from(pick) % 300 + 1;
                let same = |length: &usize| {
                    *length < end - at && at >= distance && plain[at + length] == plain[at + length - distance]
                };
                let length = (0..258).take_while(same).count();
                let token = if length >= 3 {
                    Token::copy(length - length % 2 % (length - 2), distance)
                } else {
                    Token::LITERAL
                };
                block.frequencies.count(token, plain[at]);
                block.tokens.push(token);
                at += token.length();
            }
            if kind % 4 == 1 {
                encode::fixed(&mut writer, last, &block, plain);
            } else {
                // Codes of other frequencies than the block's.
                let mut frequencies = block.frequencies.clone();
                frequencies
                    .literals
                    .iter_mut()
                    .filter(|count| **count > 0 && kind % 4 == 3)
                    .for_each(|count| *count = 1);
                encode::dynamic(&mut writer, last, &Trees::new(&frequencies), &block, plain);
            }
        }
        if last {
            return writer.finish();
        }
    }
}

fn plain_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..3000),
        vec(0..4u8, 0..5000),
        vec((vec(any::<u8>(), 1..40), 1..30usize), 0..40)
            .prop_map(|parts| parts.iter().flat_map(|(part, times)| part.repeat(*times)).collect()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_plain_bytes_come_back(plain in plain_bytes(), level in 0..10u32) {
        prop_assert_eq!(round_trip(&miniz(&plain, level)).plain, plain);
    }

    #[test]
    fn any_stream_comes_back(plain in plain_bytes(), choices in vec((any::<u8>(), any::<u16>(), any::<u16>()), 1..8)) {
        let stream = odd_stream(&plain, &choices);
        let taken = round_trip(&stream);
        prop_assert_eq!(taken.stream_len, stream.len());
        prop_assert_eq!(taken.plain, plain);
    }

    #[test]
    fn any_bytes_are_none_or_come_back(bytes in vec(any::<u8>(), 0..300)) {
        if let Some(taken) = take_apart(&bytes, &LIMITS) {
            prop_assert_eq!(&recreate(&taken.plain, &taken.corrections).unwrap()[..], &bytes[..taken.stream_len]);
        }
    }

    #[test]
    fn a_damaged_stream_is_none_or_comes_back(at in any::<prop::sample::Index>(), bit in 0..8u8, level in 1..10u32) {
        let mut stream = miniz(&sheet(60), level);
        *at.get_mut(&mut stream) ^= 1 << bit;
        if let Some(taken) = take_apart(&stream, &LIMITS) {
            prop_assert_eq!(&recreate(&taken.plain, &taken.corrections).unwrap()[..], &stream[..taken.stream_len]);
        }
    }

    /// Damaged corrections are an error, or make another stream of the same plain bytes.
    #[test]
    fn hostile_corrections_do_no_harm(
        damages in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        plain in plain_bytes(),
        level in 0..10u32,
    ) {
        let mut taken = round_trip(&miniz(&plain, level));
        for (at, byte) in damages {
            *at.get_mut(&mut taken.corrections) = byte;
        }
        if let Ok(stream) = recreate(&taken.plain, &taken.corrections) {
            prop_assert_eq!(parse(&stream, 1 << 20).expect("a stream").plain, taken.plain);
        }
    }

    #[test]
    fn arbitrary_corrections_do_no_harm(plain in vec(0..3u8, 0..400), mut corrections in vec(any::<u8>(), 0..100)) {
        corrections.insert(0, 1);
        if let Ok(stream) = recreate(&plain, &corrections) {
            prop_assert_eq!(parse(&stream, 1 << 20).expect("a stream").plain, plain);
        }
    }

    /// Code lengths are a complete code, and not longer than is allowed.
    #[test]
    fn trees_are_complete(counts in vec(prop_oneof![Just(0u32), 1..3u32, 1..60_000u32], 0..286)) {
        let mut frequencies = Frequencies::new();
        frequencies.literals[..counts.len()].copy_from_slice(&counts);
        frequencies.literals[256] = 1;
        let trees = Trees::new(&frequencies);
        for lengths in [&trees.literals[..], &trees.distances] {
            let space: u32 = lengths.iter().filter(|&&length| length > 0).map(|&length| 1 << (15 - length)).sum();
            prop_assert_eq!(space, 1 << 15);
        }
    }
}

//! Recognises the lines that separate mails, `From <sender> <date>`, in the forms that programs write.
//!
//! No standard says what stands behind `From `. This module judges the line alone: its [`Shape`] says how much it looks
//! like a separator. [`super::Mails`] decides which header must follow.

/// Maximum length of a separator, in bytes.
pub(super) const LINE_BYTES_MAX: usize = 1024;

/// Nearly all separators are at most this long, in bytes.
pub(super) const USUAL_BYTES_MAX: usize = 200;

/// Maximum number of words of a date.
const DATE_WORDS_MAX: usize = 12;

const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// English words that stand near dates in prose, but not in separators.
const PROSE: [&str; 30] = [
    "a", "about", "after", "am,", "and", "around", "as", "at", "before", "by", "for", "from", "i", "in", "is", "it",
    "of", "on", "or", "said", "so", "that", "the", "this", "to", "until", "was", "we", "will", "you",
];

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A sender and a date with a time, and nothing else: `From ann@example.org Mon Mar  2 10:00:00 2026`.
    Full,
    /// `From `, as Thunderbird writes it.
    Bare,
    /// `From -`
    Dash,
    /// `From ann@example.org`, alone or with a date that has no time.
    Sender,
    /// Any other line that has an address, or a date at its end.
    Odd,
}

/// The content of a separator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FromLine<'a> {
    pub(super) shape: Shape,
    /// The words of the date; empty if there are none.
    pub(super) date: &'a [u8],
}

/// Reads a line that starts with `From`, without its line end. None if no program separates mails with such a line.
pub(super) fn read(line: &[u8]) -> Option<FromLine<'_>> {
    let rest = line.strip_prefix(b"From")?;
    if line.len() > LINE_BYTES_MAX || line.contains(&0) {
        return None;
    }
    if rest.first().is_some_and(|byte| !matches!(byte, b' ' | b'\t')) {
        return None;
    }
    let rest = without_remote(rest.trim_ascii());
    let found = |shape, date| Some(FromLine { shape, date });
    match rest {
        b"" => return found(Shape::Bare, rest),
        b"-" => return found(Shape::Dash, &rest[1..]),
        _ => {}
    }
    let sender = sender_len(rest);
    let (name, date) = (&rest[..sender], rest[sender..].trim_ascii());
    let is_address = is_address(name);
    match date_in(date) {
        Dated::Fully { foreign } if is_address || name == b"-" || (!foreign && !is_of_a_date(name)) => {
            return found(Shape::Full, date);
        }
        Dated::Fully { .. } => return found(Shape::Odd, date),
        Dated::Partly if is_address || name == b"-" => return found(Shape::Sender, date),
        Dated::Not if date.is_empty() && (is_address || is_daemon(name)) => return found(Shape::Sender, date),
        Dated::Partly | Dated::Not => {}
    }
    // A sender of several words: the date begins behind one of the next words.
    for (at, _) in rest.iter().enumerate().filter(|(_, byte)| matches!(byte, b' ' | b'\t')).take(DATE_WORDS_MAX) {
        let date = rest[at..].trim_ascii();
        if let Dated::Fully { foreign } = date_in(date) {
            let is_full = !foreign && rest[..at].contains(&b'@');
            return found(if is_full { Shape::Full } else { Shape::Odd }, date);
        }
    }
    if is_address { found(Shape::Odd, &rest[rest.len()..]) } else { None }
}

/// Removes `remote from host`, which UUCP appends.
fn without_remote(rest: &[u8]) -> &[u8] {
    for mark in [&b" remote from "[..], b" forwarded by "] {
        if let Some(at) = memchr::memmem::rfind(rest, mark)
            && !rest[at + mark.len()..].contains(&b' ')
        {
            return rest[..at].trim_ascii_end();
        }
    }
    rest
}

/// Returns the length of the sender at the start: a word, `"a b"@host`, `Ann Other <ann@example.org>`, or `ann at
/// example.org` as archives on the web write it (with `at` in their language).
fn sender_len(rest: &[u8]) -> usize {
    let word_end =
        |from: usize| rest[from..].iter().position(u8::is_ascii_whitespace).map_or(rest.len(), |len| from + len);
    if rest.first() == Some(&b'"')
        && let Some(close) = rest[1..].iter().position(|byte| *byte == b'"')
    {
        return word_end(close + 2);
    }
    if let Some(open) = rest.iter().position(|byte| *byte == b'<')
        && let Some(len) = rest[open..].iter().position(|byte| *byte == b'>')
        && rest[open..open + len].contains(&b'@')
    {
        return word_end(open + len);
    }
    let first = word_end(0);
    if rest[..first].contains(&b'@') {
        return first;
    }
    let mut words = rest[first..].split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    if let (Some(at), Some(host)) = (words.next(), words.next())
        && at.len() <= 4
        && at.iter().all(|byte| byte.is_ascii_alphabetic() || *byte >= 0x80)
        && is_host(host)
    {
        // Both words are slices of `rest`.
        return host.as_ptr() as usize + host.len() - rest.as_ptr() as usize;
    }
    first
}

fn is_host(word: &[u8]) -> bool {
    word == b"localhost"
        || (word.contains(&b'.')
            && word.first().is_some_and(u8::is_ascii_alphanumeric)
            && word.last().is_some_and(u8::is_ascii_alphanumeric)
            && word.iter().any(u8::is_ascii_alphabetic))
}

fn is_address(name: &[u8]) -> bool {
    name.contains(&b'@') || name.contains(&b'!') || name.contains(&b' ')
}

/// Returns whether `name` is a sender without an address, such as mail systems write.
fn is_daemon(name: &[u8]) -> bool {
    [&b"mailer-daemon"[..], b"postmaster", b"root", b"<>", b"nobody", b"daemon"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

/// Returns whether `word` belongs to a date, or to prose before one.
fn is_of_a_date(word: &[u8]) -> bool {
    let text = String::from_utf8_lossy(word);
    PROSE.contains(&text.to_lowercase().as_str())
        || !matches!(classify(&text), Word::Foreign | Word::Zone | Word::Other)
}

/// How well some words form a date.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dated {
    /// A day and a time, and nothing else. `foreign`: names of months or days are in another language than English.
    Fully {
        foreign: bool,
    },
    /// A day and nothing else.
    Partly,
    Not,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    /// `2`, `02`, `2nd`, `26`
    Number,
    Year,
    /// `10:00`, `10:00:00.123`
    Time,
    /// `10.00.00` or `02.03.26`
    TimeOrDay,
    /// `2026-03-02`, `3/2/2026`, `2-Mar-2026`
    Day,
    /// `2026-03-02T10:00:00Z`, `1772445600`
    Moment,
    Zone,
    Weekday,
    Month,
    HalfOfDay,
    /// A word that may be a month or a weekday in another language.
    Foreign,
    Other,
}

fn date_in(date: &[u8]) -> Dated {
    let text = String::from_utf8_lossy(date);
    let (mut number, mut year, mut time, mut time_or_day, mut day, mut moment) = (0, 0, 0, 0, 0, 0);
    let (mut zone, mut weekday, mut month, mut half, mut foreign) = (0, 0, 0, 0, 0);
    let mut words = 0;
    let mut hour_alone = false;
    for word in text.split_ascii_whitespace() {
        words += 1;
        if words > DATE_WORDS_MAX {
            return Dated::Not;
        }
        // `10: 00:00`, from a program that padded numbers with blanks.
        if word.len() <= 3 && word.ends_with(':') && word[..word.len() - 1].bytes().all(|byte| byte.is_ascii_digit()) {
            hour_alone = true;
            continue;
        }
        let kind = classify(word);
        if std::mem::take(&mut hour_alone) && kind != Word::Time && kind != Word::Number {
            return Dated::Not;
        }
        let count = match kind {
            Word::Number => &mut number,
            Word::Year => &mut year,
            Word::Time => &mut time,
            Word::TimeOrDay => &mut time_or_day,
            Word::Day => &mut day,
            Word::Moment => &mut moment,
            Word::Zone => &mut zone,
            Word::Weekday => &mut weekday,
            Word::Month => &mut month,
            Word::HalfOfDay => &mut half,
            Word::Foreign => &mut foreign,
            Word::Other => return Dated::Not,
        };
        *count += 1;
    }
    if hour_alone || weekday > 1 || month > 1 || half > 1 || zone > 3 || time > 1 || time_or_day > 2 || day + moment > 1
    {
        return Dated::Not;
    }
    // `10.00.00` is a time if the time is missing, else a day.
    let named = month + foreign > 0 && number + year >= 2;
    match time_or_day {
        1 if time == 0 && (named || day == 1) => time = 1,
        1 => day += 1,
        2 => (day, time) = (day + 1, time + 1),
        _ => {}
    }
    let has_day = moment == 1 || (day == 1 && number + year == 0) || (day == 0 && named && number + year <= 3);
    if !has_day || foreign > 2 || (foreign > 0 && month + weekday + foreign > 2) {
        Dated::Not
    } else if moment == 1 || time == 1 {
        Dated::Fully { foreign: foreign > 0 }
    } else {
        Dated::Partly
    }
}

fn classify(word: &str) -> Word {
    let bare = word.trim_end_matches([',', ';']).trim_matches(['(', ')', '[', ']']);
    let lower = bare.to_lowercase();
    if PROSE.contains(&lower.as_str()) {
        return Word::Other;
    }
    if let "am" | "pm" | "a.m." | "p.m." = lower.as_str() {
        return Word::HalfOfDay;
    }
    match lower.as_bytes() {
        [] => Word::Other,
        [b'0'..=b'9', ..] => classify_number(&lower),
        [b'\'', b'0'..=b'9', b'0'..=b'9'] => Word::Year,
        [b'+' | b'-', digits @ ..] if is_offset(digits) => Word::Zone,
        _ => classify_name(bare, &lower),
    }
}

fn is_offset(digits: &[u8]) -> bool {
    (1..=5).contains(&digits.len()) && digits.iter().all(|byte| byte.is_ascii_digit() || *byte == b':')
}

fn classify_name(bare: &str, lower: &str) -> Word {
    let name = lower.trim_end_matches('.');
    let full = |short: &str, endings: &[&str]| {
        name.strip_prefix(short).is_some_and(|end| end.is_empty() || endings.contains(&end))
    };
    if WEEKDAYS.iter().any(|short| full(short, &["day", "sday", "s", "nesday", "rsday", "rs", "r", "urday"])) {
        return Word::Weekday;
    }
    let months = ["uary", "ruary", "ch", "il", "e", "y", "ust", "tember", "t", "ober", "ember"];
    if MONTHS.iter().any(|short| full(short, &months)) {
        return Word::Month;
    }
    if let Some(zone) = ["gmt", "utc", "ut", "z"].iter().find_map(|name| lower.strip_prefix(name))
        && (zone.is_empty() || matches!(zone.as_bytes(), [b'+' | b'-', digits @ ..] if is_offset(digits)))
    {
        return Word::Zone;
    }
    // `CET`, `EST5EDT`, `Z`
    let is_zone = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    if bare.len() <= 7 && bare.bytes().all(is_zone) && bare.starts_with(|char: char| char.is_ascii_uppercase()) {
        return Word::Zone;
    }
    let is_letter = |char: char| char.is_alphabetic() || char == char::REPLACEMENT_CHARACTER;
    if name.chars().count() <= 14 && name.chars().all(is_letter) { Word::Foreign } else { Word::Other }
}

/// Classifies a word in lower case that begins with a digit.
fn classify_number(word: &str) -> Word {
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let behind = &word[digits..];
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match (digits, behind) {
        (1 | 2, "" | "." | "st" | "nd" | "rd" | "th") => return Word::Number,
        (4, "" | ".") if matches!(word.as_bytes()[..2], [b'1', b'9'] | [b'2', b'0' | b'1']) => return Word::Year,
        // Years since 1900, as C counts them (`126`): old programs did not add 1900.
        (3, "") if word.starts_with('1') => return Word::Year,
        // Seconds or milliseconds since 1970, or all digits of a date and a time.
        (9 | 10 | 13 | 14, "") => return Word::Moment,
        (1 | 2, "h" | "am" | "pm") => return Word::Time,
        // `2026年3月2日`
        (4, _) if behind.starts_with('年') && behind.contains('月') && behind.contains('日') => return Word::Day,
        (1..=4, _) if behind.starts_with(|char: char| !char.is_ascii()) => return Word::Number,
        _ => {}
    }
    if is_time(word) {
        return Word::Time;
    }
    if let Some((day, time)) = word.split_once(['t', '_'])
        && (is_day(day) || (day.len() == 8 && all_digits(day)))
        && (is_time(time) || all_digits(time.trim_end_matches('z')))
    {
        return Word::Moment;
    }
    match word.split('.').collect::<Vec<_>>()[..] {
        [a, b, c] if [a, b, c].iter().all(|part| part.len() <= 2 && all_digits(part)) => Word::TimeOrDay,
        [a, b] if a.len() <= 2 && b.len() == 2 && all_digits(a) && all_digits(b) => Word::TimeOrDay,
        _ if is_day(word) => Word::Day,
        _ => Word::Other,
    }
}

/// `10:00`, `10:00:00`, `10:00:00.123`, `10:00:00Z`, `10:00:00+01:00`, `10:00pm`, `10h00`
fn is_time(word: &str) -> bool {
    let word = word.replacen('h', ":", 1);
    let (time, behind) =
        word.split_at(word.find(|char: char| !char.is_ascii_digit() && char != ':').unwrap_or(word.len()));
    let mut fields = 0;
    for field in time.split(':') {
        fields += 1;
        if !matches!(field.len(), 1 | 2) {
            return false;
        }
    }
    let fraction = behind.strip_prefix(['.', ',']);
    let behind = fraction.map_or(behind, |behind| behind.trim_start_matches(|char: char| char.is_ascii_digit()));
    let is_end = matches!(behind, "" | "z" | "am" | "pm" | "gmt" | "utc")
        || behind.strip_prefix(['+', '-']).is_some_and(|digits| is_offset(digits.as_bytes()));
    matches!(fields, 2 | 3) && is_end
}

/// `2026-03-02`, `3/2/2026`, `02.03.2026`, `2-mar-2026`
fn is_day(word: &str) -> bool {
    ['-', '/', '.'].iter().any(|separator| {
        let parts: Vec<&str> = word.trim_end_matches('.').split(*separator).take(4).collect();
        let is_number = |part: &&str| matches!(part.len(), 1 | 2 | 4) && part.bytes().all(|byte| byte.is_ascii_digit());
        let [first, middle, last] = parts[..] else { return false };
        let is_name = middle.len() >= 3 && middle.chars().all(char::is_alphabetic) && middle.chars().count() <= 12;
        is_number(&first) && is_number(&last) && (is_number(&middle) || is_name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(line: &str) -> Option<Shape> {
        read(line.as_bytes()).map(|line| line.shape)
    }

    #[test]
    fn separators_of_many_programs_are_full() {
        for line in [
            "From alice@example.org Tue Oct  1 09:30:00 2024",
            "From - Tue Oct 01 12:00:00 2024",
            "From MAILER-DAEMON Fri Jul  8 12:08:34 2011",
            "From 1806429@xxx Mon Jan 01 00:00:00 +0000 2024",
            "From ???@??? Mon Jan 01 00:00:00 1997",
            "From 9f2c1b7e Mon Sep 17 00:00:00 2001",
            "From root Thu Nov 24 18:22 GMT 1986",
            "From hplabs!ucbvax!ann Thu Nov 24 18:22:48 1986 remote from hplabs",
            "From ann@example.org Thu Nov 24 18:22:48 MET DST 1986",
            "From ann@example.org Mon Mar  2 10:00:00 2026 +0100",
            "From ann@example.org Mon Mar  2 10:00:00 2026 (CET)",
            "From ann@example.org Mon Mar  2 10:00:00 GMT+0100 2026",
            "From ann@example.org Mon, 2 Mar 2026 10:00:00 +0000",
            "From ann@example.org Monday, March 2, 2026 10:00 PM",
            "From ann@example.org 3/2/2026 10:00:00 AM",
            "From ann@example.org 02/03/2026 10:00",
            "From ann@example.org 2.3.2026 10:00:00",
            "From ann@example.org 02.03.26 10:00",
            "From ann@example.org 2-Mar-2026 10:00:00",
            "From ann@example.org 2026-03-02T10:00:00Z",
            "From ann@example.org 2026-03-02T10:00:00.123+01:00",
            "From ann@example.org 20260302T100000Z",
            "From ann@example.org 2026-03-02 10:00:00",
            "From ann@example.org 2026/03/02 10:00:00",
            "From ann@example.org 1772445600",
            "From ann@example.org Mon Mar  2 10:00:00.123 2026",
            "From ann@example.org Mon Mar  2 10:00:00 2026 +0100 (CET)",
            "From ann@example.org Mon Mar 02 2026 10:00:00",
            "From ann@example.org 02 Mar 2026 10:00:00 +0000",
            "From ann@example.org Mon Mar  2 10:00 2026",
            "From ann@example.org 02.03.2026 10:00:00",
            "From ann@example.org Mon Mar  2 10:00:00 AM 2026",
            "From ann@example.org lundi 2 mars 2026 10:00:00",
            "From ann@example.org 2026-03-02 10:00:00 +0000 UTC",
            "From ann@example.org 2026-03-02 10:00:00.000000",
            "From ann@example.org Thu, Jan 1 1970 00:00:00 GMT-0500 (EST)",
            "From \"Ann Other\" <ann@example.org> Mon Mar  2 10:00:00 2026",
            "From ann@example.org (Ann Other) Mon Mar  2 10:00:00 2026",
            "From  ann@example.org  Mon Mar  2 10:00:00 2026  ",
            "From ann@example.org 20260302100000",
            "From ann@example.org 1772445600000",
            "From ann@example.org Mon Mar  2 10:00:00 26",
            "From ann@example.org Mon Mar  2 10:00:00 126",
            "From ann@example.org Mon Mar  2 10.00.00 2026",
            "From ann@example.org  Mon Mar  2 10: 00:00 2026",
            "From ann@example.org Mo Mär  2 10:00:00 2026",
            "From ann@example.org lun. mars 2 10:00:00 2026",
            "From ann@example.org Пн мар  2 10:00:00 2026",
            "From ann@example.org 月  3月  2 10:00:00 2026",
            "From ann@example.org 2026年3月2日 10:00:00",
            "From\tann@example.org\tMon Mar  2 10:00:00 2026",
            "From ann at example.org  Mon Mar  2 10:00:00 2026",
            "From ann en example.org  Mon Mar  2 10:00:00 2026",
            "From \"ann other\"@example.org Mon Mar  2 10:00:00 2026",
            "From Ann Other <ann@example.org> Mon Mar  2 10:00:00 2026",
            "From <> Mon Mar  2 10:00:00 2026",
        ] {
            assert_eq!(shape(line), Some(Shape::Full), "{line}");
        }
        let latin1 = b"From ann@example.org Mo M\xe4r  2 10:00:00 2026";
        assert_eq!(read(latin1).unwrap().shape, Shape::Full);
    }

    #[test]
    fn other_separators_need_more_of_a_header() {
        for (line, expected) in [
            ("From ", Shape::Bare),
            ("From", Shape::Bare),
            ("From -", Shape::Dash),
            ("From ann@example.org", Shape::Sender),
            ("From ann at example.org", Shape::Sender),
            ("From MAILER-DAEMON", Shape::Sender),
            ("From ann@example.org 2026-03-02", Shape::Sender),
            ("From a b Thu Nov 24 18:22 GMT 1986", Shape::Odd),
            ("From Ann Other Mon Mar  2 10:00:00 2026", Shape::Odd),
            ("From Mon Mar  2 10:00:00 2026", Shape::Odd),
            ("From Monday 2 March 2026 10:00", Shape::Odd),
            ("From ann@example.org some other day", Shape::Odd),
        ] {
            assert_eq!(shape(line), Some(expected), "{line}");
        }
    }

    #[test]
    fn prose_is_no_separator() {
        for line in [
            "From here on",
            "From here",
            "From: alice",
            "Fromage Tue Oct  1 09:30:00 2024",
            "from a Tue Oct  1 09:30:00 2024",
            ">From a Tue Oct  1 09:30:00 2024",
            "From Monday 12:30 on",
            "From memory it was in May 2019 at 10:30",
            "From memory it was in May 2019 at 10:30 or so.",
            "From Mon 10:30 on, 2026 will be better.",
            "From what I saw on 2 March 2026 at 10:00 we were late",
            "From 10:00 to 12:00 on Monday 2 March 2026 we meet",
            "From 2 to 3",
            "From ann Mon Mar\0 2 10:00:00 2026",
            "",
        ] {
            assert_eq!(shape(line), None, "{line}");
        }
    }

    #[test]
    fn the_date_is_what_stands_behind_the_sender() {
        for (line, date) in [
            ("From ann at example.org  Mon Mar  2 10:00:00 2026", "Mon Mar  2 10:00:00 2026"),
            ("From a!b Thu Nov 24 18:22:48 1986 remote from b", "Thu Nov 24 18:22:48 1986"),
            ("From Ann Other Mon Mar  2 10:00:00 2026", "Mon Mar  2 10:00:00 2026"),
            ("From -", ""),
            ("From ann@example.org", ""),
        ] {
            assert_eq!(read(line.as_bytes()).unwrap().date, date.as_bytes(), "{line}");
        }
    }
}

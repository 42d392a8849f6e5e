//! Dates as mails write them: RFC 5322 and earlier standards, asctime, ISO 8601, and the variants that programs write.
//!
//! A date is read word by word, so the order of the words, missing blanks, commas, comments and quotes do not matter. A
//! value that cannot be a date (30 February, a year before 1900) gives no date: a wrong date is worse than none.

use jiff::civil;

/// Maximum length of a date in bytes. The rest of a longer value is ignored.
const DATE_BYTES_MAX: usize = 256;
/// The first year that is accepted. Programs that do not know the date write earlier ones, and there was no mail then.
const FIRST_YEAR: i16 = 1900;

/// The names of months: the letters that each begins with in English, then in other languages where they differ.
const MONTHS: [&[&str]; 12] = [
    &["jan", "ene", "gen", "janv", "jän", "янв"],
    &["feb", "fév", "fev", "фев"],
    &["mar", "mär", "mrz", "mae", "мар"],
    &["apr", "avr", "abr", "апр"],
    &["may", "mai", "mag", "mei", "мая", "май"],
    &["jun", "juin", "giu", "июн"],
    &["jul", "juil", "lug", "июл"],
    &["aug", "aoû", "aou", "ago", "авг"],
    &["sep", "set", "сен"],
    &["oct", "okt", "ott", "out", "окт"],
    &["nov", "ноя"],
    &["dec", "dez", "dic", "déc", "дек"],
];

/// Names of time zones and their offset from UTC in minutes. The military letters are missing: RFC 822 had their signs
/// wrong, so RFC 5322 (4.3) reads them as UTC.
const ZONES: [(&str, i64); 61] = [
    ("ut", 0),
    ("utc", 0),
    ("gmt", 0),
    ("wet", 0),
    ("z", 0),
    ("est", -300),
    ("edt", -240),
    ("est5edt", -300),
    ("cst", -360),
    ("cdt", -300),
    ("cst6cdt", -360),
    ("mst", -420),
    ("mdt", -360),
    ("mst7mdt", -420),
    ("pst", -480),
    ("pdt", -420),
    ("pst8pdt", -480),
    ("akst", -540),
    ("akdt", -480),
    ("hst", -600),
    ("ast", -240),
    ("adt", -180),
    ("nst", -210),
    ("ndt", -150),
    ("brt", -180),
    ("brst", -120),
    ("art", -180),
    ("clt", -240),
    ("bst", 60),
    ("west", 60),
    ("cet", 60),
    ("met", 60),
    ("mez", 60),
    ("mewt", 60),
    ("swt", 60),
    ("fwt", 60),
    ("cest", 120),
    ("mest", 120),
    ("mesz", 120),
    ("metdst", 120),
    ("sst", 120),
    ("fst", 120),
    ("cat", 120),
    ("eet", 120),
    ("sast", 120),
    ("eest", 180),
    ("eetdst", 180),
    ("msk", 180),
    ("eat", 180),
    ("msd", 240),
    ("pkt", 300),
    ("wib", 420),
    ("cct", 480),
    ("hkt", 480),
    ("sgt", 480),
    ("awst", 480),
    ("jst", 540),
    ("kst", 540),
    ("aest", 600),
    ("aedt", 660),
    ("nzst", 720),
];

/// Returns the time that `value` means, in seconds since 1970. `value` is a date from a header or from an mbox From_
/// line.
///
/// A date without a time zone is UTC; a date without a time is midnight.
pub fn parse(value: &[u8]) -> Option<i64> {
    let mut found = Found::default();
    let text = String::from_utf8_lossy(&value[..value.len().min(DATE_BYTES_MAX)]).to_lowercase();
    let text = without_comments(&text);
    let split =
        |char: char| char.is_whitespace() || char.is_control() || matches!(char, ',' | ';' | '"' | '\'' | '<' | '>');
    for word in text.split(split).filter(|word| !word.is_empty()) {
        found.word(word);
    }
    found.moment()
}

/// Removes comments in brackets. If a bracket is never closed, only the bracket is removed.
fn without_comments(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('(') {
        kept.push_str(before);
        kept.push(' ');
        let mut depth = 1_usize;
        let end = after.char_indices().find(|(_, char)| {
            match char {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        rest = match end {
            Some((end, _)) => &after[end + 1..],
            None => after,
        };
    }
    kept.push_str(rest);
    kept
}

/// What the words read so far say.
#[derive(Default)]
struct Found {
    /// Numbers that are a day or a year, each with its number of digits.
    numbers: Vec<(i64, usize)>,
    month: Option<i64>,
    /// A whole date that one word said: year, month, day.
    whole: Option<(i64, i64, i64)>,
    time: Option<(i64, i64, i64)>,
    afternoon: Option<bool>,
    /// The time zone in minutes east of UTC.
    offset: Option<i64>,
    zone: Option<i64>,
    /// True if the time does not exist on any day.
    wrong: bool,
}

impl Found {
    fn word(&mut self, word: &str) {
        // A time zone as a word of its own: `GMT+0100`, `+02:00`.
        if let Some(sign) = word.starts_with(['+', '-']).then(|| word.as_bytes()[0])
            && word[1..].starts_with(|char: char| char.is_ascii_digit())
            && (self.time.is_some() || word.len() >= 5)
        {
            self.offset = self.offset.or_else(|| offset(sign, &word[1..]));
        } else if word.starts_with(|char: char| char.is_ascii_digit()) {
            if word.contains(':') { self.time_word(word) } else { self.number_word(word) }
        } else {
            self.name_word(word);
        }
    }

    /// Reads `10:00:00`, also with a date before it or a time zone behind it.
    fn time_word(&mut self, word: &str) {
        if self.time.is_some() {
            return;
        }
        // `2026-03-02t10:00:00`
        let word = match word.split_once('t') {
            Some((date, time)) if date.len() >= 8 && date.starts_with(|char: char| char.is_ascii_digit()) => {
                self.number_word(date);
                time
            }
            _ => word,
        };
        let end = word.find(|char: char| !char.is_ascii_digit() && char != ':').unwrap_or(word.len());
        let (time, mut behind) = word.split_at(end);
        self.take_time(time, ':');
        if let Some(fraction) = behind.strip_prefix('.') {
            behind = fraction.trim_start_matches(|char: char| char.is_ascii_digit());
        }
        if !behind.is_empty() {
            self.word(behind);
        }
    }

    fn take_time(&mut self, text: &str, separator: char) {
        let mut parts = text.split(separator).map(|part| part.parse::<i64>().ok());
        let (hour, minute, second) = (parts.next().flatten(), parts.next().flatten(), parts.next().unwrap_or(Some(0)));
        let (Some(hour), Some(minute), Some(second)) = (hour, minute, second) else { return };
        self.wrong |= hour > 24 || minute > 59 || second > 60 || (hour == 24 && minute + second > 0);
        // A leap second counts to the minute before it.
        self.time = Some((hour, minute, second.min(59)));
    }

    /// Reads a day, a year, or a whole date: `10-jul-1997`, `2026-03-02`, `02.03.2026`.
    fn number_word(&mut self, word: &str) {
        let separator = word.chars().find(|char| !char.is_ascii_digit());
        match separator {
            None => self.number(word),
            Some(separator @ ('-' | '.' | '/')) => {
                let parts: Vec<&str> = word.split(separator).filter(|part| !part.is_empty()).collect();
                self.parts(separator, &parts);
            }
            // `2nd`, `1º`, `10h`, and the hours of twelve-hour clocks: `10am`.
            Some(_) => {
                let digits = word.trim_end_matches(|char: char| !char.is_ascii_digit());
                match word[digits.len()..].trim_matches('.') {
                    "am" | "pm" => {
                        self.afternoon = Some(word[digits.len()..].starts_with('p'));
                        self.time = self.time.or(digits.parse().ok().map(|hour| (hour, 0, 0)));
                    }
                    _ => self.number(digits),
                }
            }
        }
    }

    fn number(&mut self, digits: &str) {
        if let Ok(number) = digits.parse::<i64>()
            && self.numbers.len() < 4
        {
            self.numbers.push((number, digits.len()));
        }
    }

    fn parts(&mut self, separator: char, parts: &[&str]) {
        if parts.iter().any(|part| part.chars().all(char::is_alphabetic)) {
            parts.iter().for_each(|part| self.word(part));
            return;
        }
        let numbers: Vec<i64> = parts.iter().filter_map(|part| part.parse().ok()).collect();
        match (numbers.as_slice(), parts) {
            ([one, two, three], [first, _, third]) if numbers.len() == parts.len() => {
                if first.len() == 4 {
                    self.whole = self.whole.or(Some((*one, *two, *three)));
                } else if separator == '.' && self.time.is_none() && third.len() < 4 && self.month.is_some() {
                    self.take_time(&parts.join(":"), ':');
                } else if separator == '.' {
                    self.whole = self.whole.or(Some((century(*three, third.len()), *two, *one)));
                } else if *one > 12 {
                    // With slashes or dashes, the month may come first or the day. If both are possible, it is no date.
                    self.whole = self.whole.or(Some((century(*three, third.len()), *two, *one)));
                } else if *two > 12 || one == two {
                    self.whole = self.whole.or(Some((century(*three, third.len()), *one, *two)));
                }
            }
            // `10.30` behind a date is a time; `2.` before a month is a day.
            ([_, _], [_, minute]) if separator == '.' && minute.len() == 2 && self.month.is_some() => {
                if self.time.is_none() {
                    self.take_time(&parts.join(":"), ':');
                }
            }
            _ => parts
                .iter()
                .filter(|part| part.chars().all(|char| char.is_ascii_digit()))
                .for_each(|part| self.number(part)),
        }
    }

    fn name_word(&mut self, word: &str) {
        let word = word.trim_matches('.');
        if let "am" | "pm" | "a.m" | "p.m" = word {
            self.afternoon = Some(word.starts_with('p'));
            return;
        }
        if let Some((_, minutes)) = ZONES.iter().find(|(name, _)| *name == word) {
            self.zone = self.zone.or(Some(*minutes));
            return;
        }
        if let Some(at) = word.find(['+', '-']).filter(|at| *at > 0) {
            let (name, behind) = word.split_at(at);
            if ["gmt", "utc", "ut", "z"].contains(&name) {
                self.offset = self.offset.or_else(|| offset(behind.as_bytes()[0], &behind[1..]));
            } else if behind.starts_with('-') {
                word.split('-').filter(|part| !part.is_empty()).take(8).for_each(|part| self.word(part));
            }
            return;
        }
        if self.month.is_none() {
            self.month = month(word);
        }
    }

    fn moment(self) -> Option<i64> {
        let (year, month, day) = match (self.whole, self.month) {
            (Some(whole), _) => whole,
            (None, Some(month)) => {
                let [(first, first_len), (second, second_len)] = *self.numbers.first_chunk()?;
                if first_len > 2 || first > 31 {
                    (century(first, first_len), month, second)
                } else {
                    (century(second, second_len), month, first)
                }
            }
            (None, None) => return None,
        };
        let (mut hour, minute, second) = self.time.unwrap_or_default();
        if self.wrong {
            return None;
        }
        match self.afternoon {
            Some(true) if hour < 12 => hour += 12,
            Some(false) if hour == 12 => hour = 0,
            _ => {}
        }
        let year = i16::try_from(year).ok().filter(|year| *year >= FIRST_YEAR)?;
        let date = civil::Date::new(year, month.try_into().ok()?, day.try_into().ok()?).ok()?;
        let days = i64::from((date - civil::date(1970, 1, 1)).get_days());
        let offset = self.offset.or(self.zone).unwrap_or(0);
        Some(days * 86_400 + hour * 3600 + (minute - offset) * 60 + second)
    }
}

/// Two digits are a year up to 2049; three digits count from 1900 (RFC 5322, 4.3).
fn century(year: i64, digits: usize) -> i64 {
    match digits {
        1 | 2 if year < 50 => 2000 + year,
        1..=3 => 1900 + year,
        _ => year,
    }
}

/// Reads the offset of a time zone: `0100`, `01:00`, `1`, `01`, `530`.
fn offset(sign: u8, text: &str) -> Option<i64> {
    let end = text.find(|char: char| !char.is_ascii_digit() && char != ':').unwrap_or(text.len());
    let digits: String = text[..end].chars().filter(char::is_ascii_digit).collect();
    let number: i64 = digits.parse().ok()?;
    let minutes = if digits.len() <= 2 { number * 60 } else { number / 100 * 60 + number % 100 };
    let is_real = minutes <= 16 * 60 && (digits.len() <= 2 || number % 100 < 60);
    is_real.then_some(if sign == b'-' { -minutes } else { minutes })
}

fn month(word: &str) -> Option<i64> {
    if word.len() < 3 {
        return None;
    }
    let is_month = |names: &&[&str]| names.iter().any(|name| word.starts_with(name));
    MONTHS.iter().position(|names| is_month(&&**names)).map(|at| at as i64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn utc(value: &str) -> String {
        let Some(seconds) = parse(value.as_bytes()) else { return "undated".to_owned() };
        let moment = civil::date(1970, 1, 1).at(0, 0, 0, 0) + jiff::SignedDuration::from_secs(seconds);
        moment.strftime("%Y-%m-%d %H.%M").to_string()
    }

    #[test]
    fn dates_in_all_their_forms() {
        for (value, expected) in [
            ("Tue, 1 Oct 2024 13:30:00 +0200", "2024-10-01 11.30"),
            ("1 Jan 70 12:00:00 +0000", "1970-01-01 12.00"),
            ("1 Jan 49 12:00:00 +0000", "2049-01-01 12.00"),
            ("1 Jan 50 12:00:00 +0000", "1950-01-01 12.00"),
            ("Mon, 2 Mar 126 10:00:00 +0000", "2026-03-02 10.00"),
            ("Thu, 10 Jul 1997 14:53:31 EST5EDT", "1997-07-10 19.53"),
            ("Thu, 10-Jul-1997 14:53:31 GMT", "1997-07-10 14.53"),
            ("Thursday, 10-Jul-97 14:53:31 CET", "1997-07-10 13.53"),
            ("Sun, 27 Oct 2002 23:57:07 PDT", "2002-10-28 06.57"),
            ("Tue, 12 May 2020 12:08:24 Z", "2020-05-12 12.08"),
            ("Thu, 6 Oct 2022 12:27:13 +0200 (GMT+02:00)", "2022-10-06 10.27"),
            ("Tue Jul 24 18:55:07 EDT 2007", "2007-07-24 22.55"),
            ("Tue Jul 24 18:55:07 2007", "2007-07-24 18.55"),
            ("Tue Jul 24 18:55:07 2007 -0400", "2007-07-24 22.55"),
            ("Mon Jan 01 00:00:00 +0000 2024", "2024-01-01 00.00"),
            ("Tue Jul 24 18:55 2007", "2007-07-24 18.55"),
            ("2026-03-02T10:00:00+01:00", "2026-03-02 09.00"),
            ("2026-03-02T10:00:00.123Z", "2026-03-02 10.00"),
            ("2026-03-02 10:00:00 +0100", "2026-03-02 09.00"),
            ("2026/03/02 10:00", "2026-03-02 10.00"),
            ("Mon, 2 Mar 2026 10:00:00", "2026-03-02 10.00"),
            ("Mon, 2 Mar 2026 10:00 +0100", "2026-03-02 09.00"),
            ("Mon, 2 Mar 2026 10:00:00 +01:00", "2026-03-02 09.00"),
            ("Mon, 2 Mar 2026 10:00:00 GMT+0100", "2026-03-02 09.00"),
            ("Mon, 2 Mar 2026 10:00:00 UTC+1", "2026-03-02 09.00"),
            ("Mon, 2 Mar 2026 10:00:00+0100", "2026-03-02 09.00"),
            ("Mon 2 Mar 2026 9:5:3 +0100", "2026-03-02 08.05"),
            ("Mon, 2 March 2026 10:00:00 CEST", "2026-03-02 08.00"),
            ("Mon, 2. März 2026 10:00:00 +0100", "2026-03-02 09.00"),
            ("Montag, 02.03.2026 10:00:00 MEZ", "2026-03-02 09.00"),
            ("Пн, 2 мар 2026 13:00:00 +0300", "2026-03-02 10.00"),
            ("понедельник, 2 мая 2026 г. 13:00:00 +0300", "2026-05-02 10.00"),
            ("Mon, 2 Mar 2026 10:00:00 -0930", "2026-03-02 19.30"),
            ("Mon, 2 Mar 2026 10:00:00 +1400", "2026-03-01 20.00"),
            ("Mon, 2 Mar 2026 10:00:00 \"GMT\"", "2026-03-02 10.00"),
            ("Mon, 2 Mar (it is (late) spring) 2026 10:00:00 +0100", "2026-03-02 09.00"),
            ("Mon, 2 Mar 2026 10.00.00 +0100", "2026-03-02 09.00"),
            ("Mar 2, 2026 10:00:00 AM", "2026-03-02 10.00"),
            ("Mar 2, 2026 10:00 PM", "2026-03-02 22.00"),
            ("Mon, 2 Mar 2026 12:10:00 am", "2026-03-02 00.10"),
            ("Mon, 2 Mar 2026 24:00:00 +0000", "2026-03-03 00.00"),
            ("Thu, 31 Dec 1998 23:59:60 +0000", "1998-12-31 23.59"),
            ("Mon, 2 Mar 2026 10:00:00 A", "2026-03-02 10.00"),
            ("Fri, 31 Dec 9999 23:59:59 +0000", "9999-12-31 23.59"),
            ("2 Mar 2026", "2026-03-02 00.00"),
            ("20/3/2026 10:00", "2026-03-20 10.00"),
        ] {
            assert_eq!(utc(value), expected, "{value}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for value in [
            "",
            "soon",
            "Mon, 30 Feb 2026 10:00:00 +0000",
            "Thu, 01 Jan 0001 00:00:00 +0000",
            "Tue, 1 Oct 0102 11:30:00 +0000",
            "Mon, 2 Mar 2026 25:00:00 +0000",
            "Mon, 2 Mar 2026 10:61:00 +0000",
            "Mon, 2 Mar 10:00:00 +0000",
            "2/3/2026 10:00",
            "99999999999999999999 Mar 2026",
            "10:00:00",
        ] {
            assert_eq!(utc(value), "undated", "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_value_is_read_without_panic(
            value in "[0-9a-z :+.,()/\"T-]{0,60}|(Mon, )?[0-9]{1,20} (Mar|dez) [0-9]{1,20} .{0,30}",
        ) {
            parse(value.as_bytes());
        }

        #[test]
        fn a_date_that_was_written_comes_back(seconds in -2_000_000_000_i64..200_000_000_000, offset in -12_i8..=14) {
            let zone = jiff::tz::Offset::constant(offset).to_time_zone();
            let zoned = jiff::Timestamp::from_second(seconds).unwrap().to_zoned(zone);
            for form in [
                "%a, %d %b %Y %H:%M:%S %z",
                "%a %b %e %H:%M:%S %Y %z",
                "%Y-%m-%dT%H:%M:%S%:z",
                "%d-%B-%Y %H:%M:%S GMT%z",
            ] {
                prop_assert_eq!(parse(zoned.strftime(form).to_string().as_bytes()), Some(seconds), "{}", form);
            }
        }
    }
}

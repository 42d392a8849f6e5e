//! What files with events and files with tasks have in common (RFC 5545): texts, dates, and how something recurs.

use calcard::common::PartialDateTime;
use calcard::icalendar::{
    ICalendarComponent, ICalendarComponentType, ICalendarDay, ICalendarFrequency, ICalendarMonth, ICalendarParameter,
    ICalendarProperty, ICalendarRecurrenceRule, ICalendarValueType, ICalendarWeekday,
};
use jiff::Timestamp;
use jiff::civil::{Date, Weekday};

/// The program that made a file (RFC 5545, 3.7.3).
pub const PRODUCT: &str = "-//Strongroom//Strongroom//EN";

/// How something recurs (Graph: patternedRecurrence).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recurrence {
    /// On which days.
    pub pattern: Pattern,
    /// Every how many days, weeks, months or years; at least 1.
    pub interval: u16,
    /// How long.
    pub end: RecurrenceEnd,
}

/// On which days something recurs (Graph: recurrencePattern).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// Every day.
    Daily,
    /// On these days of the week.
    Weekly {
        /// The days.
        days: Vec<Weekday>,
        /// The day with which weeks begin. It matters if the interval is more than one week.
        first: Weekday,
    },
    /// On this day of the month, or on its last day if the month is shorter.
    Monthly {
        /// The day, from 1 to 31.
        day: i8,
    },
    /// On one of these days of the week in the month: the first, ..., the fourth, or the last one (-1).
    MonthlyOn {
        /// The days.
        days: Vec<Weekday>,
        /// Which of them.
        nth: i8,
    },
    /// On this day of this month of the year.
    Yearly {
        /// The month, from 1 to 12.
        month: i8,
        /// The day, from 1 to 31.
        day: i8,
    },
    /// As [`Pattern::MonthlyOn`], in this month of the year.
    YearlyOn {
        /// The month, from 1 to 12.
        month: i8,
        /// The days.
        days: Vec<Weekday>,
        /// Which of them.
        nth: i8,
    },
}

/// How long something recurs (Graph: recurrenceRange).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecurrenceEnd {
    /// For ever.
    Never,
    /// This many times.
    Times(u32),
    /// Up to this day, inclusive.
    On(Date),
}

impl Recurrence {
    /// Returns the rule. `until` makes the last moment of the last day: its type must be that of the start.
    pub fn rule(&self, until: impl FnOnce(Date) -> PartialDateTime) -> ICalendarRecurrenceRule {
        let mut rule = ICalendarRecurrenceRule::default();
        let days_of_week = |rule: &mut ICalendarRecurrenceRule, days: &[Weekday], nth: Option<i8>| {
            let day = |day: &Weekday| ICalendarDay { ordwk: None, weekday: weekday(*day) };
            rule.byday = days.iter().map(day).collect();
            // The n-th of several days: the first weekday of the month is one of five days.
            rule.bysetpos = nth.into_iter().map(i32::from).collect();
        };
        match &self.pattern {
            Pattern::Daily => rule.freq = ICalendarFrequency::Daily,
            Pattern::Weekly { days, first } => {
                rule.freq = ICalendarFrequency::Weekly;
                days_of_week(&mut rule, days, None);
                rule.wkst = Some(weekday(*first));
            }
            Pattern::Monthly { day } => {
                rule.freq = ICalendarFrequency::Monthly;
                day_of_month(&mut rule, *day);
            }
            Pattern::MonthlyOn { days, nth } => {
                rule.freq = ICalendarFrequency::Monthly;
                days_of_week(&mut rule, days, Some(*nth));
            }
            Pattern::Yearly { month, day } => {
                rule.freq = ICalendarFrequency::Yearly;
                rule.bymonth = vec![ICalendarMonth::new(month.unsigned_abs(), false)];
                day_of_month(&mut rule, *day);
            }
            Pattern::YearlyOn { month, days, nth } => {
                rule.freq = ICalendarFrequency::Yearly;
                rule.bymonth = vec![ICalendarMonth::new(month.unsigned_abs(), false)];
                days_of_week(&mut rule, days, Some(*nth));
            }
        }
        rule.interval = Some(self.interval).filter(|interval| *interval > 1);
        match self.end {
            RecurrenceEnd::Never => {}
            RecurrenceEnd::Times(times) => rule.count = Some(times.max(1)),
            RecurrenceEnd::On(last) => rule.until = Some(until(last)),
        }
        rule
    }
}

/// Sets the day of the month. In a month that has no such day, Outlook takes the last day, and RFC 5545 none: so the
/// rule is the last one of the days from the 28th on.
fn day_of_month(rule: &mut ICalendarRecurrenceRule, day: i8) {
    match day {
        29..=31 => {
            rule.bymonthday = (28..=day).collect();
            rule.bysetpos = vec![-1];
        }
        day => rule.bymonthday = vec![day],
    }
}

fn weekday(day: Weekday) -> ICalendarWeekday {
    match day {
        Weekday::Monday => ICalendarWeekday::Monday,
        Weekday::Tuesday => ICalendarWeekday::Tuesday,
        Weekday::Wednesday => ICalendarWeekday::Wednesday,
        Weekday::Thursday => ICalendarWeekday::Thursday,
        Weekday::Friday => ICalendarWeekday::Friday,
        Weekday::Saturday => ICalendarWeekday::Saturday,
        Weekday::Sunday => ICalendarWeekday::Sunday,
    }
}

/// Returns a date without a time.
pub fn date(date: Date) -> PartialDateTime {
    PartialDateTime {
        year: u16::try_from(date.year()).ok(),
        month: u8::try_from(date.month()).ok(),
        day: u8::try_from(date.day()).ok(),
        ..PartialDateTime::default()
    }
}

/// Returns a time in UTC.
pub fn time(time: Timestamp) -> PartialDateTime {
    let time = jiff::tz::TimeZone::UTC.to_datetime(time);
    PartialDateTime {
        hour: u8::try_from(time.hour()).ok(),
        minute: u8::try_from(time.minute()).ok(),
        second: u8::try_from(time.second()).ok(),
        tz_hour: Some(0),
        tz_minute: Some(0),
        ..date(time.date())
    }
}

/// Returns the parameter of a value that is a date without a time.
pub fn is_date() -> ICalendarParameter {
    ICalendarParameter::value(ICalendarValueType::Date)
}

/// Returns the first component of a file, which holds all others.
pub fn calendar() -> ICalendarComponent {
    let mut calendar = ICalendarComponent::new(ICalendarComponentType::VCalendar);
    calendar.add_property(ICalendarProperty::Version, "2.0");
    calendar.add_property(ICalendarProperty::Prodid, PRODUCT);
    calendar
}

/// Makes single LFs of line breaks, and leaves other control characters out. What only some programs take for a line
/// break (such as U+2028) becomes one, too: else they would see a second line where others see one.
pub fn clean(text: impl AsRef<str>) -> String {
    let mut clean = String::with_capacity(text.as_ref().len());
    let mut chars = text.as_ref().chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\r' if chars.peek() == Some(&'\n') => {}
            '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => clean.push('\n'),
            '\n' | '\t' => clean.push(char),
            _ if char.is_control() => {}
            _ => clean.push(char),
        }
    }
    clean
}

/// Returns a text for a parameter, which can hold neither quotes nor line breaks (RFC 5545, 3.1). A backslash
/// is left alone by some programs and not by others, so it becomes a slash.
pub fn parameter(text: &str) -> String {
    clean(text).replace('"', "'").replace('\\', "/").replace(['\n', '\t'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: Pattern, interval: u16, end: RecurrenceEnd) -> String {
        Recurrence { pattern, interval, end }.rule(date).to_string()
    }

    #[test]
    fn each_pattern_is_a_rule() {
        use RecurrenceEnd::{Never, On, Times};
        use Weekday::{Friday, Monday, Sunday};
        let workdays = vec![Monday, Weekday::Tuesday, Weekday::Wednesday, Weekday::Thursday, Friday];
        for (pattern, interval, end, expected) in [
            (Pattern::Daily, 1, Never, "FREQ=DAILY"),
            (Pattern::Daily, 3, Times(5), "FREQ=DAILY;COUNT=5;INTERVAL=3"),
            (
                Pattern::Weekly { days: vec![Monday, Friday], first: Sunday },
                2,
                On(jiff::civil::date(2027, 1, 31)),
                "FREQ=WEEKLY;UNTIL=20270131;INTERVAL=2;BYDAY=MO,FR;WKST=SU",
            ),
            (Pattern::Monthly { day: 15 }, 1, Never, "FREQ=MONTHLY;BYMONTHDAY=15"),
            (Pattern::Monthly { day: 31 }, 1, Never, "FREQ=MONTHLY;BYMONTHDAY=28,29,30,31;BYSETPOS=-1"),
            (Pattern::MonthlyOn { days: vec![Monday], nth: 2 }, 1, Never, "FREQ=MONTHLY;BYDAY=MO;BYSETPOS=2"),
            (Pattern::MonthlyOn { days: workdays, nth: -1 }, 1, Never, "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1"),
            (Pattern::Yearly { month: 12, day: 24 }, 1, Never, "FREQ=YEARLY;BYMONTHDAY=24;BYMONTH=12"),
            (Pattern::Yearly { month: 2, day: 29 }, 1, Never, "FREQ=YEARLY;BYMONTHDAY=28,29;BYMONTH=2;BYSETPOS=-1"),
            (
                Pattern::YearlyOn { month: 11, days: vec![Weekday::Thursday], nth: 4 },
                1,
                Never,
                "FREQ=YEARLY;BYDAY=TH;BYMONTH=11;BYSETPOS=4",
            ),
        ] {
            assert_eq!(rule(pattern, interval, end), expected);
        }
    }

    #[test]
    fn a_time_is_in_utc() {
        let written = time("2026-11-02T23:59:58.9Z".parse().unwrap());
        let mut text = String::new();
        written.format_as_ical(&mut text, &ICalendarValueType::DateTime).unwrap();
        assert_eq!(text, "20261102T235958Z");
        assert_eq!(parameter("a \"b\"\r\nc\u{7}"), "a 'b' c");
    }
}

//! What files with events and files with tasks have in common (RFC 5545): texts and dates.

use calcard::common::PartialDateTime;
use calcard::icalendar::{
    ICalendarComponent, ICalendarComponentType, ICalendarParameter, ICalendarProperty, ICalendarValueType,
};
use jiff::Timestamp;
use jiff::civil::Date;

/// The program that made a file (RFC 5545, 3.7.3).
pub const PRODUCT: &str = "-//Strongroom//Strongroom//EN";

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

    #[test]
    fn a_time_is_in_utc() {
        let written = time("2026-11-02T23:59:58.9Z".parse().unwrap());
        let mut text = String::new();
        written.format_as_ical(&mut text, &ICalendarValueType::DateTime).unwrap();
        assert_eq!(text, "20261102T235958Z");
        assert_eq!(parameter("a \"b\"\r\nc\u{7}"), "a 'b' c");
    }
}

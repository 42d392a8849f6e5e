//! Periods for which the key of a repository is remembered, as people write them.

use std::str::FromStr;
use std::time::Duration;

/// Maximum period, because nobody should forget for days that a key lies open.
const MAX: Duration = Duration::from_secs(24 * 3600);

/// A period of 1 second to 24 hours, written as `90s`, `15m` or `8h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

/// The text is not a period.
#[derive(Debug, thiserror::Error)]
#[error("{written:?} is not a time from 1s to 24h; write a number, followed by s, m or h")]
pub struct NotAPeriod {
    written: String,
}

impl FromStr for Period {
    type Err = NotAPeriod;

    fn from_str(written: &str) -> Result<Self, NotAPeriod> {
        let number = written.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let unit = match &written[number.len()..] {
            "s" => Some(1),
            "m" => Some(60),
            "h" => Some(3600),
            _ => None,
        };
        let is_number = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
        let seconds = unit.filter(|_| is_number).and_then(|unit| number.parse::<u64>().ok()?.checked_mul(unit));
        let period = seconds.map(Duration::from_secs).filter(|period| !period.is_zero() && *period <= MAX);
        period.map(Self).ok_or_else(|| NotAPeriod { written: written.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_read_as_they_are_written() {
        for (written, seconds) in [("1s", 1), ("90s", 90), ("15m", 900), ("24h", 86_400)] {
            assert_eq!(written.parse::<Period>().expect(written), Period(Duration::from_secs(seconds)));
        }
        for written in [
            "",
            "0s",
            "25h",
            "86401s",
            "15",
            "m",
            "-1m",
            "+5m",
            "1.5h",
            "5d",
            "5 m",
            "99999999999999999999h",
            "5mm",
            "\u{664}m",
        ] {
            assert!(written.parse::<Period>().is_err(), "{written}");
        }
    }
}

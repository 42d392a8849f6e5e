//! Dates as mail needs them. Converts seconds since 1970 to the forms of RFC 5322, file names and mbox lines, always in
//! UTC.

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const LONG_DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Seconds in a day.
pub const DAY: i64 = 86_400;

/// A point in time, split into calendar fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// Year, such as 2026.
    pub year: i64,
    /// Month, 1 to 12.
    pub month: i64,
    /// Day of the month, from 1.
    pub day: i64,
    /// Hour, 0 to 23.
    pub hour: i64,
    /// Minute.
    pub minute: i64,
    /// Second.
    pub second: i64,
    /// Day of the week; 0 is Sunday.
    pub weekday: usize,
}

impl Date {
    /// Returns the date `unix` seconds after the beginning of 1970.
    pub fn from_unix(unix: i64) -> Self {
        // Converts days to a calendar date in eras of 400 years that begin in March (Howard Hinnant, "chrono-compatible
        // low-level date algorithms").
        let (days, seconds) = (unix.div_euclid(DAY), unix.rem_euclid(DAY));
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Self {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: seconds / 3_600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            weekday: (days + 4).rem_euclid(7) as usize,
        }
    }

    /// Returns the date in the form of mail headers: `Mon, 2 Nov 2026 09:30:00 +0000`.
    pub fn mail(&self) -> String {
        let Self { year, month, day, hour, minute, second, weekday } = *self;
        let (weekday, month) = (DAYS[weekday], MONTHS[month as usize - 1]);
        format!("{weekday}, {day} {month} {year} {hour:02}:{minute:02}:{second:02} +0000")
    }

    /// Returns the date as Outlook writes it above a quoted message: `Monday, 2 Nov 2026 09:30`.
    pub fn quoted(&self) -> String {
        let Self { year, month, day, hour, minute, weekday, .. } = *self;
        format!("{}, {day} {} {year} {hour:02}:{minute:02}", LONG_DAYS[weekday], MONTHS[month as usize - 1])
    }

    /// Returns the date in the form with which file names begin: `2026-11-02 09.30`.
    pub fn file_name(&self) -> String {
        format!("{:04}-{:02}-{:02} {:02}.{:02}", self.year, self.month, self.day, self.hour, self.minute)
    }

    /// Returns the date in the form of the `From ` lines of mbox: `Mon Nov  2 09:30:00 2026`.
    pub fn mbox(&self) -> String {
        let Self { year, month, day, hour, minute, second, weekday } = *self;
        let (weekday, month) = (DAYS[weekday], MONTHS[month as usize - 1]);
        format!("{weekday} {month} {day:2} {hour:02}:{minute:02}:{second:02} {year}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_a_date() {
        let date = Date::from_unix(1_793_611_800);
        assert_eq!(date.mail(), "Mon, 2 Nov 2026 09:30:00 +0000");
        assert_eq!(date.quoted(), "Monday, 2 Nov 2026 09:30");
        assert_eq!(date.file_name(), "2026-11-02 09.30");
        assert_eq!(date.mbox(), "Mon Nov  2 09:30:00 2026");
        assert_eq!(Date::from_unix(-1).mail(), "Wed, 31 Dec 1969 23:59:59 +0000");
        assert_eq!(Date::from_unix(951_782_400).mail(), "Tue, 29 Feb 2000 00:00:00 +0000");
    }
}

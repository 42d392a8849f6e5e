//! Time zones by the names that calendars of Microsoft 365 use: those of Windows mostly, and those of the IANA database.
//!
//! The rules come from the database in `calcard`, from which the VTIMEZONE of a file is written, too.

use calcard::common::PartialDateTime;
use calcard::common::timezone::Tz;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use std::str::FromStr;

/// The hours by which zones differ from UTC.
const OFFSETS: std::ops::RangeInclusive<i8> = -12..=14;

/// A time zone.
#[derive(Debug, Clone)]
pub(super) struct Zone {
    tz: Tz,
    /// The name in the IANA database; `None` for UTC.
    id: Option<String>,
}

impl Zone {
    /// Returns UTC.
    pub(super) fn utc() -> Self {
        Self { tz: Tz::UTC, id: None }
    }

    /// Returns the zone with this name of Windows or of the IANA database. There is none for a zone that an old program
    /// made up (`tzone://Microsoft/Custom`): nobody can tell its rules from its name.
    pub(super) fn named(name: &str) -> Option<Self> {
        let name = name.trim();
        let small = name.to_ascii_lowercase();
        if ["utc", "etc/utc", "tzone://microsoft/utc"].contains(&small.as_str()) {
            return Some(Self::utc());
        }
        if name.is_empty() || small.starts_with("tzone:") || small.starts_with("customized") {
            return None;
        }
        let known = Tz::from_str(name).ok().or_else(|| {
            // The table of CLDR has the few names that calcard does not know.
            let name = localzone::win_zone_to_iana(name, Some("001"))?;
            Tz::from_str(name).ok()
        });
        let tz = known.filter(|tz| !tz.is_floating())?;
        match tz.is_utc() {
            true => Some(Self::utc()),
            false => Some(Self { tz, id: Some(tz.name()?.into_owned()) }),
        }
    }

    /// Returns the zone nearest to UTC in which the clocks show the date `date` at `instant`. It stands in for a zone
    /// whose rules nobody knows, so that at least the days of a series are right.
    pub(super) fn guessed(instant: Timestamp, date: Date) -> Self {
        let shows = |hours: &i8| {
            let shifted = instant.as_second() + i64::from(*hours) * 3600;
            local_of(shifted).is_some_and(|local| local.date() == date)
        };
        let hours = OFFSETS.filter(shows).min_by_key(|hours| hours.unsigned_abs()).unwrap_or(0);
        // The names in the database count westward.
        let name = format!("Etc/GMT{}{}", if hours > 0 { "-" } else { "+" }, hours.unsigned_abs());
        if hours == 0 { Self::utc() } else { Self::named(&name).unwrap_or_else(Self::utc) }
    }

    /// Returns the name in the IANA database; `None` for UTC.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns what the clocks show at `instant`.
    pub(super) fn local(&self, instant: Timestamp) -> Option<DateTime> {
        if self.id.is_none() {
            return local_of(instant.as_second());
        }
        let utc = partial(local_of(instant.as_second())?)?.to_date_time_with_tz(Tz::UTC)?;
        local_of(utc.with_timezone(&self.tz).naive_local().and_utc().timestamp())
    }

    /// Returns the only instant at which the clocks show `local`. There is none if they skip it or show it twice.
    pub(super) fn instant(&self, local: DateTime) -> Option<Timestamp> {
        let seconds = partial(local)?.to_date_time_with_tz(self.tz)?.timestamp();
        Timestamp::from_second(seconds).ok()
    }

    /// Returns an instant at which the clocks show `local`. If they skip it or show it twice, returns one that is at
    /// most two hours later.
    pub(super) fn instant_or_later(&self, local: DateTime) -> Option<Timestamp> {
        (0..5).find_map(|halves: i64| {
            let later = local.checked_add(jiff::SignedDuration::from_mins(halves * 30)).ok()?;
            self.instant(later)
        })
    }
}

fn local_of(seconds: i64) -> Option<DateTime> {
    let instant = Timestamp::from_second(seconds).ok()?;
    Some(jiff::tz::TimeZone::UTC.to_datetime(instant))
}

/// Returns a date and a time as `calcard` has them, without a zone.
pub(super) fn partial(local: DateTime) -> Option<PartialDateTime> {
    Some(PartialDateTime {
        hour: u8::try_from(local.hour()).ok(),
        minute: u8::try_from(local.minute()).ok(),
        second: u8::try_from(local.second()).ok(),
        ..partial_date(local.date())?
    })
}

/// Returns a time in UTC as `calcard` has it.
pub(super) fn partial_utc(instant: Timestamp) -> Option<PartialDateTime> {
    let local = partial(local_of(instant.as_second())?)?;
    Some(PartialDateTime { tz_hour: Some(0), tz_minute: Some(0), ..local })
}

/// Returns a date as `calcard` has it.
pub(super) fn partial_date(date: Date) -> Option<PartialDateTime> {
    Some(PartialDateTime {
        year: Some(u16::try_from(date.year()).ok()?),
        month: u8::try_from(date.month()).ok(),
        day: u8::try_from(date.day()).ok(),
        ..PartialDateTime::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::{date, datetime};

    fn instant(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn names_of_windows_and_of_iana_mean_zones() {
        for (name, id) in [
            ("Pacific Standard Time", "America/Los_Angeles"),
            ("W. Europe Standard Time", "Europe/Berlin"),
            ("South Sudan Standard Time", "Africa/Juba"),
            ("Europe/Berlin", "Europe/Berlin"),
            ("India Standard Time", "Asia/Kolkata"),
        ] {
            let zone = Zone::named(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(zone.id().map(|id| id.replace("Calcutta", "Kolkata")).as_deref(), Some(id), "{name}");
        }
        for utc in ["UTC", "utc", "tzone://Microsoft/Utc", "Etc/UTC", "Etc/GMT"] {
            assert_eq!(Zone::named(utc).map(|zone| zone.id), Some(None), "{utc}");
        }
        for none in ["", "tzone://Microsoft/Custom", "Customized Time Zone", "Middle Earth Time"] {
            assert!(Zone::named(none).is_none(), "{none}");
        }
    }

    #[test]
    fn clocks_change_where_they_do() {
        let berlin = Zone::named("W. Europe Standard Time").unwrap();
        let (winter, summer) = (instant("2026-03-28T08:00:00Z"), instant("2026-03-30T08:00:00Z"));
        assert_eq!(berlin.local(winter), Some(datetime(2026, 3, 28, 9, 0, 0, 0)));
        assert_eq!(berlin.local(summer), Some(datetime(2026, 3, 30, 10, 0, 0, 0)));
        assert_eq!(berlin.instant(datetime(2026, 3, 30, 10, 0, 0, 0)), Some(summer));
        for odd in [datetime(2026, 3, 29, 2, 30, 0, 0), datetime(2026, 10, 25, 2, 30, 0, 0)] {
            assert_eq!(berlin.instant(odd), None, "{odd}");
            let later = berlin.instant_or_later(odd).and_then(|instant| berlin.local(instant)).unwrap();
            assert!(later > odd && later <= odd.saturating_add(jiff::SignedDuration::from_hours(2)), "{later}");
        }
    }

    #[test]
    fn a_zone_that_nobody_knows_has_the_right_day() {
        let offset = |text: &str, day| {
            let zone = Zone::guessed(instant(text), date(2026, 3, day));
            (zone.local(instant(text)).unwrap().date() == date(2026, 3, day), zone.id)
        };
        assert_eq!(offset("2026-03-02T09:00:00Z", 2), (true, None));
        assert_eq!(offset("2026-03-01T22:00:00Z", 2), (true, Some("Etc/GMT-2".to_owned())));
        assert_eq!(offset("2026-03-03T03:00:00Z", 2), (true, Some("Etc/GMT+4".to_owned())));
        assert_eq!(offset("2026-03-09T03:00:00Z", 2), (false, None), "no zone is a week away");
    }
}

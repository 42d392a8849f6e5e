//! Time zones by the names that the service uses: those of Windows mostly, and those of the IANA database.

use std::sync::OnceLock;

use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};

/// The name that the service shows for a zone that an old program made up. Nobody can tell its rules from it.
pub const CUSTOM: &str = "tzone://Microsoft/Custom";

/// Returns the zone with this name of Windows or of the IANA database. The database comes with the program, so that all
/// machines agree.
pub fn zone(name: &str) -> Option<TimeZone> {
    static ZONES: OnceLock<TimeZoneDatabase> = OnceLock::new();
    let name = name.trim();
    if ["utc", "tzone://microsoft/utc"].contains(&name.to_ascii_lowercase().as_str()) {
        return Some(TimeZone::UTC);
    }
    let iana = localzone::win_zone_to_iana(name, Some("001")).unwrap_or(name);
    ZONES.get_or_init(TimeZoneDatabase::bundled).get(iana).ok()
}

/// Returns the zone with this name, or UTC if there is none.
pub fn zone_or_utc(name: &str) -> TimeZone {
    zone(name).unwrap_or(TimeZone::UTC)
}

/// Returns the point in time at which clocks in the zone show `local`. Of a time that they show twice it is the first
/// one, and a time that they skip counts from the hour before.
pub fn instant(local: DateTime, zone: &TimeZone) -> Timestamp {
    let found = zone.to_ambiguous_timestamp(local).compatible();
    // Only the first and the last days of all time have no instant in some zones.
    found.unwrap_or(if local.year() < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// Returns what clocks in the zone show at `instant`.
pub fn local(instant: Timestamp, zone: &TimeZone) -> DateTime {
    zone.to_datetime(instant)
}

/// Returns the end of something that begins at `start` and has the length of something from `from` to `to`.
pub fn shifted_end(start: DateTime, from: DateTime, to: DateTime) -> DateTime {
    let length: SignedDuration = from.duration_until(to);
    start.saturating_add(length)
}

/// Parses a local time as the service writes it. What stands behind the seconds, also an offset, does not count.
pub fn parse_local(text: &str) -> Option<DateTime> {
    text.trim_end_matches('Z').parse().ok()
}

/// Returns a local time in the form `2017-09-04T12:00:00.0000000`.
pub fn local_text(local: DateTime) -> String {
    local.strftime("%Y-%m-%dT%H:%M:%S.0000000").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_have_names_of_windows_and_of_iana() {
        let noon = parse_local("2026-07-01T12:00:00.0000000").expect("a time");
        for (name, utc) in [
            ("UTC", "2026-07-01T12:00:00Z"),
            ("tzone://Microsoft/Utc", "2026-07-01T12:00:00Z"),
            ("Pacific Standard Time", "2026-07-01T19:00:00Z"),
            ("W. Europe Standard Time", "2026-07-01T10:00:00Z"),
            ("India Standard Time", "2026-07-01T06:30:00Z"),
            ("South Sudan Standard Time", "2026-07-01T10:00:00Z"),
            ("America/Los_Angeles", "2026-07-01T19:00:00Z"),
        ] {
            assert_eq!(instant(noon, &zone(name).expect(name)).to_string(), utc, "{name}");
        }
        for name in [CUSTOM, "", "Nowhere Standard Time"] {
            assert_eq!(zone(name), None, "{name}");
        }
    }

    #[test]
    fn a_skipped_hour_and_a_doubled_one_have_an_instant() {
        let zone = zone("W. Europe Standard Time").expect("a zone");
        let at = |text: &str| instant(parse_local(text).expect("a time"), &zone).to_string();
        assert_eq!(at("2026-03-29T02:30:00"), "2026-03-29T01:30:00Z");
        assert_eq!(at("2026-10-25T02:30:00"), "2026-10-25T00:30:00Z");
        assert_eq!(
            local_text(parse_local("2026-01-02T03:04:05.1234567Z").expect("a time")),
            "2026-01-02T03:04:05.0000000"
        );
    }
}

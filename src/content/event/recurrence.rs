//! The rule of a series: what the service calls a pattern and a range (Graph: patternedRecurrence), as an RRULE.

use super::zone::{Zone, partial_date, partial_utc};
use super::{list, text};
use calcard::icalendar::{ICalendarDay, ICalendarFrequency, ICalendarMonth, ICalendarRecurrenceRule, ICalendarWeekday};
use jiff::ToSpan;
use jiff::civil::{Date, DateTime};
use serde_json::Value;

/// Every month has so many days. On a later day, Outlook takes the last day of a shorter month.
const DAYS_OF_ALL_MONTHS: i8 = 28;

/// When a series begins.
pub(super) struct Beginning<'a> {
    /// What the clocks in its zone show.
    pub local: DateTime,
    /// The zone in which it repeats.
    pub zone: &'a Zone,
    /// True if it takes whole days.
    pub is_all_day: bool,
}

/// Returns the rule of a series, unless its pattern is one that this version does not know.
pub(super) fn rule(recurrence: &Value, beginning: &Beginning<'_>) -> Option<ICalendarRecurrenceRule> {
    let pattern = recurrence.get("pattern")?;
    let number = |name: &str| pattern.get(name).and_then(Value::as_i64).unwrap_or(0);
    let interval = u16::try_from(number("interval")).ok().filter(|interval| *interval > 1);
    let mut rule = ICalendarRecurrenceRule { interval, ..ICalendarRecurrenceRule::default() };
    let days = || list(pattern, "daysOfWeek").filter_map(Value::as_str).filter_map(weekday);
    let set_days = |rule: &mut ICalendarRecurrenceRule| {
        rule.byday = days().map(|weekday| ICalendarDay { ordwk: None, weekday }).collect();
    };
    let kind = text(pattern, "type").to_ascii_lowercase();
    rule.freq = match kind.as_str() {
        "daily" => ICalendarFrequency::Daily,
        "weekly" => ICalendarFrequency::Weekly,
        "absolutemonthly" | "relativemonthly" => ICalendarFrequency::Monthly,
        "absoluteyearly" | "relativeyearly" => ICalendarFrequency::Yearly,
        _ => return None,
    };
    match kind.as_str() {
        "weekly" => {
            set_days(&mut rule);
            rule.wkst = weekday(text(pattern, "firstDayOfWeek"));
        }
        "absolutemonthly" | "absoluteyearly" => match i8::try_from(number("dayOfMonth")).ok()? {
            day @ 1..=DAYS_OF_ALL_MONTHS => rule.bymonthday = vec![day],
            // The RFC skips months without such a day (3.3.10). The last of these days is the one that Outlook takes.
            day @ 29..=31 => {
                rule.bymonthday = (DAYS_OF_ALL_MONTHS..=day).collect();
                rule.bysetpos = vec![-1];
            }
            _ => return None,
        },
        "relativemonthly" | "relativeyearly" => {
            set_days(&mut rule);
            rule.bysetpos = vec![position(text(pattern, "index"))?];
            if rule.byday.is_empty() {
                return None;
            }
        }
        _ => {}
    }
    if rule.freq == ICalendarFrequency::Yearly {
        let month = u8::try_from(number("month")).ok().filter(|month| (1..=12).contains(month))?;
        rule.bymonth = vec![ICalendarMonth::new(month, false)];
    }
    end(&mut rule, recurrence.get("range")?, beginning)?;
    Some(rule)
}

/// Returns how many days after its beginning a series has its first instance. The service begins to apply the pattern on
/// that day, which need not fit the pattern; the RFC takes the beginning for an instance whatever the rule says (3.8.5.3).
pub(super) fn days_to_first(recurrence: &Value, begins: Date) -> Option<i32> {
    let pattern = recurrence.get("pattern")?;
    let number = |name: &str| pattern.get(name).and_then(Value::as_i64).unwrap_or(0);
    let interval = number("interval").clamp(1, 1_000);
    let kind = text(pattern, "type").to_ascii_lowercase();
    let wanted: Vec<_> = list(pattern, "daysOfWeek").filter_map(Value::as_str).filter_map(day_number).collect();
    let first = match kind.as_str() {
        "weekly" if !wanted.is_empty() => {
            let week_begins = day_number(text(pattern, "firstDayOfWeek")).unwrap_or(0);
            let into_week = (begins.weekday().to_sunday_zero_offset() - week_begins).rem_euclid(7);
            let days_left = i64::from(7 - into_week);
            let fits = |day: Date| wanted.contains(&day.weekday().to_sunday_zero_offset());
            let later = |days: i64| begins.checked_add(days.days()).ok().filter(|day| fits(*day));
            let this_week = (0..days_left).find_map(later);
            this_week.or_else(|| (0..7).find_map(|days| later(days_left + (interval - 1) * 7 + days)))?
        }
        "absolutemonthly" | "relativemonthly" => {
            let fitting = |months: i64| {
                let month = begins.first_of_month().checked_add(months.months()).ok()?;
                fitting_day(pattern, &kind, &wanted, month)
            };
            fitting(0).filter(|day| *day >= begins).or_else(|| fitting(interval))?
        }
        "absoluteyearly" | "relativeyearly" => {
            let fitting = |years: i64| {
                let (year, month) = (begins.year().checked_add(i16::try_from(years).ok()?)?, number("month"));
                fitting_day(pattern, &kind, &wanted, Date::new(year, i8::try_from(month).ok()?, 1).ok()?)
            };
            fitting(0).filter(|day| *day >= begins).or_else(|| fitting(interval))?
        }
        _ => begins,
    };
    Some(begins.until(first).ok()?.get_days()).filter(|days| *days >= 0)
}

/// Returns the day of a month on which a pattern falls. `month` is its first day.
fn fitting_day(pattern: &Value, kind: &str, wanted: &[i8], month: Date) -> Option<Date> {
    if kind.starts_with("absolute") {
        let day = i8::try_from(pattern.get("dayOfMonth")?.as_i64()?).ok().filter(|day| *day > 0)?;
        return Date::new(month.year(), month.month(), day.min(month.days_in_month())).ok();
    }
    let days = (1..=month.days_in_month()).filter_map(|day| Date::new(month.year(), month.month(), day).ok());
    let mut fitting = days.filter(|day| wanted.contains(&day.weekday().to_sunday_zero_offset()));
    match position(text(pattern, "index"))? {
        -1 => fitting.next_back(),
        position => fitting.nth(usize::try_from(position).ok()?.checked_sub(1)?),
    }
}

/// Returns the number of a day of the week, counted from Sunday.
fn day_number(name: &str) -> Option<i8> {
    Some(match weekday(name)? {
        ICalendarWeekday::Sunday => 0,
        ICalendarWeekday::Monday => 1,
        ICalendarWeekday::Tuesday => 2,
        ICalendarWeekday::Wednesday => 3,
        ICalendarWeekday::Thursday => 4,
        ICalendarWeekday::Friday => 5,
        ICalendarWeekday::Saturday => 6,
    })
}

/// Adds when the series ends. The last day counts as a whole.
fn end(rule: &mut ICalendarRecurrenceRule, range: &Value, beginning: &Beginning<'_>) -> Option<()> {
    match text(range, "type").to_ascii_lowercase().as_str() {
        "noend" => {}
        "numbered" => {
            let count = range.get("numberOfOccurrences").and_then(Value::as_u64)?;
            rule.count = Some(u32::try_from(count).ok().filter(|count| *count > 0)?);
        }
        "enddate" => {
            let last: Date = text(range, "endDate").get(..10)?.parse().ok()?;
            rule.until = match beginning.is_all_day {
                true => partial_date(last),
                // It must be in UTC, and is that of the last instance (RFC 5545, 3.3.10).
                false => partial_utc(beginning.zone.instant_or_later(last.to_datetime(beginning.local.time()))?),
            };
        }
        _ => return None,
    }
    Some(())
}

/// Returns when the series ends at the latest, as a year.
pub(super) fn last_year(recurrence: &Value) -> Option<i64> {
    let range = recurrence.get("range")?;
    match text(range, "type").eq_ignore_ascii_case("endDate") {
        true => text(range, "endDate").get(..4)?.parse().ok(),
        false => None,
    }
}

fn position(index: &str) -> Option<i32> {
    Some(match index.to_ascii_lowercase().as_str() {
        "first" => 1,
        "second" => 2,
        "third" => 3,
        "fourth" => 4,
        "last" => -1,
        _ => return None,
    })
}

fn weekday(name: &str) -> Option<ICalendarWeekday> {
    Some(match name.to_ascii_lowercase().as_str() {
        "sunday" => ICalendarWeekday::Sunday,
        "monday" => ICalendarWeekday::Monday,
        "tuesday" => ICalendarWeekday::Tuesday,
        "wednesday" => ICalendarWeekday::Wednesday,
        "thursday" => ICalendarWeekday::Thursday,
        "friday" => ICalendarWeekday::Friday,
        "saturday" => ICalendarWeekday::Saturday,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::datetime;
    use serde_json::json;

    fn written(pattern: Value, range: Value) -> Option<String> {
        let zone = Zone::named("Pacific Standard Time").unwrap();
        let beginning = Beginning { local: datetime(2017, 9, 4, 5, 0, 0, 0), zone: &zone, is_all_day: false };
        rule(&json!({ "pattern": pattern, "range": range }), &beginning).map(|rule| rule.to_string())
    }

    #[test]
    fn each_pattern_has_its_rule() {
        let no_end = json!({ "type": "noEnd", "startDate": "2017-09-04", "endDate": "0001-01-01" });
        for (pattern, expected) in [
            (json!({"type": "daily", "interval": 3}), "FREQ=DAILY;INTERVAL=3"),
            (
                json!({"type": "weekly", "interval": 2, "daysOfWeek": ["monday", "friday"], "firstDayOfWeek": "sunday"}),
                "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,FR;WKST=SU",
            ),
            (json!({"type": "absoluteMonthly", "interval": 1, "dayOfMonth": 4}), "FREQ=MONTHLY;BYMONTHDAY=4"),
            (
                json!({"type": "absoluteMonthly", "interval": 1, "dayOfMonth": 30}),
                "FREQ=MONTHLY;BYMONTHDAY=28,29,30;BYSETPOS=-1",
            ),
            (
                json!({"type": "relativeMonthly", "interval": 1, "daysOfWeek": ["tuesday"], "index": "last"}),
                "FREQ=MONTHLY;BYDAY=TU;BYSETPOS=-1",
            ),
            (
                json!({"type": "absoluteYearly", "interval": 1, "month": 2, "dayOfMonth": 29}),
                "FREQ=YEARLY;BYMONTHDAY=28,29;BYMONTH=2;BYSETPOS=-1",
            ),
            (
                json!({"type": "relativeYearly", "interval": 1, "month": 11, "daysOfWeek": ["thursday"], "index": "fourth"}),
                "FREQ=YEARLY;BYDAY=TH;BYMONTH=11;BYSETPOS=4",
            ),
        ] {
            assert_eq!(written(pattern.clone(), no_end.clone()).as_deref(), Some(expected), "{pattern}");
        }
        for unknown in [json!({"type": "hourly"}), json!({"type": "absoluteMonthly", "dayOfMonth": 0}), json!({})] {
            assert_eq!(written(unknown.clone(), no_end.clone()), None, "{unknown}");
        }
    }

    #[test]
    fn a_series_begins_with_the_first_day_that_fits() {
        let first = |pattern: Value, begins: Date| {
            days_to_first(&json!({ "pattern": pattern }), begins).and_then(|days| begins.checked_add(days.days()).ok())
        };
        let friday = jiff::civil::date(2026, 1, 30);
        for (pattern, day) in [
            (json!({"type": "daily", "interval": 3}), "2026-01-30"),
            (json!({"type": "weekly", "interval": 1, "daysOfWeek": ["friday", "monday"]}), "2026-01-30"),
            (
                json!({"type": "weekly", "interval": 2, "daysOfWeek": ["monday"], "firstDayOfWeek": "monday"}),
                "2026-02-09",
            ),
            (
                json!({"type": "weekly", "interval": 2, "daysOfWeek": ["sunday"], "firstDayOfWeek": "monday"}),
                "2026-02-01",
            ),
            (
                json!({"type": "weekly", "interval": 2, "daysOfWeek": ["sunday"], "firstDayOfWeek": "sunday"}),
                "2026-02-08",
            ),
            (json!({"type": "absoluteMonthly", "interval": 1, "dayOfMonth": 31}), "2026-01-31"),
            (json!({"type": "absoluteMonthly", "interval": 1, "dayOfMonth": 29}), "2026-02-28"),
            (
                json!({"type": "relativeMonthly", "interval": 3, "daysOfWeek": ["tuesday"], "index": "last"}),
                "2026-04-28",
            ),
            (json!({"type": "absoluteYearly", "interval": 2, "month": 1, "dayOfMonth": 4}), "2028-01-04"),
            (
                json!({"type": "relativeYearly", "interval": 1, "month": 3, "daysOfWeek": ["sunday"], "index": "first"}),
                "2026-03-01",
            ),
        ] {
            assert_eq!(first(pattern.clone(), friday).map(|day| day.to_string()).as_deref(), Some(day), "{pattern}");
        }
        assert_eq!(first(json!({"type": "absoluteMonthly", "interval": 1}), friday), None);
    }

    #[test]
    fn the_last_day_is_told_in_utc() {
        let daily = json!({"type": "daily", "interval": 1});
        let until = written(daily.clone(), json!({"type": "endDate", "endDate": "2017-12-31"})).unwrap();
        assert_eq!(until, "FREQ=DAILY;UNTIL=20171231T130000Z", "5 in the morning, in winter");
        let numbered = written(daily.clone(), json!({"type": "numbered", "numberOfOccurrences": 7})).unwrap();
        assert_eq!(numbered, "FREQ=DAILY;COUNT=7");
        assert_eq!(written(daily, json!({"type": "numbered", "numberOfOccurrences": 0})), None);
        let zone = Zone::utc();
        let all_day = Beginning { local: datetime(2017, 9, 4, 0, 0, 0, 0), zone: &zone, is_all_day: true };
        let range = json!({"type": "endDate", "endDate": "2017-12-31"});
        let recurrence = json!({"pattern": {"type": "daily", "interval": 1}, "range": range});
        assert_eq!(rule(&recurrence, &all_day).unwrap().to_string(), "FREQ=DAILY;UNTIL=20171231");
    }
}

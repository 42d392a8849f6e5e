//! Series: which days a recurrence has, by the rules of Outlook.
//!
//! Days are days in the series' own zone. Nothing here knows instants, so daylight saving time cannot shift a day.

use jiff::Span;
use jiff::civil::{Date, Weekday};
use serde_json::{Value, json};

/// Maximum number of days of a month.
const MONTH_DAYS_MAX: i8 = 31;

const DAYS: [(&str, Weekday); 7] = [
    ("sunday", Weekday::Sunday),
    ("monday", Weekday::Monday),
    ("tuesday", Weekday::Tuesday),
    ("wednesday", Weekday::Wednesday),
    ("thursday", Weekday::Thursday),
    ("friday", Weekday::Friday),
    ("saturday", Weekday::Saturday),
];

const INDICES: [&str; 5] = ["first", "second", "third", "fourth", "last"];

/// On which days of the calendar a series has an occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Daily,
    Weekly,
    AbsoluteMonthly,
    RelativeMonthly,
    AbsoluteYearly,
    RelativeYearly,
}

const KINDS: [(&str, Kind); 6] = [
    ("daily", Kind::Daily),
    ("weekly", Kind::Weekly),
    ("absoluteMonthly", Kind::AbsoluteMonthly),
    ("relativeMonthly", Kind::RelativeMonthly),
    ("absoluteYearly", Kind::AbsoluteYearly),
    ("relativeYearly", Kind::RelativeYearly),
];

/// When a series ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Never,
    /// With the last occurrence on or before this day.
    On(Date),
    /// After this many occurrences.
    After(u32),
}

/// A recurrence (Graph: "patternedRecurrence resource type").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recurrence {
    kind: Kind,
    interval: i32,
    month: i8,
    day_of_month: i8,
    days: Vec<Weekday>,
    first_day_of_week: Weekday,
    index: usize,
    start: Date,
    end: End,
    /// `recurrenceTimeZone` as the client gave it; empty in old series.
    pub zone: String,
}

impl Recurrence {
    /// Reads a recurrence.
    ///
    /// # Errors
    /// The reason why it is not one.
    pub fn read(value: &Value) -> Result<Self, String> {
        let (pattern, range) = (&value["pattern"], &value["range"]);
        let text = |of: &Value, name: &str| of[name].as_str().unwrap_or_default().to_owned();
        let number = |of: &Value, name: &str| of[name].as_i64().unwrap_or(0);
        let date = |name: &str| -> Result<Date, String> {
            text(range, name).parse().map_err(|_| format!("The property '{name}' must be a date."))
        };
        let named = text(pattern, "type");
        let kind = KINDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(&named)).map(|(_, kind)| *kind);
        let kind = kind.ok_or_else(|| format!("'{named}' is no type of a recurrence pattern."))?;
        let interval = i32::try_from(number(pattern, "interval")).unwrap_or(0);
        if !(1..=99_999).contains(&interval) {
            return Err("The interval of a recurrence must be at least 1.".to_owned());
        }
        let days = match pattern["daysOfWeek"].as_array() {
            None => Vec::new(),
            Some(days) => days.iter().map(|day| weekday(day.as_str().unwrap_or_default())).collect::<Result<_, _>>()?,
        };
        let first_day_of_week = match text(pattern, "firstDayOfWeek") {
            name if name.is_empty() => Weekday::Sunday,
            name => weekday(&name)?,
        };
        let index = match text(pattern, "index") {
            name if name.is_empty() => 0,
            name => INDICES
                .iter()
                .position(|known| known.eq_ignore_ascii_case(&name))
                .ok_or_else(|| format!("'{name}' is no index of a recurrence pattern."))?,
        };
        let small = |name: &str| i8::try_from(number(pattern, name)).unwrap_or(-1);
        let (month, day_of_month) = (small("month"), small("dayOfMonth"));
        let needs_days = matches!(kind, Kind::Weekly | Kind::RelativeMonthly | Kind::RelativeYearly);
        if needs_days && days.is_empty() {
            return Err("The property 'daysOfWeek' is required for this type of pattern.".to_owned());
        }
        let needs_day = matches!(kind, Kind::AbsoluteMonthly | Kind::AbsoluteYearly);
        if needs_day && !(1..=MONTH_DAYS_MAX).contains(&day_of_month) {
            return Err("The property 'dayOfMonth' is required for this type of pattern.".to_owned());
        }
        let needs_month = matches!(kind, Kind::AbsoluteYearly | Kind::RelativeYearly);
        if needs_month && !(1..=12).contains(&month) {
            return Err("The property 'month' is required for this type of pattern.".to_owned());
        }
        let start = date("startDate")?;
        let end = match text(range, "type").to_ascii_lowercase().as_str() {
            "noend" => End::Never,
            "enddate" => End::On(date("endDate")?),
            "numbered" => End::After(u32::try_from(number(range, "numberOfOccurrences")).unwrap_or(0)),
            other => return Err(format!("'{other}' is no type of a recurrence range.")),
        };
        if matches!(end, End::After(0)) || matches!(end, End::On(last) if last < start) {
            return Err("The recurrence has no occurrence.".to_owned());
        }
        let zone = text(range, "recurrenceTimeZone");
        Ok(Self { kind, interval, month, day_of_month, days, first_day_of_week, index, start, end, zone })
    }

    /// Returns it in the form in which the service shows it.
    pub fn to_json(&self) -> Value {
        let name = |day: Weekday| DAYS.iter().find(|(_, known)| *known == day).map_or("", |(name, _)| name);
        let kind = KINDS.iter().find(|(_, kind)| *kind == self.kind).map_or("", |(name, _)| name);
        let mut pattern = json!({
            "type": kind,
            "interval": self.interval,
            "month": if matches!(self.kind, Kind::AbsoluteYearly | Kind::RelativeYearly) { self.month } else { 0 },
            "dayOfMonth":
                if matches!(self.kind, Kind::AbsoluteMonthly | Kind::AbsoluteYearly) { self.day_of_month } else { 0 },
            "firstDayOfWeek": name(self.first_day_of_week),
            "index": INDICES[self.index],
        });
        if matches!(self.kind, Kind::Weekly | Kind::RelativeMonthly | Kind::RelativeYearly) {
            pattern["daysOfWeek"] = self.days.iter().map(|day| json!(name(*day))).collect();
        }
        let (kind, last, count) = match self.end {
            End::Never => ("noEnd", "0001-01-01".to_owned(), 0),
            End::On(last) => ("endDate", last.to_string(), 0),
            End::After(count) => ("numbered", "0001-01-01".to_owned(), count),
        };
        let range = json!({
            "type": kind,
            "startDate": self.start.to_string(),
            "endDate": last,
            "recurrenceTimeZone": self.zone,
            "numberOfOccurrences": count,
        });
        json!({"pattern": pattern, "range": range})
    }

    /// Returns the day of the first occurrence, if there is one.
    pub fn first(&self) -> Option<Date> {
        self.days().next()
    }

    /// Sets the day from which occurrences count.
    pub fn begin(&mut self, day: Date) {
        self.start = day;
    }

    /// Returns the day from which occurrences count.
    pub fn start(&self) -> Date {
        self.start
    }

    /// Returns whether the series has an occurrence on this day.
    pub fn has(&self, day: Date) -> bool {
        self.days().take_while(|other| *other <= day).any(|other| other == day)
    }

    /// Returns the days of all occurrences in order. A series without end has days until the end of time.
    pub fn days(&self) -> impl Iterator<Item = Date> + '_ {
        let (last, count) = match self.end {
            End::Never => (Date::MAX, usize::MAX),
            End::On(last) => (last, usize::MAX),
            End::After(count) => (Date::MAX, count as usize),
        };
        let all = (0..).map_while(|step| self.step(step)).flatten();
        all.skip_while(|day| *day < self.start).take_while(move |day| *day <= last).take(count)
    }

    /// Returns the days of the occurrences in a step of the pattern: in a day, a week, a month or a year. `None` after
    /// the end of time.
    fn step(&self, step: i32) -> Option<Vec<Date>> {
        let ahead = i64::from(step) * i64::from(self.interval);
        let start = self.start;
        let month = |first: Date| -> Vec<Date> {
            match self.kind {
                Kind::RelativeMonthly | Kind::RelativeYearly => self.nth_day(first).into_iter().collect(),
                // A month that is too short has its occurrence on its last day.
                _ => first.with().day(self.day_of_month.min(first.days_in_month())).build().into_iter().collect(),
            }
        };
        Some(match self.kind {
            Kind::Daily => vec![days_after(start, ahead)?],
            Kind::Weekly => {
                let since = start.weekday().since(self.first_day_of_week);
                let week = days_after(start, ahead * 7 - i64::from(since))?;
                let days = (0..7).filter_map(|day| days_after(week, day));
                days.filter(|day| self.days.contains(&day.weekday())).collect()
            }
            Kind::AbsoluteMonthly | Kind::RelativeMonthly => {
                month(start.first_of_month().checked_add(Span::new().try_months(ahead).ok()?).ok()?)
            }
            Kind::AbsoluteYearly | Kind::RelativeYearly => {
                let january = start.first_of_year().checked_add(Span::new().try_years(ahead).ok()?).ok()?;
                month(january.with().month(self.month).build().ok()?)
            }
        })
    }

    /// Returns the day of a month that the index selects among the days of the pattern.
    fn nth_day(&self, first: Date) -> Option<Date> {
        let all = (0..i64::from(first.days_in_month())).filter_map(|day| days_after(first, day));
        let mut matching = all.filter(|day| self.days.contains(&day.weekday()));
        if self.index == INDICES.len() - 1 { matching.next_back() } else { matching.nth(self.index) }
    }
}

/// Returns the day that comes `days` days after `day`, unless that is after the end of time.
fn days_after(day: Date, days: i64) -> Option<Date> {
    day.checked_add(Span::new().try_days(days).ok()?).ok()
}

fn weekday(name: &str) -> Result<Weekday, String> {
    let found = DAYS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, day)| *day);
    found.ok_or_else(|| format!("'{name}' is no day of the week."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(pattern: Value, range: Value, count: usize) -> Vec<String> {
        let recurrence = Recurrence::read(&json!({"pattern": pattern, "range": range})).expect("a recurrence");
        assert_eq!(Recurrence::read(&recurrence.to_json()).expect("the same"), recurrence);
        let days: Vec<String> = recurrence.days().take(count).map(|day| day.to_string()).collect();
        assert!(days.iter().all(|day| recurrence.has(day.parse().expect("a day"))));
        days
    }

    fn no_end(start: &str) -> Value {
        json!({"type": "noEnd", "startDate": start})
    }

    #[test]
    fn patterns_have_the_days_of_outlook() {
        for (pattern, start, expected) in [
            (json!({"type": "daily", "interval": 3}), "2026-02-26", ["2026-02-26", "2026-03-01", "2026-03-04"]),
            (
                json!({"type": "weekly", "interval": 2, "daysOfWeek": ["monday", "sunday"], "firstDayOfWeek": "monday"}),
                "2026-01-05",
                ["2026-01-05", "2026-01-11", "2026-01-19"],
            ),
            (
                json!({"type": "weekly", "interval": 2, "daysOfWeek": ["monday", "sunday"], "firstDayOfWeek": "sunday"}),
                "2026-01-05",
                ["2026-01-05", "2026-01-18", "2026-01-19"],
            ),
            (
                json!({"type": "absoluteMonthly", "interval": 1, "dayOfMonth": 31}),
                "2026-01-31",
                ["2026-01-31", "2026-02-28", "2026-03-31"],
            ),
            (
                json!({"type": "absoluteMonthly", "interval": 2, "dayOfMonth": 5}),
                "2026-01-10",
                ["2026-03-05", "2026-05-05", "2026-07-05"],
            ),
            (
                json!({"type": "relativeMonthly", "interval": 1, "daysOfWeek": ["tuesday"], "index": "last"}),
                "2026-01-01",
                ["2026-01-27", "2026-02-24", "2026-03-31"],
            ),
            (
                json!({"type": "relativeMonthly", "interval": 1, "index": "first",
                       "daysOfWeek": ["monday", "tuesday", "wednesday", "thursday", "friday"]}),
                "2026-01-01",
                ["2026-01-01", "2026-02-02", "2026-03-02"],
            ),
            (
                json!({"type": "absoluteYearly", "interval": 1, "month": 2, "dayOfMonth": 29}),
                "2024-02-29",
                ["2024-02-29", "2025-02-28", "2026-02-28"],
            ),
            (
                json!({"type": "relativeYearly", "interval": 1, "month": 11, "daysOfWeek": ["thursday"], "index": "fourth"}),
                "2025-01-01",
                ["2025-11-27", "2026-11-26", "2027-11-25"],
            ),
        ] {
            assert_eq!(days(pattern.clone(), no_end(start), 3), expected, "{pattern}");
        }
    }

    #[test]
    fn a_series_ends_with_a_day_or_a_number() {
        let daily = json!({"type": "daily", "interval": 1});
        let until = json!({"type": "endDate", "startDate": "2026-01-01", "endDate": "2026-01-02"});
        assert_eq!(days(daily.clone(), until, 9), ["2026-01-01", "2026-01-02"]);
        let three = json!({"type": "numbered", "startDate": "2026-01-01", "numberOfOccurrences": 3});
        assert_eq!(days(daily.clone(), three, 9).len(), 3);
        assert_eq!(days(daily, no_end("9999-12-30"), 9), ["9999-12-30", "9999-12-31"]);
    }

    #[test]
    fn what_is_no_recurrence() {
        let weekly = json!({"type": "weekly", "interval": 1, "daysOfWeek": ["monday"]});
        for (pattern, range) in [
            (json!({"type": "hourly", "interval": 1}), no_end("2026-01-01")),
            (json!({"type": "daily", "interval": 0}), no_end("2026-01-01")),
            (json!({"type": "weekly", "interval": 1}), no_end("2026-01-01")),
            (json!({"type": "weekly", "interval": 1, "daysOfWeek": ["mon"]}), no_end("2026-01-01")),
            (json!({"type": "absoluteMonthly", "interval": 1}), no_end("2026-01-01")),
            (json!({"type": "absoluteYearly", "interval": 1, "dayOfMonth": 1}), no_end("2026-01-01")),
            (weekly.clone(), json!({"type": "noEnd"})),
            (weekly.clone(), json!({"type": "numbered", "startDate": "2026-01-01"})),
            (weekly.clone(), json!({"type": "endDate", "startDate": "2026-01-01", "endDate": "2025-01-01"})),
            (weekly, json!({"startDate": "2026-01-01"})),
        ] {
            let recurrence = json!({"pattern": pattern, "range": range});
            assert!(Recurrence::read(&recurrence).is_err(), "{recurrence}");
        }
    }
}

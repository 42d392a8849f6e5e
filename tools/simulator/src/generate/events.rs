//! Generated calendars and events: ordinary ones, and those that break careless programs.

use std::sync::Arc;

use jiff::ToSpan as _;
use jiff::civil::Date;
use serde_json::{Map, Value, json};
use strongroom_corpora::office;
use strongroom_corpora::rng::Rng;

use crate::mime::{Attachment, Payload};
use crate::tenant::id::FolderKey;
use crate::tenant::{CalendarEvent, CalendarFacts, Mailbox, NewCalendar, NewEvent, NewException};

const SUBJECTS: [&str; 9] = [
    "Stand-up",
    "Lunch; with Zoë, \"maybe\"",
    "Größe & Maß",
    "定例会議",
    "1:1",
    "Board\\Review",
    "Dentist",
    "Quarterly numbers",
    "Обед",
];
const ZONES: [&str; 9] = [
    "Pacific Standard Time",
    "W. Europe Standard Time",
    "Tokyo Standard Time",
    "India Standard Time",
    "AUS Eastern Standard Time",
    "Newfoundland Standard Time",
    "UTC",
    "GMT Standard Time",
    "New Zealand Standard Time",
];
const PLACES: [&str; 5] =
    ["Room Falcon", "Harry's Bar; upstairs", "https://fabrikam.com/join?a=1,2", "会議室", "Büro 3"];
const CALENDARS: [&str; 6] = ["Project Falcon", "Ferien", "Sport & Spiel", "個人", "a/b", "Family: near"];

/// Returns the name of a calendar. Different calls sometimes give the same name.
pub fn calendar_name(rng: &mut Rng) -> String {
    let name = *rng.pick(&CALENDARS);
    if rng.chance(30) { name.to_owned() } else { format!("{name} {}", rng.below(1000)) }
}

fn day(rng: &mut Rng) -> Date {
    let first = Date::constant(2024, 1, 8);
    first.saturating_add(i64::try_from(rng.below(1_000)).unwrap_or(0).days())
}

fn at(day: Date, minutes: u64, zone: &str) -> Value {
    let day = day.saturating_add(i64::try_from(minutes / 1440).unwrap_or(0).days());
    let time = format!("{day}T{:02}:{:02}:00.0000000", minutes / 60 % 24, minutes % 60);
    json!({"dateTime": time, "timeZone": zone})
}

fn person(rng: &mut Rng) -> Value {
    let number = rng.below(1_000);
    json!({"name": format!("Person {number}, \"the\" other"), "address": format!("person{number}@fabrikam.com")})
}

fn attendee(rng: &mut Rng) -> Value {
    let response = *rng.pick(&["none", "accepted", "declined", "tentativelyAccepted", "notResponded"]);
    let time = if response == "none" { "0001-01-01T00:00:00Z" } else { "2026-02-03T04:05:06Z" };
    json!({
        "type": *rng.pick(&["required", "optional", "resource"]),
        "status": {"response": response, "time": time},
        "emailAddress": person(rng),
    })
}

/// Returns an attached file.
pub fn file(rng: &mut Rng, name: &str) -> Attachment {
    let len = rng.below(2_000) as usize;
    Attachment {
        number: 0,
        name: name.to_owned(),
        content_type: "application/octet-stream".to_owned(),
        inline: false,
        content_id: None,
        content_location: None,
        payload: Payload::File(Arc::new(rng.bytes(len))),
    }
}

fn inline_picture(rng: &mut Rng) -> Attachment {
    Attachment {
        content_type: "image/png".to_owned(),
        inline: true,
        content_id: Some("picture@contoso".to_owned()),
        ..file(rng, "picture.png")
    }
}

fn pattern(rng: &mut Rng, first: Date) -> Value {
    let interval = 1 + rng.below(3);
    let days = [*rng.pick(&["monday", "wednesday", "sunday"]), *rng.pick(&["tuesday", "friday"])];
    let week_begins = *rng.pick(&["sunday", "monday"]);
    match rng.below(7) {
        0 => json!({"type": "daily", "interval": interval}),
        1 | 2 => json!({"type": "weekly", "interval": interval, "daysOfWeek": days, "firstDayOfWeek": week_begins}),
        3 => {
            let day = if rng.chance(40) { 31 } else { 1 + rng.below(31) };
            json!({"type": "absoluteMonthly", "interval": interval, "dayOfMonth": day})
        }
        4 => {
            let index = *rng.pick(&["first", "second", "third", "fourth", "last"]);
            json!({"type": "relativeMonthly", "interval": interval, "daysOfWeek": [days[0]], "index": index})
        }
        5 if rng.chance(30) => json!({"type": "absoluteYearly", "interval": 1, "month": 2, "dayOfMonth": 29}),
        5 => json!({"type": "absoluteYearly", "interval": 1, "month": first.month(), "dayOfMonth": first.day()}),
        _ => json!({"type": "relativeYearly", "interval": 1, "month": 3, "daysOfWeek": ["sunday"], "index": "last"}),
    }
}

fn range(rng: &mut Rng, first: Date, zone: &str) -> Value {
    let mut range = match rng.below(3) {
        0 => json!({"type": "noEnd"}),
        1 => json!({"type": "endDate", "endDate": first.saturating_add(700.days()).to_string()}),
        _ => json!({"type": "numbered", "numberOfOccurrences": 3 + rng.below(40)}),
    };
    range["startDate"] = json!(first.to_string());
    range["recurrenceTimeZone"] = json!(zone);
    range
}

/// Returns an ordinary event: an appointment, or a series with some exceptions and deleted days.
pub fn event(rng: &mut Rng) -> NewEvent {
    let (first, zone) = (day(rng), *rng.pick(&ZONES));
    let number = rng.below(100_000);
    let all_day = rng.chance(15);
    let (begin, length) =
        if all_day { (0, 1440 * (1 + rng.below(3))) } else { (15 * rng.below(96), 15 * (1 + rng.below(8))) };
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    put("subject", json!(format!("{} {number}", rng.pick(&SUBJECTS))));
    put("start", at(first, begin, zone));
    put("end", at(first, begin + length, zone));
    put("isAllDay", json!(all_day));
    put("showAs", json!(*rng.pick(&["busy", "free", "tentative", "oof", "workingElsewhere"])));
    if rng.chance(70) {
        let html = format!("<html><body><p>Agenda {number}</p><script>alert(1)</script></body></html>");
        put("body", json!({"contentType": "html", "content": html}));
    }
    if rng.chance(50) {
        let place = json!({"displayName": *rng.pick(&PLACES), "locationType": "default", "uniqueIdType": "unknown"});
        put("location", place.clone());
        put("locations", json!([place]));
    }
    if rng.chance(20) {
        put("sensitivity", json!(*rng.pick(&["personal", "private", "confidential"])));
        put("importance", json!(*rng.pick(&["low", "high"])));
    }
    put("isReminderOn", json!(rng.chance(80)));
    if rng.chance(40) {
        put("attendees", (0..=rng.below(4)).map(|_| attendee(rng)).collect());
        if rng.chance(50) {
            // A meeting that somebody else organised.
            put("organizer", json!({"emailAddress": person(rng)}));
            put("isOrganizer", json!(false));
            put("responseStatus", json!({"response": "accepted", "time": "2026-02-03T04:05:06Z"}));
        }
    }
    if rng.chance(15) {
        let url = format!("https://teams.microsoft.com/l/meetup-join/{number}");
        put("isOnlineMeeting", json!(true));
        put("onlineMeetingProvider", json!("teamsForBusiness"));
        put("onlineMeeting", json!({"joinUrl": url}));
    }
    let is_series = rng.chance(40);
    if is_series {
        put("recurrence", json!({"pattern": pattern(rng, first), "range": range(rng, first, zone)}));
    }
    let mut attachments = Vec::new();
    if rng.chance(20) {
        attachments.push(file(rng, "minutes.bin"));
    }
    if rng.chance(15) {
        attachments.push(inline_picture(rng));
    }
    let categories = if rng.chance(15) { vec!["Red category".to_owned()] } else { Vec::new() };
    let created = Some(office::BEGIN + rng.below((office::END - office::BEGIN) as u64) as i64);
    let custom_zone = rng.chance(8);
    let mut event = NewEvent { fields, categories, attachments, custom_zone, created, ..NewEvent::default() };
    if is_series {
        change_some(rng, &mut event);
    }
    event
}

/// Changes and deletes some occurrences of a series.
fn change_some(rng: &mut Rng, event: &mut NewEvent) {
    let days = first_days(&event.fields, 12);
    for day in days {
        match rng.below(6) {
            0 => event.cancelled.push(day.to_string()),
            1 => {
                let fields = exception(rng, day);
                let attachments = if rng.chance(30) { vec![file(rng, "more.bin")] } else { Vec::new() };
                event.exceptions.push(NewException { day: day.to_string(), fields, attachments });
            }
            _ => {}
        }
    }
}

/// Returns the first days of the series with these fields.
fn first_days(fields: &Map<String, Value>, count: usize) -> Vec<Date> {
    let event = CalendarEvent::new([0; 16], fields);
    event.recurrence.iter().flat_map(|recurrence| recurrence.days().take(count).collect::<Vec<_>>()).collect()
}

/// Returns what is different in the occurrence of a day.
pub fn exception(rng: &mut Rng, day: Date) -> Map<String, Value> {
    let change = match rng.below(3) {
        0 => {
            json!({"subject": format!("Moved {}", rng.below(1000)), "start": at(day, 600, "UTC"), "end": at(day, 660, "UTC"),
                    "isAllDay": false})
        }
        1 => json!({"subject": format!("Another subject {}", rng.below(1000)), "showAs": "free"}),
        _ => json!({"body": {"contentType": "html", "content": format!("<p>Only today {}</p>", rng.below(1000))},
                    "location": {"displayName": "Elsewhere"}}),
    };
    object(change)
}

/// Returns the changed fields of an edit; null removes a field.
pub fn edit(rng: &mut Rng) -> Map<String, Value> {
    let (day, zone) = (day(rng), *rng.pick(&ZONES));
    object(match rng.below(5) {
        0 => json!({"subject": format!("Edited {}", rng.below(1000))}),
        1 => json!({"start": at(day, 480, zone), "end": at(day, 495, zone), "isAllDay": false}),
        2 => {
            json!({"body": {"contentType": "html", "content": format!("<p>{}</p>", rng.below(1000))}, "location": null})
        }
        3 => json!({"attendees": [attendee(rng)], "reminderMinutesBeforeStart": rng.below(90)}),
        _ => json!({"recurrence": {"pattern": pattern(rng, day), "range": range(rng, day, zone)}}),
    })
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { unreachable!("each change is an object") };
    object
}

/// Adds calendars and events to a mailbox: most in the default calendar, others in a second one, and some in calendars
/// that are not the user's: one that a colleague shares, one from the internet, and one with birthdays.
pub fn fill(mailbox: &mut Mailbox, seed: u64, user: u64, count: usize) {
    if count == 0 {
        return;
    }
    let mut rng = Rng::for_purpose(seed, &format!("events {user}"));
    let default = mailbox.well_known("calendar").expect("every mailbox has it");
    let mut calendar = |name: &str, facts: CalendarFacts| {
        mailbox.add_calendar(NewCalendar { name: name.to_owned(), facts }).expect("a new name")
    };
    let own = calendar("Project Falcon", CalendarFacts { color: "lightBlue".to_owned(), ..CalendarFacts::default() });
    let owner = Some(("Dana Swope".to_owned(), "dana.swope@contoso.com".to_owned()));
    let shared = calendar("Dana Swope", CalendarFacts { owner, ..CalendarFacts::default() });
    let read_only = || CalendarFacts { read_only: true, ..CalendarFacts::default() };
    let internet = calendar("Holidays in Elbonia", read_only());
    let birthdays = calendar("Birthdays", read_only());
    let put = |mailbox: &mut Mailbox, folder: FolderKey, event: NewEvent| {
        let uid = mailbox.new_uid();
        mailbox.add_message(event.arrival(folder, uid)).expect("the calendar was just made");
    };
    for number in 0..count {
        let folder = if number % 3 == 2 { own } else { default };
        put(mailbox, folder, event(&mut rng));
    }
    put(mailbox, shared, event(&mut rng));
    for (folder, subject, month) in [(internet, "Independence Day", 7), (birthdays, "Zoë's birthday", 2)] {
        let first = Date::constant(2024, month, 1);
        let fields = json!({
            "subject": subject, "isAllDay": true, "start": at(first, 0, "UTC"), "end": at(first, 1440, "UTC"),
            "recurrence": {
                "pattern": {"type": "absoluteYearly", "interval": 1, "month": month, "dayOfMonth": 1},
                "range": {"type": "noEnd", "startDate": first.to_string(), "recurrenceTimeZone": "UTC"},
            },
        });
        put(mailbox, folder, NewEvent { created: Some(office::BEGIN), ..NewEvent::with(fields) });
    }
}

/// Adds calendars and events with values that break careless programs.
pub fn add_odd(mailbox: &mut Mailbox, names: &[&str]) {
    let default = mailbox.well_known("calendar").expect("every mailbox has it");
    for event in odd() {
        let uid = mailbox.new_uid();
        let event = NewEvent { created: Some(office::BEGIN), ..event };
        mailbox.add_message(event.arrival(default, uid)).expect("every mailbox has it");
    }
    for name in names {
        let calendar = NewCalendar { name: (*name).to_owned(), facts: CalendarFacts::default() };
        let calendar = mailbox.add_calendar(calendar).expect("a new name");
        let (uid, event) = (mailbox.new_uid(), NewEvent::with(json!({"subject": name})));
        let event = NewEvent { created: Some(office::BEGIN), ..event };
        mailbox.add_message(event.arrival(calendar, uid)).expect("the calendar was just made");
    }
}

/// Returns events with values that break careless programs.
pub fn odd() -> Vec<NewEvent> {
    let (first, zone) = (Date::constant(2026, 3, 28), "W. Europe Standard Time");
    let series = |pattern: Value, minutes: u64, zone: &str| {
        json!({
            "start": at(first, minutes, zone), "end": at(first, minutes + 30, zone),
            "recurrence": {
                "pattern": pattern,
                "range": {"type": "noEnd", "startDate": first.to_string(), "recurrenceTimeZone": zone},
            },
        })
    };
    let daily = || json!({"type": "daily", "interval": 1});
    let many: Vec<Value> = (0..500)
        .map(|number| {
            json!({"type": "required", "status": {"response": "none", "time": "0001-01-01T00:00:00Z"},
               "emailAddress": {"name": format!("P{number}"), "address": format!("p{number}@b.c")}})
        })
        .collect();
    let all = [
        json!({"subject": "BEGIN:VEVENT\r\nEND:VCALENDAR", "location": {"displayName": "a\r\nb;c,d\\n"}}),
        json!({"subject": "\u{202e}Unicode\u{0} \u{1f468}\u{200d}\u{1f469} e\u{301}\u{1}\u{7}"}),
        json!({"subject": ""}),
        json!({"subject": "x".repeat(5_000)}),
        json!({"subject": "a/b\\c:d"}),
        json!({"subject": "No length", "start": at(first, 60, "UTC"), "end": at(first, 60, "UTC")}),
        json!({"subject": "Long", "start": at(first, 0, "UTC"), "end": at(Date::constant(2031, 1, 1), 0, "UTC")}),
        json!({"subject": "Long ago", "start": at(Date::constant(1601, 1, 1), 0, "UTC"), "end": at(Date::constant(1601, 1, 1), 30, "UTC")}),
        json!({"subject": "Far away", "start": at(Date::constant(4500, 8, 31), 0, "UTC"), "end": at(Date::constant(4500, 8, 31), 30, "UTC")}),
        json!({"subject": "Unknown zone", "start": at(first, 60, "Nowhere Standard Time"), "end": at(first, 90, "Nowhere Standard Time")}),
        json!({"subject": "Future", "wallets": [{"coin": 1.5}], "nothing": null, "attendees": many}),
        json!({"subject": "Text", "body": {"contentType": "text", "content": "a < b\r\n  & c"}}),
        json!({"subject": "Notes", "body": {"contentType": "html", "content": "<p>Long; lines, \\n</p>\r\n".repeat(20_000)}}),
        json!({"subject": "Cancelled by others", "isCancelled": true, "isOrganizer": false,
               "organizer": {"emailAddress": {"name": "Paul", "address": "/o=ExchangeLabs/ou=x/cn=paul"}}}),
        series(daily(), 150, zone),
        series(json!({"type": "absoluteMonthly", "interval": 1, "dayOfMonth": 31}), 0, "Samoa Standard Time"),
        series(daily(), 1430, "Hawaiian Standard Time"),
        series(daily(), 10, "Line Islands Standard Time"),
    ];
    let mut all: Vec<NewEvent> = all.into_iter().map(NewEvent::with).collect();
    let mut empty_zone = series(daily(), 600, zone);
    empty_zone["recurrence"]["range"]["recurrenceTimeZone"] = json!("");
    all.push(NewEvent::with(empty_zone));
    let all_cancelled = json!({
        "subject": "Nothing is left", "start": at(first, 600, zone), "end": at(first, 630, zone),
        "recurrence": {"pattern": daily(), "range": {
            "type": "numbered", "numberOfOccurrences": 2, "startDate": first.to_string(), "recurrenceTimeZone": zone}},
    });
    let cancelled = vec!["2026-03-28".to_owned(), "2026-03-29".to_owned()];
    all.push(NewEvent { cancelled, ..NewEvent::with(all_cancelled) });
    // An exception on another day than its own, by a day that is another one in UTC.
    let moved = json!({"subject": "Swapped", "start": at(Date::constant(2026, 3, 30), 1410, "Hawaiian Standard Time"),
                       "end": at(Date::constant(2026, 3, 30), 1430, "Hawaiian Standard Time")});
    let exceptions =
        vec![NewException { day: "2026-04-02".to_owned(), fields: object(moved), attachments: Vec::new() }];
    all.push(NewEvent {
        exceptions,
        custom_zone: true,
        ..NewEvent::with(series(daily(), 1430, "Hawaiian Standard Time"))
    });
    let mut rng = Rng::new(3);
    let link = Payload::Reference("https://contoso.sharepoint.com/a%20b".to_owned());
    let item = json!({"@odata.type": "#microsoft.graph.contact", "displayName": "Attached"});
    let attachments = vec![
        file(&mut rng, "../../etc/passwd"),
        file(&mut rng, "twin.bin"),
        file(&mut rng, "twin.bin"),
        inline_picture(&mut rng),
        Attachment { payload: link, ..file(&mut rng, "link.docx") },
        Attachment { payload: Payload::Item(Arc::new(item)), ..file(&mut rng, "item") },
        Attachment {
            payload: Payload::Message(Arc::new(b"Subject: a\r\n\r\nb\r\n".to_vec())),
            ..file(&mut rng, "mail")
        },
        Attachment { payload: Payload::File(Arc::new(Vec::new())), ..file(&mut rng, "empty") },
        Attachment { payload: Payload::File(Arc::new(rng.bytes(4 << 20))), ..file(&mut rng, "large") },
    ];
    all.push(NewEvent { attachments, ..NewEvent::with(json!({"subject": "Attachments"})) });
    all
}

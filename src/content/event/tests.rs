use super::*;
use calcard::{Entry, Parser};
use proptest::prelude::*;
use serde_json::json;

fn lunch() -> Value {
    json!({
        "id": "AAMk1", "iCalUId": "040000008200E00074C5B7101A82E008", "subject": "Lunch", "type": "seriesMaster",
        "isAllDay": false, "showAs": "busy", "sensitivity": "normal", "importance": "high",
        "createdDateTime": "2017-08-30T01:02:03.1234567Z", "lastModifiedDateTime": "2017-08-31T01:02:03Z",
        "start": {"dateTime": "2017-09-04T19:00:00.0000000", "timeZone": "UTC"},
        "end": {"dateTime": "2017-09-04T21:00:00.0000000", "timeZone": "UTC"},
        "originalStartTimeZone": "Pacific Standard Time", "originalEndTimeZone": "Pacific Standard Time",
        "body": {"contentType": "html", "content": "<html><body><p>Bring, the; \\ list</p></body></html>"},
        "organizer": {"emailAddress": {"name": "Dana", "address": "danas@contoso.com"}}, "isOrganizer": true,
        "attendees": [
            {"type": "required", "status": {"response": "accepted"},
             "emailAddress": {"name": "Adele \"A\" V\\X", "address": "AdeleV@contoso.com"}},
            {"type": "resource", "status": {"response": "none"}, "emailAddress": {"name": "Room", "address": ""}},
        ],
        "location": {"displayName": "Harry's Bar", "coordinates": {"latitude": 47.5, "longitude": -122.25}},
        "categories": ["Red, light", "Blue"], "isReminderOn": true, "reminderMinutesBeforeStart": 15,
        "recurrence": {
            "pattern": {"type": "weekly", "interval": 1, "month": 0, "dayOfMonth": 0, "daysOfWeek": ["monday"],
                        "firstDayOfWeek": "sunday", "index": "first"},
            "range": {"type": "endDate", "startDate": "2017-09-04", "endDate": "2017-12-31",
                      "recurrenceTimeZone": "Pacific Standard Time", "numberOfOccurrences": 0},
        },
        "exceptionOccurrences": [{
            "id": "AAMk2", "iCalUId": "another for each", "subject": "Late lunch", "type": "exception",
            "seriesMasterId": "AAMk1", "originalStart": "2017-11-13T20:00:00Z",
            "start": {"dateTime": "2017-11-14T01:00:00.0000000", "timeZone": "UTC"},
            "end": {"dateTime": "2017-11-14T02:00:00.0000000", "timeZone": "UTC"},
        }],
    })
}

fn calendar(event: &Value, cancelled: &[&str], attachments: &[Attached]) -> Calendar {
    let cancelled: Vec<_> = cancelled.iter().map(|id| (*id).to_owned()).collect();
    Event { event, cancelled: &cancelled, attachments }.calendar().expect("a calendar")
}

/// Returns the lines of a file, unfolded.
fn lines(calendar: &Calendar) -> Vec<String> {
    calendar.text.replace("\r\n ", "").split("\r\n").map(str::to_owned).collect()
}

#[track_caller]
fn assert_lines(calendar: &Calendar, expected: &[&str]) {
    let lines = lines(calendar);
    for line in expected {
        assert!(lines.iter().any(|one| one == line), "{line} in {lines:#?}");
    }
}

#[test]
fn a_series_has_its_rule_its_exceptions_and_its_zone() {
    let made = calendar(&lunch(), &["OID.AAMk1.x.2017-09-18", "OID.AAMk1.x.2017-11-20"], &[]);
    assert_lines(
        &made,
        &[
            "UID:040000008200E00074C5B7101A82E008",
            "DTSTAMP:20170831T010203Z",
            "CREATED:20170830T010203Z",
            "DTSTART;TZID=America/Los_Angeles:20170904T120000",
            "DTEND;TZID=America/Los_Angeles:20170904T140000",
            "RRULE:FREQ=WEEKLY;UNTIL=20171231T200000Z;BYDAY=MO;WKST=SU",
            "EXDATE;TZID=America/Los_Angeles:20170918T120000",
            "EXDATE;TZID=America/Los_Angeles:20171120T120000",
            "RECURRENCE-ID;TZID=America/Los_Angeles:20171113T120000",
            "DTSTART;TZID=America/Los_Angeles:20171113T170000",
            "SUMMARY:Late lunch",
            "DESCRIPTION:Bring\\, the\\; \\\\ list",
            "LOCATION:Harry's Bar",
            "GEO:47.5;-122.25",
            "CATEGORIES:Red\\, light,Blue",
            "ORGANIZER;CN=Dana:mailto:danas@contoso.com",
            "ATTENDEE;ROLE=REQ-PARTICIPANT;PARTSTAT=ACCEPTED;RSVP=TRUE;CN=\"Adele 'A' V/X\":mailto:AdeleV@contoso.com",
            "ATTENDEE;CUTYPE=RESOURCE;ROLE=NON-PARTICIPANT;PARTSTAT=NEEDS-ACTION;RSVP=TRUE;CN=Room:invalid:nomail",
            "STATUS:CONFIRMED",
            "TRANSP:OPAQUE",
            "CLASS:PUBLIC",
            "PRIORITY:1",
            "TRIGGER:-PT15M",
            "TZID:America/Los_Angeles",
        ],
    );
    let lines = lines(&made);
    let uids = lines.iter().filter(|line| *line == "UID:040000008200E00074C5B7101A82E008").count();
    assert_eq!(uids, 2, "an exception belongs to its series");
    assert!(!made.text.contains("METHOD"), "{}", made.text);
    assert!(made.text.split("\r\n").all(|line| line.len() <= 75), "{}", made.text);
    assert_eq!(made, calendar(&lunch(), &["OID.AAMk1.x.2017-09-18", "OID.AAMk1.x.2017-11-20"], &[]));
}

#[test]
fn whole_days_are_dates() {
    let mut event = lunch();
    event["isAllDay"] = json!(true);
    event["start"] = json!({"dateTime": "2017-09-04T00:00:00.0000000", "timeZone": "UTC"});
    event["end"] = json!({"dateTime": "2017-09-05T00:00:00.0000000", "timeZone": "UTC"});
    event["exceptionOccurrences"][0]["originalStart"] = json!("2017-11-13T00:00:00Z");
    let made = calendar(&event, &["OID.1.2017-09-18"], &[]);
    let expected = [
        "DTSTART;VALUE=DATE:20170904",
        "DTEND;VALUE=DATE:20170905",
        "RRULE:FREQ=WEEKLY;UNTIL=20171231;BYDAY=MO;WKST=SU",
        "EXDATE;VALUE=DATE:20170918",
        "RECURRENCE-ID;VALUE=DATE:20171113",
    ];
    assert_lines(&made, &expected);
    // Some calendars tell whole days as midnights of their own zone.
    event["exceptionOccurrences"][0]["originalStart"] = json!("2017-11-13T08:00:00Z");
    assert_lines(&calendar(&event, &[], &[]), &["RECURRENCE-ID;VALUE=DATE:20171113"]);
    assert_eq!(file_name(&event), "2017-09-04 Lunch.ics");
}

#[test]
fn a_zone_that_nobody_knows_is_replaced() {
    let mut event = lunch();
    let custom = "tzone://Microsoft/Custom";
    event["recurrence"]["range"]["recurrenceTimeZone"] = json!(custom);
    // The other zone is the next best.
    assert_lines(&calendar(&event, &[], &[]), &["DTSTART;TZID=America/Los_Angeles:20170904T120000"]);
    event["originalStartTimeZone"] = json!(custom);
    assert_lines(
        &calendar(&event, &["OID.1.2017-09-18"], &[]),
        &["DTSTART:20170904T190000Z", "EXDATE:20170918T190000Z"],
    );
    // On the next day in the zone of the series, so in UTC it would repeat on the wrong day of the week.
    event["recurrence"]["range"]["startDate"] = json!("2017-09-05");
    event["recurrence"]["pattern"]["daysOfWeek"] = json!(["tuesday"]);
    assert_lines(&calendar(&event, &[], &[]), &["DTSTART;TZID=Etc/GMT-5:20170905T000000", "TZID:Etc/GMT-5"]);
    event["recurrence"] = Value::Null;
    event["exceptionOccurrences"] = Value::Null;
    assert_lines(&calendar(&event, &[], &[]), &["DTSTART:20170904T190000Z"]);
}

#[test]
fn an_hour_that_comes_twice_is_told_in_utc() {
    let mut event = lunch();
    event["recurrence"] = Value::Null;
    event["exceptionOccurrences"] = Value::Null;
    event["start"]["dateTime"] = json!("2017-11-05T09:30:00.0000000");
    event["end"]["dateTime"] = json!("2017-11-05T10:30:00.0000000");
    let expected = ["DTSTART:20171105T093000Z", "DTEND;TZID=America/Los_Angeles:20171105T023000"];
    assert_lines(&calendar(&event, &[], &[]), &expected);
}

#[test]
fn attachments_have_their_places() {
    let attached = |event: &str, name: &str, has_content| Attached {
        event: event.to_owned(),
        properties: json!({"name": name, "contentType": "application/pdf", "sourceUrl": "https://contoso.com/a,b"}),
        has_content,
    };
    // The exception stands behind the master, whatever the order of the attachments.
    let attachments = [
        attached("AAMk2", "c.pdf", true),
        attached("AAMk1", "a \"b\".pdf", true),
        attached("AAMk1", "link", false),
        attached("AAMk1", "a \"b\".pdf", true),
    ];
    let made = calendar(&lunch(), &[], &attachments);
    let numbers: Vec<_> = made.places.iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, [1, 3, 0]);
    for (at, _) in &made.places {
        assert!(made.text[..*at].ends_with(":") && made.text[*at..].starts_with("\r\n"), "{}", made.text);
    }
    let mut whole = made.text.clone();
    for (at, _) in made.places.iter().rev() {
        whole.insert_str(*at, "AAEC");
    }
    let Entry::ICalendar(read) = Parser::new(&whole).entry() else { panic!("{whole}") };
    let events = read.components.iter().filter(|one| one.component_type == ICalendarComponentType::VEvent);
    let counts: Vec<_> = events.map(|event| event.properties(&ICalendarProperty::Attach).count()).collect();
    assert_eq!(counts, [3, 1], "{whole}");
    assert!(whole.contains("https://contoso.com/a"));
}

#[test]
fn a_name_says_when_it_is_and_what() {
    let mut event = lunch();
    assert_eq!(file_name(&event), "2017-09-04 12.00 Lunch.ics");
    event["subject"] = json!("a/b\r\nc");
    assert_eq!(file_name(&event), "2017-09-04 12.00 a-b c.ics");
    assert_eq!(file_name(&json!({})), "undated no subject.ics");
}

#[test]
fn an_event_that_does_not_say_when_it_is_is_refused() {
    for name in ["start", "iCalUId"] {
        let mut event = lunch();
        event.as_object_mut().unwrap().retain(|property, _| property != name && property != "id");
        let event = Event { event: &event, cancelled: &[], attachments: &[] };
        assert!(event.calendar().is_err(), "{name}");
    }
    assert_eq!(cancelled_date("OID.a.b.2017-09-18").map(|date| date.to_string()).as_deref(), Some("2017-09-18"));
    assert_eq!((cancelled_date("OID.2017-13-18"), cancelled_date("2017")), (None, None));
}

proptest! {
    #[test]
    fn no_text_can_begin_another_property(text in "\\PC{0,20}[\r\n\t\";:,^\\\\]{0,4}\\PC{0,20}") {
        let text = format!("{text}\r\nX-EVIL:1\u{2028}X-EVIL:2");
        let mut event = lunch();
        for name in ["subject", "iCalUId", "showAs", "sensitivity", "onlineMeetingUrl"] {
            event[name] = json!(text);
        }
        event["body"]["content"] = json!(text);
        event["location"]["displayName"] = json!(text);
        event["categories"] = json!([text]);
        for name in ["name", "address"] {
            event["attendees"][0]["emailAddress"][name] = json!(text);
            event["organizer"]["emailAddress"][name] = json!(text);
        }
        let properties = json!({"name": text, "contentType": text, "sourceUrl": text});
        let attachments = [Attached { event: "AAMk1".to_owned(), properties, has_content: true }];
        let made = calendar(&event, &[], &attachments);
        prop_assert_eq!(made.places.len(), 1);
        let is_control = |char: char| char.is_control() && char != '\t';
        let bad = lines(&made).into_iter().find(|line| line.starts_with("X-EVIL") || line.contains(is_control));
        prop_assert_eq!(bad, None);
        prop_assert!(made.text.split("\r\n").all(|line| line.len() <= 75));
        let Entry::ICalendar(read) = Parser::new(&made.text).entry() else { panic!("{}", made.text) };
        let events: Vec<_> =
            read.components.iter().filter(|one| one.component_type == ICalendarComponentType::VEvent).collect();
        prop_assert_eq!(events.len(), 2);
        let subject = events[0].property(&ICalendarProperty::Summary).and_then(|entry| entry.values[0].as_text());
        prop_assert_eq!(subject.map(str::to_owned), Some(clean(&text)));
    }
}

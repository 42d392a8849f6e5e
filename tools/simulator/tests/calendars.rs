//! Calendars and events as a client reads them: lists, deltas and attachments, over real HTTP.

mod client;

use std::collections::{BTreeMap, BTreeSet};

use client::calendars::{Scene, YEAR, at, file, hour, ids, object, starts, text, texts, weekly};
use client::{Client, IMMUTABLE};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use reqwest::Method;
use serde_json::{Value, json};
use strongroom_simulator::{
    Attachment, CalendarFacts, Fault, Faults, NewEvent, NewMessage, Options, Organisation, Payload, Simulator,
    Switches, TrueAttachment, UserSpec,
};

/// What a backup asks for.
const UNSAFE_HTML: &str = "outlook.allow-unsafe-html";

/// Returns the attachments of an event as a client reads them, in the form of the truth.
fn attachments(client: &Client, user: &str, event: &str) -> Vec<TrueAttachment> {
    let path = format!("/v1.0/users/{user}/events/{event}/attachments");
    let rows = client.all(&format!("{path}?$select=id,name,contentType,isInline,contentId"), &[IMMUTABLE]);
    let read = |row: &Value| {
        let id = text(row, "id");
        let reply = client.send(Method::GET, &format!("{path}/{id}/$value"), &[("prefer", IMMUTABLE)], None);
        TrueAttachment {
            name: text(row, "name"),
            content_type: row["contentType"].as_str().unwrap_or_default().to_owned(),
            inline: row["isInline"].as_bool().expect("a flag"),
            content_id: row["contentId"].as_str().map(str::to_owned),
            bytes: if reply.status == 200 { reply.bytes } else { Vec::new() },
        }
    };
    rows.iter().map(read).collect()
}

/// Returns the files among the attachments: what a link or an attached item shows is no file.
fn files(attachments: &[TrueAttachment]) -> Vec<TrueAttachment> {
    let is_file = |one: &&TrueAttachment| !["link.docx", "item", "mail"].contains(&one.name.as_str());
    attachments.iter().filter(is_file).cloned().collect()
}

/// Returns the properties of `row` that the truth has, without those that only a client sees.
fn facts(row: &Value) -> Value {
    let hidden = [
        "id",
        "@odata.etag",
        "@odata.context",
        "seriesMasterId",
        "webLink",
        "exceptionOccurrences",
        "cancelledOccurrences",
    ];
    Value::Object(object(row.clone()).into_iter().filter(|(name, _)| !hidden.contains(&name.as_str())).collect())
}

#[test]
fn what_is_read_is_the_truth_also_if_it_hurts() {
    let organisation =
        Organisation { users: 2, messages: 0, contacts: 0, events: 60, hurting: true, ..Organisation::default() };
    let simulator = Simulator::start(Options { organisation, ..Options::default() }).expect("a simulator");
    let client = Client::new(&simulator);
    let (mut exceptions, mut cancelled, mut files_seen) = (0, 0, 0);
    for user in simulator.tenant().users() {
        let truth = simulator.tenant().truth(&user.id).expect("a mailbox");
        let calendars = client.all(&format!("/v1.0/users/{}/calendars", user.id), &[]);
        let shown: Vec<_> = calendars.iter().map(|row| (text(row, "id"), text(row, "name"))).collect();
        assert_eq!(shown, truth.calendars.iter().map(|one| (one.id.clone(), one.name.clone())).collect::<Vec<_>>());
        let mut found = BTreeMap::new();
        for (calendar, _) in shown {
            let path = format!("/v1.0/users/{}/calendars/{calendar}/events?$select=id", user.id);
            for row in client.all(&path, &[IMMUTABLE, "odata.maxpagesize=7"]) {
                found.insert(text(&row, "id"), calendar.clone());
            }
        }
        assert!(truth.events.len() > 30 && found.len() == truth.events.len(), "{}", found.len());
        for event in truth.events {
            assert_eq!(found[&event.id], event.calendar);
            let path = format!("/v1.0/users/{}/events/{}", user.id, event.id);
            let prefer = format!("{IMMUTABLE}, {UNSAFE_HTML}");
            let (status, row) =
                client.get_with(&format!("{path}?$expand=exceptionOccurrences"), &[("prefer", &prefer)]);
            assert_eq!((status, facts(&row)), (200, event.properties));
            let shown = client.get_with(&format!("{path}?$select=cancelledOccurrences"), &[("prefer", IMMUTABLE)]).1;
            let days = shown["cancelledOccurrences"].as_array().cloned().unwrap_or_default();
            let day = |text: &Value| text.as_str().and_then(|text| text.rsplit('.').next()).expect("a day").to_owned();
            assert_eq!(days.iter().map(day).collect::<Vec<_>>(), event.cancelled);
            let rows = row["exceptionOccurrences"].as_array().cloned().unwrap_or_default();
            let changed: Vec<_> = event.exceptions.values().collect();
            assert_eq!(texts(&rows, "id"), changed.iter().map(|one| one.id.clone()).collect::<Vec<_>>());
            for (row, exception) in rows.iter().zip(changed) {
                assert_eq!((facts(row), text(row, "seriesMasterId")), (exception.properties.clone(), event.id.clone()));
                assert_eq!(attachments(&client, &user.id, &exception.id), exception.attachments);
                exceptions += 1;
            }
            let seen = attachments(&client, &user.id, &event.id);
            assert_eq!((seen.len(), files(&seen)), (event.attachments.len(), files(&event.attachments)));
            (cancelled, files_seen) = (cancelled + days.len(), files_seen + seen.len());
        }
    }
    assert!(exceptions > 10 && cancelled > 10 && files_seen > 10, "{exceptions} {cancelled} {files_seen}");
    let counts = simulator.counters();
    assert_eq!((counts.mails_sent, counts.invitations_sent), (0, 0));
}

#[test]
fn calendars_of_others_are_in_the_list_and_those_of_other_groups_are_not() {
    let scene = Scene::new();
    let default = scene.get("calendar").1;
    assert_eq!((&default["isDefaultCalendar"], &default["name"]), (&json!(true), &json!("Calendar")));
    let me = text(&default["owner"], "address");
    let own = scene.calendar("Own", CalendarFacts::default());
    let owner = Some(("Dana".to_owned(), "dana@contoso.com".to_owned()));
    let shared = scene.calendar("Dana", CalendarFacts { owner, ..CalendarFacts::default() });
    let internet = scene.calendar("Holidays", CalendarFacts { read_only: true, ..CalendarFacts::default() });
    let group = Some("Projects".to_owned());
    let grouped = scene.calendar("Falcon", CalendarFacts { group, ..CalendarFacts::default() });
    let listed = scene.all("calendars?$top=2");
    let expected = [text(&default, "id"), own.clone(), shared.clone(), internet.clone()];
    assert_eq!(texts(&listed, "id"), expected);
    let of_others: Vec<_> = listed.iter().filter(|row| row["owner"]["address"] != me.as_str()).collect();
    assert_eq!(
        of_others,
        [&scene.get(&format!("calendars/{shared}?$select=")).1]
            .map(|row| { listed.iter().find(|other| other["id"] == row["id"]).expect("it is listed") })
    );
    assert_eq!(scene.get(&format!("calendars/{internet}")).1["canEdit"], false);
    let groups = scene.all("calendarGroups");
    assert_eq!(texts(&groups, "name"), ["My Calendars", "Projects"]);
    let in_group = |nth: usize| scene.all(&format!("calendarGroups/{}/calendars", text(&groups[nth], "id")));
    assert_eq!((in_group(0).len(), ids(&in_group(1))), (4, [grouped].into()));
    // Calendars are no mail folders.
    let mail = scene.all("mailFolders?$top=100&includeHiddenFolders=true");
    assert!(!mail.iter().any(|row| ["Calendar", "Own"].contains(&text(row, "displayName").as_str())), "{mail:?}");
    for (rest, status) in [
        ("calendars/Calendar", 400),
        ("calendars/calendar/events", 400),
        ("calendars?$select=parentFolderId", 400),
        ("calendars/delta", 400),
        ("calendar/frobs", 400),
        (&format!("calendars/{}", text(&scene.get("mailFolders/inbox").1, "id")), 404),
        ("calendarGroups/x/calendars", 404),
    ] {
        assert_eq!(scene.get(rest).0, status, "{rest}");
    }
    // A calendar that is out of reach does not close the others.
    let owner = Some(("Eve".to_owned(), "eve@contoso.com".to_owned()));
    let broken = scene.calendar("Eve", CalendarFacts { owner, broken: true, ..CalendarFacts::default() });
    let (status, body) = scene.get(&format!("calendars/{broken}/events"));
    assert_eq!((status, body["error"]["code"].as_str()), (500, Some("ErrorInternalServerTransientError")));
    assert_eq!(scene.get("events").0, 200);
}

#[test]
fn a_list_shows_appointments_and_series_of_one_calendar() {
    let scene = Scene::new();
    let other = scene.calendar("Other", CalendarFacts::default());
    let single = scene.add(hour("One", "2026-02-01"));
    let series = scene.add(weekly());
    let elsewhere = scene.simulator.tenant().add_event(&scene.user, &other, NewEvent::with(hour("Two", "2026-02-02")));
    let elsewhere = elsewhere.expect("an event");
    scene
        .simulator
        .tenant()
        .change_occurrence(&scene.user, &series, "2026-03-11", &object(json!({"subject": "Odd"})))
        .expect("changed");
    for rest in ["events", "calendar/events"] {
        let rows = scene.all(rest);
        assert_eq!(ids(&rows), [single.clone(), series.clone()].into(), "{rest}");
        assert_eq!(texts(&rows, "type"), ["singleInstance", "seriesMaster"]);
    }
    assert_eq!(ids(&scene.all(&format!("calendars/{other}/events"))), [elsewhere.clone()].into());
    assert_eq!(scene.get("events/$count").1, 2);
    // An id finds an event in every calendar, and only in its own if the path names one.
    assert_eq!(scene.get(&format!("events/{elsewhere}")).0, 200);
    assert_eq!(scene.get(&format!("calendars/{other}/events/{elsewhere}")).0, 200);
    assert_eq!(scene.get(&format!("calendars/{other}/events/{single}")).0, 404);
    let in_beta = scene.beta(&format!("calendars/{other}/events/{elsewhere}"));
    assert_eq!(scene.client.get(&in_beta).0, 400, "beta does not find events by their calendar");
    assert_eq!(scene.client.get(&scene.beta(&format!("events/{elsewhere}"))).0, 200);
    let row = &scene.all("events?$select=subject,changeKey&$filter=subject eq 'One'")[0];
    assert_eq!(object(row.clone()).keys().collect::<Vec<_>>(), ["@odata.etag", "changeKey", "id", "subject"]);
    assert_eq!(texts(&scene.all("events?$orderby=start/dateTime desc"), "subject"), ["Weekly", "One"]);
    for number in 0..25 {
        scene.add(hour(&format!("Event {number}"), "2026-02-03"));
    }
    let (_, page) = scene.get("events?$count=true");
    assert_eq!((page["value"].as_array().map(Vec::len), &page["@odata.count"]), (Some(10), &json!(27)));
    assert_eq!(scene.client.all(&scene.path("events?$skip=3"), &["odata.maxpagesize=4"]).len(), 24);
    // Events are no messages, and messages no events.
    let mime = b"Subject: a\r\n\r\n".to_vec();
    let message = NewMessage { mime, ..NewMessage::default() };
    let message = scene.simulator.tenant().add_message(&scene.user, "inbox", message).expect("a message");
    for rest in [format!("messages/{single}"), format!("contacts/{single}"), format!("events/{message}")] {
        assert_eq!(scene.get(&rest).0, 404, "{rest}");
    }
    assert_eq!(scene.get("messages/$count").1, 1);
    for (rest, status) in [
        ("events?$top=1001", 400),
        ("events?$select=summary", 400),
        ("events?$expand=exceptionOccurrences", 400),
        ("events/nonsense", 400),
        ("events?$search=%22x%22", 501),
    ] {
        assert_eq!(scene.get(rest).0, status, "{rest}");
    }
}

#[test]
fn times_come_in_utc_or_in_the_zone_that_is_asked_for() {
    let scene = Scene::new();
    let event = scene.add(json!({
        "subject": "Berlin", "start": at("2026-07-01T09:00:00", "W. Europe Standard Time"),
        "end": at("2026-07-01T10:00:00", "Pacific Standard Time"),
    }));
    let days = scene.add(json!({
        "isAllDay": true, "start": at("2026-07-01T00:00:00", "Tokyo Standard Time"),
        "end": at("2026-07-03T00:00:00", "Tokyo Standard Time"),
    }));
    let shown = |event: &str, zone: &str| {
        let prefer = format!("outlook.timezone=\"{zone}\"");
        let (status, row) = scene
            .client
            .get_with(&scene.path(&format!("events/{event}")), &[("prefer", &format!("{prefer}, {IMMUTABLE}"))]);
        assert_eq!(status, 200, "{row}");
        (row["start"].clone(), row["end"].clone())
    };
    let row = scene.get(&format!("events/{event}")).1;
    assert_eq!(row["start"], at("2026-07-01T07:00:00.0000000", "UTC"));
    assert_eq!(row["end"], at("2026-07-01T17:00:00.0000000", "UTC"));
    assert_eq!(
        (text(&row, "originalStartTimeZone"), text(&row, "originalEndTimeZone")),
        ("W. Europe Standard Time".to_owned(), "Pacific Standard Time".to_owned())
    );
    assert_eq!(shown(&event, "India Standard Time").0, at("2026-07-01T12:30:00.0000000", "India Standard Time"));
    assert_eq!(shown(&event, "America/New_York").0, at("2026-07-01T03:00:00.0000000", "America/New_York"));
    for zone in ["UTC", "Pacific Standard Time"] {
        let expected = (at("2026-07-01T00:00:00.0000000", zone), at("2026-07-03T00:00:00.0000000", zone));
        assert_eq!(shown(&days, zone), expected, "whole days are the same everywhere");
    }
    let nowhere = [("prefer", "outlook.timezone=\"Nowhere Standard Time\"")];
    assert_eq!(scene.client.get_with(&scene.path(&format!("events/{event}")), &nowhere).0, 400);
    let custom = scene.add_event(NewEvent { custom_zone: true, ..NewEvent::with(weekly()) });
    let row = scene.get(&format!("events/{custom}")).1;
    assert_eq!(text(&row, "originalStartTimeZone"), "tzone://Microsoft/Custom");
    assert_eq!(row["recurrence"]["range"]["recurrenceTimeZone"], "Pacific Standard Time");
}

#[test]
fn attachments_are_those_of_mail() {
    let scene = Scene::new();
    let picture = Attachment { inline: true, content_id: Some("p@x".to_owned()), ..file("p.png", b"P") };
    let inline_only = scene.add_event(NewEvent { attachments: vec![picture], ..NewEvent::default() });
    let row = scene.get(&format!("events/{inline_only}")).1;
    assert_eq!(row["hasAttachments"], false, "inline attachments do not count");
    assert_eq!(scene.all(&format!("events/{inline_only}/attachments")).len(), 1);
    let link = Attachment { payload: Payload::Reference("https://x/y".to_owned()), ..file("y", b"") };
    let both = scene.add_event(NewEvent { attachments: vec![file("a.txt", b"Hello"), link], ..NewEvent::default() });
    assert_eq!(scene.get(&format!("events/{both}")).1["hasAttachments"], true);
    let rows = scene.all(&format!("events/{both}/attachments"));
    let kinds = ["#microsoft.graph.fileAttachment", "#microsoft.graph.referenceAttachment"];
    assert_eq!(texts(&rows, "@odata.type"), kinds);
    assert_eq!(rows[0]["contentBytes"], "SGVsbG8=");
    let one = format!("events/{both}/attachments/{}", text(&rows[0], "id"));
    assert_eq!(scene.get(&one).1["name"], "a.txt");
    assert_eq!(scene.client.bytes(&scene.path(&format!("{one}/$value")), &[]), b"Hello");
    assert_eq!(scene.get(&format!("events/{both}/attachments/{}/$value", text(&rows[1], "id"))).0, 405);
    assert_eq!(scene.get(&format!("events/{inline_only}/attachments/{}", text(&rows[0], "id"))).0, 404);
    let expanded = scene.get(&format!("events/{both}?$expand=attachments($select=name)")).1;
    assert_eq!(texts(expanded["attachments"].as_array().expect("attachments"), "name"), ["a.txt", "y"]);
}

#[test]
fn the_delta_of_a_view_says_that_what_leaves_the_view_is_gone() {
    let scene = Scene::new();
    let tenant = scene.simulator.tenant();
    let inside = scene.add(hour("Inside", "2026-03-12"));
    let outside = scene.add(hour("Outside", "2027-03-12"));
    let series = scene.add(weekly());
    let march = "startDateTime=2026-03-01T00:00:00Z&endDateTime=2026-04-01T00:00:00Z";
    let first = scene.path(&format!("calendarView/delta?{march}"));
    let follow = |from: &str| scene.client.delta(from, &[IMMUTABLE, "odata.maxpagesize=2"]);
    let (rows, link) = follow(&first);
    let expected = ["2026-03-12T10:00", "2026-03-04T17:00", "2026-03-11T16:00", "2026-03-18T16:00", "2026-03-25T16:00"];
    assert_eq!(starts(&rows), expected);
    assert!(rows.iter().all(|row| row["@odata.type"] == "#microsoft.graph.event"));
    let (nothing, link) = follow(&link);
    assert_eq!(nothing, Vec::<Value>::new());

    // It was never in the view, and it is not gone; but so the service says.
    tenant.change_event(&scene.user, &outside, &object(json!({"subject": "A"}))).expect("changed");
    let moved = json!({"start": at("2026-06-12T10:00:00", "UTC"), "end": at("2026-06-12T11:00:00", "UTC")});
    tenant.change_event(&scene.user, &inside, &object(moved)).expect("changed");
    let (rows, link) = follow(&link);
    let gone = |id: &str| json!({"@odata.type": "#microsoft.graph.event", "id": id, "@removed": {"reason": "deleted"}});
    assert_eq!(rows, [gone(&outside), gone(&inside)]);
    assert_eq!(scene.get(&format!("events/{outside}")).0, 200);

    // That an occurrence is deleted is not said: the other ones come again.
    tenant.cancel_occurrence(&scene.user, &series, "2026-03-18").expect("cancelled");
    let (rows, link) = follow(&link);
    assert_eq!(starts(&rows), ["2026-03-04T17:00", "2026-03-11T16:00", "2026-03-25T16:00"]);
    tenant.delete_event(&scene.user, &series).expect("deleted");
    let (rows, link) = follow(&link);
    assert_eq!(rows, [gone(&series)]);
    for option in ["$select=id", "$filter=subject%20eq%20'a'", "$expand=attachments", "$orderby=subject"] {
        assert_eq!(scene.client.get(&format!("{first}&{option}")).0, 400, "{option}");
    }
    assert_eq!(scene.get("calendarView/delta").0, 400);
    scene.simulator.expire_deltas();
    let (status, body) = scene.client.get(&link);
    assert_eq!((status, body["error"]["code"].as_str()), (410, Some("SyncStateNotFound")));
}

#[test]
fn the_delta_of_all_events_is_there_in_beta_only() {
    let scene = Scene::new();
    let tenant = scene.simulator.tenant();
    let calendar = text(&scene.get("calendar").1, "id");
    let single = scene.add(hour("One", "2026-03-12"));
    let series = scene.add(weekly());
    let rest = format!("calendars/{calendar}/events/delta?$select=id,lastModifiedDateTime,createdDateTime");
    assert_eq!(scene.get(&rest).0, 400);
    let (rows, link) = scene.client.delta(&scene.beta(&rest), &[IMMUTABLE]);
    assert_eq!(ids(&rows), [single.clone(), series.clone()].into());
    tenant.change_event(&scene.user, &series, &object(json!({"subject": "A"}))).expect("changed");
    tenant.delete_event(&scene.user, &single).expect("deleted");
    let (rows, link) = scene.client.delta(&link, &[IMMUTABLE]);
    assert_eq!(rows[0]["id"], series.as_str());
    assert_eq!(rows[0]["lastModifiedDateTime"], rows[0]["createdDateTime"], "a time that means nothing");
    assert_eq!(rows[1]["@removed"]["reason"], "deleted");
    tenant.change_occurrence(&scene.user, &series, "2026-03-11", &object(json!({"subject": "B"}))).expect("changed");
    let (rows, _) = scene.client.delta(&link, &[IMMUTABLE]);
    assert_eq!(ids(&rows), [series].into());
}

#[test]
fn a_heavy_calendar_fails_with_large_pages() {
    let heavy = |rows| Switches { heavy_calendar_events: Some(3), heavy_calendar_rows: rows, ..Switches::default() };
    let scene = Scene::with(heavy(10), 0);
    let calendar = text(&scene.get("calendar").1, "id");
    let delta = scene.beta(&format!("calendars/{calendar}/events/delta"));
    let view = scene.path(&format!("calendarView/delta?{YEAR}"));
    let status = |path: &str, rows: usize| {
        let reply = scene.client.send(Method::GET, path, &[("prefer", &format!("odata.maxpagesize={rows}"))], None);
        assert_eq!(reply.status == 503, reply.bytes.is_empty());
        reply.status
    };
    for number in 0..4 {
        let is_heavy = number >= 3;
        for path in [&delta, &view] {
            assert_eq!(
                (status(path, 50), status(path, 10)),
                (if is_heavy { 503 } else { 200 }, 200),
                "{number} {path}"
            );
        }
        scene.add(hour("One", "2026-03-12"));
    }
    scene.simulator.set_switches(heavy(0));
    assert_eq!((status(&delta, 1), status(&view, 1)), (503, 503));
    let plain = scene.path("events?$select=id,changeKey");
    assert_eq!(status(&plain, 999), 200, "the plain list always works");
}

#[test]
fn bodies_and_meetings_of_others_are_shown_as_in_outlook() {
    let scene = Scene::new();
    let html = "<p>Hello</p><script>x</script>";
    let event = scene.add(json!({
        "subject": "S", "body": {"contentType": "html", "content": html}, "isOrganizer": false,
        "organizer": {"emailAddress": {"name": "Dana", "address": "dana@fabrikam.com"}},
        "responseStatus": {"response": "accepted", "time": "2026-01-01T00:00:00Z"},
        "attendees": [{"type": "required", "status": {"response": "accepted", "time": "2026-01-01T00:00:00Z"},
                       "emailAddress": {"name": "A", "address": "a@b.c"}}],
        "somethingNew": {"x": 1},
    }));
    let body = |prefer: &str| {
        scene.client.get_with(&scene.path(&format!("events/{event}")), &[("prefer", prefer)]).1["body"].clone()
    };
    assert!(!text(&body(IMMUTABLE), "content").contains("script"));
    assert_eq!(text(&body(UNSAFE_HTML), "content"), html);
    assert_eq!(text(&body("outlook.body-content-type=\"text\""), "contentType"), "text");
    let row = scene.get(&format!("events/{event}")).1;
    assert_eq!((&row["isOrganizer"], &row["somethingNew"]["x"]), (&json!(false), &json!(1)));
    assert_eq!(row["organizer"]["emailAddress"]["name"], "Dana");
    let mine = scene.get(&format!("events/{}", scene.add(hour("Mine", "2026-01-01")))).1;
    assert_eq!((&mine["isOrganizer"], &mine["responseStatus"]["response"]), (&json!(true), &json!("organizer")));
    assert_eq!(mine["organizer"]["emailAddress"]["address"], scene.simulator.tenant().users()[0].principal_name());
    let defaults =
        [("importance", "normal"), ("sensitivity", "normal"), ("showAs", "busy"), ("type", "singleInstance")];
    for (name, value) in defaults {
        assert_eq!(mine[name], value, "{name}");
    }
    assert_eq!((text(&mine, "iCalUId").len(), &mine["recurrence"]), (112, &Value::Null));
}

#[test]
fn requests_need_the_permission_and_count_for_the_mailbox() {
    let scene = Scene::with(Switches::default(), 3);
    let id = scene.truth()[0].id.clone();
    scene.simulator.set_permissions(["Mail.ReadWrite", "Contacts.ReadWrite", "User.Read.All"]);
    let mail_only = Client::new(&scene.simulator);
    for rest in ["calendars", "events", &format!("events/{id}/attachments"), &format!("calendarView?{YEAR}")] {
        let (status, body) = mail_only.get(&scene.path(rest));
        assert_eq!((status, body["error"]["code"].as_str()), (403, Some("ErrorAccessDenied")), "{rest}");
    }
    scene.simulator.set_permissions(["Calendars.Read"]);
    let reader = Client::new(&scene.simulator);
    scene.simulator.reset_counters();
    assert_eq!(reader.get(&scene.path("events")).0, 200);
    assert_eq!(reader.post(&scene.path("events"), &json!({"subject": "x"})).0, 403);
    assert_eq!(scene.simulator.counters().by_mailbox[&scene.user], 2);
}

#[test]
fn faults_befall_events_too() {
    let scene = Scene::with(Switches::default(), 5);
    let id = scene.truth()[0].id.clone();
    let event = scene.path(&format!("events/{id}"));
    let once = |contains: &str, fault| scene.simulator.set_faults(Faults::default().with_rule(contains, 1, fault));
    once("/events/", Fault::ItemChanges);
    let before = scene.client.get(&event).1;
    let after = scene.client.get(&event).1;
    assert_ne!((&before["changeKey"], &before["subject"]), (&after["changeKey"], &after["subject"]));
    once("/calendars/", Fault::FolderVanishes);
    let calendar = text(&scene.all("calendars")[1], "id");
    assert_eq!(scene.get(&format!("calendars/{calendar}/events")).0, 404);
    // Whole answers with something else: now and then those of another event.
    let mut others = 0;
    for seed in 0..20 {
        let faults = Faults { seed, ..Faults::default() }.with_rule("/events/", 1, Fault::OtherBody);
        scene.simulator.set_faults(faults);
        let (status, body) = scene.client.get_with(&event, &[("prefer", IMMUTABLE)]);
        assert_eq!(status, 200);
        others += usize::from(body["id"].is_string() && body["id"] != id.as_str());
    }
    assert!(others > 0);
}

#[test]
fn the_control_api_changes_calendars() {
    let scene = Scene::new();
    let control = |rest: &str| format!("/control/users/{}/{rest}", scene.user);
    let new = json!({"name": "Dana", "owner": ["Dana", "dana@contoso.com"], "readOnly": true});
    let calendar = text(&scene.client.post(&control("calendars"), &new).1, "id");
    assert_eq!(scene.get(&format!("calendars/{calendar}")).1["owner"]["name"], "Dana");
    assert_eq!(scene.client.json(Method::PATCH, &control(&format!("calendars/{calendar}")), &json!({})).0, 204);
    assert_eq!(scene.get(&format!("calendars/{calendar}")).1["canEdit"], true);
    let attached = json!({"@odata.type": "#microsoft.graph.fileAttachment", "name": "a", "contentBytes": "AAEC"});
    let new = json!({
        "calendar": calendar, "fields": weekly(), "categories": ["x"], "attachments": [attached],
        "exceptions": [{"day": "2026-03-11", "fields": {"subject": "B"}}], "cancelled": ["2026-03-18"],
    });
    let id = text(&scene.client.post(&control("events"), &new).1, "id");
    let path = control(&format!("events/{id}"));
    let occurrence = |day: &str| format!("{path}/occurrences/{day}");
    assert_eq!(
        scene.client.json(Method::PATCH, &occurrence("2026-03-25"), &json!({"fields": {"subject": "C"}})).0,
        204
    );
    assert_eq!(scene.client.send(Method::DELETE, &occurrence("2026-04-01"), &[], None).status, 204);
    assert_eq!(scene.client.send(Method::DELETE, &occurrence("2026-04-02"), &[], None).status, 404);
    let change = json!({"fields": {"subject": "A"}, "calendar": "calendar"});
    assert_eq!(scene.client.json(Method::PATCH, &path, &change).0, 204);
    let truth = scene.truth().remove(0);
    assert_eq!((truth.id.as_str(), truth.attachments.len()), (id.as_str(), 1));
    assert_eq!(truth.calendar, text(&scene.get("calendar").1, "id"));
    assert_eq!(truth.exceptions.keys().collect::<Vec<_>>(), ["2026-03-11", "2026-03-25"]);
    assert_eq!(truth.cancelled, ["2026-03-18", "2026-04-01"]);
    assert_eq!((&truth.properties["subject"], &truth.properties["categories"]), (&json!("A"), &json!(["x"])));
    let lines = scene.client.send(Method::GET, &control("truth"), &[], None).bytes;
    let expected: Vec<String> = scene.simulator.tenant().truth(&scene.user).expect("a mailbox").lines().collect();
    assert_eq!(String::from_utf8(lines).expect("text").lines().collect::<Vec<_>>(), expected);
    assert!(expected.iter().any(|line| line.starts_with("{\"event\":")));
    assert_eq!(scene.client.send(Method::DELETE, &path, &[], None).status, 204);
    assert_eq!(scene.client.send(Method::DELETE, &path, &[], None).status, 404);
}

/// The import and export API sees folders and items of every class.
#[test]
fn an_exported_event_can_be_imported() {
    let scene = Scene::new();
    let id = scene.add_event(NewEvent {
        attachments: vec![file("a", b"1")],
        cancelled: vec!["2026-03-18".to_owned()],
        ..NewEvent::with(weekly())
    });
    let mailbox = text(&scene.get("settings/exchange").1, "primaryMailboxId");
    let root = format!("/v1.0/admin/exchange/mailboxes/{mailbox}");
    let folder = scene.client.get(&format!("{root}/folders/calendar")).1;
    assert_eq!((folder["type"].as_str(), folder["totalItemCount"].as_u64()), (Some("IPF.Appointment"), Some(1)));
    let items = scene.client.all(&format!("{root}/folders/calendar/items"), &[]);
    assert_eq!((items.len(), items[0]["type"].as_str()), (1, Some("IPM.Appointment")));
    let exported = scene.client.post(&format!("{root}/exportItems"), &json!({"itemIds": [id]})).1;
    let session = scene.client.post(&format!("{root}/createImportSession"), &json!({})).1;
    let item = json!({"FolderId": folder["id"], "Mode": "create", "Data": exported["value"][0]["data"]});
    assert_eq!(scene.client.post(&text(&session, "importUrl"), &item).0, 200);
    let events = scene.truth();
    assert_eq!(events.len(), 2);
    assert_eq!((&events[0].attachments, &events[0].cancelled), (&events[1].attachments, &events[1].cancelled));
    assert_eq!(events[0].properties["iCalUId"], events[1].properties["iCalUId"]);
    assert_eq!(scene.simulator.counters().invitations_sent, 0);
}

/// Returns what a client knows of all events that it lists: id, change key, and all that belongs to a series.
fn copy(client: &Client, user: &str, known: &mut BTreeMap<String, (String, Value)>) {
    let (mut seen, root) = (BTreeSet::new(), format!("/v1.0/users/{user}"));
    for calendar in client.all(&format!("{root}/calendars?$select=id"), &[]) {
        let path = format!("{root}/calendars/{}/events?$select=id,changeKey", text(&calendar, "id"));
        for row in client.all(&path, &[IMMUTABLE, "odata.maxpagesize=999"]) {
            let (id, key) = (text(&row, "id"), text(&row, "changeKey"));
            seen.insert(id.clone());
            if known.get(&id).is_some_and(|(before, _)| *before == key) {
                continue;
            }
            let path = format!("{root}/events/{id}");
            let details = client.get_with(&format!("{path}?$expand=exceptionOccurrences"), &[("prefer", IMMUTABLE)]).1;
            let cancelled = client.get(&format!("{path}?$select=cancelledOccurrences")).1;
            let exceptions = details["exceptionOccurrences"].as_array().cloned().unwrap_or_default();
            let days = cancelled["cancelledOccurrences"].as_array().cloned().unwrap_or_default();
            let days: Vec<&str> = days.iter().filter_map(|day| day.as_str()?.rsplit('.').next()).collect();
            let copy = json!([details["subject"], details["recurrence"], texts(&exceptions, "subject"), days]);
            known.insert(id, (key, copy));
        }
    }
    known.retain(|id, _| seen.contains(id));
}

#[test]
fn change_keys_tell_of_every_change_in_a_storm() {
    let organisation = Organisation { users: 1, messages: 0, ..Organisation::default() };
    let simulator = Simulator::start(Options { organisation, ..Options::default() }).expect("a simulator");
    let (client, tenant) = (Client::new(&simulator), simulator.tenant());
    let rounds = prop::collection::vec(prop::collection::vec(any::<u64>(), 1..25), 1..4);
    let mut runner = TestRunner::new(ProptestConfig { cases: 15, ..ProptestConfig::with_source_file(file!()) });
    let run = runner.run(&rounds, |rounds| {
        let principal_name = tenant.all_users().len().to_string();
        let user = tenant.add_user(UserSpec { principal_name, ..UserSpec::default() });
        let mut known = BTreeMap::new();
        for choices in rounds {
            for choice in choices {
                tenant.change_calendars_at_random(&user, choice).expect("a change");
            }
            copy(&client, &user, &mut known);
            let calendars: BTreeSet<String> =
                tenant.true_calendars(&user).expect("a mailbox").into_iter().map(|one| one.id).collect();
            let listed = tenant.true_events(&user).expect("a mailbox").into_iter();
            let listed = listed.filter(|event| calendars.contains(&event.calendar)).map(|event| {
                let subjects: Vec<&Value> = event.exceptions.values().map(|one| &one.properties["subject"]).collect();
                let copy =
                    json!([event.properties["subject"], event.properties["recurrence"], subjects, event.cancelled]);
                (event.id, (text(&event.properties, "changeKey"), copy))
            });
            prop_assert_eq!(&known, &listed.collect::<BTreeMap<_, _>>());
        }
        Ok(())
    });
    run.expect("the copies are the events");
}

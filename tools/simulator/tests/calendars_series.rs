//! Series as a client reads them: occurrences, exceptions, cancelled days, change keys and ids, over real HTTP.

mod client;

use client::IMMUTABLE;
use client::calendars::{Scene, YEAR, at, file, hour, ids, object, starts, text, texts, weekly};
use serde_json::{Value, json};
use strongroom_simulator::{CalendarFacts, NewEvent, NewException, Switches};

#[test]
fn a_series_takes_place_in_its_own_zone() {
    let scene = Scene::new();
    let series = scene.add(weekly());
    let instances = |window: &str| scene.all(&format!("events/{series}/instances?{window}"));
    let march = "startDateTime=2026-03-01T00:00:00Z&endDateTime=2026-04-01T00:00:00Z";
    let rows = instances(march);
    let expected = ["2026-03-04T17:00", "2026-03-11T16:00", "2026-03-18T16:00", "2026-03-25T16:00"];
    assert_eq!(starts(&rows), expected);
    assert!(rows.iter().all(|row| row["type"] == "occurrence" && row["seriesMasterId"] == series.as_str()));
    assert_eq!(text(&rows[1], "originalStart"), "2026-03-11T16:00:00Z");
    assert_ne!(rows[0]["iCalUId"], rows[1]["iCalUId"]);
    // The ends of the window: what ends at its begin is outside, what begins at its end, too.
    let edges = "startDateTime=2026-03-04T18:00:00Z&endDateTime=2026-03-11T16:00:00Z";
    assert_eq!(instances(edges), Vec::<Value>::new());
    let inside = "startDateTime=2026-03-04T17:59:59&endDateTime=2026-03-11T09:00:01-07:00";
    assert_eq!(instances(inside).len(), 2);
    let decade = "startDateTime=2026-01-01T00:00:00Z&endDateTime=2036-01-01T00:00:00Z&$top=1000";
    assert_eq!(instances(decade).len(), 513);
    let (_, page) = scene.get(&format!("events/{series}/instances?{YEAR}"));
    assert_eq!(page["value"].as_array().map(Vec::len), Some(10), "pages are short");
    let occurrence = scene.get(&format!("events/{}", text(&rows[2], "id"))).1;
    assert_eq!(object(occurrence)["start"], rows[2]["start"]);
    let single = scene.add(hour("One", "2026-02-01"));
    for (rest, status) in [
        (format!("events/{series}/instances"), 400),
        (format!("events/{series}/instances?startDateTime=2026-03-01T00:00:00Z"), 400),
        (format!("events/{series}/instances?startDateTime=2026-03-01T00:00:00Z&endDateTime=2026-02-01T00:00:00Z"), 400),
        (format!("events/{single}/instances?{YEAR}"), 400),
        ("calendarView".to_owned(), 400),
    ] {
        assert_eq!(scene.get(&rest).0, status, "{rest}");
    }
}

#[test]
fn the_last_day_of_a_short_month_stands_for_the_thirty_first() {
    let scene = Scene::new();
    let mut fields = weekly();
    fields["recurrence"]["pattern"] = json!({"type": "absoluteMonthly", "interval": 1, "dayOfMonth": 31});
    fields["recurrence"]["range"]["startDate"] = json!("2026-01-31");
    let series = scene.add(fields);
    let rows = scene.all(&format!("events/{series}/instances?{YEAR}&$top=3"));
    assert_eq!(starts(&rows)[..3], ["2026-01-31T17:00", "2026-02-28T17:00", "2026-03-31T16:00"]);
}

#[test]
fn a_view_shows_what_takes_place_in_a_time() {
    let scene = Scene::new();
    let tenant = scene.simulator.tenant();
    scene.add(hour("One", "2026-03-12"));
    scene.add(hour("Before", "2026-02-12"));
    let series = scene.add(weekly());
    let moved =
        json!({"subject": "Moved", "start": at("2026-03-13T08:00:00", "UTC"), "end": at("2026-03-13T09:00:00", "UTC")});
    tenant.change_occurrence(&scene.user, &series, "2026-05-06", &object(moved)).expect("changed");
    tenant.cancel_occurrence(&scene.user, &series, "2026-03-18").expect("cancelled");
    let march = "startDateTime=2026-03-01T00:00:00Z&endDateTime=2026-04-01T00:00:00Z";
    let rows = scene.all(&format!("calendarView?{march}"));
    let expected = ["2026-03-04T17:00", "2026-03-11T16:00", "2026-03-12T10:00", "2026-03-13T08:00", "2026-03-25T16:00"];
    assert_eq!(starts(&rows), expected);
    assert_eq!(texts(&rows, "type"), ["occurrence", "occurrence", "singleInstance", "exception", "occurrence"]);
    assert_eq!(text(&rows[3], "originalStart"), "2026-05-06T16:00:00Z");
    let default = text(&scene.get("calendar").1, "id");
    assert_eq!(scene.all(&format!("calendars/{default}/calendarView?{march}&$top=2")), rows);
}

#[test]
fn exceptions_and_cancelled_days_are_shown_with_their_series_alone() {
    let scene = Scene::new();
    let tenant = scene.simulator.tenant();
    let series = scene.add_event(NewEvent {
        attachments: vec![file("agenda.txt", b"A")],
        exceptions: vec![NewException {
            day: "2026-03-11".to_owned(),
            fields: object(json!({"subject": "Another"})),
            attachments: vec![file("more.txt", b"M")],
        }],
        cancelled: vec!["2026-03-18".to_owned(), "2026-03-25".to_owned()],
        ..NewEvent::with(weekly())
    });
    let path = format!("events/{series}");
    let plain = scene.get(&path).1;
    assert!(plain.get("exceptionOccurrences").is_none() && plain.get("cancelledOccurrences").is_none());
    assert!(scene.all("events?$select=subject,cancelledOccurrences")[0].get("cancelledOccurrences").is_none());
    let row = scene.get(&format!("{path}?$select=subject,cancelledOccurrences&$expand=exceptionOccurrences")).1;
    let days = [format!("OID.{series}.2026-03-18"), format!("OID.{series}.2026-03-25")];
    assert_eq!(row["cancelledOccurrences"], json!(days));
    let exception = &row["exceptionOccurrences"][0];
    assert_eq!((text(exception, "subject"), text(exception, "type")), ("Another".to_owned(), "exception".to_owned()));
    assert_eq!(text(exception, "originalStart"), "2026-03-11T16:00:00Z");
    assert_eq!(exception["start"], at("2026-03-11T16:00:00.0000000", "UTC"));
    // Its attachments are its own, those of its series among them.
    let names = |event: &str| texts(&scene.all(&format!("events/{event}/attachments")), "name");
    assert_eq!(names(&text(exception, "id")), ["agenda.txt", "more.txt"]);
    assert_eq!(names(&series), ["agenda.txt"]);
    let occurrence = &scene.all(&format!("{path}/instances?{YEAR}"))[0];
    assert_eq!(names(&text(occurrence, "id")), ["agenda.txt"]);
    let of_series = &scene.all(&format!("{path}/attachments"))[0];
    let of_exception = &scene.all(&format!("events/{}/attachments", text(exception, "id")))[0];
    assert_ne!(of_series["id"], of_exception["id"]);

    // Once, only beta knew them.
    scene.simulator.set_switches(Switches { series_details_in_beta_only: true, ..Switches::default() });
    for rest in ["?$expand=exceptionOccurrences", "?$select=cancelledOccurrences"] {
        assert_eq!(scene.get(&format!("{path}{rest}")).0, 400, "{rest}");
        let (status, row) = scene.client.get_with(&scene.beta(&format!("{path}{rest}")), &[("prefer", IMMUTABLE)]);
        assert_eq!(status, 200, "{row}");
    }
    // What is cancelled can no longer be read.
    let before = scene.all(&format!("{path}/instances?{YEAR}"));
    let gone = text(&before[2], "id");
    assert_eq!(scene.get(&format!("events/{gone}")).0, 200);
    tenant.cancel_occurrence(&scene.user, &series, "2026-04-01").expect("cancelled");
    assert_eq!(starts(&before)[2], "2026-04-01T16:00");
    assert_eq!(scene.get(&format!("events/{gone}")).0, 404);
    assert!(tenant.cancel_occurrence(&scene.user, &series, "2026-04-02").is_err(), "no day of the series");
}

#[test]
fn change_keys_move_with_each_change() {
    for quiet in [false, true] {
        let scene = Scene::with(Switches { quiet_exceptions: quiet, ..Switches::default() }, 0);
        let tenant = scene.simulator.tenant();
        let series = scene.add(weekly());
        let keys = || {
            let listed = text(&scene.all("events?$select=id,changeKey,lastModifiedDateTime")[0], "changeKey");
            let rows = scene.all(&format!("events/{series}/instances?{YEAR}&$select=changeKey"));
            (listed, text(&rows[1], "changeKey"))
        };
        let begin = keys();
        tenant.change_event(&scene.user, &series, &object(json!({"subject": "A"}))).expect("changed");
        let edited = keys();
        assert!(begin.0 != edited.0 && edited.0 == edited.1, "an occurrence has the change key of its series");
        tenant
            .change_occurrence(&scene.user, &series, "2026-03-11", &object(json!({"subject": "B"})))
            .expect("changed");
        let changed = keys();
        assert_ne!(edited.1, changed.1, "the exception has its own");
        assert_eq!(edited.0 == changed.0, quiet);
        tenant.cancel_occurrence(&scene.user, &series, "2026-03-25").expect("cancelled");
        assert_eq!(keys().0 == changed.0, quiet);
        tenant.attach_to_event(&scene.user, &series, None, file("a", b"1")).expect("attached");
        assert_ne!(keys().0, changed.0);
    }
}

#[test]
fn ids_of_events_survive_moves_and_those_of_occurrences_not_the_pattern() {
    let scene = Scene::new();
    let tenant = scene.simulator.tenant();
    let other = scene.calendar("Other", CalendarFacts::default());
    let series = scene.add(weekly());
    let default_id = text(&scene.client.get(&scene.path(&format!("events/{series}"))).1, "id");
    assert_eq!((series.len(), default_id.len()), (72, 152));
    let occurrence = text(&scene.all(&format!("events/{series}/instances?{YEAR}"))[1], "id");
    assert!(occurrence.len() > series.len());
    tenant.move_event(&scene.user, &series, &other).expect("moved");
    assert_eq!(scene.get(&format!("events/{default_id}")).0, 404);
    assert_eq!(ids(&scene.all(&format!("calendars/{other}/events"))), [series.clone()].into());
    assert_eq!(scene.get(&format!("events/{occurrence}")).0, 200);
    tenant.change_occurrence(&scene.user, &series, "2026-03-11", &object(json!({"subject": "B"}))).expect("changed");
    assert_eq!(scene.get(&format!("events/{occurrence}")).1["type"], "exception", "it keeps its id");
    let later = json!({"start": at("2026-03-04T11:00:00", "Pacific Standard Time")});
    tenant.change_event(&scene.user, &series, &object(later)).expect("changed");
    assert_eq!(scene.get(&format!("events/{occurrence}")).0, 404);
    let rows = scene.all(&format!("events/{series}/instances?{YEAR}"));
    assert_eq!((starts(&rows)[1].as_str(), text(&rows[1], "type").as_str()), ("2026-03-11T18:00", "occurrence"));

    // A deleted event is in no calendar and in no list of messages, but its immutable id finds it.
    tenant.discard_event(&scene.user, &series).expect("discarded");
    assert!(scene.all(&format!("calendars/{other}/events")).is_empty());
    assert!(scene.all("mailFolders/deleteditems/messages").is_empty());
    assert_eq!(scene.get(&format!("events/{series}")).0, 200);
    tenant.delete_event(&scene.user, &series).expect("deleted");
    assert_eq!(scene.get(&format!("events/{series}")).0, 404);
    tenant.discard_folder(&scene.user, &other).expect("discarded");
    assert_eq!(scene.all("calendars").len(), 1);
}

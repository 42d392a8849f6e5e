//! What a restore of calendars does: calendars, events and attachments written over HTTP, what the service makes of them,
//! and what it would send.

mod client;

use client::{Client, IMMUTABLE};
use reqwest::Method;
use serde_json::{Map, Value, json};
use strongroom_simulator::faults::Rule;
use strongroom_simulator::{
    CalendarFacts, Counts, Fault, Faults, NewCalendar, NewEvent, Options, Organisation, Simulator, Switches, TrueEvent,
};

const YEAR: &str = "startDateTime=2026-01-01T00:00:00Z&endDateTime=2027-01-01T00:00:00Z";

struct Scene {
    simulator: Simulator,
    client: Client,
    user: String,
}

impl Scene {
    fn new() -> Self {
        Self::with(Switches::default())
    }

    fn with(switches: Switches) -> Self {
        let organisation = Organisation { users: 1, messages: 0, contacts: 0, ..Organisation::default() };
        let options = Options { organisation, switches, ..Options::default() };
        let simulator = Simulator::start(options).expect("a simulator");
        let client = Client::new(&simulator);
        let user = simulator.tenant().users()[0].id.clone();
        Self { simulator, client, user }
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1.0/users/{}/{}", self.user, rest.replace(' ', "%20"))
    }

    fn get(&self, rest: &str) -> Value {
        let (status, body) = self.client.get_with(&self.path(rest), &[("prefer", IMMUTABLE)]);
        assert_eq!(status, 200, "{rest}: {body}");
        body
    }

    fn all(&self, rest: &str) -> Vec<Value> {
        self.client.all(&self.path(rest), &[IMMUTABLE])
    }

    fn post(&self, rest: &str, body: &Value) -> Value {
        let (status, answer) = self.client.post(&self.path(rest), body);
        assert_eq!(status, 201, "{rest}: {answer}");
        answer
    }

    fn patch(&self, rest: &str, body: &Value) -> Value {
        let (status, answer) = self.client.json(Method::PATCH, &self.path(rest), body);
        assert_eq!(status, 200, "{rest}: {answer}");
        answer
    }

    fn delete(&self, rest: &str) -> u16 {
        self.client.send(Method::DELETE, &self.path(rest), &[], None).status
    }

    fn refused(&self, method: Method, rest: &str, body: &Value) -> (u16, String) {
        let (status, answer) = self.client.json(method, &self.path(rest), body);
        (status, answer["error"]["code"].as_str().unwrap_or_else(|| panic!("no error in {answer}")).to_owned())
    }

    fn truth(&self) -> Vec<TrueEvent> {
        self.simulator.tenant().true_events(&self.user).expect("a mailbox")
    }

    /// Returns how many invitations, updates and cancellations would have been sent, how many mails, and how many online
    /// meetings would have been made.
    fn sent(&self) -> [u64; 5] {
        let Counts { invitations_sent, updates_sent, cancellations_sent, mails_sent, online_meetings_made, .. } =
            self.simulator.counters();
        [invitations_sent, updates_sent, cancellations_sent, mails_sent, online_meetings_made]
    }

    /// Returns the id of the occurrence that begins at this time in UTC.
    fn occurrence(&self, series: &str, start: &str) -> String {
        let rows = self.all(&format!("events/{series}/instances?{YEAR}&$top=1000"));
        let found = rows.iter().find(|row| row["start"]["dateTime"].as_str().is_some_and(|at| at.starts_with(start)));
        id(found.unwrap_or_else(|| panic!("nothing begins at {start}")))
    }
}

fn id(row: &Value) -> String {
    row["id"].as_str().unwrap_or_else(|| panic!("no id in {row}")).to_owned()
}

fn at(time: &str, zone: &str) -> Value {
    json!({"dateTime": time, "timeZone": zone})
}

fn with(mut event: Value, more: Value) -> Value {
    event.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    event
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

fn hour(subject: &str) -> Value {
    json!({"subject": subject, "start": at("2026-02-03T10:00:00", "UTC"), "end": at("2026-02-03T11:00:00", "UTC")})
}

fn weekly() -> Value {
    json!({
        "subject": "Weekly",
        "start": at("2026-03-04T09:00:00", "Pacific Standard Time"),
        "end": at("2026-03-04T10:00:00", "Pacific Standard Time"),
        "recurrence": {
            "pattern": {"type": "weekly", "interval": 1, "daysOfWeek": ["wednesday"]},
            "range": {"type": "noEnd", "startDate": "2026-03-04", "recurrenceTimeZone": "Pacific Standard Time"},
        },
    })
}

fn attendees(names: &[&str]) -> Value {
    let one =
        |name: &&str| json!({"type": "required", "emailAddress": {"name": name, "address": format!("{name}@b.c")}});
    json!({"attendees": names.iter().map(one).collect::<Vec<_>>()})
}

fn file(name: &str, base64: &str) -> Value {
    json!({"@odata.type": "#microsoft.graph.fileAttachment", "name": name, "contentBytes": base64})
}

#[test]
fn calendars_are_made_renamed_and_deleted() {
    let scene = Scene::new();
    let made = scene.post("calendars", &json!({"name": "Projects", "color": "lightBlue"}));
    let calendar = format!("calendars/{}", id(&made));
    assert_eq!((&made["color"], &made["isRemovable"]), (&json!("lightBlue"), &json!(true)));
    for name in ["projects", "Calendar"] {
        let refused = scene.refused(Method::POST, "calendars", &json!({"name": name}));
        assert_eq!(refused, (409, "ErrorFolderExists".to_owned()), "{name}");
    }
    assert_eq!(scene.refused(Method::POST, "calendars", &json!({})).0, 400);
    assert_eq!(scene.refused(Method::POST, "calendars", &json!({"name": "a", "displayName": "b"})).0, 400);
    assert_eq!(scene.patch(&calendar, &json!({"name": "Others"}))["name"], "Others");
    let event = id(&scene.post(&format!("{calendar}/events"), &hour("One")));
    assert_eq!(scene.delete(&calendar), 204);
    assert_eq!(scene.all("calendars").len(), 1);
    assert_eq!(scene.client.get(&scene.path(&format!("events/{event}"))).0, 200, "it lies in Deleted Items");
    let default = id(&scene.get("calendar"));
    assert_eq!(scene.delete(&format!("calendars/{default}")), 400);
    let facts = CalendarFacts { read_only: true, ..CalendarFacts::default() };
    let internet = NewCalendar { name: "Holidays".to_owned(), facts };
    let internet = scene.simulator.tenant().add_calendar(&scene.user, internet).expect("a calendar");
    let refused = scene.refused(Method::POST, &format!("calendars/{internet}/events"), &hour("One"));
    assert_eq!(refused, (403, "ErrorAccessDenied".to_owned()));
}

#[test]
fn a_new_event_is_the_users_own_with_a_new_identity() {
    let scene = Scene::new();
    let old = json!({
        "id": "x", "iCalUId": "040000008200E00074C5B7101A82E008", "changeKey": "y", "type": "occurrence", "isOrganizer": false,
        "organizer": {"emailAddress": {"name": "Dana", "address": "dana@fabrikam.com"}}, "webLink": "z",
        "createdDateTime": "2020-01-01T00:00:00Z", "responseStatus": {"response": "accepted"}, "isCancelled": true,
    });
    let made = scene.post("events", &with(hour("One"), old));
    assert_eq!((&made["type"], &made["isOrganizer"]), (&json!("singleInstance"), &json!(true)));
    assert_eq!((&made["isCancelled"], &made["responseStatus"]["response"]), (&json!(false), &json!("organizer")));
    let me = scene.simulator.tenant().users()[0].principal_name();
    assert_eq!(made["organizer"]["emailAddress"]["address"], me);
    assert!(made["createdDateTime"].as_str() > Some("2025"));
    let another = scene.post("events", &hour("One"));
    assert_ne!(made["iCalUId"], another["iCalUId"]);
    assert_eq!(made["iCalUId"].as_str().map(str::len), Some(112));
    let full = json!({
        "body": {"contentType": "HTML", "content": "<p>x</p>"}, "location": {"displayName": "Here"}, "showAs": "Free",
        "sensitivity": "private", "importance": "high", "isReminderOn": false, "reminderMinutesBeforeStart": 5,
        "categories": ["Red category"], "responseRequested": false, "hideAttendees": true,
        "singleValueExtendedProperties": [{"id": "String {00020329-0000-0000-C000-000000000046} Name Mark", "value": "7"}],
    });
    let made = scene.post("calendar/events", &with(hour("Full"), full));
    assert_eq!((&made["showAs"], &made["locations"][0]["displayName"]), (&json!("free"), &json!("Here")));
    let marked = "events?$filter=singleValueExtendedProperties/any(ep: ep/id eq \
                  'String {00020329-0000-0000-C000-000000000046} Name Mark' and ep/value eq '7')&$select=subject";
    let found = scene.all(marked);
    assert_eq!((found.len(), &found[0]["subject"]), (1, &json!("Full")));
    assert_eq!(scene.sent(), [0; 5]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let scene = Scene::new();
    let recurring = |zone: Value| {
        let mut event = weekly();
        event["recurrence"]["range"]["recurrenceTimeZone"] = zone;
        event
    };
    let days = |start: &str, end: &str| json!({"isAllDay": true, "start": at(start, "UTC"), "end": at(end, "UTC")});
    for (body, code) in [
        (json!({"subject": "No time"}), "ErrorPropertyValidationFailure"),
        (with(hour("a"), json!({"uid": "x"})), "UnableToDeserializePostBody"),
        (with(hour("a"), json!({"exceptionOccurrences": []})), "UnableToDeserializePostBody"),
        (with(hour("a"), json!({"end": at("2026-02-03T09:00:00", "UTC")})), "ErrorPropertyValidationFailure"),
        (recurring(json!("")), "TimeZoneNotSupportedException"),
        (recurring(json!("tzone://Microsoft/Custom")), "TimeZoneNotSupportedException"),
        (days("2026-01-01T00:00:00", "2026-01-01T00:00:00"), "ErrorPropertyValidationFailure"),
        (days("2026-01-01T01:00:00", "2026-01-02T01:00:00"), "ErrorPropertyValidationFailure"),
    ] {
        assert_eq!(scene.refused(Method::POST, "events", &body), (400, code.to_owned()), "{body}");
    }
    let made = scene.post("events", &recurring(Value::Null));
    assert_eq!(made["recurrence"]["range"]["recurrenceTimeZone"], "Pacific Standard Time");
    let days = scene.post("events", &days("2026-01-01T00:00:00", "2026-01-02T00:00:00"));
    assert_eq!((&days["isAllDay"], &days["end"]["dateTime"]), (&json!(true), &json!("2026-01-02T00:00:00.0000000")));
    assert_eq!(scene.truth().len(), 2);
}

#[test]
fn a_repeated_request_makes_no_second_event() {
    let scene = Scene::new();
    let body = with(with(hour("One"), attendees(&["a"])), json!({"transactionId": "7f3c"}));
    let (first, second) = (scene.post("events", &body), scene.post("events", &body));
    assert_eq!((id(&first), &first["transactionId"]), (id(&second), &json!("7f3c")));
    assert_eq!((scene.truth().len(), scene.sent()), (1, [1, 0, 0, 0, 0]));
    let other = scene.post("events", &with(hour("One"), json!({"transactionId": "8"})));
    assert_ne!(id(&first), id(&other));
}

#[test]
fn everything_that_would_be_sent_is_counted() {
    let scene = Scene::new();
    let event = id(&scene.post("events", &with(hour("Meeting"), attendees(&["a", "b"]))));
    assert_eq!(scene.sent(), [2, 0, 0, 0, 0]);
    // Not to ask for a response does not help.
    let quiet =
        scene.post("events", &with(hour("Quiet"), with(attendees(&["a"]), json!({"responseRequested": false}))));
    assert_eq!(scene.sent(), [3, 0, 0, 0, 0]);
    scene.patch(&format!("events/{event}"), &json!({"subject": "Other"}));
    assert_eq!(scene.sent(), [3, 2, 0, 0, 0]);
    scene.patch(&format!("events/{event}"), &attendees(&["b", "c"]));
    assert_eq!(scene.sent(), [4, 3, 1, 0, 0]);
    scene.post(&format!("events/{event}/attachments"), &file("a", "AAEC"));
    assert_eq!(scene.sent(), [4, 5, 1, 0, 0]);
    assert_eq!(scene.delete(&format!("events/{event}")), 204);
    assert_eq!(scene.sent(), [4, 5, 3, 0, 0]);
    let cancel = scene.path(&format!("events/{}/cancel", id(&quiet)));
    assert_eq!(scene.client.post(&cancel, &json!({"comment": "Sorry"})).0, 202);
    assert_eq!(scene.sent(), [4, 5, 4, 0, 0]);
    let online = scene.post("events", &with(hour("Online"), json!({"isOnlineMeeting": true})));
    assert!(online["onlineMeeting"]["joinUrl"].as_str().is_some_and(|url| url.contains("meetup-join")));
    assert_eq!(scene.sent()[4], 1);
    scene.simulator.reset_counters();

    // The meetings of others: who changes or leaves them invites nobody and cancels nothing.
    let others = |subject: &str| {
        let more = json!({"isOrganizer": false, "organizer": {"emailAddress": {"name": "D", "address": "d@b.c"}}});
        let event = NewEvent::with(with(with(hour(subject), attendees(&["a", "b"])), more));
        scene.simulator.tenant().add_event(&scene.user, "calendar", event).expect("an event")
    };
    let (kept, left) = (others("Kept"), others("Left"));
    scene.patch(&format!("events/{kept}"), &json!({"isReminderOn": false}));
    assert_eq!(scene.delete(&format!("events/{left}")), 204);
    assert_eq!(scene.refused(Method::POST, &format!("events/{kept}/cancel"), &json!({})).0, 400);
    assert_eq!(scene.sent(), [0; 5]);
    let answer = |event: &str, what: &str, body: Value| {
        scene.client.post(&scene.path(&format!("events/{event}/{what}")), &body).0
    };
    assert_eq!(answer(&kept, "accept", json!({"sendResponse": false})), 202);
    assert_eq!(
        (scene.sent()[3], &scene.get(&format!("events/{kept}"))["responseStatus"]["response"]),
        (0, &json!("accepted"))
    );
    assert_eq!(answer(&kept, "tentativelyAccept", json!({})), 202);
    assert_eq!(answer(&kept, "forward", json!({"ToRecipients": []})), 202);
    assert_eq!(scene.sent()[3], 2);
}

#[test]
fn exceptions_and_cancelled_days_are_made_by_the_ids_of_occurrences() {
    let scene = Scene::new();
    let mine = id(&scene.post("events", &weekly()));
    let series = format!("events/{mine}");
    scene.post(&format!("{series}/attachments"), &file("agenda.txt", "AAEC"));
    let before = scene.get(&series)["changeKey"].clone();
    let changed = scene.occurrence(&mine, "2026-03-11");
    let answer = scene.patch(
        &format!("events/{changed}"),
        &json!({
            "subject": "Moved", "start": at("2026-03-12T08:00:00", "UTC"), "end": at("2026-03-12T09:00:00", "UTC"),
            "categories": ["Blue"],
        }),
    );
    assert_eq!((&answer["type"], &answer["originalStart"]), (&json!("exception"), &json!("2026-03-11T16:00:00Z")));
    assert_ne!(scene.get(&series)["changeKey"], before);
    assert_eq!(scene.delete(&format!("events/{}", scene.occurrence(&mine, "2026-03-18"))), 204);
    // An exception inherits the attachments of its series, as its own.
    let inherited = scene.all(&format!("events/{changed}/attachments"));
    assert_eq!(inherited[0]["name"], "agenda.txt");
    assert_eq!(scene.delete(&format!("events/{changed}/attachments/{}", id(&inherited[0]))), 204);
    scene.post(&format!("events/{changed}/attachments"), &file("other.txt", "AA=="));
    let truth = scene.truth().remove(0);
    let exception = &truth.exceptions["2026-03-11"];
    assert_eq!((exception.properties["subject"].as_str(), exception.attachments.len()), (Some("Moved"), 1));
    assert_eq!(
        (&exception.properties["categories"], exception.attachments[0].name.as_str()),
        (&json!(["Blue"]), "other.txt")
    );
    assert_eq!((truth.cancelled, truth.attachments.len()), (vec!["2026-03-18".to_owned()], 1));
    let recurrence = weekly()["recurrence"].clone();
    let refused = scene.refused(Method::PATCH, &format!("events/{changed}"), &json!({"recurrence": recurrence}));
    assert_eq!(refused.0, 400);
    // A deleted exception leaves a cancelled day.
    assert_eq!(scene.delete(&format!("events/{changed}")), 204);
    let truth = scene.truth().remove(0);
    assert_eq!((truth.exceptions.len(), truth.cancelled.len()), (0, 2));
    // A new pattern begins anew.
    scene.patch(&series, &json!({"start": at("2026-03-04T07:00:00", "Pacific Standard Time"), "end": at("2026-03-04T08:00:00", "Pacific Standard Time")}));
    let truth = scene.truth().remove(0);
    assert_eq!((truth.exceptions.len(), truth.cancelled.len()), (0, 0));
    assert_eq!(scene.sent(), [0; 5]);
}

#[test]
fn an_occurrence_of_a_meeting_sends_as_the_meeting_does() {
    let scene = Scene::new();
    let series = id(&scene.post("events", &with(weekly(), attendees(&["a", "b"]))));
    let occurrence = scene.occurrence(&series, "2026-03-11");
    scene.patch(&format!("events/{occurrence}"), &json!({"subject": "Other"}));
    assert_eq!(scene.sent(), [2, 2, 0, 0, 0]);
    assert_eq!(scene.delete(&format!("events/{occurrence}")), 204);
    assert_eq!(scene.sent(), [2, 2, 2, 0, 0]);
}

#[test]
fn large_attachments_are_uploaded_in_ranges() {
    const SIZE: usize = 3_200_000;
    let scene = Scene::new();
    let event = id(&scene.post("events", &hour("One")));
    let session =
        |size: usize| json!({"AttachmentItem": {"attachmentType": "file", "name": "large.bin", "size": size}});
    let create = format!("events/{event}/attachments/createUploadSession");
    let refused = scene.refused(Method::POST, &create, &session(1000));
    assert_eq!(refused, (400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize".to_owned()));
    let url = scene.post(&create, &session(SIZE))["uploadUrl"].as_str().expect("a URL").to_owned();
    let bytes: Vec<u8> = (0..SIZE).map(|n| (n % 251) as u8).collect();
    let put = |from: usize, to: usize| {
        let range = format!("bytes {from}-{}/{SIZE}", to - 1);
        let headers = [("authorization", ""), ("content-range", range.as_str())];
        scene.client.send(Method::PUT, &url, &headers, Some(bytes[from..to].to_vec()))
    };
    assert_eq!(put(0, 2_000_000).status, 200);
    let last = put(2_000_000, SIZE);
    assert_eq!(last.status, 201);
    assert!(last.headers["location"].to_str().expect("text").contains("/Events('"));
    assert_eq!(scene.truth()[0].attachments[0].bytes, bytes);
}

#[test]
fn a_change_key_guards_a_change_and_a_lost_answer_does_its_work() {
    let scene = Scene::with(Switches { new_messages_lag: true, ..Switches::default() });
    let made = scene.post("events", &hour("One"));
    let path = scene.path(&format!("events/{}", id(&made)));
    let send = |etag: &str| {
        let headers = [("content-type", "application/json"), ("if-match", etag)];
        scene.client.send(Method::PATCH, &path, &headers, Some(b"{\"subject\": \"Two\"}".to_vec())).status
    };
    assert_eq!(send("W/\"other\""), 412);
    assert_eq!(send(made["@odata.etag"].as_str().expect("a tag")), 200);
    let attach = format!("events/{}/attachments", id(&made));
    assert_eq!(scene.refused(Method::POST, &attach, &file("a", "AA==")).0, 404, "too new");
    scene.post(&attach, &file("a", "AA=="));
    let (method, contains, fault) = (Some("POST".to_owned()), "/events".to_owned(), Fault::LostAnswerTimeout);
    let rule = Rule { method, contains, skip: 0, times: Some(1), fault };
    scene.simulator.set_faults(Faults { rules: vec![rule], ..Faults::default() });
    assert_eq!(scene.client.post(&scene.path("events"), &hour("Lost")).0, 504);
    assert_eq!(scene.truth().len(), 2);
    // What is deleted goes to Deleted Items, then to the recoverable items, and no further.
    let event = id(&scene.all("events")[0]);
    assert_eq!(scene.delete(&format!("events/{event}")), 204);
    assert_eq!(scene.all("events").len(), 1);
    assert_eq!(scene.delete(&format!("events/{event}")), 204);
    assert_eq!(scene.delete(&format!("events/{event}")), 403);
    let permanent = scene.path(&format!("events/{}/permanentDelete", id(&scene.all("events")[0])));
    assert_eq!(scene.client.post(&permanent, &json!({})).0, 204);
    assert!(scene.all("events").is_empty());
    assert_eq!(object(scene.get("calendar"))["name"], "Calendar");
}

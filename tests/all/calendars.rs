//! Backups of calendars. After each run every event of the tenant is in the snapshot as an iCalendar file, with its
//! whole JSON, its changed and cancelled instances and its attachments; nothing leaves without proof, and no change of
//! a series is missed. Calendars of other people are left to them.

use crate::common;
use crate::laboratory;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{Lab, PATIENCE, eventually, quiet, run, text, write};
use laboratory::{Laboratory, Shape};
use proptest::prelude::*;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use strongroom::backup::tenant::TenantReport;
use strongroom::content::event::{self, Event as IcsEvent};
use strongroom::content::names::calendar_folder_name;
use strongroom::source::graph::{Request, Scope, path};
use strongroom_simulator::{
    Attachment, CalendarFacts, Fault, Faults, NewCalendar, NewEvent, NewMessage, Options, Organisation, Payload,
    Simulator, Switches, Tenant, TrueAttachment,
};

/// The part of a snapshot or of the tenant that an event or a changed instance is.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    properties: Value,
    /// Names and contents.
    attachments: BTreeSet<(String, Vec<u8>)>,
}

/// An event as it is, or as it stands in a snapshot.
#[derive(Clone, Debug, PartialEq)]
struct Event {
    /// The name of its calendar; none for the default one.
    calendar: Option<String>,
    master: Part,
    /// The changed instances by id.
    exceptions: BTreeMap<String, Part>,
    cancelled: BTreeSet<String>,
}

/// Makes a laboratory whose set takes calendars alone.
fn laboratory(shape: Shape) -> Laboratory {
    let mut lab = Laboratory::new(shape);
    (lab.options.mail, lab.options.calendars) = (false, true);
    lab
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

/// Returns the JSON of an event without what every reader sees in another way.
fn comparable(mut properties: Value) -> Value {
    let object = properties.as_object_mut().expect("an event");
    let others = ["id", "seriesMasterId", "webLink", "exceptionOccurrences", "uid", "occurrenceId"];
    object.retain(|name, _| !others.contains(&name.as_str()) && !name.starts_with('@') && !name.contains("@odata"));
    properties
}

/// What stands for the content of an attached item that is no message: the truth has its JSON, and the service gives
/// its own form of it.
const ITEM: &[u8] = b"an item";

fn truth_of(attachments: &[TrueAttachment]) -> BTreeSet<(String, Vec<u8>)> {
    let content = |bytes: &[u8]| if bytes.starts_with(b"{\"@odata.type\"") { ITEM.to_vec() } else { bytes.to_vec() };
    attachments.iter().map(|one| (one.name.clone(), content(&one.bytes))).collect()
}

/// Returns the events of a user in the user's own calendars, by id.
fn truth(tenant: &Tenant, user: &str) -> BTreeMap<String, Event> {
    let truth = tenant.truth(user).expect("a mailbox");
    let own = truth.calendars.into_iter().filter(|calendar| calendar.owner.is_none());
    let own: BTreeMap<_, _> =
        own.map(|one| (one.id, (!one.is_default).then(|| calendar_folder_name(&one.name)))).collect();
    let part = |properties: Value, attachments: &[TrueAttachment]| Part {
        properties: comparable(properties),
        attachments: truth_of(attachments),
    };
    let events = truth.events.into_iter().filter_map(|event| {
        let exceptions = event.exceptions.into_values();
        let exceptions = exceptions.map(|one| (one.id, part(one.properties, &one.attachments)));
        let kept = Event {
            calendar: own.get(&event.calendar)?.clone(),
            master: part(event.properties, &event.attachments),
            exceptions: exceptions.collect(),
            cancelled: event.cancelled.into_iter().collect(),
        };
        Some((event.id, kept))
    });
    events.collect()
}

/// Returns what a payload says of an event.
fn stored(calendar: Option<String>, payload: &[u8]) -> Event {
    let payload: Value = serde_json::from_slice(payload).expect("JSON");
    let list = |name: &str| payload[name].as_array().cloned().unwrap_or_default();
    let id = |json: &Value| json["id"].as_str().expect("an id").to_owned();
    let part = |json: &Value| {
        let mine = list("attachments").into_iter().filter(|one| one["eventId"] == json["id"]);
        let attachments = mine.map(|one| {
            let properties = &one["properties"];
            let kind = properties["@odata.type"].as_str().unwrap_or_default();
            let item = properties["item"]["@odata.type"].as_str().unwrap_or_default();
            let content = match one["content"].as_str() {
                Some(content) if !item.is_empty() && !item.ends_with("essage") => {
                    let form = STANDARD.decode(content).expect("base64");
                    assert!(form.starts_with(b"BEGIN:V"), "{properties}");
                    ITEM.to_vec()
                }
                Some(content) => STANDARD.decode(content).expect("base64"),
                None if kind.ends_with("referenceAttachment") => {
                    properties["sourceUrl"].as_str().unwrap_or_default().as_bytes().to_vec()
                }
                None => panic!("no content: {properties}"),
            };
            (properties["name"].as_str().expect("a name").to_owned(), content)
        });
        Part { properties: comparable(json.clone()), attachments: attachments.collect() }
    };
    let cancelled = list("cancelledOccurrences")
        .into_iter()
        .map(|id| event::cancelled_date(id.as_str().expect("a text")).expect("a date").to_string());
    let master = &payload["event"];
    Event {
        calendar,
        master: part(master),
        exceptions: event::exceptions(master).map(|one| (id(one), part(one))).collect(),
        cancelled: cancelled.collect(),
    }
}

/// Returns the events in a snapshot: the users' folders, and in each the events by id. Writes their files to `files`.
fn events_in(
    lab: &Laboratory,
    report: &TenantReport,
    files: Option<&Path>,
) -> BTreeMap<String, BTreeMap<String, Event>> {
    let reader = lab.reader();
    let mut users: BTreeMap<String, BTreeMap<String, Event>> = BTreeMap::new();
    lab.walk(&reader, report.snapshot.directory(), "", &mut |path, entry, ics| {
        let names: Vec<_> = path.split('/').collect();
        let ["Users", user, "Outlook", "Calendar", folders @ .., file] = names.as_slice() else { return };
        if !file.ends_with(".ics") {
            return;
        }
        assert!(folders.len() <= 1, "{path}");
        let mut json = Vec::new();
        reader.read(entry.payload.as_ref().expect("a payload"), 0, usize::MAX, &mut json).expect("its JSON");
        let found = stored(folders.first().map(|name| (*name).to_owned()), &json);
        let id = entry.facts.source_id.clone().expect("an id");
        let text = std::str::from_utf8(ics).expect("an iCalendar file is UTF-8");
        let is_whole =
            text.starts_with("BEGIN:VCALENDAR\r\nVERSION:2.0\r\n") && text.ends_with("\r\nEND:VCALENDAR\r\n");
        assert!(is_whole && !text.contains("\r\nMETHOD"), "{path}: {text}");
        assert_eq!(text.matches("\r\nBEGIN:VEVENT\r\n").count(), 1 + found.exceptions.len(), "{path}");
        if let Some(files) = files {
            fs::write(files.join(format!("{}.ics", blake3::hash(id.as_bytes()).to_hex())), ics).expect("a file");
        }
        let twice = users.entry((*user).to_owned()).or_default().insert(id, found);
        assert_eq!(twice, None, "{path} stands in two places");
    });
    users
}

/// Compares the events of a snapshot with those of the tenant.
#[track_caller]
fn assert_events(lab: &Laboratory, report: &TenantReport) {
    let found = events_in(lab, report, None);
    let tenant = lab.simulator.tenant();
    for user in lab.mailboxes() {
        let expected = truth(&tenant, &user);
        let found = found.get(&user.to_lowercase()).cloned().unwrap_or_default();
        let ids = |events: &BTreeMap<String, Event>| events.keys().cloned().collect::<Vec<_>>();
        assert_eq!(ids(&found), ids(&expected), "{user}");
        for (id, mut expected) in expected {
            let mut found = found[&id].clone();
            // A name that is taken gets a number.
            let is_called = |found: &str, wanted: &str| {
                found == wanted || found.strip_prefix(wanted).is_some_and(|rest| rest.starts_with(" ("))
            };
            let same = match (&found.calendar, &expected.calendar) {
                (Some(found), Some(wanted)) => is_called(found, wanted),
                (found, wanted) => found == wanted,
            };
            assert!(same, "{user}: {:?} in place of {:?}", found.calendar, expected.calendar);
            (found.calendar, expected.calendar) = (None, None);
            assert_eq!(found, expected, "{user}: {id}");
        }
    }
}

/// A series of ten days that begins on 2 March 2026, at nine in Berlin.
fn series(subject: &str) -> NewEvent {
    let zone = "W. Europe Standard Time";
    NewEvent::with(json!({
        "subject": subject,
        "start": {"dateTime": "2026-03-02T09:00:00.0000000", "timeZone": zone},
        "end": {"dateTime": "2026-03-02T09:30:00.0000000", "timeZone": zone},
        "recurrence": {
            "pattern": {"type": "daily", "interval": 1},
            "range": {"type": "numbered", "numberOfOccurrences": 10, "startDate": "2026-03-02", "recurrenceTimeZone": zone},
        },
    }))
}

fn single(subject: &str) -> NewEvent {
    let at = |hour: u32| json!({"dateTime": format!("2026-03-02T{hour:02}:00:00.0000000"), "timeZone": "UTC"});
    NewEvent::with(json!({ "subject": subject, "start": at(9), "end": at(10) }))
}

fn file(name: &str, bytes: &[u8]) -> Attachment {
    Attachment {
        number: 0,
        name: name.to_owned(),
        content_type: "application/octet-stream".to_owned(),
        inline: false,
        content_id: None,
        content_location: None,
        payload: Payload::File(bytes.to_vec().into()),
    }
}

#[test]
fn calendars_are_backed_up_as_they_are_and_then_by_what_changes() {
    let lab = laboratory(Shape { users: 3, messages: 0, ..Shape::default() });
    let user = lab.mailboxes().remove(0);
    let tenant = lab.simulator.tenant();
    for odd in strongroom_simulator::generate::events::odd() {
        tenant.add_event(&user, "calendar", odd).expect("an event");
    }
    let first = lab.back_up().expect("a backup");
    assert_eq!(first.failures, []);
    assert_events(&lab, &first);
    assert!(first.ledger.adds_up() && first.ledger.enumerated > 0, "{:?}", first.ledger);

    lab.simulator.reset_counters();
    let second = lab.back_up().expect("a backup");
    assert_events(&lab, &second);
    let summary = second.snapshot.summary;
    assert_eq!((summary.new, summary.changed, summary.moved, summary.deleted), (0, 0, 0, 0));
    assert_eq!(summary.added_bytes, 0, "nothing is stored but the snapshot");
    assert_eq!(second.ledger.carried, second.ledger.enumerated);
    assert_eq!(first.snapshot.root.directory(), second.snapshot.root.directory());
    for user in lab.mailboxes() {
        let calendars = tenant.truth(&user).expect("a mailbox").calendars;
        let own = calendars.iter().filter(|calendar| calendar.owner.is_none()).count() as u64;
        let groups = calendars.iter().filter_map(|calendar| calendar.group.as_ref()).collect::<BTreeSet<_>>().len();
        let requests = lab.requests_of(&user);
        assert!(requests <= own + groups as u64 + 2, "{user}: {requests} requests for {own} calendars");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: laboratory::cases(4), max_shrink_iters: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_storm_of_changes_ends_with_what_is_true(
        seed in 0u64..1000,
        rounds in proptest::collection::vec(proptest::collection::vec(any::<u64>(), 4..20), 3),
        quiet_exceptions in any::<bool>(),
        series_details_in_beta_only in any::<bool>(),
    ) {
        let switches = Switches { quiet_exceptions, series_details_in_beta_only, ..Switches::default() };
        let mut lab = laboratory(Shape { seed, users: 2, messages: 0, switches, ..Shape::default() });
        if quiet_exceptions {
            // Nothing but reading a series again tells of such a change, so that is done by each run.
            lab.options.listed_anew = Duration::from_secs(0);
        }
        let first = lab.back_up().expect("a backup");
        assert_events(&lab, &first);
        let mut before = vec![lab.remember(first)];
        for changes in rounds {
            for (number, choice) in changes.iter().enumerate() {
                let users = lab.mailboxes();
                let user = &users[number % users.len()];
                lab.simulator.tenant().change_calendars_at_random(user, *choice).expect("a mailbox");
            }
            let report = lab.back_up().expect("a backup");
            prop_assert_eq!(&report.failures, &vec![]);
            assert_events(&lab, &report);
            prop_assert!(report.ledger.adds_up());
            before.push(lab.remember(report));
            before.iter().for_each(|remembered| lab.assert_remembered(remembered));
        }
    }
}

/// Returns how many events were read whole since the counters were reset.
fn events_read(simulator: &Simulator) -> u64 {
    let operations = simulator.counters().by_operation;
    let of_events = operations.iter().filter(|(name, _)| name.to_lowercase().contains("getevent"));
    of_events.map(|(_, count)| count).sum()
}

#[test]
fn a_changed_instance_and_a_cancelled_one_are_seen_alone() {
    let lab = laboratory(Shape { users: 1, messages: 0, ..Shape::default() });
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    let one = tenant.add_event(&user, "calendar", series("One")).expect("an event");
    tenant.add_event(&user, "calendar", series("Other")).expect("an event");
    assert_events(&lab, &lab.back_up().expect("a backup"));
    tenant.change_occurrence(&user, &one, "2026-03-04", &object(json!({"subject": "Moved"}))).expect("a day");
    lab.simulator.reset_counters();
    let report = lab.back_up().expect("a backup");
    assert_events(&lab, &report);
    assert!(events_read(&lab.simulator) <= 3, "only what changed is read");
    assert_eq!(report.snapshot.summary.changed, 1);
    tenant.cancel_occurrence(&user, &one, "2026-03-05").expect("a day");
    tenant.attach_to_event(&user, &one, Some("2026-03-06"), file("day.bin", &[7; 3000])).expect("a day");
    let report = lab.back_up().expect("a backup");
    assert_events(&lab, &report);
    let kept = &events_in(&lab, &report, None)[&user.to_lowercase()][&one];
    assert_eq!(
        (kept.exceptions.len(), kept.cancelled.iter().map(String::as_str).collect::<Vec<_>>()),
        (2, vec!["2026-03-05"])
    );
}

#[test]
fn a_change_that_shows_nowhere_is_found_within_the_interval() {
    let switches = Switches { quiet_exceptions: true, ..Switches::default() };
    let mut lab = laboratory(Shape { users: 1, messages: 0, switches, ..Shape::default() });
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    let one = tenant.add_event(&user, "calendar", series("One")).expect("an event");
    lab.back_up().expect("a backup");
    tenant.change_occurrence(&user, &one, "2026-03-04", &object(json!({"subject": "Moved"}))).expect("a day");
    let unseen = lab.back_up().expect("a backup");
    assert_eq!(events_in(&lab, &unseen, None)[&user.to_lowercase()][&one].exceptions.len(), 0, "nothing told of it");
    lab.options.listed_anew = Duration::from_secs(1);
    assert_events(&lab, &lab.back_up().expect("a backup"));
}

#[test]
fn an_event_that_moves_keeps_its_file_and_one_that_goes_leaves() {
    let lab = laboratory(Shape { users: 1, messages: 0, ..Shape::default() });
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    let calendar = NewCalendar { name: "Private".to_owned(), facts: CalendarFacts::default() };
    let private = tenant.add_calendar(&user, calendar).expect("a calendar");
    let moves = tenant.add_event(&user, "calendar", series("Moves")).expect("an event");
    let goes = tenant.add_event(&user, &private, single("Goes")).expect("an event");
    let discarded = tenant.add_event(&user, "calendar", single("Discarded")).expect("an event");
    assert_events(&lab, &lab.back_up().expect("a backup"));
    tenant.move_event(&user, &moves, &private).expect("an event");
    tenant.delete_event(&user, &goes).expect("an event");
    tenant.discard_event(&user, &discarded).expect("an event");
    let report = lab.back_up().expect("a backup");
    assert_eq!(report.failures, []);
    assert_events(&lab, &report);
    let found = events_in(&lab, &report, None);
    assert_eq!(found[&user.to_lowercase()][&moves].calendar.as_deref(), Some("Private"));
    // The calendar goes, and its events with it.
    tenant.delete_folder(&user, &private).expect("a calendar");
    assert_events(&lab, &lab.back_up().expect("a backup"));
}

#[test]
fn an_event_leaves_only_if_it_is_gone_itself() {
    let lab = laboratory(Shape { users: 1, messages: 0, ..Shape::default() });
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    let id = tenant.add_event(&user, "calendar", single("Stays")).expect("an event");
    lab.back_up().expect("a backup");
    tenant.discard_event(&user, &id).expect("an event");
    let astray = Faults::default().with_rule(&format!("/events/{id}"), u32::MAX, Fault::InternalError);
    lab.simulator.set_faults(astray);
    let report = lab.back_up().expect("a backup");
    assert!(lab.simulator.counters().faults > 0, "it was asked for");
    let kept = events_in(&lab, &report, None);
    assert!(kept[&user.to_lowercase()].contains_key(&id), "without an answer it stays");
    assert_eq!(report.failures.len(), 1, "{:?}", report.failures);
    lab.simulator.set_faults(Faults::default());
    let report = lab.back_up().expect("a backup");
    assert_eq!(report.failures, []);
    assert_events(&lab, &report);
}

#[test]
fn one_bad_event_is_one_failed_event_and_its_old_state_stands() {
    let lab = laboratory(Shape { users: 1, messages: 0, ..Shape::default() });
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    let id = tenant.add_event(&user, "calendar", single("Old")).expect("an event");
    tenant.add_event(&user, "calendar", single("Good")).expect("an event");
    lab.back_up().expect("a backup");
    tenant.change_event(&user, &id, &object(json!({"subject": "New"}))).expect("an event");
    let broken = Faults::default().with_rule(&format!("/events/{id}"), u32::MAX, Fault::InternalError);
    lab.simulator.set_faults(broken);
    let report = lab.back_up().expect("a backup");
    assert_eq!(report.failures.len(), 1, "{:?}", report.failures);
    assert!(String::from_utf8_lossy(&report.failures[0].path).ends_with("Old.ics"), "{:?}", report.failures);
    assert_eq!(report.ledger.failed, 1);
    let kept = &events_in(&lab, &report, None)[&user.to_lowercase()][&id];
    assert_eq!(kept.master.properties["subject"], "Old");
    lab.simulator.set_faults(Faults::default());
    let report = lab.back_up().expect("a backup");
    assert_eq!(report.failures, []);
    assert_events(&lab, &report);
}

#[test]
fn a_storm_of_faults_loses_no_event() {
    let lab = laboratory(Shape { users: 2, messages: 0, ..Shape::default() });
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    for number in 0..10 {
        let event = NewEvent { attachments: vec![file("a.bin", &vec![number; 2000])], ..series(&format!("N{number}")) };
        tenant.add_event(&user, "calendar", event).expect("an event");
    }
    for seed in 0..3 {
        lab.simulator.set_faults(Faults::bad_day(seed, 5));
        let report = lab.back_up().expect("a backup");
        assert_eq!(report.failures, [], "seed {seed}");
        assert_events(&lab, &report);
        for choice in 0..6 {
            tenant.change_calendars_at_random(&user, seed * 100 + choice).expect("a mailbox");
        }
    }
}

#[test]
fn calendars_of_others_are_left_to_them() {
    let lab = laboratory(Shape { users: 1, messages: 0, ..Shape::default() });
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    let owner = Some(("Eve".to_owned(), "eve@fabrikam.com".to_owned()));
    let facts = CalendarFacts { owner, broken: true, ..CalendarFacts::default() };
    let shared = tenant.add_calendar(&user, NewCalendar { name: "Eve".to_owned(), facts }).expect("a calendar");
    tenant.add_event(&user, &shared, single("Of Eve")).expect("an event");
    let facts = CalendarFacts { group: Some("Other Calendars".to_owned()), ..CalendarFacts::default() };
    let grouped = tenant.add_calendar(&user, NewCalendar { name: "Grouped".to_owned(), facts }).expect("a calendar");
    let own = tenant.add_event(&user, &grouped, single("In a group")).expect("an event");
    let report = lab.back_up().expect("a backup");
    assert_eq!(report.failures, []);
    assert_events(&lab, &report);
    let found = &events_in(&lab, &report, None)[&user.to_lowercase()];
    assert_eq!(found[&own].calendar.as_deref(), Some("Grouped"));
    assert!(found.values().all(|event| event.master.properties["subject"] != "Of Eve"));
}

#[test]
fn an_attachment_that_a_mail_has_too_is_stored_once() {
    let mut lab = laboratory(Shape { users: 1, messages: 0, ..Shape::default() });
    lab.options.mail = true;
    let (tenant, user) = (lab.simulator.tenant(), lab.mailboxes().remove(0));
    // Bytes that do not compress.
    let mut bytes = vec![0; 300_000];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    let mut mime = b"Subject: m\r\nMIME-Version: 1.0\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n".to_vec();
    strongroom::content::mail::base64::append(&bytes, &mut mime);
    tenant.add_message(&user, "inbox", NewMessage { mime, ..NewMessage::default() }).expect("an inbox");
    let first = lab.back_up().expect("a backup");
    let event = NewEvent { attachments: vec![file("a.pdf", &bytes)], ..series("With a file") };
    tenant.add_event(&user, "calendar", event).expect("an event");
    let second = lab.back_up().expect("a backup");
    assert_events(&lab, &second);
    let added = second.snapshot.summary.added_bytes;
    assert!(first.snapshot.summary.added_bytes >= 300_000 && added < 100_000, "{added} bytes");
}

#[test]
fn without_the_permission_mail_is_backed_up_and_calendars_stand() {
    let mut lab = laboratory(Shape { users: 2, messages: 3, ..Shape::default() });
    lab.options.mail = true;
    let first = lab.back_up().expect("a backup");
    assert_events(&lab, &first);
    let before = events_in(&lab, &first, None);
    let all = lab.simulator.authority().rules().roles;
    lab.simulator.authority().change_rules(|rules| rules.roles.retain(|role| !role.starts_with("Calendars.")));
    let report = lab.back_up().expect("mail is backed up");
    lab.assert_truth(&report);
    assert_eq!(events_in(&lab, &report, None), before, "calendars stand as they were");
    let texts: Vec<_> = report.failures.iter().map(|failure| failure.error.as_str()).collect();
    assert!(texts.iter().any(|text| text.contains("may read the events of nobody")), "{texts:?}");
    lab.simulator.authority().change_rules(|rules| rules.roles = all);
    let report = lab.back_up().expect("a backup");
    assert_eq!(report.failures, []);
    assert_events(&lab, &report);
}

/// An organisation, and a laboratory with a repository whose configuration has the set `everyone`.
struct Office {
    simulator: Simulator,
    lab: Lab,
}

impl Office {
    fn new(organisation: Organisation) -> Office {
        let simulator = Simulator::start(Options { organisation, ..Options::default() }).expect("a simulator");
        let lab = Lab::new();
        let (url, tenant, client) = (simulator.url(), simulator.tenant_id(), simulator.client_id());
        let text = format!(
            "[tenants.contoso]\ntenant_id = \"{tenant}\"\nclient_id = \"{client}\"\n\
             endpoints = {{ login = \"{url}\", graph = \"{url}\" }}\nclient_secret = {{ env = \"CONTOSO_SECRET\" }}\n\
             [sets.everyone]\ntenant = \"contoso\"\nservices = [\"calendar\"]\n"
        );
        write(&lab.path("strongroom.toml"), text);
        Office { simulator, lab }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.lab.command(args);
        command.env("STRONGROOM_CONFIG", self.lab.path("strongroom.toml"));
        command.env("CONTOSO_SECRET", self.simulator.client_secret());
        command
    }
}

#[test]
fn a_killed_run_and_an_interrupted_one_are_continued_and_store_nothing_twice() {
    let office = Office::new(Organisation { users: 1, messages: 0, contacts: 0, events: 0, ..Organisation::default() });
    let tenant = office.simulator.tenant();
    let user = tenant.users()[0].principal_name();
    const EVENTS: usize = 200;
    for number in 0..EVENTS {
        tenant.add_event(&user, "calendar", single(&format!("Event {number}"))).expect("an event");
    }
    let args = ["backup", "--set", "everyone"];
    for signal in [Signal::KILL, Signal::INT] {
        office.simulator.reset_counters();
        let mut child = office.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program");
        eventually("some events are read", PATIENCE, || events_read(&office.simulator) as usize > EVENTS / 2);
        kill_process(Pid::from_child(&child), signal).expect("a child");
        assert!(!child.wait().expect("a child").success(), "it ended before {signal:?}");
        assert_eq!(office.lab.json(["snapshots"]).as_array().map(Vec::len), Some(0), "{signal:?} left no snapshot");
    }
    // What the interrupted run read is stored, and this machine remembers it.
    office.simulator.reset_counters();
    run(&mut office.command(&args), 0);
    let asked = events_read(&office.simulator) as usize;
    assert!(asked < EVENTS, "{asked} events were read, as if nothing had been stored");
    let listed = office.lab.run(["ls", "-R", &format!("latest:Users/{}/Outlook/Calendar", user.to_lowercase())], 0);
    let listed = text(&listed.stdout);
    assert_eq!(listed.matches(".ics").count(), EVENTS, "each event once");
    assert!(!listed.contains(" (2).ics"), "{listed}");
    run(&mut office.command(&["check", "--read-data"]), 0);
}

/// Returns a Python that has the packages to read calendars, and a script of `tests/calendars`.
fn python(script: &str) -> Option<Command> {
    let program = || Command::new(std::env::var("STRONGROOM_PYTHON").unwrap_or_else(|_| "python3".to_owned()));
    let check = program().args(["-c", "import icalendar, recurring_ical_events"]).output();
    if !check.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: needs python3 with the packages icalendar and recurring-ical-events");
        return None;
    }
    let mut python = program();
    python.arg("-B").arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/calendars").join(script));
    Some(python)
}

#[test]
fn every_kind_of_series_has_the_instances_that_python_finds() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(mut make) = python("series.py") else { return };
    quiet(make.arg("make").arg(folder.path()));
    let mut events = 0;
    for found in fs::read_dir(folder.path()).expect("a folder") {
        let path = found.expect("a file").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let json: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
        let cancelled = json["cancelledOccurrences"].as_array().into_iter().flatten();
        let cancelled: Vec<_> = cancelled.map(|id| id.as_str().expect("a text").to_owned()).collect();
        let calendar =
            IcsEvent { event: &json, cancelled: &cancelled, attachments: &[] }.calendar().expect("a calendar");
        fs::write(path.with_extension("ics"), calendar.text).expect("a file");
        events += 1;
    }
    assert!(events > 300, "{events} events");
    let said = quiet(python("series.py").expect("it was there").arg("check").arg(folder.path()));
    assert_eq!(said.trim_end(), events.to_string());
}

const YEARS: [u16; 2] = [2024, 2034];

/// Returns when the instances of a series begin, as the service says.
async fn instances(lab: &Laboratory, user: &str, series: &str) -> Vec<String> {
    let client = lab.client();
    let scope = || Scope::mailbox(user);
    let [from, to] = YEARS.map(|year| format!("{year}-01-01T00:00:00Z"));
    let request = Request::get(path(&["users", user, "events", series, "instances"]), scope());
    let mut request = request.query("startDateTime", &from).query("endDateTime", &to).query("$select", "start");
    let mut starts = Vec::new();
    loop {
        let prefer = |request: Request| request.prefer("IdType=\"ImmutableId\"").prefer("odata.maxpagesize=500");
        let page: Value = client.json(prefer(request)).await.expect("instances");
        let rows = page["value"].as_array().expect("rows").iter();
        starts.extend(rows.map(|row| {
            format!("{}Z", row["start"]["dateTime"].as_str().expect("a time").trim_end_matches(".0000000"))
        }));
        let Some(next) = page["@odata.nextLink"].as_str() else { break };
        request = Request::follow(next.to_owned(), scope());
    }
    starts.sort();
    starts
}

#[test]
fn python_finds_the_instances_that_the_service_has() {
    let Some(mut reads) = python("instances.py") else { return };
    let lab = laboratory(Shape { users: 2, messages: 0, ..Shape::default() });
    let (tenant, files) = (lab.simulator.tenant(), tempfile::tempdir().expect("a folder"));
    let user = lab.mailboxes().remove(0);
    for odd in strongroom_simulator::generate::events::odd() {
        tenant.add_event(&user, "calendar", odd).expect("an event");
    }
    let report = lab.back_up().expect("a backup");
    let users = events_in(&lab, &report, Some(files.path()));
    let said = quiet(reads.arg(files.path()).args(YEARS.map(|year| year.to_string())));
    let read: Value = serde_json::from_str(&said).expect("JSON");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut compared = 0;
    for (user, events) in &users {
        for (id, event) in events {
            let found = &read[blake3::hash(id.as_bytes()).to_hex().as_str()];
            let attached =
                event.exceptions.values().chain([&event.master]).map(|part| part.attachments.len()).sum::<usize>();
            assert_eq!(found["attached"], attached, "{:?}", event.master.properties["subject"]);
            let recurrence = &event.master.properties["recurrence"];
            let zone = recurrence["range"]["recurrenceTimeZone"].as_str().unwrap_or_default();
            // Nobody can tell the rules of a zone that an old program made up (docs/coverage.md, "Calendars").
            if recurrence.is_null() || zone.starts_with("tzone://") {
                continue;
            }
            let starts: Vec<_> = found["starts"].as_array().expect("starts").iter().filter_map(Value::as_str).collect();
            let expected = runtime.block_on(instances(&lab, user, id));
            assert_eq!(starts, expected, "{} {recurrence}", event.master.properties["subject"]);
            compared += 1;
        }
    }
    assert!(compared > 5, "{compared} series");
}

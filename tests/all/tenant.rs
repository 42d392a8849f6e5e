//! `strongroom tenant` against a simulated organisation: what the application may do, what it may not, and which users
//! there are.

use crate::common;

use common::{Lab, fails, run, text, write};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use strongroom_simulator::auth::{AccessPolicy, Certificate, DeviceAnswer, ExchangeRole, Rules};
use strongroom_simulator::{Kind, Options, Organisation, Simulator, Switches, UserSpec, permissions};

/// An organisation, and a laboratory whose configuration names it `contoso`.
struct Office {
    simulator: Simulator,
    lab: Lab,
}

impl Office {
    fn new() -> Office {
        Office::with(Organisation { seed: 1, users: 3, messages: 4, ..Organisation::default() })
    }

    fn with(organisation: Organisation) -> Office {
        let simulator = Simulator::start(Options { organisation, ..Options::default() }).unwrap();
        let office = Office { simulator, lab: Lab::empty() };
        office.configure("client_secret = { env = \"CONTOSO_SECRET\" }", "");
        office
    }

    /// Writes the configuration. `credential` is a line of the tenant, and `sets` stands at the end.
    fn configure(&self, credential: &str, sets: &str) {
        let (url, tenant, client) = (self.simulator.url(), self.simulator.tenant_id(), self.simulator.client_id());
        let text = format!(
            "[tenants.contoso]\ntenant_id = \"{tenant}\"\nclient_id = \"{client}\"\n\
             endpoints = {{ login = \"{url}\", graph = \"{url}\" }}\n{credential}\n{sets}"
        );
        write(&self.lab.path("strongroom.toml"), text);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.lab.command(["tenant"].iter().chain(args));
        command.env("STRONGROOM_CONFIG", self.lab.path("strongroom.toml"));
        command.env("CONTOSO_SECRET", self.simulator.client_secret());
        command
    }

    fn change_rules(&self, change: impl FnOnce(&mut Rules)) {
        self.simulator.authority().change_rules(change);
    }

    /// Runs with `--json` and returns the result.
    #[track_caller]
    fn json(&self, args: &[&str], exit: i32) -> Value {
        let output = run(self.command(args).arg("--json"), exit);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
    }
}

/// Returns the status of each check of a report.
fn statuses(report: &Value) -> Vec<(&str, &str)> {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().map(|check| (check["check"].as_str().unwrap(), check["status"].as_str().unwrap())).collect()
}

#[track_caller]
fn check<'a>(report: &'a Value, what: &str) -> &'a Value {
    let mut checks = report["checks"].as_array().unwrap().iter();
    checks.find(|check| check["check"] == what).unwrap_or_else(|| panic!("no check `{what}` in {report}"))
}

#[test]
fn a_tenant_that_grants_everything_is_ready() {
    let office = Office::new();
    let report = office.json(&["test", "contoso"], 0);
    assert_eq!((&report["tenant"], &report["ok"], &report["steps"]), (&json!("contoso"), &json!(true), &json!([])));
    assert_eq!(report["organisation"]["id"], office.simulator.tenant_id());
    let expected = ["sign-in", "organisation", "users", "mail", "mailbox settings"];
    assert_eq!(statuses(&report)[..expected.len()], expected.map(|check| (check, "ok")));
    assert_eq!(check(&report, "users")["permission"], "User.Read.All");
    assert_eq!(check(&report, "mail")["permission"], "Mail.Read");

    let shown = text(&run(&mut office.command(&["test", "contoso"]), 0).stdout);
    assert!(shown.ends_with("contoso: ready for a backup\n") && !shown.contains("What to do"), "{shown}");
    assert_eq!(office.simulator.counters().mails_sent, 0);

    // At any level of logging: no secret, no token (they are JWTs here), and no address.
    let output = run(office.command(&["test", "contoso", "-vvv"]).env("STRONGROOM_LOG", "trace"), 0);
    let said = text(&output.stderr);
    assert!(said.contains("TRACE") || said.contains("DEBUG"), "{said}");
    for secret in [office.simulator.client_secret(), "eyJ", "@contoso.com"] {
        assert!(!said.contains(secret), "`{secret}` in {said}");
    }
}

#[test]
fn only_what_a_set_uses_is_tried() {
    let office = Office::new();
    let secret = "client_secret = { env = \"CONTOSO_SECRET\" }";
    office.configure(secret, "[sets.a]\ntenant = \"contoso\"\nservices = [\"onedrive\"]\n");
    let report = office.json(&["test", "contoso"], 0);
    assert_eq!(check(&report, "onedrive")["status"], "unsupported");
    assert!(!statuses(&report).iter().any(|(what, _)| *what == "mail"), "{report}");

    office.configure(secret, "[sets.a]\ntenant = \"contoso\"\ninclude = [\"Users/nobody@contoso.com\"]\n");
    let report = office.json(&["test", "contoso"], 1);
    let mail = check(&report, "mail");
    assert_eq!(mail["status"], "unproven");
    assert!(mail["detail"].as_str().unwrap().contains("select none of 3 users"), "{mail}");
}

#[test]
fn whether_messages_can_be_exported_is_tried_where_a_set_asks_for_it() {
    let office = Office::new();
    let secret = "client_secret = { env = \"CONTOSO_SECRET\" }";
    let full = "[sets.a]\ntenant = \"contoso\"\nfidelity = \"full\"\n";
    assert!(!statuses(&office.json(&["test", "contoso"], 0)).iter().any(|(what, _)| *what == "exporting"));
    office.configure(secret, full);
    let report = office.json(&["test", "contoso"], 0);
    assert_eq!(
        (check(&report, "exporting")["status"].as_str(), check(&report, "importing")["status"].as_str()),
        (Some("ok"), Some("ok"))
    );
    for (missing, named) in [("MailboxItem", "MailboxItem.Export.All"), ("MailboxFolder", "MailboxFolder.Read.All")] {
        let others = permissions::APPLICATION.iter().copied().filter(|name| !name.starts_with(missing));
        office.simulator.set_permissions(others);
        let report = office.json(&["test", "contoso"], 1);
        let exporting = check(&report, "exporting");
        assert_eq!((&exporting["status"], &exporting["permission"]), (&json!("missing"), &json!(named)), "{report}");
        assert!(report["steps"].to_string().contains(named), "{report}");
        assert_eq!(check(&report, "mail")["status"], "ok");
    }
    let elsewhere = Switches { no_import_export: true, ..Switches::default() };
    office.simulator.set_permissions(permissions::APPLICATION.iter().copied());
    office.simulator.set_switches(elsewhere);
    let report = office.json(&["test", "contoso"], 1);
    let exporting = check(&report, "exporting");
    assert!(exporting["detail"].as_str().unwrap().contains("is it in this cloud?"), "{exporting}");
}

#[test]
fn a_secret_that_is_wrong_says_so_and_stays_secret() {
    let office = Office::new();
    let wrong = "a-wrong-secret-of-some-length";
    let mut command = office.command(&["test", "contoso", "-vvv"]);
    let output = run(command.env("CONTOSO_SECRET", wrong).env("STRONGROOM_LOG", "trace").arg("--json"), 1);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(statuses(&report), [("sign-in", "failed")]);
    let detail = check(&report, "sign-in")["detail"].as_str().unwrap();
    assert!(detail.contains("the client secret is wrong") && detail.contains("AADSTS7000215"), "{detail}");
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(!said.contains(wrong), "{said}");
    // `users` cannot list anything.
    let said = fails(office.command(&["users", "contoso"]).env("CONTOSO_SECRET", wrong), 1);
    assert!(said.contains("could not list the users of contoso"), "{said}");
}

#[test]
fn no_service_at_the_address_is_a_failure_and_no_verdict() {
    let office = Office::new();
    // Nobody listens on a port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = std::fs::read_to_string(office.lab.path("strongroom.toml")).unwrap();
    let text = text.replace(office.simulator.url(), &format!("http://127.0.0.1:{port}"));
    write(&office.lab.path("strongroom.toml"), text);
    let report = office.json(&["test", "contoso"], 1);
    assert_eq!(statuses(&report), [("sign-in", "failed")]);
    assert!(report["steps"].as_array().unwrap().is_empty(), "{report}");
}

#[test]
fn names_of_users_do_not_mislead_who_lists_them() {
    let office = Office::new();
    let tenant = office.simulator.tenant();
    let name = tenant.users()[0].principal_name();
    tenant.rename_user(&name, &name, "Eve\u{202e}moc.osotnoc\u{2066}\u{2028}\u{1b}[2Jroot").unwrap();
    let shown = text(&run(&mut office.command(&["users", "contoso"]), 0).stdout);
    assert!(shown.contains(r"Eve\u{202e}moc.osotnoc\u{2066}\u{2028}\u{1b}[2Jroot"), "{shown}");
    let json = office.json(&["users", "contoso"], 0);
    let names: Vec<_> = json.as_array().unwrap().iter().filter_map(|user| user["display_name"].as_str()).collect();
    assert!(names.iter().any(|name| name.contains('\u{202e}')), "{names:?}");
}

#[test]
fn users_are_listed_with_the_kind_of_their_mailbox() {
    let office =
        Office::with(Organisation { seed: 1, users: 1, messages: 1, every_kind: true, ..Organisation::default() });
    let tenant = office.simulator.tenant();
    for number in 0..120 {
        // More than one page, and more than one mailbox at a time.
        let principal_name = format!("User.{number:03}@contoso.com");
        tenant.add_user(UserSpec { principal_name, kind: Kind::Licensed, ..UserSpec::default() });
    }
    let secret = "client_secret = { env = \"CONTOSO_SECRET\" }";
    let sets = "[sets.people]\ntenant = \"contoso\"\ninclude = [\"Users/User.*\", \"Users/info@*\"]\nlicensed_only = true\n\
                [sets.all]\ntenant = \"contoso\"\n";
    office.configure(secret, sets);
    let users = office.json(&["users", "contoso"], 0);
    let users = users.as_array().unwrap();
    assert_eq!(users.len(), tenant.users().len());
    let names: Vec<_> = users.iter().map(|user| user["name"].as_str().unwrap()).collect();
    assert!(names.is_sorted() && names.iter().all(|name| *name == name.to_lowercase()), "{names:?}");
    for user in tenant.users() {
        let row = users.iter().find(|row| row["id"] == user.id.as_str()).expect("every user is listed");
        let mailbox = match user.kind {
            Kind::Licensed | Kind::NullType => "user",
            Kind::Shared => "shared",
            Kind::Room => "room",
            Kind::Equipment => "equipment",
            Kind::Unlicensed | Kind::Guest | Kind::OnPremises | Kind::SoftDeleted => "none",
            // The changes of a full mailbox cannot be read, but its inbox can.
            Kind::OverQuota => "user",
            Kind::OutsidePolicy => "denied",
        };
        assert_eq!((&row["mailbox"], &row["licensed"]), (&json!(mailbox), &json!(user.kind.is_licensed())), "{row}");
        let mut sets = vec!["all"];
        if user.principal_name().starts_with("User.") {
            sets.push("people");
        }
        sets.retain(|_| !["none", "denied"].contains(&mailbox));
        assert_eq!(row["sets"], json!(sets), "{row}");
    }
    let shown = text(&run(&mut office.command(&["users", "contoso"]), 0).stdout);
    assert_eq!(shown.lines().count(), users.len() + 1);
    assert!(
        shown.lines().any(|line| line.starts_with("user.007@contoso.com ") && line.contains(" all, people")),
        "{shown}"
    );
}

#[test]
fn what_cannot_be_meant_is_an_error_of_usage() {
    let office = Office::new();
    for action in ["test", "users", "login"] {
        let said = fails(&mut office.command(&[action, "contso"]), 2);
        assert!(said.contains("there is no tenant called `contso`") && said.contains("Hint: it has contoso"), "{said}");
    }
    let said = fails(&mut office.command(&["login", "contoso"]), 2);
    assert!(said.contains("needs no login"), "{said}");
    let said = fails(office.command(&["test", "contoso"]).env_remove("CONTOSO_SECRET"), 2);
    assert!(said.contains("line 5, `tenants.contoso.client_secret`: the environment variable"), "{said}");
    office.configure("certificate = \"nowhere.pem\"", "");
    let said = fails(&mut office.command(&["test", "contoso"]), 2);
    assert!(said.contains("line 5, `tenants.contoso.certificate`: could not read"), "{said}");
    write(&office.lab.path("nowhere.pem"), "no certificate\n");
    std::fs::set_permissions(office.lab.path("nowhere.pem"), PermissionsExt::from_mode(0o600)).unwrap();
    let said = fails(&mut office.command(&["test", "contoso"]), 1);
    assert!(said.contains("certificate"), "{said}");
}

#[test]
fn somebody_who_has_not_signed_in_is_told_to() {
    let office = Office::new();
    office.configure("", "");
    let report = office.json(&["test", "contoso"], 1);
    let detail = check(&report, "sign-in")["detail"].as_str().unwrap();
    assert!(detail.contains("strongroom tenant login"), "{detail}");
}

/// Returns the roles that are enough for a test of a backup, without `left_out`.
fn roles_without(left_out: &str) -> BTreeSet<String> {
    let roles = ["User.Read.All", "Organization.Read.All", "Mail.Read", "MailboxSettings.Read"];
    roles.into_iter().filter(|role| *role != left_out).map(str::to_owned).collect()
}

#[test]
fn the_permission_that_is_missing_is_named_with_the_steps_to_grant_it() {
    let office = Office::new();
    for (left_out, what, exit) in [
        ("Mail.Read", "mail", 1),
        ("User.Read.All", "users", 1),
        ("MailboxSettings.Read", "mailbox settings", 0),
        ("Organization.Read.All", "organisation", 0),
        ("nothing", "", 0),
    ] {
        office.change_rules(|rules| rules.roles = roles_without(left_out));
        let report = office.json(&["test", "contoso"], exit);
        assert_eq!(report["ok"], exit == 0, "{left_out}");
        for (check, status) in statuses(&report) {
            // Only reading was granted.
            let expected = if check == what || check == "restoring mail" { "missing" } else { "ok" };
            assert_eq!(status, expected, "{check} without {left_out}");
        }
        let steps = report["steps"].to_string();
        if exit == 0 {
            assert_eq!(report["steps"], json!([]), "without {left_out}");
            continue;
        }
        assert_eq!(check(&report, what)["permission"], left_out);
        let words = ["https://portal.azure.com", office.simulator.client_id(), left_out, "Application permissions"];
        for word in words.into_iter().chain(["Grant admin consent"]) {
            assert!(steps.contains(word), "`{word}` in {steps}");
        }
        let shown = text(&run(&mut office.command(&["test", "contoso"]), 1).stdout);
        assert!(shown.contains("\nMISSING ") && shown.contains("\nWhat to do:\n1. in https://portal"), "{shown}");
        assert!(shown.ends_with("contoso: not ready for a backup\n"), "{shown}");
    }
}

#[test]
fn names_of_messages_alone_are_not_enough() {
    let office = Office::new();
    office.change_rules(|rules| {
        rules.roles = roles_without("Mail.Read");
        rules.roles.insert("Mail.ReadBasic.All".to_owned());
    });
    let report = office.json(&["test", "contoso"], 1);
    let mail = check(&report, "mail");
    assert_eq!(mail["status"], "missing");
    assert!(mail["detail"].as_str().unwrap().contains("folders can be listed"), "{mail}");
}

#[test]
fn contacts_are_tried_if_a_set_takes_them() {
    let office = Office::new();
    let set = "[sets.everyone]\ntenant = \"contoso\"\nservices = [\"mail\", \"contacts\"]\n";
    office.configure("client_secret = { env = \"CONTOSO_SECRET\" }", set);
    let report = office.json(&["test", "contoso"], 0);
    let contacts = check(&report, "contacts");
    assert_eq!((&contacts["status"], &contacts["permission"]), (&json!("ok"), &json!("Contacts.Read")));
    office.change_rules(|rules| rules.roles.retain(|role| !role.starts_with("Contacts.")));
    let report = office.json(&["test", "contoso"], 1);
    assert_eq!(
        (&check(&report, "contacts")["status"], &check(&report, "mail")["status"]),
        (&json!("missing"), &json!("ok"))
    );
    assert!(report["steps"].to_string().contains("tick Contacts.Read,"), "{}", report["steps"]);
}

#[test]
fn calendars_are_tried_if_a_set_takes_them() {
    let office = Office::new();
    let set = "[sets.everyone]\ntenant = \"contoso\"\nservices = [\"mail\", \"calendar\"]\n";
    office.configure("client_secret = { env = \"CONTOSO_SECRET\" }", set);
    let report = office.json(&["test", "contoso"], 0);
    let calendars = check(&report, "calendars");
    assert_eq!((&calendars["status"], &calendars["permission"]), (&json!("ok"), &json!("Calendars.Read")));
    office.change_rules(|rules| rules.roles.retain(|role| !role.starts_with("Calendars.")));
    let report = office.json(&["test", "contoso"], 1);
    let statuses = (&check(&report, "calendars")["status"], &check(&report, "mail")["status"]);
    assert_eq!(statuses, (&json!("missing"), &json!("ok")));
    assert!(report["steps"].to_string().contains("tick Calendars.Read,"), "{}", report["steps"]);
}

#[test]
fn roles_assigned_in_exchange_count_although_no_token_names_them() {
    let office = Office::new();
    let users = office.simulator.tenant().users();
    let last = users.last().unwrap();
    let role = |permission: &str| ExchangeRole {
        permission: permission.to_owned(),
        mailboxes: Some(BTreeSet::from([last.id.clone()])),
    };
    office.change_rules(|rules| {
        rules.roles = BTreeSet::from(["User.Read.All".to_owned(), "Organization.Read.All".to_owned()]);
        rules.exchange_roles = vec![role("Mail.Read"), role("MailboxSettings.Read")];
    });
    let report = office.json(&["test", "contoso"], 0);
    let mail = check(&report, "mail");
    assert_eq!(mail["status"], "ok", "{mail}");
    assert!(mail["detail"].as_str().unwrap().contains("2 other mailboxes are closed"), "{mail}");

    let listed = office.json(&["users", "contoso"], 0);
    for row in listed.as_array().unwrap() {
        let expected = if row["id"] == last.id.as_str() { "user" } else { "denied" };
        assert_eq!(row["mailbox"], expected, "{row}");
    }
}

#[test]
fn a_policy_that_closes_every_mailbox_is_told_from_a_missing_permission() {
    let office = Office::new();
    let users = office.simulator.tenant().users();
    let ids = |count: usize| users.iter().take(count).map(|user| user.id.clone()).collect::<BTreeSet<_>>();
    office.change_rules(|rules| rules.access_policy = AccessPolicy::RestrictTo(BTreeSet::new()));
    let report = office.json(&["test", "contoso"], 1);
    assert_eq!(check(&report, "mail")["status"], "closed");
    let steps = report["steps"].to_string();
    assert!(steps.contains("Get-ApplicationAccessPolicy") && steps.contains(office.simulator.client_id()), "{steps}");
    assert!(!steps.contains("Add a permission"), "{steps}");

    office.change_rules(|rules| rules.access_policy = AccessPolicy::Deny(ids(2)));
    assert_eq!(check(&office.json(&["test", "contoso"], 0), "mail")["status"], "ok");
    // The set takes only mailboxes that are closed to the application.
    let include: Vec<_> = users.iter().take(2).map(|user| format!("Users/{}", user.principal_name())).collect();
    let sets = format!("[sets.a]\ntenant = \"contoso\"\ninclude = {include:?}\n");
    office.configure("client_secret = { env = \"CONTOSO_SECRET\" }", &sets);
    assert_eq!(check(&office.json(&["test", "contoso"], 1), "mail")["status"], "closed");
}

#[test]
fn without_settings_a_mailbox_is_of_another_kind_and_can_be_read() {
    let office = Office::new();
    office.change_rules(|rules| rules.roles = roles_without("MailboxSettings.Read"));
    for row in office.json(&["users", "contoso"], 0).as_array().unwrap() {
        assert_eq!(row["mailbox"], "other", "{row}");
    }
    office.change_rules(|rules| rules.roles = BTreeSet::new());
    let said = fails(&mut office.command(&["users", "contoso"]), 1);
    assert!(said.contains("could not list the users of contoso") && said.contains("lacks a permission"), "{said}");
}

#[test]
fn an_empty_mailbox_proves_as_much_as_it_can() {
    let office = Office::with(Organisation { seed: 1, users: 2, messages: 0, ..Organisation::default() });
    let report = office.json(&["test", "contoso"], 0);
    assert!(check(&report, "mail")["detail"].as_str().unwrap().contains("there was no message to try"), "{report}");
    let office = Office::with(Organisation { seed: 1, users: 0, messages: 0, ..Organisation::default() });
    let principal_name = "nobody@contoso.com".to_owned();
    office.simulator.tenant().add_user(UserSpec { principal_name, kind: Kind::Unlicensed, ..UserSpec::default() });
    let report = office.json(&["test", "contoso"], 1);
    assert_eq!(check(&report, "mail")["status"], "unproven", "{report}");
}

#[test]
fn a_certificate_signs_in_where_it_was_uploaded() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/simulator/src/auth/testdata");
    let read = |name: &str| std::fs::read(data.join(name)).unwrap();
    let certificates = vec![Certificate::new(&read("certificate.pem")).unwrap()];
    let lab = Lab::empty();
    for (name, certificate) in [("contoso.pem", "certificate.pem"), ("other.pem", "other.pem")] {
        write(&lab.path(name), [read("key.pem"), read(certificate)].concat());
        std::fs::set_permissions(lab.path(name), PermissionsExt::from_mode(0o600)).unwrap();
    }
    let organisation = Organisation { seed: 1, users: 1, messages: 1, ..Organisation::default() };
    let simulator = Simulator::start(Options { organisation, certificates, ..Options::default() }).unwrap();
    let office = Office { simulator, lab };
    office.configure("certificate = \"contoso.pem\"", "");
    assert_eq!(office.json(&["test", "contoso"], 0)["ok"], true);
    office.configure("certificate = \"other.pem\"", "");
    let report = office.json(&["test", "contoso"], 1);
    assert!(check(&report, "sign-in")["detail"].as_str().unwrap().contains("AADSTS700027"), "{report}");
}

#[test]
fn a_person_signs_in_with_a_code_and_is_remembered() {
    let office = Office::new();
    office.configure("", "");
    office.change_rules(|rules| {
        rules.device_answers = vec![DeviceAnswer::AwaitPage];
        rules.device_interval_s = 1;
    });
    let mut child =
        office.command(&["login", "contoso"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
    let code = said.split_whitespace().find(|word| office.simulator.authority().approve_device(word));
    assert!(code.is_some() && said.contains("http"), "a page and a code: {said}");
    let mut shown = String::new();
    child.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(shown.starts_with("Signed in to contoso"), "{shown}");

    // One mailbox: that of the person who signed in.
    let report = office.json(&["test", "contoso"], 0);
    assert_eq!(
        (check(&report, "mail")["status"].as_str(), check(&report, "users")["status"].as_str()),
        (Some("ok"), Some("ok"))
    );
    assert_eq!(check(&report, "users")["permission"], "User.Read");
    let users = office.json(&["users", "contoso"], 0);
    assert_eq!((users.as_array().unwrap().len(), &users[0]["mailbox"]), (1, &json!("user")));

    // The folder shows no token in clear text, and other users cannot read it.
    let mut files = 0;
    common::walk(&office.lab.state(), &mut |path, stat| {
        assert_eq!(stat.permissions().mode() & 0o077, 0, "{}", path.display());
        files += usize::from(stat.is_file());
    });
    assert!(files >= 2, "a key and a token");

    // After the sign-in is revoked, the next command says that somebody must sign in.
    office.simulator.authority().revoke_sessions();
    let report = office.json(&["test", "contoso"], 1);
    let detail = check(&report, "sign-in")["detail"].as_str().unwrap();
    assert!(detail.contains("strongroom tenant login"), "{detail}");
}

#[test]
fn a_sign_in_that_is_declined_is_a_failure() {
    let office = Office::new();
    office.configure("", "");
    office.change_rules(|rules| {
        rules.device_answers = vec![DeviceAnswer::Declined];
        rules.device_interval_s = 1;
    });
    let output = run(&mut office.command(&["login", "contoso"]), 1);
    let said = text(&output.stderr);
    assert!(said.contains("Error: could not sign in to contoso\n") && said.contains("declined"), "{said}");
}

/// A script that follows a page like a browser in which somebody is signed in.
const BROWSER: &str = "#!/bin/sh\nexec python3 -c \
    'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=60).read()' \"$1\"\n";

#[test]
fn a_person_signs_in_in_a_browser() {
    let office = Office::new();
    office.configure("", "");
    write(&office.lab.path("bin/xdg-open"), BROWSER);
    std::fs::set_permissions(office.lab.path("bin/xdg-open"), PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", office.lab.path("bin").display(), std::env::var("PATH").unwrap());
    let output = run(office.command(&["login", "contoso", "--browser", "--json"]).env("PATH", path), 0);
    let signed_in: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(signed_in["tenant"], "contoso");
    let scopes = signed_in["scopes"].as_array().unwrap();
    assert!(scopes.iter().any(|scope| scope.as_str().unwrap().ends_with("Mail.Read")), "{signed_in}");
    assert!(text(&output.stderr).contains("Sign in here"), "{}", text(&output.stderr));
    assert_eq!(office.json(&["test", "contoso"], 0)["ok"], true);
}

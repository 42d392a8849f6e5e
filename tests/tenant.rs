//! `strongroom tenant` against a simulated organisation: what it may, what it may not, and who is in it.

mod common;

use common::{Lab, fails, run, text, write};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use strongroom_simulator::{Kind, Options, Organisation, Simulator, UserSpec};

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

    /// Writes the configuration: `credential` is a line of the tenant, `sets` comes at the end.
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
    let counts = office.simulator.counters();
    assert_eq!(counts.mails_sent, 0);
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
    // What lists users has nothing to list.
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
            // Its deltas cannot be read, its inbox can.
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

//! `strongroom tenant test`

use super::{interactive, sets_of, takes};
use crate::cli::Session;
use crate::cli::connect::block_on;
use crate::cli::error::{Exit, words_of_service};
use crate::cli::output::{self, line, table};
use crate::settings::{CredentialSettings, Fidelity, Service, SetSettings, TenantSettings};
use crate::source::graph::auth::Claims;
use crate::source::graph::directory::{Organization, User};
use crate::source::graph::probe::{self, Check, Outcome};
use crate::source::graph::{Client, Cloud, GraphError};
use anyhow::Result;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The result of testing a tenant.
struct Report<'a> {
    name: &'a str,
    tenant: &'a TenantSettings,
    organization: Option<Organization>,
    rows: Vec<Row>,
}

/// A line of the report.
struct Row {
    /// What needs it: `directory`, or a service.
    service: &'static str,
    what: &'static str,
    permission: Option<&'static str>,
    is_required: bool,
    status: Status,
    detail: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Works,
    Missing,
    Closed,
    Unproven,
    Failed,
    Unsupported,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Status::Works => "ok",
            Status::Missing => "missing",
            Status::Closed => "closed",
            Status::Unproven => "unproven",
            Status::Failed => "failed",
            Status::Unsupported => "unsupported",
        }
    }
}

impl Row {
    fn is_fine(&self) -> bool {
        !self.is_required || [Status::Works, Status::Unsupported].contains(&self.status)
    }
}

pub fn run(session: &Session, name: &str) -> Result<Exit> {
    let settings = session.settings()?;
    let tenant = settings.tenant(name)?;
    let sets: Vec<_> = sets_of(settings, name).into_iter().map(|(_, set)| set).collect();
    let client = Client::new(interactive(session.connection(tenant)?))?;
    let mut report = Report { name, tenant, organization: None, rows: Vec::new() };
    block_on(report.fill(&client, &sets))?;
    match session.output().json {
        true => session.output().json(&report.json())?,
        false => report.print()?,
    }
    Ok(if report.is_fine() { Exit::Done } else { Exit::Failed })
}

impl Report<'_> {
    async fn fill(&mut self, client: &Client, sets: &[&SetSettings]) {
        let claims = match client.sign_in().await {
            Ok(claims) => claims,
            Err(error) => return self.sign_in(Status::Failed, text_of(&error)),
        };
        self.sign_in(Status::Works, format!("as application {}", self.tenant.client_id));
        let (organization, check) = probe::organization(client).await;
        self.organization = organization;
        self.check("directory", check);
        let (users, check) = probe::users(client, self.is_delegated()).await;
        let users_known = check.is_fine();
        self.check("directory", check);
        let services: BTreeSet<Service> = match sets {
            [] => BTreeSet::from([Service::Mail]),
            sets => sets.iter().flat_map(|set| set.services.iter().copied()).collect(),
        };
        for service in services {
            match service {
                // A mailbox can only be tested if the users are known.
                Service::Mail if users_known => self.mail(client, &users, sets, claims.as_ref()).await,
                Service::Contacts if users_known => self.contacts(client, &users, sets, claims.as_ref()).await,
                Service::Tasks if users_known => self.tasks(client, &users, sets, claims.as_ref()).await,
                Service::Calendar if users_known => self.calendars(client, &users, sets, claims.as_ref()).await,
                Service::Mail | Service::Contacts | Service::Tasks | Service::Calendar => {}
                other => self.rows.push(Row {
                    service: other.name(),
                    what: other.name(),
                    permission: None,
                    is_required: false,
                    status: Status::Unsupported,
                    detail: "this version does not back it up yet".to_owned(),
                }),
            }
        }
    }

    async fn mail(&mut self, client: &Client, users: &[User], sets: &[&SetSettings], claims: Option<&Claims>) {
        let candidates = candidates(users, sets, Service::Mail);
        if candidates.is_empty() {
            let outcome = nobody_selected(users);
            return self.check("mail", Check { what: "mail", permission: probe::MAIL, outcome });
        }
        for check in probe::mail(client, &candidates, claims).await {
            self.check("mail", check);
        }
        self.check("mail", probe::restore(claims));
        if sets.iter().any(|set| set.fidelity == Fidelity::Full) {
            self.check("mail", probe::export(client, &candidates).await);
            self.check("mail", probe::import(claims));
        }
    }

    async fn contacts(&mut self, client: &Client, users: &[User], sets: &[&SetSettings], claims: Option<&Claims>) {
        let candidates = candidates(users, sets, Service::Contacts);
        let check = match candidates.is_empty() {
            true => Check { what: "contacts", permission: probe::CONTACTS, outcome: nobody_selected(users) },
            false => probe::contacts(client, &candidates, claims).await,
        };
        self.check("contacts", check);
    }

    async fn tasks(&mut self, client: &Client, users: &[User], sets: &[&SetSettings], claims: Option<&Claims>) {
        let candidates = candidates(users, sets, Service::Tasks);
        let check = match candidates.is_empty() {
            true => Check { what: "tasks", permission: probe::TASKS, outcome: nobody_selected(users) },
            false => probe::tasks(client, &candidates, claims).await,
        };
        self.check(Service::Tasks.name(), check);
    }

    async fn calendars(&mut self, client: &Client, users: &[User], sets: &[&SetSettings], claims: Option<&Claims>) {
        let candidates = candidates(users, sets, Service::Calendar);
        let check = match candidates.is_empty() {
            true => Check { what: "calendars", permission: probe::CALENDARS, outcome: nobody_selected(users) },
            false => probe::calendars(client, &candidates, claims).await,
        };
        self.check(Service::Calendar.name(), check);
    }

    fn sign_in(&mut self, status: Status, detail: String) {
        let row = Row { service: "directory", what: "sign-in", permission: None, is_required: true, status, detail };
        self.rows.push(row);
    }

    fn check(&mut self, service: &'static str, check: Check) {
        let is_delegated = self.is_delegated();
        let permission = if is_delegated { check.permission.delegated } else { check.permission.application };
        let (status, detail) = match check.outcome {
            Outcome::Works(detail) => (Status::Works, detail),
            Outcome::Missing(detail) => (Status::Missing, detail),
            Outcome::Closed(detail) => (Status::Closed, detail),
            Outcome::Unproven(detail) => (Status::Unproven, detail),
            Outcome::Failed(error) => (Status::Failed, text_of(&error)),
        };
        let (what, is_required) = (check.what, check.permission.is_required);
        self.rows.push(Row { service, what, permission: Some(permission), is_required, status, detail });
    }

    fn is_delegated(&self) -> bool {
        matches!(self.tenant.credential, CredentialSettings::Login)
    }

    fn is_fine(&self) -> bool {
        self.rows.iter().all(Row::is_fine)
    }

    /// Returns the steps that the user has to take, in order. Empty if a backup has everything that it needs.
    fn steps(&self) -> Vec<String> {
        let with = |status| self.rows.iter().filter(move |row| row.status == status && row.is_required);
        let missing: BTreeSet<_> = with(Status::Missing).filter_map(|row| row.permission).collect();
        let mut steps = Vec::new();
        if !missing.is_empty() {
            let missing = Vec::from_iter(missing).join(" and ");
            let kind = if self.is_delegated() { "Delegated permissions" } else { "Application permissions" };
            let organization = self.organization.as_ref().map_or("your organisation", |known| &known.display_name);
            steps.push(format!(
                "in {}, open Microsoft Entra ID > App registrations > All applications, and the application with the \
                 id {}",
                portal(self.tenant.cloud),
                self.tenant.client_id
            ));
            steps.push(format!(
                "API permissions > Add a permission > Microsoft Graph > {kind}: tick {missing}, then Add permissions"
            ));
            steps.push(format!("on the same page: Grant admin consent for {organization} (as an administrator)"));
            steps.push(match self.is_delegated() {
                true => {
                    format!("`strongroom tenant login {}`: a new consent needs a new sign-in", self.name)
                }
                false => "wait a few minutes: only new tokens have a new permission".to_owned(),
            });
        }
        if with(Status::Closed).any(|row| row.service == Service::Tasks.name()) {
            steps.push(
                "this organisation does not let applications read Microsoft To Do: take `tasks` out of `services` of its \
                 sets, or let each person back up their own tasks with `strongroom tenant login`"
                    .to_owned(),
            );
        }
        if with(Status::Closed).any(|row| row.service != Service::Tasks.name()) {
            steps.push(format!(
                "in Exchange Online PowerShell, `Get-ApplicationAccessPolicy | where AppId -eq {}` shows the policy: \
                 add the mailboxes to its group (it may take more than an hour), or remove the policy",
                self.tenant.client_id
            ));
        }
        steps
    }

    fn json(&self) -> Value {
        let check = |row: &Row| {
            json!({
                "service": row.service, "check": row.what, "permission": row.permission, "required": row.is_required,
                "status": row.status.name(), "detail": row.detail,
            })
        };
        let organization = self.organization.as_ref();
        json!({
            "tenant": self.name,
            "ok": self.is_fine(),
            "organisation": organization.map(|known| json!({
                "id": known.id, "name": known.display_name, "domain": known.initial_domain(),
            })),
            "checks": self.rows.iter().map(check).collect::<Vec<_>>(),
            "steps": self.steps(),
        })
    }

    fn print(&self) -> Result<()> {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                let status = match row.is_fine() {
                    true => row.status.name().to_owned(),
                    false => row.status.name().to_uppercase(),
                };
                let needed = if row.is_required { "" } else { "(optional) " };
                let detail = format!("{needed}{}", output::path(row.detail.as_bytes()));
                vec![
                    status,
                    row.service.to_owned(),
                    row.what.to_owned(),
                    row.permission.unwrap_or("-").to_owned(),
                    detail,
                ]
            })
            .collect();
        table(&rows, &[])?;
        let steps = self.steps();
        if !steps.is_empty() {
            line("What to do:")?;
        }
        for (number, step) in steps.iter().enumerate() {
            line(format_args!("{}. {}", number + 1, output::path(step.as_bytes())))?;
        }
        match self.is_fine() {
            true => line(format_args!("{}: ready for a backup", self.name)),
            false => line(format_args!("{}: not ready for a backup", self.name)),
        }
    }
}

/// Returns the users that the sets with this service take. Those who most likely have a mailbox come first.
fn candidates<'u>(users: &'u [User], sets: &[&SetSettings], service: Service) -> Vec<&'u User> {
    let has_service = |set: &&&SetSettings| set.services.contains(&service);
    let of_sets = |user: &&User| sets.is_empty() || sets.iter().filter(has_service).any(|set| takes(set, user));
    let mut candidates: Vec<_> = users.iter().filter(of_sets).collect();
    candidates.sort_by_key(|user| !user.is_licensed());
    candidates
}

fn nobody_selected(users: &[User]) -> Outcome {
    Outcome::Unproven(format!("the sets select none of {} users; look at `include` and `exclude`", users.len()))
}

/// Returns the text of an error, its causes, and the service's own words.
fn text_of(error: &GraphError) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let mut text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    if let Some(words) = words_of_service(error) {
        text.push_str(&format!("; the service says: {words}"));
    }
    text
}

/// Returns the portal where applications are registered (Graph: national cloud deployments).
fn portal(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::Global => "https://portal.azure.com",
        Cloud::UsGov | Cloud::UsGovDod => "https://portal.azure.us",
        Cloud::China => "https://portal.azure.cn",
    }
}

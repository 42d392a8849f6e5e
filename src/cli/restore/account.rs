//! Restores to mailboxes of an organisation.

use super::{Restore, Wanted, group, json_of, list_failures, show};
use crate::backup::tenant::state::TenantState;
use crate::backup::tenant::{OUTLOOK, USERS};
use crate::cli::error::{Exit, UsageError};
use crate::cli::{Session, connect, output, progress, reader};
use crate::restore::{AccountOptions, AccountPlan, AccountSurvey, AccountTarget, Report, RestoreError, printable};
use crate::settings::{Settings, TenantSettings};
use crate::source::graph::{Client, directory};
use anyhow::{Context, Result};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The account that `--to` names.
pub struct Account {
    /// The tenant in the configuration. `None` means the tenant that the snapshot came from.
    tenant: Option<String>,
    target: AccountTarget,
    into: Vec<String>,
}

impl Account {
    /// Parses `to` if it names an account: `original`, or `TENANT:Users/NAME[/Outlook[/FOLDER...]]`.
    pub fn named(to: &str, into: Option<&str>) -> Option<Self> {
        let folders =
            |path: &str| path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let below = into.map(folders).unwrap_or_default();
        if to == "original" {
            return Some(Self { tenant: None, target: AccountTarget::Original, into: below });
        }
        let (tenant, path) = to.split_once(':')?;
        let mut names = folders(path).into_iter();
        let user = (names.next()? == USERS && !tenant.is_empty()).then(|| names.next())??;
        if names.next().is_some_and(|name| name != OUTLOOK) {
            return None;
        }
        let into = names.chain(below).collect();
        Some(Self { tenant: Some(tenant.to_owned()), target: AccountTarget::User(user), into })
    }

    fn shown(&self) -> String {
        match &self.target {
            AccountTarget::Original => "where it came from".to_owned(),
            AccountTarget::User(name) => printable(name.as_bytes()),
        }
    }
}

/// Carries out the restore `command` to `account`.
pub fn run(session: &Session, command: &Restore, account: Account) -> Result<Exit> {
    let repository = session.open()?;
    let wanted = group(&repository, &command.what)?;
    let reader = reader(&repository);
    let cancel = progress::cancel_on_signals()?;
    let journals = session.repository_state(&repository)?.join("restores");
    let locks = crate::outbox::locks(&session.state_dir()?);
    let mut plans = Vec::new();
    for wanted in &wanted {
        let doing = || format!("could not restore from snapshot {}", wanted.name);
        let client = connected(session, &account, wanted, &cancel).with_context(doing)?;
        let options = AccountOptions {
            target: account.target.clone(),
            into: account.into.clone(),
            when_exists: command.when_exists,
            mailboxes_at_once: connect::MAILBOXES_AT_ONCE,
            journals: journals.clone(),
            locks: locks.clone(),
        };
        let snapshot = (wanted.id, &wanted.snapshot);
        let plan = AccountPlan::new(&repository, reader.clone(), client, snapshot, &wanted.paths, options);
        plans.push(plan.with_context(doing)?);
    }
    match command.dry_run {
        true => survey(session, &wanted, &plans, &cancel),
        false => execute(session, &account, &plans, &cancel),
    }
}

/// Connects to the organisation of the target.
fn connected(session: &Session, account: &Account, wanted: &Wanted, cancel: &Arc<AtomicBool>) -> Result<Client> {
    let settings = session.settings()?;
    let state = TenantState::of(&wanted.snapshot);
    let origin = state.as_ref().and_then(|state| state.tenant.as_deref());
    let tenant = match &account.tenant {
        Some(name) => settings.tenant(name)?,
        None => tenant_of(settings, wanted, origin)?,
    };
    if tenant.read_only {
        let text = "the configuration says `read_only = true` for this tenant, so nothing may be restored to it";
        return Err(UsageError::Other(text.to_owned()).into());
    }
    let client = Client::new(session.connection_for_restores(tenant)?)?;
    connect::end_with(cancel, &client);
    // An id of one organisation means nothing in another. But `original` must not even try another organisation.
    if let Some(origin) = origin.filter(|origin| account.tenant.is_none() && tenant.tenant_id != *origin) {
        let organisation = connect::block_on(directory::organization(&client))??;
        if organisation.id != origin {
            let text = "the snapshot is from another organisation; name a mailbox with `--to TENANT:Users/NAME`";
            return Err(UsageError::Other(text.to_owned()).into());
        }
    }
    Ok(client)
}

/// Returns the tenant that the snapshot came from: the tenant of its set, or else the one with its id.
fn tenant_of<'a>(settings: &'a Settings, wanted: &Wanted, origin: Option<&str>) -> Result<&'a TenantSettings> {
    if let Some(set) = settings.sets.get(&wanted.snapshot.set) {
        return Ok(settings.tenant(&set.tenant)?);
    }
    let mut tenants = settings.tenants.values();
    let found = tenants.find(|tenant| origin.is_some_and(|origin| tenant.tenant_id == origin));
    let text = || match origin {
        Some(_) => "the configuration has no tenant for the organisation of this snapshot",
        None => "this snapshot is not from an organisation; name a mailbox with `--to TENANT:Users/NAME`",
    };
    found.ok_or_else(|| UsageError::Other(text().to_owned()).into())
}

fn survey(session: &Session, wanted: &[Wanted], plans: &[AccountPlan], cancel: &Arc<AtomicBool>) -> Result<Exit> {
    let surveys = plans.iter().map(|plan| plan.survey(cancel)).collect::<Result<Vec<_>, RestoreError>>();
    let surveys = surveys.context("could not look for existing items")?;
    let mut report = Report::default();
    surveys.iter().for_each(|survey| report.add(survey.expected()));
    let shown = match session.output().json {
        true => {
            let conflicts = surveys.iter().flat_map(|survey| &survey.survey.conflicts).collect();
            let mut value = json_of(&report, Some(conflicts));
            let loads = plans.iter().flat_map(AccountPlan::loads);
            value["seconds_min"] = loads.map(|load| load.time_min().as_secs()).max().unwrap_or(0).into();
            session.output().json(&value)
        }
        false => show_surveys(wanted, plans, &surveys),
    };
    if report.failed == 0 { shown.map(|()| Exit::Done) } else { Ok(Exit::Partial) }
}

fn show_surveys(wanted: &[Wanted], plans: &[AccountPlan], surveys: &[AccountSurvey]) -> Result<()> {
    for ((wanted, plan), survey) in wanted.iter().zip(plans).zip(surveys) {
        let text = plan.show(survey).to_string();
        output::line(format_args!("From snapshot {}: {}", wanted.name, text.trim_end()))?;
    }
    output::line("Nothing was written.")
}

fn execute(session: &Session, account: &Account, plans: &[AccountPlan], cancel: &Arc<AtomicBool>) -> Result<Exit> {
    let output = session.output();
    for remark in plans.iter().filter_map(AccountPlan::remark) {
        output.remark(remark);
    }
    let mut report = Report::default();
    let clients: Vec<_> = plans.iter().map(AccountPlan::client).cloned().collect();
    let pause = move || clients.iter().find_map(Client::pause);
    let progress = progress::Shown::with_pauses(output, "Restoring", pause);
    for plan in plans {
        report.add(plan.execute(&progress.progress, cancel));
        if report.stopped.is_some() {
            break;
        }
    }
    progress.finish();
    let shown = if output.json { output.json(&json_of(&report, None)) } else { show(&report, &account.shown()) };
    list_failures(&report);
    if report.skipped > 0 {
        let text = "items that were changed since were left as they are; `--when-exists overwrite` or `keep-both` \
                    restores them";
        output.remark(text);
    }
    if let Some(stopped) = report.stopped {
        return Err(stopped).with_context(|| format!("could not restore everything to {}", account.shown()));
    }
    if report.failed == 0 { shown.map(|()| Exit::Done) } else { Ok(Exit::Partial) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_told_apart() {
        let named = |to: &str| Account::named(to, Some("Old/Mail"));
        let account = named("original").expect("an account");
        assert_eq!((account.tenant, account.target, account.into.len()), (None, AccountTarget::Original, 2));
        let account = named("contoso:Users/bob@contoso.com/Outlook/Inbox/").expect("an account");
        assert_eq!(account.target, AccountTarget::User("bob@contoso.com".to_owned()));
        assert_eq!(account.into, ["Inbox", "Old", "Mail"]);
        for no in [
            "contoso",
            "contoso:",
            "contoso:Users",
            ":Users/bob",
            "contoso:Sites/x",
            "contoso:Users/bob/OneDrive",
            "/tmp",
        ] {
            assert!(named(no).is_none(), "{no}");
        }
    }
}

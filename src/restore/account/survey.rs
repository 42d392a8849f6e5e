//! What a restore to accounts would do, counted without doing it: for `--dry-run`, and for the question before the
//! restore begins.

use super::context::Context;
use super::estimate::{self, Load};
use super::existing_items::Counterpart;
use super::planned_items::{PlannedItem, PlannedItems};
use super::route::Part;
use super::run::{Destination, unreadable};
use super::target::Target;
use super::targets::contacts::ContactsTarget;
use super::targets::mail::MailTarget;
use crate::format::entry::Entry;
use crate::restore::{Report, SHOWN_MAX, Survey, WhenExists, chain, printable, show_some};
use crate::source::graph::{ErrorKind, GraphError};
use std::fmt;
use std::sync::Arc;

/// What a restore to accounts has to do.
#[derive(Debug, Clone, Default)]
pub struct AccountSurvey {
    /// The counts. [`Survey::alike`] counts items that exist unchanged.
    pub survey: Survey,
    skipped: u64,
    replaced: u64,
}

/// Looks into a mailbox, and adds what there is to do.
///
/// # Errors
/// See [`GraphError`].
pub(super) async fn survey_mailbox(
    context: &Arc<Context>,
    root: &Entry,
    destination: &Destination,
    survey: &mut AccountSurvey,
) -> Result<(), GraphError> {
    let Destination { user, route } = destination;
    let mail = Arc::new(MailTarget::new(context.client.clone(), &user.id));
    survey_kind(context, root, &route.mail, mail, survey).await?;
    for (part, why) in &*route.refused {
        survey.survey.problem(&part.path, part.size().items, (*why).to_owned());
    }
    let contacts = Arc::new(ContactsTarget::new(context.client.clone(), &user.id));
    match survey_kind(context, root, &route.contacts, contacts, survey).await {
        // The application may be allowed to write mail only.
        Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::MissingPermission) => {
            for part in &*route.contacts {
                survey.survey.problem(&part.path, part.size().items, chain(&error));
            }
            Ok(())
        }
        surveyed => surveyed,
    }
}

/// Looks for the items of one kind, and adds what there is to do.
async fn survey_kind<T: Target>(
    context: &Arc<Context>,
    root: &Entry,
    parts: &Arc<[Part]>,
    target: Arc<T>,
    survey: &mut AccountSurvey,
) -> Result<(), GraphError> {
    if parts.is_empty() {
        return Ok(());
    }
    let mut planned = PlannedItems::new(context.clone(), target, root.clone(), parts.clone(), false).await?;
    while let Some(item) = planned.next().await? {
        match item {
            PlannedItem::Item { entry, path, counterpart, .. } => {
                survey.add::<T>(&entry, &path, &counterpart, context.options.when_exists);
            }
            PlannedItem::Unreadable { path, entries, error } => {
                survey.survey.problem(&path, entries, unreadable(entries, &error));
            }
        }
    }
    survey.survey.new_folders += planned.folders.created;
    Ok(())
}

impl AccountSurvey {
    fn add<T: Target>(&mut self, entry: &Entry, path: &[u8], counterpart: &Counterpart, when_exists: WhenExists) {
        let bytes = entry.size();
        let survey = &mut self.survey;
        survey.items += 1;
        survey.bytes = survey.bytes.saturating_add(bytes);
        if entry.content().is_none() || !T::is_of_this_kind(entry) {
            return survey.problem(path, 1, T::NOT_OF_THIS_KIND.to_owned());
        }
        if matches!(counterpart, Counterpart::None | Counterpart::Restored { complete: false }) {
            survey.new += 1;
            survey.new_bytes = survey.new_bytes.saturating_add(bytes);
            return;
        }
        survey.existing += 1;
        survey.existing_bytes = survey.existing_bytes.saturating_add(bytes);
        if matches!(counterpart, Counterpart::Changed | Counterpart::OtherVersion(_)) {
            match when_exists {
                WhenExists::Skip => self.skipped += 1,
                WhenExists::Overwrite | WhenExists::KeepBoth => self.replaced += 1,
            }
            if survey.conflicts.len() < SHOWN_MAX {
                survey.conflicts.push(path.to_vec());
            }
        } else {
            survey.alike += 1;
            survey.alike_bytes = survey.alike_bytes.saturating_add(bytes);
        }
    }

    /// Returns the report that executing the plan should give.
    pub fn expected(&self) -> Report {
        let survey = &self.survey;
        let differing_bytes = survey.existing_bytes - survey.alike_bytes;
        Report {
            restored: survey.new + self.replaced,
            bytes: survey.new_bytes + if self.replaced > 0 { differing_bytes } else { 0 },
            folders: survey.new_folders,
            already_there: survey.alike,
            skipped: self.skipped,
            failed: survey.impossible,
            failures: survey.problems.clone(),
            remarks: Vec::new(),
            stopped: None,
        }
    }

    /// Shows the survey of a plan in lines, for `--dry-run`.
    pub(super) fn show<'a>(&'a self, loads: &'a [Load], when_exists: WhenExists) -> impl fmt::Display + 'a {
        Shown { survey: self, loads, when_exists }
    }
}

struct Shown<'a> {
    survey: &'a AccountSurvey,
    loads: &'a [Load],
    when_exists: WhenExists,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Survey { items, bytes, existing, alike, impossible, new_folders, .. } = self.survey.survey;
        let names: Vec<_> = self.loads.iter().map(|load| load.mailbox.as_str()).collect();
        let to = match names.as_slice() {
            [] => "nobody".to_owned(),
            [one] => (*one).to_owned(),
            [first, .., last] => format!("{} mailboxes, {first} to {last}", names.len()),
        };
        writeln!(f, "{items} items ({bytes} bytes) to {to}; {new_folders} folders are missing there")?;
        if existing > 0 {
            let fate = match self.when_exists {
                WhenExists::Skip => "stay as they are",
                WhenExists::Overwrite => "are replaced, and deleted",
                WhenExists::KeepBoth => "stay, and get company",
            };
            writeln!(f, "{alike} are there already; {} are there, but changed since, and {fate}", existing - alike)?;
            show_some(f, self.survey.survey.conflicts.iter().map(|path| printable(path)), existing - alike)?;
        }
        if impossible > 0 {
            writeln!(f, "{impossible} cannot be restored:")?;
            let problems = &self.survey.survey.problems;
            let lines = problems
                .iter()
                .map(|failure| format!("{}: {}", printable(&failure.path), printable(failure.error.as_bytes())));
            show_some(f, lines, problems.len() as u64)?;
        }
        let longest = estimate::longest(self.loads).map(Load::time_min).unwrap_or_default();
        match estimate::remark(self.loads) {
            Some(remark) => writeln!(f, "{remark}"),
            None => writeln!(f, "it takes at least {}", estimate::Shown(longest)),
        }
    }
}

//! What a restore to accounts would do, counted without doing it: for `--dry-run` and for the question before it
//! starts.

use super::there::Found;
use super::{AccountPlan, Load, estimate, is_mail};
use crate::format::entry::Entry;
use crate::restore::{Report, SHOWN_MAX, Survey, WhenExists, printable, show_some};
use std::fmt;

/// What a restore to accounts has before it.
#[derive(Debug, Clone, Default)]
pub struct AccountSurvey {
    /// The counts; [`Survey::alike`] are those that stand there as they were.
    pub survey: Survey,
    skipped: u64,
    replaced: u64,
}

impl AccountSurvey {
    pub(super) fn add(&mut self, entry: &Entry, path: &[u8], found: &Found, when_exists: WhenExists) {
        let bytes = entry.size();
        let survey = &mut self.survey;
        survey.items += 1;
        survey.bytes = survey.bytes.saturating_add(bytes);
        if entry.content().is_none() || !is_mail(entry) {
            return survey.problem(path, 1, "it is no mail".to_owned());
        }
        if matches!(found, Found::Nothing | Found::Restored { complete: false }) {
            survey.new += 1;
            survey.new_bytes = survey.new_bytes.saturating_add(bytes);
            return;
        }
        survey.existing += 1;
        survey.existing_bytes = survey.existing_bytes.saturating_add(bytes);
        if matches!(found, Found::Changed | Found::OtherVersion(_)) {
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

    /// Returns the report that carrying the plan out should give.
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

    /// Shows the survey of `plan` in lines, for `--dry-run`.
    pub fn show<'a>(&'a self, plan: &'a AccountPlan) -> impl fmt::Display + 'a {
        Shown { survey: self, plan }
    }
}

struct Shown<'a> {
    survey: &'a AccountSurvey,
    plan: &'a AccountPlan,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Survey { items, bytes, existing, alike, impossible, new_folders, .. } = self.survey.survey;
        let names: Vec<_> = self.plan.loads.iter().map(|load| load.mailbox.as_str()).collect();
        let to = match names.as_slice() {
            [] => "nobody".to_owned(),
            [one] => (*one).to_owned(),
            [first, .., last] => format!("{} mailboxes, {first} to {last}", names.len()),
        };
        writeln!(f, "{items} items ({bytes} bytes) to {to}; {new_folders} folders are missing there")?;
        if existing > 0 {
            let fate = match self.plan.context.options.when_exists {
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
        let longest = estimate::longest(&self.plan.loads).map(Load::time_min).unwrap_or_default();
        match self.plan.remark() {
            Some(remark) => writeln!(f, "{remark}"),
            None => writeln!(f, "it takes at least {}", estimate::Shown(longest)),
        }
    }
}

//! From what was done in the folders to the mailbox's tree and ledger.

use super::{MASS_LOSS_ITEMS_MIN, Making, Outcome, Stop};
use crate::backup::BackupError;
use crate::backup::tenant::content;
use crate::backup::tenant::edits::Edits;
use crate::backup::tenant::items::{Mail, Work};
use crate::backup::tenant::previous::{ItemKey, Previous};
use crate::backup::tenant::rounds::Listed;
use crate::backup::tenant::state::{FolderState, Ledger};
use crate::backup::tenant::{Context, OUTLOOK, REPORT_NAME, USERS, carry_ledger};
use crate::format::entry::{Content, Directory, Entry, EntryKind, Timestamp};
use crate::format::snapshot::Failure;
use crate::repository::store::StoreError;
use crate::repository::tree;
use crate::runtime::blocking;
use crate::shown;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

impl Making<'_> {
    /// Builds the trees of the folders, children before their parents, and closes the ledger.
    pub(super) async fn assemble(
        &mut self,
        mail: Arc<Mail>,
        rounds: &HashMap<usize, Listed>,
        gone: &HashMap<usize, u64>,
        outcome: &mut Outcome,
    ) -> Result<Directory, Stop> {
        let mail = Arc::into_inner(mail).expect("all batches have ended");
        let Mail { previous, works, .. } = mail;
        let items_before = self.before.map_or(0, |before| before.ledger().enumerated) as usize;
        let mut children: HashMap<Option<String>, Vec<Entry>> = HashMap::new();
        let mut works: HashMap<usize, Work> = works.into_values().map(|work| (work.index, work)).collect();
        for index in (0..self.state.folders.len()).rev() {
            let folder = &self.state.folders[index];
            let below = children.remove(&Some(folder.id.clone())).unwrap_or_default();
            let stands = folder.selected && !self.gone.contains(&index);
            if !stands && below.is_empty() {
                self.left_out.insert(folder.id.clone());
                continue;
            }
            if !stands {
                // Only a way to what lies below.
                let folder = &mut self.state.folders[index];
                (folder.link, folder.ledger, folder.error) = (None, Ledger::default(), None);
                folder.failed.clear();
            }
            let folder = &self.state.folders[index];
            let work = works.remove(&index);
            let base = previous.folder(&folder.id).copied().filter(|_| stands);
            let had = self.had(base.as_ref(), Some(&folder.id))?;
            let done = work.map(|work| work.done.into_inner());
            let mut edits = match done.as_ref() {
                Some(_) => None,
                None => Some(Edits::new(self.context.area())),
            };
            let (mut ledger, mut failed_unnamed) = (None, 0);
            if let Some(done) = done {
                match rounds.contains_key(&index) {
                    true => ledger = Some((done.stored, done.failed_but_there, done.vanished)),
                    // It stands as it was, but for what is elsewhere now.
                    false => {
                        let ledger = &mut self.state.folders[index].ledger;
                        ledger.carried += std::mem::take(&mut ledger.stored);
                        ledger.carried = ledger.carried.saturating_sub(done.moved_out);
                        ledger.enumerated = ledger.enumerated.saturating_sub(done.moved_out);
                    }
                }
                if done.reconstructed > 0 {
                    let what =
                        format!("{} messages in {} were built from their parts", done.reconstructed, self.path(index));
                    outcome.warnings.push(what);
                }
                if rounds.contains_key(&index) {
                    let folder = &mut self.state.folders[index];
                    folder.streams = self.exports.is_some();
                    folder.ledger.streamless = if folder.streams { done.streamless } else { 0 };
                    folder.failed = done.failed;
                    failed_unnamed = done.failed_unnamed;
                }
                edits = Some(done.edits);
            }
            let edits = edits.expect("made in either case");
            let report = self.report(index, failed_unnamed, outcome).await?;
            let dir = apply(self.context, edits, base, had, below, report).await?;
            let folder = &self.state.folders[index];
            let before = base.as_ref();
            let entry = self.entry_of(&folder.name, dir, before, &folder.id)?;
            children
                .entry(folder.parent.clone().filter(|p| self.state.folders.iter().any(|f| f.id == *p)))
                .or_default()
                .push(entry);
            if let Some((stored, failed_but_there, vanished)) = ledger {
                let in_tree = dir.sums.entries - dir.sums.dirs - u64::from(self.has_report(index));
                self.close_ledger(index, &rounds[&index], &previous, gone.get(&index).copied().unwrap_or(0), vanished);
                let folder = &mut self.state.folders[index];
                let ledger = &mut folder.ledger;
                if rounds[&index].full && ledger.enumerated < ledger.counted {
                    let (counted, enumerated) = (ledger.counted, ledger.enumerated);
                    let known = self.before.is_some_and(|before| {
                        before.folders.iter().any(|old| old.id == folder.id && old.ledger.counted == counted)
                    });
                    if !known {
                        let path = format!("{USERS}/{}/{OUTLOOK}: {}", self.state.name, folder.display);
                        outcome
                            .warnings
                            .push(format!("{path}: the service counts {counted} items, and listed {enumerated}"));
                    }
                    if enumerated == 0 {
                        folder.link = None;
                    }
                }
                ledger.stored = stored;
                ledger.failed = folder.failed.len() as u64 + failed_unnamed;
                if failed_unnamed > 0 {
                    folder.link = None;
                    // Those that are as they were, but not as they should be, are found by this alone.
                    (folder.compared, folder.compared_to) = (0, None);
                }
                ledger.carried = in_tree.saturating_sub(stored + failed_but_there);
                if !ledger.adds_up() {
                    // A fault of ours or of the service's: say so, and look at everything again next time.
                    let Ledger { enumerated, stored, carried, failed, .. } = *ledger;
                    let error = format!(
                        "{enumerated} messages were told of, but {stored} stored, {carried} carried over, {failed} failed"
                    );
                    outcome.failures.push(Failure { path: self.path(index).into_bytes(), error });
                    self.state.folders[index].link = None;
                    self.state.folders[index].ledger.enumerated = stored + carried + failed;
                }
            } else {
                carry_ledger(&mut self.state.folders[index]);
            }
        }
        let tops = children.remove(&None).unwrap_or_default();
        let had = self.had(self.base.as_ref(), None)?;
        let edits = Edits::new(self.context.area());
        let root = apply(self.context, edits, self.base, had, tops, None).await?;
        let items_now = self.state.ledger().enumerated as usize;
        if items_before >= MASS_LOSS_ITEMS_MIN && items_now < items_before / 2 {
            let name = &self.state.name;
            outcome.warnings.push(format!(
                "{name} has lost most of its messages: {items_before} before, {items_now} now; the snapshots before still have them"
            ));
        }
        Ok(root)
    }

    pub(super) fn path(&self, index: usize) -> String {
        format!("{USERS}/{}/{OUTLOOK}/{}", self.state.name, self.state.path(index))
    }

    fn has_report(&self, index: usize) -> bool {
        !self.state.folders[index].failed.is_empty() || self.state.folders[index].error.is_some()
    }

    /// Returns the names of folders, and of the report, that stood in a folder.
    fn had(&self, base: Option<&Directory>, id: Option<&str>) -> Result<Vec<Entry>, BackupError> {
        let (Some(base), Some(before)) = (base, self.before) else { return Ok(Vec::new()) };
        let is_child = |folder: &&FolderState| match (folder.parent.as_deref(), id) {
            (Some(parent), Some(id)) => parent == id,
            (parent, None) => parent.is_none_or(|parent| !before.folders.iter().any(|f| f.id == parent)),
            (None, Some(_)) => false,
        };
        let names = before.folders.iter().filter(is_child).map(|folder| folder.name.as_str());
        let mut had = Vec::new();
        for name in names.chain([REPORT_NAME]) {
            let found = tree::find(&*self.context.reader, base, name.as_bytes())?;
            had.extend(found.map(|found| found.entry().clone()));
        }
        Ok(had)
    }

    fn entry_of(&self, name: &str, dir: Directory, before: Option<&Directory>, id: &str) -> Result<Entry, BackupError> {
        // A folder that is as it was keeps its time, wherever it stands now.
        let old = match (before, self.before, &self.base) {
            (Some(_), Some(before), Some(base)) => {
                let index = before.folders.iter().position(|folder| folder.id == id);
                match index {
                    Some(index) => tree::find_path(&*self.context.reader, base, before.path(index).as_bytes())?,
                    None => None,
                }
            }
            _ => None,
        };
        let mut entry = self.context.folder_entry(name, dir, old.as_ref().map(|old| old.entry()));
        entry.facts.source_id = Some(id.to_owned());
        Ok(entry)
    }

    fn close_ledger(&mut self, index: usize, listed: &Listed, previous: &Previous, gone: u64, vanished: u64) {
        let folder = &mut self.state.folders[index];
        if listed.full {
            folder.ledger.enumerated = (listed.rows.len() as u64).saturating_sub(vanished);
            return;
        }
        let here = |item: &ItemKey| previous.place(*item).is_some_and(|place| previous.folder_of(place) == folder.id);
        let failed_before = self.before.and_then(|before| before.folders.iter().find(|old| old.id == folder.id));
        let failed_before: HashSet<ItemKey> =
            failed_before.into_iter().flat_map(|old| &old.failed).map(|failed| ItemKey::of(&failed.id)).collect();
        let is_new = |item: &&ItemKey| !here(item) && !failed_before.contains(item);
        let new = listed.rows.keys().filter(is_new).count() as u64;
        let never_read = |item: &&ItemKey| failed_before.contains(item) && !here(item);
        let given_up = listed.left.keys().filter(never_read).count() as u64;
        folder.ledger.enumerated = (folder.ledger.enumerated + new).saturating_sub(gone + given_up + vanished);
    }

    /// Says in the folder itself what is missing there.
    async fn report(&self, index: usize, failed_unnamed: u64, outcome: &mut Outcome) -> Result<Option<Entry>, Stop> {
        if !self.has_report(index) {
            return Ok(None);
        }
        let folder = &self.state.folders[index];
        let path = self.path(index);
        let mut text = String::from("What could not be backed up here, as of the run that made this snapshot.\r\n");
        text += "It is tried again by every run; what an earlier run had read stands as it was then.\r\n\r\n";
        if let Some(error) = &folder.error {
            outcome.failures.push(Failure { path: path.clone().into_bytes(), error: error.clone() });
            text += &format!("The folder as a whole: {}\r\n", shown::name(error.as_bytes()));
        }
        for failed in &folder.failed {
            let path = format!("{path}/{}", failed.name).into_bytes();
            outcome.failures.push(Failure { path, error: failed.reason.clone() });
            let (name, reason) = (shown::name(failed.name.as_bytes()), shown::name(failed.reason.as_bytes()));
            text += &format!("{name}: {reason}\r\n");
        }
        if failed_unnamed > 0 {
            outcome.failed_unnamed += failed_unnamed;
            text += &format!("and {failed_unnamed} more messages\r\n");
        }
        let content: Content =
            content::with_splitter(self.context, move |splitter| splitter.split_payload(text.as_bytes())).await?;
        let mtime = Timestamp { secs: self.context.started.secs, nanos: 0 };
        Ok(Some(Entry::new(REPORT_NAME.as_bytes(), EntryKind::File(content), mtime)))
    }
}

/// Applies what changes in a folder: messages, then the folders in it and the report.
async fn apply(
    context: &Arc<Context>,
    mut edits: Edits,
    base: Option<Directory>,
    had: Vec<Entry>,
    below: Vec<Entry>,
    report: Option<Entry>,
) -> Result<Directory, StoreError> {
    let context = context.clone();
    blocking(move || {
        let store = &context.store;
        for old in &had {
            if below.iter().chain(&report).all(|now| now.name != old.name) {
                edits.remove(&old.name, store)?;
            }
        }
        for now in below.into_iter().chain(report) {
            // A report that says the same keeps its time.
            let same = |old: &&Entry| {
                old.name == now.name && old.kind == now.kind && (now.directory().is_none() || old.facts == now.facts)
            };
            if had.iter().find(same).is_none() {
                edits.put(now, store)?;
            }
        }
        match base {
            Some(base) if edits.is_empty() => Ok(base),
            base => edits.apply(base.as_ref(), &context),
        }
    })
    .await
}

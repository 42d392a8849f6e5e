//! From what was done in the folders to the collection's tree and ledger.

use super::edits::Edits;
use super::item::ItemKey;
use super::listed::{Departed, Listed, Rounds};
use super::plan::Plan;
use super::previous::Previous;
use super::state::{CollectionState, FolderState, Ledger, path_of, sum_of};
use super::store::{Done, Stock};
use super::{Amendments, Collection, Report};
use crate::backup::BackupError;
use crate::backup::context::{Context, Ended, REPORT_NAME};
use crate::format::entry::{Content, Directory, Entry, EntryKind, Timestamp};
use crate::format::snapshot::Failure;
use crate::repository::store::StoreError;
use crate::repository::tree;
use crate::runtime::blocking;
use crate::shown;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Losing half of at least so many items is worth a warning.
const MASS_LOSS_ITEMS_MIN: usize = 50;

/// A collection as it stands in the snapshot.
pub struct Assembled {
    /// Its tree.
    pub dir: Directory,
    /// What the next run needs to know of it.
    pub state: CollectionState,
}

/// The counts of a folder that had a complete round, after its items were stored.
struct Counts {
    stored: u64,
    failed: u64,
    /// Those of them that are not kept by name.
    failed_unnamed: u64,
    failed_but_there: u64,
    vanished: u64,
    /// Items in the new tree.
    in_tree: u64,
}

/// What stood in a folder, and what comes into it beside its items.
struct Surroundings {
    /// Its directory in the snapshot before.
    base: Option<Directory>,
    /// The folders, and the report, that stood in it.
    had: Vec<Entry>,
    /// The folders, and the report, that stand in it now.
    now: Vec<Entry>,
}

/// What the tree is made from.
struct Assembling<'a, C: Collection> {
    context: &'a Arc<Context>,
    collection: &'a C,
    plan: Plan<'a>,
    rounds: Rounds<C::Item>,
    departed: Departed,
    previous: Previous,
    amendments: Amendments,
    report: &'a mut Report,
}

/// Builds the trees of the folders, children before their parents, and closes the ledger.
///
/// # Errors
/// What ends the work on the mailbox, or the run.
pub async fn assemble<C: Collection>(
    context: &Arc<Context>,
    plan: Plan<'_>,
    rounds: Rounds<C::Item>,
    departed: Departed,
    (collection, stock): (&C, Stock<C>),
    report: &mut Report,
) -> Result<Assembled, Ended> {
    let Stock { previous, works, amendments, .. } = stock;
    let mut done: HashMap<usize, Done> = works.into_values().map(|work| (work.index, work.done.into_inner())).collect();
    let mut assembling = Assembling { context, collection, plan, rounds, departed, previous, amendments, report };
    let mut children: HashMap<Option<String>, Vec<Entry>> = HashMap::new();
    let mut left_out: HashSet<String> = HashSet::new();
    for index in (0..assembling.plan.folders.len()).rev() {
        let folder = &assembling.plan.folders[index];
        let below = children.remove(&Some(folder.id.clone())).unwrap_or_default();
        if !assembling.stands(index) && below.is_empty() {
            left_out.insert(folder.id.clone());
            continue;
        }
        let parent = folder.parent.clone().filter(|parent| assembling.plan.number(parent).is_some());
        let entry = assembling.folder(index, done.remove(&index), below).await?;
        children.entry(parent).or_default().push(entry);
    }
    let tops = children.remove(&None).unwrap_or_default();
    let base = assembling.plan.standing.base;
    let around = Surroundings { base, had: assembling.had(base.as_ref(), None)?, now: tops };
    let dir = apply(context, Edits::new(context.area()), around).await?;
    assembling.warn_of_mass_loss();
    let Plan { mut folders, link, .. } = assembling.plan;
    folders.retain(|folder| !left_out.contains(&folder.id));
    let state = CollectionState { hidden: context.options.hidden_folders, folder_link: link, folders };
    Ok(Assembled { dir, state })
}

impl<C: Collection> Assembling<'_, C> {
    /// Returns whether the items of a folder belong to the snapshot.
    fn stands(&self, index: usize) -> bool {
        self.plan.folders[index].selected && !self.rounds.gone.contains(&index)
    }

    /// Returns whether a folder has a complete round.
    fn is_told_of(&self, index: usize) -> bool {
        self.rounds.complete.contains_key(&index)
    }

    /// Makes the entry of a folder, and closes its ledger.
    async fn folder(&mut self, index: usize, done: Option<Done>, below: Vec<Entry>) -> Result<Entry, Ended> {
        let stands = self.stands(index);
        self.begin_state(index, stands);
        let id = self.plan.folders[index].id.clone();
        let base = self.previous.folder(&id).copied().filter(|_| stands);
        let had = self.had(base.as_ref(), Some(&id))?;
        let (edits, mut counts) = match done {
            Some(done) => self.close_work(index, done),
            None => (Edits::new(self.context.area()), None),
        };
        let failed_unnamed = counts.as_ref().map_or(0, |counts| counts.failed_unnamed);
        let report = self.write_report(index, failed_unnamed).await?;
        let now = below.into_iter().chain(report).collect();
        let dir = apply(self.context, edits, Surroundings { base, had, now }).await?;
        let entry = self.entry_of(index, dir, base.is_some())?;
        match &mut counts {
            Some(counts) => {
                counts.in_tree = dir.sums.entries - dir.sums.dirs - u64::from(self.has_report(index));
                self.close_ledger(index, counts);
            }
            None => self.plan.folders[index].carry(),
        }
        Ok(entry)
    }

    /// Brings into the state of a folder what its round told.
    fn begin_state(&mut self, index: usize, stands: bool) {
        let folder = &mut self.plan.folders[index];
        if !stands {
            // Only a way to what lies below.
            (folder.link, folder.ledger, folder.error) = (None, Ledger::default(), None);
            folder.failed.clear();
            return;
        }
        if self.rounds.listed_anew.contains(&index) {
            folder.link = None;
        }
        if let Some(error) = self.rounds.failed.remove(&index) {
            folder.error = Some(error);
        }
        if let Some(listed) = self.rounds.complete.get(&index) {
            folder.link.clone_from(&listed.link);
            folder.error = None;
            if listed.full {
                folder.listed = self.context.started.secs;
            }
        }
        if let Some(examined) = self.amendments.examined.remove(&index) {
            (folder.compared, folder.compared_to) = (examined.compared, examined.compared_to);
        }
    }

    /// Takes what was done in a folder: what changes in its tree, and the counts if it had a complete round.
    fn close_work(&mut self, index: usize, done: Done) -> (Edits, Option<Counts>) {
        if done.reconstructed > 0 {
            let (count, path) = (done.reconstructed, self.plan.path(index));
            self.report.warnings.push(format!("{count} {} in {path} were built from their parts", C::ITEMS));
        }
        let is_told_of = self.is_told_of(index);
        let folder = &mut self.plan.folders[index];
        if !is_told_of {
            // It stays as it was, without the items that are in another folder now.
            folder.carry();
            let ledger = &mut folder.ledger;
            ledger.carried = ledger.carried.saturating_sub(done.moved_out);
            ledger.enumerated = ledger.enumerated.saturating_sub(done.moved_out);
            return (done.edits, None);
        }
        let counts = Counts {
            stored: done.stored,
            failed: done.failed.len() as u64 + done.failed_unnamed,
            failed_unnamed: done.failed_unnamed,
            failed_but_there: done.failed_but_there,
            vanished: done.vanished,
            in_tree: 0,
        };
        folder.failed = done.failed;
        folder.ledger.streamless = done.lacking;
        self.collection.close(folder, done.failed_unnamed == 0);
        (done.edits, Some(counts))
    }

    fn has_report(&self, index: usize) -> bool {
        !self.plan.folders[index].failed.is_empty() || self.plan.folders[index].error.is_some()
    }

    /// Returns the folders, and the report, that stood in a folder; without an id, in the collection itself.
    fn had(&self, base: Option<&Directory>, id: Option<&str>) -> Result<Vec<Entry>, BackupError> {
        let Some(base) = base else { return Ok(Vec::new()) };
        let before = self.plan.folders_before();
        if before.is_empty() {
            return Ok(Vec::new());
        }
        let is_child = |folder: &&FolderState| match (folder.parent.as_deref(), id) {
            (Some(parent), Some(id)) => parent == id,
            (parent, None) => parent.is_none_or(|parent| !before.iter().any(|folder| folder.id == parent)),
            (None, Some(_)) => false,
        };
        let names = before.iter().filter(is_child).map(|folder| folder.name.as_str());
        let mut had = Vec::new();
        for name in names.chain([REPORT_NAME]) {
            let found = tree::find(&*self.context.reader, base, name.as_bytes())?;
            had.extend(found.map(|found| found.entry().clone()));
        }
        Ok(had)
    }

    /// Makes the entry of a folder. One that is as it was keeps its time, wherever it stands now.
    fn entry_of(&self, index: usize, dir: Directory, stood: bool) -> Result<Entry, BackupError> {
        let folder = &self.plan.folders[index];
        let before = self.plan.folders_before();
        let number = before.iter().position(|old| old.id == folder.id).filter(|_| stood);
        let old = match (number, &self.plan.standing.base) {
            (Some(number), Some(base)) => {
                tree::find_path(&*self.context.reader, base, path_of(before, number).as_bytes())?
            }
            _ => None,
        };
        let mut entry = self.context.folder_entry(&folder.name, dir, old.as_ref().map(|old| old.entry()));
        entry.facts.source_id = Some(folder.id.clone());
        Ok(entry)
    }

    /// Closes the ledger of a folder that had a complete round.
    fn close_ledger(&mut self, index: usize, counts: &Counts) {
        let listed = &self.rounds.complete[&index];
        let folder = &self.plan.folders[index];
        let enumerated = match listed.full {
            true => (listed.rows.len() as u64).saturating_sub(counts.vanished),
            false => self.enumerated_now(folder, index, listed, counts.vanished),
        };
        let is_short = listed.full && enumerated < folder.ledger.counted;
        if is_short {
            self.warn_of_short_listing(index, enumerated);
        }
        let folder = &mut self.plan.folders[index];
        let Counts { stored, failed, failed_unnamed, failed_but_there, in_tree, .. } = *counts;
        if (is_short && enumerated == 0) || failed_unnamed > 0 {
            folder.link = None;
        }
        let carried = in_tree.saturating_sub(stored + failed_but_there);
        folder.ledger = Ledger { enumerated, stored, failed, carried, ..folder.ledger };
        if !folder.ledger.adds_up() {
            // A fault of ours or of the service's: say so, and look at everything again next time.
            folder.link = None;
            folder.ledger.enumerated = stored + carried + failed;
            let error = format!(
                "{enumerated} {} were told of, but {stored} stored, {carried} carried over, {failed} failed",
                C::ITEMS
            );
            self.report.failures.push(Failure { path: self.plan.path(index).into_bytes(), error });
        }
    }

    /// Returns how many items a folder has after a round of changes.
    fn enumerated_now(&self, folder: &FolderState, index: usize, listed: &Listed<C::Item>, vanished: u64) -> u64 {
        let place = |item: &ItemKey| self.previous.place(*item);
        let here = |item: &ItemKey| place(item).is_some_and(|place| self.previous.folder_of(place) == folder.id);
        let failed_before: HashSet<ItemKey> = self
            .plan
            .folder_before(&folder.id)
            .into_iter()
            .flat_map(|old| &old.failed)
            .map(|failed| ItemKey::of(&failed.id))
            .collect();
        let is_new = |item: &&ItemKey| !here(item) && !failed_before.contains(item);
        let new = listed.rows.keys().filter(is_new).count() as u64;
        let never_read = |item: &&ItemKey| failed_before.contains(item) && !here(item);
        let given_up = listed.left.keys().filter(never_read).count() as u64;
        let gone = self.departed.get(&index).map_or(0, |names| names.len() as u64);
        (folder.ledger.enumerated + new).saturating_sub(gone + given_up + vanished)
    }

    /// Says that a listing told of fewer items than the service counts, unless that was so before.
    fn warn_of_short_listing(&mut self, index: usize, enumerated: u64) {
        let folder = &self.plan.folders[index];
        let counted = folder.ledger.counted;
        if self.plan.folder_before(&folder.id).is_some_and(|old| old.ledger.counted == counted) {
            return;
        }
        let path = format!("{}: {}", self.plan.standing.path, folder.display);
        let warning = format!("{path}: the service counts {counted} items, and listed {enumerated}");
        self.report.warnings.push(warning);
    }

    fn warn_of_mass_loss(&mut self) {
        let before = sum_of(self.plan.folders_before()).enumerated as usize;
        let now = sum_of(&self.plan.folders).enumerated as usize;
        if before >= MASS_LOSS_ITEMS_MIN && now < before / 2 {
            let (name, items) = (self.plan.standing.owner.name, C::ITEMS);
            self.report.warnings.push(format!(
                "{name} has lost most of its {items}: {before} before, {now} now; the snapshots before still have them"
            ));
        }
    }

    /// Says in the folder itself what is missing there.
    async fn write_report(&mut self, index: usize, failed_unnamed: u64) -> Result<Option<Entry>, Ended> {
        if !self.has_report(index) {
            return Ok(None);
        }
        let folder = &self.plan.folders[index];
        let path = self.plan.path(index);
        let mut text = String::from("What could not be backed up here, as of the run that made this snapshot.\r\n");
        text += "It is tried again by every run; what an earlier run had read stands as it was then.\r\n\r\n";
        if let Some(error) = &folder.error {
            self.report.failures.push(Failure { path: path.clone().into_bytes(), error: error.clone() });
            text += &format!("The folder as a whole: {}\r\n", shown::name(error.as_bytes()));
        }
        for failed in &folder.failed {
            let path = format!("{path}/{}", failed.name).into_bytes();
            self.report.failures.push(Failure { path, error: failed.reason.clone() });
            let (name, reason) = (shown::name(failed.name.as_bytes()), shown::name(failed.reason.as_bytes()));
            text += &format!("{name}: {reason}\r\n");
        }
        if failed_unnamed > 0 {
            self.report.failed_unnamed += failed_unnamed;
            text += &format!("and {failed_unnamed} more {}\r\n", C::ITEMS);
        }
        let splitters = &self.context.splitters;
        let content: Content = splitters.run(move |splitter| splitter.split_payload(text.as_bytes())).await?;
        let mtime = Timestamp { secs: self.context.started.secs, nanos: 0 };
        Ok(Some(Entry::new(REPORT_NAME.as_bytes(), EntryKind::File(content), mtime)))
    }
}

/// Applies what changes in a folder: items, then the folders in it and the report.
async fn apply(context: &Arc<Context>, mut edits: Edits, around: Surroundings) -> Result<Directory, StoreError> {
    let context = context.clone();
    blocking(move || {
        let store = &context.store;
        let Surroundings { base, had, now } = around;
        for old in &had {
            if now.iter().all(|now| now.name != old.name) {
                edits.remove(&old.name, store)?;
            }
        }
        for now in now {
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

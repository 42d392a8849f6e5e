//! Makes the trees of a collection's folders from what was done in them, and closes the ledger.

use super::edits::Edits;
use super::item::ItemKey;
use super::listed::{Departed, Listed, Rounds};
use super::plan::Plan;
use super::previous::Previous;
use super::state::{CollectionState, FolderState, Ledger, path_of, sum_of, tops_of};
use super::store::{Done, Stock};
use super::{Amendments, Collection, Report};
use crate::backup::BackupError;
use crate::backup::context::{Context, Ended, REPORT_NAME};
use crate::format::entry::{Content, Directory, Entry, EntryKind, Timestamp};
use crate::format::snapshot::Failure;
use crate::repository::read_error::ReadError;
use crate::repository::store::StoreError;
use crate::repository::tree;
use crate::runtime::blocking;
use crate::shown;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Minimum number of items of which a loss of half causes a warning. In smaller collections people delete half easily.
const MASS_LOSS_ITEMS_MIN: usize = 50;

/// A collection as it stands in the new snapshot.
pub struct Assembled {
    /// Its top folders.
    pub tops: Tops,
    /// Its state for the next run.
    pub state: CollectionState,
}

/// The top folders of a collection. They lie in a directory where other collections may have theirs, too.
#[derive(Default)]
pub struct Tops {
    /// The entries in the previous snapshot.
    pub had: Vec<Entry>,
    /// The entries in the new snapshot.
    pub now: Vec<Entry>,
}

impl Tops {
    /// Returns the top folders of a collection that stays as the previous snapshot has it: `state` describes it, and
    /// `base` is the directory that it lies in.
    ///
    /// # Errors
    /// If the previous snapshot cannot be read.
    pub fn kept(context: &Context, base: &Directory, state: &CollectionState) -> Result<Self, ReadError> {
        let had = find_all(context, base, tops_of(&state.folders))?;
        Ok(Self { now: had.clone(), had })
    }
}

/// Makes the directory that holds the top folders of several collections. `base` is that directory in the previous
/// snapshot. What belongs to none of the collections stays in it.
///
/// # Errors
/// If nodes cannot be read or stored.
pub async fn join(context: &Arc<Context>, base: Option<Directory>, all: Vec<Tops>) -> Result<Directory, StoreError> {
    let mut around = Surroundings { base, had: Vec::new(), now: Vec::new() };
    for Tops { had, now } in all {
        around.had.extend(had);
        around.now.extend(now);
    }
    apply(context, Edits::new(context.area()), around).await
}

/// The counts of a folder that had a complete round, after its items were stored.
struct Counts {
    stored: u64,
    failed: u64,
    /// The number of failed items that the state does not name.
    failed_unnamed: u64,
    /// The number of failed items of which an older version is in the snapshot.
    failed_but_there: u64,
    vanished: u64,
    /// The number of items in the new tree.
    in_tree: u64,
}

/// What stood in a folder, and what comes into it beside its items.
struct Surroundings {
    /// The directory of the folder in the previous snapshot.
    base: Option<Directory>,
    /// The folders and the report that lay in it.
    had: Vec<Entry>,
    /// The folders and the report that lie in it now.
    now: Vec<Entry>,
}

/// What the trees are made from.
pub struct Assembling<'a, C: Collection> {
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
/// Errors that end the work on the collection, or the run.
pub async fn assemble<C: Collection>(mut assembling: Assembling<'_, C>, stock: Stock<C>) -> Result<Assembled, Ended> {
    let Stock { previous, works, amendments, .. } = stock;
    (assembling.previous, assembling.amendments) = (previous, amendments);
    let mut done: HashMap<usize, Done> = works.into_values().map(|work| (work.index, work.done.into_inner())).collect();
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
    let now = children.remove(&None).unwrap_or_default();
    let tops = Tops { had: assembling.tops_before()?, now };
    assembling.warn_of_mass_loss();
    let hidden = assembling.context.options.hidden_folders;
    let Plan { mut folders, link, .. } = assembling.plan;
    folders.retain(|folder| !left_out.contains(&folder.id));
    Ok(Assembled { tops, state: CollectionState { hidden, folder_link: link, folders } })
}

/// Returns those of the entries with these names that a directory has.
fn find_all<'n>(
    context: &Context,
    base: &Directory,
    names: impl Iterator<Item = &'n str>,
) -> Result<Vec<Entry>, ReadError> {
    let mut all = Vec::new();
    for name in names {
        let found = tree::find(&*context.reader, base, name.as_bytes())?;
        all.extend(found.map(|found| found.entry().clone()));
    }
    Ok(all)
}

impl<'a, C: Collection> Assembling<'a, C> {
    /// Collects what the steps before returned.
    pub fn new(
        context: &'a Arc<Context>,
        collection: &'a C,
        plan: Plan<'a>,
        rounds: Rounds<C::Item>,
        departed: Departed,
        report: &'a mut Report,
    ) -> Self {
        let (previous, amendments) = Default::default();
        Self { context, collection, plan, rounds, departed, previous, amendments, report }
    }

    /// Returns true if the items of a folder belong to the snapshot.
    fn stands(&self, index: usize) -> bool {
        self.plan.folders[index].selected && !self.rounds.gone.contains(&index)
    }

    /// Returns true if a folder has a complete round.
    fn has_round(&self, index: usize) -> bool {
        self.rounds.complete.contains_key(&index)
    }

    /// Makes the entry of a folder, and closes its ledger.
    async fn folder(&mut self, index: usize, done: Option<Done>, below: Vec<Entry>) -> Result<Entry, Ended> {
        let stands = self.stands(index);
        self.begin_state(index, stands);
        let id = self.plan.folders[index].id.clone();
        let base = self.previous.folder(&id).copied().filter(|_| stands);
        let had = self.had(base.as_ref(), &id)?;
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

    /// Brings what the round of a folder reported into the state of the folder.
    fn begin_state(&mut self, index: usize, stands: bool) {
        let folder = &mut self.plan.folders[index];
        if !stands {
            // The folder only leads to the folders in it.
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

    /// Returns what changes in the tree of a folder, and its counts if it had a complete round.
    fn close_work(&mut self, index: usize, done: Done) -> (Edits, Option<Counts>) {
        if done.reconstructed > 0 {
            let (count, path) = (done.reconstructed, self.plan.path(index));
            self.report.warnings.push(format!("{count} {} in {path} were built from their parts", C::ITEMS));
        }
        let has_round = self.has_round(index);
        let folder = &mut self.plan.folders[index];
        if !has_round {
            // The folder stays as it was, without the items that are in another folder now.
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

    /// Returns the entries that the top folders had in the previous snapshot.
    fn tops_before(&self) -> Result<Vec<Entry>, BackupError> {
        let Some(base) = &self.plan.standing.base else { return Ok(Vec::new()) };
        Ok(find_all(self.context, base, tops_of(self.plan.folders_before()))?)
    }

    /// Returns the folders and the report that lay in the folder with the id `id` in the previous snapshot.
    fn had(&self, base: Option<&Directory>, id: &str) -> Result<Vec<Entry>, BackupError> {
        let Some(base) = base else { return Ok(Vec::new()) };
        let children = self.plan.folders_before().iter().filter(|folder| folder.parent.as_deref() == Some(id));
        let names = children.map(|folder| folder.name.as_str()).chain([REPORT_NAME]);
        Ok(find_all(self.context, base, names)?)
    }

    /// Makes the entry of a folder. An unchanged folder keeps its time, wherever it lies now.
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
            // This is a fault of this program or of the service. The next run looks at everything again.
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

    /// Warns that a listing had fewer items than the service counts, unless the previous run warned of the same count.
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

    /// Makes the file that says in the folder itself what is missing there.
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

/// Makes the directory of a folder: applies the changes of its items, then those of the folders in it and the report.
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
            // A report with the same text keeps its time.
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

//! Restores the files of the queue, in the background.

use super::cards::{self, PlacedCard};
use super::contents::SnapshotPath;
use super::journal::{Dropped, Fate};
use super::live::{ORIGINAL, TargetFolder};
use super::queue::{self, Item};
use super::{OutboxState, Target};
use crate::backup::tenant::state::TenantState;
use crate::content::mail::{HEADER_BYTES_MAX, arrival};
use crate::format::entry::{Entry, EntryKind, Timestamp};
use crate::format::id::SnapshotId;
use crate::format::snapshot::Snapshot;
use crate::repository::tree;
use crate::restore::{ItemOutcome, Origin, ReadRange, Refused, SingleItem, chain};
use crate::runtime::{blocking, guarded_async};
use crate::source::graph::{ErrorKind, directory};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use strongroom_mount::OutboxError;
use tokio::task::JoinSet;

/// Maximum number of files that are restored at a time. The restorer limits how many of them are in one mailbox.
const AT_ONCE: usize = 32;
/// Time between two checks whether a job has ended or somebody asked to commit.
const TICK: Duration = Duration::from_millis(500);
/// The first wait before a file is tried again. The wait doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);
/// How many times a file is tried whose error may or may not pass.
const DOUBTFUL_MAX: u32 = 3;
const RETRY_MAX: Duration = Duration::from_secs(300);

/// The reason if no snapshot holds the file.
const UNKNOWN_ORIGIN: &str =
    "no snapshot holds a mail with these bytes; drop it into the folder of an account to restore it as a new mail";
const SEVERAL_ORIGINS: &str =
    "snapshots of several mailboxes hold it; drop it below its account: original/Users/NAME/Outlook/FOLDER";

const NO_TENANT: &str = "the configuration has no tenant for the organisation that its snapshot came from";

/// Works until the outbox is stopped.
pub async fn run(outbox: Arc<OutboxState>) {
    let waiting = outbox.clone();
    let known = tokio::task::spawn_blocking(move || waiting.contents.wait());
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // A file whose content is in a snapshot is restored from there. So nothing is restored before the contents of the
    // snapshots are known.
    tokio::pin!(known);
    loop {
        tokio::select! {
            _ = &mut known => break,
            _ = tick.tick() => outbox.tick(),
        }
    }
    let mut running = JoinSet::new();
    while !outbox.cancel.load(Ordering::Relaxed) {
        while running.len() < AT_ONCE
            && let Some(item) = outbox.take()
        {
            running.spawn(settle(outbox.clone(), item));
        }
        tokio::select! {
            () = outbox.wake.notified() => {}
            Some(_) = running.join_next() => {}
            _ = tick.tick() => outbox.tick(),
        }
    }
    while running.join_next().await.is_some() {}
}

impl OutboxState {
    fn take(&self) -> Option<Item> {
        self.queue.lock().take()
    }

    fn tick(&self) {
        self.take_request();
        self.try_sign_in();
        self.targets.iter().for_each(|target| target.restorer.rest());
        let ended = self.remove_done().and_then(|()| self.queue.lock().end_job());
        match ended {
            // Users may change the mailboxes before the next job, so the restorers forget what they know of them.
            Ok(true) => self.targets.iter().for_each(|target| target.restorer.forget()),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the journal of the outbox could not be written"),
        }
    }

    /// Removes the staged bytes of restored files, after their state is durable. Earlier, a power cut could leave a
    /// file that is to be restored and has no bytes.
    pub(super) fn remove_done(&self) -> io::Result<()> {
        let done = std::mem::take(&mut *self.done.lock());
        if done.is_empty() {
            return Ok(());
        }
        self.queue.lock().sync()?;
        done.into_iter().for_each(|id| self.staging.remove(id));
        Ok(())
    }

    /// Returns where a file in `original/` came from, if that is certain.
    ///
    /// # Errors
    /// [`Refused::ForGood`] if no snapshot has its content, or several accounts have it.
    pub(super) fn origin(&self, content: &blake3::Hash, path: &[u8]) -> Result<SnapshotPath, Refused> {
        let places = self.places(content, path)?;
        let several = places.iter().any(|place| place.account() != places[0].account());
        match places.into_iter().next() {
            None => Err(Refused::ForGood(UNKNOWN_ORIGIN.to_owned())),
            Some(_) if several => Err(Refused::ForGood(SEVERAL_ORIGINS.to_owned())),
            Some(place) => Ok(place),
        }
    }

    /// Returns the places that hold a content. If none is known, snapshots that were made since are searched first:
    /// otherwise the item would be restored without what its snapshot knows of it, such as its flags.
    fn places(&self, content: &blake3::Hash, path: &[u8]) -> Result<Vec<SnapshotPath>, Refused> {
        let find = || self.contents.find(content, path).map_err(|error| Refused::Doubtful(chain(&error)));
        let places = find()?;
        if !places.is_empty() && self.contents.is_complete() {
            return Ok(places);
        }
        self.catch_up()?;
        find()
    }

    fn catch_up(&self) -> Result<(), Refused> {
        let caught_up = self.contents.catch_up(&self.repository, &self.reader, &self.cancel);
        // The file waits, because restoring it without the snapshots could be wrong.
        caught_up.map_err(|error| Refused::ForNow(format!("the snapshots cannot be looked through: {}", chain(&error))))
    }

    /// Reads the item of a snapshot at the place that `find` returns. Returns `None` if `find` returns none.
    fn item_of(
        &self,
        find: impl Fn() -> Result<Option<SnapshotPath>, Refused>,
    ) -> Result<Option<SnapshotItem>, Refused> {
        let Some(place) = find()? else { return Ok(None) };
        match self.stored(place) {
            Err(Refused::ForGood(_)) => {
                // Its snapshot may have been forgotten. After catching up, `find` may return the same item in another
                // snapshot.
                self.catch_up()?;
                find()?.map(|place| self.stored(place)).transpose()
            }
            stored => stored.map(Some),
        }
    }

    /// Reads the item at `place`.
    fn stored(&self, place: SnapshotPath) -> Result<SnapshotItem, Refused> {
        let snapshot = self.snapshot(place.snapshot)?;
        let found = tree::find_path(&*self.reader, snapshot.1.directory(), &place.path);
        let found = found.map_err(|error| unless_damaged(error.is_damage(), &error))?;
        let found = found.ok_or_else(|| Refused::ForGood("it is not in its snapshot any more".to_owned()))?;
        Ok(SnapshotItem { entry: found.entry().clone(), snapshot, place })
    }

    fn snapshot(&self, id: SnapshotId) -> Result<Arc<(SnapshotId, Snapshot)>, Refused> {
        let mut last = self.last_snapshot.lock();
        if let Some(snapshot) = last.as_ref().filter(|snapshot| snapshot.0 == id) {
            return Ok(snapshot.clone());
        }
        let loaded = self.repository.load_snapshot(id);
        let snapshot = loaded.map_err(|error| unless_damaged(error.is_damage(), &error))?;
        Ok(last.insert(Arc::new((id, snapshot))).clone())
    }

    /// Returns the targets whose organisation is that of the snapshot. Open targets come before closed ones, and then
    /// the tenant of the snapshot's set.
    async fn targets_of(&self, snapshot: &Snapshot) -> Result<Vec<Arc<Target>>, Refused> {
        let state = TenantState::of(snapshot);
        let Some(origin) = state.and_then(|state| state.tenant) else { return Ok(Vec::new()) };
        let (mut ours, mut unknown) = (Vec::new(), None);
        for target in &self.targets {
            let is_ours = match target.organisation().await {
                _ if target.tenant_id == origin => true,
                Ok(organisation) => organisation == origin,
                Err(error) => {
                    unknown = Some(error);
                    false
                }
            };
            ours.extend(is_ours.then(|| target.clone()));
        }
        if let Some(error) = unknown.filter(|_| ours.is_empty()) {
            return Err(error.into());
        }
        let of_set = self.options.sets.get(&snapshot.set);
        ours.sort_by_key(|target| (target.closed.is_some(), Some(&target.name) != of_set));
        Ok(ours)
    }

    /// Returns the items in a dropped file.
    fn parts_of(&self, dropped: &Dropped) -> Result<Vec<Part>, Refused> {
        let failed = |error: io::Error| Refused::Doubtful(chain(&error));
        let file = self.staging.reopen(dropped.id, dropped.len).map_err(failed)?;
        let (_, name) = queue::split(&dropped.path);
        let hash = blake3::Hash::from(dropped.content);
        if !cards::holds_contacts(&file, name).map_err(failed)? {
            return Ok(vec![Part { hash, card: None }]);
        }
        let cards = cards::placed(&file, |bytes| self.identifier.split_made(bytes)).map_err(failed)?;
        Ok(cards.into_iter().map(|card| Part { hash: card.content.identity(), card: Some(card) }).collect())
    }

    /// Returns the item of a dropped file that is in no snapshot.
    fn import(&self, dropped: &Dropped, part: &Part) -> Result<SingleItem, Refused> {
        let mtime = Timestamp { secs: dropped.mtime.secs, nanos: dropped.mtime.nanos };
        let (_, name) = queue::split(&dropped.path);
        let (staging, id, len) = (self.staging.clone(), dropped.id, dropped.len);
        if let Some(PlacedCard { range: card, content }) = &part.card {
            let entry = Entry::new(name, EntryKind::File(content.clone()), mtime);
            let card = card.clone();
            let bytes: ReadRange = Arc::new(move |range| {
                let start = card.start.saturating_add(range.start).min(card.end);
                staging.reopen(id, len)?.read(start as u64, range.len().min(card.end - start))
            });
            return Ok(SingleItem { entry, bytes: Some(bytes), owner: None });
        }
        let failed = |error: io::Error| Refused::Doubtful(chain(&error));
        let file = self.staging.reopen(dropped.id, dropped.len).map_err(failed)?;
        let split = self.identifier.split(&file).map_err(failed)?;
        if split.content.identity().as_bytes() != &dropped.content {
            return Err(Refused::ForGood("the dropped file is damaged on this machine's disk".to_owned()));
        }
        let mut entry = Entry::new(name, EntryKind::File(split.content), mtime);
        entry.facts = split.facts;
        // The date identifies the item: it tells whether the mailbox has it already, as for an item of a snapshot.
        entry.facts.date = arrival(&file.read(0, HEADER_BYTES_MAX).map_err(failed)?);
        let bytes: ReadRange = Arc::new(move |range| staging.reopen(id, len)?.read(range.start as u64, range.len()));
        Ok(SingleItem { entry, bytes: Some(bytes), owner: None })
    }
}

/// Tries to restore a file, and notes its new state.
async fn settle(outbox: Arc<OutboxState>, item: Item) {
    let id = item.dropped.id;
    let brought = guarded_async(bring(outbox.clone(), item.dropped)).await;
    let brought = brought.unwrap_or_else(|fault| Err(Refused::ForGood(fault.to_string())));
    match (&brought, outbox.trial_reason(id)) {
        (Err(Refused::SignIn(reason)), _) => return outbox.wait_for_sign_in(id, reason.clone()),
        // This error says nothing about the sign-in, so the next file is tried.
        (Err(Refused::ForNow(_)), Some(reason)) => return outbox.wait_for_sign_in(id, reason),
        (Err(Refused::Cancelled), _) => return outbox.queue.lock().pause(id),
        _ => outbox.signed_in(id),
    }
    let fate = match brought {
        Ok(ItemOutcome::Restored) => Fate::Done(String::new()),
        Ok(ItemOutcome::AlreadyThere) => Fate::Done("it was there already".to_owned()),
        Ok(ItemOutcome::Skipped) => Fate::Done("it is there, was changed since, and was left as it is".to_owned()),
        Err(Refused::ForGood(reason) | Refused::Denied(reason)) => Fate::Failed(reason),
        Err(Refused::Doubtful(reason)) if item.attempts >= DOUBTFUL_MAX => Fate::Failed(reason),
        Err(refused) => {
            tracing::info!(?refused, "a dropped file is tried again later");
            outbox.queue.lock().pause(id);
            let later = outbox.clone();
            tokio::spawn(async move {
                tokio::time::sleep(wait_after(item.attempts)).await;
                later.queue.lock().again(id);
                later.wake.notify_one();
            });
            return;
        }
    };
    let is_done = matches!(fate, Fate::Done(_));
    if let Err(error) = outbox.queue.lock().settle(id, fate) {
        tracing::warn!(%error, "the state of a dropped file could not be noted; it is tried again");
    } else if is_done {
        outbox.done.lock().push(id);
    }
    outbox.settled.notify_all();
}

/// Returns how long a file waits after this number of attempts.
fn wait_after(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(RETRY_MAX.as_secs().ilog2() + 1);
    RETRY_MAX.min(RETRY_MIN * 2u32.pow(doublings))
}

/// Returns what an error of the repository means for a file: damage stays, any other error may pass.
fn unless_damaged(is_damage: bool, error: &(dyn std::error::Error + 'static)) -> Refused {
    let reason = chain(error);
    if is_damage { Refused::ForGood(reason) } else { Refused::ForNow(reason) }
}

/// An item of a snapshot.
struct SnapshotItem {
    snapshot: Arc<(SnapshotId, Snapshot)>,
    place: SnapshotPath,
    entry: Entry,
}

/// What a part of a dropped file is.
enum DroppedItem {
    /// An item of a snapshot.
    In(SnapshotItem),
    /// An item that is in no snapshot.
    Nowhere(SingleItem),
}

/// An item in a dropped file.
struct Part {
    /// The hash of its content.
    hash: blake3::Hash,
    /// Where it stands, if it is a contact. A mail is the whole file.
    card: Option<PlacedCard>,
}

/// Restores every item in a dropped file. However often this is called, each exists once.
async fn bring(outbox: Arc<OutboxState>, dropped: Dropped) -> Result<ItemOutcome, Refused> {
    let parts = blocking({
        let (outbox, dropped) = (outbox.clone(), dropped.clone());
        move || outbox.parts_of(&dropped)
    });
    let parts = parts.await?;
    let all = parts.len();
    let (mut outcomes, mut refused, mut failed) = (Vec::new(), None, 0);
    for part in parts {
        match bring_part(&outbox, &dropped, part).await {
            Ok(outcome) => outcomes.push(outcome),
            // One contact that the service does not take keeps none of the others from coming.
            Err(error @ (Refused::ForGood(_) | Refused::Doubtful(_))) if all > 1 => {
                failed += 1;
                refused = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    let of_all = |reason| format!("{failed} of the {all} contacts in it failed; the last one because: {reason}");
    match refused {
        Some(Refused::ForGood(reason)) => return Err(Refused::ForGood(of_all(reason))),
        Some(Refused::Doubtful(reason)) => return Err(Refused::Doubtful(of_all(reason))),
        _ => {}
    }
    let any = |outcome| outcomes.contains(&outcome).then_some(outcome);
    Ok(any(ItemOutcome::Restored).or(any(ItemOutcome::Skipped)).unwrap_or(ItemOutcome::AlreadyThere))
}

async fn bring_part(outbox: &Arc<OutboxState>, dropped: &Dropped, part: Part) -> Result<ItemOutcome, Refused> {
    let this = outbox.clone();
    let (content, path) = (part.hash, dropped.path.clone());
    if path.split(|byte| *byte == b'/').next() == Some(ORIGINAL.as_bytes()) {
        let found = blocking(move || this.item_of(|| this.origin(&content, &path).map(Some)));
        let SnapshotItem { snapshot, place, entry } = found.await?.expect("without a place there is an error");
        let mut item = SingleItem { entry, bytes: None, owner: None };
        let mut last = Err(Refused::ForGood(NO_TENANT.to_owned()));
        // An organisation may have two applications, one that may read and one that may write. So every target is tried
        // until one is not denied.
        for target in outbox.targets_of(&snapshot.1).await? {
            last = of_this_application(&target, bring_home(&target, &snapshot, &place, &mut item).await).await;
            if !matches!(last, Err(Refused::Denied(_))) {
                break;
            }
        }
        return last;
    }
    let (folder, _) = queue::split(&dropped.path);
    let (target, to) = live(outbox, folder).await?;
    let (folder, file) = (folder.to_vec(), dropped.clone());
    let found = blocking(move || match this.item_of(|| Ok(this.places(&content, &path)?.into_iter().next()))? {
        Some(stored) => Ok(DroppedItem::In(stored)),
        None => this.import(&file, &part).map(DroppedItem::Nowhere),
    });
    let item = match found.await? {
        DroppedItem::Nowhere(item) => item,
        DroppedItem::In(SnapshotItem { snapshot, place, entry }) => {
            let owner = target.restorer.owner(&snapshot, &place.path).await;
            SingleItem { entry, bytes: None, owner }
        }
    };
    let brought = of_this_application(&target, target.restorer.restore(&to, &item).await).await;
    if let Err(Refused::Denied(reason)) = &brought {
        // The next file that is dropped there is refused at once.
        outbox.denied.lock().insert(folder, (Instant::now(), reason.clone()));
    }
    brought
}

/// Finds out whether a refused sign-in concerns the whole application. One mailbox may refuse a token that all others
/// accept.
async fn of_this_application(target: &Target, brought: Result<ItemOutcome, Refused>) -> Result<ItemOutcome, Refused> {
    match brought {
        Err(Refused::SignIn(reason)) => Err(signed_out(target).await.unwrap_or(Refused::Doubtful(reason))),
        brought => brought,
    }
}

/// Returns the error if the service answers nothing at all to this application.
async fn signed_out(target: &Target) -> Option<Refused> {
    let error = directory::users_exist(&target.client).await.err()?;
    let is_silent = matches!(
        error.kind(),
        ErrorKind::SignIn | ErrorKind::Throttled | ErrorKind::Unavailable | ErrorKind::Cancelled
    );
    is_silent.then(|| error.into())
}

/// Restores an item to where it came from.
async fn bring_home(
    target: &Target,
    snapshot: &Arc<(SnapshotId, Snapshot)>,
    place: &SnapshotPath,
    item: &mut SingleItem,
) -> Result<ItemOutcome, Refused> {
    if let Some(reason) = &target.closed {
        return Err(Refused::Denied(reason.clone()));
    }
    let origin = target.restorer.origin(snapshot, &place.path).await?;
    item.owner = Some(origin.user.clone());
    target.restorer.restore(&origin, item).await
}

/// Returns the target and the mailbox folder at `path`.
async fn live(outbox: &OutboxState, path: &[u8]) -> Result<(Arc<Target>, Origin), Refused> {
    let gone = || Refused::ForGood("its folder is gone".to_owned());
    let path = std::str::from_utf8(path).map_err(|_| gone())?;
    let names: Vec<&str> = path.split('/').collect();
    let (target, below) = names.split_first().ok_or_else(gone)?;
    let target = outbox
        .target(target)
        .ok_or_else(|| Refused::ForGood("the configuration has no such tenant any more".to_owned()))?;
    if let Some(reason) = &target.closed {
        return Err(Refused::ForGood(reason.clone()));
    }
    match target.find(below).await {
        Ok(TargetFolder::Folder(user, folder)) => {
            let id = target.id_of(&user, &folder).await?.ok_or_else(gone)?;
            Ok((target.clone(), Origin { user, folder: id, kind: folder.kind }))
        }
        Ok(_) | Err(OutboxError::NotFound) => Err(gone()),
        Err(OutboxError::Unreachable { reason }) => Err(Refused::ForNow(reason)),
        // The mount also gets an expired sign-in as a refusal, so it is told apart here.
        Err(OutboxError::Denied { reason }) => Err(signed_out(target).await.unwrap_or(Refused::ForGood(reason))),
        Err(error) => Err(Refused::ForGood(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_again_ever_more_seldom_but_every_five_minutes_at_least() {
        let waits: Vec<u64> = (1..=12).map(|attempts| wait_after(attempts).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(wait_after(u32::MAX).as_secs(), 300);
    }
}

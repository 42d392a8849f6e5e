//! Which folders a mailbox has now, what they are called in the snapshot, and which of them belong to it.

use super::is_wanted;
use crate::backup::collection::folder_names::FolderNames;
use crate::backup::collection::plan::{Planned, Standing};
use crate::backup::collection::state::{CollectionState, FolderState, Ledger, parent_of, path_of};
use crate::backup::context::{Context, ends_the_run};
use crate::content::names::mail_folder_name;
use crate::source::graph::mail::{Mailbox, RECOVERABLE_ITEMS, WELL_KNOWN};
use crate::source::graph::model::MailFolder;
use crate::source::graph::{ErrorKind, GraphError};
use std::collections::{HashMap, HashSet};

/// Finds out which folders there are, what they are called in the snapshot, and which of them belong to it.
///
/// # Errors
/// See [`GraphError`].
pub async fn plan(context: &Context, mailbox: &Mailbox, standing: &Standing<'_>) -> Result<Planned, GraphError> {
    let is_wanted = |folder: &MailFolder| is_wanted(context, folder);
    let known = standing.folders_before();
    let Tops { root, folders: tops } = tops(context, mailbox, known).await?;
    // What was left out before is not told of by changes.
    let continued = standing.before.filter(|before| before.hidden == context.options.hidden_folders);
    let Listing { folders: mut listed, link } = match told_by_changes(mailbox, &tops, continued).await? {
        Some(told) => told,
        None => list_all(mailbox, tops.clone(), is_wanted).await?,
    };
    listed.retain(is_wanted);
    let gone = keep_what_is_still_there(mailbox, known, &root, is_wanted, &mut listed).await?;
    let well_known = well_known(mailbox, &tops, known).await?;
    let tops: HashSet<&str> = tops.iter().map(|top| top.id.as_str()).collect();
    let mut folders = in_order(&tops, root.as_ref(), &listed);
    if known.iter().any(|old| !gone.contains(&old.id) && folders.iter().all(|folder| folder.id != old.id)) {
        // Somewhere a parent is missing, or two are each other's.
        return Err(GraphError::malformed("listing mail folders"));
    }
    for folder in &mut folders {
        folder.well_known = well_known.get(&folder.id).map(|name| (*name).to_owned());
        if let Some(old) = known.iter().find(|old| old.id == folder.id) {
            *folder = FolderState {
                parent: folder.parent.take(),
                display: std::mem::take(&mut folder.display),
                children: folder.children,
                well_known: folder.well_known.take(),
                ledger: Ledger { counted: folder.ledger.counted, ..old.ledger },
                ..old.clone()
            };
        }
    }
    let names = FolderNames::new(known, &standing.taken);
    names.name(&mut folders, |folder| mail_folder_name(&folder.display));
    select(context, &standing.path, &mut folders);
    Ok(Planned { folders, link, root })
}

/// The folders at the top of a mailbox.
struct Tops {
    /// The id of what they lie in.
    root: Option<String>,
    /// Those that belong to the backup.
    folders: Vec<MailFolder>,
}

/// The folders of a mailbox, as a listing or changes told of them.
struct Listing {
    folders: Vec<MailFolder>,
    /// Where to ask for changes, if that can be relied on.
    link: Option<String>,
}

async fn tops(context: &Context, mailbox: &Mailbox, known: &[FolderState]) -> Result<Tops, GraphError> {
    let mut tops = mailbox.top_folders().await?;
    if tops.is_empty() {
        // Every mailbox has folders.
        return Err(GraphError::malformed("listing mail folders"));
    }
    let root = tops[0].parent_folder_id.clone();
    tops.retain(|folder| is_wanted(context, folder));
    if context.options.recoverable_items {
        // It lies beside what people see, and is asked for once.
        let is_it = |folder: &&FolderState| folder.well_known.as_deref() == Some(RECOVERABLE_ITEMS);
        match known.iter().find(is_it) {
            Some(before) => tops.push(as_listed(before)),
            None => tops.extend(mailbox.folder(RECOVERABLE_ITEMS).await?),
        }
    }
    Ok(Tops { root, folders: tops })
}

/// Returns which folders have well-known names: id -> name. It is asked for only where a folder at the top is new.
async fn well_known(
    mailbox: &Mailbox,
    tops: &[MailFolder],
    known: &[FolderState],
) -> Result<HashMap<String, &'static str>, GraphError> {
    let is_new = |top: &MailFolder| known.iter().all(|folder| folder.id != top.id);
    if tops.iter().any(is_new) {
        mailbox.well_known().await
    } else {
        Ok(known.iter().filter_map(well_known_before).collect())
    }
}

fn well_known_before(folder: &FolderState) -> Option<(String, &'static str)> {
    let known = folder.well_known.as_deref()?;
    WELL_KNOWN.iter().find(|(name, _)| *name == known).map(|(name, _)| (folder.id.clone(), *name))
}

/// Applies what the service tells of changes to the folders before; `None` when that does not agree with what it lists.
async fn told_by_changes(
    mailbox: &Mailbox,
    tops: &[MailFolder],
    before: Option<&CollectionState>,
) -> Result<Option<Listing>, GraphError> {
    let known = before.and_then(|before| Some((before, before.folder_link.as_deref()?)));
    let Some((before, link)) = known.filter(|(_, link)| mailbox.may_follow(link)) else {
        return Ok(None);
    };
    let changes = match mailbox.folder_changes(Some(link)).await {
        Ok(changes) => changes,
        // The link is too old, or makes no sense to the service or to us. A listing needs none.
        Err(error) if is_of_the_link(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(mut changed) = Changed::apply(&before.folders, changes.rows) else { return Ok(None) };
    Ok(changed
        .agrees_with(tops)
        .then(|| Listing { folders: changed.folders.into_values().collect(), link: changes.link }))
}

/// The folders before, with changes applied.
struct Changed {
    folders: HashMap<String, MailFolder>,
    /// Folders that changes told of, or whose number of children they changed.
    touched: HashSet<String>,
}

impl Changed {
    /// Applies changes; `None` if one of them tells not all of a folder.
    fn apply(before: &[FolderState], rows: Vec<MailFolder>) -> Option<Self> {
        let mut folders: HashMap<String, MailFolder> =
            before.iter().map(|folder| (folder.id.clone(), as_listed(folder))).collect();
        let mut touched = HashSet::new();
        for row in rows {
            if row.removed.is_none() && (row.display_name.is_none() || row.parent_folder_id.is_none()) {
                // It tells only what changed.
                return None;
            }
            touched.insert(row.id.clone());
            touched.extend(row.parent_folder_id.clone());
            if row.removed.is_some() {
                // Its parent has one child fewer now.
                touched.extend(folders.remove(&row.id).and_then(|folder| folder.parent_folder_id));
            } else {
                touched.extend(folders.get(&row.id).and_then(|folder| folder.parent_folder_id.clone()));
                folders.insert(row.id.clone(), row);
            }
        }
        Some(Self { folders, touched })
    }

    /// Brings in the folders at the top as they were listed, and returns whether everything fits together.
    fn agrees_with(&mut self, tops: &[MailFolder]) -> bool {
        let Self { folders, touched } = self;
        for top in tops {
            let lies_in_it = |folder: &&MailFolder| folder.parent_folder_id.as_ref() == Some(&top.id);
            let agrees = match folders.get(&top.id) {
                Some(folder) => folder.child_folder_count == top.child_folder_count || touched.contains(&top.id),
                // It came since, and what lies in it, if anything, has been told of.
                None => folders.values().filter(lies_in_it).count() as u64 == top.child_folder_count,
            };
            if !agrees {
                return false;
            }
            folders.insert(top.id.clone(), top.clone());
        }
        let is_listed = |folder: &MailFolder| tops.iter().any(|top| top.id == folder.id);
        // One that was at the top is listed there, or has told where it went.
        if folders.values().any(|folder| folder.parent_folder_id.is_none() && !is_listed(folder)) {
            return false;
        }
        let root = tops.first().and_then(|top| top.parent_folder_id.as_ref());
        let is_orphaned = |folder: &MailFolder| {
            let parent = folder.parent_folder_id.as_ref().filter(|parent| Some(*parent) != root);
            parent.is_some_and(|parent| !folders.contains_key(parent)) && !is_listed(folder)
        };
        !folders.values().any(is_orphaned)
    }
}

/// Returns whether asking for changes failed for a reason that another link, or none, does not have.
fn is_of_the_link(error: &GraphError) -> bool {
    use ErrorKind::{BadRequest, DeltaUnsupported, Malformed, NotFound, Resync, TooLarge};
    matches!(error.kind(), BadRequest | DeltaUnsupported | Malformed | NotFound | Resync | TooLarge)
}

fn as_listed(folder: &FolderState) -> MailFolder {
    MailFolder {
        id: folder.id.clone(),
        display_name: Some(folder.display.clone()),
        parent_folder_id: folder.parent.clone(),
        child_folder_count: folder.children,
        total_item_count: Some(folder.ledger.counted),
        is_hidden: false,
        odata_type: None,
        removed: None,
    }
}

/// Lists every folder, level by level, and learns where to ask for changes, if that can be relied on: whether the
/// service tells of nested folders there is not documented, so it must have told of every one that was listed.
async fn list_all(
    mailbox: &Mailbox,
    tops: Vec<MailFolder>,
    is_wanted: impl Fn(&MailFolder) -> bool,
) -> Result<Listing, GraphError> {
    let folders = mailbox.folders_below(tops).await?;
    let changes = match mailbox.folder_changes(None).await {
        Ok(changes) => changes,
        Err(error) if ends_the_run(&error) || error.is_transient() => return Err(error),
        // Then they are listed each time.
        Err(_) => return Ok(Listing { folders, link: None }),
    };
    let told: HashSet<&str> = changes.rows.iter().map(|row| row.id.as_str()).collect();
    let all = folders.iter().filter(|folder| is_wanted(folder)).all(|folder| told.contains(folder.id.as_str()));
    Ok(Listing { folders, link: changes.link.filter(|_| all) })
}

/// Asks for every folder that was there before and is not listed now: a listing that was cut short takes nothing away.
///
/// Returns the ids of those that are not there, or do not belong to what is backed up any more.
async fn keep_what_is_still_there(
    mailbox: &Mailbox,
    known: &[FolderState],
    root: &Option<String>,
    is_wanted: impl Fn(&MailFolder) -> bool,
    listed: &mut Vec<MailFolder>,
) -> Result<HashSet<String>, GraphError> {
    let mut gone = HashSet::new();
    for folder in known {
        if listed.iter().any(|now| now.id == folder.id) {
            continue;
        }
        let found = mailbox.folder(&folder.id).await?;
        let placed = |found: &MailFolder| {
            found.parent_folder_id == *root || listed.iter().any(|now| Some(&now.id) == found.parent_folder_id.as_ref())
        };
        match found.filter(|found| is_wanted(found) && placed(found)) {
            Some(found) => listed.push(found),
            // What lies in it is asked for by itself, after it.
            None => _ = gone.insert(folder.id.clone()),
        }
    }
    Ok(gone)
}

/// Brings parents before their children; what hangs from nothing that is listed is left out.
fn in_order(tops: &HashSet<&str>, root: Option<&String>, listed: &[MailFolder]) -> Vec<FolderState> {
    let ids: HashSet<&str> = listed.iter().map(|folder| folder.id.as_str()).collect();
    let mut below: HashMap<Option<&str>, Vec<&MailFolder>> = HashMap::new();
    for folder in listed {
        let parent = folder.parent_folder_id.as_deref().filter(|parent| ids.contains(parent) && *parent != folder.id);
        let is_top = tops.contains(folder.id.as_str()) || folder.parent_folder_id.as_ref() == root;
        if parent.is_some() || is_top {
            below.entry(parent.filter(|_| !tops.contains(folder.id.as_str()))).or_default().push(folder);
        }
    }
    let mut ordered: Vec<FolderState> = Vec::new();
    let mut parents = vec![None];
    while let Some(parent) = parents.pop() {
        let mut children = below.remove(&parent).unwrap_or_default();
        children.sort_by(|a, b| (&a.display_name, &a.id).cmp(&(&b.display_name, &b.id)));
        for child in children {
            ordered.push(FolderState {
                id: child.id.clone(),
                parent: parent.map(str::to_owned),
                display: child.display_name.clone().unwrap_or_default(),
                children: child.child_folder_count,
                ledger: Ledger { counted: child.total_item_count.unwrap_or(0), ..Default::default() },
                ..FolderState::default()
            });
            parents.push(Some(&child.id));
        }
    }
    ordered
}

/// Decides which folders belong to the snapshot.
fn select(context: &Context, root: &str, folders: &mut [FolderState]) {
    for index in 0..folders.len() {
        let path = format!("{root}/{}", path_of(folders, index));
        let other = format!("{root}/{}", well_known_path(folders, index));
        let selected = context.options.selection.selects_either(&path, &other);
        let folder = &mut folders[index];
        if !(selected && folder.selected) {
            // What is not in the snapshot before cannot be continued from there.
            folder.link = None;
            folder.failed.clear();
            folder.error = None;
            folder.ledger = Ledger { counted: folder.ledger.counted, ..Default::default() };
        }
        folder.selected = selected;
    }
}

/// Returns the path of a folder as an English mailbox calls it, so that patterns mean the same in every language.
fn well_known_path(folders: &[FolderState], index: usize) -> String {
    let folder = &folders[index];
    let own = folder.well_known.as_deref().and_then(|known| WELL_KNOWN.iter().find(|(name, _)| *name == known));
    let own = own.map_or(folder.name.as_str(), |(_, english)| english);
    match parent_of(folders, index) {
        Some(parent) => format!("{}/{own}", well_known_path(folders, parent)),
        None => own.to_owned(),
    }
}

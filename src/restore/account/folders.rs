//! The folders of the mailbox that is restored to: found by what they are, then by name, and made where they are
//! missing.
//!
//! What every mailbox has is found by its well-known name, whatever it is called there (Graph: mailFolder). Folders in
//! which the service acts by itself take nothing: what lay in the outbox or among what was deleted for good comes into
//! a folder of its own, under its old name and a remark.

use super::route::Named;
use crate::source::graph::GraphError;
use crate::source::graph::mail::{Mailbox, RECOVERABLE_ITEMS};
use crate::source::graph::write::same_name;
use std::collections::HashMap;

/// Folders that a restored message may be put in because every mailbox has them.
const MET: [&str; 12] = [
    "inbox",
    "sentitems",
    "drafts",
    "deleteditems",
    "junkemail",
    "archive",
    "conversationhistory",
    "clutter",
    "syncissues",
    "conflicts",
    "localfailures",
    "serverfailures",
];
/// Folders whose messages the service would act upon.
const KEPT_APART: [&str; 3] = ["outbox", "scheduled", RECOVERABLE_ITEMS];

const ROOT: &str = "msgfolderroot";

/// A folder of the target; one that is not there yet has no id in a dry run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub id: Option<String>,
    /// Whether this run made it, so that nothing can be in it.
    pub is_new: bool,
}

impl Place {
    const ABSENT: Self = Self { id: None, is_new: true };
}

/// The folders of one mailbox.
pub(super) struct Folders {
    mailbox: Mailbox,
    /// Whether missing ones are made.
    makes: bool,
    /// Ids by well-known name.
    well_known: HashMap<&'static str, String>,
    /// What everything is put below, if not below the root.
    into: Vec<String>,
    /// Children by parent: name -> id. Asked for once.
    children: HashMap<String, Vec<(String, String)>>,
    /// How many were made, or would be.
    pub made: u64,
}

impl Folders {
    /// Looks the mailbox up.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn new(mailbox: &Mailbox, into: &[String], makes: bool) -> Result<Self, GraphError> {
        let well_known = mailbox.well_known().await?.into_iter().map(|(id, name)| (name, id)).collect();
        Ok(Self { mailbox: mailbox.clone(), makes, well_known, into: into.to_vec(), children: HashMap::new(), made: 0 })
    }

    /// Returns the ids of the folders that every mailbox has, by their names.
    pub fn well_known(&self) -> &HashMap<&'static str, String> {
        &self.well_known
    }

    /// Returns whether everything goes below a folder that was named.
    pub fn has_own_root(&self) -> bool {
        !self.into.is_empty()
    }

    /// Returns where everything goes.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn root(&mut self) -> Result<Place, GraphError> {
        let id =
            self.well_known.get(ROOT).cloned().ok_or_else(|| GraphError::malformed("finding well-known folders"))?;
        let mut place = Place { id: Some(id), is_new: false };
        for (number, name) in self.into.clone().into_iter().enumerate() {
            // `--into Inbox` means the inbox, in every language.
            let well_known = (number == 0).then(|| MET.iter().find(|known| is_called(known, &name)).copied()).flatten();
            let folder = Named { display: name, well_known: None };
            place = match well_known.and_then(|known| self.well_known.get(known)) {
                Some(id) => Place { id: Some(id.clone()), is_new: false },
                None => self.named(&place, &folder).await?,
            };
        }
        Ok(place)
    }

    /// Returns the counterpart of a folder that lies in what `parent` is the counterpart of; `is_empty` says that
    /// nothing will be put there.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn below(&mut self, parent: &Place, folder: &Named, is_empty: bool) -> Result<Place, GraphError> {
        let known = folder.well_known.as_deref();
        if self.into.is_empty()
            && let Some(id) = known.filter(|known| MET.contains(known)).and_then(|known| self.well_known.get(known))
        {
            return Ok(Place { id: Some(id.clone()), is_new: false });
        }
        let is_apart = known.is_some_and(|known| KEPT_APART.contains(&known));
        if is_apart && is_empty {
            return Ok(Place::ABSENT);
        }
        let display = if is_apart { format!("{} (restored)", folder.display) } else { folder.display.clone() };
        self.named(parent, &Named { display, well_known: None }).await
    }

    async fn named(&mut self, parent: &Place, folder: &Named) -> Result<Place, GraphError> {
        let Some(above) = parent.id.clone() else {
            self.made += 1;
            return Ok(Place::ABSENT);
        };
        if !self.children.contains_key(&above) {
            let children = match parent.is_new {
                true => Vec::new(),
                false => self.mailbox.child_folders(&above).await?,
            };
            let children = children.into_iter().filter(|child| !child.is_search());
            let children = children.map(|child| (child.display_name.unwrap_or_default(), child.id)).collect();
            self.children.insert(above.clone(), children);
        }
        let children = self.children.get_mut(&above).expect("listed above");
        let exact = children.iter().find(|(name, _)| *name == folder.display);
        if let Some((_, id)) = exact.or_else(|| children.iter().find(|(name, _)| same_name(name, &folder.display))) {
            return Ok(Place { id: Some(id.clone()), is_new: false });
        }
        self.made += 1;
        if !self.makes {
            return Ok(Place::ABSENT);
        }
        let (id, is_new) = self.mailbox.make_folder(&above, &folder.display).await?;
        children.push((folder.display.clone(), id.clone()));
        Ok(Place { id: Some(id), is_new })
    }
}

/// Returns whether somebody who writes `name` in English means the folder that every mailbox has.
fn is_called(well_known: &str, name: &str) -> bool {
    use crate::source::graph::mail::WELL_KNOWN;
    WELL_KNOWN.iter().any(|(known, english)| *known == well_known && same_name(english, name))
}

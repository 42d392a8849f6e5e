//! The personal contacts in a mailbox: folders and their changes, contacts and their photos.
//!
//! A contact has no second form: the row of a listing is all there is of it, except for its photo. So no properties are
//! selected, and [`Contact`] keeps the text as the service sent it, with the properties that this program does not
//! know.
//!
//! The service does not say how many folders lie in a folder, and tells no changes of nested folders. So whoever wants
//! to know the folders asks each one for those in it ([`Contacts::folders`]). Twenty such questions go into one request.

mod card;
mod write;

pub use self::write::{ExistingContact, MadeContactFolder};

use super::client::Client;
use super::error::{ErrorKind, GraphError};
use super::expected::Expected;
use super::mail::{IMMUTABLE_IDS, PAGE_SIZE, found};
use super::model::parse_date;
use super::pages::Ends;
use super::request::{Request, Scope};
use super::round::Round;
use super::urls::path;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The well-known name of the default folder (Graph: contactFolder).
pub const DEFAULT_FOLDER: &str = "contacts";
const FOLDERS_PER_PAGE: &str = "250";
/// Maximum number of contact folders in a mailbox. Each of them costs a request in every run, and the twentieth part of
/// another. People have at most a few dozen.
const FOLDERS_MAX: usize = 10_000;
/// Maximum size of a photo, in bytes. Outlook makes small pictures of larger ones, and the service accepts 4 MB.
pub const PHOTO_BYTES_MAX: u64 = 4 << 20;
/// The properties that the service returns of every contact, unset ones as `null` (Graph: contact). A row that lacks
/// one of them tells only what changed.
pub const PROPERTIES: [&str; 37] = [
    "assistantName",
    "birthday",
    "businessAddress",
    "businessHomePage",
    "businessPhones",
    "categories",
    "changeKey",
    "children",
    "companyName",
    "createdDateTime",
    "department",
    "displayName",
    "emailAddresses",
    "fileAs",
    "generation",
    "givenName",
    "homeAddress",
    "homePhones",
    "imAddresses",
    "initials",
    "jobTitle",
    "lastModifiedDateTime",
    "manager",
    "middleName",
    "mobilePhone",
    "nickName",
    "officeLocation",
    "otherAddress",
    "parentFolderId",
    "personalNotes",
    "profession",
    "spouseName",
    "surname",
    "title",
    "yomiCompanyName",
    "yomiGivenName",
    "yomiSurname",
];

/// A contact folder (Graph: contactFolder).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContactFolder {
    /// The id, which stays the same when the folder is renamed or moved.
    pub id: String,
    /// The display name, in the language of the mailbox.
    pub display_name: Option<String>,
    /// The id of the folder that this one lies in.
    pub parent_folder_id: Option<String>,
}

/// A row of a listing: the properties that this program uses, and the whole text.
#[derive(Debug, Clone)]
pub struct Contact {
    /// The properties that this program uses.
    pub row: ContactRow,
    /// The JSON text as it came, including unknown properties.
    pub raw: Box<RawValue>,
}

/// The properties of a contact that a backup decides by. [`Contact::card`] reads the others.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContactRow {
    /// The immutable id.
    pub id: String,
    /// The version of the contact. It differs after every change.
    pub change_key: Option<String>,
    /// The id of the folder that the contact lies in.
    pub parent_folder_id: Option<String>,
    /// When the contact was created.
    pub created_date_time: Option<String>,
    /// When the contact was changed last.
    pub last_modified_date_time: Option<String>,
    /// Present in a row of a delta if the contact left the folder.
    #[serde(rename = "@removed")]
    pub removed: Option<IgnoredAny>,
}

impl<'de> Deserialize<'de> for Contact {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let row = serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)?;
        Ok(Self { row, raw })
    }
}

impl Contact {
    /// Returns true if the row has every property of a contact. The other rows tell only what changed.
    pub fn is_whole(&self) -> bool {
        let properties: HashMap<String, IgnoredAny> = serde_json::from_str(self.raw.get()).unwrap_or_default();
        PROPERTIES.iter().all(|name| properties.contains_key(*name))
    }
}

impl ContactRow {
    /// Returns when the contact was changed last, in seconds since 1970 (UTC). If that is unknown, returns when it was
    /// created.
    pub fn date(&self) -> Option<i64> {
        [&self.last_modified_date_time, &self.created_date_time].into_iter().flatten().find_map(|text| parse_date(text))
    }
}

/// The contacts of a user.
#[derive(Clone)]
pub struct Contacts {
    client: Client,
    user: Arc<str>,
}

impl Contacts {
    /// Names the contacts of the user with the id `user`.
    pub fn new(client: Client, user: &str) -> Self {
        Self { client, user: user.into() }
    }

    /// Returns the id of the user.
    pub fn user(&self) -> &str {
        &self.user
    }

    fn get(&self, label: &'static str, segments: &[&str]) -> Request {
        let path = path(&[&["users", &*self.user], segments].concat());
        Request::get(path, Scope::Mailbox(self.user.clone())).labelled(label).prefer(IMMUTABLE_IDS)
    }

    /// Returns the default folder. The list of folders does not have it.
    ///
    /// The service is asked for it by its well-known name. If it does not know that, the first contact tells where it
    /// lies: contacts that are asked for without a folder are those of the default one. Returns `None` if that one is
    /// empty, too.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn default_folder(&self) -> Result<Option<ContactFolder>, GraphError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Lies {
            parent_folder_id: Option<String>,
        }
        let request = self.get("looking for the contacts", &["contactFolders", DEFAULT_FOLDER]);
        match self.client.json(request).await {
            Ok(folder) => return Ok(Some(folder)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::BadRequest) => {}
            Err(error) => return Err(error),
        }
        let request = self.get("looking for a contact", &["contacts"]);
        let page = self.client.page(&request.query("$top", "1").query("$select", "parentFolderId")).await?;
        let first = page.rows::<Lies>().next().transpose()?;
        drop(page);
        let Some(id) = first.and_then(|contact| contact.parent_folder_id) else { return Ok(None) };
        let found = self.folder(&id).await?;
        Ok(Some(found.unwrap_or(ContactFolder { id, display_name: None, parent_folder_id: None })))
    }

    /// Lists the folders below the default one, level by level. `default` is the id of that one, if it is known; it is
    /// not among the answers. `known` are the ids of folders that most likely exist: they are asked together with the
    /// list, so that an unchanged mailbox costs one request for every twenty folders.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn folders(&self, default: Option<&str>, known: &[&str]) -> Result<Vec<ContactFolder>, GraphError> {
        let mut seen: HashSet<String> = default.iter().map(|id| (*id).to_owned()).collect();
        let mut all = Vec::new();
        let mut add = |all: &mut Vec<ContactFolder>, found: Vec<ContactFolder>| {
            all.extend(found.into_iter().filter(|folder| seen.insert(folder.id.clone())));
            match all.len() > FOLDERS_MAX {
                true => Err(GraphError::too_many("listing contact folders", "folders", FOLDERS_MAX)),
                false => Ok(()),
            }
        };
        // If no other folder is known, most likely none lies in the default one. That is asked for below.
        let mut asked: Vec<&str> = if known.is_empty() { default.into_iter().collect() } else { known.to_vec() };
        asked.sort_unstable();
        asked.dedup();
        let first = self.folder_request(&["contactFolders"]);
        let requests = std::iter::once(first).chain(asked.iter().map(|id| self.child_request(id)));
        let mut answers = self.client.collect_each(requests.collect(), FOLDERS_MAX).await.into_iter();
        add(&mut all, answers.next().expect("each request has an answer")?)?;
        // Folders in one that was thrown away exist as well. So an answer counts only if the list leads to its folder.
        let mut answered = HashMap::new();
        for (id, children) in asked.into_iter().zip(answers) {
            answered.insert(id.to_owned(), found(children)?.unwrap_or_default());
        }
        let mut visited = HashSet::new();
        // The list should have what lies in the default folder. If nothing in it says so, the folder itself is asked.
        let lies_in_default = all.iter().any(|folder| folder.parent_folder_id.as_deref() == default);
        let mut next: Vec<String> = default.filter(|_| !lies_in_default).map(str::to_owned).into_iter().collect();
        loop {
            next.extend(all.iter().map(|folder| folder.id.clone()));
            next.retain(|id| visited.insert(id.clone()));
            if next.is_empty() {
                return Ok(all);
            }
            let (known, unasked): (Vec<_>, Vec<_>) = next.drain(..).partition(|id| answered.contains_key(id));
            for id in known {
                add(&mut all, answered.remove(&id).unwrap_or_default())?;
            }
            let requests = unasked.iter().map(|id| self.child_request(id)).collect();
            for children in self.client.collect_each(requests, FOLDERS_MAX).await {
                add(&mut all, found(children)?.unwrap_or_default())?;
            }
        }
    }

    fn child_request(&self, folder: &str) -> Request {
        self.folder_request(&["contactFolders", folder, "childFolders"])
    }

    fn folder_request(&self, segments: &[&str]) -> Request {
        self.get("listing contact folders", segments).query("$top", FOLDERS_PER_PAGE)
    }

    /// Returns a folder by its id. Returns `None` also for the id of a folder that is not for contacts, such as Deleted
    /// Items, where deleted contacts lie.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn folder(&self, id: &str) -> Result<Option<ContactFolder>, GraphError> {
        let request = self.get("reading a contact folder", &["contactFolders", id]);
        let answer = self.client.json_that(request, |found: &ContactFolder| Expected::id(id, &found.id)).await;
        match answer {
            // That is what the service calls an id of another kind.
            Err(error) if error.kind() == ErrorKind::BadRequest => Ok(None),
            answer => found(answer),
        }
    }

    /// Returns true if a delta link may be followed. After a change of the configuration, an old link may lead to
    /// another host.
    pub fn may_follow(&self, link: &str) -> bool {
        self.client.may_follow(link)
    }

    /// Starts to list the contacts of `folder`: those that changed since `link` was given out, or all of them without a
    /// link.
    pub fn changes(&self, folder: &str, link: Option<&str>) -> Round<Contact> {
        const LABEL: &str = "listing contacts";
        let request = match link {
            Some(link) => Request::follow(link.to_owned(), Scope::Mailbox(self.user.clone()))
                .labelled(LABEL)
                .prefer(IMMUTABLE_IDS),
            None => self.get(LABEL, &["contactFolders", folder, "contacts", "delta"]),
        };
        Round::new(self.client.pages(request.prefer(PAGE_SIZE), Ends::WithDeltaLink))
    }

    /// Starts to list all contacts of `folder`, for a mailbox that cannot report changes. A contact that moves in the
    /// meantime may be listed twice or not at all.
    pub fn listing(&self, folder: &str) -> Round<Contact> {
        let request = self.get("listing contacts in full", &["contactFolders", folder, "contacts"]);
        Round::new(self.client.pages(request.prefer(PAGE_SIZE), Ends::Plainly))
    }

    /// Returns the row that a listing would have for the contact, in whichever folder it is now.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn contact(&self, id: &str) -> Result<Option<Contact>, GraphError> {
        let request = self.get("looking for a contact", &["contacts", id]);
        found(self.client.json_that(request, |found: &Contact| Expected::id(id, &found.row.id)).await)
    }

    /// Returns the photo of a contact; `None` if it has none.
    ///
    /// # Errors
    /// See [`GraphError`]; [`ErrorKind::TooLarge`] if it has more than [`PHOTO_BYTES_MAX`] bytes, and
    /// [`ErrorKind::Malformed`] if the service kept sending something that is no picture.
    pub async fn photo(&self, id: &str) -> Result<Option<Bytes>, GraphError> {
        let request = self.get("reading the photo of a contact", &["contacts", id, "photo", "$value"]).uncoded();
        match self.client.bytes_of(request, PHOTO_BYTES_MAX, Expected::photo()).await {
            Ok(photo) => Ok(Some(photo).filter(|photo| !photo.is_empty())),
            // Whatever the code is that comes with it.
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, Value, json};

    fn whole() -> Map<String, Value> {
        let mut contact: Map<String, Value> = PROPERTIES.iter().map(|name| ((*name).to_owned(), json!(null))).collect();
        contact.insert("id".to_owned(), json!("A"));
        contact
    }

    fn read(contact: &Map<String, Value>) -> Contact {
        serde_json::from_value(Value::Object(contact.clone())).unwrap()
    }

    #[test]
    fn a_row_without_one_of_the_properties_is_not_whole() {
        assert!(read(&whole()).is_whole(), "unset properties are there");
        for name in PROPERTIES {
            let mut partial = whole();
            partial.remove(name);
            assert!(!read(&partial).is_whole(), "{name}");
        }
    }

    #[test]
    fn unknown_properties_are_kept_as_they_came() {
        let text = r#"{"id":"A", "new":{"b":1,"a":[2.50]},"@odata.etag":"W/\"x\""}"#;
        let contact: Contact = serde_json::from_str(text).unwrap();
        assert_eq!(contact.raw.get(), text);
    }

    #[test]
    fn the_date_of_a_contact_is_that_of_its_last_change() {
        let date = |created, changed| {
            let mut contact = whole();
            contact.insert("createdDateTime".to_owned(), created);
            contact.insert("lastModifiedDateTime".to_owned(), changed);
            read(&contact).row.date()
        };
        assert_eq!(date(json!("1970-01-01T00:00:01Z"), json!("1970-01-01T00:00:02.5Z")), Some(2));
        assert_eq!(date(json!("1970-01-01T00:00:01Z"), json!("0001-01-01T00:00:00Z")), Some(1));
        assert_eq!(date(json!(null), json!("yesterday")), None);
    }
}

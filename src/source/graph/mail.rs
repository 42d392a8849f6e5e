//! The mail in a mailbox: folders and their changes, messages and their exact bytes.
//!
//! Every request asks for immutable ids, which survive moves within the mailbox (Graph: "Obtain immutable identifiers
//! for Outlook resources"). Delta links are stored and followed unchanged.

use super::client::{Body, Client, Patience};
use super::error::{ErrorKind, GraphError};
use super::expected::Expected;
use super::model::{MailFolder, Message};
use super::pages::Ends;
use super::request::{Request, Scope};
use super::round::Round;
use super::urls::path;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub(super) const IMMUTABLE_IDS: &str = "IdType=\"ImmutableId\"";
/// Preferred number of rows on a page. Larger pages are allowed, but cause time-outs.
pub(super) const PAGE_SIZE: &str = "odata.maxpagesize=500";
const FOLDERS_PER_PAGE: &str = "250";
/// Maximum number of folders in a mailbox, and of rows about them. Exchange Online allows up to 250,000 folders, of
/// which 10,000 in one folder.
const FOLDERS_MAX: usize = 500_000;
/// Maximum number of attachments of a message. Real messages have at most a few hundred.
const ATTACHMENTS_MAX: usize = 10_000;
/// The properties that are requested of every message: all that its MIME form loses, all that a list shows, and all
/// that tells whether its bytes may have changed. The body is left out, because the MIME form has it.
const MESSAGE_FIELDS: &str = "id,changeKey,parentFolderId,isRead,isDraft,flag,categories,importance,inferenceClassification,\
    receivedDateTime,sentDateTime,createdDateTime,lastModifiedDateTime,internetMessageId,conversationId,conversationIndex,\
    subject,bodyPreview,sender,from,replyTo,toRecipients,ccRecipients,bccRecipients,hasAttachments,\
    isReadReceiptRequested,isDeliveryReceiptRequested";
/// Size, class, flags, icon, last verb and its time ([MS-OXPROPS]), and the mark of an earlier restore (see `write`).
const MESSAGE_PROPERTIES: &str = "singleValueExtendedProperties($filter=id eq 'Integer 0x0E08' or id eq 'String 0x001A' \
    or id eq 'Integer 0x0E07' or id eq 'Integer 0x1080' or id eq 'Integer 0x1081' or id eq 'SystemTime 0x1082' \
    or id eq 'String {6f0c1d5b-3a52-4b7e-9d0e-2b7c8a41e6f3} Name StrongroomItem')";

/// The well-known names of folders, which are the same in every language (Graph: mailFolder), and the names that an
/// English mailbox shows.
pub const WELL_KNOWN: [(&str, &str); 17] = [
    ("inbox", "Inbox"),
    ("sentitems", "Sent Items"),
    ("drafts", "Drafts"),
    ("deleteditems", "Deleted Items"),
    ("junkemail", "Junk Email"),
    ("archive", "Archive"),
    ("outbox", "Outbox"),
    ("conversationhistory", "Conversation History"),
    ("clutter", "Clutter"),
    ("scheduled", "Scheduled"),
    ("searchfolders", "Search Folders"),
    ("syncissues", "Sync Issues"),
    ("conflicts", "Conflicts"),
    ("localfailures", "Local Failures"),
    ("serverfailures", "Server Failures"),
    ("msgfolderroot", "Top of Information Store"),
    (RECOVERABLE_ITEMS, "Recoverable Items"),
];

/// The folder of deleted items that can still be recovered.
pub const RECOVERABLE_ITEMS: &str = "recoverableitemsdeletions";

/// The mailbox of a user.
#[derive(Clone)]
pub struct Mailbox {
    pub(super) client: Client,
    pub(super) user: Arc<str>,
    hidden_folders: bool,
}

/// How the folders of a mailbox changed since a delta link was given out.
pub struct FolderChanges {
    /// Folders that are new, were renamed or moved, or are gone.
    pub rows: Vec<MailFolder>,
    /// The link for the next time; `None` if there is none, or if it must not be followed.
    pub link: Option<String>,
}

impl Mailbox {
    /// Creates the mailbox of the user with the id `user`. With `hidden_folders`, folders that Outlook does not show
    /// are included.
    pub fn new(client: Client, user: &str, hidden_folders: bool) -> Self {
        Self { client, user: user.into(), hidden_folders }
    }

    /// Returns the id of the user.
    pub fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn get(&self, label: &'static str, segments: &[&str]) -> Request {
        let path = path(&[&["users", &*self.user], segments].concat());
        Request::get(path, Scope::Mailbox(self.user.clone())).labelled(label).prefer(IMMUTABLE_IDS)
    }

    fn follow(&self, label: &'static str, link: &str) -> Request {
        let request = Request::follow(link.to_owned(), Scope::Mailbox(self.user.clone()));
        request.labelled(label).prefer(IMMUTABLE_IDS)
    }

    /// Lists the top folders that people see.
    ///
    /// # Errors
    /// See [`GraphError`]; [`ErrorKind::NoMailbox`] if there is no mailbox.
    pub async fn top_folders(&self) -> Result<Vec<MailFolder>, GraphError> {
        self.folder_pages(&["mailFolders"]).await
    }

    /// Lists the folders directly in `folder`.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn child_folders(&self, folder: &str) -> Result<Vec<MailFolder>, GraphError> {
        self.folder_pages(&["mailFolders", folder, "childFolders"]).await
    }

    async fn folder_pages(&self, segments: &[&str]) -> Result<Vec<MailFolder>, GraphError> {
        const LABEL: &str = "listing mail folders";
        let mut request = self.get(LABEL, segments).query("$top", FOLDERS_PER_PAGE);
        if self.hidden_folders {
            request = request.query("includeHiddenFolders", "true");
        }
        self.client.collect(request, FOLDERS_MAX).await
    }

    /// Returns true if a delta link may be followed. After a change of the configuration, an old link may lead to
    /// another host.
    pub fn may_follow(&self, link: &str) -> bool {
        self.client.may_follow(link)
    }

    /// Lists all folders below `tops`, level by level.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn folders_below(&self, tops: Vec<MailFolder>) -> Result<Vec<MailFolder>, GraphError> {
        let mut seen: HashSet<String> = tops.iter().map(|folder| folder.id.clone()).collect();
        let mut all = tops;
        let mut next = 0;
        while next < all.len() {
            let folder = &all[next];
            next += 1;
            if folder.child_folder_count == 0 || folder.is_search() {
                continue;
            }
            match self.child_folders(&folder.id.clone()).await {
                Ok(children) if all.len() + children.len() > FOLDERS_MAX => {
                    return Err(GraphError::too_many("listing mail folders", "folders", FOLDERS_MAX));
                }
                Ok(children) => all.extend(children.into_iter().filter(|child| seen.insert(child.id.clone()))),
                // The folder vanished after it was listed, together with its content.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Lists how the folders changed since `link` was given out. Without a link, lists all folders.
    ///
    /// # Errors
    /// See [`GraphError`]; [`ErrorKind::Resync`] if the link is too old.
    pub async fn folder_changes(&self, link: Option<&str>) -> Result<FolderChanges, GraphError> {
        const LABEL: &str = "listing changes of mail folders";
        let request = match link {
            Some(link) => self.follow(LABEL, link),
            None => self.get(LABEL, &["mailFolders", "delta"]),
        };
        let mut pages = self.client.pages(request.prefer(PAGE_SIZE), Ends::WithDeltaLink);
        let mut rows = Vec::new();
        pages.collect_into(&mut rows, FOLDERS_MAX).await?;
        Ok(FolderChanges { rows, link: pages.link() })
    }

    /// Returns a folder by its id or its well-known name.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn folder(&self, folder: &str) -> Result<Option<MailFolder>, GraphError> {
        let is_named = WELL_KNOWN.iter().any(|(name, _)| *name == folder);
        let check = |found: &MailFolder| if is_named { Ok(()) } else { Expected::id(folder, &found.id) };
        found(self.client.json_that(self.get("reading a mail folder", &["mailFolders", folder]), check).await)
    }

    /// Returns the folders that have a well-known name, as a map from id to name.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn well_known(&self) -> Result<HashMap<String, &'static str>, GraphError> {
        #[derive(Deserialize)]
        struct Id {
            id: String,
        }
        let ask = async |name: &'static str| {
            let request = self.get("finding well-known folders", &["mailFolders", name]).query("$select", "id");
            Ok::<_, GraphError>((found(self.client.json::<Id>(request).await)?, name))
        };
        let asked = futures_util::future::try_join_all(WELL_KNOWN.iter().map(|(name, _)| ask(name))).await?;
        Ok(asked.into_iter().filter_map(|(found, name)| Some((found?.id, name))).collect())
    }

    /// Starts to list the messages of `folder`: those that changed since `link` was given out, or all of them without a
    /// link.
    pub fn messages(&self, folder: &str, link: Option<&str>) -> Round<Message> {
        const LABEL: &str = "listing messages";
        let request = match link {
            Some(link) => self.follow(LABEL, link),
            None => self
                .get(LABEL, &["mailFolders", folder, "messages", "delta"])
                .query("$select", MESSAGE_FIELDS)
                .query("$expand", MESSAGE_PROPERTIES),
        };
        Round::new(self.client.pages(request.prefer(PAGE_SIZE), Ends::WithDeltaLink))
    }

    /// Starts to list all messages of `folder`, for a mailbox that cannot report changes. A message that moves in the
    /// meantime may be listed twice or not at all.
    pub fn plain_messages(&self, folder: &str) -> Round<Message> {
        const LABEL: &str = "listing messages in full";
        let request = self
            .get(LABEL, &["mailFolders", folder, "messages"])
            .query("$select", MESSAGE_FIELDS)
            .query("$expand", MESSAGE_PROPERTIES);
        Round::new(self.client.pages(request.prefer(PAGE_SIZE), Ends::Plainly))
    }

    /// Returns the row that a listing would have for the message, in whichever folder it is now.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn message(&self, id: &str) -> Result<Option<Message>, GraphError> {
        let request = self
            .get("looking for a message", &["messages", id])
            .query("$select", MESSAGE_FIELDS)
            .query("$expand", MESSAGE_PROPERTIES);
        found(self.client.json_that(request, |found: &Message| Expected::id(id, &found.row.id)).await)
    }

    /// Starts to count attempts at messages whose bytes the caller checks.
    pub fn patience(&self) -> Patience {
        self.client.patience()
    }

    /// Starts to read the exact bytes of a message (Graph: "Get MIME content of a message"). The caller must compare
    /// them with the message's row (see [`Expected::message`]).
    ///
    /// # Errors
    /// See [`GraphError`]; [`ErrorKind::ItemCorrupt`] if the service will never be able to deliver them.
    pub async fn mime(&self, id: &str, size_hint: Option<u64>) -> Result<Body, GraphError> {
        let mut request = self.get("reading a message", &["messages", id, "$value"]).uncoded();
        if let Some(size) = size_hint {
            request = request.size_hint(size);
        }
        self.client.body(request).await
    }

    /// Returns all properties of a message, with its body as the sender wrote it.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn properties(&self, id: &str) -> Result<Value, GraphError> {
        let fields = format!("{MESSAGE_FIELDS},body,internetMessageHeaders");
        let request = self.get("reading a message's properties", &["messages", id]);
        let request = request.query("$select", &fields).prefer("outlook.allow-unsafe-html");
        self.client.json_that(request, |found| is_about(found, id)).await
    }

    /// Lists the attachments of a message, without their contents.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn attachments(&self, id: &str) -> Result<Vec<Value>, GraphError> {
        const LABEL: &str = "listing attachments";
        let fields = "id,name,contentType,size,isInline,lastModifiedDateTime";
        let request = self.get(LABEL, &["messages", id, "attachments"]).query("$select", fields);
        self.client.collect(request, ATTACHMENTS_MAX).await
    }

    /// Returns all properties of one attachment. For a file, `contentBytes` holds the content as base64. Only this
    /// request returns the `contentId`, by which a body refers to the attachment (Graph: fileAttachment).
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn attachment_whole(&self, id: &str, attachment: &str) -> Result<Value, GraphError> {
        let request = self.get("reading an attachment", &["messages", id, "attachments", attachment]);
        self.client.json_that(request, |found| is_about(found, attachment)).await
    }

    /// Returns the content of one attachment, whose `properties` were listed before.
    ///
    /// # Errors
    /// See [`GraphError`].
    pub async fn attachment(&self, id: &str, properties: &Value, bytes_max: u64) -> Result<bytes::Bytes, GraphError> {
        let attachment = properties.get("id").and_then(Value::as_str).unwrap_or_default();
        let request =
            self.get("reading an attachment", &["messages", id, "attachments", attachment, "$value"]).uncoded();
        self.client.bytes_of(request, bytes_max, Expected::attachment(properties)).await
    }
}

/// Compares the id in an answer with the id that was requested.
fn is_about(found: &Value, asked: &str) -> Result<(), &'static str> {
    Expected::id(asked, found.get("id").and_then(Value::as_str).unwrap_or_default())
}

pub(super) fn found<T>(answer: Result<T, GraphError>) -> Result<Option<T>, GraphError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

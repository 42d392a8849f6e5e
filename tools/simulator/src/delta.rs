//! Deltas of Outlook's collections: first everything, then what changed since.
//!
//! Items of one kind or of any kind, and folders share this. A token contains the position in a log up to which
//! the client has read, and the query of the first call. A round ends at the current end of the log, so it also reports
//! changes that happened during the round.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::odata::filter::Filter;
use crate::odata::{Query, token};
use crate::server::{Answer, ApiError, Call, PAGE_ROWS, PAGE_ROWS_MAX, collection};
use crate::tenant::id::{FolderKey, IdFormat, MessageKey, Named};
use crate::tenant::{Event, FolderEvent, ItemKind, Kind, Mailbox, Record, message_id};

/// Maximum number of messages that a round with a filter returns (Graph: "message: delta").
const FILTERED_MAX: usize = 5000;

/// The state in a link of a delta.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Token {
    /// Generation of the mailbox's delta state.
    generation: u64,
    /// Number of tokens that the mailbox had issued.
    serial: u64,
    /// The folder; `None` for the delta of folders.
    folder: Option<u32>,
    /// Position in the log up to which the client has read.
    position: u32,
    /// Length of the log when the first round began; 0 in later rounds. The first round does not report removals before
    /// that.
    initial_until: u32,
    /// Position in the log at which this round began.
    round_from: u32,
    /// Number of rows that `$top` or a filter still allows.
    left: Option<usize>,
    /// True if the link continues a round.
    next: bool,
    /// True if the previous page was left empty on purpose, so that this page is not.
    was_empty: bool,
    /// The query of the first call.
    query: String,
}

/// The items of a folder that a delta reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Items {
    /// Those of one kind.
    Only(ItemKind),
    /// Items of any kind.
    Any,
}

impl Items {
    fn include(self, mailbox: &Mailbox, key: MessageKey) -> bool {
        match self {
            Self::Only(kind) => mailbox.kind_of(key) == kind,
            Self::Any => true,
        }
    }
}

/// A row in a page of a delta. `T` is what the collection shows of an item.
pub enum Row<T> {
    /// An item that was added or changed.
    Changed(T),
    /// An item that left the folder, with the number of its moves until then.
    Removed(MessageKey, u32),
}

/// A page of a delta of items, before it is converted to JSON.
pub struct Page<T> {
    token: Token,
    /// The rows.
    pub rows: Vec<Row<T>>,
    more: bool,
    /// The folder.
    pub folder: FolderKey,
    /// The query of the first call.
    pub frozen: Query,
}

impl<T> Page<T> {
    /// Returns the answer. `show` returns the JSON of an item, `path` is the path of the collection, and `kind` the
    /// name of the type of its items.
    ///
    /// # Errors
    /// 400 if the query is invalid.
    pub fn answer(mut self, call: &Call, path: &str, kind: &str, show: impl Fn(&T) -> Value) -> Answer {
        let guid = call.with_mailbox(|mailbox| Ok(mailbox.guid))?;
        // Tasks, and the import and export API, have default ids, whatever the client prefers.
        let format = if ["mailboxItem", "todoTask"].contains(&kind) { IdFormat::Default } else { call.id_format() };
        let rows = std::mem::take(&mut self.rows).into_iter().map(|row| match row {
            Row::Changed(item) => {
                let mut row = show(&item);
                if row.get("@odata.type").is_none() {
                    row["@odata.type"] = json!(format!("#microsoft.graph.{kind}"));
                }
                row
            }
            Row::Removed(key, moves) => removed(kind, message_id(&guid, key, moves, format)),
        });
        let rows = rows.collect();
        answer(call, self.token, rows, self.more, path, kind)
    }
}

/// Returns the row for an item or a folder that is gone.
pub fn removed(kind: &str, id: String) -> Value {
    json!({"@odata.type": format!("#microsoft.graph.{kind}"), "id": id, "@removed": {"reason": "deleted"}})
}

/// Reads the page that a call asks for, from the log of the folder in its route, which `find` finds. `view` copies what
/// the collection shows of an item.
///
/// # Errors
/// 410 for a token that is too old, 403 for a full mailbox, 400 for a query that deltas do not support.
pub fn read<T>(
    call: &Call,
    items: Items,
    find: impl Fn(&Mailbox, &str) -> Result<FolderKey, ApiError>,
    view: impl Fn(&Mailbox, MessageKey, &Record) -> T,
) -> Result<Page<T>, ApiError> {
    let user = call.user()?;
    let mut token = read_token(call)?;
    let frozen = Query::parse(&token.query);
    let size = page_size(call, &frozen)?;
    let only = frozen.get("changeType").map(str::to_ascii_lowercase);
    let filter = checked_filter(&frozen, items)?;
    let switches = call.state.tenant.switches();
    if user.kind == Kind::OverQuota {
        let text = "The mailbox is over its quota.";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "ErrorQuotaExceeded", text));
    }
    let (rows, more, folder) = call.with_mailbox(|mailbox| {
        let folder = find(mailbox, call.route.folder.as_deref().unwrap_or_default())?;
        check(&mut token, mailbox, Some(folder), switches.next_links_live)?;
        let log = &mailbox.folder(folder).ok_or_else(ApiError::item_not_found)?.log;
        let mut rows = Vec::new();
        let empty = switches.empty_pages && !token.was_empty && !token.next;
        token.was_empty = empty;
        while !empty && rows.len() < size && token.left != Some(0) {
            let Some(event) = log.get(token.position) else { break };
            let position = token.position;
            token.position += 1;
            let row = row(mailbox, folder, &token, position, event, switches.removed_in_first_round);
            let wanted = |row: &Row<(MessageKey, &Record)>| {
                items.include(mailbox, event.key()) && wanted(row, &only, &token) && passes(row, filter.as_ref())
            };
            let Some(row) = row.filter(wanted) else { continue };
            token.left = token.left.map(|left| left - 1);
            let twice = usize::from(switches.duplicate_rows && position.is_multiple_of(3));
            match row {
                Row::Changed((key, record)) => {
                    rows.extend((0..=twice).map(|_| Row::Changed(view(mailbox, key, record))));
                }
                Row::Removed(key, moves) => rows.extend((0..=twice).map(|_| Row::Removed(key, moves))),
            }
        }
        if token.left == Some(0) {
            token.position = log.len();
        }
        Ok((rows, empty || token.position < log.len(), folder))
    })?;
    Ok(Page { token, rows, more, folder, frozen })
}

/// Returns the row for an event of the log, if the client of the token must see one.
fn row<'a>(
    mailbox: &'a Mailbox,
    folder: FolderKey,
    token: &Token,
    position: u32,
    event: Event,
    all: bool,
) -> Option<Row<(MessageKey, &'a Record)>> {
    match event {
        Event::Changed(key) | Event::CameUnnoticed(key) => {
            let record = mailbox.message(key)?;
            let current = record.folder == folder && record.log_position == position;
            let noticed = matches!(event, Event::Changed(_)) || position < token.initial_until;
            (current && noticed).then_some(Row::Changed((key, record)))
        }
        Event::Removed(key, moves) => (all || position >= token.initial_until).then_some(Row::Removed(key, moves)),
    }
}

/// Returns whether a row has the requested `changeType`.
fn wanted(row: &Row<(MessageKey, &Record)>, only: &Option<String>, token: &Token) -> bool {
    let created = match row {
        Row::Changed((_, record)) => record.entered >= token.round_from,
        Row::Removed(..) => false,
    };
    match (only.as_deref(), row) {
        (None, _) => true,
        (Some("created"), Row::Changed(_)) => created,
        (Some("updated"), Row::Changed(_)) => !created,
        (Some("deleted"), Row::Removed(..)) => true,
        _ => false,
    }
}

fn passes(row: &Row<(MessageKey, &Record)>, filter: Option<&Filter>) -> bool {
    let (Row::Changed((_, record)), Some(filter)) = (row, filter) else { return true };
    filter.holds(&json!({"receivedDateTime": crate::clock::iso(record.received)}))
}

/// Returns the filter. Only a lower bound of the time of receipt of messages is allowed (Graph: "message: delta").
fn checked_filter(query: &Query, items: Items) -> Result<Option<Filter>, ApiError> {
    let filter = query.filter()?;
    let allowed = match &filter {
        None => true,
        Some(Filter::Compare(_, comparison, _)) if [Items::Only(ItemKind::Message), Items::Any].contains(&items) => {
            use crate::odata::filter::Comparison;
            filter.iter().flat_map(Filter::properties).eq(["receivedDateTime".to_owned()])
                && matches!(comparison, Comparison::Greater | Comparison::GreaterOrEqual)
        }
        Some(_) => false,
    };
    if allowed { Ok(filter) } else { Err(unsupported("The query filter is not supported for change tracking.")) }
}

fn unsupported(text: &str) -> ApiError {
    ApiError::bad_request("ErrorInvalidUrlQueryFilter", text)
}

/// Answers a delta of the folders that the user sees. `show` returns the rows of the folders that it wants. `gone` gets
/// the id of a removed folder and the kind of its items, and returns the id to show, if the client is to be told.
///
/// # Errors
/// Those of [`read`].
pub fn folders_with(
    call: &Call,
    path: &str,
    kind: &str,
    show: impl Fn(&Mailbox, FolderKey, &Query) -> Option<Value>,
    gone: impl Fn(String, ItemKind) -> Option<String>,
) -> Answer {
    let mut token = read_token(call)?;
    let frozen = Query::parse(&token.query);
    let size = page_size(call, &frozen)?;
    let live = call.state.tenant.switches().next_links_live;
    let (rows, more) = call.with_mailbox(|mailbox| {
        check(&mut token, mailbox, None, live)?;
        let top = mailbox.well_known("msgfolderroot").ok_or_else(ApiError::item_not_found)?;
        let mut rows = Vec::new();
        let log = mailbox.folder_log();
        while rows.len() < size {
            let Some(event) = log.get(token.position as usize) else { break };
            let position = token.position;
            token.position += 1;
            match *event {
                FolderEvent::Changed(key) => {
                    let current = mailbox.folder(key).is_some_and(|folder| folder.log_position == position);
                    if current && key != top && mailbox.lies_in(key, top) {
                        rows.extend(show(mailbox, key, &frozen));
                    }
                }
                FolderEvent::Removed(key, held) if position >= token.initial_until => {
                    let id = gone(Named::Folder(key).encode(&mailbox.guid), held);
                    rows.extend(id.map(|id| removed(kind, id)));
                }
                FolderEvent::Removed(..) => {}
            }
        }
        let more = (token.position as usize) < log.len();
        Ok((rows, more))
    })?;
    answer(call, token, rows, more, path, kind)
}

/// Returns the number of rows per page, from the header. `$top` limits all pages together, so it does not count here.
fn page_size(call: &Call, frozen: &Query) -> Result<usize, ApiError> {
    frozen.number("$top")?;
    Ok(call.preferences.page_size_max.unwrap_or(PAGE_ROWS).min(PAGE_ROWS_MAX))
}

/// Returns the token of a call, or a new token for a first call.
fn read_token(call: &Call) -> Result<Token, ApiError> {
    let text = call.query.get("$deltatoken").or_else(|| call.query.get("$skiptoken"));
    let Some(text) = text else {
        let top = call.query.number("$top")?;
        let filtered = call.query.get("$filter").map(|_| FILTERED_MAX);
        return Ok(Token {
            generation: 0,
            serial: 0,
            folder: None,
            position: 0,
            initial_until: 0,
            round_from: 0,
            left: top.or(filtered),
            next: false,
            was_empty: false,
            query: call.query.encode(),
        });
    };
    let token = token::open(text);
    token.ok_or_else(|| ApiError::bad_request("SyncStateInvalid", "The sync state is invalid. Badly formed token."))
}

/// Binds a new token to the mailbox's state, or checks that an older one is still valid.
fn check(
    token: &mut Token,
    mailbox: &mut Mailbox,
    folder: Option<FolderKey>,
    next_links_live: Option<u64>,
) -> Result<(), ApiError> {
    mailbox.tokens += 1;
    let folder_key = folder.map(|key| key.0);
    let end = match folder {
        Some(key) => mailbox.folder(key).map_or(0, |folder| folder.log.len()),
        None => u32::try_from(mailbox.folder_log().len()).expect("fewer than four billion changes"),
    };
    if token.generation == 0 {
        token.generation = mailbox.generation;
        token.folder = folder_key;
        token.initial_until = end;
    }
    let died = token.next && next_links_live.is_some_and(|live| mailbox.tokens - token.serial > live + 1);
    if token.generation != mailbox.generation || token.folder != folder_key || token.position > end || died {
        return Err(sync_state_lost(token.generation, mailbox.generation));
    }
    token.serial = mailbox.tokens;
    Ok(())
}

/// Returns the error for a token of a generation that the mailbox no longer knows.
pub fn sync_state_lost(of_token: u64, of_mailbox: u64) -> ApiError {
    let (generation, highest) = (of_token + 148, of_mailbox + 156);
    let text =
        format!("The sync state generation is not found; generation={generation};[highest={highest}][{highest}].");
    ApiError::new(StatusCode::GONE, "SyncStateNotFound", text)
}

fn answer(call: &Call, mut token: Token, rows: Vec<Value>, more: bool, path: &str, kind: &str) -> Answer {
    let mut query = Query::default();
    token.next = more;
    let (annotation, name) = if more { ("@odata.nextLink", "$skiptoken") } else { ("@odata.deltaLink", "$deltatoken") };
    if !more {
        token.initial_until = 0;
        token.round_from = token.position;
        if call.state.tenant.switches().duplicate_rows {
            // The last changes appear again in the next round.
            token.position = token.position.saturating_sub(2);
        }
        token.was_empty = false;
        let frozen = Query::parse(&token.query);
        token.left = frozen.number("$top")?;
    }
    query.set(name, Some(token::seal(&token)));
    let link = call.link(&format!("{path}/delta"), &query);
    let context = call.context(&format!("Collection({kind})"));
    Ok(collection(context, rows, vec![(annotation, json!(link))]))
}

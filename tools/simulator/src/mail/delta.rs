//! Deltas: everything first, then what changed since.
//!
//! A token says how far its owner has read in a log, and remembers the query of the first call. A round ends where the log
//! ends at that moment, so it also tells of changes that happened while it ran.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::folders::{find, folder_json};
use super::json::{Shape, View};
use crate::odata::filter::Filter;
use crate::odata::{Query, token};
use crate::server::{Answer, ApiError, Call, collection};
use crate::tenant::id::{FolderKey, MessageKey, Named};
use crate::tenant::{Event, FolderEvent, Kind, Mailbox, message_id};

const PAGE: usize = 10;
const PAGE_MAX: usize = 1000;

/// With a filter a round returns at most this many messages (Graph: "message: delta").
const FILTERED_MAX: usize = 5000;

/// What a link of a delta remembers.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Token {
    /// Generation of the mailbox's state.
    generation: u64,
    /// How many tokens the mailbox had given out.
    serial: u64,
    /// The folder; none for the delta of folders.
    folder: Option<u32>,
    /// How far its owner has read.
    position: u32,
    /// Length of the log when the first round began; 0 in later rounds. What was removed before is not told.
    initial_until: u32,
    /// Where this round began.
    round_from: u32,
    /// Rows still allowed by `$top` or a filter.
    left: Option<usize>,
    /// Whether it goes on within a round.
    next: bool,
    /// Whether the page before was left empty, so that this one is not.
    was_empty: bool,
    /// Query of the first call.
    query: String,
}

/// What a page of a delta tells of.
pub enum Row {
    /// A message that came or changed.
    Changed(Box<View>),
    /// A message that left after this many moves.
    Removed(MessageKey, u32),
}

/// A page of a delta of messages, not shown yet.
pub struct Page {
    token: Token,
    /// What it tells.
    pub rows: Vec<Row>,
    more: bool,
    /// The folder.
    pub folder: FolderKey,
    /// Query of the first call.
    pub frozen: Query,
}

/// `GET /users/{u}/mailFolders/{f}/messages/delta`
pub fn messages(call: &Call) -> Answer {
    let user = call.user()?;
    let mut page = read(call)?;
    let tenant = &call.state.tenant;
    let shape = Shape::new(call, &page.frozen)?;
    let (guid, folder_id) = call.with_mailbox(|mailbox| Ok((mailbox.guid, mailbox.folder_id(page.folder))))?;
    let rows = std::mem::take(&mut page.rows).into_iter().map(|row| match row {
        Row::Changed(view) => {
            let mut message = shape.message(tenant, &view);
            message["@odata.type"] = message.get("@odata.type").cloned().unwrap_or(json!("#microsoft.graph.message"));
            message
        }
        Row::Removed(key, moves) => json!({
            "@odata.type": "#microsoft.graph.message",
            "id": message_id(&guid, key, moves, call.id_format()),
            "@removed": {"reason": "deleted"},
        }),
    });
    let rows = rows.collect();
    page.answer(call, rows, &format!("users('{}')/mailFolders('{folder_id}')/messages", user.id), "message")
}

impl Page {
    /// Returns the answer with these rows; `path` is that of the collection.
    ///
    /// # Errors
    /// 400 if the query was wrong.
    pub fn answer(self, call: &Call, rows: Vec<Value>, path: &str, kind: &str) -> Answer {
        answer(call, self.token, rows, self.more, path, kind)
    }
}

/// Reads the page that a call asks for from the log of the folder that its route names.
///
/// # Errors
/// 410 for a token that is too old, 403 for a mailbox that is full, 400 for a query that deltas do not support.
pub fn read(call: &Call) -> Result<Page, ApiError> {
    let user = call.user()?;
    let mut token = read_token(call)?;
    let frozen = Query::parse(&token.query);
    let size = page_size(call, &frozen)?;
    let only = frozen.get("changeType").map(str::to_ascii_lowercase);
    let filter = checked_filter(&frozen)?;
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
            let Some(row) = row(mailbox, folder, &token, position, event, switches.removed_in_first_round) else {
                continue;
            };
            if !wanted(&row, &only, &token) || !passes(&row, filter.as_ref()) {
                continue;
            }
            token.left = token.left.map(|left| left - 1);
            rows.push(row);
            if switches.duplicate_rows && position.is_multiple_of(3) {
                rows.extend(self::row(mailbox, folder, &token, position, event, false));
            }
        }
        if token.left == Some(0) {
            token.position = log.len();
        }
        Ok((rows, empty || token.position < log.len(), folder))
    })?;
    Ok(Page { token, rows, more, folder, frozen })
}

/// Returns what a log's event means to the owner of a token, if anything.
fn row(mailbox: &Mailbox, folder: FolderKey, token: &Token, position: u32, event: Event, all: bool) -> Option<Row> {
    match event {
        Event::Changed(key) | Event::CameUnnoticed(key) => {
            let record = mailbox.message(key)?;
            let current = record.folder == folder && record.log_position == position;
            let noticed = matches!(event, Event::Changed(_)) || position < token.initial_until;
            (current && noticed).then(|| Row::Changed(Box::new(View::new(mailbox, key, record))))
        }
        Event::Removed(key, moves) => (all || position >= token.initial_until).then_some(Row::Removed(key, moves)),
    }
}

/// Whether a row is of the wanted `changeType`.
fn wanted(row: &Row, only: &Option<String>, token: &Token) -> bool {
    let created = match row {
        Row::Changed(view) => view.record.entered >= token.round_from,
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

fn passes(row: &Row, filter: Option<&Filter>) -> bool {
    let (Row::Changed(view), Some(filter)) = (row, filter) else { return true };
    filter.holds(&json!({"receivedDateTime": crate::clock::iso(view.record.received)}))
}

/// Only the time of receipt can be filtered by, and only from below (Graph: "message: delta").
fn checked_filter(query: &Query) -> Result<Option<Filter>, ApiError> {
    let filter = query.filter()?;
    let allowed = match &filter {
        None => true,
        Some(Filter::Compare(_, comparison, _)) => {
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

/// `GET /users/{u}/mailFolders/delta`
pub fn folders(call: &Call) -> Answer {
    let path = format!("users('{}')/mailFolders", call.user()?.id);
    // Later calls carry the options of the first in their token.
    super::folders::check_select(call, &call.query)?;
    let show = |mailbox: &Mailbox, key: FolderKey, query: &Query| {
        let shown = mailbox.folder(key).is_some_and(|folder| !folder.hidden || query.is_true("includeHiddenFolders"));
        shown.then(|| folder_json(call, mailbox, key, &query.select(), query))
    };
    folders_with(call, &path, "mailFolder", show, |id| id)
}

/// Answers a delta of the folders that the user sees; `show` makes rows of those it wants, `id_of` their ids.
///
/// # Errors
/// As [`read`].
pub fn folders_with(
    call: &Call,
    path: &str,
    kind: &str,
    show: impl Fn(&Mailbox, FolderKey, &Query) -> Option<Value>,
    id_of: impl Fn(String) -> String,
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
                FolderEvent::Removed(key) if position >= token.initial_until => rows.push(json!({
                    "@odata.type": format!("#microsoft.graph.{kind}"),
                    "id": id_of(Named::Folder(key).encode(&mailbox.guid)),
                    "@removed": {"reason": "deleted"},
                })),
                FolderEvent::Removed(_) => {}
            }
        }
        let more = (token.position as usize) < log.len();
        Ok((rows, more))
    })?;
    answer(call, token, rows, more, path, kind)
}

/// Rows of a page: what the header asks for. `$top` caps all pages together, and so is no size.
fn page_size(call: &Call, frozen: &Query) -> Result<usize, ApiError> {
    frozen.number("$top")?;
    Ok(call.preferences.page_size_max.unwrap_or(PAGE).min(PAGE_MAX))
}

/// Returns the token of a call, or that of a first one.
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

/// Binds a first token to the mailbox's state, or checks that a later one still fits it.
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
        let (generation, highest) = (token.generation + 148, mailbox.generation + 156);
        return Err(ApiError::new(
            StatusCode::GONE,
            "SyncStateNotFound",
            format!("The sync state generation is not found; generation={generation};[highest={highest}][{highest}]."),
        ));
    }
    token.serial = mailbox.tokens;
    Ok(())
}

fn answer(call: &Call, mut token: Token, rows: Vec<Value>, more: bool, path: &str, kind: &str) -> Answer {
    let mut query = Query::default();
    token.next = more;
    let (annotation, name) = if more { ("@odata.nextLink", "$skiptoken") } else { ("@odata.deltaLink", "$deltatoken") };
    if !more {
        token.initial_until = 0;
        token.round_from = token.position;
        if call.state.tenant.switches().duplicate_rows {
            // Old changes come back in the next round.
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

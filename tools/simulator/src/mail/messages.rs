//! Reads messages: listings, single messages, and their bytes.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::attachments;
use super::json::{Shape, View};
use super::paths::{resolve_folder, view};
use crate::odata::Query;
use crate::odata::filter::Filter;
use crate::server::{Answer, ApiError, Call, PAGE_ROWS, PAGE_ROWS_MAX, collection, json_answer};
use crate::tenant::id::MessageKey;

/// Number of bytes of a message in one chunk of the answer.
const CHUNK: usize = 16 * 1024;

/// `GET /users/{u}[/mailFolders/{f}]/messages`
pub fn list(call: &Call) -> Answer {
    if call.query.get("$search").is_some() {
        return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", "The simulator does not search."));
    }
    let size = call.page_size(PAGE_ROWS, PAGE_ROWS_MAX)?;
    let skip = call.query.number("$skip")?.unwrap_or(0);
    let (keys, folder, searched) = call.with_mailbox(|mailbox| {
        let folder = call.route.folder.as_ref().map(|_| resolve_folder(call, mailbox)).transpose()?;
        let search = folder.and_then(|folder| mailbox.folder(folder)?.search.clone());
        let keys = match &search {
            // A search folder shows messages of other folders.
            Some(search) => {
                Arc::new(search.sources.iter().flat_map(|source| mailbox.listing(Some(*source)).to_vec()).collect())
            }
            None => mailbox.listing(folder),
        };
        Ok((
            keys,
            folder.map(|folder| mailbox.folder_id(folder)),
            search.and_then(|search| Filter::parse(&search.filter).ok()),
        ))
    })?;
    let filter = match (call.query.filter()?, searched) {
        (Some(filter), Some(searched)) => Some(Filter::And(Box::new(filter), Box::new(searched))),
        (filter, searched) => filter.or(searched),
    };
    let order = call.query.order_by();
    check_order(filter.as_ref(), &order)?;
    let mut shape = Shape::new(call, &call.query)?;
    let plain = order.is_empty() || matches!(order.as_slice(), [(name, true)] if name == "receivedDateTime");
    let (views, total) = if filter.is_none() && plain {
        let page: Vec<MessageKey> = keys.iter().skip(skip).take(size).copied().collect();
        (views(call, &page)?, keys.len())
    } else {
        let needed = filter.iter().flat_map(Filter::properties).chain(order.iter().map(|(name, _)| first(name)));
        shape.select = shape.select.needing(needed);
        let found = search(call, &shape, &keys, filter.as_ref(), &order)?;
        let total = found.len();
        (found.into_iter().skip(skip).take(size).collect(), total)
    };
    let rows: Vec<Value> = views.iter().map(|view| shape.message(&call.state.tenant, view)).collect();
    let path = match folder {
        Some(folder) => format!("users('{}')/mailFolders('{folder}')/messages", call.user()?.id),
        None => format!("users('{}')/messages", call.user()?.id),
    };
    let mut annotations = Vec::new();
    if call.query.is_true("$count") {
        annotations.push(("@odata.count", json!(total)));
    }
    if skip + size < total {
        let mut query = call.query.clone();
        query.set("$skip", Some((skip + size).to_string()));
        annotations.push(("@odata.nextLink", json!(call.link(&path, &query))));
    }
    Ok(collection(call.context(&path), rows, annotations))
}

fn first(path: &str) -> String {
    path.split('/').next().unwrap_or(path).to_owned()
}

/// With a filter, `$orderby` must begin with the filtered properties (Graph: "List messages").
fn check_order(filter: Option<&Filter>, order: &[(String, bool)]) -> Result<(), ApiError> {
    let (Some(filter), Some((name, _))) = (filter, order.first()) else { return Ok(()) };
    if filter.properties().first().is_some_and(|property| property.eq_ignore_ascii_case(&first(name))) {
        return Ok(());
    }
    Err(ApiError::bad_request("InefficientFilter", "The restriction or sort order is too complex for this operation."))
}

/// Returns the messages that match a filter, in the requested order.
fn search(
    call: &Call,
    shape: &Shape,
    keys: &[MessageKey],
    filter: Option<&Filter>,
    order: &[(String, bool)],
) -> Result<Vec<View>, ApiError> {
    let markers = filter.map(|filter| filter.texts_compared_with("id")).unwrap_or_default();
    let shape = Shape { extended: [shape.extended.clone(), markers].concat(), ..shape.clone() };
    let mut found: Vec<(Value, View)> = views(call, keys)?
        .into_iter()
        .map(|view| (Value::Object(shape.full(&call.state.tenant, &view)), view))
        .filter(|(message, _)| filter.is_none_or(|filter| filter.holds(message)))
        .collect();
    for (name, descending) in order.iter().rev() {
        let key = |message: &Value| {
            let mut at = message;
            for part in name.split('/') {
                at = &at[part];
            }
            at.as_str().map_or_else(|| at.to_string(), str::to_lowercase)
        };
        found.sort_by_cached_key(|(message, _)| key(message));
        if *descending {
            found.reverse();
        }
    }
    Ok(found.into_iter().map(|(_, view)| view).collect())
}

fn views(call: &Call, keys: &[MessageKey]) -> Result<Vec<View>, ApiError> {
    call.with_mailbox(|mailbox| {
        let records = keys.iter().filter_map(|key| Some((*key, mailbox.message(*key)?)));
        Ok(records.map(|(key, record)| View::new(mailbox, key, record)).collect())
    })
}

/// `GET /users/{u}[/mailFolders/{f}]/messages/$count`
pub fn count(call: &Call) -> Answer {
    let count = call.with_mailbox(|mailbox| {
        Ok(match call.route.folder {
            Some(_) => {
                let key = resolve_folder(call, mailbox)?;
                mailbox.folder(key).map_or(0, |folder| folder.total as usize)
            }
            None => mailbox.len(),
        })
    })?;
    Ok(([(header::CONTENT_TYPE, "text/plain")], count.to_string()).into_response())
}

/// `GET /users/{u}/messages/{m}`
pub fn get(call: &Call) -> Answer {
    let view = view(call)?;
    view.check_readable()?;
    let shape = Shape::new(call, &call.query)?;
    let mut body = shape.message(&call.state.tenant, &view);
    if let Some(expand) = call.query.expand().iter().find(|expand| expand.name == "attachments") {
        body["attachments"] = json!(attachments::rows(call, &view, &Query::parse_options(&expand.options)));
    }
    body["@odata.context"] = json!(call.context(&format!("users('{}')/messages/$entity", call.user()?.id)));
    Ok(json_answer(StatusCode::OK, &body))
}

/// `GET /users/{u}/messages/{m}/$value`
pub fn value(call: &Call) -> Answer {
    let view = view(call)?;
    view.check_renderable()?;
    let mime = call.state.tenant.mime(&view.guid, view.key, &view.record);
    let chunks: Vec<Result<Vec<u8>, std::io::Error>> = mime.chunks(CHUNK).map(|chunk| Ok(chunk.to_vec())).collect();
    // Streamed without a length, because the service does not know the length before it has rendered the message.
    let body = Body::from_stream(futures_util::stream::iter(chunks));
    Ok(([(header::CONTENT_TYPE, "text/plain")], body).into_response())
}

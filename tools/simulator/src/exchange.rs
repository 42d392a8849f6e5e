//! Mailbox import and export: `/admin/exchange/mailboxes`, another view of the same mailboxes.
//!
//! This API has its own ids for mailboxes, folders and items. It sees folders of every class, exports whole items and
//! imports them ("Overview of the mailbox import and export APIs in Microsoft Graph"). Folder ids differ on purpose
//! from those of `mailFolders`, and item ids change with every move, whatever `Prefer` says: the documentation promises
//! nothing about either.

mod ids;
mod items;
mod sessions;
mod stream;
mod transfer;

pub use ids::{mailbox_id, owner};
pub use sessions::Transfers;
pub use stream::{Facts, Item, NotAStream};
pub use transfer::router;

use ids::{to_exchange_id, to_mail_folder_id};

use axum::http::{Method, StatusCode};
use axum::response::IntoResponse as _;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::mail::paths;
use crate::odata::Query;
use crate::server::{Answer, ApiError, Call, Operation, Version, json_answer, page};
use crate::tenant::id::FolderKey;
use crate::tenant::{Folder, Mailbox, UNNAMED};
use crate::{delta, extended};

/// Answers a call to `settings/exchange` or below `/admin/exchange/mailboxes`.
///
/// # Errors
/// The service's error.
pub fn answer(call: &Call) -> Answer {
    if call.state.tenant.switches().no_import_export {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "ResourceNotFound",
            "The API is not available in this cloud.",
        ));
    }
    if call.route.operation == Operation::GetExchangeSettings {
        return settings(call);
    }
    let mut rest = call.route.rest.clone();
    let mailbox = rest.remove(0);
    let Some(user) = owner(&call.state.tenant, &mailbox) else {
        return Err(ApiError::new(StatusCode::NOT_FOUND, "ErrorInvalidMailboxId", "The mailbox was not found."));
    };
    let mut call = call.clone();
    call.route.user = Some(user);
    let lower: Vec<String> = rest.iter().map(|segment| segment.trim_end_matches("()").to_ascii_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    let exchange = ExchangeMailbox { path: format!("admin/exchange/mailboxes/{mailbox}") };
    if let ["folders", _, "items", _, ..] = lower.as_slice()
        && lower[3] != "delta"
    {
        call.route.message = Some(rest[3].clone());
    }
    if let ["folders", folder, ..] = lower.as_slice()
        && *folder != "delta"
    {
        call.route.folder = Some(to_mail_folder_id(&rest[1])?);
    }
    match (&call.method, lower.as_slice()) {
        (&Method::GET, ["folders"]) => exchange.list(&call),
        (&Method::GET, ["folders", "delta"]) => exchange.folders_delta(&call),
        (&Method::GET, ["folders", _]) => exchange.get(&call),
        (&Method::GET, ["folders", _, "childfolders"]) => exchange.list(&call),
        (&Method::GET, ["folders", _, "childfolders", "delta"]) => exchange.folders_delta(&call),
        (&Method::POST, ["folders"] | ["folders", _, "childfolders"]) => exchange.create(&call),
        (&Method::PATCH, ["folders", _]) => exchange.rename(&call),
        (&Method::DELETE, ["folders", _]) => exchange.delete(&call),
        (&Method::GET, ["folders", _, "items"]) => items::list(&call, &exchange),
        (&Method::GET, ["folders", _, "items", "delta"]) => items::delta(&call, &exchange),
        (&Method::GET, ["folders", _, "items", _]) => items::get(&call, &exchange),
        (&Method::DELETE, ["folders", _, "items", _]) => items::delete(&call),
        (&Method::POST, ["exportitems"]) => transfer::export(&call),
        (&Method::POST, ["createimportsession"]) => transfer::create_session(&call, &mailbox),
        _ => Err(ApiError::unknown_segment(rest.last().map_or("", String::as_str))),
    }
}

fn settings(call: &Call) -> Answer {
    let (guid, user) = (call.with_mailbox(|mailbox| Ok(mailbox.guid))?, call.user()?);
    let primary = mailbox_id(&guid, &call.state.tenant);
    let mut body = json!({
        "@odata.context": call.context(&format!("users('{}')/settings/exchange/$entity", user.id)),
        "primaryMailboxId": primary,
    });
    if call.route.version == Version::Beta {
        body["id"] = json!(user.id);
        body["inPlaceArchiveMailboxId"] = Value::Null;
    }
    Ok(json_answer(StatusCode::OK, &body))
}

/// One mailbox of this API.
struct ExchangeMailbox {
    /// Its path after the version.
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewFolder {
    display_name: String,
    r#type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Renamed {
    display_name: String,
}

impl ExchangeMailbox {
    /// Returns the folder whose children the call concerns: the one in the path, or the top folder.
    fn parent(call: &Call, mailbox: &Mailbox) -> Result<FolderKey, ApiError> {
        paths::find_folder(mailbox, call.route.folder.as_deref().unwrap_or("msgfolderroot"))
    }

    fn list(&self, call: &Call) -> Answer {
        let (rows, id) = call.with_mailbox(|mailbox| {
            let parent = Self::parent(call, mailbox)?;
            let children = mailbox.folder(parent).map(|folder| folder.children.clone()).unwrap_or_default();
            let rows = children.into_iter().filter_map(|key| self.json(call, mailbox, key, &call.query)).collect();
            Ok((rows, to_exchange_id(&mailbox.folder_id(parent))))
        })?;
        let path = match call.route.folder {
            Some(_) => format!("{}/folders('{id}')/childFolders", self.path),
            None => format!("{}/folders", self.path),
        };
        page(call, rows, &path)
    }

    fn folders_delta(&self, call: &Call) -> Answer {
        let only = call.with_mailbox(|mailbox| {
            let parent = Self::parent(call, mailbox)?;
            Ok(call.route.folder.is_some().then(|| (parent, mailbox.folder_id(parent))))
        })?;
        let path = match &only {
            Some((_, id)) => format!("{}/folders('{}')/childFolders", self.path, to_exchange_id(id)),
            None => format!("{}/folders", self.path),
        };
        let show = |mailbox: &Mailbox, key: FolderKey, query: &Query| {
            let inside = only
                .as_ref()
                .is_none_or(|(parent, _)| mailbox.folder(key).is_some_and(|folder| folder.parent == Some(*parent)));
            if !inside {
                return None;
            }
            let mut row = self.json(call, mailbox, key, query)?;
            query.select().retain(row.as_object_mut()?);
            Some(row)
        };
        delta::folders_with(call, &path, "mailboxFolder", show, |id, _| Some(to_exchange_id(&id)))
    }

    fn get(&self, call: &Call) -> Answer {
        let body = call.with_mailbox(|mailbox| {
            let key = paths::resolve_folder(call, mailbox)?;
            self.json(call, mailbox, key, &call.query).ok_or_else(ApiError::item_not_found)
        })?;
        Ok(json_answer(StatusCode::OK, &body))
    }

    fn create(&self, call: &Call) -> Answer {
        let new: NewFolder = call.json()?;
        let body = call.with_mailbox(|mailbox| {
            let parent = Self::parent(call, mailbox)?;
            // Adding a plain folder checks the name. The class can only be set at creation.
            let key = mailbox.add_folder(parent, &new.display_name, false)?;
            mailbox.set_folder_class(key, new.r#type)?;
            self.json(call, mailbox, key, &Query::default()).ok_or_else(ApiError::item_not_found)
        })?;
        Ok(json_answer(StatusCode::CREATED, &body))
    }

    fn rename(&self, call: &Call) -> Answer {
        let renamed: Renamed = call.json()?;
        let body = call.with_mailbox(|mailbox| {
            let key = paths::resolve_folder(call, mailbox)?;
            mailbox.rename_folder(key, &renamed.display_name)?;
            self.json(call, mailbox, key, &Query::default()).ok_or_else(ApiError::item_not_found)
        })?;
        Ok(json_answer(StatusCode::OK, &body))
    }

    fn delete(&self, call: &Call) -> Answer {
        call.with_mailbox(|mailbox| {
            let key = paths::resolve_folder(call, mailbox)?;
            Ok(mailbox.remove_folder(key)?)
        })?;
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    fn json(&self, call: &Call, mailbox: &Mailbox, key: FolderKey, query: &Query) -> Option<Value> {
        let folder: &Folder = mailbox.folder(key)?;
        let mut row = json!({
            "id": to_exchange_id(&mailbox.folder_id(key)),
            "displayName": folder.name,
            "parentFolderId": folder.parent.map(|parent| to_exchange_id(&mailbox.folder_id(parent))),
            "parentMailboxUrl": format!("{}/{}/{}", call.state.url, call.route.version.name(), self.path),
            "childFolderCount": folder.children.len(),
            "totalItemCount": folder.total,
            "wellKnownName": folder.well_known.filter(|name| !UNNAMED.contains(name)),
            "type": folder.class,
        });
        let wanted = extended::wanted(query, "singlevalueextendedproperties");
        let found = wanted.iter().filter_map(|id| {
            let value = folder.extended.get(&extended::canonical(id))?;
            Some(json!({"id": id, "value": value}))
        });
        let found: Vec<Value> = found.collect();
        if !found.is_empty() {
            row["singleValueExtendedProperties"] = json!(found);
        }
        Some(row)
    }
}

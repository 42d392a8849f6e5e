//! Other parts of a mailbox: categories, rules, and the translation of ids between formats.

use axum::http::StatusCode;
use base64::{Engine, engine::general_purpose::URL_SAFE};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use strongroom_corpora::rng::Rng;

use crate::server::{Answer, ApiError, Call, collection, json_answer};
use crate::tenant::id::{IdFormat, Named};
use crate::tenant::{Mailbox, message_id};

/// Maximum number of ids that Graph translates in one request.
const IDS_MAX: usize = 1000;

/// `GET /users/{u}/outlook/masterCategories`
pub fn list_categories(call: &Call) -> Answer {
    let rows = call
        .with_mailbox(|mailbox| Ok(mailbox.categories.iter().map(|(name, colour)| category(name, colour)).collect()))?;
    let context = format!("users('{}')/outlook/masterCategories", call.user()?.id);
    Ok(collection(call.context(&context), rows, Vec::new()))
}

fn category(name: &str, colour: &str) -> Value {
    json!({"id": Rng::for_purpose(4, name).uuid(), "displayName": name, "color": colour})
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewCategory {
    display_name: String,
    #[serde(default = "no_colour")]
    color: String,
}

fn no_colour() -> String {
    "none".to_owned()
}

/// `POST /users/{u}/outlook/masterCategories`
pub fn create_category(call: &Call) -> Answer {
    let NewCategory { display_name: name, color } = call.json()?;
    call.with_mailbox(|mailbox| {
        if mailbox.categories.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name)) {
            let text = "A category with the specified name already exists.";
            return Err(ApiError::new(StatusCode::CONFLICT, "CategoryNameDuplicate", text));
        }
        mailbox.categories.push((name.clone(), color.clone()));
        Ok(())
    })?;
    Ok(json_answer(StatusCode::CREATED, &category(&name, &color)))
}

/// `GET /users/{u}/mailFolders/inbox/messageRules`
pub fn list_rules(call: &Call) -> Answer {
    let rows = call.with_mailbox(|mailbox| {
        check_inbox(call, mailbox)?;
        Ok(mailbox.rules.clone())
    })?;
    let context = format!("users('{}')/mailFolders('inbox')/messageRules", call.user()?.id);
    Ok(collection(call.context(&context), rows, Vec::new()))
}

/// `POST /users/{u}/mailFolders/inbox/messageRules`
pub fn create_rule(call: &Call) -> Answer {
    let mut rule: Map<String, Value> = call.json()?;
    call.with_mailbox(|mailbox| {
        check_inbox(call, mailbox)?;
        rule.insert("id".to_owned(), json!(format!("AQAAA{:07}=", mailbox.rules.len() + 1)));
        rule.entry("isReadOnly").or_insert(json!(false));
        rule.entry("hasError").or_insert(json!(false));
        mailbox.rules.push(Value::Object(rule.clone()));
        Ok(())
    })?;
    Ok(json_answer(StatusCode::CREATED, &Value::Object(rule)))
}

/// Checks that the folder is the inbox, as only the inbox has rules.
fn check_inbox(call: &Call, mailbox: &Mailbox) -> Result<(), ApiError> {
    let folder = super::paths::resolve_folder(call, mailbox)?;
    if mailbox.folder(folder).is_some_and(|folder| folder.well_known == Some("inbox")) {
        return Ok(());
    }
    Err(ApiError::bad_request("ErrorInvalidRequest", "Rules belong to the inbox."))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Translation {
    input_ids: Vec<String>,
    source_id_type: Format,
    target_id_type: Format,
}

/// Formats of ids (Graph: "user: translateExchangeIds").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Format {
    #[serde(rename = "entryId")]
    Entry,
    #[serde(rename = "ewsId")]
    Ews,
    #[serde(rename = "immutableEntryId")]
    ImmutableEntry,
    #[serde(rename = "restId")]
    Rest,
    #[serde(rename = "restImmutableEntryId")]
    RestImmutableEntry,
}

impl Format {
    fn ids(self) -> IdFormat {
        match self {
            Self::Entry | Self::Ews | Self::Rest => IdFormat::Default,
            Self::ImmutableEntry | Self::RestImmutableEntry => IdFormat::Immutable,
        }
    }

    /// Converts an id of Graph to this format.
    fn write(self, rest: String) -> String {
        match self {
            Self::Rest | Self::RestImmutableEntry => rest,
            Self::Ews => rest.replace('-', "/").replace('_', "+"),
            // Entry ids are bytes, shown in base64 like all other ids.
            Self::Entry | Self::ImmutableEntry => URL_SAFE.encode(rest.trim_end_matches('=')),
        }
    }

    /// Converts an id in this format to the id of Graph.
    fn read(self, id: &str) -> Option<String> {
        Some(match self {
            Self::Rest | Self::RestImmutableEntry => id.to_owned(),
            Self::Ews => id.replace('/', "-").replace('+', "_"),
            Self::Entry | Self::ImmutableEntry => {
                format!("{}=", String::from_utf8(URL_SAFE.decode(id).ok()?).ok()?)
            }
        })
    }
}

/// `POST /users/{u}/translateExchangeIds`
pub fn translate_ids(call: &Call) -> Answer {
    let Translation { input_ids, source_id_type, target_id_type } = call.json()?;
    if input_ids.len() > IDS_MAX {
        let text = format!("The number of ids must not exceed {IDS_MAX}.");
        return Err(ApiError::bad_request("ErrorInvalidRequest", text));
    }
    let rows = call.with_mailbox(|mailbox| {
        let translated = |id: &String| {
            let rest = source_id_type.read(id)?;
            let rest = match Named::decode(&rest, &mailbox.guid)? {
                folder @ Named::Folder(_) => folder.encode(&mailbox.guid),
                Named::Message(_) | Named::MessageInPlace(..) => {
                    let key = mailbox.resolve_item(&rest)?;
                    message_id(&mailbox.guid, key, mailbox.message(key)?.moves, target_id_type.ids())
                }
                Named::Attachment { .. } | Named::Occurrence { .. } => return None,
            };
            Some(target_id_type.write(rest))
        };
        let row = |id: &String| match translated(id) {
            Some(target) => json!({"sourceId": id, "targetId": target}),
            None => json!({"sourceId": id, "targetId": null, "errorDetails":
                {"code": "ErrorInvalidIdMalformed", "message": "Id is malformed."}}),
        };
        Ok(input_ids.iter().map(row).collect())
    })?;
    Ok(collection(call.context("Collection(microsoft.graph.convertIdResult)"), rows, Vec::new()))
}

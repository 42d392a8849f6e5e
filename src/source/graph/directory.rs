//! Who there is in an organisation, and what kind of mailbox each of them has.

use super::client::Client;
use super::error::{ErrorKind, GraphError};
use super::model::{Page, User};
use super::request::{Request, Scope, path};
use serde_json::Value;

const USER_FIELDS: &str = "id,userPrincipalName,mail,displayName,accountEnabled,userType,assignedLicenses,assignedPlans,\
    onPremisesSyncEnabled";

/// Returns the id of the organisation; `None` where the permission to ask is missing.
///
/// # Errors
/// See [`GraphError`].
pub async fn organisation(client: &Client) -> Result<Option<String>, GraphError> {
    let request = Request::get(path(&["organization"]), Scope::Directory).query("$select", "id");
    match client.json::<Page<Value>>(request.labelled("reading the organisation")).await {
        Ok(page) => Ok(page.value.first().and_then(|row| row.get("id")).and_then(text).map(str::to_owned)),
        Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::MissingPermission) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Lists the users of the organisation. Neither licence nor account tells whether there is a mailbox: shared mailboxes have
/// none of both (Graph: user: list).
///
/// # Errors
/// See [`GraphError`].
pub async fn users(client: &Client) -> Result<Vec<User>, GraphError> {
    const LABEL: &str = "listing users";
    let mut request =
        Request::get(path(&["users"]), Scope::Directory).query("$select", USER_FIELDS).query("$top", "999");
    let mut users = Vec::new();
    loop {
        let page: Page<User> = client.json(request.labelled(LABEL)).await?;
        users.extend(page.value);
        let Some(next) = page.next else { return Ok(users) };
        request = Request::follow(next, Scope::Directory);
    }
}

/// Returns what a mailbox is for: `user`, `shared`, `room`, `equipment` and so on; `None` where it cannot be told.
///
/// # Errors
/// See [`GraphError`]; a missing permission (`MailboxSettings.Read`) is none.
pub async fn purpose(client: &Client, user: &str) -> Result<Option<String>, GraphError> {
    let request = Request::get(path(&["users", user, "mailboxSettings", "userPurpose"]), Scope::mailbox(user));
    match client.json::<Value>(request.labelled("reading the kind of a mailbox")).await {
        // The service answers in either form.
        Ok(answer) => Ok(text(&answer).or_else(|| answer.get("value").and_then(text)).map(str::to_owned)),
        Err(error) => match error.kind() {
            ErrorKind::Denied | ErrorKind::MissingPermission | ErrorKind::NotFound | ErrorKind::BadRequest => Ok(None),
            _ => Err(error),
        },
    }
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("value").and_then(Value::as_str))
}

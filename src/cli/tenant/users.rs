//! `strongroom tenant users`

use super::{interactive, sets_of, takes};
use crate::cli::Session;
use crate::cli::connect::block_on;
use crate::cli::error::Exit;
use crate::cli::output::{self, table};
use crate::settings::CredentialSettings;
use crate::source::graph::directory::{self, Mailbox, User};
use crate::source::graph::{Client, GraphError};
use anyhow::{Context, Result};
use futures_util::stream::{self, StreamExt};
use serde_json::json;

type Row = (User, Result<Mailbox, GraphError>);

pub fn run(session: &Session, name: &str) -> Result<Exit> {
    let settings = session.settings()?;
    let tenant = settings.tenant(name)?;
    let connection = interactive(session.connection(tenant)?);
    let concurrency = connection.concurrency;
    let client = Client::new(connection)?;
    let delegated = matches!(tenant.credential, CredentialSettings::Login);
    let rows = block_on(list(&client, delegated, concurrency))?;
    let rows = rows.with_context(|| format!("could not list the users of {name}"))?;

    let sets = sets_of(settings, name);
    let sets_of_user = |(user, mailbox): &Row| -> Vec<&str> {
        let is_readable = mailbox.as_ref().is_ok_and(|mailbox| mailbox.is_readable());
        sets.iter().filter(|(_, set)| is_readable && takes(set, user)).map(|(name, _)| *name).collect()
    };
    for (user, error) in rows.iter().filter_map(|(user, mailbox)| Some((user, mailbox.as_ref().err()?))) {
        output::message(format_args!("failed: {}: {error}", output::path(user.name().as_bytes())));
    }
    if session.output().json {
        let list: Vec<_> = rows.iter().map(|row| json_of(row, &sets_of_user(row))).collect();
        session.output().json(&list)?;
    } else {
        let mut text = vec![["name", "mailbox", "licensed", "sets", "display name"].map(str::to_owned).to_vec()];
        text.extend(rows.iter().map(|row| {
            let (user, mailbox) = row;
            vec![
                output::path(user.name().as_bytes()),
                mailbox.as_ref().map_or("unknown", |mailbox| mailbox.name()).to_owned(),
                if user.is_licensed() { "yes" } else { "no" }.to_owned(),
                output::path(sets_of_user(row).join(", ").as_bytes()),
                output::path(user.display_name.as_bytes()),
            ]
        }));
        table(&text, &[])?;
    }
    Ok(if rows.iter().all(|(_, mailbox)| mailbox.is_ok()) { Exit::Done } else { Exit::Partial })
}

async fn list(client: &Client, delegated: bool, concurrency: usize) -> Result<Vec<Row>, GraphError> {
    let users = match delegated {
        true => vec![directory::me(client).await?],
        false => directory::users(client).await?,
    };
    let rows = stream::iter(users).map(|user| async {
        let mailbox = directory::mailbox(client, &user).await;
        (user, mailbox)
    });
    let mut rows: Vec<Row> = rows.buffer_unordered(concurrency).collect().await;
    rows.sort_by_key(|(user, _)| user.name());
    Ok(rows)
}

fn json_of((user, mailbox): &Row, sets: &[&str]) -> serde_json::Value {
    json!({
        "name": user.name(),
        "id": user.id,
        "display_name": user.display_name,
        "mailbox": mailbox.as_ref().ok().map(|mailbox| mailbox.name()),
        "licensed": user.is_licensed(),
        "enabled": user.account_enabled,
        "sets": sets,
        "error": mailbox.as_ref().err().map(ToString::to_string),
    })
}

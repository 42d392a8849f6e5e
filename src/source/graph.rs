//! Microsoft 365 through Microsoft Graph: the client, and what it reads and writes.
//!
//! The client, in the order in which a request passes through it:
//!
//! - [`cloud`]: the hosts of each Microsoft cloud, or custom endpoints;
//! - [`request`]: what is asked for, which part of the tenant it concerns, and whether it may be sent twice;
//! - [`auth`]: signing in, and tokens;
//! - [`throttle`]: delays requests so that the service need not refuse them;
//! - [`client`]: sends a request, and repeats it if [`retry`] says so;
//! - [`pace`]: how slowly an answer may arrive;
//! - `pages`: collections, read page by page and row by row;
//! - [`error`]: errors, in kinds that a caller treats differently.
//!
//! What is read and written through it:
//!
//! - [`directory`]: the organisation, its users, and their mailboxes;
//! - [`mail`]: folders, changes and messages of a mailbox;
//! - [`contacts`]: folders, changes and contacts of a mailbox; [`calendars`]: calendars and their events;
//! - [`tasks`]: lists, changes and tasks of a user;
//! - [`round`]: lists the items of a folder, or what changed in it;
//! - [`write`](mod@write): creates folders and messages for a restore;
//! - [`exchange`]: exports and imports messages with all their properties;
//! - [`model`]: the service's JSON for folders and messages;
//! - [`eml`]: builds a mail from its properties if the service cannot deliver the mail itself;
//! - [`expected`]: compares what was downloaded with what a list said about it;
//! - [`probe`]: tries what a backup needs, and reports what is missing.
//!
//! Invariants of this module:
//! - A token goes to the configured Graph endpoint and nowhere else. Redirects are not followed.
//! - No secret, token, address, subject or body is logged, at any level.
//! - A transient failure is tried again, up to a limit that has a name. After that the result is an error, never an
//!   empty answer.
//! - A request that creates something is not sent again after a failure that may have been a success.
//!
//! This module does not remember what was read; its callers do.

mod answer;
pub mod auth;
pub mod calendars;
pub mod client;
pub mod cloud;
mod connection;
pub mod contacts;
pub mod directory;
pub mod eml;
pub mod error;
pub mod exchange;
pub mod expected;
mod http;
mod json;
pub mod mail;
pub mod model;
pub mod pace;
mod pages;
pub mod probe;
pub mod request;
pub mod retry;
pub mod round;
pub mod tasks;
#[cfg(test)]
mod testing;
pub mod throttle;
mod token_cache;
mod urls;
pub mod write;

pub use client::{Body, Client, Counters};
pub use cloud::{Cloud, Endpoints};
pub use connection::{Connection, Credential};
pub use error::{ErrorKind, GraphError};
pub use pace::Pace;
pub use request::{Request, Scope, Target};
pub use retry::RetryPolicy;
pub use throttle::Limits;
pub use token_cache::TokenCache;
pub use urls::path;

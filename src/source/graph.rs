//! Microsoft 365 over Microsoft Graph: the wire, what is read through it, and what is written.
//!
//! In the order in which a request flows:
//!
//! - [`cloud`]: which hosts to talk to, for each of Microsoft's clouds or for endpoints of one's own;
//! - [`request`]: what is asked for, of which part of the tenant, and whether it may be asked twice;
//! - [`auth`]: who asks; tokens, and how to get new ones;
//! - [`throttle`]: when a request may leave, so that the service never has to refuse it;
//! - [`client`]: sends it, and sends it again where [`retry`] says so;
//! - [`pace`]: how slowly the answer may come;
//! - `pages`: collections, page by page and row by row;
//! - [`error`]: what went wrong, in kinds that a caller treats differently.
//!
//! And what is read through it:
//!
//! - [`directory`]: the organisation, its users, and who has a mailbox;
//! - [`mail`]: folders, changes and messages of a mailbox;
//! - [`write`](mod@write): folders and messages that are made, for a restore;
//! - [`exchange`]: messages as whole as the service can give and take them;
//! - [`model`]: what the service says of them;
//! - [`eml`]: a mail made from what the service says of it, where it cannot give the mail itself;
//! - [`expected`]: holds what was downloaded against what was said of it before;
//! - [`probe`]: tries what a backup needs, and says what is missing.
//!
//! Invariants kept here:
//! - a token goes to the configured Graph endpoint and nowhere else, and follows no redirect;
//! - no secret, token, address, subject or body is logged at any level;
//! - a failure that may pass is tried again within a limit that has a name; what is given up is an error, never an
//!   empty answer;
//! - a request that makes something is never sent twice after a failure that may have been a success.
//!
//! Left to others: remembering what was read.

mod answer;
pub mod auth;
pub mod client;
pub mod cloud;
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
#[cfg(test)]
mod testing;
pub mod throttle;
pub mod write;

pub use auth::{Credential, TokenCache};
pub use client::{Body, Client, Connection, Counters};
pub use cloud::{Cloud, Endpoints};
pub use error::{ErrorKind, GraphError};
pub use pace::Pace;
pub use request::{Request, Scope, Target, path};
pub use retry::RetryPolicy;
pub use throttle::Limits;

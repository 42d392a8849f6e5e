//! Reads an event whole: with the changed and the cancelled instances of a series.
//!
//! Version 1.0 of the service may not tell them. Then beta is asked, which has told them for years. A series of which
//! neither tells them is an error, never a series without changes.

use super::Calendars;
use crate::content::event::cancelled_date;
use crate::source::graph::error::{ErrorKind, GraphError};
use crate::source::graph::expected::Expected;
use crate::source::graph::pages::Ends;
use crate::source::graph::request::{Request, Scope};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::atomic::Ordering;

const LABEL: &str = "reading an event";
const SERIES: &str = "reading the changed instances of a series";
/// Maximum number of changed instances of a series that one answer does not hold.
const EXCEPTIONS_MAX: usize = 10_000;

/// An event with all that the service says of it, except its attachments.
#[derive(Debug, Clone)]
pub struct WholeEvent {
    /// The JSON text as it came, unknown properties included. That of a series has its changed instances.
    pub raw: Box<RawValue>,
    /// The JSON texts of further changed instances, which did not fit into the same answer.
    pub further: Vec<Box<RawValue>>,
    /// The ids of the cancelled instances.
    pub cancelled: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    id: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    exception_occurrences: Option<Vec<serde::de::IgnoredAny>>,
    #[serde(rename = "exceptionOccurrences@odata.nextLink")]
    more: Option<String>,
    #[serde(default, deserialize_with = "present")]
    cancelled_occurrences: Option<Vec<String>>,
}

/// Tells a property that is `null` from one that is missing: `null` means that nothing is cancelled.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    Option::<Vec<String>>::deserialize(deserializer).map(|found| Some(found.unwrap_or_default()))
}

/// An answer and its text.
struct Text {
    answer: Answer,
    raw: Box<RawValue>,
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let answer = serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)?;
        Ok(Self { answer, raw })
    }
}

impl Answer {
    fn is_series(&self) -> bool {
        self.kind.as_deref() == Some("seriesMaster")
    }
}

impl Calendars {
    /// Reads an event whole. `is_series` says whether it was a series when it was listed.
    ///
    /// # Errors
    /// See [`GraphError`]; [`ErrorKind::NotFound`] if there is no such event, and [`ErrorKind::Malformed`] if the
    /// service does not tell how the instances of a series differ.
    pub async fn event(&self, id: &str, is_series: bool) -> Result<WholeEvent, GraphError> {
        let read = match is_series {
            true => self.series(id).await?,
            false => self.ask(self.get(LABEL, &["events", id]), id).await?,
        };
        if !read.answer.is_series() {
            return Ok(WholeEvent { raw: read.raw, further: Vec::new(), cancelled: Vec::new() });
        }
        // It may have become a series since it was listed.
        let read = if read.answer.exception_occurrences.is_some() { read } else { self.series(id).await? };
        let Text { answer, raw } = read;
        let further = match answer.more {
            Some(link) => self.further(link).await?,
            None => Vec::new(),
        };
        let cancelled = match answer.cancelled_occurrences {
            Some(cancelled) => cancelled,
            None => self.cancelled(id).await?,
        };
        if let Some(odd) = cancelled.iter().find(|id| cancelled_date(id).is_none()) {
            let why =
                format!("the id of a cancelled instance, with {} characters, does not end with its date", odd.len());
            return Err(GraphError::malformed(SERIES).explained(why));
        }
        Ok(WholeEvent { raw, further, cancelled })
    }

    async fn ask(&self, request: Request, id: &str) -> Result<Text, GraphError> {
        // Without this, the service changes the text of the event.
        let request = request.prefer("outlook.allow-unsafe-html");
        self.client.json_that(request, |found: &Text| Expected::id(id, &found.answer.id)).await
    }

    /// Reads a series with its changed instances: from v1.0 if that tells them, else from beta.
    async fn series(&self, id: &str) -> Result<Text, GraphError> {
        let expand = |request: Request| request.query("$expand", "exceptionOccurrences");
        if !self.beta.load(Ordering::Relaxed) {
            match self.ask(expand(self.get(SERIES, &["events", id])), id).await {
                // It has become a single event, or its changed instances are there.
                Ok(read) if !read.answer.is_series() || read.answer.exception_occurrences.is_some() => return Ok(read),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::BadRequest => {}
                Err(error) => return Err(error),
            }
        }
        let read = self.ask(expand(self.get_beta(SERIES, &["events", id])), id).await?;
        self.beta.store(true, Ordering::Relaxed);
        match read.answer.is_series() && read.answer.exception_occurrences.is_none() {
            true => Err(untold("changed")),
            false => Ok(read),
        }
    }

    async fn further(&self, link: String) -> Result<Vec<Box<RawValue>>, GraphError> {
        let request = Request::follow(link, Scope::Mailbox(self.user.clone())).labelled(SERIES);
        let request = request.prefer(super::IMMUTABLE_IDS).prefer("outlook.allow-unsafe-html");
        let mut rows = Vec::new();
        self.client.pages(request, Ends::Plainly).collect_into(&mut rows, EXCEPTIONS_MAX).await?;
        Ok(rows)
    }

    /// Asks for the cancelled instances. The service tells them only if they are selected.
    async fn cancelled(&self, id: &str) -> Result<Vec<String>, GraphError> {
        let select = |request: Request| request.query("$select", "id,type,cancelledOccurrences");
        if !self.beta.load(Ordering::Relaxed) {
            match self.ask(select(self.get(SERIES, &["events", id])), id).await {
                Ok(Text { answer: Answer { cancelled_occurrences: Some(cancelled), .. }, .. }) => return Ok(cancelled),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::BadRequest => {}
                Err(error) => return Err(error),
            }
        }
        let read = self.ask(select(self.get_beta(SERIES, &["events", id])), id).await?;
        self.beta.store(true, Ordering::Relaxed);
        read.answer.cancelled_occurrences.ok_or_else(|| untold("cancelled"))
    }
}

fn untold(which: &str) -> GraphError {
    GraphError::malformed(SERIES).explained(format!("the service does not tell the {which} instances"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::graph::testing::{Say, Service, error, json};

    async fn read(say: impl IntoIterator<Item = Say>) -> (Result<WholeEvent, GraphError>, Vec<String>) {
        let service = Service::start(say).await;
        let read = Calendars::new(service.client(), "u").event("e", true).await;
        let first = |request: String| request.lines().next().unwrap_or_default().to_owned();
        (read, service.requests("/events/").into_iter().map(first).collect())
    }

    #[tokio::test]
    async fn a_series_is_read_from_v1_or_else_from_beta() {
        let master = r#"{"id":"e","type":"seriesMaster","exceptionOccurrences":[{"id":"x","new":2.50}]}"#;
        let cancelled = r#"{"id":"e","cancelledOccurrences":["OID.e.2026-01-02"]}"#;
        let (found, asked) = read([json("200 OK", master), json("200 OK", cancelled)]).await;
        let found = found.expect("a series");
        assert_eq!((found.raw.get(), found.cancelled), (master, vec!["OID.e.2026-01-02".to_owned()]));
        assert!(asked.iter().all(|line| line.starts_with("GET /v1.0/")), "{asked:?}");
        let refusal = || error("400 Bad Request", "ErrorInvalidProperty");
        for first in [refusal(), json("200 OK", r#"{"id":"e","type":"seriesMaster"}"#)] {
            let (found, asked) = read([first, json("200 OK", master), json("200 OK", cancelled)]).await;
            assert_eq!(found.expect("a series").cancelled.len(), 1);
            let betas = asked.iter().filter(|line| line.starts_with("GET /beta/")).count();
            assert_eq!((asked.len(), betas), (3, 2), "{asked:?}");
        }
    }

    #[tokio::test]
    async fn a_series_whose_changes_nobody_tells_is_an_error() {
        let bare = || json("200 OK", r#"{"id":"e","type":"seriesMaster"}"#);
        let (found, _) = read([bare(), bare()]).await;
        assert_eq!(found.unwrap_err().kind(), ErrorKind::Malformed);
        let master = || json("200 OK", r#"{"id":"e","type":"seriesMaster","exceptionOccurrences":[]}"#);
        let (found, _) = read([master(), bare(), bare()]).await;
        assert_eq!(found.unwrap_err().kind(), ErrorKind::Malformed);
        let null = json("200 OK", r#"{"id":"e","cancelledOccurrences":null}"#);
        assert!(read([master(), null]).await.0.expect("a series").cancelled.is_empty());
        let odd = json("200 OK", r#"{"id":"e","cancelledOccurrences":["OID.e.tomorrow"]}"#);
        assert_eq!(read([master(), odd]).await.0.unwrap_err().kind(), ErrorKind::Malformed);
    }
}

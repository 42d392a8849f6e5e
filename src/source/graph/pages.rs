//! Collections: page by page, and of a page row by row.
//!
//! All answers with pages are read here. A service, or somebody between, may give out links that lead in a circle or
//! never come to an end, and pages of millions of rows; so everything has a limit here, far above what the service
//! does. Rows are not taken for what they are until somebody wants them: until then a page is the text that came, and
//! where its rows stand.

use super::client::{Client, Failure};
use super::error::{ErrorKind, GraphError};
use super::json;
use super::request::{Request, Target};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::fmt;
use tokio::sync::OwnedSemaphorePermit;

#[cfg(test)]
mod tests;

/// Rows of one page. What is asked for has 999 at most, and a service may give a few more.
const PAGE_ROWS_MAX: usize = 5_000;
/// A row of a message with five hundred recipients of each kind has 200 KB.
const ROW_BYTES_MAX: usize = 4 << 20;
/// Pages of one collection: a million rows at ten a page, which is the least that the service gives.
const PAGES_MAX: u32 = 100_000;
/// Pages without a row, one after the other. A few occur (Graph: "Paging Microsoft Graph data in your app").
const EMPTY_PAGES_MAX: u32 = 1_000;
/// Rows of one collection. A folder of a mailbox holds a million messages (Exchange Online limits), an organisation
/// rarely more users.
const ROWS_MAX: u64 = 4_000_000;
/// A collection that is kept in memory came as so many bytes, at most: half a million folders do.
const COLLECTED_BYTES_MAX: u64 = 256 << 20;
/// No URL is longer: servers refuse them (RFC 9110, 4.1, asks for 8,000 bytes).
pub(super) const LINK_BYTES_MAX: usize = 32 << 10;

/// One page of a collection.
pub(super) struct Page {
    label: &'static str,
    rows: Vec<Bytes>,
    next: Option<String>,
    delta: Option<String>,
    /// The room that a large answer takes in memory.
    _room: Option<OwnedSemaphorePermit>,
}

impl Page {
    /// Returns its rows, one after the other.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] for each that is not of this kind.
    pub(super) fn rows<T: DeserializeOwned>(&self) -> impl Iterator<Item = Result<T, GraphError>> + '_ {
        self.rows.iter().map(|row| {
            let read = if row.len() <= ROW_BYTES_MAX { json::read(row).ok() } else { None };
            read.ok_or_else(|| {
                let why = format!("a row of {} bytes is not of the kind that was expected", row.len());
                GraphError::malformed(self.label).explained(why)
            })
        })
    }
}

/// What of a page is looked at.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    value: Rows<'a>,
    #[serde(rename = "@odata.nextLink")]
    next: Option<String>,
    #[serde(rename = "@odata.deltaLink")]
    delta: Option<String>,
}

/// The texts of rows.
struct Rows<'a>(Vec<&'a RawValue>);

/// What the error of a page says that has too many.
const TOO_MANY: &str = "a page has too many rows";

impl<'de: 'a, 'a> Deserialize<'de> for Rows<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Rows<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("rows")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Self::Value, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = rows.next_element::<&'de RawValue>()? {
                    if texts.len() == PAGE_ROWS_MAX {
                        // The rest, which may be millions, is not even looked at.
                        return Err(A::Error::custom(TOO_MANY));
                    }
                    texts.push(text);
                }
                Ok(Rows(texts))
            }
        }
        deserializer.deserialize_seq(Collect)
    }
}

/// Reads a page out of the text that came.
fn read(body: &Bytes, label: &'static str) -> Result<Page, Failure> {
    let parse = |body: &Bytes| -> Result<Page, serde_json::Error> {
        let Envelope { value: Rows(texts), next, delta } = serde_json::from_slice(body)?;
        let rows = texts.iter().map(|text| body.slice_ref(text.get().as_bytes())).collect();
        Ok(Page { label, rows, next, delta, _room: None })
    };
    let has_too_many = |error: &serde_json::Error| error.is_data() && error.to_string().starts_with(TOO_MANY);
    let parsed = parse(body).or_else(|error| match has_too_many(&error) {
        true => Err(error),
        false => json::mend(body).map_or(Err(error), |mended| parse(&Bytes::from(mended))),
    });
    parsed.map_err(|error| match has_too_many(&error) {
        true => {
            let why = format!("a page has more than {PAGE_ROWS_MAX} rows");
            Failure::after_success(GraphError::new(ErrorKind::TooLarge, label).explained(why))
        }
        false => Failure::of_json(label, body.len(), &error),
    })
}

impl Client {
    /// Asks for one page of a collection.
    ///
    /// # Errors
    /// As [`Client::json`]; [`ErrorKind::TooLarge`] for one with more than [`PAGE_ROWS_MAX`] rows.
    pub(super) async fn page(&self, request: &Request) -> Result<Page, GraphError> {
        let label = request.label;
        let (page, room) = self.json_with(request, |body| read(body, label)).await?;
        Ok(Page { _room: room, ..page })
    }

    /// Reads a collection from the page on that `first` asks for.
    pub(super) fn pages(&self, first: Request, ends: Ends) -> Pages {
        Pages {
            client: self.clone(),
            label: first.label,
            ends,
            state: State::More(Box::new(first)),
            links: HashSet::new(),
            pages: 0,
            empty: 0,
            rows: 0,
        }
    }

    /// Returns all rows of a collection, of `max` and [`COLLECTED_BYTES_MAX`] at most.
    ///
    /// # Errors
    /// See [`GraphError`]; [`ErrorKind::TooLarge`] when there are more.
    pub(super) async fn collect<T: DeserializeOwned>(&self, first: Request, max: usize) -> Result<Vec<T>, GraphError> {
        let (mut pages, mut rows) = (self.pages(first, Ends::Plainly), Vec::new());
        pages.collect_into(&mut rows, max).await?;
        Ok(rows)
    }

    /// Returns whether `link` may be followed: it leads to the Graph endpoint, and is not longer than a link can be.
    pub(super) fn may_follow(&self, link: &str) -> bool {
        link.len() <= LINK_BYTES_MAX && self.leads_somewhere(Target::Link(link.to_owned()))
    }
}

/// How a collection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// With a page that has no link.
    Plainly,
    /// With a link that tells changes from then on. A page without any link is not the last, but damaged.
    WithDeltaLink,
}

enum State {
    More(Box<Request>),
    Complete(Option<String>),
    Failed,
}

/// A collection on its way. Only one that came to its end may be believed.
pub(super) struct Pages {
    client: Client,
    label: &'static str,
    ends: Ends,
    state: State,
    /// What links stand for that were followed.
    links: HashSet<[u8; 16]>,
    pages: u32,
    empty: u32,
    rows: u64,
}

impl Pages {
    /// Returns the next page, or `None` after the last. A page may be empty although others follow.
    ///
    /// # Errors
    /// See [`GraphError`]: of kind [`ErrorKind::Malformed`] when a link leads astray or in a circle,
    /// [`ErrorKind::TooLarge`] when the collection has no end. It is over then, and nothing may be concluded from what
    /// it did not tell.
    pub(super) async fn next(&mut self) -> Result<Option<Page>, GraphError> {
        let request = match std::mem::replace(&mut self.state, State::Failed) {
            State::More(request) => *request,
            complete => {
                self.state = complete;
                return Ok(None);
            }
        };
        let mut page = self.client.page(&request).await?;
        self.count(page.rows.len())?;
        self.state = match (page.next.take(), page.delta.take()) {
            (Some(link), _) => {
                self.note(&link)?;
                // What the first page was asked for with must be asked for again; the query stands in the link.
                let (target, query) = (Target::Link(link), String::new());
                State::More(Box::new(Request { target, query, ..request }))
            }
            (None, Some(link)) => State::Complete(self.worth_keeping(link)),
            (None, None) if self.ends == Ends::Plainly => State::Complete(None),
            (None, None) => return Err(GraphError::malformed(self.label)),
        };
        Ok(Some(page))
    }

    /// Adds the rows of all pages to `rows`, `max` at most.
    ///
    /// # Errors
    /// As [`Pages::next`].
    pub(super) async fn collect_into<T: DeserializeOwned>(
        &mut self,
        rows: &mut Vec<T>,
        max: usize,
    ) -> Result<(), GraphError> {
        let mut bytes = 0;
        while let Some(page) = self.next().await? {
            bytes += page.rows.iter().map(|row| row.len() as u64).sum::<u64>();
            if rows.len() + page.rows.len() > max || bytes > COLLECTED_BYTES_MAX {
                let why = format!("it has more than {max} rows, or more than {COLLECTED_BYTES_MAX} bytes");
                return Err(self.endless(why));
            }
            for row in page.rows() {
                rows.push(row?);
            }
        }
        Ok(())
    }

    /// Returns where to ask next time, once the collection has come to its end.
    pub(super) fn link(self) -> Option<String> {
        match self.state {
            State::Complete(link) => link,
            _ => None,
        }
    }

    fn endless(&self, why: String) -> GraphError {
        GraphError::new(ErrorKind::TooLarge, self.label).explained(why)
    }

    /// Counts a page with so many rows.
    fn count(&mut self, rows: usize) -> Result<(), GraphError> {
        self.pages += 1;
        self.empty = if rows == 0 { self.empty + 1 } else { 0 };
        self.rows += rows as u64;
        match () {
            () if self.pages > PAGES_MAX => Err(self.endless(format!("it has more than {PAGES_MAX} pages"))),
            () if self.rows > ROWS_MAX => Err(self.endless(format!("it has more than {ROWS_MAX} rows"))),
            () if self.empty > EMPTY_PAGES_MAX => {
                Err(self.endless(format!("{EMPTY_PAGES_MAX} pages without a row came one after the other")))
            }
            () => Ok(()),
        }
    }

    /// Notes a link that is followed.
    fn note(&mut self, link: &str) -> Result<(), GraphError> {
        let why = match () {
            () if link.len() > LINK_BYTES_MAX => "a link is too long",
            () if !self.links.insert(short(link)) => "a link leads back to a page that was read already",
            () => return Ok(()),
        };
        Err(GraphError::malformed(self.label).explained(why.into()))
    }

    /// Returns a link that tells changes, unless it could not be followed later: what the pages told is true all the
    /// same.
    fn worth_keeping(&self, link: String) -> Option<String> {
        if self.client.may_follow(&link) {
            return Some(link);
        }
        tracing::warn!(label = self.label, "a link that tells changes leads astray, and is not kept");
        None
    }
}

/// Returns what stands for a link: two different ones never meet in it.
fn short(link: &str) -> [u8; 16] {
    *blake3::hash(link.as_bytes()).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

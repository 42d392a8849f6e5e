//! Reads collections page by page, and each page row by row.
//!
//! All answers with pages are read here. A service, or somebody in between, may return links that form a circle or
//! never end, or pages with millions of rows. So everything has a limit, far above what the real service does. A row is
//! parsed only when it is needed: until then, a page is the text as it came, and the positions of its rows.

use super::client::{Client, Failure};
use super::error::{ErrorKind, GraphError};
use super::json::{self, Texts, is_too_long};
use super::request::{Request, Target};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use tokio::sync::OwnedSemaphorePermit;

#[cfg(test)]
mod tests;

/// Maximum number of rows on a page. Requests ask for at most 999, and a service may return a few more.
const PAGE_ROWS_MAX: usize = 5_000;
/// Maximum size of a row, in bytes. The row of a message with five hundred recipients of each kind has 200 KB.
const ROW_BYTES_MAX: usize = 4 << 20;
/// Maximum number of pages in a collection: enough for a million rows at ten a page, the smallest pages that the
/// service returns.
const PAGES_MAX: u32 = 100_000;
/// Maximum number of consecutive pages without rows. A few do occur (Graph: "Paging Microsoft Graph data in your app").
const EMPTY_PAGES_MAX: u32 = 1_000;
/// Maximum number of rows in a collection. A folder of a mailbox holds up to a million messages (Exchange Online
/// limits), and few organisations have more users.
const ROWS_MAX: u64 = 4_000_000;
/// Maximum size of the text of a collection that is kept in memory, in bytes. Half a million folders have about that.
const COLLECTED_BYTES_MAX: u64 = 256 << 20;
/// Maximum length of a link, in bytes. Servers refuse longer URLs (RFC 9110, 4.1, asks for 8,000 bytes).
pub(super) const LINK_BYTES_MAX: usize = 32 << 10;

/// One page of a collection.
pub(super) struct Page {
    label: &'static str,
    rows: Vec<Bytes>,
    next: Option<String>,
    delta: Option<String>,
    /// The permit for the memory that a large answer takes.
    _room: Option<OwnedSemaphorePermit>,
}

impl Page {
    /// Returns the rows of the page, one after the other.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] for each row that is not of type `T`.
    pub(super) fn rows<T: DeserializeOwned>(&self) -> impl Iterator<Item = Result<T, GraphError>> + '_ {
        self.rows_with(Bytes::clone)
    }

    /// Returns the rows of the page, each as `change` makes it.
    ///
    /// # Errors
    /// As [`Page::rows`].
    pub(super) fn rows_with<'a, T: DeserializeOwned>(
        &'a self,
        change: impl Fn(&Bytes) -> Bytes + 'a,
    ) -> impl Iterator<Item = Result<T, GraphError>> + 'a {
        self.rows.iter().map(move |row| {
            let row = change(row);
            let read = if row.len() <= ROW_BYTES_MAX { json::read(&row).ok() } else { None };
            read.ok_or_else(|| {
                let why = format!("a row of {} bytes is not of the expected type", row.len());
                GraphError::malformed(self.label).explained(why)
            })
        })
    }
}

/// The parts of a page that are used.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    value: Texts<'a, PAGE_ROWS_MAX>,
    #[serde(rename = "@odata.nextLink")]
    next: Option<String>,
    #[serde(rename = "@odata.deltaLink")]
    delta: Option<String>,
}

/// Reads a page from the text of an answer.
fn read(body: &Bytes, label: &'static str) -> Result<Page, Failure> {
    let parse = |body: &Bytes| -> Result<Page, serde_json::Error> {
        let Envelope { value: Texts(texts), next, delta } = serde_json::from_slice(body)?;
        let rows = texts.iter().map(|text| body.slice_ref(text.get().as_bytes())).collect();
        Ok(Page { label, rows, next, delta, _room: None })
    };
    let parsed = parse(body).or_else(|error| match is_too_long(&error) {
        true => Err(error),
        false => json::mend(body).map_or(Err(error), |mended| parse(&Bytes::from(mended))),
    });
    parsed.map_err(|error| match is_too_long(&error) {
        true => {
            let why = format!("a page has more than {PAGE_ROWS_MAX} rows");
            Failure::after_success(GraphError::new(ErrorKind::TooLarge, label).explained(why))
        }
        false => Failure::of_json(label, body.len(), &error),
    })
}

impl Client {
    /// Requests one page of a collection.
    ///
    /// # Errors
    /// As [`Client::json`]; [`ErrorKind::TooLarge`] for a page with more than [`PAGE_ROWS_MAX`] rows.
    pub(super) async fn page(&self, request: &Request) -> Result<Page, GraphError> {
        let label = request.label;
        let (page, room) = self.json_with(request, |body| read(body, label)).await?;
        Ok(Page { _room: room, ..page })
    }

    /// Starts to read a collection with the page that `first` requests.
    pub(super) fn pages(&self, first: Request, ends: Ends) -> Pages {
        Pages {
            client: self.clone(),
            label: first.label,
            ends,
            begun: None,
            state: State::More(Box::new(first)),
            links: HashSet::new(),
            pages: 0,
            empty: 0,
            rows: 0,
            smaller: None,
        }
    }

    /// Returns all rows of a collection, at most `max` rows and [`COLLECTED_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// See [`GraphError`]; [`ErrorKind::TooLarge`] if there are more.
    pub(super) async fn collect<T: DeserializeOwned>(&self, first: Request, max: usize) -> Result<Vec<T>, GraphError> {
        let (mut pages, mut rows) = (self.pages(first, Ends::Plainly), Vec::new());
        pages.collect_into(&mut rows, max).await?;
        Ok(rows)
    }

    /// Returns all rows of several collections of one mailbox, at most `max` of each, as [`Client::collect`] does. Their
    /// first pages are requested together ([`Client::batch`]).
    pub(super) async fn collect_each<T: DeserializeOwned>(
        &self,
        firsts: Vec<Request>,
        max: usize,
    ) -> Vec<Result<Vec<T>, GraphError>> {
        let begun = self.batch(&firsts, |request, body| read(body, request.label)).await;
        let mut all = Vec::new();
        for (first, page) in firsts.into_iter().zip(begun) {
            let (mut pages, mut rows) = (self.pages(first, Ends::Plainly), Vec::new());
            let collected = match page {
                Ok(page) => {
                    pages.begun = Some(page);
                    pages.collect_into(&mut rows, max).await
                }
                Err(error) => Err(error),
            };
            all.push(collected.map(|()| rows));
        }
        all
    }

    /// Returns true if `link` may be followed: it leads to the Graph endpoint, and is not too long.
    pub(super) fn may_follow(&self, link: &str) -> bool {
        link.len() <= LINK_BYTES_MAX && self.leads_somewhere(Target::Link(link.to_owned()))
    }
}

/// How a collection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// With a page that has no link.
    Plainly,
    /// With a delta link, which returns later changes. A page without any link is not the last one, but damaged.
    WithDeltaLink,
}

enum State {
    More(Box<Request>),
    Complete(Option<String>),
    Failed,
}

/// A collection that is being read. Do not rely on one that did not reach its end.
pub(super) struct Pages {
    client: Client,
    label: &'static str,
    ends: Ends,
    state: State,
    /// The page that `state` asks for, if it was already read.
    begun: Option<Page>,
    /// Hashes of the links that were followed.
    links: HashSet<[u8; 16]>,
    pages: u32,
    empty: u32,
    rows: u64,
    /// The preference for the size of pages, and those for smaller ones.
    smaller: Option<(&'static str, &'static [&'static str])>,
}

impl Pages {
    /// Asks for smaller pages if the service has no capacity for those that the preference `first` asks for.
    pub(super) fn with_smaller(self, first: &'static str, smaller: &'static [&'static str]) -> Self {
        Self { smaller: Some((first, smaller)), ..self }
    }

    /// Requests a page. If the service keeps answering 503, requests smaller ones.
    async fn page(&mut self, request: &mut Request) -> Result<Page, GraphError> {
        loop {
            let error = match self.client.page(request).await {
                Ok(page) => return Ok(page),
                Err(error) => error,
            };
            let is_busy = error.kind() == ErrorKind::Unavailable && error.status() == Some(503);
            let Some((now, [next, rest @ ..])) = self.smaller.filter(|_| is_busy) else { return Err(error) };
            tracing::debug!(label = self.label, size = next, "smaller pages are asked for");
            request.prefer.iter_mut().filter(|preference| *preference == now).for_each(|one| *one = (*next).to_owned());
            self.smaller = Some((next, rest));
        }
    }

    /// Returns the next page, or `None` after the last one. An empty page may be followed by others.
    ///
    /// # Errors
    /// See [`GraphError`]; [`ErrorKind::Malformed`] if a link leads elsewhere or in a circle; [`ErrorKind::TooLarge`]
    /// if the collection does not end. The collection is over then, and nothing follows from the rows that it did not
    /// contain.
    pub(super) async fn next(&mut self) -> Result<Option<Page>, GraphError> {
        let mut request = match std::mem::replace(&mut self.state, State::Failed) {
            State::More(request) => *request,
            complete => {
                self.state = complete;
                return Ok(None);
            }
        };
        let mut page = match self.begun.take() {
            Some(page) => page,
            None => self.page(&mut request).await?,
        };
        self.count(page.rows.len())?;
        self.state = match (page.next.take(), page.delta.take()) {
            (Some(link), _) => {
                self.note(&link)?;
                // The link contains the query, but the preferences of the first request must be sent again.
                let (target, query) = (Target::Link(link), String::new());
                State::More(Box::new(Request { target, query, ..request }))
            }
            (None, Some(link)) => State::Complete(self.worth_keeping(link)),
            (None, None) if self.ends == Ends::Plainly => State::Complete(None),
            (None, None) => return Err(GraphError::malformed(self.label)),
        };
        Ok(Some(page))
    }

    /// Adds the rows of all pages to `rows`, at most `max`.
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

    /// Returns the delta link, once the collection has reached its end.
    pub(super) fn link(self) -> Option<String> {
        match self.state {
            State::Complete(link) => link,
            _ => None,
        }
    }

    fn endless(&self, why: String) -> GraphError {
        GraphError::new(ErrorKind::TooLarge, self.label).explained(why)
    }

    /// Counts a page with this many rows.
    fn count(&mut self, rows: usize) -> Result<(), GraphError> {
        self.pages += 1;
        self.empty = if rows == 0 { self.empty + 1 } else { 0 };
        self.rows += rows as u64;
        match () {
            () if self.pages > PAGES_MAX => Err(self.endless(format!("it has more than {PAGES_MAX} pages"))),
            () if self.rows > ROWS_MAX => Err(self.endless(format!("it has more than {ROWS_MAX} rows"))),
            () if self.empty > EMPTY_PAGES_MAX => {
                Err(self.endless(format!("{EMPTY_PAGES_MAX} consecutive pages have no rows")))
            }
            () => Ok(()),
        }
    }

    /// Records a link that is followed.
    fn note(&mut self, link: &str) -> Result<(), GraphError> {
        let why = match () {
            () if link.len() > LINK_BYTES_MAX => "a link is too long",
            () if !self.links.insert(short(link)) => "a link leads back to a page that was already read",
            () => return Ok(()),
        };
        Err(GraphError::malformed(self.label).explained(why.into()))
    }

    /// Returns a delta link, or `None` if it could not be followed later. The pages themselves are correct in either
    /// case.
    fn worth_keeping(&self, link: String) -> Option<String> {
        if self.client.may_follow(&link) {
            return Some(link);
        }
        tracing::warn!(label = self.label, "a delta link leads elsewhere and is not stored");
        None
    }
}

/// Returns a hash of a link. Two different links do not have the same one.
fn short(link: &str) -> [u8; 16] {
    *blake3::hash(link.as_bytes()).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

//! A listing of the items of a folder, or of what changed in it, page by page.

use super::error::{ErrorKind, GraphError};
use super::pages::{Page, Pages};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;

/// A listing of the items of a folder, page by page. Do not rely on a listing that did not reach its end.
pub struct Round<T> {
    pages: Pages,
    /// What is added to each row: a name and its value, as JSON.
    note: Option<Bytes>,
    /// True if a refusal means that this listing is not offered, although another one of the same items may be.
    may_be_refused: bool,
    item: PhantomData<fn() -> T>,
}

/// A page of items. Its rows are parsed one by one, when they are needed.
pub struct ItemPage<T> {
    page: Page,
    note: Option<Bytes>,
    item: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Round<T> {
    pub(super) fn new(pages: Pages) -> Self {
        Self { pages, note: None, may_be_refused: false, item: PhantomData }
    }

    /// Adds `name: value` to every row. So a row says what only the request for it says, such as the folder.
    pub(super) fn noting(self, name: &str, value: &str) -> Self {
        let text = |text: &str| serde_json::to_string(text).expect("a string can be written as JSON");
        Self { note: Some(format!("{{{}:{}", text(name), text(value)).into()), ..self }
    }

    /// Takes a refusal of access for [`ErrorKind::DeltaUnsupported`].
    pub(super) fn that_may_be_refused(self) -> Self {
        Self { may_be_refused: true, ..self }
    }

    /// Returns the next page, or `None` after the last one. An empty page may be followed by others. An item may occur
    /// in several rows: the last one counts. Take the rows of a page before sending any other request.
    ///
    /// # Errors
    /// See [`GraphError`]. The listing is over then, and nothing follows from the items that it did not contain.
    pub async fn next(&mut self) -> Result<Option<ItemPage<T>>, GraphError> {
        let page = self.pages.next().await.map_err(|error| match error.kind() {
            ErrorKind::Denied if self.may_be_refused => error.of_kind(ErrorKind::DeltaUnsupported),
            _ => error,
        })?;
        Ok(page.map(|page| ItemPage { page, note: self.note.clone(), item: PhantomData }))
    }

    /// Returns the delta link for the next time, once the listing has reached its end. Returns `None` if the link must
    /// not be followed.
    pub fn link(self) -> Option<String> {
        self.pages.link()
    }
}

impl<T: DeserializeOwned> ItemPage<T> {
    /// Returns the rows of the page, one after the other.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`](super::ErrorKind::Malformed) for each row that is not of the expected kind.
    pub fn rows(&self) -> impl Iterator<Item = Result<T, GraphError>> + '_ {
        self.page.rows_with(|row| match &self.note {
            Some(note) => noted(row, note),
            None => row.clone(),
        })
    }
}

/// Returns a row with a note in front of its properties. The note is the beginning of a JSON object.
fn noted(row: &Bytes, note: &Bytes) -> Bytes {
    let Some(rest) = row.strip_prefix(b"{") else { return row.clone() };
    let comma: &[u8] = if rest.trim_ascii_start().starts_with(b"}") { b"" } else { b"," };
    [note, comma, rest].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_stands_in_front_of_what_came() {
        let noted = |row: &'static str| {
            let noted = noted(&Bytes::from_static(row.as_bytes()), &Bytes::from_static(b"{\"a\":\"b\""));
            String::from_utf8(noted.to_vec()).unwrap()
        };
        assert_eq!(noted("{\"c\": 1.50}"), "{\"a\":\"b\",\"c\": 1.50}");
        assert_eq!(noted("{ }"), "{\"a\":\"b\" }");
        assert_eq!(noted("7"), "7");
    }
}

//! A listing of the items of a folder, or of what changed in it, page by page.

use super::error::GraphError;
use super::pages::{Page, Pages};
use serde::de::DeserializeOwned;
use std::marker::PhantomData;

/// A listing of the items of a folder, page by page. Do not rely on a listing that did not reach its end.
pub struct Round<T> {
    pages: Pages,
    item: PhantomData<fn() -> T>,
}

/// A page of items. Its rows are parsed one by one, when they are needed.
pub struct ItemPage<T> {
    page: Page,
    item: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Round<T> {
    pub(super) fn new(pages: Pages) -> Self {
        Self { pages, item: PhantomData }
    }

    /// Returns the next page, or `None` after the last one. An empty page may be followed by others. An item may occur
    /// in several rows: the last one counts. Take the rows of a page before sending any other request.
    ///
    /// # Errors
    /// See [`GraphError`]. The listing is over then, and nothing follows from the items that it did not contain.
    pub async fn next(&mut self) -> Result<Option<ItemPage<T>>, GraphError> {
        let page = self.pages.next().await?;
        Ok(page.map(|page| ItemPage { page, item: PhantomData }))
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
        self.page.rows()
    }
}

//! Pages from a service that returns whatever the test wants.

use super::*;
use crate::source::graph::mail::Mailbox;
use crate::source::graph::testing::{Say, Service, json};
use crate::source::graph::{Scope, directory};
use serde_json::{Value, json as value};
use std::pin::Pin;

/// A page with these rows and links.
fn page(rows: Value, next: Option<String>, delta: Option<String>) -> Say {
    let mut page = value!({ "value": rows });
    next.into_iter().for_each(|link| page["@odata.nextLink"] = link.into());
    delta.into_iter().for_each(|link| page["@odata.deltaLink"] = link.into());
    json("200 OK", &page.to_string())
}

type Listing = Pin<Box<dyn Future<Output = Result<(), GraphError>>>>;

/// All listings that are read page by page.
fn listings(service: &Service) -> Vec<(&'static str, Listing)> {
    let client = service.client();
    let mailbox = Mailbox::new(client.clone(), "u", false);
    vec![
        ("users", Box::pin(async move { directory::users(&client).await.map(drop) })),
        ("folders", {
            let mailbox = mailbox.clone();
            Box::pin(async move { mailbox.top_folders().await.map(drop) })
        }),
        ("changes of folders", {
            let mailbox = mailbox.clone();
            Box::pin(async move { mailbox.folder_changes(None).await.map(drop) })
        }),
        ("messages", {
            let mailbox = mailbox.clone();
            Box::pin(async move {
                let mut round = mailbox.messages("f", None);
                while round.next().await?.is_some() {}
                Ok(())
            })
        }),
        ("messages without changes", {
            let mailbox = mailbox.clone();
            Box::pin(async move {
                let mut round = mailbox.plain_messages("f");
                while round.next().await?.is_some() {}
                Ok(())
            })
        }),
        ("attachments", {
            let mailbox = mailbox.clone();
            Box::pin(async move { mailbox.attachments("m").await.map(drop) })
        }),
        ("what stands there", {
            let mailbox = mailbox.clone();
            Box::pin(async move { mailbox.standing("f", |_| ()).await })
        }),
        ("what is alike", {
            let mailbox = mailbox.clone();
            Box::pin(async move { mailbox.alike("f", Some("a@b"), None, |_| ()).await })
        }),
    ]
}

const ROW: &str = r#"{"id": "a", "changeKey": "b", "parentFolderId": "c"}"#;

fn row() -> Value {
    serde_json::from_str(ROW).unwrap()
}

#[tokio::test]
async fn a_link_that_leads_in_a_circle_ends_every_listing() {
    let count = listings(&Service::start([]).await).len();
    for number in 0..count {
        for circle in [1, 3] {
            let service = Service::start([]).await;
            let link = |page: usize| Some(format!("{}/v1.0/users/u/next?page={}", service.url, page % circle));
            service.graph((0..20).map(|number| page(value!([row()]), link(number), None)));
            let (name, listing) = listings(&service).swap_remove(number);
            let error = listing.await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Malformed, "{name}: {error}");
            assert!(error.to_string().contains("a page that was already read"), "{name}: {error}");
            assert_eq!(service.requests("/v1.0/").len(), circle + 1, "{name}");
        }
    }
}

/// Every link is new, and leads to an empty page.
#[tokio::test]
async fn pages_without_end_and_without_rows_end_every_listing() {
    let client = Service::start([]).await;
    let count = listings(&client).len();
    // All listings use the same code: one that reads the collection as a whole, and one that does not.
    for number in [0, 3] {
        assert!(number < count);
        let service = Service::start([]).await;
        let link = |page: u32| Some(format!("{}/v1.0/users/u/next?page={page}", service.url));
        service.graph((0..EMPTY_PAGES_MAX + 9).map(|number| page(value!([]), link(number), None)));
        let (name, listing) = listings(&service).swap_remove(number);
        let error = listing.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{name}: {error}");
        assert_eq!(service.requests("/v1.0/").len(), EMPTY_PAGES_MAX as usize + 1, "{name}");
    }
}

#[tokio::test]
async fn a_collection_has_limits() {
    let service = Service::start([]).await;
    let get = || Request::get("/things".to_owned(), Scope::Directory);
    let mut pages = service.client().pages(get(), Ends::Plainly);
    pages.count(1).unwrap();
    pages.pages = PAGES_MAX;
    assert_eq!(pages.count(1).unwrap_err().kind(), ErrorKind::TooLarge);
    (pages.pages, pages.rows) = (0, ROWS_MAX);
    assert_eq!(pages.count(1).unwrap_err().kind(), ErrorKind::TooLarge);

    let link = |page: usize| Some(format!("{}/v1.0/things?page={page}", service.url));
    service.graph([page(value!([1, 2]), link(1), None), page(value!([3, 4]), None, None)]);
    assert_eq!(service.client().collect::<u32>(get(), 4).await.unwrap(), [1, 2, 3, 4]);
    service.graph([page(value!([1, 2]), link(1), None), page(value!([3, 4]), link(2), None)]);
    assert_eq!(service.client().collect::<u32>(get(), 3).await.unwrap_err().kind(), ErrorKind::TooLarge);
    let long = format!("{}/v1.0/things?page={}", service.url, "x".repeat(LINK_BYTES_MAX));
    service.graph([page(value!([]), Some(long.clone()), None)]);
    assert_eq!(service.client().collect::<u32>(get(), 3).await.unwrap_err().kind(), ErrorKind::Malformed);
    assert!(!service.client().may_follow(&long));
}

/// Within the limit of 64 MiB, a page can have six million rows. Parsed, they would take gigabytes.
#[tokio::test]
async fn a_page_of_millions_of_rows_is_refused_before_it_is_read() {
    let row = r#"{"id":""},"#;
    let body = format!("{{\"value\":[{}{ROW}]}}", row.repeat((60 << 20) / row.len()));
    let service = Service::start([json("200 OK", &body)]).await;
    let mut round = Mailbox::new(service.client(), "u", false).messages("f", None);
    let error = round.next().await.map(|page| page.is_some()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    assert!(error.to_string().contains("more than 5000 rows"), "{error}");
    assert_eq!(service.requests("/v1.0/").len(), 1, "it will not get fewer");

    // The maximum number of rows is accepted.
    let most = Value::Array(vec![serde_json::from_str(ROW).unwrap(); PAGE_ROWS_MAX]);
    service.graph([page(most, None, Some(format!("{}/v1.0/x", service.url)))]);
    let mut round = Mailbox::new(service.client(), "u", false).messages("f", None);
    let page = round.next().await.unwrap().expect("a page");
    assert_eq!(page.rows().map(Result::unwrap).filter(|message| message.row.id == "a").count(), PAGE_ROWS_MAX);
}

#[tokio::test]
async fn rows_are_mended_one_by_one_and_one_of_another_kind_is_an_error() {
    let body = b"{\"value\":[{\"id\":\"a\x01\\ud83d\"},{\"id\":\"b\"},{\"id\":7}]}";
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let service = Service::start([Say::Raw([head.as_bytes(), body].concat())]).await;
    #[derive(Deserialize)]
    struct Id {
        id: String,
    }
    let page = service.client().page(&Request::get("/things".to_owned(), Scope::Directory)).await.unwrap();
    let ids: Vec<_> = page.rows::<Id>().map(|row| row.map(|row| row.id).map_err(|error| error.kind())).collect();
    assert_eq!(ids, [Ok("a\u{1}\u{fffd}".to_owned()), Ok("b".to_owned()), Err(ErrorKind::Malformed)]);
}

/// The pages are correct, but the link is not. It is not stored, so the next run lists everything again.
#[tokio::test]
async fn a_delta_link_that_leads_elsewhere_is_not_stored() {
    let service = Service::start([]).await;
    let mailbox = Mailbox::new(service.client(), "u", false);
    for link in ["https://evil.example/v1.0/delta?$deltatoken=x", "/v1.0/delta", "", "http://127.0.0.1:1/v1.0/delta"] {
        assert!(!mailbox.may_follow(link));
        let last = || page(value!([row()]), None, Some(link.to_owned()));
        service.graph([last(), last()]);
        let mut round = mailbox.messages("f", None);
        assert_eq!(round.next().await.unwrap().expect("a page").rows().count(), 1);
        assert!(round.next().await.unwrap().is_none(), "it came to its end");
        assert_eq!(round.link(), None, "{link}");
        let changes = mailbox.folder_changes(None).await.unwrap();
        assert_eq!((changes.rows.len(), changes.link), (1, None), "{link}");
    }
    let link = format!("{}/v1.0/delta?$deltatoken=x", service.url);
    assert!(mailbox.may_follow(&link));
    service.graph([page(value!([]), None, Some(link.clone()))]);
    let mut round = mailbox.messages("f", None);
    while round.next().await.unwrap().is_some() {}
    assert_eq!(round.link(), Some(link));
    // A page without any link is not the last one.
    service.graph([page(value!([row()]), None, None)]);
    assert_eq!(mailbox.messages("f", None).next().await.map(drop).unwrap_err().kind(), ErrorKind::Malformed);
}

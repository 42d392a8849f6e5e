//! Bodies of answers: in pieces, cut off, packed, too long.

use super::*;

#[tokio::test]
async fn a_body_comes_in_pieces_and_keeps_its_place() {
    let whole = answer("200 OK", "X-Thing: 1", "0123456789");
    let service = Service::start([whole]).await;
    let mut connection = service.connection();
    connection.concurrency = 1;
    let client = Client::new(connection).unwrap();
    let mut body = client.body(of_mailbox()).await.unwrap();
    assert_eq!((body.status(), &body.headers()["x-thing"]), (200, &HeaderValue::from_static("1")));
    let mut second = Box::pin(client.json::<Value>(get()));
    assert!(futures_util::FutureExt::now_or_never(&mut second).is_none(), "there is one place, and it is taken");
    let mut bytes = Vec::new();
    while let Some(chunk) = body.chunk().await.unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!(bytes, b"0123456789");
    drop(body);
    second.await.unwrap();
}

#[tokio::test]
async fn a_body_that_ends_early_is_an_error() {
    for cut in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01",
    ] {
        let service = Service::start([Say::Cut(cut.to_vec())]).await;
        let mut body = service.client().body(of_mailbox()).await.unwrap();
        let error = loop {
            match body.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("taken for whole: {}", String::from_utf8_lossy(cut)),
                Err(error) => break error,
            }
        };
        assert!(error.is_transient());
        // If the answer is read as a whole, the request is repeated.
        let service = Service::start([Say::Cut(cut.to_vec()), answer("200 OK", "", "whole")]).await;
        assert_eq!(service.client().bytes(of_mailbox(), 99).await.unwrap(), "whole");
    }
}

/// Such a body could have been cut off anywhere, and nobody would notice.
#[tokio::test]
async fn a_body_that_ends_with_its_connection_is_refused() {
    for head in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\n",
        // Nothing in these answers says that the connection will end.
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n",
    ] {
        let endless = Say::Cut(format!("{head}perhaps more").into_bytes());
        let service = Service::start([endless.clone(), answer("200 OK", "", "whole")]).await;
        assert_eq!(service.client().bytes(of_mailbox().uncoded(), 99).await.unwrap(), "whole", "{head}");
        let service = Service::start(vec![endless; 9]).await;
        let error = service.client().body(of_mailbox().uncoded()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{head}");
    }
    // A compressed body marks its own end, unless the service said that the connection ends after this answer.
    let unpacked = Say::Cut(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nperhaps more".to_vec());
    let service = Service::start([unpacked, answer("200 OK", "", "whole")]).await;
    assert_eq!(service.client().bytes(of_mailbox(), 99).await.unwrap(), "whole");
    let service = Service::start([answer("200 OK", "Connection: close", "whole")]).await;
    assert_eq!(service.client().bytes(of_mailbox(), 99).await.unwrap(), "whole");
    let service = Service::start([Say::Cut(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_vec())]).await;
    assert_eq!(service.client().bytes(of_mailbox(), 99).await.unwrap(), "");
}

/// `{"value":"unpacked unpacked unpacked"}`
const PACKED: [u8; 43] = [
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0xff, 0xab, 0x56, 0x2a, 0x4b, 0xcc, 0x29, 0x4d, 0x55, 0xb2,
    0x52, 0x2a, 0xcd, 0x2b, 0x48, 0x4c, 0xce, 0x4e, 0x4d, 0x51, 0xc0, 0x60, 0x28, 0xd5, 0x02, 0x00, 0x71, 0x56, 0x79,
    0x6c, 0x26, 0x00, 0x00, 0x00,
];

#[tokio::test]
async fn packed_answers_are_unpacked() {
    let packed = |bytes: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", bytes.len());
        Say::Raw([head.as_bytes(), bytes].concat())
    };
    let service = Service::start([packed(&PACKED)]).await;
    let got = service.client().json::<Value>(get()).await.unwrap();
    assert_eq!(got["value"], "unpacked unpacked unpacked");
    // The answer is cut off inside the compressed data, where no length reveals it.
    for len in [42, 35, 20, 5] {
        let service = Service::start([packed(&PACKED[..len]), answer("200 OK", "", "whole")]).await;
        assert_eq!(service.client().bytes(of_mailbox(), 99).await.unwrap(), "whole", "cut at {len}");
    }
}

#[tokio::test]
async fn bytes_as_they_are_are_asked_for_without_packing() {
    let service = Service::start([answer("200 OK", "", "whole"), answer("200 OK", "", "{}")]).await;
    let client = service.client();
    client.bytes(of_mailbox().uncoded(), 99).await.unwrap();
    client.json::<Value>(of_mailbox()).await.unwrap();
    let asked = |request: &String| {
        let line = request
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("accept-encoding:").map(str::to_owned));
        line.map(|codings| codings.trim().to_owned())
    };
    let asked: Vec<_> = service.requests("/messages/").iter().map(asked).collect();
    assert_eq!(asked, [Some("identity".to_owned()), Some("gzip".to_owned())]);
}

#[tokio::test]
async fn bodies_have_limits() {
    let ten = || answer("200 OK", "", "0123456789");
    let service = Service::start([ten(), ten(), ten()]).await;
    let client = service.client();
    assert_eq!(client.bytes(of_mailbox(), 10).await.unwrap(), "0123456789");
    assert_eq!(client.bytes(of_mailbox(), 9).await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(service.requests("/messages/").len(), 2, "it will not get smaller");
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n";
    let service = Service::start([Say::Raw(chunked.to_vec()), Say::Raw(chunked.to_vec())]).await;
    assert_eq!(service.client().bytes(of_mailbox(), 10).await.unwrap(), "0123456789");
    assert_eq!(service.client().bytes(of_mailbox(), 9).await.unwrap_err().kind(), ErrorKind::TooLarge);
}

//! A service for tests, with prepared answers, some of them broken.

use super::cloud::Endpoints;
use super::connection::Connection;
use super::retry::RetryPolicy;
use super::{Client, Credential};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use zeroize::Zeroizing;

/// A secret in tests, which no error or log may contain.
pub(crate) const SECRET: &str = "canary-secret";

/// An answer to one request.
#[derive(Debug, Clone)]
pub(crate) enum Say {
    /// These bytes; then the connection stays open.
    Raw(Vec<u8>),
    /// These bytes; then the connection ends.
    Cut(Vec<u8>),
    /// These bytes; then single bytes for ever, with a pause before each.
    Drip(Vec<u8>, Duration),
    /// These bytes; then these pieces, with a pause before each.
    Pieces(Vec<u8>, Vec<Vec<u8>>, Duration),
}

/// Returns a complete answer.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> Say {
    let headers: String = headers.lines().map(|line| format!("{}\r\n", line.trim())).collect();
    Say::Raw(format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

/// Returns an answer in JSON.
pub(crate) fn json(status: &str, body: &str) -> Say {
    answer(status, "Content-Type: application/json", body)
}

/// Returns an error in Graph's envelope.
pub(crate) fn error(status: &str, code: &str) -> Say {
    json(status, &format!(r#"{{"error":{{"code":"{code}","message":"secret words"}}}}"#))
}

/// Returns an answer with a token that lives for `lifetime_s` seconds. Its text depends on `number`.
pub(crate) fn token(number: usize, lifetime_s: u64) -> Say {
    json(
        "200 OK",
        &format!(
            r#"{{"token_type":"Bearer","expires_in":{lifetime_s},"access_token":"canary-token-{number}","refresh_token":"canary-refresh-{number}"}}"#
        ),
    )
}

#[derive(Default)]
struct Script {
    graph: VecDeque<Say>,
    login: VecDeque<Say>,
    requests: Vec<String>,
    tokens: usize,
}

/// The service. It answers Graph requests in the order of the script; after the end of the script, with 200 and `{}`.
/// Sign-ins have their own script; after its end, they get a token.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) url: String,
    script: Arc<Mutex<Script>>,
}

impl Service {
    /// Starts a service with a script for Graph.
    pub(crate) async fn start(graph: impl IntoIterator<Item = Say>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let script = Arc::new(Mutex::new(Script { graph: graph.into_iter().collect(), ..Script::default() }));
        let service = Self { url, script: Arc::clone(&script) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&script)));
            }
        });
        service
    }

    /// Adds to the script for Graph.
    pub(crate) fn graph(&self, say: impl IntoIterator<Item = Say>) {
        self.script.lock().graph.extend(say);
    }

    /// Adds to the script for sign-ins.
    pub(crate) fn login(&self, say: impl IntoIterator<Item = Say>) {
        self.script.lock().login.extend(say);
    }

    /// Returns the heads and bodies of all requests so far whose first line contains `what`.
    pub(crate) fn requests(&self, what: &str) -> Vec<String> {
        let script = self.script.lock();
        let is_wanted = |request: &&String| request.lines().next().is_some_and(|line| line.contains(what));
        script.requests.iter().filter(is_wanted).cloned().collect()
    }

    /// Returns a connection with short waits.
    pub(crate) fn connection(&self) -> Connection {
        let secret = Zeroizing::new(SECRET.to_owned());
        let credential = Credential::Secret { client_id: "app".to_owned(), secret };
        let endpoints = Endpoints::parse(&self.url, &self.url).expect("URLs");
        let mut connection = Connection::new(endpoints, "contoso.com", credential);
        connection.retry = RetryPolicy {
            delay_min: Duration::from_millis(1),
            delay_max: Duration::from_millis(5),
            ..RetryPolicy::default()
        };
        connection
    }

    /// Returns a client of this service.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.connection()).expect("a client")
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Mutex<Script>>) {
    while let Some(request) = read_request(&mut stream).await {
        let say = {
            let mut script = script.lock();
            let is_login = request.lines().next().is_some_and(|line| line.contains("/oauth2/"));
            script.requests.push(request);
            if is_login {
                script.tokens += 1;
                let number = script.tokens;
                script.login.pop_front().unwrap_or_else(|| token(number, 3_600))
            } else {
                script.graph.pop_front().unwrap_or_else(|| json("200 OK", "{}"))
            }
        };
        match say {
            Say::Raw(bytes) => drop(stream.write_all(&bytes).await),
            Say::Cut(bytes) => {
                let _ = stream.write_all(&bytes).await;
                return;
            }
            Say::Drip(bytes, pause) => {
                let _ = stream.write_all(&bytes).await;
                loop {
                    tokio::time::sleep(pause).await;
                    if stream.write_all(b" ").await.is_err() {
                        return;
                    }
                }
            }
            Say::Pieces(bytes, pieces, pause) => {
                let _ = stream.write_all(&bytes).await;
                for piece in pieces {
                    tokio::time::sleep(pause).await;
                    let _ = stream.write_all(&piece).await;
                }
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let len = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        if body.len() >= len.unwrap_or(0) {
            return Some(text.into_owned());
        }
    }
}

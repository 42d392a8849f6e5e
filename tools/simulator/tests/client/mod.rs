//! A small client for tests: signs in, follows links, and nothing clever.
#![allow(dead_code)] // Each test binary uses its part.

pub mod calendars;

use reqwest::Method;
use serde_json::Value;
use strongroom_simulator::Simulator;
use tokio::runtime::Runtime;

/// Asks for immutable ids.
pub const IMMUTABLE: &str = "IdType=\"ImmutableId\"";

/// An answer with all its parts.
pub struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub bytes: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }
}

/// Somebody signed in as the registered application.
pub struct Client {
    http: reqwest::Client,
    runtime: Runtime,
    url: String,
    token: String,
}

impl Client {
    pub fn new(simulator: &Simulator) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let http = reqwest::Client::new();
        let url = simulator.url().to_owned();
        let form = [
            ("client_id", simulator.client_id()),
            ("client_secret", simulator.client_secret()),
            ("scope", "https://graph.microsoft.com/.default"),
            ("grant_type", "client_credentials"),
        ];
        let request = http.post(format!("{url}/{}/oauth2/v2.0/token", simulator.tenant_id())).form(&form);
        let answer: Value =
            runtime.block_on(async { request.send().await?.json().await }).expect("an answer to the sign-in");
        let token = answer["access_token"].as_str().unwrap_or_else(|| panic!("no token in {answer}")).to_owned();
        Self { http, runtime, url, token }
    }

    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Vec<u8>>) -> Reply {
        self.try_send(method, path, headers, body).expect("an answer")
    }

    /// An empty `authorization` sends none.
    pub fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> reqwest::Result<Reply> {
        let url = if path.starts_with('/') { format!("{}{path}", self.url) } else { path.to_owned() };
        let mut request = self.http.request(method, url);
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.bearer_auth(&self.token);
        }
        for (name, value) in headers.iter().filter(|header| **header != ("authorization", "")) {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        self.runtime.block_on(async {
            let response = request.send().await?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Ok(Reply { status, headers, bytes: response.bytes().await?.to_vec() })
        })
    }

    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
        let reply = self.send(Method::GET, path, headers, None);
        (reply.status, reply.json())
    }

    pub fn get(&self, path: &str) -> (u16, Value) {
        self.get_with(path, &[])
    }

    pub fn json(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let headers = [("content-type", "application/json")];
        let reply = self.send(method, path, &headers, Some(body.to_string().into_bytes()));
        (reply.status, reply.json())
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.json(Method::POST, path, body)
    }

    pub fn bytes(&self, path: &str, prefer: &[&str]) -> Vec<u8> {
        let reply = self.send(Method::GET, path, &[("prefer", &prefer.join(", "))], None);
        assert_eq!(reply.status, 200, "{path}: {}", reply.json());
        reply.bytes
    }

    fn pages(&self, path: &str, prefer: &[&str]) -> (Vec<Value>, Value) {
        let (mut rows, mut at) = (Vec::new(), path.to_owned());
        loop {
            let (status, mut page) = self.get_with(&at, &[("prefer", &prefer.join(", "))]);
            assert_eq!(status, 200, "{at}: {page}");
            rows.append(page["value"].as_array_mut().expect("rows"));
            match page["@odata.nextLink"].as_str() {
                Some(next) => next.clone_into(&mut at),
                None => return (rows, page),
            }
        }
    }

    /// Returns the rows of all pages.
    pub fn all(&self, path: &str, prefer: &[&str]) -> Vec<Value> {
        self.pages(path, prefer).0
    }

    /// Returns the rows of a round of a delta, and the link to the next round.
    pub fn delta(&self, path: &str, prefer: &[&str]) -> (Vec<Value>, String) {
        let (rows, last) = self.pages(path, prefer);
        (rows, last["@odata.deltaLink"].as_str().expect("a link to the next round").to_owned())
    }

    /// Returns the ids of the user's folders, those within folders and hidden ones included.
    pub fn folders(&self, user: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut left = vec![format!("/v1.0/users/{user}/mailFolders?includeHiddenFolders=true")];
        while let Some(path) = left.pop() {
            for folder in self.all(&path, &[]) {
                let id = folder["id"].as_str().expect("an id").to_owned();
                if folder["childFolderCount"].as_u64() > Some(0) {
                    left.push(format!("/v1.0/users/{user}/mailFolders/{id}/childFolders?includeHiddenFolders=true"));
                }
                if folder["@odata.type"] != "#microsoft.graph.mailSearchFolder" {
                    found.push(id);
                }
            }
        }
        found
    }
}

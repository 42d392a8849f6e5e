//! A request: what is asked for, which part of the tenant it concerns, and whether it may be sent twice.

use super::cloud::Endpoints;
use super::error::{ErrorKind, GraphError};
use super::urls::QUERY;
use bytes::Bytes;
use percent_encoding::utf8_percent_encode;
pub use reqwest::Method;
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue};
use std::fmt;
use std::sync::Arc;
use url::Url;

/// Value of `Accept-Encoding` for an answer without content coding (RFC 9110, 12.5.3).
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// The URL that a request goes to.
#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    /// A path below `/v1.0`, made by [`super::urls::path`], with or without a query.
    Path(String),
    /// A path below `/beta`, made by [`super::urls::path`].
    Beta(String),
    /// A `nextLink` or `deltaLink`, used unchanged. It must lead to the Graph endpoint.
    Link(String),
    /// A URL that the service gave out for one upload. It carries its own permission and leads to another host of the
    /// service. No token is sent with it. Anybody who has the URL can use it.
    Permitted(String),
}

impl fmt::Debug for Target {
    /// Shows the kind only: paths name people, and links hold tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Path(_) => "Path([redacted])",
            Self::Beta(_) => "Beta([redacted])",
            Self::Link(_) => "Link([redacted])",
            Self::Permitted(_) => "Permitted([redacted])",
        })
    }
}

/// The part of the tenant whose limits a request counts against.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Users, groups and the organisation.
    Directory,
    /// One mailbox, by the id of its user, always in the same spelling.
    Mailbox(Arc<str>),
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "Directory",
            Self::Mailbox(_) => "Mailbox([redacted])",
        })
    }
}

/// The body of a request.
#[derive(Clone, Default)]
pub(crate) enum Payload {
    /// Nothing.
    #[default]
    None,
    /// Bytes of a media type.
    Bytes(HeaderValue, Bytes),
}

impl Payload {
    /// Returns the size of the body, in bytes.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Bytes(_, bytes) => bytes.len() as u64,
        }
    }
}

/// One request to Graph.
///
/// ```
/// use strongroom::source::graph::{Request, Scope, path};
///
/// let user = "48d31887-5fad-4d73-a9f5-3c356e68a038";
/// let path = path(&["users", user, "mailFolders", "inbox", "messages", "delta"]);
/// let request = Request::get(path, Scope::mailbox(user))
///     .labelled("listing messages")
///     .query("$select", "id,changeKey")
///     .prefer("odata.maxpagesize=500");
/// ```
#[derive(Clone)]
pub struct Request {
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) scope: Scope,
    pub(crate) label: &'static str,
    pub(crate) query: String,
    pub(crate) prefer: Vec<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    pub(crate) replay: bool,
    pub(crate) size_hint: Option<u64>,
}

impl Scope {
    /// Returns the scope of the mailbox of the user with the id `user`.
    pub fn mailbox(user: &str) -> Self {
        Self::Mailbox(user.into())
    }
}

impl Request {
    /// Creates a request to `target`. Unless `method` is POST, the request may be sent again after a failure that may
    /// have been a success.
    pub fn new(method: Method, target: Target, scope: Scope) -> Self {
        let replay = method != Method::POST;
        Self {
            method,
            target,
            scope,
            label: "request",
            query: String::new(),
            prefer: Vec::new(),
            headers: HeaderMap::new(),
            payload: Payload::None,
            replay,
            size_hint: None,
        }
    }

    /// Creates a GET of `path` below `/v1.0`.
    pub fn get(path: String, scope: Scope) -> Self {
        Self::new(Method::GET, Target::Path(path), scope)
    }

    /// Creates a GET of `path` below `/beta`.
    pub fn get_beta(path: String, scope: Scope) -> Self {
        Self::new(Method::GET, Target::Beta(path), scope)
    }

    /// Creates a GET of a `nextLink` or `deltaLink`. Set the same preferences as for the first page
    /// ([`Request::prefer`]).
    pub fn follow(link: String, scope: Scope) -> Self {
        Self::new(Method::GET, Target::Link(link), scope)
    }

    /// Creates a POST of `body` to `path` below `/v1.0`.
    pub fn post(path: String, scope: Scope, body: &serde_json::Value) -> Self {
        Self::new(Method::POST, Target::Path(path), scope).json(body)
    }

    /// Creates a request to a URL that the service gave out for one upload.
    pub fn permitted(method: Method, url: String, scope: Scope) -> Self {
        Self::new(method, Target::Permitted(url), scope)
    }

    /// Returns true if a token is sent with the request.
    pub(crate) fn takes_token(&self) -> bool {
        !matches!(self.target, Target::Permitted(_))
    }

    /// Sets a few words about what is being done, such as `listing messages`, for errors and logs. They must not name
    /// people or items.
    pub fn labelled(mut self, label: &'static str) -> Self {
        self.label = label;
        self
    }

    /// Adds `name=value` to the query; `value` is percent-encoded. Do not use it with a link, which has its own query:
    /// the request would fail.
    pub fn query(mut self, name: &str, value: &str) -> Self {
        if !self.query.is_empty() {
            self.query.push('&');
        }
        self.query.extend(utf8_percent_encode(name, QUERY));
        self.query.push('=');
        self.query.extend(utf8_percent_encode(value, QUERY));
        self
    }

    /// Adds a preference (Graph: `Prefer` header), such as `IdType="ImmutableId"`.
    pub fn prefer(mut self, preference: impl Into<String>) -> Self {
        self.prefer.push(preference.into());
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Asks for an answer without content coding. Decompression would drop the length of the answer, and only the
    /// length reveals that an answer was cut off.
    pub fn uncoded(self) -> Self {
        self.header(ACCEPT_ENCODING, IDENTITY)
    }

    /// Returns true if the request asks for no content coding.
    pub(crate) fn is_uncoded(&self) -> bool {
        self.headers.get(ACCEPT_ENCODING) == Some(&IDENTITY)
    }

    /// Sets the body to `body`, as JSON.
    pub fn json(self, body: &serde_json::Value) -> Self {
        self.bytes(HeaderValue::from_static("application/json"), body.to_string().into())
    }

    /// Sets the body to `body`, with this media type.
    pub fn bytes(mut self, media_type: HeaderValue, body: Bytes) -> Self {
        self.payload = Payload::Bytes(media_type, body);
        self
    }

    /// Sets whether the request may be sent again after a failure that may have been a success. A POST that only reads
    /// may.
    pub fn replayable(mut self, replay: bool) -> Self {
        self.replay = replay;
        self
    }

    /// Sets roughly how many bytes the answer will have. Among the requests that wait for a mailbox, those of unknown
    /// size go first, then the largest.
    pub fn size_hint(mut self, bytes: u64) -> Self {
        self.size_hint = Some(bytes);
        self
    }
}

impl Request {
    /// Returns the URL of the request.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] for a link that leads to another host, and for a path or link with an empty segment. An
    /// empty id makes such a path, and the service has been seen to return links with an empty user id
    /// (`/users//messages`).
    pub(crate) fn resolve(&self, endpoints: &Endpoints) -> Result<Url, GraphError> {
        let malformed = |why: &str| GraphError::new(ErrorKind::Malformed, self.label).explained(why.into());
        let (version, path) = match &self.target {
            Target::Path(path) => ("v1.0", path),
            Target::Beta(path) => ("beta", path),
            Target::Link(link) => {
                let url = Url::parse(link).map_err(|_| malformed("a link is not a URL"))?;
                if !endpoints.is_graph(&url) || !url.username().is_empty() || url.password().is_some() {
                    return Err(malformed("a link leads to another host"));
                }
                if has_strange_segment(link.split_once("://").map_or("", |(_, rest)| rest)) {
                    return Err(malformed("a link has an empty part"));
                }
                if !self.query.is_empty() {
                    return Err(malformed("a link takes no query"));
                }
                return Ok(url);
            }
            Target::Permitted(url) => {
                let url = Url::parse(url).map_err(|_| malformed("an upload URL is not a URL"))?;
                let is_safe = url.scheme() == "https" || endpoints.are_unencrypted() && url.scheme() == "http";
                if !is_safe || url.host_str().is_none() || !url.username().is_empty() || url.password().is_some() {
                    return Err(malformed("an upload URL is not safe to follow"));
                }
                if !endpoints.take_uploads_at(&url) {
                    return Err(malformed("an upload URL leads to a host that does not belong to the service"));
                }
                return Ok(url);
            }
        };
        if !path.starts_with('/') || has_strange_segment(path) {
            return Err(malformed("a path has an empty part"));
        }
        let mut text = format!("{}/{version}{path}", endpoints.graph_root());
        if !self.query.is_empty() {
            text.push(if path.contains('?') { '&' } else { '?' });
            text.push_str(&self.query);
        }
        Url::parse(&text).map_err(|_| malformed("a path does not form a URL"))
    }
}

/// Returns true if a path has a segment that makes it lead elsewhere than it seems: an empty one (except the last), or
/// one of dots.
fn has_strange_segment(path: &str) -> bool {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let path = path.strip_prefix('/').unwrap_or(path);
    let segments: Vec<_> = path.split('/').collect();
    let (last, others) = segments.split_last().expect("splitting gives at least one part");
    let is_dots = |segment: &str| matches!(&*segment.to_ascii_lowercase().replace("%2e", "."), "." | "..");
    others.iter().any(|segment| segment.is_empty() || is_dots(segment)) || is_dots(last)
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("method", &self.method).field("label", &self.label).finish_non_exhaustive()
    }
}

//! Serves snapshots over WebDAV (RFC 4918), read-only, for machines that have no FUSE: macOS and Windows bring a
//! client.
//!
//! `tree` shows what the mount shows, by the same code (`strongroom_mount::fs`), to the crate `dav-server`, which
//! speaks the protocol. This file is what stands in front of it: connections, a limit for everything that a client
//! could ask too much of, and what that crate would answer otherwise than we promise:
//!
//! - Only OPTIONS, GET, HEAD and PROPFIND exist here. Any other method is refused before anything looks at it.
//! - No client keeps others out (`connections`), and the body of a request is short and comes soon.
//! - A PROPFIND of endless depth is refused (RFC 4918, 9.1); a folder of a tenant has millions of entries below it.
//! - An answer is complete or visibly broken off. A folder that cannot be read to its end must not look like a short
//!   one.
//! - What is served is hostile: a page in a mailbox must not read the rest of the backup when a browser shows it, and a
//!   page on the network must not reach us through a name that it lets point here (DNS rebinding).
//!
//! The front is async; reading the repository blocks, and happens on a bounded pool of threads.

mod connections;
mod tree;

use crate::format::id::SnapshotId;
use connections::{Connection, Connections, Place, Watched};
use dav_server::{DavHandler, DavMethodSet};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use strongroom_mount::Target;
use strongroom_mount::error::FsError;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time;
use tree::{Files, Tree};

/// What is read for one answer at a time. With the connections it bounds the memory of all answers.
const READ_SIZE_BYTES: usize = 256 << 10;
/// Threads that read from the repository.
const BLOCKING_THREADS_MAX: usize = 8;
/// How long a client may take to say what it wants, and how long a connection is kept for its next request.
const REQUEST_HEAD_S_MAX: u64 = 60;
/// How long it may take to send the body of a request, and how long that may be. Those of PROPFIND have a few hundred
/// bytes.
const REQUEST_BODY_S_MAX: u64 = 10;
const REQUEST_BODY_BYTES_MAX: usize = 64 << 10;
/// How long answers that are under way may go on when the server ends.
const END_MS_MAX: u64 = 2000;
/// How often new snapshots are looked for.
const POLL_INTERVAL_MS: u64 = 1000;
/// It is asked for at most this part of the time: a million junk objects must not keep a processor busy.
const PAUSE_PER_LISTING: u32 = 4;
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The answer to a client that has as many connections as it may have.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";

/// What `Allow` says (RFC 9110, 10.2.1).
const ALLOWED: &str = "OPTIONS, GET, HEAD, PROPFIND";
const FINITE_DEPTH: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n\
    <D:error xmlns:D=\"DAV:\"><D:propfind-finite-depth/></D:error>\n";

/// Why serving failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebdavError {
    /// The address cannot be listened on.
    #[error("could not listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The list of snapshots could not be had.
    #[error("could not list the snapshots")]
    Catalog(#[source] FsError),
    /// The machine gives no threads.
    #[error("could not start the server")]
    Start(#[source] io::Error),
}

/// A server that listens, and serves once it is [run](Server::run).
pub struct Server {
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
    tree: Arc<Tree>,
}

impl Server {
    /// Listens on `address` (port 0: any that is free). `snapshot` is the one that `target` shows, if it shows only
    /// one.
    ///
    /// # Errors
    /// See [`WebdavError`].
    pub fn bind(address: SocketAddr, target: Target, snapshot: Option<SnapshotId>) -> Result<Server, WebdavError> {
        let tree = Tree::new(target, snapshot).map_err(WebdavError::Catalog)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .enable_all()
            .build()
            .map_err(WebdavError::Start)?;
        let listen_error = |source| WebdavError::Listen { address, source };
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        Ok(Server { runtime, listener, address, tree: Arc::new(tree) })
    }

    /// Returns where the root of the tree is.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Serves until `end` comes, then lets what is under way finish, for at most two seconds.
    pub fn run(self, end: impl Future<Output = ()>) {
        let front = Arc::new(Front { tree: self.tree.clone(), loopback_only: self.address.ip().is_loopback() });
        self.runtime.block_on(async {
            let news = tokio::spawn(watch(self.tree));
            let connections = GracefulShutdown::new();
            tokio::select! {
                () = end => {}
                () = accept(self.listener, &front, &connections) => {}
            }
            news.abort();
            let _ = time::timeout(Duration::from_millis(END_MS_MAX), connections.shutdown()).await;
        });
        // A thread that waits for slow storage must not keep the program.
        self.runtime.shutdown_background();
    }
}

/// Asks for new snapshots, again and again.
async fn watch(tree: Arc<Tree>) {
    let interval = Duration::from_millis(POLL_INTERVAL_MS);
    let mut pause = interval;
    loop {
        time::sleep(pause).await;
        let (tree, begun) = (tree.clone(), time::Instant::now());
        // The listing has told of a failure.
        let _ = tokio::task::spawn_blocking(move || tree.refresh()).await;
        pause = interval.max(PAUSE_MAX.min(begun.elapsed() * PAUSE_PER_LISTING));
    }
}

async fn accept(listener: TcpListener, front: &Arc<Front>, connections: &GracefulShutdown) {
    let places = Arc::new(Connections::default());
    loop {
        match listener.accept().await {
            Ok((stream, client)) => match places.place(client.ip().to_canonical()).await {
                Some(place) => _ = tokio::spawn(serve(stream, front.clone(), connections.watcher(), place)),
                // Best effort: it fits into what the system sends by itself.
                None => _ = stream.try_write(TOO_MANY),
            },
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                // Mostly out of file descriptors: asking again at once would only burn time.
                time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, front: Arc<Front>, watcher: Watcher, place: Place) {
    // Small answers go at once: a client waits for each before it asks for the next.
    let _ = stream.set_nodelay(true);
    let connection = place.connection().clone();
    let stream = Watched { stream, connection: connection.clone() };
    let service = hyper::service::service_fn(move |request| {
        let (front, connection) = (front.clone(), connection.clone());
        async move { Ok::<_, Infallible>(front.answer(request, connection).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(REQUEST_HEAD_S_MAX))
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        served = watcher.watch(connection) => if let Err(error) = served {
            tracing::debug!(%error, "a connection ended early");
        },
        () = place.ended() => tracing::debug!("a connection that waited for its client made room for another"),
    }
}

/// What every request meets first.
struct Front {
    tree: Arc<Tree>,
    loopback_only: bool,
}

impl Front {
    async fn answer(&self, request: Request<Incoming>, connection: Arc<Connection>) -> Response<Whole> {
        let failed = Arc::new(AtomicBool::new(false));
        let (head, body) = request.into_parts();
        // While it comes, the connection waits for its client.
        let asked = match self.refusal(&head) {
            Some(refusal) => Err(refusal),
            None => {
                let in_time = Duration::from_secs(REQUEST_BODY_S_MAX);
                read_whole(body, in_time).await.map_err(|status| refuse(status, ""))
            }
        };
        connection.answers(true);
        let whole = |body| Whole { body, failed: failed.clone(), ended: false, answer: Answering(connection.clone()) };
        let mut response = match asked {
            Err(refusal) => refusal.map(whole),
            Ok(body) => {
                let mut request = Request::from_parts(head, dav_server::body::Body::from(body));
                forget_several_ranges(request.headers_mut());
                let handler = DavHandler::builder()
                    .filesystem(Files::new(self.tree.clone(), failed.clone()))
                    .methods(DavMethodSet::WEBDAV_RO)
                    .autoindex(false)
                    .read_buf_size(READ_SIZE_BYTES)
                    .build_handler();
                handler.handle(request).await.map(whole)
            }
        };
        describe(&mut response);
        response
    }

    /// Returns the answer to a request that is not let through.
    fn refusal(&self, request: &Parts) -> Option<Response<dav_server::body::Body>> {
        let (status, body) = if self.loopback_only && !names_this_machine(&request.headers) {
            (StatusCode::MISDIRECTED_REQUEST, "")
        } else if !is_read(&request.method) {
            (StatusCode::METHOD_NOT_ALLOWED, "")
        } else if request.method == "PROPFIND" && !has_finite_depth(&request.headers) {
            (StatusCode::FORBIDDEN, FINITE_DEPTH)
        } else {
            return None;
        };
        Some(refuse(status, body))
    }
}

fn refuse(status: StatusCode, body: &'static str) -> Response<dav_server::body::Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    if !body.is_empty() {
        let xml = HeaderValue::from_static("application/xml; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, xml);
    }
    if [StatusCode::REQUEST_TIMEOUT, StatusCode::PAYLOAD_TOO_LARGE].contains(&status) {
        // Where the next request begins is not known.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Reads the body of a request; the status says what is wrong with one that is too long or takes too long.
async fn read_whole<B: Body<Data = Bytes> + Unpin>(mut body: B, in_time: Duration) -> Result<Bytes, StatusCode> {
    let reading = async {
        let mut whole = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame = frame.map_err(|_| StatusCode::BAD_REQUEST)?;
            let data = frame.into_data().unwrap_or_default();
            if whole.len() + data.len() > REQUEST_BODY_BYTES_MAX {
                return Err(StatusCode::PAYLOAD_TOO_LARGE);
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.into())
    };
    time::timeout(in_time, reading).await.unwrap_or(Err(StatusCode::REQUEST_TIMEOUT))
}

/// An answer that is under way, until its last byte is handed over.
struct Answering(Arc<Connection>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answers(false);
    }
}

fn is_read(method: &Method) -> bool {
    ALLOWED.split(", ").any(|allowed| method == allowed)
}

/// Without the header the depth is infinity (RFC 4918, 9.1).
fn has_finite_depth(headers: &HeaderMap) -> bool {
    headers.get("depth").is_some_and(|depth| depth == "0" || depth == "1")
}

/// Returns whether the request was sent to an address, or to `localhost`. A page from elsewhere that lets its own name
/// point to this machine sends that name.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    host.is_some_and(|host| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
    })
}

/// Leaves out a request for several ranges at once, which is then answered with the whole file (RFC 9110, 14.2). Nobody
/// needs it, and the parts would be told from each other by a boundary that the content may hold.
fn forget_several_ranges(headers: &mut HeaderMap) {
    if headers.get(header::RANGE).is_some_and(|ranges| ranges.as_bytes().contains(&b',')) {
        headers.remove(header::RANGE);
    }
}

/// Says what holds for every answer.
fn describe(response: &mut Response<Whole>) {
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(ALLOWED));
    }
    let headers = response.headers_mut();
    if headers.contains_key("dav") {
        // Class 1 is what has no locks (RFC 4918, 18.1). macOS then mounts read-only.
        headers.insert("dav", HeaderValue::from_static("1"));
    }
    const PROTECTION: [(HeaderName, &str); 3] = [
        // In a browser: nothing runs, nothing is loaded from elsewhere, and the page has no part in this address.
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    headers.extend(PROTECTION.map(|(name, value)| (name, HeaderValue::from_static(value))));
}

/// A body that is broken off instead of ended if something failed on the way, so that no client takes it for whole.
struct Whole {
    body: dav_server::body::Body,
    failed: Arc<AtomicBool>,
    ended: bool,
    /// Dropped with the body.
    #[expect(dead_code, reason = "it acts when it is dropped")]
    answer: Answering,
}

impl Body for Whole {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        // What has failed once is not asked again.
        self.ended = !matches!(frame, Some(Ok(_)));
        if frame.is_none() && self.failed.load(Ordering::Relaxed) {
            return Poll::Ready(Some(Err(io::Error::other("the folder could not be read to its end"))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

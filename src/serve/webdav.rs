//! Serves snapshots over WebDAV (RFC 4918), read-only. It is for machines without FUSE: macOS and Windows have a WebDAV
//! client.
//!
//! The crate `dav-server` speaks the protocol. `tree` gives it the same files that the mount shows, from the same code
//! (`strongroom_mount::fs`). This file accepts the connections, limits what a client can use, and handles the cases in
//! which `dav-server` would answer differently from what we promise:
//!
//! - Only OPTIONS, GET, HEAD and PROPFIND are allowed. Any other method is refused at once.
//! - No client can keep others out (see `connections`). The body of a request must be short and must arrive soon.
//! - A PROPFIND of infinite depth is refused (RFC 4918, 9.1), because a tenant's folder has millions of entries below
//!   it.
//! - An answer is complete, or the connection breaks off visibly. If a folder cannot be read to its end, the listing
//!   must not look like that of a shorter folder.
//! - The content is hostile. If a browser shows a page from a mailbox, that page must not read the rest of the backup.
//!   A page on the network must not reach this server through a name that resolves to it (DNS rebinding).
//!
//! This file is async. Reading the repository blocks, so it runs on a limited pool of threads.

mod connections;
mod tree;

use crate::format::id::SnapshotId;
use connections::{Connection, Connections, Slot, WatchedStream};
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

/// Maximum number of bytes that an answer reads at a time. Together with the number of connections, it limits the
/// memory of all answers.
const READ_SIZE_BYTES: usize = 256 << 10;
/// Maximum number of threads that read from the repository.
const BLOCKING_THREADS_MAX: usize = 8;
/// How long a client may take to send the head of a request, in seconds. It is also how long an idle connection is
/// kept.
const REQUEST_HEAD_S_MAX: u64 = 60;
/// How long a client may take to send the body of a request, in seconds, and how large the body may be, in bytes. The
/// body of a PROPFIND has a few hundred bytes.
const REQUEST_BODY_S_MAX: u64 = 10;
const REQUEST_BODY_BYTES_MAX: usize = 64 << 10;
/// How long answers may continue after the server was told to end, in milliseconds.
const SHUTDOWN_MS_MAX: u64 = 2000;
/// How often the server looks for new snapshots, in milliseconds.
const POLL_INTERVAL_MS: u64 = 1000;
/// After each listing of the snapshots, the server pauses this many times as long as the listing took, up to
/// `PAUSE_MAX`. Otherwise a storage with a million junk objects would keep a processor busy.
const PAUSE_PER_LISTING: u32 = 4;
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The answer to a client that has too many connections.
const TOO_MANY_CONNECTIONS: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";

/// The allowed methods, for the header `Allow` (RFC 9110, 10.2.1).
const ALLOWED_METHODS: &str = "OPTIONS, GET, HEAD, PROPFIND";
const FINITE_DEPTH_ERROR: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n\
    <D:error xmlns:D=\"DAV:\"><D:propfind-finite-depth/></D:error>\n";

/// Why serving failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebdavError {
    /// The server cannot listen on the address.
    #[error("could not listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The snapshots could not be listed.
    #[error("could not list the snapshots")]
    Catalog(#[source] FsError),
    /// The threads of the server could not be started.
    #[error("could not start the server")]
    Start(#[source] io::Error),
}

/// A server that listens on its address. It answers requests once [`Server::run`] is called.
pub struct Server {
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
    tree: Arc<Tree>,
}

impl Server {
    /// Listens on `address`; port 0 stands for any free port. If `target` shows a single snapshot, `snapshot` is its
    /// id.
    ///
    /// # Errors
    /// [`WebdavError`], if the address or the snapshots are not available.
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

    /// Returns the address of the root folder.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Serves until `end` completes. Answers under way then have at most two seconds to finish.
    pub fn run(self, end: impl Future<Output = ()>) {
        let front = Arc::new(Front { tree: self.tree.clone(), loopback_only: self.address.ip().is_loopback() });
        self.runtime.block_on(async {
            let news = tokio::spawn(poll_snapshots(self.tree));
            let connections = GracefulShutdown::new();
            tokio::select! {
                () = end => {}
                () = accept(self.listener, &front, &connections) => {}
            }
            news.abort();
            let _ = time::timeout(Duration::from_millis(SHUTDOWN_MS_MAX), connections.shutdown()).await;
        });
        // Do not wait for a thread that reads from slow storage.
        self.runtime.shutdown_background();
    }
}

/// Looks for new snapshots again and again.
async fn poll_snapshots(tree: Arc<Tree>) {
    let interval = Duration::from_millis(POLL_INTERVAL_MS);
    let mut pause = interval;
    loop {
        time::sleep(pause).await;
        let (tree, begun) = (tree.clone(), time::Instant::now());
        // The listing itself has logged any failure.
        let _ = tokio::task::spawn_blocking(move || tree.refresh()).await;
        pause = interval.max(PAUSE_MAX.min(begun.elapsed() * PAUSE_PER_LISTING));
    }
}

async fn accept(listener: TcpListener, front: &Arc<Front>, connections: &GracefulShutdown) {
    let open = Arc::new(Connections::default());
    loop {
        match listener.accept().await {
            Ok((stream, client)) => match open.slot(client.ip().to_canonical()).await {
                Some(slot) => _ = tokio::spawn(serve(stream, front.clone(), connections.watcher(), slot)),
                // Best effort: the answer is short enough for the socket's buffer.
                None => _ = stream.try_write(TOO_MANY_CONNECTIONS),
            },
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                // Usually there are no file descriptors left. Trying again at once would only waste processor time.
                time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, front: Arc<Front>, watcher: Watcher, slot: Slot) {
    // Send small answers at once: a client waits for each answer before it sends the next request.
    let _ = stream.set_nodelay(true);
    let connection = slot.connection().clone();
    let stream = WatchedStream { stream, connection: connection.clone() };
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
        () = slot.evicted() => tracing::debug!("a connection that waited for its client made room for another"),
    }
}

/// Checks every request, and passes the allowed ones to `dav-server`.
struct Front {
    tree: Arc<Tree>,
    loopback_only: bool,
}

impl Front {
    async fn answer(&self, request: Request<Incoming>, connection: Arc<Connection>) -> Response<CheckedBody> {
        let failed = Arc::new(AtomicBool::new(false));
        let (head, body) = request.into_parts();
        // While the body arrives, the connection counts as waiting for its client.
        let asked = match self.refusal(&head) {
            Some(refusal) => Err(refusal),
            None => {
                let in_time = Duration::from_secs(REQUEST_BODY_S_MAX);
                read_whole(body, in_time).await.map_err(|status| refuse(status, ""))
            }
        };
        connection.answers(true);
        let whole =
            |body| CheckedBody { body, failed: failed.clone(), ended: false, answer: AnswerGuard(connection.clone()) };
        let mut response = match asked {
            Err(refusal) => refusal.map(whole),
            Ok(body) => {
                let mut request = Request::from_parts(head, dav_server::body::Body::from(body));
                remove_multiple_ranges(request.headers_mut());
                let handler = DavHandler::builder()
                    .filesystem(Files::new(self.tree.clone(), failed.clone()))
                    .methods(DavMethodSet::WEBDAV_RO)
                    .autoindex(false)
                    .read_buf_size(READ_SIZE_BYTES)
                    .build_handler();
                handler.handle(request).await.map(whole)
            }
        };
        add_headers(&mut response);
        response
    }

    /// Returns the refusal of a request that is not allowed.
    fn refusal(&self, request: &Parts) -> Option<Response<dav_server::body::Body>> {
        let (status, body) = if self.loopback_only && !names_this_machine(&request.headers) {
            (StatusCode::MISDIRECTED_REQUEST, "")
        } else if !is_read(&request.method) {
            (StatusCode::METHOD_NOT_ALLOWED, "")
        } else if request.method == "PROPFIND" && !has_finite_depth(&request.headers) {
            (StatusCode::FORBIDDEN, FINITE_DEPTH_ERROR)
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
        // The rest of this body may still arrive, so nobody knows where the next request begins.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Reads the body of a request. Returns a status as the error if the body is too long, takes too long, or breaks off.
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

/// Marks a connection as answering until the last byte of the answer was handed over.
struct AnswerGuard(Arc<Connection>);

impl Drop for AnswerGuard {
    fn drop(&mut self) {
        self.0.answers(false);
    }
}

fn is_read(method: &Method) -> bool {
    ALLOWED_METHODS.split(", ").any(|allowed| method == allowed)
}

/// Without this header, the depth is infinity (RFC 4918, 9.1).
fn has_finite_depth(headers: &HeaderMap) -> bool {
    headers.get("depth").is_some_and(|depth| depth == "0" || depth == "1")
}

/// Returns true if the request was sent to an IP address or to `localhost`. If a page from elsewhere lets its own name
/// resolve to this machine, its requests carry that name.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    host.is_some_and(|host| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
    })
}

/// Removes a request for several ranges, so the answer is the whole file (RFC 9110, 14.2). Nobody needs several ranges.
/// The answer would separate the parts by a boundary that the content may contain.
fn remove_multiple_ranges(headers: &mut HeaderMap) {
    if headers.get(header::RANGE).is_some_and(|ranges| ranges.as_bytes().contains(&b',')) {
        headers.remove(header::RANGE);
    }
}

/// Sets the headers that every answer needs.
fn add_headers(response: &mut Response<CheckedBody>) {
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(ALLOWED_METHODS));
    }
    let headers = response.headers_mut();
    if headers.contains_key("dav") {
        // Class 1 means no locks (RFC 4918, 18.1). macOS then mounts read-only.
        headers.insert("dav", HeaderValue::from_static("1"));
    }
    const PROTECTION: [(HeaderName, &str); 3] = [
        // In a browser, no script runs, nothing is loaded from elsewhere, and the page cannot act as part of this
        // address.
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    headers.extend(PROTECTION.map(|(name, value)| (name, HeaderValue::from_static(value))));
}

/// The body of an answer. If a listing failed on the way, the body ends with an error, so that no client takes it for
/// complete.
struct CheckedBody {
    body: dav_server::body::Body,
    failed: Arc<AtomicBool>,
    ended: bool,
    /// Dropped together with the body.
    #[expect(dead_code, reason = "it acts when it is dropped")]
    answer: AnswerGuard,
}

impl Body for CheckedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        // Do not poll the inner body again after an error or its end.
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

//! Connections that can be broken on purpose, as a proxy or a failing server breaks them. HTTP alone cannot do that.
//!
//! [`Listener`] attaches a [`Connection`] to every request (as `ConnectInfo`). [`Connection::reset`] makes the next
//! write fail and closes with a TCP reset (RST) instead of an orderly end. [`Connection::say_instead`] sends bytes that
//! no HTTP server would write.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// The connection over which a request came.
#[derive(Debug, Clone, Default)]
pub struct Connection(Arc<Fate>);

/// What happens to a connection.
#[derive(Debug, Default)]
struct Fate {
    is_reset: AtomicBool,
    /// The bytes still to send in place of everything that the server writes.
    instead: Mutex<Option<Bytes>>,
}

impl Connection {
    /// Breaks the connection. Nothing more is sent, not even data in buffers; the peer sees a reset.
    pub fn reset(&self) {
        self.0.is_reset.store(true, Ordering::Release);
    }

    /// Sends `bytes` in place of the next answer and of everything that the server writes after it. The server must
    /// close the connection after that answer.
    pub fn say_instead(&self, bytes: Bytes) {
        *self.0.instead.lock() = Some(bytes);
    }

    fn is_reset(&self) -> bool {
        self.0.is_reset.load(Ordering::Acquire)
    }
}

/// Accepts connections that can be reset.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Wraps a bound socket.
    pub fn new(listener: TcpListener) -> Self {
        Self(listener)
    }
}

impl axum::serve::Listener for Listener {
    type Io = Socket;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Socket, SocketAddr) {
        let (stream, address) = axum::serve::Listener::accept(&mut self.0).await;
        // Send small answers at once, because a client waits for each.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        (Socket { stream, connection: Connection::default() }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, Listener>> for Connection {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.io().connection.clone()
    }
}

/// A TCP stream whose writes fail after a reset.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    connection: Connection,
}

impl Socket {
    /// Sends the replacement bytes, if there are any. Returns whether there were.
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let connection = self.connection.clone();
        let mut instead = connection.0.instead.lock();
        let Some(rest) = &mut *instead else { return Poll::Ready(Ok(false)) };
        while !rest.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *rest = rest.slice(written..);
        }
        Poll::Ready(Ok(true))
    }

    fn check(&self) -> io::Result<()> {
        if self.connection.is_reset() { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Closing with a linger time of zero sends RST and discards unsent data (socket(7), SO_LINGER).
        if self.connection.is_reset()
            && let Err(error) = self.stream.set_zero_linger()
        {
            tracing::debug!(%error, "the connection is closed without a reset");
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        if ready!(self.poll_instead(cx))? {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        if ready!(self.poll_instead(cx))? {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

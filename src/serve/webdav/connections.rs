//! The open connections, and which of them ends when there are too many.
//!
//! A client can keep a connection waiting at no cost: before a request, in the middle of a request's body, or by not
//! taking the answer. So a waiting connection never keeps others out. If all slots are taken, the connection that has
//! waited longest is ended. Connections that are working on an answer are left alone: a new client waits for one of
//! them to finish, and a client that has too many of them is refused.

use parking_lot::Mutex;
use std::cmp::Reverse;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time;

pub(super) const CONNECTIONS_MAX: usize = 64;
/// Maximum number of connections from one address. It does not apply to loopback, because all programs on this machine
/// share that address.
const CONNECTIONS_PER_CLIENT_MAX: usize = 32;
/// If all slots are taken, how long a client waits for a connection to end before the server looks for a slot again.
const FULL_WAIT: Duration = Duration::from_millis(200);

/// All connections.
#[derive(Default)]
pub(super) struct Connections {
    all: Mutex<Vec<Arc<Connection>>>,
    left: Notify,
}

/// One connection. It knows whether it is waiting for its client.
pub(super) struct Connection {
    client: IpAddr,
    state: Mutex<State>,
    ended: Notify,
}

struct State {
    /// True while a request is being answered.
    answers: bool,
    /// True while the client does not take what was sent.
    is_stuck: bool,
    /// When one of the two last changed.
    since: Instant,
}

/// Why there is no slot.
#[derive(Debug, PartialEq, Eq)]
enum NoSlot {
    Server,
    Client,
}

/// A slot for one connection. Dropping it frees the slot.
pub(super) struct Slot {
    connections: Arc<Connections>,
    connection: Arc<Connection>,
}

impl Connections {
    /// Waits for a slot. Returns `None` if the client has too many connections.
    pub(super) async fn slot(self: &Arc<Self>, client: IpAddr) -> Option<Slot> {
        loop {
            match self.take(client) {
                Ok(slot) => return Some(slot),
                Err(NoSlot::Client) => return None,
                Err(NoSlot::Server) => _ = time::timeout(FULL_WAIT, self.left.notified()).await,
            }
        }
    }

    fn take(self: &Arc<Self>, client: IpAddr) -> Result<Slot, NoSlot> {
        let mut all = self.all.lock();
        let count_of = |client: IpAddr| all.iter().filter(|one| one.client == client).count();
        let is_greedy = !client.is_loopback() && count_of(client) >= CONNECTIONS_PER_CLIENT_MAX;
        if is_greedy || all.len() >= CONNECTIONS_MAX {
            let candidates = all.iter().enumerate().filter(|(_, one)| !is_greedy || one.client == client);
            let waiting = candidates.filter_map(|(number, one)| {
                let since = one.waits_since()?;
                Some((Reverse(count_of(one.client)), since, number))
            });
            match waiting.min() {
                Some((.., number)) => all.remove(number).ended.notify_one(),
                None => return Err(if is_greedy { NoSlot::Client } else { NoSlot::Server }),
            }
        }
        let state = State { answers: false, is_stuck: false, since: Instant::now() };
        let connection = Arc::new(Connection { client, state: Mutex::new(state), ended: Notify::new() });
        all.push(connection.clone());
        Ok(Slot { connections: self.clone(), connection })
    }
}

impl Slot {
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Completes when the connection must end to make room for another.
    pub(super) async fn evicted(&self) {
        self.connection.ended.notified().await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connections.all.lock().retain(|one| !Arc::ptr_eq(one, &self.connection));
        self.connections.left.notify_one();
    }
}

impl Connection {
    /// Records whether a request is being answered.
    pub(super) fn answers(&self, answers: bool) {
        let mut state = self.state.lock();
        *state = State { answers, since: Instant::now(), ..*state };
    }

    fn is_stuck(&self, is_stuck: bool) {
        let mut state = self.state.lock();
        if state.is_stuck != is_stuck {
            *state = State { is_stuck, since: Instant::now(), ..*state };
        }
    }

    fn waits_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        (!state.answers || state.is_stuck).then_some(state.since)
    }
}

/// The stream of a connection. It records when the client stops taking bytes.
pub(super) struct WatchedStream {
    pub(super) stream: TcpStream,
    pub(super) connection: Arc<Connection>,
}

impl WatchedStream {
    fn written<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.connection.is_stuck(written.is_pending());
        written
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_that_waits_longest_is_ended() {
        let here = IpAddr::from([127, 0, 0, 1]);
        let connections = Arc::new(Connections::default());
        let slots: Vec<_> = (0..CONNECTIONS_MAX).map(|_| connections.take(here).expect("room")).collect();
        let is_there = |slot: &Slot| connections.all.lock().iter().any(|one| Arc::ptr_eq(one, &slot.connection));
        slots.iter().for_each(|slot| slot.connection.answers(true));
        assert_eq!(connections.take(here).err(), Some(NoSlot::Server));
        slots[7].connection.is_stuck(true);
        slots[3].connection.answers(false);
        let next = connections.take(here).expect("the slot of the one that is stuck longest");
        assert!(!is_there(&slots[7]) && is_there(&slots[3]) && is_there(&next));
        next.connection.answers(true);
        slots[3].connection.answers(true);
        assert_eq!(connections.take(here).err(), Some(NoSlot::Server));
        drop(slots);
        assert_eq!(connections.all.lock().len(), 1);
    }

    #[test]
    fn one_client_leaves_room_for_the_others() {
        let [greedy, other] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        let connections = Arc::new(Connections::default());
        let slots: Vec<_> = (0..CONNECTIONS_PER_CLIENT_MAX).map(|_| connections.take(greedy).expect("room")).collect();
        slots.iter().for_each(|slot| slot.connection.answers(true));
        assert_eq!(connections.take(greedy).err(), Some(NoSlot::Client));
        let others: Vec<_> =
            (CONNECTIONS_PER_CLIENT_MAX..CONNECTIONS_MAX).map(|_| connections.take(other).expect("room")).collect();
        // All slots are taken. The connection that has waited longest belongs to the client with the most connections.
        others[0].connection.answers(true);
        assert_eq!(connections.take(greedy).err(), Some(NoSlot::Client));
        slots[5].connection.answers(false);
        let _next = connections.take(greedy).expect("its own that waits");
        assert_eq!(connections.all.lock().len(), CONNECTIONS_MAX);
    }
}

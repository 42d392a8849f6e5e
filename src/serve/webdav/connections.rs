//! Who is connected, and who has to go when there is no room.
//!
//! A connection that waits for its client (for a request, for the body of one, or until an answer is taken) costs that
//! client nothing. So it never keeps others out: where all places are taken, the one that has waited longest is ended.
//! Connections that work on an answer are left alone; the next client waits for them, and a client that has too many of
//! them is refused.

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
/// Of one address. All programs of this machine share one, so that there it is no bound.
const OF_CLIENT_MAX: usize = 32;
/// How long a client in front of a full house waits before it is looked for room again, if nobody leaves.
const FULL_WAIT: Duration = Duration::from_millis(200);

/// All connections.
#[derive(Default)]
pub(super) struct Connections {
    all: Mutex<Vec<Arc<Connection>>>,
    left: Notify,
}

/// One connection. It is told what its client keeps it waiting for.
pub(super) struct Connection {
    client: IpAddr,
    state: Mutex<State>,
    ended: Notify,
}

struct State {
    /// A request is being answered.
    answers: bool,
    /// The client does not take what was sent.
    is_stuck: bool,
    /// Since when both are as they are.
    since: Instant,
}

/// Why there is no place.
#[derive(Debug, PartialEq, Eq)]
enum Full {
    House,
    Client,
}

/// A place among the connections; it is free again when this is dropped.
pub(super) struct Place {
    connections: Arc<Connections>,
    connection: Arc<Connection>,
}

impl Connections {
    /// Waits for a place; `None` for a client that has as many as it may have.
    pub(super) async fn place(self: &Arc<Self>, client: IpAddr) -> Option<Place> {
        loop {
            match self.take(client) {
                Ok(place) => return Some(place),
                Err(Full::Client) => return None,
                Err(Full::House) => _ = time::timeout(FULL_WAIT, self.left.notified()).await,
            }
        }
    }

    fn take(self: &Arc<Self>, client: IpAddr) -> Result<Place, Full> {
        let mut all = self.all.lock();
        let count_of = |client: IpAddr| all.iter().filter(|one| one.client == client).count();
        let is_greedy = !client.is_loopback() && count_of(client) >= OF_CLIENT_MAX;
        if is_greedy || all.len() >= CONNECTIONS_MAX {
            let candidates = all.iter().enumerate().filter(|(_, one)| !is_greedy || one.client == client);
            let waiting = candidates.filter_map(|(number, one)| {
                let since = one.waits_since()?;
                Some((Reverse(count_of(one.client)), since, number))
            });
            match waiting.min() {
                Some((.., number)) => all.remove(number).ended.notify_one(),
                None => return Err(if is_greedy { Full::Client } else { Full::House }),
            }
        }
        let state = State { answers: false, is_stuck: false, since: Instant::now() };
        let connection = Arc::new(Connection { client, state: Mutex::new(state), ended: Notify::new() });
        all.push(connection.clone());
        Ok(Place { connections: self.clone(), connection })
    }
}

impl Place {
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Returns when the connection has to go.
    pub(super) async fn ended(&self) {
        self.connection.ended.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.all.lock().retain(|one| !Arc::ptr_eq(one, &self.connection));
        self.connections.left.notify_one();
    }
}

impl Connection {
    /// Notes whether a request is being answered.
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

/// The stream of a connection, which notes when its client takes nothing any more.
pub(super) struct Watched {
    pub(super) stream: TcpStream,
    pub(super) connection: Arc<Connection>,
}

impl Watched {
    fn written<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.connection.is_stuck(written.is_pending());
        written
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Watched {
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
    fn who_waits_longest_goes_and_who_is_answered_stays() {
        let here = IpAddr::from([127, 0, 0, 1]);
        let connections = Arc::new(Connections::default());
        let places: Vec<_> = (0..CONNECTIONS_MAX).map(|_| connections.take(here).expect("room")).collect();
        let is_there = |place: &Place| connections.all.lock().iter().any(|one| Arc::ptr_eq(one, &place.connection));
        places.iter().for_each(|place| place.connection.answers(true));
        assert_eq!(connections.take(here).err(), Some(Full::House));
        places[7].connection.is_stuck(true);
        places[3].connection.answers(false);
        let next = connections.take(here).expect("the place of the one that is stuck longest");
        assert!(!is_there(&places[7]) && is_there(&places[3]) && is_there(&next));
        next.connection.answers(true);
        places[3].connection.answers(true);
        assert_eq!(connections.take(here).err(), Some(Full::House));
        drop(places);
        assert_eq!(connections.all.lock().len(), 1);
    }

    #[test]
    fn one_client_leaves_room_for_the_others() {
        let [greedy, other] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        let connections = Arc::new(Connections::default());
        let places: Vec<_> = (0..OF_CLIENT_MAX).map(|_| connections.take(greedy).expect("room")).collect();
        places.iter().for_each(|place| place.connection.answers(true));
        assert_eq!(connections.take(greedy).err(), Some(Full::Client));
        let others: Vec<_> = (OF_CLIENT_MAX..CONNECTIONS_MAX).map(|_| connections.take(other).expect("room")).collect();
        // The house is full now; whoever has waited longest is of the client that has most.
        others[0].connection.answers(true);
        assert_eq!(connections.take(greedy).err(), Some(Full::Client));
        places[5].connection.answers(false);
        let _next = connections.take(greedy).expect("its own that waits");
        assert_eq!(connections.all.lock().len(), CONNECTIONS_MAX);
    }
}

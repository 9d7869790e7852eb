//! Places for connections: how many there may be, in all and of one address, who makes room when there are none left,
//! and what those hear for whom there is none.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Instant;

use rustix::net::{SendFlags, send};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tunnel_core::http::crowd::Crowd;
use tunnel_core::limits::{MAX_REFUSALS, REFUSAL_TIMEOUT};
use tunnel_core::relay::Opened;

use crate::rt::{self, AsyncReadExt, AsyncWriteExt, TcpStream, timeout};
use crate::seldom::Seldom;
use crate::stream::Stream;

/// The places of one listener.
pub(crate) struct Places {
    all: Arc<Semaphore>,
    floor: Arc<Floor>,
    refusals: Arc<Semaphore>,
    /// A connection was asked to make room, and its place has not been taken yet.
    asked: bool,
    full: Seldom,
    crowded: Seldom,
}

/// What the places of one listener share.
struct Floor {
    crowd: Mutex<Crowd>,
    idle: Mutex<Idle>,
    /// A connection began to wait for its client.
    stirred: Notify,
}

/// Connections that wait for their clients: for a TLS handshake, for a head, for a body. Who began to wait first makes
/// room first, whatever for: an attacker can choose that.
#[derive(Default)]
struct Idle {
    turns: u64,
    by_turn: BTreeMap<u64, Arc<Notify>>,
}

/// Whoever came in and is counted among its address's connections. Ends with the value.
pub(crate) struct Guest {
    peer: IpAddr,
    floor: Arc<Floor>,
}

/// What a connection takes of its listener, free again when dropped.
#[derive(Debug)]
pub struct Seat {
    guest: Guest,
    _of_all: OwnedSemaphorePermit,
}

/// A connection's place, for as long as requests are served on it.
pub struct Place {
    seat: Arc<Seat>,
    /// `None`: the connection is being served, and keeps its place however long that takes.
    turn: Mutex<Option<u64>>,
    leave: Arc<Notify>,
    opened: Mutex<Opened>,
}

impl Places {
    /// `connections` in all, and of one address what `crowd` allows.
    pub(crate) fn new(connections: usize, crowd: Crowd) -> Self {
        let floor = Floor { crowd: Mutex::new(crowd), idle: Mutex::default(), stirred: Notify::new() };
        Self {
            all: Arc::new(Semaphore::new(connections)),
            floor: Arc::new(floor),
            refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
            asked: false,
            full: Seldom::default(),
            crowded: Seldom::default(),
        }
    }

    /// Counts a connection of `peer`, unless it has as many as one address may have.
    pub(crate) fn enter(&mut self, peer: IpAddr) -> Option<Guest> {
        if lock(&self.floor.crowd).enter(peer) {
            return Some(Guest { peer, floor: Arc::clone(&self.floor) });
        }
        if self.crowded.is_time(Instant::now()) {
            tracing::warn!(
                %peer,
                setting = "limits.connectionsPerAddress",
                "an address has all the connections that one may have: if it is your proxy's, name it in trustedProxies"
            );
        }
        None
    }

    /// Waits until there is a place for somebody who came in. When there is none, the connection makes room that waits
    /// for its client longest: otherwise slow clients at many addresses could keep everybody else out. One that is being
    /// served is let be, and while all are, whoever comes waits in the system's queue.
    ///
    /// May be dropped and called again.
    pub(crate) async fn free(&mut self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(free) = Arc::clone(&self.all).try_acquire_owned() {
                self.asked = false;
                return free;
            }
            if self.full.is_time(Instant::now()) {
                tracing::warn!(setting = "limits.connections", "all places are taken: who waits longest makes room");
            }
            self.asked = self.asked || self.floor.ask();
            let all = Arc::clone(&self.all);
            tokio::select! {
                biased;
                free = all.acquire_owned() => {
                    self.asked = false;
                    return free.expect("the places are never closed");
                }
                () = self.floor.stirred.notified(), if !self.asked => {}
            }
        }
    }

    /// Tells a client why it is turned away. Not many are waited for until they have read it.
    pub(crate) fn refuse(&self, stream: TcpStream) {
        if let Ok(telling) = Arc::clone(&self.refusals).try_acquire_owned() {
            rt::spawn(async move {
                last_words(Stream::Plain(stream), STATUS, TOO_MANY).await;
                drop(telling);
            });
        } else {
            let _ = send(&stream, reply(STATUS, TOO_MANY).as_bytes(), SendFlags::DONTWAIT);
        }
    }
}

impl Floor {
    /// Asks the first of those that wait for their clients to make room; `false`: there is none.
    fn ask(&self) -> bool {
        let first = lock(&self.idle).by_turn.pop_first();
        first.inspect(|(_, leave)| leave.notify_one()).is_some()
    }
}

impl Guest {
    /// Takes the free place, and waits for the client from now on.
    pub(crate) fn seat(self, free: OwnedSemaphorePermit) -> Place {
        let seat = Arc::new(Seat { guest: self, _of_all: free });
        let place = Place { seat, turn: Mutex::new(None), leave: Arc::default(), opened: Mutex::default() };
        place.wait();
        place
    }
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        lock(&self.floor.crowd).leave(self.peer);
    }
}

impl Place {
    /// The address that the connection came from.
    #[must_use]
    pub fn peer(&self) -> IpAddr {
        self.seat.guest.peer
    }

    /// For what the connection becomes: it keeps the seat, and no more.
    #[must_use]
    pub fn seat(&self) -> Arc<Seat> {
        Arc::clone(&self.seat)
    }

    /// What the last request of the connection brought, opened.
    pub(crate) fn opened(&self) -> MutexGuard<'_, Opened> {
        lock(&self.opened)
    }

    /// From now on the client is waited for, and the connection may be asked to make room.
    pub fn wait(&self) {
        let mut turn = lock(&self.turn);
        let mut idle = lock(&self.seat.guest.floor.idle);
        if let Some(old) = turn.take() {
            idle.by_turn.remove(&old);
        }
        idle.turns += 1;
        let new = idle.turns;
        idle.by_turn.insert(new, Arc::clone(&self.leave));
        *turn = Some(new);
        self.seat.guest.floor.stirred.notify_one();
    }

    /// From now on the client waits for us. `false`: the connection was asked to make room before, and ends.
    #[must_use]
    pub fn serve(&self) -> bool {
        let mut turn = lock(&self.turn);
        turn.take().is_none_or(|turn| lock(&self.seat.guest.floor.idle).by_turn.remove(&turn).is_some())
    }

    /// Waits for what the client sends: the connection may be asked to make room meanwhile, unless that is here already.
    /// `None`: it was asked, and ends.
    pub(crate) async fn wait_for<T>(&self, mut sent: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        if let Poll::Ready(sent) = poll_fn(|cx| Poll::Ready(sent.as_mut().poll(cx))).await {
            return Some(sent);
        }
        self.wait();
        let sent = sent.await;
        self.serve().then_some(sent)
    }

    /// Waits until the connection is asked to make room.
    pub(crate) async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Who is asked to make room must be there to do so.
        let _ = self.serve();
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("peer", &self.peer()).field("turn", &self.turn).finish_non_exhaustive()
    }
}

/// Answers `status` with `text`, whatever was asked, and closes. What the client still sends is read for a moment: a socket that is closed with unread
/// bytes takes its last words back.
pub(crate) async fn last_words(mut stream: Stream, status: &str, text: &str) {
    let telling = async {
        stream.write_all(reply(status, text).as_bytes()).await?;
        rt::finish(&mut stream).await?;
        let mut left = MAX_IGNORED;
        let mut ignored = vec![0; 1024];
        while left > 0 {
            match stream.read(&mut ignored).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        Ok::<_, std::io::Error>(())
    };
    // Who does not listen misses them.
    let _ = timeout(REFUSAL_TIMEOUT, telling).await;
}

fn reply(status: &str, text: &str) -> String {
    let length = text.len();
    let again = if status == STATUS { "Retry-After: 10\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\n{again}Connection: close\r\nContent-Length: {length}\r\n\r\n{text}"
    )
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing behind these locks is left half done.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is read of a request that is not answered: a head's worth.
const MAX_IGNORED: usize = 64 * 1024;
const STATUS: &str = "429 Too Many Requests";
const TOO_MANY: &str = "too many connections from this address (limits.connectionsPerAddress)\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[crate::rt::test]
    async fn what_a_connection_becomes_keeps_its_seat() {
        let mut places = Places::new(1, Crowd::new(1, Vec::new()));
        let peer = IpAddr::from([192, 0, 2, 1]);
        let guest = places.enter(peer).expect("nobody is there");
        let place = guest.seat(places.free().await);
        assert!(place.serve(), "nobody asked it to leave");
        let seat = place.seat();
        drop(place);
        assert_eq!(places.all.available_permits(), 0, "it is one of the connections still");
        assert!(places.enter(peer).is_none(), "and one of its address's");
        drop(seat);
        assert_eq!(places.all.available_permits(), 1);
        assert!(places.enter(peer).is_some());
    }
}

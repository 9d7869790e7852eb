//! Places for connections: how many there may be, in all and of one address, and what those hear for whom there is none.

use std::io::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tunnel_core::http::crowd::Crowd;
use tunnel_core::limits::{MAX_REFUSALS, REFUSAL_TIMEOUT};

/// The places of one listener.
pub(crate) struct Places {
    all: Arc<Semaphore>,
    crowd: Arc<Mutex<Crowd>>,
    refusals: Arc<Semaphore>,
    full: Seldom,
    crowded: Seldom,
}

/// A connection's place, free again when dropped.
pub(crate) struct Place {
    peer: IpAddr,
    crowd: Arc<Mutex<Crowd>>,
    _of_all: OwnedSemaphorePermit,
}

impl Places {
    /// `connections` in all, and of one address what `crowd` allows.
    pub(crate) fn new(connections: usize, crowd: Crowd) -> Self {
        Self {
            all: Arc::new(Semaphore::new(connections)),
            crowd: Arc::new(Mutex::new(crowd)),
            refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
            full: Seldom::default(),
            crowded: Seldom::default(),
        }
    }

    /// Waits until there is a place: beyond their number connections wait in the system's queue rather than in memory.
    pub(crate) async fn free(&mut self) -> Option<OwnedSemaphorePermit> {
        if self.all.available_permits() == 0 && self.full.is_time() {
            tracing::warn!(setting = "limits.connections", "no place for another connection until one ends");
        }
        Arc::clone(&self.all).acquire_owned().await.ok()
    }

    /// Gives `peer` the free place, unless it has as many as one address may have.
    pub(crate) fn take(&mut self, free: OwnedSemaphorePermit, peer: IpAddr) -> Option<Place> {
        if lock(&self.crowd).enter(peer) {
            return Some(Place { peer, crowd: Arc::clone(&self.crowd), _of_all: free });
        }
        if self.crowded.is_time() {
            tracing::warn!(
                %peer,
                setting = "limits.connectionsPerAddress",
                "an address has all the connections that one may have: if it is your proxy's, name it in trustedProxies"
            );
        }
        None
    }

    /// Tells a client why it is turned away. Not many are waited for until they have read it.
    pub(crate) fn refuse(&self, stream: TcpStream) {
        if let Ok(telling) = Arc::clone(&self.refusals).try_acquire_owned() {
            tokio::spawn(async move {
                last_words(stream, STATUS, TOO_MANY).await;
                drop(telling);
            });
        } else if let Ok(mut stream) = stream.into_std() {
            let _ = stream.write(reply(STATUS, TOO_MANY).as_bytes());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.crowd).leave(self.peer);
    }
}

/// Answers `status` with `text`, whatever was asked, and closes. What the client still sends is read for a moment: a socket that is closed with unread
/// bytes takes its last words back.
pub(crate) async fn last_words(mut stream: TcpStream, status: &str, text: &str) {
    let telling = async {
        stream.write_all(reply(status, text).as_bytes()).await?;
        stream.shutdown().await?;
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

fn lock(crowd: &Mutex<Crowd>) -> std::sync::MutexGuard<'_, Crowd> {
    // Nothing in a crowd is left half done.
    crowd.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says whether something that happens often is to be said again.
#[derive(Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    fn is_time(&mut self) -> bool {
        let due = self.0.is_none_or(|last| last.elapsed() >= PAUSE);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

/// Between two warnings of one kind.
const PAUSE: Duration = Duration::from_secs(60);
/// What is read of a request that is not answered: a head's worth.
const MAX_IGNORED: usize = 64 * 1024;
const STATUS: &str = "429 Too Many Requests";
const TOO_MANY: &str = "too many connections from this address (limits.connectionsPerAddress)\n";

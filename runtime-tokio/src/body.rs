//! Bodies of requests, read within their limits of size, of time, and of what all of them together may take.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use tunnel_core::http::bodies::Bodies;
use tunnel_core::id::UserId;
use tunnel_core::limits::{MAX_DISCARDED, SMALL_BODY};

use crate::rt::timeout;

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// It is longer than allowed.
    TooLarge,
    /// It did not come in time.
    TooSlow,
    /// All bodies together are as much as may be held.
    NoRoom,
    /// The connection broke.
    Broken,
}

/// The room that large bodies have, shared by all requests.
#[derive(Debug, Clone)]
pub struct Room(Arc<Mutex<Bodies>>);

/// What one body has of it: given back when the last piece of the body is dropped, wherever that went.
#[derive(Debug)]
pub struct Share {
    room: Room,
    user: UserId,
    bytes: usize,
}

impl Room {
    /// The room of `bodies`.
    #[must_use]
    pub fn new(bodies: Bodies) -> Self {
        Self(Arc::new(Mutex::new(bodies)))
    }

    /// What a body of `user` takes of it: nothing yet.
    #[must_use]
    pub fn share(&self, user: &UserId) -> Share {
        Share { room: self.clone(), user: user.clone(), bytes: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Bodies> {
        // Nothing in it is left half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Grows to `bytes`; `false`: there is no room.
    fn grow(&mut self, bytes: usize) -> bool {
        let fits = self.room.lock().take(&self.user, bytes.saturating_sub(self.bytes));
        if fits {
            self.bytes = self.bytes.max(bytes);
        }
        fits
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.room.lock().give_back(&self.user, self.bytes);
        }
    }
}

/// A body as far as it came.
struct Held {
    bytes: Vec<u8>,
    share: Option<Share>,
}

impl Held {
    /// Makes room for `length` bytes of at most `limit`, `is_all` or not, and counts what it really takes; `false`: there
    /// is none.
    fn make_room(&mut self, length: usize, is_all: bool, limit: usize) -> bool {
        if length <= self.bytes.capacity() {
            return true;
        }
        // Doubled, so that a body in small pieces is not copied again and again; and of the size that it has, since
        // what is left over would have to be kept in mind by a piece of memory more.
        let capacity = if is_all { length } else { length.next_power_of_two().min(limit) };
        let large = capacity > SMALL_BODY;
        if large && self.share.as_mut().is_some_and(|share| !share.grow(capacity)) {
            return false;
        }
        self.bytes.reserve_exact(capacity - self.bytes.len());
        true
    }

    fn into_bytes(self) -> Bytes {
        if self.share.as_ref().is_some_and(|share| share.bytes > 0) {
            return Bytes::from_owner(self);
        }
        self.bytes.into()
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads a body whole, at most `limit` bytes, within `time`. Beyond [`SMALL_BODY`] what it takes is taken of `share`, as
/// it comes: who announces a large body and sends little takes little.
///
/// What is over the limit is read on and thrown away: many clients send the whole of a request before they look at the
/// answer, and a socket that is closed with unread bytes takes its answer back. A body that is far over
/// ([`MAX_DISCARDED`]) is cut off all the same.
///
/// # Errors
/// Why not.
pub async fn read_body<B>(mut body: B, limit: usize, time: Duration, share: Option<Share>) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let whole = async {
        let mut held = Held { bytes: Vec::new(), share };
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
            let length = held.bytes.len().saturating_add(piece.len());
            if length > limit {
                return Err(BodyError::TooLarge);
            }
            if !held.make_room(length, body.is_end_stream(), limit) {
                return Err(BodyError::NoRoom);
            }
            held.bytes.extend_from_slice(&piece);
        }
        Ok(held.into_bytes())
    };
    let read = timeout(time, whole).await.unwrap_or(Err(BodyError::TooSlow));
    if matches!(read, Err(BodyError::TooLarge | BodyError::NoRoom)) {
        discard(body, time).await;
    }
    read
}

/// Reads the rest of a body and throws it away, within its bounds.
pub async fn discard<B: Body<Data = Bytes> + Unpin>(mut body: B, time: Duration) {
    let rest = async {
        let mut left = MAX_DISCARDED;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    let _ = timeout(time, rest).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;

    const TIME: Duration = Duration::from_secs(5);

    #[crate::rt::test]
    async fn large_body_holds_its_room_as_long_as_any_piece_of_it_is_there() {
        let room = Room::new(Bodies::new(4 * SMALL_BODY, 4 * SMALL_BODY));
        let ann = UserId::new("ann");
        let read = |length: usize| {
            let share = room.share(&ann);
            read_body(Full::new(vec![b'x'; length].into()), 4 * SMALL_BODY, TIME, Some(share))
        };
        let piece = read(3 * SMALL_BODY).await.expect("there is room").slice(5..6);
        assert_eq!(read(SMALL_BODY + 1).await, Err(BodyError::NoRoom));
        assert!(read(SMALL_BODY).await.is_ok(), "a small one always gets through");
        drop(piece);
        let all = read(4 * SMALL_BODY).await.expect("there is room again");
        assert_eq!(read(SMALL_BODY + 1).await, Err(BodyError::NoRoom));
        drop(all);
        assert!(read(SMALL_BODY + 1).await.is_ok());
    }
}

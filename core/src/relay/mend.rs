//! What in an agent's answer to a modern client is the relay's to say. Of such an answer the one member is set, all else
//! passes as it came.

use alloc::boxed::Box;

use bytes::{BufMut, Bytes, BytesMut};

use super::Speaker;
use super::modern::supported;
use crate::limits;
use crate::mcp::{key, method};
use crate::rpc::{RawId, object};
use crate::tunnel::Dialect;

/// A call of whose answer something is the relay's to say: a result is held until it is whole.
#[derive(Debug)]
pub(super) struct Mend {
    what: What,
    held: BytesMut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// `server/discover`: which versions this URL speaks, whatever its server does.
    Versions,
    /// `subscriptions/listen`: its messages carry the id that its client gave it, which no agent knows.
    Subscription,
    /// Any result of an old agent, whose servers do not know that results have kinds.
    Kind,
}

/// What became of a piece.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// It is held.
    Held,
    /// It was the last one: the whole result.
    Whole(Bytes),
    /// There is too much to hold.
    TooLong,
}

impl Mend {
    /// What is to be done about the answer to a call; `None`: it passes as it is.
    pub(super) fn of(speaker: &Speaker, method: &str, dialect: Dialect) -> Option<Box<Self>> {
        let what = match (speaker, method, dialect) {
            (Speaker::Legacy(_), _, _) => return None,
            (Speaker::Modern { .. }, _, Dialect::V1) => What::Kind,
            (Speaker::Modern { .. }, method::DISCOVER, Dialect::V2) => What::Versions,
            (Speaker::Modern { .. }, method::SUBSCRIPTIONS_LISTEN, Dialect::V2) => What::Subscription,
            (Speaker::Modern { .. }, _, Dialect::V2) => return None,
        };
        Some(Box::new(Self { what, held: BytesMut::new() }))
    }

    /// Whether the call is a subscription, which lasts.
    pub(super) fn is_subscription(&self) -> bool {
        self.what == What::Subscription
    }

    /// Takes a piece of the result; `id` is the request's.
    pub(super) fn piece(&mut self, bytes: Bytes, end: bool, id: &RawId) -> Piece {
        // An old agent's answer is in memory as a whole already.
        let most = if self.what == What::Kind { limits::MAX_V1_MESSAGE } else { limits::MAX_MENDED };
        if self.held.len().saturating_add(bytes.len()) > most {
            return Piece::TooLong;
        }
        if end && self.held.is_empty() {
            return Piece::Whole(self.mended(bytes, id));
        }
        self.held.put_slice(&bytes);
        if !end {
            return Piece::Held;
        }
        let whole = core::mem::take(&mut self.held).freeze();
        Piece::Whole(self.mended(whole, id))
    }

    /// A notification before the answer, as the client gets it.
    pub(super) fn notification(&self, json: Bytes, id: &RawId) -> Bytes {
        match self.what {
            What::Subscription => set(json, &["params", "_meta", key::SUBSCRIPTION_ID], id.as_bytes()),
            What::Versions | What::Kind => json,
        }
    }

    fn mended(&self, result: Bytes, id: &RawId) -> Bytes {
        match self.what {
            What::Versions => set(result, &["supportedVersions"], supported().as_bytes()),
            What::Subscription => set(result, &["_meta", key::SUBSCRIPTION_ID], id.as_bytes()),
            What::Kind => set(result, &["resultType"], b"\"complete\""),
        }
    }
}

/// The same with a member set; what has no place for it stays as it is.
fn set(json: Bytes, path: &[&str], raw: &[u8]) -> Bytes {
    object::set_path(&json, path, raw).unwrap_or(json)
}

//! The second half: what a POST's body holds.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

use super::head::check_older;
use super::refusal;
use crate::entropy::Entropy;
use crate::http::{Reply, RequestHead};
use crate::mcp::{Era, code, header, method};
use crate::oauth::{Principal, Snapshot};
use crate::relay::{Content, Item, Note, Request, Session, Speaker, era, modern, session};
use crate::rpc::{self, Message, RawId, envelope};
use crate::seal::{Memo, Sealer};
use crate::time::Now;

/// What a POST carries for the shard.
pub(in crate::relay) struct Posted {
    pub(in crate::relay) speaker: Speaker,
    pub(in crate::relay) content: Content,
    /// The header of a session that `initialize` has minted.
    pub(in crate::relay) minted: Option<(HeaderName, HeaderValue)>,
}

/// The session of a request that needs one (2025-11-25, Transports, Session Management): 400 without, 404 when it
/// ended or is another's.
pub(super) fn session_of(
    head: &RequestHead,
    principal: &Arc<Principal>,
    snapshot: &Snapshot,
    now: Now,
    memo: &mut Memo<Arc<Session>, Arc<Principal>>,
) -> Result<Arc<Session>, Reply> {
    let id = head.header(header::SESSION_ID);
    if id.is_none() && !head.headers.contains_key(header::SESSION_ID) {
        let text = "the Mcp-Session-Id header is missing: send initialize first";
        return Err(refusal(StatusCode::BAD_REQUEST, code::INVALID_REQUEST, None, text));
    }
    id.and_then(|id| session::open(id, principal, snapshot, now, memo)).ok_or_else(|| {
        refusal(StatusCode::NOT_FOUND, code::INVALID_REQUEST, None, "there is no such session: send initialize")
    })
}

/// Reads a POST's body; `None` when it carries nothing that concerns anybody.
pub(super) fn posted(
    head: &RequestHead,
    body: &Bytes,
    (principal, sealer): (&Principal, &Sealer),
    session: impl FnOnce() -> Result<Arc<Session>, Reply>,
    now: Now,
    entropy: &mut dyn Entropy,
) -> Result<Option<Posted>, Reply> {
    if rpc::is_batch(body) {
        check_older(head)?;
        return batch(body, session()?);
    }
    let message = rpc::parse(body).map_err(|error| unreadable(&error))?;
    match era::of(&head.headers, &message) {
        Some(Era::Legacy) => {}
        Some(Era::Modern) => return modern::posted(head, message),
        None => return Err(modern::unknown(head, &message)),
    }
    match message {
        Message::Request { id, method, params } if &*method == method::INITIALIZE => {
            let session = session::begin(&params, now, entropy);
            let sealed = session::seal(sealer, &session, principal, entropy);
            let value = HeaderValue::from_str(&sealed).expect("a sealed value is base64url");
            let minted = (HeaderName::from_static(header::SESSION_ID), value);
            let (client, version) = (&session.client, session.version.as_str());
            tracing::info!(%client, version, "session begins");
            let content = Content::Request(Request { id, method, params });
            Ok(Some(Posted { speaker: Speaker::Legacy(Arc::new(session)), content, minted: Some(minted) }))
        }
        Message::Request { id, method, params } => {
            let session = session().map_err(|reply| with_id(reply, &id))?;
            let content = Content::Request(Request { id, method, params });
            Ok(Some(Posted { speaker: Speaker::Legacy(session), content, minted: None }))
        }
        message => {
            let speaker = Speaker::Legacy(session()?);
            Ok(note(message, body).map(|note| Posted { speaker, content: Content::Note(note), minted: None }))
        }
    }
}

/// What has no answer, if it concerns anybody: that a client is ready changes nothing, and a response without an id
/// belongs to no question.
fn note(message: Message, json: &Bytes) -> Option<Note> {
    match message {
        Message::Notification { method, params } if &*method == method::CANCELLED => Some(Note::Cancelled { params }),
        Message::Notification { method, .. } if &*method == method::INITIALIZED => None,
        Message::Notification { method, params } => Some(Note::Notification { method, params, json: json.clone() }),
        Message::Response { id, .. } => id.map(|id| Note::Answer { id, json: json.clone() }),
        Message::Request { .. } => None,
    }
}

/// Splits a batch: 2025-03-26 alone has them (Base Protocol, Batching).
fn batch(body: &Bytes, session: Arc<Session>) -> Result<Option<Posted>, Reply> {
    if !session.version.has_batches() {
        let text = format!(
            "{} has no batches, which are 2025-03-26's alone: send one message at a time",
            session.version.as_str()
        );
        return Err(refusal(StatusCode::BAD_REQUEST, code::INVALID_REQUEST, None, &text));
    }
    let mut items = Vec::new();
    for message in rpc::parse_batch(body).map_err(|error| unreadable(&error))? {
        match rpc::parse(&message) {
            Ok(Message::Request { id, method, .. }) if &*method == method::INITIALIZE => {
                let text = "initialize must not be part of a batch";
                items.push(Item::Unreadable(envelope::error(Some(&id), code::INVALID_REQUEST, text, None)));
            }
            Ok(Message::Request { id, method, params }) => items.push(Item::Request(Request { id, method, params })),
            Ok(other) => items.extend(note(other, &message).map(Item::Note)),
            Err(error) => items.push(Item::Unreadable(error.response())),
        }
    }
    if items.is_empty() {
        return Ok(None);
    }
    Ok(Some(Posted { speaker: Speaker::Legacy(session), content: Content::Batch(items), minted: None }))
}

/// The same refusal, naming the request that it refuses.
fn with_id(mut reply: Reply, id: &RawId) -> Reply {
    if let Ok(Message::Response { outcome: Err(error), .. }) = rpc::parse(&reply.body) {
        reply.body = envelope::raw_error(Some(id), &error);
    }
    reply
}

fn unreadable(error: &rpc::ParseError) -> Reply {
    Reply::json(StatusCode::BAD_REQUEST, error.response())
}

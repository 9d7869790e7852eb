//! JSON-RPC 2.0 over raw JSON: a message's id, method, params, result and error are found and cut out, never decoded
//! and encoded again (invariant A12).
//!
//! [`parse`] takes a message apart, [`envelope`] puts one together, [`object`] edits single members of an object, and
//! [`scan`] checks what is put in unread.

pub mod envelope;
mod id;
pub mod object;
pub mod scan;
#[cfg(test)]
mod tests;
mod walk;

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_json::value::RawValue;

pub use self::id::RawId;
use self::walk::{Broken, Walk};
use crate::limits;

/// Invalid JSON was received (JSON-RPC 2.0 section 5.1).
pub const PARSE_ERROR: i64 = -32700;
/// The JSON is not a valid request object.
pub const INVALID_REQUEST: i64 = -32600;
/// The method does not exist or is not available.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// The method's parameters are invalid.
pub const INVALID_PARAMS: i64 = -32602;
/// A fault on the answering side.
pub const INTERNAL_ERROR: i64 = -32603;

/// One JSON-RPC message, cut into its parts. Each part but the id shares the buffer that it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Expects an answer.
    Request {
        /// The raw id.
        id: RawId,
        /// The method, decoded.
        method: Arc<str>,
        /// The raw params; empty when absent.
        params: Bytes,
    },
    /// Expects none.
    Notification {
        /// The method, decoded.
        method: Arc<str>,
        /// The raw params; empty when absent.
        params: Bytes,
    },
    /// Answers a request.
    Response {
        /// The raw id; `None` in an error whose sender could not read ours.
        id: Option<RawId>,
        /// `Ok`: the raw `result`; `Err`: the raw `error` object.
        outcome: Result<Bytes, Bytes>,
    },
}

/// Why a text is no JSON-RPC message. The sender is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// [`PARSE_ERROR`] or [`INVALID_REQUEST`].
    pub code: i64,
    /// The message's id, when that much could be read.
    pub id: Option<RawId>,
    /// What is wrong; says nothing of the content.
    pub message: &'static str,
}

impl ParseError {
    /// The response that tells the sender.
    #[must_use]
    pub fn response(&self) -> Bytes {
        envelope::error(self.id.as_ref(), self.code, self.message, None)
    }

    const fn syntax() -> Self {
        Self { code: PARSE_ERROR, id: None, message: "the body is not valid JSON" }
    }

    const fn invalid(message: &'static str) -> Self {
        Self { code: INVALID_REQUEST, id: None, message }
    }
}

impl From<Broken> for ParseError {
    fn from(_: Broken) -> Self {
        Self::syntax()
    }
}

/// Takes one message apart. Batches are refused here: see [`is_batch`] and [`parse_batch`].
///
/// Unknown members are ignored. A member of the envelope that stands twice is refused, since the next reader might
/// choose the other one. Nesting is not limited here: raw values are skipped without recursion.
pub fn parse(body: &Bytes) -> Result<Message, ParseError> {
    if !body.trim_ascii_start().starts_with(b"{") {
        walk::whole(body)?;
        return Err(ParseError::invalid(if is_batch(body) {
            "batches are not supported here: send one message at a time"
        } else {
            "a message must be a JSON object"
        }));
    }
    Parts::read(body)?.message(body)
}

/// Whether the body is a JSON array, as a batch of messages is.
#[must_use]
pub fn is_batch(body: &[u8]) -> bool {
    body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[')
}

/// Splits a batch (revision 2025-03-26 alone has them) into its messages, each to be [`parse`]d. At least one and at
/// most [`limits::MAX_BATCH`] of them.
pub fn parse_batch(body: &Bytes) -> Result<Vec<Bytes>, ParseError> {
    let text = core::str::from_utf8(body).map_err(|_| ParseError::syntax())?;
    let Batch(items) = serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => ParseError::invalid("a batch must be an array of at most 64 messages"),
        Category::Io | Category::Syntax | Category::Eof => ParseError::syntax(),
    })?;
    if items.is_empty() {
        return Err(ParseError::invalid("a batch must not be empty"));
    }
    Ok(items.into_iter().map(|raw| body.slice_ref(raw.get().as_bytes())).collect())
}

/// The text of a raw JSON string; `None` for any other value, and for one that is not Unicode.
#[must_use]
pub fn string(raw: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    match raw {
        [b'"', text @ .., b'"'] if is_plain(text) => core::str::from_utf8(text).ok().map(Cow::Borrowed),
        _ => serde_json::from_slice::<Text<'_>>(raw).ok().map(|Text(text)| text),
    }
}

/// `text` as a JSON string, quotes included.
#[must_use]
pub fn quoted(text: &str) -> String {
    let text = escaped(text);
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    out.push_str(&text);
    out.push('"');
    out
}

/// Writes `text` as a JSON string, quotes included.
pub(crate) fn put_quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    out.extend_from_slice(escaped(text).as_bytes());
    out.push(b'"');
}

/// What stands between the quotes of `text` as a JSON string.
fn escaped(text: &str) -> Cow<'_, str> {
    if is_plain(text.as_bytes()) {
        return Cow::Borrowed(text);
    }
    let mut quoted = serde_json::to_string(text).expect("a string can always be written as JSON");
    quoted.pop();
    quoted.remove(0);
    Cow::Owned(quoted)
}

/// Whether that is ASCII which means itself in a JSON string.
fn is_plain(text: &[u8]) -> bool {
    let rest = text.get(scan::plain::<true>(text)..).unwrap_or_default();
    rest.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
}

/// The raw members of the envelope, each `None` when absent: an explicit `null` is a raw `null`.
#[derive(Default)]
struct Parts<'a> {
    jsonrpc: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
    method: Option<&'a [u8]>,
    params: Option<&'a [u8]>,
    result: Option<&'a [u8]>,
    error: Option<&'a [u8]>,
}

impl<'a> Parts<'a> {
    fn read(text: &'a [u8]) -> Result<Self, ParseError> {
        let (mut parts, mut walk) = (Self::default(), Walk::into_object(text)?);
        let mut is_first = true;
        while let Some(key) = walk.key(core::mem::take(&mut is_first))? {
            let mut unknown = None;
            let part = parts.named(walk.raw(&key))?.unwrap_or(&mut unknown);
            if part.is_some() {
                return Err(ParseError::invalid("a member of the message stands twice"));
            }
            let value = walk.value()?;
            *part = Some(walk.raw(&value));
        }
        walk.end()?;
        Ok(parts)
    }

    /// The member of that raw key; `None`: the envelope has no such member.
    fn named(&mut self, key: &[u8]) -> Result<Option<&mut Option<&'a [u8]>>, Broken> {
        let name = match key {
            [b'"', name @ .., b'"'] if !name.contains(&b'\\') => Cow::Borrowed(name),
            escaped => Cow::Owned(string(escaped).ok_or(Broken)?.into_owned().into_bytes()),
        };
        Ok(match &*name {
            b"jsonrpc" => Some(&mut self.jsonrpc),
            b"id" => Some(&mut self.id),
            b"method" => Some(&mut self.method),
            b"params" => Some(&mut self.params),
            b"result" => Some(&mut self.result),
            b"error" => Some(&mut self.error),
            _ => None,
        })
    }

    fn message(&self, body: &Bytes) -> Result<Message, ParseError> {
        let id = match self.id {
            None | Some(b"null") => None,
            Some(raw) => {
                Some(RawId::of_value(raw).ok_or(ParseError::invalid("the id must be a short string or number"))?)
            }
        };
        self.checked(body, id.clone()).map_err(|message| ParseError { code: INVALID_REQUEST, id, message })
    }

    fn checked(&self, body: &Bytes, id: Option<RawId>) -> Result<Message, &'static str> {
        let cut = |raw: &[u8]| body.slice_ref(raw);
        let is_version = |raw: &[u8]| raw == b"\"2.0\"" || string(raw).as_deref() == Some("2.0");
        if !self.jsonrpc.is_some_and(is_version) {
            return Err("jsonrpc must be \"2.0\"");
        }
        // Many servers write the other of both too, as `null`: it is as if it were absent.
        let said = |raw: &&[u8]| **raw != *b"null";
        let (result, error) = match (self.result, self.error) {
            (Some(result), Some(error)) if !said(&error) => (Some(result), None),
            (Some(result), Some(error)) if !said(&result) => (None, Some(error)),
            both => both,
        };
        match (self.method, result, error) {
            (Some(method), None, None) => {
                let method = Arc::from(&*string(method).ok_or("the method must be a string")?);
                let params = self.params.map(cut).unwrap_or_default();
                if !matches!(params.first(), None | Some(b'{' | b'[' | b'n')) {
                    return Err("params must be an object or an array");
                }
                match (id, self.id) {
                    (Some(id), _) => Ok(Message::Request { id, method, params }),
                    (None, None) => Ok(Message::Notification { method, params }),
                    (None, Some(_)) => Err("the id of a request must not be null"),
                }
            }
            (None, Some(result), None) => match id {
                Some(id) => Ok(Message::Response { id: Some(id), outcome: Ok(cut(result)) }),
                None => Err("a result must carry the id of its request"),
            },
            (None, None, Some(error)) if error.starts_with(b"{") => {
                Ok(Message::Response { id, outcome: Err(cut(error)) })
            }
            (None, None, Some(_)) => Err("an error must be an object"),
            (None, None, None) => Err("a message must have a method, a result or an error"),
            (Some(_), _, _) | (None, Some(_), Some(_)) => {
                Err("a message must have only one of method, result and error")
            }
        }
    }
}

/// The items of an array, bounded while they are read: an array of a million nothings must not become a million items.
struct Batch<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Batch<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;
        impl<'de> Visitor<'de> for Items {
            type Value = Batch<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of messages")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if items.len() == limits::MAX_BATCH {
                        return Err(A::Error::custom("too many"));
                    }
                    items.push(item);
                }
                Ok(Batch(items))
            }
        }
        deserializer.deserialize_seq(Items)
    }
}

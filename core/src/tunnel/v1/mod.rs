//! Dialect V1: the predecessor's JSON messages, one per call. What a relay does is in [`relay`], what an agent does in
//! [`agent`].
//!
//! | message | direction |
//! |---|---|
//! | `{"type":"tools","tools":[{name,description?,inputSchema,annotations?}]}` | agent → relay |
//! | `{"type":"request","id","method":<listed tool>,"params":<arguments>}` | relay → agent |
//! | `{"type":"response","id","result"}` | agent → relay |
//! | `{"type":"error","id","message"}` | agent → relay |
//! | `{"type":"restart"}` | relay → agent |
//!
//! Nothing streams: no progress, no cancellation, no credit. Tools are listed as `server__tool`, and `[server] ` stands
//! before their descriptions. Types that are not known are skipped; text that is not such a message is a fault.

mod agent;
mod relay;

use alloc::borrow::Cow;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::value::RawValue;

pub(super) use agent::V1Agent;
pub(super) use relay::V1Relay;

use crate::limits::{MAX_BUFFERED, MAX_CONTROL, MAX_STREAMS, MAX_V1_MESSAGE};
use crate::rpc;
use crate::tunnel::close::Fault;
use crate::tunnel::connection::Cx;
use crate::tunnel::{Hello, Message, ResetCode};

/// What is known of a V1 peer: nobody says hello.
pub(super) fn assumed_hello() -> Hello {
    Hello {
        version: "1".into(),
        max_message: u64::try_from(MAX_V1_MESSAGE).unwrap_or(u64::MAX),
        max_streams: u32::try_from(MAX_STREAMS).unwrap_or(u32::MAX),
        ..Hello::default()
    }
}

/// Any message, its parts still raw. A struct rather than an enum, since serde would buffer a tagged enum's raw parts.
#[derive(serde::Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<&'a RawValue>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tools: Option<&'a RawValue>,
}

impl<'a> Envelope<'a> {
    fn read(text: &'a [u8]) -> Result<Self, Fault> {
        if text.len() > MAX_V1_MESSAGE {
            return Err(Fault::too_big("message too large"));
        }
        serde_json::from_slice(text).map_err(|_| Fault::protocol("not a message of the tunnel"))
    }
}

/// The text of a raw JSON string.
fn text(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    rpc::string(raw?.get().as_bytes())
}

/// The label of a server, as raw JSON that a description goes on from: `"[files]`.
fn label(server: &str) -> String {
    let mut label = rpc::quoted(&format!("[{server}]"));
    label.pop();
    label
}

/// Texts that wait to be sent, in order.
#[derive(Debug, Default)]
struct Outbox {
    queue: VecDeque<(About, Bytes)>,
    bytes: usize,
}

/// What a waiting text is about, so that it can be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    Call(u32),
    Tools,
    Restart,
}

impl Outbox {
    /// Queues a text made of `parts`, or says why it cannot be sent.
    fn push(&mut self, about: About, parts: &[&[u8]]) -> Result<(), ResetCode> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length > MAX_V1_MESSAGE {
            return Err(ResetCode::TooLarge);
        }
        if self.bytes.saturating_add(length) > MAX_BUFFERED || self.queue.len() >= MAX_CONTROL {
            return Err(ResetCode::Overloaded);
        }
        let mut text = BytesMut::with_capacity(length);
        for part in parts {
            text.put_slice(part);
        }
        self.bytes += length;
        self.queue.push_back((about, text.freeze()));
        Ok(())
    }

    /// Takes back what was not sent yet.
    fn remove(&mut self, about: About) {
        self.queue.retain(|(waiting, text)| {
            let keep = *waiting != about;
            if !keep {
                self.bytes -= text.len();
            }
            keep
        });
    }

    /// The next message: a ping if one is due, else the oldest text.
    fn poll_transmit(&mut self, in_use: bool, cx: &mut Cx<'_>) -> Option<Message> {
        if !in_use {
            return None;
        }
        if let Some(token) = cx.keepalive.take_ping(cx.now) {
            return Some(Message::Ping(Bytes::copy_from_slice(&token.to_be_bytes())));
        }
        let (_, text) = self.queue.pop_front()?;
        self.bytes -= text.len();
        Some(Message::Text(text))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::time::Instant;
    use crate::tunnel::keepalive::Keepalive;
    use crate::tunnel::{Dialect, Side};

    #[test]
    fn messages_that_wait_are_bounded_together_and_make_room_when_they_go() {
        let large = vec![b'x'; MAX_V1_MESSAGE];
        let mut outbox = Outbox::default();
        assert_eq!(outbox.push(About::Call(1), &[&large, b"x"]), Err(ResetCode::TooLarge));
        let fit = u32::try_from(MAX_BUFFERED / MAX_V1_MESSAGE).unwrap();
        for call in 1..=fit {
            assert_eq!(outbox.push(About::Call(call), &[&large]), Ok(()));
        }
        assert_eq!(outbox.push(About::Restart, &[b"x"]), Err(ResetCode::Overloaded));
        outbox.remove(About::Call(1));
        assert_eq!(outbox.push(About::Call(1), &[&large]), Ok(()));
        assert_eq!(outbox.push(About::Restart, &[b"x"]), Err(ResetCode::Overloaded));
        let now = Instant::default();
        let mut keepalive = Keepalive::new(Side::Relay, Dialect::V1, now);
        let mut cx = Cx { now, events: &mut VecDeque::new(), keepalive: &mut keepalive };
        assert!(outbox.poll_transmit(true, &mut cx).is_some());
        assert_eq!(outbox.push(About::Call(2), &[&large]), Ok(()));
        assert_eq!(outbox.push(About::Restart, &[b"x"]), Err(ResetCode::Overloaded));
    }
}

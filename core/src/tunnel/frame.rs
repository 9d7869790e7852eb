//! The frames of dialect V2, and nothing of what they mean.
//!
//! A WebSocket message is a sequence of whole frames, each `kind u8 · stream u32 · length u32 · body`, big endian. What
//! belongs to no call has stream 0. Heads are JSON, so that members can be added; bodies are raw bytes.
//!
//! | kind | stream | body |
//! |---|---|---|
//! | 1 `Hello` | 0 | JSON of [`Hello`] |
//! | 2 `Catalog` | 0 | a piece |
//! | 3 `Open` | call | JSON of [`OpenHead`]; the params follow as `Data` and `End` |
//! | 4 `Answer` | call | JSON of [`AnswerHead`]; the result or error follows as `Data` and `End` |
//! | 5 `Data` | call | bytes of params or answer, more follow |
//! | 6 `End` | call | the last bytes of params or answer, often none |
//! | 7 `Credit` | call | `bytes u32` |
//! | 8 `Reset` | call | `code u8`, then a reason for people |
//! | 9 `Ping`, 10 `Pong` | 0 | `token u64` |
//! | 11 `Restart` | 0 | JSON of [`RestartBody`] |
//! | 12 `GoAway` | 0 | empty |
//! | 13 `Message` | call | a piece |
//! | 14 `Notice` | 0 | a piece; whole: `length u16 · JSON of NoticeHead · message` |
//! | 15 `Session` | 0 | JSON of [`SessionWord`] |
//! | 16 `Pause` | call | `milliseconds u32` |
//! | 128 `Cancel` | call | params; a `Reset` follows, for agents that do not know it |
//!
//! A *piece* is `last u8` (0: more follow, 1: the last), then bytes. Kinds from 128 up that are not known are skipped.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::{Buf, Bytes};

use crate::tunnel::close::{Fault, cut};
use crate::tunnel::head::LastHead;
use crate::tunnel::{Hello, OpenHead, Outcome, ResetCode};

/// One frame, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Hello(Box<Hello>),
    Catalog(Piece),
    Open { stream: u32, head: Box<OpenHead> },
    Answer { stream: u32, head: AnswerHead },
    Data { stream: u32, bytes: Bytes },
    End { stream: u32, bytes: Bytes },
    Credit { stream: u32, bytes: u32 },
    Reset { stream: u32, code: ResetCode, reason: String },
    Ping(u64),
    Pong(u64),
    Restart(RestartBody),
    GoAway,
    Message { stream: u32, piece: Piece },
    Notice(Piece),
    Session(SessionWord),
    Pause { stream: u32, millis: u32 },
    Cancel { stream: u32, params: Bytes },
}

/// A part of a body that may be larger than a frame should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) last: bool,
    pub(super) bytes: Bytes,
}

/// What is known of an answer before its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct AnswerHead {
    /// The JSON-RPC code if the body is an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<i64>,
    /// How many bytes of body follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) length: Option<u64>,
}

impl AnswerHead {
    pub(super) const fn new(outcome: Outcome, length: u64) -> Self {
        let error = match outcome {
            Outcome::Result => None,
            Outcome::Error { code } => Some(code),
        };
        Self { error, length: Some(length) }
    }

    pub(super) const fn outcome(self) -> Outcome {
        match self.error {
            None => Outcome::Result,
            Some(code) => Outcome::Error { code },
        }
    }
}

/// Which server to restart.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct RestartBody {
    /// `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) server: Option<String>,
}

/// What a relay says of a client's session: a notification of the client, or that it is over.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct SessionWord {
    pub(super) session: String,
    /// Which server the notification is for; `None`: all that the session uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) server: Option<String>,
    /// The raw notification; `None`: the session is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) notification: Option<String>,
}

impl Frame {
    /// Takes the first frame off `message`; `None` when nothing is left. Skipped kinds are passed over. `last`: the head of
    /// the call that was opened before.
    pub(super) fn take(message: &mut Bytes, last: &mut LastHead) -> Result<Option<Self>, Fault> {
        while !message.is_empty() {
            if message.len() < HEADER {
                return Err(Fault::protocol("frame header cut short"));
            }
            let kind = message.get_u8();
            let stream = message.get_u32();
            let length = usize::try_from(message.get_u32()).map_err(|_| BEYOND)?;
            if length > message.len() {
                return Err(BEYOND);
            }
            let body = message.split_to(length);
            if let Some(frame) = Self::decode(kind, stream, body, last)? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// The frame without a hold on the message of `length` bytes that it came in, unless it is most of it: bytes that
    /// wait for a slow consumer must not keep the rest of their message in memory.
    pub(super) fn detach(mut self, length: usize) -> Self {
        match &mut self {
            Self::Catalog(Piece { bytes, .. })
            | Self::Notice(Piece { bytes, .. })
            | Self::Message { piece: Piece { bytes, .. }, .. }
            | Self::Cancel { params: bytes, .. }
            | Self::Data { bytes, .. }
            | Self::End { bytes, .. } => {
                if bytes.len() < length / 2 {
                    *bytes = Bytes::copy_from_slice(bytes);
                }
            }
            Self::Hello(_)
            | Self::Open { .. }
            | Self::Answer { .. }
            | Self::Credit { .. }
            | Self::Reset { .. }
            | Self::Ping(_)
            | Self::Pong(_)
            | Self::Restart(_)
            | Self::Session(_)
            | Self::Pause { .. }
            | Self::GoAway => {}
        }
        self
    }

    /// The kind's name, for traces.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Catalog(_) => "catalog",
            Self::Open { .. } => "open",
            Self::Answer { .. } => "answer",
            Self::Data { .. } => "data",
            Self::End { .. } => "end",
            Self::Credit { .. } => "credit",
            Self::Reset { .. } => "reset",
            Self::Ping(_) => "ping",
            Self::Pong(_) => "pong",
            Self::Restart(_) => "restart",
            Self::GoAway => "go away",
            Self::Message { .. } => "message",
            Self::Notice(_) => "notice",
            Self::Session(_) => "session",
            Self::Pause { .. } => "pause",
            Self::Cancel { .. } => "cancel",
        }
    }

    /// Appends the frame to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => json(out, HELLO, 0, hello),
            Self::Catalog(piece) => piece.encode(out, CATALOG, 0),
            Self::Open { stream, head } => framed(out, OPEN, *stream, |out| head.put(out)),
            Self::Answer { stream, head } => json(out, ANSWER, *stream, head),
            Self::Data { stream, bytes } => raw(out, DATA, *stream, &[bytes]),
            Self::End { stream, bytes } => raw(out, END, *stream, &[bytes]),
            Self::Credit { stream, bytes } => raw(out, CREDIT, *stream, &[&bytes.to_be_bytes()]),
            Self::Reset { stream, code, reason } => {
                let mut reason = reason.clone();
                cut(&mut reason, MAX_RESET_REASON);
                raw(out, RESET, *stream, &[&[code.to_u8()], reason.as_bytes()]);
            }
            Self::Ping(token) => raw(out, PING, 0, &[&token.to_be_bytes()]),
            Self::Pong(token) => raw(out, PONG, 0, &[&token.to_be_bytes()]),
            Self::Restart(body) => json(out, RESTART, 0, body),
            Self::GoAway => raw(out, GO_AWAY, 0, &[]),
            Self::Message { stream, piece } => piece.encode(out, MESSAGE, *stream),
            Self::Notice(piece) => piece.encode(out, NOTICE, 0),
            Self::Session(word) => json(out, SESSION, 0, word),
            Self::Pause { stream, millis } => raw(out, PAUSE, *stream, &[&millis.to_be_bytes()]),
            Self::Cancel { stream, params } => raw(out, CANCEL, *stream, &[params]),
        }
    }

    fn decode(kind: u8, stream: u32, body: Bytes, last: &mut LastHead) -> Result<Option<Self>, Fault> {
        let of_call = match kind {
            OPEN | ANSWER | DATA | END | CREDIT | RESET | MESSAGE | PAUSE | CANCEL => true,
            HELLO | CATALOG | PING | PONG | RESTART | GO_AWAY | NOTICE | SESSION => false,
            SKIPPABLE.. => return Ok(None),
            _ => return Err(Fault::protocol("unknown kind of frame")),
        };
        if of_call != (stream != 0) {
            return Err(Fault::protocol("frame on the wrong stream"));
        }
        Ok(Some(match kind {
            HELLO => Self::Hello(Box::new(head(&body)?)),
            CATALOG => Self::Catalog(Piece::decode(body)?),
            OPEN => Self::Open { stream, head: Box::new(open_head(&body, last)?) },
            ANSWER => Self::Answer { stream, head: head(&body)? },
            DATA if body.is_empty() => return Err(Fault::protocol("empty piece")),
            DATA => Self::Data { stream, bytes: body },
            END => Self::End { stream, bytes: body },
            CREDIT => Self::Credit { stream, bytes: u32::from_be_bytes(exact(&body)?) },
            RESET => {
                let (code, reason) = body.split_first().ok_or(MALFORMED)?;
                let mut reason = String::from_utf8_lossy(reason).into_owned();
                cut(&mut reason, MAX_RESET_REASON);
                Self::Reset { stream, code: ResetCode::from_u8(*code), reason }
            }
            PING => Self::Ping(u64::from_be_bytes(exact(&body)?)),
            PONG => Self::Pong(u64::from_be_bytes(exact(&body)?)),
            RESTART => Self::Restart(head(&body)?),
            GO_AWAY => Self::GoAway,
            MESSAGE => Self::Message { stream, piece: Piece::decode(body)? },
            NOTICE => Self::Notice(Piece::decode(body)?),
            PAUSE => Self::Pause { stream, millis: u32::from_be_bytes(exact(&body)?) },
            CANCEL if body.len() > MAX_HEAD => return Err(Fault::too_big("cancellation too large")),
            CANCEL => Self::Cancel { stream, params: body },
            _ => Self::Session(head(&body)?),
        }))
    }
}

impl Piece {
    /// Takes at most `max` bytes off `rest`.
    pub(super) fn cut_from(rest: &mut Bytes, max: usize) -> Self {
        let bytes = rest.split_to(max.min(rest.len()));
        Self { last: rest.is_empty(), bytes }
    }

    fn encode(&self, out: &mut Vec<u8>, kind: u8, stream: u32) {
        raw(out, kind, stream, &[&[u8::from(self.last)], &self.bytes]);
    }

    fn decode(mut body: Bytes) -> Result<Self, Fault> {
        let last = match body.try_get_u8().map_err(|_| MALFORMED)? {
            0 => false,
            1 => true,
            _ => return Err(MALFORMED),
        };
        if body.is_empty() {
            return Err(Fault::protocol("empty piece"));
        }
        Ok(Self { last, bytes: body })
    }
}

impl ResetCode {
    const fn to_u8(self) -> u8 {
        self as u8
    }

    /// A code that is not known counts as a fault on the resetting side.
    const fn from_u8(code: u8) -> Self {
        match code {
            1 => Self::Cancelled,
            2 => Self::TooLarge,
            3 => Self::Stalled,
            4 => Self::ServerGone,
            6 => Self::Overloaded,
            7 => Self::TimedOut,
            _ => Self::Internal,
        }
    }
}

fn raw(out: &mut Vec<u8>, kind: u8, stream: u32, parts: &[&[u8]]) {
    out.reserve(HEADER + parts.iter().map(|part| part.len()).sum::<usize>());
    framed(out, kind, stream, |out| parts.iter().for_each(|part| out.extend_from_slice(part)));
}

fn json(out: &mut Vec<u8>, kind: u8, stream: u32, value: &impl serde::Serialize) {
    framed(out, kind, stream, |out| {
        serde_json::ser::to_writer(out, value).expect("heads are plain structures of strings and numbers");
    });
}

/// A frame whose body `write` appends; its length is known then.
fn framed(out: &mut Vec<u8>, kind: u8, stream: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let [a, b, c, d] = stream.to_be_bytes();
    out.extend_from_slice(&[kind, a, b, c, d, 0, 0, 0, 0]);
    let start = out.len();
    write(out);
    let length = u32::try_from(out.len() - start);
    let length = length.expect("pieces and heads are cut to a few chunks before they become frames").to_be_bytes();
    out.get_mut(start - length.len()..start).expect("it was just written").copy_from_slice(&length);
}

fn head<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, Fault> {
    if body.len() > MAX_HEAD {
        return Err(Fault::too_big("head too large"));
    }
    serde_json::from_slice(body).map_err(|_| MALFORMED)
}

fn open_head(body: &[u8], last: &mut LastHead) -> Result<OpenHead, Fault> {
    if body.len() > MAX_HEAD {
        return Err(Fault::too_big("head too large"));
    }
    last.read(body).ok_or(MALFORMED)
}

fn exact<const N: usize>(body: &[u8]) -> Result<[u8; N], Fault> {
    body.try_into().map_err(|_| MALFORMED)
}

/// What every frame begins with.
pub(super) const HEADER: usize = 9;
/// The JSON of a head: names and a client's identity.
pub(super) const MAX_HEAD: usize = crate::limits::CHUNK;
const MAX_RESET_REASON: usize = 512;

const HELLO: u8 = 1;
const CATALOG: u8 = 2;
const OPEN: u8 = 3;
const ANSWER: u8 = 4;
const DATA: u8 = 5;
const END: u8 = 6;
const CREDIT: u8 = 7;
const RESET: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const RESTART: u8 = 11;
const GO_AWAY: u8 = 12;
const MESSAGE: u8 = 13;
const NOTICE: u8 = 14;
const SESSION: u8 = 15;
const PAUSE: u8 = 16;
/// From here on kinds that are not known are skipped.
const SKIPPABLE: u8 = 0x80;
const CANCEL: u8 = 0x80;

const MALFORMED: Fault = Fault::protocol("malformed frame");
const BEYOND: Fault = Fault::protocol("frame longer than its message");

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layout_is_kind_stream_length_body() {
        let mut out = Vec::new();
        Frame::Credit { stream: 0x0102_0304, bytes: 5 }.encode(&mut out);
        assert_eq!(out, [7, 1, 2, 3, 4, 0, 0, 0, 4, 0, 0, 0, 5]);
    }

    #[test]
    fn unknown_kind_is_skipped_only_with_the_high_bit() {
        let mut message = Bytes::from_static(&[0x81, 0, 0, 0, 9, 0, 0, 0, 1, b'x', 12, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Frame::take(&mut message, &mut LastHead::default()), Ok(Some(Frame::GoAway)));
        let mut message = Bytes::from_static(&[0x7f, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Frame::take(&mut message, &mut LastHead::default()), Err(Fault::protocol("unknown kind of frame")));
    }

    #[test]
    fn malformed_frames_are_refused() {
        let cases: &[(&str, &[u8])] = &[
            ("header cut", &[12, 0, 0]),
            ("body beyond the message", &[5, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 1]),
            ("kind 0", &[0, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("call's frame on stream 0", &[6, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("connection's frame on a call", &[12, 0, 0, 0, 1, 0, 0, 0, 0]),
            ("data without bytes", &[5, 0, 0, 0, 1, 0, 0, 0, 0]),
            ("piece without flag", &[13, 0, 0, 0, 1, 0, 0, 0, 0]),
            ("piece without bytes", &[13, 0, 0, 0, 1, 0, 0, 0, 1, 1]),
            ("piece with a strange flag", &[13, 0, 0, 0, 1, 0, 0, 0, 2, 2, b'x']),
            ("short credit", &[7, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 1]),
            ("long ping", &[9, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("hello that is no JSON", &[1, 0, 0, 0, 0, 0, 0, 0, 1, b'{']),
            ("cancellation of no call", &[0x80, 0, 0, 0, 0, 0, 0, 0, 1, b'x']),
            ("reset without code", &[8, 0, 0, 0, 1, 0, 0, 0, 0]),
        ];
        for (name, bytes) in cases {
            assert!(Frame::take(&mut Bytes::copy_from_slice(bytes), &mut LastHead::default()).is_err(), "{name}");
        }
    }

    #[test]
    fn head_at_the_limit_passes_and_one_over_does_not() {
        for (extra, fits) in [(0, true), (1, false)] {
            let empty = serde_json::to_vec(&Hello::default()).unwrap().len();
            let hello = Hello { version: "v".repeat(MAX_HEAD - empty + extra), ..Hello::default() };
            let mut out = Vec::new();
            Frame::Hello(Box::new(hello)).encode(&mut out);
            assert_eq!(Frame::take(&mut out.into(), &mut LastHead::default()).is_ok(), fits);
        }
    }

    fn piece() -> impl Strategy<Value = Piece> {
        (any::<bool>(), prop::collection::vec(any::<u8>(), 1..40))
            .prop_map(|(last, bytes)| Piece { last, bytes: bytes.into() })
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let stream = 1..=u32::MAX;
        let bytes = prop::collection::vec(any::<u8>(), 1..40).prop_map(Bytes::from);
        let code = (0..=255_u8).prop_map(ResetCode::from_u8);
        prop_oneof![
            ("\\PC{0,9}", any::<u64>(), prop::collection::vec("\\PC{0,5}", 0..3)).prop_map(
                |(version, max, features)| {
                    Frame::Hello(Box::new(Hello { version, max_message: max, features, ..Hello::default() }))
                }
            ),
            piece().prop_map(Frame::Catalog),
            (stream.clone(), "\\PC{0,9}", proptest::option::of("\\PC{0,9}"), "\\PC{0,9}", any::<u64>()).prop_map(
                |(stream, server, client, actor, length)| {
                    let (server, client, actor) = (server.into(), client.map(Into::into), actor.into());
                    let method = "tools/call".into();
                    let head = OpenHead { server, method, client, actor, length, ..OpenHead::default() };
                    Frame::Open { stream, head: Box::new(head) }
                }
            ),
            (stream.clone(), any::<Option<i64>>(), any::<Option<u64>>())
                .prop_map(|(stream, error, length)| Frame::Answer { stream, head: AnswerHead { error, length } }),
            (stream.clone(), bytes.clone()).prop_map(|(stream, bytes)| Frame::Data { stream, bytes }),
            (stream.clone(), prop_oneof![bytes, Just(Bytes::new())])
                .prop_map(|(stream, bytes)| Frame::End { stream, bytes }),
            (stream.clone(), any::<u32>()).prop_map(|(stream, bytes)| Frame::Credit { stream, bytes }),
            (stream.clone(), code, "\\PC{0,20}").prop_map(|(stream, code, reason)| Frame::Reset {
                stream,
                code,
                reason
            }),
            any::<u64>().prop_map(Frame::Ping),
            any::<u64>().prop_map(Frame::Pong),
            proptest::option::of("\\PC{0,9}").prop_map(|server| Frame::Restart(RestartBody { server })),
            Just(Frame::GoAway),
            (stream.clone(), prop::collection::vec(any::<u8>(), 0..40))
                .prop_map(|(stream, params)| Frame::Cancel { stream, params: params.into() }),
            (stream.clone(), any::<u32>()).prop_map(|(stream, millis)| Frame::Pause { stream, millis }),
            (stream, piece()).prop_map(|(stream, piece)| Frame::Message { stream, piece }),
            piece().prop_map(Frame::Notice),
            ("\\PC{0,9}", any::<[Option<bool>; 2]>()).prop_map(|(session, some)| {
                let [server, notification] = some.map(|some| some.map(|text| text.to_string()));
                Frame::Session(SessionWord { session, server, notification })
            }),
        ]
    }

    proptest! {
        #[test]
        fn frames_survive_however_they_share_messages(frames in prop::collection::vec((frame(), any::<bool>()), 0..12)) {
            let mut messages = vec![Vec::new()];
            for (frame, new_message) in &frames {
                if *new_message {
                    messages.push(Vec::new());
                }
                frame.encode(messages.last_mut().unwrap());
            }
            let mut read = Vec::new();
            for message in messages {
                let mut message = Bytes::from(message);
                while let Some(frame) = Frame::take(&mut message, &mut LastHead::default()).unwrap() {
                    read.push(frame);
                }
            }
            let sent: Vec<_> = frames.into_iter().map(|(frame, _)| frame).collect();
            prop_assert_eq!(read, sent);
        }

        #[test]
        fn any_bytes_end_in_frames_or_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut message = Bytes::from(bytes);
            while let Ok(Some(_)) = Frame::take(&mut message, &mut LastHead::default()) {}
        }

        #[test]
        fn any_change_of_a_frame_ends_in_frames_or_a_fault(frame in frame(), at: prop::sample::Index, byte: u8) {
            let mut out = Vec::new();
            frame.encode(&mut out);
            *at.get_mut(&mut out[..]) = byte;
            let mut message = Bytes::from(out);
            while let Ok(Some(_)) = Frame::take(&mut message, &mut LastHead::default()) {}
        }
    }
}

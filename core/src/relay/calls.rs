//! Calls under way: from the agent's stream to the client's reply.
//!
//! ```text
//!   Waiting ──Answer──► Answered ──first piece──► Body ──last piece──► (gone)
//!      └───────────────────┴── failure, cancel, tunnel closed ──┴────► (gone)
//! ```

use alloc::boxed::Box;

use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;

use super::audit::Record;
use super::failure::{Failure, Place};
use super::mend::{Mend, Piece};
use super::outlet::Outlet;
use super::shard::{Action, Cx};
use super::{SessionKey, subscriptions};
use crate::id::{ConnId, ExchangeId, FamilyId, StreamId};
use crate::limits;
use crate::mcp::code;
use crate::rpc::scan::Scan;
use crate::rpc::{RawId, envelope};
use crate::time::{Instant, UnixTime};
use crate::tunnel::{Command, Outcome};

/// A call belongs to a connection and a stream: an answer from any other connection cannot name it.
pub(super) type CallKey = (ConnId, StreamId);

/// A call under way.
#[derive(Debug)]
pub(super) struct Call {
    /// The client's id, which the answer carries.
    pub(super) id: RawId,
    /// In which session it was asked.
    pub(super) session: Option<SessionKey>,
    /// The grant of the client that called.
    pub(super) family: FamilyId,
    pub(super) place: Place,
    pub(super) opened: Instant,
    /// When there was a sign of life last.
    pub(super) heard: Instant,
    /// The exchange that awaited it, unless it is part of a batch.
    pub(super) exchange: Option<ExchangeId>,
    pub(super) sink: Sink,
    pub(super) phase: Phase,
    /// What in its answer is the relay's to say, if anything is.
    pub(super) mend: Option<Box<Mend>>,
    /// Of a call that lasts, a subscription: when its grant runs out. It may be silent for as long as it likes.
    pub(super) until: Option<UnixTime>,
    /// Its server has the method, so that no error means that it has not.
    pub(super) has_method: bool,
    /// It was asked on the endpoint of all servers.
    pub(super) on_all: bool,
    /// What its line in the audit will say, if one is kept.
    pub(super) audit: Option<Box<Record>>,
}

/// Where a response goes.
#[derive(Debug)]
pub(super) enum Sink {
    /// To a client, as it comes.
    Reply(Outlet),
    /// Into a batch, whole.
    Slot {
        exchange: ExchangeId,
        index: usize,
        /// What came so far.
        held: BytesMut,
    },
    /// To what several servers answer together.
    Part {
        /// Its number.
        gather: u64,
        index: usize,
        /// What came so far.
        held: BytesMut,
    },
    /// To a subscription on the endpoint of all servers, which hears of a resource this way: only what is said before
    /// the response is of use.
    Feed {
        /// The subscription's.
        exchange: ExchangeId,
        index: usize,
    },
    /// Nowhere: the client went away. Up to 2025-11-25 that is not a cancel (Transports, Disconnection), so the call
    /// goes on. From 2026-07-28 on it is (Cancellation), and the call ends.
    Nobody,
}

/// How far an answer is.
#[derive(Debug)]
pub(super) enum Phase {
    /// Nothing came.
    Waiting,
    /// Its kind is known.
    Answered { outcome: Outcome, length: Option<u64> },
    /// Its body is coming.
    Body {
        outcome: Outcome,
        /// How many bytes are still to come, if known.
        remaining: Option<u64>,
        /// What came so far: what an agent sends goes into the client's envelope, and must not end it.
        scan: Scan,
    },
}

/// What a piece of an answer did to its call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More is to come.
    More,
    /// It was the last one; a batch gets this response.
    Done(Option<Bytes>),
    /// It does not fit what was said before, or is not JSON.
    Fault(&'static str),
    /// It does not fit into what it is a part of.
    TooLarge,
}

impl Call {
    /// The agent says what kind of answer comes. A second answer is dropped.
    pub(super) fn answer(&mut self, outcome: Outcome, length: Option<u64>) -> bool {
        match self.phase {
            Phase::Waiting => {
                self.phase = Phase::Answered { outcome, length };
                true
            }
            Phase::Answered { .. } | Phase::Body { .. } => false,
        }
    }

    /// A piece of the answer's body came.
    pub(super) fn data(&mut self, key: CallKey, bytes: Bytes, end: bool, cx: &mut Cx<'_>) -> Progress {
        let (outcome, mut length, mut scan, mut is_first) = match core::mem::replace(&mut self.phase, Phase::Waiting) {
            Phase::Waiting => return Progress::Fault(MISFIT),
            Phase::Answered { outcome, length } => (outcome, length, scan_of(outcome), true),
            Phase::Body { outcome, remaining, scan } => (outcome, remaining, scan, false),
        };
        let Some(remaining) = rest(length, bytes.len(), end) else { return Progress::Fault(MISFIT) };
        let scanned = scan.push(&bytes).and_then(|()| if end { scan.end() } else { Ok(()) });
        if let Err(fault) = scanned {
            tracing::warn!(conn = %key.0, call = %key.1, reason = %fault, "answer is not JSON");
            return Progress::Fault(NOT_JSON);
        }
        self.phase = Phase::Body { outcome, remaining, scan };
        if let Some(record) = &mut self.audit {
            record.passed(bytes.len());
        }
        let around = || match outcome {
            Outcome::Result => envelope::around_result(&self.id),
            Outcome::Error { .. } => envelope::around_error(&self.id),
        };
        let response = |whole: &[u8]| match outcome {
            Outcome::Result => envelope::result(&self.id, whole),
            Outcome::Error { .. } => envelope::raw_error(Some(&self.id), whole),
        };
        let mut credit = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let mut bytes = bytes;
        if let Some(mend) = self.mend.as_mut().filter(|_| outcome == Outcome::Result) {
            match mend.piece(bytes, end, &self.id) {
                Piece::Held => {
                    consume(key, credit, cx);
                    return Progress::More;
                }
                Piece::TooLong => return Progress::Fault(TOO_LONG),
                // Its last piece's credit ends with its stream.
                Piece::Whole(whole) => (bytes, credit, is_first) = (whole, 0, true),
            }
            length = u64::try_from(bytes.len()).ok();
        }
        match core::mem::replace(&mut self.sink, Sink::Nobody) {
            Sink::Reply(mut outlet) => {
                let status = match outcome {
                    Outcome::Result => StatusCode::OK,
                    // What a handler says is in band.
                    Outcome::Error { code: code::METHOD_NOT_FOUND } if self.has_method => StatusCode::OK,
                    Outcome::Error { code } => outlet.status_of(code),
                };
                if is_first && end && bytes.len() <= limits::WHOLE_ANSWER {
                    outlet.whole(status, response(&bytes), cx);
                    return Progress::Done(None);
                }
                if is_first {
                    let (before, after) = around();
                    let after = u64::try_from(after.len()).unwrap_or_default();
                    outlet.begin_answer(status, before, (length, after), Some(key), cx);
                }
                if !bytes.is_empty() {
                    outlet.piece(bytes, credit, cx);
                }
                if end {
                    outlet.end_answer(around().1, cx);
                    return Progress::Done(None);
                }
                self.sink = Sink::Reply(outlet);
            }
            Sink::Slot { exchange, index, mut held } => {
                if held.len().saturating_add(bytes.len()) > limits::MAX_BATCH_ANSWER {
                    self.sink = Sink::Slot { exchange, index, held: BytesMut::new() };
                    return Progress::TooLarge;
                }
                held.put_slice(&bytes);
                if end {
                    let response = response(&held);
                    self.sink = Sink::Slot { exchange, index, held: BytesMut::new() };
                    return Progress::Done(Some(response));
                }
                self.sink = Sink::Slot { exchange, index, held };
                consume(key, credit, cx);
            }
            Sink::Part { gather, index, mut held } => {
                if held.len().saturating_add(bytes.len()) > limits::MAX_BATCH_ANSWER {
                    self.sink = Sink::Part { gather, index, held: BytesMut::new() };
                    return Progress::TooLarge;
                }
                held.put_slice(&bytes);
                if end {
                    let response = response(&held);
                    self.sink = Sink::Part { gather, index, held: BytesMut::new() };
                    return Progress::Done(Some(response));
                }
                self.sink = Sink::Part { gather, index, held };
                consume(key, credit, cx);
            }
            Sink::Feed { exchange, index } => {
                self.sink = Sink::Feed { exchange, index };
                if end {
                    let response = match outcome {
                        Outcome::Result => subscriptions::ended(&self.id),
                        Outcome::Error { code } => envelope::error(Some(&self.id), code, "", None),
                    };
                    return Progress::Done(Some(response));
                }
                consume(key, credit, cx);
            }
            Sink::Nobody if end => return Progress::Done(None),
            Sink::Nobody => consume(key, credit, cx),
        }
        Progress::More
    }

    /// A notification before the answer, as the client gets it.
    pub(super) fn notification(&self, json: Bytes) -> Bytes {
        match &self.mend {
            Some(mend) => mend.notification(json, &self.id),
            None => json,
        }
    }

    /// The response that tells of `failure`. The relay ends a subscription as its server would.
    pub(super) fn failed(&self, failure: &Failure) -> Bytes {
        match failure {
            Failure::SignedOut | Failure::Stopping if self.until.is_some() => subscriptions::ended(&self.id),
            failure => failure.response(&self.id),
        }
    }
}

/// What an answer's body must be: a result is any value, an error an object (JSON-RPC 2.0 section 5.1).
fn scan_of(outcome: Outcome) -> Scan {
    match outcome {
        Outcome::Result => Scan::value(),
        Outcome::Error { .. } => Scan::object(),
    }
}

/// What is left of a body of `length` after `bytes` more; `None` when that does not fit.
fn rest(length: Option<u64>, bytes: usize, end: bool) -> Option<Option<u64>> {
    let Some(length) = length else { return Some(None) };
    let rest = length.checked_sub(u64::try_from(bytes).ok()?)?;
    (!end || rest == 0).then_some(Some(rest))
}

/// Gives a piece's credit back at once: nobody will take it.
pub(super) fn consume((conn, stream): CallKey, bytes: u32, cx: &mut Cx<'_>) {
    if bytes > 0 {
        cx.out.push(Action::Tunnel { conn, command: Command::Consumed { stream, bytes } });
    }
}

const TOO_LONG: &str = "the answer is too long for what it is";
const MISFIT: &str = "the answer does not fit its announcement";
const NOT_JSON: &str = "the answer is not one JSON value";

//! One call on a V2 tunnel: what waits to be sent on it, and what of it arrived so far.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::limits::{MAX_CALL_QUEUE, MAX_UNREAD, STREAM_CREDIT};
use crate::tunnel::OpenHead;
use crate::tunnel::close::Fault;
use crate::tunnel::credit::{Allowance, Window};
use crate::tunnel::frame::{AnswerHead, Frame, Piece};

/// One open call.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) outgoing: Outgoing,
    pub(super) incoming: Incoming,
}

/// What waits to be sent on a stream.
///
/// A relay sends the head and params first and messages after them (they answer what the server asked); an agent sends
/// messages first and the answer after them, since the answer is the last of its stream.
#[derive(Debug)]
pub(super) struct Outgoing {
    body: Body,
    messages: VecDeque<Queued>,
    /// An agent's; a relay's params need no credit.
    allowance: Option<Allowance>,
}

/// Params or answer.
#[derive(Debug)]
enum Body {
    /// An agent that has no answer yet.
    Awaited,
    /// `head` until it is sent, then `rest` until its end is sent.
    Waiting {
        head: Option<Frame>,
        rest: Bytes,
    },
    Sent,
}

#[derive(Debug)]
struct Queued {
    rest: Bytes,
    /// Whether a newer one may take its place; not once a piece of it was sent.
    droppable: bool,
}

/// A queue is full: the call cannot go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Outgoing {
    /// A relay's: the call itself waits to be sent.
    pub(super) fn call(open: Frame, params: Bytes) -> Self {
        let body = Body::Waiting { head: Some(open), rest: params };
        Self { body, messages: VecDeque::new(), allowance: None }
    }

    /// An agent's: nothing waits yet.
    pub(super) fn answer() -> Self {
        Self { body: Body::Awaited, messages: VecDeque::new(), allowance: Some(Allowance::new()) }
    }

    /// Takes the final answer; `false` when there was one already.
    pub(super) fn set_answer(&mut self, answer: Frame, body: Bytes) -> bool {
        let first = matches!(self.body, Body::Awaited);
        if first {
            self.body = Body::Waiting { head: Some(answer), rest: body };
        }
        first
    }

    /// Whether this is an agent's stream whose answer was given.
    pub(super) fn is_answered(&self) -> bool {
        self.allowance.is_some() && !matches!(self.body, Body::Awaited)
    }

    /// Queues a message. Of those that may be dropped only the newest are kept.
    pub(super) fn push_message(&mut self, json: Bytes, droppable: bool) -> Result<(), Full> {
        if droppable && self.messages.iter().filter(|queued| queued.droppable).count() >= MAX_UNREAD {
            let oldest = self.messages.iter().position(|queued| queued.droppable);
            oldest.and_then(|at| self.messages.remove(at));
        }
        if self.messages.len() >= MAX_CALL_QUEUE {
            return if droppable { Ok(()) } else { Err(Full) };
        }
        self.messages.push_back(Queued { rest: json, droppable });
        Ok(())
    }

    /// Takes returned credit in.
    pub(super) fn grant(&mut self, bytes: u32) -> Result<(), Fault> {
        match &mut self.allowance {
            Some(allowance) => allowance.grant(bytes),
            None => Err(Fault::protocol("credit that was not asked for")),
        }
    }

    /// The next frame, with at most `room` bytes of body; `None` when nothing may be sent now.
    pub(super) fn next(&mut self, stream: u32, room: usize) -> Option<Frame> {
        if self.is_message_next() { self.next_message(stream, room) } else { self.next_body(stream, room) }
    }

    /// Whether [`next`](Self::next) has a frame.
    pub(super) fn is_ready(&self) -> bool {
        if self.is_message_next() {
            return self.may_send() > 0;
        }
        match &self.body {
            Body::Awaited | Body::Sent => false,
            Body::Waiting { head, rest } => head.is_some() || rest.is_empty() || self.may_send() > 0,
        }
    }

    /// Whether something waits that only credit holds back.
    pub(super) fn is_stalled(&self) -> bool {
        !self.is_ready() && (self.is_message_next() || matches!(self.body, Body::Waiting { .. }))
    }

    /// Whether a call's head was sent, so that the peer knows the stream.
    pub(super) fn is_opened(&self) -> bool {
        !matches!(&self.body, Body::Waiting { head: Some(Frame::Open { .. }), .. })
    }

    /// Whether an agent's answer was sent to its end.
    pub(super) fn is_answer_sent(&self) -> bool {
        self.allowance.is_some() && matches!(self.body, Body::Sent)
    }

    /// How many bytes wait.
    pub(super) fn waiting(&self) -> usize {
        let body = match &self.body {
            Body::Waiting { rest, .. } => rest.len(),
            Body::Awaited | Body::Sent => 0,
        };
        body + self.messages.iter().map(|queued| queued.rest.len()).sum::<usize>()
    }

    fn is_message_next(&self) -> bool {
        let body_goes_first = self.allowance.is_none() && matches!(self.body, Body::Waiting { .. });
        !self.messages.is_empty() && !body_goes_first
    }

    fn may_send(&self) -> usize {
        self.allowance.as_ref().map_or(usize::MAX, Allowance::left)
    }

    fn spend(&mut self, bytes: usize) {
        if let Some(allowance) = &mut self.allowance {
            allowance.spend(bytes);
        }
    }

    fn next_message(&mut self, stream: u32, room: usize) -> Option<Frame> {
        let room = room.min(self.may_send());
        let queued = self.messages.front_mut()?;
        if room == 0 {
            return None;
        }
        queued.droppable = false;
        let piece = Piece::cut_from(&mut queued.rest, room);
        if piece.last {
            self.messages.pop_front();
        }
        self.spend(piece.bytes.len());
        Some(Frame::Message { stream, piece })
    }

    fn next_body(&mut self, stream: u32, room: usize) -> Option<Frame> {
        let room = room.min(self.may_send());
        let Body::Waiting { head, rest } = &mut self.body else { return None };
        if let Some(head) = head.take() {
            return Some(head);
        }
        if room == 0 && !rest.is_empty() {
            return None;
        }
        let Piece { last, bytes } = Piece::cut_from(rest, room);
        self.spend(bytes.len());
        if last {
            self.body = Body::Sent;
            return Some(Frame::End { stream, bytes });
        }
        Some(Frame::Data { stream, bytes })
    }
}

/// What arrived on a stream so far.
#[derive(Debug)]
pub(super) enum Incoming {
    /// Relay: the answer and what comes before it.
    Answer(Answer),
    /// Agent: the call, until its params are whole.
    Params { head: OpenHead, params: Assembly },
    /// Agent: the call was handed on; replies to the server's questions may follow.
    Replies(Assembly),
}

/// An answer on its way in.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) window: Window,
    phase: Phase,
    message: Assembly,
    /// Credit that the unfinished message holds.
    held: u32,
}

#[derive(Debug, Default)]
enum Phase {
    /// Messages may come.
    #[default]
    Awaited,
    /// The head came; `left` of the declared length is to come.
    Body { left: Option<u64> },
}

impl Answer {
    /// The head came.
    pub(super) fn begin(&mut self, head: AnswerHead) -> Result<(), Fault> {
        match self.phase {
            Phase::Awaited => {
                self.phase = Phase::Body { left: head.length };
                Ok(())
            }
            Phase::Body { .. } => Err(Fault::protocol("second answer")),
        }
    }

    /// A piece of the body came.
    pub(super) fn body(&mut self, bytes: &Bytes, last: bool) -> Result<(), Fault> {
        let Phase::Body { left } = &mut self.phase else {
            return Err(Fault::protocol("body before its answer"));
        };
        self.window.receive(bytes.len())?;
        if let Some(left) = left {
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            *left = left.checked_sub(length).ok_or(WRONG_LENGTH)?;
            if last && *left != 0 {
                return Err(WRONG_LENGTH);
            }
        }
        Ok(())
    }

    /// A piece of a message came: the message and the credit that it holds, once it is whole.
    ///
    /// A message may be larger than the window, and its owner cannot consume what it was not given: what goes beyond
    /// half a window is returned at once, since the tunnel's bound on unfinished messages holds it.
    pub(super) fn message(&mut self, piece: Piece, limit: usize) -> Result<Option<(Bytes, u32)>, MessageError> {
        if matches!(self.phase, Phase::Body { .. }) {
            return Err(Fault::protocol("message after the answer").into());
        }
        self.window.receive(piece.bytes.len())?;
        let length = u32::try_from(piece.bytes.len()).unwrap_or(u32::MAX);
        if self.held.saturating_add(length) > STREAM_CREDIT / 2 {
            self.window.consume(length);
        } else {
            self.held = self.held.saturating_add(length);
        }
        let whole = self.message.push(piece, limit).map_err(|TooLarge| MessageError::TooLarge)?;
        Ok(whole.map(|json| (json, core::mem::take(&mut self.held))))
    }

    /// How many bytes of an unfinished message are held.
    pub(super) fn assembled(&self) -> usize {
        self.message.len()
    }
}

/// Why a piece of a message was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MessageError {
    /// The connection cannot go on.
    Fault(Fault),
    /// This call cannot go on.
    TooLarge,
}

impl From<Fault> for MessageError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Incoming {
    /// How many bytes of unfinished bodies are held.
    pub(super) fn assembled(&self) -> usize {
        match self {
            Self::Answer(answer) => answer.assembled(),
            Self::Params { params, .. } => params.len(),
            Self::Replies(message) => message.len(),
        }
    }
}

/// A body that is put together from pieces.
#[derive(Debug, Default)]
pub(super) struct Assembly(Vec<u8>);

/// A body grew beyond its limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

impl Assembly {
    /// Takes a piece in: the body, once it is whole. A body of one piece is not copied.
    pub(super) fn push(&mut self, piece: Piece, limit: usize) -> Result<Option<Bytes>, TooLarge> {
        if self.0.len().saturating_add(piece.bytes.len()) > limit {
            return Err(TooLarge);
        }
        if piece.last && self.0.is_empty() {
            return Ok(Some(piece.bytes));
        }
        self.0.extend_from_slice(&piece.bytes);
        Ok(piece.last.then(|| Bytes::from(core::mem::take(&mut self.0))))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

const WRONG_LENGTH: Fault = Fault::protocol("body of another length than declared");

//! One call on a V2 tunnel: what waits to be sent on it, and what of it arrived so far.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::id::StreamId;
use crate::limits::{MAX_CALL_QUEUE, MAX_UNREAD, STREAM_CREDIT};
use crate::tunnel::OpenHead;
use crate::tunnel::close::Fault;
use crate::tunnel::credit::{Allowance, Window};
use crate::tunnel::frame::{AnswerHead, Frame, Piece};
use crate::tunnel::load::StreamLoad;

/// One open call.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) outgoing: Outgoing,
    pub(super) incoming: Incoming,
}

impl Stream {
    /// What it holds.
    pub(super) fn load(&self, stream: u32) -> StreamLoad {
        let messages = &self.outgoing.messages;
        let (left, held, unfinished) = match (&self.outgoing.allowance, &self.incoming) {
            (Some(allowance), _) => (allowance.credit(), 0, 0),
            (None, Incoming::Answer(answer)) => (answer.window.left(), answer.window.held(), answer.held),
            (None, Incoming::Params { .. } | Incoming::Replies(_)) => (0, 0, 0),
        };
        StreamLoad {
            stream: StreamId(stream),
            messages: messages.len(),
            droppable: messages.iter().filter(|queued| queued.droppable).count(),
            left,
            held,
            unfinished,
        }
    }
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
    Params { head: Box<OpenHead>, params: Assembly },
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

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;
    use crate::tunnel::ResetCode;

    const S: u32 = 7;

    fn answer_frame() -> Frame {
        Frame::Answer { stream: S, head: AnswerHead { error: None, length: None } }
    }

    fn bytes(length: usize, fill: u8) -> Bytes {
        vec![fill; length].into()
    }

    /// Takes what may be sent now, and puts it together: whole messages, then the body; how much it was.
    fn drain(
        outgoing: &mut Outgoing,
        room: usize,
        message: &mut Vec<u8>,
        out: &mut Vec<Bytes>,
        body: &mut Vec<u8>,
    ) -> usize {
        let mut sent = 0;
        while let Some(frame) = outgoing.next(S, room) {
            match frame {
                Frame::Message { piece, .. } => {
                    sent += piece.bytes.len();
                    message.extend_from_slice(&piece.bytes);
                    if piece.last {
                        out.push(core::mem::take(message).into());
                    }
                }
                Frame::Data { bytes, .. } | Frame::End { bytes, .. } => {
                    sent += bytes.len();
                    body.extend_from_slice(&bytes);
                }
                Frame::Answer { .. } | Frame::Open { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        sent
    }

    /// What an agent's stream may say in every state of its answer.
    #[test]
    fn every_step_in_every_state() {
        type Step = fn(&mut Outgoing) -> bool;
        const STATES: [&str; 5] = ["awaited", "answered", "begun", "out of credit", "sent"];
        let full = STREAM_CREDIT as usize;
        let state = |name: &str| {
            let mut outgoing = Outgoing::answer();
            if name != "awaited" {
                let length = if name == "out of credit" { full + 1 } else { 4 };
                assert!(outgoing.set_answer(answer_frame(), bytes(length, b'x')));
            }
            match name {
                "begun" => assert!(matches!(outgoing.next(S, 9), Some(Frame::Answer { .. }))),
                "out of credit" | "sent" => {
                    drain(&mut outgoing, 1 << 20, &mut Vec::new(), &mut Vec::new(), &mut Vec::new());
                }
                _ => {}
            }
            outgoing
        };
        let steps: [(&str, Step, [bool; 5]); 8] = [
            // Whether it succeeds, or is so.
            ("set an answer", |o| o.set_answer(answer_frame(), Bytes::new()), [true, false, false, false, false]),
            ("is answered", |o| o.is_answered(), [false, true, true, true, true]),
            ("is ready", |o| o.is_ready(), [false, true, true, false, false]),
            ("has a frame", |o| o.next(S, 9).is_some(), [false, true, true, false, false]),
            ("is stalled", |o| o.is_stalled(), [false, false, false, true, false]),
            ("takes credit", |o| o.grant(1).is_ok(), [true; 5]),
            ("takes credit without end", |o| o.grant(u32::MAX).is_ok(), [false, false, false, true, false]),
            ("is sent", |o| o.is_answer_sent(), [false, false, false, false, true]),
        ];
        for (step, apply, expected) in steps {
            for (name, expected) in STATES.into_iter().zip(expected) {
                assert_eq!(apply(&mut state(name)), expected, "{step} while {name}");
            }
        }
    }

    #[test]
    fn call_needs_no_credit_and_goes_before_its_messages() {
        let open = Frame::Reset { stream: S, code: ResetCode::Cancelled, reason: alloc::string::String::new() };
        let mut outgoing = Outgoing::call(open, bytes(STREAM_CREDIT as usize * 2, b'p'));
        outgoing.push_message(bytes(3, b'm'), false).expect("there is room");
        assert!(outgoing.grant(1).is_err() && outgoing.is_ready() && !outgoing.is_stalled());
        assert!(matches!(outgoing.next(S, 9), Some(Frame::Reset { .. })), "its head, whatever it is");
        let (mut messages, mut body) = (Vec::new(), Vec::new());
        drain(&mut outgoing, 1 << 20, &mut Vec::new(), &mut messages, &mut body);
        assert_eq!((body.len(), messages), (STREAM_CREDIT as usize * 2, vec![bytes(3, b'm')]));
    }

    #[derive(Debug, Clone)]
    enum Op {
        Message(usize, bool),
        Grant(u32),
        Answer(usize),
        Send(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (1..90_000_usize, any::<bool>()).prop_map(|(length, droppable)| Op::Message(length, droppable)),
            3 => (0..90_000_u32).prop_map(Op::Grant),
            1 => (0..200_000_usize).prop_map(Op::Answer),
            4 => (1..70_000_usize).prop_map(Op::Send),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Never more than the credit; messages whole and in order, all of them that may not be dropped; the answer last.
        #[test]
        fn messages_then_the_answer_within_the_credit(ops in prop::collection::vec(op(), 0..40)) {
            let mut outgoing = Outgoing::answer();
            let (mut queued, mut answer): (Vec<(Bytes, bool)>, Option<Bytes>) = (Vec::new(), None);
            let (mut message, mut messages, mut body) = (Vec::new(), Vec::new(), Vec::new());
            let (mut credit, mut number) = (STREAM_CREDIT as usize, 0_u8);
            let settle = ops.len();
            for op in ops.into_iter().chain((0..settle + 8).flat_map(|_| [Op::Grant(STREAM_CREDIT), Op::Send(1 << 20)])) {
                match op {
                    Op::Message(length, droppable) if answer.is_none() => {
                        number = number.wrapping_add(1);
                        let json = bytes(length, number);
                        outgoing.push_message(json.clone(), droppable).expect("the queue is longer than this");
                        queued.push((json, droppable));
                    }
                    Op::Answer(length) => {
                        let first = answer.is_none();
                        let given = bytes(length, b'a');
                        prop_assert_eq!(outgoing.set_answer(answer_frame(), given.clone()), first);
                        answer = answer.or(Some(given));
                    }
                    Op::Grant(bytes) => {
                        outgoing.grant(bytes).expect("far from the end");
                        credit += bytes as usize;
                    }
                    Op::Send(room) => {
                        let ready = outgoing.is_ready();
                        let before = (outgoing.waiting(), body.len(), messages.len());
                        let sent = drain(&mut outgoing, room, &mut message, &mut messages, &mut body);
                        prop_assert!(sent <= credit);
                        credit -= sent;
                        prop_assert_eq!(before.0 - outgoing.waiting(), sent);
                        prop_assert!(ready || sent == 0);
                        prop_assert!(!outgoing.is_ready(), "it was drained");
                    }
                    Op::Message(..) => {}
                }
                prop_assert!(body.is_empty() || message.is_empty(), "no message after the answer began");
            }
            // With all the credit that it takes, everything was sent but what newer ones took the place of.
            prop_assert_eq!(outgoing.waiting(), 0);
            prop_assert_eq!(outgoing.is_answer_sent(), answer.is_some());
            prop_assert_eq!(Bytes::from(body), answer.unwrap_or_default());
            let mut rest = messages.iter();
            for (json, droppable) in &queued {
                let found = rest.clone().next() == Some(json);
                prop_assert!(found || *droppable, "one that must not be dropped is missing, or out of order");
                if found {
                    rest.next();
                }
            }
            prop_assert_eq!(rest.next(), None, "nothing that was not queued");
            let dropped = queued.len() - messages.len();
            let droppable = queued.iter().filter(|(_, droppable)| *droppable).count();
            prop_assert!(dropped <= droppable.saturating_sub(MAX_UNREAD), "{} of {}", dropped, droppable);
        }

        /// However a body was cut, the same comes out; one byte over its limit and none does.
        #[test]
        fn pieces_are_put_together_within_their_limit(lengths in prop::collection::vec(0..50_usize, 1..8), spare in 0..3_usize) {
            let all: usize = lengths.iter().sum();
            for (limit, fits) in [(all + spare, true), (all.saturating_sub(1), all == 0)] {
                let (mut assembly, mut given) = (Assembly::default(), Vec::new());
                let mut whole = Ok(None);
                for (index, length) in lengths.iter().enumerate() {
                    let piece = bytes(*length, u8::try_from(index).expect("few"));
                    given.extend_from_slice(&piece);
                    whole = assembly.push(Piece { last: index + 1 == lengths.len(), bytes: piece }, limit);
                    if whole.is_err() {
                        break;
                    }
                }
                prop_assert_eq!(whole, if fits { Ok(Some(Bytes::from(given))) } else { Err(TooLarge) });
                prop_assert!(!fits || assembly.len() == 0);
            }
        }
    }
}

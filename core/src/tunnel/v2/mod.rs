//! Dialect V2: what both sides do alike. What a relay does is in [`relay`], what an agent does in [`agent`].
//!
//! Stream numbers rise, and only the relay opens: whatever is not above the highest number and not open is finished, so
//! late frames are told from wrong ones without memory of the past.

mod agent;
mod announcements;
mod relay;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

pub use self::relay::fits_notice;
use crate::id::StreamId;
use crate::limits::{
    CHUNK, MAX_ASSEMBLY, MAX_BUFFERED, MAX_CALL_MESSAGE, MAX_CONTROL, MAX_MESSAGE, MAX_RECEIVE, MAX_STREAMS,
    MAX_TRANSMIT, STALL_TIMEOUT,
};
use crate::time::{Deadline, Instant};
use crate::timers::Timers;
use crate::tunnel::close::Fault;
use crate::tunnel::connection::Cx;
use crate::tunnel::frame::{Frame, HEADER};
use crate::tunnel::head::LastHead;
use crate::tunnel::load::Load;
use crate::tunnel::schedule::Rotation;
use crate::tunnel::streams::{Assembly, Outgoing, Stream};
use crate::tunnel::{Command, Event, Hello, ResetCode, Side};

/// One side of a V2 tunnel.
#[derive(Debug)]
pub(super) struct V2 {
    side: Side,
    /// What this side takes.
    ours: Terms,
    /// What the peer takes; nothing else is taken before its hello.
    peer: Option<Terms>,
    /// Whether the peer said that it is about to close.
    leaving: bool,
    /// Boxed, so that calls that come and go move little.
    streams: BTreeMap<u32, Box<Stream>>,
    /// The highest number that was opened.
    highest: u32,
    last_head: LastHead,
    /// Control frames in order, the hello first.
    control: VecDeque<Frame>,
    /// The token of the last ping that is not answered yet; earlier ones need no answer.
    pong: Option<u64>,
    /// Streams whose consumers returned enough credit for a frame.
    credits: BTreeSet<u32>,
    rotation: Rotation,
    announcements: announcements::Announcements,
    /// Streams without credit, and when they are given up.
    stalls: Timers<u32>,
    /// Bytes that wait to be sent on all streams.
    buffered: usize,
    /// Bytes of unfinished bodies of all streams.
    assembled: usize,
    catalog: Assembly,
    notice: Assembly,
}

impl V2 {
    pub(super) fn new(side: Side, hello: Hello) -> Self {
        Self {
            side,
            ours: Terms::of(&hello),
            control: VecDeque::from([Frame::Hello(Box::new(hello))]),
            peer: None,
            leaving: false,
            streams: BTreeMap::new(),
            highest: 0,
            last_head: LastHead::default(),
            pong: None,
            credits: BTreeSet::new(),
            rotation: Rotation::default(),
            announcements: announcements::Announcements::default(),
            stalls: Timers::default(),
            buffered: 0,
            assembled: 0,
            catalog: Assembly::default(),
            notice: Assembly::default(),
        }
    }

    /// Whether the peer's hello came.
    pub(super) fn is_up(&self) -> bool {
        self.peer.is_some()
    }

    pub(super) fn handle_message(&mut self, mut message: Bytes, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let length = message.len();
        if length > MAX_RECEIVE {
            return Err(Fault::too_big("message too large"));
        }
        while let Some(frame) = Frame::take(&mut message, &mut self.last_head)? {
            self.handle_frame(frame.detach(length), cx)?;
        }
        Ok(())
    }

    pub(super) fn handle_command(&mut self, command: Command, cx: &mut Cx<'_>) -> Result<(), Fault> {
        match command {
            Command::GoAway => self.order(Frame::GoAway),
            Command::Reset { stream, code, reason } => self.cancel(stream.0, code, reason),
            Command::Message { stream, json, droppable } => self.send_message(stream.0, json, droppable, cx),
            command => match self.side {
                Side::Relay => self.handle_relay_command(command, cx),
                Side::Agent => self.handle_agent_command(command, cx),
            },
        }
    }

    /// The next binary message; `calls`: whether streams may speak too, not only control.
    pub(super) fn poll_transmit(&mut self, calls: bool, cx: &mut Cx<'_>) -> Option<Bytes> {
        let mut out = Vec::new();
        self.write_control(&mut out, cx);
        if calls && !self.rotation.is_empty() {
            // At once, rather than with each frame.
            let few = self.buffered + ROOM_FOR_HEADS * self.rotation.len();
            out.reserve(if self.buffered < CHUNK { few.min(MAX_TRANSMIT) } else { MAX_TRANSMIT });
            self.write_streams(&mut out, cx.now);
        }
        (!out.is_empty()).then(|| out.into())
    }

    pub(super) fn handle_timeout(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        while let Some(stream) = self.stalls.pop_due(cx.now) {
            self.give_up(stream, ResetCode::Stalled, "nobody took the answer", cx)?;
        }
        Ok(())
    }

    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        self.stalls.next().map(|(at, _)| Deadline { at, reason: "credit for an answer" })
    }
}

impl V2 {
    /// What it holds.
    pub(super) fn load(&self) -> Load {
        Load {
            control: self.control.len(),
            buffered: self.buffered,
            assembled: self.assembled,
            notices: self.announcements.notices(),
            streams: self.streams.iter().map(|(number, stream)| stream.load(*number)).collect(),
        }
    }

    /// Whether nothing is kept of any call.
    pub(super) fn is_idle(&self) -> bool {
        let kept = (self.streams.len(), self.stalls.len(), self.credits.len(), self.buffered, self.assembled);
        kept == (0, 0, 0, 0, 0) && self.rotation.is_empty() && self.announcements.is_empty() && self.control.is_empty()
    }
}

/// Frames.
impl V2 {
    fn handle_frame(&mut self, frame: Frame, cx: &mut Cx<'_>) -> Result<(), Fault> {
        tracing::trace!(side = ?self.side, frame = frame.name(), "frame received");
        if self.peer.is_none() {
            let Frame::Hello(hello) = frame else { return Err(Fault::protocol("frame before the hello")) };
            self.peer = Some(Terms::of(&hello));
            cx.events.push_back(Event::Up(*hello));
            return Ok(());
        }
        match frame {
            Frame::Hello(_) => Err(Fault::protocol("second hello")),
            Frame::Ping(token) => {
                self.pong = Some(token);
                Ok(())
            }
            Frame::Pong(token) => {
                cx.measured(token);
                Ok(())
            }
            Frame::GoAway => {
                // Once is enough.
                if !core::mem::replace(&mut self.leaving, true) {
                    cx.events.push_back(Event::GoAway);
                }
                Ok(())
            }
            frame => match self.side {
                Side::Relay => self.handle_relay_frame(frame, cx),
                Side::Agent => self.handle_agent_frame(frame, cx),
            },
        }
    }

    /// The open stream of that number; `None` when it is finished, a fault when it never was.
    fn open_stream(&mut self, stream: u32) -> Result<Option<&mut Stream>, Fault> {
        if stream > self.highest {
            return Err(Fault::protocol("frame on a stream that was never opened"));
        }
        Ok(self.streams.get_mut(&stream).map(|open| &mut **open))
    }

    /// Whether `more` bytes of unfinished bodies fit.
    fn may_assemble(&self, more: usize) -> bool {
        self.assembled.saturating_add(more) <= MAX_ASSEMBLY
    }
}

/// Streams.
impl V2 {
    fn send_message(&mut self, stream: u32, json: Bytes, droppable: bool, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let Some(open) = self.streams.get(&stream) else { return Ok(()) };
        if open.outgoing.is_answered() || json.is_empty() {
            return Ok(());
        }
        if json.len() > MAX_CALL_MESSAGE {
            if droppable {
                return Ok(());
            }
            return self.give_up(stream, ResetCode::TooLarge, "a message of the call is too large", cx);
        }
        match self.change(stream, cx.now, |outgoing| outgoing.push_message(json, droppable)) {
            Some(Err(_)) => self.give_up(stream, ResetCode::Overloaded, "too many messages wait in the call", cx),
            Some(Ok(())) | None => self.bound_buffers(cx),
        }
    }

    /// Ends a stream by order of the owner.
    fn cancel(&mut self, stream: u32, code: ResetCode, reason: String) -> Result<(), Fault> {
        match self.remove(stream) {
            Some(gone) if gone.outgoing.is_opened() => self.order(Frame::Reset { stream, code, reason }),
            Some(_) | None => Ok(()),
        }
    }

    /// Ends a stream because a limit was hit: both the peer and the owner are told.
    fn give_up(&mut self, stream: u32, code: ResetCode, reason: &str, cx: &mut Cx<'_>) -> Result<(), Fault> {
        tracing::debug!(call = stream, ?code, reason, "call given up");
        self.cancel(stream, code, reason.into())?;
        cx.events.push_back(Event::Reset { stream: StreamId(stream), code, reason: reason.into() });
        Ok(())
    }

    fn remove(&mut self, stream: u32) -> Option<Box<Stream>> {
        let gone = self.streams.remove(&stream)?;
        self.rotation.leave(stream);
        self.stalls.clear(&stream);
        self.credits.remove(&stream);
        self.buffered -= gone.outgoing.waiting();
        self.assembled -= gone.incoming.assembled();
        Some(gone)
    }

    /// Changes what a stream has to send, and what follows from it: its turn, its stall, the sum.
    fn change<R>(&mut self, stream: u32, now: Instant, change: impl FnOnce(&mut Outgoing) -> R) -> Option<R> {
        let outgoing = &mut self.streams.get_mut(&stream)?.outgoing;
        let before = outgoing.waiting();
        let result = change(outgoing);
        self.buffered = self.buffered - before + outgoing.waiting();
        if outgoing.is_ready() {
            self.rotation.join(stream);
        } else {
            self.rotation.leave(stream);
        }
        if !outgoing.is_stalled() {
            self.stalls.clear(&stream);
        } else if self.stalls.get(&stream).is_none() {
            self.stalls.set(stream, now + STALL_TIMEOUT);
        }
        Some(result)
    }

    /// Gives up the largest streams until what waits is within its bound.
    fn bound_buffers(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        while self.buffered > MAX_BUFFERED {
            let largest = self.streams.iter().max_by_key(|(_, stream)| stream.outgoing.waiting());
            let Some((&stream, _)) = largest else { return Ok(()) };
            self.give_up(stream, ResetCode::Overloaded, "too much waits to be sent", cx)?;
        }
        Ok(())
    }

    /// What the peer takes, as far as is known.
    fn theirs(&self) -> Terms {
        self.peer.unwrap_or_else(|| Terms::of(&Hello::default()))
    }
}

/// What a side takes. Nothing else of its hello is kept: most tunnels wait most of the time.
#[derive(Debug, Clone, Copy)]
struct Terms {
    /// The largest body.
    max_body: u64,
    /// How many streams.
    max_streams: usize,
}

impl Terms {
    fn of(hello: &Hello) -> Self {
        let most = u64::try_from(MAX_MESSAGE).unwrap_or(u64::MAX);
        let max_body = match hello.max_message {
            0 => most,
            said => said.min(most),
        };
        let max_streams = match hello.max_streams {
            0 => MAX_STREAMS,
            said => usize::try_from(said).unwrap_or(usize::MAX).min(MAX_STREAMS),
        };
        Self { max_body, max_streams }
    }
}

/// Sending.
impl V2 {
    /// Queues a control frame.
    fn order(&mut self, frame: Frame) -> Result<(), Fault> {
        if self.control.len() >= MAX_CONTROL {
            return Err(Fault::protocol("peer orders and does not read"));
        }
        self.control.push_back(frame);
        Ok(())
    }

    fn write_control(&mut self, out: &mut Vec<u8>, cx: &mut Cx<'_>) {
        while out.len() < MAX_TRANSMIT {
            let Some(frame) = self.control.pop_front() else {
                if self.streams.is_empty() {
                    // What waits holds nothing.
                    self.control = VecDeque::new();
                }
                break;
            };
            frame.encode(out);
        }
        if let Some(token) = self.pong.take() {
            Frame::Pong(token).encode(out);
        }
        if let Some(token) = cx.keepalive.take_ping(cx.now) {
            Frame::Ping(token).encode(out);
        }
        while out.len() < MAX_TRANSMIT {
            let Some(stream) = self.credits.pop_first() else { break };
            let bytes = self.settle(stream);
            if bytes > 0 {
                Frame::Credit { stream, bytes }.encode(out);
            }
        }
    }

    fn write_streams(&mut self, out: &mut Vec<u8>, now: Instant) {
        loop {
            let room = MAX_TRANSMIT.saturating_sub(out.len());
            if room < LEAST_ROOM {
                return;
            }
            let Some(stream) = self.rotation.next() else { return };
            // A chunk each in turn; a stream that is alone keeps nobody waiting.
            let room = if self.rotation.is_empty() { room } else { room.min(CHUNK) };
            if stream == CONNECTION {
                self.write_announcements(room, out);
            } else {
                self.write_stream(stream, room, out, now);
            }
        }
    }

    fn write_announcements(&mut self, room: usize, out: &mut Vec<u8>) {
        if let Some(frame) = self.announcements.next(room - PIECE_HEADER) {
            frame.encode(out);
        }
        if !self.announcements.is_empty() {
            self.rotation.join(CONNECTION);
        }
    }

    fn write_stream(&mut self, stream: u32, room: usize, out: &mut Vec<u8>, now: Instant) {
        let sent = self.change(stream, now, |outgoing| {
            let end = out.len() + room;
            while let Some(left) = end.checked_sub(out.len()).filter(|left| *left >= LEAST_ROOM) {
                let Some(frame) = outgoing.next(stream, left - PIECE_HEADER) else { break };
                frame.encode(out);
            }
            outgoing.is_answer_sent()
        });
        if sent == Some(true) {
            self.remove(stream);
        }
    }
}

/// The stream of what belongs to no call.
const CONNECTION: u32 = 0;
/// Less room than this is not worth a piece: it waits for the next turn or message.
const LEAST_ROOM: usize = 1024;
/// What the heads of a small call's frames take.
const ROOM_FOR_HEADS: usize = 256;
/// A frame's header and a piece's flag.
const PIECE_HEADER: usize = HEADER + 1;

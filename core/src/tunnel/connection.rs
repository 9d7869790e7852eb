//! The connection: one tunnel's protocol, without its socket.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use crate::host::MonotonicClamp;
use crate::limits::{CLOSE_TIMEOUT, DIAL_TIMEOUT};
use crate::time::{Deadline, Instant, Now};
use crate::tunnel::close::Fault;
use crate::tunnel::keepalive::{Keepalive, Verdict};
use crate::tunnel::load::Load;
use crate::tunnel::v1::{self, V1Agent, V1Relay};
use crate::tunnel::v2::V2;
use crate::tunnel::{Close, CloseCode, Command, Dialect, Event, Hello, Message, Side};

/// How a connection is made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which side this is.
    pub side: Side,
    /// What the upgrade's headers decided.
    pub dialect: Dialect,
    /// What this side tells of itself. Its limits bind the peer.
    pub hello: Hello,
}

/// One tunnel's protocol. The task that owns the socket drives it:
///
/// 1. hand in one input: [`handle_message`](Self::handle_message), [`handle_command`](Self::handle_command),
///    [`handle_timeout`](Self::handle_timeout), or [`handle_gone`](Self::handle_gone) when the socket ended or broke;
/// 2. take [`poll_event`](Self::poll_event) to `None` and bring the events to the owner;
/// 3. while the socket is writable, send what [`poll_transmit`](Self::poll_transmit) gives, to `None`;
/// 4. when [`is_closed`](Self::is_closed), flush and drop the socket; else sleep until
///    [`poll_timeout`](Self::poll_timeout), or until the next input.
///
/// ```text
///            the peer's hello               Close ordered, fault, silence
///  Greeting ──────────────────► Up ──────────────────────────────────────► Closing
///     │                         │ ▲                                          │
///     │ as from Up              │ └ V1 begins here      closing frame taken, │
///     │                         │                       or CLOSE_TIMEOUT     │
///     │  the peer's close, gone │  the peer's close, gone                    ▼
///     └─────────────────────────┴────────────────────────────────────────► Over
/// ```
///
/// [`Event::Closed`] is given on leaving `Up` (or `Greeting`), and nothing after it.
#[derive(Debug)]
pub struct Connection {
    state: State,
    speaker: Speaker,
    keepalive: Keepalive,
    clamp: MonotonicClamp,
    events: VecDeque<Event>,
    /// The payload of the last WebSocket ping that is not answered yet (RFC 6455 section 5.5.3 allows to skip others).
    pong: Option<bytes::Bytes>,
}

#[derive(Debug)]
enum State {
    /// Waits for the peer's hello (V2).
    Greeting { until: Instant },
    /// In use.
    Up,
    /// The owner was told of the end; the closing frame waits for the socket.
    Closing { close: Close, until: Instant },
    /// Nothing is taken or given any more.
    Over,
}

#[derive(Debug)]
enum Speaker {
    V2(Box<V2>),
    V1Relay(Box<V1Relay>),
    V1Agent(Box<V1Agent>),
}

/// What the dialects work with while one input is handled.
pub(super) struct Cx<'a> {
    pub(super) now: Instant,
    pub(super) events: &'a mut VecDeque<Event>,
    pub(super) keepalive: &'a mut Keepalive,
}

impl Connection {
    /// A connection whose WebSocket handshake is done.
    #[must_use]
    pub fn new(settings: Settings, now: Now) -> Self {
        let Settings { side, dialect, hello } = settings;
        let mut clamp = MonotonicClamp::default();
        let now = clamp.clamp(now).instant;
        let mut events = VecDeque::new();
        let (state, speaker) = match dialect {
            Dialect::V2 => (State::Greeting { until: now + DIAL_TIMEOUT }, Speaker::V2(Box::new(V2::new(side, hello)))),
            Dialect::V1 => {
                events.push_back(Event::Up(v1::assumed_hello()));
                let speaker = match side {
                    Side::Relay => Speaker::V1Relay(Box::default()),
                    Side::Agent => Speaker::V1Agent(Box::default()),
                };
                (State::Up, speaker)
            }
        };
        let keepalive = Keepalive::new(side, dialect, now);
        Self { state, speaker, keepalive, clamp, events, pong: None }
    }

    /// Takes in a message that was read from the socket.
    pub fn handle_message(&mut self, message: Message, now: Now) {
        let now = self.clamp.clamp(now).instant;
        if let Message::Close(close) = message {
            return self.move_to_over(close);
        }
        if !self.is_in_use() {
            return;
        }
        self.keepalive.heard(now);
        let mut cx = Cx { now, events: &mut self.events, keepalive: &mut self.keepalive };
        let result = match message {
            Message::Ping(payload) => {
                self.pong = Some(payload);
                Ok(())
            }
            Message::Pong(payload) => {
                cx.pong(&payload);
                Ok(())
            }
            Message::Text(_) | Message::Binary(_) => self.speaker.handle_message(message, &mut cx),
            Message::Close(_) => Ok(()),
        };
        match result {
            Ok(()) if self.speaker.is_up() => self.state = State::Up,
            Ok(()) => {}
            Err(fault) => self.fail(fault, now),
        }
    }

    /// Takes in an order of the owner. One that does not fit (a stream that is gone) is dropped.
    pub fn handle_command(&mut self, command: Command, now: Now) {
        let now = self.clamp.clamp(now).instant;
        if !self.is_in_use() {
            return;
        }
        let mut cx = Cx { now, events: &mut self.events, keepalive: &mut self.keepalive };
        let result = match command {
            Command::Close(close) => return self.move_to_closing(close, now),
            Command::Probe => {
                self.keepalive.probe(now);
                Ok(())
            }
            command => self.speaker.handle_command(command, &mut cx),
        };
        if let Err(fault) = result {
            self.fail(fault, now);
        }
    }

    /// Fires what is due. Early and repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Now) {
        let now = self.clamp.clamp(now).instant;
        match &self.state {
            State::Over => return,
            State::Closing { until, .. } => {
                if *until <= now {
                    self.state = State::Over;
                }
                return;
            }
            State::Greeting { until } if *until <= now => {
                return self.move_to_closing(Close::new(CloseCode::TimedOut, "no hello"), now);
            }
            State::Greeting { .. } | State::Up => {}
        }
        if self.keepalive.handle_timeout(now) == Verdict::Dead {
            return self.move_to_closing(Close::new(CloseCode::TimedOut, "no sign of life"), now);
        }
        let mut cx = Cx { now, events: &mut self.events, keepalive: &mut self.keepalive };
        if let Err(fault) = self.speaker.handle_timeout(&mut cx) {
            self.fail(fault, now);
        }
    }

    /// The socket's reader met a message longer than [`Dialect::max_receive`] and gave it up: nothing more is read, and
    /// the peer is told.
    pub fn handle_too_large(&mut self, now: Now) {
        let now = self.clamp.clamp(now).instant;
        if self.is_in_use() {
            self.fail(Fault::too_big("message too large"), now);
        }
    }

    /// The socket ended or broke without a closing handshake; `reason` is for people. The event carries code 1006,
    /// which RFC 6455 section 7.4.1 keeps for this.
    pub fn handle_gone(&mut self, reason: &str, _now: Now) {
        self.move_to_over(Close::new(CloseCode::Other(1006), reason));
    }

    /// The peer began a message that is longer than may be received, so that the socket cannot be read any further.
    pub fn handle_too_big(&mut self, _now: Now) {
        let reason = match self.speaker {
            // Here it is whole answers; V2 sends them in pieces.
            Speaker::V1Relay(_) | Speaker::V1Agent(_) => {
                let most = Dialect::V1.max_receive() / (1024 * 1024);
                alloc::format!("an answer was larger than {most} MiB, the most that dialect V1 carries")
            }
            Speaker::V2(_) => "a message was larger than any may be".into(),
        };
        self.move_to_over(Close::new(CloseCode::TooBig, reason));
    }

    /// The next event, oldest first. [`Event::Closed`] comes exactly once, and nothing after it.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if event.is_none() {
            // What waits holds nothing.
            self.events = VecDeque::new();
        }
        event
    }

    /// The next message to write; ask only while the socket is writable, since what to send is decided now.
    pub fn poll_transmit(&mut self, now: Now) -> Option<Message> {
        let now = self.clamp.clamp(now).instant;
        if matches!(self.state, State::Over) {
            return None;
        }
        if let Some(payload) = self.pong.take() {
            return Some(Message::Pong(payload));
        }
        let in_use = self.is_in_use();
        let mut cx = Cx { now, events: &mut self.events, keepalive: &mut self.keepalive };
        if let Some(message) = self.speaker.poll_transmit(in_use, &mut cx) {
            return Some(message);
        }
        match core::mem::replace(&mut self.state, State::Over) {
            State::Closing { close, until: _ } => Some(Message::Close(close)),
            other @ (State::Greeting { .. } | State::Up | State::Over) => {
                self.state = other;
                None
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let of_state = match &self.state {
            State::Over => return None,
            State::Closing { until, .. } => return Some(Deadline { at: *until, reason: "closing frame" }),
            State::Greeting { until } => Some(Deadline { at: *until, reason: "hello" }),
            State::Up => None,
        };
        let deadlines = [of_state, Some(self.keepalive.poll_timeout()), self.speaker.poll_timeout()];
        deadlines.into_iter().flatten().min_by_key(|deadline| deadline.at)
    }

    /// Whether the tunnel is over and nothing is left to send: flush and drop the socket.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// What this end holds, of dialect V2: for whoever checks that it keeps its limits.
    #[must_use]
    pub fn load(&self) -> Option<Load> {
        match &self.speaker {
            Speaker::V2(v2) => Some(v2.load()),
            Speaker::V1Relay(_) | Speaker::V1Agent(_) => None,
        }
    }

    fn is_in_use(&self) -> bool {
        match self.state {
            State::Greeting { .. } | State::Up => true,
            State::Closing { .. } | State::Over => false,
        }
    }

    fn fail(&mut self, fault: Fault, now: Instant) {
        tracing::warn!(code = fault.code.to_u16(), reason = fault.reason, "tunnel closed for a fault");
        self.move_to_closing(Close::new(fault.code, fault.reason), now);
    }

    fn move_to_closing(&mut self, close: Close, now: Instant) {
        assert!(self.is_in_use(), "a tunnel is closed once");
        let close = Close::new(close.code, close.reason);
        self.events.push_back(Event::Closed(close.clone()));
        self.state = State::Closing { close, until: now + CLOSE_TIMEOUT };
    }

    fn move_to_over(&mut self, close: Close) {
        if self.is_in_use() {
            self.events.push_back(Event::Closed(close));
        }
        self.state = State::Over;
    }
}

impl Connection {
    /// Whether it keeps nothing of any call, and nothing waits to be sent.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        match &self.speaker {
            Speaker::V2(v2) => v2.is_idle(),
            Speaker::V1Relay(v1) => v1.is_idle(),
            Speaker::V1Agent(v1) => v1.is_idle(),
        }
    }
}

impl Speaker {
    fn is_up(&self) -> bool {
        match self {
            Self::V2(v2) => v2.is_up(),
            Self::V1Relay(_) | Self::V1Agent(_) => true,
        }
    }

    /// Takes in a text or binary message.
    fn handle_message(&mut self, message: Message, cx: &mut Cx<'_>) -> Result<(), Fault> {
        match (self, message) {
            (Self::V2(v2), Message::Binary(bytes)) => v2.handle_message(bytes, cx),
            (Self::V2(_), _) => Err(Fault::protocol("text on a tunnel of frames")),
            (Self::V1Relay(v1), Message::Text(text)) => v1.handle_text(&text, cx),
            (Self::V1Agent(v1), Message::Text(text)) => v1.handle_text(&text, cx),
            (Self::V1Relay(_) | Self::V1Agent(_), _) => Err(Fault::protocol("binary message on a tunnel of text")),
        }
    }

    fn handle_command(&mut self, command: Command, cx: &mut Cx<'_>) -> Result<(), Fault> {
        match self {
            Self::V2(v2) => v2.handle_command(command, cx)?,
            Self::V1Relay(v1) => v1.handle_command(command, cx),
            Self::V1Agent(v1) => v1.handle_command(command),
        }
        Ok(())
    }

    fn handle_timeout(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        match self {
            Self::V2(v2) => v2.handle_timeout(cx)?,
            Self::V1Relay(v1) => v1.handle_timeout(cx),
            Self::V1Agent(v1) => v1.handle_timeout(cx),
        }
        Ok(())
    }

    fn poll_transmit(&mut self, in_use: bool, cx: &mut Cx<'_>) -> Option<Message> {
        match self {
            Self::V2(v2) => v2.poll_transmit(in_use, cx).map(Message::Binary),
            Self::V1Relay(v1) => v1.poll_transmit(in_use, cx),
            Self::V1Agent(v1) => v1.poll_transmit(in_use, cx),
        }
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        match self {
            Self::V2(v2) => v2.poll_timeout(),
            Self::V1Relay(v1) => v1.poll_timeout(),
            Self::V1Agent(v1) => v1.poll_timeout(),
        }
    }
}

impl Cx<'_> {
    /// A ping's token came back: tells the owner how long it took.
    pub(super) fn measured(&mut self, token: u64) {
        if let Some(took) = self.keepalive.pong(token, self.now) {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            self.events.push_back(Event::RoundTrip { micros });
        }
    }

    /// As [`measured`](Self::measured), of a WebSocket pong.
    fn pong(&mut self, payload: &[u8]) {
        if let Ok(token) = payload.try_into() {
            self.measured(u64::from_be_bytes(token));
        }
    }
}

impl Dialect {
    /// The largest WebSocket message that is taken: give it to the WebSocket library as its limit.
    #[must_use]
    pub const fn max_receive(self) -> usize {
        match self {
            Self::V1 => crate::limits::MAX_V1_MESSAGE,
            Self::V2 => crate::limits::MAX_RECEIVE,
        }
    }
}

//! The connection: one tunnel's protocol, without its socket.

use alloc::collections::VecDeque;

use crate::time::{Deadline, Now};
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
#[derive(Debug)]
pub struct Connection {
    settings: Settings,
    events: VecDeque<Event>,
}

impl Connection {
    /// A connection whose WebSocket handshake is done.
    #[must_use]
    pub fn new(settings: Settings, _now: Now) -> Self {
        Self { settings, events: VecDeque::new() }
    }

    /// Takes in a message that was read from the socket.
    pub fn handle_message(&mut self, _message: Message, _now: Now) {}

    /// Takes in an order of the owner. One that does not fit (a stream that is gone) is dropped.
    pub fn handle_command(&mut self, _command: Command, _now: Now) {}

    /// Fires what is due. Early and repeated calls are harmless.
    pub fn handle_timeout(&mut self, _now: Now) {}

    /// The socket ended or broke without a closing handshake; `reason` is for people.
    pub fn handle_gone(&mut self, reason: &str, _now: Now) {
        tracing::debug!(side = ?self.settings.side, "tunnel gone");
        self.events.push_back(Event::Closed(Close::new(CloseCode::Other(1006), reason)));
    }

    /// The next event, oldest first. [`Event::Closed`] comes exactly once, and nothing after it.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next message to write; ask only while the socket is writable, since what to send is decided now.
    pub fn poll_transmit(&mut self, _now: Now) -> Option<Message> {
        None
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        None
    }

    /// Whether the tunnel is over and nothing is left to send: flush and drop the socket.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        false
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

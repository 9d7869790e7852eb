//! The pump between a WebSocket and a tunnel's connection.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_std::future::timeout;
use async_std::task::sleep;
use async_tungstenite::WebSocketStream;
use futures_util::io::{AsyncRead, AsyncWrite};
use futures_util::{AsyncReadExt as _, Sink, SinkExt as _, Stream as _, StreamExt as _};
use tungstenite::Error as WsError;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::{CloseFrame, Message as WsMessage, Role, WebSocketConfig};
use tunnel_core::limits::MAX_TRANSMIT;
use tunnel_core::time::Now;
use tunnel_core::tunnel::connection::Connection;
use tunnel_core::tunnel::{Close, CloseCode, Command, Dialect, Event, Message};

use crate::clock::Clock;
use crate::queue::Queue;

/// Runs `connection` over `socket` until the tunnel is over: reads messages, carries out `commands` in order, brings
/// events to `on_events`, and asks for the next message to send only while the socket takes one. Closes `commands`.
pub async fn pump<S>(
    mut socket: WebSocketStream<S>,
    connection: Connection,
    commands: &Queue<Command>,
    clock: Clock,
    on_events: impl FnMut(std::vec::Drain<'_, Event>),
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let timer = Timer::until(Instant::now());
    let mut pump = Pump {
        socket: &mut socket,
        connection,
        commands,
        clock,
        on_events,
        events: Vec::new(),
        timer,
        broken: false,
        deaf: false,
    };
    std::future::poll_fn(|cx| pump.poll(cx)).await;
    let (broken, deaf) = (pump.broken, pump.deaf);
    commands.close();
    if !broken {
        // The closing handshake: what was written must get out before the socket is dropped, or a reset could
        // overtake it. A peer that does not answer is not waited for.
        let last_words = async {
            let _ = socket.flush().await;
            while !deaf && let Some(Ok(_)) = socket.next().await {}
            // Bytes that nobody reads would take them back.
            let mut rest = if deaf { vec![0; READ_BUFFER] } else { Vec::new() };
            while deaf && matches!(socket.get_mut().read(&mut rest).await, Ok(1..)) {}
        };
        let _ = timeout(LINGER, last_words).await;
    }
}

struct Pump<'a, S, F> {
    socket: &'a mut WebSocketStream<S>,
    connection: Connection,
    commands: &'a Queue<Command>,
    clock: Clock,
    on_events: F,
    /// What one step brought, handed over together: one lock for all of them.
    events: Vec<Event>,
    timer: Timer,
    /// The socket ended: it is neither read nor written any more.
    broken: bool,
    /// The peer said too much at once: it is not read any more.
    deaf: bool,
}

impl<S, F> Pump<'_, S, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: FnMut(std::vec::Drain<'_, Event>),
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.clock.now();
        while let Poll::Ready(Some(command)) = self.commands.poll_pop(cx) {
            self.connection.handle_command(command, now);
        }
        if self.connection.poll_timeout().is_some_and(|deadline| deadline.at <= now.instant) {
            self.connection.handle_timeout(now);
        }
        let more = self.read(cx, now);
        self.bring_events();
        if let Err(error) = self.write(cx, now) {
            self.lose(&error, now);
        }
        // Writing may have ended it.
        self.bring_events();
        if self.connection.is_closed() {
            return Poll::Ready(());
        }
        if more {
            cx.waker().wake_by_ref();
        }
        self.arm(cx);
        Poll::Pending
    }

    /// Reads what is there, a bounded number of messages, so that a busy peer leaves room for writing. `true`: there
    /// may be more.
    fn read(&mut self, cx: &mut Context<'_>, now: Now) -> bool {
        for _ in 0..READS_AT_ONCE {
            if self.broken || self.deaf {
                return false;
            }
            match Pin::new(&mut *self.socket).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    if let Some(message) = from_wire(message) {
                        self.connection.handle_message(message, now);
                    }
                }
                Poll::Ready(Some(Err(error))) => self.lose(&error, now),
                Poll::Ready(None) => self.lose(&WsError::ConnectionClosed, now),
                Poll::Pending => return false,
            }
        }
        true
    }

    /// Writes while the socket takes it.
    fn write(&mut self, cx: &mut Context<'_>, now: Now) -> Result<(), WsError> {
        while !self.broken {
            match Pin::new(&mut *self.socket).poll_ready(cx)? {
                Poll::Pending => return Ok(()),
                Poll::Ready(()) => {}
            }
            let Some(message) = self.connection.poll_transmit(now) else { break };
            if let Some(message) = to_wire(message) {
                Pin::new(&mut *self.socket).start_send(message)?;
            }
        }
        if !self.broken {
            let _ = Pin::new(&mut *self.socket).poll_flush(cx)?;
        }
        Ok(())
    }

    fn bring_events(&mut self) {
        self.events.extend(std::iter::from_fn(|| self.connection.poll_event()));
        if !self.events.is_empty() {
            (self.on_events)(self.events.drain(..));
        }
    }

    fn lose(&mut self, error: &WsError, now: Now) {
        if let WsError::Capacity(_) = error {
            // The rest of such a message is not looked at; the socket still takes a last word.
            self.deaf = true;
            return self.connection.handle_too_large(now);
        }
        self.broken = true;
        let reason = match error {
            WsError::ConnectionClosed | WsError::AlreadyClosed => "the connection ended".into(),
            WsError::Capacity(_) => return self.connection.handle_too_big(now),
            WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => "the connection broke".into(),
            WsError::Io(error) => error.to_string(),
            // What the library refuses of the peer; it hears of it by the reset.
            other => other.to_string(),
        };
        self.connection.handle_gone(&reason, now);
    }

    /// Sleeps until the connection's deadline.
    fn arm(&mut self, cx: &mut Context<'_>) {
        let Some(deadline) = self.connection.poll_timeout() else { return };
        let at = self.clock.to_host(deadline.at);
        if self.timer.deadline != at {
            self.timer = Timer::until(at);
        }
        if self.timer.sleep.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}

/// A sleep that knows its end.
struct Timer {
    deadline: Instant,
    sleep: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Timer {
    fn until(deadline: Instant) -> Self {
        Self { deadline, sleep: Box::pin(sleep(deadline.saturating_duration_since(Instant::now()))) }
    }
}

/// A WebSocket over a connection whose handshake was made elsewhere; `read` is what was read past it.
pub async fn accepted<S>(stream: S, read: &[u8], dialect: Dialect) -> WebSocketStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    WebSocketStream::from_partially_read(stream, read.to_vec(), Role::Server, Some(config(dialect))).await
}

/// Memory per connection and what is taken from the peer.
fn config(dialect: Dialect) -> WebSocketConfig {
    WebSocketConfig::default()
        // Allocated at once for every connection; the default would cost an idle agent 128 KiB.
        .read_buffer_size(READ_BUFFER)
        // Each message goes to the socket at once: a message that waits here could not be overtaken any more.
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_TRANSMIT.max(dialect.max_receive()) * 2)
        .max_message_size(Some(dialect.max_receive()))
        .max_frame_size(Some(dialect.max_receive()))
}

fn from_wire(message: WsMessage) -> Option<Message> {
    Some(match message {
        WsMessage::Text(text) => Message::Text(text.into()),
        WsMessage::Binary(bytes) => Message::Binary(bytes),
        WsMessage::Ping(bytes) => Message::Ping(bytes),
        WsMessage::Pong(bytes) => Message::Pong(bytes),
        // A close without a code is 1005 in the protocol's own words (RFC 6455 section 7.1.5).
        WsMessage::Close(frame) => Message::Close(frame.map_or_else(
            || Close::new(CloseCode::from_u16(1005), ""),
            |frame| Close::new(CloseCode::from_u16(frame.code.into()), frame.reason.as_str()),
        )),
        // Never read, only written.
        WsMessage::Frame(_) => return None,
    })
}

fn to_wire(message: Message) -> Option<WsMessage> {
    Some(match message {
        // The connection promises UTF-8.
        Message::Text(bytes) => WsMessage::Text(bytes.try_into().ok()?),
        Message::Binary(bytes) => WsMessage::Binary(bytes),
        Message::Ping(bytes) => WsMessage::Ping(bytes),
        // The library answers pings by itself.
        Message::Pong(_) => return None,
        Message::Close(close) => WsMessage::Close(close_frame(&close)),
    })
}

/// Codes that must not be sent (RFC 6455 section 7.4.1) become a close without a code.
fn close_frame(close: &Close) -> Option<CloseFrame> {
    let code = close.code.to_u16();
    let sendable = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    sendable.then(|| CloseFrame { code: code.into(), reason: close.reason.as_str().into() })
}

/// How long the closing handshake may take.
const LINGER: Duration = Duration::from_secs(1);
/// Messages read in a row.
const READS_AT_ONCE: usize = 32;
/// What one connection's reading costs while it is idle.
const READ_BUFFER: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use async_std::channel::{Receiver, Sender, unbounded};
    use async_std::net::{TcpListener, TcpStream};
    use async_tungstenite::{accept_async_with_config, client_async_with_config};
    use bytes::Bytes;
    use tunnel_core::id::StreamId;
    use tunnel_core::tunnel::connection::Settings;
    use tunnel_core::tunnel::{Hello, OpenHead, Outcome, Side};

    /// One end of a tunnel whose pump runs in a task.
    struct End {
        commands: Queue<Command>,
        events: Receiver<Event>,
    }

    impl End {
        fn start(socket: WebSocketStream<TcpStream>, side: Side) -> Self {
            let clock = Clock::new();
            let hello = Hello { max_message: 64 << 20, max_streams: 64, ..Hello::default() };
            let connection = Connection::new(Settings { side, dialect: Dialect::V2, hello }, clock.now());
            let commands = Queue::new();
            let (brought, events): (Sender<Event>, _) = unbounded();
            let queue = commands.clone();
            async_std::task::spawn(async move {
                pump(socket, connection, &queue, clock, |events| {
                    events.for_each(|event| drop(brought.try_send(event)));
                })
                .await;
            });
            Self { commands, events }
        }

        /// The next event that is not about the tunnel's health.
        async fn next(&self) -> Event {
            loop {
                let event = timeout(Duration::from_secs(10), self.events.recv()).await.expect("comes soon");
                match event.expect("the pump runs") {
                    Event::RoundTrip { .. } => {}
                    event => return event,
                }
            }
        }

        fn order(&self, command: Command) {
            assert!(self.commands.send(command), "the pump runs");
        }
    }

    /// A relay's end and an agent's end that know each other, over a real WebSocket on loopback.
    async fn tunnel() -> (End, End) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let accepting = async_std::task::spawn(async move {
            let (stream, _) = listener.accept().await.expect("accepts");
            accept_async_with_config(stream, Some(config(Dialect::V2))).await.expect("shakes hands")
        });
        let stream = TcpStream::connect(address).await.expect("connects");
        let dialed = client_async_with_config(format!("ws://{address}/ws"), stream, Some(config(Dialect::V2))).await;
        let (relay, agent) =
            (End::start(accepting.await, Side::Relay), End::start(dialed.expect("shakes hands").0, Side::Agent));
        assert!(matches!(relay.next().await, Event::Up(_)));
        assert!(matches!(agent.next().await, Event::Up(_)));
        (relay, agent)
    }

    #[test]
    fn call_and_its_large_answer_cross_a_real_socket() {
        async_std::task::block_on(async {
            let (relay, agent) = tunnel().await;
            let head =
                OpenHead { server: "server".into(), method: "tools/call".into(), length: 2, ..OpenHead::default() };
            let stream = StreamId(1);
            relay.order(Command::Open { stream, head, params: Bytes::from_static(b"{}"), v1_tool: None });
            assert!(matches!(agent.next().await, Event::Call { stream: StreamId(1), .. }));
            let body = Bytes::from(vec![b'x'; 3_000_000]);
            agent.order(Command::Answer { stream, outcome: Outcome::Result, body: body.clone() });
            let mut taken = 0;
            loop {
                if let Event::Data { bytes, end, .. } = relay.next().await {
                    taken += bytes.len();
                    relay.order(Command::Consumed { stream, bytes: bytes.len() as u32 });
                    if end {
                        break;
                    }
                }
            }
            assert_eq!(taken, body.len());
        });
    }

    #[test]
    fn close_reaches_the_peer_with_its_words_and_ends_both_pumps() {
        async_std::task::block_on(async {
            let (relay, agent) = tunnel().await;
            let close = Close::new(CloseCode::Replaced, "another one came");
            relay.order(Command::Close(close.clone()));
            assert_eq!(relay.next().await, Event::Closed(close.clone()));
            assert_eq!(agent.next().await, Event::Closed(close));
            assert!(relay.events.recv().await.is_err());
            assert!(agent.events.recv().await.is_err());
            assert!(!relay.commands.send(Command::Probe) && !agent.commands.send(Command::Probe));
        });
    }
}

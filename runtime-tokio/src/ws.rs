//! The pump between a WebSocket and a tunnel's connection, and the dialling of one.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_tungstenite::{WebSocketStream, client_async_with_config};
use bytes::Bytes;
use futures_util::io::{AsyncRead, AsyncWrite};
use futures_util::{AsyncReadExt as _, Sink, SinkExt as _, Stream as _, StreamExt as _};
use http::header::{
    CONNECTION, HOST, RETRY_AFTER, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use tungstenite::Error as WsError;
use tungstenite::error::ProtocolError;
use tungstenite::handshake::client::generate_key;
use tungstenite::protocol::{CloseFrame, Message as WsMessage, Role, WebSocketConfig};
use tunnel_core::agent::machine::DialError;
use tunnel_core::limits::{DIAL_TIMEOUT, MAX_TRANSMIT};
use tunnel_core::time::Now;
use tunnel_core::tunnel::connection::Connection;
use tunnel_core::tunnel::{Close, CloseCode, Command, Dialect, Event, Message};

use crate::ahead::Ahead;
use crate::clock::Clock;
use crate::net::{Connector, Target};
use crate::queue::Queue;
use crate::rt::{self, Sleep, WsIo, sleep_until, timeout};
use crate::stream::Stream;

/// Runs `connection` over `socket` until the tunnel is over: reads messages, carries out `commands` in order, brings
/// events to `on_events`, and asks for the next message to send only while the socket takes one. It reads only while
/// `room` is ready. Closes `commands`.
///
/// (Not an `async fn`, whose future has its arguments twice: a relay keeps thousands of these.)
pub fn pump<S>(
    socket: WebSocketStream<S>,
    connection: Connection,
    commands: Queue<Command>,
    clock: Clock,
    room: impl FnMut(&mut Context<'_>) -> Poll<()>,
    on_events: impl FnMut(std::vec::Drain<'_, Event>),
) -> impl Future<Output = ()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let timer = Box::pin(sleep_until(clock.to_host(clock.now().instant)));
    let mut pump = Pump { socket, connection, commands, clock, room, on_events, timer, broken: false, deaf: false };
    async move {
        std::future::poll_fn(|cx| pump.poll(cx)).await;
        pump.commands.close();
        if !pump.broken {
            // Apart: else each tunnel had room for it all its life.
            let _ = Box::pin(timeout(LINGER, pump.last_words())).await;
        }
    }
}

struct Pump<S, R, F> {
    socket: WebSocketStream<S>,
    connection: Connection,
    commands: Queue<Command>,
    clock: Clock,
    room: R,
    on_events: F,
    timer: Pin<Box<Sleep>>,
    /// The socket ended: it is neither read nor written any more.
    broken: bool,
    /// The peer said too much at once: it is not read any more.
    deaf: bool,
}

impl<S, R, F> Pump<S, R, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    R: FnMut(&mut Context<'_>) -> Poll<()>,
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
        // What one step brought, handed over together: one lock for all of it.
        let mut events = Vec::new();
        let more = self.read(cx, now, &mut events);
        self.bring_events(events);
        if let Err(error) = self.write(cx, now) {
            self.lose(&error, now);
        }
        // Writing may have ended it.
        self.bring_events(Vec::new());
        if self.connection.is_closed() {
            return Poll::Ready(());
        }
        if more {
            cx.waker().wake_by_ref();
        }
        self.arm(cx);
        Poll::Pending
    }

    /// Reads what is there, a bounded number of messages and of events that they bring, so that a busy peer leaves room
    /// for writing, and what it said is counted before there is more. `true`: there may be more.
    fn read(&mut self, cx: &mut Context<'_>, now: Now, events: &mut Vec<Event>) -> bool {
        for _ in 0..READS_AT_ONCE {
            if self.broken || self.deaf || (self.room)(cx).is_pending() {
                return false;
            }
            match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    if let Some(message) = from_wire(message) {
                        self.connection.handle_message(message, now);
                    }
                    events.extend(std::iter::from_fn(|| self.connection.poll_event()));
                    if events.len() >= EVENTS_AT_ONCE {
                        return true;
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
            match Pin::new(&mut self.socket).poll_ready(cx)? {
                Poll::Pending => return Ok(()),
                Poll::Ready(()) => {}
            }
            let Some(message) = self.connection.poll_transmit(now) else { break };
            if let Some(message) = to_wire(message) {
                Pin::new(&mut self.socket).start_send(message)?;
            }
        }
        if !self.broken {
            let _ = Pin::new(&mut self.socket).poll_flush(cx)?;
        }
        Ok(())
    }

    /// The closing handshake: what was written must get out before the socket is dropped, or a reset could overtake it. A
    /// peer that does not answer is not waited for.
    async fn last_words(&mut self) {
        let Self { socket, deaf, .. } = self;
        let _ = socket.flush().await;
        while !*deaf && let Some(Ok(_)) = socket.next().await {}
        // Bytes that nobody reads would take them back.
        let mut rest = if *deaf { vec![0; READ_BUFFER] } else { Vec::new() };
        while *deaf && matches!(socket.get_mut().read(&mut rest).await, Ok(1..)) {}
    }

    /// Brings these and what else happened.
    fn bring_events(&mut self, mut events: Vec<Event>) {
        events.extend(std::iter::from_fn(|| self.connection.poll_event()));
        if !events.is_empty() {
            (self.on_events)(events.drain(..));
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
        if self.timer.deadline() != at {
            self.timer.as_mut().reset(at);
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}

/// Connects to `url` and makes the WebSocket handshake with `headers`; returns what the relay speaks.
///
/// # Errors
/// Why there is no tunnel.
pub async fn dial(
    connector: &Connector,
    url: &str,
    headers: HeaderMap,
) -> Result<(WebSocketStream<Ahead<WsIo<Stream>>>, Dialect), DialError> {
    timeout(DIAL_TIMEOUT, dial_unbounded(connector, url, headers)).await.unwrap_or(Err(DialError::TimedOut))
}

async fn dial_unbounded(
    connector: &Connector,
    url: &str,
    headers: HeaderMap,
) -> Result<(WebSocketStream<Ahead<WsIo<Stream>>>, Dialect), DialError> {
    let failed = |error: String| DialError::Connect(error);
    let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| failed(error.to_string()))?;
    let target = Target::of(&uri).map_err(failed)?;
    let request = upgrade_request(uri, headers).map_err(|error| failed(error.to_string()))?;
    let stream = connector.connect(&target).await.map_err(|error| failed(error.to_string()))?;
    // What is spoken is known only from the answer, so the wider limits hold; the connection has its own.
    let (socket, response) =
        client_async_with_config(request, Ahead::new(rt::ws_io(stream)), Some(config(Dialect::V1)))
            .await
            .map_err(dial_error)?;
    Ok((socket, Dialect::of_upgrade(response.headers())))
}

/// A WebSocket over a connection whose handshake was made elsewhere; `read` is what was read past it.
pub async fn accepted<S>(stream: S, read: Bytes, dialect: Dialect) -> WebSocketStream<Ahead<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = Ahead::new(stream);
    WebSocketStream::from_partially_read(stream, read.to_vec(), Role::Server, Some(config(dialect))).await
}

/// Memory per connection and what is taken from the peer.
fn config(dialect: Dialect) -> WebSocketConfig {
    WebSocketConfig::default()
        // Allocated at once for every connection, and kept.
        .read_buffer_size(READ_BUFFER)
        // Small messages of one step go to the socket in one write. More would wait here where nothing can overtake it.
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_TRANSMIT.max(dialect.max_receive()) * 2)
        .max_message_size(Some(dialect.max_receive()))
        .max_frame_size(Some(dialect.max_receive()))
}

fn upgrade_request(uri: Uri, headers: HeaderMap) -> Result<Request<()>, http::Error> {
    let host = uri.authority().map_or("", |authority| authority.as_str()).to_owned();
    let mut request = Request::builder().uri(uri).body(())?;
    *request.headers_mut() = headers;
    let own = [
        (HOST, HeaderValue::from_str(&host)?),
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
        (SEC_WEBSOCKET_KEY, HeaderValue::from_str(&generate_key())?),
    ];
    request.headers_mut().extend(own);
    Ok(request)
}

fn dial_error(error: WsError) -> DialError {
    match error {
        WsError::Http(response) => status_error(&response),
        other => DialError::Connect(other.to_string()),
    }
}

fn status_error(response: &Response<Option<Vec<u8>>>) -> DialError {
    let headers = response.headers();
    let body = response.body().as_deref().unwrap_or_default();
    let challenges: Vec<_> = headers.get_all(WWW_AUTHENTICATE).iter().map(HeaderValue::as_bytes).collect();
    let challenge = plain(&challenges.join(&b", "[..]));
    DialError::Status {
        status: response.status().as_u16(),
        retry_after: headers.get(RETRY_AFTER).and_then(|value| Some(value.to_str().ok()?.to_owned())),
        // The body is known only as far as it came along with the head; the challenge says as much as a relay's body.
        message: if body.is_empty() { challenge.clone() } else { plain(body) },
        challenge,
    }
}

/// The beginning of what a relay says, without control characters.
fn plain(words: &[u8]) -> String {
    let text = String::from_utf8_lossy(words.get(..MAX_ERROR_TEXT).unwrap_or(words)).into_owned();
    text.chars().filter(|c| !c.is_control()).collect()
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
/// Events that are enough to be brought before more is read: small frames come by the ten thousand in one message.
const EVENTS_AT_ONCE: usize = 1024;
/// What one connection's reading costs while it is idle. Where there is more, it is read [ahead](crate::ahead).
const READ_BUFFER: usize = 512;
/// What is gathered before it is written: one frame's body, so that a large answer's pieces go out one by one.
const WRITE_BUFFER: usize = 16 * 1024;
/// How much of a refusal's text is kept.
const MAX_ERROR_TEXT: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::{self, AsyncReadExt, AsyncWriteExt, TcpListener, UnixStream};
    use tokio::sync::mpsc;
    use tunnel_core::id::StreamId;
    use tunnel_core::limits::STREAM_CREDIT;
    use tunnel_core::tunnel::connection::Settings;
    use tunnel_core::tunnel::{Hello, OpenHead, Outcome, Side};

    /// One end of a tunnel whose pump runs in a task.
    struct End {
        commands: Queue<Command>,
        events: mpsc::UnboundedReceiver<Event>,
    }

    impl End {
        fn start(socket: WebSocketStream<Ahead<WsIo<UnixStream>>>, side: Side) -> Self {
            let clock = Clock::new();
            let hello = Hello { max_message: 64 << 20, max_streams: 64, ..Hello::default() };
            let connection = Connection::new(Settings { side, dialect: Dialect::V2, hello }, clock.now());
            let commands = Queue::new();
            let (brought, events) = mpsc::unbounded_channel();
            let queue = commands.clone();
            rt::spawn(async move {
                pump(
                    socket,
                    connection,
                    queue,
                    clock,
                    |_| Poll::Ready(()),
                    |events| events.for_each(|event| drop(brought.send(event))),
                )
                .await;
            });
            Self { commands, events }
        }

        /// The next event that is not about the tunnel's health.
        async fn next(&mut self) -> Event {
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

    async fn sockets() -> [WebSocketStream<Ahead<WsIo<UnixStream>>>; 2] {
        let (one, other) = UnixStream::pair().expect("sockets");
        let other = Ahead::new(rt::ws_io(other));
        let client = WebSocketStream::from_raw_socket(other, Role::Client, Some(config(Dialect::V2)));
        [accepted(rt::ws_io(one), Bytes::new(), Dialect::V2).await, client.await]
    }

    /// A relay's end and an agent's end that know each other.
    async fn tunnel() -> (End, End) {
        let [one, other] = sockets().await;
        let (mut relay, mut agent) = (End::start(one, Side::Relay), End::start(other, Side::Agent));
        assert!(matches!(relay.next().await, Event::Up(_)));
        assert!(matches!(agent.next().await, Event::Up(_)));
        (relay, agent)
    }

    fn open(stream: u32) -> Command {
        let head = OpenHead { server: "server".into(), method: "tools/call".into(), length: 2, ..OpenHead::default() };
        Command::Open { stream: StreamId(stream), head, params: Bytes::from_static(b"{}"), v1_tool: None }
    }

    fn answer(stream: u32, length: usize) -> Command {
        Command::Answer { stream: StreamId(stream), outcome: Outcome::Result, body: vec![b'x'; length].into() }
    }

    #[crate::rt::test]
    async fn slow_consumer_holds_its_own_answer_and_no_other() {
        let (mut relay, mut agent) = tunnel().await;
        let large = 3_000_000;
        relay.order(open(1));
        assert!(matches!(agent.next().await, Event::Call { stream: StreamId(1), .. }));
        agent.order(answer(1, large));
        let mut taken = 0;
        while taken < STREAM_CREDIT as usize {
            if let Event::Data { bytes, .. } = relay.next().await {
                taken += bytes.len();
            }
        }
        // Nobody took anything of it: another answer comes past it.
        relay.order(open(2));
        while !matches!(agent.next().await, Event::Call { stream: StreamId(2), .. }) {}
        agent.order(answer(2, 100));
        loop {
            match relay.next().await {
                Event::Data { stream: StreamId(2), end: true, .. } => break,
                Event::Data { stream: StreamId(1), .. } => panic!("more than its credit"),
                _ => {}
            }
        }
        relay.order(Command::Consumed { stream: StreamId(1), bytes: taken as u32 });
        loop {
            if let Event::Data { bytes, end, .. } = relay.next().await {
                taken += bytes.len();
                relay.order(Command::Consumed { stream: StreamId(1), bytes: bytes.len() as u32 });
                if end {
                    break;
                }
            }
        }
        assert_eq!(taken, large);
    }

    #[crate::rt::test]
    async fn tunnel_that_waits_is_small() {
        let [socket, _other] = sockets().await;
        let (clock, hello) = (Clock::new(), Hello::default());
        let connection = Connection::new(Settings { side: Side::Relay, dialect: Dialect::V2, hello }, clock.now());
        let parts = size_of_val(&socket) + size_of_val(&connection);
        let waiting = size_of_val(&pump(socket, connection, Queue::new(), clock, |_| Poll::Ready(()), |_| {}));
        assert!(waiting <= parts + 80, "{waiting} bytes: {parts} of the socket and the connection, and what else?");
    }

    #[crate::rt::test]
    async fn close_reaches_the_peer_with_its_words_and_ends_both_pumps() {
        let (mut relay, mut agent) = tunnel().await;
        let close = Close::new(CloseCode::Replaced, "another one came");
        relay.order(Command::Close(close.clone()));
        assert_eq!(relay.next().await, Event::Closed(close.clone()));
        assert_eq!(agent.next().await, Event::Closed(close));
        assert_eq!(relay.events.recv().await, None);
        assert_eq!(agent.events.recv().await, None);
        assert!(!relay.commands.send(Command::Probe) && !agent.commands.send(Command::Probe));
    }

    #[crate::rt::test]
    async fn socket_that_breaks_is_a_closed_tunnel() {
        let [one, other] = sockets().await;
        let mut relay = End::start(one, Side::Relay);
        drop(other);
        assert!(matches!(relay.next().await, Event::Closed(Close { code: CloseCode::Other(1006), .. })));
        assert_eq!(relay.events.recv().await, None);
    }

    #[crate::rt::test]
    async fn message_over_the_limit_closes_the_tunnel() {
        let [one, mut other] = sockets().await;
        let mut relay = End::start(one, Side::Relay);
        let too_large = vec![0; Dialect::V2.max_receive() + 1];
        rt::spawn(async move {
            let _ = other.send(WsMessage::Binary(too_large.into())).await;
        });
        assert!(matches!(relay.next().await, Event::Closed(Close { code: CloseCode::TooBig, .. })));
    }

    /// Answers one upgrade request with `answer`, verbatim.
    async fn refusing(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("ws://{}/ws", listener.local_addr().expect("bound"));
        rt::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).await.expect("reads") > 0);
            stream.write_all(answer.as_bytes()).await.expect("writes");
        });
        url
    }

    #[crate::rt::test]
    async fn refusal_is_told_with_its_status_wait_and_words() {
        let url = refusing("HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 9\r\n\r\nlater\x07\r\n.").await;
        let error = dial(&Connector::new(), &url, HeaderMap::new()).await.expect_err("refused");
        let (retry_after, message) = (Some("7".into()), "later.".into());
        assert_eq!(error, DialError::Status { status: 503, retry_after, challenge: String::new(), message });
        let url =
            refusing("HTTP/1.1 403 No\r\nWWW-Authenticate: Basic\r\nWWW-Authenticate: Bearer error=\"x\"\r\n\r\n")
                .await;
        let error = dial(&Connector::new(), &url, HeaderMap::new()).await.expect_err("refused");
        let words = "Basic, Bearer error=\"x\"";
        assert!(
            matches!(&error, DialError::Status { challenge, message, .. } if challenge == words && message == words),
            "{error:?}"
        );
        assert!(matches!(
            dial(&Connector::new(), "ws://127.0.0.1:1/ws", HeaderMap::new()).await,
            Err(DialError::Connect(_))
        ));
        let url = refusing("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: wrong\r\n\r\n").await;
        assert!(matches!(dial(&Connector::new(), &url, HeaderMap::new()).await, Err(DialError::Connect(_))));
    }
}

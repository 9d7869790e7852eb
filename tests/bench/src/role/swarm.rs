//! Many agents in one process: the tunnel's own protocol over real WebSockets, without servers behind them.

use std::fs;
use std::future::poll_fn;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant as HostInstant, SystemTime};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tokio::TokioAdapter;
use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Sleep, sleep, sleep_until};
use tungstenite::protocol::{Message as WsMessage, Role, WebSocketConfig};
use tunnel_core::backoff::Backoff;
use tunnel_core::entropy::Seeded;
use tunnel_core::limits;
use tunnel_core::time::{Instant, Now, UnixTime};
use tunnel_core::tunnel::connection::{Connection, Settings};
use tunnel_core::tunnel::{Command, Dialect, Event, Hello, Message, Outcome, Side};

/// A relay takes no more devices of one person.
pub(crate) const DEVICES: usize = limits::MAX_DEVICES;
/// From one address come no more than a relay takes.
const PER_ADDRESS: usize = limits::MAX_ADDRESS_CONNECTIONS - 50;
/// As many handshakes are under way at once.
const AT_ONCE: usize = 64;
/// What an idle socket reads into.
const READ_BUFFER: usize = 1024;

/// What all of them share.
struct Swarm {
    relay: SocketAddr,
    tokens: Vec<String>,
    /// How many agents each token is for.
    each: usize,
    start: HostInstant,
    catalog: Bytes,
    handshakes: Semaphore,
}

/// Connects `count` agents with the tokens of a file, one a line and for `each` so many of them, and keeps them. Prints a
/// line for each event: `up` or `try`, with the microseconds since the start. Their one tool says what it was told.
pub(crate) fn run(port: u16, tokens: &Path, each: usize, count: usize) -> io::Result<()> {
    let tokens: Vec<_> = fs::read_to_string(tokens)?.lines().map(str::to_owned).collect();
    let tool = r#"{"name":"echo","description":"Says it again","inputSchema":{"type":"object"}}"#;
    let catalog = format!(
        r#"{{"whole":true,"servers":[{{"name":"bench","state":"ready","capabilities":{{"tools":{{}}}},"tools":[{tool}]}}]}}"#
    );
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let relay = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let start = HostInstant::now();
        let handshakes = Semaphore::new(AT_ONCE);
        let swarm = Rc::new(Swarm { relay, tokens, each, start, catalog: catalog.into(), handshakes });
        for agent in 0..count {
            spawn_local(Rc::clone(&swarm).live(agent));
        }
        std::future::pending().await
    })
}

impl Swarm {
    fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Now {
            instant: Instant::from_micros(micros(self.start.elapsed())),
            unix: UnixTime::from_millis(micros(unix) / 1000),
        }
    }

    fn tell(&self, what: &str) {
        // Nobody listens any more when it ends.
        drop(writeln!(io::stdout(), "{what} {}", self.now().instant.as_micros()));
    }

    /// One agent, which comes back as the program's does.
    async fn live(self: Rc<Self>, agent: usize) {
        let mut backoff = Backoff::to_reconnect();
        let mut entropy = Seeded::new(agent as u64 + 1);
        loop {
            if let Ok((stream, read)) = self.dial(agent).await {
                backoff.connected(self.now().instant);
                self.carry(agent, stream, read).await;
                backoff.lost(self.now().instant);
            }
            sleep(backoff.next(&mut entropy)).await;
            self.tell("try");
        }
    }

    /// Connects, and makes the handshake; with what was read past its end.
    async fn dial(&self, agent: usize) -> io::Result<(TcpStream, Vec<u8>)> {
        let _turn = self.handshakes.acquire().await.map_err(io::Error::other)?;
        let [device, person] = [agent % self.each, agent / self.each];
        let token = self.tokens.get(person).ok_or(io::ErrorKind::InvalidInput)?;
        let socket = TcpSocket::new_v4()?;
        let last = u8::try_from(agent / PER_ADDRESS + 2).map_err(io::Error::other)?;
        socket.bind(SocketAddr::from(([127, 0, 0, last], 0)))?;
        let mut stream = socket.connect(self.relay).await?;
        stream.set_nodelay(true)?;
        let port = self.relay.port();
        // The key is the example of RFC 6455 section 1.3: what it proves, a benchmark need not doubt.
        let request = format!(
            "GET /ws?name=device-{device} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nMcp-Tunnel: 2\r\n\
             Mcp-Tunnel-Device: id-{agent}\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::with_capacity(READ_BUFFER);
        let end = loop {
            if let Some(at) = head.windows(4).position(|end| end == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut head).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let read = head.split_off(end);
        match head.starts_with(b"HTTP/1.1 101") {
            true => Ok((stream, read)),
            false => Err(io::Error::other(String::from_utf8_lossy(&head).into_owned())),
        }
    }

    async fn carry(&self, agent: usize, stream: TcpStream, read: Vec<u8>) {
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER).write_buffer_size(0);
        let stream = TokioAdapter::new(stream);
        let socket = WebSocketStream::from_partially_read(stream, read, Role::Client, Some(config)).await;
        let hello = Hello {
            version: "2.0.0".into(),
            device: format!("device-{}", agent % self.each),
            max_message: 64 << 20,
            max_streams: 256,
            ..Hello::default()
        };
        let settings = Settings { side: Side::Agent, dialect: Dialect::V2, hello };
        let connection = Connection::new(settings, self.now());
        let mut end = End { swarm: self, socket, connection, timer: pin!(sleep_until(self.start.into())) };
        poll_fn(|cx| end.poll(cx)).await;
    }
}

/// An agent's end of a tunnel.
struct End<'a> {
    swarm: &'a Swarm,
    socket: WebSocketStream<TokioAdapter<TcpStream>>,
    connection: Connection,
    timer: Pin<&'a mut Sleep>,
}

impl End<'_> {
    /// Ready when the tunnel is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.swarm.now();
        if self.connection.poll_timeout().is_some_and(|deadline| deadline.at <= now.instant) {
            self.connection.handle_timeout(now);
        }
        while let Poll::Ready(read) = Pin::new(&mut self.socket).poll_next(cx) {
            match read {
                Some(Ok(WsMessage::Binary(bytes))) => self.connection.handle_message(Message::Binary(bytes), now),
                Some(Ok(WsMessage::Ping(_) | WsMessage::Pong(_))) => {}
                _ => return Poll::Ready(()),
            }
        }
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Up(_) => {
                    self.connection.handle_command(Command::Catalog(self.swarm.catalog.clone()), now);
                    self.swarm.tell("up");
                }
                Event::Call { stream, params, .. } => {
                    let body = [br#"{"content":[],"structuredContent":"#, &params[..], b"}"].concat().into();
                    self.connection.handle_command(Command::Answer { stream, outcome: Outcome::Result, body }, now);
                }
                Event::Closed(_) => return Poll::Ready(()),
                _ => {}
            }
        }
        if self.write(cx, now).is_err() || self.connection.is_closed() {
            return Poll::Ready(());
        }
        if let Some(deadline) = self.connection.poll_timeout() {
            let at = self.swarm.start + Duration::from_micros(deadline.at.as_micros());
            if self.timer.deadline() != at.into() {
                self.timer.as_mut().reset(at.into());
            }
            if self.timer.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    fn write(&mut self, cx: &mut Context<'_>, now: Now) -> Result<(), tungstenite::Error> {
        loop {
            if Pin::new(&mut self.socket).poll_ready(cx)?.is_pending() {
                return Ok(());
            }
            let Some(message) = self.connection.poll_transmit(now) else { break };
            if let Message::Binary(bytes) = message {
                Pin::new(&mut self.socket).start_send(WsMessage::Binary(bytes))?;
            }
        }
        Pin::new(&mut self.socket).poll_flush(cx)?.is_pending();
        Ok(())
    }
}

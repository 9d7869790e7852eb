//! The callers: connections that are kept, requests at once or at due times, and a look at every answer.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::slice;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long an answer may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);
/// A head of a response is no longer.
const MAX_HEADERS: usize = 32;

/// Where requests go, and the head that they all have.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The port on loopback.
    pub(crate) port: u16,
    /// The path, `/mcp`.
    pub(crate) path: String,
    /// Lines of headers, each with its line end.
    pub(crate) headers: String,
}

impl Target {
    fn request(&self, body: &[u8]) -> Vec<u8> {
        let Self { port, path, headers } = self;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    }
}

/// One request: its body, and what its answer must hold.
#[derive(Debug)]
pub(crate) struct Call {
    /// The message.
    pub(crate) body: Vec<u8>,
    /// What is looked for in the answer.
    pub(crate) expected: Expected,
}

/// What an answer must hold.
#[derive(Debug, Clone)]
pub(crate) enum Expected {
    /// This text, and this id.
    Text(Vec<u8>, u64),
    /// At least as many `x`, and this id.
    Blob(usize, u64),
    /// As many bytes beside this id.
    Length(usize, u64),
    /// Status 202 and nothing else.
    Nothing,
}

impl Expected {
    fn holds(&self, status: u16, body: &[u8]) -> bool {
        let has_id = |id: &u64| {
            let id = format!("\"id\":{id}");
            let edge = body.len().saturating_sub(256);
            let is_there = |part: &[u8]| {
                memmem::find_iter(part, id.as_bytes())
                    .any(|at| !part.get(at + id.len()).is_some_and(u8::is_ascii_digit))
            };
            is_there(body.get(..256).unwrap_or(body)) || is_there(body.get(edge..).unwrap_or_default())
        };
        match self {
            Self::Text(text, id) => status == 200 && has_id(id) && memmem::find(body, text).is_some(),
            Self::Blob(bytes, id) => {
                status == 200 && has_id(id) && body.iter().filter(|byte| **byte == b'x').count() >= *bytes
            }
            Self::Length(bytes, id) => status == 200 && has_id(id) && body.len() == bytes + id.to_string().len(),
            Self::Nothing => status == 202,
        }
    }
}

/// A call of a tool of the benchmark's server.
pub(crate) fn call(id: u64, tool: &str, arguments: &str, expected: Expected) -> Call {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
    );
    Call { body: body.into_bytes(), expected }
}

/// `echo` of a text that no other call has.
pub(crate) fn echo(id: u64, prefix: &str) -> Call {
    let text = format!("call {id} of many");
    call(id, &format!("{prefix}echo"), &format!(r#"{{"text":"{text}"}}"#), Expected::Text(text.into_bytes(), id))
}

/// An answer of so many bytes.
pub(crate) fn blob(id: u64, prefix: &str, bytes: usize) -> Call {
    call(id, &format!("{prefix}blob"), &format!(r#"{{"bytes":{bytes}}}"#), Expected::Blob(bytes, id))
}

/// A request and an answer of so many bytes.
pub(crate) fn upload(id: u64, prefix: &str, bytes: usize) -> Call {
    let text = "x".repeat(bytes);
    call(id, &format!("{prefix}echo"), &format!(r#"{{"text":"{text}"}}"#), Expected::Blob(bytes, id))
}

/// A kept connection.
#[derive(Debug)]
pub(crate) struct Connection {
    target: Rc<Target>,
    stream: TcpStream,
    buffer: BytesMut,
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The session that it names.
    pub(crate) session: Option<String>,
    /// The body, without the chunks that it came in.
    pub(crate) body: Bytes,
}

enum Framing {
    Length(usize),
    Chunked,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(target: &Rc<Target>) -> io::Result<Self> {
        let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, target.port))).await?;
        stream.set_nodelay(true)?;
        Ok(Self { target: Rc::clone(target), stream, buffer: BytesMut::with_capacity(16 * 1024) })
    }

    /// Sends a body and waits for the whole response.
    pub(crate) async fn ask(&mut self, body: &[u8]) -> io::Result<Reply> {
        let request = self.target.request(body);
        timeout(PATIENCE, async {
            self.stream.write_all(&request).await?;
            self.reply().await
        })
        .await?
    }

    /// Does a call; whether it was answered as it must be.
    pub(crate) async fn does(&mut self, call: &Call) -> bool {
        match self.ask(&call.body).await {
            Ok(reply) => call.expected.holds(reply.status, &reply.body),
            Err(_) => false,
        }
    }

    async fn reply(&mut self) -> io::Result<Reply> {
        let (status, session, framing) = loop {
            if let Some(head) = self.head()? {
                break head;
            }
            self.more(0).await?;
        };
        let body = match framing {
            Framing::Length(length) => {
                while self.buffer.len() < length {
                    self.more(length - self.buffer.len()).await?;
                }
                self.buffer.split_to(length).freeze()
            }
            Framing::Chunked => self.chunks().await?,
        };
        Ok(Reply { status, session, body })
    }

    /// The head, once it is there whole.
    fn head(&mut self) -> io::Result<Option<(u16, Option<String>, Framing)>> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut head = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(length) = head.parse(&self.buffer).map_err(io::Error::other)? else {
            return Ok(None);
        };
        let value = |name: &str| {
            let header = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            header.and_then(|header| std::str::from_utf8(header.value).ok())
        };
        let framing = match value("content-length").and_then(|text| text.parse().ok()) {
            Some(length) => Framing::Length(length),
            None if value("transfer-encoding").is_some() => Framing::Chunked,
            None => Framing::Length(0),
        };
        let found = (head.code.unwrap_or(0), value("mcp-session-id").map(str::to_owned), framing);
        self.buffer.advance(length);
        Ok(Some(found))
    }

    async fn chunks(&mut self) -> io::Result<Bytes> {
        let mut body = BytesMut::new();
        loop {
            let (start, length) = loop {
                match httparse::parse_chunk_size(&self.buffer) {
                    Ok(httparse::Status::Complete((start, length))) => {
                        break (start, usize::try_from(length).map_err(io::Error::other)?);
                    }
                    Ok(httparse::Status::Partial) => self.more(0).await?,
                    Err(_) => return Err(io::ErrorKind::InvalidData.into()),
                }
            };
            self.buffer.advance(start);
            while self.buffer.len() < length + 2 {
                self.more(length + 2 - self.buffer.len()).await?;
            }
            body.extend_from_slice(self.buffer.get(..length).unwrap_or_default());
            self.buffer.advance(length + 2);
            if length == 0 {
                return Ok(body.freeze());
            }
        }
    }

    async fn more(&mut self, room: usize) -> io::Result<()> {
        self.buffer.reserve(room.max(16 * 1024));
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// What came of many calls.
#[derive(Debug, Default, Clone)]
pub(crate) struct Outcome {
    /// How long each took, in nanoseconds.
    pub(crate) took: Vec<u64>,
    /// How many were not answered as they must be.
    pub(crate) failed: u64,
    /// How long all of them took together.
    pub(crate) elapsed: Duration,
}

impl Outcome {
    /// The time below which this share of the calls was answered, in microseconds.
    pub(crate) fn quantile(&mut self, share: f64) -> f64 {
        self.took.sort_unstable();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank"
        )]
        let rank = (share * self.took.len().saturating_sub(1) as f64).round() as usize;
        #[allow(clippy::cast_precision_loss, reason = "nanoseconds of less than a month")]
        self.took.get(rank).map_or(f64::NAN, |nanos| *nanos as f64 / 1000.0)
    }

    /// Calls that were answered as they must be, per second.
    pub(crate) fn per_second(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "fewer than 2^52")]
        let answered = self.took.len() as f64;
        answered / self.elapsed.as_secs_f64()
    }

    fn add(&mut self, other: Self) {
        self.took.extend(other.took);
        self.failed += other.failed;
    }
}

/// Callers, each of which calls again as soon as it was answered, for so long.
pub(crate) async fn closed(
    target: &Rc<Target>,
    callers: u64,
    time: Duration,
    make: impl Fn(u64) -> Call + Clone + 'static,
) -> io::Result<Outcome> {
    shared(slice::from_ref(target), callers, time, make).await
}

/// The same, the callers being as many at each of several targets.
pub(crate) async fn shared(
    targets: &[Rc<Target>],
    callers: u64,
    time: Duration,
    make: impl Fn(u64) -> Call + Clone + 'static,
) -> io::Result<Outcome> {
    let mut set = JoinSet::new();
    let mut connections = Vec::new();
    for (_, target) in (0..callers).zip(targets.iter().cycle()) {
        connections.push(Connection::open(target).await?);
    }
    let start = Instant::now();
    for (caller, mut connection) in (0..callers).zip(connections) {
        let make = make.clone();
        set.spawn_local(async move {
            let mut own = Outcome::default();
            let mut number = caller * 100_000_000 + 1;
            while start.elapsed() < time {
                let call = make(number);
                let asked = Instant::now();
                if connection.does(&call).await {
                    own.took.push(nanos(asked.elapsed()));
                } else {
                    own.failed += 1;
                    let Ok(again) = Connection::open(&connection.target).await else { break };
                    connection = again;
                }
                number += 1;
            }
            own
        });
    }
    let mut outcome = Outcome::default();
    while let Some(own) = set.join_next().await {
        outcome.add(own.map_err(io::Error::other)?);
    }
    outcome.elapsed = start.elapsed();
    Ok(outcome)
}

/// Calls at a fixed rate; how long one took counts from when it was due.
pub(crate) async fn paced(
    target: &Rc<Target>,
    per_second: u32,
    time: Duration,
    make: impl Fn(u64) -> Call + Clone + 'static,
) -> io::Result<Outcome> {
    /// So many may wait for an answer at once.
    const CALLERS: usize = 32;
    let mut connections = Vec::new();
    for _ in 0..CALLERS {
        connections.push(Connection::open(target).await?);
    }
    let (start, gap) = (Instant::now() + Duration::from_millis(20), Duration::from_secs(1) / per_second);
    let is_over = move |due| due >= start + time;
    let (turns, turn) = (Arc::new(Semaphore::new(0)), Rc::new(Cell::new(0)));
    let clock = Arc::clone(&turns);
    // A thread, for the runtime's timer is exact to a millisecond only.
    thread::spawn(move || {
        for due in (0..).map(|turn| start + gap * turn).take_while(|due| !is_over(*due)) {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            clock.add_permits(1);
        }
        clock.add_permits(CALLERS);
    });
    let mut set = JoinSet::new();
    for mut connection in connections {
        let (make, turns, turn) = (make.clone(), Arc::clone(&turns), Rc::clone(&turn));
        set.spawn_local(async move {
            let mut own = Outcome::default();
            while let Ok(permit) = turns.acquire().await {
                permit.forget();
                let number = turn.replace(turn.get() + 1);
                let due = start + gap * number;
                if is_over(due) {
                    break;
                }
                if connection.does(&make(u64::from(number) + 1)).await {
                    own.took.push(nanos(due.elapsed()));
                } else {
                    own.failed += 1;
                    let Ok(again) = Connection::open(&connection.target).await else { break };
                    connection = again;
                }
            }
            own
        });
    }
    let mut outcome = Outcome::default();
    while let Some(own) = set.join_next().await {
        outcome.add(own.map_err(io::Error::other)?);
    }
    outcome.elapsed = time;
    Ok(outcome)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

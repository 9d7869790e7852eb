//! A relay and an agent on std's threads and blocking sockets: the proof that a runtime is a detail.
//!
//! The machines are core's, as they are. Each has a thread and a queue ([`drive`]); whatever waits for something else, a
//! socket, a pipe or a process, has a thread of its own, which brings events. Left out is what the proof does not need:
//! sign-in, TLS, dialect V1, kept connections, limits of how many there are and of what waits for them, a disk, HTTP
//! servers, stderr, sandboxes.
//!
//! Under 300 lines of code, the imports aside; `tests/threads.rs` counts them, and puts real clients, servers and the
//! program at its ends.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command as Program, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};
use std::{error::Error, iter, os::unix::process::CommandExt};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, RETRY_AFTER, SEC_WEBSOCKET_KEY};
use http::{StatusCode, request::Builder};
use ring::rand::{SecureRandom, SystemRandom};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tungstenite::client::{IntoClientRequest, client_with_config};
use tungstenite::protocol::{CloseFrame, Message as Wire, Role, WebSocket, WebSocketConfig};
use tungstenite::{HandshakeError, handshake::derive_accept_key};
use tunnel_core::agent::machine::{self as agent, Action as Do, Agent, DialError, Identity, Spawn};
use tunnel_core::config::{AgentConfig, BASE_ENVIRONMENT, Reference};
use tunnel_core::http::{Reply, RequestHead};
use tunnel_core::id::{ChildId, ConnId, ExchangeId};
use tunnel_core::limits::{DIAL_TIMEOUT, HEADER_TIMEOUT};
use tunnel_core::limits::{MAX_FIELDS, MAX_HEAD_READ, MAX_MESSAGE, MAX_RECEIVE, MAX_STREAMS};
use tunnel_core::oauth::{Snapshot, refusals::RefusedToken};
use tunnel_core::relay::gate::{Admission, Gate, Step, Upgrade};
use tunnel_core::relay::{self, Opened, shard, shard::Action, shard::Shard};
use tunnel_core::time::{Instant, Now, UnixTime};
use tunnel_core::tunnel::connection::{Connection, Settings};
use tunnel_core::tunnel::{ASKS_BESIDE, Close, CloseCode, Command, Dialect, Event, HANDS_ON, Hello, Message, Side};
use tunnel_core::{entropy::Entropy, host::Machine, secret::Secret, signin::machine::Person};

/// A tunnel's.
type Socket = WebSocket<TcpStream>;
/// A client's or an agent's connection, as it is read.
type Input<'a> = BufReader<&'a TcpStream>;
/// What is ordered for one of them.
type Parts = Receiver<Action>;

/// Runs a machine until `carry_out` says that it is over, or nobody is left who could tell it anything.
fn drive<M: Machine>(mut machine: M, queue: &Receiver<M::Event>, mut carry_out: impl FnMut(M::Action) -> Option<()>) {
    while iter::from_fn(|| machine.poll_action()).try_for_each(&mut carry_out).is_some() {
        let wait = machine.poll_timeout().map_or(LONG, |due| due.at.saturating_since(now().instant).min(LONG));
        // What is due goes before what has come: a flood of events does not stop the clock.
        match if wait.is_zero() { Err(RecvTimeoutError::Timeout) } else { queue.recv_timeout(wait) } {
            Ok(event) => machine.handle_event(event, now()),
            Err(RecvTimeoutError::Timeout) => machine.handle_timeout(now()),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Runs a tunnel until it is over. No thread waits for a socket and a queue at once: this one looks at them in turn.
fn pump(mut socket: Socket, settings: Settings, orders: impl Fn() -> Option<Command>, bring: impl Fn(Event)) {
    let _ = (socket.get_ref().set_read_timeout(Some(GLANCE)), socket.get_ref().set_write_timeout(Some(DIAL_TIMEOUT)));
    let mut connection = Connection::new(settings, now());
    let close = |it: CloseFrame| Close::new(CloseCode::from_u16(it.code.into()), it.reason.as_str());
    let frame = |it: Close| CloseFrame { code: it.code.to_u16().into(), reason: it.reason.into() };
    while !connection.is_closed() {
        iter::from_fn(&orders).for_each(|command| connection.handle_command(command, now()));
        connection.handle_timeout(now());
        while let Some(message) = connection.poll_transmit(now()) {
            let sent = match message {
                Message::Binary(bytes) => socket.send(Wire::Binary(bytes)),
                Message::Close(it) => socket.close(Some(frame(it))),
                // Only V1 has text and pings; pongs are the library's.
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) => Ok(()),
            };
            sent.unwrap_or_else(|error| connection.handle_gone(&error.to_string(), now()));
        }
        match socket.read() {
            Ok(Wire::Binary(bytes)) => connection.handle_message(Message::Binary(bytes), now()),
            Ok(Wire::Close(Some(it))) => connection.handle_message(Message::Close(close(it)), now()),
            Ok(_) => {}
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => connection.handle_gone(&error.to_string(), now()),
        }
        iter::from_fn(|| connection.poll_event()).for_each(&bring);
    }
    let _ = socket.flush();
}

/// What a tunnel's socket takes.
fn websocket() -> Option<WebSocketConfig> {
    Some(WebSocketConfig::default().max_message_size(Some(MAX_RECEIVE)).max_frame_size(Some(MAX_RECEIVE)))
}

/// Both clocks. The epoch is a second ago, so that machines may look back a little from their first input.
fn now() -> Now {
    static BEGIN: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
    let (run, unix) = (BEGIN.elapsed().as_micros(), SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis());
    Now { instant: Instant::from_micros(1_000_000 + run as u64), unix: UnixTime::from_millis(unix as u64) }
}

/// The operating system's randomness.
struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&mut self, out: &mut [u8]) {
        SystemRandom::new().fill(out).unwrap_or_else(|_| std::process::abort());
    }
}

/// Runs an agent with stdio servers and a minted token, until its machine ends: `Stop` makes it.
pub fn run_agent(config: AgentConfig, token: Secret, to_it: &Sender<agent::Event>, queue: &Receiver<agent::Event>) {
    let (name, os) = (config.name.clone().unwrap_or_default(), std::env::consts::OS.into());
    let (device, device_id) = (name.as_str().into(), name.as_str().into());
    let identity = Identity { device, device_id, version: env!("CARGO_PKG_VERSION").into(), os };
    // The tunnel that was dialled last: it is over when the machine dials another.
    let (mut tunnel, mut servers) = ((ConnId(0), channel().0), BTreeMap::<ChildId, Server>::new());
    let bring = |event| drop(to_it.send(event));
    bring(agent::Event::Start { person: Person::Absent });
    drive(Agent::new(config, identity, Some(token), Box::new(OsEntropy)), queue, |action| {
        match action {
            Do::Dial { conn, url, headers, hello } => tunnel = (conn, dial(conn, url, headers, hello, to_it.clone())),
            Do::Tunnel { conn, command } if conn == tunnel.0 => drop(tunnel.1.send(command)),
            Do::Spawn { child, spawn } => {
                servers.retain(|_, it| !(it.2.is_finished() && it.0.wait().is_ok()));
                let failed = |error: io::Error| bring(agent::Event::SpawnFailed { child, error: error.to_string() });
                servers.extend(start(child, &spawn, to_it).map_err(failed).map(|server| (child, server)));
            }
            Do::Write { child, bytes } => drop(servers.get(&child).and_then(|it| Some(it.1.as_ref()?.send(bytes)))),
            Do::CloseStdin { child } => drop(servers.get_mut(&child).map(|it| it.1.take())),
            Do::Kill { child, force } => {
                let signal = if force { Signal::KILL } else { Signal::TERM };
                let _ = servers.get(&child).map(|it| kill_process_group(Pid::from_child(&it.0), signal));
            }
            Do::ReadConfig => bring(agent::Event::ConfigRead(Err("there is no disk".into()))),
            Do::LoadPins { key } => bring(agent::Event::PinsLoaded { key, result: Err("there is no disk".into()) }),
            // What is kept only makes a later start quicker.
            Do::Tunnel { .. } | Do::Keep { .. } | Do::KeepWishes { .. } => {}
            Do::Exit(_) => return None,
            _ => panic!("an agent on threads was given a configuration that asks for more than it can do"),
        }
        Some(())
    });
}

fn dial(conn: ConnId, url: String, headers: HeaderMap, hello: Hello, events: Sender<agent::Event>) -> Sender<Command> {
    let (orders, queue) = channel();
    thread::spawn(move || {
        let bring = |event| drop(events.send(event));
        match connect(&url, headers) {
            Ok(socket) => {
                bring(agent::Event::Dialed { conn, dialect: Dialect::V2 });
                let settings = Settings { side: Side::Agent, dialect: Dialect::V2, hello };
                pump(socket, settings, || queue.try_recv().ok(), |event| bring(agent::Event::Tunnel { conn, event }));
            }
            Err(error) => {
                let error = error.downcast().map_or_else(|it| DialError::Connect(it.to_string()), |it| *it);
                bring(agent::Event::DialFailed { conn, error });
            }
        }
    });
    orders
}

fn connect(url: &str, headers: HeaderMap) -> Result<Socket, Box<dyn Error>> {
    let place = url.strip_prefix("ws://").and_then(|it| it.split('/').next()).ok_or("there is no TLS on threads")?;
    let stream = TcpStream::connect(place)?;
    stream.set_read_timeout(Some(DIAL_TIMEOUT))?;
    let mut request = url.into_client_request()?;
    request.headers_mut().extend(headers);
    match client_with_config(request, stream, websocket()) {
        Ok((socket, answer)) if Dialect::of_upgrade(answer.headers()) == Dialect::V2 => Ok(socket),
        Err(HandshakeError::Failure(tungstenite::Error::Http(it))) => {
            let retry_after = it.headers().get(RETRY_AFTER).and_then(|it| Some(it.to_str().ok()?.to_owned()));
            let body = String::from_utf8_lossy(it.body().as_deref().unwrap_or_default());
            let message = body.chars().filter(|it| !it.is_control()).take(512).collect();
            let (status, challenge) = (it.status().as_u16(), String::new());
            Err(Box::new(DialError::Status { status, retry_after, challenge, message }))
        }
        other => Err(other.map_or_else(|error| error.to_string(), |_| "there is no V1 on threads".into()).into()),
    }
}

/// A server's process, reaped when the next one starts: until then its id is nobody else's. What is written to it. And who
/// waits for its end.
type Server = (Child, Option<Sender<Bytes>>, JoinHandle<()>);

fn start(child: ChildId, spawn: &Spawn, events: &Sender<agent::Event>) -> io::Result<Server> {
    let is_plain = !spawn.sandbox && spawn.env.iter().all(|(_, it)| Reference::read(it.expose()).is_none());
    let (program, args) = spawn.command.split_first().filter(|_| is_plain).ok_or(ErrorKind::Unsupported)?;
    let base = BASE_ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let mut command = Program::new(program);
    command.args(args).env_clear().envs(base).envs(spawn.env.iter().map(|(name, it)| (name, it.expose())));
    command.current_dir(spawn.cwd.as_deref().unwrap_or(".")).process_group(0);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (mut input, output) = process.stdin.take().zip(process.stdout.take()).expect("they are piped");
    let ((stdin, written), (open, closed)) = (channel::<Bytes>(), channel::<()>());
    let (group, max) = (Pid::from_child(&process), spawn.max_line as u64);
    let _ = events.send(agent::Event::Spawned { child, pid: process.id() });
    let [writer, reader, ended] = [(); 3].map(|()| events.clone());
    thread::spawn(move || {
        for bytes in written {
            // What a closed stdin does not take is gone all the same, and must not be counted for ever.
            let _ = (input.write_all(&bytes), writer.send(agent::Event::Wrote { child, bytes: bytes.len() }));
        }
    });
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        while let Some(line) = read_line(&mut output, max) {
            let _ = reader.send(agent::Event::Line { child, line });
        }
        let _ = (reader.send(agent::Event::OutputEnded { child }), open);
    });
    let waiting = thread::spawn(move || {
        let status = waitid(WaitId::Pid(group), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).ok().flatten();
        let (code, signal) = status.map_or((None, None), |it| (it.exit_status(), it.terminating_signal()));
        // What it leaves behind goes with it; what has left the group may hold its stdout open.
        let _ = (kill_process_group(group, Signal::KILL), closed.recv_timeout(Duration::from_millis(100)));
        let _ = ended.send(agent::Event::Exited { child, code, signal, stderr: String::new() });
    });
    Ok((process, Some(stdin), waiting))
}

/// The next line, without its end. One that is too long is none, and the last.
fn read_line(output: &mut impl BufRead, max: u64) -> Option<Bytes> {
    let mut line = Vec::new();
    let read = output.take(max + 1).read_until(b'\n', &mut line).ok()? as u64;
    (1..=max).contains(&read).then(|| Bytes::copy_from_slice(line.trim_ascii_end()))
}

/// Runs a relay until `listener` fails, as one does that was made non-blocking. Nobody signs in here: `snapshot` says
/// whose tokens are good.
pub fn run_relay(listener: &TcpListener, settings: relay::Settings, snapshot: Snapshot) {
    let (settings, (shard, queue)) = (Arc::new(settings), channel());
    let machine = Shard::new(Arc::clone(&settings), Box::new(OsEntropy));
    let hub = Arc::new(Hub { gate: Gate::new(settings), snapshot, shard, queues: Mutex::default() });
    let weak = Arc::downgrade(&hub);
    thread::spawn(move || drive(machine, &queue, |action| weak.upgrade().map(|hub| hub.carry_out(action))));
    for (number, stream) in (0..).zip(listener.incoming().map_while(Result::ok)) {
        let hub = Arc::clone(&hub);
        thread::spawn(move || {
            let (orders, queue) = channel();
            hub.queues.lock().expect("no holder fails").insert(number, orders);
            let _ = hub.serve(number, &stream, &queue);
            hub.queues.lock().expect("no holder fails").remove(&number);
        });
    }
    let _ = hub.shard.send(shard::Event::Stop);
}

/// What all connections share. Each has a number, which is its exchange's or its tunnel's, and a queue of its orders.
struct Hub {
    gate: Gate,
    snapshot: Snapshot,
    shard: Sender<shard::Event>,
    queues: Mutex<BTreeMap<u64, Sender<Action>>>,
}

impl Hub {
    fn carry_out(&self, action: Action) {
        let number = match &action {
            Action::Reply { exchange, .. } | Action::Body { exchange, .. } => exchange.0,
            Action::Begin { exchange, .. } | Action::Finish { exchange } | Action::Abort { exchange } => exchange.0,
            Action::Tunnel { conn, .. } => conn.0,
            Action::Used { .. } | Action::Audit(_) => return,
        };
        let _ = self.queues.lock().expect("no holder fails").get(&number).map(|queue| drop(queue.send(action)));
    }

    fn serve(&self, number: u64, stream: &TcpStream, queue: &Parts) -> io::Result<()> {
        stream.set_read_timeout(Some(HEADER_TIMEOUT))?;
        let (mut input, mut body, exchange) = (BufReader::new(stream), Vec::new(), ExchangeId(number));
        let (head, snapshot, opened) = (read_head(&mut input)?, &self.snapshot, &mut Opened::default());
        let step = match self.gate.admit(&head, snapshot, now(), opened) {
            Admission::Upgrade(it) if it.dialect == Dialect::V1 => return Err(ErrorKind::Unsupported.into()),
            Admission::Upgrade(it) => return self.tunnel(number, &input, &head, it, queue),
            Admission::Reply(reply) | Admission::Refuse(RefusedToken { reply, .. }) => Step::Reply(reply),
            Admission::Read { route, limit } => {
                let length: u64 = head.header(CONTENT_LENGTH).map_or(Ok(0), str::parse).map_err(io::Error::other)?;
                input.take(length.min(limit as u64 + 1)).read_to_end(&mut body)?;
                match body.len() > limit {
                    true => Step::Reply(self.gate.too_large(&route)),
                    false => {
                        self.gate.accept(exchange, route, head, body.into(), snapshot, now(), opened, &mut OsEntropy)
                    }
                }
            }
        };
        match step {
            Step::Shard(_, event) => drop(self.shard.send(event)),
            Step::Reply(reply) => self.carry_out(Action::Reply { exchange, reply }),
            Step::Grants(_) => {
                self.carry_out(Action::Reply { exchange, reply: Reply::empty(StatusCode::NOT_IMPLEMENTED) })
            }
        }
        self.answer(number, stream, queue)?;
        // A socket that is closed with unread bytes takes its answer back.
        stream.set_read_timeout(Some(HEADER_TIMEOUT))?;
        stream.shutdown(Shutdown::Write)?;
        io::copy(&mut &*stream, &mut io::sink()).map(drop)
    }

    /// Writes an answer until it is complete. What nobody takes any more is consumed as well.
    fn answer(&self, number: u64, mut stream: &TcpStream, queue: &Parts) -> io::Result<()> {
        stream.set_read_timeout(Some(GLANCE))?;
        let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        let mut from = None;
        loop {
            let part = match queue.recv_timeout(GLANCE) {
                Ok(part) => part,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {
                    let gone = stream.read(&mut [0]).map_or_else(|it| it.kind() != ErrorKind::WouldBlock, |it| it == 0);
                    if gone && self.queues.lock().expect("no holder fails").remove(&number).is_some() {
                        let _ = self.shard.send(shard::Event::Gone { exchange: ExchangeId(number) });
                    }
                    continue;
                }
            };
            if let (Action::Body { credit: bytes @ 1.., .. }, Some((conn, stream))) = (&part, from) {
                self.carry_out(Action::Tunnel { conn, command: Command::Consumed { stream, bytes: *bytes } });
            }
            // What cannot be written is found out by the next look at the socket.
            let _ = match part {
                Action::Begin { head, source, .. } => {
                    from = source;
                    write_head(stream, head.status, &head.headers, "Connection: close\r\nTransfer-Encoding: chunked")
                }
                Action::Body { bytes, .. } if bytes.is_empty() => Ok(()),
                Action::Body { bytes, .. } => stream.write_all(&chunk(&bytes)),
                Action::Finish { .. } => return stream.write_all(&chunk(b"")),
                Action::Reply { reply, .. } => {
                    let framing = format!("Connection: close\r\nContent-Length: {}", reply.body.len());
                    write_head(stream, reply.status, &reply.headers, &framing)?;
                    return stream.write_all(&reply.body);
                }
                Action::Abort { .. } | Action::Tunnel { .. } | Action::Used { .. } | Action::Audit(_) => return Ok(()),
            };
        }
    }

    fn tunnel(&self, number: u64, input: &Input<'_>, head: &RequestHead, it: Upgrade, queue: &Parts) -> io::Result<()> {
        let Upgrade { user, audit, family, expires, device, device_id, dialect, .. } = it;
        let accept = derive_accept_key(head.headers[SEC_WEBSOCKET_KEY].as_bytes());
        let framing = format!("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}");
        write_head(input.get_ref(), StatusCode::SWITCHING_PROTOCOLS, &it.headers, &framing)?;
        let (conn, bring) = (ConnId(number), |event| drop(self.shard.send(event)));
        bring(shard::Event::TunnelUp { conn, user, device, device_id, family, expires, dialect, audit });
        let (max_message, max_streams, features) =
            (MAX_MESSAGE as u64, MAX_STREAMS as u32, vec![ASKS_BESIDE.into(), HANDS_ON.into()]);
        let hello = Hello { user: it.pseudonym, max_message, max_streams, features, ..Hello::default() };
        let (stream, read) = (input.get_ref().try_clone()?, input.buffer().to_vec());
        let socket = WebSocket::from_partially_read(stream, read, Role::Server, websocket());
        let orders = || if let Ok(Action::Tunnel { command, .. }) = queue.try_recv() { Some(command) } else { None };
        let settings = Settings { side: Side::Relay, dialect, hello };
        pump(socket, settings, orders, |event| bring(shard::Event::Tunnel { conn, event }));
        Ok(())
    }
}

fn read_head(input: &mut Input<'_>) -> io::Result<RequestHead> {
    let (mut text, peer) = (Vec::new(), input.get_ref().peer_addr()?.ip());
    while !text.ends_with(b"\r\n\r\n") {
        let read = input.take(MAX_HEAD_READ as u64).read_until(b'\n', &mut text)?;
        Some(read).filter(|read| *read > 0 && text.len() <= MAX_HEAD_READ).ok_or(ErrorKind::InvalidData)?;
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    head.parse(&text).map_err(io::Error::other)?;
    let request = Builder::new().method(head.method.unwrap_or_default()).uri(head.path.unwrap_or_default());
    let request = head.headers.iter().fold(request, |request, it| request.header(it.name, it.value)).body(());
    let (head, ()) = request.map_err(io::Error::other)?.into_parts();
    Ok(RequestHead { method: head.method, uri: head.uri, headers: head.headers, peer })
}

fn write_head(mut out: &TcpStream, status: StatusCode, headers: &HeaderMap, framing: &str) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {status}\r\n{framing}\r\n").into_bytes();
    headers.iter().for_each(|it| head.extend([it.0.as_str().as_bytes(), b": ", it.1.as_bytes(), b"\r\n"].concat()));
    out.write_all(&[&head, &b"\r\n"[..]].concat())
}

/// How long a thread looks at a socket before it looks at its queue again.
const GLANCE: Duration = Duration::from_millis(2);
/// Waking too early is harmless.
const LONG: Duration = Duration::from_secs(3600);

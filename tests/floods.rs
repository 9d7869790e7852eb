//! Floods, against the built program over real sockets: while one runs, somebody else is answered, and the relay's
//! memory stays within bounds. Attackers come from another loopback address, as they would from another machine.
#![cfg(target_os = "linux")]

mod support;

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;
use socket2::{Domain, Socket, Type};
use support::secure::Secure;
use support::{Client, Process, Relay, Reply, eventually};

#[test]
fn slow_heads_are_cut_off_and_others_answered() {
    let relay = Relay::with("flood-heads", &json!({"limits": {"headerTimeout": 3}}));
    let memory = Memory::of(&relay.process);
    let mut slow = attackers(relay.port, ATTACKER, 400);
    let half = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(32_000));
    slow.iter_mut().for_each(|socket| socket.write_all(half.as_bytes()).expect("it is taken"));
    // A byte now and then must not buy more time.
    // Connected and begun in one go: one whose head has not begun in time is cut off without a word.
    let mut first = attackers(relay.port, ATTACKER, 1).remove(0);
    first.write_all(half.as_bytes()).expect("it is taken");
    let open = drip(&mut slow, b"x", || answered(&relay));
    assert_eq!(open, 0, "every slow head was cut off");
    let reply = Reply::read(&mut BufReader::new(first)).expect("an answer");
    assert!(reply.status == 408 && reply.text().contains("limits.headerTimeout"), "{}", reply.text());
    memory.grew_by_less_than(64 * MIB);
    answered(&relay);
}

#[test]
fn slow_bodies_are_answered_with_the_limit_and_others_at_once() {
    let relay = Relay::with("flood-bodies", &json!({"limits": {"bodyTimeout": 3}}));
    let memory = Memory::of(&relay.process);
    let token = relay.mint("ada", "client");
    let mut slow = attackers(relay.port, ATTACKER, 200);
    let half = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost:{}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nConnection: close\r\nContent-Length: 4000000\r\n\r\n{}",
        relay.port,
        " ".repeat(100_000)
    );
    slow.iter_mut().for_each(|socket| socket.write_all(half.as_bytes()).expect("it is taken"));
    let first = slow[0].try_clone().expect("a handle");
    let open = drip(&mut slow[1..], b" ", || answered(&relay));
    assert_eq!(open, 0, "every slow body was ended");
    let reply = Reply::read(&mut BufReader::new(first)).expect("an answer");
    assert_eq!(reply.status, 408);
    assert!(reply.text().contains("limits.bodyTimeout"), "{}", reply.text());
    memory.grew_by_less_than(128 * MIB);
}

#[test]
fn address_with_too_many_connections_is_told_and_others_are_not_concerned() {
    let relay = Relay::with("flood-connections", &json!({"limits": {"connectionsPerAddress": 20}}));
    let memory = Memory::of(&relay.process);
    let mut idle = attackers(relay.port, ATTACKER, 500);
    answered(&relay);
    eventually("the address has its twenty and not one more", Duration::from_secs(10), || {
        let open = idle.iter().filter(|socket| is_open(socket)).count();
        (open == 20).then_some(()).ok_or(format!("{open}"))
    });
    relay.process.line("limits.connectionsPerAddress");

    let mut over = attackers(relay.port, ATTACKER, 1).remove(0);
    let reply = Reply::read(&mut BufReader::new(&mut over)).expect("it is told");
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("10")));
    assert!(reply.text().contains("limits.connectionsPerAddress"), "{}", reply.text());
    // One less, and there is room for one.
    idle.retain(is_open);
    idle.pop();
    eventually("a place is free again", Duration::from_secs(10), || {
        let mut socket = attackers(relay.port, ATTACKER, 1).remove(0);
        let asked = socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let reply = asked.and_then(|()| Reply::read(&mut BufReader::new(socket))).map_err(|error| error.to_string())?;
        (reply.status == 200).then_some(()).ok_or(format!("{reply:?}"))
    });
    memory.grew_by_less_than(32 * MIB);
}

#[test]
fn trusted_proxy_may_have_more_connections_than_an_address() {
    let more = json!({"limits": {"connectionsPerAddress": 20}, "trustedProxies": [ATTACKER]});
    let relay = Relay::with("flood-proxy", &more);
    let all = attackers(relay.port, ATTACKER, 100);
    answered(&relay);
    assert_eq!(all.iter().filter(|socket| is_open(socket)).count(), 100);
}

#[test]
fn full_relay_lets_newcomers_in_whatever_those_inside_are_slow_with() {
    // Nothing times out while this lasts.
    let patient = json!({"limits": {"connections": 16, "headerTimeout": 120, "bodyTimeout": 3600}});
    let relay = Relay::with("flood-full", &patient);
    let agent = relay.agent("laptop", &json!({"local": {"command": [support::program(), "demo-server"]}}));
    Client::connect(&relay).until_listed("local__echo");
    let body = |path| format!("POST {path} HTTP/1.1\r\nHost: localhost:{}\r\nContent-Length: 100\r\n\r\nx", relay.port);
    for slow in [String::new(), "GET / HTTP/1.1\r\nX: ".into(), body("/token"), body("/nothing")] {
        let inside = slow_at_many_addresses(&relay, &slow, 40);
        let mut client = Client::connect(&relay);
        let answer = client.call("local__echo", &json!({"text": "still here"}));
        assert!(answer.to_string().contains("still here"), "{slow:?}: {answer}");
        let open = inside.iter().filter(|socket| is_open(socket)).count();
        assert!((1..16).contains(&open), "{slow:?}: {open} of them are left, beside the tunnel");
    }
    relay.process.line("limits.connections");
    assert_eq!(relay.process.log().matches("device connected").count(), 1, "the tunnel kept its place");
    drop(agent);
}

#[test]
fn tunnel_is_one_of_its_addresss_connections_until_it_ends() {
    let relay = Relay::with("flood-tunnels", &json!({"limits": {"connectionsPerAddress": 3}}));
    let token = relay.mint("eve", "agent");
    let mut tunnels: Vec<_> = (0..3).map(|number| tunnel(&relay, &token, &format!("device-{number}"))).collect();
    let mut over = attackers(relay.port, ATTACKER, 1).remove(0);
    assert_eq!(Reply::read(&mut BufReader::new(&mut over)).expect("it is told").status, 429);
    answered(&relay);
    tunnels.pop();
    eventually("there is a place again", Duration::from_secs(10), || {
        let mut socket = attackers(relay.port, ATTACKER, 1).remove(0);
        let asked = socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let reply = asked.and_then(|()| Reply::read(&mut BufReader::new(socket))).map_err(|error| error.to_string())?;
        (reply.status == 200).then_some(()).ok_or(format!("{reply:?}"))
    });
}

#[test]
fn large_bodies_together_have_a_bound_and_others_get_through() {
    let limits = json!({"bodies": 16 * MIB, "bodyTimeout": 3600, "connectionsPerAddress": 1000});
    let relay = Relay::with("flood-large-bodies", &json!({"limits": limits}));
    let (eve, ada) = (relay.mint("eve", "client"), relay.mint("ada", "client"));
    let memory = Memory::of(&relay.process);
    let head = |token: &str, length: usize| {
        format!(
            "POST /mcp HTTP/1.1\r\nHost: localhost:{}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
             Connection: close\r\nContent-Length: {length}\r\n\r\n",
            relay.port
        )
    };
    let mut slow = attackers(relay.port, ATTACKER, 150);
    for socket in &mut slow {
        socket.write_all(head(&eve, 4_000_000).as_bytes()).expect("it is taken");
        socket.write_all(&vec![b' '; 1024 * 1024]).expect("it is taken, if only to be thrown away");
    }
    answered(&relay);
    // Who sends the rest is told; the body is a good one but for its size.
    let mut last = slow.pop().expect("there are many");
    last.write_all(&vec![b' '; 4_000_000 - 1024 * 1024]).expect("it is taken");
    let reply = Reply::read(&mut BufReader::new(last)).expect("an answer");
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("5")), "{}", reply.text());
    assert!(reply.text().contains("limits.bodies"), "{}", reply.text());
    // A small one of the same user, and a large one of another.
    for (token, length) in [(&eve, 10_000), (&ada, 4_000_000)] {
        let reply = relay.post("/mcp", token, &vec![b' '; length]);
        assert_eq!(reply.status, 400, "{}", reply.text());
        assert!(reply.text().contains("-32700"), "it was read whole: {}", reply.text());
    }
    memory.grew_by_less_than(48 * MIB);
    drop(slow);
    eventually("the room is free again", Duration::from_secs(20), || {
        let reply = relay.post("/mcp", &eve, &vec![b' '; 4_000_000]);
        (reply.status == 400).then_some(()).ok_or(reply.text())
    });
}

#[test]
fn frames_that_are_too_large_end_their_tunnel_alone() {
    let relay = Relay::start("flood-frames");
    let agent = relay.agent("laptop", &json!({"local": {"command": [support::program(), "demo-server"]}}));
    Client::connect(&relay).until_listed("local__echo");
    let memory = Memory::of(&relay.process);
    let token = relay.mint("eve", "agent");
    // Each begins a frame as large as one may be and never ends it.
    let mut held: Vec<_> = (0..20).map(|number| tunnel(&relay, &token, &format!("held-{number}"))).collect();
    for socket in &mut held {
        socket.write_all(&frame_head(0x82, 1024 * 1024)).expect("it is taken");
        socket.write_all(&vec![0; 1024 * 1024 - 1]).expect("it is taken");
    }
    for (name, frames) in [
        ("frame", vec![frame_head(0x82, 1024 * 1024 + 1)]),
        ("endless", vec![frame_head(0x82, u64::MAX >> 1)]),
        ("message", vec![whole_frame(0x02, 700_000), whole_frame(0x80, 700_000)]),
    ] {
        let mut socket = tunnel(&relay, &token, name);
        for frame in frames {
            // The relay may close before it has read all of it.
            drop(socket.write_all(&frame));
        }
        assert_eq!(close_code(&mut socket), Some(1009), "{name}");
    }
    let mut client = Client::connect(&relay);
    let answer = client.call("local__echo", &json!({"text": "still here"}));
    assert!(answer.to_string().contains("still here"), "{answer}");
    assert!(held.iter().all(is_open), "those within the limit are not concerned");
    memory.grew_by_less_than(64 * MIB);
    drop(agent);
}

#[test]
fn half_open_tls_handshakes_are_cut_off_and_others_answered() {
    let (relay, made) = Secure::start("flood-tls", "relay.test", &json!({"limits": {"headerTimeout": 3}}));
    let roots = [made.der];
    let memory = Memory::of(&relay.process);
    // Some say nothing, some begin a record and never end it.
    let silent = attackers(relay.port, ATTACKER, 200);
    let mut begun = attackers(relay.port, ATTACKER, 200);
    let hello = [&[0x16, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb, 3, 3][..], &[0; 8_000]].concat();
    begun.iter_mut().for_each(|socket| socket.write_all(&hello).expect("it is taken"));
    let ask = || {
        let reply = relay.try_get(&roots, "/readyz").expect("an answer");
        assert_eq!(reply.status, 200);
    };
    let open = drip(&mut begun, b"\0", ask);
    assert_eq!(open, 0, "every slow handshake was cut off");
    assert_eq!(silent.iter().filter(|socket| is_open(socket)).count(), 0);
    ask();
    memory.grew_by_less_than(64 * MIB);
}

// --- attackers

const ATTACKER: &str = "127.0.0.66";
const MIB: u64 = 1024 * 1024;

/// Open connections from `from`.
fn attackers(port: u16, from: &str, count: usize) -> Vec<TcpStream> {
    let from: SocketAddr = format!("{from}:0").parse().expect("an address");
    let to: SocketAddr = ([127, 0, 0, 1], port).into();
    let connect = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&from.into()).expect("all of 127/8 is this machine");
        socket.connect(&to.into()).expect("the system takes it");
        let stream = TcpStream::from(socket);
        stream.set_write_timeout(Some(Duration::from_secs(20))).expect("set");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        stream
    };
    (0..count).map(connect).collect()
}

/// Connections that each begin with `slow` and go no further, from as many addresses.
fn slow_at_many_addresses(relay: &Relay, slow: &str, count: u8) -> Vec<TcpStream> {
    let all = (0..count).flat_map(|number| attackers(relay.port, &format!("127.0.2.{number}"), 1));
    let begin = |mut socket: TcpStream| {
        // The relay may have shown it out by now.
        drop(socket.write_all(slow.as_bytes()));
        socket
    };
    all.map(begin).collect()
}

/// Sends a byte on each again and again until all have ended or much more time has passed than any may have; `between`
/// is done meanwhile. Returns how many are open.
fn drip(sockets: &mut [TcpStream], byte: &[u8], mut between: impl FnMut()) -> usize {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let open = sockets.iter().filter(|socket| is_open(socket)).count();
        if open == 0 || Instant::now() > end {
            return open;
        }
        for socket in sockets.iter_mut() {
            drop(socket.write(byte));
        }
        between();
    }
}

/// Whether the other side has not closed it. What it said is thrown away.
fn is_open(mut socket: &TcpStream) -> bool {
    socket.set_nonblocking(true).expect("set");
    let open = loop {
        match socket.read(&mut [0; 4096]) {
            Ok(0) => break false,
            Ok(_) => {}
            Err(error) => break error.kind() == ErrorKind::WouldBlock,
        }
    };
    socket.set_nonblocking(false).expect("set");
    open
}

/// Somebody else's whole conversation.
fn answered(relay: &Relay) {
    assert!(Client::connect(relay).tools().contains(&"status".to_owned()));
}

/// A process's memory when an attack begins.
struct Memory<'a> {
    process: &'a Process,
    before: u64,
}

impl<'a> Memory<'a> {
    fn of(process: &'a Process) -> Self {
        Self { process, before: process.peak_resident() }
    }

    fn grew_by_less_than(&self, most: u64) {
        let grew = self.process.peak_resident() - self.before;
        assert!(grew < most, "it grew by {} KiB, {} KiB allowed", grew / 1024, most / 1024);
    }
}

// --- tunnels

/// An open tunnel that was only just upgraded.
fn tunnel(relay: &Relay, token: &str, name: &str) -> TcpStream {
    let mut socket = attackers(relay.port, ATTACKER, 1).remove(0);
    let head = format!(
        "GET /ws?name={name} HTTP/1.1\r\nHost: localhost:{}\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nMcp-Tunnel: 2\r\n\r\n",
        relay.port
    );
    socket.write_all(head.as_bytes()).expect("it is taken");
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).expect("an answer");
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    socket
}

/// The beginning of a client's frame (RFC 6455 section 5.2) with a mask of zeros.
fn frame_head(first: u8, length: u64) -> Vec<u8> {
    [&[first, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat()
}

fn whole_frame(first: u8, length: usize) -> Vec<u8> {
    [frame_head(first, length as u64), vec![0; length]].concat()
}

/// The code of the close frame that the relay ends with.
fn close_code(socket: &mut TcpStream) -> Option<u16> {
    let mut said = Vec::new();
    drop(socket.read_to_end(&mut said));
    let mut rest = &said[..];
    while let [first, length, body @ ..] = rest {
        // A server's frames are not masked, and these are short.
        let (length, body) = match length {
            126 => (usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?])), body.get(2..)?),
            short => (usize::from(*short), body),
        };
        let (own, next) = body.split_at_checked(length)?;
        if *first == 0x88 {
            return Some(u16::from_be_bytes([*own.first()?, *own.get(1)?]));
        }
        rest = next;
    }
    None
}

//! `/ws`: who may open a tunnel, under which name, and what may be said in it.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

use super::support::oauth::{access, register, tokens};
use super::support::{Client, Relay, Reply, eventually};
use super::{Attack, ensure};

pub const ATTACKS: &[Attack] = &[
    ("a client's token", |relay| {
        let signed_in = access(&tokens(relay, &register(relay)));
        for token in [signed_in, relay.mint("ada", "client")] {
            let bearer = format!("Bearer {token}");
            let reply = dial(relay, "/ws?name=evil", &[("Authorization", &bearer)]);
            ensure(reply.status == 403, || format!("{}", reply.status))?;
        }
        Ok(())
    }),
    ("tunnel without a token, or with one made up", |relay| {
        for bearer in ["", "Bearer ", "Bearer x", "Basic YWRhOng="] {
            let reply = dial(relay, "/ws?name=evil", &[("Authorization", bearer)]);
            ensure(matches!(reply.status, 400 | 401), || format!("{bearer:?}: {}", reply.status))?;
        }
        Ok(())
    }),
    ("token in the tunnel's URL", |relay| {
        let token = relay.mint("ada", "agent");
        let reply = dial(relay, &format!("/ws?name=old&token={token}"), &[]);
        ensure(reply.status == 403, || format!("{}", reply.status))?;
        ensure(!relay.process.log().contains(&token), || "the token is in the log".into())
    }),
    ("page that opens a WebSocket", |relay| {
        let bearer = format!("Bearer {}", relay.mint("ada", "agent"));
        for origin in ["https://evil.example", "null"] {
            let reply = dial(relay, "/ws?name=evil", &[("Authorization", &bearer), ("Origin", origin)]);
            ensure(reply.status == 403, || format!("{origin}: {}", reply.status))?;
        }
        Ok(())
    }),
    ("tunnel under another host's name", |relay| {
        let bearer = format!("Bearer {}", relay.mint("ada", "agent"));
        let reply = dial(relay, "/ws?name=evil", &[("Authorization", &bearer), ("Host", "evil.example")]);
        ensure(reply.status == 403, || format!("{}", reply.status))
    }),
    ("handshake that is half of one", |relay| {
        let bearer = format!("Bearer {}", relay.mint("ada", "agent"));
        let plain = relay.http("GET", "/ws?name=evil", &[("Authorization", &bearer)], b"");
        ensure(matches!(plain.status, 400 | 426), || format!("no upgrade: {}", plain.status))?;
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "8"),
            ("Sec-WebSocket-Key", KEY),
        ];
        let old = relay.http("GET", "/ws?name=evil", &headers, b"");
        ensure(matches!(old.status, 400 | 426), || format!("version 8: {}", old.status))?;
        let posted = relay.http("POST", "/ws?name=evil", &headers, b"");
        ensure(posted.status == 405, || format!("POST: {}", posted.status))
    }),
    ("device name that is empty, hostile or endless", |relay| {
        let bearer = format!("Bearer {}", relay.mint("ada", "agent"));
        for name in ["", "%00", "a%0d%0aX:%20y", "a%1b%5b31m", &"n".repeat(2_000)] {
            let reply = dial(relay, &format!("/ws?name={name}"), &[("Authorization", &bearer)]);
            ensure(matches!(reply.status, 400 | 414 | 431), || format!("{name:.20}: {}", reply.status))?;
        }
        ensure(!relay.process.log().contains('\u{1b}'), || "it reached the log".into())
    }),
    ("taking another device's name", |relay| {
        let bearer = format!("Bearer {}", relay.mint("ada", "agent"));
        let mut owner = open(relay, "laptop", &bearer, "owner-0123456789abcdef");
        eventually("the owner is connected", Duration::from_secs(10), || {
            let status = Client::connect(relay).call("status", &json!({})).to_string();
            status.contains("laptop").then_some(()).ok_or(status)
        });
        let headers = [("Authorization", bearer.as_str()), ("Mcp-Tunnel-Device", "thief-0123456789abcdef")];
        let mut thief = match upgrade(relay, "laptop", &headers) {
            Ok(socket) => socket,
            Err(reply) => return ensure(reply.status == 409, || format!("{}", reply.status)),
        };
        // Refused in the tunnel, then: the owner's stays.
        let closed = std::iter::from_fn(|| Some(thief.read()))
            .take(20)
            .any(|heard| matches!(heard, Err(_) | Ok(Message::Close(_))));
        ensure(closed, || "both hold the name".into())?;
        ensure(owner.send(Message::Ping("still there".into())).is_ok(), || "the owner is out".into())
    }),
    ("garbage in the tunnel", |relay| {
        let bearer = format!("Bearer {}", relay.mint("ada", "agent"));
        for garbage in [
            Message::text("{\"type\":\"tools\"}"),
            Message::Binary(vec![0xff; 9].into()),
            Message::Binary(vec![0; 200_000].into()),
            Message::Binary([&[1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff][..], &[7; 50]].concat().into()),
        ] {
            let mut socket = open(relay, "garbage", &bearer, "garbage-0123456789abcd");
            drop(socket.send(garbage.clone()));
            let ended = std::iter::from_fn(|| Some(socket.read()))
                .take(50)
                .any(|heard| matches!(heard, Err(_) | Ok(Message::Close(_))));
            ensure(ended, || format!("the tunnel goes on after {:.40}", format!("{garbage:?}")))?;
        }
        Ok(())
    }),
    ("message larger than any", |relay| {
        let bearer = format!("Bearer {}", relay.mint("ada", "agent"));
        let before = relay.process.peak_resident();
        let (mut stream, _) = handshake(relay, "large", &[("Authorization", &bearer), ("Mcp-Tunnel", "2")])
            .map_err(|reply| reply.text())?;
        // One frame that says it has 4 GiB, masked with zeros.
        let mut head = vec![0x82, 0xff];
        head.extend(u64::from(u32::MAX).to_be_bytes());
        head.extend([0; 4]);
        drop(stream.write_all(&head));
        let piece = vec![0; 1 << 20];
        let sent = (0..64).take_while(|_| stream.write_all(&piece).is_ok()).count();
        let grown = relay.process.peak_resident().saturating_sub(before);
        ensure(grown < 16 << 20, || format!("{sent} MiB taken, {grown} bytes kept"))
    }),
];

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A handshake, and what answers it.
pub fn dial(relay: &Relay, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut all = vec![
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
        ("Mcp-Tunnel", "2"),
    ];
    all.extend(headers);
    relay.http("GET", path, &all, b"")
}

fn open(relay: &Relay, device: &str, bearer: &str, id: &str) -> WebSocket<TcpStream> {
    let headers = [("Authorization", bearer), ("Mcp-Tunnel-Device", id)];
    upgrade(relay, device, &headers).unwrap_or_else(|reply| panic!("{} {}", reply.status, reply.text()))
}

/// A tunnel, or why there is none.
fn upgrade(relay: &Relay, device: &str, headers: &[(&str, &str)]) -> Result<WebSocket<TcpStream>, Reply> {
    let mut all = headers.to_vec();
    all.push(("Mcp-Tunnel", "2"));
    let (stream, _) = handshake(relay, device, &all)?;
    Ok(WebSocket::from_raw_socket(stream, Role::Client, None))
}

fn handshake(relay: &Relay, device: &str, headers: &[(&str, &str)]) -> Result<(TcpStream, u16), Reply> {
    let mut all = vec![("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", KEY)];
    all.extend(headers);
    let mut stream = relay.send("GET", &format!("/ws?name={device}"), &all, b"").expect("the relay listens");
    let (status, headers) = Reply::head(&mut stream).expect("the relay answers");
    if status == 101 {
        return Ok((stream.into_inner(), status));
    }
    Err(Reply { status, headers, body: Vec::new() })
}

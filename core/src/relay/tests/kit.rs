//! What the tables of this folder share: how an action is said in short, what there is to hand in, and how a world looks.

use super::*;
use crate::relay::calls::{Phase, Sink};
use crate::table::{self, TIME, given, kinds};
use crate::tunnel::{Close, CloseCode, ResetCode};

kinds!(EVENTS, kind: Event, "" { Post, Listen, Gone, TunnelUp, Tunnel, Revoked, RevokedAll, SessionEnded, Stop });
kinds!(CONTENTS, content: Content, "post: " { Request, Note, Batch });
kinds!(NOTES, of_note: Note, "note: " { Cancelled, Answer, Notification });
kinds!(SAID, of_tunnel: tunnel::Event, "tunnel: " {
    Up, Catalog, Call, Answer, Data, Unlisted, Message, Pause, Notice, Reset, Cancelled, Restart, ClientNotice,
    SessionEnded, GoAway, RoundTrip, Closed,
});

/// All that a shard can be handed.
pub(super) const KINDS: &[&[&str]] = &[EVENTS, CONTENTS, NOTES, SAID, TIME];

/// An event is handed in.
pub(super) fn note(event: &Event) {
    given(kind(event));
    match event {
        Event::Post(post) => {
            given(content(&post.content));
            if let Content::Note(note) = &post.content {
                given(of_note(note));
            }
        }
        Event::Tunnel { event, .. } => given(of_tunnel(event)),
        _ => {}
    }
}

/// What came out so far, and what is on the books: the calls, with how far they are and for whom, and how many there are of
/// everything else.
pub(super) fn look(world: &World) -> String {
    let call = |call: &crate::relay::calls::Call| {
        let phase = match call.phase {
            Phase::Waiting => "call",
            Phase::Answered { .. } => "answered call",
            Phase::Body { .. } => "half answered call",
        };
        let sink = match &call.sink {
            Sink::Reply(outlet) if outlet.is_away() => " of who is away",
            Sink::Reply(_) => "",
            Sink::Slot { .. } => " of a batch",
            Sink::Part { .. } => " of a gathering",
            Sink::Feed { .. } => " of a feed",
            Sink::Nobody => " of nobody",
        };
        format!("{phase}{sink}")
    };
    let books = world.shard.leftovers().into_iter().filter(|(what, _)| !matches!(*what, "calls" | "timers"));
    let books = books.map(|(what, count)| format!("{count} {what}"));
    let books: Vec<String> = world.shard.calls().map(call).chain(books).collect();
    format!("{}; {}", said(&world.told), books.join(", "))
}

/// What concerns whoever else there is: another connection, grant, session or exchange, and what a relay says and is never
/// told.
pub(super) fn strangers(world: &mut World) -> Vec<String> {
    let stream = StreamId(1);
    let json = || Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#);
    let reset = || tunnel::Event::Reset { stream, code: ResetCode::ServerGone, reason: String::new() };
    for event in [
        tunnel::Event::Call { stream, head: tunnel::OpenHead::default(), params: Bytes::new() },
        tunnel::Event::Unlisted { tool: "read".into(), bytes: 1 },
        tunnel::Event::Cancelled { stream, params: Bytes::new() },
        tunnel::Event::Restart { server: None },
        tunnel::Event::ClientNotice { session: "s".into(), server: None, json: json() },
        tunnel::Event::SessionEnded { session: "s".into() },
        tunnel::Event::Up(tunnel::Hello::default()),
        tunnel::Event::RoundTrip { micros: 7 },
        tunnel::Event::Notice { server: "nobody's".into(), sessions: [].into(), json: json() },
    ] {
        world.tunnel(1, event);
    }
    for event in [
        tunnel::Event::Catalog(Bytes::from_static(b"{}")),
        tunnel::Event::Answer { stream, outcome: Outcome::Result, length: None },
        tunnel::Event::Data { stream, bytes: Bytes::from_static(b"{}"), end: true },
        tunnel::Event::Message { stream, json: json(), credit: 1 },
        tunnel::Event::Pause { stream, millis: 1 },
        reset(),
        tunnel::Event::GoAway,
        tunnel::Event::Closed(Close::new(CloseCode::Normal, "")),
    ] {
        world.tunnel(99, event);
    }
    world.event(Event::Gone { exchange: ExchangeId(99) });
    world.event(Event::Revoked { family: FamilyId::new("nobody's") });
    world.event(Event::SessionEnded { user: UserId::new("nobody"), session: SessionKey(Arc::from("s")) });
    world.drain()
}

/// A client's notification that is for servers, and its answer to what nobody asked.
pub(super) fn notes(world: &mut World) -> Vec<String> {
    let mut told = world.post(r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#);
    told.extend(world.post(r#"{"jsonrpc":"2.0","id":"nobody's","result":{}}"#));
    told
}

pub(super) fn revoke_all(world: &mut World) -> Vec<String> {
    world.event(Event::RevokedAll);
    world.drain()
}

/// An action without what other tests look at. Exchanges are named where a client has more than one.
pub(super) fn short(action: &str) -> String {
    let words: Vec<&str> = action.split(' ').collect();
    match words[..] {
        ["tunnel", _, "session", ..] => "session over".to_string(),
        ["tunnel", conn, "open", stream, ..] => format!("open {conn}/{stream}"),
        ["tunnel", conn, "close", ..] => format!("close {conn}"),
        ["tunnel", _, "message" | "notice", ..] if action.contains(r#""error""#) => {
            format!("declined {}", failure(action).0)
        }
        ["tunnel", _, "message" | "notice", ..] if action.contains(r#""result""#) => "answered".to_string(),
        ["tunnel", _, "message" | "notice", ..] => "passed".to_string(),
        ["tunnel", _, command, ..] => command.to_string(),
        ["reply", _, status, ..] => [format!("reply {status}"), outcomes(action)].join(" ").trim_end().to_string(),
        ["body", exchange, ..] => format!("{} {exchange}", said_on_stream(action)),
        [first, exchange, ..] => format!("{first} {exchange}"),
        _ => action.to_string(),
    }
}

/// What a piece of a stream says.
fn said_on_stream(action: &str) -> String {
    let kinds = [
        ("keep-alive", "heartbeat"),
        ("retry:", "retry"),
        ("roots/list\\\"", "question"),
        ("notifications/cancelled", "taken back"),
        ("notifications/progress", "progress"),
        ("list_changed", "changed"),
        ("resources/updated", "updated"),
        ("acknowledged", "acknowledged"),
        ("data: \\n", "priming"),
    ];
    let known = kinds.iter().find(|(word, _)| action.contains(word)).map(|(_, kind)| kind.to_string());
    known.unwrap_or_else(|| outcomes(action))
}

/// The codes of the errors that a message has, and `fine` for each result; in brackets those of a batch.
fn outcomes(action: &str) -> String {
    let text = action.replace("\\\"", "\"");
    let part = |part: &str| match part.split_once(r#""error":{"code":"#) {
        Some((_, rest)) => rest.split(',').next().unwrap_or_default().to_string(),
        None if part.contains(r#""result":"#) => "fine".to_string(),
        None => "piece".to_string(),
    };
    match text.split_once("[{\"jsonrpc\"") {
        Some((_, rest)) => format!("[{}]", rest.split("\"jsonrpc\"").map(part).collect::<Vec<_>>().join(" ")),
        None if text.contains("\"jsonrpc\"") || action.starts_with("body") => part(&text),
        None => String::new(),
    }
}

/// All actions in short; `.`: nothing.
pub(super) fn said(actions: &[String]) -> String {
    let said: Vec<String> = actions.iter().map(|action| short(action)).collect();
    table::told(&said)
}

/// The id in the last event of these actions; empty when there is none.
pub(super) fn last_id(actions: &[String]) -> String {
    let id = |action: &String| Some(action.rsplit_once("\\nid: ")?.1.split_once("\\n")?.0.to_string());
    actions.iter().rev().find_map(id).unwrap_or_default()
}

pub(super) fn revoke(world: &mut World) -> Vec<String> {
    world.event(Event::Revoked { family: FamilyId::new("client-family") });
    world.drain()
}

pub(super) fn session_over(world: &mut World) -> Vec<String> {
    world.event(Event::SessionEnded { user: UserId::new("ann"), session: SessionKey(Arc::from("s")) });
    world.drain()
}

pub(super) fn stop(world: &mut World) -> Vec<String> {
    world.event(Event::Stop);
    world.drain()
}

pub(super) fn lose(world: &mut World) -> Vec<String> {
    world.tunnel(1, tunnel::Event::Closed(Close::new(CloseCode::Normal, "")));
    world.drain()
}

pub(super) fn reset(world: &mut World, stream: u32) -> Vec<String> {
    let stream = StreamId(stream);
    world.tunnel(1, tunnel::Event::Reset { stream, code: ResetCode::ServerGone, reason: String::new() });
    world.drain()
}

pub(super) fn refused(world: &mut World, stream: u32) -> Vec<String> {
    world.error(1, stream, -32050, r#"{"code":-32050,"message":"x"}"#)
}

/// A client comes back for the stream of its reply, or begins one where it has none.
pub(super) fn back(world: &mut World, id: &str) -> Vec<String> {
    world.last_event = Some(id.to_string());
    world.listen()
}

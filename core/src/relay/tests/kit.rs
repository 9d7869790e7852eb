//! What the tables of this folder share: how an action is said in short.

use super::*;
use crate::tunnel::{Close, CloseCode, ResetCode};

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
    let mut said: Vec<String> = actions.iter().map(|action| short(action)).collect();
    said.dedup();
    if said.is_empty() { ".".to_string() } else { said.join(", ") }
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

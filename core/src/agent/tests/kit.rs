//! What the tables of this folder share: what there is to hand in, how an action is said in short, and how an agent looks.

use std::format;

use super::*;
use crate::agent::veil::Veil;
use crate::http::fetch::{FetchError, FetchEvent};
use crate::id::FetchId;
use crate::signin::machine as signin;
use crate::table::{self, TIME, given, kinds};

kinds!(pub(super) EVENTS, kind: Event, "" {
    WishesRecalled, Start, Signin, Dialed, DialFailed, Tunnel, Veiled, Spawned, SpawnFailed, Line, LineTooLong, Wrote,
    OutputEnded, Exited, Fetch, Recalled, ConfigRead, PinsLoaded, PinsSaved, Nudge, NetworkChanged, AuditWritten, Control,
    Stop,
});
kinds!(HEARD, heard: tunnel::Event, "tunnel: " {
    Up, Catalog, Call, Answer, Data, Unlisted, Message, Pause, Notice, Reset, Cancelled, Restart, ClientNotice,
    SessionEnded, GoAway, RoundTrip, Closed,
});
kinds!(FETCHED, fetched: FetchEvent, "fetch: " { Head, Chunk, End, Failed });
kinds!(ASKED, asked: ControlCommand, "control: " { Status, Restart, Approvals, Approve, Deny, Pins, PinsApprove });

/// All that an agent can be handed.
pub(super) const KINDS: &[&[&str]] = &[EVENTS, HEARD, FETCHED, ASKED, TIME];

/// What belongs to the whole agent: its sign-in, its tunnel, its configuration.
pub(super) const WHOLE: (&str, &[&str]) = (
    "it is the whole agent's: table_phases",
    &["Dialed", "Nudge", "NetworkChanged", "tunnel: Up", "fetch: Head", "fetch: Chunk", "fetch: End"],
);

/// An event is handed in.
pub(super) fn note(event: &Event) {
    given(kind(event));
    match event {
        Event::Tunnel { event, .. } => given(heard(event)),
        Event::Fetch { event, .. } => given(fetched(event)),
        Event::Control { command, .. } => given(asked(command)),
        _ => {}
    }
}

/// A server's state, its sessions' runs, and what is on the books for calls.
pub(super) fn look(rig: &mut Rig, server: &str) -> String {
    let books = rig.agent.leftovers();
    let books =
        books.into_iter().filter(|(what, _)| *what != "timers").map(|(what, count)| format!(", {count} {what}"));
    let books: String = books.collect();
    let status = rig.server_status(server);
    let runs = if status.sessions > 0 { format!(", {} runs", status.sessions) } else { String::new() };
    format!("{:?}{runs}{books}", status.state).to_lowercase()
}

/// What concerns whoever else there is: other processes, requests, streams and sessions; what an agent says and is never
/// told; and what people ask of it that changes nothing. What they are answered is taken away.
pub(super) fn strangers(rig: &mut Rig) {
    let (child, conn, stream, fetch) = (ChildId(99), ConnId(99), StreamId(99), FetchId(999));
    let json = || Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    let key = || "nobody".to_string();
    let lost = || Err(FetchError::TimedOut);
    for event in [
        Event::WishesRecalled { json: Bytes::from_static(b"{}") },
        Event::Start { person: Person::Absent },
        Event::Signin(signin::Event::Fetched { fetch, result: lost() }),
        Event::DialFailed { conn, error: crate::agent::contract::DialError::TimedOut },
        Event::Veiled { child, veil: Veil::default() },
        Event::Spawned { child, pid: 7 },
        Event::SpawnFailed { child, error: "gone".to_string() },
        Event::Line { child, line: json() },
        Event::LineTooLong { child, prefix: json(), suffix: Bytes::new(), length: 1 << 30 },
        Event::Wrote { child, bytes: 1 },
        Event::OutputEnded { child },
        Event::Exited { child, code: Some(0), signal: None, stderr: String::new() },
        Event::Fetch { fetch, event: FetchEvent::Failed(FetchError::TimedOut) },
        Event::Recalled { server: key(), catalog: None },
        Event::PinsLoaded { key: key(), result: Ok(None) },
        Event::PinsSaved { key: key(), result: Ok(()) },
        Event::AuditWritten(Ok(())),
        Event::Tunnel { conn, event: tunnel::Event::Closed(Close::new(CloseCode::TimedOut, "")) },
    ] {
        rig.event(event);
    }
    for event in [
        tunnel::Event::Catalog(json()),
        tunnel::Event::Answer { stream, outcome: Outcome::Result, length: None },
        tunnel::Event::Data { stream, bytes: json(), end: true },
        tunnel::Event::Unlisted { tool: key(), bytes: 1 },
        tunnel::Event::Message { stream, json: json(), credit: 0 },
        tunnel::Event::Pause { stream, millis: 1 },
        tunnel::Event::Notice { server: key(), sessions: [].into(), json: json() },
        tunnel::Event::Reset { stream, code: tunnel::ResetCode::Cancelled, reason: String::new() },
        tunnel::Event::Cancelled { stream, params: json() },
        tunnel::Event::ClientNotice { session: key(), server: Some("a".to_string()), json: json() },
        tunnel::Event::SessionEnded { session: key() },
        tunnel::Event::RoundTrip { micros: 7 },
        // The relay goes, and calls may end before it does.
        tunnel::Event::GoAway,
    ] {
        rig.tunnel(event);
    }
    let nobodys = || Some("nobody".to_string());
    for command in [
        ControlCommand::Status,
        ControlCommand::Approvals { params: false },
        ControlCommand::Approve { id: 99, always: true },
        ControlCommand::Deny { id: 99 },
        ControlCommand::Pins { definitions: false },
        ControlCommand::PinsApprove { server: nobodys(), tool: None },
    ] {
        rig.event(Event::Control { job: JobId(7), command });
        rig.reply();
    }
}

/// A restart of all servers, with the configuration as it was.
pub(super) fn restart(rig: &mut Rig) {
    rig.event(Event::Control { job: JobId(7), command: ControlCommand::Restart { server: None } });
    rig.event(Event::ConfigRead(Err("the disk is away".to_string())));
    rig.reply();
}

/// The last part of a method.
pub(super) fn last_part(method: &Value) -> Option<String> {
    method.as_str().map(|method| method.rsplit('/').next().expect("one").to_string())
}

/// What the relay gets, and what is done to processes and told to them: of a message or an answer the stream, of a notice for
/// whom, of a run of a session its number. `None`: catalogs, and what is the tunnel's own.
pub(super) fn short(rig: &Rig, action: &Action) -> Option<String> {
    let of = |child: &ChildId| {
        rig.logs.get(child).and_then(|log| log.split_once('.')).map_or(String::new(), |(_, run)| format!("{run} "))
    };
    Some(match action {
        Action::Tunnel { command: Command::Answer { stream, outcome: Outcome::Result, .. }, .. } => {
            format!("answer {}", stream.0)
        }
        Action::Tunnel { command: Command::Answer { stream, outcome: Outcome::Error { code }, .. }, .. } => {
            format!("error {code} {}", stream.0)
        }
        Action::Tunnel { command: Command::Message { stream, json, .. }, .. } => {
            let json: Value = serde_json::from_slice(json).expect("JSON");
            format!("says {} {}", last_part(&json["method"]).expect("a method"), stream.0)
        }
        Action::Tunnel { command: Command::Notice { sessions, json, .. }, .. } => {
            let json: Value = serde_json::from_slice(json).expect("JSON");
            let whom = if sessions.is_empty() { "all".to_string() } else { sessions.join(" and ") };
            format!("tells {whom}: {}", last_part(&json["method"]).expect("a method"))
        }
        Action::Tunnel { command: Command::GoAway | Command::Close(_), .. } => "leaves".to_string(),
        Action::Write { child, bytes } => {
            let json: Value = serde_json::from_slice(bytes).expect("JSON");
            let what = match (json["method"].as_str(), json["error"]["code"].as_i64()) {
                (Some(method), _) if json.get("id").is_some() => method.to_string(),
                (Some(_), _) => format!("note {}", last_part(&json["method"]).expect("one")),
                (None, Some(code)) => format!("refusal {code}"),
                (None, None) => "reply".to_string(),
            };
            format!("{}{what}", of(child))
        }
        Action::Spawn { child, .. } => format!("{}start", of(child)),
        Action::CloseStdin { child } => format!("{}close input", of(child)),
        Action::Kill { child, force } => format!("{}{}", of(child), if *force { "kill" } else { "end" }),
        Action::KeepWishes { .. } => "keep".to_string(),
        Action::Dial { .. } => "dial".to_string(),
        Action::ReadConfig => "read the configuration".to_string(),
        _ => return None,
    })
}

/// All that came out, in short, taken away; `.`: nothing.
pub(super) fn said(rig: &mut Rig) -> String {
    let actions = core::mem::take(&mut rig.actions);
    let said: Vec<String> = actions.iter().filter_map(|action| short(rig, action)).collect();
    table::told(&said)
}

//! Dialect V1 on a relay: an old agent's tools become a catalog, its answers become streams of one piece.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{About, Envelope, Outbox, label, text};
use crate::id::StreamId;
use crate::limits::{MAX_CATALOG, MAX_STREAMS, MAX_TOOLS, V1_CALL_TIMEOUT};
use crate::mcp::catalog::{Announced, Server, State, Update};
use crate::mcp::method;
use crate::names;
use crate::rpc::{self, INTERNAL_ERROR, METHOD_NOT_FOUND, envelope, object, quoted};
use crate::time::Deadline;
use crate::timers::Timers;
use crate::tunnel::close::Fault;
use crate::tunnel::connection::Cx;
use crate::tunnel::{Command, Event, Message, OpenHead, Outcome, ResetCode};

/// A relay's side of a V1 tunnel.
#[derive(Debug, Default)]
pub(in crate::tunnel) struct V1Relay {
    /// The open calls, and when each has waited long enough.
    calls: Timers<u32>,
    /// Tools that the agent lists without a server's name; they are put under [`NAMELESS`].
    nameless: BTreeSet<String>,
    outbox: Outbox,
}

impl V1Relay {
    /// Whether no call is open.
    pub(in crate::tunnel) fn is_idle(&self) -> bool {
        self.calls.is_empty()
    }

    pub(in crate::tunnel) fn handle_text(&mut self, message: &Bytes, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let envelope = Envelope::read(message)?;
        match &*envelope.kind {
            "tools" => self.take_tools(message, envelope.tools, cx)?,
            "response" => {
                let body = envelope.result.map_or(Bytes::from_static(b"null"), |raw| part(message, raw));
                self.take_answer(envelope.id, Outcome::Result, body, cx);
            }
            "error" => {
                let said = text(envelope.message).unwrap_or_default();
                let body = envelope::error_object(INTERNAL_ERROR, &said, None);
                self.take_answer(envelope.id, Outcome::Error { code: INTERNAL_ERROR }, body, cx);
            }
            _ => tracing::debug!("message of an unknown type skipped"),
        }
        Ok(())
    }

    pub(in crate::tunnel) fn handle_command(&mut self, command: Command, cx: &mut Cx<'_>) {
        match command {
            Command::Open { stream, head, params, v1_tool } => self.open(stream, &head, &params, v1_tool, cx),
            Command::Reset { stream, .. } | Command::Cancel { stream, .. } => {
                self.calls.clear(&stream.0);
                self.outbox.remove(About::Call(stream.0));
            }
            // An old agent cannot restart one server alone.
            Command::Restart { server: _ } => {
                self.outbox.remove(About::Restart);
                if self.outbox.push(About::Restart, &[br#"{"type":"restart"}"#]).is_err() {
                    tracing::warn!("restart not sent: too much waits to be sent");
                }
            }
            Command::Consumed { .. } | Command::Message { .. } | Command::GoAway => {}
            // An old agent knows of no sessions.
            Command::ClientNotice { .. } | Command::SessionEnded { .. } => {}
            Command::Catalog(_) | Command::Answer { .. } | Command::Notice { .. } | Command::Pause { .. } => {
                tracing::error!("order that is not a relay's");
            }
            Command::Probe | Command::Close(_) => {}
        }
    }

    pub(in crate::tunnel) fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        while let Some(stream) = self.calls.pop_due(cx.now) {
            self.outbox.remove(About::Call(stream));
            reset(StreamId(stream), ResetCode::TimedOut, "the device did not answer in time", cx);
        }
    }

    pub(in crate::tunnel) fn poll_timeout(&self) -> Option<Deadline> {
        self.calls.next().map(|(at, _)| Deadline { at, reason: "answer of an old agent" })
    }

    pub(in crate::tunnel) fn poll_transmit(&mut self, in_use: bool, cx: &mut Cx<'_>) -> Option<Message> {
        self.outbox.poll_transmit(in_use, cx)
    }

    fn open(&mut self, stream: StreamId, head: &OpenHead, params: &Bytes, tool: Option<String>, cx: &mut Cx<'_>) {
        let Some(tool) = tool.filter(|_| &*head.method == method::TOOLS_CALL) else {
            let code = METHOD_NOT_FOUND;
            let body = envelope::error_object(code, "the device runs an old agent, which only calls tools", None);
            return answer(stream, Outcome::Error { code }, body, cx);
        };
        if self.calls.len() >= MAX_STREAMS {
            return reset(stream, ResetCode::Overloaded, "the device has too many calls open", cx);
        }
        let id = quoted(&stream.to_string());
        let tool = quoted(self.listed(&tool));
        let arguments = object::get(params, "arguments").unwrap_or(Bytes::from_static(b"{}"));
        let parts: [&[u8]; 7] = [
            br#"{"type":"request","id":"#,
            id.as_bytes(),
            br#","method":"#,
            tool.as_bytes(),
            br#","params":"#,
            &arguments,
            b"}",
        ];
        match self.outbox.push(About::Call(stream.0), &parts) {
            Ok(()) => self.calls.set(stream.0, cx.now + V1_CALL_TIMEOUT),
            Err(code) => reset(stream, code, "the request is larger than an old agent takes", cx),
        }
    }

    /// The name that the agent listed, from server and tool joined.
    fn listed<'a>(&self, joined: &'a str) -> &'a str {
        match names::split(joined) {
            Some((NAMELESS, tool)) if self.nameless.contains(tool) => tool,
            Some(_) | None => joined,
        }
    }

    fn take_answer(&mut self, id: Option<&RawValue>, outcome: Outcome, body: Bytes, cx: &mut Cx<'_>) {
        let stream = text(id).and_then(|id| id.parse::<u32>().ok());
        match stream.filter(|stream| self.calls.get(stream).is_some()) {
            Some(stream) => {
                self.calls.clear(&stream);
                // Nobody answers what was not asked yet; if one does, it is not to be asked any more.
                self.outbox.remove(About::Call(stream));
                answer(StreamId(stream), outcome, body, cx);
            }
            None => tracing::debug!("late answer dropped"),
        }
    }

    /// Sorts the listed tools by server, each with its own name again.
    fn take_tools(&mut self, message: &Bytes, tools: Option<&RawValue>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let tools = tools.map_or("[]", RawValue::get);
        if tools.len() > MAX_CATALOG {
            return Err(Fault::too_big("catalog too large"));
        }
        let Tools(tools) = serde_json::from_str(tools).map_err(|_| Fault::protocol("not a list of tools"))?;
        self.nameless.clear();
        let mut servers = BTreeMap::<String, Vec<_>>::new();
        for raw in tools {
            let tool = part(message, raw);
            let Ok(tool) = object::Object::parse(&tool) else { continue };
            let Some(name) = tool.get("name") else { continue };
            let Some(name) = rpc::string(&name) else { continue };
            let (server, own) = names::split(&name).unwrap_or_else(|| {
                self.nameless.insert(name.clone().into_owned());
                (NAMELESS, &name)
            });
            let tool = own_tool(&tool, server, own);
            let Ok(tool) = serde_json::from_slice(&tool) else { continue };
            servers.entry(server.into()).or_default().push(tool);
        }
        let servers = servers.into_iter().map(|(name, tools)| server(name, tools)).collect();
        let update = Update { whole: true, servers, removed: Vec::new(), remark: None };
        let json = serde_json::to_vec(&update).expect("a catalog is plain structures and JSON");
        cx.events.push_back(Event::Catalog(json.into()));
        Ok(())
    }
}

/// The server under which tools without one are listed.
const NAMELESS: &str = "tools";

fn server(name: String, tools: Vec<alloc::boxed::Box<RawValue>>) -> Server {
    let capabilities = RawValue::from_string(r#"{"tools":{"listChanged":true}}"#.into()).ok();
    Server {
        name,
        state: State::Ready,
        reason: None,
        info: None,
        capabilities,
        instructions: None,
        versions: Vec::new(),
        tools,
        prompts: Vec::new(),
        resources: Vec::new(),
        templates: Vec::new(),
        legacy: None,
        announced: Announced::default(),
        announced_legacy: None,
        changed: Vec::new(),
        isolated: false,
        since_secs: 0,
        restarts: 0,
    }
}

/// A listed tool as its server has it: with its own name, without its server's label. The relay sets its own labels.
fn own_tool(listed: &object::Object, server: &str, name: &str) -> Bytes {
    let name = quoted(name);
    let description = listed.get("description").unwrap_or_default();
    match description.strip_prefix(label(server).as_bytes()) {
        // There was none: an old agent labels that too.
        Some(b"\"" | b" \"") => {
            let named = listed.replace(&[("name", name.as_bytes())]);
            object::Object::parse(&named).map_or(named, |tool| tool.remove(&["description"]))
        }
        Some([b' ', rest @ ..]) => {
            let own = [b"\"", rest].concat();
            listed.replace(&[("name", name.as_bytes()), ("description", &own)])
        }
        Some(_) | None => listed.replace(&[("name", name.as_bytes())]),
    }
}

fn answer(stream: StreamId, outcome: Outcome, body: Bytes, cx: &mut Cx<'_>) {
    let length = u64::try_from(body.len()).ok();
    cx.events.push_back(Event::Answer { stream, outcome, length });
    cx.events.push_back(Event::Data { stream, bytes: body, end: true });
}

fn reset(stream: StreamId, code: ResetCode, reason: &str, cx: &mut Cx<'_>) {
    cx.events.push_back(Event::Reset { stream, code, reason: reason.into() });
}

/// `raw`, which was read from `message`, sharing its buffer.
fn part(message: &Bytes, raw: &RawValue) -> Bytes {
    message.slice_ref(raw.get().as_bytes())
}

/// A list of tools that stops at [`MAX_TOOLS`]: a list of many small things would take far more memory than its text.
struct Tools<'a>(Vec<&'a RawValue>);

impl<'a> serde::Deserialize<'a> for Tools<'a> {
    fn deserialize<D: serde::Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;
        impl<'a> Visitor<'a> for Bounded {
            type Value = Tools<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of tools")
            }

            fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Tools<'a>, A::Error> {
                let mut tools = Vec::new();
                while let Some(tool) = seq.next_element()? {
                    if tools.len() >= MAX_TOOLS {
                        return Err(A::Error::custom(format!("more than {MAX_TOOLS} tools")));
                    }
                    tools.push(tool);
                }
                Ok(Tools(tools))
            }
        }
        deserializer.deserialize_seq(Bounded)
    }
}

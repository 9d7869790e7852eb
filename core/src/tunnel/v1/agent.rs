//! Dialect V1 on an agent: the catalog becomes an old relay's list of tools, its requests become calls.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::{About, Envelope, Outbox, label, text};
use crate::id::StreamId;
use crate::limits::{MAX_STREAMS, V1_CALL_TIMEOUT};
use crate::mcp::catalog::Update;
use crate::mcp::method;
use crate::names;
use crate::rpc::{self, RawId, object, quoted};
use crate::time::Deadline;
use crate::timers::Timers;
use crate::tunnel::close::{Fault, cut};
use crate::tunnel::connection::Cx;
use crate::tunnel::{Command, Event, Message, OpenHead, Outcome, ResetCode};

/// An agent's side of a V1 tunnel.
#[derive(Debug, Default)]
pub(in crate::tunnel) struct V1Agent {
    /// Every server's tools: an old relay takes only whole lists, while a catalog may come in changes.
    servers: BTreeMap<String, Vec<Tool>>,
    /// The list that the relay was told last: what else changes in a catalog is not for it.
    told: Option<String>,
    /// The relay's ids of the open calls, as they stood in its JSON.
    calls: BTreeMap<u32, RawId>,
    /// When the relay stops waiting for each.
    patience: Timers<u32>,
    /// The last call's number.
    last: u32,
    outbox: Outbox,
}

/// A tool as an old relay is told of it.
#[derive(Debug)]
struct Tool {
    /// The server's own name for it.
    name: String,
    listed: String,
    /// The members that an old relay knows, raw, without the name.
    members: Vec<(&'static str, Bytes)>,
}

impl V1Agent {
    /// Whether no call is open.
    pub(in crate::tunnel) fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.patience.is_empty()
    }

    pub(in crate::tunnel) fn handle_text(&mut self, message: &Bytes, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let envelope = Envelope::read(message)?;
        match &*envelope.kind {
            "request" => self.take_request(&envelope, cx),
            "restart" => {
                // The predecessor always lists its tools after it.
                self.told = None;
                cx.events.push_back(Event::Restart { server: None });
            }
            _ => tracing::debug!("message of an unknown type skipped"),
        }
        Ok(())
    }

    pub(in crate::tunnel) fn handle_command(&mut self, command: Command) {
        match command {
            Command::Catalog(json) => self.list(&json),
            Command::Answer { stream, outcome, body } => self.answer(stream.0, outcome, &body),
            Command::Reset { stream, code, reason } => {
                let reason = if reason.is_empty() { format!("the call was ended: {code:?}") } else { reason };
                self.finish(stream.0, |outbox, id| error(outbox, stream.0, id, &reason));
            }
            Command::Message { .. } | Command::Notice { .. } | Command::Pause { .. } | Command::GoAway => {}
            Command::Open { .. }
            | Command::Consumed { .. }
            | Command::Cancel { .. }
            | Command::Restart { .. }
            | Command::ClientNotice { .. }
            | Command::SessionEnded { .. } => {
                tracing::error!("order that is not an agent's");
            }
            Command::Probe | Command::Close(_) => {}
        }
    }

    /// An old relay waits only so long and cannot say that it stopped: the call ends here as if it had.
    pub(in crate::tunnel) fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        while let Some(stream) = self.patience.pop_due(cx.now) {
            self.calls.remove(&stream);
            let (code, reason) = (ResetCode::TimedOut, "the relay waits no longer".into());
            cx.events.push_back(Event::Reset { stream: StreamId(stream), code, reason });
        }
    }

    pub(in crate::tunnel) fn poll_timeout(&self) -> Option<Deadline> {
        self.patience.next().map(|(at, _)| Deadline { at, reason: "patience of an old relay" })
    }

    pub(in crate::tunnel) fn poll_transmit(&mut self, in_use: bool, cx: &mut Cx<'_>) -> Option<Message> {
        self.outbox.poll_transmit(in_use, cx)
    }

    fn take_request(&mut self, envelope: &Envelope<'_>, cx: &mut Cx<'_>) {
        let Some(id) = envelope.id.and_then(|id| RawId::from_raw(id.get().as_bytes())) else {
            return tracing::debug!("request without an id skipped");
        };
        let name = text(envelope.method).unwrap_or_default();
        let found = self.servers.iter().find_map(|(server, tools)| {
            let tool = tools.iter().find(|tool| tool.listed == name)?;
            Some((server.clone(), tool.name.as_str()))
        });
        let Some((server, tool)) = found else {
            let mut name = name.into_owned();
            cut(&mut name, 128);
            error(&mut self.outbox, 0, &id, &format!("unknown tool: {name}"));
            let bytes = envelope.params.map_or(0, |params| params.get().len());
            return cx.events.push_back(Event::Unlisted { tool: name, bytes });
        };
        if self.calls.len() >= MAX_STREAMS {
            return error(&mut self.outbox, 0, &id, "too many calls open");
        }
        let arguments = envelope.params.map_or("{}", |params| params.get());
        let params = Bytes::from(format!(r#"{{"name":{},"arguments":{arguments}}}"#, quoted(tool)));
        // Numbers are only reused after four billion calls on one tunnel.
        self.last = self.last.checked_add(1).unwrap_or(1);
        let stream = self.last;
        self.calls.insert(stream, id);
        self.patience.set(stream, cx.now + V1_CALL_TIMEOUT);
        let head = OpenHead {
            server: server.into(),
            method: method::TOOLS_CALL.into(),
            length: u64::try_from(params.len()).unwrap_or(u64::MAX),
            ..OpenHead::default()
        };
        cx.events.push_back(Event::Call { stream: StreamId(stream), head, params });
    }

    fn answer(&mut self, stream: u32, outcome: Outcome, body: &Bytes) {
        self.finish(stream, |outbox, id| match outcome {
            Outcome::Result => {
                let parts: [&[u8]; 5] = [br#"{"type":"response","id":"#, id.as_bytes(), br#","result":"#, body, b"}"];
                if outbox.push(About::Call(stream), &parts).is_err() {
                    error(outbox, stream, id, "the answer is larger than an old relay takes");
                }
            }
            Outcome::Error { code } => {
                let raw = object::get(body, "message").unwrap_or_default();
                let message = rpc::string(&raw).unwrap_or_else(|| format!("error {code}").into());
                error(outbox, stream, id, &message);
            }
        });
    }

    /// Ends a call with what `say` queues; nothing happens when it has ended already.
    fn finish(&mut self, stream: u32, say: impl FnOnce(&mut Outbox, &RawId)) {
        self.patience.clear(&stream);
        match self.calls.remove(&stream) {
            Some(id) => say(&mut self.outbox, &id),
            None => tracing::debug!(call = stream, "late answer dropped"),
        }
    }

    /// Takes a catalog or a change of it, and queues the whole list, if it is another, in place of one that was not sent
    /// yet.
    fn list(&mut self, json: &Bytes) {
        let Ok(update) = serde_json::from_slice::<Update>(json) else {
            return tracing::error!("catalog that cannot be read");
        };
        if update.whole {
            self.servers.clear();
        }
        for name in update.removed {
            self.servers.remove(&name);
        }
        for server in update.servers {
            let tools = server.tools.iter().filter_map(|raw| Tool::read(&server.name, raw.get())).collect();
            self.servers.insert(server.name, tools);
        }
        let list = self.servers.values().flatten().map(Tool::write).collect::<Vec<_>>().join(",");
        if self.told.as_ref() == Some(&list) {
            return;
        }
        self.outbox.remove(About::Tools);
        let parts: [&[u8]; 3] = [br#"{"type":"tools","tools":["#, list.as_bytes(), b"]}"];
        if let Err(code) = self.outbox.push(About::Tools, &parts) {
            tracing::warn!(bytes = list.len(), ?code, "catalog not sent: over the limit");
            self.told = None;
            return;
        }
        self.told = Some(list);
    }
}

impl Tool {
    fn read(server: &str, raw: &str) -> Option<Self> {
        let object = object::Object::parse(&Bytes::copy_from_slice(raw.as_bytes())).ok()?;
        let name = rpc::string(&object.get("name")?)?.into_owned();
        let description = ("description", described(server, object.get("description").as_deref()));
        let known = ["inputSchema", "annotations"];
        let others = known.into_iter().filter_map(|key| Some((key, object.get(key)?)));
        let members = core::iter::once(description).chain(others).collect();
        Some(Self { listed: names::listed(None, server, &name), name, members })
    }

    fn write(&self) -> String {
        let mut out = format!(r#"{{"name":{}"#, quoted(&self.listed));
        for (key, value) in &self.members {
            let value = core::str::from_utf8(value).expect("it was cut out of a string");
            out.push_str(&format!(r#","{key}":{value}"#));
        }
        out.push('}');
        out
    }
}

/// A description behind its server's label. An old relay has no other place for it.
fn described(server: &str, description: Option<&[u8]>) -> Bytes {
    let mut out = label(server).into_bytes();
    match description.and_then(|raw| raw.strip_prefix(b"\"")) {
        Some(rest) => {
            out.push(b' ');
            out.extend_from_slice(rest);
        }
        None => out.push(b'"'),
    }
    out.into()
}

fn error(outbox: &mut Outbox, stream: u32, id: &RawId, message: &str) {
    let message = quoted(message);
    let parts: [&[u8]; 5] = [br#"{"type":"error","id":"#, id.as_bytes(), br#","message":"#, message.as_bytes(), b"}"];
    if outbox.push(About::Call(stream), &parts).is_err() {
        tracing::warn!(call = stream, "error not sent: too much waits to be sent");
    }
}

//! What clients do.

use std::time::Duration;

use serde_json::{Value, json};
use tunnel_core::id::ExchangeId;

use super::oracle::{Call, Deed, Gate, Kind, Rest};
use super::plan::{Act, Tool};
use super::stage::{Stage, library, server_name};
use crate::client::Exchange;
use crate::script::{MARKER, resource};

impl Stage {
    /// Does what clients do; `false`: it is something else.
    pub(super) fn use_it(&mut self, act: &Act) -> bool {
        match *act {
            Act::Call { client, agent, server, tool, size } => {
                let Some(person) = self.person(client) else { return true };
                let Some(laptop) = self.laptop_of(self.people[person].user, agent) else { return true };
                let Some(server) = self.server(laptop, server) else { return true };
                let exchange = self.call(person, laptop, server, tool, size);
                // Some take a large answer only much later, or too late.
                if tool == Tool::Blob && size % 4 == 3 {
                    self.oracle.stops_reading(exchange);
                    self.world.set_reading(exchange, false);
                    let late = Duration::from_millis(u64::from(size) % 90_000);
                    self.later(late, super::faults::Undo::Read(exchange));
                }
            }
            Act::ComeBack { which } => self.come_back(which),
            Act::Batch { client, agent, server, ref items } => drop(self.batch(client, agent, server, items)),
            Act::Stray { client, agent, server, how, ms, back_ms } => {
                self.stray((client, agent, server), how, ms, back_ms);
            }
            Act::Watch { client, agent, server, on } => self.watch(client, agent, server, on),
            Act::Update { agent, server } => self.update(agent, server),
            Act::Decide { agent, yes, always } => {
                if let Some(laptop) = self.laptop(agent) {
                    self.decide(laptop, yes, always);
                }
            }
            Act::Trespass { client, agent, server } => self.trespass(client, agent, server),
            Act::List { client } => self.ask(client, Kind::List, "tools/list", &json!({})),
            Act::Status { client } => {
                self.ask(client, Kind::Other, "tools/call", &json!({"name": "status", "arguments": {}}));
            }
            Act::Restart { client, agent, server } => {
                let Some(laptop) = self.laptop(agent) else { return true };
                let Some(server) = self.server(laptop, server) else { return true };
                if self.person(client).is_some_and(|person| self.people[person].user == self.laptops[laptop].user) {
                    self.disturb(laptop, Duration::ZERO);
                    let arguments =
                        json!({"device": self.laptops[laptop].device, "server": server_name(laptop, server)});
                    let params = json!({"name": "restart", "arguments": arguments});
                    self.ask(client, Kind::Other, "tools/call", &params);
                }
            }
            Act::Listen { client } => self.listen(client),
            Act::NewSession { client } => {
                if let Some(person) = self.person(client) {
                    self.end_session(person);
                }
            }
            Act::Cancel { call } => {
                if let Some(exchange) = self.oracle.open_call(call) {
                    self.cancel(exchange);
                }
            }
            Act::HangUp { call } => {
                if let Some(exchange) = self.oracle.open_call(call) {
                    self.hang_up(exchange);
                }
            }
            Act::StopReading { call, ms } => {
                if let Some(exchange) = self.oracle.open_call(call) {
                    self.oracle.stops_reading(exchange);
                    self.world.set_reading(exchange, false);
                    self.later(Duration::from_millis(ms.into()), super::faults::Undo::Read(exchange));
                }
            }
            _ => return false,
        }
        true
    }

    /// Calls a tool by its whole name.
    pub(super) fn call(&mut self, person: usize, laptop: usize, server: usize, tool: Tool, size: u32) -> ExchangeId {
        // A modern client may ask at any endpoint: at that of the server alone, names have no prefix.
        let is_direct = self.people[person].client.is_modern() && self.last.is_multiple_of(3);
        let device = &self.laptops[laptop].device;
        let path = if is_direct { format!("/mcp/{device}/{}", server_name(laptop, server)) } else { "/mcp".to_owned() };
        let (call, method, params) = self.prepare(person, (laptop, server), tool, size, &path);
        let client = &mut self.people[person].client;
        let exchange = client.request_at(&mut self.world, &path, method, &params);
        self.oracle.calls.insert(exchange, call);
        exchange
    }

    /// A call that is about to be made, its method and its params.
    pub(super) fn prepare(
        &mut self,
        person: usize,
        (laptop, server): (usize, usize),
        tool: Tool,
        size: u32,
        path: &str,
    ) -> (Call, &'static str, Value) {
        let user = self.people[person].user;
        let marker = format!("{}-of-{user}", self.number());
        let server_name = server_name(laptop, server);
        let prefix =
            if path == "/mcp" { format!("{}__{server_name}__", self.laptops[laptop].device) } else { String::new() };
        let name = format!("{prefix}{}", word(tool));
        let arguments = match tool {
            Tool::Wait => json!({MARKER: marker, "ms": size}),
            Tool::Blob => json!({MARKER: marker, "bytes": size}),
            Tool::Progress => json!({MARKER: marker, "steps": size % 12, "ms": size}),
            Tool::Flood => json!({MARKER: marker, "steps": size, "ms": 5, "words": 9_000}),
            Tool::Huge => json!({MARKER: marker, "bytes": 100_000_000}),
            Tool::Echo | Tool::Silent | Tool::Die | Tool::Ask | Tool::Read | Tool::Prompt => json!({MARKER: marker}),
        };
        let mut params = json!({"_meta": {"progressToken": marker}});
        let method = match tool {
            Tool::Read => {
                params["uri"] = json!(resource(&library(user, &server_name), &marker));
                "resources/read"
            }
            Tool::Prompt => "prompts/get",
            _ => "tools/call",
        };
        if tool != Tool::Read {
            params["name"] = json!(name);
            params["arguments"] = arguments.clone();
        }
        if self.laptops[laptop].plan.servers[server].policy >= 2 && self.last.is_multiple_of(2) {
            self.later(Duration::from_secs(2), super::faults::Undo::Decides(laptop));
        }
        let is_calm = self.is_calm(person, laptop, server);
        let is_strict = is_calm && self.is_answered(laptop, server, tool);
        if matches!(tool, Tool::Die) {
            self.disturb(laptop, Duration::ZERO);
        }
        // Of what is no tool its method is what a person is asked about.
        let subject = if method == "tools/call" { word(tool) } else { method };
        let actor = (!self.laptops[laptop].plan.old).then_some(person);
        let deed = Deed { actor, laptop, server: server_name, tool: subject };
        let gate = match self.laptops[laptop].plan.servers[server].policy {
            1 if tool == Tool::Blob => Gate::Denied,
            2 => Gate::First,
            3 => Gate::Always,
            _ => Gate::Open,
        };
        let client = &self.people[person].client;
        self.oracle.will_call(&marker, person, deed, gate, client.session());
        let call = Call {
            verdict: self.verdict(person),
            path: path.to_owned(),
            marker,
            laptop: Some(laptop),
            server: Some(server),
            tool: Some(tool),
            arguments,
            name,
            sent_at: self.world.micros(),
            is_calm,
            is_strict,
            disturbances: self.laptops[laptop].disturbances,
            changes: self.people[person].changes,
            size,
            ..Call::other(Kind::Call, person, client.next_id(), client.is_modern())
        };
        (call, method, params)
    }

    /// Whether a server has an answer to a call.
    fn is_answered(&self, laptop: usize, server: usize, tool: Tool) -> bool {
        let it = &self.laptops[laptop];
        let plan = &it.plan.servers[server];
        match tool {
            Tool::Blob => plan.policy != 1,
            Tool::Echo | Tool::Wait | Tool::Progress => true,
            // V1 has no way to ask anything.
            Tool::Ask => !it.plan.old,
            Tool::Read | Tool::Prompt => !it.plan.old && plan.library,
            Tool::Silent | Tool::Die | Tool::Huge | Tool::Flood => false,
        }
    }

    /// Whether all is well that a call needs: the model says what becomes of it, should nothing happen meanwhile.
    fn is_calm(&self, person: usize, laptop: usize, server: usize) -> bool {
        let it = &self.laptops[laptop];
        let plan = &it.plan.servers[server];
        let is_fine = plan.start % 5 < 2 && !it.spoilt.contains_key(&server);
        it.key.is_some()
            && is_fine
            && plan.policy < 2
            && self.world.micros() > it.disturbed_until
            && self.people[person].client.is_ready()
            && self.verdict(person) == super::oracle::Verdict::Opens
    }

    /// A client of one user names what is another's.
    fn trespass(&mut self, client: u8, agent: u8, server: u8) {
        let Some(person) = self.person(client) else { return };
        let user = self.people[person].user;
        let Some(other) = super::stage::USERS.into_iter().find(|other| *other != user) else { return };
        let Some(laptop) = self.laptop_of(other, agent) else { return };
        let Some(server) = self.server(laptop, server) else { return };
        let marker = format!("{}-of-{user}", self.number());
        let name = format!("{}__{}__echo", self.laptops[laptop].device, server_name(laptop, server));
        self.ask(client, Kind::Trespass, "tools/call", &json!({"name": name, "arguments": {MARKER: marker}}));
    }

    /// Any request whose answer is looked at for what must not be in it.
    pub(super) fn ask(&mut self, client: u8, kind: Kind, method: &str, params: &Value) {
        let Some(person) = self.person(client) else { return };
        let verdict = self.verdict(person);
        let client = &mut self.people[person].client;
        let (id, is_modern) = (client.next_id(), client.is_modern());
        let exchange = client.request(&mut self.world, method, params);
        self.note(exchange, kind, person, id, verdict, is_modern);
    }

    pub(super) fn note(
        &mut self,
        exchange: ExchangeId,
        kind: Kind,
        person: usize,
        id: u64,
        verdict: super::oracle::Verdict,
        is_modern: bool,
    ) {
        let sent_at = self.world.micros();
        let changes = self.people[person].changes;
        self.oracle
            .calls
            .insert(exchange, Call { verdict, sent_at, changes, ..Call::other(kind, person, id, is_modern) });
    }

    pub(super) fn listen(&mut self, client: u8) {
        let Some(person) = self.person(client) else { return };
        if let Some(before) = self.people[person].listening.take() {
            self.oracle.calls.remove(&before);
            self.world.hang_up(before);
        }
        let verdict = self.verdict(person);
        let resources = self.resources_of(self.people[person].user);
        let client = &mut self.people[person].client;
        let (id, is_modern) = (client.next_id(), client.is_modern());
        let exchange = if is_modern {
            let params = json!({"notifications": {"toolsListChanged": true, "resourceSubscriptions": resources}});
            client.request(&mut self.world, "subscriptions/listen", &params)
        } else {
            client.listen(&mut self.world)
        };
        self.people[person].listening = Some(exchange);
        self.note(exchange, Kind::Listen, person, id, verdict, is_modern);
    }

    /// Begins a session; a modern client has none.
    pub(super) fn new_session(&mut self, person: usize) {
        if self.people[person].client.is_modern() {
            return;
        }
        let verdict = self.verdict(person);
        self.oracle.watched.retain(|(of, ..), _| *of != person);
        let it = &mut self.people[person];
        it.changes += 1;
        let id = it.client.next_id();
        let exchange = it.client.ask_for_session(&mut self.world);
        self.note(exchange, Kind::Initialize, person, id, verdict, false);
    }

    /// Ends the session, and begins another.
    fn end_session(&mut self, person: usize) {
        let it = &self.people[person];
        if it.client.is_modern() || !it.client.is_ready() {
            return self.new_session(person);
        }
        let verdict = self.verdict(person);
        let before = it.client.clone();
        let open = self.open_in_session(person);
        if !open.is_empty() {
            self.world.trace.cover("a session was ended with work open");
        }
        let exchange = before.delete(&mut self.world);
        self.note(exchange, Kind::Delete(Box::new(before), open), person, 0, verdict, false);
        self.new_session(person);
    }

    /// Gives a call up as its client's era does.
    fn cancel(&mut self, exchange: ExchangeId) {
        let Some(call) = self.oracle.calls.get(&exchange) else { return };
        if call.is_modern {
            return self.hang_up(exchange);
        }
        let person = call.person;
        // Of a batch, the first of its calls.
        let one = match &call.kind {
            Kind::Batch(calls) => calls.iter().find(|call| call.tool.is_some()).unwrap_or(call),
            _ => call,
        };
        let (id, marker) = (one.id, one.marker.clone());
        // In a session of its own that id is nobody's: where the old one could not be ended, the call goes on there.
        let kind = if call.changes == self.people[person].changes { Kind::Cancels(marker) } else { Kind::Note };
        self.oracle.gives_up(exchange);
        let verdict = self.verdict(person);
        let note = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
        let taken = self.people[person].client.post(&mut self.world, &note);
        self.note(taken, kind, person, 0, verdict, false);
    }

    pub(super) fn hang_up(&mut self, exchange: ExchangeId) {
        if let Some(call) = self.oracle.calls.remove(&exchange) {
            self.world.trace.cover("a client hung up");
            let reply = self.world.has(exchange).then(|| self.world.exchange(exchange).clone());
            if let Some(reply) = reply {
                self.oracle.told.had(call.person, &reply.messages());
                self.may_come_back(&call, &reply);
            }
            // Up to 2025-11-25 that is no cancel, and V1 knows of none.
            if call.is_modern && self.is_cancellable(&call) && self.world.relay_is_up() {
                self.oracle.gave_up(&call.marker);
            }
        }
        self.world.hang_up(exchange);
    }

    /// A stream that breaks after an event can be taken up again, by a client of a revision that has that.
    pub(super) fn may_come_back(&mut self, call: &Call, reply: &Exchange) {
        if let (false, Kind::Call | Kind::Batch(_), Some(last)) = (call.is_modern, &call.kind, reply.last_event()) {
            let had = match &call.kind {
                Kind::Batch(_) => reply.messages().iter().any(Value::is_array),
                _ => !reply.answers().is_empty(),
            };
            let asked_at = call.rest.as_ref().map_or(call.sent_at, |rest| rest.asked_at);
            let rest = Rest { had, asked_at, left_at: self.world.micros() };
            self.oracle.broken.push((Call { rest: Some(rest), ..call.clone() }, last));
            if call.id.is_multiple_of(2) {
                self.later(Duration::from_millis(400), super::faults::Undo::TakesUp);
            }
        }
    }

    pub(super) fn come_back(&mut self, which: u8) {
        let Some(index) = usize::from(which).checked_rem(self.oracle.broken.len()) else { return };
        let (call, last) = self.oracle.broken.swap_remove(index);
        // Another session has nothing to do with it.
        if call.changes != self.people[call.person].changes {
            return;
        }
        self.world.trace.cover("a client came back for its stream");
        let verdict = self.verdict(call.person);
        let exchange = self.people[call.person].client.resume(&mut self.world, &last);
        let sent_at = self.world.micros();
        let again = Call { is_calm: false, is_strict: false, is_given_up: false, cancelled_at: None, ..call };
        self.oracle.calls.insert(exchange, Call { verdict, sent_at, ..again });
    }

    /// A client loses the connection in the course of a call, and comes back.
    fn stray(&mut self, (client, agent, server): (u8, u8, u8), how: u8, ms: u32, back_ms: u32) {
        let Some(person) = self.person(client) else { return };
        let Some(laptop) = self.laptop_of(self.people[person].user, agent) else { return };
        let Some(index) = self.server(laptop, server) else { return };
        let servers = &self.laptops[laptop].plan.servers;
        let of_web = || servers.iter().position(|server| server.web);
        let index = if how % 5 == 3 { of_web().unwrap_or(index) } else { index };
        let exchange = match how % 5 {
            2 => self.batch(client, agent, server, &[2, 0]),
            1 => Some(self.call(person, laptop, index, Tool::Wait, ms.saturating_mul(2))),
            _ => Some(self.call(person, laptop, index, Tool::Progress, 11 + ms / 4)),
        };
        let Some(exchange) = exchange else { return };
        let after = Duration::from_millis(ms.into());
        match how % 5 {
            3 => self.later(after / 2, super::faults::Undo::Cuts(laptop, index)),
            4 => self.later(after + Duration::from_millis(20), super::faults::Undo::RelayDies(200)),
            _ => {}
        }
        self.later(after, super::faults::Undo::HangsUp(exchange));
        self.later(after + Duration::from_millis(back_ms.into()), super::faults::Undo::TakesUp);
    }

    /// Whether the server of a call is to hear that it was given up.
    pub(super) fn is_cancellable(&self, call: &Call) -> bool {
        call.laptop.is_some_and(|laptop| !self.laptops[laptop].plan.old)
    }

    /// A client answers what it is asked on a stream: once each.
    pub(super) fn hear_questions(&mut self, exchange: ExchangeId, reply: &Exchange) {
        let Some(person) = self.oracle.calls.get(&exchange).map(|call| call.person) else { return };
        for question in reply.messages().iter().filter(|message| message["method"] == "sampling/createMessage") {
            if !self.oracle.replied.insert((person, question["id"].to_string())) {
                continue;
            }
            self.world.trace.cover("a legacy client was asked");
            self.is_for(person, std::iter::once(question));
            let said = said_to(&question["params"]);
            let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": said});
            let verdict = self.verdict(person);
            let taken = self.people[person].client.post(&mut self.world, &answer);
            self.note(taken, Kind::Note, person, 0, verdict, false);
        }
    }

    /// A modern client sends a call again with the answers that it was asked for.
    pub(super) fn answer_required(&mut self, call: &Call, result: &Value) {
        self.world.trace.cover("a modern client was asked");
        let questions = result["inputRequests"].as_object().expect("it asks something");
        let answers: serde_json::Map<_, _> =
            questions.iter().map(|(key, question)| (key.clone(), said_to(&question["params"]))).collect();
        let params = json!({"name": call.name, "arguments": call.arguments, "inputResponses": answers,
            "requestState": result["requestState"]});
        let verdict = self.verdict(call.person);
        let client = &mut self.people[call.person].client;
        let id = client.next_id();
        let exchange = client.request_at(&mut self.world, &call.path, "tools/call", &params);
        let again = Call { id, verdict, sent_at: self.world.micros(), ..call.clone() };
        self.oracle.calls.insert(exchange, again);
    }
}

/// What the client's model says: with the marker that it was asked with.
fn said_to(params: &Value) -> Value {
    let content = json!({"type": "text", "text": "four"});
    json!({"role": "assistant", "model": "m", "content": content, MARKER: asked_in(params)})
}

/// The marker of the call in whose course a client is asked; empty: none is in it.
pub(super) fn asked_in(params: &Value) -> String {
    let text = params["messages"][0]["content"]["text"].as_str().unwrap_or_default();
    let asked: Value = serde_json::from_str(text).unwrap_or_default();
    asked[MARKER].as_str().unwrap_or_default().to_owned()
}

fn word(tool: Tool) -> &'static str {
    match tool {
        Tool::Echo => "echo",
        Tool::Wait => "wait",
        Tool::Blob => "blob",
        Tool::Progress | Tool::Flood => "progress",
        Tool::Silent => "silent",
        Tool::Die => "die",
        Tool::Huge => "huge",
        Tool::Ask => "ask",
        Tool::Read => "read",
        Tool::Prompt => "hello",
    }
}

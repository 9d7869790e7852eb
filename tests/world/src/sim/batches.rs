//! Batches of a client of 2025-03-26.

use serde_json::{Value, json};
use tunnel_core::id::ExchangeId;

use super::oracle::{Call, Kind};
use super::plan::Tool;
use super::stage::Stage;
use crate::client::{Exchange, Outcome};

impl Stage {
    /// Sends a batch, if there is a client for it.
    pub(super) fn batch(&mut self, client: u8, agent: u8, server: u8, items: &[u8]) -> Option<ExchangeId> {
        let has_batches = |(_, plan): &(usize, &super::plan::ClientPlan)| !plan.modern && plan.age % 3 == 2;
        let able: Vec<_> = self.setup.clients.iter().enumerate().filter(has_batches).map(|(index, _)| index).collect();
        let index = usize::from(client).checked_rem(able.len())?;
        let person = able[index];
        if !self.people[person].client.is_ready() {
            return None;
        }
        let laptop = self.laptop_of(self.people[person].user, agent)?;
        let server = self.server(laptop, server)?;
        let (mut messages, mut parts) = (Vec::new(), Vec::<Call>::new());
        for item in items {
            let tool = match item % 6 {
                0 => Tool::Echo,
                1 => Tool::Wait,
                2 => Tool::Progress,
                3 => {
                    let id = self.people[person].client.take_id();
                    messages.push(json!({"jsonrpc": "2.0", "id": id, "method": "ping"}));
                    parts.push(Call::other(Kind::Other, person, id, false));
                    continue;
                }
                4 => {
                    if let Some(first) = parts.iter_mut().find(|part| part.tool.is_some()) {
                        let params = json!({"requestId": first.id});
                        messages.push(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}));
                        first.is_given_up = true;
                    }
                    continue;
                }
                _ => {
                    messages.push(json!({"bad": 1}));
                    parts.push(Call::other(Kind::Other, person, 0, false));
                    continue;
                }
            };
            let (call, method, params) = self.prepare(person, (laptop, server), tool, 300, "/mcp");
            let id = self.people[person].client.take_id();
            messages.push(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
            parts.push(call);
        }
        if messages.is_empty() {
            return None;
        }
        let verdict = self.verdict(person);
        let exchange = self.people[person].client.post(&mut self.world, &Value::Array(messages));
        let call = Call {
            verdict,
            laptop: Some(laptop),
            sent_at: self.world.micros(),
            disturbances: self.laptops[laptop].disturbances,
            changes: self.people[person].changes,
            ..Call::other(Kind::Batch(parts), person, 0, false)
        };
        self.oracle.calls.insert(exchange, call);
        Some(exchange)
    }

    /// One array of responses: one to each request, in their order.
    pub(super) fn judge_batch(&mut self, call: &Call, parts: &[Call], reply: &Exchange, outcome: Outcome) {
        if !self.has_answer(call, reply, outcome) {
            return;
        }
        let messages = reply.messages();
        let arrays: Vec<_> = messages.iter().filter_map(Value::as_array).collect();
        let [responses] = &arrays[..] else { panic!("one array answers a batch: {call:?}: {messages:?}") };
        self.world.trace.cover("a batch was answered");
        // A relay that has forgotten the batch knows of its requests alone.
        let is_due = |part: &&Call| part.id != 0 || call.rest.is_none() || responses.len() == parts.len();
        let due: Vec<_> = parts.iter().filter(is_due).collect();
        assert_eq!(due.len(), responses.len(), "one response to each: {call:?}: {responses:?}");
        for (part, response) in due.into_iter().zip(responses.iter()) {
            let id = if part.id == 0 { Value::Null } else { json!(part.id) };
            assert_eq!(response["id"], id, "in their order: {responses:?}");
            let part = Call {
                rest: call.rest.clone(),
                sent_at: call.sent_at,
                is_calm: part.is_calm && call.rest.is_none(),
                is_strict: part.is_strict && call.rest.is_none(),
                is_given_up: part.is_given_up || call.is_given_up,
                has_stopped_reading: call.has_stopped_reading,
                ..part.clone()
            };
            self.judge_part(&part, response);
        }
    }

    fn judge_part(&mut self, part: &Call, response: &Value) {
        if let Some(error) = response.get("error") {
            assert!(response.get("result").is_none(), "a result or an error: {response}");
            assert!(!self.is_demanded(part), "{part:?} must have a result: {response}");
            self.judge_error(part, error);
            self.may_be_forgotten(part, error);
        } else if part.tool.is_some() {
            self.judge_result(part, &response["result"]);
        } else {
            assert!(part.id != 0, "what is no request has a result: {response}");
        }
    }
}

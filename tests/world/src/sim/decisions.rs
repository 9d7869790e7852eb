//! People at devices, who let calls pass or refuse them.

use serde_json::Value;
use tunnel_core::agent::machine::ControlCommand;

use super::stage::{Stage, server_name};
use crate::script::MARKER;
use crate::world::AgentKey;

impl Stage {
    /// A person decides about all calls that wait on a laptop.
    pub(super) fn decide(&mut self, laptop: usize, yes: bool, always: bool) {
        let Some(key) = self.laptops[laptop].key.filter(|key| !self.world.is_asleep(*key)) else { return };
        for call in self.waiting(key) {
            if yes {
                self.approve((laptop, key), &call, always);
            } else {
                let id = call["id"].as_u64().expect("a call that waits has a number");
                self.world.trace.cover("a person refused a call");
                self.world.control(key, ControlCommand::Deny { id });
            }
        }
    }

    /// A person lets the call pass for good that has waited longest: those of other clients wait on.
    pub(super) fn decide_one(&mut self, laptop: usize) {
        let Some(key) = self.laptops[laptop].key.filter(|key| !self.world.is_asleep(*key)) else { return };
        if let Some(call) = self.waiting(key).first() {
            self.approve((laptop, key), call, true);
        }
    }

    fn waiting(&mut self, key: AgentKey) -> Vec<Value> {
        let waiting = self.world.control(key, ControlCommand::Approvals { params: true });
        waiting["waiting"].as_array().cloned().unwrap_or_default()
    }

    fn approve(&mut self, (laptop, key): (usize, AgentKey), call: &Value, always: bool) {
        let id = call["id"].as_u64().expect("a call that waits has a number");
        let params = call["params"].as_str().unwrap_or_default();
        let params: Value = serde_json::from_str(params).unwrap_or_default();
        let of_uri = params["uri"].as_str().and_then(|uri| uri.rsplit('/').next());
        let marker = params["arguments"][MARKER].as_str().or(of_uri).unwrap_or_default();
        let server = call["server"].as_str().unwrap_or_default();
        let plans = self.laptops[laptop].plan.servers.iter().enumerate();
        let plan = plans.into_iter().find(|(index, _)| server_name(laptop, *index) == server);
        let is_lasting = always || plan.is_some_and(|(_, plan)| plan.policy == 2);
        let has_actor = !self.laptops[laptop].plan.old;
        self.oracle.approves(marker, (laptop, server, has_actor), is_lasting);
        self.world.trace.cover("a person approved a call");
        self.world.control(key, ControlCommand::Approve { id, always });
    }
}

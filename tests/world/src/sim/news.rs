//! What clients hear without asking: of resources that they watch, and of lists.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tunnel_core::id::ExchangeId;

use super::oracle::{Call, Kind};
use super::plan::ServerPlan;
use super::stage::{Stage, library, server_name, start_of};
use crate::client::Exchange;
use crate::disk::Health;
use crate::script::{Start, resource};
use crate::world::AgentKey;

const UPDATED: &str = "notifications/resources/updated";
const TOOLS_CHANGED: &str = "notifications/tools/list_changed";

impl Stage {
    /// The resource of a server that can be watched.
    pub(super) fn resource(&self, laptop: usize, server: usize) -> String {
        resource(&library(self.laptops[laptop].user, &server_name(laptop, server)), "one")
    }

    /// The resources of a user's that a client may ask for.
    pub(super) fn resources_of(&self, user: &str) -> Vec<String> {
        let all = self.libraries(user, |_| true);
        all.into_iter().map(|(laptop, server)| self.resource(laptop, server)).collect()
    }

    /// The servers of a user's with resources, of devices that can tell of them.
    pub(super) fn libraries(&self, user: &str, test: impl Fn(&ServerPlan) -> bool) -> Vec<(usize, usize)> {
        let own = self.laptops.iter().enumerate().filter(|(_, laptop)| laptop.user == user && !laptop.plan.old);
        let servers = own.flat_map(|(index, laptop)| {
            laptop.plan.servers.iter().enumerate().map(move |(server, plan)| (index, server, plan))
        });
        servers.filter(|(.., plan)| plan.library && test(plan)).map(|(laptop, server, _)| (laptop, server)).collect()
    }

    pub(super) fn watch(&mut self, client: u8, agent: u8, server: u8, on: bool) {
        let Some(person) = self.person(client) else { return };
        if self.people[person].client.is_modern() {
            return self.listen(client);
        }
        let Some(laptop) = self.laptop_of(self.people[person].user, agent) else { return };
        let Some(server) = self.server(laptop, server) else { return };
        self.subscribe(person, laptop, server, on);
    }

    fn subscribe(&mut self, person: usize, laptop: usize, server: usize, on: bool) {
        let method = if on { "resources/subscribe" } else { "resources/unsubscribe" };
        let params = json!({"uri": self.resource(laptop, server)});
        if !on {
            self.oracle.watched.remove(&(person, laptop, server));
        }
        let name = server_name(laptop, server);
        let script = self.laptops[laptop].key.and_then(|key| self.world.look(key).scripts.get(&name));
        let heard = script.map_or(0, |script| script.heard.len());
        let kind = Kind::Watch { laptop, server, on, disturbances: self.laptops[laptop].disturbances, heard };
        self.ask(u8::try_from(person).expect("few"), kind, method, &params);
    }

    /// A legacy client watches a resource once that is acknowledged, whatever becomes of relay, agent and server.
    pub(super) fn judge_watch(&mut self, call: &Call, reply: &Exchange) {
        let Kind::Watch { laptop, server, on, disturbances, heard } = call.kind else { return };
        let is_done = reply.answer().is_some_and(|answer| answer.get("result").is_some());
        let key = self.laptops[laptop].key;
        let is_kept = key.is_some_and(|key| {
            let agent = self.world.look(key);
            agent.disk == Health::Good && !agent.lacks_wishes
        });
        // Where something went wrong meanwhile it may be forgotten already.
        let is_same =
            call.changes == self.people[call.person].changes && disturbances == self.laptops[laptop].disturbances;
        // While its server is not to be seen, a URI that nobody lists is the only other server's; and of two processes of a
        // device the one that goes on need not be the one that was asked.
        let (uri, name) = (self.resource(laptop, server), server_name(laptop, server));
        let news = key.and_then(|key| self.world.look(key).scripts[&name].heard.get(heard..)).unwrap_or_default();
        let is_its = news.iter().any(|heard| heard.to_string().contains(&uri));
        self.oracle.watched.remove(&(call.person, laptop, server));
        if is_done && on && is_kept && is_same && is_its {
            self.world.trace.cover("a resource is watched");
            self.oracle.watched.insert((call.person, laptop, server), self.world.micros());
        }
    }

    /// A server says that its resource changed.
    pub(super) fn update(&mut self, agent: u8, server: u8) {
        let Some(laptop) = self.laptop(agent) else { return };
        let Some(server) = self.server(laptop, server) else { return };
        let Some(key) = self.laptops[laptop].key.filter(|key| !self.world.is_asleep(*key)) else { return };
        if self.laptops[laptop].plan.servers[server].library {
            self.tells(key, &server_name(laptop, server), UPDATED, &json!({"uri": self.resource(laptop, server)}));
        }
    }

    /// A server has another tool, and says so.
    pub(super) fn new_tool(&mut self, laptop: usize, server: usize, key: AgentKey) {
        let (number, name) = (self.number(), server_name(laptop, server));
        let Some(script) = self.world.look(key).scripts.get_mut(&name) else { return };
        script.extra_tools.push(format!("extra{number}"));
        self.tells(key, &name, TOOLS_CHANGED, &json!({}));
    }

    /// Each process of a server says so.
    fn tells(&mut self, key: AgentKey, server: &str, method: &str, params: &Value) {
        for child in self.world.children_of(key, server) {
            let lines = self.world.look(key).scripts[server].tells(child, method, params);
            for line in lines {
                self.world.prints(key, child, line);
            }
        }
    }

    /// Notifications are for those who asked, and are whole.
    pub(super) fn saw_news(&mut self, exchange: ExchangeId) {
        let Some(call) = self.oracle.calls.get(&exchange) else { return };
        if !matches!(call.kind, Kind::Listen) || !self.world.has(exchange) {
            return;
        }
        let user = self.people[call.person].user;
        super::run::no_word_of_others(user, &self.world.exchange(exchange).body);
    }

    /// Whoever listens hears of what changes: of resources that are watched, since just now or since long ago, and of lists.
    pub(super) fn news_reach_everybody(&mut self) {
        let since_long: BTreeSet<_> = self.oracle.watched.keys().copied().collect();
        let is_fine = |plan: &ServerPlan| matches!(start_of(plan.start), Start::Well | Start::Garbage);
        for person in 0..self.people.len() {
            self.listen(u8::try_from(person).expect("few"));
            if self.people[person].client.is_modern() {
                continue;
            }
            for (laptop, server) in self.libraries(self.people[person].user, is_fine) {
                // A run that need not be there ends when nothing is asked of it for long.
                let plan = &self.laptops[laptop].plan.servers[server];
                if plan.isolated || plan.lazy || !since_long.contains(&(person, laptop, server)) {
                    self.subscribe(person, laptop, server, true);
                }
            }
        }
        self.wait(Duration::from_secs(30));
        for laptop in 0..self.laptops.len() {
            for server in self.working_servers(laptop) {
                let number = |index| u8::try_from(index).expect("few");
                self.update(number(laptop), number(server));
            }
        }
        self.wait(Duration::from_secs(10));
        for person in 0..self.people.len() {
            let said = self.said_to(person);
            for (laptop, server) in self.libraries(self.people[person].user, is_fine) {
                let uri = self.resource(laptop, server);
                let is_told = said.iter().any(|said| said["method"] == UPDATED && said["params"]["uri"] == uri);
                let is_old = since_long.contains(&(person, laptop, server));
                assert!(is_told, "{person} does not hear that {uri} changed, watched for long: {is_old}: {said:?}");
                self.world.trace.cover("somebody hears of a changed resource");
                if is_old {
                    self.world.trace.cover("what was watched for long is watched");
                }
            }
        }
        self.lists_are_told_of();
    }

    fn lists_are_told_of(&mut self) {
        let before: Vec<_> = (0..self.people.len()).map(|person| self.said_to(person).len()).collect();
        let mut told = BTreeSet::new();
        for laptop in 0..self.laptops.len() {
            for server in self.working_servers(laptop) {
                let it = &self.laptops[laptop];
                let plan = &it.plan.servers[server];
                if let (Some(key), false) = (it.key, plan.lazy || plan.isolated) {
                    told.insert(it.user);
                    self.new_tool(laptop, server, key);
                }
            }
        }
        self.wait(Duration::from_secs(30));
        for (person, before) in before.into_iter().enumerate() {
            let (user, said) = (self.people[person].user, self.said_to(person));
            let is_told = said.iter().skip(before).any(|said| said["method"] == TOOLS_CHANGED);
            assert!(is_told || !told.contains(user), "{person} does not hear that there are other tools: {said:?}");
        }
    }

    /// All that a client heard while it listened.
    fn said_to(&self, person: usize) -> Vec<Value> {
        let listening = self.people[person].listening.filter(|exchange| self.world.has(*exchange));
        listening.map(|exchange| self.world.exchange(exchange).messages()).unwrap_or_default()
    }
}

//! What goes over the tunnel: calls, their answers, the catalog.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Action, Agent, Phase};
use crate::agent::cx::{Report, Slot};
use crate::agent::restraint::Leave;
use crate::agent::routing::Route;
use crate::agent::server::{Held, Server, Share, Why, people};
use crate::agent::status;
use crate::audit::End;
use crate::id::ConnId;
use crate::limits;
use crate::mcp::catalog;
use crate::time::Instant;
use crate::tunnel::{self, Command};

impl Agent {
    pub(super) fn tunnel_event(&mut self, conn: ConnId, event: tunnel::Event) {
        if let (tunnel::Event::Closed(_), Phase::Stopping { closing, .. }) = (&event, &mut self.phase)
            && *closing == Some(conn)
        {
            *closing = None;
            return;
        }
        if !self.uplink.is_current(conn) {
            return tracing::debug!(conn = conn.0, "word of an older tunnel dropped");
        }
        match event {
            tunnel::Event::Up(hello) => {
                self.uplink.hello(&hello, &mut self.cx);
                self.user = people(&hello.user, limits::MAX_QUOTE);
                let has = |wanted: &str| hello.features.iter().any(|feature| feature == wanted);
                (self.cx.asks_beside, self.cx.hands_on) = (has(tunnel::ASKS_BESIDE), has(tunnel::HANDS_ON));
                self.catalog.whole = true;
            }
            tunnel::Event::Call { stream, head, params } => self.call(conn, stream, head, params),
            tunnel::Event::Unlisted { tool, bytes } => self.unlisted(&tool, bytes),
            tunnel::Event::Reset { stream, reason, .. } => {
                if let Some((request, route)) = self.routes.take_stream(conn, stream) {
                    self.cancel(request, route, &Why::Words(&reason));
                }
            }
            tunnel::Event::Cancelled { stream, params } => {
                if let Some((request, route)) = self.routes.take_stream(conn, stream) {
                    self.cancel(request, route, &Why::Client(&params));
                }
            }
            tunnel::Event::Restart { server } => self.restart_for_relay(server),
            tunnel::Event::RoundTrip { micros } => self.uplink.round_trip(micros),
            tunnel::Event::GoAway => tracing::info!("the relay is about to close the tunnel"),
            tunnel::Event::Closed(close) => {
                (self.cx.asks_beside, self.cx.hands_on) = (false, false);
                for (request, route) in self.routes.take_all(conn) {
                    self.cancel(request, route, &Why::Words("the tunnel to the relay is gone"));
                }
                for server in self.servers.values_mut() {
                    server.end_beside(None, "the tunnel to the relay is gone", &mut self.cx);
                }
                let wish = self.uplink.closed(&close, &mut self.cx);
                self.grant(wish);
            }
            tunnel::Event::Message { stream, json, .. } => self.client_message(conn, stream, json),
            tunnel::Event::ClientNotice { session, server, json } => self.client_notice(&session, server, &json),
            tunnel::Event::SessionEnded { session } => self.session_ended(&session),
            tunnel::Event::Catalog(_)
            | tunnel::Event::Answer { .. }
            | tunnel::Event::Data { .. }
            | tunnel::Event::Pause { .. }
            | tunnel::Event::Notice { .. } => tracing::debug!("word that only an agent says dropped"),
        }
    }

    /// People ask for a restart now and then; a relay that asks without end would keep every server from its work.
    fn restart_for_relay(&mut self, server: Option<String>) {
        match self.relay_restarts.ask(self.cx.now.instant) {
            Leave::Granted => self.restart(server, None),
            Leave::Refused => tracing::warn!("the relay wants restarts too often: left out for a while"),
            Leave::RefusedAgain => {}
        }
    }

    /// What a server has to say.
    pub(super) fn hear(&mut self, report: Report) {
        match report {
            Report::Changed(slot) => {
                self.catalog.changed.insert(slot);
                self.watch_again(slot);
            }
            Report::Learned { run, announced } => self.learn_from(run, &announced),
            Report::Answer { request, outcome, body } => {
                if let Some(Route { conn, stream, .. }) = self.routes.take(request) {
                    self.close(request, End::of(outcome, body.len()));
                    let command = Command::Answer { stream, outcome, body };
                    self.cx.out.push(Action::Tunnel { conn, command });
                }
            }
            Report::NotLegacy { run, held } => self.bridge_from_now_on(run, held),
            Report::Moved { from, to } => {
                if let Some(route) = self.routes.take(from) {
                    self.routes.add(to, route);
                    self.ledger.rename(from, to);
                }
            }
            Report::Message { request, json, droppable } => {
                if let Some(Route { conn, stream, .. }) = self.routes.get(request) {
                    let command = Command::Message { stream, json, droppable };
                    self.cx.out.push(Action::Tunnel { conn, command });
                }
            }
            Report::Pause { request, wait } => {
                if let Some(Route { conn, stream, .. }) = self.routes.get(request) {
                    let millis = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
                    self.cx.out.push(Action::Tunnel { conn, command: Command::Pause { stream, millis } });
                }
            }
            Report::Notice { server, sessions, json } => {
                if let Some(conn) = self.uplink.up() {
                    let command = Command::Notice { server, sessions, json };
                    self.cx.out.push(Action::Tunnel { conn, command });
                }
            }
        }
    }

    /// A server turned out to be of the modern era alone: what waited for its other run is asked again, and bridged.
    fn bridge_from_now_on(&mut self, run: Slot, held: Vec<Held>) {
        let main = self.sessions.iter().find(|(_, slot)| **slot == run).map(|((main, _), _)| *main);
        let Some((main, server)) = main.and_then(|main| Some((main, self.servers.get_mut(&main)?))) else { return };
        server.forget_legacy(&mut self.cx);
        for Held { request, caller, method, params } in held {
            let run = match self.run_for(main, &caller) {
                Ok(run) => run,
                Err(refusal) => {
                    self.refuse_as(request, refusal);
                    continue;
                }
            };
            self.routes.redirect(request, run);
            if let Some(server) = self.servers.get_mut(&run) {
                server.call(request, caller, method, params, &mut self.cx);
            }
        }
        self.lose_watch(main);
        self.watch_again(main);
    }

    /// Tells the relay what changed; everything, when it has heard nothing yet.
    pub(super) fn send_catalog(&mut self) {
        let pending = core::mem::take(&mut self.catalog);
        // A relay that is dialled later hears everything.
        let Some(conn) = self.uplink.up() else { return };
        let changed: Vec<Slot> = pending.changed.iter().copied().filter(|slot| self.is_current(*slot)).collect();
        if !pending.whole && changed.is_empty() && pending.removed.is_empty() && !pending.remark {
            return;
        }
        // One that does not fit is cut as a whole, so that what is left does not depend on what changed last.
        let whole = pending.whole || !self.fits();
        let now = self.cx.now.instant;
        let remark = self.remark.clone();
        let update = if whole {
            catalog::Update { whole: true, servers: self.whole_catalog(now), removed: Vec::new(), remark }
        } else {
            let servers = changed.iter().filter_map(|slot| self.servers.get(slot));
            let servers = servers.map(|server| server.catalog(Share::ALL, now)).collect();
            let removed = pending.removed.into_iter().filter(|name| !self.names.contains_key(name)).collect();
            catalog::Update { whole: false, servers, removed, remark }
        };
        let command = Command::Catalog(status::json(&update));
        self.cx.out.push(Action::Tunnel { conn, command });
    }

    pub(super) fn is_current(&self, slot: Slot) -> bool {
        self.servers.get(&slot).is_some_and(|server| self.names.get(server.name()) == Some(&slot))
    }

    fn current(&self) -> impl Iterator<Item = &Server> {
        self.names.values().filter_map(|slot| self.servers.get(slot))
    }

    /// Whether all lists of all servers fit into a catalog.
    fn fits(&self) -> bool {
        let tools: usize = self.current().map(|server| server.tool_count()).sum();
        let bytes: usize = self.current().map(Server::weight).sum();
        tools <= limits::MAX_TOOLS && bytes <= limits::MAX_CATALOG
    }

    /// All servers, with as much of their lists as a catalog takes: the first servers by name come first.
    fn whole_catalog(&self, now: Instant) -> Vec<catalog::Server> {
        let mut tools_left = limits::MAX_TOOLS;
        let mut bytes_left = limits::MAX_CATALOG;
        let mut servers = Vec::new();
        for server in self.current() {
            let (share, bytes) = server.prefix(tools_left, bytes_left);
            if !server.is_whole(share) {
                tracing::warn!(server = server.name(), tools = share.tools(), "catalog full: the rest is left out");
            }
            tools_left -= share.tools();
            bytes_left = bytes_left.saturating_sub(bytes);
            servers.push(server.catalog(share, now));
        }
        servers
    }
}

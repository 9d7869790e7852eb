//! What clients say besides their calls: answers to a server's questions, notifications, the end of a session.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::Agent;
use crate::agent::cx::Slot;
use crate::config::Isolation;
use crate::id::{ConnId, StreamId};
use crate::mcp::method;
use crate::rpc::{self, Message};

impl Agent {
    /// Something that a client says in the course of its call.
    pub(super) fn client_message(&mut self, conn: ConnId, stream: StreamId, json: Bytes) {
        let Some((request, route)) = self.routes.of_stream(conn, stream) else { return };
        if let Some(server) = self.servers.get_mut(&route.slot) {
            server.hear_client(request, json, &mut self.cx);
        }
    }

    /// What a client says that belongs to no call, to one server, or to all that its session uses: a notification, or
    /// its answer to what that server asked it.
    pub(super) fn client_notice(&mut self, session: &str, server: Option<String>, json: &Bytes) {
        let method = match rpc::parse(json) {
            Ok(Message::Notification { method, .. }) if &*method != method::PROGRESS => method,
            Ok(Message::Notification { .. } | Message::Response { .. }) => {
                return self.client_answers(session, server.as_deref(), json);
            }
            Ok(Message::Request { .. }) | Err(_) => return tracing::debug!("word of a client that is none dropped"),
        };
        // The handshake with a server is the agent's own, and so are the ids of what it asks there.
        if matches!(&*method, method::INITIALIZED | method::CANCELLED) {
            return;
        }
        let servers = server.map_or_else(|| self.cx.wishes.servers_of(session), |server| Vec::from([server]));
        for server in servers {
            if &*method != method::ROOTS_CHANGED && !self.cx.guard.rules.allows_method(&server, &method) {
                continue;
            }
            let run = self.names.get(&server).copied().and_then(|main| self.run_of(main, session));
            if let Some(server) = run.and_then(|run| self.servers.get_mut(&run)) {
                server.pass_notice(session, &method, json.clone(), &mut self.cx);
            }
        }
    }

    /// A client answers what a server asked it, whether or not the call is over in which that was; or it says how far it
    /// is with what it was asked outside of its calls.
    fn client_answers(&mut self, session: &str, server: Option<&str>, json: &Bytes) {
        let Some((name, main)) = server.and_then(|name| Some((name, *self.names.get(name)?))) else { return };
        // Calls that came while the server was started may be at another run than those of now.
        let asking = match rpc::parse(json) {
            Ok(Message::Response { id: Some(id), .. }) => {
                let asks = |run: &Slot| self.servers.get(run).is_some_and(|server| server.is_asking(session, &id));
                self.shared_runs(name).into_iter().chain(self.own_run(main, session)).find(asks)
            }
            Ok(_) | Err(_) => None,
        };
        let run = asking.or_else(|| self.run_of(main, session));
        if let Some(server) = run.and_then(|run| self.servers.get_mut(&run)) {
            server.hear_beside(session, json.clone(), &mut self.cx);
        }
    }

    /// A client's session is over: what it set goes, and its own runs end.
    pub(super) fn session_ended(&mut self, session: &str) {
        for server in self.servers.values_mut() {
            server.end_beside(Some(session), "the client's session is over", &mut self.cx);
        }
        for server in self.cx.wishes.servers_of(session) {
            for run in self.shared_runs(&server) {
                if let Some(server) = self.servers.get_mut(&run) {
                    server.forget_session(session, &mut self.cx);
                }
            }
        }
        let servers = self.cx.wishes.servers_of(session);
        self.cx.wishes.forget(session);
        for run in servers.iter().flat_map(|server| self.shared_runs(server)).collect::<Vec<_>>() {
            if let Some(server) = self.servers.get_mut(&run) {
                server.listen(&mut self.cx);
            }
        }
        let own: Vec<Slot> = self.sessions.iter().filter(|((_, of), _)| of == session).map(|(_, slot)| *slot).collect();
        for slot in own {
            if let Some(server) = self.servers.get_mut(&slot) {
                server.stop(&mut self.cx);
            }
        }
    }

    /// The runs of a server that sessions share.
    fn shared_runs(&self, server: &str) -> Vec<Slot> {
        let main = self.names.get(server).copied();
        main.into_iter().chain(main.and_then(|main| self.branch_of(main))).collect()
    }

    /// The run of a server that a session uses, if there is one.
    fn run_of(&self, main: Slot, session: &str) -> Option<Slot> {
        match self.servers.get(&main)?.config().life.isolation {
            Isolation::Shared => Some(self.branch_of(main).unwrap_or(main)),
            Isolation::Session => self.own_run(main, session),
        }
    }

    /// The run of a server that a session has for itself, if there is one.
    pub(super) fn own_run(&self, main: Slot, session: &str) -> Option<Slot> {
        self.sessions.get(&(main, String::from(session))).copied().filter(|_| !session.is_empty())
    }
}

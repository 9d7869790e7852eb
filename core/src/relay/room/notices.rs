//! What servers say to clients that have asked nothing: passed on to those who listen, and kept for a moment for those who
//! are about to, since a client listens again only some time after its relay was restarted or its connection was lost.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::Room;
use crate::id::{ConnId, ExchangeId};
use crate::limits;
use crate::mcp::method;
use crate::relay::shard::Cx;
use crate::relay::{Endpoint, SessionKey};
use crate::rpc::{self, Message};
use crate::time::{Now, UnixTime};

/// A notification of a server that belongs to no call.
#[derive(Debug)]
pub(super) struct Notice {
    at: Now,
    conn: ConnId,
    server: String,
    method: Arc<str>,
    /// For whom; empty: for everyone.
    sessions: Vec<String>,
    json: Bytes,
    /// Who has it.
    heard: BTreeSet<SessionKey>,
}

impl Room {
    /// A notification of a server that belongs to no call, or a question that does not.
    pub(super) fn notice(&mut self, conn: ConnId, server: String, sessions: Vec<String>, json: Bytes, cx: &mut Cx<'_>) {
        let method = match rpc::parse(&json) {
            Ok(Message::Notification { method, params }) if &*method == method::CANCELLED => {
                return self.withdrawn_beside((conn, &server), &params, &json, cx);
            }
            Ok(Message::Notification { method, .. }) => method,
            Ok(Message::Request { id, params, .. }) => {
                return self.ask_beside((conn, &server), &sessions, &id, (&params, &json), cx);
            }
            Ok(Message::Response { .. }) | Err(_) => {
                return tracing::debug!(%conn, "notice that is none dropped");
            }
        };
        let mut notice = Notice { at: cx.now, conn, server, method, sessions, json, heard: BTreeSet::new() };
        for (exchange, endpoint) in self.listeners.endpoints() {
            self.tell_of(exchange, &endpoint, &mut notice, cx);
        }
        if notice.json.len() <= limits::MAX_LATE_NOTICE {
            if self.late.len() >= limits::MAX_LATE_NOTICES {
                self.drop_late();
            }
            self.late.push_back(notice);
        }
    }

    /// Tells a client that has just begun to listen what was said a moment ago, in as far as it was said to it: what is
    /// for everyone, to the sessions that there were. `expires`: when its session does.
    pub(super) fn tell_late(&mut self, exchange: ExchangeId, endpoint: &Endpoint, expires: UnixTime, cx: &mut Cx<'_>) {
        let now = cx.now.instant;
        self.late.retain(|notice| now.saturating_since(notice.at.instant) < limits::LATE_NOTICE_KEPT);
        let mut late = core::mem::take(&mut self.late);
        for notice in &mut late {
            if !notice.sessions.is_empty() || expires <= notice.at.unix + limits::SESSION_LIFETIME {
                self.tell_of(exchange, endpoint, notice, cx);
            }
        }
        self.late = late;
    }

    /// Makes room for one more: the oldest goes of the server that has most, so that no other is drowned.
    fn drop_late(&mut self) {
        let mut counts: BTreeMap<(ConnId, &str), usize> = BTreeMap::new();
        for notice in &self.late {
            *counts.entry((notice.conn, notice.server.as_str())).or_default() += 1;
        }
        let busiest = counts.into_iter().max_by_key(|(_, count)| *count).map(|(source, _)| source);
        let is_its = |notice: &Notice| busiest == Some((notice.conn, notice.server.as_str()));
        if let Some(oldest) = self.late.iter().position(is_its) {
            self.late.remove(oldest);
        }
    }

    fn tell_of(&mut self, exchange: ExchangeId, endpoint: &Endpoint, notice: &mut Notice, cx: &mut Cx<'_>) {
        let Some(session) = self.listeners.session(exchange) else { return };
        let is_for = notice.sessions.is_empty() || notice.sessions.iter().any(|key| **key == *session.0);
        if !is_for || notice.heard.contains(&session) {
            return;
        }
        let Notice { conn, server, sessions, method, json, .. } = &*notice;
        let told = match endpoint {
            Endpoint::All => self.notice_to_all(exchange, (*conn, server), (sessions, method), json, cx),
            single => {
                let its = self.locate(single, cx).is_ok_and(|(on, name, _)| on == *conn && **name == **server);
                its && self.listeners.pass(exchange, json, cx)
            }
        };
        if told {
            notice.heard.insert(session);
        }
    }
}

//! What a server asks with no call open: for a client's roots, above all, once that said that they changed (2025-11-25,
//! Client Features, Roots).
//!
//! Nothing says whose question it is. It goes to the client of the one session that it can be meant for, on the stream
//! where that listens, and nowhere if there is any doubt: a client must never be asked on behalf of another.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;

use super::questions::{Declined, NOBODY, UNDECLARED, UNREACHABLE};
use super::{Server, Timer};
use crate::agent::caller::Caller;
use crate::agent::cx::{Cx, Report, RequestId};
use crate::config::Isolation;
use crate::limits;
use crate::mcp::{code, method};
use crate::rpc::{self, Message, RawId, envelope, object};
use crate::time::Instant;

/// The questions of one run that belong to no call, and what tells whose they are.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// Those that wait for their answers, by the server's own ids.
    open: BTreeMap<RawId, Question>,
    roots: Option<Roots>,
    /// When somebody called last who has no session, and cannot be asked so.
    strangers: Option<Instant>,
}

#[derive(Debug)]
struct Question {
    /// What its timer is known by.
    number: RequestId,
    session: String,
    /// The server's own progress token, as raw JSON.
    token: Option<Bytes>,
}

/// The server was told that a client's roots changed, and has not asked for them.
#[derive(Debug)]
struct Roots {
    at: Instant,
    /// By whom; `None`: by several.
    session: Option<String>,
}

impl Beside {
    /// How many questions are open.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether a question of that id is open.
    pub(super) fn has(&self, id: &RawId) -> bool {
        self.open.contains_key(id)
    }

    /// A client without a session calls.
    pub(super) fn meet_stranger(&mut self, now: Instant) {
        self.strangers = Some(now);
    }

    /// The session whose notice makes the server ask this.
    pub(super) fn teller(&self, method: &str, now: Instant) -> Option<&str> {
        let roots = self.roots.as_ref().filter(|roots| is_within(roots.at, limits::ROOTS_ASKED_WITHIN, now))?;
        roots.session.as_deref().filter(|_| method == method::ROOTS_LIST)
    }

    /// The server has asked this, which a session's notice may have made it do.
    pub(super) fn asked(&mut self, method: &str) {
        if method == method::ROOTS_LIST {
            self.roots.take_if(|roots| roots.session.is_some());
        }
    }

    fn told_roots(&mut self, session: &str, now: Instant) {
        let before = self.roots.take().filter(|roots| is_within(roots.at, limits::ROOTS_ASKED_WITHIN, now));
        let is_only = before.is_none_or(|before| before.session.as_deref() == Some(session));
        self.roots = Some(Roots { at: now, session: is_only.then(|| session.to_string()) });
    }

    /// Whether the question that waits under that id is one to that session.
    pub(super) fn is_asking(&self, session: &str, id: &RawId) -> bool {
        self.open.get(id).is_some_and(|question| question.session == session)
    }

    /// Takes the question out that waits under that id, if it is one to that session.
    fn take(&mut self, session: &str, id: &RawId) -> Option<Question> {
        if self.is_asking(session, id) { self.open.remove(id) } else { None }
    }
}

impl Server {
    /// Asks the client whose question this must be.
    pub(super) fn ask_beside(
        &mut self,
        id: RawId,
        method: &str,
        params: &Bytes,
        json: Bytes,
        cx: &mut Cx,
    ) -> Result<(), (RawId, Declined)> {
        let client = match self.whom_to_ask_beside(method, params, json.len(), cx) {
            Ok(client) => client,
            Err(declined) => return Err((id, declined)),
        };
        tracing::debug!(server = self.name.as_str(), "server asks a client beside any call");
        let number = cx.request_id();
        self.beside.asked(method);
        self.belongings.learn_page(method, params, number, &client);
        // Copied: a few bytes must not keep a whole question in memory.
        let token = object::get_path(params, &["_meta", "progressToken"]);
        let token = token.map(|token| Bytes::copy_from_slice(&token));
        let session = client.session.to_string();
        cx.arm(self.slot, Timer::Beside(number), limits::BESIDE_PATIENCE);
        cx.report(Report::Notice { server: self.name.clone(), sessions: Vec::from([session.clone()]), json });
        self.beside.open.insert(id, Question { number, session, token });
        Ok(())
    }

    /// The client that is meant, if it can be asked that.
    fn whom_to_ask_beside(&self, method: &str, params: &Bytes, bytes: usize, cx: &Cx) -> Result<Caller, Declined> {
        let client = self.client_beside(method, params, cx)?;
        if !cx.asks_beside {
            return Err(UNREACHABLE);
        }
        if !client.declares(method, params) {
            return Err(UNDECLARED);
        }
        if bytes > limits::MAX_NOTICE {
            return Err((code::TOO_LARGE, "the question is larger than a client can be asked outside of a call"));
        }
        if self.beside.open.len() >= limits::MAX_BESIDE {
            return Err((code::OVERLOADED, "too many questions outside of calls wait for their answers"));
        }
        Ok(client)
    }

    /// The client that is meant. A server whose sessions have runs of their own asks in those alone.
    fn client_beside(&self, method: &str, params: &Bytes, cx: &Cx) -> Result<Caller, Declined> {
        if let Some(owner) = &self.session {
            return Ok(owner.caller.clone());
        }
        if self.config.life.isolation == Isolation::Session {
            return Err(NOBODY);
        }
        let client = |session| cx.wishes.client(session, &self.name).ok_or(NOBODY);
        if let Some(owner) = self.owner_of(method, params) {
            return client(owner);
        }
        let since = |at| is_within(at, limits::SESSION_IN_USE, cx.now.instant);
        let only = || match (&cx.wishes.in_use(&self.name, cx.now.unix)[..], self.beside.strangers.is_some_and(since)) {
            ([], _) => Err(NOBODY),
            ([session], false) => Ok(*session),
            _ => Err(SEVERAL),
        };
        let likely = client(self.beside.teller(method, cx.now.instant).map_or_else(only, Ok)?)?;
        // Also where the others' sessions are over.
        if self.cancelled.leave_doubt(&likely) { Err(SEVERAL) } else { Ok(likely) }
    }

    /// The session whose task a question is about.
    pub(super) fn owner_of(&self, method: &str, params: &Bytes) -> Option<&str> {
        let owner = self.belongings.whose(method, params).map(|whose| whose.session.as_str());
        owner.filter(|session| !session.is_empty())
    }

    /// What a client says to a question, if it does not say in the course of which call. Whatever was not asked for stops
    /// here.
    pub(in crate::agent) fn hear_beside(&mut self, session: &str, json: Bytes, cx: &mut Cx) {
        let number = match rpc::parse(&json) {
            Ok(Message::Response { id: Some(id), .. }) => {
                if let Some(call) = self.call_asking(session, &id) {
                    return self.hear_client(call, json, cx);
                }
                let question = self.beside.take(session, &id);
                question.map(|question| cx.disarm(self.slot, Timer::Beside(question.number)))
            }
            Ok(Message::Notification { method, params }) if &*method == method::PROGRESS => {
                let token = object::get(&params, "progressToken").filter(|token| **token != *b"null");
                let is_its = |it: &&Question| it.session == session && token.is_some() && it.token == token;
                let question = self.beside.open.values().find(is_its);
                question.map(|it| cx.arm(self.slot, Timer::Beside(it.number), limits::BESIDE_PATIENCE))
            }
            Ok(_) | Err(_) => None,
        };
        match number {
            Some(()) => self.note(json, cx),
            None => tracing::debug!(server = self.name.as_str(), "word of a client to no open question dropped"),
        }
    }

    /// Passes on what a client tells it outside of its calls.
    pub(in crate::agent) fn pass_notice(&mut self, session: &str, method: &str, json: Bytes, cx: &mut Cx) {
        if self.state != super::State::Ready {
            return;
        }
        if method == method::ROOTS_CHANGED && self.session.is_none() {
            self.beside.told_roots(session, cx.now.instant);
        }
        self.note(json, cx);
    }

    /// The server gives a question up: its client need not answer any more.
    pub(super) fn withdraw_beside(&mut self, id: &RawId, json: Bytes, cx: &mut Cx) {
        if let Some(Question { number, session, .. }) = self.beside.open.remove(id) {
            cx.disarm(self.slot, Timer::Beside(number));
            cx.report(Report::Notice { server: self.name.clone(), sessions: Vec::from([session]), json });
        }
    }

    /// Nobody answered for too long.
    pub(super) fn give_up_beside(&mut self, number: RequestId, cx: &mut Cx) {
        let mut given_up = self.beside.open.extract_if(.., |_, question| question.number == number);
        let Some((id, question)) = given_up.next() else { return };
        drop(given_up);
        let why = "the client did not answer in time";
        self.note(envelope::error(Some(&id), code::TIMED_OUT, why, None), cx);
        self.take_back_beside(&id, question.session, why, cx);
    }

    /// Nobody will answer any more what clients were asked: those of that session, or all.
    pub(in crate::agent) fn end_beside(&mut self, session: Option<&str>, why: &str, cx: &mut Cx) {
        self.beside.roots.take_if(|roots| session.is_some() && roots.session.as_deref() == session);
        let is_over = |_: &RawId, question: &mut Question| session.is_none_or(|session| question.session == session);
        let over: Vec<_> = self.beside.open.extract_if(.., is_over).collect();
        for (id, question) in over {
            cx.disarm(self.slot, Timer::Beside(question.number));
            self.note(envelope::error(Some(&id), code::CANCELLED, why, None), cx);
        }
    }

    /// The run is over, and what it asked is of no interest to the next one.
    pub(super) fn forget_beside(&mut self, cx: &mut Cx) {
        self.beside.roots = None;
        for (id, Question { number, session, .. }) in core::mem::take(&mut self.beside.open) {
            cx.disarm(self.slot, Timer::Beside(number));
            self.take_back_beside(&id, session, "the server that asked this has ended", cx);
        }
    }

    fn take_back_beside(&self, id: &RawId, session: String, why: &str, cx: &mut Cx) {
        let id = core::str::from_utf8(id.as_bytes()).expect("an id is JSON, which is text");
        let params = format!("{{\"requestId\":{id},\"reason\":{}}}", rpc::quoted(why));
        let json = envelope::notification(method::CANCELLED, params.as_bytes());
        cx.report(Report::Notice { server: self.name.clone(), sessions: Vec::from([session]), json });
    }
}

fn is_within(at: Instant, span: core::time::Duration, now: Instant) -> bool {
    now.saturating_since(at) < span
}

const SEVERAL: Declined = (
    code::AMBIGUOUS,
    "no call is open, and several clients use this server, any of which could be meant: with `isolation: \"session\"` in \
the server's entry each client that has a session has a process of its own",
);

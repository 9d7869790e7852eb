//! What sessions set at a server: the level of its log, the resources that they watch.
//!
//! One process serves many sessions and knows but one level: it is set to the most talkative one that anybody wants,
//! and each session hears of it what it wants itself. A resource is watched for as long as anybody watches it. A new
//! process is told again what the old one knew.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;

use super::{Held, Server, State};
use crate::agent::cx::{Cx, RequestId};
use crate::agent::wishes::Level;
use crate::config::Isolation;
use crate::limits;
use crate::mcp::{code, method};
use crate::rpc::{self, object};

/// What a run was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    level: Option<Level>,
    /// What was asked of our own accord, and what nobody waits for: the newest.
    asked: VecDeque<RequestId>,
}

/// What becomes of a call that sets something.
pub(super) enum Arranged {
    /// The server is asked this.
    Send { params: Bytes, undo: Option<Undo> },
    /// It has no need to hear of it.
    Done,
    /// It cannot be kept.
    Refused(i64, &'static str),
}

/// What is taken back when the server refuses it, or does not answer.
#[derive(Debug)]
pub(super) enum Undo {
    Level { session: String, level: Level, before: Option<Level> },
    Watch { session: String, uri: String },
}

impl Server {
    /// Keeps what a call sets for its session, and says what the server must hear of it.
    pub(super) fn arrange(&mut self, held: &Held, cx: &mut Cx) -> Arranged {
        let as_it_is = Arranged::Send { params: held.params.clone(), undo: None };
        let session = &*held.caller.session;
        let text = |key: &str| {
            let raw = object::get(&held.params, key)?;
            rpc::string(&raw).map(|text| text.into_owned())
        };
        if session.is_empty() {
            // What it has after that is not known here: whoever has a session sets it anew.
            if &*held.method == method::SET_LEVEL {
                self.told.level = None;
            }
            return as_it_is;
        }
        match &*held.method {
            method::SET_LEVEL => match text("level").and_then(|text| Level::parse(&text)) {
                Some(level) => self.arrange_level(session, level, &held.params, cx),
                None => as_it_is,
            },
            method::RESOURCES_SUBSCRIBE => match text("uri") {
                Some(uri) => match cx.wishes.subscribe(session, &self.name, &uri) {
                    Ok(is_new) => {
                        let undo = is_new.then(|| Undo::Watch { session: session.to_string(), uri });
                        Arranged::Send { params: held.params.clone(), undo }
                    }
                    Err(_) => Arranged::Refused(code::OVERLOADED, "this session watches too many resources already"),
                },
                None => as_it_is,
            },
            method::RESOURCES_UNSUBSCRIBE => match text("uri") {
                Some(uri) => {
                    cx.wishes.unsubscribe(session, &self.name, &uri);
                    let is_shared = self.session.is_none();
                    if is_shared && (cx.wishes.is_watched(&self.name, &uri, session) || self.is_listened(&uri)) {
                        Arranged::Done
                    } else {
                        as_it_is
                    }
                }
                None => as_it_is,
            },
            _ => as_it_is,
        }
    }

    fn arrange_level(&mut self, session: &str, level: Level, params: &Bytes, cx: &mut Cx) -> Arranged {
        let before = cx.wishes.set_level(session, &self.name, Some(level));
        let lowest = cx.wishes.lowest(&self.name, self.session_key()).unwrap_or(level);
        if self.told.level == Some(lowest) {
            return Arranged::Done;
        }
        self.told.level = Some(lowest);
        let params = match object::Object::parse(params) {
            Ok(object) if lowest != level => object.replace(&[("level", rpc::quoted(lowest.as_str()).as_bytes())]),
            Ok(_) | Err(_) => params.clone(),
        };
        Arranged::Send { params, undo: Some(Undo::Level { session: session.to_string(), level, before }) }
    }

    /// The server refused what was set, or will not answer.
    pub(super) fn take_back(&mut self, undo: Undo, cx: &mut Cx) {
        match undo {
            Undo::Level { session, level, before } => {
                let now = cx.wishes.set_level(&session, &self.name, before);
                if now != Some(level) {
                    // The session has set another one since.
                    cx.wishes.set_level(&session, &self.name, now);
                }
                // Whatever it has now: the next one who sets it sets it anew.
                self.told.level = None;
            }
            Undo::Watch { session, uri } => cx.wishes.unsubscribe(&session, &self.name, &uri),
        }
    }

    /// What sessions watch at this run.
    pub(super) fn watched_here(&self, cx: &Cx) -> BTreeSet<String> {
        let is_elsewhere = !self.is_extra() && (self.config.life.isolation == Isolation::Session || self.is_dual());
        if is_elsewhere { BTreeSet::new() } else { cx.wishes.watched(&self.name, self.session_key()) }
    }

    /// Tells a new run what the last one knew.
    pub(super) fn establish(&mut self, cx: &mut Cx) {
        self.told = Told::default();
        if self.is_modern() {
            return self.listen(cx);
        }
        for uri in self.listened() {
            self.tell_watch(method::RESOURCES_SUBSCRIBE, &uri, cx);
        }
        if self.session.is_none() && self.config.life.isolation == Isolation::Session {
            return;
        }
        let only = self.session_key().map(ToString::to_string);
        if let Some(level) = cx.wishes.lowest(&self.name, only.as_deref()) {
            self.tell_level(level, cx);
        }
        for uri in self.watched_here(cx) {
            self.tell_watch(method::RESOURCES_SUBSCRIBE, &uri, cx);
        }
    }

    /// A session is over: what only it wanted ends. It is forgotten by whoever calls this.
    pub(in crate::agent) fn forget_session(&mut self, session: &str, cx: &mut Cx) {
        let watched = cx.wishes.watched(&self.name, Some(session));
        let alone = |uri: &String| !cx.wishes.is_watched(&self.name, uri, session) && !self.is_listened(uri);
        let ended: Vec<String> = watched.into_iter().filter(alone).collect();
        cx.wishes.set_level(session, &self.name, None);
        if self.state != State::Ready || self.is_modern() {
            return;
        }
        for uri in ended {
            self.tell_watch(method::RESOURCES_UNSUBSCRIBE, &uri, cx);
        }
        if let Some(lowest) = cx.wishes.lowest(&self.name, None).filter(|level| self.told.level != Some(*level)) {
            self.tell_level(lowest, cx);
        }
    }

    /// A modern client wants to hear of its call's log from this level on: the server has to be that talkative. Who
    /// wants to hear less hears less all the same.
    pub(super) fn log_from(&mut self, level: Level, cx: &mut Cx) {
        let capabilities = self.about.capabilities.as_ref().map(|raw| Bytes::copy_from_slice(raw.get().as_bytes()));
        let logs = capabilities.is_some_and(|raw| object::get(&raw, "logging").is_some());
        if logs && self.told.level.is_none_or(|told| told > level) {
            self.tell_level(level, cx);
        }
    }

    fn tell_level(&mut self, level: Level, cx: &mut Cx) {
        self.told.level = Some(level);
        let params = format!("{{\"level\":{}}}", rpc::quoted(level.as_str()));
        self.ask_aside(method::SET_LEVEL, &params, cx);
    }

    pub(super) fn tell_watch(&mut self, method: &str, uri: &str, cx: &mut Cx) {
        let params = format!("{{\"uri\":{}}}", rpc::quoted(uri));
        self.ask_aside(method, &params, cx);
    }

    /// Asks something whose answer is of no interest.
    fn ask_aside(&mut self, method: &str, params: &str, cx: &mut Cx) {
        if self.told.asked.len() >= limits::MAX_ASIDES
            && let Some(oldest) = self.told.asked.pop_front()
            && let Some(link) = &mut self.link
        {
            link.abandon(oldest, cx);
        }
        let request = cx.request_id();
        self.told.asked.push_back(request);
        self.ask(request, method, params.as_bytes(), cx);
    }

    /// The answer to such a question came, or will not. Returns whether it was one.
    pub(super) fn heard_aside(&mut self, request: RequestId) -> bool {
        let asked = self.told.asked.len();
        self.told.asked.retain(|asked| *asked != request);
        self.told.asked.len() < asked
    }
}

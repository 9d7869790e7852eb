//! Requests on the endpoint of all servers, besides those about tools: prompts, resources, completions, and what goes to
//! several servers at once.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::Room;
use super::ask::{Caller, Errand};
use crate::id::ConnId;
use crate::limits;
use crate::mcp::{Era, code, method};
use crate::relay::calls::Sink;
use crate::relay::catalog::printable;
use crate::relay::discover::Keep;
use crate::relay::failure::{Failure, Thing};
use crate::relay::items::Kind;
use crate::relay::lists;
use crate::relay::named::Meaning;
use crate::relay::resources::{Owner, Spot};
use crate::relay::shard::{Action, Cx};
use crate::relay::{Request, SessionKey, Speaker};
use crate::rpc::object::{self, Object};
use crate::rpc::{self, quoted};

impl Room {
    /// A request of any method but those of the handshake and of tools.
    pub(super) fn ask_all(&mut self, sink: Sink, caller: &Caller, request: Request, cx: &mut Cx<'_>) {
        match &*request.method {
            method::PROMPTS_LIST | method::RESOURCES_LIST | method::RESOURCE_TEMPLATES_LIST => {
                let result = self.list_all(caller.speaker.era(), &request, cx);
                self.respond_own(sink, caller, &request.id, (Keep::Lists, result), cx);
            }
            method::PROMPTS_GET
            | method::COMPLETE
            | method::RESOURCES_READ
            | method::RESOURCES_SUBSCRIBE
            | method::RESOURCES_UNSUBSCRIBE => match self.errand_of(caller, &request, cx) {
                Ok(errand) => self.open(sink, caller, request.id, errand, cx),
                Err(failure) => self.refuse(sink, caller, &request, failure, cx),
            },
            method::SET_LEVEL => self.set_level(sink, caller, request, cx),
            method::TASKS_LIST => self.list_tasks(sink, caller, request, cx),
            method::TASKS_GET | method::TASKS_RESULT | method::TASKS_CANCEL | method::TASKS_UPDATE => {
                self.about_task(sink, caller, request, cx);
            }
            other => {
                let failure = Failure::NoSuchMethod(printable(other, limits::MAX_LISTED_NAME));
                self.respond(sink, &request.id, Err(failure), cx);
            }
        }
    }

    /// Answers a request that goes to no server.
    pub(super) fn refuse(&mut self, sink: Sink, caller: &Caller, request: &Request, failure: Failure, cx: &mut Cx<'_>) {
        let record = caller.record(&request.method, None, request.params.len());
        cx.out.extend(record.map(|it| Action::Audit(it.failed(None, &failure, cx.now.instant, cx.now))));
        self.respond(sink, &request.id, Err(failure), cx);
    }

    /// A list. One that no server has is empty: that is no error (2025-11-25, Lifecycle, only says what to declare).
    fn list_all(&mut self, era: Era, request: &Request, cx: &Cx<'_>) -> Result<Bytes, Failure> {
        one_page(&request.params)?;
        let lists = &self.listing(era, cx).lists;
        let (kind, list) = match &*request.method {
            method::PROMPTS_LIST => (Kind::Prompt, lists.prompts.as_ref()),
            method::RESOURCES_LIST => (Kind::Resource, lists.resources.as_ref().map(|both| &both.resources)),
            _ => (Kind::Template, lists.resources.as_ref().map(|both| &both.templates)),
        };
        Ok(list.cloned().unwrap_or_else(|| lists::page(kind.member(), &[[]; 0])))
    }

    /// Where a request about one thing goes, with the server's own name or URI for it.
    fn errand_of(&mut self, caller: &Caller, request: &Request, cx: &Cx<'_>) -> Result<Errand, Failure> {
        let params =
            Object::parse_or_empty(&request.params).map_err(|_| Failure::BadParams("params must be an object"))?;
        let text = |key| params.get(key).and_then(|raw| rpc::string(&raw).map(|text| text.into_owned()));
        let (conn, server, params) = match &*request.method {
            method::PROMPTS_GET => {
                let name = text("name").ok_or(Failure::BadParams("params.name must be the prompt's name"))?;
                let (conn, server, own) = self.prompt(caller, &name, cx)?;
                (conn, server, params.replace(&[("name", quoted(&own).as_bytes())]))
            }
            method::COMPLETE => self.completion(caller, &request.params, cx)?,
            _ => {
                let uri = text("uri").ok_or(Failure::BadParams("params.uri must be the resource's URI"))?;
                let (conn, server, own) = self.resource(caller, &request.method, &uri, cx)?;
                let params = if own == uri { request.params.clone() } else { with_uri(&params, &own) };
                (conn, server, params)
            }
        };
        Ok(Errand { conn, server, method: request.method.clone(), params, tool: None })
    }

    /// What the name of a prompt means.
    fn prompt(&mut self, caller: &Caller, name: &str, cx: &Cx<'_>) -> Result<(ConnId, Arc<str>, Arc<str>), Failure> {
        let shown = || printable(name, limits::MAX_LISTED_NAME);
        match self.listing(caller.speaker.era(), cx).prompts.resolve(name) {
            Meaning::One(target) => Ok((target.conn, target.server.clone(), target.name.clone())),
            Meaning::Ambiguous(choices) => {
                Err(Failure::Ambiguous { thing: Thing::Prompt, name: shown(), choices: choices.join(", ") })
            }
            Meaning::Unknown(near) => Err(Failure::Unknown {
                thing: Thing::Prompt,
                name: shown(),
                hint: near.join(", "),
                code: code::INVALID_PARAMS,
            }),
        }
    }

    /// Whose a resource is. What a session subscribes to is remembered, so that it can take the very same back.
    fn resource(
        &mut self,
        caller: &Caller,
        method: &str,
        uri: &str,
        cx: &Cx<'_>,
    ) -> Result<(ConnId, Arc<str>, String), Failure> {
        let session = caller.speaker.session();
        if method == method::RESOURCES_UNSUBSCRIBE
            && let Some((place, own)) = session.and_then(|session| self.watches.remove(session, uri))
            && let Some(spot) = self.listing(caller.speaker.era(), cx).resources.spot(&place)
        {
            return Ok((spot.conn, spot.server.clone(), own));
        }
        let (spot, own) = owner(self.listing(caller.speaker.era(), cx).resources.owner(uri), &caller.speaker, uri)?;
        if let (Some(session), method::RESOURCES_SUBSCRIBE) = (session, method) {
            self.watches.add(session, uri, &spot, &own);
        }
        Ok((spot.conn, spot.server, own))
    }

    /// Whose argument is completed (2025-11-25, Completion, Reference Types).
    fn completion(
        &mut self,
        caller: &Caller,
        params: &Bytes,
        cx: &Cx<'_>,
    ) -> Result<(ConnId, Arc<str>, Bytes), Failure> {
        const UNREADABLE: Failure = Failure::BadParams("params.ref must name a prompt or a resource");
        let text =
            |key| object::get_path(params, &["ref", key]).and_then(|raw| rpc::string(&raw).map(|it| it.into_owned()));
        let (conn, server, key, own) = match text("type").as_deref() {
            Some("ref/prompt") => {
                let (conn, server, own) = self.prompt(caller, &text("name").ok_or(UNREADABLE)?, cx)?;
                (conn, server, "name", own.to_string())
            }
            Some("ref/resource") => {
                let uri = text("uri").ok_or(UNREADABLE)?;
                let found = self.listing(caller.speaker.era(), cx).resources.owner_of_template(&uri);
                let (spot, own) = owner(found, &caller.speaker, &uri)?;
                (spot.conn, spot.server, "uri", own)
            }
            _ => return Err(UNREADABLE),
        };
        let params = object::set_path(params, &["ref", key], quoted(&own).as_bytes()).map_err(|_| UNREADABLE)?;
        Ok((conn, server, params))
    }

    /// A server's notification that a resource changed, with the URI that a session knows it by.
    pub(super) fn respelled(
        &mut self,
        (session, era): (Option<&str>, Era),
        (conn, server): (ConnId, &str),
        json: &Bytes,
        cx: &Cx<'_>,
    ) -> Bytes {
        let path = ["params", "uri"];
        let raw = object::get_path(json, &path).unwrap_or_default();
        let Some(uri) = rpc::string(&raw) else { return json.clone() };
        self.listing(era, cx);
        let resources = &self.made_listing(era).resources;
        let Some(spot) = resources.spot_of(conn, server) else { return json.clone() };
        let watched = session.and_then(|session| self.watches.spelled(session, spot.labels(), &uri));
        let spelled = watched.unwrap_or_else(|| resources.shown(spot, &uri));
        if spelled == uri {
            return json.clone();
        }
        object::set_path(json, &path, quoted(&spelled).as_bytes()).unwrap_or_else(|_| json.clone())
    }

    /// A server's notification that belongs to no call, for who listens on `/mcp`. That a list changed the relay says
    /// itself. What is not known here passes as it is: it has no names that are others among several servers.
    pub(super) fn notice_to_all(
        &mut self,
        exchange: crate::id::ExchangeId,
        source: (ConnId, &str),
        (sessions, method): (&[String], &str),
        json: &Bytes,
        cx: &mut Cx<'_>,
    ) -> bool {
        let json = match method {
            method::TOOLS_CHANGED | method::PROMPTS_CHANGED | method::RESOURCES_CHANGED => return false,
            // Only who subscribed hears of it.
            method::RESOURCE_UPDATED if !sessions.is_empty() => {
                let session = self.listeners.session(exchange).map(|key: SessionKey| key.0);
                self.respelled((session.as_deref(), Era::Legacy), source, json, cx)
            }
            method::RESOURCE_UPDATED => return false,
            _ => json.clone(),
        };
        self.listeners.pass(exchange, &json, cx)
    }
}

/// There is one page: a cursor can only be somebody else's.
pub(super) fn one_page(params: &Bytes) -> Result<(), Failure> {
    let cursor = object::get(params, "cursor").unwrap_or_default();
    match &cursor[..] {
        b"" | b"null" | b"\"\"" => Ok(()),
        _ => Err(Failure::BadParams("no such cursor: the list has one page")),
    }
}

/// The one owner of a URI, and the URI there.
fn owner(found: Owner<'_>, speaker: &Speaker, uri: &str) -> Result<(Spot, String), Failure> {
    let name = printable(uri, limits::MAX_QUOTE);
    match found {
        Owner::One(spot, own) => Ok((spot.clone(), own.to_string())),
        Owner::Ambiguous(choices) => {
            let choices: Vec<String> = choices.iter().map(|choice| printable(choice, limits::MAX_QUOTE)).collect();
            Err(Failure::Ambiguous { thing: Thing::Resource, name, choices: choices.join(", ") })
        }
        Owner::Unknown(servers) => {
            // 2026-07-28, Resources, Error Handling: it was a code of its own before.
            let code = match speaker {
                Speaker::Legacy(_) => code::RESOURCE_NOT_FOUND,
                Speaker::Modern { .. } => code::INVALID_PARAMS,
            };
            Err(Failure::Unknown { thing: Thing::Resource, name, hint: servers.join(", "), code })
        }
    }
}

fn with_uri(params: &Object, uri: &str) -> Bytes {
    params.replace(&[("uri", quoted(uri).as_bytes())])
}

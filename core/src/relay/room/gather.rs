//! One request of a client that goes to several servers: the level of logs, the list of tasks, the search for a task.
//!
//! Each server is asked once, by a call of its own. The client is answered when all have answered or failed, or after
//! [`limits::GATHER_PATIENCE`] with what there is then. A server that sleeps is not woken.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};
use http::StatusCode;

use super::Room;
use super::aggregate::one_page;
use super::ask::{Caller, Errand};
use crate::id::{ConnId, ExchangeId};
use crate::limits;
use crate::mcp::catalog::State;
use crate::mcp::level::Level;
use crate::mcp::{Era, code, method};
use crate::relay::calls::Sink;
use crate::relay::catalog::printable;
use crate::relay::failure::{Failure, Thing};
use crate::relay::offer::Offer;
use crate::relay::outlet::Outlet;
use crate::relay::shard::{Cx, Timer};
use crate::relay::{Request, Speaker, device, lists, tasks};
use crate::rpc::object::{self, Object};
use crate::rpc::{self, Message, envelope};
use crate::tunnel::Dialect;

/// A request that several servers work on.
#[derive(Debug)]
pub(super) struct Gather {
    /// Where the client awaits the answer.
    sink: Sink,
    caller: Caller,
    request: Request,
    purpose: Purpose,
    /// One of each server.
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// `logging/setLevel`: everywhere.
    Level,
    /// `tasks/list`: everything.
    Tasks,
    /// Whose task a request is about.
    Search,
}

/// What one server answers.
#[derive(Debug)]
struct Part {
    conn: ConnId,
    server: Arc<str>,
    /// The entries of the pages of a list that came.
    items: Vec<(String, Bytes)>,
    pages: usize,
    /// The raw result or error, once it is there.
    outcome: Option<Result<Bytes, Bytes>>,
}

impl Room {
    /// `logging/setLevel` on `/mcp`: for every server that has a log. What one refuses is no failure while another takes
    /// it: levels are a wish (2025-11-25, Logging). One that there is not is nobody's (Logging, Error Handling).
    pub(super) fn set_level(&mut self, sink: Sink, caller: &Caller, request: Request, cx: &mut Cx<'_>) {
        let has_log = |offer: &Offer| offer.declares(&["logging"]);
        let params = request.params.clone();
        let level = object::get(&params, "level").unwrap_or_default();
        let is_level = rpc::string(&level).is_some_and(|text| Level::parse(&text).is_some());
        match self.having(caller.speaker.era(), has_log).len() {
            0 => self.refuse(sink, caller, &request, no_such_method(&request), cx),
            _ if !is_level => self.refuse(sink, caller, &request, Failure::BadParams(Level::EXPECTED), cx),
            _ => self.gather(
                sink,
                caller,
                request,
                Purpose::Level,
                (self.awake(caller.speaker.era(), has_log), params),
                cx,
            ),
        }
    }

    /// `tasks/list` on `/mcp`: those of every server that lists them.
    pub(super) fn list_tasks(&mut self, sink: Sink, caller: &Caller, request: Request, cx: &mut Cx<'_>) {
        let lists_tasks = |offer: &Offer| offer.declares(&["tasks", "list"]);
        let is_legacy = matches!(caller.speaker, Speaker::Legacy(_));
        if !is_legacy || self.having(caller.speaker.era(), lists_tasks).is_empty() {
            return self.refuse(sink, caller, &request, no_such_method(&request), cx);
        }
        if let Err(failure) = one_page(&request.params) {
            return self.refuse(sink, caller, &request, failure, cx);
        }
        let params = Object::parse_or_empty(&request.params).map(|params| params.remove(&["cursor"]));
        let params = params.unwrap_or_else(|_| Bytes::from_static(b"{}"));
        self.gather(sink, caller, request, Purpose::Tasks, (self.awake(caller.speaker.era(), lists_tasks), params), cx);
    }

    /// A request about one task: to its server. One that is not known is looked for, by asking for its state.
    pub(super) fn about_task(&mut self, sink: Sink, caller: &Caller, request: Request, cx: &mut Cx<'_>) {
        let raw = object::get(&request.params, "taskId").unwrap_or_default();
        let Some(id) = rpc::string(&raw) else {
            return self.refuse(sink, caller, &request, Failure::BadParams("params.taskId must be the task's id"), cx);
        };
        if let Some((conn, server)) = self.whose_task(caller.speaker.era(), &id) {
            return self.pass_on(sink, caller, request, (conn, server), cx);
        }
        let awake = self.awake(caller.speaker.era(), Offer::has_tasks);
        if awake.is_empty() {
            let failure = unknown_task(&id);
            return self.refuse(sink, caller, &request, failure, cx);
        }
        // What a task is told stays with its own server: the others see its id alone.
        let meta = object::get(&request.params, "_meta");
        let params = object::set_path(&Bytes::new(), &["taskId"], &raw).unwrap_or_default();
        let params = match meta {
            Some(meta) => object::set_path(&params, &["_meta"], &meta).unwrap_or(params),
            None => params,
        };
        self.gather(sink, caller, request, Purpose::Search, (awake, params), cx);
    }

    /// A server answered its part.
    pub(super) fn part(&mut self, number: u64, index: usize, response: &Bytes, cx: &mut Cx<'_>) {
        let Some(gather) = self.gathers.get_mut(&number) else { return };
        let purpose = gather.purpose;
        let Some(part) = gather.parts.get_mut(index) else { return };
        let is_there =
            |conn, server: &str| self.devices.get(&conn).is_some_and(|device| device.catalog.server(server).is_some());
        match part.take(purpose, response, is_there) {
            Some(cursor) => {
                let params = Object::parse_or_empty(&gather.request.params).ok();
                let params = params.map(|params| params.set(&[("cursor", &cursor)])).unwrap_or_default();
                let errand = part.errand(method::TASKS_LIST, params);
                let (caller, id) = (gather.caller.clone(), gather.request.id.clone());
                self.open(Sink::Part { gather: number, index, held: BytesMut::new() }, &caller, id, errand, cx);
            }
            None if gather.parts.iter().all(|part| part.outcome.is_some()) => self.gathered(number, cx),
            None => {}
        }
    }

    /// All is there, or has taken too long.
    pub(in crate::relay) fn gathered(&mut self, number: u64, cx: &mut Cx<'_>) {
        cx.timers.clear(&Timer::Gather(cx.user.clone(), number));
        let Some(Gather { sink, caller, request, purpose, parts }) = self.gathers.remove(&number) else { return };
        match purpose {
            Purpose::Level if parts.is_empty() || parts.iter().any(Part::is_fine) => {
                self.respond(sink, &request.id, Ok(Bytes::from_static(b"{}")), cx);
            }
            Purpose::Tasks if parts.is_empty() || parts.iter().any(Part::is_fine) => {
                for part in &parts {
                    for (id, _) in &part.items {
                        self.tasks.learn(id, (part.conn, part.server.clone()));
                    }
                }
                let entries = parts.into_iter().flat_map(|part| part.items).map(|(_, entry)| entry);
                let list = lists::page("tasks", &entries.collect::<Vec<_>>());
                self.respond(sink, &request.id, Ok(list), cx);
            }
            Purpose::Level | Purpose::Tasks => self.all_failed(sink, &request, &parts, cx),
            Purpose::Search => self.found(sink, &caller, request, parts, cx),
        }
    }

    /// The reply that a client awaits on that exchange.
    pub(super) fn gathering(&mut self, exchange: ExchangeId) -> Option<&mut Outlet> {
        self.gathers.values_mut().find_map(|gather| match &mut gather.sink {
            Sink::Reply(outlet) if outlet.exchange() == exchange => Some(outlet),
            _ => None,
        })
    }

    /// The client of such a reply went away: up to 2025-11-25 that is not a cancel. Returns whether there was one.
    pub(super) fn left_gather(&mut self, exchange: ExchangeId, cx: &mut Cx<'_>) -> bool {
        let awaits = |gather: &Gather| matches!(&gather.sink, Sink::Reply(outlet) if outlet.exchange() == exchange);
        let Some(number) = self.gathers.iter().find(|(_, gather)| awaits(gather)).map(|(number, _)| *number) else {
            return false;
        };
        let Some(Gather { sink: Sink::Reply(outlet), caller, request, purpose, parts }) = self.gathers.remove(&number)
        else {
            return true;
        };
        let sink = outlet.left(cx).map_or(Sink::Nobody, Sink::Reply);
        match &caller.speaker {
            Speaker::Legacy(_) => {
                self.gathers.insert(number, Gather { sink, caller, request, purpose, parts });
            }
            Speaker::Modern { .. } => cx.timers.clear(&Timer::Gather(cx.user.clone(), number)),
        }
        true
    }

    /// Answers the requests of those who are `meant`, and begins nothing more for them.
    pub(super) fn end_gathers(&mut self, meant: impl Fn(&Caller) -> bool, failure: &Failure, cx: &mut Cx<'_>) {
        let ended: Vec<(u64, Gather)> = self.gathers.extract_if(.., |_, gather| meant(&gather.caller)).collect();
        for (number, gather) in ended {
            cx.timers.clear(&Timer::Gather(cx.user.clone(), number));
            self.respond(gather.sink, &gather.request.id, Err(failure.clone()), cx);
        }
    }

    /// The replies that clients await, for one that takes its stream up again.
    pub(super) fn gather_outlets(&mut self) -> impl Iterator<Item = &mut Outlet> {
        self.gathers.values_mut().filter_map(|gather| match &mut gather.sink {
            Sink::Reply(outlet) => Some(outlet),
            Sink::Slot { .. } | Sink::Part { .. } | Sink::Feed { .. } | Sink::Nobody => None,
        })
    }

    /// Nobody awaits what is gathered for these.
    pub(super) fn drop_gathers(&mut self, meant: impl Fn(&Sink) -> bool) {
        let sinks = self.gathers.values_mut().map(|gather| &mut gather.sink);
        sinks.filter(|sink| meant(sink)).for_each(|sink| *sink = Sink::Nobody);
    }

    fn gather(
        &mut self,
        sink: Sink,
        caller: &Caller,
        request: Request,
        purpose: Purpose,
        (servers, params): (Vec<(ConnId, Arc<str>)>, Bytes),
        cx: &mut Cx<'_>,
    ) {
        let number = cx.numbers.draw();
        if let Sink::Reply(outlet) = &sink {
            outlet.hold(cx);
        }
        let method = match purpose {
            Purpose::Level | Purpose::Tasks => request.method.clone(),
            Purpose::Search => method::TASKS_GET.into(),
        };
        let part = |(conn, server)| Part { conn, server, items: Vec::new(), pages: 0, outcome: None };
        let parts: Vec<Part> = servers.into_iter().map(part).collect();
        let errands: Vec<Errand> = parts.iter().map(|part| part.errand(&method, params.clone())).collect();
        let id = request.id.clone();
        self.gathers.insert(number, Gather { sink, caller: caller.clone(), request, purpose, parts });
        cx.timers.set(Timer::Gather(cx.user.clone(), number), cx.now.instant + limits::GATHER_PATIENCE);
        if errands.is_empty() {
            return self.gathered(number, cx);
        }
        for (index, errand) in errands.into_iter().enumerate() {
            self.open(Sink::Part { gather: number, index, held: BytesMut::new() }, caller, id.clone(), errand, cx);
        }
    }

    /// Whose a task is: of whom it is known, or whose all tasks are.
    pub(super) fn whose_task(&self, era: Era, id: &str) -> Option<tasks::Owner> {
        let known = self.tasks.owner(id).filter(|(conn, server)| self.serves(*conn, server));
        match (known, self.having(era, Offer::has_tasks).as_slice()) {
            (Some(known), _) | (None, [known]) => Some(known.clone()),
            (None, _) => None,
        }
    }

    /// Who of those that were asked has the task.
    fn found(&mut self, sink: Sink, caller: &Caller, request: Request, parts: Vec<Part>, cx: &mut Cx<'_>) {
        let raw = object::get(&request.params, "taskId").unwrap_or_default();
        let id = rpc::string(&raw).unwrap_or_default().into_owned();
        let mut having: Vec<Part> = parts.into_iter().filter(Part::is_fine).collect();
        if having.len() > 1 {
            let choices: Vec<&str> = having.iter().map(|part| &*part.server).take(8).collect();
            let name = printable(&id, limits::MAX_QUOTE);
            let failure = Failure::Ambiguous { thing: Thing::Task, name, choices: choices.join(", ") };
            return self.refuse(sink, caller, &request, failure, cx);
        }
        let Some(Part { conn, server, outcome: Some(Ok(result)), .. }) = having.pop() else {
            return self.refuse(sink, caller, &request, unknown_task(&id), cx);
        };
        self.tasks.learn(&id, (conn, server.clone()));
        if &*request.method == method::TASKS_GET {
            return self.respond(sink, &request.id, Ok(result), cx);
        }
        if !self.serves(conn, &server) {
            return self.refuse(sink, caller, &request, unknown_task(&id), cx);
        }
        self.pass_on(sink, caller, request, (conn, server), cx);
    }

    fn pass_on(&mut self, sink: Sink, caller: &Caller, request: Request, to: tasks::Owner, cx: &mut Cx<'_>) {
        let (conn, server) = to;
        let errand = Errand { conn, server, method: request.method, params: request.params, tool: None };
        self.open(sink, caller, request.id, errand, cx);
    }

    /// Nobody could do it: the first one says why.
    fn all_failed(&mut self, sink: Sink, request: &Request, parts: &[Part], cx: &mut Cx<'_>) {
        let error = parts.iter().find_map(|part| part.outcome.as_ref()?.as_ref().err());
        let late = || envelope::error_object(code::TIMED_OUT, "no server answered in time", None);
        let error = error.cloned().unwrap_or_else(late);
        self.deliver(sink, StatusCode::OK, envelope::raw_error(Some(&request.id), &error), cx);
    }

    /// Whether that server is there.
    fn serves(&self, conn: ConnId, server: &str) -> bool {
        self.devices.get(&conn).is_some_and(|device| device.catalog.server(server).is_some())
    }

    /// The servers of which something holds for clients of that era, in their order.
    fn having(&self, era: Era, holds: fn(&Offer) -> bool) -> Vec<(ConnId, Arc<str>)> {
        let devices = device::sorted(&self.devices).into_iter().filter(|device| device.dialect == Dialect::V2);
        let servers =
            devices.flat_map(|device| device.catalog.servers().map(|(name, server)| (device.conn, name, server)));
        servers.filter(|(_, _, server)| holds(server.offer(era))).map(|(conn, name, _)| (conn, name.clone())).collect()
    }

    /// Those of them that are running, or about to.
    fn awake(&self, era: Era, holds: fn(&Offer) -> bool) -> Vec<(ConnId, Arc<str>)> {
        let mut having = self.having(era, holds);
        having.retain(|(conn, name)| {
            let server = self.devices.get(conn).and_then(|device| device.catalog.server(name));
            server.is_some_and(|(_, server)| server.takes_calls() && server.state != State::Asleep)
        });
        having
    }
}

impl Part {
    fn is_fine(&self) -> bool {
        matches!(self.outcome, Some(Ok(_)))
    }

    fn errand(&self, method: &str, params: Bytes) -> Errand {
        Errand { conn: self.conn, server: self.server.clone(), method: method.into(), params, tool: None }
    }

    /// Takes a response in. Returns the cursor of the page that is to be asked for next.
    fn take(&mut self, purpose: Purpose, response: &Bytes, is_there: impl Fn(ConnId, &str) -> bool) -> Option<Bytes> {
        let outcome = match rpc::parse(response) {
            Ok(Message::Response { outcome, .. }) => outcome,
            _ => Err(envelope::error_object(code::INTERNAL_ERROR, "its answer cannot be read", None)),
        };
        if let (Purpose::Tasks, Ok(result)) = (purpose, &outcome) {
            let Some(tasks::Page { entries, cursor }) = tasks::page(result) else {
                let text = "its list cannot be read";
                self.outcome = Some(Err(envelope::error_object(code::INTERNAL_ERROR, text, None)));
                return None;
            };
            self.items.extend(entries);
            self.pages += 1;
            if cursor.is_some() && self.pages < limits::MAX_TASK_PAGES && is_there(self.conn, &self.server) {
                return cursor;
            }
        }
        self.outcome = Some(outcome);
        None
    }
}

fn no_such_method(request: &Request) -> Failure {
    Failure::NoSuchMethod(printable(&request.method, limits::MAX_LISTED_NAME))
}

fn unknown_task(id: &str) -> Failure {
    let name = printable(id, limits::MAX_QUOTE);
    Failure::Unknown { thing: Thing::Task, name, hint: String::new(), code: code::INVALID_PARAMS }
}

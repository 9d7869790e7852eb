//! Local servers over HTTP: the same scripts, by Streamable HTTP. A session is a process for them, and so is all that is
//! asked in the modern era, which has none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tunnel_core::agent::machine::Event;
use tunnel_core::http::fetch::{Fetch, FetchError, FetchEvent};
use tunnel_core::id::{ChildId, FetchId};
use tunnel_core::mcp::key;

use crate::script::{Pace, Say, Start};
use crate::seen::Seen;
use crate::world::{AgentKey, Delivery, World};

/// What an agent's servers over HTTP have under way.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    streams: BTreeMap<u64, Stream>,
    /// What all is asked of in the modern era, by server.
    sessionless: BTreeMap<String, ChildId>,
    /// Fetches that were given up before they came anywhere.
    aborted: BTreeSet<FetchId>,
    /// What came to servers that do nothing for now.
    pub(crate) unread: Vec<(FetchId, Box<Fetch>)>,
}

/// What answers a POST, or tells of what belongs to none.
#[derive(Debug)]
struct Stream {
    server: String,
    child: ChildId,
    /// The id of the request that it answers.
    awaits: Option<Value>,
    /// Who reads it.
    fetch: Option<FetchId>,
    /// Its head was sent.
    has_begun: bool,
    /// It can be taken up again.
    is_kept: bool,
    events: Vec<Bytes>,
    is_over: bool,
}

/// Sessions have numbers that no process has.
const FIRST: u64 = 1 << 32;

/// Whether that is a session.
pub(crate) const fn is_session(child: ChildId) -> bool {
    child.0 >= FIRST
}

/// How the URLs of sites begin; the rest is the server's name.
pub const ORIGIN: &str = "http://127.0.0.1:8000/";

impl World {
    /// A request came to a site.
    pub(crate) fn fetched_at(&mut self, key: AgentKey, fetch: FetchId, request: Box<Fetch>) {
        let server = request.url.strip_prefix(ORIGIN).expect("the configuration has no other URL").to_owned();
        let agent = self.look(key);
        if agent.sites.aborted.remove(&fetch) {
            return;
        }
        let Some(script) = agent.scripts.get(&server) else { return };
        if matches!(script.start, Start::Missing | Start::Exit) {
            let error = FetchError::Connect("connection refused".to_owned());
            return self.fetch_says(key, fetch, FetchEvent::Failed(error));
        }
        if script.pace != Pace::Lively {
            return self.look(key).sites.unread.push((fetch, request));
        }
        self.note("to a site", [key.0 as u64, fetch.0], &request.body);
        let session = request.headers.get("mcp-session-id").and_then(|id| id.to_str().ok()?.parse().ok()).map(ChildId);
        if session.is_some_and(|session| self.look(key).children.get(&session) != Some(&server)) {
            return self.site_replies(key, fetch, StatusCode::NOT_FOUND);
        }
        match (request.method.clone(), session) {
            (Method::POST, session) => self.posted(key, fetch, &server, session, &request.body),
            (Method::GET, Some(child)) => self.asked_for_stream(key, fetch, (server, child), &request.headers),
            (Method::DELETE, Some(child)) => {
                self.session_ends(key, child);
                self.site_replies(key, fetch, StatusCode::OK);
            }
            _ => self.site_replies(key, fetch, StatusCode::METHOD_NOT_ALLOWED),
        }
    }

    fn posted(&mut self, key: AgentKey, fetch: FetchId, server: &str, session: Option<ChildId>, body: &Bytes) {
        let message: Value = serde_json::from_slice(body).expect("an agent writes JSON");
        let begins = session.is_none() && message["method"] == "initialize";
        let child = match session {
            Some(child) => child,
            None if begins => self.begin_session(key, server),
            None => self.sessionless(key, server),
        };
        let agent = self.look(key);
        let script = agent.scripts.get_mut(server).expect("it was looked at");
        let says = script.hear(child, body);
        let sabotage = self.sabotage;
        if self.seen.is_some() {
            for _ in sabotage.map_or_else(|| vec![&body[..]], |lie| lie.written(body)) {
                let (server, message) = (server.to_owned(), message.clone());
                self.saw(|| Seen::Heard { agent: key, server, child, message });
            }
        }
        let is_request = message.get("id").is_some() && message["method"].is_string();
        let mut on = None;
        if is_request {
            let number = self.number();
            let stream = Stream {
                server: server.to_owned(),
                child,
                awaits: Some(message["id"].clone()),
                fetch: Some(fetch),
                has_begun: false,
                is_kept: session.is_some() && !number.is_multiple_of(4),
                events: Vec::new(),
                is_over: false,
            };
            self.look(key).sites.streams.insert(number, stream);
            on = Some(number);
        } else {
            self.site_replies(key, fetch, StatusCode::ACCEPTED);
        }
        for say in says {
            let (Say::Line(after, _) | Say::TooLong(after, _, _) | Say::Exit(after, _)) = say;
            self.schedule(after + Duration::from_micros(100), Delivery::SiteSays(key, child, on, say));
        }
    }

    fn begin_session(&mut self, key: AgentKey, server: &str) -> ChildId {
        let child = ChildId(FIRST + self.number());
        self.look(key).children.insert(child, server.to_owned());
        self.saw(|| Seen::Child { agent: key, child, began: true });
        child
    }

    fn sessionless(&mut self, key: AgentKey, server: &str) -> ChildId {
        if let Some(child) = self.look(key).sites.sessionless.get(server) {
            return *child;
        }
        let child = self.begin_session(key, server);
        self.look(key).sites.sessionless.insert(server.to_owned(), child);
        child
    }

    /// The stream of what belongs to no request, or the rest of one that broke.
    fn asked_for_stream(
        &mut self,
        key: AgentKey,
        fetch: FetchId,
        (server, child): (String, ChildId),
        headers: &HeaderMap,
    ) {
        let place = headers.get("last-event-id").and_then(|id| {
            let (stream, place) = id.to_str().ok()?.split_once('-')?;
            Some((stream.parse::<u64>().ok()?, place.parse::<usize>().ok()?))
        });
        let Some((number, place)) = place else {
            let number = self.number();
            let (awaits, events) = (None, Vec::new());
            let (has_begun, is_kept, is_over) = (false, false, false);
            let stream = Stream { server, child, awaits, fetch: Some(fetch), has_begun, is_kept, events, is_over };
            self.look(key).sites.streams.insert(number, stream);
            return self.begin_stream(key, number);
        };
        self.trace.cover("a stream of a site is taken up again");
        let Some(stream) = self.look(key).sites.streams.get_mut(&number).filter(|stream| stream.child == child) else {
            return self.site_replies(key, fetch, StatusCode::BAD_REQUEST);
        };
        (stream.fetch, stream.has_begun) = (Some(fetch), false);
        let (rest, is_over): (Vec<_>, _) = (stream.events.iter().skip(place).cloned().collect(), stream.is_over);
        self.begin_stream(key, number);
        for (index, event) in rest.iter().enumerate() {
            self.fetch_says(key, fetch, FetchEvent::Chunk(event_of(number, place + index + 1, event)));
        }
        if is_over {
            self.fetch_says(key, fetch, FetchEvent::End);
        }
    }

    fn begin_stream(&mut self, key: AgentKey, number: u64) {
        let Some(stream) = self.look(key).sites.streams.get_mut(&number).filter(|stream| !stream.has_begun) else {
            return;
        };
        stream.has_begun = true;
        let (fetch, is_kept, place) = (stream.fetch, stream.is_kept, stream.events.len());
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))]);
        let Some(fetch) = fetch else { return };
        self.fetch_says(key, fetch, FetchEvent::Head { status: StatusCode::OK, headers });
        if is_kept && place == 0 {
            self.fetch_says(key, fetch, FetchEvent::Chunk(format!("id: {number}-0\ndata:\n\n").into()));
        }
    }

    /// A site says something in the course of that stream's request.
    pub(crate) fn site_says(&mut self, key: AgentKey, child: ChildId, on: Option<u64>, say: Say) {
        if !self.agents.get(&key).is_some_and(|agent| agent.children.contains_key(&child)) {
            return;
        }
        match say {
            Say::Line(_, line) => {
                self.note("a site says", [key.0 as u64, child.0], &line);
                self.saw_answer(key, child, &line);
                let lines = self.sabotage.map_or_else(|| vec![line.clone()], |lie| lie.said(line.clone()));
                for line in lines {
                    self.site_prints(key, child, on, line);
                }
            }
            Say::TooLong(..) => {
                let stream = on.and_then(|on| self.look(key).sites.streams.remove(&on));
                if let Some(fetch) = stream.and_then(|stream| stream.fetch) {
                    self.fetch_says(key, fetch, FetchEvent::Failed(FetchError::Broken("reset".to_owned())));
                }
            }
            Say::Exit(..) => self.site_dies(key, child),
        }
    }

    /// A line of a site's finds its stream.
    pub(crate) fn site_prints(&mut self, key: AgentKey, child: ChildId, on: Option<u64>, line: Bytes) {
        let message: Value = serde_json::from_slice(&line).expect("scripts say JSON here");
        let is_answer = message["method"].is_null();
        let about = if is_answer { &message["id"] } else { &message["params"]["_meta"][key::SUBSCRIPTION_ID] };
        let streams = &self.look(key).sites.streams;
        let of_child = || streams.iter().filter(|(_, stream)| stream.child == child && !stream.is_over);
        let named = of_child().find(|(_, stream)| !about.is_null() && stream.awaits.as_ref() == Some(about));
        let own = of_child().find(|(number, _)| !is_answer && Some(**number) == on);
        let beside = of_child().find(|(_, stream)| !is_answer && stream.awaits.is_none() && stream.fetch.is_some());
        let Some(number) = named.or(own).or(beside).map(|(number, _)| *number) else { return };
        let begins = is_answer && message["result"]["serverInfo"].is_object();
        let stream = self.look(key).sites.streams.get_mut(&number).expect("it was found");
        if is_answer && !stream.has_begun && (begins || number % 2 == 0) {
            let stream = self.look(key).sites.streams.remove(&number).expect("it was found");
            let Some(fetch) = stream.fetch else { return };
            let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
            if begins {
                let session = HeaderValue::from_str(&child.0.to_string()).expect("a number is visible");
                headers.insert(HeaderName::from_static("mcp-session-id"), session);
            }
            self.fetch_says(key, fetch, FetchEvent::Head { status: StatusCode::OK, headers });
            self.fetch_says(key, fetch, FetchEvent::Chunk(line));
            return self.fetch_says(key, fetch, FetchEvent::End);
        }
        self.begin_stream(key, number);
        let stream = self.look(key).sites.streams.get_mut(&number).expect("it was found");
        stream.is_over |= is_answer;
        stream.events.push(line.clone());
        let (place, is_over, is_kept, fetch) = (stream.events.len(), stream.is_over, stream.is_kept, stream.fetch);
        let Some(fetch) = fetch else { return };
        let event = if is_kept { event_of(number, place, &line) } else { sse(&line) };
        self.fetch_says(key, fetch, FetchEvent::Chunk(event));
        if is_over {
            self.look(key).sites.streams.remove(&number);
            self.fetch_says(key, fetch, FetchEvent::End);
        }
    }

    /// An agent does not wait for a fetch any more. In the modern era that is how a request is cancelled.
    pub(crate) fn fetch_aborted(&mut self, key: AgentKey, fetch: FetchId) {
        let sites = &mut self.look(key).sites;
        sites.unread.retain(|(unread, _)| *unread != fetch);
        let Some((number, stream)) = sites.streams.iter_mut().find(|(_, stream)| stream.fetch == Some(fetch)) else {
            sites.aborted.insert(fetch);
            return;
        };
        stream.fetch = None;
        let (number, child, server, awaits) = (*number, stream.child, stream.server.clone(), stream.awaits.clone());
        if sites.sessionless.get(&server) != Some(&child) {
            return;
        }
        sites.streams.remove(&number);
        let message = json!({"method": "notifications/cancelled", "params": {"requestId": awaits}});
        if let Some(script) = self.look(key).scripts.get_mut(&server) {
            script.hear(child, message.to_string().as_bytes());
        }
        self.saw(|| Seen::Heard { agent: key, server, child, message });
    }

    /// A head that did not come in time.
    pub(crate) fn fetch_is_late(&mut self, key: AgentKey, fetch: FetchId) {
        let Some(agent) = self.agents.get_mut(&key) else { return };
        let waits = |stream: &&mut Stream| stream.fetch == Some(fetch) && !stream.has_begun;
        let stream = agent.sites.streams.values_mut().find(waits);
        let is_unread = agent.sites.unread.iter().any(|(unread, _)| *unread == fetch);
        let is_late = stream.is_some() || is_unread;
        stream.into_iter().for_each(|stream| stream.fetch = None);
        agent.sites.unread.retain(|(unread, _)| *unread != fetch);
        if is_late {
            self.tell(key, Event::Fetch { fetch, event: FetchEvent::Failed(FetchError::TimedOut) });
        }
    }

    /// The connections of a site break.
    pub fn cut_site(&mut self, key: AgentKey, server: &str) {
        let streams = &mut self.look(key).sites.streams;
        let its = streams.iter().filter(|(_, stream)| stream.server == server && stream.fetch.is_some());
        for number in its.map(|(number, _)| *number).collect::<Vec<_>>() {
            let Some(stream) = self.look(key).sites.streams.get_mut(&number) else { continue };
            let goes_on = stream.is_kept && stream.has_begun;
            // Some say so, and when to come back.
            let is_polite = goes_on && number.is_multiple_of(2);
            let (fetch, child, awaits) = (stream.fetch.take(), stream.child, stream.awaits.clone());
            if let (false, Some(id)) = (goes_on, &awaits) {
                // Nobody hears of it any more, whatever becomes of it.
                let id = id.to_string();
                self.saw(|| Seen::Answers { agent: key, child, id });
            }
            if !goes_on {
                self.look(key).sites.streams.remove(&number);
            }
            let Some(fetch) = fetch else { continue };
            if is_polite {
                self.trace.cover("a site has the agent come back later");
                self.fetch_says(key, fetch, FetchEvent::Chunk(Bytes::from_static(b"retry: 700\n\n")));
                self.fetch_says(key, fetch, FetchEvent::End);
            } else {
                self.fetch_says(key, fetch, FetchEvent::Failed(FetchError::Broken("reset".to_owned())));
            }
        }
    }

    /// A site ends and is there again: it knows nothing of what was before.
    pub(crate) fn site_dies(&mut self, key: AgentKey, child: ChildId) {
        let Some(server) = self.look(key).children.get(&child).cloned() else { return };
        let sessions = self.children_of(key, &server);
        sessions.into_iter().filter(|child| is_session(*child)).for_each(|child| self.session_ends(key, child));
        self.look(key).sites.sessionless.remove(&server);
    }

    fn session_ends(&mut self, key: AgentKey, child: ChildId) {
        let agent = self.look(key);
        agent.children.remove(&child);
        for script in agent.scripts.values_mut() {
            script.listening.remove(&child);
            script.asking.retain(|(of, _), _| *of != child);
        }
        let gone: Vec<_> = agent.sites.streams.extract_if(.., |_, stream| stream.child == child).collect();
        self.note("a session of a site ends", [key.0 as u64, child.0], &[]);
        self.saw(|| Seen::Child { agent: key, child, began: false });
        for fetch in gone.into_iter().filter_map(|(_, stream)| stream.fetch) {
            self.fetch_says(key, fetch, FetchEvent::Failed(FetchError::Broken("reset".to_owned())));
        }
    }

    fn site_replies(&mut self, key: AgentKey, fetch: FetchId, status: StatusCode) {
        self.fetch_says(key, fetch, FetchEvent::Head { status, headers: HeaderMap::new() });
        self.fetch_says(key, fetch, FetchEvent::End);
    }

    fn fetch_says(&mut self, key: AgentKey, fetch: FetchId, event: FetchEvent) {
        self.schedule(Duration::from_micros(100), Delivery::Agent(key, Event::Fetch { fetch, event }));
    }
}

fn sse(line: &Bytes) -> Bytes {
    [b"data: ", &line[..], b"\n\n"].concat().into()
}

fn event_of(stream: u64, place: usize, line: &Bytes) -> Bytes {
    [format!("id: {stream}-{place}\n").as_bytes(), &sse(line)].concat().into()
}

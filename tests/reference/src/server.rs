//! What all clients share: the lists and who hears of their changes, what was seen, tasks; and which method does what.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::call::{Call, Outcome, Stop};
use crate::rpc::{self, Failure};
use crate::session::Session;
use crate::stream::Stream;
use crate::tasks::{self, Task};
use crate::{catalog, tools};

pub(crate) const MODERN: &str = "2026-07-28";
/// The newest first.
pub(crate) const LEGACY: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
pub(crate) const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
pub(crate) const TASKS: &str = "io.modelcontextprotocol/tasks";
const INFO: &str =
    r#"{"name":"reference","title":"The tests' reference","version":"1","x-unknown":123456789012345678901234567890}"#;

/// What can change, each with the notification that says so.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tools,
    Prompts,
    Resources,
}

impl Kind {
    fn word(self) -> &'static str {
        ["tools", "prompts", "resources"][self as usize]
    }
}

/// A modern client that listens.
struct Listener {
    id: String,
    filter: Value,
    stream: Arc<Stream>,
}

#[derive(Default)]
pub(crate) struct Server {
    /// How many entries a page of a list has.
    pub(crate) page: Option<usize>,
    /// What was added to each list.
    pub(crate) added: [AtomicBool; 3],
    /// How often the watched resource was updated.
    pub(crate) updates: AtomicU64,
    pub(crate) sessions: Mutex<BTreeMap<String, Arc<Session>>>,
    pub(crate) tasks: Mutex<BTreeMap<String, Arc<Task>>>,
    listeners: Mutex<BTreeMap<u64, Listener>>,
    seen: Mutex<BTreeMap<String, u64>>,
}

impl Server {
    pub(crate) fn new(page: Option<usize>) -> Self {
        Self { page, ..Self::default() }
    }

    /// Counts something that a test may ask for.
    pub(crate) fn saw(&self, what: &str) {
        *locked(&self.seen).entry(what.to_owned()).or_default() += 1;
    }

    pub(crate) fn seen(&self) -> Value {
        json!(*locked(&self.seen))
    }

    /// Adds or removes the extra entry of a list, and says so to everybody.
    pub(crate) fn toggle(&self, kind: Kind) {
        self.added[kind as usize].fetch_xor(true, Ordering::Relaxed);
        let (word, wanted) = (kind.word(), format!("{}ListChanged", kind.word()));
        let method = format!("notifications/{word}/list_changed");
        self.publish(&method, &json!({}), |filter| filter[&wanted] == true, |_| true);
    }

    pub(crate) fn update(&self, uri: &str) {
        self.updates.fetch_add(1, Ordering::Relaxed);
        let listens =
            |filter: &Value| filter["resourceSubscriptions"].as_array().is_some_and(|uris| uris.contains(&uri.into()));
        let watches = |session: &Session| locked(&session.watched).contains(uri);
        self.publish("notifications/resources/updated", &json!({"uri": uri}), listens, watches);
    }

    fn publish(
        &self,
        method: &str,
        params: &Value,
        listens: impl Fn(&Value) -> bool,
        hears: impl Fn(&Session) -> bool,
    ) {
        for one in locked(&self.listeners).values().filter(|one| listens(&one.filter)) {
            let mark = subscription(&one.id);
            one.stream.send(rpc::notification(method, &rpc::with_members(&params.to_string(), &mark)));
        }
        for session in locked(&self.sessions).values().filter(|session| hears(session)) {
            session.general.iter().for_each(|general| general.send(rpc::notification(method, &params.to_string())));
        }
    }

    /// The result of `initialize`.
    pub(crate) fn greeting(session: &Session) -> String {
        let own = json!({"protocolVersion": session.version, "capabilities": capabilities(), "instructions": "Ask anything."});
        rpc::with_members(&own.to_string(), &format!(r#""serverInfo":{INFO}"#))
    }
}

fn capabilities() -> Value {
    json!({
        "tools": {"listChanged": true}, "prompts": {"listChanged": true}, "completions": {}, "logging": {},
        "resources": {"subscribe": true, "listChanged": true}, "experimental": {"example.com/unknown": {"kept": false}},
    })
}

fn subscription(id: &str) -> String {
    format!(r#""_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}"#)
}

/// Does a modern request carry what it must (2026-07-28, basic: `_meta`), in a version that is spoken here?
pub(crate) fn check_meta(params: &rpc::Members) -> Result<(), Failure> {
    let meta = params.get("_meta").map(|raw| rpc::members(raw.get())).unwrap_or_default();
    let member = |name: &str| rpc::value(&meta, &format!("io.modelcontextprotocol/{name}"));
    let version = member("protocolVersion");
    if !version.is_string() || !member("clientCapabilities").is_object() {
        let supported = json!({"supported": [MODERN]}).to_string();
        return Err(Failure::invalid("_meta lacks protocolVersion or clientCapabilities").data(supported).status(400));
    }
    if version != MODERN {
        let data = json!({"supported": [MODERN], "requested": version}).to_string();
        return Err(Failure::new(-32022, "Unsupported protocol version").data(data).status(400));
    }
    Ok(())
}

/// Is this a request of the modern era?
pub(crate) fn is_modern(method: &str, params: &rpc::Members) -> bool {
    let version = "io.modelcontextprotocol/protocolVersion";
    method == "server/discover" || params.get("_meta").is_some_and(|raw| rpc::members(raw.get()).contains_key(version))
}

/// Does what a request asks for: the final answer, and its HTTP status.
pub(crate) async fn answer(call: Call) -> (String, u16) {
    let (done, id) = (run(&call).await, call.id.get());
    if let Some(session) = &call.session {
        session.ended(&call.id);
    }
    match done {
        Ok(result) if call.modern => {
            // A task says itself that it is one, and a handler may name itself and more.
            let own = rpc::members(&result);
            let kind = if own.contains_key("resultType") { "" } else { r#""resultType":"complete""# };
            let name = if own.contains_key("_meta") {
                String::new()
            } else {
                format!(r#""_meta":{{"io.modelcontextprotocol/serverInfo":{INFO}}}"#)
            };
            let comma = if kind.is_empty() || name.is_empty() { "" } else { "," };
            (rpc::result(id, &rpc::with_members(&result, &format!("{kind}{comma}{name}"))), 200)
        }
        Ok(result) => (rpc::result(id, &result), 200),
        Err(Stop::Asked(result)) => (rpc::result(id, &result), 200),
        Err(Stop::Failed(failure)) => {
            let status = if call.modern { failure.status } else { 200 };
            (rpc::error(id, &failure), status)
        }
    }
}

async fn run(call: &Call) -> Outcome {
    match call.method.as_str() {
        "tools/list" => catalog::page(call, "tools"),
        "prompts/list" => catalog::page(call, "prompts"),
        "resources/list" => catalog::page(call, "resources"),
        "resources/templates/list" => catalog::page(call, "resourceTemplates"),
        "tools/call" => {
            call.server.saw("tools/call");
            tasks::call(call).await
        }
        "prompts/get" => tools::prompt(call).await,
        "resources/read" => catalog::read(call),
        "completion/complete" => Ok(catalog::complete(call)),
        "example.com/echo" => Ok(format!(r#"{{"method":"example.com/echo","params":{}}}"#, call.raw)),
        _ if call.modern => modern(call).await,
        _ => legacy(call),
    }
}

async fn modern(call: &Call) -> Outcome {
    match call.method.as_str() {
        "server/discover" => {
            let mut capabilities = capabilities();
            capabilities["extensions"] = json!({TASKS: {}});
            Ok(json!({
                "supportedVersions": [MODERN], "capabilities": capabilities, "instructions": "Ask anything.",
                "ttlMs": 60_000, "cacheScope": "public",
            })
            .to_string())
        }
        "subscriptions/listen" => listen(call).await,
        "tasks/get" | "tasks/update" | "tasks/cancel" => tasks::about(call),
        method => Err(Failure::unknown_method(method).into()),
    }
}

fn legacy(call: &Call) -> Outcome {
    let session = call.session.as_deref().ok_or_else(|| Failure::new(-32603, "no session"))?;
    let uri = || call.param("uri").as_str().map(str::to_owned).ok_or_else(|| Failure::invalid("no uri"));
    match call.method.as_str() {
        "ping" => {}
        "logging/setLevel" => {
            let level = LEVELS.iter().position(|level| call.param("level") == *level);
            session.level.store(level.ok_or_else(|| Failure::invalid("no such level"))? as u64, Ordering::Relaxed);
        }
        "resources/subscribe" => drop(locked(&session.watched).insert(uri()?)),
        "resources/unsubscribe" => drop(locked(&session.watched).remove(&uri()?)),
        method => return Err(Failure::unknown_method(method).into()),
    }
    Ok("{}".to_owned())
}

/// Sends what the client listens for, until it has enough.
async fn listen(call: &Call) -> Outcome {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (server, key) = (&call.server, NEXT.fetch_add(1, Ordering::Relaxed));
    let listener =
        Listener { id: call.id.get().to_owned(), filter: call.param("notifications"), stream: call.stream.clone() };
    let mark = subscription(&listener.id);
    let granted = rpc::with_members(&json!({"notifications": listener.filter}).to_string(), &mark);
    call.stream.send(rpc::notification("notifications/subscriptions/acknowledged", &granted));
    locked(&server.listeners).insert(key, listener);
    let _forgotten = Forgotten(server, key);
    std::future::pending().await
}

/// Takes a listener out when its request is over.
struct Forgotten<'a>(&'a Server, u64);

impl Drop for Forgotten<'_> {
    fn drop(&mut self) {
        locked(&self.0.listeners).remove(&self.1);
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Local servers as scripts: what a stdio MCP server says to what it hears, and when.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tunnel_core::config::Isolation;
use tunnel_core::id::ChildId;
use tunnel_core::mcp::key;
use tunnel_core::rpc::{self, Message};

/// How a server behaves when its process starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// Answers `initialize` at once.
    #[default]
    Well,
    /// Prints lines that are not JSON first, then works.
    Garbage,
    /// Ends at once with exit code 3 and a word on stderr.
    Exit,
    /// Never answers how it is to be begun with.
    Hang,
    /// The program does not exist.
    Missing,
}

/// What a server or a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Era {
    /// 2025-11-25: with `initialize`.
    #[default]
    Legacy,
    /// 2026-07-28: with `_meta` in every request.
    Modern,
    /// Either, but one in each process.
    Both,
}

/// How a server gets on with its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pace {
    /// At once.
    #[default]
    Lively,
    /// Not at all: what is written to it waits in the pipe.
    Stalls,
    /// The same, and the pipe is full.
    Deaf,
}

/// A local server. Its tools: `echo` (returns its arguments), `wait` (answers after `ms`), `blob` (`bytes` of text),
/// `progress` (`steps` notifications, `ms` apart, then the answer), `silent` (never answers), `die` (the process ends),
/// `huge` (a line of `bytes` that is over the cap), `ask` (wants a message of the client's model, and returns it).
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// How it starts.
    pub start: Start,
    /// What it speaks.
    pub era: Era,
    /// Whether each session has a process of it for itself.
    pub isolation: Isolation,
    /// Whether it asks for a client's roots when it hears that they changed.
    pub asks_roots: bool,
    /// The era that each of its processes heard.
    pub spoken: BTreeMap<ChildId, Era>,
    /// The ids of the calls that wait for a client's answer, by process and our own id.
    pub asking: BTreeMap<(ChildId, String), Value>,
    /// Whether its log has levels and its resources can be watched, where a process speaks the legacy era; in the modern
    /// one whether these can be.
    pub is_watchable: bool,
    /// What its URIs have in them, if it has prompts, resources and templates.
    pub library: Option<String>,
    /// The subscriptions of the modern era at each of its processes: their requests' ids, and what they are of.
    pub listening: BTreeMap<ChildId, Vec<(Value, Value)>>,
    /// Names of tools beside the built-in ones.
    pub extra_tools: Vec<String>,
    /// Names of tools that it has in one era alone.
    pub era_tools: BTreeMap<Era, Vec<String>>,
    /// Names of tools that one process lists besides, where it speaks the legacy era.
    pub own_tools: BTreeMap<ChildId, Vec<String>>,
    /// Raw tool objects listed as they are, hostile ones for example.
    pub raw_tools: Vec<Value>,
    /// How many tools it lists on a page; 0: all on one.
    pub page: usize,
    /// Every request and notification it heard, in order.
    pub heard: Vec<Value>,
    /// What it says to the next requests `raw/echo` and calls of tools, in order: those are neither read nor written as
    /// values.
    pub raw: VecDeque<Raw>,
    /// The raw params of those requests.
    pub raw_heard: Vec<Bytes>,
    /// How it gets on with its work.
    pub pace: Pace,
}

/// What a script says word for word, in raw JSON.
#[derive(Debug, Clone)]
pub struct Raw {
    /// The params of a log notification before the answer.
    pub note: String,
    /// The result, or the `data` of an error.
    pub answer: Result<String, String>,
}

/// What a server does in answer to a line.
#[derive(Debug)]
pub enum Say {
    /// Prints this line after a while.
    Line(Duration, Bytes),
    /// Prints a line over the cap after a while: how it begins, and how long it is.
    TooLong(Duration, Bytes, u64),
    /// Ends with this exit code after a while.
    Exit(Duration, i32),
}

/// The tools every script has.
pub const TOOLS: [&str; 8] = ["echo", "wait", "blob", "progress", "silent", "die", "huge", "ask"];

/// The `requestState` of a modern `ask`.
const STATE: &str = "asked once";

/// How the ids of questions for roots begin.
const ROOTS: &str = "roots-";

fn is_about_roots(message: &Value) -> bool {
    message["id"].as_str().is_some_and(|id| id.starts_with(ROOTS))
}

impl Script {
    /// What it does when its process starts.
    pub fn started(&self) -> Vec<Say> {
        match self.start {
            Start::Well | Start::Hang | Start::Missing => Vec::new(),
            Start::Garbage => ["Server listening on stdio", "\u{1b}[32mok\u{1b}[0m", "{\"half\":"]
                .into_iter()
                .map(|line| Say::Line(Duration::ZERO, Bytes::from(line)))
                .collect(),
            Start::Exit => vec![Say::Exit(Duration::from_millis(5), 3)],
        }
    }

    /// What it does when its process `child` hears `line`.
    pub fn hear(&mut self, child: ChildId, line: &[u8]) -> Vec<Say> {
        if let Some(said) = self.hear_raw(line) {
            return said;
        }
        let message: Value = serde_json::from_slice(line).expect("an agent writes JSON lines");
        self.heard.push(message.clone());
        let Some(id) = message.get("id") else { return self.notified(child, &message) };
        let Some(method) = message["method"].as_str() else { return self.told(child, &message) };
        let params = &message["params"];
        let era = if params["_meta"][key::VERSION].is_string() { Era::Modern } else { Era::Legacy };
        let is_foreign = self.era != Era::Both && self.era != era;
        // A process that does not know `server/discover` has not spoken that era, and may be initialized.
        if !(is_foreign && method == "server/discover") {
            let spoken = *self.spoken.entry(child).or_insert(era);
            assert_eq!(spoken, era, "two eras in one process: {message}");
        }
        if is_foreign {
            let finds_out = matches!(method, "server/discover" | "initialize");
            assert!(finds_out, "asked in an era that it does not speak: {message}");
            return refuse(id);
        }
        match era {
            Era::Modern => self.hear_modern(child, id, method, params),
            Era::Legacy | Era::Both => self.hear_legacy(child, id, method, params),
        }
    }

    fn hear_legacy(&mut self, child: ChildId, id: &Value, method: &str, params: &Value) -> Vec<Say> {
        match method {
            "initialize" if matches!(self.start, Start::Hang | Start::Exit) => Vec::new(),
            "initialize" => answer(
                id,
                &json!({
                    "protocolVersion": "2025-11-25",
                    "capabilities": self.capabilities(),
                    "serverInfo": {"name": "script", "version": "1"},
                }),
            ),
            "ping" => answer(id, &json!({})),
            "tools/list" if self.own_tools.contains_key(&child) => {
                answer(id, &json!({"tools": self.named(&self.own_tools[&child])}))
            }
            "resources/subscribe" if self.library.as_deref().is_some_and(|own| !is_of(own, &params["uri"])) => {
                refuse(id)
            }
            "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" if self.is_watchable => {
                answer(id, &json!({}))
            }
            "tools/call" if params["name"] == "ask" => {
                let question = format!("question-{}", self.heard.len());
                let mut message = question_of(params);
                message["jsonrpc"] = json!("2.0");
                message["id"] = json!(question);
                self.asking.insert((child, question), id.clone());
                vec![now(&message)]
            }
            _ => self.hear_either(Era::Legacy, id, method, params),
        }
    }

    fn hear_modern(&mut self, child: ChildId, id: &Value, method: &str, params: &Value) -> Vec<Say> {
        let said = match method {
            "server/discover" if self.start == Start::Hang => return Vec::new(),
            "server/discover" => {
                let versions: &[&str] =
                    if self.era == Era::Both { &["2026-07-28", "2025-11-25"] } else { &["2026-07-28"] };
                answer(id, &json!({"supportedVersions": versions, "capabilities": self.capabilities()}))
            }
            "subscriptions/listen" => {
                self.listening.entry(child).or_default().push((id.clone(), params["notifications"].clone()));
                vec![now(&json!({
                    "jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
                    "params": {"notifications": params["notifications"], "_meta": {key::SUBSCRIPTION_ID: id}},
                }))]
            }
            "tools/call" if params["name"] == "ask" && params["inputResponses"].is_null() => {
                let questions = json!({"q": question_of(params)});
                let asked = json!({"resultType": "input_required", "inputRequests": questions, "requestState": STATE});
                answer(id, &asked)
            }
            "tools/call" if params["name"] == "ask" => {
                assert_eq!(params["requestState"], STATE, "it comes back as it was");
                answer(id, &marked(&text(said_by(&params["inputResponses"]["q"])), &params["arguments"]))
            }
            _ => self.hear_either(Era::Modern, id, method, params),
        };
        said.into_iter().map(completed).collect()
    }

    fn capabilities(&self) -> Value {
        let mut capabilities = json!({"tools": {"listChanged": true}});
        if self.is_watchable {
            capabilities["resources"] = json!({"subscribe": true});
            capabilities["logging"] = json!({});
        }
        if self.library.is_some() {
            capabilities["prompts"] = json!({"listChanged": true});
            capabilities["resources"] = json!({"subscribe": true, "listChanged": true});
        }
        capabilities
    }

    /// Its processes are gone, and their numbers will be others'.
    pub(crate) fn forget_processes(&mut self) {
        self.spoken.clear();
        self.own_tools.clear();
        self.asking.clear();
        self.listening.clear();
    }

    /// What its process `child` prints to say that: where it speaks the modern era, to each subscription that asked.
    pub(crate) fn tells(&self, child: ChildId, method: &str, params: &Value) -> Vec<Bytes> {
        let message = |params: &Value| line(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
        if self.spoken.get(&child) != Some(&Era::Modern) {
            return vec![message(params)];
        }
        let is_asked = |of: &Value| match method {
            "notifications/resources/updated" => {
                let uris = of["resourceSubscriptions"].as_array();
                uris.is_some_and(|uris| uris.contains(&params["uri"]))
            }
            _ => of["toolsListChanged"] == true,
        };
        let asked = self.listening.get(&child).into_iter().flatten().filter(|(_, of)| is_asked(of));
        asked
            .map(|(id, _)| {
                let mut params = params.clone();
                params["_meta"] = json!({key::SUBSCRIPTION_ID: id});
                message(&params)
            })
            .collect()
    }

    /// What it says of its prompts and resources.
    fn lends(&self, method: &str, params: &Value) -> Option<Value> {
        let name = self.library.as_deref()?;
        Some(match method {
            "prompts/list" => json!({"prompts": [{"name": "hello", "arguments": [{"name": MARKER}]}]}),
            "prompts/get" => {
                let content = json!({"type": "text", "text": params["arguments"][MARKER]});
                json!({"messages": [{"role": "user", "content": content}]})
            }
            "resources/list" => json!({"resources": [{"uri": resource(name, "one"), "name": "one"}]}),
            "resources/templates/list" => {
                json!({"resourceTemplates": [{"uriTemplate": resource(name, "{id}"), "name": "notes"}]})
            }
            "resources/read" => json!({"contents": [{"uri": params["uri"], "text": "a note"}]}),
            _ => return None,
        })
    }

    fn hear_either(&self, era: Era, id: &Value, method: &str, params: &Value) -> Vec<Say> {
        if let Some(result) = self.lends(method, params) {
            return answer(id, &result);
        }
        match method {
            "tools/list" => answer(id, &self.list(era, params["cursor"].as_str())),
            "tools/call" => {
                let name = params["name"].as_str().unwrap_or_default();
                let foreign = self.era_tools.iter().filter(|(of, _)| **of != era).flat_map(|(_, tools)| tools);
                let own = self.era_tools.get(&era).into_iter().flatten().any(|tool| tool == name);
                assert!(own || !foreign.into_iter().any(|tool| tool == name), "{era:?} has no {name}");
                call(id, params)
            }
            _ => refuse(id),
        }
    }

    fn notified(&mut self, child: ChildId, message: &Value) -> Vec<Say> {
        if message["method"] == "notifications/cancelled" {
            let ended = &message["params"]["requestId"];
            self.listening.entry(child).or_default().retain(|(id, _)| id != ended);
        }
        if !self.asks_roots || message["method"] != "notifications/roots/list_changed" {
            return Vec::new();
        }
        let id = format!("{ROOTS}{}", self.heard.len());
        vec![now(&json!({"jsonrpc": "2.0", "id": id, "method": "roots/list"}))]
    }

    /// What it heard of clients' roots, in order: results and errors.
    pub fn told_of_roots(&self) -> impl Iterator<Item = &Value> {
        let is_told = |message: &&Value| message["method"].is_null() && is_about_roots(message);
        self.heard.iter().filter(is_told)
    }

    /// A client's answer to what it was asked: for its roots, or what `ask` wanted to know.
    fn told(&mut self, child: ChildId, message: &Value) -> Vec<Say> {
        if is_about_roots(message) {
            return Vec::new();
        }
        let question = message["id"].as_str().expect("it asks with text").to_owned();
        let id = self.asking.remove(&(child, question)).expect("an answer is to an open question, and the only one");
        answer(&id, &marked(&text(said_by(&message["result"])), &message["result"]))
    }

    /// What it says to `raw/echo`; `None` to anything else.
    fn hear_raw(&mut self, line: &[u8]) -> Option<Vec<Say>> {
        let Ok(Message::Request { id, method, params }) = rpc::parse(&Bytes::copy_from_slice(line)) else {
            return None;
        };
        let is_call = &*method == "tools/call" && !self.raw.is_empty();
        if &*method != "raw/echo" && !is_call {
            return None;
        }
        let Raw { note, answer } = self.raw.pop_front().expect("a test says what a script answers");
        self.raw_heard.push(params);
        let id = String::from_utf8_lossy(id.as_bytes()).into_owned();
        let note = format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{note}}}"#);
        let answer = match answer {
            Ok(result) => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#),
            Err(data) => {
                format!(r#"{{"error":{{"code":-7,"message":"as told","data":{data}}},"jsonrpc":"2.0","id":{id}}}"#)
            }
        };
        Some([note, answer].map(|line| Say::Line(Duration::ZERO, Bytes::from(line))).into())
    }

    /// How often `tool` was called. A call that comes back with what was asked for is no other one.
    pub fn calls(&self, tool: &str) -> usize {
        self.begun().filter(|params| params["name"] == tool).count()
    }

    /// The params of every call that was begun.
    pub fn begun(&self) -> impl Iterator<Item = &Value> {
        let calls = self.heard.iter().filter(|message| message["method"] == "tools/call");
        calls.map(|message| &message["params"]).filter(|params| params["inputResponses"].is_null())
    }

    /// How many cancellations it heard.
    pub fn cancellations(&self) -> usize {
        self.heard.iter().filter(|m| m["method"] == "notifications/cancelled").count()
    }

    /// Every tool object it lists in either era.
    pub fn tools(&self) -> Vec<Value> {
        self.named(&self.extra_tools)
    }

    fn named(&self, more: &[String]) -> Vec<Value> {
        let named = TOOLS.into_iter().map(String::from).chain(more.iter().cloned());
        let tools = named.map(|name| {
            json!({
                "name": name, "title": "A tool", "description": "does what it says",
                "inputSchema": {"type": "object"}, "icons": [], "x-unknown": 1.50, "_meta": {"k": null},
            })
        });
        tools.chain(self.raw_tools.iter().cloned()).collect()
    }

    fn list(&self, era: Era, cursor: Option<&str>) -> Value {
        let own = self.era_tools.get(&era).into_iter().flatten();
        let tools = self.named(&self.extra_tools.iter().chain(own).cloned().collect::<Vec<_>>());
        if self.page == 0 {
            return json!({"tools": tools});
        }
        let from: usize = cursor.and_then(|text| text.parse().ok()).unwrap_or(0);
        let to = (from + self.page).min(tools.len());
        let mut result = json!({"tools": tools[from..to]});
        if to < tools.len() {
            result["nextCursor"] = json!(to.to_string());
        }
        result
    }
}

/// Whose answer it is, for a model that looks: the marker of the call, if it has one.
fn marked(result: &Value, arguments: &Value) -> Value {
    let mut result = result.clone();
    if arguments[MARKER].is_string() {
        result["structuredContent"] = json!({MARKER: arguments[MARKER]});
    }
    result
}

/// Whether a URI is of that library.
fn is_of(library: &str, uri: &Value) -> bool {
    uri.as_str().is_some_and(|uri| uri.starts_with(&resource(library, "")))
}

/// The URI of a library's resource; of one that is in no list, too.
pub(crate) fn resource(library: &str, name: &str) -> String {
    format!("note://{library}/{name}")
}

/// The argument that tells a call from all others.
pub const MARKER: &str = "marker";

fn call(id: &Value, params: &Value) -> Vec<Say> {
    let arguments = &params["arguments"];
    let number = |key: &str| arguments[key].as_u64().unwrap_or(0);
    let after = |ms: u64, result: &Value| {
        vec![Say::Line(Duration::from_millis(ms), line(&json!({"jsonrpc": "2.0", "id": id, "result": result})))]
    };
    match params["name"].as_str().unwrap_or_default() {
        "wait" => after(number("ms"), &marked(&text("waited"), arguments)),
        "blob" => {
            let blob = "x".repeat(usize::try_from(number("bytes")).expect("a test's size fits"));
            after(0, &marked(&text(&blob), arguments))
        }
        "progress" => {
            let token = &params["_meta"]["progressToken"];
            let (steps, ms) = (number("steps"), number("ms"));
            let words = "x".repeat(usize::try_from(number("words")).expect("a test's size fits"));
            let notes = (1..=steps).map(|step| {
                Say::Line(
                    Duration::from_millis(step * ms),
                    line(&json!({
                        "jsonrpc": "2.0", "method": "notifications/progress",
                        "params": {"progressToken": token, "progress": step, "total": steps, "message": words},
                    })),
                )
            });
            notes.chain(after((steps + 1) * ms, &marked(&text("done"), arguments))).collect()
        }
        "silent" => Vec::new(),
        "die" => vec![Say::Exit(Duration::ZERO, 1)],
        "huge" => {
            let prefix =
                Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":"xx"#));
            vec![Say::TooLong(Duration::ZERO, prefix, number("bytes"))]
        }
        _ => after(0, &json!({"content": [{"type": "text", "text": "echo"}], "structuredContent": arguments})),
    }
}

/// What `ask` wants to know of the client.
fn question_of(call: &Value) -> Value {
    let message = json!({"role": "user", "content": {"type": "text", "text": call["arguments"].to_string()}});
    json!({"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": 9}})
}

/// What the client's model said; nothing, if the client could not be asked.
fn said_by(answer: &Value) -> &str {
    answer["content"]["text"].as_str().unwrap_or_default()
}

/// A result as the modern era wants it.
fn completed(say: Say) -> Say {
    let Say::Line(after, bytes) = say else { return say };
    let mut message: Value = serde_json::from_slice(&bytes).expect("it was written here");
    if let Some(result) = message.get_mut("result").and_then(Value::as_object_mut) {
        result.entry("resultType").or_insert_with(|| json!("complete"));
    }
    Say::Line(after, line(&message))
}

fn refuse(id: &Value) -> Vec<Say> {
    vec![now(&json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no such method"}}))]
}

fn text(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}]})
}

fn answer(id: &Value, result: &Value) -> Vec<Say> {
    vec![now(&json!({"jsonrpc": "2.0", "id": id, "result": result}))]
}

fn now(message: &Value) -> Say {
    Say::Line(Duration::ZERO, line(message))
}

fn line(message: &Value) -> Bytes {
    Bytes::from(message.to_string())
}

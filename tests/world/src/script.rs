//! Local servers as scripts: what a stdio MCP server says to what it hears, and when.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
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
    /// Never answers `initialize`.
    Hang,
    /// The program does not exist.
    Missing,
}

/// A local server. Its tools: `echo` (returns its arguments), `wait` (answers after `ms`), `blob` (`bytes` of text),
/// `progress` (`steps` notifications, `ms` apart, then the answer), `silent` (never answers), `die` (the process ends),
/// `huge` (a line of `bytes` that is over the cap).
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// How it starts.
    pub start: Start,
    /// Names of tools beside the built-in ones.
    pub extra_tools: Vec<String>,
    /// Raw tool objects listed as they are, hostile ones for example.
    pub raw_tools: Vec<Value>,
    /// How many tools it lists on a page; 0: all on one.
    pub page: usize,
    /// Every request and notification it heard, in order.
    pub heard: Vec<Value>,
    /// What it says to the next requests `raw/echo`, in order: those are neither read nor written as values.
    pub raw: VecDeque<Raw>,
    /// The raw params of those requests.
    pub raw_heard: Vec<Bytes>,
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
pub const TOOLS: [&str; 7] = ["echo", "wait", "blob", "progress", "silent", "die", "huge"];

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

    /// What it does when it hears `line`.
    pub fn hear(&mut self, line: &[u8]) -> Vec<Say> {
        if let Some(said) = self.hear_raw(line) {
            return said;
        }
        let message: Value = serde_json::from_slice(line).expect("an agent writes JSON lines");
        self.heard.push(message.clone());
        let Some(id) = message.get("id").cloned() else { return Vec::new() };
        let params = &message["params"];
        match message["method"].as_str().unwrap_or_default() {
            "initialize" if matches!(self.start, Start::Hang | Start::Exit) => Vec::new(),
            "initialize" => answer(
                &id,
                &json!({
                    "protocolVersion": "2025-11-25",
                    "capabilities": {"tools": {"listChanged": true}},
                    "serverInfo": {"name": "script", "version": "1"},
                }),
            ),
            "ping" => answer(&id, &json!({})),
            "tools/list" => answer(&id, &self.list(params["cursor"].as_str())),
            "tools/call" => call(&id, params),
            _ => {
                vec![now(&json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no such method"}}))]
            }
        }
    }

    /// What it says to `raw/echo`; `None` to anything else.
    fn hear_raw(&mut self, line: &[u8]) -> Option<Vec<Say>> {
        let Ok(Message::Request { id, method, params }) = rpc::parse(&Bytes::copy_from_slice(line)) else {
            return None;
        };
        if method != "raw/echo" {
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

    /// How often `tool` was called.
    pub fn calls(&self, tool: &str) -> usize {
        self.heard.iter().filter(|m| m["method"] == "tools/call" && m["params"]["name"] == tool).count()
    }

    /// How many cancellations it heard.
    pub fn cancellations(&self) -> usize {
        self.heard.iter().filter(|m| m["method"] == "notifications/cancelled").count()
    }

    /// Every tool object it lists.
    pub fn tools(&self) -> Vec<Value> {
        let named = TOOLS.into_iter().map(String::from).chain(self.extra_tools.iter().cloned());
        let tools = named.map(|name| {
            json!({
                "name": name, "title": "A tool", "description": "does what it says",
                "inputSchema": {"type": "object"}, "icons": [], "x-unknown": 1.50, "_meta": {"k": null},
            })
        });
        tools.chain(self.raw_tools.iter().cloned()).collect()
    }

    fn list(&self, cursor: Option<&str>) -> Value {
        let tools = self.tools();
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

fn call(id: &Value, params: &Value) -> Vec<Say> {
    let arguments = &params["arguments"];
    let number = |key: &str| arguments[key].as_u64().unwrap_or(0);
    let after = |ms: u64, result: &Value| {
        vec![Say::Line(Duration::from_millis(ms), line(&json!({"jsonrpc": "2.0", "id": id, "result": result})))]
    };
    match params["name"].as_str().unwrap_or_default() {
        "wait" => after(number("ms"), &text("waited")),
        "blob" => after(0, &text(&"x".repeat(usize::try_from(number("bytes")).expect("a test's size fits")))),
        "progress" => {
            let token = &params["_meta"]["progressToken"];
            let (steps, ms) = (number("steps"), number("ms"));
            let notes = (1..=steps).map(|step| {
                Say::Line(
                    Duration::from_millis(step * ms),
                    line(&json!({
                        "jsonrpc": "2.0", "method": "notifications/progress",
                        "params": {"progressToken": token, "progress": step, "total": steps},
                    })),
                )
            });
            notes.chain(after((steps + 1) * ms, &text("done"))).collect()
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

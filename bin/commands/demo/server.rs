//! The demo's own MCP server: four small tools on stdin and stdout, revision 2025-11-25.
//!
//! It is an ordinary server, without any knowledge of the tunnel: what works with it works with others.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::failure::Failure;

/// The revisions that this server can speak, the newest first.
const VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// Countdowns at once: each is a thread.
const MAX_COUNTDOWNS: usize = 64;
/// What a blob repeats.
const DIGITS: &str = "0123456789abcdef";
/// The largest blob: what a tunnel takes as one result, with room for its envelope.
const MAX_BLOB: u64 = 60 * 1024 * 1024;

const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const PARSE_ERROR: i64 = -32700;

/// Serves until stdin ends.
pub(crate) fn run() -> Result<(), Failure> {
    let server = Arc::new(Server::new(io::stdout()));
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| Failure::Failed(format!("cannot read stdin: {error}")))?;
        if !line.trim().is_empty() {
            server.handle(&line);
        }
    }
    Ok(())
}

/// The server and what it has under way.
struct Server<W> {
    out: Mutex<W>,
    /// Countdowns by the JSON of their request's id: set, they stop.
    countdowns: Mutex<BTreeMap<String, Arc<AtomicBool>>>,
}

/// How a request is answered: a result, or an error's code and message.
type Answer = Result<Value, (i64, String)>;

impl<W: Write + Send + 'static> Server<W> {
    fn new(out: W) -> Self {
        Self { out: Mutex::new(out), countdowns: Mutex::new(BTreeMap::new()) }
    }

    /// Takes one message.
    fn handle(self: &Arc<Self>, line: &str) {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            return self.answer(&Value::Null, Err((PARSE_ERROR, "not JSON".into())));
        };
        let params = message.get("params").unwrap_or(&Value::Null);
        let method = message.get("method").and_then(Value::as_str);
        match (method, message.get("id")) {
            (Some("notifications/cancelled"), None) => self.cancel(params),
            // Other notifications ask for nothing; responses answer nothing that was asked.
            (Some(_), None) | (None, Some(_)) => {}
            (Some("tools/call"), Some(id)) => self.call(id, params),
            (Some(method), Some(id)) => self.answer(id, request(method, params)),
            (None, None) => self.answer(&Value::Null, Err((INVALID_REQUEST, "neither request nor response".into()))),
        }
    }

    fn call(self: &Arc<Self>, id: &Value, params: &Value) {
        let none = json!({});
        let arguments = params.get("arguments").unwrap_or(&none);
        match params.get("name").and_then(Value::as_str) {
            Some("echo") => self.answer(id, Ok(echo(arguments))),
            Some("add") => self.answer(id, Ok(add(arguments))),
            Some("blob") => self.answer(id, Ok(blob(arguments))),
            Some("countdown") => self.start_countdown(id, params, arguments),
            _ => self.answer(id, Err((INVALID_PARAMS, "unknown tool".into()))),
        }
    }

    /// Counts down on a thread of its own, so that other calls go on.
    fn start_countdown(self: &Arc<Self>, id: &Value, params: &Value, arguments: &Value) {
        let from = arguments.get("from").map_or(Some(3), Value::as_u64).filter(|from| (1..=100).contains(from));
        let pause = arguments.get("pause_ms").map_or(Some(200), Value::as_u64).filter(|pause| *pause <= 60_000);
        let (Some(from), Some(pause)) = (from, pause) else {
            return self.answer(id, Ok(failed("from must be a whole number from 1 to 100, pause_ms one up to 60000")));
        };
        let stop = Arc::new(AtomicBool::new(false));
        {
            let mut countdowns = locked(&self.countdowns);
            if countdowns.len() >= MAX_COUNTDOWNS {
                drop(countdowns);
                return self.answer(id, Ok(failed("too many countdowns at once")));
            }
            countdowns.insert(id.to_string(), Arc::clone(&stop));
        }
        let (server, id) = (Arc::clone(self), id.clone());
        let token = params.pointer("/_meta/progressToken").cloned();
        thread::spawn(move || {
            let done = server.count(from, Duration::from_millis(pause), token.as_ref(), &stop);
            locked(&server.countdowns).remove(&id.to_string());
            // A cancelled request is not answered (2025-11-25, basic/utilities/cancellation).
            if done {
                server.answer(&id, Ok(text("liftoff")));
            }
        });
    }

    /// Whether it got to zero.
    fn count(&self, from: u64, pause: Duration, token: Option<&Value>, stop: &AtomicBool) -> bool {
        for step in 1..=from {
            thread::sleep(pause);
            if stop.load(Ordering::Relaxed) {
                return false;
            }
            if let Some(token) = token {
                let left = from - step;
                self.send(&json!({
                    "jsonrpc": "2.0",
                    "method": "notifications/progress",
                    "params": { "progressToken": token, "progress": step, "total": from, "message": format!("{left} to go") },
                }));
            }
        }
        true
    }

    fn cancel(&self, params: &Value) {
        let id = params.get("requestId").unwrap_or(&Value::Null).to_string();
        if let Some(stop) = locked(&self.countdowns).get(&id) {
            stop.store(true, Ordering::Relaxed);
        }
    }

    fn answer(&self, id: &Value, answer: Answer) {
        match answer {
            Ok(result) => self.send(&json!({ "jsonrpc": "2.0", "id": id, "result": result })),
            Err((code, message)) => {
                self.send(&json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } }))
            }
        }
    }

    fn send(&self, message: &Value) {
        let mut line = message.to_string();
        line.push('\n');
        let mut out = locked(&self.out);
        // When nobody reads any more, stdin is about to end too.
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }
}

/// Everything but tools.
fn request(method: &str, params: &Value) -> Answer {
    match method {
        "initialize" => {
            let asked = params.get("protocolVersion").and_then(Value::as_str);
            let version = VERSIONS.iter().find(|version| Some(**version) == asked).unwrap_or(&VERSIONS[0]);
            Ok(json!({
                "protocolVersion": version,
                "capabilities": { "tools": {} },
                "serverInfo": { "name": "mcp-local-tunnel-demo", "title": "Demo", "version": env!("CARGO_PKG_VERSION") },
                "instructions": "Tools to see a tunnel work: echo, add, countdown (with progress) and blob (a large result).",
            }))
        }
        "ping" => Ok(json!({})),
        "tools/list" => Ok(json!({ "tools": tools() })),
        _ => Err((METHOD_NOT_FOUND, format!("no method {method}"))),
    }
}

fn tools() -> Value {
    let read_only = json!({ "readOnlyHint": true, "openWorldHint": false });
    json!([
        {
            "name": "echo",
            "title": "Echo",
            "description": "Gives back the text that it was given.",
            "inputSchema": { "type": "object", "properties": { "text": { "type": "string" } }, "required": ["text"] },
            "annotations": read_only,
        },
        {
            "name": "add",
            "title": "Add",
            "description": "Adds two numbers.",
            "inputSchema": {
                "type": "object",
                "properties": { "a": { "type": "number" }, "b": { "type": "number" } },
                "required": ["a", "b"],
            },
            "outputSchema": { "type": "object", "properties": { "sum": { "type": "number" } }, "required": ["sum"] },
            "annotations": read_only,
        },
        {
            "name": "countdown",
            "title": "Count down",
            "description": "Counts down to zero, with a progress notification for each step.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "from": { "type": "integer", "minimum": 1, "maximum": 100, "default": 3 },
                    "pause_ms": { "type": "integer", "minimum": 0, "maximum": 60_000, "default": 200 },
                },
            },
            "annotations": read_only,
        },
        {
            "name": "blob",
            "title": "Blob",
            "description": "Gives a text of as many bytes as asked for: a large result.",
            "inputSchema": {
                "type": "object",
                "properties": { "bytes": { "type": "integer", "minimum": 0, "maximum": MAX_BLOB } },
                "required": ["bytes"],
            },
            "annotations": read_only,
        },
    ])
}

fn echo(arguments: &Value) -> Value {
    arguments.get("text").and_then(Value::as_str).map_or_else(|| failed("text must be a text"), text)
}

fn add(arguments: &Value) -> Value {
    let number = |name| arguments.get(name).and_then(Value::as_f64);
    let (Some(a), Some(b)) = (number("a"), number("b")) else { return failed("a and b must be numbers") };
    let mut result = text(&(a + b).to_string());
    if let Some(members) = result.as_object_mut() {
        members.insert("structuredContent".into(), json!({ "sum": a + b }));
    }
    result
}

fn blob(arguments: &Value) -> Value {
    match arguments.get("bytes").and_then(Value::as_u64).filter(|bytes| *bytes <= MAX_BLOB).map(usize::try_from) {
        Some(Ok(bytes)) => {
            let mut filler = DIGITS.repeat(bytes.div_ceil(DIGITS.len()));
            filler.truncate(bytes);
            text(&filler)
        }
        _ => failed(&format!("bytes must be a whole number up to {MAX_BLOB}")),
    }
}

fn text(text: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": text }] })
}

/// A tool's own error: the model sees it and may mend its arguments.
fn failed(message: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": message }], "isError": true })
}

/// The lock; a thread that panicked with it leaves nothing half done here.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Sends each line that is written as one message.
    struct Lines(Sender<Value>);

    impl Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let message = serde_json::from_slice(line).expect("one whole line at a time");
            self.0.send(message).map_err(io::Error::other)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn server() -> (Arc<Server<Lines>>, Receiver<Value>) {
        let (sender, receiver) = channel();
        (Arc::new(Server::new(Lines(sender))), receiver)
    }

    fn call(server: &Arc<Server<Lines>>, id: u64, tool: &str, arguments: Value) {
        let params = json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": "t" } });
        server.handle(&json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }).to_string());
    }

    #[test]
    fn version_is_negotiated() {
        for (asked, given) in [("2025-06-18", "2025-06-18"), ("2026-07-28", "2025-11-25"), ("nonsense", "2025-11-25")] {
            let answer = request("initialize", &json!({ "protocolVersion": asked })).expect("initializes");
            assert_eq!(answer["protocolVersion"], given);
        }
    }

    #[test]
    fn tools_answer_and_bad_arguments_are_the_tools_errors() {
        let (server, answers) = server();
        for (tool, arguments, expected, is_error) in [
            ("echo", json!({ "text": "hi" }), "hi", false),
            ("echo", json!({}), "text must be a text", true),
            ("add", json!({ "a": 2, "b": 0.5 }), "2.5", false),
            ("add", json!({ "a": "2" }), "a and b must be numbers", true),
            ("blob", json!({ "bytes": 18 }), "0123456789abcdef01", false),
            ("blob", json!({ "bytes": MAX_BLOB + 1 }), "bytes must be a whole number up to 62914560", true),
            (
                "countdown",
                json!({ "from": 0 }),
                "from must be a whole number from 1 to 100, pause_ms one up to 60000",
                true,
            ),
        ] {
            call(&server, 1, tool, arguments);
            let answer = answers.recv().expect("answers");
            assert_eq!(answer["result"]["content"][0]["text"], expected);
            assert_eq!(answer["result"]["isError"] == true, is_error, "{tool}");
        }
        call(&server, 2, "rm", json!({}));
        assert_eq!(answers.recv().expect("answers")["error"]["code"], INVALID_PARAMS);
    }

    #[test]
    fn countdown_tells_its_progress_and_then_answers() {
        let (server, answers) = server();
        call(&server, 7, "countdown", json!({ "from": 2, "pause_ms": 0 }));
        for progress in [1, 2] {
            let notification = answers.recv().expect("tells");
            assert_eq!(notification["method"], "notifications/progress");
            assert_eq!(
                (&notification["params"]["progress"], &notification["params"]["progressToken"]),
                (&json!(progress), &json!("t"))
            );
        }
        assert_eq!(answers.recv().expect("answers")["id"], 7);
    }

    #[test]
    fn cancelled_countdown_is_not_answered_and_others_go_on() {
        let (server, answers) = server();
        call(&server, 8, "countdown", json!({ "from": 100, "pause_ms": 1 }));
        server.handle(
            &json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 8 } }).to_string(),
        );
        while !locked(&server.countdowns).is_empty() {
            thread::yield_now();
        }
        server.handle(r#"{"jsonrpc":"2.0","id":9,"method":"ping"}"#);
        let last = answers.iter().find(|message| message.get("id").is_some()).expect("answers");
        assert_eq!(last["id"], 9);
    }

    #[test]
    fn garbage_is_answered_as_json_rpc_says() {
        let (server, answers) = server();
        for (line, code) in
            [("{", PARSE_ERROR), ("{}", INVALID_REQUEST), (r#"{"id":1,"method":"server/discover"}"#, METHOD_NOT_FOUND)]
        {
            server.handle(line);
            assert_eq!(answers.recv().expect("answers")["error"]["code"], code, "{line}");
        }
    }
}

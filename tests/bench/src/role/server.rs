//! The MCP server behind every contender, on stdin and stdout: as fast as a pipe, so that it is never what is measured.

use std::io::{self, BufRead as _, BufReader, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::IdAt;

/// What it reads at once, and gathers before it writes.
const BUFFER: usize = 256 * 1024;

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: &'a str,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    name: &'a str,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, rename = "_meta")]
    meta: Option<Meta<'a>>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, rename = "progressToken")]
    progress_token: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Arguments<'a> {
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    bytes: usize,
    ms: u64,
    steps: u64,
}

/// How it writes its answers, and the tools that it lists.
#[derive(Debug)]
pub(crate) struct Server {
    id: IdAt,
    /// The result of `tools/list`.
    tools: Bytes,
}

impl Server {
    /// With the four tools that are called, and as many more to list as make `tools`.
    pub(crate) fn new(id: IdAt, tools: usize) -> Self {
        let called = ["echo", "blob", "sleep", "progress"].map(str::to_owned);
        let names = called.into_iter().chain((0..tools.saturating_sub(4)).map(|n| format!("tool_{n}")));
        let tools: Vec<_> = names.map(|name| tool(&name)).collect();
        Self { id, tools: format!("{{\"tools\":[{}]}}", tools.join(",")).into() }
    }

    /// The answer to one line, if that asks for tools: what is before their list, the list without a copy, what is behind.
    pub(crate) fn list(&self, line: &[u8]) -> Option<[Bytes; 3]> {
        // A look that is cheap, for whoever asks for anything else.
        memmem::find(line.get(..64).unwrap_or(line), b"\"tools/list\"")?;
        let request: Request<'_> = serde_json::from_slice(line).ok()?;
        let id = request.id.filter(|_| request.method == "tools/list")?;
        let (mut out, mut before) = (Vec::new(), 0);
        self.result(&mut out, id.get(), |out| before = out.len());
        let mut out = Bytes::from(out);
        Some([out.split_to(before), self.tools.clone(), out])
    }

    /// The answer to one line; `None` where there is none, or where a thread gives it later by `late`.
    pub(crate) fn answer(self: &Arc<Self>, line: &[u8], out: &mut Vec<u8>, late: &Arc<Mutex<dyn Write + Send>>) {
        let Ok(request) = serde_json::from_slice::<Request<'_>>(line) else { return };
        let Some(id) = request.id else { return };
        match request.method {
            "initialize" => self.result(out, id.get(), |out| {
                out.extend_from_slice(
                    br#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"bench","version":"1"}}"#,
                );
            }),
            "tools/list" => self.result(out, id.get(), |out| out.extend_from_slice(&self.tools)),
            "tools/call" => self.call(id.get(), request.params, out, late),
            "ping" => self.result(out, id.get(), |out| out.extend_from_slice(b"{}")),
            _ => {
                let error = r#""error":{"code":-32601,"message":"Method not found"}"#;
                out.extend_from_slice(format!("{{\"jsonrpc\":\"2.0\",\"id\":{},{error}}}\n", id.get()).as_bytes());
            }
        }
    }

    fn call(
        self: &Arc<Self>,
        id: &str,
        params: Option<&RawValue>,
        out: &mut Vec<u8>,
        late: &Arc<Mutex<dyn Write + Send>>,
    ) {
        let Some(call) = params.and_then(|params| serde_json::from_str::<Call<'_>>(params.get()).ok()) else { return };
        let arguments = call.arguments.and_then(|raw| serde_json::from_str::<Arguments<'_>>(raw.get()).ok());
        let arguments = arguments.unwrap_or_default();
        match call.name {
            "echo" => self.text(out, id, |out| {
                out.extend_from_slice(arguments.text.map_or("\"\"", RawValue::get).as_bytes());
            }),
            "blob" => self.text(out, id, |out| {
                out.push(b'"');
                out.resize(out.len() + arguments.bytes, b'x');
                out.push(b'"');
            }),
            "sleep" | "progress" => {
                let token = call.meta.and_then(|meta| meta.progress_token).map(|token| token.get().to_owned());
                let (server, id, late) = (Arc::clone(self), id.to_owned(), Arc::clone(late));
                let (ms, steps) = (arguments.ms, arguments.steps);
                std::thread::spawn(move || server.slowly(&id, token.as_deref(), ms, steps, &late));
            }
            _ => self.text(out, id, |out| out.extend_from_slice(b"\"\"")),
        }
    }

    /// Waits, telling how far it is where that was asked for.
    fn slowly(&self, id: &str, token: Option<&str>, ms: u64, steps: u64, late: &Arc<Mutex<dyn Write + Send>>) {
        let write = |text: &[u8]| {
            let mut writer = late.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            writer.write_all(text).and_then(|()| writer.flush())
        };
        for step in 0..steps.max(1) {
            std::thread::sleep(Duration::from_millis(ms));
            if let Some(token) = token {
                let said = format!(
                    "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{{\"progressToken\":{token},\"progress\":{step}}}}}\n"
                );
                if write(said.as_bytes()).is_err() {
                    return;
                }
            }
        }
        let mut out = Vec::new();
        self.text(&mut out, id, |out| out.extend_from_slice(b"\"done\""));
        // Whoever asked may be gone.
        drop(write(&out));
    }

    fn text(&self, out: &mut Vec<u8>, id: &str, text: impl FnOnce(&mut Vec<u8>)) {
        self.result(out, id, |out| {
            out.extend_from_slice(br#"{"content":[{"type":"text","text":"#);
            text(out);
            out.extend_from_slice(b"}]}");
        });
    }

    fn result(&self, out: &mut Vec<u8>, id: &str, result: impl FnOnce(&mut Vec<u8>)) {
        match self.id {
            IdAt::First => {
                out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
                out.extend_from_slice(id.as_bytes());
                out.extend_from_slice(br#","result":"#);
                result(out);
            }
            IdAt::Last => {
                out.extend_from_slice(br#"{"result":"#);
                result(out);
                out.extend_from_slice(br#","jsonrpc":"2.0","id":"#);
                out.extend_from_slice(id.as_bytes());
            }
        }
        out.extend_from_slice(b"}\n");
    }
}

fn tool(name: &str) -> String {
    let about = "Does one thing, and says in about as many words as tools do on the average what that is.";
    let schema = r#"{"type":"object","properties":{"text":{"type":"string","description":"What to say"},"bytes":{"type":"integer"},"ms":{"type":"integer"},"steps":{"type":"integer"}}}"#;
    format!(r#"{{"name":"{name}","description":"{about}","inputSchema":{schema}}}"#)
}

/// Serves stdin until it ends.
pub(crate) fn run(id: IdAt, tools: usize) -> io::Result<()> {
    let server = Arc::new(Server::new(id, tools));
    let stdout: Arc<Mutex<dyn Write + Send>> = Arc::new(Mutex::new(io::stdout()));
    let mut lines = BufReader::with_capacity(BUFFER, io::stdin());
    let (mut line, mut out) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        server.answer(&line, &mut out, &stdout);
        // As many answers as there were questions in one read go out in one write.
        if lines.buffer().is_empty() || out.len() >= BUFFER {
            let mut stdout = stdout.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            stdout.write_all(&out)?;
            stdout.flush()?;
            out.clear();
        }
    }
}

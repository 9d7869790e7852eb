//! An agent's settings.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use http::{HeaderName, HeaderValue};

use super::checked::{AgentConfig, ServerConfig, Transport};
use super::problem::Report;
use super::raw::{Node, Object};
use super::{Options, address, life, policy, reference};
use crate::limits;
use crate::secret::Secret;

/// The settings of an agent. `inputs` comes with a block that is pasted from VS Code.
pub(super) const KEYS: [&str; 12] = [
    "mode",
    "relay",
    "name",
    "servers",
    "mcpServers",
    "token",
    "caFile",
    "policy",
    "pins",
    "audit",
    "$schema",
    "inputs",
];
/// Settings that stand elsewhere, and what to say of them.
const ELSEWHERE: [(&str, &str); 9] = [
    ("auth", "is a relay's setting: an agent signs in by itself"),
    ("issuer", "is a relay's setting: an agent signs in by itself"),
    ("port", "is a relay's setting: an agent opens no port"),
    ("host", "is a relay's setting: an agent opens no port (its device's name is called name)"),
    ("secret", "is a relay's setting (\"mode\": \"relay\")"),
    ("issuerUrl", "is a relay's setting: write relay"),
    ("command", "belongs to a server: write servers.<name>.command"),
    ("url", "belongs to a server: write servers.<name>.url (the relay's URL is called relay)"),
    ("server", "is not a setting: did you mean servers?"),
];
/// The settings of a server.
const SERVER_KEYS: [&str; 21] = [
    "command",
    "args",
    "env",
    "cwd",
    "url",
    "headers",
    "startTimeout",
    "lazy",
    "idleStop",
    "restart",
    "memoryLimit",
    "callIdleTimeout",
    "isolation",
    "era",
    "sandbox",
    "policy",
    "type",
    "disabled",
    "alwaysAllow",
    "autoApprove",
    "timeout",
];
/// What editors call the same things.
const SERVER_ELSEWHERE: [(&str, &str); 4] = [
    ("serverUrl", "is not a setting: did you mean url?"),
    ("httpUrl", "is not a setting: did you mean url?"),
    ("envFile", "is not read: put the variables into env"),
    ("transport", "is not a setting: did you mean type?"),
];

/// Reads an agent's settings; what is wrong goes to `report`.
pub(super) fn check(top: &Object<'_>, options: Options, report: &mut Report) -> Option<AgentConfig> {
    top.warn_unknown(&KEYS, &ELSEWHERE, report);
    if top.get("inputs").is_some_and(|node| !matches!(node.value, super::json::Json::Array(items) if items.is_empty()))
    {
        report.warn("inputs", "is not read: put the values where ${input:…} stands");
    }
    let relay = match top.get("relay") {
        Some(node) => relay(&node, options, report),
        None => {
            top.missing("relay", "give the relay's host name, as in \"tunnel.example.com\"", report);
            None
        }
    };
    let name = top.get("name").map(|node| name(&node, report));
    let token = top.get("token").map(|node| token(&node, report));
    let ca_file = top.get("caFile").map(|node| place(&node, report));
    let servers = servers(top, report);
    let policy = policy::check(top, report);
    Some(AgentConfig {
        relay: relay?,
        name: match name {
            Some(name) => Some(name?),
            None => None,
        },
        servers: servers?,
        token: match token {
            Some(token) => Some(token?),
            None => None,
        },
        ca_file: match ca_file {
            Some(path) => Some(path?),
            None => None,
        },
        policy,
    })
}

fn relay(node: &Node<'_>, options: Options, report: &mut Report) -> Option<String> {
    let text = node.text(report)?;
    address::relay(text, options.allow_insecure).map_err(|problem| report.error(&node.path, problem)).ok()
}

/// `name`: what the device is called.
fn name(node: &Node<'_>, report: &mut Report) -> Option<String> {
    let name = node.text(report)?.trim();
    if is_name(name) {
        return Some(name.to_string());
    }
    report.error(&node.path, "must be at most 255 bytes, without control characters");
    None
}

/// `token`: where a minted token is, never the token.
fn token(node: &Node<'_>, report: &mut Report) -> Option<String> {
    let text = node.text(report)?;
    let fits = match text.split_once(':') {
        Some(("env", name)) => is_variable(name),
        Some(("file", path)) => !path.is_empty() && !path.contains('\0'),
        _ => false,
    };
    if !fits {
        report.error(
            &node.path,
            "must say where the token is, \"env:NAME\" or \"file:PATH\": a token must not stand in a configuration",
        );
    }
    fits.then(|| text.to_string())
}

/// `servers`, or `mcpServers` as pasted blocks call it.
fn servers(top: &Object<'_>, report: &mut Report) -> Option<BTreeMap<String, ServerConfig>> {
    let node = match (top.get("servers"), top.get("mcpServers")) {
        (Some(_), Some(pasted)) => {
            report.error(&pasted.path, "and servers are the same setting: put all entries into one");
            return None;
        }
        (Some(node), None) | (None, Some(node)) => node,
        (None, None) => {
            top.missing("servers", "add a server, as in {\"files\": {\"command\": [\"npx\", \"-y\", \"@modelcontextprotocol/server-filesystem\", \"/home/me\"]}}", report);
            return None;
        }
    };
    let entries = node.object(report)?;
    if entries.is_empty() {
        report.warn(&node.path, "is empty: no tool can be used until a server is added");
    }
    if entries.members().count() > limits::MAX_SERVERS {
        report.error(&node.path, format!("has more than {} servers", limits::MAX_SERVERS));
    }
    let mut servers = BTreeMap::new();
    for (name, node) in entries.members() {
        if !is_name(name) {
            report.error(&node.path, "must have a name of 1 to 255 bytes without control characters");
        }
        if let Some(server) = server(&node, report) {
            servers.insert(name.to_string(), server);
        }
    }
    Some(servers)
}

/// One server; `None` when it is disabled or wrong.
fn server(node: &Node<'_>, report: &mut Report) -> Option<ServerConfig> {
    let entry = node.object(report)?;
    if entry.get("disabled").and_then(|node| node.boolean(report)) == Some(true) {
        return None;
    }
    entry.warn_unknown(&SERVER_KEYS, &SERVER_ELSEWHERE, report);
    let start_timeout =
        entry.get("startTimeout").and_then(|node| node.integer(1..=MAX_START_SECS, "a time in seconds", report));
    let transport = match (entry.get("command"), entry.get("url")) {
        (Some(_), Some(_)) => {
            report.error(
                &entry.path,
                "has both command and url: keep command for a program to start, url for a server that runs already",
            );
            None
        }
        (None, None) => {
            report.error(&entry.path, "needs command (a program to start) or url (a server that runs already)");
            None
        }
        (Some(command), None) => stdio(&entry, &command, report),
        (None, Some(url)) => http(&entry, &url, report),
    };
    let life = life::check(&entry, report);
    Some(ServerConfig { transport: transport?, start_timeout_secs: start_timeout.unwrap_or(START_SECS), life })
}

/// Time for `npx` or `uvx` to fetch a package over a slow line.
const START_SECS: u64 = 60;
const MAX_START_SECS: u64 = 3600;

/// A server that is a process.
fn stdio(entry: &Object<'_>, node: &Node<'_>, report: &mut Report) -> Option<Transport> {
    check_type(entry, &["stdio"], "stdio", report);
    if let Some(node) = entry.get("headers") {
        report.warn(&node.path, "has no effect with command: headers are for a server with url");
    }
    let args = entry.get("args").map(|node| arguments(&node, report));
    let command = command(node, args.is_some(), report);
    let env = entry.get("env").map(|node| env(&node, report));
    let cwd = entry.get("cwd").map(|node| place(&node, report));
    let mut command = command?;
    command.extend(args.unwrap_or_else(|| Some(Vec::new()))?);
    Some(Transport::Stdio {
        command,
        env: env.unwrap_or_else(|| Some(BTreeMap::new()))?,
        cwd: match cwd {
            Some(cwd) => Some(cwd?),
            None => None,
        },
    })
}

/// A server that is reached over Streamable HTTP.
fn http(entry: &Object<'_>, node: &Node<'_>, report: &mut Report) -> Option<Transport> {
    check_type(entry, &["http", "streamable-http", "streamableHttp"], "http", report);
    for key in ["args", "env", "cwd", "memoryLimit", "sandbox"] {
        if let Some(node) = entry.get(key) {
            report.warn(&node.path, format!("has no effect with url: {key} is for a server with command"));
        }
    }
    let headers = entry.get("headers").map(|node| headers(&node, report));
    let url = node.text(report)?;
    address::server(url).map_err(|problem| report.error(&node.path, problem)).ok()?;
    Some(Transport::Http { url: url.to_string(), headers: headers.unwrap_or_else(|| Some(BTreeMap::new()))? })
}

/// `type`, which pasted blocks carry: it must agree with the rest of the entry.
fn check_type(entry: &Object<'_>, accepted: &[&str], meant: &str, report: &mut Report) {
    let Some(node) = entry.get("type") else { return };
    match node.value.as_str() {
        Some(named) if accepted.contains(&named) => {}
        Some("sse") => report.error(
            &node.path,
            "is the transport of 2024-11-05, which is not spoken: give the server's Streamable HTTP URL (often /mcp) with \"type\": \"http\"",
        ),
        Some("stdio" | "http" | "streamable-http" | "streamableHttp") => {
            report.error(&node.path, format!("does not fit the rest of the entry: it must be \"{meant}\", or be left out"));
        }
        _ => report.error(&node.path, format!("must be \"{meant}\", or be left out")),
    }
}

/// `command`: a program's name, or the program and its arguments.
fn command(node: &Node<'_>, has_args: bool, report: &mut Report) -> Option<Vec<String>> {
    let words = match node.value {
        super::json::Json::Array(_) => arguments(node, report)?,
        super::json::Json::Text(_) => vec![node.text(report)?.to_string()],
        _ => {
            report.error(&node.path, format!("must be a text or an array of texts, not {}", node.value.kind()));
            return None;
        }
    };
    let is_text = node.value.as_str().is_some();
    match words.first().map(String::as_str) {
        None => report.error(&node.path, "is empty: name the program to start"),
        Some(program) if program.trim().is_empty() => {
            report.error(&format!("{}[0]", node.path), "is empty: name the program to start")
        }
        Some(program) if program.contains('\0') => report.error(&node.path, "must not contain a NUL character"),
        Some(program) if program.starts_with('~') => {
            report.error(&node.path, "must not begin with ~, which only a shell knows: write the whole path");
        }
        // No shell takes the line apart; a name with spaces but without a path is a command line.
        Some(program) if is_text && !has_args && program.trim().contains(' ') && !program.contains(['/', '\\']) => {
            report.error(
                &node.path,
                "is taken as one program's name: write [\"program\", \"argument\", …], or put the rest into args",
            );
        }
        Some(_) => return Some(words),
    }
    None
}

/// Texts for a command line.
fn arguments(node: &Node<'_>, report: &mut Report) -> Option<Vec<String>> {
    let words = node.texts(report)?;
    for (at, word) in words.iter().enumerate() {
        let path = format!("{}[{at}]", node.path);
        if word.contains('\0') {
            report.error(&path, "must not contain a NUL character");
        }
        warn_placeholder(&path, word, report);
    }
    Some(words)
}

/// `env`.
fn env(node: &Node<'_>, report: &mut Report) -> Option<BTreeMap<String, Secret>> {
    let object = node.object(report)?;
    let mut env = BTreeMap::new();
    for (name, node) in object.members() {
        if !is_variable(name) {
            report.error(&node.path, "must be named as an environment variable is: not empty, without = and NUL");
        }
        let Some(value) = node.any_text(report) else { continue };
        if value.contains('\0') {
            report.error(&node.path, "must not contain a NUL character");
        }
        check_reference(&node.path, value, report);
        warn_placeholder(&node.path, value, report);
        env.insert(name.to_string(), Secret::new(value));
    }
    Some(env)
}

/// A value that says where it is, `env:NAME` or `file:/PATH`: it is looked up when the server is started.
fn check_reference(path: &str, value: &str, report: &mut Report) {
    match value.split_once(':') {
        Some(("env", name)) if !is_variable(name) => report.error(path, "must name a variable after env:"),
        Some(("file", place)) if !reference::is_file(place) && !is_url_of_its_own(place) => {
            report.error(path, "must name a whole path after file:, as in file:/home/me/key, or begin with file:./ if the server is to have it as it stands");
        }
        Some(("file", place)) if !reference::is_file(place) => {
            report.warn(path, "is given as it stands: to read a file, write its whole path, as in file:/home/me/key");
        }
        _ => {}
    }
}

/// Programs have such values of their own, as Prisma's `file:./dev.db` and SQLite's `file::memory:` or `file:a.db?mode=ro`.
fn is_url_of_its_own(place: &str) -> bool {
    place.starts_with(['.', '/', ':']) || place.contains('?')
}

/// `headers`.
fn headers(node: &Node<'_>, report: &mut Report) -> Option<BTreeMap<String, Secret>> {
    let object = node.object(report)?;
    let mut headers = BTreeMap::new();
    for (name, node) in object.members() {
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(header) if RESERVED_HEADERS.contains(&header.as_str()) => {
                report.error(&node.path, "is set by the agent itself: leave it out");
            }
            Ok(_) => {}
            Err(_) => report.error(&node.path, "is not a header's name: letters, digits and hyphens, without a colon"),
        }
        let Some(value) = node.any_text(report) else { continue };
        if HeaderValue::from_str(value).is_err() {
            report.error(&node.path, "must be a header's value: one line of ASCII characters");
        }
        warn_placeholder(&node.path, value, report);
        headers.insert(name.to_string(), Secret::new(value));
    }
    Some(headers)
}

/// What framing and the protocol decide (RFC 9110 section 7, MCP 2025-11-25 basic/transports).
const RESERVED_HEADERS: [&str; 12] = [
    "host",
    "connection",
    "content-length",
    "content-type",
    "transfer-encoding",
    "upgrade",
    "accept",
    "mcp-session-id",
    "mcp-protocol-version",
    "mcp-method",
    "mcp-name",
    "last-event-id",
];

/// A path on this machine.
pub(super) fn place(node: &Node<'_>, report: &mut Report) -> Option<String> {
    let text = node.text(report)?;
    if text.starts_with('~') {
        report.error(&node.path, "must not begin with ~, which only a shell knows: write the whole path");
        return None;
    }
    if text.contains('\0') {
        report.error(&node.path, "must not contain a NUL character");
        return None;
    }
    Some(text.to_string())
}

/// Editors fill `${…}` in when they start a server; an agent takes texts as they are.
fn warn_placeholder(path: &str, text: &str, report: &mut Report) {
    if ["${input:", "${env:", "${workspaceFolder", "${userHome"].iter().any(|opening| text.contains(opening)) {
        report.warn(path, "has a ${…} that only an editor fills in: write the value itself");
    }
}

fn is_name(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= MAX_NAME_BYTES && !name.chars().any(char::is_control)
}

/// What a host name may take; names of devices and servers travel in a header.
const MAX_NAME_BYTES: usize = 255;

fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

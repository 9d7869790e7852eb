//! The walk: what an MCP client does from the first request to a streamed result, over real HTTP, step by step.

use std::future::Future;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;
use serde_json::{Value, json};
use tunnel_core::entropy;
use tunnel_core::secret::Secret;
use url::Url;

use super::http::{Browser, Http, Landing, Outcome, Page, Problem, Session, json_of, text_result};
use crate::failure::Failure;
use crate::host;
use crate::host::entropy::OsEntropy;
use crate::output;

/// Where the walk goes, and as whom.
pub(super) struct Itinerary {
    /// The relay's `/mcp`.
    pub(super) endpoint: String,
    /// The embedded login's user.
    pub(super) user: String,
    /// The user's password.
    pub(super) password: Secret,
    /// Whether the server is the demo's own, whose tools are known.
    pub(super) own_server: bool,
    /// Print steps as JSON.
    pub(super) json: bool,
}

/// Walks the whole way; the failure names the step.
pub(super) async fn walk(to: &Itinerary) -> Result<(), Failure> {
    let http = Http::new();
    let mut steps = Steps { json: to.json };
    let metadata = steps.step("ask without a token", unauthorized(&http, to)).await?;
    let server = steps.step("find the authorization server", protected_resource(&http, to, &metadata)).await?;
    let server = steps.step("read what it offers", authorization_server(&http, &server)).await?;
    let client = steps.step("register as a client", register(&http, &server)).await?;
    let flow = Flow::new(&server, client, &to.endpoint);
    let mut browser = Browser::new(&http, REDIRECT);
    let consent = steps.step("open the consent page", open(&mut browser, &flow)).await?;
    let login = steps.step("allow the client", allow(&mut browser, consent)).await?;
    let code = steps.step("sign in with the password", sign_in(&mut browser, login, &flow, to)).await?;
    let token = steps.step("trade the code for a token", trade(&http, &flow, code)).await?;
    let mut session = Session::new(&http, &to.endpoint, token);
    steps.step("initialize", initialize(&mut session)).await?;
    let tools = steps.step("list the tools", list_tools(&mut session)).await?;
    if to.own_server {
        let (echo, countdown) = (named(&tools, "echo")?, named(&tools, "countdown")?);
        steps.step("call a tool", call_echo(&mut session, &echo)).await?;
        steps.step("stream a result", call_countdown(&mut session, &countdown)).await?;
    } else {
        steps.step("call the status tool", call_status(&mut session)).await?;
    }
    Ok(())
}

/// Prints each step with its time.
struct Steps {
    json: bool,
}

impl Steps {
    async fn step<T>(
        &mut self,
        name: &str,
        work: impl Future<Output = Result<(T, String), Problem>>,
    ) -> Result<T, Failure> {
        let begun = Instant::now();
        let outcome = work.await;
        let ms = begun.elapsed().as_secs_f64() * 1000.0;
        if self.json {
            output::compact(&json!({ "step": name, "ok": outcome.is_ok(), "ms": (ms * 10.0).round() / 10.0 }))?;
        } else {
            let (mark, colour) =
                if outcome.is_ok() { ('✓', anstyle::AnsiColor::Green) } else { ('✗', anstyle::AnsiColor::Red) };
            let (style, dim) = (colour.on_default().bold(), anstyle::Style::new().dimmed());
            let note = outcome.as_ref().map_or("", |(_, note)| note.as_str());
            output::line(format!("  {style}{mark}{style:#} {name:<30} {ms:>8.1} ms  {dim}{note}{dim:#}"))?;
        }
        outcome
            .map(|(value, _)| value)
            .map_err(|problem| Failure::Failed(format!("the step \"{name}\" failed: {problem}")))
    }
}

/// Where the client wants the code: nobody listens there, the walk's browser stops before it.
const REDIRECT: &str = "http://127.0.0.1:33419/callback";

/// A 401 that names the metadata (RFC 9728 section 5.1).
async fn unauthorized(http: &Http, to: &Itinerary) -> Result<(String, String), Problem> {
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    let answer = http.post_json(&to.endpoint, HeaderMap::new(), &ping).await?;
    if answer.status.as_u16() != 401 {
        return Err(format!("the answer is {} instead of 401", answer.status));
    }
    let challenge = answer.headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let metadata =
        challenge.split_once("resource_metadata=\"").and_then(|(_, rest)| rest.split_once('"')).map(|(url, _)| url);
    let metadata = metadata.ok_or("WWW-Authenticate names no resource_metadata")?;
    Ok((metadata.to_owned(), "401, as it must be".into()))
}

/// The protected resource's metadata: whose tokens it takes.
async fn protected_resource(http: &Http, to: &Itinerary, url: &str) -> Result<(String, String), Problem> {
    let document = json_of(&http.get(url).await?, 200)?;
    if text(&document, "resource")? != to.endpoint {
        return Err("resource is another URL than the one that was asked".into());
    }
    let server = document
        .pointer("/authorization_servers/0")
        .and_then(Value::as_str)
        .ok_or("no authorization server is named")?;
    Ok((server.to_owned(), server.to_owned()))
}

/// The authorization server's metadata (RFC 8414), checked as a client must.
async fn authorization_server(http: &Http, issuer: &str) -> Result<(Value, String), Problem> {
    let document = json_of(&http.get(&format!("{issuer}/.well-known/oauth-authorization-server")).await?, 200)?;
    if text(&document, "issuer")? != issuer {
        return Err("issuer is another than the one that was asked".into());
    }
    let methods = document.get("code_challenge_methods_supported").and_then(Value::as_array);
    if !methods.is_some_and(|methods| methods.iter().any(|method| method == "S256")) {
        return Err("S256 is not offered".into());
    }
    Ok((document, "PKCE with S256".into()))
}

/// Dynamic client registration (RFC 7591); returns the client's id.
async fn register(http: &Http, server: &Value) -> Result<(String, String), Problem> {
    let client = json!({
        "client_name": "mcp-local-tunnel demo",
        "redirect_uris": [REDIRECT],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    });
    let answer = http.post_json(text(server, "registration_endpoint")?, HeaderMap::new(), &client).await?;
    let registered = json_of(&answer, 201)?;
    let id = text(&registered, "client_id")?;
    Ok((id.to_owned(), format!("a client id of {} characters", id.len())))
}

/// One authorization code flow.
struct Flow {
    authorize: Result<Url, Problem>,
    issuer: String,
    token_endpoint: String,
    client: String,
    state: String,
    verifier: String,
    resource: String,
}

impl Flow {
    fn new(server: &Value, client: String, resource: &str) -> Self {
        let (state, verifier) = (random(), random());
        let challenge = URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, verifier.as_bytes()));
        let authorize = text(server, "authorization_endpoint").and_then(|url| {
            let fields = [
                ("response_type", "code"),
                ("client_id", &client),
                ("redirect_uri", REDIRECT),
                ("state", &state),
                ("code_challenge", &challenge),
                ("code_challenge_method", "S256"),
                ("resource", resource),
                ("scope", "mcp:tools mcp:read"),
            ];
            Url::parse_with_params(url, fields).map_err(|error| error.to_string())
        });
        let member = |name| text(server, name).unwrap_or_default().to_owned();
        Self {
            authorize,
            issuer: member("issuer"),
            token_endpoint: member("token_endpoint"),
            client,
            state,
            verifier,
            resource: resource.to_owned(),
        }
    }

    /// The code at the end of the browser's way, if all that came with it is right (RFC 9207 for `iss`).
    fn code(&self, landed: &Url) -> Result<String, Problem> {
        let one = |name: &str| landed.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        if let Some(error) = one("error") {
            return Err(format!("the relay says {error}: {}", one("error_description").unwrap_or_default()));
        }
        if one("state").as_deref() != Some(&self.state) {
            return Err("state came back changed".into());
        }
        if one("iss").as_deref() != Some(&self.issuer) {
            return Err("iss is not the issuer".into());
        }
        one("code").ok_or_else(|| "no code came back".into())
    }
}

/// The authorization endpoint leads to the consent page, before any login.
async fn open(browser: &mut Browser<'_>, flow: &Flow) -> Result<(Page, String), Problem> {
    let page = page(browser.open(flow.authorize.as_ref()?.as_str()).await?)?;
    if page.form.first("password").is_some() {
        return Err("it asks for the password before it asks for consent".into());
    }
    Ok((page, "asked before any login".into()))
}

/// Presses the button that is not the refusal.
async fn allow(browser: &mut Browser<'_>, consent: Page) -> Result<(Page, String), Problem> {
    let refusals = ["deny", "cancel", "no", "refuse", "reject", "decline"];
    let button = consent.form.buttons().find(|button| !refusals.contains(&button.value.to_ascii_lowercase().as_str()));
    let button = button.ok_or("the page has no button to allow with")?;
    let fields = consent.form.submit(&[], Some(button));
    let login = page(browser.send(&consent, fields).await?)?;
    if login.form.first("password").is_none() {
        return Err("no password is asked for".into());
    }
    Ok((login, String::new()))
}

/// Types name and password in; the browser then leaves with a code.
async fn sign_in(
    browser: &mut Browser<'_>,
    login: Page,
    flow: &Flow,
    to: &Itinerary,
) -> Result<(String, String), Problem> {
    let name = login.form.first("text").ok_or("no name is asked for")?.name.clone();
    let password = login.form.first("password").ok_or("no password is asked for")?.name.clone();
    let typed = [(name.as_str(), to.user.as_str()), (password.as_str(), to.password.expose())];
    let fields = login.form.submit(&typed, login.form.buttons().next());
    match browser.send(&login, fields).await? {
        Landing::Left(url) => Ok((flow.code(&url)?, "a code, with state and iss".into())),
        Landing::Page(_) => Err("the password was not taken".into()),
    }
}

fn page(landing: Landing) -> Result<Page, Problem> {
    match landing {
        Landing::Page(page) => Ok(page),
        Landing::Left(_) => Err("the browser was sent back too early".into()),
    }
}

/// The token endpoint.
async fn trade(http: &Http, flow: &Flow, code: String) -> Result<(Secret, String), Problem> {
    let fields = [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", REDIRECT),
        ("client_id", &flow.client),
        ("code_verifier", &flow.verifier),
        ("resource", &flow.resource),
    ];
    let fields: Vec<_> = fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let answer = json_of(&http.post_form(&flow.token_endpoint, HeaderMap::new(), &fields).await?, 200)?;
    let lifetime = answer.get("expires_in").and_then(Value::as_u64).ok_or("no expires_in")?;
    Ok((Secret::new(text(&answer, "access_token")?), format!("good for {} min", lifetime / 60)))
}

async fn initialize(session: &mut Session<'_>) -> Result<((), String), Problem> {
    let answer = session.initialize().await?;
    let name = answer.pointer("/serverInfo/name").and_then(Value::as_str).unwrap_or_default();
    Ok(((), output::visible(name)))
}

/// The tools, as soon as the server is ready. An own server may be fetched from a registry first.
async fn list_tools(session: &mut Session<'_>) -> Result<(Vec<String>, String), Problem> {
    let begun = Instant::now();
    while !is_server_ready(session).await? {
        if begun.elapsed() > TOOLS_WITHIN {
            return Err("the server is not ready in time".into());
        }
        host::rt::sleep(Duration::from_millis(50)).await;
    }
    let answer = session.request("tools/list", json!({})).await?.result;
    let tools = answer.get("tools").and_then(Value::as_array).ok_or("the answer has no tools")?;
    let names: Vec<_> = tools.iter().filter_map(|tool| tool.get("name")?.as_str()).map(str::to_owned).collect();
    let note = output::visible(&names.join(", "));
    let short: String = note.chars().take(MAX_NOTE).collect();
    Ok((names, if short.len() < note.len() { format!("{short}…") } else { note }))
}

/// Asks the `status` tool; a server that ended will not get better by waiting.
async fn is_server_ready(session: &mut Session<'_>) -> Result<bool, Problem> {
    let status = session.call("status", json!({})).await?.result;
    let devices =
        status.pointer("/structuredContent/devices").and_then(Value::as_array).ok_or("status says nothing")?;
    let servers = devices.iter().filter_map(|device| device.get("servers")?.as_array()).flatten();
    let states: Vec<_> =
        servers.map(|server| (server.get("state").and_then(Value::as_str), server.get("reason"))).collect();
    match states.iter().find(|(state, _)| matches!(state, Some("failed" | "restarting"))) {
        Some((_, reason)) => {
            let reason = reason.and_then(Value::as_str).unwrap_or("it does not say why");
            Err(format!("the server does not run: {}", output::visible(reason)))
        }
        None => Ok(states.iter().any(|(state, _)| *state == Some("ready"))),
    }
}

/// Characters of a list of names that fit a line.
const MAX_NOTE: usize = 100;
/// How long the server may take to start: time to fetch it from a registry.
pub(super) const START_SECS: u64 = 120;
const TOOLS_WITHIN: Duration = Duration::from_secs(START_SECS + 5);

/// The listed name of the demo server's `tool`.
fn named(tools: &[String], tool: &str) -> Result<String, Failure> {
    let found = tools.iter().find(|name| name.rsplit("__").next() == Some(tool));
    found
        .cloned()
        .ok_or_else(|| Failure::Failed(format!("the step \"list the tools\" failed: {tool} is not among them")))
}

async fn call_echo(session: &mut Session<'_>, tool: &str) -> Result<((), String), Problem> {
    const WORDS: &str = "through relay and agent, and back: ✓";
    let Outcome { result, .. } = session.call(tool, json!({ "text": WORDS })).await?;
    match text_result(&result) {
        Some(WORDS) => Ok(((), tool.to_owned())),
        _ => Err("another text came back".into()),
    }
}

async fn call_countdown(session: &mut Session<'_>, tool: &str) -> Result<((), String), Problem> {
    let Outcome { result, notifications, streamed } = session.call(tool, json!({ "from": 3, "pause_ms": 100 })).await?;
    let progress =
        notifications.iter().filter(|message| message.get("method") == Some(&json!("notifications/progress"))).count();
    if text_result(&result) != Some("liftoff") {
        return Err("another text came back".into());
    }
    if !streamed || progress == 0 {
        return Err("no progress was told on the way".into());
    }
    Ok(((), format!("{progress} progress notifications, then the result")))
}

async fn call_status(session: &mut Session<'_>) -> Result<((), String), Problem> {
    session.call("status", json!({})).await?;
    Ok(((), String::new()))
}

fn text<'a>(document: &'a Value, member: &str) -> Result<&'a str, Problem> {
    document.get(member).and_then(Value::as_str).ok_or_else(|| format!("the document has no {member}"))
}

/// 256 random bits: a state, a verifier (RFC 7636 section 4.1).
fn random() -> String {
    URL_SAFE_NO_PAD.encode(entropy::bytes::<32>(&mut OsEntropy::new()))
}

//! The walk's HTTP: requests, a browser with a cookie jar, and an MCP session over Streamable HTTP.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, COOKIE, LOCATION, ORIGIN, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use tunnel_core::http::fetch::{Fetch, Fetched};
use tunnel_core::http::reach::Reach;
use tunnel_core::secret::Secret;
use tunnel_core::sse;
use url::{Url, form_urlencoded};

use super::pages::{self, Form};
use crate::host::fetch::{self, Response};
use crate::host::net::Connector;

/// What a step says when it fails.
pub(super) type Problem = String;

/// No single request of the walk takes longer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer: a tool's result.
const MAX_BODY: usize = tunnel_core::limits::MAX_MESSAGE;
/// The newest revision with a handshake, which this client speaks.
const VERSION: &str = "2025-11-25";

/// Requests without any memory. Each is boxed: it holds all that a way may need (resolving, a proxy, TLS), and every step of
/// the walk would hold it too.
pub(super) struct Http {
    connector: Connector,
}

impl Http {
    pub(super) fn new() -> Self {
        Self { connector: Connector::new() }
    }

    /// A GET.
    pub(super) async fn get(&self, url: &str) -> Result<Fetched, Problem> {
        self.whole(request(Method::GET, url, HeaderMap::new(), Bytes::new())).await
    }

    /// A POST of JSON, with more headers.
    pub(super) async fn post_json(&self, url: &str, mut headers: HeaderMap, body: &Value) -> Result<Fetched, Problem> {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.whole(request(Method::POST, url, headers, Bytes::from(body.to_string()))).await
    }

    /// A POST of a form.
    pub(super) async fn post_form(
        &self,
        url: &str,
        mut headers: HeaderMap,
        fields: &[(String, String)],
    ) -> Result<Fetched, Problem> {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.whole(request(Method::POST, url, headers, Bytes::from(body))).await
    }

    async fn whole(&self, request: Fetch) -> Result<Fetched, Problem> {
        Box::pin(fetch::fetch(&self.connector, request)).await.map_err(|error| error.to_string())
    }

    async fn open(&self, request: Fetch) -> Result<Response, Problem> {
        Box::pin(fetch::open(&self.connector, request)).await.map_err(|error| error.to_string())
    }
}

fn request(method: Method, url: &str, headers: HeaderMap, body: Bytes) -> Fetch {
    let (url, timeout, max_body) = (url.to_owned(), TIMEOUT, MAX_BODY);
    Fetch { method, url, headers, body, timeout, max_body, reach: Reach::Anywhere }
}

/// The body as JSON, if the status is `status`.
pub(super) fn json_of(answer: &Fetched, status: u16) -> Result<Value, Problem> {
    if answer.status.as_u16() != status {
        return Err(format!("the answer is {} instead of {status}: {}", answer.status, beginning(&answer.body)));
    }
    serde_json::from_slice(&answer.body).map_err(|error| format!("the answer is not JSON: {error}"))
}

/// The beginning of a body, for people.
fn beginning(body: &[u8]) -> String {
    crate::output::visible(&String::from_utf8_lossy(body).chars().take(200).collect::<String>())
}

/// A browser as far as a sign-in needs one: cookies, redirects, forms.
pub(super) struct Browser<'a> {
    http: &'a Http,
    cookies: BTreeMap<String, String>,
    /// Where the browser leaves the relay: the client's redirect URI.
    leaves_to: String,
}

/// Where a browser ended.
pub(super) enum Landing {
    /// On a page with a form.
    Page(Page),
    /// At the client's redirect URI.
    Left(Url),
}

/// A page with a form.
pub(super) struct Page {
    url: Url,
    /// Its first form.
    pub(super) form: Form,
}

impl<'a> Browser<'a> {
    /// A browser without cookies.
    pub(super) fn new(http: &'a Http, leaves_to: &str) -> Self {
        Self { http, cookies: BTreeMap::new(), leaves_to: leaves_to.to_owned() }
    }

    /// Opens a URL.
    pub(super) async fn open(&mut self, url: &str) -> Result<Landing, Problem> {
        let url = Url::parse(url).map_err(|error| format!("{url} is not a URL: {error}"))?;
        self.navigate(url, None).await
    }

    /// Sends a page's form.
    pub(super) async fn send(&mut self, page: &Page, fields: Vec<(String, String)>) -> Result<Landing, Problem> {
        let url = page.url.join(&page.form.action).map_err(|error| format!("the form goes nowhere: {error}"))?;
        self.navigate(url, Some(fields)).await
    }

    async fn navigate(&mut self, mut url: Url, mut fields: Option<Vec<(String, String)>>) -> Result<Landing, Problem> {
        for _ in 0..MAX_REDIRECTS {
            let answer = self.request(&url, fields.take()).await?;
            self.keep_cookies(&answer.headers);
            if answer.status.is_redirection() {
                let location = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok());
                url = url.join(location.ok_or("a redirect leads nowhere")?).map_err(|error| error.to_string())?;
                if url.as_str().starts_with(&self.leaves_to) {
                    return Ok(Landing::Left(url));
                }
                continue;
            }
            let html = String::from_utf8_lossy(&answer.body);
            let form = pages::forms(&html).into_iter().next();
            return match form {
                Some(form) if answer.status.is_success() => Ok(Landing::Page(Page { url, form })),
                _ => Err(format!("{} answers {}: {}", url.path(), answer.status, beginning(text_of(&html).as_bytes()))),
            };
        }
        Err(format!("more than {MAX_REDIRECTS} redirects"))
    }

    async fn request(&self, url: &Url, fields: Option<Vec<(String, String)>>) -> Result<Fetched, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("text/html"));
        if !self.cookies.is_empty() {
            let all: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            headers.insert(COOKIE, header(&all.join("; "))?);
        }
        match fields {
            Some(fields) => {
                headers.insert(ORIGIN, header(&url.origin().ascii_serialization())?);
                self.http.post_form(url.as_str(), headers, &fields).await
            }
            None => self.http.whole(request(Method::GET, url.as_str(), headers, Bytes::new())).await,
        }
    }

    /// One relay is all this browser sees, so domains and paths need no attention.
    fn keep_cookies(&mut self, headers: &HeaderMap) {
        for cookie in headers.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok()) {
            let (pair, attributes) = cookie.split_once(';').unwrap_or((cookie, ""));
            let Some((name, value)) = pair.split_once('=') else { continue };
            if attributes.split(';').any(|attribute| attribute.trim().eq_ignore_ascii_case("max-age=0")) {
                self.cookies.remove(name.trim());
            } else {
                self.cookies.insert(name.trim().to_owned(), value.trim().to_owned());
            }
        }
    }
}

/// A sign-in that redirects more often goes in circles.
const MAX_REDIRECTS: usize = 10;

/// What a page says, without its tags.
fn text_of(html: &str) -> String {
    let body = html.split_once("<body").map_or(html, |(_, body)| body);
    let words = body.split('<').filter_map(|piece| piece.split_once('>')).map(|(_, text)| text.trim());
    words.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" · ")
}

fn header(text: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(text).map_err(|_| "a header's value has control characters".into())
}

/// An MCP client's session.
pub(super) struct Session<'a> {
    http: &'a Http,
    endpoint: String,
    token: Secret,
    id: Option<HeaderValue>,
    initialized: bool,
    requests: u64,
}

/// What came of a request.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) result: Value,
    /// Notifications that came before it.
    pub(super) notifications: Vec<Value>,
    /// Whether the answer was an event stream.
    pub(super) streamed: bool,
}

impl<'a> Session<'a> {
    /// A session that is to be initialized.
    pub(super) fn new(http: &'a Http, endpoint: &str, token: Secret) -> Self {
        Self { http, endpoint: endpoint.to_owned(), token, id: None, initialized: false, requests: 0 }
    }

    /// `initialize` and `notifications/initialized`; returns what the server says of itself.
    pub(super) async fn initialize(&mut self) -> Result<Value, Problem> {
        let params = json!({
            "protocolVersion": VERSION,
            "capabilities": {},
            "clientInfo": { "name": "mcp-local-tunnel-demo", "version": env!("CARGO_PKG_VERSION") },
        });
        let answer = self.request("initialize", params).await?.result;
        if answer.get("protocolVersion").and_then(Value::as_str) != Some(VERSION) {
            return Err(format!("the relay does not speak {VERSION}"));
        }
        self.initialized = true;
        let message = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let taken = self.http.post_json(&self.endpoint, self.headers()?, &message).await?;
        if taken.status.as_u16() != 202 {
            return Err(format!("a notification is answered with {} instead of 202", taken.status));
        }
        Ok(answer)
    }

    /// Asks, and reads the answer in either form.
    pub(super) async fn request(&mut self, method: &str, params: Value) -> Result<Outcome, Problem> {
        self.requests += 1;
        let id = json!(self.requests);
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let mut headers = self.headers()?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let post = request(Method::POST, &self.endpoint, headers, Bytes::from(message.to_string()));
        let mut answer = self.http.open(post).await?;
        if let Some(session) = answer.headers.get("mcp-session-id") {
            self.id = Some(session.clone());
        }
        let kind = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let streamed = kind.starts_with("text/event-stream");
        if streamed {
            return stream(&mut answer, &id).await;
        }
        let status = answer.status;
        let mut body = Vec::new();
        while let Some(piece) = answer.next().await.map_err(|error| error.to_string())? {
            body.extend_from_slice(&piece);
        }
        let message =
            serde_json::from_slice(&body).map_err(|_| format!("the answer is {status}: {}", beginning(&body)))?;
        Ok(Outcome { result: result_of(message, &id)?, notifications: Vec::new(), streamed: false })
    }

    /// Calls a tool.
    pub(super) async fn call(&mut self, tool: &str, arguments: Value) -> Result<Outcome, Problem> {
        let meta = json!({ "progressToken": format!("walk-{}", self.requests) });
        let outcome =
            self.request("tools/call", json!({ "name": tool, "arguments": arguments, "_meta": meta })).await?;
        if outcome.result.get("isError") == Some(&Value::Bool(true)) {
            return Err(format!(
                "{tool} failed: {}",
                beginning(text_result(&outcome.result).unwrap_or_default().as_bytes())
            ));
        }
        Ok(outcome)
    }

    fn headers(&self) -> Result<HeaderMap, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        let mut bearer = header(&format!("Bearer {}", self.token.expose()))?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
        if self.initialized {
            headers.insert(HeaderName::from_static("mcp-protocol-version"), HeaderValue::from_static(VERSION));
        }
        if let Some(id) = &self.id {
            headers.insert(HeaderName::from_static("mcp-session-id"), id.clone());
        }
        Ok(headers)
    }
}

/// The text of a tool's result.
pub(super) fn text_result(result: &Value) -> Option<&str> {
    result.pointer("/content/0/text").and_then(Value::as_str)
}

/// Reads an event stream up to the answer to `id`.
async fn stream(answer: &mut Response, id: &Value) -> Result<Outcome, Problem> {
    let mut events = sse::Parser::new(MAX_BODY);
    let mut notifications = Vec::new();
    while let Some(piece) = answer.next().await.map_err(|error| error.to_string())? {
        events.push(&piece).map_err(|error| error.to_string())?;
        for event in events.by_ref().filter(|event| event.is_message() && !event.data.is_empty()) {
            let message: Value =
                serde_json::from_slice(&event.data).map_err(|error| format!("an event is not JSON: {error}"))?;
            if message.get("method").is_some() {
                notifications.push(message);
            } else {
                return Ok(Outcome { result: result_of(message, id)?, notifications, streamed: true });
            }
        }
    }
    Err("the stream ended without an answer".into())
}

fn result_of(mut message: Value, id: &Value) -> Result<Value, Problem> {
    if let Some(error) = message.get("error") {
        return Err(beginning(error.to_string().as_bytes()));
    }
    if message.get("id") != Some(id) {
        return Err("the answer is to another request".into());
    }
    message.get_mut("result").map(Value::take).ok_or_else(|| "the answer has no result".into())
}

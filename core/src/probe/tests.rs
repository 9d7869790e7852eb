//! A probe, its server's answers written by hand.

mod table;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use super::contract::{Action, Ask, Entry, Failure, GivenClient, Report, Settings};
use super::machine::Probe;
use crate::entropy::Seeded;
use crate::host::Machine;
use crate::http::fetch::{Fetch, FetchError, Fetched};
use crate::id::FetchId;
use crate::limits;
use crate::secret::Secret;
use crate::signin::contract::{Action as Order, Event, Person};
use crate::time::{Instant, Now, UnixTime};

const URL: &str = "https://a.example/mcp";
const ISSUER: &str = "https://i.example";

/// A probe, and what it has ordered last.
struct Rig {
    probe: Probe,
    now: u64,
    fetch: Option<(FetchId, Fetch)>,
    browser: Option<Url>,
    listens: u32,
    pages: Vec<StatusCode>,
    entry: Option<Entry>,
    outcome: Option<Result<Report, Failure>>,
}

impl Rig {
    fn new(edit: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            url: URL.into(),
            allow_insecure: false,
            client: None,
            token: None,
            call: None,
            stay: false,
            version: "1.2.3".into(),
        };
        edit(&mut settings);
        let probe = Probe::new(settings, alloc::boxed::Box::new(Seeded::new(7)));
        let mut rig = Self {
            probe,
            now: 0,
            fetch: None,
            browser: None,
            listens: 0,
            pages: Vec::new(),
            entry: None,
            outcome: None,
        };
        rig.event(Event::Start { person: Person::Here });
        rig
    }

    fn event(&mut self, event: Event) {
        let now = Now { instant: Instant::from_micros(self.now), unix: UnixTime::from_secs(1_000_000) };
        self.probe.handle_event(event, now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.probe.poll_action() {
            match action {
                Action::Desk(Order::Fetch { fetch, request }) => {
                    assert!(self.fetch.replace((fetch, request)).is_none(), "one fetch at a time");
                }
                Action::Desk(Order::Listen) => {
                    self.listens += 1;
                    self.event(Event::Listening(Ok(4711)));
                }
                Action::Desk(Order::OpenBrowser { url }) => self.browser = Some(url.parse().expect("a URL")),
                Action::Desk(Order::AnswerCallback(page)) => self.pages.push(page.status),
                Action::Desk(Order::StopListening) => self.listens -= 1,
                Action::Desk(other) => panic!("{other:?}"),
                Action::Entered(entry) => self.entry = Some(*entry),
                Action::Done(outcome) => assert!(self.outcome.replace(outcome).is_none(), "one end"),
            }
        }
    }

    /// The fetch that is awaited, as method and URL.
    fn asks(&self) -> String {
        self.fetch.as_ref().map_or_else(|| "nothing".into(), |(_, fetch)| format!("{} {}", fetch.method, fetch.url))
    }

    /// The MCP method that is asked.
    fn method(&self) -> String {
        let (_, fetch) = self.fetch.as_ref().expect("something is asked");
        assert_eq!(fetch.url, URL);
        let message: Value = serde_json::from_slice(&fetch.body).expect("JSON");
        message["method"].as_str().expect("a method").into()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.fetch.as_ref().expect("something is asked").1.headers.get(name).map(|value| value.to_str().expect("text"))
    }

    fn form(&self) -> BTreeMap<String, String> {
        form_urlencoded::parse(&self.fetch.as_ref().expect("something is asked").1.body).into_owned().collect()
    }

    fn answer(&mut self, status: u16, headers: &[(&str, &str)], body: impl ToString) {
        let (fetch, _) = self.fetch.take().expect("something is asked");
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                let name: HeaderName = name.parse().expect("a name");
                (name, HeaderValue::from_str(value).expect("a value"))
            })
            .collect();
        let status = StatusCode::from_u16(status).expect("a status");
        self.event(Event::Fetched { fetch, result: Ok(Fetched { status, headers, body: body.to_string().into() }) });
    }

    /// Answers the MCP request that is under way.
    fn result(&mut self, result: &Value) {
        let (_, fetch) = self.fetch.as_ref().expect("something is asked");
        let message: Value = serde_json::from_slice(&fetch.body).expect("JSON");
        let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
        self.answer(200, &[("content-type", "application/json")], answer);
    }

    fn challenge(&mut self, status: u16, challenge: &str) {
        self.answer(status, &[("www-authenticate", challenge)], "");
    }

    fn describe(&mut self, issuer: &str) {
        self.answer(200, &[], json!({"resource": URL, "authorization_servers": [issuer]}));
    }

    fn metadata(&mut self, issuer: &str) {
        self.answer(200, &[], metadata(issuer));
    }

    fn register(&mut self, id: &str) {
        self.answer(201, &[], json!({ "client_id": id }));
    }

    /// The browser comes back with a code, and the token is issued.
    fn come_back(&mut self, token: &str) {
        let state = self.query()["state"].clone();
        self.event(Event::Callback { target: format!("/callback?code=c0de&state={state}") });
        self.answer(
            200,
            &[],
            json!({"access_token": token, "token_type": "Bearer", "refresh_token": format!("r-{token}")}),
        );
    }

    /// From a 401 to the repeated request.
    fn sign_in(&mut self, challenge: &str, issuer: &str, id: &str, token: &str) {
        self.challenge(401, challenge);
        self.describe(issuer);
        self.metadata(issuer);
        if self.asks().ends_with("/register") {
            self.register(id);
        }
        self.come_back(token);
    }

    /// The query of the URL that the browser was opened with.
    fn query(&self) -> BTreeMap<String, String> {
        self.browser.as_ref().expect("a browser is open").query_pairs().into_owned().collect()
    }

    fn failure(&self) -> String {
        self.outcome.as_ref().expect("it is over").as_ref().expect_err("it failed").to_string()
    }
}

fn metadata(issuer: &str) -> Value {
    json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "registration_endpoint": format!("{issuer}/register"),
        "revocation_endpoint": format!("{issuer}/revoke"),
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none"],
    })
}

const TOOLS: &str = "tools";

#[test]
fn whole_way_leads_from_the_challenge_to_the_tools_and_leaves_no_token() {
    let mut rig = Rig::new(|_| {});
    assert_eq!((rig.method().as_str(), rig.header("authorization")), ("server/discover", None));
    rig.challenge(401, r#"Bearer resource_metadata="https://a.example/m", scope="x y""#);
    assert_eq!(rig.asks(), "GET https://a.example/m");
    rig.describe(ISSUER);
    assert_eq!(rig.asks(), "GET https://i.example/.well-known/oauth-authorization-server");
    rig.metadata(ISSUER);
    assert_eq!((rig.asks().as_str(), rig.listens), ("POST https://i.example/register", 1));
    rig.register("c");
    let query = rig.query();
    let asked =
        ["client_id", "redirect_uri", "scope", "resource", "code_challenge_method"].map(|name| query[name].as_str());
    assert_eq!(asked, ["c", "http://127.0.0.1:4711/callback", "x y", URL, "S256"]);

    let state = query["state"].clone();
    rig.event(Event::Callback { target: format!("/callback?code=c0de&state={state}") });
    let form = rig.form();
    let sent = ["grant_type", "code", "client_id", "resource", "redirect_uri"].map(|name| form[name].as_str());
    assert_eq!(sent, ["authorization_code", "c0de", "c", URL, "http://127.0.0.1:4711/callback"]);
    rig.answer(200, &[], json!({"access_token": "t", "token_type": "Bearer", "refresh_token": "r"}));

    assert_eq!((rig.method().as_str(), rig.header("authorization")), ("server/discover", Some("Bearer t")));
    rig.result(&json!({"supportedVersions": ["2026-07-28"], "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "2"}}}));
    assert_eq!((rig.method().as_str(), rig.header("mcp-method")), ("tools/list", Some("tools/list")));
    rig.result(&json!({TOOLS: [{"name": "a"}], "nextCursor": "n"}));
    rig.result(&json!({TOOLS: [{"name": "b"}]}));
    assert_eq!(rig.asks(), "POST https://i.example/revoke");
    assert_eq!(rig.form()["token"], "r");
    rig.answer(200, &[], "");
    let report = rig.outcome.expect("it is over").expect("it went well");
    assert_eq!((report.version, report.server.as_deref(), report.tools.len()), ("2026-07-28", Some("s 2"), 2));
    let access = report.access.expect("somebody signed in");
    assert_eq!((access.client_id.as_str(), access.scope.as_deref(), access.times), ("c", Some("x y"), 1));
    assert_eq!(rig.listens, 0);
}

#[test]
fn server_of_the_older_era_is_greeted_and_keeps_its_session() {
    let mut rig = Rig::new(|settings| settings.call = Some("t".into()));
    rig.answer(400, &[], "Bad Request: Unsupported protocol version");
    assert_eq!((rig.method().as_str(), rig.header("mcp-protocol-version")), ("initialize", None));
    let greeting =
        json!({"jsonrpc": "2.0", "id": 1, "result": {"protocolVersion": "2025-06-18", "serverInfo": {"name": "old"}}});
    let events = format!(
        ": hello\n\nid: 1\ndata:\n\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}}\n\ndata: {greeting}\n\n"
    );
    rig.answer(200, &[("content-type", "text/event-stream; charset=utf-8"), ("mcp-session-id", "s1")], events);
    for (method, result) in [
        ("notifications/initialized", None),
        ("tools/list", Some(json!({TOOLS: [{"name": "t"}]}))),
        ("tools/call", Some(json!({"content": [], "isError": true}))),
    ] {
        assert_eq!(rig.method(), method);
        let found = ["mcp-session-id", "mcp-protocol-version", "mcp-method"].map(|name| rig.header(name));
        assert_eq!(found, [Some("s1"), Some("2025-06-18"), None]);
        match result {
            Some(result) => rig.result(&result),
            None => rig.answer(202, &[], ""),
        }
    }
    let report = rig.outcome.expect("it is over").expect("it went well");
    assert_eq!((report.call, report.access, rig.listens), (Some(false), None, 0));
}

#[test]
fn probe_that_stays_hands_out_its_way_in_and_gives_the_token_up_when_told_to_leave() {
    let mut rig = Rig::new(|settings| settings.stay = true);
    rig.sign_in("Bearer", ISSUER, "c", "t1");
    rig.result(&json!({"supportedVersions": ["2026-07-28"]}));
    rig.result(&json!({TOOLS: [
        {"name": "reads", "annotations": {"readOnlyHint": true}},
        {"name": "writes", "annotations": {"readOnlyHint": false}},
        {"name": "silent"},
        {"name": "strange", "annotations": [true]},
    ]}));
    assert!(rig.fetch.is_none() && rig.outcome.is_none(), "it waits");
    let entry = rig.entry.take().expect("a way in");
    assert_eq!((entry.report.tools.len(), entry.report.pages), (4, 1));
    assert_eq!(entry.report.read_only.iter().collect::<Vec<_>>(), ["reads"]);

    let arguments = serde_json::from_str(r#"{"n": 1.0}"#).expect("JSON");
    let question = entry.question(&Ask::Call { tool: "reads".into(), arguments });
    let request = question.request(41);
    let header = |name: &str| request.headers[name].to_str().expect("text");
    let found = ["authorization", "mcp-protocol-version", "mcp-method", "mcp-name"].map(header);
    assert_eq!(found, ["Bearer t1", "2026-07-28", "tools/call", "reads"]);
    let body = core::str::from_utf8(&request.body).expect("UTF-8");
    assert!(body.contains(r#""arguments":{"n": 1.0}"#) && body.contains("_meta") && body.contains("41"), "{body}");
    assert_eq!(entry.question(&Ask::Ping).method, "server/discover", "this revision has no ping");
    assert!(entry.farewell().is_none(), "nor sessions");
    assert!(!format!("{entry:?} {question:?}").contains("t1"));

    rig.event(Event::Logout { force: false });
    assert_eq!((rig.asks().as_str(), rig.form()["token"].as_str()), ("POST https://i.example/revoke", "r-t1"));
    rig.answer(200, &[], "");
    assert!(rig.outcome.expect("it is over").is_ok());
}

#[test]
fn question_keeps_the_session_and_tells_good_answers_from_bad() {
    let mut rig = Rig::new(|settings| settings.stay = true);
    rig.answer(404, &[], "");
    let greeting = json!({"jsonrpc": "2.0", "id": 1, "result": {"protocolVersion": "2025-06-18"}});
    rig.answer(200, &[("mcp-session-id", "s1")], greeting);
    rig.answer(202, &[], "");
    rig.result(&json!({TOOLS: []}));
    let entry = rig.entry.take().expect("a way in");
    let ping = entry.question(&Ask::Ping);
    let request = ping.request(entry.next_number);
    assert_eq!(
        (ping.method, &request.headers["mcp-session-id"], request.headers.get("mcp-method")),
        ("ping", &HeaderValue::from_static("s1"), None)
    );
    let farewell = entry.farewell().expect("a session to end");
    assert_eq!(
        (farewell.method.as_str(), &farewell.headers["mcp-session-id"]),
        ("DELETE", &HeaderValue::from_static("s1"))
    );

    let arguments = serde_json::from_str("{}").expect("JSON");
    let call = entry.question(&Ask::Call { tool: "t".into(), arguments });
    let judged = |status: u16, body: &Value| {
        let status = StatusCode::from_u16(status).expect("a status");
        call.judge(&Fetched { status, headers: HeaderMap::new(), body: body.to_string().into() }, 7)
    };
    let answer = |result: Value| json!({"jsonrpc": "2.0", "id": 7, "result": result});
    assert_eq!(judged(200, &answer(json!({"content": []}))), Ok(()));
    for (status, body, why) in [
        (503, answer(json!({})), "it answered 503"),
        (200, answer(json!({"isError": true})), "the tool says that it failed"),
        (200, answer(json!({"resultType": "input_required"})), "the tool asks for something first"),
        (200, answer(json!(1)), "its result is none of a call"),
        (200, json!({"jsonrpc": "2.0", "id": 8, "result": {}}), "its answer is no answer of MCP"),
        (
            200,
            json!({"jsonrpc": "2.0", "id": 7, "error": {"code": -32000, "message": "no"}}),
            "it answered no (-32000)",
        ),
    ] {
        assert_eq!(judged(status, &body), Err(why.to_string()));
    }
}

#[test]
fn token_that_was_given_is_shown_and_nobody_is_asked_to_sign_in() {
    let mut rig = Rig::new(|settings| settings.token = Some(Secret::new("given")));
    assert_eq!(rig.header("authorization"), Some("Bearer given"));
    rig.challenge(401, "Bearer");
    assert!(matches!(rig.outcome, Some(Err(Failure::Refused { .. }))) && rig.browser.is_none());
    assert!(rig.failure().contains("does not take the token"), "{}", rig.failure());
    let mut rig = Rig::new(|settings| settings.token = Some(Secret::new("given")));
    rig.challenge(403, r#"Bearer error="insufficient_scope", scope="write""#);
    assert!(rig.failure().contains("does not allow that much"), "{}", rig.failure());
}

#[test]
fn metadata_is_looked_for_where_the_specifications_say() {
    let mut rig = Rig::new(|settings| settings.client = Some(GivenClient { id: "g".into(), secret: None }));
    rig.challenge(401, "");
    let mut asked = Vec::new();
    for _ in 0..2 {
        asked.push(rig.asks());
        rig.answer(404, &[], "");
    }
    // Nothing describes it: its origin issues the tokens, as before 2025-06-18.
    asked.push(rig.asks());
    rig.answer(200, &[], "<!doctype html>");
    asked.push(rig.asks());
    rig.metadata("https://a.example");
    let root = "GET https://a.example/.well-known";
    assert_eq!(
        asked,
        [
            format!("{root}/oauth-protected-resource/mcp"),
            format!("{root}/oauth-protected-resource"),
            format!("{root}/oauth-authorization-server"),
            format!("{root}/openid-configuration"),
        ]
    );
    let query = rig.query();
    assert_eq!((query["client_id"].as_str(), query.get("scope")), ("g", None));
}

#[test]
fn more_is_asked_for_with_what_was_granted_and_as_the_same_client() {
    let mut rig = Rig::new(|_| {});
    rig.sign_in(r#"Bearer scope="read""#, ISSUER, "c", "t1");
    rig.challenge(403, r#"Bearer error="insufficient_scope", scope="write""#);
    rig.describe(ISSUER);
    rig.metadata(ISSUER);
    let query = rig.query();
    assert_eq!((query["scope"].as_str(), query["client_id"].as_str(), rig.listens), ("read write", "c", 1));
    rig.come_back("t2");
    assert_eq!(rig.header("authorization"), Some("Bearer t2"));
    rig.challenge(403, r#"Bearer error="insufficient_scope", scope="write""#);
    for token in ["r-t2", "r-t1"] {
        assert_eq!(rig.asks(), "POST https://i.example/revoke");
        assert_eq!(rig.form()["token"], token, "neither sign-in is left behind");
        rig.answer(200, &[], "");
    }
    assert!(rig.failure().contains("no more than was asked for"), "{}", rig.failure());
}

#[test]
fn another_issuer_gets_a_client_of_its_own() {
    let mut rig = Rig::new(|_| {});
    rig.sign_in("Bearer", ISSUER, "c", "t");
    rig.challenge(401, "Bearer");
    rig.describe("https://j.example");
    rig.metadata("https://j.example");
    assert_eq!(rig.asks(), "POST https://j.example/register");
    rig.register("d");
    assert_eq!(rig.query()["client_id"], "d");
}

#[test]
fn server_that_takes_no_token_is_given_up() {
    let mut rig = Rig::new(|_| {});
    for _ in 0..limits::PROBE_SIGN_INS {
        rig.sign_in("Bearer", ISSUER, "c", "t");
    }
    rig.challenge(401, "Bearer");
    for _ in 0..limits::PROBE_SIGN_INS {
        rig.answer(503, &[], "");
    }
    assert!(rig.failure().contains("another sign-in"), "{}", rig.failure());
}

/// What breaks a rule, how a probe is led there, and what it says.
type Case = (&'static str, fn(&mut Rig), &'static str);

#[test]
fn what_breaks_a_rule_opens_no_browser() {
    let table: &[Case] = &[
        (
            "resource",
            |rig| {
                rig.answer(200, &[], json!({"resource": "https://evil.example/mcp", "authorization_servers": [ISSUER]}))
            },
            "another resource",
        ),
        ("issuer in clear", |rig| rig.describe("http://i.example"), "neither https"),
        (
            "issuer",
            |rig| {
                rig.describe(ISSUER);
                rig.metadata("https://i.example/");
            },
            "another issuer",
        ),
        (
            "no metadata",
            |rig| {
                rig.describe(ISSUER);
                rig.answer(404, &[], "");
                rig.answer(404, &[], "");
            },
            "no metadata",
        ),
        (
            "no PKCE",
            |rig| {
                rig.describe(ISSUER);
                let mut metadata = metadata(ISSUER);
                metadata["code_challenge_methods_supported"] = json!(["plain"]);
                rig.answer(200, &[], metadata);
            },
            "PKCE",
        ),
        (
            "no registration",
            |rig| {
                rig.describe(ISSUER);
                let mut metadata = metadata(ISSUER);
                metadata.as_object_mut().expect("an object").remove("registration_endpoint");
                rig.answer(200, &[], metadata);
            },
            "--client-id",
        ),
        (
            "refused registration",
            |rig| {
                rig.describe(ISSUER);
                rig.metadata(ISSUER);
                rig.answer(400, &[], json!({"error": "invalid_redirect_uri"}));
            },
            "invalid_redirect_uri",
        ),
    ];
    for (name, lead, expected) in table {
        let mut rig = Rig::new(|_| {});
        rig.challenge(401, "Bearer");
        lead(&mut rig);
        assert!(rig.failure().contains(expected), "{name}: {}", rig.failure());
        assert!(rig.browser.is_none() && rig.listens == 0, "{name}");
    }
    let mut rig = Rig::new(|_| {});
    rig.challenge(401, r#"Bearer resource_metadata="http://a.example/m""#);
    assert!(rig.failure().contains("neither https"), "{}", rig.failure());
    let rig = Rig::new(|settings| settings.url = "http://a.example/mcp".into());
    assert!(rig.failure().contains("--allow-insecure"), "{}", rig.failure());
}

#[test]
fn answer_of_another_server_or_of_nobody_is_no_sign_in() {
    let waiting = || {
        let mut rig = Rig::new(|_| {});
        rig.challenge(401, "Bearer");
        rig.describe(ISSUER);
        rig.metadata(ISSUER);
        rig.register("c");
        rig
    };
    let mut rig = waiting();
    rig.event(Event::Callback { target: "/callback?code=x&state=guessed".into() });
    assert!(rig.outcome.is_none() && rig.pages == [StatusCode::BAD_REQUEST]);
    let state = rig.query()["state"].clone();
    rig.event(Event::Callback { target: format!("/callback?code=x&state={state}&iss=https://evil.example") });
    assert!(rig.failure().contains("another server"), "{}", rig.failure());

    let mut rig = waiting();
    rig.now = limits::LOGIN_TIMEOUT.as_micros().try_into().expect("a few minutes");
    let now = Now { instant: Instant::from_micros(rig.now), unix: UnixTime::from_secs(1_000_000) };
    rig.probe.handle_timeout(now);
    rig.drain();
    assert!(rig.failure().contains("nobody signed in") && rig.listens == 0);
}

#[test]
fn secret_of_a_given_client_goes_where_the_server_takes_it() {
    let given = GivenClient { id: "g:1".into(), secret: Some(Secret::new("s p+")) };
    for (method, header) in [("client_secret_basic", Some("Basic ZyUzQTE6cytwJTJC")), ("client_secret_post", None)] {
        let mut rig = Rig::new(|settings| settings.client = Some(given.clone()));
        rig.challenge(401, "Bearer");
        rig.describe(ISSUER);
        let mut metadata = metadata(ISSUER);
        metadata["token_endpoint_auth_methods_supported"] = json!([method]);
        rig.answer(200, &[], metadata);
        let state = rig.query()["state"].clone();
        rig.event(Event::Callback { target: format!("/callback?code=c0de&state={state}") });
        assert_eq!(rig.header("authorization"), header);
        let expected = header.is_none().then_some("s p+");
        assert_eq!(rig.form().get("client_secret").map(String::as_str), expected);
        let shown = format!("{:?}", rig.fetch);
        assert!(!shown.contains("s p+") && !shown.contains("c0de"), "{shown}");
    }
}

#[test]
fn endpoint_that_is_away_is_unreachable_and_one_that_answers_nonsense_broken() {
    let mut rig = Rig::new(|_| {});
    let (fetch, _) = rig.fetch.take().expect("asked");
    rig.event(Event::Fetched { fetch, result: Err(FetchError::TimedOut) });
    assert!(matches!(rig.outcome, Some(Err(Failure::Unreachable { .. }))));
    let mut rig = Rig::new(|_| {});
    rig.answer(200, &[], "<!doctype html>");
    rig.answer(200, &[], "<!doctype html>");
    assert!(matches!(rig.outcome, Some(Err(Failure::Broken { .. }))));
}

proptest! {
    /// Whatever servers answer, a probe comes to an end, and asks one thing at a time.
    #[test]
    fn any_answers_lead_to_an_end(answers in proptest::collection::vec((0..12_usize, any::<bool>()), 0..60)) {
        let mut rig = Rig::new(|settings| settings.call = Some("t".into()));
        let bodies = [
            json!({"resource": URL, "authorization_servers": [ISSUER]}),
            metadata(ISSUER),
            json!({"client_id": "c"}),
            json!({"access_token": "t", "token_type": "Bearer"}),
            json!({"jsonrpc": "2.0", "id": null, "error": {"code": -1}}),
            json!([]),
        ];
        for (choice, late) in answers {
            if rig.outcome.is_some() {
                prop_assert!(rig.fetch.is_none() && rig.listens == 0);
                break;
            }
            if late {
                rig.event(Event::Fetched { fetch: FetchId(u64::MAX), result: Err(FetchError::TimedOut) });
                rig.event(Event::Listening(Err("late".into())));
                rig.event(Event::Callback { target: "/callback?code=x&state=y".into() });
            }
            if rig.fetch.is_none() {
                rig.come_back("t");
                continue;
            }
            match choice {
                0 => rig.challenge(401, "Bearer"),
                1 => rig.challenge(403, r#"Bearer error="insufficient_scope", scope="z""#),
                2 => rig.answer(404, &[], ""),
                3 => rig.answer(500, &[], ""),
                4 => rig.answer(202, &[], ""),
                choice => rig.answer(200, &[], bodies[choice % bodies.len()].clone()),
            }
        }
    }
}

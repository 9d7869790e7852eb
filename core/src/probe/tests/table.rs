//! Every event in every state of a probe.

use super::*;
use crate::table::{kinds, uncovered};

/// A probe whose world does nothing by itself.
struct Bench {
    probe: Probe,
    now: Now,
    fetch: FetchId,
    browser: Option<Url>,
}

impl Bench {
    fn in_state(state: &str) -> Self {
        let settings = Settings {
            url: URL.into(),
            allow_insecure: false,
            client: None,
            token: None,
            call: None,
            stay: state == "visiting",
            version: "1.2.3".into(),
        };
        let probe = Probe::new(settings, alloc::boxed::Box::new(Seeded::new(7)));
        let now = Now { instant: Instant::from_micros(0), unix: UnixTime::from_secs(1_000_000) };
        let mut bench = Self { probe, now, fetch: FetchId(0), browser: None };
        const WAY: [&str; 9] =
            ["start", "challenge", "description", "metadata", "port", "registration", "code", "tokens", "lost"];
        let steps = match state {
            "initializing" | "listing" => {
                bench.give("start");
                bench.give(if state == "listing" { "greeting" } else { "not found" });
                return bench;
            }
            "visiting" => {
                let way = ["start", "greeting", "list"].map(|event| bench.give(event));
                assert_eq!(way[2], "entered, → visiting");
                return bench;
            }
            "idle" => 0,
            "asking" => 1,
            "describing" => 2,
            "discovering" => 3,
            "listening" => 4,
            "registering" => 5,
            "waiting" => 6,
            "exchanging" => 7,
            "revoking" => 9,
            "over" => 10,
            other => panic!("no such state: {other}"),
        };
        for step in WAY.into_iter().chain(["lost"]).take(steps) {
            bench.give(step);
        }
        assert_eq!(bench.probe.state_name(), state, "the way into it");
        bench
    }

    /// Hands an event in, and says what was ordered and where that led.
    fn give(&mut self, event: &str) -> String {
        match event {
            "early wake" => self.probe.handle_timeout(self.now),
            "five minutes" => {
                self.now.instant = self.now.instant + limits::LOGIN_TIMEOUT;
                self.probe.handle_timeout(self.now);
            }
            other => {
                let event = self.event(other);
                self.probe.handle_event(event, self.now);
            }
        }
        let mut said: Vec<String> = core::iter::from_fn(|| self.probe.poll_action())
            .collect::<Vec<_>>()
            .into_iter()
            .map(|action| self.words(action))
            .collect();
        said.push(format!("→ {}", self.probe.state_name()));
        said.join(", ")
    }

    fn event(&self, name: &str) -> Event {
        let fetched = |status, headers: &[(&str, &str)], body: &Value| {
            let headers = headers
                .iter()
                .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
                .collect();
            let status = StatusCode::from_u16(status).expect("a status");
            Event::Fetched { fetch: self.fetch, result: Ok(Fetched { status, headers, body: body.to_string().into() }) }
        };
        let result = |result: Value| {
            fetched(
                200,
                &[("content-type", "application/json")],
                &json!({"jsonrpc": "2.0", "id": self.fetch.0, "result": result}),
            )
        };
        let state = || {
            self.browser
                .as_ref()
                .and_then(|url| url.query_pairs().find(|(name, _)| name == "state"))
                .map_or(String::new(), |(_, state)| state.into_owned())
        };
        match name {
            "start" => Event::Start { person: Person::Here },
            "challenge" => fetched(401, &[("www-authenticate", "Bearer")], &json!("")),
            "description" => fetched(200, &[], &json!({"resource": URL, "authorization_servers": [ISSUER]})),
            "metadata" => fetched(200, &[], &metadata(ISSUER)),
            "registration" => fetched(201, &[], &json!({"client_id": "c"})),
            "tokens" => fetched(200, &[], &json!({"access_token": "t", "token_type": "Bearer", "refresh_token": "r"})),
            "greeting" => result(json!({"supportedVersions": ["2026-07-28"]})),
            "list" => result(json!({"tools": []})),
            "page" => Event::Fetched {
                fetch: self.fetch,
                result: Ok(Fetched {
                    status: StatusCode::OK,
                    headers: HeaderMap::new(),
                    body: "<!doctype html>".into(),
                }),
            },
            "refusal" => fetched(400, &[], &json!({"error": "invalid_request"})),
            "not found" => fetched(404, &[], &json!("")),
            "unavailable" => fetched(503, &[], &json!("")),
            "lost" => Event::Fetched { fetch: self.fetch, result: Err(FetchError::TimedOut) },
            "late answer" => Event::Fetched { fetch: FetchId(u64::MAX), result: Err(FetchError::TimedOut) },
            "port" => Event::Listening(Ok(4711)),
            "no port" => Event::Listening(Err("denied".into())),
            "code" => Event::Callback { target: format!("/callback?code=c0de&state={}", state()) },
            "denied" => Event::Callback { target: format!("/callback?error=access_denied&state={}", state()) },
            "foreign callback" => Event::Callback { target: "/callback?code=c0de&state=x".into() },
            "loaded" => Event::Loaded(None),
            "saved" => Event::Saved(Ok(())),
            "refused" => Event::Refused,
            "logout" => Event::Logout { force: true },
            "inquire" => Event::Inquire { minted: None },
            other => panic!("no such event: {other}"),
        }
    }

    fn words(&mut self, action: Action) -> String {
        match action {
            Action::Desk(Order::Fetch { fetch, request }) => {
                self.fetch = fetch;
                let message = serde_json::from_slice::<Value>(&request.body).unwrap_or_default();
                match message["method"].as_str() {
                    Some(method) => method.into(),
                    None => request.url.rsplit('/').next().unwrap_or_default().into(),
                }
            }
            Action::Desk(Order::Listen) => "listen".into(),
            Action::Desk(Order::OpenBrowser { url }) => {
                self.browser = Some(url.parse().expect("a URL"));
                "open".into()
            }
            Action::Desk(Order::AnswerCallback(page)) => format!("answer {}", page.status.as_u16()),
            Action::Desk(Order::StopListening) => "stop".into(),
            Action::Desk(other) => panic!("{other:?}"),
            Action::Entered(_) => "entered".into(),
            Action::Done(Ok(_)) => "done".into(),
            Action::Done(Err(Failure::Unreachable { .. })) => "unreachable".into(),
            Action::Done(Err(Failure::Broken { .. })) => "broken".into(),
            Action::Done(Err(Failure::Refused { .. })) => "refused".into(),
            Action::Done(Err(Failure::Local { .. })) => "failed here".into(),
        }
    }
}

const STATES: [&str; 13] = [
    "idle",
    "asking",
    "initializing",
    "listing",
    "describing",
    "discovering",
    "listening",
    "registering",
    "waiting",
    "exchanging",
    "visiting",
    "revoking",
    "over",
];

kinds!(ALL, kind: Event, "" { Start, Fetched, Listening, Callback, Loaded, Saved, Refused, Logout, Inquire });

const EVENTS: [&str; 26] = [
    "start",
    "challenge",
    "description",
    "metadata",
    "registration",
    "tokens",
    "greeting",
    "list",
    "page",
    "refusal",
    "not found",
    "unavailable",
    "lost",
    "late answer",
    "port",
    "no port",
    "code",
    "denied",
    "foreign callback",
    "loaded",
    "saved",
    "refused",
    "logout",
    "inquire",
    "early wake",
    "five minutes",
];

/// What is ordered, and the state that follows. What is not here changes nothing; a browser is answered in any case.
#[rustfmt::skip]
const TABLE: &[(&str, &str, &str)] = &[
    ("idle", "start", "server/discover, → asking"),

    // A server that does not know the newest version says so in many ways.
    ("asking", "challenge", "mcp, → describing"),
    ("asking", "description", "initialize, → asking"),
    ("asking", "metadata", "initialize, → asking"),
    ("asking", "registration", "initialize, → asking"),
    ("asking", "tokens", "initialize, → asking"),
    ("asking", "greeting", "tools/list, → asking"),
    ("asking", "list", "initialize, → asking"),
    ("asking", "page", "initialize, → asking"),
    ("asking", "refusal", "initialize, → asking"),
    ("asking", "not found", "initialize, → asking"),
    ("asking", "unavailable", "initialize, → asking"),
    ("asking", "lost", "unreachable, → over"),

    ("initializing", "challenge", "mcp, → describing"),
    ("initializing", "description", "broken, → over"),
    ("initializing", "metadata", "broken, → over"),
    ("initializing", "registration", "broken, → over"),
    ("initializing", "tokens", "broken, → over"),
    ("initializing", "greeting", "tools/list, → asking"),
    ("initializing", "list", "broken, → over"),
    ("initializing", "page", "broken, → over"),
    ("initializing", "refusal", "broken, → over"),
    ("initializing", "not found", "broken, → over"),
    ("initializing", "unavailable", "broken, → over"),
    ("initializing", "lost", "unreachable, → over"),

    ("listing", "challenge", "mcp, → describing"),
    ("listing", "description", "broken, → over"),
    ("listing", "metadata", "broken, → over"),
    ("listing", "registration", "broken, → over"),
    ("listing", "tokens", "broken, → over"),
    ("listing", "greeting", "broken, → over"),
    ("listing", "list", "done, → over"),
    ("listing", "page", "broken, → over"),
    ("listing", "refusal", "broken, → over"),
    ("listing", "not found", "broken, → over"),
    ("listing", "unavailable", "broken, → over"),
    ("listing", "lost", "unreachable, → over"),

    // What is no description is looked for in the next place, unless it is one of something else.
    ("describing", "challenge", "oauth-protected-resource, → describing"),
    ("describing", "description", "oauth-authorization-server, → discovering"),
    ("describing", "metadata", "broken, → over"),
    ("describing", "registration", "oauth-protected-resource, → describing"),
    ("describing", "tokens", "broken, → over"),
    ("describing", "greeting", "broken, → over"),
    ("describing", "list", "broken, → over"),
    ("describing", "page", "oauth-protected-resource, → describing"),
    ("describing", "refusal", "oauth-protected-resource, → describing"),
    ("describing", "not found", "oauth-protected-resource, → describing"),
    ("describing", "unavailable", "unreachable, → over"),
    ("describing", "lost", "unreachable, → over"),

    ("discovering", "challenge", "openid-configuration, → discovering"),
    ("discovering", "description", "broken, → over"),
    ("discovering", "metadata", "listen, → listening"),
    ("discovering", "registration", "openid-configuration, → discovering"),
    ("discovering", "tokens", "broken, → over"),
    ("discovering", "greeting", "broken, → over"),
    ("discovering", "list", "broken, → over"),
    ("discovering", "page", "openid-configuration, → discovering"),
    ("discovering", "refusal", "openid-configuration, → discovering"),
    ("discovering", "not found", "openid-configuration, → discovering"),
    ("discovering", "unavailable", "unreachable, → over"),
    ("discovering", "lost", "unreachable, → over"),

    ("listening", "port", "register, → registering"),
    ("listening", "no port", "failed here, → over"),

    ("registering", "challenge", "stop, broken, → over"),
    ("registering", "description", "stop, broken, → over"),
    ("registering", "metadata", "stop, broken, → over"),
    ("registering", "registration", "open, → waiting"),
    ("registering", "tokens", "stop, broken, → over"),
    ("registering", "greeting", "stop, broken, → over"),
    ("registering", "list", "stop, broken, → over"),
    ("registering", "page", "stop, broken, → over"),
    ("registering", "refusal", "stop, refused, → over"),
    ("registering", "not found", "stop, broken, → over"),
    ("registering", "unavailable", "stop, unreachable, → over"),
    ("registering", "lost", "stop, unreachable, → over"),

    ("waiting", "code", "answer 200, token, → exchanging"),
    ("waiting", "denied", "answer 400, stop, refused, → over"),
    ("waiting", "five minutes", "stop, refused, → over"),

    ("exchanging", "challenge", "stop, broken, → over"),
    ("exchanging", "description", "stop, broken, → over"),
    ("exchanging", "metadata", "stop, broken, → over"),
    ("exchanging", "registration", "stop, broken, → over"),
    ("exchanging", "tokens", "server/discover, → asking"),
    ("exchanging", "greeting", "stop, broken, → over"),
    ("exchanging", "list", "stop, broken, → over"),
    ("exchanging", "page", "stop, broken, → over"),
    ("exchanging", "refusal", "stop, refused, → over"),
    ("exchanging", "not found", "stop, broken, → over"),
    ("exchanging", "unavailable", "stop, unreachable, → over"),
    ("exchanging", "lost", "stop, unreachable, → over"),

    ("visiting", "logout", "done, → over"),

    // Whatever the answer: the tokens were given up, and what had failed before is told.
    ("revoking", "challenge", "stop, unreachable, → over"),
    ("revoking", "description", "stop, unreachable, → over"),
    ("revoking", "metadata", "stop, unreachable, → over"),
    ("revoking", "registration", "stop, unreachable, → over"),
    ("revoking", "tokens", "stop, unreachable, → over"),
    ("revoking", "greeting", "stop, unreachable, → over"),
    ("revoking", "list", "stop, unreachable, → over"),
    ("revoking", "page", "stop, unreachable, → over"),
    ("revoking", "refusal", "stop, unreachable, → over"),
    ("revoking", "not found", "stop, unreachable, → over"),
    ("revoking", "unavailable", "stop, unreachable, → over"),
    ("revoking", "lost", "stop, unreachable, → over"),
];

#[test]
fn every_event_in_every_state() {
    let mut used = 0;
    for state in STATES {
        for event in EVENTS {
            let row = TABLE.iter().find(|(in_state, on, _)| *in_state == state && *on == event);
            used += usize::from(row.is_some());
            // These ask, too.
            let shown = if matches!(state, "initializing" | "listing") { "asking" } else { state };
            let callback = matches!(event, "code" | "denied" | "foreign callback");
            let expected = match row {
                Some((_, _, expected)) => (*expected).to_string(),
                // Somebody waits for it, whatever it is.
                None if callback => format!("answer 400, → {shown}"),
                None => format!("→ {shown}"),
            };
            assert_eq!(Bench::in_state(state).give(event), expected, "{state}: {event}");
        }
    }
    assert_eq!(used, TABLE.len(), "every row is of a state and an event that exist");
    let bench = Bench::in_state("idle");
    let of_events = EVENTS.into_iter().filter(|event| !matches!(*event, "early wake" | "five minutes"));
    let given = of_events.map(|event| kind(&bench.event(event))).collect();
    assert_eq!(uncovered(&given, &[ALL], &[]), Vec::<String>::new());
}

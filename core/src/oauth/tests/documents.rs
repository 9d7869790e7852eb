//! Clients that describe themselves in a document.

use super::*;
use crate::limits;

const ID: &str = "https://app.example/oauth/client.json";
const APP: &str = "https://app.example/callback";
const ALL: &str = "mcp:tools mcp:read tunnel:manage";
const CACHING: &str = "public, max-age=600";

fn document(id: &str, redirects: &[&str]) -> Value {
    json!({"client_id": id, "client_name": "An app", "redirect_uris": redirects, "token_endpoint_auth_method": "none"})
}

fn shown(status: u16, kind: &'static str, body: &str, caching: &'static str) -> Fetched {
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
    headers.insert("cache-control", HeaderValue::from_static(caching));
    Fetched {
        status: StatusCode::from_u16(status).expect("a status"),
        headers,
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

fn good(id: &str) -> Fetched {
    shown(200, "application/json", &document(id, &[APP, "http://localhost/callback"]).to_string(), CACHING)
}

impl Relay {
    fn with_document() -> Self {
        let mut relay = Self::new();
        relay.documents.insert(ID.into(), good(ID));
        relay
    }

    fn hold_fetches(&mut self) {
        self.held_fetches = Some(Vec::new());
    }

    fn let_fetches_go(&mut self) {
        for (fetch, request) in self.held_fetches.take().unwrap_or_default() {
            self.show_document(fetch, &request);
        }
        self.settle();
    }

    fn knock(&mut self, id: &str, peer: &str) -> ExchangeId {
        self.send_from(peer, Method::GET, &authorization(id, APP), HeaderMap::new(), "")
    }

    /// The status and the page that a person gets who is sent here by that client.
    fn page(&mut self, id: &str) -> (u16, String) {
        let exchange = self.knock(id, "192.0.2.7");
        let reply = self.answer(exchange);
        assert!(reply.headers.get(LOCATION).is_none(), "never a redirect");
        (reply.status.as_u16(), html(&reply).to_string())
    }
}

#[test]
fn client_with_a_document_signs_people_in() {
    let mut relay = Relay::with_document();
    let (status, page) = relay.page(ID);
    assert_eq!(status, 200);
    assert!(page.contains("An app") && page.contains("<strong>app.example</strong>") && page.contains(ID), "{page}");
    assert!(page.contains(APP) && !page.contains("unverified") && !page.contains("Take care"));
    for redirect in [APP, "http://127.0.0.1:4712/callback"] {
        let code = relay.code(ID, redirect);
        let tokens = Tokens::new(ID.into(), &relay.redeem(ID, redirect, &code));
        assert_eq!(relay.open(&tokens.access, "/mcp").unwrap().client.as_str(), ID);
        assert_eq!(relay.refresh(ID, &tokens.refresh).status, StatusCode::OK);
    }
    assert_eq!(relay.asked.len(), 1, "it is fetched once");
    let asked = &relay.asked[0];
    assert_eq!((asked.url.as_str(), asked.method.as_str(), asked.reach), (ID, "GET", Reach::Public));
    assert!(asked.body.is_empty() && !asked.headers.contains_key("cookie"));
}

#[test]
fn documented_scopes_are_the_default_and_more_is_had_for_the_asking() {
    let mut relay = Relay::new();
    let mut reader = document(ID, &[APP]);
    reader["scope"] = "mcp:read x".into();
    relay.documents.insert(ID.into(), shown(200, "application/json", &reader.to_string(), CACHING));
    for (asked, granted) in
        [("", "mcp:read"), ("x", "mcp:read"), ("mcp:read tunnel:manage", "mcp:read tunnel:manage"), ("mcp", ALL)]
    {
        let link = authorization_with(ID, APP, &[("scope", asked)]);
        let code = query(&location(&Browser::default().sign_in(&mut relay, &link))).remove("code").unwrap();
        assert_eq!(body(&relay.redeem(ID, APP, &code))["scope"], granted, "{asked}");
    }
}

#[test]
fn loopback_redirect_of_a_document_is_warned_about() {
    let mut relay = Relay::with_document();
    let reply = Browser::default().get(&mut relay, &authorization(ID, "http://127.0.0.1:1/callback"));
    assert!(html(&reply).contains("Take care"));
}

#[test]
fn refresh_and_revocation_need_no_document_after_a_restart() {
    let mut relay = Relay::with_document();
    let code = relay.code(ID, APP);
    let tokens = Tokens::new(ID.into(), &relay.redeem(ID, APP, &code));
    let mut relay = relay.restart();
    relay.documents.clear();
    let next = Tokens::new(ID.into(), &relay.refresh(ID, &tokens.refresh));
    let other = "https://other.example/client";
    assert_refused(&relay.refresh(other, &next.refresh), 400, "invalid_grant");
    let form = [("client_id", ID), ("token", next.refresh.as_str())];
    assert_eq!(relay.post("/revoke", &form).status, StatusCode::OK);
    assert_eq!(relay.revoked().len(), 1);
    assert!(relay.asked.is_empty(), "nothing is fetched for programs");
    for id in ["https://app.example/", "http://app.example/client", "https://10.0.0.1/client", "https://localhost/x"] {
        assert_refused(&relay.refresh(id, &next.refresh), 401, "invalid_client");
    }
}

#[test]
fn urls_that_no_document_may_have_are_refused_and_nothing_is_fetched() {
    let mut relay = Relay::new();
    for id in [
        "http://app.example/client",
        "https://app.example/",
        "https://127.0.0.1/client",
        "https://localhost/client",
        "http://localhost:1/client",
        "https://169.254.169.254/latest/meta-data",
        "https://metadata.google.internal/x",
        "https://user@app.example/client",
        "https://app.example:22/client",
        "https://app.example/../client",
        "https://app.example/client#x",
    ] {
        let (status, page) = relay.page(id);
        assert!(status == 400 && page.contains("named by a URL that cannot be used"), "{id}: {page}");
    }
    assert!(relay.asked.is_empty());
}

#[test]
fn loopback_documents_are_the_operators_choice() {
    let mut relay = Relay::with_clients(Clients { known: Vec::new(), loopback_documents: true });
    let id = "http://localhost:8080/client";
    relay.documents.insert(id.into(), good(id));
    assert_eq!(relay.page(id).0, 200);
    assert_eq!(relay.asked[0].reach, Reach::Loopback, "and even then a name elsewhere does not lead here");
}

#[test]
fn foreign_redirect_of_a_document_never_redirects() {
    let mut relay = Relay::with_document();
    for redirect in ["https://evil.example/cb", "https://app.example/callback/", WEB, "http://localhost:1/other", ""] {
        let reply = Browser::default().get(&mut relay, &authorization_with(ID, redirect, &[("x", "1")]));
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{redirect}");
        assert!(reply.headers.get(LOCATION).is_none() && !html(&reply).contains("href"), "{redirect}");
    }
}

#[test]
fn request_error_ends_on_our_page_with_a_button() {
    let mut relay = Relay::with_document();
    let link = authorization_with(ID, APP, &[("code_challenge_method", "plain")]);
    let reply = Browser::default().get(&mut relay, &link);
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert!(reply.headers.get(LOCATION).is_none());
    assert!(html(&reply).contains(&format!("href=\"{APP}?error=invalid_request&amp;")));
}

#[test]
fn bad_documents_are_named_to_the_person_and_tried_again_soon() {
    let mut relay = Relay::new();
    let other = document("https://other.example/client", &[APP]).to_string();
    let mut signs = document(ID, &[APP]);
    signs["token_endpoint_auth_method"] = "private_key_jwt".into();
    for (shown, said) in [
        (shown(404, "application/json", "{}", ""), "status 404"),
        (shown(302, "application/json", "{}", ""), "status 302"),
        (shown(200, "text/html", "<html>", ""), "not JSON"),
        (shown(200, "application/json", &other, ""), "client_id is not its own URL"),
        (shown(200, "application/json", &signs.to_string(), ""), "has none: clients with a document are public here"),
    ] {
        relay.documents.insert(ID.into(), shown);
        let (status, page) = relay.page(ID);
        assert!(status == 400 && page.contains(said) && page.contains("app.example"), "{said}: {page}");
        let asked = relay.asked.len();
        assert_eq!(relay.page(ID).0, 400);
        assert_eq!(relay.asked.len(), asked, "its host is left alone for a moment");
        relay.pass(limits::CLIENT_DOCUMENT_RETRY);
    }
    relay.documents.insert(ID.into(), good(ID));
    assert_eq!(relay.page(ID).0, 200, "mended");
}

#[test]
fn what_cannot_be_reached_is_not_said_why() {
    let mut relay = Relay::new();
    let (status, page) = relay.page(ID);
    assert_eq!(status, 502);
    assert!(page.contains("cannot be fetched now") && !page.contains("address that may"), "{page}");
}

#[test]
fn document_is_kept_as_its_headers_say() {
    for (caching, kept) in [("max-age=0", 300), ("max-age=600", 600), ("", 3_600), ("max-age=99999999", 86_400)] {
        let mut relay = Relay::new();
        let body = document(ID, &[APP]).to_string();
        relay.documents.insert(ID.into(), shown(200, "application/json", &body, caching));
        relay.page(ID);
        relay.pass(Duration::from_millis(kept * 1_000 - 1));
        relay.page(ID);
        assert_eq!(relay.asked.len(), 1, "{caching}");
        relay.pass(Duration::from_millis(1));
        relay.page(ID);
        assert_eq!(relay.asked.len(), 2, "{caching}");
    }
}

#[test]
fn old_document_serves_for_a_week_while_its_host_is_out_of_order() {
    let mut relay = Relay::with_document();
    assert_eq!(relay.page(ID).0, 200);
    let page = "<html>Back soon".repeat(1_000);
    for failure in [None, Some((503, "")), Some((429, "")), Some((302, "")), Some((403, "")), Some((200, &*page))] {
        relay.documents.remove(ID);
        if let Some((status, body)) = failure {
            relay.documents.insert(ID.into(), shown(status, "text/html", body, ""));
        }
        relay.pass(limits::CLIENT_DOCUMENT_MAX);
        assert_eq!(relay.page(ID).0, 200, "{failure:?}");
        let asked = relay.asked.len();
        assert_eq!(relay.page(ID).0, 200);
        assert_eq!(relay.asked.len(), asked, "one try for half a minute");
    }
    relay.documents.clear();
    relay.pass(limits::CLIENT_DOCUMENT_STALE - limits::CLIENT_DOCUMENT_MAX * 6 - Duration::from_millis(1));
    assert_eq!(relay.page(ID).0, 200);
    relay.pass(Duration::from_millis(1));
    assert_eq!(relay.page(ID).0, 502);
}

#[test]
fn old_document_does_not_outlive_what_its_host_says() {
    for (status, body) in [
        (404, "{}".to_string()),
        (410, "{}".to_string()),
        (200, document("https://x.example/c", &[APP]).to_string()),
        (200, document(ID, &["http://app.example/cb"]).to_string()),
        (200, "{}".to_string()),
        (200, "[]".to_string()),
    ] {
        let mut relay = Relay::with_document();
        assert_eq!(relay.page(ID).0, 200);
        relay.documents.insert(ID.into(), shown(status, "application/json", &body, ""));
        relay.pass(limits::CLIENT_DOCUMENT_MAX);
        assert_eq!(relay.page(ID).0, 400, "{status}");
        relay.documents.remove(ID);
        relay.pass(limits::CLIENT_DOCUMENT_RETRY);
        assert_eq!(relay.page(ID).0, 502, "and it is gone");
    }
    let mut relay = Relay::with_document();
    relay.page(ID);
    let moved = document(ID, &["https://app.example/elsewhere"]).to_string();
    relay.documents.insert(ID.into(), shown(200, "application/json", &moved, ""));
    assert_eq!(relay.page(ID).0, 200);
    relay.pass(Duration::from_secs(600));
    assert_eq!(relay.page(ID).0, 400, "a redirect that was withdrawn");
}

#[test]
fn those_who_come_at_once_wait_for_one_fetch() {
    let mut relay = Relay::with_document();
    relay.hold_fetches();
    let waiting: Vec<_> = (0..limits::MAX_DOCUMENT_WAITERS).map(|_| relay.knock(ID, "192.0.2.7")).collect();
    let late = relay.knock(ID, "192.0.2.7");
    assert_eq!(relay.answer(late).status, StatusCode::TOO_MANY_REQUESTS);
    assert!(relay.replies.is_empty() && relay.asked.len() == 1);
    relay.let_fetches_go();
    for exchange in waiting {
        assert_eq!(relay.answer(exchange).status, StatusCode::OK);
    }
}

#[test]
fn address_that_causes_too_many_fetches_is_put_off() {
    let mut relay = Relay::with_document();
    assert_eq!(relay.page(ID).0, 200);
    for count in 0..30 {
        let (status, _) = relay.page(&format!("https://app.example/{count}"));
        assert_eq!(status, if count < 9 { 502 } else { 429 }, "{count}");
    }
    assert_eq!(relay.page(ID).0, 200, "what is known needs no fetch");
    relay.pass(Duration::from_secs(600));
    for count in 0..30 {
        relay.page(&format!("https://app.example/more{count}"));
    }
    assert_eq!(relay.page(ID).0, 200, "nor does what was known, for that moment");
}

#[test]
fn fetches_under_way_are_bounded() {
    let mut relay = Relay::new();
    relay.hold_fetches();
    for host in 0..limits::MAX_DOCUMENT_FETCHES {
        relay.knock(&format!("https://app.example/{host}"), &format!("198.51.100.{host}"));
    }
    assert!(relay.replies.is_empty());
    let more = relay.knock("https://app.example/more", "203.0.113.1");
    assert_eq!(relay.answer(more).status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(relay.asked.len(), limits::MAX_DOCUMENT_FETCHES);
    relay.let_fetches_go();
    assert_eq!(relay.replies.len(), limits::MAX_DOCUMENT_FETCHES, "everybody is answered");
}

#[test]
fn memory_of_documents_is_bounded_and_forgotten_in_time() {
    let mut relay = Relay::with_document();
    assert_eq!(relay.page(ID).0, 200);
    for count in 0..limits::MAX_CLIENT_DOCUMENTS + 50 {
        // Asked for all the time: it is not the one that goes.
        if count % 100 == 0 {
            assert_eq!(relay.page(ID).0, 200);
        }
        let id = format!("https://app.example/{count}");
        relay.documents.insert(id.clone(), good(&id));
        let peer = format!("10.{}.{}.1", count / 250, count % 250);
        let exchange = relay.knock(&id, &peer);
        assert_eq!(relay.answer(exchange).status, StatusCode::OK);
        relay.now.instant = relay.now.instant + Duration::from_millis(1);
    }
    assert_eq!(relay.grants.documents.len(), limits::MAX_CLIENT_DOCUMENTS);
    let asked = relay.asked.len();
    relay.page(ID);
    assert_eq!(relay.asked.len(), asked);
    assert!(relay.store.is_empty(), "nothing of it is written");
    relay.pass(limits::CLIENT_DOCUMENT_STALE);
    assert_eq!(relay.grants.documents.len(), 0);
}

#[test]
fn completion_of_a_fetch_that_nobody_waits_for_is_dropped() {
    let mut relay = Relay::with_document();
    relay.hold_fetches();
    let exchange = relay.knock(ID, "192.0.2.7");
    let held = relay.held_fetches.clone().unwrap_or_default();
    relay.let_fetches_go();
    assert_eq!(relay.answer(exchange).status, StatusCode::OK);
    for (fetch, request) in held {
        relay.show_document(fetch, &request);
        relay.settle();
    }
    assert!(relay.replies.is_empty() && relay.others.is_empty());
}

/// Every event in every state of what is known of a document. What follows: a fetch, and the statuses of the pages that
/// people get; `.`: nothing.
mod table {
    use super::*;
    use crate::table::Table;

    const STATES: [(&str, &str); 9] = [
        ("unknown", "0 known, 0 fetches, 0 minutes"),
        ("fetching", "0 known, 1 fetches, 0 minutes"),
        ("fresh", "1 known, 0 fetches, 0 minutes"),
        ("old", "1 known, 0 fetches, 10 minutes"),
        ("old, fetching", "1 known, 1 fetches, 10 minutes"),
        ("old, host down", "1 known, 0 fetches, 10 minutes"),
        ("host down", "1 known, 0 fetches, 0 minutes"),
        ("withdrawn", "1 known, 0 fetches, 10 minutes"),
        ("restarted", "0 known, 0 fetches, 0 minutes"),
    ];

    /// The fetch under way ends with that, or one ends that nobody waits for.
    fn end_fetch(relay: &mut Relay, end: Option<Fetched>) {
        let result = end.ok_or(FetchError::OutOfReach);
        let held = relay.held_fetches.replace(Vec::new()).unwrap_or_default();
        let under_way = held.into_iter().map(|(fetch, _)| fetch).next();
        relay.event(Event::Fetched { fetch: under_way.unwrap_or(FetchId(0)), result });
    }

    fn comes(relay: &mut Relay) {
        relay.knock(ID, "192.0.2.7");
    }

    fn page(status: u16) -> Fetched {
        shown(status, "text/html", "<html>", "")
    }

    fn in_state(state: &str) -> Relay {
        let mut relay = Relay::new();
        relay.hold_fetches();
        if state == "unknown" {
            return relay;
        }
        comes(&mut relay);
        match state {
            "fetching" => {}
            "host down" => end_fetch(&mut relay, None),
            _ => end_fetch(&mut relay, Some(good(ID))),
        }
        if state.starts_with("old") || state == "withdrawn" {
            relay.pass(Duration::from_secs(600));
        }
        if state.starts_with("old, ") || state == "withdrawn" {
            comes(&mut relay);
        }
        match state {
            "old, host down" => end_fetch(&mut relay, None),
            "withdrawn" => end_fetch(&mut relay, Some(page(404))),
            "restarted" => {
                relay = relay.restart();
                relay.hold_fetches();
            }
            _ => {}
        }
        relay.replies.clear();
        relay
    }

    /// How many documents something is known of, how many are being fetched, and how late it is.
    fn look(relay: &Relay) -> String {
        let minutes = relay.now.unix.saturating_since(UnixTime::from_secs(START)).as_secs() / 60;
        let fetches = relay.held_fetches.as_ref().map_or(0, Vec::len);
        format!("{} known, {fetches} fetches, {minutes} minutes", relay.grants.documents.len())
    }

    fn give(mut relay: Relay, event: &str) -> String {
        let before = relay.asked.len();
        let other = document("https://other.example/client", &[APP]).to_string();
        match event {
            "person comes" => comes(&mut relay),
            "fetched" => end_fetch(&mut relay, Some(good(ID))),
            "fetched another's" => end_fetch(&mut relay, Some(shown(200, "application/json", &other, ""))),
            "fetched 404" => end_fetch(&mut relay, Some(page(404))),
            "fetched 503" => end_fetch(&mut relay, Some(page(503))),
            "fetched a page" => end_fetch(&mut relay, Some(page(200))),
            "unreachable" => end_fetch(&mut relay, None),
            "program refreshes" => drop(relay.send_form("/token", &refresh(ID, "nothing"))),
            "half a minute later" => {
                relay.pass(limits::CLIENT_DOCUMENT_RETRY);
                comes(&mut relay);
            }
            "a day later" => {
                relay.pass(limits::CLIENT_DOCUMENT_MAX);
                comes(&mut relay);
            }
            "a week later, unreachable" => {
                relay.pass(limits::CLIENT_DOCUMENT_STALE);
                comes(&mut relay);
                end_fetch(&mut relay, None);
            }
            other => panic!("no such event: {other}"),
        }
        let fetches = (relay.asked.len() > before).then(|| "fetch".to_string());
        let statuses = relay.replies.values().map(|reply| reply.status.as_u16().to_string());
        let said: Vec<String> = fetches.into_iter().chain(statuses).collect();
        if said.is_empty() { ".".to_string() } else { said.join(", ") }
    }

    /// What follows each event, in the order of [`STATES`].
    const TABLE: &[(&str, [&str; 9])] = &[
        // unknown, fetching, fresh, old, old fetching, old host down, host down, withdrawn, restarted
        ("person comes", ["fetch", ".", "200", "fetch", ".", "200", "502", "400", "fetch"]),
        ("fetched", [".", "200", ".", ".", "200", ".", ".", ".", "."]),
        ("fetched another's", [".", "400", ".", ".", "400", ".", ".", ".", "."]),
        ("fetched 404", [".", "400", ".", ".", "400", ".", ".", ".", "."]),
        ("fetched 503", [".", "400", ".", ".", "200", ".", ".", ".", "."]),
        ("fetched a page", [".", "400", ".", ".", "200", ".", ".", ".", "."]),
        ("unreachable", [".", "502", ".", ".", "200", ".", ".", ".", "."]),
        ("program refreshes", ["400"; 9]),
        ("half a minute later", ["fetch", ".", "200", "fetch", ".", "fetch", "fetch", "fetch", "fetch"]),
        ("a day later", ["fetch", ".", "fetch", "fetch", ".", "fetch", "fetch", "fetch", "fetch"]),
        (
            "a week later, unreachable",
            [
                "fetch, 502",
                "502, 502",
                "fetch, 502",
                "fetch, 502",
                "502, 502",
                "fetch, 502",
                "fetch, 502",
                "fetch, 502",
                "fetch, 502",
            ],
        ),
    ];

    const SPARED: &[(&str, &[&str])] = &[
        ("no part of a document: table_grants", &["TokenRefused", "EndSession", "TunnelUp", "Used", "TunnelDown"]),
        ("no part of a document: table_jobs", &["Persisted", "Verified"]),
        ("table_admin", &["Admin"]),
        ("table_admin", ORDERS),
    ];

    #[test]
    fn every_event_in_every_state() {
        Table { states: STATES, rows: TABLE, kinds: KINDS, spared: SPARED }.check(in_state, |relay| look(relay), give);
    }
}

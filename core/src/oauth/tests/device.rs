//! The device grant: from the code that a device shows to its tokens, and everything that must not lead there.

use super::*;
use crate::limits;

pub(super) const AGENT: &str = "mcp-local-tunnel-agent";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// What a device was told.
pub(super) struct Device {
    pub(super) code: String,
    pub(super) user_code: String,
}

impl Device {
    /// How it asks for its tokens.
    pub(super) fn poll(&self) -> Vec<(&str, &str)> {
        poll(&self.code)
    }
}

impl Relay {
    fn device_from(&mut self, fields: &[(&str, &str)]) -> Reply {
        self.post("/device_authorization", fields)
    }

    /// A device that waits.
    pub(super) fn device(&mut self) -> Device {
        let reply = self.device_from(&[("client_id", AGENT), ("device_name", "Ann's <laptop>\u{202e}")]);
        assert_eq!(reply.status, StatusCode::OK, "{:?}", reply.body);
        let answer = body(&reply);
        Device { code: text(&answer, "device_code"), user_code: text(&answer, "user_code") }
    }

    /// The device asks, as soon as it may.
    pub(super) fn poll(&mut self, device: &Device) -> Reply {
        self.pass(Duration::from_secs(5));
        self.poll_now(device)
    }

    fn poll_now(&mut self, device: &Device) -> Reply {
        self.post("/token", &poll(&device.code))
    }
}

fn poll(code: &str) -> Vec<(&str, &str)> {
    vec![("grant_type", GRANT), ("client_id", AGENT), ("device_code", code)]
}

impl Browser {
    /// Types a code in.
    pub(super) fn type_in(&mut self, relay: &mut Relay, code: &str) -> Reply {
        let page = self.get(relay, "/device");
        assert_eq!(page.status, StatusCode::OK);
        self.post(relay, "/device", &fields(&page, &[("user_code", code)]))
    }

    /// Types the code in, agrees, and signs in as ann.
    pub(super) fn connect(&mut self, relay: &mut Relay, code: &str) -> Reply {
        let page = self.type_in(relay, code);
        assert_eq!(page.status, StatusCode::OK, "{:?}", page.body);
        let reply = self.agree(relay, &page);
        let page = self.get(relay, &location(&reply));
        self.post(relay, "/login", &fields(&page, &[("user", "ann"), ("password", "ann's password")]))
    }
}

#[test]
fn code_that_is_typed_and_allowed_brings_an_agents_tokens_once() {
    let mut relay = Relay::new();
    let device = relay.device();
    assert_refused(&relay.poll(&device), 400, "authorization_pending");
    let done = Browser::default().connect(&mut relay, &device.user_code.to_lowercase());
    assert_eq!(done.status, StatusCode::OK);
    assert!(html(&done).contains("Device connected"));

    let tokens = Tokens::new(AGENT.into(), &relay.poll(&device));
    let principal = relay.open(&tokens.access, "/ws").expect("opens the tunnel");
    assert_eq!((principal.user.as_str(), principal.role), ("local:ann", Role::Agent));
    assert_eq!(relay.open(&tokens.access, "/mcp"), Err(TokenError::Audience));
    assert_eq!(relay.refresh(AGENT, &tokens.refresh).status, StatusCode::OK);
    for _ in 0..3 {
        assert_refused(&relay.poll(&device), 400, "invalid_grant");
    }
    assert_eq!(relay.store.len(), 1, "one family");
}

#[test]
fn device_is_told_where_its_person_goes() {
    let mut relay = Relay::new();
    let reply = relay.device_from(&[("client_id", AGENT)]);
    let answer = body(&reply);
    let code = text(&answer, "user_code");
    assert_eq!(answer["verification_uri"], "https://relay.example/device");
    assert_eq!(answer["verification_uri_complete"], format!("https://relay.example/device?user_code={code}"));
    assert_eq!((answer["expires_in"].as_u64(), answer["interval"].as_u64()), (Some(600), Some(5)));
    assert_eq!(reply.headers["cache-control"], "no-store");
    assert!(!reply.headers.contains_key("access-control-allow-origin"), "no page reads this");
    assert_eq!((code.len(), code.as_bytes()[4]), (9, b'-'));
}

#[test]
fn page_shows_device_and_code_and_asks_to_compare() {
    let mut relay = Relay::new();
    let device = relay.device();
    let page = Browser::default().type_in(&mut relay, &device.user_code);
    let shown = html(&page);
    assert!(shown.contains("Ann's &lt;laptop&gt;") && !shown.contains('\u{202e}'), "{shown}");
    assert!(shown.contains(&device.user_code) && shown.contains("192.0.2.7"), "{shown}");
    assert!(shown.contains("show this very code"), "{shown}");
}

#[test]
fn link_with_the_code_asks_before_anything_happens() {
    let mut relay = Relay::new();
    let device = relay.device();
    let mut browser = Browser::default();
    for _ in 0..50 {
        let page = browser.get(&mut relay, &format!("/device?user_code={}", device.user_code));
        assert!(html(&page).contains(&format!("value=\"{}\"", device.user_code)));
        assert!(!html(&page).contains("laptop") && browser.cookies.is_empty());
    }
    let page = browser.get(&mut relay, "/device?user_code=%3Cscript%3E");
    assert!(!html(&page).contains("script"));
}

#[test]
fn provider_signs_a_devices_person_in() {
    let mut relay = Relay::with(PUBLIC, oidc(), BTreeMap::new());
    let device = relay.device();
    let mut browser = Browser::default();
    let page = browser.type_in(&mut relay, &device.user_code);
    let reply = browser.agree(&mut relay, &page);
    let back = format!("/callback?{}", relay.provider.authorize(&location(&reply)));
    let done = browser.get(&mut relay, &back);
    assert!(html(&done).contains("Device connected"), "{}", html(&done));
    let tokens = Tokens::new(AGENT.into(), &relay.poll(&device));
    assert!(relay.open(&tokens.access, "/ws").expect("opens").user.as_str().starts_with(ISSUER));
    let again = browser.get(&mut relay, &back);
    assert_eq!(again.status, StatusCode::BAD_REQUEST, "the way back works once");
}

#[test]
fn denied_device_gets_nothing() {
    let mut relay = Relay::new();
    let device = relay.device();
    let mut browser = Browser::default();
    let (page, other) =
        (browser.type_in(&mut relay, &device.user_code), browser.type_in(&mut relay, &device.user_code));
    let reply = browser.post(&mut relay, "/consent", &fields(&page, &[("decision", "deny")]));
    assert_eq!(reply.status, StatusCode::OK);
    let line = relay.audit.pop().unwrap();
    assert!(line["reason"] == "device-denied" && line["address"] == "192.0.2.7", "{line}");
    assert_refused(&relay.poll(&device), 400, "access_denied");
    let reply = browser.agree(&mut relay, &other);
    let login = browser.get(&mut relay, &location(&reply));
    let late = browser.post(&mut relay, "/login", &fields(&login, &[("user", "ann"), ("password", "ann's password")]));
    assert_eq!(late.status, StatusCode::BAD_REQUEST, "a no stays a no");
    assert_refused(&relay.poll(&device), 400, "access_denied");
    assert!(relay.store.is_empty());
}

#[test]
fn second_person_cannot_take_an_approved_device() {
    let mut relay = Relay::new();
    let device = relay.device();
    let (mut ann, mut eve) = (Browser::default(), Browser::default());
    let page = eve.type_in(&mut relay, &device.user_code);
    let reply = eve.agree(&mut relay, &page);
    let login = eve.get(&mut relay, &location(&reply));
    ann.connect(&mut relay, &device.user_code);
    let late = eve.post(&mut relay, "/login", &fields(&login, &[("user", "bob"), ("password", "bob's password")]));
    assert_eq!(late.status, StatusCode::BAD_REQUEST);
    let tokens = Tokens::new(AGENT.into(), &relay.poll(&device));
    assert_eq!(relay.open(&tokens.access, "/ws").expect("opens").user.as_str(), "local:ann");
}

#[test]
fn asking_too_soon_is_slowed_down() {
    let mut relay = Relay::new();
    let device = relay.device();
    assert_refused(&relay.poll_now(&device), 400, "authorization_pending");
    assert_refused(&relay.poll_now(&device), 400, "slow_down");
    assert_refused(&relay.poll(&device), 400, "slow_down");
    relay.pass(Duration::from_secs(15));
    assert_refused(&relay.poll_now(&device), 400, "authorization_pending");
}

#[test]
fn code_ends_after_ten_minutes_and_with_a_restart() {
    let mut relay = Relay::new();
    let device = relay.device();
    relay.pass(Duration::from_secs(600));
    assert_refused(&relay.poll_now(&device), 400, "expired_token");
    assert_eq!(Browser::default().type_in(&mut relay, &device.user_code).status, StatusCode::NOT_FOUND);

    let device = relay.device();
    Browser::default().connect(&mut relay, &device.user_code);
    let mut relay = relay.restart();
    assert_refused(&relay.poll_now(&device), 400, "expired_token");
    assert_refused(&relay.post("/token", &poll("a-guess")), 400, "invalid_grant");
}

#[test]
fn guessing_codes_is_slow_for_one_and_for_all() {
    let mut relay = Relay::new();
    let device = relay.device();
    let mut browser = Browser::default();
    for _ in 0..10 {
        assert_eq!(browser.type_in(&mut relay, "BBBB-BBBB").status, StatusCode::NOT_FOUND);
    }
    assert_eq!(browser.type_in(&mut relay, "BBBB-BBBB").status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(browser.type_in(&mut relay, &device.user_code).status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(browser.type_in(&mut relay, "nonsense").status, StatusCode::BAD_REQUEST, "no guess at all");
    relay.pass(Duration::from_secs(6));
    assert_eq!(browser.type_in(&mut relay, &device.user_code).status, StatusCode::OK, "a right one");
    assert_eq!(browser.type_in(&mut relay, &device.user_code).status, StatusCode::OK, "does not count");

    let mut guesses = 0;
    for host in 0..2_000_u16 {
        let peer = core::net::IpAddr::from([10, 0, host.to_be_bytes()[0], host.to_be_bytes()[1]]);
        relay.next_exchange += 1;
        let exchange = ExchangeId(relay.next_exchange);
        let mut headers = form_headers();
        headers.insert(HOST, HeaderValue::from_static("relay.example"));
        headers.insert(ORIGIN, HeaderValue::from_static(PUBLIC));
        let head = RequestHead { method: Method::POST, uri: "/device".parse().unwrap(), headers, peer };
        relay.event(Event::Request { exchange, head, body: Bytes::from_static(b"user_code=CCCC-CCCC") });
        guesses += u32::from(relay.answer(exchange).status == StatusCode::NOT_FOUND);
    }
    assert!((580..=600).contains(&guesses), "{guesses}");
}

#[test]
fn code_that_many_type_ends() {
    let mut relay = Relay::new();
    let device = relay.device();
    for _ in 0..10 {
        assert_eq!(Browser::default().type_in(&mut relay, &device.user_code).status, StatusCode::OK);
    }
    assert_eq!(Browser::default().type_in(&mut relay, &device.user_code).status, StatusCode::NOT_FOUND);
    assert_refused(&relay.poll(&device), 400, "expired_token");
}

#[test]
fn only_the_agent_may_and_only_for_the_tunnel() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    let device = relay.device();
    for (fields, status, code) in [
        (vec![], 401, "invalid_client"),
        (vec![("client_id", "unknown")], 401, "invalid_client"),
        (vec![("client_id", client.as_str())], 400, "unauthorized_client"),
        (vec![("client_id", AGENT), ("resource", "https://relay.example/mcp")], 400, "invalid_target"),
        (vec![("client_id", AGENT), ("resource", "https://evil.example/ws")], 400, "invalid_target"),
    ] {
        assert_refused(&relay.device_from(&fields), status, code);
    }
    let theirs = [("grant_type", GRANT), ("client_id", &client), ("device_code", &device.code)];
    assert_refused(&relay.post("/token", &theirs), 400, "unauthorized_client");
    let nothing = [("grant_type", GRANT), ("client_id", AGENT)];
    assert_refused(&relay.post("/token", &nothing), 400, "invalid_request");
    let started = relay.device_from(&[("client_id", AGENT), ("resource", "https://relay.example/ws")]);
    assert_eq!(started.status, StatusCode::OK);
}

#[test]
fn code_cannot_be_typed_from_elsewhere_nor_consent_be_given() {
    let mut relay = Relay::new();
    let device = relay.device();
    let typed = [("user_code".to_string(), device.user_code.clone())];
    let mut browser = Browser::default();
    let mut headers = form_headers();
    headers.insert(ORIGIN, HeaderValue::from_static("https://evil.example"));
    assert_eq!(browser.post_with(&mut relay, "/device", &typed, headers).status, StatusCode::FORBIDDEN);
    let mut headers = form_headers();
    headers.insert(HeaderName::from_static("sec-fetch-site"), HeaderValue::from_static("cross-site"));
    assert_eq!(browser.post_with(&mut relay, "/device", &typed, headers).status, StatusCode::FORBIDDEN);
    let page = browser.type_in(&mut relay, &device.user_code);
    let mut other = Browser::default();
    assert_eq!(other.agree(&mut relay, &page).status, StatusCode::BAD_REQUEST, "another browser's page");
    relay.pass(Duration::from_secs(600));
    assert_eq!(browser.agree(&mut relay, &page).status, StatusCode::BAD_REQUEST, "an old page");
}

#[test]
fn tokens_that_cannot_be_kept_are_asked_for_again() {
    let mut relay = Relay::new();
    let device = relay.device();
    Browser::default().connect(&mut relay, &device.user_code);
    relay.store_fails = true;
    assert_refused(&relay.poll(&device), 503, "temporarily_unavailable");
    relay.store_fails = false;
    let foreign = [poll(&device.code), vec![("resource", "https://relay.example/mcp")]].concat();
    relay.pass(Duration::from_secs(5));
    assert_refused(&relay.post("/token", &foreign), 400, "invalid_target");
    Tokens::new(AGENT.into(), &relay.poll(&device));
    assert_refused(&relay.poll(&device), 400, "invalid_grant");
}

#[test]
fn two_questions_at_once_get_one_set_of_tokens() {
    let mut relay = Relay::new();
    let device = relay.device();
    Browser::default().connect(&mut relay, &device.user_code);
    relay.hold_writes();
    relay.pass(Duration::from_secs(5));
    let first = relay.send_form("/token", &poll(&device.code));
    relay.pass(Duration::from_secs(5));
    let second = relay.send_form("/token", &poll(&device.code));
    relay.let_go();
    Tokens::new(AGENT.into(), &relay.answer(first));
    assert_refused(&relay.answer(second), 400, "invalid_grant");
    assert_eq!(relay.store.len(), 1);
}

#[test]
fn address_that_begins_too_many_is_put_off() {
    let mut relay = Relay::new();
    let begun = (0..100).filter(|_| relay.device_from(&[("client_id", AGENT)]).status == StatusCode::OK).count();
    assert_eq!(begun, 20);
    assert_refused(&relay.device_from(&[("client_id", AGENT)]), 429, "slow_down");
    assert!(begun < limits::MAX_DEVICE_GRANTS);
}

#[test]
fn failed_login_leaves_the_device_waiting() {
    let mut relay = Relay::new();
    let device = relay.device();
    let mut browser = Browser::default();
    let page = browser.type_in(&mut relay, &device.user_code);
    let reply = browser.agree(&mut relay, &page);
    let login = browser.get(&mut relay, &location(&reply));
    let wrong = browser.post(&mut relay, "/login", &fields(&login, &[("user", "ann"), ("password", "nope")]));
    assert_eq!(wrong.status, StatusCode::FORBIDDEN);
    assert_refused(&relay.poll(&device), 400, "authorization_pending");
    let right = browser.post(&mut relay, "/login", &fields(&wrong, &[("user", "ann"), ("password", "ann's password")]));
    assert!(html(&right).contains("Device connected"));
}

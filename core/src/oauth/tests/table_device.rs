//! A device that waits for its person (RFC 8628), from its code to its tokens: every request in every state. Writes are held:
//! what is answered at once, `|` where one is awaited, and what is answered once it is written. `.`: nothing.

use super::device::{AGENT, Device};
use super::*;
use crate::table::Table;

/// Each looks like this: what the device is told when it asks now, and how many families there are.
const STATES: [(&str, &str); 10] = [
    ("waiting", "authorization_pending; 0 families"),
    ("denied", "access_denied; 0 families"),
    ("approved", "| tokens; 1 families"),
    ("being issued", "invalid_grant | (tokens); 1 families"),
    ("issued", "invalid_grant; 1 families"),
    ("not kept", "| tokens; 1 families"),
    ("run out", "expired_token; 0 families"),
    ("relay restarted", "expired_token; 0 families"),
    ("its person signed out", "access_denied; 0 families"),
    ("typed too often", "expired_token; 0 families"),
];

struct Bench {
    relay: Relay,
    device: Device,
    /// A browser with the page that asks for consent, and one with the login page behind it.
    asked: (Browser, Reply),
    agreed: (Browser, Reply),
    /// The device's question that was not answered when the state was reached.
    open: Option<ExchangeId>,
}

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

impl Bench {
    fn in_state(state: &str) -> Self {
        let mut relay = Relay::new();
        let device = relay.device();
        let mut asked = Browser::default();
        let consent = asked.type_in(&mut relay, &device.user_code);
        let mut agreed = Browser::default();
        let page = agreed.type_in(&mut relay, &device.user_code);
        let reply = agreed.agree(&mut relay, &page);
        let login = agreed.get(&mut relay, &location(&reply));
        if !matches!(state, "waiting" | "denied" | "run out" | "typed too often") {
            let done = Browser::default().connect(&mut relay, &device.user_code);
            assert!(html(&done).contains("Device connected"));
        }
        relay.pass(Duration::from_secs(5));
        let mut open = None;
        match state {
            "waiting" | "approved" => {}
            "denied" => {
                let mut browser = Browser::default();
                let page = browser.type_in(&mut relay, &device.user_code);
                browser.post(&mut relay, "/consent", &fields(&page, &[("decision", "deny")]));
            }
            "being issued" => {
                relay.hold_writes();
                open = Some(relay.send_form("/token", &device.poll()));
            }
            "issued" => drop(relay.post("/token", &device.poll())),
            "not kept" => {
                relay.store_fails = true;
                assert_eq!(relay.post("/token", &device.poll()).status, StatusCode::SERVICE_UNAVAILABLE);
                relay.store_fails = false;
            }
            "run out" => relay.pass(Duration::from_secs(595)),
            "relay restarted" => relay = relay.restart(),
            "its person signed out" => {
                relay.admin(AdminCommand::GrantRevokeAll { user: "ann".into() });
            }
            "typed too often" => {
                for _ in 0..9 {
                    relay.pass(Duration::from_secs(1));
                    Browser::default().type_in(&mut relay, &device.user_code);
                }
            }
            other => panic!("no such state: {other}"),
        }
        relay.replies.clear();
        relay.others.clear();
        Self { relay, device, asked: (asked, consent), agreed: (agreed, login), open }
    }

    /// What the device is told; what it asked before in brackets.
    fn look(&mut self) -> String {
        let told = self.give("it asks in time");
        format!("{told}; {} families", self.relay.grants.families.known.len())
    }

    fn give(&mut self, event: &str) -> String {
        if self.relay.held.is_none() {
            self.relay.hold_writes();
        }
        let (relay, code) = (&mut self.relay, &*self.device.code);
        let person = [("user", "ann"), ("password", "ann's password")];
        let typed = [("user_code".to_string(), self.device.user_code.clone())];
        let poll = |client: &str, code: &str, resource: &str| {
            let fields = [("grant_type", GRANT), ("client_id", client), ("device_code", code), ("resource", resource)];
            form::encode(fields.into_iter().filter(|(_, value)| !value.is_empty()))
        };
        let ask = |relay: &mut Relay, form: String| {
            relay.send(Method::POST, "/token", form_headers(), &form);
        };
        let page = match event {
            "it asks in time" => {
                relay.pass(Duration::from_secs(5));
                ask(relay, poll(AGENT, code, ""));
                None
            }
            "it asks twice" => {
                relay.pass(Duration::from_secs(5));
                ask(relay, poll(AGENT, code, ""));
                ask(relay, poll(AGENT, code, ""));
                None
            }
            "it asks for a client's tokens" => {
                relay.pass(Duration::from_secs(5));
                ask(relay, poll(AGENT, code, "https://relay.example/mcp"));
                None
            }
            "a client asks with its code" => {
                let client = relay.register(WEB);
                ask(relay, poll(&client, code, ""));
                None
            }
            "it asks with a guess" => {
                ask(relay, poll(AGENT, "a-guess", ""));
                None
            }
            "its code is typed" => Some(Browser::default().type_in(relay, &self.device.user_code)),
            "its code is in a link" => {
                let link = format!("/device?user_code={}", self.device.user_code);
                Some(Browser::default().get(relay, &link))
            }
            "another code is typed" => Some(Browser::default().type_in(relay, "BBBB-BBBB")),
            "its code is sent from elsewhere" => {
                let mut headers = form_headers();
                headers.insert(ORIGIN, HeaderValue::from_static("https://evil.example"));
                Some(Browser::default().post_with(relay, "/device", &typed, headers))
            }
            "a yes" => {
                let (browser, page) = &mut self.asked;
                Some(browser.agree(relay, page))
            }
            "a no" => {
                let (browser, page) = &mut self.asked;
                Some(browser.post(relay, "/consent", &fields(page, &[("decision", "deny")])))
            }
            "its person signs in" => {
                let (browser, page) = &mut self.agreed;
                Some(browser.post(relay, "/login", &fields(page, &person)))
            }
            "another person signs in" => {
                let (browser, page) = &mut self.agreed;
                let bob = [("user", "bob"), ("password", "bob's password")];
                Some(browser.post(relay, "/login", &fields(page, &bob)))
            }
            "its person's grants are revoked" => {
                let command = AdminCommand::GrantRevokeAll { user: "ann".into() };
                relay.event(Event::Admin { job: JobId(5), command });
                None
            }
            other => panic!("no such event: {other}"),
        };
        let mut said: Vec<String> = page.into_iter().map(|page| shown(&page)).collect();
        said.extend(self.said());
        let writes = self.relay.held.as_ref().is_some_and(|held| !held.is_empty());
        self.relay.let_go();
        said.extend(writes.then(|| "|".into()));
        said.extend(self.said());
        if said.is_empty() { ".".into() } else { said.join(" ") }
    }

    fn said(&mut self) -> Vec<String> {
        let word = |(exchange, reply): (ExchangeId, Reply)| {
            let answer = body(&reply);
            let word = answer["error"].as_str().unwrap_or("tokens").to_string();
            if self.open == Some(exchange) { format!("({word})") } else { word }
        };
        let mut said: Vec<String> = core::mem::take(&mut self.relay.replies).into_iter().map(word).collect();
        for action in core::mem::take(&mut self.relay.others) {
            said.push(match action {
                Action::Revoked { .. } => "shards".into(),
                Action::AdminReply { .. } => "told".into(),
                other => panic!("{other:?}"),
            });
        }
        said
    }
}

/// A page in short.
fn shown(page: &Reply) -> String {
    let words = [("Device connected", " connected"), ("show this very code", " asks")];
    let what = words.iter().find(|(text, _)| html(page).contains(text)).map_or("", |(_, word)| *word);
    format!("{}{what}", page.status.as_u16())
}

/// What follows each event, in the order of [`STATES`].
const TABLE: &[(&str, [&str; 10])] = &[
    // waiting, denied, approved, being issued, issued, not kept, run out, relay restarted, signed out, typed too often
    (
        "it asks in time",
        [
            "authorization_pending",
            "access_denied",
            "| tokens",
            "invalid_grant | (tokens)",
            "invalid_grant",
            "| tokens",
            "expired_token",
            "expired_token",
            "access_denied",
            "expired_token",
        ],
    ),
    (
        "it asks twice",
        [
            "authorization_pending slow_down",
            "access_denied access_denied",
            "invalid_grant | tokens",
            "invalid_grant invalid_grant | (tokens)",
            "invalid_grant invalid_grant",
            "invalid_grant | tokens",
            "expired_token expired_token",
            "expired_token expired_token",
            "access_denied access_denied",
            "expired_token expired_token",
        ],
    ),
    (
        "it asks for a client's tokens",
        [
            "authorization_pending",
            "access_denied",
            "invalid_target",
            "invalid_grant | (tokens)",
            "invalid_grant",
            "invalid_target",
            "expired_token",
            "expired_token",
            "access_denied",
            "expired_token",
        ],
    ),
    (
        "a client asks with its code",
        [
            "unauthorized_client",
            "unauthorized_client",
            "unauthorized_client",
            "unauthorized_client | (tokens)",
            "unauthorized_client",
            "unauthorized_client",
            "unauthorized_client",
            "unauthorized_client",
            "unauthorized_client",
            "unauthorized_client",
        ],
    ),
    (
        "it asks with a guess",
        [
            "invalid_grant",
            "invalid_grant",
            "invalid_grant",
            "invalid_grant | (tokens)",
            "invalid_grant",
            "invalid_grant",
            "invalid_grant",
            "invalid_grant",
            "invalid_grant",
            "invalid_grant",
        ],
    ),
    ("its code is typed", ["200 asks", "404", "404", "404 | (tokens)", "404", "404", "404", "404", "404", "404"]),
    ("its code is in a link", ["200", "200", "200", "200 | (tokens)", "200", "200", "200", "200", "200", "200"]),
    ("another code is typed", ["404", "404", "404", "404 | (tokens)", "404", "404", "404", "404", "404", "404"]),
    (
        "its code is sent from elsewhere",
        ["403", "403", "403", "403 | (tokens)", "403", "403", "403", "403", "403", "403"],
    ),
    ("a yes", ["303", "303", "303", "303 | (tokens)", "303", "303", "400", "303", "303", "303"]),
    ("a no", ["200", "200", "200", "200 | (tokens)", "200", "200", "400", "200", "200", "200"]),
    (
        "its person signs in",
        ["200 connected", "400", "400", "400 | (tokens)", "400", "400", "400", "400", "400", "400"],
    ),
    (
        "another person signs in",
        ["200 connected", "400", "400", "400 | (tokens)", "400", "400", "400", "400", "400", "400"],
    ),
    (
        "its person's grants are revoked",
        ["told", "told", "told", "| (tokens) shards told", "| shards told", "told", "told", "told", "told", "told"],
    ),
];

const SPARED: &[(&str, &[&str])] = &[
    ("no part of a device's grant: table_grants", &["TokenRefused", "EndSession", "TunnelUp", "Used", "TunnelDown"]),
    ("at the provider: table_login", &["Fetched"]),
    ("no part of a device's grant: table_admin", &["TokenCreate", "TokenList", "TokenRevoke", "GrantList"]),
    ("no part of a device's grant: table_admin", &["GrantRevoke", "KeysList", "KeysRotate", "KeysRevokeAll"]),
];

#[test]
fn every_event_in_every_state() {
    Table { states: STATES, rows: TABLE, kinds: KINDS, spared: SPARED }.check(
        Bench::in_state,
        Bench::look,
        |mut bench, event| bench.give(event),
    );
}

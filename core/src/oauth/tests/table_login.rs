//! A person on an errand at the embedded login: every form in every state, for a client that waits for a code and for the
//! person's own page. What follows: the status, and what the person goes on to.

use super::super::cookies;
use super::*;

const STATES: [&str; 6] = ["open", "late", "used", "other browser", "relay restarted", "taken off"];

const EVENTS: [&str; 10] = [
    "page",
    "password",
    "password of another",
    "wrong password",
    "no password",
    "password that is too long",
    "no token",
    "token of another login",
    "from elsewhere",
    "another's login",
];

/// A browser before the login page, with what the page's form brings back.
struct Bench {
    relay: Relay,
    browser: Browser,
    fields: Vec<(String, String)>,
    /// The same of a login that another browser has.
    others: Vec<(String, String)>,
}

/// A login for that errand: what its page's form brings back.
fn begin(relay: &mut Relay, browser: &mut Browser, errand: &str) -> Vec<(String, String)> {
    let reply = match errand {
        "client" => {
            let client = relay.register(WEB);
            let page = browser.get(relay, &authorization(&client, WEB));
            browser.agree(relay, &page)
        }
        "account" => browser.post(relay, "/account", &[("action".to_string(), "sign-in".to_string())]),
        other => panic!("no such errand: {other}"),
    };
    let page = browser.get(relay, &location(&reply));
    fields(&page, &[])
}

fn with(fields: &[(String, String)], more: &[(&str, &str)]) -> Vec<(String, String)> {
    let kept = fields.iter().filter(|(name, _)| !more.iter().any(|(other, _)| other == name)).cloned();
    kept.chain(more.iter().map(|(name, value)| (name.to_string(), value.to_string()))).collect()
}

const ANN: [(&str, &str); 2] = [("user", "ann"), ("password", "ann's password")];

impl Bench {
    fn in_state(errand: &str, state: &str) -> Self {
        let mut relay = Relay::new();
        let others = begin(&mut relay, &mut Browser::default(), errand);
        let mut browser = Browser::default();
        let fields = begin(&mut relay, &mut browser, errand);
        match state {
            "open" => {}
            "late" => relay.pass(Duration::from_secs(cookies::MAX_AGE_SECS)),
            "used" => {
                let reply = browser.clone().post(&mut relay, "/login", &with(&fields, &ANN));
                assert_eq!(reply.status, StatusCode::SEE_OTHER);
            }
            "other browser" => browser = Browser::default(),
            "relay restarted" => relay = relay.restart(),
            "taken off" => relay.grants.settings.login = Login::Local(Local { users: vec![user("bob")] }),
            other => panic!("no such state: {other}"),
        }
        Self { relay, browser, fields, others }
    }

    fn give(mut self, event: &str) -> String {
        let long = "x".repeat(100_000);
        let more: &[(&str, &str)] = match event {
            "password of another" => &[("user", "ann"), ("password", "bob's password")],
            "wrong password" => &[("user", "ann"), ("password", "nothing")],
            "no password" => &[("user", "ann")],
            "password that is too long" => &[("user", "ann"), ("password", &long)],
            "no token" => &[("csrf", ""), ANN[0], ANN[1]],
            "page" | "password" | "token of another login" | "from elsewhere" | "another's login" => &ANN,
            other => panic!("no such event: {other}"),
        };
        let token =
            |fields: &[(String, String)]| fields.iter().find(|(name, _)| name == "csrf").expect("it has").1.clone();
        let mut form = with(if event == "another's login" { &self.others } else { &self.fields }, more);
        if event == "token of another login" {
            form = with(&form, &[("csrf", &token(&self.others))]);
        }
        let flow = self.fields.iter().find(|(name, _)| name == "flow").expect("a flow").1.clone();
        let reply = match event {
            "page" => self.browser.get(&mut self.relay, &format!("/login?flow={flow}")),
            "from elsewhere" => {
                let mut headers = self.browser.headers();
                headers.extend(form_headers());
                headers.insert(HeaderName::from_static("sec-fetch-site"), HeaderValue::from_static("cross-site"));
                self.browser.post_with(&mut self.relay, "/login", &form, headers)
            }
            _ => self.browser.post(&mut self.relay, "/login", &form),
        };
        let goes_on = match reply.headers.get(LOCATION).map(|to| to.to_str().expect("ASCII")) {
            Some(to) if to.starts_with(WEB) && to.contains("code=") => " to the client, with a code",
            Some("https://relay.example/account") => " to their page",
            Some(other) => panic!("led to {other}"),
            None => "",
        };
        format!("{}{goes_on}", reply.status.as_u16())
    }
}

fn user(name: &str) -> LocalUser {
    LocalUser { name: name.into(), password_hash: format!("hash of {name}'s password") }
}

/// What follows each event, in the order of [`STATES`]. `→`: on with the errand.
const TABLE: &[(&str, [&str; 6])] = &[
    // open, late, used, other browser, relay restarted, taken off
    ("page", ["200", "400", "400", "400", "200", "200"]),
    ("password", ["→", "400", "400", "400", "→", "403"]),
    ("password of another", ["403", "400", "400", "400", "403", "403"]),
    ("wrong password", ["403", "400", "400", "400", "403", "403"]),
    ("no password", ["400"; 6]),
    ("password that is too long", ["400"; 6]),
    ("no token", ["403", "400", "400", "400", "403", "403"]),
    ("token of another login", ["403", "400", "400", "400", "403", "403"]),
    ("from elsewhere", ["403"; 6]),
    ("another's login", ["400"; 6]),
];

#[test]
fn every_event_in_every_state_of_both_errands() {
    assert_eq!(TABLE.iter().map(|(event, _)| *event).collect::<Vec<_>>(), EVENTS, "every event has its row");
    for (errand, goes_on) in [("client", "303 to the client, with a code"), ("account", "303 to their page")] {
        for (event, expected) in TABLE {
            for (state, expected) in STATES.into_iter().zip(expected) {
                let expected = if *expected == "→" { goes_on } else { expected };
                let told = Bench::in_state(errand, state).give(event);
                assert_eq!(told, expected, "{event} while {state}, for the errand of a {errand}");
            }
        }
    }
}

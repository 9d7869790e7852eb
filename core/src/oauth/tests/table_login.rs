//! A person on an errand at the login, here and at the provider: every form and every way back in every state, for a client
//! that waits for a code, for the person's own page, and for a device. What follows: the status, and what the person goes on
//! to.

use super::super::{cookies, spent};
use super::*;
use crate::table::Table;

/// Each looks like this: how late it is, and what is there of the login and of the relay.
const STATES: [(&str, &str); 6] = [
    ("open", "has the cookie"),
    ("late", "late, has the cookie"),
    ("used", "has the cookie, spent"),
    ("other browser", ""),
    ("relay restarted", "has the cookie, new relay"),
    ("taken off", "has the cookie, bob only"),
];

/// What a login looks like whose handle is `flow`.
fn look(relay: &Relay, browser: &Browser, flow: &str) -> String {
    let cookie = cookies::name(&relay.grants.settings, cookies::Step::Login, flow);
    let is = |is: bool, word: &'static str| is.then_some(word);
    let words = [
        is(relay.now.unix >= UnixTime::from_secs(START + cookies::MAX_AGE_SECS), "late"),
        is(browser.cookies.contains_key(&cookie), "has the cookie"),
        is(relay.grants.spent.has(spent::Kind::Login, flow), "spent"),
        is(relay.next_exchange == 0, "new relay"),
        is(matches!(&relay.grants.settings.login, Login::Local(local) if local.users.len() == 1), "bob only"),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What the person goes on to.
fn goes_on(reply: &Reply) -> &'static str {
    match reply.headers.get(LOCATION).map(|to| to.to_str().expect("ASCII")) {
        Some(to) if to.starts_with(WEB) && to.contains("code=") => " to the client, with a code",
        Some("https://relay.example/account") => " to their page",
        Some(other) => panic!("led to {other}"),
        None if html(reply).contains("Device connected") => " with the device connected",
        None => "",
    }
}

/// An errand, and what follows when it comes to its end.
const ERRANDS: [(&str, &str); 3] = [
    ("client", "303 to the client, with a code"),
    ("account", "303 to their page"),
    ("device", "200 with the device connected"),
];

const SPARED: &[(&str, &[&str])] = &[
    (
        "no part of a login: table_grants",
        &["TokenRefused", "EndSession", "Persisted", "TunnelUp", "Used", "TunnelDown"],
    ),
    ("no part of a login: table_admin", &["Admin"]),
    ("no part of a login: table_admin", ORDERS),
    ("time is a state here", TIME),
];

/// A browser before the login page, with what the page's form brings back.
struct Bench {
    relay: Relay,
    browser: Browser,
    fields: Vec<(String, String)>,
    /// The same of a login that another browser has.
    others: Vec<(String, String)>,
}

/// A login for that errand: the redirect that it begins with.
fn begin(relay: &mut Relay, browser: &mut Browser, errand: &str) -> Reply {
    match errand {
        "client" => {
            let client = relay.register(WEB);
            let page = browser.get(relay, &authorization(&client, WEB));
            browser.agree(relay, &page)
        }
        "account" => browser.post(relay, "/account", &[("action".to_string(), "sign-in".to_string())]),
        "device" => {
            let device = relay.device();
            let page = browser.type_in(relay, &device.user_code);
            browser.agree(relay, &page)
        }
        other => panic!("no such errand: {other}"),
    }
}

/// What the login page's form brings back.
fn form(relay: &mut Relay, browser: &mut Browser, errand: &str) -> Vec<(String, String)> {
    let reply = begin(relay, browser, errand);
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
        let others = form(&mut relay, &mut Browser::default(), errand);
        let mut browser = Browser::default();
        let fields = form(&mut relay, &mut browser, errand);
        match state {
            "open" => {}
            "late" => relay.pass(Duration::from_secs(cookies::MAX_AGE_SECS)),
            "used" => {
                browser.clone().post(&mut relay, "/login", &with(&fields, &ANN));
            }
            "other browser" => browser = Browser::default(),
            "relay restarted" => relay = relay.restart(),
            "taken off" => relay.grants.settings.login = Login::Local(Local { users: vec![user("bob")] }),
            other => panic!("no such state: {other}"),
        }
        Self { relay, browser, fields, others }
    }

    fn flow(&self) -> &str {
        &self.fields.iter().find(|(name, _)| name == "flow").expect("a flow").1
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
        let page = format!("/login?flow={}", self.flow());
        let reply = match event {
            "page" => self.browser.get(&mut self.relay, &page),
            "from elsewhere" => {
                let mut headers = self.browser.headers();
                headers.extend(form_headers());
                headers.insert(HeaderName::from_static("sec-fetch-site"), HeaderValue::from_static("cross-site"));
                self.browser.post_with(&mut self.relay, "/login", &form, headers)
            }
            _ => self.browser.post(&mut self.relay, "/login", &form),
        };
        format!("{}{}", reply.status.as_u16(), goes_on(&reply))
    }
}

fn user(name: &str) -> LocalUser {
    LocalUser { name: name.into(), password_hash: format!("hash of {name}'s password") }
}

/// What follows each event, in the order of [`STATES`]. `→`: on with the errand; `⇢`: the same, but for a device, which a
/// relay that was restarted has forgotten.
const TABLE: &[(&str, [&str; 6])] = &[
    // open, late, used, other browser, relay restarted, taken off
    ("page", ["200", "400", "400", "400", "200", "200"]),
    ("password", ["→", "400", "400", "400", "⇢", "403"]),
    ("password of another", ["403", "400", "400", "400", "403", "403"]),
    ("wrong password", ["403", "400", "400", "400", "403", "403"]),
    ("no password", ["400"; 6]),
    ("password that is too long", ["400"; 6]),
    ("no token", ["403", "400", "400", "400", "403", "403"]),
    ("token of another login", ["403", "400", "400", "400", "403", "403"]),
    ("from elsewhere", ["403"; 6]),
    ("another's login", ["400"; 6]),
];

/// The rows of an errand with this end.
fn rows<const N: usize>(
    table: &[(&'static str, [&'static str; N])],
    errand: &str,
    end: &'static str,
) -> Vec<(&'static str, [&'static str; N])> {
    let cell = |cell| match cell {
        "⇢" if errand == "device" => "400",
        "→" | "⇢" => end,
        other => other,
    };
    table.iter().map(|(event, cells)| (*event, cells.map(cell))).collect()
}

#[test]
fn every_event_in_every_state_of_every_errand() {
    for (errand, end) in ERRANDS {
        let spared = [SPARED, &[("it is at the provider's", &["Fetched"][..])]].concat();
        let rows = rows(TABLE, errand, end);
        Table { states: STATES, rows: &rows, kinds: KINDS, spared: &spared }.check(
            |state| Bench::in_state(errand, state),
            |bench| look(&bench.relay, &bench.browser, bench.flow()),
            Bench::give,
        );
    }
}

/// At the provider.
mod provider {
    use super::*;

    /// "waiting": the browser is back, and the provider is being asked.
    const STATES: [(&str, &str); 6] = [
        ("open", "has the cookie"),
        ("late", "late, has the cookie"),
        ("used", "has the cookie, spent"),
        ("other browser", ""),
        ("relay restarted", "has the cookie, new relay"),
        ("refused", "has the cookie, spent"),
    ];

    struct Bench {
        relay: Relay,
        browser: Browser,
        /// What the provider sends the browser back with.
        back: String,
        /// The same of a login that another browser has.
        others: String,
    }

    impl Bench {
        fn in_state(errand: &str, state: &str) -> Self {
            let mut relay = Relay::with(PUBLIC, oidc(), BTreeMap::new());
            let begun = |relay: &mut Relay, browser: &mut Browser| {
                let reply = begin(relay, browser, errand);
                relay.provider.authorize(&location(&reply))
            };
            let others = begun(&mut relay, &mut Browser::default());
            let mut browser = Browser::default();
            let back = begun(&mut relay, &mut browser);
            let mut bench = Self { relay, browser, back, others };
            match state {
                "open" => {}
                "late" => bench.relay.pass(Duration::from_secs(cookies::MAX_AGE_SECS)),
                "used" | "refused" => {
                    let kept = bench.browser.clone();
                    let reply = bench.come(if state == "used" { "back" } else { "back with a no" });
                    assert_eq!(reply.status == StatusCode::FORBIDDEN, state == "refused");
                    bench.browser = kept;
                }
                "other browser" => bench.browser = Browser::default(),
                "relay restarted" => {
                    let nonce = core::mem::replace(&mut bench.relay.provider, FakeProvider::new(START));
                    bench.relay = bench.relay.restart();
                    bench.relay.provider = nonce;
                }
                other => panic!("no such state: {other}"),
            }
            bench
        }

        fn state(&self) -> String {
            query(&format!("https://x.example/?{}", self.back)).remove("state").expect("a state")
        }

        fn come(&mut self, event: &str) -> Reply {
            let state = self.state();
            let back = match event {
                "back with a no" => form::encode([("error", "access_denied"), ("state", &*state)]),
                "back with another's" => self.others.clone(),
                "back with no state" => "code=c0de".into(),
                "back with nothing" => String::new(),
                "back with no code" => form::encode([("state", &*state)]),
                "back from another provider" => format!("{}&iss=https%3A%2F%2Felsewhere.example", self.back),
                _ => self.back.clone(),
            };
            match event {
                "back, and the provider is gone" => {
                    self.relay.provider.instead.insert("/token", Err(FetchError::TimedOut));
                }
                "back, and the provider refuses" => {
                    let refusal = json!({"error": "invalid_grant"}).to_string();
                    self.relay.provider.instead.insert("/token", Ok((400, refusal)));
                }
                "back, and the token is forged" => self.relay.provider.forged = Some(vec![0; 64]),
                "back, and it is another's answer" => self.relay.provider.claims = json!({"nonce": "another"}),
                _ => {}
            }
            self.browser.get(&mut self.relay, &format!("/callback?{back}"))
        }

        fn give(mut self, event: &str) -> String {
            let logins = |bench: &Self| bench.relay.grants.logins.len();
            if event == "an answer to nobody" {
                self.relay.event(Event::Fetched { fetch: FetchId(999), result: Err(FetchError::TimedOut) });
                return if self.relay.replies.is_empty() { ".".into() } else { panic!("{:?}", self.relay.replies) };
            }
            let reply = self.come(event);
            assert_eq!(logins(&self), 0, "nobody is left waiting");
            format!("{}{}", reply.status.as_u16(), goes_on(&reply))
        }
    }

    /// What follows each event, in the order of [`STATES`].
    const TABLE: &[(&str, [&str; 6])] = &[
        // open, late, used, other browser, relay restarted, refused
        ("back", ["→", "400", "400", "400", "⇢", "400"]),
        ("back with a no", ["403", "400", "400", "400", "403", "400"]),
        ("back with another's", ["400"; 6]),
        ("back with no state", ["400"; 6]),
        ("back with nothing", ["400"; 6]),
        ("back with no code", ["403", "400", "400", "400", "403", "400"]),
        ("back from another provider", ["502", "400", "400", "400", "502", "400"]),
        ("back, and the provider is gone", ["503", "400", "400", "400", "503", "400"]),
        ("back, and the provider refuses", ["403", "400", "400", "400", "403", "400"]),
        ("back, and the token is forged", ["502", "400", "400", "400", "502", "400"]),
        ("back, and it is another's answer", ["502", "400", "400", "400", "502", "400"]),
        ("an answer to nobody", ["."; 6]),
    ];

    #[test]
    fn every_event_in_every_state_of_every_errand() {
        for (errand, end) in ERRANDS {
            let spared = [SPARED, &[("it is at the embedded login", &["Verified"][..])]].concat();
            let rows = rows(TABLE, errand, end);
            Table { states: STATES, rows: &rows, kinds: KINDS, spared: &spared }.check(
                |state| Bench::in_state(errand, state),
                |bench| look(&bench.relay, &bench.browser, &bench.state()),
                Bench::give,
            );
        }
    }
}

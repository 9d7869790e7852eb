//! The person's own page: who sees what, what a form may do, and when it is acknowledged.

use super::*;
use crate::id::{ConnId, DeviceName};

const AGENT: &str = "mcp-local-tunnel-agent";

impl Browser {
    /// Signs `user` in to the page and returns it.
    pub(super) fn open_account(&mut self, relay: &mut Relay, user: &str) -> Reply {
        let page = self.get(relay, "/account");
        assert!(html(&page).contains("value=\"sign-in\""), "{}", html(&page));
        let reply = self.order(relay, &[("action", "sign-in")]);
        let page = self.get(relay, &location(&reply));
        let password = format!("{user}'s password");
        let reply = self.post(relay, "/login", &fields(&page, &[("user", user), ("password", &password)]));
        assert_eq!(location(&reply), "https://relay.example/account");
        self.get(relay, "/account")
    }

    fn order(&mut self, relay: &mut Relay, fields: &[(&str, &str)]) -> Reply {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        self.post(relay, "/account", &fields)
    }
}

/// The token that the page's forms bring back.
fn csrf(page: &Reply) -> String {
    fields(page, &[]).into_iter().find(|(name, _)| name == "csrf").expect("the page has forms").1
}

/// The grants that the page lists.
fn listed(page: &Reply) -> Vec<String> {
    fields(page, &[]).into_iter().filter(|(name, _)| name == "grant").map(|(_, id)| id).collect()
}

/// An agent's sign-in.
fn agent(relay: &mut Relay) -> Tokens {
    let code = relay.code(AGENT, LOOPBACK);
    let reply = relay.redeem(AGENT, LOOPBACK, &code);
    Tokens::new(AGENT.into(), &reply)
}

fn family(relay: &Relay, tokens: &Tokens, path: &str) -> FamilyId {
    relay.open(&tokens.access, path).expect("the token is good").family
}

fn up(relay: &mut Relay, conn: u64, family: &FamilyId, device: &str) {
    relay.event(Event::TunnelUp { conn: ConnId(conn), family: family.clone(), device: DeviceName::new(device) });
}

#[test]
fn tunnel_that_comes_up_as_its_grant_ends_is_ended() {
    let mut relay = Relay::new();
    let device = agent(&mut relay);
    let id = family(&relay, &device, "/ws");
    up(&mut relay, 1, &id, "laptop");
    assert_eq!(relay.revoked(), []);
    relay.post("/revoke", &[("client_id", AGENT), ("token", &device.refresh)]);
    assert_eq!(relay.revoked(), core::slice::from_ref(&id));
    up(&mut relay, 2, &id, "laptop");
    assert_eq!(relay.revoked(), [id], "the gate had let it in before");
}

#[test]
fn page_shows_ones_own_devices_and_clients_and_nobody_elses() {
    let mut relay = Relay::new();
    let client = relay.tokens();
    let device = agent(&mut relay);
    let device = family(&relay, &device, "/ws");
    up(&mut relay, 1, &device, "ann's <laptop>");
    let mut bob = Browser::default();
    let page = bob.open_account(&mut relay, "bob");
    assert_eq!(listed(&page), Vec::<String>::new());
    let mut ann = Browser::default();
    let page = ann.open_account(&mut relay, "ann");
    let ids = listed(&page);
    let client = family(&relay, &client, "/mcp");
    assert_eq!(ids, [device.as_str(), client.as_str()], "{}", html(&page));
    for shown in ["ann's &lt;laptop&gt;", "Connected now", "Claude", "claude.ai", "just now"] {
        assert!(html(&page).contains(shown), "{shown}: {}", html(&page));
    }
    relay.event(Event::TunnelDown { conn: ConnId(1) });
    relay.pass(Duration::from_secs(120));
    let page = ann.get(&mut relay, "/account");
    assert!(!html(&page).contains("Connected now") && html(&page).contains("2 minutes ago"), "{}", html(&page));
}

#[test]
fn page_and_cookie_are_protected() {
    let mut relay = Relay::new();
    let mut ann = Browser::default();
    let page = ann.get(&mut relay, "/account");
    let page_headers = |page: &Reply| {
        assert_eq!(page.headers["cache-control"], "no-store");
        assert!(page.headers["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"));
    };
    page_headers(&page);
    let reply = ann.order(&mut relay, &[("action", "sign-in")]);
    let login = ann.get(&mut relay, &location(&reply));
    let reply = ann.post(&mut relay, "/login", &fields(&login, &[("user", "ann"), ("password", "ann's password")]));
    let set: Vec<_> = reply.headers.get_all(SET_COOKIE).iter().map(|line| line.to_str().unwrap()).collect();
    let session = set.iter().find(|line| line.starts_with("__Host-mlt-account=")).expect("a session");
    for attribute in ["; Secure", "; HttpOnly", "; SameSite=Lax", "; Path=/", "; Max-Age=1800"] {
        assert!(session.contains(attribute), "{session}");
    }
    assert!(!session.contains("Domain") && !session.contains("ann"), "{session}");
    assert!(set.iter().any(|line| line.contains("mlt-login") && line.contains("Max-Age=0")), "{set:?}");
    page_headers(&ann.get(&mut relay, "/account"));
}

#[test]
fn revoked_grant_is_dead_once_it_is_acknowledged() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    let family = family(&relay, &tokens, "/mcp");
    let mut ann = Browser::default();
    let page = ann.open_account(&mut relay, "ann");
    relay.hold_writes();
    let fields: Vec<_> = [("csrf", csrf(&page).as_str()), ("action", "revoke"), ("grant", family.as_str())]
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .into();
    let mut headers = ann.headers();
    headers.extend(form_headers());
    headers.insert(HeaderName::from_static("sec-fetch-site"), HeaderValue::from_static("same-origin"));
    let body = form::encode(fields.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let exchange = relay.send(Method::POST, "/account", headers, &body);
    assert!(relay.replies.is_empty() && relay.others.is_empty(), "nothing is acknowledged before it is written");
    relay.let_go();
    assert_eq!(location(&relay.answer(exchange)), "https://relay.example/account");
    assert_eq!(relay.revoked(), [family]);
    assert_eq!(relay.open(&tokens.access, "/mcp"), Err(TokenError::Revoked));
    assert_eq!(listed(&ann.get(&mut relay, "/account")), Vec::<String>::new());
    assert_refused(&relay.refresh(&tokens.client, &tokens.refresh), 400, "invalid_grant");
    let relay = relay.restart();
    assert_eq!(relay.open(&tokens.access, "/mcp"), Err(TokenError::Revoked));
}

#[test]
fn everything_ends_at_once_and_nobody_elses() {
    let mut relay = Relay::new();
    let (first, second, device) = (relay.tokens(), relay.tokens(), agent(&mut relay));
    let client = relay.register(WEB);
    let unredeemed = relay.code(&client, WEB);
    let create = |user: &str| AdminCommand::TokenCreate {
        user: user.into(),
        role: Role::Client,
        scope: String::new(),
        label: "cron".into(),
        lifetime_secs: 3_600,
    };
    let (minted, bobs) = (relay.admin(create("ann")), relay.admin(create("bob")));
    let mut ann = Browser::default();
    let page = ann.open_account(&mut relay, "ann");
    assert_eq!(listed(&page).len(), 4);
    let reply = ann.order(&mut relay, &[("csrf", &csrf(&page)), ("action", "revoke-all")]);
    assert_eq!(location(&reply), "https://relay.example/account");
    assert_eq!(relay.revoked().len(), 4);
    for (token, path) in
        [(&first.access, "/mcp"), (&second.access, "/mcp"), (&device.access, "/ws"), (&text(&minted, "token"), "/mcp")]
    {
        assert_eq!(relay.open(token, path), Err(TokenError::Revoked));
    }
    assert_refused(&relay.redeem(&client, WEB, &unredeemed), 400, "invalid_grant");
    assert!(relay.open(&text(&bobs, "token"), "/mcp").is_ok());
}

#[test]
fn tokens_that_are_being_written_do_not_escape() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    let code = relay.code(&client, WEB);
    let mut ann = Browser::default();
    let page = ann.open_account(&mut relay, "ann");
    relay.hold_writes();
    let redeeming = relay.send_form("/token", &redemption(&client, WEB, &code));
    let mut headers = ann.headers();
    headers.extend(form_headers());
    headers.insert(HeaderName::from_static("sec-fetch-site"), HeaderValue::from_static("same-origin"));
    let body = form::encode([("csrf", csrf(&page).as_str()), ("action", "revoke-all")]);
    let revoking = relay.send(Method::POST, "/account", headers, &body);
    relay.let_go();
    let tokens = Tokens::new(client, &relay.answer(redeeming));
    assert_eq!(relay.answer(revoking).status, StatusCode::SEE_OTHER);
    assert_eq!(relay.open(&tokens.access, "/mcp"), Err(TokenError::Revoked));
}

#[test]
fn foreign_grant_is_not_touched() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    let family = family(&relay, &tokens, "/mcp");
    let mut bob = Browser::default();
    let page = bob.open_account(&mut relay, "bob");
    let csrf = csrf(&page);
    let foreign = bob.order(&mut relay, &[("csrf", &csrf), ("action", "revoke"), ("grant", family.as_str())]);
    let unknown = bob.order(&mut relay, &[("csrf", &csrf), ("action", "revoke"), ("grant", "nothing")]);
    assert_eq!((foreign.status, &foreign.headers), (unknown.status, &unknown.headers), "they look alike");
    assert!(relay.revoked().is_empty() && relay.open(&tokens.access, "/mcp").is_ok());
}

#[test]
fn forged_forms_change_nothing() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    let mut ann = Browser::default();
    let page = ann.open_account(&mut relay, "ann");
    let good = csrf(&page);
    let foreign = csrf(&Browser::default().open_account(&mut relay, "bob"));
    let order = |csrf: &str| vec![("csrf".to_string(), csrf.to_string()), ("action".into(), "revoke-all".into())];
    for wrong in ["", "x", &foreign] {
        assert_eq!(ann.post(&mut relay, "/account", &order(wrong)).status, StatusCode::FORBIDDEN);
    }
    for (name, value) in
        [("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site"), ("origin", "https://evil.example")]
    {
        let mut headers = ann.headers();
        headers.extend(form_headers());
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        assert_eq!(ann.post_with(&mut relay, "/account", &order(&good), headers).status, StatusCode::FORBIDDEN);
    }
    // A sign-in by the attacker's page would show them nothing, and is refused all the same.
    let mut headers = form_headers();
    headers.insert(HeaderName::from_static("sec-fetch-site"), HeaderValue::from_static("cross-site"));
    let sign_in = [("action".to_string(), "sign-in".to_string())];
    assert_eq!(ann.post_with(&mut relay, "/account", &sign_in, headers).status, StatusCode::FORBIDDEN);
    let stranger = Browser::default().post(&mut relay, "/account", &order(&good));
    assert_eq!(stranger.status, StatusCode::FORBIDDEN);
    assert!(relay.revoked().is_empty() && relay.open(&tokens.access, "/mcp").is_ok());
    assert_eq!(ann.order(&mut relay, &[("csrf", &good), ("action", "nonsense")]).status, StatusCode::BAD_REQUEST);
    assert_eq!(ann.order(&mut relay, &[("csrf", &good), ("action", "revoke-all")]).status, StatusCode::SEE_OTHER);
}

#[test]
fn session_ends_by_time_by_sign_out_and_with_its_person() {
    let mut relay = Relay::new();
    let mut ann = Browser::default();
    ann.open_account(&mut relay, "ann");
    let signed_in =
        |relay: &mut Relay, browser: &mut Browser| html(&browser.get(relay, "/account")).contains("Signed in");
    relay.pass(Duration::from_secs(1_799));
    assert!(signed_in(&mut relay, &mut ann));
    relay.pass(Duration::from_secs(1));
    assert!(!signed_in(&mut relay, &mut ann));

    let page = ann.open_account(&mut relay, "ann");
    let (mut kept, csrf) = (ann.clone(), csrf(&page));
    let reply = ann.order(&mut relay, &[("csrf", &csrf), ("action", "sign-out")]);
    assert_eq!(location(&reply), "https://relay.example/account");
    assert!(!ann.cookies.contains_key("__Host-mlt-account") && !signed_in(&mut relay, &mut ann));
    assert!(!signed_in(&mut relay, &mut kept), "wherever else the cookie is");
    let order = [("csrf", csrf.as_str()), ("action", "revoke-all")];
    assert_eq!(kept.order(&mut relay, &order).status, StatusCode::FORBIDDEN);
    let mut relay = relay.restart();
    assert!(!signed_in(&mut relay, &mut kept), "over a restart too");
    ann.open_account(&mut relay, "ann");
    assert!(signed_in(&mut relay, &mut ann) && !signed_in(&mut relay, &mut kept));

    let bob = LocalUser { name: "bob".into(), password_hash: String::new() };
    relay.grants.settings.login = Login::Local(Local { users: vec![bob] });
    assert!(!signed_in(&mut relay, &mut ann), "taken off the configuration");
}

#[test]
fn login_for_a_client_opens_no_account_and_the_reverse() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    let mut ann = Browser::default();
    ann.sign_in(&mut relay, &authorization(&client, WEB));
    assert!(!ann.cookies.keys().any(|name| name.contains("account")));
    let page = ann.open_account(&mut relay, "ann");
    let code = ann.post(&mut relay, "/consent", &fields(&page, &[("decision", "allow")]));
    assert_eq!(code.status, StatusCode::BAD_REQUEST);
}

#[test]
fn provider_signs_people_in_to_their_page_too() {
    let mut relay = Relay::with(PUBLIC, oidc(), BTreeMap::new());
    let mut ann = Browser::default();
    let reply = ann.order(&mut relay, &[("action", "sign-in")]);
    relay.provider.claims["name"] = json!("Ann <b>");
    let target = format!("/callback?{}", relay.provider.authorize(&location(&reply)));
    let reply = ann.get(&mut relay, &target);
    assert_eq!(location(&reply), "https://relay.example/account");
    let page = ann.get(&mut relay, "/account");
    assert!(html(&page).contains("Ann &lt;b&gt;"), "{}", html(&page));
    let reply = ann.order(&mut relay, &[("csrf", &csrf(&page)), ("action", "sign-out")]);
    assert_eq!(reply.status, StatusCode::SEE_OTHER);
    let reply = ann.order(&mut relay, &[("action", "sign-in")]);
    let state = query(&location(&reply)).remove("state").unwrap();
    let denied = form::append_query("/callback", [("error", "access_denied"), ("state", state.as_str())]);
    let reply = ann.get(&mut relay, &denied);
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    assert!(html(&reply).contains("href=\"https://relay.example/account\""), "{}", html(&reply));
}

#[test]
fn flapping_agent_does_not_wear_the_store_out() {
    let mut relay = Relay::new();
    let tokens = agent(&mut relay);
    let family = family(&relay, &tokens, "/ws");
    relay.hold_writes();
    let flap = |relay: &mut Relay, from: u64| {
        for conn in from..from + 200 {
            up(relay, conn, &family, &format!("name {conn}"));
            relay.event(Event::TunnelDown { conn: ConnId(conn) });
            relay.pass(Duration::from_secs(1));
        }
    };
    flap(&mut relay, 0);
    let writes = |relay: &mut Relay| {
        let held = relay.held.as_ref().map_or(0, Vec::len);
        relay.let_go();
        relay.hold_writes();
        held
    };
    assert_eq!(writes(&mut relay), 0, "the sign-in was written just now");
    relay.pass(Duration::from_secs(3_600));
    assert_eq!(writes(&mut relay), 1, "within the hour");
    flap(&mut relay, 1_000);
    assert_eq!(writes(&mut relay), 0);
    relay.let_go();
    let tokens = Tokens::new(AGENT.into(), &relay.refresh(AGENT, &tokens.refresh));
    let mut relay = relay.restart();
    let list = relay.admin(AdminCommand::GrantList { user: None });
    assert_eq!(list["grants"][0]["device"], "name 1199", "what was seen since is in the next record: {list}");
    assert!(relay.refresh(AGENT, &tokens.refresh).status.is_success());
}

#[test]
fn what_is_seen_during_a_write_is_not_lost() {
    let mut relay = Relay::new();
    let tokens = agent(&mut relay);
    let family = family(&relay, &tokens, "/ws");
    relay.hold_writes();
    let refreshing = relay.send_form("/token", &refresh(AGENT, &tokens.refresh));
    up(&mut relay, 1, &family, "laptop");
    relay.let_go();
    assert!(relay.answer(refreshing).status.is_success());
    let list = relay.admin(AdminCommand::GrantList { user: None });
    assert_eq!((&list["grants"][0]["device"], &list["grants"][0]["connected"]), (&json!("laptop"), &json!(true)));
}

#[test]
fn records_without_names_are_read() {
    let mut relay = Relay::new();
    relay.tokens();
    let mut store = relay.store.clone();
    for value in store.values_mut() {
        let mut record: Value = serde_json::from_slice(value).expect("JSON");
        assert!(record.as_object_mut().expect("an object").remove("about").is_some());
        *value = record.to_string().into_bytes();
    }
    let mut relay = Relay::with(PUBLIC, local(), store);
    let page = Browser::default().open_account(&mut relay, "ann");
    assert_eq!(listed(&page).len(), 1);
    assert!(html(&page).contains("A client without a name"), "{}", html(&page));
}

/// Every form of the page in every state of who is signed in to it. What follows: the status, what the page shows, and
/// whether a grant ends.
mod table {
    use super::*;
    use crate::table::Table;

    const STATES: [(&str, &str); 6] = [
        ("stranger", "a way in, 0 minutes, 0 cookies, 2 users"),
        ("signed in", "the grants, 0 minutes, 1 cookies, 2 users"),
        ("signed out", "a way in, 0 minutes, 1 cookies, 2 users"),
        ("run out", "a way in, 30 minutes, 1 cookies, 2 users"),
        ("relay restarted", "a way in, 0 minutes, 1 cookies, 2 users, new relay"),
        ("taken off", "a way in, 0 minutes, 1 cookies, 1 users"),
    ];

    struct Bench {
        relay: Relay,
        /// What the browser has of the page, also where that is good for nothing any more.
        ann: Browser,
        csrf: String,
        own: FamilyId,
        foreign: FamilyId,
    }

    impl Bench {
        fn in_state(state: &str) -> Self {
            let mut relay = Relay::new();
            let tokens = relay.tokens();
            let own = family(&relay, &tokens, "/mcp");
            let create = AdminCommand::TokenCreate {
                user: "bob".into(),
                role: Role::Client,
                scope: String::new(),
                label: "cron".into(),
                lifetime_secs: 86_400,
            };
            let token = text(&relay.admin(create), "token");
            let foreign = relay.open(&token, "/mcp").expect("the token is good").family;
            let mut ann = Browser::default();
            let mut csrf = csrf(&ann.open_account(&mut relay, "ann"));
            match state {
                "stranger" => (ann, csrf) = (Browser::default(), csrf.to_uppercase()),
                "signed in" => {}
                "signed out" => drop(ann.clone().order(&mut relay, &[("csrf", &csrf), ("action", "sign-out")])),
                "run out" => relay.pass(Duration::from_secs(1_800)),
                "relay restarted" => relay = relay.restart(),
                "taken off" => {
                    let bob = LocalUser { name: "bob".into(), password_hash: "hash of bob's password".into() };
                    relay.grants.settings.login = Login::Local(Local { users: vec![bob] });
                }
                other => panic!("no such state: {other}"),
            }
            relay.revoked();
            Self { relay, ann, csrf, own, foreign }
        }

        /// How late it is, what the browser has, and what there is at the relay.
        fn look(&mut self) -> String {
            let minutes = self.relay.now.unix.saturating_since(UnixTime::from_secs(START)).as_secs() / 60;
            let (cookies, users) = (
                self.ann.cookies.len(),
                match &self.relay.grants.settings.login {
                    Login::Local(local) => local.users.len(),
                    Login::Oidc(_) => 0,
                },
            );
            let new = if self.relay.next_exchange == 0 { ", new relay" } else { "" };
            let page = self.ann.get(&mut self.relay, "/account");
            let shows = if html(&page).contains("value=\"sign-in\"") { "a way in" } else { "the grants" };
            format!("{shows}, {minutes} minutes, {cookies} cookies, {users} users{new}")
        }

        fn give(mut self, event: &str) -> String {
            let (own, foreign, csrf) = (self.own.to_string(), self.foreign.to_string(), self.csrf.clone());
            let mut order = |fields: &[(&str, &str)]| self.ann.order(&mut self.relay, fields);
            let reply = match event {
                "page" => self.ann.get(&mut self.relay, "/account"),
                "sign-in" => order(&[("action", "sign-in")]),
                "sign-out" => order(&[("csrf", &csrf), ("action", "sign-out")]),
                "revoke own" => order(&[("csrf", &csrf), ("action", "revoke"), ("grant", &own)]),
                "revoke another's" => order(&[("csrf", &csrf), ("action", "revoke"), ("grant", &foreign)]),
                "revoke all" => order(&[("csrf", &csrf), ("action", "revoke-all")]),
                "nonsense" => order(&[("csrf", &csrf), ("action", "nonsense")]),
                "no token" => order(&[("action", "revoke-all")]),
                "another's token" => {
                    let page = Browser::default().open_account(&mut self.relay, "bob");
                    let csrf = super::csrf(&page);
                    self.ann.order(&mut self.relay, &[("csrf", &csrf), ("action", "revoke-all")])
                }
                "from elsewhere" => {
                    let mut headers = self.ann.headers();
                    headers.extend(form_headers());
                    headers.insert(HeaderName::from_static("sec-fetch-site"), HeaderValue::from_static("cross-site"));
                    let fields = [("csrf".to_string(), csrf), ("action".to_string(), "revoke-all".to_string())];
                    self.ann.post_with(&mut self.relay, "/account", &fields, headers)
                }
                other => panic!("no such event: {other}"),
            };
            let shown = match (event, html(&reply).contains("value=\"sign-in\"")) {
                ("page", true) => " a way in",
                ("page", false) => " the grants",
                _ => "",
            };
            let ended: Vec<FamilyId> = self.relay.revoked();
            let ended = if ended.is_empty() { "" } else { ", own ends" };
            assert!(self.relay.families_of_bob(&self.foreign), "another's grant is never touched");
            format!("{}{shown}{ended}", reply.status.as_u16())
        }
    }

    impl Relay {
        fn families_of_bob(&self, foreign: &FamilyId) -> bool {
            self.grants.families.known.contains_key(foreign)
        }
    }

    /// What follows each event, in the order of [`STATES`].
    const TABLE: &[(&str, [&str; 6])] = &[
        // stranger, signed in, signed out, run out, relay restarted, taken off
        ("page", ["200 a way in", "200 the grants", "200 a way in", "200 a way in", "200 a way in", "200 a way in"]),
        ("sign-in", ["303"; 6]),
        ("sign-out", ["403", "303", "403", "403", "403", "403"]),
        ("revoke own", ["403", "303, own ends", "403", "403", "403", "403"]),
        ("revoke another's", ["403", "303", "403", "403", "403", "403"]),
        ("revoke all", ["403", "303, own ends", "403", "403", "403", "403"]),
        ("nonsense", ["403", "400", "403", "403", "403", "403"]),
        ("no token", ["403"; 6]),
        ("another's token", ["403"; 6]),
        ("from elsewhere", ["403"; 6]),
    ];

    const SPARED: &[(&str, &[&str])] = &[
        ("no request to the page: table_grants", &["TokenRefused", "EndSession", "TunnelUp", "Used", "TunnelDown"]),
        ("at the provider: table_login", &["Fetched"]),
        ("time is a state here", TIME),
        ("table_admin", &["Admin"]),
        ("table_admin", ORDERS),
    ];

    #[test]
    fn every_event_in_every_state() {
        Table { states: STATES, rows: TABLE, kinds: KINDS, spared: SPARED }.check(
            Bench::in_state,
            Bench::look,
            Bench::give,
        );
    }
}

//! What the audit says of sign-ins and grants, and what it never says.

use super::*;
use crate::id::UserId;

impl Relay {
    /// The lines since the last call, each as its event and what is asked of it.
    fn lines(&mut self) -> Vec<Value> {
        core::mem::take(&mut self.audit)
    }

    fn events(&mut self) -> Vec<String> {
        self.lines().iter().map(|line| text(line, "event")).collect()
    }
}

fn ann() -> String {
    Keyring::made(&mut Seeded::new(1), UnixTime::default()).sealer().pseudonym(&UserId::new("local:ann"))
}

#[test]
fn sign_in_grant_refresh_and_revocation_have_lines() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    let principal = relay.open(&tokens.access, "/mcp").unwrap();
    let (grant, client) = (principal.family.as_str(), principal.client.as_str());
    let lines = relay.lines();
    let time = "2027-01-15T08:00:00.000Z";
    assert_eq!(
        lines,
        [
            json!({"time": time, "event": "sign-in", "user": ann(), "actor": client, "role": "client", "by": "password",
                "address": "192.0.2.7"}),
            json!({"time": time, "event": "grant", "user": ann(), "grant": grant, "client": "Claude", "actor": client,
                "role": "client", "scope": "mcp:tools mcp:read tunnel:manage", "address": "192.0.2.7"}),
        ]
    );
    let next = Tokens::new(tokens.client.clone(), &relay.refresh(&tokens.client, &tokens.refresh));
    let line = relay.lines().pop().unwrap();
    assert_eq!((text(&line, "event"), text(&line, "address")), ("refresh".into(), "192.0.2.7".into()));
    relay.post("/revoke", &[("token", &next.refresh), ("client_id", &tokens.client)]);
    let line = relay.lines().pop().unwrap();
    assert_eq!(
        (text(&line, "event"), text(&line, "by"), text(&line, "grant")),
        ("revocation".into(), "client".into(), grant.into())
    );
}

#[test]
fn refusals_have_lines_with_their_address() {
    let mut relay = Relay::new();
    let mut browser = Browser::default();
    let client = relay.register(WEB);
    let page = browser.get(&mut relay, &authorization(&client, WEB));
    browser.post(&mut relay, "/consent", &fields(&page, &[("decision", "deny")]));
    let line = relay.lines().pop().unwrap();
    assert_eq!((text(&line, "reason"), text(&line, "address")), ("consent-denied".into(), "192.0.2.7".into()));

    let page = browser.get(&mut relay, &authorization(&client, WEB));
    let reply = browser.agree(&mut relay, &page);
    let page = browser.get(&mut relay, &location(&reply));
    for user in ["ann", "eve"] {
        browser.post(&mut relay, "/login", &fields(&page, &[("user", user), ("password", "a guess")]));
    }
    let lines = relay.lines();
    assert_eq!(lines[0]["user"], ann(), "whose password was tried");
    assert!(lines[1].get("user").is_none(), "a name that nobody has may be anything, a password too");
    for line in &lines {
        assert_eq!((text(line, "event"), text(line, "reason")), ("sign-in-failed".into(), "wrong-password".into()));
    }

    let tokens = relay.tokens();
    relay.refresh(&tokens.client, &tokens.refresh);
    relay.pass(Duration::from_secs(121));
    relay.lines();
    assert_refused(&relay.refresh(&tokens.client, &tokens.refresh), 400, "invalid_grant");
    let lines = relay.lines();
    let reasons: Vec<_> = lines
        .iter()
        .map(|line| (line["event"].as_str().unwrap(), line["by"].as_str().or(line["reason"].as_str()).unwrap()))
        .collect();
    assert!(lines[0]["address"] == "192.0.2.7" && lines[0]["user"] == ann(), "{}", lines[0]);
    assert_eq!(reasons, [("refusal", "refresh-reused"), ("revocation", "relay"), ("refusal", "invalid_grant")]);
}

#[test]
fn provider_that_says_no_has_a_line() {
    let mut relay = Relay::with(PUBLIC, oidc(), BTreeMap::new());
    let mut browser = Browser::default();
    let client = relay.register(WEB);
    let page = browser.get(&mut relay, &authorization(&client, WEB));
    let reply = browser.agree(&mut relay, &page);
    let state = query(&location(&reply)).remove("state").unwrap();
    browser.get(&mut relay, &form::append_query("/callback", [("error", "access_denied"), ("state", state.as_str())]));
    let line = relay.lines().pop().unwrap();
    assert_eq!(text(&line, "event"), "sign-in-failed");
    assert_eq!(text(&line, "reason"), "the sign-in was cancelled at the identity provider");
    assert_eq!(text(&line, "address"), "192.0.2.7");
}

#[test]
fn account_that_may_not_in_has_a_line_with_who_and_where() {
    let Login::Oidc(provider) = oidc() else { panic!("a provider") };
    let mut relay = Relay::with(PUBLIC, Login::Oidc(Oidc { allow: vec!["bob-8".into()], ..provider }), BTreeMap::new());
    let client = relay.register(WEB);
    super::login::provider_login(&mut relay, &mut Browser::default(), &authorization(&client, WEB));
    let line = relay.lines().pop().unwrap();
    let ann = Keyring::made(&mut Seeded::new(1), UnixTime::default()).sealer();
    let ann = ann.pseudonym(&UserId::from(format!("{ISSUER}#ann-7")));
    assert_eq!((text(&line, "user"), text(&line, "address")), (ann, "192.0.2.7".into()));
}

#[test]
fn refused_tokens_of_a_client_have_lines_with_whose_they_are() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    let principal = relay.open(&tokens.access, "/mcp").unwrap();
    let (grant, client) = (principal.family.as_str(), principal.client.as_str());
    relay.post("/revoke", &[("token", &tokens.refresh), ("client_id", &tokens.client)]);
    relay.lines();
    let whose = |line: &Value| {
        let member = |name| line[name].as_str().unwrap_or("-").to_string();
        [member("reason"), member("user"), member("grant"), member("actor"), member("address")]
    };
    relay.refresh(&tokens.client, &tokens.refresh);
    let line = relay.lines().pop().unwrap();
    assert_eq!(whose(&line), ["invalid_grant", &ann(), grant, client, "192.0.2.7"]);
    relay.redeem(&tokens.client, WEB, "no-code");
    assert_eq!(whose(&relay.lines().pop().unwrap()), ["invalid_grant", "-", "-", client, "192.0.2.7"]);
    let other = relay.register(LOOPBACK);
    relay.post("/revoke", &[("token", &tokens.refresh), ("client_id", &other)]);
    let line = relay.lines().pop().unwrap();
    let [reason, user, of, actor, address] = whose(&line);
    assert_eq!([reason, user, of, address], ["invalid_grant", &ann(), grant, "192.0.2.7"]);
    assert!(actor != client && line.get("client").is_none(), "who asked is another: {line}");

    let code = relay.code(&tokens.client, WEB);
    relay.redeem(&tokens.client, WEB, &code);
    relay.lines();
    relay.redeem(&tokens.client, WEB, &code);
    let line = relay.lines().remove(0);
    assert!(line["reason"] == "code-reused" && line["user"] == ann() && line["address"] == "192.0.2.7", "{line}");
}

#[test]
fn operators_commands_have_lines() {
    let mut relay = Relay::new();
    let create = AdminCommand::TokenCreate {
        user: "ann".into(),
        role: Role::Agent,
        scope: String::new(),
        label: "nas".into(),
        lifetime_secs: 60,
    };
    let id = text(&relay.admin(create), "id");
    let lines = relay.lines();
    assert_eq!((text(&lines[0], "command"), text(&lines[0], "user")), ("token-create".into(), ann()));
    assert_eq!(
        (text(&lines[1], "event"), text(&lines[1], "by"), text(&lines[1], "grant")),
        ("grant".into(), "operator".into(), id.clone())
    );
    assert!(lines[1].get("address").is_none(), "it came from no address: {}", lines[1]);
    relay.event(Event::Admin { job: JobId(5), command: AdminCommand::GrantRevoke { id: id.clone() } });
    relay.event(Event::Admin { job: JobId(6), command: AdminCommand::GrantRevokeAll { user: "ann".into() } });
    let lines = relay.lines();
    assert_eq!((text(&lines[0], "command"), text(&lines[0], "grant")), ("grants-revoke".into(), id));
    assert_eq!((text(&lines[1], "event"), text(&lines[1], "by")), ("revocation".into(), "operator".into()));
    assert_eq!(text(&lines[2], "command"), "grants-revoke-all");
}

#[test]
fn limit_that_is_reached_is_told_once_until_it_has_passed() {
    let mut relay = Relay::new();
    let flood = |relay: &mut Relay| {
        for _ in 0..150 {
            relay.ask(Method::GET, "/authorize?client_id=x", HeaderMap::new(), "");
        }
        let lines = relay.lines();
        lines.iter().filter(|line| line["reason"] == "too-many-authorizations").count()
    };
    assert_eq!(flood(&mut relay), 1);
    relay.pass(Duration::from_secs(30));
    assert_eq!(flood(&mut relay), 0);
    relay.pass(Duration::from_secs(200));
    assert_eq!(flood(&mut relay), 1);
}

#[test]
fn nobody_floods_the_audit_from_outside() {
    let mut relay = Relay::new();
    let guess = [("grant_type", "refresh_token"), ("client_id", "nobody"), ("refresh_token", "x")];
    let (mut told, mut untold) = (0, 0);
    for round in 0..100_u64 {
        for _ in 0..100 {
            relay.post("/token", &guess);
        }
        let lines = relay.lines();
        told += lines.len();
        untold += lines.iter().filter_map(|line| line["untold"].as_u64()).sum::<u64>();
        relay.pass(Duration::from_secs(1));
        assert!(told <= 620, "{told} in round {round}");
    }
    relay.pass(Duration::from_secs(10));
    relay.post("/token", &guess);
    untold += relay.lines()[0]["untold"].as_u64().expect("what was left out is counted");
    assert!(untold > 9_000, "{untold}");
    relay.tokens();
    assert_eq!(relay.events(), ["sign-in", "grant"], "who signs in has a line all the same");
}

#[test]
fn no_line_has_a_secret_or_a_name() {
    let mut relay = Relay::new();
    let mut all: Vec<Value> = Vec::new();
    let tokens = relay.tokens();
    let next = Tokens::new(tokens.client.clone(), &relay.refresh(&tokens.client, &tokens.refresh));
    relay.redeem(&tokens.client, WEB, "a-code-that-is-none");
    relay.post("/token", &[("grant_type", "refresh_token"), ("client_id", &tokens.client), ("refresh_token", "guess")]);
    relay.post("/revoke", &[("token", &next.access), ("client_id", &tokens.client)]);
    all.append(&mut relay.lines());
    let said = json!(all).to_string();
    for secret in [
        &tokens.access,
        &tokens.refresh,
        &next.access,
        &next.refresh,
        &tokens.client,
        "a-code-that-is-none",
        VERIFIER,
        "guess",
        "ann",
    ] {
        assert!(!said.contains(secret), "{secret}: {said}");
    }
}

#[test]
fn nothing_is_said_when_no_audit_is_kept() {
    let settings = Settings { audit: false, ..settings(PUBLIC, local(), Clients::default()) };
    let mut relay = Relay::new();
    relay.grants = Grants::new(settings, relay.keys.clone(), Vec::new(), Box::new(Seeded::new(3)), relay.now);
    relay.tokens();
    assert_eq!(relay.lines(), Vec::<Value>::new());
}

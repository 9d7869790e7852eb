//! Tokens that the operator makes.

use super::*;

fn create(user: &str, role: Role, lifetime_secs: u64) -> AdminCommand {
    AdminCommand::TokenCreate {
        user: user.into(),
        role,
        scope: String::new(),
        label: "cron\u{202e}".into(),
        lifetime_secs,
    }
}

#[test]
fn minted_token_opens_its_role_until_it_runs_out() {
    let mut relay = Relay::new();
    for (role, opens, shut) in [(Role::Client, "/mcp", "/ws"), (Role::Agent, "/ws", "/mcp")] {
        let answer = relay.admin(create("ann", role, 3_600 * 24 * 365));
        assert_eq!(answer["ok"], true, "{answer}");
        let token = text(&answer, "token");
        let principal = relay.open(&token, opens).unwrap();
        assert_eq!((principal.user.as_str(), principal.role), ("local:ann", role));
        assert_eq!(principal.family_expires, principal.expires);
        assert_eq!(relay.open(&token, shut), Err(TokenError::Audience));
    }
    let token = text(&relay.admin(create("ann", Role::Client, 60)), "token");
    relay.pass(Duration::from_secs(60));
    assert_eq!(relay.open(&token, "/mcp"), Err(TokenError::Expired));
}

#[test]
fn list_shows_everything_but_the_token() {
    let mut relay = Relay::new();
    relay.tokens();
    let made = relay.admin(create("bob", Role::Agent, 7_200));
    let list = relay.admin(AdminCommand::TokenList);
    let expected = json!({"ok": true, "tokens": [{
        "id": made["id"], "user": "local:bob", "role": "agent", "scope": "agent", "label": "cron", "created": START, "expires": START + 7_200,
    }]});
    assert_eq!(list, expected);
}

#[test]
fn minted_token_has_the_scopes_that_were_asked_for() {
    let mut relay = Relay::new();
    let mut mint = |role, scope: &str| {
        let AdminCommand::TokenCreate { user, label, .. } = create("ann", role, 1) else { unreachable!() };
        let command = AdminCommand::TokenCreate { user, role, scope: scope.into(), label, lifetime_secs: 60 };
        (relay.admin(command), relay.grants.families.known.len())
    };
    for (scope, granted) in [
        ("", "mcp:tools mcp:read tunnel:manage"),
        ("mcp:read", "mcp:read"),
        ("tunnel:manage mcp:read", "mcp:read tunnel:manage"),
    ] {
        assert_eq!(mint(Role::Client, scope).0["scope"], granted, "{scope}");
    }
    assert_eq!(mint(Role::Agent, "").0["scope"], "agent");
    for (role, scope) in [(Role::Client, "mcp:reed"), (Role::Client, "mcp:read agent"), (Role::Agent, "mcp:read")] {
        let (answer, families) = mint(role, scope);
        assert!(answer["ok"] == false && families == 4, "{scope}: {answer}");
        assert!(text(&answer, "error").contains("scopes"), "{answer}");
    }
}

#[test]
fn revoked_token_is_dead_and_listed_until_it_would_have_run_out() {
    let mut relay = Relay::new();
    let made = relay.admin(create("ann", Role::Client, 7_200));
    let id = text(&made, "id");
    relay.hold_writes();
    let job = JobId(5);
    relay.event(Event::Admin { job, command: AdminCommand::TokenRevoke { id: id.clone() } });
    assert!(relay.others.is_empty(), "nothing is acknowledged before it is written");
    relay.let_go();
    assert!(
        matches!(relay.others.as_slice(), [Action::Revoked { family }, Action::AdminReply { job: JobId(5), .. }] if family.as_str() == id)
    );
    relay.others.clear();
    assert_eq!(relay.open(&text(&made, "token"), "/mcp"), Err(TokenError::Revoked));
    let mut relay = relay.restart();
    assert_eq!(relay.open(&text(&made, "token"), "/mcp"), Err(TokenError::Revoked));
    assert_eq!(relay.admin(AdminCommand::TokenList)["tokens"][0]["revoked"], START);
    relay.pass(Duration::from_secs(7_200));
    assert_eq!(relay.admin(AdminCommand::TokenList)["tokens"], json!([]));
    assert!(relay.store.is_empty());
}

#[test]
fn impossible_commands_are_refused_in_words() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    let family = relay.open(&tokens.access, "/mcp").unwrap().family;
    for (command, words) in [
        (create("eve", Role::Client, 60), "ann, bob"),
        (create("ann", Role::Client, 0), "1 second"),
        (create("ann", Role::Client, u64::MAX), "3660 days"),
        (AdminCommand::TokenRevoke { id: "nothing".into() }, "no such token"),
        (AdminCommand::TokenRevoke { id: family.as_str().into() }, "no such token"),
    ] {
        let answer = relay.admin(command);
        assert_eq!(answer["ok"], false);
        assert!(text(&answer, "error").contains(words), "{answer}");
    }
    relay.store_fails = true;
    assert_eq!(relay.admin(create("ann", Role::Client, 60))["ok"], false);
    relay.store_fails = false;
    assert_eq!(relay.admin(AdminCommand::TokenList)["tokens"], json!([]));
}

#[test]
fn providers_users_are_named_by_their_claim() {
    let mut relay = Relay::with(PUBLIC, oidc(), BTreeMap::new());
    for name in ["ann-7".to_string(), format!("{ISSUER}#ann-7")] {
        let answer = relay.admin(create(&name, Role::Client, 60));
        assert_eq!(text(&answer, "user"), format!("{ISSUER}#ann-7"));
    }
    assert_eq!(relay.admin(create("", Role::Client, 60))["ok"], false);
}

#[test]
fn grants_are_listed_with_what_their_person_knows_them_by() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    let made = relay.admin(create("bob", Role::Agent, 7_200));
    let family = relay.open(&tokens.access, "/mcp").unwrap().family;
    let client = relay.open(&tokens.access, "/mcp").unwrap().client;
    let of = |user: &str| AdminCommand::GrantList { user: Some(user.into()) };
    let expected = json!({"ok": true, "grants": [{
        "id": family.as_str(), "user": "local:ann", "role": "client", "client": "Claude", "clientId": client.as_str(),
        "scope": "mcp:tools mcp:read tunnel:manage", "redirect": "claude.ai", "connected": false, "granted": START, "used": START, "expires": START + 30 * 86_400,
    }]});
    assert_eq!(relay.admin(of("ann")), expected);
    assert_eq!(relay.admin(of("local:ann")), expected);
    let bobs = relay.admin(of("bob"));
    assert_eq!((&bobs["grants"][0]["id"], &bobs["grants"][0]["label"]), (&made["id"], &json!("cron")));
    assert_eq!(relay.admin(AdminCommand::GrantList { user: None })["grants"].as_array().unwrap().len(), 2);
    assert!(text(&relay.admin(of("eve")), "error").contains("ann, bob"));
}

#[test]
fn grants_are_revoked_one_by_one_or_all_of_a_person() {
    let mut relay = Relay::new();
    let (one, two, three) = (relay.tokens(), relay.tokens(), relay.tokens());
    let family = |relay: &Relay, tokens: &Tokens| relay.open(&tokens.access, "/mcp").unwrap().family;
    let id = family(&relay, &one);
    relay.event(Event::Admin { job: JobId(5), command: AdminCommand::GrantRevoke { id: id.as_str().into() } });
    assert!(matches!(relay.others.pop(), Some(Action::AdminReply { job: JobId(5), json }) if json == r#"{"ok":true}"#));
    assert_eq!(relay.revoked(), [id]);
    let others = relay.admin(AdminCommand::GrantRevokeAll { user: "bob".into() });
    assert_eq!(others, json!({"ok": true, "revoked": 0}));
    let mut rest = [family(&relay, &two), family(&relay, &three)];
    rest.sort();
    relay.hold_writes();
    relay.event(Event::Admin { job: JobId(6), command: AdminCommand::GrantRevokeAll { user: "ann".into() } });
    assert!(relay.others.is_empty(), "nothing is acknowledged before it is written");
    relay.let_go();
    assert!(
        matches!(relay.others.pop(), Some(Action::AdminReply { job: JobId(6), json }) if json == r#"{"ok":true,"revoked":2}"#)
    );
    assert_eq!(relay.revoked(), rest);
    assert!(text(&relay.admin(AdminCommand::GrantRevoke { id: "nothing".into() }), "error").contains("grants list"));
}

#[test]
fn revocation_of_several_that_is_not_kept_is_not_acknowledged() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    relay.store_fails = true;
    let answer = relay.admin(AdminCommand::GrantRevokeAll { user: "ann".into() });
    assert_eq!(answer["ok"], false, "{answer}");
    assert!(relay.open(&tokens.access, "/mcp").is_ok());
    relay.store_fails = false;
    relay.event(Event::Admin { job: JobId(6), command: AdminCommand::GrantRevokeAll { user: "ann".into() } });
    assert_eq!(relay.open(&tokens.access, "/mcp"), Err(TokenError::Revoked));
}

#[test]
fn grants_of_a_person_who_left_can_be_ended() {
    let mut relay = Relay::new();
    relay.tokens();
    let only_bob = Login::Local(Local { users: vec![LocalUser { name: "bob".into(), password_hash: String::new() }] });
    let mut relay = Relay::with(PUBLIC, only_bob, relay.store);
    relay.event(Event::Admin { job: JobId(6), command: AdminCommand::GrantRevokeAll { user: "ann".into() } });
    assert!(
        matches!(relay.others.pop(), Some(Action::AdminReply { json, .. }) if json == r#"{"ok":true,"revoked":1}"#)
    );
    assert_eq!(relay.revoked().len(), 1);
}

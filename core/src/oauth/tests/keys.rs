//! Master keys: rotated, listed, and the end of everything that they sealed.

use super::*;
use crate::limits;
use crate::seal::{Memo, Purpose, Sealer};

/// A relay whose key is the configuration's.
fn configured() -> Relay {
    let keys = Keyring::configured(vec![Sealer::generate(&mut Seeded::new(1))]);
    Relay::at(PUBLIC, local(), BTreeMap::new(), keys, UnixTime::from_secs(START))
}

fn minted(relay: &mut Relay) -> String {
    let command = AdminCommand::TokenCreate {
        user: "ann".into(),
        role: Role::Agent,
        scope: String::new(),
        label: String::new(),
        lifetime_secs: 7_200,
    };
    text(&relay.admin(command), "token")
}

#[test]
fn rotation_signs_nobody_out_also_after_a_restart() {
    let mut relay = Relay::new();
    let ask = json!({"redirect_uris": [WEB], "token_endpoint_auth_method": "client_secret_post"});
    let (_, confidential) = relay.register_with(&ask);
    let tokens = relay.tokens();
    let code = relay.code(&text(&confidential, "client_id"), WEB);
    let mut browser = Browser::default();
    let page = browser.get(&mut relay, &authorization(&tokens.client, WEB));
    let page = location(&browser.agree(&mut relay, &page));
    let login = browser.get(&mut relay, &page);

    let before = relay.keys.keys()[0].key.name();
    let answer = relay.admin(AdminCommand::KeysRotate);
    assert_eq!((answer["ok"].as_bool(), answer["kept"].as_u64()), (Some(true), Some(2)), "{answer}");
    assert_ne!(text(&answer, "id"), before);
    assert_eq!(relay.revoked(), []);

    assert!(relay.open(&tokens.access, "/mcp").is_ok());
    let form = fields(&login, &[("user", "ann"), ("password", "ann's password")]);
    assert_eq!(browser.post(&mut relay, "/login", &form).status, StatusCode::SEE_OTHER, "a page of before is taken");
    let (client, secret) = (text(&confidential, "client_id"), text(&confidential, "client_secret"));
    let mut form = redemption(&client, WEB, &code);
    form.push(("client_secret", &secret));
    assert_eq!(relay.post("/token", &form).status, StatusCode::OK, "a client's secret of before is taken");
    let next = Tokens::new(tokens.client.clone(), &relay.refresh(&tokens.client, &tokens.refresh));
    let old = Snapshot::new(Keyring::made(&mut Seeded::new(1), relay.now.unix).sealer());
    let resource = Resource { public_url: PUBLIC, path: "/mcp" };
    assert_eq!(
        open_access(&next.access, &old, resource, relay.now, &mut Memo::default()),
        Err(TokenError::Invalid),
        "the new key seals"
    );

    let mut relay = relay.restart();
    assert!(relay.open(&tokens.access, "/mcp").is_ok());
    assert_eq!(relay.refresh(&tokens.client, &next.refresh).status, StatusCode::OK);
}

#[test]
fn list_shows_ids_and_ages_and_no_key() {
    let mut relay = Relay::new();
    relay.pass(Duration::from_secs(50));
    relay.admin(AdminCommand::KeysRotate);
    let list = relay.admin(AdminCommand::KeysList);
    let names: Vec<_> = relay.keys.keys().iter().map(|kept| kept.key.name()).collect();
    let expected = json!({"ok": true, "configured": false, "keys": [
        {"id": names[0], "made": START + 50, "seals": true},
        {"id": names[1], "made": START, "seals": false},
    ]});
    assert_eq!(list, expected);
    for kept in relay.keys.keys() {
        assert!(!list.to_string().contains(kept.key.to_text().expose()));
    }
    let list = configured().admin(AdminCommand::KeysList);
    assert!(list["configured"] == true && list["keys"][0].get("made").is_none(), "{list}");
}

#[test]
fn keys_are_bounded_and_no_sign_in_ends_for_that() {
    let mut relay = Relay::new();
    for _ in 1..limits::MAX_KEYS {
        assert_eq!(relay.admin(AdminCommand::KeysRotate)["ok"], true);
    }
    let answer = relay.admin(AdminCommand::KeysRotate);
    assert!(answer["ok"] == false && text(&answer, "error").contains("16 keys"), "{answer}");
    let lifetime_secs = 100 * 24 * 3600;
    let (user, scope, label) = ("ann".into(), String::new(), String::new());
    let command = AdminCommand::TokenCreate { user, role: Role::Agent, scope, label, lifetime_secs };
    let token = text(&relay.admin(command), "token");
    relay.pass(Duration::from_secs(90 * 24 * 3600));
    let answer = relay.admin(AdminCommand::KeysRotate);
    assert!(answer["ok"] == false && text(&answer, "error").contains("token create"), "{answer}");
    assert!(relay.open(&token, "/ws").is_ok());
    relay.pass(Duration::from_secs(10 * 24 * 3600));
    assert!(relay.admin(AdminCommand::KeysRotate)["gone"].is_string(), "it has run out");
}

#[test]
fn rotation_that_cannot_be_written_changes_nothing() {
    let mut relay = Relay::new();
    relay.store_fails = true;
    assert_eq!(relay.admin(AdminCommand::KeysRotate)["ok"], false);
    assert_eq!(relay.admin(AdminCommand::KeysRevokeAll)["ok"], false);
    relay.store_fails = false;
    let tokens = relay.tokens();
    let mut relay = relay.restart();
    assert_eq!(relay.refresh(&tokens.client, &tokens.refresh).status, StatusCode::OK);
    assert_eq!(relay.admin(AdminCommand::KeysRotate)["kept"], 2, "and nothing is left under way");
}

#[test]
fn configured_key_is_changed_in_the_configuration_alone() {
    let answer = configured().admin(AdminCommand::KeysRotate);
    assert!(answer["ok"] == false && text(&answer, "error").contains("gen-secret"), "{answer}");
}

#[test]
fn everybody_is_signed_out_whoever_has_the_key() {
    for (mut relay, renewed) in [(Relay::new(), true), (configured(), false)] {
        let tokens = relay.tokens();
        let agent = minted(&mut relay);
        let mut ann = Browser::default();
        ann.open_account(&mut relay, "ann");
        relay.pass(Duration::from_secs(1));
        let code = relay.code(&tokens.client, WEB);
        let job = JobId(u64::MAX);
        relay.event(Event::Admin { job, command: AdminCommand::KeysRevokeAll });
        let [Action::RevokedAll, Action::AdminReply { json: answer, .. }] = relay.others.as_slice() else {
            panic!("{:?}", relay.others)
        };
        let answer: Value = serde_json::from_slice(answer).unwrap();
        assert_eq!(answer, json!({"ok": true, "signedOut": 2, "renewed": renewed}));
        relay.others.clear();
        for _ in 0..2 {
            let page = ann.get(&mut relay, "/account");
            assert!(html(&page).contains("value=\"sign-in\""), "the account's page is closed too: {}", html(&page));
            assert!(relay.open(&tokens.access, "/mcp").is_err() && relay.open(&agent, "/ws").is_err());
            let refreshed = relay.refresh(&tokens.client, &tokens.refresh);
            assert!(matches!(refreshed.status.as_u16(), 400 | 401), "{refreshed:?}");
            let redeemed = relay.redeem(&tokens.client, WEB, &code);
            assert!(matches!(redeemed.status.as_u16(), 400 | 401), "a code of before is worthless: {redeemed:?}");
            // Another second: the scripted entropy would draw the same ids again.
            relay.pass(Duration::from_secs(1));
            relay = relay.restart();
        }
        assert_eq!(relay.store.is_empty(), renewed, "without a new key what was revoked must be remembered");
        let next = relay.tokens();
        assert!(relay.open(&next.access, "/mcp").is_ok(), "and whoever signs in again is in");
    }
}

#[test]
fn tokens_that_are_being_written_are_signed_out_too() {
    for mut relay in [Relay::new(), configured()] {
        let tokens = relay.tokens();
        let code = relay.code(&tokens.client, WEB);
        relay.hold_writes();
        let exchange = relay.send_form("/token", &redemption(&tokens.client, WEB, &code));
        let refreshed = relay.send_form("/token", &refresh(&tokens.client, &tokens.refresh));
        relay.event(Event::Admin { job: JobId(9), command: AdminCommand::KeysRevokeAll });
        assert!(relay.others.is_empty(), "it waits for what is under way");
        let late = relay.send_form("/token", &refresh(&tokens.client, &tokens.refresh));
        relay.let_go();
        let late = relay.answer(late);
        assert_eq!(late.status, StatusCode::SERVICE_UNAVAILABLE, "and nothing new begins: {late:?}");
        assert!(matches!(relay.others.as_slice(), [Action::RevokedAll, Action::AdminReply { .. }]));
        for exchange in [exchange, refreshed] {
            let issued = Tokens::new(tokens.client.clone(), &relay.answer(exchange));
            assert!(relay.open(&issued.access, "/mcp").is_err());
            assert!(matches!(relay.refresh(&tokens.client, &issued.refresh).status.as_u16(), 400 | 401));
        }
    }
}

#[test]
fn two_changes_of_the_keys_do_not_meet() {
    let mut relay = Relay::new();
    relay.tokens();
    relay.hold_writes();
    relay.event(Event::Admin { job: JobId(9), command: AdminCommand::KeysRevokeAll });
    for command in [AdminCommand::KeysRotate, AdminCommand::KeysRevokeAll] {
        let answer = relay.admin(command);
        assert!(answer["ok"] == false && text(&answer, "error").contains("try again"), "{answer}");
    }
    relay.let_go();
    assert_eq!(relay.keys.keys().len(), 1);
    assert_eq!(relay.snapshot.sealer.open(Purpose::Cookie, b"", "x"), Err(crate::seal::OpenError::Malformed));
}

#[test]
fn registrations_go_by_the_key_that_sealed_them_while_it_is_there() {
    let [old, new] = [1, 2].map(|seed| Sealer::generate(&mut Seeded::new(seed)));
    let start =
        |keys: Vec<_>, store| Relay::at(PUBLIC, local(), store, Keyring::configured(keys), UnixTime::from_secs(START));
    let confidential = |relay: &mut Relay| {
        let metadata = json!({"redirect_uris": [WEB], "token_endpoint_auth_method": "client_secret_post"});
        let (_, answer) = relay.register_with(&metadata);
        (text(&answer, "client_id"), text(&answer, "client_secret"))
    };
    let signs_in = |relay: &mut Relay, (client, secret): &(String, String)| {
        let code = relay.code(client, WEB);
        let mut form = redemption(client, WEB, &code);
        form.push(("client_secret", secret));
        relay.post("/token", &form).status.as_u16()
    };
    let mut relay = start(vec![old.clone()], BTreeMap::new());
    let before = confidential(&mut relay);
    let mut relay = start(vec![new.clone(), old], relay.store);
    let after = confidential(&mut relay);
    assert_eq!([&before, &after].map(|client| signs_in(&mut relay, client)), [200, 200]);
    let mut relay = start(vec![new], relay.store);
    assert_eq!(signs_in(&mut relay, &after), 200);
    let gone =
        relay.post("/token", &[("grant_type", "refresh_token"), ("client_id", &before.0), ("refresh_token", "x")]);
    assert_eq!(gone.status.as_u16(), 401, "the client registers again");
}

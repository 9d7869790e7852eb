//! Codes, refresh, revocation, and what the store has to do with it.

use super::*;
use crate::oauth::families::{ABSOLUTE_LIFETIME, ACCESS_LIFETIME, IDLE_LIFETIME, MAX_SIBLINGS, REUSE_GRACE};
use crate::relay::SessionKey;

const MS: Duration = Duration::from_millis(1);

#[test]
fn code_works_once_and_its_replay_revokes() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    let code = relay.code(&client, WEB);
    let tokens = Tokens::new(client.clone(), &relay.redeem(&client, WEB, &code));
    let family = relay.open(&tokens.access, "/mcp").unwrap().family;

    let mut wrong = redemption(&client, WEB, &code);
    wrong.pop();
    wrong.push(("code_verifier", "another-verifier-of-forty-three-characters-000"));
    assert_refused(&relay.post("/token", &wrong), 400, "invalid_grant");
    assert_eq!(relay.revoked(), [], "whoever does not know the verifier revokes nothing");
    assert!(relay.open(&tokens.access, "/mcp").is_ok());

    assert_refused(&relay.redeem(&client, WEB, &code), 400, "invalid_grant");
    assert_eq!(relay.revoked(), [family]);
    assert_eq!(relay.open(&tokens.access, "/mcp"), Err(TokenError::Revoked));
    assert_refused(&relay.refresh(&client, &tokens.refresh), 400, "invalid_grant");
}

#[test]
fn code_is_bound_to_client_redirect_and_verifier() {
    let mut relay = Relay::new();
    let (_, answer) = relay.register_with(&json!({"redirect_uris": [WEB, LOOPBACK]}));
    let client = text(&answer, "client_id");
    let other = relay.register(WEB);
    let code = relay.code(&client, WEB);
    for (name, value, error) in [
        ("client_id", other.as_str(), "invalid_grant"),
        ("redirect_uri", LOOPBACK, "invalid_grant"),
        ("code", "bogus", "invalid_grant"),
        ("code", "", "invalid_request"),
        ("code_verifier", "another-verifier-of-forty-three-characters-000", "invalid_grant"),
        ("code_verifier", "short", "invalid_grant"),
        ("code_verifier", "", "invalid_request"),
        ("grant_type", "", "invalid_request"),
        ("grant_type", "password", "unsupported_grant_type"),
        ("resource", "https://other.example/mcp", "invalid_target"),
    ] {
        let mut form: BTreeMap<_, _> = redemption(&client, WEB, &code).into_iter().collect();
        form.insert(name, value);
        let form: Vec<_> = form.into_iter().collect();
        assert_refused(&relay.post("/token", &form), 400, error);
    }
    assert_eq!(relay.redeem(&client, WEB, &code).status, StatusCode::OK, "none of that used the code up");
}

#[test]
fn redirect_uri_may_be_left_out_at_the_token_endpoint() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    let code = relay.code(&client, WEB);
    assert_eq!(relay.redeem(&client, "", &code).status, StatusCode::OK);
}

#[test]
fn code_lives_for_a_minute() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    for (age, status) in [(Duration::from_secs(60) - MS, 200), (Duration::from_secs(60), 400)] {
        let code = relay.code(&client, WEB);
        relay.pass(age);
        assert_eq!(relay.redeem(&client, WEB, &code).status.as_u16(), status);
    }
}

#[test]
fn resource_decides_the_audience() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    let link = authorization_with(&client, WEB, &[("resource", "https://relay.example/mcp/files/")]);
    let code = query(&location(&Browser::default().sign_in(&mut relay, &link))).remove("code").unwrap();
    let tokens = Tokens::new(client.clone(), &relay.redeem(&client, WEB, &code));
    assert!(relay.open(&tokens.access, "/mcp/files").is_ok());
    assert_eq!(relay.open(&tokens.access, "/mcp"), Err(TokenError::Audience));
    let mut wider = refresh(&client, &tokens.refresh);
    wider.push(("resource", "https://relay.example/mcp"));
    assert_refused(&relay.post("/token", &wider), 400, "invalid_target");

    let all = relay.tokens();
    let mut narrower = refresh(&all.client, &all.refresh);
    narrower.push(("resource", "https://relay.example/mcp/files"));
    let narrow = Tokens::new(all.client.clone(), &relay.post("/token", &narrower));
    assert_eq!(relay.open(&narrow.access, "/mcp"), Err(TokenError::Audience));
    let wide = Tokens::new(all.client.clone(), &relay.refresh(&all.client, &narrow.refresh));
    assert!(relay.open(&wide.access, "/mcp").is_ok(), "the grant itself is not narrowed");
}

#[test]
fn refresh_may_narrow_the_scopes_of_its_access_token() {
    let mut relay = Relay::new();
    let all = relay.tokens();
    let ask = |relay: &mut Relay, token: &str, scope| {
        let mut form = refresh(&all.client, token);
        form.push(("scope", scope));
        relay.post("/token", &form)
    };
    let reply = ask(&mut relay, &all.refresh, "mcp:read offline_access");
    assert_eq!(body(&reply)["scope"], "mcp:read");
    let narrow = Tokens::new(all.client.clone(), &reply);
    assert_eq!(relay.open(&narrow.access, "/mcp").unwrap().scopes.to_string(), "mcp:read");
    let reply = relay.refresh(&all.client, &narrow.refresh);
    assert_eq!(body(&reply)["scope"], "mcp:tools mcp:read tunnel:manage", "the grant itself is not narrowed");

    let link = authorization_with(&all.client, WEB, &[("scope", "mcp:read")]);
    let code = query(&location(&Browser::default().sign_in(&mut relay, &link))).remove("code").unwrap();
    let reader = Tokens::new(all.client.clone(), &relay.redeem(&all.client, WEB, &code));
    let mut relay = relay.restart();
    for wider in ["mcp:tools", "mcp:read mcp:tools", "mcp", "agent"] {
        assert_refused(&ask(&mut relay, &reader.refresh, wider), 400, "invalid_scope");
    }
    assert_eq!(
        body(&relay.refresh(&all.client, &reader.refresh))["scope"],
        "mcp:read",
        "kept, and none of that used it up"
    );
}

#[test]
fn unknown_client_is_told_to_register_again() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    for client in ["nobody", "mlt_c_AAAA", ""] {
        let reply = relay.refresh(client, &tokens.refresh);
        assert_refused(&reply, 401, "invalid_client");
        assert!(reply.headers.contains_key("www-authenticate"));
        assert_refused(&relay.post("/revoke", &[("client_id", client), ("token", "x")]), 401, "invalid_client");
    }
}

#[test]
fn confidential_client_shows_its_secret() {
    let mut relay = Relay::new();
    let ask = json!({"redirect_uris": [WEB], "token_endpoint_auth_method": "client_secret_post"});
    let (_, answer) = relay.register_with(&ask);
    let (client, secret) = (text(&answer, "client_id"), text(&answer, "client_secret"));
    assert_eq!(answer["client_secret_expires_at"], 0);
    let code = relay.code(&client, WEB);
    assert_refused(&relay.redeem(&client, WEB, &code), 401, "invalid_client");
    let mut form = redemption(&client, WEB, &code);
    form.push(("client_secret", "wrong"));
    assert_refused(&relay.post("/token", &form), 401, "invalid_client");

    let mut headers = form_headers();
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("{client}:{secret}"));
    headers.insert("authorization", format!("Basic {basic}").parse().unwrap());
    let both = form::encode([("client_secret", secret.as_str())].into_iter().chain(redemption(&client, WEB, &code)));
    let reply = relay.ask(Method::POST, "/token", headers.clone(), &both);
    assert_refused(&reply, 400, "invalid_request");
    let once = form::encode(redemption(&client, WEB, &code).into_iter().filter(|(name, _)| *name != "client_id"));
    assert_eq!(relay.ask(Method::POST, "/token", headers, &once).status, StatusCode::OK);

    let code = relay.code(&client, WEB);
    let mut form = redemption(&client, WEB, &code);
    form.push(("client_secret", &secret));
    assert_eq!(relay.post("/token", &form).status, StatusCode::OK);
}

#[test]
fn malformed_token_requests_are_refused() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    let form = form::encode(refresh(&tokens.client, &tokens.refresh));
    let reply = relay.ask(Method::POST, "/token", HeaderMap::new(), &form);
    assert_refused(&reply, 400, "invalid_request");
    assert_refused(&relay.post("/token", &[]), 400, "invalid_request");
    let reply = relay.ask(Method::POST, "/token", form_headers(), &format!("{form}&client_id=other"));
    assert_refused(&reply, 400, "invalid_request");
    for token in ["x", tokens.access.as_str(), "mlt_r_AAAA"] {
        assert_refused(&relay.refresh(&tokens.client, token), 400, "invalid_grant");
    }
    assert_refused(&relay.refresh(&tokens.client, ""), 400, "invalid_request");
    assert_eq!(relay.revoked(), []);
}

#[test]
fn refresh_rotates_and_late_reuse_revokes() {
    let mut relay = Relay::new();
    let first = relay.tokens();
    let second = Tokens::new(first.client.clone(), &relay.refresh(&first.client, &first.refresh));
    assert_ne!(first.refresh, second.refresh);
    relay.pass(REUSE_GRACE);
    let sibling = Tokens::new(first.client.clone(), &relay.refresh(&first.client, &first.refresh));
    assert!(relay.open(&sibling.access, "/mcp").is_ok());
    relay.pass(MS);
    assert_refused(&relay.refresh(&first.client, &first.refresh), 400, "invalid_grant");
    assert_eq!(relay.revoked().len(), 1);
    for token in [&second.refresh, &sibling.refresh] {
        assert_refused(&relay.refresh(&first.client, token), 400, "invalid_grant");
    }
    assert_eq!(relay.open(&second.access, "/mcp"), Err(TokenError::Revoked));
}

#[test]
fn client_that_is_two_refreshes_behind_stays_signed_in() {
    let mut relay = Relay::new();
    let first = relay.tokens();
    let second = Tokens::new(first.client.clone(), &relay.refresh(&first.client, &first.refresh));
    let third = Tokens::new(first.client.clone(), &relay.refresh(&first.client, &second.refresh));
    relay.pass(Duration::from_secs(5));
    let mut relay = relay.restart();
    let behind = Tokens::new(first.client.clone(), &relay.refresh(&first.client, &first.refresh));
    assert!(relay.open(&behind.access, "/mcp").is_ok() && relay.open(&third.access, "/mcp").is_ok());
    relay.pass(REUSE_GRACE);
    assert_refused(&relay.refresh(&first.client, &first.refresh), 400, "invalid_grant");
    assert_eq!(relay.revoked().len(), 1, "later it is theft");
}

#[test]
fn refreshes_at_the_same_time_all_succeed() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    relay.hold_writes();
    let form = refresh(&tokens.client, &tokens.refresh);
    let exchanges: Vec<_> = (0..5).map(|_| relay.send_form("/token", &form)).collect();
    assert!(relay.replies.is_empty(), "nothing is acknowledged before it is written");
    relay.let_go();
    for exchange in exchanges {
        let sibling = Tokens::new(tokens.client.clone(), &relay.answer(exchange));
        assert!(relay.open(&sibling.access, "/mcp").is_ok());
    }
    assert_eq!(relay.revoked(), []);
}

#[test]
fn too_many_siblings_revoke() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    for _ in 0..=MAX_SIBLINGS {
        assert_eq!(relay.refresh(&tokens.client, &tokens.refresh).status, StatusCode::OK);
    }
    assert_refused(&relay.refresh(&tokens.client, &tokens.refresh), 400, "invalid_grant");
    assert_eq!(relay.revoked().len(), 1);
}

#[test]
fn queue_of_refreshes_is_bounded() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    relay.hold_writes();
    let form = refresh(&tokens.client, &tokens.refresh);
    let exchanges: Vec<_> = (0..18).map(|_| relay.send_form("/token", &form)).collect();
    let last = *exchanges.last().unwrap();
    assert_refused(&relay.answer(last), 503, "temporarily_unavailable");
    assert!(relay.replies.is_empty());
}

#[test]
fn refresh_token_of_another_client_is_refused_and_nothing_happens() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    let thief = relay.register("https://claude.com/api/mcp/auth_callback");
    assert_refused(&relay.refresh(&thief, &tokens.refresh), 400, "invalid_grant");
    assert_refused(&relay.post("/revoke", &[("client_id", &thief), ("token", &tokens.refresh)]), 400, "invalid_grant");
    assert_eq!(relay.revoked(), []);
    assert_eq!(relay.refresh(&tokens.client, &tokens.refresh).status, StatusCode::OK);
}

#[test]
fn idle_and_old_grants_are_invalid_grant_never_500() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    relay.pass(IDLE_LIFETIME);
    assert_refused(&relay.refresh(&tokens.client, &tokens.refresh), 400, "invalid_grant");
    assert!(relay.store.is_empty(), "what has ended leaves the store");

    let mut tokens = relay.tokens();
    let born = relay.now.unix;
    while relay.now.unix + IDLE_LIFETIME < born + ABSOLUTE_LIFETIME {
        relay.pass(IDLE_LIFETIME - MS);
        tokens = Tokens::new(tokens.client.clone(), &relay.refresh(&tokens.client, &tokens.refresh));
    }
    relay.pass((born + ABSOLUTE_LIFETIME).saturating_since(relay.now.unix) - MS);
    let last = relay.refresh(&tokens.client, &tokens.refresh);
    let last = Tokens::new(tokens.client.clone(), &last);
    relay.pass(MS);
    assert_refused(&relay.refresh(&tokens.client, &last.refresh), 400, "invalid_grant");
    assert_eq!(relay.open(&last.access, "/mcp"), Err(TokenError::Expired), "no token outlives its family");
}

#[test]
fn access_token_lives_for_an_hour() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    relay.pass(ACCESS_LIFETIME - MS);
    assert!(relay.open(&tokens.access, "/mcp").is_ok());
    relay.pass(MS);
    assert_eq!(relay.open(&tokens.access, "/mcp"), Err(TokenError::Expired));
}

#[test]
fn revocation_acts_for_either_token_and_survives_a_restart() {
    for which in [|tokens: &Tokens| tokens.access.clone(), |tokens: &Tokens| tokens.refresh.clone()] {
        let mut relay = Relay::new();
        let (tokens, kept) = (relay.tokens(), relay.tokens());
        let family = relay.open(&tokens.access, "/mcp").unwrap().family;
        let form = [("client_id", tokens.client.as_str()), ("token", &which(&tokens))];
        assert_eq!(relay.post("/revoke", &form).status, StatusCode::OK);
        assert_eq!(relay.revoked(), [family]);
        assert_eq!(relay.post("/revoke", &form).status, StatusCode::OK, "again is fine");
        assert_eq!(relay.revoked(), []);
        let mut relay = relay.restart();
        assert_eq!(relay.open(&tokens.access, "/mcp"), Err(TokenError::Revoked));
        assert_refused(&relay.refresh(&tokens.client, &tokens.refresh), 400, "invalid_grant");
        assert!(relay.open(&kept.access, "/mcp").is_ok());
        assert_eq!(relay.refresh(&kept.client, &kept.refresh).status, StatusCode::OK);
        relay.pass(ACCESS_LIFETIME + Duration::from_secs(60));
        assert_eq!((relay.snapshot.families.len(), relay.store.len()), (1, 1), "forgotten once no token can be good");
    }
}

#[test]
fn what_the_store_does_not_know_opens_nothing_however_good_its_key() {
    let mut before = Relay::new();
    let tokens = before.tokens();
    let agent = text(&before.admin(minting(Role::Agent)), "token");
    assert!(before.open(&tokens.access, "/mcp").is_ok() && before.open(&agent, "/ws").is_ok());
    let mut relay = Relay::at(PUBLIC, local(), BTreeMap::new(), before.keys, before.now.unix + Duration::from_secs(1));
    assert_eq!(relay.open(&tokens.access, "/mcp"), Err(TokenError::Revoked));
    assert_eq!(relay.open(&agent, "/ws"), Err(TokenError::Revoked));
    assert_refused(&relay.refresh(&tokens.client, &tokens.refresh), 400, "invalid_grant");
    let asked = relay.post("/introspect", &[("client_id", "mcp-local-tunnel-agent"), ("token", &agent)]);
    assert_eq!(body(&asked), json!({"active": false}));
    assert!(relay.store.is_empty(), "and nothing of it comes back by being shown");
    let code = relay.code(&tokens.client, WEB);
    let next = Tokens::new(tokens.client.clone(), &relay.redeem(&tokens.client, WEB, &code));
    assert!(relay.open(&next.access, "/mcp").is_ok(), "whoever signs in again is in");
}

#[test]
fn gate_knows_a_family_before_anybody_has_its_token() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    let code = relay.code(&client, WEB);
    relay.hold_writes();
    relay.send_form("/token", &redemption(&client, WEB, &code));
    relay.event(Event::Admin { job: JobId(9), command: minting(Role::Client) });
    let held = relay.held.take().unwrap();
    assert!(held.len() == 2 && relay.snapshot.families.is_empty(), "nor is it known before it is kept");
    for (at, (job, _)) in held.into_iter().enumerate() {
        relay.grants.handle_event(Event::Persisted { job, result: Ok(()) }, relay.now);
        let actions: Vec<_> = core::iter::from_fn(|| relay.grants.poll_action()).collect();
        let published =
            actions.iter().position(|action| matches!(action, Action::Publish(new) if new.families.len() == at + 1));
        let told = |action: &Action| matches!(action, Action::Reply { .. } | Action::AdminReply { .. });
        let told = actions.iter().position(told);
        assert!(published.unwrap() < told.unwrap(), "{actions:?}");
    }
}

#[test]
fn many_families_cost_a_refresh_nothing() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    let (_, record) = relay.store.iter().next().map(|(key, value)| (key.clone(), value.clone())).unwrap();
    // Of other people: one has a few hundred at most.
    let record = String::from_utf8(record).unwrap().replace("local:ann", "local:bob");
    for other in 1..limits::MAX_FAMILIES - 1 {
        relay.store.insert(format!("family/{other:032x}"), record.clone().into());
    }
    let mut relay = relay.restart();
    assert_eq!(relay.snapshot.families.len(), limits::MAX_FAMILIES - 1);
    let (before, published) = (Arc::clone(&relay.snapshot), Arc::clone(&relay.snapshot.families));
    relay.pass(Duration::from_secs(1));
    assert_eq!(relay.refresh(&tokens.client, &tokens.refresh).status, StatusCode::OK);
    assert!(Arc::ptr_eq(&before, &relay.snapshot), "there is no news for the gate");
    let code = relay.code(&tokens.client, WEB);
    let next = Tokens::new(tokens.client.clone(), &relay.redeem(&tokens.client, WEB, &code));
    assert!(relay.open(&next.access, "/mcp").is_ok());
    assert_eq!(
        (published.len() + 1, relay.snapshot.families.len()),
        (limits::MAX_FAMILIES - 1 + 1, limits::MAX_FAMILIES)
    );
}

fn minting(role: Role) -> AdminCommand {
    let (user, scope, label) = ("ann".into(), String::new(), String::new());
    AdminCommand::TokenCreate { user, role, scope, label, lifetime_secs: 7_200 }
}

#[test]
fn unknown_token_is_revoked_all_right() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    assert_eq!(relay.post("/revoke", &[("client_id", &client), ("token", "x")]).status, StatusCode::OK);
    assert_refused(&relay.post("/revoke", &[("client_id", &client)]), 400, "invalid_request");
}

#[test]
fn failed_write_answers_503_and_changes_nothing() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    let code = relay.code(&client, WEB);
    relay.store_fails = true;
    assert_refused(&relay.redeem(&client, WEB, &code), 503, "temporarily_unavailable");
    relay.store_fails = false;
    let tokens = Tokens::new(client.clone(), &relay.redeem(&client, WEB, &code));

    relay.store_fails = true;
    let revoke = [("client_id", client.as_str()), ("token", &tokens.refresh)];
    assert_refused(&relay.refresh(&client, &tokens.refresh), 503, "temporarily_unavailable");
    assert_refused(&relay.post("/revoke", &revoke), 503, "temporarily_unavailable");
    assert_eq!(relay.revoked(), []);
    relay.store_fails = false;
    relay.pass(REUSE_GRACE + MS);
    assert_eq!(relay.refresh(&client, &tokens.refresh).status, StatusCode::OK);
}

#[test]
fn code_replayed_while_its_family_is_written_revokes_after() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    let code = relay.code(&client, WEB);
    relay.hold_writes();
    let first = relay.send_form("/token", &redemption(&client, WEB, &code));
    assert_refused(&relay.redeem(&client, WEB, &code), 400, "invalid_grant");
    relay.let_go();
    let tokens = Tokens::new(client, &relay.answer(first));
    assert_eq!(relay.revoked().len(), 1);
    assert_eq!(relay.open(&tokens.access, "/mcp"), Err(TokenError::Revoked));
}

#[test]
fn thief_gets_no_moment_more_while_the_revocation_is_written() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    let code = relay.code(&client, WEB);
    let tokens = Tokens::new(client.clone(), &relay.redeem(&client, WEB, &code));
    relay.hold_writes();
    assert_refused(&relay.redeem(&client, WEB, &code), 400, "invalid_grant");
    assert_eq!(relay.open(&tokens.access, "/mcp"), Err(TokenError::Revoked));
    assert_eq!(relay.revoked().len(), 1);
    relay.let_go();
    assert_eq!(relay.revoked(), [], "the shards hear of it once");
    let relay = relay.restart();
    assert_eq!(relay.open(&tokens.access, "/mcp"), Err(TokenError::Revoked));
}

#[test]
fn revocation_that_cannot_be_written_acts_and_is_written_later() {
    let mut relay = Relay::new();
    let client = relay.register(WEB);
    let code = relay.code(&client, WEB);
    let tokens = Tokens::new(client.clone(), &relay.redeem(&client, WEB, &code));
    relay.store_fails = true;
    assert_refused(&relay.redeem(&client, WEB, &code), 400, "invalid_grant");
    assert_eq!(relay.open(&tokens.access, "/mcp"), Err(TokenError::Revoked));
    assert_eq!(relay.revoked().len(), 1);
    relay.pass(Duration::from_secs(60));
    relay.store_fails = false;
    relay.pass(Duration::from_secs(60));
    assert_eq!(relay.revoked(), [], "the shards hear of it once");
    let relay = relay.restart();
    assert_eq!(relay.open(&tokens.access, "/mcp"), Err(TokenError::Revoked), "written as soon as it could be");
}

#[test]
fn revocation_is_acknowledged_once_it_is_kept_though_it_acts_already() {
    for by_client in [true, false] {
        let mut relay = Relay::new();
        let client = relay.register(WEB);
        let code = relay.code(&client, WEB);
        let tokens = Tokens::new(client.clone(), &relay.redeem(&client, WEB, &code));
        relay.store_fails = true;
        assert_refused(&relay.redeem(&client, WEB, &code), 400, "invalid_grant");
        let ask = |relay: &mut Relay| match by_client {
            true => {
                let form = [("client_id", client.as_str()), ("token", tokens.refresh.as_str())];
                relay.post("/revoke", &form).status == StatusCode::OK
            }
            false => relay.admin(AdminCommand::GrantRevokeAll { user: "ann".into() })["ok"] == true,
        };
        assert!(!ask(&mut relay), "a restart would forget it");
        relay.store_fails = false;
        assert!(ask(&mut relay));
        let relay = relay.restart();
        assert_eq!(relay.open(&tokens.access, "/mcp"), Err(TokenError::Revoked));
    }
}

#[test]
fn refused_requests_of_one_address_are_limited() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    for _ in 0..100 {
        assert_refused(&relay.refresh("nobody", "x"), 401, "invalid_client");
    }
    assert_refused(&relay.refresh("nobody", "x"), 429, "slow_down");
    assert_eq!(relay.refresh(&tokens.client, &tokens.refresh).status, StatusCode::OK, "good requests pass");
    relay.pass(Duration::from_secs(1));
    assert_refused(&relay.refresh("nobody", "x"), 401, "invalid_client");
}

#[test]
fn oldest_sign_in_makes_room_for_the_newest() {
    let mut relay = Relay::new();
    let first = relay.tokens();
    for _ in 0..127 {
        relay.pass(Duration::from_secs(2));
        relay.tokens();
    }
    assert_eq!(relay.revoked(), []);
    assert!(relay.open(&first.access, "/mcp").is_ok());
    relay.tokens();
    assert_eq!(relay.revoked().len(), 1);
    assert_eq!(relay.open(&first.access, "/mcp"), Err(TokenError::Revoked));
}

#[test]
fn person_who_was_taken_off_is_out() {
    let mut relay = Relay::new();
    let tokens = relay.tokens();
    let mut relay = Relay::with(PUBLIC, Login::Local(Local { users: Vec::new() }), relay.store);
    assert_eq!(relay.open(&tokens.access, "/mcp"), Err(TokenError::Revoked));
    assert_refused(&relay.refresh(&tokens.client, &tokens.refresh), 400, "invalid_grant");
}

#[test]
fn strange_records_are_skipped() {
    let strange = [("family/x", "{}"), ("session/x", "1"), ("other", ""), ("family/", "\u{1f980}")];
    let store = strange.iter().map(|(key, value)| (key.to_string(), value.as_bytes().to_vec())).collect();
    let mut relay = Relay::with(PUBLIC, local(), store);
    let tokens = relay.tokens();
    assert!(relay.open(&tokens.access, "/mcp").is_ok());
}

#[test]
fn ended_session_is_written_then_published_then_told() {
    let mut relay = Relay::new();
    let session = SessionKey("s1".into());
    let expires = relay.now.unix + Duration::from_secs(3_600);
    let end = |exchange: u64| Event::EndSession {
        exchange: ExchangeId(exchange),
        user: "local:ann".into(),
        session: session.clone(),
        expires,
    };
    relay.store_fails = true;
    relay.event(end(901));
    assert_eq!(relay.answer(ExchangeId(901)).status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(relay.snapshot.ended_sessions.is_empty() && relay.others.is_empty());
    relay.store_fails = false;
    relay.event(end(902));
    assert_eq!(relay.answer(ExchangeId(902)).status, StatusCode::NO_CONTENT);
    assert!(
        matches!(relay.others.pop(), Some(Action::SessionEnded { user, session: ended }) if user.as_str() == "local:ann" && ended == session)
    );
    relay.event(end(903));
    assert_eq!(relay.answer(ExchangeId(903)).status, StatusCode::NO_CONTENT);
    assert!(relay.others.is_empty());
    let mut relay = relay.restart();
    assert_eq!(relay.snapshot.ended_sessions.get(&session), Some(&expires));
    relay.pass(Duration::from_secs(3_600));
    assert!(relay.snapshot.ended_sessions.is_empty() && relay.store.is_empty());
}

#[test]
fn unexpected_completions_are_dropped() {
    let mut relay = Relay::new();
    relay.event(Event::Persisted { job: JobId(77), result: Ok(()) });
    relay.event(Event::Verified { job: JobId(77), ok: true });
    relay
        .event(Event::Fetched { fetch: crate::id::FetchId(77), result: Err(crate::http::fetch::FetchError::TimedOut) });
    assert!(relay.others.is_empty() && relay.replies.is_empty());
}

#[test]
fn same_inputs_give_the_same_tokens() {
    let run = || {
        let mut relay = Relay::new();
        let tokens = relay.tokens();
        (tokens.access, tokens.refresh, relay.store)
    };
    assert_eq!(run(), run());
}

//! A list of people that changes: whoever is taken off it has nothing left of what they granted.

use super::login::provider_login;
use super::*;

/// A relay whose provider says this of ann, and whom it lets in.
fn relay(claims: Value, allow: &[&str]) -> Relay {
    let mut relay = Relay::with(PUBLIC, allowing(allow), BTreeMap::new());
    relay.provider.claims = claims;
    relay
}

fn allowing(allow: &[&str]) -> Login {
    let Login::Oidc(provider) = oidc() else { panic!("a provider") };
    Login::Oidc(Oidc { allow: allow.iter().map(ToString::to_string).collect(), ..provider })
}

/// The same relay, started with another list.
fn started_with(mut relay: Relay, allow: &[&str]) -> Relay {
    relay.grants.settings.login = allowing(allow);
    relay.restart()
}

fn signed_in(relay: &mut Relay) -> Tokens {
    let client = relay.register(WEB);
    let reply = provider_login(relay, &mut Browser::default(), &authorization(&client, WEB));
    let code = query(&location(&reply)).remove("code").expect("a code");
    Tokens::new(client.clone(), &relay.redeem(&client, WEB, &code))
}

fn vouched() -> Value {
    json!({"email": "ann@corp.example", "email_verified": true, "groups": ["dev", "staff"]})
}

#[test]
fn person_who_is_taken_off_the_list_is_out_until_put_back() {
    for (before, without) in [
        ("ann-7", "bob-8"),
        ("ann@corp.example", "bob@corp.example"),
        ("@corp.example", "@other.example"),
        ("group:dev", "group:ops"),
        ("ann-7", "group:ops"),
    ] {
        let mut relay = relay(vouched(), &["eve-9", before]);
        let tokens = signed_in(&mut relay);
        let mut relay = started_with(relay, &["eve-9", without]);
        assert_eq!(relay.open(&tokens.access, "/mcp"), Err(TokenError::Revoked), "{before}");
        assert_refused(&relay.refresh(&tokens.client, &tokens.refresh), 400, "invalid_grant");
        let family = relay.grants.families.known.keys().next().expect("its record is kept").clone();
        relay.event(Event::TunnelUp { conn: crate::id::ConnId(1), family: family.clone(), device: "laptop".into() });
        assert_eq!(relay.revoked(), [family], "{before}");
        let mut relay = started_with(relay, &[before]);
        assert!(relay.open(&tokens.access, "/mcp").is_ok(), "{before}");
        Tokens::new(tokens.client.clone(), &relay.refresh(&tokens.client, &tokens.refresh));
    }
}

#[test]
fn list_that_names_a_person_in_another_way_lets_their_grants_live() {
    let mut relay = relay(vouched(), &["ann-7"]);
    let tokens = signed_in(&mut relay);
    for other in ["ANN@corp.example", "@corp.example", "group:staff"] {
        relay = started_with(relay, &[other]);
        assert!(relay.open(&tokens.access, "/mcp").is_ok(), "{other}");
    }
    let next = Tokens::new(tokens.client.clone(), &relay.refresh(&tokens.client, &tokens.refresh));
    let mut relay = started_with(relay, &["group:ops"]);
    assert_refused(&relay.refresh(&next.client, &next.refresh), 400, "invalid_grant");
}

#[test]
fn device_keeps_what_its_person_is_judged_by() {
    let mut relay = relay(vouched(), &["@corp.example"]);
    let device = relay.device();
    let mut browser = Browser::default();
    let page = browser.type_in(&mut relay, &device.user_code);
    let reply = browser.agree(&mut relay, &page);
    let back = relay.provider.authorize(&location(&reply));
    assert_eq!(browser.get(&mut relay, &format!("/callback?{back}")).status, StatusCode::OK);
    let tokens = Tokens::new("mcp-local-tunnel-agent".into(), &relay.poll(&device));
    let relay = started_with(relay, &["@corp.example"]);
    assert!(relay.open(&tokens.access, "/ws").is_ok());
    let relay = started_with(relay, &["@other.example"]);
    assert_eq!(relay.open(&tokens.access, "/ws"), Err(TokenError::Revoked));
}

#[test]
fn grant_of_an_older_version_ends_where_the_list_leaves_no_doubt() {
    let mut first = relay(vouched(), &[]);
    let tokens = signed_in(&mut first);
    for record in first.store.values_mut() {
        let mut family: Value = serde_json::from_slice(record).expect("JSON");
        family.as_object_mut().expect("an object").remove("vouched").expect("it is kept");
        *record = serde_json::to_vec(&family).expect("JSON");
    }
    let mut relay = first;
    for (allow, lives) in [
        (&["bob-8"][..], false),
        (&["bob-8", "ann-7"], true),
        (&["bob-8", "@other.example"], true),
        (&["group:ops"], true),
    ] {
        relay = started_with(relay, allow);
        assert_eq!(relay.open(&tokens.access, "/mcp").is_ok(), lives, "{allow:?}");
    }
}

#[test]
fn grants_of_a_person_who_is_not_let_in_are_listed_as_such() {
    let mut relay = relay(vouched(), &["ann-7"]);
    signed_in(&mut relay);
    let listed =
        |relay: &mut Relay| relay.admin(AdminCommand::GrantList { user: Some("ann-7".into()) })["grants"].clone();
    assert!(listed(&mut relay)[0].get("shutOut").is_none());
    let mut relay = started_with(relay, &["bob-8"]);
    let grants = listed(&mut relay);
    assert_eq!((grants.as_array().map(Vec::len), &grants[0]["shutOut"]), (Some(1), &json!(true)), "{grants}");
}

#[test]
fn person_who_is_taken_off_the_list_has_no_page() {
    let mut relay = relay(vouched(), &["@corp.example"]);
    let mut browser = Browser::default();
    let reply = browser.post(&mut relay, "/account", &[("action".into(), "sign-in".into())]);
    let back = relay.provider.authorize(&location(&reply));
    browser.get(&mut relay, &format!("/callback?{back}"));
    assert!(html(&browser.get(&mut relay, "/account")).contains("ann@corp.example"));
    let mut relay = started_with(relay, &["@other.example"]);
    assert!(!html(&browser.get(&mut relay, "/account")).contains("ann@corp.example"));
}

#[test]
fn token_for_a_person_who_is_not_on_the_list_is_refused_or_told_of() {
    let create = |user: &str| AdminCommand::TokenCreate {
        user: user.into(),
        role: Role::Client,
        scope: String::new(),
        label: String::new(),
        lifetime_secs: 3_600,
    };
    let mut relay = relay(vouched(), &["ann-7"]);
    let refused = relay.admin(create("bob-8"));
    assert!(refused["ok"] == false && text(&refused, "error").contains("auth.allow"), "{refused}");
    let made = relay.admin(create("ann-7"));
    assert!(made["ok"] == true && made.get("warning").is_none(), "{made}");
    let token = text(&made, "token");
    let relay = started_with(relay, &["bob-8"]);
    assert_eq!(relay.open(&token, "/mcp"), Err(TokenError::Revoked));
    let mut relay = started_with(relay, &["group:dev"]);
    assert!(relay.open(&token, "/mcp").is_ok());
    let made = relay.admin(create("bob-8"));
    assert!(made["ok"] == true && text(&made, "warning").contains("auth.allow"), "{made}");
}

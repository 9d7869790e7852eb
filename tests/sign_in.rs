//! Signing in at the built program, as a client and its person's browser do: the way through, and each refusal.

mod support;

use serde_json::json;
use support::browser::{Browser, encode, form, parameter};
use support::oauth::*;
use support::{Client, PASSWORD, Relay};

#[test]
fn the_way_through_and_no_secret_in_the_log() {
    let relay = Relay::with("sign-in", &json!({"secret": "a secret of the operator"}));
    let client = register(&relay);
    let code = code(&relay, &client);
    let (status, tokens) = exchange(&relay, &client, &code, VERIFIER);
    assert_eq!(status, 200, "{tokens}");
    assert!(Client::with_token(&relay, access(&tokens)).tools().contains(&"status".to_owned()));
    let (status, next) = refresh(&relay, &client, &tokens);
    assert_eq!(status, 200, "{next}");
    assert_ne!(next["refresh_token"], tokens["refresh_token"], "it rotates");
    let log = relay.process.log();
    let refresh_token = tokens["refresh_token"].as_str().expect("a refresh token").to_owned();
    for secret in
        [PASSWORD, &code, VERIFIER, &access(&tokens), &access(&next), &refresh_token, "secret of the operator"]
    {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}

#[test]
fn client_gets_the_scopes_that_it_asks_for_and_is_told_what_else_it_needs() {
    let relay = Relay::start("scopes");
    let client = register(&relay);
    let mut browser = Browser::new(&relay);
    let page = browser.get(&format!("{}&scope=mcp:read%20openid", authorize(&client)));
    assert!(!page.text().contains("run tools on your devices"), "{}", page.text());
    let to = location(&browser.submit(&form(&page), &[("decision", "allow")]));
    let login = form(&browser.get(to.strip_prefix(&relay.url()).unwrap_or(&to)));
    let back = location(&browser.submit(&login, &[("user", "ada"), ("password", PASSWORD)]));
    let (_, tokens) = exchange(&relay, &client, &parameter(&back, "code").expect("a code"), VERIFIER);
    assert_eq!(tokens["scope"], "mcp:read");

    let mut reader = Client::with_token(&relay, access(&tokens));
    assert!(reader.tools().contains(&"restart".to_owned()), "lists are for reading");
    assert_eq!(reader.call("status", &json!({}))["result"]["isError"], false);
    let reply = reader.request("tools/call", &json!({"name": "restart", "arguments": {}}));
    assert_eq!(reply.status, 403);
    let challenge = reply.header("www-authenticate").expect("a challenge");
    let metadata = format!("resource_metadata=\"{}/.well-known/oauth-protected-resource/mcp\"", relay.url());
    for part in ["error=\"insufficient_scope\"", "scope=\"mcp:read tunnel:manage\"", &metadata] {
        assert!(challenge.contains(part), "{part}: {challenge}");
    }
    let mut minted = Client::with_token(&relay, relay.mint("ada", "client"));
    assert!(minted.call("restart", &json!({}))["result"].is_object(), "a token has all scopes by default");
}

#[test]
fn wrong_password_is_said_and_can_be_mended() {
    let relay = Relay::start("wrong-password");
    let client = register(&relay);
    let mut browser = Browser::new(&relay);
    let mut login = login_page(&mut browser, &client);
    for (user, password) in [("ada", "wrong"), ("nobody", PASSWORD), ("", ""), ("ada", "")] {
        let reply = browser.submit(&login, &[("user", user), ("password", password)]);
        assert!(reply.header("location").is_none(), "{user} does not get through");
        assert!(matches!(reply.status, 400 | 401 | 403), "{}", reply.status);
        assert!(reply.text().to_lowercase().contains("password"), "{}", reply.text());
        login = form(&reply);
    }
    let back = location(&browser.submit(&login, &[("user", "ada"), ("password", PASSWORD)]));
    assert!(parameter(&back, "code").is_some(), "the same page takes the right one: {back}");
}

#[test]
fn denied_consent_goes_back_as_an_error() {
    let relay = Relay::start("denied");
    let client = register(&relay);
    let mut browser = Browser::new(&relay);
    let page = browser.get(&authorize(&client));
    let reply = browser.submit(&form(&page), &[("decision", "deny")]);
    if reply.status == 303 {
        let back = location(&reply);
        assert_eq!(parameter(&back, "error").as_deref(), Some("access_denied"), "{back}");
    } else {
        assert!(reply.text().contains("access_denied"), "{}", reply.text());
    }
}

#[test]
fn consent_cannot_be_given_from_elsewhere() {
    let relay = Relay::start("forged");
    let client = register(&relay);
    let page = Browser::new(&relay).get(&authorize(&client));
    let theirs = form(&page);
    let body: Vec<_> = theirs.fields.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    let body = format!("{}&decision=allow", body.join("&"));
    for headers in [
        &[("Content-Type", "application/x-www-form-urlencoded"), ("Origin", "https://evil.example")][..],
        &[("Content-Type", "application/x-www-form-urlencoded"), ("Sec-Fetch-Site", "cross-site"), ("Origin", "null")],
        &[("Content-Type", "application/x-www-form-urlencoded")],
    ] {
        let reply = relay.http("POST", "/consent", headers, body.as_bytes());
        assert!(matches!(reply.status, 400 | 403), "{headers:?}: {} {}", reply.status, reply.text());
    }
    let other = Browser::new(&relay).submit(&theirs, &[("decision", "allow")]);
    let elsewhere = other.header("location").unwrap_or_default();
    assert!(!elsewhere.starts_with(REDIRECT), "another browser's consent brings no code");
}

#[test]
fn code_works_once_and_for_its_client_and_verifier_alone() {
    let relay = Relay::start("codes");
    let client = register(&relay);
    let wrong = code(&relay, &client);
    let (status, answer) = exchange(&relay, &client, &wrong, "w".repeat(43).as_str());
    assert_eq!((status, answer["error"].as_str()), (400, Some("invalid_grant")));
    let stolen = code(&relay, &client);
    let (status, answer) = exchange(&relay, "mcp-local-tunnel-agent", &stolen, VERIFIER);
    assert_eq!((status, answer["error"].as_str()), (400, Some("invalid_grant")), "{answer}");
    let replayed = code(&relay, &client);
    let (_, tokens) = exchange(&relay, &client, &replayed, VERIFIER);
    let (status, answer) = exchange(&relay, &client, &replayed, VERIFIER);
    assert_eq!((status, answer["error"].as_str()), (400, Some("invalid_grant")));
    let (status, answer) = refresh(&relay, &client, &tokens);
    assert_eq!((status, answer["error"].as_str()), (400, Some("invalid_grant")), "a replay revokes what came of it");
}

#[test]
fn refresh_survives_a_killed_relay_and_revocation_acts() {
    let mut relay = Relay::start("refresh");
    let client = register(&relay);
    let (_, first) = exchange(&relay, &client, &code(&relay, &client), VERIFIER);
    let (_, second) = refresh(&relay, &client, &first);
    relay.kill_and_restart();
    let (status, third) = refresh(&relay, &client, &second);
    assert_eq!(status, 200, "{third}");
    let body = format!("token={}&client_id={}", encode(third["refresh_token"].as_str().expect("one")), encode(&client));
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(relay.http("POST", "/revoke", &form, body.as_bytes()).status, 200);
    let bearer = format!("Bearer {}", access(&third));
    let ask = |relay: &Relay| {
        relay.http("POST", "/mcp", &[("Authorization", &bearer), ("Content-Type", "application/json")], b"{}").status
    };
    assert_eq!(ask(&relay), 401, "the access token of a revoked family is refused at once");
    relay.kill_and_restart();
    assert_eq!(ask(&relay), 401, "and after a restart");
    let (status, answer) = refresh(&relay, &client, &third);
    assert_eq!((status, answer["error"].as_str()), (400, Some("invalid_grant")));
}

#[test]
fn unknown_provider_is_said_to_the_person() {
    let closed = support::free_port();
    let relay = Relay::with("unknown-provider", &json!({"auth": {"issuer": format!("http://127.0.0.1:{closed}")}}));
    relay.process.line("open to everyone who has an account at the provider");
    let client = register(&relay);
    let reply = consent(&mut Browser::new(&relay), &client);
    if reply.status == 303 {
        let back = location(&reply);
        assert_eq!(parameter(&back, "error").as_deref(), Some("temporarily_unavailable"), "{back}");
    } else {
        assert!(matches!(reply.status, 502 | 503), "{} {}", reply.status, reply.text());
        assert!(reply.text().contains("provider"), "{}", reply.text());
    }
    assert_eq!(relay.http("GET", "/healthz", &[], b"").status, 200);
}

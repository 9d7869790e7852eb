//! Clients of the configuration.

use super::*;
use crate::config::StaticClient;
use crate::secret::Secret;

const SECRET: &str = "a secret of the operator's: +/%&";

fn relay() -> Relay {
    let client = |id: &str, redirects: &[&str], secret: Option<&str>| StaticClient {
        id: id.into(),
        name: format!("The {id} client"),
        redirects: redirects.iter().map(ToString::to_string).collect(),
        secret: secret.map(Secret::new),
    };
    Relay::with_clients(Clients {
        known: vec![client("public", &[WEB, LOOPBACK], None), client("secretive", &[WEB], Some(SECRET))],
        loopback_documents: false,
    })
}

fn basic(id: &str, secret: &str) -> HeaderMap {
    let pair = format!("{}:{}", form::percent_encode(id), form::percent_encode(secret));
    let value = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    let mut headers = form_headers();
    headers.insert("authorization", value.parse().unwrap());
    headers
}

#[test]
fn public_client_of_the_configuration_signs_people_in() {
    let mut relay = relay();
    let page = Browser::default().get(&mut relay, &authorization("public", WEB));
    assert!(html(&page).contains("The public client") && html(&page).contains("operator of this relay has set"));
    assert!(!html(&page).contains("unverified"));
    for redirect in [WEB, "http://localhost:99/callback"] {
        let code = relay.code("public", redirect);
        let tokens = Tokens::new("public".into(), &relay.redeem("public", redirect, &code));
        assert_eq!(relay.open(&tokens.access, "/mcp").unwrap().client.as_str(), "public");
        assert_eq!(relay.refresh("public", &tokens.refresh).status, StatusCode::OK);
    }
}

#[test]
fn client_with_a_secret_shows_it_either_way_and_no_other() {
    let mut relay = relay();
    for show in ["basic", "post"] {
        let code = relay.code("secretive", WEB);
        assert_refused(&relay.redeem("secretive", WEB, &code), 401, "invalid_client");
        let mut form = redemption("secretive", WEB, &code);
        form.push(("client_secret", "another secret of whomever's"));
        assert_refused(&relay.post("/token", &form), 401, "invalid_client");
        let wrong = relay.ask(Method::POST, "/token", basic("secretive", "wrong"), &form::encode(form.drain(..5)));
        assert_refused(&wrong, 401, "invalid_client");
        let reply = match show {
            "basic" => {
                let body = form::encode(redemption("secretive", WEB, &code));
                relay.ask(Method::POST, "/token", basic("secretive", SECRET), &body)
            }
            _ => {
                let mut form = redemption("secretive", WEB, &code);
                form.push(("client_secret", SECRET));
                relay.post("/token", &form)
            }
        };
        let tokens = Tokens::new("secretive".into(), &reply);
        assert_refused(&relay.refresh("secretive", &tokens.refresh), 401, "invalid_client");
        let revocation = form::encode([("token", tokens.refresh.as_str())]);
        assert_refused(
            &relay.post("/revoke", &[("client_id", "secretive"), ("token", &tokens.refresh)]),
            401,
            "invalid_client",
        );
        assert_eq!(relay.revoked(), []);
        let reply = relay.ask(Method::POST, "/revoke", basic("secretive", SECRET), &revocation);
        assert_eq!((reply.status, relay.revoked().len()), (StatusCode::OK, 1));
    }
}

#[test]
fn redirects_of_the_configuration_are_exact() {
    let mut relay = relay();
    for (client, redirect) in [
        ("secretive", LOOPBACK),
        ("secretive", "https://claude.ai/api/mcp/auth_callback?x=1"),
        ("public", "https://claude.com/api/mcp/auth_callback"),
        ("public", ""),
        ("Public", WEB),
    ] {
        let reply = Browser::default().get(&mut relay, &authorization_with(client, redirect, &[("x", "1")]));
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{client} {redirect}");
        assert!(reply.headers.get(LOCATION).is_none());
    }
}

#[test]
fn request_error_of_a_client_that_the_operator_vouches_for_goes_back_to_it() {
    let mut relay = relay();
    let link = authorization_with("secretive", WEB, &[("code_challenge_method", "plain")]);
    let to = location(&Browser::default().get(&mut relay, &link));
    assert!(to.starts_with(WEB) && query(&to)["error"] == "invalid_request" && query(&to)["iss"] == PUBLIC);
}

#[test]
fn client_that_was_taken_off_is_unknown() {
    let mut relay = relay();
    let code = relay.code("public", WEB);
    let tokens = Tokens::new("public".into(), &relay.redeem("public", WEB, &code));
    let mut relay = Relay::with(PUBLIC, local(), relay.store);
    assert_refused(&relay.refresh("public", &tokens.refresh), 401, "invalid_client");
}

#[test]
fn what_agents_alone_may_do_is_not_for_others() {
    let mut relay = relay();
    for path in ["/device_authorization", "/introspect"] {
        let reply = relay.post(path, &[("client_id", "public"), ("token", "x")]);
        assert_refused(&reply, 400, "unauthorized_client");
    }
}

#[test]
fn clients_that_do_not_authenticate_are_noted_and_slowed_down_as_elsewhere() {
    for path in ["/introspect", "/device_authorization", "/revoke"] {
        let mut relay = relay();
        let guess = [("client_id", "secretive"), ("client_secret", "guess"), ("token", "x")];
        for _ in 0..100 {
            assert_refused(&relay.post(path, &guess), 401, "invalid_client");
        }
        assert_refused(&relay.post(path, &guess), 429, "slow_down");
        let lines = core::mem::take(&mut relay.audit);
        let noted =
            lines.iter().filter(|line| line["event"] == "refusal" && line["reason"] == "invalid_client").count();
        assert_eq!(noted, 101, "{path}");
    }
}

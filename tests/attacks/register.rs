//! Clients that register to do harm.

use serde_json::{Value, json};

use super::support::oauth::*;
use super::support::{Relay, Reply};
use super::{Attack, ensure, refused, stays_here};

pub const ATTACKS: &[Attack] = &[
    ("redirect that is a script or a file", |relay| {
        none_is_taken(
            relay,
            &["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "vbscript:x", "blob:x", "about:blank"],
        )
    }),
    ("redirect without TLS on the internet", |relay| {
        none_is_taken(relay, &["http://evil.example/take", "http://localhost.evil.example/take", "ws://evil.example/"])
    }),
    ("redirect into a private network", |relay| {
        none_is_taken(
            relay,
            &[
                "https://10.0.0.1/x",
                "https://192.168.1.1/x",
                "https://[fd00::1]/x",
                "https://169.254.169.254/latest/meta-data",
                "https://router/x",
            ],
        )
    }),
    ("redirect with user, wildcard, fragment, dot segments", |relay| {
        none_is_taken(
            relay,
            &[
                "https://a@b.example/x",
                "https://*.example.com/x",
                "https://b.example/x#y",
                "https://b.example/a/../x",
                "https://b.example/%2e%2e/x",
            ],
        )
    }),
    ("redirect in letters that look like others", |relay| {
        none_is_taken(
            relay,
            &["https://cl\u{0430}ude.ai/callback", "https://b.example\\@c.example/x", "https://b.example/\u{202e}x"],
        )
    }),
    ("scheme that any program can take", |relay| {
        none_is_taken(relay, &["app://x", "mailto:a@b.example", "tel:1", "intent://x"])
    }),
    ("more redirects than allowed, and too long ones", |relay| {
        let many: Vec<_> = (0..11).map(|n| format!("https://b.example/{n}")).collect();
        is_refused(relay, &json!({"redirect_uris": many}))?;
        is_refused(relay, &json!({"redirect_uris": [format!("https://b.example/{}", "x".repeat(600))]}))?;
        is_refused(relay, &json!({"redirect_uris": []}))?;
        is_refused(relay, &json!({}))
    }),
    ("grants and powers that no client has", |relay| {
        is_refused(relay, &json!({"redirect_uris": [REDIRECT], "grant_types": ["client_credentials"]}))?;
        let asked = json!({"redirect_uris": [REDIRECT], "scope": "agent admin", "role": "agent", "token_endpoint_auth_method": "none"});
        let given = register_as(relay, &asked).json();
        let scope = given["scope"].as_str().unwrap_or_default();
        ensure(!scope.split(' ').any(|scope| matches!(scope, "agent" | "admin")), || scope.to_owned())
    }),
    ("body that is huge, nested or none", |relay| {
        let huge = format!(r#"{{"redirect_uris":["{REDIRECT}"],"client_name":"{}"}}"#, "x".repeat(20_000));
        let nested = format!(r#"{{"redirect_uris":{}}}"#, "[".repeat(8_000));
        for body in [huge.as_str(), &nested, "", "null", "[]", "7", "{\"redirect_uris\":\"x\"}"] {
            let reply = relay.http("POST", "/register", &[("Content-Type", "application/json")], body.as_bytes());
            ensure(matches!(reply.status, 400 | 413), || format!("{:.40}: {}", body, reply.status))?;
        }
        Ok(())
    }),
    ("id that was made up, or changed", |relay| {
        let own = register(relay);
        let changed = format!("{}{}", &own[..own.len() - 1], if own.ends_with('A') { 'B' } else { 'A' });
        for id in ["", "x", "mcp-local-tunnel-agent2", &changed, &own.to_uppercase(), &format!("{own}A")] {
            stays_here(&relay.http("GET", &authorize(id), &[], b"")).map_err(|how| format!("{id}: {how}"))?;
            refused(&exchange(relay, id, "x", VERIFIER), "invalid_client").map_err(|how| format!("{id}: {how}"))?;
        }
        Ok(())
    }),
    ("id of another relay", |relay| {
        let foreign = register(&Relay::start("attacks-other"));
        stays_here(&relay.http("GET", &authorize(&foreign), &[], b""))?;
        refused(&exchange(relay, &foreign, "x", VERIFIER), "invalid_client")
    }),
    ("secret of one client for another", |relay| {
        let metadata = json!({"redirect_uris": [REDIRECT], "token_endpoint_auth_method": "client_secret_post"});
        let (one, other) = (register_as(relay, &metadata).json(), register_as(relay, &metadata).json());
        let fields = [
            ("grant_type", "authorization_code"),
            ("client_id", text(&one, "client_id")),
            ("client_secret", text(&other, "client_secret")),
            ("code", "x"),
            ("code_verifier", VERIFIER),
        ];
        refused(&token(relay, &fields), "invalid_client")
    }),
];

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} in {value}"))
}

fn is_refused(relay: &Relay, metadata: &Value) -> Result<(), String> {
    let reply: Reply = register_as(relay, metadata);
    let error = reply.json()["error"].clone();
    let named = error == "invalid_redirect_uri" || error == "invalid_client_metadata";
    ensure(reply.status == 400 && named, || format!("{metadata}: {} {}", reply.status, reply.text()))
}

/// Each is refused alone, and none is kept beside a good one.
fn none_is_taken(relay: &Relay, redirects: &[&str]) -> Result<(), String> {
    for redirect in redirects {
        is_refused(relay, &json!({"redirect_uris": [redirect]}))?;
        let reply = register_as(relay, &json!({"redirect_uris": [REDIRECT, redirect]}));
        let kept = reply.json()["redirect_uris"].clone();
        ensure(kept == json!([REDIRECT]), || format!("{redirect} was kept: {kept}"))?;
    }
    Ok(())
}

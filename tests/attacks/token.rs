//! Codes and tokens in the wrong hands, at `/token` and `/revoke`.

use serde_json::{Value, json};

use super::support::Relay;
use super::support::oauth::*;
use super::{Attack, ensure, refused, with_token};

pub const ATTACKS: &[Attack] = &[
    ("code without a verifier", |relay| {
        let client = register(relay);
        let code = code(relay, &client);
        let fields = [("grant_type", "authorization_code"), ("client_id", &client), ("code", &code)];
        refused(&token(relay, &fields), "invalid_request")
    }),
    ("code with a guessed verifier", |relay| {
        let client = register(relay);
        let code = code(relay, &client);
        refused(&exchange(relay, &client, &code, &"w".repeat(43)), "invalid_grant")?;
        refused(&exchange(relay, &client, &code, CHALLENGE), "invalid_grant")
    }),
    ("stolen code at another client", |relay| {
        let code = code(relay, &register(relay));
        refused(&exchange(relay, &register(relay), &code, VERIFIER), "invalid_grant")?;
        refused(&exchange(relay, "mcp-local-tunnel-agent", &code, VERIFIER), "invalid_grant")
    }),
    ("code at another redirect", |relay| {
        let client = register(relay);
        let code = code(relay, &client);
        let fields = [
            ("grant_type", "authorization_code"),
            ("client_id", client.as_str()),
            ("code", code.as_str()),
            ("redirect_uri", "http://127.0.0.1:7778/callback"),
            ("code_verifier", VERIFIER),
        ];
        refused(&token(relay, &fields), "invalid_grant")
    }),
    ("code used twice", |relay| {
        let client = register(relay);
        let code = code(relay, &client);
        let (status, tokens) = exchange(relay, &client, &code, VERIFIER);
        ensure(status == 200, || format!("{tokens}"))?;
        refused(&exchange(relay, &client, &code, VERIFIER), "invalid_grant")?;
        is_dead(relay, &client, &tokens)
    }),
    ("signing people out with a code that was seen", |relay| {
        let client = register(relay);
        let code = code(relay, &client);
        let (_, tokens) = exchange(relay, &client, &code, VERIFIER);
        refused(&exchange(relay, &client, &code, &"w".repeat(43)), "invalid_grant")?;
        is_alive(relay, &tokens)
    }),
    ("code that was made up", |relay| {
        let client = register(relay);
        for made_up in ["", "x", &"A".repeat(43), "../../etc/passwd", "%00"] {
            let (status, answer) = exchange(relay, &client, made_up, VERIFIER);
            ensure(status == 400 && answer.get("access_token").is_none(), || format!("{made_up}: {answer}"))?;
        }
        Ok(())
    }),
    ("refresh token at another client", |relay| {
        let client = register(relay);
        let tokens = tokens(relay, &client);
        refused(&refresh(relay, &register(relay), &tokens), "invalid_grant")?;
        refused(&refresh(relay, "mcp-local-tunnel-agent", &tokens), "invalid_grant")?;
        is_alive(relay, &tokens)
    }),
    ("old refresh token of a thief", |relay| {
        let client = register(relay);
        let first = tokens(relay, &client);
        let mut last = first.clone();
        // One more than have their two minutes.
        for _ in 0..9 {
            let (status, next) = refresh(relay, &client, &last);
            ensure(status == 200, || format!("{next}"))?;
            last = next;
        }
        refused(&refresh(relay, &client, &first), "invalid_grant")?;
        is_dead(relay, &client, &last)
    }),
    ("refresh token of a thief over and over", |relay| {
        let client = register(relay);
        let first = tokens(relay, &client);
        let (_, second) = refresh(relay, &client, &first);
        let (_, third) = refresh(relay, &client, &second);
        let worked = (0..20).take_while(|_| refresh(relay, &client, &first).0 == 200).count();
        ensure(worked == 10, || format!("it worked {worked} times"))?;
        is_dead(relay, &client, &third)
    }),
    ("one kind of token as the other", |relay| {
        let client = register(relay);
        let tokens = tokens(relay, &client);
        let as_refresh = json!({"refresh_token": access(&tokens)});
        refused(&refresh(relay, &client, &as_refresh), "invalid_grant")?;
        let reply = with_token(relay, refresh_token(&tokens), "/mcp");
        ensure(reply.status == 401, || format!("a refresh token opens /mcp: {}", reply.status))
    }),
    ("token with one character changed", |relay| {
        let client = register(relay);
        let tokens = tokens(relay, &client);
        let token = access(&tokens);
        for at in [0, 5, token.len() / 3, token.len() / 2, token.len() - 2] {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let reply = with_token(relay, &String::from_utf8(bytes).expect("ASCII"), "/mcp");
            ensure(reply.status == 401, || format!("at {at}: {}", reply.status))?;
        }
        is_alive(relay, &tokens)
    }),
    ("grants that are not offered", |relay| {
        let client = register(relay);
        for grant in ["password", "client_credentials", "urn:ietf:params:oauth:grant-type:jwt-bearer", "implicit"] {
            let fields = [("grant_type", grant), ("client_id", &client), ("username", "ada"), ("password", "x")];
            refused(&token(relay, &fields), "unsupported_grant_type").map_err(|how| format!("{grant}: {how}"))?;
        }
        Ok(())
    }),
    ("one parameter twice at the token endpoint", |relay| {
        let client = register(relay);
        let code = code(relay, &client);
        let fields = [
            ("grant_type", "authorization_code"),
            ("client_id", client.as_str()),
            ("code", "x"),
            ("code", code.as_str()),
            ("code_verifier", VERIFIER),
        ];
        refused(&token(relay, &fields), "invalid_request")
    }),
    ("token request in a URL or as JSON", |relay| {
        let client = register(relay);
        let code = code(relay, &client);
        let fields = [
            ("grant_type", "authorization_code"),
            ("client_id", client.as_str()),
            ("code", code.as_str()),
            ("code_verifier", VERIFIER),
        ];
        let query = super::support::oauth::fields(&fields);
        let by_get = relay.http("GET", &format!("/token?{query}"), &[], b"");
        ensure(by_get.status == 405, || format!("GET: {}", by_get.text()))?;
        let in_url = relay.http("POST", &format!("/token?{query}"), &[FORM], b"");
        ensure(in_url.status == 400, || format!("in the URL: {}", in_url.text()))?;
        let body: serde_json::Map<_, _> = fields.iter().map(|(name, value)| ((*name).into(), json!(value))).collect();
        let body = Value::Object(body).to_string();
        let as_json = relay.http("POST", "/token", &[("Content-Type", "application/json")], body.as_bytes());
        ensure(matches!(as_json.status, 400 | 415), || format!("JSON: {}", as_json.text()))
    }),
    ("an agent's powers by asking for them", |relay| {
        let client = register(relay);
        let tokens = tokens(relay, &client);
        let fields = [
            ("grant_type", "refresh_token"),
            ("client_id", client.as_str()),
            ("refresh_token", refresh_token(&tokens)),
            ("scope", "agent admin *"),
            ("role", "agent"),
        ];
        let (status, more) = token(relay, &fields);
        if status != 200 {
            return Ok(());
        }
        let scope = more["scope"].as_str().unwrap_or_default();
        ensure(!scope.split(' ').any(|scope| matches!(scope, "agent" | "admin" | "*")), || scope.to_owned())?;
        let bearer = format!("Bearer {}", access(&more));
        let reply = super::tunnel::dial(relay, "/ws?name=evil", &[("Authorization", &bearer)]);
        ensure(reply.status == 403, || format!("it opens a tunnel: {}", reply.status))
    }),
    ("another resource by asking for it", |relay| {
        let client = register(relay);
        let tokens = tokens(relay, &client);
        for resource in ["https://evil.example/mcp", &format!("{}/ws", relay.url())] {
            let fields = [
                ("grant_type", "refresh_token"),
                ("client_id", client.as_str()),
                ("refresh_token", refresh_token(&tokens)),
                ("resource", resource),
            ];
            refused(&token(relay, &fields), "invalid_target")?;
        }
        is_alive(relay, &tokens)
    }),
    ("client with a secret, without it or with a wrong one", |relay| {
        let metadata = json!({"redirect_uris": [REDIRECT], "token_endpoint_auth_method": "client_secret_post"});
        let registered = register_as(relay, &metadata).json();
        let client = registered["client_id"].as_str().expect("an id");
        let code = code(relay, client);
        refused(&exchange(relay, client, &code, VERIFIER), "invalid_client")?;
        let fields = |secret| {
            [
                ("grant_type", "authorization_code"),
                ("client_id", client),
                ("client_secret", secret),
                ("code", code.as_str()),
                ("code_verifier", VERIFIER),
            ]
        };
        refused(&token(relay, &fields("wrong")), "invalid_client")?;
        let (status, answer) = token(relay, &fields(registered["client_secret"].as_str().expect("a secret")));
        ensure(status == 200, || format!("the right secret: {answer}"))
    }),
    ("revoking somebody else's tokens", |relay| {
        let client = register(relay);
        let tokens = tokens(relay, &client);
        let other = register(relay);
        for stolen in [refresh_token(&tokens), &access(&tokens)] {
            let body = fields(&[("token", stolen), ("client_id", other.as_str())]);
            relay.http("POST", "/revoke", &[FORM], body.as_bytes());
        }
        is_alive(relay, &tokens)
    }),
    ("going on with revoked tokens", |relay| {
        let client = register(relay);
        let tokens = tokens(relay, &client);
        let body = fields(&[("token", refresh_token(&tokens)), ("client_id", &client)]);
        let reply = relay.http("POST", "/revoke", &[FORM], body.as_bytes());
        ensure(reply.status == 200, || reply.text())?;
        is_dead(relay, &client, &tokens)
    }),
    ("finding out which tokens there are", |relay| {
        let client = register(relay);
        for unknown in ["x", "mlt_r_AAAA", &"A".repeat(300)] {
            let body = fields(&[("token", unknown), ("client_id", &client)]);
            let reply = relay.http("POST", "/revoke", &[FORM], body.as_bytes());
            ensure(reply.status == 200, || format!("{unknown}: {} {}", reply.status, reply.text()))?;
        }
        Ok(())
    }),
];

fn is_alive(relay: &Relay, tokens: &Value) -> Result<(), String> {
    let reply = with_token(relay, &access(tokens), "/mcp");
    ensure(reply.status != 401 && reply.status != 403, || format!("the owner is signed out: {}", reply.text()))
}

fn is_dead(relay: &Relay, client: &str, tokens: &Value) -> Result<(), String> {
    let reply = with_token(relay, &access(tokens), "/mcp");
    ensure(reply.status == 401, || format!("its access token works on: {}", reply.status))?;
    refused(&refresh(relay, client, tokens), "invalid_grant")
}

//! Whatever comes in: one answer each, no panic, no redirect to strangers.

use proptest::prelude::*;

use super::*;

const PATHS: &[&str] = &[
    "/",
    "/authorize",
    "/consent",
    "/login",
    "/callback",
    "/token",
    "/register",
    "/revoke",
    "/device",
    "/device_authorization",
    "/introspect",
    "/elsewhere",
];
const NAMES: &[&str] = &[
    "client_id",
    "client_secret",
    "redirect_uri",
    "response_type",
    "code_challenge",
    "code_challenge_method",
    "state",
    "resource",
    "scope",
    "flow",
    "request",
    "decision",
    "csrf",
    "user",
    "password",
    "grant_type",
    "code",
    "code_verifier",
    "refresh_token",
    "token",
    "user_code",
    "device_code",
    "device_name",
    "error",
    "iss",
];

/// Values that get somewhere.
fn good(relay: &mut Relay) -> Vec<String> {
    let tokens = relay.tokens();
    let code = relay.code(&tokens.client, WEB);
    let fixed = [
        "mcp-local-tunnel-agent",
        "https://app.example/oauth/client.json",
        "http://10.0.0.1/client",
        WEB,
        LOOPBACK,
        "https://evil.example/cb",
        "https://relay.example/mcp",
        "code",
        "S256",
        "authorization_code",
        "refresh_token",
        "urn:ietf:params:oauth:grant-type:device_code",
        "allow",
        VERIFIER,
    ];
    let device = body(&relay.post("/device_authorization", &[("client_id", "mcp-local-tunnel-agent")]));
    let codes = [text(&device, "device_code"), text(&device, "user_code")];
    let made = [tokens.client, tokens.access, tokens.refresh, code, challenge()].into_iter().chain(codes);
    fixed.map(ToString::to_string).into_iter().chain(made).collect()
}

/// A parameter: its name, and a good value or any other.
fn parameter() -> impl Strategy<Value = (&'static str, Option<prop::sample::Index>, String)> {
    (prop::sample::select(NAMES), prop::option::weighted(0.9, any::<prop::sample::Index>()), ".{0,9}")
}

/// A request: a path, whether it is a POST, and parameters.
type Asked = (&'static str, bool, Vec<(&'static str, Option<prop::sample::Index>, String)>);

fn requests() -> impl Strategy<Value = Vec<Asked>> {
    let parameters = prop::collection::vec(parameter(), 0..9);
    prop::collection::vec((prop::sample::select(PATHS), any::<bool>(), parameters), 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_request_gets_one_answer(requests in requests()) {
        let mut relay = Relay::new();
        let good = good(&mut relay);
        for (path, post, parameters) in requests {
            let fields: BTreeMap<_, _> = parameters.iter().map(|(name, index, other)| {
                (*name, index.as_ref().map_or(other.as_str(), |index| index.get(&good).as_str()))
            }).collect();
            let encoded = form::encode(fields);
            let reply = if post {
                relay.ask(Method::POST, path, form_headers(), &encoded)
            } else {
                relay.ask(Method::GET, &format!("{path}?{encoded}"), HeaderMap::new(), "")
            };
            prop_assert!(reply.status != StatusCode::INTERNAL_SERVER_ERROR);
            if let Some(to) = reply.headers.get(LOCATION) {
                prop_assert!(to.to_str().unwrap().starts_with(LOOPBACK), "{to:?}: only the agent's own errors go back");
            }
        }
    }

    #[test]
    fn any_body_is_answered(path in prop::sample::select(PATHS), body in ".{0,200}", cookie in "[ -~]{0,60}") {
        let mut relay = Relay::new();
        for kind in ["application/json", "application/x-www-form-urlencoded"] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            headers.insert(COOKIE, cookie.parse().unwrap());
            let reply = relay.ask(Method::POST, path, headers, &body);
            prop_assert!(reply.status.is_client_error(), "{path} {}", reply.status);
        }
    }
}

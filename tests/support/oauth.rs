//! A client's side of signing in: registration, its person's way through the pages, codes and tokens.

use serde_json::{Value, json};

use super::browser::{Browser, Form, encode, form, parameter};
use super::{PASSWORD, Relay, Reply};

/// RFC 7636 appendix B.
pub const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
pub const REDIRECT: &str = "http://127.0.0.1:7777/callback";

/// What a form is sent with.
pub const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// Registers a public client with [`REDIRECT`].
pub fn register(relay: &Relay) -> String {
    let reply = register_as(
        relay,
        &json!({"client_name": "a test", "redirect_uris": [REDIRECT], "token_endpoint_auth_method": "none"}),
    );
    assert_eq!(reply.status, 201, "{}", reply.text());
    reply.json()["client_id"].as_str().expect("an id").to_owned()
}

pub fn register_as(relay: &Relay, metadata: &Value) -> Reply {
    relay.http("POST", "/register", &[("Content-Type", "application/json")], metadata.to_string().as_bytes())
}

/// The path of a good authorization request.
pub fn authorize(client: &str) -> String {
    format!("/authorize?{}", fields(&request(client)))
}

/// Its parameters.
pub fn request(client: &str) -> Vec<(&'static str, String)> {
    vec![
        ("response_type", "code".to_owned()),
        ("client_id", client.to_owned()),
        ("redirect_uri", REDIRECT.to_owned()),
        ("state", "of-the-client".to_owned()),
        ("code_challenge", CHALLENGE.to_owned()),
        ("code_challenge_method", "S256".to_owned()),
    ]
}

/// A form's body, or a query.
pub fn fields<N: AsRef<str>, V: AsRef<str>>(fields: &[(N, V)]) -> String {
    let pairs: Vec<_> =
        fields.iter().map(|(name, value)| format!("{}={}", name.as_ref(), encode(value.as_ref()))).collect();
    pairs.join("&")
}

/// Opens the consent page and allows the client; what comes is the way to the login.
pub fn consent(browser: &mut Browser<'_>, client: &str) -> Reply {
    let page = browser.get(&authorize(client));
    assert_eq!(page.status, 200, "{}", page.text());
    browser.submit(&form(&page), &[("decision", "allow")])
}

/// The login page after consent.
pub fn login_page(browser: &mut Browser<'_>, client: &str) -> Form {
    let reply = consent(browser, client);
    let to = location(&reply);
    let path = to.split_once("//").and_then(|(_, rest)| rest.find('/').map(|at| rest[at..].to_owned())).unwrap_or(to);
    form(&browser.get(&path))
}

/// Where a form's answer leads to.
pub fn location(reply: &Reply) -> String {
    assert_eq!(reply.status, 303, "{}", reply.text());
    reply.header("location").expect("a redirect says where").to_owned()
}

/// The whole way to a code, as ada.
pub fn code(relay: &Relay, client: &str) -> String {
    let mut browser = Browser::new(relay);
    let login = login_page(&mut browser, client);
    let back = location(&browser.submit(&login, &[("user", "ada"), ("password", PASSWORD)]));
    assert!(back.starts_with(REDIRECT), "{back}");
    assert_eq!(parameter(&back, "state").as_deref(), Some("of-the-client"));
    assert_eq!(parameter(&back, "iss"), Some(relay.url()));
    parameter(&back, "code").expect("a code")
}

pub fn token(relay: &Relay, form: &[(&str, &str)]) -> (u16, Value) {
    let reply = relay.http("POST", "/token", &[FORM], fields(form).as_bytes());
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    (reply.status, reply.json())
}

pub fn exchange(relay: &Relay, client: &str, code: &str, verifier: &str) -> (u16, Value) {
    let fields = [
        ("grant_type", "authorization_code"),
        ("client_id", client),
        ("code", code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", verifier),
    ];
    token(relay, &fields)
}

/// Signs in as ada: the tokens.
pub fn tokens(relay: &Relay, client: &str) -> Value {
    let (status, tokens) = exchange(relay, client, &code(relay, client), VERIFIER);
    assert_eq!(status, 200, "{tokens}");
    tokens
}

pub fn refresh(relay: &Relay, client: &str, tokens: &Value) -> (u16, Value) {
    let refresh = refresh_token(tokens);
    token(relay, &[("grant_type", "refresh_token"), ("client_id", client), ("refresh_token", refresh)])
}

pub fn refresh_token(tokens: &Value) -> &str {
    tokens["refresh_token"].as_str().expect("a refresh token")
}

pub fn access(tokens: &Value) -> String {
    tokens["access_token"].as_str().expect("an access token").to_owned()
}

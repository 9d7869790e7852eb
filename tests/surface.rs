//! The public surface of the built relay: what each path answers to each method, and what every answer and every page
//! carries to keep browsers from doing harm with it.

mod support;

use serde_json::json;
use support::browser::{Browser, form};
use support::oauth::{FORM, authorize, fields, register};
use support::{PASSWORD, Relay, Reply};

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];

/// What whoever brings nothing gets, in the order of [`METHODS`].
const SURFACE: &[(&str, [u16; 7])] = &[
    ("/", [200, 200, 405, 405, 405, 405, 403]),
    ("/authorize", [400, 400, 405, 405, 405, 405, 403]),
    ("/callback", [400, 405, 405, 405, 405, 405, 403]),
    ("/consent", [405, 405, 400, 405, 405, 405, 403]),
    ("/login", [400, 400, 400, 405, 405, 405, 403]),
    ("/device", [200, 200, 400, 405, 405, 405, 403]),
    ("/account", [200, 200, 403, 405, 405, 405, 403]),
    ("/token", [405, 405, 400, 405, 405, 405, 204]),
    ("/register", [405, 405, 400, 405, 405, 405, 204]),
    ("/revoke", [405, 405, 400, 405, 405, 405, 204]),
    ("/device_authorization", [405, 405, 400, 405, 405, 405, 403]),
    ("/introspect", [405, 405, 400, 405, 405, 405, 403]),
    ("/mcp", [401, 405, 401, 405, 401, 405, 204]),
    ("/mcp/files", [401, 405, 401, 405, 401, 405, 204]),
    ("/mcp/laptop/files", [401, 405, 401, 405, 401, 405, 204]),
    ("/ws", [401, 405, 405, 405, 405, 405, 403]),
    ("/.well-known/oauth-authorization-server", [200, 200, 405, 405, 405, 405, 204]),
    ("/.well-known/oauth-protected-resource", [200, 200, 405, 405, 405, 405, 204]),
    ("/.well-known/oauth-protected-resource/mcp/files", [200, 200, 405, 405, 405, 405, 204]),
    ("/.well-known/openid-configuration", [404, 404, 404, 404, 404, 404, 404]),
    ("/healthz", [200, 200, 405, 405, 405, 405, 405]),
    ("/readyz", [200, 200, 405, 405, 405, 405, 405]),
    ("/nothing", [404, 404, 404, 404, 404, 404, 404]),
];

#[test]
fn every_path_answers_every_method_as_it_should_and_guarded() {
    let relay = Relay::start("surface");
    for (path, expected) in SURFACE {
        for (method, status) in METHODS.into_iter().zip(expected) {
            let reply = match method {
                "HEAD" => {
                    let mut stream = relay.send(method, path, &[], b"").expect("it is sent");
                    let (status, headers) = Reply::head(&mut stream).expect("a head");
                    Reply { status, headers, body: Vec::new() }
                }
                _ => relay.http(method, path, &[], b""),
            };
            assert_eq!(reply.status, *status, "{method} {path}: {}", reply.text());
            guarded(&reply, &format!("{method} {path}"));
        }
    }
}

#[test]
fn every_page_is_guarded_and_can_be_used_by_everybody() {
    let relay = Relay::start("surface-pages");
    let mut browser = Browser::new(&relay);
    usable(&browser.get("/"), "landing");
    let client = register(&relay);
    let consent = browser.get(&authorize(&client));
    usable(&consent, "consent");
    guarded(&browser.submit(&form(&consent), &[("decision", "deny")]), "denied");
    usable(&browser.submit(&form(&consent), &[("decision", "allow")]), "denied before");
    usable(&browser.get("/consent"), "back to a form");
    usable(&browser.get("/authorize?client_id=x"), "unknown client");
    usable(&browser.get(&authorize(&client).replace("S256", "plain")), "bad request with a way back");

    usable(&browser.get("/account"), "signed out");
    let page = browser.get("/account");
    let to_login = browser.submit(&form(&page), &[("action", "sign-in")]);
    guarded(&to_login, "to the login");
    let login = browser.get(&path(&relay, &to_login));
    usable(&login, "login");
    usable(&browser.submit(&form(&login), &[("user", "ada"), ("password", "wrong")]), "wrong password");
    relay.mint("ada", "client");
    let in_account = browser.submit(&form(&login), &[("user", "ada"), ("password", PASSWORD)]);
    guarded(&in_account, "to the account");
    let account = browser.get("/account");
    assert!(account.text().contains("Revoke"), "{}", account.text());
    usable(&account, "account");

    usable(&browser.get("/device"), "device");
    let device = browser.get("/device");
    usable(&browser.submit(&form(&device), &[("user_code", "x")]), "no code");
    usable(&browser.submit(&form(&device), &[("user_code", "BCDF-GHJK")]), "unknown code");
    let ask = fields(&[("client_id", "mcp-local-tunnel-agent"), ("device_name", "nas")]);
    let code = relay.http("POST", "/device_authorization", &[FORM], ask.as_bytes()).json();
    let code = code["user_code"].as_str().expect("a code").to_owned();
    let asked = browser.submit(&form(&device), &[("user_code", &code)]);
    usable(&asked, "device's consent");
    usable(&browser.submit(&form(&asked), &[("decision", "deny")]), "device denied");
    usable(&browser.get("/nowhere"), "nothing there");
    usable(&browser.submit_with(&form(&account), &[], &[FORM, ("Origin", "https://evil.example")]), "forged");

    let many = (0..200).map(|_| browser.get("/authorize?client_id=x")).find(|reply| reply.status == 429);
    let many = many.expect("it is too much some time");
    assert!(many.header("retry-after").is_some_and(|wait| wait.parse::<u32>().is_ok()), "{:?}", many.headers);
    usable(&many, "too many");
}

fn path(relay: &Relay, reply: &Reply) -> String {
    let to = reply.header("location").expect("it leads somewhere");
    to.strip_prefix(&relay.url()).expect("within the relay").to_owned()
}

/// What every answer must carry.
fn guarded(reply: &Reply, what: &str) {
    let has = |name: &str, value: &str| {
        let own = reply.header(name);
        assert!(own.is_some_and(|own| own.contains(value)), "{what}: {name} is {own:?}, not {value}");
    };
    let kind = reply.header("content-type").unwrap_or_default();
    if !kind.is_empty() {
        has("x-content-type-options", "nosniff");
    }
    match (reply.status, kind) {
        (300..400, _) => {
            assert!(reply.body.is_empty() && kind.is_empty(), "{what}");
            has("cache-control", "no-store");
            has("referrer-policy", "no-referrer");
        }
        (_, "text/html; charset=utf-8") => {
            has("cache-control", "no-store");
            has("referrer-policy", "no-referrer");
            has("x-frame-options", "DENY");
            let policy = "content-security-policy";
            for part in ["default-src 'none';", "base-uri 'none'", "frame-ancestors 'none'", "style-src 'sha256-"] {
                has(policy, part);
            }
            let policy = reply.header(policy).unwrap_or_default();
            assert!(
                !policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"),
                "{what}: {policy}"
            );
            assert_eq!(reply.header("access-control-allow-origin"), None, "{what}: no page may read it");
        }
        // What everybody may know may be kept for a while.
        (200, "application/json") if what.contains("/.well-known/") => has("cache-control", "max-age=300"),
        (_, "application/json" | "text/plain; charset=utf-8") => has("cache-control", "no-store"),
        (204 | 403, "") => assert!(reply.body.is_empty(), "{what}"),
        (status, kind) => panic!("{what}: {status} {kind}"),
    }
    assert_eq!(reply.header("allow").is_some(), reply.status == 405, "{what}: it says what is allowed");
    if matches!(reply.status, 429 | 503) {
        assert!(reply.header("retry-after").is_some(), "{what}: when to come again");
    }
}

/// What a page must be: guarded, of one title and one heading, with nothing from elsewhere, its fields labelled, and
/// nothing that is reached in another order than it is read.
fn usable(page: &Reply, what: &str) {
    guarded(page, what);
    let text = page.text();
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{what}: {text}");
    assert!(text.starts_with("<!DOCTYPE html><html lang=\"en\">"), "{what}: {text}");
    assert_eq!(text.matches("<h1").count(), 1, "{what}: {text}");
    assert!(text.contains("<title>") && !text.contains("<title></title>"), "{what}: {text}");
    for foreign in
        ["<script", "<img", "<link", "<iframe", " src=", "style=\"", " onclick", "tabindex", "@import", "url("]
    {
        assert!(!text.contains(foreign), "{what}: {foreign}: {text}");
    }
    for input in text.split("<input").skip(1).filter_map(|rest| rest.split('>').next()) {
        if input.contains("type=\"hidden\"") {
            continue;
        }
        let id = input.split(" id=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        assert!(!id.is_empty() && text.contains(&format!("<label for=\"{id}\">")), "{what}: {input}");
    }
    for button in text.split("<button").skip(1).filter_map(|rest| rest.split("</button>").next()) {
        let label = button.split('>').nth(1).unwrap_or_default().trim();
        assert!(!label.is_empty() && button.contains("type=\"submit\""), "{what}: {button}");
    }
    for id in text.split("aria-describedby=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(text.contains(&format!(" id=\"{id}\"")), "{what}: {id} describes it and is not there");
    }
}

#[test]
fn unknown_hosts_and_origins_are_told_off_guarded() {
    let relay = Relay::start("surface-foreign");
    for headers in [&[("Host", "evil.example")][..], &[("Origin", "https://evil.example")]] {
        let reply = relay.http("GET", "/mcp", headers, b"");
        assert_eq!(reply.status, 403, "{headers:?}: {}", reply.text());
        guarded(&reply, "foreign");
    }
}

/// The lines of the log with `text`.
fn lines_with(relay: &Relay, text: &str) -> usize {
    relay.process.log().lines().filter(|line| line.contains(text)).count()
}

const NO_PROXY_KNOWN: &str = "trustedProxies must name the proxy";
const FORWARDED: &str = "X-Forwarded-For came from an address that is not in trustedProxies";

#[test]
fn relay_behind_an_https_proxy_that_it_does_not_know_says_so_at_the_start() {
    let https = "https://relay.example.com";
    Relay::with("surface-proxy", &json!({"issuerUrl": https})).process.line(NO_PROXY_KNOWN);
    for (name, more) in [
        ("surface-known-proxy", json!({"issuerUrl": https, "trustedProxies": ["127.0.0.1"]})),
        ("surface-no-proxy", json!({})),
    ] {
        let mut relay = Relay::with(name, &more);
        relay.process.stop();
        assert_eq!(lines_with(&relay, NO_PROXY_KNOWN), 0, "{}", relay.process.log());
    }
}

#[test]
fn proxy_that_is_not_trusted_is_told_of_once() {
    let relay = Relay::start("surface-untrusted-proxy");
    let other = Relay::with("surface-trusted-proxy", &json!({"trustedProxies": ["127.0.0.1"]}));
    for relay in [&relay, &other] {
        relay.http("GET", "/", &[], b"");
        assert_eq!(lines_with(relay, FORWARDED), 0, "nothing was forwarded yet");
        for address in ["203.0.113.7", "203.0.113.8"] {
            relay.http("GET", "/", &[("X-Forwarded-For", address)], b"");
        }
    }
    let line = relay.process.line(FORWARDED);
    assert!(line.contains("peer=127.0.0.1") && !line.contains("203.0.113"), "{line}");
    relay.http("GET", "/", &[], b"");
    assert_eq!((lines_with(&relay, FORWARDED), lines_with(&other, FORWARDED)), (1, 0));
}

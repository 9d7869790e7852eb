//! The device grant: codes guessed, phished, taken.

use serde_json::Value;

use super::support::browser::{Browser, form};
use super::support::oauth::*;
use super::support::{PASSWORD, Relay, Reply};
use super::{Attack, ensure, refused, stays_here, with_token};

pub const ATTACKS: &[Attack] = &[
    ("client that is no agent", |relay| {
        let body = fields(&[("client_id", &register(relay))]);
        let reply = relay.http("POST", "/device_authorization", &[FORM], body.as_bytes());
        refused(&(reply.status, reply.json()), "unauthorized_client")
    }),
    ("device code at another client", |relay| {
        let begun = begin(relay, "nas");
        refused(&poll(relay, &register(relay), &begun), "unauthorized_client")
    }),
    ("device code that was made up", |relay| {
        let fields = [("grant_type", GRANT), ("client_id", AGENT), ("device_code", "AAAA")];
        refused(&token(relay, &fields), "invalid_grant")
    }),
    ("tokens before anybody agreed, and faster than allowed", |relay| {
        let begun = begin(relay, "nas");
        refused(&poll(relay, AGENT, &begun), "authorization_pending")?;
        refused(&poll(relay, AGENT, &begun), "slow_down")
    }),
    ("link that connects a device by itself", |relay| {
        let begun = begin(relay, "nas");
        let link = begun["verification_uri_complete"].as_str().expect("a link").replace(&relay.url(), "");
        let page = Browser::new(relay).get(&link);
        ensure(page.status == 200 && page.header("location").is_none(), || format!("{page:?}"))?;
        let allowed = page.text().contains("name=\"decision\"");
        ensure(!allowed, || "consent is asked before the person confirmed the code".into())?;
        refused(&poll(relay, AGENT, &begun), "authorization_pending")
    }),
    ("code typed by a foreign page", |relay| {
        let begun = begin(relay, "nas");
        let code = begun["user_code"].as_str().expect("a code");
        for field in [("Sec-Fetch-Site", "cross-site"), ("Origin", "https://evil.example")] {
            let reply = relay.http("POST", "/device", &[FORM, field], fields(&[("user_code", code)]).as_bytes());
            stays_here(&reply)?;
        }
        refused(&poll(relay, AGENT, &begun), "authorization_pending")
    }),
    ("consent to a device in another browser", |relay| {
        let begun = begin(relay, "nas");
        let page = typed(&mut Browser::new(relay), &begun);
        stays_here(&Browser::new(relay).submit(&form(&page), &[("decision", "allow")]))?;
        refused(&poll(relay, AGENT, &begun), "authorization_pending")
    }),
    ("script in a device's name", |relay| {
        let page = typed(&mut Browser::new(relay), &begin(relay, "<script>alert(1)</script>\u{202e}"));
        let text = page.text();
        ensure(!text.contains("<script>alert") && !text.contains('\u{202e}'), || text.clone())
    }),
    ("device's tokens twice, or at the endpoint of clients", |relay| {
        let begun = begin(relay, "nas");
        let mut browser = Browser::new(relay);
        let page = typed(&mut browser, &begun);
        let to = location(&browser.submit(&form(&page), &[("decision", "allow")]));
        let login = form(&browser.get(&to.replace(&relay.url(), "")));
        browser.submit(&login, &[("user", "ada"), ("password", PASSWORD)]);
        let (status, tokens) = poll(relay, AGENT, &begun);
        ensure(status == 200, || format!("the device itself: {tokens}"))?;
        refused(&poll(relay, AGENT, &begun), "invalid_grant")?;
        let reply = with_token(relay, &access(&tokens), "/mcp");
        ensure(reply.status == 403, || format!("an agent's token opens /mcp: {}", reply.status))
    }),
    ("codes guessed one after the other", |relay| {
        begin(relay, "nas");
        let mut browser = Browser::new(relay);
        let page = form(&browser.get("/device"));
        let mut guesses = (0..40_u32).map(|n| {
            let letters: String = (0..8).map(|at| LETTERS[usize::try_from((n >> at) & 1).expect("a bit")]).collect();
            browser.submit(&page, &[("user_code", &letters)])
        });
        ensure(guesses.any(|reply| reply.status == 429), || "forty guesses were all judged".into())
    }),
    ("devices without end", |relay| {
        let begun = |n: u32| {
            let body = fields(&[("client_id", AGENT), ("device_name", &format!("device {n}"))]);
            relay.http("POST", "/device_authorization", &[FORM], body.as_bytes()).status
        };
        ensure((0..60).map(begun).any(|status| status == 429), || "sixty devices wait at once".into())
    }),
];

const AGENT: &str = "mcp-local-tunnel-agent";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
const LETTERS: [char; 2] = ['B', 'C'];

fn begin(relay: &Relay, name: &str) -> Value {
    let body = fields(&[("client_id", AGENT), ("device_name", name)]);
    let reply = relay.http("POST", "/device_authorization", &[FORM], body.as_bytes());
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

fn poll(relay: &Relay, client: &str, begun: &Value) -> (u16, Value) {
    let code = begun["device_code"].as_str().expect("a code");
    token(relay, &[("grant_type", GRANT), ("client_id", client), ("device_code", code)])
}

/// The consent page, after the person typed the device's code.
fn typed(browser: &mut Browser<'_>, begun: &Value) -> Reply {
    let page = form(&browser.get("/device"));
    browser.submit(&page, &[("user_code", begun["user_code"].as_str().expect("a code"))])
}

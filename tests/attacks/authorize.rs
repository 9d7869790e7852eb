//! A link to `/authorize` that somebody else made.

use serde_json::json;

use super::support::oauth::{FORM, REDIRECT, fields, register, register_as, request};
use super::support::{Relay, Reply};
use super::{Attack, ensure, stays_here};

pub const ATTACKS: &[Attack] = &[
    ("unknown client with a redirect of its own", |relay| {
        let reply = ask(relay, "nobody", &[("redirect_uri", "https://evil.example/take")]);
        stays_here(&reply)?;
        ensure(!reply.text().contains("href=\"https://evil.example"), || "the page leads there".into())
    }),
    ("redirect that was never registered", |relay| foreign_redirect(relay, "https://evil.example/take")),
    ("redirect that begins like the registered one", |relay| {
        foreign_redirect(relay, &format!("{REDIRECT}/../../take"))?;
        foreign_redirect(relay, &format!("{REDIRECT}.evil.example"))?;
        foreign_redirect(relay, &format!("{REDIRECT}?next=https://evil.example"))
    }),
    ("redirect with the registered host as user name", |relay| {
        foreign_redirect(relay, "http://127.0.0.1:7777@evil.example/callback")?;
        foreign_redirect(relay, "http://127.0.0.1:7777%40evil.example/callback")
    }),
    ("redirect with a fragment, a backslash, a tab", |relay| {
        foreign_redirect(relay, &format!("{REDIRECT}#take"))?;
        foreign_redirect(relay, "http://127.0.0.1:7777\\@evil.example/callback")?;
        foreign_redirect(relay, "http://127.0.0.1:7777/call\tback")
    }),
    ("redirect to another loopback path", |relay| {
        foreign_redirect(relay, "http://127.0.0.1:7777/other")?;
        foreign_redirect(relay, "http://127.0.0.1:7777/callback/")?;
        foreign_redirect(relay, "http://127.0.0.2:7777/callback")
    }),
    ("the agent's client with a redirect on the internet", |relay| {
        for redirect in
            ["https://evil.example/callback", "http://localhost.evil.example/callback", "http://10.0.0.1/callback"]
        {
            stays_here(&ask(relay, "mcp-local-tunnel-agent", &[("redirect_uri", redirect)]))?;
        }
        Ok(())
    }),
    ("implicit grant", |relay| goes_no_further(relay, &[("response_type", "token")])),
    ("hybrid grant", |relay| goes_no_further(relay, &[("response_type", "code id_token")])),
    ("answer in a fragment or a form", |relay| {
        goes_no_further(relay, &[("response_mode", "fragment")])?;
        goes_no_further(relay, &[("response_mode", "form_post")])
    }),
    ("no challenge", |relay| goes_no_further(relay, &[("code_challenge", "")])),
    ("challenge in the clear", |relay| goes_no_further(relay, &[("code_challenge_method", "plain")])),
    ("challenge too short to be a hash", |relay| {
        goes_no_further(relay, &[("code_challenge", &"a".repeat(42))])?;
        goes_no_further(relay, &[("code_challenge", &"a".repeat(44))])
    }),
    ("one parameter twice", |relay| {
        let honest = fields(&request(&register(relay)));
        for twice in ["redirect_uri=https%3A%2F%2Fevil.example", "client_id=other", "response_type=token", "state=x"] {
            stays_here(&relay.http("GET", &format!("/authorize?{honest}&{twice}"), &[], b""))?;
        }
        Ok(())
    }),
    ("resource of somebody else", |relay| {
        goes_no_further(relay, &[("resource", "https://evil.example/mcp")])?;
        goes_no_further(relay, &[("resource", &format!("{}/ws", relay.url()))])
    }),
    ("resource of another program on this machine", |relay| {
        let port = relay.port ^ 1;
        goes_no_further(relay, &[("resource", &format!("http://localhost:{port}/mcp"))])?;
        goes_no_further(relay, &[("resource", &format!("http://127.0.0.1:{port}/mcp"))])?;
        goes_no_further(relay, &[("resource", "http://[::1]/mcp")])
    }),
    ("scope that is none, to get all of them", |relay| {
        let text = ask(relay, &register(relay), &[("scope", "mcp:reed")]).text();
        ensure(!text.contains("run tools on your devices") && !text.contains("restart"), || text.clone())
    }),
    ("consent in the link", |relay| {
        let client = register(relay);
        let query = format!("{}&decision=allow&prompt=none&approve=1", fields(&request(&client)));
        let reply = relay.http("GET", &format!("/authorize?{query}"), &[], b"");
        ensure(reply.header("location").is_none(), || format!("no page was shown: {reply:?}"))
    }),
    ("authorize by POST", |relay| {
        let body = fields(&request(&register(relay)));
        stays_here(&relay.http("POST", "/authorize", &[FORM], body.as_bytes()))
    }),
    ("script in a client's name and in a state", |relay| {
        let evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>";
        let metadata = json!({"client_name": evil, "redirect_uris": [REDIRECT]});
        let client = register_as(relay, &metadata).json()["client_id"].as_str().expect("an id").to_owned();
        let page = ask(relay, &client, &[("state", evil)]);
        ensure(page.status == 200, || format!("the page itself: {}", page.text()))?;
        let text = page.text();
        ensure(!text.contains("<script") && !text.contains("<img"), || text.clone())
    }),
    ("name that turns the text around", |relay| {
        let metadata = json!({"client_name": "Claude\u{202e}\u{2066}\u{200b}\u{0007}", "redirect_uris": [REDIRECT]});
        let client = register_as(relay, &metadata).json()["client_id"].as_str().expect("an id").to_owned();
        let text = ask(relay, &client, &[]).text();
        ensure(!text.contains(['\u{202e}', '\u{2066}', '\u{200b}', '\u{0007}']), || text.clone())
    }),
    ("header in a state", |relay| {
        let reply = ask(relay, &register(relay), &[("state", "x\r\nSet-Cookie: taken=1\r\n\r\n<b>")]);
        let planted = reply.headers.iter().any(|(name, value)| name == "set-cookie" && value.contains("taken"));
        ensure(!planted, || format!("{:?}", reply.headers))
    }),
    ("page in a frame, cached, or told to others", |relay| {
        let reply = ask(relay, &register(relay), &[]);
        let policy = reply.header("content-security-policy").unwrap_or_default();
        ensure(policy.contains("frame-ancestors 'none'") && policy.contains("default-src 'none'"), || policy.into())?;
        ensure(reply.header("cache-control") == Some("no-store"), || format!("{:?}", reply.headers))?;
        ensure(reply.header("referrer-policy") == Some("no-referrer"), || format!("{:?}", reply.headers))?;
        ensure(reply.header("access-control-allow-origin").is_none(), || "pages may read it".into())
    }),
    ("state of a hundred kilobytes", |relay| {
        let reply = ask(relay, &register(relay), &[("state", &"s".repeat(100_000))]);
        stays_here(&reply)
    }),
];

/// A request that is good but for these parameters.
fn ask(relay: &Relay, client: &str, changes: &[(&str, &str)]) -> Reply {
    let honest = request(client);
    let kept = honest.iter().filter(|(name, _)| !changes.iter().any(|(other, _)| other == name));
    let all: Vec<_> = kept.map(|(name, value)| (*name, value.as_str())).chain(changes.iter().copied()).collect();
    relay.http("GET", &format!("/authorize?{}", fields(&all)), &[], b"")
}

/// Nobody is sent to `redirect`, and no page leads there.
fn foreign_redirect(relay: &Relay, redirect: &str) -> Result<(), String> {
    let reply = ask(relay, &register(relay), &[("redirect_uri", redirect)]);
    stays_here(&reply).map_err(|how| format!("{redirect}: {how}"))?;
    ensure(!reply.text().contains("href="), || format!("{redirect}: the page leads on: {}", reply.text()))
}

/// The request is refused on the relay's own page: a client that registered itself gets nobody bounced to it.
fn goes_no_further(relay: &Relay, changes: &[(&str, &str)]) -> Result<(), String> {
    let reply = ask(relay, &register(relay), changes);
    stays_here(&reply)?;
    ensure(!reply.text().contains("name=\"decision\""), || "consent is asked all the same".into())
}

//! A person's own page and the operator's commands at the built program: what they show, and that what they end is over.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::browser::{Browser, Form, form};
use support::{Client, PASSWORD, Relay, Reply, eventually, program, run};

fn demo_server() -> Value {
    json!({"command": [program(), "demo-server"]})
}

/// Signs in to the page.
fn open_account<'a>(relay: &'a Relay, user: &str) -> (Browser<'a>, Reply) {
    let mut browser = Browser::new(relay);
    let page = browser.get("/account");
    assert_eq!(page.status, 200, "{}", page.text());
    let reply = browser.submit(&form(&page), &[("action", "sign-in")]);
    let login = browser.get(&path(relay, &reply));
    let reply = browser.submit(&form(&login), &[("user", user), ("password", PASSWORD)]);
    let page = browser.get(&path(relay, &reply));
    assert!(page.text().contains("Signed in"), "{}", page.text());
    (browser, page)
}

fn path(relay: &Relay, reply: &Reply) -> String {
    assert_eq!(reply.status, 303, "{}", reply.text());
    let to = reply.header("location").expect("it leads somewhere");
    to.strip_prefix(&relay.url()).expect("within the relay").to_owned()
}

/// The form of the page that names `grant`, or the one with that button.
fn form_with(page: &Reply, mark: &str) -> Form {
    let text = page.text();
    let part =
        text.split("<form").skip(1).find(|part| part.split("</form>").next().is_some_and(|it| it.contains(mark)));
    let body = format!("<form{}", part.unwrap_or_else(|| panic!("{mark}: {text}")));
    form(&Reply { status: 200, headers: Vec::new(), body: body.into_bytes() })
}

fn grants(relay: &Relay, args: &[&str]) -> Value {
    let output = run(relay.home.path(), &relay.config, &[&["grants"], args, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// Whether a client's token is a good one. What it asks outside of a session is refused for that alone.
fn is_let_in(relay: &Relay, token: &str) -> bool {
    let bearer = format!("Bearer {token}");
    let body = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
    ];
    match relay.http("POST", "/mcp", &headers, body).status {
        400 => true,
        401 => false,
        other => panic!("{other}"),
    }
}

#[test]
fn person_revokes_a_device_and_its_tunnel_is_gone() {
    let relay = Relay::start("account-device");
    let agent = relay.agent("<laptop>", &json!({"demo": demo_server()}));
    let mut client = Client::connect(&relay);
    client.until_listed("demo__echo");
    let (mut browser, page) = open_account(&relay, "ada");
    assert!(page.text().contains("&lt;laptop&gt;") && page.text().contains("Connected now"), "{}", page.text());
    let (_, eves) = open_account(&relay, "eve");
    assert!(!eves.text().contains("laptop"), "{}", eves.text());
    let list = grants(&relay, &["list", "--user", "ada"]);
    let list = list["grants"].as_array().unwrap_or_else(|| panic!("{list}"));
    let at_work = list.iter().find(|grant| grant["role"] == "client").unwrap_or_else(|| panic!("{list:?}"));
    assert!(at_work["used"].is_u64() && at_work["scope"] == "mcp:tools mcp:read tunnel:manage", "{at_work}");
    let device = list.iter().find(|grant| grant["device"] == "<laptop>").unwrap_or_else(|| panic!("{list:?}"));
    let id = device["id"].as_str().expect("an id");
    let reply = browser.submit(&form_with(&page, id), &[("action", "revoke")]);
    let page = browser.get(&path(&relay, &reply));
    assert!(!page.text().contains("laptop"), "{}", page.text());
    eventually("its tools are gone", Duration::from_secs(5), || {
        let tools = client.tools();
        if tools.contains(&"demo__echo".to_owned()) { Err(format!("{tools:?}")) } else { Ok(()) }
    });
    agent.process.line("revoked");
    let reply = browser.submit(&form_with(&page, "sign-out"), &[("action", "sign-out")]);
    assert!(!browser.get(&path(&relay, &reply)).text().contains("Signed in"));
}

#[test]
fn operator_lists_and_revokes_with_and_without_a_running_relay() {
    let mut relay = Relay::start("grants");
    let (one, two, eves) = (relay.mint("ada", "client"), relay.mint("ada", "client"), relay.mint("eve", "client"));
    let list = grants(&relay, &["list"]);
    assert_eq!(list["grants"].as_array().map(Vec::len), Some(3), "{list}");
    let text = run(relay.home.path(), &relay.config, &["grants", "list", "--user", "eve"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("local:eve") && !text.contains("ada") && text.contains("client's token"), "{text}");
    assert!(is_let_in(&relay, &eves));
    let id = grants(&relay, &["list", "--user", "eve"])["grants"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(grants(&relay, &["revoke", &id]), json!({"ok": true}));
    assert!(!is_let_in(&relay, &eves), "at once");
    relay.process.kill();
    assert_eq!(grants(&relay, &["revoke", "--user", "ada"]), json!({"ok": true, "revoked": 2}));
    relay.kill_and_restart();
    assert!([one, two, eves].iter().all(|token| !is_let_in(&relay, token)));
    assert_eq!(grants(&relay, &["list"]), json!({"ok": true, "grants": []}));
    for wrong in [&["grants", "revoke"][..], &["grants", "revoke", "x", "--user", "ada"], &["grants", "list", "x"]] {
        assert_eq!(run(relay.home.path(), &relay.config, wrong).status.code(), Some(2), "{wrong:?}");
    }
    let unknown = run(relay.home.path(), &relay.config, &["grants", "revoke", "nothing"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("grants list"), "{unknown:?}");
}

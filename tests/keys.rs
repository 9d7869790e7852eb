//! The operator's commands about master keys, at a running relay and beside none.

mod support;

use serde_json::{Value, json};
use support::{Client, Relay, run};

/// What a command prints with `--json`, and its exit code.
fn keys(relay: &Relay, args: &[&str]) -> (i32, Value) {
    let args = [&["keys"], args, &["--json"]].concat();
    let output = run(relay.home.path(), &relay.config, &args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().expect("it ends"), serde_json::from_str(&text).unwrap_or_default())
}

fn listed(relay: &Relay) -> Vec<String> {
    let (code, list) = keys(relay, &["list"]);
    assert_eq!(code, 0, "{list}");
    let keys = list["keys"].as_array().expect("a list");
    assert!(keys.iter().enumerate().all(|(index, key)| key["seals"] == (index == 0)), "{list}");
    keys.iter().map(|key| key["id"].as_str().expect("an id").to_owned()).collect()
}

/// The status of a request with that token.
fn ask(relay: &Relay, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json"), ("Accept", "*/*")];
    let body = br#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
    relay.http("POST", "/mcp", &headers, body).status
}

#[test]
fn rotated_keys_are_taken_at_once_kept_and_shown_without_their_material() {
    let mut relay = Relay::start("keys-rotate");
    let first = listed(&relay);
    let token = relay.mint("ada", "client");
    let mut session = Client::with_token(&relay, token.clone());
    assert_eq!(keys(&relay, &["rotate"]).0, 0);
    assert!(session.tools().contains(&"status".to_owned()), "what the old key sealed still opens");
    let second = listed(&relay);
    assert_eq!((second.len(), &second[1..]), (2, &first[..]));
    let newer = relay.mint("ada", "client");

    relay.process.kill();
    assert_eq!(keys(&relay, &["rotate"]).0, 0, "without a running relay its state is changed");
    relay.kill_and_restart();
    let third = listed(&relay);
    assert_eq!(third[1..], second[..]);
    assert_eq!([&token, &newer].map(|token| ask(&relay, token)), [200, 200]);

    let material = std::fs::read_to_string(relay.state_dir().join("master.key")).expect("the keys are kept");
    let output = run(relay.home.path(), &relay.config, &["keys", "list"]);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned() + &relay.process.log();
    assert_eq!(material.lines().count(), 3);
    for key in material.lines().filter_map(|line| line.split(' ').next()) {
        assert!(key.starts_with("mlts_") && !shown.contains(key), "{shown}");
    }
}

#[test]
fn everybody_is_signed_out_at_once_and_for_good() {
    let mut relay = Relay::start("keys-revoke");
    let mut agent = relay.agent("laptop", &json!({"demo": {"command": [support::program(), "demo-server"]}}));
    let token = relay.mint("ada", "client");
    Client::with_token(&relay, token.clone()).until_listed("demo__echo");
    assert_eq!(keys(&relay, &["revoke-all"]).0, 2, "nobody is there to be asked");
    assert_eq!(ask(&relay, &token), 200);

    let before = listed(&relay);
    let (code, answer) = keys(&relay, &["revoke-all", "--yes"]);
    assert!(code == 0 && answer["renewed"] == true && answer["signedOut"] == 2, "{answer}");
    assert_eq!(ask(&relay, &token), 401);
    let after = listed(&relay);
    assert!(after.len() == 1 && !before.contains(&after[0]));
    assert_eq!(agent.process.wait(), Some(3), "the tunnel ends, and the agent with it: {}", agent.process.log());
    agent.process.line("tunnel closed code=Revoked");
    relay.kill_and_restart();
    assert_eq!(ask(&relay, &token), 401);
    let mut client = Client::connect(&relay);
    assert_eq!(client.call("status", &json!({}))["result"]["structuredContent"]["connected"], false);
}

#[test]
fn configured_secrets_are_rotated_in_the_configuration() {
    let old = "the operator's secret";
    let mut relay = Relay::with("keys-secret", &json!({"secret": old}));
    let new = run(relay.home.path(), &relay.config, &["gen-secret"]).stdout;
    let new = String::from_utf8(new).expect("text").trim().to_owned();
    let token = relay.mint("ada", "client");
    let output = run(relay.home.path(), &relay.config, &["keys", "rotate"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("gen-secret") && said.contains("restart"), "{said}");
    relay.config["secret"] = json!([new, old]);
    relay.kill_and_restart();
    assert_eq!(ask(&relay, &token), 200);
    assert!(relay.process.log().contains("gen-secret"), "{}", relay.process.log());
    let newer = relay.mint("ada", "client");
    relay.config["secret"] = json!(new);
    relay.kill_and_restart();
    assert_eq!([&token, &newer].map(|token| ask(&relay, token)), [401, 200]);
    let (code, answer) = keys(&relay, &["revoke-all", "--yes"]);
    assert!(code == 0 && answer["renewed"] == false, "{answer}");
    assert_eq!(ask(&relay, &newer), 401);
    relay.kill_and_restart();
    assert_eq!(ask(&relay, &newer), 401, "the same key does not bring it back");
}

//! Clients of the configuration and clients with a metadata document, at the built program.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use support::browser::Browser;
use support::oauth::{REDIRECT, VERIFIER, authorize, code, exchange, refresh, token, tokens};
use support::{Process, Relay, Scratch, free_port};

const SECRET: &str = "0123456789abcdef-of-the-operator";

/// Serves a client's document on this machine, and counts how often it was asked for.
fn serve_document() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/client.json", listener.local_addr().expect("it is bound"));
    let body = json!({"client_id": url, "client_name": "a documented test", "redirect_uris": [REDIRECT],
        "token_endpoint_auth_method": "none"})
    .to_string();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            count.fetch_add(1, Ordering::SeqCst);
            let head = BufReader::new(stream.try_clone().expect("a second handle"));
            let _ = head.lines().map_while(Result::ok).take_while(|line| !line.is_empty()).count();
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
            drop(stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()));
        }
    });
    (url, asked)
}

#[test]
fn client_with_a_document_signs_in_and_stays_signed_in_over_a_restart() {
    let (client, asked) = serve_document();
    let mut relay = Relay::with("documents", &json!({"clientDocuments": {"allowLoopback": true}}));
    relay.process.line("clientDocuments.allowLoopback is on");
    let page = Browser::new(&relay).get(&authorize(&client));
    assert!(page.text().contains("a documented test") && page.text().contains(&client), "{}", page.text());
    let tokens = tokens(&relay, &client);
    assert_eq!(asked.load(Ordering::SeqCst), 1, "it is fetched once");
    relay.kill_and_restart();
    let (status, next) = refresh(&relay, &client, &tokens);
    assert_eq!(status, 200, "{next}");
    assert_eq!(asked.load(Ordering::SeqCst), 1, "a refresh fetches nothing");
}

#[test]
fn nobody_makes_the_relay_fetch_from_its_own_machine() {
    let (client, asked) = serve_document();
    let port = client.rsplit(':').next().expect("a port").to_owned();
    let relay = Relay::start("no-loopback");
    for id in [
        client.clone(),
        format!("https://127.0.0.1:{port}"),
        format!("https://localhost:{port}"),
        format!("https://[::1]:{port}"),
        format!("https://[::ffff:127.0.0.1]:{port}"),
        format!("https://2130706433:{port}"),
        format!("https://app.localhost:{port}"),
    ] {
        let reply = Browser::new(&relay).get(&authorize(&id));
        assert_eq!(reply.status, 400, "{id}: {}", reply.text());
        assert!(reply.header("location").is_none(), "{id}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[test]
fn clients_of_the_configuration_sign_in_and_show_their_secret() {
    let home = Scratch::new("secret-of-a-client");
    std::fs::write(home.path().join("secret"), format!("{SECRET}\n")).expect("it can be written");
    let clients = json!([
        {"id": "open", "name": "an open one", "redirectUris": [REDIRECT]},
        {"id": "closed", "name": "a closed one", "redirectUris": [REDIRECT],
            "secret": format!("file:{}", home.path().join("secret").display())},
    ]);
    let relay = Relay::with("static-clients", &json!({"clients": clients}));
    tokens(&relay, "open");
    let code = code(&relay, "closed");
    let (status, answer) = exchange(&relay, "closed", &code, VERIFIER);
    assert_eq!((status, answer["error"].as_str()), (401, Some("invalid_client")));
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", "closed"),
        ("client_secret", SECRET),
        ("code", code.as_str()),
        ("code_verifier", VERIFIER),
    ];
    let (status, answer) = token(&relay, &form);
    assert_eq!(status, 200, "{answer}");
    assert!(!relay.process.log().contains(SECRET), "{}", relay.process.log());
}

#[test]
fn secret_that_is_nowhere_stops_the_start_and_is_named() {
    let home = Scratch::new("no-secret");
    let config = json!({"mode": "relay", "host": "127.0.0.1", "port": free_port(),
        "auth": {"local": {"users": [{"name": "ada", "passwordHash": support::PASSWORD_HASH.trim()}]}},
        "clients": [{"id": "ci", "name": "CI", "redirectUris": [REDIRECT], "secret": "env:NO_SUCH_VARIABLE_HERE"}]});
    let mut process = Process::start(home.path(), &config, &[]);
    assert_eq!(process.wait(), Some(2));
    process.line("NO_SUCH_VARIABLE_HERE");
}

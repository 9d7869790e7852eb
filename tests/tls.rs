//! The relay's own TLS, against the built program over real sockets.

mod support;

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};
use support::secure::{Secure, made, put};
use support::{Process, Relay, Reply, Scratch, eventually, free_port, program, run};

const HSTS: &str = "strict-transport-security";

#[test]
fn every_answer_comes_over_tls_and_says_so() {
    let (relay, made) = Secure::start("tls-answers", "relay.test", &json!({}));
    let roots = [made.der];
    let session = relay.connect(&roots).expect("a session");
    assert_eq!(session.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    for (method, path, status) in [
        ("GET", "/", 200),
        ("GET", "/healthz", 200),
        ("GET", "/.well-known/oauth-authorization-server", 200),
        ("GET", "/nothing", 404),
        ("POST", "/mcp", 401),
        ("POST", "/token", 400),
        ("GET", "/authorize", 400),
        ("GET", "/ws?name=x", 401),
    ] {
        let reply = relay.ask(&roots, method, path, &[], b"").expect("an answer");
        assert_eq!((reply.status, reply.header(HSTS)), (status, Some("max-age=31536000")), "{path} {}", reply.text());
    }
    let metadata = relay.try_get(&roots, "/.well-known/oauth-authorization-server").expect("an answer").json();
    assert_eq!(metadata["issuer"], format!("https://relay.test:{}", relay.port));
}

#[test]
fn agent_and_client_meet_over_tls() {
    let (relay, made) = Secure::start("tls-tunnel", "localhost", &json!({}));
    let home = Scratch::new("tls-agent");
    std::fs::write(home.path().join("token"), relay.mint("agent")).expect("its home can be written");
    let agent = json!({
        "mode": "agent", "relay": format!("https://localhost:{}", relay.port), "name": "laptop",
        "servers": {"local": {"command": [program(), "demo-server"]}}, "caFile": relay.file("cert.pem"),
        "token": format!("file:{}", home.path().join("token").display()),
    });
    let _agent = Process::start(home.path(), &agent, &["agent"]);
    let bearer = format!("Bearer {}", relay.mint("client"));
    let roots = [made.der];
    let post = |session: Option<&str>, message: &Value| -> Reply {
        let mut headers = vec![
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/json"),
            ("Accept", "application/json, text/event-stream"),
        ];
        headers.extend(session.map(|session| ("Mcp-Session-Id", session)));
        relay.ask(&roots, "POST", "/mcp", &headers, message.to_string().as_bytes()).expect("an answer")
    };
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}});
    let reply = post(None, &hello);
    assert_eq!(reply.header(HSTS), None, "this machine's own names are everybody's");
    let session = reply.header("mcp-session-id").expect("a session").to_owned();
    let answer = eventually("the tool answers through the tunnel", Duration::from_secs(30), || {
        let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {
            "name": "local__echo", "arguments": {"text": "over TLS"}}});
        let answer = post(Some(&session), &call).messages().pop().unwrap_or_default();
        if answer["result"].is_object() { Ok(answer) } else { Err(answer.to_string()) }
    });
    assert!(answer.to_string().contains("over TLS"), "{answer}");
}

#[test]
fn changed_pair_is_taken_and_a_bad_one_refused_by_name() {
    let (relay, first) = Secure::start("tls-reload", "relay.test", &json!({}));
    let second = made("relay.test");
    // The certificate alone is no pair yet; the old one goes on.
    put(&relay.file("cert.pem"), &second.cert);
    let warning = relay.process.line("the changed certificate is refused");
    assert!(warning.contains("tls.key") && warning.contains("key.pem"), "{warning}");
    relay.ready(std::slice::from_ref(&first.der));
    put(&relay.file("key.pem"), &second.key);
    relay.process.line("read the changed certificate");
    relay.ready(std::slice::from_ref(&second.der));
    assert!(relay.connect(std::slice::from_ref(&first.der)).is_err(), "the old one is gone");

    put(&relay.file("cert.pem"), "nonsense");
    eventually("nonsense is refused", Duration::from_secs(20), || {
        let log = relay.process.log();
        let refused = log.lines().find(|line| line.contains("is refused") && line.contains("tls.cert"));
        refused.map(|line| assert!(line.contains("cert.pem"), "{line}")).ok_or(log.clone())
    });
    relay.ready(std::slice::from_ref(&second.der));
}

#[test]
fn key_that_everybody_may_read_is_warned_of() {
    let made = made("relay.test");
    let relay = Secure::with("tls-readable", "other.test", &json!({}), |home| {
        put(&home.join("cert.pem"), &made.cert);
        put(&home.join("key.pem"), &made.key);
        std::fs::set_permissions(home.join("key.pem"), std::fs::Permissions::from_mode(0o644)).expect("set");
        json!({"cert": home.join("cert.pem"), "key": home.join("key.pem")})
    });
    let line = relay.process.line("may read the private key");
    assert!(line.contains("key.pem") && line.contains("644"), "{line}");
    let line = relay.process.line("not for the relay's name");
    assert!(line.contains("other.test"), "{line}");
    assert!(!relay.process.log().contains("PRIVATE KEY"));
}

#[test]
fn certificate_that_has_ended_or_soon_ends_is_warned_of_and_shown() {
    let home = Scratch::new("tls-time");
    let path = |name: &str| home.path().join(name);
    for (name, until, said) in [("old", 2021, "it ended on 2021-01-01"), ("fine", 4000, "can be used")] {
        let mut params = rcgen::CertificateParams::new(["relay.test".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        put(&path("cert.pem"), &params.self_signed(&key).expect("a certificate").pem());
        put(&path("key.pem"), &key.serialize_pem());
        let mut config = json!({
            "mode": "relay", "host": "127.0.0.1", "port": free_port(), "issuerUrl": "https://relay.test",
            "auth": {"local": {"users": [{"name": "ada", "passwordHash": support::PASSWORD_HASH.trim()}]}},
            "tls": {"cert": path("cert.pem"), "key": path("key.pem")},
        });
        let check = |config: &Value| {
            let output = run(home.path(), config, &["config", "check"]);
            String::from_utf8(output.stdout).expect("text")
        };
        assert!(check(&config).contains(said), "{name}: {}", check(&config));
        assert_eq!(check(&config).contains("warning"), name == "old", "{name}: {}", check(&config));
        config["issuerUrl"] = json!("https://other.test");
        assert!(check(&config).contains("not for the relay's name, other.test"), "{}", check(&config));
        if name == "old" {
            let relay = Process::start(home.path(), &config, &[]);
            let line = relay.line(said);
            assert!(line.contains("tls.cert") && line.contains("cert.pem"), "{line}");
            relay.line("relay up");
        }
    }
}

#[test]
fn what_is_wrong_with_the_files_is_said_at_the_start() {
    let home = Scratch::new("tls-mistakes");
    let (one, other) = (made("relay.test"), made("relay.test"));
    let path = |name: &str| home.path().join(name);
    put(&path("cert"), &one.cert);
    put(&path("key"), &one.key);
    put(&path("other"), &other.key);
    put(&path("empty"), "");
    for (cert, key, setting, file, why) in [
        ("missing", "key", "tls.cert", "missing", "not found"),
        ("cert", "missing", "tls.key", "missing", "not found"),
        ("empty", "key", "tls.cert", "empty", "no certificate"),
        ("cert", "empty", "tls.key", "empty", "no private key"),
        ("cert", "other", "tls.key", "other", "not the key of the certificate"),
        ("cert", "cert", "tls.key", "cert", "no private key"),
    ] {
        let config = json!({
            "mode": "relay", "host": "127.0.0.1", "port": free_port(), "issuerUrl": "https://relay.test",
            "auth": {"local": {"users": [{"name": "ada", "passwordHash": support::PASSWORD_HASH.trim()}]}},
            "tls": {"cert": path(cert), "key": path(key)},
        });
        let output = run(home.path(), &config, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for word in [setting, path(file).to_str().expect("plain"), why] {
            assert!(said.to_lowercase().contains(&word.to_lowercase()), "{word}: {said}");
        }
    }
}

#[test]
fn plain_http_on_the_port_of_tls_is_told_so() {
    let (relay, made) = Secure::start("tls-plain", "relay.test", &json!({}));
    let mut socket = TcpStream::connect(("127.0.0.1", relay.port)).expect("connects");
    socket.write_all(b"GET /mcp HTTP/1.1\r\nHost: relay.test\r\n\r\n").expect("writes");
    let reply = Reply::read(&mut BufReader::new(socket)).expect("an answer");
    assert_eq!((reply.status, reply.header(HSTS)), (400, None));
    assert!(reply.text().contains("https"), "{}", reply.text());
    relay.process.line("plain HTTP");
    for nonsense in [&b"\x16\x03\x01"[..], b"\x00", b"\x16\x03\x01\xff\xff\xff\xff\xff\xff\xff\xff", b"\x80\x2e\x01"] {
        let mut socket = TcpStream::connect(("127.0.0.1", relay.port)).expect("connects");
        socket.write_all(nonsense).expect("writes");
    }
    relay.ready(&[made.der]);
}

#[test]
fn nothing_is_promised_where_a_proxy_ends_tls() {
    let more = json!({"issuerUrl": "https://relay.test", "trustedProxies": ["127.0.0.1"]});
    let relay = Relay::with("tls-proxy", &more);
    let reply = relay.http("GET", "/", &[("Host", "relay.test"), ("X-Forwarded-Proto", "https")], b"");
    assert_eq!((reply.status, reply.header(HSTS)), (200, None), "{}", reply.text());
}

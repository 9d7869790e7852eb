//! A relay that means harm, against the real agent: whatever it says, the agent stays small, keeps its servers, runs
//! nothing but them, opens nothing but its own sign-in page, and tells nothing.
#![cfg(target_os = "linux")]

mod support;

use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::scripted::*;
use support::{Scratch, eventually, runs};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

#[test]
fn flood_of_everything_leaves_a_small_agent_with_its_servers() {
    let relay = Evil::start();
    let mut agent = relay.agent("flood");
    let tunnel = relay.tunnel();
    tunnel.catalog_with("echo");
    let before = agent.process.peak_resident();

    // Servers and methods that are none, or none of a client's.
    for stream in 1..=2_000_u32 {
        let server = ["nobody", "../../etc", "", "local\0", "$(touch ran)"][stream as usize % 5];
        tunnel.call(stream, server, "tools/call", b"{}");
    }
    for (stream, method) in (2_001..).zip(["initialize", "notifications/cancelled", "", "shutdown", "\n"]) {
        tunnel.call(stream, "local", method, b"{}");
    }
    tunnel.call(2_100, &"x".repeat(7_000), &"y".repeat(7_000), b"{}");
    // A gigabyte announced, a part of it sent, nothing of it finished.
    let piece = vec![b' '; 512 * 1024];
    for stream in 2_200..2_216 {
        tunnel.send(&open(stream, "local", "tools/call", 64 << 20));
        for _ in 0..30 {
            tunnel.send(&frame(DATA, stream, &piece));
        }
    }
    tunnel.send(&open(2_300, "local", "tools/call", u64::MAX));
    // More calls at once than a tunnel has streams, none of which ends by itself.
    for stream in 3_000..6_000_u32 {
        let slow = json!({"name": "countdown", "arguments": {"from": 100, "pause_ms": 60_000}});
        tunnel.call(stream, "local", "tools/call", slow.to_string().as_bytes());
    }
    // Small frames without end, in messages as large as are taken.
    for small in [frame(GO_AWAY, 0, b""), frame(PING, 0, &[7; 8]), frame(200, 0, b"unknown"), frame(RESTART, 0, b"{}")]
    {
        let many = small.repeat(900_000 / small.len());
        for _ in 0..10 {
            tunnel.send_raw(&many);
        }
    }
    let echo = json!({"name": "echo", "arguments": {"text": "still here"}}).to_string();
    let mut stream = 7_000;
    eventually("the server answers", Duration::from_secs(60), || {
        stream += 1;
        tunnel.call(stream, "local", "tools/call", echo.as_bytes());
        let answer = tunnel.answer_to(stream);
        answer.contains("still here").then_some(()).ok_or(answer)
    });

    assert!(agent.process.is_running());
    let grown = agent.process.peak_resident() - before;
    // Bodies that are never finished, 64 MiB of them, and messages of a megabyte taken apart into very small frames:
    // 120 MiB, which the heaps of two threads may each keep, since one frees what the other asked for.
    assert!(grown < 256 << 20, "{} MiB more", grown >> 20);
    let log = agent.process.log();
    assert!(log.matches("restart wanted").count() <= 6, "restarts have a limit");
    assert!(log.len() < 256 * 1024, "{} bytes of log", log.len());
    assert!(!agent.home.path().join("ran").exists());
    relay.learned_nothing(&agent);
}

#[test]
fn what_policy_denies_is_run_in_no_dialect() {
    let relay = Evil::start();
    let policy = json!({"allow": ["echo"], "deny": ["*danger*"]});
    let agent = relay.agent_under("policy", &policy);
    let heard = || std::fs::read_to_string(agent.home.path().join("heard")).unwrap_or_default();
    let tunnel = relay.tunnel();
    tunnel.catalog_with("echo");
    for (number, (method, params)) in (1..).zip([
        ("tools/call", r#"{"name":"add","arguments":{"a":1,"b":2}}"#),
        ("tools/call", r#"{"name":"echo","name":"add","arguments":{}}"#),
        ("tools/call", r#"{"name":"echo","Name":"add","arguments":{}}"#),
        ("tools/call", r#"{"n\u0061me":"add","arguments":{}}"#),
        ("tools/call", r#"{"name":"\u0061dd","arguments":{}}"#),
        ("tools/call", r#"{"name":["add"]}"#),
        ("tools/call", r#"{"arguments":{"name":"echo"}}"#),
        ("tools/call", r#"{"name":"echo\u0000"}"#),
        ("Tools/Call", r#"{"name":"add"}"#),
        ("danger/run", "{}"),
        ("vendor/run", "{}"),
    ]) {
        tunnel.call(number, "local", method, params.as_bytes());
        let answer = tunnel.answer_to(number);
        assert!(answer.contains(r#""code":-3"#), "{method} {params}: {answer}");
    }
    tunnel.call(100, "local", "tools/call", br#"{"name":"echo","arguments":{"text":"fine"}}"#);
    assert!(tunnel.answer_to(100).contains("fine"));
    tunnel.call(101, "local", "tools/list", b"{}");
    let listed = tunnel.answer_to(101);
    assert!(
        listed.contains(r#""name":"echo""#) && !listed.contains(r#""name":"add""#),
        "what is denied is taken out: {listed}"
    );
    drop(tunnel);

    let (head, mut socket) = relay.dial_after(&agent);
    socket.write_all(switching(&head).replace("Mcp-Tunnel: 2\r\n", "").as_bytes()).expect("the agent reads");
    let mut old = WebSocket::from_raw_socket(socket, Role::Server, None);
    let mut said = |message: &Value| {
        old.send(Message::text(message.to_string())).expect("the agent reads");
        loop {
            let text = old.read().expect("the agent answers").into_text().expect("text").to_string();
            if text.contains(&format!(r#""id":{}"#, message["id"])) {
                return text;
            }
            assert!(!text.contains("local__add"), "not listed: {text}");
        }
    };
    for (id, method, params) in [
        ("a", "local__add", json!({"a": 1, "b": 2})),
        ("b", "add", json!({})),
        ("c", "local__echo\",\"name\":\"add", json!({})),
        ("d", "tools/call", json!({"name": "add"})),
    ] {
        let answer = said(&json!({"type": "request", "id": id, "method": method, "params": params}));
        assert!(answer.contains(r#""type":"error""#), "{answer}");
    }
    let fine = json!({"type": "request", "id": "z", "method": "local__echo", "params": {"text": "old and fine"}});
    assert!(said(&fine).contains("old and fine"));
    // What writes it down passes it on first, and the answer may come before.
    let heard = eventually("the tap works", Duration::from_secs(10), || {
        let heard = heard();
        if heard.contains("old and fine") && heard.contains("tools/list") { Ok(heard) } else { Err(heard) }
    });
    for line in heard.lines().filter(|line| line.contains("tools/call")) {
        assert!(line.contains(r#""name":"echo""#) && !line.contains("add"), "{line}");
    }
    assert!(!heard.contains("vendor") && !heard.contains("danger") && !heard.contains("Tools/Call"), "{heard}");
    assert_eq!(heard.matches("tools/list").count(), 2, "the agent's own, and the one that the relay asked for");
}

#[test]
fn relay_that_never_reads_is_left_and_costs_little() {
    let relay = Evil::start();
    let mut agent = relay.agent("deaf");
    let (head, mut socket) = relay.dial();
    socket.write_all(switching(&head).as_bytes()).expect("the agent reads");
    let mut out = WebSocket::from_raw_socket(socket.try_clone().expect("a handle"), Role::Server, None);
    socket.set_write_timeout(Some(Duration::from_secs(5))).expect("sets");
    let before = agent.process.peak_resident();
    out.send(Message::binary(frame(HELLO, 0, b"{}"))).expect("the agent reads");
    let blob = json!({"name": "blob", "arguments": {"bytes": 30_000_000}}).to_string();
    for stream in 1..50_000_u32 {
        let mut bytes = open(stream, "local", "tools/call", blob.len() as u64);
        bytes.extend(frame(END, stream, blob.as_bytes()));
        // An agent that had enough has closed.
        if out.send(Message::binary(bytes)).is_err() {
            break;
        }
    }
    assert!(agent.process.is_running());
    assert_eq!(agent.pids().len(), 1, "its server runs");
    let grown = agent.process.peak_resident() - before;
    // What may wait to be sent, and one answer that is being read.
    assert!(grown < 400 << 20, "{} MiB more", grown >> 20);
}

#[test]
fn garbage_ends_the_tunnel_and_nothing_else() {
    let relay = Evil::start();
    let agent = relay.agent("garbage");
    relay.tunnel().catalog_with("echo");
    let server = agent.pids()["local"];
    let deep = [b"{\"features\":".as_slice(), &b"[".repeat(200_000)].concat();
    let mut long = frame(DATA, 1, b"x");
    long[8] = 200;
    let garbage: Vec<(&str, Vec<u8>)> = vec![
        ("unknown kind", frame(99, 0, b"")),
        ("kind zero", frame(0, 0, b"")),
        ("cut header", vec![PING, 0, 0]),
        ("longer than its message", long),
        ("second hello", frame(HELLO, 0, b"{}")),
        ("hello that nests", frame(HELLO, 0, &deep)),
        ("open on stream zero", frame(OPEN, 0, b"{}")),
        ("head without measure", open(1, &"x".repeat(400_000), &"y".repeat(400_000), 2)),
        ("open without a head", frame(OPEN, 1, b"")),
        ("open that is no JSON", frame(OPEN, 1, b"\xff\xfe")),
        ("data of nobody", frame(DATA, 9, b"x")),
        ("credit of nobody", frame(CREDIT, 9, &[255; 4])),
        ("short credit", frame(CREDIT, 9, &[1])),
        ("reset of nobody", frame(RESET, 9, &[1])),
        ("message of nobody", frame(MESSAGE, 9, b"\x01{}")),
        ("an agent's catalog", frame(CATALOG, 0, b"\x01{}")),
        ("an agent's answer", frame(ANSWER, 1, b"{}")),
        ("an agent's notice", frame(NOTICE, 0, b"\x01\0\0{}")),
        ("stream opened twice", [open(5, "local", "ping", 2), open(5, "local", "ping", 2)].concat()),
        ("params beyond their length", [open(5, "local", "ping", 1), frame(END, 5, b"{}")].concat()),
        ("too large", vec![200; 3 << 20]),
    ];
    for (what, bytes) in garbage {
        let tunnel = relay.tunnel_after(&agent);
        tunnel.send_raw(&bytes);
        eventually(&format!("{what}: the tunnel ends"), Duration::from_secs(10), || tunnel.has_ended());
        assert_eq!(agent.pids()["local"], server, "{what}");
    }
    for (what, message) in [
        ("text", Message::text("{}")),
        ("close with a strange code", Message::Close(None)),
        (
            "ping that is no frame",
            Message::Frame(tungstenite::protocol::frame::Frame::message(
                vec![1; 10],
                tungstenite::protocol::frame::coding::OpCode::Data(
                    tungstenite::protocol::frame::coding::Data::Reserved(5),
                ),
                true,
            )),
        ),
    ] {
        let tunnel = relay.tunnel_after(&agent);
        drop(tunnel.out.lock().expect("no writer panics").send(message));
        eventually(&format!("{what}: the tunnel ends"), Duration::from_secs(10), || tunnel.has_ended());
        assert_eq!(agent.pids()["local"], server, "{what}");
    }
    relay.learned_nothing(&agent);
}

#[test]
fn answers_to_the_handshake_that_are_none_keep_the_agent_trying() {
    let relay = Evil::start();
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    elsewhere.set_nonblocking(true).expect("sets");
    let other = elsewhere.local_addr().expect("bound");
    let mut agent = relay.agent("handshake");
    let answers: Vec<(&str, Vec<u8>, &str)> = vec![
        ("redirect", redirect(&format!("ws://{other}/ws")), "sign-in page"),
        ("redirect to a file", redirect("file:///etc/passwd"), "sign-in page"),
        ("page", http("200 OK", "Content-Type: text/html\r\n", "<html>Welcome to the hotel"), "sign-in page"),
        ("wrong key", switching("Sec-WebSocket-Key: bm90IHRoZSBrZXkgYXQgYWxs\r\n").into_bytes(), "cannot connect"),
        ("no HTTP", b"SSH-2.0-OpenSSH_9.9\r\n".repeat(1000), "cannot connect"),
        ("long words", http("500 No", "", &"word ".repeat(100_000)), "answered 500"),
        (
            "control characters",
            http("503 No", "Retry-After: 99999999999999999999\r\n", "\x1b[2Jcleared"),
            "answered 503",
        ),
        ("strange status", http("999 What", "", ""), "answered 999"),
    ];
    for (what, answer, words) in answers {
        let (_, mut socket) = relay.dial_after(&agent);
        drop(socket.write_all(&answer));
        drop(socket.shutdown(Shutdown::Write));
        let error = agent.last_error_with(words, what);
        assert!(!error.contains('\x1b') && error.len() < 1000, "{what}: {error}");
    }
    // Without an end: the head, then the body.
    // (An agent that has dialled by now: one that only starts grows by its own code.)
    let before = agent.process.peak_resident();
    for begin in ["HTTP/1.1 101 Switching Protocols\r\n", "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n"] {
        let (_, mut socket) = relay.dial_after(&agent);
        drop(socket.write_all(begin.as_bytes()));
        let endless = "X-Header: 10000 and so on and so on\r\n".repeat(1000);
        let mut sent = 0;
        while sent < 200 << 20 && socket.write_all(endless.as_bytes()).is_ok() {
            sent += endless.len();
        }
        assert!(sent < 100 << 20, "{begin}: {sent} bytes were taken");
    }
    assert!(agent.process.is_running() && runs(agent.pids()["local"]));
    let grown = agent.process.peak_resident() - before;
    assert!(grown < 32 << 20, "{} MiB more", grown >> 20);
    assert!(elsewhere.accept().is_err(), "no redirect was followed");
    relay.learned_nothing(&agent);
}

#[test]
fn handshake_that_drips_is_given_up() {
    let relay = Evil::start();
    let agent = relay.agent("drip");
    let (_, mut socket) = relay.dial();
    drop(socket.write_all(b"HTTP/1.1 101 Switching Protocols\r\n"));
    let begun = Instant::now();
    while socket.write_all(b"X-A: b\r\n").is_ok() && begun.elapsed() < Duration::from_secs(40) {
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    relay.tunnel().catalog_with("echo");
    assert!(agent.pids().contains_key("local"));
}

#[test]
fn browser_is_opened_with_the_relays_own_page_and_nothing_else() {
    let relay = Evil::start();
    let home = Scratch::new("hostile-browser");
    let opener = home.path().join("xdg-open");
    // Writes down what it was given, each argument on a line.
    let script = format!("#!/bin/sh\nfor word; do echo \"$word\" >> '{}/opened'; done\n", home.path().display());
    std::fs::write(&opener, script).expect("writes");
    std::fs::set_permissions(&opener, PermissionsExt::from_mode(0o755)).expect("is ours");
    let url = relay.url();
    let good = json!({
        "issuer": url, "authorization_endpoint": format!("{url}/authorize"), "token_endpoint": format!("{url}/token"),
        "code_challenge_methods_supported": ["S256"],
    });
    let with = |key: &str, value: &str| {
        let mut document = good.clone();
        document[key] = json!(value);
        http("200 OK", "Content-Type: application/json\r\n", &document.to_string())
    };
    let authorization = "authorization_endpoint";
    let login = |answer: &[u8]| {
        let mut process = relay.login(&home);
        let (_, mut socket) = relay.dial();
        drop(socket.write_all(answer));
        drop(socket.shutdown(Shutdown::Write));
        process.wait();
        process.line("error:")
    };
    for (what, answer) in [
        ("script", with(authorization, "javascript:alert(1)")),
        ("file", with(authorization, "file:///etc/passwd")),
        ("option", with(authorization, "--help")),
        ("other scheme", with(authorization, "vscode://evil/run")),
        ("other host", with(authorization, "https://evil.example/authorize")),
        ("other port", with(authorization, "http://localhost:1/authorize")),
        ("shell", with(authorization, &format!("{url}/$(touch$IFS/tmp/x)"))),
        ("shell in the query", with(authorization, &format!("{url}/a?x=;touch%20ran;"))),
        ("shell's quotes", with(authorization, &format!("{url}/a?x=$(id)|sh&"))),
        ("another's tokens", with("token_endpoint", "https://evil.example/token")),
        ("another's issuer", with("issuer", "https://evil.example")),
        ("redirect", redirect(&format!("{url}/elsewhere"))),
        ("page", http("200 OK", "", "<html><script>location='x'</script>")),
        ("endless", http("200 OK", "", &format!("{{\"issuer\":\"{}\"", "x".repeat(30 << 20)))),
        ("nested", http("200 OK", "", &"[".repeat(200_000))),
    ] {
        let error = login(&answer);
        assert!(!home.path().join("opened").exists(), "{what}: {error}");
    }
    assert!(!home.path().join("ran").exists());

    // The honest page is opened, or nothing here could fail.
    let process = relay.login(&home);
    let (_, mut socket) = relay.dial();
    drop(socket.write_all(&with("issuer", &url)));
    let opened = eventually("the browser is opened", Duration::from_secs(20), || {
        let text = std::fs::read_to_string(home.path().join("opened")).unwrap_or_default();
        if text.ends_with('\n') { Ok(text) } else { Err(process.log()) }
    });
    assert_eq!(opened.lines().count(), 1, "{opened}");
    assert!(opened.starts_with(&format!("{url}/authorize?response_type=code&")), "{opened}");
}

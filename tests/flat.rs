//! Whoever is not signed in costs the relay nothing that lasts: no record, and no memory beyond its fixed tables.

mod support;

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use support::browser::encode;
use support::{Relay, Reply};

const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const REDIRECT: &str = "https://claude.ai/api/mcp/auth_callback";
const FORM: &str = "application/x-www-form-urlencoded";

/// Registrations, and as many authorizations.
const ATTEMPTS: u32 = 10_000;
/// Of them at once.
const SIDE_BY_SIDE: u32 = 4;
/// What the relay may grow by. The table of rate-limited addresses has 8 192 places of a hundred bytes or two, and a
/// thousand devices may wait with half a kilobyte each; the rest is what an allocator keeps for itself. A registration or a
/// request that was kept has three hundred bytes at least: twenty thousand would be twice this.
const SLACK: u64 = 3 * 1024 * 1024;

/// A connection that is used again, as a flood would.
struct Visitor {
    port: u16,
    stream: Option<BufReader<TcpStream>>,
}

impl Visitor {
    fn ask(&mut self, method: &str, target: &str, from: Option<&str>, kind: &str, body: &str) -> Reply {
        let port = self.port;
        let mut stream = self.stream.take().unwrap_or_else(|| {
            let stream = TcpStream::connect(("127.0.0.1", port)).expect("the relay listens");
            stream.set_read_timeout(Some(Duration::from_secs(60))).expect("it can be set");
            BufReader::new(stream)
        });
        let from = from.map(|address| format!("X-Forwarded-For: {address}\r\n")).unwrap_or_default();
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: {kind}\r\nOrigin: http://localhost:{port}\r\n\
             {from}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.get_mut().write_all(request.as_bytes()).expect("it is sent");
        let reply = Reply::read(&mut stream).expect("the relay answers");
        if reply.header("connection") != Some("close") {
            self.stream = Some(stream);
        }
        reply
    }
}

/// Registers, asks to authorize, and tries what else a stranger can reach; returns the statuses of the first two.
fn attempt(visitor: &mut Visitor, number: u32, from: Option<&str>) -> [u16; 2] {
    let metadata = json!({"client_name": format!("client {number}"), "redirect_uris": [REDIRECT]}).to_string();
    let registered = visitor.ask("POST", "/register", from, "application/json", &metadata);
    // One that is refused asks with an id that is none: it must not end there.
    let client = match registered.status {
        201 => registered.json()["client_id"].as_str().expect("an id").to_owned(),
        _ => format!("stranger-{number}"),
    };
    let target = format!(
        "/authorize?response_type=code&client_id={}&redirect_uri={}&state={number}&code_challenge={CHALLENGE}&code_challenge_method=S256",
        encode(&client),
        encode(REDIRECT)
    );
    let authorized = visitor.ask("GET", &target, from, FORM, "");
    match number % 8 {
        0 => drop(visitor.ask("POST", "/consent", from, FORM, &format!("flow={number}&request=x&decision=allow"))),
        1 => drop(visitor.ask("POST", "/device_authorization", from, FORM, "client_id=mcp-local-tunnel-agent")),
        2 => {
            let body = format!(
                "grant_type=authorization_code&client_id={}&code={number}&code_verifier={CHALLENGE}",
                encode(&client)
            );
            drop(visitor.ask("POST", "/token", from, FORM, &body));
        }
        3 => drop(visitor.ask("POST", "/revoke", from, FORM, &format!("token={number}&client_id={}", encode(&client)))),
        4 => drop(visitor.ask("POST", "/login", from, FORM, &format!("flow={number}&csrf=x&user=ada&password=x"))),
        5 => drop(visitor.ask("GET", &format!("/callback?state={number}&code=x"), from, FORM, "")),
        6 => drop(visitor.ask("POST", "/device", from, FORM, "user_code=BCDFGHJK")),
        _ => drop(visitor.ask("POST", "/mcp", from, "application/json", "{}")),
    }
    [registered.status, authorized.status]
}

/// Makes `numbers` attempts, from addresses of their own or all from this machine; returns how many of each status came.
fn flood(relay: &Relay, numbers: std::ops::Range<u32>, spread: bool) -> BTreeMap<u16, usize> {
    let counted = std::thread::scope(|scope| {
        let visitors: Vec<_> = (0..SIDE_BY_SIDE)
            .map(|lane| {
                let numbers = numbers.clone();
                scope.spawn(move || {
                    let mut visitor = Visitor { port: relay.port, stream: None };
                    let own = numbers.filter(|number| number % SIDE_BY_SIDE == lane);
                    own.flat_map(|number| {
                        let [_, a, b, c] = number.to_be_bytes();
                        let from = format!("10.{a}.{b}.{c}");
                        attempt(&mut visitor, number, spread.then_some(from.as_str()))
                    })
                    .collect::<Vec<_>>()
                })
            })
            .collect();
        visitors.into_iter().flat_map(|visitor| visitor.join().expect("no visitor fails")).collect::<Vec<_>>()
    });
    counted.into_iter().fold(BTreeMap::new(), |mut counts, status| {
        *counts.entry(status).or_default() += 1;
        counts
    })
}

/// Every file of a directory, whole.
fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(dir).expect("it is there").flatten();
    let files = files.filter(|file| file.file_type().expect("it has one").is_file());
    let read = |file: std::fs::DirEntry| {
        (file.file_name().to_string_lossy().into_owned(), std::fs::read(file.path()).expect("it can be read"))
    };
    files.map(read).collect()
}

#[test]
fn strangers_leave_no_record_and_no_memory() {
    let relay = Relay::with("flat", &json!({"trustedProxies": ["127.0.0.1"]}));
    flood(&relay, 0..ATTEMPTS / 5, true);
    let (state, memory) = (content(&relay.state_dir()), relay.process.resident());
    assert!(state.contains_key("state.redb") && state.contains_key("master.key"), "{:?}", state.keys());
    let spread = flood(&relay, ATTEMPTS..2 * ATTEMPTS, true);
    let grown = relay.process.resident().saturating_sub(memory);
    eprintln!("{} KiB, grown by {} KiB; {spread:?}", memory / 1024, grown / 1024);
    assert_eq!(spread.get(&201), Some(&(ATTEMPTS as usize)), "nothing was put off: {spread:?}");
    assert_eq!(spread.get(&200), Some(&(ATTEMPTS as usize)), "nothing was put off: {spread:?}");
    assert!(grown < SLACK, "the relay grew by {grown} bytes");

    let memory = relay.process.resident();
    let limited = flood(&relay, 0..ATTEMPTS, false);
    let grown = relay.process.resident().saturating_sub(memory);
    eprintln!("then by {} KiB; {limited:?}", grown / 1024);
    assert!(limited.get(&429).is_some_and(|count| *count > ATTEMPTS as usize), "most are put off: {limited:?}");
    assert!(grown < SLACK, "the relay grew by {grown} bytes");
    let now = content(&relay.state_dir());
    let changed: Vec<_> =
        now.iter().filter(|(name, bytes)| state.get(*name) != Some(bytes)).map(|(name, _)| name).collect();
    assert!(changed.is_empty() && now.len() == state.len(), "the state has changed: {changed:?}");
}

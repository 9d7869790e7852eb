//! The relay killed at any moment (SIGKILL): what it acknowledged holds, and nobody is signed out by it.
//!
//! `CRASH_SEED` repeats a run's choices; the moments of the kills are the machine's.

mod support;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use support::browser::{Browser, encode, form, parameter};
use support::{PASSWORD, PASSWORD_HASH, Process, Relay, Reply, Scratch, free_port, send};
use tunnel_core::entropy::{self, Seeded};

/// RFC 7636 appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const REDIRECT: &str = "http://127.0.0.1:7777/callback";
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

/// How often the relay is killed.
const KILLS: u32 = 100;
/// Clients that work side by side, and the sign-ins of each.
const CLIENTS: usize = 6;
const SIGN_INS: usize = 2;
/// A relay answers a dozen refreshes in this time.
const KILLED_WITHIN_MS: Range<u64> = 0..90;
/// A start takes about as long: some kills hit it, and what it does to the store.
const KILLED_AT_START_MS: Range<u64> = 0..50;

/// Choices that can be repeated.
struct Dice(Seeded);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(Seeded::new(seed))
    }

    fn draw(&mut self, range: Range<u64>) -> u64 {
        range.start + u64::from_be_bytes(entropy::bytes(&mut self.0)) % (range.end - range.start)
    }

    /// An address of its own for each request: what is tested is not how many one address may send.
    fn address(&mut self) -> String {
        let [a, b, c] = [(); 3].map(|()| self.draw(1..255));
        format!("10.{a}.{b}.{c}")
    }
}

/// One sign-in, as its client knows it.
struct SignIn {
    access: String,
    refresh: String,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Standing {
    In,
    /// A revocation was sent and not acknowledged: it may hold or not.
    Leaving,
    /// The revocation was acknowledged.
    Out,
}

fn seed() -> u64 {
    let given = std::env::var("CRASH_SEED").ok().map(|text| text.parse().expect("CRASH_SEED is a number"));
    let seed = given.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970");
        now.as_secs()
    });
    eprintln!("CRASH_SEED={seed}");
    seed
}

#[test]
fn hundred_kills_lose_no_revocation_and_sign_nobody_out() {
    let mut dice = Dice::new(seed());
    let mut relay = Relay::with("crashes", &json!({"trustedProxies": ["127.0.0.1"]}));
    let client = register(&relay, &mut dice);
    let minted = relay.mint("ada", "client");
    let mut sign_ins: Vec<SignIn> = Vec::new();
    let mut out: Vec<SignIn> = Vec::new();
    let (mut kills, mut acknowledged, mut open) = (0, 0, 0);
    while kills < KILLS {
        while sign_ins.len() < CLIENTS * SIGN_INS {
            sign_ins.push(sign_in(&relay, &client, &mut dice));
        }
        acknowledged += kill_under_load(&mut relay, &client, &mut sign_ins, &mut dice);
        kills += 1;
        relay.process = Process::start(relay.home.path(), &relay.config, &[]);
        if dice.draw(0..4) == 0 {
            std::thread::sleep(Duration::from_millis(dice.draw(KILLED_AT_START_MS)));
            relay.process.kill();
            kills += 1;
            relay.process = Process::start(relay.home.path(), &relay.config, &[]);
        }
        relay.ready();
        assert_eq!(opens(relay.port, &minted, &mut dice), 200, "a minted token is good as ever");
        let (left, went) = look(relay.port, &client, sign_ins, &mut dice, &mut open);
        sign_ins = left;
        out.extend(went);
    }
    for gone in &out {
        assert_out(relay.port, &client, gone, &mut dice);
    }
    eprintln!("{kills} kills, {acknowledged} answers, {} revocations, {open} left open", out.len());
    assert!(out.len() >= 10 && acknowledged >= 200, "too little went on to tell anything");
}

/// Lets all clients work until the relay is killed; returns how much it answered.
fn kill_under_load(relay: &mut Relay, client: &str, sign_ins: &mut [SignIn], dice: &mut Dice) -> usize {
    let (port, killed, delay) = (relay.port, AtomicBool::new(false), dice.draw(KILLED_WITHIN_MS));
    std::thread::scope(|scope| {
        let workers: Vec<_> = sign_ins
            .chunks_mut(SIGN_INS)
            .map(|own| {
                let (mut dice, killed) = (Dice::new(dice.draw(0..u64::MAX)), &killed);
                scope.spawn(move || work(port, client, own, &mut dice, killed))
            })
            .collect();
        std::thread::sleep(Duration::from_millis(delay));
        killed.store(true, Ordering::SeqCst);
        relay.process.kill();
        workers.into_iter().map(|worker| worker.join().expect("no client fails")).sum()
    })
}

/// A client: refreshes, and now and then signs out, until the relay is gone. What is not answered whole has not happened,
/// as far as it knows.
fn work(port: u16, client: &str, own: &mut [SignIn], dice: &mut Dice, killed: &AtomicBool) -> usize {
    let mut answered = 0;
    loop {
        let mut those_in: Vec<_> = own.iter_mut().filter(|one| one.standing == Standing::In).collect();
        let count = u64::try_from(those_in.len()).expect("they are few");
        let Some(last) = count.checked_sub(1) else { return answered };
        let sign_in = those_in.swap_remove(usize::try_from(dice.draw(0..last + 1)).expect("they are few"));
        let leaves = dice.draw(0..12) == 0;
        let reply = if leaves {
            sign_in.standing = Standing::Leaving;
            revoke(port, client, &sign_in.refresh, dice)
        } else {
            refresh(port, client, &sign_in.refresh, dice)
        };
        let Ok(reply) = reply else {
            assert!(killed.load(Ordering::SeqCst), "the relay went away by itself");
            return answered;
        };
        assert_eq!(reply.status, 200, "{}", reply.text());
        answered += 1;
        if leaves {
            sign_in.standing = Standing::Out;
        } else {
            sign_in.take(&reply.json());
        }
    }
}

/// What is left of each sign-in after a restart: those that are in, and those that are out for good.
fn look(
    port: u16,
    client: &str,
    sign_ins: Vec<SignIn>,
    dice: &mut Dice,
    open: &mut usize,
) -> (Vec<SignIn>, Vec<SignIn>) {
    let (mut left, mut out) = (Vec::new(), Vec::new());
    for mut sign_in in sign_ins {
        if sign_in.standing == Standing::Out {
            assert_out(port, client, &sign_in, dice);
            out.push(sign_in);
            continue;
        }
        let reply = refresh(port, client, &sign_in.refresh, dice).expect("the relay answers");
        match (sign_in.standing, reply.status) {
            (_, 200) => {
                sign_in.standing = Standing::In;
                sign_in.take(&reply.json());
                assert_eq!(opens(port, &sign_in.access, dice), 200, "what was just issued opens");
                left.push(sign_in);
            }
            (Standing::Leaving, 400) => *open += 1,
            (standing, status) => panic!("{standing:?} is answered {status}: {}", reply.text()),
        }
    }
    (left, out)
}

fn assert_out(port: u16, client: &str, sign_in: &SignIn, dice: &mut Dice) {
    let reply = refresh(port, client, &sign_in.refresh, dice).expect("the relay answers");
    assert_eq!((reply.status, &reply.json()["error"]), (400, &json!("invalid_grant")), "a revocation is lost");
    assert_eq!(opens(port, &sign_in.access, dice), 401, "a revocation is lost");
}

impl SignIn {
    fn take(&mut self, tokens: &Value) {
        let text = |name: &str| tokens[name].as_str().unwrap_or_else(|| panic!("{name}: {tokens}")).to_owned();
        (self.access, self.refresh) = (text("access_token"), text("refresh_token"));
    }
}

fn register(relay: &Relay, dice: &mut Dice) -> String {
    let body = json!({"redirect_uris": [REDIRECT]}).to_string();
    let headers = [("Content-Type", "application/json"), ("X-Forwarded-For", &dice.address())];
    relay.http("POST", "/register", &headers, body.as_bytes()).json()["client_id"].as_str().expect("an id").to_owned()
}

fn sign_in(relay: &Relay, client: &str, dice: &mut Dice) -> SignIn {
    let user = if dice.draw(0..2) == 0 { "ada" } else { "eve" };
    let mut browser = Browser::new(relay).at(&dice.address());
    let page = browser.get(&format!(
        "/authorize?response_type=code&client_id={}&redirect_uri={}&code_challenge={CHALLENGE}&code_challenge_method=S256",
        encode(client),
        encode(REDIRECT)
    ));
    let to = location(&browser.submit(&form(&page), &[("decision", "allow")]));
    let login = form(&browser.get(to.strip_prefix(&relay.url()).expect("it is the relay's page")));
    let back = location(&browser.submit(&login, &[("user", user), ("password", PASSWORD)]));
    let code = parameter(&back, "code").expect("a code");
    let fields = [("grant_type", "authorization_code"), ("code", &code), ("code_verifier", VERIFIER)];
    let reply = post(relay.port, "/token", client, &fields, dice).expect("the relay answers");
    let mut sign_in = SignIn { access: String::new(), refresh: String::new(), standing: Standing::In };
    sign_in.take(&reply.json());
    sign_in
}

fn location(reply: &Reply) -> String {
    reply.header("location").unwrap_or_else(|| panic!("a redirect: {} {}", reply.status, reply.text())).to_owned()
}

fn refresh(port: u16, client: &str, token: &str, dice: &mut Dice) -> std::io::Result<Reply> {
    post(port, "/token", client, &[("grant_type", "refresh_token"), ("refresh_token", token)], dice)
}

fn revoke(port: u16, client: &str, token: &str, dice: &mut Dice) -> std::io::Result<Reply> {
    post(port, "/revoke", client, &[("token", token)], dice)
}

fn post(port: u16, path: &str, client: &str, fields: &[(&str, &str)], dice: &mut Dice) -> std::io::Result<Reply> {
    let fields = fields.iter().copied().chain([("client_id", client)]);
    let body: Vec<_> = fields.map(|(name, value)| format!("{name}={}", encode(value))).collect();
    let headers = [FORM, ("X-Forwarded-For", &dice.address())];
    Reply::read(&mut send(port, "POST", path, &headers, body.join("&").as_bytes())?)
}

/// The status of an MCP request with that token.
fn opens(port: u16, token: &str, dice: &mut Dice) -> u16 {
    let (bearer, address) = (format!("Bearer {token}"), dice.address());
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
        ("X-Forwarded-For", &address),
    ];
    let body = br#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
    let mut stream = send(port, "POST", "/mcp", &headers, body).expect("the relay listens");
    Reply::read(&mut stream).expect("the relay answers").status
}

#[test]
fn killed_first_start_leaves_a_state_that_works() {
    let mut dice = Dice::new(seed());
    for round in 0..12 {
        let (home, port) = (Scratch::new(&format!("first-start-{round}")), free_port());
        let users = json!([{"name": "ada", "passwordHash": PASSWORD_HASH.trim()}]);
        let config = json!({"mode": "relay", "host": "127.0.0.1", "port": port, "auth": {"local": {"users": users}}});
        for _ in 0..2 {
            let mut first = Process::start(home.path(), &config, &[]);
            std::thread::sleep(Duration::from_millis(dice.draw(KILLED_AT_START_MS)));
            first.kill();
        }
        let process = Process::start(home.path(), &config, &[]);
        let mut relay = Relay { home, config, port, process };
        relay.ready();
        assert!(!relay.process.log().contains("in memory"), "{}", relay.process.log());
        let minted = relay.mint("ada", "client");
        relay.kill_and_restart();
        assert_eq!(opens(port, &minted, &mut dice), 200);
    }
}

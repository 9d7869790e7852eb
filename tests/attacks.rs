//! Attacks on the built relay over real sockets, by whoever is on the internet: a client, a page, a device, a person with
//! an account of their own. Each says how it worked if it did; the relay must withstand all of them, and go on serving
//! honest people.

#![allow(unreachable_pub, reason = "a test target exports nothing")]

mod support;

use support::oauth::*;
use support::{Client, Relay, Reply};

#[path = "attacks/authorize.rs"]
mod authorize;
#[path = "attacks/callback.rs"]
mod callback;
#[path = "attacks/consent.rs"]
mod consent;
#[path = "attacks/device.rs"]
mod device;
#[path = "attacks/mcp.rs"]
mod mcp;
#[path = "attacks/register.rs"]
mod register;
#[path = "attacks/token.rs"]
mod token;
#[path = "attacks/tunnel.rs"]
mod tunnel;

/// An attack and its name. `Err` says how it worked.
type Attack = (&'static str, fn(&Relay) -> Result<(), String>);

const ALL: [&[Attack]; 8] = [
    authorize::ATTACKS,
    callback::ATTACKS,
    consent::ATTACKS,
    device::ATTACKS,
    mcp::ATTACKS,
    register::ATTACKS,
    token::ATTACKS,
    tunnel::ATTACKS,
];

#[test]
fn authorize_withstands() {
    withstands(&Relay::start("attacks-authorize"), authorize::ATTACKS);
}

#[test]
fn callback_withstands() {
    let provider = callback::Provider::start();
    let relay = Relay::with("attacks-callback", &provider.login());
    provider.is_asked_by(&relay);
    attack(&relay, callback::ATTACKS);
}

#[test]
fn consent_and_login_withstand() {
    // Behind a proxy: who guesses passwords there locks nobody else out.
    let relay = Relay::with("attacks-consent", &serde_json::json!({"trustedProxies": ["127.0.0.1"]}));
    withstands(&relay, consent::ATTACKS);
}

#[test]
fn device_grant_withstands() {
    withstands(&Relay::start("attacks-device"), device::ATTACKS);
}

#[test]
fn mcp_endpoint_withstands() {
    withstands(&Relay::start("attacks-mcp"), mcp::ATTACKS);
}

#[test]
fn registration_withstands() {
    withstands(&Relay::start("attacks-register"), register::ATTACKS);
}

#[test]
fn token_and_revocation_withstand() {
    withstands(&Relay::start("attacks-token"), token::ATTACKS);
}

#[test]
fn tunnel_withstands() {
    withstands(&Relay::start("attacks-tunnel"), tunnel::ATTACKS);
}

#[test]
fn there_are_enough_of_them_and_none_twice() {
    let mut names: Vec<_> = ALL.iter().flat_map(|attacks| attacks.iter().map(|(name, _)| *name)).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert!(count >= 40 && names.len() == count, "{count} attacks under {} names", names.len());
}

/// Tries all of them; an honest person comes in after as before.
fn withstands(relay: &Relay, attacks: &[Attack]) {
    honest(relay);
    attack(relay, attacks);
    honest(relay);
}

fn attack(relay: &Relay, attacks: &[Attack]) {
    let mut worked = Vec::new();
    for (name, attack) in attacks {
        if let Err(how) = attack(relay) {
            worked.push(format!("{name}: {how}"));
        }
        let alive = relay.http("GET", "/healthz", &[], b"").status;
        assert_eq!(alive, 200, "after {name}");
    }
    assert!(worked.is_empty(), "{} of {} attacks worked:\n{}", worked.len(), attacks.len(), worked.join("\n"));
}

fn honest(relay: &Relay) {
    let tokens = tokens(relay, &register(relay));
    assert!(Client::with_token(relay, access(&tokens)).tools().contains(&"status".to_owned()));
}

/// `Err` unless it is so.
fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// A refusal on a page of the relay's own, which sends nobody anywhere.
fn stays_here(reply: &Reply) -> Result<(), String> {
    let stays =
        matches!(reply.status, 400 | 403 | 404 | 405 | 413 | 414 | 429 | 431) && reply.header("location").is_none();
    ensure(stays, || format!("{} to {:?}: {}", reply.status, reply.header("location"), reply.text()))
}

/// A refusal as RFC 6749 section 5.2 has it.
fn refused((status, answer): &(u16, serde_json::Value), code: &str) -> Result<(), String> {
    let is_so = matches!(status, 400 | 401) && answer["error"] == code && answer.get("access_token").is_none();
    ensure(is_so, || format!("{status} {answer} instead of {code}"))
}

/// What `/mcp` answers to a token.
fn with_token(relay: &Relay, token: &str, path: &str) -> Reply {
    relay.post(path, token, br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#)
}

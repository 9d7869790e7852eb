//! A sign-in's family of tokens, from its code to its end: every request in every state.
//!
//! What is ordered of the store is held, so that a cell says what is answered at once, `|` where a write is awaited, and
//! what is answered once all is written. `shards` are told of a revocation. `.`: nothing.

use super::super::families::{IDLE_LIFETIME, REUSE_GRACE};
use super::*;
use crate::table::Table;

const STATES: [(&str, &str); 8] = [
    ("no code yet", "0 known, 0 good, 0 jobs; no code, 0 times tokens"),
    ("code", "0 known, 0 good, 0 jobs; a code, 0 times tokens"),
    ("issuing", "0 known, 0 good, 1 jobs; a code, 0 times tokens"),
    ("live", "1 known, 1 good, 0 jobs; a code, 1 times tokens"),
    ("refreshed", "1 known, 1 good, 0 jobs; a code, 2 times tokens"),
    ("refreshing", "1 known, 1 good, 1 jobs; a code, 1 times tokens"),
    ("revoking", "1 known, 1 good, 1 jobs; a code, 1 times tokens"),
    ("revoked", "1 known, 0 good, 0 jobs; a code, 1 times tokens"),
];

/// A relay with a client that is on its way through all of this.
struct Bench {
    relay: Relay,
    client: String,
    other: String,
    code: String,
    /// What the client holds; the newest last.
    held: Vec<Tokens>,
    /// The client's requests that were not answered when the state was reached.
    open: Vec<ExchangeId>,
}

impl Bench {
    fn in_state(state: &str) -> Self {
        let mut relay = Relay::new();
        let client = relay.register(WEB);
        let other = relay.register("https://other.example/cb");
        let mut bench = Self { relay, client, other, code: "none".into(), held: Vec::new(), open: Vec::new() };
        if state != "no code yet" {
            bench.code = bench.relay.code(&bench.client.clone(), WEB);
        }
        if matches!(state, "no code yet" | "code") {
            return bench;
        }
        if state == "issuing" {
            bench.relay.hold_writes();
            let form = redemption(&bench.client, WEB, &bench.code);
            bench.open.push(bench.relay.send_form("/token", &form));
            return bench;
        }
        let reply = bench.relay.redeem(&bench.client, WEB, &bench.code);
        bench.held.push(Tokens::new(bench.client.clone(), &reply));
        let newest = bench.held[0].refresh.clone();
        match state {
            "live" => {}
            "refreshed" => {
                let reply = bench.relay.refresh(&bench.client, &newest);
                bench.held.push(Tokens::new(bench.client.clone(), &reply));
            }
            "refreshing" => {
                bench.relay.hold_writes();
                bench.open.push(bench.relay.send_form("/token", &refresh(&bench.client, &newest)));
            }
            "revoking" | "revoked" => {
                if state == "revoking" {
                    bench.relay.hold_writes();
                }
                let form = [("client_id", &*bench.client), ("token", &*newest)];
                let exchange = bench.relay.send_form("/revoke", &form);
                if state == "revoked" {
                    bench.relay.answer(exchange);
                    bench.relay.revoked();
                } else {
                    bench.open.push(exchange);
                }
            }
            other => panic!("no such state: {other}"),
        }
        bench
    }

    /// Families, those of them that are good, jobs under way, and what the client holds.
    fn look(&self) -> String {
        let Relay { grants, snapshot, .. } = &self.relay;
        let (known, good, jobs) = (grants.families.known.len(), snapshot.families.len(), grants.pending.len());
        let code = if self.code == "none" { "no code" } else { "a code" };
        format!("{known} known, {good} good, {jobs} jobs; {code}, {} times tokens", self.held.len())
    }

    fn give(&mut self, event: &str) -> String {
        let newest = self.held.last().map_or("none".to_string(), |tokens| tokens.refresh.clone());
        let before = self.held.first().map_or("none".to_string(), |tokens| tokens.refresh.clone());
        let access = self.held.last().map_or("none".to_string(), |tokens| tokens.access.clone());
        if self.relay.held.is_none() {
            self.relay.hold_writes();
        }
        let (relay, client, other) = (&mut self.relay, &*self.client, &*self.other);
        match event {
            "redeem" => drop(relay.send_form("/token", &redemption(client, WEB, &self.code))),
            "redeem with another verifier" => {
                let mut form = redemption(client, WEB, &self.code);
                form.retain(|(name, _)| *name != "code_verifier");
                form.push(("code_verifier", "another-verifier-of-forty-three-characters-0"));
                relay.send_form("/token", &form);
            }
            "refresh" => drop(relay.send_form("/token", &refresh(client, &newest))),
            "refresh with the one before" => drop(relay.send_form("/token", &refresh(client, &before))),
            "late refresh with the one before" => {
                relay.pass(REUSE_GRACE + Duration::from_millis(1));
                relay.send_form("/token", &refresh(client, &before));
            }
            "refresh as another client" => drop(relay.send_form("/token", &refresh(other, &newest))),
            "revoke" => drop(relay.send_form("/revoke", &[("client_id", client), ("token", &newest)])),
            "revoke as another client" => drop(relay.send_form("/revoke", &[("client_id", other), ("token", &newest)])),
            "use" => {
                return match relay.open(&access, "/mcp") {
                    Ok(_) => "good".into(),
                    Err(TokenError::Revoked) => "revoked".into(),
                    Err(TokenError::Invalid) => "invalid".into(),
                    Err(error) => error.to_string(),
                };
            }
            "operator revokes" => {
                let command = AdminCommand::GrantRevokeAll { user: "local:ann".into() };
                relay.event(Event::Admin { job: JobId(5), command });
            }
            "a month passes, refresh" => {
                relay.pass(IDLE_LIFETIME);
                relay.send_form("/token", &refresh(client, &newest));
            }
            other => panic!("no such event: {other}"),
        }
        let mut said = self.said();
        let writes = self.relay.held.as_ref().is_some_and(|held| !held.is_empty());
        self.relay.let_go();
        let after = self.said();
        if writes {
            said.push("|".into());
        }
        said.extend(after);
        if said.is_empty() { ".".into() } else { said.join(" ") }
    }

    fn said(&mut self) -> Vec<String> {
        let replies = core::mem::take(&mut self.relay.replies);
        let word = |(exchange, reply): (ExchangeId, Reply)| {
            let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
            let word = match (answer["error"].as_str(), answer.get("access_token").is_some()) {
                (Some(error), _) => error.to_string(),
                (None, true) => "tokens".into(),
                (None, false) => reply.status.as_u16().to_string(),
            };
            if self.open.contains(&exchange) { format!("({word})") } else { word }
        };
        let mut said: Vec<String> = replies.into_iter().map(word).collect();
        for action in core::mem::take(&mut self.relay.others) {
            said.push(match action {
                Action::Revoked { .. } => "shards".into(),
                Action::AdminReply { .. } => "told".into(),
                other => panic!("{other:?}"),
            });
        }
        said
    }
}

/// What follows each event, in the order of [`STATES`].
const TABLE: &[(&str, [&str; 8])] = &[
    // no code yet, code, issuing, live, refreshed, refreshing, revoking, revoked
    (
        "redeem",
        [
            "invalid_grant",
            "| tokens",
            "invalid_grant | (tokens) shards",
            "invalid_grant shards |",
            "invalid_grant shards |",
            "invalid_grant | (tokens) shards",
            "invalid_grant | (200) shards",
            "invalid_grant",
        ],
    ),
    (
        "redeem with another verifier",
        [
            "invalid_grant",
            "invalid_grant",
            "invalid_grant | (tokens)",
            "invalid_grant",
            "invalid_grant",
            "invalid_grant | (tokens)",
            "invalid_grant | (200) shards",
            "invalid_grant",
        ],
    ),
    (
        "refresh",
        [
            "invalid_grant",
            "invalid_grant",
            "invalid_grant | (tokens)",
            "| tokens",
            "| tokens",
            "| (tokens) tokens",
            "| (200) invalid_grant shards",
            "invalid_grant",
        ],
    ),
    (
        "refresh with the one before",
        [
            "invalid_grant",
            "invalid_grant",
            "invalid_grant | (tokens)",
            "| tokens",
            "| tokens",
            "| (tokens) tokens",
            "| (200) invalid_grant shards",
            "invalid_grant",
        ],
    ),
    (
        "late refresh with the one before",
        [
            "invalid_grant",
            "invalid_grant",
            "invalid_grant | (tokens)",
            "| tokens",
            "invalid_grant shards |",
            "| (tokens) invalid_grant shards",
            "| (200) invalid_grant shards",
            "invalid_grant",
        ],
    ),
    (
        "refresh as another client",
        [
            "invalid_grant",
            "invalid_grant",
            "invalid_grant | (tokens)",
            "invalid_grant",
            "invalid_grant",
            "| (tokens) invalid_grant",
            "| (200) invalid_grant shards",
            "invalid_grant",
        ],
    ),
    (
        "revoke",
        [
            "200",
            "200",
            "200 | (tokens)",
            "| 200 shards",
            "| 200 shards",
            "| (tokens) 200 shards",
            "| (200) 200 shards",
            "200",
        ],
    ),
    (
        "revoke as another client",
        [
            "200",
            "200",
            "200 | (tokens)",
            "invalid_grant",
            "invalid_grant",
            "invalid_grant | (tokens)",
            "invalid_grant | (200) shards",
            "invalid_grant",
        ],
    ),
    ("use", ["invalid", "invalid", "invalid", "good", "good", "good", "good", "revoked"]),
    (
        "operator revokes",
        [
            "told",
            "told",
            "| (tokens) shards told",
            "| shards told",
            "| shards told",
            "| (tokens) shards told",
            "| (200) shards told",
            "told",
        ],
    ),
    (
        "a month passes, refresh",
        [
            "invalid_grant",
            "invalid_grant",
            "invalid_grant | (tokens)",
            "invalid_grant |",
            "invalid_grant |",
            "| (tokens) invalid_grant",
            "| (200) invalid_grant shards",
            "invalid_grant |",
        ],
    ),
];

const SPARED: &[(&str, &[&str])] = &[
    ("no request about tokens: table_grants", &["TokenRefused", "EndSession", "TunnelUp", "Used", "TunnelDown"]),
    ("at the login: table_login", &["Fetched", "Verified"]),
    ("table_admin", &["TokenCreate", "TokenList", "TokenRevoke", "GrantList", "GrantRevoke"]),
    ("table_admin", &["KeysList", "KeysRotate", "KeysRevokeAll"]),
];

#[test]
fn every_event_in_every_state() {
    Table { states: STATES, rows: TABLE, kinds: KINDS, spared: SPARED }.check(
        Bench::in_state,
        |bench| bench.look(),
        |mut bench, event| bench.give(event),
    );
}

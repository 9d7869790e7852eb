//! The operator's orders about grants and keys: every order in every state. Jobs are held, so that a cell says what is
//! answered at once, `|` where something must be kept first, and what follows once it is kept. `shards`: what they are told.

use super::super::grants::Pending;
use super::*;
use crate::table::Table;

/// Each with what there is: families, those of them that are good, keys, and jobs under way.
const STATES: [(&str, &str); 12] = [
    ("nothing", "0 known, 0 good, 1 keys, []"),
    ("a sign-in", "1 known, 1 good, 1 keys, []"),
    ("a token", "1 known, 1 good, 1 keys, []"),
    ("a token that was revoked", "1 known, 0 good, 1 keys, []"),
    ("a token that has run out", "1 known, 1 good, 1 keys, []"),
    ("a token being made", "0 known, 0 good, 1 keys, [\"family\"]"),
    ("a token being revoked", "1 known, 1 good, 1 keys, [\"family\"]"),
    ("a key being made", "0 known, 0 good, 1 keys, [\"keys\"]"),
    ("all being signed out", "0 known, 0 good, 1 keys, [\"keys\"]"),
    ("key of the configuration", "0 known, 0 good, 1 keys, []"),
    ("as many keys as may be", "0 known, 0 good, 16 keys, []"),
    ("disk full", "1 known, 1 good, 1 keys, [], full"),
];

pub(super) fn create(user: &str, lifetime_secs: u64) -> AdminCommand {
    let (role, scope, label) = (Role::Client, String::new(), "cron".into());
    AdminCommand::TokenCreate { user: user.into(), role, scope, label, lifetime_secs }
}

/// What the operator is told, in short: how many are listed, revoked or kept, or that it was refused.
pub(super) fn outcome(json: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(json).expect("JSON");
    let count = |list: &str| answer[list].as_array().map(|list| format!("{} listed", list.len()));
    let number = |name: &str| answer[name].as_u64().map(|number| format!("{number} {name}"));
    match answer["ok"].as_bool() {
        Some(true) if answer.get("token").is_some() => "a token".into(),
        Some(true) => (count("tokens").or(count("grants")).or(count("keys")))
            .or(number("revoked").or(number("signedOut")).or(number("kept")))
            .unwrap_or("done".into()),
        _ => "refused".into(),
    }
}

struct Bench {
    relay: Relay,
    /// The id of what there is.
    id: String,
}

impl Bench {
    fn in_state(state: &str) -> Self {
        let mut relay = match state {
            "key of the configuration" => {
                let keys = Keyring::configured(vec![crate::seal::Sealer::generate(&mut Seeded::new(1))]);
                Relay::at(PUBLIC, local(), BTreeMap::new(), keys, UnixTime::from_secs(START))
            }
            _ => Relay::new(),
        };
        let mut id = "nothing".to_string();
        if state == "a sign-in" || state == "disk full" {
            let tokens = relay.tokens();
            id = relay.open(&tokens.access, "/mcp").expect("it is good").family.to_string();
        }
        if state.starts_with("a token") && state != "a token being made" {
            id = text(&relay.admin(create("ann", 7_200)), "id");
        }
        let order = |relay: &mut Relay, command| relay.event(Event::Admin { job: JobId(5), command });
        match state {
            "a token that was revoked" => order(&mut relay, AdminCommand::TokenRevoke { id: id.clone() }),
            // It is known until the next sweep.
            "a token that has run out" => {
                relay.now = Now { unix: relay.now.unix + Duration::from_secs(7_200), ..relay.now };
            }
            "a token being made" => {
                relay.leaves_jobs = true;
                order(&mut relay, create("ann", 7_200));
            }
            "a token being revoked" => {
                relay.leaves_jobs = true;
                order(&mut relay, AdminCommand::TokenRevoke { id: id.clone() });
            }
            "a key being made" => {
                relay.leaves_jobs = true;
                order(&mut relay, AdminCommand::KeysRotate);
            }
            "all being signed out" => {
                relay.leaves_jobs = true;
                order(&mut relay, AdminCommand::KeysRevokeAll);
            }
            "as many keys as may be" => {
                for _ in 1..limits::MAX_KEYS {
                    relay.admin(AdminCommand::KeysRotate);
                }
            }
            "disk full" => relay.store_fails = true,
            _ => {}
        }
        relay.leaves_jobs = true;
        relay.replies.clear();
        Self { relay, id }
    }

    fn look(&self) -> String {
        let grants = &self.relay.grants;
        let (known, good) = (grants.families.known.len(), self.relay.snapshot.families.len());
        let jobs = grants.pending.values().map(|pending| match pending {
            Pending::Verify(_) => "password",
            Pending::Family { .. } => "family",
            Pending::Session { .. } => "session",
            Pending::Sweep => "sweep",
            Pending::Keys { .. } => "keys",
            Pending::RevokeAll { .. } => "all",
        });
        let jobs: Vec<_> = jobs.collect();
        let fails = if self.relay.store_fails { ", full" } else { "" };
        format!("{known} known, {good} good, {} keys, {jobs:?}{fails}", self.relay.keys.keys().len())
    }

    fn give(mut self, event: &str) -> String {
        let before: Vec<Action> = core::mem::take(&mut self.relay.others);
        let id = self.id.clone();
        let of = |user: &str| user.to_string();
        let command = match event {
            "token create" => create("ann", 60),
            "token create of nobody" => create("eve", 60),
            "token create for ever" => create("ann", u64::MAX),
            "token list" => AdminCommand::TokenList,
            "token revoke" => AdminCommand::TokenRevoke { id },
            "token revoke of nothing" => AdminCommand::TokenRevoke { id: "nothing".into() },
            "grants list" => AdminCommand::GrantList { user: None },
            "grants list of ann" => AdminCommand::GrantList { user: Some(of("ann")) },
            "grants list of nobody" => AdminCommand::GrantList { user: Some(of("eve")) },
            "grants revoke" => AdminCommand::GrantRevoke { id },
            "grants revoke of nothing" => AdminCommand::GrantRevoke { id: "nothing".into() },
            "grants revoke all of ann" => AdminCommand::GrantRevokeAll { user: of("ann") },
            "grants revoke all of bob" => AdminCommand::GrantRevokeAll { user: of("bob") },
            "grants revoke all of nobody" => AdminCommand::GrantRevokeAll { user: of("eve") },
            "keys list" => AdminCommand::KeysList,
            "keys rotate" => AdminCommand::KeysRotate,
            "keys revoke all" => AdminCommand::KeysRevokeAll,
            other => panic!("no such event: {other}"),
        };
        self.relay.event(Event::Admin { job: JobId(6), command });
        let mut said = self.said();
        // What was held before ends first; then the rest, in turn.
        self.relay.leaves_jobs = false;
        let held: Vec<Action> = before.into_iter().chain(core::mem::take(&mut self.relay.others)).collect();
        if !held.is_empty() {
            said.push("|".into());
        }
        held.into_iter().for_each(|action| self.relay.carry_out(action));
        self.relay.settle();
        said.extend(self.said());
        assert!(self.relay.grants.pending.is_empty(), "nothing is left under way");
        said.join(" ")
    }

    /// What came out besides jobs, which are left.
    fn said(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        for action in core::mem::take(&mut self.relay.others) {
            match action {
                Action::AdminReply { job: JobId(6), json } => said.push(outcome(&json)),
                Action::AdminReply { json, .. } => said.push(format!("({})", outcome(&json))),
                Action::Revoked { .. } => said.push("shards: one".into()),
                Action::RevokedAll => said.push("shards: all".into()),
                job => self.relay.others.push(job),
            }
        }
        said
    }
}

/// What follows each order, in the order of [`STATES`].
const TABLE: &[(&str, [&str; 12])] = &[
    // nothing, sign-in, token, revoked, run out, being made, being revoked, key being made, all, configured, many keys, full
    (
        "token create",
        [
            "| a token",
            "| a token",
            "| a token",
            "| shards: one (done) a token",
            "| a token",
            "| (a token) a token",
            "| shards: one (done) a token",
            "| (2 kept) a token",
            "refused | shards: all (0 signedOut)",
            "| a token",
            "| a token",
            "| refused",
        ],
    ),
    (
        "token create of nobody",
        [
            "refused",
            "refused",
            "refused",
            "refused | shards: one (done)",
            "refused",
            "refused | (a token)",
            "refused | shards: one (done)",
            "refused | (2 kept)",
            "refused | shards: all (0 signedOut)",
            "refused",
            "refused",
            "refused",
        ],
    ),
    (
        "token create for ever",
        [
            "refused",
            "refused",
            "refused",
            "refused | shards: one (done)",
            "refused",
            "refused | (a token)",
            "refused | shards: one (done)",
            "refused | (2 kept)",
            "refused | shards: all (0 signedOut)",
            "refused",
            "refused",
            "refused",
        ],
    ),
    (
        "token list",
        [
            "0 listed",
            "0 listed",
            "1 listed",
            "1 listed | shards: one (done)",
            "1 listed",
            "0 listed | (a token)",
            "1 listed | shards: one (done)",
            "0 listed | (2 kept)",
            "0 listed | shards: all (0 signedOut)",
            "0 listed",
            "0 listed",
            "0 listed",
        ],
    ),
    (
        "token revoke",
        [
            "refused",
            "refused",
            "| shards: one done",
            "done | shards: one (done)",
            "| shards: one done",
            "refused | (a token)",
            "| shards: one (done) done",
            "refused | (2 kept)",
            "refused | shards: all (0 signedOut)",
            "refused",
            "refused",
            "refused",
        ],
    ),
    (
        "token revoke of nothing",
        [
            "refused",
            "refused",
            "refused",
            "refused | shards: one (done)",
            "refused",
            "refused | (a token)",
            "refused | shards: one (done)",
            "refused | (2 kept)",
            "refused | shards: all (0 signedOut)",
            "refused",
            "refused",
            "refused",
        ],
    ),
    (
        "grants list",
        [
            "0 listed",
            "1 listed",
            "1 listed",
            "0 listed | shards: one (done)",
            "0 listed",
            "0 listed | (a token)",
            "1 listed | shards: one (done)",
            "0 listed | (2 kept)",
            "0 listed | shards: all (0 signedOut)",
            "0 listed",
            "0 listed",
            "1 listed",
        ],
    ),
    (
        "grants list of ann",
        [
            "0 listed",
            "1 listed",
            "1 listed",
            "0 listed | shards: one (done)",
            "0 listed",
            "0 listed | (a token)",
            "1 listed | shards: one (done)",
            "0 listed | (2 kept)",
            "0 listed | shards: all (0 signedOut)",
            "0 listed",
            "0 listed",
            "1 listed",
        ],
    ),
    (
        "grants list of nobody",
        [
            "refused",
            "refused",
            "refused",
            "refused | shards: one (done)",
            "refused",
            "refused | (a token)",
            "refused | shards: one (done)",
            "refused | (2 kept)",
            "refused | shards: all (0 signedOut)",
            "refused",
            "refused",
            "refused",
        ],
    ),
    (
        "grants revoke",
        [
            "refused",
            "| shards: one done",
            "| shards: one done",
            "done | shards: one (done)",
            "| shards: one done",
            "refused | (a token)",
            "| shards: one (done) done",
            "refused | (2 kept)",
            "refused | shards: all (0 signedOut)",
            "refused",
            "refused",
            "| refused",
        ],
    ),
    (
        "grants revoke of nothing",
        [
            "refused",
            "refused",
            "refused",
            "refused | shards: one (done)",
            "refused",
            "refused | (a token)",
            "refused | shards: one (done)",
            "refused | (2 kept)",
            "refused | shards: all (0 signedOut)",
            "refused",
            "refused",
            "refused",
        ],
    ),
    (
        "grants revoke all of ann",
        [
            "0 revoked",
            "| shards: one 1 revoked",
            "| shards: one 1 revoked",
            "0 revoked | shards: one (done)",
            "0 revoked",
            "| (a token) shards: one 1 revoked",
            "| shards: one (done) 1 revoked",
            "0 revoked | (2 kept)",
            "0 revoked | shards: all (0 signedOut)",
            "0 revoked",
            "0 revoked",
            "| refused",
        ],
    ),
    (
        "grants revoke all of bob",
        [
            "0 revoked",
            "0 revoked",
            "0 revoked",
            "0 revoked | shards: one (done)",
            "0 revoked",
            "0 revoked | (a token)",
            "0 revoked | shards: one (done)",
            "0 revoked | (2 kept)",
            "0 revoked | shards: all (0 signedOut)",
            "0 revoked",
            "0 revoked",
            "0 revoked",
        ],
    ),
    (
        "grants revoke all of nobody",
        [
            "refused",
            "refused",
            "refused",
            "refused | shards: one (done)",
            "refused",
            "refused | (a token)",
            "refused | shards: one (done)",
            "refused | (2 kept)",
            "refused | shards: all (0 signedOut)",
            "refused",
            "refused",
            "refused",
        ],
    ),
    (
        "keys list",
        [
            "1 listed",
            "1 listed",
            "1 listed",
            "1 listed | shards: one (done)",
            "1 listed",
            "1 listed | (a token)",
            "1 listed | shards: one (done)",
            "1 listed | (2 kept)",
            "1 listed | shards: all (0 signedOut)",
            "1 listed",
            "16 listed",
            "1 listed",
        ],
    ),
    (
        "keys rotate",
        [
            "| 2 kept",
            "| 2 kept",
            "| 2 kept",
            "| shards: one (done) 2 kept",
            "| 2 kept",
            "| (a token) 2 kept",
            "| shards: one (done) 2 kept",
            "refused | (2 kept)",
            "refused | shards: all (0 signedOut)",
            "refused",
            "refused",
            "| refused",
        ],
    ),
    (
        "keys revoke all",
        [
            "| shards: all 0 signedOut",
            "| shards: all 1 signedOut",
            "| shards: all 1 signedOut",
            "| shards: one (done) shards: all 0 signedOut",
            "| shards: all 0 signedOut",
            "| (a token) shards: all 1 signedOut",
            "| shards: one (done) shards: all 0 signedOut",
            "refused | (2 kept)",
            "refused | shards: all (0 signedOut)",
            "| shards: all 0 signedOut",
            "| shards: all 0 signedOut",
            "| refused",
        ],
    ),
];

const SPARED: &[(&str, &[&str])] = &[
    ("no orders of the operator's: table_grants", &["Request", "TokenRefused", "EndSession", "TunnelUp", "Used"]),
    ("no orders of the operator's: table_grants", &["TunnelDown", "Fetched", "Verified", "time"]),
];

#[test]
fn every_order_in_every_state() {
    Table { states: STATES, rows: TABLE, kinds: KINDS, spared: SPARED }.check(
        Bench::in_state,
        |bench| bench.look(),
        Bench::give,
    );
}

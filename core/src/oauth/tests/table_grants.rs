//! A grant between two records of it: what every event does that is no request of its client's, in every state.
//!
//! Writes are held. What follows: the status of an answer, `keep` and what is ordered to be kept, `publish` for what the
//! gate is told, and what the shards are. `.`: nothing.

use super::*;
use crate::id::{ConnId, DeviceName, UserId};
use crate::oauth::families::Kind;
use crate::oauth::refusals::RefusedToken;
use crate::relay::SessionKey;
use crate::table::Table;

const HOUR: Duration = Duration::from_secs(3_600);

/// Each looks like this: what it is, whether its tokens are good, whether a tunnel of it is open; and the jobs under way.
const STATES: [(&str, &str); 11] = [
    ("never was", "unknown; "),
    ("being made", "unknown; tokens for a code"),
    ("fresh", "sign-in, good; "),
    ("old", "sign-in, good; "),
    ("being refreshed", "sign-in, good; tokens"),
    ("connected", "sign-in, good, connected; "),
    ("left", "sign-in, good; "),
    ("minted", "minted, good; "),
    ("being revoked", "sign-in, good; revocation for a client"),
    ("revoked", "revoked; "),
    ("all being signed out", "sign-in, good, all closed; all families, new key: true"),
];

struct Bench {
    relay: Relay,
    family: FamilyId,
}

impl Bench {
    fn in_state(state: &str) -> Self {
        let mut relay = Relay::new();
        let mut family = FamilyId::new("never was");
        match state {
            "never was" => {}
            "being made" => {
                let client = relay.register(WEB);
                let code = relay.code(&client, WEB);
                relay.hold_writes();
                relay.send_form("/token", &redemption(&client, WEB, &code));
                let held = relay.held.as_ref().expect("it is held");
                let Change::Put { key, .. } = &held[0].1[0] else { panic!("{held:?}") };
                family = FamilyId::new(key.strip_prefix("family/").expect("a family's"));
            }
            "minted" => {
                let made = relay.admin(AdminCommand::TokenCreate {
                    user: "ann".into(),
                    role: Role::Client,
                    scope: String::new(),
                    label: "cron".into(),
                    lifetime_secs: 90 * 86_400,
                });
                family = FamilyId::from(text(&made, "id"));
            }
            _ => {
                let tokens = relay.tokens();
                family = relay.open(&tokens.access, "/mcp").expect("it is good").family;
                if state != "fresh" {
                    relay.pass(HOUR);
                }
                match state {
                    "fresh" | "old" => {}
                    "connected" | "left" => {
                        relay.event(up(1, &family));
                        if state == "left" {
                            relay.event(Event::TunnelDown { conn: ConnId(1) });
                        }
                    }
                    "being refreshed" => {
                        relay.hold_writes();
                        relay.send_form("/token", &refresh(&tokens.client, &tokens.refresh));
                    }
                    "being revoked" | "revoked" => {
                        if state == "being revoked" {
                            relay.hold_writes();
                        }
                        relay.send_form("/revoke", &[("client_id", &*tokens.client), ("token", &*tokens.refresh)]);
                    }
                    "all being signed out" => {
                        relay.hold_writes();
                        relay.event(Event::Admin { job: JobId(5), command: AdminCommand::KeysRevokeAll });
                    }
                    other => panic!("no such state: {other}"),
                }
            }
        }
        relay.replies.clear();
        relay.others.clear();
        relay.held = Some(Vec::new());
        Self { relay, family }
    }

    fn look(&self) -> String {
        let grants = &self.relay.grants;
        let known = match grants.families.known.get(&self.family) {
            None => "unknown",
            Some(family) if family.revoked.is_some() => "revoked",
            Some(family) => match family.kind {
                Kind::SignIn { .. } => "sign-in",
                Kind::Minted { .. } => "minted",
            },
        };
        let is = |is: bool, word: &'static str| is.then_some(word);
        let more = [
            is(self.relay.snapshot.families.contains(&self.family), "good"),
            is(grants.presence.connected().contains(&self.family), "connected"),
            is(!grants.can_write(), "all closed"),
        ];
        let said: Vec<_> = [Some(known)].into_iter().chain(more).flatten().collect();
        let jobs: Vec<_> = grants.pending.values().map(table_jobs::words).collect();
        format!("{}; {}", said.join(", "), jobs.join(", "))
    }

    fn give(mut self, event: &str) -> String {
        let (relay, family) = (&mut self.relay, self.family);
        let before = relay.snapshot.clone();
        let (ann, session) = (UserId::new("local:ann"), SessionKey(Arc::from("s")));
        let expires = relay.now.unix + HOUR;
        relay.next_exchange += 1;
        let exchange = ExchangeId(relay.next_exchange);
        let end = |session, expires| Event::EndSession { exchange, user: ann.clone(), session, expires };
        match event {
            "used" => relay.event(Event::Used { family }),
            "tunnel up" => relay.event(up(1, &family)),
            "another tunnel up" => relay.event(up(2, &family)),
            "tunnel down" => relay.event(Event::TunnelDown { conn: ConnId(1) }),
            "tunnel down that never was up" => relay.event(Event::TunnelDown { conn: ConnId(99) }),
            "session ends" => relay.event(end(session, expires)),
            "session ends that has run out" => relay.event(end(session, relay.now.unix)),
            "session ends of too long a name" => relay.event(end(SessionKey("s".repeat(201).into()), expires)),
            "token refused" => {
                let reply = Reply::empty(StatusCode::UNAUTHORIZED);
                let (error, peer) = (TokenError::Revoked, PEER.parse().expect("an address"));
                let refused = RefusedToken { error, family: Some(family), peer, reply };
                relay.event(Event::TokenRefused { exchange, refused });
            }
            "an hour passes" => relay.pass(HOUR),
            "its user is gone for long" => relay.pass(40 * 24 * HOUR),
            "fetch of nobody ends" => {
                relay.event(Event::Fetched { fetch: FetchId(99), result: Err(FetchError::TimedOut) });
            }
            "check of nobody ends" => relay.event(Event::Verified { job: JobId(99), ok: true }),
            "write of nobody ends" => relay.event(Event::Persisted { job: JobId(99), result: Ok(()) }),
            other => panic!("no such event: {other}"),
        }
        let mut said: Vec<String> = Vec::new();
        said.extend(core::mem::take(&mut relay.replies).into_values().map(|reply| reply.status.as_u16().to_string()));
        for (_, changes) in relay.held.take().expect("they are held") {
            let what = |change: &Change| match change {
                Change::Put { key, .. } => format!("keep {}", key.split('/').next().expect("one")),
                Change::Delete { key } => format!("forget {}", key.split('/').next().expect("one")),
            };
            said.extend(changes.iter().map(what));
        }
        said.extend((!Arc::ptr_eq(&before, &relay.snapshot)).then(|| "publish".into()));
        for action in core::mem::take(&mut relay.others) {
            said.push(match action {
                Action::Revoked { .. } => "revoked at the shards".into(),
                other => panic!("{other:?}"),
            });
        }
        if said.is_empty() { ".".into() } else { said.join(", ") }
    }
}

fn up(conn: u64, family: &FamilyId) -> Event {
    Event::TunnelUp { conn: ConnId(conn), family: family.clone(), device: DeviceName::new("laptop") }
}

/// What follows each event, in the order of [`STATES`].
const TABLE: &[(&str, [&str; 11])] = &[
    // never was, being made, fresh, old, being refreshed, connected, left, minted, being revoked, revoked, all being signed out
    ("used", [".", ".", ".", "keep family", ".", ".", ".", ".", ".", ".", "."]),
    (
        "tunnel up",
        [
            "revoked at the shards",
            "revoked at the shards",
            ".",
            "keep family",
            ".",
            ".",
            ".",
            ".",
            ".",
            "revoked at the shards",
            ".",
        ],
    ),
    (
        "another tunnel up",
        [
            "revoked at the shards",
            "revoked at the shards",
            ".",
            "keep family",
            ".",
            ".",
            ".",
            ".",
            ".",
            "revoked at the shards",
            ".",
        ],
    ),
    ("tunnel down", ["."; 11]),
    ("tunnel down that never was up", ["."; 11]),
    (
        "session ends",
        [
            "keep session",
            "keep session",
            "keep session",
            "keep session",
            "keep session",
            "keep session",
            "keep session",
            "keep session",
            "keep session",
            "keep session",
            "503",
        ],
    ),
    ("session ends that has run out", ["204"; 11]),
    ("session ends of too long a name", ["503"; 11]),
    ("token refused", ["401"; 11]),
    (
        "an hour passes",
        [".", ".", ".", ".", ".", "keep family", "keep family", ".", ".", "forget family, publish", "."],
    ),
    (
        "its user is gone for long",
        [
            ".",
            ".",
            "forget family, publish",
            "forget family, publish",
            ".",
            "forget family, publish",
            "forget family, publish",
            ".",
            ".",
            "forget family, publish",
            ".",
        ],
    ),
    ("fetch of nobody ends", ["."; 11]),
    ("check of nobody ends", ["."; 11]),
    ("write of nobody ends", ["."; 11]),
];

const SPARED: &[(&str, &[&str])] = &[
    ("each path has its own table: tokens, logins, pages, devices, documents", &["Request"]),
    ("table_admin", &["Admin"]),
    ("table_admin", ORDERS),
];

#[test]
fn every_event_in_every_state() {
    Table { states: STATES, rows: TABLE, kinds: KINDS, spared: SPARED }.check(
        Bench::in_state,
        |bench| bench.look(),
        Bench::give,
    );
}

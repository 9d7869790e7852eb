//! Every event in every state of a login.

use std::format;

use super::*;
use crate::http::fetch::Fetch;

/// A login whose fetches are answered only when a test says so.
struct Bench {
    world: World,
    login: LoginId,
    /// The fetch that was ordered last.
    fetch: Option<(FetchId, Fetch)>,
}

const STATES: [&str; 9] =
    ["unknown", "metadata", "keys", "returning", "exchanging", "rekeying", "asking", "over", "forgotten"];

impl Bench {
    fn in_state(state: &str) -> Self {
        let world = World::with(|config| {
            if state == "asking" {
                config.user_claim = "upn".into();
            }
        });
        let mut bench = Self { world, login: LoginId(0), fetch: None };
        match state {
            "unknown" => {}
            "metadata" | "keys" => {
                bench.login = bench.world.begin();
                bench.said();
                if state == "keys" {
                    bench.give("answer");
                }
            }
            "returning" => bench.come_back(true),
            "exchanging" => bench.come_back(false),
            "rekeying" => {
                bench.come_back(false);
                bench.world.provider.signer = Signer::rsa();
                bench.world.provider.header = json!({"alg": "RS256", "kid": "k2"});
                bench.world.provider.keys = vec![bench.world.provider.signer.jwk("k2")];
                bench.world.pass(Duration::from_secs(61));
                bench.give("answer");
            }
            "asking" | "over" => {
                bench.come_back(false);
                bench.give("answer");
            }
            "forgotten" => {
                bench.come_back(false);
                bench.give("forget");
            }
            other => panic!("no such state: {other}"),
        }
        bench
    }

    /// The person is back from the provider; `restarted`: at a relay that knows nothing of it.
    fn come_back(&mut self, restarted: bool) {
        let (url, pending) = self.world.redirect().expect("redirected");
        let query = self.world.provider.authorize(&url);
        if restarted {
            let party = World::new().party;
            self.world.party = party;
        }
        self.login = self.world.id();
        self.world.party.callback(self.login, pending, &query, self.world.now, &mut self.world.next_fetch);
        self.said();
    }

    fn give(&mut self, event: &str) -> String {
        let World { party, provider, now, next_fetch, .. } = &mut self.world;
        let status = |status: u16, body: &str| Ok(testing::reply(status, body.into()));
        let result = match event {
            "answer" => self.fetch.as_ref().map_or(status(200, "{}"), |(_, request)| provider.answer(request)),
            "nonsense" => status(200, "<html>"),
            "no" => status(400, r#"{"error":"invalid_grant"}"#),
            "elsewhere" => status(302, ""),
            "unavailable" => status(503, ""),
            "lost" => Err(FetchError::TimedOut),
            "answer to nobody" => {
                assert!(!party.handle_fetched(FetchId(u64::MAX), Err(FetchError::TimedOut), *now, next_fetch));
                return self.said();
            }
            "forget" => {
                party.forget(self.login);
                return self.said();
            }
            "forget another" => {
                party.forget(LoginId(u64::MAX));
                return self.said();
            }
            "another begins" => {
                let before = self.fetch.clone();
                self.world.begin();
                let said = self.said();
                self.fetch = before;
                return said;
            }
            other => panic!("no such event: {other}"),
        };
        let fetch = self.fetch.as_ref().map_or(FetchId(0), |(fetch, _)| *fetch);
        party.handle_fetched(fetch, result, *now, next_fetch);
        self.said()
    }

    /// What is said, in words.
    fn said(&mut self) -> String {
        let mut words = Vec::new();
        while let Some(output) = self.world.party.poll() {
            words.push(match output {
                Output::Fetch { fetch, request } => {
                    let path = request.url.rsplit('/').next().expect("one").to_string();
                    self.fetch = Some((fetch, request));
                    format!("fetch {path}")
                }
                Output::Redirect { login, .. } => format!("redirect{}", self.whose(login)),
                Output::SignedIn { login, .. } => format!("signed in{}", self.whose(login)),
                Output::Failed { login, error } => format!("{}{}", kind(&error), self.whose(login)),
            });
        }
        if words.is_empty() { ".".into() } else { words.join(", ") }
    }

    fn whose(&self, login: LoginId) -> &'static str {
        if login == self.login { "" } else { " the other" }
    }
}

const fn kind(error: &LoginError) -> &'static str {
    match error {
        LoginError::Unreachable { .. } => "unreachable",
        LoginError::Provider { .. } => "broken",
        LoginError::Denied { .. } => "denied",
        LoginError::Refused { .. } => "refused",
        LoginError::Callback => "callback",
        LoginError::Token { .. } => "token",
        LoginError::Userinfo { .. } => "userinfo",
        LoginError::MissingClaim { .. } => "claim",
        LoginError::UnverifiedEmail => "e-mail",
        LoginError::NotAllowed { .. } => "not allowed",
        LoginError::Busy => "busy",
    }
}

#[test]
fn every_event_in_every_state() {
    let nothing = ["."; 9];
    let documents = "fetch openid-configuration";
    let table = [
        // unknown, metadata, keys, returning, exchanging, rekeying, asking, over, forgotten
        ("answer", [".", "fetch keys", "redirect", "fetch keys", "signed in", "signed in", "signed in", ".", "."]),
        ("nonsense", [".", "broken", "broken", "broken", "token", "broken", "userinfo", ".", "."]),
        ("no", [".", "broken", "broken", "broken", "refused", "broken", "userinfo", ".", "."]),
        ("elsewhere", [".", "broken", "broken", "broken", "broken", "broken", "userinfo", ".", "."]),
        (
            "unavailable",
            [".", "unreachable", "unreachable", "unreachable", "unreachable", "unreachable", "userinfo", ".", "."],
        ),
        (
            "lost",
            [".", "unreachable", "unreachable", "unreachable", "unreachable", "unreachable", "userinfo", ".", "."],
        ),
        ("answer to nobody", nothing),
        ("forget", nothing),
        ("forget another", nothing),
        // Documents are fetched once for all who wait for them.
        (
            "another begins",
            [
                documents,
                ".",
                ".",
                ".",
                "redirect the other",
                "redirect the other",
                "redirect the other",
                "redirect the other",
                "redirect the other",
            ],
        ),
    ];
    for (event, expected) in table {
        for (state, expected) in STATES.into_iter().zip(expected) {
            assert_eq!(Bench::in_state(state).give(event), expected, "{event} while {state}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the provider does: each login is answered once, unless it was forgotten, and nothing is awaited for ever.
    #[test]
    fn each_login_is_answered_once(picks in proptest::collection::vec(0..8_usize, 0..24), from in 1..7_usize) {
        const EVENTS: [&str; 8] = ["answer", "answer", "answer", "nonsense", "no", "unavailable", "lost", "another begins"];
        let mut bench = Bench::in_state(STATES[from]);
        let mut said = String::new();
        for pick in picks {
            said.push_str(&bench.give(EVENTS[pick]));
            said.push('\n');
        }
        // Whatever is still under way comes to its end.
        for _ in 0..4 {
            said.push_str(&bench.give("lost"));
            said.push('\n');
        }
        let own = |words: &str| !words.ends_with("the other") && !words.starts_with("fetch") && words != ".";
        let answers = said.lines().flat_map(|line| line.split(", ")).filter(|words| own(words)).count();
        prop_assert_eq!(answers, 1, "{}", said);
    }
}

//! One person's login at a provider: carries the relying party's fetches to a function, and checks what must hold
//! whatever that answers.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tunnel_core::config::Oidc;
use tunnel_core::entropy::Seeded;
use tunnel_core::http::endpoint;
use tunnel_core::http::fetch::Fetched;
use tunnel_core::limits;
use tunnel_core::oidc::{Identity, LoginId, Output, Pending, RelyingParty};
use tunnel_core::secret::Secret;
use tunnel_core::time::{Instant, Now, UnixTime};
use url::Url;

pub const ISSUER: &str = "https://idp.example";
pub const CLIENT: &str = "relay";
/// When the login takes place, in seconds.
pub const NOW: u64 = 1_800_000_000;
const SECRET: &str = "s3cret&x9";
/// Discovery, keys, tokens, keys again, userinfo, and both documents again when they ran out.
const MOST_FETCHES: usize = 7;

pub struct Login {
    party: RelyingParty,
    now: Now,
    next_fetch: u64,
    asked: usize,
}

impl Login {
    pub fn new(user_claim: &str, allow: &[&str]) -> Self {
        let config = Oidc {
            issuer: ISSUER.into(),
            client_id: CLIENT.into(),
            client_secret: Some(Secret::new(SECRET)),
            scopes: None,
            user_claim: user_claim.into(),
            allow: allow.iter().map(|entry| (*entry).into()).collect(),
        };
        let now = Now { instant: Instant::from_micros(0), unix: UnixTime::from_secs(NOW) };
        Self { party: RelyingParty::new(config, "https://relay.example/callback".into()), now, next_fetch: 0, asked: 0 }
    }

    /// Where the browser is sent, if it is; `answer` is given the paths that are fetched.
    pub fn start(&mut self, answer: impl FnMut(&str) -> Fetched) -> Option<(Url, Pending)> {
        self.party.start(LoginId(1), self.now, &mut Seeded::new(1), &mut self.next_fetch);
        let Output::Redirect { url, pending, .. } = self.only(LoginId(1), answer)? else {
            panic!("not what was asked")
        };
        let url = endpoint::secure(&url).expect("the browser is sent where it is safe");
        for (name, value) in [("code_challenge_method", "S256"), ("redirect_uri", "https://relay.example/callback")] {
            assert!(url.query_pairs().any(|pair| pair == (name.into(), value.into())), "{url}");
        }
        Some((url, pending))
    }

    /// Who is signed in by what the browser brings back, two minutes later.
    pub fn come_back(
        &mut self,
        pending: Pending,
        query: &str,
        answer: impl FnMut(&str) -> Fetched,
    ) -> Option<Identity> {
        self.now.instant = self.now.instant + Duration::from_secs(120);
        self.party.callback(LoginId(2), pending, query, self.now, &mut self.next_fetch);
        match self.only(LoginId(2), answer)? {
            Output::SignedIn { identity, .. } => Some(identity),
            other => panic!("not what was asked: {other:?}"),
        }
    }

    /// The one answer; `None` when it is a refusal.
    fn only(&mut self, asked: LoginId, mut answer: impl FnMut(&str) -> Fetched) -> Option<Output> {
        let mut last = None;
        while let Some(output) = self.party.poll() {
            assert!(last.is_none(), "something follows the answer: {output:?}");
            let Output::Fetch { fetch, request } = output else {
                last = Some(output);
                continue;
            };
            self.asked += 1;
            assert!(self.asked <= MOST_FETCHES && request.max_body <= limits::MAX_OAUTH_ANSWER);
            let url = endpoint::secure(&request.url).expect("secrets go where it is safe");
            let fetched = answer(url.path());
            assert!(self.party.handle_fetched(fetch, Ok(fetched), self.now, &mut self.next_fetch));
        }
        match last.expect("who asks is answered") {
            Output::Failed { login, error } => {
                let text = error.to_string();
                assert!(login == asked && text.len() <= 4096 && !text.contains(SECRET), "{text}");
                None
            }
            other => Some(other),
        }
    }
}

pub fn reply(status: u16, body: impl Into<bytes::Bytes>) -> Fetched {
    let json = (HeaderName::from_static("content-type"), HeaderValue::from_static("application/json"));
    let status = StatusCode::from_u16(status).expect("a status");
    Fetched { status, headers: HeaderMap::from_iter([json]), body: body.into() }
}

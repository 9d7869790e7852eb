//! An OpenID provider of the world: it signs with keys of its own, rotates them, and misbehaves when it is told to.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{StatusCode, Uri};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tunnel_core::config::Oidc;
use tunnel_core::http::fetch::{Fetch, FetchError, Fetched};
use tunnel_core::id::FetchId;

use crate::world::{Delivery, World};

/// Where it is.
pub const ISSUER: &str = "https://idp.example";

/// What a relay has configured for it.
#[must_use]
pub fn config() -> Oidc {
    Oidc {
        issuer: ISSUER.into(),
        client_id: "relay".into(),
        client_secret: None,
        scopes: None,
        user_claim: "sub".into(),
        allow: Vec::new(),
    }
}

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    /// As it should.
    #[default]
    Good,
    /// It takes nine seconds for everything.
    Slow,
    /// Nothing listens there.
    Down,
    /// It never answers.
    Silent,
    /// It answers with a page about its troubles.
    Broken,
    /// Its ID tokens are another issuer's.
    OtherIssuer,
    /// Its ID tokens are for another relying party.
    OtherAudience,
    /// Its ID tokens are of another login.
    OtherNonce,
    /// Its ID tokens ran out an hour ago.
    Stale,
    /// Its ID tokens' signatures are another key's.
    Forged,
    /// Its ID tokens are not signed.
    Unsigned,
}

/// All of them but the good one.
pub const BAD_MOODS: [Mood; 10] = [
    Mood::Slow,
    Mood::Down,
    Mood::Silent,
    Mood::Broken,
    Mood::OtherIssuer,
    Mood::OtherAudience,
    Mood::OtherNonce,
    Mood::Stale,
    Mood::Forged,
    Mood::Unsigned,
];

impl Mood {
    /// Whether an ID token that it gives now is good.
    #[must_use]
    pub const fn vouches(self) -> bool {
        matches!(self, Self::Good | Self::Slow)
    }
}

/// The provider.
#[derive(Debug, Default)]
pub struct Provider {
    /// How it behaves.
    pub mood: Mood,
    /// Its keys are of this generation.
    pub generation: u8,
    /// Whether the key before is still published.
    pub keeps_old: bool,
    /// It forgets for whom it has vouched.
    pub(crate) denies: bool,
    /// Who may sign in with a code, and the nonce of their login.
    codes: BTreeMap<String, (String, String)>,
    /// Codes for which it gave a good ID token.
    vouched: Vec<String>,
}

impl Provider {
    /// A person signs in there: the query that their browser takes back.
    ///
    /// # Panics
    ///
    /// When the relay's link has no nonce or state: it always has.
    pub fn authorize(&mut self, link: &str, user: &str) -> String {
        let uri: Uri = link.parse().expect("a relay sends people to a URL");
        let query = uri.query().expect("with a query");
        let field = |name: &str| {
            let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            pair.unwrap_or_else(|| panic!("{name} in {link}")).to_owned()
        };
        let code = format!("code{}", self.codes.len());
        self.codes.insert(code.clone(), (user.to_owned(), field("nonce")));
        format!("code={code}&state={}", field("state"))
    }

    /// Whether it gave a good ID token for that query's code.
    #[must_use]
    pub fn has_vouched(&self, query: &str) -> bool {
        self.vouched.iter().any(|code| query.split('&').any(|pair| pair.strip_prefix("code=") == Some(code)))
    }

    fn answer(&mut self, request: &Fetch, now_secs: u64) -> Result<Fetched, FetchError> {
        match self.mood {
            Mood::Down => return Err(FetchError::Connect("connection refused".into())),
            Mood::Silent => return Err(FetchError::TimedOut),
            Mood::Broken => return Ok(reply(502, "<html>we are working on it</html>".into())),
            _ => {}
        }
        let path = request.url.strip_prefix(ISSUER).unwrap_or_default();
        Ok(match path {
            "/.well-known/openid-configuration" => reply(200, discovery().to_string()),
            "/keys" => reply(200, json!({"keys": self.keys()}).to_string()),
            "/token" => match self.tokens(&request.body, now_secs) {
                Some(tokens) => reply(200, tokens.to_string()),
                None => reply(400, json!({"error": "invalid_grant"}).to_string()),
            },
            _ => reply(404, String::new()),
        })
    }

    fn keys(&self) -> Vec<Value> {
        let old = (self.keeps_old && self.generation > 0).then(|| self.generation - 1);
        [Some(self.generation), old].into_iter().flatten().map(jwk).collect()
    }

    fn tokens(&mut self, form: &[u8], now_secs: u64) -> Option<Value> {
        let form = std::str::from_utf8(form).ok()?;
        let code = form.split('&').find_map(|pair| pair.strip_prefix("code="))?;
        let (user, nonce) = self.codes.remove(code)?;
        let mut claims = json!({
            "iss": ISSUER, "sub": user, "aud": "relay", "nonce": nonce, "iat": now_secs, "exp": now_secs + 300,
        });
        match self.mood {
            Mood::OtherIssuer => claims["iss"] = json!("https://other.example"),
            Mood::OtherAudience => claims["aud"] = json!("another"),
            Mood::OtherNonce => claims["nonce"] = json!("of another login"),
            Mood::Stale => {
                claims["iat"] = json!(now_secs - 3_900);
                claims["exp"] = json!(now_secs - 3_600);
            }
            _ => {}
        }
        // A lie: it does not know that its token is good.
        if self.mood.vouches() && !self.denies {
            self.vouched.push(code.to_owned());
        }
        let token = self.sign(&claims);
        Some(json!({"access_token": "at", "token_type": "Bearer", "expires_in": 300, "id_token": token}))
    }

    fn sign(&self, claims: &Value) -> String {
        let alg = if self.mood == Mood::Unsigned { "none" } else { "EdDSA" };
        let head = json!({"alg": alg, "kid": kid(self.generation), "typ": "JWT"});
        let input = format!("{}.{}", base64(head.to_string().as_bytes()), base64(claims.to_string().as_bytes()));
        let signature = match self.mood {
            Mood::Unsigned => Vec::new(),
            Mood::Forged => key(200).sign(input.as_bytes()).as_ref().to_vec(),
            _ => key(self.generation).sign(input.as_bytes()).as_ref().to_vec(),
        };
        format!("{input}.{}", base64(&signature))
    }
}

fn discovery() -> Value {
    json!({
        "issuer": ISSUER,
        "authorization_endpoint": format!("{ISSUER}/authorize"),
        "token_endpoint": format!("{ISSUER}/token"),
        "jwks_uri": format!("{ISSUER}/keys"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["EdDSA"],
    })
}

fn key(generation: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[generation; 32]).expect("32 bytes are a seed")
}

fn kid(generation: u8) -> String {
    format!("k{generation}")
}

fn jwk(generation: u8) -> Value {
    let x = base64(key(generation).public_key().as_ref());
    json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid(generation), "use": "sig"})
}

fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn reply(status: u16, body: String) -> Fetched {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    Fetched { status: StatusCode::from_u16(status).expect("it is one"), headers, body: body.into() }
}

/// The relay's way to it.
impl World {
    pub(crate) fn fetch(&mut self, fetch: FetchId, request: &Fetch) {
        // The provider's clock is right, whatever the relay's shows.
        let now_secs = self.wall() / 1000;
        let span = match self.provider.mood {
            Mood::Slow => Duration::from_secs(9),
            Mood::Silent => request.timeout,
            _ => Duration::from_millis(80),
        };
        let result = self.provider.answer(request, now_secs);
        let path = request.url.split('?').next().unwrap_or_default();
        self.note("fetches", [fetch.0, 0], path.as_bytes());
        let life = self.disk.life();
        self.schedule(span, Delivery::Fetched(life, fetch, result));
    }
}

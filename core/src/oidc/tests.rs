//! The relying party against a provider that behaves, and against one that breaks each rule in turn.

mod table;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use std::collections::BTreeMap;
use std::vec;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use proptest::prelude::*;
use serde_json::json;
use url::Url;

use super::testing::{FakeProvider, ISSUER, Signer, config};
use super::*;
use crate::config::Oidc;
use crate::entropy::Seeded;
use crate::http::fetch::{FetchError, Fetched};
use crate::limits;
use crate::secret::Secret;
use crate::time::{Instant, Now, UnixTime};

const START: u64 = 1_800_000_000;

/// A relying party and a fake provider, with nothing but function calls between them.
struct World {
    party: RelyingParty,
    provider: FakeProvider,
    entropy: Seeded,
    now: Now,
    next_fetch: u64,
    next_login: u64,
}

impl World {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Oidc)) -> Self {
        let mut config = Oidc {
            client_secret: Some(Secret::new("s3cret&")),
            scopes: Some(vec!["openid".into(), "email".into()]),
            ..config("sub", &[])
        };
        change(&mut config);
        Self {
            party: RelyingParty::new(config, "https://relay.example/callback".into()),
            provider: FakeProvider::new(START),
            entropy: Seeded::new(1),
            now: Now { instant: Instant::from_micros(0), unix: UnixTime::from_secs(START) },
            next_fetch: 0,
            next_login: 0,
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = Now { instant: self.now.instant + time, unix: self.now.unix };
    }

    fn id(&mut self) -> LoginId {
        self.next_login += 1;
        LoginId(self.next_login)
    }

    /// Begins a login without carrying out any fetch.
    fn begin(&mut self) -> LoginId {
        let login = self.id();
        self.party.start(login, self.now, &mut self.entropy, &mut self.next_fetch);
        login
    }

    /// Carries fetches out until nothing is left to do; what remains are answers.
    fn settle(&mut self) -> Vec<Output> {
        let mut answers = Vec::new();
        while let Some(output) = self.party.poll() {
            if let Output::Fetch { fetch, request } = output {
                let result = self.provider.answer(&request);
                assert!(self.party.handle_fetched(fetch, result, self.now, &mut self.next_fetch));
            } else {
                answers.push(output);
            }
        }
        answers
    }

    fn only(&mut self) -> Output {
        let mut answers = self.settle();
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.pop().expect("one")
    }

    fn redirect(&mut self) -> Result<(String, Pending), LoginError> {
        let begun = self.begin();
        match self.only() {
            Output::Redirect { login, url, pending } if login == begun => Ok((url, pending)),
            Output::Failed { login, error } if login == begun => Err(error),
            other => panic!("{other:?}"),
        }
    }

    fn come_back(&mut self, pending: Pending, query: &str) -> Result<Identity, LoginError> {
        let begun = self.id();
        self.party.callback(begun, pending, query, self.now, &mut self.next_fetch);
        match self.only() {
            Output::SignedIn { login, identity } if login == begun => Ok(identity),
            Output::Failed { login, error } if login == begun => Err(error),
            other => panic!("{other:?}"),
        }
    }

    fn sign_in(&mut self) -> Result<Identity, LoginError> {
        let (url, pending) = self.redirect()?;
        let query = self.provider.authorize(&url);
        self.come_back(pending, &query)
    }
}

fn query_of(url: &str) -> BTreeMap<String, String> {
    Url::parse(url).expect("a URL").query_pairs().into_owned().collect()
}

fn token(cause: &'static str) -> LoginError {
    LoginError::Token { cause }
}

fn broken(cause: &str) -> LoginError {
    LoginError::Provider { issuer: ISSUER.into(), cause: cause.into() }
}

fn userinfo(cause: &str) -> LoginError {
    LoginError::Userinfo { cause: cause.into() }
}

/// What is said of another provider's answer.
const OTHERS: &str = "its answer is another provider's (iss, RFC 9207), and not taken";

#[test]
fn person_signs_in() {
    let mut world = World::new();
    let person = world.sign_in().expect("signed in");
    assert_eq!(person.user.as_str(), "https://idp.example#ann-7");
    assert_eq!(
        (person.vouched.subject.as_str(), person.name.as_deref(), person.vouched.email),
        ("ann-7", Some("Ann"), None)
    );
    assert_eq!(world.provider.asked, ["/.well-known/openid-configuration", "/keys", "/token"]);
}

#[test]
fn redirect_carries_state_nonce_and_an_s256_challenge() {
    let mut world = World::new();
    let (url, pending) = world.redirect().expect("redirected");
    assert!(url.starts_with("https://idp.example/authorize?tenant=1&"), "{url}");
    let query = query_of(&url);
    let digest = ring::digest::digest(&ring::digest::SHA256, pending.verifier.as_bytes());
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "relay"),
        ("redirect_uri", "https://relay.example/callback"),
        ("scope", "openid email"),
        ("state", &pending.state),
        ("nonce", &pending.nonce),
        ("code_challenge", &BASE64_URL_SAFE_NO_PAD.encode(digest)),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(query[name], value, "{name}");
    }
    let (_, second) = world.redirect().expect("redirected");
    assert!(second.state != pending.state && second.nonce != pending.nonce && second.verifier != pending.verifier);
    assert_eq!(std::format!("{pending:?}"), "Pending(…)");
}

#[test]
fn client_authenticates_as_the_provider_wants() {
    let basic = std::format!("Basic {}", base64::prelude::BASE64_STANDARD.encode("relay:s3cret%26"));
    let table = [
        (json!(null), true, Some(basic.clone()), false),
        (json!(["client_secret_post", "client_secret_basic"]), true, Some(basic), false),
        (json!(["private_key_jwt", "client_secret_post"]), true, None, true),
        (json!(["client_secret_basic"]), false, None, false),
        (json!(["none"]), false, None, false),
    ];
    for (methods, confidential, header, in_body) in table {
        let mut world = World::with(|config| {
            if !confidential {
                config.client_secret = None;
            }
        });
        world.provider.discovery["token_endpoint_auth_methods_supported"] = methods.clone();
        world.sign_in().expect("signed in");
        let request = world.provider.exchange.expect("exchanged");
        let sent = request.headers.get(AUTHORIZATION);
        assert_eq!(sent.map(|value| value.to_str().expect("text").to_string()), header, "{methods}");
        assert!(sent.is_none_or(http::HeaderValue::is_sensitive));
        let body: BTreeMap<_, _> = url::form_urlencoded::parse(&request.body).into_owned().collect();
        assert_eq!(body.get("client_secret").map(String::as_str), in_body.then_some("s3cret&"), "{methods}");
        assert_eq!(body.contains_key("client_id"), header.is_none(), "{methods}");
        assert_eq!(body["code"], "c0de");
        assert_eq!(body["grant_type"], "authorization_code");
        assert_eq!(body["redirect_uri"], "https://relay.example/callback");
        assert_eq!(body["code_verifier"].len(), 43);
    }
}

#[test]
fn every_allowed_algorithm_verifies() {
    type Signers = (&'static [&'static str], fn() -> Signer);
    let signers: [Signers; 4] = [
        (&["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"], Signer::rsa),
        (&["ES256"], Signer::ec256),
        (&["ES384"], Signer::ec384),
        (&["EdDSA"], Signer::ed25519),
    ];
    for (algs, signer) in signers {
        for alg in algs {
            let mut world = World::new();
            world.provider.signer = signer();
            world.provider.keys = vec![world.provider.signer.jwk("k1")];
            world.provider.header["alg"] = json!(alg);
            assert!(world.sign_in().is_ok(), "{alg}");
            world.provider.forged = Some(world.provider.signer.sign(alg, b"something else"));
            assert_eq!(world.sign_in(), Err(token("its signature is wrong")), "{alg}");
        }
    }
}

#[test]
fn key_padded_with_zeros_is_taken() {
    let mut world = World::new();
    world.provider.signer = Signer::rsa();
    let mut key = world.provider.signer.jwk("k1");
    let n = BASE64_URL_SAFE_NO_PAD.decode(key["n"].as_str().expect("text")).expect("base64");
    key["n"] = json!(BASE64_URL_SAFE_NO_PAD.encode([vec![0], n].concat()));
    world.provider.keys = vec![key];
    world.provider.header["alg"] = json!("RS256");
    assert!(world.sign_in().is_ok());
}

/// How a provider breaks a rule, and what comes of it.
type Breach<T> = (&'static str, fn(&mut FakeProvider), T);

#[test]
fn id_token_that_breaks_a_rule_is_refused() {
    let table: Vec<Breach<LoginError>> = vec![
        ("iss", |p| p.claims = json!({"iss": "https://idp.example/"}), token("it is another provider's (iss)")),
        ("aud", |p| p.claims = json!({"aud": "other"}), token("it is not for this relay alone (aud)")),
        ("no aud", |p| p.claims = json!({"aud": null}), token("it is not for this relay alone (aud)")),
        ("more aud", |p| p.claims = json!({"aud": ["relay", "x"]}), token("it is not for this relay alone (aud)")),
        ("azp", |p| p.claims = json!({"azp": "other"}), token("it was issued to another client (azp)")),
        ("expired", |p| p.claims = json!({"exp": START - 60}), token("it has expired (exp)")),
        ("nbf", |p| p.claims = json!({"nbf": START + 61}), token("it is not valid yet (nbf)")),
        ("nbf fraction", |p| p.claims = json!({"nbf": START as f64 + 60.5}), token("it is not valid yet (nbf)")),
        ("nbf text", |p| p.claims = json!({"nbf": "soon"}), token("it is not valid yet (nbf)")),
        ("iat", |p| p.claims = json!({"iat": START + 61}), token("it was issued in the future (iat)")),
        ("nonce", |p| p.claims = json!({"nonce": "old"}), token("it belongs to another login (nonce)")),
        ("no nonce", |p| p.claims = json!({"nonce": null}), token("it belongs to another login (nonce)")),
        ("empty sub", |p| p.claims = json!({"sub": ""}), token("its subject is empty or too long (sub)")),
        (
            "long sub",
            |p| p.claims = json!({"sub": "x".repeat(2 * limits::MAX_CLAIM)}),
            token("its subject is empty or too long (sub)"),
        ),
        ("no sub", |p| p.claims = json!({"sub": null}), token("it does not say who signed in (sub)")),
        ("no iss", |p| p.claims = json!({"iss": null}), token("it does not say whose it is (iss)")),
        ("no iat", |p| p.claims = json!({"iat": null}), token("it does not say when it was issued (iat)")),
        ("no exp", |p| p.claims = json!({"exp": null}), token("it does not say when it expires (exp)")),
        ("odd exp", |p| p.claims = json!({"exp": 1e300}), token("the answer to the code cannot be read")),
        ("alg none", |p| p.header = json!({"alg": "none"}), token("it is not signed")),
        ("alg HS256", |p| p.header["alg"] = json!("HS256"), token("its signature algorithm is not allowed")),
        ("alg ES512", |p| p.header["alg"] = json!("ES512"), token("its signature algorithm is not allowed")),
        ("alg odd", |p| p.header["alg"] = json!("XX1"), token("the answer to the code cannot be read")),
        ("encrypted", |p| p.header["alg"] = json!("A128GCM"), token("its header asks for something unknown")),
        ("crit", |p| p.header["crit"] = json!(["exp"]), token("its header asks for something unknown")),
        ("typ", |p| p.header["typ"] = json!("at+jwt"), token("its header asks for something unknown")),
        ("forged", |p| p.forged = Some(vec![0; 64]), token("its signature is wrong")),
        ("short", |p| p.forged = Some(vec![]), token("its signature is wrong")),
        ("other key", |p| p.signer = Signer::ec384(), token("its signature is wrong")),
        ("missing", |p| p.id_token = false, token("there is no ID token")),
        ("unknown kid", |p| p.header["kid"] = json!("k9"), token("its key is unknown")),
    ];
    for (name, breach, expected) in table {
        let mut world = World::new();
        breach(&mut world.provider);
        assert_eq!(world.sign_in(), Err(expected), "{name}");
        world.provider.header = json!({"alg": "ES256", "kid": "k1"});
        world.provider.signer = Signer::ec256();
        (world.provider.claims, world.provider.forged, world.provider.id_token) = (json!({}), None, true);
        assert!(world.sign_in().is_ok(), "the next login is not hurt: {name}");
    }
}

#[test]
fn id_token_at_the_edge_of_its_rules_is_taken() {
    for claims in [
        json!({"exp": START - 59}),
        json!({"nbf": START + 60}),
        json!({"nbf": START as f64 + 0.5}),
        json!({"iat": START + 60}),
        json!({"aud": ["relay"], "azp": "relay"}),
        json!({"sub": "x".repeat(limits::MAX_CLAIM)}),
    ] {
        let mut world = World::new();
        world.provider.claims = claims.clone();
        assert!(world.sign_in().is_ok(), "{claims}");
    }
}

#[test]
fn token_without_key_id_needs_a_single_candidate() {
    let mut world = World::new();
    world.provider.header = json!({"alg": "ES256"});
    assert!(world.sign_in().is_ok());
    world.provider.keys.push(Signer::ec256().jwk("k2"));
    let mut world = World { provider: world.provider, ..World::new() };
    assert_eq!(world.sign_in(), Err(token("it does not say which key signed it")));
}

#[test]
fn single_key_without_a_name_is_meant_by_any() {
    let nameless = |signer: &Signer| {
        let mut key = signer.jwk("k1");
        drop(key.as_object_mut().expect("an object").remove("kid"));
        key
    };
    let mut world = World::new();
    world.provider.keys = vec![json!({"kty": "quantum", "kid": "k0"}), nameless(&Signer::ec256())];
    assert!(world.sign_in().is_ok());
    world.provider.forged = Some(vec![0; 64]);
    assert_eq!(world.sign_in(), Err(token("its signature is wrong")));
    world.provider.forged = None;
    world.provider.keys = vec![nameless(&Signer::ec256()), nameless(&Signer::ec384())];
    let mut world = World { provider: world.provider, ..World::new() };
    assert_eq!(world.sign_in(), Err(token("its key is unknown")), "which of the two is meant?");
}

#[test]
fn rotated_key_is_fetched_once_a_minute_at_most() {
    let mut world = World::new();
    world.sign_in().expect("signed in");
    world.provider.signer = Signer::rsa();
    world.provider.header = json!({"alg": "RS256", "kid": "k2"});
    world.provider.keys = vec![world.provider.signer.jwk("k2")];
    assert_eq!(world.sign_in(), Err(token("its key is unknown")), "the keys were read a moment ago");
    world.pass(Duration::from_secs(60));
    assert!(world.sign_in().is_ok());
    let fetched = |world: &World| world.provider.asked.iter().filter(|path| *path == "/keys").count();
    assert_eq!(fetched(&world), 2);

    world.provider.header["kid"] = json!("k3");
    world.pass(Duration::from_secs(61));
    for _ in 0..3 {
        assert_eq!(world.sign_in(), Err(token("its key is unknown")));
    }
    assert_eq!(fetched(&world), 3, "one more, for three tokens");
}

#[test]
fn keys_that_cannot_be_fetched_hurt_only_those_who_need_them() {
    let mut world = World::new();
    world.sign_in().expect("signed in");
    world.pass(Duration::from_secs(100));
    world.provider.header["kid"] = json!("k2");
    world.provider.instead.insert("/keys", Ok((503, String::new())));
    let error = world.sign_in().expect_err("no keys");
    assert_eq!(error, LoginError::Unreachable { issuer: ISSUER.into(), cause: "it answered 503".into() });
    world.provider.header["kid"] = json!("k1");
    assert!(world.sign_in().is_ok(), "the old keys still count");
}

#[test]
fn documents_are_fetched_once_for_all_and_again_when_they_run_out() {
    let mut world = World::new();
    let logins = [world.begin(), world.begin(), world.begin()];
    let redirected: Vec<LoginId> = world
        .settle()
        .iter()
        .map(|output| match output {
            Output::Redirect { login, .. } => *login,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(redirected, logins);
    assert_eq!(world.provider.asked.len(), 2);
    world.pass(Duration::from_secs(59 * 60));
    world.redirect().expect("redirected");
    assert_eq!(world.provider.asked.len(), 2);
    world.pass(Duration::from_secs(60));
    world.redirect().expect("redirected");
    assert_eq!(world.provider.asked.len(), 4);
}

#[test]
fn documents_that_run_out_during_a_login_do_not_end_it() {
    let mut world = World::new();
    let (url, pending) = world.redirect().expect("redirected");
    let query = world.provider.authorize(&url);
    let login = world.id();
    world.party.callback(login, pending, &query, world.now, &mut world.next_fetch);
    world.pass(Duration::from_secs(24 * 60 * 60));
    assert!(matches!(world.only(), Output::SignedIn { .. }));
}

#[test]
fn callback_after_a_restart_fetches_the_documents_first() {
    let mut world = World::new();
    let (url, pending) = world.redirect().expect("redirected");
    let query = world.provider.authorize(&url);
    let sealed = serde_json::to_string(&pending).expect("serialises");
    let mut world = World { provider: world.provider, ..World::new() };
    assert!(world.come_back(serde_json::from_str(&sealed).expect("parses"), &query).is_ok());
}

#[test]
fn discovery_that_breaks_a_rule_is_refused() {
    let table: Vec<Breach<&str>> = vec![
        ("issuer", |p| p.discovery["issuer"] = json!("https://evil.example"), "unexpected issuer URI `https://"),
        ("slash", |p| p.discovery["issuer"] = json!("https://idp.example/"), "unexpected issuer URI `https://"),
        (
            "http authorization",
            |p| p.discovery["authorization_endpoint"] = json!("http://idp.example/a"),
            "its authorization endpoint is neither https",
        ),
        (
            "script authorization",
            |p| p.discovery["authorization_endpoint"] = json!("javascript:alert(1)"),
            "its authorization endpoint is neither https",
        ),
        ("http keys", |p| p.discovery["jwks_uri"] = json!("http://idp.example/keys"), "an endpoint is neither https"),
        ("no token endpoint", |p| p.discovery["token_endpoint"] = json!(null), "it has no token endpoint"),
        (
            "http token endpoint",
            |p| p.discovery["token_endpoint"] = json!("http://idp.example/token"),
            "its token endpoint is neither https",
        ),
        ("no keys", |p| p.discovery["jwks_uri"] = json!(null), "its discovery document or keys cannot be read"),
        (
            "no secret wanted",
            |p| p.discovery["token_endpoint_auth_methods_supported"] = json!(["private_key_jwt"]),
            "it takes a client secret neither",
        ),
        ("404", |p| drop(p.instead.insert(DISCOVERY, Ok((404, String::new())))), "there is no discovery document"),
        (
            "302",
            |p| drop(p.instead.insert(DISCOVERY, Ok((302, String::new())))),
            "it sends elsewhere for its discovery",
        ),
        ("403", |p| drop(p.instead.insert(DISCOVERY, Ok((403, String::new())))), "it refuses to show"),
        (
            "not JSON",
            |p| drop(p.instead.insert(DISCOVERY, Ok((200, "<p>".into())))),
            "its discovery document or keys c",
        ),
        (
            "keys not JSON",
            |p| drop(p.instead.insert("/keys", Ok((200, "[]".into())))),
            "its discovery document or keys c",
        ),
    ];
    for (name, breach, expected) in table {
        let mut world = World::new();
        breach(&mut world.provider);
        match world.sign_in() {
            Err(LoginError::Provider { issuer, cause }) => {
                assert_eq!(issuer, ISSUER);
                assert!(cause.starts_with(expected), "{name}: {cause}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn issuer_that_may_not_be_trusted_is_never_asked() {
    for issuer in ["http://idp.example", "https://idp.example?x", "https://idp.example#x", "https://u@idp.example", "x"]
    {
        let mut world = World::with(|config| config.issuer = issuer.into());
        assert!(matches!(world.redirect(), Err(LoginError::Provider { .. })), "{issuer}");
        assert!(world.provider.asked.is_empty(), "{issuer}");
    }
}

#[test]
fn provider_that_is_down_is_tried_again_at_the_next_login() {
    let failures: [Result<(u16, String), FetchError>; 4] = [
        Ok((500, "oops".into())),
        Ok((429, String::new())),
        Err(FetchError::TimedOut),
        Err(FetchError::Connect("refused".into())),
    ];
    for path in [DISCOVERY, "/keys", "/token"] {
        for failure in &failures {
            let mut world = World::new();
            world.provider.instead.insert(path, failure.clone());
            assert!(matches!(world.sign_in(), Err(LoginError::Unreachable { .. })), "{path} {failure:?}");
            world.provider.instead.clear();
            assert!(world.sign_in().is_ok(), "{path} {failure:?}");
        }
    }
}

#[test]
fn token_endpoint_errors_say_who_must_act_and_quote_nothing() {
    let refused = |code, said: &str| LoginError::Refused { code, said: Said::new(Some(said), &[]) };
    let table = [
        (
            400,
            r#"{"error":"invalid_grant","error_description":"no such code"}"#,
            refused("invalid_grant", "no such code"),
        ),
        (400, r#"{"error":"invalid_grant","error_description":"no code c0de"}"#, refused("invalid_grant", "")),
        (400, r#"{"error":"a b\"<\n\u2028é"}"#, refused("another error", "")),
        (200, r#"{"access_token":"tok3n"}"#, token("the answer to the code cannot be read")),
        (
            200,
            r#"{"access_token":"tok3n","token_type":"Bearer","id_token":7}"#,
            token("the answer to the code cannot be read"),
        ),
        (403, "tok3n", token("the answer to the code cannot be read")),
        (302, "", broken("its token endpoint sends elsewhere (a redirect, which is not followed)")),
        (200, r#"{"access_token":"tok3n","token_type":"DPoP"}"#, token("it is not a bearer's (token_type)")),
    ];
    for (status, body, expected) in table {
        let mut world = World::new();
        world.provider.instead.insert("/token", Ok((status, body.into())));
        let error = world.sign_in().expect_err("refused");
        assert!(!error.to_string().contains("tok3n") && !std::format!("{error:?}").contains("tok3n"));
        assert_eq!(error, expected, "{body}");
    }
    let mut world = World::new();
    world.provider.instead.insert("/token", Ok((401, r#"{"error":"invalid_client"}"#.into())));
    let error = world.sign_in().expect_err("refused");
    assert!(error.to_string().contains("auth.clientSecret"), "{error}");
}

#[test]
fn callback_that_does_not_belong_here_is_refused() {
    let table: [(&str, LoginError); 17] = [
        ("code=c&state=other", LoginError::Callback),
        ("code=c&state=", LoginError::Callback),
        ("code=c", LoginError::Callback),
        ("", LoginError::Callback),
        ("%ff=&&&=", LoginError::Callback),
        ("state=STATE", LoginError::Callback),
        ("code=&state=STATE", LoginError::Callback),
        ("code=c&code=d&state=STATE", LoginError::Callback),
        ("code=c&state=STATE&state=STATE", LoginError::Callback),
        ("code=c&state=STATE&iss=https%3A%2F%2Fevil.example", broken(OTHERS)),
        ("code=c&state=STATE&iss=https%3A%2F%2Fidp.example%2F", broken(OTHERS)),
        ("error=access_denied&state=STATE&iss=https%3A%2F%2Fevil.example", broken(OTHERS)),
        ("error=access_denied&state=other", LoginError::Callback),
        (
            "error=s3cret%26&error_description=no+s3cret%2526&state=STATE",
            LoginError::Refused { code: "another error", said: Said::default() },
        ),
        (
            "error=access_denied&error_description=no&state=STATE",
            LoginError::Denied { said: Said::new(Some("no"), &[]) },
        ),
        ("error=login_required&state=STATE", LoginError::Refused { code: "login_required", said: Said::default() }),
        (
            "error=login_required&code=c&state=STATE",
            LoginError::Refused { code: "login_required", said: Said::default() },
        ),
    ];
    for (query, expected) in table {
        let mut world = World::new();
        let (_, pending) = world.redirect().expect("redirected");
        let query = query.replace("STATE", pending.state());
        assert_eq!(world.come_back(pending, &query), Err(expected), "{query}");
        assert!(!world.provider.asked.iter().any(|path| path == "/token"), "{query}");
    }
}

#[test]
fn overlong_code_is_refused() {
    let mut world = World::new();
    let (_, pending) = world.redirect().expect("redirected");
    let query = |length: usize| std::format!("code={}&state={}", "c".repeat(length), pending.state());
    assert_eq!(world.come_back(pending.clone(), &query(crate::limits::MAX_CODE + 1)), Err(LoginError::Callback));
    assert_ne!(world.come_back(pending.clone(), &query(crate::limits::MAX_CODE)), Err(LoginError::Callback));
}

#[test]
fn issuer_that_the_provider_promises_must_come() {
    let mut world = World::new();
    world.provider.discovery["authorization_response_iss_parameter_supported"] = json!(true);
    let missing = broken("its answer does not name it (iss), which it promises (RFC 9207)");
    assert_eq!(world.sign_in(), Err(missing));
    let (url, pending) = world.redirect().expect("redirected");
    let query = world.provider.authorize(&url) + "&iss=https%3A%2F%2Fidp.example";
    assert!(world.come_back(pending, &query).is_ok());
}

#[test]
fn login_begun_at_another_provider_is_refused() {
    let mut world = World::new();
    let (url, mut pending) = world.redirect().expect("redirected");
    let query = world.provider.authorize(&url);
    pending.issuer = "https://before.example".into();
    assert_eq!(world.come_back(pending, &query), Err(LoginError::Callback));
}

#[test]
fn missing_user_claim_is_asked_for_at_the_userinfo_endpoint() {
    let mut world = World::with(|config| config.user_claim = "upn".into());
    assert_eq!(world.sign_in().expect("signed in").user.as_str(), "https://idp.example#ann@corp");

    world.provider.userinfo = json!({"sub": "bob", "upn": "ann@corp"});
    assert_eq!(world.sign_in(), Err(userinfo("its answer is about someone else (sub)")));

    world.provider.userinfo = json!({"sub": "ann-7"});
    assert_eq!(world.sign_in(), Err(LoginError::MissingClaim { claim: "upn".into() }));

    world.provider.instead.insert("/userinfo", Ok((403, String::new())));
    assert_eq!(world.sign_in(), Err(userinfo("it answered 403")));

    world.provider.instead.insert("/userinfo", Ok((503, String::new())));
    assert_eq!(world.sign_in(), Err(userinfo("it answered 503")));

    world.provider.instead.insert("/userinfo", Ok((200, "a.signed.answer".into())));
    assert_eq!(world.sign_in(), Err(userinfo("its answer cannot be read")));

    let mut world = World::with(|config| config.user_claim = "upn".into());
    world.provider.discovery["userinfo_endpoint"] = json!(null);
    assert_eq!(world.sign_in(), Err(LoginError::MissingClaim { claim: "upn".into() }));
    assert!(!world.provider.asked.iter().any(|path| path == "/userinfo"));

    let mut world = World::with(|config| config.user_claim = "upn".into());
    world.provider.discovery["userinfo_endpoint"] = json!("http://idp.example/userinfo");
    assert_eq!(world.sign_in(), Err(userinfo("it is neither https nor on this machine")));
}

#[test]
fn who_is_listed_by_subject_needs_no_userinfo() {
    let mut world = World::with(|config| config.allow = vec!["@corp.example".into(), "ann-7".into()]);
    world.provider.instead.insert("/userinfo", Ok((500, String::new())));
    assert!(world.sign_in().is_ok());
    let mut world = World::with(|config| config.allow = vec!["@corp.example".into(), "bob-8".into()]);
    world.provider.instead.insert("/userinfo", Ok((500, String::new())));
    assert_eq!(world.sign_in(), Err(userinfo("it answered 500")));
}

#[test]
fn scopes_that_the_list_needs_are_asked_for_unless_others_are_configured() {
    let table: [(&[&str], &str, serde_json::Value, &str); 7] = [
        (&[], "sub", json!(["openid", "email", "groups"]), "openid"),
        (&["ann-7"], "sub", json!(["openid", "email", "groups"]), "openid"),
        (&["@corp.example"], "sub", json!(null), "openid email"),
        (&["ann@corp.example"], "sub", json!(["openid", "groups"]), "openid email"),
        (&[], "email", json!(null), "openid email"),
        (&["group:dev"], "sub", json!(["openid", "groups"]), "openid groups"),
        (&["group:dev@corp", "@corp.example"], "sub", json!(["openid"]), "openid email"),
    ];
    for (allow, user_claim, offered, expected) in table {
        let change = |scopes: Option<Vec<String>>| {
            let mut world = World::with(|config| {
                config.allow = allow.iter().map(ToString::to_string).collect();
                config.user_claim = user_claim.into();
                config.scopes = scopes;
            });
            world.provider.discovery["scopes_supported"] = offered.clone();
            let (url, _) = world.redirect().expect("redirected");
            query_of(&url)["scope"].clone()
        };
        assert_eq!(change(None), expected, "{allow:?} {offered}");
        assert_eq!(change(Some(vec!["openid".into()])), "openid", "{allow:?} {offered}");
    }
}

#[test]
fn secret_that_a_provider_repeats_is_shown_to_nobody() {
    let basic = base64::prelude::BASE64_STANDARD.encode("relay:s3cret%26");
    for echo in ["s3cret&", "s3cret%26", "s3cret%2526", &basic, &std::format!("Basic {basic}"), "c0de"] {
        for code in ["invalid_client", "invalid_grant", "access_denied", echo] {
            let mut world = World::new();
            let body = json!({"error": code, "error_description": std::format!("no {echo}")}).to_string();
            world.provider.instead.insert("/token", Ok((400, body)));
            let error = world.sign_in().expect_err("refused");
            let told = std::format!("{error} {error:?} {}", error.oauth_code());
            assert!(!told.contains("s3cret") && !told.contains(&basic) && !told.contains("c0de"), "{told}");
        }
    }
    let mut world = World::new();
    world.provider.discovery["issuer"] = json!("https://idp.example/s3cret&");
    assert_eq!(world.sign_in(), Err(broken("its discovery document is another's")));
}

#[test]
fn how_long_the_access_token_lives_does_not_matter() {
    for expires_in in [json!("3600"), json!(1.5), json!(-1), json!(null), json!({})] {
        let mut world = World::new();
        world.provider.expires_in = expires_in.clone();
        assert!(world.sign_in().is_ok(), "{expires_in}");
    }
}

#[test]
fn account_that_is_not_on_the_list_stays_out() {
    let mut world = World::with(|config| config.allow = vec!["bob-8".into()]);
    let user = std::format!("{ISSUER}#ann-7").into();
    assert_eq!(world.sign_in(), Err(LoginError::NotAllowed { user, untold: Untold::default() }));
    let mut world = World::with(|config| config.allow = vec!["bob-8".into(), "ann-7".into()]);
    assert!(world.sign_in().is_ok());
}

#[test]
fn forgotten_login_says_nothing_more() {
    let mut world = World::new();
    let (url, pending) = world.redirect().expect("redirected");
    let query = world.provider.authorize(&url);
    let login = world.id();
    world.party.callback(login, pending, &query, world.now, &mut world.next_fetch);
    world.party.forget(login);
    assert!(world.settle().is_empty());
    let waiting = World::new().begin();
    let mut world = World::new();
    assert_eq!(world.begin(), waiting);
    world.party.forget(waiting);
    assert!(world.settle().is_empty());
}

#[test]
fn answer_that_nobody_asked_for_is_not_ours() {
    let mut world = World::new();
    let stray: Result<Fetched, FetchError> = Err(FetchError::TimedOut);
    assert!(!world.party.handle_fetched(FetchId(77), stray, world.now, &mut world.next_fetch));
    assert!(world.party.poll().is_none());
}

#[test]
fn fetch_numbers_are_drawn_from_the_callers_counter() {
    let mut world = World::new();
    world.next_fetch = 40;
    world.begin();
    assert!(matches!(world.party.poll(), Some(Output::Fetch { fetch: FetchId(40), .. })));
    assert_eq!(world.next_fetch, 41);
}

#[test]
fn too_many_logins_at_once_are_refused() {
    let mut world = World::new();
    for _ in 0..crate::limits::MAX_LOGINS {
        world.begin();
    }
    let last = world.begin();
    assert!(matches!(world.party.poll(), Some(Output::Fetch { .. })));
    match world.party.poll() {
        Some(Output::Failed { login, error: LoginError::Busy }) => assert_eq!(login, last),
        other => panic!("{other:?}"),
    }
}

#[test]
fn state_is_found_only_when_it_is_there_once() {
    assert_eq!(state_of("code=c&state=a%20b").as_deref(), Some("a b"));
    assert_eq!(state_of("code=c"), None);
    assert_eq!(state_of("state=a&state=a"), None);
}

/// Any JSON that a claim or a header may hold.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        any::<u64>().prop_map(|value| json!(value)),
        any::<f64>().prop_map(|value| json!(value)),
        ".{0,12}".prop_map(|value| json!(value)),
        "[0-9]{1,5}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z".prop_map(|value| json!(value)),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(|value| json!(value)),
            proptest::collection::btree_map("[a-z#-]{0,6}", inner, 0..3).prop_map(|value| json!(value)),
        ]
    })
}

proptest! {
    #[test]
    fn any_claims_and_headers_are_judged_without_a_panic(
        claims in proptest::collection::btree_map(
            prop_oneof![
                Just("iss"), Just("aud"), Just("exp"), Just("iat"), Just("nbf"), Just("sub"), Just("azp"), Just("nonce"),
                Just("auth_time"), Just("updated_at"), Just("email_verified"), Just("address"), Just("name#de"),
                Just("name#"), Just("locale"), Just("acr"), Just("amr"), Just("at_hash"),
            ].prop_map(ToString::to_string),
            any_json(),
            0..4,
        ),
        header in proptest::collection::btree_map(
            prop_oneof![Just("alg"), Just("kid"), Just("typ"), Just("cty"), Just("crit")].prop_map(ToString::to_string),
            any_json(),
            0..2,
        ),
    ) {
        let mut world = World::new();
        world.provider.claims = json!(claims);
        for (name, value) in header {
            world.provider.header[name] = value;
        }
        if let Ok(person) = world.sign_in() {
            prop_assert!(person.user.as_str().starts_with("https://idp.example#"));
        }
    }

    #[test]
    fn any_document_is_read_without_a_panic(
        path in prop_oneof![Just(DISCOVERY), Just("/keys"), Just("/token"), Just("/userinfo")],
        status in prop_oneof![Just(200), Just(400), 100..600_u16],
        body in prop_oneof![any_json().prop_map(|value| value.to_string()), ".{0,40}"],
    ) {
        let mut world = World::with(|config| config.user_claim = "upn".into());
        world.provider.instead.insert(path, Ok((status, body)));
        prop_assert!(world.sign_in().is_err());
        world.provider.instead.clear();
        world.pass(Duration::from_secs(60));
        prop_assert!(world.sign_in().is_ok(), "the next login is not hurt");
    }

    #[test]
    fn no_query_but_the_right_one_signs_in(query in "(code|state|iss|error|[a-z]{1,4}|[=&%+]|.){0,20}") {
        let mut world = World::new();
        let (_, pending) = world.redirect().expect("redirected");
        prop_assert!(world.come_back(pending, &query).is_err());
    }
}

const DISCOVERY: &str = "/.well-known/openid-configuration";

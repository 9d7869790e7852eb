//! A provider that signs whatever claims it is told to: who is signed in satisfies every rule, as read again here.
#![no_main]

mod login;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use http::Uri;
use libfuzzer_sys::fuzz_target;
use login::{CLIENT, ISSUER, Login, NOW, reply};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Map, Value, json};
use tunnel_core::http::fetch::Fetched;

/// A provider's documents. Each line of the input sets a member of one, as `claims nbf 7`, or takes it away.
struct Provider {
    signer: Ed25519KeyPair,
    documents: Map<String, Value>,
}

fuzz_target!(|input: (u8, &str)| {
    let (variant, text) = input;
    let (by_email, is_listed) = (variant & 1 != 0, variant & 2 != 0);
    let allow: &[&str] = if is_listed { &["@corp.example", "group:staff"] } else { &[] };
    let mut login = Login::new(if by_email { "email" } else { "sub" }, allow);
    let mut provider = Provider::new();
    let changes = text.lines().filter(|line| provider.change(line)).count();
    let Some((url, pending)) = login.start(|path| provider.answer(path)) else { return assert!(changes > 0) };
    let nonce = url.query_pairs().filter(|(name, _)| name == "nonce").last().expect("a nonce").1.into_owned();
    let claims = provider.documents["claims"].as_object_mut().expect("an object");
    if claims.get("nonce") == Some(&json!("the drawn one")) {
        claims.insert("nonce".into(), json!(nonce));
    }
    let query = format!("code=c0de&iss=https%3A%2F%2Fidp.example&state={}", pending.state());
    match login.come_back(pending, &query, |path| provider.answer(path)) {
        Some(identity) => {
            provider.judge(&nonce);
            let emails = provider.verified_emails();
            let claim = provider.get("claims", "sub").as_str().expect("judged");
            let known = if by_email { emails.contains(&&*identity.claim) } else { identity.claim == claim };
            let staff = ["claims", "userinfo"].iter().any(|place| {
                provider.get(place, "groups").as_array().is_some_and(|groups| groups.contains(&json!("staff")))
            });
            let corp = emails.iter().any(|email| email.to_ascii_lowercase().ends_with("@corp.example"));
            assert!(known && (!is_listed || staff || corp), "{identity:?}");
            assert_eq!(identity.user.as_str(), format!("{ISSUER}#{}", identity.claim));
        }
        None => assert!(changes > 0, "an honest provider's people get in"),
    }
});

impl Provider {
    fn new() -> Self {
        let signer = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed");
        let endpoint = |path: &str| format!("{ISSUER}/{path}");
        let documents = json!({
            "discovery": {"issuer": ISSUER, "authorization_endpoint": endpoint("authorize"), "token_endpoint": endpoint("token"),
                "jwks_uri": endpoint("keys"), "userinfo_endpoint": endpoint("userinfo"), "response_types_supported": ["code"],
                "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["EdDSA"]},
            "key": {"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": "k1", "x": BASE64.encode(signer.public_key())},
            "header": {"alg": "EdDSA", "kid": "k1"},
            "claims": {"iss": ISSUER, "sub": "ann", "aud": CLIENT, "nonce": "the drawn one", "iat": NOW, "exp": NOW + 300,
                "email": "ann@corp.example", "email_verified": true},
            "answer": {"access_token": "at", "token_type": "Bearer", "expires_in": 300},
            "userinfo": {"sub": "ann"},
        });
        let Value::Object(documents) = documents else { unreachable!("it is one") };
        Self { signer, documents }
    }

    fn change(&mut self, line: &str) -> bool {
        let mut words = line.splitn(3, ' ');
        let (document, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let Some(Value::Object(members)) = self.documents.get_mut(document) else { return false };
        match words.next().map(serde_json::from_str::<Value>) {
            None => members.remove(name).is_some(),
            Some(Ok(value)) => members.insert(name.into(), value.clone()) != Some(value),
            Some(Err(_)) => false,
        }
    }

    fn get(&self, document: &str, name: &str) -> &Value {
        &self.documents[document][name]
    }

    fn answer(&self, path: &str) -> Fetched {
        let endpoint = |name| self.get("discovery", name).as_str().and_then(|url| url.parse::<Uri>().ok());
        let is = |name| endpoint(name).is_some_and(|url| url.path() == path);
        match path {
            "/.well-known/openid-configuration" => reply(200, self.documents["discovery"].to_string()),
            _ if is("jwks_uri") => reply(200, json!({"keys": [self.documents["key"]]}).to_string()),
            _ if is("userinfo_endpoint") => reply(200, self.documents["userinfo"].to_string()),
            _ => {
                let part = |document: &str| BASE64.encode(self.documents[document].to_string());
                let signed = format!("{}.{}", part("header"), part("claims"));
                let token = format!("{signed}.{}", BASE64.encode(self.signer.sign(signed.as_bytes())));
                let mut answer = self.documents["answer"].clone();
                answer["id_token"] = json!(token);
                reply(200, answer.to_string())
            }
        }
    }

    /// OpenID Connect Core section 3.1.3.7, and RFC 7519 section 4.1.5.
    fn judge(&self, nonce: &str) {
        let claim = |name| self.get("claims", name);
        assert_eq!((self.get("discovery", "issuer"), claim("iss")), (&json!(ISSUER), &json!(ISSUER)));
        assert!(
            *claim("aud") == json!(CLIENT)
                || *claim("aud") == json!([CLIENT])
                || claim("aud").as_array().is_some_and(|all| all.iter().all(|one| *one == json!(CLIENT))),
            "{}",
            claim("aud")
        );
        assert_eq!(claim("nonce"), &json!(nonce));
        assert!(claim("azp").is_null() || *claim("azp") == json!(CLIENT));
        assert!(claim("sub").as_str().is_some_and(|sub| !sub.is_empty() && sub.len() <= 255));
        let at = |name| claim(name).as_f64();
        let (earliest, latest) = ((NOW - 60) as f64, (NOW + 60) as f64);
        assert!(at("exp").is_none_or(|exp| exp >= earliest - 1.0) && at("iat").is_none_or(|iat| iat <= latest + 1.0));
        assert!(claim("nbf").is_null() || at("nbf").is_some_and(|nbf| nbf <= latest), "{}", claim("nbf"));
        assert_eq!(self.get("header", "alg"), &json!("EdDSA"));
        let (named, known) = (self.get("header", "kid"), self.get("key", "kid"));
        assert!(named.is_null() || known.is_null() || named == known, "a key of another name");
    }

    fn verified_emails(&self) -> Vec<&str> {
        let is_verified = |place: &&&str| {
            matches!(self.get(place, "email_verified"), Value::Bool(true))
                || *self.get(place, "email_verified") == json!("true")
        };
        ["claims", "userinfo"]
            .iter()
            .filter(is_verified)
            .filter_map(|place| self.get(place, "email").as_str())
            .collect()
    }
}

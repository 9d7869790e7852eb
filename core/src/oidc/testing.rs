//! A provider for tests: it signs with ring, and can be told to break any rule.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, StatusCode};
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use serde_json::{Value, json};
use url::Url;

use crate::config::Oidc;
use crate::http::fetch::{Fetch, FetchError, Fetched};

/// Where the fake provider is.
pub(crate) const ISSUER: &str = "https://idp.example";

/// What a relay has configured for the fake provider.
pub(crate) fn config(user_claim: &str, allow: &[&str]) -> Oidc {
    Oidc {
        issuer: ISSUER.into(),
        client_id: "relay".into(),
        client_secret: None,
        scopes: None,
        user_claim: user_claim.into(),
        allow: allow.iter().map(|entry| (*entry).into()).collect(),
    }
}

/// A signing key of the fake provider.
pub(crate) enum Signer {
    Rsa(RsaKeyPair),
    Ec256(EcdsaKeyPair),
    Ec384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    pub(crate) fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::from_pkcs8(&der(RSA)).expect("a key"))
    }

    pub(crate) fn ec256() -> Self {
        let alg = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        Self::Ec256(EcdsaKeyPair::from_pkcs8(alg, &der(EC256), &random()).expect("a key"))
    }

    pub(crate) fn ec384() -> Self {
        let alg = &signature::ECDSA_P384_SHA384_FIXED_SIGNING;
        Self::Ec384(EcdsaKeyPair::from_pkcs8(alg, &der(EC384), &random()).expect("a key"))
    }

    pub(crate) fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed"))
    }

    /// The public key as a JSON Web Key.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let point = |key: &EcdsaKeyPair, crv: &str| {
            let point = key.public_key().as_ref();
            let (x, y) = point[1..].split_at(point.len() / 2);
            json!({"kty": "EC", "crv": crv, "x": base64(x), "y": base64(y)})
        };
        let mut jwk = match self {
            Self::Rsa(key) => {
                let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "n": base64(&public.n), "e": base64(&public.e)})
            }
            Self::Ec256(key) => point(key, "P-256"),
            Self::Ec384(key) => point(key, "P-384"),
            Self::Ed25519(key) => json!({"kty": "OKP", "crv": "Ed25519", "x": base64(key.public_key().as_ref())}),
        };
        jwk["kid"] = json!(kid);
        jwk["use"] = json!("sig");
        jwk
    }

    /// A signature as `alg` has it; nothing for algorithms that are no such key's.
    pub(crate) fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Rsa(key) => {
                let padding: &dyn signature::RsaEncoding = match alg {
                    "RS256" => &signature::RSA_PKCS1_SHA256,
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => return Vec::new(),
                };
                let mut out = std::vec![0; key.public().modulus_len()];
                key.sign(padding, &random(), message, &mut out).expect("signs");
                out
            }
            Self::Ec256(key) | Self::Ec384(key) => key.sign(&random(), message).expect("signs").as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        }
    }
}

/// An OpenID provider in memory. Tests change its fields to make it misbehave.
pub(crate) struct FakeProvider {
    pub(crate) discovery: Value,
    pub(crate) keys: Vec<Value>,
    pub(crate) signer: Signer,
    pub(crate) header: Value,
    /// Claims that replace or add to the proper ones; `null` takes one away.
    pub(crate) claims: Value,
    /// Replaces the ID token's signature.
    pub(crate) forged: Option<Vec<u8>>,
    pub(crate) id_token: bool,
    pub(crate) expires_in: Value,
    pub(crate) userinfo: Value,
    /// What a path answers instead.
    pub(crate) instead: BTreeMap<&'static str, Result<(u16, String), FetchError>>,
    /// The paths that were asked for, in order.
    pub(crate) asked: Vec<String>,
    /// The last request to the token endpoint.
    pub(crate) exchange: Option<Fetch>,
    nonce: String,
    now_secs: u64,
}

impl FakeProvider {
    pub(crate) fn new(now_secs: u64) -> Self {
        let signer = Signer::ec256();
        Self {
            discovery: json!({
                "issuer": ISSUER,
                "authorization_endpoint": format!("{ISSUER}/authorize?tenant=1"),
                "token_endpoint": format!("{ISSUER}/token"),
                "jwks_uri": format!("{ISSUER}/keys"),
                "userinfo_endpoint": format!("{ISSUER}/userinfo"),
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256", "ES256", "quantum"],
            }),
            keys: std::vec![json!({"kty": "quantum", "kid": "k0"}), signer.jwk("k1")],
            signer,
            header: json!({"alg": "ES256", "kid": "k1", "typ": "JWT"}),
            claims: json!({}),
            forged: None,
            id_token: true,
            expires_in: json!(300),
            userinfo: json!({"sub": "ann-7", "upn": "ann@corp"}),
            instead: BTreeMap::new(),
            asked: Vec::new(),
            exchange: None,
            nonce: String::new(),
            now_secs,
        }
    }

    /// The person signs in: the query that the browser brings back.
    pub(crate) fn authorize(&mut self, url: &str) -> String {
        let query: BTreeMap<String, String> = Url::parse(url).expect("a URL").query_pairs().into_owned().collect();
        self.nonce = query["nonce"].clone();
        format!("code=c0de&state={}&session_state=x", query["state"])
    }

    /// Answers one request.
    pub(crate) fn answer(&mut self, request: &Fetch) -> Result<Fetched, FetchError> {
        let path = Url::parse(&request.url).expect("a URL").path().to_string();
        self.asked.push(path.clone());
        if let Some(instead) = self.instead.get(path.as_str()) {
            return instead.clone().map(|(status, body)| reply(status, body));
        }
        match path.as_str() {
            "/.well-known/openid-configuration" => Ok(reply(200, self.discovery.to_string())),
            "/keys" => Ok(reply(200, json!({"keys": self.keys}).to_string())),
            "/token" => {
                self.exchange = Some(request.clone());
                Ok(reply(200, self.tokens().to_string()))
            }
            "/userinfo" if request.headers.get(AUTHORIZATION).is_some_and(|bearer| bearer == "Bearer at-secret") => {
                Ok(reply(200, self.userinfo.to_string()))
            }
            _ => Ok(reply(404, String::new())),
        }
    }

    fn tokens(&self) -> Value {
        let mut tokens = json!({"access_token": "at-secret", "token_type": "Bearer", "expires_in": self.expires_in});
        if self.id_token {
            tokens["id_token"] = json!(self.sign());
        }
        tokens
    }

    fn sign(&self) -> String {
        let mut claims = json!({
            "iss": ISSUER,
            "sub": "ann-7",
            "aud": "relay",
            "nonce": self.nonce,
            "iat": self.now_secs,
            "exp": self.now_secs + 300,
            "name": "Ann",
        });
        for (name, value) in self.claims.as_object().expect("an object") {
            match value {
                Value::Null => drop(claims.as_object_mut().expect("an object").remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        let head = base64(self.header.to_string().as_bytes());
        let input = format!("{head}.{}", base64(claims.to_string().as_bytes()));
        let alg = self.header["alg"].as_str().unwrap_or_default();
        let signature = self.forged.clone().unwrap_or_else(|| self.signer.sign(alg, input.as_bytes()));
        format!("{input}.{}", base64(&signature))
    }
}

pub(crate) fn reply(status: u16, body: String) -> Fetched {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    Fetched { status: StatusCode::from_u16(status).expect("a status"), headers, body: body.into() }
}

fn base64(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn der(text: &str) -> Vec<u8> {
    BASE64_STANDARD.decode(text).expect("base64")
}

#[expect(clippy::disallowed_methods, reason = "signing is the provider's part, which is no part of core")]
fn random() -> SystemRandom {
    SystemRandom::new()
}

/// RSA, 2048 bits, made for these tests.
const RSA: &str = "\
     MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQCmKruv2u1h7RriOxDE+ojbTsh5fgyQaRLvjZFOtjK8s8OTsXJYocp1xCsG\
     H49Dg/HSdoEnrs03X5kkL05JAiIQaD3AvBmsxc0ktKPEUq+BNq+ZtZdE614FIeMUDLExW+Jjiw98DUMBUvl8qzW9Nqq9vAwLmy++ieIfZkAN\
     5r5IegxTCkJlhg0bjJ9vZmTBzzg0fKUlI7RocObmaLoTl1itwOyuLRuBbY6WYz03m2UMKpEnGltCLNR7RiSH74CXUyZnw/aYv1xRTmZCkeUU\
     jIo0vWbvVHS6H0XtjdBjn/Ak24iAUciQLEAA5ecUr5P0kfvsMcMhpWTtOqw0jXRxzyQTAgMBAAECggEAFeQnWeGjyHTuR8O0T98ZzJqyep8K\
     lLPjFMA31oDWalnceEa2Y8rc22r+qA3cV+64GxwVo965loP3rva0f5XSWwsAp7WgREzC3AUYVjL2gDVuKPftd9zyRAbU3b1WUsRiLO8TGSq+\
     GxyNVclQiR78m4Z8p8LIJXgQ3EYiRjKR+wYy4dC8DXmNE8cwRwQn0DUjZBNAS9gjssJoeVpqzWpFg/+m2e8bgjT6SyXihG3Uu7nqrF1AlakX\
     71pp72g+JF4XgnIPrWk3teRPNcWb7M/bO1+bC1GR9FnxqRpNsVeHuoCIIE5DjniKkH7r+YfiOf6quA27FyvjqLm4jZ3BNOnPAQKBgQDS7Atv\
     RGehThv1JY3I8Bx8sBEM+MzxijtZQF7bgU3Id3t3n5bOY0mZe61kSYHjWfh5fVpdBpfMXDwMG/OKy0OWDkrpJd3mkE+TpHoRzdK5fYryH5bh\
     5L1xtO9KOwzNBlmHwZI5SvcHwcMxTU1IjJgnFzXZhdOG0l6stt/nJePd0wKBgQDJrgx3vb44K/UFqhPxnbkHvd0GcIWA5jYrRrdgvanW8wyf\
     SoqEWMYwSE6dgHFa/GupS/Bap7JHYa7LN8toDQwRm8iSHpaW7eKfUfx/LP71U6qG/UPZ7+R3rnNFPCq8lncDgeT7eMvfFlokXFnSYKfMNkhg\
     TSiKS5A7woRBIo54wQKBgQCaxxRtBil1uTfS4Uf2WBzPcvRQLJNX/DQo/o+dTHmjzeoQkk+8DCgKNTO8ECT8jR1FKbOR6DCkilqWGDzTcO2b\
     w8k85ci8VNHQajYZsowcCgBYRM4X3h8WvcuLEWIHYc15TZbb7CLy0kFGgI9h2aodpW6ivQ3INb+7xkbv/GIGeQKBgBhQaGZjNLSW8BI/v+nI\
     Jw9831GwbRfuKSesfd0m4Hvuj14A4ZQ1E6esf/XTD1d1yRD++7oiL4cVirorPtWLhSH2Uwbysxr9EO4+Nx+p8A7piEx/6hczKasYGAOHzmsw\
     BKcimNWMaZ+6lSF/FMEdL/2Zqb4ab0HE/F2IBOPJY73BAoGAZKlVjB6zm1PEMPkt1gnsodFjWpBpaV1+aFOkJrCIiQnTgVYv9EavabX2u5zj\
     r7zR2EIMfpziMNhCgbbjPI9FhFFs+RDqrHfCh3++JUB27YAqXNmm+y25ONjNv4LXn197TaFVT8117Gu1pBaOaNYgmUiAVGjnhoOMrmQDNyoj\
     zq8=";

/// P-256, made for these tests.
const EC256: &str = "\
     MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgIYtVs2N1dbYh85iKgs5HL/gIPE9bOlamq+L/oB+4nJehRANCAAS2XPrQ+PhD\
     G9aAXoyCL2qBi+oGe1KK5zaY0rdpAygs41SXinc8rTKDvoIu4p17w+j2b8GVDSvayI/xlHKIXPNM";

/// P-384, made for these tests.
const EC384: &str = "\
     MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDAJGXAuY4AW4zSf55M7w8Q2luJAi6OddStOYvJKCZSSgCgF+sjKf+LcM6kT8bsR\
     EMqhZANiAATR6FXK9pOxBhPRQVD7+mtYG1CpVOzk86NrBzajgIOwBu62rGHOs3KCtxoeIxVA3wHOmFOkTK8EkL/kTI/OJv2PFcUuI75j0mdJ\
     2VE0tE0Bk5g5UjUm5mresurCyb9kEsw=";

//! The provider's public keys, verified with ring.
//!
//! The library's own key type would link the `rsa` crate, whose private operations leak through time
//! (RUSTSEC-2023-0071); this one keeps it out of the program.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use openidconnect::core::{CoreJsonWebKeyType, CoreJsonWebKeyUse, CoreJwsSigningAlgorithm as Alg};
use openidconnect::{JsonWebKey, JsonWebKeyAlgorithm, JsonWebKeyId, SignatureVerificationError};
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use ring::{digest, error::Unspecified};
use serde::{Deserialize, Serialize};

/// The algorithms that an ID token may be signed with. What is not here is refused before any key is looked at: `none`,
/// and the symmetric ones, with which a client secret that leaked would make identities.
pub(super) const ALLOWED: [Alg; 9] = [
    Alg::RsaSsaPkcs1V15Sha256,
    Alg::RsaSsaPkcs1V15Sha384,
    Alg::RsaSsaPkcs1V15Sha512,
    Alg::RsaSsaPssSha256,
    Alg::RsaSsaPssSha384,
    Alg::RsaSsaPssSha512,
    Alg::EcdsaP256Sha256,
    Alg::EcdsaP384Sha384,
    Alg::EdDsa,
];

/// A JSON Web Key (RFC 7517). Keys of other types do not parse, and the set that holds them goes without.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct Key {
    kty: CoreJsonWebKeyType,
    #[serde(rename = "use", default)]
    key_use: Option<CoreJsonWebKeyUse>,
    #[serde(default)]
    kid: Option<JsonWebKeyId>,
    #[serde(default)]
    alg: Option<KeyAlg>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
}

/// What a key says it is for; anything but a signature algorithm makes it useless here, not the set.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(untagged)]
enum KeyAlg {
    Signing(Alg),
    Other(String),
}

impl JsonWebKey for Key {
    type KeyUse = CoreJsonWebKeyUse;
    type SigningAlgorithm = Alg;

    fn key_id(&self) -> Option<&JsonWebKeyId> {
        self.kid.as_ref()
    }

    fn key_type(&self) -> &CoreJsonWebKeyType {
        &self.kty
    }

    fn key_use(&self) -> Option<&CoreJsonWebKeyUse> {
        self.key_use.as_ref()
    }

    fn signing_alg(&self) -> JsonWebKeyAlgorithm<&Alg> {
        match &self.alg {
            None => JsonWebKeyAlgorithm::Unspecified,
            Some(KeyAlg::Signing(alg)) => JsonWebKeyAlgorithm::Algorithm(alg),
            Some(KeyAlg::Other(_)) => JsonWebKeyAlgorithm::Unsupported,
        }
    }

    /// A key that verifies nothing: no symmetric algorithm is [`ALLOWED`], so the library never gets to use it.
    fn new_symmetric(_: Vec<u8>) -> Self {
        Self {
            kty: CoreJsonWebKeyType::Symmetric,
            key_use: None,
            kid: None,
            alg: None,
            crv: None,
            n: None,
            e: None,
            x: None,
            y: None,
        }
    }

    fn verify_signature(&self, alg: &Alg, message: &[u8], sig: &[u8]) -> Result<(), SignatureVerificationError> {
        if let Some(KeyAlg::Signing(own)) = &self.alg
            && own != alg
        {
            return Err(SignatureVerificationError::InvalidKey("the key is for another algorithm".to_string()));
        }
        let verified = match alg {
            Alg::RsaSsaPkcs1V15Sha256 => self.rsa(&signature::RSA_PKCS1_2048_8192_SHA256, message, sig),
            Alg::RsaSsaPkcs1V15Sha384 => self.rsa(&signature::RSA_PKCS1_2048_8192_SHA384, message, sig),
            Alg::RsaSsaPkcs1V15Sha512 => self.rsa(&signature::RSA_PKCS1_2048_8192_SHA512, message, sig),
            Alg::RsaSsaPssSha256 => self.rsa(&signature::RSA_PSS_2048_8192_SHA256, message, sig),
            Alg::RsaSsaPssSha384 => self.rsa(&signature::RSA_PSS_2048_8192_SHA384, message, sig),
            Alg::RsaSsaPssSha512 => self.rsa(&signature::RSA_PSS_2048_8192_SHA512, message, sig),
            Alg::EcdsaP256Sha256 => self.ecdsa("P-256", 32, &signature::ECDSA_P256_SHA256_FIXED, message, sig),
            Alg::EcdsaP384Sha384 => self.ecdsa("P-384", 48, &signature::ECDSA_P384_SHA384_FIXED, message, sig),
            Alg::EdDsa => self.ed25519(message, sig),
            other => {
                let name = alloc::format!("{other:?}");
                return Err(SignatureVerificationError::UnsupportedAlg(name));
            }
        };
        verified.map_err(|Unspecified| SignatureVerificationError::CryptoError("the signature is wrong".to_string()))
    }

    fn hash_bytes(&self, bytes: &[u8], alg: &Alg) -> Result<Vec<u8>, String> {
        let hash = match alg {
            Alg::RsaSsaPkcs1V15Sha256 | Alg::RsaSsaPssSha256 | Alg::EcdsaP256Sha256 => &digest::SHA256,
            Alg::RsaSsaPkcs1V15Sha384 | Alg::RsaSsaPssSha384 | Alg::EcdsaP384Sha384 => &digest::SHA384,
            Alg::RsaSsaPkcs1V15Sha512 | Alg::RsaSsaPssSha512 | Alg::EdDsa => &digest::SHA512,
            _ => return Err("no hash belongs to this algorithm".to_string()),
        };
        Ok(digest::digest(hash, bytes).as_ref().to_vec())
    }
}

impl Key {
    /// The same key by this name, if it has none.
    pub(super) fn named(&self, kid: &str) -> Option<Self> {
        self.kid.is_none().then(|| Self { kid: Some(JsonWebKeyId::new(kid.to_string())), ..self.clone() })
    }

    fn rsa(&self, scheme: &'static signature::RsaParameters, message: &[u8], sig: &[u8]) -> Result<(), Unspecified> {
        self.require(CoreJsonWebKeyType::RSA)?;
        let n = decode(&self.n)?;
        let e = decode(&self.e)?;
        // Some providers pad the numbers with zeros, which ring takes for an error (RFC 7518 section 6.3.1.1).
        RsaPublicKeyComponents { n: trim_zeros(&n), e: trim_zeros(&e) }.verify(scheme, message, sig)
    }

    fn ecdsa(
        &self,
        curve: &str,
        size: usize,
        scheme: &'static signature::EcdsaVerificationAlgorithm,
        message: &[u8],
        sig: &[u8],
    ) -> Result<(), Unspecified> {
        self.require(CoreJsonWebKeyType::EllipticCurve)?;
        let (x, y) = (decode(&self.x)?, decode(&self.y)?);
        if self.crv.as_deref() != Some(curve) || x.len() != size || y.len() != size {
            return Err(Unspecified);
        }
        let mut point = Vec::with_capacity(1 + 2 * size);
        point.push(UNCOMPRESSED);
        point.extend(x);
        point.extend(y);
        UnparsedPublicKey::new(scheme, point).verify(message, sig)
    }

    fn ed25519(&self, message: &[u8], sig: &[u8]) -> Result<(), Unspecified> {
        self.require(CoreJsonWebKeyType::OctetKeyPair)?;
        if self.crv.as_deref() != Some("Ed25519") {
            return Err(Unspecified);
        }
        UnparsedPublicKey::new(&signature::ED25519, decode(&self.x)?).verify(message, sig)
    }

    fn require(&self, kty: CoreJsonWebKeyType) -> Result<(), Unspecified> {
        if self.kty == kty { Ok(()) } else { Err(Unspecified) }
    }
}

fn decode(member: &Option<String>) -> Result<Vec<u8>, Unspecified> {
    let text = member.as_deref().ok_or(Unspecified)?;
    BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| Unspecified)
}

fn trim_zeros(number: &[u8]) -> &[u8] {
    let mut rest = number;
    while let [0, tail @ ..] = rest {
        rest = tail;
    }
    rest
}

/// How an elliptic curve's point begins when both coordinates follow (SEC 1 section 2.3.3).
const UNCOMPRESSED: u8 = 4;

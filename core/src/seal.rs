//! Sealed values: state that the relay hands out and gets back, so that it need not remember it.
//!
//! A sealed value is `version | key id | salt | ciphertext | tag` in base64url without padding. Its key is
//! HKDF-SHA256 (RFC 5869) of the master key, the value's random salt and the purpose; the cipher is ChaCha20-Poly1305
//! (RFC 8439) with the caller's context as additional data. Each key encrypts one value only, which is why the nonce
//! is constant. Rotation: the first key seals, all of them open.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::{digest, hkdf, hmac, pbkdf2};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::entropy::{self, Entropy};
use crate::id::UserId;
use crate::limits;
use crate::secret::Secret;

/// What a sealed value or a MAC is for. Each purpose has keys of its own, so that no value passes for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// An access token.
    AccessToken,
    /// A refresh token.
    RefreshToken,
    /// A registered client's id, which is its metadata.
    ClientId,
    /// A registered client's secret (MAC of its id).
    ClientSecret,
    /// An authorization request that awaits consent.
    Consent,
    /// The `state` that goes through an identity provider.
    LoginState,
    /// A legacy MCP session's id.
    Session,
    /// A form's protection against forged requests.
    Csrf,
    /// A browser's cookie.
    Cookie,
    /// A device grant's code.
    DeviceCode,
    /// A call that awaits a client's input (`requestState`).
    RequestState,
    /// A cursor in a list.
    Cursor,
    /// A user's or a session's name in logs and towards agents (MAC).
    Pseudonym,
}

impl Purpose {
    /// What HKDF binds the key to. Changing one makes all values sealed for it worthless.
    const fn info(self) -> &'static [u8] {
        match self {
            Self::AccessToken => b"mcp-local-tunnel access token",
            Self::RefreshToken => b"mcp-local-tunnel refresh token",
            Self::ClientId => b"mcp-local-tunnel client id",
            Self::ClientSecret => b"mcp-local-tunnel client secret",
            Self::Consent => b"mcp-local-tunnel consent",
            Self::LoginState => b"mcp-local-tunnel login state",
            Self::Session => b"mcp-local-tunnel session",
            Self::Csrf => b"mcp-local-tunnel csrf",
            Self::Cookie => b"mcp-local-tunnel cookie",
            Self::DeviceCode => b"mcp-local-tunnel device code",
            Self::RequestState => b"mcp-local-tunnel request state",
            Self::Cursor => b"mcp-local-tunnel cursor",
            Self::Pseudonym => b"mcp-local-tunnel pseudonym",
        }
    }
}

/// A master key: 256 random bits. `Debug` shows its id only.
#[derive(Clone)]
pub struct Key {
    id: [u8; ID_LEN],
    material: Zeroizing<[u8; 32]>,
}

impl Key {
    /// The key of that material, which must be as good as random.
    #[must_use]
    pub fn from_material(material: Zeroizing<[u8; 32]>) -> Self {
        let mut key = Self { id: [0; ID_LEN], material };
        key.id = expand(&key, &[], b"mcp-local-tunnel key id", IdLen, |okm| {
            let mut id = [0; ID_LEN];
            okm.fill(&mut id).expect("the length asked for");
            id
        });
        key
    }

    /// What names the key in sealed values; says nothing about it.
    #[must_use]
    pub const fn id(&self) -> [u8; ID_LEN] {
        self.id
    }

    /// Its id in hexadecimal, for people.
    #[must_use]
    pub fn name(&self) -> String {
        alloc::format!("{:08x}", u32::from_be_bytes(self.id))
    }

    /// The key as text, for a file or for `gen-secret`: what [`key_from_secret`] reads as it is.
    #[must_use]
    pub fn to_text(&self) -> Secret {
        let mut raw = Zeroizing::new(Vec::with_capacity(SECRET_LEN));
        raw.extend_from_slice(&*self.material);
        raw.extend_from_slice(&checksum(&*self.material));
        let mut text = String::with_capacity(SECRET_PREFIX.len() + SECRET_LEN * 2);
        text.push_str(SECRET_PREFIX);
        URL_SAFE_NO_PAD.encode_string(&*raw, &mut text);
        Secret::new(text)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Seals and opens. Cheap to clone; shared by all that need it.
#[derive(Debug, Clone)]
pub struct Sealer(Arc<[Key]>);

impl Sealer {
    /// Whether the other is this one, or a clone of it.
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The first of `keys` seals, all of them open. There must be one at least.
    #[must_use]
    pub fn new(keys: Vec<Key>) -> Self {
        assert!(!keys.is_empty(), "a sealer was made without a key");
        Self(keys.into())
    }

    /// A new random key.
    pub fn generate(entropy: &mut dyn Entropy) -> Key {
        let mut material = Zeroizing::new([0; 32]);
        entropy.fill(&mut *material);
        Key::from_material(material)
    }

    /// Seals `plain` for `purpose`. It opens only with the same `context` (issuer, client, user: whatever it belongs
    /// to), which is not part of the value.
    #[must_use]
    pub fn seal(&self, purpose: Purpose, context: &[u8], plain: &[u8], entropy: &mut dyn Entropy) -> String {
        let key = self.sealing();
        let salt: [u8; SALT_LEN] = entropy::bytes(entropy);
        let mut out = Vec::with_capacity(HEAD_LEN + plain.len() + TAG_LEN);
        out.push(VERSION);
        out.extend_from_slice(&key.id);
        out.extend_from_slice(&salt);
        let mut body = Zeroizing::new(Vec::with_capacity(plain.len() + TAG_LEN));
        body.extend_from_slice(plain);
        cipher(key, &salt, purpose)
            .seal_in_place_append_tag(nonce(), Aad::from(context), &mut *body)
            .expect("a value far below the cipher's 256 GiB can be sealed");
        out.extend_from_slice(&body);
        URL_SAFE_NO_PAD.encode(out)
    }

    /// Opens what [`seal`](Self::seal) made for the same purpose and context, with any of the keys.
    pub fn open(&self, purpose: Purpose, context: &[u8], sealed: &str) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        if sealed.len() > limits::MAX_SEALED {
            return Err(OpenError::Malformed);
        }
        let mut raw = Zeroizing::new(URL_SAFE_NO_PAD.decode(sealed).map_err(|_| OpenError::Malformed)?);
        let (&[version], rest) = raw.split_first_chunk::<1>().ok_or(OpenError::Malformed)?;
        let (id, rest) = rest.split_first_chunk::<ID_LEN>().ok_or(OpenError::Malformed)?;
        let (salt, _) = rest.split_first_chunk::<SALT_LEN>().ok_or(OpenError::Malformed)?;
        if version != VERSION {
            return Err(OpenError::Malformed);
        }
        let key = self.0.iter().find(|key| key.id == *id).ok_or(OpenError::UnknownKey)?;
        let plain = cipher(key, salt, purpose)
            .open_within(nonce(), Aad::from(context), &mut raw, HEAD_LEN..)
            .map_err(|_| OpenError::Refused)?
            .len();
        raw.truncate(plain);
        Ok(raw)
    }

    /// A MAC (HMAC-SHA256) of `message`, with the sealing key's key for `purpose`.
    #[must_use]
    pub fn mac(&self, purpose: Purpose, message: &[u8]) -> [u8; 32] {
        mac(self.sealing(), purpose, message)
    }

    /// A user in logs: always the same text, and nothing that names the person. The oldest key makes it, so that it stays
    /// when a new one is put before it.
    #[must_use]
    pub fn pseudonym(&self, user: &UserId) -> String {
        let oldest = self.0.last().expect("checked when the sealer was made");
        let mac = mac(oldest, Purpose::Pseudonym, user.as_str().as_bytes());
        URL_SAFE_NO_PAD.encode(mac.first_chunk::<9>().expect("a MAC has 32 bytes"))
    }

    /// The MAC of `message` with the key that sealed `sealed`, so that it stays what it was when a new key is put before
    /// that; `None` when that key is not (or no longer) among ours.
    #[must_use]
    pub fn mac_beside(&self, purpose: Purpose, message: &[u8], sealed: &str) -> Option<[u8; 32]> {
        let raw = URL_SAFE_NO_PAD.decode(sealed.get(..HEAD_TEXT)?).ok()?;
        let id = raw.get(1..)?.first_chunk::<ID_LEN>()?;
        self.0.iter().find(|key| key.id == *id).map(|key| mac(key, purpose, message))
    }

    /// Whether `tag` is the [`mac`](Self::mac) of `message` under any of the keys. Takes the same time for all tags.
    #[must_use]
    pub fn is_mac(&self, purpose: Purpose, message: &[u8], tag: &[u8]) -> bool {
        self.0.iter().fold(false, |found, key| found | bool::from(mac(key, purpose, message).ct_eq(tag)))
    }

    fn sealing(&self) -> &Key {
        self.0.first().expect("checked when the sealer was made")
    }
}

/// Why a sealed value does not open. To whoever sent it, all three are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not of the form that is sealed here.
    #[error("not a sealed value")]
    Malformed,
    /// Sealed with a key that is not (or no longer) among ours.
    #[error("sealed with an unknown key")]
    UnknownKey,
    /// Changed, or sealed for another purpose or context.
    #[error("the seal is broken")]
    Refused,
}

/// How a configured secret becomes a key.
#[derive(Debug)]
pub enum KeySource {
    /// It is one that [`generate_secret`] made: used as it is.
    Direct(Key),
    /// Any other text: to be [`stretch`]ed, which takes a large part of a second.
    Stretch {
        /// It begins as a generated secret does, but is cut or mistyped: worth a warning.
        damaged: bool,
    },
}

/// What to do with a configured secret.
#[must_use]
pub fn key_from_secret(text: &str) -> KeySource {
    let Some(encoded) = text.trim().strip_prefix(SECRET_PREFIX) else {
        return KeySource::Stretch { damaged: false };
    };
    let raw = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).unwrap_or_default());
    match raw.split_first_chunk::<32>() {
        Some((material, sum)) if sum == checksum(material) => {
            KeySource::Direct(Key::from_material(Zeroizing::new(*material)))
        }
        _ => KeySource::Stretch { damaged: true },
    }
}

/// A new secret as `gen-secret` prints it: `mlts_`, then 256 random bits and a checksum in base64url.
pub fn generate_secret(entropy: &mut dyn Entropy) -> Secret {
    Sealer::generate(entropy).to_text()
}

/// The key of a secret that people thought of: PBKDF2-HMAC-SHA256 (RFC 8018), 600 000 rounds, a salt that is constant
/// because the same configuration must give the same key on any machine. Slow on purpose: cache what it returns.
#[must_use]
pub fn stretch(text: &str) -> Key {
    let mut material = Zeroizing::new([0; 32]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, STRETCH_ROUNDS, STRETCH_SALT, text.as_bytes(), &mut *material);
    Key::from_material(material)
}

const VERSION: u8 = 1;
const ID_LEN: usize = 4;
const SALT_LEN: usize = 16;
const HEAD_LEN: usize = 1 + ID_LEN + SALT_LEN;
const TAG_LEN: usize = 16;
/// As much of a sealed value's text as has its version and key id, and ends where whole bytes do.
const HEAD_TEXT: usize = 8;

const SECRET_PREFIX: &str = "mlts_";
const SECRET_LEN: usize = 32 + 4;
const STRETCH_ROUNDS: NonZeroU32 = NonZeroU32::new(600_000).expect("not zero");
const STRETCH_SALT: &[u8] = b"mcp-local-tunnel secret v1";

/// The cipher of one value: no other value has its salt, so its nonce is the first and only one.
fn cipher(key: &Key, salt: &[u8; SALT_LEN], purpose: Purpose) -> LessSafeKey {
    expand(key, salt, purpose.info(), &CHACHA20_POLY1305, |okm| LessSafeKey::new(UnboundKey::from(okm)))
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn mac(key: &Key, purpose: Purpose, message: &[u8]) -> [u8; 32] {
    let key = expand(key, &[], purpose.info(), hmac::HMAC_SHA256, |okm| hmac::Key::from(okm));
    let mut out = [0; 32];
    out.copy_from_slice(hmac::sign(&key, message).as_ref());
    out
}

/// HKDF-SHA256 of a master key, made into what `make` makes of it.
fn expand<L: hkdf::KeyType, T>(key: &Key, salt: &[u8], info: &[u8], len: L, make: impl Fn(hkdf::Okm<'_, L>) -> T) -> T {
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&*key.material);
    make(prk.expand(&[info], len).expect("a key is shorter than 255 hashes"))
}

/// How long a key's id is, for HKDF.
struct IdLen;

impl hkdf::KeyType for IdLen {
    fn len(&self) -> usize {
        ID_LEN
    }
}

/// Tells a secret that was cut or mistyped: the first 32 bits of its SHA-256.
fn checksum(material: &[u8]) -> [u8; 4] {
    let mut sum = [0; 4];
    for (to, from) in sum.iter_mut().zip(digest::digest(&digest::SHA256, material).as_ref()) {
        *to = *from;
    }
    sum
}

#[cfg(test)]
mod edges;
mod memo;
#[cfg(test)]
mod tests;

pub use memo::Memo;

//! Sealed values and secrets at the edges of what they may be.

use alloc::format;
use alloc::vec;

use super::*;
use crate::entropy::Seeded;

fn key(seed: u64) -> Key {
    Sealer::generate(&mut Seeded::new(seed))
}

#[test]
fn longest_sealed_value_opens_and_a_longer_one_does_not() {
    let sealer = Sealer::new(vec![key(1)]);
    let most = limits::MAX_SEALED / 4 * 3 - HEAD_LEN - TAG_LEN;
    for (length, fits) in [(most - 1, true), (most, true), (most + 1, false), (most + 2, false), (2 * most, false)] {
        let plain = vec![7; length];
        let value = sealer.seal(Purpose::ClientId, b"", &plain, &mut Seeded::new(9));
        let opened = sealer.open(Purpose::ClientId, b"", &value).map(|plain| plain.len());
        let expected = if fits { Ok(length) } else { Err(OpenError::Malformed) };
        assert_eq!(opened, expected, "{}", value.len());
    }
}

#[test]
fn key_that_is_given_twice_still_proves_and_opens() {
    let sealer = Sealer::new(vec![key(1), key(1)]);
    assert!(sealer.is_mac(Purpose::Csrf, b"form", &sealer.mac(Purpose::Csrf, b"form")));
    let value = sealer.seal(Purpose::Cookie, b"", b"plain", &mut Seeded::new(9));
    assert!(sealer.open(Purpose::Cookie, b"", &value).is_ok());
}

#[test]
fn secret_of_a_key_never_changes_between_versions() {
    let mut material = [0; 32];
    for (at, byte) in (0..).zip(&mut material) {
        *byte = at;
    }
    // Computed with Python's hashlib and base64.
    let text = "mlts_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9jDc0p";
    assert_eq!(Key::from_material(Zeroizing::new(material)).to_text().expose(), text);
}

#[test]
fn mistyped_character_of_a_secret_is_noticed() {
    let secret = generate_secret(&mut Seeded::new(3));
    let text = secret.expose();
    for at in SECRET_PREFIX.len()..text.len() {
        let other = if text[at..].starts_with('A') { 'B' } else { 'A' };
        let mistyped = format!("{}{other}{}", &text[..at], &text[at + 1..]);
        let source = key_from_secret(&mistyped);
        assert!(matches!(source, KeySource::Stretch { damaged: true }), "{at}: {source:?}");
    }
}

#[test]
fn debug_tells_which_key_it_is() {
    let key = key(1);
    let text = format!("{key:?}");
    assert!(text.contains(&format!("{:?}", key.id())), "{text}");
}

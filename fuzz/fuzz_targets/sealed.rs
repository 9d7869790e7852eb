//! Any bytes in place of a sealed value: none opens but what was sealed, for its purpose and its context alone.
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use tunnel_core::entropy::Seeded;
use tunnel_core::keyring::Keyring;
use tunnel_core::limits;
use tunnel_core::seal::{KeySource, OpenError, Purpose, Sealer, key_from_secret};
use tunnel_core::time::UnixTime;

const PURPOSES: [Purpose; 5] =
    [Purpose::AccessToken, Purpose::RefreshToken, Purpose::LoginState, Purpose::Session, Purpose::Cookie];

fuzz_target!(|input: (u8, u16, u8, &[u8])| {
    let (purpose, at, change, data) = input;
    let purpose = PURPOSES[usize::from(purpose) % PURPOSES.len()];
    let mut entropy = Seeded::new(u64::from(at));
    let (old, new) = (Sealer::generate(&mut entropy), Sealer::generate(&mut entropy));
    let sealer = Sealer::new(vec![new.clone(), old.clone()]);

    // A value that looks like ours, made of what came.
    let forged = [&[1], &old.id()[..], data].concat();
    for text in [String::from_utf8_lossy(data).into_owned(), URL_SAFE_NO_PAD.encode(forged)] {
        assert!(sealer.open(purpose, b"", &text).is_err(), "nobody sealed {text}");
        let _ = sealer.mac_beside(purpose, data, &text);
    }

    let sealed = Sealer::new(vec![old.clone()]).seal(purpose, b"ann", data, &mut entropy);
    let opened = sealer.open(purpose, b"ann", &sealed);
    match &opened {
        Ok(plain) => assert_eq!(**plain, data),
        Err(error) => assert!(*error == OpenError::Malformed && sealed.len() > limits::MAX_SEALED),
    }
    for other in PURPOSES.into_iter().filter(|other| *other != purpose) {
        assert!(sealer.open(other, b"ann", &sealed).is_err());
    }
    assert!(sealer.open(purpose, data, &sealed).is_err() || data == b"ann");
    assert!(Sealer::new(vec![new]).open(purpose, b"ann", &sealed).is_err());
    let mut altered = sealed.clone().into_bytes();
    let place = usize::from(at) % altered.len();
    altered[place] = change & 0x7F;
    let altered = String::from_utf8(altered).expect("ASCII");
    assert!(altered == sealed || sealer.open(purpose, b"ann", &altered).is_err(), "{altered}");
    texts(&String::from_utf8_lossy(data));
});

/// Keys as text: what is read is what was written.
fn texts(text: &str) {
    if let KeySource::Direct(key) = key_from_secret(text) {
        assert_eq!(key.to_text().expose(), text.trim());
    }
    let names = |ring: &Keyring| {
        ring.keys().iter().map(|kept| (kept.key.name(), kept.made.map(|made| made.as_secs()))).collect::<Vec<_>>()
    };
    if let Some(ring) = Keyring::from_text(text, UnixTime::from_secs(7)) {
        assert!((1..=limits::MAX_KEYS).contains(&ring.keys().len()));
        let again = Keyring::from_text(ring.to_text().expose(), UnixTime::default()).expect("it was written here");
        assert_eq!(names(&again), names(&ring));
    }
}

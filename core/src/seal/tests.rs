//! Tests of sealed values: what opens, what does not, and that the keys come and go.

use proptest::prelude::*;

use alloc::format;
use std::vec;

use super::*;
use crate::entropy::Seeded;

const PURPOSES: [Purpose; 13] = [
    Purpose::AccessToken,
    Purpose::RefreshToken,
    Purpose::ClientId,
    Purpose::ClientSecret,
    Purpose::Consent,
    Purpose::LoginState,
    Purpose::Session,
    Purpose::Csrf,
    Purpose::Cookie,
    Purpose::DeviceCode,
    Purpose::RequestState,
    Purpose::Cursor,
    Purpose::Pseudonym,
];

fn key(seed: u64) -> Key {
    Sealer::generate(&mut Seeded::new(seed))
}

fn sealed(keys: Vec<Key>) -> (Sealer, String) {
    let sealer = Sealer::new(keys);
    let value = sealer.seal(Purpose::Session, b"alice", b"plain text", &mut Seeded::new(9));
    (sealer, value)
}

#[test]
fn sealed_value_opens_for_its_purpose_and_context_only() {
    let (sealer, value) = sealed(vec![key(1)]);
    for purpose in PURPOSES {
        let opened = sealer.open(purpose, b"alice", &value).map(|plain| plain.to_vec());
        let expected = if purpose == Purpose::Session { Ok(b"plain text".to_vec()) } else { Err(OpenError::Refused) };
        assert_eq!(opened, expected, "{purpose:?}");
    }
    for context in [&b""[..], b"alic", b"alicf", b"alice\0"] {
        assert_eq!(sealer.open(Purpose::Session, context, &value), Err(OpenError::Refused));
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let (sealer, value) = sealed(vec![key(1)]);
    let raw = URL_SAFE_NO_PAD.decode(&value).unwrap();
    for bit in 0..raw.len() * 8 {
        let mut flipped = raw.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let opened = sealer.open(Purpose::Session, b"alice", &URL_SAFE_NO_PAD.encode(flipped));
        assert!(opened.is_err(), "bit {bit}");
    }
}

#[test]
fn every_changed_character_is_refused() {
    let (sealer, value) = sealed(vec![key(1)]);
    for at in 0..value.len() {
        for other in "AQgw-_=+ ".chars().filter(|other| !value[at..].starts_with(*other)) {
            let changed = format!("{}{other}{}", &value[..at], &value[at + 1..]);
            assert!(sealer.open(Purpose::Session, b"alice", &changed).is_err(), "{at} {other}");
        }
    }
}

#[test]
fn cut_and_lengthened_values_are_refused() {
    let (sealer, value) = sealed(vec![key(1)]);
    for len in 0..value.len() {
        assert!(sealer.open(Purpose::Session, b"alice", &value[..len]).is_err(), "{len}");
    }
    assert!(sealer.open(Purpose::Session, b"alice", &format!("{value}A")).is_err());
    let long = "A".repeat(limits::MAX_SEALED + 1);
    assert_eq!(sealer.open(Purpose::Session, b"alice", &long), Err(OpenError::Malformed));
}

#[test]
fn first_key_seals_and_all_open() {
    let (_, old) = sealed(vec![key(1)]);
    let (rotated, new) = sealed(vec![key(2), key(1)]);
    for value in [&old, &new] {
        assert_eq!(**rotated.open(Purpose::Session, b"alice", value).unwrap(), *b"plain text");
    }
    let (dropped, _) = sealed(vec![key(2)]);
    assert_eq!(dropped.open(Purpose::Session, b"alice", &old), Err(OpenError::UnknownKey));
    assert!(dropped.open(Purpose::Session, b"alice", &new).is_ok());
}

#[test]
fn empty_values_can_be_sealed_and_two_seals_differ() {
    let (sealer, mut entropy) = (Sealer::new(vec![key(1)]), Seeded::new(1));
    let one = sealer.seal(Purpose::Cookie, b"", b"", &mut entropy);
    let two = sealer.seal(Purpose::Cookie, b"", b"", &mut entropy);
    assert_ne!(one, two);
    assert_eq!(**sealer.open(Purpose::Cookie, b"", &one).unwrap(), *b"");
}

#[test]
fn mac_survives_rotation_and_depends_on_everything() {
    let old = Sealer::new(vec![key(1)]);
    let rotated = Sealer::new(vec![key(2), key(1)]);
    let tag = old.mac(Purpose::ClientSecret, b"id");
    assert!(rotated.is_mac(Purpose::ClientSecret, b"id", &tag));
    assert!(rotated.is_mac(Purpose::ClientSecret, b"id", &rotated.mac(Purpose::ClientSecret, b"id")));
    assert!(!rotated.is_mac(Purpose::ClientSecret, b"ie", &tag));
    assert!(!rotated.is_mac(Purpose::Csrf, b"id", &tag));
    assert!(!rotated.is_mac(Purpose::ClientSecret, b"id", &tag[..31]));
    assert!(!rotated.is_mac(Purpose::ClientSecret, b"id", b""));
    assert!(!Sealer::new(vec![key(2)]).is_mac(Purpose::ClientSecret, b"id", &tag));
}

#[test]
fn mac_beside_a_sealed_value_goes_by_its_key() {
    let (old, value) = sealed(vec![key(1)]);
    let rotated = Sealer::new(vec![key(2), key(1)]);
    let tag = old.mac(Purpose::ClientSecret, b"id");
    assert_eq!(rotated.mac_beside(Purpose::ClientSecret, b"id", &value), Some(tag));
    assert_eq!(Sealer::new(vec![key(2)]).mac_beside(Purpose::ClientSecret, b"id", &value), None);
    for broken in ["", "A", "AAAAAAA", "AAAAAAAA", "????????", "äöüäöü"] {
        assert_eq!(rotated.mac_beside(Purpose::ClientSecret, b"id", broken), None, "{broken}");
    }
}

#[test]
fn pseudonym_survives_rotation_and_tells_people_apart() {
    let of = |keys: &[u64], user: &str| {
        Sealer::new(keys.iter().map(|seed| key(*seed)).collect()).pseudonym(&UserId::new(user))
    };
    assert_eq!(of(&[1], "ann"), of(&[3, 2, 1], "ann"));
    assert_ne!(of(&[1], "ann"), of(&[1], "bob"));
    assert_ne!(of(&[1], "ann"), of(&[2], "ann"));
}

#[test]
fn purposes_have_distinct_keys() {
    let sealer = Sealer::new(vec![key(1)]);
    let tags: alloc::collections::BTreeSet<_> = PURPOSES.iter().map(|purpose| sealer.mac(*purpose, b"")).collect();
    assert_eq!(tags.len(), PURPOSES.len());
}

#[test]
fn generated_secret_is_used_as_it_is() {
    let secret = generate_secret(&mut Seeded::new(3));
    for text in [secret.expose(), &format!(" {}\n", secret.expose())] {
        let KeySource::Direct(read) = key_from_secret(text) else { panic!("not direct") };
        assert_eq!(read.material, key(3).material);
        assert_eq!(read.id(), key(3).id());
    }
}

#[test]
fn damaged_secret_is_told_from_any_other_text() {
    let secret = generate_secret(&mut Seeded::new(3));
    let text = secret.expose();
    let cut = &text[..text.len() - 1];
    let swapped = text.replacen("mlts_", "mlts_A", 1);
    for (text, expected) in [(cut, true), (&swapped, true), ("mlts_", true), ("hunter2", false), ("", false)] {
        let KeySource::Stretch { damaged } = key_from_secret(text) else { panic!("direct: {text}") };
        assert_eq!(damaged, expected, "{text}");
    }
}

#[test]
fn stretched_secret_is_pbkdf2() {
    // Computed with Python's hashlib.pbkdf2_hmac.
    let expected = [
        91, 179, 30, 61, 66, 38, 117, 94, 52, 137, 161, 187, 112, 77, 85, 32, 125, 63, 102, 137, 231, 225, 157, 205,
        210, 181, 234, 178, 64, 201, 65, 174,
    ];
    assert_eq!(*stretch("correct horse").material, expected);
}

#[test]
fn debug_shows_no_key() {
    let key = key(1);
    let text = format!("{key:?} {:?}", Sealer::new(vec![key.clone()]));
    assert!(!text.contains(&format!("{:?}", &key.material[..4]).replace(['[', ']'], "")), "{text}");
}

/// Where a purpose stands in [`PURPOSES`]: a new one does not compile before it has its place.
fn place(purpose: Purpose) -> usize {
    match purpose {
        Purpose::AccessToken => 0,
        Purpose::RefreshToken => 1,
        Purpose::ClientId => 2,
        Purpose::ClientSecret => 3,
        Purpose::Consent => 4,
        Purpose::LoginState => 5,
        Purpose::Session => 6,
        Purpose::Csrf => 7,
        Purpose::Cookie => 8,
        Purpose::DeviceCode => 9,
        Purpose::RequestState => 10,
        Purpose::Cursor => 11,
        Purpose::Pseudonym => 12,
    }
}

#[test]
fn every_purpose_is_among_those_that_are_tested() {
    assert!(PURPOSES.iter().enumerate().all(|(index, purpose)| place(*purpose) == index));
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn values_open_for_what_they_were_sealed_for_and_for_nothing_else(
        plain in bytes(200), context in bytes(3), other in bytes(3),
        purposes in (0..PURPOSES.len(), 0..PURPOSES.len()), newer in 0..3_u64, seed: u64,
    ) {
        let (purpose, wrong) = (PURPOSES[purposes.0], PURPOSES[purposes.1]);
        let value = Sealer::new(vec![key(100)]).seal(purpose, &context, &plain, &mut Seeded::new(seed));
        prop_assert_eq!(value.len(), ((HEAD_LEN + plain.len() + TAG_LEN) * 4).div_ceil(3), "nothing but what it must hold");
        let later: Vec<Key> = (0..newer).map(key).chain([key(100)]).collect();
        let opened = |keys, purpose, context: &[u8]| {
            Sealer::new(keys).open(purpose, context, &value).map(|opened| opened.to_vec())
        };
        prop_assert_eq!(opened(later.clone(), purpose, &context), Ok(plain.clone()));
        let own = |is_own: bool| if is_own { Ok(plain.clone()) } else { Err(OpenError::Refused) };
        prop_assert_eq!(opened(later.clone(), purpose, &other), own(other == context));
        prop_assert_eq!(opened(later, wrong, &context), own(wrong == purpose));
        prop_assert_eq!(opened(vec![key(7)], purpose, &context), Err(OpenError::UnknownKey));
    }

    #[test]
    fn any_other_text_opens_to_nothing(text in "[A-Za-z0-9_-]{0,120}|.{0,60}", at: prop::sample::Index, to in "[A-Za-z0-9_-]") {
        let (sealer, value) = sealed(vec![key(1)]);
        prop_assert!(sealer.open(Purpose::Session, b"alice", &text).is_err());
        let at = at.index(value.len());
        let changed = format!("{}{to}{}", &value[..at], &value[at + 1..]);
        let opens = sealer.open(Purpose::Session, b"alice", &changed).is_ok();
        prop_assert_eq!(opens, changed == value);
    }

    #[test]
    fn keys_read_back_and_a_slip_is_noticed(material: [u8; 32], at: prop::sample::Index, to in "[A-Za-z0-9_-]") {
        let key = Key::from_material(Zeroizing::new(material));
        let text = key.to_text();
        let text = text.expose();
        let KeySource::Direct(read) = key_from_secret(text) else { panic!("not direct") };
        prop_assert_eq!((&*read.material, read.id(), read.name()), (&material, key.id(), key.name()));
        let at = SECRET_PREFIX.len() + at.index(text.len() - SECRET_PREFIX.len());
        let slip = format!("{}{to}{}", &text[..at], &text[at + 1..]);
        let damaged = matches!(key_from_secret(&slip), KeySource::Stretch { damaged: true });
        prop_assert_eq!(damaged, slip != text);
    }

    #[test]
    fn tags_are_good_for_their_message_alone(message in bytes(4), other in bytes(4), bit in 0..256_usize) {
        let sealer = Sealer::new(vec![key(1)]);
        let mut tag = sealer.mac(Purpose::Csrf, &message);
        prop_assert_eq!(sealer.is_mac(Purpose::Csrf, &other, &tag), other == message);
        tag[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!sealer.is_mac(Purpose::Csrf, &message, &tag));
    }
}

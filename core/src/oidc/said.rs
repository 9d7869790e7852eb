//! A provider's own words, as far as people may be shown them.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode;

use crate::http::text;

/// What a provider says of its error (`error_description`, RFC 6749 sections 4.1.2.1 and 5.2): one line that shows what it
/// says, capped. Empty when it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said(String);

impl Said {
    /// The words in `text`. Those that repeat one of `secrets`, in any form that it was sent in, are nobody's to read.
    pub(super) fn new(text: Option<&str>, secrets: &[&str]) -> Self {
        let text = text::clean(text.unwrap_or_default(), MAX_READ);
        Self(if repeats(&text, secrets) { String::new() } else { text::clean(&text, MAX_SAID) })
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " ({})", self.0) }
    }
}

/// Whether `text` has one of `secrets` in it: as it is, or as it stands in a URL, in a form or in a header for basic
/// authentication.
pub(super) fn repeats(text: &str, secrets: &[&str]) -> bool {
    let secrets: Vec<_> = secrets.iter().filter(|secret| !secret.is_empty()).collect();
    if secrets.is_empty() {
        return false;
    }
    // A form within a header is encoded twice, and an URL in an URL too.
    let mut readings = decoded(text.as_bytes());
    readings.extend(readings.iter().flat_map(|reading| decoded(reading)).collect::<Vec<_>>());
    let has = |reading: &[u8], secret: &[u8]| reading.windows(secret.len()).any(|part| part == secret);
    readings.iter().any(|reading| {
        secrets.iter().any(|secret| {
            // In a text that was cleaned, a secret with odd spaces reads otherwise.
            let clean = text::clean(secret, usize::MAX);
            has(reading, secret.as_bytes()) || !clean.is_empty() && has(reading, clean.as_bytes())
        })
    })
}

/// What `text` reads as: itself, and what is encoded in it.
fn decoded(text: &[u8]) -> Vec<Vec<u8>> {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    let mut readings = Vec::from([text.to_vec()]);
    readings.extend([text, &spaced].map(|text| Cow::from(percent_decode(text)).into_owned()));
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
    for digits in text.split(|byte| !is_digit(byte)) {
        let digits: Vec<u8> = digits.iter().map(|digit| standard(*digit)).collect();
        // Where the encoded text begins among other letters is not known.
        for skipped in 0..4 {
            let Some(rest) = digits.get(skipped..) else { break };
            // One digit alone is no byte.
            let length = if rest.len() % 4 == 1 { rest.len() - 1 } else { rest.len() };
            readings.extend(rest.get(..length).and_then(|rest| LENIENT.decode(rest).ok()));
        }
    }
    readings
}

const fn standard(digit: u8) -> u8 {
    match digit {
        b'-' => b'+',
        b'_' => b'/',
        other => other,
    }
}

/// Takes what any encoder makes, and a piece of it.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);
/// Characters: two sentences.
const MAX_SAID: usize = 200;
/// What is looked at, so that a secret which begins within those two sentences is seen whole.
const MAX_READ: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
    use std::format;
    use std::string::ToString;

    use super::*;

    const SECRET: &str = "s3 cret&/+ü=%";

    #[test]
    fn words_that_repeat_a_secret_in_any_form_are_not_shown() {
        let form: String = url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
        let url = "s3%20cret%26%2f%2B%C3%BC%3d%25";
        let once = |text: &str| BASE64_STANDARD.encode(text);
        let forms = [
            SECRET.to_string(),
            form.clone(),
            url.to_string(),
            url.replace('%', "%25"),
            once(&format!("relay:{form}")),
            once(&format!("relay:{SECRET}")),
            once(&format!("a-relay:{SECRET}")),
            once(SECRET),
            BASE64_STANDARD_NO_PAD.encode(format!("relay:{form}")),
            BASE64_URL_SAFE_NO_PAD.encode(format!("relay:{SECRET}")),
            form.replace('%', "%25"),
            "s3\u{200b} cret&/\u{0}+ü=%".to_string(),
        ];
        for form in forms {
            for text in [form.clone(), format!("no: {form}."), format!("Basic {form}"), format!("x={form}&y")] {
                assert_eq!(Said::new(Some(&text), &["other", SECRET]), Said::default(), "{text}");
            }
        }
    }

    #[test]
    fn other_words_are_shown_and_capped() {
        for text in ["no such code", "see https://idp.example/?error=a%20b", "Basic YWJjOmRlZg== is wrong", "+%zz%"] {
            assert_eq!(Said::new(Some(text), &[SECRET, ""]).0, text);
        }
        assert_eq!(Said::new(Some(&"x".repeat(10_000)), &[SECRET]).0.chars().count(), MAX_SAID + 1);
        let late = format!("{}{SECRET}", "x".repeat(MAX_SAID - 2));
        assert_eq!(Said::new(Some(&late), &[SECRET]), Said::default(), "not the half of it either");
        assert_eq!(Said::new(None, &[SECRET]), Said::default());
    }
}

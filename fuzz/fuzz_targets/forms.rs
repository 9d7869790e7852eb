//! Any form: read as the URL standard's own reader reads it, and written so that both read it back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tunnel_core::http::form::{self, Form, FormError};
use tunnel_core::{limits, oidc};
use url::{Url, form_urlencoded};

fuzz_target!(|data: &[u8]| {
    let pairs: Vec<(String, String)> = form_urlencoded::parse(data).into_owned().collect();
    let names: std::collections::BTreeSet<&str> = pairs.iter().map(|(name, _)| &**name).collect();
    match Form::parse(data) {
        Ok(form) => {
            assert!(
                form.iter().eq(borrowed(&pairs))
                    && pairs.len() <= limits::MAX_FORM_FIELDS
                    && names.len() == pairs.len()
            );
            assert!(
                names.iter().all(|name| form.get(name).is_some()
                    == form.iter().any(|(own, value)| own == *name && !value.is_empty()))
            );
        }
        Err(FormError::Repeated) => assert!(names.len() < pairs.len()),
        Err(FormError::TooMany) => assert!(pairs.len() > limits::MAX_FORM_FIELDS),
        // What is not UTF-8 the other reader replaces.
        Err(FormError::NotUtf8) => {
            assert!(pairs.iter().any(|(name, value)| format!("{name}{value}").contains('\u{fffd}')))
        }
    }
    let written = form::encode(borrowed(&pairs));
    assert!(form_urlencoded::parse(written.as_bytes()).eq(form_urlencoded::parse(data)), "{written}");
    let Ok(text) = std::str::from_utf8(data) else { return };
    let only = pairs.iter().filter(|(name, _)| name == "state").map(|(_, value)| value.clone());
    let only = only.map(Some).reduce(|_, _| None).flatten();
    assert_eq!(oidc::state_of(text), only, "one state, or none that counts");
    // The other reader drops spaces and controls.
    if text.bytes().all(|byte| byte > b' ') {
        appended(text, &pairs);
    }
});

/// What is added to a URL stands in its query, and nothing else of it changes.
fn appended(text: &str, pairs: &[(String, String)]) {
    let url = format!("https://host.example/{text}");
    let added = form::append_query(&url, borrowed(pairs));
    let (Ok(before), Ok(after)) = (Url::parse(&url), Url::parse(&added)) else { panic!("{url} {added}") };
    assert_eq!((before.path(), before.fragment()), (after.path(), after.fragment()));
    let expected = before.query_pairs().chain(pairs.iter().map(|(name, value)| ((&**name).into(), (&**value).into())));
    assert!(after.query_pairs().eq(expected), "{added}");
}

fn borrowed(pairs: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    pairs.iter().map(|(name, value)| (&**name, &**value))
}

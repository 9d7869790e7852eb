//! `WWW-Authenticate` (RFC 9110 section 11.6.1): what a server wants of whoever asks.

use alloc::string::{String, ToString};

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// What a `Bearer` challenge says (RFC 6750 section 3, RFC 9728 section 5.1).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// Where the protected resource metadata is.
    pub(super) resource_metadata: Option<String>,
    /// What the token must allow.
    pub(super) scope: Option<String>,
    pub(super) error: Option<String>,
}

impl Challenge {
    /// The first `Bearer` challenge. Without any, an empty one: that somebody must sign in is said by the status.
    pub(super) fn read(headers: &HeaderMap) -> Self {
        headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|field| field.to_str().ok())
            .find_map(read_field)
            .unwrap_or_default()
    }
}

/// The first `Bearer` challenge of a field, which may hold several challenges.
fn read_field(field: &str) -> Option<Challenge> {
    let mut rest = field;
    let mut found: Option<Challenge> = None;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let length = rest.find(|c: char| !is_token(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(length);
        if word.is_empty() {
            return found;
        }
        match after.trim_start().strip_prefix('=') {
            Some(value) => {
                let (value, after) = read_value(value.trim_start())?;
                rest = after;
                if let Some(challenge) = &mut found {
                    challenge.set(word, value);
                }
            }
            // Another scheme begins.
            None if found.is_some() => return found,
            None => {
                rest = after;
                found = word.eq_ignore_ascii_case("Bearer").then(Challenge::default);
            }
        }
    }
}

impl Challenge {
    /// A parameter; the first of a name counts.
    fn set(&mut self, name: &str, value: String) {
        let slot = match name.to_ascii_lowercase().as_str() {
            "resource_metadata" => &mut self.resource_metadata,
            "scope" => &mut self.scope,
            "error" => &mut self.error,
            _ => return,
        };
        slot.get_or_insert(value);
    }
}

/// A token or a quoted string, and what comes after it.
fn read_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let length = text.find(|c: char| !is_token(c)).unwrap_or(text.len());
        let (value, after) = text.split_at(length);
        // A token68 ends with more of these (RFC 9110 section 11.2).
        return Some((value.to_string(), after.trim_start_matches('=')));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, quoted.get(at + 1..)?)),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

/// RFC 9110 section 5.6.2, and what a token68 has beside it.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(c)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bearer_challenge_is_found_among_others() {
        let full = Challenge {
            resource_metadata: Some("https://a.example/m".into()),
            scope: Some("a b".into()),
            error: Some("invalid_token".into()),
        };
        let table = [
            (r#"Bearer resource_metadata="https://a.example/m", scope="a b", error=invalid_token"#, full.clone()),
            (r#"bearer ERROR="invalid_token",scope = "a b" ,resource_metadata="https://a.example/m""#, full.clone()),
            (
                r#"Basic realm="x, Bearer scope=\"no\"", Bearer resource_metadata="https://a.example/m", scope="a b", error="invalid_token", Digest scope="c""#,
                full,
            ),
            ("Negotiate abc/d==, Bearer scope=x", Challenge { scope: Some("x".into()), ..Challenge::default() }),
            (r#"Bearer scope="a\"b""#, Challenge { scope: Some("a\"b".into()), ..Challenge::default() }),
            ("Bearer", Challenge::default()),
            ("Basic scope=x", Challenge::default()),
            (r#"Bearer scope="open"#, Challenge::default()),
            ("", Challenge::default()),
        ];
        for (field, expected) in table {
            let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, HeaderValue::from_static(field))]);
            assert_eq!(Challenge::read(&headers), expected, "{field}");
        }
    }

    proptest! {
        #[test]
        fn parameters_read_back_among_other_challenges(
            values in prop::array::uniform3(proptest::option::of("[ -~]{0,12}")), before in "(Basic realm=\"x\", |Negotiate abc==, )?", after in "(, Digest scope=\"no\")?",
        ) {
            let names = ["resource_metadata", "scope", "error"];
            let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let given = names.iter().zip(&values).filter_map(|(name, value)| Some(alloc::format!("{name}=\"{}\"", quoted(value.as_deref()?))));
            let field = alloc::format!("{before}Bearer {}{after}", given.collect::<alloc::vec::Vec<_>>().join(", "));
            let [resource_metadata, scope, error] = values;
            let expected = Challenge { resource_metadata, scope, error };
            // Without any parameter the comma after the scheme's name says nothing.
            prop_assert_eq!(read_field(&field), Some(expected), "{}", field);
        }

        #[test]
        fn any_field_is_read_without_a_panic(field in "[ -~]{0,60}|(Bearer |scope|=|\"|,|\\\\|é| ){0,12}") {
            let _ = read_field(&field);
        }
    }
}

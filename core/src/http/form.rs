//! `application/x-www-form-urlencoded`: bodies of forms, and query strings.

use alloc::string::String;
use alloc::vec::Vec;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

use crate::limits;
use crate::secret::Secret;

/// The fields of a form or a query, in their order. Values may be passwords, codes or tokens: `Debug` shows names only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form(Vec<(String, Secret)>);

/// Why a text is no usable form. The sender is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// More than [`limits::MAX_FORM_FIELDS`] fields.
    #[error("there are more than {} parameters", limits::MAX_FORM_FIELDS)]
    TooMany,
    /// A field stands twice: OAuth forbids it (RFC 6749 section 3.1), since two readers may choose different ones.
    #[error("a parameter stands more than once")]
    Repeated,
    /// A name or a value is not UTF-8.
    #[error("a parameter is not UTF-8")]
    NotUtf8,
}

impl Form {
    /// Reads a body or a query string.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Self, FormError> {
        let mut fields: Vec<(String, Secret)> = Vec::new();
        for field in text.as_ref().split(|byte| *byte == b'&').filter(|field| !field.is_empty()) {
            let mut parts = field.splitn(2, |byte| *byte == b'=');
            let name = decode(parts.next().unwrap_or_default())?;
            let value = decode(parts.next().unwrap_or_default())?;
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(FormError::Repeated);
            }
            if fields.len() == limits::MAX_FORM_FIELDS {
                return Err(FormError::TooMany);
            }
            fields.push((name, Secret::new(value)));
        }
        Ok(Self(fields))
    }

    /// The value of `name`; `None` also when it is empty, which counts as omitted (RFC 6749 section 3.1).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.value(name).map(Secret::expose)
    }

    /// The value of `name` as a secret; `None` also when it is empty.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<Secret> {
        self.value(name).cloned()
    }

    /// The fields in their order, empty ones included.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.expose()))
    }

    fn value(&self, name: &str) -> Option<&Secret> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value).filter(|value| !value.is_empty())
    }
}

/// Writes fields as a form's body or as a query. Space becomes `%20`, which every reader of either understands.
#[must_use]
pub fn encode<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (name, value) in fields {
        if !out.is_empty() {
            out.push('&');
        }
        out.extend(utf8_percent_encode(name, RESERVED));
        out.push('=');
        out.extend(utf8_percent_encode(value, RESERVED));
    }
    out
}

/// `url` with `fields` appended to its query (RFC 6749 section 4.1.2). Everything else of it stays byte for byte, as
/// exact redirect URIs and custom schemes require; a fragment stays at the end.
#[must_use]
pub fn append_query<'a>(url: &str, fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let query = encode(fields);
    if query.is_empty() {
        return url.into();
    }
    let (url, fragment) = url.split_at(url.find('#').unwrap_or(url.len()));
    let glue = match url.find('?') {
        None => "?",
        // A `?` within the query is of a name or a value.
        Some(query) if url.ends_with('&') || query + 1 == url.len() => "",
        Some(_) => "&",
    };
    [url, glue, &query, fragment].concat()
}

/// `text` percent-encoded for one segment of a path or one value of a query.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).collect()
}

/// Decodes one name or value of a form. A `%` that begins no escape stands for itself, as browsers have it.
pub(super) fn decode(text: &[u8]) -> Result<String, FormError> {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&spaced).decode_utf8().map(alloc::borrow::Cow::into_owned).map_err(|_| FormError::NotUtf8)
}

/// All but the unreserved characters of RFC 3986 section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::format;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_decoded_in_order() {
        let form = Form::parse("b=1+2%2B&&a=%C3%A9=x&flag&%3D=&pct=100%").unwrap();
        let fields: Vec<_> = form.iter().collect();
        assert_eq!(fields, [("b", "1 2+"), ("a", "é=x"), ("flag", ""), ("=", ""), ("pct", "100%")]);
        assert_eq!(form.get("b"), Some("1 2+"));
        assert_eq!(form.get("absent"), None);
        assert_eq!(form.secret("a"), Some(Secret::new("é=x")));
        assert_eq!(Form::parse(""), Ok(Form::default()));
    }

    #[test]
    fn empty_value_counts_as_omitted() {
        let form = Form::parse("state=&scope").unwrap();
        assert_eq!((form.get("state"), form.secret("scope")), (None, None));
    }

    #[test]
    fn repeated_fields_are_refused_however_spelled() {
        for text in ["a=1&a=1", "a=1&b=2&a=", "state=1&st%61te=2", "a+b&a%20b"] {
            assert_eq!(Form::parse(text), Err(FormError::Repeated), "{text}");
        }
    }

    #[test]
    fn fields_are_bounded() {
        let form = |count: usize| (0..count).map(|index| format!("f{index}=1")).collect::<Vec<_>>().join("&");
        assert!(Form::parse(form(limits::MAX_FORM_FIELDS)).is_ok());
        assert_eq!(Form::parse(form(limits::MAX_FORM_FIELDS + 1)), Err(FormError::TooMany));
    }

    #[test]
    fn other_encodings_are_refused() {
        assert_eq!(Form::parse("a=%ff"), Err(FormError::NotUtf8));
        assert_eq!(Form::parse(b"\xff=a"), Err(FormError::NotUtf8));
    }

    #[test]
    fn debug_shows_no_value() {
        assert!(!format!("{:?}", Form::parse("password=hunter2")).contains("hunter2"));
    }

    #[test]
    fn query_is_appended_and_the_rest_stays() {
        let cases = [
            ("https://a.example/cb", "https://a.example/cb?code=a%26b&state=%20"),
            ("https://a.example/cb?x=%2f", "https://a.example/cb?x=%2f&code=a%26b&state=%20"),
            ("https://a.example/cb?", "https://a.example/cb?code=a%26b&state=%20"),
            ("https://a.example/cb?x&", "https://a.example/cb?x&code=a%26b&state=%20"),
            ("https://a.example/cb?x?", "https://a.example/cb?x?&code=a%26b&state=%20"),
            ("https://a.example", "https://a.example?code=a%26b&state=%20"),
            (
                "cursor://anysphere.cursor-mcp/oauth/callback",
                "cursor://anysphere.cursor-mcp/oauth/callback?code=a%26b&state=%20",
            ),
            ("com.example.app:/cb", "com.example.app:/cb?code=a%26b&state=%20"),
            ("https://a.example/cb#f?x", "https://a.example/cb?code=a%26b&state=%20#f?x"),
        ];
        for (url, expected) in cases {
            assert_eq!(append_query(url, [("code", "a&b"), ("state", " ")]), expected);
            assert_eq!(append_query(url, []), url);
        }
    }

    proptest! {
        #[test]
        fn written_forms_read_back(fields in prop::collection::btree_map(any::<String>(), any::<String>(), 0..8)) {
            let text = encode(fields.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            prop_assert!(text.is_ascii() && !text.contains(['#', ' ', '"', '<', '\n']));
            let form = Form::parse(text).unwrap();
            let read: BTreeMap<String, String> = form.iter().map(|(name, value)| (name.into(), value.into())).collect();
            prop_assert_eq!(read, fields);
        }

        #[test]
        fn reading_never_panics(text in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Form::parse(text);
        }
    }
}

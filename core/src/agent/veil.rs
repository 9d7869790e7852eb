//! What people are not told: the values that a server was given, should it say them where it says why it fails.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Reverse;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::config::{Reference, ServerConfig, Transport};
use crate::limits;
use crate::rpc::quoted;
use crate::secret::Secret;

/// Hides a server's secrets in what is told about it: its reason goes to the log, to the relay and to clients. What it
/// answers to calls is its own business, and its own log stays as it wrote it.
#[derive(Debug, Clone, Default)]
pub struct Veil(
    /// What is hidden and what is shown in its place, the longest first.
    Vec<(Secret, String)>,
);

impl Veil {
    /// Of an environment's variables, looked up.
    #[must_use]
    pub fn of_environment(variables: impl IntoIterator<Item = (String, Secret)>) -> Self {
        Self::new(variables.into_iter().map(|(name, value)| (format!("[env {name}]"), value)))
    }

    /// Of what stands in a server's entry. A value that only says where it is, is not known here.
    pub(super) fn of_entry(config: &ServerConfig) -> Self {
        match &config.transport {
            Transport::Stdio { env, .. } => {
                let own = env.iter().filter(|(_, value)| Reference::read(value.expose()).is_none());
                Self::of_environment(own.map(|(name, value)| (name.clone(), value.clone())))
            }
            Transport::Http { url, headers, .. } => {
                let headers = headers.iter().map(|(name, value)| (format!("[header {name}]"), value.clone()));
                Self::new(headers.chain(of_query(url)))
            }
        }
    }

    fn new(values: impl Iterator<Item = (String, Secret)>) -> Self {
        let mut hidden = Vec::new();
        for (shown, value) in values {
            let whole = value.expose().trim();
            // A scheme's credentials (RFC 9110 section 11.4) are told without the scheme.
            let credentials = whole.split_once(' ').map(|(_, rest)| rest.trim()).filter(|rest| !rest.contains(' '));
            let lines = whole.lines().map(str::trim).filter(|line| line.len() < whole.len());
            let parts = [whole].into_iter().chain(credentials).chain(lines.take(limits::MAX_VEILED_LINES));
            let long = parts.filter(|part| part.len() >= limits::MIN_VEILED);
            hidden.extend(long.flat_map(spellings).map(|spelling| (Secret::new(spelling), shown.clone())));
        }
        hidden.sort_by_key(|(value, _)| Reverse(value.expose().len()));
        Self(hidden)
    }

    /// `text` without the values. It may begin in the midst of one: the beginning of what a server said is cut off.
    pub(super) fn hide(&self, text: &str) -> String {
        if self.0.is_empty() {
            return text.to_string();
        }
        let mut out = String::new();
        let mut rest = text;
        if let Some((length, shown)) = self.cut_at(text) {
            out.push_str(shown);
            rest = text.get(length..).unwrap_or_default();
        }
        while let Some(c) = rest.chars().next() {
            let found = self.0.iter().find_map(|(value, shown)| Some((rest.strip_prefix(value.expose())?, shown)));
            match found {
                Some((after, shown)) => {
                    out.push_str(shown);
                    rest = after;
                }
                None => {
                    out.push(c);
                    rest = rest.get(c.len_utf8()..).unwrap_or_default();
                }
            }
        }
        out
    }

    /// How much of the front of `text` is the end of a value.
    fn cut_at(&self, text: &str) -> Option<(usize, &str)> {
        let ends = self.0.iter().filter_map(|(value, shown)| {
            let value = value.expose();
            let last = value.len().saturating_sub(limits::MIN_VEILED);
            let from = value.len().saturating_sub(text.len()).max(1);
            let end = (from..=last).filter_map(|at| value.get(at..)).find(|end| text.starts_with(end))?;
            Some((end.len(), shown.as_str()))
        });
        ends.max_by_key(|(length, _)| *length)
    }
}

/// What a URL's query says: there are servers that take their key there. Also as it is when decoded.
fn of_query(url: &str) -> impl Iterator<Item = (String, Secret)> {
    let query = url.split_once('?').map_or("", |(_, rest)| rest.split('#').next().unwrap_or_default());
    query.split('&').filter_map(|pair| pair.split_once('=')).flat_map(|(name, value)| {
        let decoded = percent_decode_str(value).decode_utf8().map(|text| text.into_owned()).unwrap_or_default();
        let all = [value.to_string(), value.replace('+', " "), decoded];
        all.map(|value| (format!("[query {name}]"), Secret::new(value)))
    })
}

/// A value as programs write it: as it is, in JSON, in a URL, and in base64 as a whole.
fn spellings(value: &str) -> Vec<String> {
    let in_json = quoted(value);
    let in_json = in_json.get(1..in_json.len() - 1).expect("it stands between two quotes").to_string();
    let in_url = utf8_percent_encode(value, NOT_IN_URLS).to_string();
    let in_form = in_url.replace("%20", "+");
    let mut all = alloc::vec![value.to_string(), in_json, in_form, in_url];
    // Without the padding, which is left out as often as not.
    all.extend([STANDARD_NO_PAD.encode(value), URL_SAFE_NO_PAD.encode(value)]);
    all.sort();
    all.dedup();
    all
}

/// All but what never needs an escape (RFC 3986 section 2.3).
const NOT_IN_URLS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Life;

    fn veil(values: &[(&str, &str)]) -> Veil {
        Veil::of_environment(values.iter().map(|(name, value)| (name.to_string(), Secret::new(*value))))
    }

    #[test]
    fn values_are_replaced_by_their_names_the_longest_first() {
        let veil = veil(&[("A", "SECRET"), ("B", "SECRET-1"), ("C", "Bearer abcdefgh\n"), ("D", "line one\nline two")]);
        for (said, shown) in [
            ("bad key SECRET-1!", "bad key [env B]!"),
            ("SECRETSECRET-1", "[env A][env B]"),
            ("Bearer abcdefgh / abcdefgh", "[env C] / [env C]"),
            ("line two", "[env D]"),
            ("ECRET-1 was cut", "[env B] was cut"),
            ("CRET was cut further than matters", "CRET was cut further than matters"),
            ("ünïcode SECRET ünïcode", "ünïcode [env A] ünïcode"),
            ("nothing", "nothing"),
            ("", ""),
        ] {
            assert_eq!(veil.hide(said), shown);
        }
    }

    #[test]
    fn values_are_known_in_the_spellings_that_programs_use() {
        let veil = veil(&[("A", "pa\"ss/w\\rd 1?"), ("B", "line one\nline two")]);
        for (said, shown) in [
            (r#"{"key":"pa\"ss/w\\rd 1?"}"#, r#"{"key":"[env A]"}"#),
            ("GET /?key=pa%22ss%2Fw%5Crd%201%3F&x=1", "GET /?key=[env A]&x=1"),
            ("GET /?key=pa%22ss%2Fw%5Crd+1%3F", "GET /?key=[env A]"),
            ("Basic cGEic3Mvd1xyZCAxPw== failed", "Basic [env A]== failed"),
            ("cGEic3Mvd1xyZCAxPw.x", "[env A].x"),
            (r#""line one\nline two""#, r#""[env B]""#),
        ] {
            assert_eq!(veil.hide(said), shown);
        }
    }

    #[test]
    fn query_of_a_servers_url_is_not_told() {
        let url = "https://mcp.example/mcp?mode=fast&key=s3cret%2Fkey+1#top".to_string();
        let transport = Transport::Http { url, headers: [].into() };
        let veil = Veil::of_entry(&ServerConfig { transport, start_timeout_secs: 60, life: Life::default() });
        for said in ["s3cret%2Fkey+1", "s3cret/key+1", "s3cret%2Fkey 1"] {
            assert_eq!(veil.hide(&format!("401 for {said}!")), "401 for [query key]!");
        }
        assert_eq!(veil.hide("https://mcp.example/mcp?mode=fast"), "https://mcp.example/mcp?mode=fast");
    }

    #[test]
    fn short_values_hide_nothing_and_debug_shows_nothing() {
        let short = veil(&[("PORT", "12345"), ("EMPTY", ""), ("BLANK", "         ")]);
        assert_eq!(short.hide("port 12345 is taken"), "port 12345 is taken");
        assert!(!format!("{:?}", veil(&[("A", "hunter22")])).contains("hunter"));
    }

    proptest! {
        #[test]
        fn no_value_is_left_and_nothing_else_is_lost(
            value in "[a-z0-9]{6,12}", other in "[a-z]{6,8}", before in "\\PC{0,20}", after in "\\PC{0,20}",
        ) {
            let veil = veil(&[("K", &value), ("L", &other)]);
            let shown = veil.hide(&format!("{before}{value}{after}"));
            prop_assert!(!shown.contains(&value) && !shown.contains(&other), "{}", shown);
            let plain = format!("{}{}", before.to_uppercase(), after.to_uppercase());
            let is_plain = !plain.contains(&value) && !plain.contains(&other) && !plain.contains(|c: char| c.is_ascii_digit());
            prop_assert!(!is_plain || veil.hide(&plain) == plain);
        }
    }
}

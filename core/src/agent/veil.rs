//! What people are not told: the values that a server was given, should it say them where it says why it fails.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Reverse;

use crate::config::{Reference, ServerConfig, Transport};
use crate::limits;
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
            Transport::Http { headers, .. } => {
                Self::new(headers.iter().map(|(name, value)| (format!("[header {name}]"), value.clone())))
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
            hidden.extend(long.map(|part| (Secret::new(part), shown.clone())));
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

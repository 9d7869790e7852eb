//! URI templates (RFC 6570), as far as routing needs them: whether a URI may be an expansion of a template.
//!
//! What an expansion's values were is not asked, so that this errs on the side of yes: a simple expression (`{id}`) takes
//! anything but a slash, as the protocol's SDKs have it, and not only what an expansion would leave unencoded.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::limits;

/// A template.
#[derive(Debug, Clone)]
pub(super) struct Pattern(Vec<Piece>);

#[derive(Debug, Clone)]
enum Piece {
    Literal(String),
    Expression {
        /// What an expansion begins with (the operators `#`, `.`, `/`, `;`, `?`, `&`); such a one may be left out.
        first: Option<u8>,
        /// What does not occur in one.
        never: &'static [u8],
    },
}

impl Pattern {
    /// Reads a template; `None` when it is none, or has more than [`limits::MAX_EXPRESSIONS`] expressions.
    pub(super) fn parse(template: &str) -> Option<Self> {
        let (mut pieces, mut rest, mut expressions) = (Vec::new(), template, 0);
        while let Some((literal, after)) = rest.split_once('{') {
            let (expression, after) = after.split_once('}')?;
            push_literal(&mut pieces, literal)?;
            pieces.push(expression_of(expression)?);
            rest = after;
            expressions += 1;
        }
        push_literal(&mut pieces, rest)?;
        (expressions <= limits::MAX_EXPRESSIONS).then_some(Self(pieces))
    }

    /// Whether `uri` may be an expansion. One longer than [`limits::MAX_LISTED_URI`] is not.
    pub(super) fn matches(&self, uri: &str) -> bool {
        let uri = uri.as_bytes();
        if uri.len() > limits::MAX_LISTED_URI {
            return false;
        }
        // Where what was matched so far may end: linear for each piece, whatever the template is.
        let mut ends = alloc::vec![false; uri.len() + 1];
        if let Some(start) = ends.first_mut() {
            *start = true;
        }
        for piece in &self.0 {
            ends = piece.ends(uri, &ends);
            if !ends.contains(&true) {
                return false;
            }
        }
        ends.last() == Some(&true)
    }
}

impl Piece {
    /// Where this piece may end when it begins at one of `starts`.
    fn ends(&self, uri: &[u8], starts: &[bool]) -> Vec<bool> {
        match self {
            Self::Literal(text) => {
                let mut ends = alloc::vec![false; starts.len()];
                for (at, _) in starts.iter().enumerate().filter(|(_, start)| **start) {
                    if uri.get(at..).is_some_and(|rest| rest.starts_with(text.as_bytes()))
                        && let Some(end) = ends.get_mut(at + text.len())
                    {
                        *end = true;
                    }
                }
                ends
            }
            Self::Expression { first, never } => {
                let mut ends = match first {
                    Some(_) => starts.to_vec(),
                    None => alloc::vec![false; starts.len()],
                };
                let mut is_inside = false;
                for ((byte, start), end) in uri.iter().zip(starts).zip(ends.iter_mut().skip(1)) {
                    let goes_on = !never.contains(byte);
                    is_inside = match first {
                        Some(first) => (is_inside && goes_on) || (*start && byte == first),
                        None => (is_inside || *start) && goes_on,
                    };
                    *end |= is_inside;
                }
                ends
            }
        }
    }
}

fn push_literal(pieces: &mut Vec<Piece>, text: &str) -> Option<()> {
    if text.contains('}') {
        return None;
    }
    if !text.is_empty() {
        pieces.push(Piece::Literal(text.to_string()));
    }
    Some(())
}

/// What stands between braces (RFC 6570 section 2.2).
fn expression_of(text: &str) -> Option<Piece> {
    let (first, never, names): (_, &'static [u8], _) = match text.as_bytes().first()? {
        b'+' => (None, b"", text.get(1..)?),
        b'#' => (Some(b'#'), b"", text.get(1..)?),
        b'/' => (Some(b'/'), b"?#", text.get(1..)?),
        b'.' => (Some(b'.'), b"/", text.get(1..)?),
        b';' => (Some(b';'), b"/", text.get(1..)?),
        b'?' => (Some(b'?'), b"#", text.get(1..)?),
        b'&' => (Some(b'&'), b"#", text.get(1..)?),
        _ => (None, b"/", text),
    };
    names.split(',').all(is_variable).then_some(Piece::Expression { first, never })
}

/// A variable with its modifier (RFC 6570 sections 2.3 and 2.4).
fn is_variable(text: &str) -> bool {
    let name = match text.split_once(':') {
        Some((name, prefix)) if !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) => return false,
        None => text.strip_suffix('*').unwrap_or(text),
    };
    // A hyphen is no part of a name there, and of many in the wild.
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'%' | b'-');
    !name.is_empty() && name.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn expansions_are_told_from_other_uris() {
        for (template, uri, expected) in [
            ("file:///{path}", "file:///a.txt", true),
            ("file:///{path}", "file:///a/b.txt", false),
            ("file:///{path}", "file:///", false),
            ("file:///{+path}", "file:///a/b.txt", true),
            ("test://template/{id}/data", "test://template/a%20b/data", true),
            ("test://template/{id}/data", "test://template/1/date", false),
            ("test://template/{id}/data", "test://template//data", false),
            ("test://{a}-{b}", "test://1-2-3", true),
            ("test://{a}-{b}", "test://12", false),
            ("test://x{/more*}", "test://x", true),
            ("test://x{/more*}", "test://x/1/2", true),
            ("test://x{/more*}", "test://xy", false),
            ("test://x{?a,b}", "test://x?a=1&b=2", true),
            ("test://x{?a,b}", "test://x", true),
            ("test://x{?a}{&b}", "test://x?a=1&b=2", true),
            ("test://x{.kind}", "test://x.json", true),
            ("test://x{;a}", "test://x;a=1", true),
            ("test://x{#part:3}", "test://x#a/b", true),
            ("test://plain", "test://plain", true),
            ("test://plain", "test://plainer", false),
        ] {
            let pattern = Pattern::parse(template).expect(template);
            assert_eq!(pattern.matches(uri), expected, "{template} {uri}");
        }
    }

    #[test]
    fn other_texts_are_no_templates() {
        for text in ["{", "}", "a{b", "a}b", "{}", "{a{b}}", "{=a}", "{a b}", "{a:}", "{a:x}", "{a,}", "{+}"] {
            assert!(Pattern::parse(text).is_none(), "{text}");
        }
        let many = |count| "{a}".repeat(count);
        assert!(Pattern::parse(&many(limits::MAX_EXPRESSIONS)).is_some());
        assert!(Pattern::parse(&many(limits::MAX_EXPRESSIONS + 1)).is_none());
    }

    #[test]
    fn long_uris_match_nothing() {
        let pattern = Pattern::parse("x:{+a}").unwrap();
        let uri = |length: usize| format!("x:{}", "a".repeat(length - 2));
        assert!(pattern.matches(&uri(limits::MAX_LISTED_URI)));
        assert!(!pattern.matches(&uri(limits::MAX_LISTED_URI + 1)));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(template in "[a{}+,:*é/?]{0,20}", uri in any::<String>()) {
            if let Some(pattern) = Pattern::parse(&template) {
                pattern.matches(&uri);
            }
        }

        #[test]
        fn expansion_of_a_template_matches_it(
            parts in prop::collection::vec(("[a-z:/.]{0,4}", "[a-z0-9%~.-]{1,6}"), 0..5),
        ) {
            let template: String = parts.iter().map(|(literal, _)| format!("{literal}{{v}}")).collect();
            let uri: String = parts.iter().map(|(literal, value)| format!("{literal}{value}")).collect();
            prop_assert!(Pattern::parse(&template).unwrap().matches(&uri));
        }
    }
}

//! What the headers of an upgrade say about the tunnel.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Dialect;

/// The header by which both sides of an upgrade say that they speak V2. A subprotocol would not do: the predecessor's
/// relay echoes any that is offered.
pub const HEADER: HeaderName = HeaderName::from_static("mcp-tunnel");

/// The value of [`HEADER`] that means V2.
pub const V2: HeaderValue = HeaderValue::from_static("2");

/// What a relay answers, with 403, to a good token that is not an agent's. Agents know it by this.
pub const ONLY_AGENTS: &str = "this token does not open tunnels: only an agent's token does";

impl Dialect {
    /// What is spoken, by the headers of the peer: those of the request on a relay, those of the 101 on an agent.
    #[must_use]
    pub fn of_upgrade(headers: &HeaderMap) -> Self {
        if headers.get(HEADER) == Some(&V2) { Self::V2 } else { Self::V1 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_header_with_its_value_means_v2() {
        let mut headers = HeaderMap::new();
        assert_eq!(Dialect::of_upgrade(&headers), Dialect::V1);
        headers.insert(HEADER, HeaderValue::from_static("3"));
        assert_eq!(Dialect::of_upgrade(&headers), Dialect::V1);
        headers.insert(HEADER, V2);
        assert_eq!(Dialect::of_upgrade(&headers), Dialect::V2);
    }

    proptest! {
        #[test]
        fn anything_but_the_one_value_means_v1(value in "2|[ -~]{0,6}|2[ -~]{1,3}") {
            let headers = HeaderMap::from_iter([(HEADER, HeaderValue::from_str(&value).expect("visible characters"))]);
            let expected = if value == "2" { Dialect::V2 } else { Dialect::V1 };
            prop_assert_eq!(Dialect::of_upgrade(&headers), expected);
        }
    }
}

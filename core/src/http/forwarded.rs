//! Whose request it is when proxies stand before the relay.

use core::net::IpAddr;

use http::HeaderMap;

use crate::config::Network;
use crate::limits;

/// The client's address: `peer`, or what the proxies in `trusted` say of it in `X-Forwarded-For`.
///
/// Each proxy appends the address that it was connected from, so the field is read from its end, for as long as the
/// address that wrote an entry is trusted. What anybody else wrote there counts for nothing.
#[must_use]
pub fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let fields = headers.get_all("x-forwarded-for").iter().rev();
    let hops = fields.filter_map(|field| field.to_str().ok()).flat_map(|field| field.rsplit(','));
    let mut client = peer;
    for hop in hops.take(limits::MAX_HOPS) {
        if !trusted.iter().any(|network| network.contains(client)) {
            break;
        }
        let Some(address) = address(hop.trim()) else { break };
        client = address;
    }
    client
}

/// Whether a proxy seems to stand before the relay that it does not know of: the request says that it was forwarded, and
/// `peer` is not in `trusted`. Anybody may say so.
#[must_use]
pub fn is_unheard(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> bool {
    headers.contains_key("x-forwarded-for") && !trusted.iter().any(|network| network.contains(peer))
}

/// An address as proxies write it: plain, in brackets, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let plain = text.parse().ok().or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok());
    plain.or_else(|| text.parse::<core::net::SocketAddr>().ok().map(|with_port| with_port.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn of(peer: &str, fields: &[&str], trusted: &[&str]) -> std::string::String {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append("x-forwarded-for", HeaderValue::from_str(field).expect("a test's field is valid"));
        }
        let trusted: Vec<Network> = trusted.iter().map(|text| text.parse().expect("a network")).collect();
        std::format!("{}", client(peer.parse().expect("an address"), &headers, &trusted))
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        for (peer, fields, trusted, expected) in [
            ("10.0.0.1", &["203.0.113.7"][..], &["10.0.0.1"][..], "203.0.113.7"),
            ("10.0.0.1", &["203.0.113.7"], &[], "10.0.0.1"),
            ("198.51.100.9", &["203.0.113.7"], &["10.0.0.0/8"], "198.51.100.9"),
            ("10.0.0.1", &["6.6.6.6, 203.0.113.7"], &["10.0.0.0/8"], "203.0.113.7"),
            ("10.0.0.1", &["6.6.6.6, 203.0.113.7, 10.9.9.9"], &["10.0.0.0/8"], "203.0.113.7"),
            ("10.0.0.1", &["6.6.6.6", "203.0.113.7"], &["10.0.0.0/8"], "203.0.113.7"),
            ("::1", &["[2001:db8::1]:4711"], &["::1"], "2001:db8::1"),
            ("::1", &["203.0.113.7:80"], &["::1"], "203.0.113.7"),
            ("10.0.0.1", &["unknown"], &["10.0.0.1"], "10.0.0.1"),
            ("10.0.0.1", &[], &["10.0.0.1"], "10.0.0.1"),
        ] {
            assert_eq!(of(peer, fields, trusted), expected, "{peer} {fields:?} {trusted:?}");
        }
    }

    #[test]
    fn field_of_an_untrusted_peer_is_unheard() {
        let with = HeaderMap::from_iter([(
            http::HeaderName::from_static("x-forwarded-for"),
            HeaderValue::from_static("203.0.113.7"),
        )]);
        let trusted: Vec<Network> = std::vec!["10.0.0.0/8".parse().expect("a network")];
        for (peer, headers, unheard) in
            [("198.51.100.9", &with, true), ("10.1.2.3", &with, false), ("198.51.100.9", &HeaderMap::new(), false)]
        {
            assert_eq!(is_unheard(peer.parse().expect("an address"), headers, &trusted), unheard, "{peer}");
        }
    }

    proptest! {
        /// The model: from the peer backwards along the chain, the first address that is not a proxy's.
        #[test]
        fn client_is_the_last_one_that_no_proxy_of_ours_is(
            chain in prop::collection::vec((any::<bool>(), 1..250_u8), 1..8), port: bool, cut: prop::sample::Index
        ) {
            let address = |(ours, last): &(bool, u8)| std::format!("{}.0.0.{last}", if *ours { 10 } else { 203 });
            let hops: Vec<_> = chain.iter().map(address).collect();
            let (peer, before) = hops.split_last().expect("one at least");
            let written = |hop: &std::string::String| if port { std::format!("{hop}:4711") } else { hop.clone() };
            // However the list is divided into fields.
            let (first, second) = before.split_at(cut.index(before.len() + 1));
            let fields = [first, second].map(|part| part.iter().map(written).collect::<Vec<_>>().join(", "));
            let fields: Vec<&str> = fields.iter().map(|field| &**field).filter(|field| !field.is_empty()).collect();
            let stranger = chain.iter().rposition(|(ours, _)| !ours).unwrap_or(0);
            prop_assert_eq!(of(peer, &fields, &["10.0.0.0/8"]), hops[stranger].clone());
        }

        #[test]
        fn no_field_of_a_stranger_changes_anything(field in "[ -~]{0,80}") {
            prop_assert_eq!(of("198.51.100.9", &[&field], &["10.0.0.0/8"]), "198.51.100.9");
        }
    }
}

//! Which addresses a fetch may connect to. Pure: the adapter asks about the very address that it is about to connect
//! to, after the name was resolved, so that no name can stand for an address that was not looked at.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far a [`Fetch`](super::fetch::Fetch) may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Any address: the operator or the person of this machine named the URL.
    Anywhere,
    /// Public addresses alone: a stranger named the URL, who must not learn or touch what only this machine reaches.
    Public,
    /// This machine alone: a stranger's URL again, on a machine whose operator tries things out.
    Loopback,
}

impl Reach {
    /// Whether a connection to `address` may be made.
    #[must_use]
    pub fn allows(self, address: IpAddr) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Public => is_public(address),
            // Not an IPv4-mapped one: systems differ in what they make of it.
            Self::Loopback => address.is_loopback(),
        }
    }
}

/// Whether `address` is one that the whole internet reaches at one place. Everything else is refused: private, shared,
/// link-local, documentation, multicast and reserved ones, and those that carry another address inside (mapped, 6to4,
/// NAT64, Teredo), whose way depends on the machine. Of IPv6 only what is handed out at all passes (2000::/3).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !V4_SPECIAL.iter().any(|(network, prefix)| shares_v4(address, *network, *prefix)),
        IpAddr::V6(address) => {
            shares_v6(address, Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3)
                && !V6_SPECIAL.iter().any(|(network, prefix)| shares_v6(address, *network, *prefix))
        }
    }
}

fn shares_v4(one: Ipv4Addr, other: Ipv4Addr, prefix: u32) -> bool {
    let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
    (one.to_bits() ^ other.to_bits()) & mask == 0
}

fn shares_v6(one: Ipv6Addr, other: Ipv6Addr, prefix: u32) -> bool {
    let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
    (one.to_bits() ^ other.to_bits()) & mask == 0
}

/// IANA's special-purpose registry for IPv4 (RFC 6890), and what is not unicast.
const V4_SPECIAL: &[(Ipv4Addr, u32)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),        // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),       // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),    // shared behind carriers' NAT
    (Ipv4Addr::new(127, 0, 0, 0), 8),      // loopback
    (Ipv4Addr::new(168, 63, 129, 16), 32), // a cloud's own services, at each of its machines
    (Ipv4Addr::new(169, 254, 0, 0), 16),   // link-local, clouds' metadata
    (Ipv4Addr::new(172, 16, 0, 0), 12),    // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),     // protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24),     // documentation
    (Ipv4Addr::new(192, 31, 196, 0), 24),  // AS112
    (Ipv4Addr::new(192, 52, 193, 0), 24),  // AMT
    (Ipv4Addr::new(192, 88, 99, 0), 24),   // 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16),   // private
    (Ipv4Addr::new(192, 175, 48, 0), 24),  // AS112
    (Ipv4Addr::new(198, 18, 0, 0), 15),    // benchmarks
    (Ipv4Addr::new(198, 51, 100, 0), 24),  // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),   // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),      // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),      // reserved, broadcast
];

/// What is special within 2000::/3.
const V6_SPECIAL: &[(Ipv6Addr, u32)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments: Teredo, ORCHID, benchmarks
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48), // AS112
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn public(address: &str) -> bool {
        Reach::Public.allows(address.parse().expect("an address"))
    }

    #[test]
    fn public_addresses_pass() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450:4001::1",
            "2001:200::1",
            "2001:db9::",
            "2003::1",
            "3ffe::1",
            "3fff:1000::",
        ] {
            assert!(public(address), "{address}");
        }
    }

    #[test]
    fn every_other_kind_of_address_is_refused() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:8.8.8.8",
            "::8.8.8.8",
            "64:ff9b::808:808",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:10::1",
            "2001:20::1",
            "2001:1ff:ffff::1",
            "2001:db8::1",
            "2002:808:808::1",
            "2002:7f00:1::",
            "3fff::1",
            "3fff:fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!public(address), "{address}");
        }
    }

    #[test]
    fn loopback_is_this_machine_in_its_own_spelling_alone() {
        for (address, allowed) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", false),
            ("0.0.0.0", false),
            ("::", false),
            ("10.0.0.1", false),
            ("8.8.8.8", false),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(Reach::Loopback.allows(address), allowed, "{address}");
            assert!(Reach::Anywhere.allows(address));
        }
    }

    proptest! {
        #[test]
        fn what_passes_carries_no_other_address_inside(bits in any::<u128>(), v4 in any::<u32>()) {
            // Every way to write an IPv4 address into an IPv6 one that a gateway might take out again.
            let inside = u128::from(v4);
            for carrier in [inside, 0xffff << 32 | inside, 0x0064_ff9b << 96 | inside, 0x2002 << 112 | inside << 80] {
                prop_assert!(!Reach::Public.allows(IpAddr::V6(carrier.into())), "{:?}", Ipv6Addr::from(carrier));
            }
            let address = Ipv6Addr::from(bits);
            if Reach::Public.allows(IpAddr::V6(address)) {
                prop_assert!(!address.is_loopback() && !address.is_multicast() && !address.is_unique_local());
                prop_assert!(!address.is_unicast_link_local() && address.to_ipv4().is_none());
            }
        }

        #[test]
        fn what_passes_of_ipv4_is_of_no_special_kind(bits in any::<u32>()) {
            let address = Ipv4Addr::from(bits);
            let special = address.is_private() || address.is_loopback() || address.is_link_local()
                || address.is_multicast() || address.is_documentation() || address.is_broadcast()
                || address.is_unspecified();
            prop_assert!(!(special && Reach::Public.allows(IpAddr::V4(address))), "{address}");
        }
    }
}

//! An address or a range of addresses, for `trustedProxies`.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

/// The addresses that share a prefix: `10.0.0.0/8`, or one address alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// In IPv6 form, IPv4 mapped (RFC 4291 section 2.5.5.2), so that a dual-stack socket's peers match.
    bits: u128,
    prefix: u32,
}

impl Network {
    /// Whether it is wider than any network that somebody can have for themselves (`10.0.0.0/8`, `fc00::/7`).
    pub(crate) fn is_wide(&self) -> bool {
        let is_v4 = self.prefix >= 96 && mask(self.bits, 96) == bits(IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED));
        self.prefix < if is_v4 { 96 + 8 } else { 7 }
    }

    /// Whether `address` is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        mask(bits(address), self.prefix) == self.bits
    }
}

/// The text is neither an IP address nor a range of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidNetwork;

impl fmt::Display for InvalidNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be an IP address or a range, as in \"10.0.0.0/8\"")
    }
}

impl core::error::Error for InvalidNetwork {}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().map_err(|_| InvalidNetwork)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => most,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().map_err(|_| InvalidNetwork)?,
            Some(_) => return Err(InvalidNetwork),
        };
        if length > most {
            return Err(InvalidNetwork);
        }
        let prefix = 128 - most + length;
        Ok(Self { bits: mask(bits(address), prefix), prefix })
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn mask(bits: u128, prefix: u32) -> u128 {
    bits & u128::MAX.checked_shl(128 - prefix).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn holds(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn range_holds_its_addresses_in_both_spellings() {
        assert!(holds("10.0.0.0/8", "10.255.0.1"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(!holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("192.168.1.7", "192.168.1.7"));
        assert!(!holds("192.168.1.7", "192.168.1.8"));
        assert!(holds("fd00::/8", "fd12::1"));
        assert!(holds("0.0.0.0/0", "1.2.3.4"));
        assert!(!holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("::/0", "1.2.3.4"));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "proxy", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "::/129", "10.0.0.0/8/8"] {
            assert_eq!(text.parse::<Network>(), Err(InvalidNetwork), "{text}");
        }
    }

    proptest! {
        #[test]
        fn ipv4_range_holds_what_shares_its_first_bits(network: u32, prefix in 0..=32_u32, address: u32) {
            let range: Network = std::format!("{}/{prefix}", Ipv4Addr::from(network)).parse().expect("a range");
            let shares = |address: u32| u64::from(network ^ address) >> (32 - prefix) == 0;
            for address in [address, network ^ (address & 0xff), network ^ 1_u32.rotate_right(prefix.max(1))] {
                let v4 = Ipv4Addr::from(address);
                prop_assert_eq!(range.contains(v4.into()), shares(address), "{}", v4);
                prop_assert_eq!(range.contains(v4.to_ipv6_mapped().into()), shares(address), "{}", v4);
            }
            prop_assert!(range.contains(Ipv4Addr::from(network).into()));
            prop_assert!(!range.contains(Ipv6Addr::from(u128::from(address) | 1 << 127).into()), "of the other family");
        }

        #[test]
        fn ipv6_range_holds_what_shares_its_first_bits(network: u128, prefix in 1..=128_u32, address: u128) {
            let range: Network = std::format!("{}/{prefix}", Ipv6Addr::from(network)).parse().expect("a range");
            for address in [address, network ^ (address >> (prefix - 1))] {
                let shares = (network ^ address) >> (128 - prefix) == 0;
                prop_assert_eq!(range.contains(Ipv6Addr::from(address).into()), shares, "{}", Ipv6Addr::from(address));
            }
            prop_assert!(range.contains(Ipv6Addr::from(network).into()));
        }
    }
}

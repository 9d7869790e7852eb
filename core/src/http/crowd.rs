//! How many connections each address has, so that one alone cannot take all places.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::config::Network;

/// Open connections by address. Its size is bounded by theirs.
#[derive(Debug)]
pub struct Crowd {
    most: usize,
    /// Proxies: what comes from them is many people's.
    trusted: Vec<Network>,
    open: BTreeMap<IpAddr, usize>,
}

impl Crowd {
    /// Nobody yet. Each address may have `most` connections, but for those in `trusted`.
    #[must_use]
    pub const fn new(most: usize, trusted: Vec<Network>) -> Self {
        Self { most, trusted, open: BTreeMap::new() }
    }

    /// A connection from `peer` came. `true`: it may stay, and [`Crowd::leave`] is to be called at its end.
    pub fn enter(&mut self, peer: IpAddr) -> bool {
        if self.is_trusted(peer) {
            return true;
        }
        let open = self.open.entry(subscriber(peer)).or_default();
        let stays = *open < self.most;
        *open += usize::from(stays);
        stays
    }

    /// A connection from `peer` that stayed has ended.
    pub fn leave(&mut self, peer: IpAddr) {
        if self.is_trusted(peer) {
            return;
        }
        let key = subscriber(peer);
        let open = self.open.get_mut(&key).expect("who leaves has entered");
        *open -= 1;
        if *open == 0 {
            self.open.remove(&key);
        }
    }

    fn is_trusted(&self, peer: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(peer))
    }
}

/// Whose address it is: an IPv6 subscriber has a /64 at least, so one address of it counts as all of them.
#[must_use]
pub fn subscriber(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn address_has_its_number_of_connections_and_not_one_more() {
        let mut crowd = Crowd::new(2, Vec::new());
        let (ann, bob) = (address("192.0.2.1"), address("192.0.2.2"));
        assert!(crowd.enter(ann) && crowd.enter(address("::ffff:192.0.2.1")));
        assert!(!crowd.enter(ann));
        assert!(crowd.enter(bob), "others are not concerned");
        crowd.leave(ann);
        assert!(crowd.enter(ann) && !crowd.enter(ann));
        for peer in [ann, ann, bob] {
            crowd.leave(peer);
        }
        assert!(crowd.open.is_empty(), "who has left is forgotten");
    }

    #[test]
    fn ipv6_network_is_one_address() {
        let mut crowd = Crowd::new(1, Vec::new());
        assert!(crowd.enter(address("2001:db8:0:1::1")) && !crowd.enter(address("2001:db8:0:1:ffff::2")));
        assert!(crowd.enter(address("2001:db8:0:2::1")));
    }

    #[test]
    fn trusted_proxy_is_not_counted() {
        let mut crowd = Crowd::new(1, ["10.0.0.0/8".parse().expect("a network")].into());
        assert!((0..10).all(|_| crowd.enter(address("10.1.2.3"))));
        crowd.leave(address("10.1.2.3"));
        assert!(crowd.open.is_empty());
    }

    /// Few addresses, some of them two spellings of one, or two of one subscriber.
    const PEERS: [(&str, u8); 6] = [
        ("192.0.2.1", 0),
        ("::ffff:192.0.2.1", 0),
        ("192.0.2.2", 1),
        ("2001:db8::1", 2),
        ("2001:db8::ffff:2", 2),
        ("2001:db8:0:1::1", 3),
    ];

    proptest! {
        #[test]
        fn each_subscriber_has_as_many_as_allowed_whoever_else_comes_and_goes(
            most in 1..4_usize, steps in prop::collection::vec((0..PEERS.len(), any::<bool>()), 0..60)
        ) {
            let (mut crowd, mut open) = (Crowd::new(most, Vec::new()), [0; 4]);
            for (peer, leaves) in steps {
                let (text, whose) = PEERS[peer];
                let open = &mut open[usize::from(whose)];
                if !leaves {
                    prop_assert_eq!(crowd.enter(address(text)), *open < most, "{}", text);
                    *open = most.min(*open + 1);
                } else if *open > 0 {
                    crowd.leave(address(text));
                    *open -= 1;
                }
            }
            prop_assert_eq!(crowd.open.values().sum::<usize>(), open.iter().sum::<usize>());
        }

        #[test]
        fn subscriber_is_an_address_or_the_first_half_of_one(v4: u32, v6: u128, host: u64) {
            let (v4, v6) = (IpAddr::V4(v4.into()), IpAddr::V6((v6 | 1 << 127).into()));
            prop_assert_eq!(subscriber(v4), v4);
            let IpAddr::V6(bits) = v6 else { unreachable!() };
            let neighbour = IpAddr::V6((bits.to_bits() >> 64 << 64 | u128::from(host)).into());
            prop_assert_eq!(subscriber(v6), subscriber(neighbour));
            prop_assert_eq!(subscriber(subscriber(v6)), subscriber(v6));
            let elsewhere = IpAddr::V6((bits.to_bits() ^ 1 << 64).into());
            prop_assert_ne!(subscriber(v6), subscriber(elsewhere));
        }
    }
}

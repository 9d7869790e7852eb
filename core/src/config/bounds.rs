//! `limits`: the bounds of a relay that its operator may move, each within bounds of its own.
//!
//! What both ends of a tunnel must agree on (frames, messages, one tool's size), and what keeps secrets from being
//! guessed (passwords, device codes), is no setting.

use core::time::Duration;

use super::problem::Report;
use super::raw::{Node, Object};
use crate::limits;

/// A relay's bounds; the default is what each constant in [`limits`] gives the reason of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayLimits {
    /// `maxBody`: the largest request body on `/mcp`, in bytes.
    pub max_body: usize,
    /// `bodies`: all of them together that are larger than [`limits::SMALL_BODY`].
    pub bodies: usize,
    /// `headerTimeout`: how long a request's head may take, and a TLS handshake.
    pub header_timeout: Duration,
    /// `bodyTimeout`: how long a request's body may take.
    pub body_timeout: Duration,
    /// `callIdleTimeout`: how long a call may go without any frame.
    pub call_idle: Duration,
    /// `connections`: TCP connections at once.
    pub connections: usize,
    /// `connectionsPerAddress`: those of one address, unless it is a trusted proxy's.
    pub connections_per_address: usize,
    /// `devicesPerUser`: connected at once.
    pub devices_per_user: usize,
    /// `callsPerUser`: under way at once.
    pub calls_per_user: usize,
    /// `streamsPerUser`: clients that listen for changes at once.
    pub streams_per_user: usize,
    /// `toolsPerAgent`: what is listed of one device; the rest is left out and named in `status`.
    pub tools_per_agent: usize,
    /// `catalogPerAgent`: the same in bytes.
    pub catalog_per_agent: usize,
    /// `requestsPerMinute`: registrations, authorizations and refused tokens of one address, each.
    pub requests_per_minute: u32,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            max_body: limits::MAX_BODY,
            bodies: limits::MAX_BODIES,
            header_timeout: limits::HEADER_TIMEOUT,
            body_timeout: limits::BODY_TIMEOUT,
            call_idle: limits::CALL_IDLE,
            connections: limits::MAX_CONNECTIONS,
            connections_per_address: limits::MAX_ADDRESS_CONNECTIONS,
            devices_per_user: limits::MAX_DEVICES,
            calls_per_user: limits::MAX_CALLS,
            streams_per_user: limits::MAX_LISTENERS,
            tools_per_agent: limits::MAX_TOOLS,
            catalog_per_agent: limits::MAX_CATALOG,
            requests_per_minute: limits::REQUESTS_PER_MINUTE,
        }
    }
}

/// Reads `limits`; what is wrong goes to `report`.
pub(super) fn check(node: &Node<'_>, report: &mut Report) -> RelayLimits {
    let mut found = RelayLimits::default();
    let Some(given) = node.object(report) else { return found };
    given.warn_unknown(&KEYS, &[], report);
    let mut read = |key, least, most, what| number(&given, key, least, most, what, report);
    read("maxBody", MIN_BODY, limits::MAX_MESSAGE, "a size in bytes").put(&mut found.max_body);
    read("bodies", MIN_BODY, MOST_BODIES, "a size in bytes").put(&mut found.bodies);
    read("headerTimeout", 1, MAX_HEADER_SECS, SECONDS).put_secs(&mut found.header_timeout);
    read("bodyTimeout", 1, MAX_BODY_SECS, SECONDS).put_secs(&mut found.body_timeout);
    read("callIdleTimeout", 1, MAX_CALL_IDLE_SECS, SECONDS).put_secs(&mut found.call_idle);
    let connections = "a number of connections";
    read("connections", MIN_CONNECTIONS, MOST_CONNECTIONS, connections).put(&mut found.connections);
    read("connectionsPerAddress", 1, MOST_CONNECTIONS, connections).put(&mut found.connections_per_address);
    read("devicesPerUser", 1, MOST_DEVICES, "a number of devices").put(&mut found.devices_per_user);
    read("callsPerUser", 1, MOST_CALLS, "a number of calls").put(&mut found.calls_per_user);
    read("streamsPerUser", 1, MOST_STREAMS, "a number of streams").put(&mut found.streams_per_user);
    read("toolsPerAgent", 1, limits::MAX_TOOLS, "a number of tools").put(&mut found.tools_per_agent);
    read("catalogPerAgent", MIN_CATALOG, limits::MAX_CATALOG, "a size in bytes").put(&mut found.catalog_per_agent);
    if let Some(rate) = read("requestsPerMinute", 1, MOST_REQUESTS, "a number of requests").0 {
        found.requests_per_minute = u32::try_from(rate).unwrap_or(u32::MAX);
    }
    found
}

/// A number that was given and fits.
struct Number(Option<u64>);

impl Number {
    fn put(self, into: &mut usize) {
        if let Some(number) = self.0.and_then(|number| usize::try_from(number).ok()) {
            *into = number;
        }
    }

    fn put_secs(self, into: &mut Duration) {
        *into = self.0.map_or(*into, Duration::from_secs);
    }
}

fn number(given: &Object<'_>, key: &str, least: usize, most: usize, what: &str, report: &mut Report) -> Number {
    let wide = |bound: usize| u64::try_from(bound).unwrap_or(u64::MAX);
    Number(given.get(key).and_then(|node| node.integer(wide(least)..=wide(most), what, report)))
}

/// All of them.
const KEYS: [&str; 13] = [
    "maxBody",
    "bodies",
    "headerTimeout",
    "bodyTimeout",
    "callIdleTimeout",
    "connections",
    "connectionsPerAddress",
    "devicesPerUser",
    "callsPerUser",
    "streamsPerUser",
    "toolsPerAgent",
    "catalogPerAgent",
    "requestsPerMinute",
];
const SECONDS: &str = "a time in seconds";
/// Below this not even an `initialize` passes.
const MIN_BODY: usize = 1024;
/// What a large server has to spare, and a 32-bit one can address.
const MOST_BODIES: usize = 2 * 1024 * 1024 * 1024;
/// A head is a few kilobytes: no link is so slow.
const MAX_HEADER_SECS: usize = 120;
/// The largest body over a modem.
const MAX_BODY_SECS: usize = 3600;
/// A week: a call that is silent for longer will not answer.
const MAX_CALL_IDLE_SECS: usize = 7 * 24 * 3600;
/// One client and one agent with what they open side by side.
const MIN_CONNECTIONS: usize = 16;
/// Two gigabytes of idle connections.
const MOST_CONNECTIONS: usize = 100_000;
/// Each device's tools are gone through for a list.
const MOST_DEVICES: usize = 1_024;
/// Each call may hold a stream's credit.
const MOST_CALLS: usize = 16_384;
/// Each stream is told of each change.
const MOST_STREAMS: usize = 4_096;
/// A small server's tools.
const MIN_CATALOG: usize = 64 * 1024;
/// A thousand a second: more is no limit.
const MOST_REQUESTS: usize = 60_000;

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;

    use proptest::prelude::*;

    use super::super::{Config, Problem, parse};
    use super::*;

    fn limits_of(members: &str) -> Result<RelayLimits, alloc::vec::Vec<Problem>> {
        let auth = r#""auth":{"issuer":"https://id.example.com"}"#;
        let parsed = parse(&format!(r#"{{"mode":"relay",{auth},"limits":{{{members}}}}}"#))?;
        assert!(parsed.warnings.is_empty(), "{:?}", parsed.warnings);
        match parsed.config {
            Config::Relay(config) => Ok(config.limits),
            Config::Agent(_) => panic!("it is a relay's"),
        }
    }

    #[test]
    fn every_limit_is_read_within_its_bounds_and_refused_outside_of_them() {
        for (key, least, most) in [
            ("maxBody", 1_024, 67_108_864),
            ("bodies", 1_024, 2_147_483_648_i64),
            ("headerTimeout", 1, 120),
            ("bodyTimeout", 1, 3_600),
            ("callIdleTimeout", 1, 604_800),
            ("connections", 16, 100_000),
            ("connectionsPerAddress", 1, 100_000),
            ("devicesPerUser", 1, 1_024),
            ("callsPerUser", 1, 16_384),
            ("streamsPerUser", 1, 4_096),
            ("toolsPerAgent", 1, 8_192),
            ("catalogPerAgent", 65_536, 16_777_216),
            ("requestsPerMinute", 1, 60_000),
        ] {
            assert!(KEYS.contains(&key));
            for value in [least, most] {
                let found = limits_of(&format!(r#""{key}":{value}"#)).expect(key);
                let shown = format!("{found:?}");
                let named = [format!(": {value},"), format!(": {value} }}"), format!(": {value}s,")];
                assert!(named.iter().any(|text| shown.contains(text)), "{key} {value}: {shown}");
            }
            for value in [least - 1, most + 1] {
                let problems = limits_of(&format!(r#""{key}":{value}"#)).expect_err(key);
                assert!(problems[0].to_string().starts_with(&format!("limits.{key} must be ")), "{problems:?}");
            }
        }
    }

    #[test]
    fn what_is_not_given_stays_as_it_is() {
        assert_eq!(limits_of("").expect("it is fine"), RelayLimits::default());
        let found = limits_of(r#""devicesPerUser":2"#).expect("it is fine");
        assert_eq!(found, RelayLimits { devices_per_user: 2, ..RelayLimits::default() });
    }

    proptest! {
        #[test]
        fn any_number_is_taken_or_refused_by_its_bounds(value in prop_oneof![-10..200_000_i64, any::<i64>()]) {
            for (key, least, most) in [("devicesPerUser", 1, 1_024), ("connections", 16, 100_000), ("bodyTimeout", 1, 3_600)] {
                let found = limits_of(&format!(r#""{key}":{value}"#)).ok();
                let taken = found.map(|found| match key {
                    "devicesPerUser" => found.devices_per_user as u64,
                    "connections" => found.connections as u64,
                    _ => found.body_timeout.as_secs(),
                });
                let expected = u64::try_from(value).ok().filter(|value| (least..=most).contains(value));
                prop_assert_eq!(taken, expected, "{}", key);
            }
        }
    }
}

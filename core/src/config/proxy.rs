//! Which proxy a connection goes through, as the variables say that most programs share: `HTTPS_PROXY`, `HTTP_PROXY`,
//! `ALL_PROXY` and `NO_PROXY`, each in small letters too, which then win.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;
use url::Url;

use super::Network;
use super::address::is_loopback_host;
use crate::limits::MAX_PROXY_EXCEPTIONS;
use crate::secret::Secret;

/// The proxies of an environment. The default has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    https: Choice,
    http: Choice,
    exceptions: Vec<Exception>,
}

/// How a connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'a> {
    /// To its target.
    Direct,
    /// With `CONNECT` through this proxy.
    Through(&'a Proxy),
    /// Not at all: the variable of this name cannot be used. To go past a proxy that somebody named would be worse.
    Unusable {
        /// The variable.
        variable: &'static str,
    },
}

/// An HTTP proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Whether the proxy itself is spoken to over TLS.
    pub tls: bool,
    /// Its name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The value of `Proxy-Authorization` (RFC 9110 section 11.7.2), where the URL had a user name.
    pub authorization: Option<Secret>,
    /// Which variable named it, for people.
    pub variable: &'static str,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Choice {
    #[default]
    None,
    Proxy(Proxy),
    Unusable(&'static str),
}

/// What `NO_PROXY` leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    Everything,
    Addresses(Network),
    /// A host and all below it, in small letters; on this port alone, if there is one.
    Host(String, Option<u16>),
}

impl Proxies {
    /// Reads the variables with `variable`, which returns what an environment has.
    #[must_use]
    pub fn new(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| {
            let small = variable(&name.to_ascii_lowercase()).filter(|value| !value.trim().is_empty());
            small.or_else(|| variable(name)).filter(|value| !value.trim().is_empty())
        };
        let choose = |name: &'static str| {
            [name, ALL].into_iter().find_map(|name| Some(Choice::read(name, &set(name)?))).unwrap_or_default()
        };
        let exceptions = set("NO_PROXY").unwrap_or_default();
        Self { https: choose("HTTPS_PROXY"), http: choose("HTTP_PROXY"), exceptions: read_exceptions(&exceptions) }
    }

    /// How to connect to `host` (a name, or an address with or without brackets). This machine itself is never behind a
    /// proxy.
    #[must_use]
    pub fn route(&self, tls: bool, host: &str, port: u16) -> Route<'_> {
        let choice = if tls { &self.https } else { &self.http };
        if *choice == Choice::None || is_loopback_host(host) || self.exceptions.iter().any(|own| own.holds(host, port))
        {
            return Route::Direct;
        }
        match choice {
            Choice::None => Route::Direct,
            Choice::Proxy(proxy) => Route::Through(proxy),
            Choice::Unusable(variable) => Route::Unusable { variable },
        }
    }
}

impl Proxy {
    /// The target of a `CONNECT` to that place (RFC 9112 section 3.2.3).
    #[must_use]
    pub fn connect_target(host: &str, port: u16) -> String {
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl Choice {
    fn read(variable: &'static str, text: &str) -> Self {
        read_proxy(variable, text.trim()).map_or(Self::Unusable(variable), Self::Proxy)
    }
}

/// `http://[user[:password]@]host[:port]`, `https://…`, or without a scheme, which means `http`.
fn read_proxy(variable: &'static str, text: &str) -> Option<Proxy> {
    let whole = if text.contains("://") { text.to_string() } else { format!("http://{text}") };
    let url = Url::parse(&whole).ok()?;
    let tls = match url.scheme() {
        "http" => false,
        "https" => true,
        _ => return None,
    };
    let authorization = (!url.username().is_empty() || url.password().is_some()).then(|| {
        let mut pair: Vec<u8> = percent_decode_str(url.username()).collect();
        pair.push(b':');
        pair.extend(percent_decode_str(url.password().unwrap_or_default()));
        Secret::new(format!("Basic {}", BASE64_STANDARD.encode(pair)))
    });
    let host = bare(url.host_str()?).to_string();
    Some(Proxy { tls, host, port: url.port_or_known_default()?, authorization, variable })
}

/// Entries that mean nothing are skipped, as everywhere else.
fn read_exceptions(text: &str) -> Vec<Exception> {
    let entries = text.split([',', ' ', '\t']).map(str::trim).filter(|entry| !entry.is_empty());
    entries.take(MAX_PROXY_EXCEPTIONS).map(Exception::read).collect()
}

impl Exception {
    fn read(entry: &str) -> Self {
        if entry == "*" {
            return Self::Everything;
        }
        if let Ok(network) = bare(entry).parse() {
            return Self::Addresses(network);
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) => match port.parse() {
                Ok(port) => (host, Some(port)),
                Err(_) => (entry, None),
            },
            None => (entry, None),
        };
        let host = host.strip_prefix('*').unwrap_or(host);
        Self::Host(canonical(bare(host.strip_prefix('.').unwrap_or(host))), port)
    }

    fn holds(&self, host: &str, port: u16) -> bool {
        match self {
            Self::Everything => true,
            Self::Addresses(network) => bare(host).parse::<IpAddr>().is_ok_and(|address| network.contains(address)),
            Self::Host(own, on) => {
                let host = canonical(bare(host));
                let below = host.strip_suffix(own.as_str());
                on.is_none_or(|on| on == port) && below.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
        }
    }
}

fn canonical(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

const ALL: &str = "ALL_PROXY";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        let found = |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| value.to_string());
        Proxies::new(found)
    }

    /// `host:port` of the proxy, "direct", or "!VARIABLE".
    fn way(proxies: &Proxies, tls: bool, host: &str, port: u16) -> String {
        match proxies.route(tls, host, port) {
            Route::Direct => "direct".to_string(),
            Route::Through(proxy) => format!("{}:{}", proxy.host, proxy.port),
            Route::Unusable { variable } => format!("!{variable}"),
        }
    }

    #[test]
    fn variable_of_the_scheme_comes_before_the_one_for_all_and_small_letters_first() {
        /// The variables, and the ways to an `https` and to an `http` relay.
        type Row<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);
        let table: &[Row<'_>] = &[
            (&[], "direct", "direct"),
            (&[("HTTPS_PROXY", "http://p:3128")], "p:3128", "direct"),
            (&[("HTTP_PROXY", "p")], "direct", "p:80"),
            (&[("ALL_PROXY", "p:1")], "p:1", "p:1"),
            (&[("ALL_PROXY", "p:1"), ("HTTPS_PROXY", "q:2")], "q:2", "p:1"),
            (&[("HTTPS_PROXY", "big:1"), ("https_proxy", "small:2")], "small:2", "direct"),
            (&[("HTTPS_PROXY", "big:1"), ("https_proxy", " ")], "big:1", "direct"),
            (&[("HTTPS_PROXY", ""), ("ALL_PROXY", "https://[::1]/")], "::1:443", "::1:443"),
            (&[("HTTPS_PROXY", "socks5://p:1080")], "!HTTPS_PROXY", "direct"),
            (&[("all_proxy", "http://")], "!ALL_PROXY", "!ALL_PROXY"),
        ];
        for (variables, https, http) in table {
            let proxies = proxies(variables);
            assert_eq!(way(&proxies, true, "relay.example", 443), *https, "{variables:?}");
            assert_eq!(way(&proxies, false, "relay.example", 80), *http, "{variables:?}");
        }
    }

    #[test]
    fn exceptions_hold_hosts_below_them_addresses_ports_and_this_machine() {
        let text = "corp.example, .lan *.home,10.0.0.0/8,[fd00::1] other.example:8443,,bad..:x";
        let proxies = proxies(&[("HTTPS_PROXY", "p:1"), ("NO_PROXY", text)]);
        for (host, port, direct) in [
            ("corp.example", 443, true),
            ("a.CORP.example.", 443, true),
            ("acorp.example", 443, false),
            ("corp.example.evil", 443, false),
            ("nas.lan", 443, true),
            ("lan", 443, true),
            ("a.home", 443, true),
            ("10.1.2.3", 443, true),
            ("11.1.2.3", 443, false),
            ("[fd00::1]", 443, true),
            ("fd00::2", 443, false),
            ("other.example", 8443, true),
            ("other.example", 443, false),
            ("localhost", 443, true),
            ("127.0.0.9", 443, true),
            ("[::1]", 443, true),
            ("relay.example", 443, false),
        ] {
            assert_eq!(way(&proxies, true, host, port) == "direct", direct, "{host}:{port}");
        }
    }

    #[test]
    fn star_leaves_everything_out() {
        let proxies = proxies(&[("ALL_PROXY", "p:1"), ("no_proxy", "*")]);
        assert_eq!(way(&proxies, true, "relay.example", 443), "direct");
    }

    #[test]
    fn credentials_become_a_header_and_are_not_shown() {
        let proxies = proxies(&[("HTTPS_PROXY", "http://Aladdin:open%20sesame@p:1")]);
        let Route::Through(proxy) = proxies.route(true, "relay.example", 443) else { panic!("through the proxy") };
        let expected = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
        assert_eq!(proxy.authorization.as_ref().map(Secret::expose), Some(expected));
        let shown = format!("{proxies:?}");
        assert!(!shown.contains("sesame") && !shown.contains("QWxh") && !shown.contains("Aladdin"), "{shown}");
    }

    #[test]
    fn address_of_six_groups_stands_in_brackets() {
        assert_eq!(Proxy::connect_target("relay.example", 443), "relay.example:443");
        assert_eq!(Proxy::connect_target("fd00::1", 443), "[fd00::1]:443");
    }

    proptest! {
        /// What is left out goes straight, with all below it and in any case; everything else goes through.
        #[test]
        fn exceptions_hold_for_a_host_and_all_below_it(
            except in "[a-c](\\.[a-c]){0,2}", host in "[a-cA-C](\\.[a-cA-C]){0,3}", dot in "(\\.|\\*\\.)?", port in prop_oneof![Just(None), (1..3_u16).prop_map(Some)], at in 1..3_u16
        ) {
            let entry = port.map_or(format!("{dot}{except}"), |port| format!("{dot}{except}:{port}"));
            let proxies = proxies(&[("ALL_PROXY", "p:1"), ("NO_PROXY", &format!(" x.example, {entry} "))]);
            let host_small = host.to_lowercase();
            let below = host_small == except || host_small.ends_with(&format!(".{except}"));
            let is_direct = matches!(proxies.route(true, &host, at), Route::Direct);
            prop_assert_eq!(is_direct, below && port.is_none_or(|port| port == at), "{} for {}:{}", entry, host, at);
            prop_assert_eq!(proxies.route(false, &host, at) == Route::Direct, is_direct, "TLS makes no difference");
        }

        #[test]
        fn no_text_breaks_the_rules(proxy: String, except: String, host: String, port: u16) {
            let proxies = proxies(&[("ALL_PROXY", &proxy), ("NO_PROXY", &except)]);
            let _ = proxies.route(true, &host, port);
        }
    }
}

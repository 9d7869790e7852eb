//! What a relay's gate and shards are told by the configuration.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::config::{Naming, Network, RelayConfig, RelayLimits};
use crate::http::rules::Site;
use crate::oauth;

/// Settings shared by the gate and all shards; immutable for the life of the process.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The public URL without trailing slash; everything that names an endpoint derives from it.
    pub public_url: String,
    /// Which hosts and origins are ours; from the public URL and `allowedOrigins`.
    pub site: Site,
    /// What the discovery documents say.
    pub oauth: oauth::Settings,
    /// `naming`: when listed tool names carry the device.
    pub naming: Naming,
    /// `legacy.tokenInQuery`: whether `/ws?token=` is taken.
    pub token_in_query: bool,
    /// `trustedProxies`: whose word on a client's address counts.
    pub trusted_proxies: Vec<Network>,
    /// Whether TLS ends here.
    pub tls: bool,
    /// `limits`.
    pub limits: RelayLimits,
}

impl Settings {
    /// The settings that `config` gives at `public_url`, the URL that the listener ended up with.
    #[must_use]
    pub fn from_config(config: &RelayConfig, public_url: &str) -> Self {
        let public_url = public_url.trim_end_matches('/').to_string();
        Self {
            site: Site::new(&public_url, &config.allowed_origins).expect("a checked configuration's URLs are URLs"),
            oauth: oauth::Settings {
                public_url: public_url.clone(),
                login: config.login.clone(),
                clients: config.clients.clone(),
                audit: config.audit.is_some(),
                requests_per_minute: config.limits.requests_per_minute,
            },
            public_url,
            naming: config.naming,
            token_in_query: config.token_in_query,
            trusted_proxies: config.trusted_proxies.clone(),
            tls: config.tls.is_some(),
            limits: config.limits.clone(),
        }
    }
}

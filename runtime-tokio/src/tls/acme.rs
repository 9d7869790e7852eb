//! A certificate from an authority (RFC 8555), renewed as long as the relay runs. The authority looks at the relay
//! itself, by TLS-ALPN-01 (RFC 8737), so that nothing but its port is needed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use rustls::ClientConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_acme::{AccountCache, AcmeConfig, AcmeState, CertCache, EventError, EventOk, ResolvesServerCertAcme};
use tunnel_core::config::Acme;

use super::TlsError;
use super::trouble::words;
use crate::rt::{self, spawn_blocking, timeout};
use crate::{files, net};

/// An account at the authority, and the certificate that it got.
pub(super) struct Account {
    order: Acme,
    client: Arc<ClientConfig>,
    folder: Folder,
    state: State,
    current: Arc<Current>,
    /// How long the library may say nothing.
    silence: Duration,
}

type State = AcmeState<io::Error, io::Error>;

/// What is shown to those who connect: the library's choice, between certificate and challenge.
#[derive(Debug)]
struct Current(RwLock<Arc<ResolvesServerCertAcme>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        current.resolve(hello)
    }
}

impl Account {
    /// The account whose key and certificates are kept under `state_dir`. Asks nobody yet.
    ///
    /// # Errors
    /// The file of further certificates to trust cannot be used.
    pub(super) fn open(order: &Acme, state_dir: &Path) -> Result<Self, TlsError> {
        let trusted = order.ca_file.as_ref().map(PathBuf::from);
        let roots = trusted.as_deref().map(net::certificates).transpose().map_err(|error| TlsError::File {
            setting: "tls.acme.caFile",
            path: trusted.clone().unwrap_or_default(),
            cause: error.to_string(),
        })?;
        let client = Arc::new(net::platform_tls(&roots.unwrap_or_default())?);
        let folder = Folder(state_dir.join("acme"));
        let state = state(order, &client, &folder);
        let current = Arc::new(Current(RwLock::new(state.resolver())));
        Ok(Self { order: order.clone(), client, folder, state, current, silence: SILENCE })
    }

    pub(super) fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::clone(&self.current) as _
    }

    /// Gets the certificate and renews it, for ever.
    ///
    /// The library waits without bound for an authority that has stopped answering, and its clock stands still while
    /// the machine sleeps. So one that has said nothing for a day begins anew from what is kept.
    pub(super) async fn keep(mut self) {
        tracing::info!(domains = ?self.order.domains, directory = self.order.directory, "certificates come from an authority");
        let mut has_certificate = false;
        loop {
            match timeout(self.silence, self.state.next()).await {
                Ok(Some(Ok(event))) => has_certificate |= told(&event),
                Ok(Some(Err(error))) => {
                    complain(&error, &self.order.domains);
                    // The library's first waits are of seconds, and authorities count failures by the hour.
                    rt::sleep(PAUSE).await;
                }
                Ok(None) | Err(_) => self = self.anew(&mut has_certificate).await,
            }
        }
    }

    async fn anew(mut self, has_certificate: &mut bool) -> Self {
        let mut state = state(&self.order, &self.client, &self.folder);
        if *has_certificate {
            // The certificate that is kept is the first that it tells of. Without it the old state goes on showing its own.
            match timeout(LOADING, state.next()).await {
                Ok(Some(Ok(EventOk::DeployedCachedCert))) => {}
                _ => {
                    tracing::warn!(
                        "the certificate that was kept cannot be read: see the state directory's acme folder"
                    );
                    return self;
                }
            }
        }
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = state.resolver();
        self.state = state;
        self
    }
}

fn state(order: &Acme, client: &Arc<ClientConfig>, folder: &Folder) -> State {
    AcmeConfig::new_with_client_config(&order.domains, Arc::clone(client))
        .contact(order.email.iter().map(|email| format!("mailto:{email}")))
        .directory(&order.directory)
        .cache(folder.clone())
        .state()
}

/// Says what happened. `true`: there is a certificate.
fn told(event: &EventOk) -> bool {
    match event {
        EventOk::DeployedCachedCert => tracing::info!("the certificate that was kept is in use"),
        EventOk::DeployedNewCert => tracing::info!("a new certificate is in use"),
        EventOk::CertCacheStore | EventOk::AccountCacheStore => return false,
    }
    true
}

fn complain(error: &EventError<io::Error, io::Error>, domains: &[String]) {
    let (setting, reason) = ("tls.acme", words(error, domains));
    tracing::debug!(?error, "what the library said");
    match error {
        EventError::Order(_) | EventError::NewCertParse(_) => {
            tracing::warn!(setting, reason, "no certificate this time: it is tried again");
        }
        EventError::CertCacheLoad(_)
        | EventError::AccountCacheLoad(_)
        | EventError::CertCacheStore(_)
        | EventError::AccountCacheStore(_)
        | EventError::CachedCertParse(_) => {
            tracing::warn!(setting, reason, "the state directory's acme folder is of no use");
        }
    }
}

/// Where the account's key and the certificates are kept: a private file each.
#[derive(Debug, Clone)]
struct Folder(PathBuf);

impl Folder {
    /// The file of what belongs to all of `parts` together.
    fn path(&self, kind: &str, parts: &[String], directory: &str) -> PathBuf {
        let mut named = parts.join("\n");
        named.push('\n');
        named.push_str(directory);
        self.0.join(format!("{kind}-{}", files::short_hash(named.as_bytes())))
    }
}

async fn load(path: PathBuf) -> io::Result<Option<Vec<u8>>> {
    spawn_blocking(move || files::read(&path, MAX_FILE)).await.map_err(io::Error::other)?
}

async fn store(path: PathBuf, content: &[u8]) -> io::Result<()> {
    let content = content.to_vec();
    spawn_blocking(move || files::replace(&path, &content)).await.map_err(io::Error::other)?
}

#[async_trait]
impl CertCache for Folder {
    type EC = io::Error;

    async fn load_cert(&self, domains: &[String], directory: &str) -> io::Result<Option<Vec<u8>>> {
        load(self.path("certificate", domains, directory)).await
    }

    async fn store_cert(&self, domains: &[String], directory: &str, cert: &[u8]) -> io::Result<()> {
        store(self.path("certificate", domains, directory), cert).await
    }
}

#[async_trait]
impl AccountCache for Folder {
    type EA = io::Error;

    async fn load_account(&self, contact: &[String], directory: &str) -> io::Result<Option<Vec<u8>>> {
        load(self.path("account", contact, directory)).await
    }

    async fn store_account(&self, contact: &[String], directory: &str, account: &[u8]) -> io::Result<()> {
        store(self.path("account", contact, directory), account).await
    }
}

/// How long the library may say nothing: a third of a certificate's life is weeks.
const SILENCE: Duration = Duration::from_secs(24 * 3600);
/// Between two attempts, at least.
const PAUSE: Duration = Duration::from_secs(30);
/// How long the certificate that is kept may take to be read.
const LOADING: Duration = Duration::from_secs(30);
/// A key and a chain.
const MAX_FILE: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::TcpListener;
    use crate::testing::TempDir;
    use futures_util::FutureExt as _;

    #[crate::rt::test]
    async fn authority_that_never_answers_is_asked_anew() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = listener.local_addr().expect("bound").port();
        let dir = TempDir::new();
        let order = Acme {
            domains: vec!["relay.test".into()],
            email: None,
            directory: format!("https://127.0.0.1:{port}/dir"),
            ca_file: None,
        };
        let mut account = Account::open(&order, dir.path()).expect("opens");
        account.silence = Duration::from_millis(50);
        let mut keeping = rt::spawn(account.keep());
        let mut held = Vec::new();
        for _ in 0..3 {
            let asked = timeout(Duration::from_secs(20), listener.accept()).await.expect("it asks");
            held.push(asked.expect("accepts"));
        }
        assert!((&mut keeping).now_or_never().is_none(), "for ever");
        keeping.abort();
        let kept = std::fs::read_dir(dir.path().join("acme")).expect("is there").count();
        assert_eq!(kept, 1, "always with the same account");
    }
}

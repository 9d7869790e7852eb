//! Outgoing connections: TCP, through a proxy where the environment names one, and TLS with the system's trusted
//! certificates and those of a file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use http::Uri;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use tunnel_core::config::{Proxies, Route};
use tunnel_core::http::reach::Reach;

use crate::rt::tls::{TlsConnector, client};
use crate::rt::{AsyncRead, AsyncWrite, TcpStream, lookup_host};
use crate::stream::Stream;
use crate::{files, proxy};

/// Makes outgoing connections; clones share the TLS settings and session cache.
#[derive(Clone, Default)]
pub struct Connector {
    /// Made at first use: reading the system's certificates takes a while and plain connections need none.
    tls: Arc<OnceLock<Arc<rustls::ClientConfig>>>,
    proxies: Arc<Proxies>,
    /// Trusted beside what the system trusts.
    roots: Arc<[CertificateDer<'static>]>,
}

impl Connector {
    /// A connector that trusts what the system trusts, and goes its way directly.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A connector with TLS settings of its own, for tests with a certificate authority of theirs.
    #[must_use]
    pub fn with_tls(config: Arc<rustls::ClientConfig>) -> Self {
        Self { tls: Arc::new(OnceLock::from(config)), ..Self::default() }
    }

    /// A connector with the proxies that the process's environment names, which trusts the certificates of `ca_file`
    /// beside the system's. (The system's are those of `SSL_CERT_FILE` where that is set.)
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn from_environment(ca_file: Option<&Path>) -> Result<Self, BadCertificates> {
        let bad = |file: &Path, cause| BadCertificates { file: file.to_owned(), cause };
        let proxies = Proxies::new(|name| std::env::var(name).ok());
        let own = ca_file.map(|file| certificates(file).map_err(|cause| bad(file, cause))).transpose()?;
        let mut roots = own.unwrap_or_default();
        if let Some(file) = std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty()) {
            roots.extend(named_by_variable(Path::new(&file)).map_err(|cause| {
                bad(Path::new(&file), io::Error::new(cause.kind(), format!("SSL_CERT_FILE names it, and {cause}")))
            })?);
        }
        Ok(Self { tls: Arc::default(), proxies: Arc::new(proxies), roots: roots.into() })
    }

    /// Whether there is a way to `url` at all: a proxy that cannot be used will not mend by itself.
    ///
    /// # Errors
    /// Which variable must be another.
    pub fn check(&self, url: &str) -> Result<(), ConnectError> {
        let target = url.parse().ok().and_then(|uri| Target::of(&uri).ok());
        match target.map(|target| self.proxies.route(target.tls, &target.host, target.port)) {
            Some(Route::Unusable { variable }) => Err(unusable(variable)),
            Some(Route::Direct | Route::Through(_)) | None => Ok(()),
        }
    }

    /// Connects to `target`'s host and port, with TLS for `https` and `wss`.
    ///
    /// # Errors
    /// Which step failed, and what was said.
    pub async fn connect(&self, target: &Target) -> Result<Stream, ConnectError> {
        self.connect_at(&target.host, target).await
    }

    /// The same, to an address of the host that is within `reach`: it is resolved here, once, and the connection (or the
    /// proxy that makes it) is given the very address that was looked at.
    ///
    /// # Errors
    /// Which step failed, and what was said.
    pub async fn connect_within(&self, target: &Target, reach: Reach) -> Result<Stream, ConnectError> {
        let addresses = lookup_host((target.host.as_str(), target.port)).await.map_err(ConnectError::Tcp)?;
        let mut outcome = Err(ConnectError::OutOfReach);
        for address in addresses.map(|address| address.ip()).filter(|address| reach.allows(*address)) {
            outcome = self.connect_at(&address.to_string(), target).await;
            if !matches!(outcome, Err(ConnectError::Tcp(_))) {
                break;
            }
        }
        outcome
    }

    /// Connects to `host`, which is the target's name or an address of it.
    async fn connect_at(&self, host: &str, target: &Target) -> Result<Stream, ConnectError> {
        let proxy = match self.proxies.route(target.tls, &target.host, target.port) {
            Route::Direct => return self.secure(tcp(host, target.port).await?, target).await,
            Route::Through(proxy) => proxy,
            Route::Unusable { variable } => return Err(unusable(variable)),
        };
        let failed = |cause: String| ConnectError::Proxy { variable: proxy.variable, cause };
        let own = Target { host: proxy.host.clone(), port: proxy.port, tls: proxy.tls };
        let to_proxy = tcp(&own.host, own.port).await.map_err(|error| failed(error.to_string()))?;
        let to_proxy = Box::pin(self.secure(to_proxy, &own)).await.map_err(|error| failed(error.to_string()))?;
        let place = Target { host: host.to_owned(), ..*target };
        let through = Box::pin(proxy::connect(to_proxy, proxy, &place)).await.map_err(failed)?;
        if !target.tls {
            return Ok(Stream::Through(Box::new(through)));
        }
        // Many a proxy says yes and then answers by itself.
        let secured = self.tls(through, target).await;
        let secured = secured.map_err(|error| failed(format!("it connects, but to {} {error}", target.host)))?;
        Ok(Stream::Through(Box::new(secured)))
    }

    #[cfg(test)]
    pub(crate) fn with_proxies(proxies: Arc<Proxies>) -> Self {
        Self { proxies, ..Self::default() }
    }

    async fn secure(&self, tcp: TcpStream, target: &Target) -> Result<Stream, ConnectError> {
        if !target.tls {
            return Ok(Stream::Plain(tcp));
        }
        Ok(Stream::Tls(Box::new(self.tls(tcp, target).await?.into())))
    }

    async fn tls<S>(&self, stream: S, target: &Target) -> Result<client::TlsStream<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(target.host.clone()).map_err(|error| ConnectError::Tls(error.to_string()))?;
        let connector = TlsConnector::from(self.tls_config()?);
        connector.connect(name, stream).await.map_err(|error| ConnectError::Tls(error.to_string()))
    }

    fn tls_config(&self) -> Result<Arc<rustls::ClientConfig>, ConnectError> {
        if let Some(config) = self.tls.get() {
            return Ok(Arc::clone(config));
        }
        let config = platform_tls(&self.roots).map_err(|error| ConnectError::Tls(error.to_string()))?;
        Ok(Arc::clone(self.tls.get_or_init(|| Arc::new(config))))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

/// A file of trusted certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the certificates of {}: {cause}", file.display())]
pub struct BadCertificates {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub cause: io::Error,
}

fn unusable(variable: &'static str) -> ConnectError {
    let cause = format!("{variable} must be an http:// or https:// URL (SOCKS is not spoken)");
    ConnectError::Proxy { variable, cause }
}

/// Where a URL points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name or address, without brackets.
    pub host: String,
    /// The port, the scheme's own by default.
    pub port: u16,
    /// Whether TLS is spoken.
    pub tls: bool,
}

impl Target {
    /// Of an absolute `http`, `https`, `ws` or `wss` URL without user info.
    ///
    /// # Errors
    /// What is wrong with the URL, without repeating it.
    pub fn of(uri: &Uri) -> Result<Self, String> {
        let tls = match uri.scheme_str() {
            Some("http" | "ws") => false,
            Some("https" | "wss") => true,
            _ => return Err("it is not an http or https URL".into()),
        };
        let authority = uri.authority().ok_or("it names no host")?;
        if authority.as_str().contains('@') {
            return Err("it carries a user name".into());
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err("it names no host".into());
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { host: host.to_owned(), port, tls })
    }
}

/// Which step of connecting failed.
#[derive(Debug)]
pub enum ConnectError {
    /// The host has no address that may be connected to.
    OutOfReach,
    /// No TCP connection.
    Tcp(io::Error),
    /// No TLS session, or no trusted certificates to check one with.
    Tls(String),
    /// The proxy does not bring us there.
    Proxy {
        /// The variable that names it.
        variable: &'static str,
        /// What happened.
        cause: String,
    },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfReach => f.write_str("the host has no address that may be connected to"),
            Self::Tcp(error) => error.fmt(f),
            Self::Proxy { variable, cause } => write!(f, "the proxy of {variable}: {cause}"),
            Self::Tls(error) => write!(f, "TLS failed: {error}"),
        }
    }
}

/// Makes a connection quick to answer: small frames and heads do not wait for an acknowledgement, and little waits
/// unsent in the system, where nothing can overtake it. (The usual megabytes would take seconds on a slow uplink.)
///
/// # Errors
/// What the system says.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(MAX_UNSENT)?;
    Ok(())
}

/// Two of the tunnel's messages: one on its way out, the next one ready.
#[cfg(target_os = "linux")]
const MAX_UNSENT: u32 = 128 * 1024;

async fn tcp(host: &str, port: u16) -> Result<TcpStream, ConnectError> {
    let tcp = TcpStream::connect((host, port)).await.map_err(ConnectError::Tcp)?;
    tune(&tcp).map_err(ConnectError::Tcp)?;
    Ok(tcp)
}

/// The certificates of a PEM file.
pub(crate) fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let content = files::read(path, MAX_CA_FILE)?.ok_or(io::ErrorKind::NotFound)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    let found = found.map_err(|error| bad(format!("it is not a PEM file of certificates: {error}")))?;
    // Each must be one that can be trusted, which is said now rather than at the first connection.
    let mut store = rustls::RootCertStore::empty();
    for certificate in &found {
        store.add(certificate.clone()).map_err(|error| bad(format!("a certificate in it cannot be used: {error}")))?;
    }
    if found.is_empty() {
        return Err(bad("there is no certificate in it".into()));
    }
    Ok(found)
}

/// What is to be trusted of the file of `SSL_CERT_FILE` by ourselves. Where the system's store reads it, nothing is, and
/// one that it would pass over is an error; some of a system's many certificates may be such as nobody can use.
fn named_by_variable(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    if cfg!(target_vendor = "apple") {
        // The system's own store does not know the variable.
        return certificates(file);
    }
    let content = std::fs::read(file)?;
    let found = CertificateDer::pem_slice_iter(&content).any(|certificate| certificate.is_ok());
    let none = || io::Error::new(io::ErrorKind::InvalidData, "there is no certificate in it");
    found.then(Vec::new).ok_or_else(none)
}

/// The provider is named, never the process's default: two providers in one tree would make the default a panic.
pub(crate) fn platform_tls(roots: &[CertificateDer<'static>]) -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new_with_extra_roots(roots.iter().cloned(), Arc::clone(&provider))?;
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        // The system's own verifier; the library's short cut for it takes no further certificates.
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// Four times what systems trust in all.
const MAX_CA_FILE: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_os = "linux")]
    use crate::rt::{self, AsyncWriteExt as _};
    #[cfg(target_os = "linux")]
    use socket2::{Domain, Socket, Type};

    #[test]
    fn targets_are_read_from_urls() {
        let of = |url: &str| Target::of(&url.parse().expect("a URI"));
        let target = |host: &str, port, tls| Ok(Target { host: host.into(), port, tls });
        assert_eq!(of("https://relay.example/x?y"), target("relay.example", 443, true));
        assert_eq!(of("http://[::1]:8080/"), target("::1", 8080, false));
        assert_eq!(of("wss://127.0.0.1"), target("127.0.0.1", 443, true));
        assert_eq!(of("ws://localhost:3000/ws"), target("localhost", 3000, false));
        for bad in ["ftp://host/", "/path", "http://user@host/", "http://user:pass@host/"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[cfg(target_os = "linux")]
    #[crate::rt::test]
    async fn little_waits_in_the_system_for_a_peer_that_does_not_read() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(32 * 1024).expect("set");
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any.into()).expect("binds");
        socket.listen(1).expect("listens");
        let address = socket.local_addr().expect("bound").as_socket().expect("an IP address");
        let mut stream = TcpStream::connect(address).await.expect("connects");
        let _peer = socket.accept().expect("accepts");
        tune(&stream).expect("tunes");
        let mut taken = 0;
        let full = async {
            loop {
                taken += stream.write(&[0; 64 * 1024]).await.expect("open");
            }
        };
        let _ = rt::timeout(std::time::Duration::from_millis(300), full).await;
        assert!(taken > 0 && taken < 512 * 1024, "{taken}");
    }
}

//! Outgoing connections: TCP, and TLS over it with the system's trusted certificates.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use http::Uri;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Makes outgoing connections; clones share the TLS settings and session cache.
#[derive(Clone, Default)]
pub struct Connector {
    /// Made at first use: reading the system's certificates takes a while and plain connections need none.
    tls: Arc<OnceLock<Arc<rustls::ClientConfig>>>,
}

impl Connector {
    /// A connector that trusts what the system trusts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A connector with TLS settings of its own, for tests with a certificate authority of theirs.
    #[must_use]
    pub fn with_tls(config: Arc<rustls::ClientConfig>) -> Self {
        Self { tls: Arc::new(OnceLock::from(config)) }
    }

    /// Connects to `target`'s host and port, with TLS for `https` and `wss`.
    ///
    /// # Errors
    /// Which step failed, and what was said.
    pub async fn connect(&self, target: &Target) -> Result<Stream, ConnectError> {
        let tcp = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(ConnectError::Tcp)?;
        tune(&tcp).map_err(ConnectError::Tcp)?;
        if !target.tls {
            return Ok(Stream::Plain(tcp));
        }
        let name = ServerName::try_from(target.host.clone()).map_err(|error| ConnectError::Tls(error.to_string()))?;
        let connector = TlsConnector::from(self.tls_config()?);
        let stream = connector.connect(name, tcp).await.map_err(|error| ConnectError::Tls(error.to_string()))?;
        Ok(Stream::Tls(Box::new(stream)))
    }

    fn tls_config(&self) -> Result<Arc<rustls::ClientConfig>, ConnectError> {
        if let Some(config) = self.tls.get() {
            return Ok(Arc::clone(config));
        }
        let config = platform_tls().map_err(|error| ConnectError::Tls(error.to_string()))?;
        Ok(Arc::clone(self.tls.get_or_init(|| Arc::new(config))))
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
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
    /// No TCP connection.
    Tcp(io::Error),
    /// No TLS session, or no trusted certificates to check one with.
    Tls(String),
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(error) => error.fmt(f),
            Self::Tls(error) => write!(f, "TLS failed: {error}"),
        }
    }
}

/// A connection, with TLS or without.
#[derive(Debug)]
pub enum Stream {
    /// Bare TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
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

/// The provider is named, never the process's default: two providers in one tree would make the default a panic.
fn platform_tls() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

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
    #[tokio::test]
    async fn little_waits_in_the_system_for_a_peer_that_does_not_read() {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(32 * 1024).expect("set");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("binds");
        let listener = socket.listen(1).expect("listens");
        let address = listener.local_addr().expect("bound");
        let (stream, peer) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (stream, _peer) = (stream.expect("connects"), peer.expect("accepts"));
        tune(&stream).expect("tunes");
        let mut taken = 0;
        let full = async {
            loop {
                stream.writable().await.expect("open");
                taken += stream.try_write(&[0; 64 * 1024]).unwrap_or(0);
            }
        };
        let _ = tokio::time::timeout(std::time::Duration::from_millis(300), full).await;
        assert!(taken > 0 && taken < 512 * 1024, "{taken}");
    }
}

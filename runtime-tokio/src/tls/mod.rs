//! The relay's own TLS: sessions with those who connect, and where its certificate comes from.

#[cfg(feature = "acme")]
mod acme;
mod pair;
#[cfg(feature = "acme")]
mod trouble;
mod validity;

use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::rt::tls::TlsAcceptor;
use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use tunnel_core::config::Tls;

use crate::places::last_words;
use crate::rt::{TcpStream, timeout};
use crate::stream::Stream;

/// Why there is no certificate to begin with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be used.
    #[error("{setting}: cannot use {path}: {cause}")]
    File {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// Nothing can be kept, and an authority makes a few certificates a week.
    #[error("tls.acme needs a state directory that can be written to, to keep its certificate in: set stateDir")]
    NoState,
    /// The program was built without it.
    #[error("tls.acme: this program was built without it (feature \"acme\")")]
    NoAcme,
    /// The library refuses to work.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
}

/// What has to run as long as the relay does, so that its certificate stays a good one.
pub(crate) type Upkeep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Makes TLS sessions of connections.
#[derive(Clone)]
pub(crate) struct Acceptor(TlsAcceptor);

impl Acceptor {
    /// An acceptor with the certificate of `tls`, and its upkeep. `host` is the name that clients use; what is got
    /// from an authority is kept in `state_dir`. Reads files.
    ///
    /// # Errors
    /// What is wrong with the certificate.
    pub(crate) fn open(tls: &Tls, host: Option<&str>, state_dir: Option<&Path>) -> Result<(Self, Upkeep), TlsError> {
        match tls {
            Tls::Files { cert, key } => {
                let pair = pair::Pair::open(Path::new(cert), Path::new(key), host)?;
                Ok((Self::with(pair.resolver(), &[])?, Box::pin(pair.watch())))
            }
            #[cfg(feature = "acme")]
            Tls::Acme(acme) => {
                let account = acme::Account::open(acme, state_dir.ok_or(TlsError::NoState)?)?;
                Ok((Self::with(account.resolver(), &[CHALLENGE])?, Box::pin(account.keep())))
            }
            #[cfg(not(feature = "acme"))]
            Tls::Acme(_) => {
                let _ = state_dir;
                Err(TlsError::NoAcme)
            }
        }
    }

    /// The provider is named, never the process's default: two providers in one tree would make the default a panic.
    fn with(certificates: Arc<dyn ResolvesServerCert>, more: &[&[u8]]) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        let protocols = [&b"http/1.1"[..]].into_iter().chain(more.iter().copied());
        config.alpn_protocols = protocols.map(<[u8]>::to_vec).collect();
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Makes a session of a connection within `time`. Who speaks plain HTTP is told so.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn accept(&self, stream: TcpStream, time: Duration) -> Result<Stream, NoSession> {
        timeout(time, self.accept_unbounded(stream)).await.unwrap_or(Err(NoSession::TimedOut))
    }

    async fn accept_unbounded(&self, stream: TcpStream) -> Result<Stream, NoSession> {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(0) => return Err(NoSession::Failed(io::ErrorKind::UnexpectedEof.into())),
            // Every method is in capitals, and no TLS record begins with one.
            Ok(_) if first.iter().all(u8::is_ascii_uppercase) => {
                last_words(Stream::Plain(stream), "400 Bad Request", SPEAK_TLS).await;
                return Err(NoSession::PlainHttp);
            }
            Ok(_) => {}
            Err(error) => return Err(NoSession::Failed(error)),
        }
        let session = self.0.accept(stream).await.map_err(NoSession::Failed)?;
        if session.get_ref().1.alpn_protocol() == Some(CHALLENGE) {
            // RFC 8737 section 3: the authority has seen the certificate that it wanted to see.
            return Err(NoSession::Challenge);
        }
        Ok(Stream::Tls(Box::new(session.into())))
    }
}

/// What is to be said of the certificate files that `tls` names, each with its setting. `host` is the name that clients
/// use. Reads files.
///
/// # Errors
/// Which of them cannot be used.
pub(crate) fn check(tls: &Tls, host: Option<&str>) -> Result<Vec<(&'static str, String)>, TlsError> {
    let Tls::Files { cert, key } = tls else { return Ok(Vec::new()) };
    let remarks = pair::check(Path::new(cert), Path::new(key), host)?;
    Ok(remarks.into_iter().map(|remark| (remark.setting, remark.text)).collect())
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

/// Why a connection did not become a session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoSession {
    #[error("it speaks plain HTTP to a port of TLS")]
    PlainHttp,
    #[error("the TLS handshake took too long")]
    TimedOut,
    #[error("the TLS handshake failed: {0}")]
    Failed(io::Error),
    #[error("an authority looked at the challenge's certificate")]
    Challenge,
}

/// The protocol by which an authority looks whether a name is ours (RFC 8737 section 6.2).
const CHALLENGE: &[u8] = b"acme-tls/1";
const SPEAK_TLS: &str = "this port speaks TLS: use an https URL\n";

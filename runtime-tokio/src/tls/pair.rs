//! A certificate and its key from files, read again when they change.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use rustls::Error as RustlsError;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tunnel_core::secret::Secret;

use super::TlsError;
use super::validity::trouble;
use crate::files;
use crate::rt::{self, spawn_blocking};

/// The two files, and what they last held that was good.
pub(super) struct Pair {
    cert: PathBuf,
    key: PathBuf,
    /// The name that clients use.
    host: Option<String>,
    current: Arc<Current>,
    /// What the files looked like when they were read.
    read: Marks,
}

/// What is shown to those who connect.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Pair {
    /// Reads both files.
    ///
    /// # Errors
    /// Which of them cannot be used.
    pub(super) fn open(cert: &Path, key: &Path, host: Option<&str>) -> Result<Self, TlsError> {
        let read = marks(cert, key);
        let pair = load(cert, key)?;
        warn(remarks(&pair, cert, key, host));
        let current = Arc::new(Current(RwLock::new(Arc::new(pair))));
        Ok(Self { cert: cert.into(), key: key.into(), host: host.map(str::to_owned), current, read })
    }

    pub(super) fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::clone(&self.current) as _
    }

    /// Reads the files again whenever they have changed, for ever.
    pub(super) async fn watch(mut self) {
        let mut seen = self.read;
        let mut told = Instant::now();
        loop {
            rt::sleep(INTERVAL).await;
            if told.elapsed() >= DAY {
                told = Instant::now();
                self.warn();
            }
            // A file system may be a slow one, so that this is no work for the runtime's own threads.
            let Ok(found) = spawn_blocking({
                let (cert, key) = (self.cert.clone(), self.key.clone());
                move || marks(&cert, &key)
            })
            .await
            else {
                continue;
            };
            // Files that are being replaced are left alone until they have been the same for one interval.
            let settled = found == std::mem::replace(&mut seen, found);
            if settled && found != self.read {
                self = self.reload(found).await;
            }
        }
    }

    /// Says again what is to be said of the pair that is shown.
    fn warn(&self) {
        let current = Arc::clone(&self.current.0.read().unwrap_or_else(PoisonError::into_inner));
        warn(remarks(&current, &self.cert, &self.key, self.host.as_deref()));
    }

    async fn reload(mut self, found: Marks) -> Self {
        self.read = found;
        let (cert, key) = (self.cert.clone(), self.key.clone());
        match spawn_blocking(move || load(&cert, &key)).await {
            Ok(Ok(fresh)) => {
                *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
                tracing::info!(path = %self.cert.display(), "read the changed certificate");
                self.warn();
            }
            Ok(Err(error)) => {
                tracing::warn!(reason = %error, "the changed certificate is refused: the old one goes on");
            }
            Err(_) => tracing::error!("reading the changed certificate failed: the old one goes on"),
        }
        self
    }
}

/// What tells each file from another content of it: device, inode, length and time of change, behind symbolic links.
type Marks = [Option<[u64; 5]>; 2];

fn marks(cert: &Path, key: &Path) -> Marks {
    [cert, key].map(|path| {
        let found = fs::metadata(path).ok()?;
        Some([found.dev(), found.ino(), found.len(), found.mtime().cast_unsigned(), found.mtime_nsec().cast_unsigned()])
    })
}

fn load(cert: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let of_cert = |cause: String| TlsError::File { setting: "tls.cert", path: cert.into(), cause };
    let of_key = |cause: String| TlsError::File { setting: "tls.key", path: key.into(), cause };
    let chain = certificates(cert).map_err(|error| of_cert(error.to_string()))?;
    let private = private_key(key).map_err(|error| of_key(error.to_string()))?;
    let provider = rustls::crypto::ring::default_provider();
    let pair = CertifiedKey::from_der(chain, private, &provider).map_err(|error| match error {
        RustlsError::InconsistentKeys(_) => {
            of_key(format!("it is not the key of the certificate in {}", cert.display()))
        }
        RustlsError::InvalidCertificate(_) => of_cert(error.to_string()),
        // The text of such an error may be long, and is about the key's inside.
        _ => of_key("it is not a private key of a known kind".into()),
    })?;
    Ok(pair)
}

/// What is to be said of a pair that can be used.
pub(super) struct Remark {
    pub(super) setting: &'static str,
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// What is to be said of the pair in both files; `host` is the name that clients use.
///
/// # Errors
/// Which of them cannot be used.
pub(super) fn check(cert: &Path, key: &Path, host: Option<&str>) -> Result<Vec<Remark>, TlsError> {
    load(cert, key).map(|pair| remarks(&pair, cert, key, host))
}

/// An old certificate is shown all the same, and one for another name: some clients are told to trust it.
fn remarks(pair: &CertifiedKey, cert: &Path, key: &Path, host: Option<&str>) -> Vec<Remark> {
    let of_cert = |text| Remark { setting: "tls.cert", path: cert.into(), text };
    let of_key = |text| Remark { setting: "tls.key", path: key.into(), text };
    let time = pair.end_entity_cert().ok().and_then(|first| trouble(first, SystemTime::now()));
    let name = host.filter(|host| !is_named(pair, host));
    let name = name.map(|host| format!("the certificate is not for the relay's name, {host}"));
    let remarks = [readers(key).map(of_key), time.map(of_cert), name.map(of_cert)];
    remarks.into_iter().flatten().collect()
}

fn warn(remarks: Vec<Remark>) {
    for Remark { setting, path, text } in remarks {
        tracing::warn!(setting, path = %path.display(), reason = text, "the certificate needs somebody");
    }
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let content = files::read(path, MAX_FILE)?.ok_or(io::ErrorKind::NotFound)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    let found = found.map_err(|error| io::Error::other(format!("it is not a PEM file of certificates: {error}")))?;
    let first = found.first().ok_or_else(|| io::Error::other("there is no certificate in it"))?;
    ParsedCertificate::try_from(first).map_err(|error| io::Error::other(format!("it cannot be used: {error}")))?;
    Ok(found)
}

fn private_key(path: &Path) -> io::Result<PrivateKeyDer<'static>> {
    let content = files::read(path, MAX_FILE)?.ok_or(io::ErrorKind::NotFound)?;
    // As a secret, so that the text does not stay in memory; the parser's errors could repeat a part of it.
    let content = String::from_utf8(content).map(Secret::new);
    let content = content.map_err(|_| io::Error::other("it is not a PEM file"))?;
    PrivateKeyDer::from_pem_slice(content.expose().as_bytes())
        .map_err(|_| io::Error::other("there is no private key in it (PEM: PKCS #8, PKCS #1 or SEC 1, not encrypted)"))
}

/// A group may have its reasons to read a key; everybody has none.
fn readers(key: &Path) -> Option<String> {
    let mode = fs::metadata(key).map_or(0, |found| found.permissions().mode());
    let text = format!("everybody on this machine may read the private key (mode {:o}): chmod o= it", mode & 0o777);
    (mode & 0o007 != 0).then_some(text)
}

fn is_named(pair: &CertifiedKey, host: &str) -> bool {
    let named = pair.end_entity_cert().and_then(ParsedCertificate::try_from);
    match (named, ServerName::try_from(host)) {
        (Ok(parsed), Ok(name)) => verify_server_name(&parsed, &name).is_ok(),
        // What cannot be told is not told.
        _ => true,
    }
}

/// Between two looks at the files: a renewal comes weeks before the old certificate ends.
const INTERVAL: Duration = Duration::from_secs(2);
/// Between two warnings of one certificate.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// A chain is a few kilobytes.
const MAX_FILE: u64 = 1024 * 1024;

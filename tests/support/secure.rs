//! A relay that ends TLS itself, certificates for it, and a client that trusts those it is told to.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use super::{PASSWORD_HASH, Process, Reply, Scratch, eventually, free_port, run};

/// A certificate that vouches for itself, and its key; both PEM.
pub struct Made {
    pub der: CertificateDer<'static>,
    pub cert: String,
    pub key: String,
}

pub fn made(host: &str) -> Made {
    let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).expect("a certificate");
    Made { der: made.cert.der().clone(), cert: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

/// Puts a file there in one step, for its owner alone.
pub fn put(path: &Path, content: &str) {
    use std::os::unix::fs::PermissionsExt;
    let beside = path.with_extension("new");
    std::fs::write(&beside, content).expect("written");
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600)).expect("set");
    std::fs::rename(&beside, path).expect("renamed");
}

pub type Session = StreamOwned<ClientConnection, TcpStream>;

/// A relay behind its own TLS.
pub struct Secure {
    pub home: Scratch,
    pub config: Value,
    pub port: u16,
    pub host: &'static str,
    pub process: Process,
}

impl Secure {
    /// With a certificate for `host` that vouches for itself.
    pub fn start(name: &str, host: &'static str, more: &Value) -> (Self, Made) {
        let made = made(host);
        let relay = Self::with(name, host, more, |home| {
            put(&home.join("cert.pem"), &made.cert);
            put(&home.join("key.pem"), &made.key);
            json!({"cert": home.join("cert.pem"), "key": home.join("key.pem")})
        });
        relay.ready(std::slice::from_ref(&made.der));
        (relay, made)
    }

    /// With what `tls` says; it may not be ready.
    pub fn with(name: &str, host: &'static str, more: &Value, tls: impl FnOnce(&Path) -> Value) -> Self {
        let home = Scratch::new(name);
        let port = free_port();
        let mut config = json!({
            "mode": "relay", "host": "127.0.0.1", "port": port, "issuerUrl": format!("https://{host}:{port}"),
            "auth": {"local": {"users": [{"name": "ada", "passwordHash": PASSWORD_HASH.trim()}]}},
            "tls": tls(home.path()),
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        let process = Process::start(home.path(), &config, &["--log-level", "debug"]);
        Self { home, config, port, host, process }
    }

    pub fn ready(&self, roots: &[CertificateDer<'static>]) {
        eventually("the relay is ready", Duration::from_secs(20), || {
            let reply = self.try_get(roots, "/readyz").map_err(|error| format!("{error}\n{}", self.process.log()))?;
            (reply.status == 200).then_some(()).ok_or(format!("{reply:?}"))
        });
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn mint(&self, role: &str) -> String {
        let output = run(self.home.path(), &self.config, &["token", "create", "ada", "--role", role, "--json"]);
        let answer: Value = serde_json::from_slice(&output.stdout).expect("--json prints JSON");
        answer["token"].as_str().unwrap_or_else(|| panic!("a token: {answer}")).to_owned()
    }

    /// A session with the relay, its handshake made.
    pub fn connect(&self, roots: &[CertificateDer<'static>]) -> std::io::Result<Session> {
        connect(self.host, self.port, roots)
    }

    pub fn try_get(&self, roots: &[CertificateDer<'static>], path: &str) -> std::io::Result<Reply> {
        self.ask(roots, "GET", path, &[], b"")
    }

    pub fn ask(
        &self,
        roots: &[CertificateDer<'static>],
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Reply> {
        ask(self.host, self.port, roots, method, path, headers, body)
    }
}

/// A session with whoever listens there, its handshake made.
pub fn connect(host: &'static str, port: u16, roots: &[CertificateDer<'static>]) -> std::io::Result<Session> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    let name = host.try_into().expect("a host name");
    let mut session = ClientConnection::new(client(roots), name).expect("a session");
    while session.is_handshaking() {
        session.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(session, socket))
}

/// One request and its answer.
pub fn ask(
    host: &'static str,
    port: u16,
    roots: &[CertificateDer<'static>],
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Reply> {
    let mut session = connect(host, port, roots)?;
    let length = body.len();
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\nContent-Length: {length}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    session.write_all(format!("{head}\r\n").as_bytes())?;
    session.write_all(body)?;
    Reply::read(&mut BufReader::new(session))
}

fn client(roots: &[CertificateDer<'static>]) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).expect("a certificate");
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

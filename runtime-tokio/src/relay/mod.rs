//! The relay's driver: sockets and jobs for the gate, the authorization server and the shards.

mod rooms;
mod serving;
mod signin;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Once};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tunnel_core::config::RelayConfig;
use tunnel_core::host::Machine;
use tunnel_core::http::bodies::Bodies;
use tunnel_core::keyring::Keyring;
use tunnel_core::oauth::Snapshot;
use tunnel_core::oauth::grants::{self, Action, AdminCommand, Event, Grants};
use tunnel_core::relay::Settings;
use tunnel_core::relay::gate::Gate;
use tunnel_core::secret::Secret;

use self::rooms::Rooms;
use self::serving::{Serving, TUNNEL_GRACE};
use self::signin::{Office, Published};
use crate::audit::Shared;
use crate::body::Room;
use crate::clock::Clock;
use crate::driver::Host;
use crate::entropy::OsEntropy;
use crate::http::Terms;
use crate::net::{BadCertificates, Connector};
use crate::rt::{self, TcpListener, timeout};
use crate::store::{Records, Store, StoreError};
use crate::tls::{Acceptor, Upkeep};
use crate::{http, ipc, keys};

pub use crate::tls::TlsError;

/// What a relay is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its configuration.
    pub config: RelayConfig,
    /// Where keys and token families are kept; `None`: nowhere, so that a restart signs everybody out.
    pub state_dir: Option<PathBuf>,
}

/// Why a relay does not start, or cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// `host:port` of the configuration.
        address: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The state directory is another relay's.
    #[error(transparent)]
    State(#[from] StoreError),
    /// The master key cannot be used.
    #[error(transparent)]
    Key(#[from] keys::KeyError),
    /// The file of `SSL_CERT_FILE` cannot be used.
    #[error(transparent)]
    Certificates(#[from] BadCertificates),
    /// The audit cannot be kept.
    #[error("the audit cannot be kept: {0}")]
    Audit(io::Error),
    /// There is no certificate for `tls`.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The running relay did not answer.
    #[error("the running relay does not answer: {0}")]
    Silent(io::Error),
    /// The command cannot be carried out.
    #[error("the command could not be carried out")]
    Failed,
}

/// A relay that listens, and does not answer yet.
pub struct Relay {
    listener: TcpListener,
    local_addr: SocketAddr,
    public_url: String,
    state_dir: Option<PathBuf>,
    serving: Arc<Serving>,
    audit: Option<Shared>,
    terms: Terms,
    upkeep: Option<Upkeep>,
    tunnels_ended: mpsc::Receiver<()>,
}

impl Relay {
    /// Opens the state and listens. Call it inside the runtime.
    ///
    /// # Errors
    /// Why it cannot start.
    pub async fn bind(options: Options) -> Result<Self, RelayError> {
        raise_descriptor_limit();
        let Options { config, state_dir } = options;
        let address = format!("{}:{}", config.host, config.port);
        let listen = |cause| RelayError::Listen { address: address.clone(), cause };
        let listener = TcpListener::bind((config.host.as_str(), config.port)).await.map_err(listen)?;
        let local_addr = listener.local_addr().map_err(listen)?;
        let public_url = config.url_at(local_addr.port());
        let settings = Arc::new(Settings::from_config(&config, &public_url));
        let state = State::open(&config, state_dir).await?;
        let audit = audit(&config, state.dir.as_deref())?;
        let (acceptor, upkeep) = tls(&config, state.dir.clone()).await?.unzip();
        let clock = Clock::new();
        let published = Arc::new(Published::new(Snapshot::new(state.keys.sealer())));
        let grants =
            Grants::new(settings.oauth.clone(), state.keys, state.records, Box::new(OsEntropy::new()), clock.now());
        let (tunnels, tunnels_ended) = mpsc::channel(1);
        let rooms = || Rooms::new(Arc::clone(&settings), audit.clone());
        let shards = (0..shard_count()).map(|_| Host::new(rooms(), clock)).collect();
        let serving = Arc::new(Serving {
            gate: Gate::new(settings),
            office: Host::new(
                Office::new(grants, state.store, state.dir.clone(), Arc::clone(&published), audit.clone()),
                clock,
            ),
            published,
            shards,
            connector: Connector::from_environment(None)?,
            clock,
            body_timeout: config.limits.body_timeout,
            room: Room::new(Bodies::new(config.limits.bodies, config.limits.max_body)),
            verifying: Semaphore::new(VERIFIED_AT_ONCE),
            next_id: AtomicU64::new(1),
            proxy_warning: Once::new(),
            _tunnels: tunnels,
        });
        // What the machine ordered when it was made: the first snapshot above all.
        serving.drive_office(|_, _| {});
        let terms = Terms::of(&config, acceptor);
        Ok(Self {
            listener,
            local_addr,
            public_url,
            state_dir: state.dir,
            serving,
            audit,
            terms,
            upkeep,
            tunnels_ended,
        })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The URL that people use for it: the configured one, else `http://localhost:<port>`.
    #[must_use]
    pub fn public_url(&self) -> &str {
        &self.public_url
    }

    /// Serves until `shutdown` is done, then ends in good order.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { listener, serving, state_dir, audit, terms, upkeep, mut tunnels_ended, .. } = self;
        tracing::info!(address = %self.local_addr, url = %self.public_url, "relay up");
        let timekeepers = serving.keep_time();
        let admin = state_dir.map(|dir| rt::spawn(serve_admin(dir.join(ADMIN_SOCKET), Arc::clone(&serving))));
        let stop = async {
            shutdown.await;
            tracing::info!("relay stopping");
            serving.stop();
        };
        let answering = Arc::clone(&serving);
        let upkeep = upkeep.map(rt::spawn);
        http::serve(listener, terms, move |request, place| Arc::clone(&answering).answer(request, place), stop).await;
        for task in timekeepers.into_iter().chain(admin).chain(upkeep) {
            task.abort();
            let _ = task.await;
        }
        // The channel ends when the last tunnel drops its end of it.
        drop(serving);
        let _ = timeout(TUNNEL_GRACE, tunnels_ended.recv()).await;
        if let Some(audit) = audit {
            audit.finish();
        }
        tracing::info!("relay down");
    }
}

/// Runs a relay until `shutdown` is done; `started` hears of it once it listens.
///
/// # Errors
/// Why it cannot start.
pub async fn serve(
    options: Options,
    started: impl FnOnce(&Relay),
    shutdown: impl Future<Output = ()>,
) -> Result<(), RelayError> {
    let relay = Relay::bind(options).await?;
    started(&relay);
    relay.run(shutdown).await;
    Ok(())
}

/// Carries out an operator's command: at the relay that runs on `state_dir`, or on the state itself when none does.
/// Returns the machine's answer, one JSON document.
///
/// # Errors
/// Why it could not be carried out.
pub async fn admin(config: &RelayConfig, state_dir: &Path, command: &AdminCommand) -> Result<Bytes, RelayError> {
    let question = serde_json::to_vec(command).map_err(|_| RelayError::Failed)?;
    match ipc::request(&state_dir.join(ADMIN_SOCKET), &question).await {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
        other => return other.map_err(RelayError::Silent),
    }
    let (store, records) = Store::open(state_dir)?;
    let settings = Settings::from_config(config, &config.url_at(config.port));
    let audit = audit(config, Some(state_dir))?;
    let clock = Clock::new();
    let keys = keyring(Some(state_dir), &config.secrets, &records)?;
    let mut grants = Grants::new(settings.oauth, keys, records, Box::new(OsEntropy::new()), clock.now());
    let job = tunnel_core::id::JobId(0);
    grants.handle_event(Event::Admin { job, command: command.clone() }, clock.now());
    while let Some(action) = grants.poll_action() {
        match action {
            Action::AdminReply { json, .. } => return Ok(json),
            Action::Audit(line) => audit.iter().for_each(|audit| audit.append(line.clone())),
            Action::Persist { job, changes } => {
                let result = store.submit(changes).wait().await;
                grants.handle_event(Event::Persisted { job, result }, clock.now());
            }
            Action::KeepKeys { job, keys } => {
                let result = keys::keep(state_dir, &keys).map_err(|error| error.to_string());
                grants.handle_event(Event::Persisted { job, result }, clock.now());
            }
            // Nobody is there to be told, and nothing is to be fetched for such a command.
            Action::Reply { .. }
            | Action::Fetch { .. }
            | Action::Verify { .. }
            | Action::Publish(_)
            | Action::Revoked { .. }
            | Action::RevokedAll
            | Action::SessionEnded { .. } => {}
        }
    }
    Err(RelayError::Failed)
}

/// The audit, if one is to be kept.
fn audit(config: &RelayConfig, dir: Option<&Path>) -> Result<Option<Shared>, RelayError> {
    config.audit.clone().map(|file| Shared::open(dir, file)).transpose().map_err(RelayError::Audit)
}

/// What a relay keeps.
struct State {
    keys: Keyring,
    store: Store,
    records: Records,
    /// `None`: nothing is kept.
    dir: Option<PathBuf>,
}

impl State {
    /// Opens it; without a directory that can be written to, it is in memory alone.
    async fn open(config: &RelayConfig, dir: Option<PathBuf>) -> Result<Self, RelayError> {
        let secrets = config.secrets.clone();
        // Syncing files and stretching a secret take their time.
        let opening = rt::spawn_blocking(move || {
            let (store, records, dir) = match dir.as_deref().map(Store::open).transpose() {
                Ok(Some((store, records))) => (store, records, dir),
                Ok(None) => (Store::in_memory(), Records::new(), None),
                // What is there and cannot be read may say who was signed out: not to be forgotten.
                Err(
                    error @ (StoreError::InUse(_)
                    | StoreError::Newer { .. }
                    | StoreError::Damaged { .. }
                    | StoreError::Faulty { .. }),
                ) => {
                    return Err(RelayError::State(error));
                }
                Err(error @ StoreError::Unusable { .. }) => {
                    tracing::warn!(reason = %error, "keys and sign-ins are kept in memory: every restart signs everybody out, with `secret` too");
                    (Store::in_memory(), Records::new(), None)
                }
            };
            let keys = keyring(dir.as_deref(), &secrets, &records)?;
            Ok(Self { keys, store, records, dir })
        });
        opening.await.unwrap_or(Err(RelayError::Failed))
    }
}

/// The keys, and a warning when they had to be made anew although there are grants of older ones.
fn keyring(dir: Option<&Path>, secrets: &[Secret], records: &Records) -> Result<Keyring, RelayError> {
    let now = Clock::new().now().unix;
    let gone = dir.filter(|dir| secrets.is_empty() && !keys::are_kept(dir));
    let keyring = keys::keyring(dir, secrets, &mut OsEntropy::new(), now)?;
    let lost = grants::alive_in(records, now);
    if let Some(dir) = gone.filter(|_| lost > 0) {
        tracing::warn!(
            path = %dir.join(keys::MASTER).display(),
            grants = lost,
            "the master key is gone, and a new one was made: these grants are lost, and whoever had them signs in again; \
             to keep them, put the old file back in place of the new one, and restart the relay"
        );
    }
    Ok(keyring)
}

/// What is to be said of the certificate files of `config`, each with its setting. Reads files.
///
/// # Errors
/// Which of them cannot be used.
pub fn check_tls(config: &RelayConfig) -> Result<Vec<(&'static str, String)>, TlsError> {
    config.tls.as_ref().map_or(Ok(Vec::new()), |tls| crate::tls::check(tls, public_host(config).as_deref()))
}

/// The name that clients use.
fn public_host(config: &RelayConfig) -> Option<String> {
    let url = config.public_url.as_deref()?.parse::<::http::Uri>().ok()?;
    url.host().map(str::to_owned)
}

/// What `tls` says, if it is there.
async fn tls(config: &RelayConfig, state_dir: Option<PathBuf>) -> Result<Option<(Acceptor, Upkeep)>, RelayError> {
    let Some(tls) = config.tls.clone() else { return Ok(None) };
    let host = public_host(config);
    let opening = rt::spawn_blocking(move || Acceptor::open(&tls, host.as_deref(), state_dir.as_deref()));
    Ok(Some(opening.await.map_err(|_| RelayError::Failed)??))
}

async fn serve_admin(path: PathBuf, serving: Arc<Serving>) {
    let server = match ipc::Server::bind(&path) {
        Ok(server) => server,
        Err(error) => return tracing::warn!(path = %path.display(), %error, "no socket for operators"),
    };
    server
        .serve(move |line| {
            let serving = Arc::clone(&serving);
            async move {
                let Ok(command) = serde_json::from_slice(&line) else {
                    return Bytes::from_static(br#"{"ok":false,"error":"not a command"}"#);
                };
                let answer = serving.question(command).await;
                answer.unwrap_or_else(|| Bytes::from_static(br#"{"ok":false,"error":"the relay had a fault"}"#))
            }
        })
        .await;
}

/// A power of two near the number of cores: enough that two of them seldom want the same lock.
fn shard_count() -> usize {
    std::thread::available_parallelism().map_or(4, |cores| (cores.get() * 2).next_power_of_two().min(MAX_SHARDS))
}

/// A connection is a descriptor, and the usual limit is for programs of another kind.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of descriptors stays as it is");
    }
}

/// The operator's socket in the state directory.
pub const ADMIN_SOCKET: &str = "admin.sock";
/// Passwords checked side by side: each takes some 20 MiB for a moment.
const VERIFIED_AT_ONCE: usize = 4;
const MAX_SHARDS: usize = 64;

//! The driver of the agent's sign-in: alone for `login` and `logout`, and as a part of an agent. A probe signs in with the
//! same means.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tunnel_core::host::Machine;
use tunnel_core::probe::contract::{self as probe, Entry, Report};
use tunnel_core::probe::machine::Probe;
use tunnel_core::secret::Secret;
use tunnel_core::signin::machine::{Action, Event, Identity, Leave, Person, Settings, Signin};

use crate::callback::Callback;
use crate::clock::Clock;
use crate::entropy::OsEntropy;
use crate::files::{Lock, TokenFile};
use crate::net::Connector;
use crate::rt::{self, sleep_until};
use crate::{browser, fetch};

pub use crate::browser::{has_screen, person};
pub use tunnel_core::signin::machine::Failure;

/// Which sign-in.
#[derive(Debug, Clone)]
pub struct Options {
    /// The relay's URL, as the configuration has it.
    pub relay: String,
    /// Where tokens are kept.
    pub config_dir: PathBuf,
    /// Whether a relay that is neither `https` nor loopback may be used.
    pub allow_insecure: bool,
    /// `caFile` of the configuration.
    pub ca_file: Option<PathBuf>,
    /// What this machine calls itself.
    pub device: String,
    /// Who helps where a person is needed.
    pub person: Person,
}

/// Signs in, unless there are tokens that work.
///
/// # Errors
/// Why there is no token.
pub async fn login(options: &Options) -> Result<(), Failure> {
    run(options, Event::Start { person: options.person }).await.map(drop)
}

/// Revokes the tokens at the relay, then forgets them; with `force` also those that cannot be revoked.
///
/// # Errors
/// Why they are kept.
pub async fn logout(options: &Options, force: bool) -> Result<Leave, Failure> {
    // What cannot be read may be mended, and revoked then.
    let unreadable = TokenFile::new(&options.config_dir, &options.relay).load().err();
    if let Some(cause) = unreadable.clone().filter(|_| !force) {
        return Err(Failure::NotRevoked { cause });
    }
    match run(options, Event::Logout { force }).await? {
        Outcome::Left(leave) => Ok(unreadable.map_or(leave, |cause| Leave::LivesOn { cause })),
        Outcome::Ready | Outcome::Identified(_) => Ok(Leave::Nothing),
    }
}

/// Asks the relay what the sign-in is, or what `minted` is, a token that stands in no file.
///
/// # Errors
/// Why it cannot be told; [`Failure::NeedsLogin`] when nobody is signed in.
pub async fn whoami(options: &Options, minted: Option<Secret>) -> Result<Identity, Failure> {
    match run(options, Event::Inquire { minted }).await? {
        Outcome::Identified(identity) => Ok(identity),
        Outcome::Ready | Outcome::Left(_) => Ok(Identity::default()),
    }
}

/// Looks at any MCP endpoint as a client of it. Nothing is kept.
///
/// # Errors
/// Why nothing was found.
pub async fn probe(settings: probe::Settings, ca_file: Option<&Path>) -> Result<Report, probe::Failure> {
    let connector = connector(ca_file, &settings.url).map_err(|cause| probe::Failure::Local { cause })?;
    // It orders no file.
    let nowhere = TokenFile::new(Path::new(""), &settings.url);
    let mut machine = Probe::new(settings, Box::new(OsEntropy::new()));
    let first = Event::Start { person: Person::Here };
    drive(&mut machine, first, nowhere, connector, |action| match action {
        probe::Action::Desk(action) => ControlFlow::Continue(action),
        probe::Action::Entered(_) => unreachable!("it is not to stay"),
        probe::Action::Done(outcome) => ControlFlow::Break(outcome),
    })
    .await
}

/// A stay at an endpoint that was probed: as long as it lasts, so does the sign-in.
pub struct Visit {
    /// The way in.
    pub entry: Entry,
    /// What connects to it.
    pub connector: Connector,
    machine: Probe,
}

/// The same as [`probe`], to go on asking there.
///
/// # Errors
/// Why nothing was found.
pub async fn visit(settings: probe::Settings, ca_file: Option<&Path>) -> Result<Visit, probe::Failure> {
    let connector = connector(ca_file, &settings.url).map_err(|cause| probe::Failure::Local { cause })?;
    let nowhere = TokenFile::new(Path::new(""), &settings.url);
    let mut machine = Probe::new(probe::Settings { stay: true, ..settings }, Box::new(OsEntropy::new()));
    let first = Event::Start { person: Person::Here };
    let entry = drive(&mut machine, first, nowhere, connector.clone(), |action| match action {
        probe::Action::Desk(action) => ControlFlow::Continue(action),
        probe::Action::Entered(entry) => ControlFlow::Break(Ok(*entry)),
        probe::Action::Done(outcome) => ControlFlow::Break(Err(outcome.expect_err("it stays where all went well"))),
    })
    .await?;
    Ok(Visit { entry, connector, machine })
}

impl Visit {
    /// Ends the session, and gives the tokens of the sign-in up.
    pub async fn leave(mut self) {
        if let Some(farewell) = self.entry.farewell() {
            // A server may not let its sessions be ended.
            drop(fetch::fetch(&self.connector, farewell).await);
        }
        let nowhere = TokenFile::new(Path::new(""), "");
        drive(&mut self.machine, Event::Logout { force: false }, nowhere, self.connector, |action| match action {
            probe::Action::Desk(action) => ControlFlow::Continue(action),
            probe::Action::Entered(_) | probe::Action::Done(_) => ControlFlow::Break(()),
        })
        .await;
    }
}

impl std::fmt::Debug for Visit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visit").finish_non_exhaustive()
    }
}

/// How a sign-in ended that was driven alone.
enum Outcome {
    Ready,
    Left(Leave),
    Identified(Identity),
}

async fn run(options: &Options, first: Event) -> Result<Outcome, Failure> {
    let settings = Settings {
        relay: options.relay.clone(),
        allow_insecure: options.allow_insecure,
        device: options.device.clone(),
    };
    let mut machine = Signin::new(settings, Box::new(OsEntropy::new()));
    let tokens = TokenFile::new(&options.config_dir, &options.relay);
    let connector = connector(options.ca_file.as_deref(), &options.relay).map_err(|cause| Failure::Local { cause })?;
    drive(&mut machine, first, tokens, connector, |action| match action {
        Action::Ready { .. } => ControlFlow::Break(Ok(Outcome::Ready)),
        Action::SignedOut(leave) => ControlFlow::Break(Ok(Outcome::Left(leave))),
        Action::Identified(identity) => ControlFlow::Break(Ok(Outcome::Identified(identity))),
        Action::Failed(failure) => ControlFlow::Break(Err(failure)),
        action => ControlFlow::Continue(action),
    })
    .await
}

/// What connects to `url`, or for people why nothing can.
fn connector(ca_file: Option<&Path>, url: &str) -> Result<Connector, String> {
    let connector = Connector::from_environment(ca_file).map_err(|error| error.to_string())?;
    connector.check(url).map_err(|error| error.to_string())?;
    Ok(connector)
}

/// Drives a machine that signs somebody in, to its end. `sort` tells orders for the desk from the end.
async fn drive<M: Machine<Event = Event>, T>(
    machine: &mut M,
    first: Event,
    tokens: TokenFile,
    connector: Connector,
    sort: impl Fn(M::Action) -> ControlFlow<T, Action>,
) -> T {
    let clock = Clock::new();
    let (events, mut happened) = mpsc::unbounded_channel();
    let mut desk = Desk::new(tokens, connector, move |event| drop(events.send(event)));
    machine.handle_event(first, clock.now());
    loop {
        while let Some(action) = machine.poll_action() {
            match sort(action) {
                ControlFlow::Continue(order) => desk.carry_out(order),
                ControlFlow::Break(outcome) => return outcome,
            }
        }
        let deadline = machine.poll_timeout();
        let due = async {
            match deadline {
                Some(deadline) => sleep_until(clock.to_host(deadline.at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(event) = happened.recv() => machine.handle_event(event, clock.now()),
            () = due => machine.handle_timeout(clock.now()),
        }
    }
}

/// Carries out what a sign-in orders, and brings what comes of it.
pub(crate) struct Desk {
    tokens: TokenFile,
    connector: Connector,
    bring: Bring,
    listening: Listening,
    /// The lock on the tokens, while it is held.
    lock: Arc<Mutex<Option<Lock>>>,
}

type Bring = Arc<dyn Fn(Event) + Send + Sync>;
type Listening = Arc<tokio::sync::Mutex<Option<Callback>>>;

impl Desk {
    pub(crate) fn new(tokens: TokenFile, connector: Connector, bring: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self { tokens, connector, bring: Arc::new(bring), listening: Listening::default(), lock: Arc::default() }
    }

    /// Begins an order; never waits.
    pub(crate) fn carry_out(&mut self, action: Action) {
        let bring = Arc::clone(&self.bring);
        let listening = Arc::clone(&self.listening);
        match action {
            Action::Load => self.on_file(|tokens, lock| {
                hold(tokens, lock);
                let loaded = tokens.load().unwrap_or_else(|reason| {
                    tracing::warn!(reason, "cannot read the tokens");
                    None
                });
                Event::Loaded(loaded)
            }),
            Action::Save(content) => self.on_file(move |tokens, lock| {
                let _lock = if is_held(lock) { None } else { take(tokens) };
                Event::Saved(tokens.save(content.as_ref()))
            }),
            // Ordered after whatever needed it has ended: nobody waits for the mutex.
            Action::Unlock => drop(place(&self.lock).take()),
            Action::Fetch { fetch, request } => {
                let connector = self.connector.clone();
                rt::spawn(async move {
                    let result = fetch::fetch(&connector, request).await;
                    bring(Event::Fetched { fetch, result });
                });
            }
            Action::Listen => {
                rt::spawn(async move {
                    let mut place = listening.lock().await;
                    let asked = Arc::clone(&bring);
                    let result = Callback::listen(move |target| asked(Event::Callback { target })).await;
                    let port = result.as_ref().map(Callback::port).map_err(Clone::clone);
                    *place = result.ok();
                    drop(place);
                    bring(Event::Listening(port));
                });
            }
            Action::AnswerCallback(page) => {
                // The lock is free: whoever asks was listened to.
                if let Ok(place) = listening.try_lock()
                    && let Some(callback) = &*place
                {
                    callback.answer(page);
                }
            }
            Action::StopListening => {
                rt::spawn(async move { drop(listening.lock().await.take()) });
            }
            Action::OpenBrowser { url } => browser::open(&url),
            Action::ShowCode { page, direct, code } => browser::show_code(&page, direct.as_deref(), &code),
            // For whoever drives the sign-in alone; inside an agent they stay inside.
            Action::Ready { .. } | Action::SignedOut(_) | Action::Identified(_) | Action::Failed(_) => {}
        }
    }

    fn on_file(&self, work: impl FnOnce(&TokenFile, &Mutex<Option<Lock>>) -> Event + Send + 'static) {
        let tokens = self.tokens.clone();
        let (bring, lock) = (Arc::clone(&self.bring), Arc::clone(&self.lock));
        rt::spawn_blocking(move || bring(work(&tokens, &lock)));
    }
}

/// Holds the lock from now on, unless it is held already.
fn hold(tokens: &TokenFile, lock: &Mutex<Option<Lock>>) {
    if !is_held(lock) {
        let taken = take(tokens);
        *place(lock) = taken;
    }
}

/// Without a lock it goes on: a file system that has none, or a process that hangs, must not sign anybody out.
fn take(tokens: &TokenFile) -> Option<Lock> {
    tokens.lock().inspect_err(|reason| tracing::warn!(reason, "the tokens are used without a lock")).ok()
}

fn is_held(lock: &Mutex<Option<Lock>>) -> bool {
    place(lock).is_some()
}

fn place(lock: &Mutex<Option<Lock>>) -> std::sync::MutexGuard<'_, Option<Lock>> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

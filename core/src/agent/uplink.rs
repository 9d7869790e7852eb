//! The uplink: when the relay is dialled, with what, and what its answers mean.
//!
//! ```text
//!   Idle ── token ──► Dialing ──────► Open
//!                      ▲  │ failed      │ closed
//!              backoff │  ▼             ▼
//!                     Waiting ◄─────────┤
//!   SigningIn ◄── 401, revoked ─────────┤   (without a token, Waiting leads to SigningIn, and a failed sign-in back)
//!   Halted ◄── do not retry ────────────┘   (SIGHUP dials)
//! ```
//!
//! A machine that was asleep is known by its wall clock, which ran ahead of the monotonic one: the tunnel is probed, or
//! dialled, at once, and the time is nobody's failure.

use alloc::format;
use alloc::string::{String, ToString};
use core::time::Duration;

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use url::Url;

use super::contract::{Action, DialError, Exit, Identity};
use super::cx::{Cx, Timer};
use super::server::people;
use super::status;
use crate::backoff::Backoff;
use crate::entropy;
use crate::http::{fields, retry};
use crate::id::{ConnId, DeviceId, DeviceName};
use crate::limits;
use crate::secret::Secret;
use crate::signin::machine::Failure;
use crate::time::{Instant, Now, UnixTime};
use crate::tunnel::{Close, CloseCode, Command, Dialect, HANDS_ON, Hello, upgrade};

/// The uplink of one agent.
pub(super) struct Uplink {
    relay: String,
    device: DeviceName,
    device_id: DeviceId,
    hello: Hello,
    /// The token was minted by the operator: there is no sign-in that could bring another.
    minted: bool,
    token: Option<Token>,
    state: State,
    since: Instant,
    backoff: Backoff,
    last_conn: u64,
    /// Attempts since it was last connected.
    attempts: u32,
    /// Refusals of a token in a row: a fresh one that is refused, too, is not exchanged at once.
    refusals: u32,
    /// The device's name was said to be taken, and the tunnel has not held since.
    name_taken: bool,
    last_error: Option<String>,
}

struct Token {
    access: Secret,
    /// `None`: not known (minted).
    expires: Option<UnixTime>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Before the first token.
    Idle,
    /// A new token is being got.
    SigningIn,
    Dialing(ConnId),
    Open(Open),
    /// Until [`Timer::Redial`].
    Waiting,
    /// The relay said no for good.
    Halted,
    /// The agent ends.
    Closed,
}

/// An open tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    conn: ConnId,
    dialect: Dialect,
    /// The relay's hello came.
    up: bool,
    version: String,
    rtt_micros: Option<u64>,
}

/// What the uplink wants of its agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    /// Another token.
    Signin,
    /// The end.
    Exit(Exit),
}

impl Uplink {
    pub(super) fn new(relay: String, identity: &Identity, minted: Option<Secret>) -> Self {
        let hello = Hello {
            version: identity.version.clone(),
            os: identity.os.clone(),
            device: identity.device.as_str().to_string(),
            max_message: u64::try_from(limits::MAX_MESSAGE).unwrap_or(u64::MAX),
            max_streams: u32::try_from(limits::MAX_STREAMS).unwrap_or(u32::MAX),
            features: [HANDS_ON.to_string()].into(),
            ..Hello::default()
        };
        Self {
            relay,
            device: identity.device.clone(),
            device_id: identity.device_id.clone(),
            hello,
            minted: minted.is_some(),
            token: minted.map(|access| Token { access, expires: None }),
            state: State::Idle,
            since: Instant::default(),
            backoff: Backoff::to_reconnect(),
            last_conn: 0,
            attempts: 0,
            refusals: 0,
            name_taken: false,
            last_error: None,
        }
    }

    /// Whether a token is at hand, so that no sign-in is needed.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The connection, if it is usable.
    pub(super) fn up(&self) -> Option<ConnId> {
        match &self.state {
            State::Open(Open { conn, up: true, .. }) => Some(*conn),
            _ => None,
        }
    }

    /// Whether a call's stream carries messages both ways: an old relay knows calls and answers alone.
    pub(super) fn carries_messages(&self) -> bool {
        matches!(&self.state, State::Open(Open { dialect: Dialect::V2, .. }))
    }

    /// Whether `conn` is the connection of now; what an older one says is of no interest.
    pub(super) fn is_current(&self, conn: ConnId) -> bool {
        self.conn() == Some(conn)
    }

    fn conn(&self) -> Option<ConnId> {
        match &self.state {
            State::Dialing(conn) => Some(*conn),
            State::Open(open) => Some(open.conn),
            State::Idle | State::SigningIn | State::Waiting | State::Halted | State::Closed => None,
        }
    }

    /// A token came.
    pub(super) fn token(&mut self, access: Secret, expires: UnixTime, cx: &mut Cx) -> Wish {
        self.token = Some(Token { access, expires: Some(expires) });
        match self.state {
            State::Idle => self.dial(cx),
            State::SigningIn if self.refusals <= 1 => self.dial(cx),
            // The relay refuses token after token: not asked faster than it is dialled.
            State::SigningIn => self.wait(Duration::ZERO, cx),
            // A refresh: an open tunnel belongs to its grant, not to its token.
            State::Dialing(_) | State::Open(_) | State::Waiting | State::Halted | State::Closed => Wish::Nothing,
        }
    }

    /// No token can be had now, nor before `at_least` is over. `true`: one is needed, and it is tried again when the relay
    /// would be dialled.
    pub(super) fn wait_for_token(&mut self, at_least: Duration, cx: &mut Cx) -> bool {
        let needed = matches!(self.state, State::Idle | State::SigningIn);
        if needed {
            self.wait(at_least, cx);
        }
        needed
    }

    /// Dials, if there is a token that may still be good.
    pub(super) fn dial(&mut self, cx: &mut Cx) -> Wish {
        cx.timers.clear(&Timer::Redial);
        let Some(token) = &self.token else { return self.sign_in(cx) };
        if token.expires.is_some_and(|expires| expires <= cx.now.unix) && !self.minted {
            return self.sign_in(cx);
        }
        let Some((url, headers)) = self.request(&token.access) else {
            return self.halt("the relay's URL or the token cannot be put into a request".to_string(), cx);
        };
        self.last_conn += 1;
        self.attempts = self.attempts.saturating_add(1);
        let conn = ConnId(self.last_conn);
        tracing::debug!(conn = conn.0, attempt = self.attempts, "dialling the relay");
        self.enter(State::Dialing(conn), cx);
        cx.out.push(Action::Dial { conn, url, headers, hello: self.hello.clone() });
        Wish::Nothing
    }

    /// The WebSocket handshake is done.
    pub(super) fn dialed(&mut self, conn: ConnId, dialect: Dialect, cx: &mut Cx) {
        if self.state != State::Dialing(conn) {
            // It came too late: the agent ends.
            let close = Close::new(CloseCode::GoingAway, "not needed any more");
            return cx.out.push(Action::Tunnel { conn, command: Command::Close(close) });
        }
        let open = Open { conn, dialect, up: false, version: String::new(), rtt_micros: None };
        self.enter(State::Open(open), cx);
    }

    /// The relay said hello: the tunnel is usable.
    pub(super) fn hello(&mut self, hello: &Hello, cx: &mut Cx) {
        let State::Open(open) = &mut self.state else { return };
        open.up = true;
        open.version = people(&hello.version, limits::MAX_QUOTE);
        tracing::info!(conn = open.conn.0, dialect = ?open.dialect, "connected to the relay");
        self.since = cx.now.instant;
        self.attempts = 0;
        self.last_error = None;
        self.backoff.connected(cx.now.instant);
    }

    /// A round trip was measured.
    pub(super) fn round_trip(&mut self, micros: u64) {
        if let State::Open(open) = &mut self.state {
            open.rtt_micros = Some(micros);
        }
    }

    /// The tunnel could not be connected.
    pub(super) fn dial_failed(&mut self, error: &DialError, cx: &mut Cx) -> Wish {
        if !matches!(self.state, State::Dialing(_)) {
            tracing::debug!("failure of a tunnel that was connected dropped");
            return Wish::Nothing;
        }
        self.note(people(&self.what_failed(error), limits::MAX_REASON));
        match error {
            DialError::Connect(_) | DialError::TimedOut => self.wait(Duration::ZERO, cx),
            DialError::Status { status, retry_after, challenge, message } => match StatusCode::from_u16(*status) {
                Ok(StatusCode::UNAUTHORIZED) if self.is_relays(challenge, message) => self.refused(cx),
                Ok(StatusCode::FORBIDDEN) if is_of_a_client(error) && self.minted => self.needs_token(format!(
                    "{} does not take this token for an agent's, it is a client's: make one with `mcp-local-tunnel token create --role agent`",
                    self.relay
                ), cx),
                Ok(StatusCode::FORBIDDEN) if is_of_a_client(error) => {
                    self.note(format!(
                        "{} does not take this sign-in for an agent: sign in again, or use an agent's token",
                        self.relay
                    ));
                    self.wait(limits::RECONNECT_REFUSED, cx)
                }
                Ok(StatusCode::FORBIDDEN) => self.wait(limits::RECONNECT_REFUSED, cx),
                Ok(StatusCode::CONFLICT) => self.name_taken(cx),
                // 511 is a captive portal's.
                Ok(status) if status != StatusCode::NETWORK_AUTHENTICATION_REQUIRED => {
                    self.wait(retry::wait(status, retry_after.as_deref(), cx.now.unix), cx)
                }
                _ => self.wait(Duration::ZERO, cx),
            },
        }
    }

    /// The tunnel is over.
    pub(super) fn closed(&mut self, close: &Close, cx: &mut Cx) -> Wish {
        self.backoff.lost(cx.now.instant);
        if cx.now.instant.saturating_since(self.since) >= limits::RECONNECT_STABLE {
            self.refusals = 0;
            self.name_taken = false;
        }
        let reason = people(&close.reason, limits::MAX_REASON);
        tracing::info!(code = ?close.code, reason = reason.as_str(), "tunnel closed");
        self.note(if reason.is_empty() { format!("closed: {:?}", close.code) } else { reason.clone() });
        match close.code {
            CloseCode::Normal
            | CloseCode::GoingAway
            | CloseCode::Protocol
            | CloseCode::TooBig
            | CloseCode::Internal
            | CloseCode::TimedOut
            | CloseCode::Other(_) => self.wait(Duration::ZERO, cx),
            CloseCode::Revoked => self.refused(cx),
            CloseCode::NameTaken => self.name_taken(cx),
            CloseCode::Refused => self.halt(format!("{} refused this device: {reason}", self.relay), cx),
            CloseCode::Replaced => {
                self.enter(State::Halted, cx);
                Wish::Exit(Exit::Refused(
                    "another agent of this device has connected, and took this one's place".to_string(),
                ))
            }
        }
    }

    /// The time to wait is over.
    pub(super) fn redial(&mut self, cx: &mut Cx) -> Wish {
        if self.state == State::Waiting { self.dial(cx) } else { Wish::Nothing }
    }

    /// Somebody knows of a reason to try at once: SIGHUP, the network, a machine that woke up.
    pub(super) fn nudge(&mut self, cx: &mut Cx) -> Wish {
        match &self.state {
            State::Open(open) => {
                cx.out.push(Action::Tunnel { conn: open.conn, command: Command::Probe });
                Wish::Nothing
            }
            State::Waiting | State::Halted => {
                // Not counted as an attempt of the backoff's.
                self.attempts = self.attempts.saturating_sub(1);
                self.dial(cx)
            }
            State::Idle | State::SigningIn | State::Dialing(_) | State::Closed => Wish::Nothing,
        }
    }

    /// The machine was asleep: as [`nudge`](Self::nudge), but a relay that said no is left alone.
    pub(super) fn woke(&mut self, cx: &mut Cx) -> Wish {
        if self.state == State::Halted { Wish::Nothing } else { self.nudge(cx) }
    }

    /// The agent ends: closes the tunnel. Returns the one whose end is still to come.
    pub(super) fn close(&mut self, cx: &mut Cx) -> Option<ConnId> {
        cx.timers.clear(&Timer::Redial);
        let open = match &self.state {
            State::Open(open) => Some(open.conn),
            _ => None,
        };
        if let Some(conn) = open {
            cx.out.push(Action::Tunnel { conn, command: Command::GoAway });
            let close = Close::new(CloseCode::GoingAway, "the agent stops");
            cx.out.push(Action::Tunnel { conn, command: Command::Close(close) });
        }
        self.enter(State::Closed, cx);
        open
    }

    /// For the status document.
    pub(super) fn status(&self, cx: &Cx) -> status::Relay {
        let (state, open) = match &self.state {
            State::Idle | State::SigningIn => (status::Uplink::SigningIn, None),
            State::Dialing(_) | State::Open(Open { up: false, .. }) => (status::Uplink::Connecting, None),
            State::Open(open) => (status::Uplink::Connected, Some(open)),
            State::Waiting => (status::Uplink::Waiting, None),
            State::Halted => (status::Uplink::Halted, None),
            State::Closed => (status::Uplink::Closed, None),
        };
        let next = cx.timers.get(&Timer::Redial).map(|at| at.saturating_since(cx.now.instant));
        status::Relay {
            url: self.relay.clone(),
            state,
            since_secs: cx.now.instant.saturating_since(self.since).as_secs(),
            dialect: open.map(|open| format!("{:?}", open.dialect)),
            version: open.map(|open| open.version.clone()),
            rtt_micros: open.and_then(|open| open.rtt_micros),
            attempts: self.attempts,
            next_attempt_ms: next.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            last_error: self.last_error.clone(),
        }
    }

    /// Something went wrong that only people can judge.
    pub(super) fn note(&mut self, error: String) {
        self.last_error = Some(error);
    }

    /// Whether a 401 is the relay's own word about the token: it asks for a bearer token (RFC 6750 section 3). A bare one
    /// may be of a relay of dialect V1, which says no more; a sign-in is exchanged for it once, and none that was minted
    /// is given up.
    fn is_relays(&self, challenge: &str, message: &str) -> bool {
        let is_bare = challenge.is_empty() && !is_page(message);
        fields::asks_for_bearer(challenge) || (is_bare && !self.minted && self.refusals == 0)
    }

    /// The relay does not take the token.
    fn refused(&mut self, cx: &mut Cx) -> Wish {
        self.refusals = self.refusals.saturating_add(1);
        if self.minted {
            let cause = format!(
                "{} does not take this token (any more): make another with `mcp-local-tunnel token create`",
                self.relay
            );
            return self.needs_token(cause, cx);
        }
        self.sign_in(cx)
    }

    /// Only the operator can help.
    fn needs_token(&mut self, cause: String, cx: &mut Cx) -> Wish {
        self.enter(State::Halted, cx);
        Wish::Exit(Exit::NeedsLogin(Failure::Refused { cause }))
    }

    /// Another device has this one's name. It may go, or be renamed: asked now and then, and said once.
    fn name_taken(&mut self, cx: &mut Cx) -> Wish {
        let reason = format!(
            "another device is connected as \"{}\": give one of them another `name` in its configuration",
            self.device
        );
        if core::mem::replace(&mut self.name_taken, true) {
            tracing::debug!(reason = reason.as_str(), "name still taken");
        } else {
            tracing::warn!(reason = reason.as_str(), "name taken: tried again now and then");
        }
        self.note(reason);
        let jitter = entropy::duration_up_to(&mut cx.jitter, limits::NAME_TAKEN_RETRY / 4);
        self.wait_for(limits::NAME_TAKEN_RETRY + jitter, cx)
    }

    fn sign_in(&mut self, cx: &mut Cx) -> Wish {
        self.enter(State::SigningIn, cx);
        Wish::Signin
    }

    fn wait(&mut self, at_least: Duration, cx: &mut Cx) -> Wish {
        let delay = self.backoff.next(&mut cx.jitter).max(at_least);
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let reason = self.last_error.as_deref().unwrap_or_default();
        tracing::info!(attempt = self.attempts, delay_ms, reason, "relay will be dialled again");
        self.wait_for(delay, cx)
    }

    fn wait_for(&mut self, delay: Duration, cx: &mut Cx) -> Wish {
        cx.timers.set(Timer::Redial, cx.now.instant + delay);
        self.enter(State::Waiting, cx);
        Wish::Nothing
    }

    fn halt(&mut self, reason: String, cx: &mut Cx) -> Wish {
        tracing::warn!(reason = reason.as_str(), "relay refuses this agent: not tried again before SIGHUP");
        self.note(reason);
        self.enter(State::Halted, cx);
        Wish::Nothing
    }

    fn enter(&mut self, state: State, cx: &Cx) {
        self.state = state;
        self.since = cx.now.instant;
    }

    /// Why there is no tunnel, for people. A web page is nothing to read in a log.
    fn what_failed(&self, error: &DialError) -> String {
        let DialError::Status { status, challenge, message, .. } = error else { return error.to_string() };
        // No relay answers so: RFC 9110 section 15.2.2 knows one success, and 511 is a captive portal's (RFC 6585).
        if matches!(status, 100..=399 | 511) {
            return format!(
                "something in between answers for {} ({status}): if this network has a sign-in page, open it in a browser",
                self.relay
            );
        }
        if *status == 401 && !self.is_relays(challenge, message) {
            return format!(
                "something in between asks for a password, or the relay does not say why it refuses (401): if this network has a sign-in page, open it in a browser, else look at what stands before {}",
                self.relay
            );
        }
        if is_page(message) || message.trim().is_empty() {
            return format!("the relay answered {status}");
        }
        error.to_string()
    }

    /// The upgrade request. The token is in a header, never in the URL.
    fn request(&self, access: &Secret) -> Option<(String, HeaderMap)> {
        let mut url = Url::parse(&self.relay).ok()?;
        let scheme = if url.scheme() == "http" { "ws" } else { "wss" };
        url.set_scheme(scheme).ok()?;
        url.path_segments_mut().ok()?.pop_if_empty().push("ws");
        url.query_pairs_mut().append_pair("name", self.device.as_str());
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", access.expose())).ok()?;
        bearer.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, bearer);
        headers.insert(HeaderName::from_static("mcp-tunnel"), HeaderValue::from_static("2"));
        let device_id = HeaderValue::from_str(self.device_id.as_str()).ok()?;
        headers.insert(HeaderName::from_static("mcp-tunnel-device"), device_id);
        Some((url.into(), headers))
    }
}

fn is_page(message: &str) -> bool {
    message.trim_start().starts_with('<')
}

/// Whether the relay means the token's kind. A 403 of something in between, or of a relay that does not know its own
/// address, says nothing about the token.
fn is_of_a_client(error: &DialError) -> bool {
    matches!(error, DialError::Status { message, .. } if message.contains(upgrade::ONLY_AGENTS))
}

/// Both clocks, compared: has the machine been asleep?
#[derive(Debug, Default)]
pub(super) struct Watch(Option<Now>);

impl Watch {
    /// Whether the wall clock ran ahead of the monotonic one since the last look. A clock that was set ahead looks the
    /// same: a probe does no harm.
    pub(super) fn woke(&mut self, now: Now) -> bool {
        let Some(last) = self.0.replace(now) else { return false };
        let wall = now.unix.saturating_since(last.unix);
        let steady = now.instant.saturating_since(last.instant);
        wall.saturating_sub(steady) >= limits::SUSPEND_GAP
    }
}

#[cfg(test)]
mod tests;

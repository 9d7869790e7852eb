//! The driven machine of the agent's sign-in. It stands alone for `login` and `logout`; an agent has one as a child.

use alloc::boxed::Box;
use alloc::string::String;

use bytes::Bytes;

use crate::entropy::Entropy;
use crate::host::{Machine, Mailbox};
use crate::http::fetch::{Fetch, FetchError, Fetched};
use crate::id::FetchId;
use crate::secret::Secret;
use crate::time::{Deadline, Now, UnixTime};

/// What happened, as far as the agent's sign-in is concerned.
#[derive(Debug)]
pub enum Event {
    /// A token is wanted. `interactive`: a person is there, a browser may be opened.
    Start {
        /// Whether a browser may be opened.
        interactive: bool,
    },
    /// The cached tokens were read: the file's content, `None` when there is none.
    Loaded(Option<Bytes>),
    /// The tokens were written, or why not.
    Saved(Result<(), String>),
    /// A fetch ended.
    Fetched {
        /// Which.
        fetch: FetchId,
        /// With what.
        result: Result<Fetched, FetchError>,
    },
    /// The loopback listener is ready, or why not.
    Listening(Result<u16, String>),
    /// The loopback listener was asked for this path and query.
    Callback {
        /// The request target, `/callback?code=…` for one.
        target: String,
    },
    /// The relay refused the access token.
    Refused,
    /// Forget the tokens, and revoke them at the relay.
    Logout,
}

/// What the agent's sign-in orders.
#[derive(Debug)]
pub enum Action {
    /// Read the cached tokens (0600 file of this relay), then bring [`Event::Loaded`].
    Load,
    /// Replace the cached tokens atomically, 0600 in a 0700 directory; `None` removes the file.
    Save(Option<Secret>),
    /// Make a request to the relay.
    Fetch {
        /// Its number.
        fetch: FetchId,
        /// The request.
        request: Fetch,
    },
    /// Listen on a loopback port of the system's choice for the redirect, then bring [`Event::Listening`].
    Listen,
    /// Answer the waiting callback with this page (status 200 or 400), and stop listening when `done`.
    AnswerCallback {
        /// HTML.
        page: String,
        /// Whether the sign-in went well.
        ok: bool,
    },
    /// Stop listening.
    StopListening,
    /// Show this URL, and open the system's browser with it (no shell).
    OpenBrowser {
        /// The URL, `https` or loopback `http`; built by core, safe to pass as one argument.
        url: String,
    },
    /// The access token to use from now on.
    Ready {
        /// The token.
        access: Secret,
        /// When it runs out.
        expires: UnixTime,
    },
    /// Signed out, here and at the relay.
    SignedOut,
    /// No token can be had.
    Failed(Failure),
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A person must sign in, and none is there.
    #[error("not signed in to {relay}: run `mcp-local-tunnel login`")]
    NeedsLogin {
        /// The relay's URL.
        relay: String,
    },
    /// The relay cannot be reached; it is tried again by itself.
    #[error("cannot reach {relay}: {cause}")]
    Unreachable {
        /// The relay's URL.
        relay: String,
        /// What the fetch said.
        cause: String,
    },
    /// The relay's answer breaks a rule (issuer, missing endpoint, no S256).
    #[error("{relay} is not a relay this agent can use: {cause}")]
    NotARelay {
        /// The relay's URL.
        relay: String,
        /// Which rule.
        cause: String,
    },
    /// The person or the relay said no.
    #[error("sign-in was refused: {cause}")]
    Refused {
        /// What was said.
        cause: String,
    },
    /// This machine failed: the token file, the loopback listener.
    #[error("{cause}")]
    Local {
        /// What failed and how to mend it.
        cause: String,
    },
}

/// What a sign-in is for.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The relay: `https://host[:port]` or `http://…`, without trailing slash, as
    /// [`AgentConfig::relay`](crate::config::AgentConfig::relay) has it.
    pub relay: String,
    /// Whether a relay that is neither `https` nor loopback may be used (`--allow-insecure`).
    pub allow_insecure: bool,
}

/// The agent's sign-in at its relay.
pub struct Signin {
    #[expect(dead_code, reason = "its user follows")]
    settings: Settings,
    #[expect(dead_code, reason = "its user follows")]
    entropy: Box<dyn Entropy>,
    out: Mailbox<Action>,
}

impl Signin {
    /// A sign-in that has done nothing yet; [`Event::Start`] begins.
    #[must_use]
    pub fn new(settings: Settings, entropy: Box<dyn Entropy>) -> Self {
        Self { settings, entropy, out: Mailbox::default() }
    }
}

impl Machine for Signin {
    type Event = Event;
    type Action = Action;

    fn handle_event(&mut self, event: Event, now: Now) {
        let _ = (event, now);
    }

    fn handle_timeout(&mut self, now: Now) {
        let _ = now;
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        None
    }
}

//! What goes in and out of the agent's sign-in.

use alloc::string::String;
use core::fmt;

use bytes::Bytes;

use crate::http::Reply;
use crate::http::fetch::{Fetch, FetchError, Fetched};
use crate::id::FetchId;
use crate::secret::Secret;
use crate::time::UnixTime;

/// What happened, as far as the agent's sign-in is concerned. Its `Debug` shows neither tokens nor codes.
pub enum Event {
    /// A token is wanted.
    Start {
        /// Who is there to sign in.
        person: Person,
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
    /// The loopback listener was asked for this path and query; the asker waits for [`Action::AnswerCallback`].
    Callback {
        /// The request target, `/callback?code=…` for one.
        target: String,
    },
    /// The relay refused the access token.
    Refused,
    /// Revoke the tokens at the relay, then forget them.
    Logout {
        /// Forget them also if they cannot be revoked.
        force: bool,
    },
    /// Ask the relay what the sign-in is; only of one that does nothing else.
    Inquire {
        /// A token that is in no file; `None`: the file's.
        minted: Option<Secret>,
    },
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { person } => f.debug_struct("Start").field("person", person).finish(),
            Self::Loaded(tokens) => f.debug_tuple("Loaded").field(&tokens.as_ref().map(Bytes::len)).finish(),
            Self::Saved(result) => f.debug_tuple("Saved").field(result).finish(),
            Self::Fetched { fetch, result } => {
                let status = result.as_ref().map(|fetched| fetched.status);
                f.debug_struct("Fetched").field("fetch", fetch).field("result", &status).finish()
            }
            Self::Listening(port) => f.debug_tuple("Listening").field(port).finish(),
            Self::Callback { target } => {
                let path = target.split('?').next().unwrap_or_default();
                f.debug_struct("Callback").field("path", &path).finish_non_exhaustive()
            }
            Self::Refused => f.write_str("Refused"),
            Self::Logout { force } => f.debug_struct("Logout").field("force", force).finish(),
            Self::Inquire { minted } => f.debug_struct("Inquire").field("minted", minted).finish(),
        }
    }
}

/// What the agent's sign-in orders.
#[derive(Debug)]
pub enum Action {
    /// Take the lock on the cached tokens (0600 file of this relay), unless it is held already, read them, then bring
    /// [`Event::Loaded`]. A lock that another process does not let go of in time is done without. If that file never
    /// was, what [`predecessor`](super::predecessor) makes of an old one is copied into it first.
    Load,
    /// Let go of the lock.
    Unlock,
    /// Replace the cached tokens atomically, 0600 in a 0700 directory, under the lock also where it was not held;
    /// `None` leaves an empty file: the sign-in was ended here.
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
    /// Answer the waiting callback with this page. Listening goes on until [`Action::StopListening`], since anybody may
    /// ask for anything.
    AnswerCallback(Reply),
    /// Stop listening, once the answers that were ordered are out.
    StopListening,
    /// Show this URL, and open the system's browser with it (no shell).
    OpenBrowser {
        /// The URL, `https` or loopback `http`; built by core, safe to pass as one argument.
        url: String,
    },
    /// Show this code and the page to type it at; no browser is opened, since the person's may be anywhere.
    ShowCode {
        /// The page, on the relay itself.
        page: String,
        /// The same page with the code in it, for whoever can follow a link.
        direct: Option<String>,
        /// The code: letters, digits and dashes.
        code: String,
    },
    /// The access token to use from now on.
    Ready {
        /// The token.
        access: Secret,
        /// When it runs out.
        expires: UnixTime,
    },
    /// Signed out here; with what became of it at the relay.
    SignedOut(Leave),
    /// What the sign-in is.
    Identified(Identity),
    /// No token can be had.
    Failed(Failure),
}

/// What became of a sign-in, at its relay, that ended here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leave {
    /// There was none.
    Nothing,
    /// The relay revoked it.
    Revoked,
    /// Nobody can revoke it any more: it works until it ends.
    LivesOn {
        /// Why it was not revoked.
        cause: String,
    },
}

/// What a relay says of a sign-in that works. One of dialect V1 says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Whose it is: `local:NAME`, or the provider's issuer, `#` and its claim.
    pub user: Option<String>,
    /// When that person signed in.
    pub since: Option<UnixTime>,
    /// When it ends, unless it is used before; for a minted token, when it ends.
    pub expires: Option<UnixTime>,
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
    /// The sign-in is not ended, since the relay did not revoke it; it is kept.
    #[error(
        "not signed out: {cause}. The sign-in is kept, since only who has it can revoke it: try again later, or forget it here with `mcp-local-tunnel logout --force`"
    )]
    NotRevoked {
        /// Why not.
        cause: String,
    },
    /// This machine failed: the token file, the loopback listener.
    #[error("{cause}")]
    Local {
        /// What failed and how to mend it.
        cause: String,
    },
}

/// Who is there when a sign-in needs a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Person {
    /// Nobody: without tokens the sign-in fails.
    #[default]
    Absent,
    /// Somebody whose browser runs on this machine, so that it can come back to a loopback port.
    Here,
    /// Somebody who sees what this machine says, and whose browser is elsewhere: they open the relay's page for devices
    /// and type a code there (RFC 8628). With a relay that has no such page it goes as with [`Person::Here`].
    Elsewhere,
}

/// What a sign-in is for.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The relay: `https://host[:port]` or `http://…`, without trailing slash, as
    /// [`AgentConfig::relay`](crate::config::AgentConfig::relay) has it.
    pub relay: String,
    /// Whether a relay that is neither `https` nor loopback may be used (`--allow-insecure`).
    pub allow_insecure: bool,
    /// What this machine calls itself: the relay's page for devices shows it.
    pub device: String,
}

/// The client that every relay knows: it may only be an agent, and only be redirected to loopback.
pub const CLIENT_ID: &str = "mcp-local-tunnel-agent";

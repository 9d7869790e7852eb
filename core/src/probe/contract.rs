//! What goes in and out of a probe. Its events are those of a [sign-in](crate::signin::contract::Event).

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

pub use super::entry::{Ask, Entry, Question};
use crate::secret::Secret;
use crate::signin::contract as signin;

/// What is probed, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The endpoint's URL.
    pub url: String,
    /// Whether secrets may go to a server that is neither `https` nor loopback (`--allow-insecure`).
    pub allow_insecure: bool,
    /// The client to be; `None` registers one.
    pub client: Option<GivenClient>,
    /// A token to show, instead of signing in when the endpoint asks for that.
    pub token: Option<Secret>,
    /// A tool to call without arguments, in the end.
    pub call: Option<String>,
    /// Whether to stay in the end ([`Action::Entered`]) until [`Event::Logout`](signin::Event::Logout).
    pub stay: bool,
    /// This program's version.
    pub version: String,
}

/// A client that was registered beforehand, or whose id is the URL of its metadata document.
#[derive(Debug, Clone)]
pub struct GivenClient {
    /// Its id.
    pub id: String,
    /// Its secret, if it has one.
    pub secret: Option<Secret>,
}

/// What a probe orders.
#[derive(Debug)]
pub enum Action {
    /// What a sign-in orders, too: fetches, the loopback listener, the browser.
    Desk(signin::Action),
    /// All was found, and holds until the probe is told to leave.
    Entered(Box<Entry>),
    /// It is over.
    Done(Result<Report, Failure>),
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The protocol version that was spoken.
    pub version: &'static str,
    /// What the server calls itself, with its version.
    pub server: Option<String>,
    /// The names of its tools.
    pub tools: Vec<String>,
    /// The names of those tools which say of themselves that they only read.
    pub read_only: BTreeSet<String>,
    /// In how many pages they were listed.
    pub pages: usize,
    /// How somebody signed in; `None` when nobody had to.
    pub access: Option<Access>,
    /// Whether the tool that was called says that it went well.
    pub call: Option<bool>,
}

/// How somebody signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The authorization server.
    pub issuer: String,
    /// As which client.
    pub client_id: String,
    /// Whether the client was registered for this.
    pub registered: bool,
    /// What was asked for; `None` when it was left to the server.
    pub scope: Option<String>,
    /// How often: a server may ask for more than it did at first.
    pub times: u32,
}

/// Why nothing was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No answer, or one that will pass.
    #[error("cannot reach {url}: {cause}")]
    Unreachable {
        /// Who.
        url: String,
        /// What the fetch said.
        cause: String,
    },
    /// A server's answer breaks a rule.
    #[error("{url}: {cause}")]
    Broken {
        /// Who.
        url: String,
        /// Which rule.
        cause: String,
    },
    /// The person or the server said no.
    #[error("sign-in was refused: {cause}")]
    Refused {
        /// What was said.
        cause: String,
    },
    /// This machine failed.
    #[error("{cause}")]
    Local {
        /// What failed.
        cause: String,
    },
}

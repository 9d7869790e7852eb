//! Which era a server is spoken to in, and how that is found out: it is asked as the modern era does, and what does not
//! know that is of the legacy one (2026-07-28, basic, Versioning; stdio and Streamable HTTP, Backward Compatibility).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;

use super::handshake::{Asked, Attempt, Refusal};
use super::{About, Fault, Link, Server, State, Then, Timer, handshake, people};
use crate::agent::bridge::{Era, discovery, meta};
use crate::agent::cx::{Cx, Report};
use crate::config::EraChoice;
use crate::limits;
use crate::mcp::{Version, method};

/// What became of `server/discover`.
enum Verdict {
    /// It is modern.
    Modern(discovery::Discovered),
    /// It is not. `untouched`: it certainly took nothing of the modern era in, so that its process may go on.
    Legacy { untouched: bool },
    /// It turned down a revision that it names as its own.
    Again,
    /// No revision is spoken by both; why, for people.
    Neither(String),
}

impl About {
    /// The era that a server which told this is spoken to in; `None`: it told nothing yet.
    pub(super) fn era(&self) -> Option<Era> {
        let speaks = |era| self.speaks(era).then_some(era);
        speaks(Era::Modern).or(speaks(Era::Legacy))
    }

    /// Whether it says that it speaks a revision of that era.
    pub(super) fn speaks(&self, era: Era) -> bool {
        let versions = self.versions.iter().filter_map(|version| Version::parse(version));
        versions.map(Version::is_legacy).any(|is_legacy| is_legacy == (era == Era::Legacy))
    }
}

impl Server {
    /// Asks what it can do, in the era that it is known to speak, or else in the modern one.
    pub(super) fn probe(&mut self, cx: &mut Cx) {
        let known = match self.config.life.era {
            EraChoice::Legacy => Era::Legacy,
            EraChoice::Modern => Era::Modern,
            EraChoice::Auto if self.is_mute => Era::Legacy,
            EraChoice::Auto if core::mem::take(&mut self.forgets_era) => Era::Modern,
            EraChoice::Auto => self.about.era().unwrap_or(Era::Modern),
        };
        match known {
            Era::Legacy => self.initialize(cx),
            Era::Modern => self.discover(Attempt::First, cx),
        }
    }

    /// From now on its run is of that era.
    pub(super) fn set_era(&mut self, era: Era) {
        self.era = era;
        if let Some(Link::Http(http)) = &mut self.link {
            http.set_version((era == Era::Modern).then_some(meta::MODERN));
        }
    }

    fn discover(&mut self, attempt: Attempt, cx: &mut Cx) {
        self.set_era(Era::Modern);
        let request = cx.request_id();
        self.asked = Some(Asked::Discover(request, attempt));
        if self.may_be_legacy() {
            cx.arm(self.slot, Timer::Discover, limits::DISCOVER_TIMEOUT);
        }
        self.ask(request, method::DISCOVER, b"{}", cx);
    }

    fn may_be_legacy(&self) -> bool {
        self.config.life.era == EraChoice::Auto
    }

    /// The answer to `server/discover`.
    pub(super) fn discovered(&mut self, outcome: Result<Bytes, Refusal>, attempt: Attempt, cx: &mut Cx) {
        cx.disarm(self.slot, Timer::Discover);
        match self.verdict(outcome, attempt) {
            // 2026-07-28, Versioning, Protocol Version Negotiation: a client retries with a revision of both.
            Verdict::Again => self.discover(Attempt::Last, cx),
            Verdict::Modern(found) => {
                let old = core::mem::take(&mut self.about);
                self.about = About {
                    info: found.info.as_deref().and_then(handshake::kept),
                    capabilities: found.capabilities.as_deref().and_then(handshake::kept),
                    instructions: found.instructions.map(handshake::shortened),
                    versions: found.versions.iter().map(|version| version.as_str().to_string()).collect(),
                    ..old
                };
                self.list_all(cx);
            }
            Verdict::Legacy { .. } if !self.may_be_legacy() => {
                self.fail(Fault::NeedsHelp, "its entry says era \"modern\", which it does not speak".into(), cx);
            }
            Verdict::Legacy { untouched: true } => self.initialize(cx),
            Verdict::Legacy { untouched: false } => self.begin_anew(cx),
            Verdict::Neither(reason) => {
                let reason = self.with_noise(reason);
                self.fail(Fault::NeedsHelp, reason, cx);
            }
        }
    }

    fn verdict(&self, outcome: Result<Bytes, Refusal>, attempt: Attempt) -> Verdict {
        let neither = |raw: &Bytes| {
            let versions = people(&discovery::foreign(raw), limits::MAX_QUOTE);
            Verdict::Neither(format!("it speaks MCP {versions}, which this agent does not"))
        };
        let legacy = |versions: &[Version]| versions.iter().any(|version| version.is_legacy());
        match outcome {
            Ok(result) => match discovery::read(&result) {
                Some(found) if found.versions.contains(&meta::MODERN) => Verdict::Modern(found),
                Some(found) if legacy(&found.versions) => Verdict::Legacy { untouched: false },
                Some(_) => neither(&result),
                // Whatever that was, it took the request for something.
                None => Verdict::Legacy { untouched: false },
            },
            Err(Refusal { code, reason, raw: Some(raw) }) if discovery::is_modern_error(code) => {
                match discovery::supported(&raw) {
                    versions if versions.contains(&meta::MODERN) && attempt == Attempt::First => Verdict::Again,
                    versions if legacy(&versions) => Verdict::Legacy { untouched: false },
                    versions if versions.contains(&meta::MODERN) => {
                        Verdict::Neither(format!("it turns down a revision that it names as its own: {reason}"))
                    }
                    _ if code == crate::mcp::code::UNSUPPORTED_VERSION => neither(&raw),
                    _ => Verdict::Neither(format!("server/discover failed: {reason}")),
                }
            }
            // Over HTTP there is no process that could mix the eras.
            Err(refusal) => Verdict::Legacy { untouched: refusal.raw.is_some() || self.child().is_none() },
        }
    }

    /// It said nothing to `server/discover`.
    pub(super) fn discover_timed_out(&mut self, cx: &mut Cx) {
        if matches!(self.asked, Some(Asked::Discover(..))) {
            self.begin_anew(cx);
        }
    }

    /// Its process ended over `server/discover`: some do at whatever comes before `initialize`. Returns whether it is
    /// tried with that.
    pub(super) fn ended_over_discover(&mut self, cx: &mut Cx) -> bool {
        let tries = matches!(self.asked, Some(Asked::Discover(..))) && self.may_be_legacy();
        if tries {
            self.is_mute = true;
            self.forget_run(cx);
            self.move_to_starting(cx);
        }
        tries
    }

    /// Begins in the legacy era, in a process that never heard of the modern one.
    fn begin_anew(&mut self, cx: &mut Cx) {
        assert_eq!(self.state, State::Probing, "an era is found out before anything else");
        tracing::info!(
            server = self.name.as_str(),
            "server does not speak the newest MCP: spoken to with an older one"
        );
        self.is_mute = true;
        if let (None, Some(Link::Http(http))) = (self.child(), &mut self.link) {
            http.abandon_requests(cx);
            return self.initialize(cx);
        }
        self.move_to_stopping(Then::Start, cx);
    }

    /// Whether clients of the legacy era get a run of their own: it is modern, and nothing is against it that it speaks
    /// both. Few say so of themselves: it is tried.
    pub(in crate::agent) fn is_dual(&self) -> bool {
        self.may_be_legacy() && !self.is_modern_alone && self.about.speaks(Era::Modern)
    }

    /// It does not speak the legacy era: its clients are bridged from now on.
    pub(in crate::agent) fn forget_legacy(&mut self, cx: &mut Cx) {
        tracing::info!(server = self.name.as_str(), "server speaks the newest MCP alone: older clients are bridged");
        (self.is_modern_alone, self.legacy) = (true, None);
        self.judge_tools(cx);
        self.listen(cx);
        cx.report(Report::Changed(self.slot));
    }

    /// The revisions that a run of it speaks that is of the era.
    pub(super) fn is_modern(&self) -> bool {
        self.era == Era::Modern
    }

    /// Params of a request of our own.
    pub(super) fn own_params(&self, params: &[u8], cx: &Cx) -> Vec<u8> {
        match self.era {
            Era::Legacy => params.to_vec(),
            Era::Modern => meta::own(&cx.version, &Bytes::copy_from_slice(params)).to_vec(),
        }
    }
}

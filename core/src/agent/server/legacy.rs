//! What a server of both eras tells clients of the legacy one, should that be something else than what it tells the
//! others: each of its processes may list something of its own.
//!
//! It is what the run told that those clients have, and is kept when that run ends. Before there was one, what the server
//! itself told stands in.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{About, Server};
use crate::agent::bridge::Era;
use crate::agent::cx::{Cx, Report};
use crate::agent::tools::Tools;
use crate::config::EraChoice;
use crate::mcp::catalog::Announced;
use crate::rpc::object::{self, Object};

/// What is told otherwise. `None`: the same.
#[derive(Debug, Default)]
pub(super) struct Otherwise<'a> {
    pub(super) info: Option<&'a RawValue>,
    /// Raw.
    pub(super) capabilities: Option<Cow<'a, str>>,
    /// Empty: there are none.
    pub(super) instructions: Option<&'a str>,
    pub(super) tools: Option<Vec<&'a RawValue>>,
    pub(super) prompts: Option<Vec<&'a RawValue>>,
    pub(super) resources: Option<Vec<&'a RawValue>>,
    pub(super) templates: Option<Vec<&'a RawValue>>,
}

impl Server {
    /// A session's run for its client of the legacy era was told that: as [`learn`](Self::learn).
    pub(in crate::agent) fn adopt_of_session(&mut self, about: &About, cx: &mut Cx) {
        if self.legacy.as_ref().is_none_or(|known| !about.is_of_version(known)) {
            self.adopt(about, cx);
        }
    }

    /// Its run for clients of the legacy era was told what they are offered.
    pub(in crate::agent) fn adopt(&mut self, about: &About, cx: &mut Cx) {
        // Which revision it was that this run spoke says nothing of the next one.
        let about = About { versions: Vec::new(), ..about.clone() };
        if self.legacy.as_ref().is_some_and(|known| known.is_same(&about)) {
            return;
        }
        self.legacy = Some(about);
        self.judge_tools(cx);
        self.keep(cx);
        cx.report(Report::Changed(self.slot));
    }

    /// Its tools as clients of that era have them, shown or not; `None`: they are not known yet.
    pub(in crate::agent) fn tools_for(&self, era: Era) -> Option<&Tools> {
        let tools = match era {
            Era::Legacy if self.is_dual() => self.legacy.as_ref().map(|about| &about.tools),
            Era::Legacy | Era::Modern => Some(&self.about.tools),
        };
        // A server that never was ready has no list.
        tools.filter(|tools| !tools.is_empty())
    }

    /// How often the run for clients of the legacy era said that its lists changed; `None`: there was none yet, or it
    /// makes no difference.
    pub(super) fn announced_otherwise(&self) -> Option<Announced> {
        let is_told = self.is_dual() && self.legacy.is_some() && self.announced_legacy != self.announced;
        is_told.then_some(self.announced_legacy)
    }

    /// What clients of the legacy era are told otherwise.
    pub(super) fn otherwise(&self) -> Otherwise<'_> {
        let Some(legacy) = self.legacy.as_ref().filter(|_| self.is_dual()) else {
            return Otherwise { capabilities: self.without_extensions().map(Cow::Owned), ..Otherwise::default() };
        };
        let main = &self.about;
        let text = |raw: &'_ Option<Box<RawValue>>| raw.as_ref().map(|raw| String::from(raw.get()));
        Otherwise {
            info: legacy.info.as_deref().filter(|_| text(&legacy.info) != text(&main.info)),
            capabilities: (text(&legacy.capabilities) != text(&main.capabilities))
                .then(|| Cow::Borrowed(legacy.capabilities.as_ref().map_or("{}", |raw| raw.get()))),
            instructions: (legacy.instructions != main.instructions)
                .then(|| legacy.instructions.as_deref().unwrap_or_default()),
            tools: differing(legacy.tools.shown(), main.tools.shown()),
            prompts: differing(raw(&legacy.prompts), raw(&main.prompts)),
            resources: differing(raw(&legacy.resources), raw(&main.resources)),
            templates: differing(raw(&legacy.templates), raw(&main.templates)),
        }
    }
}

impl Server {
    /// The raw capabilities without extensions, if clients of the legacy era are bridged, which has none, and there are
    /// any (`ServerCapabilities.extensions` is of 2026-07-28): their methods would be asked as that era does not.
    fn without_extensions(&self) -> Option<String> {
        let is_bridged = self.about.speaks(Era::Modern) && !self.is_dual() && self.config.life.era != EraChoice::Legacy;
        let raw = self.about.capabilities.as_ref().filter(|_| is_bridged)?;
        let all = Object::parse(&Bytes::copy_from_slice(raw.get().as_bytes())).ok()?;
        all.get(EXTENSIONS)?;
        String::from_utf8(all.remove(&[EXTENSIONS]).to_vec()).ok()
    }
}

const EXTENSIONS: &str = "extensions";

impl About {
    /// Whether the program that told it is of the version that told the other.
    pub(super) fn is_of_version(&self, other: &Self) -> bool {
        let version = |about: &Self| {
            let info = Bytes::copy_from_slice(about.info.as_ref()?.get().as_bytes());
            object::get(&info, "version")
        };
        version(self) == version(other)
    }

    /// Whether the same was told.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let json = |about: &Self| serde_json::to_vec(about).expect("what a server told is JSON");
        json(self) == json(other)
    }
}

impl Otherwise<'_> {
    /// Whether anything is.
    pub(super) fn is_empty(&self) -> bool {
        let said = self.info.is_none() && self.capabilities.is_none() && self.instructions.is_none();
        said && [&self.tools, &self.prompts, &self.resources, &self.templates].into_iter().all(Option::is_none)
    }
}

fn raw(list: &[Box<RawValue>]) -> impl Iterator<Item = &RawValue> {
    list.iter().map(|raw| &**raw)
}

/// A list, unless it is the other one, word for word.
fn differing<'a>(
    list: impl Iterator<Item = &'a RawValue>,
    other: impl Iterator<Item = &'a RawValue>,
) -> Option<Vec<&'a RawValue>> {
    let list: Vec<&RawValue> = list.collect();
    let is_same = list.iter().map(|raw| raw.get()).eq(other.map(RawValue::get));
    (!is_same).then_some(list)
}

//! The lists of an endpoint as a client knows them, and which of them are news.

use alloc::vec::Vec;

use bytes::{BufMut, Bytes, BytesMut};

use crate::mcp::catalog::Announced;
use crate::mcp::method;
use crate::rpc::quoted;

/// The raw results of an endpoint's lists. `None`: nothing of the kind is offered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Lists {
    pub(super) tools: Bytes,
    pub(super) prompts: Option<Bytes>,
    pub(super) resources: Option<Resources>,
    /// How often their server said that they changed: whoever is told what it says is told also of lists that turned out
    /// to be the same. None on the endpoint of all servers.
    pub(super) announced: Announced,
}

/// The results of `resources/list` and `resources/templates/list`, which change with one notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resources {
    pub(super) resources: Bytes,
    pub(super) templates: Bytes,
}

impl Lists {
    /// The notifications for whoever has seen `seen`.
    pub(super) fn news(&self, seen: &Self) -> Vec<&'static str> {
        // An agent that was started anew counts anew: less is no news.
        let (now, then) = (self.announced, seen.announced);
        let changed = [
            (self.tools != seen.tools || now.tools > then.tools, method::TOOLS_CHANGED),
            (self.prompts != seen.prompts || now.prompts > then.prompts, method::PROMPTS_CHANGED),
            (self.resources != seen.resources || now.resources > then.resources, method::RESOURCES_CHANGED),
        ];
        changed.into_iter().filter(|(is_news, _)| *is_news).map(|(_, method)| method).collect()
    }

    /// Whether there is the same in them, whatever their server said.
    pub(super) fn are_like(&self, other: &Self) -> bool {
        (&self.tools, &self.prompts, &self.resources) == (&other.tools, &other.prompts, &other.resources)
    }

    /// The notifications for whoever may have seen anything.
    pub(super) fn all(&self) -> Vec<&'static str> {
        let offered = [
            (true, method::TOOLS_CHANGED),
            (self.prompts.is_some(), method::PROMPTS_CHANGED),
            (self.resources.is_some(), method::RESOURCES_CHANGED),
        ];
        offered.into_iter().filter(|(is_offered, _)| *is_offered).map(|(_, method)| method).collect()
    }
}

/// The raw result of a list: one page with these objects.
pub(super) fn page(member: &str, items: impl IntoIterator<Item = Bytes>) -> Bytes {
    let mut out = BytesMut::from(&b"{"[..]);
    out.put_slice(quoted(member).as_bytes());
    out.put_slice(b":[");
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        out.put_slice(&item);
    }
    out.put_slice(b"]}");
    out.freeze()
}

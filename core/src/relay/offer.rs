//! What a server offers the clients of one era, checked.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::catalog::{Dropped, MAX_DROPPED, is_name, printable};
use super::items::{self, Item, Kind, Left};
use super::lists::{self, Lists};
use crate::limits;
use crate::mcp::catalog::{self, Announced};
use crate::mcp::mirror;
use crate::rpc;
use crate::rpc::object::{self, Object};
use crate::sse::one_line;

/// What a server offers.
#[derive(Debug)]
pub(super) struct Offer {
    info: Option<Bytes>,
    pub(super) instructions: Option<String>,
    /// The raw `capabilities` object.
    pub(super) capabilities: Option<Bytes>,
    /// In the server's own order.
    pub(super) tools: Vec<Tool>,
    /// Where they stand, in the order of their names.
    by_name: Box<[u32]>,
    pub(super) prompts: Vec<Item>,
    pub(super) resources: Vec<Item>,
    pub(super) templates: Vec<Item>,
    /// The raw results of all lists, under the names and URIs of the server's own.
    pub(super) lists: Lists,
}

/// One tool, as its server lists it.
#[derive(Debug, Clone)]
pub(super) struct Tool {
    pub(super) name: Arc<str>,
    /// The server's own object, on one line: a part of its list's page.
    pub(super) json: Bytes,
    /// Whether it says of itself that it only reads.
    pub(super) read_only: bool,
    /// Whether header fields of its calls are to repeat arguments.
    pub(super) is_mirrored: bool,
}

/// What a device may still list, or what something takes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) tools: usize,
    pub(super) prompts: usize,
    pub(super) resources: usize,
    pub(super) templates: usize,
    pub(super) bytes: usize,
}

impl Room {
    /// What is left of it without that.
    pub(super) fn without(self, other: Self) -> Self {
        Self {
            tools: self.tools.saturating_sub(other.tools),
            prompts: self.prompts.saturating_sub(other.prompts),
            resources: self.resources.saturating_sub(other.resources),
            templates: self.templates.saturating_sub(other.templates),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    fn tools(&mut self, raw: Vec<Box<RawValue>>, dropped: &mut Vec<Dropped>) -> Vec<Tool> {
        let tools = check_tools(raw, self.tools, &mut self.bytes, dropped);
        self.tools -= tools.len();
        tools
    }

    fn items(&mut self, kind: Kind, raw: Vec<Box<RawValue>>, dropped: &mut Vec<Dropped>) -> Vec<Item> {
        let left = match kind {
            Kind::Prompt => &mut self.prompts,
            Kind::Resource => &mut self.resources,
            Kind::Template => &mut self.templates,
        };
        let items = items::check(kind, raw, &mut Left { items: *left, bytes: &mut self.bytes }, dropped);
        *left -= items.len();
        items
    }
}

/// What an agent says that a server offers.
#[derive(Default)]
pub(super) struct Said {
    pub(super) info: Option<Box<RawValue>>,
    pub(super) capabilities: Option<Box<RawValue>>,
    pub(super) instructions: Option<String>,
    pub(super) tools: Vec<Box<RawValue>>,
    pub(super) prompts: Vec<Box<RawValue>>,
    pub(super) resources: Vec<Box<RawValue>>,
    pub(super) templates: Vec<Box<RawValue>>,
    /// How often it said that its lists changed.
    pub(super) announced: Announced,
}

impl Offer {
    /// As much of it as passes and as there is room for.
    pub(super) fn checked(said: Said, left: &mut Room, dropped: &mut Vec<Dropped>) -> Self {
        let tools = left.tools(said.tools, dropped);
        let mut checked = Self {
            info: said.info.and_then(check_info),
            capabilities: said.capabilities.and_then(check_object),
            instructions: said.instructions.filter(|text| fits(text)),
            by_name: by_name(&tools),
            tools,
            prompts: left.items(Kind::Prompt, said.prompts, dropped),
            resources: left.items(Kind::Resource, said.resources, dropped),
            templates: left.items(Kind::Template, said.templates, dropped),
            lists: Lists::default(),
        };
        checked.lists = checked.own_lists(said.announced);
        checked
    }

    /// The same but for what is said otherwise.
    pub(super) fn but(
        &self,
        other: catalog::Legacy,
        announced: Announced,
        left: &mut Room,
        dropped: &mut Vec<Dropped>,
    ) -> Self {
        let mut items = |kind, raw: Option<Vec<_>>, same: &[Item]| {
            raw.map_or_else(|| same.to_vec(), |raw| left.items(kind, raw, dropped))
        };
        let prompts = items(Kind::Prompt, other.prompts, &self.prompts);
        let resources = items(Kind::Resource, other.resources, &self.resources);
        let templates = items(Kind::Template, other.templates, &self.templates);
        let tools = other.tools.map_or_else(|| self.tools.clone(), |raw| left.tools(raw, dropped));
        let mut checked = Self {
            info: other.info.and_then(check_info).or_else(|| self.info.clone()),
            capabilities: other.capabilities.and_then(check_object).or_else(|| self.capabilities.clone()),
            instructions: match other.instructions {
                None => self.instructions.clone(),
                Some(text) => Some(text).filter(|text| !text.is_empty() && fits(text)),
            },
            by_name: by_name(&tools),
            tools,
            prompts,
            resources,
            templates,
            lists: Lists::default(),
        };
        checked.lists = checked.own_lists(announced);
        checked
    }

    /// The lists as they are, whatever it declared: a list with something in it is offered.
    fn own_lists(&mut self, announced: Announced) -> Lists {
        let (has_prompts, has_resources) = (self.has_prompts(), self.has_resources());
        let page =
            |kind: Kind, items: &mut [Item]| lists::page_of(kind.member(), items.iter_mut().map(|item| &mut item.json));
        Lists {
            tools: lists::page_of("tools", self.tools.iter_mut().map(|tool| &mut tool.json)),
            prompts: has_prompts.then(|| page(Kind::Prompt, &mut self.prompts)),
            resources: has_resources.then(|| lists::Resources {
                resources: page(Kind::Resource, &mut self.resources),
                templates: page(Kind::Template, &mut self.templates),
            }),
            announced,
        }
    }

    /// The raw `serverInfo` object.
    pub(super) fn info(&self) -> Option<&str> {
        self.info.as_ref().and_then(|info| core::str::from_utf8(info).ok())
    }

    /// Whether it has prompts, or may have some.
    pub(super) fn has_prompts(&self) -> bool {
        self.declares(&["prompts"]) || !self.prompts.is_empty()
    }

    /// Whether it has resources, or may have some.
    pub(super) fn has_resources(&self) -> bool {
        self.declares(&["resources"]) || !(self.resources.is_empty() && self.templates.is_empty())
    }

    /// The tool of that name.
    pub(super) fn tool(&self, name: &str) -> Option<&Tool> {
        let listed = |at: u32| self.tools.get(usize::try_from(at).ok()?);
        let at = self.by_name.binary_search_by(|at| listed(*at).map(|tool| &*tool.name).cmp(&Some(name))).ok()?;
        self.by_name.get(at).and_then(|at| listed(*at))
    }

    /// Whether the tool of that name says that it only reads; one that is not listed says nothing.
    pub(super) fn is_read_only(&self, tool: &str) -> bool {
        self.tool(tool).is_some_and(|tool| tool.read_only)
    }
}

/// Where tools stand, in the order of their names.
fn by_name(tools: &[Tool]) -> Box<[u32]> {
    let mut named: Vec<(&str, u32)> = tools.iter().map(|tool| &*tool.name).zip(0..).collect();
    named.sort_unstable();
    named.into_iter().map(|(_, at)| at).collect()
}

/// Whether instructions are of a reasonable size.
fn fits(instructions: &str) -> bool {
    instructions.len() <= limits::MAX_INSTRUCTIONS
}

/// `most` and `left` are how many tools and bytes its device may still list.
fn check_tools(raw: Vec<Box<RawValue>>, most: usize, left: &mut usize, dropped: &mut Vec<Dropped>) -> Vec<Tool> {
    let (mut tools, mut seen) = (Vec::new(), BTreeSet::new());
    for (index, raw) in raw.into_iter().enumerate() {
        let length = raw.get().len();
        let checked = match check_tool(raw) {
            Ok(_) if tools.len() >= most => Err((None, "the device lists too many tools (limits.toolsPerAgent)")),
            Ok(_) if length > *left => Err((None, "the device lists too much (limits.catalogPerAgent)")),
            Ok(tool) if !seen.insert(tool.name.clone()) => {
                Err((Some(tool.name.to_string()), "the name is there twice"))
            }
            checked => checked,
        };
        match checked {
            Ok(tool) => {
                *left = left.saturating_sub(length + 1);
                tools.push(tool);
            }
            Err((name, why)) if dropped.len() < MAX_DROPPED => {
                let name = name
                    .map_or_else(|| format!("#{}", index + 1), |name| printable(&name, 2 * limits::MAX_LISTED_NAME));
                dropped.push(Dropped { name, why });
            }
            Err(_) => {}
        }
    }
    tools.shrink_to_fit();
    tools
}

fn check_tool(raw: Box<RawValue>) -> Result<Tool, (Option<String>, &'static str)> {
    if raw.get().len() > limits::MAX_TOOL {
        return Err((None, "it is larger than 64 KiB"));
    }
    let text: Box<str> = raw.into();
    let json = one_line(Bytes::from(String::from(text)));
    let object = Object::parse(&json).map_err(|_| (None, "it is not an object"))?;
    let name = object.get("name").and_then(|raw| rpc::string(&raw).map(|name| name.into_owned()));
    let name = name.ok_or((None, "its name is missing or not a string"))?;
    if !is_name(&name) {
        return Err((Some(name), "its name is empty, too long or not printable"));
    }
    match object.get("inputSchema") {
        Some(schema) if schema.starts_with(b"{") => {
            let read_only = object.get("annotations").is_some_and(|raw| catalog::is_read_only(&raw));
            let is_mirrored = mirror::is_asked(&schema);
            Ok(Tool { name: Arc::from(name), json, read_only, is_mirrored })
        }
        Some(_) | None => Err((Some(name), "its inputSchema is missing or not an object")),
    }
}

/// A raw `serverInfo` that a client can read: an object with a name and a version.
fn check_info(raw: Box<RawValue>) -> Option<Bytes> {
    let info = check_object(raw)?;
    let text = |key| object::get(&info, key).is_some_and(|raw| rpc::string(&raw).is_some());
    (text("name") && text("version")).then_some(info)
}

/// A raw object of a reasonable size, on one line.
fn check_object(raw: Box<RawValue>) -> Option<Bytes> {
    if raw.get().len() > limits::MAX_TOOL {
        return None;
    }
    let text: Box<str> = raw.into();
    let text = one_line(Bytes::from(String::from(text)));
    object::each(&text, |_, _| {}).is_ok().then_some(text)
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tools_are_found_by_their_names_however_they_stand(
            names in prop::collection::vec("[a-c]{1,3}", 0..12), other in "[a-c]{1,3}",
        ) {
            let raw = |name: &String| {
                let read_only = name.starts_with('a');
                let text = format!(
                    r#"{{"name":"{name}","inputSchema":{{}},"annotations":{{"readOnlyHint":{read_only}}}}}"#
                );
                RawValue::from_string(text).expect("JSON")
            };
            let mut left = Room { tools: 20, prompts: 0, resources: 0, templates: 0, bytes: 1 << 20 };
            let said = Said { tools: names.iter().map(raw).collect(), ..Said::default() };
            let offer = Offer::checked(said, &mut left, &mut Vec::new());
            let listed: BTreeSet<&str> = names.iter().map(String::as_str).collect();
            for name in names.iter().chain([&other]) {
                let is_listed = listed.contains(name.as_str());
                prop_assert_eq!(offer.tool(name).map(|tool| &*tool.name), is_listed.then_some(name.as_str()));
                prop_assert_eq!(offer.is_read_only(name), is_listed && name.starts_with('a'));
            }
        }
    }
}

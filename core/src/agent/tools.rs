//! The tools of a server as it listed them, and which of them are shown.

use alloc::borrow::{Cow, ToOwned};
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::pins::{Change, Print};
use super::server::people;
use crate::limits;
use crate::mcp::catalog;

/// A server's tools. Kept as the list of their JSON: what was decided about them is not.
#[derive(Debug, Clone, Default)]
pub(super) struct Tools(Vec<Tool>);

/// One tool.
#[derive(Debug, Clone)]
pub(super) struct Tool {
    raw: Box<RawValue>,
    name: String,
    read_only: bool,
    print: Print,
    hidden: Option<Hidden>,
}

/// Why a tool is neither listed nor callable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hidden {
    /// Policy has no place for its name.
    Denied,
    /// Policy wants tools that change nothing, and it does not say that it is one.
    NotReadOnly,
    /// What is pinned is not known yet.
    Unread,
    /// What is pinned cannot be read.
    Unreadable,
    /// It is not what was pinned.
    Changed(Change),
}

impl Tools {
    /// A list as the server gave it. Of several tools of one name the first stays: one name is one tool.
    pub(super) fn new(listed: Vec<Tool>, server: &str) -> Self {
        let mut names = BTreeSet::new();
        let mut tools = Vec::with_capacity(listed.len());
        for tool in listed {
            if names.insert(tool.name.clone()) {
                tools.push(tool);
            } else {
                tracing::warn!(server, tool = tool.name.as_str(), "tool listed twice: left out");
            }
        }
        Self(tools)
    }

    /// The JSON of those that are shown.
    pub(super) fn shown(&self) -> impl Iterator<Item = &RawValue> {
        self.0.iter().filter(|tool| tool.hidden.is_none()).map(|tool| &*tool.raw)
    }

    /// How many are shown.
    pub(super) fn count(&self) -> usize {
        self.shown().count()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many are not.
    pub(super) fn hidden_count(&self) -> usize {
        self.0.len() - self.count()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Tool> {
        self.0.iter().find(|tool| tool.name == name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Tool> {
        self.0.iter()
    }

    /// Why a tool is not callable, for people; `None`: it is.
    pub(super) fn refusal(&self, name: &str) -> Option<String> {
        let why = match self.get(name).map(|tool| tool.hidden.as_ref()) {
            Some(None) => return None,
            Some(Some(hidden)) => hidden.reason(),
            None => "is not on its list, so that this device's policy cannot judge it".to_string(),
        };
        Some(format!("the tool \"{}\" {why}", people(name, limits::MAX_QUOTE)))
    }

    /// Whether nothing is listed.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Hides what `judge` gives a reason for. Returns whether anything else is shown than before.
    pub(super) fn judge(&mut self, mut judge: impl FnMut(&Tool) -> Option<Hidden>) -> bool {
        let mut differs = false;
        for tool in &mut self.0 {
            let hidden = judge(tool);
            differs |= hidden.is_some() != tool.hidden.is_some();
            tool.hidden = hidden;
        }
        differs
    }
}

impl Serialize for Tools {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|tool| &tool.raw))
    }
}

impl<'de> Deserialize<'de> for Tools {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = Vec::<Box<RawValue>>::deserialize(deserializer)?;
        Ok(Self::new(list.iter().filter_map(|raw| Tool::read(raw)).collect(), ""))
    }
}

impl Tool {
    /// A tool's JSON; `None` when it has no name.
    pub(super) fn read(raw: &RawValue) -> Option<Self> {
        #[derive(Deserialize)]
        struct Named<'a> {
            #[serde(borrow)]
            name: Cow<'a, str>,
            #[serde(borrow, default)]
            annotations: Option<&'a RawValue>,
        }
        let named: Named<'_> = serde_json::from_str(raw.get()).ok()?;
        (!named.name.is_empty()).then(|| Self {
            raw: raw.to_owned(),
            name: named.name.clone().into_owned(),
            read_only: named.annotations.is_some_and(|raw| catalog::is_read_only(raw.get().as_bytes())),
            print: Print::of(raw),
            hidden: None,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn raw(&self) -> &RawValue {
        &self.raw
    }

    pub(super) fn is_hidden(&self) -> bool {
        self.hidden.is_some()
    }

    /// Whether it says of itself that it changes nothing.
    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn print(&self) -> &Print {
        &self.print
    }
}

impl Hidden {
    /// For people, after the tool's name.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Denied => "is not allowed by this device's policy".to_string(),
            Self::NotReadOnly => "does not say that it only reads, which this device's policy wants".to_string(),
            Self::Unread => "is not checked against its pinned definition yet: call again".to_string(),
            Self::Unreadable => {
                "is held back, since the pinned definitions cannot be read: see `mcp-local-tunnel pins` on the device"
                    .to_string()
            }
            Self::Changed(change) => {
                format!("{change} and is held back: see `mcp-local-tunnel pins diff` on the device")
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::vec;

    use super::*;

    /// A tool of this JSON.
    pub(in crate::agent) fn tool(json: &str) -> Tool {
        let raw: &RawValue = serde_json::from_str(json).unwrap();
        Tool::read(raw).unwrap()
    }

    fn read_only(annotations: &str) -> bool {
        tool(&format!(r#"{{"name":"x","annotations":{annotations}}}"#)).is_read_only()
    }

    #[test]
    fn only_a_clear_annotation_makes_a_tool_read_only() {
        assert!(
            read_only(r#"{"readOnlyHint":true}"#)
                && read_only(r#"{"title":"t","readOnlyHint":true,"destructiveHint":false}"#)
        );
        for unclear in [
            "null",
            "{}",
            "true",
            r#""readOnlyHint""#,
            r#"{"readOnlyHint":false}"#,
            r#"{"readOnlyHint":null}"#,
            r#"{"readOnlyHint":"true"}"#,
            r#"{"readOnlyHint":1}"#,
            r#"{"readonlyhint":true}"#,
            r#"{"readOnlyHint":true,"readOnlyHint":false}"#,
            r#"{"readOnlyHint":true,"destructiveHint":true}"#,
            r#"[{"readOnlyHint":true}]"#,
            "[true]",
        ] {
            assert!(!read_only(unclear), "{unclear}");
        }
        assert!(!tool(r#"{"name":"x","readOnlyHint":true}"#).is_read_only());
    }

    #[test]
    fn tool_without_one_name_is_none() {
        for json in ["{}", "[]", "3", r#"{"name":""}"#, r#"{"name":1}"#, r#"{"name":"a","name":"b"}"#] {
            assert!(Tool::read(serde_json::from_str(json).unwrap()).is_none(), "{json}");
        }
    }

    #[test]
    fn second_tool_of_a_name_is_left_out() {
        let tools =
            Tools::new(vec![tool(r#"{"name":"a","x":1}"#), tool(r#"{"name":"b"}"#), tool(r#"{"name":"\u0061"}"#)], "s");
        let shown: Vec<&str> = tools.shown().map(RawValue::get).collect();
        assert_eq!(shown, [r#"{"name":"a","x":1}"#, r#"{"name":"b"}"#]);
    }

    #[test]
    fn hidden_tools_are_not_shown() {
        let mut tools = Tools::new(vec![tool(r#"{"name":"a"}"#), tool(r#"{"name":"b"}"#)], "s");
        assert!(tools.judge(|tool| (tool.name() == "a").then_some(Hidden::Denied)));
        assert_eq!((tools.count(), tools.hidden_count()), (1, 1));
        assert!(!tools.judge(|tool| (tool.name() == "a").then_some(Hidden::NotReadOnly)), "the same is shown");
        assert_eq!(tools.get("a").and_then(|tool| tool.hidden.clone()), Some(Hidden::NotReadOnly));
    }
}

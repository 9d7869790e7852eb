//! The document as it stands, read value by value with the path kept.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use super::json::Json;
use super::nearest::nearest;
use super::problem::Report;

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) path: String,
    pub(super) value: &'a Json,
}

impl<'a> Node<'a> {
    /// The whole document.
    pub(super) fn root(value: &'a Json) -> Self {
        Self { path: String::new(), value }
    }

    /// The value as an object; keys that stand in it twice are errors.
    pub(super) fn object(&self, report: &mut Report) -> Option<Object<'a>> {
        let Json::Object(members) = self.value else {
            report.error(&self.path, format!("must be a JSON object {{…}}, not {}", self.value.kind()));
            return None;
        };
        for (at, (key, _)) in members.iter().enumerate() {
            if members.iter().take(at).any(|(earlier, _)| earlier == key) {
                report.error(&join(&self.path, key), "is given twice: keep one");
            }
        }
        Some(Object { path: self.path.clone(), members })
    }

    /// The value as a text of at least one character.
    pub(super) fn text(&self, report: &mut Report) -> Option<&'a str> {
        let text = self.any_text(report)?;
        if text.trim().is_empty() {
            report.error(&self.path, "is empty: give it a value or leave it out");
            return None;
        }
        Some(text)
    }

    /// The value as a text, also an empty one.
    pub(super) fn any_text(&self, report: &mut Report) -> Option<&'a str> {
        match self.value {
            Json::Text(text) => Some(text),
            Json::Null => {
                report.error(&self.path, "must be a text, not null: leave it out instead");
                None
            }
            Json::Integer(_) | Json::Float(_) | Json::Bool(_) => {
                report.error(&self.path, format!("must be a text, not {}: put it between quotes", self.value.kind()));
                None
            }
            Json::Array(_) | Json::Object(_) => {
                report.error(&self.path, format!("must be a text, not {}", self.value.kind()));
                None
            }
        }
    }

    /// The value as `true` or `false`.
    pub(super) fn boolean(&self, report: &mut Report) -> Option<bool> {
        if let Json::Bool(value) = self.value {
            return Some(*value);
        }
        report.error(&self.path, format!("must be true or false without quotes, not {}", self.value.kind()));
        None
    }

    /// The value as a whole number within `range`; `what` names it and its unit.
    pub(super) fn integer(&self, range: RangeInclusive<u64>, what: &str, report: &mut Report) -> Option<u64> {
        if let Json::Integer(value) = self.value
            && let Some(value) = u64::try_from(*value).ok().filter(|value| range.contains(value))
        {
            return Some(value);
        }
        let (least, most) = (range.start(), range.end());
        report.error(&self.path, format!("must be {what}: a whole number from {least} to {most}, without quotes"));
        None
    }

    /// The items of an array.
    pub(super) fn array(&self, report: &mut Report) -> Option<Vec<Node<'a>>> {
        let Json::Array(items) = self.value else {
            report.error(&self.path, format!("must be an array […], not {}", self.value.kind()));
            return None;
        };
        let item = |(at, value)| Node { path: format!("{}[{at}]", self.path), value };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// The texts of an array, or `None` if any is not one.
    pub(super) fn texts(&self, report: &mut Report) -> Option<Vec<String>> {
        let items = self.array(report)?;
        // Collected twice so that each wrong item is reported, not only the first.
        let texts: Vec<_> = items.iter().map(|item| item.any_text(report).map(ToString::to_string)).collect();
        texts.into_iter().collect()
    }
}

/// An object and where it stands.
#[derive(Debug)]
pub(super) struct Object<'a> {
    pub(super) path: String,
    members: &'a [(String, Json)],
}

impl<'a> Object<'a> {
    /// The member `key`, if it is there.
    pub(super) fn get(&self, key: &str) -> Option<Node<'a>> {
        self.members.iter().find(|(name, _)| name == key).map(|(name, value)| self.member(name, value))
    }

    /// All members with their names, in the order of the document.
    pub(super) fn members(&self) -> impl Iterator<Item = (&'a str, Node<'a>)> + '_ {
        self.members.iter().map(|(name, value)| (name.as_str(), self.member(name, value)))
    }

    /// Whether it has no members.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Where its member `key` stands or would stand.
    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Reports that `key` is missing; `remedy` says what to add.
    pub(super) fn missing(&self, key: &str, remedy: &str, report: &mut Report) {
        report.error(&self.path_of(key), format!("is missing: {remedy}"));
    }

    /// Warns of members that are none of `known`; `elsewhere` are settings by their whole path, and why they are not here.
    pub(super) fn warn_unknown(&self, known: &[&str], elsewhere: &[(&str, &str)], report: &mut Report) {
        for (key, node) in self.members().filter(|(key, _)| !known.contains(key)) {
            let advice = match (elsewhere.iter().find(|(name, _)| *name == key), nearest(key, known)) {
                (Some((_, advice)), _) => (*advice).to_string(),
                (None, Some(near)) => format!("is not a setting: did you mean {near}?"),
                (None, None) => "is not a setting: remove it".to_string(),
            };
            report.warn(&node.path, advice);
        }
    }

    fn member(&self, name: &str, value: &'a Json) -> Node<'a> {
        Node { path: self.path_of(name), value }
    }
}

/// The path of `key` in the object at `path`: `a.b`, or `a["b.c"]` when the key is not a plain word.
fn join(path: &str, key: &str) -> String {
    let plain = !key.is_empty()
        && key.len() <= MAX_KEY
        && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$'));
    match (plain, path.is_empty()) {
        (true, true) => key.to_string(),
        (true, false) => format!("{path}.{key}"),
        (false, _) => {
            let shown: String = key.chars().take(MAX_KEY).collect();
            let cut = if shown.len() < key.len() { "…" } else { "" };
            format!("{path}[\"{}{cut}\"]", shown.escape_debug())
        }
    }
}

/// How much of a key is shown: a key that is longer is not a name, and may be a value in the wrong place.
const MAX_KEY: usize = 64;

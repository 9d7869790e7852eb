//! What a server lists besides its tools: prompts, resources and templates of resources, checked one by one.
//!
//! Clients read a list as a whole: one entry that breaks a rule of the protocol hides all others from them. So what does
//! not pass is left out, as a tool is.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::catalog::{Dropped, MAX_DROPPED, is_name, is_printable, printable};
use super::template::Pattern;
use crate::limits;
use crate::rpc::{self, object::Object};
use crate::sse::one_line;

/// What an [`Item`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Prompt,
    Resource,
    Template,
}

/// A prompt, a resource or a template, as its server lists it.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// Its name, its URI, its URI template.
    pub(super) key: Arc<str>,
    /// The server's own object, on one line.
    pub(super) json: Bytes,
}

impl Kind {
    /// The member of its list's result that holds the entries.
    pub(super) fn member(self) -> &'static str {
        match self {
            Self::Prompt => "prompts",
            Self::Resource => "resources",
            Self::Template => "resourceTemplates",
        }
    }

    /// The member of an entry that tells it from others.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Prompt => "name",
            Self::Resource => "uri",
            Self::Template => "uriTemplate",
        }
    }

    /// How many of a device are listed, and of all of a user's devices together.
    pub(super) fn most(self) -> usize {
        match self {
            Self::Prompt => limits::MAX_PROMPTS,
            Self::Resource => limits::MAX_RESOURCES,
            Self::Template => limits::MAX_TEMPLATES,
        }
    }

    /// What stands before its name where it is named as left out.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Prompt => "prompt ",
            Self::Resource => "resource ",
            Self::Template => "template ",
        }
    }
}

/// What a device may still list.
pub(super) struct Left<'a> {
    pub(super) items: usize,
    pub(super) bytes: &'a mut usize,
}

/// The entries that pass, in their order; the others go to `dropped`.
pub(super) fn check(kind: Kind, raw: Vec<Box<RawValue>>, left: &mut Left<'_>, dropped: &mut Vec<Dropped>) -> Vec<Item> {
    let (mut items, mut seen) = (Vec::new(), BTreeSet::new());
    for (index, raw) in raw.into_iter().enumerate() {
        let length = raw.get().len();
        let checked = match check_one(kind, raw) {
            Ok(_) if items.len() >= left.items => Err((None, "the device lists too many of its kind")),
            Ok(_) if length > *left.bytes => Err((None, "the device lists too much (limits.catalogPerAgent)")),
            Ok(item) if !seen.insert(item.key.clone()) => Err((Some(String::from(&*item.key)), "it is there twice")),
            checked => checked,
        };
        match checked {
            Ok(item) => {
                *left.bytes = left.bytes.saturating_sub(length + 1);
                items.push(item);
            }
            Err((name, why)) if dropped.len() < MAX_DROPPED => {
                let name = name.map_or_else(|| format!("#{}", index + 1), |it| printable(&it, MAX_SHOWN));
                dropped.push(Dropped { name: format!("{}{name}", kind.noun()), why });
            }
            Err(_) => {}
        }
    }
    items.shrink_to_fit();
    items
}

fn check_one(kind: Kind, raw: Box<RawValue>) -> Result<Item, (Option<String>, &'static str)> {
    if raw.get().len() > limits::MAX_TOOL {
        return Err((None, "it is larger than 64 KiB"));
    }
    let text: Box<str> = raw.into();
    let json = one_line(Bytes::from(String::from(text)));
    let object = Object::parse(&json).map_err(|_| (None, "it is not an object"))?;
    let text = |key| object.get(key).and_then(|raw| rpc::string(&raw).map(|text| text.into_owned()));
    let key = text(kind.key()).ok_or((None, "what names it is missing or not a string"))?;
    let fault = match kind {
        Kind::Prompt if !is_name(&key) => Some("its name is empty, too long or not printable"),
        Kind::Prompt if object.get("arguments").is_some_and(|raw| !raw.starts_with(b"[")) => {
            Some("its arguments are not a list")
        }
        Kind::Prompt => None,
        Kind::Resource | Kind::Template if text("name").is_none() => Some("its name is missing or not a string"),
        Kind::Resource if !is_uri(&key) => Some("its uri is not a URI, too long or not printable"),
        Kind::Resource => None,
        Kind::Template if !is_reference(&key) || Pattern::parse(&key).is_none() => {
            Some("its uriTemplate is not a URI template, too long or not printable")
        }
        Kind::Template => None,
    };
    match fault {
        Some(why) => Err((Some(key), why)),
        None => Ok(Item { key: Arc::from(key), json }),
    }
}

/// Whether it has a scheme (RFC 3986 section 3.1), and nothing in it that breaks a line or hides. The rest is its
/// server's affair.
fn is_uri(text: &str) -> bool {
    let scheme = text.split_once(':').map(|(scheme, _)| scheme);
    is_reference(text)
        && scheme.is_some_and(|scheme| {
            scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
        })
}

fn is_reference(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= limits::MAX_LISTED_URI
        && !text.contains(|c: char| c.is_whitespace() || !is_printable(c))
}

/// How much of a name is shown, in bytes.
const MAX_SHOWN: usize = 2 * limits::MAX_LISTED_NAME;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is kept is in its order, once each and within what there is room for; all else is named as left out.
        #[test]
        fn every_entry_is_kept_in_its_order_or_left_out(
            kind in prop::sample::select(alloc::vec![Kind::Prompt, Kind::Resource, Kind::Template]),
            entries in prop::collection::vec((0..6_u8, 0..4_u8), 0..20), room in 0..12_usize, most_bytes in 0..800_usize,
        ) {
            let raw = |(form, key): &(u8, u8)| match form {
                0 => String::from("7"),
                1 => String::from("{}"),
                2 => format!(r#"{{"{}":{key}}}"#, kind.key()),
                _ if kind == Kind::Prompt => format!(r#"{{"name":"a{key}"}}"#),
                _ => format!(r#"{{"{}":"a:{key}","name":"n"}}"#, kind.key()),
            };
            let texts: Vec<String> = entries.iter().map(raw).collect();
            let list = texts.iter().map(|text| RawValue::from_string(text.clone()).expect("JSON")).collect();
            let (mut bytes, mut dropped) = (most_bytes, Vec::new());
            let kept = check(kind, list, &mut Left { items: room, bytes: &mut bytes }, &mut dropped);
            let mut rest = texts.iter();
            for item in &kept {
                prop_assert!(rest.any(|text| text.as_bytes() == &*item.json), "as it was, and in its order");
            }
            let keys: BTreeSet<_> = kept.iter().map(|item| item.key.clone()).collect();
            prop_assert_eq!(keys.len(), kept.len());
            prop_assert!(kept.len() <= room);
            prop_assert_eq!(kept.len() + dropped.len(), texts.len().min(kept.len() + MAX_DROPPED));
            let used: usize = kept.iter().map(|item| item.json.len() + 1).sum();
            prop_assert_eq!(bytes, most_bytes.saturating_sub(used));
            prop_assert!(used <= most_bytes + 1);
        }
    }
}

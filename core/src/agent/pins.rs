//! Pinned tool definitions: what each tool was when it was first seen, and what became of it.
//!
//! A tool's description is read by a model, so that a server which changes it later can make the model do what nobody
//! agreed to. Compared is the JSON but for what has no meaning in it: the order of members, the space between them, the
//! spelling of characters in strings. Everything else counts.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use bytes::Bytes;
use ring::digest;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::tools::{Tool, Tools};
use crate::config::{ServerConfig, Transport};
use crate::limits;
use crate::rpc::object::Object;
use crate::rpc::{quoted, string};

/// What tells a definition from any other: a hash of all but the tool's name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Print(String);

/// What became of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Another definition under a known name.
    Changed,
    /// A known definition under a new name.
    Renamed { from: String },
    /// A name that was not there when the server was first seen.
    Added,
}

/// The pins of one server.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Book {
    tools: BTreeMap<String, Pin>,
    /// Who may call what without being asked about again, the oldest first.
    approved: Vec<Approved>,
}

#[derive(Debug, Clone)]
struct Pin {
    print: Print,
    /// To show what changed; left out when it is long.
    definition: Option<Box<RawValue>>,
}

/// A tool that a person let a client call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Approved {
    client: String,
    tool: String,
    /// Of the definition that was approved.
    hash: Print,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    tools: BTreeMap<String, FilePin>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    approved: Vec<Approved>,
}

#[derive(Serialize, Deserialize)]
struct FilePin {
    hash: Print,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    definition: Option<Box<RawValue>>,
}

/// What names a server's pins: its name, and what is run. Another program under an old name is another server.
pub(super) fn key(name: &str, config: &ServerConfig) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    match &config.transport {
        Transport::Stdio { command, .. } => {
            for word in command {
                context.update(word.as_bytes());
                context.update(&[0]);
            }
        }
        Transport::Http { url, .. } => context.update(url.as_bytes()),
    }
    format!("{name}-{}", hex(context.finish().as_ref().get(..8).unwrap_or_default()))
}

impl Print {
    /// Of a tool's JSON.
    pub(super) fn of(tool: &RawValue) -> Self {
        let raw = Bytes::copy_from_slice(tool.get().as_bytes());
        let mut text = Vec::with_capacity(raw.len());
        match Object::parse(&raw) {
            Ok(object) => canonical(&object.remove(&["name"]), MAX_DEPTH, &mut text),
            Err(_) => text.extend_from_slice(&raw),
        }
        Self(hex(digest::digest(&digest::SHA256, &text).as_ref()))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed => f.write_str("changed since it was first seen"),
            Self::Renamed { from } => {
                write!(f, "was called \"{}\" when it was first seen", super::server::people(from, limits::MAX_QUOTE))
            }
            Self::Added => f.write_str("was added after the server was first seen"),
        }
    }
}

impl Change {
    /// One word for machines.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Renamed { .. } => "renamed",
            Self::Added => "added",
        }
    }
}

impl Book {
    /// Reads the file; no file is no pins.
    pub(super) fn read(content: Option<&[u8]>) -> Result<Self, String> {
        let Some(content) = content else { return Ok(Self::default()) };
        let file: File = serde_json::from_slice(content).map_err(|error| format!("it is malformed: {error}"))?;
        if file.version != VERSION {
            return Err(format!("it is of version {}, which this program does not know", file.version));
        }
        let pin = |(name, pin): (String, FilePin)| (name, Pin { print: pin.hash, definition: pin.definition });
        Ok(Self { tools: file.tools.into_iter().map(pin).collect(), approved: file.approved })
    }

    /// The file.
    pub(super) fn write(&self) -> Bytes {
        let pin = |(name, pin): (&String, &Pin)| {
            (name.clone(), FilePin { hash: pin.print.clone(), definition: pin.definition.clone() })
        };
        let file =
            File { version: VERSION, tools: self.tools.iter().map(pin).collect(), approved: self.approved.clone() };
        Bytes::from(serde_json::to_vec(&file).expect("a file is made of strings and raw JSON"))
    }

    /// How many tools are pinned.
    pub(super) fn len(&self) -> usize {
        self.tools.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tools.is_empty()
    }

    /// What was pinned under that name.
    pub(super) fn definition(&self, tool: &str) -> Option<&RawValue> {
        self.tools.get(tool)?.definition.as_deref()
    }

    /// The tools that are not what was pinned.
    pub(super) fn changes(&self, tools: &Tools) -> BTreeMap<String, Change> {
        let listed: BTreeSet<&str> = tools.iter().map(Tool::name).collect();
        let gone: BTreeMap<&str, &str> = self
            .tools
            .iter()
            .filter(|(name, _)| !listed.contains(name.as_str()))
            .map(|(name, pin)| (pin.print.0.as_str(), name.as_str()))
            .collect();
        let change = |tool: &Tool| match self.tools.get(tool.name()) {
            Some(pin) => (pin.print != *tool.print()).then_some(Change::Changed),
            None => Some(match gone.get(tool.print().0.as_str()) {
                Some(from) => Change::Renamed { from: (*from).to_owned() },
                None => Change::Added,
            }),
        };
        tools.iter().filter_map(|tool| Some((tool.name().to_owned(), change(tool)?))).collect()
    }

    /// Forgets a name.
    pub(super) fn forget(&mut self, tool: &str) {
        self.tools.remove(tool);
    }

    /// Pins a tool as it is now.
    pub(super) fn pin(&mut self, name: &str, print: &Print, raw: &RawValue) {
        let kept: usize = self.tools.values().filter_map(|pin| Some(pin.definition.as_ref()?.get().len())).sum();
        let fits = raw.get().len() <= limits::MAX_PINNED_TOOL && kept + raw.get().len() <= limits::MAX_PINNED;
        let pin = Pin { print: print.clone(), definition: fits.then(|| raw.to_owned()) };
        self.tools.insert(name.to_owned(), pin);
    }

    /// Makes room: names that are not listed any more go once there are too many.
    pub(super) fn trim(&mut self, tools: &Tools) {
        if self.tools.len() > limits::MAX_TOOLS {
            let listed: BTreeSet<&str> = tools.iter().map(Tool::name).collect();
            self.tools.retain(|name, _| listed.contains(name.as_str()));
        }
    }

    /// Takes over what another agent made of `base`, the pins that both began with. What was changed here stays.
    pub(super) fn merge(&mut self, base: &Self, mut theirs: Self) {
        let names: BTreeSet<String> =
            [&self.tools, &base.tools, &theirs.tools].iter().flat_map(|it| it.keys().cloned()).collect();
        for name in names {
            if self.tools.get(&name) != base.tools.get(&name) {
                continue;
            }
            match theirs.tools.remove(&name) {
                Some(pin) => drop(self.tools.insert(name, pin)),
                None => drop(self.tools.remove(&name)),
            }
        }
        let ours = core::mem::take(&mut self.approved);
        theirs.approved.retain(|it| ours.contains(it) || !base.approved.contains(it));
        let new = ours.into_iter().filter(|it| !base.approved.contains(it) && !theirs.approved.contains(it));
        let new: Vec<_> = new.collect();
        self.approved = theirs.approved;
        self.approved.extend(new);
        let excess = self.approved.len().saturating_sub(limits::MAX_APPROVED);
        self.approved.drain(..excess);
    }

    /// Whether a client may call a tool of this definition without being asked about again.
    pub(super) fn is_approved(&self, client: &str, tool: &str, print: &Print) -> bool {
        self.approved.iter().any(|it| it.client == client && it.tool == tool && it.hash == *print)
    }

    /// Lets a client call a tool of this definition from now on.
    pub(super) fn approve(&mut self, client: &str, tool: &str, print: &Print) {
        self.approved.retain(|it| it.client != client || it.tool != tool);
        if self.approved.len() >= limits::MAX_APPROVED {
            self.approved.remove(0);
        }
        self.approved.push(Approved { client: client.to_string(), tool: tool.to_string(), hash: print.clone() });
    }
}

impl PartialEq for Pin {
    fn eq(&self, other: &Self) -> bool {
        let text = |pin: &Self| pin.definition.as_ref().map(|raw| raw.get().to_string());
        self.print == other.print && text(self) == text(other)
    }
}

impl Eq for Pin {}

/// A JSON value as the same bytes, however it is written.
pub(super) fn canonical_text(raw: &Bytes) -> Vec<u8> {
    let mut text = Vec::with_capacity(raw.len());
    canonical(raw, MAX_DEPTH, &mut text);
    text
}

/// Writes a JSON value so that two spellings of the same one are the same. What is nested too deeply stays as it is.
fn canonical(raw: &Bytes, depth: usize, out: &mut Vec<u8>) {
    let raw = raw.slice_ref(raw.trim_ascii());
    match (raw.first(), depth) {
        (Some(b'{'), 1..) => match Object::parse(&raw) {
            Ok(object) => canonical_object(&object, depth, out),
            Err(_) => out.extend_from_slice(&raw),
        },
        (Some(b'['), 1..) => match serde_json::from_slice::<Vec<&RawValue>>(&raw) {
            Ok(items) => {
                out.push(b'[');
                for item in items {
                    canonical(&raw.slice_ref(item.get().as_bytes()), depth - 1, out);
                    out.push(b',');
                }
                out.push(b']');
            }
            Err(_) => out.extend_from_slice(&raw),
        },
        (Some(b'"'), _) => canonical_string(&raw, out),
        _ => out.extend_from_slice(&raw),
    }
}

/// Members by key; those of one key in the order in which they stand.
fn canonical_object(object: &Object, depth: usize, out: &mut Vec<u8>) {
    let mut members: Vec<(Vec<u8>, Bytes)> = Vec::new();
    for (key, value) in object.members() {
        let mut text = Vec::with_capacity(key.len());
        canonical_string(&key, &mut text);
        members.push((text, value));
    }
    members.sort_by(|(a, _), (b, _)| a.cmp(b));
    out.push(b'{');
    for (key, value) in members {
        out.extend_from_slice(&key);
        out.push(b':');
        canonical(&value, depth - 1, out);
        out.push(b',');
    }
    out.push(b'}');
}

fn canonical_string(raw: &Bytes, out: &mut Vec<u8>) {
    match string(raw) {
        Some(text) => out.extend_from_slice(quoted(&text).as_bytes()),
        None => out.extend_from_slice(raw),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

const VERSION: u32 = 1;
/// How deep a schema is looked into: real ones have a dozen levels.
const MAX_DEPTH: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::vec;

    use super::super::tools::tests::tool;
    use super::*;

    fn tools(list: &[&str]) -> Tools {
        Tools::new(list.iter().map(|json| tool(json)).collect(), "s")
    }

    fn pin(book: &mut Book, tool: &Tool) {
        book.pin(tool.name(), tool.print(), tool.raw());
    }

    fn pinned(list: &[&str]) -> Book {
        let mut book = Book::default();
        for json in list {
            pin(&mut book, &tool(json));
        }
        book
    }

    fn print(json: &str) -> Print {
        tool(json).print().clone()
    }

    const TOOL: &str = r#"{"name":"read","description":"Reads a file","inputSchema":{"type":"object","properties":{"a":{"type":"string"},"b":[1,2.50]}},"x":1e400}"#;

    #[test]
    fn spelling_does_not_count() {
        for same in [
            r#"{"x":1e400,"inputSchema":{"properties":{"b":[1,2.50],"a":{"type":"string"}},"type":"object"},"name":"read","description":"Reads a file"}"#,
            "{ \"name\" : \"read\",\n\t\"description\":\"\\u0052eads a file\", \"inputSchema\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"},\"b\":[ 1 , 2.50 ]}},\"x\":1e400}",
        ] {
            assert_eq!(print(TOOL), print(same), "{same}");
        }
    }

    #[test]
    fn everything_else_counts() {
        for (from, to) in [
            ("Reads", "reads"),
            ("Reads a file", "Reads a file "),
            ("2.50", "2.5"),
            ("[1,2.50]", "[2.50,1]"),
            ("1e400", "1e401"),
            ("\"x\":1e400", "\"x\":1e400,\"y\":null"),
            ("\"x\":1e400", "\"x\":1e400,\"x\":1e400"),
            ("\"x\":1e400", "\"X\":1e400"),
            ("\"string\"", "\"number\""),
            ("\"description\":\"Reads a file\",", ""),
            ("[1,2.50]", "[\"1,2.50\"]"),
            ("[1,2.50]", "[[1],2.50]"),
        ] {
            let other = TOOL.replace(from, to);
            assert_ne!(other, TOOL);
            assert_ne!(print(TOOL), print(&other), "{from} to {to}");
        }
    }

    #[test]
    fn deep_nesting_is_taken_and_counts() {
        let deep =
            |inner: &str| format!("{{\"name\":\"a\",\"s\":{}{inner}{}}}", "[".repeat(20_000), "]".repeat(20_000));
        assert_ne!(print(&deep("1")), print(&deep("2")));
    }

    #[test]
    fn changes_are_told_apart() {
        let book = pinned(&[r#"{"name":"a","d":1}"#, r#"{"name":"b","d":2}"#, r#"{"name":"c","d":3}"#]);
        let now = tools(&[
            r#"{"name":"a","d":1}"#,
            r#"{"name":"b","d":9}"#,
            r#"{"name":"z","d":3}"#,
            r#"{"name":"new","d":7}"#,
        ]);
        let expected = [
            ("b".to_string(), Change::Changed),
            ("new".to_string(), Change::Added),
            ("z".to_string(), Change::Renamed { from: "c".to_string() }),
        ];
        assert_eq!(book.changes(&now), expected.into());
        assert!(book.changes(&tools(&[r#"{"d":1,"name":"a"}"#])).is_empty(), "gone tools are no danger");
    }

    #[test]
    fn copy_of_a_listed_tool_is_added_and_not_renamed() {
        let book = pinned(&[r#"{"name":"a","d":1}"#]);
        let changes = book.changes(&tools(&[r#"{"name":"a","d":1}"#, r#"{"name":"b","d":1}"#]));
        assert_eq!(changes, [("b".to_string(), Change::Added)].into());
    }

    #[test]
    fn approved_change_is_the_new_pin() {
        let mut book = pinned(&[r#"{"name":"a","d":1}"#, r#"{"name":"b","d":2}"#]);
        let now = tools(&[r#"{"name":"a","d":5}"#, r#"{"name":"z","d":2}"#]);
        for (name, change) in book.changes(&now) {
            if let Change::Renamed { from } = change {
                book.forget(&from);
            }
            pin(&mut book, now.get(&name).unwrap());
        }
        assert!(book.changes(&now).is_empty());
        assert_eq!(book.len(), 2, "the old name went");
    }

    #[test]
    fn file_reads_back_and_a_foreign_one_is_refused() {
        let mut book = pinned(&[TOOL, r#"{"name":"b","d":2}"#]);
        book.approve("Cursor 1.2", "read", &print(TOOL));
        assert_eq!(Book::read(Some(&book.write())), Ok(book));
        assert_eq!(Book::read(None), Ok(Book::default()));
        for wrong in ["", "{}", "[]", r#"{"version":2,"tools":{}}"#, r#"{"version":1,"tools":[]}"#] {
            assert!(Book::read(Some(wrong.as_bytes())).is_err(), "{wrong}");
        }
    }

    #[test]
    fn long_definitions_are_pinned_without_their_text() {
        let long = format!(r#"{{"name":"long","d":"{}"}}"#, "x".repeat(limits::MAX_PINNED_TOOL));
        let mut book = pinned(&[&long]);
        assert!(book.definition("long").is_none());
        assert!(book.changes(&tools(&[&long])).is_empty());
        let each = format!("\"d\":\"{}\"", "x".repeat(limits::MAX_PINNED_TOOL - 100));
        for number in 0..=limits::MAX_PINNED / limits::MAX_PINNED_TOOL + 1 {
            pin(&mut book, &tool(&format!(r#"{{"name":"t{number}",{each}}}"#)));
        }
        let kept = book.tools.values().filter(|pin| pin.definition.is_some()).count();
        assert!(kept >= 1 && kept < book.len() - 1, "{kept}");
    }

    #[test]
    fn approval_is_for_one_client_one_tool_and_one_definition() {
        let mut book = Book::default();
        let (old, new) = (print(TOOL), print(r#"{"name":"read"}"#));
        book.approve("a", "read", &old);
        assert!(book.is_approved("a", "read", &old));
        assert!(!book.is_approved("b", "read", &old) && !book.is_approved("a", "write", &old));
        assert!(!book.is_approved("a", "read", &new));
        for number in 0..limits::MAX_APPROVED {
            book.approve(&number.to_string(), "x", &old);
        }
        assert!(book.approved.len() == limits::MAX_APPROVED && !book.is_approved("a", "read", &old));
    }

    #[test]
    fn key_is_of_name_and_program() {
        let config = |word: &str| crate::agent::tests::stdio(word);
        assert_eq!(key("a", &config("x")), key("a", &config("x")));
        assert_ne!(key("a", &config("x")), key("a", &config("y")));
        assert_ne!(key("a", &config("x")), key("b", &config("x")));
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<i32>().prop_map(Into::into),
            "[a-c\"\\\\ é]{0,4}".prop_map(Into::into)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::btree_map("[a-c]{1,2}", inner, 0..4)
                    .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    fn book(tools: &[u8], approved: &[u8]) -> Book {
        let mut book = Book::default();
        for (name, version) in ["a", "b", "c"].iter().zip(tools).filter(|(_, version)| **version > 0) {
            pin(&mut book, &tool(&format!(r#"{{"name":"{name}","x":{version}}}"#)));
        }
        for client in approved {
            book.approve(&format!("client {client}"), "a", &Print::default());
        }
        book
    }

    proptest! {
        #[test]
        fn merge_keeps_what_each_changed(
            base in prop::collection::vec(0..3_u8, 3), ours in prop::collection::vec(0..3_u8, 3),
            theirs in prop::collection::vec(0..3_u8, 3),
            kept in prop::collection::btree_set(0..4_u8, 0..4), new in prop::collection::btree_set(4..8_u8, 0..4),
        ) {
            let kept: Vec<u8> = kept.into_iter().collect();
            let new: Vec<u8> = new.into_iter().collect();
            let (base_book, theirs_book) = (book(&base, &kept), book(&theirs, &[]));
            let mut merged = book(&ours, &[&kept[..], &new[..]].concat());
            merged.merge(&base_book, theirs_book);
            for (at, name) in ["a", "b", "c"].iter().enumerate() {
                let expected = if ours[at] == base[at] { theirs[at] } else { ours[at] };
                let mut one = [0; 3];
                one[at] = expected;
                let wanted = book(&one, &[]);
                prop_assert_eq!(merged.definition(name).map(RawValue::get), wanted.definition(name).map(RawValue::get));
            }
            // The other one took all approvals back that both began with.
            prop_assert_eq!(merged.approved.len(), new.len());
        }

        #[test]
        fn prints_are_equal_exactly_when_values_are(a in json(), b in json()) {
            let whole = |value: &serde_json::Value| print(&serde_json::json!({"name": "n", "v": value}).to_string());
            prop_assert_eq!(whole(&a) == whole(&b), a == b);
            let pretty = serde_json::to_string(&serde_json::json!({"v": a, "name": "other"})).unwrap();
            let spaced = pretty.replace(':', " : ");
            if !a.to_string().contains(':') {
                prop_assert_eq!(print(&spaced), whole(&a));
            }
        }

        #[test]
        fn any_file_is_read_without_panic(content: Vec<u8>) {
            let _ = Book::read(Some(&content));
        }
    }

    #[test]
    fn too_many_pins_are_cut_to_what_is_listed() {
        let mut book = Book::default();
        let one = tool(r#"{"name":"kept"}"#);
        for number in 0..limits::MAX_TOOLS {
            book.tools.insert(number.to_string(), Pin { print: one.print().clone(), definition: None });
        }
        pin(&mut book, &one);
        book.trim(&Tools::new(vec![one], "s"));
        assert_eq!(book.len(), 1);
    }
}

//! What is pinned, and what counts as a change of it.

use proptest::prelude::*;
use std::vec;

use super::super::tools::tests::tool;
use super::*;

fn tools(list: &[&str]) -> Tools {
    Tools::new(list.iter().map(|json| tool(json)).collect(), "s")
}

fn pin(book: &mut Book, tool: &Tool) {
    book.pin(Edition::Main, tool.name(), tool.print(), tool.raw());
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
    let deep = |inner: &str| format!("{{\"name\":\"a\",\"s\":{}{inner}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    assert_ne!(print(&deep("1")), print(&deep("2")));
}

#[test]
fn changes_are_told_apart() {
    let book = pinned(&[r#"{"name":"a","d":1}"#, r#"{"name":"b","d":2}"#, r#"{"name":"c","d":3}"#]);
    let now =
        tools(&[r#"{"name":"a","d":1}"#, r#"{"name":"b","d":9}"#, r#"{"name":"z","d":3}"#, r#"{"name":"new","d":7}"#]);
    let expected = [
        ("b".to_string(), Change::Changed),
        ("new".to_string(), Change::Added),
        ("z".to_string(), Change::Renamed { from: "c".to_string() }),
    ];
    assert_eq!(book.changes(Edition::Main, &now), expected.into());
    assert!(book.changes(Edition::Main, &tools(&[r#"{"d":1,"name":"a"}"#])).is_empty(), "gone tools are no danger");
}

#[test]
fn copy_of_a_listed_tool_is_added_and_not_renamed() {
    let book = pinned(&[r#"{"name":"a","d":1}"#]);
    let changes = book.changes(Edition::Main, &tools(&[r#"{"name":"a","d":1}"#, r#"{"name":"b","d":1}"#]));
    assert_eq!(changes, [("b".to_string(), Change::Added)].into());
}

#[test]
fn approved_change_is_the_new_pin() {
    let mut book = pinned(&[r#"{"name":"a","d":1}"#, r#"{"name":"b","d":2}"#]);
    let now = tools(&[r#"{"name":"a","d":5}"#, r#"{"name":"z","d":2}"#]);
    for (name, change) in book.changes(Edition::Main, &now) {
        if let Change::Renamed { from } = change {
            book.forget(Edition::Main, &from);
        }
        pin(&mut book, now.get(&name).unwrap());
    }
    assert!(book.changes(Edition::Main, &now).is_empty());
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
    assert!(book.definition(Edition::Main, "long").is_none());
    assert!(book.changes(Edition::Main, &tools(&[&long])).is_empty());
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
            prop_assert_eq!(merged.definition(Edition::Main, name).map(RawValue::get), wanted.definition(Edition::Main, name).map(RawValue::get));
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
    book.trim(Edition::Main, &Tools::new(vec![one], "s"));
    assert_eq!(book.len(), 1);
}

#[test]
fn other_edition_is_read_back_and_its_pins_are_its_own() {
    let mut book = pinned(&[r#"{"name":"a","d":1}"#, r#"{"name":"b","d":1}"#]);
    assert!(book.is_new(Edition::Legacy));
    let old = tool(r#"{"name":"a","d":2}"#);
    book.see(Edition::Legacy);
    book.pin(Edition::Legacy, old.name(), old.print(), old.raw());
    let book = Book::read(Some(&book.write())).unwrap();
    assert!(!book.is_new(Edition::Legacy) && book.len() == 3);
    let listed = |json: &str| tools(&[json, r#"{"name":"b","d":1}"#]);
    for (json, main, legacy) in [
        (r#"{"name":"a","d":1}"#, true, true),
        (r#"{"name":"a","d":2}"#, false, true),
        (r#"{"name":"a","d":3}"#, false, false),
    ] {
        assert_eq!(book.changes(Edition::Main, &listed(json)).is_empty(), main, "{json}");
        assert_eq!(book.changes(Edition::Legacy, &listed(json)).is_empty(), legacy, "{json}");
    }
    // A tool of the main edition alone was not called something else in the other.
    let changes = book.changes(Edition::Legacy, &tools(&[r#"{"name":"c","d":1}"#, r#"{"name":"d","d":2}"#]));
    let renamed = Change::Renamed { from: "a".to_string() };
    assert_eq!(changes, [("c".to_string(), Change::Added), ("d".to_string(), renamed)].into());
    let mut older = Book::read(Some(&book.write())).unwrap();
    older.legacy = None;
    let mut merged = Book::read(Some(&book.write())).unwrap();
    merged.merge(&book, older);
    assert_eq!(merged, book, "an older version knows nothing of it, and takes nothing away");
}

#[test]
fn what_was_pinned_for_both_editions_stays_pinned_for_the_other() {
    let mut book = pinned(&[r#"{"name":"a","d":1}"#]);
    book.see(Edition::Legacy);
    pin(&mut book, &tool(r#"{"name":"a","d":2}"#));
    assert!(book.changes(Edition::Legacy, &tools(&[r#"{"name":"a","d":1}"#])).is_empty());
    assert!(book.changes(Edition::Legacy, &tools(&[r#"{"name":"a","d":2}"#])).is_empty());
    assert!(!book.changes(Edition::Main, &tools(&[r#"{"name":"a","d":1}"#])).is_empty());
}

#[test]
fn schema_of_any_depth_is_told_from_another() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let deep = |inner: &str| {
            let (open, close) = (open.repeat(5_000), close.repeat(5_000));
            print(&format!(r#"{{"name":"read","inputSchema":{{"x":{open}{inner}{close}}}}}"#))
        };
        assert_eq!(deep("1"), deep("1"));
        assert_ne!(deep("1"), deep("2"));
    }
}

proptest! {
    /// Whatever is pinned, forgotten and approved, in either list.
    #[test]
    fn book_is_read_as_it_was_written(
        deeds in prop::collection::vec((0..5_u8, any::<bool>(), "[a-c\"\u{e9}]{1,2}", "[ -~\u{e9}]{0,8}"), 0..40),
    ) {
        let mut book = Book::default();
        for (deed, is_main, name, text) in deeds {
            let edition = if is_main { Edition::Main } else { Edition::Legacy };
            let json = serde_json::json!({"name": name, "description": text, "inputSchema": {"x": 1.5}}).to_string();
            let tool = tool(&json);
            match deed {
                0 | 1 => book.pin(edition, tool.name(), tool.print(), tool.raw()),
                2 => book.forget(edition, &name),
                3 => book.approve(&text, &name, tool.print()),
                _ => book.see(edition),
            }
        }
        let written = book.write();
        let back = Book::read(Some(&written)).expect("it was written here");
        prop_assert_eq!(back.write(), written);
        prop_assert_eq!(back.len(), book.len());
        prop_assert_eq!(back.is_new(Edition::Legacy), book.is_new(Edition::Legacy));
        prop_assert!(back == book);
    }
}

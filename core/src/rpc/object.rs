//! A JSON object as text: its members are found and exchanged, and every other byte stays as it was.
//!
//! When a key stands several times, readers disagree about which value counts. Here the last one is read (as most
//! parsers do) and all of them are written, so that no later reader sees another value than the one meant.

use core::cmp::Ordering;
use core::ops::Range;

use alloc::vec::Vec;

use bytes::{BufMut, Bytes, BytesMut};

use super::walk::{Broken, Walk};
use super::{quoted, string};
use crate::limits;

/// A JSON object, its top-level members found. It shares the buffer that it was read from.
#[derive(Debug, Clone)]
pub struct Object {
    text: Bytes,
    members: Vec<Member>,
    /// The byte after the opening brace.
    open: usize,
}

/// Where a member stands in the text.
#[derive(Debug, Clone)]
struct Member {
    /// The key with its quotes.
    key: Range<usize>,
    value: Range<usize>,
}

/// The text is not one JSON object of at most [`limits::MAX_MEMBERS`] members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON object, or one of too many members")]
pub struct NotAnObject;

impl From<Broken> for NotAnObject {
    fn from(_: Broken) -> Self {
        Self
    }
}

impl Object {
    /// Finds the members of `text`, which must be one JSON object; space around it is kept.
    pub fn parse(text: &Bytes) -> Result<Self, NotAnObject> {
        let mut members = Vec::new();
        let open = walk(text, |_, key, value| members.push(Member { key, value }))?;
        Ok(Self { text: text.clone(), members, open })
    }

    /// Like [`parse`](Self::parse), but no text at all (absent params) is an object without members.
    pub fn parse_or_empty(text: &Bytes) -> Result<Self, NotAnObject> {
        if text.is_empty() { Self::parse(&Bytes::from_static(b"{}")) } else { Self::parse(text) }
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// The raw value of `key`: the last one, should it stand several times.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Bytes> {
        let member = self.members.iter().rev().find(|member| self.is(member, key))?;
        Some(self.text.slice(member.value.clone()))
    }

    /// The raw members in their order: the key with its quotes, and the value.
    pub fn members(&self) -> impl Iterator<Item = (Bytes, Bytes)> + '_ {
        self.members.iter().map(|member| (self.text.slice(member.key.clone()), self.text.slice(member.value.clone())))
    }

    /// The text with the values of these keys exchanged for raw JSON, wherever they stand; absent keys stay absent.
    #[must_use]
    pub fn replace(&self, values: &[(&str, &[u8])]) -> Bytes {
        self.write(|key| values.iter().find(|(name, _)| self.is(key, name)).map_or(Keep, |(_, raw)| Value(raw)), &[])
    }

    /// The text with these keys set to raw JSON: exchanged where they stand, appended where they do not.
    #[must_use]
    pub fn set(&self, values: &[(&str, &[u8])]) -> Bytes {
        let absent = |(key, _): &&(&str, &[u8])| !self.members.iter().any(|member| self.is(member, key));
        let added: Vec<(&str, &[u8])> = values.iter().filter(absent).copied().collect();
        self.write(|key| values.iter().find(|(name, _)| self.is(key, name)).map_or(Keep, |(_, raw)| Value(raw)), &added)
    }

    /// The text without these keys.
    #[must_use]
    pub fn remove(&self, keys: &[&str]) -> Bytes {
        self.write(|key| if keys.iter().any(|name| self.is(key, name)) { Drop } else { Keep }, &[])
    }

    fn is(&self, member: &Member, key: &str) -> bool {
        self.text.get(member.key.clone()).is_some_and(|raw| is(raw, key))
    }

    /// Writes the kept members, each with the separator that stood before it, then `added`.
    fn write<'a>(&self, edit: impl Fn(&Member) -> Edit<'a>, added: &[(&str, &[u8])]) -> Bytes {
        let mut out = BytesMut::with_capacity(self.text.len());
        let mut first = true;
        let mut end = self.open;
        let copy = |out: &mut BytesMut, range: Range<usize>| out.put_slice(self.text.get(range).unwrap_or_default());
        copy(&mut out, 0..self.members.first().map_or(end, |member| member.key.start));
        for member in &self.members {
            let separator = end..member.key.start;
            end = member.value.end;
            let value = match edit(member) {
                Drop => continue,
                Keep => None,
                Value(raw) => Some(raw),
            };
            if !core::mem::take(&mut first) {
                copy(&mut out, separator);
            }
            copy(&mut out, member.key.start..member.value.start);
            match value {
                None => copy(&mut out, member.value.clone()),
                Some(raw) => out.put_slice(raw),
            }
        }
        for (key, raw) in added {
            if !core::mem::take(&mut first) {
                out.put_u8(b',');
            }
            out.put_slice(quoted(key).as_bytes());
            out.put_u8(b':');
            out.put_slice(raw);
        }
        copy(&mut out, end..self.text.len());
        out.freeze()
    }
}

/// Goes over the raw members of what [`Object::parse`] takes, in their order: the key with its quotes, and the value. For
/// who needs no more of them, it keeps nothing. An error may come after some members.
pub(crate) fn each<'a>(text: &'a [u8], mut take: impl FnMut(&'a [u8], &'a [u8])) -> Result<(), NotAnObject> {
    walk(text, |walk, key, value| take(walk.raw(&key), walk.raw(&value))).map(drop)
}

/// Goes over where keys and values stand. Returns where the first member may begin.
fn walk<'a>(text: &'a [u8], mut take: impl FnMut(&Walk<'a>, Range<usize>, Range<usize>)) -> Result<usize, NotAnObject> {
    let mut walk = Walk::into_object(text)?;
    let (open, mut count) = (walk.at(), 0);
    while let Some(key) = walk.key(count == 0)? {
        if count == limits::MAX_MEMBERS {
            return Err(NotAnObject);
        }
        count += 1;
        let value = walk.value()?;
        take(&walk, key, value);
    }
    walk.end()?;
    Ok(open)
}

/// Whether a member's raw key means `key`.
pub(crate) fn is(raw: &[u8], key: &str) -> bool {
    let [b'"', text @ .., b'"'] = raw else { return false };
    // The text was checked as a whole: a key without escapes means what stands there, and an escape is longer than
    // what it stands for.
    match text.len().cmp(&key.len()) {
        Ordering::Less => false,
        Ordering::Equal => text == key.as_bytes() && !text.contains(&b'\\'),
        Ordering::Greater => text.contains(&b'\\') && string(raw).is_some_and(|text| text == key),
    }
}

/// The raw value of `key` in `text`; `None` also when `text` is no object.
#[must_use]
pub fn get(text: &Bytes, key: &str) -> Option<Bytes> {
    value_of(text, key).ok()?.map(|value| text.slice_ref(value))
}

/// The same where it stands, and told from what is no object.
pub(crate) fn value_of<'a>(text: &'a [u8], key: &str) -> Result<Option<&'a [u8]>, NotAnObject> {
    let mut found = None;
    each(text, |raw, value| {
        if is(raw, key) {
            found = Some(value);
        }
    })?;
    Ok(found)
}

/// The raw value at the end of a path of keys, `["_meta", "progressToken"]` for one.
#[must_use]
pub fn get_path(text: &Bytes, path: &[&str]) -> Option<Bytes> {
    find(text, path).map(|value| text.slice_ref(value))
}

/// The same where it stands.
pub(crate) fn find<'a>(text: &'a [u8], path: &[&str]) -> Option<&'a [u8]> {
    path.iter().try_fold(text, |text, key| value_of(text, key).ok().flatten())
}

/// The text with the value at the end of a path set to raw JSON. Objects on the way are made where there are none;
/// no text at all counts as `{}`; anything else that is not an object fails.
pub fn set_path(text: &Bytes, path: &[&str], raw: &[u8]) -> Result<Bytes, NotAnObject> {
    let [key, rest @ ..] = path else { return Ok(Bytes::copy_from_slice(raw)) };
    let object = Object::parse_or_empty(text)?;
    let inner = object.get(key).unwrap_or_default();
    let value = set_path(&inner, rest, raw)?;
    Ok(object.set(&[(key, &value)]))
}

/// The text without the member at the end of a path; unchanged when it is not there.
#[must_use]
pub fn remove_path(text: &Bytes, path: &[&str]) -> Bytes {
    let Ok(object) = Object::parse(text) else { return text.clone() };
    match path {
        [] => text.clone(),
        [key] => object.remove(&[key]),
        [key, rest @ ..] => match object.get(key) {
            Some(inner) => object.replace(&[(key, &remove_path(&inner, rest))]),
            None => text.clone(),
        },
    }
}

use Edit::{Drop, Keep, Value};

/// What happens to a member.
enum Edit<'a> {
    Keep,
    Drop,
    Value(&'a [u8]),
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::{String, ToString};
    use core::ops::Not;

    use proptest::prelude::*;

    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn object(text: &str) -> Object {
        Object::parse(&bytes(text)).unwrap()
    }

    /// JSON text with odd space, escapes, numbers and keys that stand twice.
    fn json(depth: u32) -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_string()),
            Just("-0.0e+10".to_string()),
            "[1-9][0-9]{0,40}",
            text(),
            Just(r#""\ud83d\ude00 \\\" {[,:]}""#.to_string()),
        ];
        leaf.prop_recursive(depth, 32, 6, |inner| {
            prop_oneof![
                (prop::collection::vec(inner.clone(), 0..6), space())
                    .prop_map(|(items, space)| format!("[{space}{}{space}]", items.join(&format!("{space},")))),
                members(inner),
            ]
        })
    }

    fn members(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
        (prop::collection::vec((key(), space(), value), 0..6), space()).prop_map(|(members, end)| {
            let members: Vec<_> = members
                .into_iter()
                .map(|(key, space, value)| format!("{space}{key}{space}:{space}{value}{space}"))
                .collect();
            format!("{end}{{{end}{}{end}}}{end}", members.join(","))
        })
    }

    fn key() -> impl Strategy<Value = String> {
        prop_oneof![
            Just(r#""name""#.to_string()),
            Just(r#""n\u0061me""#.to_string()),
            Just(r#""""#.to_string()),
            text()
        ]
    }

    fn text() -> impl Strategy<Value = String> {
        any::<String>().prop_map(|text| quoted(&text))
    }

    fn space() -> impl Strategy<Value = String> {
        "[ \t\r\n]{0,2}"
    }

    #[test]
    fn last_value_is_read_and_all_are_written() {
        let twice = object(r#"{"name":1, "n\u0061me" : 2}"#);
        assert_eq!(twice.get("name"), Some(bytes("2")));
        assert_eq!(twice.replace(&[("name", b"3")]), r#"{"name":3, "n\u0061me" : 3}"#);
        assert_eq!(twice.remove(&["name"]), "{}");
    }

    #[test]
    fn edits_leave_the_rest_as_it_was() {
        let text = " { \"a\" : 1.50 ,\n\"b\":null , \"c\" : [ {} ] } ";
        let cases: [(Bytes, &str); 9] = [
            (object(text).replace(&[("b", b"{}")]), " { \"a\" : 1.50 ,\n\"b\":{} , \"c\" : [ {} ] } "),
            (object(text).replace(&[("absent", b"{}")]), text),
            (object(text).remove(&["a"]), " { \"b\":null , \"c\" : [ {} ] } "),
            (object(text).remove(&["b"]), " { \"a\" : 1.50 , \"c\" : [ {} ] } "),
            (object(text).remove(&["c"]), " { \"a\" : 1.50 ,\n\"b\":null } "),
            (object(text).remove(&["a", "b", "c"]), " {  } "),
            (object(text).set(&[("b", b"2"), ("d", b"4")]), " { \"a\" : 1.50 ,\n\"b\":2 , \"c\" : [ {} ],\"d\":4 } "),
            (object("{ }").set(&[("d\"", b"4"), ("e", b"5")]), "{\"d\\\"\":4,\"e\":5 }"),
            (object("{}").set(&[]), "{}"),
        ];
        for (edited, expected) in cases {
            assert_eq!(edited, expected);
        }
    }

    #[test]
    fn paths_are_read_and_written() {
        let path = ["_meta", "progressToken"];
        let text = bytes(r#"{"_meta":{"x":1, "progressToken":"t"},"n":2}"#);
        assert_eq!(get_path(&text, &path), Some(bytes("\"t\"")));
        assert_eq!(set_path(&text, &path, b"7").unwrap(), r#"{"_meta":{"x":1, "progressToken":7},"n":2}"#);
        assert_eq!(remove_path(&text, &path), r#"{"_meta":{"x":1},"n":2}"#);
        assert_eq!(set_path(&Bytes::new(), &path, b"7").unwrap(), r#"{"_meta":{"progressToken":7}}"#);
        assert_eq!(set_path(&bytes("{}"), &path, b"7").unwrap(), r#"{"_meta":{"progressToken":7}}"#);
        assert_eq!(set_path(&bytes(r#"{"_meta":null}"#), &path, b"7"), Err(NotAnObject));
        assert_eq!(set_path(&bytes("[]"), &path, b"7"), Err(NotAnObject));
        assert_eq!(get_path(&bytes(r#"{"_meta":null}"#), &path), None);
        assert_eq!(remove_path(&bytes("[]"), &path), "[]");
    }

    #[test]
    fn hidden_twin_is_overwritten_too() {
        let text = bytes(r#"{"_meta":{"progressToken":1},"_meta":{"progressToken":2}}"#);
        let set = set_path(&text, &["_meta", "progressToken"], b"3").unwrap();
        assert_eq!(set, r#"{"_meta":{"progressToken":3},"_meta":{"progressToken":3}}"#);
    }

    #[test]
    fn other_texts_are_no_objects() {
        for text in ["", "[]", "1", "\"{}\"", "{", "{}}", "{\"a\"}", "{\"a\":1,}", "{,}", "{\"a\":tru}", "{\"\\x\":1}"]
        {
            assert!(Object::parse(&bytes(text)).is_err(), "{text}");
        }
        assert!(Object::parse(&Bytes::from_static(b"{\"\xff\":1}")).is_err());
    }

    #[test]
    fn members_are_bounded() {
        let many = |count: usize| bytes(&format!("{{{}}}", std::vec!["\"\":1"; count].join(",")));
        assert!(Object::parse(&many(limits::MAX_MEMBERS)).is_ok());
        assert!(Object::parse(&many(limits::MAX_MEMBERS + 1)).is_err());
    }

    proptest! {
        #[test]
        fn replacing_a_member_with_itself_changes_nothing(text in members(json(3))) {
            let whole = object(&text);
            for (key, _) in whole.members() {
                let key = string(&key).unwrap().into_owned();
                let value = whole.get(&key).unwrap();
                let replaced = whole.replace(&[(&key, &value)]);
                let twice = whole.members().filter(|(raw, _)| string(raw).as_deref() == Some(&key)).count() > 1;
                prop_assert!(twice || replaced == text.as_bytes());
                prop_assert_eq!(Object::parse(&replaced).unwrap().get(&key), Some(value));
            }
            prop_assert_eq!(whole.remove(&[]), text.as_bytes());
        }

        #[test]
        fn members_are_what_a_parser_sees(text in members(json(3))) {
            let whole = object(&text);
            let parsed: alloc::collections::BTreeMap<String, &serde_json::value::RawValue> =
                serde_json::from_str(&text).unwrap();
            for (key, value) in &parsed {
                let seen = whole.get(key);
                prop_assert_eq!(seen.as_deref(), Some(value.get().as_bytes()));
            }
            let own: alloc::collections::BTreeSet<_> =
                whole.members().map(|(key, _)| string(&key).unwrap().into_owned()).collect();
            prop_assert_eq!(own.len(), parsed.len());
        }

        #[test]
        fn removed_member_is_gone_and_the_others_stay(text in members(json(2)), pick in any::<prop::sample::Index>()) {
            let whole = object(&text);
            let keys: Vec<_> = whole.members().map(|(key, _)| string(&key).unwrap().into_owned()).collect();
            prop_assume!(keys.is_empty().not());
            let gone = &keys[pick.index(keys.len())];
            let rest = Object::parse(&whole.remove(&[gone])).unwrap();
            let kept = |object: &Object| -> Vec<_> {
                object.members().filter(|(key, _)| string(key).as_deref() != Some(gone)).collect()
            };
            prop_assert_eq!(kept(&rest), kept(&whole));
            prop_assert_eq!(rest.get(gone), None);
        }

        #[test]
        fn set_member_is_read_back(text in members(json(2)), key in any::<String>(), value in json(2)) {
            let value = bytes(&value);
            let set = Object::parse(&object(&text).set(&[(&key, &value)])).unwrap();
            let read = set.get(&key).unwrap();
            prop_assert_eq!(read.trim_ascii(), value.trim_ascii());
        }
    }
}

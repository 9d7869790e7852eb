//! Any JSON: its members are found where serde_json finds them, an edit changes the edited bytes alone, and what is put
//! into an envelope comes out of it byte for byte.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use tunnel_core::limits;
use tunnel_core::rpc::object::Object;
use tunnel_core::rpc::scan::{Fault, Scan};
use tunnel_core::rpc::{self, Message, RawId, envelope};

fuzz_target!(|input: (u16, &[u8])| {
    let (at, data) = input;
    let text = Bytes::copy_from_slice(data);
    if let Some(members) = members(&text) {
        edits(&text, &members);
    }
    if let Ok(message) = rpc::parse(&text) {
        assert_eq!(rpc::parse(&written(&message)).as_ref(), Ok(&message), "the same parts, the same message");
        let renamed = with_id(message, RawId::from_number(u64::from(at)));
        assert_eq!(rpc::parse(&written(&renamed)), Ok(renamed), "and nothing but its id is new");
    }
    streamed(&text, usize::from(at));
});

/// The members as serde_json has them: keys decoded, values as ranges of the text.
fn members(text: &Bytes) -> Option<Vec<(String, usize, usize)>> {
    struct All<'a>(&'a Bytes);
    impl<'de> Visitor<'de> for All<'_> {
        type Value = Vec<(String, usize, usize)>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = Vec::new();
            while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
                let from = value.get().as_ptr() as usize - self.0.as_ptr() as usize;
                found.push((key, from, from + value.get().len()));
            }
            Ok(found)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(std::str::from_utf8(text).ok()?);
    let found = reader.deserialize_map(All(text)).ok()?;
    reader.end().ok().map(|()| found)
}

fn edits(text: &Bytes, members: &[(String, usize, usize)]) {
    let Ok(object) = Object::parse(text) else {
        return assert!(members.len() > limits::MAX_MEMBERS, "an object of few members is read");
    };
    let same = |(raw, known): ((Bytes, Bytes), &(String, usize, usize))| {
        rpc::string(&raw.0).as_deref() == Some(&known.0) && raw.1 == text[known.1..known.2]
    };
    assert!(object.members().count() == members.len() && object.members().zip(members).all(same));
    let Some((key, ..)) = members.first() else { return };
    let (mut expected, mut end) = (Vec::new(), 0);
    for (_, from, to) in members.iter().filter(|(name, ..)| name == key) {
        expected.extend_from_slice(&text[end..*from]);
        expected.extend_from_slice(b"[7]");
        end = *to;
    }
    expected.extend_from_slice(&text[end..]);
    assert_eq!(object.replace(&[(key, b"[7]")]), expected);
    assert_eq!(object.set(&[(key, b"[7]")]), expected);
    let less = object.remove(&[key]);
    let kept = |text: &Bytes, all: &[(String, usize, usize)]| -> Vec<(String, Bytes)> {
        let rest = all.iter().filter(|(name, ..)| name != key);
        rest.map(|(name, from, to)| (name.clone(), text.slice(*from..*to))).collect()
    };
    let left = self::members(&less).expect("an object without some members is an object");
    assert!(left.iter().all(|(name, ..)| name != key) && kept(&less, &left) == kept(text, members));
}

fn written(message: &Message) -> Bytes {
    match message {
        Message::Request { id, method, params } => envelope::request(id, method, params),
        Message::Notification { method, params } => envelope::notification(method, params),
        Message::Response { id: Some(id), outcome: Ok(result) } => envelope::result(id, result),
        Message::Response { id: None, outcome: Ok(_) } => unreachable!("a result has an id"),
        Message::Response { id, outcome: Err(error) } => envelope::raw_error(id.as_ref(), error),
    }
}

fn with_id(message: Message, id: RawId) -> Message {
    match message {
        Message::Request { method, params, .. } => Message::Request { id, method, params },
        Message::Response { outcome, .. } => Message::Response { id: Some(id), outcome },
        notification @ Message::Notification { .. } => notification,
    }
}

/// A value that is streamed into an envelope passes the scan exactly if serde_json takes it, and stays what it was.
fn streamed(text: &Bytes, at: usize) {
    let (head, tail) = text.split_at(at.min(text.len()));
    let mut scan = Scan::value();
    let verdict = scan.push(head).and_then(|()| scan.push(tail)).and_then(|()| scan.end());
    let value = serde_json::from_slice::<&RawValue>(text).ok();
    assert!(verdict == Err(Fault::TooDeep) || verdict.is_ok() == value.is_some(), "{verdict:?}");
    let (Some(value), Ok(())) = (value, verdict) else { return };
    let id = RawId::from_number(7);
    let (before, after) = envelope::around_result(&id);
    let message = rpc::parse(&Bytes::from([before, text.clone(), after].concat()));
    let outcome = Ok(Bytes::copy_from_slice(value.get().as_bytes()));
    assert_eq!(message, Ok(Message::Response { id: Some(id), outcome }));
}

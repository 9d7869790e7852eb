use alloc::format;
use alloc::string::String;

use proptest::prelude::*;

use super::*;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn id(raw: &str) -> RawId {
    RawId::from_raw(raw.as_bytes()).unwrap()
}

#[test]
fn messages_are_cut_without_decoding() {
    let params = r#"{ "n": 1.0e+05, "big":123456789012345678901234567890,"x":null ,"u":"\u00e9" }"#;
    let cases = [
        (
            format!(r#" {{"jsonrpc":"2.0","id":1,"method":"a/b","params":{params} , "extra":[{{}}]}} "#),
            Message::Request { id: id("1"), method: "a/b".into(), params: bytes(params) },
        ),
        (
            r#"{"method":"m\u0065","id":"1","jsonrpc":"2.0"}"#.into(),
            Message::Request { id: id(r#""1""#), method: "me".into(), params: Bytes::new() },
        ),
        (
            r#"{"jsonrpc":"2.0","method":"x","params":null}"#.into(),
            Message::Notification { method: "x".into(), params: bytes("null") },
        ),
        (
            r#"{"jsonrpc":"2.0","id":-1.5,"result":null}"#.into(),
            Message::Response { id: Some(id("-1.5")), outcome: Ok(bytes("null")) },
        ),
        (
            r#"{"jsonrpc":"2.0","id":null,"error":{ "code":1}}"#.into(),
            Message::Response { id: None, outcome: Err(bytes(r#"{ "code":1}"#)) },
        ),
        (r#"{"jsonrpc":"2.0","error":{}}"#.into(), Message::Response { id: None, outcome: Err(bytes("{}")) }),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(&bytes(&text)), Ok(expected), "{text}");
    }
}

#[test]
fn parts_share_the_buffer_but_the_id_does_not() {
    let body = bytes(r#"{"jsonrpc":"2.0","id":"abc","method":"m","params":{"a":1}}"#);
    let Ok(Message::Request { id, params, .. }) = parse(&body) else { panic!("not a request") };
    let range = body.as_ptr_range();
    assert!(range.contains(&params.as_ptr()));
    assert!(!range.contains(&id.as_bytes().as_ptr()));
}

#[test]
fn broken_messages_are_refused_with_the_right_code_and_id() {
    let long = format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"m"}}"#, "x".repeat(limits::MAX_ID));
    let cases = [
        ("", PARSE_ERROR, None),
        ("{", PARSE_ERROR, None),
        ("[1,", PARSE_ERROR, None),
        (r#"{"jsonrpc":"2.0"} x"#, PARSE_ERROR, None),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":01}}"#, PARSE_ERROR, None),
        ("[]", INVALID_REQUEST, None),
        (r#"["2.0",1,"m",{},null,null]"#, INVALID_REQUEST, None),
        ("1", INVALID_REQUEST, None),
        ("{}", INVALID_REQUEST, None),
        (r#"{"id":7,"method":"m"}"#, INVALID_REQUEST, Some("7")),
        (r#"{"jsonrpc":"1.0","id":"7","method":"m"}"#, INVALID_REQUEST, Some(r#""7""#)),
        (r#"{"jsonrpc":2.0,"id":7,"method":"m"}"#, INVALID_REQUEST, Some("7")),
        (r#"{"jsonrpc":"2.0","id":null,"method":"m"}"#, INVALID_REQUEST, None),
        (r#"{"jsonrpc":"2.0","id":[7],"method":"m"}"#, INVALID_REQUEST, None),
        (r#"{"jsonrpc":"2.0","id":true,"method":"m"}"#, INVALID_REQUEST, None),
        (long.as_str(), INVALID_REQUEST, None),
        (r#"{"jsonrpc":"2.0","id":7,"id":8,"method":"m"}"#, INVALID_REQUEST, None),
        (r#"{"jsonrpc":"2.0","id":7,"method":null}"#, INVALID_REQUEST, Some("7")),
        (r#"{"jsonrpc":"2.0","id":7,"method":"\ud800"}"#, INVALID_REQUEST, Some("7")),
        (r#"{"jsonrpc":"2.0","id":7,"method":"m","params":"text"}"#, INVALID_REQUEST, Some("7")),
        (r#"{"jsonrpc":"2.0","id":7,"method":"m","result":1}"#, INVALID_REQUEST, Some("7")),
        (r#"{"jsonrpc":"2.0","id":7,"result":1,"error":{}}"#, INVALID_REQUEST, Some("7")),
        (r#"{"jsonrpc":"2.0","id":7,"error":"text"}"#, INVALID_REQUEST, Some("7")),
        (r#"{"jsonrpc":"2.0","id":7}"#, INVALID_REQUEST, Some("7")),
        (r#"{"jsonrpc":"2.0","result":1}"#, INVALID_REQUEST, None),
    ];
    for (text, code, expected) in cases {
        let error = parse(&bytes(text)).unwrap_err();
        assert_eq!((error.code, error.id.clone()), (code, expected.map(id)), "{text}");
        assert!(matches!(parse(&error.response()), Ok(Message::Response { outcome: Err(_), .. })), "{text}");
    }
    assert_eq!(parse(&Bytes::from_static(b"{\"a\":\"\xff\"}")).unwrap_err().code, PARSE_ERROR);
}

#[test]
fn deep_nesting_costs_no_stack() {
    let depth = 200_000;
    let text = format!(r#"{{"jsonrpc":"2.0","method":"m","params":[{}{}]}}"#, "[".repeat(depth), "]".repeat(depth));
    assert!(parse(&bytes(&text)).is_ok());
}

#[test]
fn batches_are_split_within_their_bound() {
    let items = |count: usize| bytes(&format!("[{}]", std::vec!["{}"; count].join(" , ")));
    assert_eq!(parse_batch(&items(2)), Ok(std::vec![bytes("{}"), bytes("{}")]));
    assert_eq!(parse_batch(&items(limits::MAX_BATCH)).map(|items| items.len()), Ok(limits::MAX_BATCH));
    for (text, code) in [
        (items(limits::MAX_BATCH + 1), INVALID_REQUEST),
        (items(0), INVALID_REQUEST),
        (bytes("{}"), INVALID_REQUEST),
        (bytes("[{}"), PARSE_ERROR),
    ] {
        assert_eq!(parse_batch(&text).unwrap_err().code, code, "{text:?}");
    }
    assert!(is_batch(b" \n[") && !is_batch(b"{[") && !is_batch(b""));
}

#[test]
fn ids_keep_their_type() {
    assert_ne!(id("1"), id(r#""1""#));
    assert_eq!(RawId::from_number(u64::MAX), id("18446744073709551615"));
    assert_eq!(RawId::from_number(9).as_number(), Some(9));
    assert_eq!(id(r#""9""#).as_number(), None);
    for raw in ["", "null", "{}", "[1]", "01", "1 2", "\"", "tru"] {
        assert_eq!(RawId::from_raw(raw.as_bytes()), None, "{raw}");
    }
}

#[test]
fn strings_decode_or_are_none() {
    assert_eq!(string(br#""a\u00e9\n""#).as_deref(), Some("aé\n"));
    assert!(matches!(string(br#""plain""#), Some(Cow::Borrowed("plain"))));
    for raw in ["1", "null", "", "\"", r#""\ud800""#] {
        assert_eq!(string(raw.as_bytes()), None, "{raw}");
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(text in prop::collection::vec(any::<u8>(), 0..64)) {
        let body = Bytes::from(text);
        let _ = parse(&body);
        let _ = parse_batch(&body);
        let _ = object::Object::parse(&body);
    }

    #[test]
    fn quoted_text_reads_back(text in any::<String>()) {
        let raw = quoted(&text);
        let read = string(raw.as_bytes());
        prop_assert_eq!(read.as_deref(), Some(text.as_str()));
    }
}

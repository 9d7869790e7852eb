use super::*;
use crate::limits;

fn request(id: u32, method: &str, params: &str) -> Item {
    let params = Bytes::copy_from_slice(params.as_bytes());
    Item::Request(Request { id: rpc::RawId::from_number(id.into()), method: method.into(), params })
}

#[test]
fn batch_is_answered_as_an_array_in_order() {
    let mut world = World::ready();
    let requests = std::vec![
        request(1, "tools/call", r#"{"name":"files__read"}"#),
        Item::Unreadable(Bytes::from_static(b"{\"bad\":1}")),
        request(2, "ping", ""),
    ];
    let opened = world.content(Content::Batch(requests));
    assert!(opened[0].starts_with("tunnel 1 open 1") && opened.len() == 1);
    assert_eq!(world.advance(limits::STREAM_AFTER), ["begin 1 events"]);
    assert_eq!(world.advance(limits::HEARTBEAT), ["body 1 +0 \": keep-alive\\n\\n\""]);
    world.answer(1, 1, None);
    assert_eq!(world.data(1, 1, "[", false), ["tunnel 1 consumed 1 1"]);
    let last = world.data(1, 1, "]", true);
    let array = r#"[{"jsonrpc":"2.0","id":1,"result":[]},{"bad":1},{"jsonrpc":"2.0","id":2,"result":{}}]"#;
    assert_eq!(last, [format!("body 1 +0 {:?}", format!("event: message\ndata: {array}\n\n")), "finish 1".into()]);
}

#[test]
fn batch_answers_are_bounded_together() {
    let mut world = World::ready();
    let requests = std::vec![request(1, "tools/call", r#"{"name":"files__read"}"#), request(2, "ping", "")];
    world.content(Content::Batch(requests));
    world.answer(1, 1, None);
    let big = "1".repeat(limits::MAX_BATCH_ANSWER);
    assert_eq!(world.data(1, 1, &big, false), [format!("tunnel 1 consumed 1 {}", big.len())]);
    let actions = world.data(1, 1, "1", false);
    assert_eq!(actions[0], "tunnel 1 reset 1 TooLarge");
    assert!(actions[1].contains("batch-too-large") && actions[1].contains("\"id\":2,\"result\""), "{}", actions[1]);
}

#[test]
fn batch_whose_client_went_away_goes_on() {
    let mut world = World::ready();
    let requests = std::vec![request(1, "tools/call", r#"{"name":"files__read"}"#)];
    world.content(Content::Batch(requests));
    assert_eq!(world.gone(1), [""; 0]);
    world.answer(1, 1, None);
    assert_eq!(world.data(1, 1, "[", false), ["tunnel 1 consumed 1 1"]);
    assert_eq!(world.data(1, 1, "]", true), [""; 0]);
}

fn cancel(id: u32) -> Item {
    Item::Note(Note::Cancelled { params: Bytes::from(format!(r#"{{"requestId":{id}}}"#)) })
}

#[test]
fn cancellation_in_a_batch_is_of_what_stands_before_it() {
    let mut world = World::ready();
    let read = |id| request(id, "tools/call", r#"{"name":"files__read"}"#);
    let actions = world.content(Content::Batch(std::vec![cancel(51), read(50), cancel(50), read(51)]));
    assert!(actions[0].starts_with("tunnel 1 open 1 "), "{actions:?}");
    assert_eq!(actions[1], r#"tunnel 1 cancel 1 {"requestId":50}"#);
    assert!(actions[2].starts_with("tunnel 1 open 2 ") && actions.len() == 3, "{actions:?}");
    world.answer(1, 2, None);
    let [whole] = &world.data(1, 2, "{}", true)[..] else { panic!("one reply") };
    let rest = whole.strip_prefix(r#"reply 1 200 [{"jsonrpc":"2.0","id":50,"error":{"code":-32011,"#);
    assert!(rest.is_some_and(|rest| rest.ends_with(r#"},{"jsonrpc":"2.0","id":51,"result":{}}]"#)), "{whole}");
}

#[test]
fn batch_whose_calls_are_all_cancelled_is_answered() {
    let mut world = World::ready();
    let call = request(50, "tools/call", r#"{"name":"files__read"}"#);
    let actions = world.content(Content::Batch(std::vec![call, cancel(50)]));
    assert!(actions[2].starts_with(r#"reply 1 200 [{"jsonrpc":"2.0","id":50,"error":{"code":-32011,"#), "{actions:?}");
    assert_eq!(actions.len(), 3);
}

const SAID: &str = r#"{"jsonrpc":"2.0","method":"notifications/message"}"#;

#[test]
fn what_is_said_while_a_batch_is_under_way_begins_its_stream() {
    let mut world = World::ready();
    world.listen();
    let read = |id| request(id, "tools/call", r#"{"name":"files__read"}"#);
    world.content(Content::Batch(std::vec![read(50), read(51)]));
    let event = |credit, json: &str| format!("body 2 +{credit} {:?}", format!("event: message\ndata: {json}\n\n"));
    assert_eq!(world.said(2, SAID), ["begin 2 events from 1/2", &event(9, SAID)], "and not on the other stream");
    assert_eq!(world.said(1, SAID), ["tunnel 1 consumed 1 9", &event(0, SAID)]);
    let asked = world.said(1, r#"{"jsonrpc":"2.0","id":7,"method":"roots/list"}"#);
    assert!(asked[1].starts_with("body 2 +0 ") && asked[1].contains("roots/list") && asked.len() == 2, "{asked:?}");
    for stream in [1, 2] {
        world.answer(1, stream, None);
    }
    assert_eq!(world.data(1, 1, "{}", true), [""; 0]);
    let array = r#"[{"jsonrpc":"2.0","id":50,"result":{}},{"jsonrpc":"2.0","id":51,"result":{}}]"#;
    assert_eq!(world.data(1, 2, "{}", true), [event(0, array), "finish 2".into()]);
}

#[test]
fn batch_of_a_client_that_takes_no_stream_is_asked_on_the_one_it_listens_on() {
    let mut world = World::ready();
    world.accepts = Accepts::Json;
    world.content(Content::Batch(std::vec![request(50, "tools/call", r#"{"name":"files__read"}"#)]));
    let question = r#"{"jsonrpc":"2.0","id":7,"method":"roots/list"}"#;
    assert!(world.said(1, question)[0].contains("-32601"));
    world.listen();
    let asked = world.said(1, question);
    assert!(asked[0].starts_with("body 2 +0 ") && asked[0].contains("roots/list"), "{asked:?}");
    assert_eq!(asked[1..], ["tunnel 1 consumed 1 9"], "once");
    assert_eq!(world.said(1, SAID), ["tunnel 1 consumed 1 9"], "as with a single call");
}

#[test]
fn batch_may_cancel() {
    let mut world = World::ready();
    world.call(7);
    let notes = std::vec![cancel(7)];
    let actions = world.content(Content::Batch(notes));
    assert_eq!(actions[0], r#"tunnel 1 cancel 1 {"requestId":7}"#);
    assert_eq!(actions[2..], ["reply 2 202 "]);
}

#[test]
fn answer_in_a_batch_cannot_add_another() {
    let mut world = World::ready();
    let requests = std::vec![request(1, "tools/call", r#"{"name":"files__read"}"#), request(2, "ping", "")];
    world.content(Content::Batch(requests));
    world.answer(1, 1, None);
    let actions = world.data(1, 1, r#"{}},{"jsonrpc":"2.0","id":2,"result":{}"#, true);
    assert_eq!(actions[0], "tunnel 1 reset 1 Internal");
    assert!(actions[1].contains("broken-answer") && actions[1].matches("\"id\":2").count() == 1, "{actions:?}");
}

#[test]
fn batch_that_is_awaited_outlives_what_another_client_left_behind() {
    let mut world = World::ready();
    world.listen();
    world.gone(1);
    world.advance(limits::REPLAY_KEPT - Duration::from_millis(1));
    world.content(Content::Batch(std::vec![request(50, "tools/call", r#"{"name":"files__read"}"#)]));
    world.advance(Duration::from_millis(1));
    world.answer(1, 1, None);
    assert_eq!(world.data(1, 1, "{}", true), [r#"reply 2 200 [{"jsonrpc":"2.0","id":50,"result":{}}]"#]);
}

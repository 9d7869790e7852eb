//! Several clients at one server over HTTP: what one of them does keeps no other from its answer.

use ::http::Method;

use super::*;
use crate::http::fetch::FetchEvent;
use crate::limits;
use crate::mcp::code;

/// A session's call of `web`.
fn call(rig: &mut Rig, stream: u32, session: &str) {
    let head = OpenHead {
        server: "web".into(),
        method: "tools/call".into(),
        version: Some("2025-06-18".into()),
        session: session.into(),
        length: 2,
        ..OpenHead::default()
    };
    rig.tunnel(tunnel::Event::Call { stream: StreamId(stream), head, params: Bytes::from_static(b"{}") });
}

/// One that is answered at once.
fn is_answered(rig: &mut Rig, stream: u32, session: &str) {
    call(rig, stream, session);
    let (fetch, request) = rig.fetched(&Method::POST);
    rig.reply_to(fetch, http::JSON, &http::result(&request, &json!({})));
    assert_eq!(rig.answers(), [(stream, None, "{}".to_string())]);
}

#[test]
fn flood_of_calls_leaves_others_theirs() {
    let mut rig = http::ready();
    let half = u32::try_from(limits::MAX_SERVER_CALLS / 2).unwrap();
    for stream in 1..=half + 7 {
        call(&mut rig, stream, "flood");
    }
    let refused = rig.answers();
    assert_eq!((refused.len(), refused[0].1), (7, Some(code::OVERLOADED)));
    rig.actions.clear();
    is_answered(&mut rig, 1_000, "other");
}

#[test]
fn huge_answer_that_is_on_its_way_keeps_nobody_waiting() {
    for headers in [http::JSON, http::SSE] {
        let mut rig = http::ready();
        call(&mut rig, 1, "huge");
        let (fetch, _) = rig.fetched(&Method::POST);
        rig.head(fetch, 200, headers);
        let piece = Bytes::from(std::vec![b'x'; 1024 * 1024]);
        rig.chunk(fetch, "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"");
        for stream in 2..32 {
            rig.fetch(fetch, FetchEvent::Chunk(piece.clone()));
            is_answered(&mut rig, stream, "other");
        }
    }
}

#[test]
fn stream_that_tells_without_end_keeps_nobody_waiting() {
    let mut rig = http::ready();
    call(&mut rig, 1, "talk");
    let (fetch, _) = rig.fetched(&Method::POST);
    rig.head(fetch, 200, http::SSE);
    let log = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}});
    let many = std::format!("data: {log}\n\n").repeat(100);
    for stream in 2..32 {
        rig.chunk(fetch, &many);
        let told = rig.messages();
        assert!(told.len() == 100 && told.iter().all(|(stream, _, droppable)| (*stream, *droppable) == (1, true)));
        is_answered(&mut rig, stream, "other");
    }
}

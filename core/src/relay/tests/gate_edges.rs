//! A gate at the edges: what is said beside an answer, and what a hair more is refused for.

use super::super::gate::{Admission, Step};
use super::gate::{Door, request, with};
use super::*;
use crate::limits;

#[test]
fn one_transfer_coding_is_taken_and_that_is_chunked() {
    let door = Door::new();
    for (coding, taken) in [("chunked", true), ("Chunked", true), ("gzip, chunked", false), ("gzip", false)] {
        let admission = door.admit(&with(door.post(), "transfer-encoding", coding));
        assert_eq!(matches!(admission, Admission::Read { .. }), taken, "{coding}");
    }
    let refused = door.refused(&with(door.post(), "transfer-encoding", "chunked, chunked"));
    assert_eq!((refused.status.as_u16(), refused.headers["connection"].as_bytes()), (501, &b"close"[..]));
    let mut twice = with(door.post(), "transfer-encoding", "chunked");
    twice.headers.append("transfer-encoding", "chunked".parse().unwrap());
    assert_eq!(door.refused(&twice).status, 501);
}

#[test]
fn browsers_are_told_to_come_by_tls_where_it_ends_here_and_the_host_is_not_this_machine() {
    for (tls, url, told) in [
        (true, "https://relay.example", true),
        (false, "https://relay.example", false),
        (true, "https://localhost", false),
        (false, "http://localhost", false),
    ] {
        let settings = Settings { tls, ..Settings::from_config(&config(), url) };
        let gate = super::super::gate::Gate::new(Arc::new(settings));
        assert_eq!(gate.strict_transport().is_some(), told, "{tls} {url}");
    }
}

#[test]
fn body_for_which_there_is_no_room_is_to_come_again_soon() {
    let door = Door::new();
    let Admission::Read { route, .. } = door.admit(&door.post()) else { panic!("refused") };
    let reply = door.gate.no_room(&route);
    assert_eq!(reply.headers["retry-after"], limits::BODIES_RETRY.as_secs().to_string().as_str());
    assert_eq!(route.user(), Some(&UserId::new("ann")));
    let Admission::Read { route, .. } = door.admit(&request("POST", "/token", &[])) else { panic!("refused") };
    assert_eq!(route.user(), None);
}

#[test]
fn page_that_is_allowed_may_read_what_its_request_begins() {
    let door = Door::new();
    let ping = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let post = door.posted(with(door.in_session("2025-06-18"), "origin", "https://app.example"), ping);
    assert_eq!(post.headers["access-control-allow-origin"], "https://app.example");
}

#[test]
fn page_that_is_allowed_may_read_the_stream_that_it_listens_on() {
    let door = Door::new();
    let mut head = with(door.in_session("2025-06-18"), "origin", "https://app.example");
    head.method = http::Method::GET;
    let Step::Shard(_, Event::Listen(listen)) = door.accept(head, b"") else { panic!("no stream") };
    assert_eq!(listen.headers["access-control-allow-origin"], "https://app.example");
}

#[test]
fn session_may_be_ended_whatever_is_taken_as_an_answer() {
    let door = Door::new();
    for accept in ["text/html", "application/json", "text/event-stream"] {
        let mut head = with(door.in_session("2025-06-18"), "accept", accept);
        head.method = http::Method::DELETE;
        assert!(matches!(door.admit(&head), Admission::Read { .. }), "{accept}");
    }
}

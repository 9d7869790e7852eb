use super::*;
use crate::limits;
use crate::mcp::code;
use crate::tunnel::{Close, CloseCode, ResetCode};

const OPEN: &str = r#"tunnel 1 open 1 files tools/call {"name":"read","arguments":{"n":1.0}}"#;

/// A notification, and an answer behind it.
const FORGED: &str = r#"{"jsonrpc":"2.0","method":"x"}{"jsonrpc":"2.0","id":7,"result":{}}"#;

#[test]
fn call_goes_to_its_server_with_nothing_but_the_name_exchanged() {
    let mut world = World::ready();
    let json = r#"{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{ "_meta":{"progressToken":1e400}, "name" : "files__write","arguments":null}}"#;
    let actions = world.post(json);
    let params = r#"{ "_meta":{"progressToken":1e400}, "name" : "write","arguments":null}"#;
    assert_eq!(actions, [format!("tunnel 1 open 1 files tools/call {params}")]);
}

#[test]
fn small_answer_is_one_reply() {
    let mut world = World::ready();
    assert_eq!(world.call(7), [OPEN]);
    assert_eq!(world.answer(1, 1, Some(4)), [""; 0]);
    assert_eq!(world.data(1, 1, "{\n }", true), ["reply 1 200 {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{\n }}"]);
    let deadline = world.shard.poll_timeout().unwrap();
    assert_eq!(deadline.reason, "a grant runs out", "nothing of the call is left to wait for");
}

#[test]
fn what_is_on_the_books_of_a_call_is_gone_with_it() {
    let mut world = World::ready();
    assert!(world.shard.leftovers().is_empty(), "{:?}", world.shard.leftovers());
    world.call(7);
    let left = world.shard.leftovers();
    for what in ["calls", "exchanges", "replies", "requests"] {
        assert_eq!(left.get(what), Some(&1), "{what}: {left:?}");
    }
    assert!(left.contains_key("timers"), "its idle limit runs: {left:?}");
    world.answer(1, 1, Some(2));
    world.data(1, 1, "{}", true);
    assert!(world.shard.leftovers().is_empty(), "{:?}", world.shard.leftovers());
}

#[test]
fn long_answer_is_json_of_known_length_and_returns_credit() {
    let mut world = World::ready();
    world.call(7);
    world.answer(1, 1, Some(6));
    assert_eq!(
        world.data(1, 1, "[1,", false),
        [
            "begin 1 json of 40 from 1/1",
            r#"body 1 +0 "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":""#,
            "body 1 +3 \"[1,\"",
        ]
    );
    assert_eq!(world.data(1, 1, "2]\n", true), ["body 1 +3 \"2]\\n\"", "body 1 +0 \"}\"", "finish 1"]);
}

#[test]
fn answer_of_unknown_length_is_json_without_one() {
    let mut world = World::ready();
    world.call(7);
    world.answer(1, 1, None);
    assert_eq!(world.data(1, 1, "[1]", false)[0], "begin 1 json from 1/1");
    assert_eq!(world.data(1, 1, "", true), ["body 1 +0 \"}\"", "finish 1"]);
}

#[test]
fn progress_first_makes_a_stream_and_answers_stay_on_one_line() {
    let mut world = World::ready();
    world.call(7);
    assert_eq!(
        world.progress(1, 1),
        [
            "begin 1 events from 1/1",
            "body 1 +51 \"event: message\\ndata: {\\\"jsonrpc\\\":\\\"2.0\\\",\\\"method\\\":\\\"notifications/progress\\\"}\\n\\n\"",
        ]
    );
    world.answer(1, 1, Some(8));
    assert_eq!(
        world.data(1, 1, "[1,\r\n", false),
        [r#"body 1 +0 "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":""#, "body 1 +5 \"[1,  \"",]
    );
    assert_eq!(world.advance(limits::HEARTBEAT), [""; 0], "no comment inside a line");
    assert_eq!(world.data(1, 1, "\n2]", true), ["body 1 +3 \" 2]\"", "body 1 +0 \"}\\n\\n\"", "finish 1"]);
}

#[test]
fn silence_makes_a_stream_with_heartbeats() {
    let mut world = World::ready();
    world.call(7);
    assert_eq!(world.advance(limits::STREAM_AFTER), ["begin 1 events from 1/1"]);
    assert_eq!(world.advance(limits::HEARTBEAT), ["body 1 +0 \": keep-alive\\n\\n\""]);
    assert_eq!(world.advance(limits::HEARTBEAT), ["body 1 +0 \": keep-alive\\n\\n\""]);
    world.answer(1, 1, Some(2));
    assert_eq!(
        world.data(1, 1, "{}", true),
        [r#"body 1 +0 "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\n\n""#, "finish 1",]
    );
}

#[test]
fn client_that_takes_json_alone_gets_no_stream() {
    let mut world = World::ready();
    world.accepts = Accepts::Json;
    world.call(7);
    assert_eq!(world.progress(1, 1), ["tunnel 1 consumed 1 51"]);
    assert_eq!(world.advance(limits::STREAM_AFTER), [""; 0]);
    world.answer(1, 1, Some(2));
    assert_eq!(world.data(1, 1, "{}", true), [r#"reply 1 200 {"jsonrpc":"2.0","id":7,"result":{}}"#]);
}

#[test]
fn client_that_takes_streams_alone_gets_one() {
    let mut world = World::ready();
    world.accepts = Accepts::Stream;
    let reply = world.post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    assert_eq!(reply, ["reply 1 200 event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n"]);
    world.call(7);
    world.answer(1, 1, None);
    assert_eq!(world.data(1, 1, "{", false)[0], "begin 2 events from 1/1");
}

#[test]
fn errors_of_the_server_pass_in_band() {
    let mut world = World::ready();
    world.call(7);
    let outcome = Outcome::Error { code: -32050 };
    world.tunnel(1, tunnel::Event::Answer { stream: StreamId(1), outcome, length: None });
    assert_eq!(
        world.data(1, 1, r#"{"code":-32050,"message":"x"}"#, true),
        [r#"reply 1 200 {"jsonrpc":"2.0","id":7,"error":{"code":-32050,"message":"x"}}"#]
    );
}

#[test]
fn late_second_and_foreign_answers_are_dropped() {
    let mut world = World::ready();
    world.up(2, "desktop", Some("id-2"));
    world.drain();
    world.call(7);
    assert_eq!(world.answer(2, 1, None), [""; 0], "another connection cannot name the call");
    assert_eq!(world.data(2, 1, "{}", true), [""; 0]);
    assert_eq!(world.answer(9, 1, None), [""; 0], "no such connection");
    world.answer(1, 1, Some(2));
    assert_eq!(world.answer(1, 1, Some(99)), [""; 0], "a second answer changes nothing");
    assert_eq!(world.data(1, 1, "{}", true).len(), 1);
    assert_eq!(world.answer(1, 1, Some(2)), [""; 0]);
    assert_eq!(world.data(1, 1, "{}", true), [""; 0]);
}

#[test]
fn answers_that_do_not_fit_their_announcement_are_broken_off() {
    for (length, pieces, expected) in [
        (Some(2), &[("{}}", false)][..], "reply"),
        (Some(2), &[("{", true)], "reply"),
        (Some(4), &[("{", false), ("}", true)], "abort 1"),
        (Some(2), &[("{", false), ("}}", false)], "abort 1"),
        (None, &[("", true)], "reply"),
    ] {
        let mut world = World::ready();
        world.call(7);
        world.answer(1, 1, length);
        let mut last = Vec::new();
        for (text, end) in pieces {
            last = world.data(1, 1, text, *end);
        }
        assert_eq!(last[0], "tunnel 1 reset 1 Internal", "{length:?} {pieces:?}");
        assert!(last[1].starts_with(expected), "{last:?}");
        assert_eq!(last.len(), 2);
        assert_eq!(world.data(1, 1, "}", true), [""; 0]);
    }
    let mut world = World::ready();
    world.call(7);
    assert_eq!(failure(&world.data(1, 1, "{}", true)[1]), (code::INTERNAL_ERROR, "broken-answer".into()));
}

#[test]
fn answer_that_would_end_its_envelope_is_broken_off() {
    for (pieces, is_mid_answer) in [
        (&[r#"{}},"id":999,"x":{"y":{}"#][..], false),
        (&["{}", r#"},"id":999,"x":{"y":{}"#], true),
        (&["{}", r#","id":999"#], true),
        (&["{}}\n{}"], false),
        (&["[", "}"], true),
        (&["{\"a\":1", ""], true),
        (&["nothing"], false),
        (&["{\"a\":\"\n\ndata: {}\"}"], false),
    ] {
        for streams in [false, true] {
            let mut world = World::ready();
            world.call(7);
            if streams {
                world.progress(1, 1);
            }
            world.answer(1, 1, None);
            let (last, first) = pieces.split_last().unwrap();
            for piece in first {
                world.data(1, 1, piece, false);
            }
            let actions = world.data(1, 1, last, true);
            assert_eq!(actions[0], "tunnel 1 reset 1 Internal", "{pieces:?}");
            if is_mid_answer {
                assert_eq!(actions[1..], ["abort 1"], "{pieces:?}");
            } else {
                assert_eq!(failure(&actions[1]), (code::INTERNAL_ERROR, "broken-answer".into()), "{pieces:?}");
            }
        }
    }
}

#[test]
fn error_of_an_agent_must_be_an_object_and_nothing_else() {
    for text in ["7", "[]", r#"{},"id":999"#, "null", r#"{"code":1"#] {
        let mut world = World::ready();
        world.call(7);
        let outcome = Outcome::Error { code: 1 };
        world.tunnel(1, tunnel::Event::Answer { stream: StreamId(1), outcome, length: None });
        let actions = world.data(1, 1, text, true);
        assert_eq!(failure(&actions[1]), (code::INTERNAL_ERROR, "broken-answer".into()), "{text}");
    }
}

#[test]
fn answer_that_was_too_large_for_its_tunnel_is_told_as_such() {
    let mut world = World::ready();
    world.call(1);
    world.tunnel(1, tunnel::Event::Closed(Close::new(CloseCode::TooBig, "an answer was larger than 32 MiB")));
    let actions = world.drain();
    assert!(actions[0].contains("too large for one message"), "{actions:?}");
    assert_eq!(failure(&actions[0]), (code::AGENT_GONE, "device-disconnected".into()));
}

#[test]
fn closed_tunnel_answers_every_call_at_once() {
    let mut world = World::ready();
    world.call(1);
    world.call(2);
    world.progress(1, 2);
    world.call(3);
    world.answer(1, 3, None);
    world.data(1, 3, "{", false);
    world.tunnel(1, tunnel::Event::Closed(Close::new(CloseCode::TimedOut, "")));
    let actions = world.drain();
    let (first, rest) = actions.split_first().unwrap();
    assert!(first.starts_with("reply 1 200") && first.contains("closeCode\":4000"), "{first}");
    assert_eq!(failure(first), (code::AGENT_GONE, "device-disconnected".into()));
    assert!(rest[0].starts_with("body 2") && rest[0].contains("device-disconnected"));
    assert_eq!(rest[1..], ["finish 2", "abort 3"]);
    assert_eq!(world.data(1, 3, "}", true), [""; 0]);
    world.advance(limits::REPLAY_KEPT);
    assert_eq!(world.shard.poll_timeout(), None, "nothing is left of the room");
}

#[test]
fn reset_by_the_agent_is_a_typed_error() {
    for (reset, code, reason) in [
        (ResetCode::TooLarge, code::TOO_LARGE, "answer-too-large"),
        (ResetCode::Stalled, code::STALLED, "reader-stalled"),
        (ResetCode::ServerGone, code::SERVER_UNAVAILABLE, "server-gone"),
        (ResetCode::Internal, code::INTERNAL_ERROR, "agent-fault"),
        (ResetCode::Overloaded, code::OVERLOADED, "agent-overloaded"),
        (ResetCode::TimedOut, code::TIMED_OUT, "timed-out"),
        (ResetCode::Cancelled, code::CANCELLED, "cancelled"),
    ] {
        let mut world = World::ready();
        world.call(7);
        world.tunnel(1, tunnel::Event::Reset { stream: StreamId(1), code: reset, reason: "a\nb".into() });
        let actions = world.drain();
        assert_eq!(failure(&actions[0]), (code, reason.into()));
        assert!(actions[0].contains(": a b\"") && actions.len() == 1, "{actions:?}");
    }
}

#[test]
fn silence_for_the_idle_limit_ends_a_call_and_any_frame_renews_it() {
    let idle = config().limits.call_idle;
    let mut world = World::ready();
    world.accepts = Accepts::Json;
    world.call(7);
    assert_eq!(world.advance(idle - Duration::from_secs(1)), [""; 0]);
    world.progress(1, 1);
    assert_eq!(world.advance(idle - Duration::from_secs(1)), [""; 0]);
    let actions = world.advance(Duration::from_secs(1));
    assert_eq!(actions[0], "tunnel 1 reset 1 TimedOut");
    assert_eq!(failure(&actions[1]), (code::TIMED_OUT, "timed-out".into()));
    assert_eq!(actions.len(), 2);
}

#[test]
fn call_to_an_old_agent_waits_no_longer_than_it_did() {
    let mut world = World::new();
    world.accepts = Accepts::Json;
    world.up(1, "laptop", None);
    world.catalog(1, &files());
    world.drain();
    world.call(7);
    assert_eq!(world.advance(limits::V1_CALL_TIMEOUT)[0], "tunnel 1 reset 1 TimedOut");
}

#[test]
fn cancelled_call_is_given_up_in_the_clients_words_and_answered() {
    let params = r#"{"_meta":{"x":1.0},"requestId":7,"reason":"x","y": null}"#;
    let cancel = format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{params}}}"#);
    let cancel = cancel.as_str();
    let mut world = World::ready();
    world.call(7);
    world.session = "other";
    assert_eq!(world.post(cancel), ["reply 2 202 "], "an id means nothing in another session");
    world.session = "s";
    let quoted = cancel.replace('7', "\"7\"");
    assert_eq!(world.post(&quoted), ["reply 3 202 "], "\"7\" is not 7");
    let actions = world.post(cancel);
    assert_eq!(actions[0], format!("tunnel 1 cancel 1 {params}"));
    assert_eq!(failure(&actions[1]), (code::CANCELLED, "cancelled".into()));
    assert_eq!(actions[2..], ["reply 4 202 "]);
    assert_eq!(world.post(cancel), ["reply 5 202 "], "once");
}

#[test]
fn client_that_went_away_does_not_cancel() {
    let mut world = World::ready();
    world.call(7);
    world.answer(1, 1, None);
    world.data(1, 1, "{", false);
    assert_eq!(world.gone(1), [""; 0]);
    assert_eq!(world.data(1, 1, "   ", false), ["tunnel 1 consumed 1 3"]);
    assert_eq!(world.progress(1, 1), ["tunnel 1 consumed 1 51"]);
    assert_eq!(world.data(1, 1, "}", true), [""; 0]);
    assert_eq!(world.call(7).len(), 1, "the call is over, and its id free");
}

#[test]
fn id_in_use_is_refused_within_a_session_only() {
    let mut world = World::ready();
    world.call(7);
    assert_eq!(failure(&world.call(7)[0]), (code::INVALID_REQUEST, "id-in-use".into()));
    world.session = "other";
    assert!(world.call(7)[0].starts_with("tunnel 1 open 2"));
}

#[test]
fn calls_of_a_user_are_bounded() {
    let bounds = RelayLimits { calls_per_user: 3, ..RelayLimits::default() };
    let mut world = World::with(&RelayConfig { limits: bounds, ..config() });
    world.up(1, "laptop", Some("id-1"));
    world.catalog(1, &files());
    world.drain();
    for (id, session) in [(0, "s"), (1, "s"), (2, "t")] {
        (world.session, world.family) = (session, if session == "s" { "client-family" } else { "another-family" });
        assert!(world.call(id)[0].starts_with("tunnel 1 open"));
    }
    let refused = &world.call(5000)[0];
    assert_eq!(failure(refused), (code::OVERLOADED, "overloaded".into()));
    assert!(refused.contains("limits.callsPerUser"), "{refused}");
    world.answer(1, 1, None);
    world.data(1, 1, "{}", true);
    assert!(failure(&world.call(5000)[0]).1 == "overloaded", "it has its share");
    (world.session, world.family) = ("u", "third-family");
    assert!(world.call(5000)[0].starts_with("tunnel 1 open"));
}

#[test]
fn flood_of_one_client_leaves_calls_for_the_users_others() {
    let bounds = RelayLimits { calls_per_user: 64, ..RelayLimits::default() };
    for (sessions, families, others) in [(1, 1, 16), (8, 1, 16), (1, 2, 8)] {
        let mut world = World::with(&RelayConfig { limits: bounds.clone(), ..config() });
        world.up(1, "laptop", Some("id-1"));
        world.catalog(1, &files());
        world.drain();
        let mut id = 0;
        let mut open = |world: &mut World| {
            id += 1;
            world.call(id)[0].starts_with("tunnel 1 open")
        };
        let all = [("f1", ["a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8"]), ("f2", ["b1"; 8])];
        for (family, its) in all.into_iter().take(families) {
            for session in its.into_iter().take(sessions) {
                (world.session, world.family) = (session, family);
                let opened = (0..100).filter(|_| open(&mut world)).count();
                assert!(opened <= 32, "{opened}");
            }
        }
        (world.session, world.family) = ("other", "other");
        assert_eq!((0..100).filter(|_| open(&mut world)).count(), others, "{sessions} sessions, {families} clients");
    }
}

#[test]
fn streams_of_a_tunnel_are_bounded_by_what_its_agent_says() {
    let mut world = World::ready();
    let hello = tunnel::Hello { max_streams: 1, ..Default::default() };
    world.tunnel(1, tunnel::Event::Up(hello));
    world.call(1);
    assert_eq!(failure(&world.call(2)[0]).1, "overloaded");
}

#[test]
fn agent_that_announced_its_end_gets_nothing_new() {
    let mut world = World::ready();
    world.call(1);
    world.tunnel(1, tunnel::Event::GoAway);
    assert_eq!(failure(&world.call(2)[0]), (code::AGENT_GONE, "device-leaving".into()));
    world.answer(1, 1, None);
    assert_eq!(world.data(1, 1, "{}", true).len(), 1, "what is under way goes on");
}

#[test]
fn messages_that_are_no_request_or_notification_do_not_reach_the_client() {
    let mut world = World::ready();
    world.call(7);
    for json in [r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, "garbage\n", "[]", FORGED] {
        let json = Bytes::copy_from_slice(json.as_bytes());
        world.tunnel(1, tunnel::Event::Message { stream: StreamId(1), json, credit: 9 });
        assert_eq!(world.drain(), ["tunnel 1 consumed 1 9"]);
    }
}

#[test]
fn stop_closes_tunnels_and_answers_calls() {
    let mut world = World::ready();
    world.call(7);
    world.event(Event::Stop);
    let actions = world.drain();
    assert_eq!(failure(&actions[0]), (code::AGENT_GONE, "relay-stopping".into()));
    assert_eq!(actions[1..], ["tunnel 1 close GoingAway"]);
    assert!(world.call(8)[0].starts_with("reply 2 503"));
    world.up(3, "desktop", Some("id-3"));
    assert_eq!(world.drain(), ["tunnel 3 close GoingAway"]);
}

#[test]
fn end_of_a_session_ends_its_calls() {
    let mut world = World::ready();
    world.call(7);
    let (user, session) = (UserId::new("ann"), SessionKey(Arc::from("s")));
    world.event(Event::SessionEnded { user, session });
    let actions = world.drain();
    assert_eq!(actions[0], "tunnel 1 reset 1 Cancelled");
    assert_eq!(failure(&actions[1]).1, "session-ended");
}

/// Whatever becomes of a client, each byte of credit comes back once: with a piece, or at once.
#[test]
fn credit_is_conserved() {
    let credit = |actions: &[String]| -> u32 {
        let amounts = actions.iter().filter_map(|action| {
            let body = action.strip_prefix("body ").and_then(|rest| rest.split(' ').nth(1));
            body.or(action.strip_prefix("tunnel 1 consumed 1 "))
                .and_then(|amount| amount.trim_start_matches('+').parse::<u32>().ok())
        });
        amounts.sum::<u32>()
    };
    for accepts in [Accepts::Either, Accepts::Json, Accepts::Stream] {
        for gone_after in 0..4 {
            let mut world = World::ready();
            world.accepts = accepts;
            world.call(7);
            let mut returned = 0;
            for step in 0..4 {
                if step == gone_after {
                    returned += credit(&world.gone(1));
                }
                returned += credit(&match step {
                    0 => world.progress(1, 1),
                    1 => world.answer(1, 1, None),
                    _ => world.data(1, 1, "1234567", false),
                });
            }
            assert_eq!(returned, 51 + 7 + 7, "{accepts:?} {gone_after}");
        }
    }
}

#[test]
fn begun_answer_renews_its_call() {
    let idle = config().limits.call_idle;
    let mut world = World::ready();
    world.accepts = Accepts::Json;
    world.call(7);
    assert_eq!(world.advance(idle - Duration::from_secs(1)), [""; 0]);
    world.answer(1, 1, None);
    assert_eq!(world.advance(idle - Duration::from_secs(1)), [""; 0]);
    assert_eq!(world.advance(Duration::from_secs(1))[0], "tunnel 1 reset 1 TimedOut");
}

//! Questions of servers that belong to no call.

use serde_json::{Value, json};

use super::*;
use crate::limits;
use crate::tunnel::{Close, CloseCode};

const QUESTION: &str =
    r#"{"id":7,"jsonrpc":"2.0","method":"roots/list","params":{"_meta":{"progressToken":"t"},"n":1.00}}"#;
const PLAIN: &str = r#"{"jsonrpc":"2.0","id":7,"method":"roots/list"}"#;

/// A world in which the session `s` listens on exchange 1, at this endpoint.
fn listening(endpoint: Endpoint) -> World {
    let mut world = World::ready();
    world.advance(limits::ANNOUNCE_LATE);
    world.endpoint = endpoint;
    world.listen();
    world
}

fn files_alone() -> Endpoint {
    Endpoint::Server("files".into())
}

/// What follows when the server `files` of a device says that to one session.
fn says(world: &mut World, conn: u64, session: &str, json: &str) -> Vec<String> {
    let (sessions, json) = ([session.to_string()].into(), Bytes::copy_from_slice(json.as_bytes()));
    world.tunnel(conn, tunnel::Event::Notice { server: "files".into(), sessions, json });
    world.drain()
}

/// Asks, and returns the id that the client sees.
fn asked(world: &mut World, json: &str) -> String {
    let actions = says(world, 1, "s", json);
    let [action] = actions.as_slice() else { panic!("not just asked: {actions:?}") };
    let text: String = serde_json::from_str(action.splitn(4, ' ').nth(3).unwrap()).unwrap();
    let message: Value = serde_json::from_str(text.split_once("data: ").unwrap().1.trim_end()).unwrap();
    let id = message["id"].as_str().unwrap().to_string();
    let token = message["params"]["_meta"].get("progressToken");
    assert!(token.is_none_or(|token| *token == *id), "{message}");
    let with = |raw: &str| json.replace("\"id\":7", raw).replace("\"t\"", &format!("\"{id}\""));
    assert_eq!(
        *action,
        format!("body 1 +0 {:?}", format!("event: message\ndata: {}\n\n", with(&format!("\"id\":\"{id}\""))))
    );
    id
}

fn result(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","result":{{"n":1e400}},"id":"{id}"}}"#)
}

/// The code of the error that the server is declined with, which is all that happens.
fn declined(actions: &[String]) -> i64 {
    let [action] = actions else { panic!("not just declined: {actions:?}") };
    let json = action.strip_prefix("tunnel 1 notice of s to files ").unwrap_or_else(|| panic!("{action}"));
    let message: Value = serde_json::from_str(json).unwrap();
    assert_eq!(message["id"], 7);
    message["error"]["code"].as_i64().unwrap()
}

#[test]
fn question_goes_to_where_its_session_listens_and_the_answer_back_once() {
    for endpoint in [Endpoint::All, files_alone(), Endpoint::DeviceServer("laptop".into(), "files".into())] {
        let mut world = listening(endpoint);
        let id = asked(&mut world, QUESTION);
        let restored = r#"tunnel 1 notice of s to files {"jsonrpc":"2.0","result":{"n":1e400},"id":7}"#;
        assert_eq!(world.post(&result(&id)), [restored, "reply 2 202 "]);
        assert_eq!(world.post(&result(&id)), ["reply 3 202 "]);
    }
}

#[test]
fn clients_progress_carries_the_servers_token() {
    let mut world = listening(files_alone());
    let id = asked(&mut world, QUESTION);
    let progress =
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"ID","progress":0.50}}"#;
    let restored = format!("tunnel 1 notice of s to files {}", progress.replace("ID", "t"));
    assert_eq!(world.post(&progress.replace("ID", &id)), [&restored, "reply 2 202 "]);
    assert_eq!(world.post(&progress.replace("ID", "t")), ["reply 3 202 "], "it is not the client's token");
}

#[test]
fn nobody_else_is_asked_nor_answers() {
    let mut world = listening(files_alone());
    world.session = "other";
    world.listen();
    (world.user, world.session) = ("bob", "s");
    world.listen();
    world.user = "ann";
    let id = asked(&mut world, PLAIN);
    world.session = "other";
    assert_eq!(world.post(&result(&id)), ["reply 4 202 "]);
    (world.user, world.session) = ("bob", "s");
    assert_eq!(world.post(&result(&id)), ["reply 5 202 "], "sessions of users are apart, whatever their keys");
    world.user = "ann";
    assert_eq!(world.post(&result(&id)).len(), 2);
}

#[test]
fn question_to_who_does_not_listen_is_declined_at_once_and_never_asked_later() {
    let mut world = World::ready();
    world.advance(limits::ANNOUNCE_LATE);
    world.endpoint = files_alone();
    assert_eq!(declined(&says(&mut world, 1, "s", PLAIN)), crate::mcp::code::METHOD_NOT_FOUND);
    assert_eq!(world.listen(), ["begin 1 events", r#"body 1 +0 ": keep-alive\n\n""#]);
    world.gone(1);
    assert_eq!(declined(&says(&mut world, 1, "s", PLAIN)), crate::mcp::code::METHOD_NOT_FOUND, "nobody reads it");
    world.endpoint = Endpoint::Server("git".into());
    world.listen();
    assert_eq!(declined(&says(&mut world, 1, "s", PLAIN)), crate::mcp::code::METHOD_NOT_FOUND, "that is another's");
}

#[test]
fn question_to_no_one_session_is_dropped() {
    let mut world = listening(files_alone());
    for sessions in [&[][..], &["s", "other"]] {
        let (sessions, json) =
            (sessions.iter().map(ToString::to_string).collect(), Bytes::from_static(PLAIN.as_bytes()));
        world.tunnel(1, tunnel::Event::Notice { server: "files".into(), sessions, json });
        assert_eq!(world.drain(), [""; 0]);
    }
}

#[test]
fn question_that_is_taken_back_is_named_as_the_client_knows_it() {
    let mut world = listening(files_alone());
    let id = asked(&mut world, PLAIN);
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7,"x":1e400}}"#;
    let told = cancel.replace(":7", &format!(":\"{id}\""));
    assert_eq!(
        says(&mut world, 1, "s", cancel),
        [format!("body 1 +0 {:?}", format!("event: message\ndata: {told}\n\n"))]
    );
    assert_eq!(says(&mut world, 1, "s", cancel), [""; 0], "it is open no longer");
    assert_eq!(world.post(&result(&id)), ["reply 2 202 "]);
}

#[test]
fn client_that_lost_its_stream_reads_the_question_when_it_comes_back() {
    let mut world = listening(files_alone());
    world.shows_ids = true;
    let action = says(&mut world, 1, "s", PLAIN).remove(0);
    let event: String = serde_json::from_str(action.splitn(4, ' ').nth(3).unwrap()).unwrap();
    let id = event.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
    world.gone(1);
    let (stream, place) = id.rsplit_once('-').unwrap();
    world.last_event = Some(format!("{stream}-{}", place.parse::<u64>().unwrap() - 1));
    let again = world.listen();
    assert!(again.iter().any(|action| action.contains("roots/list")), "{again:?}");
}

#[test]
fn questions_end_with_their_session_grant_and_tunnel() {
    let answer =
        |world: &mut World, id: &str| world.post(&result(id)).iter().any(|action| action.starts_with("tunnel"));
    let mut world = listening(files_alone());
    let id = asked(&mut world, PLAIN);
    world.event(Event::SessionEnded { user: UserId::new("ann"), session: SessionKey(Arc::from("s")) });
    assert_eq!(world.drain(), ["tunnel 1 session ended s", "finish 1"], "the agent answers its servers");
    assert!(!answer(&mut world, &id));

    let mut world = listening(files_alone());
    let id = asked(&mut world, PLAIN);
    world.event(Event::Revoked { family: FamilyId::new("other-family") });
    assert_eq!(world.drain(), [""; 0]);
    world.event(Event::Revoked { family: FamilyId::new("client-family") });
    let actions = world.drain();
    assert_eq!((declined(&actions[..1]), &actions[1..]), (crate::mcp::code::CANCELLED, &["finish 1".to_string()][..]));
    assert!(!answer(&mut world, &id));

    let mut world = listening(files_alone());
    let id = asked(&mut world, PLAIN);
    let actions = world.advance(Duration::from_secs(20_000));
    let errors: Vec<String> = actions.into_iter().filter(|action| action.starts_with("tunnel")).collect();
    assert_eq!(declined(&errors), crate::mcp::code::CANCELLED, "the grant has run out");
    assert!(!answer(&mut world, &id));

    let mut world = listening(files_alone());
    let id = asked(&mut world, PLAIN);
    world.tunnel(1, tunnel::Event::Closed(Close::new(CloseCode::Normal, "")));
    world.drain();
    world.up(2, "laptop", Some("id-1"));
    world.drain();
    assert!(!answer(&mut world, &id));
}

#[test]
fn id_that_is_used_again_is_that_of_the_new_question() {
    let mut world = listening(files_alone());
    let old = asked(&mut world, PLAIN);
    let new = asked(&mut world, PLAIN);
    assert_eq!(world.post(&result(&old)), ["reply 2 202 "]);
    assert_eq!(world.post(&result(&new)).len(), 2);
}

#[test]
fn open_questions_are_bounded_and_forgotten_in_the_end() {
    let mut world = listening(files_alone());
    let with = |id: usize| PLAIN.replace("\"id\":7", &format!("\"id\":{}", 100 + id));
    for id in 0..limits::MAX_BESIDE_OF_SESSION {
        assert!(says(&mut world, 1, "s", &with(id))[0].starts_with("body 1 "));
    }
    assert!(says(&mut world, 1, "s", PLAIN)[0].contains("too many questions"));
    world.advance(limits::BESIDE_KEPT);
    asked(&mut world, PLAIN);
}

#[test]
fn answer_that_the_tunnel_does_not_carry_is_an_error_for_the_server() {
    for (bytes, fits) in [(12 * 1024, true), (20 * 1024, false)] {
        let mut world = listening(files_alone());
        let id = asked(&mut world, PLAIN);
        let answer = json!({"jsonrpc": "2.0", "id": id, "result": {"x": "x".repeat(bytes)}}).to_string();
        let actions = world.post(&answer);
        assert_eq!(actions.len(), 2);
        assert_eq!(actions[0].contains("\"error\""), !fits);
        if !fits {
            assert_eq!(declined(&actions[..1]), crate::mcp::code::TOO_LARGE);
        }
    }
}

#[test]
fn server_takes_back_no_question_but_its_own() {
    let mut world = listening(files_alone());
    let id = asked(&mut world, PLAIN);
    let cancel =
        |id: u32| format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#);
    assert_eq!(says(&mut world, 1, "s", &cancel(8)), [""; 0]);
    let (sessions, json) = (["s".to_string()].into(), cancel(7).into());
    world.tunnel(1, tunnel::Event::Notice { server: "git".into(), sessions, json });
    assert_eq!(world.drain(), [""; 0]);
    assert_eq!(world.post(&result(&id)).len(), 2, "it is open still");
}

#[test]
fn question_is_not_put_to_who_listens_to_another_server_of_the_device() {
    let mut world = World::ready();
    world.catalog(1, &whole(&[server("files", &["read"]), server("git", &["log"])]));
    world.advance(limits::ANNOUNCE_LATE);
    world.endpoint = Endpoint::Server("git".into());
    world.listen();
    assert_eq!(declined(&says(&mut world, 1, "s", PLAIN)), crate::mcp::code::METHOD_NOT_FOUND);
}

#[test]
fn questions_to_one_session_leave_others_theirs() {
    let mut world = listening(files_alone());
    world.session = "t";
    world.listen();
    for id in 0..limits::MAX_BESIDE_OF_SESSION {
        says(&mut world, 1, "s", &PLAIN.replace("\"id\":7", &format!("\"id\":{}", 100 + id)));
    }
    let told = says(&mut world, 1, "t", PLAIN);
    assert!(told[0].starts_with("body 2 "), "{told:?}");
}

#[test]
fn questions_in_calls_count_among_the_open_ones() {
    let mut world = listening(files_alone());
    world.post(&call("read", 1));
    for id in 1..limits::MAX_QUESTIONS {
        world.said(1, &PLAIN.replace("\"id\":7", &format!("\"id\":{}", 100 + id)));
    }
    asked(&mut world, PLAIN);
    let told = says(&mut world, 1, "s", &PLAIN.replace("\"id\":7", "\"id\":8"));
    assert!(told[0].contains("too many questions"), "{told:?}");
}

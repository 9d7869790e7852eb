//! What servers are asked for subscriptions of `/mcp`, at the edges.

use super::aggregate::{answered, rich, two_servers};
use super::subscriptions::{KNOWS_TASKS, LISTEN, honour, honoured, update, watching, watching_tasks, with_task};
use super::*;
use crate::limits;

/// A subscription to these resources and tasks with that `_meta`.
fn listen(world: &mut World, notifications: &str, meta: &str) -> Vec<String> {
    let params = format!(r#"{{"_meta":{meta},"notifications":{notifications}}}"#);
    world.post(&format!(r#"{{"jsonrpc":"2.0","id":"s1","method":"subscriptions/listen","params":{params}}}"#))
}

fn acknowledges_tasks(world: &mut World, stream: u32, tasks: &str) -> Vec<String> {
    let params = format!(r#"{{"notifications":{{"taskIds":{tasks}}}}}"#);
    world.said(
        stream,
        &format!(r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{params}}}"#),
    )
}

#[test]
fn resources_are_acknowledged_in_the_order_in_which_they_were_asked_for() {
    let mut world = two_servers();
    let uris = ["test://b/a", "test://a/a", "mcp-tunnel:laptop/b/test://shared"];
    watching(&mut world, &uris);
    honour(&mut world, 1, 1, r#""test://b/a","test://shared""#);
    let told = honour(&mut world, 1, 2, r#""test://a/a""#);
    assert_eq!(told[1], honoured(&uris.map(|uri| format!("\"{uri}\"")).join(",")));
}

#[test]
fn server_that_honours_nothing_is_not_asked_again() {
    let mut world = two_servers();
    watching(&mut world, &["test://a/a"]);
    honour(&mut world, 1, 1, "");
    let later = world.advance(limits::FEED_PAUSE_MAX * 2);
    assert!(later.iter().all(|action| action.contains("keep-alive")), "{later:?}");
}

#[test]
fn subscription_without_meta_is_asked_for_without() {
    let mut world = two_servers();
    world.version = Version::V2026_07_28;
    let told = world.post(&LISTEN.replace("a:b", "test://a/a"));
    let params = r#"{"notifications":{"resourceSubscriptions":["test://a/a"]}}"#;
    assert_eq!(told, [format!("tunnel 1 open 1 a subscriptions/listen {params}")]);
}

#[test]
fn meta_of_a_subscription_is_taken_up_to_its_bound() {
    for (length, fits) in [(limits::MAX_FEED_META, true), (limits::MAX_FEED_META + 1, false)] {
        let mut world = two_servers();
        world.version = Version::V2026_07_28;
        let meta = format!(r#"{{"x":"{}"}}"#, "x".repeat(length - r#"{"x":""}"#.len()));
        let told = listen(&mut world, r#"{"resourceSubscriptions":["test://a/a"]}"#, &meta);
        assert_eq!(told[0].contains(" open "), fits, "{length}");
    }
}

#[test]
fn uri_of_a_watched_resource_is_taken_up_to_its_bound() {
    for (length, fits) in [(limits::MAX_URI, true), (limits::MAX_URI + 1, false)] {
        let mut world = two_servers();
        let start = "test://a/t/";
        let uri = format!("{start}{}", "x".repeat(length - start.len()));
        assert_eq!(watching(&mut world, &[&uri])[0].contains(" open "), fits, "{length}");
    }
}

#[test]
fn task_is_watched_whose_id_is_as_long_as_may_be() {
    for (length, fits) in [(limits::MAX_ID, true), (limits::MAX_ID + 1, false)] {
        let mut world = with_task();
        let id = "t".repeat(length);
        world.post(&call("b__slow", 2));
        answered(&mut world, 2, &format!(r#"{{"resultType":"task","taskId":"{id}","status":"working"}}"#));
        let told = listen(&mut world, &format!(r#"{{"taskIds":["{id}"]}}"#), &knowing_tasks());
        assert_eq!(told[0].contains(" open "), fits, "{length}");
    }
}

fn knowing_tasks() -> String {
    format!(r#"{{"io.modelcontextprotocol/clientCapabilities":{KNOWS_TASKS}}}"#)
}

#[test]
fn task_that_its_server_does_not_honour_is_not_acknowledged() {
    let mut world = with_task();
    watching_tasks(&mut world, r#"["t-1"]"#, KNOWS_TASKS);
    honour(&mut world, 1, 2, r#""test://a/a""#);
    let told = acknowledges_tasks(&mut world, 3, "[]");
    assert_eq!(told[0], "tunnel 1 reset 3 Cancelled");
    assert!(told[2].contains("acknowledged") && !told[2].contains("taskIds"), "{told:?}");
}

#[test]
fn state_of_a_task_is_never_told_before_the_acknowledgement() {
    let mut world = with_task();
    watching_tasks(&mut world, r#"["t-1"]"#, KNOWS_TASKS);
    acknowledges_tasks(&mut world, 3, r#"["t-1"]"#);
    let told = world.said(3, r#"{"jsonrpc":"2.0","method":"notifications/tasks","params":{"taskId":"t-1"}}"#);
    assert!(told[1].contains("acknowledged") && told[2].contains("notifications/tasks"), "{told:?}");
}

#[test]
fn subscription_to_tasks_alone_leaves_room_for_another() {
    let mut world = with_task();
    for stream in [2, 3] {
        let told = listen(&mut world, r#"{"taskIds":["t-1"]}"#, &knowing_tasks());
        assert!(told[0].contains(&format!(" open {stream} b ")), "{told:?}");
    }
}

#[test]
fn end_that_comes_in_pieces_is_one_end() {
    let mut world = World::new();
    world.up(1, "laptop", Some("id-1"));
    world.catalog(1, &whole(&[rich("a", "")]));
    world.drain();
    watching(&mut world, &["test://a/a"]);
    honour(&mut world, 1, 1, r#""test://a/a""#);
    world.answer(1, 1, None);
    assert_eq!(world.data(1, 1, "{", false), ["tunnel 1 consumed 1 1"]);
    assert_eq!(update(&mut world, 1, 1, "test://a/a").len(), 2, "until then it is told of");
    assert_eq!(world.data(1, 1, "}", true), [""; 0]);
    assert!(world.advance(limits::FEED_PAUSE).last().is_some_and(|action| action.contains(" open 2 a ")));
}

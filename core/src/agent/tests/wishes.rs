//! What sessions set outlives the agent's own process.

use super::*;
use crate::config::Isolation;
use crate::limits;

const RESTARTED: &str = "the agent was killed and started again";

/// An agent with a server `a` of this life that took up what an earlier one kept.
fn recalled(life: Life, json: &Bytes) -> Rig {
    let mut config = config(&[]);
    config.servers.insert("a".to_string(), ServerConfig { life, ..stdio("a") });
    let mut rig = Rig::new(config, Some("minted"));
    rig.event(Event::WishesRecalled { json: json.clone() });
    rig.event(Event::Start { person: Person::Absent });
    rig
}

fn legacy() -> Life {
    Life { era: EraChoice::Legacy, ..Life::default() }
}

/// What was kept of sessions since the last look.
fn kept(rig: &mut Rig) -> Vec<Bytes> {
    rig.take_all(|action| match action {
        Action::KeepWishes { json } => Some(json.clone()),
        _ => None,
    })
}

fn set(rig: &mut Rig, child: ChildId, session: &str, method: &str, params: &Value) {
    rig.call_as(9, session, &json!({"roots": {}}), method, &params.to_string());
    if let Some(asked) = rig.written(child).pop() {
        rig.answer(child, &asked["id"], json!({}));
    }
    assert_eq!(rig.answers()[0].1, None);
}

/// What an agent keeps whose session `one` wants `debug`, and `two` watches `test://x`.
fn of_two() -> Bytes {
    let mut rig = Rig::ready(&["a"]);
    set(&mut rig, ChildId(1), "one", "logging/setLevel", &json!({"level": "debug"}));
    set(&mut rig, ChildId(1), "two", "resources/subscribe", &json!({"uri": "test://x"}));
    rig.advance(limits::KEEP_WISHES_EVERY);
    kept(&mut rig).pop().expect("it is kept")
}

/// What a run is asked by the agent itself, once it is ready.
fn asides(rig: &mut Rig, child: ChildId) -> Vec<(String, Value)> {
    let requests = rig.written(child).into_iter().filter(|message| message.get("id").is_some());
    requests.map(|message| (message["method"].as_str().unwrap().to_string(), message["params"].clone())).collect()
}

fn updated() -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "test://x"}})
}

fn log(level: &str) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": level, "data": "d"}})
}

fn subscribed() -> (String, Value) {
    ("resources/subscribe".to_string(), json!({"uri": "test://x"}))
}

/// Brings up a run of a modern server.
fn discovered(rig: &mut Rig, versions: &[&str]) -> ChildId {
    let child = rig.spawned("a").expect("its process was ordered");
    rig.event(Event::Spawned { child, pid: 100 });
    let asked = rig.written(child).remove(0);
    assert_eq!(asked["method"], "server/discover");
    let capabilities = json!({"tools": {}, "resources": {"subscribe": true}});
    rig.answer(child, &asked["id"], json!({"supportedVersions": versions, "capabilities": capabilities}));
    for _ in 0..3 {
        let list = rig.written(child).pop().expect("its lists are asked for");
        rig.answer(child, &list["id"], json!({"tools": [], "resources": [], "resourceTemplates": []}));
    }
    child
}

#[test]
fn server_of_a_new_agent_is_told_what_sessions_of_the_last_one_set() {
    let mut rig = recalled(legacy(), &of_two());
    let child = rig.bring_up("a", &["tool"]);
    let level = ("logging/setLevel".to_string(), json!({"level": "debug"}));
    assert_eq!(asides(&mut rig, child), [level, subscribed()], "{RESTARTED}");
    rig.connect(Dialect::V2);
    rig.say(child, &updated());
    rig.say(child, &log("debug"));
    rig.say(child, &log("info"));
    let hears = [("two", updated()), ("one", log("debug")), ("one two", log("info"))];
    assert_eq!(rig.notices(), hears.map(|(who, what)| (who.to_string(), what)));
    assert!(kept(&mut rig).is_empty(), "nothing changed");
}

#[test]
fn changes_are_kept_at_once_but_no_oftener_than_the_disk_should_write() {
    let mut rig = Rig::ready(&["a"]);
    let subscribe = |rig: &mut Rig, uri: u32| {
        set(rig, ChildId(1), "one", "resources/subscribe", &json!({"uri": uri.to_string()}));
    };
    subscribe(&mut rig, 0);
    assert_eq!(kept(&mut rig).len(), 1);
    for uri in 1..20 {
        subscribe(&mut rig, uri);
    }
    assert!(kept(&mut rig).is_empty());
    rig.advance(limits::KEEP_WISHES_EVERY);
    let json = kept(&mut rig);
    assert_eq!(json.len(), 1);
    let mut back = recalled(legacy(), &json[0]);
    let child = back.bring_up("a", &[]);
    assert_eq!(asides(&mut back, child).len(), 20);
    rig.advance(limits::KEEP_WISHES_EVERY);
    assert!(kept(&mut rig).is_empty());
}

#[test]
fn orderly_end_keeps_what_is_not_kept_yet() {
    let mut rig = Rig::ready(&["a"]);
    set(&mut rig, ChildId(1), "one", "resources/subscribe", &json!({"uri": "test://y"}));
    set(&mut rig, ChildId(1), "two", "resources/subscribe", &json!({"uri": "test://x"}));
    kept(&mut rig);
    rig.event(Event::Stop);
    rig.exited(ChildId(1), 0, "");
    rig.closed(CloseCode::Normal);
    let before_exit = rig.actions.iter().position(|action| matches!(action, Action::KeepWishes { .. }));
    let exit = rig.actions.iter().position(|action| matches!(action, Action::Exit(_)));
    assert!(before_exit.is_some() && before_exit < exit, "{before_exit:?} {exit:?}");
    let json = kept(&mut rig).pop().unwrap();
    let mut rig = recalled(legacy(), &json);
    let child = rig.bring_up("a", &[]);
    assert_eq!(asides(&mut rig, child).len(), 2);
}

#[test]
fn session_that_ended_is_not_brought_back() {
    let mut rig = recalled(legacy(), &of_two());
    let child = rig.bring_up("a", &["tool"]);
    rig.connect(Dialect::V2);
    rig.actions.clear();
    rig.tunnel(tunnel::Event::SessionEnded { session: "two".to_string() });
    assert_eq!(asides(&mut rig, child), [("resources/unsubscribe".to_string(), json!({"uri": "test://x"}))]);
    let json = kept(&mut rig).pop().expect("that is kept too");
    let mut rig = recalled(legacy(), &json);
    let child = rig.bring_up("a", &["tool"]);
    assert_eq!(asides(&mut rig, child), [("logging/setLevel".to_string(), json!({"level": "debug"}))]);
}

#[test]
fn what_cannot_be_used_changes_nothing() {
    let late = {
        let mut rig = Rig::ready(&["a"]);
        rig.event(Event::WishesRecalled { json: of_two() });
        rig
    };
    let mut garbage = recalled(legacy(), &Bytes::from_static(b"{\"relay\":7}"));
    garbage.bring_up("a", &["tool"]);
    garbage.connect(Dialect::V2);
    for mut rig in [late, garbage] {
        rig.actions.clear();
        rig.say(ChildId(1), &updated());
        rig.say(ChildId(1), &log("debug"));
        assert_eq!(rig.notices(), [(String::new(), log("debug"))], "nobody set anything");
    }
}

#[test]
fn lazy_server_that_is_watched_runs() {
    let life = Life { lazy: true, ..legacy() };
    let mut rig = recalled(life.clone(), &of_two());
    rig.event(Event::Recalled { server: "a".to_string(), catalog: None });
    let child = rig.bring_up("a", &["tool"]);
    let catalog = rig.take(|action| match action {
        Action::Keep { catalog, .. } => Some(catalog.clone()),
        _ => None,
    });
    let closed = |rig: &mut Rig| rig.take(|action| matches!(action, Action::CloseStdin { .. }).then_some(()));
    assert_eq!((asides(&mut rig, child).len(), closed(&mut rig)), (2, None), "it does not go to rest");

    let mut rig = recalled(life, &of_two());
    rig.event(Event::Recalled { server: "a".to_string(), catalog });
    let child = rig.bring_up("a", &["tool"]);
    assert_eq!((asides(&mut rig, child).len(), closed(&mut rig)), (2, None), "it is woken");
}

#[test]
fn session_that_watches_gets_its_own_run_back_as_its_client_knows_it() {
    let life = Life { isolation: Isolation::Session, ..legacy() };
    let mut rig = recalled(life, &of_two());
    rig.event(Event::Recalled { server: "a".to_string(), catalog: None });
    let main = rig.bring_up("a", &["tool"]);
    rig.exited(main, 0, "");
    let child = rig.spawned("a").expect("the session's own run");
    assert_eq!(rig.spawned("a"), None, "one that only set a level gets its run with its next call");
    rig.event(Event::Spawned { child, pid: 7 });
    let initialize = rig.written(child).remove(0);
    assert_eq!(initialize["params"]["clientInfo"], json!({"name": "Client of two", "version": "1.2"}));
    assert_eq!(initialize["params"]["capabilities"], json!({"roots": {}}));
    assert_eq!(initialize["params"]["protocolVersion"], "2025-06-18");
    let about = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "s"}});
    rig.answer(child, &initialize["id"], about);
    let list = rig.written(child).pop().unwrap();
    rig.answer(child, &list["id"], json!({"tools": []}));
    assert_eq!(asides(&mut rig, child), [subscribed()]);
    rig.connect(Dialect::V2);
    rig.say(child, &updated());
    assert_eq!(rig.notices(), [("two".to_string(), updated())]);
    rig.call_in(1, "one");
    let other = rig.spawned("a").unwrap();
    rig.event(Event::Spawned { child: other, pid: 8 });
    rig.greet(other);
    let list = rig.written(other).pop().unwrap();
    rig.answer(other, &list["id"], json!({"tools": []}));
    assert_eq!(asides(&mut rig, other)[0], ("logging/setLevel".to_string(), json!({"level": "debug"})));
}

#[test]
fn server_of_both_eras_gets_its_run_for_older_clients_back_and_keeps_it_while_it_is_watched() {
    let mut rig = recalled(Life::default(), &of_two());
    discovered(&mut rig, &["2026-07-28", "2025-11-25"]);
    let branch = rig.bring_up("a", &["tool"]);
    let level = ("logging/setLevel".to_string(), json!({"level": "debug"}));
    assert_eq!(asides(&mut rig, branch), [level, subscribed()]);
    rig.connect(Dialect::V2);
    rig.say(branch, &updated());
    assert_eq!(rig.notices(), [("two".to_string(), updated())]);
    let closed = |rig: &mut Rig| {
        rig.take(|action| match action {
            Action::CloseStdin { child } => Some(*child),
            _ => None,
        })
    };
    rig.advance(3 * limits::SESSION_IDLE);
    assert_eq!(closed(&mut rig), None);
    rig.tunnel(tunnel::Event::SessionEnded { session: "two".to_string() });
    rig.advance(2 * limits::SESSION_IDLE);
    assert_eq!(closed(&mut rig), Some(branch), "nobody watches any more");
}

#[test]
fn restarted_server_of_both_eras_is_watched_again() {
    let mut rig = recalled(Life::default(), &of_two());
    let main = discovered(&mut rig, &["2026-07-28", "2025-11-25"]);
    let branch = rig.bring_up("a", &["tool"]);
    rig.event(Event::Control { job: JobId(1), command: ControlCommand::Restart { server: Some("a".to_string()) } });
    let mut config = config(&[]);
    config.servers.insert("a".to_string(), ServerConfig { life: Life::default(), ..stdio("a") });
    rig.event(Event::ConfigRead(Ok(config)));
    rig.exited(main, 0, "");
    rig.exited(branch, 0, "");
    rig.actions.retain(|action| matches!(action, Action::Spawn { .. }));
    discovered(&mut rig, &["2026-07-28", "2025-11-25"]);
    let branch = rig.bring_up("a", &["tool"]);
    assert_eq!(asides(&mut rig, branch).pop(), Some(subscribed()));
}

#[test]
fn server_of_the_modern_era_alone_is_listened_to() {
    let mut rig = recalled(Life::default(), &of_two());
    let main = discovered(&mut rig, &["2026-07-28"]);
    rig.written(main);
    let tried = rig.spawned("a").expect("it is tried with the older era, since somebody watches");
    rig.event(Event::Spawned { child: tried, pid: 101 });
    assert_eq!(rig.written(tried).remove(0)["method"], "initialize");
    rig.exited(tried, 1, "");
    let listen = asides(&mut rig, main).pop().expect("it is listened to");
    assert_eq!(
        (listen.0.as_str(), &listen.1["notifications"]["resourceSubscriptions"]),
        ("subscriptions/listen", &json!(["test://x"]))
    );
    assert_eq!(rig.spawned("a"), None);
}

//! Named scenarios of the simulated world: what users rely on, on simulated time, with the real machines.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tunnel_core::agent::machine::{ControlCommand, Event as AgentEvent};
use tunnel_core::config::policy::{AgentPolicy, Approve, AuditFile, CallLimits, Pattern, PinMode, Policy};
use tunnel_core::config::{Isolation, Life, Naming};
use tunnel_core::limits;
use tunnel_core::oauth::Role;
use tunnel_core::oauth::grants::AdminCommand;
use tunnel_world::{AgentKey, Client, Outcome, Script, Start, World, script};

const SECOND: Duration = Duration::from_secs(1);

/// A world with one agent, `laptop`, that runs the server `tools`, and a client with a session.
fn one_laptop(seed: u64) -> (World, AgentKey, Client) {
    let mut world = World::new(seed);
    let token = world.mint("ada", Role::Agent);
    let laptop = world.agent("laptop", &token, [("tools", Script::default())]);
    world.settle();
    let client = signed_in(&mut world, "ada");
    (world, laptop, client)
}

fn signed_in(world: &mut World, user: &str) -> Client {
    let token = world.mint(user, Role::Client);
    let mut client = Client::new(&token);
    client.initialize(world);
    client
}

fn error_of(answer: &Value) -> &str {
    answer["error"]["message"].as_str().unwrap_or_else(|| panic!("an error: {answer}"))
}

// Listing.

#[test]
fn every_tool_is_listed_with_all_its_fields() {
    let (mut world, _, mut client) = one_laptop(1);
    let listed = client.tool_objects(&mut world);
    let direct = Script::default().tools();
    assert_eq!(listed.len(), direct.len() + 2, "and status and restart");
    for tool in direct {
        let name = format!("tools__{}", tool["name"].as_str().expect("a script's tool has a name"));
        let mut through = listed.iter().find(|it| it["name"] == *name).unwrap_or_else(|| panic!("{name}")).clone();
        let description = through["description"].as_str().expect("it has one");
        assert!(description.starts_with("[tools]") && description.ends_with("does what it says"), "{description}");
        through["name"] = tool["name"].clone();
        through["description"] = tool["description"].clone();
        assert_eq!(through, tool);
    }
}

#[test]
fn pages_of_tools_are_read_to_the_last() {
    let mut world = World::new(2);
    let token = world.mint("ada", Role::Agent);
    let script = Script { page: 2, extra_tools: vec!["last".into()], ..Script::default() };
    world.agent("laptop", &token, [("paged", script)]);
    world.settle();
    let mut client = signed_in(&mut world, "ada");
    assert!(client.tools(&mut world).contains(&"paged__last".to_owned()));
}

#[test]
fn meta_tools_work_with_no_agent() {
    let mut world = World::new(3);
    let mut client = signed_in(&mut world, "ada");
    assert_eq!(client.tools(&mut world).len(), 2);
    let status = client.call_now(&mut world, "status", &json!({}));
    assert!(status["result"]["content"][0]["text"].as_str().is_some_and(|text| !text.is_empty()), "{status}");
    let restart = client.call_now(&mut world, "restart", &json!({}));
    assert!(restart["result"]["isError"] == true || restart.get("error").is_some(), "nothing to restart: {restart}");
}

#[test]
fn status_names_devices_servers_and_reasons() {
    let mut world = World::new(4);
    let token = world.mint("ada", Role::Agent);
    let broken = Script { start: Start::Exit, ..Script::default() };
    world.agent("laptop", &token, [("fine", Script::default()), ("broken", broken)]);
    world.settle();
    let mut client = signed_in(&mut world, "ada");
    let status = client.call_now(&mut world, "status", &json!({}))["result"].to_string();
    for word in ["laptop", "fine", "ready", "broken", "cannot open the display", "echo"] {
        assert!(status.contains(word), "{word} in {status}");
    }
}

#[test]
fn two_devices_get_prefixes_and_old_spellings_go_on() {
    let (mut world, _, mut client) = one_laptop(5);
    assert!(client.tools(&mut world).contains(&"tools__echo".to_owned()));
    let token = world.mint("ada", Role::Agent);
    let desktop = world.agent("desktop", &token, [("other", Script::default())]);
    world.settle();
    let tools = client.tools(&mut world);
    assert!(
        tools.contains(&"laptop__tools__echo".to_owned()) && tools.contains(&"desktop__other__echo".to_owned()),
        "{tools:?}"
    );
    for spelling in ["tools__echo", "laptop__tools__echo", "other__echo", "desktop__other__echo"] {
        let answer = client.call_now(&mut world, spelling, &json!({"n": 1}));
        assert_eq!(answer["result"]["structuredContent"], json!({"n": 1}), "{spelling}: {answer}");
    }
    world.kill_agent(desktop);
    world.settle();
    let answer = client.call_now(&mut world, "laptop__tools__echo", &json!({}));
    assert!(answer.get("result").is_some(), "the long spelling goes on too: {answer}");
}

#[test]
fn ambiguous_spelling_is_refused_with_the_choices() {
    let (mut world, _, mut client) = one_laptop(6);
    let token = world.mint("ada", Role::Agent);
    world.agent("desktop", &token, [("tools", Script::default())]);
    world.settle();
    let answer = client.call_now(&mut world, "tools__echo", &json!({}));
    let error = error_of(&answer);
    assert!(error.contains("laptop__tools__echo") && error.contains("desktop__tools__echo"), "{error}");
}

#[test]
fn naming_can_be_forced() {
    for (naming, expected) in [(Naming::Always, "laptop__tools__echo"), (Naming::Never, "tools__echo")] {
        let mut world = World::with_naming(7, naming);
        let token = world.mint("ada", Role::Agent);
        world.agent("laptop", &token, [("tools", Script::default())]);
        world.settle();
        let mut client = signed_in(&mut world, "ada");
        assert!(client.tools(&mut world).contains(&expected.to_owned()), "{naming:?}");
    }
}

#[test]
fn listeners_hear_of_every_change() {
    let (mut world, laptop, mut client) = one_laptop(8);
    let stream = client.listen(&mut world);
    world.run(SECOND);
    let mut heard = 0;
    let mut expect_more = |world: &World, what: &str| {
        let now = world.exchange(stream).messages().len();
        assert!(now > heard, "{what} is announced");
        heard = now;
    };
    world.look(laptop).scripts.get_mut("tools").expect("it is there").extra_tools.push("new".into());
    world.server_says(laptop, "tools", &json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
    world.settle();
    expect_more(&world, "a new tool");
    assert!(client.tools(&mut world).contains(&"tools__new".to_owned()));
    let token = world.mint("ada", Role::Agent);
    let desktop = world.agent("desktop", &token, [("other", Script::default())]);
    world.settle();
    expect_more(&world, "a new device");
    world.kill_agent(desktop);
    world.settle();
    expect_more(&world, "a device that went");
    for message in world.exchange(stream).messages() {
        assert_eq!(message["method"], "notifications/tools/list_changed");
    }
}

#[test]
fn hostile_tool_list_hurts_only_itself() {
    let mut world = World::new(9);
    let token = world.mint("ada", Role::Agent);
    let hostile = Script {
        raw_tools: vec![
            json!("not an object"),
            json!({"name": "", "inputSchema": {}}),
            json!({"name": "status\u{202e}\n[system]", "inputSchema": {"type": "object"}}),
            json!({"name": "x".repeat(5000), "inputSchema": {"type": "object"}}),
            json!({"name": "no-schema"}),
            json!({"name": "fat", "inputSchema": {"type": "object"}, "description": "x".repeat(200_000)}),
            json!({"name": "echo", "inputSchema": {"type": "object"}, "description": "a second echo"}),
        ],
        ..Script::default()
    };
    world.agent("laptop", &token, [("evil", hostile), ("fine", Script::default())]);
    world.settle();
    let mut client = signed_in(&mut world, "ada");
    let tools = client.tools(&mut world);
    for name in &tools {
        assert!(
            name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)),
            "{name}"
        );
    }
    assert_eq!(tools.iter().filter(|name| name.starts_with("fine__")).count(), script::TOOLS.len());
    assert_eq!(tools.iter().filter(|name| *name == "evil__echo").count(), 1);
    assert_eq!(tools.iter().filter(|name| *name == "status").count(), 1);
}

// Calls.

#[test]
fn quick_answer_is_plain_json_with_its_length() {
    let (mut world, _, mut client) = one_laptop(20);
    let exchange = client.call(&mut world, "tools__echo", &json!({"deep": [1.50, null, "é"]}));
    let reply = world.finish(exchange);
    assert!(reply.ok() && !reply.is_stream());
    assert_eq!(reply.length, Some(reply.body.len() as u64));
    assert_eq!(
        reply.answer().expect("it is answered")["result"]["structuredContent"],
        json!({"deep": [1.50, null, "é"]})
    );
}

#[test]
fn progress_turns_the_answer_into_a_stream() {
    let (mut world, _, mut client) = one_laptop(21);
    let params =
        json!({"name": "tools__progress", "arguments": {"steps": 3, "ms": 100}, "_meta": {"progressToken": "mine"}});
    let exchange = client.request(&mut world, "tools/call", &params);
    let reply = world.finish(exchange);
    assert!(reply.is_stream());
    let messages = reply.messages();
    let progress: Vec<_> = messages.iter().filter(|message| message["method"] == "notifications/progress").collect();
    assert_eq!(progress.len(), 3);
    assert!(progress.iter().all(|message| message["params"]["progressToken"] == "mine"), "{progress:?}");
    assert_eq!(messages.last().expect("it ends")["result"]["content"][0]["text"], "done");
}

#[test]
fn long_silence_gets_heartbeats_and_no_cap() {
    let (mut world, _, mut client) = one_laptop(22);
    let exchange = client.call(&mut world, "tools__wait", &json!({"ms": 20 * 60 * 1000}));
    let reply = world.finish(exchange);
    assert!(reply.is_stream());
    assert!(reply.heartbeats() >= 20 * 60 / 15 - 2, "{}", reply.heartbeats());
    assert_eq!(reply.answer().expect("it is answered")["result"]["content"][0]["text"], "waited");
}

#[test]
fn call_without_a_sign_of_life_ends_at_the_idle_limit() {
    let (mut world, laptop, mut client) = one_laptop(23);
    let start = world.micros();
    let answer = client.call_now(&mut world, "tools__silent", &json!({}));
    error_of(&answer);
    let waited = Duration::from_micros(world.micros() - start);
    assert!(waited >= limits::CALL_IDLE && waited < limits::CALL_IDLE + 10 * SECOND, "{waited:?}");
    world.settle();
    assert_eq!(world.look(laptop).scripts["tools"].cancellations(), 1, "the server is told");
}

#[test]
fn cancellation_reaches_the_server() {
    let (mut world, laptop, mut client) = one_laptop(24);
    let id = client.next_id();
    let exchange = client.call(&mut world, "tools__wait", &json!({"ms": 60_000}));
    world.run(SECOND);
    client.notify(&mut world, "notifications/cancelled", &json!({"requestId": id, "reason": "enough"}));
    let reply = world.finish(exchange);
    assert!(reply.answer().is_none_or(|answer| answer.get("error").is_some()), "{reply:?}");
    world.settle();
    assert_eq!(world.look(laptop).scripts["tools"].cancellations(), 1);
}

#[test]
fn client_that_hangs_up_cancels_nothing_and_leaves_nothing() {
    let (mut world, laptop, mut client) = one_laptop(25);
    let exchange = client.call(&mut world, "tools__blob", &json!({"bytes": 5_000_000}));
    world.run(Duration::from_millis(25));
    world.hang_up(exchange);
    world.run(10 * SECOND);
    assert_eq!(world.look(laptop).scripts["tools"].cancellations(), 0, "an older client's disconnect is no cancel");
    let answer = client.call_now(&mut world, "tools__echo", &json!({}));
    assert!(answer.get("result").is_some());
}

#[test]
fn two_clients_with_the_same_ids_get_their_own_answers() {
    let (mut world, _, mut first) = one_laptop(26);
    let mut second = signed_in(&mut world, "ada");
    assert_eq!(first.next_id(), second.next_id());
    let one = first.call(&mut world, "tools__echo", &json!({"who": 1}));
    let two = second.call(&mut world, "tools__echo", &json!({"who": 2}));
    assert_eq!(world.finish(one).answer().expect("answered")["result"]["structuredContent"]["who"], 1);
    assert_eq!(world.finish(two).answer().expect("answered")["result"]["structuredContent"]["who"], 2);
}

#[test]
fn one_user_never_sees_another() {
    let (mut world, _, _) = one_laptop(27);
    let mut eve = signed_in(&mut world, "eve");
    assert_eq!(eve.tools(&mut world).len(), 2, "status and restart alone");
    for name in ["tools__echo", "laptop__tools__echo"] {
        error_of(&eve.call_now(&mut world, name, &json!({})));
    }
    let status = eve.call_now(&mut world, "status", &json!({})).to_string();
    assert!(!status.contains("laptop"), "{status}");
}

#[test]
fn sessions_belong_to_their_user() {
    let (mut world, _, mut ada) = one_laptop(28);
    let eve = world.mint("eve", Role::Client);
    let answer = ada.call_now(&mut world, "tools__echo", &json!({}));
    assert!(answer.get("result").is_some());
    let stolen = ada.clone().with_token(&eve);
    let exchange = stolen.post(&mut world, &json!({"jsonrpc": "2.0", "id": 9, "method": "tools/list"}));
    assert_eq!(world.finish(exchange).status, Some(StatusCode::NOT_FOUND));
}

// Big and slow.

#[test]
fn huge_answer_delays_a_small_one_by_little() {
    let (mut world, _, mut client) = one_laptop(30);
    let start = world.micros();
    client.call_now(&mut world, "tools__echo", &json!({}));
    let alone = world.micros() - start;
    let huge = client.call(&mut world, "tools__blob", &json!({"bytes": 20_000_000}));
    world.run(Duration::from_millis(60));
    let start = world.micros();
    client.call_now(&mut world, "tools__echo", &json!({}));
    let beside = world.micros() - start;
    assert!(world.exchange(huge).outcome.is_none(), "the huge one is still on its way");
    assert!(beside <= alone * 4, "{beside} µs beside, {alone} µs alone");
    let reply = world.finish(huge);
    assert_eq!(reply.length, Some(reply.body.len() as u64));
    assert!(reply.body.len() > 20_000_000);
}

#[test]
fn slow_client_fills_a_window_and_holds_up_nobody() {
    let (mut world, _, mut client) = one_laptop(31);
    let slow = client.call(&mut world, "tools__blob", &json!({"bytes": 20_000_000}));
    world.set_reading(slow, false);
    world.run(5 * SECOND);
    let unread: usize = world.exchange(slow).unread.iter().map(|(bytes, _)| bytes.len()).sum();
    let window = limits::STREAM_CREDIT as usize;
    assert!(unread >= window / 2 && unread <= window + 1024, "{unread} bytes wait at the relay");
    assert!(client.call_now(&mut world, "tools__blob", &json!({"bytes": 1_000_000})).get("result").is_some());
    world.set_reading(slow, true);
    let reply = world.finish(slow);
    assert_eq!((reply.outcome, reply.length), (Some(Outcome::Complete), Some(reply.body.len() as u64)));
}

#[test]
fn client_that_stops_reading_loses_its_call_alone() {
    let (mut world, _, mut client) = one_laptop(32);
    let stuck = client.call(&mut world, "tools__blob", &json!({"bytes": 20_000_000}));
    world.set_reading(stuck, false);
    world.run(limits::STALL_TIMEOUT + 5 * SECOND);
    world.set_reading(stuck, true);
    assert_eq!(world.finish(stuck).outcome, Some(Outcome::Aborted), "cut short where the client can see it");
    assert!(client.call_now(&mut world, "tools__echo", &json!({})).get("result").is_some());
}

#[test]
fn answer_over_the_cap_fails_its_call_alone() {
    let (mut world, _, mut client) = one_laptop(33);
    let beside = client.call(&mut world, "tools__wait", &json!({"ms": 500}));
    let answer = client.call_now(&mut world, "tools__huge", &json!({"bytes": 100_000_000}));
    assert!(error_of(&answer).contains("large"), "{answer}");
    assert!(world.finish(beside).answer().expect("answered").get("result").is_some());
}

// Servers of mixed quality.

#[test]
fn bad_servers_hold_up_nobody() {
    let mut world = World::new(40);
    let token = world.mint("ada", Role::Agent);
    let start = |start| Script { start, ..Script::default() };
    let servers = [
        ("exits", start(Start::Exit)),
        ("fine", Script::default()),
        ("garbage", start(Start::Garbage)),
        ("hangs", start(Start::Hang)),
        ("missing", start(Start::Missing)),
    ];
    let laptop = world.agent("laptop", &token, servers);
    world.settle();
    let mut client = signed_in(&mut world, "ada");
    for name in ["fine__echo", "garbage__echo"] {
        assert!(client.call_now(&mut world, name, &json!({})).get("result").is_some(), "{name}");
    }
    for server in ["exits", "hangs", "missing"] {
        assert!(error_of(&client.call_now(&mut world, &format!("{server}__echo"), &json!({}))).contains(server));
    }
    world.run(120 * SECOND);
    let spawned = &world.look(laptop).spawned;
    assert!(spawned["exits"] > 2 && spawned["exits"] < 40, "tried again, but not wildly: {spawned:?}");
    assert!(spawned["hangs"] >= 2, "{spawned:?}");
    assert_eq!((spawned["fine"], spawned["garbage"]), (1, 1));
}

#[test]
fn server_that_dies_answers_its_calls_and_comes_back() {
    let (mut world, laptop, mut client) = one_laptop(41);
    let waiting = client.call(&mut world, "tools__silent", &json!({}));
    world.run(SECOND);
    let died = world.micros();
    world.server_dies(laptop, "tools");
    let reply = world.finish(waiting);
    assert!(reply.ended_at - died < 1_000_000);
    assert!(error_of(&reply.answer().expect("answered")).contains("tools"));
    let next = client.call_now(&mut world, "tools__echo", &json!({}));
    assert!(next.get("result").is_some(), "it waited for the restart: {next}");
    assert_eq!(world.look(laptop).spawned["tools"], 2);
}

#[test]
fn restart_is_no_error_for_the_calls_that_come_meanwhile() {
    let (mut world, laptop, mut client) = one_laptop(44);
    let answer = client.call_now(&mut world, "restart", &json!({"server": "tools"}));
    assert!(answer.get("result").is_some(), "{answer}");
    for _ in 0..20 {
        let answer = client.call_now(&mut world, "tools__echo", &json!({}));
        assert!(answer.get("result").is_some(), "{answer}");
        world.run(SECOND / 100);
    }
    assert_eq!(world.look(laptop).spawned["tools"], 2);
}

/// Gives the laptop's server this life, as an edit of the configuration and a restart do.
fn with_life(world: &mut World, laptop: AgentKey, client: &mut Client, life: Life) {
    world.look(laptop).config.servers.get_mut("tools").expect("it has it").life = life;
    assert!(client.call_now(world, "restart", &json!({})).get("result").is_some());
    world.run(15 * SECOND);
}

#[test]
fn lazy_server_is_listed_asleep_and_woken_by_a_call() {
    let (mut world, laptop, mut client) = one_laptop(45);
    let life = Life { lazy: true, idle_stop_secs: Some(30), ..Life::default() };
    with_life(&mut world, laptop, &mut client, life);
    assert!(world.look(laptop).children.is_empty() && world.look(laptop).kept.contains_key("tools"));
    assert!(client.tools(&mut world).contains(&"tools__echo".to_owned()));
    for woken in 1..=2 {
        assert!(client.call_now(&mut world, "tools__echo", &json!({})).get("result").is_some());
        assert_eq!((world.look(laptop).children.len(), world.look(laptop).spawned["tools"]), (1, 2 + woken));
        world.run(60 * SECOND);
        assert!(world.look(laptop).children.is_empty());
    }
    let status = client.call_now(&mut world, "status", &json!({})).to_string();
    assert!(status.contains("asleep"), "{status}");
}

#[test]
fn each_session_has_its_own_server_where_that_is_asked_for() {
    let (mut world, laptop, mut ada) = one_laptop(46);
    let life = Life { isolation: Isolation::Session, ..Life::default() };
    with_life(&mut world, laptop, &mut ada, life);
    assert!(world.look(laptop).children.is_empty());
    let mut other = signed_in(&mut world, "ada");
    for client in [&mut ada, &mut other] {
        for _ in 0..2 {
            assert!(client.call_now(&mut world, "tools__echo", &json!({})).get("result").is_some());
        }
    }
    assert_eq!(world.look(laptop).children.len(), 2);
    let dying = ada.call_now(&mut world, "tools__die", &json!({}));
    assert!(error_of(&dying).contains("tools"));
    assert!(other.call_now(&mut world, "tools__echo", &json!({})).get("result").is_some());
    assert_eq!(world.look(laptop).children.len(), 1);
    world.run(2 * limits::SESSION_IDLE);
    assert!(world.look(laptop).children.is_empty());
}

#[test]
fn what_one_sessions_own_server_offers_is_that_sessions_alone() {
    let (mut world, laptop, mut ada) = one_laptop(47);
    let life = Life { isolation: Isolation::Session, ..Life::default() };
    with_life(&mut world, laptop, &mut ada, life);
    let at = |world: &mut World, path: &str| {
        let mut client = Client::new(&world.mint("ada", Role::Client)).at(path);
        client.initialize(world);
        let heard = client.listen(world);
        (client, heard)
    };
    let (mut one, heard) = at(&mut world, "/mcp/tools");
    let (mut two, others) = at(&mut world, "/mcp/tools");
    let (mut all, aside) = at(&mut world, "/mcp");
    assert_eq!(one.tools(&mut world), script::TOOLS);
    let child = *world.look(laptop).children.keys().next().expect("its list is its own run's");
    assert_eq!(two.tools(&mut world), script::TOOLS);
    assert_eq!(world.look(laptop).children.len(), 2);
    world.run(10 * SECOND);
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    let script = world.look(laptop).scripts.get_mut("tools").expect("it has it");
    script.own_tools.insert(child, vec!["toggled".to_owned()]);
    world.tell(laptop, AgentEvent::Line { child, line: changed.to_string().into() });
    world.run(10 * SECOND);
    assert_eq!(world.exchange(heard).messages(), [changed]);
    assert!(world.exchange(others).messages().is_empty() && world.exchange(aside).messages().is_empty());
    assert!(one.tools(&mut world).contains(&"toggled".to_owned()));
    assert_eq!(two.tools(&mut world), script::TOOLS);
    assert!(!all.tools(&mut world).contains(&"tools__toggled".to_owned()));
    // What is not listed to all may be called: the session's own run judges it.
    assert!(all.call_now(&mut world, "tools__toggled", &json!({})).get("result").is_some());
    assert_eq!(world.look(laptop).children.len(), 3);
}

#[test]
fn restart_reads_the_configuration_anew() {
    let (mut world, laptop, mut client) = one_laptop(42);
    world.look(laptop).config = tunnel_world::agent::config(["tools", "added"].into_iter());
    let answer = client.call_now(&mut world, "restart", &json!({}));
    assert!(answer.get("result").is_some(), "{answer}");
    world.run(15 * SECOND);
    let tools = client.tools(&mut world);
    assert!(tools.contains(&"added__echo".to_owned()), "{tools:?}");
    assert_eq!(world.look(laptop).spawned["tools"], 2);
    let answer = client.call_now(&mut world, "restart", &json!({"server": "added"}));
    assert!(answer.get("result").is_some(), "{answer}");
    world.run(15 * SECOND);
    let spawned = &world.look(laptop).spawned;
    assert_eq!((spawned["added"], spawned["tools"]), (2, 2), "one by name");
}

// Tunnels that break.

#[test]
fn killed_agent_answers_its_calls_at_once() {
    let (mut world, laptop, mut client) = one_laptop(50);
    let calls: Vec<_> = (0..10).map(|_| client.call(&mut world, "tools__silent", &json!({}))).collect();
    world.run(SECOND);
    let killed = world.micros();
    world.kill_agent(laptop);
    for call in calls {
        let reply = world.finish(call);
        assert!(reply.ended_at - killed < 1_000_000);
        assert!(error_of(&reply.answer().expect("answered")).contains("laptop"), "{reply:?}");
    }
}

#[test]
fn half_open_tunnel_is_found_out() {
    let (mut world, laptop, mut client) = one_laptop(51);
    world.silence(laptop);
    let start = world.micros();
    let call = client.call(&mut world, "tools__echo", &json!({}));
    let reply = world.finish(call);
    error_of(&reply.answer().expect("answered"));
    let patience = limits::PING_INTERVAL * (limits::PINGS_MISSED + 2);
    assert!(Duration::from_micros(reply.ended_at - start) < patience);
    world.run(patience + 35 * SECOND);
    assert!(
        client.call_now(&mut world, "tools__echo", &json!({})).get("result").is_some(),
        "the agent came back by itself"
    );
    assert_eq!(world.look(laptop).spawned["tools"], 1, "its server was never touched");
}

#[test]
fn killed_relay_costs_the_calls_in_flight_and_nothing_else() {
    let (mut world, laptop, mut client) = one_laptop(52);
    let lost = client.call(&mut world, "tools__silent", &json!({}));
    world.run(SECOND);
    world.kill_relay();
    assert_eq!(world.finish(lost).outcome, Some(Outcome::Aborted));
    world.run(10 * SECOND);
    world.start_relay();
    world.run(limits::RECONNECT_MAX + SECOND);
    let answer = client.call_now(&mut world, "tools__echo", &json!({"same": "session and token"}));
    assert!(answer.get("result").is_some(), "{answer}");
    let agent = world.look(laptop);
    assert_eq!((agent.spawned["tools"], agent.scripts["tools"].calls("silent")), (1, 1));
    assert_eq!(agent.scripts["tools"].cancellations(), 1, "nobody waits for the lost call any more");
}

#[test]
fn agent_is_back_at_once_after_a_blip() {
    let (mut world, laptop, _) = one_laptop(53);
    world.run(2 * limits::RECONNECT_STABLE);
    let before = world.look(laptop).dials.len();
    world.kill_relay();
    world.start_relay();
    let broke = world.micros();
    world.run(SECOND);
    let dials = &world.look(laptop).dials;
    assert_eq!(dials.len(), before + 1);
    let first_try = limits::RECONNECT_FIRST + Duration::from_millis(50);
    assert!(Duration::from_micros(dials[before] - broke) <= first_try, "{}", dials[before] - broke);
}

#[test]
fn attempts_spread_and_stay_within_the_longest_wait() {
    let (mut world, laptop, _) = one_laptop(54);
    world.kill_relay();
    world.run(600 * SECOND);
    let dials = world.look(laptop).dials.clone();
    let waits: Vec<_> = dials.windows(2).map(|pair| Duration::from_micros(pair[1] - pair[0])).collect();
    assert!(waits.iter().all(|wait| *wait <= limits::RECONNECT_MAX + SECOND), "{waits:?}");
    assert!((20..400).contains(&waits.len()), "{} attempts in ten minutes", waits.len());
}

#[test]
fn woken_laptop_notices_its_dead_tunnel_soon() {
    let (mut world, laptop, mut client) = one_laptop(55);
    world.run(30 * SECOND);
    world.silence(laptop);
    world.suspend(Duration::from_secs(3600));
    let woke = world.micros();
    let before = world.look(laptop).dials.len();
    world.run(limits::PING_INTERVAL + 10 * SECOND);
    let dials = &world.look(laptop).dials;
    assert!(dials.len() > before, "it dialed again");
    let noticed = Duration::from_micros(dials[before] - woke);
    assert!(noticed < limits::PING_INTERVAL + 8 * SECOND, "{noticed:?}");
    world.run(60 * SECOND);
    assert!(client.call_now(&mut world, "tools__echo", &json!({})).get("result").is_some());
}

#[test]
fn nudge_tries_at_once() {
    let (mut world, laptop, _) = one_laptop(56);
    world.kill_relay();
    world.run(300 * SECOND);
    world.start_relay();
    let before = world.look(laptop).dials.len();
    let now = world.micros();
    world.tell(laptop, AgentEvent::Nudge);
    world.run(Duration::from_millis(100));
    let dials = &world.look(laptop).dials;
    assert!(dials.len() > before && dials[before] - now < 100_000);
}

#[test]
fn same_device_replaces_itself_and_another_is_refused_its_name() {
    let (mut world, first, mut client) = one_laptop(57);
    let token = world.mint("ada", Role::Agent);
    let thief = world.agent_with_id("laptop", "another-device", &token, [("theirs", Script::default())]);
    world.settle();
    let tools = client.tools(&mut world);
    assert!(
        tools.contains(&"tools__echo".to_owned()) && !tools.iter().any(|name| name.contains("theirs")),
        "{tools:?}"
    );
    assert_eq!(world.look(thief).dials.len(), 1, "it does not try again by itself");
    let again = world.agent("laptop", &token, [("newer", Script::default())]);
    world.settle();
    let tools = client.tools(&mut world);
    assert!(tools.contains(&"newer__echo".to_owned()) && !tools.contains(&"tools__echo".to_owned()), "{tools:?}");
    assert!(world.look(first).exit.is_some() || world.look(first).dials.len() == 1, "the old one gives way");
    assert_eq!(world.look(again).dials.len(), 1);
}

// Tokens.

#[test]
fn tokens_open_only_what_they_are_for() {
    let mut world = World::new(60);
    let client_token = world.mint("ada", Role::Client);
    let agent_token = world.mint("ada", Role::Agent);
    let posing = world.agent("laptop", &client_token, [("tools", Script::default())]);
    world.settle();
    let mut client = Client::new(&client_token);
    client.initialize(&mut world);
    assert_eq!(client.tools(&mut world).len(), 2, "a client cannot pose as a device");
    assert!(world.look(posing).connection_is_down());
    let exchange = Client::new(&agent_token).post(&mut world, &json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}));
    assert_eq!(world.finish(exchange).status, Some(StatusCode::FORBIDDEN));
    for token in ["garbage", &client_token[..client_token.len() - 1]] {
        let exchange = Client::new(token).post(&mut world, &json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}));
        let reply = world.finish(exchange);
        assert_eq!(reply.status, Some(StatusCode::UNAUTHORIZED));
        assert!(reply.headers["www-authenticate"].to_str().expect("ASCII").contains("resource_metadata="));
    }
}

#[test]
fn expired_token_is_refused_and_its_tunnel_ends() {
    let (mut world, _, client) = one_laptop(61);
    world.suspend(Duration::from_secs(31 * 86_400));
    world.run(60 * SECOND);
    let exchange = client.post(&mut world, &json!({"jsonrpc": "2.0", "id": 77, "method": "tools/list"}));
    assert_eq!(world.finish(exchange).status, Some(StatusCode::UNAUTHORIZED));
}

#[test]
fn everybody_signed_out_ends_tunnels_and_calls() {
    let (mut world, laptop, mut client) = one_laptop(64);
    let answer = world.admin(AdminCommand::KeysRevokeAll);
    assert!(answer["ok"] == true && answer["signedOut"] == 2, "{answer}");
    world.settle();
    assert!(world.look(laptop).connection_is_down());
    let exchange = client.request(&mut world, "tools/list", &json!({}));
    assert_eq!(world.finish(exchange).status, Some(StatusCode::UNAUTHORIZED));
    world.kill_relay();
    world.start_relay();
    world.run(60 * SECOND);
    assert!(world.look(laptop).connection_is_down(), "a restart does not forget it");
}

#[test]
fn revoked_agent_token_ends_its_tunnel() {
    let (mut world, laptop, mut client) = one_laptop(62);
    let list = world.admin(AdminCommand::TokenList);
    let tokens = list["tokens"].as_array().unwrap_or_else(|| panic!("a list: {list}"));
    let agent = tokens.iter().find(|token| token["role"] == "agent").expect("the laptop's token is listed");
    assert!(agent.get("token").is_none(), "a token is shown once");
    let id = agent["id"].as_str().expect("it has an id").to_owned();
    world.admin(AdminCommand::TokenRevoke { id });
    world.settle();
    assert_eq!(client.tools(&mut world).len(), 2, "its tools are gone");
    assert!(world.look(laptop).connection_is_down());
    world.kill_relay();
    world.start_relay();
    world.run(60 * SECOND);
    assert_eq!(client.tools(&mut world).len(), 2, "a restart does not forget the revocation");
}

#[test]
fn ended_session_stays_ended_after_a_restart() {
    let (mut world, _, mut client) = one_laptop(63);
    let exchange = client.delete(&mut world);
    assert!(world.finish(exchange).status.expect("answered").is_success());
    for _ in 0..2 {
        let exchange = client.request(&mut world, "tools/list", &json!({}));
        assert_eq!(world.finish(exchange).status, Some(StatusCode::NOT_FOUND));
        world.kill_relay();
        world.start_relay();
    }
}

// Policy and pins.

/// A world with a laptop under this policy, and a client with a session.
fn under(seed: u64, policy: AgentPolicy, script: Script) -> (World, AgentKey, Client) {
    let mut world = World::new(seed);
    let token = world.mint("ada", Role::Agent);
    let laptop = world.agent_under(policy, &token, [("tools", script)]);
    world.settle();
    let client = signed_in(&mut world, "ada");
    (world, laptop, client)
}

#[test]
fn what_the_device_hides_no_client_sees_or_calls() {
    let device = Policy {
        deny: vec![Pattern::of_device("tools/di*").expect("a pattern")],
        calls: CallLimits { per_minute: Some(3), concurrency: None },
        ..Policy::default()
    };
    let policy = AgentPolicy { device, audit: Some(AuditFile::Default), ..AgentPolicy::default() };
    let (mut world, laptop, mut client) = under(60, policy, Script::default());
    let tools = client.tools(&mut world);
    assert!(tools.contains(&"tools__echo".to_owned()) && !tools.contains(&"tools__die".to_owned()), "{tools:?}");
    let answer = client.call_now(&mut world, "tools__die", &json!({}));
    assert!(answer.get("result").is_none() || answer["result"]["isError"] == true, "{answer}");
    for _ in 0..3 {
        assert!(client.call_now(&mut world, "tools__echo", &json!({"n": 1})).get("result").is_some());
    }
    let answer = client.call_now(&mut world, "tools__echo", &json!({"n": 1}));
    assert!(error_of(&answer).contains("3 calls a minute"), "{answer}");
    let agent = world.look(laptop);
    assert_eq!((agent.scripts["tools"].calls("die"), agent.scripts["tools"].calls("echo")), (0, 3));
    let audit = agent.audit.concat();
    assert!(audit.matches(r#""decision":"allowed""#).count() == 3 && audit.contains("limited"), "{audit}");
    assert!(!audit.contains(r#""n""#), "{audit}");
}

#[test]
fn call_waits_for_the_person_at_the_device() {
    let device = Policy { approve: Approve::First, ..Policy::default() };
    let (mut world, laptop, mut client) =
        under(61, AgentPolicy { device, ..AgentPolicy::default() }, Script::default());
    let exchange = client.call(&mut world, "tools__echo", &json!({"n": 1}));
    world.run(30 * SECOND);
    assert!(world.exchange(exchange).outcome.is_none());
    assert_eq!(world.look(laptop).scripts["tools"].calls("echo"), 0);
    let waiting = world.control(laptop, ControlCommand::Approvals { params: false });
    let id = waiting["waiting"][0]["id"].as_u64().unwrap_or_else(|| panic!("it waits: {waiting}"));
    world.control(laptop, ControlCommand::Approve { id, always: false });
    let answer = world.finish(exchange).answer().expect("an answer");
    assert_eq!(answer["result"]["structuredContent"], json!({"n": 1}), "{answer}");
    let answer = client.call_now(&mut world, "tools__echo", &json!({"n": 2}));
    assert!(answer.get("result").is_some(), "asked about once");
    let answer = client.call_now(&mut world, "tools__wait", &json!({"ms": 1}));
    assert!(error_of(&answer).contains("nobody gave it within 120 s"), "{answer}");
}

#[test]
fn tool_that_changes_is_held_back_until_a_person_agrees() {
    let tool =
        |description: &str| json!({"name": "read", "description": description, "inputSchema": {"type": "object"}});
    let script = Script { raw_tools: vec![tool("Reads a file.")], ..Script::default() };
    let policy = AgentPolicy { pins: PinMode::Block, ..AgentPolicy::default() };
    let (mut world, laptop, mut client) = under(62, policy, script);
    assert!(client.tools(&mut world).contains(&"tools__read".to_owned()));
    world.look(laptop).scripts.get_mut("tools").expect("it runs").raw_tools = vec![tool("Reads a file!")];
    world.server_says(laptop, "tools", &json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
    world.settle();
    let tools = client.tools(&mut world);
    assert!(!tools.contains(&"tools__read".to_owned()) && tools.contains(&"tools__echo".to_owned()), "{tools:?}");
    client.call_now(&mut world, "tools__read", &json!({}));
    assert_eq!(world.look(laptop).scripts["tools"].calls("read"), 0);
    let status = world.control(laptop, ControlCommand::Status);
    assert_eq!(status["changedTools"][0]["tool"], "read", "{status}");
    world.control(laptop, ControlCommand::PinsApprove { server: None, tool: None });
    world.settle();
    assert!(client.tools(&mut world).contains(&"tools__read".to_owned()));
    assert!(client.call_now(&mut world, "tools__read", &json!({})).get("result").is_some());
}

// The world.

#[test]
fn nothing_is_left_over_when_all_is_quiet() {
    let (mut world, laptop, mut client) = one_laptop(70);
    for _ in 0..50 {
        client.call_now(&mut world, "tools__echo", &json!({}));
    }
    world.run(60 * SECOND);
    let steps = world.steps;
    world.run(3600 * SECOND);
    let an_hour = world.steps - steps;
    assert!(an_hour < 3 * 3600, "an idle tunnel wakes nobody needlessly: {an_hour} steps");
    assert_eq!(world.look(laptop).dials.len(), 1);
}

#[test]
fn same_seed_same_world() {
    let run = |seed| {
        let (mut world, laptop, mut client) = one_laptop(seed);
        let exchange = client.call(&mut world, "tools__progress", &json!({"steps": 5, "ms": 70}));
        let body = world.finish(exchange).body;
        world.kill_relay();
        world.run(20 * SECOND);
        world.start_relay();
        world.run(60 * SECOND);
        (body, world.look(laptop).dials.clone(), world.steps, world.micros())
    };
    assert_eq!(run(80), run(80));
    assert_ne!(run(80).1, run(81).1, "another seed, another jitter");
}

#[test]
fn storm_of_agents_after_a_relay_restart_is_spread() {
    let mut world = World::new(90);
    let tokens = ["ada", "eve"].map(|user| world.mint(user, Role::Agent));
    let agents: Vec<_> = (0..60)
        .map(|index| world.agent(&format!("device-{index}"), &tokens[index % 2], [("tools", Script::default())]))
        .collect();
    world.settle();
    world.run(2 * limits::RECONNECT_STABLE);
    world.kill_relay();
    world.run(30 * SECOND);
    world.start_relay();
    let start = world.micros();
    world.run(limits::RECONNECT_MAX + SECOND);
    let mut back: Vec<_> =
        agents.iter().filter_map(|agent| world.look(*agent).dials.iter().copied().find(|at| *at >= start)).collect();
    assert_eq!(back.len(), agents.len(), "all are back within the longest wait");
    back.sort_unstable();
    let busiest =
        back.iter().map(|at| back.iter().filter(|other| *other >= at && **other - at < 1_000_000).count()).max();
    assert!(busiest < Some(agents.len() / 2), "{busiest:?} of {} in one second", agents.len());
}

//! Clients and servers of both eras in all combinations: what either relies on holds, whatever the other one speaks.
//! The scripts see to it that no process of a server ever hears two eras, nor an era that it does not speak.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use tunnel_core::agent::contract::Event;
use tunnel_core::config::Isolation;
use tunnel_core::entropy::Seeded;
use tunnel_core::id::ExchangeId;
use tunnel_core::limits;
use tunnel_core::mcp::{code, key};
use tunnel_core::oauth::Role;
use tunnel_world::{AgentKey, Client, Era, Outcome, Script, World, script};

const SECOND: Duration = Duration::from_secs(1);

/// What a client speaks, and what the server.
type Pair = (Era, Era);

const PAIRS: [Pair; 6] = [
    (Era::Legacy, Era::Legacy),
    (Era::Legacy, Era::Modern),
    (Era::Legacy, Era::Both),
    (Era::Modern, Era::Legacy),
    (Era::Modern, Era::Modern),
    (Era::Modern, Era::Both),
];

/// A client, and an agent with one server, `tools`.
struct Stage {
    world: World,
    laptop: AgentKey,
    client: Client,
    era: Era,
    /// The ids of the questions that a legacy client answered.
    replied: BTreeSet<String>,
    /// When the relay was killed in a storm, in microseconds.
    kills: Vec<u64>,
}

impl Stage {
    fn new(seed: u64, (era, server): Pair) -> Self {
        Self::with(seed, era, Script { era: server, ..Script::default() })
    }

    fn with(seed: u64, era: Era, script: Script) -> Self {
        let mut world = World::new(seed);
        let token = world.mint("ada", Role::Agent);
        let laptop = world.agent("laptop", &token, [("tools", script)]);
        world.settle();
        let client = client(&mut world, era);
        Self { world, laptop, client, era, replied: BTreeSet::new(), kills: Vec::new() }
    }

    fn script(&mut self) -> &Script {
        &self.world.look(self.laptop).scripts["tools"]
    }

    /// The run of the server that older clients hear of says something by itself.
    fn server_tells(&mut self, method: &str, params: &Value) {
        let agent = self.world.look(self.laptop);
        let script = &agent.scripts["tools"];
        let spoken = |era: Era| agent.children.keys().find(|child| script.spoken.get(child) == Some(&era)).copied();
        let mut message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        let child = spoken(Era::Legacy).unwrap_or_else(|| {
            let mut listens = script.heard.iter().filter(|message| message["method"] == "subscriptions/listen");
            message["params"]["_meta"][key::SUBSCRIPTION_ID] =
                listens.next_back().expect("it is listened to")["id"].clone();
            spoken(Era::Modern).expect("it runs")
        });
        let line = message.to_string().into();
        self.world.tell(self.laptop, Event::Line { child, line });
    }

    fn call(&mut self, tool: &str, arguments: &Value) -> ExchangeId {
        self.client.call(&mut self.world, &format!("tools__{tool}"), arguments)
    }

    fn echoes(&mut self, n: u64) {
        let answer = self.client.call_now(&mut self.world, "tools__echo", &json!({"n": n}));
        assert_eq!(answer["result"]["structuredContent"], json!({"n": n}), "{answer}");
    }

    /// The final answer, the only one.
    fn finish(&mut self, exchange: ExchangeId) -> Value {
        let reply = self.world.finish(exchange);
        let answers = reply.answers();
        assert_eq!((reply.outcome, answers.len()), (Some(Outcome::Complete), 1), "{reply:?}");
        answers.into_iter().next().expect("it is there")
    }

    /// Answers what was asked in a call of `ask`, if it was: with the exchange that goes on, which is a new one in the
    /// modern era.
    fn reply(&mut self, exchange: ExchangeId, arguments: &Value) -> Option<ExchangeId> {
        let said = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "four"}});
        let messages = self.world.exchange(exchange).messages();
        // Of calls that are open at once, a question may come on the stream of either.
        let questions = messages.iter().filter(|message| message["method"] == "sampling/createMessage");
        let mut is_asked = false;
        for question in questions.filter(|question| self.replied.insert(question["id"].to_string())) {
            let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": said});
            let taken = self.client.post(&mut self.world, &answer);
            self.world.finish(taken);
            is_asked = true;
        }
        if is_asked {
            return Some(exchange);
        }
        let required = messages.iter().find(|message| message["result"]["resultType"] == "input_required")?;
        let questions = required["result"]["inputRequests"].as_object().expect("it asks something");
        let answers: BTreeMap<_, _> = questions.keys().map(|question| (question, &said)).collect();
        let params = json!({"name": "tools__ask", "arguments": arguments, "inputResponses": answers,
            "requestState": required["result"]["requestState"]});
        Some(self.client.request(&mut self.world, "tools/call", &params))
    }
}

fn client(world: &mut World, era: Era) -> Client {
    let token = world.mint("ada", Role::Client);
    if era == Era::Modern {
        return Client::modern(&token);
    }
    let mut client = Client::new(&token);
    client.initialize(world);
    client
}

fn is_error(answer: &Value) -> bool {
    answer.get("error").is_some() && answer.get("result").is_none()
}

fn spoken_by(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("a text: {answer}"))
}

#[test]
fn methods_of_the_modern_era_come_to_no_server_from_a_client_of_the_older_one() {
    for server in [Era::Legacy, Era::Modern, Era::Both] {
        let mut stage = Stage::new(20, (Era::Legacy, server));
        for path in ["/mcp", "/mcp/tools"] {
            let mut client = stage.client.clone().at(path);
            client.initialize(&mut stage.world);
            for method in ["server/discover", "subscriptions/listen"] {
                let exchange = client.request(&mut stage.world, method, &json!({}));
                assert_eq!(stage.finish(exchange)["error"]["code"], -32601, "{path} {method} {server:?}");
            }
        }
        let foreign = |heard: &&Value| {
            let of_the_agent = heard["params"]["_meta"][key::VERSION].is_string();
            !of_the_agent && matches!(heard["method"].as_str(), Some("server/discover" | "subscriptions/listen"))
        };
        assert_eq!(stage.script().heard.iter().find(foreign), None, "{server:?}");
    }
}

#[test]
fn what_a_server_says_in_the_course_of_an_older_clients_call_comes_on_its_stream() {
    for path in ["/mcp", "/mcp/tools"] {
        let mut stage = Stage::new(21, (Era::Legacy, Era::Legacy));
        let mut client = stage.client.clone().at(path);
        client.initialize(&mut stage.world);
        let tool = if path == "/mcp" { "tools__wait" } else { "wait" };
        let call = client.call(&mut stage.world, tool, &json!({"ms": 5_000}));
        stage.world.run(SECOND);
        let methods = ["vendor", "elicitation/complete", "tasks/status"].map(|it| format!("notifications/{it}"));
        for method in &methods {
            stage.server_tells(method, &json!({"n": 1}));
        }
        let reply = stage.world.finish(call);
        assert_eq!((reply.outcome, reply.answers().len()), (Some(Outcome::Complete), 1), "{reply:?}");
        let messages = reply.messages();
        let told: Vec<_> = messages.iter().filter_map(|message| message["method"].as_str()).collect();
        assert_eq!(told, methods, "{path}");
    }
}

#[test]
fn tools_are_listed_and_called() {
    for pair in PAIRS {
        let mut stage = Stage::new(1, pair);
        let tools = stage.client.tools(&mut stage.world);
        assert_eq!(tools.iter().filter(|name| name.starts_with("tools__")).count(), script::TOOLS.len(), "{pair:?}");
        let call = stage.call("echo", &json!({"n": 1}));
        let answer = stage.finish(call);
        assert_eq!(answer["result"]["structuredContent"], json!({"n": 1}), "{pair:?}");
        if pair.0 == Era::Modern {
            assert_eq!(answer["result"]["resultType"], "complete", "{pair:?}");
        }
        assert_eq!(stage.script().calls("echo"), 1, "{pair:?}");
    }
}

#[test]
fn progress_comes_with_the_clients_own_token() {
    for pair in PAIRS {
        let mut stage = Stage::new(2, pair);
        let params =
            json!({"name": "tools__progress", "arguments": {"steps": 3, "ms": 50}, "_meta": {"progressToken": "mine"}});
        let call = stage.client.request(&mut stage.world, "tools/call", &params);
        let reply = stage.world.finish(call);
        let messages = reply.messages();
        let (answer, notes) = messages.split_last().expect("it is answered");
        assert_eq!(spoken_by(answer), "done", "{pair:?}");
        let steps: Vec<_> = notes.iter().map(|note| &note["params"]["progress"]).collect();
        assert_eq!(steps, [1, 2, 3], "{pair:?}");
        assert!(notes.iter().all(|note| note["params"]["progressToken"] == "mine"), "{pair:?}: {notes:?}");
    }
}

#[test]
fn cancelled_call_is_told_its_server_once() {
    for pair in PAIRS {
        let mut stage = Stage::new(3, pair);
        let id = stage.client.next_id();
        let call = stage.call("silent", &json!({}));
        stage.world.run(SECOND);
        assert_eq!((stage.script().calls("silent"), stage.script().cancellations()), (1, 0), "{pair:?}");
        if stage.era == Era::Modern {
            stage.world.hang_up(call);
        } else {
            stage.client.notify(&mut stage.world, "notifications/cancelled", &json!({"requestId": id}));
            assert!(stage.world.finish(call).answers().len() <= 1, "{pair:?}");
        }
        stage.world.run(5 * SECOND);
        assert_eq!((stage.script().calls("silent"), stage.script().cancellations()), (1, 1), "{pair:?}");
        stage.echoes(2);
    }
}

#[test]
fn question_is_asked_and_its_answer_brought_back() {
    for pair in PAIRS {
        let mut stage = Stage::new(4, pair);
        let arguments = json!({"of": "two and two"});
        let call = stage.call("ask", &arguments);
        stage.world.run(SECOND);
        let call = stage.reply(call, &arguments).unwrap_or_else(|| panic!("{pair:?}: nothing was asked"));
        let answer = stage.finish(call);
        assert_eq!(spoken_by(&answer), "four", "{pair:?}");
        assert_eq!(stage.script().calls("ask"), 1, "{pair:?}");
    }
}

#[test]
fn question_to_a_modern_client_outlives_the_relay() {
    for pair in PAIRS.into_iter().filter(|(client, _)| *client == Era::Modern) {
        let mut stage = Stage::new(5, pair);
        let arguments = json!({});
        let call = stage.call("ask", &arguments);
        stage.world.run(SECOND);
        stage.world.kill_relay();
        stage.world.start_relay();
        stage.world.run(limits::RECONNECT_MAX + SECOND);
        let call = stage.reply(call, &arguments).unwrap_or_else(|| panic!("{pair:?}: nothing was asked"));
        let answer = stage.finish(call);
        assert_eq!(spoken_by(&answer), "four", "{pair:?}");
        assert_eq!(stage.script().calls("ask"), 1, "{pair:?}");
    }
}

#[test]
fn server_that_dies_ends_each_of_its_calls_once_and_comes_back() {
    for pair in PAIRS {
        let mut stage = Stage::new(6, pair);
        let calls = ["silent", "wait", "die"].map(|tool| stage.call(tool, &json!({"ms": 60_000})));
        for call in calls {
            let answer = stage.finish(call);
            assert!(is_error(&answer), "{pair:?}: {answer}");
        }
        stage.echoes(1);
        for tool in ["silent", "wait", "die", "echo"] {
            assert_eq!(stage.script().calls(tool), 1, "{pair:?}: {tool}");
        }
    }
}

#[test]
fn killed_relay_costs_the_calls_under_way_and_nothing_else() {
    for pair in PAIRS {
        let mut stage = Stage::new(7, pair);
        let lost = stage.call("silent", &json!({}));
        stage.world.run(SECOND);
        let processes = stage.world.look(stage.laptop).spawned["tools"];
        stage.world.kill_relay();
        assert_eq!(stage.world.finish(lost).outcome, Some(Outcome::Aborted), "{pair:?}");
        stage.world.start_relay();
        stage.world.run(limits::RECONNECT_MAX + SECOND);
        // With the same session where there is one, and nothing said before.
        stage.echoes(1);
        assert_eq!(stage.world.look(stage.laptop).spawned["tools"], processes, "{pair:?}: its server goes on");
        let script = stage.script();
        assert_eq!((script.calls("silent"), script.calls("echo"), script.cancellations()), (1, 1, 1), "{pair:?}");
    }
}

#[test]
fn what_a_session_set_outlives_the_agent() {
    for server in [Era::Legacy, Era::Modern, Era::Both] {
        let mut stage = Stage::new(9, (Era::Legacy, server));
        stage.world.look(stage.laptop).scripts.get_mut("tools").expect("it is there").is_watchable = true;
        stage.laptop = stage.world.restart_agent(stage.laptop);
        stage.world.run(limits::RECONNECT_MAX + SECOND);
        stage.client = stage.client.at("/mcp/tools");
        for (method, params) in
            [("resources/subscribe", json!({"uri": "test://x"})), ("logging/setLevel", json!({"level": "error"}))]
        {
            let set = stage.client.request(&mut stage.world, method, &params);
            assert_eq!(stage.finish(set)["result"], json!({}), "{server:?}");
        }
        stage.world.run(2 * SECOND);
        stage.laptop = stage.world.restart_agent(stage.laptop);
        stage.world.run(limits::RECONNECT_MAX + SECOND);
        let stream = stage.client.listen(&mut stage.world);
        stage.world.run(SECOND);
        stage.server_tells("notifications/resources/updated", &json!({"uri": "test://x"}));
        stage.server_tells("notifications/resources/updated", &json!({"uri": "test://y"}));
        if server != Era::Modern {
            stage.server_tells("notifications/message", &json!({"level": "warning", "data": "too little"}));
            stage.server_tells("notifications/message", &json!({"level": "error", "data": "enough"}));
        }
        stage.world.run(SECOND);
        let heard = stage.world.exchange(stream).messages();
        let of = |method: &str| heard.iter().filter(|message| message["method"] == method).collect::<Vec<_>>();
        let updates = of("notifications/resources/updated");
        assert_eq!((updates.len(), &updates[0]["params"]["uri"]), (1, &json!("test://x")), "{server:?}");
        let logged: Vec<_> = of("notifications/message").iter().map(|log| log["params"]["data"].clone()).collect();
        let expected: &[&str] = if server == Era::Modern { &[] } else { &["enough"] };
        assert_eq!(logged, expected, "{server:?}");
    }
}

#[test]
fn what_a_server_says_of_its_list_is_heard_once_on_its_own_endpoint_and_nothing_before() {
    for server in [Era::Legacy, Era::Modern, Era::Both] {
        let mut stage = Stage::new(10, (Era::Legacy, server));
        stage.echoes(1);
        let own = client(&mut stage.world, Era::Legacy).at("/mcp/tools");
        let streams = [own.listen(&mut stage.world), stage.client.listen(&mut stage.world)];
        stage.world.run(SECOND);
        let heard = |stage: &Stage| streams.map(|stream| stage.world.exchange(stream).messages().len());
        assert_eq!(heard(&stage), [0, 0], "{server:?}: nothing changed since they began");
        for _ in 0..3 {
            stage.server_tells("notifications/tools/list_changed", &json!({}));
        }
        stage.world.run(2 * SECOND);
        assert_eq!(heard(&stage), [1, 0], "{server:?}: it lists what it did");
        stage.world.look(stage.laptop).scripts.get_mut("tools").expect("it is there").extra_tools.push("new".into());
        stage.server_tells("notifications/tools/list_changed", &json!({}));
        stage.world.run(2 * SECOND);
        assert_eq!(heard(&stage), [2, 1], "{server:?}: it lists something else");
    }
}

#[test]
fn clients_of_both_eras_use_one_server_at_once() {
    for (server, processes) in [(Era::Legacy, 1), (Era::Modern, 1), (Era::Both, 2)] {
        let mut stage = Stage::new(8, (Era::Legacy, server));
        let mut modern = client(&mut stage.world, Era::Modern);
        for n in 0..5 {
            let old = stage.call("echo", &json!({"n": n}));
            let new = modern.call(&mut stage.world, "tools__echo", &json!({"n": 100 + n}));
            assert_eq!(stage.finish(old)["result"]["structuredContent"]["n"], n, "{server:?}");
            assert_eq!(stage.finish(new)["result"]["structuredContent"]["n"], 100 + n, "{server:?}");
        }
        assert_eq!(stage.world.look(stage.laptop).children.len(), processes, "{server:?}");
        assert_eq!(stage.script().calls("echo"), 10, "{server:?}");
    }
}

// The state that a modern client carries for a legacy server whose call waits for answers.

/// A modern client's call of `ask` at a legacy server that waits for an answer: what brings that, and where it would go.
fn asked(stage: &mut Stage, arguments: &Value) -> Value {
    let call = stage.call("ask", arguments);
    stage.world.run(SECOND);
    let required = stage.finish(call)["result"].clone();
    assert_eq!(required["resultType"], "input_required", "{required}");
    let questions = required["inputRequests"].as_object().expect("it asks something");
    let said = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "four"}});
    let answers: BTreeMap<_, _> = questions.keys().map(|question| (question, &said)).collect();
    json!({"name": "tools__ask", "arguments": arguments, "inputResponses": answers,
        "requestState": required["requestState"]})
}

/// A state that is refused, with words that say so.
fn refused(client: &mut Client, world: &mut World, params: &Value) {
    let call = client.request(world, "tools/call", params);
    let answer = world.finish(call).answer().expect("it is answered");
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("requestState") && message.contains("changed, used, or is too old"), "{answer}");
}

#[test]
fn state_is_good_for_its_own_client_and_its_own_call_alone() {
    let mut stage = Stage::new(10, (Era::Modern, Era::Legacy));
    let token = stage.world.mint("eve", Role::Agent);
    let eves = stage.world.agent("laptop", &token, [("tools", Script::default())]);
    stage.world.settle();
    let params = asked(&mut stage, &json!({"of": 1}));
    let with = |key: &str, value: Value| {
        let mut params = params.clone();
        params[key] = value;
        params
    };
    let eve = stage.world.mint("eve", Role::Client);
    refused(&mut Client::modern(&eve), &mut stage.world, &params);
    let other = stage.world.mint("ada", Role::Client);
    refused(&mut Client::modern(&other), &mut stage.world, &params);
    let state = params["requestState"].as_str().expect("a text");
    let changed = format!("{}{}", &state[..state.len() - 1], if state.ends_with('A') { 'B' } else { 'A' });
    for params in [
        with("arguments", json!({"of": 2})),
        with("arguments", json!({})),
        with("name", json!("tools__echo")),
        with("requestState", json!(changed)),
        with("requestState", json!("")),
    ] {
        refused(&mut stage.client, &mut stage.world, &params);
    }
    let heard = |script: &Script| script.heard.iter().filter(|message| message["method"] == "tools/call").count();
    assert_eq!(heard(&stage.world.look(eves).scripts["tools"]), 0, "eve's own server heard of nothing");
    assert_eq!(heard(stage.script()), 1, "nor did ada's");
    let call = stage.client.request(&mut stage.world, "tools/call", &params);
    assert_eq!(spoken_by(&stage.finish(call)), "four", "the call went on waiting");
    refused(&mut stage.client, &mut stage.world, &params);
    assert_eq!(heard(stage.script()), 1, "used twice, done once");
    assert_eq!(stage.script().asking.len(), 0);
}

#[test]
fn state_expires_with_its_call() {
    let mut stage = Stage::new(11, (Era::Modern, Era::Legacy));
    let params = asked(&mut stage, &json!({}));
    stage.world.run(limits::PARKED_FOR - 2 * SECOND);
    assert_eq!(stage.script().cancellations(), 0);
    stage.world.run(3 * SECOND);
    assert_eq!(stage.script().cancellations(), 1, "its server is told that nobody waits any more");
    refused(&mut stage.client, &mut stage.world, &params);
    assert_eq!(stage.script().calls("ask"), 1, "it is not begun again");
    stage.echoes(1);
}

// A server that lists something else in either era.

/// The tools of the only server as a client sees them, but for those that every script has.
fn own_tools(client: &mut Client, world: &mut World) -> Vec<String> {
    let listed = client.tools(world).into_iter();
    let own = listed.filter_map(|name| name.strip_prefix("tools__").map(String::from));
    own.filter(|name| !script::TOOLS.contains(&name.as_str())).collect()
}

/// How often a client was told that the list of tools changed.
fn told_changes(world: &World, stream: ExchangeId) -> usize {
    let messages = world.exchange(stream).messages();
    messages.iter().filter(|message| message["method"] == "notifications/tools/list_changed").count()
}

/// The process of the server that heard an era says that its list changed.
fn says_changed(stage: &mut Stage, era: Era) {
    let script = stage.script();
    let (child, _) = script.spoken.iter().find(|(_, spoken)| **spoken == era).expect("it runs");
    let child = *child;
    let listens = script.heard.iter().rev().find(|message| message["method"] == "subscriptions/listen");
    let params = match (era, listens) {
        (Era::Modern, Some(listen)) => json!({"_meta": {key::SUBSCRIPTION_ID: listen["id"]}}),
        _ => json!({}),
    };
    let line = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": params});
    stage.world.tell(stage.laptop, Event::Line { child, line: line.to_string().into() });
}

#[test]
fn each_client_sees_and_calls_the_tools_of_its_own_era() {
    let era_tools = BTreeMap::from([(Era::Legacy, vec!["old".into()]), (Era::Modern, vec!["new".into()])]);
    let mut stage = Stage::with(9, Era::Legacy, Script { era: Era::Both, era_tools, ..Script::default() });
    let mut modern = client(&mut stage.world, Era::Modern);
    let listener = stage.client.listen(&mut stage.world);
    let wants = json!({"notifications": {"toolsListChanged": true}});
    let subscription = modern.request(&mut stage.world, "subscriptions/listen", &wants);
    stage.world.run(limits::ANNOUNCE_LATE);
    let told = |stage: &Stage| (told_changes(&stage.world, listener), told_changes(&stage.world, subscription));
    let before = told(&stage);
    assert_eq!(own_tools(&mut stage.client, &mut stage.world), ["new"], "no process for older clients was begun yet");
    // The first call of an older client begins one, which lists something else.
    stage.echoes(1);
    stage.world.run(SECOND);
    assert_eq!(own_tools(&mut stage.client, &mut stage.world), ["old"]);
    assert_eq!(own_tools(&mut modern, &mut stage.world), ["new"]);
    assert_eq!(told(&stage), (before.0 + 1, before.1), "it is news to older clients alone");
    for (client, own, foreign) in [(&mut stage.client, "old", "new"), (&mut modern, "new", "old")] {
        let answer = client.call_now(&mut stage.world, &format!("tools__{own}"), &json!({"n": 1}));
        assert_eq!(answer["result"]["structuredContent"], json!({"n": 1}), "{answer}");
        let answer = client.call_now(&mut stage.world, &format!("tools__{foreign}"), &json!({}));
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
    }
    for (era, tool) in [(Era::Legacy, "older"), (Era::Modern, "newer")] {
        let before = told(&stage);
        let laptop = stage.laptop;
        let script = stage.world.look(laptop).scripts.get_mut("tools").expect("it is there");
        script.era_tools.entry(era).or_default().push(tool.into());
        says_changed(&mut stage, era);
        stage.world.run(SECOND);
        let after = told(&stage);
        let expected = if era == Era::Legacy { (before.0 + 1, before.1) } else { (before.0, before.1 + 1) };
        assert_eq!(after, expected, "{era:?}: told to its clients");
    }
    assert_eq!(own_tools(&mut stage.client, &mut stage.world), ["old", "older"]);
    assert_eq!(own_tools(&mut modern, &mut stage.world), ["new", "newer"]);
    // Nobody calls it for a while: what older clients see stays when their process has ended, and over the relay's end.
    stage.world.run(limits::SESSION_IDLE + SECOND);
    assert_eq!(stage.world.look(stage.laptop).children.len(), 1);
    stage.world.kill_relay();
    stage.world.start_relay();
    stage.world.run(limits::RECONNECT_MAX + SECOND);
    assert_eq!(own_tools(&mut stage.client, &mut stage.world), ["old", "older"]);
    assert_eq!(own_tools(&mut modern, &mut stage.world), ["new", "newer"]);
}

// Questions outside of calls.

/// What a stream of a client's asks for roots: the ids.
fn asked_for_roots(world: &World, stream: ExchangeId) -> Vec<Value> {
    let messages = world.exchange(stream).messages();
    messages
        .into_iter()
        .filter(|message| message["method"] == "roots/list")
        .map(|message| message["id"].clone())
        .collect()
}

/// Sessions that use the server, each with the stream that it listens on; the last one is another user's, at a server
/// of the same name.
fn listening(stage: &mut Stage) -> Vec<(Client, ExchangeId)> {
    let eve = stage.world.mint("eve", Role::Agent);
    let script = Script { asks_roots: true, ..Script::default() };
    stage.world.agent_with_id("desktop", "id-of-desktop", &eve, [("tools", script)]);
    stage.world.settle();
    let tokens = ["ada", "ada", "eve"].map(|user| stage.world.mint(user, Role::Client));
    let mut begin = |token: &String| {
        let mut client = Client::new(token);
        client.initialize(&mut stage.world);
        client.call_now(&mut stage.world, "tools__echo", &json!({}));
        let stream = client.listen(&mut stage.world);
        (client, stream)
    };
    tokens.iter().map(&mut begin).collect()
}

#[test]
fn client_whose_roots_changed_is_asked_for_them_and_nobody_else() {
    const CHANGED: &str = "notifications/roots/list_changed";
    for (isolation, server) in [
        (Isolation::Shared, Era::Legacy),
        (Isolation::Shared, Era::Both),
        (Isolation::Session, Era::Legacy),
        (Isolation::Session, Era::Both),
    ] {
        let script = Script { era: server, isolation, asks_roots: true, ..Script::default() };
        let mut stage = Stage::with(10, Era::Legacy, script);
        let mut clients = listening(&mut stage);
        for n in [1, 0] {
            let (client, stream) = &mut clients[n];
            client.notify(&mut stage.world, CHANGED, &json!({}));
            stage.world.run(SECOND);
            let asked = asked_for_roots(&stage.world, *stream);
            assert_eq!(asked.len(), 1, "{isolation:?} {server:?}");
            let roots = json!({"roots": [{"uri": format!("file:///{n}")}]});
            let answer = json!({"jsonrpc": "2.0", "id": asked[0], "result": roots});
            for _ in 0..2 {
                let posted = client.post(&mut stage.world, &answer);
                stage.world.finish(posted);
            }
            stage.world.run(SECOND);
            assert_eq!(stage.script().told_of_roots().last().expect("it is told")["result"], roots);
        }
        assert_eq!(stage.script().told_of_roots().count(), 2, "{isolation:?} {server:?}: once each");
        assert_eq!(asked_for_roots(&stage.world, clients[1].1).len(), 1, "not for the other one's");
        assert_eq!(asked_for_roots(&stage.world, clients[2].1).len(), 0, "never another user");

        // Both at once: a process that both share cannot say whose it wants.
        for (client, _) in &mut clients[..2] {
            let json = json!({"jsonrpc": "2.0", "method": CHANGED});
            client.post(&mut stage.world, &json);
        }
        stage.world.run(SECOND);
        let asked = [0, 1].map(|n| asked_for_roots(&stage.world, clients[n].1).len());
        let declined = stage.script().told_of_roots().filter(|told| told["error"]["code"] == code::AMBIGUOUS).count();
        let expected = if isolation == Isolation::Session { ([2, 2], 0) } else { ([1, 1], 2) };
        assert_eq!((asked, declined), expected, "{isolation:?} {server:?}");
    }
}

#[test]
fn question_outside_of_calls_ends_with_its_session_and_is_declined_where_nobody_listens() {
    let script = Script { asks_roots: true, ..Script::default() };
    let mut stage = Stage::with(11, Era::Legacy, script);
    let ask = |stage: &mut Stage| {
        stage.client.notify(&mut stage.world, "notifications/roots/list_changed", &json!({}));
        stage.world.run(SECOND);
    };
    let errors = |stage: &mut Stage| -> Vec<Value> {
        stage.script().told_of_roots().map(|told| told["error"]["code"].clone()).collect()
    };
    stage.echoes(1);
    ask(&mut stage);
    assert_eq!(errors(&mut stage), [code::METHOD_NOT_FOUND]);
    let stream = stage.client.listen(&mut stage.world);
    stage.world.run(SECOND);
    assert_eq!(asked_for_roots(&stage.world, stream).len(), 0, "it is never asked later");
    ask(&mut stage);
    assert_eq!(asked_for_roots(&stage.world, stream).len(), 1);
    let ended = stage.client.delete(&mut stage.world);
    stage.world.finish(ended);
    stage.world.run(SECOND);
    assert_eq!(errors(&mut stage), [code::METHOD_NOT_FOUND, code::CANCELLED]);
}

// Subscriptions to one server.

/// What was said on a subscription: the ends of the methods. All of it carries the client's own id.
fn told(world: &World, stream: ExchangeId, id: u64) -> Vec<String> {
    let reply = world.exchange(stream);
    assert_eq!(reply.outcome, None, "it goes on: {:?}", reply.messages());
    let method = |message: Value| {
        assert_eq!(message["params"]["_meta"][key::SUBSCRIPTION_ID], id, "{message}");
        message["method"].as_str().expect("a notification").replace("notifications/", "")
    };
    reply.messages().into_iter().map(method).collect()
}

#[test]
fn subscription_to_one_server_outlives_its_process_its_tunnel_and_its_agent() {
    for pair in PAIRS.into_iter().filter(|(client, _)| *client == Era::Modern) {
        let mut stage = Stage::new(9, pair);
        let mut client = stage.client.clone().at("/mcp/tools");
        let id = client.next_id();
        let params = json!({"notifications": {"toolsListChanged": true}});
        let stream = client.request(&mut stage.world, "subscriptions/listen", &params);
        stage.world.run(SECOND);
        let (acknowledged, changed) = ("subscriptions/acknowledged".to_owned(), "tools/list_changed".to_owned());
        let mut expected = vec![acknowledged];
        assert_eq!(told(&stage.world, stream, id), expected, "{pair:?}");

        stage.world.server_dies(stage.laptop, "tools");
        stage.world.run(limits::RESTART_MAX + SECOND);
        assert_eq!(told(&stage.world, stream, id), expected, "{pair:?}: the same tools");
        let script = stage.world.look(stage.laptop).scripts.get_mut("tools").expect("its script");
        script.extra_tools.push("one-more".to_owned());
        stage.world.server_dies(stage.laptop, "tools");
        stage.world.run(limits::RESTART_MAX + SECOND);
        expected.push(changed.clone());
        assert_eq!(told(&stage.world, stream, id), expected, "{pair:?}: others");

        stage.world.silence(stage.laptop);
        stage.world.run(PATIENCE);
        assert_eq!(told(&stage.world, stream, id), expected, "{pair:?}: a blip is nobody's news");
        let script = stage.script().clone();
        stage.world.kill_agent(stage.laptop);
        stage.world.run(60 * SECOND);
        let token = stage.world.mint("ada", Role::Agent);
        let script = Script { era: script.era, extra_tools: vec!["another".to_owned()], ..Script::default() };
        stage.laptop = stage.world.agent("laptop", &token, [("tools", script)]);
        stage.world.settle();
        expected.push(changed.clone());
        assert_eq!(told(&stage.world, stream, id), expected, "{pair:?}: its next agent has others");

        // And it is as alive as on the first day.
        let script = stage.world.look(stage.laptop).scripts.get_mut("tools").expect("its script");
        script.extra_tools.clear();
        stage.world.server_dies(stage.laptop, "tools");
        stage.world.run(limits::RESTART_MAX + SECOND);
        expected.push(changed);
        assert_eq!(told(&stage.world, stream, id), expected, "{pair:?}");

        // A device that has no such server any more ends it in peace.
        stage.world.kill_agent(stage.laptop);
        stage.laptop = stage.world.agent("laptop", &token, [("others", Script::default())]);
        stage.world.settle();
        let reply = stage.world.finish(stream);
        assert_eq!(reply.answers().len(), 1);
        assert_eq!(reply.answer().expect("it is there")["result"]["resultType"], "complete", "{pair:?}");
    }
}

// An unreliable network.

/// How many worlds are tried of each pair.
const SEEDS: u64 = 60;

/// Longer than it takes to find a tunnel dead, dial again, and restart a server.
const PATIENCE: Duration = Duration::from_secs(180);

/// One of the calls of a storm.
struct Storming {
    exchange: ExchangeId,
    id: u64,
    arguments: Value,
    /// A modern client's call that wanted input is sent again, once.
    is_sent_again: bool,
}

impl Stage {
    /// Lets one thing happen: mostly a call, sometimes a failure of the relay, the tunnel, the server or the client's
    /// patience.
    fn happen(&mut self, n: u64, dice: &mut Seeded, calls: &mut Vec<Storming>) {
        let tool = match dice.next_u64() % 13 {
            0 => {
                self.kills.push(self.world.micros());
                self.world.kill_relay();
                self.world.run(upto(dice, 2_000));
                return self.world.start_relay();
            }
            1 => return self.world.silence(self.laptop),
            2 => return self.give_up(calls),
            3 => "die",
            4..7 => "ask",
            7..9 => "wait",
            9 => "progress",
            _ => "echo",
        };
        let arguments = json!({"n": n, "ms": dice.next_u64() % 900, "steps": 3});
        let params = json!({"name": format!("tools__{tool}"), "arguments": arguments, "_meta": {"progressToken": n}});
        let id = self.client.next_id();
        let exchange = self.client.request(&mut self.world, "tools/call", &params);
        calls.push(Storming { exchange, id, arguments, is_sent_again: false });
    }

    /// Cancels the first call that is under way, as the client's era does.
    fn give_up(&mut self, calls: &mut Vec<Storming>) {
        let is_open = |call: &Storming| self.world.exchange(call.exchange).outcome.is_none();
        let Some(first) = calls.iter().position(is_open) else { return };
        if self.era == Era::Modern {
            self.world.hang_up(calls.remove(first).exchange);
        } else {
            let id = calls[first].id;
            self.client.notify(&mut self.world, "notifications/cancelled", &json!({"requestId": id}));
        }
    }

    /// Answers what was asked since.
    fn reply_to(&mut self, calls: &mut [Storming], ended: &mut Vec<ExchangeId>) {
        for call in calls.iter_mut().filter(|call| !call.is_sent_again) {
            let next = self.reply(call.exchange, &call.arguments).filter(|next| *next != call.exchange);
            if let Some(next) = next {
                call.is_sent_again = true;
                ended.push(std::mem::replace(&mut call.exchange, next));
            }
        }
    }
}

fn upto(dice: &mut Seeded, ms: u64) -> Duration {
    Duration::from_millis(dice.next_u64() % ms)
}

/// What holds when a storm is over.
impl Stage {
    /// Nothing but the relay's end cuts an answer off.
    fn each_call_ended_once(&self, exchanges: impl Iterator<Item = ExchangeId>) {
        for exchange in exchanges {
            let reply = self.world.exchange(exchange);
            let is_fine = match reply.outcome {
                Some(Outcome::Complete) => reply.answers().len() == 1,
                Some(Outcome::Aborted) => reply.answers().is_empty() && self.kills.contains(&reply.ended_at),
                None => false,
            };
            assert!(is_fine, "{:?} at {}: {:?}", reply.outcome, reply.ended_at, reply.messages());
        }
    }

    fn each_answer_is_to_its_own_call(&self, calls: &[Storming]) {
        for call in calls {
            let answer = self.world.exchange(call.exchange).answer().unwrap_or_default();
            let echoed = &answer["result"]["structuredContent"];
            assert!(echoed.is_null() || *echoed == call.arguments, "{answer}");
        }
    }

    fn server_heard_nothing_twice(&mut self) {
        let script = self.script();
        let begun = script.begun().map(|params| params["arguments"]["n"].to_string());
        assert_distinct(begun.collect());
        let cancelled = script.heard.iter().filter(|message| message["method"] == "notifications/cancelled");
        assert_distinct(cancelled.map(|message| message["params"]["requestId"].to_string()).collect());
    }
}

fn assert_distinct(mut all: Vec<String>) {
    all.sort_unstable();
    assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{all:?}");
}

fn storm(pair: Pair, seed: u64) {
    let mut dice = Seeded::new(seed);
    let mut stage = Stage::new(seed, pair);
    let (mut calls, mut ended) = (Vec::new(), Vec::new());
    for n in 0..16 {
        stage.happen(n, &mut dice, &mut calls);
        stage.world.run(upto(&mut dice, 600));
        stage.reply_to(&mut calls, &mut ended);
    }
    stage.world.run(PATIENCE);
    stage.reply_to(&mut calls, &mut ended);
    stage.world.run(PATIENCE);
    stage.each_call_ended_once(calls.iter().map(|call| call.exchange).chain(ended));
    stage.each_answer_is_to_its_own_call(&calls);
    stage.server_heard_nothing_twice();
    stage.echoes(99);
}

#[test]
fn whatever_breaks_each_call_is_answered_once_and_executed_at_most_once() {
    for (index, pair) in (0..).zip(PAIRS) {
        for seed in (0..SEEDS).map(|seed| seed + SEEDS * index) {
            if std::panic::catch_unwind(|| storm(pair, seed)).is_err() {
                panic!("{pair:?}, seed {seed}");
            }
        }
    }
}

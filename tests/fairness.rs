//! One client's flood, a huge result, a server that never stops talking, a client that does not read: none of them keeps
//! another client waiting, on the same server, device or relay. What counts is who comes first, on simulated time.

use std::time::Duration;

use serde_json::json;
use tunnel_core::id::ExchangeId;
use tunnel_core::limits;
use tunnel_core::oauth::Role;
use tunnel_world::{AgentKey, Client, Era, Script, World};

const SECOND: Duration = Duration::from_secs(1);
const MIB: usize = 1024 * 1024;

/// What one client does to the server `tools` of its device `laptop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    /// Calls without end that are never answered.
    Calls,
    /// The same, each in a session of its own.
    Sessions,
    /// Results of 16 MiB.
    Huge,
    /// Calls whose server tells of them again and again.
    Talk,
    /// Results that nobody takes.
    Unread,
}

const ATTACKS: [Attack; 5] = [Attack::Calls, Attack::Sessions, Attack::Huge, Attack::Talk, Attack::Unread];

/// A relay with two devices of one person and one of another's.
struct Stage {
    world: World,
    laptop: AgentKey,
    attacker: Client,
    /// Who is to go on as if nothing were: where, and the tool's name there.
    victims: Vec<(&'static str, Client, &'static str)>,
}

impl Stage {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let [ada, eve] = ["ada", "eve"].map(|user| world.mint(user, Role::Agent));
        let script = || Script { era: Era::Legacy, ..Script::default() };
        let laptop = world.agent("laptop", &ada, [("tools", script()), ("beside", script())]);
        world.agent("desktop", &ada, [("tools", script())]);
        world.agent("box", &eve, [("tools", script())]);
        world.settle();
        let attacker = client(&mut world, "ada", Era::Legacy);
        let victims = [
            ("the same server", "ada", Era::Legacy, "laptop__tools__echo"),
            ("the same server, without a session", "ada", Era::Modern, "laptop__tools__echo"),
            ("another server of the device", "ada", Era::Legacy, "laptop__beside__echo"),
            ("another device of the person", "ada", Era::Legacy, "desktop__tools__echo"),
            ("another person", "eve", Era::Legacy, "tools__echo"),
        ];
        let victims = victims.map(|(place, user, era, tool)| (place, client(&mut world, user, era), tool)).into();
        Self { world, laptop, attacker, victims }
    }

    /// Calls that go on for long.
    fn attack(&mut self, attack: Attack) -> Vec<ExchangeId> {
        let Self { world, attacker, .. } = self;
        match attack {
            Attack::Calls => {
                (0..1_500).map(|n| attacker.call(world, "laptop__tools__silent", &json!({"n": n}))).collect()
            }
            Attack::Sessions => {
                let mut sessions: Vec<_> = (0..30).map(|_| attacker.clone()).collect();
                sessions.iter_mut().for_each(|session| drop(session.initialize(world)));
                let calls = (0..40).flat_map(|_| 0..sessions.len()).collect::<Vec<_>>();
                calls.into_iter().map(|at| sessions[at].call(world, "laptop__tools__silent", &json!({}))).collect()
            }
            Attack::Huge => {
                let huge = json!({"bytes": 16 * MIB});
                (0..3).map(|_| attacker.call(world, "laptop__tools__blob", &huge)).collect()
            }
            Attack::Talk => {
                let talk = |n: u32| json!({"name": "laptop__tools__progress", "arguments": {"steps": 3_000, "ms": 1}, "_meta": {"progressToken": n}});
                (0..5).map(|n| attacker.request(world, "tools/call", &talk(n))).collect()
            }
            Attack::Unread => {
                let large = json!({"bytes": 4 * MIB});
                let calls: Vec<_> = (0..10).map(|_| attacker.call(world, "laptop__tools__blob", &large)).collect();
                calls.iter().for_each(|call| world.set_reading(*call, false));
                calls
            }
        }
    }
}

fn client(world: &mut World, user: &str, era: Era) -> Client {
    let token = world.mint(user, Role::Client);
    if era == Era::Modern {
        return Client::modern(&token);
    }
    let mut client = Client::new(&token);
    client.initialize(world);
    client
}

fn open(world: &World, calls: &[ExchangeId]) -> usize {
    calls.iter().filter(|call| world.exchange(**call).outcome.is_none()).count()
}

/// How long a call took.
fn timed(world: &mut World, client: &mut Client, tool: &str) -> u64 {
    let start = world.micros();
    let answer = client.call_now(world, tool, &json!({"n": 7}));
    assert_eq!(answer["result"]["structuredContent"], json!({"n": 7}), "{answer}");
    world.micros() - start
}

#[test]
fn whatever_one_client_does_others_are_answered_first() {
    for attack in ATTACKS {
        let mut stage = Stage::new(1);
        let mut victims = std::mem::take(&mut stage.victims);
        let alone: Vec<u64> =
            victims.iter_mut().map(|(_, client, tool)| timed(&mut stage.world, client, tool)).collect();
        let calls = stage.attack(attack);
        stage.world.run(Duration::from_millis(100));
        for ((place, client, tool), alone) in victims.iter_mut().zip(alone) {
            let beside = timed(&mut stage.world, client, tool);
            assert!(open(&stage.world, &calls) > 0, "{attack:?}, {place}: the attack still goes on");
            assert!(beside <= alone * 4, "{attack:?}, {place}: {beside} µs beside it, {alone} µs alone");
        }
    }
}

#[test]
fn flood_of_calls_is_cut_at_a_share_and_each_call_is_answered_once() {
    for attack in [Attack::Calls, Attack::Sessions] {
        let mut stage = Stage::new(2);
        let calls = stage.attack(attack);
        stage.world.run(SECOND);
        let under_way = open(&stage.world, &calls);
        assert!((1..limits::MAX_SERVER_CALLS).contains(&under_way), "{attack:?}: {under_way} are under way");
        let is_refused = |call: &ExchangeId| {
            let answers = stage.world.exchange(*call).answers();
            answers.len() == 1 && answers[0]["error"]["message"].as_str().is_some_and(|text| text.contains("too many"))
        };
        let ended: Vec<_> = calls.iter().filter(|call| stage.world.exchange(**call).outcome.is_some()).collect();
        assert!(ended.iter().all(|call| is_refused(call)), "{attack:?}: the others hear why");
        let heard = stage.world.look(stage.laptop).scripts["tools"].calls("silent");
        assert_eq!(heard, under_way, "{attack:?}: nothing of what was refused got to the server");
    }
}

#[test]
fn client_that_does_not_read_costs_its_own_calls_alone() {
    let mut stage = Stage::new(3);
    let calls = stage.attack(Attack::Unread);
    let mut victims = std::mem::take(&mut stage.victims);
    stage.world.run(limits::STALL_TIMEOUT + 5 * SECOND);
    for call in &calls {
        stage.world.set_reading(*call, true);
    }
    stage.world.run(SECOND);
    assert_eq!(open(&stage.world, &calls), 0, "its calls were given up");
    for (_, client, tool) in &mut victims {
        timed(&mut stage.world, client, tool);
    }
}

#[test]
fn server_that_tells_without_end_drowns_no_other_servers_word() {
    let mut stage = Stage::new(4);
    let stream = stage.attacker.listen(&mut stage.world);
    stage.world.run(SECOND);
    let log = |of: &str, n: usize| {
        let data = json!({"of": of, "n": n, "x": "x".repeat(16 * 1024)});
        json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": data}})
    };
    // All at once: more than is under way, and more than waits.
    for n in 0..10 * limits::MAX_NOTICES {
        stage.world.server_says(stage.laptop, "tools", &log("tools", n));
        if n % limits::MAX_NOTICES == 0 {
            stage.world.server_says(stage.laptop, "beside", &log("beside", n));
        }
    }
    stage.world.run(SECOND);
    let heard = stage.world.exchange(stream).messages();
    let of = |server: &str| heard.iter().filter(|message| message["params"]["data"]["of"] == server).count();
    assert_eq!(of("beside"), 10);
    assert!(of("tools") < 5 * limits::MAX_NOTICES, "{} of tools: the flood has to be one", of("tools"));
}

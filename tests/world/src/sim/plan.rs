//! Who is there and what is done to them, as data.

use serde::{Deserialize, Serialize};
use tunnel_core::entropy::Seeded;

use crate::sabotage::Sabotage;

/// A run: the same plan gives the same trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What the machines and the world itself draw from.
    pub seed: u64,
    /// Who is there.
    pub setup: Setup,
    /// What happens, one after the other.
    pub steps: Vec<Step>,
}

/// Who is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Whether tunnels have real WebSocket frames on a pipe of bytes.
    pub framing: bool,
    /// One way between relay and agents, in milliseconds.
    pub latency_ms: u32,
    /// How much faster the relay's clocks run, in millionths.
    pub relay_ppm: i32,
    /// Whether people sign in at a provider.
    #[serde(default)]
    pub provider: bool,
    /// A lie that the world tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sabotage: Option<Sabotage>,
    /// Agents.
    pub agents: Vec<AgentPlan>,
    /// Clients.
    pub clients: Vec<ClientPlan>,
}

/// An agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentPlan {
    /// Whose: the first or the second user.
    pub second_user: bool,
    /// Whether it speaks dialect V1.
    pub old: bool,
    /// How much faster its clocks run, in millionths.
    pub ppm: i32,
    /// Its servers.
    pub servers: Vec<ServerPlan>,
}

/// A local server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerPlan {
    /// 0: legacy, 1: modern, 2: both.
    pub era: u8,
    /// See [`StartKind`](super::faults).
    pub start: u8,
    /// Tools on a page of its list; 0: all.
    pub page: u8,
    /// Started when it is needed, and stopped when it is not.
    pub lazy: bool,
    /// Each session has its own.
    pub isolated: bool,
    /// It is reached over HTTP.
    #[serde(default)]
    pub web: bool,
    /// It has prompts, resources and templates too.
    #[serde(default)]
    pub library: bool,
    /// What its device lets be called: 0 everything, 1 all but `blob`, 2 what a person approved once, 3 each time.
    #[serde(default)]
    pub policy: u8,
}

/// A client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientPlan {
    /// Whose.
    pub second_user: bool,
    /// 2026-07-28 rather than what came before.
    pub modern: bool,
    /// For how long its token lives, in seconds; 0: for a month.
    pub token_secs: u32,
    /// How old it is, unless it is modern: 0: 2025-11-25, 1: 2025-06-18, 2: 2025-03-26.
    #[serde(default)]
    pub age: u8,
}

/// Something that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// How long before it, in milliseconds.
    pub wait_ms: u32,
    /// What.
    pub act: Act,
}

/// What is done. Numbers that name somebody are taken modulo how many there are, so that any plan can be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// A client calls a tool. `size`: milliseconds, bytes or steps, as the tool has it.
    Call { client: u8, agent: u8, server: u8, tool: Tool, size: u32 },
    /// A client calls a tool of the other user's.
    Trespass { client: u8, agent: u8, server: u8 },
    /// A client of 2025-03-26 sends a batch: 0 `echo`, 1 `wait`, 2 `progress`, 3 a ping, 4 the end of the first one, 5 what
    /// is no request.
    Batch { client: u8, agent: u8, server: u8, items: Vec<u8> },
    /// A client calls a tool that takes its time, loses the connection after `ms`, and comes back `back_ms` later. `how`: 0
    /// `progress`, 1 `wait`, 2 in a batch, 3 its server's connections break too, 4 the relay dies meanwhile.
    Stray { client: u8, agent: u8, server: u8, how: u8, ms: u32, back_ms: u32 },
    /// A client watches a resource, or does not any more.
    Watch { client: u8, agent: u8, server: u8, on: bool },
    /// A server says that its resource is another now.
    Update { agent: u8, server: u8 },
    /// A person decides about the calls that wait for that on a device.
    Decide { agent: u8, yes: bool, always: bool },
    /// A client lists tools.
    List { client: u8 },
    /// A client asks the relay's `status`.
    Status { client: u8 },
    /// A client has the relay restart a server.
    Restart { client: u8, agent: u8, server: u8 },
    /// A client opens its stream of notifications.
    Listen { client: u8 },
    /// A client ends its session and begins another.
    NewSession { client: u8 },
    /// The call of that number among those that are open is cancelled as its era does.
    Cancel { call: u8 },
    /// Its client goes away.
    HangUp { call: u8 },
    /// A legacy client whose call was cut off, or that went away, takes its stream up again.
    ComeBack { which: u8 },
    /// Its client does not take what comes, for so long.
    StopReading { call: u8, ms: u32 },
    /// The relay is killed and comes back after a while; with it goes its disk, if `lose`.
    KillRelay { down_ms: u32, lose: bool },
    /// The relay stops in good order and comes back after a while.
    StopRelay { down_ms: u32 },
    /// The relay's disk: 0 is slow (a write takes up to `most_ms`, or 400), 1 full, 2 broken.
    RelayDisk {
        health: u8,
        ms: u32,
        #[serde(default)]
        most_ms: u32,
    },
    /// The relay's wall clock is set.
    RelayClock { step_ms: i32 },
    /// An agent is killed and comes back after a while; with it goes what it kept, if `lose`.
    KillAgent { agent: u8, down_ms: u32, lose: bool },
    /// A second process of the same device starts.
    Twin { agent: u8 },
    /// Another device of the same name is there for so long.
    Thief { agent: u8, ms: u32 },
    /// A laptop sleeps.
    Suspend { agent: u8, ms: u32 },
    /// An agent's wall clock is set.
    AgentClock { agent: u8, step_ms: i32 },
    /// Its tunnel is half open from now on: 0 both ways, 1 toward the relay, 2 toward the agent.
    Silence {
        agent: u8,
        #[serde(default)]
        ways: u8,
    },
    /// Its tunnel breaks.
    Reset { agent: u8 },
    /// Nothing gets through, in the directions of the two bits.
    Partition { agent: u8, ways: u8, ms: u32 },
    /// Its network is slow.
    Slow { agent: u8, latency_ms: u32, bandwidth: u32, ms: u32 },
    /// SIGHUP.
    Nudge { agent: u8 },
    /// Its addresses changed.
    Network { agent: u8 },
    /// Its disk: 0 neither keeps nor gives anything, 1 is full, 2 is slow.
    AgentDisk {
        agent: u8,
        ms: u32,
        #[serde(default)]
        health: u8,
    },
    /// Between a client and the relay: 0 all its connections break, 1 nothing gets through for so long, 2 what the relay
    /// says comes late for so long.
    ClientNet { client: u8, how: u8, ms: u32 },
    /// A client asks for more than is good: 0 many calls at once, 1 a large answer that it does not read, 2 a flood of
    /// progress that it does not read.
    Crowd { client: u8, agent: u8, server: u8, how: u8, count: u16 },
    /// All clients of a device's user call the same tool there, and its person lets one of them pass for good.
    Rivals { agent: u8 },
    /// The connections of one of its servers over HTTP break.
    Cut { agent: u8, server: u8 },
    /// One of its servers dies.
    Die { agent: u8, server: u8 },
    /// One of its servers prints lines: 0 garbage, 1 log messages, 2 answers to nobody, 3 a line without end.
    Print { agent: u8, server: u8, kind: u8, lines: u16 },
    /// One of its servers does not answer, or does not read, for so long.
    Hang { agent: u8, server: u8, deaf: bool, ms: u32 },
    /// One of its servers has another tool, and says so.
    NewTool { agent: u8, server: u8 },
    /// One of its servers starts differently from now on, for so long.
    Spoil { agent: u8, server: u8, start: u8, ms: u32 },
    /// Somebody signs in with a browser, at a provider.
    SignIn { second_user: bool },
    /// A grant of a sign-in is used, refreshed, refreshed with its oldest or last token from before, given up, or its code
    /// used again.
    Grant { which: u8, how: u8 },
    /// The provider misbehaves for a while.
    Mood { mood: u8, ms: u32 },
    /// The provider has a new key, and still shows the old one, or does not.
    Rotate { keep: bool },
    /// The operator revokes a client's or an agent's token, and makes another after a while.
    Revoke { agent: bool, who: u8, ms: u32 },
}

/// A tool of every script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tool {
    /// Answers at once.
    Echo,
    /// Answers after a while.
    Wait,
    /// Answers with much.
    Blob,
    /// Says how it gets on.
    Progress,
    /// Says so often, and with many words.
    Flood,
    /// Never answers.
    Silent,
    /// The process ends.
    Die,
    /// Answers with a line over the cap.
    Huge,
    /// Asks the client something.
    Ask,
    /// No tool: a resource that fits a template.
    Read,
    /// No tool: a prompt.
    Prompt,
}

/// Where numbers come from: a seed, or bytes that somebody else has drawn.
pub(super) enum Dice<'a> {
    Seeded(Seeded),
    Bytes(&'a [u8]),
}

impl Dice<'_> {
    /// Evenly from `0..most`.
    fn below(&mut self, most: u32) -> u32 {
        let drawn = match self {
            Self::Seeded(seeded) => seeded.next_u64() >> 16,
            Self::Bytes(bytes) => {
                let (head, rest) = bytes.split_at(bytes.len().min(if most > 256 { 4 } else { 1 }));
                *bytes = rest;
                head.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
            }
        };
        u32::try_from(drawn % u64::from(most.max(1))).expect("it is below a u32")
    }

    fn small(&mut self) -> u8 {
        u8::try_from(self.below(256)).expect("it is below 256")
    }

    /// Once in `n`.
    fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }

    /// Mostly small, sometimes up to `most`.
    fn skewed(&mut self, most: u32) -> u32 {
        let most = match self.below(4) {
            0 => most / 100,
            1 | 2 => most / 10,
            _ => most,
        };
        self.below(most.max(2))
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Bytes([]))
    }
}

/// How many chances there are for what clients do, among those of the faults.
const USES: u32 = 44;

/// Kinds of acts, each with how often a plan may have it in the mean; each plan draws a strength of its own for each.
const KINDS: usize = 14;

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let mut dice = Dice::Seeded(Seeded::new(seed.wrapping_mul(0x9e37_79b9).wrapping_add(77)));
        let steps = 10 + dice.skewed(90);
        Self::draw(seed, steps, &mut dice)
    }

    /// The plan that bytes make: at most as many steps as they last for.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self::draw(1, 200, &mut Dice::Bytes(bytes))
    }

    fn draw(seed: u64, steps: u32, dice: &mut Dice<'_>) -> Self {
        let setup = Setup::draw(dice);
        // A fault of a kind happens often, seldom, or not at all.
        let mut strengths = [0; KINDS];
        let is_calm = dice.one_in(8);
        for strength in &mut strengths {
            *strength = [0, 0, 1, 3, 8][usize::try_from(dice.below(5)).expect("small")];
        }
        if is_calm {
            strengths = [0; KINDS];
        }
        let pace = [2, 20, 200, 2_000, 20_000][usize::try_from(dice.below(5)).expect("small")];
        let mut plan = Self { seed, setup, steps: Vec::new() };
        for _ in 0..steps {
            if dice.is_empty() {
                break;
            }
            let wait_ms = if dice.one_in(20) { dice.skewed(90_000) } else { dice.below(pace) };
            let act = Act::draw(&strengths, plan.setup.provider, dice);
            plan.steps.push(Step { wait_ms, act });
        }
        plan
    }
}

impl Setup {
    fn draw(dice: &mut Dice<'_>) -> Self {
        let two_users = dice.one_in(2);
        let some = |dice: &mut Dice<'_>, most| 1 + dice.below(most);
        let server = |dice: &mut Dice<'_>| ServerPlan {
            era: u8::try_from(dice.below(3)).expect("small"),
            start: if dice.one_in(6) { dice.small() % 5 } else { 0 },
            page: if dice.one_in(4) { 1 + dice.small() % 4 } else { 0 },
            lazy: dice.one_in(6),
            isolated: dice.one_in(6),
            web: dice.one_in(3),
            library: dice.one_in(2),
            policy: if dice.one_in(4) { 1 + dice.small() % 3 } else { 0 },
        };
        let ppm = |dice: &mut Dice<'_>| {
            if dice.one_in(4) { i32::try_from(dice.below(2_000)).expect("small") - 1_000 } else { 0 }
        };
        let agents = (0..some(dice, 3))
            .map(|index| AgentPlan {
                second_user: two_users && index % 2 == 1,
                old: dice.one_in(6),
                ppm: ppm(dice),
                servers: (0..some(dice, 3)).map(|_| server(dice)).collect(),
            })
            .collect();
        let clients = (0..some(dice, 4))
            .map(|index| ClientPlan {
                second_user: two_users && index % 2 == 1,
                modern: dice.one_in(2),
                token_secs: if dice.one_in(8) { 30 + dice.skewed(7_200) } else { 0 },
                age: u8::try_from(dice.below(3)).expect("small"),
            })
            .collect();
        Self {
            framing: dice.one_in(3),
            latency_ms: dice.skewed(300),
            relay_ppm: ppm(dice),
            provider: dice.one_in(2),
            sabotage: None,
            agents,
            clients,
        }
    }
}

impl Act {
    fn draw(strengths: &[u32; KINDS], has_provider: bool, dice: &mut Dice<'_>) -> Self {
        if has_provider && dice.one_in(5) {
            let (which, how) = (dice.small(), dice.small());
            return if dice.one_in(4) {
                Self::SignIn { second_user: how % 2 == 1 }
            } else {
                Self::Grant { which, how }
            };
        }
        let faults: u32 = strengths.iter().sum();
        let mut drawn = dice.below(USES + faults);
        if drawn < USES {
            return Self::draw_use(drawn, dice);
        }
        drawn -= USES;
        let mut kind = 0;
        while drawn >= strengths[kind] {
            drawn -= strengths[kind];
            kind += 1;
        }
        Self::draw_fault(kind, dice)
    }

    /// What clients do all the time.
    fn draw_use(which: u32, dice: &mut Dice<'_>) -> Self {
        let (client, agent, server) = (dice.small(), dice.small(), dice.small());
        match which {
            0..=14 => {
                let (tool, most) = match dice.below(24) {
                    0..=5 => (Tool::Echo, 2),
                    6..=9 => (Tool::Wait, 60_000),
                    10..=11 => (Tool::Blob, 1_500_000),
                    12..=13 => (Tool::Progress, 600),
                    14 => (Tool::Silent, 2),
                    15 => (Tool::Die, 2),
                    16 => (Tool::Huge, 2),
                    17 | 18 => (Tool::Read, 2),
                    19 | 20 => (Tool::Prompt, 2),
                    _ => (Tool::Ask, 2),
                };
                Self::Call { client, agent, server, tool, size: dice.skewed(most) }
            }
            15 => Self::Trespass { client, agent, server },
            16 | 17 => Self::List { client },
            18 => Self::Status { client },
            19 => Self::Listen { client },
            20 => Self::NewSession { client },
            21 => Self::Cancel { call: client },
            22 => Self::HangUp { call: client },
            29 => Self::ComeBack { which: client },
            23..=25 => Self::Rivals { agent },
            26 if dice.one_in(2) => {
                let count = u16::try_from(100 + dice.skewed(600)).expect("small");
                Self::Crowd { client, agent, server, how: dice.small() % 3, count }
            }
            26..=28 => Self::Call { client, agent, server, tool: Tool::Ask, size: 0 },
            30 | 31 => {
                let items = 1 + dice.below(5);
                Self::Batch { client, agent, server, items: (0..items).map(|_| dice.small() % 6).collect() }
            }
            32 | 33 => Self::Watch { client, agent, server, on: !dice.one_in(4) },
            34 => Self::Update { agent, server },
            35 => Self::Decide { agent, yes: !dice.one_in(4), always: dice.one_in(4) },
            36 => Self::ComeBack { which: client },
            37..=39 => {
                let how = [0, 1, 2, 3, 3, 3, 4][usize::try_from(dice.below(7)).expect("small")];
                let (ms, back_ms) = (dice.skewed(20_000), dice.skewed(120_000));
                Self::Stray { client, agent, server, how, ms, back_ms }
            }
            40 => Self::Decide { agent, yes: dice.one_in(2), always: false },
            41 | 42 => Self::Watch { client, agent, server, on: true },
            _ => Self::StopReading { call: client, ms: dice.skewed(100_000) },
        }
    }

    fn draw_fault(kind: usize, dice: &mut Dice<'_>) -> Self {
        let (agent, server) = (dice.small(), dice.small());
        let signed = |dice: &mut Dice<'_>| i32::try_from(dice.skewed(40_000_000)).expect("small") - 10_000_000;
        match kind {
            0 => {
                // In a long one agents come to wait their longest.
                let down_ms = if dice.one_in(4) { dice.skewed(600_000) } else { dice.skewed(60_000) };
                match dice.below(8) {
                    0 => Self::KillRelay { down_ms, lose: true },
                    1 | 2 => Self::StopRelay { down_ms },
                    _ => Self::KillRelay { down_ms, lose: false },
                }
            }
            1 => {
                let (health, ms, most_ms) = (dice.small() % 3, dice.skewed(60_000), 1 + dice.skewed(3_000));
                Self::RelayDisk { health, ms, most_ms }
            }
            2 if dice.one_in(2) => Self::RelayClock { step_ms: signed(dice) },
            2 => Self::AgentClock { agent, step_ms: signed(dice) },
            3 => match dice.below(6) {
                0 => Self::Twin { agent },
                1 => Self::Thief { agent, ms: dice.skewed(120_000) },
                _ => Self::KillAgent { agent, down_ms: dice.skewed(60_000), lose: dice.one_in(3) },
            },
            4 => Self::Suspend { agent, ms: dice.skewed(3_600_000) },
            5 if dice.one_in(2) => Self::Silence { agent, ways: dice.small() % 3 },
            5 => Self::Reset { agent },
            6 => Self::Partition { agent, ways: dice.small(), ms: dice.skewed(120_000) },
            7 => Self::Slow {
                agent,
                latency_ms: dice.skewed(3_000),
                bandwidth: dice.skewed(20_000),
                ms: dice.skewed(120_000),
            },
            8 if dice.one_in(4) => Self::Nudge { agent },
            8 if dice.one_in(4) => Self::Network { agent },
            8 => Self::AgentDisk { agent, ms: dice.skewed(60_000), health: dice.small() % 3 },
            9 if dice.one_in(3) => Self::Restart { client: dice.small(), agent, server },
            9 if dice.one_in(2) => Self::Cut { agent, server },
            9 => Self::Die { agent, server },
            10 => match dice.below(4) {
                0 => Self::NewTool { agent, server },
                1 => Self::Spoil { agent, server, start: dice.small(), ms: dice.skewed(300_000) },
                2 => Self::Hang { agent, server, deaf: dice.one_in(2), ms: dice.skewed(120_000) },
                _ => {
                    let lines = u16::try_from(dice.skewed(3_000)).expect("small");
                    Self::Print { agent, server, kind: dice.small() % 4, lines }
                }
            },
            11 if dice.one_in(3) => Self::Rotate { keep: dice.one_in(2) },
            13 => Self::ClientNet { client: agent, how: dice.small() % 3, ms: dice.skewed(120_000) },
            11 => Self::Mood { mood: dice.small(), ms: dice.skewed(60_000) },
            _ => Self::Revoke { agent: dice.one_in(2), who: agent, ms: dice.skewed(30_000) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_is_read_as_it_was_written() {
        for seed in 0..200 {
            let plan = Plan::of_seed(seed);
            let text = serde_json::to_string(&plan).expect("it is plain data");
            assert_eq!(serde_json::from_str::<Plan>(&text).expect("it was written a moment ago"), plan);
        }
    }

    #[test]
    fn any_bytes_are_a_plan() {
        for length in 0..600 {
            let mut seeded = Seeded::new(length);
            let bytes: Vec<u8> = (0..length).map(|_| seeded.next_u64().to_le_bytes()[0]).collect();
            assert!(Plan::of_bytes(&bytes).steps.len() <= 200);
        }
    }
}

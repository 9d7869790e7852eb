//! The smallest plan that fails in the same way.

use super::plan::{Act, Plan};
use super::run::run;

/// Deletes steps and people, and halves what is left, for as long as the plan goes on to fail as it did; tries at most
/// `most` plans. Returns the smallest that was found.
#[must_use]
pub fn shrink(plan: &Plan, most: usize) -> Plan {
    let Some(failure) = run(plan, false).failure else { return plan.clone() };
    let mut shrinker = Shrinker { best: plan.clone(), kind: kind_of(&failure), left: most };
    loop {
        let before = shrinker.best.clone();
        shrinker.delete_steps();
        shrinker.delete_people();
        shrinker.simplify_setup();
        shrinker.halve();
        if shrinker.best == before || shrinker.left == 0 {
            return shrinker.best;
        }
    }
}

struct Shrinker {
    best: Plan,
    kind: String,
    left: usize,
}

impl Shrinker {
    /// Takes `plan` for the best if it fails in the same way.
    fn attempt(&mut self, plan: Plan) -> bool {
        if self.left == 0 || plan == self.best {
            return false;
        }
        self.left -= 1;
        let fails = run(&plan, false).failure.is_some_and(|failure| kind_of(&failure) == self.kind);
        if fails {
            self.best = plan;
        }
        fails
    }

    fn delete_steps(&mut self) {
        let mut size = self.best.steps.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < self.best.steps.len() {
                let mut plan = self.best.clone();
                let end = (at + size).min(plan.steps.len());
                let waits: u32 = plan.steps.drain(at..end).map(|step| step.wait_ms).fold(0, u32::saturating_add);
                let mut at_once = plan.clone();
                if let Some(next) = plan.steps.get_mut(at) {
                    next.wait_ms = next.wait_ms.saturating_add(waits);
                }
                at_once.steps.truncate(plan.steps.len());
                if !self.attempt(at_once) && !self.attempt(plan) {
                    at += size;
                }
            }
            if size == 1 {
                return;
            }
            size = size.div_ceil(2);
        }
    }

    fn delete_people(&mut self) {
        for index in (0..self.best.setup.clients.len()).rev() {
            let mut plan = self.best.clone();
            plan.setup.clients.remove(index);
            self.attempt(plan);
        }
        for index in (0..self.best.setup.agents.len()).rev() {
            let mut plan = self.best.clone();
            plan.setup.agents.remove(index);
            self.attempt(plan);
        }
        for agent in 0..self.best.setup.agents.len() {
            for server in (0..self.best.setup.agents[agent].servers.len()).rev() {
                let mut plan = self.best.clone();
                plan.setup.agents[agent].servers.remove(server);
                self.attempt(plan);
            }
        }
    }

    fn simplify_setup(&mut self) {
        let mut simpler = |change: &dyn Fn(&mut Plan)| {
            let mut plan = self.best.clone();
            change(&mut plan);
            self.attempt(plan);
        };
        simpler(&|plan| plan.setup.framing = false);
        simpler(&|plan| plan.setup.provider = false);
        simpler(&|plan| plan.setup.latency_ms = 0);
        simpler(&|plan| plan.setup.relay_ppm = 0);
        simpler(&|plan| plan.setup.agents.iter_mut().for_each(|agent| agent.ppm = 0));
        simpler(&|plan| plan.setup.agents.iter_mut().for_each(|agent| agent.old = false));
        let servers = |plan: &mut Plan, change: &dyn Fn(&mut super::plan::ServerPlan)| {
            plan.setup.agents.iter_mut().flat_map(|agent| &mut agent.servers).for_each(change);
        };
        simpler(&|plan| servers(plan, &|server| server.start = 0));
        simpler(&|plan| servers(plan, &|server| server.era = 0));
        simpler(&|plan| servers(plan, &|server| server.page = 0));
        simpler(&|plan| servers(plan, &|server| server.lazy = false));
        simpler(&|plan| servers(plan, &|server| server.isolated = false));
        simpler(&|plan| servers(plan, &|server| server.web = false));
        simpler(&|plan| servers(plan, &|server| server.library = false));
        simpler(&|plan| servers(plan, &|server| server.policy = 0));
        simpler(&|plan| plan.setup.clients.iter_mut().for_each(|client| client.age = 0));
    }

    fn halve(&mut self) {
        for index in 0..self.best.steps.len() {
            while self.best.steps[index].wait_ms > 0 {
                let mut plan = self.best.clone();
                plan.steps[index].wait_ms /= 2;
                if !self.attempt(plan) {
                    break;
                }
            }
            loop {
                let mut plan = self.best.clone();
                if !weaken(&mut plan.steps[index].act) || !self.attempt(plan) {
                    break;
                }
            }
        }
    }
}

/// Half as strong; `false`: that cannot be.
fn weaken(act: &mut Act) -> bool {
    let strength = match act {
        Act::Call { size, .. } => size,
        Act::StopReading { ms, .. }
        | Act::Stray { ms, .. }
        | Act::RelayDisk { ms, .. }
        | Act::Thief { ms, .. }
        | Act::Suspend { ms, .. }
        | Act::Partition { ms, .. }
        | Act::Slow { ms, .. }
        | Act::AgentDisk { ms, .. }
        | Act::Hang { ms, .. }
        | Act::Spoil { ms, .. }
        | Act::Mood { ms, .. }
        | Act::Revoke { ms, .. } => ms,
        Act::KillRelay { down_ms, .. } | Act::StopRelay { down_ms } | Act::KillAgent { down_ms, .. } => down_ms,
        Act::RelayClock { step_ms } | Act::AgentClock { step_ms, .. } => {
            *step_ms /= 2;
            return *step_ms != 0;
        }
        Act::Batch { items, .. } => {
            items.pop();
            return !items.is_empty();
        }
        Act::Print { lines, .. } => {
            *lines /= 2;
            return *lines != 0;
        }
        _ => return false,
    };
    *strength /= 2;
    *strength != 0
}

/// The words of a failure without what differs from run to run: up to the first digit, and where it was.
fn kind_of(failure: &str) -> String {
    let words: String = failure.chars().take_while(|c| !c.is_ascii_digit()).take(60).collect();
    let place = failure.rfind('(').map_or("", |at| &failure[at..]);
    format!("{words}{place}")
}

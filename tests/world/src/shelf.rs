//! An agent's disk: what it keeps of its servers, of sessions and of pinned tools. It can be slow, full or broken.

use std::time::Duration;

use bytes::Bytes;
use tunnel_core::agent::machine::{Event, Unsaved};

use crate::disk::Health;
use crate::link::micros;
use crate::world::{AgentKey, Delivery, World};

/// Something that an agent writes.
#[derive(Debug)]
pub(crate) enum Kept {
    Catalog { server: String, catalog: Bytes },
    Wishes(Bytes),
    Pins { key: String, base: Option<Bytes>, content: Bytes },
}

/// Agents' disks: what is asked of one is done in its order.
impl World {
    /// When the next thing that an agent asks of its disk is done; with a slow one that is drawn each time.
    fn disk_is_done(&mut self, key: AgentKey, least: Duration) -> u64 {
        let span = match self.look(key).disk {
            Health::Slow(most) => self.dice.next_u64() % micros(most).max(1),
            Health::Good | Health::Full | Health::Broken => micros(least),
        };
        let at = self.clock + span;
        let until = &mut self.look(key).disk_until;
        *until = at.max(*until);
        *until
    }

    /// An agent writes.
    pub(crate) fn keeps(&mut self, key: AgentKey, kept: Kept) {
        let at = self.disk_is_done(key, Duration::ZERO);
        if at == self.clock {
            return self.kept(key, kept);
        }
        self.trace.cover("an agent's disk was slow");
        self.schedule_at(at, Delivery::Kept(key, kept));
    }

    /// A write ends.
    pub(crate) fn kept(&mut self, key: AgentKey, kept: Kept) {
        let Some(agent) = self.agents.get_mut(&key) else { return };
        let takes = matches!(agent.disk, Health::Good | Health::Slow(_));
        if !takes {
            self.trace.cover("an agent's write failed");
        }
        match kept {
            Kept::Catalog { server, catalog } if takes => drop(agent.kept.insert(server, catalog)),
            Kept::Catalog { .. } => {}
            Kept::Wishes(json) => {
                agent.lacks_wishes = !takes;
                if takes {
                    agent.wishes = Some(json);
                }
            }
            Kept::Pins { key: pins, base, content } => {
                let before = agent.pins.get(&pins);
                let result = if !takes {
                    Err(Unsaved::Failed("no space left on device".to_owned()))
                } else if before == base.as_ref() {
                    agent.pins.insert(pins.clone(), content);
                    Ok(())
                } else {
                    Err(Unsaved::Changed(before.cloned()))
                };
                self.schedule(Duration::from_millis(1), Delivery::Agent(key, Event::PinsSaved { key: pins, result }));
            }
        }
    }

    /// An agent is answered what it read.
    pub(crate) fn was_read(&mut self, key: AgentKey, event: Event) {
        let at = self.disk_is_done(key, Duration::from_millis(1));
        self.schedule_at(at, Delivery::Agent(key, event));
    }
}

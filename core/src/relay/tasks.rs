//! Tasks on `/mcp`: whose each is (2025-11-25, Tasks; extension `io.modelcontextprotocol/tasks`).
//!
//! Their ids pass as they are, in every message: one that was changed would have to be changed in results of any size.
//! The owner is known from the answer that made the task. What is not known, after a restart of the relay for one, is
//! found by asking the servers that have tasks, which costs nothing to remember.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::id::ConnId;
use crate::limits;
use crate::rpc::{self, object};

/// A task's server, as long as its device is connected.
pub(super) type Owner = (ConnId, Arc<str>);

/// The owners of tasks that were seen.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    /// `None`: several servers have a task of that id.
    owners: BTreeMap<String, Option<Owner>>,
    /// The ids, the oldest first.
    order: VecDeque<String>,
}

impl Tasks {
    /// A server says that it has a task. Beyond [`limits::MAX_TASKS`] the oldest is forgotten.
    pub(super) fn learn(&mut self, id: &str, owner: Owner) {
        if id.len() > limits::MAX_ID {
            return;
        }
        match self.owners.get_mut(id) {
            Some(known) if known.as_ref() == Some(&owner) => {}
            Some(known) => *known = None,
            None => {
                if self.order.len() >= limits::MAX_TASKS
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.owners.remove(&oldest);
                }
                self.owners.insert(id.to_string(), Some(owner));
                self.order.push_back(id.to_string());
            }
        }
    }

    /// Whose a task is, as far as is known.
    pub(super) fn owner(&self, id: &str) -> Option<&Owner> {
        self.owners.get(id)?.as_ref()
    }

    /// A tunnel is over: its device has another number when it comes again.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.owners.retain(|_, owner| owner.as_ref().is_some_and(|(on, _)| *on != conn));
        self.order.retain(|id| self.owners.contains_key(id));
    }
}

/// A page of `tasks/list`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// The entries, raw, with their ids.
    pub(super) entries: Vec<(String, Bytes)>,
    /// The raw cursor of the next page.
    pub(super) cursor: Option<Bytes>,
}

/// Reads the result of `tasks/list`; `None` when it is none.
pub(super) fn page(result: &Bytes) -> Option<Page> {
    let page = object::Object::parse(result).ok()?;
    let raw = page.get("tasks")?;
    let entries: Vec<&RawValue> = serde_json::from_slice(&raw).ok()?;
    let entries = entries.into_iter().filter_map(|entry| {
        let entry = raw.slice_ref(entry.get().as_bytes());
        let id = rpc::string(&object::get(&entry, "taskId")?)?.into_owned();
        Some((id, entry))
    });
    let cursor = page.get("nextCursor").filter(|raw| raw.starts_with(b"\""));
    Some(Page { entries: entries.collect(), cursor })
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use proptest::prelude::*;

    use super::*;

    fn owner(conn: u64, server: &str) -> Owner {
        (ConnId(conn), Arc::from(server))
    }

    #[test]
    fn owners_are_known_until_their_tunnel_ends() {
        let mut tasks = Tasks::default();
        tasks.learn("a", owner(1, "x"));
        tasks.learn("a", owner(1, "x"));
        tasks.learn("b", owner(2, "x"));
        assert_eq!(tasks.owner("a"), Some(&owner(1, "x")));
        tasks.forget(ConnId(1));
        assert_eq!((tasks.owner("a"), tasks.owner("b")), (None, Some(&owner(2, "x"))));
    }

    #[test]
    fn id_of_two_servers_is_nobodys() {
        let mut tasks = Tasks::default();
        tasks.learn("a", owner(1, "x"));
        tasks.learn("a", owner(1, "y"));
        tasks.learn("a", owner(1, "x"));
        assert_eq!(tasks.owner("a"), None);
    }

    #[test]
    fn owners_are_bounded() {
        let mut tasks = Tasks::default();
        for n in 0..=limits::MAX_TASKS {
            tasks.learn(&format!("{n}"), owner(1, "x"));
        }
        tasks.learn(&"x".repeat(limits::MAX_ID + 1), owner(1, "x"));
        assert_eq!((tasks.owners.len(), tasks.order.len()), (limits::MAX_TASKS, limits::MAX_TASKS));
        assert_eq!(tasks.owner("0"), None);
    }

    #[test]
    fn id_is_known_that_is_as_long_as_may_be() {
        let mut tasks = Tasks::default();
        let ids = [limits::MAX_ID, limits::MAX_ID + 1, limits::MAX_ID + 2].map(|length| "x".repeat(length));
        ids.iter().for_each(|id| tasks.learn(id, owner(1, "x")));
        assert_eq!(ids.each_ref().map(|id| tasks.owner(id).is_some()), [true, false, false]);
    }

    #[test]
    fn entries_of_a_page_stay_as_they_are() {
        let result = Bytes::from(r#"{"tasks":[ {"taskId":"a", "ttl":1.50},{"status":1},7],"nextCursor":"n\u0041"}"#);
        let Page { entries, cursor } = page(&result).unwrap();
        assert_eq!(entries, [("a".to_string(), Bytes::from(r#"{"taskId":"a", "ttl":1.50}"#))]);
        assert_eq!(cursor, Some(Bytes::from(r#""n\u0041""#)));
        for other in ["", "{}", "[]", r#"{"tasks":{}}"#] {
            assert_eq!(page(&Bytes::from(other)), None, "{other}");
        }
    }

    proptest! {
        /// The model: who was heard of a task, in order, until their tunnel ended.
        #[test]
        fn owner_is_the_only_server_that_was_heard_of_a_task(steps in prop::collection::vec((0..5_u8, 0..3_u64, 0..2_u8), 0..60)) {
            let (mut tasks, mut heard) = (Tasks::default(), Vec::<(u8, Owner)>::new());
            for (id, conn, server) in steps {
                if id == 4 {
                    tasks.forget(ConnId(conn));
                    // A task of several servers is forgotten with the first tunnel that ends: whose it is, was not known.
                    let shared = |id: u8, heard: &[(u8, Owner)]| {
                        let first = heard.iter().find(|(of, _)| *of == id).map(|(_, owner)| owner.clone());
                        heard.iter().any(|(of, owner)| *of == id && Some(owner) != first.as_ref())
                    };
                    let before = heard.clone();
                    heard.retain(|(id, (on, _))| *on != ConnId(conn) && !shared(*id, &before));
                } else {
                    let owner = owner(conn, ["x", "y"][usize::from(server)]);
                    tasks.learn(&format!("{id}"), owner.clone());
                    heard.push((id, owner));
                }
                for id in 0..4_u8 {
                    let owners: Vec<&Owner> = heard.iter().filter(|(of, _)| *of == id).map(|(_, owner)| owner).collect();
                    let only = owners.first().filter(|first| owners.iter().all(|owner| owner == *first)).copied();
                    prop_assert_eq!(tasks.owner(&format!("{id}")), only);
                }
                prop_assert_eq!(tasks.order.len(), tasks.owners.len());
            }
        }
    }
}

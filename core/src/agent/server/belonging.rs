//! Whose it is what a server tells of later: a task that a call made, a page that somebody was asked to visit. A process
//! says so by an id alone, and serves many clients.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};

use bytes::Bytes;

use super::Server;
use crate::agent::bridge::questions;
use crate::agent::caller::Caller;
use crate::agent::cx::RequestId;
use crate::agent::routing;
use crate::limits;
use crate::mcp::{code, key, method, task};
use crate::rpc::{self, object};

/// Of one run, by the server's own ids.
#[derive(Debug, Default)]
pub(super) struct Belongings {
    /// Made by the result of a call (2025-11-25, Tasks).
    tasks: Owned,
    /// Elicitations of the mode `url` (2025-11-25, Client Features, Elicitation, URL Mode).
    pages: Owned,
}

/// Whose something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Whose {
    /// The call in whose course it came up.
    pub(super) call: RequestId,
    /// The key of the client's session; empty: it has none.
    pub(super) session: String,
}

impl Whose {
    fn of(call: RequestId, caller: &Caller) -> Self {
        Self { call, session: caller.session.to_string() }
    }
}

/// The newest ones.
#[derive(Debug, Default)]
struct Owned {
    owners: BTreeMap<String, Whose>,
    /// The ids, the oldest first.
    order: VecDeque<String>,
}

impl Owned {
    fn learn(&mut self, id: &str, whose: Whose) {
        if id.len() > limits::MAX_ID {
            return;
        }
        if self.owners.insert(id.to_string(), whose).is_none() {
            self.order.push_back(id.to_string());
            if self.order.len() > limits::MAX_BELONGINGS
                && let Some(oldest) = self.order.pop_front()
            {
                self.owners.remove(&oldest);
            }
        }
    }
}

impl Belongings {
    /// A client is asked this in the course of a call: it may be a page to visit.
    pub(super) fn learn_page(&mut self, method: &str, params: &Bytes, call: RequestId, caller: &Caller) {
        if let Some(id) = text(params, &["elicitationId"]).filter(|_| method == method::ELICITATION) {
            self.pages.learn(&id, Whose::of(call, caller));
        }
    }

    /// Whose the task or page is that a notification is about, if that is known.
    pub(super) fn whose(&self, method: &str, params: &Bytes) -> Option<&Whose> {
        match method {
            method::ELICITATION_COMPLETE => self.pages.owners.get(&text(params, &["elicitationId"])?),
            method::TASK_STATUS => self.tasks.owners.get(&text(params, &["taskId"])?),
            // 2025-11-25, Tasks, Task Metadata: whatever else is related to one MUST say so.
            _ => self.tasks.owners.get(&text(params, &["_meta", key::RELATED_TASK, "taskId"])?),
        }
    }
}

impl Server {
    /// What a call's answer says of things that will be told of later.
    pub(super) fn learn_whose(&mut self, call: RequestId, caller: &Caller, answer: &Result<Bytes, Bytes>) {
        match answer {
            Ok(result) => {
                if let Some(id) = task::id_in(result) {
                    self.belongings.tasks.learn(&id, Whose::of(call, caller));
                }
            }
            Err(error) if routing::error_code(error) == code::URL_ELICITATION_REQUIRED => {
                for page in questions::pages(error) {
                    self.belongings.learn_page(&page.method, &page.params, call, caller);
                }
            }
            Err(_) => {}
        }
    }
}

fn text(params: &Bytes, path: &[&str]) -> Option<String> {
    rpc::string(&object::get_path(params, path)?).map(|text| text.into_owned())
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn belongings_are_bounded() {
        let whose = |number| Whose { call: RequestId(number), session: String::new() };
        let mut owned = Owned::default();
        for number in 0..=limits::MAX_BELONGINGS as u64 {
            owned.learn(&format!("{number}"), whose(number));
        }
        owned.learn("7", whose(70));
        owned.learn(&"x".repeat(limits::MAX_ID + 1), whose(1));
        assert_eq!((owned.owners.len(), owned.order.len()), (limits::MAX_BELONGINGS, limits::MAX_BELONGINGS));
        assert_eq!((owned.owners.get("0"), owned.owners.get("7")), (None, Some(&whose(70))));
    }
}

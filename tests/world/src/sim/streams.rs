//! What comes on a client's streams comes once, in its order, however often it takes them up again.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What clients were told so far.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The last step of each call, by its marker.
    steps: BTreeMap<String, u64>,
    /// What each client was asked.
    questions: BTreeSet<(usize, String)>,
}

impl Told {
    /// A client has had these messages, and will have no more of that stream.
    pub(super) fn had(&mut self, person: usize, messages: &[Value]) {
        for message in messages {
            match message["method"].as_str() {
                Some("notifications/progress") => self.step(&message["params"]),
                Some(_) if !message["id"].is_null() => {
                    let is_new = self.questions.insert((person, message["id"].to_string()));
                    assert!(is_new, "a client is asked twice: {message}");
                }
                _ => {}
            }
        }
    }

    fn step(&mut self, params: &Value) {
        let (Some(marker), Some(step)) = (params["progressToken"].as_str(), params["progress"].as_u64()) else {
            return;
        };
        let before = self.steps.insert(marker.to_owned(), step);
        assert!(before < Some(step), "a client is told twice how far its call is, after {before:?}: {params}");
    }
}

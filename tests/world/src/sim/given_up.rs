//! Nothing is sent after a cancellation: once an agent heard that a call is given up, the call goes to no server.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::{Value, json};
use tunnel_core::id::{ConnId, StreamId};

use super::oracle::marker_of;
use crate::world::AgentKey;

/// What agents were asked on which stream, and what of it was given up.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    asked: BTreeMap<(AgentKey, ConnId, StreamId), String>,
    dropped: BTreeSet<String>,
}

impl GivenUp {
    /// A call comes to an agent; one that comes back with answers is asked for anew.
    pub(super) fn asked(&mut self, place: (AgentKey, ConnId, StreamId), method: &str, params: &Bytes) {
        let params: Value = serde_json::from_slice(params).unwrap_or_default();
        if let Some(marker) = marker_of(&json!({"method": method, "params": params})) {
            self.dropped.remove(marker);
            self.asked.insert(place, marker.to_owned());
        }
    }

    /// An agent hears that a call was given up; `None`: all of its tunnel's.
    pub(super) fn heard_of(&mut self, agent: AgentKey, conn: ConnId, stream: Option<StreamId>) {
        let is_its = |place: &(AgentKey, ConnId, StreamId)| {
            (place.0, place.1) == (agent, conn) && stream.is_none_or(|stream| stream == place.2)
        };
        let ended = self.asked.extract_if(.., |place, _| is_its(place));
        self.dropped.extend(ended.map(|(_, marker)| marker));
    }

    /// An agent sends something to a server. Of what is nobody's call there is nothing to say.
    pub(super) fn sent(&self, bytes: &[u8]) {
        if self.dropped.is_empty() {
            return;
        }
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let message: Value = serde_json::from_slice(line).unwrap_or_default();
            let is_dropped = marker_of(&message).is_some_and(|marker| self.dropped.contains(marker));
            assert!(!is_dropped, "a call was given up, and is sent to its server: {message}");
        }
    }
}

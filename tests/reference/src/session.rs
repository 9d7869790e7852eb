//! What lasts longer than one request: a legacy session, a process on stdio, or next to nothing for a modern request.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::rpc::{self, Message};
use crate::server::{LEVELS, Server, locked};
use crate::stream::Stream;

/// The client's answer to a question, or its error.
pub(crate) type Answer = Result<Value, Value>;

#[derive(Default)]
pub(crate) struct Session {
    pub(crate) id: String,
    /// The legacy revision that was negotiated.
    pub(crate) version: String,
    /// What the legacy client can do.
    pub(crate) capabilities: Value,
    /// The index of the least level of logs that it wants.
    pub(crate) level: AtomicU64,
    pub(crate) watched: Mutex<BTreeSet<String>>,
    /// What belongs to no request goes here.
    pub(crate) general: Option<Arc<Stream>>,
    /// The streams of requests, to be resumed.
    pub(crate) streams: Mutex<BTreeMap<u64, Arc<Stream>>>,
    questions: Mutex<BTreeMap<u64, oneshot::Sender<Answer>>>,
    running: Mutex<BTreeMap<String, AbortHandle>>,
}

impl Session {
    /// Begun by `initialize` with these `params`; what belongs to no request goes to `general`.
    pub(crate) fn legacy(params: &rpc::Members, general: Arc<Stream>) -> Arc<Self> {
        let wanted = rpc::value(params, "protocolVersion");
        let known = crate::server::LEGACY.iter().find(|version| wanted == **version);
        let level = LEVELS.iter().position(|level| *level == "info").unwrap_or_default() as u64;
        Arc::new(Self {
            id: [(); 2].map(|()| format!("{:016x}", RandomState::new().build_hasher().finish())).concat(),
            version: (*known.unwrap_or(&crate::server::LEGACY[0])).to_owned(),
            capabilities: rpc::value(params, "capabilities"),
            level: level.into(),
            general: Some(general),
            ..Self::default()
        })
    }

    /// A stream for a request, to be resumed.
    pub(crate) fn stream(&self) -> Arc<Stream> {
        let stream = Stream::new();
        locked(&self.streams).insert(stream.number, stream.clone());
        stream
    }

    /// Notes a question: its id, and where the answer will come.
    pub(crate) fn question(&self) -> (u64, oneshot::Receiver<Answer>) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (id, (tell, told)) = (NEXT.fetch_add(1, Ordering::Relaxed), oneshot::channel());
        locked(&self.questions).insert(id, tell);
        (id, told)
    }

    /// A response or a notification of the client.
    pub(crate) fn hear(&self, server: &Server, message: &Message) {
        let read = |raw: &RawValue| serde_json::from_str(raw.get()).unwrap_or_default();
        let params = message.params.as_ref().map(|raw| rpc::members(raw.get())).unwrap_or_default();
        match (message.method.as_deref(), &message.id) {
            (Some("notifications/cancelled"), _) => {
                let running = params.get("requestId").and_then(|id| locked(&self.running).remove(id.get()));
                running.inspect(AbortHandle::abort);
            }
            (Some(method), _) => server.saw(method),
            (None, Some(id)) => {
                let tell = id.get().parse().ok().and_then(|id| locked(&self.questions).remove(&id));
                let answer = match (&message.result, &message.error) {
                    (Some(result), _) => Ok(read(result)),
                    (None, error) => Err(error.as_deref().map(read).unwrap_or_default()),
                };
                match tell {
                    // It may have been given up meanwhile.
                    Some(tell) => drop(tell.send(answer)),
                    None => server.saw("an answer to no question"),
                }
            }
            (None, None) => server.saw("nonsense"),
        }
    }

    pub(crate) fn started(&self, id: &RawValue, running: AbortHandle) {
        locked(&self.running).insert(id.get().to_owned(), running);
    }

    pub(crate) fn ended(&self, id: &RawValue) {
        locked(&self.running).remove(id.get());
    }
}

//! One request under way, and how its handler reaches the client: notifications, and questions in either era.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::rpc::{self, Failure, Members};
use crate::server::{LEVELS, Server, locked};
use crate::session::Session;
use crate::stream::Stream;
use crate::tasks::Task;

/// The raw result, or why there is none (yet).
pub(crate) type Outcome = Result<String, Stop>;

pub(crate) enum Stop {
    Failed(Failure),
    /// The `InputRequiredResult`: the client asks again with answers.
    Asked(String),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// A question to the client: its key in `inputRequests`, method and params.
pub(crate) type Question<'a> = (&'a str, &'a str, Value);

pub(crate) struct Call {
    pub(crate) server: Arc<Server>,
    /// What a legacy request belongs to, and any request on stdio.
    pub(crate) session: Option<Arc<Session>>,
    pub(crate) modern: bool,
    pub(crate) id: Box<RawValue>,
    pub(crate) method: String,
    /// `params` as it came.
    pub(crate) raw: String,
    pub(crate) params: Members,
    pub(crate) arguments: Members,
    pub(crate) meta: Members,
    pub(crate) stream: Arc<Stream>,
    /// Where it goes on without its client.
    pub(crate) task: Option<Arc<Task>>,
    /// What the client answered in this round and in those before.
    pub(crate) answers: Mutex<Map<String, Value>>,
}

impl Call {
    pub(crate) fn new(
        server: &Arc<Server>,
        session: Option<Arc<Session>>,
        modern: bool,
        request: Request,
        stream: Arc<Stream>,
    ) -> Self {
        let params = rpc::members(&request.params);
        let inner = |name: &str| params.get(name).map(|raw| rpc::members(raw.get())).unwrap_or_default();
        let (arguments, meta) = (inner("arguments"), inner("_meta"));
        Self {
            server: server.clone(),
            session,
            modern,
            id: request.id,
            method: request.method,
            raw: request.params,
            params,
            arguments,
            meta,
            stream,
            task: None,
            answers: Mutex::default(),
        }
    }

    /// The same call as a task: what it sends on the way is for nobody.
    pub(crate) fn in_background(&self, task: Arc<Task>) -> Self {
        let request = Request { id: self.id.clone(), method: self.method.clone(), params: self.raw.clone() };
        let answers = Mutex::new(locked(&self.answers).clone());
        let call = Self::new(&self.server, self.session.clone(), self.modern, request, Stream::new());
        Self { task: Some(task), answers, ..call }
    }

    pub(crate) fn param(&self, name: &str) -> Value {
        rpc::value(&self.params, name)
    }

    pub(crate) fn argument(&self, name: &str) -> Value {
        rpc::value(&self.arguments, name)
    }

    pub(crate) fn notify(&self, method: &str, params: &str) {
        self.stream.send(rpc::notification(method, params));
    }

    /// Tells how far it is, if the client wants to know.
    pub(crate) fn progress(&self, progress: u64, total: u64) {
        if let Some(token) = self.meta.get("progressToken") {
            let params = format!(
                r#"{{"progressToken":{token},"progress":{progress},"total":{total},"message":"{progress} of {total}"}}"#
            );
            self.notify("notifications/progress", &params);
        }
    }

    pub(crate) fn log(&self, level: &str, data: &str) {
        let index = |level: &str| LEVELS.iter().position(|one| *one == level).map(|index| index as u64);
        let least = match &self.session {
            Some(session) if !self.modern => Some(session.level.load(Ordering::Relaxed)),
            _ => rpc::value(&self.meta, "io.modelcontextprotocol/logLevel").as_str().and_then(index),
        };
        if least.is_some() && least <= index(level) {
            self.notify(
                "notifications/message",
                &json!({"level": level, "logger": "reference", "data": data}).to_string(),
            );
        }
    }

    /// What the client can do: said at the session's beginning, or with each request.
    pub(crate) fn capabilities(&self) -> Value {
        match &self.session {
            Some(session) if !self.modern => session.capabilities.clone(),
            _ => rpc::value(&self.meta, "io.modelcontextprotocol/clientCapabilities"),
        }
    }

    /// Does the client take questions of this kind?
    pub(crate) fn can(&self, method: &str, params: &Value) -> Result<(), Failure> {
        let all = self.capabilities();
        let (able, needed) = match method {
            "sampling/createMessage" => (all["sampling"].is_object(), json!({"sampling": {}})),
            "roots/list" => (all["roots"].is_object(), json!({"roots": {}})),
            "elicitation/create" if params["mode"] == "url" => {
                (all["elicitation"]["url"].is_object(), json!({"elicitation": {"url": {}}}))
            }
            "elicitation/create" => (all["elicitation"].is_object(), json!({"elicitation": {}})),
            _ => (true, Value::Null),
        };
        if able { Ok(()) } else { Err(Failure::missing_capability(&needed)) }
    }

    pub(crate) async fn ask(&self, key: &str, method: &str, params: Value) -> Result<Value, Stop> {
        Ok(self.ask_all(&[(key, method, params)]).await?.remove(0))
    }

    /// Asks the client all of it, in the way of its era or of the task: the answers in order.
    pub(crate) async fn ask_all(&self, questions: &[Question<'_>]) -> Result<Vec<Value>, Stop> {
        if !self.modern {
            let mut answers = Vec::new();
            for (_, method, params) in questions {
                answers.push(self.ask_now(method, params).await?);
            }
            return Ok(answers);
        }
        for (_, method, params) in questions {
            self.can(method, params)?;
        }
        let open = |questions: &[Question<'_>]| {
            let answers = locked(&self.answers);
            let open = questions.iter().filter(|(key, ..)| !answers.contains_key(*key));
            open.map(|(key, method, params)| ((*key).to_owned(), json!({"method": method, "params": params})))
                .collect::<Map<_, _>>()
        };
        let asked = open(questions);
        if !asked.is_empty() {
            match &self.task {
                Some(task) => {
                    let mut answers = task.ask(asked).await;
                    locked(&self.answers).append(&mut answers);
                }
                None => return Err(Stop::Asked(self.input_required(asked))),
            }
        }
        let answers = locked(&self.answers);
        Ok(questions.iter().map(|(key, ..)| answers[*key].clone()).collect())
    }

    /// A request on this call's stream, as the legacy era has it.
    async fn ask_now(&self, method: &str, params: &Value) -> Result<Value, Stop> {
        if self.can(method, params).is_err() {
            return Err(Failure::new(-32603, format!("the client did not declare what {method} needs")).into());
        }
        let session = self.session.as_ref().ok_or_else(|| Failure::new(-32603, "no session"))?;
        let (id, told) = session.question();
        let mut params = params.clone();
        params["_meta"] = json!({"progressToken": format!("of question {id}"), "example.com/unknown": null});
        self.stream.send(rpc::request(id, method, &params.to_string()));
        match told.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failure::new(-32603, "the client refused").data(error.to_string()).into()),
            Err(_) => Err(Failure::new(-32603, "the client is gone").into()),
        }
    }

    /// Asks and takes it back: what a client must be able to stand.
    pub(crate) fn ask_and_give_up(&self, method: &str, params: &Value) {
        if let Some(session) = self.session.as_ref().filter(|_| !self.modern) {
            let (id, _) = session.question();
            self.stream.send(rpc::request(id, method, &params.to_string()));
            self.notify(
                "notifications/cancelled",
                &json!({"requestId": id, "reason": "not needed any more"}).to_string(),
            );
        }
    }

    fn input_required(&self, questions: Map<String, Value>) -> String {
        let state = seal(&Value::from(locked(&self.answers).clone()).to_string());
        json!({"resultType": "input_required", "inputRequests": questions, "requestState": state}).to_string()
    }

    /// Takes what the client sent along: answers, and the state of the rounds before.
    pub(crate) fn take_answers(&self) -> Result<(), Failure> {
        if !self.modern {
            return Ok(());
        }
        let mut answers = locked(&self.answers);
        if let Some(state) = self.params.get("requestState") {
            let sealed: String =
                serde_json::from_str(state.get()).map_err(|_| Failure::invalid("requestState is no text"))?;
            let state = open(&sealed).ok_or_else(|| Failure::invalid("requestState is not what this server gave"))?;
            *answers =
                serde_json::from_str(state).map_err(|_| Failure::invalid("requestState is of another version"))?;
        }
        match self.params.get("inputResponses").map(|raw| serde_json::from_str(raw.get())) {
            None => Ok(()),
            Some(Ok(Value::Object(given))) if given.values().all(Value::is_object) => {
                answers.extend(given);
                Ok(())
            }
            Some(_) => Err(Failure::invalid("inputResponses is not an object of responses")),
        }
    }
}

/// A request as it came.
pub(crate) struct Request {
    pub(crate) id: Box<RawValue>,
    pub(crate) method: String,
    pub(crate) params: String,
}

/// `state` with a mark that a client does not make by accident.
fn seal(state: &str) -> String {
    format!("{state}#{:016x}", mark(state))
}

fn open(sealed: &str) -> Option<&str> {
    let (state, given) = sealed.rsplit_once('#')?;
    (u64::from_str_radix(given, 16) == Ok(mark(state))).then_some(state)
}

fn mark(state: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    ("the reference's own", state).hash(&mut hasher);
    hasher.finish()
}

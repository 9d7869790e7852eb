//! The extension `io.modelcontextprotocol/tasks`: calls that go on without their client.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::call::{Call, Outcome, Stop};
use crate::rpc::Failure;
use crate::server::{TASKS, locked};
use crate::tools;

pub(crate) struct Task {
    id: String,
    created: String,
    state: Mutex<State>,
    answered: Notify,
}

struct State {
    status: &'static str,
    updated: String,
    /// What is asked and not answered, and what was answered.
    questions: Map<String, Value>,
    answers: Map<String, Value>,
    /// The member `result` or `error` of what has ended.
    outcome: Option<(&'static str, Value)>,
    running: Option<AbortHandle>,
}

impl Task {
    fn new() -> Arc<Self> {
        let created = now();
        let state = State {
            status: "working",
            updated: created.clone(),
            questions: Map::new(),
            answers: Map::new(),
            outcome: None,
            running: None,
        };
        let id = format!("task-{:016x}", RandomState::new().build_hasher().finish());
        Arc::new(Self { id, created, state: Mutex::new(state), answered: Notify::new() })
    }

    fn shown(&self) -> Value {
        let state = locked(&self.state);
        json!({
            "taskId": self.id, "status": state.status, "createdAt": self.created, "lastUpdatedAt": state.updated,
            "ttlMs": 600_000, "pollIntervalMs": 100,
        })
    }

    fn detailed(&self) -> Value {
        let mut shown = self.shown();
        let state = locked(&self.state);
        if !state.questions.is_empty() {
            shown["inputRequests"] = state.questions.clone().into();
        }
        if let Some((member, outcome)) = &state.outcome {
            shown[member] = outcome.clone();
        }
        shown
    }

    /// Waits until all of it is answered.
    pub(crate) async fn ask(&self, questions: Map<String, Value>) -> Map<String, Value> {
        self.change(|state| (state.status, state.questions) = ("input_required", questions));
        while !locked(&self.state).questions.is_empty() {
            self.answered.notified().await;
        }
        locked(&self.state).answers.clone()
    }

    fn answer(&self, given: Map<String, Value>) {
        self.change(|state| {
            for (key, answer) in given {
                if state.questions.remove(&key).is_some() {
                    state.answers.insert(key, answer);
                }
            }
            if state.questions.is_empty() && state.status == "input_required" {
                state.status = "working";
            }
        });
        self.answered.notify_one();
    }

    fn end(&self, status: &'static str, outcome: Option<(&'static str, Value)>) {
        self.change(|state| {
            if state.outcome.is_none() && state.status != "cancelled" {
                (state.status, state.outcome) = (status, outcome);
                state.questions.clear();
                state.running.take().inspect(AbortHandle::abort);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = locked(&self.state);
        change(&mut state);
        state.updated = now();
    }
}

/// `tools/call`: at once, or as a task where tool and client have it so.
pub(crate) async fn call(call: &Call) -> Outcome {
    call.take_answers()?;
    let name = call.param("name");
    let required = ["failing_job", "test_tool_with_task"].contains(&name.as_str().unwrap_or_default());
    let possible = required
        || ["slow_compute", "protocol_error_job", "confirm_delete", "multi_input"]
            .contains(&name.as_str().unwrap_or_default());
    if !call.modern || !possible {
        return tools::call(call).await;
    }
    if declared(call).is_err() {
        return if required { Err(undeclared().into()) } else { tools::call(call).await };
    }
    if name == "test_tool_with_task" {
        tools::ask_name(call).await?;
    }
    let task = Task::new();
    locked(&call.server.tasks).insert(task.id.clone(), task.clone());
    let mut created = task.shown();
    created["resultType"] = "task".into();
    let background = call.in_background(task.clone());
    let running = tokio::spawn({
        let task = task.clone();
        async move {
            match tools::call(&background).await {
                Ok(result) => {
                    task.end("completed", Some(("result", serde_json::from_str(&result).unwrap_or_default())))
                }
                Err(Stop::Failed(failure)) => {
                    task.end("failed", Some(("error", serde_json::from_str(&failure.text()).unwrap_or_default())));
                }
                Err(Stop::Asked(_)) => {
                    task.end("failed", Some(("error", json!({"code": -32603, "message": "asked its caller"}))))
                }
            }
        }
    });
    locked(&task.state).running = Some(running.abort_handle());
    Ok(created.to_string())
}

/// `tasks/get`, `tasks/update`, `tasks/cancel`.
pub(crate) fn about(call: &Call) -> Outcome {
    declared(call)?;
    let id = call.param("taskId").as_str().unwrap_or_default().to_owned();
    let task = locked(&call.server.tasks).get(&id).cloned().ok_or_else(|| Failure::invalid("no such task"))?;
    match call.method.as_str() {
        "tasks/get" => return Ok(task.detailed().to_string()),
        "tasks/update" => task.answer(call.param("inputResponses").as_object().cloned().unwrap_or_default()),
        _ => task.end("cancelled", None),
    }
    Ok("{}".to_owned())
}

fn declared(call: &Call) -> Result<(), Failure> {
    let able = call.capabilities()["extensions"][TASKS].is_object();
    able.then_some(()).ok_or_else(undeclared)
}

fn undeclared() -> Failure {
    Failure::missing_capability(&json!({"extensions": {TASKS: {}}}))
}

fn now() -> String {
    DateTime::<Utc>::from(SystemTime::now()).to_rfc3339()
}

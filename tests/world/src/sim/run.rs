//! One plan from start to end.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use http::StatusCode;
use serde_json::{Value, json};

use super::oracle::{Call, Kind, Verdict};
use super::plan::{Plan, Tool};
use super::stage::{Asked, Stage};
use crate::client::{Exchange, Outcome};
use crate::script::MARKER;
use crate::seen::Seen;

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was broken; `None`: nothing.
    pub failure: Option<String>,
    /// Of all that happened.
    pub hash: u64,
    /// How many steps the world took.
    pub steps: u64,
    /// How much time passed there, in seconds.
    pub secs: u64,
    /// How often rare things happened.
    pub cover: BTreeMap<&'static str, u64>,
    /// All that happened, if it was asked for.
    pub lines: Vec<String>,
}

/// Runs `plan`; with `lines` everything is told.
#[must_use]
pub fn run(plan: &Plan, lines: bool) -> Report {
    let mut stage = None;
    let failure = caught(|| {
        let stage = stage.insert(Stage::new(plan, lines));
        stage.play(plan);
    });
    let Some(stage) = stage else {
        let (cover, lines) = (BTreeMap::new(), Vec::new());
        return Report { failure, hash: 0, steps: 0, secs: 0, cover, lines };
    };
    let world = stage.world;
    Report {
        failure,
        hash: world.trace.hash(),
        steps: world.steps,
        secs: world.micros() / 1_000_000,
        cover: world.trace.cover,
        lines: world.trace.lines.unwrap_or_default(),
    }
}

/// Runs what `bytes` make of a plan, as far as it takes few steps: one input is to take well under a tenth of a second.
///
/// # Panics
///
/// When something that must hold does not: with the words of the failure, and the plan as JSON for `sim explain`.
pub fn fuzz(bytes: &[u8]) {
    let mut plan = Plan::of_bytes(bytes);
    plan.steps.truncate(FUZZ_STEPS);
    if let Some(failure) = run(&plan, false).failure {
        panic!("{failure}\n{}", serde_json::to_string(&plan).expect("a plan is plain data"));
    }
}

/// Does `work`; returns the words of its panic, if that is how it ended. It is a finding, and is not printed.
pub(crate) fn caught(work: impl FnOnce()) -> Option<String> {
    quiet();
    PLACE.with(|place| *place.borrow_mut() = Some(String::new()));
    let result = catch_unwind(AssertUnwindSafe(work));
    let failure = result.err().map(|panic| message_of(&*panic));
    PLACE.with(|place| *place.borrow_mut() = None);
    failure
}

thread_local! {
    /// Where the last panic of this thread was, while it runs a plan.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics are findings here: they are told with the plan, not as they happen.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let is_run = PLACE.with(|place| match &mut *place.borrow_mut() {
                Some(place) => {
                    *place = info.location().map(|at| format!("{}:{}", at.file(), at.line())).unwrap_or_default();
                    true
                }
                None => false,
            });
            if !is_run {
                usual(info);
            }
        }));
    });
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
    PLACE.with(|place| format!("{text} ({})", place.borrow().as_deref().unwrap_or_default()))
}

impl Stage {
    fn play(&mut self, plan: &Plan) {
        for step in &plan.steps {
            let wait = u64::from(step.wait_ms) * 1000;
            self.until(self.world.micros() + wait);
            let said = serde_json::to_vec(&step.act).expect("it is plain data");
            self.world.note("──", [0; 2], &said);
            self.act(&step.act);
            self.look_on();
        }
        self.heal();
    }

    /// Lets time pass, and looks after every step.
    pub(super) fn until(&mut self, end: u64) {
        self.look_on();
        loop {
            let due = self.undo.first_key_value().map(|((at, _), _)| *at).filter(|at| *at <= end);
            if self.world.step(due.unwrap_or(end)) {
                self.look_on();
            } else if let Some((_, undo)) = due.and_then(|_| self.undo.pop_first()) {
                self.world.pass(due.unwrap_or_default());
                self.undo(undo);
                self.look_on();
            } else {
                return self.world.pass(end);
            }
        }
    }

    /// What the client's token opens now.
    pub(super) fn verdict(&self, person: usize) -> Verdict {
        self.oracle.verdict(self.people[person].token, self.world.relay_unix())
    }

    /// The model looks at what happened.
    fn look_on(&mut self) {
        self.oracle.saw_time(self.world.relay_unix());
        self.see_endings();
        loop {
            let seen = self.world.seen.as_mut().map(std::mem::take).unwrap_or_default();
            if seen.is_empty() {
                return;
            }
            seen.into_iter().for_each(|seen| self.look_at(seen));
        }
    }

    fn look_at(&mut self, seen: Seen) {
        match seen {
            Seen::Heard { agent, server, child, message } => {
                if let Some(laptop) = self.oracle.owners.get(&agent) {
                    no_word_of_others(self.laptops[*laptop].user, message.to_string().as_bytes());
                }
                self.oracle.heard(agent, &server, child, &message);
            }
            Seen::Asked { agent, conn, stream, method, params } => {
                self.oracle.given_up.asked((agent, conn, stream), &method, &params);
            }
            Seen::GivenUp { agent, conn, stream } => self.oracle.given_up.heard_of(agent, conn, stream),
            Seen::Sent { bytes } => self.oracle.given_up.sent(&bytes),
            Seen::Answers { agent, child, id } => {
                let answered = self.oracle.answers(agent, child, &id);
                self.end_of_calls(answered.as_slice(), "its server answered");
            }
            Seen::Child { agent, child, began: false } => {
                let left = self.oracle.server_gone(agent, Some(child));
                self.end_of_calls(&left, "its server is gone");
            }
            Seen::Child { .. } => {}
            Seen::Spoke { exchange } => {
                self.saw_news(exchange);
                let is_asking = |call: &Call| !call.is_modern && !matches!(call.kind, Kind::Note);
                if self.oracle.calls.get(&exchange).is_some_and(is_asking) && self.world.has(exchange) {
                    let reply = self.world.exchange(exchange).clone();
                    self.hear_questions(exchange, &reply);
                }
            }
            Seen::Ended { exchange, outcome } => self.ended(exchange, outcome),
            Seen::Dials { agent, at } => self.oracle.dials(agent, at),
            Seen::DialFailed { agent, at, error } => self.oracle.dial_failed(agent, at, &error),
            Seen::TunnelUp { agent, conn, token } => {
                self.oracle.tunnel_up(agent);
                let token = self.oracle.token_of(&token);
                self.oracle.tunnels.extend(token.map(|token| (conn, token)));
            }
            Seen::TunnelDown { conn } => drop(self.oracle.tunnels.remove(&conn)),
            Seen::Closed { agent: Some(agent), at, close } => self.oracle.closed(agent, at, &close),
            Seen::Closed { agent: None, .. } => {}
            Seen::Exit { agent, .. } => self.end(agent),
            Seen::Admin { job, answer } => self.answered(job, &answer),
        }
    }

    fn answered(&mut self, job: tunnel_core::id::JobId, answer: &Value) {
        match self.asked.remove(&job) {
            Some(Asked::Revoke(token)) if answer["ok"] == true => {
                self.oracle.revoked(token);
                self.end_of_grant(token);
            }
            Some(Asked::MintForAgent(laptop)) => {
                if let Some(token) = self.oracle.minted(answer) {
                    self.laptops[laptop].token = token;
                    // A person puts it into the configuration, and starts the agent again.
                    if let Some(key) = self.laptops[laptop].key {
                        self.end(key);
                    }
                    self.restart(laptop, false);
                }
            }
            Some(Asked::MintForClient(person)) => {
                if let Some(token) = self.oracle.minted(answer) {
                    let text = self.oracle.token(token).text.clone();
                    let it = &mut self.people[person];
                    (it.token, it.token_since) = (token, self.world.micros());
                    it.client = it.client.clone().with_token(&text);
                    it.changes += 1;
                    self.new_session(person);
                }
            }
            Some(Asked::Revoke(_)) | None => {}
        }
    }

    fn ended(&mut self, exchange: tunnel_core::id::ExchangeId, outcome: Outcome) {
        if self.office.awaits(exchange) {
            if let Some(reply) = self.world.take(exchange) {
                self.web_answered(exchange, &reply, outcome);
            }
            return;
        }
        let Some(call) = self.oracle.calls.remove(&exchange) else { return drop(self.world.take(exchange)) };
        let Some(reply) = self.world.take(exchange) else { return };
        if self.people[call.person].listening == Some(exchange) {
            self.people[call.person].listening = None;
        }
        if !matches!(call.kind, Kind::Trespass) {
            no_word_of_others(self.people[call.person].user, &reply.body);
        }
        if let Some(status) = reply.status {
            judge_status(&call, status);
        }
        self.oracle.told.had(call.person, &reply.messages());
        match &call.kind {
            Kind::Call | Kind::Trespass | Kind::List | Kind::Other => self.judge(&call, &reply, outcome),
            Kind::Batch(parts) => self.judge_batch(&call, parts, &reply, outcome),
            Kind::Watch { .. } => self.judge_watch(&call, &reply),
            Kind::Initialize => {
                if outcome == Outcome::Complete {
                    let it = &mut self.people[call.person];
                    it.client.initialized(&reply);
                    it.session_since = self.world.micros();
                }
            }
            Kind::Delete(client, open) => {
                // Once that is acknowledged, the session opens nothing, whatever happens.
                if outcome == Outcome::Complete && reply.status.is_some_and(|status| status.is_success()) {
                    self.world.trace.cover("a session was ended");
                    self.end_of_session(open.clone());
                    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
                    let after = client.post(&mut self.world, &ping);
                    self.note(after, Kind::Afterlife, call.person, 1, Verdict::Unknown, false);
                }
            }
            Kind::Afterlife => assert_ne!(reply.status, Some(StatusCode::OK), "an ended session still works"),
            Kind::Cancels(marker) => {
                let is_taken = reply.status == Some(StatusCode::ACCEPTED);
                let is_its = |call: &Call| call.marker == *marker && self.is_cancellable(call);
                let is_open = self.oracle.calls.values().any(|call| match &call.kind {
                    Kind::Batch(parts) => parts.iter().any(is_its),
                    _ => is_its(call),
                });
                if is_taken && is_open {
                    self.oracle.gave_up(marker);
                }
                let now = self.world.micros();
                let its = self.oracle.calls.values_mut().find(|call| call.marker == *marker);
                its.filter(|_| is_taken).into_iter().for_each(|call| call.cancelled_at = Some(now));
            }
            Kind::Note | Kind::Listen => {}
        }
    }

    /// Whether the model demands that a call succeeds: it did when it was sent, and nothing has happened since.
    pub(super) fn is_demanded(&self, call: &Call) -> bool {
        call.is_strict && self.is_untouched(call)
    }

    /// Whether nothing has happened to a call since it was sent.
    pub(super) fn is_untouched(&self, call: &Call) -> bool {
        !self.is_disturbed(call)
            && self.people[call.person].changes == call.changes
            && !call.is_given_up
            && !call.has_stopped_reading
            && self.verdict(call.person) == Verdict::Opens
    }

    fn is_disturbed(&self, call: &Call) -> bool {
        call.laptop.is_none_or(|laptop| self.laptops[laptop].disturbances != call.disturbances)
    }

    /// Whether a request has an answer that is to be looked at: it has none where it was cut off, for which there must be
    /// a cause, or was refused.
    pub(super) fn has_answer(&mut self, call: &Call, reply: &Exchange, outcome: Outcome) -> bool {
        if outcome == Outcome::Aborted {
            let has_cause = self.oracle.relay_ends.contains(&self.world.micros())
                || !self.world.relay_is_up()
                || call.is_given_up
                || call.has_stopped_reading
                || self.is_disturbed(call)
                || self.people[call.person].changes != call.changes;
            assert!(has_cause, "{call:?} was cut off without a cause: {reply:?}");
            self.may_come_back(call, reply);
            self.world.trace.cover("an answer was cut off");
            return false;
        }
        if reply.status == Some(StatusCode::NO_CONTENT) {
            assert!(call.rest.as_ref().is_some_and(|rest| rest.had), "nothing comes, and something was due: {call:?}");
            self.world.trace.cover("a client that came back had it all");
            return false;
        }
        if reply.status != Some(StatusCode::OK) {
            assert!(!self.is_demanded(call), "{call:?} must be answered: {reply:?}");
            return false;
        }
        if call.rest.is_some() {
            self.world.trace.cover("a client that came back got its answer");
        }
        true
    }

    /// What became of a call is not known only if the relay has forgotten it: it was restarted, or the client stayed away
    /// for longer than a minute, or did not read what it was sent.
    pub(super) fn may_be_forgotten(&mut self, call: &Call, error: &Value) {
        if error["data"]["reason"] != "outcome-unknown" {
            return;
        }
        self.world.trace.cover("what became of a call is not known");
        let Some(rest) = &call.rest else { panic!("an answer is forgotten, and nobody was away: {call:?}") };
        let was_restarted = self.oracle.relay_ends.range(rest.asked_at..).next().is_some();
        let was_long = call.sent_at - rest.left_at > 55_000_000;
        let was_away = was_long || call.has_stopped_reading;
        assert!(was_restarted || was_away || self.was_crowded, "an answer was forgotten too soon: {call:?}");
    }

    /// Exactly one final answer, or an end with a cause.
    fn judge(&mut self, call: &Call, reply: &Exchange, outcome: Outcome) {
        if !self.has_answer(call, reply, outcome) {
            return;
        }
        let is_demanded = self.is_demanded(call);
        let answers = reply.answers();
        let [answer] = &answers[..] else { panic!("exactly one final answer: {call:?}: {answers:?}") };
        assert_eq!(answer["id"], call.id, "an answer has the id of its request: {answer}");
        if let Some(error) = answer.get("error") {
            assert!(answer.get("result").is_none(), "a result or an error: {answer}");
            self.judge_error(call, error);
            self.may_be_forgotten(call, error);
            assert!(!is_demanded, "{call:?} must have a result at {}: {answer}", self.world.micros());
            return;
        }
        assert!(!matches!(call.kind, Kind::Trespass), "another's tool was called: {answer}");
        let since = call.cancelled_at.filter(|_| !call.has_stopped_reading).map(|at| self.world.micros() - at);
        assert!(since.is_none_or(|since| since < ON_ITS_WAY), "{call:?} was cancelled, and has a result: {answer}");
        assert!(call.rest.as_ref().is_none_or(|rest| !rest.had), "an answer comes twice: {call:?}: {answer}");
        let result = &answer["result"];
        for (list, key) in [("tools", "name"), ("prompts", "name"), ("resources", "uri")] {
            if let (Kind::List, Some(all)) = (&call.kind, result[list].as_array()) {
                let name = |one: &Value| one[key].as_str().expect("what is listed has a name").to_owned();
                self.oracle.listed = Some(all.iter().map(name).collect());
            }
        }
        if matches!(call.kind, Kind::Call) {
            self.judge_result(call, &answer["result"]);
        }
        if is_demanded {
            self.world.trace.cover("an answer that the model demanded");
            let patience = if call.tool == Some(Tool::Wait) { u64::from(call.size) * 1000 } else { 0 };
            let took = self.world.micros() - call.sent_at;
            assert!(took <= patience + STRICT_WITHIN, "{call:?} took {took} µs");
        }
    }

    /// Whoever is asked something is the client in the course of whose calls it is: which of them, a process does not say.
    pub(super) fn is_for<'a>(&mut self, person: usize, questions: impl Iterator<Item = &'a Value>) {
        for question in questions {
            let asked = super::acts::asked_in(&question["params"]);
            if self.oracle.caller_of(&asked) != Some(person) {
                // One that hung may have read only now that a call was cancelled; no other asks in its course that late.
                assert!(self.oracle.has_hung, "another client's question: {person} is asked in the course of {asked}");
                self.world.trace.cover("a question of another call that was given up");
            }
        }
    }

    pub(super) fn judge_result(&mut self, call: &Call, result: &Value) {
        if result["isError"] == true {
            return self.world.trace.cover("a result that is an error");
        }
        assert!(self.oracle.was_heard(&call.marker), "{call:?} has a result, and no server heard of it: {result}");
        if result["resultType"] == "input_required" {
            assert!(call.is_modern, "nothing was asked: {call:?}");
            self.is_for(call.person, result["inputRequests"].as_object().into_iter().flat_map(|asked| asked.values()));
            return self.answer_required(call, result);
        }
        // What was asked of a client that has no model is a result all the same.
        let marker = match call.tool {
            Some(Tool::Read) => &json!(result["contents"][0]["uri"].as_str().and_then(|uri| uri.rsplit('/').next())),
            Some(Tool::Prompt) => &result["messages"][0]["content"]["text"],
            _ => &result["structuredContent"][MARKER],
        };
        let is_own = *marker == call.marker.as_str() || (call.tool == Some(Tool::Ask) && marker.is_null());
        assert!(is_own, "the answer of another call: {call:?}: {result}");
        assert!(!matches!(call.tool, Some(Tool::Silent | Tool::Die)), "nobody can have answered: {call:?}");
    }
}

/// No payload of one user is ever at another.
pub(super) fn no_word_of_others(user: &str, bytes: &[u8]) {
    for other in super::stage::USERS.into_iter().filter(|other| *other != user) {
        let tag = format!("-of-{other}");
        let is_there = bytes.windows(tag.len()).any(|window| window == tag.as_bytes());
        assert!(!is_there, "{user} sees what is {other}'s: {}", String::from_utf8_lossy(bytes));
    }
}

/// Tokens open what they are for, and nothing else.
fn judge_status(call: &Call, status: StatusCode) {
    let is_refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    // Who comes with bad tokens again and again is told to wait.
    let is_slowed = status == StatusCode::TOO_MANY_REQUESTS;
    match call.verdict {
        Verdict::Opens => assert!(!is_refused, "a good token was refused: {call:?}"),
        Verdict::OpensNothing => assert!(is_refused || is_slowed, "a dead token opened something: {status} {call:?}"),
        Verdict::Unknown => {}
    }
    let is_known = status.is_success()
        || is_refused
        || matches!(
            status,
            StatusCode::NOT_FOUND
                | StatusCode::CONFLICT
                | StatusCode::BAD_REQUEST
                | StatusCode::TOO_MANY_REQUESTS
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::INTERNAL_SERVER_ERROR
        );
    assert!(is_known, "{status} to {call:?}");
}

/// How many of a plan's acts an input of a fuzzer has: healing alone takes longer than as many.
const FUZZ_STEPS: usize = 40;

/// How old an answer may be that crosses its cancellation, in microseconds.
const ON_ITS_WAY: u64 = 10_000_000;

/// How long an answer that the model demands may take beside its tool's own time, in microseconds.
const STRICT_WITHIN: u64 = 45_000_000;

/// What any few hundred seeds come by: a run that does not is blind.
pub const REQUIRED: &[&str] = &[
    "a client does not read what is much",
    "a client was cut off for a while",
    "a client was far away",
    "a client's connections broke",
    "a code that was used again ended its family",
    "a code was not redeemed",
    "a grant was given up",
    "a batch was answered",
    "a call is given up",
    "a client came back for its stream",
    "a client that came back got its answer",
    "a client hung up",
    "a device has two processes",
    "a failed write was done",
    "a person approved a call",
    "a person refused a call",
    "a resource is watched",
    "a grant was refreshed",
    "a grant was revoked with a tunnel open",
    "a grant was revoked with work open",
    "a legacy client was asked",
    "a modern client was asked",
    "a reply becomes a stream",
    "a session was ended",
    "a session was ended with work open",
    "a sign-in failed after the provider",
    "a site has the agent come back later",
    "a socket was full",
    "a stream of a site is taken up again",
    "a stream gets a heartbeat",
    "a tunnel of V1",
    "a tunnel of V2",
    "a write failed",
    "an answer that the model demanded",
    "an agent's disk was slow",
    "an agent's write failed",
    "an old token ended its family",
    "an old token refreshed within its grace",
    "an answer was cut off",
    "closed: broken",
    "closed: going away",
    "closed: name taken",
    "closed: replaced",
    "closed: revoked",
    "closed: timed out",
    "credit for an answer",
    "dial: 401",
    "dial: no answer",
    "dial: refused connection",
    "error: agent gone",
    "error: cancelled",
    "error: overloaded",
    "error: server unavailable",
    "error: stalled",
    "error: timed out",
    "error: too large",
    "give a start up",
    "listeners are told of changes",
    "look at the changed network",
    "sign of life after a probe",
    "several clients wait for one person",
    "somebody signed in at the provider",
    "speak an older protocol",
    "start a server again",
    "somebody hears of a changed resource",
    "stop a server that nobody calls",
    "streams of clients that went away are forgotten",
    "the provider has a new key",
    "the relay lost its disk",
    "what became of a call is not known",
    "what was watched for long is watched",
];

//! Plays a transcript.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// One line of a transcript.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Step {
    Does {
        peer: String,
        does: Act,
    },
    Says {
        peer: String,
        says: Value,
    },
    Hears {
        peer: String,
        hears: Value,
    },
    Client(Client),
    Server {
        server: String,
        on: String,
        #[serde(flatten)]
        step: Server,
    },
}

/// What the old side does besides talking.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    Connect,
    /// Goes without a word.
    Leave,
    /// A WebSocket ping, which is answered.
    Ping,
}

/// What a client does at our relay.
#[derive(Debug, Deserialize)]
#[serde(tag = "client", rename_all = "lowercase", deny_unknown_fields)]
pub enum Client {
    /// Lists exactly these tools, in any order.
    Lists {
        tools: Vec<String>,
    },
    Calls {
        tool: String,
        #[serde(default)]
        arguments: Option<Value>,
        #[serde(rename = "as")]
        name: String,
    },
    /// Gets the answer of a call.
    Gets {
        of: String,
        #[serde(flatten)]
        answer: Answer,
    },
    Restarts,
}

/// What came of a call.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    Result(Value),
    Error(Value),
    /// The device went away.
    Lost(bool),
}

/// What a local server does behind our agent.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Server {
    Has(Vec<Value>),
    /// Is called with this `name` and `arguments`.
    Hears(Value),
    /// Answers the call that it heard.
    Answers(Answer),
    Restarts(bool),
}

/// Where a transcript is played: our side, with the old side scripted.
pub trait Stage {
    fn act(&mut self, peer: &str, act: Act);
    fn say(&mut self, peer: &str, text: &str);
    /// The next message that our side has for the peer.
    fn hear(&mut self, peer: &str) -> String;
    fn client(&mut self, step: &Client) {
        panic!("no client is here: {step:?}");
    }
    fn server(&mut self, device: &str, server: &str, step: &Server) {
        panic!("no server is here: {device} {server} {step:?}");
    }
}

/// Plays `story` to its end.
pub fn play(story: &str, stage: &mut impl Stage) {
    let mut names = BTreeMap::new();
    for line in story.lines() {
        match serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")) {
            Step::Does { peer, does } => stage.act(&peer, does),
            Step::Says { peer, mut says } => {
                put_names(&mut says, &names);
                stage.say(&peer, &says.to_string());
            }
            Step::Hears { peer, hears } => loop {
                let text = stage.hear(&peer);
                let heard: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("JSON: {text}"));
                if agree(&hears, &heard, &mut names) {
                    break;
                }
                // A list of tools says how things are now: another one may come before it.
                assert_eq!(heard["type"], "tools", "instead of {hears}: {heard}");
            },
            Step::Client(step) => stage.client(&step),
            Step::Server { server, on, step } => stage.server(&on, &server, &step),
        }
    }
}

/// Whether `heard` is what was expected; takes down what names stand for.
fn agree(expected: &Value, heard: &Value, names: &mut BTreeMap<String, Value>) -> bool {
    match (expected, heard) {
        (Value::String(name), _) if name.starts_with('$') => {
            names.entry(name.clone()).or_insert_with(|| heard.clone()) == heard
        }
        (Value::Object(expected), Value::Object(heard)) => {
            expected.len() == heard.len()
                && expected.iter().all(|(key, value)| heard.get(key).is_some_and(|heard| agree(value, heard, names)))
        }
        _ => expected == heard,
    }
}

fn put_names(says: &mut Value, names: &BTreeMap<String, Value>) {
    for value in says.as_object_mut().into_iter().flat_map(|object| object.values_mut()) {
        if let Some(known) = value.as_str().and_then(|name| names.get(name)) {
            *value = known.clone();
        }
    }
}

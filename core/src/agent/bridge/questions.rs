//! What a server wants to know of a client: a request in the legacy era, a part of an `input_required` result in the
//! modern one (2026-07-28, patterns, Multi Round-Trip Requests).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::results;
use crate::limits;
use crate::mcp::method;
use crate::rpc::object::{self, Object};
use crate::rpc::{self, quoted};

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) struct Question {
    /// What tells it from the others: the key of the modern era.
    pub(in crate::agent) key: String,
    pub(in crate::agent) method: String,
    /// The raw params; empty when absent.
    pub(in crate::agent) params: Bytes,
}

/// An `input_required` result.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::agent) struct InputRequired {
    pub(in crate::agent) questions: Vec<Question>,
    /// The raw `requestState`, to be sent back as it is.
    pub(in crate::agent) state: Option<Bytes>,
}

impl InputRequired {
    /// Reads one. `Ok(None)`: the result is another. The server is at fault for an error.
    pub(in crate::agent) fn read(result: &Bytes) -> Result<Option<Self>, &'static str> {
        if !results::is_input_required(result) {
            return Ok(None);
        }
        let state = object::get(result, "requestState").filter(|raw| &raw[..] != b"null");
        let mut questions = Vec::new();
        if let Some(requests) = object::get(result, "inputRequests").filter(|raw| &raw[..] != b"null") {
            let requests = Object::parse(&requests).map_err(|_| "its inputRequests are no object")?;
            for (key, request) in requests.members() {
                let key = rpc::string(&key).ok_or("a key of its inputRequests is no text")?.into_owned();
                let method = object::get(&request, "method").and_then(|raw| Some(rpc::string(&raw)?.into_owned()));
                let method = method.ok_or("one of its inputRequests is no request")?;
                let params = object::get(&request, "params").unwrap_or_default();
                questions.push(Question { key, method, params });
            }
        }
        if questions.len() > limits::MAX_CALL_QUESTIONS {
            return Err("it asks too much at once");
        }
        // 2026-07-28, MRTR, Server Requirements: at least one of both MUST be there.
        if questions.is_empty() && state.is_none() {
            return Err("it wants input and does not say which");
        }
        Ok(Some(Self { questions, state }))
    }
}

/// The result that asks a modern client these questions.
pub(in crate::agent) fn input_required<'a>(questions: impl IntoIterator<Item = &'a Question>, state: &str) -> Bytes {
    let requests: Vec<String> = questions
        .into_iter()
        .map(|question| {
            let params = core::str::from_utf8(&question.params).unwrap_or_default();
            let params = if params.is_empty() { String::new() } else { format!(",\"params\":{params}") };
            format!("{}:{{\"method\":{}{params}}}", quoted(&question.key), quoted(&question.method))
        })
        .collect();
    let (requests, state) = (requests.join(","), quoted(state));
    Bytes::from(format!(
        "{{\"resultType\":\"input_required\",\"inputRequests\":{{{requests}}},\"requestState\":{state}}}"
    ))
}

/// The pages that a legacy server's error wants visited first (2025-11-25, `URLElicitationRequiredError`), as questions.
pub(in crate::agent) fn pages(error: &Bytes) -> Vec<Question> {
    let raw = object::get_path(error, &["data", "elicitations"]).unwrap_or_default();
    let list: Vec<&RawValue> = serde_json::from_slice(&raw).unwrap_or_default();
    let question = |(at, page): (usize, &&RawValue)| Question {
        key: format!("page-{}", at + 1),
        method: method::ELICITATION.into(),
        params: Bytes::copy_from_slice(page.get().as_bytes()),
    };
    list.iter()
        .filter(|page| page.get().starts_with('{'))
        .take(limits::MAX_CALL_QUESTIONS)
        .enumerate()
        .map(question)
        .collect()
}

/// A modern server's call once more, with answers (raw, by their keys) and the state that it gave.
pub(in crate::agent) fn retry(params: &Bytes, answers: &BTreeMap<String, Bytes>, state: Option<&Bytes>) -> Bytes {
    let Ok(object) = Object::parse_or_empty(params) else { return params.clone() };
    let members: Vec<String> = answers
        .iter()
        .map(|(key, raw)| format!("{}:{}", quoted(key), core::str::from_utf8(raw).unwrap_or("null")))
        .collect();
    let answers = format!("{{{}}}", members.join(","));
    let mut set: Vec<(&str, &[u8])> = Vec::new();
    if !members.is_empty() {
        set.push((RESPONSES, answers.as_bytes()));
    }
    set.extend(state.map(|state| (STATE, &state[..])));
    object.set(&set)
}

/// What a modern client answered, raw, by the questions' keys.
pub(in crate::agent) fn responses(params: &Bytes) -> BTreeMap<String, Bytes> {
    let Some(Ok(object)) = object::get(params, RESPONSES).map(|raw| Object::parse(&raw)) else {
        return BTreeMap::new();
    };
    let read = |(key, raw): (Bytes, Bytes)| Some((rpc::string(&key)?.into_owned(), raw));
    object.members().take(limits::MAX_MEMBERS).filter_map(read).collect()
}

/// The `requestState` that a modern client sends back; `Err`: what it sends is no text.
pub(in crate::agent) fn state_of(params: &Bytes) -> Result<Option<String>, &'static str> {
    match object::get(params, STATE) {
        None => Ok(None),
        Some(raw) => match rpc::string(&raw) {
            Some(text) => Ok(Some(text.into_owned())),
            None => Err("requestState must be a text"),
        },
    }
}

/// The params without what only a modern server reads.
pub(in crate::agent) fn without_answers(params: &Bytes) -> Bytes {
    Object::parse(params).map_or_else(|_| params.clone(), |object| object.remove(&[RESPONSES, STATE]))
}

/// What a client with these (raw) capabilities would have to declare to be asked that; `None`: it may be asked.
pub(in crate::agent) fn missing(capabilities: &Bytes, method: &str, params: &Bytes) -> Option<&'static str> {
    let has = |path: &[&str]| object::get_path(capabilities, path).is_some_and(|raw| raw.starts_with(b"{"));
    let says = |key: &str| object::get(params, key);
    match method {
        method::SAMPLING if !has(&["sampling"]) => Some(r#"{"sampling":{}}"#),
        method::SAMPLING if says("tools").is_some() && !has(&["sampling", "tools"]) => {
            Some(r#"{"sampling":{"tools":{}}}"#)
        }
        method::ROOTS_LIST if !has(&["roots"]) => Some(r#"{"roots":{}}"#),
        method::ELICITATION => {
            let is_url = says("mode").and_then(|raw| rpc::string(&raw).map(|mode| mode == "url")) == Some(true);
            // An empty object stands for forms (2025-11-25 and 2026-07-28, elicitation, Capabilities).
            let forms = has(&["elicitation", "form"]) || has(&["elicitation"]) && !has(&["elicitation", "url"]);
            match is_url {
                true if !has(&["elicitation", "url"]) => Some(r#"{"elicitation":{"url":{}}}"#),
                false if !forms => Some(r#"{"elicitation":{"form":{}}}"#),
                true | false => None,
            }
        }
        _ => None,
    }
}

/// Whether a request of that method may be answered with questions (2026-07-28, MRTR, Supported Requests).
pub(in crate::agent) fn may_ask(method: &str) -> bool {
    matches!(method, method::TOOLS_CALL | method::PROMPTS_GET | method::RESOURCES_READ)
}

/// Whether a client can be asked that at all.
pub(in crate::agent) fn is_question(method: &str) -> bool {
    matches!(method, method::SAMPLING | method::ELICITATION | method::ROOTS_LIST)
}

/// A modern server's question as a legacy client wants it: a page to visit has an id there (2025-11-25, elicitation,
/// URL Mode), which the modern era does not know.
pub(in crate::agent) fn to_legacy(question: &Question, id: u64) -> Bytes {
    let is_url = object::get(&question.params, "mode").as_deref() == Some(b"\"url\"");
    match Object::parse(&question.params) {
        Ok(object) if question.method == method::ELICITATION && is_url && object.get(ELICITATION_ID).is_none() => {
            let own = quoted(&format!("mcp-local-tunnel-{id}"));
            object.set(&[(ELICITATION_ID, own.as_bytes())])
        }
        Ok(_) | Err(_) => question.params.clone(),
    }
}

const RESPONSES: &str = "inputResponses";
const STATE: &str = "requestState";
const ELICITATION_ID: &str = "elicitationId";

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use serde_json::{Value, json};

    use super::*;

    fn raw(value: &Value) -> Bytes {
        Bytes::from(value.to_string())
    }

    fn text(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn input_required_reads_back() {
        let questions = [
            Question { key: "a \"b\"".into(), method: "elicitation/create".into(), params: text(r#"{"n":1e400}"#) },
            Question { key: "c".into(), method: "roots/list".into(), params: Bytes::new() },
        ];
        let read = InputRequired::read(&input_required(&questions, "sealed")).unwrap().unwrap();
        assert_eq!(read, InputRequired { questions: questions.into(), state: Some(text("\"sealed\"")) });
    }

    #[test]
    fn other_results_are_no_questions_and_malformed_ones_are_faults() {
        for result in ["{}", "[]", r#"{"resultType":"complete","inputRequests":{}}"#] {
            assert_eq!(InputRequired::read(&text(result)), Ok(None), "{result}");
        }
        for rest in [
            "",
            r#","inputRequests":{}"#,
            r#","inputRequests":null"#,
            r#","inputRequests":[]"#,
            r#","inputRequests":{"a":{}}"#,
            r#","inputRequests":{"a":{"method":3}}"#,
        ] {
            let result = Bytes::from(format!(r#"{{"resultType":"input_required"{rest}}}"#));
            assert!(InputRequired::read(&result).is_err(), "{rest}");
        }
        let many = |count: usize| {
            let requests: Value = (0..count).map(|n| (n.to_string(), json!({"method": "roots/list"}))).collect();
            InputRequired::read(&raw(&json!({"resultType": "input_required", "inputRequests": requests})))
        };
        assert!(many(limits::MAX_CALL_QUESTIONS).is_ok() && many(limits::MAX_CALL_QUESTIONS + 1).is_err());
    }

    #[test]
    fn call_is_sent_again_with_answers_and_the_state_as_it_was() {
        let params = text(r#"{"name":"x","arguments":{"n":1.00}}"#);
        let answers = BTreeMap::from([("a".to_string(), text(r#"{"action":"accept","n":1e400}"#))]);
        let again = retry(&params, &answers, Some(&text(r#""s\u0041""#)));
        let expected = r#"{"name":"x","arguments":{"n":1.00},"inputResponses":{"a":{"action":"accept","n":1e400}},"requestState":"s\u0041"}"#;
        assert_eq!(again, text(expected));
        assert_eq!(responses(&again), answers);
        assert_eq!(state_of(&again), Ok(Some("sA".to_string())));
        assert_eq!(without_answers(&again), params);
        let third = retry(&again, &BTreeMap::from([("b".to_string(), text("1"))]), Some(&text("\"t\"")));
        assert_eq!(state_of(&third), Ok(Some("t".to_string())));
        assert_eq!(responses(&third).len(), 1, "answers are of one round");
        assert_eq!(retry(&params, &BTreeMap::new(), None), params);
    }

    #[test]
    fn odd_answers_are_none() {
        for params in ["", "{}", r#"{"inputResponses":3}"#, r#"{"inputResponses":[1]}"#] {
            assert_eq!(responses(&text(params)), BTreeMap::new());
        }
        assert_eq!(state_of(&text("{}")), Ok(None));
        assert!(state_of(&text(r#"{"requestState":3}"#)).is_err());
    }

    #[test]
    fn only_what_was_declared_may_be_asked() {
        for (capabilities, method, params, missing_) in [
            ("{}", "sampling/createMessage", "{}", Some(r#"{"sampling":{}}"#)),
            (r#"{"sampling":{}}"#, "sampling/createMessage", "{}", None),
            (r#"{"sampling":{}}"#, "sampling/createMessage", r#"{"tools":[]}"#, Some(r#"{"sampling":{"tools":{}}}"#)),
            (r#"{"sampling":{"tools":{}}}"#, "sampling/createMessage", r#"{"tools":[]}"#, None),
            (r#"{"sampling":null}"#, "sampling/createMessage", "{}", Some(r#"{"sampling":{}}"#)),
            ("", "roots/list", "", Some(r#"{"roots":{}}"#)),
            (r#"{"roots":{}}"#, "roots/list", "", None),
            ("{}", "elicitation/create", "{}", Some(r#"{"elicitation":{"form":{}}}"#)),
            (r#"{"elicitation":{}}"#, "elicitation/create", r#"{"mode":"form"}"#, None),
            (r#"{"elicitation":{}}"#, "elicitation/create", r#"{"mode":"url"}"#, Some(r#"{"elicitation":{"url":{}}}"#)),
            (r#"{"elicitation":{"url":{}}}"#, "elicitation/create", r#"{"mode":"url"}"#, None),
            (r#"{"elicitation":{"url":{}}}"#, "elicitation/create", "{}", Some(r#"{"elicitation":{"form":{}}}"#)),
            (r#"{"elicitation":{"url":{},"form":{}}}"#, "elicitation/create", "{}", None),
            ("{}", "ping", "", None),
        ] {
            assert_eq!(
                missing(&text(capabilities), method, &text(params)),
                missing_,
                "{capabilities} {method} {params}"
            );
        }
    }

    #[test]
    fn page_to_visit_gets_an_id_for_a_legacy_client() {
        let question = |method: &str, params| Question { key: "k".into(), method: method.into(), params: text(params) };
        let url = question("elicitation/create", r#"{"mode":"url","url":"https://a.example"}"#);
        let params = to_legacy(&url, 7);
        assert_eq!(object::get(&params, ELICITATION_ID), Some(text("\"mcp-local-tunnel-7\"")));
        for (method, params) in [
            ("elicitation/create", r#"{"mode":"form"}"#),
            ("elicitation/create", r#"{"mode":"url","elicitationId":"own"}"#),
            ("sampling/createMessage", r#"{"mode":"url"}"#),
            ("roots/list", ""),
        ] {
            let question = question(method, params);
            assert_eq!(to_legacy(&question, 7), question.params);
        }
    }
}

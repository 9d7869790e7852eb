//! What the tools and prompts do. Which there are, with their schemas, says `catalog.json`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::call::{Call, Outcome, Question, Stop};
use crate::catalog;
use crate::rpc::{Failure, quoted};
use crate::server::{Kind, Server};

pub(crate) const WATCHED: &str = "test://watched-resource";

pub(crate) async fn call(call: &Call) -> Outcome {
    let name = call.param("name");
    let name = name.as_str().ok_or_else(|| Failure::invalid("no name"))?;
    let said = |what: &str| call.argument(what).as_str().unwrap_or_default().to_owned();
    if let Some(result) = catalog::fixed("results", name) {
        return Ok(result.to_string());
    }
    match name {
        "test_headers" => text(&format!("region={} level={}", call.argument("region"), call.argument("level"))),
        "json_schema_2020_12_tool" => text(&format!("arguments: {}", call.raw)),
        "greet" => text(&format!("Hello, {}!", said("name"))),
        "test_tool_with_logging" => logging(call).await,
        "test_logging_tool" => {
            call.log("info", "only for who asked for it");
            text("logged")
        }
        "test_tool_with_progress" => progress(call, 2, Duration::from_millis(50)).await,
        "count" => progress(call, number(call, "steps", 5), Duration::from_millis(number(call, "delay_ms", 100))).await,
        "sleep" => asleep(call).await,
        "slow_compute" => {
            sleep(Duration::from_secs(number(call, "seconds", 1))).await;
            text(&format!("computed {}", said("label")))
        }
        "failing_job" => {
            sleep(Duration::from_secs(1)).await;
            failed("the job failed")
        }
        "protocol_error_job" => Err(Failure::new(-32603, "the job broke the protocol").into()),
        "test_reconnection" => {
            call.stream.cut();
            sleep(Duration::from_millis(200)).await;
            text("resumed")
        }
        "echo" => Ok(echo(call)),
        "echo_error" => Err(Failure::new(-32099, "as you asked").data(raw_arguments(call)).into()),
        "echo_notification" => {
            call.notify("notifications/example.com/echo", &raw_arguments(call));
            text("sent")
        }
        "seen" => text(&call.server.seen().to_string()),
        "test_trigger_tool_change" => changed(&call.server, Kind::Tools),
        "test_trigger_prompt_change" => changed(&call.server, Kind::Prompts),
        "test_trigger_resource_change" => changed(&call.server, Kind::Resources),
        "update_watched" => {
            call.server.update(WATCHED);
            text("updated")
        }
        "test_dynamic_tool" if call.server.added[Kind::Tools as usize].load(Ordering::Relaxed) => text("here for now"),
        _ => questions(call, name, &said).await,
    }
}

/// The tools that ask the client something.
async fn questions(call: &Call, name: &str, said: &(impl Fn(&str) -> String + Sync)) -> Outcome {
    match name {
        "test_sampling" => {
            let answer = call.ask("sample", "sampling/createMessage", sample(&said("prompt"), 100)).await?;
            text(&format!("LLM response: {}", answer["content"]["text"].as_str().unwrap_or_default()))
        }
        "test_elicitation" => {
            let wanted = json!({
                "username": {"type": "string", "description": "User's response"},
                "email": {"type": "string", "description": "User's email address"},
            });
            let answer = call.ask("user", "elicitation/create", form(&said("message"), &wanted)).await?;
            text(&format!("User response: {answer}"))
        }
        "test_elicitation_sep1034_defaults" | "test_elicitation_sep1330_enums" => {
            let schema = catalog::fixed("forms", name);
            let answer = call
                .ask("form", "elicitation/create", json!({"message": "Fill it in", "requestedSchema": schema}))
                .await?;
            text(&format!(
                "Elicitation completed: action={}, content={}",
                answer["action"].as_str().unwrap_or_default(),
                answer["content"]
            ))
        }
        "ask_url" => url(call).await,
        "ask_url_first" => {
            Err(Failure::new(-32042, "open it first").data(json!({"elicitations": [page("first")]}).to_string()).into())
        }
        "ask_and_give_up" => {
            call.ask_and_give_up("sampling/createMessage", &sample("never mind", 1));
            text("gave up")
        }
        "ask_ping" if call.modern => text("no pings in this era"),
        "ask_ping" => text(&format!("pong: {}", call.ask("ping", "ping", json!({})).await?)),
        "list_roots" | "test_input_required_result_list_roots" => {
            text(&format!("roots: {}", call.ask("client_roots", "roots/list", json!({})).await?["roots"]))
        }
        "test_input_required_result_elicitation" | "test_tool_with_task" => {
            text(&format!("Hello, {}!", ask_name(call).await?))
        }
        "test_input_required_result_sampling" => {
            let answer = call
                .ask("capital_question", "sampling/createMessage", sample("What is the capital of France?", 100))
                .await?;
            text(answer["content"]["text"].as_str().unwrap_or_default())
        }
        "test_input_required_result_request_state" | "test_input_required_result_tampered_state" => {
            let answer = call
                .ask("confirm", "elicitation/create", form("Please confirm", &json!({"ok": {"type": "boolean"}})))
                .await?;
            // In the legacy era the open call is the state.
            let kept = !call.modern || call.params.contains_key("requestState");
            let state = if kept { "state-ok" } else { "no state" };
            text(&format!("{state}: {}", answer["action"]))
        }
        "test_input_required_result_multiple_inputs" => text(&json!(call.ask_all(&three()).await?).to_string()),
        "test_input_required_result_multi_round" => {
            let first = form("Step 1: What is your name?", &json!({"name": {"type": "string"}}));
            let first = call.ask("step1", "elicitation/create", first).await?;
            let second = form("Step 2: What is your favorite color?", &json!({"color": {"type": "string"}}));
            let second = call.ask("step2", "elicitation/create", second).await?;
            text(&format!("{} likes {}", first["content"]["name"], second["content"]["color"]))
        }
        "test_input_required_result_capabilities" => {
            let able: Vec<Question<'_>> =
                three().into_iter().filter(|(_, method, params)| call.can(method, params).is_ok()).collect();
            text(&json!(call.ask_all(&able).await?).to_string())
        }
        "test_missing_capability" => {
            call.can("sampling/createMessage", &Value::Null)?;
            text("the client can sample")
        }
        "test_streaming_elicitation" => {
            call.progress(0, 1);
            text(
                &call
                    .ask("go", "elicitation/create", form("Go on?", &json!({"go": {"type": "boolean"}})))
                    .await?
                    .to_string(),
            )
        }
        "confirm_delete" => {
            let wanted = form(&format!("Delete {}?", said("filename")), &json!({"confirm": {"type": "boolean"}}));
            text(&format!("answer: {}", call.ask("confirm", "elicitation/create", wanted).await?))
        }
        "multi_input" => {
            let [one, two] =
                ["one", "two"].map(|key| (key, "elicitation/create", form(key, &json!({"name": {"type": "string"}}))));
            text(&json!(call.ask_all(&[one, two]).await?).to_string())
        }
        _ => Err(Failure::invalid(format!("Unknown tool: {name}")).into()),
    }
}

pub(crate) async fn ask_name(call: &Call) -> Result<String, Stop> {
    let wanted = form("What is your name?", &json!({"name": {"type": "string"}}));
    let answer = call.ask("user_name", "elicitation/create", wanted).await?;
    Ok(answer["content"]["name"].as_str().unwrap_or("stranger").to_owned())
}

fn three() -> [Question<'static>; 3] {
    [
        ("user_name", "elicitation/create", form("What is your name?", &json!({"name": {"type": "string"}}))),
        ("greeting", "sampling/createMessage", sample("Generate a greeting", 50)),
        ("client_roots", "roots/list", json!({})),
    ]
}

async fn logging(call: &Call) -> Outcome {
    call.log("info", "Tool execution started");
    sleep(Duration::from_millis(50)).await;
    call.log("info", "Tool processing data");
    call.log("debug", "Only for who wants everything");
    sleep(Duration::from_millis(50)).await;
    call.log("info", "Tool execution completed");
    text("logged three times")
}

async fn progress(call: &Call, steps: u64, delay: Duration) -> Outcome {
    for step in 0..steps {
        call.progress(step * 100 / steps, 100);
        sleep(delay).await;
    }
    call.progress(100, 100);
    text(&format!("took {steps} steps"))
}

/// A long call that tells when it has begun; whoever cancels it is `seen`.
async fn asleep(call: &Call) -> Outcome {
    struct Woken<'a>(&'a Server);
    impl Drop for Woken<'_> {
        fn drop(&mut self) {
            self.0.saw("cancelled sleep");
        }
    }
    let woken = Woken(&call.server);
    call.progress(0, 1);
    sleep(Duration::from_millis(number(call, "ms", 60_000))).await;
    std::mem::forget(woken);
    text("slept well")
}

/// A person is sent to a page; that they are done there is said by a notification, in the legacy era.
async fn url(call: &Call) -> Outcome {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = format!("visit-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mut wanted = page(&id);
    if call.modern {
        wanted.as_object_mut().map(|wanted| wanted.remove("elicitationId"));
    }
    let answer = call.ask("visit", "elicitation/create", wanted).await?;
    if !call.modern && answer["action"] == "accept" {
        call.notify("notifications/elicitation/complete", &json!({"elicitationId": id}).to_string());
    }
    text(&format!("visit: {}", answer["action"]))
}

fn page(id: &str) -> Value {
    json!({"mode": "url", "elicitationId": id, "message": "Please visit", "url": "https://example.com/visit"})
}

/// `params` as text, `arguments` as they came, and members that no specification knows.
fn echo(call: &Call) -> String {
    format!(
        r#"{{"content":[{{"type":"text","text":{},"_meta":{{"example.com/inner":null}}}}],"echo":{},"example.com/unknown":[null,1.50,123456789012345678901234567890],"_meta":{{"example.com/kept":true}}}}"#,
        quoted(&call.raw),
        raw_arguments(call),
    )
}

fn raw_arguments(call: &Call) -> String {
    call.params.get("arguments").map_or("{}", |raw| raw.get()).to_owned()
}

fn changed(server: &Server, kind: Kind) -> Outcome {
    server.toggle(kind);
    text("changed")
}

pub(crate) async fn prompt(call: &Call) -> Outcome {
    call.take_answers()?;
    let said = |what: &str| call.argument(what).as_str().unwrap_or_default().to_owned();
    let name = call.param("name");
    let user = |content: Value| json!({"role": "user", "content": content});
    let words = |text: &str| user(json!({"type": "text", "text": text}));
    if let Some(prompt) = name.as_str().and_then(|name| catalog::fixed("messages", name)) {
        return Ok(prompt.to_string());
    }
    let messages = match name.as_str().unwrap_or_default() {
        "test_prompt_with_arguments" => {
            json!([words(&format!("Prompt with arguments: arg1='{}', arg2='{}'", said("arg1"), said("arg2")))])
        }
        "test_prompt_with_embedded_resource" => json!([
            user(embedded(&said("resourceUri"), "text/plain", "Embedded resource content for testing.")),
            words("Please process the embedded resource above."),
        ]),
        "test_input_required_result_prompt" => {
            let wanted = form("What context should the prompt use?", &json!({"context": {"type": "string"}}));
            let answer = call.ask("user_context", "elicitation/create", wanted).await?;
            json!([words(&format!("Context: {}", answer["content"]["context"]))])
        }
        "test_dynamic_prompt" if call.server.added[Kind::Prompts as usize].load(Ordering::Relaxed) => {
            json!([words("here for now")])
        }
        name => return Err(Failure::invalid(format!("Unknown prompt: {name}")).into()),
    };
    Ok(json!({"description": name, "messages": messages, "example.com/unknown": {}}).to_string())
}

fn number(call: &Call, name: &str, otherwise: u64) -> u64 {
    call.argument(name).as_u64().unwrap_or(otherwise)
}

fn form(message: &str, properties: &Value) -> Value {
    let required: Vec<&String> = properties.as_object().into_iter().flat_map(serde_json::Map::keys).collect();
    json!({"message": message, "requestedSchema": {"type": "object", "properties": properties, "required": required}})
}

fn sample(prompt: &str, tokens: u64) -> Value {
    json!({"messages": [{"role": "user", "content": {"type": "text", "text": prompt}}], "maxTokens": tokens})
}

fn embedded(uri: &str, kind: &str, text: &str) -> Value {
    json!({"type": "resource", "resource": {"uri": uri, "mimeType": kind, "text": text}})
}

fn text(text: &str) -> Outcome {
    content(json!([{"type": "text", "text": text}]))
}

fn failed(text: &str) -> Outcome {
    Ok(json!({"content": [{"type": "text", "text": text}], "isError": true}).to_string())
}

fn content(content: Value) -> Outcome {
    Ok(json!({"content": content}).to_string())
}

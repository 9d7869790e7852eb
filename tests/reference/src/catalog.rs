//! The lists, read from `catalog.json`, with their pages; resources; completion.

use std::sync::LazyLock;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::call::{Call, Outcome};
use crate::rpc::Failure;
use crate::server::Kind;
use crate::tools::WATCHED;

static CATALOG: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("catalog.json")).expect("catalog.json is JSON"));

/// What is always the same: a tool's result, a prompt, the form of an elicitation.
pub(crate) fn fixed(kind: &str, name: &str) -> Option<&'static Value> {
    CATALOG[kind].get(name)
}

/// The headers that mirror a tool's arguments: the argument and the header's name.
pub(crate) fn mirrored(tool: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let tools = CATALOG["tools"].as_array().into_iter().flatten();
    let properties =
        tools.filter(move |one| one["name"] == tool).filter_map(|one| one["inputSchema"]["properties"].as_object());
    properties.flatten().filter_map(|(name, schema)| Some((name.as_str(), schema["x-mcp-header"].as_str()?)))
}

/// A page of a list; the cursor is where it begins.
pub(crate) fn page(call: &Call, list: &str) -> Outcome {
    let mut all: Vec<&Value> = CATALOG[list].as_array().into_iter().flatten().collect();
    let extra = [(Kind::Tools, "tools"), (Kind::Prompts, "prompts"), (Kind::Resources, "resources")];
    for (kind, _) in
        extra.iter().filter(|(kind, of)| *of == list && call.server.added[*kind as usize].load(Ordering::Relaxed))
    {
        all.push(&CATALOG["added"][*kind as usize]);
    }
    let cursor = call.param("cursor");
    let start = match cursor.as_str() {
        None => 0,
        Some(cursor) => cursor
            .parse()
            .ok()
            .filter(|start| (1..all.len()).contains(start))
            .ok_or_else(|| Failure::invalid("no such cursor"))?,
    };
    let end = call.server.page.map_or(all.len(), |size| all.len().min(start + size));
    let mut page = json!({list: all[start..end]});
    if end < all.len() {
        page["nextCursor"] = end.to_string().into();
    }
    Ok(cached(call, page).to_string())
}

pub(crate) fn read(call: &Call) -> Outcome {
    let uri = call.param("uri");
    let uri = uri.as_str().unwrap_or_default();
    let text = |kind: &str, text: String| json!({"uri": uri, "mimeType": kind, "text": text});
    let contents = match uri {
        "test://static-text" => text("text/plain", "This is the content of the static text resource.".to_owned()),
        "test://static-binary" => json!({"uri": uri, "mimeType": "image/png", "blob": CATALOG["png"]}),
        WATCHED => text("text/plain", format!("updated {} times", call.server.updates.load(Ordering::Relaxed))),
        "test://dynamic" if call.server.added[Kind::Resources as usize].load(Ordering::Relaxed) => {
            text("text/plain", "here for now".to_owned())
        }
        _ => match uri.strip_prefix("test://template/").and_then(|rest| rest.strip_suffix("/data")) {
            Some(id) if !id.is_empty() => {
                let data = json!({"id": id, "templateTest": true, "data": format!("Data for ID: {id}")});
                text("application/json", data.to_string())
            }
            _ => {
                let code = if call.modern { -32602 } else { -32002 };
                return Err(Failure::new(code, "Resource not found").data(json!({"uri": uri}).to_string()).into());
            }
        },
    };
    Ok(cached(call, json!({"contents": [contents]})).to_string())
}

/// Names that begin as the argument does.
pub(crate) fn complete(call: &Call) -> String {
    let (of, argument) = (call.param("ref"), call.param("argument"));
    let names = if of["type"] == "ref/resource" { ["1", "12", "123"] } else { ["paris", "park", "party"] };
    let begun = argument["value"].as_str().unwrap_or_default();
    let values: Vec<&str> = names.into_iter().filter(|name| name.starts_with(begun)).collect();
    json!({"completion": {"values": values, "total": values.len(), "hasMore": false}}).to_string()
}

/// With how long it holds, in the era that wants to know.
fn cached(call: &Call, mut result: Value) -> Value {
    if call.modern {
        (result["ttlMs"], result["cacheScope"]) = (1000.into(), "public".into());
    }
    result
}

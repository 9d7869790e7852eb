//! JSON as it was written: unlike `serde_json::Value`, keys that are given twice stay visible.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

/// A JSON value. The depth of nesting is bounded by `serde_json` (128).
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    Array(Vec<Json>),
    /// Members in the order of the document.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The text, if it is one.
    pub(super) fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// What kind of value it is, for people.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// Reads `text`; the error says what is wrong and where, without repeating any of it.
pub(super) fn parse(text: &str) -> Result<Json, String> {
    serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        match error.classify() {
            Category::Eof if text.trim().is_empty() => {
                "is empty: it must be a JSON object, as in {\"mode\": \"relay\", …}".into()
            }
            Category::Eof => format!("is not valid JSON: it ends in the middle, at line {line}, column {column}"),
            Category::Io | Category::Syntax | Category::Data => {
                let whole = format!("{error}");
                let what = whole.split(" at line ").next().unwrap_or("a syntax error");
                let hint = hint(text, line, column);
                format!("is not valid JSON: {what} at line {line}, column {column}{hint}")
            }
        }
    })
}

/// What people who write JSON by hand most often mean at this place.
fn hint(text: &str, line: usize, column: usize) -> &'static str {
    let Some(line) = text.lines().nth(line.saturating_sub(1)) else { return "" };
    let at = line.char_indices().map(|(at, _)| at).take_while(|at| *at < column).last().unwrap_or(0);
    match line.get(at..).and_then(|rest| rest.chars().next()) {
        Some('/' | '#') => "; comments are no part of JSON: remove them",
        Some('}' | ']') => "; a comma after the last entry must go",
        Some('\'' | '“' | '”') => "; texts stand between \"straight double quotes\"",
        _ => "",
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Builder)
    }
}

struct Builder;

impl<'de> Visitor<'de> for Builder {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = array.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = object.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }
}

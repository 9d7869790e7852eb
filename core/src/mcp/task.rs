//! Tasks, as far as anybody between client and server has to know them (2025-11-25, Tasks; extension
//! `io.modelcontextprotocol/tasks`).

use alloc::string::String;

use bytes::Bytes;

use crate::limits;
use crate::rpc::{self, object};

/// The id of the task that a result tells of, in either era's shape. Only a short result is looked at: one that makes a
/// task is.
pub(crate) fn id_in(result: &Bytes) -> Option<String> {
    if result.len() > limits::MAX_TASK_ANSWER {
        return None;
    }
    let text = core::str::from_utf8(result).ok().filter(|text| text.contains("taskId"))?;
    let raw = object::get_path(result, &["task", "taskId"]).or_else(|| {
        let is_task =
            text.contains("resultType") && object::get(result, "resultType").is_some_and(|raw| raw == "\"task\"");
        object::get(result, "taskId").filter(|_| is_task)
    })?;
    rpc::string(&raw).map(|id| id.into_owned())
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn ids_are_found_in_both_shapes() {
        for (result, expected) in [
            (r#"{"task":{"taskId":"a","status":"working"}}"#, Some("a")),
            (r#"{"resultType":"task","taskId":"a"}"#, Some("a")),
            (r#"{"resultType":"complete","taskId":"a"}"#, None),
            (r#"{"taskId":"a","resultTypes":1}"#, None),
            (r#"{"content":[{"type":"text","text":"taskId"}]}"#, None),
            (r#"{"task":{"taskId":1}}"#, None),
            (r#"{"task":"taskId"}"#, None),
            ("taskId", None),
        ] {
            assert_eq!(id_in(&Bytes::from(result)).as_deref(), expected, "{result}");
        }
        let long = format!(r#"{{"task":{{"taskId":"a","x":"{}"}}}}"#, "x".repeat(limits::MAX_TASK_ANSWER));
        assert_eq!(id_in(&Bytes::from(long)), None);
    }
}

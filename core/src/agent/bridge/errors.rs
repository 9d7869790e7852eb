//! Errors whose code is another in the other era.

use alloc::string::String;

use bytes::Bytes;

use crate::mcp::{code, method};
use crate::rpc::object::{self, Object};
use crate::rpc::{self, envelope};

/// A legacy server's error as a modern client knows it: a resource that does not exist is -32602, and -32002 MUST NOT be
/// used. A code that has a meaning in the modern era alone cannot have been meant so; -32042 has none there any more
/// (2026-07-28, basic, Error Codes).
pub(in crate::agent) fn to_modern(code: i64, error: &Bytes) -> (i64, Bytes) {
    match code {
        code::RESOURCE_NOT_FOUND => with_code(code::INVALID_PARAMS, error),
        code::HEADER_MISMATCH
        | code::MISSING_CAPABILITY
        | code::UNSUPPORTED_VERSION
        | code::URL_ELICITATION_REQUIRED => with_code(code::INTERNAL_ERROR, error),
        _ => (code, error.clone()),
    }
}

/// A modern server's error as a legacy client knows it (2025-11-25, resources, Error Handling), whose era has no errors
/// of the modern one alone. `params` are the request's: without a URI they are really invalid.
pub(in crate::agent) fn to_legacy(method: &str, params: &Bytes, code: i64, error: &Bytes) -> (i64, Bytes) {
    let names_one = || object::get(params, "uri").is_some_and(|raw| rpc::string(&raw).is_some());
    match code {
        code::INVALID_PARAMS if method == method::RESOURCES_READ && names_one() => {
            with_code(code::RESOURCE_NOT_FOUND, error)
        }
        // What both sides can do is negotiated there, and -32602 is what says that it does not fit (2025-11-25,
        // Lifecycle, Error Handling).
        code::MISSING_CAPABILITY => with_code(code::INVALID_PARAMS, error),
        // About what this agent sent: no fault of the client's.
        code::HEADER_MISMATCH | code::UNSUPPORTED_VERSION => with_code(code::INTERNAL_ERROR, error),
        _ => (code, error.clone()),
    }
}

/// The error of a call that cannot go on since its client lacks what the server needs (2026-07-28,
/// `MissingRequiredClientCapabilityError`).
pub(in crate::agent) fn missing_capability(required: &str) -> Bytes {
    let data = required_capabilities(required);
    let message = "the server asks for what this client did not declare that it can";
    envelope::error_object(code::MISSING_CAPABILITY, message, Some(data.as_bytes()))
}

/// The `data` of such an error.
pub(in crate::agent) fn required_capabilities(required: &str) -> String {
    alloc::format!("{{\"requiredCapabilities\":{required}}}")
}

fn with_code(code: i64, error: &Bytes) -> (i64, Bytes) {
    let number = alloc::format!("{code}");
    let error =
        Object::parse(error).map_or_else(|_| error.clone(), |object| object.set(&[("code", number.as_bytes())]));
    (code, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn codes_of_the_legacy_era_are_mapped_and_the_rest_stays() {
        for (code, error, expected) in [
            (
                -32002,
                r#"{"code":-32002, "message":"m","data":{"uri":1.00}}"#,
                (-32602, r#"{"code":-32602, "message":"m","data":{"uri":1.00}}"#),
            ),
            (-32042, r#"{"code":-32042,"message":"m"}"#, (-32603, r#"{"code":-32603,"message":"m"}"#)),
            (-32601, r#"{"code":-32601,"message":"m"}"#, (-32601, r#"{"code":-32601,"message":"m"}"#)),
            (7, r#"{"code":7}"#, (7, r#"{"code":7}"#)),
            (-32000, r#"{"code":-32000}"#, (-32000, r#"{"code":-32000}"#)),
            (-32019, r#"{"code":-32019}"#, (-32019, r#"{"code":-32019}"#)),
            (
                -32020,
                r#"{"message":"own","code":-32020,"data":[1e400]}"#,
                (-32603, r#"{"message":"own","code":-32603,"data":[1e400]}"#),
            ),
            (-32021, r#"{"code":-32021}"#, (-32603, r#"{"code":-32603}"#)),
            (-32022, r#"{"code":-32022}"#, (-32603, r#"{"code":-32603}"#)),
            (-32099, r#"{"code":-32099}"#, (-32099, r#"{"code":-32099}"#)),
            (-32100, r#"{"code":-32100}"#, (-32100, r#"{"code":-32100}"#)),
        ] {
            assert_eq!(to_modern(code, &raw(error)), (expected.0, raw(expected.1)));
        }
    }

    #[test]
    fn only_a_resource_that_was_named_is_not_found() {
        let error = raw(r#"{"code":-32602,"message":"m"}"#);
        for (method, params, expected) in [
            ("resources/read", r#"{"uri":"a:b"}"#, -32002),
            ("resources/read", "{}", -32602),
            ("resources/read", r#"{"uri":3}"#, -32602),
            ("tools/call", r#"{"uri":"a:b"}"#, -32602),
        ] {
            assert_eq!(to_legacy(method, &raw(params), -32602, &error).0, expected, "{method} {params}");
        }
        assert_eq!(to_legacy("resources/read", &raw(r#"{"uri":"a:b"}"#), -32603, &error), (-32603, error));
    }

    #[test]
    fn codes_of_the_modern_era_are_not_told_to_a_legacy_client() {
        for (code, expected) in [(-32021, -32602), (-32020, -32603), (-32022, -32603), (-32602, -32602), (7, 7)] {
            let error = |code| Bytes::from(alloc::format!(r#"{{"code":{code}, "message":"m","data":{{"n":1.00}}}}"#));
            let told = to_legacy("tools/call", &Bytes::new(), code, &error(code));
            assert_eq!(told, (expected, error(expected)));
        }
    }

    #[test]
    fn missing_capability_names_it() {
        let error = missing_capability(r#"{"sampling":{}}"#);
        assert_eq!(object::get_path(&error, &["data", "requiredCapabilities", "sampling"]), Some(raw("{}")));
        assert_eq!(object::get(&error, "code"), Some(raw("-32021")));
    }
}

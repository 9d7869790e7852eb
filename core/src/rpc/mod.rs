//! JSON-RPC 2.0 over raw JSON: a message's id, method, params, result and error are found and cut out, never decoded
//! and encoded again (invariant A12).

use alloc::string::String;

use bytes::Bytes;

/// A message id as it stood in the JSON: `1` is not `"1"`. Always a raw JSON number or string.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RawId(pub Bytes);

/// One JSON-RPC message, cut into its parts. Each part shares the buffer that it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Expects an answer.
    Request {
        /// The raw id.
        id: RawId,
        /// The method, decoded.
        method: String,
        /// The raw params; empty when absent.
        params: Bytes,
    },
    /// Expects none.
    Notification {
        /// The method, decoded.
        method: String,
        /// The raw params; empty when absent.
        params: Bytes,
    },
    /// Answers a request.
    Response {
        /// The raw id; `null` where the peer could not read ours.
        id: Option<RawId>,
        /// `Ok`: the raw `result`; `Err`: the raw `error` object.
        outcome: Result<Bytes, Bytes>,
    },
}

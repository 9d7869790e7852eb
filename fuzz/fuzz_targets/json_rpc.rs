//! Any body: the envelope is read or refused, and its parts are parts of the body.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tunnel_core::rpc::{self, Message};

fuzz_target!(|data: &[u8]| {
    let body = Bytes::copy_from_slice(data);
    match rpc::parse(&body) {
        Ok(Message::Request { params, .. } | Message::Notification { params, .. }) => {
            assert!(params.is_empty() || data.windows(params.len()).any(|window| window == params));
        }
        Ok(Message::Response { .. }) | Err(_) => {}
    }
});

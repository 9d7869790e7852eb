//! The adapter that is tested.

pub(crate) use tunnel_runtime_async_std::*;

//! The runtime that this build runs on. Both export the same names.

#[cfg(all(feature = "async-std", not(feature = "tokio")))]
pub(crate) use tunnel_runtime_async_std::*;
#[cfg(feature = "tokio")]
pub(crate) use tunnel_runtime_tokio::*;

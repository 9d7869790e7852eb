//! The runtime that the program runs on. Features add up, and with both of them it is tokio.

use std::future::Future;

#[cfg(all(feature = "async-std", not(feature = "tokio")))]
pub(crate) use tunnel_runtime_async_std::*;
#[cfg(feature = "tokio")]
pub(crate) use tunnel_runtime_tokio::*;

use crate::failure::Failure;

/// Runs `work` to its end on all cores.
pub(crate) fn run<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    rt::run(work).map_err(|error| Failure::Failed(format!("cannot start the runtime: {error}")))?
}

/// Runs `work` to its end on this thread alone, where the runtime can: for what mostly waits.
pub(crate) fn run_small<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    rt::run_small(work).map_err(|error| Failure::Failed(format!("cannot start the runtime: {error}")))?
}

//! The runtime that this build runs on. Both export the same names; with both features on it is tokio.

use std::future::Future;
use std::time::Duration;

#[cfg(all(feature = "async-std", not(feature = "tokio")))]
pub(crate) use tunnel_runtime_async_std::*;
#[cfg(feature = "tokio")]
pub(crate) use tunnel_runtime_tokio::*;

use crate::failure::Failure;

/// Runs `work` to its end on all cores.
#[cfg(feature = "tokio")]
pub(crate) fn run<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(work)
}

/// Runs `work` to its end on all cores.
#[cfg(all(feature = "async-std", not(feature = "tokio")))]
pub(crate) fn run<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    async_std::task::block_on(work)
}

/// Waits.
pub(crate) async fn sleep(time: Duration) {
    #[cfg(feature = "tokio")]
    tokio::time::sleep(time).await;
    #[cfg(all(feature = "async-std", not(feature = "tokio")))]
    async_std::task::sleep(time).await;
}

//! What the operator or the system asks of the program while it runs.

use std::future::Future;

use tokio::sync::mpsc;

use crate::failure::Failure;
use crate::host::signal::{Asked, Signals};

/// Ends when SIGTERM or SIGINT comes. Signals are taken over at once, so that none is lost before it is awaited.
pub(crate) fn stop() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    Ok(taken_over()?.stop())
}

/// Everything that is asked, for as long as somebody listens.
pub(crate) fn asked() -> Result<mpsc::UnboundedReceiver<Asked>, Failure> {
    Ok(taken_over()?.forward())
}

fn taken_over() -> Result<Signals, Failure> {
    Signals::new().map_err(|error| Failure::Failed(format!("cannot take signals: {error}")))
}

//! What the last request of a connection brought, opened.

use alloc::sync::Arc;

use super::Session;
use crate::oauth::Principal;
use crate::seal::Memo;

/// The token and the session that a connection's last request had: its next one has most likely the same.
#[derive(Debug, Default)]
pub struct Opened {
    pub(super) principal: Memo<Arc<Principal>>,
    pub(super) session: Memo<Arc<Session>, Arc<Principal>>,
}

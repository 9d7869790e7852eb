//! What the tests of an agent's parts share: an agent with a driver that records, and a relay that is only words.

use std::string::ToString;

use super::cx::Cx;
use crate::entropy::Seeded;

/// A shared part by itself.
pub(super) fn cx() -> Cx {
    Cx::new(Seeded::new(1), "0.0.0".to_string())
}

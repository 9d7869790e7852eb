//! Plans that once failed: what each found, and the plan as it was made small.

use super::plan::Plan;

/// A plan and what it found.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Regression {
    /// In a line.
    pub found: String,
    /// The seed that it was found with; the plan may not be that seed's any more.
    pub seed: u64,
    /// The plan.
    pub plan: Plan,
}

/// All of them, the oldest first.
///
/// # Panics
///
/// When the list cannot be read: it is a part of the program.
#[must_use]
pub fn all() -> Vec<Regression> {
    let lines = include_str!("../../regressions.jsonl").lines().filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

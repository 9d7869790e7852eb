//! Seeded runs of the world: what is to happen is drawn as data, a model watches, and what fails is made small.
//!
//! | file | what lives there |
//! |---|---|
//! | `plan` | who is there and what is done to them, as data: drawn from a seed or from bytes, printed, read, cut down |
//! | `stage` | a plan's world and its people |
//! | `acts`, `batches` | what clients ask |
//! | `crowds` | clients that ask for much, or are far away |
//! | `news` | what they hear without asking |
//! | `decisions` | people at devices, who let calls pass |
//! | `dials` | how agents dial |
//! | `faults` | what goes wrong |
//! | `signin` | people with browsers, what they are given, and what that must open |
//! | `oracle` | the model: what may be answered, and what must never happen |
//! | `given_up` | calls that were given up, and go nowhere any more |
//! | `endings` | what is over, and must end soon |
//! | `errors` | which error a call has, and when |
//! | `streams` | what comes on streams, once |
//! | `heal` | the end of all faults, and what must hold soon after |
//! | `run` | one plan from start to end, and what came of it |
//! | `shrink` | the smallest plan that fails in the same way |
//! | `regressions` | plans that once failed |

mod acts;
mod batches;
mod crowds;
mod decisions;
mod dials;
mod endings;
mod errors;
mod faults;
mod given_up;
mod heal;
mod news;
mod oracle;
mod plan;
pub mod regressions;
mod run;
mod shrink;
mod signin;
mod stage;
mod streams;

pub use plan::Plan;
pub(crate) use run::caught;
pub use run::fuzz;
pub use run::{REQUIRED, Report, run};
pub use shrink::shrink;

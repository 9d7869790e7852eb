//! What this process has in its memory and its environment is its own.

/// Keeps other processes of the same user from reading this one's memory, environment and open files, or from being its
/// debugger: without this, a local server could take the agent's token from `/proc`. There are no core dumps of it
/// either. What it starts is not affected. Call it first of all; it is Linux's, elsewhere nothing happens.
pub fn keep_from_other_processes() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        // It fails for no value that there is.
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}

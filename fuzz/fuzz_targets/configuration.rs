//! Any text: a configuration or a list of problems, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(problems) = tunnel_core::config::parse(text) {
        assert!(!problems.is_empty(), "a refusal says why");
    }
});

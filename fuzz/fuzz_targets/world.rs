//! The simulated world, its plan drawn from bytes: relays, agents, clients, servers and faults, and what its model demands.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tunnel_world::sim::fuzz(data));

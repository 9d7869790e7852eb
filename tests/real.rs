//! The main job with real parts: an OpenID provider, the official clients and servers. `.ci/run` installs them and
//! names the Python that has `mcp` and `mcp-server-time` in `TUNNEL_PYTHON`.

use std::path::Path;
use std::process::Command;

#[test]
fn official_clients_use_real_servers_on_two_devices() {
    let parts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real");
    let Some(python) = std::env::var_os("TUNNEL_PYTHON").filter(|_| parts.join("node_modules").is_dir()) else {
        eprintln!("SKIPPED: real clients and servers are not installed; `.ci/run` installs them (Node.js and Python)");
        return;
    };
    let program = std::env::var_os("TUNNEL_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_mcp-local-tunnel").into());
    let status = Command::new("node")
        .arg(parts.join("main.mjs"))
        .arg(program)
        .arg(python)
        .status()
        .expect("node runs: its packages are installed");
    assert!(status.success(), "see the steps above");
}

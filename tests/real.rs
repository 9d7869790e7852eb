//! Real parts: OpenID providers, the official clients and servers, OAuth clients, conformance suites, a browser.
//! `.ci/run` installs them and names the Python that has `canaille`, `mcp` and `mcp-server-{git,time,fetch}`
//! (`requirements.txt`) in `TUNNEL_PYTHON`; without them each test says that it was skipped.

mod support;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// They measure times and use all processors: one after another.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn official_clients_use_real_servers_on_two_devices() {
    run("main.mjs", python());
}

#[test]
fn friendly_odd_and_evil_providers_sign_people_in_or_are_refused() {
    run("providers.mjs", python());
}

#[test]
fn pages_serve_people_in_a_real_browser() {
    run("pages.mjs", CHROMIUM.map(Path::new).into_iter().find(|path| path.is_file()).map(Into::into));
}

#[test]
fn other_peoples_oauth_clients_sign_in() {
    run("clients.mjs", node_22());
}

#[test]
fn conformance_suites_for_servers_and_clients_find_nothing() {
    run("conformance.mjs", node_22());
}

#[test]
fn conformance_through_the_tunnel_is_what_it_is_directly() {
    run("conformance-server.mjs", node_22().filter(|_| reference_is_built()));
}

#[test]
fn conformance_of_clients_through_the_tunnel_is_what_it_is_directly() {
    run("conformance-client.mjs", node_22());
}

#[test]
fn scripted_sessions_of_either_era_do_all_that_mcp_has() {
    run("sessions.mjs", python().filter(|_| reference_is_built()));
}

#[test]
fn every_client_sees_every_real_server_as_it_is_directly() {
    run("servers.mjs", python());
}

/// Where Debian and others put it. A browser is never fetched by a test.
const CHROMIUM: [&str; 2] = ["/usr/bin/chromium", "/usr/bin/chromium-browser"];

/// Runs a script of `tests/real` with the program and `part`, unless its parts are missing.
fn run(script: &str, part: Option<OsString>) {
    let parts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real");
    let Some(part) = part.filter(|_| parts.join("node_modules").is_dir()) else {
        // Whoever names the Python has installed everything: what is missing then is a fault.
        assert_eq!(python(), None, "{script}: its real parts are not installed");
        support::skip(&format!("{script}: its real parts are not installed; `.ci/run` installs them"));
        return;
    };
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let program = std::env::var_os("TUNNEL_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_mcp-local-tunnel").into());
    let status = Command::new("node")
        .env("TUNNEL_REFERENCE", reference())
        .arg(parts.join(script))
        .arg(program)
        .arg(part)
        .status()
        .expect("node runs: its packages are installed");
    assert!(status.success(), "see the steps above");
}

/// The tests' own MCP server; `cargo test --workspace` builds it beside the program.
fn reference() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_mcp-local-tunnel")).with_file_name("tunnel-reference")
}

fn reference_is_built() -> bool {
    let built = reference().is_file();
    if !built {
        support::skip("no tunnel-reference; `cargo build -p tunnel-reference` builds it");
    }
    built
}

/// The one that comes with the packages: some of them need 22, whatever the system has.
fn node_22() -> Option<OsString> {
    let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/node_modules/node/bin/node");
    node.is_file().then(|| node.into())
}

fn python() -> Option<OsString> {
    std::env::var_os("TUNNEL_PYTHON")
}

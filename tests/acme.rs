//! Certificates from an authority: Debian's `pebble`, on loopback. `.ci/run` installs it.
#![cfg(target_os = "linux")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use support::secure::{Made, Secure, ask, made, put};
use support::{Process, Scratch, eventually, free_port, run};

const HOST: &str = "relay.test";

#[test]
fn certificate_is_obtained_kept_and_used_again_without_the_authority() {
    let Some(mut authority) = Authority::start("acme-kept", None) else { return };
    let mut relay = authority.relay("acme-kept-relay", authority.tls_port);
    let roots = authority.roots();
    relay.ready(&roots);
    let reply = relay.try_get(&roots, "/").expect("an answer");
    assert_eq!(reply.header("strict-transport-security"), Some("max-age=31536000"));
    let first = shown(&relay, &roots);

    let folder = relay.file("kept/acme");
    // A new certificate is used first and kept then.
    let files = eventually("an account and a certificate are kept", Duration::from_secs(20), || {
        let files: Vec<_> = std::fs::read_dir(&folder).expect("it keeps them").flatten().collect();
        let whole = files.iter().all(|file| file.path().extension().is_none_or(|end| end != "new"));
        if files.len() == 2 && whole { Ok(files) } else { Err(format!("{files:?}")) }
    });
    for file in files {
        let mode = file.metadata().expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", file.path());
    }
    assert!(!relay.process.log().contains("PRIVATE KEY"));

    authority.process.kill();
    relay.process.kill();
    relay.process = Process::start(relay.home.path(), &relay.config, &[]);
    relay.process.line("the certificate that was kept is in use");
    relay.ready(&roots);
    assert_eq!(shown(&relay, &roots), first);
}

#[test]
fn certificate_is_renewed_before_it_ends() {
    let Some(authority) = Authority::start("acme-renewed", Some(30)) else { return };
    let relay = authority.relay("acme-renewed-relay", authority.tls_port);
    let roots = authority.roots();
    relay.ready(&roots);
    let first = shown(&relay, &roots);
    eventually("another certificate", Duration::from_secs(60), || {
        let now = shown(&relay, &roots);
        (now != first).then_some(()).ok_or_else(|| relay.process.log())
    });
    assert!(relay.process.log().matches("a new certificate is in use").count() >= 2, "{}", relay.process.log());
}

#[test]
fn relay_that_the_authority_does_not_find_says_why_and_goes_on() {
    let Some(authority) = Authority::start("acme-lost", None) else { return };
    // The authority looks where nobody listens.
    let mut relay = authority.relay("acme-lost-relay", free_port());
    let line = relay.process.line("no certificate this time");
    assert!(line.contains("tls.acme") && line.contains("did not find this relay at port 443 of relay.test"), "{line}");
    assert!(!line.contains("Some("), "in words: {line}");
    assert!(relay.process.is_running());
    assert!(relay.connect(&authority.roots()).is_err(), "there is nothing to show yet");
}

#[test]
fn authority_that_is_out_of_reach_is_named_in_words() {
    let home = Scratch::new("acme-unreachable");
    let nowhere = format!("https://127.0.0.1:{}/dir", free_port());
    let config = json!({
        "mode": "relay", "host": "127.0.0.1", "port": free_port(), "issuerUrl": "https://relay.test",
        "auth": {"local": {"users": [{"name": "ada", "passwordHash": support::PASSWORD_HASH.trim()}]}},
        "tls": {"acme": {"directory": nowhere}}, "stateDir": home.path().join("kept"),
    });
    let relay = Process::start(home.path(), &config, &[]);
    let line = relay.line("no certificate this time");
    assert!(line.contains("cannot be reached (Connection refused)") && line.contains("tls.acme.directory"), "{line}");
}

#[test]
fn authority_without_a_place_to_keep_certificates_is_an_error_at_the_start() {
    let home = Scratch::new("acme-stateless");
    std::fs::write(home.path().join("file"), "").expect("written");
    let config = json!({
        "mode": "relay", "host": "127.0.0.1", "port": free_port(), "issuerUrl": "https://relay.test",
        "auth": {"local": {"users": [{"name": "ada", "passwordHash": support::PASSWORD_HASH.trim()}]}},
        "tls": {"acme": {"directory": "https://127.0.0.1:1/dir"}}, "stateDir": home.path().join("file/below"),
    });
    let output = run(home.path(), &config, &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("tls.acme") && said.contains("stateDir"), "{said}");
}

/// The certificate that the relay shows.
fn shown(relay: &Secure, roots: &[CertificateDer<'static>]) -> CertificateDer<'static> {
    let session = relay.connect(roots).expect("a session");
    session.conn.peer_certificates().and_then(|chain| chain.first()).expect("a certificate").clone().into_owned()
}

/// A running authority, and the names that it knows: every one is this machine.
struct Authority {
    home: Scratch,
    own: Made,
    port: u16,
    management: u16,
    /// Where it looks for those who say that a name is theirs.
    tls_port: u16,
    _names: Process,
    process: Process,
}

impl Authority {
    /// `None`, said loudly, where it is not installed. `validity`: how many seconds its certificates live.
    fn start(name: &str, validity: Option<u64>) -> Option<Self> {
        let quiet = |program: &str| {
            Command::new(program).arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
        };
        if !quiet("pebble") || !quiet("pebble-challtestsrv") {
            support::skip("the authority `pebble` is not installed; `.ci/run` installs it (Debian: pebble)");
            return None;
        }
        let home = Scratch::new(name);
        let [port, management, tls_port, http_port, dns, dns_management] = std::array::from_fn(|_| free_port());
        let own = made("localhost");
        let path = |name: &str| home.path().join(name);
        put(&path("cert.pem"), &own.cert);
        put(&path("key.pem"), &own.key);
        let mut config = json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{port}"), "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": path("cert.pem"), "privateKey": path("key.pem"),
            "httpPort": http_port, "tlsPort": tls_port, "externalAccountBindingRequired": false,
        }});
        if let Some(validity) = validity {
            config["pebble"]["certificateValidityPeriod"] = json!(validity);
        }
        put(&path("config.json"), &config.to_string());
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""]);
        names.args(["-dns01", &format!("127.0.0.1:{dns}"), "-management", &format!("127.0.0.1:{dns_management}")]);
        let mut program = Command::new("pebble");
        program.arg("-config").arg(path("config.json")).args(["-dnsserver", &format!("127.0.0.1:{dns}")]);
        program.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "0");
        let (names, process) = (Process::of(names), Process::of(program));
        let authority = Self { home, own, port, management, tls_port, _names: names, process };
        eventually("the authority is up", Duration::from_secs(20), || {
            ask("localhost", port, &authority.trust(), "GET", "/dir", &[], b"").map_err(|error| error.to_string())
        });
        Some(authority)
    }

    /// A relay that asks it for a certificate. It listens on `port`.
    fn relay(&self, name: &str, port: u16) -> Secure {
        let ca: &Path = &self.home.path().join("cert.pem");
        let directory = format!("https://localhost:{}/dir", self.port);
        let home = Scratch::new(name);
        let state = home.path().join("kept");
        let config = json!({
            "mode": "relay", "host": "127.0.0.1", "port": port, "issuerUrl": format!("https://{HOST}:{port}"),
            "auth": {"local": {"users": [{"name": "ada", "passwordHash": support::PASSWORD_HASH.trim()}]}},
            "tls": {"acme": {"email": "ops@relay.test", "directory": directory, "caFile": ca}}, "stateDir": state,
        });
        let process = Process::start(home.path(), &config, &[]);
        Secure { home, config, port, host: HOST, process }
    }

    /// What its own port is known by.
    fn trust(&self) -> [CertificateDer<'static>; 1] {
        [self.own.der.clone()]
    }

    /// What vouches for the certificates that it makes.
    fn roots(&self) -> [CertificateDer<'static>; 1] {
        let reply = ask("localhost", self.management, &self.trust(), "GET", "/roots/0", &[], b"").expect("an answer");
        [CertificateDer::from_pem_slice(&reply.body).expect("a certificate")]
    }
}

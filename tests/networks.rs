//! Networks as laptops meet them: proxies, captive portals, links that are cut, addresses that change.
#![cfg(target_os = "linux")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use support::scripted::*;
use support::{Client, Process, Relay, Scratch, eventually, program};

#[test]
fn tunnel_and_sign_in_go_through_the_proxy_and_nothing_learns_its_password() {
    let relay = Evil::start();
    let (port, asked) = proxy(relay.port);
    let url = format!("http://me:pass%20word@127.0.0.1:{port}");
    let home = Scratch::new("proxy");
    std::fs::write(home.path().join("token"), TOKEN).expect("its home can be written");
    let config = json!({
        "mode": "agent", "relay": "http://relay.test:8080", "name": "device",
        "servers": {"local": {"command": [program(), "demo-server"]}},
        "token": format!("file:{}", home.path().join("token").display()),
    });
    let proxied = |command: &mut Command| {
        command.env("http_proxy", &url).env_remove("no_proxy").env_remove("NO_PROXY");
    };
    let process = Process::start_with(home.path(), &config, &["--allow-insecure", "agent", "--foreground"], proxied);
    let (head, socket) = relay.dial();
    assert!(
        head.starts_with("GET /ws?name=device ") && head.to_lowercase().contains("\r\nhost: relay.test:8080\r\n"),
        "{head}"
    );
    let tunnel = Tunnel::accept((head, socket), Arc::default());
    tunnel.catalog_with("echo");
    let connect = asked.lock().expect("no writer panics").clone();
    assert!(connect.starts_with("CONNECT relay.test:8080 HTTP/1.1\r\n"), "{connect}");
    assert!(connect.to_lowercase().contains("proxy-authorization: basic bwu6cgfzcyb3b3jk"), "{connect}");
    assert!(!process.log().contains("pass word") && !process.log().contains("pass%20"), "{}", process.log());
    for pid in support::descendants(process.pid()) {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&environment).contains("pass%20"), "a server knows the proxy's password");
    }

    let signing = Process::start_with(home.path(), &config, &["--allow-insecure", "login"], proxied);
    let (head, _socket) = relay.dial();
    assert!(head.starts_with("GET /.well-known/oauth-authorization-server "), "{head}\n{}", signing.log());
}

#[test]
fn captive_portal_is_named_and_waited_out_with_the_same_token() {
    let mut relay = Relay::start("portal");
    let agent = relay.agent("laptop", &json!({"local": {"command": [program(), "demo-server"]}}));
    Client::connect(&relay).until_listed("local__echo");
    let server = agent.pids()["local"];
    relay.process.kill();
    let portal = Portal::open(relay.port);
    agent.nudge();
    agent.last_error_with("sign-in page", "the portal is named");
    drop(portal);
    relay.process = Process::start(relay.home.path(), &relay.config, &[]);
    relay.ready();
    agent.nudge();
    Client::connect(&relay).until_listed("local__echo");
    assert_eq!(agent.pids()["local"], server, "its server never noticed");
}

#[test]
fn minted_token_outlives_a_network_that_asks_for_a_password() {
    let relay = Evil::start();
    let mut agent = relay.agent("password");
    let ask = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"hotel\"\r\nContent-Length: 0\r\n\r\n";
    for answer in [ask, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"] {
        let (_, mut socket) = relay.dial_after(&agent);
        socket.write_all(answer.as_bytes()).expect("the agent reads");
        agent.last_error_with("something in between", "it is told");
    }
    let tunnel = Tunnel::accept(relay.dial_after(&agent), Arc::default());
    tunnel.catalog_with("echo");
    assert!(agent.process.is_running());
}

#[test]
fn changed_address_is_noticed_long_before_the_pings_would() {
    let Some(net) = Namespace::new() else { return };
    let listener = TcpListener::bind((HERE, 0)).expect("the address is ours");
    listener.set_nonblocking(true).expect("sets");
    let port = listener.local_addr().expect("bound").port();
    let home = Scratch::new("address");
    std::fs::write(home.path().join("token"), TOKEN).expect("its home can be written");
    let config = json!({
        "mode": "agent", "relay": format!("http://{HERE}:{port}"), "name": "device", "servers": {},
        "token": format!("file:{}", home.path().join("token").display()),
    });
    let process = net.start(&home, &config);
    let accept = |from: &str| {
        let dialled = || listener.accept().map_err(|_| process.log());
        let (mut socket, peer) = eventually("the agent dials", Duration::from_secs(40), dialled);
        socket.set_nonblocking(false).expect("sets");
        assert_eq!(peer.ip().to_string(), from);
        Tunnel::accept((read_head(&mut socket), socket), Arc::default())
    };
    let tunnel = accept("10.213.77.2");
    process.line("connected to the relay");

    // The link goes without a word, and comes back under another address.
    ip(&["link", "set", &net.link, "down"]);
    net.ip(&["addr", "del", "10.213.77.2/24", "dev", "eth0"]);
    net.ip(&["addr", "add", "10.213.77.3/24", "dev", "eth0"]);
    let begun = Instant::now();
    process.line("the network changed");
    process.line("tunnel closed");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    ip(&["link", "set", &net.link, "up"]);
    let _again = accept("10.213.77.3");
    drop(tunnel);
    eventually("it is connected again", Duration::from_secs(10), || {
        let times = process.log().matches("connected to the relay").count();
        if times == 2 { Ok(()) } else { Err(format!("{times} times")) }
    });
}

// --- a proxy

/// A proxy that connects everybody to `port` here, whatever they ask for; its port, and the last request's head.
fn proxy(port: u16) -> (u16, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    let own = listener.local_addr().expect("bound").port();
    let asked = Arc::new(Mutex::new(String::new()));
    let heads = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            *heads.lock().expect("no reader panics") = read_head(&mut client);
            let server = TcpStream::connect(("127.0.0.1", port)).expect("the relay listens");
            drop(client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n"));
            pass(&client, &server);
            pass(&server, &client);
        }
    });
    (own, asked)
}

fn pass(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
    std::thread::spawn(move || {
        drop(std::io::copy(&mut from, &mut to));
        drop(to.shutdown(Shutdown::Write));
    });
}

// --- a captive portal

/// Sends everybody who asks for anything to its own page; gone when dropped.
struct Portal {
    open: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Portal {
    fn open(port: u16) -> Self {
        let bind = || TcpListener::bind(("127.0.0.1", port)).map_err(|error| error.to_string());
        let listener = eventually("the port is free", Duration::from_secs(10), bind);
        listener.set_nonblocking(true).expect("sets");
        let open = Arc::new(AtomicBool::new(true));
        let is_open = Arc::clone(&open);
        let thread = std::thread::spawn(move || {
            while is_open.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((mut socket, _)) => {
                        drop(socket.set_nonblocking(false));
                        read_head(&mut socket);
                        drop(socket.write_all(&redirect("http://portal.invalid/welcome")));
                        drop(socket.shutdown(Shutdown::Write));
                        drop(socket.read(&mut [0]));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        Self { open, thread: Some(thread) }
    }
}

impl Drop for Portal {
    fn drop(&mut self) {
        self.open.store(false, Ordering::Relaxed);
        drop(self.thread.take().map(std::thread::JoinHandle::join));
    }
}

// --- a network of its own

const HERE: &str = "10.213.77.1";

/// A network namespace, and the link to it; both go with the value.
struct Namespace {
    name: String,
    /// This end of the link.
    link: String,
}

impl Namespace {
    /// `None`, said loudly, where none can be had.
    fn new() -> Option<Self> {
        let number = std::process::id() % 100_000;
        let net = Self { name: format!("mlt-{number}"), link: format!("mlt{number}") };
        if !try_ip(&["netns", "add", &net.name]) {
            support::skip("network namespaces need root and `ip`");
            return None;
        }
        let made = try_ip(&["link", "add", &net.link, "type", "veth", "peer", "name", "eth0", "netns", &net.name]);
        if !made {
            support::skip("no virtual links here");
            return None;
        }
        ip(&["addr", "add", &format!("{HERE}/24"), "dev", &net.link]);
        ip(&["link", "set", &net.link, "up"]);
        net.ip(&["addr", "add", "10.213.77.2/24", "dev", "eth0"]);
        net.ip(&["link", "set", "eth0", "up"]);
        net.ip(&["link", "set", "lo", "up"]);
        Some(net)
    }

    fn ip(&self, args: &[&str]) {
        ip(&[&["-n", self.name.as_str()], args].concat());
    }

    /// An agent in it.
    fn start(&self, home: &Scratch, config: &serde_json::Value) -> Process {
        let program = program();
        let program = program.to_str().expect("a plain path");
        let args = ["netns", "exec", &self.name, program, "--allow-insecure", "agent", "--foreground"];
        Process::of(support::command_of("ip".as_ref(), home.path(), config, &args))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        try_ip(&["link", "del", &self.link]);
        try_ip(&["netns", "del", &self.name]);
    }
}

fn ip(args: &[&str]) {
    assert!(try_ip(args), "ip {args:?}");
}

fn try_ip(args: &[&str]) -> bool {
    Command::new("ip").args(args).output().is_ok_and(|output| output.status.success())
}

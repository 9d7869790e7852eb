//! Real processes on real sockets: what happens to calls, servers and memory when something dies, floods or stalls.

mod support;

use std::io::Read;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Client, Relay, Reply, descendants, eventually, program, runs};

fn demo_server() -> Value {
    json!({"command": [program(), "demo-server"]})
}

#[test]
fn tool_is_listed_called_and_streamed() {
    let relay = Relay::start("main-job");
    let _agent = relay.agent("laptop", &json!({"demo": demo_server()}));
    let mut client = Client::connect(&relay);
    client.until_listed("demo__echo");
    let answer = client.call("demo__echo", &json!({"text": "héllo"}));
    assert!(answer["result"].to_string().contains("héllo"), "{answer}");
    let params =
        json!({"name": "demo__countdown", "arguments": {"from": 3, "pause_ms": 50}, "_meta": {"progressToken": 7}});
    let reply = client.request("tools/call", &params);
    let messages = reply.messages();
    assert!(messages.iter().filter(|message| message["params"]["progressToken"] == 7).count() >= 3, "{messages:?}");
    assert!(messages.last().is_some_and(|message| message.get("result").is_some()), "{messages:?}");
}

#[test]
fn killed_relay_is_survived_by_everyone() {
    let mut relay = Relay::start("killed-relay");
    let agent = relay.agent("laptop", &json!({"demo": demo_server()}));
    let mut client = Client::connect(&relay);
    client.until_listed("demo__echo");
    let (parts, pids) = (client.parts(), agent.pids());
    assert!(pids["demo"] > 0);
    relay.kill_and_restart();
    let mut client = Client::resume(&relay, parts);
    client.until_listed("demo__echo");
    assert!(client.call("demo__echo", &json!({"text": "again"})).get("result").is_some(), "the same token and session");
    assert_eq!(agent.pids(), pids, "no server was restarted");
}

#[test]
fn killed_agent_leaves_no_process_and_its_calls_are_answered() {
    let relay = Relay::start("killed-agent");
    // A chain as `npx` makes it, and a grandchild that left its session and ignores every signal it can.
    let chain = json!({"command": ["sh", "-c", format!(
        "setsid sh -c 'trap \"\" TERM HUP INT; sleep 1000' & sleep 1000 & {} demo-server", program().display())]});
    let mut agent = relay.agent("laptop", &json!({"chain": chain, "demo": demo_server()}));
    let mut client = Client::connect(&relay);
    client.until_listed("demo__countdown");
    client.until_listed("chain__echo");
    let call = json!({"jsonrpc": "2.0", "id": 99, "method": "tools/call", "params": {"name": "demo__countdown", "arguments": {"from": 100, "pause_ms": 1000}}});
    let mut waiting = client.send(&call);
    std::thread::sleep(Duration::from_millis(300));
    let processes = descendants(agent.process.pid());
    assert!(processes.len() >= 6, "guards, shells, sleeps and servers: {processes:?}");
    agent.process.kill();
    let killed = Instant::now();
    let reply = Reply::read(&mut waiting).expect("the call is answered");
    assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
    let answer = reply.messages().pop().expect("with a message");
    assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("laptop")), "{answer}");
    eventually("no process is left", Duration::from_secs(2).saturating_sub(killed.elapsed()), || {
        let left: Vec<_> = processes.iter().filter(|pid| runs(**pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn stopped_agent_stops_its_servers() {
    let relay = Relay::start("stopped-agent");
    let mut agent = relay.agent("laptop", &json!({"demo": demo_server()}));
    let mut client = Client::connect(&relay);
    client.until_listed("demo__echo");
    let processes = descendants(agent.process.pid());
    assert!(!processes.is_empty());
    let pid = agent.process.pid().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
    assert_eq!(agent.process.wait(), Some(0), "{}", agent.process.log());
    assert!(processes.iter().all(|pid| !runs(*pid)), "all were gone before it was");
}

#[test]
fn bad_servers_hurt_nobody_else() {
    let relay = Relay::start("bad-servers");
    let garbage = format!("echo hello; printf '\\377\\376\\n{{\"half\\n'; exec {} demo-server", program().display());
    let agent = relay.agent(
        "laptop",
        &json!({
            "fine": demo_server(),
            "garbage": {"command": ["sh", "-c", garbage]},
            "exits": {"command": ["sh", "-c", "echo 'no display here' >&2; exit 7"]},
            "hangs": {"command": ["sh", "-c", "cat > /dev/null"], "startTimeout": 2},
            "floods": {"command": ["sh", "-c", "tr '\\0' x < /dev/zero"], "startTimeout": 5},
            "missing": {"command": ["/no/such/program"]},
        }),
    );
    let mut client = Client::connect(&relay);
    client.until_listed("fine__echo");
    client.until_listed("garbage__echo");
    let mut worst = Duration::ZERO;
    for _ in 0..50 {
        let start = Instant::now();
        assert!(client.call("fine__echo", &json!({"text": "x"})).get("result").is_some());
        worst = worst.max(start.elapsed());
    }
    assert!(worst < Duration::from_secs(2), "{worst:?}: others were held up");
    let reasons = eventually("reasons are known", Duration::from_secs(15), || {
        let status = client.call("status", &json!({})).to_string();
        let all = ["no display here", "7", "/no/such/program", "hangs"].iter().all(|word| status.contains(word));
        if all { Ok(status) } else { Err(status) }
    });
    assert!(reasons.contains("missing"));
    assert!(
        agent.process.peak_resident() < 300 << 20,
        "{} bytes: a flood is thrown away",
        agent.process.peak_resident()
    );
}

#[test]
fn fifty_megabytes_pass_and_hurt_nobody() {
    let relay = Relay::start("fifty");
    let _agent = relay.agent("laptop", &json!({"big": demo_server(), "small": demo_server()}));
    let mut client = Client::connect(&relay);
    client.until_listed("big__blob");
    client.until_listed("small__echo");
    let before = relay.process.peak_resident();
    let call = json!({"jsonrpc": "2.0", "id": 99, "method": "tools/call", "params": {"name": "big__blob", "arguments": {"bytes": 50_000_000}}});
    let mut big = client.send(&call);
    for _ in 0..20 {
        assert!(client.call("small__echo", &json!({"text": "x"})).get("result").is_some());
    }
    let reply = Reply::read(&mut big).expect("whole");
    assert!(reply.body.len() > 50_000_000, "{} {}", reply.status, reply.body.len());
    let grown = relay.process.peak_resident() - before;
    assert!(grown < 16 << 20, "{grown} bytes for an answer of fifty million");
}

#[test]
fn slow_client_costs_the_relay_a_window() {
    let relay = Relay::start("slow-client");
    let _agent = relay.agent("laptop", &json!({"demo": demo_server()}));
    let mut client = Client::connect(&relay);
    client.until_listed("demo__blob");
    let before = relay.process.peak_resident();
    let call = |id| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "demo__blob", "arguments": {"bytes": 20_000_000}}});
    let mut slow: Vec<_> = (100..104).map(|id| client.send(&call(id))).collect();
    std::thread::sleep(Duration::from_secs(1));
    for _ in 0..20 {
        let start = Instant::now();
        assert!(client.call("demo__echo", &json!({"text": "x"})).get("result").is_some());
        assert!(start.elapsed() < Duration::from_secs(2), "others are not held up");
    }
    let grown = relay.process.peak_resident() - before;
    assert!(grown < 16 << 20, "{grown} bytes for four stalled clients");
    for stream in &mut slow {
        let mut head = [0; 15];
        stream.read_exact(&mut head).expect("it was waiting");
        assert_eq!(&head, b"HTTP/1.1 200 OK");
    }
}

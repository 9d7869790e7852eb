//! Real processes on real sockets: what happens to calls, servers and memory when something dies, floods or stalls.

mod support;

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Client, Relay, Reply, Scratch, descendants, eventually, program, runs};

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
    for _ in 0..50 {
        assert!(client.call("fine__echo", &json!({"text": "x"})).get("result").is_some());
    }
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
        let answer = client.call("demo__echo", &json!({"text": "x"}));
        assert!(answer.get("result").is_some(), "others are answered while those wait: {answer}");
    }
    let grown = relay.process.peak_resident() - before;
    assert!(grown < 16 << 20, "{grown} bytes for four stalled clients");
    for stream in &mut slow {
        let mut head = [0; 15];
        stream.read_exact(&mut head).expect("it was waiting");
        assert_eq!(&head, b"HTTP/1.1 200 OK");
    }
}

#[test]
fn one_changed_byte_of_a_description_is_caught_and_approved_by_a_person() {
    let relay = Relay::start("pins");
    for (mode, held) in [("warn", false), ("block", true)] {
        let scratch = Scratch::new(&format!("pins-{mode}"));
        let script = scratch.path().join("edit");
        std::fs::write(&script, "").expect("it can be written");
        let edited = format!("{} demo-server | sed -u -f '{}'", program().display(), script.display());
        let servers = json!({"demo": {"command": ["sh", "-c", edited]}});
        let agent = relay.agent_with(mode, &servers, &json!({"pins": mode, "audit": true}));
        let mut client = Client::connect(&relay);
        client.until_listed("demo__echo");
        std::fs::write(&script, "s/Adds two/adds two/").expect("written");
        assert!(agent.command(&["restart", "demo", "--json"])["servers"].is_array());
        let status = eventually("the change is named", Duration::from_secs(20), || {
            let status = agent.status();
            if status["changedTools"].is_array() { Ok(status) } else { Err(status.to_string()) }
        });
        let tools: Vec<_> = status["changedTools"].as_array().into_iter().flatten().map(|it| &it["tool"]).collect();
        assert!(tools.contains(&&json!("add")), "{status}");
        eventually("the list is as it should be", Duration::from_secs(20), || {
            let tools = client.tools();
            if tools.contains(&"demo__countdown".to_owned()) && tools.contains(&"demo__add".to_owned()) != held {
                Ok(())
            } else {
                Err(format!("{tools:?}"))
            }
        });
        agent.process.line("tool is not what was pinned");
        let seen_from_afar = client.call("status", &json!({})).to_string();
        assert!(seen_from_afar.contains("changed since it was first seen"), "{seen_from_afar}");
        let call = client.call("demo__add", &json!({"a": 1, "b": 2}));
        assert_eq!(call.get("result").is_none_or(|result| result["isError"] == true), held, "{call}");
        let diff = agent.command(&["pins", "diff", "--json"]);
        assert!(diff["changed"].to_string().contains("adds two"), "{diff}");
        agent.command(&["pins", "approve", "demo", "--json"]);
        client.until_listed("demo__add");
        assert!(client.call("demo__add", &json!({"a": 1, "b": 2})).get("result").is_some());
        assert!(agent.status().get("changedTools").is_none());
        let audit = agent.home.path().join(".config/mcp-local-tunnel/logs/audit.log");
        let lines = eventually("the audit is written", Duration::from_secs(5), || {
            let text = std::fs::read_to_string(&audit).unwrap_or_default();
            if text.contains(r#""tool":"add","decision":"allowed""#) { Ok(text) } else { Err(text) }
        });
        assert!(!lines.contains(r#""a":1"#), "{lines}");
        let mode = std::fs::metadata(&audit).expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let pins = std::fs::read_dir(agent.home.path().join(".config/mcp-local-tunnel/pins")).expect("it is there");
        let files: Vec<_> = pins.map(|file| file.expect("a file")).collect();
        let modes: Vec<_> = files.iter().map(|file| file.metadata().expect("it has").permissions().mode()).collect();
        let kept = files.iter().filter(|file| file.path().extension().is_some_and(|end| end == "json")).count();
        assert!(kept == 1 && modes.iter().all(|mode| mode & 0o777 == 0o600), "{files:?} {modes:?}");
    }
}

#[test]
fn call_waits_until_it_is_approved_on_the_command_line() {
    let relay = Relay::start("approve");
    let demo = json!({"command": [program(), "demo-server"], "policy": {"approve": "always"}});
    let agent = relay.agent("laptop", &json!({"demo": demo}));
    let mut client = Client::connect(&relay);
    client.until_listed("demo__echo");
    let call = |id, text| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "demo__echo", "arguments": {"text": text}}});
    let (mut first, mut second) = (client.send(&call(98, "yes")), client.send(&call(99, "no")));
    let waiting = eventually("both wait", Duration::from_secs(20), || {
        let waiting = agent.command(&["approve", "--arguments", "--json"])["waiting"].clone();
        if waiting.as_array().is_some_and(|calls| calls.len() == 2) { Ok(waiting) } else { Err(waiting.to_string()) }
    });
    let id = |text: &str| {
        let calls = waiting.as_array().into_iter().flatten();
        let call = calls.clone().find(|call| call["params"].as_str().is_some_and(|params| params.contains(text)));
        call.and_then(|call| call["id"].as_u64()).unwrap_or_else(|| panic!("{waiting}")).to_string()
    };
    assert!(waiting[0]["client"].as_str().is_some_and(|client| client.contains("test")), "{waiting}");
    agent.command(&["approve", &id("yes"), "--json"]);
    agent.command(&["deny", &id("no"), "--json"]);
    let answer = Reply::read(&mut first).expect("answered").messages().pop().expect("with a message");
    assert!(answer["result"].to_string().contains("yes"), "{answer}");
    let answer = Reply::read(&mut second).expect("answered").messages().pop().expect("with a message");
    assert!(answer.to_string().contains("refused on the device"), "{answer}");
}

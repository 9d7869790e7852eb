//! Local servers as processes: what they see of this machine, what they cost, and that nothing of them is left behind.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::BufRead;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::Reply;
use support::{Agent, Client, Process, Relay, descendants, eventually, program, read_chunk, runs};

/// A demo server behind `wrapped`, a shell's script in which `%` stands for it.
fn demo(wrapped: &str) -> Value {
    json!({"command": ["sh", "-c", wrapped.replace('%', &format!("{} demo-server", program().display()))]})
}

/// An agent with these servers that can be asked.
fn up(relay: &Relay, servers: &Value) -> Agent {
    let agent = relay.agent("laptop", servers);
    agent.process.line("connected to the relay");
    agent
}

/// One server of `agent`, as its status has it.
fn server(agent: &Agent, name: &str) -> Value {
    let status = agent.status();
    let servers = status["servers"].as_array().unwrap_or_else(|| panic!("servers: {status}"));
    servers.iter().find(|server| server["name"] == name).unwrap_or_else(|| panic!("{name}: {status}")).clone()
}

fn until_state(agent: &Agent, name: &str, state: &str) -> Value {
    eventually(&format!("{name} is {state}"), Duration::from_secs(30), || {
        let server = server(agent, name);
        if server["state"] == state { Ok(server) } else { Err(server.to_string()) }
    })
}

/// What descends from a process and is no guard, not even one that is still to become a server.
fn behind(pid: u32) -> Vec<u64> {
    descendants(pid).into_iter().filter(|pid| !is_guard(*pid)).collect()
}

fn is_guard(pid: u64) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1) == Some(b"__guard")
}

#[test]
fn killed_agent_with_five_servers_leaves_nothing_ten_times_in_a_row() {
    let relay = Relay::start("five-servers");
    // As `npx` does it: a shell that starts a shell that starts the program, and stays to wait for it.
    let npx = "sh -c '%; true'; true";
    let mut servers = json!({
        "plain": demo("exec %"), "exec": demo("exec sh -c 'exec %'"),
        "chain": demo(npx), "leaver": demo("setsid sh -c 'trap \"\" TERM HUP; sleep 1000' & sh -c '%; true'; true"),
        "npx": demo(npx),
    });
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real");
    if real.join("node_modules/@modelcontextprotocol/server-everything").is_dir() {
        servers["npx"] = json!({"command": ["npx", "--no-install", "mcp-server-everything"], "cwd": real});
    }
    let names: Vec<&String> = servers.as_object().expect("an object").keys().collect();
    for round in 1..=10 {
        let mut agent = up(&relay, &servers);
        eventually("all servers are ready", Duration::from_secs(60), || {
            let status = agent.status();
            let ready =
                status["servers"].as_array().map_or(0, |all| all.iter().filter(|s| s["state"] == "ready").count());
            if ready == names.len() { Ok(()) } else { Err(status.to_string()) }
        });
        let processes = descendants(agent.process.pid());
        assert!(processes.len() >= 13, "guards, shells and programs: {processes:?}");
        agent.process.kill();
        let killed = Instant::now();
        eventually(&format!("no process is left in round {round}"), Duration::from_secs(2), || {
            let left: Vec<_> = processes.iter().filter(|pid| runs(**pid)).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?} after {:?}", killed.elapsed())) }
        });
    }
}

#[test]
fn server_sees_neither_its_siblings_nor_the_agents_secrets() {
    let relay = Relay::start("own-environment");
    let sleeper = |secret: &str| json!({"command": ["sh", "-c", "sleep 1000"], "env": {"SECRET": secret}});
    let mut one = sleeper("of-one");
    let file = relay.home.path().join("key");
    fs::write(&file, "from-a-file\n").expect("writes");
    one["env"]["LOOKED_UP"] = json!(format!("file:{}", file.display()));
    let lost = json!({"command": "sh", "env": {"KEY": "env:NOBODY_SET_THIS"}});
    let agent = up(&relay, &json!({"one": one, "two": sleeper("of-two"), "lost": lost}));
    let pids = eventually("both run", Duration::from_secs(20), || {
        let pids = agent.pids();
        let of = |name: &str| pids.get(name).map(|pid| behind(u32::try_from(*pid).expect("an id")));
        match (of("one"), of("two")) {
            (Some(one), Some(two)) if !one.is_empty() && !two.is_empty() => Ok([one, two]),
            _ => Err(format!("{pids:?}")),
        }
    });
    let token = fs::read_to_string(agent.home.path().join("token")).expect("reads");
    let environment = |pid: u64| {
        let bytes = fs::read(format!("/proc/{pid}/environ")).expect("it is ours");
        String::from_utf8_lossy(&bytes).split('\0').map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let open = |pid: u64| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("it is ours").flatten();
        files.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.display().to_string())).collect::<BTreeSet<_>>()
    };
    // What was open when the test began is nobody's secret here.
    let inherited = open(u64::from(std::process::id()));
    for (of, others, own) in [(&pids[0], "of-two", "SECRET=of-one"), (&pids[1], "of-one", "SECRET=of-two")] {
        for pid in of {
            let seen = environment(*pid);
            assert!(seen.contains(own), "{seen:?}");
            for foreign in [others, token.trim(), "MCP_LOCAL_TUNNEL", "CARGO", "XDG_STATE_HOME"] {
                assert!(!seen.iter().any(|variable| variable.contains(foreign)), "{foreign}: {seen:?}");
            }
            let foreign: Vec<_> = open(*pid).difference(&inherited).cloned().collect();
            // Its own three streams: those are pipes to the agent, or nothing.
            assert!(foreign.iter().all(|file| file.starts_with("pipe:") || file == "/dev/null"), "{foreign:?}");
            assert!(foreign.len() <= 3, "{foreign:?}");
        }
    }
    assert!(environment(pids[0][0]).contains("LOOKED_UP=from-a-file"));
    let reason = until_state(&agent, "lost", "failed")["reason"].to_string();
    assert!(reason.contains("env.KEY") && reason.contains("NOBODY_SET_THIS"), "{reason}");
}

#[test]
fn agent_and_guards_killed_in_one_instant_leave_nothing_of_ordinary_servers() {
    let relay = Relay::start("all-at-once");
    // The last one does not care for its streams.
    let deaf = json!({"command": ["sh", "-c", "trap '' TERM HUP; exec sleep 1000"]});
    let servers = json!({"plain": demo("exec %"), "npx": demo("sh -c '%; true'; true"), "deaf": deaf});
    let mut agent = up(&relay, &servers);
    until_state(&agent, "plain", "ready");
    until_state(&agent, "npx", "ready");
    let processes = eventually("the last one runs", Duration::from_secs(20), || {
        let pids = agent.pids();
        let runs = pids.get("deaf").is_some_and(|pid| !behind(u32::try_from(*pid).expect("an id")).is_empty());
        if runs { Ok(descendants(agent.process.pid())) } else { Err(format!("{pids:?}")) }
    });
    let guards: Vec<u64> = processes.iter().copied().filter(|pid| is_guard(*pid)).collect();
    assert!(guards.len() >= 6, "two for each: {guards:?}");
    for pid in [u64::from(agent.process.pid())].iter().chain(&guards) {
        let pid = Pid::from_raw(i32::try_from(*pid).expect("an id")).expect("an id");
        match kill_process(pid, Signal::KILL) {
            // A guard whose parent is dead already may have ended by itself.
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => panic!("it is ours: {error}"),
        }
    }
    agent.process.wait();
    eventually("no process is left", Duration::from_secs(2), || {
        let left: Vec<_> = processes.iter().filter(|pid| runs(**pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn server_over_its_memory_limit_is_ended_with_that_reason() {
    let relay = Relay::start("memory");
    let hog = json!({"command": ["sh", "-c", "tail -n 1 /dev/zero"], "memoryLimit": 64, "restart": "never"});
    let agent = up(&relay, &json!({"hog": hog, "fine": demo("exec %")}));
    let hog = until_state(&agent, "hog", "failed");
    assert!(hog["reason"].as_str().is_some_and(|reason| reason.contains("memoryLimit is 64")), "{hog}");
    until_state(&agent, "fine", "ready");
    let log = fs::read_to_string(agent.home.path().join(".config/mcp-local-tunnel/logs/hog.stderr.log"));
    assert!(log.is_ok_and(|log| log.contains("memoryLimit is 64")), "its log has it too");
}

#[test]
fn lazy_server_is_listed_before_its_first_start_and_started_by_a_call() {
    let relay = Relay::start("lazy");
    let mut lazy = demo("exec %");
    (lazy["lazy"], lazy["idleStop"]) = (json!(true), json!(1));
    let mut agent = up(&relay, &json!({"lazy": lazy}));
    assert_eq!(until_state(&agent, "lazy", "asleep")["restarts"], 0);
    agent.process.kill();
    let kept = agent.home.path().join(".config/mcp-local-tunnel/catalogs");
    let of_configuration =
        fs::read_dir(&kept).expect("it was made").flatten().next().expect("one configuration").path();
    let mode = fs::metadata(of_configuration.join("lazy.json")).expect("it is kept").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    agent.process = Process::start(agent.home.path(), &agent.config, &["agent"]);
    let mut client = Client::connect(&relay);
    client.until_listed("lazy__echo");
    assert!(descendants(agent.process.pid()).is_empty(), "it was not started to be listed");
    let answer = client.call("lazy__echo", &json!({"text": "woken"}));
    assert!(answer["result"].to_string().contains("woken"), "{answer}");
    eventually("it is stopped again", Duration::from_secs(20), || {
        let left = descendants(agent.process.pid());
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn program_that_only_the_login_shell_finds_is_found() {
    let relay = Relay::start("login-path");
    let mut agent = up(&relay, &json!({"odd": {"command": ["only-in-my-bin", "-c", "echo $PATH >&2; sleep 1000"]}}));
    agent.process.kill();
    let home = agent.home.path();
    let bin = home.join("bin");
    fs::create_dir(&bin).expect("made");
    std::os::unix::fs::symlink("/bin/sh", bin.join("only-in-my-bin")).expect("links");
    // A shell with a profile that talks and sets PATH.
    let shell = home.join("shell");
    let script =
        format!("#!/bin/sh\necho Welcome\nfor last; do :; done\nPATH={}:$PATH eval \"$last\"\n", bin.display());
    fs::write(&shell, script).expect("writes");
    fs::set_permissions(&shell, fs::Permissions::from_mode(0o755)).expect("set");
    agent.process = Process::start_with(home, &agent.config, &["agent"], |command| {
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("SHELL", &shell);
    });
    let log = agent.home.path().join(".config/mcp-local-tunnel/logs/odd.stderr.log");
    eventually("it was started with that PATH", Duration::from_secs(20), || {
        let said = fs::read_to_string(&log).unwrap_or_default();
        if said.starts_with(&format!("{}:/usr", bin.display())) {
            Ok(())
        } else {
            Err(format!("{said} {}", agent.process.log()))
        }
    });
}

#[test]
fn secret_that_a_server_prints_is_in_its_own_log_alone() {
    let relay = Relay::start("veil");
    let key = relay.home.path().join("key");
    fs::write(&key, "canary-from-a-file\n").expect("writes");
    let leaky = json!({
        "command": ["sh", "-c", "echo \"stdout has $KEY\"; echo \"bad key $KEY of $USER_NAME\" >&2; exit 1"],
        "env": {"KEY": format!("file:{}", key.display()), "USER_NAME": "canary-of-the-entry"},
    });
    let agent = up(&relay, &json!({"leaky": leaky}));
    let reason = eventually("its reason is told", Duration::from_secs(20), || {
        let server = server(&agent, "leaky");
        server["reason"].as_str().map(str::to_owned).ok_or_else(|| server.to_string())
    });
    assert!(reason.contains("bad key [env KEY] of [env USER_NAME]"), "{reason}");
    assert!(reason.contains("stdout has [env KEY]"), "{reason}");
    let told = Client::connect(&relay).call("status", &json!({})).to_string();
    assert!(told.contains("bad key [env KEY]"), "{told}");
    let places = [("status", agent.status().to_string()), ("relay", told), ("log", agent.process.log())];
    for (place, text) in places {
        assert!(!text.contains("canary"), "{place}: {text}");
    }
    let own = fs::read_to_string(agent.home.path().join(".config/mcp-local-tunnel/logs/leaky.stderr.log"));
    assert!(own.is_ok_and(|own| own.contains("canary-from-a-file") && own.contains("canary-of-the-entry")));
}

#[test]
fn audit_that_cannot_be_written_stands_in_status_before_a_call() {
    let relay = Relay::start("no-audit");
    let missing = relay.home.path().join("missing");
    let more = json!({"audit": missing.join("audit.log")});
    let agent = relay.agent_with("laptop", &json!({}), &more);
    agent.process.line("connected to the relay");
    eventually("the problem is told", Duration::from_secs(10), || {
        let status = agent.status();
        let told = status["problems"][0].as_str().is_some_and(|problem| problem.contains("audit.log"));
        if told { Ok(()) } else { Err(status.to_string()) }
    });
}

/// Tells of a resource that was subscribed to, and logs with the level that was set, again and again.
const TELLER: &str = r#"
say() { printf '{"jsonrpc":"2.0",%s}\n' "$1"; }
again() { while sleep 0.1; do say "$1"; done & }
while read -r line; do
    id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
    case "$line" in
    *'"method":"initialize"'*) say '"id":'$id',"result":{"protocolVersion":"2025-11-25","serverInfo":{"name":"t","version":"1"},
        "capabilities":{"logging":{},"resources":{"subscribe":true}}}' | tr -d '\n'; echo ;;
    *'"method":"tools/list"'*) say '"id":'$id',"result":{"tools":[]}' ;;
    *'"method":"resources/subscribe"'*)
        say '"id":'$id',"result":{}'
        again '"method":"notifications/resources/updated","params":{"uri":"test://x","by":"'$$'"}' ;;
    *'"method":"logging/setLevel"'*)
        say '"id":'$id',"result":{}'
        again '"method":"notifications/message","params":{"level":"alert","by":"'$$'"}' ;;
    *) [ -z "$id" ] || say '"id":'$id',"error":{"code":-32601,"message":"unknown"}' ;;
    esac
done
"#;

#[test]
fn subscription_and_log_level_of_a_session_outlive_a_killed_agent() {
    let relay = Relay::start("outlives");
    let mut agent = up(&relay, &json!({"teller": {"command": ["sh", "-c", TELLER]}}));
    until_state(&agent, "teller", "ready");
    let (token, session) = Client::connect(&relay).parts();
    let (bearer, session) = (format!("Bearer {token}"), session.expect("it has one"));
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
        ("Mcp-Session-Id", session.as_str()),
        ("MCP-Protocol-Version", "2025-11-25"),
    ];
    for (method, params) in
        [("resources/subscribe", json!({"uri": "test://x"})), ("logging/setLevel", json!({"level": "alert"}))]
    {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let reply = relay.http("POST", "/mcp/teller", &headers, body.as_bytes());
        assert_eq!(reply.messages().pop().expect("an answer")["result"], json!({}), "{method}");
    }
    let kept = agent.home.path().join(".config/mcp-local-tunnel/sessions");
    let kept = eventually("both are kept", Duration::from_secs(20), || {
        // Not one that is still being written, which the agent's end would leave as it is.
        let mut files = fs::read_dir(&kept).into_iter().flatten().flatten().map(|file| file.path());
        let file = files.find(|file| file.extension().is_some_and(|extension| extension == "json"));
        let text = file.as_ref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        let is_kept = text.contains("test://x") && text.contains("alert");
        file.filter(|_| is_kept).ok_or(text)
    });
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&kept), mode(kept.parent().expect("it has one"))), (0o600, 0o700));
    let mut stream = relay.send("GET", "/mcp/teller", &headers, b"").expect("the relay listens");
    assert_eq!(Reply::head(&mut stream).expect("it answers").0, 200);
    let old = tellers(&mut stream, &BTreeSet::new());
    agent.process.kill();
    agent.process = Process::start(agent.home.path(), &agent.config, &["agent"]);
    let new = tellers(&mut stream, &old);
    assert_eq!((old.len(), new.len()), (1, 1), "each time one process: {old:?} {new:?}");
}

/// Reads a stream until somebody who is not of `old` both told of the resource and logged; returns whoever did either.
fn tellers(stream: &mut impl BufRead, old: &BTreeSet<String>) -> BTreeSet<String> {
    let mut tellers: [BTreeSet<String>; 2] = Default::default();
    let (mut text, end) = (String::new(), Instant::now() + Duration::from_secs(60));
    while tellers.iter().any(BTreeSet::is_empty) {
        assert!(Instant::now() < end, "one of both is not heard of: {tellers:?}");
        let chunk = read_chunk(stream).expect("the stream goes on").expect("and does not end");
        text.push_str(&String::from_utf8_lossy(&chunk));
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for data in text.drain(..whole).collect::<String>().lines().filter_map(|line| line.strip_prefix("data:")) {
            let message: Value = serde_json::from_str(data).unwrap_or_default();
            let kind = usize::from(message["method"] == "notifications/message");
            let by = message["params"]["by"].as_str().filter(|by| !old.contains(*by));
            tellers[kind].extend(by.map(str::to_owned));
        }
    }
    let [told, logged] = tellers;
    &told | &logged
}

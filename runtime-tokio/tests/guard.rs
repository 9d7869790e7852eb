//! The guard with real processes. This program plays every part by itself: the test, the agent that is killed, the
//! guard; so it has a `main` of its own instead of the test harness.

#![expect(clippy::print_stdout, reason = "a test program of its own tells how it went")]

mod host;

use std::future::Future;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;
use tunnel_core::agent::machine::{Event, Spawn};
use tunnel_core::id::ChildId;
use tunnel_core::secret::Secret;

use host::process::{Launcher, Process};
use host::{guard, rt};

fn main() {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(role) if role == guard::SUBCOMMAND => guard::main(args),
        Some(role) if role == "agent" => agent(),
        _ => {}
    }
    let tests: [(&str, fn()); 13] = [
        ("killed_agent_leaves_nothing", killed_agent_leaves_nothing),
        ("agent_killed_with_its_guard_leaves_nothing", agent_killed_with_its_guard_leaves_nothing),
        ("agent_killed_with_all_guards_leaves_no_command", agent_killed_with_all_guards_leaves_no_command),
        ("killed_guard_leaves_nothing", killed_guard_leaves_nothing),
        ("guard_killed_by_its_server_leaves_nothing", guard_killed_by_its_server_leaves_nothing),
        ("environment_is_the_servers_and_no_guards", environment_is_the_servers_and_no_guards),
        ("streams_and_exit_code_pass_through", streams_and_exit_code_pass_through),
        ("signal_is_told_as_a_signal", signal_is_told_as_a_signal),
        ("ended_server_leaves_nothing", ended_server_leaves_nothing),
        ("terminate_reaches_the_server", terminate_reaches_the_server),
        ("forced_kill_leaves_nothing", forced_kill_leaves_nothing),
        ("too_much_memory_ends_the_whole_family", too_much_memory_ends_the_whole_family),
        ("memory_within_the_limit_is_nobodys_business", memory_within_the_limit_is_nobodys_business),
    ];
    for (name, test) in tests {
        test();
        println!("test {name} ... ok");
    }
    let _ = std::fs::remove_dir_all(logs());
}

/// A server with a child, and a grandchild that detached itself; all of them ignore SIGTERM. It tells their ids.
const FAMILY: &str = "trap '' TERM; sleep 300 & echo $!; setsid sh -c 'echo $$; exec sleep 300' & echo $$; wait; wait";

fn killed_agent_leaves_nothing() {
    let (mut agent, pids) = agent_with_family();
    agent.kill().expect("kill -9");
    agent.wait().expect("reaped");
    assert_gone_within(Duration::from_secs(2), &pids);
}

fn agent_killed_with_its_guard_leaves_nothing() {
    let (mut agent, pids) = agent_with_family();
    kill_all(&[agent.id(), pids[0]]);
    agent.wait().expect("reaped");
    assert_gone_within(Duration::from_secs(2), &pids);
}

fn agent_killed_with_all_guards_leaves_no_command() {
    let (mut agent, pids) = agent_with_family();
    let inner = child_of(pids[0]);
    // The family's shell, which ignores SIGTERM and the end of its stdin; the last to tell its id.
    let command = child_of(inner);
    assert!(pids.contains(&command), "{command}: {pids:?}");
    kill_all(&[agent.id(), pids[0], inner]);
    agent.wait().expect("reaped");
    assert_gone_within(Duration::from_secs(2), &[pids[0], inner, command]);
    // Nobody is left who could find these.
    kill_all(&pids);
}

fn killed_guard_leaves_nothing() {
    run(async {
        for (outer, inner) in [(true, false), (false, true), (true, true)] {
            let (process, mut events) = start(FAMILY);
            let pids = family(&process, &mut events).await;
            let both = [(process.pid(), outer), (child_of(process.pid()), inner)];
            kill_all(&both.into_iter().filter(|(_, killed)| *killed).map(|(pid, _)| pid).collect::<Vec<_>>());
            let (_, (code, signal, _)) = until_exited(events).await;
            assert_eq!((code, signal), (None, Some(9)), "outer: {outer}, inner: {inner}");
            // Nothing is left once its end was told, so that no second copy runs beside it; no zombie either.
            assert_gone_within(Duration::ZERO, &pids);
            let left: Vec<_> = pids.iter().filter(|pid| PathBuf::from(format!("/proc/{pid}")).exists()).collect();
            assert!(left.is_empty(), "{left:?}");
        }
    });
}

fn guard_killed_by_its_server_leaves_nothing() {
    run(async {
        let script = "trap '' TERM; setsid sleep 300 & echo $!; echo $$; kill -9 $PPID; sleep 300";
        let (_process, events) = start(script);
        let (lines, _) = until_exited(events).await;
        let pids: Vec<u32> = lines.iter().map(|line| line.parse().expect("an id")).collect();
        assert_eq!(pids.len(), 2);
        assert_gone_within(Duration::ZERO, &pids);
    });
}

fn environment_is_the_servers_and_no_guards() {
    run(async {
        let (process, mut events) = start("echo $GIVEN; read line; echo $line; exit 3");
        let Some(Event::Line { line, .. }) = events.recv().await else { panic!("a line") };
        assert_eq!(line, "of the server and more");
        for guard in [process.pid(), child_of(process.pid())] {
            for file in ["environ", "cmdline"] {
                let seen = std::fs::read(format!("/proc/{guard}/{file}")).unwrap_or_default();
                assert!(!String::from_utf8_lossy(&seen).contains("of the server"), "{file} of {guard}");
            }
        }
        process.write(Bytes::from_static(b"first of its own\n"));
        let (lines, (code, _, _)) = until_exited(events).await;
        assert!(lines.ends_with(&["first of its own".into()]), "{lines:?}");
        assert_eq!(code, Some(3));
    });
}

/// An agent with the family as its server: its guard's id, then the family's.
fn agent_with_family() -> (Child, Vec<u32>) {
    let me = std::env::current_exe().expect("a test knows its path");
    let mut agent = Command::new(me).arg("agent").stdout(Stdio::piped()).spawn().expect("the agent starts");
    let lines = BufReader::new(agent.stdout.take().expect("piped")).lines();
    let pids: Vec<u32> = lines.take(4).map(|line| line.expect("a line").parse().expect("an id")).collect();
    assert!(pids.iter().all(|pid| alive(*pid)), "{pids:?}");
    (agent, pids)
}

/// The guard's id, then those that the family tells.
async fn family(process: &Process, events: &mut mpsc::Receiver<Event>) -> Vec<u32> {
    let mut pids = vec![process.pid()];
    while pids.len() < 4 {
        let Some(Event::Line { line, .. }) = events.recv().await else { panic!("a line") };
        pids.push(String::from_utf8_lossy(&line).parse().expect("an id"));
    }
    pids
}

/// SIGKILL to all of them in one go, as far as they are there.
fn kill_all(pids: &[u32]) {
    for pid in pids {
        let pid = Pid::from_raw(pid.cast_signed()).expect("an id");
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// The one child of a process.
fn child_of(parent: u32) -> u32 {
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        after_name.split_ascii_whitespace().nth(1) == Some(parent.to_string().as_str())
    };
    let processes = std::fs::read_dir("/proc").expect("this is Linux").flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(is_child).expect("it has a child")
}

/// Plays an agent with one server, telling the ids of all processes, until it is killed.
fn agent() -> ! {
    run(async {
        let (process, mut events) = start(FAMILY);
        println!("{}", process.pid());
        while let Some(event) = events.recv().await {
            if let Event::Line { line, .. } = event {
                println!("{}", String::from_utf8_lossy(&line));
            }
        }
        std::process::exit(0)
    })
}

fn streams_and_exit_code_pass_through() {
    run(async {
        let (mut process, events) = start("cat; echo oops >&2; exit 7");
        process.write(Bytes::from_static(b"hello\n"));
        process.close_stdin();
        let (lines, exit) = until_exited(events).await;
        assert_eq!(lines, ["hello"]);
        assert_eq!(exit, (Some(7), None, "oops\n".into()));
    });
}

fn signal_is_told_as_a_signal() {
    run(async {
        let (_process, events) = start("kill -KILL $$");
        let (_, (code, signal, _)) = until_exited(events).await;
        assert_eq!((code, signal), (None, Some(9)));
    });
}

fn ended_server_leaves_nothing() {
    run(async {
        let (_process, events) = start("setsid sh -c 'echo $$; exec sleep 300' & sleep 0.3; exit 0");
        let (lines, (code, _, _)) = until_exited(events).await;
        assert_eq!(code, Some(0));
        assert_gone_within(Duration::ZERO, &[lines[0].parse().expect("an id")]);
    });
}

fn terminate_reaches_the_server() {
    run(async {
        let (process, mut events) = start("trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done");
        assert!(matches!(events.recv().await, Some(Event::Line { .. })));
        process.kill(false);
        let (_, (code, _, _)) = until_exited(events).await;
        assert_eq!(code, Some(5));
    });
}

fn forced_kill_leaves_nothing() {
    run(async {
        let (process, mut events) = start(FAMILY);
        let pids = family(&process, &mut events).await;
        process.kill(false);
        process.kill(true);
        let (_, (code, signal, _)) = until_exited(events).await;
        assert_eq!((code, signal), (None, Some(9)));
        assert_gone_within(Duration::ZERO, &pids);
    });
}

fn too_much_memory_ends_the_whole_family() {
    run(async {
        // `tail` keeps the last line, which never ends; it is a grandchild that left its session.
        let hog = "echo $$; setsid sh -c 'echo $$; tail -n 1 /dev/zero' & wait";
        let (_process, events) = start_within(hog, Some(64 << 20));
        let (lines, (code, signal, stderr)) = until_exited(events).await;
        assert_eq!((code, signal), (None, Some(9)));
        assert!(stderr.contains("memoryLimit is 64"), "{stderr}");
        let pids: Vec<u32> = lines.iter().map(|line| line.parse().expect("an id")).collect();
        assert_eq!(pids.len(), 2);
        assert_gone_within(Duration::ZERO, &pids);
    });
}

fn memory_within_the_limit_is_nobodys_business() {
    run(async {
        let (_process, events) = start_within("sleep 1.2; echo fine >&2; exit 4", Some(512 << 20));
        assert_eq!(until_exited(events).await.1, (Some(4), None, "fine\n".into()));
    });
}

fn start(script: &str) -> (Process, mpsc::Receiver<Event>) {
    start_within(script, None)
}

fn start_within(script: &str, memory_limit: Option<u64>) -> (Process, mpsc::Receiver<Event>) {
    let (events, received) = mpsc::channel(16);
    let launcher = Launcher { guard: std::env::current_exe().ok(), logs: logs(), path: None, hidden: Vec::new() };
    let spawn = Spawn {
        server: "server".into(),
        log: "server".into(),
        command: vec!["sh".into(), "-c".into(), script.into()],
        env: vec![("GIVEN".into(), Secret::new("of the server and more"))],
        cwd: None,
        max_line: 1024,
        memory_limit,
        sandbox: false,
    };
    (launcher.spawn(ChildId(1), spawn, events).expect("starts"), received)
}

type Exit = (Option<i32>, Option<i32>, String);

async fn until_exited(mut events: mpsc::Receiver<Event>) -> (Vec<String>, Exit) {
    let mut lines = Vec::new();
    while let Some(event) = events.recv().await {
        match event {
            Event::Line { line, .. } => lines.push(String::from_utf8_lossy(&line).into_owned()),
            Event::Exited { code, signal, stderr, .. } => return (lines, (code, signal, stderr)),
            _ => {}
        }
    }
    panic!("no exit was told");
}

fn assert_gone_within(limit: Duration, pids: &[u32]) {
    let begin = Instant::now();
    while pids.iter().any(|pid| alive(*pid)) {
        assert!(
            begin.elapsed() < limit,
            "still alive: {:?}",
            pids.iter().filter(|pid| alive(**pid)).collect::<Vec<_>>()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A zombie is dead; who reaps it is its parent's business.
fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn run<T>(test: impl Future<Output = T>) -> T {
    rt::run_small(test).expect("a runtime")
}

fn logs() -> PathBuf {
    std::env::temp_dir().join("tunnel-guard-test")
}

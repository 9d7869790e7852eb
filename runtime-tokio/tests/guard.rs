//! The guard with real processes. This program plays every part by itself: the test, the agent that is killed, the
//! guard; so it has a `main` of its own instead of the test harness.

#![expect(clippy::print_stdout, reason = "a test program of its own tells how it went")]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use tunnel_core::agent::machine::{Event, Spawn};
use tunnel_core::id::ChildId;
use tunnel_runtime_tokio::guard;
use tunnel_runtime_tokio::process::{Launcher, Process};

fn main() {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(role) if role == guard::SUBCOMMAND => guard::main(args),
        Some(role) if role == "agent" => agent(),
        _ => {}
    }
    let tests: [(&str, fn()); 8] = [
        ("killed_agent_leaves_nothing", killed_agent_leaves_nothing),
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
    let me = std::env::current_exe().expect("a test knows its path");
    let mut agent = Command::new(me).arg("agent").stdout(Stdio::piped()).spawn().expect("the agent starts");
    let lines = BufReader::new(agent.stdout.take().expect("piped")).lines();
    let pids: Vec<u32> = lines.take(4).map(|line| line.expect("a line").parse().expect("an id")).collect();
    assert!(pids.iter().all(|pid| alive(*pid)), "{pids:?}");
    agent.kill().expect("kill -9");
    agent.wait().expect("reaped");
    assert_gone_within(Duration::from_secs(2), &pids);
}

/// Plays an agent with one server, telling the ids of all processes, until it is killed.
fn agent() -> ! {
    runtime().block_on(async {
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
    runtime().block_on(async {
        let (mut process, events) = start("cat; echo oops >&2; exit 7");
        process.write(Bytes::from_static(b"hello\n"));
        process.close_stdin();
        let (lines, exit) = until_exited(events).await;
        assert_eq!(lines, ["hello"]);
        assert_eq!(exit, (Some(7), None, "oops\n".into()));
    });
}

fn signal_is_told_as_a_signal() {
    runtime().block_on(async {
        let (_process, events) = start("kill -KILL $$");
        let (_, (code, signal, _)) = until_exited(events).await;
        assert_eq!((code, signal), (None, Some(9)));
    });
}

fn ended_server_leaves_nothing() {
    runtime().block_on(async {
        let (_process, events) = start("setsid sh -c 'echo $$; exec sleep 300' & sleep 0.3; exit 0");
        let (lines, (code, _, _)) = until_exited(events).await;
        assert_eq!(code, Some(0));
        assert_gone_within(Duration::ZERO, &[lines[0].parse().expect("an id")]);
    });
}

fn terminate_reaches_the_server() {
    runtime().block_on(async {
        let (process, mut events) = start("trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done");
        assert!(matches!(events.recv().await, Some(Event::Line { .. })));
        process.kill(false);
        let (_, (code, _, _)) = until_exited(events).await;
        assert_eq!(code, Some(5));
    });
}

fn forced_kill_leaves_nothing() {
    runtime().block_on(async {
        let (process, mut events) = start(FAMILY);
        let mut pids = vec![process.pid()];
        while pids.len() < 4 {
            let Some(Event::Line { line, .. }) = events.recv().await else { panic!("a line") };
            pids.push(String::from_utf8_lossy(&line).parse().expect("an id"));
        }
        process.kill(false);
        process.kill(true);
        let (_, (code, signal, _)) = until_exited(events).await;
        assert_eq!((code, signal), (None, Some(9)));
        assert_gone_within(Duration::ZERO, &pids);
    });
}

fn too_much_memory_ends_the_whole_family() {
    runtime().block_on(async {
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
    runtime().block_on(async {
        let (_process, events) = start_within("sleep 1.2; echo fine >&2; exit 4", Some(512 << 20));
        assert_eq!(until_exited(events).await.1, (Some(4), None, "fine\n".into()));
    });
}

fn start(script: &str) -> (Process, mpsc::Receiver<Event>) {
    start_within(script, None)
}

fn start_within(script: &str, memory_limit: Option<u64>) -> (Process, mpsc::Receiver<Event>) {
    let (events, received) = mpsc::channel(16);
    let launcher = Launcher { guard: std::env::current_exe().ok(), logs: logs(), path: None };
    let spawn = Spawn {
        server: "server".into(),
        log: "server".into(),
        command: vec!["sh".into(), "-c".into(), script.into()],
        env: Vec::new(),
        cwd: None,
        max_line: 1024,
        memory_limit,
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

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn logs() -> PathBuf {
    std::env::temp_dir().join("tunnel-guard-test")
}

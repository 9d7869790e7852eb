//! The reference on stdio, where the conformance suite cannot ask it: one era for each process, and params as they came.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
const INITIALIZE: &str =
    r#"{"jsonrpc":"2.0","id":"i","method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{}}}"#;

/// Says each line and waits for an answer to it, in one process with these arguments.
fn talk(arguments: &[&str], lines: &[&str]) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tunnel-reference"));
    let mut server = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = server.stdin.take().expect("it is piped");
    let mut stdout = BufReader::new(server.stdout.take().expect("it is piped")).lines();
    let answers = lines.iter().map(|line| {
        writeln!(stdin, "{line}").expect("it reads");
        stdout.next().expect("it answers").expect("its answers are text")
    });
    let answers = answers.collect();
    drop(stdin);
    assert!(server.wait().expect("it was started here").success(), "it ends with its stdin");
    answers
}

fn discover() -> String {
    format!(r#"{{"jsonrpc":"2.0","id":"d","method":"server/discover","params":{{{META}}}}}"#)
}

#[test]
fn first_request_decides_the_era() {
    let [modern, refused] = &talk(&[], &[&discover(), INITIALIZE])[..] else { panic!("two answers") };
    assert!(modern.contains(r#""supportedVersions":["2026-07-28"]"#), "{modern}");
    assert!(refused.contains("-32600"), "{refused}");
    let [legacy, refused] = &talk(&[], &[INITIALIZE, &discover()])[..] else { panic!("two answers") };
    assert!(legacy.contains(r#""protocolVersion":"2025-06-18""#), "{legacy}");
    assert!(refused.contains("-32600"), "{refused}");
}

#[test]
fn era_that_was_switched_off_is_unknown() {
    let [refused, legacy] = &talk(&["--era", "legacy"], &[&discover(), INITIALIZE])[..] else { panic!("two answers") };
    assert!(refused.contains("-32601"), "{refused}");
    assert!(legacy.contains("protocolVersion"), "{legacy}");
    let [refused, modern] = &talk(&["--era", "modern"], &[INITIALIZE, &discover()])[..] else { panic!("two answers") };
    assert!(refused.contains(r#""supported":["2026-07-28"]"#), "{refused}");
    assert!(modern.contains("supportedVersions"), "{modern}");
}

#[test]
fn echo_gives_back_what_came_byte_for_byte() {
    let arguments = r#"{"big":123456789012345678901234567890 ,"x":1.50e0,"n":null,"x":"twice","u":"\ud800\u0000é"}"#;
    let call = format!(
        r#"{{"jsonrpc":"2.0","id":1.0,"method":"tools/call","params":{{"name":"echo","arguments":{arguments},{META}}}}}"#
    );
    let [answer] = &talk(&[], &[&call])[..] else { panic!("one answer") };
    assert!(answer.contains(&format!(r#""echo":{arguments}"#)), "{answer}");
    assert!(answer.contains(r#""id":1.0,"#), "{answer}");
}

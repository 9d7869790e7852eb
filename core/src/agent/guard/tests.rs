//! The pins of one server: every event in every state.

use std::format;

use super::*;
use crate::agent::tests::stdio;
use crate::agent::tools::tests::tool;
use crate::table::every_cell;

const SERVER: &str = "s";

/// A guard that watches one server's pins, and what it has ordered.
struct Bench {
    guard: Guard,
    out: Mailbox<Action>,
}

const STATES: [&str; 8] = ["unwatched", "reading", "known", "dirty", "saving", "looking", "overtaken", "broken"];

fn list(name: &str) -> Tools {
    Tools::new([tool(&format!(r#"{{"name":"{name}","description":"{name}"}}"#))].into(), SERVER)
}

/// What another agent pinned.
fn theirs() -> Bytes {
    let mut book = Book::default();
    let tools = list("theirs");
    tools.iter().for_each(|tool| book.pin(Edition::Main, tool.name(), tool.print(), tool.raw()));
    book.write()
}

impl Bench {
    fn in_state(state: &str) -> Self {
        let policy = AgentPolicy { pins: PinMode::Warn, ..AgentPolicy::default() };
        let mut bench = Self { guard: Guard::new(policy), out: Mailbox::default() };
        let steps: &[&str] = match state {
            "unwatched" => &[],
            "reading" => &["watch"],
            "known" => &["watch", "read theirs"],
            "dirty" => &["watch", "read theirs", "tools"],
            "saving" => &["watch", "read theirs", "tools", "save"],
            "looking" => &["watch", "read theirs", "look again"],
            "overtaken" => &["watch", "read theirs", "look again", "tools", "save"],
            "broken" => &["watch", "read garbage"],
            other => panic!("no such state: {other}"),
        };
        for step in steps {
            bench.give(step);
        }
        assert_eq!(bench.state(), state, "the way into it");
        bench
    }

    fn state(&self) -> String {
        let Some(watched) = self.guard.watched.get(SERVER) else { return "unwatched".to_string() };
        match (&watched.pins, &watched.saving, &watched.reread) {
            (Pins::Reading, ..) => "reading",
            (Pins::Broken(_), _, Reread::No) => "broken",
            (Pins::Broken(_), ..) => "broken, looking",
            (Pins::Known(_), Some(_), Reread::Overtaken) => "overtaken",
            (Pins::Known(_), Some(_), _) if watched.dirty => "saving, dirty",
            (Pins::Known(_), Some(_), _) => "saving",
            (Pins::Known(_), None, Reread::Asked) if watched.dirty => "looking, dirty",
            (Pins::Known(_), None, Reread::Asked) => "looking",
            (Pins::Known(_), None, Reread::Overtaken) => "known, what is read is old",
            (Pins::Known(_), None, Reread::No) if watched.dirty => "dirty",
            (Pins::Known(_), None, Reread::No) => "known",
        }
        .to_string()
    }

    /// Hands an event in: what was ordered, `anew` if the server's tools are to be judged anew, and the state if it is
    /// another one.
    fn give(&mut self, event: &str) -> String {
        let before = self.state();
        let key = pins::key(SERVER, &stdio(SERVER));
        let anew = match event {
            "watch" => {
                self.guard.watch(SERVER, &stdio(SERVER), &mut self.out);
                None
            }
            "look again" => {
                self.guard.look_again(SERVER, &mut self.out);
                None
            }
            "tools" => {
                self.guard.judge(SERVER, Edition::Main, &mut list("ours"));
                None
            }
            "read nothing" => self.guard.loaded(&key, Ok(None)),
            "read theirs" => self.guard.loaded(&key, Ok(Some(theirs()))),
            "read garbage" => self.guard.loaded(&key, Ok(Some(Bytes::from_static(b"[")))),
            "not read" => self.guard.loaded(&key, Err("denied".to_string())),
            "save" => {
                self.guard.save(&mut self.out);
                None
            }
            "saved" => self.guard.saved(&key, Ok(())),
            "not saved" => self.guard.saved(&key, Err(Unsaved::Failed("full".to_string()))),
            "changed by others" => self.guard.saved(&key, Err(Unsaved::Changed(Some(theirs())))),
            "forget" => {
                self.guard.forget(SERVER);
                None
            }
            other => panic!("no such event: {other}"),
        };
        let mut said: Vec<String> = Vec::new();
        while let Some(action) = self.out.pop() {
            said.push(match action {
                Action::LoadPins { .. } => "load".to_string(),
                Action::SavePins { .. } => "save".to_string(),
                other => panic!("{other:?}"),
            });
        }
        said.extend(anew.map(|_| "anew".to_string()));
        let after = self.state();
        if after != before {
            said.push(format!("→ {after}"));
        }
        if said.is_empty() { ".".to_string() } else { said.join(", ") }
    }
}

/// What follows each event, in the order of [`STATES`].
const TABLE: &[(&str, [&str; 8])] = &[
    // unwatched, reading, known, dirty, saving, looking, overtaken, broken
    ("watch", ["load, → reading", ".", ".", ".", ".", ".", ".", "."]),
    ("look again", [".", ".", "load, → looking", "load, → looking, dirty", ".", ".", ".", "load, → broken, looking"]),
    ("tools", [".", ".", "→ dirty", ".", ".", "→ looking, dirty", ".", "."]),
    ("read nothing", [".", "anew, → known", ".", ".", ".", "anew, → dirty", "→ saving", "."]),
    ("read theirs", [".", "anew, → known", ".", ".", ".", "→ known", "→ saving", "."]),
    ("read garbage", [".", "anew, → broken", ".", ".", ".", "anew, → broken", "→ saving", "."]),
    ("not read", [".", "anew, → broken", ".", ".", ".", "→ known", "→ saving", "."]),
    ("save", [".", ".", ".", "save, → saving", ".", ".", ".", "."]),
    ("saved", [".", ".", ".", ".", "→ known", ".", "→ known, what is read is old", "."]),
    ("not saved", [".", ".", ".", ".", "→ known", ".", "→ known, what is read is old", "."]),
    ("changed by others", [".", ".", ".", ".", "anew, → dirty", ".", "anew, → known, what is read is old", "."]),
    (
        "forget",
        [".", "→ unwatched", "→ unwatched", "→ unwatched", "→ unwatched", "→ unwatched", "→ unwatched", "→ unwatched"],
    ),
];

#[test]
fn every_event_in_every_state() {
    every_cell(STATES, TABLE, |state, event| Bench::in_state(state).give(event));
}

#[test]
fn save_of_a_server_that_was_forgotten_meanwhile_says_nothing_of_the_one_that_is_back() {
    let mut bench = Bench::in_state("saving");
    for step in ["forget", "watch", "read theirs", "saved", "tools"] {
        bench.give(step);
    }
    bench.guard.save(&mut bench.out);
    let Some(Action::SavePins { base, .. }) = bench.out.pop() else { panic!("it is saved") };
    assert_eq!(base, Some(theirs()), "what was read is what the next save goes on from");
}

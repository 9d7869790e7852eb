//! The program `sim`: what it says of states and plans that are of no use to it.

use std::path::PathBuf;
use std::process::{Command, Output};

fn sim(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sim")).args(words).output().expect("it was built")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A file of this test alone, which is not there yet.
fn file(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

#[test]
fn state_goes_on_where_it_ended_and_with_no_other_seeds() {
    let path = file("seeds.json");
    let state = path.to_str().expect("its name is text");
    let begun = sim(&["--from", "3", "--count", "1", "--threads", "1", "--state", state]);
    assert!(begun.status.success(), "{}", said(&begun));
    let resumed = sim(&["--count", "2", "--threads", "1", "--state", state]);
    assert!(String::from_utf8_lossy(&resumed.stdout).contains("2 seeds from 3,"), "{resumed:?}");
    let other = sim(&["--from", "900", "--count", "2", "--state", state]);
    assert!(!other.status.success() && said(&other).contains("it begins with seed 3, and not with 900"), "{other:?}");
    std::fs::remove_file(path).expect("it was written");
}

#[test]
fn state_of_another_build_is_refused() {
    let path = file("build.json");
    let state = path.to_str().expect("its name is text");
    assert!(sim(&["--count", "1", "--threads", "1", "--state", state]).status.success());
    let kept = std::fs::read_to_string(&path).expect("it was written");
    let mut kept: serde_json::Value = serde_json::from_str(&kept).expect("it is JSON");
    for build in [serde_json::json!("another"), serde_json::Value::Null] {
        match build {
            serde_json::Value::Null => drop(kept.as_object_mut().expect("it has members").remove("build")),
            build => kept["build"] = build,
        }
        std::fs::write(&path, kept.to_string()).expect("it can be written");
        let refused = sim(&["--count", "2", "--state", state]);
        assert!(!refused.status.success() && said(&refused).contains("another build's"), "{refused:?}");
    }
    std::fs::remove_file(path).expect("it was written");
}

#[test]
fn seed_that_passes_cannot_be_made_small() {
    let passes = sim(&["shrink", "1"]);
    assert!(!passes.status.success() && said(&passes).contains("nothing fails"), "{passes:?}");
    assert!(passes.stdout.is_empty(), "no plan is printed: {passes:?}");
}

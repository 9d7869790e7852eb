//! Any names: what is listed fits every client, can be taken apart, and is nobody else's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tunnel_core::names::{MAX_LABEL, MAX_NAME, SEPARATOR, label, listed, split};

type Names<'a> = (&'a str, &'a str, &'a str);

fuzz_target!(|input: (bool, Names<'_>, Names<'_>)| {
    let (with_device, one, other) = input;
    // Which of the two spellings is meant, the room knows: within one, no two tools share a name.
    let name = |(device, server, tool): Names<'_>| listed(with_device.then_some(device), server, tool);
    let parts = |(device, server, tool): Names<'_>| {
        (with_device.then_some(device.to_owned()), server.to_owned(), tool.to_owned())
    };
    assert_eq!(name(one) == name(other), parts(one) == parts(other), "{one:?} {other:?}");
    assert_eq!(label(one.0) == label(other.0), one.0 == other.0);
    for (device, server, tool) in [one, other] {
        for name in [device, server] {
            let label = label(name);
            assert!(fits(&label, MAX_LABEL) && !label.contains(SEPARATOR), "{label}");
            assert!(!label.starts_with('_') && !label.ends_with('_'), "{label}");
        }
        let name = name((device, server, tool));
        assert!(fits(&name, MAX_NAME), "{name}");
        let mut rest = &*name;
        for part in with_device.then_some(device).into_iter().chain([server]) {
            let (first, after) = split(rest).expect("a listed name has its parts");
            assert_eq!(first, label(part));
            rest = after;
        }
        assert!(
            rest == tool || !is_plain(tool) || tool.len() + name.len() - rest.len() > MAX_NAME,
            "{rest} for {tool}"
        );
    }
});

fn fits(name: &str, max: usize) -> bool {
    !name.is_empty()
        && name.len() <= max
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// What no one has a reason to change: a tool's name of letters and digits.
fn is_plain(tool: &str) -> bool {
    !tool.is_empty() && tool.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

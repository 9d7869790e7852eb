//! Any bytes, split anywhere: the same events.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tunnel_core::sse::Parser;

fuzz_target!(|input: (usize, &[u8])| {
    let (at, data) = input;
    let (head, tail) = data.split_at(at.min(data.len()));
    assert_eq!(events(&[data]), events(&[head, tail]));
});

fn events(pieces: &[&[u8]]) -> Vec<String> {
    let mut parser = Parser::new(64 * 1024);
    let mut found = Vec::new();
    for piece in pieces {
        if parser.push(piece).is_err() {
            return Vec::new();
        }
        while let Some(event) = parser.next() {
            found.push(format!("{event:?}"));
        }
    }
    found
}

//! Any output of a server, in pieces of any size: the lines that it is split into do not depend on the pieces.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use lines::{Line, Lines};

#[allow(dead_code)] // The program uses all of it; it is not public.
#[path = "../../runtime-tokio/src/lines.rs"]
mod lines;

/// What is kept of the beginning of a line over the cap, and of its end.
const ENDS: (usize, usize) = (4096, 256);

fuzz_target!(|input: (u16, Vec<u16>, &[u8])| {
    let (cap, pieces, data) = input;
    // Below that, a line's beginning is not whole when it is found too long; no server has so small a cap.
    let cap = ENDS.0 + usize::from(cap) % 64;
    // A short input for the long line that it means: each ~ a run of bytes.
    let output: Vec<u8> = data.iter().flat_map(|byte| vec![*byte; if *byte == b'~' { ENDS.0 } else { 1 }]).collect();
    let mut lines = Lines::new(cap);
    let (mut found, mut rest) = (Vec::new(), &*output);
    for size in pieces.into_iter().map(usize::from).chain([output.len()]) {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        lines.space().extend_from_slice(piece);
        found.extend(std::iter::from_fn(|| lines.next()));
        rest = after;
    }
    found.extend(lines.finish());
    assert_eq!(found, expected(&output, cap));
});

fn expected(output: &[u8], cap: usize) -> Vec<Line> {
    let mut lines: Vec<&[u8]> = output.split(|byte| *byte == b'\n').collect();
    let last = lines.pop().filter(|last| !last.is_empty());
    let whole = lines.into_iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    whole.chain(last).map(|line| judged(line, cap)).collect()
}

fn judged(line: &[u8], cap: usize) -> Line {
    let copy = Bytes::copy_from_slice;
    if line.len() <= cap {
        return Line::Whole(copy(line));
    }
    Line::TooLong {
        prefix: copy(&line[..ENDS.0]),
        suffix: copy(&line[line.len() - ENDS.1..]),
        length: line.len() as u64,
    }
}

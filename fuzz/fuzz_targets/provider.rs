//! Any answers of a provider: they end a login with words, and nobody gets in who is not vouched for by its key.
#![no_main]

mod login;

use libfuzzer_sys::fuzz_target;
use login::{Login, reply};

const STATUS: [u16; 8] = [200, 201, 302, 400, 401, 404, 429, 503];

// Pieces between bytes that no JSON has: a callback's query, then answers. The first byte of each chooses its status.
fuzz_target!(|data: &[u8]| {
    let mut pieces = data.split(|byte| *byte == 0xFF);
    let query = String::from_utf8_lossy(pieces.next().unwrap_or_default());
    let mut answer = |_: &str| {
        let piece = pieces.next().unwrap_or_default();
        let (status, body) = piece.split_first().unwrap_or((&b'0', b""));
        reply(STATUS[usize::from(*status) % STATUS.len()], body.to_vec())
    };
    let mut login = Login::new("sub", &[]);
    let Some((_, pending)) = login.start(&mut answer) else { return };
    let query = query.replace("$state", pending.state());
    let identity = login.come_back(pending, &query, &mut answer);
    assert!(identity.is_none(), "its key has signed nothing");
});

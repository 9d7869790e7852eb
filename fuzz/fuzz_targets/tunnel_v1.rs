//! Any text on a V1 tunnel, either side: never a panic, and nothing after the end.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tunnel_core::time::Now;
use tunnel_core::tunnel::connection::{Connection, Settings};
use tunnel_core::tunnel::{Dialect, Event, Hello, Message, Side};

fuzz_target!(|messages: Vec<&str>| {
    for side in [Side::Relay, Side::Agent] {
        let hello = Hello { max_message: 1 << 20, max_streams: 16, ..Hello::default() };
        let mut connection = Connection::new(Settings { side, dialect: Dialect::V1, hello }, Now::default());
        let mut closed = false;
        for message in &messages {
            connection.handle_message(Message::Text(Bytes::copy_from_slice(message.as_bytes())), Now::default());
            while let Some(event) = connection.poll_event() {
                assert!(!closed, "an event after the end: {event:?}");
                closed = matches!(event, Event::Closed(_));
            }
            while connection.poll_transmit(Now::default()).is_some() {}
        }
    }
});

//! Real WebSocket framing over a pipe of bytes: what is sent comes in pieces of any size, several messages in one or one
//! in several.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use bytes::Bytes;
use tungstenite::protocol::{CloseFrame, Message as WsMessage, Role, WebSocketConfig};
use tungstenite::{Error, WebSocket};
use tunnel_core::entropy::Seeded;
use tunnel_core::limits::MAX_TRANSMIT;
use tunnel_core::tunnel::{Close, CloseCode, Dialect, Message};

use crate::link::Toward;

/// The two ends of a link's framing.
#[derive(Debug)]
pub(crate) struct Framing {
    /// By where they send to: the agent's end first.
    ends: [WebSocket<Pipe>; 2],
}

/// What an end read.
pub(crate) enum Heard {
    Message(Message),
    /// The connection is over.
    Ended(&'static str),
}

/// A socket in memory.
#[derive(Debug, Default)]
struct Pipe {
    input: VecDeque<u8>,
    output: Vec<u8>,
}

impl Framing {
    /// Two ends whose handshake is done.
    pub(crate) fn new(dialect: Dialect) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(8 * 1024)
            .write_buffer_size(0)
            .max_write_buffer_size(MAX_TRANSMIT.max(dialect.max_receive()) * 2)
            .max_message_size(Some(dialect.max_receive()))
            .max_frame_size(Some(dialect.max_receive()));
        let end = |role| WebSocket::from_raw_socket(Pipe::default(), role, Some(config));
        Self { ends: [end(Role::Client), end(Role::Server)] }
    }

    /// Writes `message`; its bytes are taken with [`take`](Self::take). Returns how many wait for that.
    pub(crate) fn write(&mut self, toward: Toward, message: Message) -> usize {
        let end = &mut self.ends[toward as usize];
        if let Some(message) = to_wire(message) {
            // One that is over takes nothing more, as a real one does.
            let _ = end.send(message);
        }
        end.get_ref().output.len()
    }

    /// The bytes that were written, cut into pieces without regard to messages.
    pub(crate) fn take(&mut self, toward: Toward, dice: &mut Seeded) -> Vec<Bytes> {
        cut(std::mem::take(&mut self.ends[toward as usize].get_mut().output), dice)
    }

    /// What the end hears that `bytes` arrive at. What its library answers by itself waits to be taken.
    pub(crate) fn read(&mut self, toward: Toward, bytes: &[u8]) -> Vec<Heard> {
        // The receiver is the end that sends the other way.
        let end = &mut self.ends[1 - toward as usize];
        end.get_mut().input.extend(bytes);
        let mut heard = Vec::new();
        loop {
            match end.read() {
                Ok(message) => heard.extend(from_wire(message).map(Heard::Message)),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                    heard.push(Heard::Ended("the connection ended"));
                    break;
                }
                Err(error) => panic!("the library refuses what the library wrote: {error}"),
            }
        }
        let _ = end.flush();
        heard
    }
}

/// Pieces as a network makes them: mostly whole, sometimes a few bytes.
fn cut(bytes: Vec<u8>, dice: &mut Seeded) -> Vec<Bytes> {
    let mut rest = Bytes::from(bytes);
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let most = match dice.next_u64() % 8 {
            0 => 1 + dice.next_u64() % 7,
            1..4 => 1 + dice.next_u64() % 1460,
            _ => 64 * 1024,
        };
        let most = usize::try_from(most).expect("small").min(rest.len());
        pieces.push(rest.split_to(most));
    }
    pieces
}

impl Read for Pipe {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(out)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn from_wire(message: WsMessage) -> Option<Message> {
    Some(match message {
        WsMessage::Text(text) => Message::Text(text.into()),
        WsMessage::Binary(bytes) => Message::Binary(bytes),
        WsMessage::Ping(bytes) => Message::Ping(bytes),
        WsMessage::Pong(bytes) => Message::Pong(bytes),
        WsMessage::Close(frame) => Message::Close(frame.map_or_else(
            || Close::new(CloseCode::from_u16(1005), ""),
            |frame| Close::new(CloseCode::from_u16(frame.code.into()), frame.reason.as_str()),
        )),
        WsMessage::Frame(_) => return None,
    })
}

fn to_wire(message: Message) -> Option<WsMessage> {
    Some(match message {
        Message::Text(bytes) => WsMessage::Text(bytes.try_into().expect("a connection promises UTF-8")),
        Message::Binary(bytes) => WsMessage::Binary(bytes),
        Message::Ping(bytes) => WsMessage::Ping(bytes),
        // The library answers pings by itself.
        Message::Pong(_) => return None,
        Message::Close(close) => {
            let code = close.code.to_u16();
            let is_sendable = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            WsMessage::Close(
                is_sendable.then(|| CloseFrame { code: code.into(), reason: close.reason.as_str().into() }),
            )
        }
    })
}

//! The old side of a tunnel as a plain WebSocket.

use std::net::TcpStream;
use std::time::Duration;

use tungstenite::{Message, WebSocket};

/// One end of a WebSocket that waits for what is read, though not forever.
pub struct Socket(WebSocket<TcpStream>);

impl Socket {
    /// Connects as an agent before 2.0 does: its name and token are in the URL, and it asks for nothing else.
    pub fn dial(port: u16, device: &str, token: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the relay listens");
        let url = format!("ws://localhost:{port}/ws?name={device}&token={token}");
        let (socket, response) = tungstenite::client(url, patient(stream)).expect("the relay takes the tunnel");
        assert_eq!(response.headers().get("mcp-tunnel"), None);
        Self(socket)
    }

    pub fn new(socket: WebSocket<TcpStream>) -> Self {
        Self(socket)
    }

    pub fn say(&mut self, text: &str) {
        self.0.send(Message::text(text)).expect("the tunnel holds");
    }

    pub fn hear(&mut self) -> String {
        loop {
            match self.0.read().expect("the tunnel holds") {
                Message::Text(text) => return text.to_string(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?} is no message of dialect V1"),
            }
        }
    }

    /// Sends a ping and waits for what answers it.
    pub fn ping(&mut self) {
        self.0.send(Message::Ping("are you there".into())).expect("the tunnel holds");
        assert_eq!(self.0.read().expect("the tunnel holds"), Message::Pong("are you there".into()));
    }
}

/// A stream that gives up reading what does not come.
pub fn patient(stream: TcpStream) -> TcpStream {
    stream.set_nonblocking(false).expect("a socket can be told");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket can be told");
    stream
}

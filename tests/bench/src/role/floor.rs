//! The floor: a relay and an agent that only forward. Hyper in front, `length (u32, big endian) · message` over one TCP
//! connection, ids rewritten; no sign-in, no WebSocket, no names, no policy, no way back after a fault.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::TcpStream as BlockingStream;
use std::process::{Command, Stdio};
use std::rc::Rc;

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{Notify, oneshot};
use tokio::task::{LocalSet, spawn_local};

use super::direct::json;

const BUFFER: usize = 256 * 1024;

/// The relay's one tunnel: what is to be written, and who waits.
#[derive(Default)]
struct Tunnel {
    out: RefCell<BytesMut>,
    wake: Notify,
    waiting: RefCell<HashMap<u64, (Bytes, oneshot::Sender<Bytes>)>>,
    next: RefCell<u64>,
}

/// Serves clients on `port`, and one agent on `tunnel`.
pub(crate) fn relay(port: u16, tunnel: u16) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let clients = TcpListener::bind(("127.0.0.1", port)).await?;
        let agents = TcpListener::bind(("127.0.0.1", tunnel)).await?;
        let shared = Rc::new(Tunnel::default());
        let (agent, _) = agents.accept().await?;
        agent.set_nodelay(true)?;
        spawn_local(carry(agent, Rc::clone(&shared)));
        loop {
            let (stream, _) = clients.accept().await?;
            stream.set_nodelay(true)?;
            let shared = Rc::clone(&shared);
            let service = service_fn(move |request| forward(Rc::clone(&shared), request));
            spawn_local(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    })
}

async fn forward(tunnel: Rc<Tunnel>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let Ok(body) = request.into_body().collect().await else { return Ok(json(Bytes::new())) };
    let body = body.to_bytes();
    let Some((before, id, after)) = around_id(&body) else {
        tunnel.send(&[&body]);
        return Ok(json(Bytes::new()));
    };
    let own = tunnel.next.replace_with(|next| *next + 1);
    let (answer, answered) = oneshot::channel();
    tunnel.waiting.borrow_mut().insert(own, (body.slice_ref(id), answer));
    tunnel.send(&[before, own.to_string().as_bytes(), after]);
    Ok(json(answered.await.unwrap_or_default()))
}

impl Tunnel {
    fn send(&self, pieces: &[&[u8]]) {
        let mut out = self.out.borrow_mut();
        let length = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        pieces.iter().for_each(|piece| out.extend_from_slice(piece));
        self.wake.notify_one();
    }

    /// Gives an answer to whoever waits for it, under the id that the question had.
    fn answer(&self, message: &Bytes) {
        let Some((before, id, after)) = around_id(message) else { return };
        let own = std::str::from_utf8(id).ok().and_then(|id| id.parse::<u64>().ok());
        let Some((id, answer)) = own.and_then(|own| self.waiting.borrow_mut().remove(&own)) else { return };
        let mut body = BytesMut::with_capacity(before.len() + id.len() + after.len());
        [before, &id, after].into_iter().for_each(|piece| body.extend_from_slice(piece));
        drop(answer.send(body.freeze()));
    }
}

async fn carry(agent: TcpStream, tunnel: Rc<Tunnel>) -> io::Result<()> {
    let (mut reader, mut writer) = agent.into_split();
    let sending = Rc::clone(&tunnel);
    spawn_local(async move {
        loop {
            sending.wake.notified().await;
            let mut out = sending.out.take();
            while out.has_remaining() {
                writer.write_buf(&mut out).await?;
            }
            if sending.out.borrow().capacity() == 0 {
                out.clear();
                *sending.out.borrow_mut() = out;
            }
        }
        #[allow(unreachable_code, reason = "it says what `?` returns")]
        io::Result::Ok(())
    });
    let mut buffer = BytesMut::with_capacity(BUFFER);
    loop {
        while let Some(message) = take_message(&mut buffer) {
            tunnel.answer(&message.freeze());
        }
        if reader.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// The next whole message; else makes room for the rest of it.
fn take_message(buffer: &mut BytesMut) -> Option<BytesMut> {
    let length = usize::try_from(u32::from_be_bytes(*buffer.first_chunk()?)).ok()?;
    if buffer.len() < 4 + length {
        buffer.reserve(4 + length - buffer.len());
        return None;
    }
    buffer.advance(4);
    Some(buffer.split_to(length))
}

/// What is before a message's id, the id, what is behind it. The messages that are measured are written without spaces,
/// the id first or last.
fn around_id(message: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    const NAME: &[u8] = b"\"id\":";
    let near = message.get(..48).unwrap_or(message);
    let at = memmem::find(near, NAME).or_else(|| memmem::rfind(message, NAME))? + NAME.len();
    let (before, rest) = message.split_at_checked(at)?;
    let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    let (id, after) = rest.split_at_checked(end)?;
    (!id.is_empty()).then_some((before, id, after))
}

/// Connects to a relay's `tunnel` and forwards to a server that it starts: a thread for each way, each of which reads
/// what is there and writes it in one go.
pub(crate) fn agent(tunnel: u16, server: &[String]) -> io::Result<()> {
    let stream = BlockingStream::connect(("127.0.0.1", tunnel))?;
    stream.set_nodelay(true)?;
    let (program, args) = server.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut child = Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else { return Err(io::ErrorKind::BrokenPipe.into()) };
    // As wide as the program's.
    rustix::pipe::fcntl_setpipe_size(&stdout, BUFFER)?;
    let mut reader = stream.try_clone()?;
    std::thread::spawn(move || up(stdout, stream));
    let (mut space, mut buffer, mut out) = (vec![0; BUFFER], BytesMut::with_capacity(BUFFER), Vec::new());
    loop {
        while let Some(message) = take_message(&mut buffer) {
            out.extend_from_slice(&message);
            out.push(b'\n');
        }
        stdin.write_all(&out)?;
        out.clear();
        if read(&mut reader, &mut space, &mut buffer)? == 0 {
            child.kill()?;
            child.wait()?;
            return Ok(());
        }
    }
}

/// Carries the server's lines to the relay.
fn up(mut stdout: impl Read, mut stream: BlockingStream) -> io::Result<()> {
    let (mut space, mut buffer, mut out) = (vec![0; BUFFER], BytesMut::with_capacity(BUFFER), Vec::new());
    let mut searched = 0;
    loop {
        while let Some(end) = memchr::memchr(b'\n', buffer.get(searched..).unwrap_or_default()) {
            let line = buffer.split_to(searched + end);
            buffer.advance(1);
            searched = 0;
            out.extend_from_slice(&u32::try_from(line.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(&line);
        }
        searched = buffer.len();
        stream.write_all(&out)?;
        out.clear();
        if read(&mut stdout, &mut space, &mut buffer)? == 0 {
            return Ok(());
        }
    }
}

/// Reads what is there to the end of `buffer`, by way of `space`: to clear as much anew would cost more than a copy.
fn read(reader: &mut impl Read, space: &mut [u8], buffer: &mut BytesMut) -> io::Result<usize> {
    let read = reader.read(space)?;
    buffer.extend_from_slice(space.get(..read).unwrap_or_default());
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_found_first_and_last_and_not_inside_a_result() {
        let parts = |text: &'static str| {
            around_id(text.as_bytes())
                .map(|(before, id, after)| [before, id, after].map(|part| String::from_utf8_lossy(part).into_owned()))
        };
        let first = parts(r#"{"jsonrpc":"2.0","id":12,"result":{"id":3}}"#).expect("an id");
        assert_eq!(first, [r#"{"jsonrpc":"2.0","id":"#, "12", r#","result":{"id":3}}"#]);
        let last = parts(r#"{"result":{"content":[{"type":"text","text":"a long one"}]},"jsonrpc":"2.0","id":7}"#);
        assert_eq!(last.expect("an id")[1..], ["7", "}"]);
        assert_eq!(parts(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#), None);
    }

    #[test]
    fn messages_are_taken_whole_however_they_come() {
        let mut buffer = BytesMut::new();
        let mut taken = Vec::new();
        for byte in [0, 0, 0, 2, b'a', b'b', 0, 0, 0, 0, 0, 0, 0, 1, b'c'] {
            buffer.extend_from_slice(&[byte]);
            taken.extend(take_message(&mut buffer));
        }
        assert_eq!(taken, ["ab", "", "c"]);
    }
}

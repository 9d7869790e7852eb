//! All that this crate has of tokio. Its other files, [`stream`](crate::stream) but for one, are the same text on any
//! runtime.
//!
//! (`tokio::sync` and `tokio::select!` are used as they are: they are code without a runtime, and hyper brings the first
//! along everywhere.)

use std::future::Future;
use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::available_parallelism;

use async_tungstenite::tokio::TokioAdapter;
use bytes::BytesMut;
use tokio::runtime::Builder;
use tokio::signal::unix::SignalKind;

pub use hyper_util::rt::TokioIo as HyperIo;
pub use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
pub use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream, lookup_host};
pub use tokio::process::{Child, ChildStdin};
pub use tokio::task::{AbortHandle, JoinHandle, JoinSet, spawn_blocking, yield_now};
pub use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
pub use tokio::{spawn, test};
pub use tokio_rustls as tls;

/// A byte stream with the traits that the WebSocket library knows.
pub type WsIo<S> = TokioAdapter<S>;

/// Runs `work` to its end on all cores. Where there are two, that is one thread and the system's share of the work: two
/// threads would spend a quarter of their time waking each other.
///
/// # Errors
/// The system gives no threads, or no descriptors.
pub fn run<T>(work: impl Future<Output = T>) -> io::Result<T> {
    if available_parallelism().is_ok_and(|cores| cores.get() <= 2) {
        return run_small(work);
    }
    Ok(Builder::new_multi_thread().enable_all().build()?.block_on(work))
}

/// Runs `work` to its end on this thread alone: for what mostly waits.
///
/// # Errors
/// The system gives no descriptors.
pub fn run_small<T>(work: impl Future<Output = T>) -> io::Result<T> {
    // A few sockets are served before more are asked for, so that what they brought is on its way meanwhile.
    Ok(Builder::new_current_thread().max_io_events_per_tick(SOCKETS_AT_ONCE).enable_all().build()?.block_on(work))
}

/// The runtime's own instant.
pub(crate) fn at(instant: std::time::Instant) -> Instant {
    instant.into()
}

/// A byte stream for the WebSocket library.
pub(crate) fn ws_io<S>(stream: S) -> WsIo<S> {
    TokioAdapter::new(stream)
}

/// Reads what is there to the end of `buffer`. Dropping the future loses nothing.
pub(crate) async fn read_buf(reader: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> io::Result<usize> {
    reader.read_buf(buffer).await
}

/// Says that nothing more will be written.
pub(crate) async fn finish(writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    writer.shutdown().await
}

/// A listening socket, for the runtime to wait on.
pub(crate) fn unix_listener(listener: StdUnixListener) -> io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Who is at the other end of a socket: the user, and the process where the system tells.
pub(crate) fn peer(stream: &UnixStream) -> io::Result<(u32, Option<i32>)> {
    let peer = stream.peer_cred()?;
    Ok((peer.uid(), peer.pid()))
}

/// Starts a process with stdin, stdout and stderr; with `kill_on_drop` it does not outlive its handle.
pub(crate) fn start(command: Command, streams: [Stdio; 3], kill_on_drop: bool) -> io::Result<Child> {
    let [stdin, stdout, stderr] = streams;
    let mut command = tokio::process::Command::from(command);
    command.stdin(stdin).stdout(stdout).stderr(stderr).kill_on_drop(kill_on_drop).spawn()
}

/// A process's id; `None` once it was reaped.
pub(crate) fn id(child: &Child) -> Option<u32> {
    child.id()
}

/// Waits until a process ends. Dropping the future loses nothing.
pub(crate) async fn ended(child: &mut Child) -> io::Result<ExitStatus> {
    child.wait().await
}

/// A descriptor that is waited for.
#[cfg(target_os = "linux")]
pub(crate) struct Readable(tokio::io::unix::AsyncFd<OwnedFd>);

#[cfg(target_os = "linux")]
impl Readable {
    /// Of a descriptor that does not block.
    #[allow(deprecated, reason = "its replacement is unsafe, for descriptors that others may close; this one is owned")]
    pub(crate) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        tokio::io::unix::AsyncFd::new(descriptor).map(Self)
    }

    /// Does `read` when there is something to read, until it no longer says that it would block.
    pub(crate) async fn read_with<R>(&self, mut read: impl FnMut(&OwnedFd) -> io::Result<R>) -> io::Result<R> {
        self.0.async_io(tokio::io::Interest::READABLE, |descriptor| read(descriptor)).await
    }
}

/// One of the signals that the system sends, taken over from its default for as long as the process lives.
#[derive(Debug)]
pub(crate) struct Signal(tokio::signal::unix::Signal);

impl Signal {
    /// SIGTERM.
    pub(crate) fn terminate() -> io::Result<Self> {
        tokio::signal::unix::signal(SignalKind::terminate()).map(Self)
    }

    /// SIGINT.
    pub(crate) fn interrupt() -> io::Result<Self> {
        tokio::signal::unix::signal(SignalKind::interrupt()).map(Self)
    }

    /// SIGHUP.
    pub(crate) fn hangup() -> io::Result<Self> {
        tokio::signal::unix::signal(SignalKind::hangup()).map(Self)
    }

    /// Waits for the next one. Dropping the future loses none.
    pub(crate) async fn recv(&mut self) {
        self.0.recv().await;
    }
}

/// Of 64 callers' sockets so many, and not all at once, are a tenth more calls a second: the agent works while the relay
/// reads on.
const SOCKETS_AT_ONCE: usize = 16;

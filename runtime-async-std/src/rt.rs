//! All that this crate has of async-std. Its other files, [`stream`](crate::stream) but for one, are those of
//! `runtime-tokio` themselves (symbolic links): the same text on any runtime.
//!
//! (`tokio::sync` and `tokio::select!` are used as they are: they are code without a runtime, and hyper brings the first
//! along everywhere.)
//!
//! async-std is discontinued, so it is used for little, and each of its calls has an equal in smol, of one line:
//!
//! | here | smol |
//! |---|---|
//! | `drop(task::spawn(future))` | `smol::spawn(future).detach()` |
//! | `drop(task::spawn_blocking(work))` | `smol::unblock(work).detach()` |
//! | `task::block_on(future)` | `smol::block_on(future)` |
//! | `task::yield_now()` | `smol::future::yield_now()` |
//! | `net::{TcpListener, TcpStream}` | `smol::net::{TcpListener, TcpStream}` |
//! | `os::unix::net::{UnixListener, UnixStream}` | `smol::net::unix::{UnixListener, UnixStream}` |
//! | `UnixListener::from(listener)` | `smol::net::unix::UnixListener::try_from(listener)?` |
//! | `ToSocketAddrs::to_socket_addrs(address)` | `smol::net::resolve(address)` |
//! | `#[async_std::test]` | `#[apply(smol_macros::test!)]` |
//!
//! What it cannot do is done by its siblings async-io, async-process and async-signal, which are smol's own. What remains:
//! it has one set of threads for all of the process, which lives as long as that. So [`run_small`] saves no threads, and
//! tasks that are under way when [`run`] returns are not dropped then, but end with the process, as if it had crashed:
//! nothing that must happen is left to such a task's end.

mod hyper;
mod tasks;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::pin::{Pin, pin};
use std::process::{Command, ExitStatus, Stdio};
use std::task::{Context, Poll};
use std::time::Duration;

use async_io::Timer;
use async_signal::Signals;
use async_std::net::ToSocketAddrs;
use async_std::task;
use bytes::BytesMut;
use futures_util::StreamExt as _;
use futures_util::future::{Either, poll_fn, select};

pub use async_process::{Child, ChildStdin};
pub use async_std::net::{TcpListener, TcpStream};
pub use async_std::os::unix::net::{UnixListener, UnixStream};
pub use async_std::task::yield_now;
#[cfg(test)]
pub use async_std::test;
pub use futures_rustls as tls;
pub use futures_util::future::AbortHandle;
pub use futures_util::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
pub use std::time::Instant;

pub use self::hyper::HyperIo;
pub use self::tasks::{JoinError, JoinHandle, JoinSet, spawn, spawn_blocking};

/// A byte stream with the traits that the WebSocket library knows: those that it has.
pub type WsIo<S> = S;

/// Runs `work` to its end on all cores.
///
/// # Errors
/// None here.
pub fn run<T>(work: impl Future<Output = T>) -> io::Result<T> {
    Ok(task::block_on(work))
}

/// Runs `work` to its end, on this thread as far as it starts no tasks.
///
/// # Errors
/// None here.
pub fn run_small<T>(work: impl Future<Output = T>) -> io::Result<T> {
    run(work)
}

/// The runtime's own instant.
pub(crate) fn at(instant: std::time::Instant) -> Instant {
    instant
}

/// A wait that knows its end.
#[derive(Debug)]
pub struct Sleep {
    deadline: Instant,
    timer: Timer,
}

impl Sleep {
    /// Until when it is.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Makes it end at another time.
    pub fn reset(self: Pin<&mut Self>, deadline: Instant) {
        let this = self.get_mut();
        this.deadline = deadline;
        this.timer.set_at(deadline);
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // A timer rings once; a wait that is over stays over.
        if Instant::now() >= self.deadline {
            return Poll::Ready(());
        }
        Pin::new(&mut self.timer).poll(cx).map(drop)
    }
}

/// Waits until `deadline`.
#[must_use]
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, timer: Timer::at(deadline) }
}

/// Waits.
#[must_use]
pub fn sleep(time: Duration) -> Sleep {
    let now = Instant::now();
    sleep_until(now.checked_add(time).unwrap_or(now + FAR))
}

/// What did not end in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it did not end in time")]
pub struct Elapsed;

impl From<Elapsed> for io::Error {
    fn from(elapsed: Elapsed) -> Self {
        Self::new(io::ErrorKind::TimedOut, elapsed)
    }
}

/// Waits for `work`, but no longer than `limit`.
///
/// # Errors
/// It did not end in time, and was dropped.
pub async fn timeout<F: Future>(limit: Duration, work: F) -> Result<F::Output, Elapsed> {
    match select(pin!(work), sleep(limit)).await {
        Either::Left((outcome, _)) => Ok(outcome),
        Either::Right(_) => Err(Elapsed),
    }
}

/// The addresses of a host.
///
/// # Errors
/// It has none.
pub async fn lookup_host(host: (&str, u16)) -> io::Result<impl Iterator<Item = SocketAddr>> {
    ToSocketAddrs::to_socket_addrs(&host).await
}

/// A byte stream for the WebSocket library.
pub(crate) fn ws_io<S>(stream: S) -> WsIo<S> {
    stream
}

/// Reads what is there to the end of `buffer`. Dropping the future loses nothing.
pub(crate) async fn read_buf(reader: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> io::Result<usize> {
    let length = buffer.len();
    poll_fn(|cx| {
        let room = (buffer.capacity() - length).max(LEAST_READ);
        buffer.resize(length + room, 0);
        let read = Pin::new(&mut *reader).poll_read(cx, buffer.get_mut(length..).unwrap_or_default());
        let filled = if let Poll::Ready(Ok(read)) = &read { *read } else { 0 };
        buffer.truncate(length + filled);
        read
    })
    .await
}

/// Says that nothing more will be written.
pub(crate) async fn finish(writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    writer.close().await
}

/// A listening socket, for the runtime to wait on.
pub(crate) fn unix_listener(listener: StdUnixListener) -> io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    Ok(UnixListener::from(listener))
}

/// Who is at the other end of a socket: the user, and the process.
#[cfg(target_os = "linux")]
pub(crate) fn peer(stream: &UnixStream) -> io::Result<(u32, Option<i32>)> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?;
    Ok((peer.uid.as_raw(), Some(peer.pid.as_raw_nonzero().get())))
}

/// Nothing tells it here: that it is this user is left to the mode of the socket and its directory.
#[cfg(not(target_os = "linux"))]
pub(crate) fn peer(_stream: &UnixStream) -> io::Result<(u32, Option<i32>)> {
    Ok((rustix::process::geteuid().as_raw(), None))
}

/// Starts a process with stdin, stdout and stderr; with `kill_on_drop` it does not outlive its handle.
pub(crate) fn start(command: Command, streams: [Stdio; 3], kill_on_drop: bool) -> io::Result<Child> {
    let [stdin, stdout, stderr] = streams;
    let mut command = async_process::Command::from(command);
    command.stdin(stdin).stdout(stdout).stderr(stderr).kill_on_drop(kill_on_drop).spawn()
}

/// A process's id.
pub(crate) fn id(child: &Child) -> Option<u32> {
    Some(child.id())
}

/// Waits until a process ends. Dropping the future loses nothing.
pub(crate) async fn ended(child: &mut Child) -> io::Result<ExitStatus> {
    child.status().await
}

/// A descriptor that is waited for.
#[cfg(target_os = "linux")]
pub(crate) struct Readable(async_io::Async<OwnedFd>);

#[cfg(target_os = "linux")]
impl Readable {
    /// Of a descriptor that does not block.
    pub(crate) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        async_io::Async::new_nonblocking(descriptor).map(Self)
    }

    /// Does `read` when there is something to read, until it no longer says that it would block.
    pub(crate) async fn read_with<R>(&self, read: impl FnMut(&OwnedFd) -> io::Result<R>) -> io::Result<R> {
        self.0.read_with(read).await
    }
}

/// One of the signals that the system sends, taken over from its default for as long as the process lives.
#[derive(Debug)]
pub(crate) struct Signal(Signals);

impl Signal {
    /// SIGTERM.
    pub(crate) fn terminate() -> io::Result<Self> {
        Signals::new([async_signal::Signal::Term]).map(Self)
    }

    /// SIGINT.
    pub(crate) fn interrupt() -> io::Result<Self> {
        Signals::new([async_signal::Signal::Int]).map(Self)
    }

    /// SIGHUP.
    pub(crate) fn hangup() -> io::Result<Self> {
        Signals::new([async_signal::Signal::Hup]).map(Self)
    }

    /// Waits for the next one. Dropping the future loses none.
    pub(crate) async fn recv(&mut self) {
        self.0.next().await;
    }
}

/// As good as never.
const FAR: Duration = Duration::from_secs(365 * 86_400);
/// Room for a line or so, where a buffer has none left.
const LEAST_READ: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[crate::rt::test]
    async fn wait_can_be_put_off_and_stays_over() {
        let begin = Instant::now();
        let mut wait = sleep(Duration::from_secs(3600));
        Pin::new(&mut wait).reset(begin + Duration::from_millis(20));
        (&mut wait).await;
        assert!(begin.elapsed() >= Duration::from_millis(20) && wait.deadline() <= Instant::now());
        wait.await;
    }

    #[crate::rt::test]
    async fn buffer_that_nothing_came_to_is_as_it_was() {
        let (mut one, mut other) = UnixStream::pair().expect("sockets");
        let mut buffer = BytesMut::from("before");
        let nothing = timeout(Duration::from_millis(20), read_buf(&mut one, &mut buffer)).await;
        assert!(matches!(nothing, Err(Elapsed)), "{nothing:?}");
        assert_eq!(buffer, "before");
        other.write_all(b" and after").await.expect("writes");
        assert_eq!(read_buf(&mut one, &mut buffer).await.expect("reads"), 10);
        assert_eq!(buffer, "before and after");
    }
}

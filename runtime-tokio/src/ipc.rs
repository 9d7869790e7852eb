//! A socket for commands from the same person on the same machine: one JSON line asks, one JSON line answers.

use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::files;
use crate::rt::{self, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, UnixListener, UnixStream, timeout};

/// A listening socket, 0600 in a 0700 directory; the file is removed when this is dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    place: Place,
}

/// Where a socket was bound: another may have taken the path since.
#[derive(Debug, Clone)]
pub struct Place {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        let found = std::fs::metadata(path)?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    /// Whether whoever connects to the path still comes to that socket.
    #[must_use]
    pub fn is_held(&self) -> bool {
        Self::of(&self.path).is_ok_and(|now| (now.device, now.inode) == (self.device, self.inode))
    }
}

impl Server {
    /// Listens at `path`. A socket that somebody still answers on is left alone; a stale one is replaced.
    ///
    /// # Errors
    /// `AddrInUse` when another process listens there; otherwise what the system says.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            files::private_dir(dir)?;
        }
        let short = ShortPath::of(path)?;
        match std::os::unix::net::UnixStream::connect(short.as_ref()) {
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{} is in use", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => files::remove(path)?,
            Err(_) => {}
        }
        let listener = rt::unix_listener(std::os::unix::net::UnixListener::bind(short.as_ref())?)?;
        // Until here the directory's mode kept others out.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, place: Place::of(path)? })
    }

    /// Where it was bound.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Answers requests with `answer`, side by side, until dropped.
    pub async fn serve<F, A>(&self, answer: F)
    where
        F: Fn(Bytes) -> A + Send + Sync + 'static,
        A: Future<Output = Bytes> + Send + 'static,
    {
        let answer = Arc::new(answer);
        self.converse(
            MAX_CONNECTIONS,
            || {},
            |connection| {
                let answer = Arc::clone(&answer);
                async move {
                    if let Err(error) = answer_all(connection, &*answer).await {
                        tracing::debug!(%error, "control connection ended");
                    }
                }
            },
        )
        .await;
    }

    /// Talks to whoever connects, to at most `places` of them side by side, until dropped; `make_room` is to end a
    /// conversation when there is no place left.
    pub async fn converse<F, T>(&self, places: usize, make_room: impl Fn(), talk: F)
    where
        F: Fn(Connection) -> T,
        T: Future<Output = ()> + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(places));
        loop {
            if places.available_permits() == 0 {
                make_room();
            }
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the control socket");
                    rt::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            if !is_same_user(&stream) {
                tracing::warn!("refused another user on the control socket");
                continue;
            }
            let talk = talk(Connection(BufReader::new(stream)));
            rt::spawn(async move {
                talk.await;
                drop(place);
            });
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.place.is_held() {
            let _ = std::fs::remove_file(&self.place.path);
        }
    }
}

/// A conversation: JSON documents, one on a line.
#[derive(Debug)]
pub struct Connection(BufReader<UnixStream>);

impl Connection {
    /// Connects to the process that listens at `path`.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused` when nobody listens; otherwise what went wrong.
    pub async fn open(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(ShortPath::of(path)?.as_ref()).await?;
        if !is_same_user(&stream) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another user listens on the agent's socket"));
        }
        Ok(Self(BufReader::new(stream)))
    }

    /// The process at the other end, as it was when it connected, where the system tells.
    pub(crate) fn peer(&self) -> Option<i32> {
        rt::peer(self.0.get_ref()).ok()?.1
    }

    /// Sends a document.
    ///
    /// # Errors
    /// What the system says.
    pub async fn send(&mut self, json: &[u8]) -> io::Result<()> {
        self.0.write_all(&[json, b"\n"].concat()).await
    }

    /// The next document; `None` once the other side is done. Dropping the future loses what it had read.
    ///
    /// # Errors
    /// What the system says, and a line that is too long or cut short.
    pub async fn receive(&mut self) -> io::Result<Option<Bytes>> {
        let mut line = Vec::new();
        (&mut self.0).take(MAX_LINE).read_until(b'\n', &mut line).await?;
        match line.pop() {
            Some(b'\n') => Ok(Some(line.into())),
            None => Ok(None),
            Some(_) if line.len() as u64 + 1 >= MAX_LINE => Err(io::Error::other("the line is too long")),
            Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Sends a question and waits for its answer.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn ask(&mut self, json: &[u8]) -> io::Result<Bytes> {
        self.send(json).await?;
        self.receive()
            .await?
            .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "the process ended without an answer"))
    }
}

/// Asks the process that listens at `path` and returns its answer, both one JSON document without line ends.
///
/// # Errors
/// `NotFound` or `ConnectionRefused` when nobody listens; otherwise what went wrong.
pub async fn request(path: &Path, json: &[u8]) -> io::Result<Bytes> {
    request_within(ANSWER_WITHIN, path, json).await
}

/// The same of a process that answers sooner, if at all.
///
/// # Errors
/// The same; `TimedOut` when no answer comes.
pub async fn request_within(time: Duration, path: &Path, json: &[u8]) -> io::Result<Bytes> {
    let asked = async { Connection::open(path).await?.ask(json).await };
    timeout(time, asked).await.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
}

async fn answer_all<F, A>(mut connection: Connection, answer: &F) -> io::Result<()>
where
    F: Fn(Bytes) -> A,
    A: Future<Output = Bytes>,
{
    while let Some(line) = timeout(IDLE, connection.receive()).await?? {
        connection.send(&answer(line).await).await?;
    }
    Ok(())
}

/// The file's mode says so already; not every system heeds the mode of a socket.
fn is_same_user(stream: &UnixStream) -> bool {
    rt::peer(stream).is_ok_and(|(user, _)| user == rustix::process::geteuid().as_raw() || user == 0)
}

/// A path that fits a socket's address, which holds some hundred bytes: a long one goes by way of its open directory.
struct ShortPath {
    path: PathBuf,
    /// Open as long as `path` is used.
    _dir: Option<std::fs::File>,
}

impl ShortPath {
    fn of(path: &Path) -> io::Result<Self> {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if path.as_os_str().len() < MAX_ADDRESS || !cfg!(target_os = "linux") {
            return Ok(Self { path: path.to_owned(), _dir: None });
        }
        let dir = std::fs::File::open(dir)?;
        let path = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _dir: Some(dir) })
    }
}

impl AsRef<Path> for ShortPath {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// What a socket's address holds everywhere.
const MAX_ADDRESS: usize = 100;
/// A status with hundreds of servers is a few hundred kilobytes.
const MAX_LINE: u64 = 16 * 1024 * 1024;
/// People and scripts ask one at a time.
const MAX_CONNECTIONS: usize = 16;
/// An answer is at hand, or waits for the disk.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// A connection that asks nothing gives its place back.
const IDLE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    use crate::testing::TempDir;

    async fn shout(line: Bytes) -> Bytes {
        line.to_ascii_uppercase().into()
    }

    #[crate::rt::test]
    async fn question_is_answered_on_a_private_socket() {
        let dir = TempDir::new();
        let path = dir.path().join("long".repeat(40)).join("test.sock");
        assert_eq!(request(&path, b"x").await.expect_err("nobody").kind(), io::ErrorKind::NotFound);
        let server = Server::bind(&path).expect("binds");
        assert_eq!(std::fs::metadata(&path).expect("exists").permissions().mode() & 0o777, 0o600);
        let task = rt::spawn(async move { server.serve(shout).await });
        for _ in 0..2 {
            assert_eq!(request(&path, br#"{"a":1}"#).await.expect("an answer"), r#"{"A":1}"#);
        }
        task.abort();
        let _ = task.await;
        assert!(!path.exists());
    }

    #[crate::rt::test]
    async fn stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = TempDir::new();
        let path = dir.path().join("test.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("leaves its file behind"));
        assert!(path.exists());
        let _server = Server::bind(&path).expect("replaces it");
        assert_eq!(Server::bind(&path).expect_err("in use").kind(), io::ErrorKind::AddrInUse);
    }

    #[crate::rt::test]
    async fn socket_that_took_the_path_over_is_left_alone() {
        let dir = TempDir::new();
        let path = dir.path().join("test.sock");
        let old = Server::bind(&path).expect("binds");
        assert!(old.place().is_held());
        std::fs::remove_file(&path).expect("removes");
        let new = Server::bind(&path).expect("binds");
        assert!(!old.place().is_held());
        drop(old);
        assert!(path.exists() && new.place().is_held());
    }

    #[crate::rt::test]
    async fn half_a_question_gets_no_answer() {
        let dir = TempDir::new();
        let path = dir.path().join("test.sock");
        let server = Server::bind(&path).expect("binds");
        rt::spawn(async move { server.serve(shout).await });
        let asked = rt::spawn_blocking(move || {
            let mut stream = std::os::unix::net::UnixStream::connect(&path)?;
            stream.write_all(b"half")?;
            stream.shutdown(std::net::Shutdown::Write)?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).map(|_| answer)
        });
        assert_eq!(asked.await.expect("asks").expect("is heard"), b"");
    }
}

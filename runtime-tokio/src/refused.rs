//! Heads that the HTTP library refuses by itself, before any handler hears of them. Its answers are empty, and it closes
//! over what the client still sends, which takes them back; so they are held back here, and words are sent instead.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use tunnel_core::limits::{MAX_FIELDS, MAX_HEAD};

use crate::places::last_words;
use crate::rt::HyperIo;
use crate::stream::Stream;

/// A connection as the library has it.
#[derive(Debug)]
pub(crate) struct Spoken {
    io: HyperIo<Stream>,
    refusal: Option<Refusal>,
}

/// Which of the library's refusals it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Unreadable,
    LineTooLong,
    TooLarge,
}

impl Spoken {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { io: HyperIo::new(stream), refusal: None }
    }

    pub(crate) fn into_inner(self) -> Stream {
        self.io.into_inner()
    }

    /// Says that a head which began did not end in time.
    pub(crate) async fn too_slow(self) {
        let words = "the request's head did not come in time (limits.headerTimeout)\n";
        last_words(self.into_inner(), "408 Request Timeout", words).await;
    }

    /// Says what the library refused, if it did, once it is done with the connection.
    pub(crate) async fn conclude(self) {
        if let Some(refusal) = self.refusal {
            last_words(self.into_inner(), refusal.status(), &refusal.words()).await;
        }
    }
}

impl Refusal {
    const ALL: [Self; 3] = [Self::Unreadable, Self::LineTooLong, Self::TooLarge];

    /// The refusal that these bytes are. No answer of a handler has such a status and nothing else: it has words.
    fn of(said: &[u8]) -> Option<Self> {
        // Nearly all that is said is something else, and may be large: it is not looked at closer.
        if said.len() > MAX_REFUSAL || !said.starts_with(b"HTTP/1.1 4") {
            return None;
        }
        let text = str::from_utf8(said).ok()?;
        let (status, fields) = text.strip_suffix("\r\n\r\n")?.strip_prefix("HTTP/1.1 ")?.split_once("\r\n")?;
        let is_empty = |field: &str| {
            let (name, _) = field.split_once(':').unwrap_or_default();
            field == "content-length: 0" || ["connection", "date"].contains(&name)
        };
        fields.split("\r\n").all(is_empty).then_some(())?;
        Self::ALL.into_iter().find(|refusal| refusal.status() == status)
    }

    fn status(self) -> &'static str {
        match self {
            Self::Unreadable => "400 Bad Request",
            Self::LineTooLong => "414 URI Too Long",
            Self::TooLarge => "431 Request Header Fields Too Large",
        }
    }

    fn words(self) -> String {
        let size = MAX_HEAD / 1024;
        match self {
            Self::Unreadable => "the request's head cannot be read as HTTP/1.1\n".into(),
            Self::LineTooLong => format!("the request line is too long: a whole head may have {size} KiB\n"),
            Self::TooLarge => {
                format!("the request's head is too large: it may have {size} KiB and {MAX_FIELDS} fields\n")
            }
        }
    }
}

impl Read for Spoken {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, into)
    }
}

impl Write for Spoken {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.refusal = this.refusal.or_else(|| Refusal::of(bytes));
        if this.refusal.is_some() {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut this.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A refusal is one piece, behind nothing else.
        if let [only] = pieces {
            return self.poll_write(cx, only);
        }
        let io = Pin::new(&mut self.get_mut().io);
        match joined(pieces, &mut [0; SMALL_WRITE]) {
            Some(whole) => io.poll_write(cx, whole),
            None => io.poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refusal.is_some() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

/// All `pieces` in `room`; `None`: they do not fit.
fn joined<'a>(pieces: &[IoSlice<'_>], room: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut length = 0;
    for piece in pieces {
        room.get_mut(length..)?.get_mut(..piece.len())?.copy_from_slice(piece);
        length += piece.len();
    }
    room.get(..length)
}

/// A refusal is a status and a few fields.
const MAX_REFUSAL: usize = 512;
/// Most answers, head and body: for one piece the system takes a quarter of a microsecond less than for two.
const SMALL_WRITE: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_joined_where_they_fit() {
        let pieces = [IoSlice::new(b"head"), IoSlice::new(b""), IoSlice::new(b"body")];
        assert_eq!(joined(&pieces, &mut [0; 9]), Some(&b"headbody"[..]));
        assert_eq!(joined(&pieces, &mut [0; 8]), Some(&b"headbody"[..]));
        assert_eq!(joined(&pieces, &mut [0; 7]), None);
        assert_eq!(joined(&[], &mut []), Some(&b""[..]));
    }

    #[test]
    fn only_an_empty_refusal_is_one() {
        for refusal in Refusal::ALL {
            let status = refusal.status();
            let said = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\ndate: today\r\n\r\n");
            assert_eq!(Refusal::of(said.as_bytes()), Some(refusal));
        }
        for said in [
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 4\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\nwords",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\n\r\n",
            "\r\n\r\n",
            "",
        ] {
            assert_eq!(Refusal::of(said.as_bytes()), None, "{said:?}");
        }
    }
}

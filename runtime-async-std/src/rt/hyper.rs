//! What hyper wants of a runtime: bytes. The counterpart of what hyper-util has for tokio.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::io::{AsyncRead, AsyncWrite};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};

/// A byte stream with the traits of hyper, or one of hyper's with everybody's.
#[derive(Debug)]
pub struct HyperIo<T>(T);

impl<T> HyperIo<T> {
    /// Of a stream.
    pub fn new(stream: T) -> Self {
        Self(stream)
    }

    /// The stream.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T: AsyncRead + Unpin> Read for HyperIo<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        // Its own buffer is not initialized, so that safe code reads by way of this one. One read at a time: a socket tells
        // of a reset once, which must not be lost behind what was read before it.
        let mut buffer = [0; READ];
        let room = into.remaining().min(READ);
        let piece = buffer.get_mut(..room).unwrap_or_default();
        let read = ready!(Pin::new(&mut self.0).poll_read(cx, piece))?;
        into.put_slice(piece.get(..read).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> Write for HyperIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

impl<T: Read + Unpin> AsyncRead for HyperIo<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(into);
        ready!(Pin::new(&mut self.0).poll_read(cx, buffer.unfilled()))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl<T: Write + Unpin> AsyncWrite for HyperIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, pieces)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// What is read at once.
const READ: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::io::{AsyncReadExt as _, Cursor};

    #[crate::rt::test]
    async fn bytes_are_the_same_both_ways_however_many() {
        let sent: Vec<u8> = (0..5 * READ + 7).map(|at| at.to_le_bytes()[0]).collect();
        let mut back = HyperIo::new(HyperIo::new(Cursor::new(sent.clone())));
        let mut came = vec![0; 2 * READ + 1];
        back.read_exact(&mut came).await.expect("reads");
        back.read_to_end(&mut came).await.expect("reads");
        assert!(came == sent);
    }

    /// Gives as much as there is room for once, tells of a reset once, then of its end, as a socket does.
    struct Reset(u8);

    impl AsyncRead for Reset {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
            self.0 += 1;
            Poll::Ready(match self.0 {
                1 => Ok(into.len()),
                2 => Err(io::ErrorKind::ConnectionReset.into()),
                _ => Ok(0),
            })
        }
    }

    #[crate::rt::test]
    async fn reset_after_a_full_read_is_not_lost() {
        let mut back = HyperIo::new(HyperIo::new(Reset(0)));
        let error = back.read_to_end(&mut Vec::with_capacity(4 * READ)).await.expect_err("it was cut");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

//! Reading ahead where there is much to read.
//!
//! The WebSocket library reads into a buffer that it keeps for as long as the connection lives. Thousands of tunnels that
//! wait must cost little, so that buffer is small; and a large answer must not be read in a thousand pieces.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::io::{AsyncRead, AsyncWrite};

/// A stream whose reads bring more than they are asked for, once they were filled to the brim. It holds no memory while
/// there is nothing to read.
#[derive(Debug)]
pub struct Ahead<S> {
    stream: S,
    /// What was read and not asked for yet is from `taken` to `end`.
    read: Vec<u8>,
    taken: usize,
    end: usize,
    /// How much is read at once: as much as is asked for, if that is no less.
    size: usize,
}

impl<S> Ahead<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, read: Vec::new(), taken: 0, end: 0, size: 0 }
    }

    /// Gives out what was read before.
    fn take(&mut self, into: &mut [u8]) -> usize {
        let waiting = &self.read[self.taken..self.end];
        let count = waiting.len().min(into.len());
        into[..count].copy_from_slice(&waiting[..count]);
        self.taken += count;
        count
    }

    /// How much is read the next time, after so much was: a peer that said much has more to say.
    fn next_size(&self, count: usize) -> usize {
        match count {
            _ if count == self.size => MOST,
            _ if count > LEAST / 8 => LEAST,
            _ => 0,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.taken < this.end {
            return Poll::Ready(Ok(this.take(into)));
        }
        if this.size <= into.len() {
            this.read = Vec::new();
            let count = ready!(Pin::new(&mut this.stream).poll_read(cx, into))?;
            this.size = if count == into.len() { LEAST } else { 0 };
            return Poll::Ready(Ok(count));
        }
        if this.read.len() != this.size {
            this.read = vec![0; this.size];
        }
        let read = Pin::new(&mut this.stream).poll_read(cx, &mut this.read);
        let Poll::Ready(Ok(count @ 1..)) = read else {
            (this.read, this.size) = (Vec::new(), LEAST);
            return read;
        };
        this.size = this.next_size(count);
        (this.taken, this.end) = (0, count);
        Poll::Ready(Ok(this.take(into)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ahead<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, pieces)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(cx)
    }
}

/// What is read at once to begin with: the frames of a few small calls.
const LEAST: usize = 4 * 1024;
/// The same at most: a few frames of a large answer.
const MOST: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::io::AsyncReadExt;

    /// Gives at most so many bytes a read, then has none for a moment, then ends.
    struct Pieces {
        bytes: Vec<u8>,
        most: usize,
        reads: usize,
        pauses: usize,
    }

    impl AsyncRead for Pieces {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
            self.reads += 1;
            if self.bytes.is_empty() && self.pauses > 0 {
                self.pauses -= 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let count = self.bytes.len().min(self.most).min(into.len());
            into[..count].copy_from_slice(&self.bytes[..count]);
            self.bytes.drain(..count);
            Poll::Ready(Ok(count))
        }
    }

    async fn read(length: usize, most: usize, room: usize) -> Ahead<Pieces> {
        let bytes: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
        let mut ahead = Ahead::new(Pieces { bytes: bytes.clone(), most, reads: 0, pauses: 1 });
        let (mut all, mut piece) = (Vec::new(), vec![0; room]);
        loop {
            match ahead.read(&mut piece).await.expect("reads") {
                0 => break,
                count => all.extend_from_slice(&piece[..count]),
            }
        }
        assert!(all == bytes, "{length} bytes, at most {most} a read");
        ahead
    }

    #[crate::rt::test]
    async fn what_is_read_is_what_was_sent_however_it_comes() {
        for length in [0, 1, 1_023, 1_024, 1_025, 300_000] {
            for most in [1, 1_000, 1_024, 1_025, 70_000, 1_000_000] {
                let ahead = read(length, most, 1_024).await;
                assert_eq!(ahead.read.capacity(), 0, "nothing is held while there is nothing to read");
            }
        }
    }

    #[crate::rt::test]
    async fn much_is_read_in_few_reads_and_little_without_a_buffer() {
        let much = read(1 << 20, 1 << 20, 1_024).await.stream.reads;
        assert!(much < 25, "{much} reads of a megabyte");
        let batches = read(200_000, 2_000, 512).await.stream.reads;
        assert!(batches < 106, "{batches} reads of a hundred batches");
        assert!(read(1 << 20, 1 << 20, 1 << 17).await.stream.reads < 12, "a larger buffer is read into directly");
    }
}

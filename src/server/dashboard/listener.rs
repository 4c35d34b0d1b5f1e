//! A listener with so many connections and no more. They end when the other side stops reading, when nothing is sent to it
//! for long, or when it asks at great length: a browser that is gone or hangs, and one that never ends its question, keep
//! nothing here.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// How long a write may wait for the other side.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection may stand open while nothing is written to it. Streams have a heartbeat, and answers take less.
const SILENCE: Duration = Duration::from_secs(90);
/// Most bytes of a question, with its headers and its token.
const QUESTION: usize = 64 << 10;
/// Connections at the same time; others wait to be let in. Their questions have to fit into the operator's memory.
const CONNECTIONS: usize = 500;

/// A TCP listener that gives [`Watched`] connections.
pub struct Patient {
    inner: TcpListener,
    places: Arc<Semaphore>,
}

impl Patient {
    /// Of an open listener.
    pub fn new(listener: TcpListener) -> Self {
        Self { inner: listener, places: Arc::new(Semaphore::new(CONNECTIONS)) }
    }
}

impl Listener for Patient {
    type Io = Watched<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let place = self.places.clone().acquire_owned().await.ok();
        let (stream, peer) = Listener::accept(&mut self.inner).await;
        // Changes are small and should be seen at once.
        let _ = stream.set_nodelay(true);
        (Watched::new(stream, place), peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A connection that fails when a write waits for too long, and when too long or too much is read after one.
pub struct Watched<T> {
    inner: T,
    /// Set while a write waits.
    until: Option<Pin<Box<Sleep>>>,
    /// Begins anew with each write.
    silence: Pin<Box<Sleep>>,
    /// Bytes read since the last write.
    asked: usize,
    _place: Option<OwnedSemaphorePermit>,
}

impl<T> Watched<T> {
    /// Watches `inner`, which keeps `place` as long as it lives.
    fn new(inner: T, place: Option<OwnedSemaphorePermit>) -> Self {
        Self { inner, until: None, silence: Box::pin(tokio::time::sleep(SILENCE)), asked: 0, _place: place }
    }

    fn judge<R>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if result.is_ready() {
            self.until = None;
            self.silence.as_mut().reset(Instant::now() + SILENCE);
            self.asked = 0;
            return result;
        }
        let until = self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + PATIENCE)));
        ready!(until.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other side does not read")))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Looked at first: bytes that trickle in do not buy time.
        if self.silence.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was asked and answered for too long")));
        }
        if self.asked > QUESTION {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the question is too long")));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.asked += buf.filled().len() - before;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.judge(cx, result)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.judge(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.judge(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.judge(cx, result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn a_write_that_waits_for_too_long_fails_and_one_that_goes_on_does_not() {
        let (here, mut there) = tokio::io::duplex(4);
        let mut here = Watched::new(here, None);
        here.write_all(b"four").await.unwrap();
        // It waits almost to the end, and then goes on.
        let (written, ()) = tokio::join!(here.write_all(b"more"), async {
            tokio::time::sleep(PATIENCE - Duration::from_secs(1)).await;
            there.read_exact(&mut [0; 4]).await.unwrap();
        });
        written.unwrap();
        let begun = Instant::now();
        let error = here.write_all(b"stuck").await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, PATIENCE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_never_ends_is_ended_and_an_answer_buys_time() {
        let (here, mut there) = tokio::io::duplex(64);
        let mut here = Watched::new(here, None);
        let begun = Instant::now();
        let second = Duration::from_secs(1);
        let mut byte = [0];
        let error = loop {
            // A byte a second.
            there.write_all(b"x").await.unwrap();
            match here.read_exact(&mut byte).await {
                Ok(_) if begun.elapsed() == Duration::from_secs(60) => here.write_all(b"answer").await.unwrap(),
                Ok(_) => {}
                Err(error) => break error,
            }
            assert!(begun.elapsed() < 3 * SILENCE, "it goes on for ever");
            tokio::time::sleep(second).await;
        };
        assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, Duration::from_secs(60) + SILENCE));
        let (here, _there) = tokio::io::duplex(64);
        let begun = Instant::now();
        let error = Watched::new(here, None).read_exact(&mut byte).await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, SILENCE), "nor does saying nothing");
    }

    #[tokio::test]
    async fn a_question_has_a_longest_length_and_many_short_ones_have_none() {
        let (here, mut there) = tokio::io::duplex(1024);
        let mut here = Watched::new(here, None);
        let mut part = [0; 1024];
        for _ in 0..3 * QUESTION / part.len() {
            there.write_all(&part).await.unwrap();
            here.read_exact(&mut part).await.unwrap();
            here.write_all(b"answer").await.unwrap();
            there.read_exact(&mut [0; 6]).await.unwrap();
        }
        let mut read = 0;
        let error = loop {
            there.write_all(&part).await.unwrap();
            match here.read(&mut part).await {
                Ok(more) => read += more,
                Err(error) => break error,
            }
            assert!(read <= 2 * QUESTION, "it goes on for ever");
        };
        assert!(error.kind() == io::ErrorKind::InvalidData && read > QUESTION, "{error}: {read}");
    }

    #[tokio::test]
    async fn there_is_an_end_to_connections_and_one_that_goes_makes_room() {
        let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = inner.local_addr().unwrap();
        let mut patient = Patient { inner, places: Arc::new(Semaphore::new(1)) };
        let _clients = (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        let (first, _) = patient.accept().await;
        assert!(patient.accept().now_or_never().is_none());
        drop(first);
        patient.accept().await;
    }
}

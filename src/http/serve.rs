//! The accept loop. Not `axum::serve`: that waits for ever for a client that never finishes its header.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Sleep;
use tower::ServiceExt as _;

use crate::http::Sides;
use crate::http::extract::TcpPeer;
use crate::http::places::Place;
use crate::tls::server::{Channel, PeerTls, TlsDoor};

/// Connections at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 10_000;
/// A request's header must have arrived after this long; so an idle connection ends, too.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Whoever takes nothing of what we have for him for this long is gone. Without this, clients that ask and never read would keep their places for ever.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections that are still busy this long after the stop are cut.
const GRACE: Duration = Duration::from_secs(10);

/// What stands between TCP and HTTP.
#[derive(Clone)]
pub enum Door {
    /// Nothing: loopback, or a proxy with TLS in front.
    Plain,
    /// TLS.
    Tls(Arc<TlsDoor>),
}

/// Serves until `stopping` turns true; then ends held answers, waits for the rest, and returns.
pub async fn serve(listener: TcpListener, door: Door, sides: Sides, mut stopping: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(64 * 1024);
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|is_stopping| *is_stopping) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, usually: a moment later some are free again.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(place) = sides.places.take(peer.ip()) else {
            tracing::debug!(%peer, "too many connections of one address");
            continue;
        };
        // Small answers at once: without it a poll on loopback takes 40 ms.
        let _ = stream.set_nodelay(true);
        let connection =
            Connection { peer, place, sides: sides.clone(), builder: builder.clone(), watcher: graceful.watcher() };
        match &door {
            Door::Plain => drop(tokio::spawn(connection.serve(stream, PeerTls::default(), permit))),
            Door::Tls(door) => {
                let door = Arc::clone(door);
                tokio::spawn(async move {
                    match door.accept(stream).await {
                        Ok((stream, tls)) => connection.serve(stream, tls, permit).await,
                        Err(error) => tracing::debug!(%error, %peer, "a handshake failed"),
                    }
                });
            }
        }
    }
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were still busy and have been cut");
    }
}

/// One connection, from the handshake to its end.
struct Connection {
    peer: SocketAddr,
    place: Place,
    sides: Sides,
    builder: auto::Builder<TokioExecutor>,
    watcher: Watcher,
}

impl Connection {
    async fn serve<S>(self, stream: S, tls: PeerTls, permit: OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { peer, place, sides, builder, watcher } = self;
        let router = match tls.channel {
            Channel::Main => sides.main,
            Channel::Mtls => sides.mtls,
        };
        let service = router.map_request(move |mut request: axum::http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(TcpPeer(peer));
            request.extensions_mut().insert(tls.clone());
            request.map(axum::body::Body::new)
        });
        let stream = TokioIo::new(Impatient::new(stream, WRITE_TIMEOUT));
        let connection = builder.serve_connection(stream, TowerToHyperService::new(service)).into_owned();
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, "a connection ended early");
        }
        drop((place, permit));
    }
}

/// A stream that fails if nothing can be written to it for too long.
struct Impatient<S> {
    stream: S,
    patience: Duration,
    /// Since when nothing goes.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    const fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, stuck: None }
    }

    fn in_time<T>(&mut self, outcome: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stuck = None;
            return outcome;
        }
        let patience = self.patience;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        stuck.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.in_time(outcome, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.in_time(outcome, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.in_time(outcome, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.in_time(outcome, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn whoever_never_reads_loses_his_place_a_091() {
        let (server, mut client) = tokio::io::duplex(64);
        let mut server = Impatient::new(server, Duration::from_millis(20));
        server.write_all(&[1; 64]).await.unwrap();
        let error = server.write_all(&[2; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // Whoever reads in time stays.
        let mut read = [0; 64];
        client.read_exact(&mut read).await.unwrap();
        server.write_all(&[3; 64]).await.unwrap();
    }

    /// A whole connection: asks again and again, and reads nothing.
    #[tokio::test]
    async fn a_connection_that_only_asks_ends_by_itself_a_091() {
        let (server, mut client) = tokio::io::duplex(1024);
        let service = hyper::service::service_fn(async |_| {
            Ok::<_, std::convert::Infallible>(axum::http::Response::new(axum::body::Body::from(vec![0; 100_000])))
        });
        let stream = TokioIo::new(Impatient::new(server, Duration::from_millis(20)));
        let serving =
            tokio::spawn(
                async move { hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await },
            );
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert!(serving.await.unwrap().is_err());
    }
}

//! The accept loop. Not `axum::serve`: that waits for ever for a client that never finishes its header.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::ServiceExt as _;

use crate::http::Sides;
use crate::http::extract::TcpPeer;
use crate::tls::server::{Channel, PeerTls, TlsDoor};

/// Connections at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 10_000;
/// A request's header must have arrived after this long; so an idle connection ends, too.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
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
        // Small answers at once: without it a poll on loopback takes 40 ms.
        let _ = stream.set_nodelay(true);
        let connection =
            Connection { peer, sides: sides.clone(), builder: builder.clone(), watcher: graceful.watcher() };
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
    sides: Sides,
    builder: auto::Builder<TokioExecutor>,
    watcher: Watcher,
}

impl Connection {
    async fn serve<S>(self, stream: S, tls: PeerTls, permit: OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { peer, sides, builder, watcher } = self;
        let router = match tls.channel {
            Channel::Main => sides.main,
            Channel::Mtls => sides.mtls,
        };
        let service = router.map_request(move |mut request: axum::http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(TcpPeer(peer));
            request.extensions_mut().insert(tls.clone());
            request.map(axum::body::Body::new)
        });
        let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).into_owned();
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, "a connection ended early");
        }
        drop(permit);
    }
}

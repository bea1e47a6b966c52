//! One connection to the API: HTTP/1.1 over a stream, with limits on how long a client may keep it without using it.

use crate::connection_slots::Slot;
use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_io_timeout::TimeoutWriter;

/// How long a client may take to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may wait for a client that does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// The size of a connection's read buffer, which limits the head of a request, in bytes.
const MAX_HEADER_BYTES: usize = 64 << 10;

/// Adds the slot of a connection to each of its requests, so that a valid token can raise its standing.
struct WithSlot {
    router: TowerToHyperService<Router>,
    slot: Arc<Slot>,
}

impl Service<Request<Incoming>> for WithSlot {
    type Response = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(Arc::clone(&self.slot));
        self.router.call(request)
    }
}

/// Serves one connection until the client closes it, its slot is needed for another one, or `ending` completes.
pub async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    slot: Arc<Slot>,
    ending: impl Future<Output = ()>,
) {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES);
    let stream = TokioIo::new(with_write_timeout(stream, WRITE_TIMEOUT));
    let service = WithSlot {
        router: TowerToHyperService::new(router),
        slot: Arc::clone(&slot),
    };
    let connection = builder.serve_connection(stream, service);
    tokio::pin!(connection);
    tokio::select! {
        served = connection.as_mut() => if let Err(error) = served {
            tracing::debug!(%error, "a connection ended");
        },
        () = slot.evicted() => {
            tracing::debug!("closed a connection to make room for another");
        }
        () = ending => {
            connection.as_mut().graceful_shutdown();
            connection.await.ok();
        }
    }
}

/// A stream whose writes fail once the other side has read nothing for this long.
fn with_write_timeout<S: AsyncRead + AsyncWrite>(
    stream: S,
    timeout: Duration,
) -> Pin<Box<TimeoutWriter<S>>> {
    let mut writer = TimeoutWriter::new(stream);
    writer.set_timeout(Some(timeout));
    Box::pin(writer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn write_timeout_slow_reader_is_served_and_stalled_reader_is_not() {
        let (server, mut client) = tokio::io::duplex(16);
        let mut server = with_write_timeout(server, Duration::from_millis(500));
        let reading = tokio::spawn(async move {
            let mut piece = [0; 16];
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                client.read_exact(&mut piece).await.unwrap();
            }
            client
        });
        server.write_all(&[1; 128]).await.unwrap();
        let _client = reading.await.unwrap();
        let stalled = server.write_all(&[1; 128]).await.unwrap_err();
        assert_eq!(stalled.kind(), io::ErrorKind::TimedOut);
    }
}

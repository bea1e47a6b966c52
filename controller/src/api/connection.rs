//! One connection to the API: HTTP/1.1 over a stream, with limits on how long a client may keep it without using it.

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_io_timeout::TimeoutWriter;

/// How long a client may take to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to send the head of a request while few connections are left for others.
const CROWDED_HEADER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an answer may wait for a client that does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// The size of a connection's read buffer, which limits the head of a request, in bytes.
const MAX_HEADER_BYTES: usize = 64 << 10;

/// Serves one connection until the client closes it or `ending` completes. `is_crowded` says that few connections are left, so that
/// an idle client is disconnected soon.
pub async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    is_crowded: bool,
    ending: impl Future<Output = ()>,
) {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(match is_crowded {
            true => CROWDED_HEADER_TIMEOUT,
            false => HEADER_TIMEOUT,
        })
        .max_buf_size(MAX_HEADER_BYTES);
    let stream = TokioIo::new(with_write_timeout(stream, WRITE_TIMEOUT));
    let connection = builder.serve_connection(stream, TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        served = connection.as_mut() => if let Err(error) = served {
            tracing::debug!(%error, "a connection ended");
        },
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

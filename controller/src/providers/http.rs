//! The transport of HTTP: HTTP/1.1, over a new connection each time, since a probe that kept one would not notice that no new one can be
//! made. What is sent and what an answer is worth stands in `backburn_experiments::probes`, since agents measure the same.

use super::{MAX_OUTPUT_BYTES, ProbeError, ProbeResult, tcp, tls, within};
use backburn_experiments::HumanDuration;
use backburn_experiments::destination::DestinationRules;
use backburn_experiments::probes::tls::connection_error;
use backburn_experiments::probes::{HttpError, HttpExchange, HttpProvider, HttpRequest, NextStep};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

/// Measures the provider. The caller bounds how long all of it may take.
pub(super) async fn measure(
    provider: &HttpProvider,
    timeout: Option<HumanDuration>,
    destinations: &DestinationRules,
) -> ProbeResult {
    let mut exchange = HttpExchange::new(provider)?;
    let connect = provider.connect_limit(timeout);
    let verify = provider.verify_tls.unwrap_or(true);
    loop {
        let response = match send(exchange.request(), verify, connect, destinations).await {
            Ok(response) => response,
            Err(error) => {
                exchange.next(Err(error))?;
                continue;
            }
        };
        let answer = Ok((response.status(), response.headers()));
        if exchange.next(answer)? == NextStep::ReadBody {
            return read(response).await;
        }
    }
}

async fn send(
    request: &HttpRequest,
    verify: bool,
    connect: HumanDuration,
    destinations: &DestinationRules,
) -> Result<Response<Incoming>, HttpError> {
    let host = request.uri.host().unwrap_or_default();
    let secure = request.uri.scheme_str() == Some("https");
    let port = request
        .uri
        .port_u16()
        .unwrap_or(if secure { 443 } else { 80 });
    let stream = within(Some(connect), tcp::connect(host, port, destinations))
        .await
        .and_then(|connected| connected)
        .map_err(HttpError::Connect)?;
    if secure {
        let stream = within(Some(connect), tls::connect(stream, host, verify))
            .await
            .and_then(|wrapped| wrapped)
            .map_err(HttpError::Connect)?;
        exchange(request, TokioIo::new(stream)).await
    } else {
        exchange(request, TokioIo::new(stream)).await
    }
}

async fn exchange<S>(
    request: &HttpRequest,
    stream: TokioIo<S>,
) -> Result<Response<Incoming>, HttpError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let late = |error: hyper::Error| HttpError::Exchange(http_error(&error));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .map_err(late)?;
    let path = request
        .uri
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let mut sent = Request::builder().method(&request.method).uri(path);
    if let (Some(headers), Some(authority)) = (sent.headers_mut(), request.uri.authority()) {
        headers.clone_from(&request.headers);
        if let (Ok(host), false) = (
            HeaderValue::from_str(authority.as_str()),
            headers.contains_key(header::HOST),
        ) {
            headers.insert(header::HOST, host);
        }
        // hyper sends no length for an empty body; `requests` does, and some servers insist on it.
        let bare = matches!(request.method, Method::GET | Method::HEAD);
        if !bare && request.body.is_empty() && !headers.contains_key(header::CONTENT_LENGTH) {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
    }
    let sent = sent
        .body(Full::new(Bytes::from(request.body.clone())))
        .map_err(|error| HttpError::Exchange(ProbeError::Broken(error.to_string())))?;
    // The set ends the connection's task when the response, or this future, is dropped.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let mut response = sender.send_request(sent).await.map_err(late)?;
    response
        .extensions_mut()
        .insert(ConnectionTask(std::sync::Arc::new(driver)));
    Ok(response)
}

/// Keeps the connection going for as long as its response is there.
#[derive(Clone)]
struct ConnectionTask(#[allow(dead_code)] std::sync::Arc<JoinSet<Result<(), hyper::Error>>>);

fn http_error(error: &hyper::Error) -> ProbeError {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return connection_error(io, "waiting for the answer");
        }
        cause = inner.source();
    }
    if error.is_user() {
        ProbeError::Broken(error.to_string())
    } else {
        ProbeError::NoAnswer(format!("no answer in HTTP: {error}"))
    }
}

async fn read(response: Response<Incoming>) -> ProbeResult {
    let (parts, body) = response.into_parts();
    let bytes = match Limited::new(body, MAX_OUTPUT_BYTES).collect().await {
        Ok(bytes) => Some(bytes.to_bytes()),
        Err(error) => match error.downcast_ref::<hyper::Error>() {
            Some(error) => return Err(http_error(error)),
            None => None,
        },
    };
    Ok(HttpExchange::value(
        parts.status,
        &parts.headers,
        bytes.as_deref(),
        MAX_OUTPUT_BYTES,
    ))
}

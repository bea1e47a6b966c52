//! An HTTP request over HTTP/1.1, a connection of its own each time: a probe that kept one would
//! not notice that nobody can make a new one. What is asked and what an answer comes to is in
//! `backburn_experiments::probes`, since agents measure the same.

use super::{MOST, NoValue, tcp, tls, within};
use backburn_experiments::HumanDuration;
use backburn_experiments::document::HttpProvider;
use backburn_experiments::probes::http::{
    Asked, MOST_REDIRECTS, limits, too_long, too_many_redirects, value,
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

/// `{status, headers, body}`; the body parsed where its type says JSON.
pub(super) async fn measure(
    provider: &HttpProvider,
    longest: Option<HumanDuration>,
) -> Result<Value, NoValue> {
    let (connect, answer) = limits(provider, longest);
    within(Some(answer), follow(provider, connect)).await?
}

async fn follow(provider: &HttpProvider, connect: HumanDuration) -> Result<Value, NoValue> {
    let mut asked = Asked::from(provider).map_err(NoValue::Broken)?;
    for _ in 0..=MOST_REDIRECTS {
        let mut tries = provider.max_retries.unwrap_or(0);
        let response = loop {
            match ask(&asked, provider.verify_tls.unwrap_or(true), connect).await {
                Err(Failed::ToConnect(_)) if tries > 0 => tries -= 1,
                Err(Failed::ToConnect(why) | Failed::Later(why)) => return Err(why),
                Ok(response) => break response,
            }
        };
        match asked.redirected(response.status(), response.headers())? {
            Some(next) => asked = next,
            None => return read(response).await,
        }
    }
    Err(too_many_redirects())
}

/// Whether it failed before anything could have been sent.
enum Failed {
    ToConnect(NoValue),
    Later(NoValue),
}

async fn ask(
    asked: &Asked,
    verify: bool,
    connect: HumanDuration,
) -> Result<Response<Incoming>, Failed> {
    let host = asked.uri.host().unwrap_or_default();
    let secure = asked.uri.scheme_str() == Some("https");
    let port = asked
        .uri
        .port_u16()
        .unwrap_or(if secure { 443 } else { 80 });
    let stream = within(Some(connect), tcp::connect(host, port))
        .await
        .and_then(|connected| connected)
        .map_err(Failed::ToConnect)?;
    if secure {
        let stream = within(Some(connect), tls::wrap(stream, host, verify))
            .await
            .and_then(|wrapped| wrapped)
            .map_err(Failed::ToConnect)?;
        exchange(asked, TokioIo::new(stream)).await
    } else {
        exchange(asked, TokioIo::new(stream)).await
    }
}

async fn exchange<S>(asked: &Asked, stream: TokioIo<S>) -> Result<Response<Incoming>, Failed>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let late = |error: hyper::Error| Failed::Later(no_answer(&error));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .map_err(late)?;
    let path = asked.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(&asked.method).uri(path);
    if let (Some(headers), Some(authority)) = (request.headers_mut(), asked.uri.authority()) {
        headers.clone_from(&asked.headers);
        if let (Ok(host), false) = (
            HeaderValue::from_str(authority.as_str()),
            headers.contains_key(header::HOST),
        ) {
            headers.insert(header::HOST, host);
        }
        // hyper says nothing of a body that is not there; `requests` does, and some servers insist on it.
        let bare = matches!(asked.method, Method::GET | Method::HEAD);
        if !bare && asked.body.is_empty() && !headers.contains_key(header::CONTENT_LENGTH) {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
    }
    let request = request
        .body(Full::new(Bytes::from(asked.body.clone())))
        .map_err(|error| Failed::Later(NoValue::Broken(error.to_string())))?;
    // The set ends the connection's task when the response, or this future, is dropped.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let mut response = sender.send_request(request).await.map_err(late)?;
    response
        .extensions_mut()
        .insert(Driver(std::sync::Arc::new(driver)));
    Ok(response)
}

/// Keeps the connection going for as long as its response is there.
#[derive(Clone)]
struct Driver(#[allow(dead_code)] std::sync::Arc<JoinSet<Result<(), hyper::Error>>>);

fn no_answer(error: &hyper::Error) -> NoValue {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return tls::no_value(io, "waiting for the answer");
        }
        cause = inner.source();
    }
    if error.is_user() {
        NoValue::Broken(error.to_string())
    } else {
        NoValue::NoAnswer(format!("no answer in HTTP: {error}"))
    }
}

async fn read(response: Response<Incoming>) -> Result<Value, NoValue> {
    let (parts, body) = response.into_parts();
    let bytes = Limited::new(body, MOST).collect().await.map_err(|error| {
        match error.downcast_ref::<hyper::Error>() {
            Some(error) => no_answer(error),
            None => too_long(MOST),
        }
    })?;
    Ok(value(parts.status, &parts.headers, &bytes.to_bytes()))
}

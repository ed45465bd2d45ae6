//! The port at which Prometheus asks: HTTP/1.1, `GET /metrics`, one request a connection.
//!
//! On loopback it is open to everybody on the machine. Beyond, the rules of the gRPC port hold: its
//! certificate and its tokens, of a role that may look.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::RefusedCall;
use crate::access::{Keys, Tls};

const PATH: &str = "/metrics";
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The most connections at a time. More are closed at once.
const MOST_CONNECTIONS: usize = 32;
/// How long a connection may take for everything: its handshake, its request and the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait before the next connection when one could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The largest request that is read, in bytes.
const MOST_REQUEST_BYTES: usize = 16 << 10;

/// Who is let in.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    /// Everybody who reaches the port.
    Open,
    /// Those who show a token that may look, if tokens are needed; encrypted if there is a certificate.
    Guarded {
        /// The certificate.
        tls: Option<Arc<Tls>>,
        /// The tokens.
        keys: Arc<Keys>,
    },
}

/// Answers with what `scrape` says, until `shutdown`.
pub(crate) async fn serve<F>(listener: TcpListener, door: Door, scrape: F, shutdown: CancellationToken)
where
    F: Fn() -> Result<String, std::fmt::Error> + Clone + Send + Sync + 'static,
{
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "a connection for metrics could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (door, scrape) = (door.clone(), scrape.clone());
        tokio::spawn(async move {
            if !matches!(tokio::time::timeout(PATIENCE, converse(stream, &door, scrape)).await, Ok(Ok(()))) {
                debug!("a connection for metrics broke off");
            }
            drop(place);
        });
    }
}

async fn converse<F>(stream: TcpStream, door: &Door, scrape: F) -> io::Result<()>
where
    F: Fn() -> Result<String, std::fmt::Error>,
{
    match door {
        Door::Guarded { tls: Some(tls), .. } => {
            let stream = TlsAcceptor::from(tls.config_for_metrics()).accept(stream).await?;
            answer(stream, door, scrape).await
        }
        Door::Guarded { tls: None, .. } | Door::Open => answer(stream, door, scrape).await,
    }
}

async fn answer<F>(stream: impl AsyncRead + AsyncWrite + Unpin, door: &Door, scrape: F) -> io::Result<()>
where
    F: Fn() -> Result<String, std::fmt::Error>,
{
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let response = respond(&request, door, &scrape).map(|text| Full::new(Bytes::from(text)));
        std::future::ready(Ok::<_, Infallible>(response))
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(MOST_REQUEST_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

fn respond<B>(
    request: &Request<B>,
    door: &Door,
    scrape: impl Fn() -> Result<String, std::fmt::Error>,
) -> Response<String> {
    let plain = |status: StatusCode, text: &str| {
        let mut response = Response::new(format!("{text}\n"));
        *response.status_mut() = status;
        response
    };
    let with = |mut response: Response<String>, name, value| {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
        response
    };
    if let Door::Guarded { keys, .. } = door
        && let Err(denial) = keys.admit_to_metrics(request.headers())
    {
        return match denial.refused() {
            RefusedCall::PermissionDenied => plain(StatusCode::FORBIDDEN, &denial.to_string()),
            RefusedCall::Unauthenticated => {
                with(plain(StatusCode::UNAUTHORIZED, &denial.to_string()), WWW_AUTHENTICATE, "Bearer")
            }
        };
    }
    if request.uri().path() != PATH {
        return plain(StatusCode::NOT_FOUND, "there is nothing but /metrics here");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return with(plain(StatusCode::METHOD_NOT_ALLOWED, "say GET /metrics"), ALLOW, "GET, HEAD");
    }
    match scrape() {
        Ok(text) => with(Response::new(text), CONTENT_TYPE, FORMAT),
        Err(error) => {
            error!(%error, "metrics cannot be written");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written")
        }
    }
}

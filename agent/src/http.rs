//! What the agent tells monitoring over HTTP: `/metrics`, `/healthz`, `/readyz`, `/status.json`.
//!
//! Invariants: archiving comes first: a port that is taken, a certificate that can't be read or a
//! password file that is wrong is logged and tried again, and never ends the agent; with TLS or
//! authentication configured nothing is served without it. Only GET and HEAD; one request for each
//! connection; connections and their time are bounded. Nothing can be changed from here.

mod auth;
mod pages;
mod tls;

use crate::explain::chain;
use auth::{AuthError, Gate};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tls::{TlsError, TlsFiles};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use pages::Pages;

/// How it is served.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The certificate with its chain, and its key; plain HTTP where absent.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Who may ask; everybody where absent.
    pub basic_auth_file: Option<PathBuf>,
}

/// Prometheus, a dashboard and a person ask one at a time.
const CONNECTIONS_MAX: usize = 32;
/// How long a client may take to send its request's headers.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// A connection with its handshake, request and answer.
const CONNECTION_WITHIN: Duration = Duration::from_secs(30);
/// How often it is tried again to listen.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);
/// Every so many failures in a row are logged.
const LOG_EVERY: u32 = 60;

/// Why nothing is served yet.
#[derive(Debug, thiserror::Error)]
enum HttpError {
    #[error(
        "can't listen on {address} ([http] listen): choose another port there, or \"none\" to do without metrics; \
         trying again"
    )]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Auth(#[from] AuthError),
}

/// Serves until `stop`, connections in `tasks`.
pub async fn serve(options: HttpOptions, pages: Pages, stop: CancellationToken, tasks: TaskTracker) {
    let mut failures: u32 = 0;
    let server = loop {
        match Server::open(&options, pages.clone()).await {
            Ok(server) => break server,
            Err(error) => {
                if failures.is_multiple_of(LOG_EVERY) {
                    tracing::error!(error = %chain(&error), "no metrics are served; archiving goes on");
                }
                failures = failures.saturating_add(1);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LISTEN_AGAIN) => {}
        }
    };
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    tracing::info!("metrics are at {scheme}://{}/metrics", options.listen);
    let (listener, door) = server;
    stop.run_until_cancelled(door.accept(&listener, &tasks, &stop)).await;
}

/// What every connection passes.
struct Server {
    tls: Option<Arc<TlsFiles>>,
    gate: Option<Gate>,
    pages: Pages,
}

impl Server {
    async fn open(options: &HttpOptions, pages: Pages) -> Result<(TcpListener, Arc<Self>), HttpError> {
        let tls = match &options.tls {
            Some((certificate, key)) => Some(Arc::new(TlsFiles::open(certificate, key)?)),
            None => None,
        };
        let gate = match &options.basic_auth_file {
            Some(file) => Some(Gate::open(file)?),
            None => None,
        };
        let address = options.listen;
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| HttpError::Listen { address, source })?;
        Ok((listener, Arc::new(Self { tls, gate, pages })))
    }

    async fn accept(self: &Arc<Self>, listener: &TcpListener, tasks: &TaskTracker, stop: &CancellationToken) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            // A permit first: who finds no room waits in the kernel's queue.
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: it passes when connections end.
                    tracing::warn!(error = %chain(&error), "can't accept a connection for metrics");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (server, stop) = (Arc::clone(self), stop.clone());
            tasks.spawn(async move {
                let _permit = permit;
                let connection = tokio::time::timeout(CONNECTION_WITHIN, server.connection(stream));
                // Nobody who looks, or says nothing, keeps the agent from stopping.
                if let Some(Err(_)) = stop.run_until_cancelled(connection).await {
                    tracing::debug!("a connection for metrics took too long");
                }
            });
        }
    }

    async fn connection(&self, stream: TcpStream) {
        // What goes wrong is the client's business: it hung up, or speaks another language.
        match &self.tls {
            None => self.exchange(stream).await,
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => self.exchange(stream).await,
                Err(error) => tracing::debug!(error = %chain(&error), "no TLS with a client of the metrics"),
            },
        }
    }

    async fn exchange(&self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let answer = service_fn(|request| async move { Ok::<_, Infallible>(self.answer(&request).await) });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_WITHIN)
            // One request each: nobody holds a place.
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), answer)
            .await;
        if let Err(error) = served {
            tracing::debug!(error = %chain(&error), "a connection for metrics broke");
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response =
                page(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET and HEAD\n".into());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let path = request.uri().path();
        // A load balancer has no password, and learns only that the process is alive.
        if path == "/healthz" {
            return page(StatusCode::OK, "text/plain", "alive\n".into());
        }
        if self.gate.as_ref().is_some_and(|gate| !gate.admits(request.headers())) {
            let mut response = page(StatusCode::UNAUTHORIZED, "text/plain", "who are you?\n".into());
            let asks = HeaderValue::from_static("Basic realm=\"wald\", charset=\"UTF-8\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, asks);
            return response;
        }
        match path {
            "/metrics" => match self.pages.metrics().await {
                Ok(text) => page(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text),
                Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("{error}\n")),
            },
            "/readyz" => match self.pages.not_ready() {
                reasons if reasons.is_empty() => page(StatusCode::OK, "text/plain", "ready\n".into()),
                reasons => page(StatusCode::SERVICE_UNAVAILABLE, "text/plain", lines(&reasons)),
            },
            "/status.json" => match self.pages.status().await {
                Ok(text) => page(StatusCode::OK, "application/json", text),
                Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("{error}\n")),
            },
            _ => page(
                StatusCode::NOT_FOUND,
                "text/plain",
                "here are /metrics, /healthz, /readyz and /status.json\n".into(),
            ),
        }
    }
}

fn lines(reasons: &[String]) -> String {
    reasons.iter().map(|reason| format!("{reason}\n")).collect()
}

fn page(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

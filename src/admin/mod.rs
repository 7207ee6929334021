//! Probes, metrics, facts and a status page, on a port and a thread of their own: a busy or stuck road does not keep them
//! from answering. Reads only; holds no post text and no secret.

pub mod observe;
pub mod reload;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus::{Registry, TextEncoder};
use serde_json::{Value, json};
use tracing::{debug, warn};

use crate::telemetry::vitals::{Reasons, Vitals};

/// How long a client may take to ask; and between two questions.
const HEADER_READ: Duration = Duration::from_secs(10);
const PAGE: &str = include_str!("page.html");
/// The page brings all it needs.
const FROM_NOWHERE: [(HeaderName, &str); 3] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-store"),
];

/// What is told of the worker beside its numbers: versions, digests, configuration.
#[derive(Clone, Default)]
pub struct Facts(Arc<RwLock<Value>>);

impl Facts {
    /// Sets one of them.
    pub fn set(&self, name: &str, value: Value) {
        let mut facts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match facts.as_object_mut() {
            Some(facts) => drop(facts.insert(name.to_owned(), value)),
            None => *facts = json!({ name: value }),
        }
    }

    /// All of them.
    pub fn all(&self) -> Value {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What is served.
#[derive(Clone)]
pub struct Admin {
    /// How the worker is.
    pub vitals: Arc<Vitals>,
    /// What it counts.
    pub registry: Registry,
    /// What it is.
    pub facts: Facts,
}

impl Admin {
    /// Listens, and serves until the process ends. The address, whose port was free if 0 was asked for.
    pub fn serve(self, at: SocketAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(at)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("admin".to_owned()).spawn(move || {
            runtime.block_on(async {
                let Err(error) = accept(listener, &self.router()).await;
                warn!(%error, "probes and metrics are no longer served");
            });
        })?;
        Ok(address)
    }

    fn router(self) -> Router {
        Router::new()
            .route("/", get(|| async { (FROM_NOWHERE, Html(PAGE)) }))
            .route("/livez", get(|State(admin): State<Admin>| async move { probe(&admin.vitals.alive()) }))
            .route("/readyz", get(|State(admin): State<Admin>| async move { probe(&admin.vitals.ready()) }))
            .route("/startupz", get(|State(admin): State<Admin>| async move { probe(&admin.vitals.started()) }))
            .route("/metrics", get(metrics))
            .route("/info", get(|State(admin): State<Admin>| async move { (FROM_NOWHERE, Json(admin.facts.all())) }))
            .route("/status.json", get(status))
            .with_state(self)
    }
}

/// Serves each connection by itself; one that is opened and says nothing is closed.
async fn accept(listener: TcpListener, router: &Router) -> io::Result<Infallible> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_READ);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let service = TowerToHyperService::new(router.clone());
                // How it ends is the client's affair.
                tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
            }
            // Out of file descriptors, for one: they come back.
            Err(error) => {
                debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn probe(outcome: &Result<(), Reasons>) -> Response {
    match outcome {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(reasons) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", reasons.join("\n"))).into_response(),
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match TextEncoder::new().encode_to_string(&admin.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// What the page shows beside `/metrics` and `/info`.
async fn status(State(admin): State<Admin>) -> impl IntoResponse {
    let Admin { vitals, .. } = &admin;
    let why = vitals.ready().err().unwrap_or_default();
    (
        FROM_NOWHERE,
        Json(json!({
            "ready": why.is_empty(),
            "not_ready_because": why,
            "uptime_seconds": vitals.uptime().as_secs(),
            "dead_letters": vitals.dead_letters(),
        })),
    )
}

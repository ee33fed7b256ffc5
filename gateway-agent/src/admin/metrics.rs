//! `/metrics`, `/healthz`, `/readyz` over TCP. Read-only, no secrets, no names of people.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

/// What the endpoint shows.
pub trait MetricsSource: Send + Sync {
    /// Prometheus text format.
    fn metrics(&self) -> String;
    /// Whether new connections are served, or why not.
    fn ready(&self) -> Result<(), String>;
}

/// Serves until dropped.
pub async fn serve_metrics(listener: TcpListener, source: Arc<dyn MetricsSource>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(source);
    axum::serve(listener, router).await
}

async fn metrics(State(source): State<Arc<dyn MetricsSource>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], source.metrics()).into_response()
}

async fn ready(State(source): State<Arc<dyn MetricsSource>>) -> Response {
    match source.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

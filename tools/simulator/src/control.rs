//! The control API: what tests and scripts do behind the clients' backs, over HTTP.

mod gates;

use std::sync::Arc;

use axum::extract::State as Extract;
use axum::routing::{get, post};
use axum::{Json, Router};

use crate::counters::Counts;
use crate::server::State;

/// Returns the routes under `/control`.
pub fn router() -> Router<Arc<State>> {
    gates::router()
        .route("/counters", get(counters))
        .route("/expire-tokens", post(expire_tokens))
        .route("/expire-deltas", post(expire_deltas))
}

async fn counters(Extract(state): Extract<Arc<State>>) -> Json<Counts> {
    Json(state.counts())
}

async fn expire_tokens(Extract(state): Extract<Arc<State>>) {
    state.authority.expire_tokens();
}

async fn expire_deltas(Extract(state): Extract<Arc<State>>) {
    state.tenant.expire_deltas();
}

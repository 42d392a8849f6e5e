//! Controls the gates: the administrator's decisions, the throttling limits, and the faults.
//!
//! Each is a JSON document that is read and replaced as a whole. Missing fields get their defaults.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};

use crate::auth::Rules;
use crate::faults::{Fault, Faults};
use crate::server::State;
use crate::throttle::Limits;

/// Returns the routes.
pub fn router() -> Router<Arc<State>> {
    Router::new()
        .route("/rules", get(rules).put(set_rules))
        .route("/limits", get(limits).put(set_limits))
        .route("/faults", get(faults).put(set_faults))
        .route("/faults/injected", get(injected))
        .route("/revoke-sessions", post(revoke_sessions))
        .route("/expire-import-sessions", post(expire_import_sessions))
        .route("/devices/{user_code}/approve", post(approve_device))
}

async fn rules(Extract(state): Extract<Arc<State>>) -> Json<Rules> {
    Json(state.authority.rules())
}

async fn set_rules(Extract(state): Extract<Arc<State>>, Json(rules): Json<Rules>) {
    state.authority.change_rules(|old| *old = rules);
}

async fn limits(Extract(state): Extract<Arc<State>>) -> Json<Limits> {
    Json(state.throttle.limits())
}

async fn set_limits(Extract(state): Extract<Arc<State>>, Json(limits): Json<Limits>) {
    state.throttle.set_limits(limits);
}

async fn faults(Extract(state): Extract<Arc<State>>) -> Json<Faults> {
    Json((*state.faults.faults()).clone())
}

async fn set_faults(Extract(state): Extract<Arc<State>>, Json(faults): Json<Faults>) {
    state.faults.set(faults);
}

async fn injected(Extract(state): Extract<Arc<State>>) -> Json<BTreeMap<Fault, u64>> {
    Json(state.faults.injected())
}

async fn revoke_sessions(Extract(state): Extract<Arc<State>>) {
    state.authority.revoke_sessions();
}

async fn expire_import_sessions(Extract(state): Extract<Arc<State>>) {
    state.transfers.expire_sessions();
}

async fn approve_device(Extract(state): Extract<Arc<State>>, Path(user_code): Path<String>) -> StatusCode {
    if state.authority.approve_device(&user_code) { StatusCode::OK } else { StatusCode::NOT_FOUND }
}

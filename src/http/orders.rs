//! What people ask of instances: `POST /api/v1/sagas/{id}/orders`.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::api::{self, ApiState};
use super::error::ApiError;
use super::view::Summary;
use crate::engine::Ordered;
use crate::runtime::Asked;
use crate::saga::order::Order;

/// Bytes of an order at most, and of every other body.
pub(super) const MAX_ORDER: usize = 64 * 1024;
/// How long an order may wait until the orchestrator takes it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Characters in a reason at most.
const MAX_REASON: usize = 1000;
/// Characters in the name of who asks at most.
const MAX_ACTOR: usize = 200;

/// Has an order carried out, and answers how the instance stands once that is durable.
pub(super) async fn order(
    State(state): State<ApiState>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    order: Result<Json<Order>, JsonRejection>,
) -> Result<Json<Summary>, ApiError> {
    api::not_from_a_page(&headers)?;
    let id = api::instance_id(id)?;
    let Json(order) = order.map_err(|error| ApiError::bad_order(error.body_text()))?;
    check("reason", &order.reason, MAX_REASON)?;
    check("actor", &order.actor, MAX_ACTOR)?;
    let orders = state.store.orders()?;
    let (done, told) = oneshot::channel();
    let ordered = timeout(PATIENCE, async {
        orders.send(Asked { id, order, done }).await.ok()?;
        told.await.ok()
    });
    // What has not been taken when nobody waits for it any more is not carried out.
    match ordered.await {
        Ok(Some(Ordered::Done)) => {}
        Ok(Some(Ordered::Refused(reason))) => return Err(ApiError::refused(reason)),
        Ok(Some(Ordered::Unknown)) => return Err(ApiError::no_instance(id)),
        Ok(None) => {
            let message =
                "the orchestrator stopped before it could say what came of the order: look at the instance";
            return Err(ApiError::unavailable(message));
        }
        Err(_) => {
            let message = "no answer came in time: /readyz tells what is awaited, and the instance whether the order was taken";
            return Err(ApiError::unavailable(message));
        }
    }
    let instance = state.store.read(move |reader| reader.instance(id)).await?;
    instance.map(|instance| Json(Summary::new(&instance))).ok_or_else(|| ApiError::no_instance(id))
}

fn check(field: &str, text: &str, longest: usize) -> Result<(), ApiError> {
    let length = text.chars().count();
    if text.trim().is_empty() {
        Err(ApiError::bad_order(format!("{field:?} must not be empty: it is kept in the history")))
    } else if length > longest {
        Err(ApiError::bad_order(format!("{field:?} has {length} characters, {longest} are allowed")))
    } else {
        Ok(())
    }
}

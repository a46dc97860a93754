//! Answers that are errors: `{"error": {"code", "message"}}` and a status.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::view::{ErrorBody, ErrorDetail};
use crate::saga::id::InstanceId;
use crate::store::StoreError;

/// An answer that is an error.
#[derive(Debug, PartialEq)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl ApiError {
    /// A parameter that cannot be used; the message names it.
    pub(super) fn bad_parameter(name: &str, problem: impl AsRef<str>) -> Self {
        let message = format!("parameter {name:?} {}", problem.as_ref());
        Self { status: StatusCode::BAD_REQUEST, code: "bad_parameter", message }
    }

    /// What was asked for is not there.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, code: "not_found", message: message.into() }
    }

    /// There is no such instance.
    pub(super) fn no_instance(id: InstanceId) -> Self {
        Self::not_found(format!("there is no instance {id}"))
    }

    /// An order that cannot be read.
    pub(super) fn bad_order(problem: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "bad_order", message: problem.into() }
    }

    /// Not from there.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self { status: StatusCode::FORBIDDEN, code: "forbidden", message: message.into() }
    }

    /// An order that makes no sense where the instance stands.
    pub(super) fn refused(reason: String) -> Self {
        Self { status: StatusCode::CONFLICT, code: "refused", message: reason }
    }

    /// The route is there, and takes no such method.
    pub(super) fn method_not_allowed() -> Self {
        let message = "only GET is answered here, and POST where orders are given".to_owned();
        Self { status: StatusCode::METHOD_NOT_ALLOWED, code: "method_not_allowed", message }
    }

    /// Not now.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, code: "unavailable", message: message.into() }
    }

    /// The orchestrator itself failed.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, code: "internal", message: message.into() }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if let StoreError::Cursor(_) = error {
            return Self::bad_parameter(
                "cursor",
                "is not one that a page ended with, leave it out to begin anew",
            );
        }
        tracing::error!(%error, "the store could not be read for the API");
        Self::internal(format!("the store could not be read: {error}"))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let detail = ErrorDetail { code: self.code.to_owned(), message: self.message };
        (self.status, Json(ErrorBody { error: detail })).into_response()
    }
}

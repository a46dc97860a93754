//! Answers that are errors: `{"error": {"code", "message"}}` and a status; of definitions also their `problems`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::view::{ErrorBody, ErrorDetail};
use crate::definitions::DefinitionsError;
use crate::reload::ReloadError;
use crate::saga::id::InstanceId;
use crate::saga::problem::Problem;
use crate::store::{BackupError, StoreError};

/// An answer that is an error.
#[derive(Debug, PartialEq)]
pub(super) struct ApiError {
    status: StatusCode,
    detail: ErrorDetail,
}

impl ApiError {
    /// A parameter that cannot be used; the message names it.
    pub(super) fn bad_parameter(name: &str, problem: impl AsRef<str>) -> Self {
        let message = format!("parameter {name:?} {}", problem.as_ref());
        Self::new(StatusCode::BAD_REQUEST, "bad_parameter", message)
    }

    /// What was asked for is not there.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// There is no such instance.
    pub(super) fn no_instance(id: InstanceId) -> Self {
        Self::not_found(format!("there is no instance {id}"))
    }

    /// An order that cannot be read.
    pub(super) fn bad_order(problem: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_order", problem)
    }

    /// Not from there.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// An order that makes no sense where the instance stands.
    pub(super) fn refused(reason: String) -> Self {
        Self::new(StatusCode::CONFLICT, "refused", reason)
    }

    /// The route is there, and takes no such method.
    pub(super) fn method_not_allowed() -> Self {
        let message = "only GET is answered here, and POST where orders are given, definitions reloaded or backups begun";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    /// A request that is no whole HTTP request.
    pub(super) fn bad_request(problem: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", problem)
    }

    /// A request that is meant for somebody else.
    pub(super) fn misdirected(message: impl Into<String>) -> Self {
        Self::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", message)
    }

    /// A body that is too large.
    pub(super) fn too_large(longest: usize) -> Self {
        let message = format!("the body is over the length limit of {longest} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// A body that does not come.
    pub(super) fn too_slow(message: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "too_slow", message)
    }

    /// Not now.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// The orchestrator itself failed.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let detail = ErrorDetail { code: code.to_owned(), message: message.into(), problems: Vec::new() };
        Self { status, detail }
    }
}

impl From<ReloadError> for ApiError {
    fn from(error: ReloadError) -> Self {
        let (status, code) = match error {
            ReloadError::Definitions(_) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_definitions"),
            ReloadError::Broker(_) => (StatusCode::BAD_GATEWAY, "broker"),
            ReloadError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            ReloadError::Store(_) | ReloadError::Read(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        let mut answer = Self::new(status, code, error.to_string());
        if let ReloadError::Definitions(DefinitionsError(problems)) = error {
            answer.detail.problems = problems.iter().map(Problem::to_json).collect();
        }
        answer
    }
}

impl From<BackupError> for ApiError {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Place { .. } | BackupError::Busy => Self::refused(error.to_string()),
            error => Self::internal(error.to_string()),
        }
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
        (self.status, Json(ErrorBody { error: self.detail })).into_response()
    }
}

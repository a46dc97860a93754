//! What goes for every request, whatever its route: by which name it comes, how large and how slow it may be,
//! and what browsers may do with the answer.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::connection::Local;
use super::error::ApiError;
use super::orders::MAX_ORDER;
use super::server::Limits;

/// On every answer: it holds data and no page, and nobody keeps it.
const HEADERS: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// What is looked at.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    pub(super) limits: Limits,
    /// Names by which the API may be called beside its own, in lower case.
    pub(super) hosts: Arc<[String]>,
}

/// Lets a request pass on to its route, or answers why not.
pub(super) async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut answer = match answer(&guard, request, next).await {
        Ok(answer) => answer,
        Err(error) => error.into_response(),
    };
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if [StatusCode::REQUEST_TIMEOUT, StatusCode::PAYLOAD_TOO_LARGE].contains(&answer.status()) {
        // The rest of the body is not waited for.
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

async fn answer(guard: &Guard, request: Request, next: Next) -> Result<Response, ApiError> {
    guard.check_host(&request)?;
    let Limits { body: for_body, answer: for_answer, .. } = guard.limits;
    let request = timeout(for_body, read_body(request)).await.map_err(|_| {
        ApiError::too_slow(format!("the body was not there within {} s", for_body.as_secs_f32()))
    })??;
    timeout(for_answer, next.run(request)).await.map_err(|_| {
        ApiError::unavailable(
            "no answer could be made in time: ask for less, by filters and a limit, or later",
        )
    })
}

async fn read_body(request: Request) -> Result<Request, ApiError> {
    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        return Ok(Request::from_parts(parts, body));
    }
    if body.size_hint().lower() > MAX_ORDER as u64 {
        return Err(ApiError::too_large(MAX_ORDER));
    }
    let body = to_bytes(body, MAX_ORDER).await.map_err(|_| ApiError::too_large(MAX_ORDER))?;
    Ok(Request::from_parts(parts, Body::from(body)))
}

impl Guard {
    /// A web page may have its own name lead to this machine, and would be let read what comes from that name
    /// (DNS rebinding). So the API answers only by names that are its own.
    fn check_host(&self, request: &Request) -> Result<(), ApiError> {
        let local = request.extensions().get::<Local>().map(|Local(ip)| *ip);
        let named = host_header(request.headers())?;
        // Browsers always say whom they mean, and never speak the old version.
        if named.is_none() && request.version() > Version::HTTP_10 {
            return Err(ApiError::bad_request("the header Host is missing"));
        }
        for authority in named.iter().chain(request.uri().authority()) {
            if !self.is_own(authority.host(), local) {
                let host = authority.host();
                return Err(ApiError::misdirected(format!(
                    "this API is not known as {host:?}: if it should be, add that name to the setting http.hosts \
                     (SAGAMQ_HTTP__HOSTS)"
                )));
            }
        }
        Ok(())
    }

    fn is_own(&self, host: &str, local: Option<IpAddr>) -> bool {
        let host =
            host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
        let is_builtin = match host.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
            Ok(ip) => ip.is_loopback() || Some(ip) == local,
            Err(_) => host == "localhost" || host.ends_with(".localhost"),
        };
        is_builtin || self.hosts.contains(&host)
    }
}

fn host_header(headers: &HeaderMap) -> Result<Option<Authority>, ApiError> {
    let mut given = headers.get_all(header::HOST).iter();
    let Some(host) = given.next() else { return Ok(None) };
    let authority = Authority::try_from(host.as_bytes());
    match (authority, given.next()) {
        (Ok(authority), None) => Ok(Some(authority)),
        _ => Err(ApiError::bad_request("the header Host makes no sense")),
    }
}

//! One function a route.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;

use super::backup;
use super::definitions;
use super::error::ApiError;
use super::guard::{self, Guard};
use super::orders;
use super::query::Parameters;
use super::server::Limits;
use super::store::StoreWindow;
use super::view::{DeadLetterView, Details, PageView, Readiness, Summary};
use crate::catalog::stored_plan;
use crate::definitions::Folder;
use crate::health::Health;
use crate::saga::id::InstanceId;

/// What the API tells about.
#[derive(Clone)]
pub struct ApiState {
    /// The store, while it is open.
    pub store: StoreWindow,
    /// The definitions.
    pub folder: Folder,
    /// Which parts work.
    pub health: Arc<Health>,
    /// The metrics.
    pub metrics: PrometheusHandle,
    /// Names by which it may be called, beside `localhost` and its addresses.
    pub hosts: Arc<[String]>,
}

pub(super) type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

pub(super) fn router(state: ApiState, limits: Limits) -> Router {
    let guard = Guard { limits, hosts: Arc::clone(&state.hosts) };
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/sagas", get(list))
        .route("/api/v1/sagas/{id}", get(details))
        .route("/api/v1/sagas/{id}/orders", post(orders::order))
        .route("/api/v1/dead-letters", get(dead_letters))
        .route("/api/v1/definitions", get(definitions::versions))
        .route("/api/v1/definitions/reload", post(definitions::reload))
        .route("/api/v1/backup", get(backup::last).post(backup::begin))
        .fallback(async || ApiError::not_found("there is nothing at this path"))
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .with_state(state)
        .layer(from_fn_with_state(guard, guard::guard))
}

async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(state): State<ApiState>) -> (StatusCode, Json<Readiness>) {
    let obstacles: Vec<_> = state.health.obstacles().into_iter().map(str::to_owned).collect();
    let status = if obstacles.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready: obstacles.is_empty(), obstacles }))
}

async fn metrics(State(state): State<ApiState>) -> Response {
    let form = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (form, state.metrics.render()).into_response()
}

async fn list(State(state): State<ApiState>, pairs: Pairs) -> Result<Json<PageView<Summary>>, ApiError> {
    let query = parameters(pairs)?.into_query()?;
    let page = state.store.read(move |reader| reader.list(&query)).await?;
    Ok(Json(PageView { items: page.items.iter().map(Summary::new).collect(), next: page.next }))
}

async fn details(
    State(state): State<ApiState>,
    id: Result<Path<String>, PathRejection>,
    pairs: Pairs,
) -> Result<Json<Details>, ApiError> {
    parameters(pairs)?.finish()?;
    let id = instance_id(id)?;
    let found = state.store.read(move |reader| match reader.instance(id)? {
        Some(instance) => {
            // It matters on the way back alone. One that this release cannot read is told as such elsewhere.
            let is_on_its_way_back = instance.error.is_some() && instance.ended_at.is_none();
            let plan = is_on_its_way_back.then(|| stored_plan(&instance, reader).ok()).flatten();
            Ok(Some(Details::new(&instance, &reader.history(id)?, plan.as_deref())))
        }
        None => Ok(None),
    });
    found.await?.map(Json).ok_or_else(|| ApiError::no_instance(id))
}

async fn dead_letters(
    State(state): State<ApiState>,
    pairs: Pairs,
) -> Result<Json<PageView<DeadLetterView>>, ApiError> {
    let page = parameters(pairs)?.into_page()?;
    let found =
        state.store.read(move |reader| reader.dead_letters(page.limit, page.cursor.as_deref())).await?;
    Ok(Json(PageView {
        items: found.items.into_iter().map(DeadLetterView::from).collect(),
        next: found.next,
    }))
}

pub(super) fn instance_id(id: Result<Path<String>, PathRejection>) -> Result<InstanceId, ApiError> {
    let text = id.map_or_else(|_| String::new(), |Path(text)| text);
    let problem = "must be an instance's id (find it by business key: /api/v1/sagas?business_key=)";
    text.parse().map_err(|_| ApiError::bad_parameter("id", problem))
}

/// A page may have its own name lead here, and then nothing else tells it from a person's program.
pub(super) fn not_from_a_page(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key(header::ORIGIN) {
        return Err(ApiError::forbidden("no orders are taken from web pages"));
    }
    Ok(())
}

pub(super) fn parameters(pairs: Pairs) -> Result<Parameters, ApiError> {
    let Query(pairs) = pairs.map_err(|error| ApiError::bad_parameter("?", error.body_text()))?;
    Ok(Parameters::new(pairs))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::cli::args::{Cli, Command};
    use crate::cli::client::Client;
    use crate::cli::{self, CliError, Exit};
    use crate::http::fixture::with_server;
    use crate::http::orders::MAX_ORDER;
    use crate::http::view::ErrorBody;
    use crate::http::{bind, fixture};
    use clap::Parser;

    fn get(url: &str, path: &str) -> (u16, Value) {
        let answer = Client::new(url, None).unwrap().get(path, &[]).unwrap();
        (answer.status, serde_json::from_str(&answer.text).unwrap_or(Value::String(answer.text)))
    }

    fn keys(page: &Value) -> Vec<&str> {
        page["items"].as_array().unwrap().iter().map(|item| item["business_key"].as_str().unwrap()).collect()
    }

    #[tokio::test]
    async fn sagas_are_listed_by_filter_and_page_by_page() {
        with_server(|url, _| {
            let (status, all) = get(url, "/api/v1/sagas");
            assert_eq!((status, keys(&all).len(), &all["next"]), (200, 5, &Value::Null));
            let (_, parked) = get(url, "/api/v1/sagas?status=parked&attribute=customer:C-1&saga=order");
            assert_eq!(keys(&parked), ["parked"]);
            let (_, one) = get(url, "/api/v1/sagas?business_key=retrying");
            assert_eq!(keys(&one), ["retrying"]);
            assert_eq!(one["items"][0]["started_at"], "2026-01-01T00:00:00.000Z");
            assert_eq!(keys(&get(url, "/api/v1/sagas?before=2025-01-01T00:00:00Z").1), [""; 0]);
            let (_, first) = get(url, "/api/v1/sagas?limit=3");
            let (_, second) =
                get(url, &format!("/api/v1/sagas?limit=3&cursor={}", first["next"].as_str().unwrap()));
            assert_eq!([keys(&first), keys(&second)].concat(), keys(&all));
        })
        .await;
    }

    #[tokio::test]
    async fn a_saga_is_told_with_the_names_of_steps_and_readable_times() {
        with_server(|url, _| {
            let (instance, history) = fixture::instances().remove(2);
            let (status, details) = get(url, &format!("/api/v1/sagas/{}", instance.id));
            assert_eq!(status, 200);
            assert_eq!(details["current"], serde_json::json!(["charge_payment"]));
            assert_eq!(details["to_come"], serde_json::json!(["ship"]));
            assert_eq!(details["input"]["order_id"], "retrying");
            assert_eq!(details["steps"][1]["action"]["due"], "2026-01-01T00:00:30.000Z");
            let retry = &details["history"][3];
            assert_eq!(retry["correlation_id"], instance.id.to_string());
            assert_eq!(retry["facts"][1]["step"], "charge_payment");
            assert_eq!(retry["facts"][1]["due"], "2026-01-01T00:01:04.000Z");
            let read: Details = serde_json::from_value(details).unwrap();
            assert_eq!(read, Details::new(&instance, &history, None));
        })
        .await;
    }

    #[test]
    fn what_nothing_undoes_is_not_to_come_on_the_way_back() {
        let steps = ["reserve_stock", "charge_payment", "ship"].map(|step| {
            let way_back =
                if step == "charge_payment" { "none" } else { "{command: {exchange: x, key: undo}}" };
            format!("  - {{step: {step}, command: {{exchange: x, key: do}}, compensate: {way_back}}}\n")
        });
        let start = "start: {on: {exchange: x, key: go}, business_key: =event.data.id}";
        let definition = format!("saga: order\nversion: 1\n{start}\nsteps:\n{}", steps.concat());
        let plan = crate::saga::compile::load("order.yaml", &definition).unwrap();
        let (instance, history) = fixture::instances().remove(3);
        let to_come = |plan| Details::new(&instance, &history, plan).to_come;
        assert_eq!(to_come(Some(&plan)), ["reserve_stock"]);
        assert_eq!(to_come(None), ["charge_payment", "reserve_stock"]);
    }

    #[tokio::test]
    async fn an_order_is_answered_by_what_came_of_it() {
        with_server(|url, _| {
            let (instance, _) = fixture::instances().remove(2);
            let path = format!("/api/v1/sagas/{}/orders", instance.id);
            let post = |order: Value| Client::new(url, None).unwrap().post(&path, &order);
            let order = |verb: &str, reason: &str| serde_json::json!({"verb": verb, "actor": "ann", "reason": reason});
            let done = post(order("skip", "why")).unwrap();
            let summary: Summary = serde_json::from_str(&done.text).unwrap();
            assert_eq!((done.status, summary), (200, Summary::new(&instance)));
            let long = "x".repeat(1001);
            let cases = [
                (order("retry", "why"), "not now"),
                (order("skip", ""), "\"reason\" must not be empty"),
                (order("skip", &long), "1000 are allowed"),
                (order("fly", "why"), "unknown variant"),
                (serde_json::json!({"verb": "skip", "stpe": "a", "actor": "a", "reason": "b"}), "unknown field"),
                (serde_json::json!({"verb": "skip", "reason": "why"}), "missing field"),
                (order("skip", &"x".repeat(MAX_ORDER)), "length limit"),
            ];
            for (order, reason) in cases {
                let Err(CliError::Refused(told)) = post(order) else { panic!("not refused") };
                assert!(told.contains(reason), "{told}");
            }
            let Err(CliError::Failed { message, .. }) = post(order("cancel", "why")) else { panic!("answered") };
            assert!(message.contains("look at the instance"), "{message}");
            // What a web page of another origin can send unasked is no order.
            let form = ureq::post(format!("{url}{path}")).config().http_status_as_error(false).build();
            assert_eq!(form.send(order("skip", "why").to_string()).unwrap().status(), 400);
            let page = ureq::post(format!("{url}{path}")).header("origin", url);
            let page = page.config().http_status_as_error(false).build();
            assert_eq!(page.send_json(order("skip", "why")).unwrap().status(), 403);
        })
        .await;
    }

    #[tokio::test]
    async fn every_error_is_json_with_its_status() {
        with_server(|url, _| {
            let unknown = crate::saga::id::InstanceId::new("order", "none");
            let cases = [
                ("/api/v1/sagas?state=x".to_owned(), 400, "bad_parameter", "\"state\" is not known"),
                ("/api/v1/sagas?cursor=x".to_owned(), 400, "bad_parameter", "\"cursor\""),
                ("/api/v1/dead-letters?cursor=x".to_owned(), 400, "bad_parameter", "\"cursor\""),
                ("/api/v1/sagas/x".to_owned(), 400, "bad_parameter", "\"id\""),
                ("/api/v1/sagas/%ff".to_owned(), 400, "bad_parameter", "\"id\""),
                (format!("/api/v1/sagas/{unknown}?x=1"), 400, "bad_parameter", "\"x\""),
                (format!("/api/v1/sagas/{unknown}"), 404, "not_found", "no instance"),
                ("/api/v2".to_owned(), 404, "not_found", "nothing at this path"),
            ];
            for (path, status, code, message) in cases {
                let (found, body) = get(url, &path);
                let ErrorBody { error } = serde_json::from_value(body).unwrap();
                assert_eq!((found, error.code.as_str()), (status, code), "{path}");
                assert!(error.message.contains(message), "{path}: {}", error.message);
            }
            let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
            let mut refused = agent.post(format!("{url}/api/v1/sagas")).send_empty().unwrap();
            assert_eq!(refused.status(), 405);
            assert!(refused.headers().contains_key("allow"));
            assert!(refused.body_mut().read_to_string().unwrap().contains("method_not_allowed"));
        })
        .await;
    }

    #[tokio::test]
    async fn readiness_follows_the_health_of_the_parts() {
        with_server(|url, health| {
            assert_eq!(get(url, "/livez"), (200, Value::String("ok\n".to_owned())));
            let (status, body) = get(url, "/readyz");
            assert_eq!((status, &body["ready"]), (503, &Value::Bool(false)));
            assert_eq!(body["obstacles"][0], "not consuming from the broker");
            let client = Client::new(url, None).unwrap();
            assert_eq!(cli::ready::ask(&client).unwrap().0, Exit::Failed);
            for flag in [&health.consuming, &health.publishing, &health.storing] {
                flag.set(true);
            }
            assert_eq!(get(url, "/readyz").0, 200);
            assert_eq!(cli::ready::ask(&client).unwrap().0, Exit::Fine);
            let (status, page) = get(url, "/metrics");
            assert_eq!(status, 200);
            assert!(page.as_str().unwrap().contains("sagamq_commits_total"));
        })
        .await;
    }

    #[tokio::test]
    async fn the_command_line_reads_what_the_api_answers() {
        with_server(|url, _| {
            let client = Client::new(url, None).unwrap();
            let run = |line: &[&str]| {
                let cli = Cli::try_parse_from([&["sagamq"], line].concat()).unwrap();
                match cli.command {
                    Command::List(args) => cli::list::ask(&args, &client),
                    Command::Show(args) => cli::show::ask(&args, &client),
                    Command::DeadLetters(args) => cli::dead_letters::ask(&args, &client),
                    _ => panic!("not a command that asks the API"),
                }
            };
            assert!(
                run(&["list", "--status", "parked"]).unwrap().contains("no reply to 1 attempt (TIMEOUT)")
            );
            assert_eq!(run(&["list", "--saga", "other"]).unwrap(), "no sagas\n");
            assert!(run(&["list", "--limit", "2"]).unwrap().contains("there are more: --cursor "));
            assert!(run(&["dead-letters"]).unwrap().contains("body is not JSON"));
            let id = fixture::instances()[0].0.id.to_string();
            assert_eq!(run(&["show", &id]).unwrap(), run(&["show", "completed"]).unwrap());
            assert!(run(&["show", "parked", "--json"]).unwrap().starts_with("{\"id\":"));
            assert!(matches!(run(&["show", "nobody"]), Err(CliError::NotFound(_))));
            assert_eq!(run(&["show", "nobody"]).unwrap_err().exit(), Exit::Failed);
            assert_eq!(run(&["list", "--after", "now"]).unwrap_err().exit(), Exit::Usage);
        })
        .await;
    }

    #[tokio::test]
    async fn an_address_in_use_is_named_with_the_remedy() {
        let taken = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let error = bind(taken.local_addr().unwrap()).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {}", taken.local_addr().unwrap())), "{error}");
        assert!(error.contains("http.bind"), "{error}");
    }
}

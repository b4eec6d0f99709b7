//! The HTTP server: each request becomes a [`Query`] and waits for its answer.

use std::error::Error as _;
use std::fmt::Display;
use std::future::Future;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, Query as Parameters, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::types::{Document, Failure, Flows, Ping, Route, Routes, Trace};
use super::{Destination, MAX_FLOWS, MAX_TRACE_PACKETS, Query, Refusal, Reply};
use crate::metrics;

/// How long the relay may take: traces wait for packets that may never come back.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const DEFAULT_FLOWS: usize = 1_000;
const DEFAULT_TRACE_PACKETS: u16 = 10;

type Relay = State<mpsc::Sender<Query>>;

/// Serves `/metrics`, `/healthz`, `/readyz` and `/api/v1/…` on `listener` until `stop` resolves.
///
/// `relay` should be short (a few questions): where it is full, requests wait.
pub async fn serve(
    listener: TcpListener,
    relay: mpsc::Sender<Query>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, routes(relay)).with_graceful_shutdown(stop).await
}

fn routes(relay: mpsc::Sender<Query>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "the process lives\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(|State(relay): Relay| ask(relay, Query::Status)))
        .route("/api/v1/links", get(|State(relay): Relay| ask(relay, Query::Links)))
        .route("/api/v1/services", get(|State(relay): Relay| ask(relay, Query::Services)))
        .route("/api/v1/export", get(|State(relay): Relay| ask(relay, Query::Export)))
        .route("/api/v1/routes", get(all_routes))
        .route("/api/v1/route", get(one_route))
        .route("/api/v1/flows", get(flows))
        .route("/api/v1/ping", get(ping))
        .route("/api/v1/trace", get(trace))
        .fallback(|| async {
            Failed(StatusCode::NOT_FOUND, "no such page; see /api/v1/status".into())
        })
        .with_state(relay)
}

/// What went wrong, as the asker is told.
struct Failed(StatusCode, String);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let Self(status, error) = self;
        (status, axum::Json(Document::new(Failure { error }))).into_response()
    }
}

/// Puts the question and waits for the answer.
async fn answer<T>(
    relay: mpsc::Sender<Query>,
    query: impl FnOnce(Reply<T>) -> Query,
) -> Result<T, Failed> {
    let (reply, answer) = oneshot::channel();
    let waiting = async {
        relay.send(query(reply)).await.ok()?;
        answer.await.ok()
    };
    match tokio::time::timeout(ANSWER_WITHIN, waiting).await {
        Ok(Some(Ok(answer))) => Ok(answer),
        Ok(Some(Err(Refusal::Unknown(why)))) => Err(Failed(StatusCode::NOT_FOUND, why)),
        Ok(Some(Err(Refusal::Invalid(why)))) => Err(Failed(StatusCode::BAD_REQUEST, why)),
        Ok(None) => Err(Failed(StatusCode::SERVICE_UNAVAILABLE, "the relay is stopping".into())),
        Err(_) => {
            let why = format!("the relay gave no answer within {ANSWER_WITHIN:?}");
            Err(Failed(StatusCode::GATEWAY_TIMEOUT, why))
        }
    }
}

type Page<T> = Result<axum::Json<Document<T>>, Failed>;

async fn ask<T: Serialize>(
    relay: mpsc::Sender<Query>,
    query: impl FnOnce(Reply<T>) -> Query,
) -> Page<T> {
    answer(relay, query).await.map(|body| axum::Json(Document::new(body)))
}

async fn ready(State(relay): Relay) -> Result<Response, Failed> {
    Ok(match answer(relay, Query::Status).await?.not_ready {
        None => (StatusCode::OK, "ready\n").into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    })
}

async fn metrics(State(relay): Relay) -> Result<Response, Failed> {
    let snapshot = answer(relay, Query::Metrics).await?;
    let headers = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
    Ok((headers, metrics::encode(snapshot)).into_response())
}

/// The parameters of a question; unknown ones are refused.
struct Asked<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failed> {
        match Parameters::from_request_parts(parts, state).await {
            Ok(Parameters(parameters)) => Ok(Self(parameters)),
            Err(rejection) => {
                // The source names the parameter and what is wrong with it.
                let why = rejection.source().map_or_else(String::new, ToString::to_string);
                let why = format!("the parameters can't be read: {why}");
                Err(Failed(StatusCode::BAD_REQUEST, why))
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoutesAsked {
    policy: Option<String>,
}

async fn all_routes(State(relay): Relay, Asked(asked): Asked<RoutesAsked>) -> Page<Routes> {
    ask(relay, |reply| Query::Routes { policy: asked.policy, reply }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteAsked {
    #[serde(deserialize_with = "parsed")]
    to: Destination,
    policy: Option<String>,
    #[serde(default, deserialize_with = "parsed")]
    explain: bool,
}

/// Reads a value so that what is wrong with it is told together with it.
fn parsed<'de, D, T>(text: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let text = String::deserialize(text)?;
    text.parse().map_err(|error| D::Error::custom(format!("{text:?} is refused, {error}")))
}

fn some<'de, D, T>(text: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    parsed(text).map(Some)
}

async fn one_route(State(relay): Relay, Asked(asked): Asked<RouteAsked>) -> Page<Route> {
    let RouteAsked { to, policy, explain } = asked;
    ask(relay, |reply| Query::Route { to, policy, explain, reply }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PingAsked {
    #[serde(deserialize_with = "parsed")]
    to: Destination,
    policy: Option<String>,
}

async fn ping(State(relay): Relay, Asked(asked): Asked<PingAsked>) -> Page<Ping> {
    let PingAsked { to, policy } = asked;
    ask(relay, |reply| Query::Ping { to, policy, reply }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TraceAsked {
    #[serde(deserialize_with = "parsed")]
    to: Destination,
    policy: Option<String>,
    #[serde(default, deserialize_with = "some")]
    packets: Option<u16>,
}

async fn trace(State(relay): Relay, Asked(asked): Asked<TraceAsked>) -> Page<Trace> {
    let TraceAsked { to, policy, packets } = asked;
    let packets = packets.unwrap_or(DEFAULT_TRACE_PACKETS).clamp(1, MAX_TRACE_PACKETS);
    ask(relay, |reply| Query::Trace { to, policy, packets, reply }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FlowsAsked {
    #[serde(default, deserialize_with = "some")]
    limit: Option<usize>,
}

async fn flows(State(relay): Relay, Asked(asked): Asked<FlowsAsked>) -> Page<Flows> {
    let limit = asked.limit.unwrap_or(DEFAULT_FLOWS).min(MAX_FLOWS);
    ask(relay, |reply| Query::Flows { limit, reply }).await
}

//! What the page asks: requests of `chorus.v1` as JSON, handed to the ensemble as the calls that they are.
//!
//! Knows nothing about connections, or about how the ensemble answers.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use chorus_proto::v1::{PredictRequest, ScoreRequest, StatusRequest, ensemble_server::Ensemble};
use futures::{Stream, StreamExt as _};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, StatusCode, request::Parts};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::failure::Failure;
use crate::json::{Described, Json};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bytes of a request: far more than anybody types.
pub(crate) const LARGEST_REQUEST: usize = 1024 * 1024;

/// Whom the page asks, and how.
pub(crate) struct Api<E> {
    pub(crate) ensemble: Arc<E>,
    pub(crate) json: Json,
}

impl<E> Clone for Api<E> {
    fn clone(&self) -> Self {
        Self { ensemble: Arc::clone(&self.ensemble), json: self.json.clone() }
    }
}

/// All that can be asked.
pub(crate) fn routes<E: Ensemble>() -> Router<Api<E>> {
    Router::new()
        .route("/api/status", get(status::<E>))
        .route("/api/generate", post(generate::<E>))
        .route("/api/score", post(score::<E>))
        .route("/api/predict", post(predict::<E>))
}

async fn status<E: Ensemble>(State(api): State<Api<E>>, request: Request) -> Result<Response, Failure> {
    let (parts, _) = request.into_parts();
    let reply = api.ensemble.status(call(parts, StatusRequest {})).await?;
    answer(&api.json, &reply)
}

async fn score<E: Ensemble>(State(api): State<Api<E>>, request: Request) -> Result<Response, Failure> {
    let request: tonic::Request<ScoreRequest> = read(&api.json, request).await?;
    let reply = api.ensemble.score(request).await?;
    answer(&api.json, &reply)
}

async fn predict<E: Ensemble>(State(api): State<Api<E>>, request: Request) -> Result<Response, Failure> {
    let request: tonic::Request<PredictRequest> = read(&api.json, request).await?;
    let reply = api.ensemble.predict(request).await?;
    answer(&api.json, &reply)
}

async fn generate<E: Ensemble>(State(api): State<Api<E>>, request: Request) -> Result<Response, Failure> {
    let request = read(&api.json, request).await?;
    // Where the browser goes away, hyper drops this stream, and with it the generation.
    let replies = api.ensemble.generate(request).await?;
    let id = request_id(&replies);
    let lines = lines(api.json, replies.into_inner()).map(Ok::<_, std::convert::Infallible>);
    let headers = [(CONTENT_TYPE, "application/x-ndjson"), (CACHE_CONTROL, "no-store")];
    Ok((headers, id, Body::from_stream(lines)).into_response())
}

/// A line for each message; a failure is the last one.
fn lines<T: Described>(
    json: Json,
    messages: impl Stream<Item = Result<T, Status>>,
) -> impl Stream<Item = Bytes> {
    let mut failed = false;
    messages
        .take_while(move |message| {
            let goes_on = !failed;
            failed |= message.is_err();
            std::future::ready(goes_on)
        })
        .map(move |message| {
            let line = message.map_err(Failure::from).and_then(|message| json.line(&message));
            line.unwrap_or_else(|failure| failure.line())
        })
}

fn answer<T: Described>(json: &Json, reply: &tonic::Response<T>) -> Result<Response, Failure> {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    Ok((headers, request_id(reply), json.write(reply.get_ref())?).into_response())
}

/// What the request is called in logs, where it has a name there.
fn request_id<T>(reply: &tonic::Response<T>) -> HeaderMap {
    let id = reply.metadata().as_ref().get(&REQUEST_ID);
    id.map(|id| (REQUEST_ID, id.clone())).into_iter().collect()
}

/// The call that a request is.
async fn read<T: Described>(json: &Json, request: Request) -> Result<tonic::Request<T>, Failure> {
    let (parts, body) = request.into_parts();
    if !is_json(&parts.headers) {
        // Other types can be sent by any site's page without being asked.
        return Err(Failure::of_http(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content-type: it is not JSON; allowed: application/json",
        ));
    }
    let body = Limited::new(body, LARGEST_REQUEST).collect().await.map_err(|error| unread(error.as_ref()))?;
    Ok(call(parts, json.read(&body.to_bytes())?))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn unread(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Failure {
    if error.is::<LengthLimitError>() {
        let message = format!("the request is too long; allowed: {LARGEST_REQUEST} bytes");
        return Failure::of_http(StatusCode::PAYLOAD_TOO_LARGE, message);
    }
    let http = Some(StatusCode::REQUEST_TIMEOUT);
    Failure { http, ..Failure::new(Code::Cancelled, format!("the request did not come whole: {error}")) }
}

/// In the caller's name: its credentials, what it calls the request, the trace that it is a part of, and its connection.
fn call<T>(parts: Parts, message: T) -> tonic::Request<T> {
    let told = [AUTHORIZATION, REQUEST_ID, TRACEPARENT, TRACESTATE].map(|name: HeaderName| {
        let value = parts.headers.get(&name)?.clone();
        Some((name, value))
    });
    let metadata = MetadataMap::from_headers(told.into_iter().flatten().collect());
    tonic::Request::from_parts(metadata, parts.extensions, message)
}

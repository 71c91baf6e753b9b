//! The console: one page that shows operators how a worker stands.
//!
//! Takes what somebody [`Tells`] of a worker, gives a page and its data over HTTP: the worker itself (`CONSOLE=1`), or the command
//! `console`, which asks a worker. It reads and never changes anything, asks for nothing outside, and keeps nothing. The page is
//! told by its policy that it may load nothing, run no other script and make no markup of a text.

mod page;
mod worker;

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::dead_letters::filed::{Filter, Place};
use crate::telemetry::reach::{Reach, guard};
use page::Page;

pub use worker::Worker;

/// Who knows what the page shows. What an error says is shown to whoever looks.
pub trait Tells: Send + Sync {
    /// What `/statusz` says, with the settings as `config` if they are known.
    fn data(&self) -> BoxFuture<'_, Result<Value, String>>;

    /// Whether dead letters can be read here.
    fn has_letters(&self) -> bool;

    /// Dead letters that are wanted.
    fn letters(&self, filter: Filter) -> BoxFuture<'_, Result<Value, String>>;

    /// One letter, decoded: what its record holds is in it.
    fn letter(&self, place: Place) -> BoxFuture<'_, Result<Value, String>>;
}

#[derive(Clone)]
struct Shared {
    tells: Arc<dyn Tells>,
    page: Arc<Page>,
}

/// The page at `/console`, and what it asks for below.
pub fn routes(tells: Arc<dyn Tells>, reach: Reach) -> Router {
    let shared = Shared {
        tells,
        page: Arc::new(Page::new()),
    };
    Router::new()
        .route("/console", get(page))
        .route("/console/", get(async || Redirect::permanent("/console")))
        .route("/console/data.json", get(data))
        .route("/console/letters.json", get(letters))
        .route("/console/letter.json", get(letter))
        .with_state(shared)
        .layer(middleware::from_fn_with_state(reach, guard))
        .layer(middleware::map_response(guarded))
}

/// What holds of every answer.
async fn guarded(mut answer: Response) -> Response {
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

async fn page(State(shared): State<Shared>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, shared.page.policy.as_str()),
    ];
    (headers, shared.page.text.clone()).into_response()
}

async fn data(State(shared): State<Shared>) -> Response {
    let told = shared.tells.data().await.map(|mut told| {
        told["has_letters"] = shared.tells.has_letters().into();
        told
    });
    answer(told)
}

async fn letters(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Response {
    match filter(query.as_deref().unwrap_or_default()) {
        Ok(filter) => answer(shared.tells.letters(filter).await),
        Err(problem) => misasked(&problem),
    }
}

async fn letter(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let pairs = pairs(query.as_deref().unwrap_or_default());
    let place = pairs.iter().find(|(name, _)| name == "place");
    match place.map(|(_, place)| place.parse::<Place>()) {
        Some(Ok(place)) => answer(shared.tells.letter(place).await),
        Some(Err(problem)) => misasked(&problem),
        None => misasked("which letter: place=QUEUE/PARTITION/OFFSET"),
    }
}

/// What the worker or the brokers said, or why they said nothing.
fn answer(told: Result<Value, String>) -> Response {
    let (status, told) = match told {
        Ok(told) => (StatusCode::OK, told),
        Err(error) => (StatusCode::BAD_GATEWAY, json!({ "error": error })),
    };
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (status, headers, told.to_string()).into_response()
}

fn misasked(problem: &str) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    let told = json!({ "error": problem });
    (StatusCode::BAD_REQUEST, headers, told.to_string()).into_response()
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let url = reqwest::Url::parse("http://console/").ok();
    let Some(mut url) = url else { return Vec::new() };
    url.set_query(Some(query));
    let pairs = url.query_pairs().filter(|(_, value)| !value.is_empty());
    pairs
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}

/// At most this many letters are shown at once.
const MOST_LETTERS: usize = 500;

fn filter(query: &str) -> Result<Filter, String> {
    let mut filter = Filter {
        limit: Some(MOST_LETTERS),
        ..Filter::default()
    };
    for (name, value) in pairs(query) {
        match name.as_str() {
            "queue" => filter.queue = Some(value.parse()?),
            "reason" => filter.reason = Some(value),
            "topic" => filter.topic = Some(value),
            _ => return Err("known are queue, reason and topic".to_owned()),
        }
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumers::Consumer;
    use crate::dead_letters::Queue;

    #[test]
    fn a_filter_is_read_from_a_query_and_nothing_else_is_taken_for_one() {
        let read = filter("queue=tier&reason=points%20overflow&topic=").expect("a filter");
        let expected = Filter {
            queue: Some(Queue::Consumer(Consumer::Tier)),
            reason: Some("points overflow".to_owned()),
            limit: Some(MOST_LETTERS),
            ..Filter::default()
        };
        assert_eq!(read, expected);
        assert!(filter("queue=nobody").is_err());
        assert!(filter("limit=9").is_err());
    }
}

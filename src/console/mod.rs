//! The console: one page that shows operators how a worker stands.
//!
//! Takes what somebody [`Tells`] of a worker, gives a page and its data over HTTP: the worker itself (`CONSOLE=1`), or the command
//! `console`, which asks a worker. It reads and never changes anything, asks for nothing outside, and keeps nothing. The page is
//! told by its policy that it may load nothing, run no other script and make no markup of a text.

mod page;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::dead_letters::filed::{Filter, Place};
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

/// Who may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Whoever sits at this machine. Requests must name it: a page of somebody else's whose name was made to lead here would
    /// otherwise read what is shown.
    ThisMachine,
    /// Whoever reaches the address.
    Everybody,
}

#[derive(Clone)]
struct Shared {
    tells: Arc<dyn Tells>,
    page: Arc<Page>,
}

/// Whether nobody but this machine reaches the address.
#[must_use]
pub const fn is_this_machine(address: SocketAddr) -> bool {
    address.ip().is_loopback()
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
}

async fn guard(State(reach): State<Reach>, request: Request, next: Next) -> Response {
    let answer = if reach == Reach::Everybody || names_this_machine(request.headers()) {
        next.run(request).await
    } else {
        let said = "this console is for this machine: ask for 127.0.0.1 or localhost\n";
        (StatusCode::MISDIRECTED_REQUEST, said).into_response()
    };
    guarded(answer)
}

/// Whether the request was meant for this machine, by the name in it.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(host) = host else { return false };
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// What holds of every answer.
fn guarded(mut answer: Response) -> Response {
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
    fn a_request_must_name_this_machine() {
        let names = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(host).expect("a header"));
            names_this_machine(&headers)
        };
        for host in [
            "127.0.0.1:8080",
            "localhost:1",
            "LOCALHOST",
            "[::1]:80",
            "[::1]",
            "127.0.0.1",
            "127.9.9.9:1",
        ] {
            assert!(names(host), "{host}");
        }
        for host in [
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example:80",
            "10.0.0.1:8080",
            "",
            ":80",
            "[::2]:80",
        ] {
            assert!(!names(host), "{host}");
        }
        assert!(!names_this_machine(&HeaderMap::new()));
    }

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

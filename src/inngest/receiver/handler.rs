//! One request: the fault it meets, the key, the body, the answer.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::IntoMakeServiceWithConnectInfo;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER, USER_AGENT};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use futures::StreamExt as _;

use super::faults::Fault;
use super::intake::{self, Bad, Incoming};
use super::listener::Cut;
use super::{AcceptedEvent, SeenHeaders, Shared};

/// What a fault leaves to be done once the body is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Twist {
    None,
    DropConnection,
    RejectAfter(usize),
    WithholdIds(usize),
}

/// The internal ids given so far, as they stand in the answer.
struct Ids {
    json: String,
    count: usize,
}

pub(super) fn service(shared: Arc<Shared>) -> IntoMakeServiceWithConnectInfo<Router, Cut> {
    Router::new()
        .route("/e/{key}", post(receive))
        .route("/health", get(async || "ok"))
        .with_state(shared)
        .into_make_service_with_connect_info::<Cut>()
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    Path(key): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    shared.counts.requests.fetch_add(1, Ordering::SeqCst);
    shared.note_headers(&headers);
    // Read first, whatever the answer: a client that is still writing may never see an answer that comes before.
    let Some(body) = shared.read_body(body).await else {
        return failure(413, Ids::new(), "request body is too large");
    };
    shared.counts.bytes.fetch_add(body.len() as u64, Ordering::SeqCst);
    if let Some(keys) = &shared.settings.keys
        && !keys.contains(&key)
    {
        return failure(401, Ids::new(), "event key not recognised");
    }
    let answering = shared.answer(&body, &cut);
    tokio::select! {
        answer = answering => answer,
        // What hangs must not keep the receiver from stopping.
        () = shared.stopping.cancelled() => {
            cut.cut();
            failure(503, Ids::new(), "stopping")
        }
    }
}

impl Shared {
    async fn answer(&self, body: &[u8], cut: &Cut) -> Response {
        let mut twist = Twist::None;
        match self.faults.next() {
            None => {}
            Some(Fault::Answer {
                status,
                retry_after,
                error,
            }) => {
                let response = failure(status, Ids::new(), &error);
                return with_header(response, RETRY_AFTER, retry_after.as_deref());
            }
            Some(Fault::Body(body)) => return plain(200, body),
            Some(Fault::Redirect { location }) => {
                return with_header(plain(307, String::new()), LOCATION, Some(&location));
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Hold(gate)) => gate.pass().await,
            Some(Fault::Slow(delay)) => tokio::time::sleep(delay).await,
            Some(Fault::AcceptThenDrop) => twist = Twist::DropConnection,
            Some(Fault::AcceptPrefixThenReject { n }) => twist = Twist::RejectAfter(n),
            Some(Fault::TooFewIds { missing }) => twist = Twist::WithholdIds(missing),
        }
        let (ids, end) = self.accept(body, twist);
        if !self.settings.latency.is_zero() {
            tokio::time::sleep(self.settings.latency).await;
        }
        if twist == Twist::DropConnection {
            cut.cut();
        }
        match end {
            Ok(()) => success(ids),
            Err(bad) => failure(400, ids, &bad.to_string()),
        }
    }

    fn accept(&self, body: &[u8], twist: Twist) -> (Ids, Result<(), Bad>) {
        let max_events = match twist {
            Twist::RejectAfter(n) => n,
            _ => self.settings.max_events,
        };
        let mut ids = Ids::new();
        // One time for the request: ids rise within it, whatever the clock does.
        let now_ms = self.clock.now_ms();
        let end = intake::read(body, max_events, |event| {
            let internal = self.internal_id(now_ms);
            self.give(&event, &internal, now_ms);
            ids.push(&internal);
        });
        let end = match twist {
            // Scripted behind the last event: there is nothing wrong to find.
            Twist::RejectAfter(_) => end.and(Err(Bad::TooMany)),
            Twist::WithholdIds(missing) => {
                ids.withhold(missing);
                end
            }
            Twist::None | Twist::DropConnection => end,
        };
        (ids, end)
    }

    fn give(&self, event: &Incoming<'_>, internal_id: &str, now_ms: i64) {
        let id = event.id.as_deref().unwrap_or(internal_id);
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let new = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.insert(hasher.finish())
        };
        self.counts.accepted.fetch_add(1, Ordering::SeqCst);
        self.counts.resent.fetch_add(u64::from(!new), Ordering::SeqCst);
        self.sink.accepted(AcceptedEvent {
            internal_id,
            id,
            name: &event.name,
            ts_ms: event.ts_ms.unwrap_or(now_ms),
            v: event.v.as_deref(),
            data: &event.data,
            resent: !new,
        });
    }

    /// Looks and sorts like a ULID: milliseconds, then a number that rises.
    fn internal_id(&self, now_ms: i64) -> String {
        const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        let number = self.counts.internal_ids.fetch_add(1, Ordering::SeqCst);
        let mut bits = (u128::from(now_ms.unsigned_abs()) << 80) | u128::from(number);
        let mut text = [b'0'; 26];
        for digit in text.iter_mut().rev() {
            *digit = CROCKFORD[(bits & 31) as usize];
            bits >>= 5;
        }
        text.iter().map(|&byte| char::from(byte)).collect()
    }

    /// `None` above the limit; the rest is read all the same, and forgotten.
    async fn read_body(&self, body: Body) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut fits = true;
        let mut chunks = body.into_data_stream();
        // An error means that the client is gone: nobody reads the answer to what came so far.
        while let Some(Ok(chunk)) = chunks.next().await {
            fits &= bytes.len() + chunk.len() <= self.settings.max_body_bytes;
            if fits {
                bytes.extend_from_slice(&chunk);
            }
        }
        fits.then_some(bytes)
    }

    fn note_headers(&self, headers: &HeaderMap) {
        let text = |value: Option<&HeaderValue>| value.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let seen = SeenHeaders {
            content_type: text(headers.get(CONTENT_TYPE)),
            user_agent: text(headers.get(USER_AGENT)),
            env: text(headers.get("x-inngest-env")),
        };
        *self.last_headers.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}

impl Ids {
    fn new() -> Self {
        Self {
            json: "[".to_owned(),
            count: 0,
        }
    }

    fn push(&mut self, id: &str) {
        let comma = if self.count == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _infallible = write!(self.json, "{comma}\"{id}\"");
        self.count += 1;
    }

    /// Takes ids off the end.
    fn withhold(&mut self, missing: usize) {
        for _ in 0..missing.min(self.count) {
            let end = self.json.rfind(['[', ',']).unwrap_or(0);
            let keep = if self.count == 1 { end + 1 } else { end };
            self.json.truncate(keep);
            self.count -= 1;
        }
    }

    fn close(mut self) -> String {
        if self.count == 0 {
            // What the server gives for nothing.
            self.json.push_str("\"\"");
        }
        self.json.push(']');
        self.json
    }
}

fn success(ids: Ids) -> Response {
    plain(200, format!(r#"{{"ids":{},"status":200}}"#, ids.close()))
}

fn failure(status: u16, ids: Ids, error: &str) -> Response {
    let error = serde_json::Value::from(error);
    let body = format!(r#"{{"ids":{},"status":{status},"error":{error}}}"#, ids.close());
    plain(status, body)
}

/// Without a content type, as the server leaves it.
fn plain(status: u16, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

fn with_header(mut response: Response, name: axum::http::HeaderName, value: Option<&str>) -> Response {
    if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
        response.headers_mut().insert(name, value);
    }
    response
}

//! Who may look. Without a login, what is bound to this machine is for whoever sits at it, and a request must name it: a page of
//! somebody else's whose name was made to lead here would otherwise read what is shown.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Whoever sits at this machine.
    ThisMachine,
    /// Whoever reaches the address.
    Everybody,
}

impl Reach {
    /// Who reaches this address.
    #[must_use]
    pub const fn of(address: SocketAddr) -> Self {
        if address.ip().is_loopback() {
            Self::ThisMachine
        } else {
            Self::Everybody
        }
    }
}

/// Answers only whom this reach is for.
pub async fn guard(State(reach): State<Reach>, request: Request, next: Next) -> Response {
    if reach == Reach::Everybody || names_this_machine(request.headers()) {
        return next.run(request).await;
    }
    let said = "this is for this machine: ask for 127.0.0.1 or localhost\n";
    (StatusCode::MISDIRECTED_REQUEST, said).into_response()
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
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

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
}

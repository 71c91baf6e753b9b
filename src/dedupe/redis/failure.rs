//! What a Redis error means, and what of it may be said. Pure.
//!
//! Takes errors of the client and of the server, gives a [`DedupeError`] and whether the connection is still good. It
//! never lets a server's echo of our arguments through: an unknown `AUTH` is answered with the password.

use redis::{ErrorKind, RedisError, ServerError};

use crate::dedupe::DedupeError;
use crate::inert::without;

/// A failed call.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) error: DedupeError,
    /// The next call must not use this connection.
    pub(super) reconnect: bool,
}

const MAX_DETAIL_CHARS: usize = 200;
/// What precedes the echo of a command's arguments.
const ECHO: &str = "with args beginning with";

impl Failure {
    /// The client failed: nothing is known about what the server did.
    pub(super) fn of_client(error: &RedisError) -> Self {
        let text = error.to_string();
        let error = match error.kind() {
            ErrorKind::InvalidClientConfig => DedupeError::Configuration(presentable(&text)),
            _ if error.is_timeout() => DedupeError::Unavailable("no answer in time".to_owned()),
            _ => DedupeError::Unavailable(presentable(&text)),
        };
        Self { error, reconnect: true }
    }

    /// The server answered with an error.
    /// `secret` is the password, which some servers repeat.
    pub(super) fn of_server(error: &ServerError, secret: &str) -> Self {
        let details = error.details().unwrap_or_default();
        Self::of_reply(&without(error.code(), secret), &without(details, secret))
    }

    fn of_reply(code: &str, details: &str) -> Self {
        let text = presentable(&format!("{code} {details}"));
        match code {
            // A new connection logs in again, should an operator have mended the account.
            "NOAUTH" | "WRONGPASS" | "NOPERM" => Self {
                error: DedupeError::Configuration(text),
                reconnect: true,
            },
            // After a failover the name may lead to the new primary: look it up again.
            "READONLY" | "MASTERDOWN" => Self {
                error: DedupeError::Unavailable(text),
                reconnect: true,
            },
            // OOM, LOADING, BUSY, MISCONF and whatever comes: nothing is wrong with the connection.
            _ => Self {
                error: DedupeError::Unavailable(text),
                reconnect: false,
            },
        }
    }

    pub(super) fn timed_out(what: &str) -> Self {
        Self {
            error: DedupeError::Unavailable(format!("{what}: no answer in time")),
            reconnect: true,
        }
    }

    /// Replies and commands cannot be matched any more.
    pub(super) fn out_of_step() -> Self {
        Self {
            error: DedupeError::Unavailable("more or fewer replies than commands".to_owned()),
            reconnect: true,
        }
    }

    pub(super) fn configuration(text: &str) -> Self {
        Self {
            error: DedupeError::Configuration(text.to_owned()),
            reconnect: true,
        }
    }
}

/// Short, on one line, without our own arguments.
fn presentable(text: &str) -> String {
    let own = text.split(ECHO).next().unwrap_or_default();
    let escaped = own.trim().chars().flat_map(|c| {
        let (plain, escaped) = if c.is_control() {
            (None, Some(c.escape_default()))
        } else {
            (Some(c), None)
        };
        plain.into_iter().chain(escaped.into_iter().flatten())
    });
    escaped.take(MAX_DETAIL_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_the_server_has_a_meaning() {
        let configuration = ["NOAUTH", "WRONGPASS", "NOPERM"];
        let unavailable = [
            "OOM",
            "READONLY",
            "LOADING",
            "BUSY",
            "MISCONF",
            "MASTERDOWN",
            "ERR",
            "WRONGTYPE",
            "CLUSTERDOWN",
        ];
        for code in configuration {
            let error = Failure::of_reply(code, "details").error;
            assert_eq!(error, DedupeError::Configuration(format!("{code} details")));
        }
        for code in unavailable {
            let error = Failure::of_reply(code, "details").error;
            assert_eq!(error, DedupeError::Unavailable(format!("{code} details")));
        }
    }

    #[test]
    fn a_full_server_keeps_its_connection_and_a_replica_loses_it() {
        assert!(!Failure::of_reply("OOM", "").reconnect);
        assert!(!Failure::of_reply("LOADING", "").reconnect);
        assert!(Failure::of_reply("READONLY", "").reconnect);
        assert!(Failure::of_client(&RedisError::from(std::io::Error::other("reset"))).reconnect);
    }

    #[test]
    fn an_echo_of_our_arguments_is_cut_off() {
        let echo = "unknown command 'AUTH', with args beginning with: 'sentinel-password' ";
        let Failure { error, .. } = Failure::of_reply("ERR", echo);
        assert_eq!(
            error,
            DedupeError::Unavailable("ERR unknown command 'AUTH',".to_owned())
        );
    }

    #[test]
    fn a_message_is_short_and_on_one_line() {
        let Failure { error, .. } = Failure::of_reply("ERR", &format!("a\nb\u{1b}{}", "x".repeat(500)));
        let DedupeError::Unavailable(text) = error else {
            panic!("unavailable")
        };
        assert!(text.starts_with("ERR a\\nb\\u{1b}xxx"), "{text}");
        assert_eq!(text.chars().count(), MAX_DETAIL_CHARS);
    }
}

//! What an error of the database means, and what of it may be said. Pure.
//!
//! Takes errors of the client and of the server, gives a [`LedgerError`]. It never lets a value of a row through: details,
//! hints and contexts are left out, and so is what a message quotes of a value.

use std::error::Error as _;

use tokio_postgres::error::Severity;

use super::LedgerError;
use crate::inert::without;

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) error: LedgerError,
    /// Nothing may be asked on this connection any more, and the others are in doubt.
    pub(super) broken: bool,
}

const MAX_DETAIL_CHARS: usize = 200;

impl Failure {
    /// A statement failed.
    pub(super) fn of_statement(error: &tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            let (code, message) = (db.code().code(), db.message());
            if !matches!(db.parsed_severity(), Some(Severity::Error)) {
                // The session ends. A pooler lets in whom the server behind it then refuses.
                return Self {
                    error: of_refused_connection(code, message),
                    broken: true,
                };
            }
            return Self {
                error: of_state(code, message),
                // After a failover the name may lead to the new primary: look it up again.
                broken: code == "25006",
            };
        }
        let detail = presentable(&described(error));
        let lost = error.is_closed() || causes(error).any(|cause| cause.is::<std::io::Error>());
        Self {
            // Anything else is an answer that the client does not understand.
            error: if lost {
                LedgerError::Unavailable(detail)
            } else {
                LedgerError::Unknown(detail)
            },
            broken: true,
        }
    }

    /// There is no connection. This says nothing about any row, so it is never the row's fault.
    /// `secret` is the password, which some servers and poolers repeat.
    pub(super) fn of_connect(error: &tokio_postgres::Error, secret: &str) -> LedgerError {
        if let Some(db) = error.as_db_error() {
            return of_refused_connection(db.code().code(), &without(db.message(), secret));
        }
        let detail = presentable(&without(&described(error), secret));
        let certificate = causes(error).any(|cause| {
            let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
            matches!(
                tls,
                Some(
                    rustls::Error::InvalidCertificate(_)
                        | rustls::Error::NoCertificatesPresented
                        | rustls::Error::PeerIncompatible(_)
                        | rustls::Error::AlertReceived(_)
                )
            )
        });
        let ours = ["does not support TLS", "authentication error", "invalid configuration"];
        if certificate || ours.iter().any(|words| detail.contains(words)) {
            return LedgerError::Configuration(detail);
        }
        LedgerError::Unavailable(detail)
    }

    pub(super) fn timed_out(what: &str) -> Self {
        Self {
            error: LedgerError::Unavailable(format!("{what}: no answer in time")),
            broken: true,
        }
    }
}

/// The table of SPEC section 7 for what a statement may answer.
fn of_state(code: &str, message: &str) -> LedgerError {
    let text = presentable(&format!("{code} {}", without_values(code, message)));
    match (code, code.get(..2).unwrap_or_default()) {
        // Ran into `statement_timeout`, or was cancelled because it ran into our own.
        ("57014", _) => LedgerError::TooLong(text),
        ("25006", _) | (_, "08" | "26" | "40" | "53" | "57") => LedgerError::Unavailable(text),
        (_, "28" | "3D" | "3F" | "42") => LedgerError::Configuration(text),
        (_, "22" | "23" | "P0") => LedgerError::Rejected(text),
        _ => LedgerError::Unknown(text),
    }
}

/// Poolers have few codes and say the rest in words: `08P01` (`PgBouncer`) and `XX000` (Supavisor) for almost everything.
fn of_refused_connection(code: &str, message: &str) -> LedgerError {
    const NOBODY_COMES_IN: [&str; 7] = [
        "does not exist",
        "no such database",
        "no such user",
        "authentication failed",
        "login failed",
        "not found",
        "unsupported startup parameter",
    ];
    let about_us = NOBODY_COMES_IN.iter().any(|words| message.contains(words));
    match of_state(code, message) {
        LedgerError::Unavailable(text) | LedgerError::Unknown(text) if about_us => LedgerError::Configuration(text),
        // A parameter of the address that the server does not take.
        LedgerError::Rejected(text) => LedgerError::Configuration(text),
        LedgerError::Unknown(text) | LedgerError::TooLong(text) => LedgerError::Unavailable(text),
        known @ (LedgerError::Unavailable(_) | LedgerError::Configuration(_)) => known,
    }
}

/// The server quotes a wrong value at the end, behind a colon: `invalid input syntax for type uuid: "..."`; or in the middle:
/// `value "..." is out of range for type bigint`. Elsewhere quotes hold names, as that of a parameter in `22023`.
fn without_values(code: &str, message: &str) -> String {
    let text = message.split(": \"").next().unwrap_or_default();
    match (code, text.split_once('"')) {
        ("22023", _) | (_, None) => text.to_owned(),
        (_, Some((before, _))) if code.starts_with("22") => {
            // Of the whole message: the value may hold quotes and colons.
            let behind = message.rsplit_once('"').map_or("", |(_, behind)| behind);
            let behind = if behind.starts_with(' ') { behind } else { "" };
            format!("{}{behind}", before.trim_end())
        }
        (_, Some(_)) => text.to_owned(),
    }
}

fn causes<'a>(error: &'a tokio_postgres::Error) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |cause| (*cause).source())
}

/// The error and why, in one line.
fn described(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    for cause in causes(error) {
        text.push_str(": ");
        text.push_str(&cause.to_string());
    }
    text
}

/// Short, and on one line.
fn presentable(text: &str) -> String {
    let plain = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(MAX_DETAIL_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(error: &LedgerError) -> &'static str {
        match error {
            LedgerError::Unavailable(_) => "unavailable",
            LedgerError::Configuration(_) => "configuration",
            LedgerError::TooLong(_) => "too long",
            LedgerError::Rejected(_) => "rejected",
            LedgerError::Unknown(_) => "unknown",
        }
    }

    #[test]
    fn every_class_of_states_has_its_meaning() {
        for (code, meaning) in [
            ("08000", "unavailable"), // connection_exception
            ("08006", "unavailable"),
            ("08P01", "unavailable"), // what PgBouncer says of everything
            ("25006", "unavailable"), // read only: a failover
            ("25P02", "unknown"),
            ("26000", "unavailable"), // a statement that another session of the pooler prepared
            ("40001", "unavailable"), // serialization
            ("40P01", "unavailable"), // deadlock
            ("53300", "unavailable"), // too many connections
            ("53100", "unavailable"), // disk full
            ("57P01", "unavailable"), // shut down by the administrator
            ("57P03", "unavailable"), // starting
            ("57014", "too long"),    // statement timeout, or cancelled
            ("28000", "configuration"),
            ("28P01", "configuration"), // password
            ("3D000", "configuration"), // database
            ("3F000", "configuration"), // schema
            ("42501", "configuration"), // permission
            ("42883", "configuration"), // function
            ("42P01", "configuration"), // table
            ("22P02", "rejected"),
            ("22003", "rejected"),
            ("23505", "rejected"),
            ("23514", "rejected"),
            ("P0001", "rejected"), // raised by a function
            ("0A000", "unknown"),
            ("54000", "unknown"),
            ("55P03", "unknown"), // lock not available
            ("58030", "unknown"), // I/O
            ("XX000", "unknown"),
            ("01000", "unknown"),
            ("ZZ", "unknown"),
            ("é", "unknown"),
            ("", "unknown"),
        ] {
            assert_eq!(kind(&of_state(code, "words")), meaning, "{code}");
        }
    }

    #[test]
    fn a_refused_connection_is_never_the_fault_of_a_row() {
        for (code, message, meaning) in [
            (
                "28P01",
                "password authentication failed for user \"crm\"",
                "configuration",
            ),
            ("3D000", "database \"crm\" does not exist", "configuration"),
            (
                "22023",
                "invalid value for parameter \"TimeZone\": \"x\"",
                "configuration",
            ),
            ("08P01", "no such database: crm", "configuration"),
            ("08P01", "no such user: crm", "configuration"),
            ("08P01", "database \"crm\" does not exist", "configuration"),
            ("08P01", "server login failed: FATAL password", "configuration"),
            ("08P01", "unsupported startup parameter: x", "configuration"),
            ("08P01", "query_wait_timeout", "unavailable"),
            ("08P01", "pgbouncer cannot connect to server", "unavailable"),
            ("XX000", "Tenant or user not found", "configuration"),
            ("XX000", "internal", "unavailable"),
            ("57P03", "the database system is starting up", "unavailable"),
            ("53300", "too many clients already", "unavailable"),
            ("57014", "canceling", "unavailable"),
        ] {
            assert_eq!(kind(&of_refused_connection(code, message)), meaning, "{code} {message}");
        }
    }

    #[test]
    fn what_a_row_holds_is_not_told() {
        let error = of_state("22P02", "invalid input syntax for type bigint: \"jane@example.com\"");
        let text = "22P02 invalid input syntax for type bigint";
        assert_eq!(error, LedgerError::Rejected(text.to_owned()));
        for (code, message, told) in [
            (
                "22003",
                "value \"99999999999999999999\" is out of range for type bigint",
                "22003 value is out of range for type bigint",
            ),
            (
                "22003",
                "value \"a\" b: \"c\" is out of range for type bigint",
                "22003 value is out of range for type bigint",
            ),
            ("22007", "invalid value \"jane\" for \"YYYY\"", "22007 invalid value"),
            ("22003", "numeric field overflow", "22003 numeric field overflow"),
            (
                "23505",
                "duplicate key value violates unique constraint \"effects_pkey\"",
                "23505 duplicate key value violates unique constraint \"effects_pkey\"",
            ),
        ] {
            assert_eq!(of_state(code, message), LedgerError::Rejected(told.to_owned()));
        }
        let LedgerError::Rejected(long) = of_state("P0001", &"x\n".repeat(500)) else {
            panic!("rejected");
        };
        assert_eq!((long.chars().count(), long.contains('\n')), (200, false));
    }
}

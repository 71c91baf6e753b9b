//! What a reply of the event API means. Pure.
//!
//! Takes a reply, gives an [`Answer`]. A 200 is not believed before its body agrees: it must hold one id for each event,
//! and no error of its own. It never repeats what we sent: of the body only the `error` field is quoted, shortened and
//! without the event key.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::Answer;
use crate::inert::without;

/// One reply as received.
#[derive(Clone, Copy)]
pub struct Reply<'a> {
    pub status: u16,
    pub retry_after: Option<&'a str>,
    pub body: &'a [u8],
    /// A text that must never come out again: the event key.
    pub secret: &'a str,
}

// Neither the secret nor a body that may repeat it.
impl fmt::Debug for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(default)]
    ids: Ids,
    status: Option<u16>,
    #[serde(borrow, default)]
    error: Option<Cow<'a, str>>,
}

/// How many ids were given. Their texts are Inngest's own and of no use to us.
#[derive(Default)]
struct Ids {
    given: usize,
}

/// Longer waits are asked again: an operator's mistake there must not stop us for hours.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
const MAX_DETAIL_CHARS: usize = 200;

/// Classifies the reply to a request of `sent` events.
#[must_use]
pub fn classify(reply: Reply<'_>, sent: usize, now: Timestamp) -> Answer {
    let body = serde_json::from_slice::<Body<'_>>(reply.body);
    if !matches!(reply.status, 200 | 201) {
        let error = body.ok().and_then(|body| body.error);
        return by_status(reply.status, error, reply, now);
    }
    let unavailable = |detail: String| Answer::Unavailable {
        detail,
        retry_after: retry_after(reply.retry_after, now),
    };
    let Ok(body) = body else {
        return unavailable(format!("{} with a body that is not the documented one", reply.status));
    };
    match (body.status, body.error) {
        (Some(status), error) if !matches!(status, 200 | 201) => by_status(status, error, reply, now),
        (_, Some(error)) if !error.is_empty() => unavailable(presentable(&error, reply.secret)),
        _ if body.ids.given != sent => unavailable(format!(
            "{} with {} ids for {sent} events",
            reply.status, body.ids.given
        )),
        _ => Answer::Accepted,
    }
}

fn by_status(status: u16, error: Option<Cow<'_, str>>, reply: Reply<'_>, now: Timestamp) -> Answer {
    let detail = match error.filter(|error| !error.trim().is_empty()) {
        Some(error) => presentable(&error, reply.secret),
        None => "no reason given".to_owned(),
    };
    match status {
        400 | 406 | 409 | 412 | 413 => Answer::Rejected { status, detail },
        401 | 403 | 404 => Answer::Refused { status, detail },
        429 | 500..=599 => Answer::Unavailable {
            detail: format!("{status}: {detail}"),
            retry_after: retry_after(reply.retry_after, now),
        },
        _ => Answer::Unknown { status, detail },
    }
}

/// `Retry-After`: seconds, or an HTTP date; a date that has passed means now.
fn retry_after(header: Option<&str>, now: Timestamp) -> Option<Duration> {
    let header = header?.trim();
    let wait = if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        header.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs)
    } else {
        let until = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(header).ok()?;
        Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// At most 200 characters, on one line, without the secret. The secret goes first: half a key is still a secret.
#[must_use]
pub fn presentable(text: &str, secret: &str) -> String {
    let text = without(text, secret);
    let mut out = String::with_capacity(text.len().min(MAX_DETAIL_CHARS));
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        if out.chars().nth(MAX_DETAIL_CHARS - 1).is_some() {
            break;
        }
    }
    out.chars().take(MAX_DETAIL_CHARS).collect()
}

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IdsVisitor)
    }
}

struct IdsVisitor;

/// Whether an id is more than the empty text that stands for an event that was not accepted.
struct Given(bool);

impl<'de> Visitor<'de> for IdsVisitor {
    type Value = Ids;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut ids: A) -> Result<Ids, A::Error> {
        let mut given = 0;
        while let Some(Given(id)) = ids.next_element()? {
            given += usize::from(id);
        }
        Ok(Ids { given })
    }

    // A refusal may carry null in place of a list.
    fn visit_unit<E>(self) -> Result<Ids, E> {
        Ok(Ids::default())
    }
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Given;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id")
            }

            fn visit_str<E>(self, id: &str) -> Result<Given, E> {
                Ok(Given(!id.is_empty()))
            }

            fn visit_unit<E>(self) -> Result<Given, E> {
                Ok(Given(false))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Given, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Given(false))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sentinel-key";

    fn now() -> Timestamp {
        "2026-11-20T12:00:00Z".parse().expect("a time")
    }

    fn answer(status: u16, retry_after: Option<&str>, body: &str, sent: usize) -> Answer {
        let reply = Reply {
            status,
            retry_after,
            body: body.as_bytes(),
            secret: KEY,
        };
        classify(reply, sent, now())
    }

    fn unavailable(detail: &str, seconds: Option<u64>) -> Answer {
        Answer::Unavailable {
            detail: detail.to_owned(),
            retry_after: seconds.map(Duration::from_secs),
        }
    }

    #[test]
    fn a_200_is_believed_only_if_its_body_agrees() {
        let ok = |body: &str| answer(200, None, body, 2);
        assert_eq!(ok(r#"{"ids":["a","b"],"status":200}"#), Answer::Accepted);
        assert_eq!(answer(201, None, r#"{"ids":["a","b"]}"#, 2), Answer::Accepted);
        assert_eq!(
            ok(r#"{"ids":["a","b"],"error":"","status":200,"new":1}"#),
            Answer::Accepted
        );
        let bad = [
            (r#"{"ids":["a"],"status":200}"#, "200 with 1 ids for 2 events"),
            (r#"{"ids":["a",""],"status":200}"#, "200 with 1 ids for 2 events"),
            (r#"{"ids":["a","b","c"],"status":200}"#, "200 with 3 ids for 2 events"),
            (r#"{"status":200}"#, "200 with 0 ids for 2 events"),
            (r#"{"ids":null}"#, "200 with 0 ids for 2 events"),
            (r#"{"ids":["a","b"],"error":"half of it","status":200}"#, "half of it"),
            ("", "200 with a body that is not the documented one"),
            ("<html>", "200 with a body that is not the documented one"),
            (
                r#"{"ids":"ab","status":200}"#,
                "200 with a body that is not the documented one",
            ),
        ];
        for (body, detail) in bad {
            assert_eq!(ok(body), unavailable(detail, None), "{body}");
        }
    }

    #[test]
    fn a_failure_inside_a_200_counts_as_its_own_status() {
        let inside = |status: u16| {
            answer(
                200,
                None,
                &format!(r#"{{"ids":["a"],"status":{status},"error":"why"}}"#),
                1,
            )
        };
        let detail = || "why".to_owned();
        assert_eq!(
            inside(400),
            Answer::Rejected {
                status: 400,
                detail: detail()
            }
        );
        assert_eq!(
            inside(401),
            Answer::Refused {
                status: 401,
                detail: detail()
            }
        );
        assert_eq!(inside(503), unavailable("503: why", None));
        assert_eq!(
            inside(302),
            Answer::Unknown {
                status: 302,
                detail: detail()
            }
        );
    }

    #[test]
    fn every_status_has_its_meaning() {
        let body = r#"{"ids":["",""],"status":400,"error":"why"}"#;
        for status in 100..=599 {
            let detail = "why".to_owned();
            let expected = match status {
                200 | 201 => continue,
                400 | 406 | 409 | 412 | 413 => Answer::Rejected { status, detail },
                401 | 403 | 404 => Answer::Refused { status, detail },
                429 | 500.. => unavailable(&format!("{status}: why"), None),
                _ => Answer::Unknown { status, detail },
            };
            assert_eq!(answer(status, None, body, 2), expected);
        }
    }

    #[test]
    fn a_refusal_without_a_readable_body_keeps_its_meaning() {
        let detail = || "no reason given".to_owned();
        assert_eq!(
            answer(413, None, "<html>too large", 1),
            Answer::Rejected {
                status: 413,
                detail: detail()
            }
        );
        for body in [r#"{"error":""}"#, r#"{"error":" \n"}"#, r#"{"error":null}"#] {
            let expected = Answer::Rejected {
                status: 400,
                detail: detail(),
            };
            assert_eq!(answer(400, None, body, 1), expected, "{body}");
        }
        assert_eq!(
            answer(404, None, "", 1),
            Answer::Refused {
                status: 404,
                detail: detail()
            }
        );
        assert_eq!(
            answer(502, None, "<html>", 1),
            unavailable("502: no reason given", None)
        );
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date_and_capped() {
        let waits = [
            ("0", Some(0)),
            (" 7 ", Some(7)),
            ("301", Some(300)),
            ("99999999999999999999999", Some(300)),
            ("Fri, 20 Nov 2026 12:00:42 GMT", Some(42)),
            ("Fri, 20 Nov 2026 11:00:00 GMT", Some(0)),
            ("Sat, 21 Nov 2026 12:00:00 GMT", Some(300)),
            ("-1", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
        ];
        for (header, seconds) in waits {
            let expected = unavailable("429: no reason given", seconds);
            assert_eq!(answer(429, Some(header), "", 1), expected, "{header}");
        }
    }

    #[test]
    fn a_detail_is_short_on_one_line_and_never_names_the_key() {
        let body = r#"{"error":"bad key sentinel-key\nsee log","ids":[]}"#;
        let detail = r"bad key ***\nsee log".to_owned();
        assert_eq!(answer(401, None, body, 1), Answer::Refused { status: 401, detail });
        // The cut must not leave half a key.
        let long = format!("{}{KEY}{}", "x".repeat(MAX_DETAIL_CHARS - 5), "y".repeat(9));
        let detail = presentable(&long, KEY);
        assert_eq!(detail.chars().count(), MAX_DETAIL_CHARS);
        assert!(detail.ends_with("x***yy"), "{detail}");
    }
}

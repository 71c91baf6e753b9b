//! What the event API answers: believed only if it is whole, and never a way out for the key. Inputs: status, Retry-After,
//! body.

use std::time::Duration;

use crm_event_processors::inngest::Answer;
use crm_event_processors::inngest::answer::{MAX_RETRY_AFTER, Reply, classify};
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::parts;

const KEY: &str = "sentinel-key";
const SENT: usize = 3;

pub(super) fn run(data: &[u8]) {
    let [status, retry_after, body] = parts(data);
    let status = std::str::from_utf8(status)
        .ok()
        .and_then(|text| text.parse::<u16>().ok());
    let retry_after = std::str::from_utf8(retry_after).ok().filter(|text| !text.is_empty());
    for status in status.map_or(vec![200, 400, 500], |status| vec![status]) {
        let reply = Reply {
            status,
            retry_after,
            body,
            secret: KEY,
        };
        let answer = classify(reply, SENT, Timestamp::UNIX_EPOCH);
        assert_eq!(answer, classify(reply, SENT, Timestamp::UNIX_EPOCH));
        is_sound(&answer, status, body);
    }
}

fn is_sound(answer: &Answer, status: u16, body: &[u8]) {
    let (detail, wait) = match answer {
        Answer::Accepted => return is_whole(status, body),
        Answer::Rejected { detail, .. } | Answer::Refused { detail, .. } | Answer::Unknown { detail, .. } => {
            (detail, Duration::ZERO)
        }
        Answer::Unavailable { detail, retry_after } => (detail, retry_after.unwrap_or_default()),
    };
    assert!(wait <= MAX_RETRY_AFTER);
    assert!(!detail.is_empty() && detail.chars().count() <= 250, "{detail}");
    assert!(!detail.chars().any(char::is_control), "{detail:?}");
    assert!(!detail.contains(KEY), "{detail}");
}

fn is_whole(status: u16, body: &[u8]) {
    assert!(matches!(status, 200 | 201), "{status}");
    let _json: IgnoredAny = serde_json::from_slice(body).expect("an accepted answer is JSON");
    // Half a surrogate pair, in a field that nobody reads, is no text for a reader of everything.
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return;
    };
    let ids = body["ids"].as_array().expect("ids");
    let given = ids.iter().filter(|id| id.as_str().is_some_and(|id| !id.is_empty()));
    assert_eq!(given.count(), SENT);
    assert!(body["error"].as_str().is_none_or(str::is_empty), "{body}");
    assert!(matches!(body["status"].as_u64(), None | Some(200 | 201)), "{body}");
}

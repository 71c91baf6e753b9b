//! The last step of a heal: takes events, gives what became of each. Halves what is rejected until the culprit stands alone.
//!
//! It never waits and never tries again: what the target does not take now is the next pass's.

use std::collections::VecDeque;
use std::ops::Range;

use crate::consumers::Consumer;
use crate::inngest::EventBatch;
use crate::pipeline::{Disposition, Ports};
use crate::postgres::{Announcement, Ledger, LedgerError};

/// What became of events, by their places.
#[derive(Debug, Default)]
pub struct Sent {
    pub accepted: Vec<usize>,
    pub rejected: Vec<(usize, String)>,
    /// Why the rest was not tried: the target does not take anything now.
    pub stopped: Option<String>,
}

/// Sends them on behalf of a consumer.
pub async fn deliver(ports: &Ports, consumer: Consumer, events: &EventBatch) -> Sent {
    let split = events.split(ports.deliver.limits());
    let mut requests: VecDeque<Range<usize>> = split.requests.into();
    let mut sent = Sent::default();
    let too_large = |place| (place, "larger than one request may be".to_owned());
    sent.rejected.extend(split.oversize.into_iter().map(too_large));
    while let Some(request) = requests.pop_front() {
        let started = tokio::time::Instant::now();
        let in_flight = ports.telemetry.sending(consumer, request.len());
        let answer = ports.deliver.send(events, request.clone()).await;
        drop(in_flight);
        ports.telemetry.answered(consumer, &answer, started.elapsed());
        match Disposition::of_answer(answer) {
            Disposition::Proceed => sent.accepted.extend(request),
            Disposition::Bisect { .. } | Disposition::Hold { .. } if request.len() > 1 => {
                let middle = request.start + request.len() / 2;
                requests.push_front(middle..request.end);
                requests.push_front(request.start..middle);
            }
            Disposition::Bisect { detail, .. } | Disposition::Hold { detail } => {
                sent.rejected.push((request.start, detail));
            }
            Disposition::Retry { detail, .. } | Disposition::StandStill { detail } => {
                sent.stopped = Some(detail);
                break;
            }
        }
    }
    sent
}

/// Sends announcements and marks them; gives how many were accepted, which never will be, and why the rest was not tried.
///
/// # Errors
/// They cannot be marked: they are sent again, with the same ids.
pub async fn announce<'a>(
    ports: &Ports,
    ledger: &dyn Ledger,
    consumer: Consumer,
    announcements: &[&'a Announcement],
) -> Result<(usize, Vec<&'a Announcement>, Option<String>), LedgerError> {
    let now_ms = ports.clock.now_ms();
    let mut events = EventBatch::default();
    for announcement in announcements {
        events.push_announcement(announcement, now_ms);
    }
    let sent = deliver(ports, consumer, &events).await;
    let of = |place: usize| announcements.get(place).copied();
    let ids: Vec<&str> = sent.accepted.iter().filter_map(|place| Some(&*of(*place)?.id)).collect();
    if !ids.is_empty() {
        ledger.announced(&ids).await?;
    }
    let mut dead = Vec::new();
    for (place, detail) in &sent.rejected {
        if let Some(announcement) = of(*place) {
            ledger.announcement_rejected(&announcement.id, detail).await?;
            dead.push(announcement);
        }
    }
    Ok((ids.len(), dead, sent.stopped))
}

/// Whose announcement it is.
pub(super) fn announcer(announcement: &Announcement) -> Consumer {
    if announcement.name.starts_with("loyalty/mission") {
        Consumer::Mission
    } else {
        Consumer::Tier
    }
}

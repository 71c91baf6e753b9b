//! Where the logs end that nobody fetches from.
//!
//! The client learns the end of a log from what it fetches. A partition that is paused or halted is not fetched, and its
//! lag would stand still just when somebody should see it grow. So these are asked for, on the committing thread: it may
//! block for a moment, the polling thread may not.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::rebalance::Context;

/// As often as the client's own statistics come.
pub(super) const EVERY: Duration = Duration::from_secs(5);
/// A commit may wait behind a look-up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks for the ends of all partitions that are not fetched now.
pub(super) fn look(consumer: &BaseConsumer<Context>) {
    let context = consumer.context();
    let unfetched: BTreeSet<_> = {
        let state = context.state();
        let starved = state.assigned.iter().filter(|_| state.short_of_room);
        starved.chain(&state.held).chain(state.halted.keys()).copied().collect()
    };
    for place in unfetched {
        let Some(topic) = context.topics.get(usize::from(place.topic)) else {
            continue;
        };
        match consumer.fetch_watermarks(topic, place.partition, LOOKUP_TIMEOUT) {
            Ok((_begin, end)) => context.telemetry.log_ends([(place, end)]),
            Err(error) => {
                // The others would wait in vain as well.
                tracing::debug!(%error, "the end of a log that is not fetched is not known");
                return;
            }
        }
    }
}

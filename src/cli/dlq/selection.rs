//! Which letters a command is about.

use jiff::Timestamp;

use crate::cli::Usage;
use crate::dead_letters::Queue;
use crate::dead_letters::filed::{Filter, Place};

#[derive(Debug, clap::Args)]
pub(super) struct Selection {
    /// Letters by their places, as `dlq list --each` prints them: `currency/0/17`.
    #[arg(value_name = "PLACE")]
    places: Vec<Place>,
    /// Of this consumer; `decode`: those that nobody could read.
    #[arg(long, value_name = "NAME")]
    consumer: Option<Queue>,
    /// With this reason.
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Of records of this topic, by its name or its table's.
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Written at this time (RFC 3339) or later.
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Written before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// At most so many, those that were written first.
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

impl Selection {
    pub(super) fn filter(&self) -> Filter {
        Filter {
            places: self.places.clone(),
            queue: self.consumer,
            reason: self.reason.clone(),
            topic: self.topic.clone(),
            since_ms: self.since.map(Timestamp::as_millisecond),
            until_ms: self.until.map(Timestamp::as_millisecond),
            limit: self.limit,
        }
    }

    /// For what changes something: what is not said is not meant.
    pub(super) fn narrow(&self) -> Result<Filter, Usage> {
        let filter = self.filter();
        if filter.is_none() {
            let problem = "say which letters: places, --consumer, --reason, --topic, --since or --until";
            return Err(Usage(problem.to_owned()));
        }
        Ok(filter)
    }

    /// The queue to read, if one is enough.
    pub(super) fn queue(&self) -> Option<Queue> {
        let first = self.places.first().map(|place| place.queue);
        let only = first.filter(|first| self.places.iter().all(|place| place.queue == *first));
        self.consumer.or(only)
    }
}

//! How many records of a lane fit one request, learned from how the last one was cut. Pure.
//!
//! A request is bounded in bytes as well as in events. A batch that is too large for one leaves a small request behind a
//! full one, and where latency rules, that halves the lane.

/// One lane's knowledge.
#[derive(Debug)]
pub(super) struct Fit {
    records: usize,
    /// What the first request of the last batch that was cut took.
    cut: usize,
    most: usize,
}

/// What is left free for events that are larger than those of the request that was cut: a sixteenth.
const MARGIN: usize = 16;
const GROWTH: usize = 8;

impl Fit {
    pub(super) const fn at_most(most: usize) -> Self {
        Self {
            records: most,
            cut: most,
            most,
        }
    }

    /// The records to take for the next batch.
    pub(super) const fn records(&self) -> usize {
        self.records
    }

    /// The first request of a batch took `taken` of its `events`. Cut, the next batch is smaller at once. Whole, it is one
    /// larger up to where the last one was cut, so that few are cut while events stay as large as they are; beyond that
    /// they have become smaller, and it is an eighth larger.
    pub(super) fn learn(&mut self, taken: usize, events: usize) {
        if taken < events {
            self.cut = taken;
            self.records = taken.saturating_sub(taken / MARGIN).max(1);
            return;
        }
        let more = if self.records < self.cut {
            1
        } else {
            (self.records / GROWTH).max(1)
        };
        self.records = self.records.saturating_add(more).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_was_cut_makes_the_next_one_fit() {
        let mut fit = Fit::at_most(400);
        assert_eq!(fit.records(), 400);
        fit.learn(372, 400);
        assert_eq!(fit.records(), 349);
        fit.learn(349, 349);
        assert_eq!(fit.records(), 350);
    }

    #[test]
    fn it_never_falls_to_nothing_and_never_grows_beyond_the_most() {
        let mut fit = Fit::at_most(2);
        fit.learn(0, 2);
        assert_eq!(fit.records(), 1);
        for _ in 0..3 {
            fit.learn(1, 1);
        }
        assert_eq!(fit.records(), 2);
    }

    /// How many of so many batches are cut, if so many events fit a request.
    fn cuts(fit: &mut Fit, batches: usize, room: usize) -> usize {
        let mut cuts = 0;
        for _ in 0..batches {
            let events = fit.records();
            cuts += usize::from(events > room);
            fit.learn(events.min(room), events);
        }
        cuts
    }

    #[test]
    fn few_batches_are_cut_while_events_stay_as_they_are_and_a_lane_grows_fast_when_they_become_smaller() {
        let mut fit = Fit::at_most(400);
        assert!(cuts(&mut fit, 240, 372) <= 11);
        cuts(&mut fit, 2, 10);
        assert_eq!(cuts(&mut fit, 40, 400), 0);
        assert_eq!(fit.records(), 400);
    }
}

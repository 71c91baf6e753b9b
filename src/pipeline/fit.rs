//! How many records of a lane fit one request, learned from how the last one was cut. Pure.
//!
//! A request is bounded in bytes as well as in events. A batch that is too large for one leaves a small request behind a
//! full one, and where latency rules, that halves the lane.

/// One lane's knowledge.
#[derive(Debug)]
pub(super) struct Fit {
    records: usize,
    most: usize,
}

/// What is left free for events that are larger than those of the request that was cut: a sixteenth.
const MARGIN: usize = 16;

impl Fit {
    pub(super) const fn at_most(most: usize) -> Self {
        Self { records: most, most }
    }

    /// The records to take for the next batch.
    pub(super) const fn records(&self) -> usize {
        self.records
    }

    /// The first request of a batch took `taken` of its `events`. Cut, the next batch is smaller at once; whole, one larger.
    pub(super) fn learn(&mut self, taken: usize, events: usize) {
        self.records = if taken < events {
            taken.saturating_sub(taken / MARGIN).max(1)
        } else {
            self.records.saturating_add(1).min(self.most)
        };
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
}

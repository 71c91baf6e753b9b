//! How many records of a lane fit one request, learned from the last one. Pure.
//!
//! A request is bounded in bytes as well as in events. A batch that is too large for one leaves a small request behind a
//! full one, and where latency rules, that halves the lane. What goes to Inngest is measured: so many bytes for so many
//! records. What the database can answer at once is only known by trying.

/// One lane's knowledge.
#[derive(Debug)]
pub(super) struct Fit {
    records: usize,
    most: usize,
    /// Of a request, in thousandths: what is left free for events that are larger than the last ones were.
    margin: usize,
    /// What the database answered of the last batch that was too much for it.
    cut: usize,
}

const LEAST_MARGIN: usize = 8;
const MOST_MARGIN: usize = 125;
/// A batch that fills less than a quarter of a request says little about a full one.
const SMALL: usize = 4;
/// What is left free behind a batch that was too much for the database: a sixteenth.
const SPARE: usize = 16;
const GROWTH: usize = 8;

impl Fit {
    pub(super) const fn at_most(most: usize) -> Self {
        Self {
            records: most,
            most,
            margin: LEAST_MARGIN,
            cut: most,
        }
    }

    /// The records to take for the next batch.
    pub(super) const fn records(&self) -> usize {
        self.records
    }

    /// The events of so many records were made, and of `room` they would fill one request. The next batch is as large but for
    /// the margin, which doubles with each batch that had to be cut and wears off while none is.
    pub(super) fn measured(&mut self, records: usize, room: usize) {
        if records < self.records && records <= room / SMALL {
            return;
        }
        self.margin = if records > room {
            self.margin * 2
        } else {
            self.margin - self.margin / SPARE
        };
        self.margin = self.margin.clamp(LEAST_MARGIN, MOST_MARGIN);
        let free = room.saturating_mul(self.margin) / 1000;
        self.records = (room - free).clamp(1, self.most);
    }

    /// The database answered `taken` at once, of a batch of so many. Where it was too much, the next batch is smaller at once.
    /// Else it is one larger up to where the last one was cut, so that few are cut while the database stays as fast as it
    /// is; beyond that it has become faster, and it is an eighth larger.
    pub(super) fn tried(&mut self, taken: usize, all: usize) {
        if taken < all {
            self.cut = taken;
            self.records = taken.saturating_sub(taken / SPARE).max(1);
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
    fn a_batch_that_was_too_much_makes_the_next_one_fit() {
        let mut fit = Fit::at_most(400);
        assert_eq!(fit.records(), 400);
        fit.tried(372, 400);
        assert_eq!(fit.records(), 349);
        fit.tried(349, 349);
        assert_eq!(fit.records(), 350);
    }

    #[test]
    fn it_never_falls_to_nothing_and_never_grows_beyond_the_most() {
        let mut fit = Fit::at_most(2);
        fit.tried(0, 2);
        assert_eq!(fit.records(), 1);
        for _ in 0..3 {
            fit.tried(1, 1);
        }
        assert_eq!(fit.records(), 2);
        fit.measured(2, 0);
        assert_eq!(fit.records(), 1);
        fit.measured(1, 1000);
        assert_eq!(fit.records(), 2);
    }

    /// How many of so many batches are too much, if the database answers so many at once.
    fn cuts(fit: &mut Fit, batches: usize, room: usize) -> usize {
        let mut cuts = 0;
        for _ in 0..batches {
            let all = fit.records();
            cuts += usize::from(all > room);
            fit.tried(all.min(room), all);
        }
        cuts
    }

    #[test]
    fn few_batches_are_cut_while_the_database_stays_as_it_is_and_a_lane_grows_fast_when_it_becomes_faster() {
        let mut fit = Fit::at_most(400);
        assert!(cuts(&mut fit, 240, 372) <= 11);
        cuts(&mut fit, 2, 10);
        assert_eq!(cuts(&mut fit, 40, 400), 0);
        assert_eq!(fit.records(), 400);
    }

    /// The share of all requests' room that is used by so many batches, each with one request, or two where it was cut. `room`
    /// gives that of each batch.
    fn used(fit: &mut Fit, batches: usize, room: impl Fn(usize) -> usize) -> f64 {
        let (mut taken, mut requests) = (0.0, 0.0);
        for batch in 0..batches {
            let (records, room) = (fit.records(), room(batch));
            fit.measured(records, room);
            taken += records as f64 / room as f64;
            requests += if records > room { 2.0 } else { 1.0 };
        }
        taken / requests
    }

    #[test]
    fn events_of_one_size_fill_requests_from_the_second_one_on() {
        let mut fit = Fit::at_most(400);
        fit.measured(400, 325);
        assert!(used(&mut fit, 100, |_| 325) > 0.98);
        // They become smaller, and larger.
        assert!(used(&mut fit, 100, |_| 390) > 0.97);
        assert!(used(&mut fit, 100, |_| 40) > 0.95);
    }

    #[test]
    fn events_whose_sizes_differ_are_cut_now_and_then() {
        for (differ, least) in [(2, 0.96), (10, 0.9), (40, 0.75)] {
            let mut fit = Fit::at_most(400);
            // In no order that could be learned.
            let room = |batch: usize| 300 + batch * 7919 % (2 * differ + 1) - differ;
            let used = used(&mut fit, 1000, room);
            assert!(used > least, "{differ}: {used}");
        }
    }

    #[test]
    fn a_few_records_say_nothing_about_a_full_request() {
        let mut fit = Fit::at_most(400);
        fit.measured(400, 325);
        let records = fit.records();
        fit.measured(1, 60);
        assert_eq!(fit.records(), records);
        // As many as were taken at most: then it is the limit that made them few.
        fit.measured(records, 4 * records + 4);
        assert_eq!(fit.records(), 400);
    }
}

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
    /// The records whose events fill a request, in parts of [`PARTS`].
    room: usize,
    /// What the database answered of the last batch that was too much for it.
    cut: usize,
}

/// Room that turns out larger is believed by so small a part with each batch: the next one may be of larger events again, and
/// a cut costs a whole request.
const PARTS: usize = 32;
/// By this part, if it is larger by a quarter and more: these are events of another kind.
const OTHERS: usize = 4;
/// What is left free for events that are a little larger, in thousandths.
const MARGIN: usize = 8;
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
            room: most * PARTS,
            cut: most,
        }
    }

    /// The records to take for the next batch.
    pub(super) const fn records(&self) -> usize {
        self.records
    }

    /// The events of so many records were made, and of `room` they would fill one request.
    pub(super) fn measured(&mut self, records: usize, room: usize) {
        if records < self.records && records <= room / SMALL {
            return;
        }
        let room = room.min(2 * self.most) * PARTS;
        self.room = match room.checked_sub(self.room) {
            None => room,
            Some(more) if more > self.room / 4 => self.room + more / OTHERS,
            Some(more) => self.room + more / PARTS,
        };
        let full = self.room / PARTS;
        self.records = (full - full * MARGIN / 1000).clamp(1, self.most);
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
        for _ in 0..3 {
            fit.measured(1, 1000);
        }
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

    /// The share of all requests' room that is used by so many batches.
    fn used(fit: &mut Fit, batches: usize, mut room: impl FnMut() -> usize) -> f64 {
        let (mut taken, mut requests) = (0.0, 0);
        for _ in 0..batches {
            let (records, room) = (fit.records(), room());
            fit.measured(records, room);
            taken += records as f64 / room as f64;
            requests += records.div_ceil(room);
        }
        taken / requests as f64
    }

    #[test]
    fn events_of_one_size_fill_requests_from_the_second_one_on() {
        let mut fit = Fit::at_most(400);
        fit.measured(400, 325);
        assert!(used(&mut fit, 100, || 325) > 0.98);
        // They become a little smaller, and much larger.
        used(&mut fit, 100, || 390);
        assert!(used(&mut fit, 10, || 390) > 0.97);
        assert!(used(&mut fit, 100, || 40) > 0.9);
        // Much smaller again.
        assert!(used(&mut fit, 20, || 400) > 0.6);
        used(&mut fit, 100, || 400);
        assert!(used(&mut fit, 10, || 400) > 0.97);
    }

    #[test]
    fn events_whose_sizes_differ_are_cut_now_and_then() {
        for (differ, least) in [(3, 0.97), (10, 0.92), (40, 0.78)] {
            let mut fit = Fit::at_most(400);
            let mut random = fastrand::Rng::with_seed(7);
            let used = used(&mut fit, 1000, || random.usize(300 - differ..=300 + differ));
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

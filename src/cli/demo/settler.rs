//! A model of the workflows that settle awards: what they book of the events that were accepted.
//!
//! Takes awards in an order of execution, gives what is in the wallet afterwards. Every award carries the absolute target, so
//! it applies the target unless a newer state of the purchase was applied already, and books the difference to what is booked.
//! The functions in Postgres compare with the row itself; here the newest commit time seen stands for it, and every award is
//! due at once: more is booked and taken back on the way, and the end must be the same. Nothing here knows a label.

/// An award that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Award {
    /// The number of the purchase.
    pub(super) purchase: u32,
    pub(super) as_of_ms: i64,
    pub(super) target: i64,
}

/// What one execution did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The difference; 0 if everything was booked before.
    Booked(i64),
    /// A newer state had been applied.
    Stale,
}

/// What was booked in one order of execution.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Settled {
    /// Rows of the wallet ledger that it wrote.
    pub(super) entries: u64,
    pub(super) earned: i64,
    pub(super) taken_back: i64,
    pub(super) stale: u64,
    /// By purchase.
    purchases: Vec<State>,
    /// Every execution for the purchase that is watched, with the award's time.
    pub(super) watched: Vec<(i64, Outcome)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    as_of_ms: i64,
    booked: i64,
}

/// What two orders of execution came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settlement {
    pub(super) in_order: Settled,
    pub(super) shuffled: Settled,
    /// The sum of the targets of the final rows.
    pub(super) targets: i64,
    /// Purchases that ended at something else than their final target, by order.
    pub(super) astray: [u64; 2],
}

impl Settlement {
    /// `awards` in the order of acceptance; `targets` of the final rows, by purchase.
    pub(super) fn of(awards: &[Award], targets: &[i64], seed: u64, watched: u32) -> Self {
        let in_order = Settled::of(awards, watched);
        let mut awards = awards.to_vec();
        fastrand::Rng::with_seed(seed).shuffle(&mut awards);
        let shuffled = Settled::of(&awards, watched);
        Self {
            astray: [in_order.astray(targets), shuffled.astray(targets)],
            in_order,
            shuffled,
            targets: targets.iter().sum(),
        }
    }

    pub(super) const fn is_even(&self) -> bool {
        self.astray[0] == 0 && self.astray[1] == 0
    }
}

impl Settled {
    /// Executes the awards one after another.
    pub(super) fn of(awards: &[Award], watched: u32) -> Self {
        let mut settled = Self::default();
        for award in awards {
            let outcome = settled.settle(award);
            if award.purchase == watched {
                settled.watched.push((award.as_of_ms, outcome));
            }
        }
        settled
    }

    fn settle(&mut self, award: &Award) -> Outcome {
        let at = award.purchase as usize;
        if self.purchases.len() <= at {
            let untouched = State {
                as_of_ms: i64::MIN,
                booked: 0,
            };
            self.purchases.resize(at + 1, untouched);
        }
        let state = &mut self.purchases[at];
        if award.as_of_ms < state.as_of_ms {
            self.stale += 1;
            return Outcome::Stale;
        }
        let difference = award.target - state.booked;
        *state = State {
            as_of_ms: award.as_of_ms,
            booked: award.target,
        };
        self.entries += u64::from(difference != 0);
        self.earned += difference.max(0);
        self.taken_back -= difference.min(0);
        Outcome::Booked(difference)
    }

    pub(super) fn booked(&self, purchase: u32) -> i64 {
        self.purchases.get(purchase as usize).map_or(0, |state| state.booked)
    }

    /// The balance of all members together.
    pub(super) fn balance(&self) -> i64 {
        self.earned - self.taken_back
    }

    /// Purchases that ended at something else than their final target.
    pub(super) fn astray(&self, targets: &[i64]) -> u64 {
        let of = |values: usize| u32::try_from(values).unwrap_or(u32::MAX);
        let purchases = 0..of(targets.len().max(self.purchases.len()));
        let astray = |purchase: &u32| {
            let target = targets.get(*purchase as usize).copied().unwrap_or(0);
            self.booked(*purchase) != target
        };
        purchases.filter(astray).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn awards(of: &[(u32, i64, i64)]) -> Vec<Award> {
        let award = |&(purchase, as_of_ms, target)| Award {
            purchase,
            as_of_ms,
            target,
        };
        of.iter().map(award).collect()
    }

    #[test]
    fn a_refund_in_two_steps_books_the_differences_and_a_repeat_books_nothing() {
        let settled = Settled::of(&awards(&[(0, 1, 100), (0, 2, 60), (0, 2, 60), (0, 3, 0)]), 0);
        let booked = settled.watched.iter().map(|(_, outcome)| *outcome);
        let expected = [100, -40, 0, -60].map(Outcome::Booked);
        assert_eq!(booked.collect::<Vec<_>>(), expected);
        assert_eq!((settled.entries, settled.earned, settled.taken_back), (3, 100, 100));
        assert_eq!((settled.balance(), settled.astray(&[0])), (0, 0));
    }

    #[test]
    fn every_order_ends_at_the_newest_target() {
        let mut all = awards(&[(0, 1, 100), (0, 2, 60), (0, 3, 0), (1, 5, 7), (1, 6, 9), (1, 6, 9)]);
        let mut random = fastrand::Rng::with_seed(1);
        let mut balances = std::collections::BTreeSet::new();
        for _ in 0..200 {
            random.shuffle(&mut all);
            let settled = Settled::of(&all, 0);
            assert_eq!((settled.balance(), settled.astray(&[0, 9])), (9, 0), "{all:?}");
            balances.insert(settled.taken_back);
        }
        assert!(balances.len() > 1, "the ways differ");
    }

    #[test]
    fn what_was_lost_or_made_up_leads_astray() {
        let settled = Settled::of(&awards(&[(0, 1, 100), (2, 1, 5)]), 0);
        assert_eq!(settled.astray(&[100, 0, 5]), 0);
        assert_eq!(settled.astray(&[60, 7]), 3);
        assert!(!Settlement::of(&awards(&[(0, 1, 100)]), &[60], 1, 0).is_even());
    }
}

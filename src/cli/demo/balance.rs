//! The balance of the books: what the checker counted, and whether it is even. It counts nothing by itself.

use super::label::Ledger;

/// A consumer, in the words of the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reader {
    Currency,
    Tier,
    Mission,
    Reward,
    Marketplace,
}

/// What one change may lead to, each once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// The award, the grant, the redemption.
    Target,
    /// The grant on the other side of a referral.
    Referee,
    Tier,
    Mission,
}

/// What no label allows: counted, and the first few told.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Unexpected {
    pub(super) count: u64,
    pub(super) examples: Vec<String>,
}

/// Accepted events of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) count: u64,
    /// The effect key of the first of them.
    pub(super) example: String,
}

/// One award as it was accepted, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) id: String,
    pub(super) merchant: String,
    pub(super) status: String,
    pub(super) amount: String,
    pub(super) refunded: String,
    pub(super) points: String,
    pub(super) due_at: String,
}

/// The balance of one consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Account {
    pub(super) eligible: u64,
    pub(super) delivered: u64,
    pub(super) superseded: u64,
    pub(super) lost: u64,
    pub(super) resent: u64,
    pub(super) doubled: u64,
    /// Rows whose last accepted state is not their final one.
    pub(super) stale: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Balance {
    pub(super) produced: u64,
    pub(super) accounts: Vec<(Reader, Account)>,
    /// Poison records produced.
    pub(super) poison: u64,
    /// Records that have a dead letter, each counted once.
    pub(super) dead_lettered: u64,
    /// Letters of a record that has one already: a crash between the letter and the commit repeats it.
    pub(super) repeated_letters: u64,
    /// Poison records without a dead letter: skipped in silence.
    pub(super) unburied: u64,
    pub(super) unexpected: Unexpected,
    pub(super) kinds: Vec<(&'static str, Kind)>,
    pub(super) samples: Vec<Sample>,
}

const EXAMPLES: usize = 5;

impl Unexpected {
    pub(super) fn note(&mut self, what: String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(what);
        }
    }
}

impl Reader {
    pub(super) const ALL: [Self; 5] = [
        Self::Currency,
        Self::Tier,
        Self::Mission,
        Self::Reward,
        Self::Marketplace,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Currency => "currency",
            Self::Tier => "tier",
            Self::Mission => "mission",
            Self::Reward => "reward",
            Self::Marketplace => "marketplace",
        }
    }

    /// What a change of that ledger may lead to here; nothing if it is not read.
    pub(super) const fn slots(self, ledger: Ledger) -> &'static [Slot] {
        match (self, ledger) {
            (Self::Currency, Ledger::Purchases)
            | (Self::Reward, Ledger::Claims)
            | (Self::Marketplace, Ledger::Codes) => &[Slot::Target],
            (Self::Reward, Ledger::Referrals) => &[Slot::Target, Slot::Referee],
            (Self::Tier, Ledger::Purchases | Ledger::Wallet) => &[Slot::Tier],
            (Self::Mission, Ledger::Purchases | Ledger::Forms) => &[Slot::Mission],
            (Self::Currency | Self::Tier | Self::Mission | Self::Reward | Self::Marketplace, _) => &[],
        }
    }
}

impl Balance {
    pub(super) fn sum(&self, of: impl Fn(&Account) -> u64) -> u64 {
        self.accounts.iter().map(|(_, account)| of(account)).sum()
    }

    /// What must come out and did not, and poison that was skipped in silence.
    pub(super) fn lost(&self) -> u64 {
        self.sum(|account| account.lost) + self.unburied
    }

    pub(super) fn doubled(&self) -> u64 {
        self.sum(|account| account.doubled)
    }

    pub(super) fn balances(&self) -> bool {
        let stale = self.sum(|account| account.stale);
        let even = |account: &Account| account.eligible == account.delivered + account.superseded + account.lost;
        self.lost() + self.doubled() + stale + self.unexpected.count == 0
            && self.accounts.iter().all(|(_, account)| even(account))
            && self.dead_lettered == self.poison
    }
}

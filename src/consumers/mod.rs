//! Stage 5, decide: takes a [`RowChange`], the program rules and the time, gives a [`Decision`] as data, with a reason.
//!
//! One file a consumer. It never does I/O, never reads a clock (`now` only decides "already due"), never counts.

mod reason;

pub use reason::{Reason, Refusal};

use crate::dedupe::ClaimKey;
use crate::inngest::Event;
use crate::rows::Table;

/// A logical consumer. All of them share one Kafka membership; each has its own lanes and its own progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Consumer {
    Currency,
    Tier,
    Mission,
}

/// What one consumer does with one row change.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Nothing to do; done at once.
    Ignore(Reason),
    Deliver(Effect),
    /// Cannot be decided, whatever is tried: dead letter.
    Refuse(Refusal),
}

/// Something that must reach Inngest.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    /// Names the business fact, e.g. `award:<purchase>`; components escaped.
    pub key: EffectKey,
    /// Names this change of it; dedupe and the event's `id`.
    pub claim: ClaimKey,
    /// Whether a newer effect of the same key in the same batch makes this one needless.
    pub state_like: bool,
    pub event: Event,
    pub reason: Reason,
}

/// `award:<purchase>`, `tier:<merchant>:<user>`, `mission:<merchant>:<user>:...`: one row in `effects` some day.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct EffectKey(pub Box<str>);

impl Consumer {
    pub const ALL: [Self; 3] = [Self::Currency, Self::Tier, Self::Mission];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Currency => "currency",
            Self::Tier => "tier",
            Self::Mission => "mission",
        }
    }

    /// Whether this consumer reads the table.
    #[must_use]
    pub const fn reads(self, table: Table) -> bool {
        match self {
            Self::Currency => matches!(table, Table::PurchaseLedger),
            Self::Tier => matches!(table, Table::PurchaseLedger | Table::WalletLedger),
            Self::Mission => matches!(table, Table::PurchaseLedger | Table::FormSubmissions),
        }
    }
}

//! What the generator says must come out of a record, in its own words: the left side of the books.

/// A table of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ledger {
    Purchases,
    Wallet,
    Forms,
}

/// What must come of one record.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Label {
    /// Nothing: no row of anybody.
    Nothing,
    /// Nothing new: the connector repeats itself.
    Repeat,
    /// A dead letter in that queue, and nothing else.
    Poison(&'static str),
    Change(Change),
}

/// One change of one row. `None` and false mean that nothing may come of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change {
    pub(super) ledger: Ledger,
    /// Rows of a ledger are numbered from 0.
    pub(super) row: u32,
    pub(super) user: u32,
    /// The place in the list of merchants.
    pub(super) merchant: u8,
    pub(super) lsn: u64,
    /// Differs from every other commit time of the same row.
    pub(super) commit_ms: i64,
    pub(super) award: Option<Award>,
    /// The metric whose sum this change may have moved.
    pub(super) tier: Option<&'static str>,
    pub(super) mission: Option<Counted>,
}

/// The state an award must converge to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Award {
    pub(super) points: i64,
    /// `None` with zero points.
    pub(super) due_us: Option<i64>,
}

/// What a row counts for a mission, in hundredths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) mission: &'static str,
    pub(super) hundredths: i64,
}

impl Ledger {
    pub(super) const ALL: [Self; 3] = [Self::Purchases, Self::Wallet, Self::Forms];

    pub(super) const fn table(self) -> &'static str {
        match self {
            Self::Purchases => "purchase_ledger",
            Self::Wallet => "wallet_ledger",
            Self::Forms => "form_submissions",
        }
    }

    const fn prefix(self) -> &'static str {
        match self {
            Self::Purchases => "p-",
            Self::Wallet => "w-",
            Self::Forms => "f-",
        }
    }

    /// The id of a row: its number, so that the books need no texts.
    pub(super) fn row_id(self, row: u32) -> String {
        format!("{}{row:08}", self.prefix())
    }

    /// The number of a row.
    pub(super) fn row_of(self, id: &str) -> Option<u32> {
        id.strip_prefix(self.prefix())?.parse().ok()
    }
}

//! What the generator says must come out of a record, in its own words: the left side of the books.

/// A table of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ledger {
    Purchases,
    Wallet,
    Forms,
    Claims,
    Referrals,
    Codes,
}

/// What must come of one record.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Label {
    /// Nothing: no row of anybody.
    Nothing,
    /// Nothing new: the connector repeats itself.
    Repeat,
    /// A dead letter in that queue, and nothing else, if anybody reads the ledger.
    Poison(Ledger, &'static str),
    Change(Change),
}

/// One change of one row. `None` means that nothing may come of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change {
    pub(super) ledger: Ledger,
    /// Rows of a ledger are numbered from 0.
    pub(super) row: u32,
    /// The member, or nobody; beside a referrer the referee.
    pub(super) users: [Option<u32>; 2],
    /// The place in the list of merchants.
    pub(super) merchant: u8,
    pub(super) lsn: u64,
    /// Differs from every other commit time of the same row.
    pub(super) commit_ms: i64,
    /// Of the award, of the grant (on both sides of a referral), or of the redemption.
    pub(super) target: Option<Target>,
    /// The metric whose sum this change may have moved.
    pub(super) tier: Option<&'static str>,
    pub(super) mission: Option<Counted>,
}

/// The state a fact must converge to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    /// Points; 1 or 0 of what is granted or redeemed.
    pub(super) amount: i64,
    /// `None` with zero points, and of what has no due time.
    pub(super) due_us: Option<i64>,
}

/// What a row counts for a mission, in hundredths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) mission: &'static str,
    pub(super) hundredths: i64,
}

/// The row of the purchase whose story the report tells: completed, refunded in part, refunded.
pub(super) const STORY: u32 = 0;

/// Every voucher code begins like this. No event may hold it.
pub(super) const CODE: &str = "SECRET-";

impl Ledger {
    pub(super) const ALL: [Self; 6] = [
        Self::Purchases,
        Self::Wallet,
        Self::Forms,
        Self::Claims,
        Self::Referrals,
        Self::Codes,
    ];

    pub(super) const fn table(self) -> &'static str {
        match self {
            Self::Purchases => "purchase_ledger",
            Self::Wallet => "wallet_ledger",
            Self::Forms => "form_submissions",
            Self::Claims => "mission_claims",
            Self::Referrals => "referral_ledger",
            Self::Codes => "codes",
        }
    }

    const fn prefix(self) -> &'static str {
        match self {
            Self::Purchases => "p-",
            Self::Wallet => "w-",
            Self::Forms => "f-",
            Self::Claims => "c-",
            Self::Referrals => "r-",
            Self::Codes => "v-",
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

/// The mission a claim is of.
pub(super) const fn claimed_mission(claim: u32) -> &'static str {
    ["spend-100", "welcome-form", "three-visits"][claim as usize % 3]
}

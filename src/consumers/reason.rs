//! Why a decision is what it is: a closed list, written the same in events, metrics, logs and dead letters.

/// Declares the reasons with their texts once, so that text and variant cannot drift apart.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Every reason for which nothing is sent, or something is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    // Nothing is looked at.
    /// The consumer does not read this table.
    NotInterested = "not_interested",
    /// The row was created before the cut-off.
    BeforeCutOff = "before_cut_off",

    // Why a target is zero.
    Pending = "pending",
    Refunded = "refunded",
    Cancelled = "cancelled",
    /// `earn_currency` is false.
    EarnsNothing = "earns_nothing",
    /// The amount is zero or negative, or all of it is refunded although the status does not say so.
    NothingRemains = "nothing_remains",
    BelowMinimum = "below_minimum",
    /// The remaining amount is rounded to no points.
    ZeroPoints = "zero_points",
    NoProgram = "no_program",
    /// The merchant's first rule version begins after the time of the row.
    NoVersionYet = "no_version_yet",
    NoCurrencyRule = "no_currency_rule",
    /// The target is zero and `before` proves that it was zero already.
    WasZeroBefore = "was_zero_before",

    // Why a target is announced.
    /// Immediate activation.
    DueNow = "due_now",
    /// A later activation whose time has passed.
    AlreadyDue = "already_due",
    Scheduled = "scheduled",
    /// `before` equals the row in every column the decision reads.
    UnchangedBasis = "unchanged_basis",

    // What the table `effects` proves.
    /// Settled just so, or by newer rules.
    InEffects = "in_effects",
    /// The target is zero, and nothing was ever settled of this fact.
    ZeroInEffects = "zero_in_effects",

    // Tiers.
    NoTierLadder = "no_tier_ladder",
    /// A wallet row where tiers look at spend, or a purchase where they look at points.
    NotInMetric = "not_in_metric",
    /// Nothing of this row counts, before or after.
    CannotChangeMetric = "cannot_change_metric",
    SpendMayHaveChanged = "spend_may_have_changed",
    PointsMayHaveChanged = "points_may_have_changed",

    // Missions.
    NoMissionConcerned = "no_mission_concerned",
    /// A new row of which nothing counts.
    NothingCounted = "nothing_counted",
    Counted = "counted",
    /// The row no longer counts, or may have counted before.
    CountsNoLonger = "counts_no_longer",

    // Rewards; a referral that is not qualified is pending or cancelled.
    Claimed = "claimed",
    Revoked = "revoked",
    Qualified = "qualified",
    /// Referrer and referee are one member.
    SelfReferral = "self_referral",

    // Codes.
    Redeemed = "redeemed",
    NotRedeemed = "not_redeemed",
    Expired = "expired",
    Void = "void",
    /// It was redeemed and is not any more: what was fulfilled stays.
    RedeemedBefore = "redeemed_before",
}

/// Why a row cannot be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    #[error("the amount times the rate does not fit into whole points")]
    PointsOverflow,
    #[error("the amounts cannot be subtracted without rounding")]
    AmountTooPrecise,
    #[error("refunded_amount is negative")]
    NegativeRefund,
    #[error("the due time lies beyond the year 9999")]
    DueTimeOutOfRange,
    #[error("a ledger row was deleted or truncated")]
    LedgerRewritten,
}

impl Refusal {
    /// The reason code of the dead letter.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::PointsOverflow => "points_overflow",
            Self::AmountTooPrecise => "amount_too_precise",
            Self::NegativeRefund => "negative_refund",
            Self::DueTimeOutOfRange => "due_time_out_of_range",
            Self::LedgerRewritten => "ledger_rewritten",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

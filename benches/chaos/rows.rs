//! The rows of the load: takes dice, gives the states that a row of each ledger goes through, and what each of them is worth.
//!
//! What a state is worth is worked out here anew, so that the checker shares no rule with the worker. No I/O.

use jiff::Timestamp;

/// A ledger that the load writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Ledger {
    Purchases,
    Forms,
    Claims,
    Referrals,
    Codes,
    Wallet,
}

/// One state of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Image {
    Purchase(Purchase),
    Form(Place),
    Claim(Place, Claim),
    Referral(Place, Referral),
    Code(Place, Option<i64>),
    /// An entry that the application makes itself: points spent, or given by hand.
    Entry(Place, i64),
}

/// Which row, of whom, since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) row: u32,
    pub(crate) merchant: usize,
    pub(crate) user: u32,
    pub(crate) at_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Purchase {
    pub(crate) place: Place,
    pub(crate) cents: i64,
    pub(crate) refunded: i64,
    pub(crate) status: Status,
    pub(crate) earns: bool,
    pub(crate) completed_ms: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Pending,
    Completed,
    PartiallyRefunded,
    Refunded,
    Cancelled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    Claimed,
    Revoked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Referral {
    Pending,
    Qualified,
    Cancelled,
}

/// A merchant and its rules.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Merchant {
    pub(crate) id: &'static str,
    /// Points for a hundred units.
    pub(crate) percent: i64,
    /// One version of the program, as the database keeps it.
    pub(crate) rules: &'static str,
}

/// The first settles at once and takes everything back; the second takes back what is left, and raises tiers at the start of
/// a month; the third waits for thirty days.
pub(crate) const MERCHANTS: [Merchant; 3] = [
    Merchant {
        id: "m-now",
        percent: 100,
        rules: r#"{"currency": {"rate": "1", "rounding": "floor", "minimum": "0", "activation": {"kind": "immediate"}},
            "tiers": {"ladder": [{"name": "silver", "threshold": "500"}, {"name": "gold", "threshold": "2000"}],
                      "metric": "spend", "window": {"kind": "lifetime"}, "timing": "immediate"},
            "missions": [{"id": "count", "trigger": {"kind": "purchase_count"}, "target": "5", "period": "lifetime"},
                         {"id": "spend", "trigger": {"kind": "purchase_total"}, "target": "1000", "period": "lifetime"},
                         {"id": "form", "trigger": {"kind": "form", "form_id": "welcome"}, "target": "1", "period": "lifetime"}],
            "refund_policy": "unlimited"}"#,
    },
    Merchant {
        id: "m-month",
        percent: 50,
        rules: r#"{"currency": {"rate": "0.5", "rounding": "floor", "minimum": "0", "activation": {"kind": "immediate"}},
            "tiers": {"ladder": [{"name": "silver", "threshold": "200"}, {"name": "gold", "threshold": "1000"}],
                      "metric": "points", "window": {"kind": "lifetime"}, "timing": "start_of_next_month"},
            "missions": [{"id": "count", "trigger": {"kind": "purchase_count"}, "target": "5", "period": "lifetime"},
                         {"id": "spend", "trigger": {"kind": "purchase_total"}, "target": "1000", "period": "lifetime"},
                         {"id": "form", "trigger": {"kind": "form", "form_id": "welcome"}, "target": "1", "period": "lifetime"}],
            "refund_policy": "within_balance"}"#,
    },
    Merchant {
        id: "m-later",
        percent: 100,
        rules: r#"{"currency": {"rate": "1", "rounding": "floor", "minimum": "0",
                         "activation": {"kind": "rolling_days", "days": 30}},
            "missions": [{"id": "count", "trigger": {"kind": "purchase_count"}, "target": "5", "period": "lifetime"},
                         {"id": "spend", "trigger": {"kind": "purchase_total"}, "target": "1000", "period": "lifetime"},
                         {"id": "form", "trigger": {"kind": "form", "form_id": "welcome"}, "target": "1", "period": "lifetime"}],
            "refund_policy": "only_pending"}"#,
    },
];

impl Ledger {
    pub(crate) const ALL: [Self; 6] = [
        Self::Purchases,
        Self::Forms,
        Self::Claims,
        Self::Referrals,
        Self::Codes,
        Self::Wallet,
    ];

    pub(crate) const fn table(self) -> &'static str {
        match self {
            Self::Purchases => "purchase_ledger",
            Self::Forms => "form_submissions",
            Self::Claims => "mission_claims",
            Self::Referrals => "referral_ledger",
            Self::Codes => "codes",
            Self::Wallet => "wallet_ledger",
        }
    }

    pub(crate) fn row_id(self, row: u32) -> String {
        let letter = match self {
            Self::Purchases => 'p',
            Self::Forms => 'f',
            Self::Claims => 'g',
            Self::Referrals => 'r',
            Self::Codes => 'c',
            Self::Wallet => 'w',
        };
        format!("{letter}-{row:08}")
    }

    /// The ids of its events begin so: one for each business fact of a row.
    pub(crate) const fn facts(self) -> &'static [&'static str] {
        match self {
            Self::Purchases => &["currency:award"],
            Self::Claims => &["reward:grant"],
            Self::Referrals => &["reward:grant_referrer", "reward:grant_referee"],
            Self::Codes => &["marketplace:fulfil"],
            // They lead to evaluations, which the database announces.
            Self::Forms | Self::Wallet => &[],
        }
    }
}

impl Image {
    pub(crate) const fn ledger(&self) -> Ledger {
        match self {
            Self::Purchase(_) => Ledger::Purchases,
            Self::Form(_) => Ledger::Forms,
            Self::Claim(..) => Ledger::Claims,
            Self::Referral(..) => Ledger::Referrals,
            Self::Code(..) => Ledger::Codes,
            Self::Entry(..) => Ledger::Wallet,
        }
    }

    pub(crate) const fn place(&self) -> &Place {
        match self {
            Self::Purchase(purchase) => &purchase.place,
            Self::Form(place)
            | Self::Claim(place, _)
            | Self::Referral(place, _)
            | Self::Code(place, _)
            | Self::Entry(place, _) => place,
        }
    }

    pub(crate) fn id(&self) -> String {
        self.ledger().row_id(self.place().row)
    }

    /// The absolute target of its facts: points, or whether something is granted.
    pub(crate) fn target(&self) -> i64 {
        match self {
            Self::Purchase(purchase) => purchase.target(),
            Self::Claim(_, claim) => i64::from(*claim == Claim::Claimed),
            Self::Referral(_, referral) => i64::from(*referral == Referral::Qualified),
            Self::Code(_, redeemed) => i64::from(redeemed.is_some()),
            Self::Form(_) | Self::Entry(..) => 0,
        }
    }

    /// As the connector writes it, and as the table takes it.
    pub(crate) fn json(&self) -> String {
        let (id, place) = (self.id(), self.place());
        let (merchant, user, at) = (MERCHANTS[place.merchant].id, user(place.user), time(place.at_ms));
        let own = match self {
            Self::Purchase(purchase) => return purchase.json(&id, merchant, &user),
            Self::Form(_) => format!("\"form_id\":\"welcome\",\"user_id\":\"{user}\",\"submitted_at\":\"{at}\""),
            Self::Claim(_, claim) => {
                let status = if *claim == Claim::Claimed { "claimed" } else { "revoked" };
                format!(
                    "\"user_id\":\"{user}\",\"mission_id\":\"count\",\"status\":\"{status}\",\"period\":null,\"claimed_at\":\"{at}\""
                )
            }
            Self::Referral(_, referral) => {
                let status = match referral {
                    Referral::Pending => "pending",
                    Referral::Qualified => "qualified",
                    Referral::Cancelled => "cancelled",
                };
                // Every friend is referred once.
                let friend = format!("friend-{:08}", place.row);
                format!(
                    "\"referrer_user_id\":\"{user}\",\"referee_user_id\":\"{friend}\",\"status\":\"{status}\",\"created_at\":\"{at}\""
                )
            }
            Self::Code(_, redeemed) => {
                let status = if redeemed.is_some() { "redeemed" } else { "issued" };
                let redeemed = redeemed.map_or_else(|| "null".to_owned(), |at_ms| format!("\"{}\"", time(at_ms)));
                format!(
                    "\"code\":\"SECRET-{}\",\"status\":\"{status}\",\"user_id\":\"{user}\",\"redeemed_at\":{redeemed}",
                    place.row
                )
            }
            Self::Entry(_, amount) => {
                let kind = if *amount < 0 { "spend" } else { "adjust" };
                format!(
                    "\"user_id\":\"{user}\",\"amount\":{amount},\"kind\":\"{kind}\",\"source_type\":\"app\",\
                     \"source_id\":null,\"created_at\":\"{at}\""
                )
            }
        };
        format!("{{\"id\":\"{id}\",\"merchant_id\":\"{merchant}\",{own}}}")
    }

    /// What may become of it, by the dice; nothing, if it stays.
    pub(crate) fn next(&self, dice: &mut fastrand::Rng, now_ms: i64) -> Option<Self> {
        let chance = dice.u32(..100);
        match self {
            Self::Purchase(purchase) => purchase.next(chance, now_ms).map(Self::Purchase),
            Self::Claim(place, Claim::Claimed) if chance < 15 => Some(Self::Claim(*place, Claim::Revoked)),
            Self::Claim(place, Claim::Revoked) if chance < 30 => Some(Self::Claim(*place, Claim::Claimed)),
            Self::Referral(place, Referral::Pending) if chance < 90 => {
                Some(Self::Referral(*place, Referral::Qualified))
            }
            Self::Referral(place, _) if chance < 10 => {
                Some(Self::Referral(*place, Referral::Cancelled)).filter(|next| next != self)
            }
            Self::Code(place, None) if chance < 90 => Some(Self::Code(*place, Some(now_ms))),
            Self::Form(_) | Self::Claim(..) | Self::Referral(..) | Self::Code(..) | Self::Entry(..) => None,
        }
    }
}

impl Purchase {
    fn remaining(&self) -> i64 {
        match self.status {
            Status::Completed | Status::PartiallyRefunded => (self.cents - self.refunded).max(0),
            Status::Pending | Status::Refunded | Status::Cancelled => 0,
        }
    }

    fn target(&self) -> i64 {
        // Cents times points for a hundred units, rounded down.
        let points = self.remaining() * MERCHANTS[self.place.merchant].percent / 10_000;
        if self.earns { points } else { 0 }
    }

    fn next(&self, chance: u32, now_ms: i64) -> Option<Self> {
        let with = |status, refunded| Self {
            status,
            refunded,
            completed_ms: self.completed_ms.or(Some(now_ms)),
            ..*self
        };
        match self.status {
            Status::Pending if chance < 85 => Some(with(Status::Completed, 0)),
            Status::Pending => Some(Self {
                status: Status::Cancelled,
                ..*self
            }),
            Status::Completed if chance < 15 => Some(with(Status::PartiallyRefunded, self.cents / 3)),
            Status::Completed if chance < 22 => Some(with(Status::Refunded, self.cents)),
            Status::PartiallyRefunded if chance < 40 => Some(with(Status::Refunded, self.cents)),
            // Completed again.
            Status::Refunded if chance < 40 => Some(with(Status::Completed, 0)),
            Status::Completed | Status::PartiallyRefunded | Status::Refunded | Status::Cancelled => None,
        }
    }

    fn json(&self, id: &str, merchant: &str, user: &str) -> String {
        let status = match self.status {
            Status::Pending => "pending",
            Status::Completed => "completed",
            Status::PartiallyRefunded => "partially_refunded",
            Status::Refunded => "refunded",
            Status::Cancelled => "cancelled",
        };
        let money = |cents: i64| format!("{}.{:02}", cents / 100, cents % 100);
        let completed = self
            .completed_ms
            .map_or_else(|| "null".to_owned(), |at| format!("\"{}\"", time(at)));
        format!(
            "{{\"id\":\"{id}\",\"user_id\":\"{user}\",\"merchant_id\":\"{merchant}\",\"final_amount\":\"{}\",\
             \"refunded_amount\":\"{}\",\"status\":\"{status}\",\"earn_currency\":{},\"created_at\":\"{}\",\
             \"completed_at\":{completed},\"metadata\":null}}",
            money(self.cents),
            money(self.refunded),
            self.earns,
            time(self.place.at_ms),
        )
    }
}

pub(crate) fn user(user: u32) -> String {
    format!("u-{user:06}")
}

fn time(at_ms: i64) -> String {
    Timestamp::from_millisecond(at_ms).map_or_else(|_outside| String::new(), |at| format!("{at:.3}"))
}

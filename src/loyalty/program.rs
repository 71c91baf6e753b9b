//! Programs: takes the text of a program file, gives the rule version in force for a merchant at a time.
//!
//! A program has versions; the one in force when a purchase was earned decides, so editing the rules never changes what
//! an older purchase earns. It never holds an invalid program: [`Programs::from_json`] is the only way in.

use std::sync::Arc;

use foldhash::HashMap;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;

use super::{Activation, Period, ProgramErrors, Rounding, program_file};
use crate::rows::{FormId, MerchantId};

/// All programs, by merchant, and the default (`"*"`) for merchants that are not listed.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    pub(super) by_merchant: HashMap<MerchantId, Program>,
    pub(super) default: Option<Program>,
}

#[derive(Debug, Clone)]
pub struct Program {
    pub(super) zone: TimeZone,
    /// Ascending in `rev` and `effective_from`.
    pub(super) versions: Vec<Version>,
}

/// The rules of one merchant from `effective_from` until the next version begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// At least 1, increasing per merchant; 0 means "no version" in events.
    pub rev: u32,
    pub effective_from: Timestamp,
    pub currency: Option<CurrencyRule>,
    /// Shared, because every evaluation carries it on.
    pub tiers: Option<Arc<TierRule>>,
    pub missions: Vec<Mission>,
    pub refund_policy: RefundPolicy,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CurrencyRule {
    /// Points for one unit of the currency.
    pub rate: Decimal,
    pub rounding: Rounding,
    /// The smallest remaining amount that earns anything.
    pub minimum: Decimal,
    pub activation: Activation,
}

#[derive(Debug, Clone, PartialEq)]
pub struct TierRule {
    /// Ascending in `threshold`, never empty.
    pub ladder: Vec<Tier>,
    pub metric: Metric,
    pub window: Window,
    pub timing: Timing,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Tier {
    pub name: Box<str>,
    pub threshold: Decimal,
}

/// What is summed up to reach a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    Spend,
    Points,
}

/// Over which time it is summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    RollingMonths(u32),
    CalendarYear,
    Lifetime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Timing {
    Immediate,
    StartOfNextMonth,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Mission {
    pub id: Box<str>,
    pub trigger: Trigger,
    /// An amount for [`Trigger::PurchaseTotal`], a whole number of rows otherwise.
    pub target: Decimal,
    pub period: Period,
}

/// Which rows a mission counts, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trigger {
    PurchaseTotal,
    PurchaseCount,
    Form(FormId),
}

/// How far a refund may take points back that are already spendable. Settled where the booking is made, not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundPolicy {
    OnlyPending,
    WithinBalance,
    Unlimited,
}

/// The answer of [`Programs::version_at`].
#[derive(Debug)]
pub enum Lookup<'a> {
    Found(&'a Version, &'a TimeZone),
    /// Neither the merchant nor a default is listed.
    NoProgram,
    /// The merchant's first version begins later.
    NoVersionYet,
}

impl Programs {
    /// # Errors
    /// Every problem of the file at once, each with its path and what to do.
    pub fn from_json(text: &str) -> Result<Self, ProgramErrors> {
        program_file::read(text)
    }

    /// Reads one element of a file's list and puts it in the place of this merchant's earlier program.
    ///
    /// # Errors
    /// Every problem of the program at once, also if it is another merchant's; nothing is changed.
    pub fn put_json(&mut self, merchant: &str, text: &str) -> Result<(), ProgramErrors> {
        let program = program_file::read_one(merchant, text)?;
        self.put(merchant, program);
        Ok(())
    }

    /// Gives the program that was there.
    pub(super) fn put(&mut self, merchant: &str, program: Program) -> Option<Program> {
        match MerchantId::new(merchant) {
            Some(id) if merchant != "*" => self.by_merchant.insert(id, program),
            _ => self.default.replace(program),
        }
    }

    /// The version in force at that time. A merchant that is listed never falls back to the default.
    #[must_use]
    pub fn version_at(&self, merchant: &MerchantId, at: Timestamp) -> Lookup<'_> {
        let Some(program) = self.by_merchant.get(merchant).or(self.default.as_ref()) else {
            return Lookup::NoProgram;
        };
        match program.versions.iter().rfind(|version| version.effective_from <= at) {
            Some(version) => Lookup::Found(version, &program.zone),
            None => Lookup::NoVersionYet,
        }
    }

    /// How many merchants are listed by name.
    #[must_use]
    pub fn merchants(&self) -> usize {
        self.by_merchant.len()
    }
}

impl Lookup<'_> {
    /// The revision as events carry it: 0 is none.
    #[must_use]
    pub const fn rev(&self) -> u32 {
        match self {
            Self::Found(version, _) => version.rev,
            Self::NoProgram | Self::NoVersionYet => 0,
        }
    }
}

impl Trigger {
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::PurchaseTotal => "purchase_total",
            Self::PurchaseCount => "purchase_count",
            Self::Form(_) => "form",
        }
    }
}

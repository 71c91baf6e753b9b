//! How a record ended for one consumer, and what an error means.
//!
//! [`Disposition`] is the one table of SPEC section 7 for the targets. No wildcard arm: a new answer must be placed here.

use std::time::Duration;

use crate::consumers::Reason;
use crate::dedupe::DedupeError;
use crate::inngest::Answer;
use crate::postgres::LedgerError;

/// The end of a record for one consumer. Every record ends in exactly one of these, or it is not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Accepted and confirmed.
    Delivered,
    /// A newer state of the same fact in the same batch was delivered.
    Superseded,
    /// Found done: delivered and confirmed before.
    Duplicate,
    /// Decided to do nothing.
    Ignored(Reason),
    /// No row of ours: tombstones, heartbeats, tables nobody reads.
    Control,
    /// In the dead-letter topic, delivery report in hand.
    DeadLettered(&'static str),
    /// In shadow: what would have been delivered or dead-lettered is written down, and that is all.
    Shadowed,
}

impl Outcome {
    /// The outcome's metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Superseded => "superseded",
            Self::Duplicate => "duplicate",
            Self::Ignored(_) => "ignored",
            Self::Control => "control",
            Self::DeadLettered(_) => "dead_lettered",
            Self::Shadowed => "shadowed",
        }
    }

    pub const LABELS: [&'static str; 7] = [
        "delivered",
        "superseded",
        "duplicate",
        "ignored",
        "control",
        "dead_lettered",
        "shadowed",
    ];
}

/// What to do about an answer or an error of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// Nothing is wrong.
    Proceed,
    /// Wrong for some record of the request: halve it until the culprit stands alone, then dead-letter that one.
    Bisect { reason: &'static str, detail: String },
    /// The target cannot answer now: the same request again, without limit.
    Retry { detail: String, after: Option<Duration> },
    /// An operator must act: stand still, alarm, probe once a minute; never dead-letter.
    StandStill { detail: String },
    /// Nobody knows: halve it first, then set it aside and alarm; dead-letter only after [`UNKNOWN_ATTEMPTS`] while the same
    /// target accepts others.
    Hold { detail: String },
}

/// How often an unknown answer is tried before it may become a dead letter.
pub(super) const UNKNOWN_ATTEMPTS: u32 = 20;

impl Disposition {
    /// In a word of ours, if it is not what was wanted.
    #[must_use]
    pub(super) const fn failure(&self) -> Option<&'static str> {
        match self {
            Self::Proceed => None,
            Self::Bisect { reason, .. } => Some(reason),
            Self::Retry { .. } => Some("unavailable"),
            Self::StandStill { .. } => Some("refused"),
            Self::Hold { .. } => Some("unknown_answer"),
        }
    }

    /// What an answer of Inngest means.
    #[must_use]
    pub fn of_answer(answer: Answer) -> Self {
        match answer {
            Answer::Accepted => Self::Proceed,
            Answer::Rejected { status: _, detail } => Self::Bisect {
                reason: "inngest_rejected",
                detail,
            },
            Answer::Refused { status: _, detail } => Self::StandStill { detail },
            Answer::Unavailable { detail, retry_after } => Self::Retry {
                detail,
                after: retry_after,
            },
            Answer::Unknown { status: _, detail } => Self::Hold { detail },
        }
    }

    /// What an error of the dedupe store means.
    #[must_use]
    pub fn of_dedupe(error: &DedupeError) -> Self {
        match error {
            DedupeError::Unavailable(_) => Self::Retry {
                detail: error.to_string(),
                after: None,
            },
            DedupeError::Configuration(_) => Self::StandStill {
                detail: error.to_string(),
            },
        }
    }

    /// What an error of the database means.
    #[must_use]
    pub fn of_ledger(error: &LedgerError) -> Self {
        let detail = error.to_string();
        match error {
            LedgerError::Unavailable(_) => Self::Retry { detail, after: None },
            LedgerError::Configuration(_) => Self::StandStill { detail },
            LedgerError::Rejected(_) => Self::Bisect {
                reason: "database_rejected",
                detail,
            },
            // Halved until it fits; what alone takes too long is as unknown as any other answer.
            LedgerError::TooLong(_) | LedgerError::Unknown(_) => Self::Hold { detail },
        }
    }
}

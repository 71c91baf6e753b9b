//! Faults planted on purpose, so that the simulation can show that it would find them.
//!
//! Takes which fault is in force, gives every place that could commit it a yes or no. Without the feature `planted`, which
//! no shipped binary has, the answer is a constant no and nothing of it is left in the code.

/// A fault that the simulation must catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// A later success passes an unfinished record.
    CommitPastHold,
    /// The store says done before the target has accepted.
    ConfirmBeforeDelivery,
    /// Somebody else's lease is taken for done.
    ClaimIsDone,
    /// The watermark is the start plus the number of finished records.
    WatermarkByArithmetic,
    /// An outcome of an ended assignment counts for the next one.
    LateCompletion,
    /// A workflow whose first answer was lost finds its award applied, and ends. The executor's, in the simulation.
    LostAnswerEndsRun,
    /// A call to the database gives only the announcements that it wrote itself. The database's, in the simulation.
    OwnAnnouncementsOnly,
    /// An award is applied whatever the row says now. The database's, in the simulation.
    NoBasisCheck,
    /// Where a merchant is unknown, the rules in hand have the last word.
    StaleProgram,
    /// What is known at all is taken for settled. The database's, in the simulation.
    EqualByExistence,
}

impl Planted {
    pub const ALL: [Self; 10] = [
        Self::CommitPastHold,
        Self::ConfirmBeforeDelivery,
        Self::ClaimIsDone,
        Self::WatermarkByArithmetic,
        Self::LateCompletion,
        Self::LostAnswerEndsRun,
        Self::OwnAnnouncementsOnly,
        Self::NoBasisCheck,
        Self::StaleProgram,
        Self::EqualByExistence,
    ];

    /// Whether this fault is in force on this thread.
    #[cfg(feature = "planted")]
    #[must_use]
    pub fn is_planted(self) -> bool {
        switch::IN_FORCE.get() == Some(self)
    }

    /// Whether this fault is in force: never.
    #[cfg(not(feature = "planted"))]
    #[must_use]
    pub const fn is_planted(self) -> bool {
        false
    }

    /// What is in force on this thread from now on: each simulation has a thread of its own.
    #[cfg(feature = "planted")]
    pub fn plant(fault: Option<Self>) {
        switch::IN_FORCE.set(fault);
    }
}

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    thread_local! {
        pub(super) static IN_FORCE: Cell<Option<super::Planted>> = const { Cell::new(None) };
    }
}

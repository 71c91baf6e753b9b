//! The last look at the source, kept for whoever asks.

use std::sync::{Arc, Mutex, PoisonError};

use super::Telemetry;
use crate::doctor::Report;

#[derive(Debug, Default)]
pub(super) struct Looked(Mutex<Option<(i64, Arc<Report>)>>);

impl Telemetry {
    /// Somebody has looked at the source.
    pub fn looked(&self, at_ms: i64, report: Arc<Report>) {
        let look = Some((at_ms, report));
        let _before = std::mem::replace(
            &mut *self.seen.look.0.lock().unwrap_or_else(PoisonError::into_inner),
            look,
        );
    }

    /// When it was, and what it found; `None` if nobody has looked.
    #[must_use]
    pub fn last_look(&self) -> Option<(i64, Arc<Report>)> {
        self.seen.look.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

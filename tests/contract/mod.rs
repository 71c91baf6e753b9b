//! What the repository promises about itself: sources, documents and deploy files agree with each other.
//!
//! It reads files of this repository; and it looks at the binary that was built from them, and asks it for its settings.

mod alerts;
pub(crate) mod dashboard;
mod deploy;
mod findings;
mod tidy;

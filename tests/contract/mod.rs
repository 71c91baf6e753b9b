//! What the repository promises about itself: sources, documents and deploy files agree with each other.
//!
//! It reads files of this repository and nothing else.

mod alerts;
mod tidy;

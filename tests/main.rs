//! One integration binary: real services, whole pipeline, contracts.
#![expect(clippy::expect_used, reason = "a test and its helpers end at the first surprise")]

mod redis;

//! The ports of a shadow: nothing goes out. Takes what the pipeline never gives there in shadow, gives an answer that holds the
//! record and says why.
//!
//! The pipeline writes its decisions down before it would claim anything. Should that ever be broken, these ports
//! hold what they are given instead of claiming that it is done. The database is only compared with.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::consumers::{Consumer, Effect, EffectKey};
use crate::dead_letters::{DeadLetters, Letter, WriteError};
use crate::dedupe::{Claim, ClaimKey, Dedupe, DedupeError};
use crate::inngest::{Answer, Deliver, EventBatch, Limits};
use crate::postgres::{Announcement, Ledger, LedgerError, Standing};
use crate::rows::Row;

/// No dedupe store, no Inngest, no dead letters.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nowhere;

/// The database: it is asked, and told nothing.
#[derive(Clone)]
pub struct CompareOnly(pub Arc<dyn Ledger>);

const IN_SHADOW: &str = "this process is a shadow: nothing goes out";

fn refused<'a, T: Send + 'a>() -> BoxFuture<'a, Result<T, LedgerError>> {
    async { Err(LedgerError::Configuration(IN_SHADOW.to_owned())) }.boxed()
}

impl Dedupe for Nowhere {
    fn claim<'a>(&'a self, _keys: &'a [ClaimKey]) -> BoxFuture<'a, Result<Vec<Claim>, DedupeError>> {
        async { Err(DedupeError::Configuration(IN_SHADOW.to_owned())) }.boxed()
    }

    fn confirm<'a>(&'a self, _keys: &'a [ClaimKey]) -> BoxFuture<'a, Result<(), DedupeError>> {
        async { Err(DedupeError::Configuration(IN_SHADOW.to_owned())) }.boxed()
    }

    fn lease(&self) -> Duration {
        Duration::ZERO
    }
}

impl Deliver for Nowhere {
    fn send<'a>(&'a self, _batch: &'a EventBatch, _events: Range<usize>) -> BoxFuture<'a, Answer> {
        let answer = Answer::Refused {
            status: 403,
            detail: IN_SHADOW.to_owned(),
        };
        async { answer }.boxed()
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }
}

impl DeadLetters for Nowhere {
    fn write<'a>(&'a self, letter: &'a Letter<'a>) -> BoxFuture<'a, Result<(), WriteError>> {
        let refused = WriteError::Unavailable {
            topic: letter.queue.name().to_owned(),
            cause: IN_SHADOW.to_owned(),
        };
        async { Err(refused) }.boxed()
    }
}

impl std::fmt::Debug for CompareOnly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompareOnly").finish_non_exhaustive()
    }
}

impl Ledger for CompareOnly {
    fn compare<'a>(&'a self, effects: &'a [&'a Effect]) -> BoxFuture<'a, Result<Vec<Standing>, LedgerError>> {
        self.0.compare(effects)
    }

    fn evaluate_tiers<'a>(&'a self, _: &'a [&'a Effect]) -> BoxFuture<'a, Result<Vec<Announcement>, LedgerError>> {
        refused()
    }

    fn record_progress<'a>(&'a self, _: &'a [&'a Effect]) -> BoxFuture<'a, Result<Vec<Announcement>, LedgerError>> {
        refused()
    }

    fn announced<'a>(&'a self, _ids: &'a [&'a str]) -> BoxFuture<'a, Result<(), LedgerError>> {
        refused()
    }

    fn announcement_rejected<'a>(&'a self, _id: &'a str, _reason: &'a str) -> BoxFuture<'a, Result<(), LedgerError>> {
        refused()
    }

    fn knows<'a>(&'a self, key: &'a EffectKey) -> BoxFuture<'a, Result<bool, LedgerError>> {
        self.0.knows(key)
    }

    fn bury<'a>(&'a self, _: Consumer, _: &'a Row, _reason: &'a str) -> BoxFuture<'a, Result<(), LedgerError>> {
        refused()
    }

    fn lift<'a>(&'a self, _: Consumer, _: &'a Row) -> BoxFuture<'a, Result<(), LedgerError>> {
        refused()
    }
}

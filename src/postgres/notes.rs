//! The port of whoever decides rows again: takes keys and pages, gives rows and notes. [`Books`] is the real one.
//!
//! It never decides what a row means.

use std::collections::BTreeMap;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::{Announcement, Books, Heal, LedgerError, LedgerRow, Place, Suspect};
use crate::consumers::Effect;
use crate::rows::Table;

/// An answer of the database.
pub type Told<'a, T> = BoxFuture<'a, Result<T, LedgerError>>;

/// What a pass of the reconciler asks and notes; each is the method of [`Books`] of that name.
pub trait Notes: Send + Sync {
    fn take_lease<'a>(&'a self, name: &'a str, owner: &'a str, seconds: i32) -> Told<'a, bool>;
    fn drop_lease<'a>(&'a self, name: &'a str, owner: &'a str) -> Told<'a, ()>;
    fn page<'a>(&'a self, table: Table, after: Option<&'a str>, max: i32) -> Told<'a, Vec<LedgerRow>>;
    fn recent<'a>(
        &'a self,
        table: Table,
        since_ms: i64,
        after: Option<&'a Place>,
        max: i32,
    ) -> Told<'a, (Vec<LedgerRow>, Option<Place>)>;
    fn rows_of<'a>(&'a self, table: Table, ids: &'a [&'a str]) -> Told<'a, Vec<LedgerRow>>;
    fn suspects(&self, max: i32) -> Told<'_, Vec<Suspect>>;
    fn plan_heals<'a>(&'a self, effects: &'a [&'a Effect]) -> Told<'a, Vec<Heal>>;
    fn still_dead<'a>(&'a self, effects: &'a [&'a Effect]) -> Told<'a, Vec<bool>>;
    fn not_healed<'a>(&'a self, keys: &'a [&'a str]) -> Told<'a, ()>;
    fn found_settled<'a>(&'a self, keys: &'a [&'a str], as_of_ms: i64) -> Told<'a, ()>;
    fn unsent(&self, older_than_s: i32, max: i32) -> Told<'_, Vec<Announcement>>;
    fn bookmark<'a>(&'a self, name: &'a str) -> Told<'a, Option<String>>;
    fn turn_page<'a>(&'a self, name: &'a str, after: Option<&'a str>) -> Told<'a, ()>;
    fn overdue(&self) -> Told<'_, i64>;
    fn evaluated_at<'a>(&'a self, keys: &'a [&'a str]) -> Told<'a, BTreeMap<String, i64>>;
}

impl Notes for Books {
    fn take_lease<'a>(&'a self, name: &'a str, owner: &'a str, seconds: i32) -> Told<'a, bool> {
        Self::take_lease(self, name, owner, seconds).boxed()
    }

    fn drop_lease<'a>(&'a self, name: &'a str, owner: &'a str) -> Told<'a, ()> {
        Self::drop_lease(self, name, owner).boxed()
    }

    fn page<'a>(&'a self, table: Table, after: Option<&'a str>, max: i32) -> Told<'a, Vec<LedgerRow>> {
        Self::page(self, table, after, max).boxed()
    }

    fn recent<'a>(
        &'a self,
        table: Table,
        since_ms: i64,
        after: Option<&'a Place>,
        max: i32,
    ) -> Told<'a, (Vec<LedgerRow>, Option<Place>)> {
        Self::recent(self, table, since_ms, after, max).boxed()
    }

    fn rows_of<'a>(&'a self, table: Table, ids: &'a [&'a str]) -> Told<'a, Vec<LedgerRow>> {
        Self::rows_of(self, table, ids).boxed()
    }

    fn suspects(&self, max: i32) -> Told<'_, Vec<Suspect>> {
        Self::suspects(self, max).boxed()
    }

    fn plan_heals<'a>(&'a self, effects: &'a [&'a Effect]) -> Told<'a, Vec<Heal>> {
        Self::plan_heals(self, effects).boxed()
    }

    fn still_dead<'a>(&'a self, effects: &'a [&'a Effect]) -> Told<'a, Vec<bool>> {
        Self::still_dead(self, effects).boxed()
    }

    fn not_healed<'a>(&'a self, keys: &'a [&'a str]) -> Told<'a, ()> {
        Self::not_healed(self, keys).boxed()
    }

    fn found_settled<'a>(&'a self, keys: &'a [&'a str], as_of_ms: i64) -> Told<'a, ()> {
        Self::found_settled(self, keys, as_of_ms).boxed()
    }

    fn unsent(&self, older_than_s: i32, max: i32) -> Told<'_, Vec<Announcement>> {
        Self::unsent(self, older_than_s, max).boxed()
    }

    fn bookmark<'a>(&'a self, name: &'a str) -> Told<'a, Option<String>> {
        Self::bookmark(self, name).boxed()
    }

    fn turn_page<'a>(&'a self, name: &'a str, after: Option<&'a str>) -> Told<'a, ()> {
        Self::turn_page(self, name, after).boxed()
    }

    fn overdue(&self) -> Told<'_, i64> {
        Self::overdue(self).boxed()
    }

    fn evaluated_at<'a>(&'a self, keys: &'a [&'a str]) -> Told<'a, BTreeMap<String, i64>> {
        Self::evaluated_at(self, keys).boxed()
    }
}

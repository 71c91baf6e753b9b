//! The real path: SQL in PostgreSQL → Debezium → Kafka → the worker binary → a receiver that behaves as Inngest does.
//!
//! `settled` goes all the way around, through the workflows and back into Postgres.
//!
//! What must come out is computed from the SQL and from the records in the topic, read past the code under test.

mod broker;
mod check;
mod connectors;
mod console;
mod consumer_sets;
mod grants;
mod letters;
mod load;
mod members;
mod outages;
mod path;
mod pressure;
mod prometheus;
mod replays;
mod secure;
mod settled;
mod shadow;
mod startup;
mod topics;
mod worker;

use std::collections::BTreeMap;

/// An address of the running stack. Its absence fails the test: nothing passes by skipping.
fn stack(name: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/stack/.run/env");
    let text = std::fs::read_to_string(path);
    let text = text.unwrap_or_else(|error| panic!("no stack ({path}: {error}); start it with `make stack-up`"));
    let lines: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let address = lines
        .get(name)
        .unwrap_or_else(|| panic!("{name} is not in {path}; run `make stack-up`"));
    (*address).to_owned()
}

/// A text that no other run has used.
fn unique() -> String {
    format!("{:012x}", fastrand::u64(..) >> 16)
}

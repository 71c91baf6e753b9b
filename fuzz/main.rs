//! The fuzzer: one binary for all targets, `FUZZ_TARGET` names the one. `fuzz/run` builds and runs it.
#![no_main]

mod targets;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static RUN: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    let target = targets::ALL.iter().find(|target| target.name == name);
    target.unwrap_or_else(|| panic!("no target {name}")).run
});

fuzz_target!(|data: &[u8]| RUN(data));

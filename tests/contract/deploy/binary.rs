//! The binary that goes into the image: small, and content with what the image has.

use std::collections::BTreeSet;
use std::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_crm-event-processors");
pub(super) const LARGEST: u64 = 40_000_000;
/// All of distroless/cc, whose loader has the name of its processor. OpenSSL, zlib, zstd and librdkafka are linked statically.
const IN_THE_IMAGE: [&str; 5] = [
    "libc.so.6",
    "libm.so.6",
    "libgcc_s.so.1",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
];

fn output(program: &str, arguments: &[&str]) -> String {
    // Both come with the linker that made the binary.
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn stripped_as_in_the_image_the_binary_is_smaller_than_40_mb() {
    let stripped = format!("{}/stripped-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    output("strip", &["-o", &stripped, BINARY]);
    let size = std::fs::metadata(&stripped).expect("written").len();
    let version = output(&stripped, &["version"]);
    std::fs::remove_file(&stripped).expect("removed");
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "it still runs: {version}");
    println!("{size} bytes");
    assert!(size < LARGEST, "{size} bytes");
}

#[test]
fn the_binary_wants_no_library_that_the_image_lacks() {
    let dynamic = output("readelf", &["--wide", "--dynamic", BINARY]);
    let wanted: BTreeSet<&str> = dynamic
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| line.split_once('[')?.1.strip_suffix(']'))
        .collect();
    assert!(wanted.contains("libc.so.6"), "{dynamic}");
    let lacking: Vec<_> = wanted.difference(&BTreeSet::from(IN_THE_IMAGE)).copied().collect();
    assert_eq!(lacking, Vec::<&str>::new());
    assert!(
        !dynamic.contains("(RPATH)") && !dynamic.contains("(RUNPATH)"),
        "it looks for libraries where this machine has them"
    );
}

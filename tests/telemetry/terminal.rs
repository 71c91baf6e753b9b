//! `status` on a terminal, which `script` (of every Debian) plays.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use crm_event_processors::telemetry::reach::Reach;
use crm_event_processors::telemetry::{Telemetry, http};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::publish_something;
use crate::PATIENCE;

const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";
const FRAME: &str = "\u{1b}[H";

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_status_is_drawn_anew_until_ctrl_c_and_the_terminal_is_given_back() {
    let telemetry = Arc::new(Telemetry::new().expect("instruments"));
    publish_something(&telemetry);
    let stop = CancellationToken::new();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let served = http::serve(any, http::routes(telemetry, Reach::of(any)), stop.clone()).await;
    let (address, _task) = served.expect("bound");
    let binary = env!("CARGO_BIN_EXE_crm-event-processors");
    let mut terminal = Command::new("script")
        .args(["--quiet", "--return", "--flush", "--command"])
        .arg(format!("exec {binary} status --worker http://{address}"))
        .arg("/dev/null")
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .expect("script is there");
    let (mut keys, mut screen) = (
        terminal.stdin.take().expect("piped"),
        terminal.stdout.take().expect("piped"),
    );
    let mut seen = String::new();
    let mut bytes = [0; 4096];
    let watching = async {
        let mut is_asked_to_end = false;
        loop {
            let read = screen.read(&mut bytes).await.expect("readable");
            if read == 0 {
                return;
            }
            seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
            if !is_asked_to_end && seen.matches(FRAME).count() >= 3 && seen.contains("mission") {
                is_asked_to_end = true;
                keys.write_all(&[3]).await.expect("Ctrl-C");
            }
        }
    };
    let watched = tokio::time::timeout(PATIENCE, watching).await;
    assert!(watched.is_ok(), "{seen:?}");
    let ended = tokio::time::timeout(PATIENCE, terminal.wait()).await.expect("it ends");
    assert_eq!(ended.expect("waited").code(), Some(0), "{seen:?}");
    assert!(seen.contains(ENTER) && seen.contains("mission"), "{seen:?}");
    let (_, behind) = seen.rsplit_once(LEAVE).expect("the terminal is given back");
    assert!(!behind.contains(FRAME), "{seen:?}");
    stop.cancel();
}

//! The console in a real browser (`tests/browser`), over a worker under load: its own page, and that of the command `console`, which
//! asks it. What the browser must find is in `tests/browser/console.cjs`; here is the worker, and what it has to show.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio_util::sync::CancellationToken;

use super::letters::Scene;
use super::unique;
use super::worker::{PATIENCE, Worker};
use crate::kafka::cluster::{Raw, purchase};

/// Markup, a script, and a mark that turns round what follows.
const HOSTILE: &str = "<img src=x onerror=alert(1)>\u{202e}<b>";
/// As people see it.
const INERT: &str = r"<img src=x onerror=alert(1)>\u202e<b>";
/// A browser, four times, over a worker on the same two cores.
const BROWSING: Duration = Duration::from_secs(900);

/// Poison, and purchases without end, many of them with an id that is hostile.
async fn load(scene: &Scene, stop: CancellationToken) {
    let run = unique();
    let poison = || Raw {
        key: Some(HOSTILE.as_bytes().to_vec()),
        value: Some(format!("{{{HOSTILE}").into_bytes()),
        headers: vec![(HOSTILE.to_owned(), Some(HOSTILE.as_bytes().to_vec()))],
    };
    for _ in 0..3 {
        scene.produce(0, &poison()).await;
    }
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    for lsn in 1.. {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = pace.tick() => {}
        }
        let row = if lsn % 4 == 1 {
            format!("{run}-{lsn}-{HOSTILE}")
        } else {
            format!("{run}-{lsn}")
        };
        scene.produce(i32::from(lsn % 2 == 0), &purchase(&row, lsn)).await;
    }
}

/// The command, and where it says that its page is.
async fn command(scene: &Scene, worker: &str) -> (Child, String) {
    let mut child = scene.start("1", &["console", "--worker", worker]);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let said = tokio::time::timeout(PATIENCE, lines.next_line())
        .await
        .expect("in time");
    let said = said.expect("UTF-8").expect("a line");
    let (_, behind) = said.split_once(" is at ").expect("where");
    let (base, _) = behind.split_once("/console").expect("an address");
    (child, base.to_owned())
}

fn browser(worker: &str, command: &str) -> Command {
    let shots = concat!(env!("CARGO_TARGET_TMPDIR"), "/console");
    std::fs::create_dir_all(shots).expect("a folder");
    let mut browser = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/run"));
    browser
        .arg("console.cjs")
        .envs([
            ("WORKER", worker),
            ("COMMAND", command),
            ("HOSTILE", HOSTILE),
            ("INERT", INERT),
            ("SHOTS", shots),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    browser
}

/// Reads what the browser found, up to this word or the end.
async fn says(lines: &mut Lines<BufReader<ChildStdout>>, word: &str) -> bool {
    while let Some(line) = lines.next_line().await.expect("UTF-8") {
        println!("{line}");
        if line == word {
            return true;
        }
    }
    false
}

async fn browse(worker: &mut Worker, page: &str, command: &str) {
    let mut browsing = browser(page, command).spawn().expect("tests/browser/run starts");
    let mut lines = BufReader::new(browsing.stdout.take().expect("piped")).lines();
    if says(&mut lines, "stop the worker").await {
        assert_eq!(worker.stop().await, 0, "{}", worker.log());
    }
    assert!(
        says(&mut lines, "all of it").await,
        "see above what the browser did not find"
    );
    assert!(browsing.wait().await.expect("waited").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_real_browser_the_console_shows_a_worker_under_load_asks_nobody_else_and_runs_nothing_of_what_it_shows() {
    let scene = Scene::begin().await;
    let mut worker = scene.worker("1");
    worker.set("CONSOLE", "1");
    worker.start().await;
    let address = worker
        .variables()
        .find(|(name, _)| *name == "HTTP_ADDR")
        .expect("set")
        .1;
    let page = format!("http://{address}");
    let stop = CancellationToken::new();
    let (mut child, base) = command(&scene, &page).await;
    let browsing = async {
        let browsed = tokio::time::timeout(BROWSING, browse(&mut worker, &page, &base)).await;
        stop.cancel();
        browsed.expect("the browser ends");
    };
    tokio::join!(load(&scene, stop.clone()), browsing);
    child.kill().await.expect("killed");
}

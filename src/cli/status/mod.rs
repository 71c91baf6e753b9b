//! `status`: how a running worker stands, as a table. Takes what `/statusz` says; asks for nothing else and changes nothing.

mod table;

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use console::Term;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::asking::{Worker, WorkerFlags};
use super::{Code, Format, print_json};
use crate::inert::clean;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    worker: WorkerFlags,
    /// Print it once. So it is as well where standard output is no terminal; else it is drawn anew every second until Ctrl-C.
    #[arg(long)]
    once: bool,
    /// For people, or one JSON object, which is what /statusz says.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const EVERY: Duration = Duration::from_secs(1);

/// Another screen, without a cursor, where lines that are too long are cut; and back.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l\u{1b}[?7l";
const LEAVE: &str = "\u{1b}[?7h\u{1b}[?25h\u{1b}[?1049l";

pub(super) fn run(options: &Options) -> anyhow::Result<Code> {
    let worker = options.worker.open()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let is_live = std::io::stdout().is_terminal() && !options.once && options.format == Format::Text;
    if is_live {
        return runtime.block_on(watch(&worker));
    }
    let told = runtime.block_on(worker.get("statusz"))?;
    match options.format {
        Format::Json => print_json(&told)?,
        Format::Text => println!("{}", table::lines(&told, worker.address(), None).join("\n")),
    }
    Ok(code_of(&told))
}

/// Whether anything waits.
fn code_of(told: &serde_json::Value) -> Code {
    match told["flow"]["state"].as_str() {
        Some("flowing" | "idle") => Code::Ok,
        _ => Code::Findings,
    }
}

/// Puts the terminal back, however it ends.
struct Screen(Term);

impl Screen {
    fn enter() -> std::io::Result<Self> {
        print!("{ENTER}");
        std::io::stdout().flush()?;
        Ok(Self(Term::stdout()))
    }

    /// Draws over what is there, so that nothing flickers.
    fn draw(&self, mut lines: Vec<String>) -> std::io::Result<()> {
        let (rows, _) = self.0.size();
        let room = usize::from(rows).saturating_sub(1).max(1);
        if lines.len() > room {
            let left_out = lines.len() - room + 1;
            lines.truncate(room - 1);
            lines.push(format!("… and {left_out} lines more: --once prints all"));
        }
        let mut frame = String::from("\u{1b}[H");
        for line in lines {
            frame.push_str(&line);
            frame.push_str("\u{1b}[K\r\n");
        }
        frame.push_str("\u{1b}[J");
        let mut out = std::io::stdout().lock();
        out.write_all(frame.as_bytes())?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        print!("{LEAVE}");
        // Nobody is left to be told.
        let _flushed = std::io::stdout().flush();
    }
}

async fn watch(worker: &Worker) -> anyhow::Result<Code> {
    let mut ends = signal(SignalKind::terminate())?;
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut every = interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let screen = Screen::enter()?;
    let paint = Paint::wanted();
    let mut last = Vec::new();
    loop {
        let told = tokio::select! {
            biased;
            _ = ends.recv() => return Ok(Code::Ok),
            _ = interrupts.recv() => return Ok(Code::Ok),
            told = async { every.tick().await; worker.get("statusz").await } => told,
        };
        match told {
            Ok(told) => {
                last = table::lines(&told, worker.address(), paint);
                screen.draw(last.clone())?;
            }
            // What it said last stays below.
            Err(error) => {
                let mut lines = vec![clean(&error.to_string()), String::new()];
                lines.extend(last.iter().cloned());
                screen.draw(lines)?;
            }
        }
    }
}

/// Colours, where somebody looks and has not asked for none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint;

impl Paint {
    fn wanted() -> Option<Self> {
        let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        (!is_refused).then_some(Self)
    }
}

//! The commands. Each file is one; this one parses and turns every end into an exit code.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "commands talk to people on standard output"
)]

mod asking;
mod check;
mod config;
mod connectors;
mod console;
mod demo;
mod dlq;
mod explain;
mod hang;
mod healthcheck;
mod look;
mod migrate;
mod progress;
mod reconcile;
mod replay;
// Its limits are public: the benchmark puts the same worker together.
pub mod run;
mod shadow;
mod status;

use std::io::Write as _;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::config::Problems;
use crate::connectors::ConnectError;
use crate::dedupe::DedupeError;
use crate::inert::clean_lines;
use crate::kafka::StartError;
use crate::postgres::LedgerError;
use crate::postgres::migrations::MigrationError;

/// Turns the row changes of a loyalty CRM into durable workflows.
#[derive(Debug, Parser)]
#[command(
    name = "crm-event-processors",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the worker until SIGTERM.
    Run(Box<crate::config::RunFlags>),
    /// Run the worker on an embedded Kafka, a seeded workload and an in-process Inngest, and balance the books.
    Demo(demo::Options),
    /// Say what each recorded message is and what every consumer would do with it.
    Explain(Box<explain::Options>),
    /// Say whether everything that a worker needs is there and well, and what mends what is not.
    Check(Box<check::Options>),
    /// Bring a database to the schema of this binary.
    Migrate(migrate::Options),
    /// Say whether everything in the ledgers is settled, and whether the wallet has what was booked.
    Reconcile(Box<reconcile::Options>),
    /// Look at dead letters, send them the normal way once more, or say that nothing is to be done about them.
    #[command(subcommand)]
    Dlq(Box<dlq::Command>),
    /// Do a consumer's work on a part of the topics once more, outside of the group.
    Replay(Box<replay::Options>),
    /// Render, check, compare and apply the connector that feeds the worker, and ask whether it runs.
    #[command(subcommand)]
    Connectors(connectors::Command),
    /// Serve a page that shows how a running worker stands, and its dead letters.
    Console(Box<console::Options>),
    /// Show how a running worker stands: consumers, partitions, source, last errors.
    Status(status::Options),
    /// Print the settings as they are understood, secrets redacted.
    Config(Box<crate::config::RunFlags>),
    /// Ask a running worker on this machine whether it is live.
    Healthcheck(healthcheck::Options),
    /// Print the version.
    Version,
}

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

/// Why a command ended, in the words of sysexits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Ok = 0,
    Findings = 1,
    Usage = 64,
    Unavailable = 69,
    Internal = 70,
    Configuration = 78,
}

/// The arguments of all commands, for tests that no command shall escape.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the arguments, runs the command, prints what went wrong, and ends the process.
pub fn main() -> ! {
    let code = command_line();
    // Whatever is printed is printed by now, or its reader is gone.
    let _flushed = std::io::stdout().flush();
    leave(code)
}

/// Ends the process at once, without what libraries want done at an exit: OpenSSL takes away what threads of the Kafka client
/// still use, and a worker that had ended well would be told as crashed.
fn leave(code: Code) -> ! {
    signal_hook::low_level::exit(code as i32)
}

fn command_line() -> Code {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come here too; they are not errors.
            let _shown = error.print();
            return if error.use_stderr() { Code::Usage } else { Code::Ok };
        }
    };
    crate::tls::install_provider();
    let ended = match cli.command {
        Command::Run(flags) => run::run(&flags),
        Command::Demo(options) => demo::run(&options),
        Command::Explain(options) => explain::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Migrate(options) => migrate::run(&options),
        Command::Reconcile(options) => reconcile::run(&options),
        Command::Dlq(command) => dlq::run(&command),
        Command::Replay(options) => replay::run(&options),
        Command::Connectors(command) => connectors::run(&command),
        Command::Console(options) => console::run(&options),
        Command::Status(options) => status::run(&options),
        Command::Config(flags) => config::run(&flags),
        Command::Healthcheck(options) => healthcheck::run(&options),
        Command::Version => {
            println!("crm-event-processors {}", env!("CARGO_PKG_VERSION"));
            Ok(Code::Ok)
        }
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", clean_lines(&format!("{error:#}")));
            code_of(&error)
        }
    }
}

/// What an error means for whoever started us.
fn code_of(error: &anyhow::Error) -> Code {
    if let Some(start) = error.downcast_ref::<StartError>() {
        return match start {
            StartError::Client(_)
            | StartError::Refused { .. }
            | StartError::MissingTopics { .. }
            | StartError::Unseeded { .. }
            | StartError::WorksElsewhere { .. } => Code::Configuration,
            StartError::Unreachable { .. } | StartError::LookUp(_) => Code::Unavailable,
            StartError::Thread(_) => Code::Internal,
        };
    }
    if let Some(DedupeError::Configuration(_)) = error.downcast_ref::<DedupeError>() {
        return Code::Configuration;
    }
    if let Some(error) = error.downcast_ref::<LedgerError>() {
        return code_of_ledger(error);
    }
    if let Some(error) = error.downcast_ref::<MigrationError>() {
        return match error {
            MigrationError::Changed(_) | MigrationError::Unknown(_) | MigrationError::OtherCutOff { .. } => {
                Code::Configuration
            }
            MigrationError::Failed { kind, .. } | MigrationError::Database(kind) => code_of_ledger(kind),
        };
    }
    if let Some(error) = error.downcast_ref::<ConnectError>() {
        return connectors::code_of(error);
    }
    if error.is::<asking::Silence>() {
        return Code::Unavailable;
    }
    // The database that is only away is waited for.
    if error.is::<crate::postgres::StartError>() {
        return Code::Configuration;
    }
    if error.is::<Problems>() || error.is::<crate::loyalty::ProgramErrors>() {
        return Code::Configuration;
    }
    if error.is::<Usage>() {
        Code::Usage
    } else {
        Code::Internal
    }
}

const fn code_of_ledger(error: &LedgerError) -> Code {
    match error {
        LedgerError::Configuration(_) => Code::Configuration,
        LedgerError::Unavailable(_) => Code::Unavailable,
        LedgerError::TooLong(_) | LedgerError::Rejected(_) | LedgerError::Unknown(_) => Code::Internal,
    }
}

/// A result for machines, laid out so that a person can read it as well.
fn print_json(result: &impl serde::Serialize) -> anyhow::Result<()> {
    // JSON escapes few of the characters that steer a terminal; inside of a text an escape means the same.
    println!(
        "{}",
        clean_lines(&serde_json::to_string_pretty(result).context("the result")?)
    );
    Ok(())
}

/// The command was called in a way it cannot serve.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

//! Log lines: JSON for machines, text for people. Never a payload, a row value or a secret.
//!
//! An event is one line and holds no character that steers a terminal, whatever an error or a server put into it: the
//! formatters escape some of them in some of the fields, and the writer the rest. So there are no colours either.

use std::io::{self, Write};

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::inert::clean;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Json,
    Text,
}

/// Starts logging to standard error, or to standard output as Render wants it. A second call changes nothing.
pub fn start(format: Format, filter: &str) {
    let filter = EnvFilter::builder().parse_lossy(filter);
    let lines = subscriber(format, filter, || Inert(io::stderr().lock()));
    let _already_started = tracing::subscriber::set_global_default(lines);
}

fn subscriber<W>(format: Format, filter: EnvFilter, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(writer);
    match format {
        Format::Json => Box::new(lines.json().flatten_event(true).with_span_list(false).finish()),
        Format::Text => Box::new(lines.with_target(true).finish()),
    }
}

/// Takes one whole event at a time, as the formatters give it.
struct Inert<W>(W);

impl<W: Write> Write for Inert<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let mut line = clean(text.strip_suffix('\n').unwrap_or(&text));
        line.push('\n');
        self.0.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Kept {
        fn text(&self) -> String {
            let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8(kept.clone()).expect("text")
        }
    }

    /// What two events look like whose every part somebody else wrote.
    fn logged(format: Format) -> String {
        let (kept, hostile) = (Kept::default(), "a\u{1b}[2J\nlevel=ERROR\r\u{9b}1m\u{202e}\u{200b}z");
        let writer = kept.clone();
        let lines = subscriber(format, EnvFilter::new("info"), move || Inert(writer.clone()));
        tracing::subscriber::with_default(lines, || {
            tracing::warn!(error = %hostile, word = hostile, debugged = ?hostile, "{hostile}");
            tracing::info!("harmless");
        });
        kept.text()
    }

    #[test]
    fn a_line_of_a_batch_that_is_traced_names_its_trace() {
        for format in [Format::Json, Format::Text] {
            let kept = Kept::default();
            let writer = kept.clone();
            let lines = subscriber(format, EnvFilter::new("warn"), move || Inert(writer.clone()));
            tracing::subscriber::with_default(lines, || {
                tracing::error_span!("batch", trace_id = "4bf9").in_scope(|| tracing::warn!("trying again"));
                tracing::warn!("of no batch");
            });
            let text = kept.text();
            let (traced, other) = text.trim_end().split_once('\n').expect("two lines");
            assert!(!other.contains("4bf9"), "{other}");
            if format == Format::Json {
                let event: serde_json::Value = serde_json::from_str(traced).expect("JSON");
                assert_eq!(event["span"]["trace_id"], "4bf9", "{event}");
            } else {
                assert!(traced.contains("trace_id=\"4bf9\""), "{traced}");
            }
        }
    }

    #[test]
    fn an_event_is_one_line_in_either_format_and_steers_no_terminal() {
        for format in [Format::Json, Format::Text] {
            let text = logged(format);
            assert_eq!(text.lines().count(), 2, "{text:?}");
            let steers = |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{202e}' | '\u{200b}'));
            assert!(!text.contains(steers), "{text:?}");
        }
        let line = logged(Format::Json);
        let event: serde_json::Value = serde_json::from_str(line.lines().next().unwrap_or_default()).expect("JSON");
        // For a machine it is what it was.
        assert_eq!(event["error"], "a\u{1b}[2J\nlevel=ERROR\r\u{9b}1m\u{202e}\u{200b}z");
    }
}

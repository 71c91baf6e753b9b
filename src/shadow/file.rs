//! Decisions in a file, or on standard output.
//!
//! Appends whole lines and makes them durable before it says so. One process a file. What a crash left of a line is cut off
//! when the file is opened: its record was not finished and is read again. Standard output is only flushed.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Error, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::{Decisions, WriteError};
use crate::inert::clean_lines;

/// The real one. A thread of its own writes, so that whatever came while it waited for the disk is made durable at once.
#[derive(Debug)]
pub struct FileDecisions {
    /// Taken when it is dropped, which ends the thread.
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Job {
    lines: Vec<u8>,
    done: oneshot::Sender<Result<(), WriteError>>,
}

#[derive(Debug)]
enum Out {
    Stdout,
    File {
        file: File,
        /// Up to here there are whole lines.
        whole_bytes: u64,
    },
}

/// Why a file cannot be written to.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot be opened: {0}")]
    Io(#[from] Error),
    #[error("is written by another process")]
    Busy,
    #[error("does not end like a file of decisions: give another name, or remove it")]
    Foreign,
}

/// How every line begins.
const BEGIN: &[u8] = b"{\"consumer\":\"";
/// A line is a few hundred bytes; what is longer without an end is none of ours.
const LONGEST_BYTES: u64 = 64 * 1024;

/// How much is written at once.
const AT_ONCE: usize = 256;

impl FileDecisions {
    /// # Errors
    /// There is no thread to be had.
    pub fn stdout() -> Result<Self, OpenError> {
        Self::of(Out::Stdout)
    }

    /// Goes on behind what is there.
    ///
    /// # Errors
    /// It cannot be opened, somebody else writes to it, or it is another file than one of ours.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Busy),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let whole_bytes = whole_bytes(&mut file)?;
        file.set_len(whole_bytes)?;
        // A new file's name must outlive the machine as its lines do.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        Self::of(Out::File { file, whole_bytes })
    }

    fn of(mut out: Out) -> Result<Self, OpenError> {
        let (jobs, queue) = mpsc::channel();
        let writer = std::thread::Builder::new().name("decisions".to_owned());
        let writer = writer.spawn(move || out.work(&queue))?;
        Ok(Self {
            jobs: Some(jobs),
            writer: Some(writer),
        })
    }
}

impl Drop for FileDecisions {
    /// The file is free behind it.
    fn drop(&mut self) {
        drop(self.jobs.take());
        let _it_never_panics = self.writer.take().map(JoinHandle::join);
    }
}

/// The length without a torn last line.
fn whole_bytes(file: &mut File) -> Result<u64, OpenError> {
    let len = file.metadata()?.len();
    let start = len.saturating_sub(LONGEST_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let last_end = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let torn = tail.get(last_end..).unwrap_or_default();
    let is_ours = torn.starts_with(BEGIN) || BEGIN.starts_with(torn);
    let is_cut = start > 0 && last_end == 0;
    if !is_ours || is_cut {
        return Err(OpenError::Foreign);
    }
    let torn_bytes = u64::try_from(torn.len()).unwrap_or(u64::MAX);
    Ok(len.saturating_sub(torn_bytes))
}

impl Out {
    fn work(&mut self, queue: &mpsc::Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let jobs: Vec<Job> = std::iter::once(first).chain(queue.try_iter().take(AT_ONCE)).collect();
            let lines: Vec<u8> = jobs.iter().flat_map(|job| job.lines.iter().copied()).collect();
            let written = self.write(&lines).map_err(|error| match error.kind() {
                ErrorKind::BrokenPipe => WriteError::Gone(error.to_string()),
                _ => WriteError::Unavailable(error.to_string()),
            });
            for job in jobs {
                let _nobody_waits = job.done.send(written.clone());
            }
        }
    }

    fn write(&mut self, lines: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = std::io::stdout().lock();
                // Perhaps a terminal; for a machine it is the same JSON.
                stdout.write_all(clean_lines(&String::from_utf8_lossy(lines)).as_bytes())?;
                stdout.flush()
            }
            Self::File { file, whole_bytes } => {
                // A write that failed may have left half a line, and all of it is written again.
                if file.metadata()?.len() != *whole_bytes {
                    file.set_len(*whole_bytes)?;
                }
                file.write_all(lines)?;
                file.sync_data()?;
                *whole_bytes += u64::try_from(lines.len()).unwrap_or_default();
                Ok(())
            }
        }
    }
}

impl Decisions for FileDecisions {
    fn write<'a>(&'a self, lines: &'a [u8]) -> BoxFuture<'a, Result<(), WriteError>> {
        async move {
            let (done, written) = oneshot::channel();
            let job = Job {
                lines: lines.to_vec(),
                done,
            };
            let gone = || WriteError::Unavailable("the writing thread is gone".to_owned());
            let jobs = self.jobs.as_ref().ok_or_else(gone)?;
            jobs.send(job).map_err(|_closed| gone())?;
            written.await.map_err(|_closed| gone())?
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("crm-shadow-{}-{name}", std::process::id()));
        let _was_not_there = std::fs::remove_file(&path);
        path
    }

    #[tokio::test]
    async fn what_a_crash_left_of_a_line_is_cut_off_and_whole_lines_stay() {
        let path = path("torn");
        std::fs::write(&path, "{\"consumer\":\"tier\"}\n{\"consumer\":\"cur").expect("written");
        let file = FileDecisions::open(&path).expect("ours");
        file.write(b"{\"consumer\":\"mission\"}\n").await.expect("written");
        let text = std::fs::read_to_string(&path).expect("there");
        assert_eq!(text, "{\"consumer\":\"tier\"}\n{\"consumer\":\"mission\"}\n");
        std::fs::remove_file(&path).expect("removed");
    }

    #[tokio::test]
    async fn a_file_has_one_writer_and_a_foreign_one_is_left_alone() {
        let path = path("busy");
        let first = FileDecisions::open(&path).expect("new");
        assert!(matches!(FileDecisions::open(&path), Err(OpenError::Busy)));
        drop(first);
        FileDecisions::open(&path).expect("free again");
        std::fs::write(&path, "notes of somebody\nwithout an end").expect("written");
        assert!(matches!(FileDecisions::open(&path), Err(OpenError::Foreign)));
        let text = std::fs::read_to_string(&path).expect("there");
        assert_eq!(text, "notes of somebody\nwithout an end");
        std::fs::remove_file(&path).expect("removed");
    }

    #[tokio::test]
    async fn what_a_failed_write_left_of_a_line_is_cut_off_before_the_next() {
        let path = path("half");
        let decisions = FileDecisions::open(&path).expect("new");
        decisions.write(b"{\"consumer\":\"tier\"}\n").await.expect("written");
        // As a full disk leaves it.
        let mut other = OpenOptions::new().append(true).open(&path).expect("there");
        other.write_all(b"{\"consumer\":\"cu").expect("written");
        decisions
            .write(b"{\"consumer\":\"currency\"}\n")
            .await
            .expect("written");
        let text = std::fs::read_to_string(&path).expect("there");
        assert_eq!(text, "{\"consumer\":\"tier\"}\n{\"consumer\":\"currency\"}\n");
        std::fs::remove_file(&path).expect("removed");
    }
}

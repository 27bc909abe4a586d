//! The node's disk: desired state and the claims it holds, in one crash-safe file.
//!
//! A single thread owns the database. It takes what waits in its queue, writes all of it in one
//! transaction, syncs once, and answers each request: a burst of changes costs one sync. Every
//! value carries a checksum of its own, so that damage is noticed when it is read and named, and
//! is never mistaken for an empty cluster.

mod database;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use dunlin_core::io::{Recovered, Write};
use dunlin_gossip::replication::PersistId;
use thiserror::Error;
use tokio::sync::mpsc;

use database::Database;

/// Requests that may wait for the disk. The engine sends one per accepted change and bounds those
/// itself; beyond this the disk is not working.
const QUEUE: usize = 1024;

/// Why the state cannot be read. Nothing has been changed on disk.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file cannot be opened.
    #[error("cannot open {path}: {reason}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the database said.
        reason: String,
    },
    /// The file is there and its content is not what was written.
    #[error("{path} is damaged ({what})")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which part.
        what: String,
    },
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Written {
    /// Which request.
    pub id: PersistId,
    /// Whether it is on disk now, or why not.
    pub result: Result<(), String>,
}

/// A handle on the disk thread.
#[derive(Debug)]
pub(crate) struct Store {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Job {
    id: PersistId,
    writes: Vec<Write>,
}

impl Store {
    /// Opens the file, reads what an earlier life left, and starts the thread. Answers come on
    /// `written`.
    pub(crate) fn open(
        dir: &Path,
        written: mpsc::Sender<Written>,
    ) -> Result<(Self, Recovered), StoreError> {
        let (mut database, recovered) = open_and_read(&dir.join(database::FILE))?;
        let (jobs, queue) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("dunlin-store".to_owned())
            .spawn(move || serve(&mut database, &queue, &written))
            .map_err(|e| StoreError::Open {
                path: dir.to_owned(),
                reason: e.to_string(),
            })?;
        Ok((
            Self {
                jobs: Some(jobs),
                thread: Some(thread),
            },
            recovered,
        ))
    }

    /// Moves a damaged file out of the way, so that the next [`Store::open`] starts empty. Returns
    /// its new path.
    pub(crate) fn set_aside(dir: &Path, wall_seconds: u64) -> std::io::Result<PathBuf> {
        let path = dir.join(database::FILE);
        let aside = dir.join(format!("{}.damaged-{wall_seconds}", database::FILE));
        std::fs::rename(&path, &aside)?;
        Ok(aside)
    }

    /// Deletes what this node knows of its cluster.
    pub(crate) fn forget(dir: &Path) -> Result<(), StoreError> {
        let path = dir.join(database::FILE);
        std::fs::remove_file(&path).map_err(|e| StoreError::Open {
            path,
            reason: e.to_string(),
        })
    }

    /// Queues a request. When the queue is full, or the thread has ended, the reason is returned
    /// and nothing will be written.
    pub(crate) fn persist(&self, id: PersistId, writes: Vec<Write>) -> Result<(), String> {
        let Some(jobs) = &self.jobs else {
            return Err("the store is closed".to_owned());
        };
        jobs.try_send(Job { id, writes })
            .map_err(|error| match error {
                TrySendError::Full(_) => {
                    format!("the disk is too slow: {QUEUE} writes are waiting")
                }
                TrySendError::Disconnected(_) => "the disk thread has ended".to_owned(),
            })
    }

    /// Writes what is queued and ends the thread.
    pub(crate) fn close(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the disk thread panicked");
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

/// The database library panics over some kinds of damage. That is damage like any other, and no
/// reason to show a stack.
fn open_and_read(path: &Path) -> Result<(Database, Recovered), StoreError> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let attempt = std::panic::catch_unwind(|| {
        let mut database = Database::open(path)?;
        let recovered = database.recover()?;
        Ok((database, recovered))
    });
    std::panic::set_hook(hook);
    attempt.unwrap_or_else(|_panic| {
        Err(StoreError::Damaged {
            path: path.to_owned(),
            what: "its structure makes no sense".to_owned(),
        })
    })
}

fn serve(database: &mut Database, queue: &Receiver<Job>, written: &mpsc::Sender<Written>) {
    while let Ok(first) = queue.recv() {
        let mut batch = vec![first];
        batch.extend(queue.try_iter().take(QUEUE - 1));
        let result = database.write(batch.iter().flat_map(|job| &job.writes));
        if let Err(reason) = &result {
            tracing::error!(%reason, "cannot write the state to disk");
        }
        for job in batch {
            if written
                .blocking_send(Written {
                    id: job.id,
                    result: result.clone(),
                })
                .is_err()
            {
                return;
            }
        }
    }
}

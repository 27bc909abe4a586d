//! Finding what an earlier life of the daemon started.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dunlin_core::io::{Adopted, Running, WorkloadId};
use dunlin_state::model::Outputs;
use tracing::warn;

use super::super::{Ending, Found};
use super::watch::{Watched, conclude};
use super::{Inner, blocking, directory, take_lock};
use crate::supervisor::{ExitRecord, LaunchSpec, Paths, RunRecord, boot_id, read_json};

/// A supervisor that was just being started needs a moment to say what it runs.
const RECORD_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between looks for that record.
const RECORD_PAUSE: Duration = Duration::from_millis(20);

/// What a directory says.
enum State {
    /// Ended, with code and whether memory was the reason.
    Ended(i32, bool),
    /// Its supervisor lives.
    Held,
}

impl Inner {
    /// Finds all attempts, living and dead.
    pub(super) async fn adopt(self: Arc<Self>) -> Vec<Found> {
        let inner = self.clone();
        let all = blocking(move || inner.survey()).await.unwrap_or_default();
        let mut found = Vec::new();
        for (paths, spec, state) in all {
            let id = WorkloadId::from(spec.id.clone());
            found.extend(self.take_over(paths, spec, id, state).await);
        }
        found
    }

    async fn take_over(
        self: &Arc<Self>,
        paths: Paths,
        spec: LaunchSpec,
        id: WorkloadId,
        state: State,
    ) -> Option<Found> {
        let ended = |code, oom| Found {
            adopted: Adopted {
                running: Running {
                    id: id.clone(),
                    workload: String::new(),
                    endpoints: Vec::new(),
                    image_health: None,
                },
                revision: spec.revision.clone(),
                exited: Some((code, oom)),
                outputs: Ok(Outputs::default()),
            },
            ended: None,
        };
        match state {
            State::Ended(code, oom) => return Some(ended(code, oom)),
            State::Held => {}
        }
        let Some(record) = record(&paths).await else {
            warn!(path = %paths.directory().display(), "a supervisor does not say what it runs");
            return None;
        };
        match Watched::adopt(&record) {
            Ok(watched) => {
                self.sources
                    .note(paths.directory(), record.supervisor, &spec.networks);
                Some(Found {
                    adopted: Adopted {
                        running: self.running(&id, &record),
                        revision: spec.revision,
                        exited: None,
                        outputs: Ok(Outputs::default()),
                    },
                    ended: Some(self.ended(watched, paths)),
                })
            }
            // It ended between the two looks.
            Err(_) => match blocking(move || conclude(&paths)).await? {
                Ending::Exited { code, oom } => Some(ended(code, oom)),
                Ending::Lost => Some(ended(KILLED.0, KILLED.1)),
            },
        }
    }

    fn survey(&self) -> Vec<(Paths, LaunchSpec, State)> {
        let mut all = Vec::new();
        for namespace in children(&self.workloads) {
            for service in children(&namespace) {
                for attempt in children(&service) {
                    all.extend(self.look_at(&attempt));
                }
            }
        }
        all
    }

    fn look_at(&self, path: &Path) -> Option<(Paths, LaunchSpec, State)> {
        let paths = Paths::new(path);
        let lock = match take_lock(&paths.lock()) {
            Ok(lock) => lock,
            Err(error) => {
                warn!(path = %path.display(), %error, "cannot tell whether this attempt runs");
                return None;
            }
        };
        let spec = match read_json::<LaunchSpec>(&paths.spec()) {
            Ok(spec) => spec,
            Err(error) => {
                // A power loss may leave anything. Without a lock held there is nothing to lose.
                warn!(path = %path.display(), %error, "an attempt's record is damaged");
                if lock.is_some() {
                    directory::delete(path);
                }
                return None;
            }
        };
        if self.directory(&WorkloadId::from(spec.id.clone())) != path {
            warn!(path = %path.display(), "an attempt's record belongs elsewhere; left alone");
            return None;
        }
        let state = match lock {
            None => State::Held,
            Some(_lock) => match conclude(&paths) {
                Ending::Exited { code, oom } => State::Ended(code, oom),
                Ending::Lost => State::Ended(KILLED.0, KILLED.1),
            },
        };
        Some((paths, spec, state))
    }
}

/// How an attempt is reported that died unseen.
const KILLED: (i32, bool) = (128 + 9, false);

fn children(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            entry.file_type().ok()?.is_dir().then(|| entry.path())
        })
        .collect();
    paths.sort();
    paths
}

async fn record(paths: &Paths) -> Option<RunRecord> {
    let wait = async {
        loop {
            let record = read_json::<RunRecord>(&paths.run());
            if let Ok(record) = record
                && record.boot == boot_id()
            {
                return record;
            }
            tokio::time::sleep(RECORD_PAUSE).await;
        }
    };
    tokio::time::timeout(RECORD_TIMEOUT, wait).await.ok()
}

/// Reads an exit record, if there is one.
pub(super) fn has_ended(paths: &Paths) -> bool {
    read_json::<ExitRecord>(&paths.exit()).is_ok()
}

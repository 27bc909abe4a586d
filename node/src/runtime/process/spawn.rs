//! Starting an attempt.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dunlin_core::io::Workload;
use dunlin_state::model::{PortSpec, PublishMode, networks_of, variable_part};
use rustix::process::{Pid, PidfdFlags};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::unix::pipe;

use super::super::{LOG_FILE_BYTES, environment, outputs, signal};
use super::watch::Watched;
use super::{Inner, Live, StartError, blocking, directory, is_held};
use crate::runtime::Deadline;
use crate::supervisor::proc;
use crate::supervisor::{
    Handshake, LaunchSpec, Paths, PortWish, RunRecord, StoredId, read_json, user_ids, write_json,
};

/// A supervisor that has not answered by then is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer: a few hundred ports fit.
const MAX_HANDSHAKE_BYTES: u64 = 64 * 1024;
/// The most of a supervisor's complaint that is passed on.
const MAX_COMPLAINT: usize = 300;

/// What became of preparing.
enum Prepared {
    /// A supervisor was started.
    Spawned(Spawned),
    /// It runs already.
    Running(RunRecord),
}

struct Spawned {
    child: Child,
    pidfd: OwnedFd,
    answer: OwnedFd,
}

impl Inner {
    /// Starts an attempt.
    pub(super) async fn start(
        self: Arc<Self>,
        workload: &Workload,
        dead_by: Option<Deadline>,
    ) -> Result<Live, StartError> {
        let inner = self.clone();
        let asked = workload.clone();
        let networks = networks_of(&workload.id.slot.service, &workload.spec.networks);
        let prepared = blocking(move || inner.prepare(&asked, dead_by))
            .await
            .unwrap_or_else(|| Err(StartError::passing("preparing it failed")))?;
        let paths = self.paths(&workload.id);
        let (watched, record) = match prepared {
            Prepared::Running(record) => {
                let watched = Watched::adopt(&record)
                    .map_err(|e| StartError::passing(format!("cannot watch it: {e}")))?;
                self.sources
                    .note(paths.directory(), record.supervisor, &networks);
                (watched, record)
            }
            Prepared::Spawned(spawned) => {
                let Spawned {
                    child,
                    pidfd,
                    answer,
                } = spawned;
                let watched = Watched::new(pidfd, Some(child)).map_err(|e| {
                    self.sources.forget(paths.directory());
                    StartError::passing(format!("cannot watch it: {e}"))
                })?;
                match read_answer(answer, &paths).await {
                    Ok(record) => (watched, record),
                    Err(error) => {
                        self.sources.forget(paths.directory());
                        watched.discard(paths).await;
                        return Err(error);
                    }
                }
            }
        };
        for note in &record.notes {
            tracing::warn!(slot = %workload.id.slot, "{note}");
        }
        Ok(Live {
            running: self.running(&workload.id, &record),
            ended: self.ended(watched, paths),
        })
    }

    /// Everything up to the running supervisor; blocking.
    fn prepare(
        &self,
        workload: &Workload,
        dead_by: Option<Deadline>,
    ) -> Result<Prepared, StartError> {
        let id = &workload.id;
        let paths = self.paths(id);
        if paths.directory().exists() {
            let held = is_held(&paths).map_err(|e| disk(paths.directory(), &e))?;
            if held {
                // A repeated start.
                return read_json(&paths.run())
                    .map(Prepared::Running)
                    .map_err(|e| disk(&paths.run(), &e));
            }
            // An earlier life of this daemon counted its attempts from zero as well.
            directory::delete(paths.directory());
        }
        self.prune(&id.slot);
        let spec = LaunchSpec {
            dead_by,
            ..self.launch_spec(workload)?
        };
        private_directory(paths.directory()).map_err(|e| disk(paths.directory(), &e))?;
        write_json(&paths.spec(), &spec).map_err(|e| disk(&paths.spec(), &e))?;
        self.sources.announce(paths.directory(), &spec.networks);
        let spawned = self.spawn(&paths).and_then(|spawned| {
            let stamp = proc::stamp(spawned.child.id().cast_signed());
            let stamp = stamp.ok_or(io::ErrorKind::NotFound)?;
            self.sources.note(paths.directory(), stamp, &spec.networks);
            Ok(spawned)
        });
        spawned.map(Prepared::Spawned).map_err(|error| {
            self.sources.forget(paths.directory());
            directory::delete(paths.directory());
            let program = Path::new(&self.supervisor[0]).display();
            StartError::passing(format!("cannot start its supervisor {program}: {error}"))
        })
    }

    fn spawn(&self, paths: &Paths) -> io::Result<Spawned> {
        let mut child = Command::new(&self.supervisor[0])
            .args(&self.supervisor[1..])
            .arg(paths.directory())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(paths.complaint())?)
            .spawn()?;
        let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
        let answer = child.stdout.take().ok_or_else(missing)?.into();
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pidfd = rustix::process::pidfd_open(pid.ok_or_else(missing)?, PidfdFlags::empty())?;
        Ok(Spawned {
            child,
            pidfd,
            answer,
        })
    }

    fn launch_spec(&self, workload: &Workload) -> Result<LaunchSpec, StartError> {
        let spec = &workload.spec;
        if let Some(name) = &spec.stop_signal
            && signal::parse(name).is_none()
        {
            return Err(StartError::hopeless(format!(
                "'{name}' is no signal that a process can be stopped with"
            )));
        }
        let mut environment = environment::of_process(workload);
        if let Some(name) = environment.keys().find(|k| k.is_empty() || k.contains('=')) {
            return Err(StartError::hopeless(format!(
                "'{name}' cannot be the name of an environment variable"
            )));
        }
        let namespace = workload.id.slot.service.namespace();
        for (name, value) in self.names.iter().flat_map(|n| n.variables(namespace)) {
            environment.insert(name.to_owned(), value);
        }
        environment.extend(self.files.variables(workload));
        // Another user may not enter the daemon's data directory.
        let other = spec.user.as_deref().is_some_and(|user| !is_own_user(user));
        if workload.tells && !other {
            let path = self
                .outputs
                .path(&workload.id)
                .to_string_lossy()
                .into_owned();
            environment.insert(outputs::VARIABLE.to_owned(), path);
        }
        let mut volumes = Vec::new();
        for volume in &spec.volumes {
            if let Some((_, path)) = self.volumes.open(workload, volume)? {
                let name = variable_part(&volume.source);
                environment.insert(
                    format!("DUNLIN_VOLUME_{name}"),
                    path.to_string_lossy().into_owned(),
                );
                volumes.push(path);
            }
        }
        let leaf = Self::leaf(&workload.id);
        let cgroups = self.cgroups.as_ref().ok();
        Ok(LaunchSpec {
            id: StoredId::from(&workload.id),
            revision: workload.revision.clone(),
            argv: [&spec.entrypoint[..], &spec.command[..]].concat(),
            dunlin: PathBuf::from(&self.supervisor[0]),
            environment,
            working_dir: spec.working_dir.as_ref().map(PathBuf::from),
            user: spec.user.clone(),
            address: self.advertise,
            ports: spec.ports.iter().map(wish).collect(),
            volumes,
            resolv_conf: self.names.as_ref().and_then(|n| n.resolv_conf(namespace)),
            networks: networks_of(&workload.id.slot.service, &spec.networks),
            cgroup: cgroups.map(|hierarchy| hierarchy.plan(&leaf, spec.limit)),
            dead_by: None,
            log_file_bytes: LOG_FILE_BYTES,
        })
    }
}

/// Whether that is the user that the daemon runs as.
fn is_own_user(user: &str) -> bool {
    user_ids(user).is_ok_and(|(uid, _)| uid == rustix::process::geteuid().as_raw())
}

fn wish(port: &PortSpec) -> PortWish {
    let fixed = match port.publish_mode {
        PublishMode::Host => port.published,
        PublishMode::Ingress => None,
    };
    PortWish {
        target: port.target,
        protocol: port.protocol,
        fixed,
    }
}

fn disk(path: &Path, error: &io::Error) -> StartError {
    StartError::passing(format!("cannot use {}: {error}", path.display()))
}

/// Only for the daemon's user: specifications and logs may hold secrets.
fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

async fn read_answer(answer: OwnedFd, paths: &Paths) -> Result<RunRecord, StartError> {
    let failed = |reason: String| {
        let complaint = fs::read_to_string(paths.complaint()).unwrap_or_default();
        let complaint: String = complaint.trim().chars().take(MAX_COMPLAINT).collect();
        StartError::passing(format!("its supervisor {reason} {complaint}").trim_end())
    };
    let pipe = pipe::Receiver::from_owned_fd(answer)
        .map_err(|e| failed(format!("cannot be heard: {e}")))?;
    let mut line = String::new();
    let mut reader = BufReader::new(pipe.take(MAX_HANDSHAKE_BYTES));
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, reader.read_line(&mut line)).await {
        Err(_) => return Err(failed("did not answer in time".to_owned())),
        Ok(Err(error)) => return Err(failed(format!("cannot be heard: {error}"))),
        Ok(Ok(_)) => {}
    }
    match serde_json::from_str(&line) {
        Ok(Handshake::Started(record)) => Ok(*record),
        Ok(Handshake::Failed { reason, hopeless }) => Err(StartError::Failed { reason, hopeless }),
        Err(_) if line.is_empty() => Err(failed("ended without an answer".to_owned())),
        Err(error) => Err(failed(format!(
            "gave an answer that makes no sense: {error}"
        ))),
    }
}

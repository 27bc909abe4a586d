//! Commands that are run beside a workload: the same program search, environment, user and
//! directory.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use super::launch::{User, program, set_environment, working_dir};
use super::record::{LaunchSpec, Paths, RunRecord, read_json};

/// What differs from the workload.
#[derive(Debug, Clone, Default)]
pub(crate) struct Difference {
    /// More variables.
    pub(crate) environment: BTreeMap<String, String>,
    /// Another user.
    pub(crate) user: Option<String>,
    /// Another directory.
    pub(crate) working_dir: Option<PathBuf>,
}

/// A command beside a workload, ready to be started.
#[derive(Debug)]
pub(crate) struct Beside {
    pub(crate) command: Command,
    /// The workload's cgroup, if it has one.
    pub(crate) cgroup: Option<super::cgroup::CgroupPlan>,
    /// Whose it will be; this process's own when absent.
    pub(crate) user: Option<(u32, u32)>,
}

/// The command for these words. The error says why it cannot be.
pub(crate) fn beside(
    paths: &Paths,
    words: &[String],
    difference: Difference,
) -> Result<Beside, String> {
    let unreadable = |error: std::io::Error| format!("the attempt's records are gone: {error}");
    let record: RunRecord = read_json(&paths.run()).map_err(unreadable)?;
    let mut spec: LaunchSpec = read_json(&paths.spec()).map_err(unreadable)?;
    spec.argv = words.to_vec();
    spec.environment.extend(difference.environment);
    spec.user = difference.user.or(spec.user);
    spec.working_dir = difference.working_dir.or(spec.working_dir);
    let user = spec.user.as_deref().map(User::find).transpose();
    let user = user.map_err(|refusal| refusal.reason)?;
    let program = program(&spec).map_err(|refusal| refusal.reason)?;
    let directory = working_dir(paths, &spec, user.as_ref()).map_err(|refusal| refusal.reason)?;
    let mut command = Command::new(program);
    command
        .args(words.get(1..).unwrap_or_default())
        .current_dir(directory);
    if let Some(name) = words.first() {
        command.arg0(name);
    }
    set_environment(&mut command, &spec, &record.ports, user.as_ref());
    let user = user.filter(|user| !user.is_self());
    if let Some(user) = &user {
        command.uid(user.uid).gid(user.gid);
    }
    Ok(Beside {
        command,
        cgroup: spec.cgroup,
        user: user.map(|user| (user.uid, user.gid)),
    })
}

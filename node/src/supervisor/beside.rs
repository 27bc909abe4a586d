//! Commands that are run beside a workload: the same program search, environment, user and
//! directory.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::launch::{User, program, set_environment, working_dir};
use super::record::{LaunchSpec, Paths, RunRecord, read_json};

/// The command for these words, ready to be started, and the workload's cgroup if it has one. The
/// error says why it cannot be.
pub(crate) fn beside(
    paths: &Paths,
    words: &[String],
) -> Result<(Command, Option<super::cgroup::CgroupPlan>), String> {
    let unreadable = |error: std::io::Error| format!("the attempt's records are gone: {error}");
    let record: RunRecord = read_json(&paths.run()).map_err(unreadable)?;
    let mut spec: LaunchSpec = read_json(&paths.spec()).map_err(unreadable)?;
    spec.argv = words.to_vec();
    let user = spec.user.as_deref().map(User::find).transpose();
    let user = user.map_err(|refusal| refusal.reason)?;
    let program = program(&spec).map_err(|refusal| refusal.reason)?;
    let directory = working_dir(paths, &spec, user.as_ref()).map_err(|refusal| refusal.reason)?;
    let mut command = Command::new(program);
    command.args(&words[1..]).current_dir(directory);
    if let Some(name) = words.first() {
        command.arg0(name);
    }
    set_environment(&mut command, &spec, &record.ports, user.as_ref());
    if let Some(user) = &user
        && !user.is_self()
    {
        command.uid(user.uid).gid(user.gid);
    }
    Ok((command, spec.cgroup))
}

//! What a process and its children use: by their cgroup, or without one by adding up the processes
//! of the supervisor's session; of those that have ended, only what their parents have waited for.

use std::fs;
use std::path::Path;

use dunlin_core::io::WorkloadId;

use super::super::usage::Usage;
use super::{Inner, blocking, is_held};
use crate::supervisor::cgroup::Group;
use crate::supervisor::{LaunchSpec, Paths, RunRecord, proc, read_json};

impl Inner {
    /// What an attempt that lives has used.
    pub(super) async fn usage(&self, id: &WorkloadId) -> Option<Result<Usage, String>> {
        let paths = self.paths(id);
        let read = move || {
            let runs = paths.directory().exists() && matches!(is_held(&paths), Ok(true));
            runs.then(|| read(&paths))
        };
        blocking(read).await?
    }
}

fn read(paths: &Paths) -> Result<Usage, String> {
    let unreadable = |error: std::io::Error| format!("the attempt's records are gone: {error}");
    let spec: LaunchSpec = read_json(&paths.spec()).map_err(unreadable)?;
    let record: RunRecord = read_json(&paths.run()).map_err(unreadable)?;
    let counted = spec.cgroup.and_then(|plan| of_group(&plan.group));
    let Some(counted) = counted else {
        return Ok(of_session(&record));
    };
    Ok(match counted.cpu_us {
        Some(_) => counted,
        None => Usage {
            cpu_us: of_session(&record).cpu_us,
            ..counted
        },
    })
}

/// `None` when there is no such group.
fn of_group(group: &Group) -> Option<Usage> {
    let usage = match group {
        Group::V2(directory) => Usage {
            cpu_us: line(&directory.join("cpu.stat"), "usage_usec"),
            memory: resident(
                number(&directory.join("memory.current")),
                line(&directory.join("memory.stat"), "inactive_file"),
            ),
            processes: count(directory),
            network: None,
        },
        Group::V1 { cpu, memory } => Usage {
            // Nanoseconds; only where the two controllers are mounted together.
            cpu_us: number(&cpu.join("cpuacct.usage")).map(|nanos| nanos / 1_000),
            memory: resident(
                number(&memory.join("memory.usage_in_bytes")),
                line(&memory.join("memory.stat"), "total_inactive_file"),
            ),
            processes: count(memory),
            network: None,
        },
    };
    usage.processes.is_some().then_some(usage)
}

/// Pages of files that nobody uses are dropped when memory is short; they are not counted.
fn resident(all: Option<u64>, inactive: Option<u64>) -> Option<u64> {
    all.map(|all| all.saturating_sub(inactive.unwrap_or(0)))
}

fn count(directory: &Path) -> Option<u64> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).ok()?;
    u64::try_from(text.lines().count()).ok()
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn line(file: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == name).then(|| value.trim().parse().ok())?
    })
}

fn of_session(record: &RunRecord) -> Usage {
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4_096);
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let members = proc::session_members(record.supervisor);
    let stats: Vec<_> = members.into_iter().filter_map(proc::stat).collect();
    let ticks_of = |stat: &proc::Stat| stat.cpu_ticks.saturating_add(stat.children_ticks);
    let cpu: u64 = stats.iter().map(ticks_of).sum();
    let pages: u64 = stats.iter().map(|stat| stat.resident_pages).sum();
    Usage {
        cpu_us: Some(cpu.saturating_mul(1_000_000) / ticks),
        memory: Some(pages.saturating_mul(page)),
        processes: u64::try_from(stats.len()).ok(),
        network: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_version_2_is_read() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(root.path().join(name), text).unwrap();
        let group = Group::V2(root.path().to_owned());
        assert_eq!(of_group(&group), None, "no group");
        write("cgroup.procs", "1\n22\n");
        write("cpu.stat", "usage_usec 1500\nuser_usec 1000\n");
        write("memory.current", "5000\n");
        write("memory.stat", "anon 3000\ninactive_file 1000\n");
        let expected = Usage {
            cpu_us: Some(1_500),
            memory: Some(4_000),
            processes: Some(2),
            network: None,
        };
        assert_eq!(of_group(&group), Some(expected));
    }

    #[test]
    fn a_group_of_version_1_is_read_as_far_as_it_goes() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(root.path().join(name), text).unwrap();
        let group = Group::V1 {
            cpu: root.path().to_owned(),
            memory: root.path().to_owned(),
        };
        write("cgroup.procs", "7\n");
        write("cpuacct.usage", "2500000\n");
        write("memory.usage_in_bytes", "nonsense");
        let expected = Usage {
            cpu_us: Some(2_500),
            memory: None,
            processes: Some(1),
            network: None,
        };
        assert_eq!(of_group(&group), Some(expected));
    }
}

//! Control groups of workloads: limits, whole kills, and word of who died for its memory.
//!
//! Version 2 is used where it has the `cpu` and `memory` controllers, else the two controllers of
//! version 1. Where the daemon may write neither, workloads run without limits and the node says
//! so: placement still counts reservations, nothing enforces them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dunlin_state::model::Resources;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

/// Period of the CPU quota in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// The smallest quota that the kernel accepts.
const MIN_CPU_QUOTA_US: u64 = 1_000;
/// Rounds of killing what forks while it is being killed.
const KILL_ROUNDS: u32 = 200;
/// Pause between such rounds.
const KILL_PAUSE: Duration = Duration::from_millis(1);

/// Where this node makes its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hierarchy {
    /// The unified hierarchy.
    V2 {
        /// Directory of this node's groups.
        base: PathBuf,
    },
    /// Controllers in hierarchies of their own.
    V1 {
        /// Directory of this node's groups for the `cpu` controller.
        cpu: PathBuf,
        /// The same for `memory`.
        memory: PathBuf,
    },
}

/// The group of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CgroupPlan {
    /// Its directories.
    pub(crate) group: Group,
    /// Thousandths of a core; zero is unlimited.
    pub(crate) cpu_millis: u64,
    /// Bytes; zero is unlimited.
    pub(crate) memory: u64,
}

/// Directories of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Group {
    /// One directory.
    V2(PathBuf),
    /// One per controller.
    V1 {
        /// CPU quota.
        cpu: PathBuf,
        /// Memory limit.
        memory: PathBuf,
    },
}

impl Hierarchy {
    /// Finds where groups may be made and proves it by making one. `name` tells the daemons of
    /// one host apart. The error says what is missing, for a person.
    pub(crate) fn detect(name: &str) -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|e| e.to_string())?;
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
        let hierarchy = Self::find(&mounts, &own, name)
            .ok_or("no cgroup file system with the cpu and memory controllers is mounted")?;
        let plan = hierarchy.plan("probe", Resources::ZERO);
        plan.create()
            .map_err(|e| format!("no write access to cgroups ({e})"))?;
        plan.remove();
        Ok(hierarchy)
    }

    fn find(mounts: &str, own: &str, name: &str) -> Option<Self> {
        if let Some(root) = mount_point(mounts, "cgroup2", None)
            && let Ok(controllers) = fs::read_to_string(root.join("cgroup.controllers"))
            && ["cpu", "memory"]
                .iter()
                .all(|c| controllers.split_ascii_whitespace().any(|has| has == *c))
        {
            // Not below the daemon's own group: one that holds processes cannot pass controllers
            // on, and a service manager that stops the daemon kills all that is in it.
            return Some(Self::V2 {
                base: root.join(format!("dunlin-{name}")),
            });
        }
        let place = |controller: &str| {
            let root = mount_point(mounts, "cgroup", Some(controller))?;
            // Below the daemon's own group, so that a limit on all of it also covers its work.
            let inside = own_group(own, controller)
                .map(|path| root.join(path.trim_start_matches('/')))
                .filter(|path| path.is_dir());
            Some(inside.unwrap_or(root).join(format!("dunlin-{name}")))
        };
        Some(Self::V1 {
            cpu: place("cpu")?,
            memory: place("memory")?,
        })
    }

    /// The group of an attempt; `leaf` must be a plain file name.
    pub(crate) fn plan(&self, leaf: &str, limit: Resources) -> CgroupPlan {
        let group = match self {
            Self::V2 { base } => Group::V2(base.join(leaf)),
            Self::V1 { cpu, memory } => Group::V1 {
                cpu: cpu.join(leaf),
                memory: memory.join(leaf),
            },
        };
        CgroupPlan {
            group,
            cpu_millis: limit.cpu_millis,
            memory: limit.memory,
        }
    }
}

impl CgroupPlan {
    fn directories(&self) -> Vec<&Path> {
        match &self.group {
            Group::V2(directory) => vec![directory],
            Group::V1 { cpu, memory } => vec![cpu, memory],
        }
    }

    /// Makes the group. Called again it changes nothing.
    pub(crate) fn create(&self) -> io::Result<()> {
        for directory in self.directories() {
            make_group(directory, matches!(self.group, Group::V2(_)))?;
        }
        Ok(())
    }

    /// Sets the limits; returns in words those that the kernel did not take.
    pub(crate) fn apply_limits(&self) -> Vec<String> {
        let mut failed = Vec::new();
        if self.memory > 0
            && let Err(error) = self.limit_memory()
        {
            failed.push(format!("memory limit not enforced: {error}"));
        }
        if self.cpu_millis > 0
            && let Err(error) = self.limit_cpu()
        {
            failed.push(format!("cpu limit not enforced: {error}"));
        }
        failed
    }

    fn limit_memory(&self) -> io::Result<()> {
        let bytes = self.memory.to_string();
        match &self.group {
            Group::V2(directory) => {
                fs::write(directory.join("memory.max"), &bytes)?;
                // Absent without swap. A replica that swaps is over its limit all the same.
                let _ = fs::write(directory.join("memory.swap.max"), "0");
                let _ = fs::write(directory.join("memory.oom.group"), "1");
            }
            Group::V1 { memory, .. } => {
                fs::write(memory.join("memory.limit_in_bytes"), &bytes)?;
                let _ = fs::write(memory.join("memory.memsw.limit_in_bytes"), &bytes);
            }
        }
        Ok(())
    }

    fn limit_cpu(&self) -> io::Result<()> {
        let quota = self.cpu_millis.saturating_mul(CPU_PERIOD_US) / 1_000;
        let quota = quota.max(MIN_CPU_QUOTA_US);
        match &self.group {
            Group::V2(directory) => fs::write(
                directory.join("cpu.max"),
                format!("{quota} {CPU_PERIOD_US}"),
            ),
            Group::V1 { cpu, .. } => {
                fs::write(cpu.join("cpu.cfs_period_us"), CPU_PERIOD_US.to_string())?;
                fs::write(cpu.join("cpu.cfs_quota_us"), quota.to_string())
            }
        }
    }

    /// The files that a process enters the group by.
    pub(crate) fn open_procs(&self) -> Vec<fs::File> {
        self.directories()
            .into_iter()
            .filter_map(|d| {
                fs::File::options()
                    .write(true)
                    .open(d.join("cgroup.procs"))
                    .ok()
            })
            .collect()
    }

    /// Whether the kernel has killed a process of the group for its memory.
    pub(crate) fn oom_killed(&self) -> bool {
        let file = match &self.group {
            Group::V2(directory) => directory.join("memory.events"),
            Group::V1 { memory, .. } => memory.join("memory.oom_control"),
        };
        fs::read_to_string(file).is_ok_and(|text| counter(&text, "oom_kill").unwrap_or(0) > 0)
    }

    /// The processes in the group.
    pub(crate) fn members(&self) -> Vec<i32> {
        let directory = match &self.group {
            Group::V2(directory) => directory,
            Group::V1 { memory, .. } => memory,
        };
        fs::read_to_string(directory.join("cgroup.procs"))
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect()
    }

    /// Kills every process of the group, and waits a little for them to be gone.
    pub(crate) fn kill_all(&self) {
        if let Group::V2(directory) = &self.group {
            // Linux 5.14; older kernels take the loop.
            let _ = fs::write(directory.join("cgroup.kill"), "1");
        }
        for _ in 0..KILL_ROUNDS {
            let members = self.members();
            if members.is_empty() {
                return;
            }
            for pid in members.into_iter().filter_map(Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(KILL_PAUSE);
        }
    }

    /// Removes the group, and this node's directory when it was the last. Fails silently while
    /// processes are in it.
    pub(crate) fn remove(&self) {
        for directory in self.directories() {
            for _ in 0..KILL_ROUNDS {
                match fs::remove_dir(directory) {
                    // The kernel takes a moment to let go of members that have died.
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                        std::thread::sleep(KILL_PAUSE);
                    }
                    Ok(()) | Err(_) => break,
                }
            }
            if let Some(parent) = directory.parent() {
                let _ = fs::remove_dir(parent);
            }
        }
    }
}

/// Makes a group and the one above it. Another attempt's end may remove the upper one in between.
fn make_group(directory: &Path, unified: bool) -> io::Result<()> {
    let parent = directory.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut result = Ok(());
    for _ in 0..4 {
        match fs::create_dir(parent) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        if unified {
            for above in [parent.parent().unwrap_or(parent), parent] {
                // Whether it worked shows when a limit is set.
                let _ = fs::write(above.join("cgroup.subtree_control"), "+cpu +memory");
            }
        }
        result = fs::create_dir(directory);
        match &result {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return result,
        }
    }
    result
}

/// The value of a `name value` line.
fn counter(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == name).then(|| value.trim().parse().ok())?
    })
}

/// Where a cgroup file system is mounted, from the text of `/proc/self/mountinfo` (proc(5)).
fn mount_point(mounts: &str, kind: &str, controller: Option<&str>) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split_ascii_whitespace();
        if right.next()? != kind {
            return None;
        }
        let options = right.nth(1).unwrap_or_default();
        if controller.is_some_and(|c| options.split(',').all(|option| option != c)) {
            return None;
        }
        Some(PathBuf::from(left.split_ascii_whitespace().nth(4)?))
    })
}

/// The group of this process for a controller of version 1, from `/proc/self/cgroup`.
fn own_group<'a>(own: &'a str, controller: &str) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let controllers = parts.next()?;
        let path = parts.next()?;
        controllers
            .split(',')
            .any(|c| c == controller)
            .then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
34 30 0:31 / /cg/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 30 0:32 / /cg/memory rw,relatime - cgroup cgroup rw,memory
36 30 0:33 / /cg/unified rw,relatime - cgroup2 cgroup2 rw";

    #[test]
    fn version_1_controllers_are_found_wherever_they_are_mounted() {
        let own = "4:memory:/nowhere\n3:cpu,cpuacct:/\n0::/x";
        let expected = Hierarchy::V1 {
            cpu: "/cg/cpu,cpuacct/dunlin-n".into(),
            memory: "/cg/memory/dunlin-n".into(),
        };
        assert_eq!(Hierarchy::find(HYBRID, own, "n"), Some(expected));
        assert_eq!(own_group(own, "cpuacct"), Some("/"));
        assert_eq!(Hierarchy::find("", own, "n"), None);
    }

    #[test]
    fn version_2_is_taken_where_it_has_both_controllers() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().display();
        let mounts = format!("{HYBRID}\n").replace("/cg/unified", &at.to_string());
        let controllers = root.path().join("cgroup.controllers");
        fs::write(&controllers, "hugetlb memory\n").unwrap();
        let found = Hierarchy::find(&mounts, "", "n");
        assert!(matches!(found, Some(Hierarchy::V1 { .. })));
        fs::write(&controllers, "cpuset cpu io memory\n").unwrap();
        let base = root.path().join("dunlin-n");
        assert_eq!(
            Hierarchy::find(&mounts, "", "n"),
            Some(Hierarchy::V2 { base })
        );
    }

    #[test]
    fn version_2_limits_are_written_in_the_kernels_terms() {
        let root = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy::V2 {
            base: root.path().join("dunlin-n"),
        };
        let limit = Resources {
            cpu_millis: 1_500,
            memory: 1 << 20,
            disk: 0,
        };
        let plan = hierarchy.plan("a", limit);
        plan.create().unwrap();
        plan.create().unwrap();
        assert!(plan.apply_limits().is_empty());
        let read = |name| fs::read_to_string(root.path().join("dunlin-n/a").join(name)).unwrap();
        assert_eq!(read("cpu.max"), "150000 100000");
        assert_eq!(read("memory.max"), "1048576");
        assert_eq!(read("memory.swap.max"), "0");
    }

    #[test]
    fn an_oom_kill_is_read_from_either_version() {
        let v2 = "low 0\nhigh 0\nmax 7\noom 1\noom_kill 2\n";
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n";
        assert_eq!(counter(v2, "oom_kill"), Some(2));
        assert_eq!(counter(v1, "oom_kill"), Some(0));
        assert_eq!(counter("oom_kill", "oom_kill"), None);
    }
}

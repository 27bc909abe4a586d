//! What this host is: its fingerprint and what replicas may use of it.

mod devices;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use dunlin_state::model::{Facts, Resources};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Reads the host's facts. What cannot be read stays empty: a fact is never guessed.
pub(crate) fn facts(data_dir: &Path) -> Facts {
    let uname = rustix::system::uname();
    Facts {
        os: uname.sysname().to_string_lossy().to_lowercase(),
        distribution: distribution(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
        arch: docker_arch(&uname.machine().to_string_lossy()).to_owned(),
        kernel: uname.release().to_string_lossy().into_owned(),
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        memory: memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        disk: rustix::fs::statvfs(data_dir).map_or(0, |s| s.f_blocks.saturating_mul(s.f_frsize)),
        engine: None,
        devices: devices::kinds(Path::new("/dev")),
    }
}

/// What may still be written there; `None` when the system does not say.
pub(crate) fn free_bytes(data_dir: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(data_dir).ok()?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}

/// What replicas may reserve in total: all of the host. The daemon's own 30 MB are not worth a
/// knob.
pub(crate) fn capacity(facts: &Facts) -> Resources {
    Resources {
        cpu_millis: u64::from(facts.cpus) * 1000,
        memory: facts.memory,
        disk: facts.disk,
    }
}

/// Descriptors that the daemon asks for, if it may have them: two for each connection through its
/// proxies. Workloads inherit the limit, and some programs get slow above this.
const DESCRIPTORS: u64 = 65_536;

/// Raises the limit of open descriptors, which is 1,024 on many hosts.
pub(crate) fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    let wanted = most.min(DESCRIPTORS);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        };
        // With the old limit there is room for fewer connections, and nothing else.
        let _refused = setrlimit(Resource::Nofile, raised);
    }
}

/// The host's name as a DNS label, or `node` when it has none that can be made one.
pub(crate) fn name() -> String {
    let raw = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .to_lowercase();
    let first = raw.split('.').next().unwrap_or_default();
    let label: String = first
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(63)
        .collect();
    let label = label.trim_matches('-');
    if label.is_empty() {
        "node".to_owned()
    } else {
        label.to_owned()
    }
}

/// The address of the default route, else loopback. Connecting a UDP socket sends nothing; it only
/// asks the kernel which source address it would use (TEST-NET-1, RFC 5737, stands for anywhere).
pub(crate) fn default_address() -> IpAddr {
    let ask = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(SocketAddr::from(([192, 0, 2, 1], 9)))?;
        Ok(socket.local_addr()?.ip())
    };
    ask().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Resident memory of this process in bytes, from `/proc`.
pub(crate) fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok())
        .unwrap_or(0);
    pages.saturating_mul(rustix::param::page_size() as u64)
}

/// Descriptors that the daemon has open; 0 when the system does not say.
pub(crate) fn open_descriptors() -> usize {
    // The listing itself has one.
    fs::read_dir("/proc/self/fd").map_or(0, |open| open.count().saturating_sub(1))
}

/// Processor time that the daemon has used.
pub(crate) fn cpu_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(used.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(used.tv_nsec).unwrap_or_default())
}

fn distribution(os_release: &str) -> String {
    let field = |name: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_owned())
            .unwrap_or_default()
    };
    format!("{} {}", field("ID"), field("VERSION_ID"))
        .trim()
        .to_owned()
}

fn memory(meminfo: &str) -> u64 {
    meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .unwrap_or(0)
        .saturating_mul(1024)
}

fn docker_arch(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" => "arm",
        "i686" => "386",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_system_are_read_as_they_are_written() {
        assert_eq!(
            distribution("NAME=\"Debian\"\nID=debian\nVERSION_ID=\"12\"\n"),
            "debian 12"
        );
        assert_eq!(distribution("ID=arch\n"), "arch");
        assert_eq!(
            memory("MemTotal:       16384 kB\nMemFree: 1 kB\n"),
            16_777_216
        );
        assert_eq!(memory("garbage"), 0);
        assert_eq!(docker_arch("aarch64"), "arm64");
    }

    #[test]
    fn this_host_has_facts() {
        let facts = facts(Path::new("/"));
        assert_eq!(facts.os, "linux");
        assert!(
            facts.cpus > 0 && facts.memory > 0 && facts.disk > 0,
            "{facts:?}"
        );
        assert!(resident_bytes() > 0);
        assert!(open_descriptors() >= 3);
        assert!(cpu_time() > Duration::ZERO);
        assert!(!name().is_empty());
    }
}

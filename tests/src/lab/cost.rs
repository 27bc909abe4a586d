//! What processes cost, as the kernel counts it.

use std::fs;

/// Ticks a second in `/proc/<pid>/stat`, on every Linux that Rust supports.
const TICKS: f64 = 100.0;

/// Processor time that a process has used.
pub fn cpu_seconds(pid: u32) -> f64 {
    ticks(&pid.to_string(), [11, 12]) / TICKS
}

/// Processor time that all ended children of this process have used.
pub fn children_cpu_seconds() -> f64 {
    ticks("self", [13, 14]) / TICKS
}

/// The sum of two fields of a process's `stat`, counted from the one after the name.
fn ticks(process: &str, fields: [usize; 2]) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let all: Vec<&str> = after_name.split_whitespace().collect();
    let value = |at: &usize| all.get(*at).and_then(|f| f.parse::<f64>().ok());
    fields.iter().filter_map(value).sum()
}

/// Memory of a process that is in RAM, in MB of 2^20 bytes.
pub fn resident_mb(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kb = line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kb.unwrap_or(0.0) / 1024.0
}

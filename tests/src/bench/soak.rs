//! What daemons take while a cluster is kept busy for long, as `scripts/soak` has written it down.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::Bench;
use super::results::Comparison;
use crate::lab::LabError;

/// Minutes that one point of the axis stands for.
const STEP: u64 = 2;

/// Runs the script, or takes what an earlier run has left.
pub(super) fn run(bench: &Bench, taken: &mut Comparison) -> Result<(), LabError> {
    if let Some(samples) = &bench.soak {
        return read(samples, taken);
    }
    let folder = tempfile::tempdir().map_err(|e| LabError::new("make a folder", e))?;
    let samples = folder.path().join("soak.csv");
    let minutes = bench.times(30, 1).to_string();
    let status = Command::new(bench.root.join("scripts/soak"))
        .arg(minutes)
        .arg(&samples)
        .env("DUNLIN", &bench.binary)
        .status()
        .map_err(|e| LabError::new("run scripts/soak", e))?;
    if !status.success() {
        return Err(LabError::broken("scripts/soak failed"));
    }
    read(&samples, taken)
}

/// One line of the samples.
struct Line<'a> {
    idle: bool,
    second: u64,
    node: &'a str,
    resident_kb: f64,
    files: f64,
    written_kb: f64,
    state_kb: f64,
}

impl<'a> Line<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let words: Vec<&str> = text.split(',').collect();
        let number = |at: usize| words.get(at)?.parse::<f64>().ok();
        Some(Self {
            idle: *words.first()? == "idle",
            second: words.get(1)?.parse().ok()?,
            node: words.get(2)?,
            resident_kb: number(3)?,
            files: number(4)?,
            written_kb: number(5)?,
            state_kb: number(6)?,
        })
    }
}

fn read(path: &Path, taken: &mut Comparison) -> Result<(), LabError> {
    let text = fs::read_to_string(path).map_err(|e| LabError::new("read the samples", e))?;
    fill(&text, taken);
    match taken.series.is_empty() {
        true => Err(LabError::new("find samples", text)),
        false => Ok(()),
    }
}

fn fill(text: &str, taken: &mut Comparison) {
    let lines: Vec<Line<'_>> = text.lines().filter_map(Line::read).collect();
    let mut before: Vec<(&str, u64, f64)> = Vec::new();
    for line in &lines {
        let at = match line.idle {
            true => "idle".to_owned(),
            false => (line.second / 60 / STEP * STEP).to_string(),
        };
        taken.add(
            "resident memory",
            "MB",
            line.node,
            &at,
            line.resident_kb / 1024.0,
        );
        taken.add("open files", "files", line.node, &at, line.files);
        taken.add(
            "the state's file",
            "MB",
            line.node,
            &at,
            line.state_kb / 1024.0,
        );
        let last = before.iter().position(|(node, ..)| *node == line.node);
        if let Some((_, second, written)) = last.map(|at| before.remove(at)) {
            let passed = line.second.saturating_sub(second);
            // Between the end of the churn and the rest, what is written belongs to neither.
            if passed > 0 && passed < 25 {
                let rate = (line.written_kb - written) * 60.0 / passed as f64;
                taken.add("written to disk", "kB a minute", line.node, &at, rate);
            }
        }
        before.push((line.node, line.second, line.written_kb));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read() {
        let mut taken = Comparison::default();
        fill(
            "phase,second,node,resident_kb,files,written_kb,state_kb,changes\n\
             churn,0,n1,30720,24,200,188,1\nchurn,10,n1,31744,32,500,188,8\nidle,200,n1,31744,32,900,188,8\n",
            &mut taken,
        );
        let memory = taken.table("resident memory");
        assert_eq!(memory[0].samples, [30.0, 31.0]);
        assert_eq!(memory[1].at, "idle");
        let written = taken.table("written to disk");
        assert_eq!((written.len(), written[0].samples[0]), (1, 1_800.0));
    }
}

//! How busy the machine was, and what was on it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::results::Circumstances;

/// Watches the machine while something is measured.
#[derive(Debug)]
pub(super) struct Watch {
    start: Instant,
    date: String,
    load: f64,
    waited: f64,
}

impl Watch {
    pub(super) fn begin() -> Self {
        Self {
            start: Instant::now(),
            date: output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            load: load(),
            waited: waited(),
        }
    }

    pub(super) fn end(self, root: &Path) -> Circumstances {
        let taken = self.start.elapsed().as_secs_f64();
        let root = root.display().to_string();
        Circumstances {
            date: self.date,
            commit: output("git", &["-C", &root, "describe", "--always", "--dirty"]),
            seconds: taken.round() as u64,
            quick: false,
            load: [self.load, load()],
            waiting: ((waited() - self.waited) / taken.max(1e-9) * 100.0).round(),
        }
    }
}

/// The first line that a program says about its version.
pub(super) fn version(program: &Path, arguments: &[&str]) -> String {
    let said = output(&program.display().to_string(), arguments);
    let first = said.lines().next().unwrap_or_default();
    // Without its own name before the number.
    let from = first.find(|c: char| c.is_ascii_digit()).unwrap_or(0);
    let number = first[from..].split([' ', ',']).next();
    number.unwrap_or_default().to_owned()
}

fn output(program: &str, arguments: &[&str]) -> String {
    let said = Command::new(program).args(arguments).output();
    let text = said.map(|o| {
        let text = if o.stdout.is_empty() {
            o.stderr
        } else {
            o.stdout
        };
        String::from_utf8_lossy(&text).trim().to_owned()
    });
    text.unwrap_or_default()
}

fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next();
    first.and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

/// Seconds since boot in which something had to wait for a processor.
fn waited() -> f64 {
    let text = fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let total = text
        .lines()
        .find(|line| line.starts_with("some"))
        .and_then(|line| line.rsplit('=').next()?.parse::<f64>().ok());
    total.unwrap_or(0.0) / 1e6
}

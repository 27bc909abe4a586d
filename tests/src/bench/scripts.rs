//! Comparisons that other programs of the project make: this runs them, again and again, and reads what they print.

use std::path::Path;
use std::process::Command;

use super::results::{Comparison, OWN};
use super::{Bench, machine};
use crate::lab::{LabError, children_cpu_seconds};

/// Sizes of simulated clusters. Larger ones than [`LONGEST`] allows are left out, and said to be.
const SIZES: [usize; 8] = [10, 50, 100, 200, 500, 1_000, 2_000, 5_000];

/// Processor seconds of a run after which no larger cluster is tried.
const LONGEST: f64 = 60.0;

/// Servers of names, in turn.
pub(super) fn names(bench: &Bench, taken: &mut Comparison) -> Result<(), LabError> {
    if let Some(reason) = lacks(&["dnsperf", "unbound"]) {
        taken.skipped.push(reason);
        return Ok(());
    }
    for (name, program, word) in [
        ("unbound", "unbound", "-V"),
        ("knot", "knotd", "--version"),
        ("dnsmasq", "dnsmasq", "--version"),
    ] {
        match lacks(&[program]) {
            None => {
                let version = machine::version(&found(program), &[word]);
                taken.versions.insert(name.to_owned(), version);
            }
            Some(reason) => taken.skipped.push(format!("{name}: {reason}")),
        }
    }
    let (rounds, seconds) = if bench.quick { ("1", "2") } else { ("5", "4") };
    let server = bench.built.join("examples/serve_crowd");
    let said = script(
        bench,
        "scripts/bench-dns",
        &[rounds, seconds],
        &[("DUNLIN_DNS_SERVER", &server.display().to_string())],
    )?;
    for line in said.lines().filter(|line| line.starts_with("round ")) {
        for (who, rate, cost) in round_of_names(line) {
            taken.add("answers a second", "1/s", who, "4 sockets", rate);
            taken.add("processor time of an answer", "us", who, "4 sockets", cost);
        }
    }
    expect_some(taken, &said)
}

/// `round 1: dunlin 81038/s (3.6 us each) unbound 44794/s (6.3 us each)`
fn round_of_names(line: &str) -> Vec<(&str, f64, f64)> {
    let words: Vec<&str> = line.split_whitespace().skip(2).collect();
    let rounds = words.chunks_exact(5).filter_map(|words| match words {
        [who, rate, cost, _us, _each] => {
            let rate = rate.trim_end_matches("/s").parse().ok()?;
            Some((*who, rate, cost.trim_start_matches('(').parse().ok()?))
        }
        _ => None,
    });
    rounds.collect()
}

/// Proxies, in turn.
pub(super) fn proxy(bench: &Bench, taken: &mut Comparison) -> Result<(), LabError> {
    if let Some(reason) = lacks(&["haproxy", "openssl"]) {
        taken.skipped.push(reason);
        return Ok(());
    }
    let version = machine::version(&found("haproxy"), &["-v"]);
    taken.versions.insert("haproxy".to_owned(), version);
    let seconds = if bench.quick { "1" } else { "3" };
    let built = bench.built.join("examples").display().to_string();
    for _ in 0..bench.times(5, 1) {
        // One round at a time: the script prints medians of its rounds.
        let environment = [
            ("DUNLIN_LB_EXAMPLES", built.as_str()),
            ("ONLY", "local hop bulk idle"),
        ];
        let said = script(bench, "scripts/bench-proxy", &["1", seconds], &environment)?;
        let mut place = String::new();
        said.lines()
            .for_each(|line| read_proxy(line, &mut place, taken));
        expect_some(taken, &said)?;
    }
    Ok(())
}

/// One line of `scripts/bench-proxy`.
fn read_proxy(line: &str, place: &mut String, taken: &mut Comparison) {
    let (head, rest) = line.split_once(": ").unwrap_or((line, ""));
    let both = |rest: &str| Some((after(rest, "dunlin ")?, after(rest, "haproxy ")?));
    if head.starts_with("bulk") {
        if let Some((own, peer)) = both(rest) {
            taken.add("one stream between two nodes", "MiB/s", OWN, "bulk", own);
            taken.add(
                "one stream between two nodes",
                "MiB/s",
                "haproxy",
                "bulk",
                peer,
            );
            let bare = after(rest, "quinn alone ").unwrap_or(f64::NAN);
            taken.add(
                "one stream between two nodes",
                "MiB/s",
                "quinn, no proxy",
                "bulk",
                bare,
            );
        }
    } else if head.contains("requests on 50") || head.contains("connections of one request") {
        let load = if head.contains("50") {
            "requests"
        } else {
            "connections"
        };
        *place = format!("{load}, {}", head.split(',').next().unwrap_or_default());
        if let Some((own, peer)) = both(rest) {
            taken.add("a second", "1/s", OWN, place.as_str(), own);
            taken.add("a second", "1/s", "haproxy", place.as_str(), peer);
        }
    } else if head.contains("/s, p99") || head.contains("/s, p50") {
        let share = if head.contains("p99") { "p99" } else { "p50" };
        let at = format!("{share}, {}", head.split(" at ").next().unwrap_or_default());
        let what = "latency at half load";
        if let Some((own, peer)) = both(rest) {
            taken.add(what, "us", OWN, &at, own);
            taken.add(what, "us", "haproxy", &at, peer);
            taken.add(
                what,
                "us",
                "no proxy",
                &at,
                after(rest, "direct ").unwrap_or(f64::NAN),
            );
        }
    } else if let Some(who) = [OWN, "haproxy"]
        .into_iter()
        .find(|who| head.ends_with(&format!("through {who}")))
    {
        let then = rest
            .split(", ")
            .nth(1)
            .and_then(|text| text.split(' ').next()?.parse().ok());
        taken.add(
            "memory with idle connections",
            "MB",
            who,
            after_open(head),
            then.unwrap_or(f64::NAN),
        );
    }
}

/// The number that follows a word.
fn after(text: &str, word: &str) -> Option<f64> {
    let rest = text.split(word).nth(1)?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
    rest[..end.unwrap_or(rest.len())]
        .trim_end_matches('.')
        .parse()
        .ok()
}

/// How many connections are open, in the script's words.
fn after_open(head: &str) -> String {
    head.split(" and idle")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Whole engines, simulated.
pub(super) fn simulator(bench: &Bench, taken: &mut Comparison) -> Result<(), LabError> {
    let sizes = if bench.quick { &SIZES[..3] } else { &SIZES[..] };
    for (at, nodes) in sizes.iter().enumerate() {
        let mut longest: f64 = 0.0;
        for seed in 1..=bench.times(3, 1) {
            let before = children_cpu_seconds();
            let text = nodes.to_string();
            let said = Command::new(bench.built.join("sim"))
                .args(["--scenario", "scale", "--nodes", &text, "--services", &text])
                .args(["--seed", &seed.to_string()])
                .output()
                .map_err(|e| LabError::new("run the simulator", e))?;
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            let cost = children_cpu_seconds() - before;
            let line = said.lines().find(|line| line.starts_with("scale"));
            let rate = line.and_then(|l| l.split_whitespace().last()?.parse().ok());
            let rate = rate.ok_or_else(|| LabError::new("read the simulator's figures", &said))?;
            taken.add(
                "slots awarded a second of wall time",
                "1/s",
                OWN,
                nodes,
                rate,
            );
            taken.add(
                "processor time of a node",
                "ms",
                OWN,
                nodes,
                cost / *nodes as f64 * 1e3,
            );
            longest = longest.max(cost);
            if longest > LONGEST {
                break;
            }
        }
        if longest > LONGEST && at + 1 < sizes.len() {
            taken.skipped.push(format!(
                "clusters of more than {nodes} nodes: these took {longest:.0} s of processor time, more than the {LONGEST} s after \
                 which no larger one is tried"
            ));
            break;
        }
    }
    Ok(())
}

fn script(
    bench: &Bench,
    name: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Result<String, LabError> {
    let output = Command::new(bench.root.join(name))
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .map_err(|e| LabError::new(&format!("run {name}"), e))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(LabError::new(&format!("run {name}"), complaint))
}

fn expect_some(taken: &Comparison, said: &str) -> Result<(), LabError> {
    match taken.series.is_empty() {
        true => Err(LabError::new("find figures in what was printed", said)),
        false => Ok(()),
    }
}

/// Why a comparison cannot be made, or nothing.
fn lacks(programs: &[&str]) -> Option<String> {
    let missing = programs.iter().find(|name| !found(name).exists());
    missing.map(|name| format!("{name} is not installed, and could not be"))
}

fn found(program: &str) -> std::path::PathBuf {
    let folders = [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/bin",
    ];
    let all = folders.iter().map(|folder| Path::new(folder).join(program));
    all.clone()
        .find(|path| path.exists())
        .unwrap_or_else(|| Path::new(program).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_of_names_are_read() {
        let line = "round 1: dunlin 81038/s (3.60 us each) unbound 44794/s (6.30 us each)";
        assert_eq!(
            round_of_names(line),
            [("dunlin", 81_038.0, 3.6), ("unbound", 44_794.0, 6.3)]
        );
    }

    #[test]
    fn lines_of_the_proxy_are_read() {
        let mut taken = Comparison::default();
        let mut place = String::new();
        for line in [
            "on one node, requests on 50 connections that stay: dunlin 82358/s, haproxy 80782/s, ratio 1.02",
            "  processor time of each: 13.7 us, 14.1 us, ratio 1.03",
            "on one node at 40391/s, p99: direct 49 us, dunlin 1460 us, haproxy 1950 us; added: ratio 0.74",
            "bulk between two nodes: dunlin 463 MiB/s, haproxy 452 MiB/s, quinn alone 644 MiB/s; dunlin / quinn 0.72",
            "9900 connections open and idle through haproxy: 13 MB before, 47 MB then",
        ] {
            read_proxy(line, &mut place, &mut taken);
        }
        let read: Vec<(&str, &str, f64)> = taken
            .series
            .iter()
            .map(|s| (s.what.as_str(), s.subject.as_str(), s.samples[0]))
            .collect();
        assert_eq!(
            read,
            [
                ("a second", "dunlin", 82_358.0),
                ("a second", "haproxy", 80_782.0),
                ("latency at half load", "dunlin", 1_460.0),
                ("latency at half load", "haproxy", 1_950.0),
                ("latency at half load", "no proxy", 49.0),
                ("one stream between two nodes", "dunlin", 463.0),
                ("one stream between two nodes", "haproxy", 452.0),
                ("one stream between two nodes", "quinn, no proxy", 644.0),
                ("memory with idle connections", "haproxy", 47.0),
            ]
        );
    }
}

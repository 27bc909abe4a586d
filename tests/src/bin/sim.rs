//! Runs the simulator over many seeds and prints a line for each scenario. On a violation it prints
//! the story and the command that replays it, and ends with status 1.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use dunlin_tests::sim::{Outcome, Scenario, Summary, run};
use mimalloc::MiMalloc;

/// A thousand nodes make and drop millions of small things: a tenth of the time with the allocator
/// of the C library, which the daemon keeps because it gives memory back.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Simulate clusters with faults and check the invariants.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Args {
    /// Nodes in each cluster.
    #[arg(long, default_value_t = 9)]
    nodes: usize,
    /// Services that people deploy.
    #[arg(long, default_value_t = 6)]
    services: usize,
    /// Seeds in all, dealt out over the scenarios.
    #[arg(long, default_value_t = 90)]
    seeds: u64,
    /// Only this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Only this scenario: calm, crash, partition, lossy, disk, runtime, clock, drain, full, health,
    /// rollout, liar, depend, jobs, ranks, strict, churn, volumes, autoscale, rebalance, quota, scale,
    /// placement.
    #[arg(long)]
    scenario: Option<String>,
    /// Simulated hours of trouble in each run of 'lossy', instead of a minute.
    #[arg(long)]
    hours: Option<f64>,
    /// Runs at a time; as many as there are cores when absent. The results do not depend on it.
    #[arg(long)]
    threads: Option<usize>,
    /// Print what happened in each run.
    #[arg(long)]
    trace: bool,
    /// Print what went over the control plane in each run, by kind of message.
    #[arg(long)]
    traffic: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let scenarios = match args
        .scenario
        .as_deref()
        .map(|name| (name, Scenario::named(name)))
    {
        None => Scenario::ALL.to_vec(),
        Some((_, Some(scenario))) => vec![scenario],
        Some((name, None)) => {
            eprintln!("error: there is no scenario '{name}'; see --help");
            return ExitCode::from(2);
        }
    };
    if args.nodes == 0 || args.services == 0 {
        eprintln!("error: a cluster has at least one node and one service");
        return ExitCode::from(2);
    }
    println!("{}", Summary::header());
    let mut violations = 0;
    for (turn, scenario) in scenarios.iter().enumerate() {
        let seeds = seeds(&args, turn as u64, scenarios.len() as u64);
        let mut summary = Summary::new(scenario.name());
        for (seed, (outcome, wall)) in run_all(&args, *scenario, &seeds) {
            summary.add(&outcome, wall);
            if args.trace {
                println!(
                    "    seed {seed}: {} moved for evenness, {} driven out, {} refused, {} parts of jobs done",
                    outcome.rebalanced, outcome.preempted, outcome.refused, outcome.succeeded
                );
            }
            if args.traffic {
                tell_traffic(&outcome);
            }
            if !outcome.violations.is_empty() || args.trace {
                tell(&args, *scenario, seed, &outcome);
            }
        }
        println!("{summary}");
        violations += summary.violations;
    }
    if violations > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Runs one scenario with all seeds, as many at a time as there are threads; ordered by seed.
fn run_all(args: &Args, scenario: Scenario, seeds: &[u64]) -> BTreeMap<u64, (Outcome, Duration)> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.unwrap_or(cores).clamp(1, seeds.len().max(1));
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                    let start = Instant::now();
                    let outcome = run(scenario, args.nodes, args.services, seed, args.hours);
                    let result = (outcome, start.elapsed());
                    if let Ok(mut done) = done.lock() {
                        done.insert(seed, result);
                    }
                }
            });
        }
    });
    done.into_inner().unwrap_or_default()
}

/// This scenario's share of the seeds: every n-th, so that no two scenarios use the same.
fn seeds(args: &Args, turn: u64, scenarios: u64) -> Vec<u64> {
    match args.seed {
        Some(seed) => vec![seed],
        None => (1..=args.seeds)
            .filter(|seed| seed % scenarios == turn)
            .collect(),
    }
}

fn tell_traffic(outcome: &Outcome) {
    for (kind, (messages, bytes)) in &outcome.control {
        println!("    {kind:<10} {messages:>9} messages {bytes:>12} bytes");
    }
}

fn tell(args: &Args, scenario: Scenario, seed: u64, outcome: &Outcome) {
    println!(
        "--- {} seed {seed} digest {}",
        scenario.name(),
        outcome.digest
    );
    outcome.trace.iter().for_each(|line| println!("    {line}"));
    outcome.violations.iter().for_each(|v| println!("  ! {v}"));
    println!(
        "  replay: cargo run --release -p dunlin-tests --bin sim -- --nodes {} --services {} --scenario {} --seed {seed} --trace",
        args.nodes,
        args.services,
        scenario.name()
    );
}

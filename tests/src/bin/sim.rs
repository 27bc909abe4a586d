//! Runs the simulator over many seeds and prints a line for each scenario. On a violation it prints
//! the story and the command that replays it, and ends with status 1.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use dunlin_tests::sim::{Outcome, Scenario, Summary, run};

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
    /// Only this scenario: calm, crash, partition, lossy, disk, runtime, clock, drain, churn, scale.
    #[arg(long)]
    scenario: Option<String>,
    /// Print what happened in each run.
    #[arg(long)]
    trace: bool,
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
        let mut summary = Summary::new(scenario.name());
        for seed in seeds(&args, turn as u64, scenarios.len() as u64) {
            let (outcome, wall) = time(|| run(*scenario, args.nodes, args.services, seed));
            summary.add(&outcome, wall);
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

/// This scenario's share of the seeds: every n-th, so that no two scenarios use the same.
fn seeds(args: &Args, turn: u64, scenarios: u64) -> Vec<u64> {
    match args.seed {
        Some(seed) => vec![seed],
        None => (1..=args.seeds)
            .filter(|seed| seed % scenarios == turn)
            .collect(),
    }
}

fn time<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = what();
    (result, start.elapsed())
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

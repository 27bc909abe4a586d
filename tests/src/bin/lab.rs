//! Runs labs: real daemons in network namespaces, with faults. Needs root and iproute2.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use dunlin_tests::lab::scenarios::{Pace, Scenario};
use dunlin_tests::lab::{Figures, Lab, LabError, Workloads};

/// Put real daemons through faults and measure.
#[derive(Debug, Parser)]
#[command(name = "lab")]
struct Args {
    /// Scenarios: deploy, kill, partition, isolated, blackout, removed, hostile, moved, spread, names,
    /// docker-deploy, docker-kill, docker-names, load, idle, siege, torture; `ci` for all but the last four.
    #[arg(required = true)]
    scenarios: Vec<String>,
    /// Hosts in the lab.
    #[arg(long, default_value_t = 3)]
    hosts: usize,
    /// Repetitions where a scenario has any.
    #[arg(long, default_value_t = 2)]
    times: usize,
    /// How long torture lasts: no round begins after that.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// What torture does; by chance when absent, and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// The daemon to test.
    #[arg(long, default_value = "target/release/dunlin")]
    binary: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut scenarios = Vec::new();
    for name in &args.scenarios {
        match (name.as_str(), Scenario::named(name)) {
            ("ci", _) => scenarios.extend(Scenario::CI),
            (_, Some(scenario)) => scenarios.push(scenario),
            (_, None) => {
                eprintln!("error: there is no scenario '{name}'; see --help");
                return ExitCode::from(2);
            }
        }
    }
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&args, &scenarios)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args, scenarios: &[Scenario]) -> Result<(), LabError> {
    let binary = args
        .binary
        .canonicalize()
        .map_err(|e| LabError::new("find the daemon", e))?;
    let mut figures = Figures::default();
    for workloads in [Workloads::Processes, Workloads::Containers, Workloads::Both] {
        let list: Vec<Scenario> = scenarios
            .iter()
            .copied()
            .filter(|s| s.workloads() == workloads)
            .collect();
        match workloads.impossible() {
            _ if list.is_empty() => {}
            None => put_through(args, &binary, workloads, &list, &mut figures).await?,
            Some(reason) => list
                .iter()
                .for_each(|s| println!("lab: {} is left out: {reason}", s.name())),
        }
    }
    print!("{figures}");
    Ok(())
}

/// All scenarios of one kind, in one lab.
async fn put_through(
    args: &Args,
    binary: &Path,
    workloads: Workloads,
    scenarios: &[Scenario],
    figures: &mut Figures,
) -> Result<(), LabError> {
    let pace = Pace {
        times: args.times,
        seconds: args.seconds,
        // Small enough to be typed again.
        seed: args
            .seed
            .unwrap_or_else(|| u64::from(rand::random::<u32>())),
    };
    let mut lab = Lab::start(binary, args.hosts, workloads).await?;
    for scenario in scenarios {
        println!("lab: {}", scenario.name());
        if let Err(error) = scenario.run(&mut lab, &pace, figures).await {
            lab.tell();
            return Err(LabError::broken(format!("{}: {error}", scenario.name())));
        }
    }
    Ok(())
}

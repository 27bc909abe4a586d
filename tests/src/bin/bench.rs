//! Measures Dunlin beside other programs and writes docs/benchmarks.md. `scripts/bench` starts it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use dunlin_tests::bench::comparisons::{ALL, Kind};
use dunlin_tests::bench::results::Results;
use dunlin_tests::bench::{Bench, page};
use dunlin_tests::lab::LabError;

/// Measure Dunlin beside other programs.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Args {
    /// Few samples
    #[arg(long)]
    quick: bool,
    /// Only these: deploy, loss, detection, spread, idle, soak, start, names, proxy, simulator; the others
    /// stay on the page as they are
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Measure nothing: make the page and the plots from the samples that are there
    #[arg(long)]
    page: bool,
    /// For `soak`: the samples of an earlier `scripts/soak`, instead of running it
    #[arg(long, value_name = "CSV")]
    soak: Option<PathBuf>,
    /// Where the programs are that were built
    #[arg(long, default_value = "target/release")]
    built: PathBuf,
    /// The folder of the project
    #[arg(long, default_value = ".")]
    root: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = runtime
        .map_err(|e| LabError::new("start", e))
        .and_then(|runtime| runtime.block_on(run(&args)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), LabError> {
    let mut kinds = Vec::new();
    for name in &args.only {
        let kind = Kind::named(name);
        kinds.push(kind.ok_or_else(|| {
            LabError::broken(format!("there is no comparison '{name}'; see --help"))
        })?);
    }
    if kinds.is_empty() {
        // Being busy for long cannot be had quickly.
        kinds.extend(
            ALL.into_iter()
                .filter(|kind| !args.quick || *kind != Kind::Soak),
        );
    }
    let docs = args.root.join("docs");
    let samples = docs.join("benchmarks/results.json");
    let mut results = Results::load(&samples)?;
    if args.page {
        return page::write(&results, &docs);
    }
    let find = |path: PathBuf| {
        path.canonicalize()
            .map_err(|e| LabError::new("find what was built", e))
    };
    let bench = Bench {
        binary: find(args.built.join("dunlin"))?,
        built: find(args.built.clone())?,
        root: find(args.root.clone())?,
        soak: args.soak.clone(),
        quick: args.quick,
    };
    for kind in kinds {
        println!("bench: {}", kind.name());
        let taken = kind.run(&bench).await?;
        for series in &taken.series {
            let (low, high) = series.range();
            println!(
                "  {:<48} {:<20} {:>14}  n={:<3} {:.3} ({low:.3} to {high:.3}) {}",
                series.what,
                series.subject,
                series.at,
                series.samples.len(),
                series.median(),
                series.unit
            );
        }
        taken
            .skipped
            .iter()
            .for_each(|who| println!("  skipped: {who}"));
        results.comparisons.insert(kind.name().to_owned(), taken);
        // After each: what was measured stays, also when the next one fails.
        results.save(&samples)?;
        page::write(&results, &docs)?;
    }
    Ok(())
}

//! Mutates the corpora for as long as it is told: `fuzz SECONDS [TARGET…]`. An input that panics is
//! written to the corpus, and the program ends with it. Not guided by coverage: `scripts/fuzz` takes
//! cargo-fuzz where that is installed.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use dunlin_tests::fuzz::mutate::Mutator;
use dunlin_tests::fuzz::{TARGETS, Target, corpus, corpus_directory};

/// An input may take so long: a decoder that does more work for a few kilobytes is a find.
const SLOW: Duration = Duration::from_secs(2);

/// Words of the command line.
#[derive(Debug, Parser)]
struct Words {
    /// Seconds for each target
    seconds: u64,
    /// The targets; all when none is named
    targets: Vec<String>,
    /// Where the mutations start
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let words = Words::parse();
    // Panics that the program contains on purpose are no news.
    std::panic::set_hook(Box::new(|_contained| {}));
    let mut failed = false;
    for target in TARGETS {
        let wanted = words.targets.is_empty() || words.targets.iter().any(|t| t == target.name);
        if wanted && let Err(error) = run(target, &words) {
            eprintln!("{}: {error}", target.name);
            failed = true;
        }
    }
    ExitCode::from(u8::from(failed))
}

fn run(target: &'static Target, words: &Words) -> Result<(), String> {
    let corpus = corpus(target).map_err(|error| error.to_string())?;
    let mut mutator = Mutator::new(words.seed);
    let (start, end) = (Instant::now(), Duration::from_secs(words.seconds));
    let (mut runs, mut slowest) = (0_u64, Duration::ZERO);
    while start.elapsed() < end {
        let input = mutator.next(&corpus);
        let begun = Instant::now();
        let result = std::panic::catch_unwind(|| (target.run)(&input));
        let took = begun.elapsed();
        if result.is_err() || took > SLOW {
            let what = if result.is_err() { "panic" } else { "slow" };
            let hash = blake3::hash(&input).to_hex();
            let path = corpus_directory(target).join(format!("{what}-{}", &hash[..16]));
            std::fs::write(&path, &input).map_err(|error| error.to_string())?;
            return Err(format!("{what} after {runs} inputs: {}", path.display()));
        }
        runs += 1;
        slowest = slowest.max(took);
    }
    let seconds = words.seconds;
    println!(
        "{}: {runs} inputs in {seconds} s, the slowest {slowest:?}",
        target.name
    );
    Ok(())
}

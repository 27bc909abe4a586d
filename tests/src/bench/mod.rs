//! Benchmarks: Dunlin beside other programs, in the same lab, in turn.
//!
//! `scripts/bench` builds a release, installs the others where it may, and starts the program
//! `bench`. Each comparison makes its lab, repeats what it measures with Dunlin and with the other
//! one after the other, and leaves its samples in `docs/benchmarks/results.json`. The page and the
//! plots are made from that file.

pub mod comparisons;
mod containers;
mod idle;
mod machine;
mod members;
pub mod page;
mod plot;
pub mod results;
mod scripts;
mod serf;
mod single;
mod soak;
mod swarm;

use std::path::PathBuf;

/// What comparisons need to know.
#[derive(Debug)]
pub struct Bench {
    /// The daemon.
    pub binary: PathBuf,
    /// The folder with the other programs that were built.
    pub built: PathBuf,
    /// The folder of the project.
    pub root: PathBuf,
    /// Samples that `scripts/soak` has left, instead of a run of it.
    pub soak: Option<PathBuf>,
    /// Few samples: enough to see that everything runs, and roughly where things stand.
    pub quick: bool,
}

impl Bench {
    /// One of two numbers of repetitions.
    const fn times(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }
}

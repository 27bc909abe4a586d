//! Hostile input: every decoder that sees bytes from another host, fed with what it should refuse.
//!
//! Each [`Target`] takes any bytes and must neither panic nor run long. Its corpus, under
//! `fuzz/corpus/`, holds real encodings ([`seeds`]) and whatever was found to hurt. A test replays
//! the corpora and mutates them the same way at each run ([`mutate`]); the binary `fuzz` does so for
//! as long as it is told; and `fuzz/` has one target of cargo-fuzz each, which runs the same
//! functions guided by coverage.

pub mod mutate;
pub mod seeds;
mod targets;

use std::path::{Path, PathBuf};

pub use targets::{TARGETS, Target};

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Runs one input for cargo-fuzz, whose panic hook ends the process even for panics that the program
/// contains on purpose (automerge's). One that is not contained still ends it.
pub fn run_contained(target: &Target, bytes: &[u8]) {
    static QUIET: std::sync::Once = std::sync::Once::new();
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_contained| {})));
    let result = std::panic::catch_unwind(|| (target.run)(bytes));
    if result.is_err() {
        std::process::abort();
    }
}

/// Where the corpus of a target lies.
pub fn corpus_directory(target: &Target) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    root.join(target.name)
}

/// The corpus of a target, by file name.
///
/// # Errors
/// When the directory cannot be read.
pub fn corpus(target: &Target) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(corpus_directory(target))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        files.push((name, std::fs::read(entry.path())?));
    }
    files.sort();
    Ok(files)
}

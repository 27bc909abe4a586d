//! Every decoder of remote bytes, over its corpus and the same mutations of it at each run.

use dunlin_tests::fuzz::mutate::Mutator;
use dunlin_tests::fuzz::{TARGETS, corpus, corpus_directory, seeds};

/// Mutations of each corpus: seconds in all, with debug assertions.
const MUTATIONS: usize = 2_000;

#[test]
fn corpora_hold_what_is_encoded_today() {
    for target in TARGETS {
        let seeds = seeds::of(target.name);
        assert!(!seeds.is_empty(), "{}", target.name);
        let directory = corpus_directory(target);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(&directory).unwrap();
            for (number, seed) in seeds.iter().enumerate() {
                std::fs::write(directory.join(format!("seed-{number}")), seed).unwrap();
            }
        }
        let held = corpus(target).unwrap();
        for seed in &seeds {
            assert!(
                held.iter().any(|(_, bytes)| bytes == seed),
                "fuzz/corpus/{} lacks an encoding of today: run `UPDATE=1 cargo test -p dunlin-tests --test hostile_bytes`",
                target.name
            );
        }
    }
}

#[test]
fn no_decoder_panics_on_its_corpus_or_on_mutations_of_it() {
    for target in TARGETS {
        let held = corpus(target).unwrap();
        for (name, bytes) in &held {
            let result = std::panic::catch_unwind(|| (target.run)(bytes));
            assert!(result.is_ok(), "fuzz/corpus/{}/{name}", target.name);
        }
        let mut mutator = Mutator::new(0);
        for number in 0..MUTATIONS {
            let input = mutator.next(&held);
            let result = std::panic::catch_unwind(|| (target.run)(&input));
            assert!(
                result.is_ok(),
                "{}: mutation {number} panics; as a file in fuzz/corpus/{}: {input:02x?}",
                target.name,
                target.name
            );
        }
    }
}

#[test]
fn every_target_has_a_target_of_cargo_fuzz() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz");
    let manifest = std::fs::read_to_string(format!("{root}/Cargo.toml")).unwrap();
    for target in TARGETS {
        let path = format!("fuzz_targets/{}.rs", target.name);
        assert!(manifest.contains(&path), "{path} is not in fuzz/Cargo.toml");
        let text = std::fs::read_to_string(format!("{root}/{path}")).unwrap();
        assert!(text.contains(&format!("\"{}\"", target.name)), "{path}");
    }
}

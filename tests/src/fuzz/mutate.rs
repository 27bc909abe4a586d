//! Mutations of real encodings, the same for the same seed.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Longest input made, in bytes: decoders of larger ones work by parts.
const MAX_BYTES: usize = 256 * 1024;

/// Values that lengths and counts are often wrong at.
const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, 0xfe, 0x20, 0x5f];

/// Makes inputs from a corpus.
#[derive(Debug)]
pub struct Mutator {
    rng: ChaCha8Rng,
}

impl Mutator {
    /// With this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// The next input: one of the corpus with one to eight changes.
    pub fn next(&mut self, corpus: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = self.pick(corpus).to_vec();
        for _ in 0..self.rng.random_range(1..=8) {
            self.change(&mut bytes, corpus);
        }
        bytes.truncate(MAX_BYTES);
        bytes
    }

    fn pick<'a>(&mut self, corpus: &'a [(String, Vec<u8>)]) -> &'a [u8] {
        if corpus.is_empty() {
            return &[];
        }
        &corpus[self.rng.random_range(0..corpus.len())].1
    }

    fn change(&mut self, bytes: &mut Vec<u8>, corpus: &[(String, Vec<u8>)]) {
        if bytes.is_empty() {
            bytes.push(self.rng.random());
            return;
        }
        let at = self.rng.random_range(0..bytes.len());
        let to = self.rng.random_range(at..=bytes.len().min(at + 64));
        match self.rng.random_range(0..9) {
            0 => bytes[at] ^= 1 << self.rng.random_range(0..8),
            1 => bytes[at] = EDGES[self.rng.random_range(0..EDGES.len())],
            2 => bytes[at] = self.rng.random(),
            3 => drop(bytes.drain(at..to)),
            4 => {
                let copy = bytes[at..to].to_vec();
                bytes.splice(at..at, copy);
            }
            5 => bytes.truncate(at),
            6 => {
                let edge = EDGES[self.rng.random_range(0..EDGES.len())];
                for byte in &mut bytes[at..to.min(at + 8)] {
                    *byte = edge;
                }
            }
            7 => {
                // The head of this one and the tail of another.
                let other = self.pick(corpus).to_vec();
                let from = at.min(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                let mut noise = [0; 16];
                self.rng.fill_bytes(&mut noise);
                bytes.splice(at..at, noise);
            }
        }
    }
}

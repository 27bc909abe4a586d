//! What signatures cost a change of desired state: writing it on one node and applying it on another,
//! with and without. The same changes in turn, so that other load on the machine hits both alike.
//!
//! `cargo run --release -p dunlin-state --example signature_cost [CHANGES]`

use std::error::Error;
use std::time::{Duration, Instant};

use dunlin_state::Now;
use dunlin_state::desired::{Actor, Command, Document, Rules};
use dunlin_state::model::{NodeId, ServiceKey, ServiceSpec};
use dunlin_trust::{Credential, Founding, PublicKey, SecretKey};

const SECONDS: u64 = 1_800_000_000;

/// Services that are there before anything is measured.
const SERVICES: usize = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let changes: usize = std::env::args().nth(1).map_or(Ok(500), |n| n.parse())?;
    let (root, credential) = operator()?;
    let signed = Rules::new(Some(root), vec![credential]);
    let mut pairs = [Pair::new(None)?, Pair::new(Some(signed))?];
    for (what, command) in [
        (
            "scale (one register)",
            scale as fn(usize) -> Result<Command, Box<dyn Error>>,
        ),
        ("deploy (four registers)", deploy),
    ] {
        let mut times = [Vec::new(), Vec::new()];
        for n in 0..changes {
            for (pair, times) in pairs.iter_mut().zip(&mut times) {
                times.push(pair.change(&command(n)?)?);
            }
        }
        let [plain, signed] = times.map(|times| {
            let (write, apply): (Vec<_>, Vec<_>) = times.into_iter().unzip();
            (median(write), median(apply))
        });
        println!("{what}, medians of {changes}:");
        println!(
            "  without: write {:>8.1?}, apply {:>8.1?}",
            plain.0, plain.1
        );
        println!(
            "  with:    write {:>8.1?}, apply {:>8.1?}",
            signed.0, signed.1
        );
        let more = |with: Duration, without: Duration| with.saturating_sub(without);
        let (write, apply) = (more(signed.0, plain.0), more(signed.1, plain.1));
        println!("  signatures cost {write:.1?} at the writer and {apply:.1?} at each other node");
    }
    Ok(())
}

/// Two nodes' documents.
struct Pair {
    writer: Document,
    reader: Document,
    wall: u64,
}

impl Pair {
    fn new(rules: Option<Rules>) -> Result<Self, Box<dyn Error>> {
        let [mut writer, mut reader] = [1, 2].map(|n| {
            let node = NodeId::from_bytes([n; 32]);
            Document::new(Actor::new(node, 1))
        });
        if let Some(rules) = rules {
            writer.set_rules(rules.clone());
            reader.set_rules(rules);
        }
        let mut pair = Self {
            writer,
            reader,
            wall: SECONDS * 1_000,
        };
        for n in 0..SERVICES {
            let _time = pair.change(&deploy(1_000_000 + n)?)?;
        }
        Ok(pair)
    }

    fn change(&mut self, command: &Command) -> Result<(Duration, Duration), Box<dyn Error>> {
        self.wall += 1;
        let now = Now {
            mono: self.wall,
            wall: self.wall,
        };
        let start = Instant::now();
        let change = self
            .writer
            .propose(std::slice::from_ref(command), "bench", now)?
            .ok_or("nothing changed")?;
        let written = start.elapsed();
        let start = Instant::now();
        let applied = self.reader.apply_changes(&[change])?;
        let took = start.elapsed();
        if !applied.refused.is_empty() {
            return Err("refused".into());
        }
        Ok((written, took))
    }
}

fn operator() -> Result<(PublicKey, Credential), Box<dyn Error>> {
    let key = SecretKey::from_seed([1; 32]);
    let founding = Founding::new([2; 32], [3; 32], key.public(), SECONDS);
    let root = founding.root.public();
    Ok((root, Credential::new(key, founding.admin, &root)?))
}

fn scale(n: usize) -> Result<Command, Box<dyn Error>> {
    Ok(Command::Scale {
        service: name(1_000_000 + n % SERVICES)?,
        replicas: 2 + u32::try_from(n / SERVICES)?,
    })
}

fn deploy(n: usize) -> Result<Command, Box<dyn Error>> {
    let spec = ServiceSpec {
        image: "registry.example/web:1.2.3".to_owned(),
        ..ServiceSpec::default()
    };
    Ok(Command::Deploy {
        service: name(n)?,
        spec: Box::new(spec),
        replicas: Some(3),
    })
}

fn name(n: usize) -> Result<ServiceKey, Box<dyn Error>> {
    Ok(format!("shop/web-{n}").parse()?)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

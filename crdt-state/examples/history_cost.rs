//! What the history of desired state costs in memory, and what a compaction gives back: services are
//! changed again and again, each change with its signatures.
//!
//! `cargo run --release -p dunlin-state --example history_cost [CHANGES]`

use std::error::Error;
use std::fs;

use dunlin_state::Now;
use dunlin_state::desired::{Actor, Command, Document, Rules};
use dunlin_state::model::{NodeId, ServiceSpec};
use dunlin_trust::{Credential, Founding, SecretKey};

const SECONDS: u64 = 1_800_000_000;
const SERVICES: usize = 12;

fn main() -> Result<(), Box<dyn Error>> {
    let changes: usize = std::env::args().nth(1).map_or(Ok(4_000), |n| n.parse())?;
    let key = SecretKey::from_seed([1; 32]);
    let founding = Founding::new([2; 32], [3; 32], key.public(), SECONDS);
    let root = founding.root.public();
    let credential = Credential::new(key, founding.admin, &root)?;
    let mut document = Document::new(Actor::new(NodeId::from_bytes([1; 32]), 1));
    document.set_rules(Rules::new(Some(root), vec![credential]));
    tell(&document, "at first");
    for n in 1..=changes {
        let spec = ServiceSpec {
            image: format!("registry.example/web:{n}"),
            ..ServiceSpec::default()
        };
        let command = Command::Deploy {
            service: format!("shop/web-{}", n % SERVICES).parse()?,
            spec: Box::new(spec),
            replicas: Some(3),
        };
        let time = SECONDS * 1_000 + n as u64;
        let now = Now {
            mono: time,
            wall: time,
        };
        document
            .propose(&[command], "bench", now)?
            .ok_or("nothing changed")?;
        if n % (changes / 4).max(1) == 0 {
            tell(&document, "then");
        }
    }
    document.compact()?;
    tell(&document, "compacted");
    Ok(())
}

fn tell(document: &Document, when: &str) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let resident = line.unwrap_or_default().trim_start_matches("VmRSS:").trim();
    let saved = document.save().len() / 1024;
    println!(
        "{when}: {} changes, {resident} resident, {saved} kB when saved",
        document.change_count()
    );
}

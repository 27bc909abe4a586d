//! Prints what the membership machine does under simulated faults.
//!
//! `cargo run -p dunlin-gossip --example swim_figures -- kills|stalls|size|heal [ARGS]`; with
//! `NO_RELIABLE` in the environment the reliable path is dead, and `PROFILE` is `lan`, `wan` or
//! `local`.

#[allow(dead_code, missing_docs, unreachable_pub)]
#[path = "../tests/swim/sim/mod.rs"]
mod sim;

use dunlin_gossip::membership::{MemberEvent, MemberState, Profile};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sim::{Network, Sim};

fn main() {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_default();
    let numbers: Vec<f64> = args.filter_map(|arg| arg.parse().ok()).collect();
    let number = |at: usize, default: f64| numbers.get(at).copied().unwrap_or(default);
    match what.as_str() {
        "kills" => kills(
            number(0, 200.0) as u64,
            number(1, 9.0) as usize,
            number(2, 0.0),
        ),
        "stalls" => stalls(number(0, 1.0), number(1, 0.2), number(2, 0.0) as u64),
        "size" => size(number(0, 100.0) as usize, number(1, 0.0)),
        "heal" => heal(
            number(0, 20.0) as u64,
            number(1, 9.0) as usize,
            number(2, 0.0),
        ),
        _ => println!(
            "kills [RUNS NODES LOSS] | stalls [HOURS LOSS SEED] | size [NODES LOSS] | heal [RUNS NODES LOSS]"
        ),
    }
}

fn network(loss: f64) -> Network {
    Network {
        latency: match profile() {
            Profile::Lan => (1, 20),
            Profile::Wan => (20, 200),
            Profile::Local => (0, 1),
        },
        loss,
        duplicates: 0.01,
        reliable: std::env::var_os("NO_RELIABLE").is_none(),
    }
}

fn quantiles(name: &str, mut values: Vec<u64>) {
    values.sort_unstable();
    let at = |q: f64| values[((values.len() - 1) as f64 * q).round() as usize];
    println!(
        "{name}: n {} p50 {} p90 {} p99 {} max {} ms",
        values.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}

/// The preset to measure.
fn profile() -> Profile {
    match std::env::var("PROFILE").as_deref() {
        Ok("wan") => Profile::Wan,
        Ok("local") => Profile::Local,
        Ok(_) | Err(_) => Profile::Lan,
    }
}

/// One node is cut off; until all others hold it for down.
fn kills(runs: u64, nodes: usize, loss: f64) {
    let (mut first, mut all, mut missed) = (Vec::new(), Vec::new(), 0);
    let is_down = |sim: &Sim| sim.beliefs(1).iter().all(|b| *b == Some(MemberState::Down));
    let any_down = |sim: &Sim| sim.beliefs(1).contains(&Some(MemberState::Down));
    for run in 0..runs {
        let mut sim = Sim::joined(nodes, profile(), network(loss), run);
        sim.advance(10_000 + run * 137 % 400);
        let start = sim.now;
        sim.isolate(1);
        sim.kill(1);
        if sim.until(20_000, any_down).is_some() {
            first.push(sim.now - start);
        }
        match sim.until(20_000, is_down) {
            Some(_) => all.push(sim.now - start),
            None => missed += 1,
        }
    }
    println!("{nodes} nodes, loss {loss}, {missed} not seen by all within 20 s");
    quantiles("down at the first", first);
    quantiles("down at all", all);
}

/// Loss everywhere, and a third of the nodes stand still now and then.
fn stalls(hours: f64, loss: f64, seed: u64) {
    let nodes = 9;
    let mut sim = Sim::joined(nodes, profile(), network(loss), seed);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let end = sim.now + (hours * 3_600_000.0) as u64;
    let mut next: Vec<u64> = vec![sim.now + 30_000; nodes / 3];
    let (mut hour, mut hours_done) = (sim.now + 3_600_000, 0);
    while sim.now < end {
        for (index, due) in next.iter_mut().enumerate() {
            if *due <= sim.now {
                sim.freeze(index, rng.random_range(500..=2_000));
                *due = sim.now + rng.random_range(5_000..60_000);
            }
        }
        sim.advance(100);
        for (at, observer, event) in sim.log.drain(..) {
            if let MemberEvent::Down(member) = event {
                println!("  {at}: {observer} holds {} for down", member.address);
            }
        }
        if sim.now >= hour || sim.now >= end {
            hour += 3_600_000;
            hours_done += 1;
            println!(
                "hour {hours_done}: {:?} agreed {}",
                sim.figures,
                sim.agreed()
            );
        }
    }
}

/// Traffic at rest, and the detection of one crash, in a larger cluster.
fn size(nodes: usize, loss: f64) {
    let mut sim = Sim::joined(nodes, profile(), network(loss), 1);
    println!("{nodes} nodes formed at {} ms", sim.now - 1_000_000);
    sim.advance(20_000);
    let before = sim.figures;
    sim.advance(20_000);
    let per = |after: u64, before: u64| (after - before) as f64 / 20.0 / nodes as f64;
    println!(
        "at rest: {:.0} B/s and {:.1} datagrams/s per node, false down {} suspect {}, agreed {}",
        per(sim.figures.bytes, before.bytes),
        per(sim.figures.datagrams, before.datagrams),
        sim.figures.false_down,
        sim.figures.false_suspect,
        sim.agreed(),
    );
    let start = sim.now;
    let mut all = Vec::new();
    sim.log.clear();
    sim.kill(1);
    sim.advance(15_000);
    for (at, _, event) in &sim.log {
        if let MemberEvent::Down(member) = event
            && member.node == sim::node_id(1)
        {
            all.push(at - start);
        }
    }
    quantiles("down at each", all);
}

/// Two halves for a minute, then one again.
fn heal(runs: u64, nodes: usize, loss: f64) {
    let (mut split, mut healed, mut missed) = (Vec::new(), Vec::new(), 0);
    for run in 0..runs {
        let mut sim = Sim::joined(nodes, profile(), network(loss), run);
        sim.partition(nodes / 2);
        let start = sim.now;
        let apart = |sim: &Sim| {
            let low = sim.machine_of(0).members();
            let down = low.filter(|view| view.state == MemberState::Down).count();
            down == nodes - nodes / 2
        };
        if sim.until(60_000, apart).is_some() {
            split.push(sim.now - start);
        }
        sim.advance(60_000);
        sim.mend();
        let start = sim.now;
        if sim.settle(60_000) {
            healed.push(sim.now - start);
        } else {
            missed += 1;
        }
    }
    println!("{nodes} nodes, loss {loss}, {missed} not healed within 60 s");
    quantiles("other half down at node 0", split);
    quantiles("all agree after the heal", healed);
}

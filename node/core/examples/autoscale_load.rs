//! What scaling by load does with weeks of load: `cargo run --release -p dunlin-core --example
//! autoscale_load` prints how long replicas had more to do than they should and how many hours of
//! replicas that took, for a load that is made up and for one that was recorded; `… -- generate`
//! prints the first.

mod autoscaling;

use autoscaling::{CASES, Load};

fn main() {
    if std::env::args().nth(1).as_deref() == Some("generate") {
        for connections in autoscaling::generate() {
            println!("{connections}");
        }
        return;
    }
    println!(
        "After a week of learning; 2 to 60 replicas, down window 5 min, a replica serves 60 s"
    );
    println!("after it was asked for. Under target: a tenth more than a replica shall have.");
    for load in [Load::made_up(), Load::recorded()] {
        show(&load);
    }
}

fn show(load: &Load) {
    let days = load.counted_days();
    println!();
    println!("{}; {days} days:", load.name);
    println!();
    println!("| | under target | longest | replica-hours | changes |");
    println!("|---|---|---|---|---|");
    for (name, season) in CASES {
        let found = autoscaling::run(load, season);
        println!(
            "| {name} | {:.2} % of the time, {:.1} min a day | {} s | {:.0} | {} |",
            found.under_permyriad as f64 / 100.0,
            found.under_seconds as f64 / 60.0 / days as f64,
            found.longest_seconds,
            found.replica_seconds as f64 / 3_600.0,
            found.changes,
        );
    }
    let most = load.enough();
    println!(
        "| always {most} replicas | 0 | 0 s | {} | 0 |",
        most * days * 24
    );
}

//! What scaling by load does with three weeks of load: `cargo run --release -p dunlin-core
//! --example autoscale_load` prints how long replicas had more to do than they should and how many
//! hours of replicas that took; `… -- generate` prints the load itself.

mod autoscaling;

fn main() {
    if std::env::args().nth(1).as_deref() == Some("generate") {
        for connections in autoscaling::generate() {
            println!("{connections}");
        }
        return;
    }
    println!(
        "after a week of learning, 14 days, one replica for 100 connections, 2 to 60 replicas,"
    );
    println!(
        "down window 5 min, a replica serves 60 s after it was asked for; under target: above 110"
    );
    println!("connections a replica");
    println!();
    println!("| | under target | longest | replica-hours | changes |");
    println!("|---|---|---|---|---|");
    for (name, season) in autoscaling::CASES {
        let found = autoscaling::run(season);
        println!(
            "| {name} | {:.2} % of the time, {:.1} min a day | {} s | {:.0} | {} |",
            found.under_permyriad as f64 / 100.0,
            found.under_seconds as f64 / 60.0 / 14.0,
            found.longest_seconds,
            found.replica_seconds as f64 / 3_600.0,
            found.changes,
        );
    }
    let most = autoscaling::enough_for_all();
    println!(
        "| always {most} replicas | 0 | 0 s | {} | 0 |",
        most * 14 * 24
    );
}

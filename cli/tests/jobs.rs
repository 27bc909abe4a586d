//! Jobs with real daemons and processes: what they tell those that wait for them.

#[expect(dead_code, reason = "its other half is for the tests of bad input")]
#[path = "bad_input/daemon.rs"]
mod daemon;

use std::fs;
use std::path::Path;

use daemon::{Daemon, until};

/// The example that people are shown.
fn example() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/jobs/compose.yaml");
    fs::read_to_string(path).expect("the example")
}

fn cluster() -> [Daemon; 3] {
    let one = Daemon::start("n1", &[]);
    let [two, three] = ["n2", "n3"].map(|name| Daemon::start(name, &["--join", &one.ticket()]));
    until("a cluster of three", || {
        one.sees(3) && two.sees(3) && three.sees(3)
    });
    [one, two, three]
}

/// What a service has said so often.
fn says(daemon: &Daemon, service: &str, words: &str, times: usize) -> bool {
    daemon.ask(&["logs", service]).text.matches(words).count() >= times
}

#[test]
fn what_jobs_tell_is_given_to_those_that_wait_also_when_their_node_is_gone() {
    let [one, mut two, mut three] = cluster();
    one.deploy(&example(), &["--timeout", "60s"]).expect(0, &[]);
    until("both replicas to say it", || {
        says(&one, "web", "serving 33", 2)
    });
    one.ask(&["job", "ls", "count"])
        .expect(0, &["succeeded", "3/3", "Outputs of rev-", "PART_2=21"]);
    two.ask(&["job", "ls", "add"]).expect(0, &["TOTAL=33"]);
    one.ask(&["inspect", "add"]).expect(0, &["TOTAL=33"]);
    // Two of three are gone, and with them the claims of parts that they ran.
    three.end();
    two.end();
    one.ask(&["scale", "web=3"]).expect(0, &[]);
    until("a third that was never there", || {
        says(&one, "web", "serving 33", 3)
    });
}

#[test]
fn outputs_that_make_no_sense_fail_the_run_and_say_why() {
    let one = Daemon::start("n1", &[]);
    let file = "
services:
  job:
    command: [sh, -c, 'echo \"version 1\" >> $$DUNLIN_OUTPUT']
    x-dunlin: {runtime: process, job: {retries: 0}}
";
    let why = "slot 0 has written outputs that cannot be taken: line 1 is not NAME=value";
    one.deploy(file, &["--timeout", "60s"]).expect(1, &[why]);
    one.ask(&["job", "ls", "job"])
        .expect(0, &["failed", "line 1"]);
}

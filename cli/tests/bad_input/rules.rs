//! Rules that cannot be kept, and what fails while they are: each has a clear word in `ps`, and one
//! in `explain`.

use super::daemon::{Daemon, until};

const BODY: &str = "command: [sh, -c, 'trap exit TERM; while :; do sleep 0.2; done']";

/// `ps` and `explain` of a service come to say these.
fn told(node: &Daemon, service: &str, ps: &[&str], explain: &[&str]) {
    for (words, parts) in [(["ps", service], ps), (["explain", service], explain)] {
        let mut text = String::new();
        until(&format!("{parts:?} in {words:?}"), || {
            let said = node.ask(&words).text;
            let all = parts.iter().all(|part| said.contains(part));
            if said != text {
                // What a test that fails has seen.
                println!("{words:?}:\n{said}");
                text = said;
            }
            all
        });
    }
}

fn deployed(node: &Daemon, name: &str, rest: &str) {
    let text = format!("services:\n  {name}:\n    {BODY}\n{rest}");
    node.deploy(&text, &["--detach"]).expect(0, &[]);
}

#[test]
fn what_cannot_be_is_told_by_ps_and_explain() {
    let node = Daemon::start("n1", &[]);
    let own = "x-dunlin: {runtime: process}\n";

    let both = "[node.hostname == n1, node.hostname != n1]";
    let placement = format!("    deploy: {{placement: {{constraints: {both}}}}}\n    {own}");
    deployed(&node, "nowhere", &placement);
    let clash = "'node.hostname == n1' and 'node.hostname != n1' exclude each other";
    told(&node, "nowhere", &["vacant", clash], &["vacant", clash]);

    let check = "{test: [CMD, sleep, '1000'], interval: 1s, timeout: 1s, retries: 1}";
    deployed(
        &node,
        "deaf",
        &format!("    healthcheck: {check}\n    {own}"),
    );
    let fails = ["the health check fails", "no answer within 1"];
    told(&node, "deaf", &fails, &fails);

    let hooks = "    x-dunlin: {runtime: process, hooks: {pre_deploy: [sh, -c, 'exit 7']}}\n";
    deployed(&node, "barred", hooks);
    let code = "exited with code 7";
    told(&node, "barred", &["blocked", code], &["vacant", code]);

    let memory = "    deploy: {resources: {reservations: {memory: 9000G}}}\n";
    deployed(&node, "huge", &format!("{memory}    {own}"));
    let room = "needs 8.7 TiB of memory";
    told(&node, "huge", &["vacant", room], &["vacant", room]);
}

/// A quota that is set below what there is stops nothing, and everybody is told.
#[test]
fn a_quota_below_what_there_is_and_a_scale_that_does_not_fit_are_told() {
    let node = Daemon::start("n1", &[]);
    let own = "x-dunlin: {runtime: process}\n";
    deployed(
        &node,
        "web",
        &format!("    deploy: {{replicas: 3}}\n    {own}"),
    );
    until("three replicas", || {
        node.ask(&["ps", "web"]).text.matches(" ready ").count() == 3
    });
    node.ask(&["namespace", "set-quota", "default", "--replicas", "2"])
        .expect(0, &[]);
    let over = "the namespace default is over its quota";
    told(
        &node,
        "web",
        &["ready", over],
        &["all 3 replicas are ready", over],
    );
    node.ask(&["scale", "web=4"]).expect(6, &["quota"]);
    node.ask(&["namespace", "set-quota", "default", "--none"])
        .expect(0, &[]);

    let most = "    deploy: {replicas: 1, placement: {max_replicas_per_node: 1}}\n";
    deployed(&node, "one", &format!("{most}    {own}"));
    node.ask(&["scale", "one=3", "--detach"]).expect(0, &[]);
    let full = "already runs its maximum of 1 per node";
    told(
        &node,
        "one",
        &["ready", "vacant", full],
        &["1 of 3 replicas", full],
    );
}

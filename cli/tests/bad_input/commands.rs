//! Mistakes in files and on the command line of a running cluster.

use crate::daemon::{Daemon, dunlin, until};

/// A service of host processes.
fn service(name: &str, command: &str, deploy: &str) -> String {
    format!(
        "services:\n  {name}:\n    x-dunlin: {{runtime: process}}\n    command: {command}\n    deploy: {deploy}\n"
    )
}

#[test]
fn a_bad_compose_file_is_told_with_its_place_and_changes_nothing() {
    let node = Daemon::start("n1", &[]);
    for (text, parts) in [
        (
            "services:\n  web:\n    image: x\n   bad: 1\n",
            &["not valid YAML", ":4:"][..],
        ),
        ("services:\n  web:\n    image: [x]\n", &[":3:"]),
        ("services:\n  web: {}\n", &["no image", ":2:3"]),
        ("services: {}\n", &["no services", ":1:1"]),
        ("", &["empty"]),
    ] {
        node.deploy(text, &[])
            .expect(2, parts)
            .expect(2, &["nothing was changed"]);
    }
    let long = format!("services:\n{}", "  # filler\n".repeat(200_000));
    node.deploy(&long, &[]).expect(2, &["more than 1024 KiB"]);
    let aliases = (0..40).fold("a0: &a0 [x, x]\n".to_owned(), |text, i| {
        text + &format!("a{}: &a{} [*a{i}, *a{i}]\n", i + 1, i + 1)
    });
    let bomb = format!("{aliases}services:\n  web:\n    image: x\n    command: *a40\n");
    let said = node.deploy(&bomb, &[]);
    assert_eq!(
        said.code,
        Some(2),
        "{}",
        &said.text[..said.text.len().min(2_000)]
    );
    // Two of them are more than one service may say.
    let value = "v".repeat(45_000);
    let large =
        format!("services:\n  web: {{image: x, environment: {{A: {value}, B: {value}}}}}\n");
    let said = node.deploy(&large, &["-d"]);
    said.expect(2, &["at most", "put large values", "nothing was changed"]);
    assert_eq!(node.ask(&["ls", "-q"]).text, "");
    // Each of these is within bounds, and all together are more than one change may hold.
    let many: String = (0..20)
        .map(|i| format!("  s{i}: {{image: x, environment: {{A: '{i}{value}'}}}}\n"))
        .collect();
    let said = node.deploy(&format!("services:\n{many}"), &["-d"]);
    said.expect(0, &[]);
    assert_eq!(node.ask(&["ls", "-q"]).text.lines().count(), 20);
}

#[test]
fn unknown_names_have_an_exit_code_of_their_own() {
    let node = Daemon::start("n1", &[]);
    for words in [&["logs", "nope"][..], &["explain", "nope"], &["rm", "nope"]] {
        node.ask(words)
            .expect(5, &["no service is named", "dunlin ls"]);
    }
    node.ask(&["drain", "nope"])
        .expect(5, &["no node is called 'nope'", "dunlin nodes"]);
    node.deploy(
        &service("none", "[/bin/sleep, '1000']", "{replicas: 0}"),
        &[],
    )
    .expect(0, &["as wanted"]);
    dunlin(&["-H", "unix:///nonexistent/api.sock", "ps"])
        .expect(3, &["no daemon answers", "dunlin up"]);
}

#[test]
fn a_service_that_ends_at_once_is_seen_to_do_so() {
    let node = Daemon::start("n1", &[]);
    let text = service("ex", "[/bin/sh, -c, 'exit 3']", "{replicas: 1}");
    let said = node.deploy(&text, &["--timeout", "3s"]);
    let said = said.expect(4, &["exited with code 3"]);
    assert!(
        !said.text.contains("of 1 replicas are ready"),
        "{}",
        said.text
    );
    until("the back-off", || {
        let listed = node.ask(&["ps"]).text;
        (listed.contains("back-off") || listed.contains("crash loop"))
            && listed.contains("exited with code 3")
    });
}

#[test]
fn a_program_that_does_not_exist_is_named() {
    let node = Daemon::start("n1", &[]);
    let text = service("web", "[/no/such/program]", "{replicas: 2}");
    let cause = "no program '/no/such/program'";
    node.deploy(&text, &["--timeout", "4s"]).expect(4, &[cause]);
    node.ask(&["explain", "web"])
        .expect(0, &[cause, "deploy a corrected specification"]);
    let image = "services:\n  img:\n    image: nobody/nothing:1\n";
    node.deploy(image, &["--timeout", "2s"])
        .expect(4, &["container engine"]);
    node.ask(&["explain", "img"])
        .expect(0, &["start Docker or Podman"]);
}

#[test]
fn requirements_that_no_node_meets_are_explained_node_by_node() {
    let first = Daemon::start("n1", &[]);
    let second = Daemon::start("n2", &["--join", &first.ticket()]);
    until("the cluster", || first.sees(2) && second.sees(2));
    let limits = "{resources: {reservations: {memory: 9000G}}}";
    let text = service("big", "[/bin/sleep, '1000']", limits);
    let cause = "needs 8.7 TiB of memory";
    until("both offers", || {
        let said = first
            .deploy(&text, &["--timeout", "3s"])
            .expect(4, &[cause]);
        said.text.contains("2 of 2 nodes")
    });
    let lines = first.ask(&["explain", "big"]).expect(0, &[cause]).text;
    for name in ["n1", "n2"] {
        let line = lines
            .lines()
            .find(|l| l.starts_with(name))
            .expect("its line");
        assert!(
            line.contains(cause) && line.contains("lower deploy.resources"),
            "{line}"
        );
    }
}

#[test]
fn a_name_used_twice_is_told_and_never_guessed() {
    let first = Daemon::start("twin", &[]);
    let second = Daemon::start("twin", &["--join", &first.ticket()]);
    until("the cluster", || first.sees(2) && second.sees(2));
    until("both names", || {
        first.ask(&["doctor"]).text.contains("used twice: twin")
    });
    let said = first
        .ask(&["drain", "twin"])
        .expect(6, &["may be any of", "the id"]);
    assert_eq!(said.text.matches("(twin)").count(), 2, "{}", said.text);
    assert!(!first.ask(&["nodes"]).text.contains("drained"));
}

#[test]
fn replicas_of_a_node_that_is_down_are_lost() {
    let first = Daemon::start("n1", &[]);
    let mut second = Daemon::start("n2", &["--join", &first.ticket()]);
    until("the cluster", || first.sees(2) && second.sees(2));
    let text = service("web", "[/bin/sleep, '1000']", "{mode: global}");
    first.deploy(&text, &["--timeout", "30s"]).expect(0, &[]);
    until("both replicas", || {
        let listed = first.ask(&["ps"]).text;
        listed.matches(" ready ").count() == 2
    });
    second.end();
    until("the loss", || {
        let listed = first.ask(&["ps"]).text;
        let lost = listed
            .lines()
            .filter(|l| l.contains(" n2 ") && l.contains("lost"));
        lost.count() == 1
    });
    // Its workload is adopted, and ended with the service.
    second.restart(|_| (), &[]);
    until("the return", || first.sees(2));
}

//! What is wrong, where, and what to do about it.

use super::{file, parse_text, parse_with, shown};

/// Position, path, and a part of message or hint.
type Expected<'a> = (&'a str, &'a str, &'a str);

#[track_caller]
fn check(text: &str, expected: &[Expected<'_>]) {
    let errors = parse_text(text).expect_err("the file is faulty");
    let context = || format!("{text}\n---\n{}", shown(&errors));
    assert_eq!(errors.len(), expected.len(), "{}", context());
    for (error, (at, path, words)) in errors.iter().zip(expected) {
        assert_eq!(error.at.to_string(), *at, "{}", context());
        assert_eq!(error.path, *path, "{}", context());
        let hint = error.hint.clone().unwrap_or_default();
        let text = format!("{} | {hint}", error.message);
        assert!(text.contains(words), "'{words}' not in '{text}'");
    }
}

/// Faults of a service's keys; the lines start at 4:5.
#[track_caller]
pub(super) fn service(lines: &str, expected: &[Expected<'_>]) {
    check(&file(lines), expected);
}

#[test]
fn whole_file() {
    check("", &[("0:0", "", "empty")]);
    check("# nothing\n", &[("0:0", "", "empty")]);
    check("hello", &[("1:1", "", "not a Compose file")]);
    check("- a\n", &[("1:1", "", "not a Compose file")]);
    check("name: a\n", &[("0:0", "", "no 'services'")]);
    check("services:\n", &[("1:1", "services", "expected a mapping")]);
    check("services: {}\n", &[("1:1", "services", "no services")]);
    check("services: [a]\n", &[("1:11", "services", "not a list")]);
    check(
        "services: {a: {image: b}}\n---\nservices: {}\n",
        &[("2:1", "", "more than one YAML document")],
    );
    check(
        "include: [a.yaml]\nservices: {a: {image: b}}\n",
        &[("1:1", "include", "copy their services")],
    );
    check(
        "name: My Shop\nx-dunlin: {namespace: A_b}\nservices: {a: {image: b}}\n",
        &[
            ("1:7", "name", "not a project name"),
            ("2:23", "x-dunlin.namespace", "namespace"),
        ],
    );
}

#[test]
fn syntax() {
    check(
        "services:\n  web:\n\timage: a\n",
        &[("3:1", "services.web", "spaces, never with tabs")],
    );
    check(
        "services:\n  web:\n    image: \"a\n",
        &[("3:12", "services.web.image", "not valid YAML")],
    );
    check(
        "services:\n  web: *nobody\n",
        &[("2:8", "services.web", "not valid YAML")],
    );
    check(
        "services:\n  web:\n    image: !reset a\n",
        &[("3:12", "services.web.image", "several files are merged")],
    );
}

#[test]
fn keys_given_twice_name_both_places() {
    let text = "services:\n  web:\n    image: a\n    image: b\n  web:\n    image: c\n";
    let errors = parse_text(text).expect_err("faulty");
    let places: Vec<_> = errors
        .iter()
        .map(|e| {
            let (first, _) = e.related.clone().expect("both places");
            (e.at.to_string(), first.to_string(), e.path.as_str())
        })
        .collect();
    let expected = [
        ("4:5".to_owned(), "3:5".to_owned(), "services.web.image"),
        ("5:3".to_owned(), "2:3".to_owned(), "services.web"),
    ];
    assert_eq!(places, expected);
}

#[test]
fn unknown_keys_get_suggestions() {
    service(
        "enviroment: {}",
        &[(
            "4:5",
            "services.web.enviroment",
            "did you mean 'environment'?",
        )],
    );
    service(
        "replicas: 3",
        &[(
            "4:5",
            "services.web.replicas",
            "belongs under services.<name>.deploy",
        )],
    );
    service(
        "frobnicate: 3",
        &[("4:5", "services.web.frobnicate", "start its name with 'x-'")],
    );
    check(
        "servces: {}\nservices: {a: {image: b}}\n",
        &[("1:1", "servces", "did you mean 'services'?")],
    );
    service(
        "deploy: {x-dunlin: {}}",
        &[("4:14", "services.web.deploy.x-dunlin", "unknown key")],
    );
    service(
        "x-dunlin: {runtme: docker}",
        &[("4:16", "services.web.x-dunlin.runtme", "'runtime'")],
    );
}

#[test]
fn names_of_services() {
    check(
        "services:\n  my_web:\n    image: a\n  Web: {image: a}\n  -: {image: a}\n",
        &[
            ("2:3", "services.my_web", "name it 'my-web'"),
            ("4:3", "services.Web", "name it 'web'"),
            ("5:3", "services.-", "not a valid service name"),
        ],
    );
}

#[test]
fn all_faults_are_reported_together() {
    check(
        "services:\n  a_b:\n    imag: x\n    ports: [\"99999:80\", \"80:80:80:80\"]\n    deploy:\n      replicas: many\n      mode: globl\n",
        &[
            ("2:3", "services.a_b", "name it 'a-b'"),
            ("2:3", "services.a_b", "no image"),
            ("3:5", "services.a_b.imag", "'image'"),
            ("4:13", "services.a_b.ports[0]", "ports are 1 to 65535"),
            ("4:25", "services.a_b.ports[1]", "not an IP address"),
            ("6:17", "services.a_b.deploy.replicas", "not a whole number"),
            ("7:13", "services.a_b.deploy.mode", "did you mean 'global'?"),
        ],
    );
}

#[test]
fn something_to_run() {
    check(
        "services:\n  a: {command: x}\n",
        &[("2:3", "services.a", "runtime: process")],
    );
    check(
        "services:\n  a: {build: .}\n",
        &[("2:7", "services.a.build", "builds no images")],
    );
    check(
        "services:\n  a:\n    x-dunlin: {runtime: process}\n",
        &[("2:3", "services.a", "needs a command")],
    );
    check(
        "services:\n  a:\n    x-dunlin: {runtime: dockr}\n    image: x\n",
        &[(
            "3:25",
            "services.a.x-dunlin.runtime",
            "did you mean 'docker'?",
        )],
    );
    check(
        "services:\n  a: {image: 'a b'}\n",
        &[("2:14", "services.a.image", "has ' '")],
    );
    check(
        "services:\n  a: {image: ''}\n",
        &[("2:14", "services.a.image", "image is empty")],
    );
    check(
        "services:\n  a: {image: }\n",
        &[("2:7", "services.a.image", "no value")],
    );
    service(
        "command: echo 'a",
        &[("4:14", "services.web.command", "quote ' is not closed")],
    );
    service(
        "command: ['', a]",
        &[("4:14", "services.web.command", "program to run is empty")],
    );
}

#[test]
fn ports() {
    let port = |item: &str, at: &str, path: &str, words: &str| {
        service(&format!("ports:\n  - {item}"), &[(at, path, words)]);
    };
    let first = "services.web.ports[0]";
    port("0", "5:9", first, "ports are 1 to 65535");
    port("\"80:http\"", "5:9", first, "'http' is not a port");
    port("80/sctp", "5:9", first, "unknown protocol 'sctp'");
    port("\"9-3:9-3\"", "5:9", first, "backwards");
    port(
        "\"8000-8010:80\"",
        "5:9",
        first,
        "11 host ports for 1 container ports",
    );
    port("\"localhost:80:80\"", "5:9", first, "not an IP address");
    port("{published: 80}", "5:9", first, "no target");
    port(
        "{target: 80, published: 1-5}",
        "5:33",
        "services.web.ports[0].published",
        "range",
    );
    port(
        "{target: 80, mode: hst}",
        "5:28",
        "services.web.ports[0].mode",
        "'host'",
    );
    service(
        "ports: [\"80:80\", \"80:81\"]",
        &[("4:22", "services.web.ports[1]", "published twice")],
    );
    service(
        "expose: [\"80:80\"]",
        &[("4:14", "services.web.expose[0]", "not a port")],
    );
    check(
        "services:\n  a: {image: x, ports: [\"80:1\"]}\n  b: {image: x, ports: [\"80:1\"]}\n",
        &[(
            "3:25",
            "services.b.ports[0]",
            "published by the service 'a' too",
        )],
    );
}

#[test]
fn what_the_cluster_would_refuse_is_refused_here() {
    let long = format!(
        "command: [\"{}\"]\nuser: \"{}\"",
        "x".repeat(500),
        "u".repeat(2_000)
    );
    service(&long, &[("2:3", "services.web", "the user is too long")]);
    let big = format!("environment:\n  A: {}", "x".repeat(50_000));
    service(
        &big,
        &[("4:5", "services.web.environment", "takes 50001 bytes")],
    );
    service(
        "user: \"a\\tb\"\nvolumes: [\"/a\\eb:/c\"]",
        &[
            ("4:11", "services.web.user", "control character"),
            ("5:15", "services.web.volumes[0]", "control character"),
        ],
    );
    service(
        "stop_grace_period: 2h",
        &[(
            "4:24",
            "services.web.stop_grace_period",
            "longer than an hour",
        )],
    );
    service(
        "ports: [\"80:80\", \"81:80\"]",
        &[(
            "4:22",
            "services.web.ports[1]",
            "of the container is published twice",
        )],
    );
    service(
        "ports: [\"127.0.0.1:80:80\", \"127.0.0.2:80:81\"]",
        &[(
            "4:32",
            "services.web.ports[1]",
            "port 80 is published twice",
        )],
    );
    service(
        "ports: [\"1000-1200\"]",
        &[("4:13", "services.web.ports[0]", "at most 128 ports")],
    );
}

#[test]
fn deploy() {
    service(
        "cpus: 1\ndeploy: {resources: {limits: {cpus: 2}}}",
        &[(
            "5:41",
            "services.web.deploy.resources.limits.cpus",
            "differ",
        )],
    );
    service(
        "deploy: {resources: {limits: {memory: 1m}, reservations: {memory: 1g}}}",
        &[(
            "4:71",
            "services.web.deploy.resources.reservations.memory",
            "more memory is reserved",
        )],
    );
    service(
        "scale: 2\ndeploy: {mode: global}",
        &[("4:12", "services.web.scale", "one replica on every node")],
    );
    service(
        "scale: -1",
        &[("4:12", "services.web.scale", "not a whole number")],
    );
    service(
        "scale: 2\ndeploy: {replicas: 3}",
        &[("5:24", "services.web.deploy.replicas", "differ")],
    );
    service(
        "restart: allways",
        &[("4:14", "services.web.restart", "did you mean 'always'?")],
    );
    service(
        "restart: on-failure:x",
        &[("4:14", "services.web.restart", "number of attempts")],
    );
    service(
        "x-dunlin: {anti_affinity: [web]}",
        &[(
            "4:32",
            "services.web.x-dunlin.anti_affinity[0]",
            "max_replicas_per_node",
        )],
    );
}

#[test]
fn values() {
    service(
        "stop_grace_period: 10",
        &[("4:24", "services.web.stop_grace_period", "'10s'")],
    );
    service(
        "stop_signal: SIGTRM",
        &[("4:18", "services.web.stop_signal", "not a signal")],
    );
    service(
        "mem_limit: 5x",
        &[("4:16", "services.web.mem_limit", "not a size")],
    );
    service(
        "cpus: lots",
        &[("4:11", "services.web.cpus", "number of cores")],
    );
    service(
        "working_dir: here",
        &[("4:18", "services.web.working_dir", "absolute path")],
    );
    service(
        "hostname: a_b",
        &[("4:15", "services.web.hostname", "RFC 1123")],
    );
    service(
        "platform: linux//a",
        &[("4:15", "services.web.platform", "platform")],
    );
    service(
        "labels: [\"=a\"]",
        &[("4:14", "services.web.labels[0]", "not a name")],
    );
    service(
        "environment: [A=1, A=2]",
        &[("4:24", "services.web.environment[1]", "given twice")],
    );
    service(
        "environment: {A: [1]}",
        &[("4:22", "services.web.environment.A", "not a list")],
    );
    service("user: \"a\\0b\"", &[("4:11", "services.web.user", "NUL")]);
    service(
        "labels: a",
        &[("4:13", "services.web.labels", "must be a mapping")],
    );
    service(
        "healthcheck: {test: [curl]}",
        &[("4:26", "services.web.healthcheck.test[0]", "CMD")],
    );
    service(
        "healthcheck: {test: a, retries: 0}",
        &[("4:37", "services.web.healthcheck.retries", "from 1")],
    );
}

#[test]
fn volumes() {
    service(
        "volumes: [\"data:/d\"]",
        &[("4:15", "services.web.volumes[0]", "not declared")],
    );
    service(
        "volumes: [\"/a:b\"]",
        &[("4:15", "services.web.volumes[0]", "not an absolute path")],
    );
    service(
        "volumes: [\"/a:/b:rx\"]",
        &[("4:15", "services.web.volumes[0]", "'rx'")],
    );
    service(
        "volumes: [\"/a:/b\", \"/c:/b\"]",
        &[("4:24", "services.web.volumes[1]", "two volumes")],
    );
    service(
        "volumes: [{source: a, target: /b}]",
        &[("4:15", "services.web.volumes[0]", "no type")],
    );
    service(
        "volumes_from: [x]",
        &[("4:5", "services.web.volumes_from", "not supported")],
    );
    check(
        "volumes: {data: }\nservices:\n  a:\n    image: x\n    volumes: [\"dat:/d\"]\n",
        &[("5:15", "services.a.volumes[0]", "did you mean 'data'?")],
    );
}

#[test]
fn interpolation_is_placed_at_the_variable() {
    // One fault each, and none about what the value would have been.
    service(
        "deploy: {replicas: \"${N?}\"}\nports: [\"${P?}\"]\nlabels: ${L?}",
        &[
            ("4:25", "services.web.deploy.replicas", "N is required"),
            ("5:14", "services.web.ports[0]", "P is required"),
            ("6:13", "services.web.labels", "L is required"),
        ],
    );
    service(
        "user: a-${B",
        &[("4:13", "services.web.user", "not closed")],
    );
    service(
        "labels: {a: \"\\t${B:?set it}\"}",
        &[("4:20", "services.web.labels.a", "B is required: set it")],
    );
    service(
        "user: ${9}",
        &[("4:11", "services.web.user", "variable name")],
    );
    service(
        "user: ${A/b/c}",
        &[("4:11", "services.web.user", "'/' after '${A'")],
    );
    service(
        "command: |\n  one $$\n  two ${A?}",
        &[("6:11", "services.web.command", "A is required")],
    );
    service(
        "command: >-\n  $$ ä ${A?}",
        &[("5:12", "services.web.command", "A is required")],
    );
}

#[test]
fn env_files_have_places_of_their_own() {
    let text = file("env_file:\n  - a.env\n  - path: gone.env\n    required: false\n  - lost.env");
    let files = [("/srv/shop/a.env", "# c\nA=1\n  B C=2\nD=\"x\n=y\n")];
    let errors = parse_with(&text, &[], &files).expect_err("faulty");
    let places: Vec<String> = errors
        .iter()
        .map(|e| format!("{}:{} {}", e.file, e.at, e.message))
        .collect();
    let expected = [
        "/srv/shop/a.env:3:3 'B C' is not a variable name",
        "/srv/shop/a.env:4:1 the quote \" is not closed on its line",
        "/srv/shop/a.env:5:1 '' is not a variable name",
        "compose.yaml:8:9 cannot read /srv/shop/lost.env: no such file",
    ];
    assert_eq!(places, expected);
}

#[test]
fn faults_are_shown_with_their_line() {
    let errors = parse_text("services:\n  web:\n    image: a\n    imge: b\n    image: c\n");
    let text = shown(&errors.expect_err("faulty"));
    let expected = "\
error: unknown key 'imge' in services.web
 --> compose.yaml:4:5
  |
4 |     imge: b
  |     ^^^^
  = help: did you mean 'image'?

error: the key 'image' is given twice
 --> compose.yaml:5:5
  |
5 |     image: c
  |     ^^^^^
  = note: it is given first at compose.yaml:3:5";
    assert_eq!(text, expected);
}

#[test]
fn a_file_cannot_send_escape_sequences_to_the_terminal() {
    let errors = parse_text("services:\n  \"a\\e[31m\":\n    image: \"x\u{7f}\"\n");
    let text = shown(&errors.expect_err("faulty"));
    assert!(
        text.chars().all(|c| c == '\n' || !c.is_control()),
        "{text:?}"
    );
}

#[test]
fn long_lines_are_cut_around_the_fault() {
    let text = format!(
        "services: {{a: {{image: b, user: '{}', imag: c}}}}",
        "x".repeat(500)
    );
    let errors = parse_text(&text).expect_err("faulty");
    let shown = errors[0].to_string();
    let lines: Vec<&str> = shown.lines().collect();
    let caret = lines[4].find('^').expect("a caret");
    assert!(lines[3].chars().count() < 140);
    assert!(lines[3][caret..].starts_with("imag"), "{shown}");
}

//! What files mean.

use std::time::Duration;

use dunlin_state::model::{
    Constraint, ConstraintOp, FailureAction, HealthTest, HttpTest, Mode, PortSpec, Protocol,
    PublishMode, RestartCondition, RuntimeKind, Strategy, UpdateOrder, VolumeMount, VolumeScope,
};

use super::{file, good, parse_with, service, variables};
use crate::compose::support::{SECTIONS, Support};
use crate::compose::{documentation, read::UNHANDLED};

fn millis(seconds: u64) -> u64 {
    Duration::from_secs(seconds).as_secs() * 1000
}

#[test]
fn names() {
    let project = good("name: shop\nx-dunlin: {namespace: prod}\nservices: {web: {image: a}}\n");
    assert_eq!(project.name, "shop");
    assert_eq!(project.services[0].key.to_string(), "prod/web");
    let project = good("services: {web: {image: a}}\n");
    assert_eq!(project.name, "shop", "from the directory");
    assert_eq!(project.services[0].key.to_string(), "default/web");
}

#[test]
fn commands() {
    let words = |lines: &str| service(lines).spec.command;
    assert_eq!(words("command: run --name 'a b'"), ["run", "--name", "a b"]);
    assert_eq!(words("command: [run, 10, \"a b\"]"), ["run", "10", "a b"]);
    assert!(words("command:").is_empty());
    assert_eq!(service("entrypoint: /go -v").spec.entrypoint, ["/go", "-v"]);
}

#[test]
fn environment_is_a_map_or_a_list() {
    let lines = "environment:\n  A: 1\n  B: \"\"\n  C: yes\n  HOME:\n  GONE:\n  D: 1.0";
    let expected = variables(&[
        ("A", "1"),
        ("B", ""),
        ("C", "yes"),
        ("HOME", "/home/ann"),
        ("D", "1.0"),
    ]);
    let project = good(&file(lines));
    assert_eq!(project.services[0].spec.environment, expected);
    assert_eq!(project.warnings.len(), 1);
    assert_eq!(project.warnings[0].at.to_string(), "9:7");
    let lines = "environment: [A=1, B=, C=yes, HOME, GONE, D=1.0]";
    assert_eq!(service(lines).spec.environment, expected);
    let reserved = good(&file("environment: {DUNLIN_SLOT: 7}"));
    assert!(reserved.warnings[0].text.contains("set by Dunlin"));
}

#[test]
fn environment_goes_before_env_files_and_later_files_before_earlier() {
    let files = [
        (
            "/srv/shop/a.env",
            "# c\nexport A=1\nB='$A'\nC=\"x\\n$A\" # c\nD=${A}y # c\nE=\nF\nHOME\n",
        ),
        ("/srv/b.env", "A=2\nG=own\n"),
        ("/srv/shop/raw.env", "H=\"$A\" # x\n"),
    ];
    let text = file(
        "env_file:\n  - a.env\n  - ../b.env\n  - {path: raw.env, format: raw}\nenvironment: {G: mine}",
    );
    let files = files.map(|(path, text)| (path.replace("/srv/b", "/srv/shop/../b"), text));
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), *t)).collect();
    let project = parse_with(&text, &[("HOME", "/h")], &files).expect("good");
    let expected = variables(&[
        ("A", "2"),
        ("B", "$A"),
        ("C", "x\n1"),
        ("D", "1y"),
        ("E", ""),
        ("G", "mine"),
        ("H", "\"$A\" # x"),
        ("HOME", "/h"),
    ]);
    assert_eq!(project.services[0].spec.environment, expected);
}

#[test]
fn ports() {
    let plain = |target: u16, published: Option<u16>| PortSpec {
        target,
        published,
        ..PortSpec::default()
    };
    let lines = "ports:\n  - 80\n  - \"8080:81\"\n  - \"90-91\"\n  - \"1000-1001:92-93\"\n  \
                 - \"127.0.0.1:53:53/udp\"\n  - \"[::1]::94\"\nexpose: [\"80\", 95, \"96/udp\"]";
    let expected = [
        plain(80, None),
        plain(81, Some(8080)),
        plain(90, None),
        plain(91, None),
        plain(92, Some(1000)),
        plain(93, Some(1001)),
        PortSpec {
            host_ip: Some("127.0.0.1".to_owned()),
            protocol: Protocol::Udp,
            ..plain(53, Some(53))
        },
        PortSpec {
            host_ip: Some("::1".to_owned()),
            ..plain(94, None)
        },
        plain(95, None),
        PortSpec {
            protocol: Protocol::Udp,
            ..plain(96, None)
        },
    ];
    assert_eq!(service(lines).spec.ports, expected);
    let long = "ports:\n  - target: 80\n    published: \"8080\"\n    protocol: tcp\n    mode: host\n    \
                host_ip: 10.0.0.1";
    let expected = PortSpec {
        host_ip: Some("10.0.0.1".to_owned()),
        publish_mode: PublishMode::Host,
        ..plain(80, Some(8080))
    };
    assert_eq!(service(long).spec.ports, [expected]);
}

#[test]
fn a_port_is_listed_once_and_published_if_anywhere() {
    let ports = service("ports: [80, \"8080:80\", \"8080:80\", 80]")
        .spec
        .ports;
    assert_eq!(ports.len(), 1);
    assert_eq!(ports[0].published, Some(8080));
}

#[test]
fn two_services_may_hold_the_same_port_of_different_hosts() {
    let port = "ports: [{target: 80, published: 80, mode: host}]";
    let text = format!("services:\n  a: {{image: x, {port}}}\n  b: {{image: x, {port}}}\n");
    assert_eq!(good(&text).services.len(), 2);
}

#[test]
fn deploy() {
    let lines = "
deploy:
  mode: replicated
  replicas: 3
  labels: [tier=web, shared=deploy]
  resources:
    limits: {cpus: '1.5', memory: 512M}
    reservations: {cpus: 0.25, memory: 64mb}
  placement:
    constraints: [node.labels.zone==north, 'node.platform.arch != arm64']
    max_replicas_per_node: 2
  restart_policy: {condition: on-failure, delay: 2s, max_attempts: 4, window: 1m}
  update_config: {parallelism: 0}
labels: {shared: own}
platform: linux/amd64
x-dunlin:
  disk: 1g
  anti_affinity: [db, other/cache]
  strategy: pack
  runtime: docker";
    let read = service(lines);
    let spec = &read.spec;
    assert_eq!(read.replicas, Some(3));
    assert_eq!(spec.limit.cpu_millis, 1500);
    assert_eq!(spec.limit.memory, 512 << 20);
    assert_eq!(spec.reservation.cpu_millis, 250);
    assert_eq!(spec.reservation.memory, 64 << 20);
    assert_eq!(spec.reservation.disk, 1 << 30);
    assert_eq!(
        spec.labels,
        variables(&[("shared", "own"), ("tier", "web")])
    );
    let constraint = |key: &str, op, value: &str| Constraint::new(key, op, value);
    let mut constraints = spec.placement.constraints.clone();
    constraints.sort();
    let mut expected = vec![
        constraint("node.platform.os", ConstraintOp::Equal, "linux"),
        constraint("node.platform.arch", ConstraintOp::Equal, "amd64"),
        constraint("node.labels.zone", ConstraintOp::Equal, "north"),
        constraint("node.platform.arch", ConstraintOp::NotEqual, "arm64"),
    ];
    expected.sort();
    assert_eq!(constraints, expected);
    assert_eq!(spec.placement.max_per_node, Some(2));
    assert_eq!(spec.placement.strategy, Strategy::Pack);
    let others: Vec<String> = spec
        .placement
        .anti_affinity
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(others, ["default/db", "other/cache"]);
    assert_eq!(spec.restart.condition, RestartCondition::OnFailure);
    assert_eq!(spec.restart.delay_ms, millis(2));
    assert_eq!(spec.restart.max_attempts, Some(4));
    assert_eq!(spec.restart.window_ms, millis(60));
    assert!(spec.update.parallelism >= 1000);
    assert_eq!(spec.runtime, RuntimeKind::Docker);
}

#[test]
fn older_keys() {
    let read = service("scale: 4\ncpus: 2\nmem_limit: 1g\nmem_reservation: 512m");
    assert_eq!(read.replicas, Some(4));
    assert_eq!(read.spec.limit.cpu_millis, 2000);
    assert_eq!(read.spec.limit.memory, 1 << 30);
    assert_eq!(read.spec.reservation.memory, 512 << 20);
    let agreeing = service("scale: 2\ndeploy: {replicas: 2}");
    assert_eq!(agreeing.replicas, Some(2));
    assert_eq!(service("user: a").replicas, None);
    assert_eq!(service("deploy: {mode: global}").spec.mode, Mode::Global);
}

#[test]
fn restart() {
    let policy = |text: &str| service(&format!("restart: {text}")).spec.restart;
    assert_eq!(policy("\"no\"").condition, RestartCondition::Never);
    assert_eq!(policy("no").condition, RestartCondition::Never);
    assert_eq!(policy("always").condition, RestartCondition::Any);
    assert_eq!(policy("unless-stopped").condition, RestartCondition::Any);
    assert_eq!(policy("on-failure").max_attempts, None);
    assert_eq!(policy("on-failure:5").max_attempts, Some(5));
    let both = good(&file(
        "restart: always\ndeploy: {restart_policy: {condition: none}}",
    ));
    assert_eq!(
        both.services[0].spec.restart.condition,
        RestartCondition::Never
    );
    assert!(both.warnings[0].text.contains("restart was ignored"));
}

#[test]
fn health_checks() {
    let check = |lines: &str| service(&format!("healthcheck:\n{lines}")).spec.health;
    let full = check(
        "  test: [CMD, curl, -f, localhost]\n  interval: 5s\n  timeout: 2s\n  retries: 2\n  start_period: 1m",
    );
    let full = full.expect("a health check");
    let words = ["curl", "-f", "localhost"].map(str::to_owned);
    assert_eq!(full.test, HealthTest::Exec(words.to_vec()));
    assert_eq!(
        (
            full.interval_ms,
            full.timeout_ms,
            full.retries,
            full.start_period_ms
        ),
        (5_000, 2_000, 2, 60_000)
    );
    let test = |lines: &str| check(lines).map(|c| c.test);
    let shell = HealthTest::Shell("a | b".to_owned());
    assert_eq!(test("  test: a | b"), Some(shell.clone()));
    assert_eq!(test("  test: [CMD-SHELL, a | b]"), Some(shell));
    assert_eq!(test("  test: [NONE]"), Some(HealthTest::None));
    assert_eq!(test("  disable: true"), Some(HealthTest::None));
    assert_eq!(test("  interval: 5s"), None);
    let quick = check("  test: x\n  start_interval: 2s").expect("a health check");
    assert_eq!(quick.start_interval_ms, 2_000);
}

#[test]
fn traffic_and_restarts_have_checks_of_their_own() {
    let spec = service(
        "x-dunlin:\n  readiness:\n    http: {path: /ready?x=1, port: 81, host: a.example, \
         headers: {X-Probe: yes}}\n    successes: 2\n  liveness: {tcp: 80, retries: 5}",
    )
    .spec;
    let ready = spec.readiness.expect("a check");
    assert_eq!(ready.successes, 2);
    let expected = HttpTest {
        port: Some(81),
        path: "/ready?x=1".to_owned(),
        host: Some("a.example".to_owned()),
        headers: [("X-Probe".to_owned(), "yes".to_owned())].into(),
    };
    assert_eq!(ready.test, HealthTest::Http(expected));
    let alive = spec.liveness.expect("a check");
    assert_eq!((alive.test, alive.retries), (HealthTest::Tcp(Some(80)), 5));
    let short = service("x-dunlin: {readiness: {http: /}, liveness: {disable: true}}").spec;
    let root = HealthTest::Http(HttpTest::default());
    assert_eq!(short.readiness.map(|c| c.test), Some(root));
    assert_eq!(short.liveness.map(|c| c.test), Some(HealthTest::None));
    assert_eq!(spec.health, None);
}

#[test]
fn whose_a_volume_is_and_whether_it_may_be_empty() {
    let text = "
volumes:
  data: {name: data, x-dunlin: {scope: replica}}
  cache: {name: cache, x-dunlin: {scope: node, allow_empty: true}}
services:
  web:
    image: a
    volumes: [\"data:/a\", {type: volume, source: cache, target: /b}]
";
    let volumes = good(text).services[0].spec.volumes.clone();
    let told = volumes.iter().map(|v| (v.scope, v.allow_empty));
    let expected = [(VolumeScope::Replica, false), (VolumeScope::Node, true)];
    assert_eq!(told.collect::<Vec<_>>(), expected);
}

#[test]
fn volumes() {
    let text = "
name: shop
volumes:
  data:
  named: {name: warehouse}
  outside: {external: true}
services:
  web:
    image: a
    volumes:
      - data:/a
      - named:/b:ro
      - /etc/x:/c
      - ./conf/../y:/d:ro,z
      - ~/z:/e
      - {type: volume, source: outside, target: /f, read_only: true}
      - {type: bind, source: /g, target: /g}
";
    let project = good(text);
    let mount = |source: &str, target: &str, read_only| VolumeMount {
        source: source.to_owned(),
        target: target.to_owned(),
        read_only,
        ..VolumeMount::default()
    };
    let expected = [
        mount("shop_data", "/a", false),
        mount("warehouse", "/b", true),
        mount("/etc/x", "/c", false),
        mount("/srv/shop/y", "/d", true),
        mount("/home/ann/z", "/e", false),
        mount("outside", "/f", true),
        mount("/g", "/g", false),
    ];
    assert_eq!(project.services[0].spec.volumes, expected);
    let texts: Vec<&str> = project.warnings.iter().map(|w| w.text.as_str()).collect();
    assert_eq!(
        texts.iter().filter(|t| t.contains("every node")).count(),
        4,
        "{texts:?}"
    );
}

#[test]
fn other_keys() {
    let spec = service(
        "stop_signal: 2\nstop_grace_period: 1m30s\nuser: 1000:1000\nworking_dir: /app\nhostname: a.b",
    )
    .spec;
    assert_eq!(spec.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(spec.stop_grace_ms, Some(90_000));
    assert_eq!(spec.user.as_deref(), Some("1000:1000"));
    assert_eq!(spec.working_dir.as_deref(), Some("/app"));
    assert_eq!(spec.hostname.as_deref(), Some("a.b"));
    assert_eq!(
        service("stop_signal: usr1").spec.stop_signal.as_deref(),
        Some("SIGUSR1")
    );
}

#[test]
fn profiles_select_services() {
    let text = "services:\n  a: {image: x}\n  b: {image: x, profiles: [debug]}\n";
    let names = |vars: &[(&str, &str)]| -> Vec<String> {
        let project = parse_with(text, vars, &[]).expect("good");
        project
            .services
            .iter()
            .map(|s| s.key.name().to_owned())
            .collect()
    };
    assert_eq!(names(&[]), ["a"]);
    assert_eq!(names(&[("COMPOSE_PROFILES", "x, debug")]), ["a", "b"]);
    assert_eq!(good(text).warnings[0].at.to_string(), "3:3");
}

#[test]
fn processes_need_no_image() {
    let project = good("services:\n  a:\n    command: sleep 1\n    x-dunlin: {runtime: process}\n");
    assert_eq!(project.services[0].spec.runtime, RuntimeKind::Process);
    assert_eq!(project.warnings, []);
}

#[test]
fn anchors_merge_keys_and_extensions() {
    let text = "
x-common: &common
  image: base
  environment: &env {A: 1, B: 2}
x-more: &more
  image: other
  user: root
services:
  one:
    <<: *common
    image: own
  two:
    <<: [*common, *more]
    environment:
      <<: *env
      B: 3
    x-note: anything
";
    let project = good(text);
    let [one, two] = &project.services[..] else {
        panic!("two services");
    };
    assert_eq!(one.spec.image, "own");
    assert_eq!(one.spec.environment, variables(&[("A", "1"), ("B", "2")]));
    assert_eq!(two.spec.image, "base");
    assert_eq!(two.spec.user.as_deref(), Some("root"));
    assert_eq!(two.spec.environment, variables(&[("A", "1"), ("B", "3")]));
    assert_eq!(project.warnings, []);
}

#[test]
fn updates_and_rollbacks_have_policies() {
    let spec = service(
        "deploy:\n  update_config: {parallelism: 0, delay: 2s, order: start-first, monitor: 3s, \
         max_failure_ratio: 0.25, failure_action: rollback}\n  rollback_config: {parallelism: 2}\n\
         x-dunlin: {stop_delay: 4s}",
    )
    .spec;
    assert!(spec.update.parallelism >= 1_000, "0 means all");
    assert_eq!(
        (spec.update.delay_ms, spec.update.monitor_ms),
        (2_000, 3_000)
    );
    assert_eq!(spec.update.order, UpdateOrder::StartFirst);
    assert_eq!(spec.update.max_failure_permille, 250);
    assert_eq!(spec.update.failure_action, FailureAction::Rollback);
    assert_eq!(spec.rollback.map(|p| p.parallelism), Some(2));
    assert_eq!(spec.drain_ms, Some(4_000));
}

#[test]
fn ignored_keys_are_named() {
    let text = "version: '3'\nnetworks: {a: {internal: true}}\nservices:\n  web:\n    image: a\n    build: .\n    \
                dns: 1.2.3.4\n    deploy: {endpoint_mode: vip}\n    \
                command: a && b\n    user: a${NOBODY}\n";
    let warnings = good(text).warnings;
    let shown: Vec<String> = warnings
        .iter()
        .map(|w| format!("{} {} {}", w.at, w.path, w.text))
        .collect();
    let expected = [
        "1:1 version version is not honoured yet and was ignored: it is obsolete",
        "2:16 networks.a.internal internal is not honoured yet and was ignored: containers",
        "6:5 services.web.build build is not honoured yet and was ignored",
        "7:5 services.web.dns dns is not honoured yet and was ignored",
        "8:14 services.web.deploy.endpoint_mode endpoint_mode is not honoured yet",
        "9:14 services.web.command no shell runs this, so '&'",
        "10:12 services.web.user the variable NOBODY is not set",
    ];
    assert_eq!(shown.len(), expected.len(), "{shown:#?}");
    for (shown, expected) in shown.iter().zip(expected) {
        assert!(shown.starts_with(expected), "{shown} / {expected}");
    }
    let first = warnings[0].to_string();
    assert!(first.starts_with("warning: version is not"), "{first}");
    assert!(first.ends_with("1 | version: '3'\n  | ^^^^^^^"), "{first}");
}

/// A file that gives `key` in the section.
fn sample(path: &str, key: &str) -> String {
    let entry = format!("{{? {key} : 1}}");
    let base = "services: {web: {image: a, ";
    match path {
        "(top level)" => format!("{key}: 1\n"),
        "x-dunlin" => format!("x-dunlin: {entry}\n"),
        "volumes.<name>.x-dunlin" => format!("volumes: {{a: {{x-dunlin: {entry}}}}}\n"),
        "volumes.<name>" => format!("volumes: {{a: {entry}}}\n"),
        "networks.<name>" => format!("networks: {{a: {entry}}}\n"),
        "secrets.<name>" => format!("secrets: {{a: {entry}}}\n"),
        "configs.<name>" => format!("configs: {{a: {entry}}}\n"),
        "services.<name>" => format!("services: {{web: {entry}}}\n"),
        _ => {
            let inner = path
                .strip_prefix("services.<name>.")
                .expect("a part of a service");
            let (mut open, mut close) = (String::new(), String::new());
            let inner = inner
                .replace("<service>", "db")
                .replace("<network>", "default");
            for part in inner.split('.') {
                let name = part.trim_end_matches("[]");
                open.push_str(&format!("{name}: "));
                let (o, c) = if part.ends_with("[]") {
                    ("[", "]")
                } else {
                    ("{", "}")
                };
                open.push_str(o);
                close.insert_str(0, c);
            }
            // The innermost collection's own braces hold the key.
            if open.ends_with('{') {
                format!("{base}{open}{key}: 1{close}}}}}\n")
            } else {
                format!("{base}{open}{entry}{close}}}}}\n")
            }
        }
    }
}

#[test]
fn every_honoured_key_is_read_and_every_other_is_named() {
    for section in SECTIONS {
        for entry in section.keys {
            let text = sample(section.path, entry.key);
            let result = super::parse_text(&text);
            let (errors, warnings) = match result {
                Ok(project) => (Vec::new(), project.warnings),
                Err(errors) => (errors, Vec::new()),
            };
            let at = format!("{text}{}", super::shown(&errors));
            assert!(errors.iter().all(|e| e.message != UNHANDLED), "{at}");
            assert!(
                !errors.iter().any(|e| e.message.contains("unknown key")),
                "{at}"
            );
            assert!(!errors.iter().any(|e| e.message.contains("YAML")), "{at}");
            let refused = errors
                .iter()
                .any(|e| e.message.contains("is not supported"));
            match entry.support {
                Support::Honoured(_) => assert!(!refused, "{at}"),
                Support::Refused(_) => assert!(refused, "{at}"),
                Support::Ignored(_) if errors.is_empty() => {
                    let path = format!(".{}", entry.key);
                    assert!(warnings.iter().any(|w| w.path.ends_with(&path)), "{at}");
                }
                Support::Ignored(_) => assert!(!refused, "{at}"),
            }
        }
    }
}

#[test]
fn documentation_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compose.md");
    let wanted = documentation();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &wanted).expect("docs/compose.md can be written");
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == wanted,
        "run: UPDATE=1 cargo test -p dunlin documentation"
    );
}

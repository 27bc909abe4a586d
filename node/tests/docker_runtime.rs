//! The docker runtime against a real engine. Without one each test says so and returns, unless
//! `DUNLIN_REQUIRE_DOCKER=1` says that there must be one.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "support/container_exec.rs"]
mod exec;
#[path = "support/container_networks.rs"]
mod networks;
#[path = "support/container_outputs.rs"]
mod outputs;
#[path = "support/container_secrets.rs"]
mod secrets;
#[path = "support/runtime.rs"]
mod support;

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use dunlin_core::io::{Probe, RuntimeCommand, RuntimeEvent};
use dunlin_node::runtime::{LogLine, LogQuery, LogStream};
use dunlin_state::model::{
    NodeId, PortSpec, PublishMode, Resources, RuntimeKind, ServiceSpec, VolumeMount,
};
use support::{Lab, shell};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

const IMAGE: &str = "dunlin-test/busybox:1";

/// Makes an image of the host's static busybox, since tests have no registry.
const MAKE_IMAGE: &str = "
set -e
docker image inspect dunlin-test/busybox:1 > /dev/null 2>&1 && exit 0
root=$(mktemp -d); trap 'rm -rf $root' EXIT
mkdir -p $root/bin $root/tmp $root/etc
cp $(command -v busybox) $root/bin/busybox
for name in sh sleep echo env cat head tail yes true nc httpd hostname; do
    ln -s busybox $root/bin/$name
done
tar -C $root -c . | docker import - dunlin-test/busybox:1 > /dev/null
";

fn image() -> Result<(), String> {
    static MADE: OnceLock<Result<(), String>> = OnceLock::new();
    MADE.get_or_init(|| {
        let made = Command::new("sh").args(["-c", MAKE_IMAGE]).output();
        match made {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    })
    .clone()
}

/// A node with an engine, or nothing if there is none.
async fn lab() -> Option<Lab> {
    let lab = Lab::with(RuntimeKind::Docker, support::node()).await;
    // An engine that is busy with other tests may take longer than a daemon waits at its start.
    let mut offers = lab.handle.watch();
    let there = offers.wait_for(|offer| offer.engine.is_some());
    let answers = match std::path::Path::new(&engine_socket()).exists() {
        true => tokio::time::timeout(Duration::from_secs(60), there)
            .await
            .is_ok(),
        false => false,
    };
    let missing = match answers {
        false => "no container engine answers".to_owned(),
        true => match image() {
            Ok(()) => return Some(lab),
            Err(reason) => format!("no test image: {reason}"),
        },
    };
    assert!(
        std::env::var_os("DUNLIN_REQUIRE_DOCKER").is_none(),
        "DUNLIN_REQUIRE_DOCKER is set, but: {missing}"
    );
    eprintln!("skipped: {missing}");
    None
}

/// Where the engine under test listens: `DOCKER_HOST`, as for the daemon and the CLI.
fn engine_socket() -> String {
    let named = std::env::var("DOCKER_HOST").unwrap_or_default();
    match named.strip_prefix("unix://") {
        Some(path) => path.to_owned(),
        None => "/var/run/docker.sock".to_owned(),
    }
}

/// A way to the engine that can be cut.
struct Way {
    socket: PathBuf,
    task: Option<JoinHandle<()>>,
    _directory: TempDir,
}

impl Way {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let mut way = Self {
            socket,
            task: None,
            _directory: directory,
        };
        way.mend();
        way
    }

    fn mend(&mut self) {
        let listener = UnixListener::bind(&self.socket).unwrap();
        self.task = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut far = UnixStream::connect(engine_socket()).await.unwrap();
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        }));
    }

    async fn cut(&mut self) {
        let task = self.task.take().unwrap();
        task.abort();
        let _ = task.await;
        std::fs::remove_file(&self.socket).unwrap();
    }
}

/// A node whose engine can be cut off.
async fn lab_over(way: &Way) -> Lab {
    let node = support::node();
    let socket = way.socket.to_str().unwrap().to_owned();
    Lab::with_socket(RuntimeKind::Docker, node, Some(socket)).await
}

async fn wait_for_offer(lab: &Lab, docker: bool) {
    let mut offers = lab.handle.watch();
    let there = offers.wait_for(|offer| offer.runtimes.contains(&"docker".to_owned()) == docker);
    let waited = tokio::time::timeout(Duration::from_secs(20), there).await;
    waited
        .expect("the offer does not follow the engine")
        .unwrap();
}

fn container(script: &str) -> ServiceSpec {
    ServiceSpec {
        image: IMAGE.into(),
        ..shell(script)
    }
}

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker")
        .args(arguments)
        .output()
        .expect("docker runs");
    String::from_utf8(output.stdout)
        .expect("docker prints UTF-8")
        .trim()
        .to_owned()
}

/// The containers of a node, dead or alive.
fn containers_of(node: NodeId) -> Vec<String> {
    let filter = format!("label=io.dunlin.node={node}");
    let list = docker(&["ps", "-aq", "--filter", &filter]);
    list.lines().map(str::to_owned).collect()
}

/// The bridges of a node.
fn networks_of(node: NodeId) -> Vec<String> {
    let filter = format!("label=io.dunlin.node={node}");
    let list = docker(&["network", "ls", "-q", "--filter", &filter]);
    list.lines().map(str::to_owned).collect()
}

/// Removes what a test has started, also when it fails.
struct CleanUp(NodeId);

impl Drop for CleanUp {
    fn drop(&mut self) {
        for container in containers_of(self.0) {
            docker(&["rm", "-fv", &container]);
        }
        for network in networks_of(self.0) {
            docker(&["network", "rm", &network]);
        }
    }
}

#[tokio::test]
async fn a_container_is_told_who_it_is_and_its_log_can_be_read() {
    let Some(mut lab) = lab().await else { return };
    let _clean = CleanUp(lab.config.node);
    let mut spec = container("env; hostname; echo oops >&2; exit 3");
    spec.ports = vec![PortSpec {
        target: 80,
        ..PortSpec::default()
    }];
    spec.hostname = Some("dunlin-host".into());
    spec.environment
        .insert("DUNLIN_EPOCH".into(), "forged".into());
    let id = lab.start(0, spec).await.id;
    lab.expect_exit(&id, 3).await;
    let chunk = lab
        .handle
        .logs(&LogQuery::new(id.slot.clone()))
        .await
        .unwrap();
    assert!(chunk.eof);
    let out = support::text(&chunk, LogStream::Out);
    for line in [
        "DUNLIN_SERVICE=web",
        "DUNLIN_EPOCH=7",
        "PORT=80",
        "DUNLIN_PORT_80=80",
        "dunlin-host",
    ] {
        assert!(out.lines().any(|l| l == line), "no {line} in\n{out}");
    }
    assert_eq!(support::text(&chunk, LogStream::Err), "oops\n");

    lab.send(RuntimeCommand::Remove { id }).await;
    let node = lab.config.node;
    lab.wait_until(|_| containers_of(node).is_empty()).await;
}

/// The text of lines, where an engine may have cut one into several.
fn whole(lines: &[LogLine]) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(std::str::from_utf8(&line.text).unwrap());
        text.push_str(if line.partial { "" } else { "\n" });
    }
    text
}

#[tokio::test]
async fn a_log_is_read_on_from_where_it_was_left() {
    let Some(mut lab) = lab().await else { return };
    let _clean = CleanUp(lab.config.node);
    let script = "i=0; while [ $i -lt 5000 ]; do echo line $i of a log that takes some pieces; \
                  i=$((i+1)); done; echo end; sleep 1000";
    let id = lab.start(0, container(script)).await.id;
    lab.wait_for_line(&id, "end").await;
    let mut query = LogQuery::new(id.slot.clone());
    let (mut lines, mut pieces) = (Vec::new(), 0);
    loop {
        let chunk = lab.handle.logs(&query).await.unwrap();
        assert!(!chunk.eof);
        if chunk.lines.is_empty() {
            break;
        }
        pieces += 1;
        query.cursor = Some(chunk.next);
        lines.extend(chunk.lines);
    }
    let text = whole(&lines);
    assert_eq!(text.lines().count(), 5001);
    assert!(pieces > 1, "{pieces}");
    let last = text.lines().nth(4999).unwrap();
    assert_eq!(last, "line 4999 of a log that takes some pieces");
    query.cursor = None;
    query.tail = Some(2);
    let tail = lab.handle.logs(&query).await.unwrap();
    assert_eq!(support::text(&tail, LogStream::Out).lines().count(), 2);
    lab.stop_all().await;
}

#[tokio::test]
async fn commands_run_inside_containers_and_are_killed_when_they_hang() {
    let Some(mut lab) = lab().await else { return };
    let _clean = CleanUp(lab.config.node);
    let mut spec = container("exec sleep 60");
    spec.environment.insert("COLOUR".into(), "red".into());
    let running = lab.start(0, spec).await;
    let command = |line: &str| {
        let words = ["/bin/sh", "-c", line];
        Probe::Exec(words.map(str::to_owned).to_vec())
    };
    let well = command("test $COLOUR = red");
    assert_eq!(lab.probe(&running.id, well, 30_000).await, Ok(()));
    let ill = command("echo broken pump; exit 4");
    let told = lab.probe(&running.id, ill, 30_000).await;
    assert_eq!(told, Err("exit code 4: broken pump".to_owned()));
    let hangs = command("exec sleep 1000");
    let told = lab.probe(&running.id, hangs, 2_000).await;
    assert_eq!(told, Err("no answer within 2 s".to_owned()));
    if rustix::process::geteuid().is_root() {
        // Nothing in the container has this argument; written so that the search misses itself.
        let left = command("! grep -q '100[0]' /proc/[0-9]*/cmdline");
        let deadline = Instant::now() + Duration::from_secs(30);
        while lab.probe(&running.id, left.clone(), 10_000).await.is_err() {
            assert!(Instant::now() < deadline, "the command is still there");
        }
    }
    lab.stop_all().await;
}

#[tokio::test]
async fn what_the_engine_refuses_is_passed_on() {
    let Some(mut lab) = lab().await else { return };
    let _clean = CleanUp(lab.config.node);
    let holder = std::net::TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let mut taken = container("true");
    taken.ports = vec![PortSpec {
        target: 80,
        published: Some(holder.local_addr().unwrap().port()),
        publish_mode: PublishMode::Host,
        ..PortSpec::default()
    }];
    let mut missing = container("true");
    missing.command = vec!["/no/such/program".into()];
    let cases = [
        (taken, "address already in use"),
        (missing, "no such file"),
        (ServiceSpec::default(), "names no image"),
    ];
    for (slot, (spec, part)) in (0..).zip(cases) {
        lab.send_start(slot, spec).await;
        match lab.next().await {
            RuntimeEvent::StartFailed {
                reason, hopeless, ..
            } => {
                assert!(reason.contains(part), "{reason}");
                assert!(hopeless, "{reason}");
            }
            other => panic!("{part}: {other:?}"),
        }
    }
    assert!(containers_of(lab.config.node).is_empty());
}

#[tokio::test]
async fn a_missing_image_is_fetched_and_the_failure_names_it() {
    let Some(mut lab) = lab().await else { return };
    // Nothing listens there: a registry that does not answer is no reason to give up on a node.
    let mut spec = container("true");
    spec.image = "127.0.0.1:1/no/image:1".into();
    let id = lab.send_start(0, spec).await;
    assert!(matches!(lab.next().await, RuntimeEvent::Preparing(found) if found == id));
    match lab.next().await {
        RuntimeEvent::StartFailed {
            reason, hopeless, ..
        } => {
            assert!(reason.contains("127.0.0.1:1/no/image:1"), "{reason}");
            assert!(!hopeless, "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_stop_asks_first_and_kills_after_the_grace() {
    let Some(mut lab) = lab().await else { return };
    let _clean = CleanUp(lab.config.node);
    let polite = container("trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done");
    let polite = lab.start(0, polite).await.id;
    lab.wait_for_line(&polite, "up").await;
    lab.send(RuntimeCommand::Stop {
        id: polite.clone(),
        signal: None,
        grace_ms: 20_000,
    })
    .await;
    lab.expect_exit(&polite, 5).await;

    // The first process of a container ignores what it does not handle.
    let stubborn = lab.start(1, container("echo up; sleep 1000")).await.id;
    lab.wait_for_line(&stubborn, "up").await;
    lab.send(RuntimeCommand::Stop {
        id: stubborn.clone(),
        signal: None,
        grace_ms: 100,
    })
    .await;
    lab.expect_exit(&stubborn, 137).await;
}

#[tokio::test]
async fn containers_survive_the_daemon_and_are_adopted() {
    let Some(mut lab) = lab().await else { return };
    let _clean = CleanUp(lab.config.node);
    let mut spec = container("sleep 1000");
    spec.ports = vec![PortSpec {
        target: 80,
        ..PortSpec::default()
    }];
    let lasting = lab.start(0, spec.clone()).await;
    let brief = lab.start(1, container("sleep 0.3; exit 9")).await;
    let mut lab = lab.restart().await;
    assert_eq!(docker(&["wait", &brief.workload]), "9");

    let mut adopted = lab.adopt().await;
    adopted.sort_by_key(|a| a.running.id.clone());
    assert_eq!(adopted.len(), 2);
    assert_eq!((&adopted[0].running, adopted[0].exited), (&lasting, None));
    assert_eq!(adopted[0].revision, "r1");
    assert_eq!(adopted[1].exited, Some((9, false)));

    assert_eq!(
        lab.start(0, spec.clone()).await,
        lasting,
        "a repeated start starts nothing"
    );
    // A dead one in the way is replaced.
    let again = lab.start(1, container("exit 4")).await.id;
    lab.expect_exit(&again, 4).await;

    docker(&["kill", &lasting.workload]);
    lab.expect_exit(&lasting.id, 137).await;
}

#[tokio::test]
async fn a_container_removed_behind_our_back_is_noticed() {
    let Some(mut lab) = lab().await else { return };
    let _clean = CleanUp(lab.config.node);
    let running = lab.start(0, container("sleep 1000")).await;
    docker(&["rm", "-f", &running.workload]);
    match lab.next().await {
        RuntimeEvent::Exited { id, code: 137, .. } | RuntimeEvent::Lost(id) => {
            assert_eq!(id, running.id);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_ends_while_the_engine_is_away_is_told_when_it_is_back() {
    if lab().await.is_none() {
        return;
    }
    let mut way = Way::new();
    let mut lab = lab_over(&way).await;
    let _clean = CleanUp(lab.config.node);
    wait_for_offer(&lab, true).await;
    let ends = lab.start(0, container("exec sleep 1000")).await;
    let stays = lab.start(1, container("exec sleep 1000")).await;
    let vanishes = lab.start(2, container("exec sleep 1000")).await;

    way.cut().await;
    wait_for_offer(&lab, false).await;
    lab.send_start(3, container("true")).await;
    match lab.next().await {
        RuntimeEvent::StartFailed { reason, .. } => assert!(reason.contains("answers")),
        other => panic!("{other:?}"),
    }
    docker(&["kill", &ends.workload]);
    docker(&["rm", "-f", &vanishes.workload]);

    way.mend();
    let mut told = vec![lab.next().await, lab.next().await];
    told.sort_by_key(|event| matches!(event, RuntimeEvent::Lost(_)));
    assert!(
        matches!(&told[0], RuntimeEvent::Exited { id, code: 137, .. } if *id == ends.id),
        "{told:?}"
    );
    assert!(
        matches!(&told[1], RuntimeEvent::Lost(id) if *id == vanishes.id),
        "{told:?}"
    );
    assert_eq!(lab.start(1, container("true")).await, stays);
}

#[tokio::test]
async fn what_was_given_up_is_removed_when_its_engine_comes_back() {
    if lab().await.is_none() {
        return;
    }
    let mut way = Way::new();
    let mut lab = lab_over(&way).await;
    let _clean = CleanUp(lab.config.node);
    let node = lab.config.node;
    lab.start(0, container("exec sleep 1000")).await;
    way.cut().await;
    let mut lab = lab.restart().await;
    assert!(lab.adopt().await.is_empty());
    assert_eq!(containers_of(node).len(), 1);
    way.mend();
    lab.wait_until(|_| containers_of(node).is_empty()).await;
}

#[tokio::test]
async fn containers_of_others_are_left_alone() {
    let Some(lab) = lab().await else { return };
    let mut other = Lab::with(RuntimeKind::Docker, support::node()).await;
    let _clean = CleanUp(other.config.node);
    let running = other.start(0, container("sleep 1000")).await;
    let mut lab = lab.restart().await;
    assert!(lab.adopt().await.is_empty());
    lab.send(RuntimeCommand::Remove {
        id: running.id.clone(),
    })
    .await;
    let stop = RuntimeCommand::Stop {
        id: running.id.clone(),
        signal: None,
        grace_ms: 0,
    };
    lab.send(stop).await;
    assert!(matches!(lab.next().await, RuntimeEvent::Lost(_)));
    assert_eq!(
        docker(&["inspect", "-f", "{{.State.Running}}", &running.workload]),
        "true"
    );
}

#[tokio::test]
async fn memory_limits_are_enforced_and_their_victims_named() {
    let Some(mut lab) = lab().await else { return };
    let _clean = CleanUp(lab.config.node);
    let mut spec = container("");
    spec.command = ["tail", "/dev/zero"].map(str::to_owned).to_vec();
    spec.limit = Resources {
        memory: 20 << 20,
        cpu_millis: 500,
        ..Resources::ZERO
    };
    let id = lab.start(0, spec).await.id;
    match lab.next().await {
        RuntimeEvent::Exited {
            id: found,
            code,
            oom,
            ..
        } => {
            assert_eq!((found, code), (id, 137));
            // Podman learns of it from a helper, on some hosts too late.
            let podman = docker(&["version"]).contains("Podman");
            assert!(oom || podman, "the end is not put down to memory");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_named_volume_outlives_its_containers() {
    let Some(mut lab) = lab().await else { return };
    let clean = CleanUp(lab.config.node);
    let name = format!("v{}", &lab.config.node.to_string()[..12]);
    let mut spec = container("cat /data/file; echo kept > /data/file");
    spec.volumes = vec![VolumeMount {
        source: name.clone(),
        target: "/data".into(),
        read_only: false,
        ..VolumeMount::default()
    }];
    let first = lab.start_attempt(0, 0, spec.clone()).await.id;
    lab.expect_exit(&first, 0).await;
    let second = lab.start_attempt(0, 1, spec).await.id;
    lab.expect_exit(&second, 0).await;
    assert_eq!(lab.wait_for_line(&second, "kept").await, "kept");
    drop(clean);
    let mut node = lab.config.node.to_string();
    node.truncate(6);
    // What stands for it goes with the data, and nothing of somebody else by that name.
    let entry = format!("dunlin-n-{node}-default.{name}");
    let listed = || docker(&["volume", "ls", "--quiet"]).contains(&entry);
    assert!(listed());
    let volume = name.parse().unwrap();
    lab.handle.forget_volume(&volume).await;
    assert!(!listed());
    docker(&["volume", "create", &entry]);
    lab.handle.forget_volume(&volume).await;
    assert!(listed());
    docker(&["volume", "rm", &entry]);
}

#[tokio::test]
async fn thirty_containers_start_together() {
    let Some(mut lab) = lab().await else { return };
    let _clean = CleanUp(lab.config.node);
    let begin = Instant::now();
    for slot in 0..30 {
        lab.send_start(slot, container("exec sleep 1000")).await;
    }
    for _ in 0..30 {
        match lab.next().await {
            RuntimeEvent::Started(running) => lab.live.push(running.id),
            other => panic!("{other:?}"),
        }
    }
    eprintln!("30 containers started in {:?}", begin.elapsed());
    let ids = std::mem::take(&mut lab.live);
    for id in &ids {
        let id = id.clone();
        lab.send(RuntimeCommand::Stop {
            id,
            signal: None,
            grace_ms: 0,
        })
        .await;
    }
    for _ in &ids {
        assert!(matches!(
            lab.next().await,
            RuntimeEvent::Exited { code: 137, .. }
        ));
    }
}

//! The process runtime with real processes. Needs no root; what needs it says so and returns.

#[path = "support/runtime.rs"]
mod support;

use std::time::{Duration, Instant};

use dunlin_core::io::{Probe, RuntimeCommand, RuntimeEvent};
use dunlin_node::runtime::{LogQuery, LogStream};
use dunlin_state::model::{PortSpec, Protocol, PublishMode, Resources, ServiceSpec, VolumeMount};
use support::{Lab, shell};

#[tokio::test]
async fn a_replica_is_told_who_it_is_and_its_output_is_kept() {
    let mut lab = Lab::new().await;
    let mut spec = shell("env; echo to stderr >&2; exit 3");
    spec.environment
        .insert("GREETING".into(), "hi there".into());
    spec.environment
        .insert("DUNLIN_SERVICE".into(), "forged".into());
    let id = lab.start(0, spec).await.id;
    lab.expect_exit(&id, 3).await;
    let chunk = lab
        .handle
        .logs(&LogQuery::new(id.slot.clone()))
        .await
        .unwrap();
    assert!(chunk.eof);
    assert_eq!(chunk.id, id);
    let out = support::text(&chunk, LogStream::Out);
    let expected = [
        "GREETING=hi there",
        "DUNLIN_SERVICE=web",
        "DUNLIN_NAMESPACE=default",
        "DUNLIN_SLOT=0",
        "DUNLIN_NODE=here",
        "DUNLIN_EPOCH=7",
        "DUNLIN_REVISION=r1",
        "HOST=127.0.0.1",
    ];
    for line in expected {
        assert!(out.lines().any(|l| l == line), "no {line} in\n{out}");
    }
    assert!(
        !out.contains("CARGO"),
        "the daemon's environment leaked:\n{out}"
    );
    assert_eq!(support::text(&chunk, LogStream::Err), "to stderr\n");
}

/// Specifications that no node like this one can run, with a part of the reason.
fn hopeless_cases() -> Vec<(ServiceSpec, &'static str)> {
    let command = |words: &[&str]| ServiceSpec {
        command: words.iter().map(|w| (*w).to_owned()).collect(),
        ..ServiceSpec::default()
    };
    vec![
        (
            command(&["no-such-thing"]),
            "no program 'no-such-thing' on this node's PATH",
        ),
        (
            command(&["/no/such/thing"]),
            "no program '/no/such/thing' on this node",
        ),
        (command(&["/etc/passwd"]), "is it executable"),
        (command(&[]), "neither an image nor a command"),
        (
            ServiceSpec {
                image: "nginx".into(),
                ..ServiceSpec::default()
            },
            "image 'nginx' needs a container engine",
        ),
        (
            ServiceSpec {
                working_dir: Some("/no/where".into()),
                ..command(&["true"])
            },
            "no working directory /no/where",
        ),
        (
            ServiceSpec {
                user: Some("no-such-user".into()),
                ..command(&["true"])
            },
            "no user 'no-such-user'",
        ),
        (
            ServiceSpec {
                stop_signal: Some("SIGNONSENSE".into()),
                ..command(&["true"])
            },
            "'SIGNONSENSE' is no signal",
        ),
        (
            ServiceSpec {
                volumes: vec![VolumeMount {
                    source: "../up".into(),
                    ..VolumeMount::default()
                }],
                ..command(&["true"])
            },
            "cannot be the name of a volume",
        ),
    ]
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let mut lab = Lab::new().await;
    for (slot, (spec, part)) in (0..).zip(hopeless_cases()) {
        let id = lab.send_start(slot, spec).await;
        match lab.next().await {
            RuntimeEvent::StartFailed {
                id: found,
                reason,
                hopeless,
            } => {
                assert_eq!(found, id);
                assert!(reason.contains(part), "{reason}");
                assert!(hopeless, "{reason}");
            }
            other => panic!("{part}: {other:?}"),
        }
    }
    assert!(lab.leftovers().is_empty(), "{:?}", lab.leftovers());
}

#[tokio::test]
async fn ports_are_given_and_answer() {
    let mut lab = Lab::new().await;
    let mut spec = shell("echo $PORT $DUNLIN_PORT_80 $DUNLIN_PORT_53; exec sleep 60");
    let port = |target, protocol| PortSpec {
        target,
        protocol,
        ..PortSpec::default()
    };
    spec.ports = vec![
        port(80, Protocol::Tcp),
        port(53, Protocol::Udp),
        port(53, Protocol::Tcp),
    ];
    let running = lab.start(0, spec).await;
    let ports: Vec<u16> = running.endpoints.iter().map(|e| e.address.port()).collect();
    assert_eq!(ports[1], ports[2]);
    let line = lab.wait_for_line(&running.id, " ").await;
    assert_eq!(line, format!("{0} {0} {1}", ports[0], ports[1]));

    // Nothing listens yet; then something does.
    let address = running.endpoints[0].address;
    let closed = lab.probe(&running.id, Probe::Tcp(address), 5_000).await;
    assert!(closed.is_err());
    let _listener = std::net::TcpListener::bind(address).unwrap();
    let open = lab.probe(&running.id, Probe::Tcp(address), 5_000).await;
    assert_eq!(open, Ok(()));
    lab.stop_all().await;
}

#[tokio::test]
async fn commands_beside_a_replica_see_what_it_sees_and_are_killed_when_they_hang() {
    let mut lab = Lab::new().await;
    let mut spec = shell("exec sleep 60");
    spec.environment.insert("COLOUR".into(), "red".into());
    spec.ports = vec![PortSpec {
        target: 80,
        ..PortSpec::default()
    }];
    let running = lab.start(0, spec).await;
    let port = running.endpoints[0].address.port();
    let command = |line: &str| {
        let words = ["/bin/sh", "-c", line];
        Probe::Exec(words.map(str::to_owned).to_vec())
    };
    let line =
        format!("test $COLOUR = red && test $PORT = {port} && test $DUNLIN_PORT_80 = {port}");
    assert_eq!(lab.probe(&running.id, command(&line), 20_000).await, Ok(()));
    let told = lab
        .probe(&running.id, command("echo broken pump; exit 4"), 20_000)
        .await;
    assert_eq!(told, Err("exit code 4: broken pump".to_owned()));
    let marker = lab.config.data_dir.join("hangs");
    let hangs = format!("echo $$ > {}; exec sleep 1000", marker.display());
    let told = lab.probe(&running.id, command(&hangs), 1_000).await;
    assert_eq!(told, Err("no answer within 1 s".to_owned()));
    // On a loaded machine it may have been killed before it could leave its number.
    if let Ok(number) = std::fs::read_to_string(&marker)
        && !number.trim().is_empty()
    {
        let process = std::path::PathBuf::from(format!("/proc/{}", number.trim()));
        let deadline = Instant::now() + Duration::from_secs(30);
        while process.join("exe").read_link().is_ok() {
            assert!(Instant::now() < deadline, "the command is still there");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    lab.stop_all().await;
}

#[tokio::test]
async fn the_last_lines_of_a_failure_are_told() {
    let mut lab = Lab::new().await;
    let running = lab
        .start(
            0,
            shell("for i in 1 2 3 4 5 6 7; do echo line $i; done; exit 9"),
        )
        .await;
    match lab.next().await {
        RuntimeEvent::Exited {
            id,
            code,
            last_words,
            ..
        } => {
            assert_eq!((id, code), (running.id, 9));
            assert_eq!(
                last_words,
                ["line 3", "line 4", "line 5", "line 6", "line 7"]
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_host_port_is_exactly_that_one_and_refused_when_taken() {
    let mut lab = Lab::new().await;
    let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let number = holder.local_addr().unwrap().port();
    let mut spec = shell("exec sleep 60");
    spec.ports = vec![PortSpec {
        target: 80,
        published: Some(number),
        publish_mode: PublishMode::Host,
        ..PortSpec::default()
    }];
    lab.send_start(0, spec.clone()).await;
    match lab.next().await {
        RuntimeEvent::StartFailed {
            reason,
            hopeless: true,
            ..
        } => {
            assert!(reason.contains(&format!("port {number}/tcp")), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    drop(holder);
    let running = lab.start(0, spec).await;
    assert_eq!(running.endpoints[0].address.port(), number);
    lab.stop_all().await;
}

#[tokio::test]
async fn a_stop_asks_first_and_kills_after_the_grace() {
    let mut lab = Lab::new().await;
    let polite = shell("trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done");
    let polite = lab.start(0, polite).await.id;
    lab.wait_for_line(&polite, "up").await;
    lab.send(RuntimeCommand::Stop {
        id: polite.clone(),
        signal: None,
        grace_ms: 20_000,
    })
    .await;
    lab.expect_exit(&polite, 5).await;
    assert_eq!(lab.wait_for_line(&polite, "bye").await, "bye");

    let custom = shell("trap 'exit 6' USR1; echo up; while :; do sleep 0.05; done");
    let custom = lab.start(1, custom).await.id;
    lab.wait_for_line(&custom, "up").await;
    let signal = Some("SIGUSR1".to_owned());
    lab.send(RuntimeCommand::Stop {
        id: custom.clone(),
        signal,
        grace_ms: 20_000,
    })
    .await;
    lab.expect_exit(&custom, 6).await;

    let stubborn = shell("trap '' TERM; echo up; while :; do sleep 0.05; done");
    let stubborn = lab.start(2, stubborn).await.id;
    lab.wait_for_line(&stubborn, "up").await;
    lab.send(RuntimeCommand::Stop {
        id: stubborn.clone(),
        signal: None,
        grace_ms: 100,
    })
    .await;
    lab.expect_exit(&stubborn, 137).await;

    // Repeated, and of nobody known.
    lab.send(RuntimeCommand::Stop {
        id: stubborn.clone(),
        signal: None,
        grace_ms: 100,
    })
    .await;
    lab.expect_exit(&stubborn, 137).await;
    let unknown = support::id(99);
    lab.send(RuntimeCommand::Stop {
        id: unknown.clone(),
        signal: None,
        grace_ms: 0,
    })
    .await;
    assert!(matches!(lab.next().await, RuntimeEvent::Lost(id) if id == unknown));
}

#[tokio::test]
async fn what_a_replica_leaves_behind_ends_with_it() {
    let mut lab = Lab::new().await;
    // One in its group and one in a session of its own.
    let script = "sleep 1000 & echo $! | tee -a out; \
                  setsid sh -c 'echo $$ | tee -a out; exec sleep 1000' & \
                  while [ $(wc -l < out) != 2 ]; do sleep 0.01; done";
    let id = lab.start(0, shell(script)).await.id;
    lab.expect_exit(&id, 0).await;
    let chunk = lab
        .handle
        .logs(&LogQuery::new(id.slot.clone()))
        .await
        .unwrap();
    let pids: Vec<i32> = support::text(&chunk, LogStream::Out)
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    assert_eq!(pids.len(), 2);
    for pid in pids {
        assert!(!support::is_alive(pid), "{pid} lives on");
    }
}

#[tokio::test]
async fn replicas_survive_the_daemon_and_are_adopted() {
    let mut lab = Lab::new().await;
    let mut spec = shell("echo up; exec sleep 1000");
    spec.ports = vec![PortSpec {
        target: 80,
        ..PortSpec::default()
    }];
    let lasting = lab.start(0, spec).await;
    let brief = lab
        .start(1, shell("read x < /dev/null; sleep 0.3; exit 9"))
        .await;

    let mut lab = lab.restart().await;
    lab.wait_until_dead(&brief).await;
    let mut adopted = lab.adopt().await;
    adopted.sort_by_key(|a| a.running.id.clone());
    assert_eq!(adopted.len(), 2);
    assert_eq!(adopted[0].running, lasting);
    assert_eq!(adopted[0].revision, "r1");
    assert_eq!(adopted[0].exited, None);
    assert_eq!(adopted[1].running.id, brief.id);
    assert_eq!(adopted[1].exited, Some((9, false)));

    // A repeated start of what runs starts nothing.
    let again = lab.start(0, shell("exit 1")).await;
    assert_eq!(again, lasting);
    let stop = RuntimeCommand::Stop {
        id: lasting.id.clone(),
        signal: None,
        grace_ms: 5_000,
    };
    lab.send(stop).await;
    lab.expect_exit(&lasting.id, 143).await;
    for id in [lasting.id, brief.id] {
        lab.send(RuntimeCommand::Remove { id }).await;
    }
    lab.wait_until(|lab| lab.leftovers().is_empty()).await;
}

#[tokio::test]
async fn a_killed_supervisor_takes_its_replica_along_and_it_counts_as_lost() {
    let mut lab = Lab::new().await;
    let running = lab.start(0, shell("sleep 1000 & echo $!; wait")).await;
    let child: i32 = lab.wait_for_line(&running.id, "").await.parse().unwrap();
    let leader = support::pid(&running.workload);
    let supervisor = support::parent(leader);
    support::kill(supervisor);
    assert!(matches!(lab.next().await, RuntimeEvent::Lost(id) if id == running.id));
    assert!(!support::is_alive(leader));
    assert!(!support::is_alive(child));
}

#[tokio::test]
async fn a_stop_does_not_depend_on_a_supervisor_that_is_stuck() {
    let mut lab = Lab::new().await;
    let running = lab.start(0, shell("sleep 1000")).await;
    let leader = support::pid(&running.workload);
    let supervisor = rustix::process::Pid::from_raw(support::parent(leader)).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::STOP).unwrap();
    lab.send(RuntimeCommand::Stop {
        id: running.id.clone(),
        signal: None,
        grace_ms: 0,
    })
    .await;
    assert!(matches!(lab.next().await, RuntimeEvent::Lost(id) if id == running.id));
    assert!(!support::is_alive(leader));
}

#[tokio::test]
async fn a_replica_keeps_nothing_open_that_the_daemon_has_inherited() {
    let mut lab = Lab::new().await;
    // Without O_CLOEXEC, as a shell leaves it.
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    lab.start(0, shell("exec sleep 1000")).await;
    drop(writer);
    let reader = std::fs::File::from(reader);
    let end = tokio::task::spawn_blocking(move || std::io::read_to_string(reader));
    let end = tokio::time::timeout(Duration::from_secs(20), end).await;
    assert_eq!(end.expect("somebody keeps it open").unwrap().unwrap(), "");
    lab.stop_all().await;
}

#[tokio::test]
async fn a_supervisor_that_comes_too_late_starts_nothing() {
    let mut lab = Lab::new().await;
    let id = lab.start(0, shell("echo once; exit 2")).await.id;
    lab.expect_exit(&id, 2).await;
    let directory = lab.attempt_file(&id, "");
    let late = std::process::Command::new(&lab.config.supervisor_command[0])
        .arg(&directory)
        .output()
        .unwrap();
    assert!(!late.status.success());
    assert!(String::from_utf8_lossy(&late.stdout).contains("given up"));
    assert_eq!(lab.wait_for_line(&id, "once").await, "once");
}

#[tokio::test]
async fn the_program_dunlin_is_the_daemons_own_executable() {
    let mut lab = Lab::new().await;
    let spec = ServiceSpec {
        command: ["dunlin", "/no/such/attempt"].map(str::to_owned).to_vec(),
        ..ServiceSpec::default()
    };
    let id = lab.start(0, spec).await.id;
    lab.expect_exit(&id, 1).await;
    assert!(
        lab.wait_for_line(&id, "cannot lock")
            .await
            .contains("/no/such/attempt")
    );
}

#[tokio::test]
async fn a_supervisor_killed_while_no_daemon_watches_is_reported_at_adoption() {
    let mut lab = Lab::new().await;
    let running = lab.start(0, shell("sleep 1000 & echo $!; wait")).await;
    let child: i32 = lab.wait_for_line(&running.id, "").await.parse().unwrap();
    let mut lab = lab.restart().await;
    let leader = support::pid(&running.workload);
    support::kill(support::parent(leader));
    lab.wait_until_dead(&running).await;
    let adopted = lab.adopt().await;
    assert_eq!(adopted.len(), 1);
    assert_eq!(adopted[0].exited, Some((137, false)));
    assert!(!support::is_alive(child));
}

#[tokio::test]
async fn a_record_of_another_process_with_the_same_number_is_not_believed() {
    let mut lab = Lab::new().await;
    let running = lab.start(0, shell("exec sleep 1000")).await;
    // The record now names a process that lives, but started at another time.
    let record = lab.attempt_file(&running.id, "run.json");
    let text = std::fs::read_to_string(&record).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let supervisor = support::parent(support::pid(&running.workload));
    json["supervisor"]["pid"] = serde_json::json!(std::process::id());
    json["supervisor"]["start"] = serde_json::json!(1);
    let mut lab = lab.restart().await;
    support::kill(supervisor);
    lab.wait_until_dead(&running).await;
    std::fs::write(&record, json.to_string()).unwrap();
    let adopted = lab.adopt().await;
    assert_eq!(adopted[0].exited, Some((137, false)));
}

#[tokio::test]
async fn damaged_records_are_cleared_away() {
    let mut lab = Lab::new().await;
    let id = lab.start(0, shell("exit 0")).await.id;
    lab.expect_exit(&id, 0).await;
    std::fs::write(lab.attempt_file(&id, "spec.json"), b"{\"id\":").unwrap();
    let mut lab = lab.restart().await;
    assert!(lab.adopt().await.is_empty());
    assert!(lab.leftovers().is_empty());
}

#[tokio::test]
async fn a_chatty_replica_keeps_a_bounded_log_that_can_be_followed() {
    let mut lab = Lab::new().await;
    // 16 MB, more than both files hold.
    let script = "i=0; while [ $i -lt 4000 ]; do i=$((i+1)); done; \
                  yes 'a line that is repeated for a long time until sixteen megabytes' \
                  | head -c 16000000; echo; echo the end; sleep 1000";
    let id = lab.start(0, shell(script)).await.id;
    let mut query = LogQuery::new(id.slot.clone());
    query.max_bytes = 1 << 20;
    lab.wait_for_line(&id, "the end").await;
    let mut total = 0;
    loop {
        let chunk = lab.handle.logs(&query).await.unwrap();
        assert!(!chunk.eof);
        if chunk.lines.is_empty() {
            break;
        }
        total += chunk.lines.iter().map(|l| l.text.len()).sum::<usize>();
        query.cursor = Some(chunk.next);
    }
    assert!((4_000_000..11_000_000).contains(&total), "{total}");
    lab.stop_all().await;
    let rest = lab.handle.logs(&query).await.unwrap();
    assert!(rest.eof && rest.lines.is_empty());
}

#[tokio::test]
async fn a_crash_loop_keeps_few_dead_attempts() {
    let mut lab = Lab::new().await;
    for attempt in 0..8 {
        let id = lab.start_attempt(0, attempt, shell("exit 1")).await.id;
        lab.expect_exit(&id, 1).await;
    }
    assert!(lab.leftovers().len() <= 4, "{:?}", lab.leftovers());
}

#[tokio::test]
async fn a_named_volume_outlives_its_attempts() {
    let mut lab = Lab::new().await;
    let mut spec =
        shell("cat $DUNLIN_VOLUME_MY_DATA/file; echo kept > $DUNLIN_VOLUME_MY_DATA/file");
    spec.volumes = vec![VolumeMount {
        source: "my-data".into(),
        target: "/data".into(),
        read_only: false,
    }];
    let first = lab.start_attempt(0, 0, spec.clone()).await.id;
    lab.expect_exit(&first, 0).await;
    lab.send(RuntimeCommand::Remove { id: first }).await;
    let second = lab.start_attempt(0, 1, spec).await.id;
    lab.expect_exit(&second, 0).await;
    assert_eq!(lab.wait_for_line(&second, "kept").await, "kept");
}

#[tokio::test]
async fn memory_limits_are_enforced_and_their_victims_named() {
    let mut lab = Lab::new().await;
    let offer = lab.handle.offer();
    if let Some(note) = offer.notes.first() {
        eprintln!("skipped: {note}");
        return;
    }
    let mut spec = shell("head -c 100000000 /dev/zero | tail");
    spec.limit = Resources {
        memory: 20 << 20,
        ..Resources::ZERO
    };
    // `exec` so that the victim is the replica itself.
    spec.command = ["tail", "/dev/zero"].map(str::to_owned).to_vec();
    let id = lab.start(0, spec).await.id;
    match lab.next().await {
        RuntimeEvent::Exited {
            id: found,
            code,
            oom,
            ..
        } => {
            assert_eq!((found, code, oom), (id, 137, true));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn thirty_replicas_start_together() {
    let mut lab = Lab::new().await;
    let begin = Instant::now();
    for slot in 0..30 {
        let mut spec = shell("exec sleep 1000");
        spec.ports = vec![PortSpec {
            target: 80,
            ..PortSpec::default()
        }];
        lab.send_start(slot, spec).await;
    }
    let mut ports = std::collections::BTreeSet::new();
    for _ in 0..30 {
        match lab.next().await {
            RuntimeEvent::Started(running) => {
                ports.insert(running.endpoints[0].address.port());
                lab.live.push(running.id);
            }
            other => panic!("{other:?}"),
        }
    }
    let took = begin.elapsed();
    assert_eq!(ports.len(), 30, "a port was given twice");
    eprintln!("30 replicas started in {took:?}");
    // Generous: the machine that runs this may be busy. Measured figures stand in the docs.
    assert!(took < Duration::from_secs(5), "{took:?}");
    lab.stop_all().await;
}

//! How replicas end, and what is left of them.

use crate::support::{self, Lab, shell};
use dunlin_core::io::{RuntimeCommand, RuntimeEvent};
use dunlin_node::runtime::{LogQuery, LogStream};
use dunlin_state::model::{Resources, VolumeMount};

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
async fn a_crash_loop_keeps_few_dead_attempts() {
    let mut lab = Lab::new().await;
    for attempt in 0..8 {
        let id = lab.start_attempt(0, attempt, shell("exit 1")).await.id;
        lab.expect_exit(&id, 1).await;
    }
    assert!(lab.leftovers().len() <= 4, "{:?}", lab.leftovers());
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
async fn a_named_volume_outlives_its_attempts() {
    let mut lab = Lab::new().await;
    let mut spec =
        shell("cat $DUNLIN_VOLUME_MY_DATA/file; echo kept > $DUNLIN_VOLUME_MY_DATA/file");
    spec.volumes = vec![VolumeMount {
        source: "my-data".into(),
        target: "/data".into(),
        read_only: false,
        ..VolumeMount::default()
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

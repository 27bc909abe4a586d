//! What parts of jobs tell, and what others are given.

use crate::support::{Lab, shell};
use dunlin_core::io::{RuntimeCommand, RuntimeEvent};
use dunlin_node::runtime::{LogQuery, LogStream};
use dunlin_state::model::{BadOutputs, Outputs};

/// Runs it to its end as a part of a job.
async fn told(lab: &mut Lab, slot: u32, script: &str) -> Result<Outputs, BadOutputs> {
    lab.tells = true;
    let id = lab.start(slot, shell(script)).await.id;
    match lab.next().await {
        RuntimeEvent::Exited {
            id: ended,
            code,
            outputs,
            ..
        } => {
            assert_eq!((ended, code), (id, 0));
            outputs
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_part_of_a_job_tells_and_nobody_else() {
    let mut lab = Lab::new().await;
    let all = told(
        &mut lab,
        0,
        "echo VERSION=1 >> $DUNLIN_OUTPUT; echo 'NAME=a b' >> $DUNLIN_OUTPUT",
    );
    assert_eq!(all.await, Outputs::parse(b"VERSION=1\nNAME=a b\n"));
    let loud = told(&mut lab, 1, "head -c 5000 /dev/zero > $DUNLIN_OUTPUT").await;
    assert_eq!(loud, Err(BadOutputs::TooLarge));
    let link = told(&mut lab, 2, "ln -sf /etc/passwd $DUNLIN_OUTPUT").await;
    assert!(matches!(link, Err(BadOutputs::Unreadable(_))), "{link:?}");
    let gone = told(&mut lab, 3, "rm $DUNLIN_OUTPUT").await;
    assert_eq!(gone, Ok(Outputs::default()));
    lab.tells = false;
    let id = lab.start(4, shell("test -z \"$DUNLIN_OUTPUT\"")).await.id;
    lab.expect_exit(&id, 0).await;
}

#[tokio::test]
async fn what_was_told_while_no_daemon_lived_is_found_and_goes_with_the_attempt() {
    let mut lab = Lab::new().await;
    lab.tells = true;
    let fifo = lab.directory.path().join("go");
    let script = format!(
        "mkfifo {0}; read x < {0}; echo A=1 > $DUNLIN_OUTPUT",
        fifo.display()
    );
    let running = lab.start(0, shell(&script)).await;
    lab.wait_until(|_| fifo.exists()).await;
    let mut lab = lab
        .restart_after(|| std::fs::write(&fifo, "x\n").unwrap(), &running)
        .await;
    let found = lab.adopt().await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].exited, Some((0, false)));
    assert_eq!(found[0].outputs, Outputs::parse(b"A=1"));
    let folder = lab.directory.path().join("outputs");
    let files = move || std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(files(), 1);
    lab.send(RuntimeCommand::Remove { id: running.id }).await;
    lab.wait_until(|_| files() == 0).await;
}

#[tokio::test]
async fn what_jobs_have_told_is_in_the_environment_below_what_people_wrote() {
    let mut lab = Lab::new().await;
    let given = [("JOB_A", "1"), ("JOB_B", "2"), ("DUNLIN_SLOT", "9")];
    lab.given = given.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    let mut spec = shell("echo $JOB_A $JOB_B $DUNLIN_SLOT");
    spec.environment.insert("JOB_B".into(), "own".into());
    let id = lab.start(0, spec).await.id;
    lab.expect_exit(&id, 0).await;
    let chunk = lab.handle.logs(&LogQuery::new(id.slot)).await.unwrap();
    assert_eq!(crate::support::text(&chunk, LogStream::Out), "1 own 0\n");
}

//! Commands that people run inside containers.

use std::time::Duration;

use dunlin_core::io::WorkloadId;
use dunlin_node::runtime::{ExecInput, ExecOrder, ExecOutput, Wires};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::support::Lab;
use super::{CleanUp, container, lab, shell};

/// Longer than anything takes on a busy machine; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a command printed, and how it ended.
#[derive(Debug, Default)]
struct Ended {
    out: Vec<u8>,
    err: String,
    result: Option<Result<i32, String>>,
}

impl Ended {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
}

fn order(script: &str) -> ExecOrder {
    ExecOrder {
        command: shell(script).command,
        ..ExecOrder::default()
    }
}

/// The other ends of a command's wires.
struct Ends {
    input: mpsc::Sender<ExecInput>,
    output: mpsc::Receiver<ExecOutput>,
    cut: CancellationToken,
}

fn wires() -> (Wires, Ends) {
    let (sender, input) = mpsc::channel(4);
    let (output, printed) = mpsc::channel(4);
    let cut = CancellationToken::new();
    let ends = Ends {
        input: sender,
        output: printed,
        cut: cut.clone(),
    };
    (Wires { input, output, cut }, ends)
}

/// Runs a command with this input to its end.
async fn run(lab: &Lab, id: &WorkloadId, order: &ExecOrder, inputs: Vec<ExecInput>) -> Ended {
    let (wires, mut ends) = wires();
    let mut ended = Ended::default();
    let feed = async {
        for input in inputs {
            // It may have ended without reading all.
            let _gone = ends.input.send(input).await;
        }
    };
    let read = async {
        while let Some(output) = ends.output.recv().await {
            match output {
                ExecOutput::Out(bytes) => ended.out.extend_from_slice(&bytes),
                ExecOutput::Err(bytes) => ended.err.push_str(&String::from_utf8_lossy(&bytes)),
            }
        }
    };
    let all = async { tokio::join!(lab.handle.exec(id, order, wires), feed, read).0 };
    let result = tokio::time::timeout(PATIENCE, all).await;
    ended.result = Some(result.expect("it ends in time"));
    ended
}

#[tokio::test]
async fn people_run_commands_inside_containers() {
    let Some(mut lab) = lab().await else { return };
    let _clean = CleanUp(lab.config.node);
    let mut spec = container("trap exit TERM; while :; do sleep 0.1; done");
    spec.environment.insert("GREETING".into(), "hello".into());
    let id = lab.start(0, spec).await.id;

    let mut said = order("echo $GREETING $EXTRA; pwd; cat; echo oops >&2; exit 7");
    said.stdin = true;
    said.environment.insert("EXTRA".into(), "more".into());
    said.working_dir = Some("/tmp".into());
    let inputs = vec![ExecInput::Bytes("line\n".into()), ExecInput::End];
    let ended = run(&lab, &id, &said, inputs).await;
    assert_eq!(ended.result, Some(Ok(7)), "{ended:?}");
    assert_eq!(ended.text(), "hello more\n/tmp\nline\n");
    assert_eq!(ended.err, "oops\n");

    let large = order("head -c 3000000 /dev/zero");
    let ended = run(&lab, &id, &large, vec![]).await;
    assert_eq!(ended.result, Some(Ok(0)));
    assert_eq!(ended.out.len(), 3_000_000);

    let mut missing = order("");
    missing.command = vec!["no-such-program".into()];
    let ended = run(&lab, &id, &missing, vec![]).await;
    assert!(
        matches!(ended.result, Some(Ok(126 | 127) | Err(_))),
        "{ended:?}"
    );

    let mut on_terminal = order("test -t 0 && echo terminal");
    on_terminal.terminal = Some((24, 80));
    let ended = run(&lab, &id, &on_terminal, vec![]).await;
    assert_eq!(
        (ended.result.as_ref(), ended.text().trim()),
        (Some(&Ok(0)), "terminal")
    );
    lab.stop_all().await;
}

#[tokio::test]
async fn a_command_in_a_container_ends_with_its_wires() {
    let Some(mut lab) = lab().await else { return };
    let _clean = CleanUp(lab.config.node);
    let spec = container("trap exit TERM; while :; do sleep 0.1; done");
    let id = lab.start(0, spec).await.id;
    let (wires, mut ends) = wires();
    // The shell's child is told by its name: sleep with this number.
    let order = order("echo begun; sleep 987654 & wait");
    let running = async { lab.handle.exec(&id, &order, wires).await };
    let cutting = async {
        let first = ends.output.recv().await;
        assert_eq!(first, Some(ExecOutput::Out("begun\n".into())));
        ends.cut.cancel();
    };
    let both = async { tokio::join!(running, cutting).0 };
    let ended = tokio::time::timeout(PATIENCE, both)
        .await
        .expect("it ends in time");
    assert!(ended.is_err(), "{ended:?}");
    if rustix::process::geteuid().is_root() {
        lab.wait_until(|_| !is_there("987654")).await;
    }
    lab.stop_all().await;
}

/// Whether a process of this host has this word among its arguments.
fn is_there(word: &str) -> bool {
    let entries = std::fs::read_dir("/proc").expect("it is mounted");
    entries.flatten().any(|entry| {
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        words
            .split(|byte| *byte == 0)
            .any(|arg| arg == word.as_bytes())
    })
}

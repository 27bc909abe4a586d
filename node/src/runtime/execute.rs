//! What becomes of a command that is run beside a replica.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::probe::no_answer;

/// Bytes of its output that are kept for a complaint; the rest is read and thrown away.
const MAX_OUTPUT: usize = 1_024;

/// How long output is waited for after the command has ended: what it left in the background may
/// hold the pipes open.
const OUTPUT_GRACE: Duration = Duration::from_millis(100);

/// A command that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Executed {
    /// Its exit code; 128 + n for signal n.
    pub(super) code: i64,
    /// The beginning of its output.
    pub(super) output: Vec<u8>,
}

impl Executed {
    /// Says how it failed.
    pub(super) fn describe(&self) -> String {
        let text = String::from_utf8_lossy(&self.output);
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.is_empty() {
            true => format!("exit code {}", self.code),
            false => format!("exit code {}: {}", self.code, words.join(" ")),
        }
    }
}

/// Keeps the beginning of some output.
#[derive(Debug, Default)]
pub(super) struct Beginning(Vec<u8>);

impl Beginning {
    /// Takes what comes next.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = MAX_OUTPUT.saturating_sub(self.0.len());
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// What was kept.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Runs a process of this host, in a group of its own, which is killed when the command has ended,
/// has taken too long, or is not waited for any more. `entered` is told its number.
pub(super) async fn run(
    command: std::process::Command,
    limit: Duration,
    entered: impl FnOnce(u32),
) -> Result<Executed, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut command = tokio::process::Command::from(command);
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .map_err(|error| format!("cannot execute {program}: {error}"))?;
    let number = child.id().unwrap_or_default();
    let _group = Group::of(number);
    entered(number);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let mut beginning = Beginning::default();
    let mut errors = Beginning::default();
    let status = {
        let mut reading = std::pin::pin!(async {
            tokio::join!(drain(out, &mut beginning), drain(err, &mut errors));
        });
        let mut read = false;
        let ended = async {
            loop {
                tokio::select! {
                    status = child.wait() => break status,
                    () = &mut reading, if !read => read = true,
                }
            }
        };
        let status = tokio::time::timeout(limit, ended)
            .await
            .map_err(|_elapsed| no_answer(limit))?
            .map_err(|error| format!("{program} cannot be waited for: {error}"))?;
        if !read {
            // Whatever is not there by now is not worth waiting for.
            let _ = tokio::time::timeout(OUTPUT_GRACE, &mut reading).await;
        }
        status
    };
    beginning.push(&errors.into_bytes());
    Ok(Executed {
        code: code(status),
        output: beginning.into_bytes(),
    })
}

/// The exit code; 128 + n for signal n.
pub(super) fn code(status: std::process::ExitStatus) -> i64 {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => code.into(),
        (None, signal) => 128 + i64::from(signal.unwrap_or_default()),
    }
}

async fn drain(pipe: Option<impl AsyncRead + Unpin>, into: &mut Beginning) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = [0; 1_024];
    while let Ok(count) = pipe.read(&mut buffer).await {
        if count == 0 {
            return;
        }
        into.push(&buffer[..count]);
    }
}

/// A process group that ends with this value.
struct Group(Option<Pid>);

impl Group {
    fn of(leader: u32) -> Self {
        Self(i32::try_from(leader).ok().and_then(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Nothing of it may be left, which is what is wanted.
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(line: &str) -> std::process::Command {
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", line]);
        command
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn code_and_output_are_told() {
        let done = run(shell("echo one; echo two >&2; exit 3"), LONG, |_| {}).await;
        let done = done.unwrap();
        assert_eq!(done.code, 3);
        assert_eq!(done.describe(), "exit code 3: one two");
        let killed = run(shell("kill -9 $$"), LONG, |_| {}).await.unwrap();
        assert_eq!(killed.code, 137);
        let loud = run(shell("head -c 300000 /dev/zero"), LONG, |_| {}).await;
        assert_eq!(loud.unwrap().output.len(), MAX_OUTPUT);
    }

    #[tokio::test]
    async fn one_that_hangs_is_killed_with_all_its_children() {
        let mut leader = 0;
        let hangs = "sleep 1000 & sleep 1000";
        let short = Duration::from_millis(200);
        let result = run(shell(hangs), short, |pid| leader = pid).await;
        assert!(result.unwrap_err().contains("no answer"));
        let group = Pid::from_raw(i32::try_from(leader).unwrap()).unwrap();
        // The kernel and init take a moment to clear the dead away.
        let gone = async {
            while rustix::process::test_kill_process_group(group).is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let gone = tokio::time::timeout(LONG, gone).await;
        assert!(gone.is_ok(), "something of the group is left");
    }

    #[tokio::test]
    async fn what_it_leaves_in_the_background_is_not_waited_for() {
        let done = run(shell("sleep 1000 & exit 0"), LONG, |_| {}).await;
        assert_eq!(done.unwrap().code, 0);
    }
}

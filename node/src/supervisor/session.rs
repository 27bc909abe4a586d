//! The end of a session: its leader and everything that the leader has begun.

use std::collections::BTreeSet;

use rustix::process::{Pid, Signal};

use super::proc;
use super::record::ProcessStamp;

/// How often a session is looked through for processes that were begun meanwhile. Each look finds
/// all children of those that were killed after the look before, so that two or three suffice but
/// against one that forks without end.
const ROUNDS: u32 = 64;

/// Kills the processes of a session, the leader first.
///
/// One that is to be killed forks no more, but may have forked since it was listed: so it is listed
/// again until nothing new is found. They may live on for a moment after this returns.
pub(crate) fn kill(leader: ProcessStamp) {
    let mut killed = BTreeSet::new();
    if proc::is_same(leader) {
        send(leader.pid);
    }
    for _ in 0..ROUNDS {
        let members = proc::session_members(leader);
        let new: Vec<i32> = members
            .into_iter()
            .filter(|pid| killed.insert(*pid))
            .collect();
        if new.is_empty() {
            return;
        }
        new.into_iter().for_each(send);
    }
}

fn send(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended by itself, which is what is wanted.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    /// Longer than anything takes on a busy machine; only a failing test waits so long.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn what_forks_while_it_is_killed_leaves_nothing() {
        let script =
            "echo begun; i=0; while [ $i -lt 300 ]; do sleep 1000 & i=$((i+1)); done; wait";
        for _ in 0..10 {
            let mut child = Command::new("setsid")
                .args(["sh", "-c", script])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("every Debian has it");
            let mut begun = [0];
            let out = child.stdout.as_mut().expect("it is piped");
            std::io::Read::read_exact(out, &mut begun).expect("it says so first");
            let pid = i32::try_from(child.id()).expect("it is a small number");
            let leader = proc::stamp(pid).expect("it runs");

            kill(leader);

            let deadline = Instant::now() + PATIENCE;
            while !proc::session_members(leader).is_empty() {
                assert!(Instant::now() < deadline, "some live on");
                std::thread::yield_now();
            }
            child.wait().expect("it is a child of this test");
        }
    }
}

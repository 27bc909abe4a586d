//! Knocks at the members' doors while nobody hears this node: when it holds a ticket and has not
//! been let in, and when it has lost sight of everybody. Tells people when nobody answers.
//!
//! Membership itself calls for ever, but in datagrams, which only those can read who share the
//! keyring. A node that was away while the keyring was replaced, or that was removed meanwhile,
//! learns it at the gate of the control plane.

use std::net::SocketAddr;
use std::time::Duration;

use dunlin_core::io::Event;
use dunlin_gossip::net::{Control, Trust};
use dunlin_trust::Standing;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::driver::tell;
use crate::api::{EventLog, alone};
use crate::daemon::handle::EngineHandle;

/// How long members may take to answer before that is told: several calls are made in that time.
const PATIENCE: Duration = Duration::from_secs(8);
/// How often it is told again.
const REMINDER: Duration = Duration::from_secs(60);
/// How often a newcomer knocks.
const KNOCK: Duration = Duration::from_secs(2);
/// How often a member knocks that hears nobody: the others may be gone for days.
const KNOCK_ALONE: Duration = Duration::from_secs(10);
/// Doors that are knocked at in one round.
const DOORS: usize = 8;

/// Watches for as long as the daemon lives.
pub(super) struct Joining {
    engine: EngineHandle,
    events: EventLog,
    control: Control,
    trust: Trust,
    /// This node's own address.
    own: SocketAddr,
    /// Where members should be; nobody is missed when empty.
    asked: Vec<SocketAddr>,
}

impl Joining {
    pub(super) fn new(
        (engine, events): (&EngineHandle, &EventLog),
        control: &Control,
        trust: Trust,
        own: SocketAddr,
        asked: Vec<SocketAddr>,
    ) -> Self {
        Self {
            engine: engine.clone(),
            events: events.clone(),
            control: control.clone(),
            trust,
            own,
            asked,
        }
    }

    pub(super) async fn run(self, stop: CancellationToken) {
        let started = Instant::now();
        let mut told = None;
        let mut missed = !self.asked.is_empty();
        let mut wait = Duration::ZERO;
        let mut round = 0;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            let invited = self
                .trust
                .update(|gate| matches!(gate.standing(), Standing::Invited(_)));
            wait = if invited { KNOCK } else { KNOCK_ALONE };
            let known = self
                .engine
                .ask(|engine| (alone(engine), engine.known_addresses().collect::<Vec<_>>()));
            let (alone, known) = match known.await {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::debug!(%error, "cannot look for members");
                    continue;
                }
            };
            missed &= alone;
            // A member gives membership's own calls the first chance.
            if invited || (alone && started.elapsed() > PATIENCE) {
                self.knock(&known, round);
                round += 1;
            }
            let due = told.is_none_or(|at: Instant| at.elapsed() >= REMINDER);
            if missed && due && started.elapsed() >= PATIENCE {
                told = Some(Instant::now());
                self.warn();
            }
        }
    }

    /// Some of all addresses in each round, the ticket's first.
    fn knock(&self, known: &[SocketAddr], round: usize) {
        let mut doors: Vec<SocketAddr> = self.asked.clone();
        doors.extend(known.iter().filter(|address| !self.asked.contains(address)));
        doors.retain(|address| *address != self.own);
        let start = (round * DOORS) % doors.len().max(1);
        for door in doors
            .iter()
            .cycle()
            .skip(start)
            .take(DOORS.min(doors.len()))
        {
            self.control.knock(*door);
        }
    }

    fn warn(&self) {
        let event = Event {
            warning: true,
            text: nobody_answers(&self.asked),
            slot: None,
            node: None,
        };
        tell(&self.events, event);
    }
}

/// What is wrong, and what to do.
fn nobody_answers(asked: &[SocketAddr]) -> String {
    let list: Vec<String> = asked.iter().map(ToString::to_string).collect();
    format!(
        "nobody answers at {}; still trying: is a member running there, and do UDP and TCP pass both ways?",
        list.join(", ")
    )
}

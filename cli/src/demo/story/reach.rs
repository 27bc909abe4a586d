//! Asks every living daemon for the service by its name, and calls its published port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use dunlin_api::client::Client;
use dunlin_state::model::{Protocol, ServiceKey};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{ANSWER, NotYet, Story, ready};
use crate::demo::DemoError;
use crate::demo::call::call_published;
use crate::demo::layout::Member;
use crate::demo::resolve::{Resolved, name_of, name_of_slot, resolve};
use crate::output::{Cell, Table, Tone};

/// Calls through each daemon after each step: enough that its proxy comes to every replica of the
/// usual demo, and over in some milliseconds.
const CALLS: u32 = 8;

/// Addresses of a name that are shown; more would break the table's lines.
const SHOWN: usize = 3;

/// One daemon, as those meet it who use its services.
#[derive(Debug, Clone)]
struct Door {
    member: Member,
    dns: SocketAddr,
    published: SocketAddr,
}

/// What came of the calls through one daemon.
#[derive(Debug, Default)]
struct Calls {
    answered: u32,
    /// The slots that answered.
    slots: BTreeSet<String>,
}

impl Story<'_, '_> {
    /// Waits until the names of each living daemon give the replicas that run and no others, and
    /// its published port is open; then calls that port and counts what is not answered.
    pub(super) async fn reach(
        &mut self,
        service: &ServiceKey,
        wanted: u32,
    ) -> Result<(), DemoError> {
        let name = name_of(service);
        self.teller
            .begins(&format!("asking every daemon for {name}"));
        let mut found = Vec::new();
        for door in self.doors() {
            let client = self.flock.client(door.member);
            let what = format!("{name} at {}", door.member.name());
            let resolved = self
                .until(&what, ANSWER, async || {
                    stands_open(&door, &client, service, wanted).await
                })
                .await?;
            self.teller.summary.resolved += 1;
            found.push((door, resolved));
        }
        let mut called = call_all(found.iter().map(|(door, _)| door)).await;
        let mut table = Table::new(["AT", "NAME GIVES", "SRV", "PUBLISHED AT", "CALLS", "SLOTS"]);
        for (door, resolved) in found {
            let calls = called.remove(&door.member).unwrap_or_default();
            self.teller.summary.calls += CALLS;
            self.teller.summary.failed_calls += CALLS - calls.answered;
            table.row(row(&door, &resolved, &calls));
        }
        self.teller
            .says(&format!("{name} at every daemon, and its published port:"))?;
        Ok(self.teller.shows(&table)?)
    }

    /// A fault when calls have failed.
    pub(super) fn judge(&self) -> Result<(), DemoError> {
        let summary = &self.teller.summary;
        match summary.failed_calls {
            0 => Ok(()),
            failed => Err(DemoError::FailedCalls {
                failed,
                calls: summary.calls,
            }),
        }
    }

    fn doors(&self) -> Vec<Door> {
        let ports = self.flock.ports();
        let door = |member: Member| Door {
            member,
            dns: ports.dns(member),
            published: SocketAddr::new(member.address(), ports.published()),
        };
        self.flock.members().into_iter().map(door).collect()
    }
}

/// What the name gives at this daemon, once that is right and the published port is open.
async fn stands_open(
    door: &Door,
    client: &Client,
    service: &ServiceKey,
    wanted: u32,
) -> Result<Resolved, NotYet> {
    let member = door.member.name();
    let ready = ready(client, service, wanted, None).await?;
    let mut expected = BTreeSet::new();
    for replica in ready.values() {
        for endpoint in &replica.endpoints {
            if endpoint.protocol == Protocol::Tcp {
                let target = name_of_slot(replica.slot, service);
                expected.insert((target, endpoint.target));
            }
        }
    }
    let found = resolve(door.dns, &name_of(service))
        .await
        .map_err(|e| e.to_string())?;
    if !agrees(&found, &expected) {
        return Err(format!("the names at {member} are not up to date"));
    }
    TcpStream::connect(door.published)
        .await
        .map_err(|e| format!("{member} does not publish on {}: {e}", door.published))?;
    Ok(found)
}

/// Whether a name gives all of what it should, and nothing else: these targets, and an address of
/// its own for each.
fn agrees(found: &Resolved, expected: &BTreeSet<(String, u16)>) -> bool {
    let whole = found.addresses.len() == expected.len() && found.targets == *expected;
    whole && !found.given.is_empty()
}

/// Calls through all daemons at a time, through each call by call.
async fn call_all<'d>(doors: impl Iterator<Item = &'d Door>) -> BTreeMap<Member, Calls> {
    let mut running = JoinSet::new();
    for door in doors {
        let (member, address) = (door.member, door.published);
        running.spawn(async move {
            let mut calls = Calls::default();
            for _ in 0..CALLS {
                if let Some(called) = call_published(address).await {
                    calls.answered += 1;
                    calls.slots.extend(called.answer.slot_name());
                }
            }
            (member, calls)
        });
    }
    let mut called = BTreeMap::new();
    while let Some(result) = running.join_next().await {
        // Calls of a task that panicked are missing here, and count as failed.
        called.extend(result.ok());
    }
    called
}

fn row(door: &Door, resolved: &Resolved, calls: &Calls) -> [Cell; 6] {
    let mut addresses: Vec<String> = resolved.given.iter().map(ToString::to_string).collect();
    if addresses.len() > SHOWN {
        addresses.truncate(SHOWN);
        addresses.push("…".to_owned());
    }
    let slots: Vec<&str> = calls.slots.iter().map(String::as_str).collect();
    let tone = if calls.answered == CALLS {
        Tone::Good
    } else {
        Tone::Bad
    };
    [
        door.member.name().into(),
        addresses.join(" ").into(),
        resolved.targets.len().to_string().into(),
        door.published.to_string().into(),
        Cell::toned(format!("{} of {CALLS} answered", calls.answered), tone),
        slots.join(" ").into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(addresses: &[[u8; 4]], targets: &[(&str, u16)]) -> Resolved {
        Resolved {
            given: BTreeSet::from([[127, 64, 0, 20].into()]),
            addresses: addresses.iter().map(|a| (*a).into()).collect(),
            targets: targets.iter().map(|(n, p)| ((*n).into(), *p)).collect(),
        }
    }

    #[test]
    fn names_that_lag_behind_are_told_apart() {
        let (a, b, dead) = ([127, 64, 128, 1], [127, 64, 128, 2], [127, 64, 128, 3]);
        let both = [("0.", 1), ("1.", 2)];
        let expected = resolved(&[], &both).targets;
        let cases = [
            (resolved(&[a, b], &both), true),
            (resolved(&[b], &both), false),
            (resolved(&[], &both), false),
            (resolved(&[a, b, dead], &both), false),
            (resolved(&[a, b], &both[..1]), false),
            (resolved(&[a, b], &[("0.", 1), ("1.", 3)]), false),
            (resolved(&[a, b], &[("0.", 1), ("1.", 2), ("2.", 3)]), false),
        ];
        for (found, right) in cases {
            assert_eq!(agrees(&found, &expected), right, "{found:?}");
        }
    }
}

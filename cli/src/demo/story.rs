//! The steps of the demo, and what they measure.
//!
//! Nothing here waits a fixed time: each step looks at the cluster until what should happen has
//! happened, and the time that took is the measurement. A look costs the daemons microseconds.

mod reach;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dunlin_api::client::{Client, ClientError};
use dunlin_api::{DeployRequest, DeployService, NodeState, Replica, ReplicaQuery, TicketRequest};
use dunlin_state::model::{Protocol, ServiceKey, Slot};
use tokio::task::JoinSet;

use super::call::{Called, call};
use super::flock::Flock;
use super::layout::Member;
use super::plan::{example, victim};
use super::tell::{Killed, Teller};
use super::{DemoArgs, DemoError};
use crate::output::{Cell, Table, Tone, size};

/// Pause between looks at the cluster: the precision of what is measured.
const LOOK: Duration = Duration::from_millis(10);

/// How long the daemons may take to become one cluster.
const GATHER: Duration = Duration::from_secs(60);

/// How long replicas may take to answer. Docker may have an image to pull.
const ANSWER: Duration = Duration::from_secs(180);

/// Replicas that a scale-up adds at most.
const MOST_ADDED: u32 = 20;

/// Why something has not happened yet, in words.
type NotYet = String;

/// A replica that has answered.
#[derive(Debug, Clone)]
pub(super) struct Answering {
    pub(super) replica: Replica,
    pub(super) address: SocketAddr,
    pub(super) called: Called,
}

/// The demo as it goes on.
pub(super) struct Story<'a, 'o> {
    args: &'a DemoArgs,
    flock: &'a mut Flock,
    teller: &'a mut Teller<'o>,
}

impl<'a, 'o> Story<'a, 'o> {
    pub(super) fn new(
        args: &'a DemoArgs,
        flock: &'a mut Flock,
        teller: &'a mut Teller<'o>,
    ) -> Self {
        Self {
            args,
            flock,
            teller,
        }
    }

    /// From the first daemon to the last measurement.
    pub(super) async fn tell(mut self) -> Result<(), DemoError> {
        self.gather().await?;
        let service = self.deploy().await?;
        self.strike(&service).await?;
        self.scale(&service).await?;
        self.judge()
    }

    /// Starts the daemons; the first makes the cluster, the others join it.
    async fn gather(&mut self) -> Result<(), DemoError> {
        let start = Instant::now();
        let nodes = self.args.nodes;
        let what = format!("starting {nodes} daemons on this host");
        self.teller.begins(&what);
        let first = Member(1);
        self.flock.start(first, false)?;
        let client = self.flock.client(first);
        let status = self
            .until("the start of the first daemon", GATHER, async || {
                client.node().await.map_err(|e| e.to_string())
            })
            .await?;
        self.flock.set_cluster(&status.cluster);
        // Any of the flock is asked to change things.
        let request = TicketRequest {
            role: Some("operator".to_owned()),
            uses: Some(0),
            ..TicketRequest::default()
        };
        let ticket = client.ticket(&request).await;
        let ticket = ticket.map_err(asked("asking for a ticket"))?;
        self.flock.save_ticket(&ticket.ticket)?;
        for member in (2..=nodes).map(Member) {
            self.flock.start(member, true)?;
        }
        let clients: Vec<Client> = (1..=nodes).map(|n| self.flock.client(Member(n))).collect();
        let seen = self
            .until("one cluster", GATHER, async || {
                let mut seen = Vec::new();
                for client in &clients {
                    seen = client.nodes().await.map_err(|e| e.to_string())?;
                    // A busy host makes one daemon or another miss a probe all the time.
                    let member = |s| matches!(s, NodeState::Alive | NodeState::Suspect);
                    let members = seen.iter().filter(|n| member(n.state)).count();
                    if members != clients.len() {
                        return Err(format!(
                            "{} sees {members} of {nodes} daemons",
                            client.host()
                        ));
                    }
                    // A member is known by its key at once, and by name when its own word arrives.
                    if seen.iter().any(|n| n.name.is_empty()) {
                        return Err(format!("{} has not heard of all", client.host()));
                    }
                }
                Ok(seen)
            })
            .await?;
        let ms = millis(start.elapsed());
        self.teller.summary.start_ms = Some(ms);
        let what = format!("{nodes} daemons on this host are one cluster");
        self.teller.took(&what, ms)?;
        let mut table = Table::new([
            "NODE", "ID", "ADDRESS", "STATE", "RUNTIMES", "CPUS", "MEMORY",
        ]);
        for node in seen {
            table.row([
                node.name.into(),
                node.id.short().into(),
                node.address.map_or(String::new(), |a| a.to_string()).into(),
                match node.state {
                    NodeState::Alive => Cell::toned("alive", Tone::Good),
                    NodeState::Suspect => Cell::toned("suspect", Tone::Warn),
                    NodeState::Down | NodeState::Left => Cell::toned("down", Tone::Bad),
                },
                node.runtimes.join(",").into(),
                node.facts.cpus.to_string().into(),
                size(node.facts.memory).into(),
            ]);
        }
        Ok(self.teller.shows(&table)?)
    }

    /// Deploys the example and calls every replica.
    async fn deploy(&mut self) -> Result<ServiceKey, DemoError> {
        let wanted = self.args.replicas;
        let program = self.flock.program().to_owned();
        let published = self.flock.ports().published();
        let (service, spec) =
            example(self.args, &program, published).map_err(DemoError::Example)?;
        let request = DeployRequest {
            services: vec![DeployService {
                service: service.clone(),
                spec,
                replicas: Some(wanted),
                canary: None,
            }],
        };
        let name = service.name();
        self.teller
            .begins(&format!("deploying {name} with {wanted} replicas"));
        let client = self.flock.client(Member(1));
        let start = Instant::now();
        client.deploy(&request).await.map_err(asked("deploying"))?;
        let answering = self
            .until_answering("the deploy", &client, &service, wanted)
            .await?;
        let ms = millis(start.elapsed());
        self.teller.summary.deploy_ms = Some(ms);
        let rss = self.flock.resident();
        #[expect(clippy::cast_precision_loss, reason = "megabytes with one decimal")]
        let mb = |bytes: u64| (bytes as f64 / 1e5).round() / 10.0;
        self.teller.summary.rss_mb = rss.into_iter().map(mb).collect();
        let what = format!("{name} runs with {wanted} replicas, and each answers");
        self.teller.took(&what, ms)?;
        self.show(&answering)?;
        self.reach(&service, wanted).await?;
        Ok(service)
    }

    /// Kills a daemon with its replicas, and sees others notice and replace them.
    async fn strike(&mut self, service: &ServiceKey) -> Result<(), DemoError> {
        let client = self.flock.client(Member(1));
        let replicas = client
            .replicas(&of(service))
            .await
            .map_err(asked("asking for the replicas"))?
            .replicas;
        let (victim, node, lost) = victim(&self.flock.members(), &replicas);
        let name = victim.name();
        let killed = self.flock.kill(victim, &node)?;
        self.teller.summary.killed = Some(Killed {
            node: name.clone(),
            replicas: lost,
        });
        let plural = if lost == 1 { "replica" } else { "replicas" };
        self.teller.says(&format!(
            "{name} is killed with its {lost} {plural} (kill -9)"
        ))?;
        self.teller.begins("waiting for the others to notice");
        let survivors: Vec<Client> = self
            .flock
            .members()
            .into_iter()
            .map(|m| self.flock.client(m))
            .collect();
        let wanted = self.args.replicas;
        let (mut noticed, mut replaced) = (None, None);
        let (noticed, (replaced, answering)) = self
            .until("the replacement", ANSWER, async || {
                if noticed.is_none() {
                    match notice(&survivors, &name).await {
                        Ok(()) => noticed = Some(killed.elapsed()),
                        Err(why) if replaced.is_some() => return Err(why),
                        Err(_) => {}
                    }
                }
                if replaced.is_none() {
                    let asked = survivors.first().ok_or("nobody is left")?;
                    let answering = answering(asked, service, wanted, Some(&name)).await?;
                    replaced = Some((killed.elapsed(), answering));
                }
                match (noticed, replaced.take()) {
                    (Some(noticed), Some(replaced)) => Ok((noticed, replaced)),
                    (None, done) => {
                        replaced = done;
                        Err(format!("not all have noticed that {name} is down"))
                    }
                    (Some(_), None) => Err("the replacement is not there".to_owned()),
                }
            })
            .await?;
        let (noticed, replaced) = (millis(noticed), millis(replaced));
        self.teller.summary.detect_ms = Some(noticed);
        self.teller.summary.replace_ms = Some(replaced);
        self.teller.took("  all others hold it for down", noticed)?;
        let what = format!("  {wanted} replicas answer again");
        self.teller.took(&what, replaced)?;
        self.show(&answering)?;
        self.reach(service, wanted).await
    }

    async fn scale(&mut self, service: &ServiceKey) -> Result<(), DemoError> {
        let wanted = self.args.replicas + self.args.replicas.min(MOST_ADDED);
        let member = self.flock.members().first().copied().unwrap_or(Member(1));
        let client = self.flock.client(member);
        let name = service.name();
        self.teller
            .begins(&format!("scaling {name} to {wanted} replicas"));
        let start = Instant::now();
        client
            .scale(service, wanted)
            .await
            .map_err(asked("scaling"))?;
        let answering = self
            .until_answering("the scale-up", &client, service, wanted)
            .await?;
        let ms = millis(start.elapsed());
        self.teller.summary.scaled_to = Some(wanted);
        self.teller.summary.scale_ms = Some(ms);
        let what = format!("{name} is scaled to {wanted} replicas, and each answers");
        self.teller.took(&what, ms)?;
        self.show(&answering)?;
        self.reach(service, wanted).await?;
        let rss: Vec<String> = self
            .teller
            .summary
            .rss_mb
            .iter()
            .map(f64::to_string)
            .collect();
        let text = format!(
            "Memory of the daemons with replicas running: {} MB",
            rss.join(", ")
        );
        Ok(self.teller.says(&text)?)
    }

    async fn until_answering(
        &mut self,
        what: &str,
        client: &Client,
        service: &ServiceKey,
        wanted: u32,
    ) -> Result<Vec<Answering>, DemoError> {
        let result = self
            .until(what, ANSWER, async || {
                answering(client, service, wanted, None).await
            })
            .await;
        match result {
            Err(DemoError::TooLate {
                what,
                seconds,
                reason,
            }) => {
                let explanation = client.explain(service).await;
                let more = explanation.map_or(String::new(), |e| format!("; {}", e.summary));
                Err(DemoError::TooLate {
                    what,
                    seconds,
                    reason: reason + &more,
                })
            }
            other => other,
        }
    }

    /// Looks until something has happened, and looks after the daemons meanwhile.
    async fn until<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut look: impl AsyncFnMut() -> Result<T, NotYet>,
    ) -> Result<T, DemoError> {
        let start = Instant::now();
        loop {
            let why = match look().await {
                Ok(result) => return Ok(result),
                Err(why) => why,
            };
            self.flock.check()?;
            if start.elapsed() > patience {
                return Err(DemoError::TooLate {
                    what: what.to_owned(),
                    seconds: patience.as_secs(),
                    reason: format!(": {why}"),
                });
            }
            if start.elapsed() > Duration::from_secs(1) {
                self.teller.progress(&why);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn show(&mut self, answering: &[Answering]) -> Result<(), DemoError> {
        let mut table = Table::new(["SLOT", "NODE", "ADDRESS", "EPOCH", "PID", "ANSWERED IN"]);
        for Answering {
            replica,
            address,
            called,
        } in answering
        {
            let micros = called.took.as_micros();
            table.row([
                replica.slot.to_string().into(),
                called.answer.node.clone().unwrap_or_default().into(),
                address.to_string().into(),
                replica.epoch.to_string().into(),
                called.answer.pid.to_string().into(),
                format!("{}.{} ms", micros / 1000, micros % 1000 / 100).into(),
            ]);
        }
        Ok(self.teller.shows(&table)?)
    }
}

/// Whether all of them hold the node of this name for down.
async fn notice(survivors: &[Client], name: &str) -> Result<(), NotYet> {
    for client in survivors {
        let nodes = client.nodes().await.map_err(|e| e.to_string())?;
        let node = nodes.iter().find(|n| n.name == name);
        if node.is_some_and(|n| n.state != NodeState::Down) {
            return Err(format!(
                "{} does not hold {name} for down yet",
                client.host()
            ));
        }
    }
    Ok(())
}

/// All replicas, when there are as many ready as wanted. Those of a node that was killed do not
/// count, whatever is still said of them.
async fn ready(
    client: &Client,
    service: &ServiceKey,
    wanted: u32,
    killed: Option<&str>,
) -> Result<BTreeMap<Slot, Replica>, NotYet> {
    let list = client.replicas(&of(service)).await;
    let replicas = list.map_err(|e| e.to_string())?.replicas;
    let counts = |r: &Replica| {
        let living = killed != Some(r.node_name.as_str());
        living && r.ready && !r.superseded && r.node_state == NodeState::Alive
    };
    let ready: BTreeMap<Slot, Replica> = replicas
        .into_iter()
        .filter(counts)
        .map(|r| (r.slot, r))
        .collect();
    if ready.len() != wanted as usize {
        return Err(format!("{} of {wanted} replicas are ready", ready.len()));
    }
    Ok(ready)
}

/// The same, when each has answered for its own slot.
async fn answering(
    client: &Client,
    service: &ServiceKey,
    wanted: u32,
    killed: Option<&str>,
) -> Result<Vec<Answering>, NotYet> {
    let ready = ready(client, service, wanted, killed).await?;
    let mut calls = JoinSet::new();
    for replica in ready.into_values() {
        let slot = replica.slot;
        let endpoint = replica
            .endpoints
            .iter()
            .find(|e| e.protocol == Protocol::Tcp);
        let address = endpoint
            .ok_or_else(|| format!("slot {slot} has no address"))?
            .address;
        calls.spawn(async move { (replica, address, call(address).await) });
    }
    let mut answering = Vec::new();
    while let Some(called) = calls.join_next().await {
        let (replica, address, called) = called.map_err(|e| e.to_string())?;
        let called = called.ok_or_else(|| format!("slot {} does not answer", replica.slot))?;
        if !is_of(&called, &replica) {
            return Err(format!("another replica answers for slot {}", replica.slot));
        }
        answering.push(Answering {
            replica,
            address,
            called,
        });
    }
    answering.sort_by_key(|a| a.replica.slot);
    Ok(answering)
}

/// Whether the answer comes from this very replica.
fn is_of(called: &Called, replica: &Replica) -> bool {
    let answer = &called.answer;
    answer.service.as_deref() == Some(replica.service.name())
        && answer.slot_name() == Some(replica.slot.to_string())
        && answer.epoch == Some(replica.epoch)
}

fn of(service: &ServiceKey) -> ReplicaQuery {
    ReplicaQuery {
        service: Some(service.clone()),
        ..ReplicaQuery::default()
    }
}

fn asked(what: &'static str) -> impl FnOnce(ClientError) -> DemoError {
    move |source| DemoError::Client { what, source }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

//! What a host says of the cluster, and whether all hosts say the same.

use std::collections::BTreeMap;

use dunlin_api::client::Client;
use dunlin_api::{
    ErrorCode, Node, NodeState, NodeStatus, Replica, ReplicaList, ReplicaQuery, ServiceDetail,
    ServiceQuery, ServiceSummary,
};
use dunlin_state::model::Availability;

use super::Lab;
use super::fixed;
use super::ledger::SERVICES;
use super::people::name;
use crate::lab::scenarios::key;

/// Everything that a host says.
#[derive(Debug)]
pub(super) struct View {
    pub(super) host: String,
    pub(super) nodes: Vec<Node>,
    pub(super) status: NodeStatus,
    pub(super) services: Vec<ServiceSummary>,
    pub(super) replicas: ReplicaList,
    /// By the number in the name.
    pub(super) wanted: BTreeMap<usize, ServiceDetail>,
    /// Those that nobody changes.
    pub(super) fixed: Vec<ServiceDetail>,
}

impl View {
    /// Asks for it, or tells why that is impossible.
    pub(super) async fn of(lab: &Lab, at: usize) -> Result<Self, String> {
        let (client, host) = (lab.hosts[at].client(), lab.hosts[at].name());
        let trouble = |error| format!("{host} does not answer: {error}");
        let nodes = client.nodes().await.map_err(trouble)?;
        let status = client.node().await.map_err(trouble)?;
        let all = ServiceQuery::default();
        let services = client.services(&all).await.map_err(trouble)?;
        let all = ReplicaQuery::default();
        let replicas = client.replicas(&all).await.map_err(trouble)?;
        let mut wanted = BTreeMap::new();
        for service in 0..SERVICES {
            let found = inspect(&client, &name(service)).await;
            if let Some(detail) = found.map_err(|e| format!("{host}: {e}"))? {
                wanted.insert(service, detail);
            }
        }
        let mut fixed = Vec::new();
        for name in fixed::NAMES {
            match inspect(&client, name).await {
                Ok(Some(detail)) => fixed.push(detail),
                Ok(None) => return Err(format!("{host}: nobody removed {name}, and it is gone")),
                Err(error) => return Err(format!("{host}: {error}")),
            }
        }
        Ok(Self {
            host,
            nodes,
            status,
            services,
            replicas,
            wanted,
            fixed,
        })
    }

    /// What is wrong with the members, as this host sees them.
    fn strangers(&self, hosts: usize) -> Vec<String> {
        let alive = self.nodes.iter().filter(|n| n.state == NodeState::Alive);
        let (host, alive) = (&self.host, alive.count());
        match alive == hosts && self.nodes.len() == hosts {
            true => Vec::new(),
            false => vec![format!(
                "{host} sees {alive} of {hosts} hosts alive, and {} members",
                self.nodes.len()
            )],
        }
    }

    /// What it says otherwise than another host.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, own: String, others: String| {
            if own != others {
                let (a, b) = (&self.host, &other.host);
                found.push(format!("{a} and {b} differ in {what}: {own} / {others}"));
            }
        };
        let document = |v: &Self| format!("{} {}", v.status.document.id, v.status.document.heads);
        compare("the document", document(self), document(other));
        let services = |v: &Self| {
            let line = |s: &ServiceSummary| {
                let (wanted, ready, running) = (s.wanted, s.ready, s.running);
                let (service, revision) = (&s.service, &s.revision);
                format!("{service} {revision:.8} {running} {ready}/{wanted}")
            };
            v.services.iter().map(line).collect::<Vec<_>>().join(", ")
        };
        compare("services", services(self), services(other));
        let replicas = |v: &Self| {
            let mut lines: Vec<String> = v.replicas.replicas.iter().map(claim).collect();
            lines.sort();
            lines.join(", ")
        };
        compare("replicas", replicas(self), replicas(other));
        found
    }

    /// Hosts that do not take replicas though they should.
    pub(super) fn inactive(&self) -> Vec<String> {
        let set = |n: &&Node| n.availability != Availability::Active;
        let tell = |n: &Node| format!("{}: {} is {:?}", self.host, n.name, n.availability);
        self.nodes.iter().filter(set).map(tell).collect()
    }
}

/// A replica in a line.
pub(super) fn claim(r: &Replica) -> String {
    format!(
        "{} {} on {} epoch {} {:?}{}{}{} {:.8}",
        r.service,
        r.slot,
        r.node_name,
        r.epoch,
        r.phase,
        if r.ready { " ready" } else { "" },
        if r.leaving { " leaving" } else { "" },
        if r.superseded { " superseded" } else { "" },
        r.revision
    )
}

/// Whether the hosts still have to find each other and hear what they missed.
pub(super) async fn apart(lab: &Lab) -> Vec<String> {
    let mut first: Option<NodeStatus> = None;
    let mut found = Vec::new();
    for at in 0..lab.hosts.len() {
        let view = match View::of(lab, at).await {
            Ok(view) => view,
            Err(trouble) => {
                found.push(trouble);
                continue;
            }
        };
        found.extend(view.strangers(lab.hosts.len()));
        let heads = &view.status.document.heads;
        if first
            .get_or_insert_with(|| view.status.clone())
            .document
            .heads
            != *heads
        {
            found.push(format!("{} has another document than others", view.host));
        }
    }
    found
}

/// What a host knows of a service, or nothing when it says that there is none.
pub(super) async fn inspect(client: &Client, name: &str) -> Result<Option<ServiceDetail>, String> {
    let key = key(name).map_err(|e| e.to_string())?;
    match client.inspect(&key).await {
        Ok(detail) => Ok(Some(detail)),
        Err(error) if error.code() == ErrorCode::NoSuchService => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

//! Labs: real daemons, each in a network namespace of its own, looked at from outside.
//!
//! A lab needs root and Debian's iproute2. It makes a bridge and as many namespaces as it has
//! hosts, all with names and addresses of its own, and removes them at the end, also after a
//! failure. Labs of containers need Debian's docker.io and busybox-static too: each host has an
//! engine of its own, and an image that is made on the spot. What a lab checks it sees through the API sockets, over the replicas' own ports and in the
//! process table; it never looks into a daemon.

mod cost;
mod daemon;
mod engine;
mod hardware;
mod net;
mod report;
mod resolve;
pub mod scenarios;
mod wait;

pub use cost::{children_cpu_seconds, cpu_seconds, resident_mb};
pub use daemon::{Host, Workloads};
pub use engine::IMAGE;
pub use net::{LabError, Network};
pub use report::{Figure, Figures};
pub use wait::{eventually, within};

use std::path::{Path, PathBuf};

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    /// The hosts, the first one being where people ask when it does not matter.
    pub hosts: Vec<Host>,
    /// The links between them.
    pub network: Network,
    folder: PathBuf,
}

impl Lab {
    /// Makes the network and starts a daemon on each host; all have joined when this returns.
    pub async fn start(
        binary: &Path,
        hosts: usize,
        workloads: Workloads,
    ) -> Result<Self, LabError> {
        let network = Network::create(hosts)?;
        let folder = tempfile::Builder::new()
            .prefix("dunlin-lab-")
            .tempdir()
            .map_err(|e| LabError::new("make a folder", e))?
            .keep();
        let mut lab = Self {
            hosts: Vec::new(),
            network,
            folder,
        };
        for index in 0..hosts {
            let host = Host::new(binary, &lab.folder, index, workloads, &lab.network);
            lab.hosts.push(host);
        }
        for host in &mut lab.hosts {
            host.start_engine().await?;
        }
        lab.hosts[0].start(None)?;
        let ticket = lab.ticket().await?;
        for index in 1..hosts {
            lab.hosts[index].start(Some(&ticket))?;
        }
        for index in 0..hosts {
            let host = &lab.hosts[index];
            eventually("every node sees all others", 20, async || {
                Ok(host.alive().await? == hosts)
            })
            .await?;
        }
        Ok(lab)
    }

    /// What a newcomer is given by the first host.
    pub async fn ticket(&self) -> Result<String, LabError> {
        let client = self.hosts[0].client();
        // Labs ask whichever node they like to deploy, to drain and to remove.
        let request = dunlin_api::TicketRequest {
            role: Some("admin".to_owned()),
            uses: Some(0),
            ..dunlin_api::TicketRequest::default()
        };
        eventually("the first daemon answers", 10, async || {
            Ok(client.version().await.is_ok())
        })
        .await?;
        let ticket = client
            .ticket(&request)
            .await
            .map_err(|e| LabError::new("get a ticket", e))?;
        Ok(ticket.ticket)
    }

    /// Where the lab keeps its files while it lasts.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The end of a daemon's log, for the story of a failure.
    pub fn tell(&self) {
        for host in &self.hosts {
            eprintln!("--- the end of {}'s log", host.name());
            host.log_tail(25)
                .iter()
                .for_each(|line| eprintln!("    {line}"));
            for line in host.engine_story() {
                eprintln!("    its engine: {line}");
            }
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in &mut self.hosts {
            host.retire();
        }
        if std::env::var_os("DUNLIN_LAB_KEEP").is_none()
            && let Err(error) = std::fs::remove_dir_all(&self.folder)
        {
            eprintln!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

//! The lab's network: one bridge for all, a second one for those who are cut off.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Why a lab cannot go on.
#[derive(Debug)]
pub struct LabError(String);

impl LabError {
    /// An error while doing `what`.
    pub fn new(what: &str, error: impl fmt::Display) -> Self {
        Self(format!("cannot {what}: {error}"))
    }

    /// Something that should hold does not.
    pub fn broken(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for LabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for LabError {}

/// Waits until no other lab runs on this host.
fn turn() -> Result<File, LabError> {
    let path = std::env::temp_dir().join("dunlin-lab.lock");
    let file = File::create(&path).map_err(|e| LabError::new("open the lab's lock", e))?;
    if file.try_lock().is_err() {
        println!("lab: another one runs on this host; waiting for its end");
        file.lock()
            .map_err(|e| LabError::new("wait for another lab", e))?;
    }
    Ok(file)
}

/// Namespaces and links, removed when dropped.
#[derive(Debug)]
pub struct Network {
    hosts: usize,
    /// All labs use the same addresses: this one's turn lasts as long as its network.
    _turn: File,
    /// Tells what a lab that was killed has left from what this one makes.
    tag: u32,
    /// How often the hosts have been given new addresses.
    moves: usize,
}

impl Network {
    /// Makes the bridges and a namespace with an address for each host.
    pub fn create(hosts: usize) -> Result<Self, LabError> {
        let network = Self {
            hosts,
            _turn: turn()?,
            tag: std::process::id() % 10_000,
            moves: 0,
        };
        network.build()?;
        Ok(network)
    }

    fn build(&self) -> Result<(), LabError> {
        for side in [Side::A, Side::B] {
            ip(&["link", "add", &self.bridge(side), "type", "bridge"])?;
            ip(&["link", "set", &self.bridge(side), "up"])?;
        }
        // The lab itself is on the first side, to call replicas.
        ip(&[
            "addr",
            "add",
            "10.98.0.254/24",
            "dev",
            &self.bridge(Side::A),
        ])?;
        quiet_bridge_filter();
        for host in 0..self.hosts {
            let (space, outer) = (self.namespace(host), self.outer(host));
            ip(&["netns", "add", &space])?;
            ip(&[
                "link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &space,
            ])?;
            ip(&["link", "set", &outer, "master", &self.bridge(Side::A), "up"])?;
            let address = format!("{}/24", self.address(host));
            ip(&["-n", &space, "addr", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &space, "link", "set", "eth0", "up"])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    /// The namespace of a host.
    pub fn namespace(&self, host: usize) -> String {
        format!("dl{}n{host}", self.tag)
    }

    /// Its address.
    pub fn address(&self, host: usize) -> String {
        format!("10.98.0.{}", self.moves * self.hosts + host + 1)
    }

    /// Gives every host another address, as a router does that has forgotten its leases.
    pub fn renumber(&mut self) -> Result<(), LabError> {
        let old: Vec<String> = (0..self.hosts).map(|host| self.address(host)).collect();
        self.moves += 1;
        for (host, old) in old.into_iter().enumerate() {
            let space = self.namespace(host);
            let change = |verb: &str, address: &str| {
                let address = format!("{address}/24");
                ip(&["-n", &space, "addr", verb, &address, "dev", "eth0"])
            };
            change("del", &old)?;
            change("add", &self.address(host))?;
        }
        Ok(())
    }

    /// Pulls the cable of a host, or plugs it in again.
    pub fn cable(&self, host: usize, plugged: bool) -> Result<(), LabError> {
        let outer = self.outer(host);
        ip(&["link", "set", &outer, if plugged { "up" } else { "down" }])
    }

    /// Puts hosts on the other side of a partition.
    pub fn split(&self, hosts: &[usize]) -> Result<(), LabError> {
        hosts.iter().try_for_each(|host| self.put(*host, Side::B))
    }

    /// Brings hosts back from the other side of a partition.
    pub fn join(&self, hosts: &[usize]) -> Result<(), LabError> {
        hosts.iter().try_for_each(|host| self.put(*host, Side::A))
    }

    /// Puts all hosts on one side again.
    pub fn heal(&self) -> Result<(), LabError> {
        (0..self.hosts).try_for_each(|host| self.put(host, Side::A))
    }

    fn put(&self, host: usize, side: Side) -> Result<(), LabError> {
        ip(&[
            "link",
            "set",
            &self.outer(host),
            "master",
            &self.bridge(side),
        ])
    }

    fn bridge(&self, side: Side) -> String {
        match side {
            Side::A => format!("dl{}a", self.tag),
            Side::B => format!("dl{}b", self.tag),
        }
    }

    fn outer(&self, host: usize) -> String {
        format!("dl{}v{host}", self.tag)
    }
}

/// Does something in a namespace. A thread cannot leave one, so one enters it for this alone. What
/// sockets it makes belong to the namespace for ever, wherever they are used.
pub(super) fn inside<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, LabError> {
    let path = format!("/run/netns/{namespace}");
    let done = std::thread::spawn(move || {
        let space = File::open(path)?;
        move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    });
    let done = done
        .join()
        .map_err(|_panic| LabError::broken("a thread panicked"))?;
    done.map_err(|e| LabError::new("work in a namespace", e))
}

#[derive(Debug, Clone, Copy)]
enum Side {
    A,
    B,
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in 0..self.hosts {
            // Removing the namespace takes its end of the cable with it.
            best_effort(&["netns", "del", &self.namespace(host)]);
            best_effort(&["link", "del", &self.outer(host)]);
        }
        for side in [Side::A, Side::B] {
            best_effort(&["link", "del", &self.bridge(side)]);
        }
    }
}

/// Docker has bridged packets pass its firewall; a lab's must not.
fn quiet_bridge_filter() {
    let path = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    if std::path::Path::new(path).exists()
        && let Err(error) = std::fs::write(path, "0")
    {
        eprintln!("note: cannot switch off bridge filtering: {error}");
    }
}

fn ip(arguments: &[&str]) -> Result<(), LabError> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .map_err(|e| LabError::new("run ip", e))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(LabError::new(
        &format!("ip {}", arguments.join(" ")),
        complaint,
    ))
}

/// While cleaning up, what is gone already is fine.
fn best_effort(arguments: &[&str]) {
    let _gone_already = Command::new("ip").args(arguments).output();
}

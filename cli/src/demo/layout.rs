//! Where everything of a demo is, and how its daemons are called.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use dunlin_state::model::RuntimeKind;

/// Marks a directory as a demo's, so that nothing else is ever removed.
const MARKER: &str = "dunlin-demo";

/// Longest directory name with which a Unix socket in it still fits into the kernel's 108 bytes.
const MAX_DIRECTORY_BYTES: usize = 80;

/// Ports that are tried: below those that replicas get (from 20000) and that Linux gives to clients
/// (from 32768).
const PORTS: std::ops::Range<u16> = 10_000..20_000;

/// Ports in a row that a demo takes on each address: membership, its control connections,
/// connections to replicas, names, and the published port of the example.
const TAKEN: u16 = 5;

/// The directory of a demo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    root: PathBuf,
}

/// One daemon, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member(pub(super) u32);

impl Member {
    pub(super) fn name(self) -> String {
        format!("n{}", self.0)
    }

    /// A loopback address of its own.
    pub(super) fn address(self) -> IpAddr {
        let number = u8::try_from(self.0).unwrap_or(u8::MAX);
        IpAddr::V4(Ipv4Addr::new(127, 0, 1, number))
    }
}

/// The first of the ports of a demo, the same on each address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports(pub(super) u16);

impl Ports {
    /// Where a member answers DNS queries.
    pub(super) fn dns(self, member: Member) -> SocketAddr {
        SocketAddr::new(member.address(), self.0 + 3)
    }

    /// The port that is published on every member.
    pub(super) fn published(self) -> u16 {
        self.0 + 4
    }
}

impl Layout {
    /// Makes a directory that only this user can enter.
    pub(super) fn create() -> io::Result<Self> {
        let mut base = std::env::temp_dir();
        if base.as_os_str().len() + 32 > MAX_DIRECTORY_BYTES {
            base = PathBuf::from("/tmp");
        }
        let base = std::path::absolute(base)?;
        let mut taken = None;
        for attempt in 0..100 {
            let root = base.join(format!("dunlin-demo-{}-{attempt}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&root) {
                Ok(()) => {
                    fs::write(root.join(MARKER), b"")?;
                    return Ok(Self { root });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(taken.unwrap_or_else(|| io::ErrorKind::AlreadyExists.into()))
    }

    /// The directory of a demo that was kept.
    pub(super) fn existing(root: &Path) -> Result<Self, String> {
        let shown = root.display();
        let root = root
            .canonicalize()
            .map_err(|error| format!("cannot find {shown}: {error}"))?;
        if !root.join(MARKER).is_file() {
            return Err(format!("{shown} is not a demo's directory"));
        }
        Ok(Self { root })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn data_dir(&self, member: Member) -> PathBuf {
        self.root.join(member.name())
    }

    pub(super) fn socket(&self, member: Member) -> PathBuf {
        self.data_dir(member).join("api.sock")
    }

    pub(super) fn log(&self, member: Member) -> PathBuf {
        self.root.join(format!("{}.log", member.name()))
    }

    /// A ticket on the command line could be read by everyone on this host.
    pub(super) fn ticket(&self) -> PathBuf {
        self.root.join("ticket")
    }

    /// The words after `dunlin` that start a member.
    pub(super) fn arguments(
        &self,
        member: Member,
        ports: Ports,
        runtime: RuntimeKind,
        joins: bool,
    ) -> Vec<OsString> {
        let runtime = match runtime {
            RuntimeKind::Process => "process",
            RuntimeKind::Docker => "docker",
            RuntimeKind::Auto => "auto",
        };
        let api = format!("unix://{}", self.socket(member).display());
        let mut words: Vec<OsString> = vec!["up".into()];
        let mut option = |name: &str, value: OsString| {
            words.push(name.into());
            words.push(value);
        };
        option("--data-dir", self.data_dir(member).into());
        option("--name", member.name().into());
        option("--advertise", member.address().to_string().into());
        option("--port", ports.0.to_string().into());
        option("--dns", ports.dns(member).to_string().into());
        option("--api", api.into());
        option("--runtime", runtime.into());
        // Nobody comes after it, and nothing of it may be left.
        option("--hand-over", "0s".into());
        option("--profile", "local".into());
        if joins {
            option("--join", self.ticket().into());
        }
        words
    }
}

/// Ports that are free on the addresses of all members. Where the search starts differs between
/// demos, so that two at a time do not take turns failing.
pub(super) fn free_ports(nodes: u32, seed: u32) -> io::Result<Ports> {
    let count = u32::from((PORTS.end - PORTS.start) / TAKEN);
    let mut last = None;
    for step in 0..count {
        let index = (seed % count + step) % count;
        let offset = u16::try_from(index).unwrap_or(0) * TAKEN;
        let first = PORTS.start + offset;
        match (1..=nodes).try_for_each(|n| are_free(Member(n).address(), first)) {
            Ok(()) => return Ok(Ports(first)),
            // No other port helps against a missing address.
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(error),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
}

fn are_free(address: IpAddr, first: u16) -> io::Result<()> {
    for port in first..first + TAKEN {
        UdpSocket::bind((address, port))?;
        TcpListener::bind((address, port))?;
    }
    Ok(())
}

//! Where everything of a demo is, and how its daemons are called.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use dunlin_state::model::RuntimeKind;

/// Marks a directory as a demo's, so that nothing else is ever removed.
const MARKER: &str = "dunlin-demo";

/// Longest directory name with which a Unix socket in it still fits into the kernel's 108 bytes.
const MAX_DIRECTORY_BYTES: usize = 80;

/// Ports that are tried: below the range from which Linux gives ports to clients (32768), and from
/// which replicas get theirs.
const PORTS: std::ops::Range<u16> = 21_000..31_000;

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
        port: u16,
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
        option("--port", port.to_string().into());
        option("--api", api.into());
        option("--runtime", runtime.into());
        option("--profile", "local".into());
        if joins {
            option("--join", self.ticket().into());
        }
        words
    }
}

/// A port that, with the next one, is free on the addresses of all members. Where the search starts
/// differs between demos, so that two at a time do not take turns failing.
pub(super) fn free_port(nodes: u32, seed: u32) -> io::Result<u16> {
    let count = (PORTS.end - PORTS.start) / 2;
    let mut last = None;
    for step in 0..count {
        let index = (seed % u32::from(count) + u32::from(step)) % u32::from(count);
        let offset = u16::try_from(index * 2).unwrap_or(0);
        let port = PORTS.start + offset;
        match (1..=nodes).try_for_each(|n| is_free(Member(n).address(), port)) {
            Ok(()) => return Ok(port),
            // No other port helps against a missing address.
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(error),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
}

fn is_free(address: IpAddr, port: u16) -> io::Result<()> {
    for port in [port, port + 1] {
        UdpSocket::bind((address, port))?;
        TcpListener::bind((address, port))?;
    }
    Ok(())
}

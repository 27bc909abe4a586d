//! Who is asked about other names.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// The port of DNS.
const PORT: u16 = 53;

/// The stub of systemd-resolved, and where it says whom it asks itself.
const STUB: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), PORT);
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";

/// Most upstreams that are asked, as with the C library: more would make a failure take longer than
/// clients wait.
const MAX_UPSTREAMS: usize = 3;

/// The resolvers to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstreams {
    /// These, in this order.
    Fixed(Vec<SocketAddr>),
    /// Those that the host itself uses, read from the first of these files that names one which is
    /// not this server, and again when it changes.
    Files(Vec<PathBuf>),
}

impl Upstreams {
    /// What every system has, and where `dunlin dns install` puts what was there before.
    pub fn of_host() -> Self {
        let files = ["/etc/resolv.conf", "/etc/resolv.conf.before-dunlin"];
        Self::Files(files.map(PathBuf::from).to_vec())
    }

    /// The addresses, without those that would be this server itself.
    pub(super) fn read(&self, own: &[SocketAddr]) -> Vec<SocketAddr> {
        let others = |list: Vec<SocketAddr>| {
            let mut others: Vec<SocketAddr> = Vec::new();
            for address in list {
                if !is_own(address, own) && !others.contains(&address) {
                    others.push(address);
                }
            }
            others.truncate(MAX_UPSTREAMS);
            others
        };
        match self {
            Self::Fixed(list) => others(list.clone()),
            Self::Files(files) => files
                .iter()
                .filter_map(|file| std::fs::read_to_string(file).ok())
                .map(|text| others(behind_stub(name_servers(&text))))
                .find(|list| !list.is_empty())
                .unwrap_or_default(),
        }
    }
}

/// Those whom systemd-resolved asks, where its stub is all that the host names: the stub may have
/// been told to ask us.
fn behind_stub(servers: Vec<SocketAddr>) -> Vec<SocketAddr> {
    if servers != [STUB] {
        return servers;
    }
    let behind = std::fs::read_to_string(BEHIND_STUB).map(|text| name_servers(&text));
    behind
        .ok()
        .filter(|list| !list.is_empty())
        .unwrap_or(servers)
}

/// Whether asking there would be asking this server.
fn is_own(address: SocketAddr, own: &[SocketAddr]) -> bool {
    own.iter().any(|server| {
        let everywhere =
            server.ip().is_unspecified() && crate::server::is_of_this_host(address.ip());
        server.port() == address.port()
            && (everywhere || server.ip().to_canonical() == address.ip().to_canonical())
    })
}

/// The `nameserver` lines of a resolv.conf. Scoped addresses are left out: their scope is a name
/// of an interface.
fn name_servers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let ip: IpAddr = match words.next() {
                Some("nameserver") => words.next()?.parse().ok()?,
                _other => return None,
            };
            Some(SocketAddr::new(ip, PORT))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_resolv_conf_and_leaves_itself_out() {
        let text = "# nameserver 1.1.1.1\nsearch a b\nnameserver 127.0.0.53\n nameserver\t10.0.0.2 \n\
                    nameserver fe80::1%eth0\nnameserver ::1\nnameserver x\nnameserver 10.0.0.2\n";
        let list = name_servers(text);
        assert_eq!(list.len(), 4);
        let file = std::env::temp_dir().join(format!("dunlin-resolv-{}", std::process::id()));
        std::fs::write(&file, text).unwrap();
        let host = Upstreams::Files(vec![PathBuf::from("/no such file"), file.clone()]);
        let own = [
            "127.0.0.53:53".parse().unwrap(),
            "10.0.0.2:5300".parse().unwrap(),
        ];
        let expected: Vec<SocketAddr> =
            vec!["10.0.0.2:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        assert_eq!(host.read(&own), expected);
        let everywhere = ["0.0.0.0:53".parse().unwrap()];
        assert_eq!(host.read(&everywhere), ["10.0.0.2:53".parse().unwrap()]);
        std::fs::remove_file(file).unwrap();
        assert_eq!(host.read(&own), []);
    }
}

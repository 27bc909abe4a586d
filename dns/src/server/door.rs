//! Who is let in, and how often.
//!
//! An answer is larger than its question, and the source of a datagram can be forged, so a server
//! that answers anyone is a weapon. This one answers its own host and those whom the caller names,
//! and others than the host at a bounded rate.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tells whether a client other than this host may ask. Called once per client and some seconds, so
/// it may look something up but must not block.
pub type Allow = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// How long a verdict about a client holds: a member that joins, or a container's new network, is
/// served after this at the latest.
const VERDICT: Duration = Duration::from_secs(1);

/// Most clients whose verdicts and rates are remembered. All are forgotten when there are more,
/// which costs each a look-up.
const MAX_CLIENTS: usize = 4_096;

/// Queries per second that one other address may ask over UDP for long. A busy web server that
/// resolves for each request asks some hundreds.
const RATE: u32 = 5_000;

/// Queries that one other address may ask at once.
const BURST: u32 = 2 * RATE;

/// Refusals per second to all strangers together. They are no larger than the query, but somebody
/// else may have sent it.
const REFUSALS: u32 = 100;

/// What a client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Welcome {
    /// Answers.
    Served,
    /// A refusal, for whom it helps to know.
    Refused,
    /// Nothing.
    Ignored,
}

/// The door of one listener.
pub(super) struct Door {
    bound: IpAddr,
    allow: Option<Allow>,
    /// Whether an address is this host's.
    is_own: fn(IpAddr) -> bool,
    clients: HashMap<IpAddr, Client>,
    strangers: Bucket,
}

#[derive(Debug, Clone, Copy)]
struct Client {
    standing: Standing,
    judged: Instant,
    bucket: Bucket,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// This host.
    Own,
    /// Let in by the caller.
    Known,
    Stranger,
}

impl Door {
    pub(super) fn new(bound: IpAddr, allow: Option<Allow>) -> Self {
        Self {
            bound: bound.to_canonical(),
            allow,
            is_own: is_of_this_host,
            clients: HashMap::new(),
            strangers: Bucket::full(REFUSALS, None),
        }
    }

    /// What a packet from this client gets now.
    pub(super) fn meet(&mut self, client: SocketAddr, now: Instant) -> Welcome {
        // No answer to port 0: the system would reject it.
        if client.port() == 0 {
            return Welcome::Ignored;
        }
        let ip = client.ip().to_canonical();
        if ip.is_loopback() || ip == self.bound {
            return Welcome::Served;
        }
        let client = self.client(ip, now);
        let served = match client.standing {
            Standing::Own => true,
            Standing::Known => client.bucket.take(RATE, BURST, now),
            Standing::Stranger => {
                return match self.strangers.take(REFUSALS, REFUSALS, now) {
                    true => Welcome::Refused,
                    false => Welcome::Ignored,
                };
            }
        };
        match served {
            true => Welcome::Served,
            false => Welcome::Ignored,
        }
    }

    fn client(&mut self, ip: IpAddr, now: Instant) -> &mut Client {
        let full = self.clients.len() >= MAX_CLIENTS && !self.clients.contains_key(&ip);
        if full {
            self.clients.clear();
        }
        let (allow, is_own) = (self.allow.as_ref(), self.is_own);
        let judge = || match () {
            () if is_own(ip) => Standing::Own,
            () if allow.is_some_and(|allow| allow(ip)) => Standing::Known,
            () => Standing::Stranger,
        };
        let client = self.clients.entry(ip).or_insert_with(|| Client {
            standing: judge(),
            judged: now,
            bucket: Bucket::full(BURST, Some(now)),
        });
        if now.saturating_duration_since(client.judged) >= VERDICT {
            client.standing = judge();
            client.judged = now;
        }
        client
    }
}

/// Whether an address is one of this host's, also in a range that a route has made local. Connecting
/// a UDP socket sends nothing; it asks the kernel which source it would use, and for an address of
/// its own that is the address itself.
pub(crate) fn is_of_this_host(address: IpAddr) -> bool {
    if address.is_loopback() {
        return true;
    }
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let ask = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((address, 9))?;
        Ok(socket.local_addr()?.ip())
    };
    ask().is_ok_and(|source| source == address)
}

/// A bucket of permits that fills with time.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    permits: u32,
    filled: Option<Instant>,
}

impl Bucket {
    fn full(permits: u32, filled: Option<Instant>) -> Self {
        Self { permits, filled }
    }

    fn take(&mut self, rate: u32, most: u32, now: Instant) -> bool {
        let since = *self.filled.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since).as_micros();
        let new = elapsed.saturating_mul(rate.into()) / 1_000_000;
        if new > 0 {
            let new = u32::try_from(new).unwrap_or(u32::MAX);
            self.permits = self.permits.saturating_add(new).min(most);
            self.filled = Some(now);
        }
        match self.permits.checked_sub(1) {
            Some(left) => {
                self.permits = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A door of a host with one more address.
    fn door(bound: IpAddr, allow: Option<Allow>) -> Door {
        Door {
            is_own: |ip| ip == IpAddr::from([203, 0, 113, 9]),
            ..Door::new(bound, allow)
        }
    }

    #[test]
    fn lets_in_this_host_and_whom_the_caller_names() {
        let member: Allow = Arc::new(|ip| ip == IpAddr::from([198, 51, 100, 7]));
        use Welcome::{Ignored, Refused, Served};
        let cases = [
            ("127.0.0.1:9", Served, Served),
            ("127.8.9.1:9", Served, Served),
            ("[::1]:9", Served, Served),
            ("[::ffff:127.0.0.1]:9", Served, Served),
            ("192.0.2.1:9", Served, Served),
            ("192.0.2.2:9", Refused, Refused),
            ("198.51.100.7:9", Refused, Served),
            ("203.0.113.9:9", Served, Served),
            ("127.0.0.1:0", Ignored, Ignored),
        ];
        let now = Instant::now();
        for (client, alone, with_member) in cases {
            let client = client.parse().unwrap();
            let bound = "192.0.2.1".parse().unwrap();
            assert_eq!(door(bound, None).meet(client, now), alone, "{client}");
            let mut door = door(bound, Some(member.clone()));
            assert_eq!(door.meet(client, now), with_member, "{client}");
        }
    }

    #[test]
    fn this_host_knows_its_addresses() {
        assert!(is_of_this_host([127, 3, 2, 1].into()));
        assert!(is_of_this_host(Ipv6Addr::LOCALHOST.into()));
        assert!(!is_of_this_host([224, 0, 0, 1].into()));
        // Where there is a default route, the address that it uses is one of this host's.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        if socket.connect("198.51.100.7:9").is_ok() {
            assert!(is_of_this_host(socket.local_addr().unwrap().ip()));
        }
    }

    #[test]
    fn a_flood_is_cut_to_its_rate_and_this_host_is_not() {
        let mut door = door([127, 0, 0, 1].into(), Some(Arc::new(|_anyone| true)));
        let now = Instant::now();
        let served = |door: &mut Door, client: &str, at| {
            let client = client.parse().unwrap();
            let packets = 0..3 * BURST;
            packets
                .filter(|_| door.meet(client, at) == Welcome::Served)
                .count()
        };
        assert_eq!(served(&mut door, "198.51.100.7:9", now), BURST as usize);
        let later = now + Duration::from_secs(1);
        assert_eq!(served(&mut door, "198.51.100.7:9", later), RATE as usize);
        assert_eq!(served(&mut door, "198.51.100.8:9", later), BURST as usize);
        assert_eq!(served(&mut door, "127.0.0.9:9", now), 3 * BURST as usize);
    }

    #[test]
    fn strangers_hear_few_refusals_and_a_verdict_does_not_last() {
        let open = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let asked = open.clone();
        let allow: Allow = Arc::new(move |_| asked.load(std::sync::atomic::Ordering::Relaxed));
        let mut door = door([127, 0, 0, 1].into(), Some(allow));
        let now = Instant::now();
        let mut refused = 0;
        for host in 0..5_000_u32 {
            let client = SocketAddr::from((Ipv4Addr::from(0xc633_6400 + host), 9));
            refused += u32::from(door.meet(client, now) == Welcome::Refused);
            assert!(door.clients.len() <= MAX_CLIENTS);
        }
        assert_eq!(refused, REFUSALS);
        let client = "198.51.100.7:9".parse().unwrap();
        assert_ne!(door.meet(client, now), Welcome::Served);
        open.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(door.meet(client, now + VERDICT), Welcome::Served);
    }
}

//! The PROXY protocol: tells a replica whose connection it gets.
//!
//! Written by the specification of haproxy (`doc/proxy-protocol.txt`, sections 2.1 and 2.2). Only
//! the header is sent; nothing is ever believed that a client says of itself.

use std::net::{IpAddr, SocketAddr};

use dunlin_state::model::ProxyProtocol;

const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, command PROXY.
const V2_PROXY: u8 = 0x21;

const V2_TCP4: u8 = 0x11;
const V2_TCP6: u8 = 0x21;

/// The header for a TCP connection of `client` to `server`.
pub(super) fn header(version: ProxyProtocol, client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let (source, target) = same_family(client.ip(), server.ip());
    match version {
        ProxyProtocol::V1 => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (client.port(), server.port());
            format!("PROXY {family} {source} {target} {from} {to}\r\n").into_bytes()
        }
        ProxyProtocol::V2 => {
            let mut out = V2_SIGNATURE.to_vec();
            let (family, length) = match source {
                IpAddr::V4(_) => (V2_TCP4, 12_u16),
                IpAddr::V6(_) => (V2_TCP6, 36),
            };
            out.extend_from_slice(&[V2_PROXY, family]);
            out.extend_from_slice(&length.to_be_bytes());
            for address in [source, target] {
                match address {
                    IpAddr::V4(a) => out.extend_from_slice(&a.octets()),
                    IpAddr::V6(a) => out.extend_from_slice(&a.octets()),
                }
            }
            out.extend_from_slice(&client.port().to_be_bytes());
            out.extend_from_slice(&server.port().to_be_bytes());
            out
        }
    }
}

/// Both addresses in the same family, as the header wants it.
fn same_family(a: IpAddr, b: IpAddr) -> (IpAddr, IpAddr) {
    let (a, b) = (a.to_canonical(), b.to_canonical());
    let mapped = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
        IpAddr::V6(_) => ip,
    };
    match a.is_ipv4() == b.is_ipv4() {
        true => (a, b),
        false => (mapped(a), mapped(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_specified() {
        let client: SocketAddr = "192.0.2.7:5000".parse().unwrap();
        let server: SocketAddr = "10.93.0.20:80".parse().unwrap();
        assert_eq!(
            header(ProxyProtocol::V1, client, server),
            b"PROXY TCP4 192.0.2.7 10.93.0.20 5000 80\r\n"
        );
        let v6: SocketAddr = "[fd00::1]:443".parse().unwrap();
        assert_eq!(
            header(ProxyProtocol::V1, client, v6),
            b"PROXY TCP6 ::ffff:192.0.2.7 fd00::1 5000 443\r\n"
        );
        let mapped: SocketAddr = "[::ffff:192.0.2.7]:5000".parse().unwrap();
        let binary = header(ProxyProtocol::V2, mapped, server);
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        expected.extend_from_slice(&[192, 0, 2, 7, 10, 93, 0, 20, 0x13, 0x88, 0, 80]);
        assert_eq!(binary, expected);
        assert_eq!(header(ProxyProtocol::V2, v6, v6).len(), 16 + 36);
    }
}

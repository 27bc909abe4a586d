//! Addresses in reverse names (RFC 1035, 3.5 and RFC 3596, 2.5), read from their wire form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::WireName;

const V4: &[u8] = b"\x07in-addr\x04arpa";
const V6: &[u8] = b"\x03ip6\x04arpa";

/// The address that a reverse name stands for; none for other names, and for those of networks.
pub(crate) fn address(name: &WireName) -> Option<IpAddr> {
    match name.labels() {
        6 if name.from_label(4) == V4 => {
            let mut octets = [0; 4];
            for (index, octet) in octets.iter_mut().rev().enumerate() {
                *octet = decimal(label(name, index)?)?;
            }
            Some(Ipv4Addr::from(octets).into())
        }
        34 if name.from_label(32) == V6 => {
            let mut bits: u128 = 0;
            for index in (0..32).rev() {
                let [digit] = label(name, index)? else {
                    return None;
                };
                let digit = char::from(*digit).to_digit(16)?;
                bits = (bits << 4) | u128::from(digit);
            }
            Some(Ipv6Addr::from(bits).into())
        }
        _other => None,
    }
}

fn label(name: &WireName, index: usize) -> Option<&[u8]> {
    let (length, rest) = name.from_label(index).split_first()?;
    rest.get(..usize::from(*length))
}

/// A decimal number without leading zeros, as every address is written in one way only.
fn decimal(text: &[u8]) -> Option<u8> {
    if text.is_empty() || text.len() > 3 || (text.len() > 1 && text.first() == Some(&b'0')) {
        return None;
    }
    text.iter().try_fold(0_u8, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|d| *d < 10)?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

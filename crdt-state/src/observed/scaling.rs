//! The parts of a register that are kept by service: loads and scales.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::check::BadRegister;
use super::register::{Part, Refused, decode, encode, unreadable};
use crate::model::{NodeReport, ServiceKey};

/// The first byte of the key of a load's part; its service follows.
pub(super) const LOAD: u8 = b'l';

/// The first byte of the key of a scale's part; its service follows.
pub(super) const SCALE: u8 = b's';

/// Writes the parts in which `new` differs from `old`.
pub(super) fn write(
    parts: &mut BTreeMap<Bytes, Part>,
    seq: u64,
    old: &NodeReport,
    new: &NodeReport,
) -> Result<(), BadRegister> {
    write_one(parts, seq, LOAD, &old.loads, &new.loads)?;
    write_one(parts, seq, SCALE, &old.scales, &new.scales)
}

fn write_one<V: Serialize + PartialEq>(
    parts: &mut BTreeMap<Bytes, Part>,
    seq: u64,
    kind: u8,
    old: &BTreeMap<ServiceKey, V>,
    new: &BTreeMap<ServiceKey, V>,
) -> Result<(), BadRegister> {
    for service in old.keys().filter(|service| !new.contains_key(service)) {
        parts.insert(key_of(kind, service), Part::new(seq, Bytes::new()));
    }
    for (service, value) in new {
        if old.get(service) != Some(value) {
            parts.insert(key_of(kind, service), Part::new(seq, encode(value)?));
        }
    }
    Ok(())
}

/// Takes in one part; an empty one was removed.
pub(super) fn read_one<V: DeserializeOwned>(
    values: &mut BTreeMap<ServiceKey, V>,
    key: &[u8],
    body: &[u8],
) -> Result<(), Refused> {
    let service = service_of(key).ok_or_else(|| unreadable(key, "it names no service"))?;
    if body.is_empty() {
        values.remove(&service);
    } else {
        values.insert(service, decode(key, body)?);
    }
    Ok(())
}

fn key_of(kind: u8, service: &ServiceKey) -> Bytes {
    let mut key = vec![kind];
    key.extend(service.to_string().into_bytes());
    Bytes::from(key)
}

/// The service that a key names. One service has one key: no capitals, no default namespace left
/// out.
fn service_of(key: &[u8]) -> Option<ServiceKey> {
    let (kind, name) = key.split_first()?;
    let service: ServiceKey = std::str::from_utf8(name).ok()?.parse().ok()?;
    (*key_of(*kind, &service) == *key).then_some(service)
}

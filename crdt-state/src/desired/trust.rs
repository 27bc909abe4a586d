//! The part of desired state that says who belongs: tickets, who used them, who was removed, and
//! the keyrings that followed.
//!
//! Removals and keyrings are only ever added. Tickets of a member that was removed are void.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dunlin_trust::{KeyringOrder, PublicKey};
use serde::{Deserialize, Serialize};

use super::engine::Engine;
use super::keys::{Key, TrustKey};
use super::register::{Register, newest};
use super::rules::{Voids, author};

/// Boxes in one register: 200 take 33 KB of its 64.
pub(super) const MAX_BOXES: usize = 200;

/// Before the role of a person in the record of a ticket's use: a person is no member.
pub const PERSON: &str = "person:";

/// A change of who belongs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustCommand {
    /// Make a ticket known.
    Invite {
        /// Public half of its key, as text.
        invite: String,
        /// The role that it stands for, as text.
        role: String,
        /// Until when it can be used, in seconds since the Unix epoch.
        not_after: u64,
        /// How often; 0 is any number of times.
        uses: u32,
    },
    /// Record that a node was let in by a ticket.
    Use {
        /// The ticket.
        invite: String,
        /// The node's key.
        node: String,
        /// What it became.
        role: String,
    },
    /// Remove a key from the cluster.
    Revoke {
        /// The key.
        key: String,
        /// In the words of who removes it.
        reason: String,
    },
    /// Put a new keyring in the place of the last.
    Keyring {
        /// Its place among keyrings.
        epoch: u64,
        /// Public half of its admission key.
        admission: String,
        /// The whole keyring, sealed to each member's key; base64.
        boxes: BTreeMap<String, String>,
        /// The removed keys that its maker knew of: none of them has it.
        without: BTreeSet<String>,
    },
}

/// A ticket as desired state knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteRecord {
    /// The role that it stands for, as text.
    pub role: String,
    /// Until when it can be used, in seconds since the Unix epoch.
    pub not_after: u64,
    /// How often; 0 is any number of times.
    pub uses: u32,
}

/// A removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Who ordered it.
    pub by: Option<PublicKey>,
    /// Milliseconds since the Unix epoch, by that one's clock.
    pub at: u64,
    /// In that one's words.
    pub reason: String,
    /// The signed order.
    pub order: Bytes,
}

/// Who belongs, as far as desired state says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustRecords {
    /// Removed keys.
    pub revoked: BTreeMap<PublicKey, Revocation>,
    /// Tickets.
    pub invites: BTreeMap<PublicKey, InviteRecord>,
    /// Who was let in by which, hosts and people.
    pub uses: BTreeMap<PublicKey, BTreeSet<PublicKey>>,
    /// The hosts among them.
    pub hosts: BTreeSet<PublicKey>,
    /// Keyrings.
    pub keyrings: BTreeMap<KeyringOrder, KeyringRecord>,
}

/// A keyring as desired state knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyringRecord {
    /// The keyring sealed to each member.
    pub boxes: BTreeMap<PublicKey, Vec<u8>>,
    /// Removed keys that its maker knew of.
    pub without: BTreeSet<PublicKey>,
}

impl TrustRecords {
    /// The newest keyring.
    pub fn newest_keyring(&self) -> Option<(&KeyringOrder, &KeyringRecord)> {
        self.keyrings.last_key_value()
    }

    /// Whether somebody who was removed may have the newest keyring: its maker did not know of the
    /// removal.
    pub fn is_compromised(&self) -> bool {
        let newest = self.newest_keyring();
        newest.is_some_and(|(_, keyring)| {
            let mut removed = self.revoked.keys();
            removed.any(|key| !keyring.without.contains(key))
        })
    }

    /// Everybody on record as a member: who has a box of the newest keyring, and whoever was let
    /// in, without those who were removed.
    pub fn members(&self) -> BTreeSet<PublicKey> {
        let boxed = self
            .newest_keyring()
            .into_iter()
            .flat_map(|(_, k)| k.boxes.keys());
        let all = boxed.chain(&self.hosts).copied();
        all.filter(|key| !self.revoked.contains_key(key)).collect()
    }

    /// Reads all records of a document. What cannot be understood is passed over.
    pub(super) fn read(engine: &Engine, voids: &Voids) -> Self {
        let mut records = Self::default();
        for text in engine.keys() {
            let Some(Key::Trust(key)) = Key::parse(&text) else {
                continue;
            };
            let values = match key {
                TrustKey::Revoked(_) => engine.values(&text),
                TrustKey::Invite(..) | TrustKey::Use(..) | TrustKey::Keyring(..) => {
                    voids.sift(engine.values(&text))
                }
            };
            if let Some((bytes, Ok(register))) = newest(values) {
                records.add(key, &bytes, &register, voids);
            }
        }
        records
    }

    fn add(&mut self, key: TrustKey, bytes: &Bytes, register: &Register, voids: &Voids) {
        let number = |name: &str| register.value.get(name).and_then(|v| v.as_u64());
        let text = |name: &str| register.value.get(name).and_then(|v| v.as_str());
        match key {
            TrustKey::Revoked(key) => {
                let revocation = Revocation {
                    by: author(bytes).map(|(key, _)| key),
                    at: register.time,
                    reason: text("reason").unwrap_or_default().to_owned(),
                    order: bytes.clone(),
                };
                self.revoked.insert(key, revocation);
            }
            TrustKey::Invite(role, invite) => {
                if voids.touch(bytes) {
                    return;
                }
                let record = InviteRecord {
                    role,
                    not_after: number("not_after").unwrap_or(0),
                    // A number that is not understood must not open the door to everybody.
                    uses: number("uses").map_or(1, |n| u32::try_from(n).unwrap_or(1)),
                };
                self.invites.insert(invite, record);
            }
            TrustKey::Use(invite, node) => {
                self.uses.entry(invite).or_default().insert(node);
                if text("role").is_some_and(|role| !role.starts_with(PERSON)) {
                    self.hosts.insert(node);
                }
            }
            TrustKey::Keyring(order, _) => {
                let held = self.keyrings.entry(order).or_default();
                let without = register.value.get("without").and_then(|v| v.as_array());
                let without = without.into_iter().flatten();
                let keys = without.filter_map(|key| key.as_str()?.parse::<PublicKey>().ok());
                held.without.extend(keys);
                let boxes = register.value.get("boxes").and_then(|v| v.as_object());
                for (member, sealed) in boxes.into_iter().flatten() {
                    let sealed = sealed.as_str().unwrap_or_default().as_bytes();
                    let sealed = data_encoding::BASE64.decode(sealed);
                    if let (Ok(member), Ok(sealed)) = (member.parse(), sealed) {
                        held.boxes.insert(member, sealed);
                    }
                }
            }
        }
    }
}

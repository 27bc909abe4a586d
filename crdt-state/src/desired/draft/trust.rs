//! Commands about who belongs.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_trust::{KeyringOrder, PublicKey, Role};

use super::Draft;
use crate::desired::document::cut;
use crate::desired::keys::{Key, TrustKey};
use crate::desired::rejection::Rejection;
use crate::desired::trust::{MAX_BOXES, TrustCommand};

/// Bytes of the reason for a removal.
const MAX_REASON_BYTES: usize = 300;

impl Draft {
    pub(super) fn trust(&mut self, command: &TrustCommand) -> Result<(), Rejection> {
        let records = &self.desired.trust;
        let (key, value) = match command {
            TrustCommand::Invite {
                invite,
                role,
                not_after,
                uses,
            } => {
                let role: Role = role.parse().map_err(|_bad| bad_trust(role))?;
                let key = TrustKey::Invite(role.to_string(), parse_key(invite)?);
                (
                    key,
                    serde_json::json!({"not_after": not_after, "uses": uses}),
                )
            }
            TrustCommand::Use { invite, node, role } => {
                let (invite, node) = (parse_key(invite)?, parse_key(node)?);
                if records.uses.get(&invite).is_some_and(|u| u.contains(&node)) {
                    return Ok(());
                }
                (
                    TrustKey::Use(invite, node),
                    serde_json::json!({"role": role}),
                )
            }
            TrustCommand::Revoke { key, reason } => {
                let key = parse_key(key)?;
                if records.revoked.contains_key(&key) {
                    return Ok(());
                }
                // The counter is filled in where it is known.
                let value =
                    serde_json::json!({"counter": 0, "reason": cut(reason, MAX_REASON_BYTES)});
                (TrustKey::Revoked(key), value)
            }
            TrustCommand::Keyring {
                epoch,
                admission,
                boxes,
                without,
            } => {
                let order = KeyringOrder {
                    epoch: *epoch,
                    admission: parse_key(admission)?,
                };
                return self.keyring(order, boxes, without);
            }
        };
        self.writes.insert(Key::Trust(key), value);
        Ok(())
    }

    fn keyring(
        &mut self,
        order: KeyringOrder,
        boxes: &BTreeMap<String, String>,
        without: &BTreeSet<String>,
    ) -> Result<(), Rejection> {
        let all: Vec<_> = boxes.iter().collect();
        for (part, boxes) in all.chunks(MAX_BOXES).enumerate() {
            let part = u16::try_from(part).map_err(|_many| bad_trust("keyring"))?;
            let boxes: BTreeMap<_, _> = boxes.iter().copied().collect();
            let mut value = serde_json::json!({ "boxes": boxes });
            if part == 0 {
                value["without"] = serde_json::json!(without);
            }
            let key = Key::Trust(TrustKey::Keyring(order, part));
            self.writes.insert(key, value);
        }
        Ok(())
    }
}

fn bad_trust(text: &str) -> Rejection {
    Rejection::BadTrust(text.chars().take(100).collect())
}

fn parse_key(text: &str) -> Result<PublicKey, Rejection> {
    text.parse().map_err(|_malformed| bad_trust(text))
}

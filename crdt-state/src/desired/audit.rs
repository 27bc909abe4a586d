//! Who changed what, with which key.

use dunlin_trust::PublicKey;

use super::document::Document;
use super::keys::Key;
use super::register::Register;
use super::rules::{Voids, author};

/// One signed change that is still kept: the newest of each register, and the versions before it
/// up to [`super::MAX_REVISIONS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Milliseconds since the Unix epoch, by the clock of the node that took it.
    pub time: u64,
    /// What was written.
    pub key: String,
    /// Whether it was removed by this.
    pub removed: bool,
    /// The person or program, as the node that took it knew it.
    pub author: String,
    /// The key that signed it.
    pub signer: Option<PublicKey>,
    /// What that key may do.
    pub role: Option<String>,
    /// Whether it counts for nothing, because its signer had been removed.
    pub void: bool,
}

impl Document {
    /// Everything that is kept of who changed what, newest first.
    pub fn audit(&self) -> Vec<AuditRecord> {
        let voids = Voids::read(&self.engine);
        let mut records = Vec::new();
        for text in self.engine.keys() {
            // Versioned registers are told by their versions, all others by themselves.
            let key = match Key::parse(&text) {
                Some(
                    Key::Service(..)
                    | Key::Node(..)
                    | Key::Item(..)
                    | Key::Quota(_)
                    | Key::Rebalancing,
                ) => continue,
                Some(key) => key.current().to_string(),
                None => text.clone(),
            };
            for value in self.engine.values(&text) {
                let Ok(register) = Register::decode(&value) else {
                    continue;
                };
                let signed = author(&value);
                records.push(AuditRecord {
                    time: register.time,
                    key: key.clone(),
                    removed: register.is_tombstone(),
                    void: voids.covers(&value) && !key.starts_with("trust/revoked/"),
                    author: register.author,
                    role: signed.as_ref().map(|(_, role)| role.clone()),
                    signer: signed.map(|(key, _)| key),
                });
            }
        }
        records.sort_by(|a, b| (b.time, &a.key).cmp(&(a.time, &b.key)));
        records
    }
}

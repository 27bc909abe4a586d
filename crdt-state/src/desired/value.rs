//! What a register may hold: typed, and checked wherever it comes from.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::register::{Register, Stamp};
use super::snapshot::{Previous, Rollout, Service};
use super::validate::{MAX_REGISTER_BYTES, MAX_REPLICAS, check_image, check_labels, check_spec};
use crate::model::{Availability, ServiceSpec, VipIndex};

/// A register whose value has been read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell<T> {
    /// Orders it.
    pub(super) stamp: Stamp,
    /// Milliseconds since the Unix epoch, by the clock of the node that took it.
    pub(super) time: u64,
    /// The value; `None` in a tombstone.
    pub(super) value: Option<T>,
}

impl<T: Value> Cell<T> {
    /// Reads and checks a register's value. The error says why it cannot be used.
    pub(super) fn read(bytes: &[u8], register: Register) -> Result<Self, String> {
        if bytes.len() > MAX_REGISTER_BYTES {
            return Err(format!("it takes {} bytes", bytes.len()));
        }
        let value = if register.is_tombstone() {
            None
        } else {
            Some(T::read(register.value)?)
        };
        Ok(Self {
            stamp: register.stamp,
            time: register.time,
            value,
        })
    }
}

/// A kind of value that a register may hold.
pub(super) trait Value: Sized {
    /// Reads and checks it. The error says why it cannot be used.
    fn read(json: serde_json::Value) -> Result<Self, String>;
}

/// A specification, with the hash of what was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SpecValue {
    /// As deployed, with the image of that time.
    pub(super) spec: Arc<ServiceSpec>,
    /// Hash of the stored text without the image and what is no concern of a running replica. Hashing the stored text, and not what this
    /// version understands of it, gives the same revision on daemons of different versions.
    digest: [u8; 32],
}

/// Hexadecimal digits of a revision: 64 bits, so that no two versions of one service collide.
const REVISION_BYTES: usize = 8;

impl SpecValue {
    /// The service with this specification; `image` is that of the image register.
    pub(super) fn service(&self, image: Option<&str>, replicas: u32, running: bool) -> Service {
        let spec = match image {
            Some(image) if image != self.spec.image => {
                let mut spec = ServiceSpec::clone(&self.spec);
                image.clone_into(&mut spec.image);
                Arc::new(spec)
            }
            Some(_) | None => Arc::clone(&self.spec),
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.digest);
        hasher.update(spec.image.as_bytes());
        let hash = hasher.finalize();
        Service {
            revision: data_encoding::HEXLOWER.encode(&hash.as_bytes()[..REVISION_BYTES]),
            spec,
            replicas,
            running,
            rollout: Arc::default(),
            jobs: Arc::default(),
        }
    }
}

impl SpecValue {
    /// The same as what a rollout replaces.
    fn previous(&self) -> Previous {
        let service = self.service(None, 1, true);
        Previous {
            revision: service.revision,
            spec: service.spec,
        }
    }
}

impl Value for SpecValue {
    fn read(mut json: serde_json::Value) -> Result<Self, String> {
        let spec: ServiceSpec =
            serde_json::from_value(json.clone()).map_err(|e| format!("it cannot be read: {e}"))?;
        check_spec(&spec).map_err(|fault| fault.to_string())?;
        if let Some(fields) = json.as_object_mut() {
            fields.remove("image");
            fields.remove("traffic");
            fields.remove("depends_on");
            fields.remove("hooks");
            fields.remove("policy");
            fields.remove("autoscale");
        }
        // Objects of serde_json are ordered by key, so this text is canonical.
        let digest = *blake3::hash(json.to_string().as_bytes()).as_bytes();
        Ok(Self {
            spec: Arc::new(spec),
            digest,
        })
    }
}

/// The rollout of one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RolloutValue {
    /// Which revision it is about.
    pub(super) revision: String,
    /// What is said of it.
    pub(super) rollout: Arc<Rollout>,
}

/// [`RolloutValue`] as it is stored.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct StoredRollout {
    pub(super) revision: String,
    /// The specification that is replaced, with its image, in the form of specifications.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub(super) previous: serde_json::Value,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) canary: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) rollback: bool,
    pub(super) round: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

impl Value for RolloutValue {
    fn read(json: serde_json::Value) -> Result<Self, String> {
        let stored: StoredRollout =
            serde_json::from_value(json).map_err(|e| format!("it cannot be read: {e}"))?;
        let previous = match stored.previous {
            serde_json::Value::Null => None,
            json => Some(SpecValue::read(json)?.previous()),
        };
        Ok(Self {
            revision: stored.revision,
            rollout: Arc::new(Rollout {
                previous,
                paused: stored.paused,
                canary: stored.canary,
                is_rollback: stored.rollback,
                round: stored.round,
                reason: stored.reason.map(|r| r.chars().take(MAX_REASON).collect()),
            }),
        })
    }
}

/// Characters of the reason of a rollout.
const MAX_REASON: usize = 300;

/// An image reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageValue(pub(super) String);

impl Value for ImageValue {
    fn read(json: serde_json::Value) -> Result<Self, String> {
        let image: String =
            serde_json::from_value(json).map_err(|e| format!("it cannot be read: {e}"))?;
        check_image(&image).map_err(|fault| fault.to_string())?;
        Ok(Self(image))
    }
}

/// A number of replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ScaleValue(pub(super) u32);

impl Value for ScaleValue {
    fn read(json: serde_json::Value) -> Result<Self, String> {
        let replicas: u32 =
            serde_json::from_value(json).map_err(|e| format!("it cannot be read: {e}"))?;
        if replicas > MAX_REPLICAS {
            return Err(format!("{replicas} replicas are more than {MAX_REPLICAS}"));
        }
        Ok(Self(replicas))
    }
}

impl Value for bool {
    fn read(json: serde_json::Value) -> Result<Self, String> {
        serde_json::from_value(json).map_err(|e| format!("it cannot be read: {e}"))
    }
}

impl Value for VipIndex {
    fn read(json: serde_json::Value) -> Result<Self, String> {
        serde_json::from_value(json).map_err(|e| format!("it cannot be read: {e}"))
    }
}

impl Value for Availability {
    fn read(json: serde_json::Value) -> Result<Self, String> {
        serde_json::from_value(json).map_err(|e| format!("it cannot be read: {e}"))
    }
}

impl Value for BTreeMap<String, String> {
    fn read(json: serde_json::Value) -> Result<Self, String> {
        let labels: Self =
            serde_json::from_value(json).map_err(|e| format!("it cannot be read: {e}"))?;
        check_labels(labels.iter()).map_err(|fault| fault.to_string())?;
        Ok(labels)
    }
}

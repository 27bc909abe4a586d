//! A register in a message.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_state::model::{NodeId, Version};
use dunlin_state::observed::{BadEnvelope, Envelope, Refused, Register, Seal};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A register on its way to a peer.
///
/// On the wire it is the bytes of an [`Envelope`]. Within one process, as in the simulator, the
/// register itself may travel instead of its changed parts: applying these to what they build on
/// gives the same register, so the receiver takes it under the same conditions.
#[derive(Clone)]
pub struct Pushed(Form);

#[derive(Clone)]
enum Form {
    /// Encoded.
    Wire(Bytes),
    /// Not encoded yet.
    Whole {
        register: Arc<Register>,
        /// The receiver is believed to know what was before this seq.
        base: Option<u64>,
    },
}

impl Pushed {
    /// What somebody needs who knows this version, if any.
    pub fn to(register: &Arc<Register>, known: Option<Version>) -> Self {
        Self(Form::Whole {
            base: register.base_for(known),
            register: Arc::clone(register),
        })
    }

    /// An encoded envelope.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(Form::Wire(bytes))
    }

    /// As it travels.
    pub fn to_bytes(&self) -> Bytes {
        match &self.0 {
            Form::Wire(bytes) => bytes.clone(),
            Form::Whole { register, base } => register.encode(*base),
        }
    }

    /// Bytes on the wire, a little on the high side.
    pub fn size(&self) -> usize {
        match &self.0 {
            Form::Wire(bytes) => bytes.len(),
            Form::Whole { register, base } => register.size(*base),
        }
    }

    /// Whose it is, and its age.
    pub(super) fn head(&self) -> Result<(NodeId, Version), BadEnvelope> {
        match &self.0 {
            Form::Wire(bytes) => {
                let (header, _) = Envelope::peek(bytes)?;
                Ok((header.node, header.version))
            }
            Form::Whole { register, .. } => Ok((register.node(), register.version())),
        }
    }

    /// Opens it on top of what is known.
    pub(super) fn open(
        &self,
        known: Option<&Register>,
        seal: &dyn Seal,
    ) -> Result<Arc<Register>, Refused> {
        match &self.0 {
            Form::Wire(bytes) => {
                let envelope = Envelope::decode(bytes)?;
                Register::open(envelope, known, seal).map(Arc::new)
            }
            Form::Whole { register, base } => {
                let fits = |base| known.is_some_and(|k| k.can_take(register.version(), base));
                if !base.is_none_or(fits) {
                    return Err(Refused::NeedsBase);
                }
                if !register.is_genuine(seal) {
                    return Err(Refused::Forged);
                }
                Ok(Arc::clone(register))
            }
        }
    }
}

impl PartialEq for Pushed {
    fn eq(&self, other: &Self) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

impl Eq for Pushed {}

impl fmt::Debug for Pushed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.head() {
            Ok((node, version)) => write!(f, "Pushed({}, {version:?})", node.short()),
            Err(bad) => write!(f, "Pushed({bad})"),
        }
    }
}

impl Serialize for Pushed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_bytes().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Pushed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Bytes::deserialize(deserializer).map(Self::from_bytes)
    }
}

//! Who is believed, and in whose name this node writes.
//!
//! Every register travels as a [`Signed`] statement about its key: the author's certificates, the
//! signature, and then the register's JSON. It is checked wherever it comes from, a push, a step of
//! anti-entropy, a whole document or the disk, before automerge sees it. Whether a change is taken
//! is a function of the change alone: signature, chain, right, and the time that the register
//! itself bears. So all honest nodes come to the same verdict, and no change that one of them takes
//! can build on one that another refuses. What depends on what else a node knows, the removal of an
//! author, is applied when registers are read ([`Voids`]).
//!
//! A rebase moves statements as they are: any node can do it, without the authors.
//!
//! A member can send again what somebody else once signed. Therefore every version of a register is
//! also kept under a key that contains its stamp, nothing is ever deleted by a change, and the
//! newest of all versions counts, not the one that was written last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use dunlin_trust::{
    Chain, ClusterId, Credential, PublicKey, Seconds, Signed, Verified, rights, sign_all,
};

use super::engine::{Engine, Incoming};
use super::keys::{FORMAT_KEY, Key, TrustKey};
use super::register::Register;
use super::rejection::Rejection;

/// Chains whose verification is remembered; more than a cluster has operators.
const MAX_CHAINS: usize = 256;
/// Signatures that are remembered as verified: the registers of a change share one, and come again
/// with the next step of anti-entropy.
const MAX_SIGNATURES: usize = 256;

/// Whom a document believes, and how it signs. See the [module](self).
#[derive(Debug, Clone, Default)]
pub struct Rules {
    root: Option<PublicKey>,
    /// In the order in which they are tried.
    credentials: Arc<Vec<Credential>>,
    chains: BTreeMap<[u8; 32], Verified>,
    signatures: BTreeSet<[u8; 32]>,
}

impl Rules {
    /// Believes whom the root key vouches for; nobody while it is not known. Writes with the first
    /// of the credentials that may write a key.
    pub fn new(root: Option<PublicKey>, credentials: Vec<Credential>) -> Self {
        Self {
            root,
            credentials: Arc::new(credentials),
            ..Self::default()
        }
    }

    /// The cluster's root key, when it is known.
    pub fn root(&self) -> Option<PublicKey> {
        self.root
    }

    /// The credentials that this node writes with.
    pub fn credentials(&self) -> &[Credential] {
        &self.credentials
    }

    /// Whether anybody can be believed yet.
    pub(super) fn is_ready(&self) -> bool {
        self.root.is_some()
    }

    /// The credential that may write a register. What would count for nothing is refused.
    pub(super) fn may_write(&self, key: &Key, register: &Register) -> Result<(), Rejection> {
        self.credential(&key.to_string(), register).map(drop)
    }

    fn credential(&self, context: &str, register: &Register) -> Result<usize, Rejection> {
        let may = |c: &Credential| rights::check(&c.verified().power, context).is_ok();
        let Some(at) = self.credentials.iter().position(may) else {
            return Err(Rejection::NotAllowed {
                what: context.to_owned(),
                roles: self.roles(),
            });
        };
        let verified = self.credentials[at].verified();
        verified
            .check_time(seconds(register))
            .map_err(|error| Rejection::Certificate(error.to_string()))?;
        Ok(at)
    }

    /// Signs registers together, each with the credential that may write it, in their order. What
    /// would count for nothing is refused.
    pub(super) fn seal(
        &self,
        registers: &[(Key, Register)],
        voids: &Voids,
    ) -> Result<Vec<Bytes>, Rejection> {
        let root = self.root.ok_or(Rejection::NotJoined)?;
        let mut by_credential: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut texts = Vec::with_capacity(registers.len());
        for (at, (key, register)) in registers.iter().enumerate() {
            let context = key.to_string();
            let credential = self.credential(&context, register)?;
            by_credential.entry(credential).or_default().push(at);
            texts.push((context, register.encode()));
        }
        let mut sealed = vec![Bytes::new(); registers.len()];
        for (credential, places) in by_credential {
            let texts: Vec<_> = places.iter().map(|at| texts[*at].clone()).collect();
            let cluster = ClusterId::of(&root);
            let signed = sign_all(&self.credentials[credential], cluster, &texts);
            for (at, bytes) in places.into_iter().zip(signed) {
                sealed[at] = bytes.into();
            }
        }
        match sealed.iter().any(|bytes| voids.covers(bytes)) {
            true => Err(Rejection::GrantorRemoved),
            false => Ok(sealed),
        }
    }

    fn roles(&self) -> String {
        let roles = self.credentials.iter().map(|c| &c.verified().power);
        let roles: Vec<String> = roles.map(ToString::to_string).collect();
        roles.join(", ")
    }

    /// Checks all that a change writes. The error says what is wrong.
    pub(super) fn check(&mut self, change: &Incoming) -> Result<(), String> {
        change
            .writes()
            .try_for_each(|(key, value)| self.check_write(key, value))
    }

    /// Checks all that a whole document holds, except what `known` holds as well.
    pub(super) fn check_all(
        &mut self,
        engine: &Engine,
        known: Option<&Engine>,
    ) -> Result<(), String> {
        for key in engine.keys().iter().filter(|key| *key != FORMAT_KEY) {
            let held = known.map_or_else(Vec::new, |known| known.values(key));
            for value in engine.values(key) {
                if !held.contains(&value) {
                    self.check_write(key, &value)?;
                }
            }
        }
        Ok(())
    }

    fn check_write(&mut self, text: &str, value: &[u8]) -> Result<(), String> {
        let at = |reason: String| format!("what it writes to '{text}' is refused: {reason}");
        let root = self.root.ok_or("this node has not been let in yet")?;
        let key = Key::parse(text);
        let context = match &key {
            Some(key) => key.current().to_string(),
            None => text.to_owned(),
        };
        let signed = Signed::decode(value).map_err(|e| at(e.to_string()))?;
        let author = self.author(&root, signed.chain).map_err(at)?;
        self.check_signature(&author, &root, &context, &signed)
            .map_err(at)?;
        rights::check(&author.power, &context).map_err(|e| at(e.to_string()))?;
        let register = Register::decode(value).map_err(|e| at(e.to_string()))?;
        author
            .check_time(seconds(&register))
            .map_err(|e| at(e.to_string()))?;
        match key.and_then(|key| key.stamp()) {
            Some(stamp) if stamp != register.stamp => {
                Err(at("it is kept under another version's name".to_owned()))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn author(&mut self, root: &PublicKey, chain: &[u8]) -> Result<Verified, String> {
        let hash = *blake3::hash(chain).as_bytes();
        if let Some(known) = self.chains.get(&hash) {
            return Ok(known.clone());
        }
        let chain = Chain::decode(chain).map_err(|e| e.to_string())?;
        let verified = chain.verify(root).map_err(|e| e.to_string())?;
        if self.chains.len() >= MAX_CHAINS {
            self.chains.clear();
        }
        self.chains.insert(hash, verified.clone());
        Ok(verified)
    }

    fn check_signature(
        &mut self,
        author: &Verified,
        root: &PublicKey,
        context: &str,
        signed: &Signed<'_>,
    ) -> Result<(), String> {
        let seal = signed.seal(ClusterId::of(root), context);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&author.subject.0).update(&seal.to_bytes());
        let hash = *hasher.finalize().as_bytes();
        if self.signatures.contains(&hash) {
            return Ok(());
        }
        seal.verify_by(&author.subject).map_err(|e| e.to_string())?;
        if self.signatures.len() >= MAX_SIGNATURES {
            self.signatures.clear();
        }
        self.signatures.insert(hash);
        Ok(())
    }
}

fn seconds(register: &Register) -> Seconds {
    register.time / 1_000
}

/// Authors that were removed, each with the greatest counter that its remover had seen: what they
/// write beyond it counts for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Voids(BTreeMap<PublicKey, u64>);

impl Voids {
    /// Reads the orders of removal. No order undoes another one: of two admins who remove each
    /// other in two parts of a cluster, both are removed.
    pub(super) fn read(engine: &Engine) -> Self {
        let mut voids = BTreeMap::new();
        for text in engine.keys() {
            let Some(Key::Trust(TrustKey::Revoked(key))) = Key::parse(&text) else {
                continue;
            };
            for value in engine.values(&text) {
                let counter = Register::decode(&value)
                    .ok()
                    .and_then(|r| r.value.get("counter")?.as_u64());
                let counter = counter.unwrap_or(0);
                let least: &mut u64 = voids.entry(key).or_insert(counter);
                *least = counter.min(*least);
            }
        }
        Self(voids)
    }

    /// Whether a register counts for nothing, because its author, or who vouched for its author,
    /// had been removed.
    pub(super) fn covers(&self, value: &[u8]) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let Ok(stamp) = Register::decode(value).map(|register| register.stamp) else {
            return false;
        };
        let beyond = |key: &PublicKey| self.0.get(key).is_some_and(|last| stamp.counter > *last);
        keys(value).iter().any(beyond)
    }

    /// Whether any of those who stand behind a register was removed, whenever.
    pub(super) fn touch(&self, value: &[u8]) -> bool {
        keys(value).iter().any(|key| self.0.contains_key(key))
    }

    /// The values that count for something.
    pub(super) fn sift(&self, mut values: Vec<Bytes>) -> Vec<Bytes> {
        if !self.0.is_empty() {
            values.retain(|value| !self.covers(value));
        }
        values
    }
}

/// The keys in a statement's chain, the author's last.
fn keys(value: &[u8]) -> Vec<PublicKey> {
    let chain = Signed::decode(value).and_then(|signed| Chain::decode(signed.chain));
    chain.map_or_else(|_unsigned| Vec::new(), |chain| chain.subjects().collect())
}

/// Who signed a register, and what that key may do.
pub(super) fn author(value: &[u8]) -> Option<(PublicKey, String)> {
    let chain = Signed::decode(value).and_then(|signed| Chain::decode(signed.chain));
    let chain = chain.ok()?;
    Some((chain.subject()?, chain.power()?.to_string()))
}

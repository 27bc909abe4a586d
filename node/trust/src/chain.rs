//! Certificates from the root key to a key.

use thiserror::Error;

use crate::Seconds;
use crate::certificate::{Certificate, MAX_CERTIFICATE};
use crate::encode::{Malformed, Reader};
use crate::keys::{ClusterId, PublicKey};
use crate::power::{Power, Role};

/// Certificates in a chain: root → admin → admission → node is the longest that is ever made.
const MAX_LINKS: usize = 3;

/// Bytes of the longest chain.
pub const MAX_CHAIN: usize = 1 + MAX_LINKS * MAX_CERTIFICATE;

/// How wrong clocks may be: a certificate is taken so many seconds before it begins and after it
/// ends.
pub const SKEW_SECONDS: Seconds = 300;

/// Certificates from the one that the root key signed to the last, which is about the holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain(Vec<Certificate>);

/// Why a chain proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChainError {
    /// It has no certificates, or too many.
    #[error("it has {0} certificates, and 1 to {MAX_LINKS} make a chain")]
    Length(usize),
    /// A signature is wrong: forged, damaged, or of another cluster.
    #[error(
        "its certificate for {0} was not signed by the key before it: it is of another cluster, or altered"
    )]
    Forged(String),
    /// A key granted what it does not have to give.
    #[error("a key with the power '{issuer}' granted '{granted}', which it may not")]
    Overreach {
        /// What the issuer may do.
        issuer: String,
        /// What it granted.
        granted: String,
    },
    /// It begins later.
    #[error(
        "the certificate for {subject} is valid in {seconds} s only: compare the clocks of both hosts"
    )]
    NotYet {
        /// Whose.
        subject: String,
        /// How long until then.
        seconds: Seconds,
    },
    /// It has ended.
    #[error("the certificate for {subject} expired {seconds} s ago")]
    Expired {
        /// Whose.
        subject: String,
        /// How long ago.
        seconds: Seconds,
    },
}

/// What a valid chain proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whose key it is about.
    pub subject: PublicKey,
    /// What that key may do.
    pub power: Power,
    /// The keys on the way, from the one that the root key vouched for; without the subject.
    pub issuers: Vec<PublicKey>,
    /// The epoch of the admission key on the way, if there is one.
    pub epoch: Option<u64>,
    /// From when all of its certificates are valid.
    pub not_before: Seconds,
    /// Until when.
    pub not_after: Seconds,
}

impl Verified {
    /// The role, if it is one.
    pub fn role(&self) -> Option<&Role> {
        match &self.power {
            Power::Role(role) => Some(role),
            Power::Admission(_) => None,
        }
    }

    /// Checks that all of its certificates are valid at this time, give or take
    /// [`SKEW_SECONDS`].
    pub fn check_time(&self, at: Seconds) -> Result<(), ChainError> {
        let subject = self.subject.short();
        if at.saturating_add(SKEW_SECONDS) < self.not_before {
            let seconds = self.not_before - at;
            return Err(ChainError::NotYet { subject, seconds });
        }
        if at > self.not_after.saturating_add(SKEW_SECONDS) {
            let seconds = at - self.not_after;
            return Err(ChainError::Expired { subject, seconds });
        }
        Ok(())
    }

    /// Whether half of its life is over, so that it should be renewed.
    pub fn is_half_over(&self, at: Seconds) -> bool {
        let life = self.not_after.saturating_sub(self.not_before);
        at >= self.not_before.saturating_add(life / 2)
    }
}

impl Chain {
    /// A chain of one: a certificate that the root key signed.
    pub fn root_signed(certificate: Certificate) -> Self {
        Self(vec![certificate])
    }

    /// The chain with one certificate more, signed by the key that this one is about.
    #[must_use]
    pub fn with(&self, certificate: Certificate) -> Self {
        let mut links = self.0.clone();
        links.push(certificate);
        Self(links)
    }

    /// Whose key it is about, as it claims; not to be believed before it is verified.
    pub fn subject(&self) -> Option<PublicKey> {
        self.0.last().map(|certificate| certificate.subject)
    }

    /// What it says that key may do; not to be believed before it is verified.
    pub fn power(&self) -> Option<&Power> {
        self.0.last().map(|certificate| &certificate.power)
    }

    /// All keys on the way, the last one's included; not verified.
    pub fn subjects(&self) -> impl Iterator<Item = PublicKey> + '_ {
        self.0.iter().map(|certificate| certificate.subject)
    }

    /// Verifies signatures and powers against the root key, but no time:
    /// [`Verified::check_time`] does.
    pub fn verify(&self, root: &PublicKey) -> Result<Verified, ChainError> {
        let (Some(leaf), 1..=MAX_LINKS) = (self.0.last(), self.0.len()) else {
            return Err(ChainError::Length(self.0.len()));
        };
        let cluster = ClusterId::of(root);
        let (mut issuer, mut power): (PublicKey, Option<&Power>) = (*root, None);
        let (mut not_before, mut not_after) = (0, Seconds::MAX);
        let mut epoch = None;
        for certificate in &self.0 {
            if let Some(power) = power.filter(|power| !power.may_issue(&certificate.power)) {
                return Err(ChainError::Overreach {
                    issuer: power.to_string(),
                    granted: certificate.power.to_string(),
                });
            }
            if !certificate.is_by(cluster, &issuer) {
                return Err(ChainError::Forged(certificate.subject.short()));
            }
            not_before = not_before.max(certificate.not_before);
            not_after = not_after.min(certificate.not_after);
            if let Power::Admission(number) = certificate.power {
                epoch = Some(number);
            }
            (issuer, power) = (certificate.subject, Some(&certificate.power));
        }
        let before = &self.0[..self.0.len() - 1];
        Ok(Verified {
            subject: leaf.subject,
            power: leaf.power.clone(),
            issuers: before.iter().map(|c| c.subject).collect(),
            epoch,
            not_before,
            not_after,
        })
    }

    /// Verifies everything, also that it is valid at this time.
    pub fn verify_at(&self, root: &PublicKey, at: Seconds) -> Result<Verified, ChainError> {
        let verified = self.verify(root)?;
        verified.check_time(at)?;
        Ok(verified)
    }

    /// As it travels.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![u8::try_from(self.0.len()).unwrap_or(u8::MAX)];
        for certificate in &self.0 {
            certificate.write(&mut bytes);
        }
        bytes
    }

    /// Reads what [`Self::encode`] made, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let chain = Self::read(&mut reader)?;
        reader.end()?;
        Ok(chain)
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = usize::from(from.u8()?);
        if count == 0 || count > MAX_LINKS {
            return Err(Malformed("a chain has 1 to 3 certificates"));
        }
        let mut links = Vec::with_capacity(count);
        for _ in 0..count {
            links.push(Certificate::read(from)?);
        }
        Ok(Self(links))
    }
}

//! The cluster file: JSON, with keys and certificates in base64.

use dunlin_trust::{Chain, ClusterId, Keyring, PublicKey, SecretKey};
use serde::{Deserialize, Serialize};

use super::{Belonging, Membership};

/// Files of another version are not read.
const VERSION: u32 = 2;

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    cluster: String,
    #[serde(default)]
    ticket: Option<String>,
    #[serde(default)]
    removed: bool,
    #[serde(default)]
    member: Option<Member>,
}

#[derive(Serialize, Deserialize)]
struct Member {
    root: String,
    keyring: String,
    node: String,
    #[serde(default)]
    role: Option<String>,
}

pub(super) fn encode(belonging: &Belonging) -> String {
    let base64 = |bytes: &[u8]| data_encoding::BASE64.encode(bytes);
    let member = belonging.membership.as_ref().map(|member| Member {
        root: member.root.to_string(),
        keyring: base64(&member.keyring.encode()),
        node: base64(&member.node.encode()),
        role: member.role.as_ref().map(|role| base64(&role.encode())),
    });
    let file = File {
        version: VERSION,
        cluster: belonging.cluster.to_string(),
        ticket: belonging.ticket.as_ref().map(ToString::to_string),
        removed: belonging.removed,
        member,
    };
    // Strings and numbers always serialize.
    serde_json::to_string_pretty(&file).unwrap_or_default()
}

pub(super) fn decode(bytes: &[u8], key: &SecretKey) -> Option<Belonging> {
    let file = read(bytes)?;
    let membership = match file.member {
        None => None,
        Some(member) => {
            let root: PublicKey = member.root.parse().ok()?;
            let role = match member.role {
                None => None,
                Some(text) => Some(chain(&text)?),
            };
            Some(Membership {
                root,
                keyring: Keyring::decode(&base64(&member.keyring)?).ok()?,
                node: chain(&member.node)?,
                role,
            })
        }
    };
    let ticket = match file.ticket {
        None => None,
        Some(text) => Some(text.parse().ok()?),
    };
    Some(Belonging {
        key: key.clone(),
        cluster: parse_cluster(&file.cluster)?,
        membership,
        ticket,
        removed: file.removed,
    })
}

pub(super) fn cluster(bytes: &[u8]) -> Option<ClusterId> {
    parse_cluster(&read(bytes)?.cluster)
}

fn read(bytes: &[u8]) -> Option<File> {
    let file: File = serde_json::from_slice(bytes).ok()?;
    (file.version == VERSION).then_some(file)
}

fn parse_cluster(text: &str) -> Option<ClusterId> {
    let bytes = data_encoding::BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes());
    Some(ClusterId(bytes.ok()?.try_into().ok()?))
}

fn base64(text: &str) -> Option<Vec<u8>> {
    data_encoding::BASE64.decode(text.as_bytes()).ok()
}

fn chain(text: &str) -> Option<Chain> {
    Chain::decode(&base64(text)?).ok()
}

//! Bounds on what a peer may say of itself.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::model::{
    Claim, MAX_HISTORY, MAX_LAST_WORDS, MAX_LAST_WORDS_BYTES, MAX_PREEMPTED, MAX_SCALED,
    MAX_VOLUMES, NodeRegister, NodeReport, ScaleDecision, ScaleStamp, Season,
};

/// Claims in one register: ten times what one host sensibly runs.
pub const MAX_CLAIMS: usize = 2_000;

/// Bytes of a register as estimated by [`size`]: 2,000 claims of usual size with their ports.
pub const MAX_REGISTER_BYTES: usize = 1024 * 1024;

/// Parts of one register, removed ones and those of unknown kinds among them.
pub(super) const MAX_PARTS: usize = 2 * MAX_CLAIMS;

/// Removed parts that are remembered, so that whoever missed their removal can be told. Whoever
/// missed more gets the register whole.
pub(super) const MAX_REMOVED: usize = 64;

/// Characters of a name, version, fact or label.
const MAX_TEXT: usize = 256;

/// Characters of a claim's message: 300 of them, in UTF-8.
const MAX_MESSAGE: usize = 1_200;

/// Labels and runtimes of a node.
const MAX_LIST: usize = 128;

/// Ports of one claim; a specification has no more.
const MAX_PORTS: usize = 128;

/// What is wrong with a register.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadRegister {
    /// A list is too long.
    #[error("{what} has {len} entries, at most {max} are taken")]
    TooMany {
        /// Which list.
        what: &'static str,
        /// Its length.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// A text is too long.
    #[error("{what} has {len} bytes, at most {max} are taken")]
    TooLong {
        /// Which text.
        what: &'static str,
        /// Its length.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// Two claims to one slot.
    #[error("slot {0} is claimed twice")]
    DuplicateClaim(String),
    /// A volume is told twice, or out of order.
    #[error("volume {0} is told twice, or out of order")]
    DuplicateVolume(String),
    /// A decision that nobody could decide after.
    #[error("the counter of a decision is {0}, which no cluster reaches")]
    BadStamp(u64),
    /// A part cannot be written.
    #[error("it cannot be encoded: {0}")]
    Unencodable(String),
}

/// Checks the bounds of a register from a peer.
///
/// # Errors
/// The first bound that it breaks.
pub fn check(register: &NodeRegister) -> Result<(), BadRegister> {
    let report = &register.report;
    list("the list of claims", report.claims.len(), MAX_CLAIMS)?;
    list(
        "the list of preemptions",
        report.preempted.len(),
        MAX_PREEMPTED,
    )?;
    list("the list of volumes", report.volumes.len(), MAX_VOLUMES)?;
    let mut volumes = report.volumes.windows(2);
    if let Some(pair) = volumes.find(|pair| pair[0].volume >= pair[1].volume) {
        return Err(BadRegister::DuplicateVolume(pair[1].volume.to_string()));
    }
    list("the list of labels", report.labels.len(), MAX_LIST)?;
    list("the list of runtimes", report.runtimes.len(), MAX_LIST)?;
    let facts = &report.facts;
    let texts = [
        ("the name", report.name.as_str()),
        ("the version", &report.dunlin_version),
        ("the operating system", &facts.os),
        ("the distribution", &facts.distribution),
        ("the architecture", &facts.arch),
        ("the kernel", &facts.kernel),
        ("the engine", facts.engine.as_deref().unwrap_or_default()),
    ];
    for (what, value) in texts {
        text(what, value, MAX_TEXT)?;
    }
    for (key, value) in &report.labels {
        text("the key of a label", key, MAX_TEXT)?;
        text("the value of a label", value, MAX_TEXT)?;
    }
    for runtime in &report.runtimes {
        text("the name of a runtime", runtime, MAX_TEXT)?;
    }
    for claim in &report.claims {
        check_claim(claim)?;
    }
    let mut slots: Vec<_> = report.claims.iter().map(|c| &c.slot).collect();
    slots.sort_unstable();
    if let Some(twice) = slots.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(BadRegister::DuplicateClaim(twice[0].to_string()));
    }
    list("the list of loads", report.loads.len(), MAX_SCALED)?;
    list("the list of scales", report.scales.len(), MAX_SCALED)?;
    for scale in report.scales.values() {
        check_scale(scale)?;
    }
    let bytes = size(register);
    if bytes > MAX_REGISTER_BYTES {
        return Err(BadRegister::TooLong {
            what: "the register",
            len: bytes,
            max: MAX_REGISTER_BYTES,
        });
    }
    Ok(())
}

fn check_claim(claim: &Claim) -> Result<(), BadRegister> {
    list("the list of host ports", claim.host_ports.len(), MAX_PORTS)?;
    list("the list of endpoints", claim.endpoints.len(), MAX_PORTS)?;
    text("a revision", &claim.revision, MAX_TEXT)?;
    let message = claim.message.as_deref().unwrap_or_default();
    text("a message", message, MAX_MESSAGE)?;
    list("the history of a claim", claim.history.len(), MAX_HISTORY)?;
    if let Some(exit) = &claim.last_exit {
        list("the last words", exit.last_words.len(), MAX_LAST_WORDS)?;
        let bytes = exit.last_words.iter().map(String::len).sum();
        if bytes > MAX_LAST_WORDS_BYTES {
            return Err(BadRegister::TooLong {
                what: "the last words",
                len: bytes,
                max: MAX_LAST_WORDS_BYTES,
            });
        }
    }
    let workload = claim.workload.as_deref().unwrap_or_default();
    text("a workload id", workload, MAX_TEXT)
}

fn check_scale(scale: &ScaleDecision) -> Result<(), BadRegister> {
    text("a revision", &scale.revision, MAX_TEXT)?;
    let reason = &scale.reason;
    text("the reason of a scale", reason, ScaleDecision::MAX_REASON)?;
    if scale.stamp.counter > ScaleStamp::MAX_COUNTER {
        return Err(BadRegister::BadStamp(scale.stamp.counter));
    }
    let steps = scale.season.as_ref().map_or(0, |season| season.cycle.len());
    list("the steps of a season", steps, Season::MAX_STEPS)
}

fn list(what: &'static str, len: usize, max: usize) -> Result<(), BadRegister> {
    if len > max {
        return Err(BadRegister::TooMany { what, len, max });
    }
    Ok(())
}

fn text(what: &'static str, value: &str, max: usize) -> Result<(), BadRegister> {
    if value.len() > max {
        let len = value.len();
        return Err(BadRegister::TooLong { what, len, max });
    }
    Ok(())
}

/// A report without its claims.
pub(super) fn host_of(report: &NodeReport) -> NodeReport {
    NodeReport {
        name: report.name.clone(),
        dunlin_version: report.dunlin_version.clone(),
        address: report.address,
        facts: report.facts.clone(),
        labels: report.labels.clone(),
        capacity: report.capacity,
        runtimes: report.runtimes.clone(),
        disk_ok: report.disk_ok,
        claims: Vec::new(),
        preempted: report.preempted.clone(),
        volumes: report.volumes.clone(),
        loads: BTreeMap::new(),
        scales: BTreeMap::new(),
        started_at: report.started_at,
    }
}

/// Estimates the encoded size in bytes, on the high side, without encoding: numbers and field
/// names of a register and of a claim take a fixed amount.
pub fn size(register: &NodeRegister) -> usize {
    const REGISTER: usize = 600;
    const CLAIM: usize = 320;
    const PORT: usize = 60;
    const STEP: usize = 60;
    // Two slots, each with a service of at most two host-name labels.
    const PREEMPTED: usize = 420;
    // Names of fields, three numbers, and some of the volume's.
    const VOLUME: usize = 80;
    let report = &register.report;
    let volumes = report.volumes.iter().map(|held| {
        let service = held
            .volume
            .replica()
            .map_or(0, |(service, _)| service.len());
        VOLUME + held.volume.namespace().len() + held.volume.name().len() + service
    });
    let labels = report
        .labels
        .iter()
        .map(|(key, value)| key.len() + value.len() + 8);
    let runtimes = report.runtimes.iter().map(|name| name.len() + 4);
    let claims = report.claims.iter().map(|claim| {
        let service = &claim.slot.service;
        CLAIM
            + service.namespace().len()
            + service.name().len()
            + claim.revision.len()
            + claim.message.as_ref().map_or(0, String::len)
            + claim.workload.as_ref().map_or(0, String::len)
            + STEP * claim.history.len()
            + claim
                .last_exit
                .iter()
                .flat_map(|e| &e.last_words)
                .map(|w| w.len() + 8)
                .sum::<usize>()
            + PORT * (claim.host_ports.len() + claim.endpoints.len())
    });
    const LOAD: usize = 200;
    const SCALE: usize = 260;
    const STEP_OF_SEASON: usize = 5;
    let scales = report.scales.values().map(|scale| {
        let steps = scale.season.as_ref().map_or(0, |season| season.cycle.len());
        SCALE + scale.revision.len() + scale.reason.len() + STEP_OF_SEASON * steps
    });
    REGISTER
        + LOAD * report.loads.len()
        + scales.sum::<usize>()
        + report.name.len()
        + report.dunlin_version.len()
        + labels.sum::<usize>()
        + PREEMPTED * report.preempted.len()
        + volumes.sum::<usize>()
        + runtimes.sum::<usize>()
        + claims.sum::<usize>()
}

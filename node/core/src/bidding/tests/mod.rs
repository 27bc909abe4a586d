mod auctioneer;
mod bidder;
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_state::Now;
use dunlin_state::desired::{Desired, Service};
use dunlin_state::model::{
    Claim, Facts, NodeId, NodeRegister, NodeReport, Resources, ServiceKey, ServiceSpec, Slot,
    SlotId, Version,
};
use proptest::prelude::*;

use super::auctioneer::Floor;
use super::round::Round;
use super::*;
use crate::cluster::Cluster;
use crate::liveness::Standing;
use crate::placement::{NodeView, Reason};

fn id(index: u8) -> NodeId {
    NodeId::from_bytes([index; 32])
}

fn web() -> ServiceKey {
    "web".parse().unwrap()
}

fn report(cpu_millis: u64) -> NodeReport {
    NodeReport {
        facts: Facts {
            cpus: 4,
            ..Facts::default()
        },
        capacity: Resources {
            cpu_millis,
            memory: 1 << 30,
            disk: 0,
        },
        runtimes: vec!["process".to_owned()],
        disk_ok: true,
        ..NodeReport::default()
    }
}

fn desired(cpu_millis: u64, replicas: u32) -> Desired {
    let spec = ServiceSpec {
        command: vec!["serve".to_owned()],
        reservation: Resources {
            cpu_millis,
            ..Resources::ZERO
        },
        ..ServiceSpec::default()
    };
    let service = Service {
        spec: Arc::new(spec),
        revision: "r1".to_owned(),
        replicas,
        running: true,
        rollout: Default::default(),
        jobs: Default::default(),
    };
    Desired {
        services: BTreeMap::from([(web(), service)]),
        ..Desired::default()
    }
}

fn round(seq: u64) -> RoundId {
    RoundId { boot: 1, seq }
}

fn call(seq: u64, revision: &str, slots: u32) -> Message {
    Message::Call {
        round: round(seq),
        service: web(),
        revision: revision.to_owned(),
        slots,
        by_force: false,
        first: 0,
        moved_from: None,
    }
}

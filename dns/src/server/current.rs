//! The newest index of names, and answers from it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dunlin_state::route::RouteTable;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::answer::Manner;
use crate::forward::{Forwarder, Now};
use crate::respond::{Outcome, decline, respond};
use crate::tally::{self, Counters};
use crate::wire::{Query, Transport};
use crate::zone::Zone;
use hickory_proto::op::ResponseCode;

/// Pause after a change of the index. While a deployment runs, the table changes many times a
/// second; this makes one index of a burst and delays a change by no more than this.
const BUILD_PAUSE: Duration = Duration::from_millis(5);

/// Renews the index when the table changes. When its writer is gone, the last one stays.
pub(super) async fn keep_current(
    mut last: Arc<RouteTable>,
    mut routes: watch::Receiver<Arc<RouteTable>>,
    newest: watch::Sender<Arc<Zone>>,
) {
    while routes.changed().await.is_ok() {
        let table = routes.borrow_and_update().clone();
        let zone = newest.borrow().updated(&last, &table);
        newest.send_replace(Arc::new(zone));
        last = table;
        sleep(BUILD_PAUSE).await;
    }
    std::future::pending().await
}

/// What became of a packet.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a box would cost an allocation per query"
)]
pub(super) enum Answer<'p> {
    /// The reply is to be sent.
    Ready,
    /// There is none.
    None,
    /// Others have to be asked.
    Ask(Query<'p>),
}

/// The newest index, cached: one atomic load per query as long as it does not change.
#[derive(Clone)]
pub(super) struct Current {
    zone: Arc<Zone>,
    zones: watch::Receiver<Arc<Zone>>,
    forwarder: Option<Forwarder>,
    counters: Counters,
    answers: u32,
}

impl Current {
    pub(super) fn new(
        mut zones: watch::Receiver<Arc<Zone>>,
        forwarder: Option<Forwarder>,
        counters: Counters,
    ) -> Self {
        let zone = zones.borrow_and_update().clone();
        Self {
            zone,
            zones,
            forwarder,
            counters,
            answers: 0,
        }
    }

    /// Who asks others, if anybody does.
    pub(super) fn forwarder(&self) -> Option<&Forwarder> {
        self.forwarder.as_ref()
    }

    pub(super) fn answer<'p>(
        &mut self,
        packet: &'p [u8],
        transport: Transport,
        now: Instant,
        reply: &mut Vec<u8>,
    ) -> Answer<'p> {
        let answer = self.find(packet, transport, now, reply);
        let outcome = match answer {
            Answer::Ready => tally::Outcome::Reply(reply),
            Answer::None => tally::Outcome::Silent,
            Answer::Ask(_) => tally::Outcome::Asked,
        };
        self.counters.count(transport, outcome);
        answer
    }

    fn find<'p>(
        &mut self,
        packet: &'p [u8],
        transport: Transport,
        now: Instant,
        reply: &mut Vec<u8>,
    ) -> Answer<'p> {
        if self.zones.has_changed().unwrap_or(false) {
            self.zone = self.zones.borrow_and_update().clone();
        }
        self.answers = self.answers.wrapping_add(1);
        let manner = self.manner();
        let turn = mix(self.answers);
        let query = match respond(&self.zone, packet, transport, manner, turn, reply) {
            Outcome::Silent => return Answer::None,
            Outcome::Answered => return Answer::Ready,
            Outcome::Elsewhere(query) => query,
        };
        match &self.forwarder {
            Some(forwarder) => match forwarder.try_now(&query, transport, now, reply) {
                Now::Answered => Answer::Ready,
                Now::Ask => Answer::Ask(query),
            },
            None => {
                decline(&query, ResponseCode::Refused, manner, reply);
                Answer::Ready
            }
        }
    }

    /// The answer when others cannot be asked now.
    pub(super) fn fail(&self, query: &Query<'_>, reply: &mut Vec<u8>) {
        decline(query, ResponseCode::ServFail, self.manner(), reply);
    }

    fn manner(&self) -> Manner {
        Manner {
            recursion: self.forwarder.is_some(),
        }
    }
}

/// Spreads a counter over all numbers (the finalizer of MurmurHash3), so that clients that ask for
/// A and AAAA in turn do not always meet the same remainder.
fn mix(counter: u32) -> u32 {
    let mut x = counter;
    x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
    x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

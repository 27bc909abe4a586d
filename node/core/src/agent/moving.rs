//! Replicas that are moved to even out nodes.

use dunlin_state::Now;
use dunlin_state::model::NodeId;

use super::{Agent, Output};
use crate::bidding::Message;
use crate::placement::Reason;
use crate::rebalance::{Forecast, Scene, forecast};

impl Agent {
    /// Looks whether a replica should move, when it is time.
    pub(super) fn look_at_balance(&mut self, now: Now, out: &mut Vec<Output>) {
        if self
            .rebalancer
            .poll_timeout()
            .is_none_or(|at| at > now.mono)
        {
            return;
        }
        let scene = Scene {
            cluster: &self.cluster,
            desired: &self.desired,
            whole: self.is_whole(now),
        };
        for (to, message) in self.rebalancer.handle_timeout(scene, now) {
            self.send(to, message, out);
        }
    }

    /// A node answers whether it takes a replica that should move.
    pub(super) fn on_move_answer(
        &mut self,
        from: NodeId,
        message: &Message,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let round = match message {
            Message::Bid { round, .. } => *round,
            Message::Refusal { round, reasons } => {
                let passing = reasons.iter().all(Reason::is_passing);
                return self.rebalancer.refused(from, *round, passing, now.mono);
            }
            Message::AwardRefused { round, reason, .. } => {
                let passing = reason.is_passing();
                return self.rebalancer.refused(from, *round, passing, now.mono);
            }
            // For the bidder.
            Message::Call { .. } | Message::Award { .. } => return,
        };
        let scene = Scene {
            cluster: &self.cluster,
            desired: &self.desired,
            whole: self.is_whole(now),
        };
        let (slots, next) = self.rebalancer.bid(from, round, scene, now);
        if let (Some(next), Some((_, epoch))) = (next, slots.first()) {
            self.cluster.note_epoch(&next.slot, *epoch);
        }
        self.send(from, Message::Award { round, slots }, out);
    }

    /// What rebalancing would move.
    pub fn rebalance_forecast(&self) -> Forecast {
        forecast(&self.cluster, &self.desired)
    }

    fn is_whole(&self, now: Now) -> bool {
        self.is_floor_open(now) && self.isolation.is_over()
    }
}

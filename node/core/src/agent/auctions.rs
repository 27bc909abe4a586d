//! What the bidder and the auctioneer of a node say to each other and to those of others, and what
//! follows from it.

use dunlin_state::Now;
use dunlin_state::model::{NodeId, SlotId};

use super::{Agent, Output, floor, push_reconciled};
use crate::bidding::{self, BidderEffect, Message};
use crate::io::Event;

impl Agent {
    pub(super) fn deliver(
        &mut self,
        from: NodeId,
        message: Message,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        match message {
            Message::Call {
                ref service,
                moved_from,
                ..
            } => {
                if moved_from.is_none() {
                    self.auctioneer.heard_call(service, from, now.mono);
                }
                self.tell_bidder(from, message, now, out);
            }
            Message::Award { .. } => self.tell_bidder(from, message, now, out),
            Message::Bid { round, .. }
            | Message::Refusal { round, .. }
            | Message::AwardRefused { round, .. }
                if self.rebalancer.asked(round) =>
            {
                self.on_move_answer(from, &message, now, out);
            }
            Message::Bid { .. } | Message::Refusal { .. } | Message::AwardRefused { .. } => {
                let open = self.is_floor_open(now);
                let floor = floor::floor(&self.cluster, &self.desired, open);
                let effects = self.auctioneer.handle(from, message, floor, now);
                self.on_auctioneer(effects, out);
            }
        }
    }

    fn tell_bidder(&mut self, from: NodeId, message: Message, now: Now, out: &mut Vec<Output>) {
        let effects = self.with_market(now, |bidder, market| {
            bidder.handle(from, message, market, now.mono)
        });
        self.on_bidder(effects, now, out);
    }

    pub(super) fn on_bidder(
        &mut self,
        effects: Vec<BidderEffect>,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        for effect in effects {
            match effect {
                BidderEffect::Send { to, message } => self.send(to, message, out),
                BidderEffect::Take {
                    service,
                    slot,
                    epoch,
                    moved_from,
                } => {
                    let slot = SlotId { service, slot };
                    let effects =
                        self.with_world(|r, world| r.take(slot, epoch, moved_from, world, now));
                    push_reconciled(effects, out);
                }
                BidderEffect::Evict {
                    auctioneer,
                    round,
                    service,
                    slot,
                    epoch,
                    revision,
                } => {
                    let id = SlotId { service, slot };
                    let made =
                        self.with_world(|r, world| r.evict(id, epoch, &revision, world, now));
                    match made {
                        Ok(effects) => push_reconciled(effects, out),
                        Err(reason) => {
                            let slots = vec![slot];
                            let refused = Message::AwardRefused {
                                round,
                                slots,
                                reason,
                            };
                            self.send(auctioneer, refused, out);
                        }
                    }
                }
            }
        }
    }

    pub(super) fn on_auctioneer(
        &mut self,
        effects: Vec<bidding::AuctionEffect>,
        out: &mut Vec<Output>,
    ) {
        for effect in effects {
            match effect {
                bidding::AuctionEffect::Send { to, message } => self.send(to, message, out),
                bidding::AuctionEffect::Unplaced { service, slots } => {
                    let text = format!(
                        "no node takes {slots} replica(s) of {service}; `dunlin explain {service}` \
                         says why"
                    );
                    out.push(Output::Event(Event {
                        warning: true,
                        text,
                        slot: None,
                        node: None,
                    }));
                }
            }
        }
    }

    pub(super) fn send(&mut self, to: NodeId, message: Message, out: &mut Vec<Output>) {
        if to == self.me {
            self.loopback.push_back(message);
        } else {
            out.push(Output::Send { to, message });
        }
    }
}

//! Does what the engine asks for.

use std::collections::VecDeque;

use dunlin_core::io::{Effect, Input, Write};
use dunlin_core::wire::encode;
use dunlin_gossip::replication::PersistId;

use super::{Driver, DriverError, tell};
use crate::daemon::measuring;

impl Driver {
    /// Performs effects. A write that is refused at once comes back as an input, whose effects
    /// join the queue: bounded, because the engine gives up a refused change instead of repeating.
    pub(super) fn perform(&mut self, effects: Vec<Effect>) -> Result<(), DriverError> {
        let mut queue = VecDeque::from(effects);
        while let Some(effect) = queue.pop_front() {
            let input = match effect {
                Effect::Persist { id, writes } => match self.persist(id, writes) {
                    Err(reason) => Some(Input::PersistFailed { id, reason }),
                    Ok(()) => None,
                },
                Effect::Secret(order) => {
                    let vault = &self.outbox.vault;
                    vault.set_items(&self.engine.desired().items);
                    vault.perform(order).map(Input::Secret)
                }
                other => {
                    self.perform_one(other)?;
                    None
                }
            };
            if let Some(input) = input {
                queue.extend(self.engine.handle(input, self.clock.now()));
            }
        }
        Ok(())
    }

    fn persist(&self, id: PersistId, writes: Vec<Write>) -> Result<(), String> {
        self.outbox.store.persist(id, writes)
    }

    fn perform_one(&mut self, effect: Effect) -> Result<(), DriverError> {
        let out = &self.outbox;
        match effect {
            Effect::SendDatagram { to, bytes } => out.datagrams.send(to, bytes),
            Effect::SendMessage {
                to,
                address,
                message,
            } => match encode(&message) {
                Ok(bytes) => out.control.send(to, address, bytes),
                Err(error) => tracing::error!(node = %to, %error, "a message cannot be sent"),
            },
            Effect::Connect { node, address } => out.control.connect(node, address),
            Effect::Disconnect(node) => out.control.disconnect(node),
            Effect::Probe { node, address } => {
                let control = out.control.clone();
                // The engine has at most one probe in flight for each node.
                self.probes
                    .spawn(async move { (node, control.probe(node, address).await) });
            }
            Effect::Persist { .. } | Effect::Secret(_) => {}
            Effect::Proposed { id, result } => {
                if let Some(reply) = self.waiting.remove(&id) {
                    // The asker may have gone; the change stands.
                    let _gone = reply.send(result);
                }
            }
            Effect::Runtime(command) => {
                // What a start or a refresh is about to read.
                out.vault.set_items(&self.engine.desired().items);
                let stuck = out.runtime.max_capacity();
                out.runtime
                    .try_send(command)
                    .map_err(|_full| DriverError::Stuck(stuck))?;
            }
            Effect::Changed(changed) => {
                self.look |= changed.desired;
                if changed.desired {
                    let followed = measuring::followed(&self.engine);
                    out.followed.send_if_modified(|old| {
                        let differs = *old != followed;
                        if differs {
                            *old = followed;
                        }
                        differs
                    });
                }
                self.publish_routes();
            }
            Effect::Event(event) => tell(&out.events, event),
        }
        Ok(())
    }
}

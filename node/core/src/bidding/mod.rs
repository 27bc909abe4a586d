//! Placement by auction, with no master.
//!
//! The [`Auctioneer`] of a service is the living node that ranks first for it; it holds nothing
//! that others lack, and the next in rank takes over when a slot stays vacant. It calls for bids,
//! the [`Bidder`] on each candidate answers with a score for each further replica it could take,
//! or with every reason why it takes none, and the best scores win. A bidder holds what it has
//! offered until the award or until the offer lapses, so nothing is sold twice. The winner writes
//! a claim in its own register; until others can see it there the slot counts as pending.
//!
//! Every message names its round, and an answer to a round that is over changes nothing.

mod auction;
mod auctioneer;
mod bidder;
mod candidates;
mod evenly;
mod message;
mod round;
#[cfg(test)]
mod tests;
mod together;
mod turns;

pub(crate) use auctioneer::Floor;
pub use auctioneer::{AuctionEffect, Auctioneer};
pub use bidder::{Bidder, BidderEffect, Market};
pub use message::{Message, RoundId};
pub use round::LastRound;

/// Milliseconds that a bidder waits for a revision it was asked about and has not seen: the push of
/// a change needs a few hops, and asking again would need another round.
pub const BID_WINDOW_MS: u64 = 300;

/// Milliseconds for which an offer holds. Twice what the slowest round takes.
pub const OFFER_MS: u64 = 3_000;

/// Milliseconds that the next in rank waits before it takes over a vacancy that nobody fills.
pub const TAKEOVER_MS: u64 = 1_500;

//! What the machine counts.

/// Totals since the start of this life, and two depths as they are now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metrics {
    /// Proposals answered with success.
    pub proposals_accepted: u64,
    /// Proposals refused by validation.
    pub proposals_refused: u64,
    /// Proposals refused because too many waited.
    pub proposals_busy: u64,
    /// Proposals that wait for the disk, now.
    pub proposals_waiting: usize,
    /// Changes that wait for earlier ones to arrive, now.
    pub changes_waiting: usize,
    /// Writes that the disk refused.
    pub disk_refusals: u64,
    /// Changes of other nodes taken.
    pub changes_taken: u64,
    /// Pushed changes that had been seen before.
    pub changes_repeated: u64,
    /// Registers of other nodes taken.
    pub registers_taken: u64,
    /// Registers received that were not newer.
    pub registers_repeated: u64,
    /// Messages received from connected peers.
    pub messages_received: u64,
    /// Pushes sent (changes and registers).
    pub pushes_sent: u64,
    /// Anti-entropy messages sent, without whole documents.
    pub anti_entropy_sent: u64,
    /// Exchanges of automerge's sync protocol opened.
    pub syncs_opened: u64,
    /// Whole documents sent.
    pub documents_sent: u64,
    /// Whole documents taken over.
    pub documents_adopted: u64,
    /// Compactions started here.
    pub compactions: u64,
    /// Inputs from peers that were malformed or broke a bound.
    pub offences: u64,
}

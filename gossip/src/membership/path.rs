//! What gets lost on the way to and from each peer, and how many copies make up for it.
//!
//! Every transmission to a peer carries a number, so the receiver sees gaps (as RTP receivers do,
//! RFC 3550 section 6.4) and reports the share it misses in whatever it sends next. One direction
//! is thus measured by itself, which counting pings against acknowledgements could not do. In a
//! large cluster two nodes talk too rarely to know each other's path: the estimate is drawn
//! towards what this node sees on all of its paths.

/// Above this loss in 1/255 (3 %) a message is sent twice. foca tolerates 4 %.
const TWO_COPIES: u8 = 8;
/// Above this loss (14 %; squared it is 2 %) it is sent three times.
const THREE_COPIES: u8 = 36;
/// Fewer copies are used again only below this part of the threshold, so that an estimate at the
/// threshold does not flap.
const BACK_NUMERATOR: u16 = 2;
const BACK_DENOMINATOR: u16 = 3;
/// A gap counts as at most this many losses: a longer one was an outage, which copies do not help.
const MAX_GAP: u16 = 6;
/// Numbers further apart than this are a fresh start of the sender's count.
const WINDOW: u16 = 64;
/// A path's counts are halved at this many transmissions, so that old experience fades.
const PATH_MEMORY: u32 = 64;
/// The same over all paths.
const NODE_MEMORY: u32 = 512;
/// The average over all paths weighs as much as this many transmissions on the path itself.
const PRIOR: u32 = 12;

/// Transmissions expected and missed, fading.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count {
    expected: u32,
    missed: u32,
}

impl Count {
    fn add(&mut self, expected: u32, missed: u32, memory: u32) {
        self.expected += expected;
        self.missed += missed;
        if self.expected >= memory {
            self.expected /= 2;
            self.missed /= 2;
        }
    }

    fn found(&mut self) {
        self.missed = self.missed.saturating_sub(1);
    }
}

/// What this node sees on all of its paths together.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Overall {
    inbound: Count,
    /// Moving average of what peers report, in 1/255 of 1/16.
    outbound: u16,
}

impl Overall {
    /// Copies to send to somebody whose path is not known.
    pub(super) fn copies(&self) -> u8 {
        copies_for((self.outbound / 16) as u8, 1)
    }

    fn reported(&mut self, loss: u8) {
        let sample = u16::from(loss) * 16;
        self.outbound = self.outbound - self.outbound / 16 + sample / 16;
    }
}

/// What became of an arriving transmission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The first copy of its message.
    Fresh,
    /// Another copy has been handled already.
    Duplicate,
}

/// One peer's path, both directions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path {
    next: u16,
    copies: u8,
    highest: Option<u16>,
    /// Bit `i`: the transmission `i` below `highest` has arrived.
    arrived: u64,
    inbound: Count,
}

impl Path {
    /// A path with nothing known. `first` should be random: a count that starts again must not
    /// look like old transmissions.
    pub(super) fn new(first: u16, overall: &Overall) -> Self {
        Self {
            next: first,
            copies: overall.copies(),
            highest: None,
            arrived: 0,
            inbound: Count::default(),
        }
    }

    /// How many copies a message should have now.
    pub(super) fn copies(&self) -> u8 {
        self.copies
    }

    /// Takes the numbers for a message with that many copies; returns the first.
    pub(super) fn take_numbers(&mut self, copies: u8) -> u16 {
        let first = self.next;
        self.next = self.next.wrapping_add(u16::from(copies));
        first
    }

    /// The peer says what it misses.
    pub(super) fn reported(&mut self, loss: u8, overall: &mut Overall) {
        overall.reported(loss);
        self.copies = copies_for(loss, self.copies);
    }

    /// What to report to the peer, in 1/255.
    pub(super) fn report(&self, overall: &Overall) -> u8 {
        let prior = &overall.inbound;
        let missed = self.inbound.missed * 255
            + (PRIOR * 255 * prior.missed)
                .checked_div(prior.expected)
                .unwrap_or(0);
        u8::try_from(missed / (self.inbound.expected + PRIOR)).unwrap_or(u8::MAX)
    }

    /// The peer has started again, and so has its count.
    pub(super) fn restart(&mut self) {
        self.highest = None;
        self.arrived = 0;
    }

    /// A transmission has arrived: copy `copy` of `copies`.
    pub(super) fn arrived(
        &mut self,
        number: u16,
        copy: u8,
        copies: u8,
        overall: &mut Overall,
    ) -> Arrival {
        let first = number.wrapping_sub(u16::from(copy));
        let duplicate = (0..u16::from(copies)).any(|i| self.has(first.wrapping_add(i)));
        self.note(number, overall);
        if duplicate {
            Arrival::Duplicate
        } else {
            Arrival::Fresh
        }
    }

    fn has(&self, number: u16) -> bool {
        let Some(highest) = self.highest else {
            return false;
        };
        let below = highest.wrapping_sub(number);
        below < WINDOW && self.arrived & (1 << below) != 0
    }

    fn note(&mut self, number: u16, overall: &mut Overall) {
        let Some(highest) = self.highest else {
            self.begin(number);
            return;
        };
        let ahead = number.wrapping_sub(highest);
        let below = highest.wrapping_sub(number);
        if ahead == 0 {
            return;
        }
        if ahead < WINDOW {
            self.highest = Some(number);
            self.arrived = (self.arrived << ahead) | 1;
            let missed = u32::from((ahead - 1).min(MAX_GAP));
            self.inbound.add(missed + 1, missed, PATH_MEMORY);
            overall.inbound.add(missed + 1, missed, NODE_MEMORY);
        } else if below < WINDOW {
            if self.arrived & (1 << below) == 0 {
                self.arrived |= 1 << below;
                self.inbound.found();
                overall.inbound.found();
            }
        } else {
            self.begin(number);
        }
    }

    fn begin(&mut self, number: u16) {
        self.highest = Some(number);
        self.arrived = 1;
    }
}

fn copies_for(loss: u8, now: u8) -> u8 {
    let stays =
        |threshold: u8| u16::from(loss) * BACK_DENOMINATOR >= u16::from(threshold) * BACK_NUMERATOR;
    if loss >= THREE_COPIES || (now >= 3 && stays(THREE_COPIES)) {
        3
    } else if loss >= TWO_COPIES || (now >= 2 && stays(TWO_COPIES)) {
        2
    } else {
        1
    }
}

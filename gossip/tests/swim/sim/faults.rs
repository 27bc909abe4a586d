//! What can go wrong.

use super::{Happening, Sim};

impl Sim {
    /// The process is gone.
    pub fn kill(&mut self, index: usize) {
        self.nodes[index].up = false;
    }

    /// The process starts again, with nothing but its boot count and a seed.
    pub fn restart(&mut self, index: usize, through: usize) {
        let boot = self.nodes[index].boot + 1;
        let machine = self.machine(index, boot);
        let node = &mut self.nodes[index];
        node.machine = machine;
        node.boot = boot;
        node.up = true;
        node.frozen_until = 0;
        node.waiting.clear();
        node.timer = None;
        self.plan(index);
        self.join(index, through);
    }

    /// The process stands still.
    pub fn freeze(&mut self, index: usize, ms: u64) {
        self.figures.stalls += 1;
        let until = self.now + ms;
        self.nodes[index].frozen_until = until;
        self.push(until, Happening::Thaw { node: index });
    }

    pub fn is_frozen(&self, index: usize) -> bool {
        self.nodes[index].frozen_until > self.now
    }

    /// Nothing gets from one to the other, in this direction.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    /// Datagrams do not get from one to the other; the reliable path does.
    pub fn cut_datagrams(&mut self, from: usize, to: usize) {
        self.lossy_cuts.insert((from, to));
    }

    /// Nothing between the nodes below `border` and the others.
    pub fn partition(&mut self, border: usize) {
        for low in 0..border {
            for high in border..self.nodes.len() {
                self.cut(low, high);
                self.cut(high, low);
            }
        }
    }

    pub fn isolate(&mut self, index: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != index) {
            self.cut(index, other);
            self.cut(other, index);
        }
    }

    pub fn mend(&mut self) {
        self.cuts.clear();
        self.lossy_cuts.clear();
    }
}

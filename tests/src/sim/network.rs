//! The virtual network: what happens to a packet between two nodes.

use std::collections::BTreeSet;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

/// Properties of all links.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Smallest one-way delay in microseconds.
    pub delay_min: u64,
    /// Largest one-way delay in microseconds; a spread reorders packets.
    pub delay_max: u64,
    /// Share of datagrams that vanish.
    pub loss: f64,
    /// Share of datagrams that arrive twice.
    pub duplicated: f64,
}

impl Weather {
    /// A local network on a good day.
    pub const FAIR: Self = Self {
        delay_min: 200,
        delay_max: 2_000,
        loss: 0.0,
        duplicated: 0.0,
    };
    /// A radio link on a bad one.
    pub const FOUL: Self = Self {
        delay_min: 1_000,
        delay_max: 40_000,
        loss: 0.2,
        duplicated: 0.05,
    };
}

/// Which links carry what.
#[derive(Debug)]
pub struct Network {
    weather: Weather,
    /// Directed links that carry nothing.
    cut: BTreeSet<(usize, usize)>,
}

impl Network {
    /// All links whole.
    pub fn new(weather: Weather) -> Self {
        Self {
            weather,
            cut: BTreeSet::new(),
        }
    }

    /// Changes the weather.
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// Whether packets get from one node to the other at all.
    pub fn carries(&self, from: usize, to: usize) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// Whether a connection between the two can live.
    pub fn connects(&self, a: usize, b: usize) -> bool {
        self.carries(a, b) && self.carries(b, a)
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// Mends everything.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Delays in microseconds after which copies of a datagram arrive: none, one or two.
    pub fn datagram(&self, from: usize, to: usize, rng: &mut ChaCha8Rng) -> Vec<u64> {
        // The draws do not depend on the cut, so that mending a link does not shift all chance.
        let lost = rng.random_bool(self.weather.loss);
        let twice = rng.random_bool(self.weather.duplicated);
        let (first, second) = (self.delay(rng), self.delay(rng));
        match (self.carries(from, to) && !lost, twice) {
            (false, _) => Vec::new(),
            (true, false) => vec![first],
            (true, true) => vec![first, second],
        }
    }

    /// Delay of a message on a live connection: a lost packet is sent again after a round trip or
    /// so. `None` while the link is cut.
    pub fn message(&self, from: usize, to: usize, rng: &mut ChaCha8Rng) -> Option<u64> {
        let mut delay = self.delay(rng);
        let mut again = 0;
        while again < 8 && rng.random_bool(self.weather.loss) {
            delay += 3 * self.weather.delay_max + 25_000;
            again += 1;
        }
        self.connects(from, to).then_some(delay)
    }

    fn delay(&self, rng: &mut ChaCha8Rng) -> u64 {
        rng.random_range(self.weather.delay_min..=self.weather.delay_max)
    }
}
